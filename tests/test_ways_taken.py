"""Which way is taken, from which size on: the values are the same, time and memory are not."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from typing import Any

import builder as b
import numpy as np
import numpy.typing as npt
import pytest

import ckptparse
from ckptparse.bundle import arena, content, memory, strings
from ckptparse.bundle import index as index_module
from ckptparse.bundle.entry import BundleEntry
from ckptparse.bundle.index import BundleIndex
from ckptparse.bundle.naming import weight_of_slices
from ckptparse.bundle.shapes import Shapes
from ckptparse.coding import checksum, varint
from ckptparse.errors import ClosedError, LimitError, MalformedError
from ckptparse.files.context import Context
from ckptparse.files.memory import MemorySource
from ckptparse.limits import DEFAULT_LIMITS, Budget, Limits
from ckptparse.slices import Extent, TensorSlice
from ckptparse.table import block, format, together
from ckptparse.table.block import Block
from ckptparse.table.builder import TableBuilder
from ckptparse.table.reader import Table

pytestmark = pytest.mark.proto

KIB, MIB = 1 << 10, 1 << 20


def noting(
    monkeypatch: pytest.MonkeyPatch, module: Any, name: str, note: Callable[..., Any]
) -> list[Any]:
    """Note something of each call of a function, which goes on as before."""
    real, noted = getattr(module, name), []

    def noted_call(*given: Any, **options: Any) -> Any:
        noted.append(note(*given, **options))
        return real(*given, **options)

    monkeypatch.setattr(module, name, noted_call)
    return noted


# ---- numbers and checksums


def test_the_checksums_come_from_an_extension_that_is_loaded_without_its_package(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, "crc32c", raising=False)
    loaded = checksum._load_extension()
    assert loaded.__name__ == "crc32c._crc32c"
    assert isinstance(loaded.hardware_based, bool)
    assert loaded.crc32c(b"123456789") == 0xE3069283
    assert "crc32c" not in sys.modules


def test_a_package_that_is_there_or_has_no_extension_gives_the_checksums(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import crc32c

    assert checksum._load_extension() is crc32c
    monkeypatch.delitem(sys.modules, "crc32c")

    def find_spec(name: str, *_: object) -> ModuleSpec:
        return ModuleSpec(name, SourceFileLoader(name, "crc32c.py"), is_package=True)

    monkeypatch.setattr(checksum.PathFinder, "find_spec", find_spec)
    monkeypatch.setattr(sys, "meta_path", [_InMemory(crc32c)])
    assert checksum._load_extension() is crc32c
    monkeypatch.delitem(sys.modules, "crc32c")
    monkeypatch.setattr(checksum.PathFinder, "find_spec", lambda *_: None)
    assert checksum._load_extension() is crc32c


class _InMemory:
    """An importer that has a module already."""

    def __init__(self, module: Any) -> None:
        self.module = module

    def find_spec(self, name: str, *_: object) -> ModuleSpec | None:
        return ModuleSpec(name, self) if name == self.module.__name__ else None  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> Any:
        return self.module

    def exec_module(self, module: Any) -> None:
        pass


def test_65536_varints_are_decoded_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = noting(monkeypatch, varint, "_decode_block", lambda data, count: count)
    data = np.frombuffer(b"\x80\x01" * 150_000, np.uint8)
    values, size = varint.decode_varints(data, 150_000)
    assert (values == 128).all() and size == len(data)
    assert counts == [65536, 65536, 18928]


@pytest.mark.parametrize(("count", "blocks"), [(1, []), (8, []), (9, [9])])
def test_more_than_8_varints_are_decoded_together(
    monkeypatch: pytest.MonkeyPatch, count: int, blocks: list[int]
) -> None:
    counts = noting(monkeypatch, varint, "_decode_block", lambda data, count: count)
    data = np.frombuffer((b"\xff" * 9 + b"\x01") * 12, np.uint8)
    values, size = varint.decode_varints(data, count)
    assert values.tolist() == [2**64 - 1] * count and size == 10 * count
    assert counts == blocks


def test_the_checksum_of_lengths_is_taken_of_65536_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes = noting(monkeypatch, strings, "crc32c", lambda data, crc: len(data))
    found = strings._crc_of_lengths(np.arange(70_000, dtype=np.uint64), "<")
    assert found == checksum.crc32c(np.arange(70_000, dtype="<u4").tobytes())
    assert sizes == [4 * 65536, 4 * 4464]


# ---- blocks

A = b"\x00\x01\x01a1"


def made_block(entries: bytes, *restarts: int) -> Block:
    numbers = b"".join(number.to_bytes(4, "little") for number in (*restarts, len(restarts)))
    return Block.from_bytes(entries + numbers)


@pytest.mark.parametrize(
    ("restarts", "words"),
    [((0, 10, 5, 15), "10 before 5"), ((0, 5, 20), "20 before 20"), ((0, 5, 5), "5 before 5")],
)
def test_the_restart_that_is_wrong_is_named(restarts: tuple[int, ...], words: str) -> None:
    with pytest.raises(MalformedError, match=rf"stay below 20, found {words}$"):
        made_block(A * 4, *restarts)


def test_where_no_key_comes_before_none_of_its_bytes_can_be_shared() -> None:
    words = "share at most 0 bytes of .* by byte 5, found 1 shared bytes and the end at 5"
    broken = made_block(b"\x01\x01\x01a1", 0)
    for ask in (broken.first, lambda: broken.find(b"a", limits=DEFAULT_LIMITS)):
        with pytest.raises(MalformedError, match=f"at byte 0: expected it to {words}"):
            ask()


def test_three_lengths_of_a_byte_each_are_taken_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block, "decode_varint", None)
    assert block.decode_entry(b"\x00\x00\x00", 0, 3) == (0, 3, 3, 3)
    assert block.decode_entry(A, 0, 5) == (0, 3, 4, 5)


def test_lengths_that_reach_into_the_restarts_are_malformed() -> None:
    for entries in (A + b"\x00", A + b"\x00\x01"):
        with pytest.raises(MalformedError, match="Bad block entry at byte 5"):
            made_block(entries, 0).decode_entries(limits=DEFAULT_LIMITS)


def test_the_limit_that_is_passed_is_named() -> None:
    """Each of 200 keys adds a byte to the one before."""
    swelling = b"".join(b.varint(number) + b"\x01\x00x" for number in range(200))
    made = made_block(swelling, 0)
    beyond = sum(range(1, 201)) - 6 * len(made.contents)
    for limits, name in (
        (Limits(entries=200, key_bytes=beyond - 1), "key_bytes"),
        (Limits(entries=199, key_bytes=beyond), "entries"),
    ):
        with pytest.raises(
            LimitError, match=f"is {beyond if name == 'key_bytes' else 200}, "
        ) as caught:
            made.decode_entries(limits=limits)
        assert caught.value.limit == name


@pytest.mark.parametrize(
    ("allowed", "most"),
    [
        (99, 99),
        (100_000, 100_000),
        (1_600_015, 100_000),
        (1_600_016, 100_001),
        (3_200_000, 200_000),
    ],
)
def test_a_block_has_a_sixteenth_of_the_entries_of_its_table_or_100000(
    allowed: int, most: int
) -> None:
    assert block.most_in_block(Limits(entries=allowed)) == most


@pytest.mark.parametrize(
    ("key_bytes", "memory_bytes", "most"),
    [(10, 1 << 40, 6_010), (10, 8 * 7 + 7, 2_007), (10, 8 * 4_010, 6_010), (10, 0, 2_000)],
)
def test_keys_of_a_block_take_an_eighth_of_the_memory_and_twice_the_block(
    key_bytes: int, memory_bytes: int, most: int
) -> None:
    limits = Limits(key_bytes=key_bytes, memory_bytes=memory_bytes)
    assert block._most_key_bytes(1_000, limits) == most


@pytest.mark.parametrize(
    ("keys", "key_bytes", "limit", "number"),
    [
        (1, 610, "memory_bytes", 8 * 410),
        (1, 611, "key_bytes", 11),
        (100_000, 611, "key_bytes", 11),
        (100_001, 611, "entries", 16 * 100_001),
        (1_600_001, 611, "entries", 1_600_001),
    ],
)
def test_the_limit_that_a_block_passes_is_named_with_its_number(
    keys: int, key_bytes: int, limit: str, number: int
) -> None:
    limits = Limits(entries=1_600_000, key_bytes=10, memory_bytes=5)
    error = block._too_much(keys, key_bytes, 100, limits)
    assert error.limit == limit and f"is {number}, " in str(error)


def test_snappy_from_a_mebibyte_on_is_written_into_memory_that_is_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import snappy

    large = noting(monkeypatch, format, "_uncompress_large", lambda contents, size: size)
    for size in (MIB - 1, MIB):
        stored = snappy.compress(bytes(size))
        found = format.decompress_block(stored, 1, limits=DEFAULT_LIMITS, path="m", offset=0)
        assert found == bytes(size)
    assert large == [MIB]


# ---- tables


def opened(*sizes: int) -> Table:
    """A table of blocks of so many bytes, one entry in each."""
    written = bytearray()
    builder = TableBuilder(written.extend, block_size=1)
    for number, size in enumerate(sizes):
        # Three lengths, a key of two bytes, a restart and the number of restarts.
        value = size - 12 - len(b.varint(size - 13))
        builder.add(number.to_bytes(2, "big"), bytes(value))
    builder.finish()
    table = Table.open(MemorySource("m", bytes(written)), limits=DEFAULT_LIMITS)
    assert [handle.size for handle in table.handles] == list(sizes)
    return table


def test_blocks_of_768_kibibytes_are_decoded_at_a_time() -> None:
    table = opened(*[256 * KIB] * 10)
    assert [len(part) for _, part in table._iter_parts()] == [3, 3, 3, 1]


def test_blocks_up_to_a_mebibyte_are_kept() -> None:
    table = opened(MIB, MIB + 1)
    assert table.get(b"\0\0") is not None and table.get(b"\0\1") is not None
    assert list(table._blocks) == [0]


@pytest.mark.parametrize(("size", "count"), [(32 * KIB - 1, 0), (32 * KIB, 1)])
def test_from_32_kibibytes_on_entries_are_decoded_side_by_side(
    size: int, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = noting(monkeypatch, together, "decode_together", lambda blocks, limits: len(blocks))
    (columns,) = opened(size).iter_columns()
    assert columns.key(0) == b"\0\0" and len(columns) == 1
    assert asked == [1] * count


@pytest.mark.parametrize(("value", "taken"), [(10, False), (11, True)])
def test_keys_in_full_may_take_16_times_their_blocks(value: int, taken: bool) -> None:
    """Rows are one byte longer than the longest key, filled up to words: 208 bytes here."""
    keys = [b"k" * 206 + bytes([number]) for number in range(32)]
    pairs = [(key, b"v") for key in keys[:-1]] + [(keys[-1], bytes(value))]
    contents = b.block(pairs, restart_interval=64)
    assert len(contents) == 405 + value
    columns = together.decode_together([Block.from_bytes(contents)], limits=DEFAULT_LIMITS)
    assert (columns is not None) == taken
    if columns is not None:
        assert [columns.key(row) for row in range(32)] == keys


@pytest.mark.parametrize(("count", "taken"), [(64, True), (65, False)])
def test_runs_of_more_than_64_entries_are_left_to_the_walk(count: int, taken: bool) -> None:
    pairs = [(b"%03d" % number, b"v") for number in range(count)]
    made = Block.from_bytes(b.block(pairs, restart_interval=100))
    assert (together.decode_together([made], limits=DEFAULT_LIMITS) is not None) == taken


def test_a_length_of_128_is_no_byte_of_its_own() -> None:
    """Of the three lengths 00 00 80 01 the second byte of the last one is not looked at first."""
    contents = b.block([(b"", bytes(128)), (b"a", b"v")], restart_interval=1)
    columns = together.decode_together([Block.from_bytes(contents)], limits=DEFAULT_LIMITS)
    assert columns is not None
    assert (columns.ends - columns.starts).tolist() == [128, 1]
    assert [columns.key(row) for row in range(2)] == [b"", b"a"]


def test_blocks_without_any_entry_are_left_to_the_walk() -> None:
    empty = made_block(b"", 0)
    assert together.decode_together([empty, empty], limits=DEFAULT_LIMITS) is None


def test_a_window_begins_at_each_byte_after_which_there_are_enough() -> None:
    assert together.windows_of(b"abcd", 2).tolist() == [b"ab", b"bc", b"cd"]


# ---- indexes


def indexed(path: Path, count: int) -> BundleIndex:
    made = b.Bundle()
    for number in range(count):
        made.add(f"t{number:02}", np.float32(number))
    return BundleIndex.open(made.write(path / "m") + ".index", Context())


@pytest.mark.parametrize(("count", "listed"), [(1, False), (64, False), (65, True)])
def test_more_than_64_names_are_found_by_a_listing(
    tmp_path: Path, count: int, listed: bool
) -> None:
    index = indexed(tmp_path, 70)
    names = [f"t{number:02}" for number in range(count)]
    assert index.columns_of(names).offsets.tolist() == [4 * number for number in range(count)]
    assert (index.known_listing is not None) == listed


def test_a_listing_that_is_there_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = indexed(tmp_path, 5)
    listing = index.listing()
    monkeypatch.setattr(index, "find_entry", None)
    assert index.columns_of(["t03", "t01"]).offsets.tolist() == [12, 4]
    assert index.columns_of(listing.names) is listing.columns
    assert index.columns_of(listing.names[::-1]).offsets.tolist() == [16, 12, 8, 4, 0]


@pytest.mark.parametrize("count", [64, 65])
def test_more_than_64_entries_are_decoded_together(tmp_path: Path, count: int) -> None:
    index = indexed(tmp_path, count)
    assert len(index.listing().names) == count
    assert ("_decoder" in vars(index)) == (count > 64)


def test_an_index_of_eight_pieces_is_read_whole_if_each_is_a_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = noting(monkeypatch, index_module, "hold", lambda source, most: most / source.piece)
    indexed(tmp_path, 1)
    assert held == [8]


def test_an_index_that_cannot_be_opened_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = noting(monkeypatch, index_module, "hold", lambda source, most: source)
    (tmp_path / "m.index").write_bytes(bytes(100))
    with pytest.raises(MalformedError, match="not an sstable"):
        BundleIndex.open(str(tmp_path / "m.index"), Context())
    with pytest.raises(ClosedError):
        held[0].read_at(0, 1)


def test_a_shape_that_breaks_a_rule_is_left_to_its_entry() -> None:
    def decode_shape(data: bytes) -> tuple[int, ...]:
        if data == b"bad":
            raise MalformedError("no shape")
        return (2, 3)

    odd: list[int] = []
    shapes = Shapes(decode_shape, most_rank=2, take_odd=odd.append)
    assert shapes[b"good"] == ((2, 3), 6) and shapes[b"bad"] == ((), -1)
    assert shapes[b"bad"] == ((), -1) and odd == [1, 1]


def test_an_entry_in_slices_has_no_place_of_its_own() -> None:
    pieces = (TensorSlice((Extent(0, 2),)),)
    assert BundleEntry.in_slices(1, (4,), pieces) == BundleEntry(1, (4,), 0, 0, 0, 0, pieces)
    found = BundleEntry.in_slices(1, (4,), pieces, shard_id=3)
    assert found == BundleEntry(1, (4,), 3, 0, 0, 0, pieces)


@pytest.mark.parametrize(("more", "checked"), [(0, []), (1, [MIB + 2])])
def test_a_list_of_more_than_a_mebibyte_is_taken_from_the_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: int, checked: list[int]
) -> None:
    # 2,000 entries count 350 bytes each, and twice the bytes of their keys with a zero behind each.
    names = [b"w%085d" % number for number in range(1998)] + [b"x" * (460 + more)]
    entry = b.Entry(b.FLOAT, (0,), crc=b.masked_crc(b"")).to_bytes()
    pairs = [(b"", b.Header().to_bytes(1)), *((name, entry) for name in names)]
    path = tmp_path / "m.index"
    path.write_bytes(b.table(pairs).data)
    # What the files hold is free.
    held, taken = path.stat().st_size, noting(monkeypatch, Budget, "check", lambda _, size: size)
    for allowed in (1 << 30, MIB + 2 - held):
        index = BundleIndex.open(str(path), Context(limits=Limits(memory_bytes=allowed)))
        assert len(index.listing().names) == 1999
        assert taken == checked
        taken.clear()
    index = BundleIndex.open(str(path), Context(limits=Limits(memory_bytes=MIB + 1 - held)))
    if checked:
        with pytest.raises(LimitError, match="memory_bytes"):
            index.listing()


@pytest.mark.parametrize(("length", "weight"), [(0, 3), (4095, 3), (4096, 6), (8191, 6), (8192, 9)])
def test_slices_count_once_more_for_each_4_kib_of_their_name(length: int, weight: int) -> None:
    assert weight_of_slices(b"n" * length, 3) == weight


# ---- arrays


@pytest.mark.parametrize("name", ["_ADVICE", "_NO_ADVICE"])
def test_a_system_without_huge_pages_gives_ordinary_memory(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for known in ("_ADVICE", "_NO_ADVICE"):
        monkeypatch.setattr(memory, known, 14)
    assert memory.Buffer(2 * MIB)._pages is not None
    assert memory.Buffer(2 * MIB - 1)._pages is None
    monkeypatch.setattr(memory, name, None)
    buffer = memory.Buffer(2 * MIB)
    assert buffer._pages is None and buffer.array.nbytes == 2 * MIB


def rows(*offsets: int, width: int = 4) -> arena.DenseRows:
    """Large tensors of numbers of so many bytes, at these offsets of one file."""
    places: npt.NDArray[Any] = np.array(offsets, np.int64)
    full = np.ones_like(places)
    numbers = np.arange(len(places))
    return arena.DenseRows.of(numbers, 0 * full, places, 32 * KIB * full, width * full)


def test_tensors_that_are_all_aligned_are_not_looked_at_one_by_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = noting(monkeypatch, arena, "_find_misalignments", lambda rows: len(rows.offsets))
    assert len(arena.plan_arenas(rows(0, 32 * KIB))[0].stretches) == 1 and not asked
    assert len(arena.plan_arenas(rows(0, 32 * KIB + 1))[0].stretches) == 2 and asked == [2]


def test_after_a_cut_the_tensors_before_it_do_not_count() -> None:
    (planned,) = arena.plan_arenas(rows(1, 32 * KIB + 2, 64 * KIB + 2, width=2))
    assert [(one.low, one.high) for one in planned.stretches] == [(0, 1), (1, 3)]


def test_bytes_that_are_written_as_they_are_stored_are_summed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = b.Bundle()
    made.add("w", np.arange(5, dtype=np.float32))
    with ckptparse.open(made.write(tmp_path / "m")) as checkpoint:
        streamed = content.content_of(checkpoint["w"])
        sizes = noting(monkeypatch, content, "crc32c", lambda piece, crc: len(piece))
        assert streamed.write_to(lambda piece: None) == checkpoint["w"].crc32c
    assert sizes == [20]


def test_strings_that_are_all_bytes_are_not_looked_at_one_by_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    singly = noting(monkeypatch, content, "_to_bytes", lambda value: value)
    assert content.list_bytes(np.array([b"a", b"", b"c"], object)) == [b"a", b"", b"c"]
    assert not singly
    assert content.list_bytes(np.array([b"a", "c"], object)) == [b"a", b"c"]
    assert singly == [b"a", "c"]


def test_no_data_file_is_asked_for_its_size_before_a_header_says_how_many_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = b.Bundle()
    made.header = b.Header(num_shards=3)
    made.add("w", np.float32(1))
    path = made.write(tmp_path / "m") + ".index"
    counts = noting(monkeypatch, index_module, "held_bytes", lambda path, storage, count: count)
    with pytest.raises(LimitError, match="shards"):
        BundleIndex.open(path, Context(limits=Limits(shards=2)))
    assert counts == [0]
