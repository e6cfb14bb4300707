"""Read the values of one entry: dense elements, strings or variants, or slices."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ckptparse.bundle.entry import BundleEntry
from ckptparse.bundle.regions import bytes_of, read_region
from ckptparse.bundle.shards import ShardFiles
from ckptparse.bundle.strings import (
    check_strings,
    decode_strings,
    most_lengths_bytes,
    split_variants,
)
from ckptparse.coding.checksum import crc32c
from ckptparse.dtypes import DataType, item_size, numpy_dtype
from ckptparse.elements import allocate, finish_elements, shaped
from ckptparse.errors import CheckpointError, MalformedError, located
from ckptparse.files.storage import check_range, known_size
from ckptparse.limits import Budget
from ckptparse.parallel import PIECE_SIZE, stream_crc
from ckptparse.slices import SliceGrid, TensorSlice
from ckptparse.tensor import (
    DEFAULT_OPTIONS,
    Kind,
    Location,
    Payload,
    ReadOptions,
    Region,
    kind_of,
)

__all__ = [
    "BrokenPayload",
    "DensePayload",
    "SliceFinder",
    "SlicedPayload",
    "StringPayload",
    "make_payload",
]


class SliceFinder(Protocol):
    """What a sliced payload needs of its checkpoint, a bundle or V1 files."""

    slices_are_read_whole: bool
    """Whether any part of a slice takes all of it."""

    def slice_payloads(self, name: str, entry: BundleEntry) -> tuple[SliceGrid, list[Payload]]:
        """Find the slices of a tensor."""
        ...

    def budget(self) -> Budget:
        """Begin to count what one call takes of its files."""
        ...


def make_payload(shards: ShardFiles, entry: BundleEntry) -> Payload:
    """Return the payload for an entry without slices."""
    if entry.data_type in (DataType.DT_STRING, DataType.DT_VARIANT):
        return StringPayload(shards, entry)
    return DensePayload(shards, entry)


class _EntryPayload:
    """The values of one entry, stored in one place."""

    __slots__ = ("_entry", "_shards", "_verified")

    def __init__(self, shards: ShardFiles, entry: BundleEntry) -> None:
        self._shards = shards
        self._entry = entry
        self._verified = False

    @property
    def shards(self) -> ShardFiles:
        """The data files of its bundle."""
        return self._shards

    @property
    def entry(self) -> BundleEntry:
        """Its entry in the index."""
        return self._entry

    @property
    def kind(self) -> Kind:
        """See `Tensor.kind`."""
        return kind_of(self._entry.data_type)

    @property
    def location(self) -> Location:
        """See `Tensor.location`."""
        entry = self._entry
        path = self._shards.path(entry.shard_id)
        return Location(path, entry.shard_id, entry.offset, entry.size)

    @property
    def crc32c(self) -> int:
        """See `Tensor.crc32c`."""
        return self._entry.crc32c


class DensePayload(_EntryPayload):
    """Elements of a fixed size, one after another."""

    __slots__ = ()

    def read(self, options: ReadOptions) -> npt.NDArray[Any]:
        """Read the whole; see `Payload`."""
        entry = self._entry
        if entry.size > PIECE_SIZE:
            from ckptparse.bundle.many import read_dense

            return read_dense(self._shards, entry, options)
        array = allocate(entry.shape, numpy_dtype(entry.data_type))
        buffer = bytes_of(array)
        with self._shards.open(entry.shard_id) as source:
            source.read_into(entry.offset, buffer)
        if options.verify:
            self._shards.check_crc(entry, crc32c(buffer))
        finish_elements(array, entry.data_type, big_endian=self._shards.big_endian)
        return array

    def read_region(self, region: Region) -> npt.NDArray[Any]:
        """Read a part; see `Payload`."""
        entry = self._entry
        dtype = numpy_dtype(entry.data_type)
        with self._shards.open(entry.shard_id) as source:
            # The size of some files is told by the first read.
            later = known_size(source) is None and _is_small(region, dtype)
            if not later:
                check_range(source, entry.offset, entry.size)

            def read_into(offset: int, buffer: memoryview) -> None:
                source.read_into(entry.offset + offset, buffer)

            array = read_region(read_into, entry.shape, dtype, region)
            if later:
                check_range(source, entry.offset, entry.size)
        finish_elements(array, entry.data_type, big_endian=self._shards.big_endian)
        return array

    def verify(self, options: ReadOptions) -> None:
        """Check the stored checksum, once; see `Payload`."""
        if not self._verified:
            computed = _stream_crc(self._shards, self._entry, options)
            self._shards.check_crc(self._entry, computed)
            self._verified = True


class StringPayload(_EntryPayload):
    """Strings or variants: lengths and bytes. They are always read as a whole."""

    __slots__ = ()

    def read(self, options: ReadOptions) -> npt.NDArray[Any]:
        """Read the whole; see `Payload`."""
        shards, entry = self._shards, self._entry
        count = math.prod(entry.shape)
        budget = options.budget or shards.budget()
        with shards.open(entry.shard_id) as source:
            data = source.read_at(entry.offset, entry.size)
        crc, order = entry.crc32c if options.verify else None, shards.big_endian
        where: dict[str, Any] = {"path": shards.path(entry.shard_id), "offset": entry.offset}
        with shards.judging(), located(**where):
            if entry.data_type == DataType.DT_STRING:
                flat = decode_strings(data, count, big_endian=order, crc=crc, budget=budget)
            else:
                flat = self._decode_variants(data, count, crc, budget)
            return shaped(flat, entry.shape)

    def read_region(self, region: Region) -> npt.NDArray[Any]:
        """Read the whole and pick the part; see `Payload`."""
        whole = self.read(ReadOptions(verify=False))
        steps: tuple[Any, ...] = (*(slice(r.start, r.stop, r.step) for r in region), ...)
        part: npt.NDArray[Any] = whole[steps].copy()
        return part

    def verify(self, options: ReadOptions) -> None:
        """Check the stored checksums, once; see `Payload`. For this, variants are read."""
        if self._verified:
            return
        if self._entry.data_type == DataType.DT_STRING:
            self._verify_strings(options)
        else:
            self.read(DEFAULT_OPTIONS)
        self._verified = True

    def _verify_strings(self, options: ReadOptions) -> None:
        """Check the lengths, then stream the strings."""
        shards, entry = self._shards, self._entry
        count = math.prod(entry.shape)
        with shards.open(entry.shard_id) as source:
            check_range(source, entry.offset, entry.size)
            head = source.read_at(entry.offset, min(entry.size, most_lengths_bytes(count)))

        def stream(start: int, crc: int) -> int:
            return _stream_crc(shards, entry, options, start=start, crc=crc)

        order, crc = shards.big_endian, entry.crc32c
        where: dict[str, Any] = {"path": shards.path(entry.shard_id), "offset": entry.offset}
        with shards.judging(), located(**where):
            check_strings(head, count, entry.size, big_endian=order, crc=crc, stream=stream)

    def _decode_variants(
        self, data: bytes, count: int, crc: int | None, budget: Budget
    ) -> npt.NDArray[Any]:
        from ckptparse.tensor_proto import decode_variants

        messages = split_variants(data, count, big_endian=self._shards.big_endian, crc=crc)
        flat = np.empty(count, object)
        flat[:] = decode_variants(messages, limits=self._shards.context.limits, budget=budget)
        return flat


class BrokenPayload:
    """A slice that cannot be read. It raises its error when it is read, not before."""

    __slots__ = ("_error",)

    kind: Kind = "dense"
    location = None
    crc32c = None

    def __init__(self, error: CheckpointError) -> None:
        self._error = error

    def read(self, options: ReadOptions) -> npt.NDArray[Any]:  # noqa: ARG002 - a Payload's face
        """Raise what is wrong."""
        raise self._error

    def read_region(self, region: Region) -> npt.NDArray[Any]:  # noqa: ARG002 - a Payload's face
        """Raise what is wrong."""
        raise self._error

    def verify(self, options: ReadOptions) -> None:  # noqa: ARG002 - a Payload's face
        """Raise what is wrong."""
        raise self._error


class SlicedPayload:
    """A tensor stored in slices, each with its own key."""

    __slots__ = ("_entry", "_finder", "_found", "_name", "_path")

    kind: Kind = "sliced"
    location = None
    crc32c = None

    def __init__(
        self, finder: SliceFinder, name: str, entry: BundleEntry, *, path: str | None = None
    ) -> None:
        """Set up the payload; errors in the list of slices name the file `path`."""
        self._finder = finder
        self._name = name
        self._entry = entry
        self._path = path
        self._found: tuple[SliceGrid, list[Payload]] | None = None

    @property
    def is_read_whole(self) -> bool:
        """Whether whoever takes it piece by piece would have slices decoded again and again."""
        return self._finder.slices_are_read_whole

    def read(self, options: ReadOptions) -> npt.NDArray[Any]:
        """Read all of it; each slice has its own checksum; see `Payload`."""
        region = tuple(range(size) for size in self._entry.shape)
        grid, payloads = self._slices(region)
        for number, payload in enumerate(payloads):
            # What has no elements overlaps no part, and may be damaged as any other.
            if isinstance(payload, BrokenPayload) or 0 in self._entry.shape:
                with self._within(number):
                    payload.read(options)
        options = self._count(options)
        out = allocate(self._entry.shape, numpy_dtype(self._entry.data_type))
        for number, target, _ in grid.iter_overlaps(region):
            with self._within(number):
                out[target] = payloads[number].read(options)
        return out

    def read_region(self, region: Region) -> npt.NDArray[Any]:
        """Read a part from the slices that hold it; see `Payload`."""
        grid, payloads = self._slices(region)
        shape, width = tuple(map(len, region)), item_size(self._entry.data_type)
        self._finder.budget().take(math.prod(shape) * (width or 0))
        out = allocate(shape, numpy_dtype(self._entry.data_type))
        for number, target, local in grid.iter_overlaps(region):
            with self._within(number):
                out[target] = payloads[number].read_region(local)
        return out

    def parts(self) -> list[tuple[TensorSlice, Payload]]:
        """Return every slice with its payload, in the order of the index.

        Raises:
            MalformedError: They do not fit the tensor, overlap, or leave gaps.
        """
        _, payloads = self._slices(tuple(range(size) for size in self._entry.shape))
        return list(zip(self._entry.slices, payloads, strict=True))

    def verify(self, options: ReadOptions) -> None:
        """Check every slice; see `Payload`."""
        _, payloads = self._slices(tuple(range(size) for size in self._entry.shape))
        for number, payload in enumerate(payloads):
            with self._within(number):
                payload.verify(options)

    def _slices(self, region: Region) -> tuple[SliceGrid, list[Payload]]:
        """Find the slices, once, and check that they hold the region."""
        with located(path=self._path):
            if self._found is None:
                self._found = self._finder.slice_payloads(self._name, self._entry)
            missing = self._found[0].find_missing(region)
            if missing is not None:
                raise MalformedError(
                    f"Slices are missing: no stored slice has {missing}",
                    hint="To read the parts that are stored, index the tensor",
                )
            return self._found

    def _count(self, options: ReadOptions) -> ReadOptions:
        """Take the whole from the budget; strings of the slices are counted one by one."""
        width = item_size(self._entry.data_type)
        budget = options.budget or self._finder.budget()
        if width is None:
            return replace(options, budget=budget)
        budget.take(math.prod(self._entry.shape) * width)
        return replace(options, budget=None)

    def _within(self, number: int) -> AbstractContextManager[None]:
        return located(tensor=f"{self._name} {self._entry.slices[number]}")


def _is_small(region: Region, dtype: np.dtype[Any]) -> bool:
    return math.prod(map(len, region)) * dtype.itemsize <= PIECE_SIZE


def _stream_crc(
    shards: ShardFiles, entry: BundleEntry, options: ReadOptions, *, start: int = 0, crc: int = 0
) -> int:
    """Continue a checksum over an entry's bytes from `start` on, with little memory."""
    with shards.open(entry.shard_id) as source:
        check_range(source, entry.offset, entry.size)
        offset, size = entry.offset + start, entry.size - start
        return stream_crc(
            source.read_at,
            offset,
            size,
            crc=crc,
            threads=options.threads or source.concurrency,
            piece=source.piece,
        )
