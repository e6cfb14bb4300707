"""What an index, whole or broken, says of tensors: entries, each with its proof.

A checksum of a tensor proves its bytes. That they are float32 of shape (31, 7), and whose name they
bear, is proved by the checksum of the block of the index that says so, or not at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from ckptparse.bundle.entry import BundleEntry, BundleHeader, Endianness
from ckptparse.bundle.naming import (
    INDEX_SUFFIX,
    decode_name,
    decode_slice_key,
    encode_slice_key,
    shard_path,
)
from ckptparse.dtypes import item_size
from ckptparse.errors import CheckpointError, LimitError
from ckptparse.examination.report import FileReport
from ckptparse.examination.salvaged_table import ScannedEntry, ScannedTable, scan_table, scan_undone
from ckptparse.examination.survey import identity_of
from ckptparse.files.local import LocalSource
from ckptparse.inventory.survey import IndexFile, Survey
from ckptparse.limits import Limits
from ckptparse.problems import Problem
from ckptparse.proto.parsing import parse_message
from ckptparse.proto.tensor_bundle_pb2 import BundleEntryProto, BundleHeaderProto
from ckptparse.slices import TensorSlice

__all__ = ["OBJECT_GRAPH", "IndexView", "NamedTensor", "Stored", "name_foreign", "read_view"]

OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
_HEADER_KEY = b""


@dataclass(frozen=True, slots=True)
class Stored:
    """One payload: what the index says of it.

    Attributes:
        entry: Its entry.
        path: The data file it belongs into.
        big_endian: The byte order of its bundle.
        proved: Whether a checksum covers the entry and the byte order.
        chance: Chance that the proof is wrong.
        index: The index that says so.
        leftover: Whether that index is what a save left behind.
        waiting: Whether nothing but the byte order lacks proof: the header is lost.
        block: Offset of the block of the index that holds it; None where no block is whole.
    """

    entry: BundleEntry
    path: str
    big_endian: bool
    proved: bool
    chance: float
    index: str
    leftover: bool
    waiting: bool = False
    block: int | None = None


@dataclass(frozen=True, slots=True)
class NamedTensor:
    """A tensor: one payload, or the slices it is stored in, None for those not stored."""

    name: str
    stored: Stored
    slices: tuple[tuple[TensorSlice, Stored | None], ...] = ()


@dataclass(slots=True)
class IndexView:
    """What one index says.

    Attributes:
        path: The index.
        leftover: Whether it is what a save left behind.
        header: Its header, or None.
        num_shards: By its header, or by the names of the data files.
        tensors: By name, in the order of the index.
        orphans: Slices that no tensor lists.
        complete: Whether nothing of it is missing.
        problems: What is wrong with it.
        file: The map of its bytes.
    """

    path: str
    leftover: bool
    header: BundleHeader | None
    num_shards: int
    tensors: dict[str, NamedTensor] = field(default_factory=dict)
    orphans: list[tuple[str, TensorSlice, Stored]] = field(default_factory=list)
    complete: bool = False
    problems: list[Problem] = field(default_factory=list)
    file: FileReport | None = None

    @property
    def readable(self) -> bool:
        """Whether it says anything at all."""
        return bool(self.tensors or self.orphans or self.header)

    def iter_named(self) -> Iterator[tuple[str, Stored]]:
        """Iterate over all entries of tensors; a slice's name is its tensor's, a NUL and itself."""
        for name, tensor in self.tensors.items():
            yield name, tensor.stored
            for piece, stored in tensor.slices:
                if stored is not None:
                    yield f"{name}\0{piece}", stored


def read_view(
    index: IndexFile, survey: Survey, *, limits: Limits, correct: bool = False
) -> IndexView:
    """Read whatever an index still says.

    Args:
        index: The file.
        survey: The checkpoint it belongs to.
        limits: Bounds on what is read.
        correct: Whether to correct blocks that one flipped bit explains.
    """
    view = IndexView(index.path, index.origin.is_leftover, None, _count_shards(survey))
    try:
        with LocalSource.open(index.path) as source:
            table = scan_table(
                source, area="index", accept=_looks_right, limits=limits, correct=correct
            )
    except LimitError as error:
        view.problems.append(Problem.of("limit.reached", index.path, error.message))
        return view
    except CheckpointError as error:
        view.problems.append(Problem.of("file.unreadable", index.path, error.message))
        return view
    if not table.proves:
        undone = scan_undone(
            index.path, area="index", accept=_looks_right, limits=limits, correct=correct
        )
        table = table if undone is None else undone
    role = "leftover" if index.origin.is_leftover else "index"
    view.file = FileReport(index.path, role, table.size, tuple(table.ranges))
    view.problems += name_foreign(table, "index")
    _Builder(view, index, survey, limits).build(table)
    return view


def _count_shards(survey: Survey) -> int:
    counts = [count for _, count in survey.data_files]
    return max(set(counts), key=counts.count) if counts else 1


def name_foreign(table: ScannedTable, area: str) -> list[Problem]:
    """Return a table's problems; of a file without any entry what it is instead."""
    if table.entries:
        return table.problems
    identity = identity_of(table.path)
    if identity is None or identity.kind in ("v2-index", "v1", "truncated", "unknown"):
        return table.problems
    what = f"it is {identity.meaning}. {identity.advice}"
    if identity.kind in ("empty", "zeros", "interrupted-save"):
        return [*table.problems, Problem.of(f"{area}.footer", table.path, what)][-1:]
    return [Problem.of(f"{area}.foreign", table.path, what)]


