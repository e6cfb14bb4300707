"""Undo conversions of whole files: text encodings, base64, gzip, and one after another.

    UTF-8      bytes were read as latin-1 or cp1252: every byte from 80 on became two or three
    UTF-16     every byte became two
    base64     three bytes became four letters, in lines
    gzip       compressed
    zip        put into an archive alone (`zipped`)
    printed    hex digits, hex dumps, quoted-printable (`printed`)

If a decoder replaced bytes that it did not understand (by U+FFFD or `?`), they are lost, and the
file is none of these. Behind damage `damaged_text` goes on.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import re
import string
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from ckptparse.errors import CheckpointError, LimitError
from ckptparse.examination.printed import (
    CarriageReturns,
    HexDigits,
    HexDump,
    QuotedPrintable,
    is_quoted,
)
from ckptparse.examination.zipped import ZIP_MARK, Zipped
from ckptparse.files.storage import Source
from ckptparse.files.views import ConvertedSource, Converter

__all__ = [
    "CP1252_LETTERS",
    "LATIN1_LETTERS",
    "UTF16_LETTERS",
    "Conversion",
    "Undone",
    "find_conversions",
    "may_be",
    "name_steps",
    "sample_conversions",
    "undo",
]

_SAMPLE = 1 << 16
"""Bytes that are converted as a trial. Raw weights break the rules of UTF-8 and of base64 within
the first few hundred bytes."""
_CUT = 4
"""Bytes at the end of a sample that may be left over: of a character or a group of letters."""
_LINE = 1 << 9
"""Bytes of a line at most, of which a sample may end within the last."""
_MOST_STEPS = 3
"""Conversions that are undone one after another."""
_MOST_WAYS = 6
"""Ways of undoing that are tried: files that people have need one or two."""
_LEAST_DIGITS = 32
"""Hex digits at least."""
_LEAST_INNER = 32
"""Bytes at least that may have been converted twice: a few letters look like anything."""
_LEAST_FEEDS = 4
"""Line feeds at least that must all follow a carriage return. By chance one in 256 does."""
_LARGEST_PIECE = 1 << 22
"""Bytes that are decompressed in one go, so that memory stays small."""
_GROWTH = 64
"""A file may become so many times larger. Compressed weights become hardly larger, zeros up to
1,000 times: what is larger still holds nothing worth the memory."""
_GROWTH_OF_STEPS = 8
"""The same if several conversions are undone, each of which takes time."""
_BASE64 = string.ascii_letters.encode() + string.digits.encode() + b"+/\r\n"
_HEX_DIGITS = string.hexdigits.encode() + b"\r\n \t"
_NO_LETTER = re.compile(rb"[^A-Za-z0-9+/=\r\n \t]")
_ARMOUR = re.compile(rb"-----[^\n]*\r?\n|begin-base64[^\n]*\n")


class Conversion(str, Enum):
    """A conversion of a whole file."""

    UTF8_LATIN1 = "latin-1 to UTF-8"
    UTF8_CP1252 = "cp1252 to UTF-8"
    UTF16_LE = "latin-1 to UTF-16, little-endian"
    UTF16_BE = "latin-1 to UTF-16, big-endian"
    UTF16_CP1252 = "cp1252 to UTF-16, little-endian"
    BASE64 = "base64"
    GZIP = "gzip"
    ZIP = "zip"
    HEX = "hex digits"
    DUMP = "hex dump"
    QUOTED = "quoted-printable"
    CRLF = "LF to CR LF"


_Steps = tuple[Conversion, ...]
_PACKED = (Conversion.GZIP, Conversion.ZIP)
_BY_LINE = (Conversion.DUMP, Conversion.QUOTED)
_IGNORES_ENDS = (Conversion.BASE64, Conversion.HEX, Conversion.DUMP)
"""Those for which it makes no difference how lines end."""


def undo(source: Source, conversion: Conversion, most: int | None = None) -> ConvertedSource | None:
    """Return a file as it was before a conversion; None if this conversion did not make it.

    If the file is cut off or damaged, the bytes before the damage are there. The file is read
    once. Closing the result closes the file; if the result is None, it stays open. It may have had
    `most` bytes, or 64 times those that it has.
    """
    if not _may_be(_sample_of(source), conversion, source.size):
        return None
    try:
        converter, most = _CONVERTERS[conversion], most or _GROWTH * source.size
        return ConvertedSource(source, converter, most=most, partial=True)
    except (ValueError, LimitError):
        return None


@dataclass(frozen=True, slots=True)
class Undone:
    """Opens a file as it was before conversions.

    Attributes:
        steps: The conversions, the last one first.
    """

    steps: tuple[Conversion, ...]

    def __call__(self, source: Source) -> Source:
        """Return the file as it was.

        Raises:
            CheckpointError: These conversions did not make it.
        """
        found: Source | None = source
        most = None if len(self.steps) == 1 else _GROWTH_OF_STEPS * source.size
        for conversion in self.steps:
            found = undo(found, conversion, most) if found is not None else None
        if found is None:
            raise CheckpointError("The file has changed since it was examined", path=source.path)
        return found


def name_steps(steps: Sequence[Conversion]) -> str:
    """Return what was done to a file, in the order in which it was done."""
    return ", then ".join(conversion.value for conversion in reversed(steps))


def find_conversions(source: Source) -> list[tuple[Conversion, ...]]:
    """Return the conversions that may have made a file, judged by its first 64 KiB.

    They are undone one after another: the first of them was the last that was made. Each one alone
    comes first, and then those of several behind which nothing more can be undone: weights look
    like none. `damaged_text` looks at samples from all of the file.
    """
    return [steps for steps, _ in sample_conversions(source)]


def sample_conversions(source: Source) -> list[tuple[tuple[Conversion, ...], bytes]]:
    """Return what `find_conversions` does, with the first bytes of the file as it was before."""
    sample = _sample_of(source)
    found: list[tuple[_Steps, bytes]] = []
    left: list[tuple[_Steps, bytes, bool]] = [((), sample, len(sample) == source.size)]
    for count in range(1, _MOST_STEPS + 1):
        following = []
        for steps, data, last in left:
            more = list(_iter_undone(steps, data, last=last))
            following += more
            if len(steps) > 1 and not more:
                found.append((steps, data))
        left = following
        if count in (1, _MOST_STEPS):
            # That of line ends alone is known by other signs (`conversions`).
            found += [(steps, data) for steps, data, _ in left if steps != (Conversion.CRLF,)]
    return found[:_MOST_WAYS]


def _iter_undone(
    steps: _Steps, sample: bytes, *, last: bool
) -> Iterator[tuple[_Steps, bytes, bool]]:
    """Iterate over what may have been undone after other steps, with a sample of what is left."""
    if not sample.strip(sample[:1]) or (steps and len(sample) < _LEAST_INNER):
        # Of one byte again and again nothing was made.
        return
    for conversion in Conversion:
        if steps[-1:] == (Conversion.CRLF,) and conversion in _IGNORES_ENDS:
            continue
        if _may_be(sample, conversion, len(sample) + (not last)):
            converter = _CONVERTERS[conversion]
            data, taken, _ = converter.convert(sample, converter.start(), last=last)
            is_all = last and taken == len(sample) and len(data) <= _SAMPLE
            yield (*steps, conversion), data[:_SAMPLE], is_all


def _sample_of(source: Source) -> bytes:
    return source.read_at(0, min(_SAMPLE, source.size))


def may_be(sample: bytes, conversion: Conversion) -> bool:
    """Tell whether bytes from within a file may be of such a conversion."""
    return _may_be(sample, conversion, len(sample) + 1)


def _may_be(sample: bytes, conversion: Conversion, size: int) -> bool:
    if not sample:
        return False
    if not _looks_like(sample, conversion):
        return False
    last = len(sample) == size
    converter = _CONVERTERS[conversion]
    try:
        data, taken, _ = converter.convert(sample, converter.start(), last=last)
    except ValueError:
        return False
    left = min(_LINE, len(sample) // 2) if conversion in _BY_LINE else _CUT
    if conversion not in _PACKED and taken < len(sample) - left:
        return False
    # If undoing changes nothing, there was no such conversion.
    return bool(data) and data != sample[:taken]


def _looks_like(sample: bytes, conversion: Conversion) -> bool:
    """Tell whether a sample has the signs of a conversion, as far as they are its own."""
    if conversion is Conversion.BASE64:
        return _is_base64(_without_armour(sample))
    if conversion is Conversion.ZIP:
        return sample.startswith(ZIP_MARK)
    if conversion is Conversion.HEX:
        return len(sample) >= _LEAST_DIGITS and not sample.translate(None, _HEX_DIGITS)
    if conversion is Conversion.QUOTED:
        return is_quoted(sample)
    if conversion is Conversion.CRLF:
        feeds = sample.count(b"\n")
        return feeds >= _LEAST_FEEDS and feeds == sample.count(b"\r\n")
    return True


def _is_base64(sample: bytes) -> bool:
    """Tell whether bytes are letters of base64 in lines, with at most two `=` at their end."""
    text = sample.rstrip()
    letters = text.rstrip(b"=")
    return len(text) - len(letters) <= 2 and not letters.translate(None, _BASE64)


@dataclass(frozen=True, slots=True)
class _Text:
    """Bytes that were read in one encoding and written in another."""

    written: str
    read: Any
    """None for latin-1."""
    mark: bytes
    """The byte order mark that a writer may put first; it is no byte of the file."""

    def start(self) -> bool:
        """Whether the next byte is the first."""
        return True

    def convert(self, data: bytes, state: bool, *, last: bool) -> tuple[bytes, int, bool]:  # noqa: ARG002, FBT001 - as the protocol
        skipped = len(self.mark) if state and data.startswith(self.mark) else 0
        body = data[skipped:]
        try:
            taken = len(body)
            text = codecs.decode(body, self.written)
        except UnicodeDecodeError as error:
            taken = error.start
            text = codecs.decode(body[:taken], self.written)
        try:
            found = self._encode(text)
        except UnicodeEncodeError as error:
            found = self._encode(text[: error.start])
            taken = len(codecs.encode(text[: error.start], self.written))
        if body and not taken:
            raise ValueError("Expected a character, found bytes that are none")
        return found, skipped + taken, False

    def _encode(self, text: str) -> bytes:
        if self.read is None:
            return text.encode("latin-1")
        encoded: bytes = codecs.charmap_encode(text, "strict", self.read)[0]
        return encoded


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
        taken = len(data)
        # To take letters out is ten times as fast as to search for what is none.
        wrong = _NO_LETTER.search(body) if body.translate(None, _BASE64 + b"= \t") else None
        if wrong is not None:
            body = body[: wrong.start()]
            taken = skipped + len(body)
        letters = body.translate(None, b"\r\n \t")
        spare = len(letters) % 4
        if spare:
            # Four letters make three bytes: those of an unfinished group wait for the next piece.
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
    """Return where the first `count` letters end. Only the bytes after them are looked at."""
    position = len(data)
    surplus = len(data.translate(None, b"\r\n \t")) - count
    while surplus:
        position -= 1
        surplus -= data[position] not in b"\r\n \t"
    return position


_GZIP_STEP = 1 << 11
"""Bytes that zlib is given at once. Behind a member it copies the rest of them, and a member may
have 20 bytes."""
_GZIP_WINDOW = 31
"""zlib's number for gzip: the largest window, 15, and 16 for a gzip header."""


