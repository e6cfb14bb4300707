"""Put the index of another save beside data files that are damaged besides, in many ways.

`make` makes a case of a seed: two saves of one small model, of which most tensors may be equal, and
one to three faults of the data files. `Case.is_told` says whether the data files still hold
anything that differs between the two; if not, no reader can tell whose the index is.
"""

from __future__ import annotations

import base64
import gzip
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import builder
import faults
import numpy as np

Random = np.random.Generator
Arrays = dict[str, Any]
SECTOR = 512
FEW_BYTES = 16


def sector(data: bytes, rng: Random, fill: str, size: int = SECTOR) -> bytes:
    """Damage one sector of a file, or of a page."""
    start = int(rng.integers(max(1, len(data) // size))) * size
    count = min(size, len(data) - start)
    new = {"zeros": bytes(count), "ff": b"\xff" * count}.get(fill) or rng.bytes(count)
    return data[:start] + new + data[start + count :]


def bits(data: bytes, rng: Random, count: int) -> bytes:
    changed = bytearray(data)
    for _ in range(count if data else 0):
        changed[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def at(data: bytes, rng: Random, edit: Callable[[int], bytes]) -> bytes:
    return edit(int(rng.integers(len(data) + 1)))


def stripes(data: bytes, rng: Random) -> bytes:
    size = int(rng.choice([512, 4096]))
    whole = [data[n : n + size] for n in range(0, len(data) // size * size, size)]
    order = rng.permutation(len(whole))
    return b"".join(whole[n] for n in order) + data[len(whole) * size :]


DAMAGE: dict[str, Callable[[bytes, Random], bytes]] = {
    "none": lambda data, rng: data,
    "bit": lambda data, rng: bits(data, rng, 1),
    "bits": lambda data, rng: bits(data, rng, 3),
    "zeros": lambda data, rng: sector(data, rng, "zeros"),
    "ff": lambda data, rng: sector(data, rng, "ff"),
    "noise": lambda data, rng: sector(data, rng, "noise"),
    "page": lambda data, rng: sector(data, rng, "noise", 4096),
    "cut": lambda data, rng: at(data, rng, lambda n: data[:n]),
    "zero tail": lambda data, rng: at(data, rng, lambda n: data[:n] + bytes(len(data) - n)),
    "put in": lambda data, rng: at(
        data, rng, lambda n: data[:n] + rng.bytes(int(rng.choice([1, 3, 16, 512]))) + data[n:]
    ),
    "left out": lambda data, rng: at(
        data, rng, lambda n: data[:n] + data[n + int(rng.choice([1, 4, 7, 512])) :]
    ),
    "stripes": stripes,
}
CONVERSIONS: dict[str, Callable[[bytes, Random], bytes]] = {
    "CRLF": lambda data, rng: data.replace(b"\n", b"\r\n"),
    "LF": lambda data, rng: data.replace(b"\r\n", b"\n"),
    "latin-1": lambda data, rng: data.decode("latin-1").encode(),
    "UTF-16": lambda data, rng: data.decode("latin-1").encode("utf-16-le"),
    "base64": lambda data, rng: base64.encodebytes(data),
    "gzip": lambda data, rng: gzip.compress(data, mtime=0),
    "gzip, cut": lambda data, rng: at(gzip.compress(data, mtime=0), rng, lambda n: data[: n // 2]),
}
KINDS = ["f4", "f4", "f4", "f8", "f2", "i1", "u1", "i4", "i8", "bool", "text", "zeros", "ones"]


def values(kind: str, shape: tuple[int, ...], rng: Random) -> Any:
    if kind == "text":
        words = [b"word %02d" % rng.integers(100) for _ in range(int(np.prod(shape)))]
        return np.array(words, object).reshape(shape)
    if kind in ("zeros", "ones"):
        return np.full(shape, kind == "ones", "<f4")
    if kind == "bool":
        return rng.random(shape) < 0.5
    if kind[0] in "iu":
        most = {"i1": 127, "u1": 255, "i4": 1 << 30, "i8": 1 << 45}[kind]
        return rng.integers(0, int(rng.choice([10, most])), shape).astype(f"<{kind}")
    return np.asarray(rng.normal(0, 0.05, shape)).astype(f"<{kind}")


@dataclass
class Case:
    """Two saves, and what happened to the data files of the first.

    Attributes:
        this: The save that the data files are of.
        other: The save that the index is of.
        happened: What happened.
        prefix: Where it was written.
        is_told: Whether the data files hold anything that differs between the saves.
    """

    this: Arrays
    other: Arrays
    happened: list[str]
    prefix: Path
    is_told: bool


def make(seed: int, directory: Path) -> Case:
    """Make the files of a case."""
    rng = np.random.default_rng([seed, 77])
    this, other = _two_saves(rng)
    shards = int(rng.choice([1, 1, 1, 2, 3]))
    made = [_bundle(arrays, shards) for arrays in (this, other)]
    made[1].write(directory / "m", block_size=300)
    damage = [str(one) for one in rng.choice(list(DAMAGE), int(rng.choice([1, 1, 2])))]
    count = int(rng.choice([0, 0, 0, 1, 2]))
    changed = [str(one) for one in rng.choice(list(CONVERSIONS), count)]
    told = damaged = False
    for number, data in made[0].shards.items():
        left = bytes(data)
        for one in damage:
            left = DAMAGE[one](left, rng)
        told |= _differs(made[0], made[1], number, left) and "gzip, cut" not in changed
        for one in changed:
            left = CONVERSIONS[one](left, rng)
        damaged |= left != bytes(data)
        (directory / f"m.data-{number:05d}-of-{shards:05d}").write_bytes(left)
    differing = [array for name, array in this.items() if not faults.same(array, other[name])]
    if not damaged and [array.size for array in map(np.asarray, differing)] == [1]:
        # One number that differs, and nothing else at all, is a number that was damaged.
        told = False
    return Case(this, other, damage + changed, directory / "m", told)


def _two_saves(rng: Random) -> tuple[Arrays, Arrays]:
    """Make two saves of one model; of some models hardly anything was trained."""
    frozen = float(rng.choice([0.0, 0.5, 0.85]))
    this: Arrays = {}
    other: Arrays = {}
    for number in range(int(rng.integers(2, 10))):
        kind = str(rng.choice(KINDS))
        shape = [(), (), (3,), (40,), (int(rng.integers(1, 3000)),), (30, 37)][rng.integers(6)]
        if kind == "text" and np.prod(shape) > 40:
            shape = (4,)
        name = f"{rng.choice(['a', 'm', 'z'])}{number}"
        seeds = rng.integers(1 << 30, size=2)
        this[name] = values(kind, shape, np.random.default_rng(seeds[0]))
        same = rng.random() < frozen
        other[name] = values(kind, shape, np.random.default_rng(seeds[0 if same else 1]))
    first = int(rng.choice([7, 1000, 70_000, 1 << 33]))
    this["step"], other["step"] = np.int64(first), np.int64(first + int(rng.integers(1, 300)))
    return this, other


def _bundle(arrays: Arrays, shards: int) -> builder.Bundle:
    """Store a save; each fifth tensor is sliced, if it can be."""
    bundle = builder.Bundle()
    bundle.shards = {n: bytearray() for n in range(shards)}
    for number, (name, value) in enumerate(sorted(arrays.items())):
        array = np.asarray(value)
        if number % 5 == 4 and array.ndim and len(array) >= 4 and array.dtype != object:
            slices = builder.split_rows(len(array), 3, array.ndim)
            bundle.add_sliced(name, array, slices, shards=[n % shards for n in range(3)])
        else:
            bundle.add(name, array, shard=number % shards)
    return bundle


def _differs(this: builder.Bundle, other: builder.Bundle, shard: int, left: bytes) -> bool:
    """Tell whether a data file still holds something that the other save has not."""
    for start, stop, theirs in _stored(this, other, shard):
        mine = bytes(this.shards[shard][start:stop])
        # Of few bytes, those around them must be there, too.
        around = slice(max(0, start - FEW_BYTES), stop + FEW_BYTES)
        whole = left[around] == bytes(this.shards[shard][around])
        if mine != theirs and (whole or (len(mine) >= FEW_BYTES and mine in left)):
            return True
    return False


def _stored(
    this: builder.Bundle, other: builder.Bundle, shard: int
) -> list[tuple[int, int, bytes]]:
    found = []
    for entry in this.entries.values():
        if isinstance(entry, builder.Entry) and not entry.slices and entry.shard == shard:
            start, stop = entry.offset, entry.offset + entry.size
            found.append((start, stop, bytes(other.shards[shard][start:stop])))
    return found
