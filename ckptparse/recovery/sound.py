"""Tensors of a damaged checkpoint that are rows of columns: they are mended when asked for.

They are those of which nothing is wrong, those that lie elsewhere in their file, and those of which
no repair is tried.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ckptparse.examination.case import CheckedTensor
from ckptparse.examination.outcome import PatchedRange
from ckptparse.examination.payload import Payload
from ckptparse.examination.places import Place
from ckptparse.examination.plain_rows import PlainRows
from ckptparse.examination.report import TensorReport
from ckptparse.files.context import Context
from ckptparse.problems import Status
from ckptparse.recovery.loading import MendedPart, MendedTensor, describe_tensor
from ckptparse.recovery.matches import taken_from
from ckptparse.recovery.mend import as_verified, untried
from ckptparse.recovery.mended import Mended, judged
from ckptparse.recovery.opened import OpenedFiles
from ckptparse.recovery.result import RecoveredTensor

__all__ = ["RowMended", "RowRecovered", "explained"]


def explained(found: Mended, payload: Payload, replaced: tuple[PatchedRange, ...]) -> Mended:
    """Add what says where a payload lies, and the bytes that were replaced for it."""
    patches = payload.patches + replaced
    outcome = found.outcome
    if patches == outcome.patches and not payload.grounds:
        return found
    grounds = payload.grounds + outcome.grounds
    return Mended(outcome.placed(outcome.source, grounds, patches), found.recipe)


@dataclass(frozen=True, slots=True)
class RowMended:
    """Makes mended tensors of rows.

    Attributes:
        rows: The rows.
        check: Makes what checking one of them found.
        index: The name of the index, without its directory.
        places: Where rows lie that were found elsewhere.
    """

    rows: PlainRows
    check: Callable[[str, int], CheckedTensor]
    index: str
    places: Mapping[int, Place] = field(default_factory=dict)

    def __call__(self, name: str, row: int) -> MendedTensor:
        """Make one."""
        checked = self.check(name, row)
        (part,) = checked.parts
        payload = part.payload or self.rows.payload(row)
        place = self.places.get(row)
        if place is not None:
            found = judged(taken_from(place, payload), payload, part.check)
        elif part.check.status is Status.VERIFIED:
            found = as_verified(payload, part.check, self.index)
        else:
            found = untried(payload, part.check)
        mended = explained(found, payload, ())
        known = checked.report(mended.outcome)
        return MendedTensor(checked, (MendedPart(part, mended),), known)

    def report(self, name: str, row: int) -> TensorReport:
        """Make the report of a row."""
        return self(name, row).report


@dataclass(frozen=True, slots=True)
class RowRecovered:
    """Makes what the caller gets of rows."""

    mended: Mapping[str, MendedTensor]
    context: Context
    opened: OpenedFiles

    def __call__(self, name: str, _: int) -> RecoveredTensor:
        """Make one."""
        found = describe_tensor(self.mended[name], self.context, self.opened)
        if found is None:
            raise KeyError(name)
        return found
