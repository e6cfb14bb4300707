"""Find every checkpoint in an image whose index is there, and how much of its data is there.

    1  tables, by their footers                          as fast as the image is read
    2  what each index says of its data files
    3  payloads of all of them, on the grid of blocks    one pass, or a few
    4  payloads beside and between those found

Each step writes its result to the state file, so that an interrupted scan can go on from there. The
files of a directory (`lost+found`, or files that a rescue program saved) are scanned as if they
were one image, in which each begins with a new block.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np

from ckptparse.crc.inversion import derive_integer, integer_is_proved, is_counter
from ckptparse.dtypes import DataType
from ckptparse.errors import CheckpointError, CheckpointNotFoundError
from ckptparse.examination.checking import open_case
from ckptparse.examination.index_view import IndexView
from ckptparse.examination.inputs import HashedFile
from ckptparse.examination.payload import Form
from ckptparse.filenames import INDEX_SUFFIX, shard_path
from ckptparse.files.context import Cache, Context, Progress, Store, begin
from ckptparse.files.noted import NotedStorage
from ckptparse.files.placing import place_file
from ckptparse.files.storage import Source, Storage
from ckptparse.files.views import JoinedSource, Range, ReopenedSource, ViewStorage
from ckptparse.files.walking import MOST_FOLDERS, Walk
from ckptparse.inventory.folders import Folders
from ckptparse.inventory.nearby import hint_of_place
from ckptparse.inventory.survey import IndexFile, LegacyFile, Survey
from ckptparse.limits import DEFAULT_LIMITS, Budget, Limits
from ckptparse.parallel import stream_crc
from ckptparse.problems import Problem
from ckptparse.recovery.asked import describe_scan
from ckptparse.recovery.evidence.bounds import Note, ignore
from ckptparse.recovery.imaging import extents
from ckptparse.recovery.imaging.binding import identify_image
from ckptparse.recovery.imaging.mapfile import Mapfile, read_map_input
from ckptparse.recovery.imaging.one_save import are_tied
from ckptparse.recovery.imaging.scan_state import Pass, ScanState
from ckptparse.recovery.imaging.scanned import Read, Scan, ScannedCheckpoint
from ckptparse.recovery.imaging.stretches import Stretches
from ckptparse.recovery.imaging.table_parts import Located, locate_tables
from ckptparse.recovery.imaging.tables import (
    SMALLEST_BLOCK,
    find_block_size,
    iter_tables,
    read_block_size,
)
from ckptparse.text import count

__all__ = ["scan", "scan_image"]

_STEP = 1 << 28
"""Bytes of an image between two writes of the state: an interrupted scan loses a second or two."""
_SPARE = 1 << 16
"""Bytes of tables that are looked at beyond those of the image."""
_FEW_TABLES, _TABLE_BYTES = 1024, 1 << 13
"""Footers of an image that are looked at, and one more for each so many bytes: 0.3 ms each."""
_FEW_INDEXES, _INDEX_BYTES = 256, 1 << 14
"""Indexes of it that are read, likewise: a millisecond or two each. On a disk an index and its data
take a block each, and most checkpoints take more."""
_FEW_SHARDS, _SHARD_BYTES = 1 << 16, 1 << 10
"""Data files that all of these may state, likewise: an index states a million in a few bytes."""
_FEW_TENSORS, _TENSOR_BYTES = 10_000, 1 << 9
"""Tensors that all of these may list, likewise: 30 to 60 µs each."""
_LISTED_BYTES = 2000
"""What a tensor takes that an index in the image lists, measured: 1.7 kB."""
_COMPARED_TIMES = 2
"""Times the image's size: so many bytes of tables with equal ends are compared."""
_BLOCK = 4096
"""In a scanned directory each file begins at a multiple of this, the usual size of blocks."""
_MOST_FILES = 10_000
"""Files of a scanned directory that are looked at: each is opened for every pass."""
_MOST_OBJECTS = 1_000
"""The same if each takes a request for every pass."""


