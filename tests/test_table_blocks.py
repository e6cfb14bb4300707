"""Entries, restarts and order inside blocks (docs/format.md, section 1.5)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import builder as b
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from instruments import allocating_at_most, counted_reads

from ckptparse.errors import DataLossError, LimitError, MalformedError
from ckptparse.files.local import LocalSource
from ckptparse.limits import DEFAULT_LIMITS, Limits
from ckptparse.table.reader import Table


class Opener:
    """Opens bytes as a table and closes the file at the end of the test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sources: list[LocalSource] = []

    def __call__(self, data: bytes | b.TableFile, *, limits: Limits = DEFAULT_LIMITS) -> Table:
        path = self.folder / f"table-{len(self.sources)}"
        path.write_bytes(data.data if isinstance(data, b.TableFile) else data)
        self.sources.append(LocalSource.open(str(path)))
        return Table.open(self.sources[-1], limits=limits)

    def close(self) -> None:
        for source in self.sources:
            source.close()


@pytest.fixture
def open_table(tmp_path: Path) -> Iterator[Opener]:
    opener = Opener(tmp_path)
    yield opener
    opener.close()


def one_block(contents: bytes, key: bytes = b"\xff" * 4) -> b.TableFile:
    return b.assemble([b.Stored(contents, key=key)])


# ---- whole blocks


@pytest.mark.checklist(1)
@pytest.mark.parametrize("restart_interval", [1, 16, 1024])
def test_table_without_entries_yields_nothing(open_table: Opener, restart_interval: int) -> None:
    table = open_table(b.table([], restart_interval=restart_interval))
    assert list(table.items()) == []
    assert table.get(b"") is None and table.get(b"a") is None
    assert table.first() is None


@pytest.mark.checklist(1)
def test_empty_data_block_yields_nothing(open_table: Opener) -> None:
    table = open_table(one_block(b.EMPTY_BLOCK))
    assert list(table.items()) == []
    assert table.get(b"a") is None and table.first() is None


@pytest.mark.checklist(2)
def test_block_with_no_restarts_is_empty_and_no_error(open_table: Opener) -> None:
    table = open_table(one_block(b"\0\0\0\0"))
    assert list(table.items()) == []
    assert table.get(b"a") is None and table.first() is None


def test_block_with_no_restarts_may_hide_no_entries(open_table: Opener) -> None:
    contents = b.close_block(b.entry(b"a", b"1"), ())
    with pytest.raises(MalformedError, match="restart"):
        list(open_table(one_block(contents)).items())


@pytest.mark.checklist(3)
@pytest.mark.parametrize("restart_interval", [1, 16, 1024])
def test_entry_with_the_empty_key_comes_back(open_table: Opener, restart_interval: int) -> None:
    table = open_table(b.table([(b"", b"v")], restart_interval=restart_interval))
    assert list(table.items()) == [(b"", b"v")]
    assert table.get(b"") == b"v" and table.first() == (b"", b"v")


@pytest.mark.checklist(4)
@pytest.mark.parametrize("restart_interval", [1, 2, 3, 16])
def test_keys_that_share_prefixes_come_back_in_order(
    open_table: Opener, restart_interval: int
) -> None:
    pairs = [(b"abc", b"v"), (b"abcd", b"v2"), (b"ac", b"v3")]
    table = open_table(b.table(pairs, restart_interval=restart_interval))
    assert list(table.items()) == pairs
    assert [table.get(k) for k, _ in pairs] == [v for _, v in pairs]


@pytest.mark.checklist(6)
@pytest.mark.parametrize("key", [b"\xff", b"\xff\xff", b"\xff" * 300])
def test_key_of_all_ones_comes_back(open_table: Opener, key: bytes) -> None:
    table = open_table(b.table([(b"a", b"1"), (key, b"2")]))
    assert table.get(key) == b"2" and list(table.items())[-1] == (key, b"2")


