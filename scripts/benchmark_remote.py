"""What reading from a bucket takes: ours, obstore's and fsspec's way, s3fs, the link.

A web server on this machine answers after 20 ms, and gives 100 MB/s a connection. Readers take
turns, each in a process of its own: `get_ranges` of obstore, `cat_ranges` of fsspec's file system
for HTTP and of s3fs, which takes the server for S3. The limit is 16 connections that read the same
bytes into a buffer and do nothing else. Memory is made ready before the clock starts, as in
`benchmark_jobs`. What is asked of the server is counted.
"""

from __future__ import annotations

import http.client
import itertools
import json
import mmap
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from benchmark_memory import make_buffer, make_ready

DELAY = 0.02
BANDWIDTH = 100e6
SLOWNESS = "20 ms a request, 100 MB/s a connection;"
CONNECTIONS = 16
PIECE = 8 << 20
CHUNK = 1 << 18
BUCKET = "bucket"
"""What s3fs takes the server for."""
JOBS = ("1 GiB in 64 tensors", "10,000 tensors of 4 KiB", "1 of 10,000", "1,000 data files")
READERS = ("ckptparse", "limit", "obstore", "fsspec", "s3fs")


class Handler(BaseHTTPRequestHandler):
    """Gives ranges of files, slowly."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Any

    def do_HEAD(self) -> None:
        """Tell what there is."""
        self.give(body=False)

    def do_GET(self) -> None:
        """Give it."""
        self.give(body=True)

    def do_PROPFIND(self) -> None:
        """List nothing, as web servers do."""
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(405)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def give(self, *, body: bool) -> None:
        """Answer after the delay, as fast as the connection is."""
        if self.path == "/count":
            data: Any = str(self.server.count).encode()
            self.server.count = 0
        else:
            self.server.count += 1
            time.sleep(DELAY)
            data = self.server.map(self.path)
        if data is None:
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        total, wanted = len(data), self.headers.get("Range")
        first, last = 0, total - 1
        if wanted:
            low, _, high = wanted.removeprefix("bytes=").partition("-")
            first, last = int(low), min(int(high), total - 1)
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Range", f"bytes {first}-{last}/{total}")
        self.send_header("Content-Length", str(last + 1 - first))
        self.send_header("ETag", '"1"')
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Last-Modified", "Sat, 01 Nov 2025 00:00:00 GMT")
        self.end_headers()
        if body:
            self.send(memoryview(data)[first : last + 1])

    def send(self, data: memoryview) -> None:
        """Send no faster than the bandwidth of one connection."""
        began = time.perf_counter()
        for start in range(0, len(data), CHUNK):
            self.wfile.write(data[start : start + CHUNK])
            ahead = (start + CHUNK) / BANDWIDTH - (time.perf_counter() - began)
            if ahead > 0.001 and start + CHUNK < len(data):
                time.sleep(ahead)

    def handle(self) -> None:
        """Answer one connection; readers that are done end theirs as they like."""
        with suppress(ConnectionError):
            super().handle()

    def finish(self) -> None:
        """Write the rest, if anyone still listens."""
        with suppress(ConnectionError):
            super().finish()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


class Server(ThreadingHTTPServer):
    """Serves the files of a directory."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, directory: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.directory = directory
        self.count = 0
        self._maps: dict[str, Any] = {}
        self._lock = threading.Lock()

    def map(self, path: str) -> Any:
        """Return a file's bytes; None if there is none."""
        with self._lock:
            if path not in self._maps:
                file = self.directory / path.lstrip("/").removeprefix(f"{BUCKET}/")
                self._maps[path] = None
                if file.is_file():
                    with file.open("rb") as stream:
                        self._maps[path] = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
            return self._maps[path]


def make_inputs(directory: Path, scale: float) -> None:
    """Write the checkpoints, once; what was interrupted is made anew."""
    import numpy as np

    import ckptparse

    rng = np.random.default_rng(0)
    size = int((16 << 20) * scale)
    made = {
        "large": ({f"t{n:02d}": size for n in range(64)}, None),
        "small": ({f"t{n:05d}": 4096 for n in range(10_000)}, None),
        "shards": ({f"t{n:04d}": 4096 for n in range(1000)}, 4096),
    }
    for name, (sizes, shard) in made.items():
        if not (directory / f"{name}.index").exists():
            tensors = {key: rng.bytes(count) for key, count in sizes.items()}
            arrays = {key: np.frombuffer(data, np.uint8) for key, data in tensors.items()}
            ckptparse.write(directory / name, arrays, max_shard_size=shard, overwrite=True)


