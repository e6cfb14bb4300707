"""The index is lost, and TensorFlow's own files beside the data say what it was."""

from __future__ import annotations

import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import builder
import numpy as np
import pytest

import ckptparse
from ckptparse.recovery.rebuild import view
from ckptparse.recovery.rebuild.nearness import _correlate


def record(data: bytes) -> bytes:
    head = struct.pack("<Q", len(data))
    checks = [builder.fixed32(builder.masked_crc(part)) for part in (head, data)]
    return head + checks[0] + data + checks[1]


def check(recovery: ckptparse.Recovery, original: Path) -> None:
    """Compare all values; all of them are offered without proof."""
    expected = ckptparse.read(original)
    assert set(recovery) == set(expected)
    for name, value in expected.items():
        assert recovery[name].status == "unverified", name
        assert recovery[name].read().tobytes() == value.tobytes() or value.dtype == object
        assert recovery[name].read().tolist() == value.tolist()
        assert "no index describes it" in recovery[name].note or recovery[name].shape == (6, 3)


@pytest.fixture
def without_index(fixtures: Path, tmp_path: Path) -> Callable[[str, str], Path]:
    """Return a function that copies a case without its index."""

    def copy(case: str, index: str) -> Path:
        target = tmp_path / "case"
        shutil.copytree(fixtures / case, target)
        (target / index).unlink()
        return target

    return copy


def test_a_meta_graph_beside_the_data_gives_everything(
    without_index: Callable[[str, str], Path], fixtures: Path
) -> None:
    case = without_index("graphs/saver_to_rebuild", "model.index")
    check(ckptparse.recover(case / "model"), fixtures / "graphs/saver_to_rebuild/model")


def check_what_is_there(recovery: ckptparse.Recovery, original: Path) -> int:
    """Compare what is offered, without proof; return how many elements that are."""
    there = 0
    for name, value in ckptparse.read(original).items():
        if name in recovery:
            tensor = recovery[name]
            assert tensor.status == "unverified"
            mask = np.ma.getmaskarray(found := tensor.read())
            assert np.array_equal(np.ma.getdata(found)[~mask], value[~mask]), name
            there += int((~mask).sum())
    return there


@pytest.mark.parametrize("share", [0.3, 0.7, 0.95])
@pytest.mark.parametrize(
    ("name", "graph"),
    [
        ("graphs/saver_to_rebuild/model", "model.meta"),
        ("saved_model/keras2_sequential/variables/variables", "../saved_model.pb"),
    ],
)
def test_of_a_data_file_that_was_cut_off_too_its_own_graph_places_the_rest(
    name: str, graph: str, share: float, fixtures: Path, tmp_path: Path
) -> None:
    original, prefix = fixtures / name, tmp_path / name
    top = Path(*Path(name).parts[:2])
    shutil.copytree(fixtures / top, tmp_path / top)
    prefix.with_name(f"{prefix.name}.index").unlink()
    last = max(prefix.parent.glob(f"{prefix.name}.data-*"))
    raw = last.read_bytes()
    last.write_bytes(raw[: int(len(raw) * share)])
    recovery = ckptparse.recover(prefix)
    assert check_what_is_there(recovery, original) > 0
    notes = [one.note for one in recovery.values()]
    assert any("if the data files were cut off" in note for note in notes)
    # A graph that lies elsewhere may be that of another model.
    (prefix.parent / graph).rename(tmp_path / "elsewhere.pb")
    assert len(ckptparse.recover(prefix, evidence=[tmp_path / "elsewhere.pb"])) == 0


def run(directory: Path, seed: int, extra: int = 0) -> dict[str, np.ndarray[Any, Any]]:
    """Write two checkpoints of a run, and lose the index of the second and the end of its data.

    Args:
        directory: Where.
        seed: Of what training adds to the weights.
        extra: How many elements more the first one has, of something before all else.
    """
    rng = np.random.default_rng(0)
    first = {f"w{n}": rng.normal(0, 0.05, (20 + n, 30)).astype("<f4") for n in range(12)}
    noise = np.random.default_rng(seed)
    second = {
        name: (value + noise.normal(0, 0.01, value.shape)).astype("<f4")
        for name, value in first.items()
    }
    more = {"a": rng.normal(0, 0.05, extra).astype("<f4")} if extra else {}
    ckptparse.write(directory / "ckpt-1", {**more, **first})
    ckptparse.write(directory / "ckpt-2", second)
    (directory / "ckpt-2.index").unlink()
    data = directory / "ckpt-2.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:-12_000])
    return second


def test_of_a_data_file_that_was_cut_off_too_another_index_of_the_run_places_the_rest(
    tmp_path: Path,
) -> None:
    arrays = run(tmp_path, 1)
    recovery = ckptparse.recover(tmp_path / "ckpt-2")
    names = list(arrays)
    assert list(recovery) == names[:9]
    for name, tensor in recovery.items():
        found = tensor.read()
        mask = np.ma.getmaskarray(found)
        assert tensor.status == "unverified" and (not mask.any() or name == names[8])
        assert np.array_equal(np.ma.getdata(found)[~mask], arrays[name][~mask])
    assert "if the data files were cut off" in recovery[names[0]].note
    assert len(ckptparse.recover(tmp_path / "ckpt-2", siblings=False)) == 0


