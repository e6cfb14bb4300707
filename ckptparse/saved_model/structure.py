"""StructuredValue: nested Python values in a message (struct.proto).

    1 none   11 float64   12 int64   13 string   14 bool   31 shape   32 dtype   33 tensor spec
    34 type spec   35 bounded tensor spec   51 list   52 tuple   53 dict   54 named tuple
    55 tensor   56 numpy

The signatures of functions are such values, with a `TensorSpec` where a tensor goes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ckptparse.graph.attributes import Shape, data_type_or_number, shape_or_unknown
from ckptparse.proto.struct_pb2 import StructuredValue

__all__ = ["TensorSpec", "TypeSpec", "decode_structure"]


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """What a tensor must be.

    Attributes:
        name: Of the argument; empty if it has none.
        data_type: DataType number.
        shape: Dimensions, None for an unknown one; None for a shape of unknown rank.
    """

    name: str
    data_type: int
    shape: Shape


@dataclass(frozen=True, slots=True)
class TypeSpec:
    """What a value of several tensors must be.

    Attributes:
        class_name: Such as `RaggedTensorSpec`.
        state: Its parts, decoded.
    """

    class_name: str
    state: Any


def decode_structure(value: StructuredValue) -> Any:
    """Decode a value; its nesting was bounded when it was parsed.

    Returns:
        None, numbers, strings, lists, tuples, dictionaries (a named tuple is one too), a
        `TensorSpec`, a `TypeSpec`, a DataType or a shape; a tensor stays a message.
    """
    kind = value.WhichOneof("kind")
    if kind is None or kind == "none_value":
        return None
    found = getattr(value, kind)
    decode = _DECODERS.get(kind)
    return found if decode is None else decode(found)


def _decode_spec(proto: Any) -> TensorSpec:
    return TensorSpec(proto.name, data_type_or_number(proto.dtype), shape_or_unknown(proto.shape))


def _decode_type_spec(proto: Any) -> TypeSpec:
    return TypeSpec(proto.type_spec_class_name, decode_structure(proto.type_state))


_DECODERS: Mapping[str, Callable[[Any], Any]] = {
    "tensor_shape_value": shape_or_unknown,
    "tensor_dtype_value": data_type_or_number,
    "tensor_spec_value": _decode_spec,
    "bounded_tensor_spec_value": _decode_spec,
    "type_spec_value": _decode_type_spec,
    "list_value": lambda proto: [decode_structure(item) for item in proto.values],
    "tuple_value": lambda proto: tuple(decode_structure(item) for item in proto.values),
    "dict_value": lambda proto: {
        key: decode_structure(proto.fields[key]) for key in sorted(proto.fields)
    },
    "named_tuple_value": lambda proto: {
        pair.key: decode_structure(pair.value) for pair in proto.values
    },
}