def test_keys_are_ordered_as_unsigned_bytes_and_shorter_first(open_table: Opener) -> None:
    keys = [b"", b"A", b"a", b"a/b", b"aa", b"\x7f", b"\x80", "é".encode(), b"\xff"]
    table = open_table(b.table([(k, k) for k in keys]))
    assert [k for k, _ in table.items()] == keys


KEY = st.lists(st.sampled_from(b"\x00\x01abcde\xfd\xfe\xff"), max_size=8).map(bytes)


@pytest.mark.checklist(7)
@settings(max_examples=60, deadline=None)
@given(
    pairs=st.dictionaries(KEY, st.binary(max_size=40), max_size=300),
    probes=st.lists(KEY, max_size=20),
    interval=st.sampled_from([1, 2, 16, 1024]),
    kind=st.sampled_from([b.RAW, b.SNAPPY]),
)
def test_scans_and_lookups_agree_with_a_sorted_map(
    tmp_path_factory: pytest.TempPathFactory,
    pairs: dict[bytes, bytes],
    probes: list[bytes],
    interval: int,
    kind: int,
) -> None:
    expected = sorted(pairs.items())
    file = b.table(expected, block_size=256, restart_interval=interval, type=kind)
    path = tmp_path_factory.mktemp("t") / "table"
    path.write_bytes(file.data)
    with LocalSource.open(str(path)) as source:
        table = Table.open(source, limits=DEFAULT_LIMITS)
        assert list(table.items()) == expected
        for key in [*pairs, *probes, *(p + b"\0" for p in probes)]:
            assert table.get(key) == pairs.get(key)


@pytest.mark.checklist(7)
def test_two_thousand_random_keys_in_small_blocks_are_all_found(open_table: Opener) -> None:
    import random

    chance = random.Random(301)
    letters = b"\x00\x01abcde\xfd\xfe\xff"
    made = {
        bytes(chance.choices(letters, k=chance.randrange(10))): bytes(chance.randrange(8))
        for _ in range(2000)
    }
    for interval in (1, 16, 1024):
        file = b.table(sorted(made.items()), block_size=256, restart_interval=interval)
        assert len(file.blocks) > 10
        table = open_table(file)
        assert dict(table.items()) == made
        assert all(table.get(k) == v for k, v in made.items())
        misses = {k + b"\x02" for k in made} - made.keys()
        assert all(table.get(k) is None for k in misses)


@pytest.mark.checklist(8)
def test_lookup_between_before_and_behind_the_keys_finds_nothing(open_table: Opener) -> None:
    pairs = [(b"b%03d" % n, b"x" * 20) for n in range(0, 400, 2)]
    table = open_table(b.table(pairs, block_size=256))
    for n in range(1, 400, 2):
        assert table.get(b"b%03d" % n) is None
    assert table.get(b"") is None and table.get(b"a") is None and table.get(b"c") is None
    assert table.get(b"\xff" * 50) is None


def test_separators_of_the_index_are_no_keys(open_table: Opener) -> None:
    file = b.table([(b"abcdef", b"1" * 300), (b"abx", b"2" * 300)], block_size=256)
    table = open_table(file)
    assert table.separators[0] == b"abd"
    assert table.get(b"abd") is None and table.get(table.separators[-1]) is None
    assert [k for k, _ in table.items()] == [b"abcdef", b"abx"]


# ---- tolerated oddities


@pytest.mark.parametrize("width", [2, 3, 5])
def test_lengths_coded_wider_than_needed_are_read(open_table: Opener, width: int) -> None:
    body = b.entry(b"a", b"1", widths=(width,) * 3) + b.entry(b"bb", b"22", widths=(1, width, 1))
    table = open_table(one_block(b.close_block(body)))
    assert list(table.items()) == [(b"a", b"1"), (b"bb", b"22")]
    assert table.get(b"bb") == b"22"


