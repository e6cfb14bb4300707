"""Check everything that the indexes of a checkpoint say against its data files."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ckptparse.bundle.entry import count_elements
from ckptparse.dtypes import DataType, dtype_name
from ckptparse.errors import CheckpointError
from ckptparse.examination.check import Check, check_stored
from ckptparse.examination.index_view import IndexView, NamedTensor, Stored, read_view
from ckptparse.examination.readers import DataFiles, Progress
from ckptparse.examination.report import Source, Span, TensorReport, merge_spans
from ckptparse.inventory.survey import Survey
from ckptparse.limits import Limits
from ckptparse.problems import Cause, Status
from ckptparse.slices import SliceGrid, TensorSlice
from ckptparse.tensor import Region

__all__ = ["Assessed", "Case", "Part", "assess", "open_case", "spans_of_region"]

_RANK = {status: number for number, status in enumerate(Status)}
_MOST_MASKED = 1 << 28


@dataclass(slots=True)
class Part:
    """A payload of a tensor: all of it, or one slice.

    Attributes:
        stored: What the index says; None for a slice that is listed and not stored.
        check: What became of it.
        region: Which part of the tensor it is; None for all of it.
    """

    stored: Stored | None
    check: Check
    region: Region | None = None


@dataclass(slots=True)
class Assessed:
    """A tensor, its parts checked.

    Attributes:
        tensor: What the index says.
        parts: One, or one a slice.
        layout: What is wrong with how the slices are laid out.
    """

    tensor: NamedTensor
    parts: list[Part]
    layout: str | None = None

    @property
    def name(self) -> str:
        """Name of the tensor."""
        return self.tensor.name

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the whole."""
        return self.tensor.stored.entry.shape

    @property
    def data_type(self) -> int:
        """DataType number."""
        return self.tensor.stored.entry.data_type

    @property
    def rank(self) -> int:
        """How bad it is: 0 is verified."""
        if self.layout is None and not self.tensor.stored.entry.slices:
            return _RANK[self.parts[0].check.status]
        return _RANK[self.report().status]

    def report(self) -> TensorReport:
        """Sum the parts up."""
        if self.layout is not None:
            return self._make(Check(Status.CORRUPT, Cause.ENTRY, note=self.layout))
        if not self.tensor.stored.entry.slices:
            return self._make(self.parts[0].check, self.parts[0].stored)
        return self._make(_sum_up(self.parts, self.shape, proved=self.tensor.stored.proved))

    def _make(self, check: Check, stored: Stored | None = None) -> TensorReport:
        located = stored is not None and check.status is not Status.MISSING
        return TensorReport(
            self.name,
            dtype_name(self.data_type),
            self.shape,
            check.status,
            check.cause,
            None,
            Source(stored.path, stored.entry.offset, stored.entry.size)
            if stored is not None and located
            else None,
            None,
            check.ranges,
            check.note,
        )


@dataclass(slots=True)
class Case:
    """A checkpoint under examination.

    Attributes:
        survey: Its files.
        views: Its index, where it is there, and what a save left behind of indexes.
        files: Its data files, open.
        limits: Bounds on what is read.
        tensors: Every tensor that any index names.
        orphans: Slices that no tensor lists, checked.
        unfinished: Whether anything had to come from leftovers.
        progress: Who is told how far checking has come.
    """

    survey: Survey
    views: list[IndexView]
    files: DataFiles
    limits: Limits
    tensors: dict[str, Assessed] = field(default_factory=dict)
    orphans: list[tuple[str, TensorSlice, Part]] = field(default_factory=list)
    unfinished: bool = False
    progress: Progress | None = None

    @property
    def main(self) -> IndexView | None:
        """The index under its final name."""
        return next((view for view in self.views if not view.leftover), None)

    def stored(self) -> Iterator[tuple[str, Stored]]:
        """Iterate over every payload that the tensors in use refer to."""
        for assessed in self.tensors.values():
            for part in assessed.parts:
                if part.stored is not None:
                    yield assessed.name, part.stored
        for name, _, part in self.orphans:
            if part.stored is not None:
                yield name, part.stored


def open_case(
    survey: Survey, *, limits: Limits, correct: bool = False, progress: Progress | None = None
) -> Case:
    """Read the indexes of a checkpoint."""
    views = [read_view(index, survey, limits=limits, correct=correct) for index in survey.indexes]
    return Case(survey, views, DataFiles(), limits, progress=progress)


