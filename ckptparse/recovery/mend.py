"""Get one payload back by whatever evidence supports it, the surest first.

What the checksum of a payload proves is its bytes; each method adds its own chance of being wrong,
and the status follows from that chance: at most 1 in 1,000 is `corrected` or `derived`, beyond that
`unverified` (counters by name excepted). Nothing is promised on an entry that is not proved.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from ckptparse.bundle.entry import count_elements
from ckptparse.bundle.strings import decode_strings
from ckptparse.coding.checksum import crc32c
from ckptparse.coding.varint import encode_varint
from ckptparse.crc.flips import (
    HIGHEST_CHANCE,
    Change,
    chance_of_bit,
    chance_of_word,
    find_bit,
    find_words,
)
from ckptparse.crc.inversion import (
    Derivation,
    derive_constant,
    derive_integer,
    derive_tail,
    derive_word,
    integer_is_proved,
)
from ckptparse.dtypes import DataType, item_size
from ckptparse.errors import CheckpointError
from ckptparse.examination.check import (
    Check,
    check_stored,
    elements_outside,
    has_checksum,
    is_counted,
    string_spans,
)
from ckptparse.examination.diagnose import Place, moved, stored_dtype, twin_key
from ckptparse.examination.index_view import IndexView, Stored
from ckptparse.examination.readers import DataFiles, checksum_of
from ckptparse.examination.report import Source, Span, merge_spans
from ckptparse.problems import Cause, Status
from ckptparse.recovery.recipe import Patch, Recipe
from ckptparse.recovery.siblings import Siblings

__all__ = ["Mended", "Mender"]

_FEW_DAMAGED = 3
_WORTH_OFFERING = 0.5
_MOST_BYTES = 1 << 24
_MOST_LENGTHS = 1024
_MOST_LENGTH_BYTES = 4096
_NOT_BITS = frozenset(
    {Cause.MIXED, Cause.TEXT, Cause.FOREIGN, Cause.SHIFTED, Cause.SWAPPED, Cause.TRUNCATED}
)
_INTEGERS = (DataType.DT_INT64, DataType.DT_UINT64)
_NO_CHANCE = 2.0**-32


@dataclass(frozen=True, slots=True)
class Mended:
    """One payload, got back as far as it goes.

    Attributes:
        status, cause, method, source, chance, ranges, note: As in `TensorReport`.
        recipe: How to get its bytes; None where nothing can be offered.
        crc: The checksum that its bytes must have when they are read; None where none is known.
    """

    status: Status
    cause: Cause | None = None
    method: str | None = None
    source: Source | None = None
    chance: float | None = None
    ranges: tuple[Span, ...] = ()
    note: str = ""
    recipe: Recipe | None = None
    crc: int | None = None


class Mender:
    """Mends the payloads of one checkpoint."""

    def __init__(
        self,
        files: DataFiles,
        twins: Mapping[tuple[int, int, int, bool], tuple[str, Stored]],
        places: Mapping[str, Sequence[Place]],
        siblings: Siblings,
        *,
        torn: IndexView | None,
        damaged: Mapping[str, int],
    ) -> None:
        self._files = files
        self._damaged = damaged
        self._twins = twins
        self._places = places
        self._siblings = siblings
        self._torn = torn

    def mend(self, name: str, stored: Stored | None, check: Check) -> Mended:
        """Get a payload back; `name` is that of its tensor, with its slice behind a NUL."""
        if stored is None:
            return Mended(check.status, check.cause, note=check.note)
        if check.status is Status.VERIFIED:
            return self._verified(stored, check)
        confirmed = None if stored.proved else self._siblings.confirm(name, stored)
        if check.status is Status.UNVERIFIED:
            return self._unverified(stored, check, confirmed)
        # A sibling confirms name, type and shape. The checksum it cannot: bytes that match do.
        agreed = replace(stored, proved=stored.proved or confirmed is not None)
        for attempt in self._matches(name, stored, check):
            if attempt is not None:
                own = _is_at_its_place(attempt, stored)
                return self._doubted(_judged(attempt, agreed if own else stored), stored)
        for attempt in self._inferences(name, stored, check):
            if attempt is not None:
                return _judged(attempt, stored)
        return self._lost(stored, check)

    # -- what needs no mending

    def _verified(self, stored: Stored, check: Check) -> Mended:
        found = _at(stored, Status.VERIFIED, check.ranges)
        if stored.chance:
            return replace(
                found,
                status=Status.CORRECTED,
                method="correcting one bit of the index",
                chance=stored.chance,
                note="the block of the index that describes it had one flipped bit",
            )
        return found

    def _unverified(self, stored: Stored, check: Check, confirmed: str | None) -> Mended:
        if check.cause is Cause.ENTRY and confirmed is not None:
            name = os.path.basename(confirmed)
            return replace(
                _at(stored, Status.VERIFIED, check.ranges),
                method=f"its entry is the same in {name}",
                note=f"the index is damaged where it stands; {name} has the same entry",
            )
        found = _at(stored, Status.UNVERIFIED, check.ranges)
        crc = None if check.cause is Cause.NO_CHECKSUM else found.crc
        return replace(found, cause=check.cause, note=check.note, crc=crc)

    def _doubted(self, found: Mended, stored: Stored) -> Mended:
        """Take back what rests on a checkpoint that a damaged index may speak of instead.

        An index that was half overwritten with another's states that one's checksums.
        """
        source = found.source
        if self._torn is None or source is None or not found.status.proved:
            return found
        if found.recipe is None or found.recipe.patches:
            return found
        if not self._siblings.may_have_written(self._torn, stored, source.path):
            return found
        note = f"{found.note}; the index is damaged, and may speak of that checkpoint instead"
        return replace(found, status=Status.UNVERIFIED, note=note.removeprefix("; "))

    # -- the methods, in order

    def _matches(self, name: str, stored: Stored, check: Check) -> Iterator[Mended | None]:
        """Find bytes somewhere that have the checksum."""
        if not has_checksum(stored):
            return
        yield self._from_twin(stored, check)
        yield self._from_places(stored, check)
        yield self._from_equal(stored, check)
        yield self._filled(name, stored, check)

    def _inferences(self, name: str, stored: Stored, check: Check) -> Iterator[Mended | None]:
        """Infer bytes from the checksum, which must be right for that."""
        if not has_checksum(stored):
            pass
        elif is_counted(stored.entry.data_type):
            yield self._string_bit(stored, check)
        else:
            yield self._derived_exactly(stored, check)
            yield self._bit(stored, check)
            yield self._derived_integer(name, stored, check)
            yield self._word(stored, check)
            yield self._tail(stored, check)
        yield self._partial(stored, check)

    def _from_twin(self, stored: Stored, check: Check) -> Mended | None:
        found = self._twins.get(twin_key(stored)) if stored.entry.size else None
        if found is None:
            return None
        name, twin = found
        return replace(
            _at(twin, Status.CORRECTED, _whole(stored)),
            cause=check.cause,
            method="another tensor's bytes",
            chance=_NO_CHANCE,
            note=f"{name!r} has the same size and checksum, and is whole",
        )

    def _from_places(self, stored: Stored, check: Check) -> Mended | None:
        for place in self._places.get(stored.path, ()):
            there = moved(stored, place)
            size = self._files.size(place.path)
            if size is None or there.entry.offset < 0:
                continue
            if there.entry.offset + there.entry.size > size or not there.entry.size:
                continue
            found = check_stored(self._files, replace(there, proved=True))
            if found.status is Status.VERIFIED:
                return replace(
                    _at(there, Status.CORRECTED, found.ranges),
                    cause=place.cause or check.cause,
                    method=place.method,
                    chance=place.chance,
                    note=_describe_equal(place.path) if place.cause is None else "",
                )
        return None

    def _from_equal(self, stored: Stored, check: Check) -> Mended | None:
        if not stored.entry.size:
            return None
        other = self._siblings.find_equal(stored)
        if other is None:
            return None
        return replace(
            _at(other, Status.CORRECTED, _whole(stored)),
            cause=check.cause,
            method="a sibling's bytes",
            chance=_NO_CHANCE,
            note=_describe_equal(other.path),
        )

    def _derived_exactly(self, stored: Stored, check: Check) -> Mended | None:
        entry = stored.entry
        if entry.size == entry.crc32c == 0:
            return _derived(stored, check, Derivation("its shape: it has no elements", 0.0, b""))
        if 1 <= entry.size <= 4:
            data = derive_word(entry.crc32c, entry.size)
            if data is None:
                return None
            return _derived(
                stored, check, Derivation("its checksum, which no other value has", 0.0, data)
            )
        dtype = stored_dtype(stored)
        found = derive_constant(entry.crc32c, dtype, count_elements(entry.shape)) if dtype else None
        return None if found is None else _derived(stored, check, found)

    def _bit(self, stored: Stored, check: Check) -> Mended | None:
        entry = stored.entry
        if check.computed is None or check.holes or check.cause in _NOT_BITS:
            return None
        chance = chance_of_bit(entry.size)
        change = find_bit(entry.crc32c, check.computed, entry.size)
        if change is None or chance > _WORTH_OFFERING:
            return None
        what = f"bit {change.bit} of byte {change.offset}"
        return self._changed(stored, change, chance, f"correcting {what}")

    def _derived_integer(self, name: str, stored: Stored, check: Check) -> Mended | None:
        entry = stored.entry
        if entry.data_type not in _INTEGERS or entry.size != 8:
            return None
        value, chance = derive_integer(entry.crc32c, big_endian=stored.big_endian)
        data = value.to_bytes(8, "big" if stored.big_endian else "little")
        found = _derived(
            stored, check, Derivation(f"its checksum, which fits {value}", chance, data)
        )
        if integer_is_proved(value, name.partition("\0")[0]):
            return found
        return replace(found, status=Status.UNVERIFIED)

    def _word(self, stored: Stored, check: Check) -> Mended | None:
        entry = stored.entry
        if check.computed is None or check.holes or check.cause in _NOT_BITS:
            return None
        for width in (1, 2):
            chance = chance_of_word(entry.size, width)
            usual = width == 1 and entry.size <= _MOST_BYTES and chance <= _WORTH_OFFERING
            if not (usual or chance <= HIGHEST_CHANCE):
                continue
            found = find_words(entry.crc32c, check.computed, entry.size, width=width, limit=2)
            if len(found) == 1:
                what = f"byte {found[0].offset}" if width == 1 else f"bytes from {found[0].offset}"
                changed = self._changed(stored, found[0], chance, f"correcting {what}")
                # That damage is so small is a guess for a word, and where much is damaged.
                sure = width == 1 and self._damaged[stored.path] <= _FEW_DAMAGED
                return changed if sure else replace(changed, status=Status.UNVERIFIED)
        return None

    def _changed(self, stored: Stored, change: Change, chance: float, method: str) -> Mended:
        entry = stored.entry
        start = entry.offset + change.offset
        old = self._files.read(stored.path, start, len(change.mask))
        new = bytes(a ^ b for a, b in zip(old, change.mask, strict=True))
        found = _at(stored, Status.CORRECTED, _whole(stored))
        recipe = replace(_recipe(stored), patches=(Patch(change.offset, new),))
        return replace(
            found,
            cause=Cause.BITS,
            method=method,
            chance=chance,
            recipe=recipe,
            note="the damage is as small as that, unless larger damage looks like it by chance",
        )

    def _filled(self, name: str, stored: Stored, check: Check) -> Mended | None:
        """Fill holes, or the end that was cut off, with a sibling's bytes."""
        entry = stored.entry
        if is_counted(entry.data_type):
            return None
        holes = check.holes or self._cut_off(stored, check)
        if not holes or holes == ((0, entry.size),):
            return None
        for other in self._siblings.named(name, stored):
            size = self._files.size(other.path)
            if size is None or other.entry.offset + entry.size > size:
                continue
            patches = self._patches(other, holes)
            if self._crc_with(stored, patches) == entry.crc32c:
                return replace(
                    _at(stored, Status.CORRECTED, _whole(stored)),
                    cause=check.cause,
                    method="filling what is lost with a sibling's bytes",
                    chance=_NO_CHANCE,
                    note=f"from {os.path.basename(other.path)}",
                    recipe=replace(_recipe(stored, self._available(stored)), patches=patches),
                )
        return None

    def _patches(self, other: Stored, holes: Sequence[Span]) -> tuple[Patch, ...]:
        offset = other.entry.offset
        return tuple(
            Patch(start, bytes(self._files.read(other.path, offset + start, stop - start)))
            for start, stop in holes
        )

    def _crc_with(self, stored: Stored, patches: Sequence[Patch]) -> int:
        """Return the CRC of a payload with patches in place; they are sorted and disjoint."""
        crc = position = 0
        offset, available = stored.entry.offset, self._available(stored)
        for patch in patches:
            count = max(0, min(patch.offset, available) - position)
            crc = checksum_of(self._files, stored.path, offset + position, count, crc=crc)
            crc = crc32c(patch.data, crc)
            position = patch.offset + len(patch.data)
        rest = max(0, min(available, stored.entry.size) - position)
        return checksum_of(self._files, stored.path, offset + position, rest, crc=crc)

    def _available(self, stored: Stored) -> int:
        size = self._files.size(stored.path) or 0
        return max(0, min(stored.entry.size, size - stored.entry.offset))

    def _cut_off(self, stored: Stored, check: Check) -> tuple[Span, ...]:
        available = self._available(stored)
        if check.cause is not Cause.TRUNCATED or not available:
            return ()
        return ((available, stored.entry.size),)

    def _tail(self, stored: Stored, check: Check) -> Mended | None:
        """Solve for up to 4 bytes that were cut off; of 4 there is always a solution."""
        entry = stored.entry
        missing = entry.size - self._available(stored)
        if check.cause is not Cause.TRUNCATED or not 1 <= missing <= 4 or missing == entry.size:
            return None
        head = checksum_of(self._files, stored.path, entry.offset, entry.size - missing)
        tail = derive_tail(entry.crc32c, head, missing)
        if tail is None:
            return None
        return replace(
            _at(stored, Status.CORRECTED, _whole(stored)),
            cause=Cause.TRUNCATED,
            method=f"solving for the {missing} bytes that were cut off",
            chance=2.0 ** (8 * missing - 32),
            note="they follow from the checksum if all before them is as it was",
            recipe=replace(
                _recipe(stored, entry.size - missing),
                patches=(Patch(entry.size - missing, tail),),
            ),
        )

    def _partial(self, stored: Stored, check: Check) -> Mended | None:
        entry = stored.entry
        ranges = check.ranges
        width = item_size(entry.data_type)
        if check.holes and width is not None:
            ranges = elements_outside(check.holes, entry.size, width)
        elif check.holes and entry.data_type == DataType.DT_STRING:
            ranges = self._strings_outside(stored, check)
        if not ranges:
            return None
        found = _at(stored, Status.PARTIAL, ranges)
        return replace(
            found,
            cause=check.cause,
            note=check.note,
            crc=None,
            recipe=_recipe(stored, self._available(stored)),
        )

    def _strings_outside(self, stored: Stored, check: Check) -> tuple[Span, ...]:
        entry = stored.entry
        data = bytes(self._files.read(stored.path, entry.offset, entry.size))
        count = count_elements(entry.shape)
        spans = string_spans(data, count, big_endian=stored.big_endian) or []
        good = [
            (number, number + 1)
            for number, (start, stop) in enumerate(spans)
            if not any(low < stop and start < high for low, high in check.holes)
        ]
        return merge_spans(good)

    def _string_bit(self, stored: Stored, check: Check) -> Mended | None:
        entry = stored.entry
        if check.status is not Status.CORRUPT or check.holes or check.cause in _NOT_BITS:
            return None
        if entry.data_type != DataType.DT_STRING:
            return None
        data = bytes(self._files.read(stored.path, entry.offset, entry.size))
        found = _find_string_bit(data, stored)
        if found is None:
            return None
        change, chance = found
        what = f"bit {change.bit} of byte {change.offset}"
        return self._changed(stored, change, chance, f"correcting {what}")

    def _lost(self, stored: Stored, check: Check) -> Mended:
        entry = stored.entry
        there = check.status is not Status.MISSING
        source = Source(stored.path, entry.offset, entry.size) if there else None
        return Mended(check.status, check.cause, source=source, note=check.note)


