"""Where bytes of a data file lie instead: in another file, or some distance from their place.

Each place is proved by the checksums of the payloads that fit there. Payloads that are short or
constant prove nothing: others may be the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ckptparse.bundle.entry import count_elements
from ckptparse.crc.inversion import derive_constant
from ckptparse.crc.search import Registers
from ckptparse.dtypes import DataType, numpy_dtype
from ckptparse.errors import CheckpointError
from ckptparse.examination.case import Case
from ckptparse.examination.check import fits
from ckptparse.examination.payload import Form, Payload
from ckptparse.examination.readers import DataFile, DataFiles
from ckptparse.problems import Cause, Status

__all__ = [
    "NO_CHANCE",
    "Place",
    "find_shift",
    "find_twins",
    "is_telling",
    "stored_dtype",
    "twin_key",
]

NO_CHANCE = 2.0**-32
"""Chance that other bytes have a checksum of 32 bits."""
_LEAST_SAMPLE = 16
"""Bytes below which a checksum marks no payload: a save holds many small equal values."""
_NEAR = 1 << 23
"""Bytes around its place in which a payload is sought by `verify`: the pass takes 0.1 s."""
_FAR = 1 << 26
"""Bytes around its place in which `recover` seeks one: 0.5 s."""
_LONGEST_SOUGHT = 1 << 28
"""Bytes of a payload that is sought at all: it is held in memory."""
_ALIGNMENTS = 4
"""A search goes by steps of 4 bytes, from each of these."""
_SUB_BYTE = frozenset(
    {
        DataType.DT_INT4,
        DataType.DT_UINT4,
        DataType.DT_INT2,
        DataType.DT_UINT2,
        DataType.DT_FLOAT4_E2M1FN,
    }
)


@dataclass(frozen=True, slots=True)
class Place:
    """Where bytes of a data file lie instead.

    Attributes:
        file: The file.
        delta: How much further on there, in bytes.
        cause: What that makes of the tensors at the right place; None if they are another
            checkpoint's, that happen to be equal.
        method: In a few words.
        chance: Chance that a tensor found so is another's bytes.
    """

    file: DataFile
    delta: int
    cause: Cause | None
    method: str
    chance: float

    def of(self, payload: Payload) -> Payload:
        """Return a payload at the place where it may lie instead."""
        return payload.moved(self.file, self.delta)

    def holds(self, files: DataFiles, payload: Payload) -> bool:
        """Tell whether a payload lies there, by its checksum."""
        return fits(files, self.of(payload))


TwinKey = tuple[int, int, int, bool]


def twin_key(payload: Payload) -> TwinKey | None:
    """Return what two payloads of the same bytes have in common; None if nothing shows it."""
    if payload.crc32c is None or payload.form is Form.RECORD or not payload.size:
        return None
    return payload.data_type, payload.size, payload.crc32c, payload.big_endian


def find_twins(case: Case) -> dict[TwinKey, tuple[str, Payload]]:
    """Return the verified payloads by what another of the same bytes has in common with them."""
    found: dict[TwinKey, tuple[str, Payload]] = {}
    for name, part in case.parts():
        key = twin_key(part.payload) if part.payload else None
        if key is not None and part.payload and part.check.status is Status.VERIFIED:
            found[key] = name.tensor, part.payload
    return found


def is_telling(payload: Payload) -> bool:
    """Tell whether a payload is long enough and not constant, so that its checksum marks it."""
    if payload.size < _LEAST_SAMPLE or payload.crc32c is None:
        return False
    dtype = stored_dtype(payload) if payload.form is Form.PLAIN else None
    if dtype is None:
        return True
    return derive_constant(payload.crc32c, dtype, count_elements(payload.shape)) is None


def stored_dtype(payload: Payload) -> np.dtype[Any] | None:
    """Return the numpy type of elements as they lie in the file; None for strings and the like."""
    data_type = payload.data_type
    if data_type in _SUB_BYTE:
        return np.dtype(np.uint8)
    try:
        dtype = numpy_dtype(data_type)
    except CheckpointError:
        return None
    if dtype.kind == "O":
        return None
    # ml_dtypes' own types know native order only; all that are wider than a byte are bfloat16.
    if dtype.kind == "V" and payload.big_endian and dtype.itemsize > 1:
        return None
    return dtype if dtype.kind == "V" else dtype.newbyteorder(">" if payload.big_endian else "<")


def find_shift(
    files: DataFiles, file: DataFile, payload: Payload, *, far: bool
) -> tuple[int, float] | None:
    """Return how far from its place a payload lies in a file, and the chance that it is not it."""
    file_size = files.size(file) or 0
    window = (_FAR if far else _NEAR) // 2
    start = max(0, min(payload.offset, file_size) - window)
    stop = min(file_size, payload.end + window)
    if file_size <= 2 * window:
        start, stop = 0, file_size
    if payload.size > min(stop - start, _LONGEST_SOUGHT) or payload.crc32c is None:
        return None
    data = memoryview(files.source(file).read_at(start, stop - start))
    return _match(data, start, payload, payload.crc32c)


def _match(data: memoryview, start: int, payload: Payload, crc: int) -> tuple[int, float] | None:
    positions = 0
    for residue in range(_ALIGNMENTS):
        registers = Registers(data[residue:])
        positions += registers.positions(payload.size)
        for found in registers.find(payload.size, crc):
            delta = start + residue + found - payload.offset
            if delta:
                return delta, positions / 2**32
    return None
