"""Damage copies of checkpoints in every way that happens to them, and judge what comes back.

`write_run` makes the files of a training run with `builder`: three checkpoints of the same layout
over two data files. Each `Fault` damages the middle one. `judge` holds what was recovered against
the intact values and says which share came back; `snapshot` tells whether anything was written.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import builder
import numpy as np
from packages import ml_dtypes

Arrays = dict[str, np.ndarray[Any, Any]]
PROVED = ("verified", "corrected", "derived")
STEPS = (100, 200, 300)
BASE = "ckpt-200"
PAGE = 4096

POINTER = (
    b"version https://git-lfs.github.com/spec/v1\n"
    b"oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 1234567\n"
)
PAGE_OF_HTML = b"<!DOCTYPE html>\n<html><head><title>Sign in</title></head><body></body></html>\n"


# --------------------------------------------------------------------------------- a training run


def values(step: int, *, large: bool = False, zeros: bool = False) -> Arrays:
    """The variables of the run at one step: trained, fresh, frozen, counters, strings, slices.

    With `zeros`, another set: slots of rows that were never seen, and counters beyond 2**32.
    """
    if zeros:
        return values_with_zeros(step)
    trained = np.random.default_rng(step)
    frozen = np.random.default_rng(0)
    rows = 3000 if large else 300
    return {
        "batch/beta": np.zeros(16, np.float32),
        "batch/gamma": np.ones(16, np.float32),
        "conv/bias": trained.normal(size=16).astype(np.float32),
        "conv/kernel": trained.normal(size=(3, 3, 8, 16)).astype(np.float32),
        "counts": trained.integers(0, 1 << 40, 5),
        "embedding": trained.normal(size=(rows, 17)).astype(np.float32),
        "epsilon": np.full((3, 5), 1e-7, np.float32),
        "frozen/kernel": frozen.normal(size=(64, 32)).astype(np.float32),
        "global_step": np.int64(step * 1_000_003),
        "half": trained.normal(size=33).astype(ml_dtypes.bfloat16 if ml_dtypes else np.float16),
        "learning_rate": np.float32(0.001 * 0.97**step),
        "odd": np.frombuffer(trained.bytes(7), np.uint8).copy(),
        "positions": np.arange(512, dtype=np.int32),
        "seed": np.int64((1 << 40) + step),
        "small": np.int64(17),
        "training": np.bool_(True),
        "vocabulary": np.array([f"word{n} of {step}".encode() for n in range(20)], object),
        "weights": trained.normal(size=(31, 7)).astype(np.float32),
        "wide": trained.normal(size=(10, 12)).astype(np.float32),
        "tall": trained.normal(size=(40, 8)).astype(np.float32),
    }


def values_with_zeros(step: int) -> Arrays:
    """Tensors that rightly hold runs of zeros, as the slots of an embedding's optimizer do."""
    trained = np.random.default_rng(step)
    seen = np.random.default_rng(0).random(3000) < 0.05
    slots = trained.normal(size=(3000, 24)).astype(np.float32) * seen[:, None]
    return {
        "beta": np.zeros(2000, np.float32),
        "bits": trained.random(18) < 0.5,
        "embedding": trained.normal(size=(3000, 24)).astype(np.float32),
        "embedding/m": slots,
        "embedding/v": slots**2,
        "examples": np.int64(0x1_2345_6789 * step),
        "iterations": np.int64((7 << 32) + step),
        "kernel": trained.normal(size=(40, 30)).astype(np.float32),
        "mask": (np.arange(9000) < 1000).astype(np.int32),
        "pair": trained.normal(size=1),
    }


def make_bundle(arrays: Mapping[str, Any], *, alone: bool = False) -> builder.Bundle:
    """Store the variables over two data files, those named last first, as no sorting would."""
    bundle = builder.Bundle()
    bundle.shards = {0: bytearray(), 1: bytearray()}
    for number, name in enumerate(reversed(list(arrays))):
        if name == "tall":
            slices = builder.split_rows(40, 4, 2)
            bundle.add_sliced(name, arrays[name], slices, shards=[0, 1, 0, 1])
        elif name == "wide":
            columns = [[None, (0, 5)], [None, (5, 4)], [None, (9, 3)]]
            bundle.add_sliced(name, arrays[name], columns, shards=[1, 1, 0])
        else:
            bundle.add(name, arrays[name], shard=0 if alone else number % 2)
    graph = np.array(builder.flat_object_graph(arrays), object)
    bundle.add(builder.OBJECT_GRAPH, graph, shard=1)
    return bundle


