"""A storage that notes which files are opened: what a report names as its inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ckptparse.files.storage import FileStat, Source, Storage

__all__ = ["NotedStorage"]


class NotedStorage:
    """Another storage, and the files that were opened through this one.

    Attributes:
        opened: Path and size in bytes of every file, in the order in which they were opened first.
    """

    __slots__ = ("_listed", "_storage", "opened")

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self.opened: dict[str, int] = {}
        self._listed: tuple[str, Mapping[str, FileStat]] | None = None

    @property
    def beneath(self) -> Storage:
        """The other storage: for workers elsewhere, whose notes nobody would see."""
        return self._storage

    @property
    def lists(self) -> bool:
        """Whether the storage knows what is in a directory."""
        return bool(getattr(self._storage, "lists", True))

    def open(self, path: str) -> Source:
        """Open a file, and note it; raises as the storage does."""
        source = self._storage.open(path)
        self.opened.setdefault(path, source.size)
        return source

    def forget(self, path: str) -> None:
        """Forget what is known of a file."""
        self._listed = None
        forget: Callable[[str], None] | None = getattr(self._storage, "forget", None)
        if forget is not None:
            forget(path)

    def stat(self, path: str) -> FileStat | None:
        """Tell what lies at a path."""
        return self._storage.stat(path)

    def list(self, directory: str) -> Mapping[str, FileStat]:
        """Return what lies in a directory; of one that is asked for again, what lay there."""
        if not self.lists:
            return self._storage.list(directory)
        if self._listed is None or self._listed[0] != directory:
            self._listed = directory, self._storage.list(directory)
        return self._listed[1]

    def join(self, directory: str, name: str) -> str:
        """Return the path of a name in a directory."""
        return self._storage.join(directory, name)

    def real(self, path: str) -> str:
        """Return the path of the same file with links followed."""
        return self._storage.real(path)

    def finds_no_link(self, path: str) -> bool | None:
        """Tell whether the last name of a path is no link; False if the storage cannot tell."""
        find: Callable[[str], bool | None] | None = getattr(self._storage, "finds_no_link", None)
        return False if find is None else find(path)

    def absolute(self, path: str) -> str:
        """Return a path that means the same from everywhere, if the storage can tell."""
        absolute: Callable[[str], str] | None = getattr(self._storage, "absolute", None)
        return path if absolute is None else absolute(path)

    def split(self, path: str) -> tuple[str, str]:
        """Return directory and last name of a path."""
        return self._storage.split(path)
