"""Which variables before the blocks of slots are of dense layers one behind the other.

Only of those does `chain` know the rows and columns. Keras calls such a layer `dense` or `dense_3`
unless it was given a name; the names of the variables have it in them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ckptparse.recovery.rebuild.blocks import Blocks
from ckptparse.recovery.rebuild.chain import Layer, find_chain
from ckptparse.recovery.rebuild.items import Item

__all__ = ["find_sizes", "is_dense"]

_DENSE = re.compile(r"(?:.*/)?dense(?:_\d+)?/(?:kernel|bias)")
_NORMALIZATION = ["gamma", "beta", "moving_mean", "moving_variance"]


def find_sizes(
    items: Sequence[Item],
    sizes: Sequence[int | None],
    values: npt.NDArray[np.float32],
    blocks: Blocks,
) -> dict[int, int]:
    """Return the elements of each group of variables; empty if nothing is clear.

    Args:
        items: What fills the values, in its order.
        sizes: Of each, in bytes, if it is known.
        values: All there is.
        blocks: The blocks of slots at its end.
    """
    head = min(blocks.scalars)
    slots = items[len(items) - blocks.slots :]
    variables = items[:head]
    squares = next((n for n, kind in enumerate(blocks.kinds) if kind in ("square", "rms")), None)
    # No variable may lie behind the scalars, and none may be known.
    plain = max(blocks.scalars) == len(items) - blocks.slots * len(blocks.kinds) - 1
    if squares is None or not plain or any(size is not None for size in sizes[:head]):
        return {}
    trained = [item.key.partition("/.OPTIMIZER_SLOT/")[0] for item in slots]
    layers = _layers(variables, trained)
    if layers is None:
        return {}
    last = len(values) - (len(blocks.kinds) - 1 - squares) * blocks.trained
    weights = values[: blocks.scalars[head]]
    found = find_chain(values[last - blocks.trained : last], weights, [one for _, one in layers])
    if found is None:
        return {}
    counts: dict[int, int] = {}
    for (own, _), (rows, columns) in zip(layers, found, strict=True):
        counts |= dict.fromkeys((item.group for item in own[1:]), columns)
        counts[own[0].group] = rows * columns
    return counts


def is_dense(item: Item) -> bool:
    """Tell whether a variable is one of a dense layer, by the name that Keras gives."""
    return _DENSE.fullmatch(item.full_name) is not None


def _layers(
    variables: Sequence[Item], trained: Sequence[str]
) -> list[tuple[list[Item], Layer]] | None:
    """Return each dense layer with its variables; None if there are others."""
    known = set(trained)
    if [path for path in map(_path, variables) if path in known] != list(trained):
        return None
    by_holder: list[tuple[str, list[Item]]] = []
    for item in variables:
        holder = _path(item).rpartition("/")[0]
        if not by_holder or by_holder[-1][0] != holder:
            by_holder.append((holder, []))
        by_holder[-1][1].append(item)
    layers: list[tuple[list[Item], Layer]] = []
    for _, own in by_holder:
        names = [_path(item).rpartition("/")[2] for item in own]
        if names in (["kernel"], ["kernel", "bias"]):
            if not all(is_dense(item) and _path(item) in known for item in own):
                return None
            layers.append((own, Layer(len(own) == len(["kernel", "bias"]))))
        elif names == _NORMALIZATION and layers and not layers[-1][1].after:
            before, layer = layers[-1]
            after = tuple(_path(item) in known for item in own)
            layers[-1] = [*before, *own], Layer(layer.bias, after)
        else:
            return None
    return layers


def _path(item: Item) -> str:
    return item.key.partition("/.ATTRIBUTES/")[0]
