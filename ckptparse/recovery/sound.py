"""Tensors of a damaged checkpoint of which nothing is wrong: they are mended when asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ckptparse.examination.case import SoundTensors
from ckptparse.examination.outcome import PatchedRange
from ckptparse.examination.payload import Payload
from ckptparse.examination.plain_rows import PlainRows
from ckptparse.examination.report import TensorReport
from ckptparse.files.context import Context
from ckptparse.recovery.loading import MendedPart, MendedTensor, describe_tensor
from ckptparse.recovery.mend import as_verified
from ckptparse.recovery.mended import Mended
from ckptparse.recovery.opened import OpenedFiles
from ckptparse.recovery.result import RecoveredTensor

__all__ = ["SoundMended", "SoundRecovered", "explained"]


def explained(found: Mended, payload: Payload, replaced: tuple[PatchedRange, ...]) -> Mended:
    """Add what says where a payload lies, and the bytes that were replaced for it."""
    patches = payload.patches + replaced
    grounds = payload.grounds + found.outcome.grounds
    if patches == found.outcome.patches and not payload.grounds:
        return found
    return replace(found, outcome=replace(found.outcome, patches=patches, grounds=grounds))


@dataclass(frozen=True, slots=True)
class SoundMended:
    """Makes mended tensors of rows that are sound.

    Attributes:
        rows: The rows.
        index: The name of the index, without its directory.
    """

    rows: PlainRows
    index: str

    def __call__(self, name: str, row: int) -> MendedTensor:
        """Make one."""
        checked = SoundTensors(self.rows)(name, row)
        (part,) = checked.parts
        payload = self.rows.payload(row)
        mended = explained(as_verified(payload, part.check, self.index), payload, ())
        known = replace(checked.report(), outcome=mended.outcome)
        return MendedTensor(checked, (MendedPart(part, mended),), known)

    def report(self, name: str, row: int) -> TensorReport:
        """Make the report of a row."""
        return self(name, row).report


@dataclass(frozen=True, slots=True)
class SoundRecovered:
    """Makes what the caller gets of rows that are sound."""

    mended: Mapping[str, MendedTensor]
    context: Context
    opened: OpenedFiles

    def __call__(self, name: str, _: int) -> RecoveredTensor:
        """Make one."""
        found = describe_tensor(self.mended[name], self.context, self.opened)
        if found is None:
            raise KeyError(name)
        return found
