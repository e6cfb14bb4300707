"""Write a tensor's bytes as a little-endian data file has them, and compute their checksum.

A tensor of another bundle is copied piece by piece, and its checksum is checked at the same time.
Any other is read into memory first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, Protocol, cast

import numpy as np
import numpy.typing as npt

from ckptparse.bundle.payload import DensePayload, SlicedPayload, StringPayload
from ckptparse.bundle.strings import (
    decode_strings,
    encode_strings,
    encode_variants,
    split_variants,
)
from ckptparse.coding.checksum import crc32c
from ckptparse.dtypes import DataType, describe_data_type, has_numpy_type, is_numeric, item_size
from ckptparse.elements import allocate, is_masked, iter_stored, make_plain, shaped
from ckptparse.errors import UnsupportedError, located
from ckptparse.files.storage import Source, check_range
from ckptparse.parallel import PIECE_SIZE, PIECES_AHEAD, iter_ahead
from ckptparse.tensor import Tensor
from ckptparse.tensor_like import TensorLike

__all__ = [
    "ArrayContent",
    "Buffers",
    "BytesContent",
    "Content",
    "DenseContent",
    "Streamed",
    "Write",
    "content_of",
    "iter_buffers",
    "read_bits",
    "write_pieces",
]

_LARGE = 4 << 20
"""From so many bytes on, a thread makes the next piece while one is written: 0.1 ms to start."""

Write = Callable[[memoryview], object]
Buffers = Iterator[tuple[int, npt.NDArray[np.uint8]]]
"""Where each piece of a tensor starts, and a buffer for it."""


class HasBits(Protocol):
    """A tensor that has its own way to give unsigned integers of its bits."""

    def read_bits(self) -> npt.NDArray[Any]:
        """Read them."""
        ...


class Content(Protocol):
    """The bytes of one tensor, to be written once."""

    @property
    def size(self) -> int:
        """How many bytes there are."""
        ...

    def write_to(self, write: Write) -> int:
        """Write them piece by piece, and return their unmasked CRC.

        A piece is valid only during its call of `write`.

        Raises:
            DataLossError: They are read from a file meanwhile, and it is damaged.
        """
        ...


class Streamed(Protocol):
    """A tensor that has its own way to give its bytes."""

    def content(self) -> Content:
        """Return its bytes."""
        ...


class ArrayContent:
    """The elements of an array of numbers."""

    __slots__ = ("_array", "_data_type", "size")

    def __init__(self, array: npt.NDArray[Any], data_type: int, width: int) -> None:
        """Take an array of a kind whose elements have `width` bytes in a file."""
        self._array = array
        self._data_type = data_type
        self.size = array.size * width

    def write_to(self, write: Write) -> int:
        """Write them; see `Content`."""
        if self.size <= PIECE_SIZE:
            crc = 0
            for run in iter_stored(self._array, self._data_type):
                write(run)
                crc = crc32c(run, crc)
            return crc
        # Pieces of an array: without the interpreter's lock, threads must not share a view.
        runs = (np.frombuffer(run, np.uint8) for run in iter_stored(self._array, self._data_type))
        pieces = (
            run[start : start + PIECE_SIZE].data
            for run in runs
            for start in range(0, len(run), PIECE_SIZE)
        )
        return write_pieces(pieces, self.size, write)


class BytesContent:
    """A payload of strings or variants in memory, with its CRC."""

    __slots__ = ("_crc", "_payload", "size")

    def __init__(self, payload: bytes, crc: int) -> None:
        self._payload = payload
        self._crc = crc
        self.size = len(payload)

    def write_to(self, write: Write) -> int:
        """Write it; see `Content`."""
        write(memoryview(self._payload))
        return self._crc


class DenseContent:
    """The elements of a tensor in a data file, copied piece by piece."""

    __slots__ = ("_payload", "_verify", "size")

    def __init__(self, payload: DensePayload, *, verify: bool) -> None:
        self._payload = payload
        self._verify = verify
        self.size = payload.entry.size

    def write_to(self, write: Write) -> int:
        """Write them; see `Content`. Damage is found only when all are written."""
        shards, entry = self._payload.shards, self._payload.entry
        stored = written = 0
        changed = False

        def checked(source: Source, buffers: Buffers) -> Iterator[memoryview]:
            nonlocal stored, written, changed
            for start, part in buffers:
                piece = part.data
                source.read_into(entry.offset + start, piece)
                crc = crc32c(piece, stored)
                if make_plain(part, entry.data_type, big_endian=shards.big_endian):
                    changed = True
                # Written as stored, nearly always: one checksum is enough for both.
                written = crc32c(piece, written) if changed else crc
                stored = crc
                yield piece

        with shards.open(entry.shard_id) as source:
            check_range(source, entry.offset, entry.size)
            _write_all(checked(source, iter_buffers(entry.size)), entry.size, write)
        if self._verify:
            shards.check_crc(entry, stored)
        return written


def write_pieces(pieces: Iterator[memoryview], size: int, write: Write) -> int:
    """Write pieces of `size` bytes in all, and return the CRC of all.

    If there are many, another thread makes the next ones while one is written: each must be usable
    until `PIECES_AHEAD` more were made.
    """
    crc = 0

    def checked() -> Iterator[memoryview]:
        nonlocal crc
        for piece in pieces:
            crc = crc32c(piece, crc)
            yield piece

    _write_all(checked(), size, write)
    return crc


def iter_buffers(size: int) -> Buffers:
    """Iterate over buffers for the pieces of `size` bytes.

    A buffer is used again `PIECES_AHEAD` pieces later.
    """
    width = min(PIECE_SIZE, size)
    count = PIECES_AHEAD if size >= _LARGE else 1
    # Allocated at once, and by the thread that frees it: malloc keeps it for the next tensor, where
    # several, or those of another thread, go back to the system and cost new pages each time.
    memory = np.empty(width * count, np.uint8)
    return (
        (start, memory[number % count * width :][: min(width, size - start)])
        for number, start in enumerate(range(0, size, PIECE_SIZE))
    )


def _write_all(pieces: Iterator[memoryview], size: int, write: Write) -> None:
    for piece in iter_ahead(pieces) if size >= _LARGE else pieces:
        write(piece)


def _stored_strings(payload: StringPayload, *, verify: bool) -> Content:
    """Encode stored strings again: their lengths may be longer than needed, or big-endian."""
    shards, entry = payload.shards, payload.entry
    with shards.open(entry.shard_id) as source:
        data = source.read_at(entry.offset, entry.size)
    count, crc = math.prod(entry.shape), entry.crc32c if verify else None
    with located(path=shards.path(entry.shard_id), offset=entry.offset):
        if entry.data_type == DataType.DT_VARIANT:
            messages = split_variants(data, count, big_endian=shards.big_endian, crc=crc)
            return BytesContent(*encode_variants(messages))
        strings = decode_strings(data, count, big_endian=shards.big_endian, crc=crc)
    return BytesContent(*encode_strings(strings.tolist()))


def content_of(tensor: TensorLike) -> Content:
    """Return a tensor's bytes: streamed from their file, or read into memory.

    Raises:
        UnsupportedError: Elements are missing, or a data file cannot hold their type.
        CheckpointError: It cannot be read.
    """
    if isinstance(tensor, Tensor):
        if isinstance(tensor.payload, DensePayload) and is_numeric(tensor.data_type):
            return DenseContent(tensor.payload, verify=tensor.options.verify)
        if isinstance(tensor.payload, StringPayload):
            return _stored_strings(tensor.payload, verify=tensor.options.verify)
    # To ask for the protocol itself costs fifty times as much.
    elif hasattr(tensor, "content"):
        return cast("Streamed", tensor).content()
    if _has_own_bits(tensor) and not has_numpy_type(tensor.data_type):
        return content_of_array(read_bits(tensor), tensor.data_type)
    return content_of_array(tensor.read(), tensor.data_type)


def _has_own_bits(tensor: TensorLike) -> bool:
    """Tell whether its bits can be read where numpy lacks its kind, though not streamed."""
    if isinstance(tensor, Tensor):
        return isinstance(tensor.payload, SlicedPayload)
    return hasattr(tensor, "read_bits")


def read_bits(tensor: TensorLike) -> npt.NDArray[Any]:
    """Read a tensor of a kind that numpy lacks as unsigned integers of the same bits.

    Raises:
        UnsupportedError: Its own values are needed for that, which numpy cannot hold.
        CheckpointError: It cannot be read.
    """
    if hasattr(tensor, "read_bits"):
        return cast("HasBits", tensor).read_bits()
    if isinstance(tensor, Tensor) and isinstance(tensor.payload, SlicedPayload):
        return _bits_of_slices(tensor, tensor.payload)
    content = content_of(tensor)
    raw = allocate((content.size,), np.dtype(np.uint8))
    done = 0

    def write(piece: memoryview) -> None:
        nonlocal done
        raw[done : done + len(piece)] = piece
        done += len(piece)

    content.write_to(write)
    little = raw.view(f"<u{item_size(tensor.data_type)}")
    return shaped(little.astype(little.dtype.newbyteorder("="), copy=False), tensor.shape)


def _bits_of_slices(tensor: Tensor, payload: SlicedPayload) -> npt.NDArray[Any]:
    parts = payload.parts()
    out = allocate(tensor.shape, np.dtype(f"u{item_size(tensor.data_type)}"))
    for place, part in parts:
        region = place.resolve(tensor.shape)
        shape = tuple(map(len, region))
        one = Tensor(f"{tensor.name} {place}", shape, tensor.data_type, part, tensor.options)
        out[tuple(slice(each.start, each.stop) for each in region)] = read_bits(one)
    return out


def content_of_array(array: npt.NDArray[Any], data_type: int) -> Content:
    """Return an array's bytes as a data file has them."""
    if is_masked(array):
        raise UnsupportedError(
            "Some of its elements are missing, and a checkpoint cannot mark them",
            hint="Choose a value for them: `tensor.read(fill=0)`",
        )
    width = item_size(data_type)
    if width is not None:
        return ArrayContent(array, data_type, width)
    if data_type == DataType.DT_VARIANT:
        from ckptparse.tensor_encoding import encode_variant

        values = array.reshape(-1).tolist()
        return BytesContent(*encode_variants(map(encode_variant, values)))
    if data_type != DataType.DT_STRING:
        raise UnsupportedError(f"A data file cannot hold {describe_data_type(data_type)}")
    return BytesContent(*encode_strings(list_bytes(array)))


def list_bytes(array: npt.NDArray[Any]) -> list[bytes]:
    """Return all strings of an array as their bytes: text in UTF-8.

    Raises:
        UnsupportedError: One is neither text nor bytes.
    """
    values: list[Any] = array.reshape(-1).tolist()
    if set(map(type, values)) <= {bytes}:
        return values
    return list(map(_to_bytes, values))


def _to_bytes(value: object) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        try:
            return value.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError as error:
            raise UnsupportedError(
                f"A string has the character {value[error.start]!r}, which cannot be encoded",
                hint="Give it as bytes",
            ) from None
    raise UnsupportedError(
        f"Expected an object array of bytes or str, found {type(value).__name__} in it",
        hint="Give the array a numeric dtype, or make every element bytes",
    )
