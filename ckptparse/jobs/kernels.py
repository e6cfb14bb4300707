"""Which layout PyTorch has for a kernel: by its recurrent layer, by the ops that use it, by name.

A recurrent layer comes first, since an op tells axes and not gates:

    LSTM, simple cell   gates in one order in both: dense
    GRU                 z, r, h becomes r, z, n; the rows of its bias are `bias_ih` and `bias_hh`
    anything else       as it is, and odd: a GRU of `reset_after=False`, cells of TensorFlow 1

By name and rank alone a kernel of three axes or more is a convolution, unless its layer's name or
its bias says otherwise. A bias has the axes of what comes out: that of a convolution has one, as
long as one of the kernel's last two.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ckptparse.jobs.layout import Layout, convolution, dense, depthwise, matrix
from ckptparse.jobs.variables import Named, Variables

if TYPE_CHECKING:
    from ckptparse.jobs.ops import KernelOps

__all__ = ["torch_layout"]

_KERNEL = re.compile(r"_?(?:\w+_)?kernel|weights|[wW]|filters?|\w*(?:depth|point)wise_weights")
_DEPTHWISE = re.compile(r"_?depthwise_(?:kernel|weights)")
_DEPTHWISE_LAYER = re.compile(r"(?:.*_)?(?:depthwise(?:_conv(?:[12]d)?)?|dw)")
_TRANSPOSED_LAYER = re.compile(r".*(?:transpose|deconv).*")
_HEADS_OUT = re.compile(r"_?(?:query|key|value)(?:_dense)?")
_HEADS_IN = re.compile(r"_?(?:attention_output|output_dense)")
_TABLE = re.compile(r"(?:\w+_)?embed(?:dings?|ded|s)?")
_OTHER_LAYER = re.compile(r"_?(?:\w+_)?(?:dense|fc|linear|logits|conv(?:[1-3]d)?)(?:_[0-9]+)?")
"""Layers that are not recurrent, whatever lies above them is called."""
_BIASES = ("bias", "biases", "b")
_USUAL = (*_BIASES, "embedding", "embeddings", "_embeddings")
"""What has two axes or more, and lies alike in both."""
_GATES = {1: "a simple cell", 4: "an LSTM: input, forget, cell, output"}
"""Keras's recurrent layers whose gates PyTorch has in the same order."""
_GRU = 3
_GRU_ORDER = (1, 0, 2)
"""Where PyTorch's gates r, z, n stand among Keras's z, r, h."""
_OTHER_GATES = "PyTorch has the gates of a recurrent kernel in another order"


def torch_layout(
    name: str,
    shape: tuple[int, ...],
    *,
    stored: str,
    variables: Variables,
    ops: KernelOps | None,
) -> Layout | None:
    """Choose the layout of a tensor; None if it has fewer than two axes.

    Args:
        name: What it is called.
        shape: Its shape.
        stored: Its name in the checkpoint, by which the graph knows it.
        variables: What is called how, and lies beside.
        ops: What the graph says; None if there is none.
    """
    if len(shape) < 2:
        return None
    names = variables.of(name, stored)
    recurrent = _first(_recurrent(one, shape) for one in names)
    if recurrent is not None:
        return recurrent
    found = None if ops is None else ops.layout(stored, shape)
    if isinstance(found, Layout):
        gates = found.axes is not None and any(_is_recurrent(one, ("gru",)) for one in names)
        return _odd(_OTHER_GATES) if gates else found
    beside = "" if found is None else f"; {found}"
    choices = (_by_layer, _by_bias, _by_rank)
    by_name = _first(choose(one, shape, beside) for choose in choices for one in names)
    if by_name is not None:
        return by_name
    usual = any("embedding" in one.above.lower() or one.leaf in _USUAL for one in names)
    why = f"no name and no op tells that it is a kernel{beside}"
    return Layout(None, why, unknown=found is None and not usual)


def _first(found: Iterable[Layout | None]) -> Layout | None:
    return next((layout for layout in found if layout is not None), None)


def _odd(why: str) -> Layout:
    return Layout(None, why, odd=True)


def _is_recurrent(named: Named, words: tuple[str, ...] = ("lstm", "gru", "_rnn")) -> bool:
    """Tell whether a name says that a layer is recurrent, and none within it is of another kind."""
    for part in reversed(named.above.lower().split("/")):
        if _OTHER_LAYER.fullmatch(part):
            return False
        if any(word in f"_{part}" for word in words):
            return True
    return False


