"""Keras 3: exported SavedModels and checkpoints of models with their optimizers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from fixture_cases import describe
from fixture_cases.common import Output, case, tf
from fixture_cases.signatures import describe_saved_model


def keras3() -> Any:
    """Return Keras 3, seeded."""
    import keras

    keras.utils.set_random_seed(1)
    return keras


def describe_layers(model: Any) -> list[dict[str, Any]]:
    """Describe each layer: name, class, configuration and `get_weights()` in order."""
    return [describe_layer(layer) for layer in model.layers]


def describe_layer(layer: Any) -> dict[str, Any]:
    """Describe one layer; a model within a model has layers of its own."""
    described: dict[str, Any] = {
        "name": layer.name,
        "class_name": type(layer).__name__,
        "config": json.loads(json.dumps(layer.get_config())),
        "weights": [
            describe_variable(variable.path, value)
            for variable, value in zip(layer.weights, layer.get_weights(), strict=True)
        ],
    }
    if getattr(layer, "layers", None):
        described["config"] = None
        described["layers"] = describe_layers(layer)
    return described


def describe_variable(name: str, value: Any) -> dict[str, Any]:
    """Describe a variable's value."""
    array = np.asarray(value)
    return describe.describe_tensor(name, tf.as_dtype(array.dtype).name, array)


def describe_optimizer(optimizer: Any, trainable: Any) -> dict[str, Any]:
    """Describe an optimizer: class, iterations, learning rate, and the slots of each variable.

    Keras 3 calls the slots of a variable by its path with slashes replaced and a suffix.
    """
    slots: dict[str, dict[str, Any]] = {}
    for variable in trainable:
        stem = variable.path.replace("/", "_") + "_"
        slots[variable.path] = {
            slot.name.removeprefix(stem): describe_variable(slot.path, slot.value)
            for slot in optimizer.variables
            if slot.name.startswith(stem)
        }
    return {
        "class_name": type(optimizer).__name__,
        "iterations": int(optimizer.iterations.numpy()),
        "learning_rate": float(str(np.float32(optimizer.learning_rate.numpy()))),
        "slots": slots,
    }


def sequential(out: Output, optimizer: Any, steps: int, more: Sequence[Any] = ()) -> Any:
    """Return a small Keras 3 model after some steps."""
    keras = keras3()
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((2,)),
            layers.Dense(3, name="first"),
            layers.BatchNormalization(name="norm"),
            layers.Dropout(0.5, name="drop", seed=3),
            layers.Dense(1, name="last"),
            *more,
        ],
        name="small",
    )
    model.compile(optimizer=optimizer, loss="mse")
    rng = out.random()
    for _ in range(steps):
        model.train_on_batch(rng.normal(size=(4, 2)), rng.normal(size=(4, 1)))
    return model


@case(
    "objects/keras3_optimizer",
    "tf.train.Checkpoint of a Keras 3 Sequential and its Adam after three steps: the weights lie "
    "under `optimizer/_trainable_variables`.",
    checklist=(116,),
)
def keras3_optimizer(out: Output) -> None:
    keras = keras3()
    model = sequential(out, keras.optimizers.Adam(0.05), steps=3)
    tf.train.Checkpoint(model=model, optimizer=model.optimizer).save(out.path("ckpt"))
    describe_checkpoint(out, "ckpt-1", model)
    out.state()


@case(
    "objects/keras3_strings",
    "tf.train.Checkpoint of a Keras 3 Sequential and its Adam after twenty steps, with a variable "
    "of strings in a layer and one of a single string beside the model.",
)
def keras3_strings(out: Output) -> None:
    keras = keras3()

    class Words(keras.layers.Layer):
        def build(self, _shape: Any) -> None:
            self.words = tf.Variable([b"alpha", b"", b"gamma " * 30], name="words")

        def call(self, inputs: Any) -> Any:
            return inputs

    model = sequential(out, keras.optimizers.Adam(0.05), steps=20, more=[Words(name="names")])
    label = tf.Variable(b"a label", name="label")
    saver = tf.train.Checkpoint(label=label, model=model, optimizer=model.optimizer)
    saver.write(out.path("ckpt"))
    out.checkpoint("ckpt")


@case(
    "objects/keras3_model",
    "tf.train.Checkpoint of a Keras 3 functional model alone, with a shared layer and a model "
    "within the model: the weights lie under the model.",
)
def keras3_model(out: Output) -> None:
    model = functional(out)
    tf.train.Checkpoint(model=model).write(out.path("ckpt"))
    describe_checkpoint(out, "ckpt", model)


