"""Entries decoded side by side are those that a walk over each block gives, damage and all."""

from __future__ import annotations

import builder as b
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from instruments import allocating_at_most

from ckptparse.errors import CheckpointError, LimitError
from ckptparse.limits import DEFAULT_LIMITS, Limits
from ckptparse.table.block import Block
from ckptparse.table.columns import TableColumns
from ckptparse.table.reader import check_blocks
from ckptparse.table.together import decode_together

KEYS = st.sets(st.binary(max_size=6) | st.binary(min_size=120, max_size=140), max_size=60)


def cut(keys: set[bytes], sizes: list[int], interval: int, values: list[int]) -> list[bytes]:
    """Blocks of sorted keys; the sizes of blocks and of values come from lists, again and again."""
    entries = [(key, bytes(values[i % len(values)])) for i, key in enumerate(sorted(keys))]
    blocks, at = [], 0
    while at < len(entries):
        count = sizes[len(blocks) % len(sizes)]
        blocks.append(b.block(entries[at : at + count], restart_interval=interval))
        at += count
    return blocks


def one_by_one(blocks: list[bytes]) -> list[tuple[bytes, bytes]]:
    found = []
    for contents in blocks:
        decoded = Block.from_bytes(contents).decode_entries(limits=DEFAULT_LIMITS)
        for key, start, end in zip(decoded.keys, decoded.starts, decoded.ends, strict=True):
            found.append((key, contents[start:end]))
    return found


def rows_of(columns: TableColumns) -> list[tuple[bytes, bytes]]:
    values = zip(columns.starts.tolist(), columns.ends.tolist(), strict=True)
    return [
        (columns.key(row), columns.contents[start:end]) for row, (start, end) in enumerate(values)
    ]


def together(blocks: list[bytes], limits: Limits = DEFAULT_LIMITS) -> TableColumns | None:
    return decode_together([Block.from_bytes(contents) for contents in blocks], limits=limits)


@given(
    KEYS,
    st.lists(st.integers(1, 40), min_size=1, max_size=4),
    st.integers(1, 17),
    st.lists(st.sampled_from([0, 1, 127, 128, 20_000]), min_size=1, max_size=5),
)
@settings(max_examples=200)
def test_blocks_decode_as_one_by_one(
    keys: set[bytes], sizes: list[int], interval: int, values: list[int]
) -> None:
    blocks = cut(keys, sizes, interval, values)
    columns = together(blocks)
    if columns is None:
        # Nothing but the empty key, or one long key among many short ones.
        assert max(map(len, keys), default=0) in (0, *range(120, 141))
        return
    assert rows_of(columns) == one_by_one(blocks)
    counts = [len(Block.from_bytes(c).decode_entries(limits=DEFAULT_LIMITS).keys) for c in blocks]
    assert columns.block_ends == [sum(counts[: i + 1]) for i in range(len(counts))]
    walked = [Block.from_bytes(c).decode_entries(limits=DEFAULT_LIMITS) for c in blocks]
    assert rows_of(TableColumns.of_blocks(walked)) == rows_of(columns)


@given(
    st.sets(st.binary(min_size=1, max_size=5), min_size=1, max_size=40),
    st.integers(1, 17),
    st.data(),
)
@settings(max_examples=300)
def test_damage_is_never_decoded_otherwise(
    keys: set[bytes], interval: int, data: st.DataObject
) -> None:
    (block,) = cut(keys, [len(keys)], interval, [3])
    damaged = bytearray(block)
    at = data.draw(st.integers(0, len(block) - 1))
    damaged[at] = data.draw(st.integers(0, 255))
    try:
        parsed = Block.from_bytes(bytes(damaged))
    except CheckpointError:
        return
    columns = decode_together([parsed], limits=DEFAULT_LIMITS)
    if columns is not None:
        assert rows_of(columns) == one_by_one([bytes(damaged)])


@pytest.mark.parametrize(
    "entries",
    [
        pytest.param([b"b", b"a"], id="falling"),
        pytest.param([b"a", b"a"], id="equal"),
        pytest.param([b"a\x00", b"a"], id="a zero at the end is a byte"),
        pytest.param([b"a" * 16, b"a" * 8], id="a prefix after what it begins"),
    ],
)
def test_keys_that_do_not_increase_are_left_to_the_walk(entries: list[bytes]) -> None:
    assert together([b.block([(key, b"") for key in entries], restart_interval=1)]) is None


def test_a_length_of_six_bytes_is_left_to_the_walk() -> None:
    # Five of them alone would be a length of 1, and the sixth an empty value.
    entry = bytes.fromhex("00 81 80 80 80 80 00 61")
    contents = entry + bytes.fromhex("00000000 01000000")
    assert together([contents]) is None
    with pytest.raises(CheckpointError):
        Block.from_bytes(contents).decode_entries(limits=DEFAULT_LIMITS)
    as_five = bytes.fromhex("00 81 80 80 80 00 00 61") + bytes.fromhex("00000000 01000000")
    columns = together([as_five])
    assert columns is not None and rows_of(columns) == one_by_one([as_five]) == [(b"a", b"")]


@pytest.mark.parametrize("entries", [[b"a", b"a\x00"], [b"", b"\x00"], [b"\x7f", b"\x80"]])
def test_keys_are_ordered_as_unsigned_bytes(entries: list[bytes]) -> None:
    block = b.block([(key, b"") for key in entries], restart_interval=1)
    columns = together([block])
    assert columns is not None
    assert [key for key, _ in rows_of(columns)] == entries


