"""Find choices that together change a checksum by a given value: linear algebra over GF(2).

A checksum is linear. What one choice changes it by does not depend on the other choices, and the
changes are added (XOR). This gives 32 equations; a wrong choice fits them by chance 1 in 2^32.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["find_choices"]

_MOST_FREE = 12
"""Unknowns that the equations leave free, at most: 2^12 = 4,096 solutions are looked through, and
with more of them none would be proved."""


def find_choices(changes: Sequence[Sequence[int]], target: int) -> list[tuple[int, ...]]:
    """Return the ways to choose one member of each group so that the changes add up to the target.

    Args:
        changes: For each group, what each of its members changes the checksum by.
        target: What all together must change it by.

    Returns:
        For each way, the number of the chosen member of each group. Empty if there are too many
        ways: 4,096 times as many as 32 equations can tell apart.
    """
    columns: list[tuple[int, int]] = []
    for place, group in enumerate(changes):
        target ^= group[0]
        columns.extend((place, number) for number in range(1, len(group)))
    particular, free = _eliminate([changes[p][n] ^ changes[p][0] for p, n in columns], target)
    if particular is None or len(free) > _MOST_FREE:
        return []
    found = []
    for numbers in range(1 << len(free)):
        bits = particular
        for place, vector in enumerate(free):
            if numbers >> place & 1:
                bits ^= vector
        picked = [columns[n] for n in range(len(columns)) if bits >> n & 1]
        choice = dict(picked)
        # Two members of one group cannot both be chosen.
        if len(choice) == len(picked):
            found.append(tuple(choice.get(place, 0) for place in range(len(changes))))
    return found


def _eliminate(columns: Sequence[int], target: int) -> tuple[int | None, list[int]]:
    """Solve a system over GF(2): find columns whose sum is the target.

    Returns:
        One solution, a bit for each column, or None; and the vectors that may be added to it.
    """
    basis: dict[int, tuple[int, int]] = {}
    free: list[int] = []
    for number, column in enumerate(columns):
        value, bits = _reduce(basis, column, 1 << number)
        if value:
            basis[value.bit_length()] = value, bits
        else:
            free.append(bits)
    rest, bits = _reduce(basis, target, 0)
    return (None if rest else bits), free


def _reduce(basis: dict[int, tuple[int, int]], value: int, bits: int) -> tuple[int, int]:
    """Subtract vectors of the basis, from the highest bit on, until it has none for a bit."""
    while value and value.bit_length() in basis:
        part, tag = basis[value.bit_length()]
        value, bits = value ^ part, bits ^ tag
    return value, bits
