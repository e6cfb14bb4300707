"""Trees, drawn with branches: of objects, or of the scopes of names."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import ckptparse
from ckptparse.cli.output import Output
from ckptparse.text import escape, shape_text, size_text

__all__ = ["choose_branches", "draw_bar", "tree_to_json", "write_tree"]

_BAR = 8
_EIGHTHS = "▏▎▍▌▋▊▉"
_DEEPEST = 40
"""Deeper entries are left out: the branches alone would be wider than any terminal."""


def choose_branches(
    entries: Sequence[ckptparse.TreeEntry], wanted: Callable[[str], bool]
) -> list[ckptparse.TreeEntry]:
    """Keep the entries that hold a tensor of a wanted name, and those above them."""
    chosen: list[ckptparse.TreeEntry] = []
    needed = -1
    for entry in reversed(entries):
        if any(map(wanted, entry.tensors or ())) or entry.depth < needed:
            chosen.append(entry)
            needed = entry.depth
        elif entry.depth == needed:
            needed = entry.depth
    return chosen[::-1]


def write_tree(out: Output, entries: Sequence[ckptparse.TreeEntry]) -> None:
    """Write a line for each entry; in a terminal, with its bytes and their share of all."""
    sizes = _sizes(entries)
    total = sum(size for size, entry in zip(sizes, entries, strict=True) if entry.depth == 0)
    shown = [entry for entry in entries if entry.depth <= _DEEPEST]
    heads = [
        f"{size_text(size):>9} {draw_bar(size, total, _BAR)} " if out.terminal else ""
        for size, entry in zip(sizes, entries, strict=True)
        if entry.depth <= _DEEPEST
    ]
    for head, branch, entry in zip(heads, _branches(shown), shown, strict=True):
        name = escape(entry.name)
        if entry.also:
            name += f" (also {', '.join(map(escape, entry.also))})"
        values = "  ".join(_values(entry))
        line = (
            out.styled(head, "dim")
            + out.styled(branch, "dim")
            + out.styled(name, "cyan" if values else "bold")
        )
        out.line(f"{line}  {values}" if values else line)


def draw_bar(part: int, whole: int, width: int) -> str:
    """Draw a share as a bar of so many cells, to an eighth of one; what is not 0 shows."""
    eighths = 0 if whole == 0 else max(int(part > 0), round(part / whole * width * 8))
    full, rest = divmod(eighths, 8)
    return ("█" * full + (_EIGHTHS[rest - 1] if rest else "")).ljust(width)


def _sizes(entries: Sequence[ckptparse.TreeEntry]) -> list[int]:
    """Return the bytes of each entry and all below it."""
    sizes: list[int] = []
    below: dict[int, int] = {}
    for entry in reversed(entries):
        own = sum(t.nbytes for t in (entry.tensors or {}).values() if t is not None)
        size = own + below.pop(entry.depth + 1, 0)
        below[entry.depth] = below.get(entry.depth, 0) + size
        sizes.append(size)
    return sizes[::-1]


def _branches(entries: Sequence[ckptparse.TreeEntry]) -> list[str]:
    """Draw what stands before each name; what follows tells whether a line is its level's last."""
    follows: set[int] = set()
    lines = []
    for entry in reversed(entries):
        corner = "├─ " if entry.depth in follows else "└─ "
        follows = {depth for depth in follows if depth < entry.depth}
        bars = ("│  " if depth in follows else "   " for depth in range(entry.depth))
        lines.append("".join(bars) + corner)
        follows.add(entry.depth)
    return lines[::-1]


def _values(entry: ckptparse.TreeEntry) -> Iterator[str]:
    tensors = entry.tensors or {}
    for key, tensor in tensors.items():
        label = "" if len(tensors) == 1 else escape(key.rsplit("/", 1)[-1]) + " "
        if tensor is None:
            yield f"{label}(not stored)"
        else:
            yield f"{label}{ckptparse.element_name(tensor.data_type)} {shape_text(tensor.shape)}"
    if entry.full_name:
        yield escape(entry.full_name)


def tree_to_json(entries: Sequence[ckptparse.TreeEntry]) -> list[dict[str, Any]]:
    """Return the entries as JSON has them: flat, each with its depth."""
    return [
        {
            "depth": entry.depth,
            "name": entry.name,
            "also": list(entry.also),
            "full_name": entry.full_name,
            "tensors": list(entry.tensors or ()),
        }
        for entry in entries
    ]
