"""Apply a layout to the data files: offsets, sizes and checksums, and whether it fits.

Payloads lie end to end, from the first byte to the last. Their sizes follow from dtypes and shapes.
Strings and variants state theirs; if these bytes are damaged, another checkpoint's index may say
it. One payload of unknown size gets the bytes that are left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from ckptparse.dtypes import DataType, item_size
from ckptparse.files.storage import Source
from ckptparse.files.views import JoinedSource, Range
from ckptparse.recovery.rebuild.counted import (
    Counted,
    count_strings,
    find_last_string,
    find_last_strings,
    measure_strings,
    measure_variants,
    stated_size,
)
from ckptparse.recovery.rebuild.inner_strings import LARGEST, find_inner_strings
from ckptparse.recovery.rebuild.layout import Layout, Payload

__all__ = ["Fit", "Placed", "find_cut_off", "fit_layout"]

_MOST_ELEMENTS = (1 << 63) - 1
"""Elements of a tensor at most: TensorFlow counts them in a signed 64-bit number."""

_BLOCK, _MOST_PADDING = 512, 1 << 16
"""What a file is a multiple of whose last block was filled up, and the largest blocks."""


@dataclass(frozen=True, slots=True)
class Placed:
    """A payload with its place."""

    payload: Payload
    """Type and shape known."""
    shard: int
    offset: int
    size: int
    counted: Counted | None = None
    """What was measured, of strings and variants; None of others."""
    solved: bool = False
    """Whether it has the bytes that the others left."""


@dataclass(frozen=True, slots=True)
class Fit:
    """A layout that fits its data files exactly."""

    layout: Layout
    placed: tuple[Placed, ...]
    """By data file, in the order of the bytes."""
    anchors: int
    """How many strings and variants are at their places: each by a checksum of 32 bits."""
    solved: int
    """How many sizes are the bytes that were left: such a layout fits any file, and proves less."""
    lacking: int = 0
    """How many bytes more the layout has than data files that were cut off."""
    unplaced: tuple[str, ...] = ()
    """Names of tensors that lie behind the cut, nobody knows where."""
    is_padded: bool = False
    """Whether zeros follow, and nothing is lacking."""


def fit_layout(layout: Layout, sources: Sequence[Source]) -> Fit | None:
    """Apply a layout to data files; None if it does not fit them to the byte.

    Args:
        layout: As many data files as there are sources.
        sources: The data files in order.
    """
    if len(layout.shards) != len(sources):
        return None
    placed: list[Placed] = []
    anchors = solved = 0
    for number, (payloads, source) in enumerate(zip(layout.shards, sources, strict=True)):
        shard = _Shard(number, source)
        found = shard.place(payloads)
        if found is None:
            return None
        placed += found
        anchors += sum(one.counted is not None for one in found)
        solved += shard.solved
    return Fit(layout, tuple(placed), anchors, solved)


def find_cut_off(
    layouts: Iterable[Layout],
    sources: Sequence[Source],
    tests: Iterable[Callable[[Fit], bool]],
) -> Fit | None:
    """Find the one layout that fits data files that were cut off, or filled up with zeros.

    Args:
        layouts: Those that there are.
        sources: The data files in order.
        tests: Tell whether a layout is known to be that of the files, the surest first. Those that
            the first of them takes must all say the same.
    """
    fits = [fit for layout in layouts if (fit := _fit_cut_off(layout, sources)) is not None]
    for test in tests:
        taken = [fit for fit in fits if test(fit)]
        places = {
            tuple((one.payload.name, one.shard, one.offset, one.size) for one in fit.placed)
            for fit in taken
        }
        if taken:
            return taken[0] if len(places) == 1 else None
    return None


def _fit_cut_off(layout: Layout, sources: Sequence[Source]) -> Fit | None:
    """Apply a layout to data files that were cut off, or filled up with zeros.

    None if one is longer for another reason. Any shorter file fits, so the layout must be known to
    be that of the files.
    """
    if len(layout.shards) != len(sources):
        return None
    placed: list[Placed] = []
    unplaced: list[str] = []
    lacking = 0
    for number, (payloads, source) in enumerate(zip(layout.shards, sources, strict=True)):
        shard = _Shard(number, source)
        found = shard.place_from_start(payloads)
        end = found[-1].offset + found[-1].size if found else 0
        rest = payloads[len(found) :]
        if end < source.size and (rest or not _is_padded(source, end)):
            # What comes next has no known size, or is of something else.
            return None
        lacking += max(0, end - source.size)
        placed += found
        unplaced += [payload.name for payload in rest]
    there = any(one.size and one.offset < sources[one.shard].size for one in placed)
    anchors = sum(one.counted is not None for one in placed)
    if not there:
        return None
    padded = not lacking and not unplaced
    return Fit(layout, tuple(placed), anchors, 0, lacking, tuple(unplaced), padded)


def _is_padded(source: Source, end: int) -> bool:
    """Tell whether nothing but a few zeros follow, as where a tool fills up the last block."""
    count = source.size - end
    in_blocks = source.size % _BLOCK == 0 and count <= _MOST_PADDING
    return in_blocks and not any(source.read_at(end, count))


class _Shard:
    """One data file, filled from both ends."""

    def __init__(self, number: int, source: Source) -> None:
        self._number = number
        self._source = source
        self.solved = 0

    def place(self, payloads: Sequence[Payload]) -> list[Placed] | None:
        """Place all payloads, or None."""
        head: list[Placed] = []
        offset = 0
        for number, payload in enumerate(payloads):
            placed = self._place_at(payload, offset) or self._place_as_stated(payload, offset)
            if placed is None:
                return self._place_rest(head, offset, payloads[number:])
            head.append(placed)
            offset += placed.size
        return head if offset == self._source.size else None

    def place_from_start(self, payloads: Sequence[Payload]) -> list[Placed]:
        """Place payloads up to one of no known size, also behind the end of the file."""
        found: list[Placed] = []
        offset = 0
        for payload in payloads:
            if payload.size is not None:
                placed: Placed | None = Placed(payload, self._number, offset, payload.size)
            else:
                placed = self._place_at(payload, offset) or self._place_cut_off(payload, offset)
            if placed is None:
                break
            found.append(placed)
            offset += placed.size
        return found

    def _place_at(self, payload: Payload, offset: int) -> Placed | None:
        """Place a payload whose size is known, or stated by its bytes."""
        shape = payload.known_shape
        if payload.size is not None:
            fits = offset + payload.size <= self._source.size
            return Placed(payload, self._number, offset, payload.size) if fits else None
        if shape is not None and payload.data_type is not None:
            count = _count(shape)
            if payload.data_type == DataType.DT_STRING and count is not None:
                counted = measure_strings(self._source, offset, count)
                return self._counted(payload, offset, counted)
            if payload.data_type == DataType.DT_VARIANT and count is not None:
                counted = measure_variants(self._source, offset, count)
                return self._counted(payload, offset, counted)
        if payload.data_type == DataType.DT_STRING and _is_a_row(payload):
            counted = count_strings(self._source, offset, self._source.size - offset)
            if counted is not None:
                payload = payload.with_shape((counted.count,))
            return self._counted(payload, offset, counted)
        return None

    def _place_cut_off(self, payload: Payload, offset: int) -> Placed | None:
        """Place strings that begin in the file, and whose lengths lead beyond its end."""
        shape = payload.known_shape
        count = None if shape is None else _count(shape)
        if payload.data_type != DataType.DT_STRING or not count or offset >= self._source.size:
            return None
        size = stated_size(self._source, offset, count)
        return None if size is None else Placed(payload, self._number, offset, size)

    def _place_as_stated(self, payload: Payload, offset: int) -> Placed | None:
        """Place strings whose lengths are damaged as another checkpoint has them."""
        size = payload.stated
        if size is None or payload.size is not None or offset + size > self._source.size:
            return None
        return Placed(payload, self._number, offset, size)

    def _counted(self, payload: Payload, offset: int, counted: Counted | None) -> Placed | None:
        if counted is None:
            return None
        return Placed(payload, self._number, offset, counted.size, counted)

    def _place_rest(
        self, head: list[Placed], offset: int, payloads: Sequence[Payload]
    ) -> list[Placed] | None:
        """Place payloads from the end of the file backwards; the first one has no known size."""
        tail: list[Placed] = []
        end = self._source.size
        rest = list(payloads)
        while len(rest) > 1:
            placed = self._place_before(rest[-1], offset, end)
            if placed is None or placed.offset < offset:
                break
            tail.insert(0, placed)
            rest.pop()
            end = placed.offset
        middle = self._solve(rest, offset, end) or self._solve_around_strings(rest, offset, end)
        return None if middle is None else [*head, *middle, *tail]

    def _place_before(self, payload: Payload, low: int, end: int) -> Placed | None:
        """Place a payload so that it ends at `end`, if its size is known, or its bytes state it."""
        if payload.size is not None:
            return Placed(payload, self._number, end - payload.size, payload.size)
        if payload.data_type != DataType.DT_STRING or end <= low:
            return None
        part = JoinedSource(self._source.path, [Range(self._source, low, end - low)])
        find = find_last_string if payload.shape == () else find_last_strings
        offset = find(part)
        placed = None if offset is None else self._place_at(payload, low + offset)
        return placed if placed is not None and placed.offset + placed.size == end else None

    def _solve_around_strings(
        self, payloads: Sequence[Payload], start: int, end: int
    ) -> list[Placed] | None:
        """Divide the bytes between two known places at the strings that lie there."""
        strings = [n for n, one in enumerate(payloads) if one.data_type == DataType.DT_STRING]
        if not strings or not 0 < end - start <= LARGEST:
            return None
        found = find_inner_strings(self._source, start, end)
        if len(found) != len(strings):
            return None
        placed: list[Placed] = []
        done = 0
        for number, (offset, _) in zip(
            [*strings, len(payloads)], [*found, (end, None)], strict=True
        ):
            before = self._solve_between(payloads[done:number], start, offset)
            if before is None:
                return None
            placed += before
            if number < len(payloads):
                one = self._place_at(payloads[number], offset)
                if one is None:
                    return None
                placed.append(one)
                start, done = one.offset + one.size, number + 1
        return placed

    def _solve_between(
        self, payloads: Sequence[Payload], start: int, end: int
    ) -> list[Placed] | None:
        """Place payloads between two known places, one of unknown size among them."""
        head: list[Placed] = []
        rest = list(payloads)
        while rest and (size := rest[0].size) is not None:
            head.append(Placed(rest.pop(0), self._number, start, size))
            start += size
        tail: list[Placed] = []
        while rest and (size := rest[-1].size) is not None:
            end -= size
            tail.insert(0, Placed(rest.pop(), self._number, end, size))
        if not rest:
            return [*head, *tail] if start == end else None
        middle = self._solve(rest, start, end)
        return None if middle is None else [*head, *middle, *tail]

    def _solve(self, payloads: Sequence[Payload], start: int, end: int) -> list[Placed] | None:
        """Divide the bytes between two known places among the payloads of unknown size there."""
        if len(payloads) > 1 and payloads[0].size is not None:
            return None
        widths = [_row_size(payload) for payload in payloads]
        total = 0
        for width in widths:
            if not width:
                return None
            total += width
        shared = {payload.shared_count for payload in payloads}
        if len(payloads) > 1 and (len(shared) != 1 or None in shared):
            return None
        rows, rest = divmod(end - start, total)
        if rest or rows < 0:
            return None
        self.solved += 1
        return list(self._iter_rows(payloads, start, rows))

    def _iter_rows(self, payloads: Sequence[Payload], start: int, rows: int) -> Iterator[Placed]:
        for payload in payloads:
            shape = payload.shape or (None,)
            whole = tuple(rows if size is None else size for size in shape)
            solved = replace(payload, shape=whole)
            size = solved.size or 0
            yield Placed(solved, self._number, start, size, solved=True)
            start += size


def _is_a_row(payload: Payload) -> bool:
    """Tell whether the shape is that of a vector of unknown length."""
    return payload.shape is None or payload.shape == (None,)


def _count(shape: tuple[int, ...]) -> int | None:
    product = 1
    for size in shape:
        product *= size
        if product > _MOST_ELEMENTS:
            return None
    return product


def _row_size(payload: Payload) -> int | None:
    """Return the bytes of one row, if exactly one dimension is not known; else None."""
    width = None if payload.data_type is None else item_size(payload.data_type)
    shape = (None,) if payload.shape is None else payload.shape
    if width is None or shape.count(None) != 1:
        return None
    for size in shape:
        width *= 1 if size is None else size
    return width
