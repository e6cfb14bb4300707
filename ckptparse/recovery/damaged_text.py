"""Undo a conversion to text of a file that was damaged afterwards, and go on behind the damage.

    UTF-8     a byte that is no character stands for itself, and for one byte
    UTF-16    each pair stands for one byte; behind an odd number of bytes that were lost or put in,
              pairs begin one byte further on (`utf16`)
    U+FFFD    stands for one byte, which is lost: only payloads of bytes below 80 are whole
    base64    each line stands for as many bytes as every other; without lines, each letter for six
              bits, from one of four places on

So bytes behind the damage lie some distance from their places, or none. Checksums tell which.
"""

from __future__ import annotations

import base64
import codecs
import re
import string
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial
from typing import Any, NamedTuple

from ckptparse.examination.encodings import (
    CP1252_LETTERS,
    LATIN1_LETTERS,
    UTF16_LETTERS,
    Conversion,
    may_be,
)
from ckptparse.examination.places import is_noise
from ckptparse.files.storage import Source
from ckptparse.files.views import ConvertedSource, Converter
from ckptparse.recovery.utf16 import Pairs, share_odd

__all__ = ["DamagedText", "find_damaged_text", "gives_noise", "undo_damaged_text"]

_SAMPLE = 1 << 12
"""Bytes of a sample: raw weights break the rules of UTF-8 and of base64 in the first hundreds."""
_SAMPLES = 16
_LARGE_SAMPLE = 1 << 16
"""Bytes of a sample that is undone."""
_LEAST = 256
"""Bytes of the smallest file that is looked at."""
_MOST_LINE = 1 << 10
"""Letters of a line at most: writers use 64 or 76."""
_REPLACED = b"\xef\xbf\xbd"
_REPLACED_SHARE = 8
"""One in so many bytes of a sample is of a U+FFFD: of weights, half of all bytes become one."""
_MOST_ODD = 1 / 8
"""Share of a sample's pairs that are no character of UTF-16, at most."""
_LETTERS = string.ascii_letters.encode() + string.digits.encode() + b"+/"
_HEX_DIGITS = string.hexdigits.encode()
_AS_LETTERS = bytes(byte if byte in _LETTERS else ord("A") for byte in range(256))
"""What stands for no bits, or for others than before, stands for zeros."""
_SPACES = b"\r\n \t"
_LEAST_BETWEEN = 8
"""Letters of base64 to a blank, at least: indented lines have that many. Words have five."""
_PHASES = 4


_SAMPLED = (
    Conversion.UTF8_LATIN1,
    Conversion.UTF8_CP1252,
    Conversion.BASE64,
    *UTF16_LETTERS,
)
"""The conversions that are undone for samples from anywhere."""


class DamagedText(NamedTuple):
    """How to undo a conversion of a damaged file."""

    conversion: Conversion | None
    """None: bytes from 80 on were replaced by U+FFFD."""
    line: int = 0
    """Of base64: letters in a line; 0 if there are no lines of one length,"""
    ending: int = 0
    """bytes that end a line,"""
    phase: int = 0
    """and letters before the first that counts."""

    @property
    def method(self) -> str:
        """What is done, in a few words."""
        known = self.conversion
        what = "the replacement of bytes by U+FFFD" if known is None else known.value
        return f"undoing {what}, also behind damage"


def find_damaged_text(source: Source) -> list[DamagedText]:
    """Return how a damaged file may have been converted, judged by samples from all of it."""
    samples = _telling_samples(source)
    found = [
        DamagedText(conversion)
        for conversion in (Conversion.UTF8_LATIN1, Conversion.UTF8_CP1252)
        if _most(samples, partial(_is_of, conversion))
    ]
    pairs = [one for one in UTF16_LETTERS if _most(samples, partial(_is_utf16, one))]
    if pairs:
        found.append(DamagedText(min(pairs, key=partial(_odd_pairs, samples))))
    if _most(samples, _is_replaced):
        found.append(DamagedText(None))
    if _most(samples, _is_base64):
        found += _lines_of(samples)
    return [how for how in found if not _gives_noise(source, how)]


def gives_noise(source: Source, conversion: Conversion) -> bool:
    """Tell whether noise was converted, and no weights: undone, samples are as even as noise."""
    if conversion not in _SAMPLED:
        return False
    is_base64 = conversion is Conversion.BASE64
    ways = _lines_of(_telling_samples(source)) if is_base64 else [DamagedText(conversion)]
    return all(_gives_noise(source, how) for how in ways)


