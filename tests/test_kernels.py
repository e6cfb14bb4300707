"""Kernels without a graph: the layer's name, the bias and the recurrent kernel beside them tell."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import recurrent_cases as cases
from packages import h5py

import ckptparse

Array = np.ndarray[Any, Any]


def numbered(*shape: int) -> Array:
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


def of_shapes(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Array]:
    return {name: numbered(*shape) for name, shape in shapes.items()}


def convert(
    folder: Path, values: Mapping[str, Array], **options: Any
) -> tuple[dict[str, Array], ckptparse.Conversion]:
    """Return the values by name, and the conversion."""
    ckptparse.write(folder / "m", values)
    done = ckptparse.convert(folder / "m", folder / "m.npz", layout="torch", **options)
    with np.load(folder / "m.npz") as found:
        return {row.new: found[row.new] for row in done.kept if row.new is not None}, done


def axes_of(folder: Path, shapes: Mapping[str, tuple[int, ...]], name: str) -> Any:
    """Return the order of axes that a kernel is given, and its shape."""
    values, done = convert(folder, of_shapes(shapes))
    return next(row.axes for row in done.rows if row.old == name), values[name].shape


# A GRU.


def sigmoid(values: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-values)))


def pytorch_gru(kernel: Array, recurrent: Array, bias: Array) -> Array:
    """Compute what PyTorch's documentation says of `torch.nn.GRU`."""
    state, states = np.zeros(2), []
    for step in np.array(cases.INPUT):
        given, before = kernel @ step + bias[0], recurrent @ state + bias[1]
        r, z = sigmoid(given[:2] + before[:2]), sigmoid(given[2:4] + before[2:4])
        n = np.tanh(given[4:] + r * before[4:])
        state = (1 - z) * n + z * state
        states.append(state)
    return np.array(states)


def gru(**others: Any) -> dict[str, Array]:
    weights = {**cases.GRU, **others}
    found = {name: value for name, value in weights.items() if value is not None}
    return {f"gru/gru_cell/{name}": np.array(value, np.float32) for name, value in found.items()}


def test_the_gates_of_a_gru_get_pytorchs_order(tmp_path: Path) -> None:
    values, done = convert(tmp_path, gru())
    kernel, recurrent, bias = (values[name] for name in gru())
    assert np.abs(pytorch_gru(kernel, recurrent, bias) - cases.GRU_OUTPUT).max() < 1e-5
    assert {(row.axes, row.gates) for row in done.rows} == {((1, 0), (1, 0, 2)), (None, (1, 0, 2))}
    assert done.warnings == ()


def test_the_gates_of_a_gru_come_back(tmp_path: Path) -> None:
    _, done = convert(tmp_path, gru(), dtype="float64")
    back = ckptparse.convert(tmp_path / "m.npz", tmp_path / "back", rename=done.reverse())
    found = ckptparse.read(tmp_path / "back")
    assert all(np.array_equal(found[name], value) for name, value in gru().items())
    assert "gates (1,0,2) undone" in str(back)


def test_a_gru_that_pytorch_cannot_compute_is_left_and_named(tmp_path: Path) -> None:
    given = gru(bias=np.zeros(6))
    values, done = convert(tmp_path, given)
    assert all(np.array_equal(values[name], value) for name, value in given.items())
    assert "PyTorch has no GRU of reset_after=False" in str(done)
    assert len(done.warnings) == 1
    assert done.warnings[0].endswith("gru/gru_cell/kernel, gru/gru_cell/recurrent_kernel")


def test_a_gru_without_a_bias_says_what_it_rests_on(tmp_path: Path) -> None:
    values, done = convert(tmp_path, gru(bias=None))
    assert values["gru/gru_cell/kernel"].shape == (6, 2)
    assert str(done).count("no bias tells that its reset_after is true") == 2


def test_the_parts_of_a_gru_that_a_rule_has_cut_are_dense(tmp_path: Path) -> None:
    values, _ = convert(tmp_path, gru(), split={"kernel": ["z", "r", "h"]})
    assert np.array_equal(values["gru/gru_cell/r"], gru()["gru/gru_cell/kernel"][:, 2:4].T)


def test_cells_of_other_gates_are_left_and_named(tmp_path: Path) -> None:
    shapes = {
        "rnn/basic_lstm_cell/kernel": (5, 8),
        "rnn/gru_cell/gates/kernel": (5, 4),
        "conv_lstm/cell/kernel": (3, 3, 2, 8),
        "conv_lstm/cell/recurrent_kernel": (3, 3, 2, 8),
    }
    values, done = convert(tmp_path, of_shapes(shapes))
    assert {name: values[name].shape for name in shapes} == shapes
    assert done.warnings[0].startswith("4 tensors of recurrent layers left as in the source")


