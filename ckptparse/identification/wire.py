"""Binary messages told apart by the shape of their fields, without parsing them.

Only tags, lengths and short strings are read, at most some ten thousands of them:

    SavedModel    1 varint, 2 MetaGraphDef*
    MetaGraphDef  1 MetaInfoDef {2 op list | 4 tag | 5 version}, 2 GraphDef, 3 saver …
    GraphDef      1 NodeDef {1 name, 2 op}*, 2 library {1 FunctionDef}, 4 versions {varints}
    ModuleDef     1 varint = 3 (the two bytes of tfhub_module.pb)
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from ckptparse.coding.varint import decode_varint
from ckptparse.errors import CheckpointError
from ckptparse.identification.identity import Finding
from ckptparse.identification.sample import WINDOW, Sample
from ckptparse.proto.fingerprint_pb2 import FingerprintDef
from ckptparse.proto.parsing import parse_message
from ckptparse.proto.saved_metadata_pb2 import SavedMetadata

__all__ = ["find_message", "find_named_message"]

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MOST_FIELDS = 1 << 15
"""Fields that are read to tell messages apart: the first ones tell it, and a file may have
millions."""
_OP_NAME = re.compile(rb"[A-Za-z_][A-Za-z0-9_.>/\-]*")
_VERSION = re.compile(rb"\d+\.[\w.+\-]*")
_HUB_FORMAT_V3 = 3
"""The only number that a `tfhub_module.pb` has had."""


@dataclass(frozen=True, slots=True)
class _Field:
    number: int
    wire_type: int
    start: int
    """Offset of a string's bytes."""
    end: int
    value: int
    """The value of a varint."""


@dataclass(frozen=True, slots=True)
class _Fields:
    known: list[_Field]
    cut: list[_Field]
    """The last field, if it runs past the end."""
    missing: int | None
    """Bytes that the last field lacks: 0 if its length is cut off, None if it is whole."""


class _NoMessageError(ValueError):
    """These bytes are no fields."""


class _CutError(ValueError):
    """A field runs past the end."""


def find_named_message(sample: Sample) -> Finding | None:
    """Find the messages that no field tells apart: by their names, if they parse."""
    known = {
        "fingerprint.pb": ("fingerprint", FingerprintDef),
        "keras_metadata.pb": ("keras-metadata", SavedMetadata),
    }
    if sample.name not in known or sample.size > WINDOW:
        return None
    kind, message = known[sample.name]
    try:
        parse_message(message, sample.head, limits=sample.limits, path=sample.path)
    except CheckpointError as error:
        return Finding(kind, {"damage": error.message})
    return Finding(kind)


def find_message(sample: Sample) -> Finding | None:
    """Find which of TensorFlow's messages a file holds; None if none of them."""
    fields = _read_fields(sample, 0, sample.size, most=_MOST_FIELDS)
    # The field that was cut tells something only if the whole ones do not.
    kind = _name_message(sample, fields.known) or _name_message(sample, fields.known + fields.cut)
    if kind is None:
        return None
    if fields.missing is None:
        return Finding(kind, {} if kind == "hub-module" else {"encoding": "binary"})
    return Finding(
        "truncated", {"of": kind} | ({"missing": fields.missing} if fields.missing else {})
    )


def _name_message(sample: Sample, fields: list[_Field]) -> str | None:
    if not fields:
        return None
    if _is_saved_model(sample, fields):
        return "saved-model-pb"
    if _is_meta_graph(sample, fields):
        return "meta-graph"
    if _is_graph(sample, fields):
        return "graph"
    first = fields[0]
    is_module = len(fields) == 1 and sample.size == 2 and first.wire_type == _VARINT
    if is_module and first.number == 1 and first.value == _HUB_FORMAT_V3:
        return "hub-module"
    return None


def _is_saved_model(sample: Sample, fields: list[_Field]) -> bool:
    graphs = [field for field in fields if field.number == 2]
    versions = [field for field in fields if field.number == 1]
    return (
        len(graphs) + len(versions) == len(fields)
        and all(field.wire_type == _VARINT for field in versions)
        and bool(graphs)
        and all(field.wire_type == _BYTES for field in graphs)
        and _is_meta_graph(sample, _inside(sample, graphs[0]))
    )


def _is_meta_graph(sample: Sample, fields: list[_Field]) -> bool:
    if not fields or any(f.wire_type != _BYTES or not 1 <= f.number <= 7 for f in fields):
        return False
    infos = [field for field in fields if field.number == 1]
    graphs = [field for field in fields if field.number == 2]
    if len(infos) > 1 or any(not _is_meta_info(sample, info) for info in infos):
        return False
    has_graph = bool(graphs) and _is_graph(sample, _inside(sample, graphs[0]))
    return has_graph or any(_names_version(sample, info) for info in infos)


