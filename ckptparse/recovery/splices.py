"""Tell whether a whole block of an index is another checkpoint's.

Such a block has its own checksum, and parses. Its entries state the checksums of the other save. A
tensor that trained then fails, and the other checkpoint has whole bytes with the stated checksum:
its own values. The same is seen if a tensor that never changes was damaged, and is whole beside.
Three signs together tell a splice:

    all entries of the block are in the other checkpoint's index
    not all entries of this index are in it: it is no copy of this checkpoint
    a tensor of the block is like weights from end to end where it belongs, and has other values
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ckptparse.dtypes import item_size
from ckptparse.examination.case import Case, Part
from ckptparse.examination.payload import PartName, Payload
from ckptparse.examination.places import are_telling, is_telling
from ckptparse.examination.plausibility import has_magnitudes
from ckptparse.problems import Cause
from ckptparse.recovery.doubt import is_like_weights
from ckptparse.recovery.siblings import Siblings

__all__ = ["Splices"]

_COMPARED = 1 << 20
"""Bytes of a tensor that are compared with the other save's."""
_SAME = 0.5
"""The share of equal elements from which on a tensor counts as the same one, damaged. Damage that
looks like weights from end to end is small; between two saves hardly a trained element is equal."""
_EXPLAINED = frozenset({Cause.ZEROS, Cause.TRUNCATED, Cause.SHIFTED, Cause.TEXT})
"""Causes by which other bytes than the tensor's lie at its place."""


class Splices:
    """Knows which blocks of an index may be of which other checkpoint."""

    def __init__(self, case: Case, siblings: Siblings) -> None:
        self._case = case
        self._siblings = siblings
        self._known: dict[tuple[int, str], bool] = {}

    def may_hold(self, payload: Payload, path: str) -> bool:
        """Tell whether the block that describes a payload may be of the checkpoint of a data file.

        Args:
            payload: What a block of the index says.
            path: A data file that holds whole bytes of that size and checksum.
        """
        view = self._case.main
        if view is None or payload.block is None or payload.index != view.path:
            return False
        key = payload.block, path
        if key not in self._known:
            known = self._siblings
            self._known[key] = (
                known.may_have_written(view, payload, path)
                and not known.has_all(view, path)
                and any(
                    self._is_other(*one)
                    for one in self._iter_parts(payload)
                    if _is_in(one[1], payload)
                )
            )
        return self._known[key]

    def _iter_parts(self, payload: Payload) -> Iterator[tuple[PartName, Part]]:
        """Iterate over parts that are held, and over rows of the block that describes a payload.

        Of the rows those are made that `_is_other` may say something of: it may be thousands.
        """
        yield from self._case.held_parts()
        failed = self._case.failed
        if failed is not None and payload.block is not None:
            numbers = failed.in_block(payload.block)
            numbers = numbers[failed.wrong[numbers]]
            telling = are_telling(failed.plain, failed.rows[numbers])
            yield from self._case.failed_parts(numbers[telling])

    def _is_other(self, name: PartName, part: Part) -> bool:
        """Tell whether a tensor that fails looks whole, and is not the other save's, damaged."""
        payload, files = part.payload, self._case.files
        if payload is None or not part.is_lost or part.check.computed is None:
            return False
        if part.check.cause in _EXPLAINED or not (is_telling(payload) and has_magnitudes(payload)):
            return False
        if payload.end > (files.size(payload.file) or 0) or not is_like_weights(files, payload):
            return False
        width = item_size(payload.data_type) or 1
        size = min(payload.size, _COMPARED) // width * width
        own = np.frombuffer(files.read(payload.file, payload.offset, size), f"V{width}").copy()
        for other in self._siblings.named(name, payload):
            if other.crc32c == payload.crc32c and other.end <= (files.size(other.file) or 0):
                theirs = np.frombuffer(files.read(other.file, other.offset, size), f"V{width}")
                return float((own == theirs).mean()) < _SAME
        return False


def _is_in(part: Part, payload: Payload) -> bool:
    """Tell whether a part is described by the same block of the same index."""
    other = part.payload
    return other is not None and (other.block, other.index) == (payload.block, payload.index)
