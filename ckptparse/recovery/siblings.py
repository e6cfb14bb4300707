"""Other checkpoints of the same directory as evidence: equal bytes, equal entries."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

from ckptparse.limits import Limits
from ckptparse.problems import Status
from ckptparse.recovery.check import check_stored
from ckptparse.recovery.files import DataFiles
from ckptparse.recovery.others import is_anothers, nearest
from ckptparse.recovery.survey import Survey, survey_path
from ckptparse.recovery.view import Stored, read_view

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

    def holds(self, path: str) -> bool:
        """Tell whether a data file belongs to another checkpoint, whose index lies beside it."""
        return is_anothers(path, self._survey.prefix)

    def _load(self) -> None:
        if self._loaded:
            return
        self._loaded = True
        for prefix in nearest(self._survey, _MOST_SIBLINGS):
            survey = survey_path(prefix, limits=self._limits)
            for index in survey.indexes:
                if not index.leftover:
                    view = read_view(index, survey, limits=self._limits)
                    for name, tensor in view.tensors.items():
                        self._add(name, tensor.stored)
                        for piece, stored in tensor.slices:
                            if stored is not None:
                                self._add(f"{name}\0{piece}", stored)

    def _add(self, name: str, stored: Stored) -> None:
        if stored.proved:
            entry = stored.entry
            if not entry.slices:
                self._by_checksum[entry.data_type, entry.size, entry.crc32c].append(stored)
            self._by_name[name].append(stored)