def assess(case: Case) -> None:
    """Check every tensor; what the index does not prove is looked for in leftovers."""
    main = case.main
    if main is not None:
        case.tensors = {a.name: a for a in _assess_all(main.tensors.values(), case)}
        case.orphans = [
            (name, piece, Part(stored, check_stored(case.files, stored)))
            for name, piece, stored in main.orphans
        ]
    whole = main is not None and main.complete and all(a.rank == 0 for a in case.tensors.values())
    if not whole:
        _take_leftovers(case, main)


def _take_leftovers(case: Case, main: IndexView | None) -> None:
    """Take what is better in the leftovers of one save; those of several are never mixed."""
    saves: dict[str, list[IndexView]] = {}
    for view in case.views:
        if view.leftover and view.tensors and _is_same_save(case, main, view):
            alone = ".tempstate" in view.path and "part-" not in os.path.basename(view.path)
            saves.setdefault(view.path if alone else os.path.dirname(view.path), []).append(view)
    best: dict[str, Assessed] = {}
    for views in saves.values():
        found = {one.name: one for one in _assess_all(_merge(views), case)}
        if _count_whole(found) > _count_whole(best) or not best:
            best = found
    incomplete = main is None or not main.complete
    for name, assessed in best.items():
        known = case.tensors.get(name)
        if incomplete if known is None else assessed.rank < known.rank:
            case.tensors[name] = assessed
            case.unfinished = True


def _merge(views: Sequence[IndexView]) -> list[NamedTensor]:
    """Put the parts of one save together: of a sliced tensor each part lists its own slices."""
    merged: dict[str, NamedTensor] = {}
    for view in views:
        for name, tensor in view.tensors.items():
            known = merged.get(name)
            if known is not None and known.slices and tensor.slices:
                slices = known.stored.entry.slices + tensor.stored.entry.slices
                entry = replace(known.stored.entry, slices=slices)
                stored = replace(
                    known.stored, entry=entry, proved=known.stored.proved and tensor.stored.proved
                )
                merged[name] = NamedTensor(name, stored, known.slices + tensor.slices)
            elif known is None:
                merged[name] = tensor
    return list(merged.values())


def _is_same_save(case: Case, main: IndexView | None, view: IndexView) -> bool:
    """Tell whether a leftover index can be of the save that wrote the final data files.

    Where its data has not moved to its final place, that save is another one.
    """
    if main is None or not main.tensors:
        return True
    final = set(case.survey.data_files.values())
    return all(tensor.stored.path in final for tensor in view.tensors.values())


def _count_whole(tensors: dict[str, Assessed]) -> int:
    return sum(assessed.rank == 0 for assessed in tensors.values())


def _prove_order(parts: Sequence[Part]) -> None:
    """Prove the byte order where the header is lost: the lengths of strings are checked in it."""
    known = {
        (part.stored.index, part.stored.big_endian)
        for part in parts
        if part.stored is not None
        and part.stored.waiting
        and part.check.status is Status.UNVERIFIED
        and part.check.cause is Cause.ENTRY
        and part.stored.entry.data_type == DataType.DT_STRING
        and part.check.ranges
    }
    for part in parts:
        stored = part.stored
        if stored and stored.waiting and (stored.index, stored.big_endian) in known:
            part.stored = replace(stored, proved=True, waiting=False)
            if part.check.cause is Cause.ENTRY and part.check.status is Status.UNVERIFIED:
                part.check = Check(Status.VERIFIED, None, part.check.ranges)


def _assess_all(tensors: Iterable[NamedTensor], case: Case) -> list[Assessed]:
    """Check tensors in the order in which they lie in their files; return them in their own."""
    assessed = [_lay_out(tensor) for tensor in tensors]
    parts = [part for one in assessed for part in one.parts if part.stored is not None]
    parts.sort(key=_place)
    case.files.watch(case.progress, sum(part.stored.entry.size for part in parts if part.stored))
    for part in parts:
        if part.stored is not None:
            part.check = check_stored(case.files, part.stored)
    case.files.watch(None, 0)
    _prove_order(parts)
    return [_follow(one) for one in assessed]


def _follow(assessed: Assessed) -> Assessed:
    """Let a tensor that is not sliced follow the proof of its only part."""
    stored = assessed.parts[0].stored if len(assessed.parts) == 1 else None
    if stored and stored is not assessed.tensor.stored and not assessed.tensor.slices:
        assessed.tensor = replace(assessed.tensor, stored=stored)
    return assessed


def _place(part: Part) -> tuple[str, int]:
    return (part.stored.path, part.stored.entry.offset) if part.stored else ("", 0)


