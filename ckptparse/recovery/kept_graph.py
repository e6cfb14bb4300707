"""The object graph of what a recovery writes: the stored one, a part of it, or one made anew.

`tf.train.Checkpoint` finds tensors by the object graph. If that is lost, the keys of the tensors
still say which objects held them:

    net/kernel/.ATTRIBUTES/VARIABLE_VALUE      (docs/format.md, section 7)
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterator, Sequence

from ckptparse.dtypes import DataType
from ckptparse.elements import is_masked
from ckptparse.errors import CheckpointError, UnsupportedError
from ckptparse.graph.object_graph import ObjectGraph
from ckptparse.graph.object_graph_making import ATTRIBUTES_MARK, make_object_graph
from ckptparse.jobs.object_graphs import change_keys
from ckptparse.limits import Limits
from ckptparse.recovery.result import RecoveredTensor
from ckptparse.recovery.written import GraphOrigin

__all__ = ["choose_graph"]

_OF_TABLE = ("keys", "values")
"""A table has two tensors under the key of one attribute: `table-keys` and `table-values`."""


def choose_graph(
    graph: RecoveredTensor | None,
    names: Sequence[str],
    *,
    lost: Collection[str],
    keep_suspect: bool,
    limits: Limits,
) -> tuple[bytes | None, GraphOrigin | None]:
    """Return the object graph for some tensors, serialized, and where it comes from.

    Args:
        graph: What was got back of the stored one; None if it is not to be used.
        names: The tensors that are written.
        lost: Those that are not.
        keep_suspect: Whether to use elements that look wrong.
        limits: Bounds on the stored one.
    """
    parsed = None if graph is None else _parse(graph, keep_suspect=keep_suspect, limits=limits)
    objects = list(_iter_objects(names))
    if graph is not None and parsed is not None:
        known = {attribute.checkpoint_key for _, attribute in parsed.iter_attributes()}
        # One that is not proved may be another's: it then lacks tensors that are there.
        if graph.status.proved or known.issuperset(objects):
            kept = {name: name for name in names}
            gone = set(_iter_lost(parsed, sorted(kept), sorted(lost)))
            if not gone:
                return parsed.serialized, "stored"
            return change_keys(parsed, kept, {*kept, *gone}), "reduced"
    if not objects:
        return None, None
    try:
        return make_object_graph(objects)[1], "made"
    except UnsupportedError:
        # Names that are not UTF-8, which no object has: there was no object graph.
        return None, None


def _parse(graph: RecoveredTensor, *, keep_suspect: bool, limits: Limits) -> ObjectGraph | None:
    if graph.suspect or graph.shape or graph.data_type != DataType.DT_STRING:
        return None
    try:
        value = graph.read(keep_suspect=keep_suspect)
        if is_masked(value):
            return None
        return ObjectGraph.from_bytes(value.item(), limits=limits)
    except CheckpointError:
        # An object graph that does not parse was reported as damaged already.
        return None


def _iter_objects(names: Sequence[str]) -> Iterator[str]:
    """Iterate over the keys of attributes among names; both tensors of a table have one."""
    known = set(names)
    for name in names:
        stem, _, part = name.rpartition("-")
        table = part in _OF_TABLE and all(f"{stem}-{one}" in known for one in _OF_TABLE)
        if ATTRIBUTES_MARK in name and not (table and part != _OF_TABLE[0]):
            yield stem if table else name


def _iter_lost(graph: ObjectGraph, kept: Sequence[str], lost: Sequence[str]) -> Iterator[str]:
    """Iterate over the keys of a graph that cannot be restored.

    A key may be the stem of several tensors (`table-keys`, `table-values`): all must be there.
    """
    for _, attribute in graph.iter_attributes():
        key = attribute.checkpoint_key
        exact = bisect_left(kept, key) < len(kept) and kept[bisect_left(kept, key)] == key
        if not exact and (not _has_stem(kept, key) or _has_stem(lost, f"{key}-")):
            yield key


def _has_stem(names: Sequence[str], stem: str) -> bool:
    """Tell whether any of the sorted names begins so."""
    place = bisect_left(names, stem)
    return place < len(names) and names[place].startswith(stem)
