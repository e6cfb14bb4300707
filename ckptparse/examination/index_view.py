"""Read what an index, whole or broken, says of tensors: entries, each with its proof.

A tensor's checksum proves its bytes, and no more. Its name, dtype and shape are proved by the
checksum of the index block that holds its entry. If that one fails, they are not proved.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from ckptparse.bundle.entry import BundleEntry, BundleHeader, Endianness
from ckptparse.bundle.naming import decode_name, decode_slice_key, encode_slice_key
from ckptparse.coding.checksum import unmask_crc
from ckptparse.dtypes import item_size
from ckptparse.errors import CheckpointError, LimitError, PermissionDeniedError
from ckptparse.examination.payload import ListedTensor, PartName, Payload
from ckptparse.examination.plain_entries import is_plain_entry
from ckptparse.examination.readers import DataFile, DataFiles
from ckptparse.examination.report import FileReport
from ckptparse.examination.salvaged import INDEX_CODES, SalvagedEntry, SalvagedTable, TableCodes
from ckptparse.examination.salvaged_table import salvage_table
from ckptparse.examination.survey import identity_of
from ckptparse.filenames import INDEX_SUFFIX, shard_path
from ckptparse.files.context import Context
from ckptparse.inventory.survey import IndexFile, Origin, Survey
from ckptparse.limits import DEFAULT_LIMITS, Limits
from ckptparse.problems import Problem
from ckptparse.proto.parsing import parse_message
from ckptparse.proto.tensor_bundle_pb2 import BundleEntryProto, BundleHeaderProto
from ckptparse.slices import TensorSlice

__all__ = ["NO_CHECKSUM", "OBJECT_GRAPH", "IndexView", "name_foreign", "read_view"]

OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
NO_CHECKSUM = unmask_crc(0)
"""The checksum of an entry that has none: its field is 0, as protobuf reads an absent field, and
TensorFlow compares with it all the same (docs/format.md, section 2.3)."""
_HEADER_KEY = b""
_DAMAGED = (
    "its checksum agrees, but its name, dtype and shape come from a damaged part of the index"
)
_FIRST_BYTES = frozenset(bytes([byte]) for byte in (0x08, 0x12, 0x18, 0x20, 0x28, 0x35, 0x3A))
"""First bytes of an entry: the tags of its fields, of which dtype comes first (section 2.2)."""
_MOST_PRODUCERS = 100
"""A header without proof is believed if its producer is below this. TensorFlow has written 1 since
2016; bytes that are no header give any number."""


@dataclass(slots=True)
class IndexView:
    """What one index says, or what all files of a V1 checkpoint say together.

    Attributes:
        path: The index; of a V1 checkpoint its file, or its prefix.
        origin: Where it comes from.
        header: Its header, or None.
        num_shards: As its header says; without one, as the names of the data files say.
        tensors: By name, in the order of the index.
        orphans: Slices that no tensor lists.
        complete: Whether nothing of it is missing.
        problems: What is wrong with it.
        files: The maps of its own files, by path.
        unplaced: Names that an object graph has, if nothing tells where their tensors lie.
    """

    path: str
    origin: Origin
    header: BundleHeader | None = None
    num_shards: int = 1
    tensors: dict[str, ListedTensor] = field(default_factory=dict)
    orphans: list[tuple[str, TensorSlice, Payload]] = field(default_factory=list)
    complete: bool = False
    problems: list[Problem] = field(default_factory=list)
    files: dict[str, FileReport] = field(default_factory=dict)
    unplaced: tuple[str, ...] = ()

    def report(self, code: str, where: str, message: str) -> None:
        """Add a problem."""
        self.problems.append(Problem.of(code, where, message))

    def iter_payloads(self) -> Iterator[tuple[PartName, Payload]]:
        """Iterate over all payloads of tensors, each with its name."""
        for name, tensor in self.tensors.items():
            if tensor.payload is not None:
                yield PartName(name), tensor.payload
            for piece, payload in tensor.slices:
                if payload is not None:
                    yield PartName(name, piece), payload


def read_view(
    index: IndexFile, survey: Survey, files: DataFiles, *, correct: bool = False
) -> IndexView:
    """Read what an index still says.

    Args:
        index: The file.
        survey: The checkpoint it belongs to.
        files: What opens it.
        correct: Whether to correct a block if one flipped bit explains its checksum.
    """
    view = IndexView(index.path, index.origin, num_shards=_count_shards(survey))
    try:
        table = salvage_table(files, index.path, INDEX_CODES, accept=_looks_right, correct=correct)
    except LimitError as error:
        view.report("limit.reached", index.path, error.message)
        return view
    except PermissionDeniedError:
        raise
    except CheckpointError as error:
        view.report("file.unreadable", index.path, error.message)
        return view
    role = "leftover" if index.origin.is_leftover else "index"
    view.files[index.path] = FileReport(index.path, role, table.size, tuple(table.ranges))
    view.problems += name_foreign(table, INDEX_CODES, files.context)
    _Builder(view, index, survey, files.context.limits).build(table)
    return view


def _count_shards(survey: Survey) -> int:
    counts = [count for _, count in survey.data_files]
    return max(set(counts), key=counts.count) if counts else 1


def name_foreign(table: SalvagedTable, codes: TableCodes, context: Context) -> list[Problem]:
    """Return a table's problems; if it has no entry, say what kind of file it is instead."""
    if table.entries:
        return table.problems
    path = table.file.path
    identity = identity_of(path, context)
    if identity is None or identity.kind in ("v2-index", "v1", "truncated", "unknown"):
        return table.problems
    what = f"it is {identity.meaning}. {identity.advice}"
    if identity.kind in ("empty", "zeros", "interrupted-save"):
        return [*table.problems, Problem.of(codes.footer, path, what)][-1:]
    return [Problem.of(codes.foreign, path, what)]


