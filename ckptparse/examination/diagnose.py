"""Find out where the bytes of a data file really are, and what happened to the damaged ones.

These are tried in this order, each against the checksums of the tensors:

1. other files of the same directory: shards that were swapped or renamed, or are of another save
2. the file with a conversion of line ends undone
3. the same bytes some distance from their place, found by their checksum

What is left is one flipped bit, or an index and a data file of different saves (`unexplained`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain

import numpy as np

from ckptparse.crc.flips import HIGHEST_CHANCE
from ckptparse.examination.case import FILE_ATTEMPTS, Case
from ckptparse.examination.check import Check, fits
from ckptparse.examination.conversions import LineEnds, UndoneLineEnds, find_line_ends
from ckptparse.examination.copied_index import find_owner, holds_other_weights
from ckptparse.examination.damaged_file import NO_ROWS, ByOffset, DamagedFile, iter_damaged
from ckptparse.examination.lone_places import WholePayloads
from ckptparse.examination.neighbours import is_anothers
from ckptparse.examination.outcome import Outcome
from ckptparse.examination.payload import Form, Payload
from ckptparse.examination.places import (
    LEAST_SAMPLE,
    LEAST_SOUGHT,
    NO_CHANCE,
    IntColumn,
    Place,
    Searched,
    Shift,
    Twins,
    are_telling,
    find_place,
    find_shifts,
    is_telling,
)
from ckptparse.examination.readers import DataFile, DataFiles
from ckptparse.examination.unexplained import tell_apart
from ckptparse.filenames import is_data_file, may_be_data_file, split_data_path
from ckptparse.files.storage import FileStat
from ckptparse.identification.identity import fetching_commands
from ckptparse.inventory.folders import MOST_NAMES, Folders, names_around
from ckptparse.problems import Cause, Problem, Status

__all__ = ["Diagnosis", "diagnose"]

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
    groups = list(iter_damaged(case))
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
        group: DamagedFile,
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
            tell_apart(self.case, group, self.size)
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
        self.group.report(code, message, fetch=fetching_commands(identity.kind))
        note = f"its data file is {identity.meaning}"
        for part, _ in self.group.parts:
            if mangled:
                part.check = part.check.because(Cause.TEXT)
            else:
                # None of its bytes belong to a tensor, however many it has.
                part.check = Check(Outcome(Status.MISSING, Cause.FOREIGN, note=note))
        if mangled:
            self.group.blame(self.group.rows, Cause.TEXT)
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
            self.group.report("shard.renamed", f"its bytes are in {name}")
        elif own and other and own[0] == other[0]:
            self.group.report("shard.swapped", f"bytes of this file are in {name}")
        else:
            self.group.report(
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
        good = ByOffset(held, self.failed, self._sought_rows(LEAST_SAMPLE))
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
                self.group.report("shard.renamed", message)
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
        self.group.report("shard.text", found.value)
        for part, _ in self.group.parts:
            part.check = part.check.because(Cause.TEXT)
        self.group.blame(self.group.rows, Cause.TEXT)
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
            if self._is_sought(payload, LEAST_SOUGHT) and not self.group.is_placed(payload)
        ]
        rows = self.group.without(self._sought_rows(LEAST_SOUGHT), self.group.places)
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
            self.group.compared
            <= _COMPARED * attempts + self.case.size_of(self.group.file) // _COMPARED_BYTES
        ):
            return True
        message = (
            f"not all tensors were sought at all distances at which one was found: "
            f"Limits.attempts ({attempts}) allows {_COMPARED:,} comparisons each, and one for each "
            f"{_COMPARED_BYTES} bytes of the file"
        )
        self.group.report("limit.reached", message)
        return False

    def _choose(self, held: list[Payload], rows: IntColumn) -> list[Payload]:
        """Choose what is sought, spread over the file. One pass finds all that is chosen."""
        if not self.deep:
            held = [payload for payload in held if payload.size <= _SOUGHT_BY_VERIFY]
            if self.failed is not None:
                rows = rows[self.failed.sizes[rows] <= _SOUGHT_BY_VERIFY]
        waiting = ByOffset(held, self.failed, rows)
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
        rows_left = self.group.without(rows, [place])
        found = len(held) + len(rows) - len(left) - len(rows_left)
        if not found:
            # Strings: the bytes alone have the checksum, by chance, and their lengths do not.
            return waiting
        if found > 1:
            # Two payloads at the same distance do not lie there by chance.
            place = replace(place, chance=NO_CHANCE)
        else:
            place = replace(place, alone=self._span_of_one(place, held, rows))
            if self._is_denied(place):
                return waiting
        self.group.places.append(place)
        if file == self.group.file and place.chance <= HIGHEST_CHANCE:
            self.group.report("shard.shifted", f"bytes of it are {delta:+d} bytes from their place")
        return left, rows_left

    def _is_denied(self, place: Place) -> bool:
        """Tell whether one payload lies in a place by chance only, as far as the others tell."""
        if place.alone is None or place.chance <= HIGHEST_CHANCE or place.file != self.group.file:
            return False
        return self.whole.deny(*place.alone, place.delta)

    @cached_property
    def whole(self) -> WholePayloads:
        """What is whole in the file."""
        return WholePayloads(self.case, self.group.file)

    def _span_of_one(
        self, place: Place, held: Sequence[Payload], rows: IntColumn
    ) -> tuple[int, int] | None:
        """Return where in the data file the first payload belongs that lies in a place."""
        for one, lies in zip(held, place.hold_each(self.files, held), strict=True):
            if lies:
                return one.offset, one.end
        there = rows[np.isin(rows, self.group.rows[self.group.hold(place)])]
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
            self.group.report("set.mixed", message)
            note = f"its checksum is that of {name}, and its bytes are those of another save"
            for part, payload in group.parts:
                if self.group.is_open(part) and place.holds(self.files, payload):
                    part.check = part.check.because(Cause.MIXED, note)
            mine = group.rows[self.group.hold(place)]
            self.group.blame(mine[np.isin(mine, self.group.open_rows())], Cause.MIXED, note)

    def _owner_of(self, place: Place) -> str | None:
        if place.cause not in (Cause.SWAPPED, None):
            return None
        owner = find_owner(place.file.path, self.case.survey.prefix, self.case.context)
        if owner is None:
            return None
        held = [one for _, one in self.group.parts if place.holds(self.files, one)]
        failing = ByOffset(held, self.failed, self.group.rows[self.group.hold(place)])
        other = holds_other_weights(self.files, failing, place)
        return owner if other and not self._has_moved(failing) else None

    def _has_moved(self, failing: Sequence[Payload]) -> bool:
        """Tell whether most of some payloads are whole in the file itself, further on."""
        told = [one for one in failing if self._is_sought(one, LEAST_SOUGHT)]
        sought = self._choose(told, NO_ROWS)
        shifts = find_shifts(self.files, self.group.file, sought, far=self.deep)[:_ROUNDS]
        whole = [
            any(fits(self.files, one.moved(one.file, shift.delta)) for shift in shifts)
            for one in sought
        ]
        return 2 * sum(whole) > len(whole)

    def _settle(self) -> None:
        """Note the cause of payloads that are in another place."""
        for part, payload in self.group.parts:
            place = find_place(self.files, self.group.places, payload)
            if place is not None:
                note = self._say_where(place)
                part.check = part.check.because(place.cause or part.check.cause, note)
        rows = self.group.rows
        for place in self.group.places:
            left = self.group.without(rows, [place])
            self.group.blame(rows[~np.isin(rows, left)], place.cause, self._say_where(place))
            rows = left

    def _say_where(self, place: Place) -> str:
        note = f"all its bytes are in {self._name(place.file.path)}"
        return f"{note}, {place.delta:+d} bytes from their place" if place.delta else note
