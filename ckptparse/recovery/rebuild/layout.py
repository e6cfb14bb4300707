"""Which payloads are in each data file, in which order.

Writers put payloads end to end (docs/format.md, section 2.5). So an index adds no more to its data
files than order, dtypes and shapes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import cast

from ckptparse.dtypes import item_size
from ckptparse.errors import MalformedError
from ckptparse.problems import EvidenceRule
from ckptparse.slices import Extent, TensorSlice

__all__ = ["Layout", "Payload", "Rule", "parse_slice_spec", "plain_type"]

_REFERENCE = 100
"""A DataType plus 100 is a reference to that type (section 4)."""


class Rule(str, Enum):
    """Where a layout comes from."""

    SAVER = "saver"
    """The names, dtypes and shapes of the graph's save op: as sure as the graph."""
    STAND_IN = "stand-in"
    """The index of another checkpoint of the model."""
    GIVEN_ORDER = "given order"
    """Shapes in the order in which they were given."""
    SORTED_NAMES = "sorted names"
    """Shapes that were given, sorted by name, as TensorFlow 1's Saver sorts them."""
    OBJECT_GRAPH = "object graph"
    """The order of the object graph's keys, and shapes that were given."""


@dataclass(frozen=True, slots=True)
class Payload:
    """What is known of one payload before its data file is read."""

    name: str
    """Of the tensor."""
    data_type: int | None
    """DataType number; None if it is not known."""
    shape: tuple[int | None, ...] | None
    """Of the payload; None if it is not known, and in place of a dimension that is not."""
    piece: TensorSlice | None = None
    """Which slice of the tensor it is; None if it is the whole tensor."""
    full_shape: tuple[int, ...] = ()
    """Of the whole tensor, if this is a slice."""
    shared_count: str | None = None
    """Payloads with the same name here have the same number of rows: keys and values of a table."""
    stated: int | None = None
    """Its size in another checkpoint, if neither dtype nor shape says it; None if not known."""
    told: EvidenceRule | None = None
    """What told its type and shape, if that is another rule than the layout's."""

    @property
    def size(self) -> int | None:
        """Its size in bytes; None if dtype or shape is not known."""
        width = None if self.data_type is None else item_size(self.data_type)
        if width is None or self.shape is None:
            return None
        for dimension in self.shape:
            if dimension is None:
                return None
            width *= dimension
        return width

    @property
    def known_shape(self) -> tuple[int, ...] | None:
        """Its shape, if all dimensions are known; else None."""
        if self.shape is None or None in self.shape:
            return None
        return cast("tuple[int, ...]", self.shape)

    def with_shape(self, shape: tuple[int, ...]) -> Payload:
        """Return a copy with another shape."""
        return replace(self, shape=shape)


@dataclass(frozen=True, slots=True)
class Layout:
    """The payloads of a checkpoint's data files, as some evidence says."""

    shards: tuple[tuple[Payload, ...], ...]
    """For each data file, its payloads in order."""
    rule: Rule
    source: str
    """The file that says so; empty if the caller gave it."""

    @property
    def names(self) -> tuple[str, ...]:
        """The names of its tensors, each once, in order."""
        return tuple(dict.fromkeys(payload.name for shard in self.shards for payload in shard))


def plain_type(data_type: int | None) -> int | None:
    """Return the DataType that a reference type refers to; others unchanged."""
    if data_type is not None and data_type > _REFERENCE:
        return data_type - _REFERENCE
    return data_type


def parse_slice_spec(spec: str) -> tuple[tuple[int, ...], TensorSlice]:
    """Parse the text of a slice in a save op: `6 3 0,2:-` is rows 0 and 1 of shape (6, 3).

    An extent is `start,length`, or `-` for a whole dimension.

    Raises:
        MalformedError: It is no such text.
    """
    *dims, slices = spec.split(" ")
    try:
        shape = tuple(int(size) for size in dims)
        piece = TensorSlice(tuple(_parse_extent(text) for text in slices.split(":") if text))
    except ValueError:
        shape, piece = (), TensorSlice(())
    if not shape or len(piece.extents) != len(shape) or min(shape) < 0:
        raise MalformedError(
            f"Expected a shape and a slice with one extent for each dimension, found {spec!r}"
        )
    return shape, piece


def _parse_extent(text: str) -> Extent:
    if text == "-":
        return Extent()
    start, length = text.split(",")
    return Extent(int(start), int(length))
