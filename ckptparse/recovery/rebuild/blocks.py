"""Where scalars lie before the blocks of slots of Keras 2.10 and older.

    variables   the optimizer's scalars   metrics   all m   all v   (the object graph)

Each block of slots is as large as all variables that are trained. So the sizes of the blocks follow
from how much there is in all, and where the scalars lie that stand before them, though no single
variable's size is known. What lies there must look like what it is held for: a step whose higher
half is zero, rates between 0 and 1, and blocks of which each m is within what Adam can reach beside
its v (`pairs`).

If there are variables that are not trained as well, the scalars are looked for: the one place
counts where both they and the blocks behind them look right.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import numpy.typing as npt

from ckptparse.dtypes import DataType
from ckptparse.problems import EvidenceRule
from ckptparse.recovery.rebuild.items import Item
from ckptparse.recovery.rebuild.pairs import keeps_to

__all__ = ["Blocks", "find_blocks"]

_WIDTH = 4
_NEVER_NEGATIVE = frozenset({"square", "rms", "vhat", "accumulator", "accum_var"})
_RATES = frozenset({"beta_1", "beta_2", "rho"})
"""At least 0.1, below 1: small ones of them would be met among squares."""
_LEAST_DECAY = 0.1
_SHARES = frozenset({"momentum", "decay"})
"""From 0, below 1."""
_MOST_STEPS = 1 << 23
"""From here on a step looks like a float that is no tiny one."""
_LARGEST_RATE = 1e3
"""Of learning: real ones are below 10."""
_LEAST_RATE = 1e-12
_LARGEST = 1e30
"""The total of a metric: beyond is no sum of anything."""
_SLACK = 1.005
"""What rounding may add to the bound on m."""
_PIECE = 1 << 20
"""Elements of a block that are looked at once."""
_MOST_PLACES = 64
"""Where scalars look right at more places, they tell nothing: as a rule it is one."""

Floats = npt.NDArray[np.float32]
Places = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Island:
    """Scalars that stand one after another between variables."""

    numbers: tuple[int, ...]
    offsets: tuple[int, ...]
    """Of each, in elements."""
    size: int
    """In elements."""

    def counts(self, items: Sequence[Item]) -> bool:
        """Tell whether a counter is among them, the only one that is seldom met by chance."""
        return any(items[number].data_type == DataType.DT_INT64 for number in self.numbers)


@dataclass(frozen=True, slots=True)
class Blocks:
    """What the blocks of slots tell."""

    scalars: dict[int, int]
    """Number of a scalar -> first of its elements."""
    kinds: tuple[str, ...]
    """Of the blocks, in their order."""
    trained: int
    """Elements of each block."""
    slots: int
    """Slots of each block."""


def find_blocks(
    items: Sequence[Item], sizes: Sequence[int | None], values: Floats
) -> Blocks | None:
    """Find the blocks of slots, and the scalars before them; None if nothing fits.

    Args:
        items: What fills the values, in its order; the blocks of slots end it.
        sizes: Of each, in bytes, if it is known.
        values: All there is.
    """
    search = _Search.of(items, sizes, values)
    return None if search is None else search.run()


@dataclass(frozen=True, slots=True)
class _Search:
    items: Sequence[Item]
    values: Floats
    kinds: tuple[str, ...]
    """Of the blocks, in their order."""
    islands: tuple[_Island, ...]
    closes: bool
    """Whether the last island stands before the blocks."""
    trained: int | None
    """Elements of a block; None if there are variables that are not trained."""

    @classmethod
    def of(
        cls, items: Sequence[Item], sizes: Sequence[int | None], values: Floats
    ) -> _Search | None:
        """Describe what there is; None if it does not end with blocks of slots."""
        kinds, groups = _blocks(items)
        head = len(items) - len(kinds) * len(groups)
        if not kinds or not head or not all(map(_is_plain, items, sizes)):
            return None
        own = set(groups)
        scalar = [sizes[n] is not None and items[n].group not in own for n in range(head)]
        islands = tuple(_islands(scalar, sizes))
        if not islands or scalar[0]:
            return None
        room = len(values) - sum(island.size for island in islands)
        variables = [items[n].group for n in range(head) if not scalar[n]]
        share, over = divmod(room, len(kinds) + 1)
        trained = None
        if Counter(variables) == Counter(groups):
            if over:
                return None
            trained = share
        return cls(items, values, kinds, islands, scalar[-1], trained)

    def run(self) -> Blocks | None:
        """Place what can be placed."""
        if self.trained is None:
            return self._untrained()
        limit = len(self.values) - len(self.kinds) * self.trained
        found: dict[int, int] = {}
        roots = None
        for island in self.islands:
            last = island is self.islands[-1] and self.closes
            start = limit - island.size
            if last:
                places = self._places(island, start, start + 1)
            elif island.counts(self.items):
                places = self._places(island, 0, start)
            else:
                continue
            if len(places) == 1:
                found |= self._placed(island, int(places[0]))
                roots = roots or self._most_roots(island, int(places[0]))
            elif last:
                return None
        counted = any(island.counts(self.items) for island in self._those(found))
        if not counted or not self._are_blocks(self.trained, roots):
            return None
        return self._blocks(found, self.trained)

    def _untrained(self) -> Blocks | None:
        """Place the last island where all that follows looks right."""
        island = self.islands[-1]
        if not self.closes or not island.counts(self.items):
            return None
        kinds, end = len(self.kinds), len(self.values) - island.size
        # A block is no larger than what stands before the scalars, and no block is empty.
        least = -(-end // (kinds + 1))
        fitting: list[tuple[int, int]] = []
        for place in self._places(island, least, end).tolist():
            trained, over = divmod(end - place, kinds)
            if not over and trained and self._are_blocks(trained, self._most_roots(island, place)):
                fitting.append((place, trained))
        if len(fitting) != 1:
            return None
        return self._blocks(self._placed(island, fitting[0][0]), fitting[0][1])

    def _blocks(self, scalars: dict[int, int], trained: int) -> Blocks:
        return Blocks(scalars, self.kinds, trained, len(_blocks(self.items)[1]))

    def _those(self, found: dict[int, int]) -> Iterator[_Island]:
        return (island for island in self.islands if island.numbers[0] in found)

    def _placed(self, island: _Island, place: int) -> dict[int, int]:
        return {
            number: place + offset
            for number, offset in zip(island.numbers, island.offsets, strict=True)
        }

    def _places(self, island: _Island, start: int, stop: int) -> Places:
        """Return where the scalars look right, of the places from `start` on."""
        if start < 0:
            return np.empty(0, np.int64)
        # The counter tells most, so that it is asked first, and little is left for the others.
        fields = sorted(
            zip(island.numbers, island.offsets, strict=True),
            key=lambda one: self.items[one[0]].data_type != DataType.DT_INT64,
        )
        found = [np.empty(0, np.int64)]
        for begin in range(start, stop, _PIECE):
            places = np.arange(begin, min(stop, begin + _PIECE))
            for number, offset in fields:
                places = places[_looks_right(self.items[number], self.values, places + offset)]
            found.append(places)
            if sum(map(len, found)) > _MOST_PLACES:
                return np.empty(0, np.int64)
        return np.concatenate(found)

    def _most_roots(self, island: _Island, place: int) -> float | None:
        """Return the bound on m in roots of v that the decays of means and squares give."""
        named = {
            _name(self.items[number]): float(self.values[place + offset])
            for number, offset in zip(island.numbers, island.offsets, strict=True)
        }
        means, squares = named.get("beta_1", 0.0), named.get("beta_2", 0.0)
        if not means or means**2 >= squares:
            return None
        # Cauchy and Schwarz, of the weights of all past gradients in both means.
        return _SLACK * (1 - means) / math.sqrt((1 - squares) * (1 - means**2 / squares))

    def _are_blocks(self, trained: int, most_roots: float | None) -> bool:
        """Tell whether the values end with blocks that training can have left."""
        blocks = self.values[len(self.values) - len(self.kinds) * trained :]
        each = dict(zip(self.kinds, blocks.reshape(len(self.kinds), trained), strict=True))
        for start in range(0, trained, _PIECE):
            parts = {kind: block[start : start + _PIECE] for kind, block in each.items()}
            if not all(np.isfinite(part).all() for part in parts.values()):
                return False
            if any((parts[kind] < 0).any() for kind in parts.keys() & _NEVER_NEGATIVE):
                return False
            if most_roots is None or not {"mean", "square"} <= parts.keys():
                continue
            if not keeps_to(parts["mean"], parts["square"], most_roots).all():
                return False
        return True


def _blocks(items: Sequence[Item]) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Return the kinds of the blocks of slots that end the items, and the groups of each."""
    runs = [list(run) for _, run in groupby(items, key=lambda item: item.slot)]
    last = tuple(item.group for item in runs[-1])
    kinds: list[str] = []
    for run in reversed(runs):
        if not run[0].slot or run[0].slot in kinds or tuple(one.group for one in run) != last:
            break
        kinds.insert(0, run[0].slot)
    return tuple(kinds), last


