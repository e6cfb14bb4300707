"""Partitioned tensors: put together from their slices, or told apart from what is broken."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import builder as b
import numpy as np
import pytest
from builder import same
from hypothesis import given, settings
from hypothesis import strategies as st
from instruments import MEGABYTE, allocating_at_most, outcome_in_little_memory

import ckptparse
from ckptparse import LimitError, Limits, MalformedError, TensorNotFoundError, UnsupportedError

Array = np.ndarray[Any, Any]
M = np.arange(50, dtype=np.float32).reshape(5, 10)
COLUMNS = [[None, (0, 1)], [None, (1, 9)]]


def write(path: Path, array: Array = M, slices: list[Any] = COLUMNS, **options: Any) -> str:
    bundle = b.Bundle()
    bundle.add_sliced("foo", array, slices, **options)
    return bundle.write(path / "x")


# ---- right slices


@pytest.mark.checklist(41)
def test_tensor_stored_as_columns_reads_whole_and_in_parts(tmp_path: Path) -> None:
    prefix = write(tmp_path)
    assert same(ckptparse.read(prefix)["foo"], M)
    with ckptparse.open(prefix) as checkpoint:
        tensor = checkpoint["foo"]
        assert list(checkpoint) == ["foo"]
        assert (tensor.kind, tensor.shape, tensor.dtype) == ("sliced", (5, 10), np.float32)
        assert same(tensor[...], M) and same(tensor[:, 0:2], M[:, 0:2])
        assert same(tensor[:, 2:4], M[:, 2:4]) and same(tensor[:, 0], M[:, 0])
        assert tensor[3, 7] == M[3, 7]


@pytest.mark.checklist(42)
@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_slices_may_be_listed_in_any_order(tmp_path: Path, order: tuple[int, ...]) -> None:
    parts = b.split_rows(5, 3, 2)
    assert same(ckptparse.read(write(tmp_path, slices=[parts[n] for n in order]))["foo"], M)


@pytest.mark.checklist(43)
@pytest.mark.parametrize(
    "listed", [[None, None], [(0, 5), (0, 10)], [None, (0, 10)], [(0, 5), None]]
)
def test_one_slice_that_covers_all_reads_in_every_notation(
    tmp_path: Path, listed: list[Any]
) -> None:
    prefix = write(tmp_path, slices=[listed])
    with ckptparse.open(prefix) as checkpoint:
        assert same(checkpoint["foo"].read(), M)
        assert same(checkpoint["foo"][0:5, 0:10], M) and same(checkpoint["foo"][1:2], M[1:2])


@pytest.mark.checklist(43)
def test_covering_slice_stored_in_the_entry_itself_is_an_ordinary_tensor(tmp_path: Path) -> None:
    bundle = b.Bundle()
    bundle.add("foo", M)
    with ckptparse.open(bundle.write(tmp_path / "x")) as checkpoint:
        assert checkpoint["foo"].kind == "dense" and same(checkpoint["foo"].read(), M)


def test_entry_that_lists_the_whole_and_holds_its_bytes_is_read_or_refused(tmp_path: Path) -> None:
    # No writer makes one; TensorFlow would read it (section 2.7).
    bundle = b.Bundle()
    bundle.add("foo", M, slices=[[None, None]])
    try:
        got = ckptparse.read(bundle.write(tmp_path / "x"))
    except MalformedError:
        return
    assert same(got["foo"], M)


@pytest.mark.checklist(45)
@pytest.mark.parametrize(
    "name", [b"f\0o\xffo", b"\0", b"\xff\xff", b"a\0\1", "é/ü".encode(), b"a/b/.c"]
)
def test_names_of_any_bytes_find_their_slices(tmp_path: Path, name: bytes) -> None:
    bundle = b.Bundle()
    bundle.add_sliced(name, M, b.split_rows(5, 2, 2))
    prefix = bundle.write(tmp_path / "x")
    got = ckptparse.read(prefix)
    assert list(got) == [name.decode("utf-8", "surrogateescape")]
    assert same(next(iter(got.values())), M)


@pytest.mark.checklist(46)
@pytest.mark.parametrize("start", [0, 1, 63, 64, 8191, 8192, 1 << 20])
def test_slices_at_far_starts_are_found(tmp_path: Path, start: int) -> None:
    array = np.arange(start + 2, dtype=np.uint8)
    slices = [[(start, 2)], *([[(0, start)]] if start else [])]
    prefix = write(tmp_path, array, slices)
    with ckptparse.open(prefix) as checkpoint:
        assert same(checkpoint["foo"].read(), array)
        assert same(checkpoint["foo"][start:], array[start:])


@pytest.mark.checklist(46)
@pytest.mark.parametrize("start", [1 << 48, 1 << 55, 1 << 62])
def test_slices_at_starts_beyond_any_memory_are_read_in_parts(tmp_path: Path, start: int) -> None:
    bundle = b.Bundle()
    part = np.array([7, 8], np.uint8)
    bundle.add(b.slice_key("foo", [(start, 2)]), part)
    bundle.entries[b"foo"] = b.Entry(b.UINT8, (start + 2,), slices=[[(start, 2)]])
    with ckptparse.open(bundle.write(tmp_path / "x")) as checkpoint:
        tensor = checkpoint["foo"]
        assert tensor.shape == (start + 2,) and list(checkpoint) == ["foo"]
        assert tensor[start:].tolist() == [7, 8] and tensor[-1] == 8
        with allocating_at_most(4 * MEGABYTE), pytest.raises(ckptparse.CheckpointError):
            tensor.read()


@pytest.mark.checklist(49)
@pytest.mark.parametrize("big", [False, True], ids=["little", "big"])
@pytest.mark.parametrize("number", b.NUMERIC_TYPES)
def test_slices_of_every_kind_are_put_together(tmp_path: Path, number: int, big: bool) -> None:
    kind = b.NUMPY_TYPES[number]
    array = np.arange(24).astype(np.float32).astype(kind).reshape(4, 6)
    bundle = b.Bundle(big=big)
    bundle.add_sliced(
        "foo", array, [[(0, 3), None], [(3, 1), (0, 2)], [(3, 1), (2, 4)]], dtype=number
    )
    with ckptparse.open(bundle.write(tmp_path / "x")) as checkpoint:
        tensor = checkpoint["foo"]
        assert (tensor.dtype, tensor.data_type) == (kind, number)
        assert same(tensor.read(), array) and same(tensor[1:4, 1:5], array[1:4, 1:5].copy())
        tensor.verify()


@pytest.mark.checklist(49)
@pytest.mark.parametrize("big", [False, True], ids=["little", "big"])
def test_slices_of_strings_are_put_together(tmp_path: Path, big: bool) -> None:
    array = np.array([b"s%d" % n * n for n in range(12)], object).reshape(4, 3)
    bundle = b.Bundle(big=big)
    bundle.add_sliced("foo", array, [[(1, 3), (1, 2)], [(0, 1), None], [(1, 3), (0, 1)]])
    with ckptparse.open(bundle.write(tmp_path / "x")) as checkpoint:
        tensor = checkpoint["foo"]
        assert tensor.kind == "sliced" and tensor.dtype == object
        assert same(tensor.read(), array) and same(tensor[1:, ::2], array[1:, ::2])
        assert tensor[3, 2] == array[3, 2] and type(tensor[3, 2]) is bytes
        tensor.verify()


def test_slices_of_variants_are_put_together_or_refused_clearly(tmp_path: Path) -> None:
    bundle = b.Bundle()
    for n in range(2):
        key = b.slice_key("foo", [(n, 1)])
        bundle.add_variants(key, [b.variant_proto(f"t{n}")], (1,))
    bundle.entries[b"foo"] = b.Entry(b.VARIANT, (2,), slices=[[(0, 1)], [(1, 1)]])
    with ckptparse.open(bundle.write(tmp_path / "x")) as checkpoint:
        try:
            got = checkpoint["foo"].read()
        except UnsupportedError:
            return
        assert [value.type_name for value in got] == ["t0", "t1"]


@pytest.mark.parametrize("rank", [1, 2, 3, 8, 9, 12, 32, 64])
def test_slices_of_any_rank_are_put_together(tmp_path: Path, rank: int) -> None:
    if rank > 32 and int(np.__version__.split(".")[0]) < 2:
        pytest.skip("this numpy allows 32 dimensions")
    shape = (2, 3, *(1,) * (rank - 3), 2)[:rank] if rank > 1 else (6,)
    array = np.arange(np.prod(shape), dtype=np.int16).reshape(shape)
    slices = b.split_rows(shape[0], 2, rank)
    with ckptparse.open(write(tmp_path, array, slices)) as checkpoint:
        assert same(checkpoint["foo"].read(), array)
        assert same(checkpoint["foo"][1:], array[1:])


@pytest.mark.checklist(50)
@pytest.mark.parametrize("parts", [1, 2, 3, 10])
def test_tensor_in_row_parts_reads_whole_in_rows_and_in_columns(tmp_path: Path, parts: int) -> None:
    array = np.random.default_rng(1).normal(size=(10, 12)).astype(np.float32)
    with ckptparse.open(write(tmp_path, array, b.split_rows(10, parts, 2))) as checkpoint:
        tensor = checkpoint["foo"]
        assert same(tensor.read(), array)
        for low in (0, 5):
            assert same(tensor[low : low + 5], array[low : low + 5])
        for low in (0, 4, 8):
            assert same(tensor[:, low : low + 4], array[:, low : low + 4].copy())


@pytest.mark.checklist(51)
@pytest.mark.parametrize("verify", [True, False])
def test_slices_in_several_shards_are_put_together(tmp_path: Path, verify: bool) -> None:
    prefix = write(tmp_path, slices=b.split_rows(5, 5, 2), shards=[2, 0, 1, 0, 2])
    with ckptparse.open(prefix, verify=verify) as checkpoint:
        tensor = checkpoint["foo"]
        assert same(tensor.read(), M) and same(tensor[1:4, 3:5], M[1:4, 3:5].copy())
        assert tensor.location is None and tensor.crc32c is None
        assert checkpoint.num_shards == 3


def test_grid_of_ten_thousand_slices_reads_quickly(tmp_path: Path) -> None:
    array = np.arange(10_000, dtype=np.int32).reshape(100, 100)
    slices = [[(r, 1), (c, 1)] for r in range(100) for c in range(100)]
    np.random.default_rng(0).shuffle(slices)
    limits = ckptparse.Limits(single_entries=10_000)
    assert same(ckptparse.read(write(tmp_path, array, slices), limits=limits)["foo"], array)


def cuts(size: int, chance: Any) -> list[tuple[int, int]]:
    edges = sorted({0, size, *(chance.draw(st.integers(0, size)) for _ in range(2))})
    return [(low, high - low) for low, high in itertools.pairwise(edges)]


@settings(max_examples=60, deadline=None)
@given(chance=st.data())
def test_any_grid_of_slices_is_put_together(
    tmp_path_factory: pytest.TempPathFactory, chance: st.DataObject
) -> None:
    shape = tuple(chance.draw(st.lists(st.integers(1, 6), min_size=1, max_size=3)))
    array = np.arange(np.prod(shape), dtype=np.int64).reshape(shape)
    grid = [cuts(size, chance) for size in shape]
    slices = [list(extents) for extents in itertools.product(*grid)]
    slices = chance.draw(st.permutations(slices))
    for extents in slices:
        for axis, extent in enumerate(extents):
            if extent == (0, shape[axis]) and chance.draw(st.booleans()):
                extents[axis] = None
    shards = [chance.draw(st.integers(0, 2)) for _ in slices]
    prefix = write(tmp_path_factory.mktemp("g"), array, slices, shards=shards)
    with ckptparse.open(prefix) as checkpoint:
        assert same(checkpoint["foo"].read(), array)
        low = [chance.draw(st.integers(0, size)) for size in shape]
        part = tuple(
            slice(a, chance.draw(st.integers(a, size))) for a, size in zip(low, shape, strict=True)
        )
        assert same(np.asarray(checkpoint["foo"][part]), array[part].copy())


def test_slices_of_a_tensor_without_elements(tmp_path: Path) -> None:
    array = np.zeros((4, 0), np.float32)
    with ckptparse.open(write(tmp_path, array, b.split_rows(4, 2, 2))) as checkpoint:
        assert checkpoint["foo"].read().shape == (4, 0)


# ---- listing


def test_slice_keys_are_no_names(tmp_path: Path) -> None:
    bundle = b.Bundle()
    bundle.add_sliced("foo", M, COLUMNS)
    bundle.add("bar", np.float32(1))
    prefix = bundle.write(tmp_path / "x")
    assert ckptparse.list_variables(prefix) == [("bar", ()), ("foo", (5, 10))]
    with ckptparse.open(prefix) as checkpoint:
        key = b.slice_key("foo", COLUMNS[0]).decode("utf-8", "surrogateescape")
        assert list(checkpoint) == ["bar", "foo"] and key not in checkpoint
        with pytest.raises(TensorNotFoundError):
            checkpoint[key]
        assert checkpoint.orphan_slices in ([], ())


@pytest.mark.checklist(52)
def test_slice_without_its_whole_is_an_orphan_and_no_variable(tmp_path: Path) -> None:
    bundle = b.Bundle()
    bundle.add_sliced("foo", M, COLUMNS)
    del bundle.entries[b"foo"]
    bundle.add("bar", np.float32(1))
    with ckptparse.open(bundle.write(tmp_path / "x")) as checkpoint:
        assert list(checkpoint) == ["bar"] and len(checkpoint) == 1
        assert list(checkpoint.read()) == ["bar"]
        orphans = list(checkpoint.orphan_slices)
        assert [(name, str(piece)) for name, piece, _ in orphans] == [
            ("foo", "-:0,1"), ("foo", "-:1,9"),
        ]  # fmt: skip
        assert same(orphans[0][2].read(), M[:, :1].copy())
        assert same(orphans[1][2][2:4], M[2:4, 1:].copy())


@pytest.mark.checklist(52)
def test_slice_that_its_whole_does_not_list_is_an_orphan(tmp_path: Path) -> None:
    bundle = b.Bundle()
    bundle.add_sliced("foo", M, COLUMNS)
    bundle.add(b.slice_key("foo", [(0, 2), None]), M[:2])
    with ckptparse.open(bundle.write(tmp_path / "x")) as checkpoint:
        assert same(checkpoint["foo"].read(), M)
        assert [(name, str(piece)) for name, piece, _ in checkpoint.orphan_slices] == [
            ("foo", "0,2:-")
        ]


@pytest.mark.checklist(52)
def test_other_notation_of_a_whole_dimension_is_another_slice(tmp_path: Path) -> None:
    bundle = b.Bundle()
    bundle.add_sliced("foo", M, [[(0, 2), None], [(2, 3), None]])
    bundle.change("foo", slices=[[(0, 2), (0, 10)], [(2, 3), None]])
    with ckptparse.open(bundle.write(tmp_path / "x")) as checkpoint:
        assert [str(piece) for _, piece, _ in checkpoint.orphan_slices] == ["0,2:-"]
        with pytest.raises(MalformedError):
            checkpoint["foo"].read()


@pytest.mark.parametrize("count", [2, 100])
@pytest.mark.parametrize("owner", ["none", "dense", "sliced"])
def test_orphan_that_is_sliced_itself_gives_no_data(tmp_path: Path, owner: str, count: int) -> None:
    array = np.arange(count, dtype=np.int16)
    bundle = b.Bundle()
    slices = [[(n, 1)] for n in range(count)]
    if owner == "sliced":
        bundle.add_sliced("foo", array, slices)
    elif owner == "dense":
        bundle.add("foo", array)
    orphan = b.slice_key("foo", [(0, count)])
    bundle.entries[orphan] = b.Entry(b.INT16, (count,), slices=slices)
    with ckptparse.open(bundle.write(tmp_path / "x")) as checkpoint:
        for _, _, tensor in checkpoint.orphan_slices:
            for call in (tensor.read, tensor.verify, lambda t=tensor: t[1:2]):
                try:
                    call()
                except ckptparse.CheckpointError:
                    continue
                assert owner == "sliced"
        if owner != "none":
            assert same(checkpoint["foo"].read(), array)


@pytest.mark.parametrize(
    "key", [b"\0", b"\0foo", b"\0foo\0\1", b"\0foo\0\1\1", b"\0\0", b"\0foo\0\1\1\1\x80"]
)
def test_key_that_only_begins_like_a_slices_is_an_ordinary_name(tmp_path: Path, key: bytes) -> None:
    bundle = b.Bundle()
    bundle.add(key, np.int32(5))
    assert [int(v) for v in ckptparse.read(bundle.write(tmp_path / "x")).values()] == [5]


# ---- broken slices

Change = Callable[[b.Bundle], Any]


def listed(*slices: Any) -> Change:
    return lambda bundle: bundle.change("foo", slices=list(slices))


def stored(number: int, **fields: Any) -> Change:
    return lambda bundle: bundle.change(b.slice_key("foo", COLUMNS[number]), **fields)


BROKEN: dict[str, tuple[Change, str]] = {
    "listed slice is not stored": (
        lambda bundle: bundle.entries.pop(b.slice_key("foo", COLUMNS[1])), "an entry for slice",
    ),
    "hole": (listed(COLUMNS[0]), "40|45|cover|missing|hold"),
    "listed twice": (listed(*COLUMNS, COLUMNS[1]), "verlap"),
    "overlap by a column": (listed(COLUMNS[0], [None, (0, 9)]), "verlap"),
    "overlap with the whole": (listed([None, None], COLUMNS[1]), "verlap"),
    "beyond the columns": (listed(COLUMNS[0], [None, (1, 10)]), "bounds|beyond|1,10"),
    "beyond the rows": (listed([(4, 2), None]), "bounds|4,2"),
    "rank one": (listed([(0, 1)], COLUMNS[1]), "rank|shape"),
    "rank three": (listed([None, (0, 1), None], COLUMNS[1]), "rank|shape"),
    "rank zero": (listed([], COLUMNS[1]), "rank|shape"),
    "start -1": (listed([None, (-1, 2)], COLUMNS[1]), "start"),
    "length 0": (listed([None, (0, 0)], COLUMNS[1]), "length"),
    "length -1 spelled out": (listed([None, (0, -1)], COLUMNS[1]), "length"),
    "length -2": (listed([None, (0, -2)], COLUMNS[1]), "length"),
    "start 2**63 - 1": (listed([None, (2**63 - 1, 1)], COLUMNS[1]), "2\\*\\*63|bounds|start"),
    "end beyond 2**63": (listed([None, (2**63 - 1, 2**63 - 1)], COLUMNS[1]), "2\\*\\*63|start"),
    "start without length": (listed([None, (3, None)], COLUMNS[1]), "length"),
    "slice of another shape": (stored(0, shape=(1, 5)), "shape"),
    "slice of another rank": (stored(0, shape=(5,)), "shape"),
    "slice of another kind": (stored(0, dtype=b.INT32), "DT_INT32|INT32|int32"),
    "slice that is sliced itself": (
        stored(0, slices=[[None, None]]), "slice",
    ),
    "slice of the wrong size": (stored(0, size=24), "size|bytes"),
    "slice in a shard that is not there": (stored(0, shard=7), "shard"),
    "slice of negative offset": (stored(0, offset=-5), "offset"),
}  # fmt: skip


@pytest.mark.checklist(47, 48, 53)
@pytest.mark.parametrize(("break_it", "words"), BROKEN.values(), ids=BROKEN)
def test_broken_slices_are_malformed_and_say_how(
    tmp_path: Path, break_it: Change, words: str
) -> None:
    bundle = b.Bundle()
    bundle.add_sliced("foo", M, COLUMNS)
    break_it(bundle)
    with pytest.raises(MalformedError, match=words) as caught:
        ckptparse.read(bundle.write(tmp_path / "x"))
    assert caught.value.tensor == "foo" or "foo" in str(caught.value), repr(caught.value)
    assert str(tmp_path) in (caught.value.path or "")


@pytest.mark.checklist(48)
@pytest.mark.parametrize("missing", ["listed", "not listed"])
def test_parts_that_are_there_are_readable_beside_a_hole(tmp_path: Path, missing: str) -> None:
    parts = b.split_rows(5, 5, 2)
    bundle = b.Bundle()
    if missing == "listed":
        bundle.add_sliced("foo", M, parts, missing=[2])
    else:
        bundle.add_sliced("foo", M, [part for n, part in enumerate(parts) if n != 2])
    with ckptparse.open(bundle.write(tmp_path / "x")) as checkpoint:
        tensor = checkpoint["foo"]
        assert same(tensor[0:2], M[0:2]) and same(tensor[3:], M[3:]) and tensor[4, 4] == M[4, 4]
        assert same(tensor[::4, 1], M[::4, 1].copy())
        for call in (tensor.read, lambda: tensor[1:4], lambda: tensor[2, 0], tensor.verify):
            with pytest.raises(MalformedError):
                call()


def test_damage_in_one_slice_is_found_and_leaves_the_others_readable(tmp_path: Path) -> None:
    bundle = b.Bundle()
    parts = b.split_rows(5, 5, 2)
    bundle.add_sliced("foo", M, parts)
    bundle.change(b.slice_key("foo", parts[3]), crc=1)
    with ckptparse.open(bundle.write(tmp_path / "x")) as checkpoint:
        tensor = checkpoint["foo"]
        assert same(tensor[0:3], M[0:3])
        for call in (tensor.read, tensor.verify, lambda: tensor[...]):
            with pytest.raises(ckptparse.ChecksumError) as caught:
                call()
            assert caught.value.tensor == "foo" or "foo" in str(caught.value)


def test_missing_shard_of_a_slice_is_named(tmp_path: Path) -> None:
    prefix = write(tmp_path, slices=b.split_rows(5, 2, 2), shards=[0, 1])
    (tmp_path / "x.data-00001-of-00002").unlink()
    with ckptparse.open(prefix) as checkpoint:
        assert same(checkpoint["foo"][:2], M[:2])
        with pytest.raises(ckptparse.MissingShardError, match="00001-of-00002"):
            checkpoint["foo"].read()


# ---- bounds


@pytest.mark.parametrize("slack", [-1, 0])
def test_number_of_slices_is_bounded(tmp_path: Path, slack: int) -> None:
    prefix = write(tmp_path, slices=b.split_rows(5, 5, 2))
    limits = Limits(slices=5 + slack)
    if slack < 0:
        with pytest.raises(LimitError) as caught:
            ckptparse.read(prefix, limits=limits)
        assert caught.value.limit == "slices"
    else:
        assert same(ckptparse.read(prefix, limits=limits)["foo"], M)


def listed_only(path: Path, shape: tuple[int, ...], slices: list[Any]) -> str:
    """A tensor whose slices are listed, of which none is stored."""
    bundle = b.Bundle()
    bundle.entries[b"foo"] = b.Entry(b.INT8, shape, slices=slices)
    bundle.add("ok", np.float32(1))
    return bundle.write(path / "x")


def peeled(count: int) -> list[Any]:
    """Disjoint slices of which a straight cut parts only one from the rest at a time."""
    out: list[Any] = []
    for n in range(count // 2):
        out.append([(n, 1), (n, count - n)])
        out.append([(n + 1, count - n - 1), (n, 1)])
    return out


def pinwheels(count: int) -> list[Any]:
    """Disjoint slices, nested in whirls, that no straight cut parts."""
    out: list[Any] = []
    for n in range(count // 4):
        low, high = n, count - n
        out += [
            [(low, 1), (low, high - low - 1)],
            [(low, high - low - 1), (high - 1, 1)],
            [(high - 1, 1), (low + 1, high - low - 1)],
            [(low + 1, high - low - 1), (low, 1)],
        ]
    return out


@pytest.mark.parametrize("arrange", [peeled, pinwheels])
@pytest.mark.parametrize("overlapping", [False, True])
def test_awkward_arrangements_of_slices_are_judged_rightly(
    tmp_path: Path, arrange: Callable[[int], list[Any]], overlapping: bool
) -> None:
    size = 40
    slices = arrange(size)
    if overlapping:
        slices = [*slices, [(size // 4 - 1, 2), (0, size // 3)]]
    prefix = listed_only(tmp_path, (size, size), slices)
    with ckptparse.open(prefix) as checkpoint, pytest.raises(MalformedError) as caught:
        checkpoint["foo"].read()
    assert ("verlap" in str(caught.value)) == overlapping


@pytest.mark.parametrize("arrange", [peeled, pinwheels])
def test_hostile_arrangements_of_many_slices_end_in_time(
    tmp_path: Path, arrange: Callable[[int], list[Any]]
) -> None:
    import time

    size = 30_000
    prefix = listed_only(tmp_path, (size, size), arrange(size))
    start = time.process_time()
    with ckptparse.open(prefix) as checkpoint, pytest.raises((MalformedError, LimitError)):
        checkpoint["foo"].read()
    assert time.process_time() - start < 30


def test_slices_of_a_huge_whole_claim_no_memory_before_they_are_there(tmp_path: Path) -> None:
    prefix = listed_only(tmp_path, (1 << 40,), [[(0, 1 << 39)], [(1 << 39, 1 << 39)]])
    with allocating_at_most(4 * MEGABYTE), pytest.raises(MalformedError, match="found none"):
        ckptparse.read(prefix)


def test_slices_that_lie_beyond_their_file_claim_no_memory(tmp_path: Path) -> None:
    size = 1 << 33
    bundle = b.Bundle()
    for start in (0, size):
        entry = b.Entry(b.INT8, (size,), 0, 0, size, 1)
        bundle.entries[b.slice_key("foo", [(start, size)])] = entry
    bundle.entries[b"foo"] = b.Entry(b.INT8, (2 * size,), slices=[[(0, size)], [(size, size)]])
    prefix = bundle.write(tmp_path / "x")
    code = f"print(outcome(lambda: ckptparse.read({prefix!r})))"
    assert outcome_in_little_memory(tmp_path, code) in ("TruncatedError", "UnsupportedError")


def test_small_slices_of_a_huge_whole_claim_no_memory(tmp_path: Path) -> None:
    bundle = b.Bundle()
    slices = [[(n << 30, 1)] for n in range(10)]
    for extents in slices:
        bundle.add(b.slice_key("foo", extents), np.zeros(1, np.int8))
    bundle.entries[b"foo"] = b.Entry(b.INT8, (1 << 40,), slices=slices)
    with allocating_at_most(4 * MEGABYTE), pytest.raises(MalformedError):
        ckptparse.read(bundle.write(tmp_path / "x"))


def test_slices_that_share_their_bytes_cannot_claim_more_than_the_file_times_their_number(
    tmp_path: Path,
) -> None:
    # Every slice's entry may point at the same bytes: that is legal, and bounded by the slices.
    data = np.zeros(1000, np.int8)
    bundle = b.Bundle()
    bundle.put(data.tobytes())
    slices = [[(n * 1000, 1000)] for n in range(50)]
    for extents in slices:
        entry = b.Entry(b.INT8, (1000,), 0, 0, 1000, b.masked_crc(data.tobytes()))
        bundle.entries[b.slice_key("foo", extents)] = entry
    bundle.entries[b"foo"] = b.Entry(b.INT8, (50_000,), slices=slices)
    assert ckptparse.read(bundle.write(tmp_path / "x"))["foo"].shape == (50_000,)


# ---- the codes of keys


@pytest.mark.checklist(44)
@pytest.mark.parametrize(
    ("name", "extents"),
    [("foo", [None, None, (1, 3), (4, 5)]), ("", [(0, 1)]), ("é\0", [None]), ("x", [])],
)
def test_keys_of_slices_decode_to_what_they_were_made_of(name: str, extents: list[Any]) -> None:
    from ckptparse.bundle.naming import decode_slice_key, encode_slice_key

    key = b.slice_key(name, extents)
    decoded = decode_slice_key(key)
    assert decoded is not None
    text = ":".join("-" if e is None else f"{e[0]},{e[1]}" for e in extents)
    assert (decoded[0], str(decoded[1])) == (name.encode(), text)
    assert encode_slice_key(*decoded) == key


@pytest.mark.checklist(44)
@given(
    st.binary(max_size=20),
    st.lists(st.none() | st.tuples(st.integers(0, 2**62), st.integers(1, 2**62)), max_size=5),
)
def test_keys_of_any_slices_equal_the_builders(name: bytes, extents: list[Any]) -> None:
    from ckptparse.bundle.naming import decode_slice_key, encode_slice_key

    key = b.slice_key(name, extents)
    decoded = decode_slice_key(key)
    assert decoded is not None and decoded[0] == name and encode_slice_key(*decoded) == key
    assert decode_slice_key(key + b"\0") is None


def test_the_bound_on_comparisons_holds_for_all_groups_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pinwheel is cut by no straight line; many of them, one below the other, are."""
    pinwheel = [(0, 1, 0, 2), (0, 2, 2, 1), (2, 1, 1, 2), (1, 2, 0, 1), (1, 1, 1, 1)]
    extents = [
        [(3 * n + row, rows), (column, columns)]
        for n in range(100)
        for row, rows, column, columns in pinwheel
    ]
    bundle = b.Bundle()
    values = np.arange(900, dtype=np.float32).reshape(300, 3)
    bundle.add_sliced("v", values, extents)
    path = bundle.write(tmp_path / "m")
    assert (ckptparse.read(path)["v"] == values).all()
    monkeypatch.setattr("ckptparse.slices._MOST_COMPARISONS", 50)
    with pytest.raises(ckptparse.LimitError, match="takes too long"):
        ckptparse.read(path)


def test_slices_without_elements_are_checked_as_any_other() -> None:
    pieces = [[(row, 1), None] for row in range(2)]
    bundle = b.Bundle()
    bundle.add_sliced("w", np.zeros((2, 0), np.float32), pieces)
    assert ckptparse.read("m", store=bundle.files("m"))["w"].shape == (2, 0)
    bundle.change(b.slice_key("w", pieces[1]), crc=5)
    with pytest.raises(ckptparse.ChecksumError):
        ckptparse.read("m", store=bundle.files("m"))
