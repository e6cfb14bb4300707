"""Servers that do as a script says: a store as of `obstore`, a file system as of `fsspec`, HTTP.

A script is three bytes for each step: at which request (255: at each), what is wrong with the
answer, and a number for it. Whatever no step is about is answered as an honest server would.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from http.server import ThreadingHTTPServer
from typing import Any, ClassVar

import range_server

__all__ = ["Filesystem", "Scripted", "Store", "WebServer", "random_script", "web_server"]

Files = dict[str, bytes]
_ALWAYS = 255
_HUGE = 1 << 62
_PAUSE = "the connection was closed: https://user:secret@host/"
"""What a library says may have a password, which must stand in no message of ours."""


class GenericError(Exception):
    """Named as in `obstore`, as the others: only the names matter."""


class PermissionDeniedError(Exception):
    """The server refuses."""


class PreconditionError(Exception):
    """The ETag is another one."""


class NotSupportedError(Exception):
    """The server gives no ranges."""


class AlreadyExistsError(Exception):
    """Something is there."""


ERRORS: tuple[Callable[[], Exception], ...] = (
    lambda: GenericError(f"status code: 503: {_PAUSE}"),
    lambda: GenericError(f"status code: 404: {_PAUSE}"),
    lambda: GenericError(f"Failed to parse {_PAUSE}"),
    lambda: GenericError(_PAUSE),
    lambda: PermissionDeniedError(_PAUSE),
    lambda: PreconditionError(_PAUSE),
    lambda: NotSupportedError(_PAUSE),
    lambda: AlreadyExistsError(_PAUSE),
    lambda: FileNotFoundError(_PAUSE),
    lambda: ValueError(_PAUSE),
    lambda: PermissionError(_PAUSE),
    lambda: IsADirectoryError(_PAUSE),
    lambda: TimeoutError(_PAUSE),
)
"""What a request may raise."""
LIES = ("cut", "more", "bit", "zeros", "whole", "size", "tag", "weak", "none", "names", "dir")
"""What an answer may say instead."""
_REPLACED = len(ERRORS) + len(LIES)
KINDS = _REPLACED + 1
"""The last one: from here on the files are others, with other ETags."""


@dataclass
class Scripted:
    """The files of a server, those that take their place, and its script."""

    files: Files
    others: Files
    script: bytes
    count: int = 0
    version: int = 1
    lock: threading.Lock = field(default_factory=threading.Lock)

    def lie(self) -> tuple[str, int]:
        """Count a request; raise, or return what is wrong with the answer ("" if nothing is)."""
        with self.lock:
            number, self.count = self.count, self.count + 1
            steps = [self.script[n : n + 3] for n in range(0, len(self.script) - 2, 3)]
            for at, chosen, argument in steps:
                if at not in (number, _ALWAYS):
                    continue
                kind = chosen % KINDS
                if kind < len(ERRORS):
                    error = ERRORS[kind]()
                    raise error
                if kind < _REPLACED:
                    return LIES[kind - len(ERRORS)], argument
                self.files, self.others = self.others, self.files
                self.version += 1
        return "", 0

    def tag(self, key: str) -> str:
        """Return the ETag of a file."""
        return f'"{self.version}-{key}"'

    def body(self, data: bytes, whole: bytes, lie: tuple[str, int]) -> bytes:
        """Return the body of an answer, or another one."""
        what, number = lie
        if what == "cut":
            return data[: len(data) * number // 256]
        if what == "more":
            return data + bytes(number)
        if what == "bit" and data:
            place = number * len(data) // 256
            return data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :]
        if what == "zeros":
            return bytes(len(data))
        return whole if what == "whole" else data

    def size(self, size: int, lie: tuple[str, int]) -> int:
        """Return the size of a file, or another one."""
        if lie[0] != "size":
            return size
        return _HUGE if lie[1] == _ALWAYS else max(0, size + lie[1] - 128)

    def names(self, directory: str, lie: tuple[str, int]) -> tuple[list[str], list[str]]:
        """Return the directories and the files in a directory, or others."""
        start = f"{directory}/" if directory else ""
        inside = [key[len(start) :] for key in self.files if key.startswith(start)]
        folders = sorted({name.partition("/")[0] for name in inside if "/" in name})
        names = [name for name in inside if "/" not in name]
        if lie[0] == "cut" and names:
            del names[lie[1] % len(names)]
        if lie[0] == "names":
            odd = ["../x", "/x", "a\0b", "", ".", "m.index", "\x1b[2J", "m.data-00001-of-00003"]
            names.append(odd[lie[1] % len(odd)])
        if lie[0] == "dir":
            folders.append("m.index")
        return [start + name for name in folders], [start + name for name in names]


class Answer:
    """What a store of `obstore` gives for a range."""

    def __init__(self, meta: Mapping[str, Any], data: bytes, lie: tuple[str, int]) -> None:
        self.meta = meta
        self._data = data
        self._lie = lie

    def bytes(self) -> bytes:
        """Return the body."""
        return self._data

    def stream(self, *, min_chunk_size: int) -> Iterator[memoryview]:
        """Give the body piece by piece, or break off."""
        size = min(min_chunk_size, self._lie[1] or 7)
        for start in range(0, len(self._data), size):
            if self._lie[0] == "dir" and start:
                raise GenericError(_PAUSE)
            yield memoryview(self._data)[start : start + size]


class Store:
    """A store, as `obstore` has them."""

    config: ClassVar[Mapping[str, str]] = {"bucket": "b"}
    url = "s3://b/"
    prefix = None

    def __init__(self, scripted: Scripted, *, lists: bool = True) -> None:
        self._server = scripted
        self._lists = lists

    def get(self, key: str, *, options: Mapping[str, Any]) -> Answer:
        """Answer a request for a range."""
        lie = self._server.lie()
        data = self._find(key)
        meta = self._meta(key, len(data), lie)
        if options.get("if_match", self._server.tag(key)) != self._server.tag(key):
            raise PreconditionError(_PAUSE)
        start, stop = options["range"]
        if start >= len(data):
            raise GenericError("status code: 416")
        return Answer(meta, self._server.body(data[start:stop], data, lie), lie)

    def head(self, key: str) -> Mapping[str, Any]:
        """Say what an object is."""
        lie = self._server.lie()
        return self._meta(key, len(self._find(key)), lie)

    def list_with_delimiter(self, prefix: str | None) -> Mapping[str, Any]:
        """Say what is in a directory."""
        lie = self._server.lie()
        if not self._lists:
            raise NotSupportedError("status code: 405")
        folders, names = self._server.names(prefix or "", lie)
        sizes = {name: len(self._server.files.get(name, b"")) for name in names}
        metas = [self._meta(name, size, lie) for name, size in sizes.items()]
        return {"common_prefixes": folders, "objects": metas}

    def put(self, key: str, data: Any, *, mode: str = "overwrite", **_: Any) -> None:
        """Take an object."""
        self._server.lie()
        if mode == "create" and key in self._server.files:
            raise AlreadyExistsError(_PAUSE)
        self._server.files[key] = data if isinstance(data, bytes) else data.read()

    def delete(self, key: str) -> None:
        """Remove an object."""
        self._server.lie()
        self._server.files.pop(key, None)

    def _find(self, key: str) -> bytes:
        if key not in self._server.files:
            raise FileNotFoundError(_PAUSE)
        return self._server.files[key]

    def _meta(self, key: str, size: int, lie: tuple[str, int]) -> Mapping[str, Any]:
        tags = {"tag": '"other"', "weak": 'W/"1"', "none": None}
        tag = tags.get(lie[0], self._server.tag(key))
        return {"path": key, "size": self._server.size(size, lie), "e_tag": tag}


class Filesystem:
    """A file system, as `fsspec` has them."""

    protocol = "scripted"

    def __init__(self, scripted: Scripted) -> None:
        self._server = scripted

    def info(self, path: str) -> Mapping[str, Any]:
        """Say what is at a path."""
        return self._info(path, self._server.lie())

    def ls(self, path: str, *, detail: bool) -> list[Mapping[str, Any]]:  # noqa: ARG002 - as theirs
        """Say what is in a directory."""
        lie = self._server.lie()
        folders, names = self._server.names(path.strip("/"), lie)
        found: list[Mapping[str, Any]] = [{"name": name, "type": "directory"} for name in folders]
        for name in names:
            size = self._server.size(len(self._server.files.get(name, b"")), lie)
            found.append({"name": name, "type": "file", "size": size, **self._tag(name, lie)})
        return found

    def cat_file(self, path: str, *, start: int, end: int) -> bytes:
        """Give the bytes of a range."""
        lie = self._server.lie()
        data = self._server.files.get(path)
        if data is None:
            raise FileNotFoundError(_PAUSE)
        return self._server.body(data[start:end], data, lie)

    def invalidate_cache(self) -> None:
        """Forget nothing: nothing is kept."""

    def to_json(self, *, include_password: bool) -> str:  # noqa: ARG002 - as theirs
        """Say which file system it is."""
        return "scripted"

    def unstrip_protocol(self, path: str) -> str:
        """Return the URL of a path."""
        return f"scripted://{path}"

    def open(self, path: str, mode: str) -> Any:  # noqa: ARG002 - as theirs
        """Begin a file."""
        self._server.lie()
        return _Upload(self._server, path)

    def rm_file(self, path: str) -> None:
        """Remove a file."""
        self._server.lie()
        self._server.files.pop(path, None)

    def _info(self, path: str, lie: tuple[str, int]) -> Mapping[str, Any]:
        path = path.strip("/")
        data = self._server.files.get(path)
        if data is None:
            if any(key.startswith(f"{path}/") for key in self._server.files):
                return {"name": path, "type": "directory", "size": 0}
            raise FileNotFoundError(_PAUSE)
        kind = "directory" if lie[0] == "dir" else "file"
        size = self._server.size(len(data), lie)
        return {"name": path, "type": kind, "size": size, **self._tag(path, lie)}

    def _tag(self, path: str, lie: tuple[str, int]) -> Mapping[str, Any]:
        if lie[0] == "none":
            return {}
        return {"mtime": 1.5} if lie[0] == "weak" else {"ETag": self._server.tag(path)}


class _Upload:
    """A file that is being written; `closed` can be set, as of those of `fsspec`."""

    def __init__(self, scripted: Scripted, path: str) -> None:
        self._server, self._path = scripted, path
        self._data = b""
        self.closed = False

    def write(self, data: bytes) -> int:
        self._server.lie()
        self._data += data
        return len(data)

    def close(self) -> None:
        self._server.lie()
        self._server.files[self._path] = self._data

    def discard(self) -> None:
        """Forget what was written."""


class WebServer:
    """A server of HTTP on loopback, which answers as the script of the moment says."""

    def __init__(self) -> None:
        self.served = range_server.RangeServer({}, faults=_Faults(self))
        server: Any = _Quiet(("127.0.0.1", 0), range_server.Handler)
        server.daemon_threads = True
        server.served = self.served
        self.served.port = server.server_port
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.scripted = Scripted({}, {}, b"")

    @property
    def url(self) -> str:
        """Return what its URLs begin with."""
        return self.served.url

    def take(self, scripted: Scripted) -> None:
        """Serve other files, by another script."""
        self.scripted = scripted

    def answer(self, handler: Any) -> bool:
        """Answer a request."""
        scripted = self.scripted
        self.served.files = scripted.files
        key = handler.path.partition("?")[0].lstrip("/")
        self.served.tags[key] = scripted.tag(key)
        try:
            what, number = scripted.lie()
        except Exception as error:  # noqa: BLE001 - it is what the script wants
            statuses = (503, 404, 400, 416, 403, 412, 501, 409, 404, 400, 401, 405, 408)
            names = [type(make()).__name__ for make in ERRORS]
            handler.give(statuses[names.index(type(error).__name__)], b"")
            return True
        if not what:
            return False
        _ODD[(number + LIES.index(what)) % len(_ODD)](handler, scripted.files.get(key, b""), number)
        return True


class _Quiet(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: who asked has hung up."""


