"""JSON: parsed if what it becomes is not too much; written with indentation.

The standard library's own takes twice as long to indent. What it parses may take many times as much
memory as the text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from json.encoder import encode_basestring_ascii as _quote
from math import isfinite
from typing import Any

from ckptparse.limits import Budget, Limits, limit_error

__all__ = ["NOT_AS_EXPECTED", "format_json", "iter_json", "parse_json"]

NOT_AS_EXPECTED = (
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    OverflowError,
    RecursionError,
)
"""What is raised if JSON is broken, or holds other values than are taken out of it."""

_SMALL = 1 << 20
"""Bytes of a text that is parsed whatever it holds: at most some 70 MB."""
_VALUE_BYTES, _OBJECT_BYTES, _KEY_BYTES = 72, 200, 110
"""What a value takes in a list; what an object takes more, and what each of its keys does."""
_TEXT_BYTES, _WIDE_BYTES = 3, 6
"""What a byte of the text takes while it is parsed; and if it is not all ASCII, of which Python
may make four bytes each."""
_BRACKET_BYTES = 16
"""Bytes for each list and object beyond `Limits.members`: each takes a third of a microsecond.
Those of safetensors files and of Keras's configurations have 20 or more."""
_HALF = re.compile(r"\\u[dD][89a-fA-F]")
_HALF_IN_BYTES = re.compile(_HALF.pattern.encode())
"""What writes half of a surrogate pair."""
_DEPTH = 3
"""Levels of lists and objects that are written by their parts: an answer, its lists, what is in
these."""
_PIECE = 1 << 20
"""Characters that are written at once, at least."""
_WORDS = {None: "null", True: "true", False: "false"}


def parse_json(data: bytes | str, limits: Limits, *, held: int | None = None) -> Any:
    """Parse JSON, if what it becomes does not take too much memory.

    Args:
        data: The text.
        limits: `memory_bytes` bounds what the values take beyond the file.
        held: The bytes of the file; None: those of the text.

    Raises:
        LimitError: They may take more, or are more lists and objects than `members`, beyond one
            for each 16 bytes. It is a ValueError, too.
        ValueError: It is no JSON, or a string holds half a character, which no text has.
        RecursionError: It is nested too deeply.
    """
    if len(data) > _SMALL:
        sign: Any = (lambda mark: mark.encode()) if isinstance(data, bytes) else str
        taken = _VALUE_BYTES * (data.count(sign(",")) + data.count(sign("[")))
        taken += _OBJECT_BYTES * data.count(sign("{")) + _KEY_BYTES * data.count(sign(":"))
        taken += len(data) * (_TEXT_BYTES if data.isascii() else _WIDE_BYTES)
        brackets = data.count(sign("[")) + data.count(sign("{"))
        if brackets > limits.members + len(data) // _BRACKET_BYTES:
            beyond = brackets - len(data) // _BRACKET_BYTES
            what = f"The number of lists and objects, beyond one for each {_BRACKET_BYTES} bytes,"
            raise limit_error(limits, "members", beyond, what)
        Budget(limits, len(data) if held is None else held).check(taken)
    found = json.loads(data)
    if _may_hold_halves(data):
        _check_characters(found)
    return found


def _may_hold_halves(data: bytes | str) -> bool:
    """Tell whether a text may hold half a surrogate pair: written out, or as what it is."""
    if isinstance(data, str):
        return not data.isascii() or _HALF.search(data) is not None
    # Bytes with a nought may be UTF-16, whose escapes look different.
    return not data.isascii() or b"\0" in data or _HALF_IN_BYTES.search(data) is not None


def _check_characters(value: Any) -> None:
    """Raise ValueError if a string holds half a character that does not stand for a byte."""
    left = [value]
    while left:
        one = left.pop()
        if isinstance(one, str):
            # Names that are not UTF-8 stand as surrogate escapes.
            one.encode("utf-8", "surrogateescape")
        elif isinstance(one, dict):
            left += one
            left += one.values()
        elif isinstance(one, list):
            left += one


def format_json(value: Any, *, indent: int) -> str:
    """Return what `json.dumps(value, indent=indent, allow_nan=False)` returns.

    Args:
        value: Plain values; keys are strings.
        indent: Blanks for each level.

    Raises:
        ValueError: A number is no number, or infinite.
        TypeError: A value is not plain, or a key is no string.
    """
    return _text(value, "\n", " " * indent)


def iter_json(value: Any, *, indent: int) -> Iterator[str]:
    """Iterate over the pieces of what `format_json` returns, each of about 1 MiB.

    Arguments and errors are those of `format_json`. A list of a million names is in memory once.
    """
    held: list[str] = []
    size = 0
    for piece in _iter_texts(value, "\n", " " * indent, _DEPTH):
        held.append(piece)
        size += len(piece)
        if size >= _PIECE:
            yield "".join(held)
            held, size = [], 0
    yield "".join(held)


def _iter_texts(value: Any, line: str, step: str, depth: int) -> Iterator[str]:
    """Iterate over the text of a value: lists and objects so deep bring forth each of theirs."""
    if not depth or not value or not isinstance(value, (dict, list, tuple)):
        yield _text(value, line, step)
        return
    inner = line + step
    is_object = isinstance(value, dict)
    before = f"{'{' if is_object else '['}{inner}"
    for one in value:
        if is_object:
            yield f"{before}{_quote(one)}: "
            yield from _iter_texts(value[one], inner, step, depth - 1)
        else:
            yield before
            yield from _iter_texts(one, inner, step, depth - 1)
        before = f",{inner}"
    yield f"{line}{'}' if is_object else ']'}"


def _text(value: Any, line: str, step: str) -> str:
    """Return the text of a value that stands in a line which begins with `line`."""
    kind = type(value)
    if kind is str:
        return _quote(value)
    if kind is int:
        return repr(value)
    if value is None or kind is bool:
        return _WORDS[value]
    if kind is float and isfinite(value):
        return repr(value)
    if not isinstance(value, (dict, list, tuple)):
        return json.dumps(value, allow_nan=False)
    return _of_object(value, line, step) if isinstance(value, dict) else _of_list(value, line, step)


def _of_object(value: dict[str, Any], line: str, step: str) -> str:
    if not value:
        return "{}"
    inner = line + step
    fields: list[str] = []
    for key, one in value.items():
        # Most values are texts, whole numbers and None: a call for each takes as long again.
        kind = type(one)
        if kind is str:
            fields.append(f"{_quote(key)}: {_quote(one)}")
        elif one is None:
            fields.append(f"{_quote(key)}: null")
        elif kind is int:
            fields.append(f"{_quote(key)}: {one}")
        else:
            fields.append(f"{_quote(key)}: {_text(one, inner, step)}")
    return f"{{{inner}{f',{inner}'.join(fields)}{line}}}"


def _of_list(value: Sequence[Any], line: str, step: str) -> str:
    if not value:
        return "[]"
    inner = line + step
    items = [_quote(one) if type(one) is str else _text(one, inner, step) for one in value]
    return f"[{inner}{f',{inner}'.join(items)}{line}]"
