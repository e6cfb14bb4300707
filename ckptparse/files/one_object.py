"""One object behind a URL with a query, such as a signed one: nobody may ask what is beside it.

Its size comes with its first byte: a signature for reading is good for nothing else.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from typing import Any

from ckptparse.errors import CheckpointNotFoundError
from ckptparse.files.ranges import RemoteSource
from ckptparse.files.remote import ask, open_object, usual_retries
from ckptparse.files.retries import Retries
from ckptparse.files.storage import FileStat, split_name
from ckptparse.locks import make_lock

__all__ = ["OneObjectStorage"]


class OneObjectStorage:
    """An object as the only file of a file system.

    Attributes:
        path: Its URL without the query, which stands in no message.
    """

    names_tags = True
    """Whether each request says of which ETag the object must be."""

    def __init__(self, store: Any, path: str, *, retries: Retries | None = None) -> None:
        """Take the `obstore` store of the whole URL: the object has the empty key there."""
        self.path = path
        self.retries = retries
        self._store = store
        self._lock = make_lock()
        self._status: FileStat | None = None

    def open(self, path: str) -> RemoteSource:
        """Open the object."""
        status = self.stat(path)
        if status is None:
            raise CheckpointNotFoundError("No such object", path=path)
        return open_object(self._store, "", path, status, self.retries)

    def stat(self, path: str) -> FileStat | None:
        """Tell what the object is; None for every other path."""
        if path != self.path:
            return None
        with self._lock:
            if self._status is None:
                options = {"range": (0, 1)}
                answer = ask(
                    path, lambda: self._store.get("", options=options), retries=self.retries
                )
                meta = answer.meta
                self._status = FileStat("file", meta["size"], meta["e_tag"])
            return self._status

    def list(self, directory: str) -> Mapping[str, FileStat]:  # noqa: ARG002 - as every storage
        """Return nothing: nobody may ask."""
        return {}

    def join(self, directory: str, name: str) -> str:
        """Return the path of a name in a directory."""
        return name if directory in ("", ".") else posixpath.join(directory, name)

    def real(self, path: str) -> str:
        """Return the path."""
        return path

    def split(self, path: str) -> tuple[str, str]:
        """Return directory and last name of a path."""
        return split_name(path)

    def scope(self, path: str) -> str | None:  # noqa: ARG002 - it has one
        """Return what tells the object from others: the whole URL, of which only a hash is kept."""
        return str(getattr(self._store, "url", "")) or None

    def __getstate__(self) -> tuple[Any, str]:
        return self._store, self.path

    def __setstate__(self, state: tuple[Any, str]) -> None:
        self.__init__(*state, retries=usual_retries())  # type: ignore[misc] # a lock is made anew

    def __repr__(self) -> str:
        return f"<OneObjectStorage {self.path!r}>"
