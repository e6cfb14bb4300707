"""The payloads of a data file that are lost: objects, and rows of columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ckptparse.examination.case import Case
from ckptparse.examination.payload import Form, Payload
from ckptparse.examination.places import (
    LEAST_SOUGHT,
    Place,
    are_telling,
    are_weights,
    is_telling,
    rows_of_weights,
)

__all__ = ["Lost"]

IntColumn = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Lost:
    """The payloads of a file that are lost and were not found anywhere yet.

    Attributes:
        case: The checkpoint.
        held: Those that are objects.
        rows: The others, by their numbers in `Case.failed`.
    """

    case: Case
    held: Sequence[Payload]
    rows: IntColumn

    def __len__(self) -> int:
        return len(self.held) + len(self.rows)

    @property
    def size(self) -> int:
        """How many bytes they have."""
        failed = self.case.failed
        size = sum(one.size for one in self.held)
        return size if failed is None else size + sum(failed.sizes[self.rows].tolist())

    @property
    def smallest(self) -> Payload:
        """The first of the smallest ones."""
        failed = self.case.failed
        found = list(self.held)
        if failed is not None and len(self.rows):
            found.append(failed.payload(int(self.rows[np.argmin(failed.sizes[self.rows])])))
        return min(found, key=lambda one: (one.size, one.offset))

    def without_weights(self) -> Lost:
        """Return those that are no weights: no floating-point numbers, or few."""
        failed, rows = self.case.failed, self.rows
        if failed is not None:
            rows = rows[~rows_of_weights(failed.plain, failed.rows[rows])]
        return replace(self, held=[one for one in self.held if not are_weights(one)], rows=rows)

    def size_in(self, place: Place) -> int:
        """Return how many bytes those have that are in a place; one without bytes counts as one."""
        files, failed = self.case.files, self.case.failed
        size = sum(max(1, one.size) for one in self.held if place.holds(files, one))
        if failed is None:
            return size
        there = self.rows[place.hold_rows(files, failed, self.rows)]
        return size + int(np.maximum(1, failed.sizes[there]).sum())

    def pieces(self) -> Iterator[tuple[int, int, int]]:
        """Iterate over offset, size and checksum of those whose elements have one size."""
        for one in self.held:
            if one.form is Form.PLAIN:
                yield one.offset, one.size, one.crc32c or 0
        failed = self.case.failed
        if failed is not None:
            columns = (failed.starts, failed.sizes, failed.crcs)
            yield from zip(*(column[self.rows].tolist() for column in columns), strict=True)

    def without(self, place: Place) -> Lost:
        """Return those that are not in a place."""
        files, failed = self.case.files, self.case.failed
        rows = self.rows
        if failed is not None:
            rows = rows[~place.hold_rows(files, failed, rows)]
        held = [one for one in self.held if not place.holds(files, one)]
        return replace(self, held=held, rows=rows)

    def spans(self) -> list[tuple[int, int]]:
        """Return where they begin and end in the data file, by offset."""
        found = [(one.offset, one.end) for one in self.held]
        failed = self.case.failed
        if failed is not None:
            starts = failed.starts[self.rows]
            stops = starts + failed.sizes[self.rows]
            found += zip(starts.tolist(), stops.tolist(), strict=True)
        return sorted(found)

    def few(self, most: int) -> list[Payload]:
        """Return some that hardly another has the bytes of, from everywhere in the file."""
        told = [one for one in self.held if is_telling(one, LEAST_SOUGHT)]
        failed = self.case.failed
        if failed is not None and len(self.rows):
            telling = are_telling(failed.plain, failed.rows[self.rows], LEAST_SOUGHT)
            rows = self.rows[telling]
            rows = rows[:: -(-len(rows) // most) or 1]
            told += [failed.payload(number) for number in rows.tolist()]
        told = sorted(told, key=lambda one: one.offset)
        step = -(-len(told) // most) or 1
        return told[step // 2 :: step]
