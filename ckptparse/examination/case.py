"""Check everything that the indexes of a checkpoint say against its data files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import compress
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ckptparse.bundle.entry import count_elements
from ckptparse.dtypes import dtype_name
from ckptparse.errors import CheckpointError, LimitError
from ckptparse.examination.check import Check, check_payload
from ckptparse.examination.failed_rows import FailedRows, examine_rows
from ckptparse.examination.index_view import OBJECT_GRAPH, IndexView, read_view
from ckptparse.examination.outcome import EvidenceRecord, Outcome
from ckptparse.examination.part_spans import spans_of_parts
from ckptparse.examination.payload import Form, ListedTensor, PartName, Payload
from ckptparse.examination.plain_rows import PlainRows
from ckptparse.examination.readers import DataFile, DataFiles
from ckptparse.examination.record_rows import RecordRows, find_sound_records
from ckptparse.examination.report import TensorReport
from ckptparse.examination.row_mapping import RowMapping
from ckptparse.examination.salvaged import ENTRY_BYTES, FAILED_BYTES, ROW_BYTES
from ckptparse.examination.sound_rows import SoundRows, find_sound
from ckptparse.examination.survey import identity_of
from ckptparse.filenames import INDEX_SUFFIX
from ckptparse.files.context import Context
from ckptparse.identification import Identity, Indexes
from ckptparse.inventory.survey import Origin, Survey
from ckptparse.limits import Limits
from ckptparse.problems import Cause, Status
from ckptparse.slices import SliceGrid, TensorSlice
from ckptparse.tensor import Region

__all__ = [
    "ATTEMPT_BYTES",
    "FILE_ATTEMPTS",
    "Case",
    "CheckedTensor",
    "Part",
    "RowTensors",
    "SoundTensors",
    "check_all",
    "check_tensors",
    "open_case",
    "report_left",
    "with_source",
]

IntColumn = npt.NDArray[np.int64]

ATTEMPT_BYTES = 1 << 15
"""Bytes of the files for each damaged tensor that is repaired beyond `Limits.attempts`."""
FILE_ATTEMPTS = 8
"""Attempts that a damaged data file counts as: others are opened to find its bytes there."""
_INDEX_SHIFT = 16
"""Beyond `Limits.shards` one index is looked at for each 64 KiB: each takes half a millisecond."""
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


def with_source(outcome: Outcome, payload: Payload) -> Outcome:
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
        return outcome if payload is None else with_source(outcome, payload)

    def report(self, outcome: Outcome | None = None) -> TensorReport:
        """Return its line of the report, perhaps with another outcome than that of the checks."""
        outcome = self.outcome() if outcome is None else outcome
        if not self.tensor.has_kind:
            return TensorReport(outcome, self.name, None, None)
        return TensorReport(outcome, self.name, dtype_name(self.data_type), self.shape)


class _ByFile(NamedTuple):
    """Parts by data file, and what they were made of: if that changed, they are made anew."""

    state: tuple[int, int, int]
    parts: dict[DataFile, list[tuple[PartName, Part]]]


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

        It makes objects of sound tensors: `held_parts` is for what looks at others only.
        """
        return self._iter_parts(self.tensors.values())

    def whole_parts(self) -> Iterator[tuple[PartName, Part]]:
        """Iterate over the same, but for rows that have failed."""
        failed = self.failed
        bad = set() if failed is None else set(failed.rows[~failed.good].tolist())
        names = (name for name in self.tensors if self.tensors.row(name) not in bad)
        return self._iter_parts(self.tensors[name] for name in names)

    def held_in(self, file: DataFile) -> Sequence[tuple[PartName, Part]]:
        """Return those of `held_parts` that belong into a data file."""
        held = self.tensors.held
        state = id(held), len(held), len(self.orphans)
        if self._by_file is None or self._by_file.state != state:
            found: dict[DataFile, list[tuple[PartName, Part]]] = {}
            for name, part in self.held_parts():
                if part.payload is not None:
                    found.setdefault(part.payload.file, []).append((name, part))
            self._by_file = _ByFile(state, found)
        return self._by_file.parts.get(file, ())

    def held_parts(self) -> Iterator[tuple[PartName, Part]]:
        """Iterate over the same, but for the tensors of `sound` and of `failed`."""
        return self._iter_parts(self.tensors.held.values())

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
        for _, part in self.held_in(file):
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
        found = {part.payload.file for _, part in self.held_parts() if part.payload is not None}
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


