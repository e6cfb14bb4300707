"""Tensors in files of unknown kinds that are too large for one checksum to prove a place."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import builder
import numpy as np
import pytest
from crc32c import crc32c

import ckptparse
from ckptparse.crc.near import find_near
from ckptparse.crc.windows import Wanted
from ckptparse.examination import places
from ckptparse.examination.readers import DataFile, DataFiles
from ckptparse.files.memory import MemorySource
from ckptparse.limits import DEFAULT_LIMITS
from ckptparse.problems import EvidenceRule
from ckptparse.recovery.evidence import fitting, gather
from ckptparse.recovery.evidence.fitting import Allowance, Fitting
from ckptparse.recovery.evidence.payloads import find_payloads
from ckptparse.recovery.evidence.sought import Runs
from ckptparse.recovery.evidence.tiled import Tiler
from ckptparse.recovery.evidence.together import find_together

CHANCE = 1e-3 / 4
COUNT = 200
SIZES = [640 + 4 * (7 * number % 23) for number in range(COUNT)]


def noise(size: int, seed: int = 0) -> bytes:
    return np.random.default_rng(seed).integers(0, 256, size, np.uint8).tobytes()


TENSORS = [noise(size, number + 1) for number, size in enumerate(SIZES)]


def runs_of(tensors: list[bytes], lost: set[int] | None = None) -> Runs:
    sizes = np.array([len(one) for one in tensors], np.int64)
    crcs = np.array([crc32c(one) for one in tensors], np.int64)
    everything = np.ones(len(tensors), np.bool_)
    is_lost = everything if lost is None else np.isin(np.arange(len(tensors)), list(lost))
    return Runs(np.cumsum(sizes) - sizes, sizes, crcs, is_lost, everything)


def with_heads() -> bytes:
    return b"".join(
        noise(30 + number % 3, 900 + number) + one for number, one in enumerate(TENSORS)
    )


def in_pairs() -> bytes:
    """A kernel before its bias: each pair in the other order."""
    order = [number ^ 1 for number in range(COUNT)]
    return b"".join(bytes(40) + TENSORS[number] for number in order)


def in_any_order(step: int = 1, head: int = 0) -> bytes:
    """Every tensor with a head, at multiples of so many bytes."""
    data = b""
    for number in np.random.default_rng(7).permutation(COUNT).tolist():
        data += bytes(-len(data) % step) + noise(head, number) + TENSORS[number]
    return data


LAYOUTS: dict[str, Callable[[], bytes]] = {
    "a copy at an odd place": lambda: b"".join(TENSORS),
    "a name before each": with_heads,
    "pairs in the other order": in_pairs,
    "in any order": in_any_order,
    "in any order, with a head before each": lambda: in_any_order(head=40),
    "in any order, at multiples of 64": lambda: in_any_order(64),
    "in any order, each in pages of its own": lambda: in_any_order(4096),
    "each in pages of its own, behind a head": lambda: in_any_order(4096, 128),
    "with a gap": lambda: b"".join([*TENSORS[:90], noise(5001), *TENSORS[90:]]),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_tensors_that_lie_together_are_all_found(layout: str) -> None:
    data = noise(1001) + LAYOUTS[layout]() + noise(500)
    found = list(find_together(MemorySource("x", data), [runs_of(TENSORS)], (), chance=CHANCE))
    assert {match.wanted.crc for match in found} == {crc32c(one) for one in TENSORS}
    for match in found:
        run = data[match.offset : match.offset + match.wanted.size]
        assert crc32c(run) == match.wanted.crc
        assert 0 < match.chance <= CHANCE


def test_a_tensor_that_is_found_alone_is_not_taken_and_its_sound_neighbour_proves_it() -> None:
    alone = MemorySource("x", noise(1001) + TENSORS[5] + noise(6000, 3) + TENSORS[90])
    assert not list(find_together(alone, [runs_of(TENSORS, {5, 90})], (), chance=CHANCE))
    both = MemorySource("x", noise(1001) + TENSORS[5] + TENSORS[6] + noise(2000))
    (match,) = find_together(both, [runs_of(TENSORS, {5})], (), chance=CHANCE)
    assert (match.offset, match.wanted.size) == (1001, SIZES[5])


def test_a_thousand_tensors_that_are_not_there_are_not_found_together() -> None:
    for seed in range(5):
        tensors = [noise(size, 5000 + seed) for size in SIZES]
        data = noise(1 << 17, seed) + TENSORS[seed] + bytes(5000)
        assert not list(
            find_together(MemorySource("x", data), [runs_of(tensors)], (), chance=CHANCE)
        )


def test_beside_known_runs_a_thousand_files_of_noise_hold_no_others() -> None:
    wanted = {Wanted(size, crc32c(one)): 1 for size, one in zip(SIZES, TENSORS, strict=True)}
    for seed in range(1000):
        data = noise(20_000, 10_000 + seed)
        starts = np.sort(np.random.default_rng(seed).permutation(19)[:6] * 1000).tolist()
        spans = [(start, start + 600) for start in starts]
        tiler = Tiler(MemorySource("x", data), wanted, spans, CHANCE)
        assert not list(tiler.find())
        assert 0 < tiler.chance <= CHANCE


def test_no_more_is_tried_than_the_chance_allows() -> None:
    data = b"".join(TENSORS)
    wanted = [Wanted(size, crc32c(one)) for size, one in zip(SIZES, TENSORS, strict=True)]
    source = MemorySource("x", data + noise(5))
    tiler = Tiler(source, dict.fromkeys(wanted[1:], 1), [(0, SIZES[0])], 1e-11)
    # Each of them has the next behind it; of the last one nothing says that it is no chance.
    assert [item for item, _ in tiler.find()] == wanted[1:-1]
    assert 0 < tiler.chance <= 1e-11
    assert not list(Tiler(source, dict.fromkeys(wanted[1:], 1), [(0, SIZES[0])], 0.0).find())


@pytest.mark.parametrize("count", [40, 1000])
def test_what_is_sought_from_many_places_ends_at_its_allowance(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether sizes are tried one by one, or all at once."""
    monkeypatch.setattr(fitting, "_FREE_TRIES", 0)
    data = noise(1 << 17)
    wanted = {Wanted(100 + number, number): 1 for number in range(count)}
    spans = [(start + start % 7, start + 100) for start in range(0, 1 << 17, 1024)]
    allowance = Allowance()
    allowance.add(len(data))
    tried = 0
    real = Fitting.beginning_at

    def counting(self: Fitting, start: int, room: int) -> Wanted | None:
        nonlocal tried
        tried += not allowance.exceeded
        return real(self, start, room)

    monkeypatch.setattr(Fitting, "beginning_at", counting)
    source = MemorySource("x", data)
    assert not list(Tiler(source, wanted, spans, CHANCE, allowance=allowance).find())
    assert allowance.exceeded
    assert tried <= len(data) // 8 // 20


