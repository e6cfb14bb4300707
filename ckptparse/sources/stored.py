"""A tensor that lies in one piece in a file of another format, and where such tensors are found."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from ckptparse.bundle.content import Buffers, Content, Write, iter_buffers, write_pieces
from ckptparse.bundle.entry import count_elements
from ckptparse.bundle.regions import bytes_of, read_region
from ckptparse.dtypes import item_size, numpy_dtype
from ckptparse.elements import allocate, finish_elements, make_plain, needs_finishing
from ckptparse.errors import CheckpointError, MalformedError, located
from ckptparse.files.context import Context
from ckptparse.files.storage import ReadInto, Source, check_range
from ckptparse.tensor import plan_index
from ckptparse.tensor_like import TensorLike

if TYPE_CHECKING:
    from ckptparse.backend.small import Sized
    from ckptparse.files.archives.members import MemberChecksum

__all__ = ["LoadedTensor", "OpenFiles", "StoredTensor", "TensorSource", "check_shape"]

_MOST = (1 << 63) - 1
"""The largest dimension that TensorFlow's formats can say."""
_NEGLIGIBLE_GAP = 4096
"""A gap below one page is read over: that costs less than a second read."""


def check_shape(shape: Sequence[Any]) -> tuple[int, ...]:
    """Return the dimensions that a file says a tensor has.

    Raises:
        MalformedError: One is no number from 0 to 2**63 - 1, or they say more elements.
    """
    if not all(type(size) is int and 0 <= size <= _MOST for size in shape):
        raise MalformedError(f"Expected dimensions from 0 to 2**63 - 1, found {shape!r:.80}")
    count_elements(shape)
    return tuple(shape)


class TensorSource(Protocol):
    """An open file, or several, of tensors by name."""

    @property
    def tensors(self) -> Mapping[str, TensorLike]:
        """The tensors, in the order in which they are best read."""
        ...

    @property
    def metadata(self) -> Mapping[str, str]:
        """What else the file says of itself."""
        ...

    @property
    def files(self) -> tuple[str, ...]:
        """Every path it consists of."""
        ...

    def close(self) -> None:
        """Close it."""
        ...


class OpenFiles:
    """Files that are open together, and the tensors in them: a `TensorSource` to build on."""

    def __init__(self, context: Context) -> None:
        """Begin without any file; `context` says where they lie, and bounds what they ask for."""
        self.tensors: dict[str, TensorLike] = {}
        self.metadata: dict[str, str] = {}
        self._context = context
        self._sources: list[Source] = []

    @property
    def files(self) -> tuple[str, ...]:
        """Every file that is open."""
        return tuple(source.path for source in self._sources)

    def close(self) -> None:
        """Close every file."""
        for source in self._sources:
            source.close()

    def _open(self, path: str) -> Source:
        source = self._context.storage.open(path)
        self._sources.append(source)
        return source


