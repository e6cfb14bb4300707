"""Files made of others: ranges put together, conversions of whole files undone."""

from __future__ import annotations

import base64
import binascii
import gzip
import io
import zipfile
from collections.abc import Callable

import numpy as np
import pytest

from ckptparse.errors import ChecksumError, LimitError, TruncatedError
from ckptparse.examination.encodings import (
    _CONVERTERS,
    Conversion,
    Undone,
    find_conversions,
    undo,
)
from ckptparse.files.memory import MemorySource
from ckptparse.files.views import ConvertedSource, JoinedSource, Range

RAW = np.random.default_rng(0).bytes(3_000_001)


def cp1252(raw: bytes) -> bytes:
    """Convert as programs do that leave the five open bytes alone."""
    letters = [bytes([n]).decode("cp1252", "ignore") or chr(n) for n in range(256)]
    return "".join(letters[byte] for byte in raw).encode()


def quoted(raw: bytes) -> bytes:
    """Quoted-printable, as programs send what is no text."""
    return binascii.b2a_qp(raw, istext=False)


def hex_digits(raw: bytes) -> bytes:
    return b"".join(raw[at : at + 30].hex().encode() + b"\n" for at in range(0, len(raw), 30))


def xxd(raw: bytes) -> bytes:
    def row(at: int) -> str:
        part = raw[at : at + 16]
        return f"{at:08x}: {part.hex(' ', -2):<39}  {letters(part)}\n"

    return "".join(map(row, range(0, len(raw), 16))).encode()


def hexdump(raw: bytes) -> bytes:
    """`hexdump -C`: rows that repeat become one `*`."""

    def row(part: bytes) -> str:
        return f"  {part[:8].hex(' '):<23}  {part[8:].hex(' '):<23}  |{letters(part)}|\n"

    return dump(raw, "{:08x}", row)


def od(raw: bytes) -> bytes:
    """`od -A x -t x1z`."""
    return dump(raw, "{:06x}", lambda part: f" {part.hex(' '):<47}  >{letters(part)}<\n")


def dump(raw: bytes, offset: str, row: Callable[[bytes], str]) -> bytes:
    lines, before, is_repeated = [], b"", False
    for at in range(0, len(raw), 16):
        part = raw[at : at + 16]
        if part != before:
            lines.append(offset.format(at) + row(part))
        elif not is_repeated:
            lines.append("*\n")
        is_repeated = part == before
        before = part
    return ("".join(lines) + offset.format(len(raw)) + "\n").encode()


def zipped(raw: bytes, method: int = zipfile.ZIP_DEFLATED, *, before: int = 0) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method, compresslevel=1) as archive:
        for number in range(before):
            archive.writestr(f"{number}/", b"")
        archive.writestr("model.data", raw)
        archive.writestr("__MACOSX/._model.data", b"attributes")
    return out.getvalue()


def letters(part: bytes) -> str:
    return "".join(chr(byte) if 32 <= byte < 127 else "." for byte in part)


