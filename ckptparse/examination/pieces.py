"""Pieces of the work of `verify`, for engines that have no executor: Beam, Spark, Ray.

A checkpoint whose index is whole is cut into runs of tensors, in the order of their bytes. Each
part looks at all that is small (index, state file, which data files there are), and reads the bytes
of its own tensors only. So two reports agree on what both looked at, and list different tensors;
`Report.merge` puts them together to the report of the whole.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, replace

from ckptparse.errors import StorageError
from ckptparse.examination.converted import choose
from ckptparse.examination.intact import Rows, own_places, plan_rows
from ckptparse.examination.merging import restrict
from ckptparse.examination.readers import DataFiles
from ckptparse.examination.report import Report
from ckptparse.examination.spread import is_same
from ckptparse.examination.verify import verify_path
from ckptparse.files.context import Cache, Context, Place, Store, begin
from ckptparse.files.storage import FileStat
from ckptparse.inventory.folders import Folders
from ckptparse.inventory.parts import survey_candidate
from ckptparse.inventory.survey import Survey
from ckptparse.limits import DEFAULT_LIMITS, Limits

__all__ = ["Part", "parts"]


def parts(
    path: Place,
    *,
    size: int = 1 << 30,
    store: Store = None,
    cache: Cache = None,
    limits: Limits = DEFAULT_LIMITS,
) -> list[Part]:
    """Cut the work of `verify` into parts for an engine that has no executor.

    Args:
        path: Whatever `ckptparse.open` takes.
        size: About how many bytes of data files a part reads. A tensor is never cut.
        store: As for `ckptparse.open`.
        cache: As for `open`.
        limits: Bounds on what the files may ask for.

    Returns:
        One or more. A checkpoint whose index is not whole, a V1 checkpoint and a graph are one.

    Raises:
        ValueError: `size` is less than 1.
        CheckpointError: As for `verify`.
    """
    if size < 1:
        raise ValueError(f"Expected a size of 1 byte or more, found {size}")
    place, context = begin(path, store=store, cache=cache, limits=limits, lenient=True)
    survey = _find(place, context)
    planned: list[tuple[Rows, int]] = []
    if survey is not None:
        with closing(DataFiles(context)) as files:
            planned = plan_rows(survey, files, size)
    again = context.again()
    index = survey.indexes[0].path if survey and planned else None
    known = None if index is None else context.storage.stat(index)
    if not planned:
        return [Part(place, 0, 1, 0, again, None, index, known)]
    return [
        Part(place, number, len(planned), taken, again, rows, index, known)
        for number, (rows, taken) in enumerate(planned)
    ]


def _find(path: str, context: Context) -> Survey | None:
    """Return the files of the checkpoint that a path means; None for a graph."""
    folders = Folders(context)
    choice = choose(path, folders)
    return (
        None if choice.candidate.format == "graph" else survey_candidate(choice.candidate, folders)
    )


@dataclass(frozen=True, slots=True, repr=False)
class Part:
    """A piece of the work of `verify`. It can be pickled; whoever has it must reach the files.

    Attributes:
        path: The checkpoint's path, as it was given.
        number: Which of the parts it is, from 0.
        count: How many parts there are.
        size: Bytes of the data files that it reads; 0 if it is not known before.
    """

    path: str
    number: int
    count: int
    size: int
    _context: Context
    _rows: Rows | None
    _index: str | None
    _known: FileStat | None

    def verify(self) -> Report:
        """Check this part; the report lists its tensors only.

        In the maps of the files, `unverified` is what only other parts read. What is wrong with a
        file is said by each part that has damaged tensors in it. Other checkpoints of the directory
        are not looked at.

        Raises:
            StorageError: The index is another one than when the parts were made, or a file cannot
                be read now.
            CheckpointError: As for `ckptparse.verify`.
        """
        context = self._context
        if self._index is not None and not is_same(
            self._known, context.storage.stat(self._index), absent=False
        ):
            raise StorageError(
                f"The checkpoint was replaced since it was cut into parts; this is {self}",
                path=self._index,
            )
        report = verify_path(self.path, context, rows=self._rows, neighbours=False)
        if self._rows is not None:
            report = self._restrict(report, self._rows)
        options = {**report.options, "part": self.number, "parts": self.count}
        return replace(report, options=options)

    def _restrict(self, report: Report, rows: Rows) -> Report:
        """Leave out what only the other parts read."""
        survey = _find(self.path, self._context)
        with closing(DataFiles(self._context)) as files:
            first = self.number == 0
            own = None if survey is None else own_places(survey, files, rows, empty=first)
        if own is None:
            raise StorageError(
                f"The checkpoint was replaced while it was read; this is {self}", path=self._index
            )
        return restrict(report, *own)

    def __str__(self) -> str:
        return f"part {self.number + 1} of {self.count} of {self.path!r}"

    def __repr__(self) -> str:
        return f"<Part {self.number + 1} of {self.count} of {self.path!r}, {self.size} bytes>"
