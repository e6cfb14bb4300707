"""Checkpoints that are opened again: in another process, and by a copy in this one.

    Checkpoint, Tensor --pickle--> Origin: an Opener, and the fingerprint of the files
    Origin --first use--> ReopenedBackend --> the process's one open file set of these files

What is pickled is how a checkpoint was opened, not what it holds. Nothing is opened before the
first use. All that means the same files with the same options shares one open file set in each
process, which is closed with the last that uses it.
"""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any, Literal
from weakref import WeakValueDictionary

import numpy.typing as npt

from ckptparse.backend import Backend, Format, Opener, OrphanSlice
from ckptparse.backend.places import Places
from ckptparse.errors import ClosedError, StorageError
from ckptparse.locks import make_lock
from ckptparse.tensor import ReadOptions, Tensor

__all__ = ["ReopenedBackend", "check_unchanged"]


def check_unchanged(found: Hashable, expected: Hashable, path: str) -> None:
    """Raise `StorageError` if a file is not the one that was pickled or copied."""
    if found != expected:
        raise StorageError(
            f"It was changed after it was pickled or copied: expected {expected}, found {found}",
            path=path,
            hint="Open it anew by its path if the new content is wanted",
        )


class _OpenFiles:
    """The open file set of one checkpoint, for all in this process that mean the same."""

    __slots__ = ("__weakref__", "_backend", "_lock")

    def __init__(self) -> None:
        self._backend: Backend | None = None
        self._lock = make_lock()

    def take(self, opener: Opener, expected: Hashable) -> Backend:
        """Open the files, if nobody has, and check that they are those that were pickled."""
        with self._lock:
            if self._backend is None:
                backend = opener.open()
                found = backend.fingerprint()
                try:
                    check_unchanged(found, expected, opener.path)
                except StorageError:
                    backend.close()
                    raise
                self._backend = backend
            return self._backend


class _Registry:
    """Which file sets are open in this process. Nothing in it is kept open by it."""

    def __init__(self) -> None:
        self._lock = make_lock()
        self._open: WeakValueDictionary[tuple[Opener, Hashable], _OpenFiles] = WeakValueDictionary()

    def find(self, opener: Opener, fingerprint: Hashable) -> _OpenFiles:
        with self._lock:
            found = self._open.get((opener, fingerprint))
            if found is None:
                found = self._open[opener, fingerprint] = _OpenFiles()
            return found

    def forget(self) -> None:
        """Start anew: in a forked process another thread may have held the lock for ever."""
        self.__init__()  # type: ignore[misc]


_REGISTRY = _Registry()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_REGISTRY.forget)


class ReopenedBackend:
    """The files of a checkpoint, opened again at first use; a `Backend` like the one they had.

    Closing it lets go of the files, which stay open for others that share them.
    """

    def __init__(self, opener: Opener, fingerprint: Hashable) -> None:
        self._opener = opener
        self._fingerprint = fingerprint
        self._files: _OpenFiles | None = None
        self._closed = False

    @property
    def format(self) -> Format:
        """Which format."""
        return self._opener.format

    @property
    def num_shards(self) -> int:
        """The number of data files."""
        return self._opened().num_shards

    @property
    def byte_order(self) -> Literal["little", "big"]:
        """Of the stored elements."""
        return self._opened().byte_order

    @property
    def files(self) -> tuple[str, ...]:
        """Every path it consists of, there or not."""
        return self._opened().files

    def data_sizes(self) -> Mapping[str, int]:
        """See `Backend`."""
        return self._opened().data_sizes()

    def names(self) -> Sequence[str]:
        """See `Backend`."""
        return self._opened().names()

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """See `Backend`."""
        return self._opened().shapes()

    def find(self, name: str, options: ReadOptions) -> Tensor | None:
        """See `Backend`."""
        return self._opened().find(name, options)

    def iter_tensors(self, options: ReadOptions, *, without: str | None = None) -> Iterator[Tensor]:
        """See `Backend`."""
        return self._opened().iter_tensors(options, without=without)

    def places(self) -> Places:
        """See `Backend`."""
        return self._opened().places()

    def read_many(self, names: Sequence[str], options: ReadOptions) -> list[npt.NDArray[Any]]:
        """See `Backend`."""
        return self._opened().read_many(names, options)

    def orphan_slices(self) -> list[OrphanSlice]:
        """See `Backend`."""
        return self._opened().orphan_slices()

    def fingerprint(self) -> Hashable:
        """Return what the files must have: it was taken when they were pickled."""
        self.check_open()
        return self._fingerprint

    def close(self) -> None:
        """Let go of the files."""
        self._closed = True
        self._files = None

    def check_open(self) -> None:
        """Raise `ClosedError` once closed."""
        if self._closed:
            raise ClosedError(
                "The checkpoint has been closed",
                path=self._opener.path,
                hint="Open it again to read on",
            )

    def _opened(self) -> Backend:
        self.check_open()
        files = self._files
        if files is None:
            files = self._files = _REGISTRY.find(self._opener, self._fingerprint)
            if self._closed:  # By another thread meanwhile, which let go of what was found.
                self._files = None
        return files.take(self._opener, self._fingerprint)
