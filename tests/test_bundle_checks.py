"""Each check of the V2 reader by itself, by the smallest message that needs it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import builder as b
import numpy as np
import pytest

import ckptparse
from ckptparse.bundle.entry import BundleEntry, BundleHeader, count_elements, shape_from_proto
from ckptparse.bundle.index import BundleIndex
from ckptparse.dtypes import DataType
from ckptparse.errors import (
    CheckpointError,
    ClosedError,
    LimitError,
    MalformedError,
    UnsupportedError,
)
from ckptparse.files.context import Context
from ckptparse.limits import DEFAULT_LIMITS, Limits
from ckptparse.proto.tensor_bundle_pb2 import BundleEntryProto, BundleHeaderProto
from ckptparse.proto.tensor_shape_pb2 import TensorShapeProto

pytestmark = pytest.mark.proto

MOST = (1 << 63) - 1


def header(limits: Limits = DEFAULT_LIMITS, **fields: Any) -> BundleHeader:
    data = b.Header(**fields).to_bytes(1)
    return BundleHeader.from_proto(BundleHeaderProto.FromString(data), limits=limits)


def entry(limits: Limits = DEFAULT_LIMITS, shards: int = 3, **fields: Any) -> BundleEntry:
    said = {"dtype": b.FLOAT, "shape": (2,), "size": 8, "crc": 0, **fields}
    data = b.Entry(**said).to_bytes()
    return BundleEntry.from_proto(
        BundleEntryProto.FromString(data), num_shards=shards, limits=limits
    )


# ---- the header


def test_a_header_has_its_four_fields() -> None:
    for number, endianness in ((0, b.LITTLE), (1, b.BIG)):
        found = header(num_shards=7, endianness=endianness, version=b.version_proto(5, 1))
        assert (found.num_shards, found.endianness) == (7, number)
        assert (found.producer, found.min_consumer) == (5, 1)
        assert BundleHeader.from_proto(found.to_proto(), limits=DEFAULT_LIMITS) == found


@pytest.mark.parametrize(
    ("numbers", "kind"),
    [
        ((0, 0), None),
        ((1, 1), None),
        ((1, 2), UnsupportedError),
        ((-1, 0), MalformedError),
        ((1, 0, [0, 2]), None),
        ((1, 0, [2, 1]), UnsupportedError),
    ],
)
def test_versions_that_include_this_reader(
    numbers: tuple[Any, ...], kind: type[CheckpointError] | None
) -> None:
    version = b.version_proto(*numbers)
    if kind is None:
        assert header(version=version).producer == numbers[0]
    else:
        with pytest.raises(kind):
            header(version=version)


def test_there_are_as_many_shards_as_the_limit_says_and_at_least_one() -> None:
    assert header(Limits(shards=3), num_shards=3).num_shards == 3
    assert header(num_shards=1).num_shards == 1
    with pytest.raises(LimitError) as caught:
        header(Limits(shards=3), num_shards=4)
    assert caught.value.limit == "shards"
    for number in (0, -1):
        with pytest.raises(MalformedError, match="at least one shard"):
            header(num_shards=number)
    with pytest.raises(MalformedError, match="endianness"):
        header(endianness=2)


# ---- entries


@pytest.mark.parametrize("kind", [0, 20, 100, 101, 120, 100 + max(DataType), -1])
def test_kinds_that_are_never_stored(kind: int) -> None:
    with pytest.raises(MalformedError, match="DataType of a stored tensor"):
        entry(dtype=kind)


def test_a_kind_that_is_not_known_is_left_to_who_reads_it() -> None:
    assert entry(dtype=99).data_type == 99
    assert entry(dtype=101 + max(DataType)).data_type == 101 + max(DataType)
    assert entry(dtype=999).data_type == 999


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"shard": 3}, "a shard from 0 to 2, found 3"),
        ({"shard": -1}, "a shard from 0 to 2"),
        ({"offset": -1}, "offset and a size of 0 or more"),
        ({"size": -1}, "offset and a size of 0 or more"),
        ({"size": 7}, "expected 8 bytes"),
        ({"size": 9}, "expected 8 bytes"),
        ({"shape": (-1,)}, "dimensions of 0 or more"),
        ({"shape": (2, -1)}, "dimensions of 0 or more"),
        ({"shape": (1 << 62, 2), "size": 0}, r"2\*\*63"),
        ({"shape": (1 << 62, 2, 0), "size": 0}, r"2\*\*63"),
        ({"dtype": b.STRING, "size": 1}, "at least one byte"),
        ({"dtype": b.VARIANT, "size": 1}, "at least one byte"),
        ({"shape": (), "slices": [[]]}, "A scalar has no slices"),
        ({"shape": (), "slices": [[]], "size": 4}, "A scalar has no slices"),
    ],
)
def test_a_field_that_breaks_a_rule_is_malformed(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(MalformedError, match=words):
        entry(**fields)


def test_fields_that_keep_the_rules() -> None:
    assert entry(shard=2, offset=0).shard_id == 2
    assert entry(dtype=b.STRING, size=2).size == 2
    assert entry(shape=(0,), size=0).shape == (0,)
    assert entry(shape=(), size=4).shape == ()
    assert entry(shape=(MOST,), dtype=b.INT8, size=MOST).size == MOST
    halves = [[(0, 1)], [(1, 1)]]
    assert len(entry(slices=halves, size=0).slices) == 2


def test_what_an_entry_says_is_what_is_written_of_it() -> None:
    for made in (entry(shard=1, offset=5, crc=7), entry(shard=1, slices=[[(0, 2)]], size=0, crc=0)):
        again = BundleEntry.from_proto(made.to_proto(), num_shards=3, limits=DEFAULT_LIMITS)
        if not made.slices:
            assert again == made
        assert (again.shape, again.slices, again.shard_id) == (made.shape, made.slices, 1)


@pytest.mark.parametrize(
    ("limit", "fields"),
    [
        ("rank", {"shape": (1, 1, 1), "size": 4}),
        ("slices", {"shape": (3,), "slices": [[(0, 1)], [(1, 1)], [(2, 1)]], "size": 0}),
        ("strings", {"dtype": b.STRING, "shape": (3,), "size": 3}),
        ("strings", {"dtype": b.VARIANT, "shape": (3,), "size": 3}),
    ],
)
def test_an_entry_has_as_many_as_the_limit_says_and_no_more(
    limit: str, fields: dict[str, Any]
) -> None:
    entry(Limits(**{limit: 3}), **fields)
    with pytest.raises(LimitError) as caught:
        entry(Limits(**{limit: 2}), **fields)
    assert caught.value.limit == limit


def test_a_shape_has_less_than_two_to_the_63_elements() -> None:
    assert count_elements(()) == 1
    assert count_elements((MOST,)) == MOST
    assert count_elements((0, 5)) == 0
    with pytest.raises(MalformedError, match=r"2\*\*63 - 1"):
        count_elements((1 << 62, 2))
    with pytest.raises(MalformedError, match=r"2\*\*63 - 1"):
        count_elements((1 << 62, 2, 0))
    # The product is checked at every dimension: a 0 before makes it small, one after does not.
    assert count_elements((0, 1 << 62, 2)) == 0
    empty = TensorShapeProto()
    assert shape_from_proto(empty, limits=DEFAULT_LIMITS) == ()


# ---- an index


def saved(path: Path, made: b.Bundle) -> str:
    return made.write(path / "m")


def test_more_than_64_names_at_once_are_those_of_one_by_one(tmp_path: Path) -> None:
    """Few names are looked up singly; for many the whole index is decoded."""
    made = b.Bundle()
    names = [f"t{number:03}" for number in range(130)]
    for number, name in enumerate(names):
        made.add(name, np.float32(number))
    path = saved(tmp_path, made)
    for count in (1, 63, 64, 65, 130):
        for chosen in (names[:count], names[:count][::-1]):
            found = ckptparse.read(path, chosen)
            assert list(found) == chosen
            assert [float(found[name]) for name in chosen] == [int(name[1:]) for name in chosen]


@pytest.mark.parametrize("parts", [2, 8, 9, 64, 65, 100])
def test_a_tensor_in_any_number_of_slices_is_whole_or_an_error(tmp_path: Path, parts: int) -> None:
    array = np.arange(100 * 3, dtype=np.float32).reshape(100, 3)
    rows = b.split_rows(100, parts, 2)
    made = b.Bundle()
    made.add_sliced("w", array, rows)
    path = saved(tmp_path, made)
    assert ckptparse.read(path)["w"].tolist() == array.tolist()
    with ckptparse.open(path) as opened:
        assert opened["w"].read().tolist() == array.tolist()
        assert opened["w"][5:9].tolist() == array[5:9].tolist()
    last = b.slice_key("w", rows[-1])
    for change in ({"dtype": b.INT32}, {"crc": 1}, {"shape": (3, 1)}, {"shape": (1, 1), "size": 4}):
        made = b.Bundle()
        made.add_sliced("w", array, rows)
        made.change(last, **change)
        broken = saved(tmp_path / str(len(list(tmp_path.iterdir()))), made)
        for ask in (
            ckptparse.read,
            lambda path: ckptparse.open(path)["w"].read(),
        ):
            with pytest.raises(CheckpointError):
                ask(broken)
    made = b.Bundle()
    made.add_sliced("w", array, rows, missing=[parts - 1])
    with pytest.raises(MalformedError, match="which the index lists; found none"):
        ckptparse.read(saved(tmp_path / "missing", made))


def test_slices_that_no_tensor_lists_and_names_that_begin_with_a_zero(tmp_path: Path) -> None:
    made = b.Bundle()
    key = b.slice_key("gone", [(0, 1), None])
    made.put_entry(key, bytes(8), b.masked_crc(bytes(8)), dtype=b.FLOAT, shape=(1, 2))
    made.add("\0name", np.float32(1))
    made.add_sliced("w", np.zeros((2, 2), np.float32), b.split_rows(2, 2, 2))
    made.add("z", np.float32(2))
    path = saved(tmp_path, made)
    with ckptparse.open(path) as opened:
        assert list(opened) == ["\0name", "w", "z"]
        assert [name for name, *_ in opened.orphan_slices] == ["gone"]
        assert opened["\0name"].read() == 1 and opened["z"].read() == 2


def test_the_first_entry_of_an_index_is_its_header(tmp_path: Path) -> None:
    made = b.Bundle()
    made.add("w", np.float32(1))
    pairs = made.pairs()
    for wrong, words in ((pairs[1:], "found key b'w' first"), ([], "an empty table")):
        path = saved(tmp_path, made)
        (tmp_path / "m.index").write_bytes(b.table(wrong).data)
        with pytest.raises(MalformedError, match=words):
            ckptparse.read(path)


def test_a_closed_index_says_so_whatever_is_asked(tmp_path: Path) -> None:
    made = b.Bundle()
    made.add("w", np.float32(1))
    index = BundleIndex.open(saved(tmp_path, made) + ".index", Context())
    assert index.fingerprint() is not None
    index.close()
    with pytest.raises(ClosedError, match="has been closed"):
        index.fingerprint()


def test_an_index_is_as_large_as_the_limit_says_and_no_larger(tmp_path: Path) -> None:
    made = b.Bundle()
    made.add("w", np.float32(1))
    path = saved(tmp_path, made) + ".index"
    size = Path(path).stat().st_size
    BundleIndex.open(path, Context(limits=Limits(index_bytes=size))).close()
    with pytest.raises(LimitError) as caught:
        BundleIndex.open(path, Context(limits=Limits(index_bytes=size - 1)))
    assert caught.value.limit == "index_bytes"


def test_names_with_zeros_among_very_many_are_whole(tmp_path: Path) -> None:
    """All names are decoded at once, with a zero between them: these have one of their own."""
    made = b.Bundle()
    names = [f"t{number:03}" for number in range(100)] + ["u\0v", "u\0w"]
    for name in names:
        made.add(name, np.float32(1))
    with ckptparse.open(saved(tmp_path, made)) as opened:
        assert list(opened) == names


@pytest.mark.parametrize("most", [1, 2_000, 1 << 22])
def test_an_index_that_is_decoded_in_parts_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    made = b.Bundle()
    names = [f"t{number:03}" for number in range(200)]
    for number, name in enumerate(names):
        made.add(name, np.float32(number))
    made.add_sliced("p", np.arange(8, dtype=np.float32).reshape(4, 2), b.split_rows(4, 2, 2))
    path = made.write(tmp_path / "m", block_size=512)
    monkeypatch.setattr("ckptparse.table.reader._PART_BYTES", most)
    with ckptparse.open(path) as opened:
        assert list(opened) == ["p", *names]
        assert [float(opened[name].read()) for name in names] == list(range(200))
        assert "t999" not in opened and "" not in opened
    found = ckptparse.read(path)
    assert found["p"].tolist() == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert [float(found[name]) for name in names] == list(range(200))
    assert ckptparse.verify(path).ok
