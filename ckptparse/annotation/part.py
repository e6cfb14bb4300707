"""One range of bytes of a file, and what it is."""

from __future__ import annotations

from dataclasses import dataclass, fields

__all__ = ["Annotation", "shorten"]

_MOST_BYTES = 48
"""Bytes that are shown: in hexadecimal they fill about two lines of a terminal."""


@dataclass(frozen=True, slots=True, init=False)
class Annotation:
    """A range of bytes and what it is; what lies inside follows, one level deeper.

    Attributes:
        offset: Of the first byte: in the file, or in the decompressed block if `unpacked`.
        size: In bytes.
        depth: Levels of ranges around it.
        what: Which part of the format it is.
        value: What it says, or the empty text.
        broken: Whether its bytes break the format's rules. Whether fields of a message make sense
            together, such as a size and a shape, is what `verify` tells.
        unpacked: Whether it lies in a compressed block, so that the file does not hold it as such.
    """

    offset: int
    size: int
    depth: int
    what: str
    value: str = ""
    broken: bool = False
    unpacked: bool = False

    def __init__(  # noqa: PLR0917
        self,
        offset: int,
        size: int,
        depth: int,
        what: str,
        value: str = "",
        broken: bool = False,  # noqa: FBT001, FBT002
        unpacked: bool = False,  # noqa: FBT001, FBT002
    ) -> None:
        # What a frozen dataclass makes itself takes twice the time: a file has very many parts.
        _set_offset(self, offset)
        _set_size(self, size)
        _set_depth(self, depth)
        _set_what(self, what)
        _set_value(self, value)
        _set_broken(self, broken)
        _set_unpacked(self, unpacked)


(
    _set_offset,
    _set_size,
    _set_depth,
    _set_what,
    _set_value,
    _set_broken,
    _set_unpacked,
) = (getattr(Annotation, part.name).__set__ for part in fields(Annotation))


def shorten(data: bytes) -> str:
    """Write bytes as text if they are text, else in hex; only the first if they are many."""
    head = data[:_MOST_BYTES]
    more = f"… {len(data):,} bytes" if len(data) > len(head) else ""
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError:
        text = ""
    if text and text.isprintable():
        return f"{text!r}{more}"
    return f"{head.hex(' ')}{more}" if head else "''"
