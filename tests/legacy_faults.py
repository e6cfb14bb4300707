"""Damage copies of V1 files in every way that happens to them; the oracle is `write_files`."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import builder
import numpy as np
import v1_builder
from faults import Arrays, change, data_end, flip, footer_of

STEM = "model.ckpt-200"


def values() -> Arrays:
    rng = np.random.default_rng(5)
    return {
        "bias": np.zeros(16, np.float32),
        "flag": np.bool_(True),
        "kernel": rng.normal(size=(30, 20)).astype(np.float32),
        "labels": rng.integers(-5, 5, (3, 4)).astype(np.int8),
        "names": np.array([b"a", b"", b"\x00\xff"], object),
        "sliced": rng.normal(size=(12, 5)).astype(np.float64),
        "step": np.int64(123456),
        "table": rng.normal(size=(200, 9)).astype(np.float32),
        "z/half": rng.normal(size=7).astype(np.float16),
    }


def write_files(directory: Path) -> Arrays:
    directory.mkdir(parents=True, exist_ok=True)
    arrays = values()
    file = v1_builder.LegacyFile()
    for name, array in arrays.items():
        if name == "sliced":
            listed = file.declare(name, array.shape, builder.number_of(array))
            for piece in builder.split_rows(12, 3, 2):
                file.add_slice(listed, piece, array[builder.region(piece, array.shape)])
        else:
            file.add(name, array)
    file.write(directory / STEM, block_size=1024)
    return arrays


@dataclass(frozen=True)
class LegacyFault:
    """A kind of damage of one V1 file."""

    name: str
    damage: Callable[[Path, random.Random], None]


FAULTS: list[LegacyFault] = []


def fault(name: str) -> Callable[[Callable[[Path, random.Random], None]], None]:
    def register(damage: Callable[[Path, random.Random], None]) -> None:
        FAULTS.append(LegacyFault(f"v1/{name}", damage))

    return register


def cut_at(path: Path, size: int) -> None:
    os.truncate(path, size)


def edit(path: Path, change_data: Callable[[bytearray], Any]) -> None:
    change(path, change_data)


@fault("footer cut off")
def _(path: Path, rng: random.Random) -> None:
    cut_at(path, path.stat().st_size - 48)


@fault("last byte cut off")
def _(path: Path, rng: random.Random) -> None:
    cut_at(path, path.stat().st_size - 1)


@fault("cut in the middle")
def _(path: Path, rng: random.Random) -> None:
    cut_at(path, path.stat().st_size // 2)


@fault("cut anywhere")
def _(path: Path, rng: random.Random) -> None:
    cut_at(path, rng.randrange(64, path.stat().st_size))


@fault("bit of a block")
def _(path: Path, rng: random.Random) -> None:
    edit(path, lambda data: flip(data, rng.randrange(data_end(data)), rng.randrange(8)))


@fault("bytes of a block")
def _(path: Path, rng: random.Random) -> None:
    def damage(data: bytearray) -> None:
        start = rng.randrange(data_end(data) - 8)
        data[start : start + 8] = rng.randbytes(8)

    edit(path, damage)


@fault("first block zeros")
def _(path: Path, rng: random.Random) -> None:
    edit(path, lambda data: data.__setitem__(slice(16, 400), bytes(384)))


@fault("index block damaged")
def _(path: Path, rng: random.Random) -> None:
    edit(path, lambda data: flip(data, footer_of(data)[1][0] + 3, 5))


@fault("metaindex damaged")
def _(path: Path, rng: random.Random) -> None:
    edit(path, lambda data: flip(data, footer_of(data)[0][0] + 3, 5))


@fault("a page of zeros")
def _(path: Path, rng: random.Random) -> None:
    edit(path, lambda data: data.__setitem__(slice(4096, 8192), bytes(4096)))


@fault("line feeds to CR LF")
def _(path: Path, rng: random.Random) -> None:
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))


@fault("not yet renamed")
def _(path: Path, rng: random.Random) -> None:
    path.rename(f"{path}.tempstate12345")