class StoredTensor:
    """Elements of a fixed size at an offset of an open file, C-ordered.

    If they are the rest of an archive's member, they are checked by its checksum when all of them
    are read, at once or by pieces in order; a part is not.
    """

    __slots__ = (
        "_big_endian",
        "_checksum",
        "_read",
        "data_type",
        "name",
        "offset",
        "shape",
        "source",
    )

    def __init__(
        self,
        name: str,
        shape: tuple[int, ...],
        data_type: int,
        source: Source,
        offset: int,
        *,
        big_endian: bool = False,
        checksum: MemberChecksum | None = None,
    ) -> None:
        self.name = name
        self.shape = shape
        self.data_type = data_type
        self.source = source
        self.offset = offset
        self._big_endian = big_endian
        self._checksum = checksum
        self._read = (0, 0)

    @property
    def dtype(self) -> np.dtype[Any]:
        """See `TensorLike`."""
        with located(tensor=self.name):
            return numpy_dtype(self.data_type)

    @property
    def nbytes(self) -> int:
        """See `TensorLike`."""
        return math.prod(self.shape) * (item_size(self.data_type) or 0)

    def read(self) -> npt.NDArray[Any]:
        """Read the whole, in native byte order."""
        with located(path=self.source.path, offset=self.offset, tensor=self.name):
            check_range(self.source, self.offset, self.nbytes)
            array = allocate(self.shape, self.dtype)
            self._read_into(0, bytes_of(array))
        finish_elements(array, self.data_type, big_endian=self._big_endian)
        return array

    @classmethod
    def read_together(cls, batch: Sequence[Sized]) -> list[npt.NDArray[Any] | None]:
        """Read small ones, those beside each other at once; None for what is to be read singly."""
        tensors = [one.tensor for one in batch if isinstance(one.tensor, StoredTensor)]
        found: list[npt.NDArray[Any] | None] = [None] * len(tensors)
        sizes = [one.nbytes for one in batch]
        for row, size in enumerate(sizes):
            if not size:
                # It may be said to lie anywhere.
                found[row] = tensors[row]._make(memoryview(b""))
        for rows in _iter_runs(tensors, sizes):
            start = tensors[rows[0]].offset
            end = max(tensors[row].offset + sizes[row] for row in rows)
            try:
                held = memoryview(tensors[rows[0]].source.read_at(start, end - start))
            except CheckpointError:
                continue
            for row in rows:
                at = tensors[row].offset - start
                found[row] = tensors[row]._make(held[at : at + sizes[row]])
        return found

    def _make(self, data: memoryview) -> npt.NDArray[Any] | None:
        """Make the whole array of its bytes; None if that fails."""
        try:
            array: npt.NDArray[Any] = np.ndarray(self.shape, self.dtype, data).copy()
            if self._checksum is not None:
                self._checksum.check(zlib.crc32(data, self._checksum.before))
        except (CheckpointError, ValueError, TypeError):
            return None
        if needs_finishing(self.data_type, big_endian=self._big_endian):
            finish_elements(array, self.data_type, big_endian=self._big_endian)
        return array

    def __getitem__(self, index: Any, /) -> Any:
        """Read a part by numpy's basic indexing."""
        region, finish = plan_index(index, self.shape)
        with located(path=self.source.path, offset=self.offset, tensor=self.name):
            check_range(self.source, self.offset, self.nbytes)
            part = read_region(self._read_into, self.shape, self.dtype, region)
        finish_elements(part, self.data_type, big_endian=self._big_endian)
        return part[finish]

    def content(self) -> Content:
        """Return how its bytes are copied, by the piece."""
        with located(path=self.source.path, offset=self.offset, tensor=self.name):
            check_range(self.source, self.offset, self.nbytes)
        return _StoredContent(
            self._read_into, self.nbytes, self.data_type, big_endian=self._big_endian
        )

    def _read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill a buffer with the bytes at an offset of the elements; check all after the last."""
        self.source.read_into(self.offset + offset, buffer)
        if self._checksum is None:
            return
        # A pair at once: where two threads read, each finds what is right for the place.
        done, crc = self._read if offset else (0, self._checksum.before)
        if offset == done:
            done, crc = done + len(buffer), zlib.crc32(buffer, crc)
            self._read = done, crc
            if done == self.nbytes:
                with located(path=self.source.path, offset=self.offset, tensor=self.name):
                    self._checksum.check(crc)


def _iter_runs(tensors: Sequence[StoredTensor], sizes: Sequence[int]) -> Iterator[list[int]]:
    """Iterate over the rows of tensors whose bytes lie beside each other in one file."""
    some = (row for row, size in enumerate(sizes) if size)
    places = sorted((id(tensors[row].source), tensors[row].offset, row) for row in some)
    run: list[int] = []
    before = end = -1
    for source, offset, row in places:
        if run and (source != before or offset > end + _NEGLIGIBLE_GAP):
            yield run
            run = []
        end = max(end, offset + sizes[row]) if run else offset + sizes[row]
        before = source
        run.append(row)
    if run:
        yield run


class _StoredContent:
    """The bytes of a `StoredTensor`."""

    def __init__(
        self,
        read_into: ReadInto,
        size: int,
        data_type: int,
        *,
        big_endian: bool,
    ) -> None:
        self.size = size
        self._read_into = read_into
        self._data_type = data_type
        self._big_endian = big_endian

    def write_to(self, write: Write) -> int:
        """Write them; see `Content`."""
        return write_pieces(self._iter_pieces(iter_buffers(self.size)), self.size, write)

    def _iter_pieces(self, buffers: Buffers) -> Iterator[memoryview]:
        for start, part in buffers:
            self._read_into(start, part.data)
            make_plain(part, self._data_type, big_endian=self._big_endian)
            yield part.data


class LoadedTensor:
    """A tensor whose values another library reads, or that is worked out of others."""

    __slots__ = ("_load", "data_type", "name", "nbytes", "shape")

    is_read_whole = True
    """Whether to read a part takes as long as to read all."""

    def __init__(
        self,
        name: str,
        shape: tuple[int, ...],
        data_type: int,
        load: Callable[[], npt.NDArray[Any]],
        *,
        nbytes: int | None = None,
    ) -> None:
        """Set it up; `load` may give elements of one field, as `plain_dtype` has them."""
        self.name = name
        self.shape = shape
        self.data_type = data_type
        width = item_size(data_type) or 0
        self.nbytes = math.prod(shape) * width if nbytes is None else nbytes
        self._load = load

    @property
    def dtype(self) -> np.dtype[Any]:
        """See `TensorLike`."""
        with located(tensor=self.name):
            return numpy_dtype(self.data_type)

    def read(self) -> npt.NDArray[Any]:
        """Read the whole."""
        with located(tensor=self.name):
            array = self._load()
            return array.view(self.dtype) if array.dtype.names else array

    def read_bits(self) -> npt.NDArray[Any]:
        """Read the whole as unsigned integers of the same bits, of a kind that numpy lacks."""
        with located(tensor=self.name):
            array = self._load()
            return array.view(f"u{array.dtype.itemsize}")

    @classmethod
    def read_together(cls, batch: Sequence[Sized]) -> list[npt.NDArray[Any] | None]:
        """Read small ones one by one, for what is then done with all; None for what fails."""
        return [_try(one.tensor) for one in batch]

    def __getitem__(self, index: Any, /) -> Any:
        """Read the whole, and pick a part."""
        return self.read()[index]


def _try(tensor: TensorLike) -> npt.NDArray[Any] | None:
    """Read a tensor; None if that fails, which is told in its turn."""
    try:
        return tensor.read()
    except CheckpointError:
        return None
