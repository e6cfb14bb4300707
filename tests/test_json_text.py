"""JSON with indentation, which must be the standard library's to the character."""

from __future__ import annotations

import json
import math
from enum import Enum
from typing import Any

import pytest

from ckptparse.json_text import format_json


class Word(str, Enum):
    """A string of a kind of its own."""

    ONE = "one"


VALUES: list[Any] = [
    None,
    True,
    -7,
    1e300,
    0.1,
    "",
    'quotes " and \\, a line\n, ü, \U0001f600, a lone \udc80',
    [],
    {},
    (),
    [[], {}, [[1]], (2, (3,))],
    {"a": {"b": [1, {"c": None}], "d": {}}, "": [True, False], "e": Word.ONE, "f": 2**70},
]


@pytest.mark.parametrize("indent", [1, 2])
@pytest.mark.parametrize("value", VALUES, ids=range(len(VALUES)))
def test_it_is_what_the_standard_library_gives(value: Any, indent: int) -> None:
    assert format_json(value, indent=indent) == json.dumps(value, indent=indent, allow_nan=False)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_none_is_refused(number: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        format_json({"a": [number]}, indent=1)


def test_what_is_not_plain_is_refused() -> None:
    with pytest.raises(TypeError, match="not JSON serializable"):
        format_json([object()], indent=1)
