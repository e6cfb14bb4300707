"""Graphs that have what those of the fixtures have not: paths, calls, and kernels of every use."""

from __future__ import annotations

import json
from collections.abc import Iterator

import builder as b
import graph_builder as g
import numpy as np

__all__ = ["graphs_of_paths", "keras_texts", "used_kernels"]

_TRUE = b.field(5, 1)
_KERNELS: tuple[tuple[tuple[int, ...], bytes], ...] = (
    ((2, 3), g.node("y", "MatMul", "x", "read")),
    ((2, 3), g.node("y", "MatMul", "read", "x", transpose_a=_TRUE)),
    ((2, 3, 4), g.node("y", "BatchMatMulV2", "x", "read")),
    ((2, 3), g.node("y", "Einsum", "x", "read", equation=g.of_string(b"ab,bc->ac"))),
    ((2, 3, 4), g.node("y", "Einsum", "x", "read", equation=g.of_string(b"abc,cde->abde"))),
    ((2, 3), g.node("y", "Einsum", "x", "read", equation=g.of_string(b"ab,ab->ab"))),
    ((2, 3), g.node("y", "Einsum", "read", equation=g.of_string(b"a...->a"))),
    ((3, 3, 2, 4), g.node("y", "Conv2D", "x", "read")),
    ((3, 3, 2, 4), g.node("y", "DepthwiseConv2dNative", "x", "read")),
    ((3, 2, 4), g.node("y", "Conv2DBackpropInput", "x", "read")),
    ((7, 2), g.node("y", "ResourceGather", "w", "x")),
    ((2, 3), g.node("gradients/y", "MatMul", "x", "read")),
    ((2, 3), g.node("y", "NoOp")),
)


def used_kernels() -> Iterator[dict[str, bytes]]:
    """Give checkpoints of one kernel, each with the graph that uses it."""
    for shape, use in _KERNELS:
        nodes = [g.variable("w", *shape), g.node("read", "ReadVariableOp", "w")]
        nodes += [g.node("x", "Placeholder"), use]
        yield _with_graph(shape, nodes)
    for dims in ((-1, 4), (6, 4), (2, 12)):
        size = g.constant(
            "size", b.field(4, np.array(dims, np.int32).tobytes()), number=b.INT32, dims=[2]
        )
        nodes = [g.variable("w", 2, 3, 4), g.node("read", "ReadVariableOp", "w"), size]
        nodes += [g.node("flat", "Reshape", "read", "size"), g.node("cast", "Cast", "flat")]
        nodes += [g.node("x", "Placeholder"), g.node("y", "MatMul", "x", "cast")]
        yield _with_graph((2, 3, 4), nodes)
    for kind, slots in (("Adam", 4), ("Momentum", 1), ("RMSProp", 3), ("AdagradV2", 1)):
        names = ["w", *(f"w/{kind}_{n}" for n in range(slots)), "beta1_power"]
        nodes = [g.variable(name, 2, 3) for name in names]
        apply = g.node(f"train/{kind}/update_w/Apply", f"ResourceApply{kind}", *names)
        yield _with_graph((2, 3), [*nodes, apply], names)


def _with_graph(
    shape: tuple[int, ...], nodes: list[bytes], names: list[str] | None = None
) -> dict[str, bytes]:
    made = b.Bundle()
    for name in sorted(names or ["w"]):
        made.add(name, np.arange(np.prod(shape), dtype=np.float32).reshape(shape))
    return {**made.files("m"), "m.meta": g.meta_graph(g.graph(nodes))}


