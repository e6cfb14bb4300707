"""Large blocks of which a lookup needs one part: their checksums are checked by the piece."""

from __future__ import annotations

import random
from typing import Any

import builder as b
import pytest

from ckptparse.errors import ChecksumError, LimitError, MalformedError
from ckptparse.limits import DEFAULT_LIMITS, Limits
from ckptparse.table.block import Block
from ckptparse.table.format import BlockHandle, read_block
from ckptparse.table.part import PART_PIECE, read_part
from ckptparse.table.reader import Table

PIECE = PART_PIECE


class Counted:
    """A file in memory that notes what is read of it."""

    path = "m"

    def __init__(self, data: bytes, concurrency: int | None = None) -> None:
        self.data, self.size, self.concurrency = data, len(data), concurrency
        self.reads: list[int] = []

    def read_at(self, offset: int, size: int) -> bytes:
        self.reads.append(size)
        return self.data[offset : offset + size]


def part_of(
    contents: bytes, key: bytes | None, concurrency: int | None = None, **options: Any
) -> Block | None:
    stored = b.Stored(contents, **options)
    source: Any = Counted(bytes(100) + stored.to_bytes() + bytes(48), concurrency)
    part = read_part(source, BlockHandle(100, len(stored.payload())), key)
    assert max(source.reads, default=0) <= PIECE + 5
    return part


def pairs_of(count: int, size: int, *, seed: int = 0) -> list[tuple[bytes, bytes]]:
    """So many pairs with values of up to twice so many bytes."""
    draw = random.Random(seed)
    return [
        (b"key/%06d" % (2 * row), draw.randbytes(draw.randrange(2 * size))) for row in range(count)
    ]


@pytest.mark.parametrize(
    ("count", "size", "interval"),
    [(1500, 20, 16), (1500, 20, 1), (900, 60, 5), (200, 500, 16), (40, 4000, 2), (1500, 20, 1000)],
)
def test_what_a_block_has_its_part_has(count: int, size: int, interval: int) -> None:
    pairs = pairs_of(count, size)
    contents = b.block(pairs, restart_interval=interval)
    whole = Block.from_bytes(contents)
    found = 0
    step = 3 if interval < 1000 else 301  # A run of so many entries is decoded for each key.
    keys = [b"", b"key/", *(b"key/%06d" % row for row in range(0, 2 * count + 2, step)), b"z"]
    for key in keys:
        part = part_of(contents, key)
        if part is not None:
            found += 1
            expected = whole.find(key, limits=DEFAULT_LIMITS)
            assert part.find(key, limits=DEFAULT_LIMITS) == expected == dict(pairs).get(key)
            assert len(part.contents) <= 4 * PIECE
    # Entries over the end of a piece, and long runs, are read with the whole block.
    assert found > 0.7 * len(keys) or interval == 1000 or size == 4000


@pytest.mark.parametrize("over", range(-60, 60, 7))
def test_a_part_is_right_wherever_pieces_end(over: int) -> None:
    pairs = pairs_of(700, 40)
    size = len(b.block([*pairs, (b"l", b"")]))
    pairs.append((b"l", bytes(-size % PIECE + over + PIECE)))
    contents = b.block(pairs)
    for key, value in pairs[::9] + pairs[-3:]:
        part = part_of(contents, key)
        assert part is None or part.find(key, limits=DEFAULT_LIMITS) == value


def test_the_beginning_of_a_block_is_a_part() -> None:
    pairs = [(b"", b"h"), *pairs_of(1500, 20)]
    part = part_of(b.block(pairs), None)
    assert part is not None and part.first() == (b"", b"h")
    assert len(part.contents) == PIECE
    # Of one long value nothing else begins in the piece.
    part = part_of(b.block([(b"", b"h"), (b"a", bytes(3 * PIECE))]), None)
    assert part is not None and part.first() == (b"", b"h")
    # All entries end in the first piece.
    contents = b.close_block(b.entry(b"a", bytes(PIECE - 100)), [0], stray=b"")
    assert part_of(contents, None) is None


