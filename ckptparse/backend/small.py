"""Small tensors of a checkpoint, read many at once before a job comes to each of them.

A tensor that is read by itself takes some 50 microseconds, however small it is; among others it
takes two. If any of those that are read together is damaged, or cannot be read for another reason,
all are left to the job, which then meets what it would have met, in the same order.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy.typing as npt

from ckptparse.backend import Origin
from ckptparse.backend.held import read_payloads
from ckptparse.dtypes import DataType
from ckptparse.errors import CheckpointError
from ckptparse.tensor import Payload, ReadOptions, Tensor
from ckptparse.tensor_like import ArrayTensor, TensorLike

__all__ = ["SMALL", "Sized", "hold_small", "iter_batches", "read_small"]

SMALL = 1 << 14
"""Bytes of a small tensor at most: of larger ones the bytes take longer than what surrounds them.
None has more elements than this."""
_MOST_TENSORS = 1 << 11
_MOST_BYTES = 1 << 18
"""So much is in memory at once: what planning a common read takes is small beside it."""
_FEW = 4
_OBJECTS = (DataType.DT_STRING, DataType.DT_VARIANT)
"""What one value takes in memory, no file says."""

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Sized:
    """A tensor, what it is called, and its bytes: to ask each for them takes time.

    Attributes:
        name: What the job calls it.
        tensor: The tensor.
        nbytes: As `TensorLike.nbytes`.
    """

    name: str
    tensor: TensorLike
    nbytes: int

    @classmethod
    def of(cls, name: str, tensor: TensorLike) -> Sized:
        """Ask a tensor for its size."""
        return cls(name, tensor, tensor.nbytes)


def iter_batches(tensors: Iterable[Sized]) -> Iterator[list[Sized]]:
    """Iterate over tensors in lists, in their order, of few bytes in small tensors each."""
    batch: list[Sized] = []
    held = 0
    for one in tensors:
        size = one.nbytes
        if size <= SMALL:
            held += size
            if len(batch) == _MOST_TENSORS or held > _MOST_BYTES:
                yield batch
                batch, held = [], size
        batch.append(one)
    if batch:
        yield batch


def read_small(
    batch: Sequence[Sized], *, verify: bool = False, variants: bool = False
) -> list[Array | None]:
    """Read those of a batch that are small, and lie in one checkpoint or in memory.

    Args:
        batch: As `iter_batches` gives it.
        verify: Whether checksums are checked though the checkpoint was opened without.
        variants: Whether variants are read, too: what they become in memory, a file does not hold.

    Returns:
        An array for each, as `read` returns it; None for what is to be asked for by itself.
    """
    found: list[Array | None] = [None] * len(batch)
    wanted = [
        row
        for row, one in enumerate(batch)
        if one.nbytes <= SMALL and (variants or one.tensor.data_type != DataType.DT_VARIANT)
    ]
    _read_stored(batch, wanted, found, verify=verify)
    _read_held(batch, wanted, found)
    _read_made(batch, found)
    return found


def hold_small(batch: Sequence[Sized]) -> list[TensorLike]:
    """Return the tensors of a batch; those that `read_small` reads are in memory then."""
    return [
        one.tensor if array is None else ArrayTensor(one.tensor.name, array, one.tensor.data_type)
        for one, array in zip(batch, read_small(batch), strict=True)
    ]


def _read_made(batch: Sequence[Sized], found: list[Array | None]) -> None:
    """Read what is made of other tensors, and knows how to be made with others of its kind."""
    kinds: dict[type[Any], list[int]] = {}
    for row, one in enumerate(batch):
        if one.nbytes <= SMALL and hasattr(one.tensor, "read_together"):
            kinds.setdefault(type(one.tensor), []).append(row)
    for kind, rows in kinds.items():
        made: list[Array | None] = kind.read_together([batch[row] for row in rows])
        for row, array in zip(rows, made, strict=True):
            found[row] = array


def _read_stored(
    batch: Sequence[Sized], wanted: Sequence[int], found: list[Array | None], *, verify: bool
) -> None:
    """Read those of some rows that lie in the files of one checkpoint."""
    options = next(filter(_is_found_again, map(_options, batch)), None)
    if options is None or not isinstance(options.origin, Origin):
        return
    backend = options.origin.backend
    rows = [row for row in wanted if _options(batch[row]) is options]
    if len(rows) < _FEW or backend.format == "graph":
        return
    how = replace(options, verify=verify or options.verify, mmap=False)
    try:
        arrays = backend.read_many([batch[row].tensor.name for row in rows], how)
    except CheckpointError:
        return
    for row, array in zip(rows, arrays, strict=True):
        # A slice has the name of its tensor, and another shape.
        if array.shape == batch[row].tensor.shape:
            found[row] = array


def _read_held(batch: Sequence[Sized], wanted: Sequence[int], found: list[Array | None]) -> None:
    """Read those of some rows that are in memory, in messages of one kind."""
    payloads: dict[int, Payload] = {}
    for row in wanted:
        tensor = batch[row].tensor
        if found[row] is None and isinstance(tensor, Tensor) and tensor.data_type not in _OBJECTS:
            try:
                payloads[row] = tensor.payload
            except CheckpointError:
                continue
    shapes = [batch[row].tensor.shape for row in payloads]
    try:
        arrays = read_payloads(list(payloads.values()), shapes)
    except CheckpointError:
        return
    for row, array in zip(payloads, arrays, strict=True):
        found[row] = array


def _options(one: Sized) -> ReadOptions | None:
    return one.tensor.options if isinstance(one.tensor, Tensor) else None


def _is_found_again(options: ReadOptions | None) -> bool:
    """Tell whether a tensor is what its checkpoint gives under its name: a slice is not."""
    return options is not None and isinstance(options.origin, Origin)
