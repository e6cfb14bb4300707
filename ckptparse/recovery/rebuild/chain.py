"""How large the layers of a perceptron are, by what training left in its slots.

The gradient of a dense layer's kernel is a product of what goes in and what comes back. So the mean
of its squares has a level for each row and one for each column, and the logarithms add up to it. Of
a wrong number of columns they do not. The bias is like one row more. And what one layer gives the
next takes: a kernel has as many rows as the one before has columns.

Layer by layer from the end, each number of columns is tried that the squares repeat with anywhere
(a beam search). The shortest description of squares and weights is taken, if it leaves no doubt:
every layer must be better described than without rows and columns, and no part of a layer better
by another number of columns.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Layer", "Search", "find_chain", "logarithms"]

_NOISE = 0.05
"""Variance of a logarithm below which nothing is told by it."""
_TINY = 1e-8
"""Mean of squared weights below which nothing is told by it."""
_WINDOWS = tuple(4**power for power in range(3, 9))
"""Elements in which periods are looked for."""
_MOST_WINDOWS = 64
"""Of each size."""
_PEAKS = 6
"""Periods that one window gives."""
_MOST_PERIODS = 48
_SMALL = 10
"""Periods up to this are tried always: of so few columns the squares hardly tell."""
_BLOCK = 64
"""Elements that are described together if there are no rows and columns."""
_BEAM, _BEAMS = 12, 48
"""Partial answers of about one length that are kept from layer to layer, and for all layers
together; of many elements less."""
_LEAST_BEAM = 1
_ALIKE = 2
"""Of these, those of the same rows."""
_MOST_LAYERS = 24
_MOST_PASSED, _MOST_TIMES = 3 << 24, 80
"""Elements that are passed over: so many, and so many times each of the squares."""
_USUAL_TIMES = 28
"""How often a layer passes over all, for each partial answer of one length."""
_CLEAR = 20.0
"""Nats by which the answer is better than the next."""
_LEAST_GAIN, _MEAN_GAIN = 0.015, 0.1
"""Nats for each element by which rows and columns describe a kernel better, and all kernels; by
the second, columns beside rows as well."""
_MOST_DOUBT = 0.05
"""Nats for each element by which other numbers of columns serve a kernel better, or its parts."""
_WIDE = 32
_LEAST_ROWS = 3
"""Of a part: fewer do not repeat."""
_LEAST_DOUBTED = 128
"""Elements of a kernel: of fewer, some other number of columns often serves by chance."""
_LEAST_SHARE = 0.6
"""Of all kernels, what must be in those that are large enough and have columns."""
_MOST_DOUBTED = 1 << 14
"""Elements of a kernel that are looked at so, and as many in its parts."""
_PARTS = 8
_LEAST_PART = 256
"""In elements."""

Numbers = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Layer:
    """A dense layer, and the normalization behind it."""

    bias: bool
    after: tuple[bool, ...] = ()
    """The variables of the normalization; for each whether it is trained."""

    @property
    def vectors(self) -> int:
        """Trained variables as large as the bias."""
        return sum(self.after)


def find_chain(
    squares: npt.NDArray[np.float32], weights: npt.NDArray[np.float32], layers: Sequence[Layer]
) -> list[tuple[int, int]] | None:
    """Return rows and columns of each kernel; None if nothing is clear.

    Args:
        squares: The means of squared gradients of all trained variables, in their order.
        weights: All variables, in their order.
        layers: Of which they are.
    """
    if not 1 < len(layers) <= _MOST_LAYERS or not squares.any():
        return None
    search = Search(logarithms(squares), weights, layers)
    found = search.run()
    return found if found is not None and search.is_clear(found) else None


def logarithms(squares: npt.NDArray[np.float32]) -> Numbers:
    """Return logarithms of squares; zeros are not far below the least."""
    least = float(np.log(np.quantile(squares[squares > 0].astype(np.float64), 0.01))) - 3
    logs = np.log(np.maximum(squares.astype(np.float64), np.exp(least)))
    centred: Numbers = logs - logs.mean()
    return centred


@dataclass(slots=True)
class _States:
    """Partial answers: the layers from one on to the last."""

    costs: Numbers
    """In nats."""
    starts: Places
    """Of the first of those layers, among the squares."""
    weights: Places
    """The same among the weights."""
    columns: Places
    """Of the layer before: the rows of the first."""
    parents: Places
    """Number of the answer among those of the next layer."""

    def taken(self, chosen: Places) -> _States:
        return _States(
            self.costs[chosen],
            self.starts[chosen],
            self.weights[chosen],
            self.columns[chosen],
            self.parents[chosen],
        )


class Search:
    """Layers laid one before the other, the last one first.

    Attributes:
        periods: Numbers of columns that are tried.
        passed: Elements that were passed over: what it costs.
    """

    def __init__(
        self, logs: Numbers, weights: npt.NDArray[np.float32], layers: Sequence[Layer]
    ) -> None:
        self._logs, self._layers = logs, layers
        self._sums, self._powers = _summed(logs), _summed(logs**2)
        self._weights = weights.astype(np.float64)
        self._weight_powers = _summed(self._weights**2)
        self._plain = _summed(_plain_costs(logs, _NOISE, centred=True))
        self._plain_weights = _summed(_plain_costs(self._weights, _TINY, centred=False))
        self.periods = _find_periods(logs)
        self.passed = 0
        self._most_passed = _MOST_PASSED + _MOST_TIMES * len(logs)
        usual = _USUAL_TIMES * len(logs) * len(layers)
        most = min(_BEAM, _BEAMS // len(layers), self._most_passed // usual)
        self._beam = max(_LEAST_BEAM, most)

    # -- from layer to layer

    def run(self) -> list[tuple[int, int]] | None:
        """Return the best answer, if it is better than the next by enough."""
        count = len(self.periods)
        states = _States(
            np.zeros(count),
            np.full(count, len(self._logs)),
            np.full(count, len(self._weights)),
            self.periods,
            np.full(count, -1),
        )
        levels = [states]
        for layer in self._layers[:0:-1]:
            following: list[_States] = []
            for number in range(len(states.costs)):
                some = self._before(layer, states, number)
                if some is not None:
                    following.append(some)
                if self.passed > self._most_passed:
                    return None
            if not following:
                return None
            states = self._best(_joined(following))
            levels.append(states)
        return self._answer(levels)

    def _before(self, layer: Layer, states: _States, number: int) -> _States | None:
        """Lay one layer before those of an answer, with every number of rows."""
        columns = int(states.columns[number])
        place = self._end(layer, int(states.starts[number]), int(states.weights[number]), columns)
        if place is None:
            return None
        cost, end, weights = place
        rows = self.periods[self.periods * columns < min(end, weights)]
        if not len(rows):
            return None
        costs = states.costs[number] + cost + self._costs(layer, end, weights, rows, columns)
        sizes = rows * columns
        return _States(
            costs, end - sizes, weights - sizes, rows, np.full(len(rows), number, np.int64)
        )

    def _end(
        self, layer: Layer, stop: int, weights: int, columns: int
    ) -> tuple[float, int, int] | None:
        """Return the cost of what stands behind a kernel but its bias, and where the kernel ends.

        Those are the places among squares and among weights.
        """
        cost = float(np.log(columns))
        for trained in reversed(layer.after):
            weights -= columns
            stop -= columns * trained
            if stop <= 0 or weights <= 0:
                return None
            if trained:
                cost += _described(self._logs[stop : stop + columns], _NOISE)
                cost += _described(self._weights[weights : weights + columns], _TINY)
        end, weights = stop - columns * layer.bias, weights - columns * layer.bias
        return (cost, end, weights) if end > 0 and weights > 0 else None

    def _costs(self, layer: Layer, end: int, weights: int, rows: Places, columns: int) -> Numbers:
        """Return the costs of a kernel that ends there and its bias, for numbers of rows that rise.

        Of the logarithms: levels of rows and columns, of columns alone, or of rows alone.
        """
        most = int(rows[-1])
        self.passed += most * columns
        block = self._logs[end - most * columns : end].reshape(most, columns)[::-1]
        by_column = np.cumsum(_summed_rows(block, np.r_[0, rows[:-1]]), axis=0)
        by_row = np.diff(self._sums[end - most * columns : end + 1 : columns])[::-1]
        sizes = rows * columns
        all_ = self._powers[end] - self._powers[end - sizes]
        base = (self._sums[end] - self._sums[end - sizes]) ** 2 / sizes
        of_columns = np.einsum("ij,ij->i", by_column, by_column) / rows
        of_rows = np.cumsum(by_row**2)[rows - 1] / columns
        costs = _two_ways(all_, base, (of_rows, of_columns), (rows, columns))
        power = self._weight_powers[weights] - self._weight_powers[weights - sizes]
        costs += sizes / 2 * np.log(power / sizes + _TINY) + np.log(sizes + 1) / 2
        if layer.bias:
            bias = self._logs[end : end + columns]
            means = by_column / rows[:, None]
            spread = np.minimum((bias - means).var(axis=1), bias.var())
            costs += columns / 2 * np.log(spread + _NOISE) + np.log(columns + 1)
            power = self._weight_powers[weights + columns] - self._weight_powers[weights]
            costs += columns / 2 * np.log(power / columns + _TINY) + np.log(columns + 1) / 2
        return costs

    def _best(self, states: _States) -> _States:
        """Keep the likeliest answers, of each length and number of rows some."""
        plain = self._plain[-1] - self._plain[states.starts]
        plain += self._plain_weights[-1] - self._plain_weights[states.weights]
        order = np.argsort(states.costs - plain, kind="stable")
        left = states.starts
        done = len(self._logs) - left
        # What is short is told apart finely, at either end.
        lengths = (4 * np.log2(np.minimum(left, done) + 1) * np.sign(left - done)).astype(np.int64)
        lasting: Counter[int] = Counter()
        alike: Counter[tuple[int, int]] = Counter()
        seen: set[tuple[int, int, int]] = set()
        chosen: list[int] = []
        for number in order.tolist():
            columns = int(states.columns[number])
            same = int(states.starts[number]), int(states.weights[number]), columns
            length = int(lengths[number])
            near = length, columns
            if same in seen or alike[near] >= _ALIKE or lasting[length] >= self._beam:
                continue
            seen.add(same)
            alike[near] += 1
            lasting[length] += 1
            chosen.append(number)
        return states.taken(np.array(chosen, np.int64))

    def _answer(self, levels: Sequence[_States]) -> list[tuple[int, int]] | None:
        """Return the best answer of which the first kernel takes all that is left."""
        states = levels[-1]
        first = self._layers[0]
        found: list[tuple[float, int, int]] = []
        for number, columns in enumerate(states.columns.tolist()):
            start, weights = int(states.starts[number]), int(states.weights[number])
            place = self._end(first, start, weights, columns)
            if place is None or place[1] != place[2] or place[1] % columns:
                continue
            rows = np.array([place[1] // columns])
            costs = self._costs(first, place[1], place[1], rows, columns)
            found.append((float(states.costs[number] + place[0] + costs[0]), number, int(rows[0])))
        found.sort()
        if not found or (len(found) > 1 and found[1][0] - found[0][0] < _CLEAR):
            return None
        _, number, rows_before = found[0]
        sizes: list[tuple[int, int]] = []
        for states in reversed(levels):
            columns = int(states.columns[number])
            sizes.append((rows_before, columns))
            rows_before, number = columns, int(states.parents[number])
        return sizes

    # -- whether it is clear

    def is_clear(self, sizes: Sequence[tuple[int, int]]) -> bool:
        """Tell whether each kernel has rows and columns, and no part of it others."""
        if any(columns == 1 for _, columns in sizes[:-1]):
            return False
        start = looked_at = 0
        gained = by_columns = 0.0
        for layer, (rows, columns) in zip(self._layers, sizes, strict=True):
            size = rows * columns
            block = self._logs[start : start + size].reshape(rows, columns)
            gain = float(self._plain[start + size] - self._plain[start]) - _cost(block)
            if gain < _LEAST_GAIN * size:
                return False
            gained += gain
            by_columns += _cost_of_rows(block) - _cost(block)
            if size >= _LEAST_DOUBTED:
                looked_at += size * (columns > 1)
                if max(self._doubt(block), self._doubt_of_parts(block)) > _MOST_DOUBT:
                    return False
            start += size + columns * (layer.bias + layer.vectors)
        all_ = sum(rows * columns for rows, columns in sizes)
        least = _MEAN_GAIN * all_
        return looked_at >= _LEAST_SHARE * all_ and min(gained, by_columns) >= least

    def _doubt_of_parts(self, block: Numbers) -> float:
        """Return the mean doubt about the parts of a kernel."""
        rows, columns = block.shape
        step = max(_LEAST_ROWS, -(-max(_LEAST_PART, block.size // _PARTS) // columns))
        firsts = range(0, rows - _LEAST_ROWS + 1, step)
        found = [self._doubt(block[first : first + step], _PARTS) for first in firsts]
        return sum(found) / max(1, len(found))

    def _doubt(self, part: Numbers, share: int = 1) -> float:
        """Return by how many nats for each element another number of columns serves better."""
        columns = part.shape[1]
        flat = part[: max(_LEAST_ROWS, _MOST_DOUBTED // share // columns)].reshape(-1)
        near = {columns - 1, columns + 1, 2 * columns, columns // 2, 3 * columns}
        costs: dict[int, float] = {}
        for other in {*self.periods.tolist(), *near, columns}:
            if other == columns or 1 <= other <= len(flat) // _LEAST_ROWS:
                whole = len(flat) // other * other
                costs[other] = _cost(flat[:whole].reshape(-1, other)) / whole
        return float(costs[columns] - min(costs.values()))


def _joined(states: Sequence[_States]) -> _States:
    return _States(
        np.concatenate([one.costs for one in states]),
        np.concatenate([one.starts for one in states]),
        np.concatenate([one.weights for one in states]),
        np.concatenate([one.columns for one in states]),
        np.concatenate([one.parents for one in states]),
    )


def _summed(values: Numbers) -> Numbers:
    """Return the sums of the first 0, 1, 2 ... values."""
    return np.concatenate((np.zeros(1), np.cumsum(values)))


def _summed_rows(block: Numbers, starts: Places) -> Numbers:
    """Return the sums by column of rows from each start to the next."""
    if block.shape[1] >= _WIDE:
        return np.add.reduceat(block, starts, axis=0)
    # Along short rows numpy is slow.
    turned: Numbers = np.add.reduceat(np.ascontiguousarray(block.T), starts, axis=1).T
    return turned


def _plain_costs(values: Numbers, least: float, *, centred: bool) -> Numbers:
    """Return the cost of each element if blocks are described by their variance alone."""
    starts = np.arange(0, len(values), _BLOCK)
    sizes = np.diff(np.append(starts, len(values)))
    spread = np.add.reduceat(values**2, starts) / sizes
    if centred:
        spread = np.maximum(spread - (np.add.reduceat(values, starts) / sizes) ** 2, 0)
    costs = np.log(spread + least) / 2 + (np.log(_BLOCK) / _BLOCK if centred else 0)
    return np.repeat(costs, sizes)


def _described(values: Numbers, least: float) -> float:
    """Return the cost of values that have one mean and one variance."""
    return float(len(values) / 2 * np.log(values.var() + least) + np.log(len(values) + 1))


def _two_ways(
    all_: Numbers, base: Numbers, of: tuple[Numbers, Numbers], shape: tuple[Places, int]
) -> Numbers:
    """Return the costs of blocks by their sums of squares, with the levels that serve best.

    Args:
        all_: Of all elements.
        base: Of their mean.
        of: Of the means of rows, and of columns.
        shape: Rows of each block, and columns.
    """
    (of_rows, of_columns), (rows, columns) = of, shape
    sizes = rows * columns
    parameter = np.log(sizes + 1) / 2

    def cost(rest: Numbers, levels: Places) -> Numbers:
        found: Numbers = sizes / 2 * np.log(np.maximum(rest, 0) / sizes + _NOISE)
        return found + levels * parameter

    both = cost(all_ - of_rows - of_columns + base, rows + columns)
    either = np.minimum(
        cost(all_ - of_columns, np.full_like(rows, columns + 1)), cost(all_ - of_rows, rows + 1)
    )
    return np.minimum(both, either)


def _cost(block: Numbers) -> float:
    """Return the cost of one block of logarithms."""
    rows, columns = block.shape
    costs = _two_ways(
        np.array([np.vdot(block, block)]),
        np.array([block.sum() ** 2 / block.size]),
        (
            np.array([(block.sum(axis=1) ** 2).sum() / columns]),
            np.array([(block.sum(axis=0) ** 2).sum() / rows]),
        ),
        (np.array([rows]), columns),
    )
    return float(costs[0])


def _cost_of_rows(block: Numbers) -> float:
    """Return the cost of one block if only its rows have levels."""
    rows, size = len(block), block.size
    rest = float(np.vdot(block, block) - (block.sum(axis=1) ** 2).sum() / block.shape[1])
    noise = max(rest, 0) / size + _NOISE
    return size / 2 * math.log(noise) + (rows + 1) * math.log(size + 1) / 2


def _find_periods(logs: Numbers) -> Places:
    """Return numbers of columns: the distances at which logarithms are most alike, anywhere."""
    votes: Counter[int] = Counter()
    for window in _WINDOWS:
        if window > max(_WINDOWS[0], len(logs) * 3 // 2):
            break
        step = max(window // 2, len(logs) // _MOST_WINDOWS)
        for start in range(0, max(1, len(logs) - window // 2), step):
            part = logs[start : start + window]
            for rank, period in enumerate(_peaks(part)):
                votes[period] += len(part) // (1 + rank)
    best = {period for period, _ in votes.most_common(_MOST_PERIODS)}
    return np.array(sorted(best | set(range(1, _SMALL + 1))), np.int64)


def _peaks(part: Numbers) -> list[int]:
    """Return the distances at which values are alike, and not at the ones beside."""
    size = 1 << (2 * len(part) - 1).bit_length()
    spectrum = np.fft.rfft(part - part.mean(), size)
    alike = np.fft.irfft(np.abs(spectrum) ** 2, size)[: len(part) // 3]
    if len(alike) < _LEAST_ROWS:
        return []
    heights = alike[1:-1] - np.maximum(alike[:-2], alike[2:])
    best = np.argsort(-heights)[:_PEAKS]
    return [int(one) + 1 for one in best[heights[best] > 0]]
