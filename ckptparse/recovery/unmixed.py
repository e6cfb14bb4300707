"""Take back that a data file is of another save, where something else explains it.

What `diagnose` looks at shows only that whole weights fail. So do weights whose stripes or tensors
lie in another order, and those of another data file under this one's name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ckptparse.examination.case import Case
from ckptparse.examination.places import Place
from ckptparse.examination.readers import DataFile
from ckptparse.problems import Cause, EvidenceRule, Problem

__all__ = ["explain_mixed"]

_IN_ORDER = frozenset({EvidenceRule.REORDERED, EvidenceRule.GATHERED})


def explain_mixed(
    case: Case, problems: Sequence[Problem], places: Mapping[DataFile, Sequence[Place]]
) -> list[Problem]:
    """Give tensors another cause than a mixed save if their file is known to hold something else.

    Args:
        case: The checkpoint; its tensors that fail get the cause.
        problems: What is wrong with the files.
        places: Where bytes of data files are instead.

    Returns:
        The problems that are left.
    """
    causes = _find_causes(places)
    for part in case.iter_held():
        path = None if part.payload is None else part.payload.file.path
        if part.check.cause is Cause.MIXED and path in causes:
            part.check = part.check.because(causes[path])
    failed = case.failed
    for path in set(causes).intersection(failed.paths if failed is not None else ()):
        if failed is not None:
            mine = failed.of_path(path)
            failed.blame(mine[failed.has_cause(Cause.MIXED)[mine]], causes[path])
    return [one for one in problems if one.code != "set.mixed" or one.where not in causes]


def _find_causes(places: Mapping[DataFile, Sequence[Place]]) -> dict[str, Cause]:
    """Return the files of which it is known what they hold, and what that is."""
    causes: dict[str, Cause] = {}
    for file, known in places.items():
        for place in known:
            if place.file.path == file.path and place.rule in _IN_ORDER:
                causes[file.path] = Cause.SHIFTED
            elif place.file.path != file.path and place.cause is Cause.SWAPPED:
                causes.setdefault(place.file.path, Cause.SWAPPED)
    return causes
