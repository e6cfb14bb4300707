"""The shapes of a model's weights, from what Keras wrote of its layers: `config.json`.

    {"class_name": "Sequential", "config": {"layers": [
        {"class_name": "Dense", "config": {"name": "dense", "units": 8, "use_bias": true},
         "build_config": {"input_shape": [null, 4]}}]}}

Weights are called by their layer: `dense/kernel` of shape (4, 8), `dense/bias` of shape (8). What a
layer was built for stands in its `build_config` (Keras 2.13 and newer); of older ones in the first
layer's `batch_input_shape`, from which the shapes of a chain of dense layers follow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ckptparse.dtypes import DataType
from ckptparse.errors import MalformedError, UnsupportedError

__all__ = ["LayerWeight", "is_keras_config", "iter_weights"]

LayerWeight = tuple[str, int | None, tuple[int, ...]]
"""Name, DataType number if the layer states it, shape."""
Shape = tuple[int, ...]
Weights = dict[str, Shape]
_Config = Mapping[str, Any]

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
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise MalformedError(
            f"Expected a configuration as Keras writes it, found another: {error!r}"
        ) from error


def _iter_model(model: _Config, depth: int) -> Iterator[LayerWeight]:
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
        data_type = _type_of(config)
        for name, size in weights.items():
            if min(size) < 0:
                raise MalformedError(f"Expected sizes of {name!r} from 0 up, found {size!r:.80}")
            yield f"{config['name']}/{name}", data_type, size
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


def _type_of(config: _Config) -> int | None:
    """Return the type of a layer's weights; a policy such as `mixed_float16` keeps them float32."""
    said = config.get("dtype")
    if isinstance(said, dict):
        said = (said.get("config") or {}).get("name")
    return _DTYPES.get(said) if isinstance(said, str) else None


def _weights_of(layer: _Config, shape: Shape | None) -> Weights:
    kind, config = str(layer["class_name"]), layer["config"]
    if kind in _NONE:
        return {}
    make = _LAYERS.get(kind)
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


def _dense(config: _Config, shape: Shape) -> Weights:
    units = int(config["units"])
    return {"kernel": (shape[-1], units), **_bias(config, units)}


def _bias(config: _Config, *shape: int) -> Weights:
    return {"bias": shape} if config.get("use_bias", True) else {}


def _embedding(config: _Config, _: Shape) -> Weights:
    return {"embeddings": (int(config["input_dim"]), int(config["output_dim"]))}


def _convolution(config: _Config, shape: Shape) -> Weights:
    filters = int(config["filters"])
    inputs = _channels(config, shape) // int(config.get("groups", 1))
    return {"kernel": (*_window(config), inputs, filters), **_bias(config, filters)}


def _transposed(config: _Config, shape: Shape) -> Weights:
    filters = int(config["filters"])
    kernel = (*_window(config), filters, _channels(config, shape))
    return {"kernel": kernel, **_bias(config, filters)}


def _depthwise(config: _Config, shape: Shape) -> Weights:
    inputs, depth = _channels(config, shape), int(config.get("depth_multiplier", 1))
    kernel = (*_window(config), inputs, depth)
    return {"kernel": kernel, **_bias(config, inputs * depth)}


def _separable(config: _Config, shape: Shape) -> Weights:
    inputs, depth = _channels(config, shape), int(config.get("depth_multiplier", 1))
    window, filters = _window(config), int(config["filters"])
    return {
        "depthwise_kernel": (*window, inputs, depth),
        "pointwise_kernel": (*[1] * len(window), inputs * depth, filters),
        **_bias(config, filters),
    }


def _window(config: _Config) -> Shape:
    size = config["kernel_size"]
    return tuple(map(int, size)) if isinstance(size, Sequence) else (int(size),)


def _channels(config: _Config, shape: Shape) -> int:
    return shape[0] if config.get("data_format") == "channels_first" else shape[-1]


def _batch_normalization(config: _Config, shape: Shape) -> Weights:
    axis = config.get("axis", -1)
    axis = axis[0] if isinstance(axis, list) else axis
    # Counted with the batch, which `shape` leaves out.
    size = (shape[axis - 1 if axis > 0 else axis],)
    return dict.fromkeys([*_affine(config), "moving_mean", "moving_variance"], size)


def _layer_normalization(config: _Config, shape: Shape) -> Weights:
    axes = config.get("axis", -1)
    axes = axes if isinstance(axes, list) else [axes]
    size = tuple(shape[axis - 1 if axis > 0 else axis] for axis in axes)
    return dict.fromkeys(_affine(config), size)


def _affine(config: _Config) -> list[str]:
    names = {"gamma": config.get("scale", True), "beta": config.get("center", True)}
    return [name for name, used in names.items() if used]


def _recurrent(gates: int) -> Callable[[_Config, Shape], Weights]:
    def make(config: _Config, shape: Shape) -> Weights:
        units = int(config["units"])
        twice = (2,) if gates == 3 and config.get("reset_after", True) else ()
        return {
            "kernel": (shape[-1], gates * units),
            "recurrent_kernel": (units, gates * units),
            **_bias(config, *twice, gates * units),
        }

    return make


_LAYERS: Mapping[str, Callable[[_Config, Shape], Weights]] = {
    "Dense": _dense,
    "Embedding": _embedding,
    "Conv1D": _convolution,
    "Conv2D": _convolution,
    "Conv3D": _convolution,
    "Conv1DTranspose": _transposed,
    "Conv2DTranspose": _transposed,
    "Conv3DTranspose": _transposed,
    "DepthwiseConv1D": _depthwise,
    "DepthwiseConv2D": _depthwise,
    "SeparableConv1D": _separable,
    "SeparableConv2D": _separable,
    "BatchNormalization": _batch_normalization,
    "LayerNormalization": _layer_normalization,
    "SimpleRNN": _recurrent(1),
    "LSTM": _recurrent(4),
    "GRU": _recurrent(3),
}
