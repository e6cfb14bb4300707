"""Layouts from an index: that of another checkpoint of the same model.

Checkpoints of one run have the same tensors in the same places; only checksums differ, and what
lies behind strings that have grown (docs/format.md, section 6.4).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from ckptparse.bundle.entry import BundleEntry
from ckptparse.recovery.rebuild.layout import Layout, Payload, Rule
from ckptparse.slices import TensorSlice

__all__ = ["NamedEntry", "layout_of_entries"]


class NamedEntry(NamedTuple):
    """An entry of an index, with what its key says."""

    name: str
    """Of the tensor."""
    entry: BundleEntry
    piece: TensorSlice | None = None
    """Which slice of the tensor it is; None for the whole."""
    full_shape: tuple[int, ...] = ()
    """Of the whole tensor, if this is a slice."""


def layout_of_entries(entries: Iterable[NamedEntry], num_shards: int, source: str) -> Layout:
    """Return the payloads that entries describe, in the order of their offsets.

    Entries of tensors in slices say nothing of bytes, and are left out.
    """
    shards: dict[int, list[NamedEntry]] = defaultdict(list)
    for item in entries:
        if not item.entry.slices:
            shards[item.entry.shard_id].append(item)
    for items in shards.values():
        # Payloads of no bytes share their offset with the one behind them, and come first.
        items.sort(key=lambda item: (item.entry.offset, item.entry.size))
    return Layout(
        tuple(tuple(map(_payload_of, shards[number])) for number in range(num_shards)),
        Rule.STAND_IN,
        source,
    )


def _payload_of(item: NamedEntry) -> Payload:
    entry = item.entry
    return Payload(item.name, entry.data_type, entry.shape, item.piece, item.full_shape)
