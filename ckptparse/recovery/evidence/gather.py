"""The files that the caller names as evidence. Their content tells what kind they are."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import cached_property
from typing import NamedTuple

from ckptparse.crc.flips import HIGHEST_CHANCE
from ckptparse.crc.windows import Wanted
from ckptparse.errors import CheckpointError, CheckpointNotFoundError
from ckptparse.examination.readers import DataFile
from ckptparse.examination.survey import identity_of
from ckptparse.filenames import INDEX_SUFFIX, belongs_to, split_data_path
from ckptparse.files.context import Context
from ckptparse.files.storage import Source
from ckptparse.files.walking import MOST_FOLDERS, Walk
from ckptparse.graph.graph import Graph
from ckptparse.identification import Indexes
from ckptparse.inventory.folders import Folders
from ckptparse.inventory.nearby import hint_of_place
from ckptparse.limits import Limits
from ckptparse.recovery.evidence.axes import TensorForm, Turned, TurnedFile
from ckptparse.recovery.evidence.bounds import Bounds
from ckptparse.recovery.evidence.containers import iter_parts
from ckptparse.recovery.evidence.datasets import DatasetSource
from ckptparse.recovery.evidence.fitting import Allowance
from ckptparse.recovery.evidence.graphs import iter_graphs
from ckptparse.recovery.evidence.members import Listings, Member
from ckptparse.recovery.evidence.names import Names
from ckptparse.recovery.evidence.payloads import (
    SMALLEST,
    Match,
    Sought,
    find_anywhere,
    find_payloads,
)
from ckptparse.recovery.evidence.sought import Runs
from ckptparse.recovery.evidence.together import find_together
from ckptparse.recovery.workers import CALLER, Workers
from ckptparse.text import count

__all__ = ["Evidence", "Found"]

_MOST_FILES = 10_000
_FREE_FILES = 1_000
_BYTES_A_FILE = 1 << 12
"""Files in directories that are looked at, in all; of small ones 1,000, and one for each 4 KiB of
the files before: each takes half a millisecond. Those beyond are left out."""
_NPY = 4
"""How many `.npy` files count as one: each holds one array. Of those that hold something else, 256
are looked at."""
_SUFFIX = ".npy"
_MOST_MISNAMED = 256
_MOST_COPIES = 8
"""Indexes that may be copies of the checkpoint's own: a block that is damaged is read in each."""
_FREE_CHECKPOINTS = 64
_BYTES_A_CHECKPOINT = 1 << 18
"""Checkpoints in directories whose indexes are read: 64, and one for each 256 KiB of the files. Of
small ones each takes some 30 ms, and those of one model tell the same."""
_GRAPHS = ("meta-graph", "graph", "saved-model-pb", "saved-model-pbtxt", "tfrecord")


_UNKNOWN = frozenset({"unknown", "pytorch-pickle", "gzip", "zstd", "zip", "tar"})
"""Kinds of files of which no structure says where in them, or in what they packed, runs may be."""
_ALONE = 3 / 4
"""Share of the chance that is left, for runs that are found alone; those that lie together take
half. It is `HIGHEST_CHANCE` for all files and runs: each position and run adds 1 in 2^32."""

_KEPT, _MOST_KEPT = 1 << 12, 1 << 25
"""Bytes of a packed dataset that are kept, and of all together: to read it again takes a
millisecond."""
_FREE_PARTS = 100
_BYTES_A_PART = 1 << 16
"""Members of archives that are searched anywhere, in all, and for how many bytes of the archives
there may be one more: each takes 2 ms, however small it is."""
_HEAD = 1 << 12
_PRINTABLE = bytes(range(32, 127)) + b"\t\r\n"
"""Bytes at the start of a member, and those of text: a member that begins so holds no tensors."""


class Found(NamedTuple):
    """Where a run of bytes is in a file of the evidence."""

    file: DataFile
    offset: int
    chance: float
    """Chance that these are other bytes."""
    turned: Turned | None
    """How the axes of the tensor lie there, if they do so in another order."""
    name: str | None
    """What the run is called there, if that told that it is this one."""


