"""Read the protobuf wire format without building messages (docs/format.md, section 9.2).

    message = field*      field = tag value      tag = varint of number << 3 | wire type

    wire type  0  varint
               1  8 bytes
               2  varint length, then that many bytes: strings, messages, packed values
               3  group: fields up to the tag of wire type 4 with the same number
               5  4 bytes

The rules are those of protobuf's compiled runtimes: a tag has at most 32 bits in five bytes; a
varint has at most ten bytes, and bits beyond the 64th are dropped; a group ends within the message
in which it began.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from ckptparse.errors import LimitError, MalformedError
from ckptparse.locks import has_lock

if TYPE_CHECKING:
    from google.protobuf.message import Message

__all__ = [
    "BYTES",
    "FIXED32",
    "FIXED64",
    "GROUP",
    "MAX_NESTING",
    "VARINT",
    "check_nesting",
    "find_last_content",
    "find_submessage",
    "for_threads",
    "has_few_fields",
    "iter_fields",
    "read_varint",
]

VARINT: Final = 0
FIXED64: Final = 1
BYTES: Final = 2
GROUP: Final = 3
END_GROUP: Final = 4
FIXED32: Final = 5

MAX_NESTING: Final = 100
"""Messages inside messages that protobuf's compiled runtimes accept at most."""

_MAX_TAG_BYTES: Final = 5
"""Bytes of a tag: 32 bits in groups of 7."""
_MAX_VARINT_BYTES: Final = 10
"""Bytes of a varint: 64 bits in groups of 7."""
_GROUP_TAGS: Final = 10_000
"""Fields in the groups of a message: no message of TensorFlow has any group."""
_LONG: Final = 0x80
"""From here on a varint has more than one byte."""
_FIXED_SIZES: Final = {FIXED64: 8, FIXED32: 4}

Buffer: TypeAlias = "bytes | bytearray | memoryview"
_Fields: TypeAlias = "dict[int, _Fields]"
_FIELDS: dict[str, _Fields] = {}


def read_varint(data: Buffer, position: int, end: int) -> tuple[int, int]:
    """Read the varint at a position of `data[:end]`; return its low 64 bits, and where it ends.

    Raises:
        MalformedError: It is cut off, or longer than ten bytes.
    """
    value = shift = 0
    for index in range(position, min(end, position + _MAX_VARINT_BYTES)):
        byte = data[index]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, index + 1
        shift += 7
    cut = end - position < _MAX_VARINT_BYTES
    raise MalformedError(
        f"Expected a varint at byte {position}, found one that "
        + ("is cut off" if cut else f"is longer than {_MAX_VARINT_BYTES} bytes")
    )


def find_last_content(data: Buffer, position: int, end: int) -> int | None:
    """Return where the content begins whose length is at a position, if it goes up to the end."""
    length, first = data[position], position + 1
    if length >= 0x80:
        try:
            length, first = read_varint(data, position, end)
        except MalformedError:
            return None
    return first if first + length == end else None


def iter_fields(
    data: Buffer, start: int = 0, end: int | None = None
) -> Iterator[tuple[int, int, int, int]]:
    """Iterate over the fields of the message in `data[start:end]`, without those of messages in it.

    Gives (field number, wire type, start of the value, end of the value). The value is the bytes of
    the varint; the 4 or 8 bytes; the content without its length; or the bytes between a group's two
    tags. A known field with another wire type than its own is an unknown field to protobuf, so the
    caller compares the wire type too.

    Raises:
        MalformedError: The bytes are not a message; the fields before were given already.
        LimitError: Groups are nested deeper than protobuf accepts, or have 10,000 fields together.
    """
    position = start
    end = len(data) if end is None else end
    left = _GROUP_TAGS
    while position < end:
        tag = data[position]
        if 0x08 <= tag < _LONG:
            position += 1
        else:
            tag, position = _read_tag(data, position, end)
        wire = tag & 7
        if wire == BYTES:
            if position < end and (length := data[position]) < _LONG:
                position += 1
            else:
                length, position = read_varint(data, position, end)
            last = stop = position + length
            if stop > end:
                raise _cut_off(position, length, end)
        elif wire == VARINT and position < end and data[position] < _LONG:
            last = stop = position + 1
        else:
            last, stop, left = _other_end(data, position, end, tag, left)
        yield tag >> 3, wire, position, last
        position = stop


