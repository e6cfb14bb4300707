"""Each check of a table's modules by itself, on a few bytes: what one of them lets pass, another
would often refuse later, with a worse reason."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any

import builder as b
import pytest

from ckptparse.errors import ChecksumError, LimitError, MalformedError, TruncatedError
from ckptparse.limits import DEFAULT_LIMITS, Limits
from ckptparse.table.block import (
    Block,
    BlockEntries,
    KeyOrderError,
    LongRuns,
    check_key_bytes,
    decode_entry,
)
from ckptparse.table.builder import BlockBuilder, TableBuilder
from ckptparse.table.columns import TableColumns
from ckptparse.table.format import BlockHandle, Footer, decompress_block, read_block
from ckptparse.table.reader import Table
from ckptparse.table.together import decode_together

# shared, non_shared, value_size, then the key's own bytes and the value
A = b"\x00\x01\x01a1"
B = b"\x00\x01\x01b2"
C = b"\x00\x01\x01c3"


def block(entries: bytes, *restarts: int) -> Block:
    """A block of these entries and restarts."""
    numbers = struct.pack(f"<{len(restarts) + 1}I", *restarts, len(restarts))
    return Block.from_bytes(entries + numbers)


def swelling(count: int) -> bytes:
    """Each key adds a byte to the one before: 4 bytes an entry."""
    return b"".join(b.varint(number) + b"\x01\x00x" for number in range(count))


# ---- restarts


@pytest.mark.parametrize(
    ("entries", "restarts"),
    [
        (A + B, (5,)),
        (A + B, (0, 0)),
        (A + B, (0, 10)),
        (A + B, (0, 11)),
        (A + B, (0, 1 << 20)),
        (A * 4, (0, 10, 5, 15)),
        (A * 4, (0, 5, 5, 15)),
        (A * 4, (0, 10, 10)),
        (b"", (1,)),
        (b"", (0, 0)),
    ],
)
def test_restarts_rise_from_zero_and_stay_below_the_end_of_the_entries(
    entries: bytes, restarts: tuple[int, ...]
) -> None:
    with pytest.raises(MalformedError, match=r"restart"):
        block(entries, *restarts)


def test_there_are_no_more_restarts_than_entries_can_be() -> None:
    """An entry takes three bytes: five have room for one, six for two."""
    with pytest.raises(MalformedError, match="2 restarts do not fit"):
        block(A, 0, 3)
    assert block(b"\x00\x00\x00\x00\x00\x00", 0, 3).restarts == (0, 3)


def test_a_restart_where_no_entry_begins_is_malformed() -> None:
    with pytest.raises(MalformedError, match="no entry begins at the restart 4"):
        block(A + B, 0, 4).decode_entries(limits=DEFAULT_LIMITS)


def test_the_entry_at_a_restart_shares_nothing() -> None:
    shares = A + b"\x01\x01\x00b"
    assert block(shares, 0).decode_entries(limits=DEFAULT_LIMITS).keys == [b"a", b"ab"]
    with pytest.raises(MalformedError, match="none at a restart"):
        block(shares, 0, 5).decode_entries(limits=DEFAULT_LIMITS)
    with pytest.raises(MalformedError, match="none at a restart"):
        block(shares, 0, 5).find(b"ab", limits=DEFAULT_LIMITS)


# ---- the lengths of an entry


def test_a_key_that_ends_beyond_the_end_is_malformed_without_a_value_too() -> None:
    with pytest.raises(MalformedError, match="by byte 5, found 8"):
        decode_entry(b"\x00\x05\x00ab", 0, 5)
    assert decode_entry(b"\x00\x02\x00ab", 0, 5) == (0, 3, 5, 5)


@pytest.mark.parametrize(
    "lengths", [b"\x80\x01\x02\x01", b"\x80\x81\x00\x02\x01", b"\x80\x01\x82\x00\x01"]
)
def test_a_key_may_share_128_bytes_or_more(lengths: bytes) -> None:
    entry = lengths + b"abv"
    end = len(entry)
    assert decode_entry(entry, 0, end) == (128, end - 3, end - 1, end)
    assert decode_entry(b"xy" + entry + b"z", 2, end + 3) == (128, end - 1, end + 1, end + 2)
    with pytest.raises(MalformedError, match=f"by byte {end - 1}, found {end}"):
        decode_entry(entry, 0, end - 1)
    for cut in range(len(lengths)):
        with pytest.raises(MalformedError, match="varint is cut off"):
            decode_entry(entry, 0, cut)


@pytest.mark.parametrize("place", range(3))
def test_a_length_of_33_bits_is_no_length(place: int) -> None:
    lengths = [b"\x00", b"\x00", b"\x00"]
    lengths[place] = b"\x80\x80\x80\x80\x10"
    with pytest.raises(MalformedError, match="varint"):
        decode_entry(b"".join(lengths), 0, 7)


# ---- the first entry, and one that is looked for


def test_the_first_entry_shares_nothing_whoever_asks() -> None:
    broken = block(b"\x01\x01\x01a1", 0)
    for ask in (
        broken.first,
        lambda: broken.find(b"a", limits=DEFAULT_LIMITS),
        lambda: broken.decode_entries(limits=DEFAULT_LIMITS),
    ):
        with pytest.raises(MalformedError, match="Bad block entry at byte 0"):
            ask()


def test_who_looks_for_a_key_sees_what_is_wrong_in_its_run() -> None:
    for wrong, kind in (
        (A + b"\x02\x01\x00b", MalformedError),
        (B + A, KeyOrderError),
        (A + A, KeyOrderError),
        (A + b"\x01\x00\x00", KeyOrderError),
    ):
        with pytest.raises(kind):
            block(wrong, 0).find(b"zz", limits=DEFAULT_LIMITS)
    assert block(b"\x00\x00\x011" + A, 0).find(b"", limits=DEFAULT_LIMITS) == b"1"
    assert block(A + B + C, 0, 5, 10).find(b"b", limits=DEFAULT_LIMITS) == b"2"


# ---- runs that are long


@pytest.mark.parametrize("restarts", [1, 2, 5])
def test_a_run_is_long_if_it_has_more_than_64_entries(restarts: int) -> None:
    made = block(A * 5, *range(0, 5 * restarts, 5))
    none = LongRuns(Limits(single_entries=0), 0)
    for _ in range(3):
        none.take(made, 64 * restarts)
    with pytest.raises(LimitError) as caught:
        none.take(made, 64 * restarts + 1)
    assert caught.value.limit == "single_entries"


def test_an_empty_block_has_no_long_run() -> None:
    LongRuns(Limits(single_entries=0), 0).take(block(b""), 0)


def test_32_entries_of_long_runs_count_as_one_beyond_one_for_each_128_bytes() -> None:
    made = block(A, 0)
    for size, free in ((0, 0), (127, 0), (128, 1), (128 * 40 - 1, 39), (128 * 40, 40)):
        for allowed in (3, 4):
            most = 32 * allowed + free
            LongRuns(Limits(single_entries=allowed), size).take(made, most)
            message = rf"beyond one for each 128 bytes, is {allowed + 1}, and"
            with pytest.raises(LimitError, match=message):
                LongRuns(Limits(single_entries=allowed), size).take(made, most + 1)


def test_entries_of_long_runs_of_all_blocks_count_together() -> None:
    made = block(A, 0)
    runs = LongRuns(Limits(single_entries=10), 0)
    runs.take(made, 100)
    runs.take(made, 220)
    with pytest.raises(LimitError, match="is 13, and"):
        runs.take(made, 65)


# ---- what keys take together


def test_keys_may_take_six_times_their_blocks_and_what_the_limit_says() -> None:
    check_key_bytes(6 * 100 + 7, 100, Limits(key_bytes=7))
    with pytest.raises(LimitError) as caught:
        check_key_bytes(6 * 100 + 8, 100, Limits(key_bytes=7))
    assert caught.value.limit == "key_bytes"


@pytest.mark.parametrize(
    "ask",
    [
        lambda block, limits: block.decode_entries(limits=limits),
        lambda block, limits: block.find(b"y", limits=limits),
    ],
    ids=["decode_entries", "find"],
)
def test_swelling_keys_are_read_up_to_the_limit_and_no_further(
    ask: Callable[[Block, Limits], object],
) -> None:
    made = block(swelling(200), 0)
    beyond = sum(range(1, 201)) - 6 * len(made.contents)
    ask(made, Limits(key_bytes=beyond))
    with pytest.raises(LimitError) as caught:
        ask(made, Limits(key_bytes=beyond - 1))
    assert caught.value.limit == "key_bytes"


def test_keys_of_a_block_take_an_eighth_of_the_memory_beyond_twice_the_block() -> None:
    made = block(swelling(200), 0)
    beyond = sum(range(1, 201)) - 2 * len(made.contents)
    made.decode_entries(limits=Limits(memory_bytes=8 * beyond))
    with pytest.raises(LimitError) as caught:
        made.decode_entries(limits=Limits(memory_bytes=8 * beyond - 1))
    assert caught.value.limit == "memory_bytes"


def test_a_block_has_as_many_entries_as_the_limit_says_and_no_more() -> None:
    made = block(A + B + C, 0)
    assert len(made.decode_entries(limits=Limits(entries=3)).keys) == 3
    with pytest.raises(LimitError) as caught:
        made.decode_entries(limits=Limits(entries=2))
    assert caught.value.limit == "entries"


# ---- what is written


def test_the_size_of_a_block_is_said_before_it_is_finished_and_every_sixteenth_is_a_restart() -> (
    None
):
    pairs = [(b"%03d" % number, b"v" * number) for number in range(40)]
    made = BlockBuilder()
    for count, (key, value) in enumerate(pairs, 1):
        made.add(key, value)
        assert made.size == len(made.finish())
        assert made.finish() == b.block(pairs[:count])
    assert len(Block.from_bytes(made.finish()).restarts) == 3


def blocks_of(*sizes: int, **options: int) -> list[int]:
    """Write entries of so many bytes, key and value; return how many each block has."""
    written = bytearray()
    made = TableBuilder(written.extend, **options)
    for number, size in enumerate(sizes):
        made.add(bytes([number]), bytes(size - 1))
    made.finish()
    footer = Footer.from_bytes(bytes(written[-48:]))
    index = entries_at(written, footer.index)
    spans = zip(index.starts, index.ends, strict=True)
    places = [index.contents[start:end] for start, end in spans]
    return [len(entries_at(written, BlockHandle.from_bytes(place)[0]).keys) for place in places]


def entries_at(written: bytearray, handle: BlockHandle) -> BlockEntries:
    contents = bytes(written[handle.offset : handle.offset + handle.size])
    return Block.from_bytes(contents).decode_entries(limits=DEFAULT_LIMITS)


def test_a_block_ends_with_the_entry_that_brings_it_to_its_size() -> None:
    # Three lengths of a byte each before, a restart and its number after: eleven bytes.
    assert blocks_of(53, 1, block_size=64) == [1, 1]
    assert blocks_of(52, 1, block_size=64) == [2]
    # Lengths of 2**18 take three bytes.
    assert blocks_of((1 << 18) - 13, 1) == [1, 1]
    assert blocks_of((1 << 18) - 14, 1) == [2]


def test_an_entry_of_twice_the_size_of_a_block_begins_one() -> None:
    assert blocks_of(1, 128, block_size=64) == [1, 1]
    assert blocks_of(1, 127, block_size=64) == [2]


# ---- handles, trailers, compression


class Counted:
    """A file in memory that notes what is read of it."""

    path = "m"
    piece = 1 << 20
    gap = 4096

    def __init__(self, data: bytes, concurrency: int | None = None) -> None:
        self.data, self.size, self.concurrency = data, len(data), concurrency
        self.reads: list[tuple[int, int]] = []

    def read_at(self, offset: int, size: int) -> bytes:
        self.reads.append((offset, size))
        return self.data[offset : offset + size]


def file_of(contents: bytes, **options: Any) -> bytes:
    return b.Stored(contents, **options).to_bytes() + bytes(48)


def test_a_block_ends_with_its_trailer_of_five_bytes() -> None:
    assert BlockHandle(10, 20).end == 35
    assert BlockHandle.from_bytes(b"\x0a\x14") == (BlockHandle(10, 20), 2)


def test_a_block_ends_before_the_footer() -> None:
    source: Any = Counted(file_of(b"abcd"))
    assert read_block(source, BlockHandle(0, 4), limits=DEFAULT_LIMITS) == b"abcd"
    source.data, source.size = source.data[:-1], source.size - 1
    with pytest.raises(TruncatedError, match="before the footer at offset 8, found the end at 9"):
        read_block(source, BlockHandle(0, 4), limits=DEFAULT_LIMITS)


def test_a_large_block_is_read_in_two_parts_unless_each_is_a_request() -> None:
    for size, concurrency, reads in (
        ((1 << 15) - 1, None, 1),
        (1 << 15, None, 2),
        ((1 << 15) - 1, 4, 1),
        (1 << 15, 4, 1),
    ):
        contents = b"ab" * (size // 2) + b"c" * (size % 2)
        source: Any = Counted(file_of(contents), concurrency)
        assert read_block(source, BlockHandle(0, size), limits=DEFAULT_LIMITS) == contents
        assert len(source.reads) == reads


def unpacked(stored: bytes) -> bytes:
    return decompress_block(stored, 1, limits=DEFAULT_LIMITS, path="m", offset=0)


@pytest.mark.parametrize("size", [9, (1 << 20) - 1, 1 << 20, (1 << 20) + 1])
def test_snappy_of_any_size_gives_what_was_packed(size: int) -> None:
    import snappy

    contents = b"abc" * (size // 3) + b"x" * (size % 3)
    assert unpacked(snappy.compress(contents)) == contents


def test_snappy_cannot_give_more_than_22_times_what_it_takes() -> None:
    rest = bytes(8)
    with pytest.raises(MalformedError, match="10 bytes cannot decompress to the 221"):
        unpacked(b"\xdd\x01" + rest)
    with pytest.raises(MalformedError, match=r"^(?!.*cannot decompress)"):
        unpacked(b"\xdc\x01" + rest)
    with pytest.raises(MalformedError, match="wider than 32 bits"):
        unpacked(b"\x80\x80\x80\x80\x10" + rest)


def test_what_a_library_unpacks_to_another_size_is_malformed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ckptparse.table.format._uncompress", lambda contents: b"ab")
    with pytest.raises(MalformedError, match="expected 3 bytes, found 2"):
        unpacked(b"\x03\x08abc")


# ---- a table of several blocks

LISTS = [["a", "b"], ["c", "d"], ["e", "f"], ["g", "h"]]


def table_of(
    lists: Sequence[Sequence[str]], separators: str | None = None, **options: Any
) -> b.TableFile:
    """A block for each list; its separator is its last key, or what is given."""
    blocks = [
        b.Stored(b.block([(key.encode(), b"v") for key in keys]), key=separator.encode())
        for keys, separator in zip(lists, separators or [keys[-1] for keys in lists], strict=True)
    ]
    return b.assemble(blocks, **options)


def opened(data: bytes, limits: Limits = DEFAULT_LIMITS, *, whole: bool = False) -> Table:
    source: Any = Counted(data)
    return Table.open(source, limits=limits, whole=whole)


def listed(table: Table) -> tuple[list[bytes], list[bytes]]:
    """The keys by blocks, and by columns."""
    blocks = [key for entries in table.iter_blocks() for key in entries.keys]
    columns = [part.key(row) for part in table.iter_columns() for row in range(len(part))]
    return blocks, columns


@pytest.mark.parametrize("whole", [False, True])
def test_the_keys_of_all_blocks_are_found_and_listed(whole: bool) -> None:
    keys = [key.encode() for keys in LISTS for key in keys]
    table = opened(table_of(LISTS).data, whole=whole)
    assert [table.get(key) for key in keys] == [b"v"] * 8
    assert listed(table) == (keys, keys)
    assert [key for key, _ in table.items()] == keys


@pytest.mark.parametrize(
    ("lists", "separators"),
    [
        ([["a", "b"], ["b", "c"]], None),
        ([["a", "b"], ["a", "c"]], None),
        ([["a", "c"], ["d"]], "bd"),
        ([["a"], ["c", "e"]], "bd"),
        ([["a"], ["b", "c"], ["d", "f"]], "bce"),
        ([["a"], ["b", "c"], ["d", "e"]], "bce"),
    ],
)
def test_keys_out_of_order_across_blocks_are_an_error_for_all_who_see_the_whole(
    lists: list[list[str]], separators: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where one key is looked up, no more is looked at, unless the whole is asked for."""
    data = table_of(lists, separators).data
    for most in (1 << 22, 1):
        monkeypatch.setattr("ckptparse.table.reader._PART_BYTES", most)
        for ask in (Table.iter_blocks, Table.iter_columns, Table.items):
            with pytest.raises(KeyOrderError):
                list(ask(opened(data)))
    keys = sorted({key.encode() for keys in lists for key in keys})
    assert opened(data).get(keys[0]) == b"v"
    whole = opened(data, whole=True)
    with pytest.raises(KeyOrderError):
        [whole.get(key) for key in keys]


