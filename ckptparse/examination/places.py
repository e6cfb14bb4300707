"""Find where bytes of a data file are instead: in another file, or some distance from their place.

The checksums of the payloads that fit there prove each place. A payload that is short or constant
proves nothing: others may have the same bytes.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from ckptparse.bundle.entry import count_elements
from ckptparse.crc.flips import HIGHEST_CHANCE
from ckptparse.crc.inversion import constant_crcs, derive_constant
from ckptparse.crc.search import Registers
from ckptparse.crc.windows import Wanted
from ckptparse.dtypes import DataType, item_size, numpy_dtype
from ckptparse.elements import distinct
from ckptparse.errors import CheckpointError
from ckptparse.examination.case import Case
from ckptparse.examination.check import fits
from ckptparse.examination.failed_rows import FailedRows
from ckptparse.examination.hopeful import Hopes, Kind
from ckptparse.examination.many_spans import checksums_of
from ckptparse.examination.outcome import merge_spans
from ckptparse.examination.payload import Form, Payload
from ckptparse.examination.plain_rows import PlainRows
from ckptparse.examination.readers import DataFile, DataFiles, checksum_of
from ckptparse.problems import Cause, EvidenceRule, Status

__all__ = [
    "LEAST_SAMPLE",
    "LEAST_SOUGHT",
    "NO_CHANCE",
    "Place",
    "Searched",
    "Shift",
    "Twins",
    "are_telling",
    "are_weights",
    "find_place",
    "find_shifts",
    "is_noise",
    "is_telling",
    "is_text",
    "rows_of_weights",
    "stored_dtype",
]

NO_CHANCE = 2.0**-32
"""Chance that other bytes have the same checksum: it has 32 bits."""
IntColumn = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

LEAST_SAMPLE = 16
"""Fewest bytes of a payload that marks a file: a save holds many equal values of 8 bytes or fewer,
such as steps, flags and rates."""
LEAST_SOUGHT = 8
"""Fewest bytes of a payload that is sought. At one place it fits by chance 1 in 2^32; a checksum of
4 bytes or fewer says no more than the bytes themselves, and small values are everywhere."""
_NEAR = 1 << 23
"""Bytes that `verify` searches around a place: it promises to use little memory, and needs to know
the cause only."""
_FAR = 1 << 27
"""Bytes of the largest file that `recover` searches whole. It is held in memory, and takes 2 s for
each 100 MB."""
_MOST_KEPT = 1 << 16
"""Checksums that are kept: each takes some 200 bytes."""
_MOST_REGISTERS = 1 << 23
"""Bytes whose registers are kept for the next search: these take up to six times as many."""
_FEW_WINDOWS = 3
"""In a larger file, payloads whose surroundings are searched: up to three of them cost what a whole
file of `_FAR` costs at most three times."""
_LONGEST_SOUGHT = 1 << 28
"""Bytes of the largest payload that is sought: it is held in memory."""
_ALIGNMENTS = 4
"""A search tries every fourth byte. Four of them, each a byte further on, try every byte; those are
left out at which `hopeful` says that the exponents of weights cannot lie."""
_FLOATS = frozenset(
    {
        DataType.DT_FLOAT,
        DataType.DT_DOUBLE,
        DataType.DT_HALF,
        DataType.DT_BFLOAT16,
        DataType.DT_COMPLEX64,
        DataType.DT_COMPLEX128,
    }
)
_LEAST_WEIGHTS = 64
"""Bytes of weights from which on half of their bytes are surely from 80 on."""
_BESIDE = 1 << 12
"""Bytes at most between payloads that lie beside each other: writers align them to a page."""
_COUNTED = 1 << 20
"""Bytes that are counted at a time: numpy makes 8 of each."""
_LEAST_COUNTED = 64
"""Bytes for each of their 256 values from which on the sum of squares is what statistics say."""
_UNEVEN = 255 + 10 * 22.6
"""The sum of squares that noise does not reach: ten deviations above its 255."""
_NOT_ASKED = -1
"""Stands for a row of which it is not known whether a place holds it."""
_SUB_BYTE = frozenset(
    {
        DataType.DT_INT4,
        DataType.DT_UINT4,
        DataType.DT_INT2,
        DataType.DT_UINT2,
        DataType.DT_FLOAT4_E2M1FN,
    }
)


@dataclass(frozen=True, slots=True)
class Place:
    """Where bytes of a data file are instead.

    Attributes:
        file: The file.
        delta: How many bytes further on there.
        cause: Why the tensors fail at their own place; None if the bytes are another checkpoint's
            and happen to be equal.
        method: How they are read, in a few words.
        chance: Chance that bytes found so are another tensor's.
        found_by: What kind of evidence that is; None: what the cause says.
        certain: Between which offsets of the data file all bytes lie so, as far as is known;
            None: everywhere.
        alone: Where in the data file that belongs which was found there, if it is one payload.
        weights: Whether weights may be whole there.
        offsets: Where in the file itself those lie that were put in order: by their own offsets.
    """

    file: DataFile
    delta: int
    cause: Cause | None
    method: str
    chance: float
    found_by: EvidenceRule | None = None
    certain: tuple[int, int] | None = None
    alone: tuple[int, int] | None = None
    weights: bool = True
    offsets: Mapping[int, int] = field(default_factory=dict, compare=False, repr=False)

    @property
    def rule(self) -> EvidenceRule:
        """What kind of evidence it is that bytes lie there."""
        return self.found_by or _RULES.get(self.cause, EvidenceRule.SHIFTED)

    def of(self, payload: Payload) -> Payload:
        """Return a payload, moved to this place."""
        there = self.offsets.get(payload.offset)
        if there is not None:
            return payload.moved(DataFile(self.file.path), there - payload.offset)
        return payload.moved(self.file, self.delta)

    def surrounds(self, payload: Payload) -> bool:
        """Tell whether all bytes where a payload belongs lie there."""
        known = self.certain
        return known is None or known[0] <= payload.offset <= payload.end <= known[1]

    def may_border(self, payload: Payload) -> bool:
        """Tell whether what lies there may begin or end within a payload.

        If a single payload was found there, and that may be chance, only its neighbours are tried.
        """
        if self.alone is None or self.chance <= HIGHEST_CHANCE:
            return True
        return payload.end <= self.alone[0] <= payload.end + _BESIDE or (
            self.alone[1] <= payload.offset <= self.alone[1] + _BESIDE
        )

    def holds(self, files: DataFiles, payload: Payload) -> bool:
        """Tell whether a payload is there: its checksum agrees.

        Many are asked of the same places again and again, so the checksums are kept.
        """
        if not self.weights and are_weights(payload):
            return False
        if self.file.undo is not None or not _is_compared(payload):
            return fits(files, self.of(payload))
        offset, size = payload.offset + self.delta, payload.size
        key = self.file.path, offset, size
        if key not in files.known:
            held = files.size(self.file)
            if held is None or not 0 <= offset <= held - size:
                return False
            computed = checksum_of(files, self.file, offset, size)
            if len(files.known) >= _MOST_KEPT:
                return computed == payload.crc32c
            files.known[key] = computed
        return files.known[key] == payload.crc32c

    def hold_each(self, files: DataFiles, payloads: Sequence[Payload]) -> list[bool]:
        """Tell of several payloads whether they are there. What is read for that is read once."""
        held = files.size(self.file) or 0
        if self.file.undo is not None:
            return [self.holds(files, one) for one in payloads]
        may_be = [0 <= one.offset + self.delta <= held - one.size for one in payloads]
        path, known = self.file.path, files.known
        spans = {
            (one.offset + self.delta, one.size)
            for one, is_within in zip(payloads, may_be, strict=True)
            if is_within and _is_compared(one)
        }
        sought = sorted(one for one in spans if (path, *one) not in known)
        if len(known) + len(sought) <= _MOST_KEPT:
            starts, sizes = np.array(sought, np.int64).reshape(-1, 2).T
            crcs = checksums_of(files, self.file, starts, sizes).tolist()
            known.update(((path, *one), crc) for one, crc in zip(sought, crcs, strict=True))
        return [
            is_within and self.holds(files, one)
            for one, is_within in zip(payloads, may_be, strict=True)
        ]

    def hold_rows(self, files: DataFiles, rows: FailedRows, numbers: IntColumn) -> Mask:
        """Tell which of some rows are there. What was found is kept: they are asked of again."""
        key = self.file, self.delta, self.weights
        known = rows.held_at.setdefault(key, np.full(len(rows), _NOT_ASKED, np.int8))
        missing = numbers[known[numbers] == _NOT_ASKED]
        if len(missing):
            known[missing] = self._find_rows(files, rows, missing)
        held: Mask = known[numbers] == 1
        return held

    def _find_rows(self, files: DataFiles, rows: FailedRows, numbers: IntColumn) -> Mask:
        found = np.zeros(len(numbers), np.bool_)
        size = files.size(self.file)
        if size is not None:
            starts, sizes = rows.starts[numbers] + self.delta, rows.sizes[numbers]
            fitting = (starts >= 0) & (starts <= size - sizes)
            if not self.weights:
                fitting &= ~rows_of_weights(rows.plain, rows.rows[numbers])
            there = np.flatnonzero(fitting)
            crcs = checksums_of(files, self.file, starts[there], sizes[there])
            found[there] = crcs == rows.crcs[numbers[there]]
        return found


def _is_compared(payload: Payload) -> bool:
    """Tell whether the checksum of its bytes alone says if a payload is at a place."""
    return payload.crc32c is not None and payload.form not in (Form.STRINGS, Form.VARIANTS)


def find_place(files: DataFiles, places: Iterable[Place], payload: Payload) -> Place | None:
    """Return the first of some places that holds a payload; None if none does."""
    known, (offset, size, crc) = files.known, (payload.offset, payload.size, payload.crc32c)
    compared = _is_compared(payload)
    last: DataFile | None = None
    held = 0
    for place in places:
        if compared and place.file.undo is None:
            # Many are asked, and of most it is soon told that something else is there.
            if place.file is not last:
                last, held = place.file, files.size(place.file) or 0
            start = offset + place.delta
            if not 0 <= start <= held - size or known.get((last.path, start, size), crc) != crc:
                continue
        if place.holds(files, payload):
            return place
    return None


_RULES = {
    None: EvidenceRule.SIBLING,
    Cause.SWAPPED: EvidenceRule.SWAPPED,
    Cause.TEXT: EvidenceRule.CONVERTED,
}

TwinKey = tuple[int, int, int, bool]


def twin_key(payload: Payload) -> TwinKey | None:
    """Return what is the same for two payloads of equal bytes; None if they cannot be compared."""
    if payload.crc32c is None or payload.form is Form.RECORD or not payload.size:
        return None
    return payload.data_type, payload.size, payload.crc32c, payload.big_endian


class Twins:
    """The verified payloads of a checkpoint, each found by its `twin_key`."""

    def __init__(self, case: Case) -> None:
        """Take the checkpoint, checked; payloads are looked at when they are first needed."""
        self._case = case

    def find(self, payload: Payload) -> tuple[str, Payload] | None:
        """Return the last verified payload of the same bytes, with the name of its tensor."""
        key = twin_key(payload)
        if key is None:
            return None
        number, name, held = self._held.get(key, (-1, "", None))
        sound = self._case.sound
        if sound is not None and key[3] == sound.plain.big_endian:
            row = self._rows.get(key[:3])
            if row is not None and self._numbers[self._name_of(row)] > number:
                return self._name_of(row), sound.plain.payload(row)
        return None if held is None else (name, held)

    def are_alone(self, rows: FailedRows, numbers: IntColumn) -> Mask:
        """Tell of which of some rows no verified payload has the same bytes."""
        big_endian = rows.plain.big_endian
        known = {key[:3] for key in self._held if key[3] == big_endian} | self._rows.keys()
        if not known:
            return np.ones(len(numbers), np.bool_)
        keys = _keys_of(rows.plain, rows.rows[numbers])
        return np.fromiter((key not in known for key in keys), np.bool_, len(numbers))

    def _name_of(self, row: int) -> str:
        sound, failed = self._case.sound, self._case.failed
        number = None if failed is None else failed.number(row)
        if failed is not None and number is not None:
            return failed.names[number]
        return "" if sound is None else sound.name_of(row)

    @cached_property
    def _numbers(self) -> dict[str, int]:
        """The place of each tensor in the index."""
        return {name: number for number, name in enumerate(self._case.tensors)}

    @cached_property
    def _held(self) -> dict[TwinKey, tuple[int, str, Payload | None]]:
        found: dict[TwinKey, tuple[int, str, Payload | None]] = {}
        for name, part in self._case.held_parts():
            key = twin_key(part.payload) if part.payload else None
            if key is not None and part.payload and part.check.status is Status.VERIFIED:
                number = self._numbers.get(name.tensor, len(self._numbers))
                found[key] = number, name.tensor, part.payload
        return found

    @cached_property
    def _rows(self) -> dict[tuple[int, int, int], int]:
        sound, failed = self._case.sound, self._case.failed
        if sound is None:
            return {}
        rows = sound.numbers
        if failed is not None:
            rows = np.sort(np.concatenate((rows, failed.rows[failed.good])))
        rows = rows[sound.plain.columns.sizes[rows] > 0]
        return dict(zip(_keys_of(sound.plain, rows), rows.tolist(), strict=True))


def _keys_of(plain: PlainRows, rows: IntColumn) -> Iterator[tuple[int, int, int]]:
    columns = plain.columns
    fields = (columns.data_types, columns.sizes, columns.crcs)
    return zip(*(column[rows].tolist() for column in fields), strict=True)


def are_weights(payload: Payload) -> bool:
    """Tell whether a payload is of floating-point numbers, and more than a few."""
    return (
        payload.form is Form.PLAIN
        and payload.data_type in _FLOATS
        and payload.size >= _LEAST_WEIGHTS
    )


def rows_of_weights(plain: PlainRows, rows: IntColumn) -> Mask:
    """Tell of rows what `are_weights` tells of one payload."""
    if plain.are_records:
        return np.zeros(len(rows), np.bool_)
    columns = plain.columns
    floats: Mask = np.isin(columns.data_types[rows], list(_FLOATS))
    return floats & (columns.sizes[rows] >= _LEAST_WEIGHTS)


def are_telling(plain: PlainRows, rows: IntColumn, least: int = LEAST_SAMPLE) -> Mask:
    """Tell of rows what `is_telling` tells of one payload."""
    columns = plain.columns
    kinds, sizes, crcs = columns.data_types[rows], columns.sizes[rows], columns.crcs[rows]
    telling: Mask = sizes >= least
    if plain.are_records:
        return telling
    for kind in distinct(kinds):
        dtype = _stored_dtype(kind, big_endian=plain.big_endian)
        if dtype is None:
            continue
        mine = np.flatnonzero(telling & (kinds == kind))
        mine = mine[np.argsort(sizes[mine], kind="stable")]
        lengths = distinct(sizes[mine])
        cuts = [*np.searchsorted(sizes[mine], lengths).tolist(), len(mine)]
        for size, (low, high) in zip(lengths, pairwise(cuts), strict=True):
            known = constant_crcs(dtype, size // dtype.itemsize)
            group = mine[low:high]
            telling[group] = [crc not in known for crc in crcs[group].tolist()]
    return telling


def is_telling(payload: Payload, least: int = LEAST_SAMPLE) -> bool:
    """Tell whether a payload is long enough and not constant: then hardly another is equal."""
    if payload.size < least or payload.crc32c is None:
        return False
    dtype = stored_dtype(payload) if payload.form is Form.PLAIN else None
    if dtype is None:
        return True
    return derive_constant(payload.crc32c, dtype, count_elements(payload.shape)) is None


def stored_dtype(payload: Payload) -> np.dtype[Any] | None:
    """Return the numpy type of elements as they are stored; None if they have no fixed size."""
    return _stored_dtype(payload.data_type, big_endian=payload.big_endian)


@lru_cache(maxsize=256)
def _stored_dtype(data_type: int, *, big_endian: bool) -> np.dtype[Any] | None:
    # One element a byte, in the low bits: nothing is packed (docs/format.md, section 2.4).
    if data_type in _SUB_BYTE:
        return np.dtype(np.uint8)
    try:
        dtype = numpy_dtype(data_type)
    except CheckpointError:
        return None
    if dtype.kind == "O":
        return None
    # Types of ml_dtypes are in the machine's byte order only. Wider than a byte is bfloat16 alone.
    if dtype.kind == "V" and big_endian and dtype.itemsize > 1:
        return None
    return dtype if dtype.kind == "V" else dtype.newbyteorder(">" if big_endian else "<")


@dataclass(frozen=True, slots=True)
class Shift:
    """How far from their place bytes were found, and the chance that they are other bytes."""

    delta: int
    chance: float


class Searched:
    """What was computed to search bytes of a file, for the next search of the same bytes."""

    __slots__ = ("_data", "_hopes", "_registers", "_size", "_span")

    def __init__(self) -> None:
        self._span: tuple[DataFile, int, int] | None = None

    def take(self, files: DataFiles, file: DataFile, start: int, stop: int) -> Hopes:
        """Read some bytes of a file, unless it has just been done; tell what they may hold."""
        if self._span != (file, start, stop):
            self._data = memoryview(files.source(file).read_at(start, stop - start))
            self._hopes = Hopes(self._data)
            self._registers: dict[tuple[int, int], Registers] = {}
            self._size = 0
            self._span = file, start, stop
        return self._hopes

    def registers(self, first: int, stop: int) -> Registers:
        """Return the registers of some of these bytes; those of many bytes are not kept."""
        known = self._registers.get((first, stop))
        if known is None:
            known = Registers(self._data[first:stop])
            if self._size + known.size <= _MOST_REGISTERS:
                self._size += known.size
                self._registers[first, stop] = known
        return known


def find_shifts(
    files: DataFiles,
    file: DataFile,
    sought: Sequence[Payload],
    *,
    far: bool,
    searched: Searched | None = None,
) -> list[Shift]:
    """Return how far from their places payloads are in a file, the most frequent distance first.

    A small file is searched whole, but for what can hold none of them (see `hopeful`). In a larger
    one, the bytes around their places are searched. `searched` is for several searches of one file.
    """
    searched = searched or Searched()
    found: Counter[int] = Counter()
    most = 0
    for start, stop, payloads in _windows(files.size(file) or 0, sought, _FAR if far else _NEAR):
        hopes = searched.take(files, file, start, stop)
        there = {
            Wanted(one.size, one.crc32c): (one, _Parts(hopes, one))
            for one in payloads
            if one.crc32c is not None
        }
        everywhere = [span for _, parts in there.values() for span in parts.spans]
        for low, high in merge_spans(everywhere):
            wanted = {
                item: one for item, (one, parts) in there.items() if parts.any_in(low, high, None)
            }
            most = max([most, *(high - low - item.size + 1 for item in wanted)])
            for first in range(low, low + _ALIGNMENTS):
                begun = [item for item in wanted if there[item][1].any_in(low, high, first)]
                if not begun:
                    continue
                for item, offsets in searched.registers(first, high).find_each(begun).items():
                    origin = start + first - wanted[item].offset
                    found.update({origin + at for at in offsets} - {0})
    return [
        Shift(delta, most / 2**32 if hits == 1 else NO_CHANCE)
        for delta, hits in found.most_common()
    ]


class _Parts:
    """Where in some bytes a payload may lie: anywhere, or if its offset is a multiple of 4, ..."""

    def __init__(self, hopes: Hopes, payload: Payload) -> None:
        kind, size = _kind_of(payload), payload.size
        self.spans = hopes.spans(kind, size)
        self._starts: dict[int | None, list[int]] = {
            residue: [start for start, _ in hopes.spans(kind, size, residue)]
            for residue in (None, *range(_ALIGNMENTS))
        }

    def any_in(self, low: int, high: int, first: int | None) -> bool:
        """Tell whether it may lie between offsets, at `first` or a multiple of 4 further on."""
        starts = self._starts[None if first is None else first % _ALIGNMENTS]
        at = bisect_left(starts, low)
        return at < len(starts) and starts[at] < high


def is_noise(data: memoryview) -> bool:
    """Tell whether bytes are as even as noise: then no long run of weights is among them.

    Their exponents are a few values out of 256, whatever their alignment: of n bytes, a run of 32
    times the root of n shows.
    """
    counts = np.zeros(256, np.int64)
    for start in range(0, len(data), _COUNTED):
        counts += np.bincount(
            np.frombuffer(data[start : start + _COUNTED], np.uint8), minlength=256
        )
    expected = len(data) / 256
    if expected < _LEAST_COUNTED:
        return False
    return float((np.square(counts - expected) / expected).sum()) < _UNEVEN


def is_text(data: bytes | memoryview) -> bool:
    """Tell whether bytes are text: no zero byte is among them, and none from 128 on.

    Then no weights are. Those that were rounded, and small integers, have zero bytes; of the others
    half have one from 128 on. Only strings, and elements of one byte, may be text.
    """
    whole = memoryview(data)
    for start in range(0, len(whole), _COUNTED):
        piece = bytes(whole[start : start + _COUNTED])
        if not piece.isascii() or b"\0" in piece:
            return False
    return len(whole) > 0


def _kind_of(payload: Payload) -> Kind:
    """Return what elements a payload is made of; strings and records may be any bytes."""
    width = item_size(payload.data_type) if payload.form is Form.PLAIN else None
    return Kind(width or 1, payload.data_type in _FLOATS, payload.big_endian)


def _windows(
    size: int, sought: Sequence[Payload], window: int
) -> Iterator[tuple[int, int, list[Payload]]]:
    """Iterate over the parts of a file to search, each with the payloads that are sought in it."""
    if size <= window:
        fitting = [payload for payload in sought if payload.size <= size]
        if fitting:
            yield 0, size, fitting
        return
    for payload in sought[:_FEW_WINDOWS]:
        start = max(0, min(payload.offset, size) - window // 2)
        stop = min(size, payload.end + window // 2)
        if payload.size <= min(stop - start, _LONGEST_SOUGHT):
            yield start, stop, [payload]
