"""Read objects of a bucket by range, with `obstore`.

A directory is listed once, which gives the sizes and ETags of its objects. So a thousand data files
take one request. Each range is requested on the condition that the ETag is still the same. If an
object was replaced meanwhile, this is an error, and never a mix of two objects.
"""

from __future__ import annotations

import os
import posixpath
import threading
from base64 import b64encode
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, BinaryIO, TypeVar
from urllib.parse import unquote, urlsplit, urlunsplit

from ckptparse.errors import (
    CheckpointError,
    CheckpointNotFoundError,
    NotACheckpointError,
    OutputExistsError,
    PermissionDeniedError,
    StorageError,
    UnsupportedError,
)
from ckptparse.files.ranges import RemoteSource, body_of, pour
from ckptparse.files.retries import Retries, is_refused
from ckptparse.files.storage import FileStat, Storage
from ckptparse.locks import make_lock

__all__ = [
    "ObjectStorage",
    "ask",
    "is_outside",
    "matching",
    "open_object",
    "open_url",
    "stat_of",
    "usual_retries",
]

Result = TypeVar("Result")

_LASTING = timedelta(seconds=60)
"""A failure that lasts is an error after that time at the latest: 5 s in which a web server does
not say whether it has lists, 20 s in which requests are begun again, a pause of 5 s, and one more
request."""
_RETRIES: Any = {
    "max_retries": 8,
    "retry_timeout": timedelta(seconds=20),
    "backoff": {
        "init_backoff": timedelta(milliseconds=100),
        "max_backoff": timedelta(seconds=5),
        "base": 2,
    },
}
_PLACE = ("endpoint", "bucket", "container_name", "account_name", "region")
"""What says of a store where it is, other than who may read it."""
_LISTING = "listing"
"""What a request is for that lists a directory."""
_PART = 8 << 20
"""Bytes of a part of a large object; a smaller object is sent at once."""
_PARTS_AT_ONCE = 4
"""Parts that are sent at the same time: they are in memory, 32 MiB together."""
_CLIENT: Any = {"connect_timeout": timedelta(seconds=10), "timeout": timedelta(seconds=30)}
_ONCE: Any = {"timeout": timedelta(seconds=5)}
"""For what is asked only once."""


def open_object(
    store: Any, key: str, path: str, status: FileStat, retries: Retries | None = None
) -> RemoteSource:
    """Open an object of an `obstore` store, of that size and for as long as it is the same."""
    match = matching(status.identity)

    def get(offset: int, size: int) -> Any:
        return store.get(key, options={"range": (offset, offset + size), **match})

    def fetch(offset: int, size: int) -> Any:
        return ask(path, lambda: body_of(get(offset, size), size), retries=retries)

    def fill(offset: int, buffer: memoryview) -> int:
        return ask(path, lambda: pour(get(offset, len(buffer)), buffer), retries=retries)

    return RemoteSource(path, status.size, fetch, fill)


def matching(tag: object) -> Mapping[str, Any]:
    """Return the condition of a request that the ETag is still the same.

    A server never finds a weak one equal (RFC 9110, section 13.1.1), so it is not asked.
    """
    return {"if_match": tag} if isinstance(tag, str) and not tag.startswith("W/") else {}


