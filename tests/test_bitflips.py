"""Every truncation and every single-bit flip of a small checkpoint: right, or an error.

Never another exception, never wrong data, never a name too few. The bits that may be turned unseen
are few, and counted: the padding of the footer and the metaindex block, which no reader looks at.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import builder as b
import numpy as np
import pytest
from packages import ml_dtypes

import ckptparse
from ckptparse import CheckpointError, DataLossError, UnsupportedError

Array = np.ndarray[Any, Any]
Seen = tuple[str, Any, tuple[int, ...], Any]


def small_bundle() -> b.Bundle:
    """One tensor of each sort: dense, bool, empty, strings, variant, slices in two shards."""
    bundle = b.Bundle()
    bundle.add("bf16", np.array([1, -2], ml_dtypes.bfloat16))
    bundle.add("bool", np.array([True, False]))
    bundle.add("empty", np.zeros((0, 3), np.int64))
    bundle.add("layer/kernel", np.arange(6, dtype=np.float32).reshape(2, 3))
    bundle.add("layer/kernel/Adam", np.ones((2, 3), np.float32))
    bundle.add("s", np.array([b"hello", b"", b"w\0rld"], object))
    inner = b.tensor_proto(b.INT32, (2,), b.field(7, b"\x05\x06"))
    bundle.add_variants("v", [b.variant_proto("type", b"meta", [inner])], ())
    parts = np.arange(8, dtype=np.int16).reshape(4, 2)
    bundle.add_sliced("w", parts, [[(0, 3), None], [(3, 1), None]], shards=[0, 1])
    return bundle


def plain(value: Any) -> Any:
    """A value that compares: of variants their fields, of numbers their bytes."""
    if isinstance(value, np.ndarray):
        kind = str(value.dtype)
        if value.dtype != object:
            return kind, value.shape, value.tobytes()
        return kind, value.shape, [plain(element) for element in value.ravel()]
    if isinstance(value, bytes):
        return value
    return value.type_name, value.metadata, [plain(np.asarray(t)) for t in value.tensors]


@pytest.fixture(scope="module")
def expected() -> dict[str, Any]:
    """What the whole bundle reads as, worked out without the reader where it can be."""
    wanted: dict[str, Any] = {
        "bf16": plain(np.array([1, -2], ml_dtypes.bfloat16)),
        "bool": plain(np.array([True, False])),
        "empty": plain(np.zeros((0, 3), np.int64)),
        "layer/kernel": plain(np.arange(6, dtype=np.float32).reshape(2, 3)),
        "layer/kernel/Adam": plain(np.ones((2, 3), np.float32)),
        "s": plain(np.array([b"hello", b"", b"w\0rld"], object)),
        "w": plain(np.arange(8, dtype=np.int16).reshape(4, 2)),
    }
    inner = plain(np.array([5, 6], np.int32))
    wanted["v"] = ("object", (), [("type", b"meta", [inner])])
    return wanted


def judge(prefix: str, expected: dict[str, Any], *, mmap: bool = False) -> bool:
    """Read everything, all at once and one by one; return whether nothing was found wrong."""
    fine = True
    try:
        got = ckptparse.read(prefix, mmap=mmap)
        assert {name: plain(array) for name, array in got.items()} == expected
    except (DataLossError, UnsupportedError, ckptparse.LimitError):
        fine = False
    try:
        with ckptparse.open(prefix) as checkpoint:
            assert read_one_by_one(checkpoint, expected) == fine
            assert list(checkpoint) == sorted(expected)
    except (DataLossError, UnsupportedError, ckptparse.LimitError):
        assert not fine
    except ckptparse.NotACheckpointError:
        raise AssertionError("a damaged checkpoint is still one") from None
    return fine


def read_one_by_one(checkpoint: ckptparse.Checkpoint, expected: dict[str, Any]) -> bool:
    """Look each name up by itself, without a listing before."""
    outcomes = [is_right(checkpoint, name, wanted) for name, wanted in expected.items()]
    return all(outcomes)


def is_right(checkpoint: ckptparse.Checkpoint, name: str, wanted: Any) -> bool:
    try:
        assert plain(checkpoint[name].read()) == wanted
        checkpoint[name].verify()
    except ckptparse.TensorNotFoundError:
        raise AssertionError(f"{name!r} is silently gone") from None
    except CheckpointError:
        return False
    return True


def flips(data: bytes, step: int = 1, start: int = 0) -> Iterator[tuple[int, int, bytes]]:
    for place in range(start, len(data) * 8, step):
        out = bytearray(data)
        out[place // 8] ^= 1 << place % 8
        yield place // 8, place % 8, bytes(out)


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, Path, list[Path]]:
    """Prefix, index and shards of a whole bundle."""
    prefix = small_bundle().write(tmp_path / "x")
    shards = sorted(tmp_path.glob("x.data-*"))
    return prefix, tmp_path / "x.index", shards


def test_the_bundle_is_whole_before_it_is_damaged(
    files: tuple[str, Path, list[Path]], expected: dict[str, Any]
) -> None:
    assert judge(files[0], expected) and judge(files[0], expected, mmap=True)


# ---- truncations


def test_every_truncation_of_the_index_is_an_error(
    files: tuple[str, Path, list[Path]], expected: dict[str, Any]
) -> None:
    prefix, index, _ = files
    data = index.read_bytes()
    for size in range(len(data)):
        index.write_bytes(data[:size])
        assert not judge(prefix, expected), f"the first {size} bytes"


def test_every_truncation_of_a_shard_is_an_error(
    files: tuple[str, Path, list[Path]], expected: dict[str, Any]
) -> None:
    prefix, _, shards = files
    for shard in shards:
        data = shard.read_bytes()
        for size in range(len(data)):
            shard.write_bytes(data[:size])
            assert not judge(prefix, expected), f"the first {size} bytes of {shard.name}"
        shard.write_bytes(data)


def test_every_loss_of_leading_bytes_of_the_index_is_an_error(
    files: tuple[str, Path, list[Path]], expected: dict[str, Any]
) -> None:
    prefix, index, _ = files
    data = index.read_bytes()
    for start in range(1, len(data)):
        index.write_bytes(data[start:])
        assert not judge(prefix, expected), f"without the first {start} bytes"


# ---- single bits


def unseen_bits(file: b.TableFile) -> set[tuple[int, int]]:
    """Bits of an index that its reader has no use for: metaindex block, its handle, padding."""
    footer = len(file.data) - 48
    first = footer + len(b.handle(*file.metaindex))
    last = first + len(b.handle(*file.index))
    block = range(file.metaindex[0], sum(file.metaindex) + 5)
    unseen = {*block, *range(footer, first), *range(last, footer + 40)}
    # The high bit of the last varint only makes it take in a zero of the padding.
    return {(place, bit) for place in unseen for bit in range(8)} | {(last - 1, 7)}


def check_index_flips(
    prefix: str, index: Path, expected: dict[str, Any], *, step: int, start: int
) -> None:
    data = index.read_bytes()
    unseen = unseen_bits(small_bundle().table())
    for place, bit, damaged in flips(data, step, start):
        index.write_bytes(damaged)
        fine = judge(prefix, expected)
        assert not fine or (place, bit) in unseen, f"bit {bit} of byte {place}"


def check_shard_flips(
    prefix: str, shards: list[Path], expected: dict[str, Any], *, step: int, start: int
) -> None:
    for shard in shards:
        data = shard.read_bytes()
        for place, bit, damaged in flips(data, step, start):
            shard.write_bytes(damaged)
            assert not judge(prefix, expected, mmap=bool(bit % 2)), f"bit {bit} of byte {place}"
        shard.write_bytes(data)


def test_a_flip_in_every_byte_of_the_index_is_found(
    files: tuple[str, Path, list[Path]], expected: dict[str, Any]
) -> None:
    # Nine and eight have no common factor: every byte is met, and every bit of some byte.
    check_index_flips(files[0], files[1], expected, step=9, start=0)


def test_a_flip_in_every_byte_of_the_shards_is_found(
    files: tuple[str, Path, list[Path]], expected: dict[str, Any]
) -> None:
    check_shard_flips(files[0], files[2], expected, step=9, start=0)


@pytest.mark.bitflips
@pytest.mark.parametrize("start", range(8))
def test_every_single_bit_flip_of_the_index_is_found(
    files: tuple[str, Path, list[Path]], expected: dict[str, Any], start: int
) -> None:
    check_index_flips(files[0], files[1], expected, step=8, start=start)


@pytest.mark.bitflips
@pytest.mark.parametrize("start", range(8))
def test_every_single_bit_flip_of_the_shards_is_found(
    files: tuple[str, Path, list[Path]], expected: dict[str, Any], start: int
) -> None:
    check_shard_flips(files[0], files[2], expected, step=8, start=start)


# ---- bits flipped before the block was sealed: nothing below the entries can see them


@pytest.mark.bitflips
@pytest.mark.parametrize("start", range(8))
@pytest.mark.parametrize("kind", [b.RAW, b.SNAPPY])
def test_every_flip_in_a_sealed_block_is_an_array_or_an_error(
    files: tuple[str, Path, list[Path]], start: int, kind: int
) -> None:
    check_sealed_flips(files[0], files[1], kind, step=8, start=start)


def test_a_flip_in_every_byte_of_a_sealed_block_is_an_array_or_an_error(
    files: tuple[str, Path, list[Path]],
) -> None:
    check_sealed_flips(files[0], files[1], b.RAW, step=9, start=3)


def check_sealed_flips(prefix: str, index: Path, kind: int, *, step: int, start: int) -> None:
    contents = b.block(small_bundle().pairs())
    for _, _, damaged in flips(contents, step, start):
        index.write_bytes(b.assemble([b.Stored(damaged, kind, key=b"\xff")]).data)
        for verify in (True, False):
            with suppress(CheckpointError):
                ckptparse.read(prefix, verify=verify)
        with suppress(CheckpointError), ckptparse.open(prefix) as checkpoint:
            for tensor in checkpoint.values():
                with suppress(CheckpointError):
                    tensor.read()