@pytest.mark.parametrize("key", [None, b"key/000100", b"key/002998", b"z"])
def test_a_bit_that_flips_anywhere_is_a_checksum_error(key: bytes | None) -> None:
    contents = b.block(pairs_of(1500, 20))
    size = len(contents)
    stored = b.Stored(contents).to_bytes() + bytes(48)
    places = [0, PIECE - 1, PIECE, 2 * PIECE + 7, size - PIECE - 1, size - PIECE, size - 900]
    for at in [*places, size + 1, size + 4]:
        data = bytearray(stored)
        data[at] ^= 1
        source: Any = Counted(bytes(data))
        with pytest.raises(ChecksumError) as caught:
            look_into(source, BlockHandle(0, size), key)
        assert caught.value.path == "m" and caught.value.offset == 0 and caught.value.size == size


def look_into(source: Any, handle: BlockHandle, key: bytes | None) -> None:
    # What looks malformed is read whole, and then is damaged.
    if read_part(source, handle, key) is None:
        read_block(source, handle, limits=DEFAULT_LIMITS)


def test_what_is_better_read_whole_has_no_part() -> None:
    def sized(size: int) -> bytes:
        return b.block([(b"a", bytes(size - 18)), (b"b", b"")])

    for size in (2 * PIECE - 1, 2 * PIECE, 2 * PIECE + 1):
        assert len(sized(size)) == size
        assert (part_of(sized(size), b"a") is None) == (size < 2 * PIECE)
    contents = b.block(pairs_of(1500, 20))
    assert part_of(contents, b"key/000002") is not None
    assert part_of(contents, b"key/000002", concurrency=4) is None
    assert part_of(contents, b"key/000002", type=b.SNAPPY, stored=contents) is None
    assert part_of(contents, None, type=b.SNAPPY, stored=contents) is None


def test_the_restarts_are_in_the_last_piece() -> None:
    most = PIECE // 4 - 1
    for count, fine in ((most, True), (most + 1, False)):
        pairs = [(b"%05d" % row, bytes(9)) for row in range(count)]
        contents = b.block(pairs, restart_interval=1)
        assert len(contents) > 2 * PIECE
        assert (part_of(contents, b"00007") is not None) == fine
        assert (part_of(contents, None) is not None) == fine


