"""The indexes of other checkpoints that a recovery reads, each once.

Their layouts are asked for if the checkpoint's own index is lost or damaged, their entries when it
is mended.
"""

from __future__ import annotations

from dataclasses import replace

from ckptparse.examination.case import Case, open_case
from ckptparse.examination.survey import survey_path
from ckptparse.files.context import Context
from ckptparse.inventory.folders import Folders

__all__ = ["OtherIndexes"]

_MOST_KEPT = 16 << 20
"""Bytes of the files whose indexes are kept between two uses, in all: these take as many times
their bytes as the checkpoint's own index does."""


class OtherIndexes:
    """Opens other checkpoints; what was opened first is kept for its next use."""

    def __init__(self, context: Context) -> None:
        """Take where they lie, and how much they may ask for."""
        self.context = replace(context, progress=None)
        self._folders = Folders(self.context)
        self._kept: dict[str, Case] = {}
        self._left = _MOST_KEPT

    def open(self, prefix: str) -> Case:
        """Read what lists the tensors of a checkpoint, and close its files; raises as `open_case`.

        It is kept, if all of them are not too large.
        """
        case = self._kept.get(prefix)
        if case is None:
            case = open_case(survey_path(prefix, self.context, self._folders), self.context)
            case.files.close()
            size = sum(self._size_of(index.path) for index in case.survey.indexes)
            if size <= self._left:
                self._left -= size
                self._kept[prefix] = case
        return case

    def take(self, prefix: str) -> Case:
        """Do the same for the last time: it is not kept any longer."""
        case = self.open(prefix)
        self._kept.pop(prefix, None)
        return case

    def _size_of(self, path: str) -> int:
        status = self.context.storage.stat(path)
        return 0 if status is None else status.size
