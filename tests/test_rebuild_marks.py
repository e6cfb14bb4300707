"""Layers of a data file alone that values about one mark: normalizations, and LSTMs."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import builder
import numpy as np
import numpy.typing as npt
import pytest

import ckptparse
from ckptparse.dtypes import DataType
from ckptparse.problems import EvidenceRule
from ckptparse.proto.trackable_object_graph_pb2 import TrackableObjectGraph
from ckptparse.recovery.rebuild import marks
from ckptparse.recovery.rebuild.items import Item
from ckptparse.recovery.rebuild.marks import find_marks

VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"
GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
Arrays = dict[str, npt.NDArray[np.float32]]


@pytest.mark.parametrize("case", ["keras2_convolutions", "keras2_cells_trained"])
def test_layers_that_keras_trained_give_their_sizes(
    case: str, fixtures: Path, tmp_path: Path
) -> None:
    original = fixtures / "objects" / case / "weights"
    shutil.copy(f"{original}.data-00000-of-00001", tmp_path)
    recovery = ckptparse.recover(tmp_path / "weights")
    expected = ckptparse.read(original)
    assert set(recovery) == set(expected)
    for name, value in expected.items():
        assert recovery[name].read().tobytes() == value.tobytes(), name
        assert recovery[name].status == "unverified" and "guess" in recovery[name].note
    rules = {record.rule for one in recovery.values() for record in one.evidence}
    assert {EvidenceRule.ONES, EvidenceRule.REST, EvidenceRule.SLOT_SIZE} <= rules


def normalized(rng: np.random.Generator, widths: list[int], inputs: int, spread: float) -> Arrays:
    """Make convolutions, each with a normalization behind it."""
    found: Arrays = {}
    for number, width in enumerate(widths):
        window = int(rng.choice([1, 9, 25]))
        layer = f"layer_with_weights-{2 * number}"
        found[f"{layer}/kernel"] = rng.normal(0, 0.1, window * inputs * width).astype("<f4")
        if rng.random() < 0.7:
            found[f"{layer}/bias"] = rng.normal(0, 0.01, width).astype("<f4")
        layer = f"layer_with_weights-{2 * number + 1}"
        found[f"{layer}/gamma"] = (1 + rng.normal(0, spread, width)).astype("<f4")
        found[f"{layer}/beta"] = rng.normal(0, spread / 2, width).astype("<f4")
        found[f"{layer}/moving_mean"] = rng.normal(0, 1, width).astype("<f4")
        found[f"{layer}/moving_variance"] = rng.gamma(2, 0.4, width).astype("<f4")
        inputs = width
    return found


def items_of(arrays: Arrays) -> list[Item]:
    return [
        Item(path + VALUE, DataType.DT_FLOAT, None, None, number, full_name="x")
        for number, path in enumerate(arrays)
    ]


def items_of_a_list(arrays: Arrays) -> list[Item]:
    """Return the items as Keras 3 lists them beside an optimizer."""
    return [
        Item(
            (path if "moving" in path else f"optimizer/_trainable_variables/{number}") + VALUE,
            DataType.DT_FLOAT,
            None,
            None,
            number,
            full_name=f"model/{path}",
        )
        for number, path in enumerate(arrays)
    ]


def test_normalizations_of_one_name_one_behind_the_other_are_two() -> None:
    """A model of one's own may give all its layers the same name."""
    rng = np.random.default_rng(4)
    arrays = {
        f"{name}{number}": (name.startswith("gamma") + rng.normal(0, 0.01, 8)).astype("<f4")
        for number in range(2)
        for name in ("gamma", "beta")
    }
    items = [
        Item(f"list/{n}{VALUE}", DataType.DT_FLOAT, None, None, n, full_name=f"m/{path[:-1]}")
        for n, path in enumerate(arrays)
    ]
    assert find_marks(items, flat(arrays)) == spans_of(arrays)


def spans_of(arrays: Arrays) -> dict[int, tuple[int, int]]:
    stops = np.cumsum([array.size for array in arrays.values()]).tolist()
    return {
        n: (stop - a.size, stop)
        for n, (stop, a) in enumerate(zip(stops, arrays.values(), strict=True))
    }