class ObjectStorage:
    """An `obstore` store as a file system.

    Attributes:
        root: The start of all paths, such as `s3://bucket/`; empty if paths are the keys.
    """

    names_tags = True
    """Whether each request says of which ETag the object must be."""

    def __init__(self, store: Any, *, root: str = "", reader: Any = None) -> None:
        """Take a store.

        Args:
            store: Writes; it makes requests again as it was told when it was made.
            root: The start of all paths.
            reader: Reads: the same store, which makes each request once. What is made again is
                counted here. None: `store` reads too.
        """
        self.root = root
        self.retries = None if reader is None else usual_retries()
        self._store = store
        self._reader = reader if reader is not None else store
        self._lock = make_lock()
        self._listed: dict[str, dict[str, FileStat]] = {}

    def open(self, path: str) -> RemoteSource:
        """Open an object. Its size and ETag are those in the list of its directory."""
        status = self.stat(path)
        if status is None:
            raise CheckpointNotFoundError("No such object", path=path)
        if status.kind != "file":
            raise NotACheckpointError("Expected an object, found a directory", path=path)
        return open_object(self._reader, self._key(path), path, status, self.retries)

    def stat(self, path: str) -> FileStat | None:
        """Tell what is at a path: an object, a directory of objects, or None."""
        key = self._key(path)
        if not key:
            return FileStat("directory")
        directory, name = posixpath.split(key)
        return None if is_outside(key) else self._list(directory).get(name)

    def list(self, directory: str) -> Mapping[str, FileStat]:
        """Return what is in a directory."""
        key = self._key(directory)
        return {} if is_outside(key) else dict(sorted(self._list(key).items()))

    def join(self, directory: str, name: str) -> str:
        """Return the path of a name in a directory."""
        return name if directory in ("", ".") else posixpath.join(directory, name)

    def real(self, path: str) -> str:
        """Return the path: objects have no links."""
        return path

    def split(self, path: str) -> tuple[str, str]:
        """Return the directory and the last name of a path."""
        directory, name = posixpath.split(path)
        return (self.root.rstrip("/") if f"{directory}/" == self.root else directory), name

    @property
    def read_only(self) -> bool:
        """Whether nothing can be written."""
        return False

    def scope(self, path: str) -> str | None:  # noqa: ARG002 - one store has one bucket
        """Return what tells its objects from those of other stores with the same path."""
        config: Mapping[str, Any] = getattr(self._store, "config", None) or {}
        named = {str(name): str(value) for name, value in config.items()}
        place = [f"{name}={named.get(name)}" for name in _PLACE]
        url = getattr(self._store, "url", "")
        prefix = getattr(self._store, "prefix", None)
        return "\n".join((type(self._store).__name__, self.root, str(url), str(prefix), *place))

    def put(self, path: str, file: BinaryIO, size: int, *, overwrite: bool) -> None:
        """Send an object, a large one in parts of 8 MiB; see `WritableStorage`."""
        key, store = self._key(path), self._store
        small = size <= _PART
        # A bucket can promise only for small ones that no other has come into being meanwhile.
        mode = "create" if small and not overwrite else "overwrite"

        def send() -> Any:
            if small:
                return store.put(key, file.read(size), mode=mode, use_multipart=False)
            return store.put(key, file, chunk_size=_PART, max_concurrency=_PARTS_AT_ONCE)

        ask(path, send, to="writing")
        self.forget(path)

    def remove(self, path: str) -> None:
        """Remove an object; see `WritableStorage`."""
        key = self._key(path)
        ask(path, lambda: self._store.delete(key), to="removing")
        self.forget(path)

    def forget(self, path: str) -> None:  # noqa: ARG002 - of a list all is forgotten
        """Forget what is known of an object, so that it is asked for again."""
        with self._lock:
            self._listed.clear()

    def __getstate__(self) -> tuple[Any, ...]:
        return self._store, self.root, None if self.retries is None else self._reader

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        store, root, reader = state
        self.__init__(store, root=root, reader=reader)  # type: ignore[misc] # makes a new lock

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.root!r}>"

    def _key(self, path: str) -> str:
        key = path.removeprefix(self.root.rstrip("/")).strip("/") if path != "." else ""
        # A state file may name `../run/model`; no key has such a part.
        return posixpath.normpath(key) if ".." in key else key

    def _list(self, directory: str) -> dict[str, FileStat]:
        """List a directory, once."""
        with self._lock:
            if directory not in self._listed:
                self._listed[directory] = self._list_of(directory, self._reader, self.retries)
            return self._listed[directory]

    def _list_of(
        self, directory: str, store: Any, retries: Retries | None = None
    ) -> dict[str, FileStat]:
        where = posixpath.join(self.root, directory)
        found = ask(where, lambda: _list_once(store, directory), to=_LISTING, retries=retries)
        names = {
            name.rpartition("/")[2]: FileStat("directory") for name in found["common_prefixes"]
        }
        for meta in found["objects"]:
            names[meta["path"].rpartition("/")[2]] = stat_of(meta)
        return names


def _list_once(store: Any, directory: str) -> Any:
    """List a directory. A server that gives more and more of it is left after a minute.

    The library asks for one part after the other, in native code, for as long as each names another
    one. Only what it does for a loop of `asyncio` can be ended.
    """
    begin = getattr(store, "list_with_delimiter_async", None)
    if begin is None:
        return store.list_with_delimiter(directory or None)
    import asyncio

    async def wait() -> Any:
        return await asyncio.wait_for(begin(directory or None), _LASTING.total_seconds())

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(wait())
    # The caller's thread has a loop already, and may have no other.
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, wait()).result()


