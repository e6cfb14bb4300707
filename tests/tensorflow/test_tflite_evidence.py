"""A TFLite model gives back the kernels that TensorFlow's converter turned round."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tensorflow as tf

import ckptparse

KERNELS = {
    "conv": ((3, 3, 4, 6), "(3, 0, 1, 2)"),
    "depthwise": ((3, 3, 6, 2), None),
    "transposed": ((3, 3, 5, 12), "(2, 0, 1, 3)"),
    "dense": ((20, 7), "(1, 0)"),
    "head": ((7, 3), "(1, 0)"),
    "bias": ((3,), None),
}
"""Shapes as TensorFlow has them, and the order in which the converter puts their axes."""


def test_kernels_that_the_converter_turned_are_proved(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    weights = {name: rng.normal(0, 1, shape).astype("f4") for name, (shape, _) in KERNELS.items()}

    def model(image: tf.Tensor) -> tf.Tensor:
        image = tf.nn.conv2d(image, weights["conv"], 1, "VALID")
        image = tf.nn.depthwise_conv2d(image, weights["depthwise"], [1, 1, 1, 1], "VALID")
        image = tf.nn.conv2d_transpose(image, weights["transposed"], [1, 8, 8, 5], 2)
        rows = tf.nn.relu(tf.matmul(tf.reshape(image, [16, 20]), weights["dense"]))
        return tf.matmul(rows, weights["head"]) + weights["bias"]

    signature = tf.TensorSpec([1, 8, 8, 4], tf.float32)
    function = tf.function(model).get_concrete_function(signature)
    directory = tmp_path / "model"
    directory.mkdir()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function])
    (directory / "m.tflite").write_bytes(converter.convert())

    variables = {name: tf.Variable(value) for name, value in weights.items()}
    tf.train.Checkpoint(**variables).write(str(tmp_path / "m"))
    (tmp_path / "m.data-00000-of-00001").unlink()
    recovery = ckptparse.recover(str(tmp_path / "m"), evidence=[str(directory)])
    for name, (_, axes) in KERNELS.items():
        tensor = recovery[f"{name}/.ATTRIBUTES/VARIABLE_VALUE"]
        assert str(tensor.status) == "corrected"
        assert (axes is not None) == ("axes in order" in [str(one.rule) for one in tensor.evidence])
        assert axes is None or axes in (tensor.method or "")
        assert np.array_equal(tensor.read(), weights[name])