def functional(out: Output) -> Any:
    """Return a Keras 3 functional model with a shared layer and a model within the model."""
    keras = keras3()
    layers = keras.layers
    left, right = keras.Input((2,), name="left"), keras.Input((2,), name="right")
    shared = layers.Dense(2, name="shared")
    inner = keras.Sequential([keras.Input((2,)), layers.Dense(2, name="deep")], name="inner")
    both = layers.Add(name="both")([shared(left), inner(shared(right))])
    frozen = layers.Dense(1, name="frozen", use_bias=False, trainable=False)
    model = keras.Model([left, right], frozen(both), name="functional")
    rng = out.random()
    model.set_weights([rng.normal(size=weight.shape) for weight in model.get_weights()])
    return model


def describe_checkpoint(out: Output, prefix: str, model: Any) -> None:
    """Describe a checkpoint of a Keras 3 model that was written just now."""
    keras = keras3()
    out.checkpoint(prefix)
    out.note(
        keras=keras.__version__,
        model={"name": model.name, "class_name": type(model).__name__},
        layers=describe_layers(model),
    )
    if getattr(model, "optimizer", None) is not None:
        out.note(optimizer=describe_optimizer(model.optimizer, model.trainable_variables))


@case(
    "saved_model/keras3_export",
    "A Keras 3 Sequential with batch normalization, trained two steps and exported: every weight "
    "is stored twice, the optimizer not at all.",
)
def keras3_export(out: Output) -> None:
    keras = keras3()
    model = sequential(out, keras.optimizers.Adam(0.05), steps=2)
    model.export(out.path("."), format="tf_saved_model", verbose=False)
    out.checkpoint("variables/variables")
    out.note(
        keras=keras.__version__,
        model={"name": model.name, "class_name": type(model).__name__},
        layers=describe_layers(model),
    )
    describe_saved_model(out)


@case(
    "saved_model/keras3_archive",
    "A Keras 3 embedding exported under two endpoints, `lookup` and `total`, by `ExportArchive`.",
)
def keras3_archive(out: Output) -> None:
    keras = keras3()
    model = keras.Sequential([keras.Input((2,), dtype="int32"), keras.layers.Embedding(3, 2)])
    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint(
        "lookup", model.call, input_signature=[tf.TensorSpec((None, 2), tf.int32, name="ids")]
    )
    archive.add_endpoint(
        "total",
        lambda ids: tf.reduce_sum(model.call(ids), axis=1),
        input_signature=[tf.TensorSpec((None, 2), tf.int32, name="ids")],
    )
    archive.write_out(out.path("."), verbose=False)
    out.checkpoint("variables/variables")
    out.note(keras=keras.__version__, layers=describe_layers(model))
    describe_saved_model(out)


def kernels_model() -> Any:
    """Return a Keras 3 model with a kernel of every sort: of an image, and of words."""
    keras = keras3()
    layers = keras.layers
    image, words = keras.Input((6, 6, 3), name="image"), keras.Input((5,), 1, "int32", name="words")
    seen = layers.Conv2D(4, 3, padding="same", activation="relu", name="conv")(image)
    seen = layers.BatchNormalization(name="norm")(seen)
    seen = layers.DepthwiseConv2D(2, depth_multiplier=2, name="depthwise")(seen)
    seen = layers.SeparableConv2D(3, 2, name="separable")(seen)
    seen = layers.Conv2DTranspose(2, 3, strides=2, name="up")(seen)
    seen = layers.GlobalAveragePooling2D(name="mean")(seen)
    read = layers.Embedding(7, 4, name="embedding")(words)
    read = layers.MultiHeadAttention(2, 3, name="attention")(read, read)
    read = layers.Conv1D(5, 2, name="narrow")(read)
    read = layers.Dense(3, activation="tanh", name="wide")(read)
    read = layers.LSTM(2, name="lstm")(read)
    both = layers.Concatenate(name="both")([seen, read])
    return keras.Model([image, words], layers.Dense(4, name="head")(both), name="kernels")


@case(
    "saved_model/keras3_kernels",
    "A Keras 3 model with a kernel of every sort, exported: convolutions of one and two "
    "dimensions, depthwise, separable and transposed, dense layers, attention, an embedding and "
    "an LSTM; with what it gives for an input.",
)
def keras3_kernels(out: Output) -> None:
    keras = keras3()
    model = kernels_model()
    rng = out.random()
    model.set_weights([rng.uniform(0.1, 0.6, one.shape) for one in model.get_weights()])
    inputs = [rng.normal(size=(1, 6, 6, 3)).astype(np.float32), rng.integers(0, 7, (1, 5))]
    model.export(out.path("."), format="tf_saved_model", verbose=False)
    outputs = model(inputs, training=False).numpy()
    out.checkpoint("variables/variables")
    out.note(
        keras=keras.__version__,
        inputs=[one.ravel().tolist() for one in inputs],
        outputs=outputs.ravel().tolist(),
    )
    describe_saved_model(out)
