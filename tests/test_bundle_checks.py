"""Each check of the V2 reader by itself, by the smallest message that needs it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import builder as b
import numpy as np
import pytest

import ckptparse
from ckptparse.bundle.decoding import decode_entry, decode_header, decode_shape
from ckptparse.bundle.entry import (
    BundleEntry,
    BundleHeader,
    Endianness,
    count_elements,
    shape_from_proto,
)
from ckptparse.bundle.index import BundleIndex, held_bytes
from ckptparse.bundle.naming import decode_names, decode_slice_key
from ckptparse.bundle.reader import BundleReader
from ckptparse.bundle.strings import (
    check_strings,
    decode_lengths,
    decode_strings,
    encode_strings,
    encode_variants,
    most_lengths_bytes,
    split_variants,
)
from ckptparse.coding.checksum import crc32c
from ckptparse.dtypes import DataType
from ckptparse.errors import (
    CheckpointError,
    ChecksumError,
    ClosedError,
    DataLossError,
    LimitError,
    MalformedError,
    MissingShardError,
    StorageError,
    TruncatedError,
    UnsupportedError,
)
from ckptparse.files.context import Context
from ckptparse.limits import DEFAULT_LIMITS, Budget, Limits
from ckptparse.proto.tensor_bundle_pb2 import BundleEntryProto, BundleHeaderProto
from ckptparse.proto.tensor_shape_pb2 import TensorShapeProto
from ckptparse.slices import Extent, TensorSlice
from ckptparse.table.block import Block
from ckptparse.table.columns import TableColumns
from ckptparse.table.reader import Table

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


def test_a_header_of_the_common_form_has_its_four_fields_too() -> None:
    little, big = bytes.fromhex("08 02 1a 02 08 01"), bytes.fromhex("08 02 10 01 1a 02 08 07")
    found = decode_header(little, limits=DEFAULT_LIMITS)
    assert found == BundleHeader(2, Endianness.LITTLE, 1, 0)
    assert decode_header(big, limits=Limits(shards=2)) == BundleHeader(2, Endianness.BIG, 7, 0)
    with pytest.raises(LimitError) as caught:
        decode_header(big, limits=Limits(shards=1))
    assert caught.value.limit == "shards"


def test_a_shape_of_the_common_form_has_as_many_dimensions_as_the_limit_says() -> None:
    data = bytes.fromhex("12 02 08 02 12 02 08 03")
    assert decode_shape(data, limits=Limits(rank=2)) == (2, 3)
    with pytest.raises(LimitError) as caught:
        decode_shape(data, limits=Limits(rank=1))
    assert caught.value.limit == "rank"


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


@pytest.mark.parametrize("form", ["08 05 1a 02 08 01", "08 05 1a 02 08 01 48 01"])
def test_there_may_be_one_data_file_more_for_each_64_kib_of_them(form: str) -> None:
    """Of a header as TensorFlow writes it, and of one that protobuf parses."""
    data = bytes.fromhex(form)
    asked: list[None] = []

    def holds(size: int) -> int:
        asked.append(None)
        return size

    for size in (2 << 16, 5 << 16):
        limits = Limits(shards=3)
        assert (
            decode_header(data, limits=limits, held=lambda size=size: holds(size)).num_shards == 5
        )
    assert len(asked) == 2
    assert decode_header(data, limits=Limits(shards=5), held=lambda: holds(0)).num_shards == 5
    assert len(asked) == 2, "it is not asked what the files have if they need nothing more"
    for size, allowed in (((2 << 16) - 1, 4), ((1 << 16) - 1, 3), (0, 3)):
        with pytest.raises(LimitError, match=f"allows {allowed}") as caught:
            decode_header(data, limits=Limits(shards=3), held=lambda size=size: size)
        assert caught.value.limit == "shards"


def test_a_header_that_is_too_long_is_too_long_whatever_the_files_have() -> None:
    data = bytes.fromhex("08 01 1a 02 08 01 48 01")
    with pytest.raises(LimitError) as caught:
        decode_header(data, limits=Limits(message_bytes=1), held=lambda: 1 << 40)
    assert caught.value.limit == "message_bytes"


# ---- entries


def test_an_entry_of_the_common_form_has_as_many_dimensions_as_the_limit_says() -> None:
    data = b.Entry(dtype=b.FLOAT, shape=(2, 3), size=24, crc=1 << 20).to_bytes()
    assert decode_entry(data, num_shards=1, limits=Limits(rank=2)).shape == (2, 3)
    with pytest.raises(LimitError) as caught:
        decode_entry(data, num_shards=1, limits=Limits(rank=1))
    assert caught.value.limit == "rank"


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


@pytest.mark.parametrize("count", [3, 70])
def test_tensors_of_a_listing_have_as_many_bytes_as_are_asked_for(
    tmp_path: Path, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[int | None] = []
    read = BundleIndex._read_listing
    monkeypatch.setattr(
        BundleIndex, "_read_listing", lambda one, most: (reads.append(most), read(one, most))[1]
    )
    made = b.Bundle()
    for number in range(count):
        made.add(f"w{number:02}", np.float32([number]))
    path = saved(tmp_path, made) + ".index"
    index = BundleIndex.open(path, Context())
    assert len(index.listing(most_bytes=4 * count).names) == count
    index = BundleIndex.open(path, Context())
    for _ in range(2):
        # It is told again to whoever asks again, whatever they ask.
        with pytest.raises(MalformedError, match=f"up to {4 * count - 1} bytes together"):
            index.listing(most_bytes=4 * count - 1)
    assert reads == [4 * count, 4 * count - 1], "and it is not read again for that"


@pytest.mark.parametrize("count", [3, 70])
def test_slices_of_an_index_are_counted_whether_they_are_listed_or_orphans(
    tmp_path: Path, count: int
) -> None:
    made = b.Bundle()
    for number in range(count):
        made.add(f"w{number:02}", np.float32([number]))
    made.add_sliced("s", np.zeros((3, 2), np.float32), b.split_rows(3, 3, 2))
    for row in range(2):
        key = b.slice_key("gone", [(row, 1), None])
        made.put_entry(key, bytes(8), b.masked_crc(bytes(8)), dtype=b.FLOAT, shape=(1, 2))
    path = saved(tmp_path, made) + ".index"
    assert len(BundleIndex.open(path, Context(limits=Limits(single_entries=5))).listing().orphans)
    index = BundleIndex.open(path, Context(limits=Limits(single_entries=4)))
    for _ in range(2):
        with pytest.raises(LimitError, match=r"single_entries") as caught:
            index.listing()
        assert caught.value.limit == "single_entries"
    few = BundleIndex.open(path, Context(limits=Limits(single_entries=2)))
    with pytest.raises(LimitError, match=r"is 3, and"):
        few.listing()


def test_slices_are_counted_anew_if_the_index_could_not_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = b.Bundle()
    made.add_sliced("s", np.zeros((3, 2), np.float32), b.split_rows(3, 3, 2))
    path = saved(tmp_path, made) + ".index"
    index = BundleIndex.open(path, Context(limits=Limits(single_entries=3)))
    iterate = Table.iter_columns

    def fail(table: Table) -> Iterator[TableColumns]:
        yield from iterate(table)
        raise StorageError("the disk is gone", path=path)

    monkeypatch.setattr(Table, "iter_columns", fail)
    with pytest.raises(StorageError):
        index.listing()
    monkeypatch.undo()
    assert index.listing().names == ["s"]


def test_a_slice_without_an_entry_has_no_row_and_a_name_has_its_own(tmp_path: Path) -> None:
    made = b.Bundle()
    made.add_sliced("s", np.zeros((3, 2), np.float32), b.split_rows(3, 3, 2), missing=[1])
    made.add("t", np.float32(1))
    listing = BundleIndex.open(saved(tmp_path, made) + ".index", Context()).listing()
    assert list(listing.parts.values()) == [[0, -1, 1]]
    assert [listing.find_number(name) for name in ("s", "t", "a", "sa", "z")] == [
        0,
        1,
        None,
        None,
        None,
    ]


class Unlisted:
    """A storage that lists no directories, or cannot."""

    def __init__(self, sizes: dict[str, int], *, lists: bool = False) -> None:
        self.sizes, self.lists = sizes, lists

    def split(self, path: str) -> tuple[str, str]:
        return "d", path.rpartition("/")[2]

    def stat(self, path: str) -> Any:
        return None if path not in self.sizes else SimpleNamespace(size=self.sizes[path])

    def list(self, directory: str) -> dict[str, Any]:
        raise StorageError("it lists nothing", path=directory)


def test_what_an_index_and_its_data_files_hold(tmp_path: Path) -> None:
    made = b.Bundle()
    made.add("w", np.zeros(9, np.float32))
    path = saved(tmp_path, made) + ".index"
    size = Path(path).stat().st_size
    (tmp_path / "m.datatype").write_bytes(bytes(99))
    (tmp_path / "other").write_bytes(bytes(99))
    (tmp_path / "m.data-00001-of-00007").write_bytes(bytes(5))
    storage = Context().storage
    assert held_bytes(path, storage, 0) == held_bytes(path, storage, 1) == size + 36 + 5
    sizes = {"d/m.index": 7, "d/m.data-00000-of-00003": 20, "d/m.data-00002-of-00003": 300}
    remote: Any = Unlisted(sizes)
    assert held_bytes("d/m.index", remote, 3) == 327
    assert held_bytes("d/m.index", remote, 0) == 7
    failing: Any = Unlisted(sizes, lists=True)
    assert held_bytes("d/m.index", failing, 3) == 0


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


# ---- strings and variants


def strings_of(values: list[bytes], *, big: bool = False, **options: Any) -> tuple[bytes, int]:
    payload, crc = b.string_payload(values, big=big, **options)
    return payload, unmasked(crc)


def unmasked(masked: int) -> int:
    rotated = (masked - 0xA282EAD8) & 0xFFFFFFFF
    return ((rotated >> 17) | (rotated << 15)) & 0xFFFFFFFF


VALUES = [b"", b"a", b"bc", b"x" * 127, b"y" * 128, b"z" * 300]


@pytest.mark.parametrize("big", [False, True])
def test_strings_are_those_that_were_written(big: bool) -> None:
    payload, crc = strings_of(VALUES, big=big)
    found = decode_strings(payload, len(VALUES), big_endian=big, crc=crc)
    assert found.tolist() == VALUES
    lengths, position, running = decode_lengths(payload, len(VALUES), len(payload), big_endian=big)
    assert lengths.tolist() == list(map(len, VALUES))
    # Two lengths of two bytes, four of one, and a checksum of four.
    assert position == 8 and payload[12:15] == b"abc"
    head = payload[: most_lengths_bytes(len(VALUES))]
    asked = []

    def stream(start: int, running: int) -> int:
        asked.append(start)
        return crc32c(payload[start:], running)

    check_strings(head, len(VALUES), len(payload), big_endian=big, crc=crc, stream=stream)
    assert asked == [position]
    with pytest.raises(ChecksumError, match="string tensor"):
        check_strings(head, len(VALUES), len(payload), big_endian=big, crc=crc ^ 1, stream=stream)
    if not big:
        assert encode_strings(VALUES) == (payload, crc)
    assert running == crc32c(
        b"".join(len(v).to_bytes(4, "big" if big else "little") for v in VALUES)
    )


def test_no_strings_are_the_checksum_of_no_lengths() -> None:
    payload, crc = strings_of([])
    assert len(payload) == 4
    assert decode_strings(payload, 0, big_endian=False, crc=crc).shape == (0,)
    assert most_lengths_bytes(3) == 34


def test_strings_that_break_a_rule() -> None:
    payload, crc = strings_of(VALUES)
    count = len(VALUES)

    def decode(data: bytes, number: int = count, crc: int | None = crc) -> object:
        return decode_strings(data, number, big_endian=False, crc=crc)

    for broken, kind in (
        (payload + b"x", MalformedError),
        (payload[:-1], MalformedError),
        (payload[:8], MalformedError),
        (payload[:11], MalformedError),
        (payload[:3], MalformedError),
        (b"\x80" * 10 + payload, MalformedError),
        (payload[:8] + b"\0" + payload[9:], ChecksumError),
        (payload[:-1] + b"x", ChecksumError),
    ):
        with pytest.raises(kind):
            decode(broken)
    with pytest.raises(ChecksumError):
        decode(payload, crc=crc ^ 1)
    assert decode(payload[:-1] + b"x", crc=None) is not None
    # The lengths have a checksum of their own, which is checked in any case.
    with pytest.raises(ChecksumError, match="lengths of a string tensor"):
        decode(payload[:8] + b"\0" + payload[9:], crc=None)
    with pytest.raises(MalformedError, match="Expected the checksum of 6 lengths at byte 8"):
        decode(payload[:11])
    with pytest.raises(CheckpointError):
        decode(payload, count + 1)


def test_strings_are_taken_from_a_budget() -> None:
    payload, crc = strings_of([b"a" * 1000] * 4)
    for most, fine in ((4_500, True), (3_000, False)):
        budget = Budget(Limits(memory_bytes=most), 0)
        if fine:
            decode_strings(payload, 4, big_endian=False, crc=crc, budget=budget)
        else:
            with pytest.raises(LimitError):
                decode_strings(payload, 4, big_endian=False, crc=crc, budget=budget)


def test_very_many_lengths_have_the_checksum_of_all() -> None:
    """They are taken 65,536 at a time."""
    values = [b""] * ((1 << 16) + 3)
    payload, crc = strings_of(values)
    assert len(decode_strings(payload, len(values), big_endian=False, crc=crc)) == len(values)
    assert encode_strings(values) == (payload, crc)


def test_a_length_from_2_to_the_32_on_counts_with_eight_bytes() -> None:
    """Nobody has so many bytes at hand: the lengths and their checksum suffice."""
    for lengths, fixed in (
        ([1 << 32, 1], b"\0\0\0\0\1\0\0\0" + b"\1\0\0\0"),
        ([(1 << 32) - 1, 1], b"\xff\xff\xff\xff" + b"\1\0\0\0"),
        ([1 << 32, (1 << 32) - 1], b"\0\0\0\0\1\0\0\0" + b"\xff\xff\xff\xff"),
    ):
        head = b"".join(map(b.varint, lengths)) + b.fixed32(b.masked_crc(fixed))
        found, position, running = decode_lengths(
            head, 2, len(head) + sum(lengths), big_endian=False
        )
        assert found.tolist() == lengths and position == len(head) - 4
        assert running == crc32c(fixed)


def test_variants_are_those_that_were_written() -> None:
    messages = [b.variant_proto("t"), b.variant_proto("u" * 200)]
    payload, masked = b.variant_payload(messages)
    crc = unmasked(masked)
    assert split_variants(payload, 2, big_endian=False, crc=crc) == messages
    assert encode_variants(messages) == (payload, crc)
    for broken, kind in (
        (payload + b"x", MalformedError),
        (payload[:-1], MalformedError),
        (payload[:3], MalformedError),
        (b"\x80" * 11, MalformedError),
        (payload[:1] + b"\xff" + payload[2:], ChecksumError),
        (payload[:-1] + bytes([payload[-1] ^ 1]), ChecksumError),
    ):
        with pytest.raises(kind):
            split_variants(broken, 2, big_endian=False, crc=crc)
    with pytest.raises(ChecksumError):
        split_variants(payload, 2, big_endian=False, crc=crc ^ 1)
    assert split_variants(payload, 2, big_endian=False, crc=None) == messages
    wrong = payload[:-1] + bytes([payload[-1] ^ 1])
    with pytest.raises(ChecksumError, match="element of a variant tensor"):
        split_variants(wrong, 2, big_endian=False, crc=None)
    assert split_variants(b"", 0, big_endian=False, crc=None) == []


# ---- data files


def test_where_the_bytes_of_all_tensors_lie(tmp_path: Path) -> None:
    made = b.Bundle()
    made.add("a", np.arange(3, dtype=np.float32))
    made.add("b", np.zeros(0, np.float32))
    made.add("c", np.arange(2, dtype=np.int64), shard=2)
    made.add_sliced("p", np.zeros((2, 2), np.float32), b.split_rows(2, 2, 2))
    made.change("b", offset=1 << 40)
    path = saved(tmp_path, made)
    reader = BundleReader.open(path, Context())
    places = reader.places()
    assert list(places.names) == ["a", "b", "c", "p"]
    assert places.numbers.tolist() == [0, 0, 2, -1]
    assert places.offsets.tolist() == [0, 1 << 40, 0, 0]
    assert places.sizes.tolist() == [12, 0, 16, 0]
    assert places.crcs.tolist()[3] == -1
    # An empty tensor does not count, wherever it says that it lies.
    assert reader.data_sizes() == {
        f"{path}.data-00000-of-00003": 28,
        f"{path}.data-00002-of-00003": 16,
    }
    assert reader.files == (f"{path}.index", *(reader.shards.path(number) for number in range(3)))
    assert reader.shards.held == 28 + 16
    reader.close()
    with pytest.raises(ClosedError):
        reader.check_open()


def test_a_checkpoint_that_was_replaced_is_said_to_be_whatever_is_found(tmp_path: Path) -> None:
    made = b.Bundle()
    made.add("w", np.arange(9, dtype=np.float32))
    made.add("s", np.array([b"x"], object))
    for change, kind in (
        (lambda data: data.unlink(), MissingShardError),
        (lambda data: data.write_bytes(b""), TruncatedError),
        (lambda data: data.write_bytes(bytes(60)), DataLossError),
    ):
        for replaced in (False, True):
            path = saved(tmp_path, made)
            with ckptparse.open(path) as opened:
                change(Path(path + ".data-00000-of-00001"))
                if replaced:
                    (tmp_path / "new").write_bytes(made.index())
                    (tmp_path / "new").replace(path + ".index")
                for name in ("w", "s"):
                    with pytest.raises(StorageError if replaced else kind) as caught:
                        opened[name].read()
                    assert ("replaced" in str(caught.value)) == replaced


def test_bytes_that_are_shared_count_if_other_tensors_are_strings_too(tmp_path: Path) -> None:
    made = b.Bundle()
    values = np.array([b"y" * 4_000], object)
    made.add("s", values)
    for number in range(20):
        made.entries[b"t%02d" % number] = made.entries[b"s"]
    path = saved(tmp_path, made)
    assert len(ckptparse.read(path)) == 21
    with pytest.raises(LimitError) as caught:
        ckptparse.read(path, limits=Limits(shared_bytes=10_000))
    assert caught.value.limit == "shared_bytes"


def test_entries_are_found_singly_as_they_are_in_the_whole_index(tmp_path: Path) -> None:
    made = b.Bundle()
    made.add("\0name", np.float32(1))
    rows = b.split_rows(2, 2, 2)
    made.add_sliced("w", np.zeros((2, 2), np.float32), rows)
    made.add("z", np.arange(5, dtype=np.float32))
    index = BundleIndex.open(saved(tmp_path, made) + ".index", Context())
    piece = b.slice_key("w", rows[0]).decode("utf-8", "surrogateescape")
    for _ in range(2):
        named, sliced, plain = (index.find_entry(name) for name in ("\0name", "w", "z"))
        assert named is not None and named.shape == ()
        assert sliced is not None and len(sliced.slices) == 2
        assert plain is not None and plain.shape == (5,)
        assert [index.find_entry(name) for name in ("", "nope", piece, "\ud800")] == [None] * 4
        found = index.find_slice("w", sliced.slices[1])
        assert found is not None and found.shape == (1, 2)
        assert index.find_slice("z", sliced.slices[1]) is None
        assert index.columns_of(["z", "w"]).shapes == [(5,), (2, 2)]
        assert list(index.columns_of(["z", "w"]).others) == [1]
        index.listing()
    index.close()
    for ask in (index.check_open, index.fingerprint):
        with pytest.raises(ClosedError):
            ask()


@pytest.mark.parametrize("most", [1, 3_000, 1 << 22])
def test_keys_of_slices_that_lie_in_several_parts_of_an_index_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    array = np.arange(160, dtype=np.float32).reshape(80, 2)
    made = b.Bundle()
    made.add_sliced("p", array, b.split_rows(80, 80, 2))
    gone = b.slice_key("gone", [(0, 1), None])
    made.put_entry(gone, bytes(8), b.masked_crc(bytes(8)), dtype=b.FLOAT, shape=(1, 2))
    for number in range(40):
        made.add(f"t{number:02}", np.float32(number))
    path = made.write(tmp_path / "m", block_size=512)
    monkeypatch.setattr("ckptparse.table.reader._PART_BYTES", most)
    index = BundleIndex.open(path + ".index", Context())
    listing = index.listing()
    counts = [len(entries.keys) for entries in index._table.iter_blocks()]
    assert len(counts) > 5
    # The header, which is the first entry of all, is no row.
    assert list(listing.block_ends) == [sum(counts[: n + 1]) - 1 for n in range(len(counts))]
    assert list(listing.names) == ["p", *(f"t{number:02}" for number in range(40))]
    assert [name for name, *_ in listing.orphans] == ["gone"]
    (rows,) = listing.parts.values()
    assert [listing.columns.entry(row).offset for row in rows] == [8 * row for row in range(80)]
    index.close()
    assert ckptparse.read(path)["p"].tolist() == array.tolist()


@pytest.mark.parametrize("name", ["w", "s", "v"])
def test_bytes_beyond_the_end_of_a_file_are_said_before_any_is_read(
    tmp_path: Path, name: str
) -> None:
    made = b.Bundle()
    made.add("w", np.arange(9, dtype=np.float32))
    made.add("s", np.array([b"x", b"y"], object))
    made.add_variants("v", [b.variant_proto("t")], ())
    if name == "w":
        made.change(name, shape=(1 << 40,), size=1 << 42)
    else:
        made.change(name, size=1 << 42)
    path = saved(tmp_path, made)
    for ask in (
        lambda tensor: tensor.read(),
        lambda tensor: tensor[...],
        lambda tensor: tensor.verify(),
    ):
        with ckptparse.open(path) as opened, pytest.raises(TruncatedError) as caught:
            ask(opened[name])
        assert caught.value.size == 1 << 42
    if name == "w":
        with ckptparse.open(path) as opened, pytest.raises(TruncatedError):
            opened[name][-1:]


@pytest.mark.parametrize(
    ("key", "name"),
    [
        (b.slice_key("w", [(0, 1), None]), b"w"),
        (b.slice_key("", [None]), b""),
        (b.slice_key("a\0b\xff", [(3, 5)]), "a\0b\xff".encode()),
        (b"\x00w", None),
        (b"w", None),
        (b"\x00w\x00\x01", None),
        (b.slice_key("w", [(0, 1)]) + b"\x00", None),
        (b.slice_key("w", [(0, 1)])[:-1], None),
        (b.slice_key("w", [(-2, 1)]), None),
        (b.slice_key("w", [(0, -2)]), None),
        (b.slice_key("w", [(-2, -2)]), None),
        (b"\x01" + b.slice_key("w", [(0, 1)])[1:], None),
    ],
)
def test_a_key_is_that_of_a_slice_or_it_is_a_name(key: bytes, name: bytes | None) -> None:
    found = decode_slice_key(key)
    assert (found and found[0]) == name


def test_the_key_of_a_slice_says_its_extents() -> None:
    piece = TensorSlice((Extent(3, 2), Extent(0, None), Extent(0, 1)))
    assert decode_slice_key(b.slice_key("w", [(3, 2), None, (0, 1)])) == (b"w", piece)


# ---- names that are decoded together


@pytest.mark.parametrize(
    "keys",
    [
        [],
        [b"a"],
        [b"", b"a", b"ab"],
        [b"", b"a\x00b\x00c"],
        [b"\x00", b"\x00\x00", b"\xff\x00", b"\xff\xfe"],
        [b"a", b"b\x00", b"c", b"d\x00\x00e"],
    ],
)
def test_names_are_the_keys_from_a_row_on_whatever_zeros_they_have(keys: list[bytes]) -> None:
    columns = of_keys(keys)
    names = [key.decode("utf-8", "surrogateescape") for key in keys]
    for first in range(len(keys) + 1):
        assert decode_names(columns, first) == names[first:]


def of_keys(keys: list[bytes]) -> TableColumns:
    """Columns of keys without values."""
    block = Block.from_bytes(b.block([(key, b"") for key in keys]))
    return TableColumns.of_blocks([block.decode_entries(limits=DEFAULT_LIMITS)])
