"""Check everything that the indexes of a checkpoint say against its data files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import compress

import numpy as np
import numpy.typing as npt

from ckptparse.backend import OBJECT_GRAPH_KEY
from ckptparse.errors import LimitError
from ckptparse.examination.case import ATTEMPT_BYTES, Case, Part, RowTensors, SoundTensors
from ckptparse.examination.check import check_payload
from ckptparse.examination.failed_rows import FailedRows, examine_rows
from ckptparse.examination.index_reading import read_view
from ckptparse.examination.index_view import IndexView, report_left
from ckptparse.examination.leftovers import take_leftovers
from ckptparse.examination.payload import ListedTensor, Payload
from ckptparse.examination.plain_rows import PlainRows
from ckptparse.examination.readers import DataFiles
from ckptparse.examination.record_rows import RecordRows, find_sound_records
from ckptparse.examination.row_mapping import RowMapping
from ckptparse.examination.salvaged import ENTRY_BYTES, FAILED_BYTES, ROW_BYTES
from ckptparse.examination.sound_rows import SoundRows, find_sound
from ckptparse.examination.tensor_checks import check_tensors
from ckptparse.filenames import INDEX_SUFFIX
from ckptparse.files.context import Context
from ckptparse.inventory.survey import Origin, Survey

__all__ = ["check_all", "open_case"]

IntColumn = npt.NDArray[np.int64]

_INDEX_SHIFT = 16
"""Beyond `Limits.shards` one index is looked at for each 64 KiB: each takes half a millisecond."""


def open_case(
    survey: Survey, context: Context, *, files: DataFiles | None = None, correct: bool = False
) -> Case:
    """Read what lists the tensors of a checkpoint: its indexes, or its V1 files.

    Args:
        survey: Its files.
        context: Where they lie, and how much they may ask for.
        files: What opens them, if they are open already.
        correct: Whether to correct a block of an index if one flipped bit explains its checksum.
    """
    files = DataFiles(context) if files is None else files
    files.hold(survey.paths)
    if not survey.has_index:
        from ckptparse.examination.legacy_view import read_legacy_view

        files.begin(2 * files.held_bytes)
        return Case(survey, [read_legacy_view(survey, files, correct=correct)], files)
    limits = context.limits
    # One is looked at whatever is allowed: the checkpoint's own is the first.
    most = max(1, limits.shards)
    if len(survey.indexes) > most:
        most += files.held_bytes >> _INDEX_SHIFT
    views = [read_view(index, survey, files, correct=correct) for index in survey.indexes[:most]]
    if left := len(survey.indexes) - len(views):
        message = (
            f"{left:,} more indexes that saves left behind were not looked at: Limits.shards "
            f"allows {limits.shards:,}, and one for each 64 KiB of the files"
        )
        views[0].report("limit.reached", survey.prefix, message)
    there = any(index.origin is Origin.FINAL for index in survey.indexes)
    return Case(survey, views, files, None if there else survey.prefix + INDEX_SUFFIX)


def check_all(case: Case) -> None:
    """Check every tensor. What the index does not prove is looked for in leftovers."""
    main = case.main
    if main is not None:
        _check_main(case, main)
        case.orphans = [
            (name, piece, Part(payload, check_payload(case.files, payload)))
            for name, piece, payload in main.orphans
        ]
    whole = main is not None and main.complete and _is_whole(case)
    if not whole:
        take_leftovers(case, main)


def _is_whole(case: Case) -> bool:
    if case.failed is not None and not case.failed.good.all():
        return False
    return all(one.rank == 0 for one in case.tensors.held.values())


def _check_main(case: Case, main: IndexView) -> None:
    """Check the tensors of the index: its rows all together, and one by one what is not sound."""
    listed = main.tensors
    if main.rows is None or not isinstance(listed, RowMapping):
        case.tensors = RowMapping.of(
            {one.name: one for one in check_tensors(listed.values(), case)}
        )
        return
    if OBJECT_GRAPH_KEY in listed:
        # It is no tensor: it is checked by itself, also if it is none that can be read.
        listed[OBJECT_GRAPH_KEY] = listed[OBJECT_GRAPH_KEY]
    rows = listed.rows()
    if isinstance(main.rows, RecordRows):
        _check_records(case, main, main.rows, listed)
        return
    others = [payload for one in listed.held.values() for payload in _payloads_of(one)]
    orphans = [payload for _, _, payload in main.orphans]
    numbers = np.fromiter(rows.values(), np.int64, len(rows))
    sizes = sum(main.rows.columns.sizes[numbers].tolist())
    case.files.begin(sizes + sum(one.size for one in others))
    sound = np.isin(numbers, find_sound(case.files, main.rows, numbers, others, orphans))
    names = rows if sound.all() else dict(compress(rows.items(), sound.tolist()))
    case.sound = SoundRows(main.rows, names)
    looked = _leave_many(case, main, ~sound)
    if len(looked) < len(sound) - len(names):
        listed.keep(np.concatenate((numbers[sound], numbers[looked])))
    chosen = np.zeros(len(sound), np.bool_)
    chosen[looked] = True
    doubtful = dict(compress(rows.items(), chosen.tolist()))
    failed = _find_failed(case, main.rows, doubtful)
    known = 0 if failed is None else len(failed)
    try:
        count = len(doubtful) - known
        case.files.budget.take((ENTRY_BYTES - ROW_BYTES) * count + FAILED_BYTES * known)
    except LimitError as error:
        main.report("limit.reached", main.path, error.message)
        case.tensors, case.sound = RowMapping.of({}), None
        main.tensors, main.rows, main.complete = {}, None, False
        main.orphans.clear()
        case.files.finish()
        return
    case.failed = failed
    _check_others(case, case.sound, listed)


def _leave_many(case: Case, main: IndexView, doubtful: npt.NDArray[np.bool_]) -> IntColumn:
    """Return the places of what is not sound, but for those beyond `Limits.small_tensors`."""
    limits = case.context.limits
    places = np.flatnonzero(doubtful)
    # One of them takes up to 20 µs.
    most = limits.most_small(case.files.held_bytes)
    if len(places) <= most:
        return places
    case.left_out = len(places) - most
    what = (
        f"{case.left_out:,} more tensors are damaged, or share bytes, and were not looked at: "
        f"Limits.small_tensors allows {limits.small_tensors:,}, and one for each 512 bytes of the "
        "files"
    )
    main.report("limit.reached", main.path, what)
    main.complete = False
    return places[:most]


def _check_records(
    case: Case, main: IndexView, plain: RecordRows, listed: RowMapping[ListedTensor]
) -> None:
    """Check the tensors of V1 files; those after many that do not decode are left out."""
    rows = listed.rows()
    numbers = np.fromiter(rows.values(), np.int64, len(rows))
    most = case.files.singles.most
    found, refused = find_sound_records(plain, numbers, case.context.limits, most=most)
    sound = set(found.tolist())
    case.sound = SoundRows(plain, {name: row for name, row in rows.items() if row in sound})
    looked = np.concatenate((found, refused))
    if left := len(rows) - len(looked):
        listed.keep(looked)
        report_left(main, left, case.context.limits)
    _check_others(case, case.sound, listed)


def _check_others(case: Case, sound: SoundRows, listed: RowMapping[ListedTensor]) -> None:
    """Check one by one what is neither sound nor known to have failed."""
    failed = case.failed
    known = sound.numbers if failed is None else np.concatenate((sound.numbers, failed.rows))
    doubtful = [listed[name] for name in listed.names_without(known)]
    held = {one.name: one for one in check_tensors(doubtful, case)}
    make = SoundTensors(sound.plain) if failed is None else RowTensors(sound.plain, failed)
    case.tensors = listed.with_held(make, held)


def _find_failed(case: Case, plain: PlainRows, rows: Mapping[str, int]) -> FailedRows | None:
    """Check rows that are not sound. Of many of them, return those that can stay columns.

    These are rows that are whole and overlap others, and those that fail after as many as repairs
    will be tried for.
    """
    held = case.files.held_bytes + case.files.evidence_bytes
    most = case.context.limits.attempts + held // ATTEMPT_BYTES
    if len(rows) <= most:
        return None
    order = sorted(rows, key=rows.__getitem__)
    numbers = np.fromiter((rows[name] for name in order), np.int64, len(order))
    found = examine_rows(case.files, plain, numbers, order)
    kept = found.good | (np.cumsum(~found.good) > most)
    return found.take(kept)


def _payloads_of(tensor: ListedTensor) -> Iterator[Payload]:
    for payload in (tensor.payload, *(payload for _, payload in tensor.slices)):
        if payload is not None:
            yield payload