_UNSTORED = Check(Status.MISSING, Cause.SLICE, note="a slice is listed and not stored")


def _lay_out(tensor: NamedTensor) -> Assessed:
    """Make the parts of a tensor, and check that slices fit it."""
    entry = tensor.stored.entry
    if not entry.slices:
        return Assessed(tensor, [Part(tensor.stored, _UNSTORED)])
    loose = [Part(stored, _UNSTORED) for _, stored in tensor.slices if stored is not None]
    try:
        grid = SliceGrid(entry.slices, entry.shape)
    except CheckpointError as error:
        return Assessed(tensor, loose, error.message)
    parts = []
    for piece, stored in tensor.slices:
        region = piece.resolve(entry.shape)
        lengths = tuple(map(len, region))
        if stored is not None and (
            stored.entry.shape != lengths
            or stored.entry.data_type != entry.data_type
            or stored.entry.slices
        ):
            return Assessed(tensor, loose, f"slice {piece} disagrees with its tensor")
        parts.append(Part(stored, _UNSTORED, region))
    gap = grid.find_missing(tuple(map(range, entry.shape)))
    assessed = Assessed(tensor, parts)
    if gap is not None:
        parts.append(Part(None, replace(_UNSTORED, note=f"no slice is listed for {gap}")))
    return assessed


def _sum_up(parts: Sequence[Part], shape: tuple[int, ...], *, proved: bool) -> Check:
    """Judge a sliced tensor by its slices."""
    statuses = {part.check.status for part in parts}
    whole = ((0, count_elements(shape)),)
    if statuses <= {Status.VERIFIED}:
        if proved:
            return Check(Status.VERIFIED, None, whole)
        return Check(Status.UNVERIFIED, Cause.ENTRY, whole, note="its entry is not proved")
    worst = max((part.check for part in parts), key=lambda check: _RANK[check.status])
    ranges = spans_of_parts(parts, shape)
    notes = sorted({part.check.note for part in parts if part.check.note})
    note = f"{sum(p.check.status is Status.VERIFIED for p in parts)} of {len(parts)} slices are "
    note += f"whole; {'; '.join(notes[:3])}"
    if statuses <= {Status.VERIFIED, Status.UNVERIFIED}:
        return Check(Status.UNVERIFIED, worst.cause, whole, note=note)
    if ranges:
        return Check(Status.PARTIAL, _cause_of(parts), ranges, note=note)
    return Check(worst.status, worst.cause, note=note)


def _cause_of(parts: Sequence[Part]) -> Cause | None:
    """Name the cause: a slice or shard that is missing comes before others."""
    causes = [part.check.cause for part in parts if part.check.cause is not None]
    return next((cause for cause in causes if cause is Cause.SHARD), causes[0] if causes else None)


def spans_of_parts(parts: Sequence[Part], shape: tuple[int, ...]) -> tuple[Span, ...]:
    """Return which elements of a sliced tensor are there."""
    present = [
        (part.region, part.check.ranges)
        for part in parts
        if part.region is not None and part.check.ranges
    ]
    if all(_is_slab(region, shape) for region, _ in present):
        row = math.prod(shape[1:])
        return merge_spans(
            [
                (region[0].start * row + start, region[0].start * row + stop)
                for region, ranges in present
                for start, stop in ranges
            ]
        )
    return _spans_by_mask(present, shape)


def _is_slab(region: Region, shape: tuple[int, ...]) -> bool:
    return all(len(part) == size for part, size in zip(region[1:], shape[1:], strict=True))


def spans_of_region(region: Region, shape: tuple[int, ...]) -> tuple[Span, ...]:
    """Return the elements of a rectangle of a tensor, in C order."""
    return spans_of_parts(
        [Part(None, Check(Status.VERIFIED, None, ((0, math.prod(map(len, region))),)), region)],
        shape,
    )


def _spans_by_mask(
    present: Sequence[tuple[Region, tuple[Span, ...]]], shape: tuple[int, ...]
) -> tuple[Span, ...]:
    if math.prod(shape) > _MOST_MASKED:
        return ()
    mask = np.zeros(shape, np.int8)
    for region, ranges in present:
        local = np.zeros(math.prod(map(len, region)), np.int8)
        for start, stop in ranges:
            local[start:stop] = 1
        index = tuple(slice(part.start, part.stop) for part in region)
        mask[index] = local.reshape(tuple(map(len, region)))
    edges = np.flatnonzero(np.diff(mask.reshape(-1), prepend=0, append=0))
    return tuple(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))
