"""How to get the bytes of a payload: from a file, with changes, or from its checksum alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ckptparse.bundle.entry import count_elements
from ckptparse.bundle.strings import decode_strings, split_variants
from ckptparse.coding.checksum import crc32c
from ckptparse.crc.inversion import Derivation
from ckptparse.dtypes import numpy_dtype
from ckptparse.elements import allocate, finish_elements, shaped
from ckptparse.errors import ChecksumError
from ckptparse.examination.check import object_spans
from ckptparse.examination.payload import Form, Payload, Record
from ckptparse.examination.places import stored_dtype
from ckptparse.examination.readers import DataFile, DataFiles
from ckptparse.files.context import Context
from ckptparse.limits import Budget
from ckptparse.parallel import PIECE_SIZE
from ckptparse.recovery.opened import OpenedFiles

__all__ = ["Patch", "Recipe", "read_payload"]

_OBJECT_SIZE = 128
"""Bytes that a string and the tuple that says where it lies take beside its own, rounded up."""


@dataclass(frozen=True, slots=True)
class Patch:
    """Bytes that replace those at an offset of the payload."""

    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to get the bytes of one payload.

    Attributes:
        size: How many bytes.
        file: The file to read; None if nothing is read.
        offset: Where in that file.
        available: How many bytes the file has there; the rest is zeros.
        patches: The bytes to change.
        derived: The value, if the checksum alone gives it.
        crc: The checksum that the bytes must have; None if none is known.
    """

    size: int
    file: DataFile | None = None
    offset: int = 0
    available: int = 0
    patches: tuple[Patch, ...] = ()
    derived: Derivation | None = None
    crc: int | None = None

    def build(self, payload: Payload, context: Context, opened: OpenedFiles) -> bytearray:
        """Return the bytes of a payload."""
        if self.derived is not None:
            return bytearray(self.derived.payload(stored_dtype(payload)))
        data = bytearray(self.size)
        if self.file is not None and self.available:
            with opened.borrow(self.file, context.storage) as source:
                for start in range(0, self.available, PIECE_SIZE):
                    count = min(PIECE_SIZE, self.available - start)
                    data[start : start + count] = source.read_at(self.offset + start, count)
        for patch in self.patches:
            data[patch.offset : patch.offset + len(patch.data)] = patch.data
        return data

    def part(self, files: DataFiles, start: int, stop: int) -> npt.NDArray[np.uint8]:
        """Return some bytes of a payload that no checksum alone gives, to compare them."""
        data = bytearray(stop - start)
        count = max(0, min(stop, self.available) - start)
        if self.file is not None and count:
            data[:count] = files.read(self.file, self.offset + start, count)
        for patch in self.patches:
            first, last = max(start, patch.offset), min(stop, patch.offset + len(patch.data))
            if first < last:
                new = patch.data[first - patch.offset : last - patch.offset]
                data[first - start : last - start] = new
        return np.frombuffer(bytes(data), np.uint8)


def read_payload(
    recipe: Recipe,
    payload: Payload,
    context: Context,
    budget: Budget | None = None,
    opened: OpenedFiles | None = None,
) -> npt.NDArray[Any]:
    """Read the values of a payload as a recipe says, in a new array.

    Args:
        recipe: What gives the bytes.
        payload: What they are.
        context: Where the files lie, and how much they may ask for.
        budget: What the values are taken from; None: one of this call alone.
        opened: Files that others read, too; None: those of this call alone.

    Raises:
        ChecksumError: The bytes have changed since they were examined.
        LimitError: They are much more than the files hold.
    """
    budget = budget or Budget(context.limits, recipe.available)
    opened = opened or OpenedFiles()
    if payload.record is not None:
        return _read_record(recipe, payload, payload.record, context, budget=budget, opened=opened)
    # The rest is zeros, of which the file says no more than how many there are.
    budget.take(recipe.size)
    data = recipe.build(payload, context, opened)
    if payload.form is not Form.PLAIN:
        return _decode_counted(bytes(data), payload, recipe.crc, context, budget)
    _check(data, recipe.crc)
    dtype = numpy_dtype(payload.data_type)
    if data:
        # No second copy: the array is what keeps the bytes.
        array = shaped(np.frombuffer(data, dtype), payload.shape)
    else:
        array = allocate(payload.shape, dtype)
    finish_elements(array, payload.data_type, big_endian=payload.big_endian)
    return array


def _check(data: bytearray, crc: int | None) -> None:
    computed = None if crc is None else crc32c(data)
    if computed != crc:
        raise ChecksumError(
            f"Checksum does not match: stored {crc} vs. calculated on the restored bytes "
            f"{computed}: a file has changed since it was examined",
            stored=crc,
            computed=computed,
        )


def _read_record(
    recipe: Recipe,
    payload: Payload,
    record: Record,
    context: Context,
    *,
    budget: Budget,
    opened: OpenedFiles,
) -> npt.NDArray[Any]:
    """Read a record of a V1 file: its value was kept, or is read from its block."""
    from ckptparse.examination.salvaged import value_in_block
    from ckptparse.legacy.record import decode_record

    value = record.value if recipe.file is None else None
    if value is None:
        data = recipe.build(payload, context, opened)
        _check(data, recipe.crc)
        path = recipe.file.path if recipe.file else payload.index
        value = value_in_block(
            bytes(data), record.key, limits=context.limits, path=path, offset=recipe.offset
        )
    count = count_elements(payload.shape)
    values = decode_record(value, payload.data_type, count, limits=context.limits, budget=budget)
    return shaped(values, payload.shape)


def _decode_counted(
    data: bytes, payload: Payload, crc: int | None, context: Context, budget: Budget
) -> npt.NDArray[Any]:
    count = count_elements(payload.shape)
    order = payload.big_endian
    if crc is None:
        budget.take(_OBJECT_SIZE * count)
        values = _decode_present(data, payload, count, context, budget)
    elif payload.form is Form.STRINGS:
        values = decode_strings(data, count, big_endian=order, crc=crc, budget=budget)
    else:
        values = _decode_variants(data, payload, count, crc, context, budget=budget)
    return shaped(values, payload.shape)


def _decode_present(
    data: bytes, payload: Payload, count: int, context: Context, budget: Budget
) -> npt.NDArray[Any]:
    """Decode the strings or variants that are there, without the checksum of all."""
    found: list[Any] = [data[start:stop] for start, stop in object_spans(payload, data) or ()]
    if payload.form is not Form.VARIANTS:
        values = np.full(count, b"", object)
    else:
        from ckptparse.tensor_proto import Variant, decode_variants

        found = decode_variants(found, limits=context.limits, budget=budget)
        values = np.full(count, Variant(), object)
    for number, value in enumerate(found):
        values[number] = value
    return values


def _decode_variants(
    data: bytes, payload: Payload, count: int, crc: int, context: Context, *, budget: Budget
) -> npt.NDArray[Any]:
    from ckptparse.tensor_proto import decode_variants

    elements = split_variants(data, count, big_endian=payload.big_endian, crc=crc)
    values = np.empty(count, object)
    values[:] = decode_variants(elements, limits=context.limits, budget=budget)
    return values