def test_a_dense_layer_in_a_recurrent_model_is_dense(tmp_path: Path) -> None:
    shapes = {"lstm_classifier/dense_1/kernel": (4, 8), "rnn_model/logits/kernel": (8, 3)}
    values, done = convert(tmp_path, of_shapes(shapes))
    assert [value.shape for value in values.values()] == [(8, 4), (3, 8)]
    assert done.warnings == ()


@pytest.mark.proto
def test_a_variable_is_known_by_its_own_name_in_an_object_graph(tmp_path: Path) -> None:
    from ckptparse.proto.trackable_object_graph_pb2 import TrackableObjectGraph

    graph, values = TrackableObjectGraph(), {}
    graph.nodes.add()
    for copy in ("variables", "_all_variables"):  # As Keras 3 exports them, twice.
        for number, (name, value) in enumerate(cases.GRU.items()):
            key = f"{copy}/{number}/.ATTRIBUTES/VARIABLE_VALUE"
            graph.nodes[0].children.add(node_id=len(graph.nodes), local_name=f"{copy}{number}")
            graph.nodes.add().attributes.add(
                name="VARIABLE_VALUE", full_name=f"gru/gru_cell/{name}", checkpoint_key=key
            )
            values[key] = np.array(value, np.float32)
    ckptparse.write(tmp_path / "m", values, object_graph=graph.SerializeToString())
    done = ckptparse.convert(tmp_path / "m", tmp_path / "m.npz", layout="torch")
    assert [row.gates for row in done.rows] == [(1, 0, 2)] * 6


def test_an_object_graph_that_is_damaged_is_done_without(tmp_path: Path) -> None:
    weights = {"dense/kernel": numbered(2, 3)}
    ckptparse.write(tmp_path / "m", weights, object_graph=b"\x0a\xff\xff\xff")
    with pytest.raises(ckptparse.CheckpointError), ckptparse.open(tmp_path / "m") as opened:
        assert opened.object_graph
    ckptparse.convert(tmp_path / "m", tmp_path / "m.npz", layout="torch")
    with np.load(tmp_path / "m.npz") as found:
        assert found["dense/kernel"].shape == (3, 2)


# Depthwise convolutions, attention, and whatever else has three axes or more.


@pytest.mark.parametrize(
    "shapes",
    [
        {"depthwise_conv2d/kernel": (3, 3, 4, 1)},
        {"block_depthwise/kernel": (3, 3, 4, 1), "block_depthwise/bias": (4,)},
        {"conv_dw_1/kernel": (3, 3, 4, 2)},
        {"odd/kernel": (3, 3, 4, 2), "odd/bias": (8,)},
    ],
)
def test_a_depthwise_kernel_is_known_by_its_layer_or_its_bias(
    shapes: dict[str, tuple[int, ...]], tmp_path: Path
) -> None:
    name = next(iter(shapes))
    channels = shapes[name][2] * shapes[name][3]
    assert axes_of(tmp_path, shapes, name) == ((2, 3, 0, 1), (channels, 1, 3, 3))


def test_a_kernel_that_may_be_depthwise_or_not_is_left_and_named(tmp_path: Path) -> None:
    shapes = {
        "one/kernel": (3, 3, 4, 1),
        "two/kernel": (3, 3, 4, 1),
        "two/bias": (4,),
        "three/kernel": (3, 3, 4, 5),
        "three/bias": (9,),
    }
    values, done = convert(tmp_path, of_shapes(shapes))
    assert {name: values[name].shape for name in shapes} == shapes
    named = done.warnings[0].rpartition(": ")[2].split(", ")
    assert sorted(named) == ["one/kernel", "three/kernel", "two/kernel"]


@pytest.mark.parametrize(
    ("shapes", "turned"),
    [
        ({"conv/kernel": (3, 3, 4, 1), "conv/bias": (1,)}, (1, 4, 3, 3)),
        ({"conv_dw/kernel": (3, 3, 4, 2), "conv_dw/bias": (2,)}, (2, 4, 3, 3)),
        ({"conv2d_transpose/kernel": (3, 3, 4, 1)}, (1, 4, 3, 3)),
        ({"up/kernel": (3, 3, 4, 5), "up/bias": (4,)}, (5, 4, 3, 3)),
    ],
)
def test_a_convolution_is_none_that_is_depthwise(
    shapes: dict[str, tuple[int, ...]], turned: tuple[int, ...], tmp_path: Path
) -> None:
    assert axes_of(tmp_path, shapes, next(iter(shapes))) == ((3, 2, 0, 1), turned)


