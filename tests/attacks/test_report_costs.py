"""Reports of very many tensors: what is not shown is not made, and what is shown is bounded."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any
from unittest import mock

import builder
import numpy as np
import pytest

import ckptparse
from ckptparse import slices
from ckptparse.cli import main
from ckptparse.examination import encodings, index_reading, many_spans
from ckptparse.examination.intact import IntactTensors
from ckptparse.examination.plain_rows import PlainRows
from ckptparse.files.placing import check_elsewhere
from ckptparse.identification import tables
from ckptparse.inventory import folders, parts
from ckptparse.recovery import doubt
from ckptparse.rendering.page import choosing, measuring

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
    limit = ["--limit", f"small_tensors={8 * COUNT}"]
    assert not [row for row in _printed("verify", *limit, prefix) if row[0] == "unlisted"]


def test_what_was_not_got_back_is_not_made_for_forensic_tools(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recovery = ckptparse.recover(_scalars(tmp_path, crc=7), limits=ckptparse.Limits(attempts=1))
    described = _count(monkeypatch, PlainRows, "payload")
    recovery.to_dfxml()
    assert len(described) < COUNT // 10


@pytest.mark.parametrize("job", [ckptparse.verify, ckptparse.recover])
@pytest.mark.parametrize("cut", [4, 12], ids=["between tensors", "within one"])
def test_forensic_tools_are_told_of_all_that_is_there(
    tmp_path: Path, job: Callable[..., ckptparse.Report | ckptparse.Recovery], cut: int
) -> None:
    bundle = builder.Bundle()
    for number in range(COUNT):
        entry = builder.Entry(builder.FLOAT, (2,), offset=8 * number, size=8, crc=7)
        bundle.entries[f"t{number:05}".encode()] = entry
    bundle.put(np.arange(2 * COUNT, dtype=np.float32).tobytes())
    prefix = bundle.write(tmp_path / "m")
    data = tmp_path / "m.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:-cut])
    found = job(prefix, limits=ckptparse.Limits(attempts=1))
    report = found if isinstance(found, ckptparse.Report) else found.report
    tensors = report.to_dict()["tensors"]
    told = [name for name, one in tensors.items() if one["status"] not in ("corrupt", "missing")]
    xml = found.to_dfxml()
    assert [name for name in tensors if f">{name}<" in xml] == told


def test_the_index_is_read_once_to_know_a_data_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = _count(monkeypatch, tables, "_open_index")
    ckptparse.recover(_scalars(tmp_path, crc=7), limits=ckptparse.Limits(attempts=1))
    assert len(opened) == 1


def test_the_patches_of_a_block_are_told_once_and_of_one_of_its_tensors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = builder.Bundle()
    for number in range(COUNT):
        bundle.add(f"t{number:05}", np.float32(number))
    prefix = bundle.write(tmp_path / "m", block_size=4096)
    index = tmp_path / "m.index"
    contents = bytearray(index.read_bytes())
    for place in range(2048, len(contents) - 4096, 8192):
        contents[place] ^= 1
    index.write_bytes(contents)
    report = ckptparse.recover(prefix).report
    wanted = dict.fromkeys(patch for one in report.tensors.values() for patch in one.patches)
    assert len(wanted) > 5
    described = _count(monkeypatch, PlainRows, "payload")
    assert report.patches == tuple(wanted)
    assert len(described) <= 2 * len(wanted)


def test_what_lies_beside_a_torn_index_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = Path(_scalars(tmp_path))
    for path in tmp_path.glob("m.*"):
        (tmp_path / f"n{path.name[1:]}").write_bytes(path.read_bytes())
    index = bytearray((tmp_path / "n.index").read_bytes())
    index[len(index) // 2] ^= 0xFF
    (tmp_path / "n.index").write_bytes(index)
    prefix.with_name("m.data-00000-of-00001").write_bytes(bytes(4 * COUNT))
    salvaged = _count(monkeypatch, index_reading, "salvage_table")
    singly = _count(monkeypatch, tables, "decode_entry")
    report = ckptparse.recover(tmp_path / "n").report
    assert [other.path for other in report.others] == [str(prefix)]
    assert report.others[0].share < 1
    assert sorted(args[1] for args in salvaged) == [f"{tmp_path / one}.index" for one in "mn"]
    assert len(singly) < COUNT // 10


def test_names_of_data_files_are_taken_to_pieces_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(COUNT):
        (tmp_path / f"m{number:04}.data-00000-of-00001").write_bytes(b"x")
    split = [_count(monkeypatch, owner, "split_data_path") for owner in (folders, parts)]
    with pytest.raises(ckptparse.NotACheckpointError):
        ckptparse.open(tmp_path)
    assert sum(map(len, split)) < COUNT + 100


def test_inputs_of_one_directory_are_asked_for_once_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").mkdir()
    paths = [tmp_path / "in" / f"{number}" for number in range(50)]
    for path in paths:
        path.touch()
    asked = [
        _count(monkeypatch, owner, name)
        for owner, name in ((os, "lstat"), (os, "stat"), (os.path, "isfile"), (os.path, "islink"))
    ]
    check_elsewhere(tmp_path / "out" / "made", list(map(str, paths)))
    assert sum(len([one for one in args if str(one[0]) in map(str, paths)]) for args in asked) == 50


def test_of_many_small_files_little_is_asked_of_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, files, each = builder.Bundle(), 60, 25
    for number in range(files * each):
        bundle.entries[b"w%06d" % number] = builder.Entry(
            builder.FLOAT, (), offset=4 * (number // files % 2), size=4, shard=number % files, crc=7
        )
    for number in range(files):
        bundle.put(np.full(2, 1.5, np.float32).tobytes(), shard=number)
    prefix = bundle.write(tmp_path / "m")
    together = _count(monkeypatch, many_spans, "_compute")
    looked = _count(monkeypatch, doubt, "_look_at_value")
    report = ckptparse.recover(prefix, limits=ckptparse.Limits(attempts=80)).report
    assert len(report.tensors) == files * each
    assert not together
    assert looked
    # Two usual numbers are enough: more of them say no more.
    assert len(looked) <= 3 * files


def test_a_page_of_a_recovery_makes_what_it_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").mkdir()
    recovery = ckptparse.recover(_scalars(tmp_path / "in"))
    monkeypatch.setattr(choosing, "_MOST", 200)
    made = _count(monkeypatch, IntactTensors, "report")
    apart = _count(monkeypatch, measuring, "_measure")
    ckptparse.report_page(recovery, tmp_path / "page.html")
    assert "t00065" in (tmp_path / "page.html").read_text("utf-8")
    assert len(made) <= 5 * 66
    # Those that are small are measured together.
    assert not apart
    assert "t00000" in recovery and "no such name" not in recovery


def test_slices_are_not_made_to_know_a_data_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = builder.Bundle()
    bundle.add_sliced("s", np.zeros((64, 2), np.float32), builder.split_rows(64, 64, 2))
    bundle.add("w", np.zeros(3, np.float32))
    prefix = bundle.write(tmp_path / "m")
    made = _count(monkeypatch, slices, "_extent_from_proto")
    found = ckptparse.identify(f"{prefix}.data-00000-of-00001")
    assert found.kind == "v2-shard" and "index" not in found.detail
    assert not made


@pytest.mark.parametrize(
    "job",
    [
        lambda recovery, out: ckptparse.report_page(recovery, out / "page.html"),
        lambda recovery, out: ckptparse.convert(recovery, out / "m.npz"),
        lambda recovery, out: ckptparse.write(out / "m", recovery),
        lambda recovery, out: ckptparse.average([recovery, recovery]),
        lambda recovery, out: ckptparse.diff(recovery, dict(recovery)),
        lambda recovery, out: ckptparse.stats(recovery),
        lambda recovery, out: recovery.write(out / "m.npz"),
    ],
    ids=["page", "convert", "write", "average", "diff", "stats", "Recovery.write"],
)
def test_a_converted_file_is_converted_back_once_for_all_tensors(
    job: Callable[[ckptparse.Recovery, Path], object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    values = np.random.default_rng(1).normal(size=(200, 5)).astype(np.float32)
    bundle = builder.Bundle()
    for number, one in enumerate(values):
        bundle.add(f"t{number:03}", one)
    prefix = bundle.write(tmp_path / "in" / "m")
    data = tmp_path / "in" / "m.data-00000-of-00001"
    data.write_bytes(base64.encodebytes(data.read_bytes()))
    recovery = ckptparse.recover(prefix)
    assert len(recovery) == len(values)
    undone = _count(monkeypatch, encodings, "undo")
    job(recovery, tmp_path / "out")
    assert len(undone) <= 4
