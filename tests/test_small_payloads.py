"""Small strings and small slices: which are read many at a time, and which are left to others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import builder as b
import numpy as np
import numpy.typing as npt
import pytest
from rewriting import MemoryFiles

import ckptparse
from ckptparse.bundle import small_sliced, small_strings
from ckptparse.bundle import strings as strings_module
from ckptparse.bundle.content import content_of_array
from ckptparse.bundle.many import DenseReader
from ckptparse.bundle.payload import SlicedPayload, StringPayload
from ckptparse.bundle.reader import BundleReader
from ckptparse.bundle.shards import ShardFiles
from ckptparse.bundle.writer import BundleWriter, SmallTensor
from ckptparse.coding.checksum import unmask_crc
from ckptparse.errors import CheckpointError
from ckptparse.files.context import Context
from ckptparse.limits import Budget, Limits
from ckptparse.slices import Extent, TensorSlice
from ckptparse.tensor import DEFAULT_OPTIONS

pytestmark = pytest.mark.proto

Add = Callable[[b.Bundle], Any]
"""Adds the tensor "t" to a bundle."""
Found = dict[str, tuple[npt.NDArray[Any], int]]
OTHERS = 16
"""So many common tensors stand beside it: more than that are read together."""


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many tensors each common read has."""
    counts: list[int] = []
    real = DenseReader.read

    def counted(reader: DenseReader) -> Any:
        counts.append(len(reader.columns))
        return real(reader)

    monkeypatch.setattr(DenseReader, "read", counted)
    return counts


