"""Sizes as they are typed: `5GB`, `200 MiB`, `1000`."""

from __future__ import annotations

import re

from ckptparse.cli.errors import UsageError

__all__ = ["parse_size", "read_count"]

_SIZE = re.compile(r"(?i)(\d{1,18}(?:\.\d+)?)\s*([kmgt]?)(i?)b?")
_MOST_DIGITS = 18
"""Of a number: more than these say more than there can be of anything."""
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


def parse_size(text: str) -> int:
    """Return a size in bytes; `kB` is 1,000 of them, `KiB` 1,024.

    Raises:
        UsageError: It is no size.
    """
    found = _SIZE.fullmatch(text.strip())
    size = 0
    if found is not None:
        base = 1024 if found[3] else 1000
        size = int(float(found[1]) * base ** _POWERS[found[2].lower()])
    if size < 1:
        raise UsageError(f"Expected a size such as 5GB or 200MiB, found '{text}'")
    return size


def read_count(text: str) -> int | None:
    """Return a whole number from 0 on; None if the text is none, or of more than 18 digits."""
    is_count = text.isascii() and text.isdecimal() and len(text) <= _MOST_DIGITS
    return int(text) if is_count else None
