"""Make layouts from shapes that the caller, a container's header or another program gives.

    {"dense/kernel": [784, 10], "step": {"dtype": "int64", "shape": []}}

Shapes do not say the order in a data file. If the data files hold an object graph, its order is
taken. Else names are tried in sorted order, as TensorFlow 1's Saver sorts them, and then in the
order given.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ckptparse.backend import OBJECT_GRAPH_KEY, VARIABLE_SUFFIX
from ckptparse.crc.inversion import is_counter
from ckptparse.dtypes import DataType, item_size
from ckptparse.errors import MalformedError
from ckptparse.graph.object_node import VARIABLE_VALUE
from ckptparse.limits import DEFAULT_LIMITS
from ckptparse.problems import EvidenceRule
from ckptparse.recovery.rebuild.items import PYTHON_STATE, STEM_PARTS
from ckptparse.recovery.rebuild.layout import Layout, Payload, Rule

__all__ = [
    "GivenTensor",
    "KeyName",
    "ShapeMatches",
    "layouts_of_shapes",
    "parse_shapes",
    "say_unused",
]

_MOST_DIMENSIONS = DEFAULT_LIMITS.rank
"""TensorFlow's own bound."""
_METADATA = "__metadata__"
_SHORT_NAMES = {
    "F64": DataType.DT_DOUBLE,
    "F32": DataType.DT_FLOAT,
    "F16": DataType.DT_HALF,
    "BF16": DataType.DT_BFLOAT16,
    "I64": DataType.DT_INT64,
    "I32": DataType.DT_INT32,
    "I16": DataType.DT_INT16,
    "I8": DataType.DT_INT8,
    "U64": DataType.DT_UINT64,
    "U32": DataType.DT_UINT32,
    "U16": DataType.DT_UINT16,
    "U8": DataType.DT_UINT8,
    "BOOL": DataType.DT_BOOL,
    "F8_E4M3": DataType.DT_FLOAT8_E4M3FN,
    "F8_E5M2": DataType.DT_FLOAT8_E5M2,
}
"""The names of dtypes in the headers of safetensors files."""


@dataclass(frozen=True, slots=True)
class GivenTensor:
    """One tensor whose shape was given."""

    name: str
    data_type: int | None
    """None if only the shape was given."""
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class KeyName:
    """A key of an object graph."""

    key: str
    full_name: str = ""
    """The variable's own name, such as `dense/kernel`."""
    attribute: str = VARIABLE_VALUE
    """What the graph calls that what is stored under it."""


_LONG_NAMES = {
    "float16": int(DataType.DT_HALF),
    "float32": int(DataType.DT_FLOAT),
    "float64": int(DataType.DT_DOUBLE),
    "complex64": int(DataType.DT_COMPLEX64),
    "complex128": int(DataType.DT_COMPLEX128),
    "object": int(DataType.DT_STRING),
    "string": int(DataType.DT_STRING),
    "bool": int(DataType.DT_BOOL),
}


def parse_shapes(shapes: Mapping[str, Any]) -> list[GivenTensor]:
    """Take shapes by name: each a shape, an array, or a mapping of `shape` and `dtype`.

    Raises:
        MalformedError: A value is something else.
    """
    return [_parse_one(name, value) for name, value in shapes.items() if name != _METADATA]


def _parse_one(name: str, value: Any) -> GivenTensor:
    if type(value) is dict or (type(value) is not list and isinstance(value, Mapping)):
        return GivenTensor(
            name, _type_of(name, value.get("dtype")), _shape_of(name, value.get("shape"))
        )
    if type(value) is not list and hasattr(value, "shape") and hasattr(value, "dtype"):
        return GivenTensor(name, _type_of(name, value.dtype), _shape_of(name, value.shape))
    return GivenTensor(name, None, _shape_of(name, value))


def _shape_of(name: str, value: Any) -> tuple[int, ...]:
    # JSON has lists only; to ask for a sequence takes a microsecond.
    good = type(value) is list or (
        isinstance(value, Sequence) and not isinstance(value, (str, bytes))
    )
    # The product of very many numbers takes the square of their number.
    good = good and len(value) <= _MOST_DIMENSIONS
    if good and set(map(type, value)) <= {int} and min(value, default=0) >= 0:
        return tuple(value)
    raise MalformedError(
        f"Expected a shape of {name!r} (a list of up to {_MOST_DIMENSIONS} numbers from 0 on), "
        f"found {_shorten(value)}"
    )


def _shorten(value: Any) -> str:
    """Return the start of what was found; of a long list not more is put into words."""
    return f"{value[:40] if isinstance(value, list) else value!r:.80}"


