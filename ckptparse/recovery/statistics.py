"""Find pieces of a tensor that do not look like the rest of it: noise, text, code, another type.

The weights of a tensor have magnitudes within a few powers of two, so they have few different
exponents. Noise has all exponents equally often. Each element becomes a symbol: its exponent, or
the highest byte of an integer. A piece of 512 bytes is judged by the sum, over its elements, of

    log(chance of the symbol in the tensor)  -  log(chance of it in noise)

The chances in the tensor are taken from pieces that look like weights alone: one scale, and
magnitudes that become rarer below it. A piece unlike the rest passes too if it has such a scale of
its own (a row that was never trained). Zeros do not count; the caller looks for holes. Two things
are not seen: bytes shifted by whole elements, and values of another tensor of the same scale.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from ckptparse.dtypes import DataType, item_size
from ckptparse.elements import median
from ckptparse.examination.payload import Payload
from ckptparse.examination.readers import DataFiles

__all__ = ["SECTOR", "Judgement", "judge_at", "judge_elements"]

SECTOR: Final = 512
"""Bytes of a piece that is judged as one: the least that a disk loses."""
_CHUNK = 1 << 20
"""Bytes that are judged at once, so that memory stays small."""
_SAMPLED = 2048
"""Pieces from which the tensor's chances are taken: 1 MiB, enough for symbols as rare as
`_FLOOR`."""
_AGAINST = -7.0
"""A piece is suspect if noise explains it e^7 = 1,100 times better: at most 1 in 1,100 good pieces
is marked. A lower bound lets more noise pass."""
_FLOOR = 1e-4
"""The least chance of a symbol in the tensor: one outlier in 10,000 elements is not strange."""
_SCALE_PRICE = 4.0
"""Price of a scale of the piece's own: e^4 = 55, about as many as there are to choose from."""
_TELLING = 0.5
"""Integers are judged only if they differ from noise by so much, in nats for each element. Keys and
hashes differ less; with a lower bound, good pieces of them would be marked."""
_FAR_BELOW, _FAR_ABOVE = 16, 8
"""Powers of two that a piece's own scale may be below or above those of the rest. Rows that are
hardly trained are far below; training leaves none far above."""
_WILD = 24
"""An element so many powers of two above every scale is suspect alone. A flip of one of the upper
three bits of a float32's exponent moves it by 32, 64 or 128."""
_NOISY = 0.5
"""The share of exponents that are usual, at most, by which noise can be told: of float16 it is
more."""
_MOSTLY_USUAL = 0.75
"""Weights have more usual exponents than this. Of 128 random float32, 53 have one on average, and
96 never."""
_FEW = 16
"""Of fewer elements the symbols that occur are each frequent among them, so none is unlike the
rest: of integers always, of numbers with exponents if these are usual and near to each other."""
_HIGHEST: dict[int, int] = {
    DataType.DT_BOOL: 1,
    DataType.DT_INT2: 3,
    DataType.DT_UINT2: 3,
    DataType.DT_INT4: 15,
    DataType.DT_UINT4: 15,
    DataType.DT_FLOAT4_E2M1FN: 15,
}
"""The highest byte of types that do not fill theirs: one above it was never written."""
_MOST_RUNS = 1 << 14
"""Runs of such bytes that are told one by one."""
_MOST_KEPT = 1 << 14
"""Judgements that are kept, of few spans each: some 5 MiB."""
_SAME_SCALE = 5
"""Powers of two within which magnitudes speak for one scale, of every type: see
`_scores_by_distance`."""
_PRINTABLE = 0.94
"""A piece with this share of printable bytes is text, unless the whole tensor is like that. Random
bytes have 38%; text with some letters beyond ASCII has less than 100%."""

Array = npt.NDArray[Any]
Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the statistics of a tensor's elements say."""

    suspect: tuple[Span, ...]
    """Ranges of elements (start, stop) that do not look like the rest; sorted, not touching."""
    judged: bool
    """Whether such elements can be judged; if not, none is suspect."""


@dataclass(frozen=True, slots=True)
class _Kind:
    """How the elements of a type become symbols.

    Attributes:
        unsigned: numpy's unsigned type of that width, in the file's byte order.
        shift: Bits to shift an element right by.
        bits: Bits of the symbol.
        lowest, highest: Exponents that a good scale may have; 0 for integers.
        parts: Components of an element: 2 for complex numbers.
    """

    unsigned: np.dtype[Any]
    shift: int
    bits: int
    lowest: int = 0
    highest: int = 0
    parts: int = 1

    @property
    def is_float(self) -> bool:
        return self.highest > 0


