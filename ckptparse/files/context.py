"""Storage, limits and progress of one call of a public function, made where the call begins."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, BinaryIO, cast
from weakref import WeakValueDictionary

from ckptparse.errors import UnsupportedError
from ckptparse.filenames import INDEX_SUFFIX
from ckptparse.files.local import LOCAL
from ckptparse.files.storage import Content, Storage, is_file
from ckptparse.limits import DEFAULT_LIMITS, Limits

if TYPE_CHECKING:
    from ckptparse.files.archives.storage import ArchiveStorage

__all__ = [
    "FILE_OBJECT",
    "Cache",
    "Context",
    "Place",
    "Progress",
    "Store",
    "begin",
    "begin_with",
    "check_several",
    "find_storage",
    "find_target",
]

Progress = Callable[[int, int], None]
"""Called from time to time with the bytes read so far and the bytes to read."""

FILE_OBJECT = "<file object>"
"""The path of a file object that a caller gives in place of a path."""
Place = str | os.PathLike[str] | BinaryIO
"""A path as callers give it: text, whatever `os.fspath` takes, an open file; a `UPath` will do."""
Store = Storage | Mapping[str, Content] | Any | None
"""Where files are: a `Storage`, an obstore store, an fsspec file system, or a mapping of names to
bytes or file objects. None: on this machine, or where a URL says."""


Cache = str | os.PathLike[str] | None
"""A directory that keeps what is read of buckets and servers; None keeps nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """Where files are, how much they may ask for, and whom to tell about progress."""

    storage: Storage = LOCAL
    limits: Limits = DEFAULT_LIMITS
    progress: Progress | None = None
    archive: ArchiveStorage | None = None
    """The archive that the files are in; it keeps temporary files open."""
    known_names: Sequence[str] = ()
    """Names of the tensors of another checkpoint that is open at the same time: those of this one
    that are the same are the same objects, and take no memory of their own."""

    def close(self) -> None:
        """Remove the temporary files that an archive was unpacked to."""
        if self.archive is not None:
            self.archive.close()

    def share(self, count: int) -> Context:
        """Return the same for each of so many that are open together: of memory a part each."""
        memory_bytes = self.limits.memory_bytes // count
        return replace(self, limits=replace(self.limits, memory_bytes=memory_bytes))

    def absolute(self, path: str) -> str:
        """Return a path that means the same from every directory of this machine."""
        absolute: Callable[[str], str] | None = getattr(self.storage, "absolute", None)
        return path if absolute is None else absolute(path)

    def again(self) -> Context:
        """Return the same for whoever opens the files again: an archive is opened by each."""
        if self.archive is None:
            return replace(self, progress=None, known_names=())
        archive = self.archive.again()
        return replace(self, storage=archive, archive=archive, progress=None, known_names=())

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the storage, by which the files are found, and the limits; nobody is told more.

        Raises:
            UnsupportedError: The storage holds what no other process can have.
        """
        return _unpickle, (_pickle(self.storage), self.limits)

    def read_whole(self, path: str, limit: str, what: str) -> bytes:
        """Read a file that is small, or too large for a limit.

        Args:
            path: The file.
            limit: The field of `Limits` that bounds its size.
            what: What the limit is for, in the error: `The size of the index`.

        Raises:
            CheckpointNotFoundError: There is no such file.
            LimitError: It is larger than the limit.
        """
        with closing(self.storage.open(path)) as source:
            self.limits.check(limit, source.size, what, path=path)
            return source.read_at(0, source.size)


def _pickle(storage: Storage) -> bytes:
    try:
        return pickle.dumps(storage)
    except Exception as error:
        raise UnsupportedError(
            f"The store cannot be handed to another process: {error}",
            hint="Give a path, a URL, or a store that can be pickled; file objects cannot, their "
            "bytes can",
        ) from error


def _unpickle(storage: bytes, limits: Limits) -> Context:
    """Make a context whose storage is the one that this process has of the same, if any."""
    known = _STORAGES.get(storage)
    if known is None:
        known = pickle.loads(storage)  # noqa: S301 - a part of what is being unpickled
        with suppress(TypeError):  # Of some nobody can tell when they are let go.
            _STORAGES[storage] = known
    return Context(storage=known, limits=limits)


_STORAGES: WeakValueDictionary[bytes, Storage] = WeakValueDictionary()
"""Storages that came out of pickles, by these."""


def begin(
    path: Place,
    *,
    store: Store = None,
    cache: Cache = None,
    limits: Limits = DEFAULT_LIMITS,
    progress: Progress | None = None,
    choose: bool = True,
    lenient: bool = False,
) -> tuple[str, Context]:
    """Begin a call of a public function: return the path as text, and the context of the call.

    Args:
        path: The path that the caller gave.
        store: Where it is.
        cache: Directory that keeps what is read of files that are not on this machine.
        limits: Bounds on what files may ask for.
        progress: Called with the progress of the work.
        choose: Whether the path of an archive means the checkpoint in it, or the archive itself.
        lenient: Whether to take the members of a damaged archive that come before the damage.

    Raises:
        TypeError: An argument has the wrong type: `limits=3`, a list for a path.
        CheckpointError: The path is that of an archive that cannot be read.
    """
    if not isinstance(limits, Limits):
        raise TypeError(
            f"Expected limits to be a ckptparse.Limits, such as Limits(entries=1000), "
            f"found {type(limits).__name__}"
        )
    if progress is not None and not callable(progress):
        raise TypeError(f"Expected progress to be a function, found {type(progress).__name__}")
    text, storage = find_storage(path, store)
    if cache is not None and hasattr(storage, "scope"):
        from ckptparse.files.cache import BlockStore, CachedStorage

        storage = CachedStorage(storage, BlockStore(os.fsdecode(cache), limits.cache_bytes))
    plain = Context(storage=storage, limits=limits, progress=progress)
    # A checkpoint that is found by its prefix is in no archive.
    if not text or "\0" in text or is_file(storage, text + INDEX_SUFFIX):
        return text, plain
    from ckptparse.files.archives.entering import enter_archive

    entered = enter_archive(text, storage, limits, choose=choose, lenient=lenient)
    if entered is None:
        return text, plain
    inside, archive = entered
    return inside, Context(storage=archive, limits=limits, progress=progress, archive=archive)


def begin_with(
    source: Any,
    *,
    store: Store = None,
    cache: Cache = None,
    limits: Limits = DEFAULT_LIMITS,
    progress: Progress | None = None,
) -> tuple[Any, Context]:
    """Begin a call that takes a path, or a value that is open already, which is given back.

    Raises:
        TypeError: As for `begin`.
    """
    if isinstance(source, (str, bytes, os.PathLike)) or _find_value(source) is not None:
        return begin(source, store=store, cache=cache, limits=limits, progress=progress)
    return source, begin("", store=store, limits=limits, progress=progress)[1]


def find_storage(path: Place, store: Store) -> tuple[str, Storage]:
    """Return the path as text and the storage that a caller means.

    Raises:
        TypeError: `store` is no storage.
        UnsupportedError: The path is a URL, and the package that reads it is not installed.
    """
    if store is None and not isinstance(path, (str, bytes, os.PathLike)):
        found = _find_value(path)
        if found is not None:
            return found
    text = path if isinstance(path, str) else os.fsdecode(cast("os.PathLike[str]", path))
    if store is None:
        return open_url(text) if "://" in text else (text, LOCAL)
    if isinstance(store, Mapping):
        from ckptparse.files.memory import MemoryStorage

        return text, MemoryStorage(store)
    if type(store).__module__.startswith("obstore"):
        return text, _find_obstore(store)
    if hasattr(store, "cat_file") and hasattr(store, "protocol"):
        from ckptparse.files.filesystem import FilesystemStorage

        return text, FilesystemStorage(store)
    if all(callable(getattr(store, name, None)) for name in _METHODS):
        return text, store
    raise TypeError(
        f"Expected store to be a ckptparse.Storage, an obstore store, an fsspec file system, or a "
        f"mapping of names to bytes or file objects, found {type(store).__name__}"
    )


def find_target(path: Any, store: Store) -> tuple[str, Storage | None]:
    """Return the path as text, and the storage in which a caller wants it written.

    None: on this machine, or where the URL leads that it is.

    Raises:
        TypeError: As for `find_storage`, or the path is an open file.
    """
    if store is None and not isinstance(path, (str, bytes, os.PathLike)):
        found = _find_value(path)
        if found is not None and found[0] != FILE_OBJECT:
            return found
    text = os.fsdecode(path)
    if store is not None:
        return text, find_storage(text, store)[1]
    if "://" in text:
        from ckptparse.files.file_urls import local_path

        text = local_path(text)
    return text, None


def _find_obstore(store: Any) -> Storage:
    if type(store).__name__ == "HTTPStore":
        from ckptparse.files.web import WebStorage

        return WebStorage(store)
    from ckptparse.files.remote import ObjectStorage

    return ObjectStorage(store)


def _find_value(path: Any) -> tuple[str, Storage] | None:
    """Return path and storage of what is no text: a file object, or a `UPath`; None for others."""
    if callable(getattr(path, "read", None)) and callable(getattr(path, "seek", None)):
        from ckptparse.files.memory import MemoryStorage

        return FILE_OBJECT, MemoryStorage({FILE_OBJECT: path})
    filesystem, text = getattr(path, "fs", None), getattr(path, "path", None)
    if hasattr(filesystem, "cat_file") and isinstance(text, str):
        from ckptparse.files.filesystem import place_of

        return place_of(str(path), text, filesystem)
    return None


def open_url(url: str) -> tuple[str, Storage]:
    """Return the path and the storage of a URL.

    A file of this machine has its path. Buckets and web servers are read by `obstore`, if it is
    installed. All others, and chains such as `zip://…::s3://…`, are read by `fsspec` and its
    plugins.

    Raises:
        UnsupportedError: Neither is installed, or no plugin knows the scheme.
    """
    scheme = url.partition("://")[0].lower()
    if scheme == "file" and "::" not in url:
        from ckptparse.files.file_urls import local_path

        return local_path(url), LOCAL
    if scheme in _BUCKETS and "::" not in url and find_spec("obstore") is not None:
        from ckptparse.files.remote import open_url as open_by_obstore

        return open_by_obstore(url)
    from ckptparse.files.filesystem import open_url as open_by_fsspec

    return open_by_fsspec(url)


_METHODS = ("open", "stat", "list", "join", "split", "real")
_BUCKETS = ("s3", "s3a", "gs", "az", "azure", "abfs", "abfss", "adl", "http", "https")
"""Schemes that obstore reads."""


def check_several(what: str, paths: object) -> None:
    """Refuse one path where several are wanted: text would be taken for a path a character.

    Raises:
        TypeError: It is one path.
    """
    if isinstance(paths, (str, bytes, os.PathLike)):
        one = os.fspath(paths)
        raise TypeError(f"{what} takes several paths, not one: did you mean [{one!r}]?")
