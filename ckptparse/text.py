"""Words for values, safe to print: names, shapes, sizes, counts.

A name in a file may hold whatever its writer wanted: line breaks, codes that a terminal obeys,
letters that turn the direction of writing, odd spaces, bytes that are not UTF-8. `escape` shows all
of these by their numbers, and `unescape` gives the name back.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence, Sized
from dataclasses import fields
from typing import Any

__all__ = [
    "as_commands",
    "brief",
    "brief_repr",
    "cell_width",
    "chance_text",
    "clean",
    "count",
    "escape",
    "open_shape_text",
    "shape_text",
    "size_text",
    "states_text",
    "unescape",
]

_MOST_ENTRIES = 3
_LONGEST_VALUE = 60
_LONGEST_REPR = 160
"""Characters, besides the name of the class."""
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
_ESCAPED = re.compile(r"\\(?:([\\nrt])|x([0-9a-f]{2})|u([0-9a-f]{4})|U([0-9a-f]{8}))")
_UNUSUAL = re.compile(r"[^ -~]")
"""Characters that are looked at one by one: all but the letters, digits and signs of ASCII."""
_COMMANDS = {
    "open_graph": "info",
    "open_saved_model": "info",
    "recover": "recover",
    "scan": "scan",
    "verify": "verify",
    "identify": "identify",
    "explain": "explain",
    "latest_checkpoint": "latest",
    "list_variables": "ls",
}
"""Functions, and the commands that do the same."""
_OPTIONS = (
    (re.compile(r"\b\w+='\w+' \((--[a-z-]+ \w+)\)"), r"\1"),
    (re.compile(r"\blimits=Limits\((\w+)=\.\.\.\)"), r"--limit \1=NUMBER"),
    (re.compile(r"\boverwrite=True"), "--overwrite"),
    (re.compile(r"\bstore_bits=True"), "--store-bits"),
    (re.compile(r"\b(format|dtype|naming)='(\w+)'"), r"--\1 \2"),
    (re.compile(r"\bexclude=\.\.\."), "--exclude PATTERN"),
    (re.compile(r"\brename=(?:\{\.\.\.\}|\[\(.*?\), \.\.\.\])"), "--rename PATTERN=REPLACEMENT"),
    (re.compile(r"`tensor\.read\(fill=0\)`"), "--fill 0"),
    (re.compile(r"Pass mmap=True, or read"), "Read"),
    (re.compile(r", or pass mmap=True"), ""),
)
"""Arguments, and the options that do the same; of what no option does, nothing is said."""
_CALL = re.compile(rf"`?\bckptparse\.({'|'.join(_COMMANDS)})\b(?:\([^)]*\))?`?")
_LETTERS = {"\\": "\\", "n": "\n", "r": "\r", "t": "\t"}


def escape(text: str) -> str:
    r"""Replace what a terminal would obey or hide: controls, directions, odd spaces, lone bytes.

    A byte that is not UTF-8 (a surrogate escape) comes as `\xff`, a backslash as `\\`.
    """
    if text.isprintable() and "\\" not in text:
        return text
    return _UNUSUAL.sub(_escape_match, text.replace("\\", "\\\\"))


def clean(text: str) -> str:
    """Escape a sentence, in which backslashes are its own and line breaks become spaces."""
    if text.isprintable():
        return text
    return _UNUSUAL.sub(_escape_match, text.replace("\n", " "))


def _escape_match(found: re.Match[str]) -> str:
    return _escape_character(found[0])


def _escape_character(character: str) -> str:
    if character in _SHORT:
        return _SHORT[character]
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    if character.isprintable():
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


def shape_text(shape: Sequence[int]) -> str:
    """Write a shape without spaces: `[3,4]`, and `[]` for a scalar."""
    return "[" + ",".join(map(str, shape)) + "]"


def open_shape_text(shape: Sequence[int | None] | None) -> str:
    """Write a shape of which some, or all, may be unknown."""
    if shape is None:
        return "[?...]"
    return "[" + ",".join("?" if size is None else str(size) for size in shape) + "]"


def states_text(states: Mapping[str, int], total: int) -> str:
    """Say how many tensors there are, and how many of them are in which state."""
    listed = ", ".join(f"{number:,} {status}" for status, number in states.items())
    said = count(total, "tensor")
    return f"{said}: {listed}" if listed else said


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


def cell_width(text: str) -> int:
    """Count the cells that a text takes in a terminal: two for a wide character."""
    if text.isascii():
        return len(text)
    return sum(map(_cells_of, text))


def _cells_of(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in ("W", "F") else 1


def chance_text(chance: float) -> str:
    """Write a small chance for a person: `1 in 4,100`; two digits, and never better than it is."""
    if chance >= 0.5:
        return f"{chance:.0%}"
    times = int(1 / chance)
    digits = max(0, len(str(times)) - 2)
    return f"1 in {times // 10**digits * 10**digits:,}"


def as_commands(text: str) -> str:
    """Turn the names of functions into those of commands: `ckptparse.recover(path)`.

    Arguments become options: `overwrite=True`.
    """
    for argument, option in _OPTIONS:
        text = argument.sub(option, text)
    return _CALL.sub(lambda found: f"`ckptparse {_COMMANDS[found[1]]}`", text)


def brief(value: object) -> str:
    """Write a value as `repr` does, but short: long texts are cut, many entries are counted."""
    if isinstance(value, Sized) and not isinstance(value, (str, bytes)):
        if len(value) > _MOST_ENTRIES:
            return f"<{len(value):,} entries>"
        if isinstance(value, Mapping):
            return "{" + ", ".join(f"{brief(k)}: {brief(v)}" for k, v in value.items()) + "}"
    text = " ".join(repr(value).split())
    cut = len(text) > _LONGEST_VALUE
    return f"{text[: _LONGEST_VALUE - 16]}…{text[-15:]}" if cut else text


def brief_repr(value: Any) -> str:
    """Write a dataclass in a line: its fields, each in brief, as many as fit."""
    shown = []
    room = _LONGEST_REPR
    for part in fields(value):
        text = f"{part.name}={brief(getattr(value, part.name))}"
        room -= len(text) + 2
        if room < 0:
            shown.append("…")
            break
        shown.append(text)
    return f"{type(value).__name__}({', '.join(shown)})"
