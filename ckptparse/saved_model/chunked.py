"""Read chunked messages: a message that was cut into records, and the plan to join them again.

A message that is too large for protobuf is stored as records of a Riegeli file. The last record is
the plan, a ChunkMetadata (docs/format.md, section 8.3):

    chunks      [0] MESSAGE, 812 bytes, position 64      what was not cut out
                [1] BYTES, 2 GiB, position 65            one tensor's content
    message     chunk_index 0
                chunked_fields
                    field_tag 2 #0 2 1 #7 5 "value" 8 4   meta_graphs[0].graph_def.node[7]
                    message   chunk_index 1                .attr["value"].tensor.tensor_content

Fields are merged in the order of their tags, so that an element comes before the fields in it. An
empty tag means the message itself. A message field gets its chunk and its own chunked fields. Any
other field is set: bytes and strings as they are, numbers from decimal text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from ckptparse.errors import LimitError, MalformedError, UnsupportedError, located
from ckptparse.files.storage import Source
from ckptparse.limits import DEFAULT_LIMITS, Limits, Objects
from ckptparse.proto.chunk_pb2 import (
    ChunkedField,
    ChunkedMessage,
    ChunkInfo,
    ChunkMetadata,
    FieldIndex,
)
from ckptparse.proto.parsing import parse_message
from ckptparse.saved_model.riegeli import RecordReader

__all__ = ["read_chunked_message"]

_M = TypeVar("_M", bound=Message)

# The type stubs have two kinds of descriptors, and older runtimes have other attributes.
_Field: TypeAlias = Any

_JOIN_VERSION = 0
"""The version of the rules for joining that this module follows."""
_MOST_AGAIN = 1 << 16
"""Bytes of chunks that may be merged again, beyond the size of the file: no writer does that."""
_TAGS_AN_OBJECT = 2
"""Parts of fields' tags that count as one object: each field and element is entered by itself."""
_MAX_RATIO = 16
"""A joined message may be so many times larger than its file: graphs compress well, and weights do
not. A larger one is refused as a decompression bomb."""

_INTEGER = re.compile(rb"-?[0-9]{1,20}")
_INTEGER_KINDS = (
    FieldDescriptor.CPPTYPE_INT32,
    FieldDescriptor.CPPTYPE_INT64,
    FieldDescriptor.CPPTYPE_UINT32,
    FieldDescriptor.CPPTYPE_UINT64,
)
_FLOAT_KINDS = (FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE)
_BOOLEANS = {b"true": True, b"false": False}


def read_chunked_message(
    message_type: type[_M],
    source: Source,
    *,
    limits: Limits = DEFAULT_LIMITS,
    verify: bool = True,
) -> _M:
    """Read a chunked message from its Riegeli file, and merge its chunks.

    Args:
        message_type: The type of the joined message.
        source: The file (`saved_model.cpb`).
        limits: Bounds. The merged chunks may sum to `limits.decompressed_bytes`, or to 16 times
            the file if that is more, and those that are merged again to its size. Field tags may
            lead `limits.nesting` messages deep, and each chunk may nest as deep again. A field
            counts as one of `limits.objects`, and as one more for each two parts of its tag.
        verify: Whether to check the hashes of the data (about 8 MB a second). Those of the headers
            are always checked.

    Raises:
        DataLossError: The container is damaged, or the plan does not fit its chunks or the type.
        LimitError: It asks for more than `limits` allow.
        UnsupportedError: A package is missing, or the file needs another version of joining.
    """
    with located(path=source.path):
        reader = RecordReader.from_source(source, limits=limits, verify=verify)
        plan = parse_message(
            ChunkMetadata,
            reader.read(reader.last_position),
            limits=limits,
            path=source.path,
            what="the metadata of a chunked message",
        )
        if _JOIN_VERSION in plan.version.bad_consumers:
            raise UnsupportedError(
                f"The chunked message excludes readers of version {_JOIN_VERSION}"
            )
        allowed = max(limits.decompressed_bytes, _MAX_RATIO * source.size)
        chunks = _Chunks(reader, plan.chunks, allowed, source.size + _MOST_AGAIN)
        fields = Objects(limits, source.size)
        return _Merger(chunks, limits, fields).merge(message_type(), plan.message)


