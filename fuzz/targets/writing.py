"""What was written reads back the same: `write` and `convert`."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np

import ckptparse
from fuzz import mutators, seeds
from fuzz.oracle import LIMITS, BrokenPromiseError, attempt, same_values
from fuzz.targets.checkpoints import bundle_store
from fuzz.targets.target import Target

__all__ = ["TARGETS"]

FORMATS: tuple[tuple[Literal["v2", "npz", "npy", "safetensors"], str], ...] = (
    ("v2", "out"),
    ("npz", "out.npz"),
    ("npy", "out"),
    ("safetensors", "out.safetensors"),
)


def run_write(data: bytes) -> None:
    """Make arrays of the input, write them, and read them back."""
    tensors = arrays_of(data)
    with tempfile.TemporaryDirectory() as folder:
        prefix = Path(folder, "m")
        written = attempt(ckptparse.write, prefix, tensors)
        if isinstance(written, ckptparse.CheckpointError):
            return
        back = ckptparse.read(written)
        if set(back) != set(tensors):
            raise BrokenPromiseError(f"wrote {sorted(tensors)}, and {sorted(back)} comes back")
        for name, array in tensors.items():
            if not same_values(array, back[name]):
                raise BrokenPromiseError(f"{name!r} comes back as {back[name]!r}")


def arrays_of(data: bytes) -> dict[str, Any]:
    """Make arrays of several types and shapes."""
    kinds = ["f4", "f8", "i1", "u2", "i8", "c8", "?", "O"]
    tensors: dict[str, Any] = {}
    position = 0
    while position + 4 <= len(data) and len(tensors) < 8:
        size, kind, rank, length = data[position : position + 4]
        body = data[position + 4 : position + 4 + size]
        name = data[position + 4 : position + 4 + length % 9].decode("utf-8", "surrogateescape")
        dtype = np.dtype(kinds[kind % len(kinds)])
        if dtype.hasobject:
            array = np.array([body[n : n + 3] for n in range(0, len(body), 3)], object)
        elif dtype == np.bool_:
            array = np.frombuffer(body, np.uint8) > 7
        else:
            array = np.frombuffer(body[: len(body) // dtype.itemsize * dtype.itemsize], dtype)
        if rank % 3 == 1 and array.size % 2 == 0:
            array = array.reshape(2, -1)
        elif rank % 3 == 2 and array.size:
            array = array[:1].reshape(())
        tensors[name or "w"] = array
        position += 4 + size
    return tensors


def run_convert(data: bytes) -> None:
    """Convert a checkpoint to every format, and read each back."""
    if not data:
        return
    format, out = FORMATS[data[0] % len(FORMATS)]
    with tempfile.TemporaryDirectory() as folder:
        for name, content in bundle_store(data[1:]).items():
            path = Path(folder, name)
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)
        source, target = Path(folder, "d", "m"), Path(folder, out)
        done = attempt(ckptparse.convert, source, target, format=format, limits=LIMITS)
        if isinstance(done, ckptparse.CheckpointError):
            if Path(folder, "out").exists() or any(Path(folder).glob("out*")):
                raise BrokenPromiseError(f"{done!r}, and something was written")
            return
        str(done)
        check_copy(source, target, format)


def check_copy(source: Path, target: Path, format: str) -> None:
    """Hold what was converted to what it was converted from."""
    read = attempt(ckptparse.read, source, limits=LIMITS)
    found = attempt(ckptparse.diff, source, target, limits=LIMITS)
    if format != "v2":
        return
    if isinstance(found, ckptparse.CheckpointError) or isinstance(read, ckptparse.CheckpointError):
        raise BrokenPromiseError(f"converted, and then: {read!r}, {found!r}")
    copy = ckptparse.read(target, limits=LIMITS)
    if list(copy) != list(read) or not all(same_values(copy[n], read[n]) for n in read):
        raise BrokenPromiseError(f"converted, and {list(copy)} is not {list(read)}")


def write_seeds() -> Iterator[bytes]:
    for kind in range(8):
        yield bytes([12, kind, kind, 3]) + b"abcdefghijkl" + bytes([4, 1, 2, 1]) + b"wxyz"


def convert_seeds() -> Iterator[bytes]:
    for number, packed in enumerate(seeds.bundles()):
        yield bytes([number % len(FORMATS)]) + packed


def mutate_convert(data: bytes, rng: random.Random) -> bytes:
    return bytes([rng.randrange(len(FORMATS))]) + mutators.bundle(data[1:], rng)


TARGETS = [
    Target("write", run_write, write_seeds, mutators.blind),
    Target("convert", run_convert, convert_seeds, mutate_convert),
]