def test_runs_of_up_to_four_pieces_have_parts() -> None:
    def found(values: int) -> Block | None:
        run = [(b"b%02d" % row, bytes(PIECE // 2)) for row in range(values)]
        last = [(b"c%05d" % row, bytes(20)) for row in range(1500)]
        return part_of(b.block([*run, *last], restart_interval=values), b"b00")

    assert found(7) is not None
    assert found(8) is None


@pytest.mark.parametrize("over", [-40, 0, 1])
def test_a_run_that_ends_with_the_fourth_piece_has_a_part(over: int) -> None:
    last = [(b"c%05d" % row, bytes(20)) for row in range(1500)]
    begin = b.entry(b"b", bytes(PIECE))
    run = begin + b.entry(b"bb", bytes(4 * PIECE - len(begin) - 7 + over))
    assert len(run) == 4 * PIECE + over
    body, restarts = run, [0]
    for key, value in last:
        restarts.append(len(body))
        body += b.entry(key, value)
    part = part_of(b.close_block(body, restarts), b"b")
    assert (part is not None) == (over <= 0)
    if part is not None:
        assert part.find(b"b", limits=DEFAULT_LIMITS) == bytes(PIECE)


@pytest.mark.parametrize("inside", range(1, 60, 3))
def test_a_key_that_goes_over_the_end_of_a_piece_is_not_compared(inside: int) -> None:
    # So many bytes of the second run, which is the first of its piece, are in that piece.
    name = b"k" * 40
    size = 2 * PIECE - inside - len(b.entry(name + b"0", bytes(PIECE))) + PIECE
    pairs = [(name + b"0", bytes(size)), *((name + b"1%05d" % row, b"") for row in range(999))]
    contents = b.block(pairs, restart_interval=1)
    part = part_of(contents, name + b"0")
    assert (part is not None) == (inside >= len(b.entry(name + b"100000", b"")))
    assert part is None or part.find(name + b"0", limits=DEFAULT_LIMITS) == bytes(size)


def test_a_first_entry_of_a_piece_that_shares_has_no_part_and_is_malformed() -> None:
    body, restarts = bytearray(), []
    for row in range(1500):
        restarts.append(len(body))
        body += b.entry(b"%05d" % row if row % 100 else b"%04d" % (row // 10), bytes(20))
    contents = b.close_block(bytes(body), restarts)
    first = next(at for at in restarts if at >= PIECE)
    assert part_of(contents, b"00900") is not None
    broken = b.close_block(bytes(body[:first]) + b"\x01" + bytes(body[first + 1 :]), restarts)
    assert part_of(broken, b"00900") is None
    # It is not looked at for a key before it, as it is not by the search of a whole block.
    assert part_of(broken, None) is not None


# ---- in a table


def opened(data: bytes, limits: Limits = DEFAULT_LIMITS, *, whole: bool = False) -> Table:
    source: Any = Counted(data)
    return Table.open(source, limits=limits, whole=whole)


def test_a_block_that_is_asked_twice_is_kept() -> None:
    pairs = pairs_of(6000, 60)
    table = opened(b.table(pairs).data)
    source: Any = table.source
    assert len(table.handles) > 1
    reads = []
    for row in (5, 9, 5, 5990):
        source.reads.clear()
        assert table.get(pairs[row][0]) == pairs[row][1]
        reads.append(max(source.reads, default=0))
    assert reads[0] == reads[3] == PIECE + 5
    assert reads[1] > 8 * PIECE and reads[2] == 0
    source.reads.clear()
    assert table.get(b"key/000003") is None and not source.reads


def test_the_first_entry_of_a_large_block_is_that_of_a_small_one() -> None:
    pairs = [(b"", b"h"), (b"a", bytes(6 * PIECE))]
    table = opened(b.table(pairs).data)
    source: Any = table.source
    source.reads.clear()
    assert table.first() == (b"", b"h")
    assert max(source.reads) == PIECE + 5
    assert opened(b.table(pairs).data, whole=True).first() == (b"", b"h")
    assert table.get(b"a") == pairs[1][1]
    assert table.get(b"a") == pairs[1][1]
    source.reads.clear()
    assert table.first() == (b"", b"h") and not source.reads
    # The first entry reaches beyond the part: the whole block is read.
    assert opened(b.table([(b"", bytes(6 * PIECE))]).data).first() == (b"", bytes(6 * PIECE))


def test_a_large_block_whose_first_entry_shares_is_malformed() -> None:
    contents = b.close_block(b.entry(b"a", bytes(6 * PIECE), shared=1))
    table = opened(b.assemble([b.Stored(contents, key=b"z")]).data)
    with pytest.raises(MalformedError, match="Bad block entry at byte 0"):
        table.first()


@pytest.mark.parametrize("row", [3, 1000])
def test_what_is_wrong_in_a_part_is_told_as_of_the_whole_block(row: int) -> None:
    pairs = pairs_of(1500, 20)
    pairs[row], pairs[row + 1] = pairs[row + 1], pairs[row]
    contents = b.block(pairs)
    table = opened(b.assemble([b.Stored(contents, key=b"z")]).data)
    with pytest.raises(MalformedError, match="strictly increase") as caught:
        table.get(pairs[row][0])
    assert caught.value.offset == 0


def test_keys_in_a_part_are_counted_beside_the_whole_block() -> None:
    # A run of long keys takes more than 6 times its part, and less than 6 times its block.
    run = [(b"a" * 3000 + b"%02d" % row, b"") for row in range(16)]
    pairs = [*run, *pairs_of(1500, 40)]
    data = b.table(pairs).data
    assert opened(data, Limits(key_bytes=0)).get(run[-1][0]) == b""
    long = [(b"a" * 30_000 + b"%02d" % row, b"") for row in range(16)]
    data = b.table([*long, *pairs_of(1500, 20)]).data
    with pytest.raises(LimitError):
        opened(data, Limits(key_bytes=0)).get(long[-1][0])
