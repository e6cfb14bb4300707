"""Tensors that are in memory already, as a checkpoint: a graph's constants, a model without any."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy.typing as npt

from ckptparse.backend import Format, OrphanSlice
from ckptparse.backend.places import Places, find_places
from ckptparse.dtypes import DataType, item_size
from ckptparse.errors import CheckpointError, ClosedError, LimitError
from ckptparse.limits import Budget, Limits, Singles, check_all_strings
from ckptparse.tensor import DEFAULT_OPTIONS, Kind, Location, Payload, ReadOptions, Region, Tensor

__all__ = ["HeldTensors", "read_payloads"]

_OBJECTS = (DataType.DT_STRING, DataType.DT_VARIANT)
_MOST_GROWTH = 8
"""A stored byte becomes at most so many of an array: a varint of one byte can be an int64."""


class HeldTensors:
    """Tensors that need no file any more, as a checkpoint.

    Attributes:
        format: The format that they came in.
        files: The files that they came from.
        graph: The graph of the file whose constants they are, if it is one's.
    """

    num_shards: int
    byte_order: Literal["little"] = "little"

    def __init__(
        self,
        format: Format,
        files: tuple[str, ...],
        tensors: Mapping[str, Tensor],
        *,
        limits: Limits,
        held: int = 0,
        fingerprint: Callable[[], Hashable] = lambda: None,
        graph: Any = None,
    ) -> None:
        """Take tensors by name, in the order in which they are listed.

        Args:
            format: The format that they came in.
            files: The files that they came from.
            tensors: By name; their values are in memory, or follow from what is.
            limits: `fill_bytes` bounds what values that repeat may take together.
            held: Bytes of the message that holds the values.
            fingerprint: Takes that of the files that they came from.
            graph: The graph of the file whose constants they are.
        """
        self.graph = graph
        self._fingerprint = fingerprint
        self._limits = limits
        self._held = held
        self.format: Format = format
        self.files = files
        self.num_shards = len(files)
        self._tensors = tensors
        self._closed = False

    def data_sizes(self) -> Mapping[str, int]:
        """Return none: all is in memory."""
        return {}

    def names(self) -> Sequence[str]:
        """See `Backend`."""
        return list(self.shapes())

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Every tensor's name and shape."""
        self.check_open()
        return {name: tensor.shape for name, tensor in self._tensors.items()}

    def find(self, name: str, options: ReadOptions) -> Tensor | None:
        """Return the tensor of a name, or None if there is none."""
        self.check_open()
        tensor = self._tensors.get(name)
        return None if tensor is None else self._give(tensor, options)

    def iter_tensors(self, options: ReadOptions, *, without: str | None = None) -> Iterator[Tensor]:
        """Iterate over every tensor, but for one."""
        self.check_open()
        tensors = self._tensors.items()
        return (self._give(tensor, options) for name, tensor in tensors if name != without)

    def places(self) -> Places:
        """Return where the values lie; constants lie in their message."""
        return find_places(self.iter_tensors(DEFAULT_OPTIONS))

    def read_many(self, names: Sequence[str], options: ReadOptions) -> list[npt.NDArray[Any]]:
        """Read whole tensors, in the order of the names, all of which exist."""
        self.check_open()
        self.check_fill(names)
        tensors = [self._tensors[name] for name in names]
        budget = Budget(self._limits, self._held)
        options = replace(options, budget=budget)
        together = read_payloads(
            [tensor.payload for tensor in tensors], [tensor.shape for tensor in tensors], budget
        )
        singles = Singles(self._limits, self._held)
        return [
            self._read_single(tensor, options, singles) if array is None else array
            for tensor, array in zip(tensors, together, strict=True)
        ]

    def orphan_slices(self) -> list[OrphanSlice]:
        """Return none: they are whole tensors."""
        self.check_open()
        return []

    def fingerprint(self) -> Hashable:
        """Return what differs if the files that they came from are replaced by others."""
        self.check_open()
        return self._fingerprint()

    def close(self) -> None:
        """Give nothing any more, as if there were a file to close."""
        self._closed = True

    def check_open(self) -> None:
        """Raise `ClosedError` once closed."""
        if self._closed:
            raise ClosedError("The checkpoint has been closed", path=next(iter(self.files), None))

    def check_fill(self, names: Iterable[str]) -> None:
        """Check what all of some take together: each alone may repeat values up to the limit.

        Raises:
            LimitError: They take more than `Limits.fill_bytes` beyond what is stored.
        """
        tensors = map(self._tensors.get, names)
        wanted = sum(
            one.size * (item_size(one.data_type) or 8) for one in tensors if one is not None
        )
        beyond = max(0, wanted - _MOST_GROWTH * self._held)
        self._limits.check("fill_bytes", beyond, "What repeated values fill, in bytes,")

    def check_objects(self, names: Iterable[str]) -> None:
        """Check how many of some are strings or variants, which jobs read one by one.

        Raises:
            LimitError: More than `Limits.single_entries` allows; they have more elements, repeated
                ones too, than `Limits.strings` allows of a file of that size; or variants hold more
                tensors, one in the other too, than `Limits.memory_bytes` allows of all together.
        """
        singles, elements = Singles(self._limits, self._held), 0
        variants = Budget(self._limits, self._held)
        for tensor in map(self._tensors.get, names):
            if tensor is not None and tensor.data_type in _OBJECTS:
                singles.check()
                elements += tensor.size
                if tensor.data_type == DataType.DT_VARIANT:
                    _take_from(variants, tensor.payload)
        check_all_strings(self._limits, elements, self._held, "the constants of a graph")

    def _read_single(
        self, tensor: Tensor, options: ReadOptions, singles: Singles
    ) -> npt.NDArray[Any]:
        singles.check()
        return self._give(tensor, options).read()

    def _give(self, tensor: Tensor, options: ReadOptions) -> Tensor:
        payload = _HeldPayload(self, tensor.payload)
        return Tensor(tensor.name, tensor.shape, tensor.data_type, payload, options)


