"""Attributes of nodes, decoded when asked for (docs/format.md, section 6.7 for their tensors).

    NodeDef    1 name   2 op   3 input*   4 device   5 attr*: {1 key, 2 AttrValue}
    AttrValue  one of   1 list   2 s   3 i   4 f   5 b   6 type   7 shape   8 tensor
                        9 placeholder   10 func: {1 name, 2 attr*}

A tensor stays on the wire until it is read: the weights of a frozen graph are such attributes, and
protobuf's Python objects would lose the payload of a NaN.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy.typing as npt

from ckptparse.dtypes import DataType
from ckptparse.errors import located
from ckptparse.limits import DEFAULT_LIMITS, Budget, Limits
from ckptparse.proto.attr_value_pb2 import AttrValue
from ckptparse.proto.parsing import parse_message
from ckptparse.proto.tensor_shape_pb2 import TensorShapeProto
from ckptparse.proto.wire import (
    BYTES,
    FIXED32,
    VARINT,
    Buffer,
    find_last_content,
    find_submessage,
    iter_fields,
)
from ckptparse.tensor import DEFAULT_OPTIONS, Kind, ReadOptions, Region, Tensor, kind_of
from ckptparse.tensor_proto import check_tensor_bytes, decode_tensor_bytes, decode_tensor_header
from ckptparse.tensor_protos import decode_part, decode_together, find_elements

__all__ = [
    "Attributes",
    "ConstantPayload",
    "FunctionCall",
    "Shape",
    "collect_entry",
    "data_type_or_number",
    "decode_text",
    "make_constant",
    "plain_content",
    "plain_entry",
    "shape_or_unknown",
]

Shape = tuple[int | None, ...] | None
"""Dimensions, None for an unknown one; None for a shape of unknown rank."""

_KEY, _VALUE = 1, 2
_LIST, _TENSOR, _FUNCTION = 1, 8, 10
_FUNCTION_ATTR = 2
_KEY_TAG, _VALUE_TAG = _KEY << 3 | BYTES, _VALUE << 3 | BYTES
_PLAIN_HEAD = 4
"""Bytes of the shortest entry: two tags and two lengths."""
_NUMBERS_A_NODE = 8
"""Elements of a list that count as one node of `Limits.nodes`; of messages each does."""
_WIRES = {
    **dict.fromkeys((_LIST, 2, 7, _TENSOR, 9, _FUNCTION), BYTES),
    **dict.fromkeys((3, 5, 6), VARINT),
    4: FIXED32,
}
"""The fields of an AttrValue, and how each is written."""
_BYTES_TAG, _INTEGER_TAG, _BOOL_TAG, _TYPE_TAG = 2 << 3 | BYTES, 3 << 3, 5 << 3, 6 << 3
_PLAIN_TAGS = frozenset({_BYTES_TAG, _INTEGER_TAG, _BOOL_TAG, _TYPE_TAG})
"""Of values that are no functions, hold none, and cannot be wrong."""
_SHAPE_TAG = bytes([7 << 3 | BYTES])
_SHORT_VALUE = 64
"""Bytes of a shape that is remembered: about ten dimensions."""
_SHORT_NUMBER = 2
"""Bytes of a tag and a number of less than 128."""
_LONG = 0x80
"""From here on a varint takes more than one byte."""


@dataclass(frozen=True, slots=True)
class FunctionCall:
    """The value of an attribute that names a function of the library."""

    name: str
    attributes: Attributes


class Attributes(Mapping[str, Any]):
    """The attributes of one node, by name.

    A value is `bytes`, `int`, `float`, `bool`, a `DataType` (a plain number if it is none), a
    `Shape`, a lazy `Tensor`, a `FunctionCall`, the name of a placeholder, or a list of one of them.
    """

    __slots__ = ("_entries", "_limits", "_owner")

    def __init__(self, entries: Mapping[str, Buffer], owner: str, limits: Limits) -> None:
        self._entries = entries
        self._owner = owner
        self._limits = limits

    def __getitem__(self, name: str) -> Any:
        data = self._entries[name]
        if len(data) and data[0] in _PLAIN_TAGS and len(data) <= self._limits.message_bytes:
            first = _only_field(data)
            if first is not None:
                return _decode_plain(data, first)
        with located(tensor=self._owner):
            return _decode_value(data, f"{self._owner}.{name}", self._limits)

    def find_bytes(self, name: str) -> bytes:
        """Return an attribute that is a string; an empty one if there is none."""
        value = self.get(name)
        return value if isinstance(value, bytes) else b""

    def find_type(self, name: str) -> int:
        """Return an attribute that is a DataType; 0 if there is none."""
        value = self.get(name)
        return value if isinstance(value, int) and not isinstance(value, bool) else 0

    def find_types(self, *names: str) -> list[int]:
        """Return the first of some attributes that is a list of DataTypes, or one DataType."""
        for name in names:
            value = self.get(name)
            types = [
                item
                for item in (value if isinstance(value, list) else [value])
                if isinstance(item, int)
            ]
            if types:
                return types
        return []

    def find_shape(self, name: str) -> Shape:
        """Return an attribute that is a shape; None if there is none."""
        value = self.get(name)
        return value if isinstance(value, tuple) else None

    def find_tensor(self, name: str) -> Buffer | None:
        """Return the serialized TensorProto of an attribute; None if it has no tensor."""
        entry = self._entries.get(name)
        return None if entry is None else find_submessage(entry, _TENSOR)

    def serialized(self) -> Iterable[Buffer]:
        """Return the values as they are stored."""
        return self._entries.values()

    def may_hold_functions(self, name: str) -> bool:
        """Tell whether an attribute may be a function, or a list, without decoding it."""
        data = self._entries[name]
        return not len(data) or data[0] not in _PLAIN_TAGS or _only_field(data) is None

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"<Attributes {', '.join(self._entries)}>"


def collect_entry(entries: dict[str, Buffer], data: Buffer) -> None:
    """Add one entry of a map of attributes; of two with one key the later counts.

    A value that an entry has in several parts is their merge, as of every message.
    """
    plain = plain_entry(data, 0, len(data))
    if plain is not None:
        middle, first = plain
        entries[decode_text(data[2:middle])] = data[first:]
        return
    key = b""
    parts: list[Buffer] = []
    for number, wire, start, end in iter_fields(data):
        if wire == BYTES and number == _KEY:
            key = bytes(data[start:end])
        elif wire == BYTES and number == _VALUE:
            parts.append(data[start:end])
    entries[decode_text(key)] = parts[0] if len(parts) == 1 else b"".join(parts)


def plain_entry(data: Buffer, start: int, end: int) -> tuple[int, int] | None:
    """Return where the key of an entry ends and its value begins, which goes up to the end.

    None if the entry is not as every writer makes it: a key of less than 128 bytes, then a value.
    """
    if end - start < _PLAIN_HEAD or data[start] != _KEY_TAG or data[start + 1] >= _LONG:
        return None
    middle = start + 2 + data[start + 1]
    first = plain_content(data, middle, end, _VALUE_TAG)
    return None if first is None else (middle, first)


def plain_content(data: Buffer, start: int, end: int, tag: int) -> int | None:
    """Return where the content of a field begins that has this tag, and goes up to the end."""
    if start + 2 > end or data[start] != tag:
        return None
    return find_last_content(data, start + 1, end)


def decode_text(data: Buffer) -> str:
    """Return the bytes of a string field as a name; what is not UTF-8 becomes surrogate escapes."""
    return str(data, "utf-8", "surrogateescape")


def shape_or_unknown(proto: TensorShapeProto) -> Shape:
    """Take over a shape of which dimensions, or the rank, may be unknown."""
    if proto.unknown_rank:
        return None
    return tuple(None if dim.size < 0 else dim.size for dim in proto.dim)


def make_constant(name: str, data: Buffer, limits: Limits, path: str | None) -> Tensor:
    """Make the lazy tensor of a serialized TensorProto.

    Raises:
        MalformedError: It says no dtype or shape that a tensor can have.
        LimitError: It has more dimensions than the limits allow.
    """
    with located(path=path, tensor=name):
        header = decode_tensor_header(data, limits=limits)
    payload = ConstantPayload(data, kind_of(header.data_type), limits, path)
    return Tensor(name, header.shape, header.data_type, payload)


class ConstantPayload:
    """A tensor inside of a message: read whole always."""

    __slots__ = ("data", "kind", "limits", "path")

    location = None
    crc32c = None

    def __init__(self, data: Buffer, kind: Kind, limits: Limits, path: str | None) -> None:
        self.kind = kind
        self.data = data
        self.limits = limits
        self.path = path

    def read(self, options: ReadOptions) -> npt.NDArray[Any]:
        """Read the whole; see `Payload`. It has no checksum."""
        return decode_tensor_bytes(
            self.data, limits=self.limits, budget=options.budget, path=self.path
        )

    @staticmethod
    def read_together(
        payloads: Sequence[ConstantPayload],
        shapes: Sequence[tuple[int, ...]],
        budget: Budget | None,
    ) -> list[npt.NDArray[Any] | None]:
        """Read those that are written plainly; see `read_payloads`."""
        messages = [one.data for one in payloads]
        budget = budget or Budget(payloads[0].limits, sum(map(len, messages)))
        return decode_together(messages, shapes, budget=budget)

    @property
    def is_read_whole(self) -> bool:
        """Whether a part takes as long to read as all, since its bytes are not its elements."""
        return find_elements(self.data, limits=self.limits) is None

    def check(self, budget: Budget | None = None) -> None:
        """Raise what reading it raises; elements that repeat are not written."""
        check_tensor_bytes(self.data, limits=self.limits, budget=budget)

    def read_region(self, region: Region) -> npt.NDArray[Any]:
        """Read a part, or the whole and pick the part; see `Payload`."""
        index = tuple(slice(wanted.start, wanted.stop, wanted.step) for wanted in region)
        found = decode_part(self.data, index, limits=self.limits)
        if found is not None:
            return found
        part: npt.NDArray[Any] = self.read(DEFAULT_OPTIONS)[index].copy()
        return part

    def __reduce__(self) -> tuple[Any, ...]:
        # A view into the graph's message cannot be pickled, and would bring all of it along.
        return ConstantPayload, (bytes(self.data), self.kind, self.limits, self.path)

    def verify(self, options: ReadOptions) -> None:
        """Do nothing: a graph has no checksums; see `Payload`."""


def _decode_value(data: Buffer, owner: str, limits: Limits) -> Any:
    number, value = _find_last(data)
    if number == _TENSOR:
        return make_constant(owner, value, limits, None)
    if number == _FUNCTION:
        return _decode_call(value, owner, limits)
    if len(data) <= min(_SHORT_VALUE, limits.nesting, limits.message_bytes):
        found = _short_shape(bytes(data)) if data[:1] == _SHAPE_TAG else None
        if found is not None:
            return found
    return _from_proto(parse_message(AttrValue, data, limits=limits, what="an attribute"), limits)


@lru_cache(maxsize=1024)
def _short_shape(data: bytes) -> Shape:
    """Decode a value of few bytes that may be a known shape: graphs have few different ones."""
    value = _from_proto(parse_message(AttrValue, data, what="an attribute"), DEFAULT_LIMITS)
    return value if isinstance(value, tuple) else None


def _find_last(data: Buffer) -> tuple[int, Buffer]:
    """Return the one field that is set, the last, and its bytes: the merge of its occurrences."""
    last = 0
    parts: list[Buffer] = []
    for number, wire, start, end in iter_fields(data):
        if _WIRES.get(number) != wire:
            # Unknown to every parser, and no value.
            continue
        if number != last:
            last, parts = number, []
        parts.append(data[start:end])
    return last, parts[0] if len(parts) == 1 else b"".join(parts)


def _only_field(data: Buffer) -> int | None:
    """Return where the content begins of the one field that a value is, or None.

    The field is bytes, or a number of less than 128.
    """
    if data[0] & 7 == BYTES:
        return find_last_content(data, 1, len(data)) if len(data) > 1 else None
    return 1 if len(data) == _SHORT_NUMBER and data[1] < _LONG else None


def _decode_plain(data: Buffer, first: int) -> bytes | int:
    """Decode a value of one field of `_PLAIN_TAGS`."""
    if data[0] == _BYTES_TAG:
        return bytes(data[first:])
    number = data[first]
    if data[0] == _TYPE_TAG:
        return data_type_or_number(number)
    return number != 0 if data[0] == _BOOL_TAG else number


def _decode_call(data: Buffer, owner: str, limits: Limits) -> FunctionCall:
    name = b""
    entries: dict[str, Buffer] = {}
    for found, (number, wire, start, end) in enumerate(iter_fields(data), 1):
        if found > limits.nodes:
            limits.check_nodes(found, len(data), "The number of attributes of a function")
        if wire == BYTES and number == _KEY:
            name = bytes(data[start:end])
        elif wire == BYTES and number == _FUNCTION_ATTR:
            collect_entry(entries, data[start:end])
    return FunctionCall(decode_text(name), Attributes(entries, owner, limits))


def _from_proto(proto: AttrValue, limits: Limits) -> Any:
    kind = proto.WhichOneof("value")
    if kind is None:
        return None
    value = getattr(proto, kind)
    if kind == "list":
        return _list_from_proto(value, limits)
    if kind == "type":
        return data_type_or_number(value)
    return shape_or_unknown(value) if kind == "shape" else value


def _list_from_proto(proto: AttrValue.ListValue, limits: Limits) -> list[Any]:
    _check_elements(proto, limits)
    if proto.tensor or proto.func:
        proto.DiscardUnknownFields()  # They would be walked.
    for field, values in proto.ListFields():
        if field.name == "type":
            return [data_type_or_number(value) for value in values]
        if field.name == "shape":
            return [shape_or_unknown(value) for value in values]
        if field.name == "tensor":
            return [make_constant("", value.SerializeToString(), limits, None) for value in values]
        if field.name == "func":
            return [_decode_call(value.SerializeToString(), "", limits) for value in values]
        return list(values)
    return []


def _check_elements(proto: AttrValue.ListValue, limits: Limits) -> None:
    """Make sure that a list is not too long; a message in it takes as long as several numbers."""
    for field, values in proto.ListFields():
        found = len(values)
        if found > limits.nodes:
            found //= 1 if field.message_type is not None else _NUMBERS_A_NODE
            what = f"The number of elements of an attribute, {_NUMBERS_A_NODE} numbers as one,"
            limits.check_nodes(found, proto.ByteSize(), what)


def data_type_or_number(value: int) -> int:
    """Return a `DataType`, or the plain number if it is none, such as a reference type."""
    try:
        return DataType(value)
    except ValueError:
        return value
