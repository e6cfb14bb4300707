"""Each method on a thousand random inputs of its kind: it finds no more than the chance it states.

Methods that prove by a whole checksum are here too, as are those that judge by looks. Others have
their thousand beside their other tests: searches, splits and copies (`test_crc_*.py`), conversions,
returns, stripes, containers, strings and sizes of a lost index, statistics, stretches of images,
seams.
"""

from __future__ import annotations

import gzip
import math
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import builder
import numpy as np
import pytest
from crc32c import crc32c

import ckptparse
from ckptparse.crc.flips import (
    chance_of_bit,
    chance_of_word,
    find_bit,
    find_crc_bit,
    find_words,
)
from ckptparse.crc.inversion import (
    chance_of_zeros,
    derive_bools,
    derive_constant,
    derive_integer,
    derive_tail,
    find_zeros,
    integer_is_proved,
)
from ckptparse.dtypes import DataType
from ckptparse.examination import readers
from ckptparse.examination.block_correction import correct_block
from ckptparse.examination.carving import iter_blocks
from ckptparse.examination.copied_index import holds_other_weights
from ckptparse.examination.index_reading import _looks_right
from ckptparse.examination.payload import Payload
from ckptparse.examination.places import Place, is_noise
from ckptparse.examination.resuming import Budget, iter_resumed
from ckptparse.files.context import Context
from ckptparse.files.memory import MemorySource
from ckptparse.inventory.survey import Origin
from ckptparse.limits import DEFAULT_LIMITS
from ckptparse.recovery.imaging.pieces import DataFile, Piece, Placement
from ckptparse.recovery.imaging.splits import complete
from ckptparse.recovery.imaging.tables import iter_tables
from ckptparse.recovery.string_flips import find_string_bit

COUNT = 1000
Rng = np.random.Generator


def word(rng: Rng) -> int:
    return int(rng.integers(2**32))


def check_hits(hits: int, chance: float, count: int = COUNT) -> None:
    """Compare with what a chance gives: five deviations above the expected number, and two."""
    expected = chance * count
    assert hits <= expected + 5 * math.sqrt(expected) + 2
    if expected > 30:
        # The stated chance is not far too high, either.
        assert hits >= expected / 4


# --------------------------------------------------------------------- what a checksum determines


def has_bit(rng: Rng, size: int) -> bool:
    return find_bit(word(rng), word(rng), size) is not None


def has_byte(rng: Rng, size: int) -> bool:
    return bool(find_words(word(rng), word(rng), size, width=1, limit=2))


def has_pair(rng: Rng, size: int) -> bool:
    return bool(find_words(word(rng), word(rng), size, width=2, limit=2))


