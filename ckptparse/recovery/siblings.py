"""Use other checkpoints of the same directory as evidence: equal bytes, equal entries."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import compress, islice

import numpy as np
import numpy.typing as npt

from ckptparse.bundle.columns import EntryColumns
from ckptparse.dtypes import item_size
from ckptparse.elements import distinct
from ckptparse.errors import CheckpointNotFoundError, NotACheckpointError, PermissionDeniedError
from ckptparse.examination.check import fits
from ckptparse.examination.index_view import IndexView
from ckptparse.examination.many_spans import checksums_of
from ckptparse.examination.neighbours import is_anothers, nearest
from ckptparse.examination.payload import Form, PartName, Payload
from ckptparse.examination.plain_rows import PlainRows
from ckptparse.examination.readers import DataFile, DataFiles
from ckptparse.filenames import INDEX_SUFFIX, shard_path, split_data_path
from ckptparse.inventory.survey import Origin, Survey
from ckptparse.recovery.other_indexes import OtherIndexes

__all__ = ["Siblings"]

IntColumn = npt.NDArray[np.int64]
_Sum = tuple[Form, int, int]
"""Form, size and checksum of a payload."""
_Kind = tuple[int, bool]
"""DataType and byte order of a payload."""
_MOST_ASKED = 1 << 12
"""Payloads of one checksum that are asked together whether they are whole."""
_MOST_SIBLINGS = 8
"""Other checkpoints that are used, the nearest steps first. A tensor that does not change is in
each of them, so that more add little; the index of each is read."""


class Siblings:
    """The proved entries of sibling checkpoints, read when they are first needed."""

    def __init__(
        self,
        survey: Survey,
        files: DataFiles,
        opener: OtherIndexes,
        *,
        own: IndexView | None = None,
        used: bool,
        others: Iterable[str] = (),
        without: Collection[str] = (),
    ) -> None:
        """Take the files of the checkpoint; nothing is read yet.

        Args:
            survey: The checkpoint.
            files: What opens data files.
            opener: What opens other checkpoints.
            own: The checkpoint's index.
            used: Whether to use those of its directory.
            others: Prefixes of more checkpoints, in any directory.
            without: Prefixes of the directory that are not used.
        """
        self._survey = survey
        self._files = files
        self._opener = opener
        self._own = own
        self._used = used
        self._others = tuple(others)
        self._without = without
        self._loaded = False
        self._saves: list[_Save] = []
        self._equal: dict[tuple[_Sum, _Kind | None], Payload | None] = {}
        self._named: dict[PartName, list[Payload]] = {}
        self._listed: dict[int | None, _Entries] | None = None
        self._written: dict[tuple[str, int | None], bool] = {}
        self._written_whole: dict[str, bool] = {}

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
                one for save in self._saves for one in save.iter_whole(key, kind, self._files)
            )
            self._equal[key, kind] = next(others, None)
        return self._equal[key, kind]

    def named(self, name: PartName, payload: Payload) -> list[Payload]:
        """Return siblings' payloads of that name, dtype, shape and size."""
        self._load()
        if not self._saves:
            return []
        known = self._named.get(name)
        if known is None:
            known = self._named[name] = [one for save in self._saves for one in save.named(name)]
        return [
            other
            for other in known
            if (other.data_type, other.shape) == (payload.data_type, payload.shape)
            and (other.big_endian, other.size) == (payload.big_endian, payload.size)
        ]

    def describes(self, path: str) -> bool:
        """Tell whether a sibling's index says what lies in a data file."""
        self._load()
        return any(path in save.described for save in self._saves)

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

        It may if its own index has all entries of the block, and not those of another one that is
        whole. If damage put another checkpoint's block into an index, this is the only sign.
        """
        if not is_anothers(path, self._survey.prefix, self._files.context):
            return False
        if payload.block is not None and not self._has_written(view, path, payload.block):
            return False
        if path not in self._written_whole:
            whole = self._whole_blocks(view)
            self._written_whole[path] = self._has_written(view, path, *whole)
        return not self._written_whole[path]

    def has_all(self, view: IndexView, path: str) -> bool:
        """Tell whether the checkpoint of a data file has all entries of this index."""
        return self._has_written(view, path, *self._entries_of(view))

    def _entries_of(self, view: IndexView) -> dict[int | None, _Entries]:
        """Return what each block of the index says; under None what damaged ones do."""
        if self._listed is None:
            self._listed = _entries_by_block(view)
        return self._listed

    def _whole_blocks(self, view: IndexView) -> list[int | None]:
        """Return the blocks of the index that are whole; None stands for damaged ones alone."""
        whole: list[int | None] = [at for at in self._entries_of(view) if at is not None]
        return whole or [None]

    def _has_written(self, view: IndexView, path: str, *blocks: int | None) -> bool:
        """Tell whether the checkpoint of a data file has all entries of some blocks of an index."""
        self._load()
        split = split_data_path(path)
        index = "" if split is None else split[0] + INDEX_SUFFIX
        return all(self._has_block(view, index, block) for block in blocks)

    def _has_block(self, view: IndexView, index: str, block: int | None) -> bool:
        """Tell whether a checkpoint has all entries of a block."""
        # A block is asked for with each of its tensors that was found there.
        if (index, block) not in self._written:
            part = self._entries_of(view)[block]
            saves = [save for save in self._saves if save.index == index]
            self._written[index, block] = any(save.has(part) for save in saves)
        return self._written[index, block]

    def _load(self) -> None:
        if self._loaded:
            return
        self._loaded = True
        silent = self._opener.context
        beside = nearest(self._survey, silent, _MOST_SIBLINGS) if self._used else []
        beside = [prefix for prefix in beside if prefix not in self._without]
        for prefix in dict.fromkeys([*beside, *self._others]):
            if prefix == self._survey.prefix:
                continue
            try:
                same = self._opener.has_index(prefix, self._own)
                case = None if same else self._opener.open(prefix)
            except (PermissionDeniedError, NotACheckpointError, CheckpointNotFoundError):
                continue
            if case is None and self._own is not None:
                self._saves.append(self._moved_to(prefix, self._own))
                continue
            if case is None:
                continue
            most = silent.limits.most_small(case.files.held_bytes)
            final = (view for view in case.views if view.origin is Origin.FINAL)
            self._saves += [_Save(view, most) for view in final]

    def _moved_to(self, prefix: str, own: IndexView) -> _Save:
        """Return the entries of a checkpoint with the same index as this one."""
        survey = self._opener.survey(prefix)
        files = DataFiles(self._opener.context)
        files.hold(survey.paths)
        most = self._opener.context.limits.most_small(files.held_bytes)
        is_sure = own.rows is None or not own.rows.chance
        return _Save(own, most, _Moved(prefix, own.num_shards, is_sure=is_sure))


@dataclass(frozen=True, slots=True)
class _Moved:
    """Where a copy of an index lies, and the data files that it names.

    Attributes:
        prefix: Of the copy.
        num_shards: How many data files it states.
        is_sure: Whether its header needs no correction. Without one, the byte order is not known,
            and nothing is proved but what has single bytes.
    """

    prefix: str
    num_shards: int
    is_sure: bool

    @property
    def index(self) -> str:
        """Its path."""
        return self.prefix + INDEX_SUFFIX

    def rows(self, rows: PlainRows) -> PlainRows:
        """Return what the copy says in rows."""
        paths = {shard: shard_path(self.prefix, shard, self.num_shards) for shard in rows.paths}
        return replace(rows, index=self.index, paths=paths, chance=0.0)

    def proved(self, rows: PlainRows, numbers: Mapping[str, int]) -> dict[str, int]:
        """Return which of some rows the copy proves: not those of blocks that were corrected."""
        used = np.fromiter(numbers.values(), np.int64, len(numbers))
        proved = rows.uncorrected(used)
        if not self.is_sure:
            kinds = rows.columns.data_types[used]
            proved &= np.isin(kinds, [kind for kind in distinct(kinds) if item_size(kind) == 1])
        return dict(compress(numbers.items(), proved.tolist()))

    def payload(self, payload: Payload) -> Payload | None:
        """Return a payload of the copy; None of one that it does not prove."""
        if not payload.proved or payload.block is None or payload.patches:
            return None
        if not self.is_sure and item_size(payload.data_type) != 1:
            return None
        file = DataFile(shard_path(self.prefix, payload.shard, self.num_shards))
        return replace(payload, file=file, index=self.index, chance=0.0)


@dataclass(slots=True)
class _Entries:
    """What one block of an index says, or all of it.

    Attributes:
        all_rows: The rows of the index; None if there are none.
        rows: Those of the block, by name.
        parts: Payloads that are no rows.
    """

    all_rows: PlainRows | None
    rows: dict[str, int] = field(default_factory=dict)
    parts: list[tuple[PartName, Payload]] = field(default_factory=list)


def _entries_by_block(view: IndexView) -> dict[int | None, _Entries]:
    """Return what the blocks of an index say, by their offsets."""
    rows, numbers = view.rows, view.plain_rows()
    found: dict[int | None, _Entries] = defaultdict(lambda: _Entries(rows))
    if rows is not None and numbers:
        stops = np.array([block.stop for block in rows.blocks], np.int64)
        used = np.fromiter(numbers.values(), np.int64, len(numbers))
        places = np.searchsorted(stops, used, side="right").tolist()
        for (name, row), place in zip(numbers.items(), places, strict=True):
            found[rows.blocks[place].offset].rows[name] = row
    for one in view.iter_payloads(name for name in view.tensors if name not in numbers):
        found[one[1].block].parts.append(one)
    return found


class _Save:
    """The proved entries of one index; payloads of its rows are made when they are asked for."""

    def __init__(self, view: IndexView, most: int, moved: _Moved | None = None) -> None:
        """Take the first `most` of its tensors; if it is `moved`, of a copy of it."""
        self.index = view.path if moved is None else moved.index
        """Its path."""
        self.described: set[str] = set()
        """The data files of which it says something."""
        self._rows: PlainRows | None = None
        self._numbers: dict[str, int] = {}
        self._by_name: dict[PartName, list[Payload]] = defaultdict(list)
        self._by_checksum: dict[_Sum, list[Payload]] = defaultdict(list)
        names = list(islice(view.tensors, most))
        if view.rows is not None and not view.rows.are_records:
            numbers = view.plain_rows()
            self._numbers = {name: numbers[name] for name in names if name in numbers}
            rows = view.rows if moved is None else moved.rows(view.rows)
            if moved is not None:
                self._numbers = moved.proved(rows, self._numbers)
            if self._numbers:
                self._take_rows(rows)
        others = (name for name in names if name not in self._numbers)
        for name, one in islice(view.iter_payloads(others), most):
            payload = one if moved is None else moved.payload(one)
            if payload is not None and payload.proved:
                self._by_name[name].append(payload)
                self.described.add(payload.file.path)
                if payload.crc32c is not None:
                    key = payload.form, payload.size, payload.crc32c
                    self._by_checksum[key].append(payload)

    def _take_rows(self, rows: PlainRows) -> None:
        """Keep the rows that have a name here; sort them by what their bytes have."""
        used = np.fromiter(self._numbers.values(), np.int64, len(self._numbers))
        stop = int(used.max()) + 1
        if stop < len(rows.columns):
            rows = replace(rows, columns=rows.columns.take(range(stop)))
        columns, self._rows = rows.columns, rows
        self.described |= {rows.paths[shard] for shard in distinct(columns.shard_ids[used])}
        self._sorted = used[np.lexsort((columns.sizes[used], columns.crcs[used]))]
        self._crcs, self._sizes = columns.crcs[self._sorted], columns.sizes[self._sorted]

    def iter_whole(self, key: _Sum, kind: _Kind | None, files: DataFiles) -> Iterator[Payload]:
        """Iterate over the payloads of that form, size, checksum and kind whose bytes are whole."""
        form, size, crc = key
        if self._rows is not None and form is Form.PLAIN:
            # One number is found sooner so than by numpy.
            low, high = bisect_left(self._crcs, crc), bisect_right(self._crcs, crc)
            first = bisect_left(self._sizes, size, low, high)
            rows = self._sorted[first : bisect_right(self._sizes, size, low, high)]
            if kind is not None:
                mine = self._rows.big_endian == kind[1]
                rows = rows[mine & (self._rows.columns.data_types[rows] == kind[0])]
            # One may be enough; of very many that have the same checksum, some are asked together.
            first, count = 0, 1
            while first < len(rows):
                some = rows[first : first + count]
                yield from map(self._rows.payload, some[self._are_whole(some, files)].tolist())
                first, count = first + count, min(8 * count, _MOST_ASKED)
        for one in self._by_checksum.get(key, ()):
            # What costs less is asked first.
            if kind in (None, (one.data_type, one.big_endian)) and fits(files, one):
                yield one

    def _are_whole(self, rows: IntColumn, files: DataFiles) -> npt.NDArray[np.bool_]:
        """Tell which of some rows are whole in the data files of this save."""
        found = np.zeros(len(rows), np.bool_)
        if self._rows is None:
            return found
        columns = self._rows.columns
        shards, offsets, sizes = (
            column[rows] for column in (columns.shard_ids, columns.offsets, columns.sizes)
        )
        for shard in distinct(shards) if len(rows) > 1 else shards.tolist():
            file = DataFile(self._rows.paths[shard])
            held = files.size(file) or 0
            within = (offsets >= 0) & (offsets <= held - sizes)
            mine = np.flatnonzero((shards == shard) & within)
            if len(mine):
                crcs = checksums_of(files, file, offsets[mine], sizes[mine])
                found[mine] = crcs == columns.crcs[rows[mine]]
        return found

    def named(self, name: PartName) -> Sequence[Payload]:
        """Return the payloads of that name."""
        row = None if name.piece is not None else self._numbers.get(name.tensor)
        if row is None or self._rows is None:
            return self._by_name.get(name, ())
        return [self._rows.payload(row)]

    def has(self, entries: _Entries) -> bool:
        """Tell whether this index says all of that, with the same checksums."""
        singles = list(entries.parts)
        if entries.all_rows is not None:
            pairs = []
            for name, row in entries.rows.items():
                other = self._numbers.get(name)
                if other is not None:
                    pairs.append((row, other))
                elif PartName(name) in self._by_name:
                    singles.append((PartName(name), entries.all_rows.payload(row)))
                else:
                    return False
            if not self._has_rows(entries.all_rows.columns, pairs):
                return False
        return all(
            any(
                other.says_the_same(one) and other.crc32c == one.crc32c
                for other in self.named(name)
            )
            for name, one in singles
        )

    def _has_rows(self, columns: EntryColumns, pairs: Sequence[tuple[int, int]]) -> bool:
        """Tell whether rows of another index say what rows of this one say; see `says_the_same`."""
        if self._rows is None or not pairs:
            return not pairs
        mine, theirs = self._rows.columns, columns
        other, own = np.array(pairs, np.int64).T
        return all(
            bool((ours[own] == given[other]).all())
            for ours, given in (
                (mine.crcs, theirs.crcs),
                (mine.sizes, theirs.sizes),
                (mine.offsets, theirs.offsets),
                (mine.shard_ids, theirs.shard_ids),
                (mine.data_types, theirs.data_types),
            )
        ) and all(mine.shapes[here] == theirs.shapes[there] for there, here in pairs)
