"""Check the header and the entries of a bundle's index (docs/format.md, sections 2.2 and 2.3).

Each `from_proto` checks every field against the others. After it, nothing fails because of the
index alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from ckptparse.coding.checksum import mask_crc, unmask_crc
from ckptparse.coding.varint import encode_varint
from ckptparse.dtypes import DataType, describe_data_type, item_size
from ckptparse.errors import MalformedError, UnsupportedError
from ckptparse.limits import Limits
from ckptparse.slices import TensorSlice

if TYPE_CHECKING:
    from ckptparse.proto.tensor_bundle_pb2 import BundleEntryProto, BundleHeaderProto

__all__ = [
    "BundleEntry",
    "BundleHeader",
    "Endianness",
    "check_rank",
    "check_shards",
    "check_versions",
    "count_elements",
    "shape_from_proto",
]

CHECKPOINT_VERSION = 1
"""The version of the format that this reader knows, for V1 and V2 alike."""
_ELEMENTS_MAX = (1 << 63) - 1
"""Elements of a tensor at most: TensorFlow counts them in a signed 64-bit number (section 9.2)."""


class Endianness(IntEnum):
    """Byte order of a bundle's data files. Tables and messages are always little-endian."""

    LITTLE = 0
    BIG = 1


@dataclass(frozen=True, slots=True)
class BundleHeader:
    """The entry under the empty key."""

    num_shards: int
    endianness: Endianness
    producer: int
    min_consumer: int

    @classmethod
    def from_proto(cls, proto: Any, *, limits: Limits) -> BundleHeader:
        """Check a BundleHeaderProto.

        Raises:
            UnsupportedError: Its versions exclude this reader.
            MalformedError: The number of shards or the byte order is impossible.
            LimitError: More shards than `Limits.shards`.
        """
        check_versions(proto.version)
        check_shards(proto.num_shards, limits=limits)
        if proto.endianness not in (Endianness.LITTLE, Endianness.BIG):
            raise MalformedError(
                f"Expected endianness 0 (little) or 1 (big), found {proto.endianness}"
            )
        return cls(
            proto.num_shards,
            Endianness(proto.endianness),
            proto.version.producer,
            proto.version.min_consumer,
        )

    def to_proto(self) -> BundleHeaderProto:
        """Make the BundleHeaderProto."""
        from ckptparse.proto.tensor_bundle_pb2 import BundleHeaderProto
        from ckptparse.proto.versions_pb2 import VersionDef

        return BundleHeaderProto(
            num_shards=self.num_shards,
            endianness=int(self.endianness),  # type: ignore[arg-type] # the enum's number
            version=VersionDef(producer=self.producer, min_consumer=self.min_consumer),
        )


def check_shards(count: int, *, limits: Limits) -> None:
    """Check the number of data files.

    Raises:
        MalformedError: There is none.
        LimitError: More than `Limits.shards`.
    """
    if count < 1:
        raise MalformedError(f"Expected at least one shard, found {count}")
    limits.check("shards", count, "The number of shards")


def check_versions(version: Any) -> None:
    """Check a VersionDef by TensorFlow's rule.

    Raises:
        UnsupportedError: It asks for a newer reader, or excludes this version.
        MalformedError: Its producer is negative.
    """
    if version.min_consumer > CHECKPOINT_VERSION:
        raise UnsupportedError(
            f"The checkpoint needs a reader of version {version.min_consumer} or newer; this one "
            f"has version {CHECKPOINT_VERSION}"
        )
    if version.producer < 0:
        raise MalformedError(f"Expected a producer version of 0 or more, found {version.producer}")
    if CHECKPOINT_VERSION in version.bad_consumers:
        raise UnsupportedError(
            f"The checkpoint excludes readers of version {CHECKPOINT_VERSION} "
            f"(bad_consumers {list(version.bad_consumers)})"
        )


