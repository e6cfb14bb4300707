"""Find out where the bytes of a data file really are, and what happened to the damaged ones.

These are tried in this order, each against the checksums of the tensors:

1. other files of the same directory: shards that were swapped or renamed, or are of another save
2. the file with a conversion of line ends undone
3. the same bytes some distance from their place, found by their checksum

What is left is one flipped bit, or an index and a data file of different saves. Of different saves,
constants agree and trained tensors do not.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from typing import overload

import numpy as np
import numpy.typing as npt

from ckptparse.crc.flips import HIGHEST_CHANCE, chance_of_bit, find_bit
from ckptparse.examination.case import ATTEMPT_BYTES, FILE_ATTEMPTS, Case, Part
from ckptparse.examination.check import Check, fits
from ckptparse.examination.conversions import (
    LineEnds,
    UndoneLineEnds,
    find_line_ends,
    lacks_returns,
)
from ckptparse.examination.copied_index import find_owner, holds_other_weights
from ckptparse.examination.failed_rows import FailedRows
from ckptparse.examination.neighbours import is_anothers
from ckptparse.examination.outcome import Outcome
from ckptparse.examination.payload import Form, Payload
from ckptparse.examination.places import (
    LEAST_SAMPLE,
    LEAST_SOUGHT,
    NO_CHANCE,
    Place,
    Searched,
    Shift,
    Twins,
    are_telling,
    find_place,
    find_shifts,
    is_telling,
)
from ckptparse.examination.plausibility import has_magnitudes, is_plausible
from ckptparse.examination.readers import PAGE, DataFile, DataFiles
from ckptparse.filenames import is_data_file, may_be_data_file, split_data_path
from ckptparse.files.storage import FileStat
from ckptparse.identification.identity import fetching_commands
from ckptparse.inventory.folders import MOST_NAMES, Folders, names_around
from ckptparse.problems import Cause, Problem, Status

__all__ = ["Diagnosis", "diagnose"]

IntColumn = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
_NO_ROWS: IntColumn = np.zeros(0, np.int64)

_SECTOR = 512
"""Bytes of the smallest piece that is moved as one: stripes and blocks are some of them."""
_SAMPLES = 8
"""Payloads that are tried in each other file. One that fits is no chance (1 in 2^32); eight spread
over the file find a shard of which an eighth is left."""
_SURE = 3
"""If fewer payloads than this are equal in another checkpoint's file, they may be frozen layers,
which do not change from save to save: then the file is not said to be the right one."""
_MOST_FILES = 64
"""Other files that are tried: a few hundred reads at most, however many files the directory has."""
_ROUNDS = 4
"""Searches for shifts in one file. Each seeks `_SOUGHT` of the payloads that are not found yet."""
_COMPARED, _COMPARED_BYTES = 500, 16
"""Tensors of a file, each at one distance, that are compared for each of `Limits.attempts`, and
bytes of the file for one more: each takes half a microsecond. Behind a shift all lie at one
distance."""
_SOUGHT = 12
"""Payloads that are sought in one pass. It costs about as much as reading the file ten times."""
_FEW_ALONE = 8
"""If more of them are found, each at a distance of its own, the file is in another order."""
_SOUGHT_BY_VERIFY = 1 << 23
"""Bytes of the largest payload that `verify` seeks elsewhere: it is held in memory, and `verify`
promises to use little."""
_FOREIGN = frozenset(
    {
        "lfs-pointer",
        "annex-pointer",
        "dvc-pointer",
        "xet-pointer",
        "html",
        "mangled-text",
        "pytorch-zip",
        "pytorch-pickle",
        "zip",
        "tar",
        "gzip",
        "zstd",
        "hdf5",
        "keras-h5",
        "keras-zip",
        "npz",
        "npy",
        "safetensors",
        "tfrecord",
        "tflite",
        "v1",
        "v2-index",
    }
)


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What happened to payloads that are not whole.

    Attributes:
        places: For each data file, where its bytes lie instead.
        problems: What is wrong with the files.
        owners: Other checkpoints whose index this one has, while its data file holds other weights.
    """

    places: dict[DataFile, list[Place]]
    problems: list[Problem]
    owners: frozenset[str] = frozenset()


