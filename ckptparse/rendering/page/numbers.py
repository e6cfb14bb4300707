"""Numbers as a page holds them: in the few digits that it shows."""

from __future__ import annotations

import math
from functools import lru_cache

__all__ = ["small_number"]


_EXACT = 1 << 53
"""Beyond it a script would round an integer in silence."""


@lru_cache(maxsize=1 << 12)
def small_number(value: float | None, digits: int = 6) -> int | float | None:
    """Return a number in the few digits that a page shows; what JSON lacks as None."""
    if value is None or not math.isfinite(value):
        return None
    if abs(value) < _EXACT and value == int(value):
        return int(value)
    rounded = float(f"{value:.{digits}g}")
    # The largest number there is would be rounded up to more than it.
    return rounded if math.isfinite(rounded) else float(value)
