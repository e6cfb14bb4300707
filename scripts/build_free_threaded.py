"""Build a CPython without the interpreter's lock from Debian's sources, for `nox -s freethreaded`.

    python scripts/build_free_threaded.py DIRECTORY [PACKAGE]

PACKAGE is Debian's source package, `python3.13` if none is named. The archive of CPython's own
sources is fetched as Debian has it, compared with the SHA-256 that Debian's list of sources has,
and built with `--disable-gil`: minutes on two cores. What stands in DIRECTORY already is kept.
The last line printed is the path of the interpreter. Needs a C compiler, make, and the headers
that Python's own modules are built with (OpenSSL, zlib, bzip2, liblzma, libffi, SQLite).
"""

from __future__ import annotations

import argparse
import hashlib
import lzma
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import urllib.request
from pathlib import Path
from typing import NamedTuple

DEBIAN = "https://deb.debian.org/debian"
SOURCES = f"{DEBIAN}/dists/sid/main/source/Sources.xz"
NEEDED = ("ssl", "zlib", "bz2", "lzma", "ctypes", "sqlite3")
"""Modules that pip and the tests need, and that are left out where a header is missing."""


class Source(NamedTuple):
    """An archive of Debian's."""

    url: str
    sha256: str


def find_source(listing: str, package: str) -> Source:
    """Find the archive of upstream's sources of a package in Debian's list of sources."""
    for paragraph in listing.split("\n\n"):
        if not paragraph.startswith(f"Package: {package}\n"):
            continue
        directory = re.search(r"^Directory: (\S+)$", paragraph, re.MULTILINE)
        archive = re.search(r"^ ([0-9a-f]{64}) \d+ (\S+\.orig\.tar\.xz)$", paragraph, re.MULTILINE)
        if directory and archive:
            return Source(f"{DEBIAN}/{directory[1]}/{archive[2]}", archive[1])
    raise SystemExit(f"Debian's list of sources has no archive of {package}")


def fetch(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=60) as answer:  # noqa: S310 - a fixed address
        data: bytes = answer.read()
    return data


def build(source: Source, prefix: Path) -> None:
    """Fetch, compare, unpack, build and install."""
    data = fetch(source.url)
    found = hashlib.sha256(data).hexdigest()
    if found != source.sha256:
        raise SystemExit(f"{source.url}: expected SHA-256 {source.sha256}, found {found}")
    with tempfile.TemporaryDirectory() as directory:
        archive = Path(directory) / "sources.tar.xz"
        archive.write_bytes(data)
        with tarfile.open(archive) as opened:
            opened.extractall(directory, filter="data")
        (tree,) = (path for path in Path(directory).iterdir() if path.is_dir())
        options = ("--disable-gil", "--disable-test-modules", "-q", f"--prefix={prefix}")
        make = ("make", "-s", f"-j{os.cpu_count() or 1}")
        # Python's own tests are not installed, and CPython is built without its long optimization.
        for command in (("./configure", *options, "CFLAGS=-O2"), make, (*make, "altinstall")):
            subprocess.run(command, cwd=tree, check=True, stdout=sys.stderr)


def find_interpreter(prefix: Path) -> Path | None:
    """Find what was built, if it is whole."""
    for path in sorted(prefix.glob("bin/python3.*t")):
        code = f"import {', '.join(NEEDED)}"
        if subprocess.run([path, "-c", code], check=False, capture_output=True).returncode == 0:
            return path
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("package", nargs="?", default="python3.13")
    options = parser.parse_args()
    prefix = options.directory.resolve()
    found = find_interpreter(prefix)
    if found is None:
        shutil.rmtree(prefix, ignore_errors=True)
        build(find_source(lzma.decompress(fetch(SOURCES)).decode(), options.package), prefix)
        found = find_interpreter(prefix)
    if found is None:
        raise SystemExit(f"What was built lacks one of {', '.join(NEEDED)}: a header was missing")
    print(found)


if __name__ == "__main__":
    main()
