"""A whole checkpoint is verified by a short way: what it says is what the long way says."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import builder
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


ROWS: list[builder.Extents] = [[(0, 2), None], [(2, 1), None]]


def sliced() -> builder.Bundle:
    """Three rows in two slices, one of them in a data file of its own, between other tensors."""
    made = builder.Bundle()
    made.add("a", np.arange(2, dtype=np.int32))
    made.add_sliced("v", np.arange(6, dtype=np.float32).reshape(3, 2), ROWS, shards=[0, 1])
    made.add("z", np.arange(3, dtype=np.float64), shard=1)
    return made


def test_slices_that_fit_their_tensor_go_the_short_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = str(tmp_path / "m")
    sliced().write(tmp_path / "m")
    found = short_way(prefix)
    assert found is not None
    assert list(found.tensors) == ["a", "v", "z"]
    assert everything(ckptparse.verify(prefix)) == everything(long_way(prefix, monkeypatch))
    recovered = ckptparse.recover(prefix)
    assert recovered.untouched
    np.testing.assert_array_equal(recovered["v"].read(), np.arange(6.0).reshape(3, 2))
    assert short_way(str(FIXTURES / "slices" / "partitioned_variable" / "model.ckpt")) is not None


@pytest.mark.parametrize("name", ["m.index", "m.data-00000-of-00002", "m.data-00001-of-00002"])
def test_no_changed_byte_is_overlooked_among_slices(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sliced().write(tmp_path / "m")
    original = (tmp_path / name).read_bytes()
    for at in range(len(original)):
        changed = original[:at] + bytes([original[at] ^ 0x10]) + original[at + 1 :]
        (tmp_path / name).write_bytes(changed)
        found = short_way(str(tmp_path / "m"))
        if found is not None:
            assert everything(found) == everything(long_way(str(tmp_path / "m"), monkeypatch))
            assert name == "m.index"


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda made: made.entries.pop(KEYS[1]), id="a slice is not stored"),
        pytest.param(lambda made: made.change("v", shape=(4, 2)), id="a row has no slice"),
        pytest.param(lambda made: made.change("v", slices=(ROWS[0], ROWS[0])), id="they overlap"),
        pytest.param(lambda made: made.change("v", slices=(ROWS[0], [(2, 2), None])), id="beyond"),
        pytest.param(lambda made: made.change("v", dtype=3), id="another kind"),
        pytest.param(lambda made: made.change(KEYS[1], shape=(2, 1)), id="another shape"),
        pytest.param(lambda made: made.change(KEYS[1], slices=(ROWS[1],)), id="a slice in slices"),
        pytest.param(lambda made: made.change("v", size=4), id="bytes of its own"),
        pytest.param(lambda made: made.add(STRAY, np.zeros((1, 2), "f4")), id="an orphan"),
    ],
)
def test_slices_that_do_not_fit_their_tensor_take_the_long_way(
    change: Callable[[builder.Bundle], object], tmp_path: Path
) -> None:
    made = sliced()
    change(made)
    made.write(tmp_path / "m")
    assert short_way(str(tmp_path / "m")) is None


KEYS = [builder.slice_key("v", extents) for extents in ROWS]
STRAY = builder.slice_key("w", [(0, 1), None])


def test_an_object_graph_in_slices_takes_the_long_way(tmp_path: Path) -> None:
    made = builder.Bundle()
    shape = np.zeros((5, 0, 2), np.float32)
    made.add_sliced(
        "_CHECKPOINTABLE_OBJECT_GRAPH", shape, [[None, None, (0, 1)], [None, None, (1, 1)]]
    )
    made.write(tmp_path / "m")
    assert short_way(str(tmp_path / "m")) is None
    assert not ckptparse.verify(tmp_path / "m").ok


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_first_data_files_may_have_no_tensors(
    count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = builder.Bundle()
    for number in range(count):
        made.add(f"t{number}", np.arange(3.0), shard=2)
    made.shards[1] = bytearray()
    made.write(tmp_path / "m")
    prefix = str(tmp_path / "m")
    found = short_way(prefix)
    assert found is not None
    assert found.ok
    assert found.tensors.keys() == long_way(prefix, monkeypatch).tensors.keys()


def test_bytes_between_the_last_tensors_are_seen_if_the_first_data_file_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = builder.Bundle()
    made.add("a", np.float32(1), shard=1)
    made.put(b"gap", shard=1)
    made.add("b", np.float32(2), shard=1)
    made.write(tmp_path / "m")
    prefix = str(tmp_path / "m")
    assert short_way(prefix) is None
    kinds = [part.kind for part in list(ckptparse.verify(prefix).files.values())[-1].ranges]
    assert kinds == ["verified", "unreferenced", "verified"]


def test_no_bytes_are_absent_because_of_an_empty_tensor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = builder.Bundle()
    made.add("a", np.arange(3.0))
    made.add("e", np.zeros((0, 4)), offset=1000)
    made.write(tmp_path / "m")
    prefix = str(tmp_path / "m")
    assert short_way(prefix) is not None
    assert everything(ckptparse.verify(prefix)) == everything(long_way(prefix, monkeypatch))


def test_strings_in_slices_take_the_long_way(tmp_path: Path) -> None:
    made = builder.Bundle()
    made.add_sliced("s", np.array([b"x", b"yy", b""], object), [[(0, 2)], [(2, 1)]])
    made.write(tmp_path / "m")
    assert short_way(str(tmp_path / "m")) is None
    assert ckptparse.verify(tmp_path / "m").ok


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