@dataclass(slots=True)
class _Group:
    """The payloads of one data file that are not whole, by offset.

    Attributes:
        file: The data file.
        parts: Those that are objects.
        rows: The others, by their numbers in `Case.failed`.
        places: Where bytes of the file are instead.
        problems: What is wrong with it.
        owners: Checkpoints whose index this one has.
    """

    file: DataFile
    parts: list[tuple[Part, Payload]]
    rows: IntColumn
    places: list[Place] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    owners: set[str] = field(default_factory=set)


def diagnose(
    case: Case, *, deep: bool, siblings: bool = True, folders: Folders | None = None
) -> Diagnosis:
    """Find out what happened to the payloads that are not whole, and note it in their checks.

    Args:
        case: The checkpoint, checked.
        deep: Whether to search whole files for bytes that were moved.
        siblings: Whether files of other checkpoints may be read.
        folders: The directories, if some of them were listed already.
    """
    places: dict[DataFile, list[Place]] = {}
    problems: list[Problem] = []
    owners: set[str] = set()
    twins = Twins(case)
    beside = _Beside(case, folders or Folders(case.context))
    groups = list(_groups(case))
    for group in groups[: case.most_files]:
        _Examination(case, group, twins, beside, deep=deep, siblings=siblings).run()
        places[group.file] = group.places
        problems.extend(group.problems)
        owners |= group.owners
    if groups and beside.left_out:
        message = (
            f"{beside.left_out:,} of the files beside it were not looked at: of very many, those "
            f"with the {MOST_NAMES:,} names nearest to its own were"
        )
        problems.append(Problem.of("limit.reached", case.survey.prefix, message))
    if len(groups) > len(places):
        message = (
            f"{len(groups) - len(places):,} more data files are damaged or missing, and it was not "
            f"looked for what happened to them: Limits.attempts allows "
            f"{case.context.limits.attempts:,}, one for each 32 KiB of the files, and a file "
            f"counts as {FILE_ATTEMPTS}"
        )
        problems.append(Problem.of("limit.reached", case.survey.prefix, message))
    return Diagnosis(places, problems, frozenset(owners))


def _groups(case: Case) -> Iterator[_Group]:
    parts: dict[DataFile, list[tuple[Part, Payload]]] = defaultdict(list)
    for _, part in case.held_parts():
        if part.payload is not None and part.payload.size and part.is_lost:
            parts[part.payload.file].append((part, part.payload))
    rows = dict(_failed_rows(case.failed))
    for file in sorted({**parts, **rows}, key=lambda file: file.path):
        found = sorted(parts.get(file, ()), key=lambda pair: pair[1].offset)
        yield _Group(file, found, rows.get(file, _NO_ROWS))


def _failed_rows(failed: FailedRows | None) -> Iterator[tuple[DataFile, IntColumn]]:
    """Iterate over the data files of which rows have bytes and are lost, each with these."""
    for path in () if failed is None else failed.paths:
        rows = _NO_ROWS if failed is None else failed.lost_in(path)
        if len(rows):
            yield DataFile(path), rows


