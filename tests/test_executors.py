"""Work shared by executors: the same report, whoever computes."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path
from typing import Any

import builder
import numpy as np
import pytest

import ckptparse
from ckptparse.errors import StorageError
from ckptparse.examination import spread
from ckptparse.files.memory import MemoryStorage


class Counting(ThreadPoolExecutor):
    """Counts the pieces of work."""

    count = 0

    def submit(self, *arguments: Any, **named: Any) -> Future[Any]:
        self.count += 1
        return super().submit(*arguments, **named)


def many(directory: Path, shards: int = 12) -> Path:
    bundle = builder.Bundle()
    for number in range(60):
        bundle.add(
            f"t{number:02d}", np.full(100 + number, number, np.float32), shard=number % shards
        )
    bundle.add("empty", np.zeros((0, 3), np.float32))
    bundle.add("text", np.array([b"a", b"bc"], object))
    bundle.write(directory / "m")
    return directory / "m"


@pytest.fixture(scope="module")
def processes() -> Iterator[Executor]:
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as executor:
        yield executor


def test_threads_give_the_same_report(tmp_path: Path) -> None:
    path = many(tmp_path)
    with Counting(3) as executor:
        report = ckptparse.verify(path, executor=executor)
    assert executor.count > 0
    assert report.ok
    assert report.to_dict() == ckptparse.verify(path).to_dict()


def test_processes_give_the_same_report(tmp_path: Path, processes: Executor) -> None:
    path = many(tmp_path)
    report = ckptparse.verify(path, executor=processes)
    assert report.to_dict() == ckptparse.verify(path).to_dict()


@pytest.mark.parametrize("damage", ["flipped", "cut", "missing", "zeros"])
def test_damage_is_the_same_to_everybody(damage: str, tmp_path: Path, processes: Executor) -> None:
    path = many(tmp_path)
    shard = tmp_path / "m.data-00003-of-00012"
    data = bytearray(shard.read_bytes())
    if damage == "missing":
        shard.unlink()
    else:
        data[50] ^= damage == "flipped"
        data = (
            data[:700] if damage == "cut" else bytearray(len(data)) if damage == "zeros" else data
        )
        shard.write_bytes(data)
    wanted = ckptparse.verify(path).to_dict()
    assert not wanted["ok"]
    with ThreadPoolExecutor(2) as threads:
        assert ckptparse.verify(path, executor=threads).to_dict() == wanted
    assert ckptparse.verify(path, executor=processes).to_dict() == wanted


def test_a_large_tensor_is_shared_among_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spread, "_BUDGET", 1 << 16)
    bundle = builder.Bundle()
    bundle.add("w", np.random.default_rng(0).standard_normal(100_000).astype(np.float32))
    bundle.write(tmp_path / "m")
    with Counting(2) as executor:
        assert ckptparse.verify(tmp_path / "m", executor=executor).ok
    assert executor.count == 7


def test_progress_tells_of_the_work_of_others(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    path = many(tmp_path)
    with ThreadPoolExecutor(2) as executor:
        ckptparse.verify(path, executor=executor, progress=lambda a, b: told.append((a, b)))
    assert told[-1][0] == told[-1][1] > 0
    assert told == sorted(told)


class Dying(Executor):
    """Its workers die."""

    def submit(self, *_: Any, **__: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_exception(BrokenProcessPool("a process died"))
        return future


def test_the_failure_of_a_worker_names_the_part(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"data-000\d\d-of-00012' from byte \d+") as caught:
        ckptparse.verify(many(tmp_path), executor=Dying())
    assert "a process died" in str(caught.value)


class Unable(Executor):
    """Workers that cannot read what the caller reads."""

    def submit(self, *_: Any, **__: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_exception(ckptparse.UnsupportedError("no such package here"))
        return future


def test_a_worker_that_cannot_read_what_the_caller_can_is_told(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"A worker failed at .*no such package here"):
        ckptparse.verify(many(tmp_path), executor=Unable())


def test_processes_verify_what_lies_in_a_mapping(tmp_path: Path, processes: Executor) -> None:
    many(tmp_path)
    files = {one.name: one.read_bytes() for one in tmp_path.iterdir()}
    assert ckptparse.verify("m", store=files, executor=processes).ok


def test_what_cannot_be_sent_to_a_worker_is_told_as_such(
    tmp_path: Path, processes: Executor
) -> None:
    many(tmp_path)
    files = {one.name: open(one, "rb") for one in tmp_path.iterdir()}  # noqa: SIM115
    try:
        with pytest.raises(StorageError, match="pickle"):
            ckptparse.verify("m", store=files, executor=processes)
    finally:
        for file in files.values():
            file.close()


class Changing(MemoryStorage):
    """Its files are others for whoever asks a second time."""

    asked = 0

    def stat(self, path: str) -> Any:
        status = super().stat(path)
        self.asked += 1
        return None if status is None else replace(status, identity=str(self.asked))


def test_a_file_that_is_replaced_meanwhile_is_an_error(tmp_path: Path) -> None:
    many(tmp_path)
    storage = Changing({one.name: one.read_bytes() for one in tmp_path.iterdir()})
    with ThreadPoolExecutor(2) as executor, pytest.raises(StorageError, match="replaced"):
        ckptparse.verify("m", store=storage, executor=executor)


# Statistics.


def alike(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert {name: one.to_dict() for name, one in found.items()} == {
        name: one.to_dict() for name, one in wanted.items()
    }
    assert list(found) == list(wanted)


@pytest.mark.parametrize("histogram", [False, True])
def test_statistics_are_the_same_whoever_makes_them(
    histogram: bool, tmp_path: Path, processes: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ckptparse.jobs.spread_stats._BUDGET", 4000)
    path = many(tmp_path)
    wanted = ckptparse.stats(path, histogram=histogram)
    with Counting(3) as executor:
        alike(ckptparse.stats(path, histogram=histogram, executor=executor), wanted)
    assert executor.count > 5
    alike(ckptparse.stats(path, histogram=histogram, executor=processes), wanted)
    files = {one.name: one.read_bytes() for one in tmp_path.iterdir()}
    alike(ckptparse.stats("m", histogram=histogram, store=files, executor=processes), wanted)
    alike(
        ckptparse.stats(path, include="t1*", executor=processes),
        ckptparse.stats(path, include="t1*"),
    )


def test_statistics_of_values_and_of_variables_are_the_same(
    fixtures: Path, processes: Executor
) -> None:
    arrays = {"a": np.arange(9.0), "b": np.ones((2, 2), np.int8)}
    alike(ckptparse.stats(arrays, executor=processes), ckptparse.stats(arrays))
    for path in sorted(fixtures.glob("objects/*/*.index"))[:2]:
        wanted = ckptparse.stats(path, naming="variable")
        alike(ckptparse.stats(path, naming="variable", executor=processes), wanted)


def test_damage_is_an_error_that_names_the_tensor_whoever_measures(
    tmp_path: Path, processes: Executor
) -> None:
    path = many(tmp_path)
    shard = tmp_path / "m.data-00003-of-00012"
    data = bytearray(shard.read_bytes())
    data[50] ^= 1
    shard.write_bytes(data)
    with pytest.raises(ckptparse.ChecksumError) as caught:
        ckptparse.stats(path, executor=processes)
    assert caught.value.tensor == "t03"


def test_the_failure_of_a_worker_names_its_tensors(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="'t00' to 't59': BrokenProcessPool"):
        ckptparse.stats(many(tmp_path), executor=Dying())
    with pytest.raises(StorageError, match="tensor 't00': BrokenProcessPool"):
        ckptparse.convert(
            many(tmp_path), tmp_path / "out.npz", dtype="float16", include="t*", executor=Dying()
        )


def test_progress_tells_of_what_was_measured(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    path = many(tmp_path)
    with ThreadPoolExecutor(2) as executor:
        ckptparse.stats(path, executor=executor, progress=lambda a, b: told.append((a, b)))
    assert told[-1][0] == told[-1][1] > 0


# ----------------------------------------------------------------------------------- recovery


def lost_in_noise(directory: Path) -> tuple[Path, list[Path]]:
    """Write a checkpoint whose data is lost, and files that hold it somewhere among noise."""
    rng = np.random.default_rng(12)
    bundle = builder.Bundle()
    for number in range(6):
        bundle.add(f"t{number}", rng.standard_normal(2000 + number).astype(np.float32))
    directory.mkdir()
    bundle.write(directory / "m")
    shard = directory / "m.data-00000-of-00001"
    data = shard.read_bytes()
    shard.unlink()
    odd, image = directory.parent / "rescued.bin", directory.parent / "disk.img"
    odd.write_bytes(rng.bytes(90_004) + data[:20_000] + rng.bytes(100_004) + data[20_000:])
    image.write_bytes(rng.bytes(512 * 300) + data[: 512 * 60] + rng.bytes(512 * 301))
    return directory / "m", [odd, image]


def test_processes_recover_what_the_caller_does(
    tmp_path: Path, processes: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So that small files are searched in several pieces.
    monkeypatch.setattr("ckptparse.recovery.evidence.payloads._PIECE", 1 << 15)
    monkeypatch.setattr("ckptparse.recovery.images._PIECE", 1 << 16)
    path, evidence = lost_in_noise(tmp_path / "run")
    for files in (evidence, evidence[:1], evidence[1:]):
        alone = ckptparse.recover(path, evidence=files)
        assert len(alone) >= 4
        with Counting(2) as threads:
            shared = ckptparse.recover(path, evidence=files, executor=threads)
        assert threads.count >= 4
        others = ckptparse.recover(path, evidence=files, executor=processes)
        for found in (shared, others):
            assert found.report.to_dict() == alone.report.to_dict()
            assert {name: one.read().tobytes() for name, one in found.items()} == {
                name: one.read().tobytes() for name, one in alone.items()
            }


def test_a_worker_that_fails_at_a_search_is_told_with_file_and_bytes(tmp_path: Path) -> None:
    path, evidence = lost_in_noise(tmp_path / "run")
    for file in evidence:
        with pytest.raises(StorageError, match=rf"{file.name}' from byte 0 to byte \d+") as caught:
            ckptparse.recover(path, evidence=[file], executor=Dying())
        assert "a process died" in str(caught.value)


def test_a_file_that_is_another_for_the_workers_is_told(tmp_path: Path) -> None:
    path, evidence = lost_in_noise(tmp_path / "run")

    class Elsewhere(Executor):
        def submit(self, work: Any, *_: Any, **__: Any) -> Future[Any]:
            future: Future[Any] = Future()
            evidence[0].write_bytes(b"another")
            try:
                future.set_result(work())
            except StorageError as error:
                future.set_exception(error)
            return future

    with pytest.raises(StorageError, match="was replaced while it was read"):
        ckptparse.recover(path, evidence=evidence[:1], executor=Elsewhere())
