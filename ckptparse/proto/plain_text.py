"""Parse messages in text as protobuf prints them, eight times faster than protobuf does.

    node {
      name: "w"
      attr {
        key: "dtype"
        value {
          type: DT_FLOAT
        }
      }
    }

That is all of the form: `name: value` and `name {`, in any layout, and comments. The text is put
on the wire field by field, and protobuf parses that. What else the text format allows (lists, `<`,
strings in parts or in single quotes, bytes in hexadecimal, numbers of enums) is left to protobuf's
own parser, and so is everything that is wrong: it says why.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any, TypeVar

from google.protobuf import text_encoding
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message

from ckptparse.coding.varint import encode_varint
from ckptparse.proto.wire import BYTES, FIXED32, FIXED64, VARINT

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor

    # The compiled runtimes have a class of their own for it, which their stubs tell apart.
    MessageDescriptor = Descriptor | Any

__all__ = ["find_plain"]

_Message = TypeVar("_Message", bound=Message)

_TOKEN = re.compile(
    r"""[ \t\r\n]*(?:
        ([A-Za-z_][0-9A-Za-z_]*)[ \t]*:[ \t]*                     # 1 a name, and its value:
            (?:"([^"\\\n]*)"                                      # 2 a string
            |"([^"\\\n]*(?:\\[0-7abfnrtv\\'"][^"\\\n]*)+)"        # 3 a string with escapes
            |([0-9A-Za-z_+-][0-9A-Za-z_.+-]*))                    # 4 a number, or a word
        |([A-Za-z_][0-9A-Za-z_]*)[ \t]*(?::[ \t]*)?\{             # 5 a name, and a message
        |(\})                                                     # 6 the end of that
        |(\#[^\n]*|\Z)                                            # 7 a comment, or the end of all
        |(.))""",  # 8 something else
    re.VERBOSE,
)
_STRING, _ESCAPED, _WORD, _OPEN, _CLOSE, _OTHER = 2, 3, 4, 5, 6, 8

_INTEGERS = {
    FieldDescriptor.TYPE_INT32: range(-(1 << 31), 1 << 31),
    FieldDescriptor.TYPE_INT64: range(-(1 << 63), 1 << 63),
    FieldDescriptor.TYPE_UINT32: range(1 << 32),
    FieldDescriptor.TYPE_UINT64: range(1 << 64),
}
"""The types that are varints."""
_SIGNED = {
    FieldDescriptor.TYPE_SINT32: range(-(1 << 31), 1 << 31),
    FieldDescriptor.TYPE_SINT64: range(-(1 << 63), 1 << 63),
}
"""The types that are varints whose lowest bit is the sign."""
_FIXED = {
    FieldDescriptor.TYPE_FIXED32: (FIXED32, "<I"),
    FieldDescriptor.TYPE_FIXED64: (FIXED64, "<Q"),
    FieldDescriptor.TYPE_SFIXED32: (FIXED32, "<i"),
    FieldDescriptor.TYPE_SFIXED64: (FIXED64, "<q"),
}
_FLOATS = {
    FieldDescriptor.TYPE_FLOAT: (FIXED32, "<f"),
    FieldDescriptor.TYPE_DOUBLE: (FIXED64, "<d"),
}
_TEXTS = (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES)
_BOOLS = {"true": b"\x01", "false": b"\x00"}
_OCTAL = re.compile("-?0[0-9]")
_BITS = (1 << 64) - 1


def find_plain(message_type: type[_Message], text: str, *, nesting: int) -> _Message | None:
    """Parse a message in text; None if the text is of another form, or wrong.

    Args:
        message_type: The generated class.
        text: All of the text.
        nesting: Messages inside messages, at most.
    """
    try:
        return message_type.FromString(bytes(_encode(message_type.DESCRIPTOR, text, nesting)))
    except (
        DecodeError,
        ValueError,
        LookupError,
        OverflowError,
        struct.error,
        DeprecationWarning,  # Of an octal escape beyond a byte, if warnings are errors.
    ):
        return None


def _encode(descriptor: MessageDescriptor, text: str, nesting: int) -> bytearray:
    """Put a message on the wire; what is not of the form raises one of the errors above."""
    fields = _fields_of(descriptor)
    body = bytearray()
    outer: list[tuple[bytearray, bytes, _Fields]] = []
    for token in _TOKEN.finditer(text):
        kind = token.lastindex or 0
        if kind <= _WORD:
            tag, encode = fields.values[token[1]]
            body += tag
            body += encode(kind, token[kind])
        elif kind == _OPEN:
            tag, inner = fields.messages[token[_OPEN]]
            outer.append((body, tag, fields))
            if len(outer) > nesting:
                raise ValueError("nested too deep")
            body, fields = bytearray(), _fields_of(inner)
        elif kind == _CLOSE:
            content = body
            body, tag, fields = outer.pop()
            body += tag
            body += encode_varint(len(content))
            body += content
        elif kind == _OTHER:
            raise ValueError("another form")
    if outer:
        raise ValueError("a message has no end")
    return body


_Encode = Callable[[int, str], bytes]
"""Gives the wire's bytes of a value, by the kind of token that it is, and its text."""


@dataclass(frozen=True, slots=True)
class _Fields:
    """The fields of a message by name, with their tags."""

    values: dict[str, tuple[bytes, _Encode]]
    messages: dict[str, tuple[bytes, Any]]


@cache
def _fields_of(descriptor: MessageDescriptor) -> _Fields:
    fields = _Fields({}, {})
    for field in descriptor.fields:
        if field.message_type is not None:
            fields.messages[field.name] = _tag(field, BYTES), field.message_type
        elif (found := _find_encoder(field)) is not None:
            wire, encode = found
            fields.values[field.name] = _tag(field, wire), encode
    return fields


def _tag(field: FieldDescriptor, wire: int) -> bytes:
    return encode_varint(field.number << 3 | wire)


def _find_encoder(field: FieldDescriptor) -> tuple[int, _Encode] | None:
    """Return how the values of a field are written; None for a type that no file of ours has."""
    if field.type in _TEXTS:
        return BYTES, _encode_string
    if field.enum_type is not None:
        numbers = {value.name: _varint(value.number) for value in field.enum_type.values}
        return VARINT, partial(_encode_word, numbers)
    if field.type == FieldDescriptor.TYPE_BOOL:
        return VARINT, partial(_encode_word, _BOOLS)
    if field.type in _INTEGERS:
        return VARINT, partial(_encode_integer, _INTEGERS[field.type])
    if field.type in _SIGNED:
        return VARINT, partial(_encode_signed, _SIGNED[field.type])
    if field.type in _FIXED:
        wire, form = _FIXED[field.type]
        return wire, partial(_encode_fixed, form)
    if field.type in _FLOATS:
        wire, form = _FLOATS[field.type]
        return wire, partial(_encode_float, form)
    return None


def _encode_string(kind: int, text: str) -> bytes:
    if kind == _WORD:
        raise ValueError("no string")
    if kind == _STRING:
        content = text.encode()
    elif text.isascii():
        # What protobuf's function does in more steps.
        content = text.encode().decode("unicode_escape").encode("latin-1")
    else:
        content = text_encoding.CUnescape(text)
    return encode_varint(len(content)) + content


def _encode_word(known: dict[str, bytes], kind: int, text: str) -> bytes:
    if kind != _WORD:
        raise ValueError("a string")
    return known[text]


def _encode_integer(allowed: range, kind: int, text: str) -> bytes:
    return _varint(_allowed_integer(allowed, kind, text))


def _encode_signed(allowed: range, kind: int, text: str) -> bytes:
    number = _allowed_integer(allowed, kind, text)
    return _varint(number << 1 ^ number >> 63)


def _allowed_integer(allowed: range, kind: int, text: str) -> int:
    number = _integer(kind, text)
    if number not in allowed:
        raise ValueError("out of range")
    return number


def _encode_fixed(form: str, kind: int, text: str) -> bytes:
    return struct.pack(form, _integer(kind, text))


def _integer(kind: int, text: str) -> int:
    if kind != _WORD:
        raise ValueError("a string")
    return int(text, 0)


def _encode_float(form: str, kind: int, text: str) -> bytes:
    if kind != _WORD or _OCTAL.match(text):
        raise ValueError("no number")
    return struct.pack(form, float(text))


def _varint(number: int) -> bytes:
    return encode_varint(number & _BITS)
