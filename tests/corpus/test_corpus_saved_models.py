"""Real SavedModels, those that TensorFlow cannot load among them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import corpus
import pytest
from expected import digest

import ckptparse
from ckptparse import CheckpointError, MalformedError, NotACheckpointError
from ckptparse.dtypes import DataType
from ckptparse.tensor import Tensor

pytestmark = [
    pytest.mark.corpus,
    pytest.mark.skipif(corpus.directory() is None, reason="the corpus is not here"),
]

MODELS = [
    (item, corpus.files(item) / row["file"], row)
    for item, answer in corpus.answers().items()
    for row in answer.get("saved_models", ())
]
PARSED = [model for model in MODELS if "error" not in model[2]]
BROKEN = [model for model in MODELS if "error" in model[2]]

WITHOUT_DATA = {
    # The data files were never published, were cut off, or are too large for the corpus.
    "ConJones__TetrisDQN__old_agents_agent",
    "DIstha__NRMS_trained_model__root",
    "Kafow__TelloVision__root_cb2d8f4",
    "SciSharp__TensorFlow.NET__models_example1",
    "dotnet__machinelearning-testdata__crosoft.ML.TensorFlow.TestModels_mnist_model",
    "dotnet__machinelearning-testdata__oft.ML.TensorFlow.TestModels_sentiment_model",
    "fcuyttsai__overtoppingEve__root",
    "fcuyttsai__overtoppingEve__root_57875ef",
    "rishsol__Varroa-Model-Hosted__models_varroa_detection",
}
BROKEN_WITH_VARIABLES = {
    "DavideCiGi__Probabilistic-Safety-Certifi__models_GP_psi": MalformedError,
    "cevikgazi__getir__pbtxt": MalformedError,
}
BROKEN_ALTOGETHER = {
    # Two bytes, and nothing else.
    "DavideCiGi__Probabilistic-Safety-Certifi__models_GP_psi_ce4c2a8": MalformedError,
    # Web pages and pointers of Git LFS in place of every file.
    "rishsol__Varroa-Model-Hosted__models_varroa_detection_v0": NotACheckpointError,
    "zack-carideo__tfhub_embeddings__root": NotACheckpointError,
}


def by_name(models: list[tuple[str, Path, dict[str, Any]]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(("item", "path", "row"), models, ids=[m[0] for m in models])


@by_name(PARSED)
def test_meta_graphs_are_as_tensorflow_parses_them(
    item: str, path: Path, row: dict[str, Any]
) -> None:
    with ckptparse.open_saved_model(path) as model:
        assert model.schema_version == row["schema_version"]
        for meta_graph, fact in zip(model.meta_graphs, row["meta_graphs"], strict=True):
            assert list(meta_graph.tags) == fact["tags"]
            assert (meta_graph.tensorflow_version or "") == fact["tensorflow_version"]
            assert len(meta_graph.graph.nodes) == fact["nodes"]
            assert len(meta_graph.graph.functions) == fact["functions"]
            assert sorted(meta_graph.graph.collections) == sorted(fact["collections"])
            assert sorted(meta_graph.signatures) == sorted(fact["signatures"])
            for name, signature in meta_graph.signatures.items():
                assert signature.method_name == fact["signatures"][name]["method"]
                assert_infos(signature.inputs, fact["signatures"][name]["inputs"])
                assert_infos(signature.outputs, fact["signatures"][name]["outputs"])
            objects = meta_graph.objects
            assert (objects.node_count if objects else 0) == fact["object_graph_nodes"]
            assert {asset["file"] for asset in fact["assets"]} <= set(meta_graph.assets)
            for asset in meta_graph.assets.values():
                assert Path(asset).is_relative_to(path.parent.resolve())


def assert_infos(found: Any, facts: dict[str, Any]) -> None:
    assert sorted(found) == sorted(facts)
    for name, fact in facts.items():
        info = found[name]
        shape = None if info.shape is None else [-1 if n is None else n for n in info.shape]
        kind = DataType(info.data_type).name
        assert (info.name, kind, shape) == (fact["tensor"] or "", fact["dtype"], fact["shape"])
        assert bool(info.components) == (fact["encoding"] != "name")


@by_name(PARSED)
def test_every_constant_is_identical(item: str, path: Path, row: dict[str, Any]) -> None:
    with ckptparse.open_saved_model(path) as model:
        for meta_graph, fact in zip(model.meta_graphs, row["meta_graphs"], strict=True):
            constants = meta_graph.graph.constants
            assert sorted(constants) == sorted(constant["name"] for constant in fact["consts"])
            for constant in fact["consts"]:
                assert_constant(constants[constant["name"]], constant)


def assert_constant(tensor: Tensor, fact: dict[str, Any]) -> None:
    assert DataType(tensor.data_type).name == fact["dtype"]
    assert list(tensor.shape) == fact["shape"]
    if "sha256" in fact:
        kind = "string" if tensor.kind == "string" else tensor.dtype.name
        assert digest(tensor.read(), kind) == fact["sha256"], fact["name"]


@by_name([model for model in PARSED if model[2].get("fingerprint")])
def test_fingerprints_are_as_recorded_and_those_of_the_index(
    item: str, path: Path, row: dict[str, Any]
) -> None:
    with ckptparse.open_saved_model(path) as model:
        fingerprint = model.fingerprint
        assert fingerprint is not None
        for field, value in row["fingerprint"].items():
            if field.endswith(("_hash", "_checksum")):
                assert getattr(fingerprint, field) == value
        assert fingerprint.matches_checkpoint


@by_name([model for model in PARSED if model[0] not in WITHOUT_DATA])
def test_layers_hold_the_variables_of_models_that_are_whole(
    item: str, path: Path, row: dict[str, Any]
) -> None:
    with ckptparse.open_saved_model(path) as model:
        layers = model.layers
        keys = {weight.name for layer in layers for weight in layer.weights if weight.crc32c}
        assert keys <= set(model.variables)
        for layer in layers:
            shapes = [weight.shape for weight in layer.weights]
            assert [array.shape for array in layer.get_weights()] == shapes
        if model.layers_source == "keras_metadata":
            assert_trained(model)
        assert str(model.tree()) or not len(model.variables)


def assert_trained(model: ckptparse.SavedModel) -> None:
    """Hold that all a Keras model trains is in its layers, and its optimizer's slots fit."""
    objects = model.objects
    assert objects is not None
    listed = objects.get("trainable_variables")
    trained = {node.checkpoint_key for node in listed.values()} if listed else set()
    weights = {weight.name: weight for layer in model.layers for weight in layer.weights}
    assert trained <= weights.keys()
    assert all(layer.class_name and layer.config is not None for layer in model.layers)
    if model.optimizer is not None:
        assert model.optimizer.iterations is not None
        assert model.step == model.optimizer.iterations
        for variable, slots in model.optimizer.slots.items():
            for tensor in slots.values():
                assert tensor.shape == objects_variable(model, variable).shape


def objects_variable(model: ckptparse.SavedModel, name: str) -> Tensor:
    assert model.objects is not None
    keys = {name: key for key, name in model.objects.names_by_key.items()}
    return model.variables[keys.get(name, name)]


@by_name([model for model in PARSED if model[0] in WITHOUT_DATA])
def test_models_without_their_data_still_tell_their_layers(
    item: str, path: Path, row: dict[str, Any]
) -> None:
    with ckptparse.open_saved_model(path) as model:
        if model.objects is not None:
            assert model.layers
        with pytest.raises(CheckpointError):
            model.variables.read()


@by_name(BROKEN)
def test_broken_models_say_so_and_give_what_is_left(
    item: str, path: Path, row: dict[str, Any]
) -> None:
    with ckptparse.open_saved_model(path) as model:
        expected = BROKEN_WITH_VARIABLES.get(item) or BROKEN_ALTOGETHER[item]
        with pytest.raises(expected):
            _ = model.meta_graphs
        if item in BROKEN_WITH_VARIABLES:
            arrays = model.variables.read()
            assert arrays
            assert sum(len(layer.get_weights()) for layer in model.layers) >= len(arrays) - 3
        else:
            with pytest.raises(CheckpointError):
                _ = model.variables
