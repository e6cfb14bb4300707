"""Numbers as a page holds them: in the few digits that it shows."""

from __future__ import annotations

import math

__all__ = ["small_number"]


def small_number(value: float | None) -> int | float | None:
    """Return a number in the few digits that a page shows; what JSON lacks as None."""
    if value is None or not math.isfinite(value):
        return None
    if isinstance(value, int):
        # Beyond 2^53 a script would round it in silence.
        return value if abs(value) < 1 << 53 else float(f"{value:.{digits}g}")
    return float(f"{value:.{digits}g}")
