"""How to get the bytes of a payload: from a file, with changes, or from its checksum alone."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ckptparse.bundle.entry import count_elements
from ckptparse.bundle.strings import decode_strings, split_variants
from ckptparse.coding.checksum import crc32c
from ckptparse.crc.inversion import Derivation
from ckptparse.dtypes import numpy_dtype
from ckptparse.elements import allocate, finish_elements
from ckptparse.errors import ChecksumError
from ckptparse.examination.check import string_spans
from ckptparse.examination.payload import Form, Payload, Record
from ckptparse.examination.places import stored_dtype
from ckptparse.examination.readers import DataFile
from ckptparse.files.context import Context
from ckptparse.parallel import PIECE_SIZE

__all__ = ["Patch", "Recipe", "read_payload"]


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

    def build(self, payload: Payload, context: Context) -> bytearray:
        """Return the bytes of a payload."""
        dtype = stored_dtype(payload) if self.derived is not None else None
        if self.derived is not None and dtype is not None:
            return bytearray(self.derived.payload(dtype))
        data = bytearray(self.size)
        if self.file is not None and self.available:
            with closing(self.file.open(context.storage)) as source:
                for start in range(0, self.available, PIECE_SIZE):
                    count = min(PIECE_SIZE, self.available - start)
                    data[start : start + count] = source.read_at(self.offset + start, count)
        for patch in self.patches:
            data[patch.offset : patch.offset + len(patch.data)] = patch.data
        return data


def read_payload(recipe: Recipe, payload: Payload, context: Context) -> npt.NDArray[Any]:
    """Read the values of a payload as a recipe says, in a new array.

    Raises:
        ChecksumError: The bytes have changed since they were examined.
    """
    if payload.record is not None:
        return _read_record(recipe, payload, payload.record, context)
    data = recipe.build(payload, context)
    if payload.form is not Form.PLAIN:
        return _decode_counted(bytes(data), payload, recipe.crc, context)
    _check(data, recipe.crc)
    array = allocate(payload.shape, numpy_dtype(payload.data_type))
    array.reshape(-1).view(np.uint8)[:] = np.frombuffer(data, np.uint8)
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
    recipe: Recipe, payload: Payload, record: Record, context: Context
) -> npt.NDArray[Any]:
    """Read a record of a V1 file: its value was kept, or is read from its block."""
    from ckptparse.examination.legacy_view import decode_record
    from ckptparse.examination.salvaged_table import value_in_block

    value = record.value if recipe.file is None else None
    if value is None:
        data = recipe.build(payload, context)
        _check(data, recipe.crc)
        path = recipe.file.path if recipe.file else payload.index
        value = value_in_block(
            bytes(data), record.key, limits=context.limits, path=path, offset=recipe.offset
        )
    count = count_elements(payload.shape)
    values = decode_record(value, payload.data_type, count, limits=context.limits)
    shaped: npt.NDArray[Any] = values.reshape(payload.shape)
    return shaped


def _decode_counted(
    data: bytes, payload: Payload, crc: int | None, context: Context
) -> npt.NDArray[Any]:
    count = count_elements(payload.shape)
    order = payload.big_endian
    if crc is None:
        values = _decode_present(data, count, big_endian=order)
    elif payload.form is Form.STRINGS:
        values = decode_strings(data, count, big_endian=order, crc=crc)
    else:
        values = _decode_variants(data, payload, count, crc, context)
    shaped: npt.NDArray[Any] = values.reshape(payload.shape)
    return shaped


def _decode_present(data: bytes, count: int, *, big_endian: bool) -> npt.NDArray[Any]:
    """Decode the strings of a tensor by their lengths, without a checksum."""
    values = np.full(count, b"", object)
    for number, (start, stop) in enumerate(string_spans(data, count, big_endian=big_endian) or ()):
        values[number] = data[start:stop]
    return values


def _decode_variants(
    data: bytes, payload: Payload, count: int, crc: int, context: Context
) -> npt.NDArray[Any]:
    from ckptparse.tensor_proto import decode_variants

    elements = split_variants(data, count, big_endian=payload.big_endian, crc=crc)
    values = np.empty(count, object)
    values[:] = decode_variants(elements, limits=context.limits)
    return values