def test_who_asks_for_no_more_gets_a_key_before_a_broken_one() -> None:
    """A search looks at the 16 entries that may have the key. The one that is wrong is another."""
    keys = [b"%02d" % number for number in range(40)]
    contents = b.block([(key, b"v") for key in [*keys, keys[-1]]])
    data = b.assemble([b.Stored(contents, key=b"z")]).data
    source: Any = Counted(data)
    with pytest.raises(KeyOrderError):
        opened(data, whole=True).get(keys[0])
    assert Table.open(source, limits=DEFAULT_LIMITS).get(keys[0]) == b"v"


def test_blocks_that_no_key_leads_to_are_checked_as_those_that_are_looked_up() -> None:
    keys = [b"a", b"c", b"e", b"g"]
    table = opened(table_of(LISTS).data, whole=True)
    source: Any = table.source
    before = len(source.reads)
    table.check_others(keys)
    assert len(source.reads) == before, "each block has one of the keys"
    table.check_others(keys[::2])
    assert len(source.reads) == before + 2
    for lists, separators in (([["a", "b"], ["b"]], "bc"), ([["a"], ["c"]], "ab")):
        table = opened(table_of(lists, separators).data, whole=True)
        assert table.get(b"a") == b"v"
        table.check_others([b"a", separators[1].encode()])
        with pytest.raises(KeyOrderError) as caught:
            table.check_others([b"a", b"x"])
        assert caught.value.offset == table.handles[1].offset


