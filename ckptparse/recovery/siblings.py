"""Other checkpoints of the same directory as evidence: equal bytes, equal entries."""

from __future__ import annotations

import os
from collections import defaultdict
from dataclasses import replace

from ckptparse.bundle.naming import INDEX_SUFFIX, split_data_path
from ckptparse.examination.check import check_stored
from ckptparse.examination.index_view import IndexView, Stored, read_view
from ckptparse.examination.neighbours import is_anothers, nearest
from ckptparse.examination.readers import DataFiles
from ckptparse.examination.survey import survey_path
from ckptparse.inventory.survey import Survey
from ckptparse.limits import Limits
from ckptparse.problems import Status

__all__ = ["Siblings"]

_MOST_SIBLINGS = 8


class Siblings:
    """What the proved entries of sibling checkpoints say; read when first asked."""

    def __init__(self, survey: Survey, files: DataFiles, *, limits: Limits, used: bool) -> None:
        self._survey = survey
        self._files = files
        self._limits = limits
        self._loaded = not used
        self._by_checksum: dict[tuple[int, int, int], list[Stored]] = defaultdict(list)
        self._by_name: dict[str, list[Stored]] = defaultdict(list)

    def find_equal(self, stored: Stored) -> Stored | None:
        """Return a sibling's payload of the same kind, size and checksum whose bytes are whole."""
        self._load()
        entry = stored.entry
        key = (entry.data_type, entry.size, entry.crc32c)
        for other in self._by_checksum.get(key, ()):
            same = other.big_endian == stored.big_endian
            if same and check_stored(self._files, other).status is Status.VERIFIED:
                return other
        return None

    def named(self, name: str, stored: Stored) -> list[Stored]:
        """Return siblings' payloads of that name, kind and shape."""
        self._load()
        wanted = stored.entry.data_type, stored.entry.shape, stored.big_endian
        return [
            other
            for other in self._by_name.get(name, ())
            if (other.entry.data_type, other.entry.shape, other.big_endian) == wanted
        ]

    def confirm(self, name: str, stored: Stored) -> str | None:
        """Return a sibling's index that has the same entry, checksum aside; None where none has."""
        for other in self.named(name, stored):
            if replace(other.entry, crc32c=stored.entry.crc32c) == stored.entry:
                return other.index
        return None

    def may_have_written(self, view: IndexView, stored: Stored, path: str) -> bool:
        """Tell whether the index of the checkpoint that a data file is of holds all of a block.

        The block is the one of `view` that has the entry: damage that put another checkpoint's
        blocks into an index leaves no other trace.
        """
        if not is_anothers(path, self._survey.prefix):
            return False
        if stored.block is None:
            return True
        self._load()
        block = [found for found in view.iter_named() if found[1].block == stored.block]
        return all(
            any(
                other.entry == found.entry and _is_of(other.index, path)
                for other in self._by_name.get(name, ())
            )
            for name, found in block
        )

    def _load(self) -> None:
        if self._loaded:
            return
        self._loaded = True
        for prefix in nearest(self._survey, _MOST_SIBLINGS):
            survey = survey_path(prefix, limits=self._limits)
            for index in survey.indexes:
                if not index.origin.is_leftover:
                    view = read_view(index, survey, limits=self._limits)
                    for name, stored in view.iter_named():
                        self._add(name, stored)

    def _add(self, name: str, stored: Stored) -> None:
        if stored.proved:
            entry = stored.entry
            if not entry.slices:
                self._by_checksum[entry.data_type, entry.size, entry.crc32c].append(stored)
            self._by_name[name].append(stored)


def _is_of(index: str, path: str) -> bool:
    """Tell whether an index and a data file have the same prefix."""
    split = split_data_path(path)
    return split is not None and os.path.normpath(split[0] + INDEX_SUFFIX) == os.path.normpath(
        index
    )