def _describe_equal(path: str) -> str:
    return f"{os.path.basename(path)} holds bytes of the same size and checksum"


def _judged(found: Mended, stored: Stored) -> Mended:
    """Lower the status to what the chance, and the proof of the entry, allow."""
    if found.status.proved and found.cause is Cause.UNKNOWN:
        found = replace(found, cause=None)
    chance = max(found.chance or 0.0, stored.chance)
    if found.chance is not None:
        found = replace(found, chance=chance)
    if found.status is Status.DERIVED and stored.proved:
        # Its chance was judged with the name: counters may be larger.
        return found
    if found.status.proved and (chance > HIGHEST_CHANCE or not stored.proved):
        return replace(found, status=Status.UNVERIFIED)
    return found


def _is_at_its_place(found: Mended, stored: Stored) -> bool:
    """Tell whether bytes were found at the offset that the entry says.

    A checksum that damage copied from another entry has that entry's bytes, at another offset.
    """
    return found.source is not None and found.source.offset == stored.entry.offset


def _whole(stored: Stored) -> tuple[Span, ...]:
    return ((0, count_elements(stored.entry.shape)),)


def _recipe(stored: Stored, available: int | None = None) -> Recipe:
    entry = stored.entry
    count = entry.size if available is None else available
    return Recipe(entry.size, stored.path, entry.offset, count)


