"""Find other checkpoints of the directory to use instead, sorted by how much is verified."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import replace

import numpy as np

from ckptparse.errors import CheckpointNotFoundError, NotACheckpointError, PermissionDeniedError
from ckptparse.examination.case import Case
from ckptparse.examination.checking import check_all, open_case
from ckptparse.examination.readers import DataFiles
from ckptparse.examination.report import OtherCheckpoint
from ckptparse.examination.survey import survey_path
from ckptparse.filenames import INDEX_SUFFIX, find_step, split_data_path
from ckptparse.files.context import Context
from ckptparse.inventory.folders import Folders
from ckptparse.inventory.parts import list_others
from ckptparse.inventory.survey import Survey
from ckptparse.problems import Status

__all__ = ["find_others", "is_anothers", "nearest"]

_MOST_OTHERS = 16
"""Other checkpoints that are verified. `Saver` keeps 5 by default, so most directories hold fewer;
of the others the nearest steps are taken, since each is read from end to end."""
_MOST_NAMES = 1 << 16
"""Names of the directory that are looked through for all of them together: for each one all."""


def nearest(survey: Survey, context: Context, count: int = _MOST_OTHERS) -> list[str]:
    """Return the other prefixes of the directory, those of the nearest steps first."""
    return list_others(survey, Folders(context))[:count]


def is_anothers(path: str, prefix: str, context: Context) -> bool:
    """Tell whether a data file belongs to another checkpoint than `prefix`: its index is there."""
    split = split_data_path(path)
    if split is None or split[0] == prefix:
        return False
    found = context.storage.stat(split[0] + INDEX_SUFFIX)
    return found is not None and found.kind == "file"


def find_others(
    survey: Survey,
    context: Context,
    seen: Folders | None = None,
    *,
    read: Callable[[str], Case | None] = lambda _: None,
) -> tuple[OtherCheckpoint, ...]:
    """Verify the other checkpoints of the directory; sort by verified share, then by step.

    Args:
        survey: The checkpoint beside which they are.
        context: Where it lies.
        seen: The directories as they were listed, if they were.
        read: Gives those whose indexes were read already, by prefix; they are changed here.
    """
    if survey.saved_model is not None:
        return ()
    # Progress counts the bytes of the named checkpoint only.
    aside = replace(context, progress=None)
    folders = Folders(aside) if seen is None else seen.beside(aside)
    found = list_others(survey, folders)
    most = min(_MOST_OTHERS, max(1, _MOST_NAMES // max(1, len(folders.list(survey.directory)))))
    others = list(_iter_others(found[:most], folders, read))
    return tuple(sorted(others, key=lambda other: (-other.share, -(other.step or 0), other.path)))


def _iter_others(
    prefixes: Iterable[str], folders: Folders, read: Callable[[str], Case | None]
) -> Iterator[OtherCheckpoint]:
    """Iterate over the checkpoints that may be read."""
    for prefix in prefixes:
        # A name that means several sets of V1 files means no checkpoint that could be weighed.
        with suppress(PermissionDeniedError, NotACheckpointError, CheckpointNotFoundError):
            yield _weigh(prefix, folders, read(prefix))


def _weigh(prefix: str, folders: Folders, known: Case | None) -> OtherCheckpoint:
    """Say how much of a checkpoint is whole.

    Args:
        prefix: Its prefix.
        folders: Where to look.
        known: What its indexes list, if they were read; of V1 files what is whole is read, too.
    """
    context = folders.context
    if known is None or not known.survey.has_index:
        case = open_case(survey_path(prefix, context, folders), context)
    else:
        files = DataFiles(context)
        files.hold(known.survey.paths)
        case = Case(known.survey, known.views, files, known.absent)
    with closing(case.files):
        check_all(case)
        share = _share(case)
    complete = case.main is not None and case.main.complete
    return OtherCheckpoint(prefix, find_step(prefix), share, complete and share == 1.0)


def _share(case: Case) -> float:
    """Return the share of the bytes that the index names which is verified."""
    total = whole = 0
    if case.sound is not None:
        sizes = case.sound.plain.columns.sizes[case.sound.numbers]
        total = whole = int(np.maximum(sizes, 1).sum())
    if case.failed is not None:
        sizes = np.maximum(case.failed.sizes, 1)
        total += sum(sizes.tolist())
        whole += sum(sizes[case.failed.good].tolist())
    for checked in case.tensors.held.values():
        for part in checked.parts:
            size = max(1, part.payload.size) if part.payload else 1
            total += size
            whole += size if part.check.status is Status.VERIFIED else 0
    return whole / total if total else 0.0