def open_case(
    survey: Survey, context: Context, *, files: DataFiles | None = None, correct: bool = False
) -> Case:
    """Read what lists the tensors of a checkpoint: its indexes, or its V1 files.

    Args:
        survey: Its files.
        context: Where they lie, and how much they may ask for.
        files: What opens them, if they are open already.
        correct: Whether to correct a block of an index if one flipped bit explains its checksum.
    """
    files = DataFiles(context) if files is None else files
    files.hold(survey.paths)
    if not survey.has_index:
        from ckptparse.examination.legacy_view import read_legacy_view

        files.begin(2 * files.held_bytes)
        return Case(survey, [read_legacy_view(survey, files, correct=correct)], files)
    limits = context.limits
    most = limits.shards
    if len(survey.indexes) > most:
        most += files.held_bytes >> _INDEX_SHIFT
    views = [read_view(index, survey, files, correct=correct) for index in survey.indexes[:most]]
    if left := len(survey.indexes) - len(views):
        message = (
            f"{left:,} more indexes that saves left behind were not looked at: Limits.shards "
            f"allows {limits.shards:,}, and one for each 64 KiB of the files"
        )
        views[0].report("limit.reached", survey.prefix, message)
    there = any(index.origin is Origin.FINAL for index in survey.indexes)
    return Case(survey, views, files, None if there else survey.prefix + INDEX_SUFFIX)


def check_all(case: Case) -> None:
    """Check every tensor. What the index does not prove is looked for in leftovers."""
    main = case.main
    if main is not None:
        _check_main(case, main)
        case.orphans = [
            (name, piece, Part(payload, check_payload(case.files, payload)))
            for name, piece, payload in main.orphans
        ]
    whole = main is not None and main.complete and _is_whole(case)
    if not whole:
        _take_leftovers(case, main)


def _is_whole(case: Case) -> bool:
    if case.failed is not None and not case.failed.good.all():
        return False
    return all(one.rank == 0 for one in case.tensors.held.values())


def _check_main(case: Case, main: IndexView) -> None:
    """Check the tensors of the index: its rows all together, and one by one what is not sound."""
    listed = main.tensors
    if main.rows is None or not isinstance(listed, RowMapping):
        case.tensors = RowMapping.of(
            {one.name: one for one in check_tensors(listed.values(), case)}
        )
        return
    if OBJECT_GRAPH in listed:
        # It is no tensor: it is checked by itself, also if it is none that can be read.
        listed[OBJECT_GRAPH] = listed[OBJECT_GRAPH]
    rows = listed.rows()
    if isinstance(main.rows, RecordRows):
        _check_records(case, main, main.rows, listed)
        return
    others = [payload for one in listed.held.values() for payload in _payloads_of(one)]
    orphans = [payload for _, _, payload in main.orphans]
    numbers = np.fromiter(rows.values(), np.int64, len(rows))
    sizes = sum(main.rows.columns.sizes[numbers].tolist())
    case.files.begin(sizes + sum(one.size for one in others))
    sound = np.isin(numbers, find_sound(case.files, main.rows, numbers, others, orphans))
    names = rows if sound.all() else dict(compress(rows.items(), sound.tolist()))
    case.sound = SoundRows(main.rows, names)
    looked = _leave_many(case, main, ~sound)
    if len(looked) < len(sound) - len(names):
        listed.keep(np.concatenate((numbers[sound], numbers[looked])))
    chosen = np.zeros(len(sound), np.bool_)
    chosen[looked] = True
    doubtful = dict(compress(rows.items(), chosen.tolist()))
    failed = _find_failed(case, main.rows, doubtful)
    known = 0 if failed is None else len(failed)
    try:
        count = len(doubtful) - known
        case.files.budget.take((ENTRY_BYTES - ROW_BYTES) * count + FAILED_BYTES * known)
    except LimitError as error:
        main.report("limit.reached", main.path, error.message)
        case.tensors, case.sound = RowMapping.of({}), None
        main.tensors, main.rows, main.complete = {}, None, False
        main.orphans.clear()
        case.files.finish()
        return
    case.failed = failed
    _check_others(case, case.sound, listed)