class _Gzip:
    """One gzip member after another."""

    def start(self) -> Any:
        """Return a decompressor that has read nothing."""
        return zlib.decompressobj(_GZIP_WINDOW)

    def convert(self, data: bytes, state: Any, *, last: bool) -> tuple[bytes, int, Any]:  # noqa: ARG002 - as the protocol
        decompressor = state.copy()
        found, taken = bytearray(), 0
        while taken < len(data) and len(found) < _LARGEST_PIECE:
            step = data[taken : taken + _GZIP_STEP]
            try:
                if decompressor.eof:
                    decompressor = zlib.decompressobj(_GZIP_WINDOW)
                found += decompressor.decompress(step, _LARGEST_PIECE - len(found))
            except zlib.error as error:
                raise ValueError(str(error)) from error
            taken += len(step) - len(decompressor.unconsumed_tail or decompressor.unused_data)
        return bytes(found), taken, decompressor


CP1252_LETTERS = "".join(bytes([n]).decode("cp1252", "ignore") or chr(n) for n in range(256))
"""cp1252 as programs read it: the five bytes without a letter are control characters."""
LATIN1_LETTERS = "".join(map(chr, range(256)))
UTF16_LETTERS = {
    Conversion.UTF16_LE: LATIN1_LETTERS,
    Conversion.UTF16_BE: LATIN1_LETTERS,
    Conversion.UTF16_CP1252: CP1252_LETTERS,
}
"""The characters that the 256 bytes became in UTF-16."""
_CP1252: Any = codecs.charmap_build(CP1252_LETTERS)
_CONVERTERS: dict[Conversion, Converter] = {
    Conversion.UTF8_LATIN1: _Text("utf-8", None, b"\xef\xbb\xbf"),
    Conversion.UTF8_CP1252: _Text("utf-8", _CP1252, b"\xef\xbb\xbf"),
    Conversion.UTF16_LE: _Text("utf-16-le", None, b"\xff\xfe"),
    Conversion.UTF16_BE: _Text("utf-16-be", None, b"\xfe\xff"),
    Conversion.UTF16_CP1252: _Text("utf-16-le", _CP1252, b"\xff\xfe"),
    Conversion.BASE64: _Base64(),
    Conversion.GZIP: _Gzip(),
    Conversion.ZIP: Zipped(),
    Conversion.HEX: HexDigits(),
    Conversion.DUMP: HexDump(),
    Conversion.QUOTED: QuotedPrintable(),
    Conversion.CRLF: CarriageReturns(),
}
