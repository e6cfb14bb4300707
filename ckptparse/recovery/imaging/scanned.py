"""What a scan of an image gives: the checkpoints that it found, each of which can be recovered."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ckptparse.examination.inputs import HashedFile
from ckptparse.examination.report import FilePiece, FileReport
from ckptparse.examination.summary import sort_problems
from ckptparse.files.context import Context, Progress
from ckptparse.files.noted import NotedStorage
from ckptparse.files.views import JoinedSource
from ckptparse.inventory.survey import Survey
from ckptparse.problems import Problem
from ckptparse.text import size_text

if TYPE_CHECKING:
    from ckptparse.recovery.result import Recovery

__all__ = ["Read", "Scan", "ScannedCheckpoint"]


@dataclass(frozen=True, slots=True)
class Read:
    """What a scan has read, left out, and was asked for: for the reports of its checkpoints."""

    noted: NotedStorage
    asked: Mapping[str, Any]
    maps: tuple[HashedFile, ...]
    problems: tuple[Problem, ...]


@dataclass(frozen=True, slots=True)
class ScannedCheckpoint:
    """A checkpoint that an image holds.

    Attributes:
        name: Its name in this scan: `ckpt-` and its step, or `checkpoint-` and a number.
        format: `"v2"` or `"v1"`.
        offset: Where its index, or V1 file, begins in the image.
        step: The step, from the checksum of its counter; None if that gives none.
        tensors: How many tensors its index names; 0 of a V1 file, which has no index.
        nbytes: Bytes of its data.
        found: How many of these are in the image, proved by their checksums.
    """

    name: str
    format: str
    offset: int
    step: int | None
    tensors: int
    nbytes: int
    found: int
    _survey: Survey = field(repr=False)
    _context: Context = field(repr=False)
    _read: Read = field(repr=False)

    def recover(self, *, progress: Progress | None = None) -> Recovery:
        """Get back the tensors that the image holds; see `ckptparse.recover`."""
        from ckptparse.recovery.recover import recover_survey

        recovery = recover_survey(self._survey, replace(self._context, progress=progress))
        read = self._read
        opened = read.noted.opened.items()
        inputs = tuple(HashedFile(path, "image", size) for path, size in opened)
        options = {**read.asked, "name": self.name, "offset": self.offset}
        recovery.note_inputs(options, (*inputs, *read.maps), read.noted)
        if read.problems:
            problems = sort_problems([*recovery.report.problems, *read.problems])
            recovery.report = replace(recovery.report, problems=problems)
        files = {path: self._located(file) for path, file in recovery.report.files.items()}
        recovery.report = replace(recovery.report, files=files)
        return recovery

    def _located(self, file: FileReport) -> FileReport:
        """Add where the bytes of a file lie in the image, if it has any."""
        if file.size is None:
            return file
        with closing(self._context.storage.open(file.path)) as source:
            if not isinstance(source, JoinedSource):
                return file
            found = source.places(0, source.size)
            pieces = tuple(
                FilePiece(None if part.source is None else part.source.path, part.offset, part.size)
                for part in found
            )
        return replace(file, pieces=pieces)

    @property
    def share(self) -> float:
        """The share of its bytes that were found, 0 to 1."""
        return self.found / self.nbytes if self.nbytes else 1.0

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as JSON holds them."""
        return {
            "name": self.name,
            "format": self.format,
            "offset": self.offset,
            "step": self.step,
            "tensors": self.tensors,
            "nbytes": self.nbytes,
            "found": self.found,
            "share": self.share,
        }

    def __str__(self) -> str:
        what = f"{self.tensors} tensors of {size_text(self.nbytes)}, index at {self.offset}"
        if self.format == "v1":
            what = f"a V1 checkpoint of {size_text(self.nbytes)} at {self.offset}"
        return f"{self.name}: {what}; {self.share:.1%} of the bytes found"


@dataclass(frozen=True, slots=True)
class Scan:
    """What an image holds.

    Attributes:
        path: The image, or directory.
        size: In bytes.
        block: The size of its blocks.
        checkpoints: Those found, the most complete first; of equally complete ones the newest.
        skipped: How many tables were not looked at, at least, since an image of that size holds
            fewer: 1,024 tables and one for each 8 KiB of it, 256 indexes and one for each 16 KiB,
            65,536 data files and one for each KiB, 10,000 tensors and one for each 512 bytes.
        problems: A warning if the path is a directory not all of whose files were looked at. The
            report of each recovery has it, too.
    """

    path: str
    size: int
    block: int
    checkpoints: tuple[ScannedCheckpoint, ...]
    skipped: int = 0
    problems: tuple[Problem, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as JSON holds them."""
        return {
            "path": self.path,
            "size": self.size,
            "block": self.block,
            "checkpoints": [one.to_dict() for one in self.checkpoints],
            "skipped": self.skipped,
            "problems": [problem.to_dict() for problem in self.problems],
        }

    def __len__(self) -> int:
        return len(self.checkpoints)

    def __iter__(self) -> Iterator[ScannedCheckpoint]:
        return iter(self.checkpoints)

    def __getitem__(self, number: int) -> ScannedCheckpoint:
        return self.checkpoints[number]

    def __str__(self) -> str:
        lines = [f"{self.path}: {size_text(self.size)} in blocks of {self.block} bytes"]
        lines += [f"  {one}" for one in self.checkpoints]
        if not self.checkpoints:
            lines.append("  no index of a checkpoint was found")
        if self.skipped:
            what = "too many for an image of this size"
            lines.append(f"  {self.skipped:,} or more other tables were not looked at: {what}")
        lines += [f"  {problem}" for problem in self.problems]
        return "\n".join(lines)
