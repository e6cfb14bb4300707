"""Rebuild an index from other evidence, in the form in which indexes are read.

The surest layout that fits the data files to the byte is taken: one from a graph before one from a
sibling, and this before one from shapes. All tensors are unverified, since no stored checksum is
left.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from ckptparse.bundle.entry import BundleHeader, Endianness
from ckptparse.errors import CheckpointError
from ckptparse.examination.case import Case
from ckptparse.examination.index_view import IndexView
from ckptparse.examination.outcome import EvidenceRecord
from ckptparse.examination.payload import ListedTensor, Payload
from ckptparse.examination.readers import DataFile
from ckptparse.filenames import INDEX_SUFFIX
from ckptparse.files.storage import Source
from ckptparse.inventory.survey import Origin
from ckptparse.limits import Limits
from ckptparse.problems import EvidenceRule
from ckptparse.proto.parsing import parse_message
from ckptparse.proto.trackable_object_graph_pb2 import TrackableObjectGraph
from ckptparse.recovery.other_indexes import OtherIndexes
from ckptparse.recovery.rebuild.counted import find_last_string, measure_strings, text_size
from ckptparse.recovery.rebuild.fit import Fit, Placed, find_cut_off, fit_layout
from ckptparse.recovery.rebuild.items import PYTHON_STATE
from ckptparse.recovery.rebuild.layout import Layout, Rule
from ckptparse.recovery.rebuild.nearness import is_near
from ckptparse.recovery.rebuild.shapes import GivenTensor, KeyName, layouts_of_shapes
from ckptparse.text import count

__all__ = ["Rebuilt", "data_paths", "find_keys", "rebuild"]

_SENTENCES = {
    Rule.SAVER: "its place is that of the save op in {source}",
    Rule.STAND_IN: "its place is that in {source}, the index of another checkpoint",
    Rule.GIVEN_ORDER: "its place follows from the given shapes in their order (a guess)",
    Rule.SORTED_NAMES: "its place follows from the given shapes sorted by name (a guess)",
    Rule.OBJECT_GRAPH: "its place follows from the object graph's order and the given shapes",
}


_MOST_CUT_OFF = 8
"""Layouts that are tried on data files that were cut off: graphs of the checkpoint's own, and the
indexes of the saves next to it, come first."""
_RECORDS = {
    Rule.SAVER: EvidenceRule.SAVE_OP,
    Rule.STAND_IN: EvidenceRule.STAND_IN,
    Rule.GIVEN_ORDER: EvidenceRule.GIVEN_SHAPES,
    Rule.SORTED_NAMES: EvidenceRule.SORTED_NAMES,
    Rule.OBJECT_GRAPH: EvidenceRule.OBJECT_GRAPH,
}


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """A rebuilt index."""

    view: IndexView
    fit: Fit
    rivals: int
    """How many other layouts of the same rule fit too, with other places."""


def rebuild(
    case: Case,
    layouts: Iterable[Layout],
    given: Sequence[GivenTensor] = (),
    own: Collection[str] = (),
    others: OtherIndexes | None = None,
) -> Rebuilt | None:
    """Rebuild the index of a checkpoint; None if no layout fits its data files.

    Args:
        case: The checkpoint. None of its data files may be missing.
        layouts: Layouts from evidence, the surest first.
        given: Shapes that the caller gave.
        own: Files of which it is known that they are of this checkpoint: if nothing fits to the
            byte, what they say is taken for data files that were cut off.
        others: Opens other checkpoints: what the index of one says is taken, too, if the values
            are near to its own.
    """
    paths = data_paths(case)
    if not paths:
        return None
    sources = []
    try:
        sources = [case.files.source(DataFile(path)) for path in paths if _opens(case, path)]
        if len(sources) != len(paths):
            return None
        best: Fit | None = None
        rivals = 0
        seen: list[Layout] = []
        for layout in _noted(_iter_all(layouts, given, sources, case.context.limits), seen):
            if best is not None and layout.rule is not best.layout.rule:
                break
            fit = fit_layout(layout, sources)
            if fit is not None and best is not None and fit.placed != best.placed:
                rivals += 1
            best = best or fit
        best = best or find_cut_off(
            seen,
            sources,
            [
                lambda fit: fit.layout.source in own,
                lambda fit: others is not None and is_near(fit, paths, case, others),
            ],
        )
    except CheckpointError:
        return None
    return None if best is None else Rebuilt(_make_view(case, best, paths, rivals), best, rivals)


def _noted(layouts: Iterable[Layout], seen: list[Layout]) -> Iterator[Layout]:
    """Iterate over layouts, and keep the first ones: each may be of very many tensors."""
    for layout in layouts:
        if len(seen) < _MOST_CUT_OFF:
            seen.append(layout)
        yield layout


def _opens(case: Case, path: str) -> bool:
    return case.files.size(DataFile(path)) is not None


def data_paths(case: Case) -> list[str]:
    """Return the data files of the checkpoint in order; none if one is missing."""
    groups: dict[int, dict[int, str]] = defaultdict(dict)
    for (shard, shards), path in case.survey.data_files.items():
        groups[shards][shard] = path
    whole = [shards for shards, found in groups.items() if set(found) == set(range(shards))]
    return [groups[whole[0]][shard] for shard in range(whole[0])] if len(whole) == 1 else []


def _iter_all(
    layouts: Iterable[Layout],
    given: Sequence[GivenTensor],
    sources: Sequence[Source],
    limits: Limits,
) -> Iterator[Layout]:
    yield from layouts
    if given:
        keys = find_keys(sources[-1], limits=limits)
        yield from layouts_of_shapes(given, [source.size for source in sources], keys)


def find_keys(source: Source, *, limits: Limits) -> list[KeyName]:
    """Return the keys of the object graph that ends a data file, in the order they are stored.

    Empty if there is no object graph. Python states are stored after all others.
    """
    offset = find_last_string(source)
    if offset is None:
        return []
    counted = measure_strings(source, offset, 1)
    if counted is None or counted.size > limits.message_bytes:
        return []
    data = source.read_at(offset, counted.size)
    head = len(data) - text_size(data)
    try:
        message = parse_message(TrackableObjectGraph, data[head:], limits=limits)
    except CheckpointError:
        return []
    plain: dict[str, KeyName] = {}
    states: dict[str, KeyName] = {}
    for node in message.nodes:
        for attribute in node.attributes:
            item = KeyName(attribute.checkpoint_key, attribute.full_name, attribute.name)
            (states if attribute.name == PYTHON_STATE else plain).setdefault(item.key, item)
    return [*plain.values(), *states.values()]


def _make_view(case: Case, fit: Fit, paths: Sequence[str], rivals: int) -> IndexView:
    view = IndexView(
        case.survey.prefix + INDEX_SUFFIX,
        Origin.REBUILT,
        BundleHeader(len(paths), Endianness.LITTLE, 1, 0),
        len(paths),
        complete=not fit.unplaced,
        unplaced=fit.unplaced,
    )
    sentence = _SENTENCES[fit.layout.rule].format(source=fit.layout.source)
    doubt = f"no index describes it; {sentence}, and the layout fits the data files to the byte"
    if fit.is_padded:
        doubt = (
            f"no index describes it; {sentence}, and zeros follow the last one in the data files"
        )
    elif fit.lacking or fit.unplaced:
        more = f"{count(fit.lacking, 'byte')} more" if fit.lacking else "more"
        doubt = (
            f"no index describes it; {sentence}, if the data files were cut off: the layout has "
            f"{more} than they"
        )
    if rivals:
        doubt += f"; so do {count(rivals, 'other layout')}"
    said = (EvidenceRecord(_RECORDS[fit.layout.rule], fit.layout.source or None),)
    pieces: dict[str, list[Placed]] = defaultdict(list)
    for placed in fit.placed:
        pieces[placed.payload.name].append(placed)
    for name, found in pieces.items():
        payloads = [
            _payload_of(one, paths, doubt, view.path, (*said, *_sizes(one))) for one in found
        ]
        view.tensors[name] = _listed(name, found, payloads, doubt)
    for name in fit.unplaced:
        view.tensors.setdefault(name, ListedTensor.named(name, doubt))
    return view


def _sizes(placed: Placed) -> Iterator[EvidenceRecord]:
    """Iterate over what gave a payload its size, beside the layout."""
    if placed.payload.told is not None:
        yield EvidenceRecord(placed.payload.told)
    if placed.counted is not None:
        yield EvidenceRecord(EvidenceRule.STRING_SIZE)
    if placed.solved:
        yield EvidenceRecord(EvidenceRule.REST)


def _payload_of(
    placed: Placed,
    paths: Sequence[str],
    doubt: str,
    index: str,
    said: tuple[EvidenceRecord, ...],
) -> Payload:
    return Payload(
        placed.payload.data_type or 0,
        placed.payload.known_shape or (),
        DataFile(paths[placed.shard]),
        placed.offset,
        placed.size,
        None,
        proved=False,
        doubt=doubt,
        chance=0.0,
        index=index,
        origin=Origin.REBUILT,
        shard=placed.shard,
        grounds=said,
    )


def _listed(
    name: str, found: Sequence[Placed], payloads: Sequence[Payload], doubt: str
) -> ListedTensor:
    first = found[0].payload
    if first.piece is None:
        shape = payloads[0].shape
        return ListedTensor(name, payloads[0].data_type, shape, False, doubt, 0.0, payloads[0])
    slices = tuple(
        (one.payload.piece, payload)
        for one, payload in zip(found, payloads, strict=True)
        if one.payload.piece is not None
    )
    return ListedTensor(
        name, payloads[0].data_type, first.full_shape, False, doubt, 0.0, None, slices
    )