def graphs_of_paths() -> Iterator[bytes]:
    """Give graphs that read and write files under names of every origin."""
    read = g.node("read", "ReadFile", "path")
    write = g.node("w", "WriteFile", "path", "path")
    name = g.strings("path", b"/home/x")
    inner = g.function("inner", ["file"], [g.node("read", "ReadFile", "file")])
    gives = g.function("make", [], [name], {"out": "path:output:0"})
    calls = [g.node("call", "StatefulPartitionedCall", "path", f=g.of_function("inner"))]
    outer = g.function(
        "outer", ["path"], [g.node("c", "PartitionedCall", "path", f=g.of_function("inner"))]
    )
    carried = g.graph([name, write])
    branch = g.function("b", [], [g.node("py", "PyFunc", token=g.of_string(b"pyfunc_0"))])
    branches = b.field(1, g.of_function("b"))
    assigned = [g.node("v", "VarHandleOp"), name, g.node("set", "AssignVariableOp", "v", "path")]
    yield g.graph([name, read, write])
    yield g.graph([g.strings("path", b"https://host/x"), read])
    yield g.graph(
        [
            *(g.strings("a", b"/home"), g.strings("c", b"x"), read),
            g.node("path", "StringJoin", "a", "c", separator=g.of_string(b"/")),
        ]
    )
    yield g.graph([g.node("p", "Placeholder"), g.node("path", "Identity", "p"), read])
    yield g.graph([g.node("path", "DecodeBase64", "x"), g.strings("x", b"L2V0Yw"), read])
    yield g.graph([g.node("path", "PlaceholderWithDefault", "d"), g.strings("d", b"/x"), read])
    yield g.graph([name, *calls], [inner])
    yield g.graph([name, g.node("c", "PartitionedCall", "path", f=g.of_function("outer"))], [outer])
    yield g.graph([name, g.node("c", "outer", "path")], [outer, inner])
    yield g.graph([g.node("path", "PartitionedCall", f=g.of_function("make")), read], [gives])
    yield g.graph([g.node("a", "Identity", "path"), g.node("path", "Identity", "a"), read])
    yield g.graph([g.strings("bytes", carried), g.node("run", "DatasetFromGraph", "bytes")])
    yield g.graph(
        [
            *(g.strings("bytes", carried), g.node("same", "PlaceholderWithDefault", "bytes")),
            g.node("run", "DatasetFromGraph", "same"),
        ]
    )
    body = [g.node("run", "DatasetFromGraph", "given")]
    takes = g.function("takes", ["given"], body)
    call = g.node("call", "PartitionedCall", "bytes", f=g.of_function("takes"))
    yield g.graph([g.strings("bytes", carried), call], [takes])
    yield g.graph([g.node("case", "Case", "which", branches=branches)], [branch])
    yield g.graph([g.node("map", "MapDataset", "in", f=g.of_function("WriteFile"))])
    yield g.graph([g.node("trt", "TRTEngineOp", "x"), g.node("py", "PyFunc")])
    yield g.graph([*assigned, g.node("path", "ReadVariableOp", "v"), read])
    yield g.graph([g.node("path", "ReadVariableOp", "v"), g.node("v", "VarHandleOp"), read])
    yield g.graph([g.node("q", "TextLineReaderV2"), g.node("t", "InitializeTableFromTextFileV2")])
    yield g.graph([name, g.node("s", "SaveV2", "path", "n", "s"), g.node("p", "Print", "path")])
    alike = [
        g.function(
            one, ["x"], [g.node("w", "WriteFile", "x", "x")], api_implements=g.of_string(b"i")
        )
        for one in ("first", "second")
    ]
    call = g.node("call", "PartitionedCall", "path", f=g.of_function("first"))
    yield g.graph([name, call], alike) + g.gradient("first", "second")


def listed_constants() -> bytes:
    """Make a graph whose constants have many values, a tag each: numbers and short strings."""
    count, nodes = 80, b""
    for kind, values in (
        (b.INT32, [b.field(7, 1000 * number) for number in range(count)]),
        (b.FLOAT, [b.field32(5, number << 20) for number in range(count)]),
        (b.STRING, [b.field(8, b"x" * (number % 9)) for number in range(count)]),
    ):
        tensor = b.field(1, kind) + b.field(2, b.shape_proto([count])) + b"".join(values)
        value = b.field(1, b"value") + b.field(2, b.field(8, tensor))
        dtype = b.field(1, b"dtype") + b.field(2, b.field(6, kind))
        node = b.field(1, b"c%d" % kind) + b.field(2, b"Const") + b.field(5, value)
        nodes += b.field(1, node + b.field(5, dtype))
    return nodes


def keras_texts() -> Iterator[dict[str, object]]:
    """Give what Keras writes of layers that run something, or are described oddly."""
    code = "4wEAAAAAAAAAAAAAAAEAAAABAAAAUwAAAHMIAAAAfAB0AGoBgwFTACkC"
    yield {"class_name": "Lambda", "config": {"name": "l", "function": [code, None, None]}}
    yield {
        "class_name": "Lambda",
        "module": "keras.layers",
        "config": {
            "function": {"class_name": "__lambda__", "config": {"code": code}},
            "arguments": {"a": 1},
        },
    }
    functions = ("tf.io.read_file", "tf.py_function", "keras.utils.get_file", "os.system", "relu")
    for function in functions:
        yield {
            "class_name": "TFOpLambda",
            "module": "keras.layers",
            "config": {"function": function, "name": function},
        }
        yield {
            "class_name": "function",
            "module": function.rpartition(".")[0],
            "config": function.rpartition(".")[2],
            "registered_name": function,
        }
    yield {"class_name": "mine>Layer", "module": "mine", "config": {"name": "x"}}
    yield {"class_name": "TextVectorization", "config": {"vocabulary": "gs://b/words.txt"}}
    yield {"class_name": "StringLookup", "config": {"vocabulary": "/home/words.txt"}}
    yield {"class_name": "__tensor__", "config": {"value": [1]}}
    yield json.loads(
        '{"class_name": "Sequential", "config": {"layers": [{"class_name": "Dense"}]}}'
    )
