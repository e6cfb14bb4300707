"""The payloads of one data file that are not whole, and what was found out about them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import overload

import numpy as np

from ckptparse.examination.case import Case, Part
from ckptparse.examination.failed_rows import FailedRows
from ckptparse.examination.payload import Payload
from ckptparse.examination.places import IntColumn, Mask, Place, find_place
from ckptparse.examination.readers import DataFile, DataFiles
from ckptparse.problems import Cause, Problem, Status

__all__ = ["NO_ROWS", "ByOffset", "DamagedFile", "iter_damaged"]

NO_ROWS: IntColumn = np.zeros(0, np.int64)


@dataclass(slots=True)
class DamagedFile:
    """The payloads of one data file that are not whole, by offset.

    Attributes:
        file: The data file.
        files: All of the checkpoint, open.
        failed: `Case.failed`.
        parts: Those that are objects.
        rows: The others, by their numbers in `failed`.
        places: Where bytes of the file are instead.
        problems: What is wrong with it.
        owners: Checkpoints whose index this one has.
        compared: Rows whose checksums were computed at other places.
    """

    file: DataFile
    files: DataFiles
    failed: FailedRows | None
    parts: list[tuple[Part, Payload]]
    rows: IntColumn
    places: list[Place] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    owners: set[str] = field(default_factory=set)
    compared: int = 0
    _held_by: dict[Place, Mask] = field(default_factory=dict)

    def hold(self, place: Place) -> Mask:
        """Tell which of the rows lie in a place."""
        if place not in self._held_by:
            self.compared += len(self.rows)
            self._held_by[place] = (
                np.zeros(0, np.bool_)
                if self.failed is None
                else place.hold_rows(self.files, self.failed, self.rows)
            )
        return self._held_by[place]

    def without(self, rows: IntColumn, places: Iterable[Place]) -> IntColumn:
        """Return those of some of the rows that lie in none of some places."""
        for place in places:
            rows = rows[~np.isin(rows, self.rows[self.hold(place)])]
        return rows

    def is_placed(self, payload: Payload) -> bool:
        """Tell whether a payload lies in one of the places."""
        return find_place(self.files, self.places, payload) is not None

    def is_open(self, part: Part) -> bool:
        """Tell whether nothing is known yet of what happened to a part."""
        return (
            part.check.status is Status.CORRUPT
            and part.check.cause in (Cause.UNKNOWN, Cause.ZEROS)
            and part.payload is not None
            and not self.is_placed(part.payload)
        )

    def open_rows(self) -> IntColumn:
        """Return the rows of which nothing is known yet, as `is_open` tells of one part."""
        if self.failed is None:
            return self.rows
        return self.without(self.rows[self.failed.open[self.rows]], self.places)

    def blame(self, rows: IntColumn, cause: Cause | None, note: str | None = None) -> None:
        """Note what happened to some of the rows."""
        if self.failed is not None:
            self.failed.blame(rows, cause, note)

    def report(self, code: str, message: str, *, fetch: tuple[str, ...] = ()) -> None:
        """Report a problem of the file."""
        self.problems.append(Problem.of(code, self.file.path, message, fetch=fetch))


def iter_damaged(case: Case) -> Iterator[DamagedFile]:
    """Iterate over the data files of which payloads are not whole, by path."""
    parts: dict[DataFile, list[tuple[Part, Payload]]] = defaultdict(list)
    for part in case.iter_held():
        if part.payload is not None and part.payload.size and part.is_lost:
            parts[part.payload.file].append((part, part.payload))
    rows = dict(_failed_rows(case.failed))
    for file in sorted({**parts, **rows}, key=lambda file: file.path):
        found = sorted(parts.get(file, ()), key=lambda pair: pair[1].offset)
        yield DamagedFile(file, case.files, case.failed, found, rows.get(file, NO_ROWS))


def _failed_rows(failed: FailedRows | None) -> Iterator[tuple[DataFile, IntColumn]]:
    """Iterate over the data files of which rows have bytes and are lost, each with these."""
    for path in () if failed is None else failed.paths:
        rows = NO_ROWS if failed is None else failed.lost_in(path)
        if len(rows):
            yield DataFile(path), rows


class ByOffset(Sequence[Payload]):
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