def test_runs_that_share_bytes_do_not_prove_each_other() -> None:
    whole = TENSORS[0]
    sizes = np.array([640, 600, 632], np.int64)
    starts = np.array([0, 0, 8], np.int64)
    crcs = np.array(
        [crc32c(whole[low : low + size]) for low, size in zip(starts, sizes, strict=True)], np.int64
    )
    everything = np.ones(3, np.bool_)
    runs = Runs(starts, sizes, crcs, everything, everything)
    source = MemorySource("x", noise(1000) + whole + noise(1000))
    assert not list(find_together(source, [runs], (), chance=CHANCE))


@pytest.mark.parametrize("ahead", [0, 1, 7, 1000])
def test_a_run_near_a_place_is_found_at_every_byte(ahead: int) -> None:
    for run in (b"\1", TENSORS[0], noise(70_000)):
        data = noise(ahead, 4) + run + noise(24, 5)
        assert ahead in find_near(data, len(run), crc32c(run))
        for place in find_near(data, len(run), crc32c(run)):
            assert data[place : place + len(run)] == run
        assert find_near(data[: len(run) - 1], len(run), crc32c(run)) == []


def test_files_of_the_evidence_share_what_one_checksum_may_prove(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = {f"w{number}": np.frombuffer(one, "<f4") for number, one in enumerate(TENSORS[:40])}
    ckptparse.write(tmp_path / "m.ckpt", made)
    (data,) = tmp_path.glob("m.ckpt.data*")
    (tmp_path / "alone").write_bytes(noise(1000) + TENSORS[5] + noise(2000))
    (tmp_path / "all").write_bytes(noise(77) + data.read_bytes() + noise(50))
    data.unlink()
    recovery = ckptparse.recover(tmp_path / "m.ckpt", evidence=[tmp_path / "alone"])
    assert list(recovery) == ["w5"]
    monkeypatch.setattr(gather, "_ALONE", 1e-9)
    assert not ckptparse.recover(tmp_path / "m.ckpt", evidence=[tmp_path / "alone"])
    files = [tmp_path / "alone", tmp_path / "all"]
    recovery = ckptparse.recover(tmp_path / "m.ckpt", evidence=files)
    assert {str(one.status) for one in recovery.values()} == {"corrected"}
    assert len(recovery) == 40
    assert all(recovery[name].read().tobytes() == one.tobytes() for name, one in made.items())


# ------------------------------------------------------------------------- the data file itself


def scattered(directory: Path, step: int = 1, keep: int = 0) -> dict[str, np.ndarray[Any, Any]]:
    """Write a checkpoint whose data file has the tensors in any order behind the first few."""
    made = {f"w{n:03}": np.frombuffer(one, "<f4") for n, one in enumerate(TENSORS)}
    ckptparse.write(directory / "m.ckpt", made)
    (data,) = directory.glob("m.ckpt.data*")
    raw = b"".join(TENSORS[:keep])
    for number in keep + np.random.default_rng(3).permutation(COUNT - keep):
        raw += bytes(-len(raw) % step) + TENSORS[number]
    data.write_bytes(raw)
    return made


@pytest.mark.parametrize(("step", "keep"), [(1, 0), (64, 0), (4096, 0), (1, 150)])
def test_a_data_file_in_any_order_gives_all_its_tensors(
    step: int, keep: int, tmp_path: Path
) -> None:
    made = scattered(tmp_path, step, keep)
    recovery = ckptparse.recover(tmp_path / "m.ckpt")
    assert len(recovery) == COUNT
    gathered = 0
    for name, tensor in recovery.items():
        assert tensor.status in ("verified", "corrected")
        assert tensor.read().tobytes() == made[name].tobytes()
        rules = [record.rule for record in tensor.evidence]
        gathered += EvidenceRule.GATHERED in rules
        if EvidenceRule.GATHERED in rules:
            assert tensor.chance is not None and 0 < tensor.chance <= 1e-3
    assert gathered > (0 if keep else 40)


def test_a_checksum_at_a_place_is_computed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scattered(tmp_path)
    asked: list[tuple[DataFile, int, int]] = []
    real = places.checksum_of

    def counting(files: DataFiles, file: DataFile, offset: int, size: int) -> int:
        asked.append((file, offset, size))
        return real(files, file, offset, size)

    monkeypatch.setattr(places, "checksum_of", counting)
    assert len(ckptparse.recover(tmp_path / "m.ckpt")) == COUNT
    assert len(asked) == len(set(asked))


def test_noise_in_place_of_a_data_file_gives_nothing(tmp_path: Path) -> None:
    scattered(tmp_path)
    (data,) = tmp_path.glob("m.ckpt.data*")
    for seed in range(5):
        data.write_bytes(noise(data.stat().st_size, 7777 + seed))
        recovery = ckptparse.recover(tmp_path / "m.ckpt")
        assert not [name for name, one in recovery.items() if one.status != "unverified"]


def test_of_a_lost_file_all_tiny_tensors_are_taken_that_were_found(tmp_path: Path) -> None:
    """More than so many as are mended one by one: these need no repair."""
    rng = np.random.default_rng(1)
    arrays = {f"t{n:05d}": rng.normal(size=2 + n % 3).astype(np.float32) for n in range(4000)}
    made = builder.Bundle()
    for name, array in arrays.items():
        made.add(name, array)
    made.write(tmp_path / "m")
    data = tmp_path / "m.data-00000-of-00001"
    (tmp_path / "dump").write_bytes(noise(1001) + data.read_bytes() + noise(77))
    data.unlink()
    recovery = ckptparse.recover(tmp_path / "m", evidence=[tmp_path / "dump"])
    proved = [name for name, tensor in recovery.items() if tensor.status.proved]
    assert len(proved) > 0.99 * len(arrays)
    assert all(np.array_equal(recovery[name].read(), arrays[name]) for name in proved)
    tensor = recovery[proved[-1]]
    assert (tensor.status, tensor.method) == ("corrected", "taking another file's bytes")
    assert tensor.source is not None and tensor.source.path == str(tmp_path / "dump")
    assert tensor.chance is not None and tensor.chance <= 1e-3
    # If the file holds something, the index may be of another save.
    data.write_bytes(np.arange(10_000, dtype=np.float32).tobytes())
    recovery = ckptparse.recover(tmp_path / "m", evidence=[tmp_path / "dump"])
    assert not any(tensor.status.proved for tensor in recovery.values())


@pytest.mark.parametrize("in_order", [True, False])
def test_a_tensor_behind_the_one_before_it_is_surer_than_one_of_many(in_order: bool) -> None:
    """Where the next one is expected, the others that are sought do not count."""
    arrays = [np.frombuffer(noise(12, 100 + n), np.uint8) for n in range(1000)]
    order = np.arange(1000) if in_order else np.random.default_rng(2).permutation(1000)
    stored = io.BytesIO()
    np.savez(stored, **{f"t{n:04d}": arrays[n] for n in order.tolist()})
    wanted = [Wanted(12, crc32c(one.tobytes())) for one in arrays]
    source = MemorySource("x.npz", stored.getvalue())
    found = list(find_payloads(source, wanted, limits=DEFAULT_LIMITS))
    assert {match.wanted for match in found} == set(wanted)
    chances = [match.chance for match in found]
    if in_order:
        assert max(chances[1:]) < 2 * 1000 / 2**32
    else:
        assert sum(chance > 10_000 / 2**32 for chance in chances) > 900
