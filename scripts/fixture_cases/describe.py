"""Turn what TensorFlow wrote into the plain values that stand in the expected `.json` files.

A tensor becomes ``{"name", "dtype", "shape", "nbytes", "sha256", "values"}``:

* ``dtype``: TensorFlow's name (``float32``, ``qint8``, ``float8_e5m2``, ``string`` ...).
* ``sha256``: over the little-endian bytes in C order. Kinds of fewer than eight bits count one byte
  an element, the value in the low bits and zeros above. Strings: for each element its length as
  eight bytes, little-endian, and then its bytes. Variants: the payload as it is stored.
* ``values``: a flat list in C order, for small tensors only. Complex numbers are pairs, a NaN is
  ``"nan:"`` and its bits, infinities are ``"inf"`` and ``"-inf"``; in a string each character
  stands for one byte (Latin-1).
* ``elements``: of a variant, what each element says of itself.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
SHOWN_ELEMENTS = 64
SHOWN_STRING_BYTES = 512
LOW_BITS = {"int4": 0x0F, "uint4": 0x0F, "int2": 0x03, "uint2": 0x03, "float4_e2m1fn": 0x0F}


class Row(dict[str, Any]):
    """A value that is written on one line."""


def raw_bytes(array: Array, dtype: str) -> bytes:
    """Return the bytes that the digest covers."""
    if dtype == "string":
        return b"".join(len(s).to_bytes(8, "little") + s for s in string_elements(array))
    data = np.ascontiguousarray(array).tobytes()
    if dtype in LOW_BITS:
        return bytes(byte & LOW_BITS[dtype] for byte in data)
    return data


def string_elements(array: Any) -> list[bytes]:
    """Return the elements of a string tensor in C order."""
    return [bytes(element) for element in np.asarray(array, dtype=object).ravel()]


def describe_tensor(name: str, dtype: str, array: Any) -> dict[str, Any]:
    """Describe one tensor, with its values where it is small."""
    array = np.asarray(array, dtype=object) if dtype == "string" else np.asarray(array)
    data = raw_bytes(array, dtype)
    described = Row(
        name=name,
        dtype=dtype,
        shape=list(array.shape),
        nbytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
    )
    if array.size <= SHOWN_ELEMENTS and not (dtype == "string" and len(data) > SHOWN_STRING_BYTES):
        described["values"] = readable_values(array, dtype)
    return described


def readable_values(array: Array, dtype: str) -> list[Any]:
    """Return the elements as JSON values (see the module's docstring)."""
    if dtype == "string":
        return [element.decode("latin-1") for element in string_elements(array)]
    flat = np.ascontiguousarray(array).reshape(-1)
    if array.dtype.kind in "biu" or dtype in ("int4", "uint4", "int2", "uint2"):
        return [bool(x) if dtype == "bool" else int(x) for x in flat]
    if array.dtype.kind == "c":
        parts = flat.view(flat.real.dtype)
        numbers = readable_floats(parts)
        return [list(pair) for pair in zip(numbers[::2], numbers[1::2], strict=True)]
    return readable_floats(flat)


def readable_floats(flat: Array) -> list[Any]:
    """Return floats as numbers, NaNs as their bits, infinities as words."""
    size = flat.dtype.itemsize
    data = flat.tobytes()
    chunks = [data[i : i + size] for i in range(0, len(data), size)]
    return [readable_float(x, chunk) for x, chunk in zip(flat, chunks, strict=True)]


def readable_float(value: Any, data: bytes) -> Any:
    """Return one float as a number or a word."""
    number = float(value)
    if np.isnan(number):
        return "nan:" + data[::-1].hex()
    if number in (float("inf"), float("-inf")):
        return "inf" if number > 0 else "-inf"
    return float(str(value)) if isinstance(value, np.floating) else number


def dump_json(value: Any, indent: int = 0, width: int = 110) -> str:
    """Format JSON with short values on one line and long ones spread out."""
    flat = json.dumps(value)
    if len(flat) + indent <= width or isinstance(value, Row) or is_plain(value):
        return flat
    pad = " " * (indent + 1)
    if isinstance(value, dict):
        items = [f"{json.dumps(k)}: {dump_json(v, indent + 1, width)}" for k, v in value.items()]
        return "{\n" + ",\n".join(pad + item for item in items) + "\n" + " " * indent + "}"
    rows = [pad + dump_json(item, indent + 1, width) for item in value]
    return "[\n" + ",\n".join(rows) + "\n" + " " * indent + "]"


def is_plain(value: Any) -> bool:
    """Tell whether a value is neither a list nor a dictionary, or a list of plain numbers."""
    if isinstance(value, list):
        return all(isinstance(x, int | float) for x in value)
    return not isinstance(value, dict)


def describe_object_graph(serialized: bytes) -> dict[str, Any]:
    """Describe the nodes of a serialized TrackableObjectGraph."""
    from tensorflow.core.protobuf import trackable_object_graph_pb2

    graph = trackable_object_graph_pb2.TrackableObjectGraph.FromString(serialized)
    return {
        "sha256": hashlib.sha256(serialized).hexdigest(),
        "nbytes": len(serialized),
        "nodes": [describe_node(node) for node in graph.nodes],
    }


def describe_node(node: Any) -> dict[str, Any]:
    """Describe one node; what it does not have is left out."""
    described = Row()
    if node.children:
        described["children"] = [[c.local_name, c.node_id] for c in node.children]
    if node.attributes:
        described["attributes"] = [[a.name, a.full_name, a.checkpoint_key] for a in node.attributes]
    if node.slot_variables:
        described["slots"] = [
            [s.original_variable_node_id, s.slot_name, s.slot_variable_node_id]
            for s in node.slot_variables
        ]
    if node.HasField("registered_saver"):
        described["registered_saver"] = [
            node.registered_saver.name,
            node.registered_saver.object_name,
        ]
    if node.HasField("has_checkpoint_values"):
        described["has_values"] = node.has_checkpoint_values.value
    return described


def sorted_tensors(tensors: Mapping[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Return descriptions in the order of their names' bytes, as TensorFlow sorts."""
    return [tensors[name] for name in sorted(tensors, key=name_bytes)]


def name_bytes(name: str) -> bytes:
    """Return the bytes of a name; bytes that are not UTF-8 stand as surrogate escapes."""
    return name.encode("utf-8", "surrogateescape")


def name_text(name: bytes | str) -> str:
    """Return the text of a name."""
    return name if isinstance(name, str) else name.decode("utf-8", "surrogateescape")


def total_size(paths: Iterable[Any]) -> int:
    """Return the bytes of all files in `paths`."""
    return sum(path.stat().st_size for path in paths)


def describe_variant(name: str, shape: list[int], payload: bytes) -> dict[str, Any]:
    """Describe a variant tensor from its payload; the digest is over the payload as stored.

    elements: for each its type name, its metadata (Latin-1) and the tensors in it.
    """
    return {
        "name": name,
        "dtype": "variant",
        "shape": shape,
        "nbytes": len(payload),
        "sha256": hashlib.sha256(payload).hexdigest(),
        "elements": [describe_element(proto) for proto in variant_protos(payload)],
    }


def variant_protos(payload: bytes) -> Iterable[Any]:
    """Yield the messages of a variant payload: varint length, message, four bytes of checksum."""
    from tensorflow.core.framework import tensor_pb2

    pos = 0
    while pos < len(payload):
        size = shift = 0
        while True:
            byte = payload[pos]
            size |= (byte & 0x7F) << shift
            pos, shift = pos + 1, shift + 7
            if byte < 0x80:
                break
        yield tensor_pb2.VariantTensorDataProto.FromString(payload[pos : pos + size])
        pos += size + 4


def describe_element(proto: Any) -> dict[str, Any]:
    """Describe one variant element; what an inner variant holds is left out."""
    import tensorflow as tf

    tensors = []
    for tensor in proto.tensors:
        dtype = tf.as_dtype(tensor.dtype).name
        if dtype == "variant":
            tensors.append(Row(dtype=dtype, shape=[d.size for d in tensor.tensor_shape.dim]))
        else:
            tensors.append(describe_tensor("", dtype, tf.make_ndarray(tensor)))
    metadata = proto.metadata.decode("latin-1")
    return {"type_name": proto.type_name, "metadata": metadata, "tensors": tensors}