def open_image(storage: Storage, path: str, note: Note = ignore) -> Source:
    """Open a file; or the files of a directory as one, in which each begins with a new block.

    Args:
        storage: Where it is.
        path: The file or directory.
        note: Is told if the directory has more files, or directories, than are looked at.

    Raises:
        CheckpointNotFoundError: Nothing is there.
    """
    status = storage.stat(path)
    if status is not None and status.kind == "directory":
        ranges: list[Range] = []
        walk = Walk(storage)
        files = walk.iter_files(path, status, files_first=True)
        most = _MOST_FILES
        for number, (file, size) in enumerate(files):
            if not number and _is_remote(storage, file):
                most = min(most, _MOST_OBJECTS)
            if number == most:
                note(f"{count(most, 'file')} were looked at")
                break
            source = ReopenedSource(storage, file, size)
            ranges += [Range(source, 0, source.size), Range(None, 0, -source.size % _BLOCK)]
        else:
            if walk.is_cut:
                note(f"{MOST_FOLDERS:,} directories were looked at")
        return JoinedSource(path, ranges)
    return storage.open(path)


def _is_remote(storage: Storage, path: str) -> bool:
    """Tell whether a file is one of those that are better read by several requests at a time."""
    try:
        with closing(storage.open(path)) as source:
            return (source.concurrency or 0) > 1
    except CheckpointError:
        return False


_Listed = tuple[Located, IndexView | None, list[extents.DataFile]]
"""A table that is a checkpoint; what it lists, if it is an index; its data files."""


class _Seen:
    """The tables that were seen already."""

    def __init__(self, image: Source) -> None:
        self._image = image
        self._left = _SPARE + _COMPARED_TIMES * image.size
        self._first: dict[tuple[int, bytes], Located] = {}
        self._sums: dict[tuple[int, bytes], set[int]] = {}

    def has_copy(self, table: Located) -> bool:
        """Tell whether a copy of a table was seen; else it has been seen from now on."""
        source = table.joined(self._image)
        last = min(_BLOCK, source.size)
        key = source.size, source.read_at(source.size - last, last)
        first = self._first.setdefault(key, table)
        if first is table:
            return False
        # Saves of one model may have the same list of blocks, and another block.
        sums = self._sums.setdefault(key, set())
        self._left -= source.size * (1 if sums else 2)
        if self._left < 0:
            return True
        for one in (table,) if sums else (first, table):
            before = len(sums)
            sums.add(stream_crc(one.joined(self._image).read_at, 0, source.size))
        return len(sums) == before