class _ByOffset(Sequence[Payload]):
    """Payloads of one data file in their order: objects, and rows that become objects if asked."""

    def __init__(self, held: Sequence[Payload], failed: FailedRows | None, rows: IntColumn) -> None:
        self._held, self._failed, self._rows = held, failed, rows
        offsets = np.array([one.offset for one in held], np.int64)
        if failed is not None:
            offsets = np.concatenate((offsets, failed.starts[rows]))
        self._order = np.argsort(offsets, kind="stable")

    def __len__(self) -> int:
        return len(self._order)

    @overload
    def __getitem__(self, index: int) -> Payload: ...
    @overload
    def __getitem__(self, index: slice) -> list[Payload]: ...
    def __getitem__(self, index: int | slice) -> Payload | list[Payload]:
        if isinstance(index, slice):
            return [self._one(number) for number in self._order[index].tolist()]
        return self._one(int(self._order[index]))

    def _one(self, number: int) -> Payload:
        if self._failed is None or number < len(self._held):
            return self._held[number]
        return self._failed.payload(int(self._rows[number - len(self._held)]))

    def first(self, count: int) -> tuple[list[int], IntColumn]:
        """Return which of the objects, and which of the rows, are among the first so many."""
        numbers = self._order[:count]
        held = len(self._held)
        return numbers[numbers < held].tolist(), self._rows[numbers[numbers >= held] - held]


class _Beside:
    """What lies beside the data files of a checkpoint, read once for all of them."""

    def __init__(self, case: Case, folders: Folders) -> None:
        self._case = case
        self._folders = folders
        self._anothers: dict[str, bool] = {}

    @cached_property
    def _listed(self) -> Mapping[str, FileStat]:
        return self._folders.list(self._case.survey.directory)

    @property
    def left_out(self) -> int:
        """How many names of the directory are not looked at: it has very many."""
        return max(0, len(self._listed) - MOST_NAMES)

    @cached_property
    def files(self) -> dict[str, FileStat]:
        """The files of the directory; of very many, those with the nearest names."""
        storage, directory = self._case.context.storage, self._case.survey.directory
        names = names_around(self._listed, storage.split(self._case.survey.prefix)[1])
        listed = [(name, self._listed[name]) for name in names]
        return {storage.join(directory, name): stat for name, stat in listed if stat.kind == "file"}

    @cached_property
    def data_files(self) -> frozenset[str]:
        """Those whose names are such as data files have."""
        split = self._case.context.storage.split
        return frozenset(path for path in self.files if may_be_data_file(split(path)[1]))

    def is_anothers(self, path: str) -> bool:
        """Tell whether a data file has an index of its own beside it, not this checkpoint's."""
        known = self._anothers.get(path)
        if known is None:
            prefix, context = self._case.survey.prefix, self._case.context
            known = self._anothers[path] = is_anothers(path, prefix, context)
        return known


