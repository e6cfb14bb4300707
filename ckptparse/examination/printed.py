"""Undo what prints bytes as text: hex digits, hex dumps, quoted-printable; and CR LF for LF.

    00000608011a0208...                                           hex digits (`xxd -p`)
    00000000: 0000 0608 011a 0208 0801 1205 0208 0228  .......    `xxd`
    00000000  00 00 06 08 01 1a 02 08  08 01 12 05 02  |.......   `hexdump -C`, `od -A x -t x1z`
    *                                                             as the row before, up to the next
    =00=00=06=08=01=1A=02=08=01                                   quoted-printable

Each is a `Converter`.
"""

from __future__ import annotations

import binascii
import re
from typing import NamedTuple

import numpy as np

__all__ = ["CarriageReturns", "HexDigits", "HexDump", "QuotedPrintable", "is_quoted"]

_SPACES = b"\r\n \t"
_NO_DIGIT = re.compile(rb"[^0-9A-Fa-f\r\n \t]")
_DIGITS = b"0123456789abcdefABCDEF"
_PRINTABLE = bytes(range(32, 127)) + b"\t\r\n"
_NO_PRINTABLE = re.compile(rb"[^\t\r\n -~]")
_BAD_ESCAPE = re.compile(rb"=(?![0-9A-Fa-f]{2}|[ \t]*\r?\n|[0-9A-Fa-f]?\Z)")
_LEAST_ESCAPES = 16
"""Of so many bytes of quoted-printable one is a `=`. Of weights, it is every fourth."""
_SHORTEST_OFFSET = 6
"""Digits of the offset that begins a row of a dump: od writes 6, others 8."""
_FEW_ROWS = 16
"""Rows that take as long one by one as together."""
_HIGHEST = 15
_VALUES = np.array([int(chr(n), 16) if n in _DIGITS else 255 for n in range(256)], np.uint8)
"""What each byte is as a digit; 255 if it is none."""
_MOST_ROWS = 1 << 22
"""Bytes of rows that are returned at once: a `*` may stand for any number of them."""


class CarriageReturns:
    """A carriage return that was put before every line feed."""

    def start(self) -> None:
        """There is no state."""

    def convert(self, data: bytes, state: None, *, last: bool) -> tuple[bytes, int, None]:  # noqa: ARG002 - as the protocol
        """Undo it for some bytes."""
        # Whether it is one more, the next byte tells.
        taken = len(data) - (data.endswith(b"\r") and not last)
        return data[:taken].replace(b"\r\n", b"\n"), taken, None


