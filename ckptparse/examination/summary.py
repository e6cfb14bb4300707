"""Make a report of what was checked: problems, and the map of every file."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ckptparse.errors import PermissionDeniedError
from ckptparse.examination.around import fingerprint_problems, graph_problems, state_problems
from ckptparse.examination.case import Case, CheckedTensor, Part
from ckptparse.examination.check import Check
from ckptparse.examination.failed_rows import STATES, FailedRows
from ckptparse.examination.index_view import OBJECT_GRAPH
from ckptparse.examination.readers import DataFile
from ckptparse.examination.report import (
    ExaminedTensors,
    FileRange,
    FileReport,
    OtherCheckpoint,
    Report,
    TensorReport,
)
from ckptparse.examination.stored_spans import SpanColumns, Stored, join_spans, kind_of
from ckptparse.filenames import is_data_file, shard_path
from ckptparse.inventory.survey import Origin
from ckptparse.problems import Cause, Problem, Severity, Status
from ckptparse.text import clean, count

__all__ = ["make_report", "sort_names", "sort_problems"]

IntColumn = npt.NDArray[np.int64]

_CODES = {
    Cause.ZEROS: "tensor.zeros",
    Cause.TRUNCATED: "tensor.truncated",
    Cause.ENTRY: "tensor.entry",
    Cause.NO_CHECKSUM: "tensor.no_checksum",
    Cause.SLICE: "slice.missing",
}
_MOST_TOLD = 10_000
"""Rows that have failed of which each has a problem of its own: one problem counts the others.
Every tensor's report says what is wrong with it."""
_MOST_PLACES = 1000
"""Gaps of a data file of which each has a problem, and overlaps: one problem counts the others."""
_FEW_SPANS = 64
"""Payloads of a data file that are sorted as objects. For more, columns take less time."""
_FEW = 5
"""Names that a message lists."""


def make_report(
    case: Case, problems: Sequence[Problem], others: Sequence[OtherCheckpoint] = ()
) -> Report:
    """Make the report of a checkpoint: of its tensors, its files, and what is beside them."""
    known = case.tensors.get(OBJECT_GRAPH)
    graph = None if known is None else known.report()
    found = [*_iter_index_problems(case), *problems]
    files: dict[str, FileReport] = {}
    for view in case.views:
        files.update(view.files)
    found += _shard_problems(case, files)
    found += _iter_tensors_problems(case)
    found += _iter_orphan_problems(case)
    found += _iter_graph_problems(case, graph)
    found += state_problems(case.survey, case.context)
    found += _iter_leftover_problems(case, files)
    found += _iter_rival_problems(case)
    if case.main is not None:
        found += fingerprint_problems(case.survey, case.context, case.main.path, files)
    return Report(
        case.survey.prefix,
        case.survey.format,
        _report_tensors(case),
        files,
        sort_problems(found),
        graph,
        tuple(others),
        names_all=case.main is not None and case.main.complete,
        limits=case.context.limits,
        left_out=case.left_out,
    )


def _report_tensors(case: Case) -> Mapping[str, TensorReport]:
    """Report the tensors, sorted by the bytes of their names, as an index is sorted."""
    order = sort_names(name for name in case.tensors if name != OBJECT_GRAPH)
    if case.sound is None:
        return {name: case.tensors[name].report() for name in order}
    make = RowReports(case.tensors.make)
    tensors = case.tensors.remade(make, lambda _, one: one.report(), order)
    statuses = Counter({Status.VERIFIED: len(case.sound.names)})
    if case.failed is None:
        return ExaminedTensors(tensors, statuses)
    statuses.update(case.failed.statuses())
    numbers = np.flatnonzero(~case.failed.good).tolist()
    return ExaminedTensors(tensors, statuses, [case.failed.names[one] for one in numbers])


@dataclass(frozen=True, slots=True)
class RowReports:
    """Makes the reports of rows."""

    make: Callable[[str, int], CheckedTensor]

    def __call__(self, name: str, row: int) -> TensorReport:
        return self.make(name, row).report()