class _Chunks:
    """The chunks of a plan. The size of each is checked, and so is their sum."""

    def __init__(
        self, reader: RecordReader, infos: Sequence[ChunkInfo], allowed: int, again: int
    ) -> None:
        """Take the chunks, how many bytes they may have, and how many of those twice or more."""
        self._reader = reader
        self._infos = infos
        self._allowed = allowed
        self._again = again
        self._taken = 0
        self._seen: set[int] = set()

    def take(self, index: int, *, kind: int) -> bytes:
        if index >= len(self._infos):
            raise MalformedError(
                f"Expected the index of one of {len(self._infos)} chunks, found index {index}"
            )
        info = self._infos[index]
        if info.type not in (kind, ChunkInfo.UNSET):
            raise MalformedError(f"Expected chunk {index} of type {kind}, found type {info.type}")
        self._count(info.size)
        if info.offset in self._seen:
            self._again -= info.size
            if self._again < 0:
                raise LimitError(
                    "Expected chunks that are merged once, found some that are merged again and "
                    "again, to more than the size of the file",
                    limit="decompressed_bytes",
                )
        self._seen.add(info.offset)
        data = self._reader.read(info.offset)
        if len(data) != info.size:
            raise MalformedError(
                f"Expected {info.size} bytes in chunk {index}, found {len(data)}",
                offset=info.offset,
            )
        return data

    def _count(self, size: int) -> None:
        self._taken += size
        if self._taken > self._allowed:
            raise LimitError(
                f"Expected chunks of at most {self._allowed} bytes together, found {self._taken}",
                limit="decompressed_bytes",
            )


@dataclass(frozen=True, slots=True)
class _Step:
    """One step of a field tag: a field, and which element of it if it is repeated or a map."""

    number: int
    index: int | None = None
    key: FieldIndex.MapKey | None = None


class _Merger:
    """Puts chunks into the fields that a plan says."""

    def __init__(self, chunks: _Chunks, limits: Limits, fields: Objects) -> None:
        """Take the chunks, and how many objects their fields, which take some steps, count as."""
        self._chunks = chunks
        self._limits = limits
        self._fields = fields

    def merge(self, target: _M, plan: ChunkedMessage, depth: int = 1) -> _M:
        """Merge a message's own chunk, then those of its fields; `depth` counts messages."""
        if plan.HasField("chunk_index"):
            self._merge_chunk(target, plan.chunk_index)
        self._fields.take(len(plan.chunked_fields))
        for field in plan.chunked_fields:
            self._fields.take(len(field.field_tag) / _TAGS_AN_OBJECT)
        for field in sorted(plan.chunked_fields, key=_order):
            self._merge_field(target, field, depth)
        return target

    def _merge_chunk(self, target: Message, index: int) -> None:
        data = self._chunks.take(index, kind=ChunkInfo.MESSAGE)
        what = f"chunk {index}, a {target.DESCRIPTOR.name}"
        target.MergeFrom(parse_message(type(target), data, limits=self._limits, what=what))

    def _merge_field(self, target: Message, field: ChunkedField, depth: int) -> None:
        steps = list(_iter_steps(field.field_tag))
        self._limits.check("nesting", depth + len(steps), "The depth of a chunked message")
        for step in steps[:-1]:
            target = _enter(target, step)
        if not steps:
            self.merge(target, field.message, depth)
        elif _is_message(_value_field(target, steps[-1])):
            self.merge(_enter(target, steps[-1]), field.message, depth + len(steps))
        else:
            self._set(target, steps[-1], field.message)

    def _set(self, target: Message, step: _Step, plan: ChunkedMessage) -> None:
        if not plan.HasField("chunk_index") or plan.chunked_fields:
            raise MalformedError("Expected a chunk for a field that is not a message, found none")
        value_field = _value_field(target, step)
        data = self._chunks.take(plan.chunk_index, kind=ChunkInfo.BYTES)
        try:
            _assign(target, step, _scalar(value_field, data))
        except (ValueError, TypeError) as error:
            raise MalformedError(
                f"Bad value for {value_field.full_name} in chunk {plan.chunk_index}: {error}"
            ) from error


# Field tags


def _order(field: ChunkedField) -> tuple[list[tuple[int, int, str]], int]:
    """Return the sort key: by tag, a shorter tag before longer ones with that start, then chunk."""
    return [_rank(tag) for tag in field.field_tag], field.message.chunk_index


def _rank(tag: FieldIndex) -> tuple[int, int, str]:
    kind = tag.WhichOneof("kind")
    if kind == "map_key":
        return (2, 0, str(_key(tag.map_key)))
    return (1, tag.index, "") if kind == "index" else (0, tag.field, "")


