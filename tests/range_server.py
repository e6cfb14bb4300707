"""A web server of files by range, on loopback, that keeps a log and fails on demand."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

Fault = Callable[["Handler"], bool]
"""Answers a request in its own way, or gives False."""


@dataclass
class RangeServer:
    """What it serves, how slowly, and what it was asked."""

    files: dict[str, bytes]
    delay: float = 0
    faults: list[Fault] = field(default_factory=list)
    log: list[tuple[str, str, str | None]] = field(default_factory=list)
    """Method, path and `Range` of each request."""
    tags: dict[str, str] = field(default_factory=dict)
    authorizations: set[str | None] = field(default_factory=set)
    """What requests said of who asks."""
    port: int = 0
    stop: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def gets(self) -> list[tuple[str, str | None]]:
        return [(path, wanted) for method, path, wanted in self.log if method == "GET"]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Any

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def do_PROPFIND(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.served.log.append((self.command, unquote(self.path).lstrip("/"), None))
        self.give(405, b"")

    def answer(self, *, body: bool) -> None:
        served: RangeServer = self.server.served
        path, wanted = unquote(self.path).lstrip("/"), self.headers.get("Range")
        served.log.append((self.command, path, wanted))
        served.authorizations.add(self.headers.get("Authorization"))
        time.sleep(served.delay)
        if served.faults and served.faults.pop(0)(self):
            return
        data = served.files.get(path)
        if data is None:
            self.give(404, b"")
            return
        tag = served.tags.get(path, '"1"')
        match = self.headers.get("If-Match")
        if match is not None and match != tag:
            self.give(412, b"")
            return
        headers = {"ETag": tag, "Accept-Ranges": "bytes"}
        if wanted is None:
            self.give(200, data, headers, body=body)
            return
        first, _, last = wanted.removeprefix("bytes=").partition("-")
        start, stop = int(first), min(int(last) + 1, len(data))
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(data)}"
        self.give(206, data[start:stop], headers, body=body)

    def give(
        self, status: int, data: bytes, headers: Mapping[str, str] = {}, *, body: bool = True
    ) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if body:
            self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def serve(files: Mapping[str, bytes], *, delay: float = 0) -> Iterator[RangeServer]:
    """Serve files by their paths for as long as the context lasts."""
    served = RangeServer(dict(files), delay)
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.served = served
    served.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield served
    finally:
        served.stop.set()
        server.shutdown()
        server.server_close()
        thread.join()


def status(code: int) -> Fault:
    """Answer with a status."""

    def fail(handler: Handler) -> bool:
        handler.give(code, b"")
        return True

    return fail


def reset(handler: Handler) -> bool:
    """Hang up without an answer."""
    handler.close_connection = True
    return True


def short_body(handler: Handler) -> bool:
    """Begin the right answer, and hang up after its first byte."""
    first, _, last = (
        (handler.headers.get("Range") or "bytes=0-999").partition("=")[2].partition("-")
    )
    handler.send_response(206)
    handler.send_header("ETag", '"1"')
    handler.send_header("Content-Length", str(int(last) + 1 - int(first)))
    data = handler.server.served.files[unquote(handler.path).lstrip("/")]
    handler.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
    handler.end_headers()
    handler.wfile.write(data[int(first) : int(first) + 1])
    handler.close_connection = True
    return True


def hang(seconds: float) -> Fault:
    """Take the request, and say nothing for so long."""

    def fail(handler: Handler) -> bool:
        handler.server.served.stop.wait(seconds)
        handler.close_connection = True
        return True

    return fail


class Always(list[Fault]):
    """A fault that does not end."""

    def pop(self, _: Any = 0) -> Fault:
        return self[0]