def _type_of(name: str, value: Any) -> int | None:
    if value is None:
        return None
    text = str(value)
    if text in _SHORT_NAMES:
        return _SHORT_NAMES[text]
    if text in _LONG_NAMES:
        return _LONG_NAMES[text]
    try:
        plain = (
            text
            if f"DT_{text.upper()}" in DataType.__members__
            else np.dtype(value if isinstance(value, (type, np.dtype)) else text).name
        )
    except (TypeError, ValueError, SyntaxError, DeprecationWarning):
        plain = text
    found = _LONG_NAMES.get(plain) or DataType.__members__.get(f"DT_{plain.upper()}")
    if found is None:
        raise MalformedError(f"Expected a dtype of {name!r}, such as float32, found {text!r:.80}")
    return int(found)


def layouts_of_shapes(
    given: Sequence[GivenTensor], sizes: Sequence[int], keys: Sequence[KeyName] = ()
) -> Iterator[Layout]:
    """Iterate over the orders in which given tensors may be stored, the likeliest first.

    Args:
        given: The tensors.
        sizes: Sizes of the data files, which are filled one after another.
        keys: The keys of the object graph that was found there, in its order.
    """
    matches = ShapeMatches(given)
    matched = [one for key in keys for one in _match_key(matches, key)]
    if keys and None not in matched:
        payloads = [one for one in matched if one is not None]
        payloads.append(Payload(OBJECT_GRAPH_KEY, DataType.DT_STRING, ()))
        yield from _split(payloads, sizes, Rule.OBJECT_GRAPH)
    made = [_payload_of(tensor) for tensor in given]
    names = [tensor.name.encode("utf-8", "surrogateescape") for tensor in given]
    order = sorted(range(len(given)), key=names.__getitem__)
    yield from _split([made[number] for number in order], sizes, Rule.SORTED_NAMES)
    if order != list(range(len(given))):
        yield from _split(made, sizes, Rule.GIVEN_ORDER)


def _payload_of(tensor: GivenTensor, name: str | None = None) -> Payload:
    data_type = tensor.data_type
    if data_type is None:
        counter = tensor.shape == () and is_counter(tensor.name)
        data_type = DataType.DT_INT64 if counter else DataType.DT_FLOAT
    return Payload(name or tensor.name, data_type, tensor.shape)


def _match_key(matches: ShapeMatches, item: KeyName) -> list[Payload | None]:
    """Give a key the shape that was given under it, its stem or its variable's name.

    None if it stands for tensors of other names, and their shapes were not given.
    """
    names = [item.key + part for part in STEM_PARTS.get(item.attribute, ("",))]
    found = [matches.find(name, item.full_name) for name in names]
    if None not in found:
        shapes = EvidenceRule.GIVEN_SHAPES
        return [
            replace(_payload_of(tensor, name), told=shapes)
            for name, tensor in zip(names, found, strict=True)
            if tensor is not None
        ]
    if item.attribute == PYTHON_STATE:
        return [Payload(item.key, DataType.DT_STRING, ())]
    if item.attribute != VARIABLE_VALUE:
        return [None]
    if is_counter(item.key):
        return [Payload(item.key, DataType.DT_INT64, (), told=EvidenceRule.COUNTER_SIZE)]
    return [Payload(item.key, DataType.DT_FLOAT, None)]


class ShapeMatches:
    """Finds the shape that was given for a key of an object graph."""

    def __init__(self, given: Sequence[GivenTensor]) -> None:
        """Take what was given, under whatever names."""
        self._by_name = {tensor.name.removesuffix(":0"): tensor for tensor in given}

    def find(self, key: str, full_name: str) -> GivenTensor | None:
        """Return what stands under the key, its stem, its variable's name, or the end of that.

        A variable's name may begin with those of models: `small/dense/kernel`.
        """
        names = [key, key.removesuffix(VARIABLE_SUFFIX)]
        parts = full_name.split("/") if full_name else []
        names += ["/".join(parts[start:]) for start in range(max(0, len(parts) - 1))]
        names += [full_name]
        return next((self._by_name[name] for name in names if name in self._by_name), None)


def _split(payloads: Sequence[Payload], sizes: Sequence[int], rule: Rule) -> Iterator[Layout]:
    """Divide payloads among data files, in order, so that each is full."""
    if len(sizes) == 1:
        yield Layout((tuple(payloads),), rule, "")
        return
    shards: list[tuple[Payload, ...]] = []
    rest = list(payloads)
    for size in sizes:
        shard: list[Payload] = []
        left = size
        while rest and (taken := rest[0].size) is not None and taken <= left:
            shard.append(rest.pop(0))
            left -= taken
        if left:
            return
        shards.append(tuple(shard))
    if not rest:
        yield Layout(tuple(shards), rule, "")


def say_unused(given: Sequence[GivenTensor], size: int) -> str:
    """Say that shapes that were given do not fit data files of so many bytes together."""
    kinds = [one.data_type or int(DataType.DT_FLOAT) for one in given]
    wanted = sum(
        math.prod(one.shape) * (item_size(kind) or 0)
        for one, kind in zip(given, kinds, strict=True)
    )
    return (
        f"the shapes that were given were not used: expected data files of {wanted:,} bytes "
        f"(float32 if no dtype is given), found {size:,} bytes; give the shapes of everything that "
        "was saved, of slots and counters too, with their dtypes, in the order of the file"
    )