def write_run(
    directory: Path, *, siblings: bool = True, large: bool = False, zeros: bool = False
) -> Arrays:
    """Write the run's files; return the values of the checkpoint `BASE`."""
    directory.mkdir(parents=True, exist_ok=True)
    steps = STEPS if siblings else STEPS[1:2]
    for step in steps:
        bundle = make_bundle(values(step, large=large, zeros=zeros))
        bundle.write(directory / f"ckpt-{step}", block_size=512)
    lines = [f'model_checkpoint_path: "{BASE}"']
    lines += [f'all_model_checkpoint_paths: "ckpt-{step}"' for step in steps]
    (directory / "checkpoint").write_text("\n".join(lines) + "\n")
    return values(STEPS[1], large=large, zeros=zeros)


# ----------------------------------------------------------------------------------------- faults


@dataclass(frozen=True)
class Files:
    """The files of the checkpoint to damage."""

    directory: Path
    stem: str = BASE

    @property
    def prefix(self) -> Path:
        return self.directory / self.stem

    @property
    def index(self) -> Path:
        return self.directory / f"{self.stem}.index"

    def shard(self, number: int, stem: str | None = None) -> Path:
        return self.directory / f"{stem or self.stem}.data-{number:05d}-of-00002"


@dataclass(frozen=True)
class Fault:
    """A kind of damage.

    name: class and kind, such as `shard/swapped`.
    damage: Does it; may use chance.
    zeros: Whether the run's tensors hold zeros of their own.
    """

    name: str
    damage: Callable[[Files, random.Random], None]
    zeros: bool = False


FAULTS: list[Fault] = []


def fault(
    name: str, *, zeros: bool = False
) -> Callable[[Callable[[Files, random.Random], None]], None]:
    def register(damage: Callable[[Files, random.Random], None]) -> None:
        FAULTS.append(Fault(name, damage, zeros))

    return register


def change(path: Path, edit: Callable[[bytearray], Any]) -> None:
    data = bytearray(path.read_bytes())
    edit(data)
    path.write_bytes(data)


def flip(data: bytearray, offset: int, bit: int) -> None:
    data[offset] ^= 1 << bit


def footer_of(data: bytes) -> tuple[tuple[int, int], tuple[int, int]]:
    """The handles of metaindex and index block."""
    numbers, position = [], len(data) - 48
    for _ in range(4):
        value = shift = 0
        while True:
            byte = data[position]
            position += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        numbers.append(value)
    return (numbers[0], numbers[1]), (numbers[2], numbers[3])


def data_end(data: bytes) -> int:
    """Where the data blocks end."""
    return footer_of(data)[0][0]


# -- the index


@fault("index/missing")
def _(files: Files, rng: random.Random) -> None:
    files.index.unlink()


@fault("index/empty")
def _(files: Files, rng: random.Random) -> None:
    files.index.write_bytes(b"")


@fault("index/footer cut off")
def _(files: Files, rng: random.Random) -> None:
    change(files.index, lambda data: data.__delitem__(slice(len(data) - 48, None)))


@fault("index/magic flipped")
def _(files: Files, rng: random.Random) -> None:
    change(files.index, lambda data: flip(data, len(data) - 3, 4))


@fault("index/footer zeroed")
def _(files: Files, rng: random.Random) -> None:
    change(files.index, lambda data: data.__setitem__(slice(len(data) - 48, None), bytes(48)))


@fault("index/byte appended")
def _(files: Files, rng: random.Random) -> None:
    change(files.index, lambda data: data.append(10))


@fault("index/bytes in front")
def _(files: Files, rng: random.Random) -> None:
    files.index.write_bytes(b"\xef\xbb\xbf" + files.index.read_bytes())


