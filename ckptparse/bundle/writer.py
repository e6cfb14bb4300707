"""Write a bundle: tensors in the order they come, then the index (docs/format.md, section 2).

The bytes are the same as TensorFlow's for the same tensors in the same order and the same data
files: tensors end to end, without padding, and an index sorted by key.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import BinaryIO, NamedTuple, Protocol

from ckptparse.bundle.content import Content
from ckptparse.bundle.entry import BundleEntry, BundleHeader, Endianness
from ckptparse.bundle.naming import decode_slice_key, encode_name, encode_slice_key
from ckptparse.errors import UnsupportedError, located
from ckptparse.filenames import INDEX_SUFFIX, shard_path
from ckptparse.slices import TensorSlice
from ckptparse.table.builder import TableBuilder

__all__ = ["BundleWriter", "Outputs", "SmallTensor"]

_HEADER_KEY = b""
_PRODUCER = 1
"""The version that TensorFlow has written since 2016 (section 2.2)."""


class Outputs(Protocol):
    """What creates files."""

    def open(self, path: str) -> BinaryIO:
        """Create a file; the caller closes it."""
        ...


@dataclass(slots=True)
class _Sliced:
    """A tensor of which slices were added."""

    data_type: int
    shape: tuple[int, ...]
    shard: int
    """Number of the data file that has the first of them."""
    slices: list[TensorSlice] = field(default_factory=list)


class SmallTensor(NamedTuple):
    """A tensor whose bytes are in memory, as a data file has them.

    Attributes:
        name: Its name.
        data_type: Its DataType.
        shape: Its shape.
        payload: Its bytes.
        crc: Of those, unmasked; of strings see `bundle.strings`.
    """

    name: str
    data_type: int
    shape: tuple[int, ...]
    payload: bytes | memoryview
    crc: int


class BundleWriter:
    """Writes the files of one prefix. In memory are the index, and one tensor's `Content`."""

    def __init__(self, files: Outputs, prefix: str, *, num_shards: int = 1) -> None:
        """Set up a writer; no file is created yet.

        Args:
            files: Creates the files. They get their names in that order, the index last.
            prefix: The path without `.index`.
            num_shards: How many data files there will be. They are written one after another.
        """
        self._files = files
        self._prefix = prefix
        self._num_shards = num_shards
        self._entries: dict[bytes, bytes] = {}
        self._sliced: dict[str, _Sliced] = {}
        self._shard = -1
        self._stream: BinaryIO | None = None
        self._offset = 0

    def add(
        self, name: str, data_type: int, shape: Sequence[int], content: Content, *, shard: int = 0
    ) -> None:
        """Write a whole tensor, at the end of the data file of that number.

        Raises:
            ValueError: The name was written already, or the data file is an earlier one.
            UnsupportedError: No key of an index can be the name.
            DataLossError: It is read from a file, and that is damaged.
        """
        if name in self._sliced:
            raise _written_in_slices(name)
        with located(tensor=name):
            self._add(_encode_name(name), data_type, tuple(shape), content, shard)

    def add_small(self, tensors: Sequence[SmallTensor], *, shard: int = 0) -> None:
        """Write whole tensors whose bytes are in memory, one after another, at once.

        Raises:
            ValueError, UnsupportedError: As for `add`.
        """
        stream = self._begin_shards(shard)
        entries, offset = self._entries, self._offset
        for name, data_type, shape, payload, crc in tensors:
            if name in self._sliced:
                raise _written_in_slices(name)
            key = _encode_located(name)
            if key in entries:
                raise ValueError(f"{key!r} has been written already")
            size = len(payload)
            entries[key] = BundleEntry(data_type, shape, shard, offset, size, crc).to_bytes()
            offset += size
        stream.write(b"".join([one.payload for one in tensors]))
        self._offset = offset

    def add_slice(
        self,
        name: str,
        data_type: int,
        shape: Sequence[int],
        tensor_slice: TensorSlice,
        content: Content,
        *,
        shard: int = 0,
    ) -> None:
        """Write one slice of a tensor. A slice that is all of it is written as a whole tensor.

        Raises:
            ValueError: As for `add`; or slices of this name have another dtype or full shape.
            MalformedError: The slice is not within the shape.
            DataLossError: It is read from a file, and that is damaged.
        """
        whole = tuple(shape)
        region = tensor_slice.resolve(whole)
        own = tuple(map(len, region))
        if own == whole:
            self.add(name, data_type, whole, content, shard=shard)
            return
        sliced = self._sliced.get(name)
        if sliced is None:
            if _encode_name(name) in self._entries:
                raise ValueError(f"{name!r} was written as a whole already, so it has no slices")
            sliced = self._sliced[name] = _Sliced(data_type, whole, shard)
        if (sliced.data_type, sliced.shape) != (data_type, whole):
            raise ValueError(
                f"Expected all slices of {name!r} with the same dtype and full shape, found others"
            )
        with located(tensor=f"{name} {tensor_slice}"):
            key = encode_slice_key(_encode_name(name), tensor_slice)
            self._add(key, data_type, own, content, shard)
        sliced.slices.append(tensor_slice)

    def finish(self) -> None:
        """Write the index, last of all files."""
        self._begin_shards(self._num_shards - 1)
        self._close_shard()
        for name, sliced in self._sliced.items():
            entry = BundleEntry.in_slices(
                sliced.data_type, sliced.shape, tuple(sliced.slices), shard_id=sliced.shard
            )
            self._entries[_encode_name(name)] = entry.to_bytes()
        header = BundleHeader(self._num_shards, Endianness.LITTLE, _PRODUCER, 0)
        with self._files.open(self._prefix + INDEX_SUFFIX) as stream:
            table = TableBuilder(stream.write)
            table.add(_HEADER_KEY, header.to_proto().SerializeToString())
            for key in sorted(self._entries):
                table.add(key, self._entries[key])
            table.finish()

    def close(self) -> None:
        """Close the file that is being written; closing twice is harmless."""
        self._close_shard()

    def _add(
        self, key: bytes, data_type: int, shape: tuple[int, ...], content: Content, shard: int
    ) -> None:
        if key in self._entries:
            raise ValueError(f"{key!r} has been written already")
        stream = self._begin_shards(shard)
        size = 0

        def write(piece: memoryview) -> None:
            nonlocal size
            stream.write(piece)
            size += len(piece)

        crc = content.write_to(write)
        entry = BundleEntry(data_type, shape, shard, self._offset, size, crc)
        self._offset += size
        self._entries[key] = entry.to_bytes()

    def _begin_shards(self, shard: int) -> BinaryIO:
        """Return the data file of a number; it and those before it are created."""
        if not self._shard <= shard < self._num_shards:
            raise ValueError(
                f"Expected a data file from {max(0, self._shard)} to {self._num_shards - 1}, "
                f"found {shard}: data files are written in order"
            )
        while self._shard < shard:
            self._close_shard()
            self._shard += 1
            path = shard_path(self._prefix, self._shard, self._num_shards)
            self._stream = self._files.open(path)
        if self._stream is None:
            raise ValueError("The writer is finished: nothing can be added any more")
        return self._stream

    def _close_shard(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None
            self._offset = 0


def _written_in_slices(name: str) -> ValueError:
    return ValueError(
        f"Slices of {name!r} were written already, so it cannot be written as a whole"
    )


def _encode_located(name: str) -> bytes:
    try:
        return _encode_name(name)
    except UnsupportedError as error:
        error.tensor = error.tensor or name
        raise


def _encode_name(name: str) -> bytes:
    if not name:
        raise UnsupportedError(
            "A tensor's name is empty: the index has its header under the empty key",
            hint="Write it under another name",
        )
    try:
        key = encode_name(name)
    except UnicodeEncodeError as error:
        raise UnsupportedError(
            f"The name has the character {name[error.start]!r}, which cannot be encoded",
            tensor=name,
        ) from None
    if key.startswith(b"\0") and decode_slice_key(key) is not None:
        raise UnsupportedError(
            "The name has the form of the key of a slice (docs/format.md, section 2.6), so every "
            "reader would take the tensor for a slice",
            tensor=name,
            hint="Write it under another name",
        )
    return key
