"""Reports of very many tensors: what is not shown is not made, and what is shown is bounded."""

from __future__ import annotations

import io
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any
from unittest import mock

import builder
import numpy as np
import pytest

import ckptparse
from ckptparse.cli import main
from ckptparse.examination.intact import IntactTensors
from ckptparse.examination.plain_rows import PlainRows

COUNT = 3_000


def _scalars(directory: Path, *, crc: int | None = None) -> str:
    bundle = builder.Bundle()
    data = np.arange(COUNT, dtype=np.float32)
    for number, value in enumerate(data):
        name = f"t{number:05}"
        if crc is None:
            bundle.add(name, value)
        else:
            bundle.entries[name.encode()] = builder.Entry(
                builder.FLOAT, (), offset=4 * number, size=4, crc=crc
            )
    if crc is not None:
        bundle.put(data.tobytes())
    return bundle.write(directory / "m")


def _count(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> list[Any]:
    made: list[Any] = []
    function = getattr(owner, name)

    def stand_in(*args: Any, **options: Any) -> Any:
        made.append(args)
        return function(*args, **options)

    monkeypatch.setattr(owner, name, stand_in)
    return made


def _printed(*words: str) -> list[list[str]]:
    out = io.StringIO()
    argv = mock.patch("sys.argv", ["ckptparse", *words])
    with argv, redirect_stdout(out), pytest.raises(SystemExit):
        main()
    return [line.split("\t") for line in out.getvalue().splitlines()]


def test_reports_of_whole_tensors_are_not_made_to_be_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = _scalars(tmp_path)
    made = _count(monkeypatch, IntactTensors, "report")
    assert _printed("verify", "--map", prefix)[0][2] == "ok"
    report = ckptparse.verify(prefix)
    assert report.patches == ()
    assert not made
    # A notebook shows the first few.
    assert "more" in report._repr_html_()
    assert len(made) < COUNT // 10


def test_the_entry_of_a_damaged_tensor_is_decoded_once_for_its_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recovery = ckptparse.recover(_scalars(tmp_path, crc=7), limits=ckptparse.Limits(attempts=1))
    described = _count(monkeypatch, PlainRows, "payload")
    recovery.report.to_dict()
    assert len(described) <= COUNT


def test_records_of_damaged_tensors_are_as_many_as_json_lists(tmp_path: Path) -> None:
    prefix = _scalars(tmp_path, crc=7)
    limit = ["--limit", "small_tensors=4000"]
    rows = _printed("verify", *limit, prefix)
    shown = [row for row in rows if row[0] == "tensor"]
    listed = ckptparse.verify(prefix, limits=ckptparse.Limits(small_tensors=4_000)).to_dict()
    assert len(shown) == len(listed["tensors"]) == COUNT - listed["unlisted"]
    assert ["unlisted", str(COUNT - len(shown))] in rows
    assert not [row for row in _printed("verify", prefix) if row[0] == "unlisted"]
