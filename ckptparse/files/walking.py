"""The files below a directory, of which each is listed once: a link may lead back to one above."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping

from ckptparse.files.storage import FileStat, Storage, names_of_files

__all__ = ["MOST_FOLDERS", "Walk"]

MOST_FOLDERS = 10_000
"""Directories that are listed in all: each takes 50 µs, and no bytes."""


class Walk:
    """Lists directories as long as they are new, and not too many."""

    __slots__ = ("_left", "_seen", "_storage", "is_cut")

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._left = MOST_FOLDERS
        self._seen: set[Hashable] = set()
        self.is_cut = False
        """Whether there were too many."""

    def iter_files(
        self, path: str, status: FileStat, *, files_first: bool = False
    ) -> Iterator[tuple[str, int]]:
        """Iterate over files and their sizes: a file, or those of a directory and below it.

        Args:
            path: The file or directory.
            status: What the storage says of it.
            files_first: Whether the files of a directory come before all that lies deeper. Else
                they come in the order of their names, and what is in a directory in its place.
        """
        # Directories may lie deeper than calls may. What is not reached is asked nothing.
        top: Mapping[str, FileStat] = {path: status}
        pending = [("", top, path)]
        while pending:
            directory, listed, name = pending.pop()
            status = listed[name]
            place = path if listed is top else self._storage.join(directory, name)
            if status.kind == "file":
                yield place, status.size
            if status.kind != "directory":
                continue
            found = self.list(place, status)
            names = list(found)
            if files_first:
                if self.is_cut:
                    return
                files = dict.fromkeys(names_of_files(found))
                for file in files:
                    if found[file].kind == "file":
                        yield self._storage.join(place, file), found[file].size
                names = [one for one in reversed(names) if one not in files]
            pending += [(place, found, one) for one in reversed(names)]

    def list(self, path: str, status: FileStat) -> Mapping[str, FileStat]:
        """Return what is in a directory; nothing if it was listed before, or after too many.

        Args:
            path: The directory.
            status: What the storage says of it.

        Raises:
            PermissionDeniedError: It may not be listed.
        """
        if status.identity in self._seen:
            return {}
        self.is_cut = self._left == 0
        if self.is_cut:
            return {}
        self._left -= 1
        if status.identity is not None:
            self._seen.add(status.identity)
        return self._storage.list(path)
