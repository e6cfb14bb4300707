"""Thousands of tensors that lie in another order: each place is tried once, for all sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from crc32c import crc32c

import ckptparse
from ckptparse.crc.windows import Wanted
from ckptparse.files.memory import MemorySource
from ckptparse.recovery.evidence.fitting import Fitting
from ckptparse.recovery.evidence.tiled import Tiler

COUNT = 600
CHANCE = 1e-3 / 4


def noise(size: int, seed: int) -> bytes:
    return np.random.default_rng(seed).bytes(size)


def tensors() -> list[bytes]:
    """Of sizes that are all different, in any order."""
    sizes = 200 + 4 * np.random.default_rng(1).permutation(COUNT)
    return [noise(size, 50 + number) for number, size in enumerate(sizes.tolist())]


def counted(runs: list[bytes]) -> dict[Wanted, int]:
    found: dict[Wanted, int] = {}
    for one in runs:
        item = Wanted(len(one), crc32c(one))
        found[item] = found.get(item, 0) + 1
    return found


def shuffled(directory: Path, count: int) -> dict[str, np.ndarray[Any, Any]]:
    """Write a checkpoint whose data file has small tensors in another order."""
    rng = np.random.default_rng(2)
    made = {
        f"w{number:05}": rng.standard_normal(size, "f4")
        for number, size in enumerate(rng.integers(20, 35, count).tolist())
    }
    ckptparse.write(directory / "m", made)
    (data,) = directory.glob("m.data*")
    names = rng.permutation(list(made)).tolist()
    data.write_bytes(b"".join(made[name].tobytes() for name in names))
    return made


def test_what_lies_end_to_end_is_tried_once_for_each_run(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = tensors()
    tried = 0
    real = Fitting.beginning_at

    def counting(self: Fitting, start: int, room: int) -> Wanted | None:
        nonlocal tried
        tried += 1
        return real(self, start, room)

    monkeypatch.setattr(Fitting, "beginning_at", counting)
    tiler = Tiler(MemorySource("x", b"".join(runs)), counted(runs), [], CHANCE)
    assert [item for item, _ in tiler.find()] == list(counted(runs))
    assert tried == COUNT
    assert 0 < tiler.chance < 1e-6


def test_runs_before_a_known_one_are_found_backwards() -> None:
    runs = tensors()
    whole = b"".join(runs)
    data = noise(1000, 9) + whole
    known = (len(data) - len(runs[-1]), len(data))
    tiler = Tiler(MemorySource("x", data), counted(runs[:-1]), [known], CHANCE)
    assert {item for item, _ in tiler.find()} == set(counted(runs[:-1]))
    assert 0 < tiler.chance <= CHANCE


def test_one_that_is_there_twice_is_passed_twice_and_small_ones_and_zeros_are_passed_over() -> None:
    first, second, third, fourth, fifth = tensors()[:5]
    step, rate, zeros = b"\7\0\0\0\0\0\0\0", b"abcd", bytes(3000)
    runs = [first, second, step, rate, third, second, zeros, fourth, rate, fifth]
    tiler = Tiler(MemorySource("x", b"".join(runs)), counted(runs), [], CHANCE)
    found = [item for item, _ in tiler.find()]
    told = [first, second, step, third, second, fourth, fifth]
    assert found == [Wanted(len(one), crc32c(one)) for one in told]


def test_damaged_ones_between_are_passed_over_and_noise_alone_is_not_searched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runs = tensors()[:200]
    data = bytearray(b"".join(runs))
    ends = np.cumsum([len(one) for one in runs]).tolist()
    damaged = range(20, 200, 40)
    for number in damaged:
        data[ends[number] - 50] ^= 1
    tiler = Tiler(MemorySource("x", bytes(data)), counted(runs), [], CHANCE)
    whole = [one for number, one in enumerate(runs) if number not in damaged]
    assert {item for item, _ in tiler.find()} == set(counted(whole))
    assert 0 < tiler.chance <= CHANCE
    monkeypatch.setattr("ckptparse.recovery.evidence.tiled.Registers", None)
    alone = Tiler(MemorySource("x", noise(100_000, 3)), counted(runs), [], CHANCE)
    assert not list(alone.find())


@pytest.mark.parametrize("step", [8, 64, 4096])
def test_multiples_at_which_runs_begin_are_found_where_nothing_is_known(step: int) -> None:
    runs, data = tensors()[:50], b""
    for one in runs:
        data += bytes(-len(data) % step) + one
    tiler = Tiler(MemorySource("x", data), counted(runs), [], CHANCE)
    assert {item for item, _ in tiler.find()} == set(counted(runs))


def test_tensors_that_lie_elsewhere_in_their_file_take_no_attempt(tmp_path: Path) -> None:
    """More come back than `Limits.attempts` allows repairs."""
    made = shuffled(tmp_path, 1200)
    recovery = ckptparse.recover(tmp_path / "m", limits=ckptparse.Limits(attempts=8))
    assert len(recovery) == len(made)
    counts = recovery.report.counts
    assert counts.get("corrected", 0) + counts.get("verified", 0) == len(made)
    for name in list(made)[::100]:
        assert recovery[name].read().tobytes() == made[name].tobytes()
        assert recovery[name].chance is None or recovery[name].chance <= 1e-3


def test_more_tensors_are_sought_in_evidence_than_are_repaired(tmp_path: Path) -> None:
    made = shuffled(tmp_path, 300)
    (data,) = tmp_path.glob("m.data*")
    (tmp_path / "dump").write_bytes(noise(1000, 4) + data.read_bytes() + noise(77, 5))
    data.unlink()
    limits = ckptparse.Limits(attempts=64)
    recovery = ckptparse.recover(tmp_path / "m", evidence=[tmp_path / "dump"], limits=limits)
    assert len(recovery) == len(made)
    assert all(recovery[name].read().tobytes() == one.tobytes() for name, one in made.items())
