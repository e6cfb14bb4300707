"""Ask a storage for its files as rarely as possible: each directory is listed once."""

from __future__ import annotations

from collections.abc import Mapping

from ckptparse.files.context import Context
from ckptparse.files.storage import FileStat

__all__ = ["Folders"]


class Folders:
    """The directories that one call looks into.

    Attributes:
        context: Where files lie, and how much they may ask for.
    """

    __slots__ = ("_listed", "context")

    def __init__(self, context: Context) -> None:
        self.context = context
        self._listed: dict[str, Mapping[str, FileStat]] = {}

    def list(self, directory: str) -> Mapping[str, FileStat]:
        """Return what is in a directory, sorted by name; nothing if there is no such directory.

        Raises:
            PermissionDeniedError: It may not be listed.
        """
        known = self._listed.get(directory)
        if known is None:
            known = self._listed[directory] = self.context.storage.list(directory)
        return known

    def stat(self, path: str) -> FileStat | None:
        """Tell what is at a path; None if nothing is.

        Raises:
            PermissionDeniedError: A directory on the way may not be entered.
        """
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

    def files(self, directory: str) -> Mapping[str, FileStat]:
        """Return the regular files of a directory, sorted by name."""
        listed = self.list(directory)
        return {name: status for name, status in listed.items() if status.kind == "file"}

    def join(self, directory: str, name: str) -> str:
        """Return the path of a name in a directory."""
        return self.context.storage.join(directory, name)

    def split(self, path: str) -> tuple[str, str]:
        """Return the directory and the last name of a path."""
        return self.context.storage.split(path)

    def is_absolute(self, path: str) -> bool:
        """Tell whether a path means the same in every directory."""
        return self.join("a", path) == path
