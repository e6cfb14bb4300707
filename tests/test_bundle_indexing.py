"""`tensor[...]` is numpy's basic indexing of the whole array, and reads no more than it must."""

from __future__ import annotations

import operator
from pathlib import Path
from typing import Any

import builder as b
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from instruments import MEGABYTE, allocating_at_most, counted_reads

import ckptparse

Array = np.ndarray[Any, Any]

# ---- equal to numpy's

SHAPES = [(), (1,), (7,), (4, 5), (3, 1, 4), (2, 3, 4, 5), (0,), (3, 0), (5, 300), (600, 3)]
KINDS = ["dense", "big", "bool", "half", "string", "sliced", "sliced string", "sliced grid"]


def array_of(kind: str, shape: tuple[int, ...]) -> Array:
    count = int(np.prod(shape))
    if "string" in kind:
        flat = np.empty(count, object)
        flat[:] = [b"s%d" % n for n in range(count)]
        return flat.reshape(shape)
    if kind == "bool":
        return (np.arange(count) % 3 == 0).reshape(shape)
    return np.arange(count).astype(np.float16 if kind == "half" else np.int32).reshape(shape)


def slices_of(kind: str, shape: tuple[int, ...]) -> list[Any]:
    rows = b.split_rows(shape[0], min(3, shape[0]), len(shape))
    if kind != "sliced grid" or len(shape) < 2 or shape[1] < 2:
        return rows
    last = shape[1]
    return [[row[0], cut, *row[2:]] for row in rows for cut in ((0, 1), (1, last - 1))]


