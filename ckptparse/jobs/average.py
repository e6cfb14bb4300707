"""`average`: the weighted mean of several checkpoints, one tensor after another."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import numpy.typing as npt

from ckptparse.backend import OBJECT_GRAPH_KEY
from ckptparse.backend.small import Sized, iter_batches, read_small
from ckptparse.bundle.content import Content, Write, write_pieces
from ckptparse.dtypes import DataType, element_name, item_size, numpy_dtype
from ckptparse.elements import allocate, iter_stored
from ckptparse.errors import UnsupportedError, located
from ckptparse.files.context import Cache, Progress, Store, begin_with, check_several, find_target
from ckptparse.jobs.derived import FLOATS
from ckptparse.jobs.opening import Opened, TensorsFrom, check_work, open_tensors
from ckptparse.limits import DEFAULT_LIMITS, Limits
from ckptparse.sinks.bundle import check_free, write_bundle
from ckptparse.sinks.options import SinkOptions
from ckptparse.statistics.gathering import iter_pieces
from ckptparse.tensor import Tensor
from ckptparse.tensor_like import TensorLike

__all__ = ["average"]

_AVERAGED = FLOATS | {DataType.DT_COMPLEX64, DataType.DT_COMPLEX128}
_PIECE = 1 << 20
"""Bytes of each checkpoint's tensor that are in memory at once."""


def average(
    paths: Sequence[TensorsFrom],
    dst: str | os.PathLike[str] | None = None,
    *,
    weights: Sequence[float] | None = None,
    max_shard_size: int | None = None,
    overwrite: bool = False,
    dry_run: bool = False,
    progress: Progress | None = None,
    store: Store = None,
    cache: Cache = None,
    limits: Limits = DEFAULT_LIMITS,
) -> dict[str, npt.NDArray[Any]] | str:
    """Average checkpoints of one model.

    Floats and complex numbers are averaged in double precision; all else (counters, strings) is
    taken from the last checkpoint, the newest. Every checksum is checked.

    Args:
        paths: The checkpoints, the newest last, or whatever else `convert` takes.
        dst: The prefix of a V2 checkpoint to write, by the piece: memory is a few MiB for each of
            the checkpoints. An object graph is the newest's. None: the values are returned.
        weights: How much each counts; alike unless given. They are divided by their sum.
        max_shard_size, overwrite: As for `write`.
        dry_run: Whether nothing is read and written: all that can be refused beforehand is.
        progress: Told how many bytes are written, and how many there are.
        store: Where the paths of the checkpoints lead, as for `open`. `dst` is on this machine, or
            where the URL leads that it is.
        cache: As for `open`.
        limits: Bounds on what the files may ask for.

    Returns:
        The prefix, or the values by name.

    Raises:
        UnsupportedError: The checkpoints have different tensors.
        ValueError: No checkpoint, not a weight for each, or weights whose sum is not positive.
        DataLossError: One is damaged. Nothing is written then.
    """
    check_several("paths", paths)
    shares = _shares(len(paths), weights)
    begun = [
        begin_with(path, store=store, cache=cache, limits=limits, progress=progress)
        for path in paths
    ]
    with ExitStack() as stack:
        # All are open at the same time.
        opened = [
            stack.enter_context(open_tensors(path, context.share(len(begun))))
            for path, context in begun
        ]
        for one in opened:
            check_work(one, one.tensors)
        _check_alike(opened)
        tensors = [
            _average_of(name, [one.tensors[name] for one in opened], shares)
            for name in opened[-1].tensors
        ]
        if dst is None:
            return dict(_read_all(sorted(tensors, key=_name)))
        target, storage = find_target(dst, None)
        stored: list[tuple[str, Any]] = [(tensor.name, tensor) for tensor in tensors]
        graph = opened[-1].object_graph
        if graph is not None:
            stored.append((OBJECT_GRAPH_KEY, graph.serialized))
        options = SinkOptions(
            overwrite=overwrite,
            max_shard_size=max_shard_size,
            progress=progress,
            storage=storage,
        )
        if dry_run:
            check_free(target, options)
        else:
            write_bundle(target, stored, options)
        return target


def _read_all(tensors: Iterable[TensorLike]) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    """Iterate over names and values."""
    for batch in iter_batches(Sized.of(tensor.name, tensor) for tensor in tensors):
        for one, array in zip(batch, read_small(batch), strict=True):
            yield one.name, one.tensor.read() if array is None else array


def _name(tensor: TensorLike) -> str:
    return tensor.name


def _shares(count: int, weights: Sequence[float] | None) -> list[float]:
    if not count:
        raise ValueError("average takes at least one checkpoint")
    given = [1.0] * count if weights is None else list(map(float, weights))
    if len(given) != count:
        raise ValueError(f"Expected a weight for each of {count} checkpoints, found {len(given)}")
    # `fsum` raises if the sum of finite numbers is not.
    total = math.fsum(given) if math.isfinite(sum(given)) else sum(given)
    if not (math.isfinite(total) and total > 0):
        raise ValueError(f"Expected weights of a positive sum, found {total}")
    return [weight / total for weight in given]


