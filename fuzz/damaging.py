"""Checkpoints whose values are known, and what may happen to their files."""

from __future__ import annotations

import base64
import gzip
import lzma
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import builder as b
import numpy as np
import v1_builder
from situations.models import make_model

__all__ = ["DAMAGES", "MODELS", "Files", "Model", "damage", "older", "unmerged"]

Files = dict[str, bytes]
Arrays = Mapping[str, np.ndarray[Any, Any]]
PREFIX = "d/ckpt-2"
_PAGE = 4096
_SECTOR = 512
CONTESTED = 5
"""What one part of a save has of a counter, and the other has not."""
_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12\n"


@dataclass(frozen=True)
class Model:
    """A checkpoint: its values, and its files."""

    arrays: Arrays
    files: Files
    path: str = PREFIX


def counters(seed: int) -> dict[str, Any]:
    """Make values that follow from their checksums, and text."""
    numbers = [0, 1, 70_000, 2**22, 2**31, 2**33 + 5, 2**40 + 12_345, seed]
    found: dict[str, Any] = {f"counter_{n}": np.array(one) for n, one in enumerate(numbers)}
    found |= {f"flags_{n}": np.arange(n) % 3 == 1 for n in (1, 5, 13, 22)}
    found |= {"rate": np.float32(3e-4), "ones": np.ones((30, 4), "<f4"), "empty": np.zeros((0, 3))}
    found |= {"zeros": np.zeros(999, "<f4"), "range": np.arange(512, dtype=np.int32)}
    words = [f"word{n} of {seed}".encode() for n in range(20)]
    return {**found, "text": np.array(words, object), "half": np.full((3, 5), 1e-3, "<f2")}


def mixed(seed: int) -> dict[str, Any]:
    """Make values of several kinds, trained and frozen."""
    rng, frozen = np.random.default_rng(seed), np.random.default_rng(0)
    found: dict[str, Any] = {
        "bits": rng.random(18) < 0.5,
        "counts": rng.integers(0, 1 << 40, 5),
        "double": rng.normal(size=(20, 8)),
        "frozen/kernel": frozen.normal(size=(64, 20)).astype("<f4"),
        "half": rng.normal(size=700).astype("<f2"),
        "odd": np.frombuffer(rng.bytes(7), np.uint8).copy(),
        "step": np.array(seed * 1_000_003),
        "tall": rng.normal(size=(40, 8)).astype("<f4"),
        "vocabulary": np.array([f"word{n} of {seed}".encode() for n in range(9)], object),
        "wide": rng.normal(size=(10, 12)).astype("<f4"),
    }
    if b.ml_dtypes is not None:
        found["brain"] = rng.normal(size=900).astype(b.ml_dtypes.bfloat16)
    return found