def ranges_of(directory: Path, job: str) -> list[tuple[str, int, int]]:
    """Return which bytes of which files a job is about: file, start, stop."""
    import ckptparse

    name = {JOBS[0]: "large", JOBS[3]: "shards"}.get(job, "small")
    with ckptparse.open(directory / name) as checkpoint:
        places = [tensor.location for tensor in checkpoint.values()]
    if job == JOBS[2]:
        places = places[7777:7778]
    return [
        (Path(place.path).name, place.offset, place.offset + place.size)
        for place in places
        if place is not None
    ]


def read_by_ckptparse(url: str, job: str, _: list[tuple[str, int, int]]) -> None:
    import ckptparse

    name = {JOBS[0]: "large", JOBS[3]: "shards"}.get(job, "small")
    ckptparse.read(f"{url}/{name}", ["t07777"] if job == JOBS[2] else None)


def read_by_limit(url: str, _: str, ranges: list[tuple[str, int, int]]) -> object:
    """Read neighbours together, in pieces, by so many connections, into one buffer."""
    merged: list[list[Any]] = []
    for file, start, stop in sorted(ranges):
        if merged and merged[-1][0] == file and merged[-1][2] == start:
            merged[-1][2] = stop
        else:
            merged.append([file, start, stop])
    pieces = [
        (file, low, min(low + PIECE, stop))
        for file, start, stop in merged
        for low in range(start, stop, PIECE)
    ]
    places = list(itertools.accumulate((stop - start for _, start, stop in pieces), initial=0))
    buffer = make_buffer(places[-1])
    local = threading.local()

    def read(number: int) -> None:
        file, start, stop = pieces[number]
        if not hasattr(local, "connection"):
            local.connection = http.client.HTTPConnection(url.removeprefix("http://"))
        local.connection.request("GET", f"/{file}", headers={"Range": f"bytes={start}-{stop - 1}"})
        answer = local.connection.getresponse()
        place = places[number]
        while place < places[number + 1]:
            place += answer.readinto(buffer[place : places[number + 1]])

    with ThreadPoolExecutor(CONNECTIONS) as threads:
        list(threads.map(read, range(len(pieces))))
    return buffer


def read_by_obstore(url: str, _: str, ranges: list[tuple[str, int, int]]) -> None:
    from obstore.store import HTTPStore

    store = HTTPStore.from_url(url, client_options={"allow_http": True})
    files: dict[str, list[tuple[int, int]]] = {}
    for file, start, stop in ranges:
        files.setdefault(file, []).append((start, stop))

    def read(file: str) -> None:
        starts, ends = zip(*files[file], strict=True)
        store.get_ranges(file, starts=starts, ends=ends)

    with ThreadPoolExecutor(CONNECTIONS) as threads:
        list(threads.map(read, files))


def read_by_fsspec(url: str, _: str, ranges: list[tuple[str, int, int]]) -> None:
    import fsspec

    filesystem = fsspec.filesystem("http")
    paths, starts, stops = zip(*ranges, strict=True)
    filesystem.cat_ranges([f"{url}/{path}" for path in paths], list(starts), list(stops))


def read_by_s3fs(url: str, _: str, ranges: list[tuple[str, int, int]]) -> None:
    import s3fs

    filesystem = s3fs.S3FileSystem(
        anon=True,
        client_kwargs={"endpoint_url": url, "region_name": "us-east-1"},
        config_kwargs={"s3": {"addressing_style": "path"}, "max_pool_connections": CONNECTIONS},
    )
    paths, starts, stops = zip(*ranges, strict=True)
    names = [f"{BUCKET}/{path}" for path in paths]
    found = filesystem.cat_ranges(names, list(starts), list(stops), on_error="raise")
    if sum(map(len, found)) != sum(stop - start for _, start, stop in ranges):
        raise ValueError("s3fs gave other bytes than asked for")


RUN: dict[str, Callable[[str, str, list[tuple[str, int, int]]], object]] = {
    "ckptparse": read_by_ckptparse,
    "limit": read_by_limit,
    "obstore": read_by_obstore,
    "fsspec": read_by_fsspec,
    "s3fs": read_by_s3fs,
}