def test_keys_without_a_byte_of_the_one_before_are_compared_where_they_differ_from_it() -> None:
    keys = [b"a0000000" + b"1", b"a1111111" + b"1", b"a1111111" + b"2"]
    columns = together([b.block([(key, b"") for key in keys], restart_interval=1)])
    assert columns is not None and [key for key, _ in rows_of(columns)] == keys
    keys[1:] = reversed(keys[1:])
    assert together([b.block([(key, b"") for key in keys], restart_interval=1)]) is None


def test_one_long_key_among_many_does_not_make_all_rows_long() -> None:
    entries = [(b"%05d" % i, b"") for i in range(2000)] + [(b"z" * 1_000_000, b"")]
    assert together([b.block(entries)]) is None


@pytest.mark.parametrize("size", [247, 254, 255, 256, 257, 300])
def test_the_last_key_may_be_longer_than_what_follows_it(size: int) -> None:
    keys = [bytes([n]) * size for n in range(1, 20)]
    blocks = [b.block([(key, b"") for key in keys], restart_interval=16)]
    columns = together(blocks)
    assert columns is not None and rows_of(columns) == [(key, b"") for key in keys]


def test_wide_rows_give_keys_of_all_lengths_without_a_mask_as_large() -> None:
    keys = sorted(b"k" * size + b"%04d" % size for size in range(500))
    blocks = [b.block([(key, b"") for key in keys], restart_interval=4)]
    columns = together(blocks)
    assert columns is not None and rows_of(columns) == one_by_one(blocks)
    keys = [b"k" * 990 + b"%05d" % number for number in range(4000)]
    parts = [Block.from_bytes(b.block([(key, b"") for key in keys], restart_interval=16))]
    with allocating_at_most(11_000_000):
        found = decode_together(parts, limits=DEFAULT_LIMITS)
    assert found is not None and found.key(3999) == keys[-1]


def test_lengths_of_one_byte_are_read_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def read_varints(*_: object) -> object:
        raise AssertionError("a length below 128 was read as a varint")

    monkeypatch.setattr("ckptparse.table.together.read_varints", read_varints)
    # Each length has every bit of seven, once.
    sizes = [0, 1, 2, 4, 8, 16, 32, 64, 127]
    keys = [b"k" * size for size in sizes]
    entries = [(key, bytes(size)) for key, size in zip(keys, sizes, strict=True)]
    columns = together([b.block(entries)])
    assert columns is not None and rows_of(columns) == entries


def test_limits_are_left_to_the_walk() -> None:
    block = b.block([(b"%05d" % i, b"") for i in range(100)])
    assert together([block]) is not None
    assert together([block], Limits(entries=99)) is None


THREE_BLOCKS = [
    b.block([(b"a", b"1"), (b"bb", b"22")]),
    b.block([(b"c", b"")]),
    b.block([(b"d", b"4"), (b"e" * 9, b"5" * 7), (b"f", b"6")]),
]


def three_blocks() -> TableColumns:
    """Blocks of two, one and three entries: bb=1, b=22, and so on."""
    found = together(THREE_BLOCKS)
    assert found is not None
    return found


def test_a_part_of_columns_has_its_rows_and_no_bytes_of_others() -> None:
    columns = three_blocks()
    rows = rows_of(columns)
    for low in range(len(rows) + 1):
        for high in range(low, len(rows) + 1):
            part = columns.part(low, high)
            assert rows_of(part) == rows[low:high]
            assert part.keys == b"".join(key + b"\0" for key, _ in rows[low:high])
            assert part.block_ends == [high - low]
            if part.starts.size:
                assert (part.starts[0], part.ends[-1]) == (0, len(part.contents))


def test_columns_that_are_split_are_one_block_each_and_make_the_same_again() -> None:
    columns = three_blocks()
    parts = columns.split()
    assert [len(part) for part in parts] == [2, 1, 3]
    for some in (parts, [columns.part(0, 0), *parts], [*parts, columns.part(6, 6)]):
        joined = TableColumns.concatenate(some)
        assert rows_of(joined) == rows_of(columns)
        assert joined.keys == columns.keys and len(joined.key_ends) == 6
    assert TableColumns.concatenate(parts).block_ends == [2, 3, 6]
    twice = TableColumns.concatenate([columns, columns])
    assert twice.block_ends == [2, 3, 6, 8, 9, 12]
    assert rows_of(twice) == rows_of(columns) * 2


def test_columns_of_blocks_that_were_decoded_one_by_one_are_the_same() -> None:
    columns = three_blocks()
    walked = [Block.from_bytes(one).decode_entries(limits=DEFAULT_LIMITS) for one in THREE_BLOCKS]
    made = TableColumns.of_blocks(walked)
    assert rows_of(made) == rows_of(columns)
    assert (made.keys, made.block_ends) == (columns.keys, columns.block_ends)


def test_columns_without_values_have_all_keys_and_no_place_of_a_value() -> None:
    columns = three_blocks()
    without = columns.without_values()
    assert [without.key(row) for row in range(6)] == [columns.key(row) for row in range(6)]
    assert (len(without), without.contents, without.block_ends) == (6, b"", [2, 3, 6])
    assert not len(without.starts) and not len(without.ends)


@pytest.mark.parametrize(("size", "more"), [(0, 0), (4095, 0), (4096, 1), (1 << 20, 256)])
def test_a_table_may_have_a_block_for_each_4_kib_beyond_the_limit(size: int, more: int) -> None:
    limits = Limits(blocks=7)
    check_blocks(7 + more, size, limits)
    with pytest.raises(LimitError, match=r"is 8, and Limits\.blocks allows 7") as caught:
        check_blocks(8 + more, size, limits)
    assert caught.value.limit == "blocks"
