"""Layers of which some values stay about one: normalizations, and the forget gates of an LSTM.

    kernel   bias c   gamma c   beta c   moving_mean c   moving_variance c   kernel ...
                      1 1 1 1   0 0 0    any             above zero

    kernel in x 4u   recurrent_kernel u x 4u   bias   0 0 (u)  1 1 (u)  0 0 0 0 (2u)

Keras begins with exactly one there, and with about zero beside it; training leaves most of that. So
a run of values from 0.5 to 2, with others around it, tells where such a vector lies and how long it
is. A kernel before a normalization has as many columns, so its size is a multiple of that, and of
what the layer before gives. The one answer counts for which all of this holds. A layer that nothing
marks (a convolution or a GRU alone, an embedding) is known if it alone lies between two that are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ckptparse.recovery.rebuild.items import Item

__all__ = ["find_marks"]

_LOW, _HIGH = 0.5, 2.0
"""Between which values count as about one."""
_FEWEST = 4
"""Of so many values beside each other: fewer stand in kernels by chance."""
_BESIDE = 1 / 8
"""Of as many values before it, and behind it, so many may be about one, too: more of them, and it
is a part of a longer one."""
_MOST_RUNS = 4096
"""Runs beyond which a file has too many of them to tell anything."""
_MOST_TRIED = 100_000
"""Runs that are tried for all marks together."""
_STATISTICS = ("moving_mean", "moving_variance")

Floats = npt.NDArray[np.float32]
Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class _Mark:
    """A vector whose values stay about one.

    Attributes:
        number: Its item: gamma, or the bias of an LSTM.
        after: Vectors behind it of the same layer.
        positive: Whether the last of them is above zero: it is a moving variance.
        before: Items directly before it that its length tells: bias, kernel.
        gates: Whether it is of an LSTM.
    """

    number: int
    after: int
    positive: bool
    before: tuple[int, ...]
    gates: bool


def find_marks(items: Sequence[Item], values: Floats) -> dict[int, Span]:
    """Place the vectors that are marked, and the biases beside them; none unless one way fits.

    Args:
        items: What fills the values, in its order.
        values: All there is.

    Returns:
        Number of an item -> first of its elements, and one past the last.
    """
    marks = list(_iter_marks(items))
    runs = _runs(values)
    if not marks or not len(marks) <= len(runs) <= _MOST_RUNS:
        return {}
    return _Search(values, marks, runs).run()


def _iter_marks(items: Sequence[Item]) -> Iterator[_Mark]:
    split = [item.held for item in items]
    for number, (holder, name) in enumerate(split):
        if items[number].slot:
            continue
        if name == "gamma":
            after = _behind(split, number)
            yield _Mark(
                number,
                len(after),
                after[-1:] == [_STATISTICS[1]],
                _layer_before(split, number),
                gates=False,
            )
        elif name == "bias" and number >= 2 and "lstm" in items[number].full_name:
            before = [last for above, last in split[number - 2 : number] if above == holder]
            if before == ["kernel", "recurrent_kernel"]:
                yield _Mark(number, 0, False, (number - 1, number - 2), gates=True)


def _behind(split: Sequence[tuple[str, str]], number: int) -> list[str]:
    """Return what the layer of a gamma holds directly behind it. Two layers may have one name."""
    found: list[str] = []
    for holder, name in split[number + 1 :]:
        own = holder == split[number][0] and name in ("beta", *_STATISTICS)
        if not own or name in found:
            break
        found.append(name)
    return found


def _layer_before(split: Sequence[tuple[str, str]], number: int) -> tuple[int, ...]:
    """Return the bias, if there is one, and the kernel of the layer before a normalization."""
    if number and split[number - 1][1] == "kernel":
        return (number - 1,)
    if number > 1 and split[number - 1][1] == "bias" and split[number - 2][1] == "kernel":
        return (number - 1, number - 2) if split[number - 1][0] == split[number - 2][0] else ()
    return ()


def _runs(values: Floats) -> list[Span]:
    """Return the longest runs of values about one."""
    edges = np.flatnonzero(np.diff(_are_ones(values).astype(np.int8), prepend=0, append=0))
    starts, stops = edges[::2], edges[1::2]
    long = stops - starts >= _FEWEST
    return list(zip(starts[long].tolist(), stops[long].tolist(), strict=True))


def _are_ones(values: Floats) -> npt.NDArray[np.bool_]:
    """Tell which values are about one."""
    with np.errstate(invalid="ignore"):
        ones: npt.NDArray[np.bool_] = (values >= _LOW) & (values <= _HIGH)
    return ones


def _count_ones(values: Floats) -> int:
    return int(np.count_nonzero(_are_ones(values)))


class _Search:
    """Gives each mark a run, so that all sizes fit."""

    def __init__(
        self,
        values: Floats,
        marks: Sequence[_Mark],
        runs: Sequence[Span],
    ) -> None:
        self._values, self._marks, self._runs = values, marks, runs
        self._tried = 0
        self._answers: list[dict[int, Span]] = []

    def run(self) -> dict[int, Span]:
        """Return the one answer; nothing if there is none, or another."""
        self._place(0, 0, 0, {})
        return self._answers[0] if len(self._answers) == 1 else {}

    def _place(self, mark: int, first: int, width: int, known: dict[int, Span]) -> None:
        """Try all runs for a mark, behind what is known; `width` is what the layer before gives."""
        if mark == len(self._marks):
            self._answers.append(known)
            return
        done = max((stop for _, stop in known.values()), default=0)
        for number in range(first, len(self._runs)):
            self._tried += 1
            if self._tried > _MOST_TRIED or len(self._answers) > 1:
                self._answers.append({})
                return
            found = self._fits(self._marks[mark], self._runs[number], done, known, width)
            if found is not None:
                size = self._runs[number][1] - self._runs[number][0]
                self._place(mark + 1, number + 1, size, known | found)

    def _fits(
        self, mark: _Mark, run: Span, done: int, known: dict[int, Span], width: int
    ) -> dict[int, Span] | None:
        """Return the places of what a run tells; None if that cannot be."""
        start, stop = run
        size = stop - start
        before, behind = self._values[max(0, start - size) : start], self._values[stop:][:size]
        if max(_count_ones(before), _count_ones(behind)) > _BESIDE * size:
            return None
        found = _cell(mark, run) if mark.gates else _normalization(mark, run)
        first = min(low for low, _ in found.values())
        last = max(high for _, high in found.values())
        if first < done or last > len(self._values):
            return None
        if mark.positive and not (self._values[last - size : last] > 0).all():
            return None
        kernel = mark.before[-1] if mark.before else None
        if kernel is None or not (kernel == 0 or kernel - 1 in known):
            return found
        # The kernel lies between two that are known: its size is what is left.
        inputs = width if kernel and not mark.gates else 1
        columns = 4 * size if mark.gates else size
        return found if first > done and (first - done) % (columns * inputs) == 0 else None


def _cell(mark: _Mark, run: Span) -> dict[int, Span]:
    """Return the places of the bias of an LSTM, and of its recurrent kernel, by its ones."""
    start, stop = run
    units = stop - start
    first = start - units
    recurrent = mark.before[0]
    return {
        mark.number: (first, first + 4 * units),
        recurrent: (first - 4 * units * units, first),
    }


def _normalization(mark: _Mark, run: Span) -> dict[int, Span]:
    """Return the places of a normalization, and of the bias before it, by its gamma."""
    start, stop = run
    size = stop - start
    found = {
        mark.number + number: (start + number * size, stop + number * size)
        for number in range(mark.after + 1)
    }
    found |= dict.fromkeys(mark.before[:-1], (start - size, start))
    return found