def test_few_layouts_are_kept_for_data_files_that_were_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrays = run(tmp_path, 1)
    for number in range(3, 20):
        ckptparse.write(tmp_path / f"ckpt-{number}", arrays)
    tried: list[int] = []
    find = view.find_cut_off

    def count(layouts: list[Any], *rest: Any) -> Any:
        tried.append(len(layouts))
        return find(layouts, *rest)

    monkeypatch.setattr(view, "find_cut_off", count)
    assert len(ckptparse.recover(tmp_path / "ckpt-2")) == 9
    assert tried == [8]


@pytest.mark.parametrize("extra", [1, 30, 6000])
def test_the_index_of_another_model_places_nothing_in_a_data_file_that_is_shorter(
    extra: int, tmp_path: Path
) -> None:
    run(tmp_path, 2, extra)
    assert len(ckptparse.recover(tmp_path / "ckpt-2")) == 0


def test_a_thousand_unrelated_runs_of_weights_are_not_near() -> None:
    rng = np.random.default_rng(3)
    near = sum(_correlate(rng.normal(size=64), rng.normal(size=64)) > 0.5 for _ in range(1000))
    assert near == 0
    assert _correlate(np.zeros(64), rng.normal(size=64)) == 0


def test_a_data_file_that_was_filled_up_with_zeros_is_read_by_its_own_graph(
    without_index: Callable[..., Path], fixtures: Path
) -> None:
    case = without_index("graphs/saver_to_rebuild", "model.index")
    last = max(case.glob("model.data-*"))
    raw = last.read_bytes()
    last.write_bytes(raw + bytes(-len(raw) % 4096))
    recovery = ckptparse.recover(case / "model")
    check(recovery, fixtures / "graphs/saver_to_rebuild/model")
    assert all("zeros follow the last one" in one.note for one in recovery.values() if one.note)
    last.write_bytes(raw + b"something else")
    assert len(ckptparse.recover(case / "model")) == 0


def test_a_meta_graph_elsewhere_gives_everything_if_it_is_named(
    without_index: Callable[[str, str], Path], fixtures: Path, tmp_path: Path
) -> None:
    case = without_index("graphs/saver_to_rebuild", "model.index")
    meta = tmp_path / "elsewhere.meta"
    (case / "model.meta").rename(meta)
    assert len(ckptparse.recover(case / "model")) == 0
    found = ckptparse.recover(case / "model", evidence=[meta])
    check(found, fixtures / "graphs/saver_to_rebuild/model")


def test_an_event_file_in_the_directory_gives_everything(
    without_index: Callable[[str, str], Path], fixtures: Path
) -> None:
    case = without_index("graphs/saver_to_rebuild", "model.index")
    meta = (case / "model.meta").read_bytes()
    (case / "model.meta").unlink()
    version = builder.field64(1, 0) + builder.field(3, b"brain.Event:2")
    log = record(version) + record(builder.field(9, meta))
    (case / "events.out.tfevents.1700000000.host").write_bytes(log)
    check(ckptparse.recover(case / "model"), fixtures / "graphs/saver_to_rebuild/model")
    assert len(ckptparse.recover(case / "model", siblings=False)) == 0


def test_an_event_file_elsewhere_gives_everything_if_it_is_named(
    without_index: Callable[[str, str], Path], fixtures: Path, tmp_path: Path
) -> None:
    case = without_index("graphs/saver_to_rebuild", "model.index")
    meta = case / "model.meta"
    version = builder.field64(1, 0) + builder.field(3, b"brain.Event:2")
    log = tmp_path / "logs" / "events.out.tfevents.1700000000.host"
    log.parent.mkdir()
    log.write_bytes(record(version) + record(builder.field(9, meta.read_bytes())))
    meta.unlink()
    for evidence in (log, log.parent):
        found = ckptparse.recover(case / "model", evidence=[evidence])
        check(found, fixtures / "graphs/saver_to_rebuild/model")


@pytest.mark.parametrize("case", ["keras2_sequential", "module"])
def test_another_saved_model_of_the_same_weights_gives_what_the_data_file_had(
    case: str, fixtures: Path, tmp_path: Path
) -> None:
    export, lost = tmp_path / "export", tmp_path / "run"
    shutil.copytree(fixtures / "saved_model" / case, export)
    shutil.copytree(export / "variables", lost)
    for data in lost.glob("variables.data-*"):
        data.unlink()
    recovery = ckptparse.recover(lost / "variables", evidence=[export])
    expected = ckptparse.read(export / "variables" / "variables")
    assert set(recovery) == set(expected)
    for name, value in expected.items():
        if value.size and value.dtype != object:
            assert recovery[name].status.proved, name
            assert recovery[name].read().tobytes() == value.tobytes()


@pytest.mark.parametrize("case", ["keras2_sequential", "keras3_export", "module"])
def test_a_saved_model_gives_its_variables(
    case: str, without_index: Callable[[str, str], Path], fixtures: Path
) -> None:
    (index,) = (fixtures / "saved_model" / case).rglob("variables.index")
    inside = index.relative_to(fixtures / "saved_model" / case)
    copied = without_index(f"saved_model/{case}", str(inside))
    check(ckptparse.recover(copied / inside.with_suffix("")), index.with_suffix(""))


def test_a_graph_of_another_model_gives_nothing(
    without_index: Callable[[str, str], Path], fixtures: Path
) -> None:
    case = without_index("graphs/saver_to_rebuild", "model.index")
    data = case / "model.data-00000-of-00002"
    data.write_bytes(data.read_bytes() + b"\0")
    assert len(ckptparse.recover(case / "model")) == 0
