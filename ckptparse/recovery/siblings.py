"""Use other checkpoints of the same directory as evidence: equal bytes, equal entries."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import replace
from itertools import islice

from ckptparse.errors import CheckpointNotFoundError, NotACheckpointError, PermissionDeniedError
from ckptparse.examination.case import open_case
from ckptparse.examination.check import fits
from ckptparse.examination.index_view import IndexView
from ckptparse.examination.neighbours import is_anothers, nearest
from ckptparse.examination.payload import Form, PartName, Payload
from ckptparse.examination.readers import DataFiles
from ckptparse.examination.survey import survey_path
from ckptparse.filenames import INDEX_SUFFIX, split_data_path
from ckptparse.inventory.folders import Folders
from ckptparse.inventory.survey import Origin, Survey

__all__ = ["Siblings"]

_Sum = tuple[Form, int, int]
"""Form, size and checksum of a payload."""
_MOST_SIBLINGS = 8
"""Other checkpoints that are used, the nearest steps first. A tensor that does not change is in
each of them, so that more add little; the index of each is read."""


class Siblings:
    """The proved entries of sibling checkpoints, read when they are first needed."""

    def __init__(
        self,
        survey: Survey,
        files: DataFiles,
        *,
        used: bool,
        others: Iterable[str] = (),
        without: Collection[str] = (),
    ) -> None:
        """Take the files of the checkpoint; nothing is read yet.

        Args:
            survey: The checkpoint.
            files: What opens data files.
            used: Whether to use those of its directory.
            others: Prefixes of more checkpoints, in any directory.
            without: Prefixes of the directory that are not used.
        """
        self._survey = survey
        self._files = files
        self._used = used
        self._others = tuple(others)
        self._without = without
        self._loaded = False
        self._by_checksum: dict[_Sum, list[Payload]] = defaultdict(list)
        self._equal: dict[tuple[_Sum, tuple[int, bool] | None], Payload | None] = {}
        self._by_name: dict[PartName, list[Payload]] = defaultdict(list)
        self._described: set[str] = set()

    def find_equal(self, payload: Payload) -> Payload | None:
        """Return a sibling's payload of the same kind, size and checksum whose bytes are whole."""
        self._load()
        if payload.crc32c is None:
            return None
        key = payload.form, payload.size, payload.crc32c
        kind = (payload.data_type, payload.big_endian) if payload.form is not Form.RECORD else None
        # The checksums of a hostile file are all the same: of many payloads the answer is one.
        if (key, kind) not in self._equal:
            others = (
                one
                for one in self._by_checksum.get(key, ())
                if kind in (None, (one.data_type, one.big_endian)) and fits(self._files, one)
            )
            self._equal[key, kind] = next(others, None)
        return self._equal[key, kind]

    def named(self, name: PartName, payload: Payload) -> list[Payload]:
        """Return siblings' payloads of that name, dtype, shape and size."""
        self._load()
        return [
            other
            for other in self._by_name.get(name, ())
            if (other.data_type, other.shape) == (payload.data_type, payload.shape)
            and (other.big_endian, other.size) == (payload.big_endian, payload.size)
        ]

    def describes(self, path: str) -> bool:
        """Tell whether a sibling's index says what lies in a data file."""
        self._load()
        return path in self._described

    def index_of(self, path: str) -> str | None:
        """Return the index of a sibling's data file; None if it is no sibling's."""
        split = split_data_path(path)
        return None if split is None or not self.describes(path) else split[0] + INDEX_SUFFIX

    def confirm(self, name: PartName, payload: Payload) -> str | None:
        """Return a sibling's index that has this entry with any checksum; None if none has it."""
        for other in self.named(name, payload):
            if other.says_the_same(payload):
                return other.index
        return None

    def may_have_written(self, view: IndexView, payload: Payload, path: str) -> bool:
        """Tell whether the checkpoint of a data file may have written a block of this index.

        It may if its own index has all entries of the block. If damage put another checkpoint's
        block into an index, this is the only sign.
        """
        if not is_anothers(path, self._survey.prefix, self._files.context):
            return False
        if payload.block is None:
            return True
        return self._has_written(view, path, payload.block)

    def has_all(self, view: IndexView, path: str) -> bool:
        """Tell whether the checkpoint of a data file has all entries of this index."""
        return self._has_written(view, path, None)

    def _has_written(self, view: IndexView, path: str, block: int | None) -> bool:
        """Tell whether the checkpoint of a data file has all entries of an index, or of a block."""
        self._load()
        entries = [one for one in view.iter_payloads() if block in (None, one[1].block)]
        return all(
            any(
                other.says_the_same(found)
                and other.crc32c == found.crc32c
                and _is_of(other.index, path)
                for other in self._by_name.get(name, ())
            )
            for name, found in entries
        )

    def _load(self) -> None:
        if self._loaded:
            return
        self._loaded = True
        silent = replace(self._files.context, progress=None)
        beside = nearest(self._survey, silent, _MOST_SIBLINGS) if self._used else []
        beside = [prefix for prefix in beside if prefix not in self._without]
        folders = Folders(silent)
        for prefix in dict.fromkeys([*beside, *self._others]):
            if prefix == self._survey.prefix:
                continue
            try:
                case = open_case(survey_path(prefix, silent, folders), silent)
            except (PermissionDeniedError, NotACheckpointError, CheckpointNotFoundError):
                continue
            most = silent.limits.most_small(case.files.held_bytes)
            case.files.close()
            for view in case.views:
                if view.origin is Origin.FINAL:
                    for name, payload in islice(view.iter_payloads(), most):
                        self._add(name, payload)

    def _add(self, name: PartName, payload: Payload) -> None:
        if not payload.proved:
            return
        if payload.crc32c is not None:
            self._by_checksum[payload.form, payload.size, payload.crc32c].append(payload)
        self._by_name[name].append(payload)
        self._described.add(payload.file.path)


def _is_of(index: str, path: str) -> bool:
    """Tell whether an index and a data file have the same prefix."""
    split = split_data_path(path)
    return split is not None and split[0] + INDEX_SUFFIX == index