class _Faults(list[Any]):
    """A list of faults that never ends."""

    def __init__(self, server: WebServer) -> None:
        super().__init__()
        self._server = server

    def __bool__(self) -> bool:
        return True

    def pop(self, _: Any = 0) -> Any:
        return self._server.answer


def _redirect(handler: Any, data: bytes, number: int) -> None:  # noqa: ARG001 - as its brothers
    places = (handler.path, "/elsewhere", "http://127.0.0.1:1/", "//", "file:///etc/passwd")
    handler.give(302, b"", {"Location": places[number % len(places)]})


def _cut(handler: Any, data: bytes, number: int) -> None:
    handler.send_response(206)
    handler.send_header("Content-Length", str(len(data) + number))
    handler.send_header("Content-Range", f"bytes 0-{len(data) + number}/{len(data)}")
    handler.end_headers()
    handler.wfile.write(data[:number])
    handler.close_connection = True


def _wrong_range(handler: Any, data: bytes, number: int) -> None:
    ranges = ("bytes 0-1/2", f"bytes {number}-9/*", "bytes */5", "lines 1-2", f"bytes 0-{_HUGE}/9")
    header = {"ETag": '"1"', "Content-Range": ranges[number % len(ranges)]}
    handler.give(206, data[:number], header)


def _whole(handler: Any, data: bytes, number: int) -> None:
    handler.give(200, data, {"ETag": '"1"'} if number % 2 else {})


