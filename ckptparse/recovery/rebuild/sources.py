"""Find layouts for one checkpoint: from graphs beside it, evidence, and siblings' indexes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from ckptparse.errors import CheckpointError
from ckptparse.examination.case import Case
from ckptparse.examination.index_view import IndexView
from ckptparse.examination.neighbours import nearest
from ckptparse.examination.survey import identity_of
from ckptparse.filenames import META_SUFFIX
from ckptparse.recovery.evidence.gather import Evidence
from ckptparse.recovery.other_indexes import OtherIndexes
from ckptparse.recovery.rebuild.graphs import iter_layouts
from ckptparse.recovery.rebuild.layout import Layout, Payload, Rule
from ckptparse.recovery.rebuild.shape_files import read_metadata_shapes
from ckptparse.recovery.rebuild.shapes import GivenTensor
from ckptparse.saved_model.keras_metadata import KERAS_METADATA_FILE

__all__ = ["find_shapes", "iter_sources", "layout_of_view", "own_graphs"]

_MODEL_FILES = ("saved_model.pb", "saved_model.pbtxt")
_TEXT_GRAPH = "graph.pbtxt"
"""What an Estimator writes beside its checkpoints, and `tf.io.write_graph` is given as a name."""
_KERAS = "keras-metadata"
_EVENTS = "tfevents"
_MOST_EVENTS = 8
"""Event files that are read: all of one run hold the same graph, and they can be large."""


def iter_sources(
    case: Case, evidence: Evidence, others: OtherIndexes, *, siblings: bool
) -> Iterator[Layout]:
    """Iterate over the layouts that a checkpoint may have, the surest first.

    Args:
        case: The checkpoint.
        evidence: The files that the caller named.
        others: Opens other checkpoints.
        siblings: Whether event files and other checkpoints beside it may be used.
    """
    for path in _graph_files(case, events=siblings):
        identity = identity_of(path, case.context)
        if identity is not None:
            yield from iter_layouts(evidence.graphs_in(path, identity.kind), path)
    for path, graphs in evidence.graphs():
        yield from iter_layouts(graphs, path)
    prefixes = list(evidence.prefixes)
    if siblings:
        prefixes += nearest(case.survey, case.context)
    for prefix in dict.fromkeys(prefixes):
        if prefix != case.survey.prefix:
            yield from _stand_ins(prefix, others, case.main)


def find_shapes(case: Case, evidence: Evidence) -> list[GivenTensor]:
    """Return the shapes that a `keras_metadata.pb` tells: the model's own, or one of the evidence.

    The first one that tells any is taken: of two models, layers may have the same names.
    """
    named = [path for path, kind in evidence.kinds.items() if kind == _KERAS] if evidence else []
    model = case.survey.saved_model
    if model is not None:
        named.append(case.context.storage.join(model, KERAS_METADATA_FILE))
    for path in named:
        found = read_metadata_shapes(path, case.context)
        if found:
            return found
    return []


def own_graphs(case: Case) -> list[str]:
    """Return where a checkpoint's own graph may lie: named as it is, or in its SavedModel."""
    found = [case.survey.prefix + META_SUFFIX]
    if case.survey.saved_model is not None:
        join = case.context.storage.join
        found += [join(case.survey.saved_model, name) for name in _MODEL_FILES]
    return found


def _graph_files(case: Case, *, events: bool) -> Iterator[str]:
    """Iterate over files beside the checkpoint whose names say that they hold its graph."""
    storage = case.context.storage
    candidates = own_graphs(case)
    if events:
        names = [name for name in storage.list(case.survey.directory) if _EVENTS in name]
        names = [*names[:_MOST_EVENTS], _TEXT_GRAPH]
        candidates += [storage.join(case.survey.directory, name) for name in names]
    for path in candidates:
        stat = storage.stat(path)
        if stat is not None and stat.kind == "file":
            yield path


def _stand_ins(prefix: str, others: OtherIndexes, own: IndexView | None) -> Iterator[Layout]:
    try:
        if own is not None and not own.complete and others.has_index(prefix, own):
            # Nor is that one complete.
            return
        other = others.open(prefix)
    except CheckpointError:
        return
    view = other.main
    if not other.survey.has_index or view is None or not view.complete:
        return
    if len(view.tensors) <= others.context.limits.most_small(other.files.held_bytes):
        yield layout_of_view(view)


def layout_of_view(view: IndexView) -> Layout:
    """Return the payloads that an index describes, in the order of their offsets."""
    shards: dict[int, list[tuple[int, int, Payload]]] = defaultdict(list)
    for name, payload in view.iter_payloads():
        full_shape = view.tensors[name.tensor].shape if name.piece is not None else ()
        item = Payload(
            name.tensor,
            payload.data_type,
            payload.shape,
            name.piece,
            full_shape,
            stated=payload.size,
        )
        # An empty payload has the offset of the next one, and comes before it.
        shards[payload.shard].append((payload.offset, payload.size, item))
    ordered = (sorted(shards[n], key=lambda one: one[:2]) for n in range(view.num_shards))
    payloads = tuple(tuple(item for _, _, item in shard) for shard in ordered)
    return Layout(payloads, Rule.STAND_IN, view.path)
