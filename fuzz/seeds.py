"""The files that harnesses begin with: those of `fixtures/`, which TensorFlow wrote.

What takes more than a few tensors is built: `large_bundle`, `shaped_bundle`,
`sharing_bundle`, `lost_in_large_file` and `scattered_image`.
"""

from __future__ import annotations

import gzip
import random
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fuzz.packing import pack

ROOT = Path(__file__).resolve().parents[1]
FIXTURES = ROOT / "fixtures"
sys.path.insert(0, str(ROOT / "tests"))

import builder as b

LARGEST = 12_000
"""Larger files only make each run slower."""
SMALL = 2_500
"""The same for harnesses that ask much of each input."""
_BLOCK = 4096
"""Of a file system."""
_SHARD = re.compile(r"(.*)\.data-\d{5}-of-\d{5}$")


def files(*patterns: str) -> Iterator[bytes]:
    """Iterate over small files of the fixtures whose names match."""
    for pattern in patterns:
        for path in sorted(FIXTURES.rglob(pattern)):
            if path.is_file() and 0 < path.stat().st_size <= LARGEST:
                yield path.read_bytes()


def bundles(most: int = LARGEST) -> Iterator[bytes]:
    """Iterate over bundles of one data file or two, packed: the index, then the data."""
    for index in sorted(FIXTURES.rglob("*.index")):
        stem = index.name.removesuffix(".index")
        data = sorted(
            path
            for path in index.parent.iterdir()
            if (match := _SHARD.match(path.name)) and match[1] == stem
        )
        found = [index, *data]
        if 1 <= len(data) <= 2 and sum(path.stat().st_size for path in found) <= most:
            yield pack([path.read_bytes() for path in found])


def small_bundles() -> Iterator[bytes]:
    """Iterate over small bundles, and the largest of the others."""
    yield from bundles(SMALL)
    yield max(bundles(), key=len)


def v1_files(most: int = LARGEST) -> Iterator[bytes]:
    """Iterate over small V1 files."""
    for path in sorted((FIXTURES / "v1").rglob("*")):
        other = path.suffix in {".json", ".meta", ".pbtxt"} or path.name == "checkpoint"
        if path.is_file() and not other and path.stat().st_size <= most:
            yield path.read_bytes()


def large_bundle() -> bytes:
    """Make a bundle of so many tensors that its index is decoded as columns (32 KiB or more)."""
    made = b.Bundle()
    for number in range(1200):
        made.add(f"tower_{number % 7}/layer_{number:04}/kernel", np.float32(number))
    return pack(list(made.files("m").values()))


def shaped_bundle() -> bytes:
    """Make a bundle of which every tensor has another shape; a third are written as none writes."""
    made, crc = b.Bundle(), b.masked_crc(b"")
    for number in range(180):
        name, shape = f"w{number:03}", (number, 0)
        entry = b.Entry(b.FLOAT, shape, crc=crc).to_bytes()
        if number % 6 == 1:
            # The dimension has a name.
            dims = b.field(2, b.field(1, number) + b.field(2, b"x")) + b.field(2, b"")
            made.entries[name.encode()] = b.field(1, b.FLOAT) + b.field(2, dims) + b.field32(6, crc)
        elif number % 6 == 2:
            # The checksum, which has five bytes, comes first.
            made.entries[name.encode()] = entry[-5:] + entry[:-5]
        else:
            made.add(name, np.zeros(shape, np.float32))
    return pack(list(made.files("m").values()))


def sharing_bundle() -> bytes:
    """Make a bundle whose tensors share bytes; a third of these are damaged, half of them zeros."""
    rng, made = random.Random(6), b.Bundle()
    data = rng.randbytes(6000)
    made.put(data)
    for number in range(140):
        start = 40 * number
        crc = b.masked_crc(data[start : start + 80])
        made.entries[b"w%03d" % number] = b.Entry(b.INT8, (80,), 0, start, 80, crc)
    index, shard = made.files("m").values()
    return pack([index, shard[:4000] + rng.randbytes(1000) + bytes(1000)])


def lost_in_large_file() -> bytes:
    """Make a bundle that lost its data, and a large file, packed, with its tensors one by one.

    There one checksum that agrees proves nothing: two that lie together do.
    """
    rng, made = random.Random(5), b.Bundle()
    values = [rng.randbytes(320 + 4 * (7 * number % 11)) for number in range(60)]
    for number, value in enumerate(values):
        made.add(f"w{number:02}", np.frombuffer(value, np.float32))
    index, shard = made.files("m").values()
    others = b"".join(rng.randbytes(30 + number % 3) + one for number, one in enumerate(values))
    return pack([index, bytes(len(shard)), gzip.compress(bytes(300_000) + others, mtime=0)])


def scattered_image(seed: int) -> bytes:
    """Make an image of a disk where a data file lies in several stretches, and its index."""
    rng = random.Random(seed)
    made = b.Bundle()
    for number in range(3):
        made.add(f"w{number}", np.frombuffer(rng.randbytes(8000), np.float32).copy())
    index, shard = made.files("m").values()
    blocks = [shard[n : n + _BLOCK].ljust(_BLOCK, b"\0") for n in range(0, len(shard), _BLOCK)]
    for _ in range(rng.randint(1, 3)):
        gap = rng.randbytes(_BLOCK) if rng.randrange(2) else bytes(_BLOCK)
        blocks.insert(rng.randrange(1, len(blocks)), gap)
    blocks.insert(rng.choice([0, len(blocks)]), index.ljust(_BLOCK, b"\0"))
    if rng.randrange(2):
        place = rng.randrange(len(blocks))
        blocks = blocks[place:] + blocks[:place]
    return b"".join(blocks)