def _looks_right(key: bytes, value: bytes) -> bool:
    """Tell whether a key and a value that no checksum covers look like an entry of an index."""
    everything = DEFAULT_LIMITS
    try:
        if key == _HEADER_KEY:
            header = parse_message(BundleHeaderProto, value)
            BundleHeader.from_proto(header, limits=everything)
            return header.SerializeToString() == value and header.version.producer < _MOST_PRODUCERS
        if is_plain_entry(value):
            return True
        if value[:1] not in _FIRST_BYTES:
            return False
        proto = parse_message(BundleEntryProto, value)
        BundleEntry.from_proto(proto, num_shards=everything.shards, limits=everything)
    except CheckpointError:
        return False
    return proto.SerializeToString() == value


@dataclass(frozen=True, slots=True)
class _Found:
    """An entry, and where the table has it."""

    salvaged: SalvagedEntry
    entry: BundleEntry


class _Builder:
    """Sorts the entries of one index into tensors and their slices."""

    def __init__(self, view: IndexView, index: IndexFile, survey: Survey, limits: Limits) -> None:
        self.view = view
        self.index = index
        self.survey = survey
        self.limits = limits
        self.header_proved = False
        self.header_chance = 0.0

    def build(self, table: SalvagedTable) -> None:
        view = self.view
        entries = self._take_header(table.entries)
        if table.complete and not table.entries:
            self._problem("index.header", "expected the header under an empty key, found no entry")
        found: dict[bytes, _Found] = {}
        for salvaged in entries:
            entry = self._decode(salvaged)
            if entry is not None:
                found[salvaged.key] = _Found(salvaged, entry)
        view.complete = table.complete and view.header is not None
        self._sort_out(found)

    def _problem(self, code: str, message: str) -> None:
        self.view.report(code, self.index.path, message)

    def _take_header(self, entries: list[SalvagedEntry]) -> list[SalvagedEntry]:
        if not entries or entries[0].key != _HEADER_KEY:
            if entries:
                message = f"expected the header under an empty key, found {entries[0].key!r} first"
                self._problem("index.header", message)
            return entries
        first = entries[0]
        try:
            proto = parse_message(BundleHeaderProto, first.value or b"", limits=self.limits)
            header = BundleHeader.from_proto(proto, limits=self.limits)
        except CheckpointError as error:
            self._problem("index.header", error.message)
            return entries[1:]
        self.view.header = header
        self.header_proved, self.header_chance = first.proved, first.chance
        if first.proved or self.view.num_shards == header.num_shards:
            self.view.num_shards = header.num_shards
        return entries[1:]

    def _decode(self, salvaged: SalvagedEntry) -> BundleEntry | None:
        shards = (
            self.view.num_shards if salvaged.proved and self.view.header else self.limits.shards
        )
        try:
            proto = parse_message(BundleEntryProto, salvaged.value or b"", limits=self.limits)
            return BundleEntry.from_proto(proto, num_shards=shards, limits=self.limits)
        except CheckpointError as error:
            name = decode_name(salvaged.key)
            self._problem("index.entry", f"entry of {name!r}: {error.message}")
            return None

    def _payload(self, found: _Found) -> Payload:
        """Make the payload that an entry describes, with its proof."""
        entry, salvaged, header = found.entry, found.salvaged, self.view.header
        ordered = self.header_proved or item_size(entry.data_type) == 1
        return Payload(
            entry.data_type,
            entry.shape,
            DataFile(self._data_path(entry.shard_id)),
            entry.offset,
            entry.size,
            None if entry.crc32c == NO_CHECKSUM else entry.crc32c,
            salvaged.proved and ordered,
            _DAMAGED,
            max(salvaged.chance, self.header_chance),
            self.index.path,
            self.index.origin,
            entry.shard_id,
            header is not None and header.endianness == Endianness.BIG,
            waiting=salvaged.proved and not ordered,
            block=salvaged.block.offset if salvaged.block and salvaged.proved else None,
            grounds=salvaged.grounds,
            patches=salvaged.patches,
        )

    def _data_path(self, shard_id: int) -> str:
        paths = self.index.data_paths
        if paths is not None and shard_id < len(paths):
            return paths[shard_id]
        path = shard_path(self.survey.prefix, shard_id, self.view.num_shards)
        # Some writers end all temporary files of a save alike; TensorFlow gives each its own end.
        ending = self.index.path.removeprefix(self.survey.prefix + INDEX_SUFFIX)
        if ending and path + ending in self.survey.leftovers:
            return path + ending
        if (shard_id, self.view.num_shards) not in self.survey.data_files:
            for waiting in self.survey.leftovers:
                if waiting.startswith(f"{path}.tempstate"):
                    return waiting
        return path

    def _sort_out(self, found: Mapping[bytes, _Found]) -> None:
        """Tell tensors, their slices, and slices that no tensor lists."""
        listed: set[bytes] = set()
        for key, one in found.items():
            listed.update(encode_slice_key(key, piece) for piece in one.entry.slices)
        for key, one in found.items():
            decoded = decode_slice_key(key) if key.startswith(b"\0") else None
            if key in listed:
                continue
            if decoded is not None:
                piece = decoded[1]
                self.view.orphans.append((decode_name(decoded[0]), piece, self._payload(one)))
                continue
            name = decode_name(key)
            self.view.tensors[name] = self._listed(name, key, one, found)

    def _listed(
        self, name: str, key: bytes, one: _Found, found: Mapping[bytes, _Found]
    ) -> ListedTensor:
        entry, salvaged = one.entry, one.salvaged
        return ListedTensor(
            name,
            entry.data_type,
            entry.shape,
            salvaged.proved,
            "its entry comes from a damaged part of the index",
            max(salvaged.chance, self.header_chance),
            None if entry.slices else self._payload(one),
            tuple(self._slices(key, entry.slices, found)),
        )

    def _slices(
        self, key: bytes, slices: Iterable[TensorSlice], found: Mapping[bytes, _Found]
    ) -> Iterator[tuple[TensorSlice, Payload | None]]:
        for piece in slices:
            one = found.get(encode_slice_key(key, piece))
            yield piece, None if one is None or one.entry.slices else self._payload(one)
