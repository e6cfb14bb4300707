"""Footer, handles, trailers and compression of tables (docs/format.md, sections 1.1 to 1.4)."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import builder as b
import pytest
import snappy
from instruments import MEGABYTE, allocating_at_most, outcome_in_little_memory

from ckptparse.errors import (
    CheckpointError,
    CheckpointNotFoundError,
    ChecksumError,
    DataLossError,
    LimitError,
    MalformedError,
    NotACheckpointError,
    TruncatedError,
    UnsupportedError,
)
from ckptparse.files.local import LocalSource
from ckptparse.limits import DEFAULT_LIMITS, Limits
from ckptparse.table.format import TRAILER_SIZE
from ckptparse.table.part import PART_PIECE
from ckptparse.table.reader import Table

PAIRS = [(b"", b"header"), (b"a", b"1"), (b"b", b"2")]
Reader = Callable[..., list[tuple[bytes, bytes]]]


@pytest.fixture
def items_of(tmp_path: Path) -> Reader:
    """Write a table and read all its items."""

    def read(
        data: bytes | b.TableFile, *, limits: Limits = DEFAULT_LIMITS
    ) -> list[tuple[bytes, bytes]]:
        path = tmp_path / "table"
        path.write_bytes(data.data if isinstance(data, b.TableFile) else data)
        with LocalSource.open(str(path)) as source:
            return list(Table.open(source, limits=limits).items())

    return read


def with_footer(**changes: object) -> bytes:
    """The pairs' table under a footer with changed fields."""
    file = b.table(PAIRS)
    footer = {"metaindex": file.metaindex, "index": file.index} | changes
    return file.data[:-48] + b.Footer(**footer).to_bytes()  # type: ignore[arg-type]


# ---- footer


@pytest.mark.parametrize("size", [0, 1, 47])
def test_file_shorter_than_a_footer_is_truncated(items_of: Reader, size: int) -> None:
    with pytest.raises(TruncatedError, match="too short to be an sstable"):
        items_of(bytes(size))


def test_file_of_48_zeros_is_no_table(items_of: Reader) -> None:
    with pytest.raises(MalformedError, match="not an sstable"):
        items_of(bytes(48))


@pytest.mark.parametrize("position", range(40, 48))
def test_every_byte_of_the_magic_counts(items_of: Reader, position: int) -> None:
    file = b.table(PAIRS)
    with pytest.raises(MalformedError, match="not an sstable"):
        items_of(file.flip(len(file.data) - 48 + position))


def test_byte_after_the_footer_is_fatal(items_of: Reader) -> None:
    with pytest.raises(MalformedError, match="not an sstable"):
        items_of(b.table(PAIRS).data + b"\0")


def test_bytes_in_front_are_fatal(items_of: Reader) -> None:
    with pytest.raises(DataLossError):
        items_of(b"\0" + b.table(PAIRS).data)


def test_padding_of_the_footer_is_not_looked_at(items_of: Reader) -> None:
    assert items_of(with_footer(padding=b"\xff" * 40)) == PAIRS


def test_handles_may_be_coded_in_ten_bytes_each(items_of: Reader) -> None:
    file = b.table(PAIRS)
    numbers = (*file.metaindex, *file.index)
    handles = b"".join(b.varint(n, width=10) for n in numbers)
    assert len(handles) == 40
    assert items_of(file.data[:-48] + handles + file.data[-8:]) == PAIRS


HANDLES = {
    "behind the end": (1 << 20, 14),
    "ends behind the footer": (0, 1 << 20),
    "size 2**62": (0, 1 << 62),
    "size 2**64 - 3": (0, (1 << 64) - 3),
    "offset 2**64 - 3": ((1 << 64) - 3, 14),
    "sum that wraps 64 bits": ((1 << 64) - 10, 20),
    "inside the footer": (121 - 48, 14),
    "trailer over the footer": (0, 121 - 48 - 4),
}