def _leave_many(case: Case, main: IndexView, doubtful: npt.NDArray[np.bool_]) -> IntColumn:
    """Return the places of what is not sound, but for those beyond `Limits.small_tensors`."""
    limits = case.context.limits
    places = np.flatnonzero(doubtful)
    # One of them takes up to 20 µs.
    most = limits.most_small(case.files.held_bytes)
    if len(places) <= most:
        return places
    case.left_out = len(places) - most
    what = (
        f"{case.left_out:,} more tensors are damaged, or share bytes, and were not looked at: "
        f"Limits.small_tensors allows {limits.small_tensors:,}, and one for each 512 bytes of the "
        "files"
    )
    main.report("limit.reached", main.path, what)
    main.complete = False
    return places[:most]


def _check_records(
    case: Case, main: IndexView, plain: RecordRows, listed: RowMapping[ListedTensor]
) -> None:
    """Check the tensors of V1 files; those after many that do not decode are left out."""
    rows = listed.rows()
    numbers = np.fromiter(rows.values(), np.int64, len(rows))
    most = case.files.singles.most
    found, refused = find_sound_records(plain, numbers, case.context.limits, most=most)
    sound = set(found.tolist())
    case.sound = SoundRows(plain, {name: row for name, row in rows.items() if row in sound})
    looked = np.concatenate((found, refused))
    if left := len(rows) - len(looked):
        listed.keep(looked)
        report_left(main, left, case.context.limits)
    _check_others(case, case.sound, listed)


def _check_others(case: Case, sound: SoundRows, listed: RowMapping[ListedTensor]) -> None:
    """Check one by one what is neither sound nor known to have failed."""
    failed = case.failed
    known = sound.numbers if failed is None else np.concatenate((sound.numbers, failed.rows))
    doubtful = [listed[name] for name in listed.names_without(known)]
    held = {one.name: one for one in check_tensors(doubtful, case)}
    make = SoundTensors(sound.plain) if failed is None else RowTensors(sound.plain, failed)
    case.tensors = listed.with_held(make, held)


def report_left(view: IndexView, count: int, limits: Limits) -> None:
    """Report that so many tensors of a V1 checkpoint, which are not whole, are not looked at."""
    what = (
        f"{count:,} more tensors are damaged, or in slices, and were not looked at: "
        f"Limits.single_entries allows {limits.single_entries:,}, and one for each 4 KiB of the "
        "files"
    )
    view.report("limit.reached", view.path, what)
    view.complete = False


def _find_failed(case: Case, plain: PlainRows, rows: Mapping[str, int]) -> FailedRows | None:
    """Check rows that are not sound. Of many of them, return those that can stay columns.

    These are rows that are whole and overlap others, and those that fail after as many as repairs
    will be tried for.
    """
    held = case.files.held_bytes + case.files.evidence_bytes
    most = case.context.limits.attempts + held // ATTEMPT_BYTES
    if len(rows) <= most:
        return None
    order = sorted(rows, key=rows.__getitem__)
    numbers = np.fromiter((rows[name] for name in order), np.int64, len(order))
    found = examine_rows(case.files, plain, numbers, order)
    kept = found.good | (np.cumsum(~found.good) > most)
    return found.take(kept)


def _payloads_of(tensor: ListedTensor) -> Iterator[Payload]:
    for payload in (tensor.payload, *(payload for _, payload in tensor.slices)):
        if payload is not None:
            yield payload


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


