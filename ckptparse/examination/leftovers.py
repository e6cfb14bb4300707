"""Take what is better in the leftovers of an unfinished save than what the index proves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ckptparse.examination.case import Case, CheckedTensor
from ckptparse.examination.index_view import IndexView
from ckptparse.examination.payload import ListedTensor
from ckptparse.examination.tensor_checks import check_tensors
from ckptparse.inventory.survey import Origin

__all__ = ["take_leftovers"]


def take_leftovers(case: Case, main: IndexView | None) -> None:
    """Take what is better in the leftovers of one save. Leftovers of several are never mixed."""
    saves: dict[str, list[IndexView]] = {}
    for view in case.views:
        if view.origin.is_leftover and view.tensors and _is_same_save(case, main, view):
            alone = view.origin is Origin.TEMPORARY
            folder = case.context.storage.split(view.path)[0]
            saves.setdefault(view.path if alone else folder, []).append(view)
    best: dict[str, CheckedTensor] = {}
    for views in saves.values():
        merged, rivals = _merge(views)
        found = {one.name: one for one in check_tensors(merged, case)}
        if _count_whole(found) > _count_whole(best) or not best:
            best = found
            case.rivals = {name: check_tensors(these, case) for name, these in rivals.items()}
    incomplete = main is None or not main.complete
    better: dict[str, CheckedTensor] = {}
    for name, checked in best.items():
        known = case.tensors.get(name)
        if incomplete if known is None else checked.rank < known.rank:
            better[name] = checked
            case.unfinished = True
    case.replace_tensors(better)


def _merge(
    views: Sequence[IndexView],
) -> tuple[list[ListedTensor], dict[str, list[ListedTensor]]]:
    """Put the parts of one save together. Of a sliced tensor each part lists its own slices.

    Returns:
        The tensors; and by name, if parts disagree about a tensor, what each of them says of it.
    """
    merged: dict[str, ListedTensor] = {}
    rivals: dict[str, list[ListedTensor]] = {}
    for view in views:
        for name, tensor in view.tensors.items():
            known = merged.get(name)
            if known is not None and known.slices and tensor.slices:
                proved = known.proved and tensor.proved
                slices = known.slices + tensor.slices
                merged[name] = replace(known, slices=slices, proved=proved)
            elif known is None:
                merged[name] = tensor
            elif not _agree(known, tensor):
                rivals.setdefault(name, [_contested(known)]).append(_contested(tensor))
                merged[name] = rivals[name][0]
    return list(merged.values()), rivals


def _agree(first: ListedTensor, second: ListedTensor) -> bool:
    """Tell whether two parts say that a tensor has the same value."""
    one, other = first.payload, second.payload
    if one is None or other is None or one.crc32c is None:
        return False
    kind = (first.data_type, first.shape) == (second.data_type, second.shape)
    return kind and (one.size, one.crc32c) == (other.size, other.crc32c)


def _contested(tensor: ListedTensor) -> ListedTensor:
    """Mark a tensor: another part of the save says something else of it."""
    doubt = "the parts of the save hold different values of it"
    payload = tensor.payload
    if payload is not None:
        payload = replace(payload, proved=False, doubt=doubt, contested=True)
    return replace(tensor, proved=False, doubt=doubt, payload=payload)


def _is_same_save(case: Case, main: IndexView | None, view: IndexView) -> bool:
    """Tell whether a leftover index can be of the save that wrote the final data files.

    If its data is not in the final data files, it is of another save.
    """
    if main is None or not main.tensors:
        return True
    final = set(case.survey.data_files.values())
    return all(payload.file.path in final for _, payload in view.iter_payloads())


def _count_whole(tensors: dict[str, CheckedTensor]) -> int:
    return sum(checked.rank == 0 for checked in tensors.values())