class _Scanner:
    """One scan."""

    def __init__(
        self,
        path: str,
        mapfile: Mapfile | None,
        state: tuple[str, Context] | None,
        context: Context,
        *,
        asked: Mapping[str, Any],
        maps: tuple[HashedFile, ...],
    ) -> None:
        self.path = path
        self.mapfile = mapfile
        self.state_file = state
        noted = NotedStorage(context.storage)
        self.context = replace(context, storage=noted)
        left_out: list[str] = []
        self.image = open_image(noted, path, left_out.append)
        self.read = Read(noted, asked, maps, tuple(_warning(path, what) for what in left_out))
        self.block = find_block_size(self.image)
        self.state = self._load()
        self.total = 2 * self.image.size
        self.done = 0
        self.skipped = 0

    def run(self) -> Scan:
        self._find_tables()
        starts = [table.start for table in self.state.tables if table.kind != "damaged"]
        self.block = find_block_size(self.image, starts)
        stated = read_block_size(self.image) is not None
        limits = self.context.limits
        self.located = locate_tables(
            self.image, self.state.tables, self.block, stated=stated, limits=limits
        )
        listed = list(self._iter_listed())
        checkpoints = self._put_together(listed, self.state.coarse)
        if not stated and _lack_any(checkpoints, listed):
            # Few files may all begin at multiples of a larger size by chance.
            guess, self.block = self.block, SMALLEST_BLOCK
            finer = [] if guess == SMALLEST_BLOCK else self._put_together(listed, self.state.fine)
            if sum(one.found for one in finer) > sum(one.found for one in checkpoints):
                checkpoints = finer
            else:
                self.block = guess
        checkpoints.sort(key=lambda one: (-one.share, -(one.step or 0), one.offset))
        self._watch(self.total - self.done)
        size, block = self.image.size, self.block
        problems = self.read.problems
        return Scan(self.path, size, block, tuple(checkpoints), self.skipped, problems)

    def _put_together(self, listed: Sequence[_Listed], known: Pass) -> list[ScannedCheckpoint]:
        """Find tensors at the multiples of the block's size, and put checkpoints together."""
        self.stretches = Stretches(self.image, self.block)
        self._find_payloads([file for _, _, shards in listed for file in shards], known)
        found: dict[int, list[extents.Placement]] = defaultdict(list)
        for number, placement in known.placements:
            found[number].append(placement)
        checkpoints: list[ScannedCheckpoint] = []
        number = 0
        for table, view, shards in listed:
            proved = [self._complete(file, found[number + n]) for n, file in enumerate(shards)]
            number += len(shards)
            tied = view is not None and are_tied(view, shards, proved)
            made = self._make(len(checkpoints), table, view, shards, proved, tied=tied)
            checkpoints.append(made)
        return checkpoints

    def _find_tables(self) -> None:
        state = self.state
        self._watch(state.searched)
        most = _FEW_TABLES + self.image.size // _TABLE_BYTES
        while state.searched < self.image.size:
            stop = min(self.image.size, state.searched + _STEP)
            limits = self.context.limits
            found = iter_tables(self.image, state.searched, stop, limits=limits)
            state.tables += islice(found, max(0, most + 1 - len(state.tables)))
            if len(state.tables) > most:
                stop = self.image.size
            self._watch(stop - state.searched)
            state.searched = stop
            self._save()
        if len(state.tables) > most:
            # Nobody looked how many there are.
            self.skipped += 1
            del state.tables[most:]

    def _iter_listed(
        self,
    ) -> Iterator[_Listed]:
        """Iterate over the tables that are checkpoints, each once, with their data files."""
        seen = _Seen(self.image)
        budget = Budget(self.context.limits, self.image.size)
        left = whole = _SPARE + self.image.size
        indexes = _FEW_INDEXES + self.image.size // _INDEX_BYTES
        shards = _FEW_SHARDS + self.image.size // _SHARD_BYTES
        tensors = _FEW_TENSORS + self.image.size // _TENSOR_BYTES
        for table in self.located:
            if seen.has_copy(table):
                continue
            indexes -= 1
            if indexes < 0:
                self.skipped += 1
                continue
            if table.kind == "v1":
                yield table, None, []
                continue
            # Tables that were written do not overlap; those that a stranger made may. To look at a
            # damaged one takes twice as long; the first may be all that there is.
            cost = table.size * (2 if table.kind == "damaged" else 1)
            if cost > left and left < whole:
                self.skipped += 1
                continue
            left -= cost
            # Whether its blocks are of one save, its data may show.
            survey, context = self._survey("checkpoint", table, [], tied=True)
            case = open_case(survey, context)
            case.files.close()
            view = case.main
            self.skipped += view is not None and view.is_limited and not view.tensors
            if view is not None and view.tensors:
                shards -= view.num_shards
                tensors -= len(view.tensors)
                if shards < 0 or tensors < 0:
                    self.skipped += 1
                    continue
                budget.take(_LISTED_BYTES * len(view.tensors))
                yield table, view, _data_files(view)

    def _find_payloads(self, files: Sequence[extents.DataFile], known: Pass) -> None:
        start = known.segments * extents.SEGMENT
        segments = extents.find_anchors(
            self.image, files, self.block, start=start, watch=self._watch
        )
        for found in segments:
            known.placements += found
            known.segments += 1
            self._save()

    def _complete(
        self, file: extents.DataFile, anchors: Iterable[extents.Placement]
    ) -> list[extents.Placement]:
        return extents.complete(self.image, file, anchors, self.block, self.stretches)

    def _join(self, file: extents.DataFile, proved: Sequence[extents.Placement]) -> extents.Joined:
        joined = extents.join(self.path, self.image, file, proved, self.stretches)
        return extents.Joined.of(joined, self.mapfile)

    def _make(
        self,
        number: int,
        table: Located,
        view: IndexView | None,
        shards: Sequence[extents.DataFile],
        proved: Sequence[Sequence[extents.Placement]],
        *,
        tied: bool,
    ) -> ScannedCheckpoint:
        step = None if view is None else _step_of(view, frozenset() if tied else view.untied)
        name = f"checkpoint-{number + 1}" if step is None else f"ckpt-{step}"
        joined = [self._join(file, those) for file, those in zip(shards, proved, strict=True)]
        survey, context = self._survey(name, table, joined, tied=tied)
        return ScannedCheckpoint(
            name,
            survey.format,
            table.start,
            step,
            0 if view is None else len(view.tensors),
            table.size if view is None else sum(file.size for file in shards),
            table.found if view is None else sum(map(extents.count_covered, proved)),
            survey,
            context,
            self.read,
        )

    def _survey(
        self, name: str, table: Located, joined: Sequence[extents.Joined], *, tied: bool
    ) -> tuple[Survey, Context]:
        """Return the files of a checkpoint in the image, as files of a storage.

        Args:
            name: Its name.
            table: Its index, or V1 file.
            joined: Its data files.
            tied: Whether all blocks of the index are of one save.
        """
        storage = self.context.storage
        prefix = storage.join(self.path, name)
        files: dict[str, Callable[[Source], Source]] = {}
        laid = self._laid(table)
        if table.kind == "v1":
            files[prefix] = table.joined
            file = LegacyFile(prefix, laid=laid, untied=table.untied)
            survey = Survey("v1", prefix, self.path, legacy_files=(file,))
        else:
            files[prefix + INDEX_SUFFIX] = table.joined
            paths = {
                (shard, len(joined)): shard_path(prefix, shard, len(joined))
                for shard in range(len(joined))
            }
            files.update(zip(paths.values(), joined, strict=True))
            index = IndexFile(prefix + INDEX_SUFFIX, laid=laid, untied=table.untied, tied=tied)
            survey = Survey("v2", prefix, self.path, (index,), paths)
        inside = ViewStorage(storage, self.path, files, opener=open_image)
        return survey, replace(self.context, storage=inside, progress=None)

    def _laid(self, table: Located) -> int | None:
        """Return the size of the blocks in which a table lies; None if one file holds all of it."""
        (start, size), *others = table.joined.ranges
        if not others and start >= 0:
            if size == self.image.size:
                return None
            if isinstance(self.image, JoinedSource) and len(self.image.places(start, size)) == 1:
                return None
        return table.block

    def _load(self) -> ScanState:
        size = self.image.size
        if self.state_file is None:
            return ScanState(size)
        path, context = self.state_file
        fresh = ScanState(size, identify_image(self.image, self.context.storage, self.path))
        if context.storage.stat(path) is None:
            return fresh
        data = context.read_whole(path, "message_bytes", "The size of the state file")
        return ScanState.from_json(data, fresh, path, context.limits)

    def _save(self) -> None:
        if self.state_file is not None:
            with place_file(self.state_file[0], overwrite=True) as stream:
                stream.write(self.state.to_json())

    def _watch(self, count: int) -> None:
        if self.context.progress is not None and count:
            self.done = min(self.total, self.done + count)
            self.context.progress(self.done, self.total)


