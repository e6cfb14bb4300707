"""Describe Keras 2 models: what Keras itself gives after it has loaded them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import numpy as np

from fixture_cases import describe
from fixture_cases.common import TF_VERSION, tf


def keras() -> Any:
    """Return Keras 2, seeded: a package of its own since TensorFlow 2.16."""
    if TF_VERSION < (2, 16):
        found = tf.keras
    else:
        import tf_keras as found
    found.utils.set_random_seed(1)
    return found


def describe_layers(model: Any) -> list[dict[str, Any]]:
    """Describe each layer: name, class, configuration and `get_weights()` in order."""
    return [describe_layer(layer) for layer in model.layers]


def describe_layer(layer: Any) -> dict[str, Any]:
    """Describe one layer; a model within a model has layers of its own."""
    described: dict[str, Any] = {
        "name": layer.name,
        "class_name": type(layer).__name__,
        "trainable": layer.trainable,
        "config": layer_config(layer),
        "weights": describe_weights(layer),
    }
    if getattr(layer, "layers", None):
        described["config"] = None
        described["layers"] = describe_layers(layer)
    return described


def layer_config(layer: Any) -> dict[str, Any] | None:
    """Return a layer's configuration as JSON gives it back; None where it has none."""
    try:
        return dict(json.loads(json.dumps(layer.get_config())))
    except (NotImplementedError, TypeError):
        return None


def describe_weights(layer: Any) -> list[dict[str, Any]]:
    """Describe the arrays of `get_weights()`, with their variables' names; a table has none."""
    names = [name for weight in layer.weights for name in weight_names(weight)]
    return [
        describe_array(name, np.asarray(value))
        for name, value in zip(names, layer.get_weights(), strict=True)
    ]


def weight_names(weight: Any) -> list[str]:
    """Return a name for each array of a weight: a lookup table may have several."""
    return [""] * weight.num_tensors if hasattr(weight, "num_tensors") else [weight.name]


def describe_array(name: str, value: Any) -> dict[str, Any]:
    """Describe an array; strings are recognized by their kind."""
    dtype = "string" if value.dtype.kind in "OSU" else tf.as_dtype(value.dtype).name
    return describe.describe_tensor(name, dtype, value)


def describe_optimizer(optimizer: Any, trainable: Iterable[Any]) -> dict[str, Any]:
    """Describe an optimizer: class, iterations, learning rate, and the slots of each variable."""
    slots = legacy_slots if hasattr(optimizer, "get_slot_names") else current_slots
    return {
        "class_name": type(optimizer).__name__,
        "iterations": int(optimizer.iterations.numpy()),
        "learning_rate": float(str(np.float32(optimizer.learning_rate))),
        "slots": {plain(variable): slots(optimizer, variable) for variable in trainable},
    }


def plain(variable: Any) -> str:
    """Return a variable's name without `:0`."""
    return str(variable.name).removesuffix(":0")


def legacy_slots(optimizer: Any, variable: Any) -> dict[str, Any]:
    """Return the slots of an optimizer of the kind that Keras had before 2.11."""
    return {
        name: describe_slot(optimizer.get_slot(variable, name))
        for name in sorted(optimizer.get_slot_names())
    }


def current_slots(optimizer: Any, variable: Any) -> dict[str, Any]:
    """Return the slots of an optimizer since Keras 2.11: their names are `Adam/m/<variable>`."""
    found = {}
    for slot in optimizer.variables:
        owner, _, rest = plain(slot).partition("/")
        kind, _, name = rest.partition("/")
        if owner == type(optimizer).__name__ and name == plain(variable):
            found[kind] = describe_slot(slot)
    return found


def describe_slot(slot: Any) -> dict[str, Any]:
    """Describe a slot variable."""
    return describe_array(plain(slot), slot.numpy())


def train(model: Any, inputs: Any, targets: Any, steps: int = 2) -> None:
    """Train for a few steps, so that the optimizer has something to save."""
    for _ in range(steps):
        model.train_on_batch(np.asarray(inputs), np.asarray(targets))