def test_values_longer_than_a_one_byte_length_are_read(open_table: Opener) -> None:
    pairs = [(b"k" * n, b"v" * n) for n in (1, 127, 128, 300, 16383, 16384, 70000)]
    table = open_table(b.table(pairs))
    assert list(table.items()) == pairs
    assert all(table.get(k) == v for k, v in pairs)


def test_sharing_less_of_the_previous_key_than_possible_is_read(open_table: Opener) -> None:
    body = b.entry(b"abc", b"1") + b.entry(b"bcd", b"2", shared=1) + b.entry(b"ac", b"3")
    table = open_table(one_block(b.close_block(body)))
    assert list(table.items()) == [(b"abc", b"1"), (b"abcd", b"2"), (b"ac", b"3")]


def test_bytes_behind_a_handle_in_the_index_are_tolerated(open_table: Opener) -> None:
    stored = b.Stored(b.block([(b"a", b"1")]), key=b"b")
    size = len(stored.contents)
    table = open_table(b.assemble([stored], handles=[b.handle(0, size) + b"more"]))
    assert table.get(b"a") == b"1"


# ---- broken blocks

SORTED = b.entry(b"a", b"1") + b.entry(b"b", b"2")
BROKEN = {
    "shorter than a restart count": b"\0\0\0",
    "empty": b"",
    "more restarts than bytes": b.close_block(SORTED, (0,), count=100),
    "restart count 2**32 - 1": b.close_block(SORTED, (0,), count=0xFFFFFFFF),
    "restart count whose size wraps 32 bits": b.close_block(SORTED, (0,), count=1 << 30),
    "first restart hides an entry": b.close_block(SORTED, (5,)),
    "restart behind the entries": b.close_block(SORTED, (0, len(SORTED))),
    "restart beyond the block": b.close_block(SORTED, (0, 1 << 31)),
    "restart inside an entry": b.close_block(SORTED, (0, 2)),
    "restarts that fall": b.close_block(SORTED, (0, 5, 0)),
    "restart twice": b.close_block(SORTED, (0, 0)),
    "restart at an entry that shares": b.close_block(
        b.entry(b"aa", b"1") + b.entry(b"b", b"2", shared=1), (0, 6)
    ),
    "first entry shares": b.close_block(b.entry(b"a", b"1", shared=1)),
    "shares more than the previous key": b.close_block(SORTED + b.entry(b"c", b"", shared=2)),
    "value past the end": b.close_block(b.entry(b"a", b"1", value_length=50)),
    "value over the restart array": b.close_block(b.entry(b"a", b"1", value_length=5)),
    "key past the end": b.close_block(b.entry(b"a", b"1", non_shared=50)),
    "key and value that wrap 32 bits": b.close_block(
        b.entry(b"a", b"1", non_shared=0xFFFFFFFF, value_length=3)
    ),
    "shared of 2**32 - 1": b.close_block(SORTED + b.entry(b"", b"", shared=0xFFFFFFFF)),
    "length wider than 32 bits": b.close_block(b.varint(0) + b.varint(1 << 32) + b"\0"),
    "length of six bytes": b.close_block(b"\0" + b"\x81\x80\x80\x80\x80\x00" + b"\0a"),
    "length cut off": b.close_block(b"\x80\x80"),
    "one stray byte": b.close_block(SORTED, stray=b"\0"),
    "two stray bytes": b.close_block(SORTED, stray=b"\0\0"),
    "three stray zeros": b.close_block(SORTED, stray=b"\0\0\0"),
    "unsorted": b.block([(b"b", b"1"), (b"a", b"2")]),
    "duplicate": b.block([(b"a", b"1"), (b"a", b"2")]),
    "empty key twice": b.block([(b"", b"1"), (b"", b"2")]),
    "unsorted across restarts": b.block([(b"b", b"1"), (b"a", b"2")], restart_interval=1),
    "duplicate across restarts": b.block([(b"a", b"1"), (b"a", b"2")], restart_interval=1),
}


