"""A tensor, and one element of a variant tensor, as messages: what `tensor_proto` decodes.

As TensorFlow writes them inside a variant: every element in the typed field of its kind, none left
out, packed if the field is one of numbers (docs/format.md, section 6.7).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ckptparse.coding.varint import encode_varint
from ckptparse.dtypes import DataType
from ckptparse.elements import iter_stored
from ckptparse.proto.tensor_shape_pb2 import TensorShapeProto
from ckptparse.proto.wire import BYTES, VARINT
from ckptparse.tensor_like import data_type_of_array
from ckptparse.tensor_proto import Variant
from ckptparse.typed_fields import TYPED_FIELDS

__all__ = ["encode_tensor", "encode_variant"]

_UINT64 = (1 << 64) - 1


def encode_variant(variant: Variant) -> bytes:
    """Encode a VariantTensorDataProto.

    Raises:
        UnsupportedError: One of its tensors has a kind of element that TensorFlow lacks.
    """
    out = bytearray()
    if variant.type_name:
        out += _field(1, variant.type_name.encode())
    if variant.metadata:
        out += _field(2, variant.metadata)
    for array in variant.tensors:
        out += _field(3, encode_tensor(array))
    return bytes(out)


def encode_tensor(array: npt.NDArray[Any]) -> bytes:
    """Encode a TensorProto, its values in the typed field."""
    data_type = data_type_of_array(array)
    dims = [TensorShapeProto.Dim(size=size) for size in array.shape]
    shape = TensorShapeProto(dim=dims).SerializeToString(deterministic=True)
    head = encode_varint(1 << 3 | VARINT) + encode_varint(data_type) + _field(2, shape)
    number, wire = TYPED_FIELDS[data_type]
    if data_type in (DataType.DT_STRING, DataType.DT_VARIANT):
        values = array.reshape(-1).tolist()
        return head + b"".join(_field(number, _encode_object(value)) for value in values)
    if not array.size:
        return head
    packed = _encode_varints(array) if wire == VARINT else b"".join(iter_stored(array, data_type))
    return head + _field(number, packed)


def _encode_object(value: Any) -> bytes:
    if isinstance(value, Variant):
        return encode_variant(value)
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogateescape")


def _encode_varints(array: npt.NDArray[Any]) -> bytes:
    """Encode integers; negative ones as 64 bits, and the 16 bits of half and bfloat16 as one."""
    flat = np.ascontiguousarray(array).reshape(-1)
    if flat.dtype.name in ("float16", "bfloat16"):
        flat = flat.astype(flat.dtype.newbyteorder("=")).view(np.uint16)
    elif flat.dtype.kind == "V" or flat.dtype.name in ("int4", "uint4", "int2", "uint2"):
        flat = flat.astype(np.int8)
    return b"".join(encode_varint(value & _UINT64) for value in map(int, flat.tolist()))


def _field(number: int, data: bytes) -> bytes:
    return encode_varint(number << 3 | BYTES) + encode_varint(len(data)) + data
