"""A checkpoint under examination: its tensors, their parts, and what checking these has found."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ckptparse.bundle.entry import count_elements
from ckptparse.dtypes import dtype_name
from ckptparse.examination.check import Check
from ckptparse.examination.failed_rows import FailedRows
from ckptparse.examination.index_view import IndexView
from ckptparse.examination.outcome import EvidenceRecord, Outcome, slices_note
from ckptparse.examination.part_spans import spans_of_parts
from ckptparse.examination.payload import ListedTensor, PartName, Payload
from ckptparse.examination.plain_rows import PlainRows
from ckptparse.examination.readers import DataFile, DataFiles
from ckptparse.examination.report import TensorReport
from ckptparse.examination.row_mapping import RowMapping
from ckptparse.examination.sound_rows import SoundRows
from ckptparse.examination.survey import identity_of
from ckptparse.files.context import Context
from ckptparse.identification import Identity, Indexes
from ckptparse.inventory.survey import Origin, Survey
from ckptparse.problems import Cause, Status
from ckptparse.slices import TensorSlice
from ckptparse.tensor import Region

__all__ = [
    "ATTEMPT_BYTES",
    "FILE_ATTEMPTS",
    "Case",
    "CheckedTensor",
    "Part",
    "RowTensors",
    "SoundTensors",
]

IntColumn = npt.NDArray[np.int64]

ATTEMPT_BYTES = 1 << 15
"""Bytes of the files for each damaged tensor that is repaired beyond `Limits.attempts`."""
FILE_ATTEMPTS = 8
"""Attempts that a damaged data file counts as: others are opened to find its bytes there."""
_LEAST_FILES = 8
"""Damaged data files that are examined whatever the limit is."""
_RANK = {status: number for number, status in enumerate(Status)}


@dataclass(slots=True)
class Part:
    """A payload of a tensor: all of it, or one slice.

    Attributes:
        payload: What the index says; None of a slice that is listed and not stored.
        check: What checking it found.
        region: Which part of the tensor it is; None if it is all of it.
        piece: The slice as the index lists it; None if it is no slice.
    """

    payload: Payload | None
    check: Check
    region: Region | None = None
    piece: TensorSlice | None = None

    @property
    def is_lost(self) -> bool:
        """Whether its bytes are known to be wrong, or are missing."""
        if self.payload is not None and self.payload.in_damaged_block:
            return True
        return self.check.status in (Status.CORRUPT, Status.MISSING, Status.PARTIAL)


def _with_source(outcome: Outcome, payload: Payload) -> Outcome:
    """Add to what became of a payload where its bytes lie, and what says so."""
    grounds = payload.grounds + outcome.grounds
    if outcome.status is Status.MISSING or not payload.size:
        return outcome.placed(outcome.source, grounds, outcome.patches) if grounds else outcome
    return outcome.placed(payload.place, grounds, outcome.patches)


@dataclass(slots=True)
class CheckedTensor:
    """A tensor, its parts checked.

    Attributes:
        tensor: What the index says.
        parts: One; of a sliced tensor one for each slice.
        layout: What is wrong with how the slices are laid out; None if nothing is.
    """

    tensor: ListedTensor
    parts: list[Part]
    layout: str | None = None

    @property
    def name(self) -> str:
        """Name of the tensor."""
        return self.tensor.name

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the whole."""
        return self.tensor.shape

    @property
    def data_type(self) -> int:
        """DataType number."""
        return self.tensor.data_type

    @property
    def is_sliced(self) -> bool:
        """Whether it is stored in slices."""
        return bool(self.tensor.slices)

    @property
    def rank(self) -> int:
        """How bad it is: 0 is verified."""
        if self.layout is None and not self.is_sliced:
            return _RANK[self.parts[0].check.status]
        return _RANK[self.outcome().status]

    def name_of(self, part: Part) -> PartName:
        """Return what a part is called."""
        return PartName(self.name, part.piece)

    def outcome(self) -> Outcome:
        """Return what is known of the whole tensor, from its parts."""
        if self.layout is not None:
            return Outcome(Status.CORRUPT, Cause.ENTRY, note=self.layout)
        if self.is_sliced:
            return _sum_up(self.parts, self.tensor)
        outcome, payload = self.parts[0].check.outcome, self.parts[0].payload
        return outcome if payload is None else _with_source(outcome, payload)

    def report(self, outcome: Outcome | None = None) -> TensorReport:
        """Return its line of the report, perhaps with another outcome than that of the checks."""
        outcome = self.outcome() if outcome is None else outcome
        if not self.tensor.has_kind:
            return TensorReport(outcome, self.name, None, None)
        return TensorReport(outcome, self.name, dtype_name(self.data_type), self.shape)


class _ByFile(NamedTuple):
    """Parts by data file, and what they were made of: if that changed, they are made anew."""

    state: tuple[int, int, int]
    parts: dict[DataFile, list[Part]]


