"""What is sought in the files of the evidence: the payloads that are lost."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ckptparse.bundle.entry import count_elements
from ckptparse.crc.windows import Wanted
from ckptparse.examination.case import Case
from ckptparse.examination.payload import Form
from ckptparse.examination.places import are_telling, is_telling
from ckptparse.examination.plain_rows import PlainRows
from ckptparse.examination.readers import DataFile
from ckptparse.recovery.evidence.axes import TensorForm

__all__ = ["Runs", "list_named", "list_runs", "list_sought"]

IntColumn = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


def list_sought(case: Case) -> dict[Wanted, set[TensorForm]]:
    """Return the sizes and checksums of lost payloads; of plain tensors also what they are.

    Of more than will be repaired it is not said what they are.
    """
    found: dict[Wanted, set[TensorForm]] = {}
    for part in case.iter_held():
        payload = part.payload
        if not part.is_lost or payload is None or payload.crc32c is None:
            continue
        forms = found.setdefault(Wanted(payload.size, payload.crc32c), set())
        count = count_elements(payload.shape)
        # Containers hold little-endian elements.
        if payload.form is Form.PLAIN and count and not payload.big_endian:
            forms.add(TensorForm(payload.shape, payload.size // count))
    failed = case.failed
    if failed is not None:
        lost = ~failed.good & (failed.sizes > 0)
        columns = failed.sizes[lost].tolist(), failed.crcs[lost].tolist()
        for item in map(Wanted, *columns):
            found.setdefault(item, set())
    return found


def list_named(case: Case) -> Iterator[tuple[str, Wanted]]:
    """Iterate over the names of lost tensors, each with its size and checksum; not over slices."""
    for name, part in case.held_parts():
        payload = part.payload
        if not part.is_lost or name.piece is not None or payload is None:
            continue
        if payload.crc32c is not None:
            yield name.tensor, Wanted(payload.size, payload.crc32c)
    failed = case.failed
    if failed is not None:
        lost = np.flatnonzero(~failed.good & (failed.sizes > 0))
        columns = lost.tolist(), failed.sizes[lost].tolist(), failed.crcs[lost].tolist()
        for number, *item in zip(*columns, strict=True):
            yield failed.names[number], Wanted(*item)


@dataclass(frozen=True, slots=True)
class Runs:
    """Plain payloads of one data file, by offset, in columns.

    Attributes:
        starts: Where each begins in the data file.
        sizes: Their sizes in bytes.
        crcs: The unmasked CRC-32C of each.
        lost: Which of them are lost.
        telling: Of which hardly another payload has the same bytes.
    """

    starts: IntColumn
    sizes: IntColumn
    crcs: IntColumn
    lost: Mask
    telling: Mask

    def stop(self, number: int) -> int:
        """Return where one ends in the data file."""
        return int(self.starts[number]) + int(self.sizes[number])

    def wanted(self, number: int) -> Wanted:
        """Return the size and the checksum of one."""
        return Wanted(int(self.sizes[number]), int(self.crcs[number]))

    def lost_ones(self) -> Iterator[Wanted]:
        """Iterate over the sizes and checksums of those that are lost."""
        columns = self.sizes[self.lost].tolist(), self.crcs[self.lost].tolist()
        return map(Wanted, *columns)


def list_runs(case: Case) -> list[Runs]:
    """Return the payloads of each data file of which some are lost."""
    held: dict[DataFile, list[tuple[int, int, int, bool, bool]]] = defaultdict(list)
    for part in case.iter_held():
        payload = part.payload
        if payload is not None and payload.crc32c is not None and payload.form is Form.PLAIN:
            one = payload.offset, payload.size, payload.crc32c, part.is_lost, is_telling(payload)
            held[payload.file].append(one)
    failed = case.failed
    files = [file for file, rows in held.items() if any(lost for _, _, _, lost, _ in rows)]
    if failed is not None:
        files += [
            DataFile(path) for path in failed.paths if not failed.good[failed.of_path(path)].all()
        ]
    found = []
    for file in dict.fromkeys(files):
        parts = [np.array(held[file], np.int64).reshape(-1, 5)]
        table = np.concatenate([*parts, _sound_rows(case, file), _failed_rows(case, file)])
        table = table[np.argsort(table[:, 0], kind="stable")]
        starts, sizes, crcs, lost, telling = table.T.copy()
        found.append(Runs(starts, sizes, crcs, lost != 0, telling != 0))
    return found


def _sound_rows(case: Case, file: DataFile) -> IntColumn:
    """Return the same of the rows of a data file that are sound."""
    rows = case.sound
    if rows is None or rows.plain.are_records or file.undo is not None:
        return np.zeros((0, 5), np.int64)
    numbers = rows.rows_of(file.path)
    return _table(rows.plain, numbers, np.zeros(len(numbers), np.bool_))


def _failed_rows(case: Case, file: DataFile) -> IntColumn:
    """Return the same of the rows of a data file that have failed, or share their bytes."""
    failed = case.failed
    if failed is None or file.undo is not None:
        return np.zeros((0, 5), np.int64)
    numbers = failed.of_path(file.path)
    return _table(failed.plain, failed.rows[numbers], ~failed.good[numbers])


def _table(plain: PlainRows, rows: IntColumn, lost: Mask) -> IntColumn:
    """Return of rows the columns that `Runs` has."""
    columns = plain.columns
    fields = (columns.offsets[rows], columns.sizes[rows], columns.crcs[rows])
    told = (*fields, lost, are_telling(plain, rows))
    return np.stack([field.astype(np.int64) for field in told], axis=1)
