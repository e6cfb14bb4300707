"""Verifying as callers ask for it: what is damaged, and what `recover` would make of that."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

from ckptparse.backend import OBJECT_GRAPH_KEY
from ckptparse.errors import CheckpointError
from ckptparse.examination.checking import open_case
from ckptparse.examination.converted import choose
from ckptparse.examination.report import Outlook, Report, count_statuses, doubtful_names
from ckptparse.examination.tensor_checks import check_tensors
from ckptparse.examination.verify import verify_path
from ckptparse.files.context import Cache, Context, Place, Progress, Store, begin
from ckptparse.inventory.folders import Folders
from ckptparse.inventory.parts import survey_candidate
from ckptparse.limits import DEFAULT_LIMITS, Limits
from ckptparse.problems import Status

if TYPE_CHECKING:
    from concurrent.futures import Executor

__all__ = ["verify"]

_TRIED_BYTES = 16 << 20
"""Repairs are tried if the checkpoint has at most so many bytes: this takes a second or two. For a
larger one `verify` would take several times as long as reading it."""
_TRIED_TENSORS = 256
"""Repairs are tried if at most so many tensors are damaged: each takes a millisecond or two."""


def verify(
    path: Place,
    *,
    hashes: bool = False,
    progress: Progress | None = None,
    executor: Executor | None = None,
    store: Store = None,
    cache: Cache = None,
    limits: Limits = DEFAULT_LIMITS,
) -> Report:
    """Check a checkpoint: index, data files, every tensor, and what is beside them.

    It does not stop at the first damage, and writes nothing. Data is read in pieces of 1 MiB. If
    something is damaged, the repairs of `recover` are tried, so that `report.next_step` says what
    they give: all of them if the files have at most 16 MiB together and at most 256 tensors are
    damaged, else those of the index.

    Args:
        path: Whatever `ckptparse.open` takes; the checkpoint may be damaged or half written.
        hashes: Whether the report has the SHA-256 of every file that was read: each is read again.
        progress: Called from time to time with the bytes read so far and the bytes to read.
        executor: Who computes the checksums of a checkpoint whose index is whole: threads,
            processes, `dask.distributed`'s `Client.get_executor()`, loky. The report is the same.
            None: this thread; for files in a bucket, 16 threads that wait for answers.
        store: As for `ckptparse.open`.
        cache: As for `open`.
        limits: Bounds on what its files may ask for.

    Returns:
        The report: `report.ok` tells whether anything that a reader could use is damaged.

    Raises:
        CheckpointNotFoundError: No file of a checkpoint is there.
        NotACheckpointError: The file there was never part of one; `.identity` says what it is.
        StorageError: The network or a worker failed, which says nothing of the checkpoint.
    """
    found = begin(path, store=store, cache=cache, limits=limits, progress=progress, lenient=True)
    report = verify_path(*found, hashes=hashes, executor=executor)
    codes = {one.code for one in report.problems}
    # What is at a limit is there again, and takes as long.
    if report.ok or "limit.reached" in codes:
        return report
    size = sum(file.size or 0 for file in report.files.values())
    counts = count_statuses(report.tensors)
    damaged = sum(number for status, number in counts.items() if not status.proved)
    if size <= _TRIED_BYTES and damaged <= _TRIED_TENSORS:
        return replace(report, outlook=_look_ahead(path, store, cache, limits))
    place, context = begin(path, store=store, cache=cache, limits=limits, lenient=True)
    return replace(report, outlook=_look_at_index(place, context, report, codes))


def _look_ahead(path: Place, store: Store, cache: Cache, limits: Limits) -> Outlook | None:
    """Return what `recover` gives; None if it raises an error."""
    from ckptparse.recovery.recover import recover

    try:
        return Outlook.of(recover(path, store=store, cache=cache, limits=limits).report)
    except CheckpointError:
        return None


def _look_at_index(path: str, context: Context, report: Report, codes: set[str]) -> Outlook | None:
    """Return what `recover` gives at the least, by the repairs of the index alone.

    These take as long as the index is large. Of the data only those tensors are read that the
    index names after its repair, and that are not verified yet. None if it needs none, or if
    nothing comes of it.
    """
    broken = any(code.startswith(("index.", "v1.")) for code in codes)
    folders = Folders(context)
    choice = choose(path, folders)
    if not broken or choice.candidate.format == "graph":
        return None
    case = open_case(survey_candidate(choice.candidate, folders), context, correct=True)
    with closing(case.files):
        if case.main is None:
            return None
        listed = [name for name in case.main.tensors if name != OBJECT_GRAPH_KEY]
        doubtful = doubtful_names(report.tensors)
        fresh = [
            case.main.tensors[name]
            for name in listed
            if name in doubtful or name not in report.tensors
        ]
        statuses = [one.outcome().status for one in check_tensors(fresh, case)]
    proved = len(listed) - len(fresh) + statuses.count(Status.VERIFIED)
    complete = case.main.complete
    if proved < Outlook.of(report).proved:
        return None
    return Outlook(
        total=len(listed),
        proved=proved,
        in_part=statuses.count(Status.PARTIAL) + statuses.count(Status.UNVERIFIED),
        complete=complete,
        unnamed_bytes=0 if complete else report.unnamed_bytes,
        exact=complete and proved == len(listed),
    )
