"""The shapes of weights by a model's configuration, compared with what Keras itself makes."""

from __future__ import annotations

from typing import Any

import pytest

from ckptparse.recovery.rebuild.shape_files import parse_shapes_text

keras = pytest.importorskip("keras")


def layers() -> list[tuple[tuple[int, ...], Any]]:
    """Layers, each with the shape that it is built for."""
    made = keras.layers
    return [
        ((7,), made.Dense(5)),
        ((4, 7), made.Dense(5, use_bias=False)),
        ((9,), made.Embedding(20, 6)),
        ((9, 4), made.Conv1D(5, 3)),
        ((9, 8, 4), made.Conv2D(6, (3, 2), groups=2)),
        ((4, 9, 8), made.Conv2D(6, 3, data_format="channels_first")),
        ((9, 8, 7, 4), made.Conv3D(5, 3)),
        ((9, 4), made.Conv1DTranspose(5, 3)),
        ((9, 8, 4), made.Conv2DTranspose(6, 3)),
        ((9, 4), made.DepthwiseConv1D(3, depth_multiplier=2)),
        ((9, 8, 4), made.DepthwiseConv2D(3, depth_multiplier=2)),
        ((9, 4), made.SeparableConv1D(5, 3, depth_multiplier=2)),
        ((9, 8, 4), made.SeparableConv2D(6, 3)),
        ((8, 4), made.BatchNormalization()),
        ((8, 4), made.BatchNormalization(axis=1, scale=False)),
        ((8, 4), made.LayerNormalization()),
        ((8, 4), made.LayerNormalization(axis=[1, 2], center=False)),
        ((8, 4), made.SimpleRNN(5)),
        ((8, 4), made.LSTM(5)),
        ((8, 4), made.GRU(5)),
        ((8, 4), made.GRU(5, reset_after=False)),
        ((8, 4), made.Dropout(0.5)),
        ((8, 4), made.GlobalAveragePooling1D()),
    ]


@pytest.mark.parametrize("number", range(23))
def test_a_layer_has_the_weights_that_keras_makes(number: int) -> None:
    shape, layer = layers()[number]
    inputs = keras.Input(shape)
    model = keras.Model(inputs, layer(inputs))
    given = parse_shapes_text(model.to_json())
    expected = {f"{layer.name}/{one.name}": tuple(one.shape) for one in layer.weights}
    seeds = {name for name in expected if "seed" in name}
    found = {one.name: one.shape for one in given}
    assert found == {name: size for name, size in expected.items() if name not in seeds}


def test_models_within_models_and_chains() -> None:
    inner = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4, name="a")], name="inner")
    model = keras.Sequential([keras.Input((6,)), inner, keras.layers.Dense(2, name="b")])
    given = parse_shapes_text(model.to_json())
    assert [one.shape for one in given] == [(6, 4), (4,), (4, 2), (2,)]
