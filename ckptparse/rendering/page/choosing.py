"""Which tensors a page shows, if a small file has too many of them."""

from __future__ import annotations

from itertools import islice

from ckptparse.rendering.page.comparison import find_states
from ckptparse.rendering.page.subject import Subject

__all__ = ["choose_shown"]

_MOST = 4096
"""Tensors that a page shows of any file. One takes 70 to 150 µs, and 300 bytes of the page."""
_BYTES_EACH = 1 << 12
"""Bytes of the files for each tensor beyond those: of real checkpoints, all are shown."""


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
    most = _MOST + stored // _BYTES_EACH
    if len(names) <= most:
        return names, 0
    noted = [] if report is None else report.noted_names()
    noted += [name for name, state in became.items() if state != "equal"]
    chosen = set(islice(dict.fromkeys([*noted, *names]), most))
    return [name for name in names if name in chosen], len(names) - most
