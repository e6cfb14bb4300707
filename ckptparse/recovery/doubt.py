"""Find data files whose index may be of another save: then its checksums promise no value.

`diagnose` calls a file mixed if most of it fails. Here one tensor is enough: its bytes are whole,
look like weights from end to end, and fail for no known reason. A value that the checksum alone
determines would be that of the other save.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ckptparse.dtypes import item_size
from ckptparse.examination.case import Case, Part
from ckptparse.examination.check import fits
from ckptparse.examination.payload import Payload
from ckptparse.examination.places import Place, is_telling
from ckptparse.examination.plausibility import has_magnitudes, is_plausible
from ckptparse.examination.readers import DataFile, DataFiles
from ckptparse.problems import Cause, Status
from ckptparse.recovery.statistics import judge_elements

__all__ = ["find_doubted"]

_FEW = 4
"""Tensors of other files that are looked for in a file that may be a copy of theirs."""
_JUDGED = 1 << 20
"""Bytes of a tensor whose statistics are looked at."""
_MOST_LOOKED_AT = 64
"""Tensors of one file that are looked at: each costs a page."""
_EXPLAINED = frozenset({Cause.ZEROS, Cause.BITS, Cause.TRUNCATED})
"""Causes that say why a checksum disagrees."""


def find_doubted(case: Case, places: Mapping[DataFile, Sequence[Place]]) -> frozenset[DataFile]:
    """Return the data files that hold whole tensors which the index may not be about."""
    votes: dict[DataFile, _Votes] = defaultdict(_Votes)
    for _, part in case.parts():
        payload = part.payload
        if payload is None or not _is_open(part) or not is_telling(payload):
            continue
        mine = votes[payload.file]
        if mine.looked_at < _MOST_LOOKED_AT:
            mine.count(payload, whole=_looks_whole(part, payload, places, case.files))
    return frozenset(
        file for file, mine in votes.items() if mine.doubt and not _is_copy(case, file)
    )


def _own(places: Mapping[DataFile, Sequence[Place]], file: DataFile) -> list[Place]:
    """Return the places that bytes of a file have in that file."""
    return [place for place in places.get(file, ()) if place.file.path == file.path]


def _is_copy(case: Case, file: DataFile) -> bool:
    """Tell whether a file was written over with another data file of the same save."""
    others = [
        part.payload
        for _, part in case.parts()
        if part.payload is not None
        and part.payload.file != file
        and part.check.status is Status.VERIFIED
        and is_telling(part.payload)
    ]
    return any(fits(case.files, one.moved(file)) for one in others[:_FEW])


@dataclass(slots=True)
class _Votes:
    """What the failing tensors of a file look like."""

    looked_at: int = 0
    floats: int = 0
    whole_floats: int = 0
    others: int = 0

    def count(self, payload: Payload, *, whole: bool) -> None:
        """Count a tensor."""
        self.looked_at += 1
        if has_magnitudes(payload):
            self.floats += 1
            self.whole_floats += whole
        else:
            self.others += whole

    @property
    def doubt(self) -> bool:
        """Whether the file may be of another save. Other types always look whole: floats count."""
        return self.whole_floats > 0 if self.floats else self.others > 1


def _is_open(part: Part) -> bool:
    return part.is_lost and part.check.computed is not None and part.check.cause not in _EXPLAINED


def _looks_whole(
    part: Part, payload: Payload, places: Mapping[DataFile, Sequence[Place]], files: DataFiles
) -> bool:
    """Tell whether a payload looks like weights, where it belongs or where others have moved."""
    if any(place.holds(files, payload) for place in places.get(payload.file, ())):
        return False
    moved = [place.of(payload) for place in _own(places, payload.file)]
    if part.check.cause is Cause.TEXT and not has_magnitudes(payload):
        # The conversion has changed it; only floats show that it did not.
        return False
    return any(_is_like_weights(files, one) for one in (payload, *moved) if _is_there(files, one))


def _is_like_weights(files: DataFiles, payload: Payload) -> bool:
    if not is_plausible(files, payload):
        return False
    if not has_magnitudes(payload):
        return True
    width = item_size(payload.data_type) or 1
    data = files.read(payload.file, payload.offset, min(payload.size, _JUDGED) // width * width)
    judged = judge_elements(
        data, payload.data_type, offset=payload.offset, big_endian=payload.big_endian
    )
    return not judged.suspect


def _is_there(files: DataFiles, payload: Payload) -> bool:
    return payload.offset >= 0 and payload.end <= (files.size(payload.file) or 0)
