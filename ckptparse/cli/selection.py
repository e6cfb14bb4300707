"""`NAME[ROWS]` as it is typed: which tensor, and which part of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from types import EllipsisType

import ckptparse
from ckptparse.cli.errors import UsageError
from ckptparse.text import unescape

__all__ = ["Selection", "find_tensor"]

Index = tuple[int | slice | EllipsisType, ...]
_SUFFIX = re.compile(r"(?s)(?P<name>.+)\[(?P<index>[^\[\]]*)\]")
_PART = re.compile(r"(?P<start>-?\d+)?(?P<colon>:(?P<stop>-?\d+)?(?::(?P<step>-?\d+)?)?)?")


@dataclass(frozen=True, slots=True)
class Selection:
    """A tensor, and the part of it that is wanted; all of it where the index is None."""

    key: str
    tensor: ckptparse.Tensor
    index: Index | None = None


def find_tensor(checkpoint: ckptparse.Checkpoint, text: str) -> Selection:
    """Find what `NAME` or `NAME[ROWS]` means; a name that ends in brackets itself comes first.

    Raises:
        TensorNotFoundError: There is no such tensor.
        UsageError: What stands in the brackets is no index.
    """
    found = _find_name(checkpoint, text)
    if found is not None:
        return Selection(found, checkpoint[found])
    parts = _SUFFIX.fullmatch(text)
    if parts is None:
        return Selection(text, checkpoint[text])
    name = _find_name(checkpoint, parts["name"]) or parts["name"]
    tensor = checkpoint[name]
    return Selection(name, tensor, _parse_index(parts["index"]))


def _find_name(checkpoint: ckptparse.Checkpoint, text: str) -> str | None:
    """Take a name as it is stored, or as it is printed."""
    return next((name for name in (text, unescape(text)) if name in checkpoint), None)


def _parse_index(text: str) -> Index:
    return tuple(_parse_part(part.strip()) for part in text.split(","))


def _parse_part(text: str) -> int | slice | EllipsisType:
    if text == "...":
        return Ellipsis
    parts = _PART.fullmatch(text.replace(" ", ""))
    if not text or parts is None:
        raise UsageError(
            f"Expected an index such as [3], [0:10], [:, 2] or [..., ::2], found '{text}' in it"
        )
    start, stop, step = (
        None if parts[name] is None else int(parts[name]) for name in ("start", "stop", "step")
    )
    if parts["colon"] is None:
        return int(text)
    if step == 0:
        raise UsageError("A step of 0 selects nothing")
    return slice(start, stop, step)
