"""Bytes that follow from a checksum: the value itself, or a small change that makes it agree.

The surest come first: values that the checksum determines; then changes that hardly fit by chance;
then values that only fit the checksum.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ckptparse.bundle.entry import count_elements
from ckptparse.coding.checksum import crc32c
from ckptparse.crc.flips import (
    HIGHEST_CHANCE,
    chance_of_bit,
    chance_of_word,
    find_bit,
    find_words,
)
from ckptparse.crc.inversion import (
    Derivation,
    derive_bools,
    derive_constant,
    derive_integer,
    derive_tail,
    derive_word,
    integer_is_proved,
)
from ckptparse.dtypes import DataType, item_size
from ckptparse.errors import CheckpointError
from ckptparse.examination.check import Check
from ckptparse.examination.outcome import EvidenceRecord, Outcome
from ckptparse.examination.payload import Form, PartName, Payload
from ckptparse.examination.places import NO_CHANCE, stored_dtype
from ckptparse.examination.readers import DataFile, DataFiles, checksum_of
from ckptparse.problems import Cause, EvidenceRule, Status
from ckptparse.recovery.expectations import Expectations
from ckptparse.recovery.mended import (
    Mended,
    available_bytes,
    changed,
    grounds_of,
    recipe_of,
    whole_of,
)
from ckptparse.recovery.recipe import Patch, Recipe, read_payload
from ckptparse.recovery.statistics import SECTOR, judge_elements
from ckptparse.recovery.string_flips import LengthBytes, find_string_bit
from ckptparse.text import chance_text

__all__ = ["INTEGERS", "Inferrer", "values_as_text"]

_FEW_DAMAGED = 3
"""If more payloads of a file are damaged than this, one changed byte in each of them is not likely:
something larger happened. Then such a change is only offered, without proof."""
_WORTH_OFFERING = 0.5
"""A change is not offered if it is wrong more often than right."""
_RARELY = 1 / 20
"""Of so many real tensors, or a few more, some sectors look wrong and are right. If another sector
of a tensor looks wrong, what explains that by damage must be as much less likely to fit."""
_LONGEST_TAIL = 4
"""Bytes at the end that a checksum determines: it has 4 bytes, and so many unknown ones."""
_NOT_SMALL = frozenset(
    {Cause.MIXED, Cause.TEXT, Cause.FOREIGN, Cause.SHIFTED, Cause.SWAPPED, Cause.TRUNCATED}
)
"""Causes that are no small change: no changed bit or byte is sought then."""
INTEGERS: Final[tuple[int, ...]] = (DataType.DT_INT64, DataType.DT_UINT64)
"""The types of 8-byte integers."""


class Inferrer:
    """Infers the bytes of payloads from their checksums."""

    def __init__(
        self,
        files: DataFiles,
        expectations: Expectations,
        damaged: Mapping[DataFile, int],
        doubted: Collection[DataFile],
        *,
        integers: int,
    ) -> None:
        """Take what is known of the checkpoint.

        Args:
            files: The data files.
            expectations: What other things say of its values.
            damaged: How many payloads of each file are damaged.
            doubted: Files which the index may not be about.
            integers: How many payloads of one 8-byte integer are lost.
        """
        self._doubted = doubted
        self._integers = integers
        self._lengths = LengthBytes()
        self._files = files
        self._expectations = expectations
        self._damaged = damaged

    def find(self, name: PartName, payload: Payload, check: Check) -> Iterator[Mended | None]:
        """Try the methods one after the other, the surest first; None if one finds nothing."""
        crc = payload.crc32c
        if crc is None:
            return
        if payload.form is Form.PLAIN:
            yield self._derived_exactly(payload, crc)
            if self.trusts(payload, check):
                yield self._expected(name, payload, crc)
        if payload.form is Form.STRINGS:
            yield self._string_bit(payload, check)
        elif payload.form is not Form.VARIANTS:
            for found in self._changes(payload, crc, check):
                # A change may fit noise by chance, and is not what damaged it.
                yield None if found is None or self._is_damaged_besides(payload, found) else found
        if payload.form is Form.PLAIN:
            yield self._integer(payload, crc)

    def trusts(self, payload: Payload, check: Check) -> bool:
        """Tell whether a checksum says what a value was.

        If the index is of another save, it says nothing of what this one was.
        """
        return check.cause is not Cause.MIXED and payload.file not in self._doubted

    def as_text(self, payload: Payload, found: Mended) -> str | None:
        """Return the values of a payload in a few words; None if they are many."""
        if found.recipe is None or payload.form is not Form.PLAIN:
            return None
        try:
            values = read_payload(found.recipe, payload, self._files.context).reshape(-1)
        except CheckpointError:  # So large that nobody wants to see it.
            return None
        return values_as_text(values)

    # -- values

    def _derived_exactly(self, payload: Payload, crc: int) -> Mended | None:
        if not payload.size:
            empty = Derivation("deriving it from its shape, which has no elements", 0.0, b"")
            return self._derived(payload, empty) if crc == crc32c(b"") else None
        count = count_elements(payload.shape)
        if payload.size <= _LONGEST_TAIL:
            data = derive_word(crc, payload.size)
            method = "deriving it from its checksum, which no other value has"
            return None if data is None else self._derived(payload, Derivation(method, 0.0, data))
        dtype = stored_dtype(payload)
        found = derive_constant(crc, dtype, count) if dtype else None
        if found is not None:
            method = f"recognising the checksum of {found.method}"
            return self._derived(payload, replace(found, method=method))
        solved = derive_bools(crc, count) if payload.data_type == DataType.DT_BOOL else None
        if solved is None:
            return None
        method = f"deriving it from its checksum, which no other {count} bools have"
        return self._derived(payload, Derivation(method, solved[1], solved[0]))

    def _expected(self, name: PartName, payload: Payload, crc: int) -> Mended | None:
        """Return a value that something else says, if it has the checksum."""
        if payload.data_type not in INTEGERS or payload.size != 8:
            return None
        numbers = self._expectations.of(name, payload)
        for value, why in numbers.items():
            data = value.to_bytes(8, "big" if payload.big_endian else "little")
            if crc32c(data) == crc:
                chance = len(numbers) * NO_CHANCE
                found = Derivation(f"trying {value}, {why}", chance, data)
                return self._derived(payload, found, EvidenceRule.EXPECTED)
        return None

    def _integer(self, payload: Payload, crc: int) -> Mended | None:
        if payload.data_type not in INTEGERS or payload.size != 8:
            return None
        value, chance = derive_integer(crc, big_endian=payload.big_endian)
        # Each lost integer is one more try: the bound holds for all of them together.
        together = chance * max(1, self._integers)
        data = value.to_bytes(8, "big" if payload.big_endian else "little")
        method = "deriving it from its checksum, as a number below 2**32"
        found = self._derived(payload, Derivation(method, chance, data), EvidenceRule.FITTING)
        if integer_is_proved(value) and together <= HIGHEST_CHANCE:
            return found
        return found.but(
            status=Status.UNVERIFIED,
            note=f"{value} is the only number below 2**32 with this checksum, but larger numbers "
            "have it too",
        )

    def _derived(
        self, payload: Payload, found: Derivation, rule: EvidenceRule = EvidenceRule.VALUE
    ) -> Mended:
        there = available_bytes(self._files, payload)
        note = "not all of its bytes are there" if there else "its bytes are lost"
        if there == payload.size:
            note = "its stored bytes were not used"
        note += ": its checksum determines the value"
        if found.chance:
            note += f"; the chance that this is wrong is {chance_text(found.chance)}"
        outcome = Outcome(
            Status.DERIVED,
            method=found.method,
            chance=found.chance,
            ranges=whole_of(payload),
            note=note,
            grounds=(EvidenceRecord(rule, payload.index, chance=found.chance),),
        )
        return Mended(outcome, Recipe(payload.size, derived=found, crc=payload.crc32c))

    # -- small changes

    def _changes(self, payload: Payload, crc: int, check: Check) -> Iterator[Mended | None]:
        yield self._bit(payload, crc, check)
        yield from self._words(payload, crc, check)
        yield self._tail(payload, crc, check)

    def _may_be_small(self, check: Check) -> bool:
        return check.computed is not None and check.cause not in _NOT_SMALL

    def _bit(self, payload: Payload, crc: int, check: Check) -> Mended | None:
        if check.computed is None or not self._may_be_small(check):
            return None
        chance = self._among(payload, chance_of_bit(payload.size))
        if chance > _WORTH_OFFERING:
            return None
        change = find_bit(crc, check.computed, payload.size)
        if change is None:
            return None
        what = f"bit {change.bit} of byte {change.offset}"
        return changed(self._files, payload, change, chance, what)

    # Each damaged payload of a file is one more try, so the chance is multiplied by their number.
    def _among(self, payload: Payload, chance: float) -> float:
        """Return the chance that any of the damaged payloads of the file fits by chance."""
        return min(1.0, chance * max(1, self._damaged.get(payload.file, 0)))

    def _words(self, payload: Payload, crc: int, check: Check) -> Iterator[Mended | None]:
        """Find the one byte, or aligned pair of bytes, whose change explains the checksum."""
        if check.computed is None or not self._may_be_small(check):
            return
        for width in (1, 2):
            chance = self._among(payload, chance_of_word(payload.size, width))
            usual = width == 1 and chance <= _WORTH_OFFERING
            if not (usual or chance <= HIGHEST_CHANCE):
                continue
            found = find_words(crc, check.computed, payload.size, width=width, limit=2)
            if len(found) != 1:
                continue
            start = found[0].offset
            what = f"byte {start}" if width == 1 else f"bytes {start} and {start + 1}"
            mended = changed(self._files, payload, found[0], chance, what)
            # Two changed bytes, or one byte in each of many payloads, are a guess: not proved.
            sure = width == 1 and self._damaged.get(payload.file, 0) <= _FEW_DAMAGED
            yield mended if sure else mended.but(status=Status.UNVERIFIED)

    def _tail(self, payload: Payload, crc: int, check: Check) -> Mended | None:
        """Solve for up to 4 bytes that were cut off. Four unknown bytes always have a solution."""
        available = available_bytes(self._files, payload)
        missing = payload.size - available
        if check.cause is not Cause.TRUNCATED or not available:
            return None
        if not 1 <= missing <= _LONGEST_TAIL:
            return None
        head = checksum_of(self._files, payload.file, payload.offset, available)
        tail = derive_tail(crc, head, missing)
        if tail is None:
            return None
        outcome = Outcome(
            Status.CORRECTED,
            Cause.TRUNCATED,
            f"solving for the {missing} bytes that were cut off",
            payload.place,
            2.0 ** (8 * missing - 32),
            whole_of(payload),
            note=f"the file ends {missing} bytes before the tensor does; the checksum gives these, "
            "if all bytes before them are right",
            grounds=grounds_of(
                EvidenceRule.TAIL,
                payload,
                2.0 ** (8 * missing - 32),
                [(available, payload.size)],
            ),
        )
        recipe = recipe_of(payload, available)
        return Mended(outcome, replace(recipe, patches=(Patch(available, tail),)))

    def _is_damaged_besides(self, payload: Payload, found: Mended) -> bool:
        """Tell whether a payload looks wrong elsewhere, and a change may well fit by chance."""
        recipe, width = found.recipe, item_size(payload.data_type)
        if payload.form is not Form.PLAIN or recipe is None or not width or not found.status.proved:
            return False
        size = payload.size // width * width
        data = bytearray(
            self._files.read(payload.file, payload.offset, min(size, recipe.available))
        )
        data.extend(bytes(size - len(data)))
        for patch in recipe.patches:
            data[patch.offset : patch.offset + len(patch.data)] = patch.data
        judged = judge_elements(
            data, payload.data_type, offset=payload.offset, big_endian=payload.big_endian
        )
        wrong = sum(stop - start for start, stop in judged.suspect) * width
        chance = found.outcome.chance or 0.0
        return 2 * wrong >= SECTOR and chance > HIGHEST_CHANCE * _RARELY

    def _string_bit(self, payload: Payload, check: Check) -> Mended | None:
        if check.status is not Status.CORRUPT or check.cause in _NOT_SMALL:
            return None
        data = bytes(self._files.read(payload.file, payload.offset, payload.size))
        found = find_string_bit(data, payload, self._lengths)
        if found is None:
            return None
        change, chance = found
        what = f"bit {change.bit} of byte {change.offset}"
        return changed(self._files, payload, change, self._among(payload, chance), what)


def values_as_text(values: npt.NDArray[Any]) -> str | None:
    """Return values in a few words; None if they are many."""
    if len(values) < 2:
        return str(values[0]) if len(values) else None
    # Of numbers that are not finite numpy and ml_dtypes warn.
    with np.errstate(all="ignore"):
        if (values == values[0]).all():
            return f"{values[0]!s} throughout"
        if values.dtype.kind in "iuf" and (np.diff(values) == 1).all():
            return f"{values[0]} to {values[-1]}"
    return None