# Bits below the exponent, bits of the exponent, its value for 2^-70 and 2^34 (of float16 for the
# least number and 2^10), components. The range is wide: trained weights lie far inside.
_FLOATS: dict[int, tuple[int, int, int, int, int]] = {
    DataType.DT_FLOAT: (23, 8, 57, 161, 1),
    DataType.DT_COMPLEX64: (23, 8, 57, 161, 2),
    DataType.DT_BFLOAT16: (7, 8, 57, 161, 1),
    DataType.DT_HALF: (10, 5, 1, 25, 1),
    DataType.DT_DOUBLE: (52, 11, 953, 1057, 1),
    DataType.DT_COMPLEX128: (52, 11, 953, 1057, 2),
}


def judge_elements(
    data: bytes | bytearray | memoryview | Array,
    data_type: int,
    *,
    offset: int = 0,
    big_endian: bool = False,
) -> Judgement:
    """Find the elements of a tensor that do not look like the rest.

    Args:
        data: All its bytes, as stored; whole elements.
        data_type: DataType number.
        offset: Their offset in the file: pieces of 512 bytes are counted from the file's start.
        big_endian: Byte order of the elements.

    Noise, encrypted and compressed bytes among weights are practically always found; text and
    program code mostly. Takes about 4 ms for each MiB.
    """
    raw = np.frombuffer(data, np.uint8)
    found = _judged(raw, data_type, offset, big_endian=big_endian)
    highest = _HIGHEST.get(data_type)
    never = () if highest is None else _runs_above(raw, highest)
    return replace(found, suspect=_merged([*found.suspect, *never], 1)) if never else found


def _runs_above(raw: npt.NDArray[np.uint8], highest: int) -> tuple[Span, ...]:
    """Return the runs of bytes above a value; of very many, the pieces in which they lie."""
    above = raw > highest
    if not above.any():
        return ()
    step = 1
    if np.count_nonzero(above[1:] != above[:-1]) > _MOST_RUNS:
        step = SECTOR
        above = np.logical_or.reduceat(above, np.arange(0, len(raw), step))
    borders = np.flatnonzero(np.diff(above, prepend=False, append=False)) * step
    borders = np.minimum(borders, len(raw)).tolist()
    return tuple(zip(borders[::2], borders[1::2], strict=True))


