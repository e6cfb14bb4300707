"""The files below a directory, of which each is listed once: a link may lead back to one above."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping

from ckptparse.files.storage import FileStat, Storage

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
        # Directories may lie deeper than calls may.
        pending = [(path, status)]
        while pending:
            place, status = pending.pop()
            if status.kind == "file":
                yield place, status.size
            if status.kind != "directory":
                continue
            listed = self.list(place, status).items()
            found = [(self._storage.join(place, name), one) for name, one in listed]
            if files_first:
                yield from ((file, one.size) for file, one in found if one.kind == "file")
                pending += [(below, one) for below, one in found if one.kind == "directory"]
            else:
                pending += reversed(found)

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