class _Anywhere:
    """Finds runs anywhere in files, so few alone that they are hardly ever others."""

    def __init__(
        self,
        list_runs: Callable[[], Sequence[Runs]],
        limits: Limits,
        workers: Workers,
        bounds: Bounds,
    ) -> None:
        self._bounds = bounds
        self._list_runs = list_runs
        self._limits = limits
        self._workers = workers
        self._chance = HIGHEST_CHANCE
        self._allowance = Allowance()
        self._parts = _FREE_PARTS

    @cached_property
    def _runs(self) -> Sequence[Runs]:
        return self._list_runs()

    def find(self, source: Source, wanted: Sequence[Wanted]) -> Iterator[Match]:
        """Iterate over runs in a file, or in what it packed."""
        found: set[Wanted] = set()
        note = self._bounds.of(source.path)
        self._parts += source.size // _BYTES_A_PART
        smallest = max(SMALLEST, min((item.size for item in wanted), default=0))
        for part in iter_parts(source, limits=self._limits, note=note):
            if part is not source:
                if part.size < smallest or _is_text(part):
                    continue
                if not self._parts:
                    note("of the bytes of its members not all were searched (unpack it)")
                    return
                self._parts -= 1
            left = [item for item in wanted if item not in found]
            for match in self._in_part(part, source, left):
                found.add(match.wanted)
                yield match

    def _in_part(self, part: Source, source: Source, wanted: Sequence[Wanted]) -> Iterator[Match]:
        """Iterate over runs in a file or a member: if each may be found alone, so; else together.

        What does not lie together may be found alone, too, if it is large.
        """
        path = source.path if part is source else None
        left = dict.fromkeys(sorted(wanted, key=lambda item: -item.size))
        if len(left) > self._most_alone(part):
            for match in self._find_together(part, path, left):
                left.pop(match.wanted, None)
                yield match
        yield from self._find_alone(part, path, list(left))

    def _most_alone(self, part: Source) -> int:
        """Return how many runs may be sought alone at the multiples of 4."""
        return int(_ALONE * self._chance / (part.size / 4 + 1) * 2**32)

    def _find_alone(
        self, part: Source, path: str | None, wanted: Sequence[Wanted]
    ) -> Iterator[Match]:
        most = self._most_alone(part)
        count = min(len(wanted), most)
        if not count:
            return
        between = 4 * count <= most
        self._chance -= count * (4 if between else 1) * (part.size / 4 + 1) / 2**32
        yield from find_anywhere(
            part, wanted[:count], between=between, path=path, workers=self._workers
        )

    def _find_together(
        self, part: Source, path: str | None, wanted: Collection[Wanted]
    ) -> Iterator[Match]:
        self._chance /= 2
        known = {item for runs in self._runs for item in runs.lost_ones()}
        yield from find_together(
            part,
            self._runs,
            known.difference(wanted),
            chance=self._chance,
            path=path,
            workers=self._workers,
            allowance=self._allowance,
        )


def _is_text(part: Source) -> bool:
    """Tell whether the start of a member is text."""
    return not part.read_at(0, min(_HEAD, part.size)).translate(None, _PRINTABLE)


