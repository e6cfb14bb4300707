"""A data file of Keras 2.10 or older alone: what stands before the blocks of its slots."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import builder
import numpy as np
import numpy.typing as npt
import pytest

import ckptparse
from ckptparse.problems import EvidenceRule
from ckptparse.proto.trackable_object_graph_pb2 import TrackableObjectGraph
from ckptparse.recovery.rebuild.chain import Layer, Search, find_chain, logarithms

VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"
GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
ADAM = {"beta_1": 0.9, "beta_2": 0.999, "decay": 0.0, "learning_rate": 0.001}
MOMENTUM = {"decay": 0.0, "learning_rate": 0.01, "momentum": 0.9}
SLOTS = {"adam": ("m", "v"), "rms": ("rms",), "momentum": ("momentum",)}
Floats = npt.NDArray[np.float32]


class Keras2:
    """A model of dense layers, its optimizer and a metric, in the order of Keras 2.10."""

    def __init__(
        self,
        widths: Sequence[int],
        *,
        optimizer: str = "adam",
        norm: bool = False,
        late: int = 0,
        layer: str = "",
        joined: int = 0,
    ) -> None:
        """Make it.

        Args:
            widths: What goes in, and what comes out of each layer.
            optimizer: Adam, RMSprop or SGD with momentum.
            norm: Whether a normalization stands behind each layer.
            late: Size of a variable that lies deeper than the scalars.
            layer: What the layers are called in the names of variables; empty: no names are kept.
            joined: How many more inputs the later layers have: those of another branch.
        """
        self.layer = layer
        self.rng = np.random.default_rng(sum(widths))
        self.graph = TrackableObjectGraph()
        self.graph.nodes.add()
        self.nodes = {"": 0}
        self.arrays: dict[str, Any] = {}
        self.slots: dict[str, dict[str, Floats]] = {kind: {} for kind in SLOTS[optimizer]}
        names = (f"layer_with_weights-{number}" for number in range(99))
        for number, (rows, width) in enumerate(pairwise(widths)):
            self._dense(next(names), rows + joined * bool(number), width)
            if norm:
                self._norm(next(names), width)
        self._add("optimizer/iter", np.array(1234))
        for name, value in (ADAM if optimizer == "adam" else MOMENTUM).items():
            self._add(f"optimizer/{name}", np.array(value, "<f4"))
        if late:
            self._train("layer_with_weights-0/cell/kernel", (late,), 1e-3)
        self._add("keras_api/metrics/0/total", np.array(12.5, "<f4"))
        self._add("keras_api/metrics/0/count", np.array(40, "<f4"))
        for kind, found in self.slots.items():
            for path, kept in found.items():
                slot = self._store(f"{path}/.OPTIMIZER_SLOT/optimizer/{kind}", kept)
                known = self.graph.nodes[self.nodes["optimizer"]].slot_variables.add()
                known.slot_name, known.original_variable_node_id = kind, self.nodes[path]
                known.slot_variable_node_id = slot

    def _dense(self, layer: str, rows: int, width: int) -> None:
        scales = 10.0 ** self.rng.uniform(-5, -2, width)
        self._train(f"{layer}/kernel", (rows, width), scales)
        self._train(f"{layer}/bias", (width,), scales)

    def _norm(self, layer: str, width: int) -> None:
        for name in ("gamma", "beta"):
            self._train(f"{layer}/{name}", (width,), 1e-3)
        for name in ("moving_mean", "moving_variance"):
            self._add(f"{layer}/{name}", self.rng.uniform(0.5, 1, width).astype("<f4"))

    def _train(self, path: str, shape: tuple[int, ...], scales: Any) -> None:
        """Add a variable and keep its slots after some steps: rows and columns have own levels."""
        spread = 0.001 if path.endswith("bias") else 0.1
        self._add(path, self.rng.normal(0, spread, shape).astype("<f4"))
        levels = 10.0 ** self.rng.uniform(-1, 1, shape[0])
        rows: Any = levels[:, None] if len(shape) == 2 else 1.0
        mean: Any = np.zeros(shape)
        square: Any = np.zeros(shape)
        for _ in range(20):
            gradient = self.rng.normal(0, 1, shape) * scales * rows
            mean, square = 0.9 * mean + 0.1 * gradient, 0.999 * square + 0.001 * gradient**2
        for kind, found in self.slots.items():
            found[path] = (mean if kind in ("m", "momentum") else square).astype("<f4")

    def _add(self, path: str, value: Any) -> None:
        holder, _, name = path.rpartition("/")
        number = self._store(path, value)
        self._hold(holder, name, number)
        self.nodes[path] = number

    def _hold(self, holder: str, name: str, number: int) -> None:
        if holder not in self.nodes:
            self.nodes[holder] = len(self.graph.nodes)
            self.graph.nodes.add()
            above, _, last = holder.rpartition("/")
            self._hold(above, last, self.nodes[holder])
        child = self.graph.nodes[self.nodes[holder]].children.add()
        child.local_name, child.node_id = name, number

    def _store(self, path: str, value: Any) -> int:
        attribute = self.graph.nodes.add().attributes.add()
        attribute.name, attribute.checkpoint_key = "VARIABLE_VALUE", path + VALUE
        if self.layer and path.endswith(("/kernel", "/bias")):
            attribute.full_name = f"{self.layer}/{path.rpartition('/')[2]}"
        self.arrays[path + VALUE] = value
        return len(self.graph.nodes) - 1

    def write(self, prefix: Path, *, values: int = 0, graph: int = 0) -> dict[str, int]:
        """Write all values into one data file and the graph into one, and no index.

        Returns:
            Key -> offset in the data file.
        """
        made = builder.Bundle(header=builder.Header(num_shards=max(values, graph) + 1))
        places, end = {}, 0
        for name, array in self.arrays.items():
            made.add(name, array, shard=values)
            places[name] = end
            end += array.nbytes
        made.add(GRAPH, np.array(self.graph.SerializeToString(), object), shard=graph)
        made.write(prefix)
        prefix.with_name(prefix.name + ".index").unlink()
        return places


def scalars_of(model: Keras2) -> set[str]:
    return {name for name, array in model.arrays.items() if array.ndim == 0}


def check_places(recovery: ckptparse.Recovery, places: dict[str, int]) -> None:
    """Check that nothing stands where it was not, and that nothing of it is proved."""
    for name, tensor in recovery.items():
        assert tensor.source is not None
        assert tensor.source.offset == places[name], name
        assert tensor.status == "unverified"
        assert "guess" in tensor.note


CASES = [
    {},
    {"norm": True},
    {"late": 77},
    {"optimizer": "rms"},
    {"optimizer": "momentum"},
    {"optimizer": "momentum", "norm": True},
]


@pytest.mark.parametrize("options", CASES, ids=str)
def test_scalars_before_the_slots_are_found(options: dict[str, Any], tmp_path: Path) -> None:
    model = Keras2((7, 30, 20, 3), **options)
    places = model.write(tmp_path / "model")
    recovery = ckptparse.recover(tmp_path / "model")
    check_places(recovery, places)
    assert set(recovery) >= scalars_of(model)
    for name in scalars_of(model):
        assert recovery[name].read() == model.arrays[name], name
        assert EvidenceRule.SLOT_BLOCKS in [record.rule for record in recovery[name].evidence]


def test_another_optimizers_decays_have_another_bound(tmp_path: Path) -> None:
    model = Keras2((7, 30, 20, 3))
    model.arrays["optimizer/beta_2" + VALUE] = np.array(0.9, "<f4")
    places = model.write(tmp_path / "model")
    # A mean of so many roots of its square is possible with 0.999, and not with 0.9.
    recovery = ckptparse.recover(tmp_path / "model")
    check_places(recovery, places)
    first = model.arrays["layer_with_weights-0/kernel/.OPTIMIZER_SLOT/optimizer/m" + VALUE]
    square = model.arrays["layer_with_weights-0/kernel/.OPTIMIZER_SLOT/optimizer/v" + VALUE]
    first[0, 0] = 4 * np.sqrt(square[0, 0])
    model.write(tmp_path / "other")
    assert len(ckptparse.recover(tmp_path / "other")) == 0


@pytest.mark.parametrize(("values", "graph"), [(1, 0), (0, 1)])
def test_a_graph_may_have_a_data_file_of_its_own(values: int, graph: int, tmp_path: Path) -> None:
    model = Keras2((7, 30, 20, 3))
    places = model.write(tmp_path / "model", values=values, graph=graph)
    recovery = ckptparse.recover(tmp_path / "model")
    check_places(recovery, places)
    assert set(recovery) >= scalars_of(model)
    assert recovery.object_graph is not None
    assert recovery.object_graph.read().item() == model.graph.SerializeToString()
    found = {record.path for one in recovery.values() for record in one.evidence}
    assert found == {str(tmp_path / f"model.data-0000{values}-of-00002")}


def test_one_of_two_data_files_gives_nothing(tmp_path: Path) -> None:
    Keras2((7, 30, 20, 3)).write(tmp_path / "model", values=1)
    (tmp_path / "model.data-00001-of-00002").unlink()
    assert len(ckptparse.recover(tmp_path / "model")) == 0


def test_two_data_files_of_tensors_give_nothing(tmp_path: Path) -> None:
    Keras2((7, 30, 20, 3)).write(tmp_path / "model", values=1)
    first = tmp_path / "model.data-00000-of-00002"
    first.write_bytes(bytes(400) + first.read_bytes())
    assert len(ckptparse.recover(tmp_path / "model")) == 0


def test_a_metric_is_a_scalar_by_its_key_if_names_are_not_kept(tmp_path: Path) -> None:
    model = Keras2((7, 30, 20, 3))
    assert all(not one.full_name for node in model.graph.nodes for one in node.attributes)
    places = model.write(tmp_path / "model")
    recovery = ckptparse.recover(tmp_path / "model")
    check_places(recovery, places)
    assert recovery["keras_api/metrics/0/count" + VALUE].read() == 40


# --------------------------------------------------------------------------------- dense layers

NAMED: list[dict[str, Any]] = [
    {"layer": "dense"},
    {"layer": "sequential_1/dense_12"},
    {"layer": "dense", "norm": True},
    {"layer": "dense", "optimizer": "rms"},
]


@pytest.mark.parametrize("options", NAMED, ids=str)
@pytest.mark.parametrize("widths", [(7, 30, 20, 3), (13, 64, 64, 10), (40, 90, 16, 5)])
def test_dense_layers_give_their_sizes(
    widths: tuple[int, ...], options: dict[str, Any], tmp_path: Path
) -> None:
    model = Keras2(widths, **options)
    places = model.write(tmp_path / "model", values=1)
    recovery = ckptparse.recover(tmp_path / "model")
    assert set(recovery) == set(model.arrays)
    check_places(recovery, places)
    for name, array in model.arrays.items():
        assert recovery[name].read().tobytes() == array.tobytes(), name
    rules = [record.rule for record in recovery["layer_with_weights-0/kernel" + VALUE].evidence]
    assert EvidenceRule.LAYER_CHAIN in rules and EvidenceRule.SLOT_SIZE in rules


def test_dense_layers_that_keras_trained_give_their_sizes(fixtures: Path, tmp_path: Path) -> None:
    original = fixtures / "objects/keras2_dense_layers/weights"
    shutil.copy(f"{original}.data-00000-of-00001", tmp_path)
    recovery = ckptparse.recover(tmp_path / "weights")
    expected = ckptparse.read(original)
    assert set(recovery) == set(expected)
    for name, value in expected.items():
        assert recovery[name].read().tobytes() == value.tobytes(), name


OTHERS: list[dict[str, Any]] = [
    {"layer": "conv2d_1"},
    {"layer": ""},
    {"layer": "dense", "late": 77},
    {"layer": "dense", "optimizer": "momentum"},
    {"layer": "dense", "joined": 9},
]


@pytest.mark.parametrize("options", OTHERS, ids=str)
def test_of_other_layers_the_scalars_alone_are_placed(
    options: dict[str, Any], tmp_path: Path
) -> None:
    model = Keras2((7, 30, 20, 3), **options)
    places = model.write(tmp_path / "model")
    recovery = ckptparse.recover(tmp_path / "model")
    check_places(recovery, places)
    assert set(recovery) >= scalars_of(model)
    assert not [name for name in recovery if "/kernel" in name and "/cell/" not in name]


@pytest.mark.parametrize("widths", [(7, 30, 20, 3), (13, 64, 64, 10), (50, 30, 30)])
def test_slots_without_rows_and_columns_tell_no_sizes(
    widths: tuple[int, ...], tmp_path: Path
) -> None:
    model = Keras2(widths, layer="dense")
    # Means and squares stay together, so that they still are such as Adam leaves.
    paths = list(model.slots["m"])
    order = np.random.default_rng(2).permutation(sum(model.slots["m"][one].size for one in paths))
    for kind, found in model.slots.items():
        flat = np.concatenate([found[path].reshape(-1) for path in paths])[order]
        for path in paths:
            size = found[path].size
            key = f"{path}/.OPTIMIZER_SLOT/optimizer/{kind}{VALUE}"
            model.arrays[key] = flat[:size].reshape(found[path].shape)
            flat = flat[size:]
    places = model.write(tmp_path / "model")
    recovery = ckptparse.recover(tmp_path / "model")
    check_places(recovery, places)
    assert set(recovery) == scalars_of(model)


def test_noise_is_no_chain_of_layers() -> None:
    rng = np.random.default_rng(6)
    for number in range(12):
        size = int(rng.integers(50, 1000))
        squares = (10.0 ** rng.normal(-6, 2, size)).astype("<f4")
        if number % 2:
            squares = np.sort(squares)
        weights = rng.normal(0, 0.1, size).astype("<f4")
        layers = [Layer(bias=True)] * int(rng.integers(2, 5))
        assert find_chain(squares, weights, layers) is None


def test_a_thousand_short_runs_of_noise_are_no_chain_of_layers() -> None:
    rng = np.random.default_rng(8)
    for _ in range(1000):
        size = int(rng.integers(20, 60))
        squares = (10.0 ** rng.normal(-6, rng.uniform(0.2, 2.5), size)).astype("<f4")
        weights = rng.normal(0, 0.1, size).astype("<f4")
        assert find_chain(squares, weights, [Layer(bias=True)] * int(rng.integers(1, 4))) is None


@pytest.mark.parametrize("size", [2, 3, 8, 64])
def test_what_is_too_little_is_no_chain_of_layers(size: int) -> None:
    values = np.ones(size, "<f4")
    for count in (1, 2, 3):
        assert find_chain(values, values, [Layer(bias=True)] * count) is None
        assert find_chain(0 * values, values, [Layer(bias=True)] * count) is None


def test_a_long_chain_of_many_elements_ends_at_its_allowance() -> None:
    rng = np.random.default_rng(7)
    squares = (10.0 ** rng.normal(-6, 2, 300_000)).astype("<f4")
    weights = rng.normal(0, 0.1, len(squares)).astype("<f4")
    search = Search(logarithms(squares), weights, [Layer(bias=True)] * 20)
    search.run()
    assert search.passed < (1 << 26) + 50 * len(squares)


# ------------------------------------------------------------------------- what is no such file


def other_data(model: Keras2, kind: str) -> bytes:
    """Return as many bytes as the tensors have, of which training left none, or not there."""
    rng = np.random.default_rng(1)
    raw = b"".join(array.tobytes() for array in model.arrays.values())
    if kind == "noise":
        return rng.bytes(len(raw))
    if kind == "zeros":
        return bytes(len(raw))
    if kind == "floats":
        return rng.normal(0, 0.1, len(raw) // 4).astype("<f4").tobytes()
    block = sum(array.nbytes for name, array in model.arrays.items() if "/optimizer/v/" in name)
    if kind == "exchanged":
        return raw[: -2 * block] + raw[-block:] + raw[-2 * block : -block]
    means = rng.permutation(np.frombuffer(raw[-2 * block : -block], "<f4"))
    return raw[: -2 * block] + means.tobytes() + raw[-block:]


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("kind", ["noise", "zeros", "floats", "exchanged", "shuffled"])
def test_other_data_before_such_a_graph_gives_nothing(
    kind: str, norm: bool, tmp_path: Path
) -> None:
    model = Keras2((7, 30, 20, 3), norm=norm)
    model.write(tmp_path / "model")
    path = tmp_path / "model.data-00000-of-00001"
    data = other_data(model, kind)
    path.write_bytes(data + path.read_bytes()[len(data) :])
    assert len(ckptparse.recover(tmp_path / "model")) == 0