class HexDigits:
    """Two digits for each byte, in lines of any length."""

    def start(self) -> None:
        """There is no state."""

    def convert(self, data: bytes, state: None, *, last: bool) -> tuple[bytes, int, None]:  # noqa: ARG002 - as the protocol
        """Undo it for some bytes."""
        if data.translate(None, _DIGITS + _SPACES):
            wrong = _NO_DIGIT.search(data)
            data = data[: wrong.start()] if wrong else data
        digits = data.translate(None, _SPACES)
        taken = len(data)
        if len(digits) % 2:
            # The first digit of a byte waits for the second.
            taken = len(data.rstrip(_SPACES)) - 1
        return binascii.unhexlify(digits[: len(digits) // 2 * 2]), taken, None


class QuotedPrintable:
    """`=` and two digits for a byte that is no letter; `=` at the end of a line for nothing."""

    def start(self) -> None:
        """There is no state."""

    def convert(self, data: bytes, state: None, *, last: bool) -> tuple[bytes, int, None]:  # noqa: ARG002 - as the protocol
        """Undo it for some bytes."""
        body = data if last else data[: data.rfind(b"\n") + 1]
        # To take letters out is ten times as fast as to search for what is none.
        wrong = _NO_PRINTABLE.search(body) if body.translate(None, _PRINTABLE) else None
        if wrong is not None:
            body = body[: wrong.start()]
        # A byte may be cut by the file's end.
        whole = re.sub(rb"=[0-9A-Fa-f]?\Z", b"", body) if last else body
        return binascii.a2b_qp(whole), len(body), None


def is_quoted(sample: bytes) -> bool:
    """Tell whether each `=` of a sample, of which there are many, means a byte or a line's end."""
    return _LEAST_ESCAPES * sample.count(b"=") >= len(sample) and not _BAD_ESCAPE.search(sample)


class _Reached(NamedTuple):
    """How far a dump has been read.

    Attributes:
        size: Bytes before the next row.
        row: The last one.
        is_repeated: Whether a `*` came after it.
    """

    size: int = 0
    row: bytes = b""
    is_repeated: bool = False


class HexDump:
    """Rows with an offset in hex, bytes in hex, and perhaps letters."""

    def start(self) -> _Reached:
        """Return the state before the first row."""
        return _Reached()

    def convert(self, data: bytes, state: _Reached, *, last: bool) -> tuple[bytes, int, _Reached]:
        """Undo it for some bytes."""
        end = len(data) if last else data.rfind(b"\n") + 1
        rows, taken, state = _read_alike(data[:end], state)
        found, held = [rows], len(rows)
        for line in data[taken:end].split(b"\n"):
            size = min(len(line) + 1, end - taken)
            try:
                more, state, is_done = _read_row(line.strip(), state, _MOST_ROWS - held)
            except ValueError:
                if not held and len(found) == 1:
                    raise
                break
            found.append(more)
            held += len(more)
            if not is_done:
                break
            taken += size
        return b"".join(found), taken, state


def _read_alike(data: bytes, state: _Reached) -> tuple[bytes, int, _Reached]:
    """Read rows of the form of the first one, all at once.

    Returns:
        Their bytes, how many of `data` were used, and the new state. Nothing if they are few, or
        the first row is none.
    """
    width = data.find(b"\n") + 1
    count = len(data) // width if width else 0
    if count < _FEW_ROWS or state.is_repeated:
        return b"", 0, state
    try:
        offset, row = _decode_row(data[:width].strip())
    except ValueError:
        return b"", 0, state
    if offset != state.size or not row:
        return b"", 0, state
    head, digits, others = _columns_of(data[:width], len(row))
    if len(digits) != 2 * len(row):
        return b"", 0, state
    table = np.frombuffer(data, np.uint8, count * width).reshape(count, width)
    values = _VALUES[table[:, digits]]
    offsets = np.zeros(count, np.int64)
    wrong = (values > _HIGHEST).any(axis=1) | (table[:, others] != table[0, others]).any(axis=1)
    for column in head:
        digit = _VALUES[table[:, column]]
        wrong |= digit > _HIGHEST
        offsets = offsets << 4 | digit
    wrong |= offsets != offset + len(row) * np.arange(count)
    alike = int(np.argmax(wrong)) if wrong.any() else count
    if not alike:
        return b"", 0, state
    found = (values[:alike, ::2] << 4 | values[:alike, 1::2]).tobytes()
    return found, alike * width, _Reached(offset + len(found), found[-len(row) :])


def _columns_of(line: bytes, size: int) -> tuple[list[int], list[int], list[int]]:
    """Return the columns of a row's offset, of the digits of its bytes, and of what is between."""
    start = line.index(b" ")
    head = list(range(start - line[:start].endswith(b":")))
    digits = [at for at in range(start, len(line)) if line[at] in _DIGITS][: 2 * size]
    end = digits[-1] + 1 if digits else start
    others = sorted({*range(len(head), end), len(line) - 1}.difference(digits))
    return head, digits, others


def _read_row(line: bytes, state: _Reached, room: int) -> tuple[bytes, _Reached, bool]:
    """Return the bytes of a row, after those that a `*` before it stands for; the new state.

    If they are more than `room`, some of them, and False.

    Raises:
        ValueError: It is no row, or rows before it are missing.
    """
    if not line:
        return b"", state, True
    if line == b"*" and state.row:
        return b"", state._replace(is_repeated=True), True
    offset, row = _decode_row(line)
    missing = offset - state.size
    if missing < 0 or (missing and not state.is_repeated) or missing % max(1, len(state.row)):
        raise ValueError("Rows are missing")
    if missing:
        rows = max(1, min(missing, room) // len(state.row))
        filled = state.row * rows
        return filled, state._replace(size=state.size + len(filled)), False
    return row, _Reached(offset + len(row), row), True


def _decode_row(line: bytes) -> tuple[int, bytes]:
    """Return the offset of a row, and its bytes; none in the line that ends a dump."""
    head, _, rest = line.partition(b" ")
    if head.endswith(b":"):
        # xxd writes two spaces before the letters.
        head, digits = head[:-1], rest.partition(b"  ")[0]
    else:
        digits = re.split(rb"[|>]", rest, maxsplit=1)[0]
    if len(head) < _SHORTEST_OFFSET or head.translate(None, _DIGITS):
        raise ValueError("A row begins with its offset")
    if len(digits.translate(None, b" ")) % 2:
        # The file ends within a byte.
        digits = digits.rstrip()[:-1]
    return int(head, 16), bytes.fromhex(digits.decode("ascii"))
