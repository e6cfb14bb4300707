"""The lazy tensor: what is known without its data, and how its data is read.

A format gives a `Payload`, which reads rectangular regions. `Tensor` turns numpy's basic indexing
into such a region, and does the rest in memory.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from types import EllipsisType
from typing import Any, Literal, Protocol, SupportsIndex

import numpy as np
import numpy.typing as npt

from ckptparse.dtypes import DataType, element_name, item_size, numpy_dtype
from ckptparse.errors import CheckpointError, UnsupportedError
from ckptparse.limits import Budget

__all__ = [
    "DEFAULT_OPTIONS",
    "SAFE_RANK",
    "BasicIndex",
    "Kind",
    "Location",
    "Payload",
    "ReadOptions",
    "Region",
    "Tensor",
    "TensorOrigin",
    "check_rank",
    "kind_of",
    "plan_index",
]

Kind = Literal["dense", "sliced", "string", "variant"]
"""How a tensor is stored: whole, in slices, or as strings or variants of any length."""
Region = tuple[range, ...]
"""One rising `range` a dimension: the elements wanted are their product."""
BasicIndex = SupportsIndex | slice | EllipsisType | None | tuple[Any, ...]
"""Numpy's basic indices: integers, slices, `...`, None, and tuples of these."""

_KNOWN_TYPES = {int(known): known for known in DataType}
"""To look one up takes a tenth of what `DataType(number)` does."""
SAFE_RANK = 32
"""Dimensions that every numpy allows."""
_NUMPY_RANK = 64 if int(np.__version__.split(".")[0]) >= 2 else SAFE_RANK


@dataclass(frozen=True, slots=True)
class Location:
    """Where a tensor's bytes are.

    Attributes:
        path: The file.
        shard: Number of the data file, from 0.
        offset: Of the first byte in the file.
        size: In bytes, as stored.
    """

    path: str
    shard: int
    offset: int
    size: int


