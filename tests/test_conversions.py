"""Files made of others: ranges put together, conversions of whole files undone."""

from __future__ import annotations

import base64
import gzip
from collections.abc import Callable

import numpy as np
import pytest

from ckptparse.errors import ChecksumError, LimitError, TruncatedError
from ckptparse.examination.encodings import _CONVERTERS, Conversion, find_conversions, undo
from ckptparse.files.memory import MemorySource
from ckptparse.files.views import ConvertedSource, JoinedSource, Range

RAW = np.random.default_rng(0).bytes(3_000_001)


def cp1252(raw: bytes) -> bytes:
    """Convert as programs do that leave the five open bytes alone."""
    letters = [bytes([n]).decode("cp1252", "ignore") or chr(n) for n in range(256)]
    return "".join(letters[byte] for byte in raw).encode()


CONVERTED: dict[Conversion, Callable[[bytes], bytes]] = {
    Conversion.UTF8_LATIN1: lambda raw: raw.decode("latin-1").encode(),
    Conversion.UTF8_CP1252: cp1252,
    Conversion.UTF16_LE: lambda raw: b"\xff\xfe" + raw.decode("latin-1").encode("utf-16-le"),
    Conversion.UTF16_BE: lambda raw: raw.decode("latin-1").encode("utf-16-be"),
    Conversion.UTF16_CP1252: lambda raw: cp1252(raw).decode().encode("utf-16-le"),
    Conversion.BASE64: base64.encodebytes,
    Conversion.GZIP: lambda raw: gzip.compress(raw[:7], 1) + gzip.compress(raw[7:], 1),
}


@pytest.mark.parametrize("conversion", Conversion)
def test_a_conversion_is_found_and_undone(conversion: Conversion) -> None:
    source = MemorySource("x", CONVERTED[conversion](RAW))
    assert conversion in find_conversions(source)
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


def test_of_compressed_data_that_was_cut_what_comes_before_the_cut_is_there() -> None:
    data = gzip.compress(RAW, 1)
    undone = undo(MemorySource("x", data[: len(data) // 2]), Conversion.GZIP)
    assert undone is not None and undone.size > len(RAW) // 3
    assert undone.read_at(0, undone.size) == RAW[: undone.size]


@pytest.mark.parametrize("conversion", [one for one in Conversion if one != Conversion.GZIP])
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
@pytest.mark.parametrize("conversion", [one for one in Conversion if one != Conversion.GZIP])
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
    assert find_conversions(MemorySource("x", b"YWJj\nZGVm\n")) == [Conversion.BASE64]