@pytest.mark.parametrize("handle", HANDLES.values(), ids=HANDLES)
def test_index_handle_outside_the_file_is_refused(items_of: Reader, handle: b.Handle) -> None:
    with allocating_at_most(4 * MEGABYTE), pytest.raises(DataLossError):
        items_of(with_footer(index=handle))


@pytest.mark.parametrize("handle", HANDLES.values(), ids=HANDLES)
def test_data_handle_outside_the_file_is_refused(items_of: Reader, handle: b.Handle) -> None:
    stored = b.Stored(b.block(PAIRS), key=b"c")
    with allocating_at_most(4 * MEGABYTE), pytest.raises(DataLossError):
        items_of(b.assemble([stored], handles=[b.handle(*handle)]))


@pytest.mark.parametrize(
    "code",
    [b"", b"\x80", b"\0", b"\0\x80", b"\x80" * 10 + b"\0\0", b"\xff" * 10, b"\xff" * 9 + b"\x02\0"],
    ids=["none", "cut", "no size", "size cut", "11 bytes", "unterminated", "65 bits"],
)
def test_broken_varints_in_a_data_handle_are_refused(items_of: Reader, code: bytes) -> None:
    stored = b.Stored(b.block(PAIRS), key=b"c")
    with pytest.raises(MalformedError, match="handle"):
        items_of(b.assemble([stored], handles=[code]))


def test_unterminated_varint_in_the_footer_is_refused(items_of: Reader) -> None:
    file = b.table(PAIRS)
    with pytest.raises(MalformedError, match="handle"):
        items_of(file.data[:-48] + b"\xff" * 40 + file.data[-8:])


def test_index_handle_that_points_at_a_data_block_is_refused(items_of: Reader) -> None:
    file = b.table(PAIRS)
    with pytest.raises(DataLossError):
        items_of(with_footer(index=file.blocks[0]))


def test_index_handle_that_points_at_the_empty_metaindex_gives_an_empty_table(
    items_of: Reader,
) -> None:
    # Nothing in the file tells the two apart: what lies above must miss the header.
    assert items_of(with_footer(index=b.table(PAIRS).metaindex)) == []


# ---- trailers


def test_every_bit_of_a_blocks_trailer_counts(items_of: Reader) -> None:
    file = b.table(PAIRS)
    for offset, size in (*file.blocks, file.index):
        for position in range(offset + size, offset + size + 5):
            for bit in range(8):
                with pytest.raises(ChecksumError, match="Checksum does not match"):
                    items_of(file.flip(position, bit))


def test_checksum_error_says_what_was_stored_computed_and_where(items_of: Reader) -> None:
    file = b.table(PAIRS)
    offset, size = file.index
    with pytest.raises(ChecksumError) as caught:
        items_of(file.flip(offset))
    error = caught.value
    assert error.stored == b.crc(file.data[offset : offset + size + 1])
    assert error.computed == b.crc(file.flip(offset)[offset : offset + size + 1])
    assert (error.offset, error.size) == (offset, size)
    assert error.path is not None and error.path in str(error)


def test_checksum_of_zero_is_a_value_and_not_unchecked(items_of: Reader) -> None:
    stored = b.Stored(b.block(PAIRS), crc=0, key=b"c")
    with pytest.raises(ChecksumError):
        items_of(b.assemble([stored]))


def test_checksum_must_be_masked(items_of: Reader) -> None:
    contents = b.block(PAIRS)
    with pytest.raises(ChecksumError):
        items_of(b.assemble([b.Stored(contents, crc=b.crc(contents + b"\0"), key=b"c")]))


@pytest.mark.checklist(14)
def test_damage_in_the_metaindex_block_does_not_hinder_reading(items_of: Reader) -> None:
    file = b.table(PAIRS)
    assert items_of(file.flip(file.metaindex[0] + 2)) == PAIRS
    assert items_of(with_footer(metaindex=(1 << 60, 1 << 60))) == PAIRS


