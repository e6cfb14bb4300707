"""Choices whose effects on a checksum make up what it must change by: linear algebra over GF(2).

A checksum is linear: what each choice changes it by does not depend on the others, and changes are
added (XOR). 32 equations; one way in 2^32 fits by chance.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["find_choices"]

_MOST_FREE = 12
"""Solutions that are looked through: two to this power."""


def find_choices(changes: Sequence[Sequence[int]], target: int) -> list[tuple[int, ...]]:
    """Return the ways to choose one of each group so that what they change adds up to the target.

    Args:
        changes: For each group, what each of its members changes the checksum by.
        target: What all together must change it by.

    Returns:
        The number of the chosen member of each group. Nothing where there are too many ways to be
        looked through: about 4,096 times as many as 32 equations can tell apart.
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
        # Of one group, no two can be chosen.
        if len(choice) == len(picked):
            found.append(tuple(choice.get(place, 0) for place in range(len(changes))))
    return found


def _eliminate(columns: Sequence[int], target: int) -> tuple[int | None, list[int]]:
    """Solve a system over GF(2): the sum of some of the columns is the target.

    Returns:
        One solution, a bit for each column, or None; and what may be added to it.
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
    """Subtract what the basis can, from the highest bit on; a bit it lacks ends that."""
    while value and value.bit_length() in basis:
        part, tag = basis[value.bit_length()]
        value, bits = value ^ part, bits ^ tag
    return value, bits
