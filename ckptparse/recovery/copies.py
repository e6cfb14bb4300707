"""Where copies of a payload lie: at its place in other data files, whole there or not.

A copy that is not whole is offered only if it is of the same save: the index that belongs to it
states the same checksum; or it has none, and at least half of the other tensors of the data file
are whole there, at their places.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import TypeVar

from ckptparse.examination.case import Case
from ckptparse.examination.check import fits
from ckptparse.examination.payload import Form, PartName, Payload
from ckptparse.examination.places import is_telling
from ckptparse.examination.readers import DataFile, DataFiles
from ckptparse.filenames import split_data_path
from ckptparse.recovery.siblings import Siblings

__all__ = ["Copied", "Copies"]

Item = TypeVar("Item")

_MOST_ASKED = 64
"""Payloads of a data file that are looked for in a copy of it, spread over the file."""
_MOST_COPIES = 8
"""Copies of a payload that are weighed: each is judged as a whole."""


@dataclass(frozen=True, slots=True)
class Copied:
    """A payload's place in a copy of its data file."""

    payload: Payload
    reason: str
    """What says that the copy is of the same save, in a few words."""


class Copies:
    """Finds copies of payloads, and tells which are of the same save."""

    def __init__(
        self, case: Case, siblings: Siblings, data_files: Sequence[tuple[str, int, int]]
    ) -> None:
        """Take what there is; files are read when they are first needed.

        Args:
            case: The checkpoint.
            siblings: Other checkpoints; some may be copies.
            data_files: Of data files that may be copies: path, shard, number of shards.
        """
        self._case = case
        self._files: DataFiles = case.files
        self._siblings = siblings
        self._paths: dict[tuple[int, int], list[str]] = {}
        for path, *place in data_files:
            self._paths.setdefault((place[0], place[1]), []).append(path)
        self._asked: dict[DataFile, list[Payload]] = {}
        self._reasons: dict[tuple[DataFile, DataFile], str | None] = {}

    @property
    def size(self) -> int:
        """How many bytes the data files have that may be copies."""
        storage = self._files.context.storage
        found = map(storage.stat, chain.from_iterable(self._paths.values()))
        return sum(one.size for one in found if one is not None)

    def of(self, name: PartName, payload: Payload) -> Iterator[Payload]:
        """Iterate over where copies of a payload should be; nothing says that they are copies."""
        seen = {payload.file}
        for other in self._stated(name, payload):
            if other.file not in seen:
                seen.add(other.file)
                yield other
        yield from self._beside(payload, seen)

    def of_same_save(self, name: PartName, payload: Payload) -> Iterator[Copied]:
        """Iterate over the first copies that are of the same save."""
        if payload.form is not Form.RECORD and payload.crc32c is not None:
            yield from islice(self._iter_same(name, payload), _MOST_COPIES)

    def _iter_same(self, name: PartName, payload: Payload) -> Iterator[Copied]:
        seen = {payload.file}
        for other in self._siblings.named(name, payload):
            if other.file not in seen:
                # If its index states another checksum, it is a save of another step.
                seen.add(other.file)
                if other.crc32c == payload.crc32c:
                    yield Copied(other, "the index there states the same checksum of it")
        for copy in self._beside(payload, seen):
            if self._siblings.describes(copy.file.path):
                # What its own index says of it was asked for, and says something else.
                continue
            reason = self._reason(payload.file, copy.file)
            if reason is not None:
                yield Copied(copy, reason)

    def _stated(self, name: PartName, payload: Payload) -> Iterator[Payload]:
        """Iterate over the places that other indexes state with the same checksum."""
        for other in self._siblings.named(name, payload):
            if other.crc32c == payload.crc32c:
                yield other

    def _beside(self, payload: Payload, seen: set[DataFile]) -> Iterator[Payload]:
        """Iterate over its place in other files that have the name of such a data file."""
        split = split_data_path(payload.file.path) if self._paths else None
        for path in () if split is None else self._paths.get(split[1:], ()):
            file = DataFile(path)
            if file not in seen and (self._files.size(file) or 0) > payload.offset:
                seen.add(file)
                yield payload.moved(file)

    def _reason(self, file: DataFile, copy: DataFile) -> str | None:
        """Say what tells that a file is a copy of another; None if too little does."""
        if (file, copy) not in self._reasons:
            tried = [fits(self._files, one.moved(copy)) for one in self._asked_in(file, copy)]
            whole = sum(tried)
            # A save of another step has at most what training did not change.
            known = f"{whole} of {len(tried)} tensors that were tried are whole there"
            self._reasons[file, copy] = known if whole and 2 * whole >= len(tried) else None
        return self._reasons[file, copy]

    def _asked_in(self, file: DataFile, copy: DataFile) -> Iterator[Payload]:
        """Iterate over payloads to look for in a copy, of no more bytes together than it has."""
        left = size = self._files.size(copy) or 0
        for one in self._payloads_of(file):
            if one.end <= size and one.size <= left:
                left -= one.size
                yield one

    def _payloads_of(self, file: DataFile) -> list[Payload]:
        """Return some payloads of a file that hardly another has."""
        if file not in self._asked:
            self._asked[file] = _spread([one for one in self._some_of(file) if is_telling(one)])
        return self._asked[file]

    def _some_of(self, file: DataFile) -> list[Payload]:
        """Return the payloads of a file that are objects, and some of those that are rows."""
        found = [payload for _, payload in self._case.checked_in(file)]
        sound, failed = self._case.sound, self._case.failed
        if file.undo is None and sound is not None:
            found += map(sound.plain.payload, _spread(sound.rows_of(file.path).tolist()))
        if file.undo is None and failed is not None:
            found += map(failed.payload, _spread(failed.of_path(file.path).tolist()))
        return sorted(found, key=lambda one: one.offset)


def _spread(items: list[Item]) -> list[Item]:
    """Return at most so many of some items as are asked for."""
    return items[:: max(1, -(-len(items) // _MOST_ASKED))]
