"""Values of which nothing but a stored checksum says that they are this save's.

If the index is of another save, they are that one's.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from ckptparse.bundle.entry import count_elements
from ckptparse.examination.payload import Form, Payload
from ckptparse.examination.places import is_telling
from ckptparse.examination.plausibility import has_magnitudes
from ckptparse.examination.readers import DataFile, DataFiles
from ckptparse.problems import EvidenceRule
from ckptparse.recovery.mended import Mended

__all__ = [
    "SMALL_CHANGES",
    "Way",
    "is_varied",
    "may_differ_by_little",
    "rests_on_checksum",
    "way_of",
]

Way = tuple[DataFile, int]
"""How a data file is read, and how many bytes from its place something lies in it."""

_SEVERAL = 3
"""Floats that do not all stay but for one byte while a model is trained."""
_LEAST_BITS = 64
"""Bits that bytes say, at least, which lie nowhere else by chance: 32 more than it takes to name a
place in 4 GiB."""
_JUDGED = 1 << 12
"""Bytes of them that are looked at."""
_VALUES = frozenset({EvidenceRule.VALUE, EvidenceRule.FITTING})
"""Values that the checksum gives; of an expected one the checkpoint's name says the same."""
SMALL_CHANGES = frozenset({EvidenceRule.BIT, EvidenceRule.BYTES, EvidenceRule.TAIL})
"""A bit or a few bytes that were changed so that the checksum agrees."""
_FOUND = frozenset(
    {
        EvidenceRule.TWIN,
        EvidenceRule.SIBLING,
        EvidenceRule.SHIFTED,
        EvidenceRule.CONVERTED,
        EvidenceRule.REORDERED,
        EvidenceRule.GATHERED,
        EvidenceRule.SWAPPED,
        EvidenceRule.FILE,
    }
)
"""Bytes that lie elsewhere: of a small number others may be equal."""
_ANOTHERS = frozenset(
    {EvidenceRule.TWIN, EvidenceRule.SIBLING, EvidenceRule.FILE, EvidenceRule.AXES}
)
"""Bytes of something else that are equal."""


def may_differ_by_little(payload: Payload) -> bool:
    """Tell whether two saves may hold a tensor with a small difference: counters, flags, words.

    Weights that are trained differ in most elements; of one or two no more may be known.
    """
    if not has_magnitudes(payload):
        return True
    return count_elements(payload.shape) < _SEVERAL


def rests_on_checksum(
    found: Mended, payload: Payload, files: DataFiles, ways: Collection[Way] = frozenset()
) -> bool:
    """Tell whether nothing but the stored checksum says that these are the values of this save.

    Args:
        found: What was got back.
        payload: What the index says.
        files: The data files.
        ways: How files are read, and how far from their places, so that others are whole.
    """
    if not payload.size or payload.form is Form.RECORD:
        return False
    rules = {record.rule for record in found.outcome.grounds}
    if not rules.isdisjoint(_VALUES):
        return True
    if not rules.isdisjoint(_FOUND):
        way = _way_of(found, payload)
        there = way in ways or way == (payload.file, 0)
        if there or _is_undone(way, payload):
            return False
        return not (is_telling(payload) and is_varied(found, files))
    return not rules.isdisjoint(SMALL_CHANGES) and may_differ_by_little(payload)


def way_of(found: Mended, payload: Payload) -> Way | None:
    """Return how the file is read that holds a payload whole, and how far from its place that is.

    None if it is not proved, was changed, or is another tensor's.
    """
    return _way_of(found, payload) if found.status.proved else None


def _way_of(found: Mended, payload: Payload) -> Way | None:
    recipe = found.recipe
    rules = {record.rule for record in found.outcome.grounds}
    if recipe is None or recipe.file is None or recipe.patches:
        return None
    if not rules.isdisjoint(_ANOTHERS):
        return None
    return recipe.file, recipe.offset - payload.offset


def is_varied(found: Mended, files: DataFiles) -> bool:
    """Tell whether bytes are such as hardly lie anywhere by chance: small integers are others'."""
    recipe = found.recipe
    if recipe is None or recipe.file is None or recipe.patches:
        return True
    size = min(recipe.available, _JUDGED)
    data = np.frombuffer(files.read(recipe.file, recipe.offset, size), np.uint8)
    counts = np.bincount(data, minlength=256)
    counts = counts[counts > 0]
    return bool((counts * np.log2(size / counts)).sum() >= _LEAST_BITS)


def _is_undone(way: Way | None, payload: Payload) -> bool:
    """Tell whether bytes are at their place once a change of the whole file is undone."""
    return way is not None and way[0].path == payload.file.path and not way[1]
