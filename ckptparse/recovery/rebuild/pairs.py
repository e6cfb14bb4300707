"""Where Adam's pairs of slots lie end to end, by what training does to them.

Adam keeps for every element g of a gradient a mean m of the last g and a mean v of their squares.
So v is never below zero, and by the inequality of Cauchy and Schwarz, with its usual decays 0.9 and
0.999, the magnitude of m is at most 7.27 roots of v. Elements with much m have much v as well.

Pair after pair, every size that keeps to that is tried, the best fits first (a beam search);
the sizes of all pairs must add up to what there is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Pair", "find_pairs", "keeps_to"]

_MOST_ROOTS = 7.3
"""The largest |m| / root of v that Adam can reach, 7.27, rounded up; see above."""
_TINY = 1e-18
"""Means of which the square is no number any more."""
_BEAM = 32
"""Partial answers that are kept from pair to pair, the likeliest: time grows with them."""
_SAMPLE = 128
"""Elements by which a size is first judged; the best sizes are then looked at whole."""
_MOST_SIZES = 4096
"""Sizes of one pair that are tried within one run of elements that are not negative."""
_TRIED = 48
"""Of these, the best by a sample that are looked at whole."""
_LEAST_TRIED = 3
"""However long they are: the best by the sample is not always the best of all elements."""
_MOST_LOOKED_AT = 1 << 22
"""Elements that are looked at for all sizes of one pair together."""
_USUAL_RATIO, _SPREAD, _FAR = -2.3, 3.0, 6.0
"""The logarithm of m² / v: on average, its spread, and where it speaks against a pair."""
_LEAST = -4.0
"""What one element can say against a pair."""
_MOST_SCORED = 1 << 15
"""Elements of a pair that are scored, spread over it: enough to tell a pair from noise."""
_FEW = 3
"""Of so few elements the correlation says nothing: three points may lie on a line by chance."""
_MOST_ALIKE = 0.99
"""The correlation counts as this at most: that of equal runs is 1, whose score has no end."""
_MOST_ELEMENTS = 1 << 28
"""Elements of a stretch that is searched: 1 GiB, as much as its arrays may take."""

Floats = npt.NDArray[np.float32]
Sizes = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Pair:
    """What is known of one pair beforehand."""

    group: int
    """Its size's number; pairs of one number are of one size."""
    kernel: int | None = None
    """The group whose size its own divides."""


@dataclass(frozen=True, slots=True)
class _State:
    """Pairs that have been laid end to end."""

    end: int
    sizes: tuple[tuple[int, int], ...]
    """Group and size of each."""
    score: float

    def size_of(self, group: int) -> int | None:
        return next((size for known, size in self.sizes if known == group), None)


def find_pairs(
    values: Floats,
    pairs: Sequence[Pair],
    adds_up: Callable[[dict[int, int]], bool],
    *,
    backwards: bool = False,
) -> dict[int, int] | None:
    """Return the size of each group in elements, or None if nothing fits.

    Args:
        values: The elements from the start of the first pair; or up to the end of the last.
        pairs: In their order.
        adds_up: Tells whether sizes leave no byte over, or none too few.
        backwards: Whether the end of the last pair is known, and not the start of the first.
    """
    if len(values) > _MOST_ELEMENTS:
        return None
    search = _Search(values[::-1] if backwards else values, mirrored=backwards)
    states = [_State(0, (), 0.0)]
    for pair in reversed(pairs) if backwards else pairs:
        following = [new for state in states for new in search.extended(state, pair)]
        states = sorted(following, key=lambda state: -state.score)[:_BEAM]
    for state in states:
        sizes = dict(state.sizes)
        if adds_up(sizes):
            return sizes
    return None


class _Search:
    """Pairs end to end; mirrored, each begins with its squares."""

    def __init__(self, values: Floats, *, mirrored: bool) -> None:
        self._values = values
        self._mirrored = mirrored
        self._runs = _Runs(values)

    def extended(self, state: _State, pair: Pair) -> Iterator[_State]:
        """Iterate over what may come of laying another pair behind those that lie."""
        values, start = self._values, state.end
        sizes = self._sizes_at(state, pair)
        sizes = sizes[start + 2 * sizes <= len(values)]
        for size in self._likely(start, sizes).tolist():
            if not _divides(state, pair, size):
                continue
            halves = values[start : start + size], values[start + size : start + 2 * size]
            means, squares = halves[::-1] if self._mirrored else halves
            if _fits(means, squares):
                score = state.score + _score(means, squares)
                yield _State(start + 2 * size, (*state.sizes, (pair.group, size)), score)

    def _sizes_at(self, state: _State, pair: Pair) -> Sizes:
        known = state.size_of(pair.group)
        if known is not None:
            return np.array([known], np.int64)
        if self._mirrored:
            return self._runs.sizes_within(state.end)
        return self._runs.sizes_at(state.end)

    def _likely(self, start: int, sizes: Sizes) -> Sizes:
        """Return the sizes that keep to the inequality at some of their elements, the best ones."""
        places = np.random.default_rng(0).random(_SAMPLE)
        good, scores = [np.empty(0, np.int64)], [np.empty(0)]
        for begin in range(0, len(sizes), _MOST_SIZES):
            some = sizes[begin : begin + _MOST_SIZES]
            within = start + (places[None, :] * some[:, None]).astype(np.int64)
            halves = self._values[within], self._values[within + some[:, None]]
            means, squares = halves[::-1] if self._mirrored else halves
            keeps = keeps_to(means, squares).all(axis=1)
            good.append(some[keeps])
            scores.append(_scores(means[keeps], squares[keeps]).mean(axis=1) * some[keeps])
        found = np.concatenate(good)[np.argsort(-np.concatenate(scores))[:_TRIED]]
        # The best three at least, and more of them if they are small.
        return found[: max(_LEAST_TRIED, int((np.cumsum(found) <= _MOST_LOOKED_AT).sum()))]


