"""Bundles that are written: byte for byte what TensorFlow wrote, and what the builder makes."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import builder as b
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rewriting import MemoryFiles, rewrite

import ckptparse
from ckptparse.bundle.content import content_of_array
from ckptparse.bundle.entry import BundleEntry, BundleHeader, Endianness
from ckptparse.bundle.strings import encode_strings, encode_variants
from ckptparse.bundle.writer import BundleWriter
from ckptparse.coding.checksum import mask_crc, unmask_crc
from ckptparse.slices import Extent, TensorSlice
from ckptparse.tensor_encoding import encode_variant
from ckptparse.tensor_proto import decode_variant

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures"
CRASHED = FIXTURES / "crash"
WHOLE = [
    path.with_suffix("").relative_to(FIXTURES)
    for path in sorted(FIXTURES.rglob("*.index"))
    if path.is_file() and CRASHED not in path.parents
]

pytestmark = pytest.mark.proto


@pytest.mark.parametrize("decode", [False, True], ids=["copied", "decoded"])
@pytest.mark.parametrize("prefix", WHOLE, ids=str)
def test_what_tensorflow_wrote_is_written_again_byte_for_byte(prefix: Path, decode: bool) -> None:
    made = rewrite(FIXTURES / prefix, decode=decode)
    assert len(made) > 1
    for path, data in made.items():
        assert data == Path(path).read_bytes(), path


def test_there_are_fixtures_of_every_sort() -> None:
    folders = {path.parts[0] for path in WHOLE}
    assert folders >= {"dtypes", "names", "objects", "saver", "shards", "slices", "table"}


def test_the_header_of_a_bundle_of_one_data_file_is_known() -> None:
    header = BundleHeader(1, Endianness.LITTLE, 1, 0)
    assert header.to_proto().SerializeToString() == bytes.fromhex("08011a020801")


def test_an_entry_leaves_zeros_out_but_not_an_empty_shape() -> None:
    entry = BundleEntry(1, (), 0, 0, 4, unmask_crc(0x35E53C59))
    assert entry.to_proto().SerializeToString() == bytes.fromhex("08011200 2804 35593ce535")


def test_an_entry_of_slices_has_no_bytes_and_no_checksum() -> None:
    slices = (
        TensorSlice((Extent(), Extent(0, 1))),
        TensorSlice((Extent(), Extent(1, 9))),
    )
    entry = BundleEntry(1, (5, 10), 0, 0, 0, 0, slices)
    wanted = (
        "08 01 12 08 12 02 08 05 12 02 08 0a 3a 06 0a 00 0a 02 10 01 3a 08 0a 00 0a 04 08 01 10 09"
    )
    assert entry.to_proto().SerializeToString() == bytes.fromhex(wanted)


@pytest.mark.parametrize(
    ("strings", "payload"),
    [
        ([b"hello"], "05 d9c69c43 68656c6c6f"),
        ([b""], "00 a67b113a"),
        ([], "d8ea82a2"),
    ],
)
def test_strings_are_lengths_their_checksum_and_bytes(strings: list[bytes], payload: str) -> None:
    made, crc = encode_strings(strings)
    assert (made.hex(), mask_crc(crc)) == (payload.replace(" ", ""), b.string_payload(strings)[1])


@given(st.lists(st.binary(max_size=300), max_size=20))
def test_random_strings_are_the_builders(strings: list[bytes]) -> None:
    payload, crc = encode_strings(strings)
    assert (payload, mask_crc(crc)) == b.string_payload(strings)


@given(st.lists(st.binary(max_size=300), max_size=8))
def test_random_variants_are_the_builders(messages: list[bytes]) -> None:
    payload, crc = encode_variants(messages)
    assert (payload, mask_crc(crc)) == b.variant_payload(messages)


def test_a_variant_of_tensors_is_encoded_in_typed_fields() -> None:
    message = b.variant_proto(
        "list",
        b"\x01",
        [
            b.tensor_proto(b.FLOAT, [2], b.field(5, bytes.fromhex("0000803f 0100a07f"))),
            b.tensor_proto(b.INT32, [], b.field(7, b.varint((1 << 64) - 1))),
            b.tensor_proto(b.HALF, [1], b.field(13, b.varint(0x7D01))),
            b.tensor_proto(b.STRING, [2], b.field(8, b"a"), b.field(8, b"")),
            b.tensor_proto(b.FLOAT8_E5M2, [1], b.field(18, b"\x3c")),
            b.tensor_proto(b.INT4, [1], b.field(7, b.varint((1 << 64) - 8))),
            b.tensor_proto(b.BOOL, [0]),
        ],
    )
    assert encode_variant(decode_variant(message)) == message


# Sources that are not little-endian and plain.


def test_a_big_endian_bundle_is_written_little_endian(tmp_path: Path) -> None:
    values: dict[str, Any] = {
        "c": np.array([1 + 2j, 3 - 4j], np.complex64),
        "d": np.arange(3, dtype=np.float64),
        "h": np.arange(700_000, dtype=np.uint16),
        "s": np.array([b"a", b"bc" * 100], object),
        "u": np.arange(5, dtype=np.uint8),
    }
    big, little = b.Bundle(big=True), b.Bundle()
    for name, array in values.items():
        big.add(name, array)
        little.add(name, array)
    prefix = big.write(tmp_path / "x")
    for decode in (False, True):
        made = rewrite(prefix, decode=decode)
        assert {Path(path).name: data for path, data in made.items()} == little.files("x")


def test_bytes_that_tensorflow_never_writes_are_written_as_it_would(tmp_path: Path) -> None:
    def make(flags: bytes, nibbles: bytes, widths: int) -> b.Bundle:
        bundle = b.Bundle()
        bundle.put_entry("b", flags, b.masked_crc(flags), dtype=b.BOOL, shape=[2])
        bundle.put_entry("i", nibbles, b.masked_crc(nibbles), dtype=b.INT4, shape=[2])
        bundle.add_strings("s", [b"x"], [1], widths=widths)
        return bundle

    odd, plain = make(b"\x02\x00", b"\xf8\x17", 3), make(b"\x01\x00", b"\x08\x07", 0)
    for decode in (False, True):
        made = rewrite(odd.write(tmp_path / "x"), decode=decode)
        assert {Path(path).name: data for path, data in made.items()} == plain.files("x")


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("name", ["f4", "c16", "u2", "?"])
def test_arrays_of_any_strides_and_order_are_stored_in_rows(name: str, order: str) -> None:
    kind = np.dtype(name)
    whole = (np.arange(2 * 3 * 700).reshape(2, 3, 700) % 2).astype(kind.newbyteorder(order))
    for part in (whole, whole.T, whole[:, ::-2], whole[..., 5], whole[1, 2, 3]):
        array = np.asarray(part)
        content = content_of_array(array, b.TYPE_NUMBERS[str(kind)])
        out = bytearray()
        crc = content.write_to(out.extend)
        plain = array.astype(array.dtype.newbyteorder("<")).tobytes()
        assert (bytes(out), crc, content.size) == (plain, b.crc(plain), len(plain))


# Mistakes of a caller.


def writer(num_shards: int = 1) -> BundleWriter:
    return BundleWriter(MemoryFiles(), "x", num_shards=num_shards)


ONE = np.float32([1, 2, 3, 4])


def test_a_name_is_written_once() -> None:
    made = writer()
    made.add("a", 1, (4,), content_of_array(ONE, 1))
    with pytest.raises(ValueError, match="already"):
        made.add("a", 1, (4,), content_of_array(ONE, 1))
    half = TensorSlice((Extent(0, 4),))
    with pytest.raises(ValueError, match="written as a whole already"):
        made.add_slice("a", 1, (8,), half, content_of_array(ONE, 1))
    made.add_slice("b", 1, (8,), half, content_of_array(ONE, 1))
    with pytest.raises(ValueError, match="Slices of 'b'"):
        made.add("b", 1, (4,), content_of_array(ONE, 1))
    with pytest.raises(ValueError, match="already"):
        made.add_slice("b", 1, (8,), half, content_of_array(ONE, 1))
    with pytest.raises(ValueError, match="same dtype and full shape"):
        made.add_slice("b", 1, (9,), half, content_of_array(ONE, 1))


def test_data_files_are_written_in_their_order() -> None:
    made = writer(2)
    made.add("a", 1, (4,), content_of_array(ONE, 1), shard=1)
    for shard in (0, 2, -1):
        with pytest.raises(ValueError, match="data file from 1 to 1"):
            made.add("b", 1, (4,), content_of_array(ONE, 1), shard=shard)


def test_the_empty_name_is_the_headers() -> None:
    with pytest.raises(ckptparse.UnsupportedError, match="name is empty"):
        writer().add("", 1, (4,), content_of_array(ONE, 1))


def test_a_slice_outside_its_tensor_is_refused() -> None:
    with pytest.raises(ckptparse.DataLossError, match="out of bounds"):
        writer().add_slice("a", 1, (3,), TensorSlice((Extent(0, 4),)), content_of_array(ONE, 1))


# Files, one after another.


class Noted(io.BytesIO):
    """A file in memory that says when it is opened and closed."""

    def __init__(self, files: NotedFiles, path: str) -> None:
        super().__init__()
        self.files, self.path = files, path
        files.log.append(f"open {path}")
        files.opened.append(self)  # What nobody has any more is closed by Python.

    def close(self) -> None:
        if not self.closed:
            self.files.log.append(f"close {self.path}")
            self.files.contents[self.path] = self.getvalue()
        super().close()


@dataclass
class NotedFiles:
    log: list[str] = field(default_factory=list)
    contents: dict[str, bytes] = field(default_factory=dict)
    opened: list[Noted] = field(default_factory=list)

    def open(self, path: str) -> Noted:
        return Noted(self, path)


def test_each_file_is_closed_before_the_next_is_opened_and_the_index_is_the_last() -> None:
    files = NotedFiles()
    made = BundleWriter(files, "x", num_shards=3)
    made.add("a", 1, (4,), content_of_array(ONE, 1))
    made.add("b", 1, (4,), content_of_array(ONE, 1), shard=1)
    made.finish()
    names = [f"x.data-{n:05}-of-00003" for n in range(3)] + ["x.index"]
    assert files.log == [f"{verb} {name}" for name in names for verb in ("open", "close")]
    made.close()
    assert len(files.log) == 8
    with pytest.raises(ValueError, match="The writer is finished"):
        made.add("c", 1, (4,), content_of_array(ONE, 1), shard=2)


def test_a_writer_of_one_data_file_closes_it_also_if_it_is_not_finished() -> None:
    files = NotedFiles()
    made = BundleWriter(files, "x")
    made.close()
    assert not files.log
    made.add("a", 1, (4,), content_of_array(ONE, 1))
    made.close()
    made.close()
    name = "x.data-00000-of-00001"
    assert files.log == [f"open {name}", f"close {name}"]
    assert files.contents == {name: ONE.tobytes()}


def test_slices_are_written_as_the_builder_writes_them() -> None:
    files = NotedFiles()
    made = BundleWriter(files, "x", num_shards=2)
    array = np.arange(12, dtype=np.float32).reshape(4, 3)
    built = b.Bundle()
    built.add("a", array)
    built.add_sliced("w", array, b.split_rows(4, 2, 2), shards=[0, 1])
    # A slice that is all of its tensor is that tensor.
    whole = TensorSlice((Extent(0, 4), Extent()))
    made.add_slice("a", 1, (4, 3), whole, content_of_array(array, 1))
    for shard, start in enumerate((0, 2)):
        half = TensorSlice((Extent(start, 2), Extent()))
        content = content_of_array(array[start : start + 2], 1)
        made.add_slice("w", 1, (4, 3), half, content, shard=shard)
    made.finish()
    assert files.contents == built.files("x")


def test_a_name_that_no_index_can_have_is_refused() -> None:
    key = b.slice_key("w", [(0, 1), None]).decode("utf-8", "surrogateescape")
    for name, words in (("\ud800", "cannot be encoded"), (key, "the key of a slice")):
        made = writer()
        with pytest.raises(ckptparse.UnsupportedError, match=words) as caught:
            made.add(name, 1, (4,), content_of_array(ONE, 1))
        assert caught.value.tensor == name
        half = TensorSlice((Extent(0, 4),))
        with pytest.raises(ckptparse.UnsupportedError, match=words):
            made.add_slice(name, 1, (8,), half, content_of_array(ONE, 1))


def test_a_string_that_cannot_be_encoded_is_refused() -> None:
    with pytest.raises(ckptparse.UnsupportedError, match="cannot be encoded"):
        content_of_array(np.array(["a", "\ud800"], object), 7)
