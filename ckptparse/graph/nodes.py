"""Nodes of a graph or of a function, indexed by name and decoded when asked for.

Opening walks the tags of the message and takes each node's name and op; the rest of a node stays as
bytes, so that a frozen graph costs little more than its file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from ckptparse.errors import MalformedError, located, name_not_found
from ckptparse.graph.attributes import (
    Attributes,
    collect_entry,
    decode_text,
    plain_content,
    plain_entry,
)
from ckptparse.graph.field_counts import NODE, count_fields
from ckptparse.limits import Limits
from ckptparse.proto.wire import (
    BYTES,
    Buffer,
    find_submessage,
    iter_fields,
    read_varint,
)

__all__ = ["Node", "NodeTable", "split_input"]

_NAME, _OP, _INPUT, _DEVICE, _ATTR = 1, 2, 3, 4, 5
_NAME_TAG, _OP_TAG = _NAME << 3 | BYTES, _OP << 3 | BYTES
_INPUT_TAG = _INPUT << 3 | BYTES
_ATTR_TAG = _ATTR << 3 | BYTES
_TENSOR = 8
_TENSOR_TAG = _TENSOR << 3 | BYTES
_PLAIN_HEAD = 4
"""Bytes of the shortest head: two tags and two lengths."""
_LONG = 0x80
"""From here on a length takes more than one byte."""


@dataclass(frozen=True, slots=True)
class Node:
    """One operation of a graph."""

    name: str
    op: str
    """The kind of operation, such as `MatMul`."""
    inputs: tuple[str, ...]
    """Tensors `node` or `node:1`, of which those that only order operations begin with `^`."""
    device: str
    attributes: Attributes
    """The attributes by name, each decoded when it is asked for."""
    function: str | None = None
    """The function of the library that the node is part of; None for the graph itself."""

    @property
    def path(self) -> str:
        """The name; of a function's node `function:FUNCTION/NAME`."""
        return f"function:{self.function}/{self.name}" if self.function else self.name

    @property
    def data_inputs(self) -> tuple[str, ...]:
        """The inputs that bring a value."""
        return tuple(name for name in self.inputs if not name.startswith("^"))

    def __repr__(self) -> str:
        return f"<Node {self.path!r} {self.op}>"


class _Entry(NamedTuple):
    op: str
    start: int
    end: int


class NodeTable(Mapping[str, Node]):
    """The nodes of one graph or function by name, in the order of the file."""

    __slots__ = ("_data", "_entries", "_limits", "_path", "function")

    def __init__(
        self,
        data: Buffer,
        spans: list[tuple[int, int]],
        *,
        function: str | None,
        limits: Limits,
        path: str | None,
    ) -> None:
        """Index the nodes.

        Raises:
            MalformedError: A node is no message, or two have one name.
        """
        self._data = data
        self._limits = limits
        self._path = path
        self.function = function
        self._entries = self._index(spans)

    def __getitem__(self, name: str) -> Node:
        entry = self._entries.get(name)
        if entry is None:
            where = f"function {self.function!r}" if self.function else "the graph"
            raise name_not_found(f"No node of that name in {where}", name, self, path=self._path)
        with located(path=self._path, offset=entry.start, tensor=name):
            return self._decode(name, entry)

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __repr__(self) -> str:
        return f"<{len(self)} nodes>"

    def op(self, name: str) -> str:
        """Return the op of a node, without decoding the node."""
        return self._entries[name].op

    def find_tensor(self, name: str, attribute: str) -> Buffer | None:
        """Return the serialized TensorProto of an attribute of a node, or None; decode no more.

        The same as `self[name].attributes.find_tensor(attribute)`.
        """
        entry = self._entries[name]
        with located(path=self._path, offset=entry.start, tensor=name):
            found = _plain_attribute(self._data, entry, attribute.encode())
        if found is None:
            return self[name].attributes.find_tensor(attribute)
        first, end = found
        start = plain_content(self._data, first, end, _TENSOR_TAG)
        if start is not None:
            return self._data[start:end]
        return find_submessage(self._data[first:end], _TENSOR)

    def data_inputs(self, name: str) -> list[str]:
        """Return the inputs of a node that bring a value, without decoding the rest of it."""
        entry, data = self._entries[name], self._data
        try:
            inputs = _plain_inputs(data, entry.start, entry.end)
        except MalformedError:
            inputs = None
        if inputs is None:
            return list(self[name].data_inputs)  # Or it says what is wrong.
        return [text for text in inputs if not text.startswith("^")]

    def count_fields(self, most: int) -> int:
        """Count the fields of all nodes, and those of their messages, up to so many."""
        left = most
        for entry in self._entries.values():
            left -= count_fields(self._data, entry.start, entry.end, kind=NODE, most=left)
        return most - left

    def offset(self, name: str) -> int:
        """Return where a node begins in the message: nodes of one table are in this order."""
        return self._entries[name].start

    def with_op(self, *ops: str) -> Iterator[str]:
        """Iterate over the names of the nodes that are one of these ops."""
        return (name for name, entry in self._entries.items() if entry.op in ops)

    def _index(self, spans: list[tuple[int, int]]) -> dict[str, _Entry]:
        entries: dict[str, _Entry] = {}
        data = self._data
        for start, end in spans:
            head = _plain_head(data, start, end)
            if head is None:
                with located(path=self._path, offset=start):
                    head = _decode_head(data, start, end)
            name, op = head
            if name in entries:
                message = f"Two nodes of the graph have the name {name!r}"
                raise MalformedError(message, path=self._path, offset=start)
            entries[name] = _Entry(op, start, end)
        return entries

    def _decode(self, name: str, entry: _Entry) -> Node:
        data, inputs, device = self._data, [], ""
        attributes: dict[str, Buffer] = {}
        for number, wire, start, end in iter_fields(data, entry.start, entry.end):
            if wire != BYTES:
                continue
            if number == _INPUT:
                inputs.append(decode_text(data[start:end]))
            elif number == _DEVICE:
                device = decode_text(data[start:end])
            elif number == _ATTR:
                collect_entry(attributes, data[start:end])
        return Node(
            name,
            entry.op,
            tuple(inputs),
            device,
            Attributes(attributes, name, self._limits),
            self.function,
        )


