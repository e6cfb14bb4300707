"""SavedModels of Keras 2 and Keras 3."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from fixture_cases import keras2
from fixture_cases.common import EVERY_VERSION, Output, case, tf
from fixture_cases.signatures import describe_saved_model


def save_keras2(out: Output, model: Any, **options: Any) -> Any:
    """Save a model of Keras 2, load it again and describe what Keras gives."""
    keras = keras2.keras()
    model.save(out.path("."), save_format="tf", **options)
    loaded = keras.models.load_model(out.path("."))
    for ours, theirs in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    out.checkpoint("variables/variables")
    out.note(
        keras=keras.__version__,
        model={"name": loaded.name, "class_name": type(loaded).__name__},
        layers=keras2.describe_layers(loaded),
        weights=keras2.describe_weights(loaded),
    )
    if loaded.optimizer is not None:
        facts = keras2.describe_optimizer(model.optimizer, model.trainable_variables)
        out.note(optimizer=facts)
    describe_saved_model(out)
    return loaded


@case(
    "saved_model/keras2_sequential",
    "A Keras 2 Sequential of two Dense layers, trained two steps with Adam, saved as a SavedModel.",
    versions=EVERY_VERSION,
)
def keras2_sequential(out: Output) -> None:
    keras = keras2.keras()
    layers = keras.layers
    model = keras.Sequential(
        [layers.Dense(3, activation="relu", input_shape=(2,), name="hidden"), layers.Dense(1)]
    )
    model.compile(optimizer=keras.optimizers.Adam(0.01), loss="mse")
    rng = out.random()
    keras2.train(model, rng.normal(size=(4, 2)), rng.normal(size=(4, 1)))
    save_keras2(out, model)


def draw_digits(rng: np.random.Generator, count: int) -> tuple[Any, Any]:
    """Draw digits of 3 by 5 dots somewhere in 8 by 8, with noise."""
    columns = ["111101101101111", "010110010010111", "111001111100111", "111001111001111",
               "101101111001001", "111100111001111", "111100111101111", "111001010010010",
               "111101111101111", "111101111001111"]  # fmt: skip
    labels = rng.integers(0, 10, count)
    images = rng.normal(0, 0.15, (count, 8, 8))
    for image, label in zip(images, labels, strict=True):
        top, left = rng.integers(0, 4), rng.integers(0, 6)
        dots = np.array([int(dot) for dot in columns[label]]).reshape(5, 3)
        image[top : top + 5, left : left + 3] += dots
    return images.reshape(count, 64), labels


@case(
    "saved_model/keras2_digits",
    "A Keras 2 Sequential that tells drawn digits apart, trained 400 steps with Adam: two layers "
    "of Dense, a batch normalization, and values that training shaped.",
)
def keras2_digits(out: Output) -> None:
    keras = keras2.keras()
    layers = keras.layers
    model = keras.Sequential(
        [
            layers.Dense(32, activation="relu", input_shape=(64,), name="hidden"),
            layers.BatchNormalization(name="norm"),
            layers.Dense(10, activation="softmax", name="digit"),
        ]
    )
    model.compile(optimizer=keras.optimizers.Adam(0.005), loss="sparse_categorical_crossentropy")
    rng = out.random()
    for _ in range(400):
        keras2.train(model, *draw_digits(rng, 64), steps=1)
    save_keras2(out, model)


@case(
    "saved_model/keras2_functional",
    "A Keras 2 functional model of two inputs: a shared Dense layer, a model within the model, "
    "batch normalization, a frozen layer and a GRU, without traces and optimizer.",
)
def keras2_functional(out: Output) -> None:
    keras = keras2.keras()
    layers = keras.layers
    left, right = keras.Input((3, 2), name="left"), keras.Input((3, 2), name="right")
    shared = layers.Dense(2, name="shared")
    recurrent = layers.GRU(2, name="gru")
    norm = layers.BatchNormalization(name="norm")
    inner = keras.Sequential([layers.Dense(2, name="inner_dense", input_shape=(2,))], name="inner")
    frozen = layers.Dense(1, name="frozen", trainable=False)
    both = layers.add([recurrent(shared(left)), recurrent(shared(right))], name="both")
    model = keras.Model([left, right], frozen(inner(norm(both))), name="functional")
    rng = out.random()
    model.set_weights([rng.uniform(0.1, 1, weight.shape) for weight in model.get_weights()])
    save_keras2(out, model, save_traces=False)


@case(
    "objects/keras2_cells",
    "The variables and the `keras_metadata.pb` of a Keras 2 model of layers within layers: "
    "Bidirectional, StackedRNNCells, RNN, ConvLSTM, "
    "TimeDistributed, MultiHeadAttention; depthwise and separable convolutions; trained one step "
    "with Keras 2.10's Adam. Its `saved_model.pb` is left out.",
)
def keras2_cells(out: Output) -> None:
    keras = keras2.keras()
    layers = keras.layers
    words, frames = keras.Input((4,), name="words"), keras.Input((3, 5, 5, 2), name="frames")
    text = layers.Embedding(9, 4, name="embedding")(words)
    text = layers.Bidirectional(layers.LSTM(3, return_sequences=True), name="both")(text)
    cells = [layers.LSTMCell(4), layers.GRUCell(3)]
    text = layers.RNN(layers.StackedRNNCells(cells), return_sequences=True, name="stacked")(text)
    text = layers.TimeDistributed(layers.Dense(5), name="each")(text)
    text = layers.MultiHeadAttention(2, 3, name="attention")(text, text)
    text = layers.RNN(layers.SimpleRNNCell(2), return_sequences=True, name="plain")(text)
    text = layers.GRU(2, reset_after=False, use_bias=False, name="gated")(text)
    film = layers.ConvLSTM2D(2, 2, name="film")(frames)
    film = layers.DepthwiseConv2D(2, name="deep")(film)
    film = layers.SeparableConv2D(3, 2, name="apart")(film)
    film = layers.PReLU(shared_axes=[1, 2], name="rectified")(film)
    film = layers.GlobalAveragePooling2D()(film)
    joined = layers.Concatenate()([text, film])
    model = keras.Model([words, frames], layers.Dense(1, name="last")(joined), name="cells")
    model.compile(optimizer=keras.optimizers.legacy.Adam(0.01), loss="mse")
    rng = out.random()
    inputs = [rng.integers(0, 9, (2, 4)), rng.normal(size=(2, 3, 5, 5, 2))]
    model.train_on_batch(inputs, rng.normal(size=(2, 1)))
    with tempfile.TemporaryDirectory() as saved:
        model.save(saved, save_format="tf", save_traces=False)
        for file in Path(saved).glob("variables/variables.*"):
            shutil.copy(file, out.path(file.name))
        shutil.copy(Path(saved) / "keras_metadata.pb", out.path("keras_metadata.pb"))
    out.checkpoint("variables")


@case(
    "saved_model/keras2_preprocessing",
    "A Keras 2 model with StringLookup, TextVectorization, Normalization and Embedding: lookup "
    "tables whose vocabularies lie in the variables, in the graph or in assets.",
    checklist=(115,),
)
def keras2_preprocessing(out: Output) -> None:
    keras = keras2.keras()
    layers = keras.layers
    words, text = (
        keras.Input((1,), name="word", dtype="string"),
        keras.Input((1,), name="text", dtype="string"),
    )
    number = keras.Input((1,), name="number")
    lookup = layers.StringLookup(vocabulary=["a", "ключ", "c"], name="lookup")
    vectors = layers.TextVectorization(output_sequence_length=2, name="vectors")
    vectors.adapt(np.array(["one two", "two three"]))
    normal = layers.Normalization(name="normal")
    normal.adapt(np.array([[1.0], [3.0]]))
    embedded = layers.Embedding(5, 2, name="embedding")(lookup(words))
    outputs = [embedded, vectors(text), normal(number)]
    save_keras2(out, keras.Model([words, text, number], outputs, name="preprocessing"))


def subclassed(keras: Any) -> Any:
    """Return a subclassed Keras 2 model, with a layer of its own class and a bare variable."""

    class Scale(keras.layers.Layer):
        def build(self, input_shape: Any) -> None:
            self.factor = self.add_weight("factor", (int(input_shape[-1]),), initializer="ones")

        def call(self, inputs: Any) -> Any:
            return inputs * self.factor

    class Net(keras.Model):
        def __init__(self) -> None:
            super().__init__(name="net")
            self.blocks = [keras.layers.Dense(2, name="first"), Scale(name="scale")]
            self.offset = tf.Variable([0.5, -0.5], name="offset")

        def call(self, inputs: Any) -> Any:
            for block in self.blocks:
                inputs = block(inputs)
            return inputs + self.offset

    return Net()


@case(
    "saved_model/keras2_subclassed",
    "A subclassed Keras 2 model with a layer of a class of its own and a bare variable, trained "
    "two steps with the legacy Adam: slot variables in the object graph.",
    checklist=(117,),
)
def keras2_subclassed(out: Output) -> None:
    keras = keras2.keras()
    model = subclassed(keras)
    model.compile(optimizer=keras.optimizers.legacy.Adam(0.05), loss="mse")
    rng = out.random()
    keras2.train(model, rng.normal(size=(4, 2)), rng.normal(size=(4, 2)))
    save_keras2(out, model)


@case(
    "objects/keras2_legacy_optimizer",
    "`save_weights` of a Keras 2 model trained three steps with the legacy Adam: slots `m` and "
    "`v`, `iter`, `beta_1`, `decay` and `learning_rate` under `optimizer`.",
    checklist=(117,),
    versions=EVERY_VERSION,
)
def keras2_legacy_optimizer(out: Output) -> None:
    keras = keras2.keras()
    model = trained_keras2(out, keras.optimizers.legacy.Adam(0.05), steps=3)
    model.save_weights(out.path("weights"), save_format="tf")
    describe_keras2_checkpoint(out, "weights", model)
    out.state()


@case(
    "objects/keras2_dense_layers",
    "`save_weights` of three dense layers and a normalization of Keras 2 with the names that Keras "
    "gives, trained 80 steps with the legacy Adam: its slots have rows and columns.",
)
def keras2_dense_layers(out: Output) -> None:
    keras = keras2.keras()
    layers = keras.layers
    model = keras.Sequential(
        [
            layers.Dense(24, input_shape=(8,), activation="relu"),
            layers.BatchNormalization(),
            layers.Dense(16, activation="relu"),
            layers.Dense(3),
        ]
    )
    model.compile(optimizer=keras.optimizers.legacy.Adam(0.003), loss="mse")
    rng = out.random()
    inputs = rng.normal(size=(32, 8)) * rng.uniform(0.2, 3, 8)
    keras2.train(model, inputs, np.tanh(inputs @ rng.normal(size=(8, 3))), steps=80)
    model.save_weights(out.path("weights"), save_format="tf")
    describe_keras2_checkpoint(out, "weights", model)
    out.state()


@case(
    "objects/keras2_convolutions",
    "`save_weights` of two convolutions of Keras 2, each with a normalization, and a dense layer "
    "behind them, trained 20 steps with the legacy Adam: gamma stays about one.",
)
def keras2_convolutions(out: Output) -> None:
    keras = keras2.keras()
    layers = keras.layers
    model = keras.Sequential(
        [
            layers.Conv2D(8, 3, input_shape=(8, 8, 1)),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Conv2D(6, 3, strides=2, use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Flatten(),
            layers.Dense(5),
        ]
    )
    model.compile(optimizer=keras.optimizers.legacy.Adam(0.003), loss="mse")
    rng = out.random()
    keras2.train(model, rng.normal(size=(16, 8, 8, 1)), rng.normal(size=(16, 5)), steps=20)
    model.save_weights(out.path("weights"), save_format="tf")
    describe_keras2_checkpoint(out, "weights", model)
    out.state()


@case(
    "objects/keras2_cells_trained",
    "`save_weights` of an LSTM of Keras 2 and a dense layer, trained 20 steps with the legacy "
    "Adam: the bias of its forget gates stays about one.",
)
def keras2_cells_trained(out: Output) -> None:
    keras = keras2.keras()
    layers = keras.layers
    model = keras.Sequential([layers.LSTM(6, input_shape=(5, 3)), layers.Dense(2)])
    model.compile(optimizer=keras.optimizers.legacy.Adam(0.003), loss="mse")
    rng = out.random()
    keras2.train(model, rng.normal(size=(16, 5, 3)), rng.normal(size=(16, 2)), steps=20)
    model.save_weights(out.path("weights"), save_format="tf")
    describe_keras2_checkpoint(out, "weights", model)
    out.state()


@case(
    "objects/keras2_optimizer",
    "tf.train.Checkpoint of a Keras 2 model and its optimizer, SGD with momentum of the kind since "
    "2.11, after three steps: no slot variables in the object graph, only names.",
    versions=EVERY_VERSION,
)
def keras2_optimizer(out: Output) -> None:
    keras = keras2.keras()
    model = trained_keras2(out, keras.optimizers.SGD(0.05, momentum=0.9), steps=3)
    tf.train.Checkpoint(model=model, optimizer=model.optimizer).save(out.path("ckpt"))
    describe_keras2_checkpoint(out, "ckpt-1", model)
    out.state()


def trained_keras2(out: Output, optimizer: Any, steps: int) -> Any:
    """Return a small model after some steps."""
    keras = keras2.keras()
    layers = keras.layers
    model = keras.Sequential(
        [
            layers.Dense(2, input_shape=(2,), name="first"),
            layers.BatchNormalization(name="norm"),
            layers.Dense(1, name="last", use_bias=False),
        ],
        name="small",
    )
    model.compile(optimizer=optimizer, loss="mse")
    rng = out.random()
    keras2.train(model, rng.normal(size=(4, 2)), rng.normal(size=(4, 1)), steps)
    return model


def describe_keras2_checkpoint(out: Output, prefix: str, model: Any) -> None:
    """Describe a checkpoint of a Keras 2 model that was written just now."""
    out.checkpoint(prefix)
    out.note(
        keras=keras2.keras().__version__,
        layers=keras2.describe_layers(model),
        optimizer=keras2.describe_optimizer(model.optimizer, model.trainable_variables),
    )