def _take_leftovers(case: Case, main: IndexView | None) -> None:
    """Take what is better in the leftovers of one save. Leftovers of several are never mixed."""
    saves: dict[str, list[IndexView]] = {}
    for view in case.views:
        if view.origin.is_leftover and view.tensors and _is_same_save(case, main, view):
            alone = view.origin is Origin.TEMPORARY
            folder = case.context.storage.split(view.path)[0]
            saves.setdefault(view.path if alone else folder, []).append(view)
    best: dict[str, CheckedTensor] = {}
    for views in saves.values():
        merged, rivals = _merge(views)
        found = {one.name: one for one in check_tensors(merged, case)}
        if _count_whole(found) > _count_whole(best) or not best:
            best = found
            case.rivals = {name: check_tensors(these, case) for name, these in rivals.items()}
    incomplete = main is None or not main.complete
    better: dict[str, CheckedTensor] = {}
    for name, checked in best.items():
        known = case.tensors.get(name)
        if incomplete if known is None else checked.rank < known.rank:
            better[name] = checked
            case.unfinished = True
    case.replace_tensors(better)


def _merge(
    views: Sequence[IndexView],
) -> tuple[list[ListedTensor], dict[str, list[ListedTensor]]]:
    """Put the parts of one save together. Of a sliced tensor each part lists its own slices.

    Returns:
        The tensors; and by name, if parts disagree about a tensor, what each of them says of it.
    """
    merged: dict[str, ListedTensor] = {}
    rivals: dict[str, list[ListedTensor]] = {}
    for view in views:
        for name, tensor in view.tensors.items():
            known = merged.get(name)
            if known is not None and known.slices and tensor.slices:
                proved = known.proved and tensor.proved
                slices = known.slices + tensor.slices
                merged[name] = replace(known, slices=slices, proved=proved)
            elif known is None:
                merged[name] = tensor
            elif not _agree(known, tensor):
                rivals.setdefault(name, [_contested(known)]).append(_contested(tensor))
                merged[name] = rivals[name][0]
    return list(merged.values()), rivals


def _agree(first: ListedTensor, second: ListedTensor) -> bool:
    """Tell whether two parts say that a tensor has the same value."""
    one, other = first.payload, second.payload
    if one is None or other is None or one.crc32c is None:
        return False
    kind = (first.data_type, first.shape) == (second.data_type, second.shape)
    return kind and (one.size, one.crc32c) == (other.size, other.crc32c)


def _contested(tensor: ListedTensor) -> ListedTensor:
    """Mark a tensor: another part of the save says something else of it."""
    doubt = "the parts of the save hold different values of it"
    payload = tensor.payload
    if payload is not None:
        payload = replace(payload, proved=False, doubt=doubt, contested=True)
    return replace(tensor, proved=False, doubt=doubt, payload=payload)


def _is_same_save(case: Case, main: IndexView | None, view: IndexView) -> bool:
    """Tell whether a leftover index can be of the save that wrote the final data files.

    If its data is not in the final data files, it is of another save.
    """
    if main is None or not main.tensors:
        return True
    final = set(case.survey.data_files.values())
    return all(payload.file.path in final for _, payload in view.iter_payloads())


def _count_whole(tensors: dict[str, CheckedTensor]) -> int:
    return sum(checked.rank == 0 for checked in tensors.values())


def _prove_order(parts: Sequence[Part]) -> None:
    """Prove the byte order if the header is lost.

    The checksum over the lengths of strings is computed in that byte order (docs/format.md, section
    2.8). If it agrees for one string tensor, the byte order is right for all of the same index.
    """
    known = {
        (part.payload.index, part.payload.big_endian)
        for part in parts
        if part.payload is not None
        and part.payload.waiting
        and part.check.status is Status.UNVERIFIED
        and part.check.cause is Cause.ENTRY
        and part.payload.form is Form.STRINGS
        and part.check.outcome.ranges
    }
    for part in parts:
        payload = part.payload
        if payload and payload.waiting and (payload.index, payload.big_endian) in known:
            part.payload = replace(payload, proved=True, waiting=False)
            if part.check.cause is Cause.ENTRY and part.check.status is Status.UNVERIFIED:
                ranges = part.check.outcome.ranges
                part.check = Check(Outcome(Status.VERIFIED, ranges=ranges))


