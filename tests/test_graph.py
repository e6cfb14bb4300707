"""Graphs and meta graphs: nodes, constants, variables, Savers, functions, and who uses what."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import builder
import expected
import graph_builder as g
import numpy as np
import pytest
from builder import field, field32
from expected import ExpectedTensor, assert_matches

import ckptparse
from ckptparse import (
    CheckpointNotFoundError,
    DataType,
    MalformedError,
    NotACheckpointError,
    TensorNotFoundError,
)
from ckptparse.graph.attributes import FunctionCall

pytestmark = pytest.mark.proto


def written() -> Iterator[tuple[str, Path, dict[str, Any]]]:
    for case in expected.cases():
        for row in case.data.get("graphs", ()):
            yield f"{case.name}:{row['file']}", case.root / row["file"], row


WRITTEN = list(written())


def by_name(rows: list[tuple[str, Path, dict[str, Any]]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(("path", "row"), [r[1:] for r in rows], ids=[r[0] for r in rows])


def open_bytes(tmp_path: Path, data: bytes, name: str = "graph.pb") -> ckptparse.Graph:
    path = tmp_path / name
    path.write_bytes(data)
    return ckptparse.open_graph(path)


def fits(tensor: ExpectedTensor) -> bool:
    import ml_dtypes

    late = {"int2", "uint2", "float4_e2m1fn"}
    return tensor.dtype not in late or hasattr(ml_dtypes, tensor.dtype)


# ---- what TensorFlow wrote


@pytest.mark.checklist(123)
@by_name(WRITTEN)
def test_every_constant_that_tensorflow_wrote_is_identical(path: Path, row: dict[str, Any]) -> None:
    graph = ckptparse.open_graph(path)
    assert len(graph.nodes) == row["node_count"]
    assert sorted(graph.functions) == sorted(row["functions"])
    assert graph.producer == row["producer"]
    constants = [ExpectedTensor.from_json(constant) for constant in row["constants"]]
    assert list(graph.constants) == [constant.name for constant in constants]
    for constant in constants:
        tensor = graph.constants[constant.name]
        assert tensor.shape == constant.shape
        assert tensor.name == constant.name
        if fits(constant):
            assert_matches(tensor.read(), constant)


@by_name([row for row in WRITTEN if row[2]["nodes"]])
def test_nodes_have_their_ops_and_inputs(path: Path, row: dict[str, Any]) -> None:
    graph = ckptparse.open_graph(path)
    for known in row["nodes"]:
        node = graph.nodes[known["name"]]
        assert (node.op, list(node.inputs)) == (known["op"], known["inputs"])


@by_name([row for row in WRITTEN if row[2]["kind"] == "graph"])
def test_the_constants_of_a_frozen_graph_are_read_as_a_checkpoint(
    path: Path, row: dict[str, Any]
) -> None:
    constants = [ExpectedTensor.from_json(constant) for constant in row["constants"]]
    names = [constant.name for constant in constants if fits(constant)]
    arrays = ckptparse.read(path, names)
    for constant in constants:
        if fits(constant):
            assert_matches(arrays[constant.name], constant)
    with ckptparse.open(path) as checkpoint:
        assert checkpoint.format == "graph"
        assert checkpoint.num_shards == 1
        assert checkpoint.byte_order == "little"
        assert checkpoint.files == (str(path),)
        assert checkpoint.orphan_slices == []
        assert list(checkpoint) == sorted(constant.name for constant in constants)


@pytest.mark.checklist(85, 86, 87, 88, 89)
@by_name([row for row in WRITTEN if row[2]["kind"] == "meta-graph"])
def test_meta_graphs_keep_what_was_put_into_them(path: Path, row: dict[str, Any]) -> None:
    graph = ckptparse.open_graph(path)
    assert graph.is_meta_graph
    assert graph.tensorflow_version == row["tensorflow_version"]
    assert list(graph.tags) == row["tags"]
    assert graph.collections.keys() == row["collections"].keys()
    for name, (_, count, *values) in row["collections"].items():
        assert len(graph.collections[name]) == count
        if values:
            assert list(graph.collections[name]) == values[0]
    saver = row["saver"]
    assert (saver is None) == (not graph.savers)
    if saver is not None:
        definition = graph.savers[0].definition
        assert definition is not None
        assert {key: getattr(definition, key) for key in saver} == saver
    for known in row["variables"]:
        variable = graph.variables[known["name"].removesuffix(":0")]
        assert variable.trainable == known["trainable"]
        assert variable.is_resource == known["is_resource"]
        if "slice" in known:
            name, full_shape, offset, shape = known["slice"]
            info = variable.slice_info
            assert info is not None
            assert (info.full_name, info.full_shape) == (name, tuple(full_shape))
            assert (info.offset, info.shape) == (tuple(offset), tuple(shape))


@pytest.mark.checklist(86)
def test_collections_hold_every_kind_of_value(fixtures: Path) -> None:
    graph = ckptparse.open_graph(fixtures / "graphs/meta_graph/graph.meta")
    assert graph.collections["strings"] == (b"a", b"b")
    assert graph.collections["ops"] == ("queue:0",)
    (message,) = graph.collections["messages"]
    assert (message.type_url, message.value) == ("example.com/x", b"\x08\x01")
    assert b"queue_enqueue" in graph.collections["queue_runners"][0]


@pytest.mark.checklist(87)
def test_two_savers_are_told_with_what_each_saves(fixtures: Path) -> None:
    graph = ckptparse.open_graph(fixtures / "graphs/meta_graph/graph.meta")
    first, second = graph.savers
    assert first.names == ("global_step", "parted", "parted", "r", "w")
    assert second.names == ("r",)
    assert (first.sharded, second.sharded) == (False, True)
    assert (first.version, second.version) == (2, 2)
    tensors = {tensor.variable: tensor for tensor in first.ops[0].tensors}
    assert tensors["parted/part_1"].slice_spec == "4 2 2,2:0,2"
    assert tensors["parted/part_1"].shape == (2, 2)
    assert tensors["w"].data_type == DataType.DT_FLOAT


def test_a_sharded_saver_has_an_op_for_each_file_in_order(fixtures: Path) -> None:
    graph = ckptparse.open_graph(fixtures / "graphs/saver_to_rebuild/model.meta")
    (saver,) = graph.savers
    assert [op.shard for op in saver.ops] == [0, 1]
    assert [tensor.name for tensor in saver.ops[0].tensors] == ["ref", "words", "z/half"]
    assert "CPU:1" in saver.ops[1].node.device.upper() or saver.ops[1].node.device


@pytest.mark.parametrize(
    "spelling", ["model.meta", "model", "model.index", "model.data-00000-of-00002"]
)
def test_the_graph_beside_a_checkpoint_is_found(fixtures: Path, spelling: str) -> None:
    graph = ckptparse.open_graph(fixtures / "graphs/saver_to_rebuild" / spelling)
    assert graph.is_meta_graph


def test_the_graph_beside_v1_files_is_found(fixtures: Path) -> None:
    for spelling in ["model.ckpt-7-00000-of-00003", "model.ckpt-7-?????-of-00003", "model.ckpt-7"]:
        assert ckptparse.open_graph(fixtures / "v1/sharded" / spelling).savers[0].version == 1
    assert ckptparse.open_graph(fixtures / "v1/unsharded/model.ckpt-1").is_meta_graph


@pytest.mark.checklist(88)
def test_what_is_no_graph_is_an_error_of_input_and_output(tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotFoundError) as caught:
        ckptparse.open_graph(tmp_path / "absent.meta")
    assert isinstance(caught.value, OSError)
    (tmp_path / "junk.meta").write_bytes(b"junk" * 10)
    with pytest.raises(NotACheckpointError):
        ckptparse.open_graph(tmp_path / "junk.meta")


# ---- nodes


def test_attributes_are_python_values(tmp_path: Path) -> None:
    values = {
        "s": field(2, b"\xff"),
        "i": field(3, -5),
        "f": g.of_float(0x3FC00000),
        "b": field(5, 1),
        "type": g.of_type(builder.HALF),
        "ref": g.of_type(101),
        "shape": g.of_shape(2, 3),
        "any_shape": field(7, field(3, 1)),
        "open_shape": field(7, field(2, field(1, -1)) + field(2, field(1, 4))),
        "tensor": g.of_tensor(field32(5, 0x40000000)),
        "placeholder": field(9, b"T"),
        "func": field(10, field(1, b"f") + field(2, g.entry("T", g.of_type(1)))),
        "nothing": b"",
        "empty_list": field(1, b""),
        "strings": field(1, field(2, b"a") + field(2, b"")),
        "integers": field(1, field(3, builder.varint(7) + builder.varint(8))),
        "types": field(1, field(6, b"\x01\x65")),
        "shapes": field(1, field(7, b"") + field(7, field(3, 1))),
        "tensors": field(1, field(8, builder.tensor_proto(builder.INT32, [1], field(7, 9)))),
        "functions": field(1, field(9, field(1, b"g"))),
    }
    graph = open_bytes(tmp_path, g.graph([g.node("n", "Op", "a", "^b", device="/cpu:0", **values)]))
    node = graph.nodes["n"]
    assert (node.name, node.op, node.device) == ("n", "Op", "/cpu:0")
    assert (node.inputs, node.data_inputs) == (("a", "^b"), ("a",))
    found = dict(node.attributes)
    assert found.pop("tensor").read() == 2
    call = found.pop("func")
    assert (call.name, dict(call.attributes)) == ("f", {"T": DataType.DT_FLOAT})
    assert found.pop("tensors")[0].read().tolist() == [9]
    (named,) = found.pop("functions")
    assert isinstance(named, FunctionCall)
    assert named.name == "g"
    assert found == {
        "s": b"\xff",
        "i": -5,
        "f": 1.5,
        "b": True,
        "type": DataType.DT_HALF,
        "ref": 101,
        "shape": (2, 3),
        "any_shape": None,
        "open_shape": (None, 4),
        "placeholder": "T",
        "nothing": None,
        "empty_list": [],
        "strings": [b"a", b""],
        "integers": [7, 8],
        "types": [DataType.DT_FLOAT, 101],
        "shapes": [(), None],
    }


def test_nodes_are_a_mapping_in_the_order_of_the_file(tmp_path: Path) -> None:
    graph = open_bytes(tmp_path, g.graph([g.node("z", "A"), g.node("a", "B", "z")]))
    assert list(graph.nodes) == ["z", "a"]
    assert "z" in graph.nodes
    assert graph.nodes.get("absent") is None
    with pytest.raises(TensorNotFoundError):
        graph.nodes["absent"]
    assert repr(graph.nodes["a"]) == "<Node 'a' B>"


def test_text_and_binary_are_the_same_graph(tmp_path: Path) -> None:
    text = b"""# a comment
        node {
          name: "w" op: 'Const'
          attr { key: "value" value { tensor {
            dtype: DT_FLOAT tensor_shape { dim { size: 2 } }
            tensor_content: "\\000\\000\\200?\\0\\0\\0@"
          } } }
        }
        versions { producer: 21 }
    """
    graph = open_bytes(tmp_path, b"\xef\xbb\xbf" + text, "graph.pbtxt")
    assert graph.constants["w"].read().tolist() == [1, 2]
    assert graph.producer == 21
    assert ckptparse.read(tmp_path / "graph.pbtxt")["w"].tolist() == [1, 2]


def test_the_version_of_graphs_of_2015_is_not_that_of_a_producer(tmp_path: Path) -> None:
    graph = open_bytes(tmp_path, field(1, g.constant("w", field32(5, 0))) + field(3, 7))
    assert (graph.producer, graph.deprecated_version) == (0, 7)


# ---- constants


def test_signalling_nans_of_constants_keep_their_payload(tmp_path: Path) -> None:
    bits = struct.pack("<2I", 0x7FA00001, 0xFF812345)
    graph = g.graph(
        [
            g.constant("packed", field(5, bits), dims=[2]),
            g.constant("single", field32(5, 0x7FA00001)),
            g.constant("content", field(4, bits), dims=[2]),
            g.constant("fill", field32(5, 0x7FA00001), dims=[3]),
        ]
    )
    (tmp_path / "g.pb").write_bytes(graph)
    arrays = ckptparse.read(tmp_path / "g.pb")
    assert arrays["packed"].view(np.uint32).tolist() == [0x7FA00001, 0xFF812345]
    assert arrays["content"].view(np.uint32).tolist() == [0x7FA00001, 0xFF812345]
    assert arrays["single"].reshape(1).view(np.uint32).tolist() == [0x7FA00001]
    assert arrays["fill"].view(np.uint32).tolist() == [0x7FA00001] * 3


def test_constants_are_lazy_tensors(tmp_path: Path) -> None:
    content = np.arange(12, dtype="<f4").tobytes()
    graph = open_bytes(tmp_path, g.graph([g.constant("w", field(4, content), dims=[3, 4])]))
    tensor = graph.constants["w"]
    assert (tensor.shape, tensor.dtype, tensor.kind) == ((3, 4), np.float32, "dense")
    assert (tensor.location, tensor.crc32c) == (None, None)
    assert tensor[1:, ::2].tolist() == [[4, 6], [8, 10]]
    tensor.verify()
    array = tensor.read()
    array[...] = 0
    assert tensor.read().sum() == 66


def test_constants_of_functions_have_the_function_in_their_name(tmp_path: Path) -> None:
    body = [g.constant("w", field32(5, 0x40000000)), g.node("y", "Mul", "x", "w:output:0")]
    library = [g.function("f", ["x"], body, {"out": "y:z:0"})]
    graph = open_bytes(tmp_path, g.graph([g.constant("w", field32(5, 0))], library))
    assert list(graph.constants) == ["w", "function:f/w"]
    assert graph.constants["function:f/w"].read() == 2
    function = graph.functions["f"]
    assert (function.inputs, dict(function.outputs)) == (("x",), {"out": "y:z:0"})
    assert function.nodes["y"].path == "function:f/y"
    with pytest.raises(TensorNotFoundError):
        graph.constants["function:f/absent"]


def test_a_constant_without_a_value_is_malformed(tmp_path: Path) -> None:
    graph = open_bytes(tmp_path, g.graph([g.node("w", "Const"), g.constant("v", field32(5, 0))]))
    with pytest.raises(MalformedError, match="found none") as caught:
        graph.constants["w"]
    assert caught.value.tensor == "w"
    assert graph.constants["v"].read() == 0


# ---- variables and who uses them


def test_variables_have_names_types_and_shapes(tmp_path: Path) -> None:
    graph = open_bytes(
        tmp_path,
        g.graph(
            [
                g.variable("resource", 2, 3, shared="resource"),
                g.variable("reference", op="VariableV2"),
                g.variable("oldest", 4, op="Variable"),
                g.node("open", "VarHandleOp", dtype=g.of_type(3), shape=field(7, field(3, 1))),
                g.node("bare", "VarHandleOp"),
            ]
        ),
    )
    found = {name: (v.data_type, v.shape) for name, v in graph.variables.items()}
    assert found == {
        "resource": (DataType.DT_FLOAT, (2, 3)),
        "reference": (DataType.DT_FLOAT, ()),
        "oldest": (DataType.DT_FLOAT, (4,)),
        "open": (DataType.DT_INT32, None),
        "bare": (0, None),
    }
    assert graph.variables["resource"].dtype == np.float32
    assert graph.variables["resource"].is_resource
    assert not graph.variables["reference"].is_resource
    assert graph.variables["oldest"].trainable is None


def test_consumers_are_seen_through_what_passes_a_tensor_on(tmp_path: Path) -> None:
    graph = open_bytes(
        tmp_path,
        g.graph(
            [
                g.node("x", "Placeholder"),
                g.node("after", "NoOp", "^w"),
                g.variable("w", 2),
                g.node("w/read", "ReadVariableOp", "w"),
                g.node("same", "Identity", "w/read"),
                g.node("mul", "Mul", "same", "same"),
                g.node("add", "Add", "x", "w/read:0"),
                g.node("assign", "AssignVariableOp", "w", "x"),
                g.node("other", "Neg", "mul"),
            ]
        ),
    )
    assert [node.name for node in graph.consumers("w")] == ["mul", "add", "assign"]
    assert [node.name for node in graph.consumers("w:0")] == ["mul", "add", "assign"]
    assert [node.name for node in graph.consumers("mul")] == ["other"]
    assert graph.consumers("other") == ()
    with pytest.raises(TensorNotFoundError):
        graph.consumers("absent")


def test_a_shared_variable_is_one_with_all_its_consumers(tmp_path: Path) -> None:
    graph = open_bytes(
        tmp_path,
        g.graph(
            [
                g.variable("w", 2, shared="w"),
                g.variable("w_1", 2, shared="w"),
                g.variable("v", 2, shared=""),
                g.variable("v_1", 2, shared=""),
                g.node("a", "ReadVariableOp", "w"),
                g.node("use_a", "Neg", "a"),
                g.node("b", "ReadVariableOp", "w_1"),
                g.node("use_b", "Exp", "b"),
            ]
        ),
    )
    assert list(graph.variables) == ["w", "v", "v_1"]
    assert graph.variables["w"].nodes == ("w", "w_1")
    for name in ["w", "w_1"]:
        assert [node.name for node in graph.consumers(name)] == ["use_a", "use_b"]


def test_consumers_are_found_inside_of_functions(tmp_path: Path) -> None:
    inner = g.function(
        "inner",
        ["unused", "weights"],
        [g.node("read", "ReadVariableOp", "weights"), g.node("deep", "MatMul", "read:value:0")],
    )
    outer = g.function(
        "outer",
        ["w", "x"],
        [
            g.node("call", "PartitionedCall", "x", "w", f=g.of_function("inner")),
            g.node("use", "Relu", "w"),
        ],
    )
    branch = g.function("branch", ["v"], [g.node("branched", "Exp", "v")])
    body = g.function("body", ["i", "v"], [g.node("looped", "Log", "v")])
    graph = open_bytes(
        tmp_path,
        g.graph(
            [
                g.variable("w", 2),
                g.node("x", "Placeholder"),
                g.node("call", "StatefulPartitionedCall", "w", "x", f=g.of_function("outer")),
                g.node("old", "branch", "w"),
                g.node(
                    "if",
                    "If",
                    "x",
                    "w",
                    then_branch=g.of_function("branch"),
                    else_branch=g.of_function("branch"),
                ),
                g.node("while", "While", "x", "w", body=g.of_function("body")),
            ],
            [inner, outer, branch, body],
        ),
    )
    paths = [node.path for node in graph.consumers("w")]
    assert paths == [
        "function:inner/deep",
        "function:outer/use",
        "function:branch/branched",
        "function:body/looped",
    ]
    assert graph.consumers("w")[0].function == "inner"


def test_calls_in_circles_come_to_an_end(tmp_path: Path) -> None:
    loop = g.function("f", ["w"], [g.node("again", "PartitionedCall", "w", f=g.of_function("f"))])
    graph = open_bytes(
        tmp_path,
        g.graph(
            [
                g.variable("w", 2),
                g.node("call", "PartitionedCall", "w", f=g.of_function("f")),
                g.node("a", "Identity", "b"),
                g.node("b", "Identity", "a"),
                g.node("save", "SaveV2", "a", "names", "specs", "b"),
                g.strings("names", b"w"),
                g.strings("specs", b""),
            ],
            [loop],
        ),
    )
    assert graph.consumers("w") == ()
    assert [node.name for node in graph.consumers("a")] == ["save"]
    assert graph.savers[0].names == ("w",)


# ---- Savers


def save_nodes(scope: str, *, shard: int | None, names: list[bytes]) -> list[bytes]:
    nodes = [
        g.strings(f"{scope}/names", *names),
        g.strings(f"{scope}/specs", *[b""] * len(names)),
        g.constant(f"{scope}/Const", field(8, b"model"), number=builder.STRING),
    ]
    filename = f"{scope}/Const"
    if shard is not None:
        nodes.append(g.constant(f"{scope}/shard", field(7, bytes([shard])), number=builder.INT32))
        filename = f"{scope}/ShardedFilename"
        nodes.append(g.node(filename, "ShardedFilename", f"{scope}/Const", f"{scope}/shard"))
    inputs = [filename, f"{scope}/names", f"{scope}/specs", *["w"] * len(names)]
    types = field(1, field(6, b"\x01" * len(names)))
    return [*nodes, g.node(f"{scope}/SaveV2", "SaveV2", *inputs, dtypes=types)]


def test_save_ops_without_a_message_are_savers_by_their_scope(tmp_path: Path) -> None:
    nodes = [g.variable("w", 2)]
    nodes += save_nodes("save", shard=None, names=[b"a", b"caf\xe9"])
    nodes += save_nodes("save_1", shard=None, names=[b"b"])
    graph = open_bytes(tmp_path, g.graph(nodes))
    assert [saver.names for saver in graph.savers] == [("a", "caf\udce9"), ("b",)]
    assert graph.savers[0].definition is None
    assert not graph.savers[0].sharded
    assert graph.savers[0].version == 2
    (first, _) = graph.savers[0].ops[0].tensors
    assert (first.variable, first.shape, first.data_type) == ("w", (2,), DataType.DT_FLOAT)


def test_the_saver_of_a_tf2_model_is_found_in_its_function(tmp_path: Path) -> None:
    body = [
        *save_nodes("s1", shard=1, names=[b"late"])[:-1],
        *save_nodes("s0", shard=0, names=[b"early"])[:-1],
        g.node("s1/SaveV2", "SaveV2", "s1/ShardedFilename", "s1/names", "s1/specs", "read"),
        g.node("s0/SaveV2", "SaveV2", "s0/ShardedFilename", "s0/names", "s0/specs", "captured"),
        g.node("read", "ReadVariableOp", "weights"),
    ]
    nodes = [
        g.variable("w", 2, 3),
        g.constant("c", field32(5, 0), dims=[4]),
        g.node("call", "StatefulPartitionedCall", "f", "w", "c", f=g.of_function("traced_save")),
        g.node("out", "Identity", "call"),
    ]
    library = [g.function("traced_save", ["filename", "weights", "captured"], body)]
    saver = field(2, b"out:0") + field(5, 1) + field(7, 2)
    meta = g.meta_graph(g.graph(nodes, library), saver=saver)
    graph = open_bytes(tmp_path, meta, "m.meta")
    (found,) = graph.savers
    assert found.names == ("early", "late")
    assert [op.shard for op in found.ops] == [0, 1]
    early, late = (op.tensors[0] for op in found.ops)
    assert (early.variable, early.shape) == (None, (4,))
    assert (late.variable, late.shape) == ("w", (2, 3))


def test_v1_savers_are_told(tmp_path: Path) -> None:
    nodes = [
        g.variable("w", 2, op="VariableV2"),
        g.strings("names", b"w"),
        g.node("save/Save", "Save", "file", "names", "w"),
    ]
    (saver,) = open_bytes(tmp_path, g.graph(nodes)).savers
    assert (saver.names, saver.version) == (("w",), 1)


def test_a_saver_of_broken_inputs_says_what_it_can(tmp_path: Path) -> None:
    nodes = [
        g.node("a/SaveV2", "SaveV2"),
        g.node("b/SaveV2", "SaveV2", "file", "absent", "absent", "w"),
        g.constant("file", field32(5, 0)),
        g.node("c/SaveV2", "SaveV2", "file", "file", "file", "file"),
    ]
    graph = open_bytes(tmp_path, g.graph(nodes))
    assert [saver.names for saver in graph.savers] == [(), ("",), ("",)]
    saver = field(2, b"absent:0")
    (found,) = open_bytes(tmp_path, g.meta_graph(g.graph(nodes), saver=saver)).savers
    assert found.ops == ()


def test_a_mistyped_name_gives_the_file_and_the_closest_names(fixtures: Path) -> None:
    graph = ckptparse.open_graph(fixtures / "graphs" / "functions" / "graph.pb")
    for find in (graph.nodes.__getitem__, graph.consumers, graph.constants.__getitem__):
        with pytest.raises(ckptparse.TensorNotFoundError, match=r"graph\.pb.*Closest: ") as caught:
            find("Consk")
        assert "Const" in caught.value.closest


# ---- reference types


@pytest.mark.parametrize("kind", [kind for kind in DataType if kind != DataType.DT_INVALID])
def test_the_type_of_a_reference_is_that_of_its_base(kind: DataType) -> None:
    plain, reference = (ckptparse.TensorInfo("x:0", kind + more, ()) for more in (0, 100))
    assert reference.dtype == plain.dtype
    assert reference.data_type == kind + 100


@pytest.mark.parametrize("number", [100, 199, 999, -1])
def test_other_numbers_are_no_references(number: int) -> None:
    assert ckptparse.TensorInfo("x:0", number, ()).dtype is None


def test_the_type_of_a_variable_that_is_a_reference_is_that_of_its_base() -> None:
    from ckptparse.graph.variables import GraphVariable

    variable = GraphVariable("v", 100 + DataType.DT_DOUBLE, (), ("v",), is_resource=False)
    assert variable.dtype == np.float64
