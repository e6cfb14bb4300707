"""What every writer of tensors is told, and what all of them share."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ckptparse.bundle.content import Write, content_of, list_bytes
from ckptparse.dtypes import DataType, element_name, is_numeric
from ckptparse.errors import UnsupportedError, located
from ckptparse.files.context import Progress
from ckptparse.files.storage import Storage
from ckptparse.foreign import LENGTH_FIELD, STRING_FIELD
from ckptparse.tensor_like import TensorLike

__all__ = [
    "Meter",
    "SinkOptions",
    "check_kinds",
    "check_names",
    "fixed_strings",
    "has_surrogates",
    "is_variant",
    "plan_parts",
    "write_elements",
]

_WAYS = "Leave them out (exclude=...), or choose format='v2', which holds every kind"
"""What can be done about tensors that a format lacks."""

_MOST_PADDING = 64 << 20
"""Bytes of padding that strings of one width may take, whatever their sum: memory grows by them."""
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
"""What stands in a name for a byte that is not UTF-8."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkOptions:
    """How tensors are written.

    Attributes:
        overwrite: Whether what is there is replaced.
        max_shard_size: In bytes; None: everything in one file, if the format has one.
        store_bits: Whether a kind that the format lacks is stored as another of the same bytes.
        metadata: What the target says of where it came from.
        progress: Who is told how many bytes are written, of how many.
        storage: Where the target lies; None: on this machine, or where the URL leads that it is.
    """

    overwrite: bool = False
    max_shard_size: int | None = None
    store_bits: bool = False
    metadata: Mapping[str, str] = field(default_factory=dict)
    progress: Progress | None = None
    storage: Storage | None = None

    def __post_init__(self) -> None:
        if self.max_shard_size is not None and self.max_shard_size < 1:
            raise ValueError(f"max_shard_size is None or at least 1, not {self.max_shard_size}")

    def meter(self, tensors: Iterable[TensorLike]) -> Meter:
        """Return what counts the bytes of these tensors."""
        return Meter(self.progress, sum(tensor.nbytes for tensor in tensors))


class Meter:
    """Counts bytes, and tells how far the work is."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress = progress
        self._total = total
        self._done = 0

    def counting(self, write: Write) -> Write:
        """Return a function that writes and counts."""
        if self._progress is None:
            return write

        def counted(piece: memoryview) -> None:
            write(piece)
            self.advance(len(piece))

        return counted

    def advance_each(self, sizes: Iterable[int]) -> None:
        """Count pieces that were written at once, as if one after another; none that is empty."""
        if self._progress is None:
            return
        for size in sizes:
            if size:
                self.advance(size)

    def advance(self, size: int) -> None:
        """Count so many bytes more."""
        self._done += size
        if self._progress is not None:
            self._progress(min(self._done, self._total), self._total)


def write_elements(tensor: TensorLike, write: Write) -> None:
    """Write the elements of a tensor of numbers: little-endian, C-ordered.

    Raises:
        MalformedError, ChecksumError: It is read from a file that is damaged.
    """
    size = 0

    def counted(piece: memoryview) -> None:
        nonlocal size
        write(piece)
        size += len(piece)

    with located(tensor=tensor.name):
        content_of(tensor).write_to(counted)
        if size != tensor.nbytes:
            raise UnsupportedError(
                f"Expected {tensor.nbytes} bytes of elements, found {size}: the tensor has "
                "changed since"
            )


def plan_parts(sizes: Sequence[int], most: int | None) -> list[int]:
    """Return the number of the file that each tensor goes to, none of which exceeds `most` bytes.

    A tensor is never cut; a larger one has a file of its own.
    """
    parts: list[int] = []
    part = held = 0
    for size in sizes:
        if most is not None and held and held + size > most:
            part, held = part + 1, 0
        held += size
        parts.append(part)
    return parts


def fixed_strings(tensor: TensorLike) -> npt.NDArray[np.void] | npt.NDArray[np.bytes_]:
    """Read strings as numpy's strings of one width, exact to the last byte.

    numpy drops NULs at the end of its own; if there are any, the array has two fields, `string` and
    `length`.

    Raises:
        UnsupportedError: Their lengths differ so much that the padding would take over 64 MiB.
    """
    with located(tensor=tensor.name):
        array = tensor.read()
        flat = list_bytes(array)
        lengths = np.fromiter(map(len, flat), np.int64, len(flat))
        widest, total = int(lengths.max(initial=1)), int(lengths.sum())
        if widest * len(flat) > total + _MOST_PADDING:
            raise UnsupportedError(
                f"Strings of one width would take {widest * len(flat)} bytes for {total}: their "
                "lengths differ too much for this format",
                hint="Convert to a checkpoint (format='v2'), or leave the tensor out",
            )
        plain = np.array(flat, f"S{widest}").reshape(array.shape)
        # numpy counts no NULs at the end.
        if (np.char.str_len(plain).reshape(-1) == lengths).all():
            return plain
        pairs = np.empty(array.shape, [(STRING_FIELD, plain.dtype), (LENGTH_FIELD, "<i8")])
        pairs[STRING_FIELD] = plain
        pairs[LENGTH_FIELD] = lengths.reshape(array.shape)
        return pairs


def check_kinds(
    tensors: Iterable[TensorLike],
    lacks: Callable[[TensorLike], bool],
    *,
    what: str,
    ways: str = _WAYS,
) -> None:
    """Refuse tensors of kinds that a format lacks, all at once.

    Raises:
        UnsupportedError: There are some; it names them, and the ways out.
    """
    lacking = [tensor for tensor in tensors if lacks(tensor)]
    if not lacking:
        return
    first = ", ".join(f"{one.name!r} ({element_name(one.data_type)})" for one in lacking[:5])
    more = f" and {len(lacking) - 5} more" if len(lacking) > 5 else ""
    raise UnsupportedError(f"{what} cannot hold {first}{more}", tensor=lacking[0].name, hint=ways)


def is_variant(tensor: TensorLike) -> bool:
    """Tell whether a tensor's elements are neither numbers nor strings."""
    return not is_numeric(tensor.data_type) and tensor.data_type != DataType.DT_STRING


def has_surrogates(name: str) -> bool:
    """Tell whether a name stands for bytes that are not UTF-8."""
    return not name.isascii() and _LONE_SURROGATE.search(name) is not None


def check_names(tensors: Iterable[TensorLike], *, what: str) -> None:
    """Refuse names that are not text.

    Raises:
        UnsupportedError: A name is not UTF-8.
    """
    for tensor in tensors:
        if has_surrogates(tensor.name):
            raise UnsupportedError(
                f"{what} holds names in UTF-8, and the name {tensor.name!r} is not UTF-8",
                tensor=tensor.name,
                hint="Rename it: rename={...}",
            )