@pytest.mark.checklist(15)
def test_damage_in_a_later_block_is_an_error_and_no_shorter_list(items_of: Reader) -> None:
    file = b.table([(b"%06d" % n, b"v" * 50) for n in range(9000)])
    assert len(file.blocks) == 2
    with pytest.raises(ChecksumError) as caught:
        items_of(file.flip(file.blocks[1][0] + 1000))
    assert caught.value.offset == file.blocks[1][0]


def test_damage_in_one_block_leaves_the_keys_of_the_others_readable(tmp_path: Path) -> None:
    file = b.table([(b"%06d" % n, b"%d" % n) for n in range(900)], block_size=1024)
    (tmp_path / "t").write_bytes(file.flip(file.blocks[2][0] + 10))
    with LocalSource.open(str(tmp_path / "t")) as source:
        table = Table.open(source, limits=DEFAULT_LIMITS)
        assert table.get(b"000000") == b"0" and table.get(b"000899") == b"899"
        with pytest.raises(ChecksumError):
            list(table.items())


# ---- the first entry of a large block, which is the header's


LARGE = [(b"%06d" % n, b"v" * 50) for n in range(4000)]
"""One block of some 220 kB."""


def first_of(path: Path, data: bytes) -> tuple[tuple[bytes, bytes] | None, int]:
    """The first entry of a table, and the size of the largest read."""
    path.write_bytes(data)
    sizes: list[int] = []

    class Watched(LocalSource):
        def read_at(self, offset: int, size: int) -> bytes:
            sizes.append(size)
            return super().read_at(offset, size)

    with Watched.open(str(path)) as source:
        return Table.open(source, limits=DEFAULT_LIMITS).first(), max(sizes)


def test_the_first_entry_of_a_large_block_is_read_in_little_memory(tmp_path: Path) -> None:
    file = b.table(LARGE)
    assert first_of(tmp_path / "t", file.data) == (LARGE[0], PART_PIECE + TRAILER_SIZE)


