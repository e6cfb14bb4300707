"""What each byte of the data files is: a map of each, and what is odd in how they are laid out."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ckptparse.errors import PermissionDeniedError
from ckptparse.examination.case import Case, Part
from ckptparse.examination.failed_rows import STATES, FailedRows
from ckptparse.examination.readers import DataFile
from ckptparse.examination.report import FileRange, FileReport
from ckptparse.examination.stored_spans import SpanColumns, Stored, join_spans, kind_of
from ckptparse.filenames import shard_path
from ckptparse.problems import Problem, Severity
from ckptparse.text import count

__all__ = ["add_unused", "map_files"]

IntColumn = npt.NDArray[np.int64]

_MOST_PLACES = 1000
"""Gaps of a data file of which each has a problem, and overlaps: one problem counts the others."""
_FEW_SPANS = 64
"""Payloads of a data file that are sorted as objects. For more, columns take less time."""


def map_files(case: Case, files: dict[str, FileReport]) -> list[Problem]:
    """Judge and map the data files: all files that hold payloads and are no index."""
    problems: list[Problem] = []
    held: dict[str, list[Part]] = defaultdict(list)
    for part in case.iter_held():
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
            add_unused(case, path, "shard", files)
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
        held = ((numbers[name], one.parts) for name, one in case.tensors.held.items())
        parts = {id(part): number for number, these in held for part in these}
        parts.update((id(part), numbers.get(name, 0)) for name, _, part in case.orphans)
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


def add_unused(case: Case, path: str, role: str, files: dict[str, FileReport]) -> None:
    """Map a file that nothing refers to."""
    size = case.files.size(DataFile(path))
    whole = (FileRange(0, size, "unreferenced"),) if size else ()
    files.setdefault(path, FileReport(path, role, size, whole))


def _is_something(case: Case, path: str) -> bool:
    """Tell whether there is anything at a path, even a link to nothing."""
    try:
        return case.context.storage.stat(path) is not None
    except PermissionDeniedError:
        return True
