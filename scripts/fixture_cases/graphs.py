"""Frozen graphs, graphs with functions, constants in every encoding, and meta graphs."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from google.protobuf import any_pb2, text_format

from fixture_cases import bundles
from fixture_cases.common import Output, case, tf, tf1
from fixture_cases.graph_facts import describe_graph, describe_meta_graph, describe_saver
from fixture_cases.saver import relative_state
from fixture_cases.slices import initializer_from, numbers


def add_graph(out: Output, filename: str, graph: Any, **facts: Any) -> None:
    """Write a GraphDef, as text if the name says so, and describe it."""
    path = out.root / filename
    if filename.endswith(".pbtxt"):
        path.write_text(text_format.MessageToString(graph))
    else:
        path.write_bytes(graph.SerializeToString(deterministic=True))
    out.data.setdefault("graphs", []).append(
        {"file": filename, "kind": "graph", **describe_graph(graph), **facts}
    )


@case(
    "graphs/frozen_tf1",
    "A TF1 graph whose variables were made constants under their own names, binary and text.",
)
def frozen_tf1(out: Output) -> None:
    rng = out.random()
    with tf1.Graph().as_default() as graph, tf1.Session() as session:
        inputs = tf1.placeholder(tf.float32, (None, 3), name="x")
        with tf1.variable_scope("dense"):
            kernel = tf1.get_variable(
                "kernel", initializer=rng.normal(size=(3, 2)).astype("float32")
            )
            bias = tf1.get_variable("bias", initializer=np.float32([1, -1]))
        tf.nn.relu(tf.matmul(inputs, kernel) + bias, name="y")
        session.run(tf1.global_variables_initializer())
        frozen = tf1.graph_util.convert_variables_to_constants(
            session, graph.as_graph_def(add_shapes=True), ["y"]
        )
    add_graph(out, "frozen.pb", frozen)
    add_graph(out, "frozen.pbtxt", frozen)


@case(
    "graphs/frozen_tf2",
    "A TF2 function with a loop, frozen: constants in the graph and in its library of functions.",
)
def frozen_tf2(out: Output) -> None:
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    kernel = tf.Variable(out.random().normal(size=(2, 2)).astype(np.float32), name="kernel")

    @tf.function(input_signature=[tf.TensorSpec((None, 2), tf.float32, name="x")])
    def loop(x: Any) -> Any:
        for _ in tf.range(3):
            x = tf.nn.tanh(x @ kernel) * 0.5 + tf.constant([0.25, -0.25])
        return x

    frozen = convert_variables_to_constants_v2(
        loop.get_concrete_function(), lower_control_flow=False
    )
    add_graph(out, "frozen.pb", frozen.graph.as_graph_def())


@case(
    "graphs/functions",
    "A graph that calls nested functions, which hold their own constants of several kinds.",
)
def functions(out: Output) -> None:
    @tf.function
    def inner(x: Any) -> Any:
        return tf.strings.join([tf.as_string(x), tf.constant(["a", "b"])], separator="-")

    @tf.function
    def outer(x: Any) -> Any:
        return inner(x + tf.constant([[1, 2], [3, 4]], tf.int64)[0])

    concrete = outer.get_concrete_function(tf.TensorSpec((2,), tf.int64))
    with tf1.Graph().as_default() as graph:
        concrete.add_to_graph()
        tf1.identity(tf.constant([7, 8], tf.int64), name="outside")
        add_graph(out, "graph.pb", graph.as_graph_def())


@case(
    "graphs/constants_of_every_dtype",
    "A Const node of every kind of element, as TensorFlow itself encodes them: a scalar, a vector, "
    "one value repeated and no elements; strings and NaN payloads too.",
    checklist=(123,),
)
def constants_of_every_dtype(out: Output) -> None:
    rng = out.random()
    with tf1.Graph().as_default() as graph:
        for dtype in (*(kind for kind in bundles.NUMERIC if "fnuz" not in kind), "string"):
            vector = bundles.sample(dtype, (5,), rng)
            values = {"vector": vector, "scalar": vector[0], "empty": vector[:0]}
            values["filled"] = np.full((3, 4), vector[1], dtype=vector.dtype)
            for kind, value in values.items():
                tf1.constant(value, tf.as_dtype(dtype), name=f"{dtype}/{kind}")
        nans = np.array([0x7FA00001, 0xFFC00002, 0x80000000], np.uint32).view(np.float32)
        tf1.constant(nans, name="nan/payloads")
    add_graph(out, "graph.pb", graph.as_graph_def())


INTEGER_FIELDS = {
    "int64": "int64_val",
    "uint32": "uint32_val",
    "uint64": "uint64_val",
    "bool": "bool_val",
}


def typed_values(dtype: str, values: Sequence[Any]) -> dict[str, Any]:
    """Return the field of a TensorProto that holds values of `dtype`, and its content."""
    kind = bundles.numpy_type(dtype) if dtype != "string" else None
    if dtype == "string":
        return {"string_val": list(values)}
    if dtype in bundles.COMPLEX:
        field = "scomplex_val" if dtype == "complex64" else "dcomplex_val"
        return {field: [part for value in values for part in (value.real, value.imag)]}
    if dtype in bundles.FLOAT8 or dtype == "float4_e2m1fn":
        return {"float8_val": np.array(values, kind).tobytes()}
    if dtype in ("float16", "bfloat16"):
        return {"half_val": [int(x) for x in np.array(values, kind).view(np.uint16)]}
    if dtype in ("float32", "float64"):
        return {"float_val" if dtype == "float32" else "double_val": [float(v) for v in values]}
    return {INTEGER_FIELDS.get(dtype, "int_val"): [int(value) for value in values]}


def constant(name: str, dtype: str, shape: Sequence[int], **fields: Any) -> Any:
    """Return a Const node whose TensorProto has exactly these fields."""
    node = tf1.NodeDef(name=name, op="Const")
    code = tf.as_dtype(dtype).as_datatype_enum
    tensor = node.attr["value"].tensor
    tensor.dtype = code
    for size in shape:
        tensor.tensor_shape.dim.add(size=size)
    for field, content in fields.items():
        if isinstance(content, list):
            getattr(tensor, field).extend(content)
        else:
            setattr(tensor, field, content)
    node.attr["dtype"].type = code
    return node


@case(
    "graphs/constant_encodings",
    "For every kind of element, four elements from: no value, one, two, four, six, and raw content "
    "with values beside it: zeros, the one repeated, the last repeated, exact, cut, content wins.",
    checklist=(123,),
)
def constant_encodings(out: Output) -> None:
    rng = out.random()
    graph = tf1.GraphDef()
    graph.versions.producer = tf.version.GRAPH_DEF_VERSION
    for dtype in (*bundles.NUMERIC, "string"):
        values = list(bundles.sample(dtype, (6,), rng))
        for count in (0, 1, 2, 4, 6):
            fields = typed_values(dtype, values[:count]) if count else {}
            graph.node.append(constant(f"{dtype}/values{count}", dtype, (2, 2), **fields))
        if dtype != "string":
            content = np.array(values[:4], bundles.numpy_type(dtype)).tobytes()
            fields = {"tensor_content": content, **typed_values(dtype, values[4:5])}
            graph.node.append(constant(f"{dtype}/content", dtype, (2, 2), **fields))
    add_graph(out, "graph.pb", graph)


@case(
    "graphs/odd_constants",
    "Values in a field of another kind (zeros), integers too wide for their kind (they wrap), NaN "
    "payloads in typed fields, an odd half of a complex number, unpacked values, a scalar without "
    "a shape, a string with raw content.",
    checklist=(123,),
)
def odd_constants(out: Output) -> None:
    graph = tf1.GraphDef()
    graph.versions.producer = tf.version.GRAPH_DEF_VERSION
    nodes = [
        constant("wrong_field", "float32", (2,), int_val=[1, 2]),
        constant("wrong_field_int", "int64", (2,), int_val=[1, 2]),
        constant("wraps", "int8", (3,), int_val=[300, -129, 127]),
        constant("wraps_unsigned", "uint16", (2,), int_val=[70000, -1]),
        constant("odd_complex", "complex64", (2,), scomplex_val=[1.0, 2.0, 3.0]),
        constant("strings", "string", (3,), tensor_content=b"\x01\x00\x02abb"),
        constant("scalar", "int32", (), int_val=[5]),
    ]
    typed = {
        "nan_float": ("float32", 5, struct.pack("<3I", 0x7FA00001, 0xFF800001, 0x7FC00000)),
        "nan_double": ("float64", 6, struct.pack("<2Q", 0x7FF4000000000001, 0xFFF0000000000001)),
        "nan_complex": ("complex64", 9, struct.pack("<4I", 0x7FA00001, 0, 0x3F800000, 0xFF800001)),
    }
    for name, (dtype, field, data) in typed.items():
        node = constant(name, dtype, (len(data) // tf.as_dtype(dtype).size,))
        node.attr["value"].tensor.MergeFromString(bytes([field << 3 | 2, len(data)]) + data)
        nodes.append(node)
    unpacked = constant("unpacked", "float32", (2,))
    value = b"".join(bytes([5 << 3 | 5]) + struct.pack("<f", x) for x in (1.5, -2.5))
    unpacked.attr["value"].tensor.MergeFromString(value)
    graph.node.extend([*nodes, unpacked])
    add_graph(out, "graph.pb", graph)


@case(
    "graphs/meta_graph",
    "A MetaGraphDef with two Savers, collections of every kind (integers, "
    "floats, strings, node names, messages), queue runners and a partitioned variable; and one of "
    "a graph without variables, binary and text.",
    checklist=(85, 86, 87, 88, 89),
)
def meta_graph(out: Output) -> None:
    with tf1.Graph().as_default():
        tf1.get_variable("w", initializer=np.float32([1, 2]), use_resource=False)
        resource = tf1.get_variable(
            "r", initializer=np.int64(3), trainable=False, use_resource=True
        )
        tf1.get_variable("parted", (4, 2), partitioner=tf1.fixed_size_partitioner(2))
        tf1.train.get_or_create_global_step()
        queue = tf1.FIFOQueue(2, [tf.int32], name="queue")
        tf1.train.add_queue_runner(tf1.train.QueueRunner(queue, [queue.enqueue([1])]))
        savers = [tf1.train.Saver(), tf1.train.Saver([resource], sharded=True, max_to_keep=3)]
        for saver in savers:
            tf1.add_to_collection(tf1.GraphKeys.SAVERS, saver)
        collections = {
            "integers": [1, -2, 2**40],
            "floats": [0.5, -1.5],
            "strings": ["a", "b"],
            "ops": [queue.queue_ref],
        }
        for name, values in collections.items():
            for value in values:
                tf1.add_to_collection(name, value)
        tf1.add_to_collection("messages", any_pb2.Any(type_url="example.com/x", value=b"\x08\x01"))
        saver_def = savers[0].as_saver_def()
        meta = tf1.train.export_meta_graph(out.path("graph.meta"), saver_def=saver_def)
        add_meta_graph(out, "graph.meta", meta)
        out.note(savers=[describe_saver(saver.as_saver_def()) for saver in savers])
    with tf1.Graph().as_default():
        tf1.constant(1.0, name="alone")
        tf1.add_to_collection("integers", 7)
        for filename in ("without_variables.meta", "without_variables.meta.pbtxt"):
            meta = tf1.train.export_meta_graph(out.path(filename), as_text=filename.endswith("txt"))
            add_meta_graph(out, filename, meta)


def add_meta_graph(out: Output, filename: str, meta: Any) -> None:
    """Describe a MetaGraphDef that was written."""
    facts = describe_graph(meta.graph_def)
    out.data.setdefault("graphs", []).append(
        {"file": filename, "kind": "meta-graph", **facts, **describe_meta_graph(meta)}
    )


@case(
    "graphs/saver_to_rebuild",
    "A sharded Saver over two devices of reference variables, resource variables, a string "
    "variable, one shared by two scopes and a partitioned one: `.meta` and data suffice to make "
    "`.index`.",
    checklist=(93,),
)
def saver_to_rebuild(out: Output) -> None:
    parted = numbers(6, 3)
    words = np.array([b"one", b"", b"\x00\xff", b"x" * 200], object)
    config = tf1.ConfigProto(device_count={"CPU": 2})
    with tf1.Graph().as_default(), tf1.Session(config=config) as session:
        with tf.device("/cpu:0"):
            tf1.get_variable("ref", initializer=numbers(2, 3, dtype="float64"), use_resource=False)
            tf1.get_variable("z/half", initializer=numbers(3, dtype="float16"), use_resource=True)
            tf1.get_variable("words", initializer=words, use_resource=False)
        with tf.device("/cpu:1"):
            for _ in range(2):
                with tf1.variable_scope("shared", reuse=tf1.AUTO_REUSE):
                    tf1.get_variable(
                        "w", dtype=tf.int32, initializer=np.int32([4, 5]), use_resource=False
                    )
            tf1.get_variable("a/scalar", initializer=np.bool_(True), use_resource=True)
            tf1.get_variable(
                "parted",
                (6, 3),
                partitioner=tf1.fixed_size_partitioner(3),
                initializer=initializer_from(parted),
                use_resource=False,
            )
        session.run(tf1.global_variables_initializer())
        saver = tf1.train.Saver(sharded=True)
        saver.save(session, out.path("model"))
    written = {"parted": parted, "words": words, "shared/w": np.int32([4, 5])}
    out.checkpoint("model", written, shards=2)
    relative_state(out)
    out.state()
