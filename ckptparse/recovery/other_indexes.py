"""The indexes of other checkpoints that a recovery reads, each once.

Their layouts are asked for if the checkpoint's own index is lost or damaged, their entries when it
is mended, and in the end how much of each is whole.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace

from ckptparse.errors import CheckpointError
from ckptparse.examination.case import Case
from ckptparse.examination.checking import open_case
from ckptparse.examination.index_view import IndexView
from ckptparse.examination.survey import survey_path
from ckptparse.files.context import Context
from ckptparse.inventory.folders import Folders
from ckptparse.inventory.survey import Origin, Survey
from ckptparse.parallel import PIECE_SIZE

__all__ = ["OtherIndexes"]

_MOST_KEPT = 16 << 20
"""Bytes of the files whose indexes are kept between their uses, in all: these take as many times
their bytes as the checkpoint's own index does."""


class OtherIndexes:
    """Opens other checkpoints; what was opened first is kept for its next use."""

    def __init__(self, context: Context) -> None:
        """Take where they lie, and how much they may ask for."""
        self.context = replace(context, progress=None)
        self._folders = Folders(self.context)
        self._surveys: dict[str, Survey] = {}
        self._kept: dict[str, Case] = {}
        self._left = _MOST_KEPT

    def survey(self, prefix: str) -> Survey:
        """Find the files of a checkpoint; raises as `survey_path`."""
        if prefix not in self._surveys:
            self._surveys[prefix] = survey_path(prefix, self.context, self._folders)
        return self._surveys[prefix]

    def has_index(self, prefix: str, own: IndexView | None) -> bool:
        """Tell whether a checkpoint has the same index, byte for byte; raises as `survey_path`.

        Then it says the same of its own data files, and need not be read. If data files have other
        names than it says, this is not told.
        """
        survey = self.survey(prefix)
        indexes = [one for one in survey.indexes if one.origin is Origin.FINAL]
        if own is None or own.rows is None or own.rows.are_records:
            return False
        if own.rows.chance and {count for _, count in survey.data_files} != {own.num_shards}:
            # Its header was corrected, and is not known of the other.
            return False
        if len(indexes) != 1 or survey.leftovers or indexes[0].data_paths is not None:
            return False
        return own.header is not None and self._are_equal(own.path, indexes[0].path)

    def _are_equal(self, one: str, other: str) -> bool:
        storage = self.context.storage
        try:
            with closing(storage.open(one)) as first, closing(storage.open(other)) as second:
                if first.size != second.size:
                    return False
                pieces = range(0, first.size, PIECE_SIZE)
                sizes = (min(PIECE_SIZE, first.size - start) for start in pieces)
                return all(
                    first.read_at(start, size) == second.read_at(start, size)
                    for start, size in zip(pieces, sizes, strict=True)
                )
        except CheckpointError:
            # It is read as any other, and says why it cannot be.
            return False

    def open(self, prefix: str) -> Case:
        """Read what lists the tensors of a checkpoint, and close its files; raises as `open_case`.

        It is kept, if all of them are not too large.
        """
        case = self._kept.get(prefix)
        if case is None:
            case = open_case(self.survey(prefix), self.context)
            case.files.close()
            size = sum(self._size_of(index.path) for index in case.survey.indexes)
            if size <= self._left:
                self._left -= size
                self._kept[prefix] = case
        return case

    def find(self, prefix: str) -> Case | None:
        """Return a checkpoint that was opened and is kept; None if it is not."""
        return self._kept.get(prefix)

    def _size_of(self, path: str) -> int:
        status = self.context.storage.stat(path)
        return 0 if status is None else status.size