def check_tensors(tensors: Iterable[ListedTensor], case: Case) -> list[CheckedTensor]:
    """Check tensors, and return them in the order given. They are read in the files' order."""
    checked = [_lay_out(tensor) for tensor in tensors]
    parts = [part for one in checked for part in one.parts if part.payload is not None]
    parts.sort(key=_place)
    if not case.files.is_watched:
        case.files.begin(sum(part.payload.size for part in parts if part.payload))
    for part in parts:
        if part.payload is not None:
            part.check = check_payload(case.files, part.payload)
    case.files.finish()
    _prove_order(parts)
    return checked


def _place(part: Part) -> tuple[str, int]:
    return (part.payload.file.path, part.payload.offset) if part.payload else ("", 0)


_UNSTORED = Check(
    Outcome(Status.MISSING, Cause.SLICE, note="the index lists a slice that is not stored")
)
_UNRECORDED = Check(
    Outcome(Status.MISSING, Cause.UNKNOWN, note="the record with its values is lost")
)


def _lay_out(tensor: ListedTensor) -> CheckedTensor:
    """Make the parts of a tensor, and check that slices fit it."""
    if not tensor.has_kind:
        outcome = Outcome(Status.MISSING, Cause.UNKNOWN, note=tensor.doubt)
        return CheckedTensor(tensor, [Part(None, Check(outcome))])
    if not tensor.slices:
        return CheckedTensor(tensor, [Part(tensor.payload, _UNRECORDED)])
    loose = [
        Part(payload, _UNSTORED, piece=piece)
        for piece, payload in tensor.slices
        if payload is not None
    ]
    try:
        grid = SliceGrid([piece for piece, _ in tensor.slices], tensor.shape)
    except CheckpointError as error:
        return CheckedTensor(tensor, loose, error.message)
    parts = []
    for piece, payload in tensor.slices:
        region = piece.resolve(tensor.shape)
        lengths = tuple(map(len, region))
        said = (lengths, tensor.data_type)
        if payload is not None and (payload.shape, payload.data_type) != said:
            return CheckedTensor(
                tensor, loose, f"slice {piece} has another shape or dtype than its tensor says"
            )
        parts.append(Part(payload, _UNSTORED, region, piece))
    gap = grid.find_missing(tuple(map(range, tensor.shape)))
    if gap is not None:
        note = f"no listed slice covers {gap}"
        parts.append(Part(None, _UNSTORED.because(Cause.SLICE, note)))
    return CheckedTensor(tensor, parts)


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
    notes = sorted({outcome.note for outcome in outcomes if outcome.note})
    good = sum(outcome.status is Status.VERIFIED for outcome in outcomes)
    note = f"{good} of {len(parts)} slices are whole; {'; '.join(notes[:3])}"
    if statuses <= {Status.VERIFIED, Status.UNVERIFIED}:
        return Outcome(Status.UNVERIFIED, worst.cause, ranges=whole, note=note, grounds=grounds)
    if ranges:
        cause = _cause_of(outcomes)
        return Outcome(Status.PARTIAL, cause, ranges=ranges, note=note, grounds=grounds)
    return Outcome(worst.status, worst.cause, note=note, grounds=grounds)


def _grounds_of(parts: Sequence[Part]) -> tuple[EvidenceRecord, ...]:
    """Return the evidence of all slices, each record once."""
    found = (
        with_source(part.check.outcome, part.payload).evidence
        for part in parts
        if part.payload is not None
    )
    return tuple(dict.fromkeys(record for records in found for record in records))


def _cause_of(outcomes: Sequence[Outcome]) -> Cause | None:
    """Return the cause. A missing shard comes before the others."""
    causes = [outcome.cause for outcome in outcomes if outcome.cause is not None]
    return next((cause for cause in causes if cause is Cause.SHARD), causes[0] if causes else None)
