"""Lay the tensors that an object graph names over a data file, of which no index tells the places.

The file is filled without gaps, in the graph's order. What an index still says is fixed; sizes are
those that rules give (`EvidenceRule`). Whatever lies between two known places and is known but for
one size takes the rest; the others stay unplaced, and their bytes are counted.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ckptparse.dtypes import DataType
from ckptparse.files.storage import Source
from ckptparse.files.views import JoinedSource, Range
from ckptparse.problems import EvidenceRule
from ckptparse.recovery.rebuild.blocks import find_blocks
from ckptparse.recovery.rebuild.counted import (
    MOST_COUNTED,
    Counted,
    count_strings,
    find_last_string,
    find_last_strings,
    measure_strings,
)
from ckptparse.recovery.rebuild.dense import find_sizes, is_dense
from ckptparse.recovery.rebuild.inner_strings import LARGEST, find_inner_strings
from ckptparse.recovery.rebuild.items import TABLE_KEYS, Item
from ckptparse.recovery.rebuild.marks import find_marks
from ckptparse.recovery.rebuild.pairs import Pair, find_pairs
from ckptparse.recovery.rebuild.states import LARGEST as LARGEST_STATES
from ckptparse.recovery.rebuild.states import find_states

__all__ = ["Known", "Tile", "Tiling", "tile"]

_FLOAT_WIDTH = 4
_MOST_TRIES = 1 << 22
"""Numbers of strings that are tried, if nothing says that there are any. Each fits by chance 1 in
2^32, so that one of all of them does 1 in 1,000."""
_MOST_PAIRED = 1 << 30
"""Bytes in which pairs and blocks of slots are looked for: they are held in memory."""


@dataclass(frozen=True, slots=True)
class Known:
    """What an index says of a tensor."""

    offset: int
    size: int
    """In bytes."""
    count: int | None
    """Its elements, if they have a size."""


@dataclass(frozen=True, slots=True)
class Tile:
    """A tensor with its place."""

    item: Item
    offset: int
    size: int
    """In bytes."""
    data_type: int
    count: int
    """Of its elements."""
    rules: tuple[EvidenceRule, ...]
    """What gave its size, in the order in which it was used."""
    counted: Counted | None = None
    """What a string says of itself."""


@dataclass(frozen=True, slots=True)
class Tiling:
    """What could be laid over a data file."""

    tiles: tuple[Tile, ...]
    """By offset; without those that the index has."""
    unplaced: tuple[str, ...]
    """Keys of which nothing tells the place."""
    unnamed: int
    """Bytes that they must lie in, among others."""


@dataclass(slots=True)
class _Run:
    """Tensors one after another that fill what lies between two known places."""

    items: list[int]
    start: int
    stop: int


def tile(
    items: Sequence[Item],
    known: Mapping[str, Known],
    source: Source,
    end: int,
    *,
    counts: Mapping[str, int] | None = None,
) -> Tiling | None:
    """Lay tensors over the first `end` bytes of a data file; None if the index contradicts them.

    Args:
        items: What the object graph names, in its order.
        known: What an index says, by key.
        source: The data file.
        end: Where its object graph begins.
        counts: Elements of tensors whose shapes were given, by key.
    """
    tiler = _Tiler(items, known, source, end)
    for item in items:
        if counts is not None and item.key in counts:
            tiler.give(item, counts[item.key])
    return tiler.run() if tiler.in_order else None


class _Tiler:
    def __init__(
        self, items: Sequence[Item], known: Mapping[str, Known], source: Source, end: int
    ) -> None:
        self._items = list(items)
        self._known = known
        self._source = source
        self._end = end
        self._places: dict[int, tuple[int, int]] = {}
        """Number of an item -> first byte and one past the last."""
        self._counts: dict[int, tuple[int, tuple[EvidenceRule, ...]]] = {}
        """Number of a group -> its elements, and what told them."""
        self._counted: dict[int, Counted] = {}
        self._tries = _MOST_TRIES
        self._without_strings: set[tuple[int, int]] = set()
        """First and last bytes of runs that begin with no strings."""
        self._without_last: set[tuple[int, int]] = set()
        """The same of those that end with none."""
        self._before_blocks: set[int] = set()
        """Items that were placed by the blocks of slots behind them."""
        self._marked: set[tuple[int, int]] = set()
        """First and last items of runs in which marks were looked for."""
        self._without_inner: set[tuple[int, int]] = set()
        """Where strings between others were looked for."""
        self._without_states: set[tuple[int, int]] = set()
        """Where states of iterators were looked for."""
        self._searched = False
        """Whether layers were looked for."""
        self._kernels = {item.group: item.kernel for item in items if item.kernel is not None}
        self._dead: set[int] = set()
        """Items of runs that contradict themselves."""
        for number, item in enumerate(items):
            found = known.get(item.key)
            if found is not None:
                self._places[number] = found.offset, found.offset + found.size
                if found.count is not None:
                    self._counts.setdefault(item.group, (found.count, (EvidenceRule.CUT_INDEX,)))

    def give(self, item: Item, count: int) -> None:
        """Take over how many elements a tensor has, unless the index says it."""
        self._counts.setdefault(item.group, (count, (EvidenceRule.GIVEN_SHAPES,)))

    @property
    def in_order(self) -> bool:
        """Whether the places that are known rise as the items do."""
        done = 0
        for number in sorted(self._places):
            start, stop = self._places[number]
            if start < done:
                return False
            done = stop
        return done <= self._end

    def run(self) -> Tiling:
        changed = True
        while changed:
            changed = False
            for run in list(self._runs()):
                changed |= self._fill(run)
        tiles = [
            self._tile(number)
            for number in self._places
            if self._items[number].key not in self._known
        ]
        unplaced = [item.key for n, item in enumerate(self._items) if n not in self._places]
        covered = sum(stop - start for start, stop in self._places.values())
        tiles.sort(key=lambda one: one.offset)
        return Tiling(tuple(tiles), tuple(unplaced), self._end - covered)

    def _runs(self) -> Iterator[_Run]:
        """Iterate over what is not placed yet, between two that are."""
        run = _Run([], 0, 0)
        for number in range(len(self._items)):
            if number not in self._places:
                run.items.append(number)
                continue
            start, stop = self._places[number]
            if run.items:
                run.stop = start
                yield run
            run = _Run([], stop, 0)
        if run.items:
            run.stop = self._end
            yield run

    # -- one run

    def _fill(self, run: _Run) -> bool:
        """Place what can be placed of a run; tell whether anything was."""
        if any(number in self._dead for number in run.items):
            return False
        sizes = [self._size_of(number) for number in run.items]
        total, room = sum(size or 0 for size in sizes), run.stop - run.start
        open_ones = [n for n, size in zip(run.items, sizes, strict=True) if size is None]
        if total > room or (not open_ones and total != room):
            self._dead.update(run.items)
            return False
        return (
            self._fill_states(run)
            or self._fill_ends(run)
            or self._fill_rest(open_ones, room - total)
            or self._fill_pairs(run, room - total, open_ones)
            or self._fill_blocks(run, sizes)
            or self._fill_marked(run)
            or self._fill_last(run)
            or self._fill_strings(run)
        )

    def _size_of(self, number: int) -> int | None:
        """Return the bytes of an item, if anything tells them."""
        item, width = self._items[number], self._items[number].width
        count = item.count if item.group not in self._counts else self._counts[item.group][0]
        return None if width is None or count is None else width * count

    def _fill_states(self, run: _Run) -> bool:
        """Place the states of iterators that lie in a run, if all of them are found there."""
        tried = run.start, run.stop
        numbers = [n for n in run.items if self._items[n].data_type == DataType.DT_VARIANT]
        if not numbers or run.stop - run.start > LARGEST_STATES or tried in self._without_states:
            return False
        self._without_states.add(tried)
        found = find_states(self._source, *tried)
        if len(found) != len(numbers):
            return False
        for number, (offset, counted) in zip(numbers, found, strict=True):
            self._counted[number] = counted
            self._places[number] = offset, offset + counted.size
        return True

    def _fill_ends(self, run: _Run) -> bool:
        """Place what is known at the start of a run, and at its end."""
        before = len(self._places)
        while run.items and (size := self._size_at(run.items[0], run.start, run.stop)) is not None:
            self._places[run.items.pop(0)] = run.start, run.start + size
            run.start += size
        while run.items and (size := self._size_before(run.items[-1], run)) is not None:
            self._places[run.items.pop()] = run.stop - size, run.stop
            run.stop -= size
        return len(self._places) > before

    def _size_at(self, number: int, offset: int, stop: int) -> int | None:
        """Return the bytes of an item that begins there, if anything tells them."""
        item = self._items[number]
        if item.rule is EvidenceRule.STEP_SIZE and item.data_type is None:
            item = self._items[number] = self._step_at(item, offset)
        if item.data_type != DataType.DT_STRING:
            size = self._size_of(number)
            return self._strings_at(number, offset, stop) if size is None else size
        count, _ = self._counts.get(item.group, (1, ()))
        counted = measure_strings(self._source, offset, count)
        if counted is None or offset + counted.size > stop:
            return None
        self._counted[number] = counted
        return counted.size

    def _may_be_strings(self, number: int) -> bool:
        """Tell whether nothing says what a variable holds: it is taken for floats if it must be."""
        item = self._items[number]
        untold = item.count is None and item.rule is None
        if _are_keys(item):
            return untold
        untold = untold and item.group not in self._counts
        is_float = item.data_type == DataType.DT_FLOAT and not item.slot
        return untold and is_float

    def _strings_at(self, number: int, offset: int, stop: int) -> int | None:
        """Return the bytes of strings that begin there: their lengths have their checksum."""
        tries = min(stop - offset, MOST_COUNTED)
        if not self._may_be_strings(number) or (offset, stop) in self._without_strings:
            return None
        if tries > self._tries:
            return None
        self._tries -= tries
        known = self._counts.get(self._items[number].group)
        counted = (
            count_strings(self._source, offset, stop - offset)
            if known is None
            else measure_strings(self._source, offset, known[0])
        )
        if counted is None or offset + counted.size > stop:
            self._without_strings.add((offset, stop))
            return None
        self._take_strings(number, counted)
        return counted.size

    def _take_strings(self, number: int, counted: Counted) -> None:
        """Note what strings say of themselves; a table has as many values as keys."""
        item = self._items[number] = replace(self._items[number], data_type=DataType.DT_STRING)
        self._counted[number] = counted
        if item.key.endswith(TABLE_KEYS):
            self._counts[item.group] = counted.count, (EvidenceRule.STRING_SIZE,)

    def _step_at(self, item: Item, offset: int) -> Item:
        """Tell the type of a step: of 64 bits, the higher half is zero."""
        high = self._source.read_at(offset + 4, 4) if offset + 8 <= self._end else b"\1"
        data_type = DataType.DT_INT32 if any(high) else DataType.DT_INT64
        return replace(item, data_type=data_type, count=1)

    def _size_before(self, number: int, run: _Run) -> int | None:
        """Return the bytes of an item that ends a run, if anything tells them."""
        is_strings = self._items[number].data_type == DataType.DT_STRING
        size = None if is_strings else self._size_of(number)
        tried = run.start, run.stop
        if size is not None or (not is_strings and not self._may_be_strings(number)):
            return size
        if tried in self._without_last:
            return None
        part = Range(self._source, run.start, run.stop - run.start)
        rest = JoinedSource(self._source.path, [part])
        for offset in (find_last_string(rest), find_last_strings(rest)):
            if offset is not None:
                size = self._size_at(number, run.start + offset, run.stop)
                if size == part.size - offset:
                    return size
        self._without_last.add(tried)
        return None

    def _fill_rest(self, open_ones: Sequence[int], room: int) -> bool:
        """Give what is left to the one size that is not known."""
        groups = {self._items[number].group for number in open_ones}
        if len(groups) != 1:
            return False
        item = self._items[open_ones[0]]
        if any(self._items[number].width is None for number in open_ones):
            # Of a table, nothing tells how many bytes the keys take.
            return False
        share, over = divmod(room, len(open_ones))
        if over or not item.width or share % item.width:
            self._dead.update(open_ones)
            return False
        self._counts[item.group] = share // item.width, (EvidenceRule.REST,)
        return True

    def _fill_pairs(self, run: _Run, room: int, open_ones: Sequence[int]) -> bool:
        """Find the sizes of Adam's pairs at an end of a run; they are those of others as well."""
        forwards, backwards = self._chain(run.items), self._chain_back(run.items)
        chain = forwards or backwards
        size = (run.stop - run.start) // _FLOAT_WIDTH * _FLOAT_WIDTH
        if not chain or size > _MOST_PAIRED:
            return False
        weights = Counter(self._items[number].group for number in open_ones)

        def adds_up(sizes: dict[int, int]) -> bool:
            taken = sum(weights[group] * count * _FLOAT_WIDTH for group, count in sizes.items())
            return taken == room if weights.keys() <= sizes.keys() else taken <= room

        data = self._source.read_at(run.start if forwards else run.stop - size, size)
        values = np.frombuffer(data, "<f4")
        found = find_pairs(values, chain, adds_up, backwards=not forwards)
        if found is None:
            return False
        for group, count in found.items():
            self._counts.setdefault(group, (count, (EvidenceRule.PAIRS,)))
        return True

    def _fill_blocks(self, run: _Run, sizes: Sequence[int | None]) -> bool:
        """Place the scalars that stand before blocks of slots."""
        size = run.stop - run.start
        if size % _FLOAT_WIDTH or size > _MOST_PAIRED or len(run.items) != len(sizes):
            return False
        items = [self._items[number] for number in run.items]
        if not items[-1].slot or all(one is None for one in sizes):
            return False
        values = np.frombuffer(self._source.read_at(run.start, size), "<f4")
        blocks = find_blocks(items, sizes, values)
        if blocks is None:
            return False
        for place, first in blocks.scalars.items():
            start = run.start + first * _FLOAT_WIDTH
            self._places[run.items[place]] = start, start + (sizes[place] or 0)
            self._before_blocks.add(run.items[place])
        # A search that is not made twice: it costs as much as all else together.
        if not self._searched:
            self._searched = True
            for group, count in find_sizes(items, sizes, values, blocks).items():
                self._counts.setdefault(group, (count, (EvidenceRule.LAYER_CHAIN,)))
        return True

    def _fill_marked(self, run: _Run) -> bool:
        """Place the vectors whose values are about one, and the biases beside them."""
        size = run.stop - run.start
        tried = run.items[0], run.items[-1]
        if size % _FLOAT_WIDTH or size > _MOST_PAIRED or tried in self._marked:
            return False
        self._marked.add(tried)
        values = np.frombuffer(self._source.read_at(run.start, size), "<f4")
        found = find_marks([self._items[number] for number in run.items], values)
        for place, (first, last) in (found or {}).items():
            number = run.items[place]
            start, stop = run.start + _FLOAT_WIDTH * first, run.start + _FLOAT_WIDTH * last
            self._places[number] = start, stop
            self._counts.setdefault(self._items[number].group, (last - first, (EvidenceRule.ONES,)))
        return bool(found)

    def _fill_last(self, run: _Run) -> bool:
        """Give a dense layer behind a marked one its sizes, if only one number of units fits."""
        inputs = self._inputs_of(run.items)
        if len(run.items) != len(("kernel", "bias")) or inputs is None:
            return False
        kernel, bias = (self._items[number] for number in run.items)
        if bias.kernel != kernel.group or kernel.slot or not is_dense(kernel):
            return False
        elements = (run.stop - run.start) // _FLOAT_WIDTH
        # What was flattened is a multiple of what the layer before gives.
        rows = range(inputs, elements, inputs)
        units = [elements // (one + 1) for one in rows if elements % (one + 1) == 0]
        if len(units) != 1:
            return False
        self._counts[bias.group] = units[0], (EvidenceRule.LAYER_SIZE,)
        return True

    def _fill_strings(self, run: _Run) -> bool:
        """Place strings that lie anywhere in a run, if it is known which variables they are."""
        tried = run.start, run.stop
        likely = [number for number in run.items if self._may_hold_strings(number)]
        if not likely or run.stop - run.start > LARGEST or tried in self._without_inner:
            return False
        items = [self._items[number] for number in run.items]
        if any(item.width is None and item.rule is None and not _are_keys(item) for item in items):
            # States of iterators are strings, too.
            return False
        self._without_inner.add(tried)
        keys = [number for number in likely if _are_keys(self._items[number])]
        found = find_inner_strings(self._source, *tried, none=bool(keys))
        # The first ones of a run begin with it, and the last ones end with it.
        inner = [number for number in likely if number not in (run.items[0], run.items[-1])]
        ends = {(offset, offset + counted.size) for offset, counted in found}
        if not any(start == tried[0] or stop == tried[1] for start, stop in ends):
            likely = inner
        numbers = next((some for some in (keys, likely) if len(some) == len(found)), [])
        for number, (offset, counted) in zip(numbers, found, strict=False):
            self._take_strings(number, counted)
            self._places[number] = offset, offset + counted.size
        return bool(numbers)

    def _may_hold_strings(self, number: int) -> bool:
        """Tell whether a variable may hold strings: it was not trained, and is no layer's."""
        item = self._items[number]
        trained = any(one.slot and one.group == item.group for one in self._items)
        layered = item.kernel is not None or item.group in self._kernels.values()
        return self._may_be_strings(number) and not (trained or layered or item.partner)

    def _inputs_of(self, numbers: Sequence[int]) -> int | None:
        """Return what the marked layer gives that lies before a run, or is the only other one."""
        before = numbers[0] - 1
        if before >= 0:
            item = self._items[before]
            count, rules = self._counts.get(item.group, (0, ()))
            if EvidenceRule.ONES not in rules or item.slot:
                return None
            # The bias of an LSTM has four values for each of its units.
            is_cell = before > 0 and _holds(self._items[before - 1], "recurrent_kernel")
            return count // 4 if is_cell else count
        kernels = [item for item in self._items if not item.slot and _holds(item, "kernel")]
        cells = [item for item in self._items if not item.slot and _holds(item, "recurrent_kernel")]
        if len(kernels) != len(("cell", "layer")) or len(cells) != 1:
            return None
        count, rules = self._counts.get(cells[0].group, (0, ()))
        # It has 4 columns for each of its rows.
        return math.isqrt(count // 4) if EvidenceRule.ONES in rules else None

    def _chain(self, numbers: Sequence[int]) -> list[Pair]:
        """Return the pairs that a run begins with."""
        pairs = (self._pair(*two) for two in zip(numbers[::2], numbers[1::2], strict=False))
        return list(_up_to_none(pairs))

    def _chain_back(self, numbers: Sequence[int]) -> list[Pair]:
        """Return the pairs that a run ends with."""
        back = numbers[::-1]
        pairs = (self._pair(*two) for two in zip(back[1::2], back[::2], strict=False))
        return list(_up_to_none(pairs))[::-1]

    def _pair(self, first: int, second: int) -> Pair | None:
        mean, square = self._items[first], self._items[second]
        if (mean.slot, square.slot) != ("mean", "square") or mean.group != square.group:
            return None
        return Pair(mean.group, self._kernels.get(mean.group))

    # -- what was found

    def _tile(self, number: int) -> Tile:
        item = self._items[number]
        start, stop = self._places[number]
        counted = self._counted.get(number)
        if counted is not None:
            rules: Iterable[EvidenceRule] = (EvidenceRule.STRING_SIZE,)
            count = counted.count
        elif item.group in self._counts:
            count, rules = self._counts[item.group]
            if item.partner is not None and EvidenceRule.REST not in rules:
                rules = (*rules, item.partner)
        else:
            count, rules = item.count or 0, () if item.rule is None else (item.rule,)
        if number in self._before_blocks:
            rules = (*rules, EvidenceRule.SLOT_BLOCKS)
        data_type = item.data_type or 0
        return Tile(item, start, stop - start, data_type, count, tuple(rules), counted)


def _are_keys(item: Item) -> bool:
    """Tell whether an item is the keys of a table, of whatever type."""
    return item.data_type is None and item.key.endswith(TABLE_KEYS)


def _holds(item: Item, name: str) -> bool:
    """Tell whether that is what its object calls a tensor."""
    return item.held[1] == name


def _up_to_none(pairs: Iterable[Pair | None]) -> Iterator[Pair]:
    for pair in pairs:
        if pair is None:
            return
        yield pair
