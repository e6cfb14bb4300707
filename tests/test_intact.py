"""A whole checkpoint is verified by a short way: what it says is what the long way says."""

from __future__ import annotations

import shutil
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

import ckptparse
from ckptparse.examination.intact import find_intact
from ckptparse.examination.readers import DataFiles
from ckptparse.examination.survey import survey_path
from ckptparse.files.context import begin

FIXTURES = Path(__file__).parents[1] / "fixtures"
INDEXES = sorted(path.relative_to(FIXTURES) for path in FIXTURES.rglob("*.index"))


def short_way(prefix: str) -> ckptparse.Report | None:
    place, context = begin(prefix)
    with closing(DataFiles(context)) as files:
        return find_intact(survey_path(place, context), files)


def long_way(prefix: str, monkeypatch: pytest.MonkeyPatch) -> ckptparse.Report:
    with monkeypatch.context() as patch:
        patch.setattr("ckptparse.examination.verify.find_intact", lambda *_: None)
        return ckptparse.verify(prefix)


def everything(report: ckptparse.Report) -> tuple[object, ...]:
    return report.to_dict(), list(report.tensors), list(report.files), str(report), report.problems


def values_of(tensor: ckptparse.RecoveredTensor) -> object:
    """The values, or what is said instead."""
    try:
        values = tensor.read()
    except ckptparse.CheckpointError as error:
        return str(error)
    if values.dtype == object:
        return list(map(str, values.flat))
    return values.dtype, values.shape, values.tobytes()


@pytest.mark.parametrize("index", INDEXES, ids=str)
def test_both_ways_say_the_same(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(FIXTURES / index)
    assert everything(ckptparse.verify(path)) == everything(long_way(path, monkeypatch))


@pytest.mark.parametrize("index", INDEXES, ids=str)
def test_recovery_gives_the_same_by_both_ways(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = FIXTURES / index
    found = ckptparse.recover(path)
    monkeypatch.setattr("ckptparse.recovery.recover.find_intact", lambda *_: None)
    wanted = ckptparse.recover(path)
    assert everything(found.report) == everything(wanted.report)
    assert list(found) == list(wanted)
    assert (found.whole, found.untouched) == (wanted.whole, wanted.untouched)
    for name, tensor in wanted.items():
        assert repr(found[name]) == repr(tensor)
        assert values_of(found[name]) == values_of(tensor)
    assert (found.object_graph is None) == (wanted.object_graph is None)
    if wanted.object_graph is not None and found.object_graph is not None:
        assert values_of(found.object_graph) == values_of(wanted.object_graph)


def test_most_fixtures_go_the_short_way() -> None:
    taken = [short_way(str(FIXTURES / index).removesuffix(".index")) for index in INDEXES]
    assert sum(report is not None for report in taken) > len(INDEXES) / 2


@pytest.mark.parametrize("name", ["model.index", "model.data-00000-of-00001"])
def test_no_changed_byte_is_overlooked(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = tmp_path / "model"
    for path in (FIXTURES / "dtypes" / "integers").glob("model.*"):
        shutil.copy(path, tmp_path)
    assert short_way(str(prefix)) is not None
    damaged = tmp_path / name
    original = damaged.read_bytes()
    for at in range(len(original)):
        damaged.write_bytes(original[:at] + bytes([original[at] ^ 0x10]) + original[at + 1 :])
        found = short_way(str(prefix))
        if found is not None:
            assert everything(found) == everything(long_way(str(prefix), monkeypatch))
            assert name.endswith(".index")


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda data: data + b"\0", id="a byte follows"),
        pytest.param(lambda data: data[:-1], id="a byte is missing"),
    ],
)
def test_a_data_file_that_is_not_filled_takes_the_long_way(change: object, tmp_path: Path) -> None:
    for path in (FIXTURES / "dtypes" / "integers").glob("model.*"):
        shutil.copy(path, tmp_path)
    shard = tmp_path / "model.data-00000-of-00001"
    assert callable(change)
    shard.write_bytes(change(shard.read_bytes()))
    assert short_way(str(tmp_path / "model")) is None


def test_reports_are_made_when_they_are_asked_for(tmp_path: Path) -> None:
    tensors = {f"t{i:05d}": np.full(4, i, np.float32) for i in range(3000)}
    ckptparse.write(tmp_path / "model", tensors)
    report = ckptparse.verify(tmp_path / "model")
    assert report.ok
    assert report.counts == {"verified": 3000}
    assert len(report.tensors) == 3000
    assert report.tensors["t00007"].shape == (4,)
    with pytest.raises(KeyError):
        report.tensors["t7"]


def test_progress_reaches_the_end(tmp_path: Path) -> None:
    tensors = {f"t{i:05d}": np.full(400, i, np.float32) for i in range(2000)}
    ckptparse.write(tmp_path / "model", tensors)
    calls: list[tuple[int, int]] = []
    ckptparse.verify(tmp_path / "model", progress=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (3_200_000, 3_200_000)
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)