def sort_names(names: Iterable[str]) -> list[str]:
    """Sort by the bytes of the names, as an index is sorted."""
    listed = list(names)
    if "".join(listed).isascii():
        return sorted(listed)
    return sorted(listed, key=lambda name: name.encode("utf-8", "surrogateescape"))


def sort_problems(problems: list[Problem]) -> tuple[Problem, ...]:
    """Put errors before warnings, and problems of files before those of tensors; drop repeats."""
    ranked: tuple[list[Problem], ...] = ([], [], [], [])
    codes: dict[str, int] = {}
    for problem in dict.fromkeys(problems):
        rank = codes.get(problem.code)
        if rank is None:
            rank = codes[problem.code] = problem.code.startswith(("tensor.", "slice."))
        ranked[rank if problem.severity is Severity.ERROR else 2 + rank].append(problem)
    return tuple(chain.from_iterable(ranked))


# ----------------------------------------------------------------------------------------- index


def _iter_index_problems(case: Case) -> Iterator[Problem]:
    """Report a damaged index; of a leftover index an error only if there is no other index."""
    if case.absent is not None:
        message = f"there is no index{_describe_rebuilt(case)}"
        yield Problem.of("index.missing", case.absent, message)
    for view in case.views:
        for problem in view.problems:
            if view.origin.is_leftover and case.main is not None:
                yield Problem.of(
                    problem.code, problem.where, problem.message, severity=Severity.WARNING
                )
            else:
                yield problem
    if case.survey.leftovers and (case.main is None or case.unfinished):
        yield Problem.of(
            "set.unfinished",
            case.survey.prefix,
            "the save ended before it was done; its parts are in temporary files",
        )


def _describe_rebuilt(case: Case) -> str:
    """Say where the tensors come from if not from an index under its final name."""
    rebuilt = [view for view in case.views if view.origin is Origin.REBUILT]
    if any(name.tensor != OBJECT_GRAPH for view in rebuilt for name, _ in view.iter_payloads()):
        return "; one was rebuilt from other evidence"
    if rebuilt:
        return "; of its tensors an object graph tells the names, and nothing the places"
    if case.tensors:
        return "; the tensors come from temporary files of the save"
    return _describe_unnamed(case)


def _describe_unnamed(case: Case) -> str:
    """Say how much data there is that no index names."""
    paths = [*case.survey.data_files.values()]
    paths += [path for path in case.survey.leftovers if is_data_file(path)]
    total = sum(case.files.size(DataFile(path)) or 0 for path in paths)
    if not total:
        return ""
    files = count(len(paths), "data file")
    return f", so the tensors in {files} of {count(total, 'byte')} have no names"


# ---------------------------------------------------------------------------------------- shards


def _shard_problems(case: Case, files: dict[str, FileReport]) -> list[Problem]:
    """Judge and map the data files: all files that hold payloads and are no index."""
    problems: list[Problem] = []
    held: dict[str, list[Part]] = defaultdict(list)
    for _, part in case.held_parts():
        if part.payload is not None and part.payload.file.path not in files:
            held[part.payload.file.path].append(part)
    used = (path for path in _used_paths(case, held) if path not in files)
    order = None if case.failed is None else _Order.of(case, case.failed)
    for path in dict.fromkeys([*_expected_paths(case), *used]):
        parts = held.get(path, [])
        size = case.files.size(DataFile(path))
        stored = [] if size is None else _stored_in(case, path, parts, order)
        mapped = _map_absent(case, path, parts) if size is None else _map_shard(stored, size)
        files[path] = FileReport(path, "shard", size, tuple(mapped))
        failed = 0 if case.failed is None else len(case.failed.of_path(path))
        failure = case.files.failure(DataFile(path))
        if failure is not None and _is_something(case, path):
            problems.append(Problem.of("file.unreadable", path, failure.message))
        elif size is None:
            problems.append(_missing_shard(case, parts, path))
        else:
            in_use = bool(parts) or failed > 0
            in_use |= case.sound is not None and len(case.sound.rows_of(path)) > 0
            problems += _iter_layout_problems(path, stored, size, used=in_use)
    for path in case.survey.data_files.values():
        if path not in files:
            _add_unused(case, path, "shard", files)
    return problems


