"""Mend every tensor of a checkpoint by its parts, and again what is promised no more."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np

from ckptparse.crc.flips import HIGHEST_CHANCE
from ckptparse.examination.case import Case, CheckedTensor, Part
from ckptparse.examination.outcome import Outcome, slices_note
from ckptparse.examination.part_spans import spans_of_parts
from ckptparse.examination.payload import PartName
from ckptparse.examination.places import Place as Whereabouts
from ckptparse.examination.row_mapping import RowMapping
from ckptparse.problems import Status
from ckptparse.recovery.belonging import Belonging, find_vanished
from ckptparse.recovery.borrowing import Borrowing
from ckptparse.recovery.claims import Way, rests_on_checksum
from ckptparse.recovery.loading import MendedPart, MendedTensor
from ckptparse.recovery.mend import Mender
from ckptparse.recovery.mended import Mended, list_patches
from ckptparse.recovery.sound import RowMended, explained

__all__ = ["mend_again", "mend_all", "mend_tensor"]


def mend_all(case: Case, mender: Mender) -> RowMapping[MendedTensor]:
    """Mend every tensor; those that stay rows are made when they are asked for."""
    if case.sound is None:
        return RowMapping.of(
            {name: mend_tensor(one, mender, case) for name, one in case.tensors.items()}
        )
    plain, tensors, failed = case.sound.plain, case.tensors, case.failed
    index = case.context.storage.split(plain.index)[1]
    held = {}
    lost = set[int]() if failed is None else set(failed.rows[~failed.good].tolist())
    placed: Mapping[int, Whereabouts] = {}
    if failed is not None:
        placed = mender.rows_elsewhere(failed, np.flatnonzero(~failed.good), find_vanished(case))
        lost = lost.difference(placed)
    for name in tensors.doubtful_names(lost):
        if name in tensors.held or not mender.is_exhausted:
            held[name] = mend_tensor(tensors[name], mender, case)
    make = RowMended(plain, tensors.make, index, placed)
    return tensors.with_held(make, held)


def mend_again(
    case: Case,
    mender: Mender,
    mended: RowMapping[MendedTensor],
    known: Belonging,
    borrowing: Borrowing,
) -> None:
    """Mend what is promised no more: the index may be of another save."""
    ways = known.ways
    mender.distrust(
        ways, values=not known.values, borrowed=not known.borrowed, offers_lent=known.shown
    )
    for name, one in list(mended.held.items()):
        if any(_is_claim(part, known, borrowing, ways) for part in one.parts):
            mended.held[name] = mend_tensor(one.checked, mender, case)


def _is_claim(
    one: MendedPart, known: Belonging, borrowing: Borrowing, ways: Collection[Way]
) -> bool:
    """Tell whether a part is promised, and nothing says that it is this save's."""
    payload, found = one.part.payload, one.mended
    if payload is None or not found.status.proved:
        return False
    if not known.values and rests_on_checksum(found, payload, borrowing.files):
        return True
    return not known.borrowed and borrowing.is_borrowed(found, payload, ways)


def mend_tensor(checked: CheckedTensor, mender: Mender, case: Case) -> MendedTensor:
    """Mend the parts of one tensor, and say what is known of the whole then."""
    if checked.layout is not None:
        return MendedTensor(checked, (), checked.report())
    parts = tuple(
        MendedPart(part, _mend_part(checked.name_of(part), part, mender, case))
        for part in checked.parts
    )
    if checked.is_sliced:
        outcome = _sum_up(checked.outcome(), parts, checked)
    else:
        outcome = parts[0].mended.outcome
    return MendedTensor(checked, parts, checked.report(outcome))


def _mend_part(name: PartName, part: Part, mender: Mender, case: Case) -> Mended:
    """Mend a part; add what says where it lies, and the bytes that were patched."""
    found, payload = mender.mend(name, part.payload, part.check), part.payload
    return found if payload is None else explained(found, payload, list_patches(found, case.files))


def _sum_up(known: Outcome, parts: Sequence[MendedPart], checked: CheckedTensor) -> Outcome:
    """Return what is known of a sliced tensor after its slices were mended."""
    proved = checked.tensor.proved
    outcomes = [one.mended.outcome for one in parts]
    statuses = [outcome.status for outcome in outcomes]
    if all(status is Status.VERIFIED for status in statuses) and proved:
        return known
    order = list(Status)
    chances = [outcome.chance for outcome in outcomes if outcome.chance is not None]
    methods = sorted({outcome.method for outcome in outcomes if outcome.method})
    regions = [(one.part.region, one.mended.outcome.ranges) for one in parts]
    marked = [(one.part.region, one.mended.outcome.suspect) for one in parts]
    ranges = spans_of_parts(regions, checked.shape)
    summed = replace(
        known,
        method=_join(methods),
        chance=min(1.0, sum(chances)) if chances else None,
        ranges=ranges,
        suspect=spans_of_parts(marked, checked.shape),
        patches=tuple(dict.fromkeys(one for outcome in outcomes for one in outcome.patches)),
        grounds=tuple(dict.fromkeys(one for outcome in outcomes for one in outcome.evidence)),
    )
    if all(status.proved for status in statuses):
        worst = max(statuses, key=order.index)
        sure = proved and sum(chances) <= HIGHEST_CHANCE
        note = f"all of its {len(parts)} slices were got back"
        return replace(summed, status=worst if sure else Status.UNVERIFIED, note=note)
    if not ranges:
        return known
    if any(outcome.method or outcome.suspect for outcome in outcomes):
        summed = replace(summed, note=_note_of(outcomes))
    if proved and not any(status is Status.UNVERIFIED for status in statuses):
        return replace(summed, status=Status.PARTIAL)
    return replace(summed, status=Status.UNVERIFIED)


def _note_of(outcomes: Sequence[Outcome]) -> str:
    """Say of a sliced tensor how many of its slices are proved, and what the others lack."""
    good = sum(outcome.status.proved for outcome in outcomes)
    verb = "are proved" if any(one.method for one in outcomes) else "are whole"
    told = [replace(one, note="") if one.status.proved else one for one in outcomes]
    return slices_note(told, good, verb)


def _join(methods: Sequence[str]) -> str | None:
    """Name the first few methods."""
    more = [f"{len(methods) - 3} more"] if len(methods) > 3 else []
    return ", ".join([*methods[:3], *more]) or None