@pytest.mark.parametrize(
    ("shapes", "axes", "turned"),
    [
        ({"att/query/kernel": (10, 2, 3), "att/query/bias": (2, 3)}, (1, 2, 0), (6, 10)),
        ({"att/_value_dense/kernel": (10, 2, 3)}, (1, 2, 0), (6, 10)),
        (
            {"att/_output_dense/kernel": (2, 3, 10), "att/_output_dense/bias": (10,)},
            (2, 0, 1),
            (10, 6),
        ),
        ({"att/attention_output/kernel": (2, 3, 10)}, (2, 0, 1), (10, 6)),
        ({"mine/kernel": (10, 2, 3), "mine/bias": (2, 3)}, (1, 2, 0), (6, 10)),
        ({"query/kernel": (2, 3, 10), "query/bias": (10,)}, (2, 1, 0), (10, 3, 2)),
    ],
)
def test_a_kernel_of_several_heads_becomes_a_matrix(
    shapes: dict[str, tuple[int, ...]], axes: Any, turned: Any, tmp_path: Path
) -> None:
    name = next(iter(shapes))
    assert axes_of(tmp_path, shapes, name) == (axes, turned)


@pytest.mark.parametrize(
    "shapes",
    [
        {"einsum_dense/kernel": (4, 2, 3)},
        {"local/kernel": (4, 4, 3), "local/bias": (4, 3)},
    ],
)
def test_what_only_an_equation_tells_is_left_and_named(
    shapes: dict[str, tuple[int, ...]], tmp_path: Path
) -> None:
    name = next(iter(shapes))
    values, done = convert(tmp_path, of_shapes(shapes))
    assert values[name].shape == shapes[name]
    assert done.warnings[0].endswith(f": {name}")


def test_a_table_that_is_called_weights_stays(tmp_path: Path) -> None:
    shapes = {"word_embedding/weights": (7, 3), "embedding_hidden/kernel": (7, 3)}
    values, done = convert(tmp_path, of_shapes(shapes))
    assert values["word_embedding/weights"].shape == (7, 3)
    assert values["embedding_hidden/kernel"].shape == (3, 7) and done.warnings == ()


# Variables that are numbers, as Keras 3 writes them.


def test_the_numbers_of_keras_3_mean_what_the_class_of_a_layer_says(tmp_path: Path) -> None:
    shapes: dict[str, tuple[int, ...]] = {
        "layers/bidirectional/forward_layer/cell/vars/0": (3, 6),
        "layers/bidirectional/forward_layer/cell/vars/1": (2, 6),
        "layers/bidirectional/forward_layer/cell/vars/2": (2, 6),
        "layers/rnn/cell/cells/lstm_cell/vars/0": (3, 8),
        "layers/rnn/cell/cells/lstm_cell/vars/1": (2, 8),
        "layers/multi_head_attention/query_dense/vars/0": (10, 2, 3),
        "layers/multi_head_attention/query_dense/vars/1": (2, 3),
        "layers/multi_head_attention/output_dense/vars/0": (2, 3, 10),
        "layers/separable_conv1d_1/vars/0": (2, 5, 2),
        "layers/separable_conv1d_1/vars/1": (1, 10, 5),
        "layers/depthwise_conv2d/vars/0": (3, 3, 4, 1),
        "layers/embedding/vars/0": (7, 6),
        "layers/time_distributed/layer/vars/0": (3, 4),
    }
    with h5py.File(tmp_path / "m.weights.h5", "w") as file:
        for name, shape in shapes.items():
            file[name] = numbered(*shape)
    done = ckptparse.convert(tmp_path / "m.weights.h5", tmp_path / "m.npz", layout="torch")
    gates = [row.gates for row in done.rows if "forward_layer" in row.old]
    assert gates == [(1, 0, 2)] * 3
    assert {row.old.removeprefix("layers/"): row.shape for row in done.rows} == {
        "bidirectional/forward_layer/cell/vars/0": (6, 3),
        "bidirectional/forward_layer/cell/vars/1": (6, 2),
        "bidirectional/forward_layer/cell/vars/2": (2, 6),
        "rnn/cell/cells/lstm_cell/vars/0": (8, 3),
        "rnn/cell/cells/lstm_cell/vars/1": (8, 2),
        "multi_head_attention/query_dense/vars/0": (6, 10),
        "multi_head_attention/query_dense/vars/1": (2, 3),
        "multi_head_attention/output_dense/vars/0": (10, 6),
        "separable_conv1d_1/vars/0": (10, 1, 2),
        "separable_conv1d_1/vars/1": (5, 10, 1),
        "depthwise_conv2d/vars/0": (4, 1, 3, 3),
        "embedding/vars/0": (7, 6),
        "time_distributed/layer/vars/0": (3, 4),
    }
    assert done.warnings[0].startswith("1 tensor with 2 or more axes left")