CONVERTED: dict[Conversion, Callable[[bytes], bytes]] = {
    Conversion.UTF8_LATIN1: lambda raw: raw.decode("latin-1").encode(),
    Conversion.UTF8_CP1252: cp1252,
    Conversion.UTF16_LE: lambda raw: b"\xff\xfe" + raw.decode("latin-1").encode("utf-16-le"),
    Conversion.UTF16_BE: lambda raw: raw.decode("latin-1").encode("utf-16-be"),
    Conversion.UTF16_CP1252: lambda raw: cp1252(raw).decode().encode("utf-16-le"),
    Conversion.BASE64: base64.encodebytes,
    Conversion.GZIP: lambda raw: gzip.compress(raw[:7], 1) + gzip.compress(raw[7:], 1),
    Conversion.ZIP: zipped,
    Conversion.HEX: hex_digits,
    Conversion.DUMP: xxd,
    Conversion.QUOTED: quoted,
    Conversion.CRLF: lambda raw: raw.replace(b"\n", b"\r\n"),
}
BY_LINE = (Conversion.DUMP, Conversion.QUOTED)
PACKED = (Conversion.GZIP, Conversion.ZIP)
KNOWN_BY_RULES = [one for one in Conversion if one not in (*PACKED, Conversion.CRLF)]
PRINTED: dict[str, tuple[tuple[Conversion, ...], Callable[[bytes], bytes]]] = {
    "hexdump -C": ((Conversion.DUMP,), hexdump),
    "od": ((Conversion.DUMP,), od),
    "od, CR LF": ((Conversion.DUMP,), lambda raw: od(raw).replace(b"\n", b"\r\n")),
    "xxd of base64": (
        (Conversion.DUMP, Conversion.BASE64),
        lambda raw: xxd(base64.encodebytes(raw)),
    ),
    "base64 of base64": (
        (Conversion.BASE64, Conversion.BASE64),
        lambda raw: base64.encodebytes(base64.encodebytes(raw)),
    ),
    "base64 of gzip": (
        (Conversion.BASE64, Conversion.GZIP),
        lambda raw: base64.encodebytes(gzip.compress(raw, 1)),
    ),
    "zip, stored": ((Conversion.ZIP,), lambda raw: zipped(raw, zipfile.ZIP_STORED)),
    "zip, in directories": ((Conversion.ZIP,), lambda raw: zipped(raw, before=3)),
    "zip, stored in directories": (
        (Conversion.ZIP,),
        lambda raw: zipped(raw, zipfile.ZIP_STORED, before=3),
    ),
    "base64 of zip": (
        (Conversion.BASE64, Conversion.ZIP),
        lambda raw: base64.encodebytes(zipped(raw)),
    ),
    "gzip of base64 of gzip": (
        (Conversion.GZIP, Conversion.BASE64, Conversion.GZIP),
        lambda raw: gzip.compress(base64.encodebytes(gzip.compress(raw, 1)), 1),
    ),
    "base64 in UTF-16": (
        (Conversion.UTF16_LE, Conversion.BASE64),
        lambda raw: base64.encodebytes(raw).decode().encode("utf-16"),
    ),
    "UTF-8 of UTF-8": (
        (Conversion.UTF8_LATIN1, Conversion.UTF8_LATIN1),
        lambda raw: raw.decode("latin-1").encode().decode("latin-1").encode(),
    ),
    "cp1252 twice": (
        (Conversion.UTF8_CP1252, Conversion.UTF8_CP1252),
        lambda raw: cp1252(cp1252(raw)),
    ),
    "CR LF twice": (
        (Conversion.CRLF, Conversion.CRLF),
        lambda raw: raw.replace(b"\n", b"\r\n").replace(b"\n", b"\r\n"),
    ),
    "CR LF in quoted-printable": (
        (Conversion.CRLF, Conversion.QUOTED),
        lambda raw: quoted(raw).replace(b"\n", b"\r\n"),
    ),
}


@pytest.mark.parametrize("conversion", Conversion)
def test_a_conversion_is_found_and_undone(conversion: Conversion) -> None:
    source = MemorySource("x", CONVERTED[conversion](RAW))
    if conversion != Conversion.CRLF:  # That alone is known by other signs.
        assert (conversion,) in find_conversions(source)
    undone = undo(source, conversion)
    assert undone is not None and undone.size == len(RAW)
    assert undone.read_at(0, undone.size) == RAW
    for start, stop in ((0, 0), (17, 18), (1_000_000, 2_999_999), (len(RAW) - 1, len(RAW))):
        assert undone.read_at(start, stop - start) == RAW[start:stop]
    buffer = bytearray(1000)
    undone.read_into(5, memoryview(buffer))
    assert bytes(buffer) == RAW[5:1005] and undone.map() is None
    with pytest.raises(TruncatedError):
        undone.read_at(len(RAW), 1)
    undone.close()


