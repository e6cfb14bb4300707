"""The files that harnesses begin with: those of `fixtures/`, which TensorFlow wrote."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from fuzz.packing import pack

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
LARGEST = 12_000
"""Larger files only make each run slower."""
_SHARD = re.compile(r"(.*)\.data-\d{5}-of-\d{5}$")


def files(*patterns: str) -> Iterator[bytes]:
    """Iterate over small files of the fixtures whose names match."""
    for pattern in patterns:
        for path in sorted(FIXTURES.rglob(pattern)):
            if path.is_file() and 0 < path.stat().st_size <= LARGEST:
                yield path.read_bytes()


def bundles() -> Iterator[bytes]:
    """Iterate over bundles of one data file or two, packed: the index, then the data."""
    for index in sorted(FIXTURES.rglob("*.index")):
        stem = index.name.removesuffix(".index")
        data = sorted(
            path
            for path in index.parent.iterdir()
            if (match := _SHARD.match(path.name)) and match[1] == stem
        )
        found = [index, *data]
        if 1 <= len(data) <= 2 and sum(path.stat().st_size for path in found) <= LARGEST:
            yield pack([path.read_bytes() for path in found])


def v1_files() -> Iterator[bytes]:
    """Iterate over small V1 files."""
    for path in sorted((FIXTURES / "v1").rglob("*")):
        other = path.suffix in {".json", ".meta", ".pbtxt"} or path.name == "checkpoint"
        if path.is_file() and not other and path.stat().st_size <= LARGEST:
            yield path.read_bytes()
