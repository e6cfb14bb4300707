"""SavedModels of Keras 2, Keras 3, `tf.Module` and the TF1 builder."""

from __future__ import annotations

from fixture_cases import keras2
from fixture_cases.common import EVERY_VERSION, Output, case
from fixture_cases.signatures import describe_saved_model


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
    model.save(out.path("."), save_format="tf")
    loaded = keras.models.load_model(out.path("."))
    out.checkpoint("variables/variables")
    out.note(
        keras=keras.__version__,
        layers=keras2.describe_layers(loaded),
    )
    describe_saved_model(out)