def _packed(handler: Any, data: bytes, number: int) -> None:
    kind = ("gzip", "br", "deflate", "identity, gzip")[number % 4]
    handler.give(200, data, {"Content-Encoding": kind})


def _not_http(handler: Any, data: bytes, number: int) -> None:
    lines = (b"", b"HTTP/1.1 999 \r\n\r\n", b"SSH-2.0-x\r\n", b"HTTP/1.1 200 OK\r\nContent-Le")
    handler.wfile.write(lines[number % len(lines)] + data[:number])
    handler.close_connection = True


def _page(handler: Any, data: bytes, number: int) -> None:  # noqa: ARG001 - as its brothers
    handler.give(200, b"<!DOCTYPE html><title>Sign in</title>", {"Content-Type": "text/html"})


_ODD: tuple[Callable[[Any, bytes, int], None], ...] = (
    _redirect,
    _cut,
    _wrong_range,
    _whole,
    _packed,
    _not_http,
    _page,
)


@cache
def web_server() -> WebServer:
    """Return the server of this process, which runs as long as it does."""
    return WebServer()


def random_script(rng: random.Random) -> bytes:
    """Make a script of a few steps, mostly at the first requests."""
    steps = (
        bytes([rng.choice([rng.randrange(12), rng.randrange(40), _ALWAYS]), rng.randrange(KINDS)])
        + rng.randbytes(1)
        for _ in range(rng.randint(0, 3))
    )
    return b"".join(steps)
