"""Words for values: names that no terminal obeys, shapes, sizes, counts."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ckptparse
from ckptparse.text import (
    as_commands,
    cell_width,
    clean,
    count,
    escape,
    shape_text,
    size_text,
    unescape,
)

PACKAGE = Path(ckptparse.__file__).parent


@given(st.text(st.characters()))
def test_any_name_can_be_read_back_from_how_it_is_printed(name: str) -> None:
    shown = escape(name)
    assert shown.isprintable() and clean(name).isprintable()
    assert "\n" not in shown and "\x1b" not in shown
    assert unescape(shown) == name


@given(st.binary())
def test_any_bytes_as_a_name_can_be_read_back_from_how_they_are_printed(name: bytes) -> None:
    text = name.decode("utf-8", "surrogateescape")
    shown = escape(text)
    shown.encode("utf-8")
    assert unescape(shown) == text


def test_a_sentence_keeps_its_backslashes_and_is_one_line() -> None:
    assert clean("C:\\data\nis\x1b[1m gone") == "C:\\data is\\x1b[1m gone"


def test_there_is_one_escaper_of_names() -> None:
    for path in PACKAGE.rglob("*.py"):
        if path.name != "text.py" and not path.name.endswith("_pb2.py"):
            source = path.read_text(encoding="utf-8")
            # What reads code of Python, or text that protobuf escaped, escapes nothing itself.
            assert 'encode("unicode_escape"' not in source, path
            assert "backslashreplace" not in source or path.parts[-2] == "cli", path


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1 << 20, "1.0 MiB"),
        (5 << 50, "5120.0 TiB"),
    ],
)
def test_a_size_has_the_unit_that_suits_it(size: int, shown: str) -> None:
    assert size_text(size) == shown


def test_a_shape_has_no_blanks_and_one_thing_has_no_plural() -> None:
    assert shape_text((3, 4)) == "[3,4]"
    assert shape_text(()) == "[]"
    assert count(1, "tensor") == "1 tensor"
    assert count(2000, "tensor") == "2,000 tensors"


@pytest.mark.parametrize(("text", "cells"), [("abc", 3), ("变", 2), ("e\u0301", 1), ("", 0)])
def test_wide_characters_take_two_cells_and_accents_none(text: str, cells: int) -> None:
    assert cell_width(text) == cells


@pytest.mark.parametrize(
    ("number", "name"),
    [
        (1, "float32"),
        (2, "float64"),
        (19, "float16"),
        (14, "bfloat16"),
        (7, "string"),
        (11, "qint8"),
        (101, "float32_ref"),
        (77, "kind-77"),
    ],
)
def test_a_kind_of_element_is_called_as_numpy_calls_it(number: int, name: str) -> None:
    assert ckptparse.element_name(number) == name


@pytest.mark.parametrize(
    ("kind", "plain"),
    [
        ("bfloat16", "float32"),
        ("float8_e5m2", "float32"),
        ("float8_e4m3fn", "float32"),
        ("int4", "int8"),
        ("uint4", "uint8"),
    ],
)
def test_kinds_that_numpy_lacks_keep_their_values_in_a_wider_one(kind: str, plain: str) -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    array = np.array([1, 2, 3], np.int8).astype(getattr(ml_dtypes, kind))
    wide = ckptparse.plain_values(array)
    assert wide.dtype == plain
    assert wide.tolist() == [1, 2, 3]


@pytest.mark.parametrize("kind", ["float32", "int64", "bool", "complex64", "object", "S3"])
def test_kinds_of_numpy_stay_as_they_are(kind: str) -> None:
    array = np.zeros(2, kind)
    assert ckptparse.plain_values(array) is array


def test_the_widening_of_bfloat16_keeps_every_bit() -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    every = np.arange(1 << 16, dtype=np.uint16).view(ml_dtypes.bfloat16)
    wide = ckptparse.plain_values(every).view(np.uint32)
    quiet = 1 << 22  # A processor may set this bit of a signalling NaN.
    assert ((wide | quiet) == (np.arange(1 << 16, dtype=np.uint32) << 16 | quiet)).all()


def hints() -> list[str]:
    """Return every hint in the library's code, with `...` for what is worked out."""
    found = []
    for path in PACKAGE.rglob("*.py"):
        if "cli" in path.parts or "tf" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.keyword) and node.arg in ("hint", "ways"):
                parts = [one for one in ast.walk(node.value) if isinstance(one, ast.Constant)]
                found.append("...".join(str(one.value) for one in parts))
    return found


def test_no_hint_of_the_command_line_names_an_argument_of_python() -> None:
    assert len(hints()) > 100
    arguments = re.compile(r"\b[a-z_]+=(?:True|False|None|'|\[|\{|Limits)")
    named = {hint for hint in hints() if arguments.search(hint)}
    assert len(named) >= 5
    assert {hint for hint in named if arguments.search(as_commands(hint))} == set()


def test_functions_and_arguments_become_commands_and_options() -> None:
    assert as_commands("`ckptparse.open_graph(path)` reads it") == "`ckptparse info` reads it"
    given = "pass limits=Limits(tensor_bytes=...), format='v2' and overwrite=True"
    assert as_commands(given) == "pass --limit tensor_bytes=NUMBER, --format v2 and --overwrite"