def _used_paths(case: Case, held: Mapping[str, Sequence[Part]]) -> list[str]:
    """Return the data files that payloads lie in, in the order in which the index names them."""
    if case.sound is None:
        return list(held)
    paths = {*held, *case.sound.paths, *(() if case.failed is None else case.failed.paths)}
    if len(paths) < 2:
        return list(paths)
    numbers = dict(zip(case.tensors, range(len(case.tensors)), strict=True))
    first = {path: numbers[case.sound.first_name(path)] for path in case.sound.paths}
    for name, part in case.held_parts():
        if part.payload is not None and part.payload.file.path in held:
            number = numbers.get(name.tensor, len(numbers))
            path = part.payload.file.path
            first[path] = min(first.get(path, number), number)
    failed = case.failed
    for path in () if failed is None else failed.paths:
        number = numbers["" if failed is None else failed.first_name(path)]
        first[path] = min(first.get(path, number), number)
    return sorted(first, key=lambda path: first[path])


class _Order(NamedTuple):
    """The places of tensors in the index, if some of them are rows that have failed.

    Attributes:
        parts: Those of parts that are held, by the identity of these.
        rows: Those of the rows.
        kinds: What the map calls the bytes of the rows.
    """

    parts: Mapping[int, int]
    rows: IntColumn
    kinds: Sequence[str]

    @classmethod
    def of(cls, case: Case, failed: FailedRows) -> _Order:
        """Find the place of each."""
        numbers = dict(zip(case.tensors, range(len(case.tensors)), strict=True))
        parts = {id(part): numbers.get(name.tensor, 0) for name, part in case.held_parts()}
        places = np.array([numbers[name] for name in failed.names], np.int64)
        kinds = [kind_of(state) for state in STATES]
        states = failed.states_of(np.arange(len(failed))).tolist()
        return cls(parts, places, [kinds[state] for state in states])


def _stored_in(case: Case, path: str, held: Sequence[Part], order: _Order | None) -> list[Stored]:
    """Return what payloads have of a data file, by offset."""
    places = {} if order is None else order.parts
    own = [
        _stored(part, places.get(id(part), 0))
        for part in held
        if part.payload is not None and part.payload.size
    ]
    own.sort(key=lambda one: one.start)
    if case.sound is None:
        return own
    starts, stops = case.sound.spans_of(path)
    if any(_overlaps(one, starts, stops) for one in own):
        # Those that others overlap are told one by one.
        every = (part for _, part in case.parts() if part.payload and part.payload.size)
        own = [_stored(part) for part in every if part.payload and part.payload.file.path == path]
        return sorted(own, key=lambda one: one.start)
    if case.failed is not None and order is not None:
        if len(own) + len(starts) + len(case.failed.of_path(path)) <= _FEW_SPANS:
            return _sort_few(case.failed, path, order, (own, starts, stops))
        rows = _stored_rows(case.failed, path, order)
        return join_spans([SpanColumns.of(own), rows, SpanColumns.whole(starts, stops)])
    cuts = np.flatnonzero(starts[1:] != stops[:-1]) + 1
    lows = np.concatenate((starts[:1], starts[cuts])).tolist()
    highs = np.concatenate((stops[cuts - 1], stops[-1:])).tolist()
    own += [Stored(low, high) for low, high in zip(lows, highs, strict=True)]
    return sorted(own, key=lambda one: one.start)


def _sort_few(
    failed: FailedRows, path: str, order: _Order, others: tuple[list[Stored], IntColumn, IntColumn]
) -> list[Stored]:
    """Return what few payloads have of a data file, by offset: to join them takes longer."""
    own, starts, stops = others
    found = [
        *own,
        *(
            Stored(
                start := int(failed.starts[number]),
                start + int(failed.sizes[number]),
                int(order.rows[number]),
                order.kinds[number],
                int(failed.zeros[number]),
                partial(failed.holes, number),
            )
            for number in failed.of_path(path).tolist()
            if failed.sizes[number]
        ),
        *(Stored(low, high) for low, high in zip(starts.tolist(), stops.tolist(), strict=True)),
    ]
    # What is verified begins where nothing else does.
    return sorted(found, key=lambda one: (one.start, one.number))