def _is_meta_info(sample: Sample, field: _Field) -> bool:
    kinds = dict.fromkeys(range(1, 9), _BYTES) | {7: _VARINT}
    if any(kinds.get(part.number) != part.wire_type for part in _inside(sample, field)):
        return False
    # A node has a name and the name of its op in the fields that hold a version and a list here.
    return not _is_node(sample, field)


def _names_version(sample: Sample, info: _Field) -> bool:
    """Tell whether a meta info has a list of ops, or the version of TensorFlow."""
    for part in _inside(sample, info):
        start = sample.peek(part.start, min(part.end - part.start, 64))
        if (part.number == 2 and start[:1] == b"\x0a") or (
            part.number == 5 and _VERSION.fullmatch(start)
        ):
            return True
    return False


def _is_graph(sample: Sample, fields: list[_Field]) -> bool:
    kinds = {1: _BYTES, 2: _BYTES, 3: _VARINT, 4: _BYTES, 5: _BYTES}
    if not fields or any(kinds.get(field.number) != field.wire_type for field in fields):
        return False
    nodes = [field for field in fields if field.number == 1]
    if nodes:
        return all(_is_node(sample, node) for node in nodes[:16])
    libraries = [field for field in fields if field.number == 2]
    if libraries:
        return _is_library(sample, libraries[0])
    return all(_is_version(sample, field) for field in fields if field.number == 4)


def _is_node(sample: Sample, field: _Field) -> bool:
    parts = _inside(sample, field)
    strings = {part.number: part for part in parts[:2] if part.wire_type == _BYTES}
    if 2 not in strings:
        return False
    op = strings[2]
    return op.end - op.start <= 256 and bool(
        _OP_NAME.fullmatch(sample.peek(op.start, op.end - op.start))
    )


def _is_library(sample: Sample, field: _Field) -> bool:
    functions = _inside(sample, field)
    if not functions or any(function.wire_type != _BYTES for function in functions):
        return not functions
    signature = next((part for part in _inside(sample, functions[0]) if part.number == 1), None)
    if signature is None:
        return False
    name = next((part for part in _inside(sample, signature) if part.number == 1), None)
    return name is not None and bool(
        _OP_NAME.fullmatch(sample.peek(name.start, min(name.end - name.start, 256)))
    )


def _is_version(sample: Sample, field: _Field) -> bool:
    numbers = {part.number for part in _inside(sample, field)}
    return bool(numbers) and numbers <= {1, 2, 3} and field.end - field.start < 64


def _inside(sample: Sample, field: _Field) -> list[_Field]:
    """Read the first fields inside of a field; none if its bytes are no message."""
    end = min(field.end, sample.size)
    fields = _read_fields(sample, field.start, end, most=64)
    return fields.known + fields.cut


def _read_fields(sample: Sample, start: int, end: int, *, most: int) -> _Fields:
    """Read fields up to a bound, and what is missing of the last one."""
    known: list[_Field] = []
    try:
        for field in _iter_fields(sample, start, end):
            if field.end > end:
                return _Fields(known, [field], missing=field.end - end)
            known.append(field)
            if len(known) == most:
                break
    except _CutError:
        return _Fields(known, [], missing=0)
    except _NoMessageError:
        return _Fields([], [], missing=None)
    return _Fields(known, [], missing=None)


def _iter_fields(sample: Sample, start: int, end: int) -> Iterator[_Field]:
    position = start
    while position < end:
        data = sample.peek(position, min(20, end - position))
        if len(data) > 1 and data[0] & 0x87 == _BYTES and data[0] > _BYTES and data[1] < 0x80:
            # A tag and a length of one byte each, as most are.
            start, size = position + 2, data[1]
            position = start + size
            yield _Field(data[0] >> 3, _BYTES, start, position, size)
            continue
        try:
            tag, used = decode_varint(data, 0, len(data))
            field = _decode_field(data, tag, used, position)
        except ValueError as error:
            if position + len(data) == end and len(data) < 20:
                raise _CutError from error
            raise _NoMessageError from error
        yield field
        position = field.end


def _decode_field(data: bytes, tag: int, used: int, position: int) -> _Field:
    number, wire_type = tag >> 3, tag & 7
    if not number:
        raise ValueError("field number 0")
    if wire_type == _VARINT:
        value, used = decode_varint(data, used, len(data))
        return _Field(number, wire_type, position + used, position + used, value)
    if wire_type == _BYTES:
        size, used = decode_varint(data, used, len(data))
        return _Field(number, wire_type, position + used, position + used + size, size)
    if wire_type in (_FIXED32, _FIXED64):
        size = 4 if wire_type == _FIXED32 else 8
        return _Field(number, wire_type, position + used, position + used + size, size)
    raise ValueError(f"wire type {wire_type}")