class _Examination:
    """The examination of one data file."""

    def __init__(
        self,
        case: Case,
        group: _Group,
        twins: Twins,
        beside: _Beside,
        *,
        deep: bool,
        siblings: bool,
    ) -> None:
        self.case = case
        self.files: DataFiles = case.files
        self.group = group
        self.deep = deep
        self.siblings = siblings
        self.size = case.files.size(group.file)
        self.twins = twins
        self.beside = beside
        self.failed = case.failed
        self.held_by: dict[Place, Mask] = {}
        """Which of the group's rows lie in a place."""
        self.compared = 0
        """Rows whose checksums were computed at other places."""
        self.said: dict[Place, Problem] = {}
        """What was said of places in other files."""

    def run(self) -> None:
        group = self.group
        # A V1 file was identified when its table was read.
        if not any(payload.form is Form.RECORD for _, payload in group.parts):
            self._check_foreign()
        self._find_elsewhere()
        if self.size is None and self.deep:
            self._find_joined()
        if self.size:
            if not self._find_text():
                self._search(group.file, Cause.SHIFTED)
            self._leave_owners()
            self._tell_apart()
        if group.places:
            self._settle()

    # -- other files

    def _check_foreign(self) -> None:
        path = self.group.file.path
        identity = self.case.identity_of(path) if self.size is not None else None
        if identity is None or identity.kind not in _FOREIGN:
            return
        detail = ""
        if identity.kind == "lfs-pointer":
            detail = (
                f" The file itself has {identity.detail.get('size')} bytes and the SHA-256 "
                f"{identity.detail.get('sha256')}."
            )
        mangled = identity.kind == "mangled-text"
        code = "shard.text" if mangled else "shard.foreign"
        message = f"it is {identity.meaning}.{detail} {identity.advice}"
        self._problem(code, message, fetch=fetching_commands(identity.kind))
        note = f"its data file is {identity.meaning}"
        for part, _ in self.group.parts:
            if mangled:
                part.check = part.check.because(Cause.TEXT)
            else:
                # None of its bytes belong to a tensor, however many it has.
                part.check = Check(Outcome(Status.MISSING, Cause.FOREIGN, note=note))
        if mangled:
            self._blame(self.group.rows, Cause.TEXT)
        elif self.failed is not None:
            self.failed.call_foreign(self.group.rows, note)

    def _find_elsewhere(self) -> None:
        samples = self._samples()
        if not samples:
            return
        for path in self._other_files():
            method = f"reading it from {self._name(path)}"
            place = Place(DataFile(path), 0, Cause.SWAPPED, method, NO_CHANCE)
            hits = sum(place.holds(self.files, payload) for payload in samples)
            few = hits < _SURE or 2 * hits <= len(samples)
            if hits and few and self.beside.is_anothers(path):
                equal = replace(place, cause=None, method="a sibling's bytes")
                self.group.places.append(equal)
            elif hits:
                self.group.places.append(place)
                self._report_elsewhere(path)
                self.said[place] = self.group.problems[-1]

    def _name(self, path: str) -> str:
        return self.case.context.storage.split(path)[1]

    def _report_elsewhere(self, path: str) -> None:
        name = self._name(path)
        own = split_data_path(self.group.file.path)
        other = split_data_path(path)
        if self.size is None:
            self._problem("shard.renamed", f"its bytes are in {name}")
        elif own and other and own[0] == other[0]:
            self._problem("shard.swapped", f"bytes of this file are in {name}")
        else:
            self._problem(
                "set.mixed", f"bytes of this file are in {name}, which is of another save"
            )

    def _other_files(self) -> list[str]:
        beside = self.beside
        found = (
            path
            for path, stat in beside.files.items()
            if path in beside.data_files or self._may_hold_all(stat)
        )
        more = (path for path in self.case.survey.leftovers if is_data_file(path))
        # Files of this checkpoint first: equal bytes in another one do not mean mixed saves.
        own: dict[str, None] = {}
        others: dict[str, None] = {}
        for path in chain(found, more):
            if len(own) == _MOST_FILES:
                break
            if path != self.group.file.path:
                (others if beside.is_anothers(path) else own)[path] = None
        return [*own, *(others if self.siblings else ())][:_MOST_FILES]

    def _may_hold_all(self, stat: FileStat) -> bool:
        """Tell whether a file, whatever its name, is large enough to be the missing one."""
        if self.size is not None:
            return False
        return stat.size >= self._end

    @cached_property
    def _end(self) -> int:
        """Where the last of the payloads ends."""
        end = max((one.end for _, one in self.group.parts), default=0)
        return end if self.failed is None else max(end, self.failed.end_of(self.group.file.path))

    def _samples(self) -> list[Payload]:
        """Return a few payloads that are neither small nor constant: others may equal those."""
        held = [payload for _, payload in self.group.parts if self._is_sought(payload)]
        good = _ByOffset(held, self.failed, self._sought_rows(LEAST_SAMPLE))
        step = max(1, len(good) // _SAMPLES)
        return good[::step][:_SAMPLES]

    def _is_sought(self, payload: Payload, least: int = LEAST_SAMPLE) -> bool:
        """Tell whether no other tensor has the same bytes, so that finding them says something."""
        return is_telling(payload, least) and self.twins.find(payload) is None

    def _sought_rows(self, least: int) -> IntColumn:
        """Return the rows that are sought, as `_is_sought` tells of one payload."""
        failed, rows = self.failed, self.group.rows
        if failed is None or not len(rows):
            return rows
        rows = rows[are_telling(failed.plain, failed.rows[rows], least)]
        return rows[self.twins.are_alone(failed, rows)]

    def _hold(self, place: Place) -> Mask:
        """Tell which of the group's rows lie in a place."""
        if place not in self.held_by:
            rows = self.group.rows
            self.compared += len(rows)
            self.held_by[place] = (
                np.zeros(0, np.bool_)
                if self.failed is None
                else place.hold_rows(self.files, self.failed, rows)
            )
        return self.held_by[place]

    def _without(self, rows: IntColumn, places: Iterable[Place]) -> IntColumn:
        """Return those of some of the group's rows that lie in none of some places."""
        for place in places:
            rows = rows[~np.isin(rows, self.group.rows[self._hold(place)])]
        return rows

    def _blame(self, rows: IntColumn, cause: Cause | None, note: str | None = None) -> None:
        if self.failed is not None:
            self.failed.blame(rows, cause, note)

    def _is_placed(self, payload: Payload) -> bool:
        return find_place(self.files, self.group.places, payload) is not None

    def _find_joined(self) -> None:
        """Look for the bytes of a missing file anywhere in the other data files."""
        own = set(self.case.survey.data_files.values())
        for path in self._other_files():
            if path not in own:
                continue
            before = len(self.group.places)
            self._search(DataFile(path), Cause.SHIFTED)
            if len(self.group.places) > before:
                message = f"bytes of this file are in {self._name(path)}, at another offset"
                self._problem("shard.renamed", message)
                return

    # -- conversions of text, and shifts

    def _find_text(self) -> bool:
        """Undo a conversion of line ends, and tell whether all that is left was sought behind it.

        What has no line ends is there, too.
        """
        file = self.group.file
        found = find_line_ends(self.files.source(file)) if file.undo is None else None
        if found is None:
            return False
        self._problem("shard.text", found.value)
        for part, _ in self.group.parts:
            part.check = part.check.because(Cause.TEXT)
        self._blame(self.group.rows, Cause.TEXT)
        if found is LineEnds.CRLF and self.deep:
            undone = DataFile(file.path, UndoneLineEnds, "conversion undone")
            method = "undoing a conversion of line ends"
            self.group.places.append(Place(undone, 0, Cause.TEXT, method, NO_CHANCE))
            self._search(undone, Cause.TEXT)
            return True
        return False

    def _search(self, file: DataFile, cause: Cause) -> None:
        """Find payloads by their checksums, and then others at the same distance."""
        held = [
            payload
            for part, payload in self.group.parts
            if self._is_sought(payload, LEAST_SOUGHT) and not self._is_placed(payload)
        ]
        rows = self._without(self._sought_rows(LEAST_SOUGHT), self.group.places)
        searched = Searched()
        for _ in range(_ROUNDS):
            chosen = self._choose(held, rows)
            before = len(held) + len(rows)
            found = 0
            shifts = find_shifts(self.files, file, chosen, far=self.deep, searched=searched)
            for shift in shifts:
                if not self._may_compare():
                    return
                if held or len(rows):
                    held, rows = self._take_shift(file, cause, shift, (held, rows))
                    found += 1
            left = len(held) + len(rows)
            scattered = found == before - left and found > _FEW_ALONE and left > _SOUGHT * _ROUNDS
            # Each at a distance of its own: the others are not at these either.
            if left == before or scattered:
                return

    def _may_compare(self) -> bool:
        """Tell whether the group's rows may be compared at one more distance; say if not."""
        attempts = self.case.context.limits.attempts
        if (
            self.compared
            <= _COMPARED * attempts + self.case.size_of(self.group.file) // _COMPARED_BYTES
        ):
            return True
        message = (
            f"not all tensors were sought at all distances at which one was found: "
            f"Limits.attempts ({attempts}) allows {_COMPARED:,} comparisons each, and one for each "
            f"{_COMPARED_BYTES} bytes of the file"
        )
        self._problem("limit.reached", message)
        return False

    def _choose(self, held: list[Payload], rows: IntColumn) -> list[Payload]:
        """Choose what is sought, spread over the file. One pass finds all that is chosen."""
        if not self.deep:
            held = [payload for payload in held if payload.size <= _SOUGHT_BY_VERIFY]
            if self.failed is not None:
                rows = rows[self.failed.sizes[rows] <= _SOUGHT_BY_VERIFY]
        waiting = _ByOffset(held, self.failed, rows)
        step = -(-len(waiting) // _SOUGHT) or 1
        return waiting[step // 2 :: step]

    def _take_shift(
        self, file: DataFile, cause: Cause, shift: Shift, waiting: tuple[list[Payload], IntColumn]
    ) -> tuple[list[Payload], IntColumn]:
        delta, chance = shift.delta, shift.chance
        method = f"reading it {delta:+d} bytes from its place"
        if file.path != self.group.file.path:
            method += f" in {self._name(file.path)}"
        place = Place(file, delta, cause, method, chance)
        held, rows = waiting
        here = place.hold_each(self.files, held)
        left = [payload for payload, lies in zip(held, here, strict=True) if not lies]
        rows_left = self._without(rows, [place])
        found = len(held) + len(rows) - len(left) - len(rows_left)
        if not found:
            # Strings: the bytes alone have the checksum, by chance, and their lengths do not.
            return waiting
        if found > 1:
            # Two payloads at the same distance do not lie there by chance.
            place = replace(place, chance=NO_CHANCE)
        else:
            place = replace(place, alone=self._span_of_one(place, held, rows))
        self.group.places.append(place)
        if file == self.group.file and place.chance <= HIGHEST_CHANCE:
            self._problem("shard.shifted", f"bytes of it are {delta:+d} bytes from their place")
        return left, rows_left

    def _span_of_one(
        self, place: Place, held: Sequence[Payload], rows: IntColumn
    ) -> tuple[int, int] | None:
        """Return where in the data file the first payload belongs that lies in a place."""
        for one, lies in zip(held, place.hold_each(self.files, held), strict=True):
            if lies:
                return one.offset, one.end
        there = rows[np.isin(rows, self.group.rows[self._hold(place)])]
        if self.failed is None or not len(there):
            return None
        start = int(self.failed.starts[there[0]])
        return start, start + int(self.failed.sizes[there[0]])

    # -- an index that is another checkpoint's

    def _leave_owners(self) -> None:
        """Leave out a checkpoint whose index this one has, if the file holds other weights."""
        group = self.group
        for place in list(group.places):
            owner = self._owner_of(place)
            if owner is None:
                continue
            group.places.remove(place)
            group.owners.add(owner)
            group.problems = [one for one in group.problems if one is not self.said.get(place)]
            name = self._name(owner)
            message = f"the index is the same as that of {name}, and this file holds other weights"
            self._problem("set.mixed", message)
            note = f"its checksum is that of {name}, and its bytes are those of another save"
            for part, payload in group.parts:
                if self._is_open(part) and place.holds(self.files, payload):
                    part.check = part.check.because(Cause.MIXED, note)
            mine = group.rows[self._hold(place)]
            self._blame(mine[np.isin(mine, self._open_rows())], Cause.MIXED, note)

    def _owner_of(self, place: Place) -> str | None:
        if place.cause not in (Cause.SWAPPED, None):
            return None
        owner = find_owner(place.file.path, self.case.survey.prefix, self.case.context)
        if owner is None:
            return None
        held = [one for _, one in self.group.parts if place.holds(self.files, one)]
        failing = _ByOffset(held, self.failed, self.group.rows[self._hold(place)])
        other = holds_other_weights(self.files, failing, place)
        return owner if other and not self._has_moved(failing) else None

    def _has_moved(self, failing: Sequence[Payload]) -> bool:
        """Tell whether most of some payloads are whole in the file itself, further on."""
        told = [one for one in failing if self._is_sought(one, LEAST_SOUGHT)]
        sought = self._choose(told, _NO_ROWS)
        shifts = find_shifts(self.files, self.group.file, sought, far=self.deep)[:_ROUNDS]
        whole = [
            any(fits(self.files, one.moved(one.file, shift.delta)) for shift in shifts)
            for one in sought
        ]
        return 2 * sum(whole) > len(whole)

    # -- what is left

    def _tell_apart(self) -> None:
        """Tell single flipped bits from a mixed save, in tensors whose cause is not known yet."""
        waiting = [(part, payload) for part, payload in self.group.parts if self._is_open(part)]
        rows = self._open_rows()
        most = self.case.context.limits.attempts + (self.size or 0) // ATTEMPT_BYTES
        first, first_rows = _ByOffset([one for _, one in waiting], self.failed, rows).first(most)
        tried = [waiting[number] for number in first]
        flipped = {id(part) for part, payload in tried if _is_flipped(part.check, payload)}
        for part, _ in waiting:
            if id(part) in flipped:
                part.check = part.check.because(Cause.BITS)
        flipped_rows = self._flipped(first_rows)
        self._blame(flipped_rows, Cause.BITS)
        count = len(flipped) + len(flipped_rows)
        # Zeros explain a tensor with holes. Only what else fails may be of another save.
        waiting = [pair for pair in waiting if pair[0].check.cause is not Cause.ZEROS]
        if self.failed is not None:
            rows = rows[~self.failed.has_cause(Cause.ZEROS)[rows]]
        total = len(waiting) + len(rows)
        if count >= total or not self._is_mixed([payload for _, payload in waiting], rows):
            return
        if self._is_in_parts():
            # The index is about what was found, and what else it is about may lie elsewhere too.
            self._problem(
                "shard.shifted",
                f"the checksums of {total} more tensors disagree, and others lie whole sectors "
                "from their places: parts of the file may be in another order",
            )
            return
        if 2 * count < total:
            flipped, flipped_rows = set(), _NO_ROWS
        left = [part for part, _ in waiting if id(part) not in flipped]
        self._call_mixed(total, left, rows[~np.isin(rows, flipped_rows)])

    def _call_mixed(self, total: int, parts: Sequence[Part], rows: IntColumn) -> None:
        """Say that index and data file are of different saves, as far as can be told."""
        self._problem(
            "set.mixed",
            f"the checksums of {total} tensors disagree, though their bytes look like whole "
            "values: either index and data file are of different saves, or the file was changed "
            "in many places",
        )
        for part in parts:
            part.check = part.check.because(Cause.MIXED)
        self._blame(rows, Cause.MIXED)

    def _open_rows(self) -> IntColumn:
        """Return the rows of which nothing is known yet, as `_is_open` tells of one part."""
        rows = self.group.rows
        if self.failed is None:
            return rows
        return self._without(rows[self.failed.open[rows]], self.group.places)

    def _flipped(self, rows: IntColumn) -> IntColumn:
        """Return the rows of which one flipped bit explains the checksum."""
        failed = self.failed
        if failed is None:
            return rows
        columns = (failed.crcs[rows], failed.computed[rows], failed.sizes[rows])
        told = zip(*(column.tolist() for column in columns), strict=True)
        return rows[np.array([_explains_bit(*one) for one in told], np.bool_)]

    def _is_open(self, part: Part) -> bool:
        return (
            part.check.status is Status.CORRUPT
            and part.check.cause in (Cause.UNKNOWN, Cause.ZEROS)
            and part.payload is not None
            and not self._is_placed(part.payload)
        )

    def _is_in_parts(self) -> bool:
        """Tell whether bytes of the file were found whole sectors from their place."""
        return any(
            place.file == self.group.file
            and place.cause is Cause.SHIFTED
            and place.chance <= HIGHEST_CHANCE
            and place.delta % _SECTOR == 0
            for place in self.group.places
        )

    def _is_mixed(self, waiting: Sequence[Payload], rows: IntColumn) -> bool:
        """Tell whether the file is full of plausible values, and those that can change are wrong.

        Half of the payloads that can change must fail, the file must have the size that the index
        expects, and more than half of some samples must look like trained values.
        """
        if self.failed is not None:
            rows = rows[are_telling(self.failed.plain, self.failed.rows[rows])]
        telling = _ByOffset([one for one in waiting if is_telling(one)], self.failed, rows)
        if len(telling) < 2:
            return False
        size, changing = self._count_changing(2 * len(telling))
        return (
            2 * len(telling) >= changing
            and self.size == size
            and self._look_trained(telling)
            and not lacks_returns(self.files.source(self.group.file))
        )

    def _look_trained(self, telling: Sequence[Payload]) -> bool:
        """Tell whether more than half of some samples look like trained values.

        Floats show it. Of others, which look so always, not all may lie in one page: damage to that
        would explain them.
        """
        samples = telling[:_SAMPLES]
        floats = [payload for payload in samples if has_magnitudes(payload)]
        plausible = sum(is_plausible(self.files, payload) for payload in floats)
        if floats:
            return 2 * plausible > len(floats)
        last = max(payload.offset // PAGE for payload in telling[-1:])
        return last > min((payload.end - 1) // PAGE for payload in samples)

    def _count_changing(self, most: int) -> tuple[int, int]:
        """Return where the payloads of the file end, and how many can change.

        Of more than `most` it is not said how many.
        """
        file = self.group.file
        held = [part for _, part in self.case.held_in(file)]
        # What has holes fails anyway, and says nothing of the rest.
        holed = {part.payload for part in held if part.check.cause is Cause.ZEROS}
        there = [part.payload for part in held if part.payload is not None]
        end = max((payload.end for payload in there), default=0)
        changing = sum(is_telling(payload) for payload in there if payload not in holed)
        sound, failed = self.case.sound, self.failed
        if file.undo is not None or sound is None:
            return end, changing
        end = max(end, sound.end_of(file.path))
        if failed is not None:
            end = max(end, failed.end_of(file.path))
            rows = failed.of_path(file.path)
            rows = failed.rows[rows[~failed.has_cause(Cause.ZEROS)[rows]]]
            changing += int(np.count_nonzero(are_telling(failed.plain, rows)))
        if changing <= most:
            rows = sound.rows_of(file.path)
            changing += int(np.count_nonzero(are_telling(sound.plain, rows)))
        return end, changing

    def _settle(self) -> None:
        """Note the cause of payloads that are in another place."""
        for part, payload in self.group.parts:
            place = find_place(self.files, self.group.places, payload)
            if place is not None:
                note = self._say_where(place)
                part.check = part.check.because(place.cause or part.check.cause, note)
        rows = self.group.rows
        for place in self.group.places:
            left = self._without(rows, [place])
            self._blame(rows[~np.isin(rows, left)], place.cause, self._say_where(place))
            rows = left

    def _say_where(self, place: Place) -> str:
        note = f"all its bytes are in {self._name(place.file.path)}"
        return f"{note}, {place.delta:+d} bytes from their place" if place.delta else note

    def _problem(self, code: str, message: str, *, fetch: tuple[str, ...] = ()) -> None:
        self.group.problems.append(Problem.of(code, self.group.file.path, message, fetch=fetch))


def _is_flipped(check: Check, payload: Payload) -> bool:
    """Tell whether one flipped bit explains a checksum, and this is not a chance hit."""
    crc = payload.crc32c
    if check.computed is None or crc is None or payload.form in (Form.STRINGS, Form.VARIANTS):
        return False
    return _explains_bit(crc, check.computed, payload.size)


def _explains_bit(stored: int, computed: int, size: int) -> bool:
    """Tell whether one flipped bit explains a checksum, and this is not a chance hit."""
    return chance_of_bit(size) <= HIGHEST_CHANCE and find_bit(stored, computed, size) is not None
