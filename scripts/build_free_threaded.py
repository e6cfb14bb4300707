"""Build a CPython without the interpreter's lock from Debian's sources, for `nox -s freethreaded`.

    python scripts/build_free_threaded.py DIRECTORY [PACKAGE]

PACKAGE is Debian's source package, `python3.14` if none is named. The archive of CPython's own
sources is fetched as Debian has it, compared with the SHA-256 that Debian's description of it has,
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
import urllib.error
import urllib.request
from pathlib import Path

DEBIAN = "https://deb.debian.org/debian"
SOURCES = f"{DEBIAN}/dists/sid/main/source/Sources.xz"
NEEDED = ("ssl", "zlib", "bz2", "lzma", "ctypes", "sqlite3")
"""Modules that pip and the tests need, and that are left out where a header is missing."""


def fetch(url: str) -> bytes | None:
    """Return what lies there; None if nothing does."""
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:  # noqa: S310 - a fixed address
            data: bytes = answer.read()
    except urllib.error.HTTPError as error:
        if error.code != 404:
            raise
        return None
    return data


def fetch_newest(package: str) -> bytes:
    """Fetch the newest archive of upstream's sources that is there; compare it with its SHA-256.

    Debian's list names versions before every mirror has them, so earlier ones are tried, too. The
    SHA-256 is the one that Debian's description of the version (`.dsc`) has.
    """
    listing = lzma.decompress(fetch(SOURCES) or b"").decode()
    entry = rf"^Package: {re.escape(package)}\nBinary:.*\nVersion: \d+\.\d+\.(\d+)-"
    named = re.findall(entry, listing, re.MULTILINE)
    if not named:
        raise SystemExit(f"Debian's list of sources has no version of {package}")
    minor = package.removeprefix("python")
    directory = f"{DEBIAN}/pool/main/p/{package}"
    for patch in range(max(map(int, named)), -1, -1):
        name = f"{package}_{minor}.{patch}"
        described = fetch(f"{directory}/{name}-1.dsc")
        archive = fetch(f"{directory}/{name}.orig.tar.xz") if described else None
        if described and archive:
            found = hashlib.sha256(archive).hexdigest()
            if f" {found} {len(archive)} {name}.orig.tar.xz" not in described.decode():
                raise SystemExit(f"{name}.orig.tar.xz has another SHA-256 than {name}-1.dsc says")
            return archive
    raise SystemExit(f"No sources of {package} are in {directory}")


def build(data: bytes, prefix: Path) -> None:
    """Unpack an archive of sources, build and install."""
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
    parser.add_argument("package", nargs="?", default="python3.14")
    options = parser.parse_args()
    prefix = options.directory.resolve()
    found = find_interpreter(prefix)
    if found is None:
        shutil.rmtree(prefix, ignore_errors=True)
        build(fetch_newest(options.package), prefix)
        found = find_interpreter(prefix)
    if found is None:
        raise SystemExit(f"What was built lacks one of {', '.join(NEEDED)}: a header was missing")
    print(found)


if __name__ == "__main__":
    main()
