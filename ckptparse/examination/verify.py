"""Check every byte of a checkpoint that can be checked; damage is a value, not an exception."""

from __future__ import annotations

import os
from contextlib import closing
from dataclasses import replace

from ckptparse.examination.case import assess, open_case
from ckptparse.examination.diagnose import diagnose
from ckptparse.examination.neighbours import find_others
from ckptparse.examination.readers import Progress
from ckptparse.examination.report import Report
from ckptparse.examination.summary import make_report
from ckptparse.examination.survey import survey_path
from ckptparse.inventory.survey import Survey
from ckptparse.limits import DEFAULT_LIMITS, Limits

__all__ = ["verify"]


def verify(
    path: str | os.PathLike[str],
    *,
    progress: Progress | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> Report:
    """Check a checkpoint: index, data files, every tensor, and what lies beside.

    Nothing stops at the first damage, and nothing is written. Data is read in pieces of 1 MiB.

    Args:
        path: Whatever `ckptparse.open` takes; the checkpoint may be damaged or half written.
        progress: Called now and then with the bytes read so far, and the bytes to read.
        limits: Bounds on what its files may ask for.

    Returns:
        The report: `report.ok` tells whether anything that a reader could use is damaged.

    Raises:
        CheckpointNotFoundError: Nothing of a checkpoint is there.
        NotACheckpointError: What is there was never part of one; `.identity` says what it is.
    """
    survey = survey_path(path, limits=limits)
    report = verify_survey(survey, progress=progress, limits=limits)
    if report.ok:
        return report
    return replace(report, others=find_others(survey, limits=limits))


def verify_survey(survey: Survey, *, limits: Limits, progress: Progress | None = None) -> Report:
    """Check the checkpoint whose files are known."""
    if survey.format == "v1":
        from ckptparse.recovery.legacy import verify_legacy

        return verify_legacy(survey, limits=limits)
    case = open_case(survey, limits=limits, progress=progress)
    with closing(case.files):
        assess(case)
        _, problems = diagnose(case, deep=False)
        return make_report(case, problems)
