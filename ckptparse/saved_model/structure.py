"""StructuredValue: nested Python values in a message (struct.proto).

    1 none   11 float64   12 int64   13 string   14 bool   31 shape   32 dtype   33 tensor spec
    34 type spec   35 bounded tensor spec   51 list   52 tuple   53 dict   54 named tuple
    55 tensor   56 numpy

The signatures of functions are such values, with a `TensorSpec` where a tensor goes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sized
from dataclasses import dataclass
from typing import Any

from ckptparse.graph.attributes import Shape, data_type_or_number, shape_or_unknown
from ckptparse.limits import NUMBERS_AN_OBJECT, VALUES_AN_OBJECT, Objects
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


def decode_structure(value: StructuredValue, objects: Objects) -> Any:
    """Decode a value; its nesting was bounded when it was parsed.

    Args:
        value: The message.
        objects: How many objects it may become.

    Returns:
        None, numbers, strings, lists, tuples, dictionaries (a named tuple is one too), a
        `TensorSpec`, a `TypeSpec`, a DataType or a shape; a tensor stays a message.

    Raises:
        LimitError: It has more values than `Limits.objects` allows.
    """
    kind = value.WhichOneof("kind")
    if kind is None or kind == "none_value":
        return None
    found = getattr(value, kind)
    decode = _DECODERS.get(kind)
    return found if decode is None else decode(found, objects)


def _decode_shape(proto: Any, objects: Objects) -> Shape:
    objects.take(len(proto.dim) / NUMBERS_AN_OBJECT)
    return shape_or_unknown(proto)


def _decode_spec(proto: Any, objects: Objects) -> TensorSpec:
    shape = _decode_shape(proto.shape, objects)
    return TensorSpec(proto.name, data_type_or_number(proto.dtype), shape)


def _decode_type_spec(proto: Any, objects: Objects) -> TypeSpec:
    return TypeSpec(proto.type_spec_class_name, decode_structure(proto.type_state, objects))


def _decode_list(proto: Any, objects: Objects) -> list[Any]:
    _count(proto.values, objects)
    return [decode_structure(item, objects) for item in proto.values]


def _decode_dict(proto: Any, objects: Objects) -> dict[str, Any]:
    _count(proto.fields, objects)
    return {key: decode_structure(proto.fields[key], objects) for key in sorted(proto.fields)}


def _decode_named_tuple(proto: Any, objects: Objects) -> dict[str, Any]:
    _count(proto.values, objects)
    return {pair.key: decode_structure(pair.value, objects) for pair in proto.values}


def _count(values: Sized, objects: Objects) -> None:
    objects.take(len(values) / VALUES_AN_OBJECT)


_DECODERS: Mapping[str, Callable[[Any, Objects], Any]] = {
    "tensor_shape_value": _decode_shape,
    "tensor_dtype_value": lambda value, _: data_type_or_number(value),
    "tensor_spec_value": _decode_spec,
    "bounded_tensor_spec_value": _decode_spec,
    "type_spec_value": _decode_type_spec,
    "list_value": _decode_list,
    "tuple_value": lambda proto, objects: tuple(_decode_list(proto, objects)),
    "dict_value": _decode_dict,
    "named_tuple_value": _decode_named_tuple,
}