class TensorOrigin(Protocol):
    """The checkpoint of a tensor, in which it can be found again. It can be pickled."""

    def check_open(self) -> None:
        """Raise `ClosedError` once it has been closed."""
        ...

    def find_payload(self, name: str) -> Payload:
        """Return how the values of a tensor are got, by its stored name."""
        ...


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How whole tensors are read.

    Attributes:
        verify: Whether stored checksums are compared.
        mmap: Whether data files are mapped copy-on-write, if a format allows it.
        threads: How many threads may read; None picks.
        origin: The checkpoint that they are of, for a tensor in another process; None for one that
            is of no checkpoint.
        budget: What all that is read together may take; None: each tensor has one of its own.
    """

    verify: bool = True
    mmap: bool = False
    threads: int | None = None
    origin: TensorOrigin | None = field(default=None, compare=False, repr=False)
    budget: Budget | None = None


DEFAULT_OPTIONS = ReadOptions()


class Payload(Protocol):
    """How the values of one tensor are got from its format."""

    @property
    def kind(self) -> Kind:
        """See `Tensor.kind`."""
        ...

    @property
    def location(self) -> Location | None:
        """See `Tensor.location`."""
        ...

    @property
    def crc32c(self) -> int | None:
        """See `Tensor.crc32c`."""
        ...

    def read(self, options: ReadOptions) -> npt.NDArray[Any]:
        """Read all of it: a new, writable array in C order and native byte order."""
        ...

    def read_region(self, region: Region) -> npt.NDArray[Any]:
        """Read the product of the ranges into a new array of their lengths, without a check."""
        ...

    def verify(self, options: ReadOptions) -> None:
        """Check every stored checksum over all bytes, with little memory."""
        ...


def _no_payload(name: str) -> Payload:
    raise ValueError(f"Nothing says how {name} is read")


class Tensor:
    """A tensor of a checkpoint or a constant of a graph, its data unread until asked for."""

    # A plain class: a listing makes 100,000 of them, and a frozen dataclass takes four times as
    # long to make.
    __slots__ = ("_data_type", "_find_payload", "_name", "_options", "_payload", "_shape")

    def __init__(  # noqa: PLR0917 - `map` makes 100,000 of them by position
        self,
        name: str,
        shape: tuple[int, ...],
        data_type: int,
        payload: Payload | None,
        options: ReadOptions = DEFAULT_OPTIONS,
        find_payload: Callable[[str], Payload] = _no_payload,
    ) -> None:
        """Set up a tensor; if `payload` is None, `find_payload` gives it when first needed."""
        self._name = name
        self._shape = shape
        self._data_type = data_type
        self._payload = payload
        self._options = options
        self._find_payload = find_payload

    @property
    def name(self) -> str:
        """Its stored name; bytes that are not UTF-8 are surrogate escapes."""
        return self._name

    @property
    def shape(self) -> tuple[int, ...]:
        """Its dimensions; `()` for a scalar."""
        return self._shape

    @property
    def data_type(self) -> int:
        """Its `DataType`; the number if it is unknown."""
        return _KNOWN_TYPES.get(self._data_type, self._data_type)

    @property
    def payload(self) -> Payload:
        """How its values are read."""
        if self._payload is None:
            self._payload = self._find_payload(self._name)
        return self._payload

    @property
    def options(self) -> ReadOptions:
        """How it is read as a whole."""
        return self._options

    @property
    def kind(self) -> Kind:
        """`"dense"`, `"string"` or `"variant"`; `"sliced"` for any that is stored in slices."""
        return self.payload.kind

    @property
    def location(self) -> Location | None:
        """Where its bytes are; None if they are in several places or in a message."""
        return self.payload.location

    @property
    def crc32c(self) -> int | None:
        """The stored CRC-32C of its bytes, unmasked, or None if there is no single one."""
        return self.payload.crc32c

    @property
    def dtype(self) -> np.dtype[Any]:
        """Its numpy (or ml_dtypes) type, in native byte order; `object` for strings.

        Raises:
            UnsupportedError: The installed ml_dtypes has no such type.
        """
        try:
            return numpy_dtype(self._data_type)
        except CheckpointError as error:
            error.tensor = self._name
            raise

    @property
    def ndim(self) -> int:
        """The number of dimensions."""
        return len(self._shape)

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of its data: of the array for numbers, as stored for strings and variants."""
        width = item_size(self._data_type)
        if width is not None:
            return math.prod(self._shape) * width
        location = self.location
        return 0 if location is None else location.size

    def read(self) -> npt.NDArray[Any]:
        """Read the whole tensor.

        Returns:
            A new writable array in native byte order, of this tensor's shape. Strings are an
            object array of `bytes`, for a scalar too: its shape is `()`.

        Raises:
            ChecksumError: The bytes are damaged (unless opened with `verify=False`).
            TruncatedError: A data file is too short.
            MissingShardError: A data file is not there.
            MalformedError: Slices or strings break the format's rules.
            UnsupportedError: The installed numpy or ml_dtypes cannot hold it.
        """
        try:
            self._check_open()
            check_rank(len(self._shape))
            return self.payload.read(self._options)
        except CheckpointError as error:
            self._locate(error)
            raise

    def verify(self) -> None:
        """Check the stored checksum over all bytes; a second call returns at once.

        The bytes are streamed, so memory stays small for any size.

        Raises:
            ChecksumError: The bytes are damaged.
            TruncatedError: A data file is too short.
            MissingShardError: A data file is not there.
        """
        try:
            self._check_open()
            self.payload.verify(self._options)
        except CheckpointError as error:
            self._locate(error)
            raise

    def __getitem__(self, index: BasicIndex) -> Any:
        """Read a part by numpy's basic indexing: integers, slices, `...` and `None`.

        Only the bytes of that part are read, from the slices that hold it. Strings and variants are
        read as a whole. The checksum covers the whole tensor, so a smaller part is not checked: if
        this matters, call `verify` first. All of it (`tensor[...]`) is checked as by `read`.

        Raises:
            IndexError: An integer is out of bounds, or there are too many.
            TypeError: An index is of another kind.
        """
        region, finish = plan_index(index, self._shape)
        try:
            self._check_open()
            check_rank(len(self._shape))
            part = self._read_region(region)
        except CheckpointError as error:
            self._locate(error)
            raise
        return part[finish]

    def _read_region(self, region: Region) -> npt.NDArray[Any]:
        payload = self.payload
        if payload.kind not in ("string", "variant") and tuple(map(len, region)) != self._shape:
            return payload.read_region(region)
        whole = payload.read(self._options)
        # With the dots the result stays an array; a scalar string would become bytes.
        steps: tuple[Any, ...] = (*(slice(r.start, r.stop, r.step) for r in region), ...)
        part: npt.NDArray[Any] = whole[steps]
        return part

    def with_options(self, options: ReadOptions) -> Tensor:
        """Return the same tensor, to be read in another way."""
        if options.origin is None:
            options = replace(options, origin=self._options.origin)
        return Tensor(self._name, self._shape, self._data_type, self.payload, options)

    def __copy__(self) -> Tensor:
        return Tensor(
            self._name,
            self._shape,
            self._data_type,
            self._payload,
            self._options,
            find_payload=self._find_payload,
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        # Its values lie in a file: there is nothing to copy.
        return self.__copy__()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle where it comes from, and not its values; those of a constant are with it."""
        options, kind = self._options, int(self._data_type)
        if options.origin is None:
            return Tensor, (self._name, self._shape, kind, self.payload, options)
        options.origin.check_open()
        return _unpickle, (self._name, self._shape, kind, options)

    def _check_open(self) -> None:
        if self._options.origin is not None:
            self._options.origin.check_open()

    def _locate(self, error: CheckpointError) -> None:
        """Add to an error what it is about."""
        if error.path is None and self._payload is not None and self.location is not None:
            error.path = self.location.path
        error.tensor = self._name if error.tensor is None else error.tensor

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of a scalar tensor")
        return self.shape[0]

    def __array__(
        self,
        dtype: npt.DTypeLike | None = None,
        copy: bool | None = None,  # noqa: FBT001 - numpy's protocol
    ) -> npt.NDArray[Any]:
        if copy is False:
            raise ValueError(
                "copy=False is not possible: a tensor is read into a new array each time"
            )
        array = self.read()
        return array if dtype is None else array.astype(dtype, copy=False)

    def _repr_html_(self) -> str | None:
        """Show it in a notebook; None, and so the plain form, if its checkpoint is closed."""
        from ckptparse.rendering.notebook import tensor_html

        try:
            return tensor_html(self)
        except CheckpointError:
            return None

    def __repr__(self) -> str:
        kind = element_name(self._data_type)
        return f"<Tensor {self.name!r} shape={self.shape} {kind} {self.kind}>"


def _unpickle(name: str, shape: tuple[int, ...], data_type: int, options: ReadOptions) -> Tensor:
    """Make a tensor that finds its payload when first used."""
    find = _no_payload if options.origin is None else options.origin.find_payload
    return Tensor(name, shape, data_type, None, options, find_payload=find)


def kind_of(data_type: int) -> Kind:
    """Return the kind of a tensor that is stored whole."""
    if data_type == DataType.DT_STRING:
        return "string"
    return "variant" if data_type == DataType.DT_VARIANT else "dense"


def check_rank(rank: int) -> None:
    """Raise `UnsupportedError` for more dimensions than the installed numpy allows."""
    if rank > _NUMPY_RANK:
        raise UnsupportedError(
            f"The tensor has {rank} dimensions, and the installed numpy {np.__version__} allows "
            f"{_NUMPY_RANK}"
        )


def plan_index(index: BasicIndex, shape: tuple[int, ...]) -> tuple[Region, tuple[Any, ...]]:
    """Split a basic index into the region to read and the index to apply to what was read."""
    parts = list(index) if isinstance(index, tuple) else [index]
    used = sum(part is not None and part is not Ellipsis for part in parts)
    if used > len(shape):
        raise IndexError(f"too many indices: the tensor has {len(shape)} dimensions, not {used}")
    if sum(part is Ellipsis for part in parts) > 1:
        raise IndexError("an index can have one ellipsis ('...')")
    region: list[range] = []
    finish: list[Any] = []
    for part in parts:
        if part is None:
            finish.append(None)
        elif part is Ellipsis:
            spanned = shape[len(region) : len(region) + len(shape) - used]
            region.extend(map(range, spanned))
            finish.append(Ellipsis)
        else:
            wanted, rest = _plan_dimension(part, shape[len(region)], axis=len(region))
            region.append(wanted)
            finish.append(rest)
    region.extend(map(range, shape[len(region) :]))
    return tuple(region), tuple(finish)


def _plan_dimension(part: Any, size: int, *, axis: int) -> tuple[range, int | slice]:
    if isinstance(part, slice):
        wanted = range(*part.indices(size))
        if len(wanted) < 2:
            # With so few elements the step has no effect, and it may not fit into 64 bits.
            start = wanted[0] if wanted else 0
            return range(start, start + len(wanted)), slice(None)
        if wanted.step > 0:
            return wanted, slice(None)
        return wanted[::-1], slice(None, None, -1)
    if isinstance(part, (bool, np.bool_, Sequence, np.ndarray)) or not hasattr(part, "__index__"):
        raise TypeError(
            f"Expected numpy's basic indices (integers, slices, '...' and None), found "
            f"{type(part).__name__}; for others, read the tensor first"
        )
    position = operator.index(part)
    if not -size <= position < size:
        raise IndexError(f"index {position} is out of bounds for axis {axis} with size {size}")
    position %= size
    return range(position, position + 1), 0
