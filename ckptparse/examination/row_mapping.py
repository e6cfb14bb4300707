"""A mapping by name of which most values are rows of columns, and objects only if asked for."""

from __future__ import annotations

from collections.abc import (
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
    MutableMapping,
)
from itertools import compress, count, repeat
from operator import ne
from typing import NoReturn, TypeVar

import numpy as np
import numpy.typing as npt

__all__ = ["RowMapping"]

T = TypeVar("T")
V = TypeVar("V")
_HELD = -1
"""Stands for a row in the order of the names, if a value is held as an object."""
_FEW = 4
"""Names that are left out one by one of a copy. For more, all that stay are looked up."""


class RowMapping(MutableMapping[str, T]):
    """Values by name, in an order; some are held, the others are made of a row each time.

    Attributes:
        make: Makes the value of a name and its row.
        held: The values that are objects, in that order.
    """

    __slots__ = ("_rows", "held", "make")

    def __init__(self, make: Callable[[str, int], T]) -> None:
        """Begin with nothing; `make` makes the value of a name and its row."""
        self.make = make
        self._rows: dict[str, int] = {}
        self.held: dict[str, T] = {}

    @classmethod
    def of(cls, values: Mapping[str, T]) -> RowMapping[T]:
        """Hold all values."""
        made: RowMapping[T] = cls(_Nothing())
        made.update(values)
        return made

    @classmethod
    def arranged(
        cls,
        make: Callable[[str, int], T],
        order: Iterable[str],
        rows: Mapping[str, int],
        held: dict[str, T],
    ) -> RowMapping[T]:
        """Put rows and values, which have other names each and the same order, into one."""
        made = cls(make)
        names = list(order)
        made._rows = dict(zip(names, map(rows.get, names, repeat(_HELD)), strict=False))
        made.held = held
        return made

    def with_held(self, make: Callable[[str, int], V], held: dict[str, V]) -> RowMapping[V]:
        """Return a mapping of other values under the same names and rows.

        Args:
            make: Makes the value of a name and its row.
            held: Those that are objects, in the order of their names: more than are held here.
        """
        made = RowMapping(make)
        made._rows = self._rows.copy()
        made._rows.update(dict.fromkeys(held, _HELD))
        made.held = held
        return made

    def __getitem__(self, name: str) -> T:
        row = self._rows[name]
        return self.held[name] if row == _HELD else self.make(name, row)

    def __setitem__(self, name: str, value: T) -> None:
        self._rows[name] = _HELD
        self.held[name] = value

    def __delitem__(self, name: str) -> None:
        del self._rows[name]
        self.held.pop(name, None)

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, name: object) -> bool:
        return name in self._rows

    def add_rows(self, names: Iterable[str], rows: Iterable[int]) -> None:
        """Add the rows of names that are new."""
        self._rows.update(zip(names, rows, strict=True))

    def keep(self, rows: npt.NDArray[np.int64]) -> None:
        """Remove the names of all rows but these; what is held stays."""
        stays = ~self._are_without(rows)
        stays |= self._numbers() == _HELD
        self._rows = dict(compress(self._rows.items(), stays.tolist()))

    def row(self, name: str) -> int | None:
        """Return the row of a name; None if its value is held, or there is none."""
        found = self._rows.get(name, _HELD)
        return None if found == _HELD else found

    def names_without(self, rows: npt.NDArray[np.int64]) -> list[str]:
        """Return the names of values that are held, or that are none of these rows, in order."""
        return list(compress(self._rows, self._are_without(rows).tolist()))

    def doubtful_names(self, rows: Collection[int]) -> list[str]:
        """Return the names of values that are held, or that are some of the rows, in order."""
        if not self.held and not rows:
            return []
        return [name for name, row in self._rows.items() if row == _HELD or row in rows]

    def rows(self) -> dict[str, int]:
        """Return the rows of the names whose values are not held."""
        if not self.held:
            return dict(self._rows)
        return {name: row for name, row in self._rows.items() if row != _HELD}

    def remade(
        self,
        make: Callable[[str, int], V],
        change: Callable[[str, T], V | None],
        order: Iterable[str] | None = None,
    ) -> RowMapping[V]:
        """Return a mapping of other values under the same names.

        Args:
            make: Makes the value of a name and its row.
            change: Makes one of a value that is held; None leaves the name out.
            order: The names that it has, in that order; None: all.
        """
        made = RowMapping(make)
        made._rows = self._rows.copy() if order is None else self._chosen(list(order))
        if not self.held:
            return made
        for name in [name for name, row in made._rows.items() if row == _HELD]:
            value = change(name, self.held[name])
            if value is None:
                del made._rows[name]
            else:
                made.held[name] = value
        return made

    def _numbers(self) -> npt.NDArray[np.int64]:
        """Return the row of each name, in order."""
        return np.fromiter(self._rows.values(), np.int64, len(self._rows))

    def _are_without(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Tell of each name, in order, whether it is none of these rows."""
        numbers = self._numbers()
        # The last place is that of what is held.
        without = np.ones(max(numbers.max(initial=0), rows.max(initial=0)) + 2, np.bool_)
        without[rows] = False
        found: npt.NDArray[np.bool_] = without[numbers]
        return found

    def _chosen(self, names: list[str]) -> dict[str, int]:
        """Return the rows of some names, in that order."""
        # As a rule these are all or nearly all, in the same order: a copy looks nothing up.
        rows = self._rows.copy()
        left = list(rows)
        while len(left) - len(names) in range(1, _FEW + 1):
            place = next(compress(count(), map(ne, left, names)), len(names))
            del rows[left.pop(place)]
        if left == names:
            return rows
        return dict(zip(names, map(self._rows.__getitem__, names), strict=True))


class _Nothing:
    """Stands in a mapping that has no rows."""

    def __call__(self, name: str, _: int) -> NoReturn:
        raise KeyError(name)
