"""A TF2 data file without its index, or with what a cut index still says: its own object graph.

The graph ends the data file and is found by the checksum of its length. It names all tensors, in
their order; what of them can be placed follows from rules, none of which proves anything.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from ckptparse.backend import OBJECT_GRAPH_KEY
from ckptparse.bundle.entry import BundleHeader, Endianness, count_elements
from ckptparse.dtypes import DataType, item_size
from ckptparse.errors import CheckpointError
from ckptparse.examination.case import Case
from ckptparse.examination.index_view import IndexView
from ckptparse.examination.outcome import ByteRange, EvidenceRecord
from ckptparse.examination.payload import ListedTensor, Payload
from ckptparse.examination.readers import DataFile
from ckptparse.filenames import INDEX_SUFFIX
from ckptparse.graph.object_graph import ObjectGraph
from ckptparse.inventory.survey import Origin
from ckptparse.problems import Cause, EvidenceRule
from ckptparse.recovery.rebuild.counted import find_last_string, measure_strings, text_size
from ckptparse.recovery.rebuild.items import (
    STEM_PARTS,
    TABLE_KEYS,
    TABLE_VALUES,
    Item,
    iter_items,
    split_stem,
)
from ckptparse.recovery.rebuild.names import restore_names
from ckptparse.recovery.rebuild.shapes import GivenTensor, ShapeMatches
from ckptparse.recovery.rebuild.tiling import Known, Tile, tile
from ckptparse.recovery.rebuild.view import data_paths

__all__ = ["tile_alone", "uses_shapes"]

_MOST_FILES = 2
"""Data files that hold anything: one of all tensors, and one of the object graph alone."""
_UNPLACED = "no index describes it; the object graph names it, and nothing tells its place or size"


def tile_alone(case: Case, given: Sequence[GivenTensor] = ()) -> IndexView | None:
    """Describe what the data files tell of themselves; None if that is nothing.

    Tensors of a damaged index whose names the graph has otherwise get those of the graph.
    Places only if one data file holds all tensors but the graph: of several, the graph does not
    say what lies in which, and only the names are listed. Older TensorFlow gives the graph a data
    file of its own.
    """
    try:
        files = _find_files(case)
        if files is None:
            return _names_of(case)
        view = _view_of(case, files, given)
        # Shapes that place nothing are those of another model, and contradict the file perhaps.
        return view if not given or uses_shapes(view) else _view_of(case, files, ())
    except CheckpointError:
        return None


def uses_shapes(view: IndexView | None) -> bool:
    """Tell whether the place of anything follows from shapes that were given."""
    payloads = [] if view is None else [one.payload for one in view.tensors.values()]
    grounds = (one for payload in payloads if payload is not None for one in payload.grounds)
    return any(one.rule is EvidenceRule.GIVEN_SHAPES for one in grounds)


def _names_of(case: Case) -> IndexView | None:
    """List the names that a graph at the end of any data file has, and nothing else of them."""
    counts = {shards for _, shards in case.survey.data_files}
    if len(counts) != 1:
        # Of two saves, nothing says which the graph is of.
        return None
    (shards,) = counts
    for (shard, _), path in sorted(case.survey.data_files.items(), reverse=True):
        if not case.files.size(DataFile(path)):
            continue
        source = case.files.source(DataFile(path))
        start = find_last_string(source)
        counted = None if start is None else measure_strings(source, start, 1)
        if start is None or counted is None:
            continue
        place = ByteRange(path, start, counted.size)
        try:
            graph = _read_graph(case, place)
            items = list(iter_items(graph)) if graph is not None else []
        except CheckpointError:
            # It is the last string of a tensor.
            continue
        restore_names(case, {name for item in items for name in _tensors_of(item)})
        lost = [
            item for item in items if any(name not in case.tensors for name in _tensors_of(item))
        ]
        if lost:
            view = _begin_view(case, shards, tuple(item.key for item in lost))
            _list_unplaced(view, lost)
            _list_graph(case, view, shard, place)
            return view
    return None


def _read_graph(case: Case, place: ByteRange) -> ObjectGraph | None:
    """Read the graph that lies at a place; None if it is larger than any may be."""
    limits = case.context.limits
    if place.size > limits.message_bytes:
        return None
    data = case.files.source(DataFile(place.path)).read_at(place.offset, place.size)
    text = data[len(data) - text_size(data) :]
    return ObjectGraph.from_bytes(text, limits=limits, path=place.path)


def _begin_view(case: Case, shards: int, unplaced: tuple[str, ...]) -> IndexView:
    return IndexView(
        case.survey.prefix + INDEX_SUFFIX,
        Origin.REBUILT,
        BundleHeader(shards, Endianness.LITTLE, 1, 0),
        shards,
        complete=not unplaced,
        unplaced=unplaced,
    )


def _tensors_of(item: Item) -> list[str]:
    """Return the names of the tensors that a key stands for; none if that is not known."""
    told = item.data_type is not None or item.rule is not None
    if told or item.key.endswith((TABLE_KEYS, TABLE_VALUES)):
        return [item.key]
    return [item.key + part for part in STEM_PARTS.get(item.key.rpartition("/")[2], ())]


def _list_unplaced(view: IndexView, items: Iterable[Item]) -> None:
    """List the tensors of which nothing tells the place."""
    unplaced = set(view.unplaced)
    for name in (name for item in items if item.key in unplaced for name in _tensors_of(item)):
        view.tensors[name] = ListedTensor.named(name, _UNPLACED)


def _list_graph(case: Case, view: IndexView, shard: int, place: ByteRange) -> None:
    """List the graph itself, if no index does."""
    if case.main is None or OBJECT_GRAPH_KEY not in case.main.tensors:
        doubt = "no index describes it; its length has its checksum, and it ends with the file"
        view.tensors[OBJECT_GRAPH_KEY] = _make_listed(
            OBJECT_GRAPH_KEY,
            (DataType.DT_STRING, ()),
            (doubt, (EvidenceRule.STRING_SIZE,)),
            (shard, place),
            view.path,
        )


@dataclass(frozen=True, slots=True)
class _Files:
    """The data files of a checkpoint that hold anything."""

    values: str
    shard: int
    end: int
    """Where the tensors in it end: where the graph begins, or all of it."""
    graph: str
    graph_shard: int
    offset: int
    """Where the graph begins in its file."""
    shards: int


def _find_files(case: Case) -> _Files | None:
    """Find the object graph and the data file of all else; None if there are not just these."""
    paths = data_paths(case)
    sizes = [case.files.size(DataFile(path)) for path in paths]
    full = [shard for shard, size in enumerate(sizes) if size != 0]
    if None in sizes or not 1 <= len(full) <= _MOST_FILES:
        return None
    if len(full) == 1:
        shard = full[0]
        end = find_last_string(case.files.source(DataFile(paths[shard])))
        if end is None:
            return None
        return _Files(paths[shard], shard, end, paths[shard], shard, end, len(paths))
    for graph, values in (full, full[::-1]):
        source = case.files.source(DataFile(paths[graph]))
        counted = measure_strings(source, 0, 1)
        if counted is not None and counted.size == source.size:
            end = sizes[values] or 0
            return _Files(paths[values], values, end, paths[graph], graph, 0, len(paths))
    return None


def _view_of(case: Case, files: _Files, given: Sequence[GivenTensor]) -> IndexView | None:
    source = case.files.source(DataFile(files.graph))
    counted = measure_strings(source, files.offset, 1)
    if counted is None:
        return None
    place = ByteRange(files.graph, files.offset, counted.size)
    graph = _read_graph(case, place)
    if graph is None:
        return None
    items = [one for item in iter_items(graph) for one in split_stem(item)]
    restore_names(case, {name for item in items for name in _tensors_of(item)})
    shapes = _find_shapes(items, graph, given)
    items = [_typed(item, shapes[item.key]) for item in items]
    counts = {key: math.prod(found.shape) for key, found in shapes.items() if found is not None}
    values = case.files.source(DataFile(files.values))
    tiling = tile(items, _known(case, files.values), values, files.end, counts=counts)
    if tiling is None:
        return None
    view = _begin_view(case, files.shards, tiling.unplaced)
    for one in tiling.tiles:
        view.tensors[one.item.key] = _listed(one, shapes[one.item.key], files, view.path)
    _list_unplaced(view, items)
    _list_graph(case, view, files.graph_shard, place)
    return view


def _find_shapes(
    items: Sequence[Item], graph: ObjectGraph, given: Sequence[GivenTensor]
) -> dict[str, GivenTensor | None]:
    """Return the shape of each item, if it follows from those that were given.

    A path tells more than a name, which two layers may have.
    """
    by_path = _shapes_by_path(graph, given)
    of_groups = _shapes_of_groups(items, by_path)
    matches = ShapeMatches(given)
    found = {
        item.key: by_path.get(item.key)
        or (None if item.key.endswith(TABLE_KEYS) else of_groups.get(item.group))
        or matches.find(item.key, item.full_name)
        for item in items
    }
    of_groups = _shapes_of_groups(items, found)
    # The keys of a table are as many as its values, and of another type.
    return {
        item.key: found[item.key]
        or (None if item.key.endswith(TABLE_KEYS) else of_groups.get(item.group))
        for item in items
    }


def _shapes_by_path(graph: ObjectGraph, given: Sequence[GivenTensor]) -> dict[str, GivenTensor]:
    """Return the shapes whose names are paths that lead to a variable, by the variable's key.

    Several paths may lead to one: Keras calls it `variables/3` before `layer/cell/kernel`.
    """
    found: dict[str, GivenTensor] = {}
    for tensor in given:
        node = graph.find_node(tensor.name)
        key = None if node is None else graph.keys_by_node.get(node.node_id)
        if key is not None:
            found.setdefault(key, tensor)
    return found


def _typed(item: Item, given: GivenTensor | None) -> Item:
    """Take over the type that was given with the shape."""
    if given is None or given.data_type is None:
        return item
    return replace(item, data_type=given.data_type)


def _shapes_of_groups(
    items: Sequence[Item], shapes: Mapping[str, GivenTensor | None]
) -> dict[int, GivenTensor]:
    """Return the one shape that the variables of a group have: then their slots have it too."""
    found: dict[int, list[GivenTensor]] = defaultdict(list)
    for item in items:
        given = shapes.get(item.key)
        if given is not None:
            found[item.group].append(given)
    return {
        group: these[0] for group, these in found.items() if len({one.shape for one in these}) == 1
    }


def _known(case: Case, path: str) -> dict[str, Known]:
    """Return what the index says of that data file, in whole blocks or confirmed by checksums."""
    found: dict[str, Known] = {}
    for name, part in case.parts():
        payload = part.payload
        if payload is None or payload.file != DataFile(path) or name.piece is not None:
            continue
        if payload.proved or part.check.cause is Cause.ENTRY:
            count = count_elements(payload.shape) if item_size(payload.data_type) else None
            found[name.tensor] = Known(payload.offset, payload.size, count)
    return found


def _listed(one: Tile, given: GivenTensor | None, files: _Files, index: str) -> ListedTensor:
    doubt = (
        "no index describes it; the object graph names it, and its order puts it there; its size "
        "is a guess, and so are its type and its shape"
    )
    # A graph says nothing of dimensions: what is no scalar is given flat.
    single = one.item.count == 1 or (one.counted is not None and one.count == 1)
    many = one.item.key.endswith(TABLE_KEYS) or one.data_type == DataType.DT_VARIANT
    single = single and not many
    shape: tuple[int, ...] = () if single else (one.count,)
    if given is not None and math.prod(given.shape) == one.count:
        shape = given.shape
    place = files.shard, ByteRange(files.values, one.offset, one.size)
    rules = (EvidenceRule.OBJECT_GRAPH, EvidenceRule.GUESSED_SIZES, *one.rules)
    return _make_listed(one.item.key, (one.data_type, shape), (doubt, rules), place, index)


def _make_listed(
    name: str,
    kind: tuple[int, tuple[int, ...]],
    why: tuple[str, tuple[EvidenceRule, ...]],
    where: tuple[int, ByteRange],
    index: str,
) -> ListedTensor:
    (data_type, shape), (doubt, rules), (shard, place) = kind, why, where
    payload = Payload(
        data_type,
        shape,
        DataFile(place.path),
        place.offset,
        place.size,
        None,
        proved=False,
        doubt=doubt,
        chance=0.0,
        index=index,
        origin=Origin.REBUILT,
        shard=shard,
        grounds=tuple(EvidenceRecord(rule, place.path) for rule in rules),
    )
    return ListedTensor(name, data_type, shape, False, doubt, 0.0, payload)
