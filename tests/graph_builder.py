"""Build graphs as bytes (sections 6 and 8.4 of docs/format.md). Never imports the package it tests.

>>> graph([node("w", "Const", value=attr_tensor(...)), node("y", "Identity", "w")])
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import builder
from builder import field, field32, shape_proto, tensor_proto


def attr(key: str, value: bytes) -> bytes:
    """One entry of a map of attributes: the value is an AttrValue."""
    return field(5, entry(key, value))


def entry(key: str, value: bytes) -> bytes:
    return field(1, key.encode()) + field(2, value)


def of_tensor(*parts: bytes, number: int = builder.FLOAT, dims: Sequence[int] = ()) -> bytes:
    return field(8, tensor_proto(number, dims, *parts))


def of_type(number: int) -> bytes:
    return field(6, number)


def of_shape(*dims: int) -> bytes:
    return field(7, shape_proto(dims))


def of_string(value: bytes) -> bytes:
    return field(2, value)


def of_function(name: str, **attributes: bytes) -> bytes:
    inner = b"".join(field(2, entry(key, value)) for key, value in attributes.items())
    return field(10, field(1, name.encode()) + inner)


def of_float(bits: int) -> bytes:
    return field32(4, bits)


def node(name: str, op: str, *inputs: str, device: str = "", **attributes: bytes) -> bytes:
    """A NodeDef."""
    out = field(1, name.encode()) + field(2, op.encode())
    out += b"".join(field(3, text.encode()) for text in inputs)
    out += field(4, device.encode()) if device else b""
    return out + b"".join(attr(key, value) for key, value in attributes.items())


def constant(
    name: str, *parts: bytes, number: int = builder.FLOAT, dims: Sequence[int] = ()
) -> bytes:
    value = of_tensor(*parts, number=number, dims=dims)
    return node(name, "Const", dtype=of_type(number), value=value)


def strings(name: str, *values: bytes) -> bytes:
    parts = [field(8, value) for value in values]
    return constant(name, *parts, number=builder.STRING, dims=[len(values)])


def variable(name: str, *dims: int, op: str = "VarHandleOp", shared: str = "") -> bytes:
    return node(
        name,
        op,
        dtype=of_type(builder.FLOAT),
        shape=of_shape(*dims),
        shared_name=of_string(shared.encode()),
    )


def function(
    name: str,
    inputs: Sequence[str],
    nodes: Sequence[bytes],
    outputs: Mapping[str, str] | None = None,
    **attributes: bytes,
) -> bytes:
    """A FunctionDef."""
    arguments = b"".join(field(2, field(1, argument.encode())) for argument in inputs)
    out = field(1, field(1, name.encode()) + arguments)
    out += b"".join(field(3, body) for body in nodes)
    pairs = (outputs or {}).items()
    out += b"".join(field(4, entry(key, text.encode())) for key, text in pairs)
    return out + b"".join(attr(key, value) for key, value in attributes.items())


def gradient(function: str, computed_by: str) -> bytes:
    """A GraphDef with a library in which one function is the gradient of another."""
    return field(2, field(2, field(1, function.encode()) + field(2, computed_by.encode())))


def graph(
    nodes: Sequence[bytes], functions: Sequence[bytes] = (), *, version: bytes | None = None
) -> bytes:
    """A GraphDef."""
    out = b"".join(field(1, body) for body in nodes)
    out += field(2, b"".join(field(1, body) for body in functions)) if functions else b""
    return out + field(4, builder.version_proto(21) if version is None else version)


def meta_graph(
    graph_def: bytes,
    *,
    tensorflow: str = "1.15.0",
    saver: bytes | None = None,
    collections: Mapping[str, bytes] | None = None,
) -> bytes:
    """A MetaGraphDef; collections are CollectionDefs by name."""
    out = field(1, field(2, field(1, field(1, b"Const"))) + field(5, tensorflow.encode()))
    out += field(2, graph_def)
    out += field(3, saver) if saver is not None else b""
    pairs = (collections or {}).items()
    return out + b"".join(field(4, entry(key, value)) for key, value in pairs)
