"""Where the bytes of a data file really are, and what happened to those that are not whole.

Tried in this order, each against the checksums of the tensors concerned: other files in the same
directory (shards swapped, renamed, of another save); the file with a conversion of line ends
undone; the same bytes some offset away, found by their checksum. What is left is told apart by its
look: one flipped bit, or an index and a data file of different saves, whose constants agree and
whose trained tensors do not.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ckptparse.bundle.entry import count_elements
from ckptparse.bundle.naming import split_data_path
from ckptparse.crc.flips import HIGHEST_CHANCE, chance_of_bit, find_bit
from ckptparse.crc.inversion import derive_constant
from ckptparse.crc.search import Registers
from ckptparse.dtypes import DataType, item_size, numpy_dtype
from ckptparse.errors import CheckpointError
from ckptparse.examination.case import Case, Part
from ckptparse.examination.check import Check, check_stored, is_counted
from ckptparse.examination.index_view import Stored
from ckptparse.examination.neighbours import is_anothers
from ckptparse.examination.readers import DataFiles, undone_path
from ckptparse.examination.survey import identity_of
from ckptparse.parallel import PIECE_SIZE
from ckptparse.problems import Cause, Problem, Status

__all__ = ["Place", "diagnose", "find_twins", "is_telling", "moved", "stored_dtype", "twin_key"]

_SAMPLES = 8
_MOST_FILES = 64
_LEAST_SAMPLE = 16
_ROUNDS = 12
_WINDOW = 1 << 23
_DEEP_WINDOW = 1 << 26
_COARSE_WINDOW = 1 << 28
_COARSE_STEP = 512
_TEXT_SAMPLE = 1 << 22
_SUB_BYTE = frozenset(
    {
        DataType.DT_INT4,
        DataType.DT_UINT4,
        DataType.DT_INT2,
        DataType.DT_UINT2,
        DataType.DT_FLOAT4_E2M1FN,
    }
)
_FOREIGN = frozenset(
    {
        "lfs-pointer",
        "html",
        "mangled-text",
        "pytorch-zip",
        "pytorch-pickle",
        "zip",
        "tar",
        "gzip",
        "zstd",
        "hdf5",
        "keras-h5",
        "keras-zip",
        "npz",
        "npy",
        "safetensors",
        "tfrecord",
        "tflite",
        "v1",
        "v2-index",
    }
)


@dataclass(frozen=True, slots=True)
class Place:
    """Where bytes of a data file lie instead.

    Attributes:
        path: The file (`files.open_reader` opens it).
        delta: How much further on there, in bytes.
        cause: What that makes of the tensors at the right place; None where they are another
            checkpoint's, that happen to be equal.
        method: In a few words.
        chance: Chance that a tensor found so is another's bytes.
    """

    path: str
    delta: int
    cause: Cause | None
    method: str
    chance: float


@dataclass(slots=True)
class _Group:
    """The payloads of one data file that are not whole."""

    path: str
    parts: list[Part]
    places: list[Place] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def moved(stored: Stored, place: Place) -> Stored:
    """Return what the index says of a payload, at the place where it may lie instead."""
    entry = replace(stored.entry, offset=stored.entry.offset + place.delta)
    return replace(stored, entry=entry, path=place.path)


def diagnose(
    case: Case, *, deep: bool, siblings: bool = True
) -> tuple[dict[str, list[Place]], list[Problem]]:
    """Find out what happened to the payloads that are not whole, and note it in their checks.

    Args:
        case: The checkpoint, assessed.
        deep: Whether to search whole files for bytes that have moved.
        siblings: Whether files of other checkpoints may be looked at.

    Returns:
        For each data file where bytes of it lie instead, and what is wrong with the files.
    """
    places: dict[str, list[Place]] = {}
    problems: list[Problem] = []
    for group in _groups(case):
        _Diagnosis(case, group, deep=deep, siblings=siblings).run()
        places[group.path] = group.places
        problems += group.problems
    return places, problems


def twin_key(stored: Stored) -> tuple[int, int, int, bool]:
    """Return what two payloads of the same bytes have in common."""
    entry = stored.entry
    return entry.data_type, entry.size, entry.crc32c, stored.big_endian


def find_twins(case: Case) -> dict[tuple[int, int, int, bool], tuple[str, Stored]]:
    """Return the verified payloads by what another of the same bytes has in common with them."""
    return {
        twin_key(part.stored): (assessed.name, part.stored)
        for assessed in case.tensors.values()
        for part in assessed.parts
        if part.stored is not None and part.check.status is Status.VERIFIED
    }


def _groups(case: Case) -> Iterator[_Group]:
    parts: dict[str, list[Part]] = defaultdict(list)
    for assessed in case.tensors.values():
        for part in assessed.parts:
            if part.stored is not None and _is_lost(part.check):
                parts[part.stored.path].append(part)
    for path, found in sorted(parts.items()):
        found.sort(key=lambda part: part.stored.entry.offset if part.stored else 0)
        yield _Group(path, found)


def _is_lost(check: Check) -> bool:
    return check.status in (Status.CORRUPT, Status.MISSING, Status.PARTIAL)


class _Diagnosis:
    """The examination of one data file."""

    def __init__(self, case: Case, group: _Group, *, deep: bool, siblings: bool) -> None:
        self.case = case
        self.files: DataFiles = case.files
        self.group = group
        self.deep = deep
        self.siblings = siblings
        self.size = case.files.size(group.path)
        self.twins = find_twins(case)

    def run(self) -> None:
        group = self.group
        self._check_foreign()
        self._find_elsewhere()
        if self.size is None and self.deep:
            self._find_joined()
        if self.size:
            self._find_text()
            self._find_shifted()
            self._tell_apart()
        if group.places:
            self._settle()

    # -- other files

    def _check_foreign(self) -> None:
        identity = identity_of(self.group.path) if self.size is not None else None
        if identity is None or identity.kind not in _FOREIGN:
            return
        detail = ""
        if identity.kind == "lfs-pointer":
            detail = (
                f" The file itself has {identity.detail.get('size')} bytes and the SHA-256 "
                f"{identity.detail.get('sha256')}."
            )
        mangled = identity.kind == "mangled-text"
        code = "shard.text" if mangled else "shard.foreign"
        self._problem(code, f"it is {identity.meaning}.{detail} {identity.advice}")
        for part in self.group.parts:
            if mangled:
                part.check = replace(part.check, cause=Cause.TEXT)
            else:
                # None of its bytes are a tensor's, however many there are.
                note = f"its data file is {identity.meaning}"
                part.check = Check(Status.MISSING, Cause.FOREIGN, note=note)

    def _find_elsewhere(self) -> None:
        samples = self._samples()
        if not samples:
            return
        for path in self._other_files():
            place = Place(
                path, 0, Cause.SWAPPED, f"reading it from {os.path.basename(path)}", 2**-32
            )
            hits = sum(self._fits(stored, place) for stored in samples)
            if hits and self._is_anothers(path) and (hits < 3 or 2 * hits <= len(samples)):
                equal = replace(place, cause=None, method="a sibling's bytes")
                self.group.places.append(equal)
            elif hits:
                self.group.places.append(place)
                self._report_elsewhere(path)

    def _is_anothers(self, path: str) -> bool:
        """Tell whether a data file has an index of its own beside it, not this checkpoint's."""
        return is_anothers(path, self.case.survey.prefix)

    def _report_elsewhere(self, path: str) -> None:
        name = os.path.basename(path)
        own = split_data_path(self.group.path)
        other = split_data_path(path)
        if self.size is None:
            self._problem("shard.renamed", f"its bytes lie in {name}")
        elif own and other and own[0] == other[0]:
            self._problem("shard.swapped", f"bytes that belong into it lie in {name}")
        else:
            self._problem("set.mixed", f"bytes that belong into it lie in {name}, of another save")

    def _other_files(self) -> list[str]:
        directory = self.case.survey.directory
        names = sorted(os.listdir(directory)) if os.path.isdir(directory) else []
        found = [os.path.join(directory, name) for name in names if _may_be_shard(name)]
        found += [path for path in self.case.survey.leftovers if ".data-" in path]
        kept = dict.fromkeys(os.path.normpath(path) for path in found)
        kept.pop(os.path.normpath(self.group.path), None)
        found = [path for path in kept if os.path.isfile(path)]
        if not self.siblings:
            found = [path for path in found if not self._is_anothers(path)]
        # Its own files first: what is equal in another checkpoint is no sign of mixed saves.
        return sorted(found, key=self._is_anothers)[:_MOST_FILES]

    def _samples(self) -> list[Stored]:
        """Return a few payloads whose checksum says something: not small, not constant."""
        good = [
            part.stored
            for part in self.group.parts
            if part.stored is not None and self._is_sought(part.stored)
        ]
        step = max(1, len(good) // _SAMPLES)
        return good[::step][:_SAMPLES]

    def _is_sought(self, stored: Stored) -> bool:
        """Tell whether finding a payload elsewhere says something: no other tensor is the same."""
        return is_telling(stored) and twin_key(stored) not in self.twins

    def _fits(self, stored: Stored, place: Place) -> bool:
        there = moved(stored, place)
        size = self.files.size(place.path)
        if size is None or there.entry.offset < 0 or there.entry.offset + there.entry.size > size:
            return False
        found = check_stored(self.files, replace(there, proved=True))
        return found.status is Status.VERIFIED

    def _find_joined(self) -> None:
        """Look for the bytes of a file that is not there anywhere in the others."""
        own = {os.path.normpath(path) for path in self.case.survey.data_files.values()}
        for path in self._other_files():
            if path not in own:
                continue
            before = len(self.group.places)
            self._search(path, Cause.SHIFTED)
            if len(self.group.places) > before:
                name = os.path.basename(path)
                self._problem("shard.renamed", f"bytes of it lie in {name}, at another place")
                return

    # -- conversions of text, and shifts

    def _find_text(self) -> None:
        kind = _text_kind(self.files, self.group.path, self.size or 0)
        if kind is None:
            return
        self._problem(
            "shard.text",
            "every line feed in it follows a carriage return"
            if kind == "crlf"
            else "no carriage return in it stands before a line feed",
        )
        for part in self.group.parts:
            part.check = replace(part.check, cause=Cause.TEXT)
        if kind == "crlf" and self.deep:
            path = undone_path(self.group.path)
            self.group.places.append(
                Place(path, 0, Cause.TEXT, "undoing a conversion of line ends", 2**-32)
            )
            self._search(path, Cause.TEXT)

    def _find_shifted(self) -> None:
        self._search(self.group.path, Cause.SHIFTED)

    def _search(self, path: str, cause: Cause) -> None:
        """Find payloads by their checksums, and others the same distance away."""
        waiting = [
            part.stored
            for part in self.group.parts
            if part.stored is not None
            and not part.check.holes
            and self._is_sought(part.stored)
            and not any(self._fits(part.stored, place) for place in self.group.places)
        ]
        # Small ones are sought quickest; a second at the same distance settles it.
        waiting.sort(key=lambda stored: stored.entry.size)
        if not self.deep:
            waiting = [stored for stored in waiting if stored.entry.size <= _WINDOW]
        for _ in range(_ROUNDS if self.deep else 2):
            if not waiting:
                return
            shift = self._find_shift(path, waiting[0])
            if shift is None:
                waiting = waiting[len(waiting) // 2 :] if len(waiting) > 1 else []
                continue
            waiting = self._take_shift(path, cause, shift, waiting)

    def _take_shift(
        self, path: str, cause: Cause, shift: tuple[int, float], waiting: list[Stored]
    ) -> list[Stored]:
        delta, chance = shift
        method = f"reading it {delta:+d} bytes from its place"
        if path.partition("\0")[0] != self.group.path:
            method += f" in {os.path.basename(path)}"
        place = Place(path, delta, cause, method, chance)
        left = [stored for stored in waiting if not self._fits(stored, place)]
        if len(waiting) - len(left) > 1:
            # A second one at the same distance is no chance any more.
            place = replace(place, chance=2**-32)
        self.group.places.append(place)
        if path == self.group.path:
            self._problem("shard.shifted", f"bytes of it lie {delta:+d} bytes from their place")
        return left

    def _find_shift(self, path: str, stored: Stored) -> tuple[int, float] | None:
        """Return how far away a payload lies, and the chance that it is not it."""
        size = self.files.size(path) or 0
        entry = stored.entry
        window = (_DEEP_WINDOW if self.deep else _WINDOW) // 2
        start = max(0, min(entry.offset, size) - window)
        stop = min(size, entry.offset + entry.size + window)
        if size <= 2 * window:
            start, stop = 0, size
        if entry.size > stop - start or entry.size > _COARSE_WINDOW:
            return None
        data = memoryview(self.files.source(path).read_at(start, stop - start))
        return self._match(data, start, entry.offset, entry.size, entry.crc32c)

    def _match(
        self, data: memoryview, start: int, offset: int, size: int, crc: int
    ) -> tuple[int, float] | None:
        positions = 0
        for residue in range(4):
            registers = Registers(data[residue:])
            positions += registers.positions(size)
            for found in registers.find(size, crc):
                delta = start + residue + found - offset
                if delta:
                    return delta, positions / 2**32
        return None

    # -- what is left

    def _tell_apart(self) -> None:
        """Tell single flipped bits from a mixed save among what has no cause yet."""
        waiting = [part for part in self.group.parts if self._is_open(part)]
        flipped = {id(part) for part in waiting if self._is_flipped(part)}
        if len(flipped) < len(waiting) and self._is_mixed(waiting):
            if 2 * len(flipped) < len(waiting):
                flipped = set()
            self._problem(
                "set.mixed",
                f"{len(waiting)} tensors have other values than the index knows of, and what "
                "never changes agrees: index and data file come from different saves",
            )
            for part in waiting:
                if id(part) not in flipped:
                    part.check = replace(part.check, cause=Cause.MIXED)
        for part in waiting:
            if id(part) in flipped:
                part.check = replace(part.check, cause=Cause.BITS)

    def _is_open(self, part: Part) -> bool:
        return (
            part.check.status is Status.CORRUPT
            and part.check.cause is Cause.UNKNOWN
            and part.stored is not None
            and not any(self._fits(part.stored, place) for place in self.group.places)
        )

    def _is_flipped(self, part: Part) -> bool:
        stored, computed = part.stored, part.check.computed
        if stored is None or computed is None or is_counted(stored.entry.data_type):
            return False
        size = stored.entry.size
        found = find_bit(stored.entry.crc32c, computed, size)
        return found is not None and chance_of_bit(size) <= HIGHEST_CHANCE

    def _is_mixed(self, waiting: Sequence[Part]) -> bool:
        """Tell whether a whole file of plausible values fails wherever values can change."""
        path = self.group.path
        telling = [part.stored for part in waiting if part.stored and is_telling(part.stored)]
        if len(telling) < 2:
            return False
        changing = sum(
            1
            for _, stored in self.case.stored()
            if stored.path == path and not stored.entry.slices and is_telling(stored)
        )
        ends = [
            stored.entry.offset + stored.entry.size
            for _, stored in self.case.stored()
            if stored.path == path and not stored.entry.slices
        ]
        plausible = sum(_is_plausible(self.files, stored) for stored in telling[:_SAMPLES])
        return (
            2 * len(telling) >= changing
            and self.size == max(ends, default=0)
            and 2 * plausible > min(len(telling), _SAMPLES)
        )

    def _settle(self) -> None:
        """Note the cause of what lies in another place."""
        for part in self.group.parts:
            if part.stored is None:
                continue
            for place in self.group.places:
                if self._fits(part.stored, place):
                    where = os.path.basename(place.path.partition("\0")[0])
                    note = f"its bytes are whole in {where}"
                    if place.delta:
                        note += f", {place.delta:+d} bytes from their place"
                    cause = place.cause or part.check.cause
                    part.check = replace(part.check, cause=cause, note=note)
                    break

    def _problem(self, code: str, message: str) -> None:
        self.group.problems.append(Problem.of(code, self.group.path, message))


def _may_be_shard(name: str) -> bool:
    return ".data-" in name or name.endswith((".data", ".bak", ".part", ".tmp"))


def is_telling(stored: Stored) -> bool:
    """Tell whether a payload is long enough and not constant, so that its checksum marks it."""
    entry = stored.entry
    if entry.size < _LEAST_SAMPLE or entry.slices:
        return False
    if is_counted(entry.data_type):
        return True
    dtype = stored_dtype(stored)
    if dtype is None:
        return True
    return derive_constant(entry.crc32c, dtype, count_elements(entry.shape)) is None


def stored_dtype(stored: Stored) -> np.dtype[Any] | None:
    """Return the numpy type of elements as they lie in the file; None for strings and the like."""
    data_type = stored.entry.data_type
    if data_type in _SUB_BYTE:
        return np.dtype(np.uint8)
    try:
        dtype = numpy_dtype(data_type)
    except CheckpointError:
        return None
    if dtype.kind == "O":
        return None
    # ml_dtypes' own types know native order only; all that are wider than a byte are bfloat16.
    if dtype.kind == "V" and stored.big_endian and dtype.itemsize > 1:
        return None
    return dtype if dtype.kind == "V" else dtype.newbyteorder(">" if stored.big_endian else "<")


def _text_kind(files: DataFiles, path: str, size: int) -> str | None:
    """Tell the marks of a conversion of line ends, by the start of a file."""
    sample = bytes(files.source(path).read_at(0, min(size, _TEXT_SAMPLE)))
    feeds, pairs = sample.count(b"\n"), sample.count(b"\r\n")
    if feeds >= 4 and feeds == pairs:
        return "crlf"
    # Among random bytes one line feed in 256 follows a carriage return.
    if feeds >= 4096 and not pairs and sample.count(b"\r") > 1024:
        return "lf"
    return None


def _is_plausible(files: DataFiles, stored: Stored) -> bool:
    """Tell whether bytes look like values of their kind rather than like anything else."""
    entry = stored.entry
    width = item_size(entry.data_type)
    if width is None:
        return True
    count = min(entry.size, PIECE_SIZE) // width
    data = files.read(stored.path, entry.offset, count * width)
    if entry.data_type not in (DataType.DT_FLOAT, DataType.DT_DOUBLE, DataType.DT_HALF):
        return True
    dtype = stored_dtype(stored)
    with np.errstate(invalid="ignore"):
        values = np.abs(np.frombuffer(data, dtype).astype(np.float64))
        usual = (values == 0) | ((values > 1e-12) & (values < 1e6))
    return bool(usual.mean() > 0.95)