@dataclass(frozen=True, slots=True)
class BundleEntry:
    """What the index says of one tensor, or of one slice of a tensor.

    Attributes:
        data_type: DataType number.
        shape: Of the tensor; in the entry of a slice, that of the slice.
        shard_id: Number of the data file.
        offset: Of the first byte in it.
        size: In bytes.
        crc32c: Of those bytes, unmasked.
        slices: The slices that the tensor is stored in; empty if it is stored whole. With slices
            the four fields before mean nothing, and each slice has its own entry.
    """

    data_type: int
    shape: tuple[int, ...]
    shard_id: int
    offset: int
    size: int
    crc32c: int
    slices: tuple[TensorSlice, ...] = ()

    @classmethod
    def in_slices(
        cls,
        data_type: int,
        shape: tuple[int, ...],
        slices: tuple[TensorSlice, ...],
        *,
        shard_id: int = 0,
    ) -> BundleEntry:
        """Make the entry of a tensor that is stored in slices: it has no place of its own."""
        return cls(data_type, shape, shard_id, 0, 0, 0, slices)

    @classmethod
    def from_proto(
        cls,
        proto: Any,
        *,
        num_shards: int,
        limits: Limits,
        take_slices: Callable[[int], None] | None = None,
    ) -> BundleEntry:
        """Check a BundleEntryProto.

        Args:
            proto: The message.
            num_shards: Data files of the bundle.
            limits: Bounds on what it may ask for.
            take_slices: Counts the slices, if it has any, before they are made; it may refuse them.

        Raises:
            MalformedError: A field breaks the format's rules, alone or with another one.
            LimitError: More dimensions, slices or strings than the limits allow.
        """
        shape = shape_from_proto(proto.shape, limits=limits)
        limits.check("slices", len(proto.slices), "The number of slices of a tensor")
        if take_slices is not None and proto.slices:
            take_slices(len(proto.slices))
        entry = cls(
            proto.dtype,
            shape,
            proto.shard_id,
            proto.offset,
            proto.size,
            # An absent checksum is 0 on the wire, and counts as a checksum all the same.
            unmask_crc(proto.crc32c),
            tuple(TensorSlice.from_proto(piece) for piece in proto.slices),
        )
        entry.check(num_shards=num_shards, limits=limits)
        return entry

    def to_bytes(self) -> bytes:
        """Serialize the BundleEntryProto, in the order of its fields, those that are 0 left out."""
        if self.slices:
            return self.to_proto().SerializeToString()
        shape = _encode_shape(self.shape)
        parts = [b"\x08", encode_varint(self.data_type)] if self.data_type else []
        parts += b"\x12", encode_varint(len(shape)), shape
        for tag, value in ((b"\x18", self.shard_id), (b"\x20", self.offset), (b"\x28", self.size)):
            if value:
                parts += tag, encode_varint(value)
        masked = mask_crc(self.crc32c)
        if masked:
            parts += b"\x35", masked.to_bytes(4, "little")
        return b"".join(parts)

    def to_proto(self) -> BundleEntryProto:
        """Make the BundleEntryProto. Of a tensor in slices it has no offset, size and checksum."""
        from ckptparse.proto.tensor_bundle_pb2 import BundleEntryProto
        from ckptparse.proto.tensor_shape_pb2 import TensorShapeProto

        dims = [TensorShapeProto.Dim(size=size) for size in self.shape]
        proto = BundleEntryProto(
            dtype=int(self.data_type),  # type: ignore[arg-type] # the enum's number
            shape=TensorShapeProto(dim=dims),
        )
        # TensorFlow's merge writes this field of a tensor in slices too. No reader uses it then.
        proto.shard_id = self.shard_id
        if self.slices:
            proto.slices.extend(piece.to_proto() for piece in self.slices)
            return proto
        proto.offset, proto.size = self.offset, self.size
        proto.crc32c = mask_crc(self.crc32c)
        return proto

    def check(self, *, num_shards: int, limits: Limits) -> None:
        """Check the fields against each other; raises as `from_proto` does."""
        kind = self.data_type
        # A number plus 100 is a reference type, which is never stored (section 4).
        if (
            kind <= DataType.DT_INVALID
            or kind == DataType.DT_RESOURCE
            or 100 <= kind <= 100 + max(DataType)
        ):
            raise MalformedError(
                f"Expected the DataType of a stored tensor, found {describe_data_type(kind)}"
            )
        elements = count_elements(self.shape)
        if self.slices and not self.shape:
            raise MalformedError(f"A scalar has no slices, found {self.slices}")
        # Of a tensor in slices these mean nothing, and TensorFlow writes what any other has.
        if not 0 <= self.shard_id < num_shards:
            raise MalformedError(
                f"Expected a shard from 0 to {num_shards - 1}, found {self.shard_id}"
            )
        if self.offset < 0 or self.size < 0:
            raise MalformedError(
                f"Expected an offset and a size of 0 or more, found {self.offset} and {self.size}"
            )
        if not self.slices:
            self._check_size(elements, limits)

    def _check_size(self, elements: int, limits: Limits) -> None:
        width = item_size(self.data_type)
        if width is not None:
            if self.size != elements * width:
                raise MalformedError(
                    f"Invalid size in bundle entry: expected {elements * width} bytes for "
                    f"{describe_data_type(self.data_type)} of shape {self.shape}, found {self.size}"
                )
        elif self.data_type in (DataType.DT_STRING, DataType.DT_VARIANT):
            limits.check("strings", elements, "The number of strings of a tensor")
            # Each string has a length, and a varint takes at least one byte.
            if self.size < elements:
                raise MalformedError(
                    f"Invalid size in bundle entry: expected at least one byte for each of "
                    f"{elements} elements, found {self.size}"
                )


def shape_from_proto(proto: Any, *, limits: Limits) -> tuple[int, ...]:
    """Return the shape of a TensorShapeProto. An absent one, or one of unknown rank, is a scalar's.

    Raises:
        MalformedError: A dimension is negative.
        LimitError: More dimensions than `Limits.rank`.
    """
    check_rank(len(proto.dim), limits=limits)
    shape = tuple(dim.size for dim in proto.dim)
    if shape and min(shape) < 0:
        raise MalformedError(f"Expected dimensions of 0 or more, found shape {shape}")
    return shape


def check_rank(rank: int, *, limits: Limits) -> None:
    """Raise `LimitError` if a tensor has more dimensions than `Limits.rank`."""
    limits.check("rank", rank, "The number of dimensions of a tensor")


def count_elements(shape: Sequence[int]) -> int:
    """Return the product of the dimensions.

    Raises:
        MalformedError: The product exceeds 2**63 - 1 at any dimension, even if a later one is 0.
    """
    product = 1
    for size in shape:
        product *= size
        if product > _ELEMENTS_MAX:
            raise MalformedError(
                f"Expected a shape of at most 2**63 - 1 elements, found {tuple(shape)}"
            )
    return product


@lru_cache(maxsize=1024)
def _encode_shape(shape: tuple[int, ...]) -> bytes:
    """Serialize the TensorShapeProto."""
    dims = [b"\x08" + encode_varint(size) if size else b"" for size in shape]
    return b"".join(b"\x12" + encode_varint(len(dim)) + dim for dim in dims)
