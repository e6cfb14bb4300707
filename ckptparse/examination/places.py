"""Where bytes of a data file lie instead: in another file, or some distance from their place.

Each place is proved by the checksums of the payloads that fit there. Payloads that are short or
constant prove nothing: others may be the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ckptparse.bundle.entry import count_elements
from ckptparse.crc.inversion import derive_constant
from ckptparse.crc.search import Registers, Wanted
from ckptparse.dtypes import DataType, numpy_dtype
from ckptparse.errors import CheckpointError
from ckptparse.examination.case import Case
from ckptparse.examination.check import fits
from ckptparse.examination.payload import Form, Payload
from ckptparse.examination.readers import DataFile, DataFiles
from ckptparse.problems import Cause, Status

__all__ = [
    "LEAST_SAMPLE",
    "LEAST_SOUGHT",
    "NO_CHANCE",
    "Place",
    "Shift",
    "TwinKey",
    "find_shifts",
    "find_twins",
    "is_telling",
    "stored_dtype",
    "twin_key",
]

NO_CHANCE = 2.0**-32
"""Chance that other bytes have a checksum of 32 bits."""
LEAST_SAMPLE = 16
"""Bytes below which a checksum marks no payload: a save holds many small equal values."""
LEAST_SOUGHT = 8
"""Bytes of the smallest payload that is sought: others lie in a place by chance once in 2^32."""
_NEAR = 1 << 23
"""Bytes that `verify` searches around a place: it promises little memory, and only names causes."""
_FAR = 1 << 27
"""Bytes of a file that `recover` searches whole, and holds in memory: 2 s for each 100 MB."""
_FEW_WINDOWS = 3
"""Payloads whose surroundings are searched in a larger file."""
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


def is_telling(payload: Payload, least: int = LEAST_SAMPLE) -> bool:
    """Tell whether a payload is long enough and not constant, so that its checksum marks it."""
    if payload.size < least or payload.crc32c is None:
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


@dataclass(frozen=True, slots=True)
class Shift:
    """How far from its place something lies, and the chance that it is not it."""

    delta: int
    chance: float


def find_shifts(
    files: DataFiles, file: DataFile, sought: Sequence[Payload], *, far: bool
) -> list[Shift]:
    """Return how far from their places payloads lie in a file, what most of them say first.

    A file that is not too large is searched whole; of a larger one, what lies around their places.
    """
    found: Counter[int] = Counter()
    most = 0
    for start, stop, payloads in _windows(files.size(file) or 0, sought, _FAR if far else _NEAR):
        data = memoryview(files.source(file).read_at(start, stop - start))
        wanted = {Wanted(one.size, one.crc32c): one for one in payloads if one.crc32c is not None}
        most = max([most, *(len(data) - item.size + 1 for item in wanted)])
        for residue in range(_ALIGNMENTS):
            registers = Registers(data[residue:])
            for item, offsets in registers.find_each(wanted).items():
                deltas = {start + residue + at - wanted[item].offset for at in offsets}
                found.update(deltas - {0})
    return [
        Shift(delta, most / 2**32 if hits == 1 else NO_CHANCE)
        for delta, hits in found.most_common()
    ]


def _windows(
    size: int, sought: Sequence[Payload], window: int
) -> Iterator[tuple[int, int, list[Payload]]]:
    """Iterate over the parts of a file to search, each with what is sought in it."""
    if size <= window:
        fitting = [payload for payload in sought if payload.size <= size]
        if fitting:
            yield 0, size, fitting
        return
    for payload in sought[:_FEW_WINDOWS]:
        start = max(0, min(payload.offset, size) - window // 2)
        stop = min(size, payload.end + window // 2)
        if payload.size <= min(stop - start, _LONGEST_SOUGHT):
            yield start, stop, [payload]
