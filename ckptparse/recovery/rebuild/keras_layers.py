"""The shapes of a layer's weights, from its class, its configuration and what it was built for.

The shape of an input is without its batch. A recurrent layer keeps its weights in a cell, which is
a layer of its own: `LSTMCell`, built for the input of one step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from ckptparse.errors import UnsupportedError

__all__ = ["INTEGERS", "LAYERS", "OLD_NAMES", "Shape", "Weights"]

Shape = tuple[int, ...]
Weights = dict[str, Shape]
Config = Mapping[str, Any]


def _dense(config: Config, shape: Shape) -> Weights:
    units = int(config["units"])
    return {"kernel": (shape[-1], units), **_bias(config, units)}


def _bias(config: Config, *shape: int) -> Weights:
    return {"bias": shape} if config.get("use_bias", True) else {}


def _embedding(config: Config, _: Shape) -> Weights:
    return {"embeddings": (int(config["input_dim"]), int(config["output_dim"]))}


def _convolution(config: Config, shape: Shape) -> Weights:
    filters = int(config["filters"])
    inputs = _channels(config, shape) // int(config.get("groups", 1))
    return {"kernel": (*_window(config), inputs, filters), **_bias(config, filters)}


def _transposed(config: Config, shape: Shape) -> Weights:
    filters = int(config["filters"])
    kernel = (*_window(config), filters, _channels(config, shape))
    return {"kernel": kernel, **_bias(config, filters)}


def _depthwise(config: Config, shape: Shape) -> Weights:
    inputs, depth = _channels(config, shape), int(config.get("depth_multiplier", 1))
    kernel = (*_window(config), inputs, depth)
    return {"kernel": kernel, **_bias(config, inputs * depth)}


def _separable(config: Config, shape: Shape) -> Weights:
    inputs, depth = _channels(config, shape), int(config.get("depth_multiplier", 1))
    window, filters = _window(config), int(config["filters"])
    return {
        "depthwise_kernel": (*window, inputs, depth),
        "pointwise_kernel": (*[1] * len(window), inputs * depth, filters),
        **_bias(config, filters),
    }


def _window(config: Config) -> Shape:
    size = config["kernel_size"]
    return tuple(map(int, size)) if isinstance(size, Sequence) else (int(size),)


def _channels(config: Config, shape: Shape) -> int:
    return shape[0] if config.get("data_format") == "channels_first" else shape[-1]


def _batch_normalization(config: Config, shape: Shape) -> Weights:
    axis = config.get("axis", -1)
    axis = axis[0] if isinstance(axis, list) else axis
    # Counted with the batch, which `shape` leaves out.
    size = (shape[axis - 1 if axis > 0 else axis],)
    return dict.fromkeys([*_affine(config), "moving_mean", "moving_variance"], size)


def _layer_normalization(config: Config, shape: Shape) -> Weights:
    axes = config.get("axis", -1)
    axes = axes if isinstance(axes, list) else [axes]
    size = tuple(shape[axis - 1 if axis > 0 else axis] for axis in axes)
    return dict.fromkeys(_affine(config), size)


def _affine(config: Config) -> list[str]:
    names = {"gamma": config.get("scale", True), "beta": config.get("center", True)}
    return [name for name, used in names.items() if used]


def _recurrent(gates: int) -> Callable[[Config, Shape], Weights]:
    def make(config: Config, shape: Shape) -> Weights:
        units = int(config["units"])
        twice = (2,) if gates == 3 and config.get("reset_after", True) else ()
        return {
            "kernel": (shape[-1], gates * units),
            "recurrent_kernel": (units, gates * units),
            **_bias(config, *twice, gates * units),
        }

    return make


def _convolving_cell(config: Config, shape: Shape) -> Weights:
    filters, window = int(config["filters"]), _window(config)
    return {
        "kernel": (*window, _channels(config, shape), 4 * filters),
        "recurrent_kernel": (*window, filters, 4 * filters),
        **_bias(config, 4 * filters),
    }


def _einsum(config: Config, shape: Shape) -> Weights:
    """Give a kernel its sizes by the letters of an equation: `abc,cde->abde`, `...x,xy->...y`."""
    inputs, _, rest = str(config["equation"]).partition(",")
    letters, _, outputs = rest.partition("->")
    if inputs.endswith("...") or outputs.endswith("..."):
        raise UnsupportedError(f"The equation {config['equation']!r} is not understood")
    given = config["output_shape"]
    result = tuple(given) if isinstance(given, Sequence) else (given,)
    sizes = _by_letter(outputs, result) | _by_letter(inputs, shape)
    kernel = tuple(sizes[letter] for letter in letters)
    axes = config.get("bias_axes")
    if not axes:
        return {"kernel": kernel}
    first = min(outputs.index(letter) for letter in axes)
    bias = tuple(sizes[one] if one in axes else 1 for one in outputs[first:])
    return {"kernel": kernel, "bias": bias}


def _by_letter(letters: str, shape: Sequence[Any]) -> dict[str, int]:
    """Pair letters and sizes from the last on: the batch and what `...` stands for are first.

    Sizes that are not known (None, -1) are left out.
    """
    pairs = zip(reversed(letters.removeprefix("...")), reversed(shape), strict=False)
    return {letter: int(size) for letter, size in pairs if size is not None and size >= 0}


def _parametric(config: Config, shape: Shape) -> Weights:
    shared = {int(axis) - 1 for axis in config.get("shared_axes") or ()}
    return {"alpha": tuple(1 if axis in shared else size for axis, size in enumerate(shape))}


def _normalization(config: Config, shape: Shape) -> Weights:
    axes = config.get("axis", -1)
    axes = axes if isinstance(axes, Sequence) else () if axes is None else (axes,)
    size = tuple(shape[axis - 1 if axis > 0 else axis] for axis in axes)
    return {"mean": size, "variance": size, "count": ()}


def _group_normalization(config: Config, shape: Shape) -> Weights:
    axis = int(config.get("axis", -1))
    size = (shape[axis - 1 if axis > 0 else axis],)
    return dict.fromkeys(_affine(config), size)


LAYERS: Final[Mapping[str, Callable[[Config, Shape], Weights]]] = {
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
    "SimpleRNNCell": _recurrent(1),
    "LSTMCell": _recurrent(4),
    "GRUCell": _recurrent(3),
    "ConvLSTMCell": _convolving_cell,
    "ConvLSTM2DCell": _convolving_cell,
    "EinsumDense": _einsum,
    "PReLU": _parametric,
    "Normalization": _normalization,
    "GroupNormalization": _group_normalization,
}
OLD_NAMES: Final[Mapping[str, Mapping[str, str]]] = {
    "DepthwiseConv1D": {"kernel": "depthwise_kernel"},
    "DepthwiseConv2D": {"kernel": "depthwise_kernel"},
}
"""What Keras 2 called weights that Keras 3 calls otherwise, by the class of the layer."""
INTEGERS: Final = frozenset({"count"})
"""Weights that are integers of 64 bits, whatever the layer's type."""
