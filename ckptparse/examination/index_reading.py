"""Read what an index, whole or broken, says of tensors: entries, each with its proof.

A tensor's checksum proves its bytes, and no more. Its name, dtype and shape are proved by the
checksum of the index block that holds its entry. If that one fails, they are not proved.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import pairwise, takewhile

import numpy as np
import numpy.typing as npt

from ckptparse.bundle.columns import EntryColumns
from ckptparse.bundle.decoding import decode_entry, decode_header, decode_shape
from ckptparse.bundle.entry import BundleEntry, BundleHeader, Endianness
from ckptparse.bundle.naming import (
    decode_name,
    decode_names,
    decode_slice_key,
    encode_slice_key,
    weight_of_slices,
)
from ckptparse.bundle.together import EntryDecoder
from ckptparse.dtypes import item_size
from ckptparse.elements import distinct
from ckptparse.errors import CheckpointError, LimitError, PermissionDeniedError
from ckptparse.examination.byte_order import find_order, turn
from ckptparse.examination.index_view import NO_CHECKSUM, IndexView, name_foreign
from ckptparse.examination.payload import ListedTensor, Payload
from ckptparse.examination.plain_entries import is_plain_entry
from ckptparse.examination.plain_rows import (
    DAMAGED_DATA,
    DAMAGED_ENTRY,
    LOST_ORDER,
    IndexBlock,
    PlainRows,
    are_bytes,
    are_numeric,
)
from ckptparse.examination.readers import DataFile, DataFiles
from ckptparse.examination.report import FileReport
from ckptparse.examination.row_mapping import RowMapping
from ckptparse.examination.salvaged import (
    INDEX_CODES,
    SalvagedEntry,
    SalvagedRun,
    SalvagedTable,
    iter_entries,
)
from ckptparse.examination.salvaged_table import salvage_table
from ckptparse.examination.tied_blocks import OTHER_SAVE, find_untied, place_of
from ckptparse.filenames import INDEX_SUFFIX, shard_path
from ckptparse.inventory.survey import IndexFile, Survey
from ckptparse.limits import DEFAULT_LIMITS, Limits, Singles, limit_error
from ckptparse.proto.parsing import parse_message
from ckptparse.proto.tensor_bundle_pb2 import BundleEntryProto, BundleHeaderProto
from ckptparse.slices import TensorSlice
from ckptparse.table.columns import TableColumns

__all__ = ["read_view"]

_HEADER_KEY = b""
_SMALL_RUN, _TOGETHER = 32 << 10, 1 << 20
"""Bytes of a run that is decoded with others, and of all of these together."""
_FEW_ENTRIES = 16
"""Up to so many are decoded one by one: together, a few take as long as a hundred."""
_FIRST_BYTES = frozenset(bytes([byte]) for byte in (0x08, 0x12, 0x18, 0x20, 0x28, 0x35, 0x3A))
"""First bytes of an entry: the tags of its fields, of which dtype comes first (section 2.2)."""
_MOST_PRODUCERS = 100
"""A header without proof is believed if its producer is below this. TensorFlow has written 1 since
2016; bytes that are no header give any number."""


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
    _Builder(view, index, survey, files).build(table)
    return view


def _count_shards(survey: Survey) -> int:
    counts = [count for _, count in survey.data_files]
    return max(set(counts), key=counts.count) if counts else 1


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


def _group(
    found: Iterable[SalvagedEntry | SalvagedRun],
) -> Iterator[list[SalvagedEntry | SalvagedRun]]:
    """Divide what a table has into groups to decode together; a large run is one by itself."""
    group: list[SalvagedEntry | SalvagedRun] = []
    held = 0
    for one in found:
        size = len(one.columns.contents) if isinstance(one, SalvagedRun) else 0
        if group and (size > _SMALL_RUN or held + size > _TOGETHER):
            yield group
            group, held = [], 0
        group.append(one)
        held += size
    if group:
        yield group


@dataclass(frozen=True, slots=True)
class _Found:
    """An entry, and where the table has it."""

    salvaged: SalvagedEntry
    entry: BundleEntry


@dataclass(slots=True)
class _Run:
    """A run of entries as columns.

    Attributes:
        salvaged: Where the table has it.
        columns: What its entries say.
        plain: Which of them are rows of the view.
        before: How many rows come before it.
        taken: How many of the others are looked at: the first of them.
    """

    salvaged: SalvagedRun
    columns: EntryColumns
    plain: npt.NDArray[np.bool_]
    before: int
    taken: int = 0

    @property
    def block(self) -> IndexBlock:
        """What its rows have in common."""
        run = self.salvaged
        return IndexBlock(
            self.before + len(self.columns),
            run.block.offset if run.block else None,
            run.chance,
            run.grounds,
            run.patches,
        )

    def key(self, row: int) -> bytes:
        """Return the key of a row."""
        return self.salvaged.columns.key(self.salvaged.skipped + row)

    def iter_others(self) -> Iterator[tuple[bytes, _Found]]:
        """Iterate over the entries that are no rows, by key."""
        for row in np.flatnonzero(~self.plain).tolist():
            found = self.salvaged.entry(self.salvaged.skipped + row)
            yield found.key, _Found(found, self.columns.entry(row))

    def add_to(self, tensors: RowMapping[ListedTensor], held: Mapping[bytes, ListedTensor]) -> int:
        """Add its rows, and the others that are tensors; return how many."""
        names = decode_names(self.salvaged.columns, self.salvaged.skipped)
        numbers = range(self.before, self.before + len(names))
        if self.plain.all():
            tensors.add_rows(names, numbers)
            return len(names)
        added = done = 0
        for row in np.flatnonzero(~self.plain)[: self.taken].tolist():
            tensors.add_rows(names[done:row], numbers[done:row])
            added += row - done
            done = row + 1
            known = held.get(self.key(row))
            if known is not None:
                tensors[known.name] = known
                added += 1
        rest = (np.flatnonzero(self.plain[done:]) + done).tolist()
        tensors.add_rows([names[row] for row in rest], [numbers[row] for row in rest])
        return added + len(rest)


class _Builder:
    """Sorts the entries of one index into tensors and their slices."""

    def __init__(self, view: IndexView, index: IndexFile, survey: Survey, files: DataFiles) -> None:
        self.view = view
        self.index = index
        self.survey = survey
        self.limits: Limits = files.context.limits
        self.files = files
        self.singles = files.singles
        self.listed = Singles(self.limits, lambda: files.held_bytes)
        self.stored = Singles(self.limits, lambda: files.held_bytes)
        self.data_paths: dict[int, str] = {}
        self.data_files: dict[int, DataFile] = {}
        self.untied: frozenset[int] = frozenset()
        """Where blocks begin that are not believed, since they may be of another save."""
        self.header_proved = False
        self.header_chance = 0.0

    def build(self, table: SalvagedTable) -> None:
        view = self.view
        if self.index.laid is not None:
            view.untied = find_untied(table, self.index.laid, self.index.untied)
            self.untied = frozenset() if self.index.tied else view.untied
        found = self._take_header(table.found)
        if table.complete and not table.found:
            self._problem("index.header", "expected the header under an empty key, found no entry")
        view.complete = table.complete and view.header is not None
        known, taken = len(view.problems), self.singles.taken
        if not self._sort_rows(found):
            # A key occurs twice: the last of its entries counts, where the first one is.
            del view.problems[known:]
            view.tensors, view.rows = {}, None
            self.singles.return_to(taken)
            self.stored.return_to(0)
            self._sort_rows(list(iter_entries(found)), again=True)
        if not self.header_proved:
            payloads = (payload for _, payload in view.iter_payloads(self._held()))
            big_endian = find_order(self.files, payloads)
            if big_endian is not None:
                turn(view, big_endian=big_endian)
        if self.singles.exceeded or self.stored.exceeded:
            reached = self.singles if self.singles.exceeded else self.stored
            self._problem("limit.reached", reached.message)
            view.complete = False

    def _held(self) -> Iterable[str]:
        """Return the names of the tensors that are no rows."""
        tensors = self.view.tensors
        return tensors.held if isinstance(tensors, RowMapping) else tensors

    def _problem(self, code: str, message: str) -> None:
        self.view.report(code, self.index.path, message)

    def _take_header(
        self, found: list[SalvagedEntry | SalvagedRun]
    ) -> list[SalvagedEntry | SalvagedRun]:
        if not found:
            return found
        head = found[0]
        first = head.entry(head.skipped) if isinstance(head, SalvagedRun) else head
        if first.key != _HEADER_KEY:
            message = f"expected the header under an empty key, found {first.key!r} first"
            self._problem("index.header", message)
            return found
        rest = found[1:]
        if isinstance(head, SalvagedRun) and len(head) > 1:
            rest = [replace(head, skipped=head.skipped + 1), *rest]
        try:
            header = decode_header(
                first.value or b"", limits=self.limits, held=lambda: self.files.held_bytes
            )
        except LimitError as error:
            self._problem("limit.reached", error.message)
            return []
        except CheckpointError as error:
            self._problem("index.header", error.message)
            return rest
        self.view.header = header
        # Saves of one model have the same header, so it may be of another save.
        self.header_proved, self.header_chance = first.proved, first.chance
        if first.proved or self.view.num_shards == header.num_shards:
            self.view.num_shards = header.num_shards
        return rest

    # -- entries that are rows

    def _sort_rows(
        self, found: Sequence[SalvagedEntry | SalvagedRun], *, again: bool = False
    ) -> bool:
        """Sort entries into rows and others; False if a key occurs twice: rows cannot tell it.

        Args:
            found: What the table has.
            again: Whether those of runs are among the single ones, which were counted when found.
        """
        others: dict[bytes, _Found] = {}
        order: list[bytes | _Run] = []
        before = 0
        for one, columns in self._decode_runs(found):
            if isinstance(one, SalvagedEntry):
                if again and not self.singles.take():
                    break
                entry = self._decode(one)
                if entry is not None:
                    others[one.key] = _Found(one, entry)
                    order.append(one.key)
                continue
            if columns is None:
                singles = takewhile(lambda _: self.singles.take(), one)
                rest = [(salvaged, self._decode(salvaged)) for salvaged in singles]
                others.update((a.key, _Found(a, entry)) for a, entry in rest if entry is not None)
                order += [a.key for a, entry in rest if entry is not None]
                continue
            run = _Run(one, columns, self._are_plain(one, columns), before)
            before += len(columns)
            taken = list(takewhile(self._may_take, run.iter_others()))
            run.taken = len(taken)
            others.update(taken)
            order.append(run)
        return self._arrange(order, self._sort_out(others))

    def _decode_runs(
        self, found: Sequence[SalvagedEntry | SalvagedRun]
    ) -> Iterator[tuple[SalvagedEntry | SalvagedRun, EntryColumns | None]]:
        """Add what runs say; None if an entry of one breaks a rule, so that all are told singly."""
        for group in _group(found):
            runs = [one for one in group if isinstance(one, SalvagedRun)]
            columns = iter(self._columns_of(runs))
            for one in group:
                yield one, next(columns) if isinstance(one, SalvagedRun) else None

    def _columns_of(self, runs: Sequence[SalvagedRun]) -> Iterable[EntryColumns | None]:
        """Decode runs together; if an entry breaks a rule, each by itself."""
        if len(runs) > 1:
            joined = TableColumns.concatenate(
                [run.columns.part(run.skipped, len(run.columns)) for run in runs]
            )
            taken = self.listed.taken
            with suppress(CheckpointError):
                columns = self._decoder.decode(joined, 0)
                return [columns.part(low, high) for low, high in pairwise([0, *joined.block_ends])]
            self.listed.return_to(taken)
        return [self._columns_alone(run) for run in runs]

    def _columns_alone(self, run: SalvagedRun) -> EntryColumns | None:
        try:
            if len(run) <= _FEW_ENTRIES:
                found = [self._decode_proved(one.key, one.value or b"") for one in run]
                return EntryColumns.of_entries(found)
            return self._decoder.decode(run.columns, run.skipped)
        except CheckpointError:
            return None

    @cached_property
    def _decoder(self) -> EntryDecoder:
        return EntryDecoder(
            num_shards=self._most_shards(proved=True),
            limits=self.limits,
            decode_entry=self._decode_proved,
            decode_shape=partial(decode_shape, limits=self.limits),
            held=lambda: self.files.held_bytes,
        )

    def _decode_proved(self, key: bytes, value: bytes) -> BundleEntry:
        """Decode an entry of a run; after too many slices none, so that all are told singly.

        Raises:
            CheckpointError: It breaks a rule, or the index has listed too many slices before it.
        """

        def take(count: int) -> None:
            if not self.listed.take(weight_of_slices(key, count)):
                found = self.listed.taken
                raise limit_error(self.limits, "single_entries", found, "Number of slices")

        shards = self._most_shards(proved=True)
        return decode_entry(value, num_shards=shards, limits=self.limits, take_slices=take)

    def _may_take(self, one: tuple[bytes, _Found]) -> bool:
        """Count an entry that is no row, with the slices that it lists; tell whether to keep it."""
        if one[0].startswith(b"\0") and not one[1].entry.slices:
            # A stored slice is counted where it is listed, or with those that no tensor lists.
            return self.stored.take()
        return self.singles.take(weight_of_slices(one[0], len(one[1].entry.slices)) or 1)

    def _are_plain(self, run: SalvagedRun, columns: EntryColumns) -> npt.NDArray[np.bool_]:
        """Tell which rows are tensors in one piece, and proved with all that is said of them."""
        if self._is_untied(run):
            return np.zeros(len(columns), np.bool_)
        plain: npt.NDArray[np.bool_] = are_numeric(columns) & (columns.crcs != NO_CHECKSUM)
        if not self.header_proved:
            # The byte order lacks proof, which single bytes do not need.
            plain &= are_bytes(columns)
        if columns.others:
            plain[list(columns.others)] = False
        # Keys of slices begin with 00. Keys rise, so these come first.
        for row in range(len(columns)):
            if not run.columns.key(run.skipped + row).startswith(b"\0"):
                break
            plain[row] = False
        return plain

    def _is_untied(self, one: SalvagedEntry | SalvagedRun) -> bool:
        """Tell whether the block of an entry, or of a run, may be of another save."""
        return bool(self.untied) and place_of(one) in self.untied

    def _arrange(self, order: Sequence[bytes | _Run], held: Mapping[bytes, ListedTensor]) -> bool:
        """Put tensors into the order of the index; False if one of them occurs twice."""
        runs = [one for one in order if isinstance(one, _Run)]
        if not runs:
            self.view.tensors = {one.name: one for one in held.values()}
            return True
        columns = EntryColumns.concatenate([run.columns for run in runs])
        rows = PlainRows(
            columns,
            [run.block for run in runs],
            {shard: self._data_path(shard) for shard in distinct(columns.shard_ids)},
            self.index.path,
            self.index.origin,
            self.view.header is not None and self.view.header.endianness == Endianness.BIG,
            self.header_chance,
        )
        tensors = RowMapping(rows.listed)
        count = 0
        for one in order:
            if isinstance(one, _Run):
                count += one.add_to(tensors, held)
            elif one in held:
                tensors[held[one].name] = held[one]
                count += 1
        self.view.tensors, self.view.rows = tensors, rows
        return len(tensors) == count

    # -- entries one by one

    def _most_shards(self, *, proved: bool) -> int:
        return self.view.num_shards if proved and self.view.header else self.limits.shards

    def _decode(self, salvaged: SalvagedEntry) -> BundleEntry | None:
        too_many = False

        def take(count: int) -> None:
            nonlocal too_many
            # The entry itself has been counted.
            more = weight_of_slices(salvaged.key, count) - 1
            too_many = more > 0 and not self.singles.take(more)
            if too_many:
                found = self.singles.taken
                raise limit_error(self.limits, "single_entries", found, "Number of slices")

        value, shards = salvaged.value or b"", self._most_shards(proved=salvaged.proved)
        try:
            return decode_entry(value, num_shards=shards, limits=self.limits, take_slices=take)
        except CheckpointError as error:
            if not too_many:
                name = decode_name(salvaged.key)
                self._problem("index.entry", f"entry of {name!r}: {error.message}")
            return None

    def _payload(self, found: _Found) -> Payload:
        """Make the payload that an entry describes, with its proof."""
        entry, salvaged, header = found.entry, found.salvaged, self.view.header
        ordered = self.header_proved or item_size(entry.data_type) == 1
        untied = self._is_untied(salvaged)
        waiting = salvaged.proved and not ordered and not untied
        return Payload(
            entry.data_type,
            entry.shape,
            self._data_file(entry.shard_id),
            entry.offset,
            entry.size,
            None if entry.crc32c == NO_CHECKSUM else entry.crc32c,
            salvaged.proved and ordered and not untied,
            OTHER_SAVE if untied else LOST_ORDER if waiting else DAMAGED_DATA,
            max(salvaged.chance, self.header_chance),
            self.index.path,
            self.index.origin,
            entry.shard_id,
            header is not None and header.endianness == Endianness.BIG,
            waiting=waiting,
            block=salvaged.block.offset if salvaged.block and salvaged.proved else None,
            contested=untied,
            grounds=salvaged.grounds,
            patches=salvaged.patches,
        )

    def _data_file(self, shard_id: int) -> DataFile:
        """Return the same object for all entries of a data file: it is found sooner in mappings."""
        file = self.data_files.get(shard_id)
        if file is None:
            file = self.data_files[shard_id] = DataFile(self._data_path(shard_id))
        return file

    def _data_path(self, shard_id: int) -> str:
        path = self.data_paths.get(shard_id)
        if path is None:
            path = self.data_paths[shard_id] = self._find_data_path(shard_id)
        return path

    def _find_data_path(self, shard_id: int) -> str:
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

    def _sort_out(self, found: Mapping[bytes, _Found]) -> dict[bytes, ListedTensor]:
        """Tell tensors, their slices, and slices that no tensor lists; return the tensors."""
        self.view.orphans.clear()
        tensors: dict[bytes, ListedTensor] = {}
        listed: set[bytes] = set()
        for key, one in found.items():
            listed.update(encode_slice_key(key, piece) for piece in one.entry.slices)
        for key, one in found.items():
            decoded = decode_slice_key(key) if key.startswith(b"\0") else None
            if key in listed:
                continue
            if decoded is not None:
                if not self.singles.take():
                    continue
                piece = decoded[1]
                self.view.orphans.append((decode_name(decoded[0]), piece, self._payload(one)))
                continue
            tensors[key] = self._listed(decode_name(key), key, one, found)
        return tensors

    def _listed(
        self, name: str, key: bytes, one: _Found, found: Mapping[bytes, _Found]
    ) -> ListedTensor:
        entry, salvaged = one.entry, one.salvaged
        untied = self._is_untied(salvaged)
        return ListedTensor(
            name,
            entry.data_type,
            entry.shape,
            salvaged.proved and not untied,
            OTHER_SAVE if untied else DAMAGED_ENTRY,
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
