"""Layers and optimizers of Keras 2 and Keras 3, as Keras itself gives them after loading."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import expected
import numpy as np
import pytest

import ckptparse
from ckptparse.errors import CheckpointError, TensorNotFoundError

pytestmark = pytest.mark.proto

CASES = {case.name: case for case in expected.cases() if case.data.get("layers")}
SAVED_MODELS = [name for name, case in CASES.items() if case.data.get("saved_models")]
CHECKPOINTS = [name for name in CASES if name not in SAVED_MODELS]
KERAS_2 = [name for name in SAVED_MODELS if "keras2" in name]
EXPORTS = [name for name in SAVED_MODELS if "keras3" in name]
WITH_OPTIMIZER = [name for name, case in CASES.items() if case.data.get("optimizer")]


@contextmanager
def opened(name: str) -> Iterator[ckptparse.SavedModel | ckptparse.Checkpoint]:
    case = CASES[name]
    if name in SAVED_MODELS:
        with ckptparse.open_saved_model(case.root) as model:
            yield model
    else:
        with ckptparse.open(case.checkpoint.path) as checkpoint:
            yield checkpoint


def assert_weights(layer: ckptparse.Layer, facts: list[Mapping[str, Any]]) -> None:
    arrays = layer.get_weights()
    assert len(arrays) == len(facts)
    for array, weight, fact in zip(arrays, layer.weights, facts, strict=True):
        expected.assert_matches(array, expected.ExpectedTensor.from_json(fact))
        assert weight.shape == tuple(fact["shape"])


def with_lists(value: Any) -> Any:
    """JSON has lists for tuples."""
    if isinstance(value, Mapping):
        return {key: with_lists(item) for key, item in value.items()}
    return [with_lists(item) for item in value] if isinstance(value, list | tuple) else value


@pytest.mark.parametrize("name", KERAS_2)
def test_layers_of_keras_2_saved_models_are_those_that_keras_loads(name: str) -> None:
    facts = CASES[name].data["layers"]
    with opened(name) as model:
        assert model.layers_source == "keras_metadata"
        assert [layer.name for layer in model.layers] == [fact["name"] for fact in facts]
        assert [layer.class_name for layer in model.layers] == [f["class_name"] for f in facts]
        for layer, fact in zip(model.layers, facts, strict=True):
            assert_weights(layer, fact["weights"])
            assert layer.config is not None
            assert layer.config["name"] == fact["name"]


@pytest.mark.parametrize("name", ["saved_model/keras2_sequential", "saved_model/keras2_functional"])
def test_configurations_of_keras_2_layers_are_those_that_keras_gives(name: str) -> None:
    with opened(name) as model:
        for layer, fact in zip(model.layers, CASES[name].data["layers"], strict=True):
            assert layer.config is not None
            if fact["config"] is None:
                continue
            for key in ("units", "activation", "trainable", "axis", "dtype", "use_bias"):
                assert with_lists(layer.config.get(key)) == with_lists(fact["config"].get(key)), key


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_layers_of_checkpoints_have_the_weights_that_keras_gives(name: str) -> None:
    facts = CASES[name].data["layers"]
    with opened(name) as checkpoint:
        layers = checkpoint.layers
        assert checkpoint.layers_source == "object_graph"
        assert len(layers) == len(facts)
        for layer, fact in zip(layers, facts, strict=True):
            assert_weights(layer, fact["weights"])
            assert (layer.class_name, layer.config) == (None, None)
            names = [weight["name"].split(":")[0] for weight in fact["weights"]]
            scopes = {weight.rpartition("/")[0] for weight in names}
            if len(scopes) == 1:
                assert layer.name == scopes.pop()
            elif not scopes:
                assert layer.name == layer.path


@pytest.mark.parametrize("name", EXPORTS)
def test_a_keras_3_export_has_a_layer_for_each_scope_in_order_of_first_use(name: str) -> None:
    facts = [fact for fact in CASES[name].data["layers"] if fact["weights"]]
    with opened(name) as model:
        assert model.layers_source == "names"
        layers = [layer for layer in model.layers if "seed_generator" not in layer.name]
        assert [layer.name for layer in layers] == [
            fact["weights"][0]["name"].rpartition("/")[0] for fact in facts
        ]
        for layer, fact in zip(layers, facts, strict=True):
            assert_weights(layer, fact["weights"])


@pytest.mark.checklist(117)
@pytest.mark.parametrize("name", WITH_OPTIMIZER)
def test_optimizers_keep_what_keras_says_for_each_variable(name: str) -> None:
    facts = CASES[name].data["optimizer"]
    with opened(name) as model:
        optimizer = model.optimizer
        assert optimizer is not None
        assert optimizer.iterations == facts["iterations"]
        assert optimizer.learning_rate == pytest.approx(facts["learning_rate"], rel=1e-6)
        assert set(optimizer.slots) == set(facts["slots"])
        for variable, by_slot in facts["slots"].items():
            assert set(optimizer.slots[variable]) == set(by_slot)
            for slot, fact in by_slot.items():
                tensor = optimizer.slots[variable][slot]
                expected.assert_matches(tensor.read(), expected.ExpectedTensor.from_json(fact))


@pytest.mark.checklist(116)
def test_weights_of_keras_3_under_the_optimizer_belong_to_layers_all_the_same() -> None:
    with opened("objects/keras3_optimizer") as checkpoint:
        assert isinstance(checkpoint, ckptparse.Checkpoint)
        keys = [weight.name for layer in checkpoint.layers for weight in layer.weights]
        under = [key for key in keys if key.startswith("optimizer/_trainable_variables/")]
        assert len(under) == 6
        assert checkpoint.optimizer is not None
        assert checkpoint.optimizer.path == "optimizer"


def test_slots_are_found_by_name_and_by_key() -> None:
    with opened("objects/keras2_legacy_optimizer") as checkpoint:
        optimizer = checkpoint.optimizer
        assert optimizer is not None
        key = "layer_with_weights-0/kernel/.ATTRIBUTES/VARIABLE_VALUE"
        for name in ("first/kernel", "first/kernel:0", key):
            assert name in optimizer.slots
            np.testing.assert_array_equal(
                optimizer.slots[name]["m"].read(), optimizer.slots["first/kernel"]["m"].read()
            )
        with pytest.raises(TensorNotFoundError, match="keeps nothing"):
            optimizer.slots["nothing"]
        assert 3 not in optimizer.slots


def test_a_model_without_an_optimizer_has_none() -> None:
    with opened("saved_model/keras2_functional") as model:
        assert model.optimizer is None


def test_slots_of_a_tf1_optimizer_are_those_of_the_object_graph() -> None:
    with ckptparse.open(expected.load("objects/tf1_optimizer").checkpoint.path) as checkpoint:
        optimizer = checkpoint.optimizer
        assert optimizer is not None
        assert {slot for by_slot in optimizer.slots.values() for slot in by_slot} == {"m", "v"}
        assert optimizer.iterations is None


@pytest.mark.parametrize("name", KERAS_2)
def test_layers_survive_a_broken_message(name: str, tmp_path_factory: Any) -> None:
    import shutil

    case = CASES[name]
    directory = tmp_path_factory.mktemp("broken") / "model"
    shutil.copytree(case.root, directory)
    (directory / "saved_model.pb").write_bytes(b"\x12\x05ab")
    with ckptparse.open_saved_model(directory) as model:
        with pytest.raises(CheckpointError):
            _ = model.meta_graphs
        facts = case.data["layers"]
        assert [layer.name for layer in model.layers] == [fact["name"] for fact in facts]
        for layer, fact in zip(model.layers, facts, strict=True):
            if layer.class_name == "TextVectorization":
                # Its vocabulary is a constant of the graph, which is broken.
                in_checkpoint = [one for one in fact["weights"] if one["dtype"] != "string"]
                assert len(layer.get_weights()) == len(in_checkpoint)
            else:
                assert_weights(layer, fact["weights"])
        assert str(model.tree())


@pytest.mark.parametrize("name", KERAS_2)
def test_layers_are_named_even_where_the_variables_are_gone(name: str, tmp_path: Any) -> None:
    import shutil

    case = CASES[name]
    directory = tmp_path / "model"
    shutil.copytree(case.root, directory, ignore=shutil.ignore_patterns("variables"))
    with ckptparse.open_saved_model(directory) as model:
        assert [layer.name for layer in model.layers] == [f["name"] for f in case.data["layers"]]
        with_weights = next(layer for layer in model.layers if layer._tensors)
        with pytest.raises(CheckpointError):
            with_weights.get_weights()
