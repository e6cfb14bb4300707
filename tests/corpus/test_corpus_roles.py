"""Slots, averages and counters of real checkpoints: none twice, all fit, none is a weight."""

from __future__ import annotations

import corpus
import pytest
from corpus import Recorded

import ckptparse
from ckptparse import CheckpointError
from ckptparse.graph.name_roles import find_roles

pytestmark = [
    pytest.mark.corpus,
    pytest.mark.skipif(corpus.directory() is None, reason="the corpus is not here"),
]

RECORDED = [record for record in corpus.checkpoints() if record.error is None]

APART = {
    # Two optimizers of one kind for different variables: the graph in the `.meta` tells them apart.
    "floodsung__DDPG-tensorflow__saved_networks_network-ddpg-713000": {"Adam": 6, "Adam_1": 6},
    "255BITS__vocal-autoencoder__model.ckpt": {"Adam": 7, "Adam_1": 6},
    "ascherbakov686__guesslang__model_model.ckpt-8": {"RMSProp": 8, "RMSProp_1": 2},
}


def opened(record: Recorded) -> ckptparse.Checkpoint:
    try:
        return ckptparse.open(record.path)
    except CheckpointError as error:
        pytest.skip(f"it is not read: {error.message}")


@pytest.mark.parametrize("record", RECORDED, ids=lambda record: record.name)
def test_a_tensor_is_one_thing_and_slots_fit_their_variables(record: Recorded) -> None:
    with opened(record) as checkpoint:
        try:
            optimizers, averages = checkpoint.optimizers, checkpoint.averages
        except CheckpointError as error:
            pytest.skip(f"its object graph is not read: {error.message}")
        seen: set[str] = set()
        for optimizer in optimizers:
            assert not seen & set(optimizer.tensors)
            seen |= set(optimizer.tensors)
            for variable, slots in optimizer.slots.items():
                shapes = {tensor.shape for tensor in slots.values()}
                if variable in checkpoint:
                    assert shapes == {checkpoint[variable].shape}
                else:
                    assert len(shapes) == 1
        for variable, tensor in averages.items():
            if variable in checkpoint:
                assert tensor.shape == checkpoint[variable].shape
        seen |= set(averages.tensors)
        assert not seen & {tensor.name for layer in checkpoint.layers for tensor in layer.weights}


NAMED = [
    record
    for record in RECORDED
    if record.object_graph is None and not any(".ATTRIBUTES/" in name for name in record.tensors)
]


@pytest.mark.parametrize("record", NAMED, ids=lambda record: record.name)
def test_with_a_graph_and_without_one_the_same_tensors_are_weights(record: Recorded) -> None:
    with opened(record) as checkpoint:
        state = find_roles(checkpoint.shapes()).state()
        weights = {tensor.name for layer in checkpoint.layers for tensor in layer.weights}
        assert weights == set(checkpoint) - state


@pytest.mark.parametrize("name", APART)
def test_a_graph_tells_two_optimizers_of_one_kind_apart(name: str) -> None:
    records = [record for record in RECORDED if record.item == name]
    if not records:
        pytest.skip("the checkpoint is not in the corpus")
    with opened(records[0]) as checkpoint:
        assert {one.name: len(one.slots) for one in checkpoint.optimizers} == APART[name]
