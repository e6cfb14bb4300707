"""Conversions of whole files that can be undone: text encodings, base64, gzip.

    UTF-8      bytes taken for latin-1 or cp1252: every byte from 80 on became two or three
    UTF-16     every byte became two
    base64     three bytes became four letters, in lines
    gzip       compressed

What a decoder could not understand and replaced (U+FFFD, `?`) is lost: such files are no case of
these.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import re
import zlib
from dataclasses import dataclass
from enum import Enum
from typing import Any

from ckptparse.errors import LimitError
from ckptparse.files.storage import Source
from ckptparse.files.views import ConvertedSource, Converter

__all__ = ["Conversion", "find_conversions", "undo"]

_SAMPLE = 1 << 16
_LARGEST_PIECE = 1 << 22
_GROWTH = 64
_BASE64 = re.compile(rb"(?:[A-Za-z0-9+/]+\r?\n?)*[A-Za-z0-9+/]*={0,2}\s*")
_ARMOUR = re.compile(rb"-----[^\n]*\r?\n|begin-base64[^\n]*\n")


class Conversion(str, Enum):
    """What was done to a file."""

    UTF8_LATIN1 = "latin-1 to UTF-8"
    UTF8_CP1252 = "cp1252 to UTF-8"
    UTF16_LE = "latin-1 to UTF-16, little-endian"
    UTF16_BE = "latin-1 to UTF-16, big-endian"
    BASE64 = "base64"
    GZIP = "gzip"


def undo(source: Source, conversion: Conversion) -> ConvertedSource | None:
    """Return a file as it was before a conversion; None if it was not made by that.

    Of compressed data that is cut off or damaged, what comes before that is there. The file is
    looked through once. It is closed with what is returned, and left open otherwise.
    """
    try:
        converter, most = _CONVERTERS[conversion], _GROWTH * source.size
        return ConvertedSource(source, converter, most=most, partial=conversion is Conversion.GZIP)
    except (ValueError, LimitError):
        return None


def find_conversions(source: Source) -> list[Conversion]:
    """Return the conversions that may have been made, by the first 64 KiB."""
    sample = source.read_at(0, min(_SAMPLE, source.size))
    return [conversion for conversion in Conversion if _may_be(sample, conversion, source.size)]


def _may_be(sample: bytes, conversion: Conversion, size: int) -> bool:
    if not sample:
        return False
    if conversion is Conversion.BASE64 and not _BASE64.fullmatch(_without_armour(sample)):
        return False
    last = len(sample) == size
    converter = _CONVERTERS[conversion]
    try:
        data, taken, _ = converter.convert(sample, converter.start(), last=last)
    except ValueError:
        return False
    # A file that such a conversion leaves as it is has not been converted.
    return data != sample[:taken]


@dataclass(frozen=True, slots=True)
class _Text:
    """Bytes taken for one encoding and written in another."""

    written: str
    read: Any
    """None: latin-1."""
    width: int
    """Bytes of the widest character's last part that may be cut off."""
    mark: bytes
    """The byte order mark."""

    def start(self) -> bool:
        """Whether the next byte is the first."""
        return True

    def convert(self, data: bytes, state: bool, *, last: bool) -> tuple[bytes, int, bool]:  # noqa: FBT001 - as the protocol
        skipped = len(self.mark) if state and data.startswith(self.mark) else 0
        decoder = codecs.getincrementaldecoder(self.written)("strict")
        text = decoder.decode(data[skipped:], last)
        rest = len(decoder.getstate()[0])
        if self.read is None:
            found = text.encode("latin-1")
        else:
            found = codecs.charmap_encode(text, "strict", self.read)[0]
        return found, len(data) - rest, False


class _Base64:
    """Letters in lines of any length; padding at the end."""

    def start(self) -> bool:
        """Whether the next byte is the first."""
        return True

    def convert(self, data: bytes, state: bool, *, last: bool) -> tuple[bytes, int, bool]:  # noqa: FBT001 - as the protocol
        body = _without_armour(data) if state else data
        skipped = len(data) - len(body) if state else 0
        if last:
            body = body[: body.index(b"-")] if b"-" in body else body
        letters = body.translate(None, b"\r\n \t")
        spare = 0 if last else len(letters) % 4
        taken = len(data)
        if spare:
            # The letters of a group that is not whole are left for the next piece.
            taken = skipped + _end_of_letters(body, len(letters) - spare)
            letters = letters[: len(letters) - spare]
        try:
            return base64.b64decode(letters, validate=True), taken, False
        except binascii.Error as error:
            raise ValueError(str(error)) from error


def _without_armour(data: bytes) -> bytes:
    found = _ARMOUR.match(data)
    return data[found.end() :] if found else data


def _end_of_letters(data: bytes, count: int) -> int:
    """Return where the first `count` letters end; few bytes behind them are looked at."""
    position = len(data)
    surplus = len(data.translate(None, b"\r\n \t")) - count
    while surplus:
        position -= 1
        surplus -= data[position] not in b"\r\n \t"
    return position


class _Gzip:
    """One gzip member after another."""

    def start(self) -> Any:
        """Return a decompressor that has seen nothing."""
        return zlib.decompressobj(31)

    def convert(self, data: bytes, state: Any, *, last: bool) -> tuple[bytes, int, Any]:  # noqa: ARG002 - as the protocol
        decompressor = state.copy()
        try:
            if decompressor.eof:
                decompressor = zlib.decompressobj(31)
            found = decompressor.decompress(data, _LARGEST_PIECE)
        except zlib.error as error:
            raise ValueError(str(error)) from error
        left = decompressor.unconsumed_tail or decompressor.unused_data
        return found, len(data) - len(left), decompressor


def _cp1252_map() -> Any:
    """Return cp1252 as programs read it: the five bytes it leaves open are control characters."""
    letters = (bytes([n]).decode("cp1252", "ignore") or chr(n) for n in range(256))
    return codecs.charmap_build("".join(letters))


_CP1252 = _cp1252_map()
_CONVERTERS: dict[Conversion, Converter] = {
    Conversion.UTF8_LATIN1: _Text("utf-8", None, 3, b"\xef\xbb\xbf"),
    Conversion.UTF8_CP1252: _Text("utf-8", _CP1252, 3, b"\xef\xbb\xbf"),
    Conversion.UTF16_LE: _Text("utf-16-le", None, 1, b"\xff\xfe"),
    Conversion.UTF16_BE: _Text("utf-16-be", None, 1, b"\xfe\xff"),
    Conversion.BASE64: _Base64(),
    Conversion.GZIP: _Gzip(),
}
