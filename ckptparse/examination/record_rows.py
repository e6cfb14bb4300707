"""Tensors of a V1 checkpoint as rows: those in one piece of which only values are to be checked.

Of such a tensor a checksum proves the list that names it and the block with its record, as they are
in the file. Nearly all tensors are so, even of a damaged checkpoint. Payloads and listed tensors
are made of rows when they are asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from ckptparse.bundle.columns import EntryColumns
from ckptparse.bundle.entry import count_elements
from ckptparse.errors import CheckpointError
from ckptparse.examination.payload import ListedTensor, Payload, Record
from ckptparse.examination.plain_rows import IndexBlock, PlainRows
from ckptparse.examination.readers import DataFile
from ckptparse.examination.salvaged import SalvagedEntry
from ckptparse.inventory.survey import Origin
from ckptparse.legacy.record import decode_record
from ckptparse.limits import Limits

__all__ = ["DAMAGED_RECORD", "RecordRows", "RowMaker", "find_sound_records"]

DAMAGED_RECORD = "the block with its record is damaged"


@dataclass(frozen=True, slots=True)
class RecordRows(PlainRows):
    """The rows of all files of one checkpoint.

    Attributes:
        entries: The record of each row.
    """

    are_records: ClassVar[bool] = True

    entries: Sequence[SalvagedEntry] = ()

    def payload(self, row: int) -> Payload:
        """Describe the record of one tensor."""
        columns, entry = self.columns, self.entries[row]
        path = self.paths[int(columns.shard_ids[row])]
        return Payload(
            int(columns.data_types[row]),
            columns.shapes[row],
            DataFile(path),
            int(columns.offsets[row]),
            int(columns.sizes[row]),
            int(columns.crcs[row]),
            True,
            DAMAGED_RECORD,
            0.0,
            path,
            self.origin,
            block=int(columns.offsets[row]),
            record=Record(entry.key, entry.value, sound=True),
            grounds=entry.grounds,
        )

    def listed(self, name: str, row: int) -> ListedTensor:
        """Describe one tensor."""
        payload = self.payload(row)
        return ListedTensor(
            name, payload.data_type, payload.shape, True, DAMAGED_RECORD, 0.0, payload
        )


@dataclass(slots=True)
class RowMaker:
    """Takes one tensor after another, and makes the rows of all."""

    data_types: list[int] = field(default_factory=list)
    shapes: list[tuple[int, ...]] = field(default_factory=list)
    files: list[int] = field(default_factory=list)
    crcs: list[int] = field(default_factory=list)
    entries: list[SalvagedEntry] = field(default_factory=list)

    def add(
        self, data_type: int, shape: tuple[int, ...], file: int, crc: int, entry: SalvagedEntry
    ) -> int:
        """Take the record of a tensor, in a file of that number; return its row."""
        self.data_types.append(data_type)
        self.shapes.append(shape)
        self.files.append(file)
        self.crcs.append(crc)
        self.entries.append(entry)
        return len(self.entries) - 1

    def finish(self, index: str, origin: Origin, paths: Mapping[int, str]) -> RecordRows:
        """Return the rows."""
        blocks = [entry.block for entry in self.entries]
        columns = EntryColumns(
            np.array(self.data_types, np.int64),
            np.array(self.files, np.int64),
            np.array([block.offset if block else 0 for block in blocks], np.int64),
            # With the byte that names the compression, which the checksum covers too.
            np.array([block.size + 1 if block else 0 for block in blocks], np.int64),
            np.array(self.crcs, np.int64),
            self.shapes,
            {},
        )
        common = IndexBlock(len(self.entries), None, 0.0, (), ())
        return RecordRows(columns, (common,), paths, index, origin, False, 0.0, self.entries)


def find_sound_records(
    rows: RecordRows, numbers: npt.NDArray[np.int64], limits: Limits, *, most: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return those of some rows whose values decode, and those whose values do not.

    After `most` of the others, none is looked at any more.
    """
    columns = rows.columns
    data_types = columns.data_types.tolist()
    sound: list[int] = []
    refused: list[int] = []
    for row in numbers.tolist():
        value = rows.entries[row].value
        try:
            if value is not None:
                decode_record(
                    value, data_types[row], count_elements(columns.shapes[row]), limits=limits
                )
                sound.append(row)
                continue
        except CheckpointError:
            pass
        refused.append(row)
        if len(refused) >= most:
            break
    return np.array(sound, np.int64), np.array(refused, np.int64)