def flat(arrays: Arrays) -> npt.NDArray[np.float32]:
    return np.concatenate(list(arrays.values()))


@pytest.mark.parametrize("names", ["kernel", "_kernel", "a list"])
def test_of_a_thousand_models_nothing_is_placed_where_it_is_not(names: str) -> None:
    rng = np.random.default_rng(0)
    whole = 0
    for _ in range(1000):
        widths = rng.choice([4, 6, 8, 12, 16, 24, 32], int(rng.integers(1, 6))).tolist()
        arrays = normalized(rng, widths, int(rng.choice([1, 3, 8])), float(rng.choice([0.01, 0.1])))
        if names == "a list":
            # The statistics are not trained, and lie behind what is.
            arrays = dict(sorted(arrays.items(), key=lambda one: "moving" in one[0]))
        elif names == "_kernel":
            arrays = {path.replace("/kernel", "/_kernel"): a for path, a in arrays.items()}
        items = items_of_a_list(arrays) if names == "a list" else items_of(arrays)
        found, truth = find_marks(items, flat(arrays)), spans_of(arrays)
        assert all(truth[number] == span for number, span in found.items())
        each = 2 if names == "a list" else 4
        whole += sum("/gamma" in path for path in arrays) <= len(found) // each
    assert whole > 900


def test_of_a_thousand_models_far_from_where_they_began_nothing_false_is_placed() -> None:
    rng = np.random.default_rng(1)
    false = 0
    for _ in range(1000):
        widths = rng.choice([4, 8, 16, 32], int(rng.integers(1, 4))).tolist()
        arrays = normalized(rng, widths, 3, 0.6)
        found, truth = find_marks(items_of(arrays), flat(arrays)), spans_of(arrays)
        false += any(truth[number] != span for number, span in found.items())
    # A part of gamma may be taken for all of it, if all else fits by chance.
    assert false <= 5


def test_a_thousand_files_of_noise_hold_no_marks() -> None:
    rng = np.random.default_rng(2)
    arrays = normalized(rng, [8, 16], 3, 0.01)
    items, size = items_of(arrays), flat(arrays).size
    for _ in range(1000):
        values = rng.normal(0, 10.0 ** rng.uniform(-3, 1), size).astype("<f4")
        assert find_marks(items, values) == {}
        assert find_marks(items, np.frombuffer(rng.bytes(4 * size), "<f4")) == {}


def lstm(rng: np.random.Generator, units: int, inputs: int) -> Arrays:
    gates = np.repeat([0.0, 1.0, 0.0, 0.0], units) + rng.normal(0, 0.05, 4 * units)
    return {
        "layer_with_weights-0/cell/kernel": rng.normal(0, 0.1, inputs * 4 * units).astype("<f4"),
        "layer_with_weights-0/cell/recurrent_kernel": rng.normal(0, 0.1, 4 * units**2).astype(
            "<f4"
        ),
        "layer_with_weights-0/cell/bias": gates.astype("<f4"),
    }


def test_of_a_thousand_recurrent_layers_nothing_is_placed_where_it_is_not() -> None:
    rng = np.random.default_rng(3)
    for _ in range(1000):
        units = int(rng.integers(4, 40))
        arrays = lstm(rng, units, int(rng.integers(1, 30)))
        items = [
            Item(path + VALUE, DataType.DT_FLOAT, None, None, n, full_name="lstm/lstm_cell/x")
            for n, path in enumerate(arrays)
        ]
        truth = spans_of(arrays)
        assert find_marks(items, flat(arrays)) == {1: truth[1], 2: truth[2]}


