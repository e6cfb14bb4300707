"""Find data files whose index may be of another save: then its checksums promise no value.

`diagnose` calls a file mixed if most of it fails. Here one tensor is enough: its bytes are whole,
look like weights from end to end, and fail for no known reason. A value that the checksum alone
determines would be that of the other save. Where no large tensor shows that, small values do: two
of them fail for no known reason, and what is stored is no noise: a number with a higher half of
zeros, or a constant.

All data files have one index: what each of them shows is counted together if none shows enough
alone. Where no tensor at all is whole, one of integers that is there from end to end is enough,
too: nothing speaks for the index then.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
import numpy.typing as npt

from ckptparse.dtypes import item_size
from ckptparse.examination.case import Case, Part
from ckptparse.examination.check import fits
from ckptparse.examination.payload import Form, Payload
from ckptparse.examination.places import Place, are_telling, is_telling
from ckptparse.examination.plausibility import (
    are_single_magnitudes,
    has_magnitudes,
    is_plausible,
)
from ckptparse.examination.readers import DataFile, DataFiles
from ckptparse.problems import Cause, Status
from ckptparse.recovery.statistics import judge_at

__all__ = ["OtherFiles", "find_doubted", "is_like_weights", "shows_itself"]

IntColumn = npt.NDArray[np.int64]

_FEW = 4
"""Tensors of other files that are looked for in a file that may be a copy of theirs."""
_JUDGED = 1 << 20
"""Bytes of a tensor whose statistics are looked at."""
_MOST_LOOKED_AT = 64
"""Tensors of one file that are looked at: each costs a page."""
_SHIFTED = 8
"""Tensors of one file that are looked at as if bytes had been put in before them."""
_FEWEST_VALUES = 2
"""Small values that fail for no known reason: one alone may have been changed."""
_CLEAR = 8
"""Bytes that are half zeros, or twice the same: random ones are so once in four billion."""
_EXPLAINED = frozenset({Cause.ZEROS, Cause.BITS, Cause.TRUNCATED})
"""Causes that say why a checksum disagrees."""


def find_doubted(case: Case, places: Mapping[DataFile, Sequence[Place]]) -> frozenset[DataFile]:
    """Return the data files that hold whole tensors which the index may not be about."""
    votes: dict[DataFile, _Votes] = defaultdict(_Votes)
    for part in case.iter_held():
        payload = part.payload
        if payload is None or not _is_open(part, payload, places, case.files):
            continue
        mine = votes[payload.file]
        if is_telling(payload):
            if mine.looked_at < _MOST_LOOKED_AT:
                mine.count(payload, whole=_votes_whole(mine, part, payload, places, case.files))
        elif mine.small_looked_at < _MOST_LOOKED_AT:
            single = has_magnitudes(payload) and payload.size == item_size(payload.data_type)
            looked = not (single and mine.has_values)
            value = _look_at_value(part, payload, places, case.files) if looked else _Value.LIKELY
            mine.count_small(value)
    _count_rows(case, places, votes)
    doubted = _choose(case, votes)
    if doubted:
        # All files have one index: nothing shows that it is about one in which no tensor is whole.
        doubted |= _unshown(case)
    return frozenset(doubted)


def _choose(case: Case, votes: Mapping[DataFile, _Votes]) -> set[DataFile]:
    """Return the files that show alone, or else together, that the index is of another save."""
    others = OtherFiles(case)

    def own(files: Iterable[DataFile]) -> set[DataFile]:
        """Leave out files that another one was written over."""
        return {file for file in files if not others.lie_over(file)}

    doubted = own(file for file, mine in votes.items() if mine.doubt)
    against = {file for file, mine in votes.items() if mine.others or mine.values}
    if doubted or not _show_enough(case, [votes[file] for file in against]):
        return doubted
    against = own(against)
    return against if _show_enough(case, [votes[file] for file in against]) else set()


def _show_enough(case: Case, votes: Sequence[_Votes]) -> bool:
    """Tell whether files show together that the index is of another save."""
    together = _Votes()
    for one in votes:
        together.add(one)
    if together.doubt:
        return True
    return bool(together.others and not together.floats) and _unshown(case) >= case.payload_files()


def _count_rows(
    case: Case, places: Mapping[DataFile, Sequence[Place]], votes: dict[DataFile, _Votes]
) -> None:
    """Look at tensors that are rows, too, if not enough others were looked at."""
    failed = case.failed
    if failed is None:
        return
    is_open = failed.wrong & ~failed.has_cause(*_EXPLAINED)
    paths = [path for path in failed.paths if is_open[failed.of_path(path)].any()]
    for path in paths[case.most_files :]:
        votes[DataFile(path)].unseen = True
    for path in paths[: case.most_files]:
        mine = failed.of_path(path)
        mine = mine[is_open[mine]]
        telling = are_telling(failed.plain, failed.rows[mine])
        known = votes[DataFile(path)]
        for _, part in case.failed_parts(mine[telling][: _MOST_LOOKED_AT - known.looked_at]):
            if part.payload is not None:
                whole = _votes_whole(known, part, part.payload, places, case.files)
                known.count(part.payload, whole=whole)
        _count_small_rows(case, mine[~telling], known, places)


def _count_small_rows(
    case: Case, numbers: IntColumn, known: _Votes, places: Mapping[DataFile, Sequence[Place]]
) -> None:
    """Look at small tensors that are rows of `failed`, by their numbers there."""
    failed = case.failed
    if failed is None:
        return
    numbers = numbers[: _MOST_LOOKED_AT - known.small_looked_at]
    single = are_single_magnitudes(failed.plain.columns, failed.rows[numbers])
    for place, is_single in enumerate(single.tolist()):
        if is_single and known.has_values:
            known.count_small(_Value.LIKELY)
            continue
        for _, part in case.failed_parts(numbers[place : place + 1]):
            if part.payload is not None:
                known.count_small(_look_at_value(part, part.payload, places, case.files))


def _unshown(case: Case) -> set[DataFile]:
    """Return the files of which no tensor is whole that hardly another file has."""
    shown = {
        part.payload.file
        for part in case.iter_held()
        if part.payload is not None
        and part.check.status is Status.VERIFIED
        and is_telling(part.payload)
    }
    return {file for file in case.payload_files() - shown if not shows_itself(case, file)}


def shows_itself(case: Case, file: DataFile) -> bool:
    """Tell whether a row of a file is whole that hardly another file has."""
    if case.sound is None or file.undo is not None:
        return False
    rows = case.sound.rows_of(file.path)
    if case.failed is not None:
        mine = case.failed.of_path(file.path)
        rows = np.concatenate((rows, case.failed.rows[mine[case.failed.good[mine]]]))
    return bool(are_telling(case.sound.plain, rows).any())


def _own(places: Mapping[DataFile, Sequence[Place]], file: DataFile) -> list[Place]:
    """Return the places that bytes of a file have in that file."""
    return [place for place in places.get(file, ()) if place.file.path == file.path]


class OtherFiles:
    """Whole tensors of a checkpoint, by which a data file is known that another was written over.

    They are looked for once, and no further than any data file needs.
    """

    def __init__(self, case: Case) -> None:
        """Take the checkpoint, checked; nothing is looked for yet."""
        self._case = case
        self._files = case.payload_files()
        self._seen: list[Payload] = []
        self._counts: Counter[DataFile] = Counter()
        self._rest = (
            part.payload
            for _, part in case.whole_parts()
            if part.payload is not None
            and part.check.status is Status.VERIFIED
            and is_telling(part.payload)
        )

    def lie_over(self, file: DataFile) -> bool:
        """Tell whether another data file was written over this one."""
        return any(fits(self._case.files, one.moved(file)) for one in self._few(file))

    def _few(self, file: DataFile) -> list[Payload]:
        """Return the first few that belong into other files."""
        if not self._files - {file}:
            return []
        found = [one for one in self._seen if one.file != file][:_FEW]
        while len(found) < _FEW and (one := next(self._rest, None)) is not None:
            self._counts[one.file] += 1
            if self._counts[one.file] <= _FEW:
                self._seen.append(one)
                found += [] if one.file == file else [one]
        return found


class _Value(Enum):
    """What the bytes of a small tensor, or a constant one, look like."""

    NONE = "noise, or nothing"
    LIKELY = "a usual number, as many random bytes are"
    CLEAR = "what random bytes hardly ever are"


@dataclass(slots=True)
class _Votes:
    """What the failing tensors of a file look like."""

    looked_at: int = 0
    floats: int = 0
    whole_floats: int = 0
    others: int = 0
    small_looked_at: int = 0
    values: int = 0
    clear_values: int = 0
    unseen: bool = False

    def add(self, other: _Votes) -> None:
        """Count what another file shows, too."""
        self.floats += other.floats
        self.whole_floats += other.whole_floats
        self.others += other.others
        self.values += other.values
        self.clear_values += other.clear_values
        self.unseen |= other.unseen

    def count(self, payload: Payload, *, whole: bool) -> None:
        """Count a tensor."""
        self.looked_at += 1
        if has_magnitudes(payload):
            self.floats += 1
            self.whole_floats += whole
        else:
            self.others += whole

    def count_small(self, value: _Value) -> None:
        """Count a small value."""
        self.small_looked_at += 1
        self.values += value is not _Value.NONE
        self.clear_values += value is _Value.CLEAR

    @property
    def has_values(self) -> bool:
        """Whether there are so many small values that one more says nothing, unless it is clear."""
        return self.values >= _FEWEST_VALUES

    @property
    def doubt(self) -> bool:
        """Whether the file may be of another save. Other types always look whole: floats count.

        Of a file that is not looked at, it may be.
        """
        if self.unseen or (self.has_values and self.clear_values):
            return True
        return self.whole_floats > 0 if self.floats else self.others > 1


def _is_open(
    part: Part, payload: Payload, places: Mapping[DataFile, Sequence[Place]], files: DataFiles
) -> bool:
    """Tell whether nothing explains why a payload fails."""
    if not part.is_lost:
        return False
    if part.check.cause is Cause.TRUNCATED:
        # The file ends before it; before it was converted, it may not have.
        return any(
            place.file.undo is not None and not place.delta and _is_there(files, place.of(payload))
            for place in _own(places, payload.file)
        )
    return part.check.computed is not None and part.check.cause not in _EXPLAINED


def _votes_whole(
    votes: _Votes,
    part: Part,
    payload: Payload,
    places: Mapping[DataFile, Sequence[Place]],
    files: DataFiles,
) -> bool:
    """Tell whether a payload looks whole, unless that would change nothing."""
    if votes.whole_floats and has_magnitudes(payload):
        return False
    return _looks_whole(part, payload, places, files, near=votes.floats < _SHIFTED)


def _looks_whole(
    part: Part,
    payload: Payload,
    places: Mapping[DataFile, Sequence[Place]],
    files: DataFiles,
    *,
    near: bool,
) -> bool:
    """Tell whether a payload looks like weights, where it belongs or where others have moved.

    With `near`, some bytes further on are looked at as well.
    """
    if any(place.holds(files, payload) for place in places.get(payload.file, ())):
        return False
    there = [place for place in _own(places, payload.file) if place.weights]
    moved = [place.of(payload) for place in there]
    if part.check.cause is Cause.TEXT and not has_magnitudes(payload):
        # The conversion has changed it; only floats show that it did not.
        return False
    if not moved and has_magnitudes(payload) and near:
        # Bytes were put in or lost before it, and no checksum agrees where it would lie then.
        shifts = range(1, item_size(payload.data_type) or 1)
        moved = [payload.moved(payload.file, shift) for shift in shifts]
    return any(is_like_weights(files, one) for one in (payload, *moved) if _is_there(files, one))


def is_like_weights(files: DataFiles, payload: Payload) -> bool:
    """Tell whether the bytes at a payload's place look like its values from end to end."""
    if not is_plausible(files, payload):
        return False
    if not has_magnitudes(payload):
        return True
    width = item_size(payload.data_type) or 1
    data = files.read(payload.file, payload.offset, min(payload.size, _JUDGED) // width * width)
    return not judge_at(files, payload, data)


def _look_at_value(
    part: Part, payload: Payload, places: Mapping[DataFile, Sequence[Place]], files: DataFiles
) -> _Value:
    """Tell what the stored bytes of a small tensor, or a constant one, look like."""
    width = item_size(payload.data_type)
    odd = part.check.cause is Cause.TEXT or not payload.size or not _is_there(files, payload)
    if payload.form is not Form.PLAIN or not width or odd:
        return _Value.NONE
    if any(place.holds(files, payload) for place in places.get(payload.file, ())):
        return _Value.NONE
    data = bytes(files.read(payload.file, payload.offset, min(payload.size, _JUDGED)))
    if not any(data) or not is_plausible(files, payload):
        return _Value.NONE
    if len(data) > width:
        # All elements are the same.
        same = len(data) >= _CLEAR and data == data[:width] * (len(data) // width)
        return _Value.CLEAR if same else _Value.NONE
    if has_magnitudes(payload):
        return _Value.LIKELY
    upper = data[: width // 2] if payload.big_endian else data[-(width // 2) :]
    return _Value.CLEAR if width >= _CLEAR and not any(upper) else _Value.NONE


def _is_there(files: DataFiles, payload: Payload) -> bool:
    return payload.offset >= 0 and payload.end <= (files.size(payload.file) or 0)