def _iter_steps(tags: Sequence[FieldIndex]) -> Iterator[_Step]:
    kinds = [tag.WhichOneof("kind") for tag in tags]
    position = 0
    while position < len(tags):
        if kinds[position] != "field":
            raise MalformedError(f"Expected a field in a field tag, found {kinds[position]}")
        number, position = tags[position].field, position + 1
        selector = kinds[position] if position < len(tags) else None
        if selector == "index":
            yield _Step(number, index=tags[position].index)
        elif selector == "map_key":
            yield _Step(number, key=tags[position].map_key)
        else:
            yield _Step(number)
            continue
        position += 1


def _key(key: FieldIndex.MapKey) -> Any:
    kind = key.WhichOneof("type")
    if kind is None:
        raise MalformedError("Expected a map key in a field tag, found an empty one")
    return getattr(key, kind)


# Messages by reflection


def _field(message: Message, step: _Step) -> _Field:
    """Return the descriptor of a step's field, after checking that the step fits the field."""
    descriptor = message.DESCRIPTOR
    field = descriptor.fields_by_number.get(step.number)
    if field is None:
        raise MalformedError(f"Expected a field of {descriptor.name}, found {step.number}")
    is_map = _is_map(field)
    fits = (
        (step.key is not None) == is_map,
        (step.index is not None) == (_is_repeated(field) and not is_map),
    )
    if not all(fits):
        raise MalformedError(
            f"Expected a field tag that fits the field {field.full_name}, found another"
        )
    return field


def _value_field(message: Message, step: _Step) -> _Field:
    """Return the descriptor of the field that a step leads to; of a map, that of its values."""
    field = _field(message, step)
    return field.message_type.fields_by_name["value"] if _is_map(field) else field


def _enter(message: Message, step: _Step) -> Message:
    """Return the message that a step leads to; it is made if it is missing."""
    field = _field(message, step)
    if not _is_message(_value_field(message, step)):
        raise MalformedError(f"Expected a message, found the field {field.full_name}")
    value: Any = getattr(message, field.name)
    if step.index is not None:
        return _element(value, step.index, field)
    entered: Message = value if step.key is None else _map_value(value, step.key, field)
    if step.key is None:
        entered.SetInParent()
    return entered


def _element(values: Any, index: int, field: _Field) -> Message:
    if index > len(values):
        raise MalformedError(
            f"Expected element {index} of {field.full_name}, found {len(values)} elements"
        )
    if index == len(values):
        values.add()
    element: Message = values[index]
    return element


def _map_value(values: Any, key: FieldIndex.MapKey, field: _Field) -> Message:
    try:
        value: Message = values[_key(key)]
    except (TypeError, ValueError) as error:
        raise MalformedError(f"Bad key for the map {field.full_name}: {error}") from error
    return value


def _assign(message: Message, step: _Step, value: Any) -> None:
    field = _field(message, step)
    if step.key is not None:
        getattr(message, field.name)[_key(step.key)] = value
    elif step.index is None:
        setattr(message, field.name, value)
    else:
        _assign_element(getattr(message, field.name), step.index, value)


def _assign_element(values: Any, index: int, value: Any) -> None:
    if index > len(values):
        raise ValueError(f"element {index} of {len(values)}")
    if index == len(values):
        values.append(value)
    else:
        values[index] = value


def _scalar(field: _Field, data: bytes) -> Any:
    """Decode the chunk of a field that is not a message.

    Raises:
        ValueError: The bytes are no value of this field.
    """
    kind = field.cpp_type
    if kind == FieldDescriptor.CPPTYPE_STRING:
        return data if field.type == FieldDescriptor.TYPE_BYTES else data.decode("utf-8")
    if kind in _INTEGER_KINDS and _INTEGER.fullmatch(data):
        return int(data)
    if kind in _FLOAT_KINDS:
        return float(data)
    if kind == FieldDescriptor.CPPTYPE_BOOL and data in _BOOLEANS:
        return _BOOLEANS[data]
    if kind == FieldDescriptor.CPPTYPE_ENUM:
        return _enum_value(field, data)
    raise ValueError(f"{data[:40]!r}")


def _enum_value(field: _Field, data: bytes) -> int:
    found = field.enum_type.values_by_name.get(data.decode("utf-8"))
    if found is None:
        raise ValueError(f"{field.enum_type.name} has no {data[:40]!r}")
    return int(found.number)


def _is_message(field: _Field) -> bool:
    return bool(field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE)


def _is_map(field: _Field) -> bool:
    return bool(_is_message(field) and field.message_type.GetOptions().map_entry)


def _is_repeated(field: _Field) -> bool:
    # Newer runtimes have only `is_repeated`, older ones only `label`.
    known = getattr(field, "is_repeated", None)
    return bool(known if known is not None else field.label == FieldDescriptor.LABEL_REPEATED)