def _divides(state: _State, pair: Pair, size: int) -> bool:
    """Tell whether a bias may have that size beside its kernel."""
    kernel = None if pair.kernel is None else state.size_of(pair.kernel)
    return kernel is None or kernel % size == 0


class _Runs:
    """The runs of elements that are not negative.

    The second half of a pair is in one run, no shorter than it is away: of each length few are
    near enough, so that runs are kept by their length.
    """

    def __init__(self, values: Floats) -> None:
        edges = np.flatnonzero(np.diff((values >= 0).astype(np.int8), prepend=0, append=0))
        starts, stops = edges[::2], edges[1::2]
        self._classes: list[tuple[Sizes, Sizes]] = []
        while len(starts):
            self._classes.append((starts, stops))
            long = stops - starts >= 1 << len(self._classes)
            starts, stops = starts[long], stops[long]

    def sizes_at(self, start: int) -> Sizes:
        """Return the sizes of which the second half of a pair that begins there is in one run."""
        found = [np.empty(0, np.int64)]
        for number, (starts, stops) in enumerate(self._classes):
            # The shortest serve what is nearest, and the run in which the pair itself begins.
            first = int(np.searchsorted(stops, start, side="right"))
            if number:
                first = int(np.searchsorted(starts, start + (1 << number)))
            last = int(np.searchsorted(starts, start + (2 << number)))
            lows, highs = (
                (starts[first:last] - start).tolist(),
                (stops[first:last] - start).tolist(),
            )
            for low, high in zip(lows, highs, strict=True):
                least = max(1, low)
                most = min(high // 2, least + _MOST_SIZES)
                found.append(np.arange(least, most + 1, dtype=np.int64))
        return np.concatenate(found)

    def sizes_within(self, start: int) -> Sizes:
        """Return the sizes of which the first half of a pair that begins there is in one run."""
        starts, stops = self._classes[0] if self._classes else (np.empty(0, np.int64),) * 2
        place = int(np.searchsorted(stops, start, side="right"))
        if place == len(starts) or starts[place] > start:
            return np.empty(0, np.int64)
        most = int(stops[place]) - start
        return np.arange(max(1, most - _MOST_SIZES), most + 1, dtype=np.int64)


def keeps_to(
    means: Floats, squares: Floats, most_roots: float = _MOST_ROOTS
) -> npt.NDArray[np.bool_]:
    """Tell for each element whether m is at most so many roots of v; neither is NaN or infinite."""
    with np.errstate(all="ignore"):
        roots = most_roots * np.sqrt(squares) + _TINY
        kept: npt.NDArray[np.bool_] = (np.abs(means) <= roots) & np.isfinite(squares)
    return kept


def _fits(means: Floats, squares: Floats) -> bool:
    return bool((squares >= 0).all() and keeps_to(means, squares).all())


def _scores(means: Floats, squares: Floats) -> npt.NDArray[np.float64]:
    """Return for each element how much likelier it is of a pair than not, in nats."""
    with np.errstate(all="ignore"):
        ratios = 2 * np.log(np.abs(means, dtype=np.float64)) - np.log(squares, dtype=np.float64)
        scores = (_FAR**2 - (ratios - _USUAL_RATIO) ** 2) / (2 * _SPREAD**2)
    # Where one is zero the other is: rows of an embedding that were never seen.
    zero = means == 0
    scores[zero | (squares == 0)] = _LEAST
    scores[zero & (squares == 0)] = 0
    bounded: npt.NDArray[np.float64] = np.maximum(scores, _LEAST)
    return bounded


def _score(means: Floats, squares: Floats) -> float:
    """Return how much likelier a pair is than two unrelated runs, in nats; by a sample if large."""
    step = -(-len(means) // _MOST_SCORED)
    means, squares = means[::step], squares[::step]
    score = float(_scores(means, squares).sum())
    both = (means != 0) & (squares > 0)
    logs = np.log(np.abs(np.stack((means[both], squares[both])), dtype=np.float64))
    if logs.shape[1] > _FEW:
        score -= logs.shape[1] / 2 * np.log(1 - min(_correlation(logs) ** 2, _MOST_ALIKE))
    return score * step


def _correlation(logs: npt.NDArray[Any]) -> float:
    """Return the correlation of two rows, if it is positive."""
    spread = logs.std(axis=1)
    if not spread.all():
        return 0.0
    centred = logs - logs.mean(axis=1, keepdims=True)
    return max(0.0, float((centred[0] * centred[1]).mean() / spread.prod()))
