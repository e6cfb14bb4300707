"""Which tensors are variables, slots, moving averages or counters: as the program itself says."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import expected
import numpy as np
import pytest
from builder import Bundle

import ckptparse
from ckptparse import AmbiguousError, CheckpointError
from ckptparse.graph.name_roles import find_roles
from ckptparse.proto.trackable_object_graph_pb2 import TrackableObjectGraph

pytestmark = pytest.mark.proto

CASES = {case.name: case for case in expected.cases() if case.data.get("roles")}


def opened(name: str) -> ckptparse.Checkpoint:
    return ckptparse.open(CASES[name].checkpoint.path)


def found_slots(checkpoint: ckptparse.Checkpoint) -> dict[str, Any]:
    return {
        optimizer.name: {
            variable: {slot: tensor.name for slot, tensor in slots.items()}
            for variable, slots in optimizer.slots.items()
        }
        for optimizer in checkpoint.optimizers
    }


@pytest.mark.parametrize("name", CASES)
def test_slots_are_those_that_the_optimizers_have(name: str) -> None:
    with opened(name) as checkpoint:
        assert found_slots(checkpoint) == CASES[name].data["roles"]["optimizers"]


@pytest.mark.parametrize("name", CASES)
def test_optimizers_keep_their_slots_and_counters_and_nothing_else(name: str) -> None:
    roles = CASES[name].data["roles"]
    with opened(name) as checkpoint:
        for optimizer in checkpoint.optimizers:
            slots = roles["optimizers"][optimizer.name].values()
            kept = {stored for by_slot in slots for stored in by_slot.values()}
            assert set(optimizer.tensors) == kept | set(roles["others"][optimizer.name])


@pytest.mark.parametrize("name", CASES)
def test_moving_averages_are_found_by_their_variables(name: str) -> None:
    with opened(name) as checkpoint:
        averages = {variable: tensor.name for variable, tensor in checkpoint.averages.items()}
        assert averages == CASES[name].data["roles"]["averages"]
        assert sorted(checkpoint.averages.tensors) == sorted(averages.values())


@pytest.mark.parametrize("name", CASES)
def test_layers_have_the_weights_and_nothing_else(name: str) -> None:
    with opened(name) as checkpoint:
        layers = [[weight.name for weight in layer.weights] for layer in checkpoint.layers]
        assert layers == CASES[name].data["roles"]["layers"]


@pytest.mark.parametrize("name", CASES)
def test_the_optimizer_is_the_only_one_or_an_error_that_names_all(name: str) -> None:
    with opened(name) as checkpoint:
        names = tuple(optimizer.name for optimizer in checkpoint.optimizers)
        if len(names) > 1:
            with pytest.raises(AmbiguousError) as caught:
                _ = checkpoint.optimizer
            assert caught.value.candidates == names
            assert all(repr(one) in str(caught.value) for one in names)
        else:
            assert checkpoint.optimizer is next(iter(checkpoint.optimizers), None)


# What a graph beside the checkpoint adds.


def copy_of(name: str, directory: Path, *, graph: bytes | None) -> Path:
    """Copy a checkpoint, with other bytes for its graph, or without one."""
    prefix = CASES[name].checkpoint.path
    for path in prefix.parent.glob(f"{prefix.name}.*"):
        shutil.copy(path, directory)
    meta = directory / f"{prefix.name}.meta"
    meta.unlink()
    if graph is not None:
        meta.write_bytes(graph)
    return directory / prefix.name


@pytest.mark.parametrize("graph", [None, b"\x0a\xffnot a graph", b""])
def test_without_a_graph_the_order_is_that_of_the_names(
    graph: bytes | None, tmp_path: Path
) -> None:
    path = copy_of("roles/adam_and_average", tmp_path, graph=graph)
    roles = CASES["roles/adam_and_average"].data["roles"]
    with ckptparse.open(path) as checkpoint:
        layers = [[weight.name for weight in layer.weights] for layer in checkpoint.layers]
        assert layers == sorted(sorted(layer) for layer in roles["layers"])
        assert checkpoint.layers_source == "names"
        assert found_slots(checkpoint) == roles["optimizers"]


def test_without_a_graph_two_optimizers_of_one_name_are_told_apart_only_where_they_share(
    tmp_path: Path,
) -> None:
    path = copy_of("roles/two_adams", tmp_path, graph=None)
    with ckptparse.open(path) as checkpoint:
        first, second = checkpoint.optimizers
        assert {*first.slots} == {*found_slots(checkpoint)["Adam"]}
        assert {*second.slots} == {"shared/kernel", "shared/bias"}
        assert {name.rpartition("_")[2] for name in second.tensors if "power" in name} == {"1"}


# What only looks like something else.


def test_the_names_of_a_slot_and_of_its_variable_are_not_enough() -> None:
    with opened("roles/by_hand") as checkpoint:
        (scale,) = (one for one in checkpoint.optimizers if one.name == "Adafactor")
        assert "t5/scale" in scale.slots
        assert "t5/alone_slot_vr" not in scale.tensors
        assert "other/w/Adam" not in {key for one in checkpoint.optimizers for key in one.tensors}


def test_counters_are_no_layers_and_still_tensors() -> None:
    with opened("roles/adam_and_average") as checkpoint:
        assert "global_step" in checkpoint
        assert checkpoint.step == 0
        assert checkpoint.optimizer is not None
        assert checkpoint.optimizer.iterations is None
        assert checkpoint.optimizer.learning_rate is None
        assert checkpoint.optimizer.node is None
        assert checkpoint.optimizer.path is None
        assert "beta1_power" in checkpoint.optimizer.tensors


def test_hyperparameters_of_a_named_optimizer_are_read() -> None:
    with opened("roles/by_hand") as checkpoint:
        (keras,) = (one for one in checkpoint.optimizers if one.name == "training/SGD")
        # Every tensor of this fixture is a float.
        assert keras.iterations is None
        assert keras.learning_rate == 1.0


@pytest.mark.parametrize("name", ["roles/gan", "roles/two_adams"])
def test_the_step_of_several_optimizers_is_the_one_they_agree_on(name: str) -> None:
    with opened(name) as checkpoint:
        assert checkpoint.step == (1 if name == "roles/gan" else None)


def test_averages_are_asked_for_by_the_tensors_name_too() -> None:
    with opened("roles/adam_and_average") as checkpoint:
        averages = checkpoint.averages
        assert averages["z_first/kernel:0"].name == "z_first/kernel/ExponentialMovingAverage"
        assert 3 not in averages
        assert "4 variables" in repr(averages)
        with pytest.raises(ckptparse.TensorNotFoundError, match="No moving average"):
            averages["z_first"]


# The other naming.


def test_a_name_of_the_other_naming_is_recognized() -> None:
    path = CASES["roles/gan"].checkpoint.path
    key = "generator/layer_with_weights-0/kernel/.ATTRIBUTES/VARIABLE_VALUE"
    with ckptparse.open(path) as checkpoint:
        for name in ("generator/kernel", "generator/kernel:0"):
            with pytest.raises(KeyError, match=r"naming='variable'") as caught:
                checkpoint[name]
            assert key in str(caught.value)
    with ckptparse.open(path, naming="variable") as checkpoint:
        with pytest.raises(KeyError, match=r"naming='checkpoint'.*'generator/kernel'"):
            checkpoint[key]
        with pytest.raises(KeyError) as caught:
            checkpoint["generator/kernl"]
        assert "naming" not in str(caught.value)


def test_a_keras_3_export_has_the_names_of_its_weights_once() -> None:
    case = expected.load("saved_model/keras3_export")
    names = [name for name, _ in ckptparse.list_variables(case.root, naming="variable")]
    copies = [name for name in names if ".ATTRIBUTES" in name]
    stored = [name for name, _ in ckptparse.list_variables(case.root)]
    assert copies == [name for name in stored if name.startswith("_all_variables/")]
    weights = {weight["name"] for layer in case.data["layers"] for weight in layer["weights"]}
    assert weights <= set(names) - set(copies)


@pytest.mark.parametrize("name", ["roles/sharded_legacy", "roles/sharded_current"])
def test_sharded_variables_have_their_names_and_their_slots_have_none(name: str) -> None:
    names = {
        one for one, _ in ckptparse.list_variables(CASES[name].root / "model", naming="variable")
    }
    assert {"first/embeddings", "dense/kernel", "last/embeddings"} <= names


# Keras of 2019.


def checkpoint_of_2019(directory: Path, config: bytes) -> Path:
    """Write a layer as Keras did in 2019, its configuration beside its weight."""
    key = "layer-0/.ATTRIBUTES/OBJECT_CONFIG_JSON"
    weight = "layer-0/kernel/.ATTRIBUTES/VARIABLE_VALUE"
    message = TrackableObjectGraph()
    message.nodes.add().children.add(local_name="layer-0", node_id=1)
    layer = message.nodes.add()
    layer.children.add(local_name="kernel", node_id=2)
    layer.attributes.add(name="OBJECT_CONFIG_JSON", checkpoint_key=key)
    message.nodes.add().attributes.add(
        name="VARIABLE_VALUE", full_name="dense/kernel", checkpoint_key=weight
    )
    bundle = Bundle()
    graph = np.array(message.SerializeToString(), object)
    bundle.add("_CHECKPOINTABLE_OBJECT_GRAPH", graph)
    bundle.add(key, np.array(config, object))
    bundle.add(weight, np.ones((2, 3), np.float32))
    bundle.write(directory / "model")
    return directory / "model"


def test_the_configuration_that_keras_kept_beside_a_layer_in_2019_is_read(tmp_path: Path) -> None:
    config = b'{"class_name": "Dense", "config": {"name": "hidden", "units": 3}}'
    with ckptparse.open(checkpoint_of_2019(tmp_path, config)) as checkpoint:
        (layer,) = checkpoint.layers
        assert (layer.name, layer.class_name) == ("hidden", "Dense")
        assert layer.config == {"name": "hidden", "units": 3}
        assert [weight.shape for weight in layer.weights] == [(2, 3)]
        assert checkpoint.layers_source == "object_graph"


@pytest.mark.parametrize(
    "config", [b"", b"{", b"[1]", b"\xff", b"[" * 100_000, b'{"class_name": 3, "config": "x"}']
)
def test_a_configuration_that_is_none_leaves_the_layer(config: bytes, tmp_path: Path) -> None:
    with ckptparse.open(checkpoint_of_2019(tmp_path, config)) as checkpoint:
        (layer,) = checkpoint.layers
        assert (layer.name, layer.class_name, layer.config) == ("dense", None, None)


# What is empty.


def test_an_empty_tensor_beyond_the_end_of_a_cut_file_is_empty(tmp_path: Path) -> None:
    bundle = Bundle()
    bundle.add("a", np.arange(4, dtype=np.float32))
    bundle.add("empty", np.zeros((0, 3), np.float32))
    bundle.write(tmp_path / "model")
    data = tmp_path / "model.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:8])
    for mmap in (False, True):
        array = ckptparse.read(tmp_path / "model", ["empty"], mmap=mmap)["empty"]
        assert (array.shape, array.dtype) == ((0, 3), np.float32)
        with ckptparse.open(tmp_path / "model", mmap=mmap) as checkpoint:
            assert checkpoint["empty"][1:].shape == (0, 3)
            checkpoint["empty"].verify()
    with pytest.raises(ckptparse.TruncatedError):
        ckptparse.read(tmp_path / "model", ["a"])
    assert ckptparse.verify(tmp_path / "model").tensors["empty"].status == "verified"


# Damage.


def test_what_the_layers_were_found_by_is_never_an_error(tmp_path: Path) -> None:
    source = CASES["roles/gan"].root
    for path in source.iterdir():
        shutil.copy(path, tmp_path)
    data = tmp_path / "model.data-00000-of-00001"
    content = bytearray(data.read_bytes())
    content[-1] ^= 1
    data.write_bytes(content)
    with ckptparse.open(tmp_path / "model") as checkpoint:
        assert checkpoint.layers_source is None
        for question in ("layers", "optimizers", "averages"):
            with pytest.raises(CheckpointError):
                getattr(checkpoint, question)


# Much of it.


@pytest.mark.parametrize("name", ["a" * 3000 + "/Adam", "m/" * 100 + "m", "/" * 5000, "", "/"])
def test_names_that_no_program_has_are_variables(name: str) -> None:
    roles = find_roles({name: (1,), name.rpartition("/")[0]: (1,)})
    assert roles.state() == set()
