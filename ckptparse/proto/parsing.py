"""Parse messages, binary and text. Only this module gives bytes of a file to protobuf.

Protobuf's runtimes disagree about bad input. The compiled ones stop at 100 levels of messages
inside messages; the pure Python one, and the text parser everywhere, at the end of the
interpreter's stack. Text that is not UTF-8 raises different errors. Here all runtimes give the same
answer: `LimitError` if a message is too large or too deep, `MalformedError` for the rest
(docs/format.md, section 9.2). Two things that no writer makes are left to the runtime: from release
7 on, it accepts a field number of zero in an unknown group, and refuses a length of six bytes.
"""

from __future__ import annotations

import re
from typing import TypeVar

from google.protobuf.internal import api_implementation
from google.protobuf.message import DecodeError, Message

from ckptparse.errors import CheckpointError, LimitError, MalformedError
from ckptparse.limits import DEFAULT_LIMITS, Limits
from ckptparse.proto.wire import MAX_NESTING, check_nesting

__all__ = ["parse_message", "parse_text"]

_Message = TypeVar("_Message", bound=Message)

# The runtime upb counts levels as `check_nesting` does; a test compares the two.
_RUNTIME_CHECKS_NESTING = api_implementation.Type() == "upb"

_OTHER_TEXT, _OTHER_SHIFT = 1 << 16, 7
"""Text of another form than protobuf prints takes some seconds for each MiB: so many bytes of it
are read always, and this part of `Limits.text_bytes`: 1/128."""
_FIELDS, _FIELDS_SHIFT, _FIELD_BYTES = 1 << 16, 8, 16
"""Fields that a text may have always, or this part of `Limits.text_bytes`: 1/256, beyond one for
each 16 bytes. One takes a microsecond or two; those that protobuf prints have 20 bytes or more,
with what they are indented by."""
_MAX_REASON = 300
"""Characters of the runtime's reason that an error keeps: it may quote the whole text."""

_ESCAPE = re.compile(r"\\.")
_ESCAPED = re.compile(r"""\\(?:[0-7abfnrtvxuUN\\'"]|(.))""", re.DOTALL)
"""An escape; what follows the backslash is the group if Python knows no such escape."""
_TOKEN = re.compile(r"""#[^\n]*|"[^"\n]*"?|'[^'\n]*'?|[{<]|[}>]""")


def parse_message(
    message_type: type[_Message],
    data: bytes | bytearray | memoryview,
    *,
    limits: Limits = DEFAULT_LIMITS,
    path: str | None = None,
    what: str | None = None,
) -> _Message:
    """Parse a serialized message.

    Args:
        message_type: The generated class.
        data: All bytes of the message.
        limits: `message_bytes` and `nesting` bound it; `nesting` is 100 at most.
        path: The file the bytes are from, for errors.
        what: What the bytes should be ("the object graph"), for errors; the type's name if None.

    Raises:
        MalformedError: The bytes are no such message, or a string in it is not UTF-8.
        LimitError: The message is too large, or nested too deep.
    """
    if len(data) > limits.message_bytes:
        name = what or message_type.DESCRIPTOR.name
        limits.check("message_bytes", len(data), f"The size of {name}", path=path)
    allowed = min(limits.nesting, MAX_NESTING)
    # A level takes at least two bytes, a tag and a length: short messages need no check.
    if not _RUNTIME_CHECKS_NESTING or (allowed < MAX_NESTING and len(data) > 2 * allowed):
        _check_wire(message_type, data, allowed, path, what)
    try:
        return message_type.FromString(bytes(data))
    except (DecodeError, RecursionError, ValueError) as error:
        _check_wire(message_type, data, allowed, path, what)
        raise _translated(error, what or message_type.DESCRIPTOR.name, path) from error