def is_outside(key: str) -> bool:
    """Tell whether a path leads out of the bucket, where nothing is."""
    return key == ".." or key.startswith("../")


def open_url(url: str) -> tuple[str, Storage]:
    """Return the path and the storage of a URL: `s3`, `gs`, `az` and the like, `http(s)`.

    The path is the URL without user, password and query, which stand in no message. A web server's
    URL with a query (a signed one, say) is one object, and nothing lies beside it.

    Raises:
        UnsupportedError: `obstore` is not installed, or cannot read such URLs.
    """
    parts = urlsplit(url)
    place = parts.netloc.rpartition("@")[2]
    root = f"{parts.scheme}://{place}/"
    shown = urlunsplit((parts.scheme, place, parts.path, "", ""))
    alone, web = bool(parts.query), parts.scheme.startswith("http")
    if alone and not web:
        raise UnsupportedError(
            "The URL of a bucket has no query",
            path=shown,
            hint="Give the URL without '?' and what follows it, and credentials in the environment",
        )
    try:
        from obstore import store as stores
    except ImportError as error:
        raise UnsupportedError(
            "Reading from a bucket needs the package obstore",
            path=shown,
            hint="pip install 'ckptparse[remote]'",
        ) from error
    client: dict[str, Any] = {**_CLIENT, "allow_http": _allows_http(parts.scheme)}
    if web and parts.username is not None:
        client["default_headers"] = {"Authorization": _basic(parts.username, parts.password or "")}
    base = url.partition("#")[0] if alone else f"{parts.scheme}://{parts.netloc}"
    # It has a signature for each kind of store, and only the URL tells which.
    from_url: Any = stores.from_url
    each_once = {**_RETRIES, "max_retries": 0}

    def make(retry_config: Any, options: Any) -> Any:
        return ask(shown, lambda: from_url(base, client_options=options, retry_config=retry_config))

    reader = make(each_once, client)
    if alone:
        from ckptparse.files.one_object import OneObjectStorage

        return shown, OneObjectStorage(reader, shown, retries=usual_retries())
    if web:
        from ckptparse.files.web import WebStorage

        return shown, WebStorage(reader, root=root, once=make(each_once, {**client, **_ONCE}))
    return shown, ObjectStorage(make(_RETRIES, client), root=root, reader=reader)


def _basic(user: str, password: str) -> str:
    """Return what tells a web server who asks: the library leaves out what stands in the URL.

    It is not sent on to another host by a redirect.
    """
    told = f"{unquote(user)}:{unquote(password)}"
    return "Basic " + b64encode(told.encode("utf-8", "replace")).decode()


def usual_retries() -> Retries:
    """Return how often and how long requests are made again: as the library does."""
    backoff = _RETRIES["backoff"]
    return Retries(
        most=_RETRIES["max_retries"],
        within=_RETRIES["retry_timeout"].total_seconds(),
        first=backoff["init_backoff"].total_seconds(),
        longest=backoff["max_backoff"].total_seconds(),
    )


def _allows_http(scheme: str) -> bool:
    """Tell whether requests may be unencrypted: the URL or the environment says so.

    The library reads the environment too, but not if it is given options of the client.
    """
    names = ("AWS_ALLOW_HTTP", "AZURE_ALLOW_HTTP", "GOOGLE_ALLOW_HTTP")
    told = (os.environ.get(name, "").lower() for name in names)
    return scheme == "http" or any(value in ("1", "true", "yes", "on") for value in told)


def stat_of(meta: Mapping[str, Any]) -> FileStat:
    """Return what an answer says of an object."""
    return FileStat("file", meta["size"], meta["e_tag"])


def ask(
    path: str,
    request: Callable[[], Result],
    *,
    to: str = "reading",
    retries: Retries | None = None,
) -> Result:
    """Make a request, and say why it failed without the words of the library.

    Those may have the URL with its password.

    Args:
        path: What it is about.
        request: Makes it.
        to: What it is for.
        retries: How it is made again; None if the library does that.
    """
    _CLIENT_THREADS.check(path)
    try:
        if retries is None:
            return _interruptible(request)
        return retries.insist(path, lambda: _interruptible(request))
    except Exception as error:  # noqa: BLE001 - the library's own have no common class
        kind = "ConnectionRefused" if is_refused(error) else type(error).__name__
        # From here on without the library's error, whose text may have a password.
    raise (_explain_list(kind, path) if to == _LISTING else None) or _explain(kind, path, to)