@pytest.mark.parametrize("where", ["first", "middle", "last", "type", "checksum"])
def test_damage_anywhere_in_a_large_block_is_an_error_if_its_first_entry_is_wanted(
    where: str, tmp_path: Path
) -> None:
    file = b.table(LARGE)
    ((start, size),) = file.blocks
    places = {"first": 0, "middle": size // 2, "last": size - 1, "type": size, "checksum": size + 1}
    with pytest.raises(ChecksumError) as caught:
        first_of(tmp_path / "t", file.flip(start + places[where]))
    assert (caught.value.offset, caught.value.size) == (start, size)


@pytest.mark.parametrize(
    "stored",
    [
        b.Stored(b.block(LARGE), b.SNAPPY, key=LARGE[-1][0]),
        b.Stored(b.block([(b"a", b"v" * 100_000), (b"b", b"2")]), key=b"b"),
        b.Stored(b.block([(b"%05d" % n, b"1") for n in range(15_000)], restart_interval=1),
                 key=b"99999"),
    ],
    ids=["compressed", "a long entry", "more restarts than entries"],
)  # fmt: skip
def test_a_large_block_is_read_whole_if_its_first_bytes_do_not_suffice(
    stored: b.Stored, tmp_path: Path
) -> None:
    file = b.assemble([stored])
    entry, largest = first_of(tmp_path / "t", file.data)
    assert entry is not None and entry[0] in (b"a", b"00000", LARGE[0][0])
    assert largest >= min(len(stored.payload()), 32 << 10)


def test_a_large_block_of_restarts_alone_has_no_first_entry(tmp_path: Path) -> None:
    stored = b.Stored(b.entry(b"a", b"1") + bytes(100_000) + b.fixed32(1 << 30), key=b"z")
    with pytest.raises(MalformedError, match="restarts do not fit"):
        first_of(tmp_path / "t", b.assemble([stored]).data)


# ---- compression


@pytest.mark.checklist(9, 12)
@pytest.mark.parametrize("index_type", [b.RAW, b.SNAPPY])
def test_snappy_blocks_read_as_raw_ones(items_of: Reader, index_type: int) -> None:
    pairs = [(b"layer/%04d" % n, b"same value " * 3) for n in range(500)]
    raw = b.table(pairs, block_size=4096)
    packed = b.table(pairs, block_size=4096, type=b.SNAPPY, index_type=index_type)
    assert len(packed.data) < len(raw.data) / 2
    assert items_of(packed) == items_of(raw) == pairs


@pytest.mark.checklist(12)
def test_raw_and_snappy_blocks_may_be_mixed(items_of: Reader) -> None:
    stored = [
        b.Stored(b.block(PAIRS), key=b"b"),
        b.Stored(b.block([(b"c", b"3")]), b.SNAPPY, key=b"c"),
    ]
    assert items_of(b.assemble(stored)) == [*PAIRS, (b"c", b"3")]


@pytest.mark.checklist(13)
@pytest.mark.parametrize("kind", [2, 3, 7, 255])
def test_other_compressions_are_refused_by_name(items_of: Reader, kind: int) -> None:
    with pytest.raises(UnsupportedError, match=f"{kind}.*zstd" if kind == 2 else str(kind)):
        items_of(b.assemble([b.Stored(b.block(PAIRS), kind, key=b"c")]))


CONTENTS = b.block(PAIRS)
SNAPPY_STREAMS = {
    "nothing": b"",
    "garbage": b"\xff\x01\x02garbage",
    "only a length": b.varint(10),
    "length unterminated": b"\xff" * 5,
    "length wider than 32 bits": b"\xff\xff\xff\xff\x7f" + b"x",
    "cut off": snappy.compress(CONTENTS)[:-1],
    "one byte too many": snappy.compress(CONTENTS) + b"\0",
    "promises more than it holds": b.varint(len(CONTENTS) + 1) + snappy.compress(CONTENTS)[1:],
    "promises less than it holds": b.varint(len(CONTENTS) - 1) + snappy.compress(CONTENTS)[1:],
    "copies from before the start": b.varint(8) + b"\x0d\x05" + b"\0aaaa",
    "copies from offset zero": b.varint(8) + b"\x0c" + b"aaaa" + b"\x01\x00",
}


@pytest.mark.parametrize("stream", SNAPPY_STREAMS.values(), ids=SNAPPY_STREAMS)
def test_broken_snappy_streams_are_malformed(items_of: Reader, stream: bytes) -> None:
    with pytest.raises(MalformedError, match="Snappy"):
        items_of(b.assemble([b.Stored(b"", b.SNAPPY, stored=stream, key=b"c")]))


@pytest.mark.parametrize("size", [1 << 20, 1 << 31, (1 << 32) - 1])
def test_snappy_stream_that_promises_too_much_for_its_size_is_malformed(
    items_of: Reader, size: int
) -> None:
    stored = b.Stored(b"", b.SNAPPY, stored=b.varint(size) + b"\0a", key=b"c")
    with allocating_at_most(4 * MEGABYTE), pytest.raises(MalformedError, match="Snappy"):
        items_of(b.assemble([stored]))


def bomb(size: int) -> bytes:
    """The shortest Snappy stream of `size` equal bytes: copies of 64 bytes, three bytes each."""
    copies, rest = divmod(size - 1, 64)
    tail = bytes([(rest - 1) << 2 | 2, 1, 0]) if rest else b""
    return b.varint(size) + b"\0a" + b"\xfe\x01\x00" * copies + tail


@pytest.mark.parametrize("slack", [-1, 0])
def test_decompressed_size_is_bounded(items_of: Reader, slack: int) -> None:
    contents = b.block([(b"a", b"v" * 50_000)])
    file = b.assemble([b.Stored(contents, b.SNAPPY, key=b"b")])
    limits = Limits(decompressed_bytes=len(contents) + slack)
    if slack < 0:
        with pytest.raises(LimitError) as caught:
            items_of(file, limits=limits)
        assert caught.value.limit == "decompressed_bytes"
    else:
        assert items_of(file, limits=limits) == [(b"a", b"v" * 50_000)]


def test_snappy_bomb_within_the_best_ratio_is_stopped_by_the_limit(tmp_path: Path) -> None:
    stream = bomb(1 << 30)
    assert snappy.decompress(bomb(1000)) == b"a" * 1000
    file = b.assemble([b.Stored(b"", b.SNAPPY, stored=stream, key=b"c")])
    (tmp_path / "x.index").write_bytes(file.data)
    code = f"""
    print(outcome(lambda: ckptparse.read({str(tmp_path / "x")!r},
                                         limits=Limits(decompressed_bytes=1 << 20))))
    """
    assert outcome_in_little_memory(tmp_path, code) == "LimitError"


# ---- limits and files


@pytest.mark.parametrize("slack", [-1, 0])
def test_size_of_the_index_block_is_bounded(items_of: Reader, slack: int) -> None:
    file = b.table([(b"%04d" % n, b"v" * 30) for n in range(500)], block_size=128)
    limits = Limits(index_bytes=file.index[1] + slack)
    if slack < 0:
        with pytest.raises(LimitError) as caught:
            items_of(file, limits=limits)
        assert caught.value.limit == "index_bytes"
    else:
        assert len(items_of(file, limits=limits)) == 500


def test_absent_file_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotFoundError):
        LocalSource.open(str(tmp_path / "absent"))
    with pytest.raises(CheckpointNotFoundError):
        LocalSource.open(str(tmp_path / "a" / "b"))