def _take_from(budget: Budget, payload: Payload) -> None:
    """Count what a variant takes. Whether it is whole, who reads it is told."""
    check = getattr(payload, "check", None)
    if check is not None:
        try:
            check(budget)
        except LimitError:
            raise
        except CheckpointError:
            pass


def read_payloads(
    payloads: Sequence[Payload], shapes: Sequence[tuple[int, ...]], budget: Budget | None = None
) -> list[npt.NDArray[Any] | None]:
    """Read tensors whose kind knows how to read many; None for those to be read one by one.

    Args:
        payloads: Their values.
        shapes: Their shapes.
        budget: What all take together; None: that of the kind.

    Raises:
        LimitError: It is more than the budget has.
    """
    found: list[npt.NDArray[Any] | None] = [None] * len(payloads)
    kinds: dict[type[Any], list[int]] = {}
    for row, payload in enumerate(payloads):
        if hasattr(payload, "read_together"):
            kinds.setdefault(type(payload), []).append(row)
    for kind, rows in kinds.items():
        arrays = kind.read_together(
            [payloads[row] for row in rows], [shapes[row] for row in rows], budget
        )
        for row, array in zip(rows, arrays, strict=True):
            found[row] = array
    return found


class _HeldPayload:
    """The values of a tensor, for as long as its checkpoint is open."""

    __slots__ = ("held", "payload")

    def __init__(self, held: HeldTensors, payload: Payload) -> None:
        self.held = held
        self.payload = payload

    @property
    def kind(self) -> Kind:
        """See `Tensor.kind`."""
        return self.payload.kind

    @property
    def location(self) -> Location | None:
        """See `Tensor.location`."""
        return self.payload.location

    @property
    def crc32c(self) -> int | None:
        """See `Tensor.crc32c`."""
        return self.payload.crc32c

    @property
    def is_read_whole(self) -> bool:
        """Whether a part takes as long to read as all."""
        return getattr(self.payload, "is_read_whole", False)

    def read(self, options: ReadOptions) -> npt.NDArray[Any]:
        """Read the whole; see `Payload`."""
        self.held.check_open()
        return self.payload.read(options)

    @staticmethod
    def read_together(
        payloads: Sequence[_HeldPayload], shapes: Sequence[tuple[int, ...]], budget: Budget | None
    ) -> list[npt.NDArray[Any] | None]:
        """Read several as `read_payloads` does."""
        for held in {id(one.held): one.held for one in payloads}.values():
            held.check_open()
        return read_payloads([one.payload for one in payloads], shapes, budget)

    def read_region(self, region: Region) -> npt.NDArray[Any]:
        """Read a part; see `Payload`."""
        self.held.check_open()
        return self.payload.read_region(region)

    def verify(self, options: ReadOptions) -> None:
        """Check what can be checked; see `Payload`."""
        self.held.check_open()
        self.payload.verify(options)
