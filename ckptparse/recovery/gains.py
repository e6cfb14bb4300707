"""Tell whether a damaged copy of a tensor has more of it than what is there already."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ckptparse.dtypes import item_size
from ckptparse.examination.outcome import Outcome
from ckptparse.examination.payload import Form, Payload
from ckptparse.examination.readers import DataFiles
from ckptparse.recovery.mended import Mended

__all__ = ["adds", "count_plausible"]

_PIECE = 1 << 20
"""Bytes that are compared at once."""
_CONTRADICTED = 2
"""Elements that a copy must add for each that it contradicts: one of the two is wrong there, and
nothing tells which."""


def count_plausible(found: Mended) -> int:
    """Count the elements that are offered and do not look wrong."""
    if found.recipe is None:
        return 0
    spans = (found.outcome.ranges, found.outcome.suspect)
    offered, suspect = (sum(stop - start for start, stop in these) for these in spans)
    return offered - suspect


def adds(files: DataFiles, offered: Mended, best: Mended, payload: Payload) -> bool:
    """Tell whether a copy has far more elements that look right than it contradicts of those known.

    What lies beside its place looks right, too, if bytes were put in before it, and so do zeros.

    Args:
        files: The data files.
        offered: What the copy has.
        best: What is known without it.
        payload: The tensor.
    """
    width = item_size(payload.data_type)
    if payload.form is not Form.PLAIN or not width or best.recipe is None or offered.recipe is None:
        return count_plausible(offered) > count_plausible(best)
    gained = lost = 0
    step = _PIECE // width
    for start in range(0, payload.size // width, step):
        stop = min(payload.size // width, start + step)
        known, new = (_are_plausible(one.outcome, start, stop) for one in (best, offered))
        own, other = (
            recipe.part(files, start * width, stop * width).reshape(-1, width)
            for recipe in (best.recipe, offered.recipe)
        )
        agree = new & (own == other).all(axis=1)
        gained += int(np.count_nonzero(new & ~known))
        lost += int(np.count_nonzero(known & ~agree))
    return gained > _CONTRADICTED * lost


def _are_plausible(outcome: Outcome, start: int, stop: int) -> npt.NDArray[np.bool_]:
    """Tell which of some elements are offered and do not look wrong."""
    found = np.zeros(stop - start, np.bool_)
    for spans, value in ((outcome.ranges, True), (outcome.suspect, False)):
        for first, last in spans:
            found[max(0, first - start) : max(0, last - start)] = value
    return found
