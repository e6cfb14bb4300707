"""Tensors of an index as columns: those in one piece whose entry a checksum proves.

They are nearly all of a large index, even of a damaged one. What would be an object for each of
them (a payload, a listed tensor) is made of its row when it is asked for.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from ckptparse.bundle.columns import EntryColumns
from ckptparse.dtypes import item_size
from ckptparse.elements import distinct
from ckptparse.examination.outcome import EvidenceRecord, PatchedRange
from ckptparse.examination.payload import ListedTensor, Payload
from ckptparse.examination.readers import DataFile
from ckptparse.inventory.survey import Origin

__all__ = ["DAMAGED_DATA", "DAMAGED_ENTRY", "LOST_ORDER", "IndexBlock", "PlainRows", "are_numeric"]

IntColumn = npt.NDArray[np.int64]

_WIDTHS = np.array([item_size(kind) or 0 for kind in range(128)], np.int64)
"""Bytes of an element of each kind; 0 of kinds that have no fixed size."""
DAMAGED_DATA = (
    "its checksum agrees, but its name, dtype and shape come from a damaged part of the index"
)
LOST_ORDER = "its checksum agrees, but the part of the index is damaged that states the byte order"
DAMAGED_ENTRY = "its entry comes from a damaged part of the index"


@dataclass(frozen=True, slots=True)
class IndexBlock:
    """What all rows of one block of an index have in common.

    Attributes:
        stop: One past the last of its rows.
        offset: Where the block lies; None if it was corrected.
        chance: Chance that its rows are wrong; not 0 if it was corrected.
        grounds: Where it lies, and what proves it.
        patches: What was corrected in it.
    """

    stop: int
    offset: int | None
    chance: float
    grounds: tuple[EvidenceRecord, ...]
    patches: tuple[PatchedRange, ...]


@dataclass(frozen=True, slots=True)
class PlainRows:
    """The rows of one index.

    Attributes:
        columns: What the entries say; rows that are no such tensors are among them, and unused.
        blocks: The blocks that hold them, in order.
        paths: The data files by number.
        index: Path of the index.
        origin: Where it comes from.
        big_endian: The byte order of the data files.
        chance: Chance that the header is wrong.
    """

    are_records: ClassVar[bool] = False
    """Whether they are records of V1 files, of which each has a block's checksum."""

    columns: EntryColumns
    blocks: Sequence[IndexBlock]
    paths: Mapping[int, str]
    index: str
    origin: Origin
    big_endian: bool
    chance: float
    _stops: list[int] = field(init=False, repr=False, compare=False)
    _files: dict[int, DataFile] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Note what is asked for every row that is made: where blocks end, and the data files."""
        object.__setattr__(self, "_stops", [block.stop for block in self.blocks])
        files = {shard: DataFile(path) for shard, path in self.paths.items()}
        object.__setattr__(self, "_files", files)

    def block(self, row: int) -> IndexBlock:
        """Return the block that holds a row."""
        return self.blocks[bisect_right(self._stops, row)]

    def uncorrected(self, numbers: IntColumn) -> npt.NDArray[np.bool_]:
        """Tell of some rows whether the blocks that hold them were not corrected."""
        stops = np.array(self._stops, np.int64)
        whole = np.array([block.offset is not None for block in self.blocks], np.bool_)
        found: npt.NDArray[np.bool_] = whole[np.searchsorted(stops, numbers, side="right")]
        return found

    def payload(self, row: int) -> Payload:
        """Describe the bytes of one tensor."""
        columns, block = self.columns, self.block(row)
        shard = int(columns.shard_ids[row])
        return Payload(
            int(columns.data_types[row]),
            columns.shapes[row],
            self._files[shard],
            int(columns.offsets[row]),
            int(columns.sizes[row]),
            int(columns.crcs[row]),
            True,
            DAMAGED_DATA,
            max(block.chance, self.chance),
            self.index,
            self.origin,
            shard,
            self.big_endian,
            block=block.offset,
            grounds=block.grounds,
            patches=block.patches,
        )

    def listed(self, name: str, row: int) -> ListedTensor:
        """Describe one tensor."""
        payload = self.payload(row)
        return ListedTensor(
            name, payload.data_type, payload.shape, True, DAMAGED_ENTRY, payload.chance, payload
        )

    def patches_of(self, rows: npt.NDArray[np.intp]) -> tuple[PatchedRange, ...]:
        """Return what was corrected in the blocks of the index that hold some rows."""
        stops = np.array(self._stops, np.int64)
        used = distinct(np.searchsorted(stops, rows, side="right"))
        return tuple(patch for number in used for patch in self.blocks[number].patches)

    def patched_rows(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.intp]:
        """Return where, among some rows, the first one of each block stands that was corrected."""
        stops = np.array(self._stops, np.int64)
        used, places = np.unique(np.searchsorted(stops, rows, side="right"), return_index=True)
        patched = [bool(self.blocks[number].patches) for number in used.tolist()]
        found: npt.NDArray[np.intp] = places[np.array(patched, np.bool_)]
        return found

    def chances(self, rows: npt.NDArray[np.intp]) -> npt.NDArray[np.float64]:
        """Return the chance of each of some rows that it is wrong."""
        stops = np.array(self._stops, np.int64)
        chances = np.array([max(block.chance, self.chance) for block in self.blocks], np.float64)
        found: npt.NDArray[np.float64] = chances[np.searchsorted(stops, rows, side="right")]
        return found


def are_numeric(columns: EntryColumns) -> npt.NDArray[np.bool_]:
    """Tell of each row whether its elements are numbers of one size."""
    numeric: npt.NDArray[np.bool_] = _WIDTHS[_kinds(columns)] > 0
    return numeric


def are_bytes(columns: EntryColumns) -> npt.NDArray[np.bool_]:
    """Tell of each row whether its elements are single bytes."""
    bytewise: npt.NDArray[np.bool_] = _WIDTHS[_kinds(columns)] == 1
    return bytewise


def _kinds(columns: EntryColumns) -> IntColumn:
    """Return the kind of each row; 0, which is none, of those that nobody knows."""
    kinds = columns.data_types
    return np.where((kinds > 0) & (kinds < len(_WIDTHS)), kinds, 0)