def _recurrent(named: Named, shape: tuple[int, ...]) -> Layout | None:
    """Choose the layout of a recurrent layer's variable; None if it is none, or lies alike."""
    is_kernel = _KERNEL.fullmatch(named.leaf) is not None
    if not is_kernel and named.leaf != "bias":
        return None
    recurrent = named.beside("recurrent_kernel")
    if recurrent is None:
        return _odd(_OTHER_GATES) if is_kernel and _is_recurrent(named) else None
    units = recurrent[0] if len(recurrent) == 2 else 0
    gates = recurrent[1] // units if units and recurrent[1] % units == 0 else 0
    if gates == _GRU:
        return _gru(named, shape, units)
    if not is_kernel:
        return None
    if gates in _GATES and len(shape) == 2:
        return dense(f"dense, by the recurrent kernel beside it; {_GATES[gates]}")
    return _odd("PyTorch has no layer with such a recurrent kernel")


def _gru(named: Named, shape: tuple[int, ...], units: int) -> Layout | None:
    bias = named.beside("bias")
    if bias not in (None, (2, _GRU * units)):
        plain = " of reset_after=False" if bias == (_GRU * units,) else " with such a bias"
        return _odd(f"PyTorch has no GRU{plain}")
    if shape[-1] != _GRU * units:  # One gate, if a rule has cut them apart.
        return None if named.leaf == "bias" else dense("dense, a part of a GRU's kernel")
    if named.leaf == "bias":
        return Layout(
            None, "a GRU's, rows bias_ih and bias_hh; z, r, h to r, z, n", gates=_GRU_ORDER
        )
    if len(shape) != 2:
        return None
    sure = "" if bias is not None else "; no bias tells that its reset_after is true"
    why = f"dense, by the recurrent kernel beside it; a GRU: z, r, h to r, z, n{sure}"
    return Layout((1, 0), why, gates=_GRU_ORDER)


def _by_layer(named: Named, shape: tuple[int, ...], beside: str) -> Layout | None:
    """Choose for a kernel of which its own name, or its layer's, says that it is no usual one."""
    if not _KERNEL.fullmatch(named.leaf):
        return None
    rank, layer, bias = len(shape), named.layer, named.beside(*_BIASES)
    why = f"by its layer's name, {layer}{beside}"
    if rank == 2 and named.leaf in ("weights", "w", "W") and _TABLE.fullmatch(layer):
        return Layout(None, f"an embedding, {why}")
    if rank in (3, 4) and _DEPTHWISE.fullmatch(named.leaf):
        return depthwise(rank, f"depthwise convolution, by its name and its {rank} axes{beside}")
    channels = (math.prod(shape[-2:]),)
    fits = bias in (None, channels) and "pointwise" not in named.leaf
    if rank in (3, 4) and fits and _DEPTHWISE_LAYER.fullmatch(layer):
        return depthwise(rank, f"depthwise convolution, {why}")
    if rank == 3 and _HEADS_OUT.fullmatch(layer) and bias in (None, shape[1:]):
        return matrix(rank, 2, f"dense, of several heads, {why}")
    if rank == 3 and _HEADS_IN.fullmatch(layer) and bias in (None, shape[2:]):
        return matrix(rank, 1, f"dense, of several heads, {why}")
    if rank > 2 and "einsum" in layer and (bias is None or len(bias) < 2):
        return Layout(None, f"only the equation of its layer tells its axes{beside}", unknown=True)
    return None


def _by_bias(named: Named, shape: tuple[int, ...], beside: str) -> Layout | None:
    """Choose for a kernel of three axes or more whose bias says that it is no convolution's."""
    rank, bias = len(shape), named.beside(*_BIASES)
    if not _KERNEL.fullmatch(named.leaf) or rank < 3 or bias is None or bias == shape[-1:]:
        return None
    # If the first axis of two stands first in the kernel too, each place has a kernel of its own.
    apart = bias == (shape[0], shape[-1])
    if 1 < len(bias) < rank and bias == shape[-len(bias) :] and not apart:
        return matrix(rank, len(bias), f"dense, by the axes of its bias{beside}")
    if rank in (3, 4) and bias == (math.prod(shape[-2:]),) and shape[-1] > 1:
        return depthwise(rank, f"depthwise convolution, by the size of its bias{beside}")
    if bias != shape[-2:-1]:
        return Layout(None, f"its bias does not fit a convolution{beside}", unknown=True)
    if shape[-1] == 1 and not _TRANSPOSED_LAYER.fullmatch(named.layer):
        return Layout(None, f"a transposed convolution, or depthwise{beside}", unknown=True)
    return None


def _by_rank(named: Named, shape: tuple[int, ...], beside: str) -> Layout | None:
    """Choose for a kernel by its name and its rank."""
    rank = len(shape)
    if not _KERNEL.fullmatch(named.leaf) or rank > 5:
        return None
    why = f"by its name and its {rank} axes{beside}"
    if rank == 2:
        return dense(f"dense, {why}")
    alone = named.beside(*_BIASES) is None and shape[-1] == 1 and shape[-2] > 1
    if rank == 4 and alone and not _TRANSPOSED_LAYER.fullmatch(named.layer):
        return Layout(None, f"a convolution to one channel, or depthwise{beside}", unknown=True)
    return convolution(rank, f"convolution, {why}")
