"""Fields of a protobuf message, with their bytes (docs/format.md, section 9.2)."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

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
_PARTS_A_NODE = 6
"""Parts that count as one node of `Limits.nodes`."""
_MOST_KNOWN = 1024
"""Fields of one message that are remembered, since those that nobody knows have any number; and
values of each."""
_SHORT = 16
"""Bytes of such a value."""


def annotate_message(
    data: bytes, descriptor: MessageDescriptor | None, *, base: int, depth: int, limits: Limits
) -> Iterator[Annotation]:
    """Iterate over a message's fields, and the fields of its messages.

    Args:
        data: The serialized message.
        descriptor: Which message it is; None if that is not known.
        base: Offset of its first byte.
        depth: Of its fields.
        limits: Bounds on the nesting, and on the parts: `nodes`, and one node for each 128 bytes,
            of 6 parts each. What follows is one part that says so.
    """
    walker = _Walker(data, base, limits)
    yield from walker.walk(descriptor, depth, depth + limits.nesting)


class _Known(NamedTuple):
    """What is known of a field: of its tag, or of one that nobody knows."""

    name: str
    field: Any
    """None if it is not known."""
    inner: MessageDescriptor | None
    """Which message it is, if it is one."""
    values: dict[bytes, str]
    """What short contents say: most occur often."""


_Table = dict[tuple[int, int], _Known]


@dataclass(slots=True)
class _Frame:
    """A message that is being walked."""

    descriptor: MessageDescriptor | None
    known: _Table
    fields: Iterator[tuple[int, int, int, int]]
    position: int
    """Where the next field begins."""
    end: int
    depth: int


class _Walker:
    """Walks one serialized message."""

    def __init__(self, data: bytes, base: int, limits: Limits) -> None:
        self.data = data
        self.base = base
        self.limits = limits
        self._tables: dict[MessageDescriptor | None, _Table] = {}

    def walk(
        self, descriptor: MessageDescriptor | None, depth: int, deepest: int
    ) -> Iterator[Annotation]:
        """Iterate over the fields, and over those of messages in it, each after its own."""
        frames = [self._open(descriptor, 0, len(self.data), depth, deepest)]
        left = _PARTS_A_NODE * self.limits.most_nodes(len(self.data))
        while frames:
            frame = frames[-1]
            try:
                for number, wire, first, last in frame.fields:
                    left -= 1
                    if left < 0:
                        yield from self._leave_out(frames)
                        return
                    known = frame.known.get((number, wire)) or _look_up(frame, number, wire)
                    if known.inner is None:
                        yield self._leaf(known, wire, frame, first, last)
                        frame.position = last
                        continue
                    start, frame.position = frame.position, last
                    yield Annotation(self.base + start, last - start, frame.depth, known.name)
                    frames.append(self._open(known.inner, first, last, frame.depth + 1, deepest))
                    break
                else:
                    frames.pop()
            except CheckpointError as error:
                if isinstance(error, LimitError):
                    raise
                frames.pop()
                yield self._rest(frame, error.message, broken=True)

    def _open(
        self, descriptor: MessageDescriptor | None, start: int, end: int, depth: int, deepest: int
    ) -> _Frame:
        if depth > deepest:
            raise LimitError(
                f"Messages are nested deeper than Limits.nesting allows ({self.limits.nesting})",
                limit="nesting",
                offset=self.base + start,
            )
        table = self._tables.setdefault(descriptor, {})
        return _Frame(descriptor, table, iter_fields(self.data, start, end), start, end, depth)

    def _leave_out(self, frames: list[_Frame]) -> Iterator[Annotation]:
        """Give what follows as one part of each message: there are too many parts."""
        what = f"not taken apart: Limits.nodes allows {self.limits.nodes:,}"
        while frames:
            frame = frames.pop()
            if frame.position < frame.end:
                yield self._rest(frame, what, broken=False)

    def _rest(self, frame: _Frame, value: str, *, broken: bool) -> Annotation:
        size = frame.end - frame.position
        return Annotation(
            self.base + frame.position, size, frame.depth, "bytes", value, broken=broken
        )

    def _leaf(self, known: _Known, wire: int, frame: _Frame, first: int, last: int) -> Annotation:
        content = self.data[first:last]
        value = known.values.get(content)
        if value is None:
            value = (
                shorten(content) if known.field is None else _describe(known.field, wire, content)
            )
            if len(content) <= _SHORT and len(known.values) < _MOST_KNOWN:
                known.values[content] = value
        place = frame.position
        return Annotation(self.base + place, last - place, frame.depth, known.name, value)


def _look_up(frame: _Frame, number: int, wire: int) -> _Known:
    """Say what a field is, and note it for the next of its kind."""
    field = _known_field(frame.descriptor, number, wire)
    if field is None:
        known = _Known(f"field {number} ({_WIRE_NAMES.get(wire, 'group')})", None, None, {})
    elif field.message_type is None:
        known = _Known(field.name, field, None, {})
    else:
        inner = field.message_type
        known = _Known(f"{field.name}: {inner.name}", field, inner, {})
    if len(frame.known) < _MOST_KNOWN:
        frame.known[number, wire] = known
    return known


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