def test_an_empty_block_between_others_is_passed_over() -> None:
    blocks = [
        b.Stored(b.block([(b"a", b"v")]), key=b"a"),
        b.Stored(b.EMPTY_BLOCK, key=b"b"),
        b.Stored(b.block([(b"c", b"v")]), key=b"c"),
    ]
    assert listed(opened(b.assemble(blocks).data)) == ([b"a", b"c"],) * 2
    assert listed(opened(b.assemble(blocks[:2]).data)) == ([b"a"],) * 2


@pytest.mark.parametrize("limit", ["index_bytes", "blocks"])
def test_an_index_block_has_as_many_bytes_and_blocks_as_the_limits_say(limit: str) -> None:
    data = table_of(LISTS).data
    most = opened(data).footer.index.size if limit == "index_bytes" else len(LISTS)
    assert len(opened(data, Limits(**{limit: most})).handles) == len(LISTS)
    with pytest.raises(LimitError) as caught:
        opened(data, Limits(**{limit: most - 1}))
    assert caught.value.limit == limit


def test_entries_of_all_blocks_count_together() -> None:
    data = table_of(LISTS).data
    for ask in (Table.iter_blocks, Table.iter_columns):
        list(ask(opened(data, Limits(entries=8))))
        with pytest.raises(LimitError) as caught:
            list(ask(opened(data, Limits(entries=7))))
        assert caught.value.limit == "entries"