@dataclass(slots=True)
class Case:
    """A checkpoint under examination.

    Attributes:
        survey: Its files.
        views: Its index, if it is there, and the indexes that a save left behind.
        absent: Path of the index, if there is none under its final name; else None.
        files: Its data files, open.
        tensors: Every tensor that any index names. Those of `sound` and `failed` are made when
            asked for.
        sound: Tensors of which nothing is wrong, as rows of columns; None if none are kept so.
        failed: Tensors of which something is wrong, likewise: those of a large number that no
            repair will be tried for, and those that are whole and share their bytes.
        orphans: Slices that no tensor lists, checked.
        rivals: Tensors, by name, of which the parts of one save say different things, checked.
        unfinished: Whether anything had to be taken from leftovers.
        left_out: How many tensors of the index were not looked at, since there are too many.
    """

    survey: Survey
    views: list[IndexView]
    files: DataFiles
    absent: str | None = None
    tensors: RowMapping[CheckedTensor] = field(default_factory=lambda: RowMapping.of({}))
    sound: SoundRows | None = None
    failed: FailedRows | None = None
    orphans: list[tuple[str, TensorSlice, Part]] = field(default_factory=list)
    rivals: dict[str, list[CheckedTensor]] = field(default_factory=dict)
    unfinished: bool = False
    left_out: int = 0
    _by_file: _ByFile | None = field(default=None, init=False, repr=False, compare=False)
    _identities: dict[str, Identity | None] = field(default_factory=dict, init=False, repr=False)
    _indexes: Indexes = field(default_factory=dict, init=False, repr=False)

    @property
    def context(self) -> Context:
        """Where its files lie, and how much they may ask for."""
        return self.files.context

    @property
    def most_files(self) -> int:
        """How many damaged data files may be examined for what happened to them."""
        limit, held = self.context.limits.attempts, self.files.held_bytes
        return max(_LEAST_FILES, limit // FILE_ATTEMPTS) + held // (FILE_ATTEMPTS * ATTEMPT_BYTES)

    @property
    def main(self) -> IndexView | None:
        """The index under its final name."""
        return next((view for view in self.views if view.origin is Origin.FINAL), None)

    def parts(self) -> Iterator[tuple[PartName, Part]]:
        """Iterate over every part of the tensors in use, and over the orphaned slices.

        It makes objects of sound tensors: `iter_held` is for what looks at others only.
        """
        return self._iter_parts(self.tensors.values())

    def whole_parts(self) -> Iterator[tuple[PartName, Part]]:
        """Iterate over the same, but for rows that have failed."""
        failed = self.failed
        bad = set() if failed is None else set(failed.rows[~failed.good].tolist())
        names = (name for name in self.tensors if self.tensors.row(name) not in bad)
        return self._iter_parts(self.tensors[name] for name in names)

    def held_in(self, file: DataFile) -> Sequence[Part]:
        """Return those of `iter_held` that belong into a data file."""
        held = self.tensors.held
        state = id(held), len(held), len(self.orphans)
        if self._by_file is None or self._by_file.state != state:
            found: dict[DataFile, list[Part]] = {}
            for part in self.iter_held():
                if part.payload is not None:
                    found.setdefault(part.payload.file, []).append(part)
            self._by_file = _ByFile(state, found)
        return self._by_file.parts.get(file, ())

    def held_parts(self) -> Iterator[tuple[PartName, Part]]:
        """Iterate over the same, but for the tensors of `sound` and of `failed`."""
        return self._iter_parts(self.tensors.held.values())

    def iter_held(self) -> Iterator[Part]:
        """Iterate over the same without their names, which takes a fifth of the time."""
        held = chain.from_iterable(checked.parts for checked in self.tensors.held.values())
        return chain(held, (part for _, _, part in self.orphans))

    def _iter_parts(self, tensors: Iterable[CheckedTensor]) -> Iterator[tuple[PartName, Part]]:
        for checked in tensors:
            for part in checked.parts:
                yield checked.name_of(part), part
        for name, piece, part in self.orphans:
            yield PartName(name, piece), part

    def failed_parts(self, numbers: IntColumn) -> Iterator[tuple[PartName, Part]]:
        """Make the parts of some tensors of `failed`, by their numbers there."""
        if self.failed is not None:
            for number in numbers.tolist():
                name = self.failed.names[number]
                yield PartName(name), self.tensors[name].parts[0]

    def checked_in(self, file: DataFile) -> Iterator[tuple[Part, Payload]]:
        """Iterate over the parts of a data file that have a checksum, but for those of rows."""
        for part in self.held_in(file):
            payload = part.payload
            if payload is not None and payload.crc32c is not None:
                yield part, payload

    def end_of(self, file: DataFile) -> int:
        """Return where the last payload of a data file ends that has a checksum."""
        end = max((one.end for _, one in self.checked_in(file)), default=0)
        return max([end, *(rows.end_of(file.path) for rows in self.rows_of(file))])

    def size_of(self, file: DataFile) -> int:
        """Return how many bytes all payloads of a data file have that have a checksum."""
        size = sum(one.size for _, one in self.checked_in(file))
        return size + sum(rows.size_of(file.path) for rows in self.rows_of(file))

    def rows_of(self, file: DataFile) -> list[SoundRows | FailedRows]:
        """Return what is kept as rows of a data file, as that is stored."""
        known = (self.sound, self.failed)
        return [rows for rows in known if rows is not None and file.undo is None]

    def identity_of(self, path: str) -> Identity | None:
        """Identify a file, once; None if it cannot be read.

        Raises:
            PermissionDeniedError: It may not be read.
        """
        if path not in self._identities:
            self._identities[path] = identity_of(path, self.context, self._indexes)
        return self._identities[path]

    def payload_files(self) -> set[DataFile]:
        """Return the data files that payloads belong into."""
        found = {part.payload.file for part in self.iter_held() if part.payload is not None}
        for rows in (self.sound, self.failed):
            found.update(DataFile(path) for path in (rows.paths if rows is not None else ()))
        return found

    def replace_tensors(self, tensors: Mapping[str, CheckedTensor]) -> None:
        """Take other tensors in place of those of the same names, or beside them."""
        self.tensors.update(tensors)
        self._by_file = None
        if self.failed is not None and not tensors.keys().isdisjoint(self.failed.names):
            left = np.array([name not in tensors for name in self.failed.names], np.bool_)
            self.failed = self.failed.take(left)
            self.tensors.make = RowTensors(self.failed.plain, self.failed)


@dataclass(frozen=True, slots=True)
class RowTensors:
    """Makes the tensors of rows, of which some have failed."""

    rows: PlainRows
    failed: FailedRows

    def __call__(self, name: str, row: int) -> CheckedTensor:
        """Make one."""
        number = self.failed.number(row)
        if number is None:
            return SoundTensors(self.rows)(name, row)
        listed = self.rows.listed(name, row)
        payload = listed.payload or self.rows.payload(row)
        return CheckedTensor(listed, [Part(payload, self.failed.check(number, payload))])


@dataclass(frozen=True, slots=True)
class SoundTensors:
    """Makes the tensors of rows that are sound."""

    rows: PlainRows

    def __call__(self, name: str, row: int) -> CheckedTensor:
        """Make one."""
        listed = self.rows.listed(name, row)
        whole = ((0, count_elements(listed.shape)),)
        check = Check(Outcome(Status.VERIFIED, ranges=whole))
        return CheckedTensor(listed, [Part(listed.payload, check)])


def _sum_up(parts: Sequence[Part], tensor: ListedTensor) -> Outcome:
    """Judge a sliced tensor by its slices."""
    outcomes = [part.check.outcome for part in parts]
    statuses = {outcome.status for outcome in outcomes}
    whole = ((0, count_elements(tensor.shape)),)
    grounds = _grounds_of(parts)
    if statuses <= {Status.VERIFIED}:
        if tensor.proved:
            return Outcome(Status.VERIFIED, ranges=whole, grounds=grounds)
        return Outcome(
            Status.UNVERIFIED, Cause.ENTRY, ranges=whole, note=tensor.doubt, grounds=grounds
        )
    worst = max(outcomes, key=lambda outcome: _RANK[outcome.status])
    ranges = spans_of_parts(
        [(part.region, part.check.outcome.ranges) for part in parts], tensor.shape
    )
    good = sum(outcome.status is Status.VERIFIED for outcome in outcomes)
    note = slices_note(outcomes, good, "are whole")
    if statuses <= {Status.VERIFIED, Status.UNVERIFIED}:
        return Outcome(Status.UNVERIFIED, worst.cause, ranges=whole, note=note, grounds=grounds)
    if ranges:
        cause = _cause_of(outcomes)
        return Outcome(Status.PARTIAL, cause, ranges=ranges, note=note, grounds=grounds)
    return Outcome(worst.status, worst.cause, note=note, grounds=grounds)


def _grounds_of(parts: Sequence[Part]) -> tuple[EvidenceRecord, ...]:
    """Return the evidence of all slices, each record once."""
    found = (
        _with_source(part.check.outcome, part.payload).evidence
        for part in parts
        if part.payload is not None
    )
    return tuple(dict.fromkeys(record for records in found for record in records))


def _cause_of(outcomes: Sequence[Outcome]) -> Cause | None:
    """Return the cause. A missing shard comes before the others."""
    causes = [outcome.cause for outcome in outcomes if outcome.cause is not None]
    return next((cause for cause in causes if cause is Cause.SHARD), causes[0] if causes else None)
