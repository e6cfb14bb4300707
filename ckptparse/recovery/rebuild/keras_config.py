"""The shapes of a model's weights, from what Keras wrote of its layers: `config.json`.

    {"class_name": "Sequential", "config": {"layers": [
        {"class_name": "Dense", "config": {"name": "dense", "units": 8, "use_bias": true},
         "build_config": {"input_shape": [null, 4]}}]}}

Weights are called by their layer: `dense/kernel` of shape (4, 8), `dense/bias` of shape (8). What a
layer was built for stands in its `build_config` (Keras 2.13 and newer); of older ones in the first
layer's `batch_input_shape`, from which the shapes of a chain of dense layers follow.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ckptparse.dtypes import DataType
from ckptparse.errors import MalformedError, UnsupportedError
from ckptparse.recovery.rebuild.keras_layers import INTEGERS, LAYERS, OLD_NAMES, Shape, Weights

__all__ = ["LayerWeight", "is_keras_config", "iter_weights", "iter_weights_of"]

LayerWeight = tuple[str, int | None, tuple[int, ...]]
"""Name, DataType number if the layer states it, shape."""
_Config = Mapping[str, Any]

_WRONG = (KeyError, TypeError, ValueError, IndexError, AttributeError, ArithmeticError)
"""What comes of values that Keras does not write: text for a number, 1e999, no groups at all."""
_DEEPEST = 32
_MOST_LAYERS = 1 << 16
"""Models inside of models, and layers: far more than real ones have. A hostile file ends here."""
_NONE = frozenset(
    {
        *("InputLayer", "Activation", "ReLU", "LeakyReLU", "ELU", "Softmax", "ThresholdedReLU"),
        *("Dropout", "SpatialDropout1D", "SpatialDropout2D", "GaussianDropout", "GaussianNoise"),
        *("Flatten", "Reshape", "Permute", "RepeatVector", "Lambda", "Masking", "Rescaling"),
        *("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum", "Concatenate", "Dot"),
        *("MaxPooling1D", "MaxPooling2D", "MaxPooling3D", "ZeroPadding1D", "ZeroPadding2D"),
        *("AveragePooling1D", "AveragePooling2D", "AveragePooling3D", "UnitNormalization"),
        *("GlobalMaxPooling1D", "GlobalMaxPooling2D", "GlobalAveragePooling1D", "Cropping1D"),
        *("GlobalAveragePooling2D", "Cropping2D", "UpSampling1D", "UpSampling2D", "UpSampling3D"),
        *("Resizing", "CenterCrop", "ActivityRegularization", "Identity"),
    }
)
"""Layers without weights."""
_MODELS = frozenset({"Sequential", "Functional", "Model"})
_DTYPES = {
    "float16": DataType.DT_HALF,
    "bfloat16": DataType.DT_BFLOAT16,
    "float32": DataType.DT_FLOAT,
    "float64": DataType.DT_DOUBLE,
}


def is_keras_config(found: Mapping[str, Any]) -> bool:
    """Tell whether JSON is a model's configuration rather than shapes by name."""
    config = found.get("config")
    return isinstance(found.get("class_name"), str) and isinstance(config, dict)


def iter_weights(model: Mapping[str, Any]) -> Iterator[LayerWeight]:
    """Iterate over the weights of a model, layer by layer.

    Raises:
        MalformedError: It is no configuration that Keras writes.
        UnsupportedError: A layer's class, or what it was built for, is not known.
    """
    try:
        yield from _iter_model(model, 0)
    except _WRONG as error:
        raise _malformed(error) from error


