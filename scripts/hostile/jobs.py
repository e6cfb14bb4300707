"""V2 checkpoints of very many small tensors, all sound: what every job does for each of them."""

from __future__ import annotations

from itertools import cycle
from pathlib import Path
from typing import Any

import builder as b
import numpy as np

import ckptparse

__all__ = ["KINDS"]

_ENTRY = 25
"""About what the entry of a small tensor takes in an index, with a key that shares its start."""


def _write(directory: Path, size: int, values: list[Any], each: int, **options: Any) -> Path:
    """Write as many tensors as fit, of these values in turn; an entry and its data take `each`."""
    made = b.Bundle()
    for number, value in zip(range(size // each), cycle(values)):
        made.add(f"w{number:07}", value, **options)
    return Path(made.write(directory / "m"))


def half_scalars(directory: Path, size: int) -> Path:
    """Scalars of 2 bytes: their entries are nearly all of it."""
    return _write(directory, size, [np.float16(number) for number in range(9)], _ENTRY + 2)


def _allowed(directory: Path, size: int, values: list[Any], each: int) -> Path:
    """Write as many tensors of these values as jobs take of so many bytes, and one large one."""
    made = b.Bundle()
    count = ckptparse.DEFAULT_LIMITS.small_tensors + size // 700
    for number, value in zip(range(min(count, size // each)), cycle(values)):
        made.add(f"w{number:07}", value)
    made.add("z", np.arange(max(0, size - count * each), dtype=np.uint8))
    return Path(made.write(directory / "m"))


def allowed_scalars(directory: Path, size: int) -> Path:
    """As many scalars as no limit refuses."""
    return _allowed(directory, size, [np.float16(number) for number in range(9)], _ENTRY + 2)


def allowed_strings(directory: Path, size: int) -> Path:
    """As many strings as no limit refuses."""
    return _allowed(directory, size, [np.array(text, object) for text in (b"", b"a")], _ENTRY + 6)


def nan_vectors(directory: Path, size: int) -> Path:
    """Vectors with a NaN, an infinity and a number: each takes the longer way of the statistics."""
    value = np.array([np.nan, np.inf, 1.5, -0.0], np.float32)
    return _write(directory, size, [value, value * 2], _ENTRY + 20)


def many_kinds(directory: Path, size: int) -> Path:
    """Tiny vectors, each of another kind than the one before: nothing is alike in a row."""
    import ml_dtypes

    values: list[Any] = [
        np.arange(3).astype(kind)
        for kind in (np.float16, ml_dtypes.bfloat16, ml_dtypes.int4, np.bool_, np.complex64)
    ]
    values += [np.arange(2).astype(kind) for kind in (np.int8, np.uint16, np.float64, np.int64)]
    return _write(directory, size, values, _ENTRY + 12)


def strings(directory: Path, size: int) -> Path:
    """Scalar strings: each has lengths and a checksum of its own to be decoded."""
    return _write(directory, size, [np.array(text, object) for text in (b"", b"a")], _ENTRY + 6)


def variants(directory: Path, size: int) -> Path:
    """Scalar variants: each is a message."""
    made = b.Bundle()
    message = b.variant_proto("a", b"b")
    for number in range(size // (_ENTRY + 20)):
        made.add_variants(f"w{number:07}", [message], ())
    return Path(made.write(directory / "m"))


def many_shapes(directory: Path, size: int) -> Path:
    """Every tensor has a shape that no other has, of one to six dimensions."""
    made = b.Bundle()
    for number in range(size // (_ENTRY + 27)):
        bits = [1 + (number >> 2 * axis & 3) for axis in range(8)]
        value = np.ones((1, *(bits if np.prod(bits) < 9 else [1, number % 97])), np.int8)
        made.add(f"w{number:07}", value)
    return Path(made.write(directory / "m"))


def empty_tensors(directory: Path, size: int) -> Path:
    """Tensors of no element: nothing of them is in the data file."""
    return _write(directory, size, [np.zeros((0, 3), np.float32)], _ENTRY + 6)


def sliced_variables(directory: Path, size: int) -> Path:
    """Variables of two slices of one number each: three entries, and two ranges, for 8 bytes."""
    made = b.Bundle()
    for number in range(size // 130):
        slices = [[(0, 1)], [(1, 1)]]
        made.add_sliced(f"w{number:07}", np.arange(2, dtype=np.float32), slices)
    return Path(made.write(directory / "m"))


def deep_names(directory: Path, size: int) -> Path:
    """Names of hundreds of scopes inside each other, each name beginning with the one before."""
    made = b.Bundle()
    for number in range(size // (_ENTRY + 8)):
        deep = "a/" * (number % 400)
        made.add(f"{number // 400:05}/{deep}w", np.float32(number))
    return Path(made.write(directory / "m"))


def wide_scopes(directory: Path, size: int) -> Path:
    """Give each variable a scope of its own, of words that name layers and optimizers."""
    words = ("kernel", "bias", "gamma", "moving_mean", "embeddings", "Adam", "lstm", "m")
    made = b.Bundle()
    for number in range(size // (_ENTRY + 14)):
        word = words[number % len(words)]
        made.add(f"m/dense_{number:06}/{word}", np.float32(number))
    return Path(made.write(directory / "m"))


def slot_names(directory: Path, size: int) -> Path:
    """Write variables, and what is called as their slots are, by optimizers of several kinds."""
    made = b.Bundle()
    slots = ("", "/Adam", "/Adam_1", "/Momentum", "/ExponentialMovingAverage", "/Adam/Adam_1")
    for number in range(size // (6 * (_ENTRY + 8))):
        for slot in slots:
            made.add(f"v{number:06}{slot}", np.float32(number))
    return Path(made.write(directory / "m"))


def one_letter_slots(directory: Path, size: int) -> Path:
    """Slots of slots: each name is the one before and an optimizer's word, over and over."""
    made = b.Bundle()
    for number in range(size // (_ENTRY + 16)):
        tail = "/Adam" * (number % 200)
        made.add(f"v{number // 200:05}{tail}", np.float32(number))
    return Path(made.write(directory / "m"))


def object_keys(directory: Path, size: int) -> Path:
    """Keys of an object-based checkpoint with slots, and no object graph that tells of them."""
    made = b.Bundle()
    value, slot = "/.ATTRIBUTES/VARIABLE_VALUE", "/.OPTIMIZER_SLOT/optimizer/m"
    for number in range(size // 120):
        made.add(f"l/{number:06}/kernel{value}", np.float32(number))
        made.add(f"l/{number:06}/kernel{slot}{value}", np.float32(number))
    return Path(made.write(directory / "m"))


def all_differ(directory: Path, size: int) -> Path:
    """Two checkpoints of the same names, each of half the size, whose every value differs."""
    for number, prefix in enumerate((directory / "m", directory / "second" / "m")):
        made = b.Bundle()
        for row in range(size // (2 * (_ENTRY + 4))):
            made.add(f"w{row:07}", np.float32(row + number))
        made.write(prefix)
    return directory / "m"


def all_renamed(directory: Path, size: int) -> Path:
    """Two checkpoints of the same values, each of half the size, with no name in common."""
    for letter, prefix in (("v", directory / "m"), ("w", directory / "second" / "m")):
        made = b.Bundle()
        for row in range(size // (2 * (_ENTRY + 4))):
            made.add(f"{letter}{row:07}", np.float32(row))
        made.write(prefix)
    return directory / "m"


KINDS = {
    "half scalars": half_scalars,
    "allowed scalars": allowed_scalars,
    "allowed strings": allowed_strings,
    "NaN vectors": nan_vectors,
    "many kinds": many_kinds,
    "strings": strings,
    "variants": variants,
    "many shapes": many_shapes,
    "empty tensors": empty_tensors,
    "sliced variables": sliced_variables,
    "deep names": deep_names,
    "wide scopes": wide_scopes,
    "slot names": slot_names,
    "slots of slots": one_letter_slots,
    "object keys": object_keys,
    "all differ": all_differ,
    "all renamed": all_renamed,
}