def _stored(part: Part, number: int = 0) -> Stored:
    payload = part.payload
    start, stop = (0, 0) if payload is None else (payload.offset, payload.end)
    holes = part.check.holes
    zeros = sum(high - low for low, high in holes)
    kind = kind_of(part.check.status)
    return Stored(start, stop, number, kind, zeros, lambda: holes)


def _stored_rows(failed: FailedRows, path: str, order: _Order) -> SpanColumns:
    """Return what rows have of a data file that have failed, or overlap others."""
    numbers = failed.of_path(path)
    numbers = numbers[failed.sizes[numbers] > 0]
    return SpanColumns.rows(
        failed.starts[numbers],
        failed.sizes[numbers],
        numbers=order.rows[numbers],
        statuses=(STATES, failed.states_of(numbers)),
        zeros=failed.zeros[numbers],
        holes=lambda place: failed.holes(int(numbers[place])),
    )


def _overlaps(one: Stored, starts: IntColumn, stops: IntColumn) -> bool:
    """Tell whether bytes of one payload are those of sound ones, too."""
    number = int(np.searchsorted(stops, one.start, side="right"))
    return number < len(starts) and int(starts[number]) < one.stop


def _expected_paths(case: Case) -> list[str]:
    """Return the data files that the index expects, also those without a tensor."""
    main = case.main
    if main is None or main.header is None:
        return []
    shards = main.num_shards
    return [shard_path(case.survey.prefix, number, shards) for number in range(shards)]


def _missing_shard(case: Case, parts: Sequence[Part], path: str) -> Problem:
    number, total = len(parts), sum(part.payload.size for part in parts if part.payload)
    if case.failed is not None:
        number += len(case.failed.of_path(path))
        total += case.failed.size_of(path)
    if number:
        message = (
            f"the file is not there; the index expects {count(number, 'tensor')} in it, "
            f"{count(total, 'byte')}"
        )
        return Problem.of("shard.missing", path, message)
    return Problem.of(
        "shard.missing",
        path,
        "the file is not there; no known tensor is in it",
        severity=Severity.WARNING,
    )


def _iter_layout_problems(
    path: str, stored: Sequence[Stored], size: int, *, used: bool
) -> Iterator[Problem]:
    """Report gaps, overlaps, an early end and bytes after the last tensor.

    Args:
        path: The file.
        stored: What tensors have of it.
        size: Of the file.
        used: Whether any tensor is in it, if only one without bytes.
    """
    counts: Counter[str] = Counter()
    for code, message in _iter_odd_places(stored):
        counts[code] += 1
        if counts[code] <= _MOST_PLACES:
            yield Problem.of(code, path, message)
    for code, number in counts.items():
        if number > _MOST_PLACES:
            message = f"there are {number - _MOST_PLACES:,} more such places"
            yield Problem.of(code, path, message)
    end = max((one.stop for one in stored), default=0)
    if end > size:
        message = f"the index expects {end} bytes, and the file has {size}"
        yield Problem.of("shard.truncated", path, message)
    if used and size > end:
        message = f"the last tensor ends at byte {end}, and {size - end} bytes follow it"
        yield Problem.of("shard.trailing", path, message)
    holes = sum(one.zeros for one in stored)
    if holes:
        message = f"{holes} bytes of damaged tensors are in runs of zeros"
        yield Problem.of("shard.zeros", path, message)


def _iter_odd_places(stored: Sequence[Stored]) -> Iterator[tuple[str, str]]:
    """Iterate over gaps and overlaps: the code of each, and what it is."""
    end = 0
    shared: set[int] = set()
    for one in stored:
        if one.start > end:
            yield "shard.gap", f"no tensor uses the {one.start - end} bytes at offset {end}"
        if one.start < end and one.start not in shared:
            shared.add(one.start)
            yield "shard.overlap", f"two tensors use the bytes at offset {one.start}"
        end = max(end, one.stop)


