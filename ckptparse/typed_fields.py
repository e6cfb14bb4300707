"""The values in a TensorProto's typed fields: runs of packed numbers, strings and messages.

    2a 04 00 00 80 3f     float_val, packed: 1.0
    2d 00 00 80 3f        the same, not packed
    3a 02 ac 02           int_val, packed: the varint 300

`tensor_proto` says which field is taken. Values may come in several runs, packed or not, as every
repeated field; in `float8_val`, which is a plain `bytes` field, the last run counts alone.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from functools import cache
from itertools import accumulate, islice, pairwise
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt

from ckptparse.coding.varint import MAX_VARINT64_BYTES, decode_varints
from ckptparse.dtypes import DataType
from ckptparse.elements import finish_elements
from ckptparse.errors import MalformedError
from ckptparse.limits import Budget
from ckptparse.proto.wire import BYTES, FIXED32, FIXED64, VARINT, Buffer, iter_fields, read_varint

__all__ = [
    "LISTED_FIELDS",
    "PIECE_SIZE",
    "STRING_VAL",
    "SUB_BYTE_MASKS",
    "TYPED_FIELDS",
    "VARIANT_VAL",
    "collect_pieces",
    "collect_plain_strings",
    "collect_scalars",
    "collect_strings",
    "count_strings",
    "decode_scalars",
    "end_of_strings",
    "finish_stored",
    "iter_runs",
    "scalars_size",
    "split_content",
    "strip_tags",
]

STRING_VAL, VARIANT_VAL, _FLOAT8_VAL = 8, 15, 18

_INT_KINDS = (
    "INT32 INT16 INT8 UINT8 UINT16 QINT8 QUINT8 QINT16 QUINT16 QINT32 INT4 UINT4 INT2 UINT2"
)
_FLOAT8_KINDS = (
    "FLOAT8_E5M2 FLOAT8_E4M3FN FLOAT8_E4M3FNUZ FLOAT8_E4M3B11FNUZ FLOAT8_E5M2FNUZ FLOAT4_E2M1FN"
)

# The typed field of each kind, and the wire type of one value that is not packed.
TYPED_FIELDS: Final[dict[int, tuple[int, int]]] = {
    DataType.DT_FLOAT: (5, FIXED32),
    DataType.DT_DOUBLE: (6, FIXED64),
    **{DataType[f"DT_{kind}"]: (7, VARINT) for kind in _INT_KINDS.split()},
    DataType.DT_STRING: (STRING_VAL, BYTES),
    DataType.DT_COMPLEX64: (9, FIXED32),
    DataType.DT_INT64: (10, VARINT),
    DataType.DT_BOOL: (11, VARINT),
    DataType.DT_COMPLEX128: (12, FIXED64),
    DataType.DT_HALF: (13, VARINT),
    DataType.DT_BFLOAT16: (13, VARINT),
    DataType.DT_VARIANT: (VARIANT_VAL, BYTES),
    DataType.DT_UINT32: (16, VARINT),
    DataType.DT_UINT64: (17, VARINT),
    **{DataType[f"DT_{kind}"]: (_FLOAT8_VAL, BYTES) for kind in _FLOAT8_KINDS.split()},
}

SUB_BYTE_MASKS: Final[dict[int, int]] = {
    DataType.DT_INT4: 0x0F,
    DataType.DT_UINT4: 0x0F,
    DataType.DT_INT2: 0x03,
    DataType.DT_UINT2: 0x03,
    DataType.DT_FLOAT4_E2M1FN: 0x0F,
}

_STRING_SIZE = 48
"""Bytes of a `bytes` object besides its own, rounded up."""
_STRING_TAG = STRING_VAL << 3 | BYTES
_STRING_BLOCK = 4096
"""Strings that are collected before the budget is asked: less than 1 MiB."""
_SHORT_STRING = 8
"""Strings of less bytes are skipped many at a time."""
_LONG = 0x80
"""From here on a length takes more than one byte."""
PIECE_SIZE = 256
"""Bytes of a `memoryview`, and of what is made of it besides its own bytes, rounded up."""
_PIECE_COUNTS = 1 << 11
"""What a variant counts as, in bytes: with what is made of it, it takes a microsecond or more."""
_VARINT_BLOCK = 1 << 18
"""Varints that are decoded at once: as 64-bit numbers they take 2 MiB."""
_FIXED_SIZES: Final = {FIXED32: 4, FIXED64: 8}
_SCALARS: Final = (VARINT, FIXED32, FIXED64)
_ALIKE: Final = 32
"""Fields of one tag, one after another, after which more of them are looked for together."""
LISTED_FIELDS: Final = (STRING_VAL, 14, VARIANT_VAL)
"""Fields of strings, handles of resources, and variants: one for each element."""
_HEAD: Final = 2
"""Bytes of a tag and a length of such a field that is short."""
_SHORT: Final = 16
"""Its content has less bytes than this."""
_TOGETHER: Final = 1 << 12
_EMPTY: Final = 1 << 16
"""So many are looked for at once; of those that are empty, and make no objects, so many."""
_FIRST_BLOCK: Final = 256
"""Bytes that are looked at first: if there are no more such fields, little is lost."""
_MOST_FIELD: Final = 1 + MAX_VARINT64_BYTES
"""Bytes of such a field: at the end of a block one may be cut off."""


def finish_stored(array: npt.NDArray[Any], data_type: int) -> None:
    """Turn little-endian bytes into native elements, in place."""
    if data_type in SUB_BYTE_MASKS:
        raw = array.reshape(-1).view(np.uint8)
        np.bitwise_and(raw, SUB_BYTE_MASKS[data_type], out=raw)
    finish_elements(array, data_type, big_endian=False)


def collect_scalars(data: memoryview, data_type: int) -> Buffer:
    """Join all values of the typed field, packed or not, into one packed run."""
    number, scalar_wire = TYPED_FIELDS[data_type]
    joined: memoryview | bytearray = data[:0]
    for field, wire, piece in iter_runs(data):
        if field != number or wire not in (BYTES, scalar_wire):
            continue
        if number == _FLOAT8_VAL:  # This field is `bytes`, not repeated: the last one is taken.
            joined = piece
            continue
        _check_packed(piece, scalar_wire)
        if not len(joined):
            joined = piece
        elif len(piece):
            joined = joined if isinstance(joined, bytearray) else bytearray(joined)
            joined += piece
    return joined


def iter_runs(data: memoryview) -> Iterator[tuple[int, int, memoryview]]:
    """Iterate over the fields of a message, those of very many values that are not packed as one.

    Gives (field number, wire type, content). Of a run of one field that is a varint, or has 4 or 8
    bytes, the values follow one another, as if they were packed. Of a run of short strings,
    variants or handles only the first come: whoever wants them asks for them alone. Errors are
    those of `iter_fields`.
    """
    position, end = 0, len(data)
    last_tag = alike = 0
    while True:
        for number, wire, first, last in iter_fields(data, position):
            yield number, wire, data[first:last]
            tag = number << 3 | wire
            alike = alike + 1 if tag == last_tag else 0
            last_tag = tag
            if alike == _ALIKE and wire in _SCALARS and tag < 0x80:
                position, values = strip_tags(data, last, tag)
                if position > last:
                    last_tag = alike = 0
                    yield number, wire, memoryview(values)
                    break
            elif alike == _ALIKE and wire == BYTES and number in LISTED_FIELDS:
                # One that is longer does not end the run.
                alike -= 1
                position = _skip_short(data, last, tag)
                if position > last:
                    break
        else:
            return
        if position == end:
            return


def _skip_short(data: memoryview, start: int, tag: int) -> int:
    """Return where a run of fields of one tag and of less than 16 bytes ends."""
    run, _, empty = _short_fields(tag)
    while found := empty.match(data, start) or run.match(data, start):
        start = found.end()
    return start


def strip_tags(data: memoryview, start: int, tag: int) -> tuple[int, bytes]:
    """Return where a run of fields of one tag ends, or is left to be walked, and their values."""
    strip = _strip_varints if tag & 7 == VARINT else _strip_fixed
    raw = np.frombuffer(data, np.uint8)
    parts: list[bytes] = []
    position, size = start, _FIRST_BLOCK
    while position < len(raw):
        block = raw[position : position + size]
        used, values = strip(block, tag)
        position += used
        parts.append(values)
        if not used or used < len(block) - _MOST_FIELD:
            break
        size = min(2 * size, _VARINT_BLOCK)
    return position, b"".join(parts)


def _strip_varints(block: npt.NDArray[np.uint8], tag: int) -> tuple[int, bytes]:
    """Return how many bytes are fields of a tag of one byte and a varint, and the varints."""
    lasts = np.flatnonzero(block < 0x80)
    lasts = lasts[: len(lasts) & ~1]
    starts = np.concatenate(([0], lasts[:-1] + 1))[: len(lasts)]
    # By turns a tag, and a value of at most ten bytes.
    good = (lasts[::2] == starts[::2]) & (block[starts[::2]] == tag)
    good &= lasts[1::2] - starts[1::2] < MAX_VARINT64_BYTES
    count = len(good) if good.all() else int(good.argmin())
    if not count:
        return 0, b""
    used = int(lasts[2 * count - 1]) + 1
    kept = np.ones(used, bool)
    kept[starts[: 2 * count : 2]] = False
    return used, block[:used][kept].tobytes()


def _strip_fixed(block: npt.NDArray[np.uint8], tag: int) -> tuple[int, bytes]:
    """Return how many bytes are fields of a tag of one byte and 4 or 8 bytes, and the latter."""
    width = 1 + _FIXED_SIZES[tag & 7]
    rows = block[: len(block) // width * width].reshape(-1, width)
    good = rows[:, 0] == tag
    count = len(good) if good.all() else int(good.argmin())
    return count * width, rows[:count, 1:].tobytes()


def _check_packed(piece: memoryview, scalar_wire: int) -> None:
    """Check that a run of packed values ends at the end of a value."""
    size = _FIXED_SIZES.get(scalar_wire)
    if size is None:
        if len(piece) and piece[-1] >= 0x80:
            raise MalformedError("Expected packed varints, found the last one cut off")
    elif len(piece) % size:
        raise MalformedError(f"Expected packed values of {size} bytes, found {len(piece)} bytes")


def decode_scalars(
    raw: Buffer, data_type: int, dtype: np.dtype[Any]
) -> tuple[npt.NDArray[Any], bool]:
    """Decode packed values; return them, and False if half of a complex number is left."""
    if TYPED_FIELDS[data_type][1] == VARINT:
        return _decode_packed_varints(raw, data_type, dtype), True
    count, rest = divmod(len(raw), dtype.itemsize)
    values = np.frombuffer(raw, np.uint8, count * dtype.itemsize)
    if sys.byteorder == "big" or data_type in SUB_BYTE_MASKS:
        values = values.copy()
        finish_stored(values.view(dtype), data_type)
    return values.view(dtype), rest == 0


def scalars_size(raw: Buffer, data_type: int, dtype: np.dtype[Any]) -> int:
    """Return what the elements of a packed run take, in bytes."""
    if TYPED_FIELDS[data_type][1] == VARINT:
        return _count_varints(np.frombuffer(raw, np.uint8)) * dtype.itemsize
    return len(raw)


def _count_varints(data: npt.NDArray[np.uint8]) -> int:
    starts = range(0, len(data), _VARINT_BLOCK)
    return sum(int(np.count_nonzero(data[s : s + _VARINT_BLOCK] < 0x80)) for s in starts)


def _decode_packed_varints(raw: Buffer, data_type: int, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Decode packed varints in blocks, so that not all 64-bit values are in memory at once."""
    data = np.frombuffer(raw, np.uint8)
    elements = np.empty(_count_varints(data), dtype)
    narrow = _narrowing(data_type, dtype)
    position = done = 0
    while position < len(data):
        block = data[position : position + _VARINT_BLOCK]
        count = int(np.count_nonzero(block < 0x80))
        try:
            values, size = decode_varints(block, count)
        except ValueError as error:
            raise MalformedError(f"Expected packed varints, found a bad one: {error}") from error
        if not count:
            raise MalformedError("Expected packed varints, found one longer than 10 bytes")
        elements[done : done + count] = narrow(values)
        done += count
        position += size
    return elements


