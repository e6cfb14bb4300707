"""Small tensors on their way to a file: many at once are read, put in order, and given as bytes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from ckptparse.backend.small import SMALL, Sized, hold_small, iter_batches, read_small
from ckptparse.bundle.content import content_of_array
from ckptparse.coding.checksum import crc32c
from ckptparse.dtypes import is_numeric
from ckptparse.elements import iter_stored
from ckptparse.errors import CheckpointError
from ckptparse.tensor_like import ArrayTensor, TensorLike

__all__ = ["Payload", "iter_held", "iter_payloads"]

Payload = tuple[bytes | memoryview, int]
"""The bytes of a tensor, as a data file has them, and their CRC."""


def iter_held(tensors: Iterable[TensorLike]) -> Iterator[TensorLike]:
    """Iterate over tensors; small ones are read together."""
    for batch in iter_batches(Sized.of(tensor.name, tensor) for tensor in tensors):
        yield from hold_small(batch)


def iter_payloads(
    tensors: Iterable[TensorLike],
) -> Iterator[list[tuple[Sized, Payload | None]]]:
    """Iterate over tensors in lists, in their order, with the bytes of those that are small.

    None stands for the bytes of all that is to be written by itself: what is large, made of another
    tensor, damaged, or of a kind that no data file holds.
    """
    sized = (Sized.of(tensor.name, tensor) for tensor in tensors)
    for batch in iter_batches(sized):
        arrays = [
            _held(one) if array is None else array
            for one, array in zip(batch, read_small(batch), strict=True)
        ]
        kinds = [one.tensor.data_type for one in batch]
        yield list(zip(batch, _encode(kinds, arrays), strict=True))


def _held(one: Sized) -> npt.NDArray[Any] | None:
    """Return a small array that is in memory already."""
    if type(one.tensor) is not ArrayTensor or one.nbytes > SMALL:
        return None
    array = one.tensor.read()
    return array if type(array) is np.ndarray else None


def _encode(
    kinds: Sequence[int], arrays: Sequence[npt.NDArray[Any] | None]
) -> list[Payload | None]:
    """Encode arrays of some DataTypes, those of one kind at once."""
    found: list[Payload | None] = [None] * len(arrays)
    groups: dict[tuple[int, np.dtype[Any]], list[int]] = defaultdict(list)
    for row, (kind, array) in enumerate(zip(kinds, arrays, strict=True)):
        if array is None:
            continue
        if is_numeric(kind):
            groups[kind, array.dtype].append(row)
        else:
            found[row] = _encode_object(array, kind)
    for (kind, _), rows in groups.items():
        own = [array.reshape(-1) for row in rows if (array := arrays[row]) is not None]
        joined = own[0] if len(own) == 1 else np.concatenate(own)
        stored = memoryview(b"".join(iter_stored(joined, kind)))
        width = len(stored) // joined.size if joined.size else 0
        ends = np.cumsum([array.size for array in own]) * width
        for row, (start, end) in zip(rows, pairwise([0, *ends.tolist()]), strict=True):
            piece = stored[start:end]
            found[row] = piece, crc32c(piece)
    return found


def _encode_object(array: npt.NDArray[Any], kind: int) -> Payload | None:
    """Encode strings; None for what cannot be encoded, which is told in its turn."""
    try:
        payload = content_of_array(array, kind)
    except CheckpointError:
        return None
    pieces: list[bytes] = []
    crc = payload.write_to(lambda piece: pieces.append(bytes(piece)))
    return b"".join(pieces), crc
