"""The Riegeli container: blocks, chunks, records, compressions, and every way they can lie."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from riegeli_builder import (
    BLOCK,
    KEY,
    SIGNATURE,
    RiegeliBuilder,
    compressed,
    highway_hash,
    simple_chunk_data,
    varint,
)

from ckptparse.errors import (
    CheckpointError,
    ChecksumError,
    LimitError,
    MalformedError,
    TruncatedError,
    UnsupportedError,
)
from ckptparse.files.local import LocalSource
from ckptparse.limits import DEFAULT_LIMITS, Limits
from ckptparse.saved_model.highwayhash import highway_hash_64
from ckptparse.saved_model.riegeli import RecordReader

COMPRESSIONS = ["none", "brotli", "zstd", "snappy"]


@contextmanager
def reader_of(
    path: Path, data: bytes, *, limits: Limits = DEFAULT_LIMITS, verify: bool = True
) -> Iterator[RecordReader]:
    path.write_bytes(data)
    with LocalSource.open(str(path)) as source:
        yield RecordReader.from_source(source, limits=limits, verify=verify)


def read_all(path: Path, data: bytes, *, verify: bool = True) -> list[bytes]:
    with reader_of(path, data, verify=verify) as reader:
        return [
            reader.read(chunk.begin + index)
            for chunk in reader.chunks
            for index in range(chunk.num_records)
        ]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "saved_model.cpb"


# HighwayHash

TEST_KEY = (0x0706050403020100, 0x0F0E0D0C0B0A0908, 0x1716151413121110, 0x1F1E1D1C1B1A1918)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (0, 0x907A56DE22C26E53),
        (1, 0x7EAB43AAC7CDDD78),
        (2, 0xB8D0569AB0B53D62),
        (3, 0x5C6BEFAB8A463D80),
        (4, 0xF205A46893007EDA),
        (16, 0xCFAB3489F97EB832),
        (17, 0x19FE67D2C8C5C0E2),
        (31, 0x9FC7007CCF035A68),
        (32, 0xA0C964D9ECD580FC),
        (33, 0x2C90F73CA03181FC),
    ],
)
def test_highway_hash_gives_the_values_published_by_its_authors(size: int, expected: int) -> None:
    assert highway_hash_64(TEST_KEY, bytes(range(size))) == expected


def test_highway_hash_with_another_key_gives_the_published_value() -> None:
    assert highway_hash_64((1, 2, 3, 4), bytes(range(128, 161))) == 0x53C516CCE478CAD7


@given(st.binary(max_size=200))
def test_highway_hash_agrees_with_an_independent_one(data: bytes) -> None:
    assert highway_hash_64(KEY, memoryview(data)) == highway_hash(data)


@pytest.mark.parametrize(
    "header",
    [
        "e3ac37518570b602c0ff000000000000232c010000000000",
        "73ccb67f5d9cc883c0ff010000000000232c000000000000",
        "9e5c01fcc92bbcb58b2b0200000000001d8fb7a808e066807202000000000000ab260b0000000000",
    ],
)
def test_hashes_of_headers_written_by_riegeli_itself_match(header: str) -> None:
    data = bytes.fromhex(header)
    assert highway_hash_64(KEY, data[8:]) == int.from_bytes(data[:8], "little")


# The container


def test_a_file_of_the_fixed_signature_alone_holds_no_records(file: Path) -> None:
    assert bytes(RiegeliBuilder().data) == SIGNATURE
    with reader_of(file, SIGNATURE) as reader:
        assert reader.chunks == ()
        with pytest.raises(
            MalformedError, match="Expected records in the Riegeli file, found none"
        ):
            _ = reader.last_position


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_records_come_back_in_every_compression(file: Path, compression: str) -> None:
    records = [b"", b"a", b"bc" * 5000, bytes(range(256))]
    builder = RiegeliBuilder()
    positions = builder.add_records(records, compression)
    with reader_of(file, bytes(builder.data)) as reader:
        assert [reader.read(position) for position in positions] == records
        assert reader.last_position == positions[-1]


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_records_can_be_read_in_any_order_from_many_chunks(file: Path, compression: str) -> None:
    builder = RiegeliBuilder()
    records = [bytes((index,)) * (index * 37) for index in range(20)]
    positions = [builder.add_records([record], compression)[0] for record in records]
    with reader_of(file, bytes(builder.data)) as reader:
        for index in (7, 0, 19, 3, 3):
            assert reader.read(positions[index]) == records[index]


def test_record_positions_are_numbers_within_the_chunk_not_offsets(file: Path) -> None:
    builder = RiegeliBuilder()
    first = builder.add_records([b"long record"] * 3)
    second = builder.add_records([b"x"])
    assert first == [64, 65, 66]
    with reader_of(file, bytes(builder.data)) as reader:
        assert reader.read(66) == b"long record"
        for nobody in (0, 63, 67, second[0] + 1, 1 << 70):
            with pytest.raises(MalformedError, match="Expected a record at position"):
                reader.read(nobody)


@pytest.mark.parametrize("size", [BLOCK - 200, BLOCK - 104, BLOCK, 3 * BLOCK + 5])
def test_records_larger_than_a_block_go_around_the_block_headers(file: Path, size: int) -> None:
    record = bytes(index % 251 for index in range(size))
    builder = RiegeliBuilder()
    builder.add_records([record])
    builder.add_records([b"after"])
    assert read_all(file, bytes(builder.data)) == [record, b"after"]


@pytest.mark.parametrize("before", range(0, 70, 3))
def test_a_block_header_may_split_a_chunk_header_anywhere(file: Path, before: int) -> None:
    builder = RiegeliBuilder()
    overhead = 64 + 40 + 5  # signature, chunk header, compression and sizes
    builder.add_records([bytes(BLOCK - overhead - before)])
    builder.add_records([b"split", b"chunk"])
    data = bytes(builder.data)
    assert read_all(file, data)[1:] == [b"split", b"chunk"]


def test_padding_keeps_positions_unique_where_records_are_smaller_than_a_byte(file: Path) -> None:
    builder = RiegeliBuilder()
    builder.add_records([b""] * 70_000, "brotli")
    last = builder.add_records([b"end"])
    assert last[0] >= 64 + 70_000
    with reader_of(file, bytes(builder.data), limits=Limits(objects=100_000)) as reader:
        assert reader.read(64 + 69_999) == b""
        assert reader.read(last[0]) == b"end"


def test_padding_metadata_and_further_signatures_are_passed_over(file: Path) -> None:
    builder = RiegeliBuilder()
    builder.add_chunk("m", b"whatever", decoded_size=5)
    builder.add_records([b"one"])
    builder.add_chunk("p", bytes(1000))
    builder.add_chunk("s", b"")
    builder.add_chunk("?", b"no records in it")
    builder.add_records([b"two"])
    assert read_all(file, bytes(builder.data)) == [b"one", b"two"]


def test_transposed_chunks_are_refused(file: Path) -> None:
    builder = RiegeliBuilder()
    builder.add_chunk("t", b"\0", num_records=1, decoded_size=3)
    with pytest.raises(UnsupportedError, match="Transposed"):
        read_all(file, bytes(builder.data))


def test_chunks_of_an_unknown_kind_with_records_are_refused(file: Path) -> None:
    builder = RiegeliBuilder()
    builder.add_chunk("?", b"\0", num_records=1, decoded_size=3)
    with pytest.raises(UnsupportedError, match="0x3f"):
        read_all(file, bytes(builder.data))


def test_an_unknown_compression_is_refused(file: Path) -> None:
    builder = RiegeliBuilder()
    builder.add_chunk("r", b"q\x01\x01x", num_records=1, decoded_size=1)
    with pytest.raises(UnsupportedError, match="compression, found 0x71"):
        read_all(file, bytes(builder.data))


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(st.lists(st.binary(max_size=60), min_size=1), st.sampled_from(COMPRESSIONS)),
        max_size=5,
    )
)
def test_any_chunks_of_any_records_come_back(
    tmp_path_factory: pytest.TempPathFactory, chunks: list[tuple[list[bytes], str]]
) -> None:
    builder = RiegeliBuilder()
    for records, compression in chunks:
        builder.add_records(records, compression)
    file = tmp_path_factory.mktemp("riegeli") / "f"
    expected = [record for records, _ in chunks for record in records]
    assert read_all(file, bytes(builder.data)) == expected


# Damage


def small_file(compression: str = "brotli") -> bytes:
    builder = RiegeliBuilder()
    builder.add_records([b"abcabcabc", b"", b"defdef"], compression)
    builder.add_records([b"last"], compression)
    return bytes(builder.data)


@pytest.mark.checklist(122)
@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_every_flipped_bit_is_detected(file: Path, compression: str) -> None:
    data = small_file(compression)
    for index in range(len(data)):
        for bit in range(8):
            damaged = bytearray(data)
            damaged[index] ^= 1 << bit
            with pytest.raises(CheckpointError):
                read_all(file, bytes(damaged))


def test_without_verify_a_flipped_bit_gives_other_records_or_an_error(file: Path) -> None:
    for compression in COMPRESSIONS:
        data = small_file(compression)
        for index in range(len(data)):
            damaged = bytearray(data)
            damaged[index] ^= 0x10
            try:
                records = read_all(file, bytes(damaged), verify=False)
            except CheckpointError:
                continue
            assert [len(record) for record in records] == [9, 0, 6, 4]


def test_a_flipped_bit_in_a_block_header_is_detected(file: Path) -> None:
    builder = RiegeliBuilder()
    builder.add_records([bytes(BLOCK)])
    for index in (BLOCK, BLOCK + 8, BLOCK + 23):
        damaged = bytearray(builder.data)
        damaged[index] ^= 1
        with pytest.raises(ChecksumError, match="block header") as caught:
            read_all(file, bytes(damaged), verify=False)
        assert caught.value.offset == BLOCK


def test_a_block_header_that_tells_other_distances_is_malformed(file: Path) -> None:
    builder = RiegeliBuilder()
    builder.add_records([bytes(BLOCK)])
    lie = struct.pack("<QQ", 3, 4)
    builder.data[BLOCK : BLOCK + 24] = struct.pack("<Q", highway_hash(lie)) + lie
    with pytest.raises(MalformedError, match="found 3 and 4"):
        read_all(file, bytes(builder.data))


def test_a_file_cut_anywhere_is_truncated(file: Path) -> None:
    data = small_file()
    ends = [64, len(data)]
    with reader_of(file, data) as reader:
        ends += [chunk.end for chunk in reader.chunks]
    for size in range(len(data)):
        if size in ends:
            read_all(file, data[:size])
        else:
            with pytest.raises(TruncatedError):
                read_all(file, data[:size])


def test_other_files_are_told_apart(file: Path) -> None:
    for data in (b"<html>" * 100, bytes(500)):
        with pytest.raises(MalformedError, match="signature of a Riegeli file"):
            read_all(file, data)


def test_a_file_must_begin_with_a_signature(file: Path) -> None:
    builder = RiegeliBuilder()
    builder.data.clear()
    builder.add_records([b"x"])
    with pytest.raises(MalformedError, match="signature chunk first"):
        read_all(file, bytes(builder.data))


@pytest.mark.parametrize("kind", ["s", "m", "p"])
def test_chunks_without_records_must_not_claim_any(file: Path, kind: str) -> None:
    builder = RiegeliBuilder()
    builder.add_chunk(kind, b"", num_records=2)
    with pytest.raises(MalformedError, match="Expected no records"):
        read_all(file, bytes(builder.data))


# Lies


def lying_chunk(data: bytes, *, num_records: int, decoded_size: int) -> bytes:
    builder = RiegeliBuilder()
    builder.add_chunk("r", data, num_records=num_records, decoded_size=decoded_size)
    return bytes(builder.data)


@pytest.mark.parametrize(
    ("data", "num_records", "decoded_size"),
    [
        (b"", 1, 0),
        (b"\0", 1, 0),
        (b"\0\xff", 1, 0),
        (b"\0\x05\x01a", 1, 1),  # sizes longer than the data
        (b"\0\x01\x01a", 2, 1),  # fewer sizes than records
        (b"\0\x02\x01\x00a", 1, 1),  # more sizes than records
        (b"\0\x01\x02a", 1, 1),  # sizes sum to more
        (b"\0\x01\x01a", 1, 2),  # values shorter than the header says
        (b"\0\x01\x02ab", 1, 1),
        (b"\0\x01\x80a", 1, 1),  # a size cut off
        (b"\0\x0b" + b"\xff" * 10 + b"\x01a", 1, 1),  # a size wider than 64 bits
        (b"b\x02\x01\x06" + b"\x00", 1, 0),
        (b"z\x02\x01\x06" + b"\x00", 1, 0),
        (b"s\x02\x01\x06" + b"\x00", 1, 0),
    ],
)
def test_chunks_that_contradict_themselves_are_malformed(
    file: Path, data: bytes, num_records: int, decoded_size: int
) -> None:
    lie = lying_chunk(data, num_records=num_records, decoded_size=decoded_size)
    with pytest.raises(MalformedError):
        read_all(file, lie)


@pytest.mark.parametrize("compression", COMPRESSIONS[1:])
@pytest.mark.parametrize("stated", [0, 9, 11])
def test_a_buffer_of_another_size_than_stated_is_malformed(
    file: Path, compression: str, stated: int
) -> None:
    code = simple_chunk_data([b""], compression)[:1]
    sizes = compressed(varint(stated), compression)
    body = compressed(b"0123456789", compression)[1:]
    data = code + varint(len(sizes)) + sizes + varint(stated) + body
    with pytest.raises(MalformedError):
        read_all(file, lying_chunk(data, num_records=1, decoded_size=stated))


@pytest.mark.parametrize("compression", COMPRESSIONS[1:])
def test_a_bomb_is_refused_before_it_goes_off(file: Path, compression: str) -> None:
    data = simple_chunk_data([bytes(10_000_000)], compression)
    honest = lying_chunk(data, num_records=1, decoded_size=10_000_000)
    with (
        reader_of(file, honest, limits=Limits(decompressed_bytes=1_000_000)) as reader,
        pytest.raises(LimitError, match="decompressed_bytes"),
    ):
        reader.read(reader.last_position)
    code = data[:1]
    sizes = compressed(varint(5), compression)
    values = compressed(bytes(10_000_000), compression)[4:]
    liar = code + varint(len(sizes)) + sizes + varint(5) + values
    with pytest.raises(MalformedError):
        read_all(file, lying_chunk(liar, num_records=1, decoded_size=5))


def test_more_chunks_than_allowed_are_refused(file: Path) -> None:
    with (
        pytest.raises(LimitError, match="blocks"),
        reader_of(file, small_file(), limits=Limits(blocks=2)),
    ):
        pass


def test_more_records_than_the_bytes_allow_are_refused_before_they_are_decoded(file: Path) -> None:
    data = simple_chunk_data([b""] * 1000, "none")
    chunk = lying_chunk(data, num_records=1000, decoded_size=0)
    with (
        pytest.raises(LimitError, match="objects"),
        reader_of(file, chunk, limits=Limits(objects=900)),
    ):
        pass
    with reader_of(file, chunk, limits=Limits(objects=1000)) as reader:
        assert reader.read(reader.last_position) == b""


def test_huge_claims_are_refused_by_the_size_of_the_file(file: Path) -> None:
    builder = RiegeliBuilder()
    builder.add_chunk("r", b"\0", num_records=1, data_size=1 << 63)
    with pytest.raises(TruncatedError):
        read_all(file, bytes(builder.data))
    begin = len(RiegeliBuilder().data)
    head = struct.pack("<QQQQ", 0, highway_hash(b""), ord("r") | (1 << 55) << 8, 0)
    header = struct.pack("<Q", highway_hash(head)) + head
    with pytest.raises(TruncatedError):
        read_all(file, bytes(builder.data[:begin]) + header)


@pytest.mark.parametrize(
    ("compression", "module"), [("brotli", "brotli"), ("zstd", "zstandard"), ("snappy", "snappy")]
)
def test_a_missing_package_is_named_with_the_extra(
    file: Path, monkeypatch: pytest.MonkeyPatch, compression: str, module: str
) -> None:
    import importlib

    true_import = importlib.import_module

    def refuse(name: str, *rest: Any) -> Any:
        if name == module:
            raise ImportError(name)
        return true_import(name, *rest)

    monkeypatch.setattr(importlib, "import_module", refuse)
    with pytest.raises(UnsupportedError, match=r"ckptparse\[chunked\]"):
        read_all(file, small_file(compression))


def test_the_brotli_package_must_be_able_to_bound_its_output(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import brotli

    class Old:
        def is_finished(self) -> bool:
            return False

        def process(self, data: bytes) -> bytes:
            return data

    monkeypatch.setattr(brotli, "Decompressor", Old)
    with pytest.raises(UnsupportedError, match=r"brotli 1\.2 or newer"):
        read_all(file, small_file())


def test_errors_name_the_file_and_the_chunk(file: Path) -> None:
    data = bytearray(small_file("none"))
    data[64 + 40 + 8] ^= 1
    with pytest.raises(ChecksumError, match="chunk data") as caught:
        read_all(file, bytes(data))
    assert caught.value.path == str(file)
    assert caught.value.offset == 64