def _at(stored: Stored, status: Status, ranges: tuple[Span, ...]) -> Mended:
    entry = stored.entry
    return Mended(
        status,
        source=Source(stored.path.partition("\0")[0], entry.offset, entry.size),
        ranges=ranges,
        recipe=_recipe(stored) if entry.size else Recipe(0),
        crc=entry.crc32c,
    )


def _derived(stored: Stored, check: Check, found: Derivation) -> Mended:
    return Mended(
        Status.DERIVED,
        check.cause,
        found.method,
        None,
        found.chance,
        _whole(stored),
        "its bytes are lost; its checksum gives the value",
        Recipe(stored.entry.size, derived=found),
        stored.entry.crc32c,
    )


def _find_string_bit(data: bytes, stored: Stored) -> tuple[Change, float] | None:
    """Find the one bit of a string tensor whose flip explains its checksums.

    The CRC covers the lengths at fixed width, the stored checksum of the lengths, and the strings.
    """
    entry = stored.entry
    count = count_elements(entry.shape)
    good = _string_checker(stored, count)
    spans = string_spans(data, count, big_endian=stored.big_endian)
    if spans is not None:
        start = sum(len(encode_varint(stop - low)) for low, stop in spans)
        if not spans or spans[-1][1] != len(data):
            return None
        order = ">" if stored.big_endian else "<"
        fixed = b"".join(struct.pack(f"{order}I", stop - low) for low, stop in spans)
        covered = fixed + data[start:]
        change = find_bit(entry.crc32c, crc32c(covered), len(covered))
        if change is None or change.offset < len(fixed):
            return None
        moved_change = Change(change.offset - len(fixed) + start, change.mask)
        sound = good(moved_change.apply(data))
        return (moved_change, chance_of_bit(len(covered))) if sound else None
    if count > _MOST_LENGTHS:
        return None
    head = data[: 10 * count + 4]
    reach = min(len(head), _MOST_LENGTH_BYTES)
    for offset in range(reach):
        for bit in range(8):
            change = Change(offset, bytes([1 << bit]))
            spans = string_spans(change.apply(head), count, big_endian=stored.big_endian)
            if spans is not None and good(change.apply(data)):
                return change, chance_of_bit(reach)
    return None


def _string_checker(stored: Stored, count: int) -> Callable[[bytes], bool]:
    def good(data: bytes) -> bool:
        try:
            decode_strings(data, count, big_endian=stored.big_endian, crc=stored.entry.crc32c)
        except CheckpointError:
            return False
        return True

    return good
