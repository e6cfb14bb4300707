"""Ask a storage for its files as rarely as possible: each directory is listed once."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, KeysView, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from ckptparse.filenames import keep_saved, split_data_path
from ckptparse.files.context import Context
from ckptparse.files.storage import FileStat, names_of_files
from ckptparse.parallel import run_all

if TYPE_CHECKING:
    from ckptparse.identification import Identity
    from ckptparse.inventory.inventory import Inventory

__all__ = ["MOST_NAMES", "DataName", "Folders", "names_around"]

_QUESTIONS = 16
"""Files that are asked for at a time."""

MOST_NAMES = 10_000
"""Names of a directory among which neighbours of a checkpoint are looked for. Each takes 50 µs, and
no bytes if the file is empty."""

Names = list[str]
"""`Folders` has a method `list`."""
DataName = tuple[str, int, int]
"""What the name of a data file says: see `split_data_path`."""


class Folders:
    """The directories that one call looks into.

    Attributes:
        context: Where files lie, and how much they may ask for.
        inventories: What paths mean, as `take_inventory` has told.
    """

    __slots__ = (
        "_data",
        "_identities",
        "_listed",
        "_names",
        "_owners",
        "_saved",
        "_sorted",
        "context",
        "inventories",
    )

    def __init__(self, context: Context) -> None:
        self.context = context
        self._listed: dict[str, Mapping[str, FileStat]] = {}
        self._names: dict[str, Names] = {}
        self._sorted: dict[str, Names] = {}
        self._data: dict[str, dict[str, DataName]] = {}
        self._owners: dict[str, set[str]] = {}
        self._identities: dict[str, Identity] = {}
        self._saved: dict[str, Names] = {}
        self.inventories: dict[str, Inventory] = {}

    def beside(self, context: Context) -> Folders:
        """Return the directories as they were listed, for another context of the same files."""
        others = Folders(context)
        others._listed, others._names = self._listed, self._names
        others._sorted, others._data = self._sorted, self._data
        return others

    @property
    def are_listed(self) -> bool:
        """Whether the storage knows what is in a directory; else what was asked for by name."""
        return bool(getattr(self.context.storage, "lists", True))

    def identify(self, path: str) -> Identity:
        """Tell what a file is; it is read once. Raises as `identify_file` does."""
        from ckptparse.identification import identify_file

        known = self._identities.get(path)
        if known is None:
            known = self._identities[path] = identify_file(path, self.context)
        return known

    def look_for(self, paths: Sequence[str]) -> None:
        """Ask for files by name, several at a time, so that they are known from here on."""
        ask = self.context.storage.stat
        run_all([partial(ask, path) for path in paths], _QUESTIONS)

    def list(self, directory: str) -> Mapping[str, FileStat]:
        """Return what is in a directory, sorted by name; nothing if there is no such directory.

        Raises:
            PermissionDeniedError: It may not be listed.
        """
        known = self._listed.get(directory)
        if known is None:
            known = self.context.storage.list(directory)
            if self.are_listed:
                self._listed[directory] = known
        return known

    def stat(self, path: str) -> FileStat | None:
        """Tell what is at a path; None if nothing is.

        Raises:
            PermissionDeniedError: A directory on the way may not be entered.
        """
        if self._listed:
            directory, name = self.context.storage.split(path)
            known = self._listed.get(directory)
            if known is not None and name:
                return known.get(name)
        return self.context.storage.stat(path)

    def is_file(self, path: str) -> bool:
        """Tell whether a regular file is at a path."""
        found = self.stat(path)
        return found is not None and found.kind == "file"

    def is_directory(self, path: str) -> bool:
        """Tell whether a directory is at a path."""
        found = self.stat(path)
        return found is not None and found.kind == "directory"

    def files(self, directory: str) -> KeysView[str]:
        """Return the names of the regular files of a directory, sorted, to look some up."""
        return dict.fromkeys(self.names(directory)).keys()

    def names(self, directory: str) -> Names:
        """Return the names of the regular files of a directory, sorted."""
        known = self._names.get(directory)
        if known is None:
            known = names_of_files(self.list(directory))
            if self.are_listed:
                self._names[directory] = known
        return known

    def saved(self, directory: str) -> Names:
        """Return the names in a directory that a save gives to anything but a V1 file, sorted.

        They are those of indexes, of data files, of parts and of what is not renamed yet; some
        others are among them.
        """
        known = self._saved.get(directory)
        if known is None:
            known = keep_saved(self.list(directory))
            if self.are_listed:
                self._saved[directory] = known
        return known

    def beginning(self, directory: str, start: str) -> Names:
        """Return the names in a directory that begin so, sorted."""
        names = self._sorted.get(directory)
        if names is None:
            names = [*self.list(directory)]
            if self.are_listed:
                self._sorted[directory] = names
        first = bisect_left(names, start)
        last = first
        while last < len(names) and names[last].startswith(start):
            last += 1
        return names[first:last]

    def data_files(self, directory: str) -> dict[str, DataName]:
        """Return the names in a directory that data files have, sorted, and what they say.

        There may be 100,000 of them: each is taken to pieces once.
        """
        known = self._data.get(directory)
        if known is None:
            split = ((name, split_data_path(name)) for name in self.saved(directory))
            known = {name: data for name, data in split if data is not None}
            if self.are_listed:
                self._data[directory] = known
        return known

    def owners(self, directory: str) -> set[str]:
        """Return the names of the checkpoints that have data files in a directory."""
        known = self._owners.get(directory)
        if known is None:
            known = {data[0] for data in self.data_files(directory).values()}
            if self.are_listed:
                self._owners[directory] = known
        return known

    def join(self, directory: str, name: str) -> str:
        """Return the path of a name in a directory."""
        return self.context.storage.join(directory, name)

    def split(self, path: str) -> tuple[str, str]:
        """Return the directory and the last name of a path."""
        return self.context.storage.split(path)

    def is_absolute(self, path: str) -> bool:
        """Tell whether a path means the same in every directory."""
        return self.join("a", path) == path


def names_around(names: Collection[str], name: str) -> list[str]:
    """Return the names in a directory; of very many, those nearest to one.

    Args:
        names: All, sorted.
        name: The name, which need not be there.
    """
    listed = list(names)
    if len(listed) <= MOST_NAMES:
        return listed
    first = max(0, bisect_left(listed, name) - MOST_NAMES // 2)
    return listed[first : first + MOST_NAMES]
