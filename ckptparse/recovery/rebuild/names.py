"""Names of a damaged index of TensorFlow 2, put right by the object graph at the end of the data.

In a damaged block a changed byte of a key that is stored in full is one of every name that shares
it. The graph has all names. Of those that the index lacks, the one is taken that differs from such
a name in fewest letters, one or two, if no other differs in as few.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import replace

from ckptparse.backend import OBJECT_GRAPH_KEY
from ckptparse.examination.case import Case, CheckedTensor, Part
from ckptparse.problems import Cause

__all__ = ["nearest_name", "restore_names"]

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
    renamed = {name: _called(case.tensors[wrong], name) for name, wrong in right.items()}
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


def _called(checked: CheckedTensor, name: str) -> CheckedTensor:
    """Return a tensor with another name than the index has."""
    (part,) = checked.parts
    note = f"the damaged index calls it {checked.name!r}; the object graph has this name"
    said = part.check.outcome.note
    part.check = part.check.because(part.check.cause, f"{said}; {note}" if said else note)
    return replace(checked, tensor=replace(checked.tensor, name=name))
