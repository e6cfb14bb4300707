"""Headers of numpy's files: the form that numpy writes is read here, any other by numpy itself.

numpy reads a header as a piece of Python, which takes a tenth of a millisecond and more.
"""

from __future__ import annotations

import ast
import io
import math
import re
from functools import lru_cache
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from ckptparse.dtypes import DataType, data_type_of
from ckptparse.errors import LimitError, MalformedError, UnsupportedError
from ckptparse.foreign import LENGTH_FIELD, STRING_FIELD
from ckptparse.limits import Limits
from ckptparse.sources.stored import check_shape

__all__ = ["LONGEST_HEAD", "Head", "HeadParser"]

LONGEST_HEAD = 1 << 14
"""Bytes that are read for a header: real ones have some hundred."""
_LARGEST_TEXT = 10_000
"""Bytes of a header at most: numpy's own bound."""
_ODD_HEADS = 1 << 18
_BYTES_A_TEXT = 32
"""Bytes of headers of no usual form that are parsed, at most, and for how many bytes of the file
there may be one more: numpy takes a microsecond for each."""
_VERSIONS = (b"\x93NUMPY\1\0", b"\x93NUMPY\2\0", b"\x93NUMPY\3\0")
_USUAL = re.compile(
    rb"\{'descr': (?P<descr>'[ -&(-\[\]-~]{1,60}'|\[[ -Z^-~]{1,200}\]), "
    rb"'fortran_order': (?P<columns>False|True), "
    rb"'shape': \((?P<shape>|SIZE,|SIZE(?:, SIZE)+)\), \} *\n?".replace(
        b"SIZE", rb"(?:0|[1-9][0-9]{0,18})L?"
    )
)
"""A header as numpy writes it; Python 2 wrote an L behind large numbers."""


class Head(NamedTuple):
    """What the header of a `.npy` file says."""

    start: int
    """Where the elements begin, in bytes."""
    shape: tuple[int, ...]
    columns: bool
    """Whether columns come first, as in Fortran."""
    dtype: np.dtype[Any]
    kind: DataType

    @property
    def is_plain(self) -> bool:
        """Whether the elements lie there as they are in memory, but for the order of bytes."""
        return self.kind != DataType.DT_STRING and not self.columns

    @property
    def is_big_endian(self) -> bool:
        """Whether the high byte of an element comes first."""
        plain = self.dtype[0] if self.dtype.names is not None else self.dtype
        return plain.byteorder == ">"


class HeadParser:
    """Parses the headers in one file."""

    def __init__(self, size: int, limits: Limits) -> None:
        """Take the size of the file in bytes, and bounds on what it asks for."""
        self.limits = limits
        self._left = self._most = _ODD_HEADS + size // _BYTES_A_TEXT

    def parse(self, data: bytes, size: int) -> Head:
        """Parse the header at the start of an array's `size` bytes, and check it by that.

        Args:
            data: Its first bytes, `LONGEST_HEAD` at most.
            size: How many there are in all.

        Raises:
            MalformedError: It is no header, or there are more or less elements.
            UnsupportedError: The elements are Python objects, or of a kind TensorFlow lacks.
            LimitError: It asks for more than the limits allow.
        """
        start, shape, columns, dtype = _read_usual(data) or self._read_unusual(data)
        if dtype.hasobject:
            raise UnsupportedError(
                "The array holds pickled Python objects; to read them means to run code from the "
                "file",
                hint="Save the array anew, without objects: with strings as numpy's bytes "
                "(dtype 'S')",
            )
        self.limits.check("rank", len(shape), "The number of dimensions of a tensor")
        check_shape(shape)
        wanted = math.prod(shape) * dtype.itemsize
        if start + wanted != size:
            raise MalformedError(
                f"Expected {start + wanted} bytes for {dtype} of shape {shape}, found {size}"
            )
        kind = _kind_of(dtype)
        if kind == DataType.DT_STRING:
            self.limits.check("strings", math.prod(shape), "The number of strings of a tensor")
        return Head(start, shape, columns, dtype, kind)

    def _read_unusual(self, data: bytes) -> _Said:
        """Let numpy read a header: what comes before the elements is counted."""
        stream = io.BytesIO(data)
        said = _read_as_python(stream)
        self._left -= stream.tell()
        if self._left < 0:
            raise LimitError(
                f"Headers of arrays of no usual form take more than {self._most} bytes: "
                f"{_ODD_HEADS}, and one for each {_BYTES_A_TEXT} of the file",
                limit="text_bytes",
            )
        return stream.tell(), *said


_Said = tuple[int, tuple[int, ...], bool, np.dtype[Any]]
"""Where the elements begin, shape, whether columns come first, and type."""


def _read_usual(data: bytes) -> _Said | None:
    """Read a header that is written as numpy writes it; None if it is not."""
    if data[:8] not in _VERSIONS:
        return None
    start = 10 if data[6] == 1 else 12
    end = start + int.from_bytes(data[8:start], "little")
    match = _USUAL.fullmatch(data, start, min(end, start + _LARGEST_TEXT))
    if match is None or end > len(data):
        return None
    dtype = _dtype_of(match["descr"].decode("ascii"))
    if dtype is None:
        return None
    sizes = match["shape"].replace(b"L", b"").split(b",")
    return end, tuple(int(size) for size in sizes if size), match["columns"] == b"True", dtype


@lru_cache(maxsize=256)
def _dtype_of(text: str) -> np.dtype[Any] | None:
    """Return the type that a header describes; None if numpy is to say why there is none."""
    try:
        found: np.dtype[Any] = np.lib.format.descr_to_dtype(ast.literal_eval(text))
    except (ValueError, TypeError, SyntaxError):
        return None
    return found


def _read_as_python(stream: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Read shape, whether columns come first, and type from the start of a `.npy` file."""
    try:
        version = np.lib.format.read_magic(stream)
        read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }.get(version)
        if read is None:
            # Version 3 is version 2 whose text is UTF-8; numpy reads it by a function of no name.
            read = np.lib.format.read_array_header_2_0
        shape, columns, dtype = read(stream)
    except Exception as error:  # noqa: BLE001
        # numpy parses it as Python, which raises what it likes: TokenError, MemoryError.
        raise MalformedError(f"The header of the .npy file cannot be read: {error}") from None
    return shape, columns, dtype


def _kind_of(dtype: np.dtype[Any]) -> DataType:
    if dtype.names == (STRING_FIELD, LENGTH_FIELD):
        return DataType.DT_STRING
    return data_type_of(dtype)