def _looks_right(key: bytes, value: bytes) -> bool:
    """Tell whether a key and value that no checksum covers can be an entry as one is written."""
    everything = Limits()
    try:
        if key == _HEADER_KEY:
            header = parse_message(BundleHeaderProto, value)
            BundleHeader.from_proto(header, limits=everything)
            return header.SerializeToString() == value and header.version.producer < 100
        proto = parse_message(BundleEntryProto, value)
        BundleEntry.from_proto(proto, num_shards=everything.shards, limits=everything)
    except CheckpointError:
        return False
    return proto.SerializeToString() == value


class _Builder:
    """Sorts the entries of one index into tensors and their slices."""

    def __init__(self, view: IndexView, index: IndexFile, survey: Survey, limits: Limits) -> None:
        self.view = view
        self.index = index
        self.survey = survey
        self.limits = limits
        self.header_proved = False
        self.header_chance = 0.0

    def build(self, table: ScannedTable) -> None:
        view = self.view
        entries = self._take_header(table.entries)
        stored: dict[bytes, Stored] = {}
        for scanned in entries:
            found = self._decode(scanned)
            if found is not None:
                stored[scanned.key] = found
        view.complete = table.complete and view.header is not None
        self._sort_out(stored)

    def _problem(self, code: str, message: str) -> None:
        self.view.problems.append(Problem.of(code, self.index.path, message))

    def _take_header(self, entries: list[ScannedEntry]) -> list[ScannedEntry]:
        if not entries or entries[0].key != _HEADER_KEY:
            if entries:
                self._problem("index.header", f"the first key is {entries[0].key!r}, not the empty")
            return entries
        first = entries[0]
        try:
            proto = parse_message(BundleHeaderProto, first.value, limits=self.limits)
            header = BundleHeader.from_proto(proto, limits=self.limits)
        except CheckpointError as error:
            self._problem("index.header", error.message)
            return entries[1:]
        self.view.header = header
        self.header_proved, self.header_chance = first.proved, first.chance
        if first.proved or self.view.num_shards == header.num_shards:
            self.view.num_shards = header.num_shards
        return entries[1:]

    def _decode(self, scanned: ScannedEntry) -> Stored | None:
        header = self.view.header
        shards = self.view.num_shards if scanned.proved and header else self.limits.shards
        try:
            proto = parse_message(BundleEntryProto, scanned.value, limits=self.limits)
            entry = BundleEntry.from_proto(proto, num_shards=shards, limits=self.limits)
        except CheckpointError as error:
            name = decode_name(scanned.key)
            self._problem("index.entry", f"the entry of {name!r}: {error.message}")
            return None
        ordered = self.header_proved or item_size(entry.data_type) == 1 or bool(entry.slices)
        return Stored(
            entry,
            self._data_path(entry.shard_id),
            header is not None and header.endianness == Endianness.BIG,
            scanned.proved and ordered,
            max(scanned.chance, self.header_chance),
            self.index.path,
            self.index.origin.is_leftover,
            waiting=scanned.proved and not ordered,
            block=scanned.place[0] if scanned.place else None,
        )

    def _data_path(self, shard_id: int) -> str:
        paths = self.index.data_paths
        if paths is not None and shard_id < len(paths):
            return paths[shard_id]
        path = shard_path(self.survey.prefix, shard_id, self.view.num_shards)
        # One writer gives all files of a save the same ending; TensorFlow, each one its own.
        ending = self.index.path.removeprefix(self.survey.prefix + INDEX_SUFFIX)
        if ending and path + ending in self.survey.leftovers:
            return path + ending
        if (shard_id, self.view.num_shards) not in self.survey.data_files:
            for waiting in self.survey.leftovers:
                if waiting.startswith(f"{path}.tempstate"):
                    return waiting
        return path

    def _sort_out(self, stored: Mapping[bytes, Stored]) -> None:
        listed: set[bytes] = set()
        for key, found in stored.items():
            if found.entry.slices:
                listed.update(encode_slice_key(key, piece) for piece in found.entry.slices)
        for key, found in stored.items():
            decoded = decode_slice_key(key) if key.startswith(b"\0") else None
            if key in listed:
                continue
            if decoded is not None:
                self.view.orphans.append((decode_name(decoded[0]), decoded[1], found))
                continue
            name = decode_name(key)
            slices = tuple(self._slices(key, found.entry.slices, stored))
            self.view.tensors[name] = NamedTensor(name, found, slices)

    def _slices(
        self, key: bytes, slices: Iterable[TensorSlice], stored: Mapping[bytes, Stored]
    ) -> Iterable[tuple[TensorSlice, Stored | None]]:
        for piece in slices:
            yield piece, stored.get(encode_slice_key(key, piece))
