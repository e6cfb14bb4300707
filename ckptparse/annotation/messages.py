"""Fields of a protobuf message, with their bytes (docs/format.md, section 9.2)."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

from google.protobuf.descriptor import FieldDescriptor

from ckptparse.annotation.part import Annotation, shorten
from ckptparse.coding.checksum import unmask_crc
from ckptparse.errors import CheckpointError, LimitError
from ckptparse.limits import Limits
from ckptparse.proto.wire import BYTES, FIXED32, FIXED64, VARINT, iter_fields, read_varint

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor

    # The compiled runtimes have a class of their own for it, which their stubs tell apart.
    MessageDescriptor = Descriptor | Any

__all__ = ["annotate_message"]

_WIRE_NAMES = {VARINT: "varint", FIXED32: "4 bytes", FIXED64: "8 bytes", BYTES: "bytes"}
_FIXED = {
    FieldDescriptor.TYPE_DOUBLE: "<d",
    FieldDescriptor.TYPE_FLOAT: "<f",
    FieldDescriptor.TYPE_FIXED32: "<I",
    FieldDescriptor.TYPE_FIXED64: "<Q",
    FieldDescriptor.TYPE_SFIXED32: "<i",
    FieldDescriptor.TYPE_SFIXED64: "<q",
}
_TEXTS = (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES)
_GOES_ON = bytes(range(0x80, 0x100))
_LONG_VARINT = re.compile(rb"[\x80-\xff]{10}")
"""More than a varint may have before its last byte."""
_FEW = 6
"""Values of a packed field that are shown: they fit into a line."""


def annotate_message(
    data: bytes, descriptor: MessageDescriptor | None, *, base: int, depth: int, limits: Limits
) -> Iterator[Annotation]:
    """Iterate over a message's fields, and the fields of its messages.

    Args:
        data: The serialized message.
        descriptor: Which message it is; None if that is not known.
        base: Offset of its first byte.
        depth: Of its fields.
        limits: Bounds on the nesting.
    """
    walker = _Walker(data, base, limits)
    yield from walker.walk(descriptor, 0, len(data), depth, depth + limits.nesting)


class _Walker:
    """Walks one serialized message."""

    def __init__(self, data: bytes, base: int, limits: Limits) -> None:
        self.data = data
        self.base = base
        self.limits = limits

    def walk(
        self, descriptor: MessageDescriptor | None, start: int, end: int, depth: int, deepest: int
    ) -> Iterator[Annotation]:
        if depth > deepest:
            raise LimitError(
                f"Messages are nested deeper than Limits.nesting allows ({self.limits.nesting})",
                limit="nesting",
                offset=self.base + start,
            )
        position = start
        try:
            for number, wire, first, last in iter_fields(self.data, start, end):
                field = _known_field(descriptor, number, wire)
                size = last - position
                if field is not None and field.message_type is not None:
                    name = f"{field.name}: {field.message_type.name}"
                    yield self._part(position, size, depth, name)
                    yield from self.walk(field.message_type, first, last, depth + 1, deepest)
                else:
                    yield self._leaf(field, number, wire, (position, first, last), depth)
                position = last
        except CheckpointError as error:
            if isinstance(error, LimitError):
                raise
            rest = Annotation(
                self.base + position, end - position, depth, "bytes", error.message, broken=True
            )
            yield rest

    def _part(self, start: int, size: int, depth: int, what: str, value: str = "") -> Annotation:
        return Annotation(self.base + start, size, depth, what, value)

    def _leaf(
        self, field: Any, number: int, wire: int, place: tuple[int, int, int], depth: int
    ) -> Annotation:
        position, first, last = place
        content = self.data[first:last]
        if field is None:
            what = f"field {number} ({_WIRE_NAMES.get(wire, 'group')})"
            return self._part(position, last - position, depth, what, shorten(content))
        value = _describe(field, wire, content)
        return self._part(position, last - position, depth, field.name, value)


def _known_field(descriptor: MessageDescriptor | None, number: int, wire: int) -> Any:
    """Find a field by its number, unless its wire type is not the field's own."""
    field = descriptor.fields_by_number.get(number) if descriptor is not None else None
    if field is None or wire == _wire_type(field):
        return field
    packed = wire == BYTES and field.type not in _TEXTS and field.message_type is None
    return field if packed else None


def _wire_type(field: Any) -> int:
    if field.message_type is not None or field.type in _TEXTS:
        return BYTES
    if field.type in _FIXED:
        return FIXED64 if struct.calcsize(_FIXED[field.type]) == 8 else FIXED32
    return VARINT


def _describe(field: Any, wire: int, content: bytes) -> str:
    """Write a field's value."""
    if field.type in _TEXTS:
        return shorten(content)
    if wire != BYTES:
        return _describe_one(field, content)
    count = _count_packed(field, content)
    more = f" … {count:,} values" if count > _FEW else ""
    return " ".join(islice(_iter_packed(field, content), _FEW)) + more


def _count_packed(field: Any, content: bytes) -> int:
    """Count the values of a packed field; raises as `read_varint` does."""
    form = _FIXED.get(field.type)
    if form is not None:
        return len(content) // struct.calcsize(form)
    if _LONG_VARINT.search(content) or content[-1:] >= b"\x80":
        return sum(1 for _ in _iter_packed(field, content))
    # Only the last byte of a varint is below 0x80.
    return len(content.translate(None, _GOES_ON))


def _iter_packed(field: Any, content: bytes) -> Iterator[str]:
    form = _FIXED.get(field.type)
    if form is not None:
        whole = len(content) - len(content) % struct.calcsize(form)
        for (value,) in struct.iter_unpack(form, content[:whole]):
            yield f"{value!r}"
        return
    position = 0
    while position < len(content):
        _, end = read_varint(content, position, len(content))
        yield _describe_one(field, content[position:end])
        position = end


def _describe_one(field: Any, content: bytes) -> str:
    form = _FIXED.get(field.type)
    if form is not None:
        (value,) = struct.unpack(form, content)
        if field.name == "crc32c":
            return f"{value:#010x} (unmasked {unmask_crc(value):#010x})"
        return f"{value!r}"
    number, _ = read_varint(content, 0, len(content))
    if field.type == FieldDescriptor.TYPE_BOOL:
        return "true" if number else "false"
    signed = number - (1 << 64) if number >> 63 else number
    if field.enum_type is not None:
        known = field.enum_type.values_by_number.get(signed)
        return f"{signed} {known.name}" if known is not None else str(signed)
    unsigned = (FieldDescriptor.TYPE_UINT32, FieldDescriptor.TYPE_UINT64)
    return str(number if field.type in unsigned else signed)
