"""The datasets of an HDF5 file by path, each object once: as h5py visits them, but within bounds.

h5py opens each object by its whole path, from the top: of groups in groups that is the square of
their number. Here each is opened from the group that it lies in.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ckptparse.errors import LimitError
from ckptparse.foreign import MOST_GROUPS
from ckptparse.limits import Budget, Limits, Members

__all__ = ["SLOTS", "iter_dataset_ids"]

SLOTS = 7
"""Pieces of a dataset that h5py keeps: by itself it makes room for thousands, of each dataset."""

_WEIGHT = 1.5
"""How many members of an archive an object takes as long as."""
_PATH_TIMES = 4
"""What a character of a path takes, in bytes: a path repeats the names of all groups above."""


def iter_dataset_ids(
    h5py: Any, file: Any, limits: Limits, members: Members, *, size: int
) -> Iterator[tuple[str, Any]]:
    """Iterate over the datasets of a file, those of a group in the order of their names.

    Links to other files, and links by name, are not followed.

    Args:
        h5py: The package.
        file: An open `h5py.File`.
        limits: Bounds on how deep they lie, and on what their paths take in memory.
        members: Counts groups and datasets.
        size: Of the file, in bytes.

    Returns:
        Path and `h5py.h5d.DatasetID` of each; of several paths of one, the first.

    Raises:
        LimitError: There are more than the limits allow.
        Exception: Whatever h5py raises of a damaged file.
    """
    walk = _Walk(h5py, members)
    paths = Budget(limits, size)
    top = file["/"].id
    walk.is_new(top)
    levels = [("", top, walk.list_names(top))]
    while levels:
        above, group, names = levels[-1]
        name = next(names, None)
        if name is None:
            levels.pop()
            continue
        found = h5py.h5o.open(group, name)
        if not walk.is_new(found):
            continue
        path = above + name.decode("utf-8", "surrogateescape")
        paths.take(_PATH_TIMES * len(path))
        if isinstance(found, h5py.h5d.DatasetID):
            yield path, found
        elif isinstance(found, h5py.h5g.GroupID):
            if len(levels) > max(limits.nesting, MOST_GROUPS):
                raise LimitError(
                    f"Groups lie in more than {MOST_GROUPS} others, and in more than "
                    f"Limits.nesting allows ({limits.nesting})",
                    limit="nesting",
                )
            levels.append((f"{path}/", found, walk.list_names(found)))


class _Walk:
    """What has been found of a file so far."""

    def __init__(self, h5py: Any, members: Members) -> None:
        self._h5py = h5py
        self._members = members
        self._seen: set[tuple[int, int]] = set()

    def list_names(self, group: Any) -> Iterator[bytes]:
        """Return the names in a group; they are counted before any of them is opened."""
        self._members.take(group.get_num_objs(), _WEIGHT)
        names: list[bytes] = []

        def add(name: bytes, link: Any) -> None:
            if link.type == self._h5py.h5l.TYPE_HARD:
                names.append(name)

        group.links.iterate(add, info=True)
        return iter(names)

    def is_new(self, found: Any) -> bool:
        """Tell whether an object has not been found under another path."""
        info = self._h5py.h5o.get_info(found)
        place = info.fileno, info.addr
        if place in self._seen:
            return False
        if info.rc > 1:
            self._seen.add(place)
        return True