def parse_text(
    message_type: type[_Message],
    text: str | bytes,
    *,
    limits: Limits = DEFAULT_LIMITS,
    path: str | None = None,
    what: str | None = None,
) -> _Message:
    """Parse a message in protobuf's text format (`.pbtxt`, the `checkpoint` state file).

    Args:
        message_type: The generated class.
        text: All of the text; bytes are UTF-8.
        limits: `message_bytes`, `text_bytes` and `nesting` bound it.
        path: The file the text is from, for errors.
        what: What the text should be, for errors; the type's name if None.

    Raises:
        MalformedError: The text is no such message, or not UTF-8.
        LimitError: The text is too long, nested too deep, or of too many small fields; text that is
            of another form than protobuf prints, if it is longer than 64 KiB and 1/128 of
            `text_bytes`.
    """
    what = what or message_type.DESCRIPTOR.name
    limits.check("message_bytes", len(text), f"The size of {what}", path=path)
    limits.check("text_bytes", len(text), f"The size of {what} in text", path=path)
    from google.protobuf import text_format

    from ckptparse.proto.plain_text import find_plain

    nesting = min(limits.nesting, MAX_NESTING)
    try:
        text = text if isinstance(text, str) else text.decode("utf-8")
        _check_fields(text, limits, what, path)
        found = find_plain(message_type, text, nesting=nesting)
        if found is not None:
            return found
        allowed = max(limits.text_bytes >> _OTHER_SHIFT, _OTHER_TEXT)
        _check_brackets(text[:allowed], nesting, path)
        _check_other_text(len(text), allowed, what, path)
        if "\\" in text:
            # Protobuf takes `\\l` for both characters, and Python deprecates that with a warning.
            text = _ESCAPED.sub(_double, text)
        # Merge, as TensorFlow does: of a field that is given twice the last value counts.
        return text_format.Merge(text, message_type())
    except (
        text_format.ParseError,
        RecursionError,
        ValueError,
        KeyError,
        DeprecationWarning,  # Of an octal escape beyond a byte, if warnings are errors.
    ) as error:
        if isinstance(error, CheckpointError):
            raise
        raise _translated(error, what, path) from error


def _check_fields(text: str, limits: Limits, what: str, path: str | None) -> None:
    """Check how many fields and comments there may be in a text, by what each of them has."""
    fields = sum(map(text.count, ":{#"))
    allowed = max(limits.text_bytes >> _FIELDS_SHIFT, _FIELDS) + len(text) // _FIELD_BYTES
    if fields > allowed:
        raise LimitError(
            f"The number of fields of {what} in text is up to {fields}, and Limits.text_bytes "
            f"({limits.text_bytes}) allows {allowed} in {len(text)} characters",
            limit="text_bytes",
            path=path,
        )


def _check_other_text(size: int, allowed: int, what: str, path: str | None) -> None:
    if size > allowed:
        raise LimitError(
            f"The size of {what} in text that is not of the form that protobuf prints is {size}, "
            f"and Limits.text_bytes allows {allowed} of such text",
            limit="text_bytes",
            path=path,
        )


def _double(escape: re.Match[str]) -> str:
    return escape[0] if escape[1] is None else f"\\{escape[0]}"


def _check_wire(
    message_type: type[Message],
    data: bytes | bytearray | memoryview,
    allowed: int,
    path: str | None,
    what: str | None,
) -> None:
    try:
        check_nesting(data, message_type, allowed=allowed)
    except CheckpointError as error:
        error.message = f"{error.message}, in {what or message_type.DESCRIPTOR.name}"
        error.path = path
        raise


def _check_brackets(text: str, allowed: int, path: str | None) -> None:
    """Check how deep braces and angle brackets are nested, outside of strings and comments."""
    depth = 0
    for token in _TOKEN.finditer(_ESCAPE.sub("", text)):
        bracket = token[0]
        if bracket in "{<":
            depth += 1
            if depth > allowed:
                raise LimitError(
                    f"Expected messages nested at most {allowed} deep, found more",
                    limit="nesting",
                    path=path,
                )
        elif bracket in "}>":
            depth -= 1


def _translated(error: Exception, what: str, path: str | None) -> CheckpointError:
    from ckptparse.text import clean

    if isinstance(error, RecursionError):
        return LimitError(
            f"Expected {what}, found one that is nested deeper than Python's stack allows",
            limit="nesting",
            path=path,
        )
    reason = " ".join(str(error).split()) or type(error).__name__
    reason = clean(reason[:_MAX_REASON])
    return MalformedError(f"Expected {what}, found bytes that do not parse: {reason}", path=path)