def scan(
    path: str | os.PathLike[str],
    *,
    mapfile: str | os.PathLike[str] | None = None,
    state: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
    store: Store = None,
    cache: Cache = None,
    limits: Limits = DEFAULT_LIMITS,
) -> Scan:
    """Find the checkpoints inside an image of a disk, or any file, and put them together.

    Indexes and V1 files are found by their footers, and put together by the checksums of their
    blocks. Tensors are found by the checksums in the indexes. All may lie in several parts.

    Args:
        path: The image; or a directory, whose files are scanned as one image (`lost+found`, files
            that a rescue program saved): 10,000 files at most, in as many directories.
        mapfile: The map file of ddrescue that belongs to the image.
        state: A file of this machine that keeps what was found so far, so that an interrupted scan
            can go on from there. It is written many times. It is refused once the image has
            changed, as by a ddrescue that goes on.
        progress: Called from time to time with the work done so far and the work to do, in bytes.
        store: Where the image and the map file are, as for `ckptparse.open`.
        cache: As for `open`.
        limits: Bounds on what the image may ask for.

    Returns:
        The checkpoints, the most complete first: `scan(path)[0].recover()` gives its tensors.

    Raises:
        CheckpointNotFoundError: There is no such file or directory.
        MalformedError: `mapfile` is no map file; `state` is no state file of this image.
        LimitError: The indexes inside list more tensors than `Limits.memory_bytes` allows.
    """
    place, context = begin(
        path, store=store, cache=cache, limits=limits, progress=progress, choose=False
    )
    known: Mapfile | None = None
    maps: tuple[HashedFile, ...] = ()
    if mapfile is not None:
        known, maps = read_map_input(
            *begin(mapfile, store=store, cache=cache, limits=limits), hashes=False
        )
    asked = describe_scan(place, mapfile=mapfile, limits=limits)
    resumed = None if state is None else begin(state, limits=limits)
    return scan_image(place, context, known, resumed, asked=asked, maps=maps)