def _narrowing(
    data_type: int, dtype: np.dtype[Any]
) -> Callable[[npt.NDArray[np.uint64]], npt.NDArray[Any]]:
    """Return what turns the 64 bits of varints into elements: mostly it drops the high bits."""
    if data_type == DataType.DT_BOOL:
        return lambda values: values != 0
    if data_type in (DataType.DT_HALF, DataType.DT_BFLOAT16):
        return lambda values: values.astype(np.uint16).view(dtype)
    if data_type in SUB_BYTE_MASKS:
        mask = np.uint64(SUB_BYTE_MASKS[data_type])
        return lambda values: (values & mask).astype(np.uint8).view(dtype)
    return lambda values: values.astype(dtype)


def collect_strings(data: memoryview, most: int, budget: Budget) -> list[bytes]:
    """Collect the first so many occurrences of `string_val`."""
    strings, position = collect_plain_strings(data, most, budget)
    for pieces in _iter_listed(data[position:], STRING_VAL):
        wanted = pieces[: most - len(strings)]
        if any(wanted):
            sizes = [size for size in map(len, wanted) if size > 1]
            budget.take(_STRING_SIZE * len(sizes) + sum(sizes))
        strings += map(bytes, wanted)
    return strings


def collect_plain_strings(data: memoryview, most: int, budget: Budget) -> tuple[list[bytes], int]:
    """Collect the strings that a message begins with.

    Returns:
        The first so many occurrences of `string_val`, and where the field after them begins.
    """
    strings: list[bytes] = []
    raw = bytes(data) if data[:1] == bytes([_STRING_TAG]) else b""
    position = 0
    for first, position in islice(_plain_strings(raw), most):
        strings.append(raw[first:position])
        if not len(strings) % _STRING_BLOCK:
            budget.take(_sizes_of(strings[-_STRING_BLOCK:]))
    budget.take(_sizes_of(strings[len(strings) // _STRING_BLOCK * _STRING_BLOCK :]))
    return strings, position


def count_strings(data: memoryview) -> tuple[int, int]:
    """Return how many strings a message begins with, and where the field after them begins."""
    count = position = 0
    raw = bytes(data) if data[:1] == bytes([_STRING_TAG]) else b""
    for _, end in _plain_strings(raw):
        count, position = count + 1, end
    return count, position


def end_of_strings(data: Buffer, position: int) -> int:
    """Return where the strings that a message has from a place on end, without counting them."""
    raw = bytes(data)
    while True:
        found = _short_strings().match(raw, position)
        if found is not None:
            position = found.end()
            continue
        # A long one, or what is no string.
        _, end = next(_plain_strings(raw, position), (0, position))
        if end == position:
            return position
        position = end


@cache
def _short_strings() -> re.Pattern[bytes]:
    """Return the pattern of some strings of few bytes, of which a message may have millions."""
    forms = (rb"\x%02x.{%d}" % (size, size) for size in range(_SHORT_STRING))
    each = rb"\x%02x(?:%b)" % (_STRING_TAG, b"|".join(forms))
    return re.compile(rb"(?:%b){1,%d}" % (each, _STRING_BLOCK), re.DOTALL)


def _plain_strings(raw: bytes, position: int = 0) -> Iterator[tuple[int, int]]:
    """Iterate over where each string that a message has from a place on starts and ends."""
    end = len(raw)
    while position + 1 < end and raw[position] == _STRING_TAG:
        first = position + 2
        size = raw[position + 1]
        if size >= _LONG:
            size, first = _long_size(raw, position + 1)
        if first + size > end:
            return
        position = first + size
        yield first, position


def _long_size(raw: bytes, position: int) -> tuple[int, int]:
    """Return a length of more than one byte, and where it ends; one too large if it is none."""
    try:
        return read_varint(raw, position, len(raw))
    except MalformedError:
        return len(raw), position


def _sizes_of(strings: list[bytes]) -> int:
    """Return what strings take; those of one byte or none are no objects of their own."""
    return sum(_STRING_SIZE + size for size in map(len, strings) if size > 1)


def collect_pieces(data: memoryview, number: int, most: int, budget: Budget) -> list[memoryview]:
    """Collect the first so many occurrences of a field."""
    found: list[memoryview] = []
    for pieces in _iter_listed(data, number):
        wanted = pieces[: most - len(found)]
        budget.take(_PIECE_COUNTS * len(wanted))
        found += map(memoryview, wanted)
    return found


def _iter_listed(data: memoryview, number: int) -> Iterator[list[bytes] | list[memoryview]]:
    """Iterate over the occurrences of a field of `LISTED_FIELDS`, in lists: many short as one."""
    position, end = 0, len(data)
    run, one, empty = _short_fields(number << 3 | BYTES)
    alike = 0
    while position < end:
        for field, wire, first, last in iter_fields(data, position):
            position = last
            if field != number or wire != BYTES:
                alike = 0
                continue
            yield [data[first:last]]
            alike += 1
            if alike == _ALIKE:
                alike -= 1  # One that is longer does not end the run.
                while found := empty.match(data, position) or run.match(data, position):
                    start, position = position, found.end()
                    if found.re is empty:
                        yield [b""] * ((position - start) // _HEAD)
                    else:
                        yield [token[_HEAD:] for token in one.findall(data, start, position)]
                if position > last:
                    break
        else:
            return


@cache
def _short_fields(tag: int) -> tuple[re.Pattern[bytes], re.Pattern[bytes], re.Pattern[bytes]]:
    """Return what matches many fields of a tag and less than 16 bytes, one, and many empty ones."""
    contents = (re.escape(bytes([size])) + b"." * size for size in range(_SHORT))
    begin = re.escape(bytes([tag]))
    one = begin + b"(?:" + b"|".join(contents) + b")"
    forms = (b"(?:%b){1,%d}" % (one, _TOGETHER), one, b"(?:%b\0){%d,%d}" % (begin, _ALIKE, _EMPTY))
    run, short, empty = (re.compile(b"(?s:%b)" % form) for form in forms)
    return run, short, empty


_Content = TypeVar("_Content", bytes, memoryview)


def split_content(content: _Content, count: int) -> list[_Content]:
    """Split `tensor_content` of strings: all lengths as varints, then all bytes, no checksum."""
    try:
        lengths, position = decode_varints(np.frombuffer(content, np.uint8), count)
    except ValueError as error:
        raise MalformedError(
            f"Expected tensor_content with the lengths of {count} strings: {error}"
        ) from error
    ends = list(accumulate(lengths.tolist(), initial=position))
    if ends[-1] != len(content):
        raise MalformedError(
            f"Expected {ends[-1]} bytes in tensor_content of {count} strings, found {len(content)}"
        )
    return [content[start:end] for start, end in pairwise(ends)]