def _judged(
    raw: npt.NDArray[np.uint8], data_type: int, offset: int, *, big_endian: bool
) -> Judgement:
    """Compare the elements of a tensor with each other."""
    kind = _kind_of(data_type, big_endian=big_endian)
    if kind is None or len(raw) < kind.unsigned.itemsize:
        return Judgement((), judged=False)
    elements = raw[: len(raw) // kind.unsigned.itemsize * kind.unsigned.itemsize]
    if len(elements) < _FEW * kind.unsigned.itemsize:
        order: Literal["big", "little"] = "big" if big_endian else "little"
        if _are_alike(elements.tobytes(), kind, order):
            return Judgement((), judged=True)
    return _Judge(kind, elements, offset).judge()


def judge_at(
    files: DataFiles, payload: Payload, data: bytes | bytearray | memoryview | Array
) -> tuple[Span, ...]:
    """Return the suspect elements of a payload in its file, which are kept: several ask for them.

    Args:
        files: The data files.
        payload: Where it lies.
        data: What lies there, whole elements, as many as are judged.
    """
    kind = payload.data_type, payload.big_endian
    key = payload.file, payload.offset, len(data), *kind
    if key not in files.judged:
        found = judge_elements(data, kind[0], offset=payload.offset, big_endian=kind[1]).suspect
        if len(files.judged) >= _MOST_KEPT or len(found) > _FEW:
            return found
        files.judged[key] = found
    return files.judged[key]


@lru_cache(maxsize=256)
def _kind_of(data_type: int, *, big_endian: bool) -> _Kind | None:
    width = item_size(data_type)
    if width is None:
        return None
    order = ">" if big_endian else "<"
    known = _FLOATS.get(data_type)
    if known is not None:
        shift, bits, lowest, highest, parts = known
        unsigned = np.dtype(f"{order}u{width // parts}")
        return _Kind(unsigned, shift, bits, lowest, highest, parts)
    # Of an integer the highest byte; of one byte, all of it.
    return _Kind(np.dtype(f"{order}u{width}"), 8 * width - 8, 8)


def _are_alike(data: bytes, kind: _Kind, order: Literal["big", "little"]) -> bool:
    """Tell whether a few elements are certain to look like each other."""
    if not kind.is_float:
        return True
    mask = (1 << kind.bits) - 1
    width = kind.unsigned.itemsize
    values = (int.from_bytes(data[at : at + width], order) for at in range(0, len(data), width))
    exponents = [value >> kind.shift & mask for value in values]
    least, most = min(exponents), max(exponents)
    return kind.lowest <= least and most <= kind.highest and most - least <= _SAME_SCALE


class _Judge:
    """The judgement of one tensor."""

    def __init__(self, kind: _Kind, raw: npt.NDArray[np.uint8], offset: int) -> None:
        self._kind = kind
        self._raw = raw
        self._values = raw.view(kind.unsigned)
        width = kind.unsigned.itemsize
        # Elements whose first byte is before the first border between pieces of the file.
        ahead = -(-(-offset % SECTOR) // width)
        self._length = SECTOR // width
        self._head = min(ahead, len(self._values))
        self._straddles = bool(offset % width)
        self._chunks = self._list_chunks()
        # Of a small tensor they are asked for again and again.
        self._known = self._symbols_of(self._values) if len(raw) <= _CHUNK else None

    def judge(self) -> Judgement:
        if self._is_noise():
            return Judgement(_merged([(0, len(self._values))], self._kind.parts), judged=True)
        table, scales = self._own_distribution()
        if table is None:
            return Judgement((), judged=False)
        if not self._kind.is_float and _divergence(table) < _TELLING:
            return Judgement((), judged=False)
        weights = _weights_of(table, is_float=self._kind.is_float)
        ordinary = self._text_is_ordinary()
        spans: list[Span] = []
        for start, stop, length in self._chunks:
            symbols = self._symbols(start, stop)
            suspect = self._suspect_pieces(symbols, length, weights, scales)
            if not ordinary and not suspect.all():
                suspect |= self._is_text(start, stop, length)
            if suspect.any():
                spans.extend(self._spans(suspect, start, length))
            if self._kind.is_float:
                spans.extend(self._wild(symbols, suspect, start, length, scales))
        return Judgement(_merged(spans, self._kind.parts), judged=True)

    def _is_noise(self) -> bool:
        """Tell whether no piece has enough usual exponents to be weights: quickly, of noise."""
        kind = self._kind
        if not kind.is_float or kind.highest - kind.lowest > _NOISY * (1 << kind.bits):
            return False
        for start, stop, length in self._chunks:
            # Of weights, the first few pieces tell.
            for low, high in ((start, min(stop, start + 8 * length)), (start, stop)):
                symbols = self._symbols(low, high)
                usual = (symbols >= kind.lowest) & (symbols <= kind.highest) | (symbols == 0)
                if (usual.reshape(-1, length).sum(axis=1) > _MOSTLY_USUAL * length).any():
                    return False
        return True

    def _list_chunks(self) -> list[tuple[int, int, int]]:
        """Return start, stop, and length of a piece, in elements, of each chunk."""
        chunks = [(0, self._head, self._head)] if self._head else []
        total, length = len(self._values), self._length
        whole = self._head + (total - self._head) // length * length
        step = _CHUNK // self._kind.unsigned.itemsize // length * length
        starts = range(self._head, whole, step)
        chunks += [(start, min(whole, start + step), length) for start in starts]
        if whole < total:
            chunks.append((whole, total, total - whole))
        return chunks

    def _suspect_pieces(
        self, symbols: Array, length: int, weights: npt.NDArray[np.float32], scales: Span
    ) -> npt.NDArray[np.bool_]:
        sums = weights.take(symbols).reshape(-1, length).sum(axis=1)
        suspect: npt.NDArray[np.bool_] = sums < _AGAINST
        if self._kind.is_float and suspect.any():
            odd = np.flatnonzero(suspect)
            alone = _scores_alone(symbols.reshape(-1, length)[odd], self._kind.bits, scales)
            suspect[odd] = alone < _AGAINST
        return suspect

    def _spans(self, suspect: npt.NDArray[np.bool_], start: int, length: int) -> list[Span]:
        """Return the elements of suspect pieces, with the one that a piece's border cuts."""
        firsts = (start + int(piece) * length for piece in np.flatnonzero(suspect))
        return [(max(0, first - self._straddles), first + length) for first in firsts]

    def _wild(
        self,
        symbols: Array,
        suspect: npt.NDArray[np.bool_],
        start: int,
        length: int,
        scales: Span,
    ) -> list[Span]:
        """Return single elements far above every scale: a flipped bit of an exponent."""
        # The highest exponent, all ones, is infinity or NaN: always suspect.
        limit = min(scales[1] + _WILD, (1 << self._kind.bits) - 2)
        if symbols.max(initial=0) <= limit:
            return []
        places = np.flatnonzero(symbols > limit)
        lone = places[~suspect[places // length]]
        return [(start + int(place), start + int(place) + 1) for place in lone]

    def _symbols(self, start: int, stop: int) -> Array:
        """Return the symbols of some elements."""
        if self._known is not None:
            return self._known[start:stop]
        return self._symbols_of(self._values[start:stop])

    def _symbols_of(self, values: Array) -> Array:
        kind = self._kind
        symbols = values >> kind.shift
        # A byte of its own leaves out the sign, and so does a mask.
        if kind.bits == 8:
            symbols = symbols.astype(np.uint8)
        else:
            symbols &= (1 << kind.bits) - 1
            symbols = symbols.astype(np.uint8 if kind.bits < 8 else np.uint16)
        if kind.is_float and not symbols.all():
            # Exponent 0 with other bits set is a denormal number, not zero: it counts as 1.
            symbols[(symbols == 0) & (values << (kind.unsigned.itemsize * 8 - kind.shift) != 0)] = 1
        return symbols

    def _sample(self) -> Array:
        """Return the symbols of pieces spread over the tensor, one row for each piece."""
        length = self._length
        count = (len(self._values) - self._head) // length
        if not count:
            return self._symbols(0, len(self._values)).reshape(1, -1)
        known = self._values if self._known is None else self._known
        pieces = known[self._head : self._head + count * length].reshape(count, length)
        sample = pieces[:: -(-count // _SAMPLED)]
        return self._symbols_of(sample) if self._known is None else sample

    def _own_distribution(self) -> tuple[npt.NDArray[np.float64] | None, Span]:
        """Return the chances of symbols in good pieces, and the scales of these."""
        kind, sample = self._kind, self._sample()
        if not kind.is_float:
            return _smoothed(sample, kind.bits, spread=0.0), (0, 0)
        scales = _scales_of(sample)
        generic = kind.lowest, kind.highest
        within = (scales >= generic[0]) & (scales <= generic[1])
        empty = scales == 0
        plausible = _scores_alone(sample, kind.bits, generic, own=scales, near=0) >= _AGAINST
        good = plausible & within & ~empty
        if not good.any():
            return (None if empty.all() else np.full(1 << kind.bits, _FLOOR)), generic
        ordered = np.sort(scales[good])
        low, high = _quantile(ordered, 0.01), _quantile(ordered, 0.99)
        return _smoothed(sample[good], kind.bits, spread=0.15), (int(low), int(high))

    def _text_is_ordinary(self) -> bool:
        """Tell whether printable bytes say nothing: bytes and some integers are often printable."""
        if self._kind.unsigned.itemsize == 1:
            return True
        if self._kind.is_float:
            return False
        pieces = len(self._raw) // SECTOR
        if not pieces:
            return True
        step = -(-pieces // _SAMPLED)
        sample = self._raw[: pieces * SECTOR].reshape(-1, SECTOR)[::step]
        return median(_TEXT[sample].mean(axis=1)) > 0.8

    def _is_text(self, start: int, stop: int, length: int) -> npt.NDArray[np.bool_]:
        width = self._kind.unsigned.itemsize
        rows = self._raw[start * width : stop * width].reshape(-1, length * width)
        if length * width < SECTOR // 4:
            return np.zeros(len(rows), np.bool_)
        # Every third byte: widths are powers of two, so all places of an element are seen.
        sampled = rows[:, ::3]
        printable = np.count_nonzero(_TEXT[sampled], axis=1)
        found: npt.NDArray[np.bool_] = printable > _PRINTABLE * sampled.shape[1]
        if not found.any():
            return found
        values = self._values[start:stop].reshape(-1, length)
        for piece in np.flatnonzero(found):
            # A piece with one value only is no text, even if its bytes are printable.
            found[piece] = bool((values[piece] != values[piece, 0]).any())
        return found


def _quantile(ordered: npt.NDArray[np.intp], share: float) -> float:
    """Return what `numpy.quantile` does, which takes 60 us: a third of a small tensor's time."""
    place = share * (len(ordered) - 1)
    before = int(place)
    within = place - before
    low = int(ordered[before])
    high = int(ordered[min(before + 1, len(ordered) - 1)])
    # The way in which it rounds.
    return high - (high - low) * (1 - within) if within >= 0.5 else low + (high - low) * within


_TEXT = np.zeros(256, np.bool_)
_TEXT[0x20:0x7F] = True
_TEXT[[9, 10, 13]] = True


def _scales_of(symbols: Array) -> npt.NDArray[np.intp]:
    """Return the scale of each row: the exponent that 1 in 20 of its non-zero elements exceeds."""
    length = symbols.shape[1]
    filled = np.count_nonzero(symbols, axis=1)
    whole = length - 1 - length // 20
    if (filled == length).all():
        return np.partition(symbols, whole, axis=1)[:, whole].astype(np.intp)
    ordered = np.sort(symbols, axis=1)
    place = length - 1 - filled // 20
    return np.take_along_axis(ordered, place[:, None], axis=1)[:, 0].astype(np.intp)


def _scores_alone(
    symbols: Array,
    bits: int,
    scales: Span,
    *,
    own: npt.NDArray[np.intp] | None = None,
    near: int | None = None,
) -> npt.NDArray[np.float64]:
    """Score rows as values of one scale of their own, with magnitudes that become rarer below it.

    A row whose scale is too far outside `scales` gets the lowest score.
    """
    own = _scales_of(symbols) if own is None else own
    far_below, far_above = (_FAR_BELOW, _FAR_ABOVE) if near is None else (near, near)
    far = (own < scales[0] - far_below) | (own > scales[1] + far_above)
    total = np.where(own == 0, 0.0, -np.inf)
    scored = np.flatnonzero(~far & (own != 0))
    if not len(scored):
        return total
    rows = symbols[scored]
    below = own[scored].astype(np.int16)[:, None] - rows.astype(np.int16)
    # Indexes below zero count from the end of the table, where the scores of those stand.
    scores = _scores_by_distance(bits)[below]
    scores[rows == 0] = 0
    total[scored] = scores.sum(axis=1) - _SCALE_PRICE
    return total


@lru_cache(maxsize=4)
def _scores_by_distance(bits: int) -> npt.NDArray[np.float64]:
    """Return the score of a symbol by how many powers of two it is below its scale.

    Symbols above the scale have negative distances; their scores are at the end of the table.
    """
    # Chosen: below the scale half as many elements every two powers of two; above it 1 in 20, and
    # half as many every power of two.
    below = np.concatenate((np.arange(1 << bits), np.arange(-(1 << bits), 0)))
    under, above = 0.2 * 2.0 ** (-0.5 * np.maximum(below, 0)), 0.05 * 2.0 ** np.minimum(below, 0)
    chances = np.where(below >= 0, under, above)
    scores: npt.NDArray[np.float64] = np.log((chances + _FLOOR) * (1 << bits))
    return scores


def _smoothed(symbols: Array, bits: int, *, spread: float) -> npt.NDArray[np.float64]:
    """Return the chances of symbols; neighbours share some of theirs, and none is impossible."""
    counts = np.bincount(symbols.reshape(-1), minlength=1 << bits).astype(np.float64)
    chances = counts / max(counts.sum(), 1)
    if spread:
        lent = np.zeros_like(chances)
        for distance, share in ((1, spread / 2), (2, spread / 4)):
            lent[distance:] += share * chances[:-distance]
            lent[:-distance] += share * chances[distance:]
        chances = (chances + lent) / (1 + 1.5 * spread)
    floored: npt.NDArray[np.float64] = chances * (1 - _FLOOR) + _FLOOR
    return floored


def _divergence(chances: npt.NDArray[np.float64]) -> float:
    """Return how much a distribution differs from noise, in nats for each element."""
    return float((chances * np.log(chances * len(chances))).sum() / chances.sum())


def _weights_of(chances: npt.NDArray[np.float64], *, is_float: bool) -> npt.NDArray[np.float32]:
    weights = np.log(chances * len(chances)).astype(np.float32)
    if is_float:
        weights[0] = 0
    return weights


def _merged(spans: list[Span], parts: int) -> tuple[Span, ...]:
    """Return ranges of whole elements, sorted; those that touch are joined."""
    merged: list[Span] = []
    for first, last in sorted(spans):
        start, stop = first // parts, -(-last // parts)
        if merged and start <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(stop, merged[-1][1])
        else:
            merged.append((start, stop))
    return tuple(merged)