def _check_alike(opened: Sequence[Opened]) -> None:
    """Check that all have the same names, shapes and kinds."""
    newest = opened[-1].tensors
    for one in opened[:-1]:
        different = sorted(set(one.tensors) ^ set(newest))
        if different:
            raise UnsupportedError(
                f"The checkpoints have different tensors: {len(different)} are not in all of them, "
                f"such as {different[0]!r}",
                path=one.path,
            )
        for name, tensor in one.tensors.items():
            last = newest[name]
            found, wanted = (tensor.data_type, tensor.shape), (last.data_type, last.shape)
            if found != wanted:
                raise UnsupportedError(
                    f"Expected {element_name(wanted[0])} of shape {wanted[1]} as in the newest, "
                    f"found {element_name(found[0])} of shape {found[1]}",
                    path=one.path,
                    tensor=name,
                )


def _average_of(name: str, tensors: Sequence[TensorLike], shares: Sequence[float]) -> TensorLike:
    newest = tensors[-1]
    return _Mean(name, tensors, shares) if newest.data_type in _AVERAGED else newest


class _Mean:
    """The mean of tensors of one shape and kind."""

    def __init__(self, name: str, tensors: Sequence[TensorLike], shares: Sequence[float]) -> None:
        self.name = name
        self.shape = tensors[-1].shape
        self.data_type = tensors[-1].data_type
        self.tensors = tensors
        self._shares = shares

    @property
    def dtype(self) -> np.dtype[Any]:
        """See `TensorLike`."""
        return numpy_dtype(self.data_type)

    @property
    def nbytes(self) -> int:
        """See `TensorLike`."""
        return math.prod(self.shape) * (item_size(self.data_type) or 0)

    def read(self) -> npt.NDArray[Any]:
        """Work out the whole."""
        made = allocate(self.shape, self.dtype)
        out = made.reshape(-1)
        position = 0
        for piece in self.iter_values():
            out[position : position + piece.size] = piece
            position += piece.size
        return made

    @classmethod
    def read_together(cls, batch: Sequence[Sized]) -> list[npt.NDArray[Any] | None]:
        """Work out small means at once; None for one of tensors that are to be read singly."""
        means = [one.tensor for one in batch if isinstance(one.tensor, _Mean)]
        found: list[npt.NDArray[Any] | None] = [None] * len(means)
        columns = [
            read_small(
                [
                    Sized(one.name, mean.tensors[number], one.nbytes)
                    for one, mean in zip(batch, means, strict=True)
                ],
                verify=True,
            )
            for number in range(len(means[0].tensors))
        ]
        kinds: dict[int, list[int]] = {}
        for row, values in enumerate(zip(*columns, strict=True)):
            if all(array is not None for array in values):
                kinds.setdefault(means[row].data_type, []).append(row)
        for rows in kinds.values():
            mean = means[rows[0]].mean_of([_join(column, rows) for column in columns])
            start = 0
            for row in rows:
                shape = means[row].shape
                end = start + math.prod(shape)
                found[row] = mean[start:end].reshape(shape)
                start = end
        return found

    def __getitem__(self, index: Any, /) -> Any:
        """Work out the whole, and pick a part."""
        return self.read()[index]

    def content(self) -> Content:
        """Return how its bytes are worked out, by the piece."""
        return _MeanContent(self)

    def iter_values(self) -> Iterator[npt.NDArray[Any]]:
        """Iterate over the elements, in order; every tensor is checked before."""
        for tensor in self.tensors:
            with located(tensor=self.name):
                if isinstance(tensor, Tensor):
                    tensor.verify()
        for pieces in zip(*(iter_pieces(one, _PIECE) for one in self.tensors), strict=True):
            yield self.mean_of(pieces)

    def mean_of(self, pieces: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
        """Return the mean of as many elements of each."""
        wide = np.complex128 if self.dtype.kind == "c" else np.float64
        # Both parts of a complex number by themselves: a share times infinity is no NaN then.
        total = np.zeros(pieces[0].size, wide).view(np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            for share, piece in zip(self._shares, pieces, strict=True):
                total += share * piece.astype(wide).view(np.float64)
            return total.view(wide).astype(self.dtype)


def _join(arrays: Sequence[npt.NDArray[Any] | None], rows: Sequence[int]) -> npt.NDArray[Any]:
    """Return the elements of some arrays, one after another."""
    chosen = (arrays[row] for row in rows)
    return np.concatenate([array.reshape(-1) for array in chosen if array is not None])


class _MeanContent:
    """The bytes of a mean."""

    def __init__(self, mean: _Mean) -> None:
        self._mean = mean
        self.size = mean.nbytes

    def write_to(self, write: Write) -> int:
        """Write them; see `Content`."""
        means = self._mean.iter_values()
        pieces = (piece for one in means for piece in iter_stored(one, self._mean.data_type))
        return write_pieces(pieces, self.size, write)