@contextmanager
def served(directory: Path) -> Iterator[str]:
    """Serve a directory from another process."""
    command = [sys.executable, __file__, "serve", str(directory)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None  # noqa: S101 - a pipe was asked for
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
    finally:
        process.terminate()
        process.wait()


def ask_count(url: str) -> int:
    connection = http.client.HTTPConnection(url.removeprefix("http://"))
    connection.request("GET", "/count")
    return int(connection.getresponse().read())


@dataclass
class Runs:
    """What the runs of one job by one reader took."""

    seconds: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)
    """Seconds of all threads of the reader together; the server's are not in them."""
    requests: int = 0
    """Of one run."""

    def __str__(self) -> str:
        return f"{statistics.median(self.seconds):.2f} s ({self.requests:,})"


Found = dict[str, Runs]
"""By reader."""


def main(rounds: int = 3, scale: float = 1.0, directory: str | None = None) -> None:
    """Measure everything, and print a table."""
    found = dict(measure(rounds, scale, directory))
    print(SLOWNESS, f"{rounds} rounds; medians of seconds (requests)")
    print(format_table(found))
    print("\nThe least time, and that of the processors:")
    for job, runs in found.items():
        each = (
            f"{reader} {min(one.seconds):.2f} ({statistics.median(one.processor):.2f})"
            for reader, one in runs.items()
        )
        print(f"{job}: {', '.join(each)}")


def measure(
    rounds: int = 3, scale: float = 1.0, directory: str | None = None
) -> Iterator[tuple[str, Found]]:
    """Measure job by job, readers in turns."""
    # Other parts of the benchmark have inputs of the same names in that directory.
    place = Path(directory or tempfile.gettempdir()) / f"remote-{scale}"
    place.mkdir(parents=True, exist_ok=True)
    make_inputs(place, scale)
    with served(place) as url:
        for job in JOBS:
            ranges = place / "ranges.json"
            ranges.write_text(json.dumps(ranges_of(place, job)))
            found: Found = {reader: Runs() for reader in READERS}
            for number in range(rounds):
                for reader, runs in found.items():
                    if number and not runs.seconds:
                        continue  # It could not the first time.
                    run(runs, reader, url, job, ranges)
            yield job, {reader: runs for reader, runs in found.items() if runs.seconds}


def format_table(measured: dict[str, Found]) -> str:
    """Make a table: seconds and requests, and the ratio to the limit."""
    rows = [["remote: work", *READERS, "ours / limit"], ["---"] * (len(READERS) + 2)]
    for job, found in measured.items():
        ratio = "–"
        if {"ckptparse", "limit"} <= found.keys():
            ours, limit = (statistics.median(found[one].seconds) for one in ("ckptparse", "limit"))
            ratio = f"{ours / limit:.1f}"
        rows.append([job, *(str(found.get(one, "–")) for one in READERS), ratio])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def import_all() -> None:
    """Import what a read needs, by one from memory: imports are not counted."""
    from obstore.store import MemoryStore

    import ckptparse
    import ckptparse.files.web

    store = MemoryStore()
    ckptparse.write("m", {"w": [1.0] * 5000}, store=store)
    ckptparse.read("m", store=store)


def run(runs: Runs, reader: str, url: str, job: str, ranges: Path) -> None:
    """Run one reader in a fresh process, unless it cannot, or not within a minute."""
    command = [sys.executable, __file__, "read", reader, url, job, str(ranges)]
    ask_count(url)
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except subprocess.TimeoutExpired:
        return
    runs.requests = ask_count(url)
    if done.returncode:
        print(f"{reader}: {done.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
        return
    seconds, processor = map(float, done.stdout.split())
    runs.seconds.append(seconds)
    runs.processor.append(processor)


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        server = Server(Path(sys.argv[2]))
        print(server.server_port, flush=True)
        server.serve_forever()
    elif sys.argv[1:2] == ["read"]:
        _, _, reader, url, job, path = sys.argv
        wanted = [tuple(one) for one in json.loads(Path(path).read_text())]
        if reader == "ckptparse":
            import_all()
        elif reader != "limit":
            __import__(reader)
        make_ready(2 * sum(stop - start for _, start, stop in wanted))
        began, worked = time.perf_counter(), time.process_time()
        RUN[reader](url, job, wanted)  # type: ignore[arg-type] # JSON has lists
        print(time.perf_counter() - began, time.process_time() - worked)
        sys.stdout.flush()
        os._exit(0)
    else:
        main()