def _map_absent(case: Case, path: str, parts: Sequence[Part]) -> Iterator[FileRange]:
    """Map a data file that is not there: one range, up to where the last tensor in it would end."""
    end = max((one.payload.end for one in parts if one.payload and one.payload.size), default=0)
    failed = case.failed
    if failed is not None:
        rows = failed.of_path(path)
        # A sum beyond 63 bits needs Python's numbers.
        spans = zip(failed.starts[rows].tolist(), failed.sizes[rows].tolist(), strict=True)
        end = max(end, max((start + size for start, size in spans if size), default=0))
    if end:
        yield FileRange(0, end, "absent")


def _map_shard(stored: Sequence[Stored], size: int) -> Iterator[FileRange]:
    """Map a data file. Tensors in the same state that lie end to end are one range."""
    ranges: list[FileRange] = []
    position = 0
    for one in stored:
        if one.start > position:
            ranges.append(FileRange(position, one.start, "unreferenced"))
        first = max(one.start, position)
        if first < one.stop:
            ranges += _map_payload(first, one)
        position = max(position, one.stop)
    if position < size:
        ranges.append(FileRange(position, size, "unreferenced"))
    yield from _join(_cut(ranges, size))


def _map_payload(first: int, one: Stored) -> Iterator[FileRange]:
    position = first
    for hole_start, hole_stop in one.holes():
        low, high = max(position, one.start + hole_start), one.start + hole_stop
        if low < high:
            yield FileRange(position, low, one.kind)
            yield FileRange(low, high, "zeros")
            position = high
    yield FileRange(position, one.stop, one.kind)


def _cut(ranges: list[FileRange], size: int) -> Iterator[FileRange]:
    """Mark what is beyond the end of the file as `absent`."""
    for part in ranges:
        if part.start < min(part.stop, size):
            yield FileRange(part.start, min(part.stop, size), part.kind)
        if max(part.start, size) < part.stop:
            yield FileRange(max(part.start, size), part.stop, "absent")


def _join(ranges: Iterator[FileRange]) -> Iterator[FileRange]:
    waiting: FileRange | None = None
    for part in ranges:
        if waiting and waiting.kind == part.kind and waiting.stop == part.start:
            waiting = FileRange(waiting.start, part.stop, part.kind)
            continue
        if waiting:
            yield waiting
        waiting = part
    if waiting:
        yield waiting


def _add_unused(case: Case, path: str, role: str, files: dict[str, FileReport]) -> None:
    """Map a file that nothing refers to."""
    size = case.files.size(DataFile(path))
    whole = (FileRange(0, size, "unreferenced"),) if size else ()
    files.setdefault(path, FileReport(path, role, size, whole))


# --------------------------------------------------------------------------------------- tensors


def _iter_tensors_problems(case: Case) -> Iterator[Problem]:
    """Iterate over what is wrong with tensors, in the order of the index."""
    failed = case.failed
    if failed is None:
        for checked in case.tensors.held.values():
            yield from _iter_tensor_problems(checked)
        return
    numbers = np.flatnonzero(~failed.good)
    told = _problems_of_rows(failed, numbers[:_MOST_TOLD])
    for name in case.tensors.doubtful_names(failed.numbers):
        held = case.tensors.held.get(name)
        if held is not None:
            yield from _iter_tensor_problems(held)
        elif name in told:
            yield told[name]
    if len(numbers) > len(told):
        more = count(len(numbers) - len(told), "more tensor")
        message = f"{more} failed; `tensors` of the report has what is wrong with each"
        yield Problem.of("tensor.checksum", case.survey.prefix, message)


