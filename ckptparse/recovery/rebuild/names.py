"""Names of a damaged index, put right by what else has them.

In a damaged block a changed byte of a key that is stored in full is one of every name that shares
it. The object graph at the end of the data of TensorFlow 2 has all names. Of those that the index
lacks, the one is taken that differs from such a name in fewest letters, one or two, if no other
differs in as few. The index of another checkpoint, or a graph, has the name of each place.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from ckptparse.backend import OBJECT_GRAPH_KEY
from ckptparse.examination.case import Case, CheckedTensor, Part
from ckptparse.examination.index_view import IndexView
from ckptparse.examination.outcome import ByteRange
from ckptparse.examination.payload import ListedTensor
from ckptparse.problems import Cause

__all__ = ["nearest_name", "restore_names", "restore_names_by_place"]

_MOST_CHANGED = 2
"""Letters that may differ: what one damaged place changes. More are found in names by chance."""
_MOST_COMPARED = 1 << 17
"""Pairs of names that are compared, at 2 µs each."""


def restore_names(case: Case, names: Collection[str]) -> None:
    """Give tensors from damaged blocks of the index the names that the object graph has for them.

    Args:
        case: The checkpoint, checked.
        names: All names of the graph.
    """
    known = frozenset(names)
    odd = [
        name
        for name, part in _alone(case)
        if name not in known and name != OBJECT_GRAPH_KEY and _is_doubted(part)
    ]
    if not odd:
        return
    lacking: dict[int, list[str]] = defaultdict(list)
    for name in known:
        if name not in case.tensors:
            lacking[len(name)].append(name)
    if sum(len(lacking[len(name)]) for name in odd) > _MOST_COMPARED:
        return
    found: dict[str, list[str]] = defaultdict(list)
    for name in odd:
        nearest = nearest_name(name, lacking[len(name)])
        if nearest is not None:
            found[nearest].append(name)
    right = {name: these[0] for name, these in found.items() if len(these) == 1}
    _rename(case, right, dict.fromkeys(right, "the object graph"))


def restore_names_by_place(case: Case, view: IndexView) -> None:
    """Give tensors from damaged blocks of the index the names that others have for their places.

    Args:
        case: The checkpoint, checked.
        view: What other evidence says of all its tensors.
    """
    whole: dict[ByteRange, ListedTensor] = {}
    pieces: set[ByteRange] = set()
    for name, one in view.tensors.items():
        if name not in case.tensors:
            pieces.update(payload.place for _, payload in one.slices if payload is not None)
            if one.payload is not None and one.payload.size:
                whole[one.payload.place] = one
    found: dict[str, list[str]] = defaultdict(list)
    for name, part in _alone(case):
        if name in view.tensors or part.payload is None or not _is_doubted(part):
            continue
        if part.payload.place in pieces:
            # It is a slice, whose key was damaged.
            del case.tensors[name]
            continue
        listed = whole.get(part.payload.place)
        kind = part.payload.data_type, part.payload.shape
        if listed is not None and kind == (listed.data_type, listed.shape):
            found[listed.name].append(name)
    right = {name: these[0] for name, these in found.items() if len(these) == 1}
    _rename(case, right, {name: _source_of(view.tensors[name]) for name in right})


def _source_of(listed: ListedTensor) -> str:
    """Say what has a name."""
    grounds = () if listed.payload is None else listed.payload.grounds
    return next((one.path for one in grounds if one.path), "what the caller gave")


def _rename(case: Case, right: Mapping[str, str], sources: Mapping[str, str]) -> None:
    """Rename tensors.

    Args:
        case: The checkpoint.
        right: The names that they had, by those that they get.
        sources: What has these.
    """
    renamed = {
        name: _called(case.tensors[wrong], name, sources[name]) for name, wrong in right.items()
    }
    for wrong in right.values():
        del case.tensors[wrong]
    case.replace_tensors(renamed)


def _alone(case: Case) -> Iterable[tuple[str, Part]]:
    """Iterate over the tensors in one piece that are objects."""
    return [
        (name.tensor, part)
        for name, part in case.held_parts()
        if name.piece is None and name.tensor in case.tensors
    ]


def _is_doubted(part: Part) -> bool:
    """Tell whether an entry is of a damaged block; its bytes have its checksum or have not."""
    payload = part.payload
    return payload is not None and not payload.proved and part.check.cause is not Cause.NO_CHECKSUM


def nearest_name(name: str, others: Iterable[str]) -> str | None:
    """Return the one name that differs in fewest letters; None if all differ in many, or two do."""
    near: dict[int, list[str]] = defaultdict(list)
    for other in others:
        changed = 0
        for one, two in zip(name, other, strict=True):
            changed += one != two
            if changed > _MOST_CHANGED:
                break
        else:
            near[changed].append(other)
    these = near[min(near)] if near else []
    return these[0] if len(these) == 1 else None


def _called(checked: CheckedTensor, name: str, source: str) -> CheckedTensor:
    """Return a tensor with another name than the index has."""
    (part,) = checked.parts
    note = f"the damaged index calls it {checked.name!r}; {source} has this name"
    said = part.check.outcome.note
    part.check = part.check.because(part.check.cause, f"{said}; {note}" if said else note)
    return replace(checked, tensor=replace(checked.tensor, name=name))
