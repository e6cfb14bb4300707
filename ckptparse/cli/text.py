"""Words for values: names that are safe to print, shapes, sizes, kinds of element."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

import ckptparse

__all__ = [
    "clean",
    "count",
    "describe_opened",
    "dtype_name",
    "escape",
    "shape_text",
    "size_text",
    "unescape",
]

_SHORT = {"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_UNPRINTABLE = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
_ESCAPED = re.compile(r"\\(?:([\\nrt])|x([0-9a-f]{2})|u([0-9a-f]{4})|U([0-9a-f]{8}))")
_LETTERS = {"\\": "\\", "n": "\n", "r": "\r", "t": "\t"}
_OWN_NAMES = {"DT_FLOAT": "float32", "DT_DOUBLE": "float64", "DT_HALF": "float16"}


def escape(text: str) -> str:
    r"""Replace what a terminal would obey or hide: controls, line breaks, directions, lone bytes.

    A byte that is not UTF-8 (a surrogate escape) comes as `\xff`. `unescape` undoes it.
    """
    if text.isprintable() and "\\" not in text:
        return text
    return "".join(map(_escape_character, text))


def clean(text: str) -> str:
    """Escape a sentence, in which backslashes are its own and line breaks become spaces."""
    if text.isprintable():
        return text
    return "".join(
        character
        if character == "\\"
        else " "
        if character == "\n"
        else _escape_character(character)
        for character in text
    )


def _escape_character(character: str) -> str:
    if character in _SHORT:
        return _SHORT[character]
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    if unicodedata.category(character) not in _UNPRINTABLE:
        return character
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def unescape(text: str) -> str:
    """Undo `escape`."""
    return _ESCAPED.sub(_unescape_match, text)


def _unescape_match(found: re.Match[str]) -> str:
    letter, byte, short, long = found.groups()
    if letter:
        return _LETTERS[letter]
    if byte:
        code = int(byte, 16)
        return chr(code if code < 0x80 else 0xDC00 + code)
    return chr(int(short or long, 16))


def prefix_of(name: str) -> str:
    """Take the endings of a checkpoint's files off a name; other names stay as they are."""
    return re.sub(r"\.index$|\.data-\d{5,}-of-\d{5,}$", "", name)


def shape_text(shape: Sequence[int]) -> str:
    """Write a shape without spaces: `[3,4]`, and `[]` for a scalar."""
    return "[" + ",".join(map(str, shape)) + "]"


def size_text(size: int) -> str:
    """Write a number of bytes for a person: `48 B`, `1.5 MiB`."""
    if size < 1024:
        return f"{size} B"
    value = float(size)
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        value /= 1024
        if value < 1023.95 or unit == "TiB":
            return f"{value:.1f} {unit}"
    return f"{size} B"


def count(number: int, noun: str) -> str:
    """Write a number with its noun: `1 tensor`, `2 tensors`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def dtype_name(data_type: int) -> str:
    """Name a kind of element as numpy and ml_dtypes do; quantized kinds keep their own names."""
    try:
        name = ckptparse.DataType(data_type).name
    except ValueError:
        return f"kind-{data_type}"
    return _OWN_NAMES.get(name, name.removeprefix("DT_").lower())


def describe_opened(checkpoint: ckptparse.Checkpoint) -> str:
    """Say what a path turned out to mean."""
    shards = count(checkpoint.num_shards, "shard")
    return f"opened {escape(checkpoint.path)}: {checkpoint.format}, {shards}"


def to_json(value: Any) -> Any:
    """Return a value of whatever makes as JSON has it: bytes as text, the unknown by its text."""
    if isinstance(value, Mapping):
        return {str(key): to_json(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(part) for part in value]
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)