class Evidence:
    """Files of any kind that may help."""

    def __init__(self, paths: Iterable[str], context: Context) -> None:
        """Take paths of files and directories; nothing is read yet.

        Raises:
            CheckpointNotFoundError: One of them is not there.
        """
        self.context = context
        self.bounds = Bounds()
        self.listings = Listings()
        self._kept = 0
        self._folders = Folders(context)
        self.paths = tuple(paths)
        for path in self.paths:
            if context.storage.stat(path) is None and not self._is_prefix(path):
                hint = hint_of_place(path, self._folders)
                raise CheckpointNotFoundError("No such file or directory", path=path, hint=hint)

    def __bool__(self) -> bool:
        return bool(self.paths)

    @cached_property
    def files(self) -> tuple[str, ...]:
        """Every file, also those in directories."""
        return self._walked[0]

    @cached_property
    def _walked(self) -> tuple[tuple[str, ...], int]:
        """Every file, and how many bytes they have together."""
        found: dict[str, None] = {}
        held = taken = 0
        walk = Walk(self.context.storage)
        for path in self.paths:
            for file, size in self._walk(path, walk):
                if file not in found:
                    taken += 1 if file.endswith(_SUFFIX) else _NPY
                found[file] = None
                held += size
                most = min(_MOST_FILES, _FREE_FILES + held // _BYTES_A_FILE)
                if taken > most * _NPY or len(found) > _MOST_FILES:
                    del found[file]
                    what = f"{count(len(found), 'file')} were looked at (name those that matter)"
                    self.bounds.note(path, what)
                    return tuple(found), held
            if walk.is_cut:
                what = f"{MOST_FOLDERS:,} directories were looked at (name those that matter)"
                self.bounds.note(path, what)
        return tuple(found), held

    @cached_property
    def kinds(self) -> dict[str, str]:
        """What each file that is looked into is, as `identify` says."""
        found = {}
        indexes: Indexes = {}  # Each is read once, and not for each of its data files.
        misnamed = 0
        for path in self.files:
            identity = identity_of(path, self.context, indexes)
            kind = "unknown" if identity is None else identity.kind
            misnamed += path.endswith(_SUFFIX) and kind != "npy"
            if misnamed <= _MOST_MISNAMED or kind == "npy" or not path.endswith(_SUFFIX):
                found[path] = kind
            else:
                self.bounds.note(path, "too many files are named .npy and hold something else")
        return found

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return self._walked[1]

    @property
    def prefixes(self) -> list[str]:
        """The first checkpoints among them: prefixes of V2 checkpoints, paths of V1 files."""
        found: dict[str, None] = {}
        for path, kind in self.kinds.items():
            if kind == "v2-index" and path.endswith(INDEX_SUFFIX):
                found[path.removesuffix(INDEX_SUFFIX)] = None
            elif kind == "v1":
                found[path] = None
        most = _FREE_CHECKPOINTS + self._walked[1] // _BYTES_A_CHECKPOINT
        first, others = list(found)[:most], list(found)[most:]
        if others:
            what = (
                f"{count(most, 'checkpoint')} were read, and this one and those after it were not"
            )
            self.bounds.note(others[0], what)
        return first

    @property
    def tables(self) -> list[str]:
        """The first indexes of V2 checkpoints and V1 files among them, under any name."""
        found = [path for path, kind in self.kinds.items() if kind in ("v2-index", "v1")]
        return found[:_MOST_COPIES]

    @property
    def data_files(self) -> list[tuple[str, int, int]]:
        """Of every file that has the name of a data file: path, shard, number of shards."""
        splits = ((path, split_data_path(path)) for path in self.files)
        return [(path, split[1], split[2]) for path, split in splits if split is not None]

    def graphs(self) -> Iterator[tuple[str, list[Graph]]]:
        """Iterate over the files that hold graphs, each with its graphs."""
        for path, kind in self.kinds.items():
            if kind in _GRAPHS:
                graphs = self.graphs_in(path, kind)
                if graphs:
                    yield path, graphs

    def graphs_in(self, path: str, kind: str) -> list[Graph]:
        """Return the graphs in a file; none if it cannot be read."""
        try:
            with closing(self.context.storage.open(path)) as source:
                note = self.bounds.of(path)
                return list(iter_graphs(source, kind, limits=self.context.limits, note=note))
        except CheckpointError:
            return []

    def find(
        self,
        wanted: Mapping[Wanted, Collection[TensorForm]],
        workers: Workers = CALLER,
        *,
        list_runs: Callable[[], Sequence[Runs]] = tuple,
        names: Names | None = None,
    ) -> dict[Wanted, Found]:
        """Find runs of bytes in the files.

        Args:
            wanted: The runs. Of those that are tensors: their shapes.
            workers: Who searches.
            list_runs: Gives what lies beside them in the data files.
            names: What the tensors are called.

        Raises:
            StorageError: A worker failed.
        """
        left = dict.fromkeys(wanted)
        sought = Sought(wanted, wanted)
        found: dict[Wanted, Found] = {}
        anywhere = _Anywhere(list_runs, self.context.limits, workers, self.bounds)
        for path in self.kinds:
            if not left:
                break
            here: dict[Wanted, None] = {}
            try:
                with closing(self.context.storage.open(path)) as source:
                    for match in self._iter_matches(source, sought, left, anywhere, names):
                        here[match.wanted] = None
                        self._keep_surest(match, path, source, found)
            except CheckpointError as error:
                # A file that cannot be read gives nothing.
                if error is workers.failure:
                    raise
            # What is unsure may be found by its name in another file.
            for item in here:
                if found[item].chance <= HIGHEST_CHANCE:
                    left.pop(item, None)
                    sought.drop(item)
        return found

    def _keep_surest(
        self, match: Match, path: str, source: Source, found: dict[Wanted, Found]
    ) -> None:
        """Add what was found in a file, unless it is known with a lower chance."""
        known = found.get(match.wanted)
        if known is None or match.chance < known.chance:
            file = self._file_of(match, path, source)
            found[match.wanted] = Found(file, match.offset, match.chance, match.turned, match.name)

    def _iter_matches(
        self,
        source: Source,
        sought: Sought,
        left: Collection[Wanted],
        anywhere: _Anywhere,
        names: Names | None,
    ) -> Iterator[Match]:
        """Iterate over runs at places that a container names; in an unknown file, anywhere."""
        found = set()
        limits, note = self.context.limits, self.bounds.of(source.path)
        for match in find_payloads(source, sought, limits=limits, note=note, names=names):
            found.add(match.wanted)
            yield match
        if self.kinds[source.path] in _UNKNOWN:
            yield from anywhere.find(source, [item for item in left if item not in found])

    def _file_of(self, match: Match, path: str, source: Source) -> DataFile:
        part = match.source
        held = None
        if isinstance(part, DatasetSource) and part.size <= _KEPT and self._kept < _MOST_KEPT:
            self._kept += part.size
            held = part.read_at(0, part.size)
        member = None if part is source else Member(part.path, self.context, self.listings, held)
        inside = None if member is None else member.within(path)
        if match.turned is None:
            return DataFile(path, member, inside)
        turned = TurnedFile(match.turned, match.offset, match.wanted.size, member)
        return DataFile(path, turned, inside)

    def _is_prefix(self, path: str) -> bool:
        stat = self.context.storage.stat(path + INDEX_SUFFIX)
        return stat is not None and stat.kind == "file"

    def _walk(self, path: str, walk: Walk) -> Iterator[tuple[str, int]]:
        """Iterate over the files at a path, below it, and of that prefix, and their sizes."""
        storage = self.context.storage
        stat = storage.stat(path)
        if stat is not None:
            yield from walk.iter_files(path, stat)
        if self._is_prefix(path):
            directory, base = storage.split(path)
            listed = self._folders.list(directory)
            for name in self._folders.beginning(directory, base):
                if belongs_to(name, base):
                    yield storage.join(directory, name), listed[name].size