@pytest.mark.parametrize("how", PRINTED)
def test_conversions_are_undone_one_after_another(how: str) -> None:
    steps, convert = PRINTED[how]
    raw = RAW[:200_000] + bytes(100_000) + RAW[300_000:]
    text = convert(raw)
    source = MemorySource("x", text)
    assert steps in find_conversions(source)
    undone = Undone(steps)(source)
    assert undone.size == len(raw) and undone.read_at(0, undone.size) == raw
    for start, stop in ((150_000, 250_000), (299_990, 310_000), (len(raw) - 1, len(raw))):
        assert undone.read_at(start, stop - start) == raw[start:stop]


def test_rows_that_a_dump_leaves_out_are_as_many_as_their_offsets_say() -> None:
    raw = RAW[:32] + bytes(40 << 20) + RAW[:5]
    text = hexdump(RAW[:32] + bytes(160) + RAW[:5]).replace(b"000000c0", b"%08x" % (len(raw) - 5))
    text = text.replace(b"000000c5", b"%08x" % len(raw))
    found = ConvertedSource(MemorySource("x", text), _CONVERTERS[Conversion.DUMP], most=1 << 30)
    assert found.size == len(raw) and found.read_at(0, len(raw)) == raw
    assert undo(MemorySource("x", text), Conversion.DUMP) is None, "it grows 64 times at most"


def test_of_a_dump_whose_rows_are_missing_those_before_are_there() -> None:
    lines = xxd(RAW[:32_000]).splitlines(keepends=True)
    undone = undo(MemorySource("x", b"".join(lines[:1500] + lines[1501:])), Conversion.DUMP)
    assert undone is not None and undone.read_at(0, undone.size) == RAW[:24_000]


def test_ways_of_undoing_are_few_and_short() -> None:
    data = RAW
    for _ in range(6):
        data = base64.encodebytes(data[:100_000])
    found = find_conversions(MemorySource("x", data))
    assert found == [(Conversion.BASE64,), (Conversion.BASE64,) * 3]
    assert len(find_conversions(MemorySource("x", b"0000 AAAA\r\n" * 9000))) <= 6


def test_weights_as_they_are_have_not_been_converted() -> None:
    assert find_conversions(MemorySource("x", RAW)) == []
    assert find_conversions(MemorySource("x", b"")) == []
    assert all(undo(MemorySource("x", RAW), conversion) is None for conversion in Conversion)


def test_a_thousand_random_files_have_not_been_converted() -> None:
    rng = np.random.default_rng(1)
    for _ in range(1000):
        assert find_conversions(MemorySource("x", rng.bytes(int(rng.integers(24, 400))))) == []


@pytest.mark.parametrize("lines", [b"", b"-----BEGIN X-----\n", b"begin-base64 644 model\n"])
def test_base64_in_lines_of_any_length_is_undone(lines: bytes) -> None:
    letters = base64.b64encode(RAW)
    text = lines + b"\r\n".join(letters[n : n + 61] for n in range(0, len(letters), 61))
    undone = undo(MemorySource("x", text), Conversion.BASE64)
    assert undone is not None and undone.read_at(0, undone.size) == RAW


