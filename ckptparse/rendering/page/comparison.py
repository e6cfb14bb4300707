"""Two checkpoints on one page: what changed, and by how much.

The page is that of the second, with what became of each tensor in place of its state; tensors that
only the first has are listed too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ckptparse.jobs.diff import Change, Diff
from ckptparse.rendering.page.numbers import small_number
from ckptparse.text import count, escape

__all__ = ["describe_changes", "find_states", "tell_comparison"]


def find_states(comparison: Diff) -> dict[str, str]:
    """Return what became of each tensor, by its name in the second checkpoint."""
    states = dict.fromkeys(comparison.equal, "equal")
    states |= dict.fromkeys(comparison.changed, "changed")
    states |= dict.fromkeys(comparison.added, "added")
    states |= {new: "renamed" for _, new in comparison.renamed}
    return states | dict.fromkeys(comparison.removed, "removed")


def describe_changes(comparison: Diff, names: Sequence[str]) -> dict[int, dict[str, Any]]:
    """Return by how much each changed tensor differs, by row."""
    old_names = {new: old for old, new in comparison.renamed}
    found: dict[int, dict[str, Any]] = {}
    for number, name in enumerate(names):
        change = comparison.changed.get(name)
        if change is not None:
            found[number] = _describe(change)
        elif name in old_names:
            found[number] = {"was": escape(old_names[name])}
    return found


def _describe(change: Change) -> dict[str, Any]:
    told: dict[str, Any] = {
        "largest": small_number(change.largest),
        "mean": small_number(change.mean),
        "share": small_number(change.share),
    }
    if change.dtype[0] != change.dtype[1]:
        told["dtype"] = list(change.dtype)
    if change.shape[0] != change.shape[1]:
        told["shape"] = [list(shape) for shape in change.shape]
    return told


def tell_comparison(comparison: Diff) -> dict[str, str]:
    """Return a word for the verdict, and a sentence."""
    counts = (
        (len(comparison.changed), "changed"),
        (len(comparison.added), "added"),
        (len(comparison.removed), "removed"),
        (len(comparison.renamed), "renamed"),
    )
    differ = [f"{number:,} {what}" for number, what in counts if number]
    equal = count(len(comparison.equal), "tensor")
    said = f"{equal} equal" + (f"; {', '.join(differ)}" if differ else "")
    return {"word": "differs" if differ else "same", "text": said}
