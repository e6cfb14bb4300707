"""Fields of a protobuf message, with their bytes (docs/format.md, section 9.2)."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
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

__all__ = ["GROUP", "annotate_message"]

GROUP = "(group)"
"""The end of what a field is called that is a group, which no message has."""
_WIRE_NAMES = {VARINT: "(varint)", FIXED32: "(4 bytes)", FIXED64: "(8 bytes)", BYTES: "(bytes)"}
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
    data: bytes,
    descriptor: MessageDescriptor | None,
    *,
    base: int,
    depth: int,
    wanted: int,
    limits: Limits,
) -> Iterator[Annotation]:
    """Iterate over a message's fields, and the fields of its messages.

    Args:
        data: The serialized message.
        descriptor: Which message it is; None if that is not known.
        base: Offset of its first byte.
        depth: Of its fields.
        wanted: The deepest level that is wanted: what lies deeper is not looked at.
        limits: Bounds on the nesting.
    """
    if depth <= wanted:
        walker = _Walker(data, base, wanted, limits)
        yield from walker.walk(descriptor, 0, len(data), depth, depth + limits.nesting)


class _Walker:
    """Walks one serialized message."""

    def __init__(self, data: bytes, base: int, wanted: int, limits: Limits) -> None:
        self.data = data
        self.base = base
        self.wanted = wanted
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
        data, base, position = self.data, self.base, start
        fields = _known_fields(descriptor)
        try:
            for number, wire, first, last in iter_fields(data, start, end):
                field = fields.get(number << 3 | wire)
                here, size = base + position, last - position
                if field is None:
                    what = f"field {number} {_WIRE_NAMES.get(wire, GROUP)}"
                    yield Annotation(here, size, depth, what, shorten(data[first:last]))
                elif field.message is None:
                    value = field.describe(data[first:last])
                    yield Annotation(here, size, depth, field.what, value)
                else:
                    yield Annotation(here, size, depth, field.what)
                    if depth < self.wanted:
                        yield from self.walk(field.message, first, last, depth + 1, deepest)
                position = last
        except CheckpointError as error:
            if isinstance(error, LimitError):
                raise
            rest = Annotation(
                self.base + position, end - position, depth, "bytes", error.message, broken=True
            )
            yield rest


@dataclass(frozen=True, slots=True)
class _Field:
    """A field of a message, as it is stored by one wire type."""

    what: str
    describe: Callable[[bytes], str]
    message: MessageDescriptor | None = None


@cache
def _known_fields(descriptor: MessageDescriptor | None) -> dict[int, _Field]:
    """Return the fields of a message by their tags.

    A field whose wire type is not its own is none of them, but that of packed values.
    """
    found: dict[int, _Field] = {}
    for field in descriptor.fields if descriptor is not None else ():
        tag = field.number << 3
        if field.message_type is not None:
            what = f"{field.name}: {field.message_type.name}"
            found[tag | BYTES] = _Field(what, shorten, field.message_type)
        elif field.type in _TEXTS:
            found[tag | BYTES] = _Field(field.name, shorten)
        else:
            found[tag | _wire_type(field)] = _Field(field.name, _describer(field))
            found[tag | BYTES] = _Field(field.name, partial(_describe_packed, field))
    return found


def _wire_type(field: Any) -> int:
    if field.type in _FIXED:
        return FIXED64 if struct.calcsize(_FIXED[field.type]) == 8 else FIXED32
    return VARINT


def _describe_packed(field: Any, content: bytes) -> str:
    """Write the first values of a packed field, and how many there are."""
    count = _count_packed(field, content)
    more = f" … {count:,} values" if count > _FEW else ""
    return " ".join(islice(_iter_packed(field, content), _FEW)) + more


def _count_packed(field: Any, content: bytes) -> int:
    """Count the values of a packed field; raises as `read_varint` does."""
    form = _FIXED.get(field.type)
    if form is not None:
        return len(content) // struct.calcsize(form)
    wrong = _LONG_VARINT.search(content)
    start = wrong.start() if wrong is not None else len(content.rstrip(_GOES_ON))
    if start < len(content):
        read_varint(content, start, len(content))  # It raises.
    # Only the last byte of a varint is below 0x80.
    return len(content.translate(None, _GOES_ON))


def _iter_packed(field: Any, content: bytes) -> Iterator[str]:
    form = _FIXED.get(field.type)
    if form is not None:
        whole = len(content) - len(content) % struct.calcsize(form)
        for (value,) in struct.iter_unpack(form, content[:whole]):
            yield f"{value!r}"
        return
    describe = _describer(field)
    position = 0
    while position < len(content):
        _, end = read_varint(content, position, len(content))
        yield describe(content[position:end])
        position = end


def _describer(field: Any) -> Callable[[bytes], str]:
    """Return what writes one value of a field."""
    form = _FIXED.get(field.type)
    if form is not None:
        describe = _describe_crc if field.name == "crc32c" else _describe_fixed
        return partial(describe, struct.Struct(form))
    if field.type == FieldDescriptor.TYPE_BOOL:
        return _describe_bool
    if field.enum_type is not None:
        return partial(_describe_enum, field.enum_type.values_by_number)
    unsigned = (FieldDescriptor.TYPE_UINT32, FieldDescriptor.TYPE_UINT64)
    return _describe_unsigned if field.type in unsigned else _describe_signed


def _describe_fixed(form: struct.Struct, content: bytes) -> str:
    return repr(form.unpack(content)[0])


def _describe_crc(form: struct.Struct, content: bytes) -> str:
    (value,) = form.unpack(content)
    return f"{value:#010x} (unmasked {unmask_crc(value):#010x})"


def _describe_bool(content: bytes) -> str:
    return "true" if _number(content) else "false"


def _describe_enum(known: Any, content: bytes) -> str:
    number = _signed(content)
    value = known.get(number)
    return f"{number} {value.name}" if value is not None else str(number)


def _describe_unsigned(content: bytes) -> str:
    return str(_number(content))


def _describe_signed(content: bytes) -> str:
    return str(_signed(content))


def _signed(content: bytes) -> int:
    number = _number(content)
    return number - (1 << 64) if number >> 63 else number


def _number(content: bytes) -> int:
    """Return the varint that a value is; a byte is its own."""
    return content[0] if len(content) == 1 else read_varint(content, 0, len(content))[0]