def test_keys_of_all_blocks_count_together(monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = []
    sizes = 0
    for first in (b"a", b"b"):
        entries = b"".join(b.entry(first, b"", shared=number) for number in range(200))
        blocks.append(b.Stored(b.close_block(entries), key=first * 200))
        sizes += len(blocks[-1].contents)
    data = b.assemble(blocks).data
    beyond = 2 * sum(range(1, 201)) - 6 * sizes
    for small in (True, False):
        if small:
            # Each block is a part of its own.
            monkeypatch.setattr("ckptparse.table.reader._PART_BYTES", 1)
        for ask in (Table.iter_blocks, Table.iter_columns):
            list(ask(opened(data, Limits(key_bytes=beyond))))
            with pytest.raises(LimitError) as caught:
                list(ask(opened(data, Limits(key_bytes=beyond - 1))))
            assert caught.value.limit == "key_bytes"
        monkeypatch.undo()


def test_a_table_has_as_many_entries_in_long_runs_as_the_limit_says() -> None:
    def made(count: int) -> bytes:
        lists = [[f"{letter}{number:03}" for number in range(count)] for letter in "ab"]
        pairs = [[(key.encode(), b"") for key in keys] for keys in lists]
        blocks = [b.Stored(b.block(part, restart_interval=1000), key=part[-1][0]) for part in pairs]
        return b.assemble(blocks).data

    assert sum(map(len, opened(made(64), Limits(single_entries=0)).iter_columns())) == 128
    data = made(100)
    allowed = -(-(200 - len(data) // 128) // 32)
    assert sum(map(len, opened(data, Limits(single_entries=allowed)).iter_columns())) == 200
    with pytest.raises(LimitError) as caught:
        list(opened(data, Limits(single_entries=allowed - 1)).iter_columns())
    assert caught.value.limit == "single_entries"


def test_blocks_are_decoded_in_parts_of_a_size(monkeypatch: pytest.MonkeyPatch) -> None:
    lists = [*LISTS, ["i", "j"], ["k", "l"], ["m", "n"]]
    table = opened(table_of(lists).data)
    size = len(b.block([(b"a", b"v"), (b"b", b"v")]))
    for most, parts in ((2 * size, [4, 4, 4, 2]), (2 * size + 1, [6, 6, 2]), (1, [2] * 7)):
        monkeypatch.setattr("ckptparse.table.reader._PART_BYTES", most)
        assert [len(part) for part in table.iter_columns()] == parts
        assert listed(table)[1] == [bytes([number]) for number in range(ord("a"), ord("o"))]


def test_a_broken_block_among_many_is_said_with_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ckptparse.table.reader._WORTH_BYTES", 0)
    blocks = [
        b.Stored(b.block([(b"a", b"v")]), key=b"a"),
        b.Stored(b.close_block(b.entry(b"b", b"v", shared=1)), key=b"b"),
    ]
    made = b.assemble(blocks)
    with pytest.raises(MalformedError, match="Bad block entry") as caught:
        list(opened(made.data).iter_columns())
    assert caught.value.offset == made.blocks[1][0]


def test_eight_blocks_are_kept_for_who_looks_up_single_keys() -> None:
    table = opened(table_of([[letter] for letter in "abcdefghi"]).data)
    source: Any = table.source
    for letter in b"abcdefgh":
        table.get(bytes([letter]))
    before = len(source.reads)
    for letter in b"hgfedcba":
        table.get(bytes([letter]))
    assert len(source.reads) == before
    table.get(b"i")  # The one that was read first makes room.
    table.get(b"b")
    assert len(source.reads) == before + 1
    table.get(b"a")
    assert len(source.reads) == before + 2


def test_blocks_of_a_mebibyte_are_kept_and_larger_ones_are_not() -> None:
    for size, reads in ((1 << 20, 0), ((1 << 20) + 1, 2)):
        contents = b.block([(b"a", bytes(size - 14))])
        assert len(contents) == size
        table = opened(b.assemble([b.Stored(contents, key=b"a")]).data)
        source: Any = table.source
        table.get(b"a")
        before = len(source.reads)
        table.get(b"a")
        assert len(source.reads) - before == reads


def test_a_data_block_may_end_where_the_index_block_begins_and_not_after() -> None:
    block = b.Stored(b.block([(b"a", b"v")]), key=b"a").to_bytes()
    for size, fine in ((len(block) - 5, True), (len(block) - 4, False)):
        index = b.Stored(b.block([(b"a", b.handle(0, size))])).to_bytes()
        footer = b.Footer((0, 0), (len(block), len(index) - 5)).to_bytes()
        data = block + index + footer
        if fine:
            assert opened(data).get(b"a") == b"v"
        else:
            with pytest.raises(MalformedError, match="Expected a data block between offset 0"):
                opened(data)


def test_a_table_that_fills_its_file_says_what_lies_where() -> None:
    made = table_of(LISTS)
    tiles = opened(made.data).tiles()
    handles = [*made.blocks, made.metaindex, made.index]
    assert tiles == [
        *((offset, offset + size + 5) for offset, size in handles),
        (len(made.data) - 48, len(made.data)),
    ]
    assert tiles is not None
    assert [start for start, _ in tiles] == [0, *(end for _, end in tiles[:-1])]


def test_a_table_with_bytes_between_its_blocks_or_in_its_footer_has_no_tiles() -> None:
    made = table_of(LISTS)
    padded = b.Footer(made.metaindex, made.index, padding=b"x" * 40).to_bytes()
    assert opened(made.data[:-48] + padded).tiles() is None
    assert opened(made.data[:-48] + b"x" + made.data[-48:]).tiles() is None
    with pytest.raises(ChecksumError):
        opened(made.flip(made.metaindex[0])).tiles()


# ---- blocks that are decoded together


def together(*blocks: bytes, limits: Limits = DEFAULT_LIMITS) -> TableColumns | None:
    return decode_together([Block.from_bytes(contents) for contents in blocks], limits=limits)


def pairs_of(columns: TableColumns) -> list[tuple[bytes, bytes]]:
    return [(columns.key(row), columns.value(row)) for row in range(len(columns))]


def test_lengths_that_are_decoded_together_have_five_bytes_at_most() -> None:
    """Whoever decodes an entry alone refuses a varint32 of six: these are left to it."""
    for width in (1, 2, 4, 5, 6):
        for place in range(3):
            widths = tuple(width if place == other else 0 for other in range(3))
            made = b.close_block(b.entry(b"a", b"1", widths=widths) + b.entry(b"b", b"2"))
            columns = together(made)
            if width == 6:
                assert columns is None
                with pytest.raises(MalformedError):
                    Block.from_bytes(made).decode_entries(limits=DEFAULT_LIMITS)
            else:
                assert columns is not None
                assert pairs_of(columns) == [(b"a", b"1"), (b"b", b"2")]


@pytest.mark.parametrize(
    "keys",
    [
        [b"a", b"ab", b"b"],
        [b"", b"\x00", b"\x00\x00"],
        [b"k" * 127, b"k" * 128, b"k" * 129 + b"x"],
        [b"k" * 200 + bytes([number]) for number in range(40)],
        [bytes([number]) for number in range(40)],
    ],
    ids=["prefixes", "zeros", "127 and more", "long ones", "forty"],
)
@pytest.mark.parametrize("size", [0, 1, 127, 128, 20_000])
@pytest.mark.parametrize("interval", [1, 3, 16])
def test_blocks_that_keep_the_rules_are_decoded_together(
    keys: list[bytes], size: int, interval: int
) -> None:
    pairs = [(key, bytes([number]) * size) for number, key in enumerate(keys)]
    blocks = [b.block(pairs[:2], restart_interval=interval), b.EMPTY_BLOCK]
    blocks.append(b.block(pairs[2:], restart_interval=interval))
    columns = together(*blocks)
    assert columns is not None
    assert pairs_of(columns) == pairs
    assert columns.block_ends == [2, 2, len(pairs)]
    walked = [Block.from_bytes(one).decode_entries(limits=DEFAULT_LIMITS) for one in blocks]
    assert pairs_of(TableColumns.of_blocks(walked)) == pairs
    assert TableColumns.of_blocks(walked).block_ends == columns.block_ends


@pytest.mark.parametrize(
    "entries",
    [
        b"\x00\x01\x02a1",
        b"\x00\x03\x00a1",
        A + b"\x02\x01\x00b",
        B + A,
        A + A,
        # After a key comes its value, which is no part of the key.
        b"\x00\x02\x01ab1" + b"\x00\x01\x01az",
        b"\x00\x81\x80\x80\x80\x80\x00a",
        b"\x00\x81\x80\x80\x80\x80\x00\x00a",
        b"\x00\x01\x80\x80\x80\x80\x10a",
        b"\x80\x80\x80\x80\x10\x01\x00a",
        b"\x00\x00\x011",
    ],
    ids=[
        "a value beyond the end",
        "a key beyond the end",
        "more shared than there is",
        "falling",
        "twice",
        "a prefix after what it begins",
        "a length of six bytes and no value",
        "a length of six bytes",
        "a value of 2**32 bytes",
        "2**32 bytes shared",
        "nothing but the empty key",
    ],
)
def test_what_breaks_a_rule_is_left_to_the_walk(entries: bytes) -> None:
    assert together(b.close_block(entries)) is None
    assert together(b.block([(b"0", b"v")]), b.close_block(entries)) is None
    assert together(b.EMPTY_BLOCK) is None
    assert together() is None


def test_an_entry_may_not_reach_into_the_next_run() -> None:
    contents = b"\x00\x01\x06a1" + B + struct.pack("<III", 0, 5, 2)
    assert together(contents) is None


def test_lengths_of_five_bytes_are_read() -> None:
    columns = together(b.close_block(b"\x80\x80\x80\x80\x00\x81\x80\x80\x80\x00\x81\x80\x00a1"))
    assert columns is not None
    assert pairs_of(columns) == [(b"a", b"1")]


def test_runs_of_64_entries_are_decoded_together_and_longer_ones_are_left() -> None:
    for count, fine in ((64, True), (65, False)):
        pairs = [(b"%02d" % number, b"") for number in range(count)]
        assert (together(b.block(pairs, restart_interval=100)) is not None) == fine


def test_limits_hold_for_what_is_decoded_together() -> None:
    pairs = [(b"%02d" % number, b"") for number in range(40)]
    assert together(b.block(pairs), limits=Limits(entries=40)) is not None
    assert together(b.block(pairs), limits=Limits(entries=39)) is None
    # Keys may take 16 times their blocks, whatever the limit.
    assert together(b.block(pairs), limits=Limits(key_bytes=0)) is not None


@pytest.mark.parametrize(("count", "interval"), [(208, 16), (180, 60), (36, 6)])
def test_one_long_key_among_many_short_ones_takes_no_rows_of_its_length(
    count: int, interval: int
) -> None:
    pairs = [(b"%03d" % number, b"") for number in range(count - 1)]
    assert together(b.block(pairs, restart_interval=interval)) is not None
    pairs.append((b"z" * 2000, b""))
    assert together(b.block(pairs, restart_interval=interval)) is None