def test_no_more_runs_are_tried_than_an_allowance(monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = normalized(np.random.default_rng(4), [8] * 20, 3, 0.01)
    values = np.tile(np.repeat(np.array([1, 0], "<f4"), 5), 3000)
    tried = 0
    real = marks._Search._fits

    def counting(*args: Any) -> Any:
        nonlocal tried
        tried += 1
        return real(*args)

    monkeypatch.setattr(marks._Search, "_fits", counting)
    assert find_marks(items_of(arrays), values) == {}
    assert tried <= marks._MOST_TRIED
    assert find_marks(items_of(arrays), np.tile(values, 10)) == {}


# -------------------------------------------------------------------------------- the whole file


def write(
    prefix: Path, arrays: Arrays, full_names: Mapping[str, str] | None = None
) -> dict[str, int]:
    """Write a data file without an index, with the object graph that Keras 2 keeps of layers.

    With full names the layers that these begin with hold the variables too, as with Keras 3.
    """
    graph = TrackableObjectGraph()
    nodes = {"": 0}
    graph.nodes.add()
    made, places, end = builder.Bundle(), {}, 0
    for path in [*dict.fromkeys(path.rpartition("/")[0] for path in arrays), *arrays]:
        nodes[path] = len(graph.nodes)
        node = graph.nodes.add()
        above, _, name = path.rpartition("/")
        child = graph.nodes[nodes[above]].children.add()
        child.local_name, child.node_id = name, nodes[path]
        if path in arrays:
            attribute = node.attributes.add()
            attribute.name, attribute.checkpoint_key = "VARIABLE_VALUE", path + VALUE
            attribute.full_name = (full_names or {}).get(path, f"dense/{name}")
            made.add(path + VALUE, arrays[path])
            places[path + VALUE] = end
            end += arrays[path].nbytes
    for path, full_name in (full_names or {}).items():
        layer, _, name = full_name.rpartition("/")
        if layer not in nodes:
            nodes[layer] = len(graph.nodes)
            graph.nodes.add()
            child = graph.nodes[0].children.add()
            child.local_name, child.node_id = layer, nodes[layer]
        child = graph.nodes[nodes[layer]].children.add()
        child.local_name, child.node_id = name, nodes[path]
    made.add(GRAPH, np.array(graph.SerializeToString(), object))
    made.write(prefix)
    prefix.with_name(f"{prefix.name}.index").unlink()
    return places


@pytest.mark.parametrize(("rows", "units", "told"), [(8, 5, True), (8 * 4, 9, False)])
def test_a_last_layer_is_placed_if_only_one_number_of_units_fits(
    rows: int, units: int, told: bool, tmp_path: Path
) -> None:
    rng = np.random.default_rng(5)
    arrays = normalized(rng, [16, 8], 3, 0.01)
    arrays["layer_with_weights-9/kernel"] = rng.normal(0, 0.1, rows * units).astype("<f4")
    arrays["layer_with_weights-9/bias"] = rng.normal(0, 0.01, units).astype("<f4")
    places = write(tmp_path / "model", arrays)
    recovery = ckptparse.recover(tmp_path / "model")
    last = {f"layer_with_weights-9/{name}{VALUE}" for name in ("kernel", "bias")}
    assert set(recovery) == set(places) - (set() if told else last)
    for name, tensor in recovery.items():
        assert tensor.source is not None and tensor.source.offset == places[name]
        assert tensor.status == "unverified" and "guess" in tensor.note


@pytest.mark.parametrize(("units", "told"), [(4, True), (10, True), (25, False)])
def test_a_last_layer_behind_an_lstm_has_as_many_inputs_as_that_has_units(
    units: int, told: bool, tmp_path: Path
) -> None:
    """In a list, as Keras 3 keeps them. The LSTM's bias has four times as many elements.

    25 units take as much as 7 do behind 24 inputs: as many as the bias has.
    """
    rng = np.random.default_rng(6)
    own = {
        **{f"m/lstm/{path.rpartition('/')[2]}": array for path, array in lstm(rng, 6, 5).items()},
        "m/dense/kernel": rng.normal(0, 0.1, 6 * units).astype("<f4"),
        "m/dense/bias": rng.normal(0, 0.01, units).astype("<f4"),
    }
    arrays = {f"trained/{number}": array for number, array in enumerate(own.values())}
    places = write(tmp_path / "model", arrays, dict(zip(arrays, own, strict=True)))
    recovery = ckptparse.recover(tmp_path / "model")
    found = {name: one.source.offset for name, one in recovery.items() if one.source}
    assert found == dict(list(places.items())[: 5 if told else 3])