def scan_image(
    path: str,
    context: Context,
    mapfile: Mapfile | None = None,
    state: tuple[str, Context] | None = None,
    *,
    asked: Mapping[str, Any] | None = None,
    maps: tuple[HashedFile, ...] = (),
) -> Scan:
    """Scan an image; raises as `scan` does.

    Args:
        path, context: The image.
        mapfile: What was not read of it.
        state: The state file.
        asked: The arguments of `scan`, for reports.
        maps: The map file as an input, for reports.
    """
    if context.storage.stat(path) is None:
        hint = hint_of_place(path, Folders(context))
        raise CheckpointNotFoundError("No such file or directory", path=path, hint=hint)
    scanner = _Scanner(path, mapfile, state, context, asked=asked or {}, maps=maps)
    with closing(scanner.image):
        return scanner.run()


def _warning(path: str, what: str) -> Problem:
    message = f"not all of this directory was scanned: {what} (scan those below it one by one)"
    return Problem.of("scan.unsearched", path, message)


def _lack_any(checkpoints: Sequence[ScannedCheckpoint], listed: Sequence[_Listed]) -> bool:
    """Tell whether any tensor was not found that has a checksum by which it can be."""
    sought = sum(piece.size for _, _, files in listed for file in files for piece in file.pieces)
    return sum(one.found for one in checkpoints if one.format == "v2") < sought


def _data_files(view: IndexView) -> list[extents.DataFile]:
    """Return the data files that an index describes."""
    pieces: dict[int, list[extents.Piece]] = defaultdict(list)
    sizes: dict[int, int] = defaultdict(int)
    rows = view.plain_rows()
    for kind, shard, offset, size, crc in _iter_rows(view, rows):
        sizes[shard] = max(sizes[shard], offset + size)
        if size and kind not in (DataType.DT_STRING, DataType.DT_VARIANT):
            pieces[shard].append(extents.Piece(offset, size, crc, kind))
    others = [name for name in view.tensors if name not in rows]
    for _, payload in view.iter_payloads(others):
        sizes[payload.shard] = max(sizes[payload.shard], payload.end)
        if payload.form is Form.PLAIN and payload.size and payload.crc32c is not None:
            piece = extents.Piece(payload.offset, payload.size, payload.crc32c, payload.data_type)
            pieces[payload.shard].append(piece)
    return [
        extents.DataFile(sizes[shard], tuple(sorted(pieces[shard])))
        for shard in range(max(view.num_shards, 1))
    ]


def _iter_rows(view: IndexView, rows: Mapping[str, int]) -> Iterator[tuple[int, ...]]:
    """Iterate over rows: type, data file, offset, size and checksum of each."""
    if view.rows is None:
        return iter(())
    columns = view.rows.columns
    numbers = np.fromiter(rows.values(), np.intp, len(rows))
    wanted = columns.data_types, columns.shard_ids, columns.offsets, columns.sizes, columns.crcs
    return zip(*(column[numbers].tolist() for column in wanted), strict=True)


def _step_of(view: IndexView, doubted: Collection[int]) -> int | None:
    """Return the step, from the checksum of a counter; None if it is not sure.

    Args:
        view: What the index says.
        doubted: Where blocks of it begin that may be of another save.
    """
    for name in filter(is_counter, view.tensors):
        payload = view.tensors[name].payload
        if payload is None or payload.block in doubted:
            continue
        if (payload.data_type, payload.shape) != (DataType.DT_INT64, ()):
            continue
        value, _ = derive_integer(payload.crc32c or 0)
        if payload.crc32c and integer_is_proved(value):
            return value
    return None
