"""Damaged and odd V2 checkpoints: an array where it is right, else the error that says why.

Each row is one of docs/format.md, section 9.1, which records what TensorFlow does with it: several
rows end its process, and some give it wrong data.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import builder as b
import numpy as np
import pytest
from instruments import MEGABYTE, allocating_at_most

import ckptparse
from ckptparse import (
    CheckpointError,
    ChecksumError,
    LimitError,
    MalformedError,
    MissingShardError,
    NotACheckpointError,
    TruncatedError,
    UnsupportedError,
)

pytestmark = pytest.mark.proto

A = np.array([[1, 2, 3], [4, 5, 6]], np.float32)
STRINGS = np.array([b"hello", b"", b"\x00\xff", b"x" * 200], object)

Change = Callable[[b.Bundle], Any]
Outcome = Any


def make() -> b.Bundle:
    """A float matrix `a`, strings `s` and an empty tensor `e`."""
    bundle = b.Bundle()
    bundle.add("a", A)
    bundle.add("s", STRINGS)
    bundle.add("e", np.zeros((0, 3), np.float32))
    return bundle


def assert_whole(got: dict[str, np.ndarray]) -> None:
    assert sorted(got) == ["a", "e", "s"]
    assert np.array_equal(got["a"], A) and got["a"].dtype == np.float32
    assert got["s"].tolist() == STRINGS.tolist()
    assert got["e"].shape == (0, 3)


def test_the_bundle_that_the_rows_change_is_whole(tmp_path: Path) -> None:
    assert_whole(ckptparse.read(make().write(tmp_path / "x")))


# ---- rows that change entries or the header


def header(**fields: Any) -> Change:
    return lambda bundle: setattr(bundle, "header", b.Header(**fields))


def version(*numbers: Any) -> Change:
    return header(version=b.version_proto(*numbers))


def change(name: str, **fields: Any) -> Change:
    return lambda bundle: bundle.change(name, **fields)


def put(name: str, value: Any) -> Change:
    return lambda bundle: bundle.entries.__setitem__(name.encode(), value)


def both(*changes: Change) -> Change:
    return lambda bundle: [one(bundle) for one in changes]


def strings(values: list[bytes], shape: tuple[int, ...], **control: Any) -> Change:
    return lambda bundle: bundle.add_strings("s", values, shape, **control)


BROKEN: dict[str, tuple[Change, Outcome]] = {
    # The header.
    "header missing": (lambda bundle: setattr(bundle, "header", None), MalformedError),
    "header unparsable": (lambda bundle: setattr(bundle, "header", b"\xff"), MalformedError),
    "header cut": (lambda bundle: setattr(bundle, "header", b"\x08"), MalformedError),
    "header empty": (lambda bundle: setattr(bundle, "header", b""), MalformedError),
    "min_consumer 2": (version(1, 2), UnsupportedError),
    "producer -1": (version(-1, 0), MalformedError),
    "bad consumer 1": (version(1, 0, [1]), UnsupportedError),
    "bad consumers among others": (version(1, 0, [7, 1, 9]), UnsupportedError),
    "no shards": (header(num_shards=0), MalformedError),
    "minus one shards": (header(num_shards=-1), MalformedError),
    "three shards of which two are not there": (
        both(header(num_shards=3), change("a", shard=2)), MissingShardError,
    ),
    "shards beyond the limit": (header(num_shards=2**31 - 1), LimitError),
    "endianness 5": (header(endianness=5), MalformedError),
    "endianness -1": (header(endianness=-1), MalformedError),
    # Checksums.
    "checksum absent": (change("a", crc=None), ChecksumError),
    "checksum wrong": (change("a", crc=12345), ChecksumError),
    "checksum not masked": (change("a", crc=b.crc(A.tobytes())), ChecksumError),
    "checksum of an empty tensor absent": (change("e", crc=None), ChecksumError),
    "checksum of an empty tensor wrong": (change("e", crc=1), ChecksumError),
    "checksum of strings absent": (change("s", crc=None), ChecksumError),
    "checksum of strings wrong": (change("s", crc=1), ChecksumError),
    "checksum of the lengths wrong": (strings([b"ab"], (1,), lengths_crc=1), ChecksumError),
    # Sizes and offsets.
    "size too small": (change("a", size=20), MalformedError),
    "size too large": (change("a", size=28), MalformedError),
    "size zero": (change("a", size=0), MalformedError),
    "size negative": (change("a", size=-24), MalformedError),
    "offset negative": (change("a", offset=-1), MalformedError),
    "offset -2**63": (change("a", offset=-(2**63)), MalformedError),
    "offset beyond the file": (change("a", offset=1 << 20), TruncatedError),
    "offset 2**63 - 1": (change("a", offset=2**63 - 1), TruncatedError),
    "end beyond the file": (change("a", offset=len(make().shards[0]) - 23), TruncatedError),
    "shard beyond the last": (change("a", shard=1), MalformedError),
    "shard -1": (change("a", shard=-1), MalformedError),
    "shard 2**31 - 1": (change("a", shard=2**31 - 1), MalformedError),
    # Types.
    "type 0": (change("a", dtype=0), MalformedError),
    "type 999": (change("a", dtype=999), (MalformedError, UnsupportedError)),
    "type 34": (change("a", dtype=34), (MalformedError, UnsupportedError)),
    "type -1": (change("a", dtype=-1), (MalformedError, UnsupportedError)),
    "type 2**31 - 1": (change("a", dtype=2**31 - 1), (MalformedError, UnsupportedError)),
    "reference to float": (change("a", dtype=101), MalformedError),
    "reference to the last type": (change("a", dtype=133), MalformedError),
    "resource": (change("a", dtype=b.RESOURCE), MalformedError),
    "resource of the size that TensorFlow expects": (
        change("a", dtype=b.RESOURCE, shape=(), size=200), MalformedError,
    ),
    "variant without bytes": (
        change("a", dtype=b.VARIANT, shape=(), size=0, crc=b.mask(0)), MalformedError,
    ),
    "float bytes as a variant": (change("a", dtype=b.VARIANT), (MalformedError, ChecksumError)),
    "float bytes as strings": (change("a", dtype=b.STRING), (MalformedError, ChecksumError)),
    # Shapes.
    "dimension negative": (change("a", shape=(-1,), size=4), MalformedError),
    "two dimensions negative": (change("a", shape=(-2, -3)), MalformedError),
    "dimension -2**63": (change("a", shape=(-(2**63), 0), size=0), MalformedError),
    "product beyond 2**63": (change("a", shape=(2**62, 2)), MalformedError),
    "product that wraps 64 bits to the size": (
        change("a", shape=(2**32, 2**32, 6)), MalformedError,
    ),
    "product beyond 2**63 and a zero": (change("a", shape=(2**62, 2, 0), size=0), MalformedError),
    "2**40 floats and a size to match": (change("a", shape=(2**40,), size=2**42), TruncatedError),
    "2**60 bytes and a size to match": (
        change("a", dtype=b.INT8, shape=(2**60,), size=2**60), TruncatedError,
    ),
    "255 dimensions": (change("a", shape=(1,) * 255, size=4), (LimitError, MalformedError)),
    "254 dimensions": (change("a", shape=(1,) * 254, size=4), UnsupportedError),
    "65 dimensions": (change("a", shape=(1,) * 65, size=4), UnsupportedError),
    # Strings.
    "strings: size too small": (change("s", size=210), (MalformedError, ChecksumError)),
    "strings: size less than the lengths": (change("s", size=6), (MalformedError, ChecksumError)),
    "strings: size less than their number": (change("s", size=3), MalformedError),
    "strings: size zero": (change("s", size=0), MalformedError),
    "strings: size negative": (change("s", size=-1), MalformedError),
    "strings: size past the end of the file": (change("s", size=10_000), TruncatedError),
    "strings: one byte too many": (
        lambda bundle: (bundle.put(b"\0"), bundle.change("s", size=217)),
        (MalformedError, ChecksumError),
    ),
    "strings: length 2**40, rightly sealed": (
        strings([b"ab"], (1,), lengths=[2**40]), MalformedError,
    ),
    "strings: length 2**64 - 1, rightly sealed": (
        strings([b"ab"], (1,), lengths=[2**64 - 1]), MalformedError,
    ),
    "strings: lengths whose sum wraps 64 bits": (
        strings([b"ab"], (3,), lengths=[2**63, 2**63, 2]), MalformedError,
    ),
    "strings: lengths longer than the bytes": (
        strings([b"ab"], (1,), lengths=[3]), MalformedError,
    ),
    "strings: lengths shorter than the bytes": (
        strings([b"ab"], (1,), lengths=[1]), MalformedError,
    ),
    "strings: length of eleven bytes": (
        strings([b"ab"], (1,), widths=11), MalformedError,
    ),
    "strings: more of them than bytes": (change("s", shape=(2**33,)), (LimitError, MalformedError)),
    "strings: 2**33 and a size to match": (
        change("s", shape=(2**33,), size=2**33), (LimitError, TruncatedError),
    ),
    "strings: 2**62 and a size to match": (
        change("s", shape=(2**62,), size=2**62), (LimitError, TruncatedError),
    ),
    # Entries.
    "entry unparsable": (put("a", b"\xff\xff\xff"), MalformedError),
    "entry cut in a field": (put("a", b"\x08\x01\x12\x40\x12"), MalformedError),
    "entry of wire type 7": (put("a", b"\x0f"), MalformedError),
    "entry empty": (put("a", b""), MalformedError),
    "entry whose size has eleven bytes": (
        put("a", b"\x08\x01\x28" + b"\x80" * 10 + b"\x01"), MalformedError,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("make_broken", "error"), BROKEN.values(), ids=BROKEN)
def test_broken_bundle_gives_its_error(tmp_path: Path, make_broken: Change, error: Outcome) -> None:
    bundle = make()
    make_broken(bundle)
    prefix = bundle.write(tmp_path / "x")
    with allocating_at_most(4 * MEGABYTE), pytest.raises(CheckpointError) as caught:
        ckptparse.read(prefix)
    assert isinstance(caught.value, error), repr(caught.value)
    assert str(tmp_path) in (caught.value.path or ""), "an error says in which file"


TENSOR_ROWS = [
    name
    for name, (_, error) in BROKEN.items()
    if not name.startswith(("header", "min_", "prod", "bad", "no sh", "minus", "three", "end"))
]


@pytest.mark.parametrize("row", TENSOR_ROWS)
def test_error_of_one_tensor_names_it(tmp_path: Path, row: str) -> None:
    bundle = make()
    BROKEN[row][0](bundle)
    with pytest.raises(CheckpointError) as caught:
        ckptparse.read(bundle.write(tmp_path / "x"))
    if not isinstance(caught.value, LimitError) or row != "shards beyond the limit":
        assert caught.value.tensor in {"a", "s", "e"}, repr(caught.value)


NAMED_DIMENSION = b.field(2, b.field(1, 2) + b.field(2, b"batch"))
FINE: dict[str, Change] = {
    "producer 99": version(99, 0),
    "producer 99 and min_consumer 1": version(99, 1),
    "other bad consumers": version(1, 0, [2, 3, 0]),
    "version absent": header(version=None),
    "version empty": header(version=b""),
    "unknown field in the header": header(extra=b.field(99, b"new")),
    "unknown field in an entry": change("a", extra=b.field(99, b"new")),
    "unknown fields of every wire type": change(
        "a", extra=b.field(99, 1) + b.field32(98, 1) + b.field64(97, 1)
    ),
    "unknown group in an entry": change("a", extra=b"\x9b\x06\x08\x01\x9c\x06"),
    "dimension with a name": change(
        "a", shape=None, extra=b.field(2, NAMED_DIMENSION + b.shape_proto((3,)))
    ),
    "field given twice, the last value counts": change("a", offset=77, extra=b.field(4, 0)),
    "shape given twice, the dimensions are joined": change(
        "a", shape=(2,), extra=b.field(2, b.shape_proto((3,)))
    ),
    "more data than is used": lambda bundle: bundle.put(b"junk" * 100),
}  # fmt: skip


@pytest.mark.parametrize("make_odd", FINE.values(), ids=FINE)
def test_odd_but_right_bundle_reads(tmp_path: Path, make_odd: Change) -> None:
    bundle = make()
    make_odd(bundle)
    assert_whole(ckptparse.read(bundle.write(tmp_path / "x")))


def test_explicit_zeros_and_wide_varints_in_an_entry_are_read(tmp_path: Path) -> None:
    bundle = make()
    fields = [
        b"\x08" + b.varint(b.FLOAT, width=3),
        b.field(2, b"".join(b.field(2, b"\x08" + b.varint(d, width=9)) for d in A.shape)),
        b"\x18" + b.varint(0, width=10),
        b"\x20" + b.varint(0, width=2),
        b"\x28" + b.varint(24, width=10),
        b.field32(6, b.masked_crc(A.tobytes())),
    ]
    for order in (fields, fields[::-1]):
        bundle.entries[b"a"] = b"".join(order)
        assert_whole(ckptparse.read(bundle.write(tmp_path / "x")))


@pytest.mark.parametrize("unknown_rank", [False, True], ids=["absent", "unknown rank"])
def test_shape_that_is_absent_or_of_unknown_rank_is_a_scalar(
    tmp_path: Path, unknown_rank: bool
) -> None:
    bundle = b.Bundle()
    bundle.add("x", np.float32(3), shape=() if unknown_rank else None, unknown_rank=unknown_rank)
    got = ckptparse.read(bundle.write(tmp_path / "x"))["x"]
    assert got.shape == () and got == 3


@pytest.mark.checklist(31)
def test_version_errors_are_three_different_ones(tmp_path: Path) -> None:
    messages = set()
    for numbers in [(1, 2), (-1, 0), (1, 0, [1])]:
        bundle = b.Bundle(header=b.Header(version=b.version_proto(*numbers)))
        bundle.add("a", A)
        with pytest.raises(CheckpointError) as caught:
            ckptparse.open(bundle.write(tmp_path / "x"))
        messages.add(caught.value.message)
    assert len(messages) == 3


# ---- rows that change the table


def as_table(data: bytes) -> Callable[[b.Bundle], bytes]:
    return lambda bundle: data


def flipped(place: str, number: int = 0) -> Callable[[b.Bundle], bytes]:
    def flip(bundle: b.Bundle) -> bytes:
        file = bundle.table()
        where = getattr(file, place)
        offset, _ = where[number] if place == "blocks" else where
        return file.flip(offset + 3)

    return flip


def rebuilt(contents: Callable[[list[b.Pair]], bytes]) -> Callable[[b.Bundle], bytes]:
    def rebuild(bundle: b.Bundle) -> bytes:
        return b.assemble([b.Stored(contents(bundle.pairs()), key=b"\xff")]).data

    return rebuild


def split_entries(pairs: list[b.Pair]) -> bytes:
    return b"".join(b.entry(key, value) for key, value in pairs)


NOT_A_TABLE = (MalformedError, NotACheckpointError)
TABLES: dict[str, tuple[Callable[[b.Bundle], bytes], Outcome]] = {
    "index empty": (as_table(b""), (TruncatedError, NotACheckpointError)),
    "index of 47 bytes": (
        lambda bundle: bundle.index()[-47:], (TruncatedError, NotACheckpointError),
    ),
    "index of zeros": (as_table(bytes(500)), NOT_A_TABLE),
    "byte appended": (lambda bundle: bundle.index() + b"\0", NOT_A_TABLE),
    "byte in front": (lambda bundle: b"\0" + bundle.index(), (ChecksumError, MalformedError)),
    "cut at the front": (
        lambda bundle: bundle.index()[1:], (ChecksumError, TruncatedError, MalformedError),
    ),
    "damage in the index block": (flipped("index"), ChecksumError),
    "damage in the data block": (flipped("blocks"), ChecksumError),
    "table without entries": (as_table(b.table([]).data), MalformedError),
    "data block without restarts": (
        as_table(b.assemble([b.Stored(b"\0\0\0\0", key=b"z")]).data), MalformedError,
    ),
    "restart behind the end": (
        rebuilt(lambda pairs: b.close_block(split_entries(pairs), (1 << 20,))), MalformedError,
    ),
    "first entry hidden by its restart": (
        rebuilt(lambda pairs: b.close_block(split_entries(pairs), (9,))), MalformedError,
    ),
    "keys unsorted": (rebuilt(lambda pairs: b.block([pairs[0], *pairs[:0:-1]])), MalformedError),
    "header last": (rebuilt(lambda pairs: b.block(pairs[::-1])), MalformedError),
    "key twice": (rebuilt(lambda pairs: b.block([*pairs, pairs[-1]])), MalformedError),
    "header twice": (rebuilt(lambda pairs: b.block([pairs[0], *pairs])), MalformedError),
    "stray byte": (rebuilt(lambda pairs: b.block(pairs, stray=b"\0")), MalformedError),
    "block of zstd": (
        lambda bundle: bundle.index(type=b.ZSTD), UnsupportedError,
    ),
    "lengths that wrap 32 bits": (
        rebuilt(lambda pairs: b.close_block(
            split_entries(pairs) + b.entry(b"z", non_shared=0xFFFFFFFF, value_length=3)
        )),
        MalformedError,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("make_index", "error"), TABLES.values(), ids=TABLES)
def test_broken_index_file_gives_its_error(
    tmp_path: Path, make_index: Callable[[b.Bundle], bytes], error: Outcome
) -> None:
    bundle = make()
    prefix = bundle.write(tmp_path / "x")
    (tmp_path / "x.index").write_bytes(make_index(bundle))
    with allocating_at_most(4 * MEGABYTE), pytest.raises(CheckpointError) as caught:
        ckptparse.read(prefix)
    assert isinstance(caught.value, error), repr(caught.value)
    assert str(tmp_path / "x.index") == caught.value.path


@pytest.mark.checklist(14)
def test_damage_in_the_metaindex_block_does_not_hinder_reading(tmp_path: Path) -> None:
    bundle = make()
    prefix = bundle.write(tmp_path / "x")
    (tmp_path / "x.index").write_bytes(flipped("metaindex")(bundle))
    assert_whole(ckptparse.read(prefix))


@pytest.mark.checklist(15)
def test_damage_in_a_later_index_block_never_shortens_the_listing(tmp_path: Path) -> None:
    bundle = b.Bundle()
    for n in range(300):
        bundle.add(f"t{n:03}", np.float32(n))
    prefix = bundle.write(tmp_path / "x", block_size=1024)
    (tmp_path / "x.index").write_bytes(
        bundle.table(block_size=1024).flip(bundle.table(block_size=1024).blocks[3][0])
    )
    for call in (ckptparse.read, ckptparse.list_variables, lambda p: len(ckptparse.open(p))):
        with pytest.raises(ChecksumError):
            call(prefix)


# ---- checklist 27 to 29: bytes of the data


@pytest.mark.checklist(27)
def test_every_flipped_byte_of_a_numeric_payload_is_a_checksum_error(tmp_path: Path) -> None:
    bundle = b.Bundle()
    bundle.add("a", A)
    prefix = bundle.write(tmp_path / "x")
    data = bytearray(bundle.shards[0])
    for position in range(len(data)):
        data[position] ^= 0xFF
        (tmp_path / "x.data-00000-of-00001").write_bytes(data)
        with pytest.raises(ChecksumError, match="Checksum does not match") as caught:
            ckptparse.read(prefix)
        assert caught.value.computed == b.crc(bytes(data))
        assert caught.value.stored == b.crc(A.tobytes())
        assert caught.value.tensor == "a" and caught.value.offset == 0 and caught.value.size == 24
        data[position] ^= 0xFF


@pytest.mark.checklist(28)
def test_every_flipped_byte_of_a_string_payload_is_a_checksum_error(tmp_path: Path) -> None:
    bundle = b.Bundle()
    bundle.add("s", np.array([b"hello", b"", b"world!"], object))
    prefix = bundle.write(tmp_path / "x")
    whole = bytes(bundle.shards[0])
    for position in range(len(whole)):
        for bits in (0xFF, 0x01, 0x80):
            data = bytearray(whole)
            data[position] ^= bits
            (tmp_path / "x.data-00000-of-00001").write_bytes(data)
            # A turned high bit of a length moves everything after it.
            error = ckptparse.DataLossError if position < 3 and bits & 0x80 else ChecksumError
            with pytest.raises(error, match="length" if position < 7 else None):
                ckptparse.read(prefix)


@pytest.mark.checklist(29)
@pytest.mark.parametrize("name", ["a", "s"])
def test_data_file_one_byte_short_is_truncated(tmp_path: Path, name: str) -> None:
    bundle = b.Bundle()
    bundle.add(name, A if name == "a" else STRINGS)
    prefix = bundle.write(tmp_path / "x")
    data = bytes(bundle.shards[0])
    (tmp_path / "x.data-00000-of-00001").write_bytes(data[:-1])
    with pytest.raises(TruncatedError) as caught:
        ckptparse.read(prefix)
    error = caught.value
    assert isinstance(error, EOFError) and error.tensor == name
    assert error.path == prefix + ".data-00000-of-00001"
    assert error.offset == 0 and error.size == len(data)


@pytest.mark.checklist(38)
def test_absent_checksum_is_compared_as_zero(tmp_path: Path) -> None:
    bundle = b.Bundle()
    bundle.add("a", A, crc=None)
    with pytest.raises(ChecksumError) as caught:
        ckptparse.read(bundle.write(tmp_path / "x"))
    assert caught.value.stored == 2324967102
    assert caught.value.computed == b.crc(A.tobytes())


def test_absent_checksum_is_right_for_bytes_that_hash_to_it(tmp_path: Path) -> None:
    # Four bytes can give any CRC: these give the one that an absent field stands for.
    wanted = 2324967102
    register = wanted ^ 0xFFFFFFFF
    table = [b.crc(bytes([n])) ^ b.crc(b"\0") for n in range(256)]
    tops = {value >> 24: n for n, value in enumerate(table)}
    picks = []
    for _ in range(4):
        pick = tops[register >> 24]
        picks.append(pick)
        register = ((register ^ table[pick]) << 8 | pick) & 0xFFFFFFFF
    state, data = 0xFFFFFFFF, bytearray()
    for pick in reversed(picks):
        data.append((state ^ pick) & 0xFF)
        state = state >> 8 ^ table[pick]
    assert b.crc(bytes(data)) == wanted
    bundle = b.Bundle()
    bundle.add("a", np.frombuffer(bytes(data), np.int8), crc=None)
    assert ckptparse.read(bundle.write(tmp_path / "x"))["a"].tobytes() == data


def test_bytes_whose_checksum_is_zero_are_checked_like_any(tmp_path: Path) -> None:
    bundle = b.Bundle()
    bundle.add("a", np.array([0x9D0A0B4C], np.uint32), crc=b.mask(0))
    with pytest.raises(ChecksumError):
        ckptparse.read(bundle.write(tmp_path / "x"))


# ---- what is intact stays readable


def test_one_damaged_tensor_leaves_the_others_readable(tmp_path: Path) -> None:
    bundle = make()
    bundle.change("a", crc=1)
    with ckptparse.open(bundle.write(tmp_path / "x")) as checkpoint:
        with pytest.raises(ChecksumError):
            checkpoint["a"].read()
        assert checkpoint["s"].read().tolist() == STRINGS.tolist()


def test_missing_shard_leaves_the_tensors_of_others_readable(tmp_path: Path) -> None:
    bundle = b.Bundle()
    bundle.add("a", A)
    bundle.add("b", A * 2, shard=1)
    prefix = bundle.write(tmp_path / "x")
    (tmp_path / "x.data-00001-of-00002").unlink()
    with ckptparse.open(prefix) as checkpoint:
        assert np.array_equal(checkpoint["a"].read(), A)
        assert checkpoint["b"].shape == (2, 3)
        with pytest.raises(MissingShardError, match="00001-of-00002") as caught:
            checkpoint["b"].read()
    assert isinstance(caught.value, FileNotFoundError)
    assert caught.value.path == prefix + ".data-00001-of-00002"
    assert caught.value.tensor == "b"


def test_shards_are_named_by_the_number_in_the_header(tmp_path: Path) -> None:
    bundle = make()
    bundle.header = b.Header(num_shards=3)
    prefix = bundle.write(tmp_path / "x")
    assert_whole(ckptparse.read(prefix))
    (tmp_path / "x.data-00000-of-00003").rename(tmp_path / "x.data-00000-of-00001")
    with pytest.raises(MissingShardError, match="00000-of-00003"):
        ckptparse.read(prefix)


def test_stale_index_over_new_data_of_equal_size_is_a_checksum_error(tmp_path: Path) -> None:
    # What a merge that was interrupted leaves: data renamed into place, the index not yet written.
    old, new = b.Bundle(), b.Bundle()
    for bundle, value in ((old, 1), (new, 2)):
        bundle.add("w", np.full(100, value, np.float32))
        bundle.add("s", np.array([b"%d" % value], object))
    prefix = old.write(tmp_path / "x")
    (tmp_path / "x.data-00000-of-00001").write_bytes(new.shards[0])
    for name in ("w", "s"):
        with pytest.raises(ChecksumError):
            ckptparse.read(prefix, [name])


def test_unchecked_reading_gives_damaged_numbers_as_they_are(tmp_path: Path) -> None:
    bundle = b.Bundle()
    bundle.add("a", A, crc=1)
    prefix = bundle.write(tmp_path / "x")
    assert np.array_equal(ckptparse.read(prefix, verify=False)["a"], A)
    with ckptparse.open(prefix, verify=False) as checkpoint:
        assert np.array_equal(checkpoint["a"][...], A)
        with pytest.raises(ChecksumError):
            checkpoint["a"].verify()


def test_shard_that_is_a_directory_or_a_fifo_is_an_error(tmp_path: Path) -> None:
    import os

    prefix = make().write(tmp_path / "x")
    shard = tmp_path / "x.data-00000-of-00001"
    shard.unlink()
    shard.mkdir()
    with pytest.raises(CheckpointError):
        ckptparse.read(prefix)
    shard.rmdir()
    os.mkfifo(shard)
    with pytest.raises(CheckpointError):
        ckptparse.read(prefix)