@pytest.mark.parametrize("conversion", PACKED)
def test_of_compressed_data_that_was_cut_what_comes_before_the_cut_is_there(
    conversion: Conversion,
) -> None:
    data = CONVERTED[conversion](RAW)
    undone = undo(MemorySource("x", data[: len(data) // 2]), conversion)
    assert undone is not None and undone.size > len(RAW) // 3
    assert undone.read_at(0, undone.size) == RAW[: undone.size]


@pytest.mark.parametrize("conversion", [one for one in Conversion if one not in PACKED])
def test_of_text_that_was_cut_anywhere_what_comes_before_the_cut_is_there(
    conversion: Conversion,
) -> None:
    text = CONVERTED[conversion](RAW)
    for size in (len(text) // 2 + n for n in range(5)):
        undone = undo(MemorySource("x", text[:size]), conversion)
        assert undone is not None and undone.size > len(RAW) // 3
        assert undone.read_at(0, undone.size) == RAW[: undone.size]
        whole = len(CONVERTED[conversion](RAW[: undone.size + 3]))
        assert whole >= size, "a character that is there was left out"


@pytest.mark.parametrize("wrong", [b"\xff\xfe", b"\xe2\x9f\xbf", b"\xd8\x00\x00"])
@pytest.mark.parametrize("conversion", KNOWN_BY_RULES)
def test_of_damaged_text_what_comes_before_the_damage_is_there(
    conversion: Conversion, wrong: bytes
) -> None:
    text = bytearray(CONVERTED[conversion](RAW))
    at = len(text) // 2 + 1
    text[at : at + len(wrong)] = wrong
    undone = undo(MemorySource("x", text), conversion)
    assert undone is not None and undone.size > len(RAW) // 3
    known = len(CONVERTED[conversion](RAW[:1_000_000]))
    assert at > known and undone.read_at(0, 1_000_000) == RAW[:1_000_000]


@pytest.mark.parametrize(
    "data",
    [
        zipped(RAW[:99], before=64),
        zipped(RAW[:99], zipfile.ZIP_BZIP2),
        zipped(b"", zipfile.ZIP_STORED),
        zipped(RAW[:99])[:40],
        b"PK\x03\x04" * 50,
    ],
    ids=["many directories", "bzip2", "empty", "cut", "no zip"],
)
def test_a_zip_whose_first_file_is_not_known_is_no_conversion(data: bytes) -> None:
    assert undo(MemorySource("x", data), Conversion.ZIP) is None


def test_what_would_grow_without_end_is_refused() -> None:
    data = gzip.compress(bytes(50 << 20))
    assert undo(MemorySource("x", data), Conversion.GZIP) is None
    with pytest.raises(LimitError, match="conversion was undone"):
        ConvertedSource(MemorySource("x", data), _CONVERTERS[Conversion.GZIP], most=1 << 20)


@pytest.mark.parametrize("changed", [b"\xff=\r\n", b"AAAA"], ids=["nonsense", "other lengths"])
@pytest.mark.parametrize("conversion", CONVERTED)
def test_a_file_that_changes_while_it_is_open_is_an_error(
    conversion: Conversion, changed: bytes
) -> None:
    source = Changing(CONVERTED[conversion](RAW))
    undone = undo(source, conversion)
    assert undone is not None
    source.data = (changed * len(source.data))[: len(source.data)]
    with pytest.raises(ChecksumError, match="has changed since it was opened"):
        undone.read_at(0, undone.size)


class Changing(MemorySource):
    """Bytes that may be exchanged for others."""

    def __init__(self, data: bytes) -> None:
        super().__init__("x", data)
        self.data = data

    def read_at(self, offset: int, size: int) -> bytes:
        return self.data[offset : offset + size]


# ---------------------------------------------------------------------------------------- ranges


def test_ranges_read_as_one_file() -> None:
    first, second = MemorySource("a", b"0123456789"), MemorySource("b", b"abcdef")
    joined = JoinedSource("c", [Range(second, 2, 3), Range(None, 0, 2), Range(first, 0, 10)])
    whole = b"cde\0\0" + b"0123456789"
    assert joined.size == len(whole) and joined.missing() == [(3, 5)]
    for start in range(len(whole) + 1):
        for stop in range(start, len(whole) + 1):
            assert joined.read_at(start, stop - start) == whole[start:stop]
    with pytest.raises(TruncatedError):
        joined.read_at(10, 6)
    assert joined.map() is None
    joined.close()


def test_no_ranges_are_an_empty_file() -> None:
    joined = JoinedSource("c", [])
    assert joined.size == 0 and joined.read_at(0, 0) == b""


def test_letters_that_are_no_base64_take_no_time_to_tell() -> None:
    """Forty letters and a byte that is none once took for ever."""
    for data in (b"a" * 60_000 + b"!", b"\n" * 60_000 + b"!", b"ab\r\n" * 15_000 + b"\0"):
        assert find_conversions(MemorySource("x", data)) == []
    assert find_conversions(MemorySource("x", b"YWJj\nZGVm\n")) == [(Conversion.BASE64,)]
