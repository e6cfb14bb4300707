"""Which tensors a page shows, if a small file has too many of them."""

from __future__ import annotations

from typing import Any

from ckptparse.dtypes import DataType
from ckptparse.limits import count_named
from ckptparse.rendering.page.comparison import find_states
from ckptparse.rendering.page.subject import Subject

__all__ = ["choose_shown"]

_MOST = 10_000
"""Tensors that a page shows of any file. One takes 70 µs, and 300 bytes of the page. Strings,
constants of a graph, and what is damaged or differs, take twice as long, so each counts as two;
what was got back counts as three."""
_BYTES_EACH = 1 << 12
"""Bytes of the files for each tensor beyond those: of real checkpoints, all are shown."""
_LISTED, _LISTED_EACH = 100_000, 30
"""Of more names than these, so many take as long to list as a tensor that is shown takes."""
_LEAST = 1_000
"""Tensors that are shown of any number of names."""

_TEXTS = (DataType.DT_STRING, DataType.DT_VARIANT)


def choose_shown(subject: Subject, stored: int) -> tuple[list[str], int]:
    """Return the names of the tensors that are shown, in order, and how many are not.

    Those that are damaged, or differ, come before the others; then the first ones.

    Args:
        subject: What the page is made of.
        stored: Bytes of all files together.
    """
    report, comparison = subject.report, subject.comparison
    became = {} if comparison is None else find_states(comparison)
    reports = {} if report is None else report.tensors
    names = list(dict.fromkeys([*subject.tensors, *reports, *became]))
    left = _MOST + stored // _BYTES_EACH
    left = max(min(left, _LEAST), left - max(0, len(names) - _LISTED) // _LISTED_EACH)
    weight = 3 if subject.recovery is not None else 2 if _has_constants(subject) else 1
    if max(weight, 2) * count_named(names) <= left:
        return names, 0
    noted = dict.fromkeys([] if report is None else report.noted_names())
    noted |= dict.fromkeys(name for name, state in became.items() if state != "equal")
    chosen = set()
    for name in dict.fromkeys([*noted, *names]):
        dear = weight > 1 or name in noted or _is_text(subject.tensors.get(name))
        left -= (max(weight, 2) if dear else 1) * count_named([name])
        if left < 0:
            break
        chosen.add(name)
    return [name for name in names if name in chosen], len(names) - len(chosen)


def _has_constants(subject: Subject) -> bool:
    """Tell whether the tensors are constants of a graph: each is a message of its own."""
    checkpoint = subject.checkpoint
    return subject.graph is not None or (checkpoint is not None and checkpoint.format == "graph")


def _is_text(tensor: Any) -> bool:
    """Tell whether a tensor holds strings, or variants."""
    return tensor is not None and tensor.data_type in _TEXTS
