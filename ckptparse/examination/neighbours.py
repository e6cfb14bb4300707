"""The other checkpoints of a directory: which to use instead, by what of them is verified."""

from __future__ import annotations

import os
from contextlib import closing

from ckptparse.bundle.naming import INDEX_SUFFIX, split_data_path
from ckptparse.examination.case import Case, assess, open_case
from ckptparse.examination.report import Other
from ckptparse.examination.survey import find_step, list_legacy, list_prefixes, survey_path
from ckptparse.inventory.survey import Survey
from ckptparse.limits import Limits
from ckptparse.problems import Status

__all__ = ["find_others", "is_anothers", "nearest"]

_MOST_OTHERS = 16


def nearest(survey: Survey, count: int = _MOST_OTHERS) -> list[str]:
    """Return the prefixes beside a checkpoint, those of the nearest steps first."""
    own = os.path.normpath(survey.prefix)
    step = find_step(survey.prefix)
    found = list_legacy if survey.format == "v1" else list_prefixes
    others = [one for one in found(survey.directory) if os.path.normpath(one) != own]
    if step is not None:
        others.sort(key=lambda one: abs((find_step(one) or 0) - step))
    return others[:count]


def is_anothers(path: str, prefix: str) -> bool:
    """Tell whether a data file has an index of its own beside it, not that of `prefix`."""
    split = split_data_path(path)
    if split is None or os.path.normpath(split[0]) == os.path.normpath(prefix):
        return False
    return os.path.isfile(split[0] + INDEX_SUFFIX)


def find_others(survey: Survey, *, limits: Limits) -> tuple[Other, ...]:
    """Verify the other checkpoints of the directory; the best first, by share and then by step."""
    if survey.saved_model:
        return ()
    weigh = _weigh_legacy if survey.format == "v1" else _weigh
    others = [weigh(prefix, limits) for prefix in nearest(survey)]
    return tuple(sorted(others, key=lambda other: (-other.share, -(other.step or 0), other.path)))


def _weigh(prefix: str, limits: Limits) -> Other:
    case = open_case(survey_path(prefix, limits=limits), limits=limits)
    with closing(case.files):
        assess(case)
        share = _share(case)
    complete = case.main is not None and case.main.complete
    return Other(prefix, find_step(prefix), share, complete and share == 1.0)


def _weigh_legacy(path: str, limits: Limits) -> Other:
    from ckptparse.recovery.legacy import verify_legacy

    report = verify_legacy(survey_path(path, limits=limits), limits=limits)
    whole = report.counts.get(Status.VERIFIED.value, 0)
    share = whole / len(report.tensors) if report.tensors else 0.0
    return Other(path, find_step(path), share, report.ok)


def _share(case: Case) -> float:
    """Return how much of the bytes that the index knows of is verified."""
    sizes = {Status.VERIFIED: 0, Status.MISSING: 0}
    for assessed in case.tensors.values():
        for part in assessed.parts:
            size = part.stored.entry.size if part.stored else 1
            whole = part.check.status is Status.VERIFIED
            sizes[Status.VERIFIED if whole else Status.MISSING] += max(1, size)
    total = sum(sizes.values())
    return sizes[Status.VERIFIED] / total if total else 0.0