class _ClientThreads:
    """Whether the threads that the library makes requests by are those of this process.

    It starts them at the first request. A forked child has none, and would wait for ever.
    """

    def __init__(self) -> None:
        self._started = self._lost = False

    def check(self, path: str) -> None:
        """Raise if they are those of a parent; else they will be there from now on."""
        if self._lost:
            raise UnsupportedError(
                "A forked process cannot make requests if the process that it was forked from "
                "has made some: the threads that wait for answers are not there",
                path=path,
                hint="Start processes by 'spawn': multiprocessing.get_context('spawn')",
            )
        self._started = True

    def forked(self) -> None:
        """Take note that this is a forked child."""
        self._lost = self._lost or self._started


_CLIENT_THREADS = _ClientThreads()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_CLIENT_THREADS.forked)


def _explain(kind: str, path: str, to: str) -> CheckpointError:
    """Return our error for one of the library's, of which only the name of its class is told."""
    if kind in ("PermissionDeniedError", "UnauthenticatedError"):
        return PermissionDeniedError(
            f"The server does not allow {to} it",
            path=path,
            hint="Set credentials in the environment, as for the provider's own tools",
        )
    if kind in ("FileNotFoundError", "NotFoundError"):
        return CheckpointNotFoundError("No such object", path=path)
    if kind == "AlreadyExistsError":
        return OutputExistsError(
            "Something is there already, and nothing is ever replaced unasked",
            path=path,
            hint="Choose another name, or ask to overwrite it",
        )
    if kind == "PreconditionError":
        return StorageError(
            "The object was replaced while it was read",
            path=path,
            hint="Read it again when no other program writes to it",
        )
    if kind in ("ValueError", "InvalidPathError"):
        return CheckpointNotFoundError(
            "No such object",
            path=path,
            hint="The key of an object has no '.', no '..' and no empty name between slashes",
        )
    if kind == "NotSupportedError":
        return UnsupportedError("The server does not give parts (ranges) of this object", path=path)
    if kind == "ConnectionRefused":
        return StorageError(
            "Connection refused: no server listens at this address",
            path=path,
            hint="Check the host and the port, and that the server runs",
        )
    return StorageError(
        f"The server cannot be reached, or did not answer within {_LASTING.seconds} s ({kind})",
        path=path,
        hint="Try again later. Check the address, and that it can be reached from this machine",
    )


def _explain_list(kind: str, path: str) -> CheckpointError | None:
    """Return our error for one of the library's if it is about the list of a directory."""
    if kind == "TimeoutError":
        return StorageError(
            f"The list of this directory did not end within {_LASTING.total_seconds():g} s",
            path=path,
            hint="Copy the files of the checkpoint into a directory of their own",
        )
    parts = (path.partition("://")[2] or f"/{path}").rstrip("/").split("/")[1:]
    is_plain = path.isprintable() and {"", ".", ".."}.isdisjoint(parts)
    if kind in ("ValueError", "InvalidPathError") and is_plain:
        return UnsupportedError(
            "The list of this directory has a name that is no path: one with '.', '..', an empty "
            "name between slashes, or control characters",
            path=path,
            hint="Remove what has such a name, or copy the files of the checkpoint into a "
            "directory of their own",
        )
    return None


def _interruptible(request: Callable[[], Result]) -> Result:
    """Make a request so that Ctrl-C ends the wait for it.

    The library waits in native code, where no signal is looked at. So the main thread, which gets
    them, lets another one ask; that one does not keep the process from ending.
    """
    if threading.current_thread() is not threading.main_thread():
        return request()
    answer: list[Result] = []
    failure: list[BaseException] = []

    def ask() -> None:
        try:
            answer.append(request())
        except BaseException as error:  # noqa: BLE001 - raised where the caller waits
            failure.append(error)

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    while asking.is_alive():
        asking.join(0.2)
    if failure:
        raise failure.pop()
    return answer.pop()
