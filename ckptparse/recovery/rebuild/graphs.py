"""Make layouts from graphs: their save ops say it (docs/format.md, sections 6.4 and 6.5)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ckptparse.errors import CheckpointError
from ckptparse.graph.graph import Graph
from ckptparse.graph.savers import SavedTensor, Saver
from ckptparse.recovery.rebuild.layout import Layout, Payload, Rule, parse_slice_spec, plain_type

__all__ = ["iter_layouts", "layout_of_saver"]

_TABLE_PARTS = ("-keys", "-values")


def iter_layouts(graphs: Iterable[Graph], source: str) -> Iterator[Layout]:
    """Iterate over the layouts that the Savers of some graphs write, each once.

    A Saver is left out if it saves nothing, or if its slices cannot be parsed.
    """
    seen: set[Layout] = set()
    for graph in graphs:
        try:
            savers = graph.savers
        except CheckpointError:
            continue
        for saver in savers:
            layout = layout_of_saver(saver, source)
            if layout is not None and layout not in seen:
                seen.add(layout)
                yield layout


def layout_of_saver(saver: Saver, source: str) -> Layout | None:
    """Return the layout that a Saver writes; None if it writes V1, nothing, or unknown slices."""
    if saver.version != 2 and saver.definition is not None:
        return None
    try:
        shards = tuple(tuple(map(_payload_of, op.tensors)) for op in saver.ops)
    except CheckpointError:
        return None
    return Layout(shards, Rule.SAVER, source) if any(shards) else None


def _payload_of(tensor: SavedTensor) -> Payload:
    data_type = plain_type(tensor.data_type)
    for part in _TABLE_PARTS:
        if tensor.name.endswith(part) and tensor.variable is None:
            stem = tensor.name.removesuffix(part)
            return Payload(tensor.name, data_type, tensor.shape, shared_count=stem)
    if not tensor.slice_spec:
        return Payload(tensor.name, data_type, tensor.shape)
    full_shape, piece = parse_slice_spec(tensor.slice_spec)
    shape = tuple(len(extent) for extent in piece.resolve(full_shape))
    if shape == full_shape:
        # A slice that covers everything is stored as an ordinary tensor.
        return Payload(tensor.name, data_type, full_shape)
    return Payload(tensor.name, data_type, shape, piece, full_shape)