CHANGES: dict[str, tuple[Callable[[Rng, int], bool], int, float]] = {
    "one bit of 64 bytes": (has_bit, 64, chance_of_bit(64)),
    "one bit of 512 KiB": (has_bit, 1 << 19, chance_of_bit(1 << 19)),
    "one bit of 32 MiB": (has_bit, 1 << 25, chance_of_bit(1 << 25)),
    "one byte of 4 KiB": (has_byte, 4096, chance_of_word(4096, 1)),
    "one byte of 64 KiB": (has_byte, 1 << 16, chance_of_word(1 << 16, 1)),
    "a pair of bytes of 128 bytes": (has_pair, 128, chance_of_word(128, 2)),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_thousand_other_payloads_look_like_a_small_change_as_often_as_is_said(name: str) -> None:
    find, size, chance = CHANGES[name]
    rng = np.random.default_rng(1)
    check_hits(sum(find(rng, size) for _ in range(COUNT)), chance)


def test_a_thousand_other_checksums_are_no_flipped_bit_of_a_checksum() -> None:
    rng = np.random.default_rng(2)
    check_hits(sum(find_crc_bit(word(rng), word(rng)) for _ in range(COUNT)), 32 / 2**32)


@pytest.mark.parametrize("dtype", ["<f4", "<i8", "u1"])
def test_a_thousand_checksums_are_no_constant(dtype: str) -> None:
    rng = np.random.default_rng(3)
    found = [
        derive_constant(word(rng), np.dtype(dtype), int(rng.integers(2, 4000)))
        for _ in range(COUNT)
    ]
    assert not any(found)


@pytest.mark.parametrize("count", [5, 12, 22])
def test_a_thousand_checksums_are_bools_as_often_as_is_said(count: int) -> None:
    rng = np.random.default_rng(4)
    found = [derive_bools(word(rng), count) for _ in range(COUNT)]
    assert all(one is None or one[1] == 2.0 ** (count - 32) for one in found)
    check_hits(sum(one is not None for one in found), 2.0 ** (count - 32))


def test_a_thousand_checksums_are_a_small_number_once_at_most() -> None:
    rng = np.random.default_rng(5)
    found = [derive_integer(word(rng)) for _ in range(COUNT)]
    believed = [chance for value, chance in found if integer_is_proved(value)]
    assert all(chance <= 1 / 1000 for chance in believed)
    check_hits(len(believed), 1 / 1024)


@pytest.mark.parametrize("missing", [1, 2, 3])
def test_a_thousand_cut_payloads_have_an_end_as_often_as_is_said(missing: int) -> None:
    rng = np.random.default_rng(6)
    found = [derive_tail(word(rng), word(rng), missing) for _ in range(COUNT)]
    check_hits(sum(one is not None for one in found), 2.0 ** (8 * missing - 32))


def test_a_thousand_checksums_are_no_natural_number_of_zeros() -> None:
    rng = np.random.default_rng(7)
    found = [size for size in (find_zeros(word(rng)) for _ in range(COUNT)) if size is not None]
    # Every second checksum is that of some number of zeros: the chance tells which to believe.
    assert sum(chance_of_zeros(size) <= 1e-3 for size in found) <= 2


def payload_of(data_type: int, count: int, path: str, size: int, crc: int) -> Payload:
    return Payload(
        data_type,
        (count,),
        readers.DataFile(path),
        0,
        size,
        crc,
        proved=True,
        doubt="",
        chance=0.0,
        index="model.index",
        origin=Origin.FINAL,
    )


def strings_payload(count: int, size: int, crc: int) -> Payload:
    return payload_of(DataType.DT_STRING, count, "model.data-00000-of-00001", size, crc)


def test_a_thousand_tensors_of_other_strings_are_no_flipped_bit() -> None:
    rng = np.random.default_rng(13)
    found = 0
    for _ in range(COUNT):
        words = [rng.bytes(int(rng.integers(0, 40))) for _ in range(5)]
        data, _ = builder.string_payload(words)
        found += find_string_bit(data, strings_payload(5, len(data), word(rng))) is not None
    check_hits(found, chance_of_bit(200))


def test_a_thousand_blocks_of_noise_are_no_flipped_bit_of_a_block() -> None:
    rng = np.random.default_rng(14)
    for _ in range(COUNT):
        stored = rng.bytes(4096)
        assert correct_block(stored, lambda key, value: True, DEFAULT_LIMITS) is None


# -------------------------------------------------------------------------- bytes somewhere else


def test_a_thousand_payloads_that_are_not_there_lie_at_no_distance(tmp_path: Path) -> None:
    rng = np.random.default_rng(8)
    made = builder.Bundle()
    for number in range(COUNT):
        raw = rng.normal(0, 0.05, int(rng.integers(4, 60))).astype("<f4")
        made.add(f"w{number:04d}", raw)
    made.write(tmp_path / "model")
    data = tmp_path / "model.data-00000-of-00001"
    data.write_bytes(rng.normal(0, 0.05, data.stat().st_size // 4).astype("<f4").tobytes())
    recovery = ckptparse.recover(tmp_path / "model")
    assert {tensor.status for tensor in recovery.values()} <= {"unverified"}
    assert not any(p.code == "shard.shifted" for p in recovery.report.problems)


def write_thousand(directory: Path, name: str, seed: int) -> Path:
    """Write a thousand tensors of sizes that are the same for each seed; return the data file."""
    sizes = np.random.default_rng(0).integers(5, 60, COUNT).tolist()
    rng = np.random.default_rng(seed)
    made = builder.Bundle()
    for number, size in enumerate(sizes):
        made.add(f"w{number:04d}", rng.normal(0, 0.05, size).astype("<f4"))
    directory.mkdir(exist_ok=True)
    made.write(directory / name)
    return directory / f"{name}.data-00000-of-00001"


@pytest.mark.parametrize("name", ["copy", "a.bin", "a.gz"])
def test_a_thousand_payloads_that_are_nowhere_are_taken_from_nowhere(
    name: str, tmp_path: Path
) -> None:
    """Other checkpoints, copies, files of any kind and archives hold others of the same sizes."""
    write_thousand(tmp_path / "run", "ckpt-1", 1)
    data = write_thousand(tmp_path / "run", "ckpt-2", 2)
    data.write_bytes(bytes(data.stat().st_size))
    copy = write_thousand(tmp_path / "copy", "ckpt-2", 3)
    (tmp_path / "copy" / "ckpt-2.index").unlink()
    (tmp_path / "a.bin").write_bytes(copy.read_bytes()[4:])
    (tmp_path / "a.gz").write_bytes(gzip.compress(copy.read_bytes(), 1))
    recovery = ckptparse.recover(tmp_path / "run" / "ckpt-2", evidence=[tmp_path / name])
    assert {str(tensor.status) for tensor in recovery.values()} <= {"unverified"}


def test_a_thousand_counters_are_no_number_that_is_expected(tmp_path: Path) -> None:
    rng = np.random.default_rng(15)
    made = builder.Bundle()
    for number in range(COUNT):
        value = int(rng.integers(1 << 33, 1 << 62))
        made.add(f"counter{number:04d}/iterations", np.array(value))
    made.write(tmp_path / "model-70000")
    (tmp_path / "model-70000.data-00000-of-00001").unlink()
    recovery = ckptparse.recover(tmp_path / "model-70000")
    # Of 1,024 numbers one looks like a small one, as its chance says.
    assert sum(tensor.status == "derived" for tensor in recovery.values()) <= 8
    rules = {str(one.rule) for tensor in recovery.values() for one in tensor.evidence}
    assert "expected value" not in rules


def test_a_thousand_damaged_copies_are_no_other_save_and_other_saves_are(tmp_path: Path) -> None:
    rng = np.random.default_rng(16)
    mine, theirs = (str(tmp_path / f"{name}.data-00000-of-00001") for name in "ab")
    for number in range(COUNT):
        raw = rng.normal(0, 0.05, int(rng.integers(100, 3000))).astype("<f4")
        Path(theirs).write_bytes(raw.tobytes())
        other = number % 2 == 1
        if other:
            raw = raw + rng.normal(0, 1e-4, len(raw)).astype("<f4")
        data = bytearray(raw.tobytes())
        # Up to a third of it is lost, as sectors of zeros or noise.
        size = int(rng.integers(1, len(data) // 3))
        start = int(rng.integers(0, len(data) - size))
        data[start : start + size] = bytes(size) if rng.random() < 0.5 else rng.bytes(size)
        Path(mine).write_bytes(data)
        with closing(readers.DataFiles(Context())) as files:
            payload = float_payload(mine, len(raw), crc32c(Path(theirs).read_bytes()))
            place = Place(readers.DataFile(theirs), 0, None, "", 0.0)
            # Noise in it hides what it is: then it counts as a copy.
            found = holds_other_weights(files, [payload], place)
            assert found <= other


def float_payload(path: str, count: int, crc: int) -> Payload:
    return payload_of(DataType.DT_FLOAT, count, path, 4 * count, crc)


def test_a_thousand_runs_of_weights_are_no_noise() -> None:
    rng = np.random.default_rng(9)
    for _ in range(COUNT):
        size = 1 << int(rng.integers(14, 19))
        data = bytearray(rng.bytes(size))
        # As long a run of weights as is looked for, at any byte.
        run = min(size, 32 * math.isqrt(size) // 4 * 4)
        weights = rng.normal(0, 10.0 ** rng.uniform(-6, 1), run // 4).astype("<f4")
        start = int(rng.integers(0, size - run + 1))
        data[start : start + run] = weights.tobytes()
        assert not is_noise(memoryview(data))
    assert all(is_noise(memoryview(rng.bytes(1 << 16))) for _ in range(200))


# -------------------------------------------------------------------------- indexes and images


def test_a_thousand_runs_of_noise_hold_no_block_and_no_entry() -> None:
    rng = np.random.default_rng(10)
    for _ in range(COUNT):
        data = rng.bytes(4096)
        assert not list(iter_blocks(data))
        budget = Budget(DEFAULT_LIMITS, len(data))
        assert list(iter_resumed(data, _looks_right, budget)) == []


def test_a_thousand_images_of_noise_hold_no_table() -> None:
    rng = np.random.default_rng(11)
    magic = bytes.fromhex("57fb808b247547db")
    for _ in range(COUNT):
        data = bytearray(rng.bytes(8192))
        place = int(rng.integers(100, 8000))
        data[place : place + 8] = magic
        found = list(iter_tables(MemorySource("x", data), 0, len(data), limits=DEFAULT_LIMITS))
        assert all(table.kind == "damaged" for table in found)


def test_a_thousand_images_without_the_payloads_give_none_beside_what_is_known() -> None:
    rng = np.random.default_rng(12)
    for _ in range(COUNT):
        image = MemorySource("x", rng.bytes(16 * 512))
        first = image.read_at(1024, 3000)
        pieces = [Piece(0, 3000, crc32c(first))]
        for size in (40, 1500):
            pieces.append(Piece(pieces[-1].offset + pieces[-1].size, size, word(rng)))
        file = DataFile(pieces[-1].offset + pieces[-1].size, tuple(pieces))
        known = [Placement(0, 3000, 1024)]
        assert complete(image, file, known, 512) == known
