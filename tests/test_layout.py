"""Kernels as PyTorch has them: the ops of a graph tell, else names, and the table says which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import builder as b
import graph_builder as g
import numpy as np
import pytest

import ckptparse
from ckptparse import opening
from ckptparse.graph.graph import Graph

pytestmark = pytest.mark.proto

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures"
TRUE = b.field(5, 1)
"""An AttrValue of `true`."""


def numbered(*shape: int) -> np.ndarray[Any, Any]:
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


def convert(prefix: Path, **options: Any) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the values by name, and what the table says of each."""
    done = ckptparse.convert(prefix, prefix.with_name("out.npz"), layout="torch", **options)
    with np.load(prefix.with_name("out.npz")) as found:
        values = {name: found[name] for name in found.files if not name.startswith("__")}
    return values, {row.old: "; ".join(row.done) for row in done.rows}


def with_graph(
    folder: Path, name: str, array: Any, nodes: Sequence[bytes], functions: Sequence[bytes] = ()
) -> Path:
    """Write a checkpoint of one variable and the `.meta` of a graph that uses it."""
    prefix = folder / "m"
    ckptparse.write(prefix, {name: array})
    variable = g.variable(name, *array.shape)
    read = g.node("read", "ReadVariableOp", name)
    graph = g.graph([variable, read, g.node("x", "Placeholder"), *nodes], functions)
    (folder / "m.meta").write_bytes(g.meta_graph(graph))
    return prefix


def op(kind: str, *inputs: str, name: str = "y", **attributes: bytes) -> bytes:
    return g.node(name, kind, *inputs, **attributes)


def einsum(equation: str, *inputs: str) -> bytes:
    return op("Einsum", *inputs, equation=g.of_string(equation.encode()))