def _problems_of_rows(failed: FailedRows, numbers: IntColumn) -> dict[str, Problem]:
    """Return what is wrong with some rows that have failed, by name."""
    # A sentence that was found later is about many rows, and names files.
    cleaned = {note: clean(note) for note in failed.said}
    codes = failed.codes_of(numbers, _code_of_status)
    rows = zip(numbers.tolist(), codes, failed.notes_of(numbers), strict=True)
    return {
        failed.names[number]: Problem(
            code, Severity.ERROR, failed.names[number], cleaned.get(note, note)
        )
        for number, code, note in rows
    }


def _iter_tensor_problems(checked: CheckedTensor) -> Iterator[Problem]:
    if checked.layout is not None:
        yield Problem.of("slice.layout", checked.name, checked.layout)
    for part in checked.parts:
        code = _code_of(part.check)
        if code is not None:
            note = part.check.outcome.note or str(part.check.status)
            yield Problem.of(code, checked.name, note)


def _code_of(check: Check) -> str | None:
    if check.status is Status.VERIFIED:
        return None
    if check.code is not None:
        return check.code
    return _code_of_status(check.status, check.cause, there=check.computed is not None)


def _code_of_status(status: Status, cause: Cause | None, *, there: bool) -> str:
    """Return the code of what is not verified; `there` tells whether a checksum was computed."""
    if cause in _CODES and cause is not None:
        if cause is Cause.ENTRY and status is Status.CORRUPT:
            return "tensor.checksum"
        return _CODES[cause]
    if status is Status.MISSING:
        return "tensor.missing"
    return "tensor.checksum" if there else "tensor.decode"


def _iter_orphan_problems(case: Case) -> Iterator[Problem]:
    for name, piece, _ in case.orphans:
        yield Problem.of("slice.orphan", name, f"slice {piece} is stored, but no tensor lists it")


# --------------------------------------------------------------------------- what lies around


def _iter_graph_problems(case: Case, graph: TensorReport | None) -> Iterator[Problem]:
    """Report an object graph that is damaged, or that says what cannot be."""
    checked = case.tensors.get(OBJECT_GRAPH)
    if checked is None or graph is None:
        return
    for view in case.views:
        if view.unplaced:
            first = ", ".join(repr(name) for name in view.unplaced[:_FEW])
            more = ", ..." if len(view.unplaced) > _FEW else ""
            what = f"it names {len(view.unplaced)} values of which nothing tells the place"
            yield Problem.of("object_graph.damaged", case.survey.prefix, f"{what}: {first}{more}")
    if graph.status is not Status.VERIFIED:
        message = f"the object graph is {graph.status}"
        yield Problem.of("object_graph.damaged", case.survey.prefix, message)
        return
    payload = checked.parts[0].payload
    if payload is not None:
        complete = case.main is not None and case.main.complete
        prefix, names = case.survey.prefix, case.tensors.keys()
        yield from graph_problems(prefix, case.files, payload, names, complete=complete)


def _is_something(case: Case, path: str) -> bool:
    """Tell whether there is anything at a path, even a link to nothing."""
    try:
        return case.context.storage.stat(path) is not None
    except PermissionDeniedError:
        return True


def _iter_leftover_problems(case: Case, files: dict[str, FileReport]) -> Iterator[Problem]:
    leftovers = case.survey.leftovers
    for path in leftovers:
        _add_unused(case, path, "leftover", files)
    if leftovers:
        names = ", ".join(case.context.storage.split(path)[1] for path in leftovers[:3])
        many = count(len(leftovers), "temporary file")
        message = f"a save left {many}: {names}"
        if case.survey.more_leftovers:
            message = f"a save left more than {many}, of which so many were looked at: {names}"
        yield Problem.of("leftover.temporary", case.survey.prefix, message)


def _iter_rival_problems(case: Case) -> Iterator[Problem]:
    """Report tensors that have different values in different parts of a save."""
    for name, rivals in case.rivals.items():
        paths = [one.tensor.payload.index for one in rivals if one.tensor.payload is not None]
        names = ", ".join(case.context.storage.split(path)[1] for path in paths)
        message = f"{len(rivals)} parts of the save have different values of it: {names}"
        yield Problem.of("leftover.conflict", name, message)