def iter_weights_of(layer: Mapping[str, Any]) -> Iterator[LayerWeight]:
    """Iterate over the weights of one layer, as Keras 2 calls them within it.

    Args:
        layer: What `keras_metadata.pb` says of it: class, configuration, and what it was built for.

    Raises:
        MalformedError: It is no configuration that Keras writes.
        UnsupportedError: The layer's class, or what it was built for, is not known.
    """
    try:
        built = {"build_config": {"input_shape": layer.get("build_input_shape")}}
        alone = {"class_name": layer["class_name"], "config": layer["config"], **built}
        names = OLD_NAMES.get(str(alone["class_name"]), {})
        for name, shape in _weights_of(alone, _built_for(alone)).items():
            _check_sizes(name, shape)
            yield names.get(name, name), _type_of(name, alone["config"]), shape
    except _WRONG as error:
        raise _malformed(error) from error


def _malformed(error: Exception) -> MalformedError:
    return MalformedError(f"Expected a configuration as Keras writes it, found another: {error!r}")


def _check_sizes(name: str, shape: Shape) -> None:
    if min(shape, default=0) < 0:
        raise MalformedError(f"Expected sizes of {name!r} from 0 up, found {shape!r:.80}")


def _iter_model(model: _Config, depth: int) -> Iterator[LayerWeight]:
    if "layers" not in model["config"] and model["class_name"] not in _MODELS:
        raise UnsupportedError(
            f"The configuration of a model of class {model['class_name']!r:.80} lists no layers",
            hint='Give the shapes by name instead: {"layer/kernel": [4, 8], ...}',
        )
    layers = model["config"]["layers"]
    if depth > _DEEPEST or len(layers) > _MOST_LAYERS:
        raise MalformedError(
            f"Expected at most {_DEEPEST} models inside each other, and {_MOST_LAYERS} layers"
        )
    last: Shape | None = None
    chained = model["class_name"] == "Sequential"
    for layer in layers:
        config = layer["config"]
        if layer["class_name"] in _MODELS:
            yield from _iter_model(layer, depth + 1)
            last = None
            continue
        shape = _built_for(layer) or (last if chained else None)
        weights = _weights_of(layer, shape)
        for name, size in weights.items():
            _check_sizes(name, size)
            yield f"{config['name']}/{name}", _type_of(name, config), size
        last = _shape_behind(layer, shape)


def _built_for(layer: _Config) -> Shape | None:
    """Return the shape of a layer's input, its batch left out."""
    built = layer.get("build_config") or {}
    config = layer["config"]
    for said in (
        built.get("input_shape"),
        config.get("batch_shape"),
        config.get("batch_input_shape"),
    ):
        if said and not isinstance(said[0], (list, dict)):
            return tuple(-1 if size is None else int(size) for size in said[1:])
    return None


def _shape_behind(layer: _Config, shape: Shape | None) -> Shape | None:
    """Return the shape of what a layer gives, if that is plain."""
    kind, config = layer["class_name"], layer["config"]
    if kind == "Dense" and shape:
        return (*shape[:-1], int(config["units"]))
    keeps = ("Dropout", "Activation", "ReLU", "BatchNormalization", "LayerNormalization")
    return shape if kind in keeps or kind == "InputLayer" else None


def _type_of(name: str, config: _Config) -> int | None:
    """Return the type of a layer's weight; a policy such as `mixed_float16` keeps them float32."""
    if name in INTEGERS:
        return DataType.DT_INT64
    said = config.get("dtype")
    if isinstance(said, dict):
        said = (said.get("config") or {}).get("name")
    return _DTYPES.get(said) if isinstance(said, str) else None


def _weights_of(layer: _Config, shape: Shape | None) -> Weights:
    kind, config = str(layer["class_name"]), layer["config"]
    if kind in _NONE:
        return {}
    make = LAYERS.get(kind)
    if make is None:
        raise UnsupportedError(
            f"The weights of a layer of class {kind!r} are not known",
            hint='Give the shapes by name instead: {"layer/kernel": [4, 8], ...}',
        )
    if kind == "Embedding":
        return make(config, ())
    if shape is None or not shape or shape[-1] < 0:
        raise UnsupportedError(
            f"The configuration does not say what the layer {config['name']!r} was built for",
            hint='Give the shapes by name instead: {"layer/kernel": [4, 8], ...}',
        )
    return make(config, shape)