def _plain_attribute(data: Buffer, entry: _Entry, key: bytes) -> tuple[int, int] | None:
    """Find the value of an attribute, if all attributes are written as every writer does.

    That is a key of less than 128 bytes, then a value up to the end; None else, or without it.
    """
    found: tuple[int, int] | None = None
    position, last = entry.start, entry.end
    while position < last:
        tag = data[position]
        if tag >= _LONG or tag < _NAME_TAG or tag & 7 != BYTES:
            return None
        if position + 1 < last and (length := data[position + 1]) < _LONG:
            start = position + 2
        else:
            length, start = read_varint(data, position + 1, last)
        position = start + length
        if position > last:
            return None
        if tag != _ATTR_TAG:
            continue
        plain = plain_entry(data, start, position)
        if plain is None:
            return None
        middle, first = plain
        if data[start + 2 : middle] == key:
            found = first, position
    return found


def _plain_inputs(data: Buffer, position: int, end: int) -> list[str] | None:
    """Decode the inputs of a node whose fields are all written as every writer does; else None."""
    inputs: list[str] = []
    while position < end:
        tag = data[position]
        if tag >= _LONG or tag < _NAME_TAG or tag & 7 != BYTES:
            return None
        if position + 1 < end and (length := data[position + 1]) < _LONG:
            start = position + 2
        else:
            length, start = read_varint(data, position + 1, end)
        position = start + length
        if position > end:
            return None
        if tag == _INPUT_TAG:
            inputs.append(decode_text(data[start:position]))
        elif tag == _ATTR_TAG and plain_entry(data, start, position) is None:
            return None
    return inputs


def split_input(text: str) -> tuple[str, bool]:
    """Return the node that an input names, and whether it only orders operations.

    An input is `node`, `node:1` or, in a function, `node:output:0`; `^node` only orders.
    """
    if text.startswith("^"):
        return text[1:], True
    return text.partition(":")[0], False


def _plain_head(data: Buffer, start: int, end: int) -> tuple[str, str] | None:
    """Decode name and op of a node that begins with them, each of less than 128 bytes."""
    if end - start < _PLAIN_HEAD or data[start] != _NAME_TAG:
        return None
    middle = start + 2 + data[start + 1]
    if middle + 2 > end or data[middle] != _OP_TAG or data[start + 1] >= _LONG:
        return None
    last = middle + 2 + data[middle + 1]
    if last > end or data[middle + 1] >= _LONG:
        return None
    return decode_text(data[start + 2 : middle]), decode_text(data[middle + 2 : last])


def _decode_head(data: Buffer, start: int, end: int) -> tuple[str, str]:
    """Decode a node's name and op, which come first as a rule."""
    name: Buffer | None = None
    op: Buffer | None = None
    for number, wire, first, last in iter_fields(data, start, end):
        if wire == BYTES and number == _NAME:
            name = data[first:last]
        elif wire == BYTES and number == _OP:
            op = data[first:last]
        if name is not None and op is not None:
            break
    return decode_text(name or b""), decode_text(op or b"")