def test_directory_fifo_and_device_are_no_data_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path, tmp_path / "fifo", Path("/dev/zero")):
        with pytest.raises(NotACheckpointError, match=r"directory|FIFO|device"):
            LocalSource.open(str(path))


@pytest.mark.parametrize("name", ["a\0b", "x" * 5000])
def test_impossible_file_names_are_checkpoint_errors(tmp_path: Path, name: str) -> None:
    with pytest.raises(CheckpointError):
        LocalSource.open(str(tmp_path) + "/" + name)


def test_symbolic_links_are_followed_and_loops_are_errors(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b.table(PAIRS).data)
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "loop").symlink_to("loop")
    with LocalSource.open(str(tmp_path / "link")) as source:
        assert list(Table.open(source, limits=DEFAULT_LIMITS).items()) == PAIRS
    with pytest.raises(CheckpointError):
        LocalSource.open(str(tmp_path / "loop"))


def test_file_that_shrinks_while_open_is_truncated(tmp_path: Path) -> None:
    path = tmp_path / "table"
    path.write_bytes(b.table([(b"%04d" % n, b"v" * 30) for n in range(500)]).data)
    with LocalSource.open(str(path)) as source:
        table = Table.open(source, limits=DEFAULT_LIMITS)
        os.truncate(path, 100)
        with pytest.raises(TruncatedError):
            list(table.items())


def test_reads_outside_a_source_are_truncated_errors(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    with LocalSource.open(str(path)) as source:
        assert source.read_at(2, 3) == b"234"
        assert source.read_at(10, 0) == source.read_at(11, 0) == b"", "no bytes lie anywhere"
        for offset, size in [(8, 3), (-1, 2), (0, -1), (1 << 70, 1), (0, 1 << 70)]:
            with pytest.raises(TruncatedError):
                source.read_at(offset, size)
        buffer = bytearray(4)
        source.read_into(6, memoryview(buffer))
        assert buffer == b"6789"
        with pytest.raises(TruncatedError):
            source.read_into(7, memoryview(buffer))
