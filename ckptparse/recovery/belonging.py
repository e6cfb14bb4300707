"""Tell, after mending, whether the index is known to be of the same save as the data files.

A checksum says what a value was only if the index was written with the data. If it is of another
save, every tensor that changed between the two fails, and what follows from its checksum alone is
the other save's value. A small counter then differs by one byte, as after damage. So a value that
rests on a checksum is promised only if

- a tensor that hardly another save has is whole in the data files, or was so but for one byte. This
  is not asked if no such tensor fails, or if the data files hold nothing: then the index is all
  that is left.
- no tensor that two saves may hold with a small difference contradicts its checksum: its bytes are
  there, what is around it is whole, and no damage that can be seen comes near. One may do so if it
  alone fails: then it is a changed byte.

What large tensors show is looked at before mending (`doubt`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from ckptparse.examination.case import Case
from ckptparse.examination.payload import Payload
from ckptparse.examination.places import LEAST_SOUGHT, are_telling, is_noise, is_telling
from ckptparse.examination.plausibility import has_magnitudes
from ckptparse.examination.readers import DataFile
from ckptparse.examination.row_mapping import RowMapping
from ckptparse.problems import Cause, Status
from ckptparse.recovery.borrowing import Borrowing, Remains
from ckptparse.recovery.claims import Way
from ckptparse.recovery.doubt import OtherFiles, is_like_weights, shows_itself
from ckptparse.recovery.evidence.containers import is_archive
from ckptparse.recovery.evidence.texts import HEAD
from ckptparse.recovery.failing import Failing, find_failing, find_ways
from ckptparse.recovery.loading import MendedTensor
from ckptparse.recovery.surroundings import Surroundings

__all__ = ["Belonging", "find_vanished", "judge_belonging"]

_MOST_ASKED = 64
"""Lost tensors that are looked for in data files that are not theirs."""
_NOTHING = frozenset({"lfs-pointer", "html", "zeros"})
"""What `identify` calls a file that holds nothing of a save."""
_SAMPLE = 1 << 20
"""First bytes of a data file by which it is told whether it holds anything."""


@dataclass(frozen=True, slots=True)
class Belonging:
    """What is promised of a checkpoint whose index may be of another save.

    Attributes:
        values: Whether what rests on checksums is.
        borrowed: Whether bytes of files are that are not its own.
        shown: Whether something of its own is as the index says.
        others: Whether its own bytes are whole, and others than bytes of files that are not its
            own and that the index asks for.
        ways: How files are read, and how far from their places, so that parts are whole.
    """

    values: bool
    borrowed: bool
    shown: bool
    others: bool
    ways: Collection[Way]

    def __bool__(self) -> bool:
        return self.values and self.borrowed


def judge_belonging(
    case: Case, mended: RowMapping[MendedTensor], borrowing: Borrowing
) -> Belonging:
    """Tell what is promised.

    Args:
        case: The checkpoint.
        mended: Its tensors, mended.
        borrowing: Tells which bytes are its own.
    """
    failing = find_failing(mended, borrowing)
    others = _hold_others(case, failing)
    against = others or _is_contradicted(case, mended, failing)
    borrowed = _may_borrow(case, failing, borrowing, against=against)
    # Bytes elsewhere that nothing shows to be its own say nothing of values, as if there were none.
    values = (borrowed or not against) and _are_values_own(case, mended, failing)
    shown = borrowed or _is_shown(case, failing)
    ways = dict.fromkeys(find_ways(failing)).keys()
    return Belonging(values, borrowed, shown, others, ways)


def _hold_others(case: Case, failing: Sequence[Failing]) -> bool:
    """Tell whether own bytes are whole, and others than what other files have of the checksum."""
    if not any(one.is_borrowed for one in failing):
        return False
    others = OtherFiles(case)
    return any(
        one.remains is Remains.OTHER and not others.lie_over(one.payload.file) for one in failing
    )


def _is_contradicted(
    case: Case, mended: RowMapping[MendedTensor], failing: Sequence[Failing]
) -> bool:
    """Tell whether own bytes say other things than an index whose bytes others have."""
    borrows = any(one.is_borrowed for one in failing)
    return borrows and bool(_count_contradictions(case, mended, failing))


def _may_borrow(
    case: Case, failing: Sequence[Failing], borrowing: Borrowing, *, against: bool
) -> bool:
    """Tell whether bytes of other files are promised."""
    if not any(one.is_borrowed for one in failing):
        return True
    shown = _is_shown(case, failing)
    if not against:
        return shown or not _holds_anything(case, least=LEAST_SOUGHT)
    owners = borrowing.owners_of_failing()
    return shown and bool(owners) and borrowing.is_right_against(owners)


def _are_values_own(
    case: Case, mended: RowMapping[MendedTensor], failing: Sequence[Failing]
) -> bool:
    """Tell whether what rests on checksums is promised."""
    if not any(one.is_claim for one in failing):
        return True
    if _may_be_shown(case, failing) and not _is_shown(case, failing) and _holds_anything(case):
        return False
    against = _count_contradictions(case, mended, failing)
    return not against or (against == 1 and len(failing) + _count_left(case, mended) == 1)


def _count_contradictions(
    case: Case, mended: RowMapping[MendedTensor], failing: Sequence[Failing]
) -> int:
    """Count the tensors whose bytes lie where nothing is damaged, and differ: none, one, or two."""
    by_file: dict[DataFile, list[Failing]] = defaultdict(list)
    for one in failing:
        by_file[one.payload.file].append(one)
    against, others = 0, OtherFiles(case)
    own = case.payload_files() | {DataFile(path) for path in case.survey.data_files.values()}
    paths = {file.path for file in own}
    # Of a file that somebody named, what is whole says whose it is, and the rest nothing.
    taken = {
        one.there[0]
        for one in failing
        if one.there is not None and one.tells and one.there[0].path in paths
    }
    for file, parts in by_file.items():
        mine = {one.there[0] for one in parts if one.there is not None}
        moved = any(one.path != file.path for one in mine & taken)
        if not moved and (not _holds(case, file) or others.lie_over(file) or file in taken - mine):
            # It holds nothing of its own, and that lies nowhere else.
            continue
        against += Surroundings(case, file, parts, mended).count_contradictions()
        if against > 1:
            return against
    return against + _count_unlisted(case, failing, others)


def _count_unlisted(case: Case, failing: Sequence[Failing], others: OtherFiles) -> int:
    """Count the tensors that lie in a data file that is not theirs, and differ.

    Nothing of a data file is as the index says, and it is longer than that says, or as long as
    another one. So that one lies there. If what belongs into that looks like whole weights there,
    and fails, the index says nothing of these weights.
    """
    paths = sorted(set(case.survey.data_files.values()) - _explained(case, failing))
    lost = list(islice(_lost_weights(failing), _MOST_ASKED)) if paths else []
    ends = {file: case.end_of(file) for file in {one.file for one in lost}}
    against = 0
    for file in map(DataFile, paths if lost else ()):
        size, end = case.files.size(file) or 0, case.end_of(file)
        there = [
            one
            for one in lost
            if one.end <= size
            and one.file.path != file.path
            and (size == ends[one.file] or one.offset >= end)
        ]
        if there and _holds(case, file) and not others.lie_over(file):
            against += sum(is_like_weights(case.files, one.moved(file)) for one in there)
    return against


def _explained(case: Case, failing: Sequence[Failing]) -> set[str]:
    """Return the data files of which something is whole as the index says, or is so elsewhere."""
    known = {one.there[0].path for one in failing if one.there is not None and one.tells}
    known |= {one.payload.file.path for one in failing if one.check.cause is Cause.TEXT}
    known |= {one.payload.file.path for one in failing if one.is_own and one.tells}
    known |= {
        part.payload.file.path
        for part in case.iter_held()
        if part.payload is not None
        and part.check.status is Status.VERIFIED
        and is_telling(part.payload)
    }
    return known | {file.path for file in case.payload_files() if shows_itself(case, file)}


def _lost_weights(failing: Sequence[Failing]) -> Iterator[Payload]:
    """Iterate over weights that no data file of the checkpoint holds."""
    for one in failing:
        mine = one.there is not None or one.is_own or one.are_same
        if not mine and is_telling(one.payload) and has_magnitudes(one.payload):
            yield one.payload


def find_vanished(case: Case) -> frozenset[str]:
    """Return the data files of which nothing is left, if nothing speaks against the index.

    All that fails then belongs into them: what agrees with its checksum anywhere is promised.
    """
    files = {
        part.payload.file
        for part in case.iter_held()
        if part.payload is not None and part.payload.size and part.is_lost
    }
    failed = case.failed
    for path in () if failed is None else failed.paths:
        if failed is not None and len(failed.lost_in(path)):
            files.add(DataFile(path))
    if any(_holds(case, file) for file in files):
        return frozenset()
    trusted = _is_shown(case, ()) or not _holds_anything(case, least=LEAST_SOUGHT)
    return frozenset(file.path for file in files) if trusted else frozenset()


def _count_left(case: Case, mended: RowMapping[MendedTensor]) -> int:
    """Count the rows that fail and were not mended one by one."""
    failed = case.failed
    if failed is None:
        return 0
    lost = np.flatnonzero(~failed.good).tolist()
    return sum(failed.names[number] not in mended.held for number in lost)


def _may_be_shown(case: Case, failing: Sequence[Failing]) -> bool:
    """Tell whether a tensor fails that hardly another save has, and whose bytes are there.

    Of those that were cut off nothing is there to show it, if the file is not packed, and what is
    left of them looks right.
    """
    if any(
        is_telling(one.payload)
        and (
            one.check.status is Status.CORRUPT
            or (one.check.status is Status.PARTIAL and one.outcome.suspect)
            or _is_packed(case, one.payload.file)
        )
        for one in failing
    ):
        return True
    failed = case.failed
    return failed is not None and bool(are_telling(failed.plain, failed.rows[failed.wrong]).any())


def _is_packed(case: Case, file: DataFile) -> bool:
    size = min(case.files.size(file) or 0, HEAD)
    return bool(size) and is_archive(bytes(case.files.read(file, 0, size)))


def _is_shown(case: Case, failing: Sequence[Failing]) -> bool:
    """Tell whether something in the data files is as the index says, that hardly others have."""
    if any(one.is_own and one.tells for one in failing):
        return True
    whole = (
        part.payload
        for part in case.iter_held()
        if part.payload is not None and part.check.status is Status.VERIFIED
    )
    return any(map(is_telling, whole)) or any(shows_itself(case, f) for f in case.payload_files())


def _holds_anything(case: Case, least: int = 0) -> bool:
    """Tell whether any data file holds bytes that may be of a save: neither a fill nor noise.

    What is shorter than the least that tells anything is nothing.
    """
    files = case.payload_files()
    if least:
        # Of those in which the index says that nothing lies, too.
        files |= {DataFile(path) for path in case.survey.data_files.values()}
    return any((case.files.size(file) or 0) >= least and _holds(case, file) for file in files)


def _holds(case: Case, file: DataFile) -> bool:
    size = min(case.files.size(file) or 0, _SAMPLE)
    data = case.files.read(file, 0, size) if size else memoryview(b"")
    if not bytes(data).strip(bytes(data[:1])):
        return False
    identity = case.identity_of(file.path)
    if identity is not None and identity.kind in _NOTHING:
        return False
    # What is packed is as even as noise.
    return is_archive(bytes(data[:HEAD])) or not is_noise(data)