def for_threads(data: Buffer) -> Buffer:
    """Return the bytes as something of which several threads may take slices.

    That is a view, whose slices are no copies. Views count their slices, and without the
    interpreter's lock CPython 3.13 and 3.14 do not guard that count: of two threads that take
    slices of one view, one may find it released. There it is bytes, whose slices are copies.
    """
    if has_lock():
        return memoryview(data).toreadonly()
    return data if isinstance(data, bytes) else bytes(data)


def find_submessage(data: Buffer, *numbers: int) -> Buffer | None:
    """Return the bytes of the message at a path of field numbers; None if it is absent.

    If a field occurs more than once, protobuf merges the occurrences, and their bytes joined mean
    the same. A single occurrence is not copied: the result is a view.
    """
    found = for_threads(data)
    for number in numbers:
        pieces = [
            found[first:last]
            for field, wire, first, last in iter_fields(found)
            if field == number and wire == BYTES
        ]
        if not pieces:
            return None
        found = pieces[0] if len(pieces) == 1 else b"".join(pieces)
    return found


def check_nesting(data: Buffer, message_type: type[Message], *, allowed: int) -> None:
    """Check that a serialized message has at most `allowed` levels of messages inside it.

    Submessages, map entries and groups are levels, also unknown groups. The content of other
    unknown fields is not checked. It does not use Python's stack, and skips strings and packed
    values by their length.

    Raises:
        LimitError: There is a level more.
        MalformedError: The bytes are not a message.
    """
    position = 0
    levels = [(_message_fields(message_type), len(data))]
    while levels:
        fields, end = levels.pop()
        while position < end:
            tag = data[position]
            if 0x08 <= tag < 0x80:
                position += 1
            else:
                tag, position = _read_tag(data, position, end)
            if tag & 7 != BYTES:
                depth = len(levels)
                _, position, _ = _other_end(data, position, end, tag, depth=depth, allowed=allowed)
                continue
            if position < end and (length := data[position]) < 0x80:
                position += 1
            else:
                length, position = read_varint(data, position, end)
            stop = position + length
            if stop > end:
                raise _cut_off(position, length, end)
            inner = fields.get(tag)
            if inner is None:
                position = stop
                continue
            levels.append((fields, end))
            _check_depth(len(levels), allowed)
            fields, end = inner, stop


def has_few_fields(data: Buffer, message_type: type[Message], most: int) -> bool:
    """Tell whether a serialized message has at most so many fields, those of its messages too.

    A group counts as two, and what is in it as what it is. After `most` nothing is looked at, and
    what is no message ends where it breaks off.
    """
    position = 0
    levels = [(_message_fields(message_type), len(data))]
    while levels:
        fields, end = levels.pop()
        while position < end:
            if most <= 0:
                return False
            most -= 1
            try:
                tag, first = _read_tag(data, position, end)
                if GROUP <= tag & 7 <= END_GROUP:
                    position = first
                    continue
                first, position = _value_after(data, first, end, tag & 7)
            except MalformedError:
                return True
            if tag in fields:
                levels.append((fields, end))
                fields, end, position = fields[tag], position, first
    return True


def _value_after(data: Buffer, position: int, end: int, wire: int) -> tuple[int, int]:
    """Return where the value of a field starts and ends, whose tag ends at `position`."""
    if wire in _FIXED_SIZES:
        return position, _skip_scalar(data, position, end, wire)
    # Nearly every number and length has one byte.
    number, first = data[position] if position < end else _LONG, position + 1
    if number >= _LONG:
        number, first = read_varint(data, position, end)
    return (position, first) if wire == VARINT else (first, _advance(first, number, end))


