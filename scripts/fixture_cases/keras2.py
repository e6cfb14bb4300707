"""Describe Keras 2 models: what Keras itself gives after it has loaded them."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from fixture_cases import describe
from fixture_cases.common import TF_VERSION, tf


def keras() -> Any:
    """Return Keras 2: a package of its own since TensorFlow 2.16."""
    if TF_VERSION < (2, 16):
        return tf.keras
    import tf_keras

    return tf_keras


def describe_layers(model: Any) -> list[dict[str, Any]]:
    """Describe each layer: name, class, configuration and `get_weights()` in order."""
    return [describe_layer(layer) for layer in model.layers]


def describe_layer(layer: Any) -> dict[str, Any]:
    """Describe one layer."""
    described: dict[str, Any] = {"name": layer.name, "class_name": type(layer).__name__}
    try:
        described["config"] = json.loads(json.dumps(layer.get_config()))
    except (NotImplementedError, TypeError):
        described["config"] = None
    described["weights"] = [
        describe.describe_tensor(weight.name, tf.as_dtype(value.dtype).name, value)
        for weight, value in zip(layer.weights, layer.get_weights(), strict=True)
    ]
    return described


def train(model: Any, inputs: Any, targets: Any, steps: int = 2) -> None:
    """Train for a few steps, so that the optimizer has something to save."""
    for _ in range(steps):
        model.train_on_batch(np.asarray(inputs), np.asarray(targets))