def _islands(scalar: Sequence[bool], sizes: Sequence[int | None]) -> Iterator[_Island]:
    number = 0
    for is_scalar, run in groupby(scalar):
        numbers = range(number, number + len(list(run)))
        number = numbers.stop
        if is_scalar:
            widths = [(sizes[one] or 0) // _WIDTH for one in numbers]
            offsets = np.cumsum([0, *widths]).tolist()
            yield _Island(tuple(numbers), tuple(offsets[:-1]), offsets[-1])


def _is_plain(item: Item, size: int | None) -> bool:
    """Tell whether a tensor is of whole elements: floats, or a counter."""
    if size is None:
        return item.data_type == DataType.DT_FLOAT and item.rule is not EvidenceRule.STEP_SIZE
    return size % _WIDTH == 0


def _name(item: Item) -> str:
    """Return what its object calls a tensor."""
    return item.key.partition("/.ATTRIBUTES/")[0].rpartition("/")[2]


def _looks_right(item: Item, values: Floats, places: Places) -> npt.NDArray[np.bool_]:
    """Tell for each place whether the value there is such as that scalar has."""
    right: npt.NDArray[np.bool_]
    if item.data_type == DataType.DT_INT64:
        words = values.view("<u4")
        right = (words[places] < _MOST_STEPS) & (words[places + 1] == 0)
        return right
    found, name = values[places], _name(item)
    with np.errstate(invalid="ignore"):
        if item.data_type != DataType.DT_FLOAT:
            right = np.ones(len(places), np.bool_)
        elif name in _RATES:
            right = (found >= _LEAST_DECAY) & (found < 1)
        elif name in _SHARES:
            right = (found >= 0) & (found < 1)
        elif name == "learning_rate":
            right = (found >= _LEAST_RATE) & (found <= _LARGEST_RATE)
        elif name == "count":
            right = (found >= 0) & (found <= _LARGEST)
        else:
            right = (found >= -_LARGEST) & (found <= _LARGEST)
    return right
