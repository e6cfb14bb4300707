"""A closed checkpoint of any format says so; arrays that were read stay."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ckptparse
from ckptparse.examination.readers import DataFile, DataFiles
from ckptparse.files.context import Context
from ckptparse.files.local import LocalSource

CHECKPOINTS = {
    "v2": "saver/my_model",
    "v2 of strings": "dtypes/strings/model",
    "v2 in slices": "slices/columns/model",
    "v1": "v1/unsharded/model.ckpt-2",
    "v1 of several files": "v1/sharded/model.ckpt-7",
    "graph": "graphs/frozen_tf2/frozen.pb",
    "saved model": "saved_model/module",
}


def find(fixtures: Path, name: str) -> Path:
    path = fixtures / CHECKPOINTS[name]
    if not any(path.parent.glob(f"{path.name}*")):
        pytest.fail(f"no fixture {path}")
    return path


def is_closed(call: Callable[[], Any]) -> bool:
    try:
        call()
    except ckptparse.ClosedError:
        return True
    return False


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_after_closing_nothing_is_given_any_more(name: str, fixtures: Path) -> None:
    checkpoint = ckptparse.open(find(fixtures, name))
    key = next(iter(checkpoint))
    read, unread = checkpoint[key], checkpoint[list(checkpoint)[-1]]
    array = read.read()
    read.verify()
    kept = array.copy()
    checkpoint.close()
    checkpoint.close()
    for call in (
        lambda: checkpoint[key],
        lambda: list(checkpoint),
        lambda: len(checkpoint),
        lambda: key in checkpoint,
        lambda: checkpoint.get(key),
        lambda: list(checkpoint.values()),
        lambda: dict(checkpoint.items()),
        checkpoint.shapes,
        checkpoint.read,
        lambda: checkpoint.read([key]),
        lambda: checkpoint.orphan_slices,
        read.read,
        lambda: read[...],
        lambda: read[()],
        lambda: np.asarray(read),
        unread.read,
        unread.verify,
    ):
        assert is_closed(call), call
    assert array.tobytes() == kept.tobytes()
    assert checkpoint.path and checkpoint.format and checkpoint.num_shards
    assert str(checkpoint)


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_a_checkpoint_that_is_never_closed_prints_nothing(
    name: str, fixtures: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    checkpoint = ckptparse.open(find(fixtures, name))
    dict(checkpoint.items())
    del checkpoint
    gc.collect()
    assert capfd.readouterr().err == ""


def test_a_source_whose_descriptor_was_taken_away_goes_without_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unraisable: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", unraisable.append)
    (tmp_path / "x").write_bytes(b"x")
    source = LocalSource.open(str(tmp_path / "x"))
    os.close(source._descriptor.number)
    del source
    unmade = LocalSource.__new__(LocalSource)
    del unmade
    gc.collect()
    assert unraisable == []


def test_a_closed_file_is_not_mapped(tmp_path: Path) -> None:
    """A mapping of descriptor -1 would be memory of zeros, without an error."""
    (tmp_path / "x").write_bytes(b"x")
    source = LocalSource.open(str(tmp_path / "x"))
    source.close()
    source.close()
    for call in (source.map, lambda: source.read_at(0, 1)):
        with pytest.raises(ckptparse.ClosedError):
            call()


def test_a_file_that_repairs_have_asked_for_stays_open_while_others_are_opened(
    tmp_path: Path,
) -> None:
    found = []
    for number in range(100):
        path = tmp_path / str(number)
        path.write_bytes(b"%03d" % number)
        found.append(DataFile(str(path)))
    with closing(DataFiles(Context())) as files:
        assert all(files.size(file) for file in found[:64])
        first = files.source(found[0])
        assert all(files.size(file) for file in found[64:])
        assert first.read_at(0, 3) == b"000"
