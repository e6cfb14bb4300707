"""Which of the payloads that are lost a name in another file may mean.

Of very many small ones, some may have a checksum by chance that is sought. A container that has
names says itself which is which: then it counts only how many a name may mean.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import cached_property

from ckptparse.backend import VARIABLE_SUFFIX
from ckptparse.crc.windows import Wanted

__all__ = ["MOST_NAMESAKES", "Names"]

MOST_NAMESAKES = 8
"""Payloads that one name may mean; of more, it says too little."""
_MOST_PARTS = 16
"""Parts of a name that are looked at, from its end."""
_SUFFIXES = (".npy", ".bin", ".raw")
_SEPARATORS = re.compile(r"[/\\:.]+")


class Names:
    """The names of lost payloads."""

    def __init__(self, list_named: Callable[[], Iterable[tuple[str, Wanted]]] = tuple) -> None:
        """Take what lists them; they are listed when the first is asked for."""
        self._list_named = list_named

    def mean(self, name: str, item: Wanted) -> bool:
        """Tell whether a name may mean a payload, as one of eight at most.

        It may be the payload's own name, or begin with more parts or with fewer, which are apart by
        `/`, `.` or `:`. What writers append is no part: `:0`, `.npy`, a TF2 key's last two parts.
        """
        meant = self._meant_by(_parts_of(name))
        return len(meant) <= MOST_NAMESAKES and item in meant

    def _meant_by(self, parts: tuple[str, ...]) -> set[Wanted]:
        """Return what has this name; if nothing has, what has its end; else what ends with it."""
        for start in range(len(parts)):
            found = self._whole.get(parts[start:])
            if found:
                return found
        return self._ends.get(parts, set())

    @cached_property
    def _whole(self) -> dict[tuple[str, ...], set[Wanted]]:
        found: dict[tuple[str, ...], set[Wanted]] = {}
        for name, item in self._list_named():
            found.setdefault(_parts_of(name), set()).add(item)
        return found

    @cached_property
    def _ends(self) -> dict[tuple[str, ...], set[Wanted]]:
        found: dict[tuple[str, ...], set[Wanted]] = {}
        for parts, items in self._whole.items():
            for start in range(1, len(parts)):
                known = found.setdefault(parts[start:], set())
                # One more than a name may mean tells that it means too many.
                if len(known) <= MOST_NAMESAKES:
                    known |= items
        return found


def _parts_of(name: str) -> tuple[str, ...]:
    name = name.removesuffix(VARIABLE_SUFFIX)
    for suffix in _SUFFIXES:
        name = name.removesuffix(suffix)
    parts = _SEPARATORS.split(name.removesuffix(":0"))
    return tuple(parts[-_MOST_PARTS:])
