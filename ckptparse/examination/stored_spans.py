"""What the payloads of a data file have of it, with neighbours that are in the same state as one.

A hundred thousand tensors end to end are one range of the map. So they are sorted and joined as
columns, and an object is made for what differs from its neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ckptparse.examination.outcome import Span
from ckptparse.problems import Status

__all__ = ["SpanColumns", "Stored", "join_spans", "kind_of"]

IntColumn = npt.NDArray[np.int64]
Ends = npt.NDArray[np.uint64]
"""Offsets: a sum of two numbers below 2^63 needs the 64th bit."""
Mask = npt.NDArray[np.bool_]

_KINDS = ("verified", "unverified", "bad")


def kind_of(status: Status) -> str:
    """Return what the map of a file calls the bytes of a payload of some status."""
    if status is Status.VERIFIED:
        return "verified"
    return "unverified" if status in (Status.UNVERIFIED, Status.PARTIAL) else "bad"


class Stored(NamedTuple):
    """Bytes of a data file that one payload has, or several that lie end to end.

    Attributes:
        start, stop: Where they lie.
        number: The place of its tensor in the index.
        kind: What the map calls them.
        zeros: How many of them lie in runs of zeros, if the payload is damaged.
        holes: Gives these runs.
    """

    start: int
    stop: int
    number: int = 0
    kind: str = "verified"
    zeros: int = 0
    holes: Callable[[], Sequence[Span]] = tuple


@dataclass(frozen=True, slots=True)
class SpanColumns:
    """Bytes of a data file that payloads have, in any order.

    Attributes:
        starts, stops: Where they lie.
        numbers: The places of their tensors in the index; of equal starts the lower comes first.
        kinds: What the map calls them, as a number.
        zeros: How many of the bytes of each lie in runs of zeros.
        holes: Gives these runs, by the place of the payload here.
    """

    starts: Ends
    stops: Ends
    numbers: IntColumn
    kinds: npt.NDArray[np.int8]
    zeros: IntColumn
    holes: Callable[[int], Sequence[Span]]

    @classmethod
    def of(cls, spans: Sequence[Stored]) -> SpanColumns:
        """Make columns of objects."""
        return cls(
            np.array([one.start for one in spans], np.uint64),
            np.array([one.stop for one in spans], np.uint64),
            np.array([one.number for one in spans], np.int64),
            np.array([_KINDS.index(one.kind) for one in spans], np.int8),
            np.array([one.zeros for one in spans], np.int64),
            lambda place: spans[place].holes(),
        )

    @classmethod
    def whole(cls, starts: IntColumn, stops: IntColumn) -> SpanColumns:
        """Make columns of bytes that are verified."""
        nothing = np.zeros(len(starts), np.int64)
        kinds = np.full(len(starts), _KINDS.index("verified"), np.int8)
        ends = starts.astype(np.uint64), stops.astype(np.uint64)
        return cls(*ends, np.full(len(starts), _LAST, np.int64), kinds, nothing, lambda _: ())

    @classmethod
    def rows(
        cls,
        starts: IntColumn,
        sizes: IntColumn,
        *,
        numbers: IntColumn,
        statuses: tuple[Sequence[Status], npt.NDArray[np.int8]],
        zeros: IntColumn,
        holes: Callable[[int], Sequence[Span]],
    ) -> SpanColumns:
        """Make columns of rows; of their statuses each is a place in the sequence of them."""
        kinds = np.array([_KINDS.index(kind_of(status)) for status in statuses[0]], np.int8)
        begins = starts.astype(np.uint64)
        stops = begins + sizes.astype(np.uint64)
        return cls(begins, stops, numbers, kinds[statuses[1]], zeros, holes)


_LAST = np.iinfo(np.int64).max
"""The place of what no tensor of the index comes after."""


def join_spans(parts: Sequence[SpanColumns]) -> list[Stored]:
    """Sort spans by their offsets, and join those that the map and its problems tell as one.

    What begins where the one before it ends and is of its kind belongs to it; and what lies within
    others, but for the first at each offset, which is a problem.
    """
    starts = np.concatenate([part.starts for part in parts])
    order = np.lexsort((np.concatenate([part.numbers for part in parts]), starts))
    starts = starts[order]
    stops = np.concatenate([part.stops for part in parts])[order]
    kinds = np.concatenate([part.kinds for part in parts])[order]
    zeros = np.concatenate([part.zeros for part in parts])[order]
    if not len(starts):
        return []
    ends = np.maximum.accumulate(stops)
    first = np.flatnonzero(_are_told(starts, stops, ends, kinds, zeros))
    highs = np.maximum.reduceat(stops, first)
    firsts = np.cumsum([0, *(len(part.starts) for part in parts)])
    places = order[first]
    owners = np.searchsorted(firsts, places, side="right") - 1
    rows = zip(
        starts[first].tolist(),
        highs.tolist(),
        kinds[first].tolist(),
        np.add.reduceat(zeros, first).tolist(),
        owners.tolist(),
        (places - firsts[owners]).tolist(),
        strict=True,
    )
    return [
        Stored(start, stop, 0, _KINDS[kind], count, _Holes(parts[owner].holes, place))
        for start, stop, kind, count, owner, place in rows
    ]


@dataclass(frozen=True, slots=True)
class _Holes:
    """Gives the runs of zeros of one payload."""

    give: Callable[[int], Sequence[Span]]
    place: int

    def __call__(self) -> Sequence[Span]:
        return self.give(self.place)


def _are_told(
    starts: Ends, stops: Ends, ends: Ends, kinds: npt.NDArray[np.int8], zeros: IntColumn
) -> Mask:
    """Tell which of sorted spans cannot be told with the one before it.

    Args:
        starts, stops: Where they lie.
        ends: The highest stop up to each of them.
        kinds: What the map calls them.
        zeros: Their bytes in runs of zeros, which lie at places of their own.
    """
    before = np.concatenate((np.zeros(1, np.uint64), ends[:-1]))
    over = starts < before
    repeated = np.zeros(len(starts), np.bool_)
    repeated[1:] = over[1:] & over[:-1] & (starts[1:] == starts[:-1])
    adds = stops > before
    # The last before each that adds bytes to the map: that is what a neighbour may belong to.
    places = np.where(adds, np.arange(len(starts)), -1)
    last = np.concatenate((np.full(1, -1), np.maximum.accumulate(places)[:-1]))
    alike = adds & (starts == before) & (last >= 0) & (kinds == kinds[last])
    alike &= (zeros == 0) & (zeros[last] == 0)
    told = (starts > before) | (over & ~repeated) | (adds & ~alike)
    # What is told and adds nothing ends the run that it stands in.
    breaks = np.maximum.accumulate(np.where(told & ~adds, np.arange(len(starts)), -1))
    found: Mask = told | (alike & (breaks > last))
    return found