def undo_damaged_text(source: Source, how: DamagedText) -> ConvertedSource:
    """Return a file as it was before a conversion, as far as it can be told.

    The file is read once. Closing the result closes the file.

    Raises:
        ValueError: The file is empty of what was converted.
    """
    return ConvertedSource(source, _converter(how), most=2 * source.size, partial=True)


def _converter(how: DamagedText) -> Converter:
    if how.conversion is None:
        return _Replaced()
    letters = UTF16_LETTERS.get(how.conversion)
    if letters is not None:
        return Pairs(letters, big_endian=how.conversion is Conversion.UTF16_BE)
    if how.conversion is not Conversion.BASE64:
        return _Characters(how.conversion is Conversion.UTF8_CP1252)
    return _Lines(how.line, how.ending) if how.line else _Letters(how.phase)


def _samples(source: Source, size: int) -> Iterator[bytes]:
    """Iterate over samples of so many bytes, from everywhere in a file."""
    places = {number * (source.size - size) // (_SAMPLES - 1) for number in range(_SAMPLES)}
    return (source.read_at(place, size) for place in sorted(places))


def _telling_samples(source: Source) -> list[bytes]:
    """Return samples, but none of one byte again and again: of that nothing was made."""
    size = min(_SAMPLE, source.size)
    found = _samples(source, size) if size >= _LEAST else iter(())
    return [sample for sample in found if sample.strip(sample[:1])]


def _most(samples: Sequence[bytes], fits: Callable[[bytes], bool]) -> bool:
    return 2 * sum(map(fits, samples)) > len(samples)


def _is_of(conversion: Conversion, sample: bytes) -> bool:
    # From the first byte on that may begin a character.
    return may_be(sample.lstrip(bytes(range(0x80, 0xC0))), conversion)


def _is_utf16(conversion: Conversion, sample: bytes) -> bool:
    return _share_odd(conversion, sample, (0, 1)) < _MOST_ODD


def _odd_pairs(samples: Sequence[bytes], conversion: Conversion) -> tuple[float, float]:
    """Return how badly a conversion fits most samples, and the first at the place where it lies."""
    each = sorted(_share_odd(conversion, sample, (0, 1)) for sample in samples)
    return each[len(each) // 2], _share_odd(conversion, samples[0], (0,))


def _share_odd(conversion: Conversion, sample: bytes, phases: Sequence[int]) -> float:
    big_endian = conversion is Conversion.UTF16_BE
    return share_odd(sample, UTF16_LETTERS[conversion], big_endian=big_endian, phases=phases)


def _gives_noise(source: Source, how: DamagedText) -> bool:
    """Tell whether samples that are undone are as even as noise: then no weights are there."""
    converter = _converter(how)
    undone = [
        converter.convert(sample, converter.start(), last=True)[0]
        for sample in _samples(source, min(_LARGE_SAMPLE, source.size))
    ]
    return is_noise(memoryview(b"".join(undone)))


def _is_base64(sample: bytes) -> bool:
    if not sample.translate(None, _HEX_DIGITS + _SPACES):
        return False  # Those have letters of base64 only, too.
    blanks = sample.count(b" ") + sample.count(b"\t")
    if _LEAST_BETWEEN * blanks > len(sample):
        return False  # Those are words.
    return not sample.translate(None, _LETTERS + _SPACES + b"=")


def _is_replaced(sample: bytes) -> bool:
    return _REPLACED_SHARE * len(_REPLACED) * sample.count(_REPLACED) > len(sample)


def _lines_of(samples: Sequence[bytes]) -> list[DamagedText]:
    """Return how lines of base64 may be joined."""
    lines = Counter(line for sample in samples for line in sample.split(b"\n")[1:-1])
    lengths = Counter(len(line.rstrip(b"\r")) for line in lines)
    endings = Counter(1 + line.endswith(b"\r") for line in lines)
    line = lengths.most_common(1)[0][0] if lengths else 0
    if 0 < line <= _MOST_LINE and line % 4 == 0:
        return [DamagedText(Conversion.BASE64, line, endings.most_common(1)[0][0])]
    return [DamagedText(Conversion.BASE64, phase=phase) for phase in range(_PHASES)]


class _Characters:
    """Characters of UTF-8, each for one byte; what is none of these, too."""

    def __init__(self, is_cp1252: bool) -> None:  # noqa: FBT001 - one of two
        self._letters = CP1252_LETTERS if is_cp1252 else LATIN1_LETTERS
        self._map: Any = codecs.charmap_build(self._letters)

    @cached_property
    def _others(self) -> re.Pattern[str]:
        return re.compile(f"[^{re.escape(self._letters)}\udc80-\udcff]")

    def start(self) -> bool:
        """Whether the next byte is the first."""
        return True

    def convert(self, data: bytes, state: bool, *, last: bool) -> tuple[bytes, int, bool]:  # noqa: FBT001 - as the protocol
        body = data if last else data[: _end_of_characters(data)]
        skipped = 3 if state and body.startswith(b"\xef\xbb\xbf") else 0
        text = body[skipped:].decode("utf-8", "surrogateescape")
        try:
            found = self._encode(text)
        except UnicodeEncodeError:
            found = self._encode(self._others.sub("?", text))
        return found, len(body), False

    def _encode(self, text: str) -> bytes:
        found: bytes = codecs.charmap_encode(text, "surrogateescape", self._map)[0]
        return found


def _end_of_characters(data: bytes) -> int:
    """Return where the last character ends that is whole."""
    for back in range(1, min(4, len(data))):
        byte = data[-back]
        if byte < 0x80:
            break
        if byte >= 0xC0:
            width = 2 + (byte >= 0xE0) + (byte >= 0xF0)
            return len(data) - back if width > back else len(data)
    return len(data)


class _Replaced:
    """Bytes from 80 on, each replaced by U+FFFD."""

    def start(self) -> None:
        """There is no state."""

    def convert(self, data: bytes, state: None, *, last: bool) -> tuple[bytes, int, None]:  # noqa: ARG002 - as the protocol
        body = data
        if not last:
            for count in (1, 2):
                if data.endswith(_REPLACED[:count]):
                    body = data[:-count]
        return body.replace(_REPLACED, b"?"), len(body), None


class _Lines:
    """Lines of base64, each of as many letters."""

    def __init__(self, line: int, ending: int) -> None:
        self._line = line
        self._ending = ending

    def start(self) -> None:
        """There is no state."""

    def convert(self, data: bytes, state: None, *, last: bool) -> tuple[bytes, int, None]:  # noqa: ARG002 - as the protocol
        end = len(data) if last else data.rfind(b"\n") + 1 or len(data)
        lines = data[:end].split(b"\n")
        rest = lines.pop()
        width = self._line + self._ending - 1
        if not rest and all(len(line) == width for line in lines):
            letters = data[:end].translate(_KEPT, _SPACES)
            if len(letters) == len(lines) * self._line:
                return base64.b64decode(letters), end, None
        letters = b"".join(map(self._letters_of, lines))
        tail = rest.rstrip(b"\r=").translate(_AS_LETTERS)
        tail += b"A" * (-len(tail) % 4)
        return base64.b64decode(letters + tail), end, None

    def _letters_of(self, line: bytes) -> bytes:
        """Return the letters of a line, or of as many as are one because their ends are lost."""
        step = self._line + self._ending
        count = max(1, round((len(line) + 1) / step)) if line.strip() else 0
        if count == 1:
            whole = line.rstrip(b"\r=").translate(_AS_LETTERS)
            return whole[: self._line].ljust(self._line, b"A")
        whole = line.translate(_AS_LETTERS).ljust(count * step, b"A")
        return b"".join(whole[at : at + self._line] for at in range(0, count * step, step))


_KEPT = bytes(byte if byte in _LETTERS or byte in _SPACES else ord("A") for byte in range(256))


class _Letters:
    """Letters of base64 without lines, or in lines of any length."""

    def __init__(self, phase: int) -> None:
        self._phase = phase

    def start(self) -> int:
        """Return how many letters are skipped."""
        return self._phase

    def convert(self, data: bytes, state: int, *, last: bool) -> tuple[bytes, int, int]:
        letters = data.translate(_KEPT, _SPACES)
        spare = 0 if last else (len(letters) - state) % 4
        taken = len(data)
        while spare:
            taken -= 1
            spare -= data[taken] not in _SPACES
        letters = data[:taken].translate(_KEPT, _SPACES)[state:]
        return base64.b64decode(letters + b"A" * (-len(letters) % 4)), taken, 0