@pytest.mark.parametrize("contents", BROKEN.values(), ids=BROKEN)
def test_broken_block_is_refused_by_a_scan(open_table: Opener, contents: bytes) -> None:
    table = open_table(one_block(contents))
    with pytest.raises(MalformedError) as caught:
        list(table.items())
    assert caught.value.path is not None and caught.value.offset == 0


@pytest.mark.parametrize("contents", BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("key", [b"", b"a", b"b", b"aa", b"c", b"zz"])
def test_broken_block_never_gives_a_lookup_a_wrong_value(
    open_table: Opener, contents: bytes, key: bytes
) -> None:
    table = open_table(one_block(contents))
    try:
        found = table.get(key)
    except DataLossError:
        return
    assert found is None or (key in (b"a", b"b", b"") and found in (b"1", b"2"))


@pytest.mark.parametrize("contents", BROKEN.values(), ids=BROKEN)
def test_broken_index_block_is_refused_on_open(open_table: Opener, contents: bytes) -> None:
    data = b.Stored(b.block([(b"a", b"1")]))
    with pytest.raises(MalformedError):
        open_table(b.assemble([data], index=b.Stored(contents)))


# ---- several blocks


@pytest.mark.parametrize(
    "groups",
    [
        [[b"b"], [b"a"]],
        [[b"a", b"c"], [b"b"]],
        [[b"a", b"b"], [b"b", b"c"]],
        [[b"a"], [b"a"]],
    ],
    ids=["unsorted", "overlapping", "shared key", "duplicate"],
)
def test_keys_must_increase_over_all_blocks(open_table: Opener, groups: list[list[bytes]]) -> None:
    stored = [
        b.Stored(b.block([(k, b"v") for k in keys]), key=bytes([0x70 + n]))
        for n, keys in enumerate(groups)
    ]
    with pytest.raises(MalformedError, match="increase"):
        list(open_table(b.assemble(stored)).items())


def one_entry(name: bytes, *, key: bytes) -> b.Stored:
    return b.Stored(b.block([(name, b"v")]), key=key)


def test_key_above_its_blocks_separator_is_refused(open_table: Opener) -> None:
    stored = [
        b.Stored(b.block([(b"m", b"v")]), key=b"c"),
        b.Stored(b.block([(b"n", b"v")]), key=b"z"),
    ]
    with pytest.raises(MalformedError, match="increase"):
        list(open_table(b.assemble(stored)).items())


def test_index_keys_must_increase(open_table: Opener) -> None:
    stored = [
        b.Stored(b.block([(b"a", b"")]), key=b"z"),
        b.Stored(b.block([(b"b", b"")]), key=b"c"),
    ]
    with pytest.raises(MalformedError, match="increase"):
        open_table(b.assemble(stored))


def test_the_same_data_block_may_not_be_listed_twice(open_table: Opener) -> None:
    stored = b.Stored(b.block([(b"a", b"1")]), key=b"b")
    size = len(stored.contents)
    keys = [b"b", b"c", b"d"]
    index = b.Stored(b.block([(k, b.handle(0, size)) for k in keys], restart_interval=1))
    with pytest.raises(MalformedError):
        open_table(b.assemble([stored], index=index))


# ---- bounds


def growing_keys(count: int) -> b.TableFile:
    """Each entry repeats the key before it and adds a byte: n entries hold n**2/2 key bytes."""
    body = b"".join(b.entry(b"x", b"", shared=n) for n in range(count))
    return one_block(b.close_block(body), key=b"y")


def test_keys_that_grow_quadratically_hit_the_limit_before_memory_does(open_table: Opener) -> None:
    table = open_table(growing_keys(20_000), limits=Limits(key_bytes=1 << 20))
    with allocating_at_most(8 << 20), pytest.raises(LimitError) as caught:
        list(table.items())
    assert caught.value.limit == "key_bytes"


def test_lookup_among_keys_that_grow_quadratically_is_bounded_too(open_table: Opener) -> None:
    table = open_table(growing_keys(20_000), limits=Limits(key_bytes=1 << 20))
    with allocating_at_most(8 << 20), pytest.raises(LimitError) as caught:
        table.get(b"xy")
    assert caught.value.limit == "key_bytes"


def test_index_keys_that_grow_quadratically_are_bounded_too(open_table: Opener) -> None:
    body = b"".join(b.entry(b"x", b.handle(0, 0), shared=n) for n in range(20_000))
    file = b.assemble([], index=b.Stored(b.close_block(body)))
    with allocating_at_most(8 << 20), pytest.raises((LimitError, MalformedError)):
        open_table(file, limits=Limits(key_bytes=1 << 20))


def test_many_small_entries_hit_the_limit_before_memory_does(open_table: Opener) -> None:
    keys = (n.to_bytes(3, "big") for n in range(200_000))
    table = open_table(one_block(b.block((k, b"") for k in keys)), limits=Limits(entries=1000))
    with allocating_at_most(8 << 20), pytest.raises(LimitError) as caught:
        list(table.items())
    assert caught.value.limit == "entries"


@pytest.mark.parametrize("slack", [-1, 0])
def test_number_of_entries_is_bounded_over_all_blocks(open_table: Opener, slack: int) -> None:
    file = b.table([(b"%04d" % n, b"") for n in range(500)], block_size=512)
    table = open_table(file, limits=Limits(entries=500 + slack))
    if slack < 0:
        with pytest.raises(LimitError, match="500"):
            list(table.items())
    else:
        assert len(list(table.items())) == 500


@pytest.mark.parametrize("slack", [-1, 0])
def test_sum_of_the_keys_is_bounded_over_all_blocks(open_table: Opener, slack: int) -> None:
    pairs = [(b"x" * n, b"") for n in range(1, 2001)]
    file = b.table(pairs, block_size=4096, restart_interval=10_000)
    blocks = sum(size for _, size in file.blocks)
    beyond = sum(len(key) for key, _ in pairs) - 6 * blocks
    assert beyond > 0 and len(file.blocks) > 2
    table = open_table(file, limits=Limits(key_bytes=beyond + slack))
    if slack < 0:
        with pytest.raises(LimitError):
            list(table.items())
    else:
        assert len(list(table.items())) == 2000


def test_restart_array_of_zeros_costs_no_more_than_its_bytes(open_table: Opener) -> None:
    table = open_table(one_block(b.close_block(b"", (0,) * 100_000)))
    with allocating_at_most(8 << 20), pytest.raises(MalformedError):
        list(table.items())


# ---- what is read


@pytest.mark.checklist(5)
def test_huge_values_between_tiny_ones_come_back_from_blocks_of_their_own(
    open_table: Opener,
) -> None:
    huge = bytes(10_000_000)
    pairs = [(b"a", b"1"), (b"b", huge), (b"c", b"3"), (b"d", huge), (b"e", b"5")]
    table = open_table(b.table(pairs))
    assert len(table.handles) == 5
    with counted_reads() as reads:
        assert table.get(b"c") == b"3"
    assert reads.bytes_of() < 100
    assert list(table.items()) == pairs


@pytest.mark.checklist(10)
def test_lookup_of_the_first_key_leaves_a_large_second_block_unread(open_table: Opener) -> None:
    file = b.table([(b"k01", b"hello"), (b"k02", bytes(600_000)), (b"k03", b"x")])
    with counted_reads() as reads:
        assert open_table(file).get(b"k01") == b"hello"
    assert reads.bytes_of() < 200


@pytest.mark.checklist(11)
def test_lookup_of_one_key_reads_one_data_block(open_table: Opener) -> None:
    pairs = [(b"layer/%05d/kernel" % n, b"v" * 20) for n in range(20_000)]
    file = b.table(pairs)
    assert len(file.blocks) >= 2
    table = open_table(file)
    with counted_reads() as reads:
        assert table.get(pairs[-1][0]) == pairs[-1][1]
    assert reads.bytes_of() == file.blocks[-1][1] + 5
    assert dict(table.items()) == dict(pairs)