@pytest.fixture
def unmapped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing may be mapped."""

    def refuse(*_: Any) -> None:
        raise AssertionError("a data file is mapped")

    monkeypatch.setattr(ShardFiles, "map", refuse)


def with_strings(add: Add | None = None, *, big: bool = False, others: int = OTHERS) -> b.Bundle:
    made = b.Bundle(big=big)
    for number in range(others):
        made.add_strings(f"f{number:02}", [b"ab"], ())
    if add is not None:
        add(made)
    return made


def with_slices(add: Add | None = None, *, big: bool = False, others: int = OTHERS) -> b.Bundle:
    made = b.Bundle(big=big)
    for number in range(others):
        made.add_sliced(f"f{number:02}", np.array([5, 6], np.int32), [[(0, 1)], [(1, 1)]])
    if add is not None:
        add(made)
    return made


def read_strings(path: str, **options: Any) -> Found:
    """Name -> array and what it takes, of those that are read together."""
    with closing(BundleReader.open(path, Context())) as reader:
        names = list(reader.shapes())
        columns = reader.index.columns_of(names)
        how = replace(DEFAULT_OPTIONS, **options)
        rows = range(len(names))
        found = small_strings.read_small_strings(reader.shards, columns, rows, how)
        return {names[row]: one for row, one in found.items()}


def read_sliced(path: str, **options: Any) -> Found:
    """Name -> array and what it takes, of those that are read together."""
    with closing(BundleReader.open(path, Context())) as reader:
        listing = reader.index.listing()
        entries = {
            number: (name, listing.columns.entry(listing.rows[name]))
            for number, name in enumerate(listing.names)
            if listing.rows[name] in listing.columns.others
        }
        how = replace(DEFAULT_OPTIONS, **options)
        found = small_sliced.read_small_sliced(reader.shards, listing, entries, how)
        return {entries[row][0]: one for row, one in found.items()}


def outcome(path: str, **options: Any) -> Any:
    """What reading all gives: values by name, or the error."""
    try:
        found = ckptparse.read(path, **options)
    except CheckpointError as error:
        return type(error), str(error), error.tensor
    return {name: (array.dtype, array.shape, array.tolist()) for name, array in found.items()}


def same_alone(path: str, monkeypatch: pytest.MonkeyPatch, **options: Any) -> bool:
    """Whether all give what each gives by itself."""
    together = outcome(path, **options)
    with monkeypatch.context() as patch:
        patch.setattr(small_strings, "_SMALL", -1)
        patch.setattr(small_sliced, "_SMALL", -1)
        return bool(outcome(path, **options) == together)


def limited(memory: int) -> Budget:
    return Budget(Limits(memory_bytes=memory), 0)


# ---- strings


def strings(values: Sequence[bytes], shape: Sequence[int], **control: Any) -> Add:
    return lambda made: made.add_strings("t", values, shape, **control)


def one_length_of(length: int) -> Add:
    """A length in one byte: above 127 it is none, since a varint goes on there."""

    def add(made: b.Bundle) -> None:
        check = b.fixed32(b.masked_crc(b.fixed32(length)))
        body = b"x" * length
        whole = b.mask(b.crc(check + body, b.crc(b.fixed32(length))))
        made.put_entry("t", bytes([length]) + check + body, whole, dtype=b.STRING, shape=())

    return add


def of_1024_bytes(more: int = 0) -> list[bytes]:
    """Eight lengths, their checksum, and the rest."""
    return [b"y" * 127] * 7 + [b"z" * (1024 - 8 - 4 - 7 * 127 + more)]


COMMON_STRINGS = {
    "none": ([], (0,)),
    "none in two dimensions": ([], (3, 0)),
    "an empty one": ([b""], ()),
    "one of a byte": ([b"x"], (1,)),
    "one of 127 bytes": ([b"x" * 127], ()),
    "two dimensions": ([b"a", b"bc", b"", b"\xff\x00"], (2, 2)),
    "1024 bytes": (of_1024_bytes(), (2, 4)),
    "32 dimensions": ([b"deep"], (1,) * 32),
}


@pytest.mark.parametrize("verify", [False, True])
@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("case", COMMON_STRINGS)
def test_strings_of_the_common_form_are_read_together(
    tmp_path: Path, case: str, big: bool, verify: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    values, shape = COMMON_STRINGS[case]
    path = with_strings(strings(values, shape), big=big).write(tmp_path / "m")
    found = read_strings(path, verify=verify)
    assert len(found) == OTHERS + 1
    array, taken = found["t"]
    assert array.dtype == object
    assert (array.shape, array.ravel().tolist()) == (shape, values)
    assert taken == sum(8 + len(one) + 48 * (len(one) > 1) for one in values)
    assert array.flags.writeable and array.flags.c_contiguous
    assert ckptparse.read(path)["t"].ravel().tolist() == values
    assert same_alone(path, monkeypatch, verify=verify)


def test_what_strings_take_is_a_pointer_and_an_object_for_each(tmp_path: Path) -> None:
    path = with_strings(strings([b"", b"a", b"ab"], (3,))).write(tmp_path / "m")
    assert read_strings(path)["t"][1] == 8 + (8 + 1) + (8 + 48 + 2)


OTHER_STRINGS: dict[str, Add] = {
    "one of 128 bytes": strings([b"x" * 128], ()),
    "1025 bytes": strings(of_1024_bytes(1), (2, 4)),
    "33 dimensions": strings([b"deep"], (1,) * 33),
    "a length of two bytes": strings([b"a", b"b"], (2,), widths=2),
    "a length too large": strings([b"a", b"bc"], (2,), lengths=[1, 3]),
    "a length too small": strings([b"a", b"bc"], (2,), lengths=[1, 1]),
    "a wrong checksum of the lengths": strings([b"a", b"bc"], (2,), lengths_crc=0x12345678),
    "more strings than there are": strings([b"a"], (2,)),
    "fewer strings than there are": strings([b"a", b"bc"], (1,)),
    "as many strings as bytes": strings([b"abcd"], (9,)),
    "a length of 128 in one byte": one_length_of(128),
    "a length of 200 in one byte": one_length_of(200),
    "three bytes": lambda made: made.put_entry("t", b"\0\0\0", 0, dtype=b.STRING, shape=()),
    "no bytes": lambda made: made.put_entry("t", b"", 0, dtype=b.STRING, shape=(0,)),
    "a variant": lambda made: made.put_entry(
        "t", *b.string_payload([b"abc"]), dtype=b.VARIANT, shape=()
    ),
    "in slices": lambda made: made.put_entry(
        "t",
        *b.string_payload([b"abc", b"de"]),
        dtype=b.STRING,
        shape=(2,),
        slices=[[(0, 1)], [(1, 1)]],
    ),
}


@pytest.mark.parametrize("verify", [False, True])
@pytest.mark.parametrize("case", OTHER_STRINGS)
def test_strings_of_another_form_are_left_and_read_as_before(
    tmp_path: Path, case: str, verify: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = with_strings(OTHER_STRINGS[case]).write(tmp_path / "m")
    found = read_strings(path, verify=verify)
    assert len(found) == OTHERS and "t" not in found
    assert same_alone(path, monkeypatch, verify=verify)


@pytest.mark.parametrize("length", [128, 200])
def test_a_length_in_one_byte_beyond_127_is_refused(tmp_path: Path, length: int) -> None:
    path = with_strings(one_length_of(length)).write(tmp_path / "m")
    with pytest.raises(CheckpointError) as caught:
        ckptparse.read(path)
    assert caught.value.tensor == "t"


def test_strings_of_the_other_byte_order_are_left(tmp_path: Path) -> None:
    def add(made: b.Bundle) -> None:
        payload, check = b.string_payload([b"ab"], big=True)
        made.put_entry("t", payload, check, dtype=b.STRING, shape=())

    found = read_strings(with_strings(add).write(tmp_path / "m"), verify=False)
    assert len(found) == OTHERS and "t" not in found


def test_a_wrong_checksum_of_strings_counts_if_they_are_verified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = with_strings(strings([b"ab", b"c"], (2,), crc=0x12345678)).write(tmp_path / "m")
    assert "t" not in read_strings(path)
    assert read_strings(path, verify=False)["t"][0].tolist() == [b"ab", b"c"]
    assert same_alone(path, monkeypatch)
    with pytest.raises(ckptparse.ChecksumError):
        ckptparse.read(path)
    assert ckptparse.read(path, verify=False)["t"].tolist() == [b"ab", b"c"]


@pytest.mark.parametrize(("count", "together"), [(3, 0), (4, 4), (5, 5)])
def test_fewer_than_four_strings_are_left(
    tmp_path: Path, count: int, together: int, reads: list[int]
) -> None:
    found = read_strings(with_strings(others=count).write(tmp_path / "m"))
    assert len(found) == together
    assert reads == [together] * bool(together)


@pytest.mark.parametrize(("memory", "together"), [(4 * 58, 4), (4 * 58 - 1, 3), (57, 0)])
def test_strings_end_where_the_budget_does_and_take_nothing_of_it(
    tmp_path: Path, memory: int, together: int
) -> None:
    path = with_strings(others=4).write(tmp_path / "m")
    budget = limited(memory)
    assert len(read_strings(path, budget=budget)) == together
    budget.take(memory)
    with pytest.raises(ckptparse.LimitError):
        budget.take(1)


def test_4096_payloads_of_strings_are_read_at_once(tmp_path: Path, reads: list[int]) -> None:
    path = with_strings(others=2).write(tmp_path / "m")
    with closing(BundleReader.open(path, Context())) as reader:
        columns = reader.index.columns_of(["f00", "f01"])
        rows = [1] * 4096 + [0]
        found = list(small_strings._read_payloads(reader.shards, columns, rows, DEFAULT_OPTIONS))
    assert reads == [4096, 1]
    payload, check = b.string_payload([b"ab"])
    assert [row for row, _, _ in found] == rows
    assert {(b.mask(crc), data) for _, crc, data in found} == {(check, payload)}


def test_strings_before_a_missing_data_file_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = with_strings(strings([b"ab"], (), shard=1)).write(tmp_path / "m")
    (tmp_path / "m.data-00001-of-00002").unlink()
    assert read_strings(path) == {}
    assert same_alone(path, monkeypatch)
    monkeypatch.setattr(small_strings, "_BATCH", OTHERS)
    assert sorted(read_strings(path)) == [f"f{number:02}" for number in range(OTHERS)]


@pytest.mark.usefixtures("unmapped")
def test_strings_and_slices_are_not_mapped(tmp_path: Path) -> None:
    path = with_strings().write(tmp_path / "m")
    assert len(read_strings(path, mmap=True)) == OTHERS
    path = with_slices().write(tmp_path / "n")
    assert len(read_sliced(path, mmap=True)) == OTHERS


# ---- slices


def numbers(*shape: int, dtype: Any = np.int32) -> npt.NDArray[Any]:
    return np.arange(int(np.prod(shape)), dtype=dtype).reshape(shape)


def sliced(array: npt.NDArray[Any], cuts: Sequence[b.Extents], **control: Any) -> Add:
    return lambda made: made.add_sliced("t", array, cuts, **control)


def bytes_in_two(size: int, dtype: Any = np.uint8) -> tuple[npt.NDArray[Any], list[Any]]:
    array = np.resize(np.arange(100, dtype=dtype), size)
    return array, [[(0, 7)], [(7, size - 7)]]


COMMON_SLICES: dict[str, tuple[npt.NDArray[Any], list[Any]]] = {
    "the second first": (numbers(3), [[(1, 2)], [(0, 1)]]),
    "three out of order": (numbers(6), [[(1, 2)], [(3, 3)], [(0, 1)]]),
    "rows": (numbers(4, 6), [[(0, 1), None], [(1, 3), None]]),
    "rows, the columns in numbers": (numbers(4, 6), [[(0, 1), (0, 6)], [(1, 3), (0, 6)]]),
    "columns": (numbers(4, 6), [[None, (0, 5)], [(0, 4), (5, 1)]]),
    "the first of three": (numbers(4, 2, 3), [[(0, 3), None, None], [(3, 1), None, (0, 3)]]),
    "the second of three": (numbers(4, 2, 3), [[None, (0, 1), None], [None, (1, 1), None]]),
    "the third of three": (numbers(4, 2, 3), [[None, None, (0, 1)], [None, None, (1, 2)]]),
    "64 slices": (numbers(64), [[(at, 1)] for at in range(64)]),
    "4096 bytes": bytes_in_two(4096),
    "4096 bytes of doubles": bytes_in_two(512, np.float64),
    "2 bytes": (numbers(2, dtype=np.int8), [[(0, 1)], [(1, 1)]]),
    "32 dimensions": (numbers(2, *[1] * 31), [[(at, 1), *[None] * 31] for at in range(2)]),
}


@pytest.mark.parametrize("verify", [False, True])
@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("case", COMMON_SLICES)
def test_slices_of_the_common_form_are_read_together(
    tmp_path: Path, case: str, big: bool, verify: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    array, cuts = COMMON_SLICES[case]
    path = with_slices(sliced(array, cuts), big=big).write(tmp_path / "m")
    found = read_sliced(path, verify=verify)
    assert len(found) == OTHERS + 1
    made, taken = found["t"]
    assert b.same(made, array) and made.flags.writeable and made.flags.c_contiguous
    assert taken == array.nbytes
    assert b.same(ckptparse.read(path)["t"], array)
    assert same_alone(path, monkeypatch, verify=verify)


def in_33_dimensions(made: b.Bundle) -> None:
    cuts: list[Any] = [[(at, 1), *[None] * 32] for at in range(2)]
    for cut in cuts:
        made.add(b.slice_key("t", cut), np.int32(1), shape=(1,) * 33)
    made.entries[b"t"] = b.Entry(b.INT32, (2, *[1] * 32), slices=cuts)


def of_another_rank(made: b.Bundle) -> None:
    cuts: list[Any] = [[(0, 1)], [(1, 1)]]
    for cut in cuts:
        made.add(b.slice_key("t", cut), numbers(1, 2))
    made.entries[b"t"] = b.Entry(b.INT32, (2, 2), slices=cuts)


def parts_of_another_rank(made: b.Bundle) -> None:
    in_rows(made)
    for cut in ROWS:
        made.change(b.slice_key("t", cut), shape=(12,))


ROWS: list[Any] = [[(0, 2), None], [(2, 2), None]]
"""Two slices, each of shape (2, 6)."""
in_rows = sliced(numbers(4, 6), ROWS)


def with_second(**changes: Any) -> Add:
    """Change the entry of the second slice."""

    def add(made: b.Bundle) -> None:
        in_rows(made)
        made.change(b.slice_key("t", ROWS[1]), **changes)

    return add


def of_half_a_row(made: b.Bundle) -> None:
    """The second slice is listed as one of three columns, and its entry has six."""
    cuts: list[Any] = [ROWS[0], [(2, 2), (0, 3)]]
    made.add_sliced("t", numbers(4, 6), cuts)
    made.add(b.slice_key("t", cuts[1]), numbers(2, 6))


def before_one_like_it(made: b.Bundle) -> None:
    """A slice is missing; the last entry of the index looks the same."""
    made.add_sliced("t", numbers(4, 6), ROWS, missing=[1])
    made.add("z", numbers(2, 6))


OTHER_SLICES: dict[str, Add] = {
    "65 slices": sliced(numbers(65), [[(at, 1)] for at in range(65)]),
    "4097 bytes": sliced(*bytes_in_two(4097)),
    "4104 bytes of doubles": sliced(*bytes_in_two(513, np.float64)),
    "no elements": sliced(numbers(0, 2), [[None, (0, 1)], [None, (1, 1)]]),
    "33 dimensions": in_33_dimensions,
    "strings": sliced(np.array([b"a", b"b"], object), [[(0, 1)], [(1, 1)]]),
    "one slice": sliced(numbers(2), [[None]]),
    "cut in both": sliced(numbers(4, 4), [[(0, 4), (0, 2)], [(0, 2), (2, 2)], [(2, 2), (2, 2)]]),
    "the first cut in both": sliced(
        numbers(4, 4), [[(0, 2), (0, 2)], [(0, 2), (2, 2)], [(2, 2), None]]
    ),
    "a gap and an overlap": sliced(numbers(4), [[(0, 1)], [(2, 2)], [(3, 1)]]),
    "a gap": sliced(numbers(4), [[(0, 1)], [(2, 2)]]),
    "a gap at first": sliced(numbers(4), [[(1, 1)], [(2, 2)]]),
    "a gap at last": sliced(numbers(4), [[(0, 1)], [(1, 2)]]),
    "an overlap": sliced(numbers(4), [[(0, 2)], [(1, 3)]]),
    "all and a part": sliced(numbers(4), [[(0, 2)], [None]]),
    "a slice that is missing": sliced(numbers(4, 6), ROWS, missing=[1]),
    "the first slice is missing": sliced(numbers(4, 6), ROWS, missing=[0]),
    "a slice is missing, and the last entry is like it": before_one_like_it,
    "slices of another rank": of_another_rank,
    "parts of another rank": parts_of_another_rank,
    "a part of another shape": with_second(shape=(3, 4)),
    "a part of another kind": with_second(dtype=b.FLOAT),
    "a part in slices": with_second(slices=[[(0, 1), None]]),
    "a part of more columns than it says": of_half_a_row,
}


@pytest.mark.parametrize("verify", [False, True])
@pytest.mark.parametrize("case", OTHER_SLICES)
def test_slices_of_another_form_are_left_and_read_as_before(
    tmp_path: Path, case: str, verify: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = with_slices(OTHER_SLICES[case]).write(tmp_path / "m")
    found = read_sliced(path, verify=verify)
    assert len(found) == OTHERS and "t" not in found
    assert same_alone(path, monkeypatch, verify=verify)


def test_slices_after_one_that_is_damaged_are_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = with_slices(with_second(crc=0x12345678)).write(tmp_path / "m")
    assert read_sliced(path) == {}
    assert same_alone(path, monkeypatch)
    with pytest.raises(ckptparse.ChecksumError):
        ckptparse.read(path)
    assert b.same(read_sliced(path, verify=False)["t"][0], numbers(4, 6))
    assert b.same(ckptparse.read(path, verify=False)["t"], numbers(4, 6))
    # "t" is the last, so it is in a batch of its own.
    monkeypatch.setattr(small_sliced, "_BATCH", 2 * OTHERS)
    assert sorted(read_sliced(path)) == [f"f{number:02}" for number in range(OTHERS)]


@pytest.mark.parametrize(("count", "together"), [(3, 0), (4, 4), (5, 5)])
def test_fewer_than_four_tensors_in_slices_are_left(
    tmp_path: Path, count: int, together: int, reads: list[int]
) -> None:
    found = read_sliced(with_slices(others=count).write(tmp_path / "m"))
    assert len(found) == together
    assert reads == [2 * together] * bool(together)


@pytest.mark.parametrize(("memory", "together"), [(4 * 8, 4), (4 * 8 - 1, 3), (7, 0)])
def test_slices_end_where_the_budget_does_and_take_nothing_of_it(
    tmp_path: Path, memory: int, together: int
) -> None:
    path = with_slices(others=4).write(tmp_path / "m")
    budget = limited(memory)
    assert len(read_sliced(path, budget=budget)) == together
    budget.take(memory)
    with pytest.raises(ckptparse.LimitError):
        budget.take(1)


def test_4096_slices_are_read_at_once(tmp_path: Path, reads: list[int]) -> None:
    path = with_slices(others=1).write(tmp_path / "m")
    with closing(BundleReader.open(path, Context())) as reader:
        listing = reader.index.listing()
        (parts,) = listing.parts.values()
        plan = small_sliced._Plan(0, 256, 0, [*parts] * 32)
        found = list(small_sliced._read_parts(reader.shards, listing, [plan] * 65, DEFAULT_OPTIONS))
    assert reads == [4096, 64]
    assert len(found) == 65
    for made, arrays in found:
        assert made is plan
        assert np.concatenate(arrays).tolist() == [5, 6] * 32


# ---- what all of a read may take


def with_both(folder: Path) -> str:
    """Strings "f00" to "f15", which take 928 bytes, and slices "p00" to "p15", which take 128.

    The data file has 240 bytes.
    """
    made = with_strings()
    for number in range(OTHERS):
        made.add_sliced(f"p{number:02}", np.array([5, 6], np.int32), [[(0, 1)], [(1, 1)]])
    return made.write(folder / "m")


def test_strings_and_slices_share_what_a_read_may_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = with_both(tmp_path)
    assert (tmp_path / "m.data-00000-of-00001").stat().st_size == 240
    enough = 928 + 128 - 240
    assert len(ckptparse.read(path, limits=Limits(memory_bytes=enough))) == 2 * OTHERS
    with pytest.raises(ckptparse.LimitError) as caught:
        ckptparse.read(path, limits=Limits(memory_bytes=enough - 1))
    assert caught.value.tensor == "p15"
    for memory in (*range(0, enough, 51), 928 - 240 - 1, 928 - 240, 928 - 240 + 1, enough - 1):
        assert same_alone(path, monkeypatch, limits=Limits(memory_bytes=memory)), memory


def test_what_is_read_together_is_taken_and_a_read_without_a_budget_counts_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = with_both(tmp_path)
    alone: list[Any] = []
    for kind in (StringPayload, SlicedPayload):
        monkeypatch.setattr(kind, "read", lambda *asked: alone.append(asked))
    with closing(BundleReader.open(path, Context())) as reader:
        names = list(reader.shapes())
        columns = reader.index.columns_of(names)
        budget = limited(2000)
        for options in (replace(DEFAULT_OPTIONS, budget=budget), DEFAULT_OPTIONS):
            found = reader._read_together(names, columns, options)
            assert [array.tolist() for array in found] == [b"ab"] * OTHERS + [[5, 6]] * OTHERS
    budget.check(2000 - 928 - 128)
    with pytest.raises(ckptparse.LimitError):
        budget.check(2000 - 928 - 128 + 1)
    assert not alone


@pytest.mark.parametrize("is_sliced", [False, True])
def test_small_tensors_that_share_their_bytes_are_counted(
    tmp_path: Path, is_sliced: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = (with_slices if is_sliced else with_strings)(others=1)
    held = len(made.shards[0])
    for key, entry in list(made.entries.items()):
        for number in range(1, 20):
            made.entries[key.replace(b"f00", b"f%02d" % number)] = entry
    path = made.write(tmp_path / "m")
    beyond = 19 * held
    found = ckptparse.read(path, limits=Limits(shared_bytes=beyond))
    assert len(found) == 20
    for shared in (beyond - 1, held, 0):
        assert same_alone(path, monkeypatch, limits=Limits(shared_bytes=shared))
        with pytest.raises(ckptparse.LimitError, match="by sharing their bytes"):
            ckptparse.read(path, limits=Limits(shared_bytes=shared))


# ---- and written


ONES = np.ones(4, np.float32)


def small(name: str, payload: bytes = b"\1\2\3\4") -> SmallTensor:
    return SmallTensor(name, b.UINT8, (len(payload),), payload, b.crc(payload))


def test_small_tensors_are_written_as_the_builder_writes_them() -> None:
    built = b.Bundle()
    built.add("a", np.array([1, 2, 3, 4], np.uint8))
    built.add("é", np.zeros(0, np.uint8))
    built.add_strings("s", [b"ab", b""], (2,))
    built.add("d", ONES)
    built.add("z", np.array([7], np.uint8))
    built.add("other", np.array([8], np.uint8), shard=1)
    payload, check = b.string_payload([b"ab", b""])
    files = MemoryFiles()
    made = BundleWriter(files, "x", num_shards=2)
    texts = SmallTensor("s", b.STRING, (2,), memoryview(payload), unmask_crc(check))
    made.add_small([small("a"), small("é", b""), texts])
    made.add_small([])
    made.add("d", b.FLOAT, (4,), content_of_array(ONES, b.FLOAT))
    made.add_small([small("z", b"\7")])
    made.add_small([small("other", b"\x08")], shard=1)
    made.finish()
    assert files.content == built.files("x")


def test_a_small_tensor_is_written_once() -> None:
    made = BundleWriter(MemoryFiles(), "x")
    with closing(made):
        made.add_small([small("a")])
        half = TensorSlice((Extent(0, 4),))
        made.add_slice("b", b.FLOAT, (8,), half, content_of_array(ONES, b.FLOAT))
        with pytest.raises(ValueError, match="b'a' has been written already"):
            made.add_small([small("a")])
        with pytest.raises(ValueError, match="b'a' has been written already"):
            made.add("a", b.FLOAT, (4,), content_of_array(ONES, b.FLOAT))
        with pytest.raises(ValueError, match="b'c' has been written already"):
            made.add_small([small("c"), small("c")])
        with pytest.raises(ValueError, match="Slices of 'b' were written already"):
            made.add_small([small("b")])
        with pytest.raises(ValueError, match="found 1: data files are written in order"):
            made.add_small([small("d")], shard=1)


@pytest.mark.parametrize(
    "name", ["", "\ud800", b.slice_key("w", [(0, 1)]).decode("utf-8", "surrogateescape")]
)
def test_a_name_that_no_index_can_have_is_refused_as_for_other_tensors(name: str) -> None:
    with closing(BundleWriter(MemoryFiles(), "x")) as made:
        with pytest.raises(ckptparse.UnsupportedError) as alone:
            made.add(name, b.FLOAT, (4,), content_of_array(ONES, b.FLOAT))
        with pytest.raises(ckptparse.UnsupportedError) as together:
            made.add_small([small(name)])
    assert (str(together.value), together.value.tensor) == (str(alone.value), name)


@pytest.mark.parametrize(
    ("count", "length", "is_short"),
    [(1, 0, True), (64, 1, True), (65, 1, False), (1, 127, True), (1, 128, False), (0, 0, True)],
)
def test_few_short_strings_are_encoded_in_few_steps(
    count: int, length: int, is_short: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bytes] = []
    real = strings_module.check_short_lengths

    def noted(lengths: bytes, order: str) -> tuple[int, bytes]:
        asked.append(lengths)
        return real(lengths, order)

    monkeypatch.setattr(strings_module, "check_short_lengths", noted)
    values = [b"x" * length] * count
    payload, crc = strings_module.encode_strings(values)
    assert (payload, b.mask(crc)) == b.string_payload(values)
    assert asked == [bytes([length] * count)] * is_short