@pytest.fixture(scope="module")
def tensors(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Each kind in each shape: name -> (tensor, array)."""
    folder = tmp_path_factory.mktemp("indexing")
    out: dict[tuple[str, tuple[int, ...]], tuple[Any, Array]] = {}
    opened = []
    for big in (False, True):
        bundle, made = b.Bundle(big=big), {}
        for kind in KINDS:
            for shape in SHAPES:
                sliced = kind.startswith("sliced")
                if (kind == "big") != big or (sliced and (not shape or 0 in shape)):
                    continue
                made[kind, shape] = array_of(kind, shape)
                if sliced:
                    bundle.add_sliced(f"{kind}{shape}", made[kind, shape], slices_of(kind, shape))
                else:
                    bundle.add(f"{kind}{shape}", made[kind, shape])
        checkpoint = ckptparse.open(bundle.write(folder / f"x{big}"))
        opened.append(checkpoint)
        out |= {key: (checkpoint[f"{key[0]}{key[1]}"], array) for key, array in made.items()}
    yield out
    for checkpoint in opened:
        checkpoint.close()


def check_equal(got: Any, wanted: Any) -> None:
    """Hold that two results of indexing are the same in kind, shape and value."""
    assert type(got) is type(wanted)
    if isinstance(wanted, np.ndarray):
        assert got.dtype == wanted.dtype and got.shape == wanted.shape
        assert got.ravel().tolist() == wanted.ravel().tolist()
    else:
        assert got == wanted


def bounds(size: int) -> st.SearchStrategy[int | None]:
    return st.none() | st.integers(-size - 2, size + 2)


@st.composite
def basic_indices(draw: st.DrawFn, shape: tuple[int, ...]) -> Any:
    """Integers and slices for some of the dimensions, `...` and `None` among them, or just one."""
    parts: list[Any] = []
    for size in shape[: draw(st.integers(0, len(shape)))]:
        if size and draw(st.booleans()):
            parts.append(draw(st.integers(-size, size - 1)))
        else:
            step = draw(st.none() | st.integers(1, size + 2) | st.integers(-size - 2, -1))
            parts.append(slice(draw(bounds(size)), draw(bounds(size)), step))
    if draw(st.booleans()):
        spot = draw(st.integers(0, len(parts)))
        # What stands behind the dots is an index of the last dimensions.
        parts = [*parts[:spot], ...] + (parts[spot:] if len(parts) == len(shape) else [])
    for _ in range(draw(st.integers(0, 2))):
        parts.insert(draw(st.integers(0, len(parts))), None)
    return parts[0] if len(parts) == 1 and draw(st.booleans()) else tuple(parts)


@settings(max_examples=1500, deadline=None)
@given(data=st.data())
def test_any_basic_index_gives_what_numpy_gives(tensors: Any, data: st.DataObject) -> None:
    tensor, array = tensors[data.draw(st.sampled_from(sorted(tensors)))]
    index = data.draw(basic_indices(array.shape))
    check_equal(tensor[index], array[index])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "index",
    [
        np.s_[1:3], np.s_[-2:], np.s_[::-1], np.s_[::2], np.s_[::-2, 1], np.s_[..., 0],
        np.s_[1, ...], np.s_[None, 1], np.s_[1:1], np.s_[3:1], np.s_[10:20], np.s_[-100:2],
        np.s_[:, None, 2], np.s_[-1, -1], np.s_[2:0:-1, 4:1:-2], np.s_[()], np.s_[...],
        np.s_[:, 1:4], np.s_[1:, ::3], np.s_[np.int64(2)], np.s_[np.uint8(1), np.int32(-1)],
        np.s_[None, ..., None], np.s_[::1000], np.s_[: 2**70], np.s_[-(2**70) :: 2**65],
        np.s_[:: -(2**70)], np.s_[0:5:-(2**70)], np.s_[3:1:2**70], np.s_[2, 5:2:-(2**70)],
    ],
    ids=str,
)  # fmt: skip
def test_indices_of_every_sort_give_what_numpy_gives(tensors: Any, kind: str, index: Any) -> None:
    tensor, array = tensors[kind, (4, 5)]
    check_equal(tensor[index], array[index])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("index", [4, -5, (0, 5), (0, -6), (1, 2, 3), (..., 1, 2, 3), 2**70])
def test_integers_out_of_bounds_and_too_many_are_index_errors(
    tensors: Any, kind: str, index: Any
) -> None:
    tensor, array = tensors[kind, (4, 5)]
    with pytest.raises(IndexError):
        array[index]
    with pytest.raises(IndexError):
        tensor[index]


def test_two_ellipses_are_an_index_error(tensors: Any) -> None:
    with pytest.raises(IndexError):
        tensors["dense", (4, 5)][0][..., ...]


@pytest.mark.parametrize("index", [0, slice(1), (..., 0)])
def test_scalar_takes_no_index_but_empty_ones(tensors: Any, index: Any) -> None:
    tensor, array = tensors["dense", ()]
    with pytest.raises(IndexError):
        tensor[index]
    check_equal(tensor[()], array[()])
    check_equal(tensor[...], array[...])
    check_equal(tensor[None], array[None])


@pytest.mark.parametrize(
    "index",
    [[0, 1], np.array([0, 1]), 1.5, "a", True, np.True_, (0, [1]), b"x", 0j],
    ids=repr,
)
def test_indices_that_are_not_basic_are_refused(tensors: Any, index: Any) -> None:
    with pytest.raises((TypeError, IndexError)):
        tensors["dense", (4, 5)][0][index]


def test_slice_of_step_zero_is_a_value_error(tensors: Any) -> None:
    with pytest.raises(ValueError, match="step"):
        tensors["dense", (4, 5)][0][::0]


def test_slices_of_floats_are_refused(tensors: Any) -> None:
    with pytest.raises(TypeError):
        tensors["dense", (4, 5)][0][1.0:2.0]


def test_objects_with_an_index_are_integers(tensors: Any) -> None:
    class Two:
        def __index__(self) -> int:
            return 2

    tensor, array = tensors["dense", (4, 5)]
    check_equal(tensor[Two()], array[2])
    check_equal(tensor[Two() :], array[2:])


@pytest.mark.parametrize("kind", KINDS)
def test_parts_are_the_callers_own(tensors: Any, kind: str) -> None:
    tensor, array = tensors[kind, (4, 5)]
    for index in (np.s_[1:3], np.s_[::-1], np.s_[...], np.s_[:, 2]):
        part = tensor[index]
        assert part.flags.writeable and part.dtype.isnative
        part[...] = b"x" if part.dtype == object else 1
        check_equal(tensor[index], array[index])


def test_tensors_behave_as_sequences_of_rows(tensors: Any) -> None:
    tensor, array = tensors["dense", (4, 5)]
    assert len(tensor) == 4 and [row.tolist() for row in tensor] == array.tolist()
    assert np.asarray(tensor).tolist() == array.tolist()
    assert np.asarray(tensor, np.float64).dtype == np.float64
    assert np.add(tensor, 1).tolist() == (array + 1).tolist()
    with pytest.raises(TypeError):
        len(tensors["dense", ()][0])
    assert operator.length_hint(tensor) == 4


# ---- only the needed bytes are read

ROWS, COLUMNS = 20_000, 64
TABLE_BYTES = ROWS * COLUMNS * 4


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Array]:
    """A dense matrix, the same as float64 big-endian, and in twenty slices of two shards."""
    array = np.arange(ROWS * COLUMNS, dtype=np.int32).reshape(ROWS, COLUMNS)
    bundle = b.Bundle()
    bundle.add("before", np.arange(5000, dtype=np.int8))
    bundle.add("dense", array)
    bundle.add("after", np.float32(1))
    slices = b.split_rows(ROWS, 20, 2)
    bundle.add_sliced("sliced", array, slices, shards=[n % 2 + 1 for n in range(20)])
    columns = [[None, (n * 8, 8)] for n in range(8)]
    bundle.add_sliced("columns", array, columns, shards=[3] * 8)
    prefix = bundle.write(tmp_path_factory.mktemp("large") / "x")
    return prefix, array


@pytest.mark.parametrize("name", ["dense", "sliced"])
@pytest.mark.parametrize(
    ("index", "most"),
    [
        (np.s_[5], COLUMNS * 4),
        (np.s_[-1], COLUMNS * 4),
        (np.s_[1000:1010], 10 * COLUMNS * 4),
        (np.s_[995:1005], 10 * COLUMNS * 4),
        (np.s_[7, 3], 4),
        (np.s_[7, 3:5], 8),
        (np.s_[0:0], 0),
        (np.s_[5:5, 3], 0),
        (np.s_[::5000], 4 * COLUMNS * 4),
        (np.s_[::-5000, 2:4], 4 * COLUMNS * 4),
        (np.s_[19_990:30_000], 10 * COLUMNS * 4),
    ],
    ids=str,
)
def test_parts_read_only_their_bytes(
    large: tuple[str, Array], name: str, index: Any, most: int
) -> None:
    prefix, array = large
    with ckptparse.open(prefix) as checkpoint:
        tensor = checkpoint[name]
        with counted_reads() as reads:
            got = tensor[index]
    check_equal(got, array[index])
    # Whole rows are read exactly; within a row, less than a page beside what is wanted is free.
    assert reads.bytes_of(".data-") <= max(most, COLUMNS * 4 if most else 0)


def test_part_of_one_slice_opens_only_its_shard(large: tuple[str, Array]) -> None:
    prefix, array = large
    with ckptparse.open(prefix) as checkpoint, counted_reads() as reads:
        check_equal(checkpoint["sliced"][1001:1999], array[1001:1999])
    assert {name for name in reads.names() if ".data-" in name} == {"x.data-00002-of-00004"}
    assert reads.bytes_of(".data-") == 998 * COLUMNS * 4


def test_columns_of_column_slices_leave_the_other_slices_unread(large: tuple[str, Array]) -> None:
    prefix, array = large
    with ckptparse.open(prefix) as checkpoint, counted_reads() as reads:
        check_equal(checkpoint["columns"][:, 8:16], array[:, 8:16])
    assert reads.bytes_of(".data-") == TABLE_BYTES // 8


def test_reading_through_gaps_takes_little_memory(large: tuple[str, Array]) -> None:
    prefix, array = large
    with ckptparse.open(prefix) as checkpoint:
        tensor = checkpoint["dense"]
        with allocating_at_most(3 * MEGABYTE):
            got = tensor[:, 5]
        check_equal(got, array[:, 5])
        with allocating_at_most(3 * MEGABYTE):
            got = tensor[::2, ::16]
        check_equal(got, array[::2, ::16])


def test_listing_and_opening_touch_no_data_file(large: tuple[str, Array]) -> None:
    prefix, _ = large
    with counted_reads() as reads:
        ckptparse.list_variables(prefix)
        with ckptparse.open(prefix) as checkpoint:
            assert len(checkpoint) == 5 and "dense" in checkpoint
            tensor = checkpoint["sliced"]
            assert tensor.shape == (ROWS, COLUMNS) and tensor.nbytes == TABLE_BYTES
            repr(tensor)
    assert {name for name in reads.names() if "x." in name} == {"x.index"}


def test_reading_one_tensor_reads_its_bytes_and_no_others(large: tuple[str, Array]) -> None:
    prefix, array = large
    with counted_reads() as reads:
        got = ckptparse.read(prefix, ["dense"])
    check_equal(got["dense"], array)
    assert reads.bytes_of(".data-") == TABLE_BYTES
    with counted_reads() as reads:
        ckptparse.read(prefix, ["after", "before"])
    assert reads.bytes_of(".data-") <= 5004 + 4096


def test_reading_an_empty_part_needs_no_data_file(tmp_path: Path) -> None:
    bundle = b.Bundle()
    bundle.add("a", np.zeros((4, 5), np.float32))
    prefix = bundle.write(tmp_path / "x")
    with ckptparse.open(prefix) as checkpoint:
        assert checkpoint["a"][2:2].shape == (0, 5)
        assert checkpoint["a"][:, 5:].shape == (4, 0)


def test_tensors_of_many_gigabytes_give_rows_from_a_sparse_file(tmp_path: Path) -> None:
    import os

    rows, width = 1 << 24, 1024
    bundle = b.Bundle()
    entry = b.Entry(b.FLOAT, (rows, width), 0, 0, rows * width * 4, 0)
    bundle.entries[b"embedding"] = entry
    prefix = bundle.write(tmp_path / "x")
    shard = tmp_path / "x.data-00000-of-00001"
    os.truncate(shard, rows * width * 4)
    row = np.arange(width, dtype=np.float32)
    with shard.open("r+b") as file:
        file.seek((rows - 3) * width * 4)
        file.write(row.tobytes())
    with ckptparse.open(prefix) as checkpoint, counted_reads() as reads:
        tensor = checkpoint["embedding"]
        assert tensor.nbytes == 1 << 36
        with allocating_at_most(4 * MEGABYTE):
            check_equal(tensor[rows - 3], row)
            assert tensor[-4:-1, ::512].tolist() == [[0, 0], [0, 512], [0, 0]]
    assert reads.bytes_of(".data-") <= 4 * width * 4
