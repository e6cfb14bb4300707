"""Read a bundle: name -> entry -> bytes of a data file -> array (docs/format.md, section 2).

`index` finds entries, `shards` opens data files, and this module makes tensors from both. It is the
`Backend` of the V2 format.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import repeat
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from ckptparse.backend import OrphanSlice
from ckptparse.bundle.columns import EntryColumns
from ckptparse.bundle.entry import BundleEntry
from ckptparse.bundle.index import BundleIndex
from ckptparse.bundle.payload import BrokenPayload
from ckptparse.bundle.shards import ShardFiles
from ckptparse.bundle.sliced import BundleSlices
from ckptparse.dtypes import DataType, is_numeric
from ckptparse.elements import distinct
from ckptparse.errors import LimitError, MalformedError
from ckptparse.filenames import INDEX_SUFFIX
from ckptparse.files.context import Context
from ckptparse.limits import Budget, Singles, check_small
from ckptparse.slices import TensorSlice
from ckptparse.table.columns import IntColumn
from ckptparse.tensor import DEFAULT_OPTIONS, Payload, ReadOptions, Tensor

if TYPE_CHECKING:
    from ckptparse.backend.places import Places

__all__ = ["BundleReader"]

_FEW_TENSORS = 16
_SMALL_TENSORS = 1 << 20
"""Up to 16 tensors of up to 1 MiB in all are read one by one, at 0.02 ms each."""


class BundleReader:
    """An open bundle.

    Attributes:
        index: Its entries.
        shards: Its data files.
    """

    format: ClassVar[Literal["v2"]] = "v2"

    def __init__(self, index: BundleIndex, shards: ShardFiles) -> None:
        self.index = index
        self.shards = shards
        self._slices = BundleSlices(index, shards)
        self._payloads: dict[str, Payload] = {}

    @classmethod
    def open(cls, prefix: str, context: Context, *, index_path: str | None = None) -> BundleReader:
        """Open the bundle of a prefix: its index is read, its data files are opened when needed.

        Args:
            prefix: Of the data files; and of the index, if `index_path` is None.
            context: Where files are, and how much they may ask for.
            index_path: The index if it is not `prefix + ".index"`.

        Raises:
            CheckpointNotFoundError: There is no index.
            DataLossError: It is damaged.
            UnsupportedError: It excludes this reader.
            LimitError: It is larger than the limits allow.
        """
        index = BundleIndex.open(index_path or prefix + INDEX_SUFFIX, context)
        return cls(index, ShardFiles(prefix, index.header, context, index.is_replaced))

    @property
    def num_shards(self) -> int:
        """The number of data files."""
        return self.shards.num_shards

    @property
    def byte_order(self) -> Literal["little", "big"]:
        """Byte order of the data files."""
        return "big" if self.shards.big_endian else "little"

    @property
    def files(self) -> tuple[str, ...]:
        """The index, then every data file, also missing ones."""
        return (self.index.path, *map(self.shards.path, range(self.num_shards)))

    def data_sizes(self) -> Mapping[str, int]:
        """Every data file that holds a tensor, and where the last tensor in it ends."""
        columns = self.index.listing().columns
        # Empty tensors do not count: they may have an offset beyond the end.
        ends = np.where(columns.sizes > 0, columns.offsets + columns.sizes, 0)
        shards = distinct(columns.shard_ids)
        last = np.zeros(len(shards), np.int64)
        np.maximum.at(last, np.searchsorted(shards, columns.shard_ids), ends)
        return {
            self.shards.path(shard): end for shard, end in zip(shards, last.tolist(), strict=True)
        }

    def names(self) -> Sequence[str]:
        """Every tensor's name, in the order of the index."""
        return self.index.listing().names

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Every tensor's name and shape, in the order of the index."""
        return self.index.listing().shapes

    def find(self, name: str, options: ReadOptions) -> Tensor | None:
        """Return the lazy tensor of a name; None if there is none."""
        listing = self.index.known_listing
        if listing is not None:
            row = listing.rows.get(name)
            if row is None:
                return None
            shape, code = listing.columns.shapes[row], listing.codes[row]
            return Tensor(name, shape, code, None, options, self._listed_payload)
        entry = self.index.find_entry(name)
        if entry is None:
            return None
        return Tensor(name, entry.shape, entry.data_type, self._payload(name, entry), options)

    def iter_tensors(self, options: ReadOptions, *, without: str | None = None) -> Iterator[Tensor]:
        """Iterate over every tensor, in the order of the index, but for one."""
        listing = self.index.listing()
        names = listing.names
        shapes = listing.of_tensors(listing.columns.shapes)
        codes = listing.of_tensors(listing.codes)
        row = None if without is None else listing.find_number(without)
        if row is not None:
            names, shapes, codes = (
                [*column[:row], *column[row + 1 :]] for column in (names, shapes, codes)
            )
        return map(
            Tensor,
            names,
            shapes,
            codes,
            repeat(None),
            repeat(options),
            repeat(self._listed_payload),
        )

    def places(self) -> Places:
        """Return where the bytes of every tensor lie, in the order of the index."""
        from ckptparse.backend.places import Places

        listing = self.index.listing()
        columns = listing.columns
        numbers, offsets, sizes, crcs = (
            # The listing's own, not copies: of 100,000 tensors these would take 3 MB.
            _read_only(column)
            for column in (columns.shard_ids, columns.offsets, columns.sizes, columns.crcs)
        )
        if columns.others:
            alone = np.ones(len(columns), np.bool_)
            alone[list(columns.others)] = False
            numbers, crcs = (np.where(alone, column, -1) for column in (numbers, crcs))
            offsets, sizes = (np.where(alone, column, 0) for column in (offsets, sizes))
        files = [self.shards.path(number) for number in range(self.num_shards)]
        places = Places((), listing.codes, columns.shapes, files, numbers, offsets, sizes, crcs)
        if listing.numbers == range(len(columns)):
            return replace(places, names=listing.names)
        return places.take(listing.numbers, listing.names)

    def read_many(self, names: Sequence[str], options: ReadOptions) -> list[npt.NDArray[Any]]:
        """Read whole tensors, in the order of the names, all of which exist."""
        columns = self.index.columns_of(names)
        options = replace(options, budget=self.shards.budget())
        if not options.mmap and self._are_few(columns):
            return self._read_singly(names, columns, options)
        return self._read_together(names, columns, options)

    def _are_few(self, columns: EntryColumns) -> bool:
        """Tell whether planning a common read takes longer than reading one after another."""
        sizes = columns.sizes
        if not 0 < len(sizes) <= _FEW_TENSORS or sizes.min() == 0 or sizes.sum() > _SMALL_TENSORS:
            return False
        # With lower limits, what they share is counted, which planning does.
        if self.shards.context.limits.shared_bytes < _SMALL_TENSORS:
            return False
        # Where each read is a request, neighbours are read together.
        return self.shards.manner(int(columns.shard_ids[0])).concurrency is None

    def _read_singly(
        self, names: Sequence[str], columns: EntryColumns, options: ReadOptions
    ) -> list[npt.NDArray[Any]]:
        """Read tensors in the order of their bytes: of several damaged ones, the first fails."""
        arrays: dict[int, npt.NDArray[Any]] = {}
        for row in np.lexsort((columns.offsets, columns.shard_ids)).tolist():
            tensor = self.make_tensor(names[row], columns.entry(row), options)
            arrays[row] = tensor.read()
        return [arrays[row] for row in range(len(names))]

    def _read_together(
        self, names: Sequence[str], columns: EntryColumns, options: ReadOptions
    ) -> list[npt.NDArray[Any]]:
        from ckptparse.bundle.many import DenseReader, check_sharing
        from ckptparse.bundle.small_strings import read_small_strings

        kinds = distinct(columns.data_types)
        numeric = set(filter(is_numeric, kinds))
        if numeric.issuperset(kinds) and not columns.others:
            return DenseReader(self.shards, columns, names.__getitem__, options).read()
        codes = columns.data_types.tolist()
        dense = [
            row for row, code in enumerate(codes) if code in numeric and row not in columns.others
        ]
        check_small(
            self.shards.context.limits,
            codes.count(DataType.DT_STRING),
            lambda: self.index.size + self.shards.held,
            path=self.index.path,
        )
        reader = DenseReader(
            self.shards, columns.take(dense), lambda row: names[dense[row]], options
        )
        arrays = dict(zip(dense, reader.read(), strict=True))
        taken = sum(array.nbytes for array in arrays.values())
        limits = self.shards.context.limits
        others = [row for row in range(len(names)) if row not in arrays]
        small = read_small_strings(self.shards, columns, others, options)
        small |= self._read_small_sliced(names, columns, options)
        singles = Singles(limits, lambda: self.shards.held)
        for row in others:
            if row in small and _is_taken(options.budget, small[row][1]):
                arrays[row] = small[row][0]
                is_sliced = row in columns.others
                taken += arrays[row].nbytes if is_sliced else int(columns.sizes[row])
            else:
                singles.check()
                tensor = self.make_tensor(names[row], columns.entry(row), options)
                # That bytes are missing is said first: then nothing is taken at all.
                arrays[row] = tensor.read()
                taken += tensor.nbytes
            if taken > limits.shared_bytes:
                check_sharing(limits, taken, self.shards.held)
        return [arrays[row] for row in range(len(names))]

    def _read_small_sliced(
        self, names: Sequence[str], columns: EntryColumns, options: ReadOptions
    ) -> dict[int, tuple[npt.NDArray[Any], int]]:
        listing = self.index.known_listing
        if listing is None or not columns.others:
            return {}
        from ckptparse.bundle.small_sliced import read_small_sliced

        entries = {row: (names[row], entry) for row, entry in columns.others.items()}
        return read_small_sliced(self.shards, listing, entries, options)

    def orphan_slices(self) -> list[OrphanSlice]:
        """Return the slices that no tensor lists."""
        listing = self.index.listing()
        return [
            (name, piece, self._make_orphan(name, piece, listing.columns.entry(row)))
            for name, piece, row in listing.orphans
        ]

    def fingerprint(self) -> Hashable:
        """Return that of the index, which has the checksums of all data."""
        return self.index.fingerprint()

    def make_tensor(self, name: str, entry: BundleEntry, options: ReadOptions) -> Tensor:
        """Make the lazy tensor of an entry."""
        payload = self._slices.payload(name, entry)
        return Tensor(name, entry.shape, entry.data_type, payload, options)

    def check_open(self) -> None:
        """Raise `ClosedError` once closed."""
        self.index.check_open()

    def close(self) -> None:
        """Close the index and the data files."""
        self.index.close()
        self.shards.close()

    def _listed_payload(self, name: str) -> Payload:
        found = self._payloads.get(name)
        if found is not None:
            return found
        listing = self.index.listing()
        return self._payload(name, listing.columns.entry(listing.rows[name]))

    def _payload(self, name: str, entry: BundleEntry) -> Payload:
        """Return a tensor's payload: always the same object, which remembers what was verified."""
        found = self._payloads.get(name)
        if found is None:
            found = self._payloads.setdefault(name, self._slices.payload(name, entry))
        return found

    def _make_orphan(self, name: str, piece: TensorSlice, entry: BundleEntry) -> Tensor:
        if not entry.slices:
            return self.make_tensor(name, entry, DEFAULT_OPTIONS)
        error = MalformedError(
            f"Slice {piece} is stored in slices itself", path=self.index.path, tensor=name
        )
        return Tensor(name, entry.shape, entry.data_type, BrokenPayload(error))


def _read_only(column: IntColumn) -> IntColumn:
    """Return a view that nobody can write into."""
    view: IntColumn = column.view()
    view.flags.writeable = False
    return view


def _is_taken(budget: Budget | None, size: int) -> bool:
    """Take so much from a budget, if it allows that; tell whether it does."""
    if budget is None:
        return True
    try:
        budget.check(size)
    except LimitError:
        return False
    budget.take(size)
    return True