def as_bundle(arrays: Arrays, *, shards: int = 1, big: bool = False) -> b.Bundle:
    """Store values over so many data files; those named `tall` and `wide` in slices."""
    made = b.Bundle(big=big)
    made.shards = {number: bytearray() for number in range(shards)}
    for number, (name, array) in enumerate(arrays.items()):
        last = shards - 1
        if name == "tall":
            made.add_sliced(name, array, b.split_rows(40, 4, 2), shards=[0, last, 0, last])
        elif name == "wide":
            columns = [[None, (0, 5)], [None, (5, 4)], [None, (9, 3)]]
            made.add_sliced(name, array, columns, shards=[last, last, 0])
        else:
            made.add(name, np.asarray(array), shard=number * shards // len(arrays))
    if "vocabulary" in arrays:
        made.add(b.OBJECT_GRAPH, np.array(b.flat_object_graph(arrays), object), shard=shards - 1)
    return made


def of_bundle(arrays: Arrays, path: str = PREFIX, *, block: int = 1 << 18, **options: Any) -> Model:
    """Make a V2 checkpoint."""
    made = as_bundle(arrays, **options)
    count = len(made.shards)
    files = {f"{path}.index": bytes(made.index(block_size=block))}
    for number, data in made.shards.items():
        files[f"{path}.data-{number:05}-of-{count:05}"] = bytes(data)
    return Model(arrays, files, path)


def of_v1(arrays: Arrays, path: str = PREFIX, **options: Any) -> Model:
    """Make a V1 checkpoint of one file."""
    made = v1_builder.LegacyFile()
    for name, array in arrays.items():
        made.add(name, np.asarray(array))
    return Model(arrays, {path: made.data(block_size=2048, **options)}, path)


def _small(seed: int) -> dict[str, Any]:
    return make_model(seed, rows=60, width=16, layers=3).arrays


def _large(seed: int) -> dict[str, Any]:
    return make_model(seed, rows=300, width=32, layers=3).arrays


_MAKERS: tuple[Callable[[int, str], Model], ...] = (
    lambda seed, path: of_bundle(_small(seed), path),
    lambda seed, path: of_bundle(_small(seed), path, shards=3, block=600),
    lambda seed, path: of_v1(_small(seed), path),
    lambda seed, path: of_v1(_small(seed), path, type=b.SNAPPY),
    lambda seed, path: of_bundle(counters(seed), path),
    lambda seed, path: of_bundle(_large(seed), path, block=600),
    lambda seed, path: of_bundle(mixed(seed), path, shards=2, block=400),
    lambda seed, path: of_bundle(mixed(seed), path, big=True),
    lambda seed, path: of_v1(counters(seed), path),
)
MODELS = len(_MAKERS)


@cache
def model_of(number: int, seed: int = 2, path: str = PREFIX) -> Model:
    """Return one of the checkpoints."""
    return _MAKERS[number % MODELS](seed, path)


@cache
def older(number: int, path: str = "d/ckpt-1") -> Model:
    """Return what the same run has saved before: near the later values, and some the same."""
    rng = np.random.default_rng(7)
    arrays = {
        name: (array * (1 + rng.normal(0, 0.03, array.shape))).astype(array.dtype)
        if array.dtype.kind == "f" and array.ndim and "layer_0" not in name
        else array
        for name, array in model_of(number).arrays.items()
    }
    options: dict[str, Any] = {"path": path}
    count = sum(".data-" in name for name in model_of(number).files)
    return of_bundle(arrays, shards=count, **options) if count else of_v1(arrays, **options)


def unmerged(model: Model, kind: int) -> Files:
    """Return the parts that a checkpoint was to be merged of when its save ended early."""
    whole = as_bundle(model.arrays, shards=2)
    ending = ".index.tempstate1234567890" if kind & 1 else ".index"
    files: Files = {}
    for shard in (0, 1):
        part = b.Bundle()
        part.shards = {0: whole.shards[shard]}
        part.entries = _entries_of(whole, shard)
        if kind & 4 and shard:
            # Both parts say that they have it, and not the same of it.
            part.add("global_step", np.array(CONTESTED))
        stem = f"{PREFIX}_temp/part-{shard:05}-of-00002"
        files[stem + ending] = bytes(part.index(block_size=512))
        data = f"{PREFIX}.data-{shard:05}-of-00002" if kind & 2 else f"{stem}.data-00000-of-00001"
        files[data] = bytes(part.shards[0])
    return files


def _entries_of(whole: b.Bundle, number: int) -> dict[bytes, Any]:
    """Return the entries of one part: each lists its own slices."""
    entries: dict[bytes, Any] = {}
    for key, made in whole.entries.items():
        if not isinstance(made, b.Entry):
            continue
        if made.slices:
            keys = {b.slice_key(key, piece): piece for piece in made.slices}
            own = {one: whole.entries[one] for one in keys}
            stored = [
                keys[one]
                for one, entry in own.items()
                if isinstance(entry, b.Entry) and entry.shard == number
            ]
            if stored:
                entries[key] = made.but(slices=tuple(stored))
        elif made.shard == number:
            entries[key] = made.but(shard=0)
    return entries


# ---- what happens to a file


def _over(data: bytes, start: int, new: bytes) -> bytes:
    return data[:start] + new[: len(data) - start] + data[start + len(new) :]


def _noise(size: int, seed: int) -> bytes:
    return random.Random(seed).randbytes(size)


def _sectors(data: bytes, start: int, number: int) -> bytes:
    rng, out = random.Random(number), bytearray(data)
    for _ in range(1 + number % 20):
        place = rng.randrange(max(1, len(out) // _SECTOR)) * _SECTOR
        out[place : place + _SECTOR] = bytes([start % 2 * 255]) * len(out[place : place + _SECTOR])
    return bytes(out)


def _striped(data: bytes, _: int, number: int) -> bytes:
    """Put the stripes of an array of disks together in the wrong order."""
    size, disks = _PAGE, 2 + number % 3
    order = random.Random(number).sample(range(disks), disks)
    row, out = size * disks, bytearray(data)
    for start in range(0, len(data) // row * row, row):
        for place, there in enumerate(order):
            piece = data[start + place * size : start + (place + 1) * size]
            out[start + there * size : start + (there + 1) * size] = piece
    return bytes(out)


def _flip(data: bytes, start: int, mask: int) -> bytes:
    return _over(data, start, bytes([data[start] ^ mask])) if start < len(data) else data


DAMAGES: tuple[Callable[[bytes, int, int], bytes], ...] = (
    lambda data, start, number: _over(data, start, bytes(16 * number)),
    lambda data, start, number: _over(data, start, b"\xff" * 16 * number),
    lambda data, start, number: _over(data, start, b"step 100: loss 0.3141\n" * number),
    lambda data, start, number: _over(data, start, _noise(16 * number, start)),
    lambda data, start, _number: _over(data, start // _PAGE * _PAGE, bytes(_PAGE)),
    lambda data, start, _number: _over(data, start, bytes(len(data) - start)),
    lambda data, start, _number: data[:start],
    lambda data, _start, number: data[: -(1 + number % 8)],
    lambda data, start, number: _flip(data, start, 1 << number % 8),
    _flip,
    lambda data, start, number: _flip(_flip(data, start, 4), start // 2, number),
    lambda data, start, number: data[:start] + b"\r\n--edge--"[: 1 + number % 10] + data[start:],
    lambda data, start, number: data[:start] + data[start + 4 * (1 + number) :],
    lambda data, start, number: data[:start] + data[start + 1 + number % 13 :],
    lambda data, start, number: data[: start + 64 * number] + data[start:],
    lambda data, _start, number: data + _noise(10 * number, 1),
    lambda data, _start, number: _noise(1 + number % 40, 2) + data,
    lambda data, _start, number: data[1 + number % 20 :],
    lambda data, _start, _number: data.replace(b"\n", b"\r\n"),
    lambda data, _start, _number: data.replace(b"\r\n", b"\n"),
    lambda data, _start, _number: data.decode("utf-8", "replace").encode(),
    lambda data, _start, _number: data.decode("latin-1").encode(),
    lambda data, _start, _number: base64.encodebytes(data),
    lambda data, _start, _number: base64.b64encode(data),
    lambda data, _start, _number: gzip.compress(data, 1),
    lambda data, start, _number: gzip.compress(data, 1)[: start // 2],
    lambda data, _start, _number: lzma.compress(data, preset=0),
    lambda _data, _start, _number: _POINTER,
    lambda data, _start, number: b"<!DOCTYPE html><title>Sign in</title>" + data[:number],
    lambda _data, _start, _number: b"",
    lambda data, _start, _number: bytes(len(data)),
    lambda data, _start, number: _noise(len(data), number),
    _sectors,
    _striped,
    lambda data, _start, _number: data + data,
    lambda data, _start, _number: data[:-48],
    lambda data, _start, _number: data.replace(b"\n", b"\r"),
    lambda data, _start, _number: b"".join(
        (data[n : n + _PAGE] if n // _PAGE % 2 else _noise(_PAGE, n))[: len(data) - n]
        for n in range(0, len(data), _PAGE)
    ),
)
"""Each takes what a file holds, a place in it, and a number."""
REMOVED, RENAMED, SWAPPED, JOINED, OLDER = range(5)
"""What happens to whole files, besides."""
KINDS = len(DAMAGES) + 5


def damage(files: Files, other: Files, steps: bytes) -> Files:
    """Let things happen: five bytes each: what, to which file, where (two bytes), and a number."""
    files = dict(files)
    for at in range(0, len(steps) - 4, 5):
        kind, which, high, low, number = steps[at : at + 5]
        names = sorted(files)
        if not names:
            break
        name, following = (names[(which + n) % len(names)] for n in (0, 1))
        data, what = files[name], kind % KINDS - len(DAMAGES)
        if what < 0:
            files[name] = DAMAGES[what](data, len(data) * (high << 8 | low) >> 16, number)
        else:
            _move(files, other, what, name, following)
    return files


def _move(files: Files, other: Files, what: int, name: str, following: str) -> None:
    """Let something happen to a whole file."""
    if what == REMOVED:
        del files[name]
    elif what == RENAMED:
        files["d/download (1).bin"] = files.pop(name)
    elif what == SWAPPED:
        files[name], files[following] = files[following], files[name]
    elif what == JOINED and name != following:
        files[name] += files.pop(following)
    elif what == OLDER:
        files[name] = other.get(name, files[name])