@fault("index/cut in the middle")
def _(files: Files, rng: random.Random) -> None:
    change(files.index, lambda data: data.__delitem__(slice(len(data) // 2, None)))


@fault("index/index block damaged")
def _(files: Files, rng: random.Random) -> None:
    change(files.index, lambda data: flip(data, footer_of(data)[1][0] + 3, 6))


@fault("index/metaindex damaged")
def _(files: Files, rng: random.Random) -> None:
    change(files.index, lambda data: flip(data, footer_of(data)[0][0] + 3, 6))


@fault("index/bit of a block")
def _(files: Files, rng: random.Random) -> None:
    change(files.index, lambda data: flip(data, rng.randrange(data_end(data)), rng.randrange(8)))


@fault("index/bit of a block, footer cut off")
def _(files: Files, rng: random.Random) -> None:
    def edit(data: bytearray) -> None:
        flip(data, rng.randrange(data_end(data)), rng.randrange(8))
        del data[-48:]

    change(files.index, edit)


@fault("index/bytes of a block")
def _(files: Files, rng: random.Random) -> None:
    def edit(data: bytearray) -> None:
        start = rng.randrange(data_end(data) - 8)
        data[start : start + 8] = rng.randbytes(8)

    change(files.index, edit)


@fault("index/zeros in a block")
def _(files: Files, rng: random.Random) -> None:
    def edit(data: bytearray) -> None:
        start = rng.randrange(data_end(data) - 200)
        data[start : start + 200] = bytes(200)

    change(files.index, edit)


@fault("index/all zeros")
def _(files: Files, rng: random.Random) -> None:
    change(files.index, lambda data: data.__setitem__(slice(None), bytes(len(data))))


@fault("index/pointer")
def _(files: Files, rng: random.Random) -> None:
    files.index.write_bytes(POINTER)


@fault("index/web page")
def _(files: Files, rng: random.Random) -> None:
    files.index.write_bytes(PAGE_OF_HTML)


@fault("index/line ends converted")
def _(files: Files, rng: random.Random) -> None:
    files.index.write_bytes(files.index.read_bytes().replace(b"\n", b"\r\n"))


# -- data files


def cut(path: Path, count: int) -> None:
    os.truncate(path, path.stat().st_size - count)


@fault("shard/first missing")
def _(files: Files, rng: random.Random) -> None:
    files.shard(0).unlink()


@fault("shard/second missing")
def _(files: Files, rng: random.Random) -> None:
    files.shard(1).unlink()


@fault("shard/both missing")
def _(files: Files, rng: random.Random) -> None:
    files.shard(0).unlink()
    files.shard(1).unlink()


@fault("shard/cut in the middle")
def _(files: Files, rng: random.Random) -> None:
    cut(files.shard(0), files.shard(0).stat().st_size // 2)


@fault("shard/last byte cut off")
def _(files: Files, rng: random.Random) -> None:
    cut(files.shard(0), 1)


@fault("shard/last four bytes cut off")
def _(files: Files, rng: random.Random) -> None:
    cut(files.shard(0), 4)


@fault("shard/cut anywhere")
def _(files: Files, rng: random.Random) -> None:
    cut(files.shard(0), rng.randrange(1, files.shard(0).stat().st_size))


@fault("shard/empty")
def _(files: Files, rng: random.Random) -> None:
    files.shard(0).write_bytes(b"")


@fault("shard/second half zeros")
def _(files: Files, rng: random.Random) -> None:
    def edit(data: bytearray) -> None:
        start = len(data) // 2 // PAGE * PAGE
        data[start:] = bytes(len(data) - start)

    change(files.shard(0), edit)


@fault("shard/one page of zeros")
def _(files: Files, rng: random.Random) -> None:
    def edit(data: bytearray) -> None:
        start = rng.randrange(len(data) // PAGE) * PAGE
        data[start : start + PAGE] = bytes(PAGE)

    change(files.shard(0), edit)


@fault("shard/all zeros")
def _(files: Files, rng: random.Random) -> None:
    change(files.shard(0), lambda data: data.__setitem__(slice(None), bytes(len(data))))


@fault("shard/bit flipped")
def _(files: Files, rng: random.Random) -> None:
    path = files.shard(rng.randrange(2))
    change(path, lambda data: flip(data, rng.randrange(len(data)), rng.randrange(8)))


@fault("shard/byte changed")
def _(files: Files, rng: random.Random) -> None:
    def edit(data: bytearray) -> None:
        data[rng.randrange(len(data))] ^= rng.randrange(1, 256)

    change(files.shard(0), edit)


@fault("shard/64 bytes changed")
def _(files: Files, rng: random.Random) -> None:
    def edit(data: bytearray) -> None:
        start = rng.randrange(len(data) - 64)
        data[start : start + 64] = rng.randbytes(64)

    change(files.shard(0), edit)


@fault("shard/rubbish")
def _(files: Files, rng: random.Random) -> None:
    change(files.shard(0), lambda data: data.__setitem__(slice(None), rng.randbytes(len(data))))


@fault("shard/swapped")
def _(files: Files, rng: random.Random) -> None:
    first, second = files.shard(0).read_bytes(), files.shard(1).read_bytes()
    files.shard(0).write_bytes(second)
    files.shard(1).write_bytes(first)


@fault("shard/renamed")
def _(files: Files, rng: random.Random) -> None:
    files.shard(0).rename(files.shard(0, "model"))


@fault("shard/duplicated over the other")
def _(files: Files, rng: random.Random) -> None:
    shutil.copyfile(files.shard(0), files.shard(1))


@fault("shard/of another step")
def _(files: Files, rng: random.Random) -> None:
    other = make_bundle(values(150))
    files.shard(0).write_bytes(bytes(other.shards[0]))


@fault("shard/both of another step")
def _(files: Files, rng: random.Random) -> None:
    other = make_bundle(values(150))
    for number in (0, 1):
        files.shard(number).write_bytes(bytes(other.shards[number]))


@fault("shard/exchanged with a sibling's")
def _(files: Files, rng: random.Random) -> None:
    sibling = files.shard(0, "ckpt-300")
    if sibling.exists():
        first, second = files.shard(0).read_bytes(), sibling.read_bytes()
        files.shard(0).write_bytes(second)
        sibling.write_bytes(first)


@fault("shard/line feeds to CR LF")
def _(files: Files, rng: random.Random) -> None:
    data = files.shard(0).read_bytes()
    files.shard(0).write_bytes(data.replace(b"\n", b"\r\n"))


@fault("shard/CR LF to line feeds")
def _(files: Files, rng: random.Random) -> None:
    data = files.shard(0).read_bytes()
    files.shard(0).write_bytes(data.replace(b"\r\n", b"\n"))


@fault("shard/through UTF-8")
def _(files: Files, rng: random.Random) -> None:
    data = files.shard(0).read_bytes().decode("utf-8", "replace").encode()
    files.shard(0).write_bytes(data)


@fault("shard/three bytes in front")
def _(files: Files, rng: random.Random) -> None:
    files.shard(0).write_bytes(b"\xef\xbb\xbf" + files.shard(0).read_bytes())


@fault("shard/page in front")
def _(files: Files, rng: random.Random) -> None:
    files.shard(0).write_bytes(bytes(PAGE) + files.shard(0).read_bytes())


@fault("shard/bytes lost in the middle")
def _(files: Files, rng: random.Random) -> None:
    def edit(data: bytearray) -> None:
        start = rng.randrange(len(data) - 100)
        del data[start : start + rng.randrange(1, 100)]

    change(files.shard(0), edit)


@fault("shard/joined to one")
def _(files: Files, rng: random.Random) -> None:
    joined = files.shard(0).read_bytes() + files.shard(1).read_bytes()
    files.shard(0).write_bytes(joined)
    files.shard(1).unlink()


@fault("shard/junk appended")
def _(files: Files, rng: random.Random) -> None:
    files.shard(0).write_bytes(files.shard(0).read_bytes() + rng.randbytes(100))


@fault("shard/pointer")
def _(files: Files, rng: random.Random) -> None:
    files.shard(0).write_bytes(POINTER)


@fault("shard/web page")
def _(files: Files, rng: random.Random) -> None:
    files.shard(0).write_bytes(PAGE_OF_HTML)


# -- several at once


@fault("both/index cut, shard cut")
def _(files: Files, rng: random.Random) -> None:
    change(files.index, lambda data: data.__delitem__(slice(len(data) // 2, None)))
    cut(files.shard(0), files.shard(0).stat().st_size // 2)


@fault("both/index bit, shard bit")
def _(files: Files, rng: random.Random) -> None:
    change(files.index, lambda data: flip(data, rng.randrange(data_end(data)), rng.randrange(8)))
    change(files.shard(0), lambda data: flip(data, rng.randrange(len(data)), rng.randrange(8)))


@fault("both/index of another save")
def _(files: Files, rng: random.Random) -> None:
    """The values that the index knows of are those of `BASE`; its data is of another step."""
    other = make_bundle(values(150))
    for number in (0, 1):
        files.shard(number).write_bytes(bytes(other.shards[number]))
    change(files.index, lambda data: flip(data, rng.randrange(data_end(data)), rng.randrange(8)))


# -- saves that ended early: the part files of `BASE`


def write_parts(files: Files, *, indexes: str = ".index", moved: tuple[int, ...] = ()) -> None:
    """Turn the checkpoint into the parts that it was merged of."""
    folder = files.directory / f"{files.stem}_temp"
    folder.mkdir()
    whole = make_bundle(values(STEPS[1]))
    for number in (0, 1):
        part = builder.Bundle()
        part.shards = {0: whole.shards[number]}
        part.entries = _entries_of(whole, number)
        stem = f"part-{number:05d}-of-00002"
        (folder / f"{stem}{indexes}").write_bytes(part.index(block_size=512))
        if number in moved:
            continue
        files.shard(number).unlink()
        (folder / f"{stem}.data-00000-of-00001").write_bytes(bytes(whole.shards[number]))
    files.index.unlink()


def _entries_of(whole: builder.Bundle, number: int) -> dict[bytes, Any]:
    """The entries of one part: those of its shard; each part lists its own slices."""
    entries: dict[bytes, Any] = {}
    for key, made in whole.entries.items():
        assert isinstance(made, builder.Entry)
        if made.slices:
            stored = [
                piece
                for piece in made.slices
                if whole.entries[builder.slice_key(key, piece)].shard == number  # type: ignore[union-attr]
            ]
            if stored:
                entries[key] = made.but(slices=tuple(stored))
        elif made.shard == number:
            entries[key] = made.but(shard=0)
    return entries


@fault("save/parts not merged")
def _(files: Files, rng: random.Random) -> None:
    write_parts(files)


@fault("save/one part moved")
def _(files: Files, rng: random.Random) -> None:
    write_parts(files, moved=(1,))


@fault("save/both parts moved, no index")
def _(files: Files, rng: random.Random) -> None:
    write_parts(files, moved=(0, 1))


@fault("save/indexes not yet renamed")
def _(files: Files, rng: random.Random) -> None:
    write_parts(files, indexes=".index.tempstate1234567890")


@fault("save/index cut while it was merged")
def _(files: Files, rng: random.Random) -> None:
    data = files.index.read_bytes()
    write_parts(files, moved=(0, 1))
    files.index.write_bytes(data[: len(data) // 3])


@fault("save/index not yet renamed")
def _(files: Files, rng: random.Random) -> None:
    files.index.rename(f"{files.index}.tempstate1234567890")


@fault("save/index cut before it was renamed")
def _(files: Files, rng: random.Random) -> None:
    data = files.index.read_bytes()
    files.index.unlink()
    Path(f"{files.index}.tempstate1234567890").write_bytes(data[: len(data) // 2])


@fault("save/parts of another save beside")
def _(files: Files, rng: random.Random) -> None:
    """A later save over the same prefix died early: what it left is no part of this one."""
    folder = files.directory / f"{files.stem}_temp"
    folder.mkdir()
    other = make_bundle(values(250), alone=True)
    (folder / "part-00000-of-00001.index").write_bytes(other.index())
    (folder / "part-00000-of-00001.data-00000-of-00001").write_bytes(bytes(other.shards[0]))
    change(files.shard(0), lambda data: data.__setitem__(slice(5000, 6000), rng.randbytes(1000)))


# -- tensors that rightly hold zeros, and counters beyond 2**32


@fault("zeros/bit flipped", zeros=True)
def _(files: Files, rng: random.Random) -> None:
    path = files.shard(rng.randrange(2))
    change(path, lambda data: flip(data, rng.randrange(len(data)), rng.randrange(8)))


@fault("zeros/byte changed", zeros=True)
def _(files: Files, rng: random.Random) -> None:
    def edit(data: bytearray) -> None:
        data[rng.randrange(len(data))] ^= rng.randrange(1, 256)

    change(files.shard(rng.randrange(2)), edit)


@fault("zeros/64 bytes changed", zeros=True)
def _(files: Files, rng: random.Random) -> None:
    def edit(data: bytearray) -> None:
        start = rng.randrange(len(data) - 64)
        data[start : start + 64] = rng.randbytes(64)

    change(files.shard(rng.randrange(2)), edit)


@fault("zeros/sectors of noise", zeros=True)
def _(files: Files, rng: random.Random) -> None:
    def edit(data: bytearray) -> None:
        for _ in range(20):
            start = rng.randrange(len(data) // 512) * 512
            data[start : start + 512] = rng.randbytes(512)

    change(files.shard(0), edit)


@fault("zeros/sectors of ff", zeros=True)
def _(files: Files, rng: random.Random) -> None:
    def edit(data: bytearray) -> None:
        for _ in range(20):
            start = rng.randrange(len(data) // 512) * 512
            data[start : start + 512] = b"\xff" * 512

    change(files.shard(0), edit)


@fault("zeros/sectors of zeros", zeros=True)
def _(files: Files, rng: random.Random) -> None:
    def edit(data: bytearray) -> None:
        for _ in range(20):
            start = rng.randrange(len(data) // 512) * 512
            data[start : start + 512] = bytes(512)

    change(files.shard(0), edit)


@fault("zeros/one page of zeros", zeros=True)
def _(files: Files, rng: random.Random) -> None:
    def edit(data: bytearray) -> None:
        start = rng.randrange(len(data) // PAGE) * PAGE
        data[start : start + PAGE] = bytes(PAGE)

    change(files.shard(0), edit)


@fault("zeros/the end is zeros", zeros=True)
def _(files: Files, rng: random.Random) -> None:
    """A download into a file of its full size ended at any byte."""

    def edit(data: bytearray) -> None:
        start = rng.randrange(len(data))
        data[start:] = bytes(len(data) - start)

    change(files.shard(0), edit)


@fault("zeros/cut anywhere", zeros=True)
def _(files: Files, rng: random.Random) -> None:
    cut(files.shard(0), rng.randrange(1, files.shard(0).stat().st_size))


@fault("zeros/cut, and a page of zeros before", zeros=True)
def _(files: Files, rng: random.Random) -> None:
    def edit(data: bytearray) -> None:
        start = rng.randrange(len(data) // PAGE) * PAGE
        data[start : start + PAGE] = bytes(PAGE)
        del data[rng.randrange(1, len(data)) :]

    change(files.shard(0), edit)


@fault("zeros/three bytes in front", zeros=True)
def _(files: Files, rng: random.Random) -> None:
    files.shard(0).write_bytes(b"\xef\xbb\xbf" + files.shard(0).read_bytes())


@fault("zeros/bytes lost in the middle", zeros=True)
def _(files: Files, rng: random.Random) -> None:
    def edit(data: bytearray) -> None:
        start = rng.randrange(len(data) - 100)
        del data[start : start + rng.randrange(1, 100)]

    change(files.shard(0), edit)


@fault("zeros/line feeds to CR LF", zeros=True)
def _(files: Files, rng: random.Random) -> None:
    data = files.shard(0).read_bytes()
    files.shard(0).write_bytes(data.replace(b"\n", b"\r\n"))


@fault("zeros/CR LF to line feeds", zeros=True)
def _(files: Files, rng: random.Random) -> None:
    data = files.shard(0).read_bytes()
    files.shard(0).write_bytes(data.replace(b"\r\n", b"\n"))


@fault("zeros/through UTF-8", zeros=True)
def _(files: Files, rng: random.Random) -> None:
    data = files.shard(0).read_bytes().decode("utf-8", "replace").encode()
    files.shard(0).write_bytes(data)


@fault("zeros/second missing", zeros=True)
def _(files: Files, rng: random.Random) -> None:
    files.shard(1).unlink()


@fault("zeros/both missing", zeros=True)
def _(files: Files, rng: random.Random) -> None:
    files.shard(0).unlink()
    files.shard(1).unlink()


@fault("zeros/both of another step", zeros=True)
def _(files: Files, rng: random.Random) -> None:
    """A mixed save of equal layout."""
    other = make_bundle(values(150, zeros=True))
    for number in (0, 1):
        files.shard(number).write_bytes(bytes(other.shards[number]))


@fault("zeros/of another step, and cut", zeros=True)
def _(files: Files, rng: random.Random) -> None:
    other = bytes(make_bundle(values(150, zeros=True)).shards[0])
    files.shard(0).write_bytes(other[: rng.randrange(len(other) // 2, len(other))])


@fault("zeros/noise", zeros=True)
def _(files: Files, rng: random.Random) -> None:
    change(files.shard(0), lambda data: data.__setitem__(slice(None), rng.randbytes(len(data))))


# ---------------------------------------------------------------------------------------- judging


def same(first: Any, second: Any) -> bool:
    """Whether two arrays are equal, bit for bit."""
    first, second = np.asarray(first), np.asarray(second)
    if first.shape != second.shape or first.dtype != second.dtype:
        return False
    if first.dtype == object:
        return bool(first.tolist() == second.tolist())
    return first.tobytes() == second.tobytes()


@dataclass(frozen=True)
class Judgement:
    """What share of the elements came back, averaged over tensors; what was promised wrongly.

    Promised is all that is verified, corrected, derived, or unmasked in a partial tensor.
    """

    proved: float
    held: float
    wrong: tuple[str, ...]


def judge(recovery: Any, oracle: Mapping[str, Any]) -> Judgement:
    """Hold every tensor that was got back against the intact value."""
    proved = held = 0.0
    wrong: list[str] = []
    for name, tensor in recovery.items():
        if tensor.status in PROVED:
            if name not in oracle or not same(tensor.read(), oracle[name]):
                wrong.append(f"{name} ({tensor.status}, {tensor.method})")
            proved += name in oracle
        elif tensor.status == "partial" and not is_right_unmasked(tensor, oracle.get(name)):
            wrong.append(f"{name} (partial, {tensor.cause})")
        held += share_of(tensor, oracle.get(name))
    return Judgement(proved / len(oracle), held / len(oracle), tuple(wrong))


def is_right_unmasked(tensor: Any, value: Any) -> bool:
    """Whether every element that is not masked is the original's."""
    found = tensor.read()
    masked = np.ma.getmaskarray(found)
    if value is None or found.shape != np.shape(value) or found.dtype != np.asarray(value).dtype:
        return bool(masked.all())
    return bool((elements_equal(np.ma.getdata(found), np.asarray(value)) | masked).all())


def share_of(tensor: Any, value: Any) -> float:
    """The share of a tensor's elements that are there and right."""
    found = tensor.read()
    if value is None or found.shape != np.shape(value) or found.dtype != np.asarray(value).dtype:
        return 0.0
    right = elements_equal(np.ma.getdata(found), np.asarray(value)) & ~np.ma.getmaskarray(found)
    return float(right.mean()) if right.size else 1.0


def elements_equal(first: np.ndarray[Any, Any], second: np.ndarray[Any, Any]) -> Any:
    """Element by element, bit for bit."""
    if first.dtype == object:
        return np.array(first == second)
    shape = (*first.shape, first.itemsize)
    a = np.frombuffer(first.tobytes(), np.uint8).reshape(shape)
    b = np.frombuffer(second.tobytes(), np.uint8).reshape(shape)
    return (a == b).all(axis=-1)


def snapshot(directory: Path) -> dict[str, tuple[int, str]]:
    """Names, modification times and contents of everything below a directory."""
    return {
        path.relative_to(directory).as_posix(): (
            path.stat().st_mtime_ns,
            hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "",
        )
        for path in sorted(directory.rglob("*"))
    }


def iter_cases(*, seeds: int = 4) -> Iterator[tuple[Fault, bool, int]]:
    """Every fault, with and without siblings, several times where chance has a part in it."""
    for one in FAULTS:
        for siblings in (False, True):
            for seed in range(seeds):
                yield one, siblings, seed