def _other_end(
    data: Buffer,
    position: int,
    end: int,
    tag: int,
    left: int = _GROUP_TAGS,
    *,
    depth: int = 0,
    allowed: int = MAX_NESTING,
) -> tuple[int, int, int]:
    """Return where the value of a field without a length ends, and where the next field starts.

    The third number is how many fields are left that groups may have.
    """
    if tag & 7 == GROUP:
        groups = [tag >> 3]
        return _find_group_end(data, position, end, groups, left, depth=depth, allowed=allowed)
    stop = _skip_scalar(data, position, end, tag & 7)
    return stop, stop, left


def _message_fields(message_type: type[Message]) -> _Fields:
    """Return the tags of a message that begin submessages, with the tags of those, and so on."""
    name = message_type.DESCRIPTOR.full_name
    if name not in _FIELDS:
        found: dict[str, _Fields] = {}
        _collect_fields(message_type.DESCRIPTOR, found)
        _FIELDS.update(found)  # All at once and complete: another thread may be reading.
    return _FIELDS[name]


def _collect_fields(descriptor: Any, found: dict[str, _Fields]) -> _Fields:
    known = found.get(descriptor.full_name)
    if known is not None:
        return known
    fields = found[descriptor.full_name] = {}
    for field in descriptor.fields:
        if field.message_type is not None:
            fields[field.number << 3 | BYTES] = _collect_fields(field.message_type, found)
    return fields


def _read_tag(data: Buffer, position: int, end: int) -> tuple[int, int]:
    tag = data[position]
    if 0x08 <= tag < _LONG:
        return tag, position + 1
    if tag >= _LONG and position + 1 < end and 0 < (high := data[position + 1]) < _LONG:
        return tag + ((high - 1) << 7), position + 2
    tag, after = read_varint(data, position, end)
    if tag >> 32 or tag < 0x08 or after - position > _MAX_TAG_BYTES:
        raise MalformedError(f"Expected a field's tag at byte {position}, found {tag:#x}")
    return tag, after


def _skip_scalar(data: Buffer, position: int, end: int, wire: int) -> int:
    if wire == VARINT:
        return read_varint(data, position, end)[1]
    size = _FIXED_SIZES.get(wire)
    if size is None:
        raise MalformedError(f"Expected a field before byte {position}, found wire type {wire}")
    return _advance(position, size, end)


def _advance(position: int, length: int, end: int) -> int:
    if length > end - position:
        raise _cut_off(position, length, end)
    return position + length


def _cut_off(position: int, length: int, end: int) -> MalformedError:
    return MalformedError(
        f"Expected a field of {length} bytes at byte {position}, found {end - position}"
    )


def _find_group_end(
    data: Buffer,
    position: int,
    end: int,
    groups: list[int],
    left: int,
    *,
    depth: int,
    allowed: int,
) -> tuple[int, int, int]:
    """Return where the content of a group at `depth` levels ends, and where its end tag ends.

    The first of `groups` is its number. The third number is as that of `_other_end`.
    """
    while position < end:
        _check_depth(depth + len(groups), allowed)
        left -= 1
        if left <= 0:
            raise LimitError(
                f"Expected less than {_GROUP_TAGS} fields in groups, found more", limit="nesting"
            )
        before = position
        tag, position = _read_tag(data, position, end)
        wire = tag & 7
        if wire == GROUP:
            groups.append(tag >> 3)
        elif wire == END_GROUP:
            _check_group(groups.pop(), tag >> 3, position)
            if not groups:
                return before, position, left
        elif wire == BYTES:
            length, position = read_varint(data, position, end)
            position = _advance(position, length, end)
        else:
            position = _skip_scalar(data, position, end, wire)
    raise MalformedError(f"Expected the end of group {groups[-1]} at byte {end}, found none")


def _check_group(group: int, ended: int, position: int) -> None:
    if ended != group:
        raise MalformedError(
            f"Expected the end of group {group} before byte {position}, found that of {ended}"
        )


def _check_depth(depth: int, allowed: int) -> None:
    if depth > allowed:
        raise LimitError(
            f"Expected messages nested at most {allowed} deep, found more", limit="nesting"
        )