CASES: dict[str, tuple[tuple[int, ...], bytes, tuple[int, ...] | None, str]] = {
    "MatMul": ((2, 3), op("MatMul", "x", "read"), (1, 0), "dense"),
    "MatMul turned": (
        (2, 3),
        op("MatMul", "x", "read", transpose_b=TRUE),
        None,
        "dense, (out, in)",
    ),
    "MatMul first": ((2, 3), op("MatMul", "read", "x"), None, "dense, (out, in)"),
    "MatMul first turned": (
        (2, 3),
        op("MatMul", "read", "x", transpose_a=TRUE),
        (1, 0),
        "dense",
    ),
    "BatchMatMulV2": ((2, 3), op("BatchMatMulV2", "x", "read"), (1, 0), "dense"),
    "BatchMatMulV2 turned": (
        (2, 3),
        op("BatchMatMulV2", "x", "read", adj_y=TRUE),
        None,
        "dense, (out, in)",
    ),
    "BatchMatMulV2 of many": (
        (4, 2, 3),
        op("BatchMatMulV2", "x", "read"),
        None,
        "a matrix for each of a batch",
    ),
    "Conv2D": ((2, 3, 4, 5), op("Conv2D", "x", "read"), (3, 2, 0, 1), "convolution"),
    "Conv3D": ((2, 2, 3, 4, 5), op("Conv3D", "x", "read"), (4, 3, 0, 1, 2), "convolution"),
    "Conv2DBackpropInput": (
        (2, 3, 4, 5),
        op("Conv2DBackpropInput", "size", "read", "x"),
        (3, 2, 0, 1),
        "transposed convolution",
    ),
    "Conv3DBackpropInputV2": (
        (2, 2, 3, 4, 5),
        op("Conv3DBackpropInputV2", "size", "read", "x"),
        (4, 3, 0, 1, 2),
        "transposed convolution",
    ),
    "GatherV2": ((2, 3), op("GatherV2", "read", "x", "axis"), None, "an embedding"),
    "ResourceGather": ((2, 3), op("ResourceGather", "odd", "x"), None, "an embedding"),
    "Einsum": ((2, 3), einsum("ab,bc->ac", "x", "read"), (1, 0), "dense, ab,bc->ac"),
    "Einsum turned": ((2, 3), einsum("ab,cb->ac", "x", "read"), None, "dense, (out, in)"),
    "Einsum of each": (
        (2, 3),
        einsum("ab,ab->ab", "x", "read"),
        None,
        "ab,ab->ab keeps axes of both",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_op_that_uses_a_kernel_tells_its_axes(case: str, tmp_path: Path) -> None:
    shape, node, axes, why = CASES[case]
    array = numbered(*shape)
    values, said = convert(with_graph(tmp_path, "odd", array, [node]))
    wanted = array if axes is None else array.transpose(axes)
    assert np.array_equal(values["odd"], wanted)
    what = "as it is" if axes is None else f"axes ({','.join(map(str, axes))})"
    assert said["odd"] == f"{what}: {why}, by the op {case.split(maxsplit=1)[0]}"


def test_a_depthwise_kernel_has_its_first_axes_joined(tmp_path: Path) -> None:
    array = numbered(2, 3, 4, 5)
    node = op("DepthwiseConv2dNative", "x", "read")
    values, said = convert(with_graph(tmp_path, "odd", array, [node]))
    assert np.array_equal(values["odd"], array.transpose(2, 3, 0, 1).reshape(20, 1, 2, 3))
    assert said["odd"].startswith("axes (2,3,0,1), some joined: depthwise convolution, by the op")


def test_an_einsum_of_several_axes_becomes_a_matrix(tmp_path: Path) -> None:
    array = numbered(4, 2, 3)
    values, said = convert(
        with_graph(tmp_path, "odd", array, [einsum("abc,cde->abde", "x", "read")])
    )
    assert np.array_equal(values["odd"], array.transpose(1, 2, 0).reshape(6, 4))
    assert "some joined: dense, abc,cde->abde" in said["odd"]
    folder = tmp_path / "back"
    folder.mkdir()
    values, _ = convert(with_graph(folder, "odd", array, [einsum("abcd,cde->abe", "x", "read")]))
    # Of a kernel (4, 2, 3) the axes c=4 and d=2 are summed over.
    assert np.array_equal(values["odd"], array.transpose(2, 0, 1).reshape(3, 8))


@pytest.mark.parametrize("target", [(8, 3), (-1, 3), (8, -1)])
def test_a_tensor_that_becomes_a_matrix_is_that_matrix(
    target: tuple[int, int], tmp_path: Path
) -> None:
    array = numbered(4, 2, 3)
    sizes = np.array(target, np.int32).tobytes()
    nodes = [
        g.constant("sizes", b.field(4, sizes), number=b.INT32, dims=[2]),
        op("Reshape", "read", "sizes", name="matrix"),
        op("MatMul", "x", "matrix"),
    ]
    values, said = convert(with_graph(tmp_path, "odd", array, nodes))
    assert np.array_equal(values["odd"], array.reshape(8, 3).T)
    assert said["odd"] == "axes (2,0,1), some joined: dense, by the op MatMul"
    nodes[-1] = op("MatMul", "x", "matrix", transpose_b=TRUE)
    folder = tmp_path / "turned"
    folder.mkdir()
    values, _ = convert(with_graph(folder, "odd", array, nodes))
    assert np.array_equal(values["odd"], array.reshape(8, 3))


def test_a_matrix_of_other_rows_tells_nothing(tmp_path: Path) -> None:
    sizes = np.array([6, 4], np.int32).tobytes()
    nodes = [
        g.constant("sizes", b.field(4, sizes), number=b.INT32, dims=[2]),
        op("Reshape", "read", "sizes", name="matrix"),
        op("MatMul", "x", "matrix"),
    ]
    values, said = convert(with_graph(tmp_path, "odd", numbered(4, 2, 3), nodes))
    assert values["odd"].shape == (4, 2, 3) and "no op" in said["odd"]


def test_an_axis_that_is_added_and_a_cast_are_seen_through(tmp_path: Path) -> None:
    array = numbered(2, 3, 4)
    nodes = [
        op("Cast", "read", name="half"),
        op("ExpandDims", "half", "axis", name="wide"),
        op("Conv2D", "x", "wide"),
    ]
    values, said = convert(with_graph(tmp_path, "odd", array, nodes))
    assert np.array_equal(values["odd"], array.transpose(2, 1, 0))
    assert said["odd"] == "axes (2,1,0): convolution, by the op Conv2D"


def test_the_ops_of_gradients_do_not_count(tmp_path: Path) -> None:
    nodes = [
        op("MatMul", "x", "read", name="dense/MatMul"),
        op("MatMul", "x", "read", name="gradients/dense/MatMul_grad/MatMul", transpose_b=TRUE),
        op("MatMul", "x", "read", name="gradient_tape/dense/MatMul", transpose_b=TRUE),
    ]
    values, said = convert(with_graph(tmp_path, "odd", numbered(2, 3), nodes))
    assert values["odd"].shape == (3, 2) and said["odd"].endswith("by the op MatMul")


def test_ops_that_agree_are_named_and_ops_that_disagree_leave_it_to_the_name(
    tmp_path: Path,
) -> None:
    tied = [
        op("GatherV2", "read", "x", "axis", name="look"),
        op("MatMul", "x", "read", transpose_b=TRUE),
    ]
    _, said = convert(with_graph(tmp_path, "table", numbered(2, 3), tied))
    assert said["table"] == "as it is: an embedding, by the ops GatherV2, MatMul"
    for folder in ("odd", "kernel"):
        (tmp_path / folder).mkdir()
    both = [op("MatMul", "x", "read"), op("MatMul", "x", "read", name="z", transpose_b=TRUE)]
    values, said = convert(with_graph(tmp_path / "odd", "odd", numbered(2, 3), both))
    assert values["odd"].shape == (2, 3)
    assert said["odd"].endswith("is a kernel; used in different ways by the op MatMul")
    values, said = convert(with_graph(tmp_path / "kernel", "kernel", numbered(2, 3), both))
    assert values["kernel"].shape == (3, 2) and "by its name" in said["kernel"]


def test_ops_inside_of_functions_count(tmp_path: Path) -> None:
    inner = g.function(
        "f", ["a"], [op("ReadVariableOp", "a", name="r"), op("MatMul", "x", "r:value:0")]
    )
    call = op("StatefulPartitionedCall", "odd", name="call", f=g.of_function("f"))
    values, said = convert(with_graph(tmp_path, "odd", numbered(2, 3), [call], [inner]))
    assert values["odd"].shape == (3, 2) and "MatMul" in said["odd"]


def test_a_graph_that_cannot_be_read_is_told_and_names_are_left(tmp_path: Path) -> None:
    prefix = with_graph(tmp_path, "kernel", numbered(2, 3), [])
    (tmp_path / "m.meta").write_bytes(b"\x12\xff\xff")
    values, said = convert(prefix)
    assert values["kernel"].shape == (3, 2)
    assert (
        "by its name" in said["kernel"] and "the graph beside it cannot be read" in said["kernel"]
    )


def test_the_graph_whose_constants_are_converted_is_read_once(
    fixtures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    original = opening.read_graph

    def reading(identity: Any, context: Any) -> Graph:
        read.append(identity.path)
        return original(identity, context)

    monkeypatch.setattr(opening, "read_graph", reading)
    frozen = str(fixtures / "graphs" / "frozen_tf1" / "frozen.pb")
    ckptparse.convert(frozen, tmp_path / "out", layout="torch")
    assert read == [frozen]
    with ckptparse.open(frozen) as opened:
        assert opened.find_using_graph() is opened.find_using_graph()


def test_the_constants_of_a_frozen_graph_are_turned_by_its_ops(tmp_path: Path) -> None:
    array = numbered(2, 3)
    value = g.of_tensor(b.field(4, array.tobytes()), dims=array.shape)
    weights = g.node("odd", "Const", dtype=g.of_type(b.FLOAT), value=value)
    graph = g.graph([weights, g.node("x", "Placeholder"), op("MatMul", "x", "odd")])
    (tmp_path / "frozen.pb").write_bytes(graph)
    values, said = convert(tmp_path / "frozen.pb")
    assert np.array_equal(values["odd"], array.T) and said["odd"].endswith("by the op MatMul")


# Recurrent layers.


def recurrent(gates: int) -> Mapping[str, Any]:
    return {"cell/kernel": numbered(3, 2 * gates), "cell/recurrent_kernel": numbered(2, 2 * gates)}


@pytest.mark.parametrize(("gates", "turned"), [(1, True), (2, False), (4, True)])
def test_keras_recurrent_kernels_are_turned_if_their_gates_are_pytorchs(
    gates: int, turned: bool, tmp_path: Path
) -> None:
    ckptparse.write(tmp_path / "m", recurrent(gates))
    values, said = convert(tmp_path / "m")
    for name, array in recurrent(gates).items():
        assert np.array_equal(values[name], array.T if turned else array)
        assert ("recurrent kernel" in said[name]) and said[name].startswith("as it is") != turned


def test_other_recurrent_kernels_are_left_as_they_are(tmp_path: Path) -> None:
    ckptparse.write(tmp_path / "m", {"rnn/basic_lstm_cell/kernel": numbered(5, 8)})
    values, said = convert(tmp_path / "m")
    assert values["rnn/basic_lstm_cell/kernel"].shape == (5, 8)
    assert "gates" in said["rnn/basic_lstm_cell/kernel"]


# A model of Keras, exported.

KERNELS = FIXTURES / "saved_model" / "keras3_kernels"
TURNED = {
    "conv/kernel": ("(3,2,0,1)", "Conv2D"),
    "depthwise/kernel": ("(2,3,0,1)", "DepthwiseConv2dNative"),
    "separable/depthwise_kernel": ("(2,3,0,1)", "DepthwiseConv2dNative"),
    "separable/pointwise_kernel": ("(3,2,0,1)", "Conv2D"),
    "up/kernel": ("(3,2,0,1)", "Conv2DBackpropInput"),
    "attention/query/kernel": ("(1,2,0)", "BatchMatMulV2"),
    "attention/key/kernel": ("(1,2,0)", "BatchMatMulV2"),
    "attention/value/kernel": ("(1,2,0)", "BatchMatMulV2"),
    "attention/attention_output/kernel": ("(2,0,1)", "BatchMatMulV2"),
    "narrow/kernel": ("(2,1,0)", "Conv2D"),
    "wide/kernel": ("(1,0)", "MatMul"),
    "head/kernel": ("(1,0)", "MatMul"),
    "lstm/lstm_cell/kernel": ("(1,0)", "recurrent"),
    "lstm/lstm_cell/recurrent_kernel": ("(1,0)", "recurrent"),
}


def test_the_ops_of_a_saved_model_tell_every_kernel(tmp_path: Path) -> None:
    done = ckptparse.convert(
        KERNELS, tmp_path / "x.npz", naming="variable", layout="torch", exclude="_all_variables/*"
    )
    said = {row.old: "; ".join(row.done) for row in done.kept}
    for name, (axes, by) in TURNED.items():
        assert f"axes {axes}" in said[name] and by in said[name], name
    assert "an embedding, by the op" in said["embedding/embeddings"]
    assert said["conv/bias"] == ""
