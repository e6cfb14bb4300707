"""Where the bytes of a payload come from: a file, with changes, or nothing but their checksum."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ckptparse.bundle.strings import decode_strings, split_variants
from ckptparse.coding.checksum import crc32c
from ckptparse.crc.inversion import Derivation
from ckptparse.dtypes import DataType, numpy_dtype
from ckptparse.elements import allocate, finish_elements
from ckptparse.errors import ChecksumError
from ckptparse.examination.check import is_counted, string_spans
from ckptparse.examination.readers import open_reader
from ckptparse.limits import DEFAULT_LIMITS
from ckptparse.parallel import PIECE_SIZE

__all__ = ["Patch", "Recipe", "decode_payload"]


@dataclass(frozen=True, slots=True)
class Patch:
    """Bytes to put in place of those at an offset of the payload."""

    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to get the bytes of one payload.

    Attributes:
        size: How many there are.
        path: The file to read (`files.open_reader`); None where nothing is read.
        offset: Where in that file.
        available: How many bytes the file has there; the rest is zeros.
        patches: What to change.
        derived: The value, where the checksum alone gives it.
    """

    size: int
    path: str | None = None
    offset: int = 0
    available: int = 0
    patches: tuple[Patch, ...] = field(default=())
    derived: Derivation | None = None

    def build(self, stored_dtype: np.dtype[Any] | None = None) -> bytearray:
        """Return the bytes; `stored_dtype` is needed for a derivation only."""
        if self.derived is not None and stored_dtype is not None:
            return bytearray(self.derived.payload(stored_dtype))
        data = bytearray(self.size)
        if self.path is not None and self.available:
            with closing(open_reader(self.path)) as reader:
                for start in range(0, self.available, PIECE_SIZE):
                    count = min(PIECE_SIZE, self.available - start)
                    data[start : start + count] = reader.read_at(self.offset + start, count)
        for patch in self.patches:
            data[patch.offset : patch.offset + len(patch.data)] = patch.data
        return data


def decode_payload(
    data: bytearray, data_type: int, shape: tuple[int, ...], *, big_endian: bool, crc: int | None
) -> npt.NDArray[Any]:
    """Turn the bytes of a payload into an array; `crc` is checked unless None.

    Raises:
        ChecksumError: The bytes have changed since they were looked at.
    """
    if is_counted(data_type):
        return _decode_counted(bytes(data), data_type, shape, big_endian=big_endian, crc=crc)
    _check(data, crc)
    array = allocate(shape, numpy_dtype(data_type))
    array.reshape(-1).view(np.uint8)[:] = np.frombuffer(data, np.uint8)
    finish_elements(array, data_type, big_endian=big_endian)
    return array


def _check(data: bytearray, crc: int | None) -> None:
    computed = None if crc is None else crc32c(data)
    if computed != crc:
        raise ChecksumError(
            f"Checksum does not match: stored {crc} vs. calculated on the restored bytes "
            f"{computed}: a file has changed since it was looked at",
            stored=crc,
            computed=computed,
        )


def _decode_counted(
    data: bytes, data_type: int, shape: tuple[int, ...], *, big_endian: bool, crc: int | None
) -> npt.NDArray[Any]:
    count = int(np.prod(shape, dtype=np.int64)) if shape else 1
    if crc is None:
        values = _decode_present(data, count, big_endian=big_endian)
    elif data_type == DataType.DT_STRING:
        values = decode_strings(data, count, big_endian=big_endian, crc=crc)
    else:
        values = _decode_variants(data, count, big_endian=big_endian, crc=crc)
    shaped: npt.NDArray[Any] = values.reshape(shape)
    return shaped


def _decode_present(data: bytes, count: int, *, big_endian: bool) -> npt.NDArray[Any]:
    """Decode what the lengths of a string tensor delimit, whatever the bytes are."""
    values = np.full(count, b"", object)
    for number, (start, stop) in enumerate(string_spans(data, count, big_endian=big_endian) or ()):
        values[number] = data[start:stop]
    return values


def _decode_variants(data: bytes, count: int, *, big_endian: bool, crc: int) -> npt.NDArray[Any]:
    from ckptparse.tensor_proto import decode_variants

    elements = split_variants(data, count, big_endian=big_endian, crc=crc)
    values = np.empty(count, object)
    values[:] = decode_variants(elements, limits=DEFAULT_LIMITS)
    return values
