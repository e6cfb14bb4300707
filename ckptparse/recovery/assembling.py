"""Put a recovery together: its report and its tensors, of those that were mended."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace

import numpy as np

from ckptparse.backend import OBJECT_GRAPH_KEY
from ckptparse.elements import distinct
from ckptparse.examination.case import Case
from ckptparse.examination.outcome import ByteRange, PatchedRange, Span
from ckptparse.examination.places import IntColumn, Mask
from ckptparse.examination.report import ExaminedTensors, FileReport, Report, TensorReport
from ckptparse.examination.row_mapping import RowMapping
from ckptparse.files.context import Context
from ckptparse.problems import Status
from ckptparse.recovery.loading import MendedTensor, describe_tensor, has_dtype
from ckptparse.recovery.opened import OpenedFiles
from ckptparse.recovery.result import HELD, RecoveredTensor, Recovery
from ckptparse.recovery.sound import RowMended, RowRecovered

__all__ = ["make_recovery"]


def make_recovery(
    report: Report,
    mended: RowMapping[MendedTensor],
    rivals: dict[str, list[MendedTensor]],
    case: Case,
    context: Context,
) -> Recovery:
    """Make what `recover` gives.

    Args:
        report: What is known of the checkpoint before anything was mended.
        mended: Its tensors, mended.
        rivals: Those of which the parts of one save say different things, by name.
        case: The checkpoint.
        context: Where its files lie when values are read.
    """
    opened = OpenedFiles()
    known = mended.get(OBJECT_GRAPH_KEY)
    report = replace(
        report,
        tensors=_reports_of(report, mended, case),
        object_graph=known.report if known is not None else report.object_graph,
    )
    report = replace(report, files=_patched_files(report, mended, case))

    def describe(_: str, one: MendedTensor) -> RecoveredTensor | None:
        found = describe_tensor(one, context, opened)
        return found if found is not None and found.status in HELD else None

    left_out = _without_type(case) | _not_got_back(mended, case)
    order = [name for name in report.tensors if name not in left_out]
    held = mended.remade(RowRecovered(mended, context, opened), describe, order)
    alternatives = {
        name: tuple(filter(None, (describe_tensor(one, context, opened) for one in these)))
        for name, these in rivals.items()
    }
    graph = None if known is None else describe_tensor(known, context, opened)
    return Recovery(report, held, graph, alternatives, opened=opened, limits=context.limits)


def _without_type(case: Case) -> set[str]:
    """Return the names of rows whose elements no array can hold here."""
    if case.sound is None:
        return set()
    rows = case.sound.numbers
    kinds = case.sound.plain.columns.data_types[rows]
    found = {case.sound.name_of(row) for row in rows[_are_without_type(kinds)].tolist()}
    if case.failed is not None:
        numbers = np.flatnonzero(_are_without_type(case.failed.data_types)).tolist()
        found.update(case.failed.names[number] for number in numbers)
    return found


def _are_without_type(kinds: IntColumn) -> Mask:
    odd = [kind for kind in distinct(kinds) if not has_dtype(kind)]
    # Of no kinds, numpy would import `numpy.ma` to tell.
    return np.isin(kinds, odd) if odd else np.zeros(len(kinds), np.bool_)


def _not_got_back(mended: RowMapping[MendedTensor], case: Case) -> set[str]:
    """Return the names of rows of which no repair was tried."""
    failed = case.failed
    if failed is None:
        return set()
    placed = mended.make.places if isinstance(mended.make, RowMended) else {}
    lost = ~failed.good & ~np.isin(failed.rows, list(placed))
    names = (failed.names[number] for number in np.flatnonzero(lost).tolist())
    return {name for name in names if name not in mended.held}


def _reports_of(
    report: Report, mended: RowMapping[MendedTensor], case: Case
) -> Mapping[str, TensorReport]:
    """Return the reports of mended tensors, in the order of those before."""
    make = mended.make
    if not isinstance(make, RowMended) or case.sound is None:
        return {name: mended[name].report for name in report.tensors}
    tensors = mended.remade(make.report, lambda _, one: one.report, report.tensors)
    whole, statuses, lost = case.sound.numbers, Counter[Status](), set[str]()
    if case.failed is not None:
        tried = np.array([name in mended.held for name in case.failed.names], np.bool_)
        placed = np.isin(case.failed.rows, list(make.places))
        statuses[Status.CORRECTED] += int(np.count_nonzero(placed))
        left = case.failed.take(~tried & ~placed)
        whole = np.concatenate((whole, left.rows[left.good]))
        lost = {left.names[number] for number in np.flatnonzero(~left.good).tolist()}
        for status, number in left.statuses().items():
            # Of what is there in part nothing is offered untried.
            statuses[Status.CORRUPT if status is Status.PARTIAL else status] += number
        del statuses[Status.VERIFIED]
    changed = set(whole[make.rows.chances(whole) > 0].tolist())
    statuses += Counter(
        {Status.CORRECTED: len(changed), Status.VERIFIED: len(whole) - len(changed)}
    )
    changed |= make.places.keys()
    rows = tensors.rows()
    corrected = {name for name, row in rows.items() if row in changed} if changed else ()
    patched: Collection[str] = ()
    if any(block.patches for block in make.rows.blocks):
        # All rows of a block have the same patches.
        names = list(rows)
        numbers = np.fromiter(rows.values(), np.int64, len(rows))
        patched = {names[place] for place in make.rows.patched_rows(numbers).tolist()}
    return ExaminedTensors(tensors, statuses, lost, corrected, patched)


def _iter_patched(
    mended: RowMapping[MendedTensor], case: Case
) -> Iterator[PatchedRange | ByteRange]:
    """Iterate over the bytes that were replaced, of indexes and of data files."""
    for rows in (case.sound, case.failed):
        yield from rows.patches if rows is not None else ()
    for part in (part for one in mended.held.values() for part in one.parts):
        yield from () if part.part.payload is None else part.part.payload.patches
        recipe = part.mended.recipe
        if recipe is not None and recipe.file is not None:
            path, inside = recipe.file.path, recipe.file.inside
            for patch in recipe.patches:
                yield ByteRange(path, recipe.offset + patch.offset, len(patch.data), inside)


def _patched_files(
    report: Report, mended: RowMapping[MendedTensor], case: Case
) -> dict[str, FileReport]:
    """Return the maps of the files, with the bytes that were replaced.

    Of a file that was converted these are not at their offsets, so its map has none.
    """
    spans: dict[str, list[Span]] = defaultdict(list)
    for where in _iter_patched(mended, case):
        if where.inside is None:
            spans[where.path].append((where.offset, where.offset + where.size))
    return {
        path: file.patched(spans[path]) if path in spans else file
        for path, file in report.files.items()
    }
