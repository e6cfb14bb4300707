"""What `verify` and `recover` found, as values: tensors, files, problems, a report."""

from __future__ import annotations

import re
import shlex
from abc import abstractmethod
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal

from ckptparse.examination.inputs import HashedFile, own_version
from ckptparse.examination.outcome import Judged, PatchedRange, Span, merge_spans
from ckptparse.examination.row_mapping import RowMapping
from ckptparse.limits import DEFAULT_LIMITS, Limits, count_named, take_named
from ckptparse.problems import Problem, Severity, Status
from ckptparse.text import brief, escape, shape_text

if TYPE_CHECKING:
    from ckptparse.rendering.text import Paint

__all__ = [
    "CountedTensors",
    "ExaminedTensors",
    "FilePiece",
    "FileRange",
    "FileReport",
    "OtherCheckpoint",
    "Outlook",
    "Report",
    "TensorReport",
    "Verdict",
    "VerifiedTensors",
    "count_statuses",
    "doubtful_names",
]

_TO_FETCH = ("shard.missing", "shard.foreign", "index.foreign", "v1.missing", "v1.foreign")
"""Problems of files that are to be got anew."""
_LISTS = ("limit.reached", "v1.meta", "v1.missing", "v1.foreign")
"""Errors after which not all tensors are known: a V1 file lists them in its first entry."""
Verdict = Literal["ok", "warnings", "damaged"]
"""A report in one word."""


@dataclass(frozen=True, slots=True, repr=False)
class TensorReport(Judged):
    """What is known of one tensor.

    Attributes:
        outcome: Its status, cause, note and so on. Each part of it is an attribute here too.
        name: Its stored name.
        dtype: Name of its numpy (or ml_dtypes) type, or `"string"` or `"variant"`; None if it is
            not known.
        shape: None if it is not known.
    """

    name: str
    dtype: str | None
    shape: tuple[int, ...] | None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as JSON holds them."""
        return {
            "dtype": self.dtype,
            "shape": None if self.shape is None else list(self.shape),
            **self.outcome.to_dict(),
        }

    def __repr__(self) -> str:
        shape = "" if self.shape is None else shape_text(self.shape)
        return f"<TensorReport {brief(self.name)} {self.dtype or '?'} {shape} {self.status}>"


class CountedTensors(Mapping[str, TensorReport]):
    """Reports that need not be made to be counted: most are of tensors that are whole."""

    @abstractmethod
    def count_statuses(self) -> Counter[Status]:
        """Count how many tensors have each status."""

    @abstractmethod
    def doubtful_names(self) -> set[str]:
        """Return the names of the tensors that are not proved."""

    @abstractmethod
    def noted_names(self) -> list[str]:
        """Return the names of the tensors that are not verified, in order."""

    def lost_names(self) -> Collection[str]:
        """Return names of tensors that are known to be corrupt or missing before they are made."""
        return ()

    @abstractmethod
    def patched(self) -> Iterable[TensorReport]:
        """Iterate over tensors whose patches are those of all, in order."""


class VerifiedTensors(CountedTensors):
    """Reports of tensors that are all verified."""

    def count_statuses(self) -> Counter[Status]:
        """All are verified."""
        return Counter({Status.VERIFIED: len(self)})

    def doubtful_names(self) -> set[str]:
        """None are."""
        return set()

    def noted_names(self) -> list[str]:
        """All are."""
        return []

    def patched(self) -> Iterable[TensorReport]:
        """For none were."""
        return ()


class ExaminedTensors(CountedTensors):
    """Reports of a damaged checkpoint: those of rows that are whole are made when asked for."""

    __slots__ = ("_corrected", "_failed", "_patched", "_statuses", "_tensors")

    def __init__(
        self,
        tensors: RowMapping[TensorReport],
        statuses: Mapping[Status, int],
        failed: Collection[str] = (),
        corrected: Collection[str] = (),
        patched: Collection[str] = (),
    ) -> None:
        """Take the reports.

        Args:
            tensors: All of them.
            statuses: How many of those that are not held have each status.
            failed: The names of those of them that are not proved.
            corrected: The names of those that are proved, and not verified.
            patched: Names of some of them, for which all the bytes were replaced that were for any.
        """
        self._tensors = tensors
        self._statuses = statuses
        self._failed = failed
        self._corrected = corrected
        self._patched = patched

    def __getitem__(self, name: str) -> TensorReport:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def __contains__(self, name: object) -> bool:
        return name in self._tensors

    def __repr__(self) -> str:
        return repr(dict(self))

    @property
    def rows(self) -> RowMapping[TensorReport]:
        """All of them, as they are kept."""
        return self._tensors

    def count_statuses(self) -> Counter[Status]:
        """Count those that are held; of the others the numbers are known."""
        found = Counter(one.status for one in self._tensors.held.values())
        found.update(self._statuses)
        return found

    def doubtful_names(self) -> set[str]:
        """Look at those that are held; of the others the names are known."""
        held = self._tensors.held.items()
        return {name for name, one in held if not one.status.proved}.union(self._failed)

    def noted_names(self) -> list[str]:
        """Look at those that are held; of the others the names are known."""
        noted = {*self._failed, *self._corrected}
        held = self._tensors.held.items()
        noted.update(name for name, one in held if one.status is not Status.VERIFIED)
        return [name for name in self._tensors if name in noted]

    def lost_names(self) -> Collection[str]:
        """Return the names of those that are not proved, if nothing is had of any of them."""
        in_part = self._statuses.get(Status.PARTIAL) or self._statuses.get(Status.UNVERIFIED)
        return () if in_part else self._failed

    def patched(self) -> Iterable[TensorReport]:
        """Take those that are held, and of the others those that tell of all patches."""
        tensors, held = self._tensors, self._tensors.held
        return (tensors[name] for name in tensors if name in self._patched or name in held)


@dataclass(frozen=True, slots=True)
class FileRange:
    """A run of bytes of a file.

    Attributes:
        start: Its first byte.
        stop: One past its last.
        kind: `verified`, `bad`, `unverified`, `unreferenced`, `zeros`, `absent`, or `patched` in
            the report of a recovery: others were taken in their place.
    """

    start: int
    stop: int
    kind: str


@dataclass(frozen=True, slots=True)
class FilePiece:
    """A run of bytes of a file that an image holds.

    Attributes:
        path: The image, or the file of a directory; None if these bytes were not found.
        offset: Of the first of them there, in bytes.
        size: In bytes.
    """

    path: str | None
    offset: int
    size: int


@dataclass(frozen=True, slots=True, repr=False)
class FileReport:
    """One file and the map of its ranges, in order and without gaps.

    Attributes:
        path: The file.
        role: `index`, `shard`, `v1`, `state`, `leftover`, `graph`, `fingerprint`.
        size: In bytes; None if the file is not there.
        ranges: What each run of its bytes is. Ranges past its end are `absent`.
        pieces: If it is no file of its own, but put together of what a disk image holds: what it
            consists of, in order.
    """

    path: str
    role: str
    size: int | None
    ranges: tuple[FileRange, ...] = ()
    pieces: tuple[FilePiece, ...] = ()

    def patched(self, spans: Iterable[Span]) -> FileReport:
        """Return the same with some bytes called `patched`."""
        merged = merge_spans(list(spans))
        return replace(self, ranges=tuple(_with_patches(self.ranges, merged)))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as JSON holds them."""
        return {
            "role": self.role,
            "size": self.size,
            "ranges": [[part.start, part.stop, part.kind] for part in self.ranges],
            "pieces": [[piece.path, piece.offset, piece.size] for piece in self.pieces],
        }

    def __repr__(self) -> str:
        return (
            f"<FileReport {self.path!r} {self.role}, {self.size} bytes, {len(self.ranges)} ranges>"
        )


def _with_patches(ranges: Sequence[FileRange], patched: Sequence[Span]) -> Iterator[FileRange]:
    """Iterate over a file's ranges, cut where patched ones begin and end."""
    pending = list(patched)
    for part in ranges:
        start = part.start
        while pending and pending[0][0] < part.stop:
            first, last = pending[0]
            if start < first:
                yield FileRange(start, first, part.kind)
            stop = min(last, part.stop)
            if max(start, first) < stop:
                yield FileRange(max(start, first), stop, "patched")
            start = max(start, stop)
            if last > part.stop:
                break
            pending.pop(0)
        if start < part.stop:
            yield FileRange(start, part.stop, part.kind)


@dataclass(frozen=True, slots=True)
class OtherCheckpoint:
    """Another checkpoint of the same directory, and the share of its bytes that is verified."""

    path: str
    step: int | None
    share: float
    ok: bool

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as JSON holds them."""
        return {"path": self.path, "step": self.step, "share": self.share, "ok": self.ok}


@dataclass(frozen=True, slots=True)
class Outlook:
    """What `ckptparse.recover` gives of a damaged checkpoint.

    Attributes:
        total: Tensors that are known after the repairs.
        proved: Those of them that come back whole.
        in_part: Those that come back in part, or without proof.
        complete: Whether every tensor of the checkpoint is among them, as far as can be known.
        unnamed_bytes: Bytes of the data files that belong to none of them.
        exact: Whether `recover` gives exactly this. Else it gives at least this: of a large
            checkpoint the repairs of data are not tried.
    """

    total: int
    proved: int
    in_part: int
    complete: bool
    unnamed_bytes: int
    exact: bool = True

    @classmethod
    def of(cls, report: Report) -> Outlook:
        """Count what a report lists."""
        counts = count_statuses(report.tensors)
        return cls(
            len(report.tensors),
            sum(number for status, number in counts.items() if status.proved),
            counts[Status.PARTIAL] + counts[Status.UNVERIFIED],
            report.complete,
            report.unnamed_bytes,
        )


@dataclass(frozen=True, slots=True, repr=False)
class Report:
    """What was found. Damage is a value here, and no exception.

    Two reports are equal if they found the same, whatever was asked for.

    Attributes:
        path: The checkpoint's prefix, or the V1 file.
        format: `"v2"` or `"v1"`.
        tensors: Every tensor by name, sorted as the index is.
        files: Every file of the checkpoint by path, and leftovers beside them.
        problems: What is wrong, errors first.
        object_graph: State of the object graph, which is no tensor; None if there is none.
        others: Other checkpoints of the directory, the best first. Empty if this one is whole.
        outlook: What `recover` gives; None if nothing is damaged, or if nobody looked.
        names_all: Whether the index names every tensor, as it is or with its damage corrected.
        version: The version of ckptparse that made it.
        options: What was asked for, as plain values: the job, the path, and what else was given.
        inputs: Every file that was read; with SHA-256 if that was asked for.
        limits: The bounds that it was made with.
        left_out: How many tensors of the index were not looked at, if a problem says that there
            are too many that are damaged or share bytes.
    """

    path: str
    format: str
    tensors: Mapping[str, TensorReport]
    files: Mapping[str, FileReport]
    problems: tuple[Problem, ...]
    object_graph: TensorReport | None = None
    others: tuple[OtherCheckpoint, ...] = ()
    outlook: Outlook | None = None
    names_all: bool = False
    version: str = field(default_factory=own_version, compare=False)
    options: Mapping[str, Any] = field(default_factory=dict, compare=False)
    inputs: tuple[HashedFile, ...] = field(default=(), compare=False)
    limits: Limits = field(default=DEFAULT_LIMITS, compare=False)
    left_out: int = 0

    @classmethod
    def merge(cls, reports: Iterable[Report]) -> Report:
        """Put the reports of all parts of a checkpoint together; see `ckptparse.parts`.

        Every tensor has the status that `verify` gives it. Why one is damaged is told by the
        tensors of its own part, so where `verify` finds that bytes are shifted, this may not know.

        Args:
            reports: What `Part.verify` gave, in any order. If a part was done twice, the first of
                its reports counts.

        Raises:
            ValueError: One is missing, or they are not those of one checkpoint.
        """
        from ckptparse.examination.merging import merge_reports

        return merge_reports(reports)

    @property
    def ok(self) -> bool:
        """Whether everything that a reader could use is there and whole."""
        return not any(problem.severity is Severity.ERROR for problem in self.problems)

    @property
    def verdict(self) -> Verdict:
        """`"ok"`, `"warnings"` (nothing is lost, but see the problems) or `"damaged"`."""
        if not self.ok:
            return "damaged"
        return "ok" if all(problem.is_aside for problem in self.problems) else "warnings"

    def __bool__(self) -> bool:
        return self.ok

    @property
    def counts(self) -> dict[str, int]:
        """How many tensors have each status, in the order of `Status`."""
        found = count_statuses(self.tensors)
        return {status.value: found[status] for status in Status if found[status]}

    def doubtful_names(self) -> set[str]:
        """Return the names of the tensors that are not proved."""
        return doubtful_names(self.tensors)

    def noted_names(self) -> list[str]:
        """Return the names of the tensors that are not simply whole, in the order of the index.

        They are those that are not verified. A graph stores no checksums: unverified is usual
        there.
        """
        tensors = self.tensors
        if isinstance(tensors, CountedTensors):
            return tensors.noted_names()
        usual = {Status.VERIFIED, *([Status.UNVERIFIED] if self.format == "graph" else [])}
        return [name for name, one in tensors.items() if one.status not in usual]

    @property
    def patches(self) -> tuple[PatchedRange, ...]:
        """The bytes that were replaced in what was got back: those of each file, once."""
        known = self.tensors
        tensors = known.patched() if isinstance(known, CountedTensors) else known.values()
        return tuple(dict.fromkeys(patch for tensor in tensors for patch in tensor.patches))

    @property
    def unnamed_bytes(self) -> int:
        """How many bytes of the data files belong to no tensor of the report."""
        return sum(
            part.stop - part.start
            for file in self.files.values()
            if file.role == "shard"
            for part in file.ranges
            if part.kind in ("unreferenced", "zeros")
        )

    @property
    def complete(self) -> bool:
        """Whether every tensor of the checkpoint is in the report, as far as can be known.

        A damaged index may have named others. Their bytes are then in the data files, and no tensor
        of the report refers to them.
        """
        codes = {p.code for p in self.problems if p.severity is Severity.ERROR}
        if not self.tensors or not codes.isdisjoint(_LISTS):
            return False
        damaged = not self.names_all and any(code.startswith("index.") for code in codes)
        return not (self.unnamed_bytes and damaged)

    @property
    def unfinished(self) -> bool:
        """Whether tensors come from what an unfinished save left behind. No reader uses that."""
        return bool(self.tensors) and any(p.code == "set.unfinished" for p in self.problems)

    @property
    def next_step(self) -> str:
        """What to do next, in a line; empty if the checkpoint is whole."""
        return "" if self.ok else _advise(self)

    def listed_noted_names(self) -> list[str]:
        """Return as many of `noted_names` as `to_dict` lists."""
        return take_named(self.noted_names(), self._most_listed)

    @property
    def _most_listed(self) -> int:
        return self.limits.most_listed(sum(file.size or 0 for file in self.files.values()))

    def listed_names(self) -> list[str]:
        """Return the names of the tensors that `to_dict` lists, in the order of the index.

        They are all, or as many as a quarter of what `Limits.small_tensors` allows: first those
        that `noted_names` names, then others.
        """
        tensors, most = self.tensors, self._most_listed
        if count_named(tensors) <= most:
            return list(tensors)
        noted = dict.fromkeys(self.noted_names())
        others = (name for name in tensors if name not in noted)
        chosen = set(take_named(chain(noted, others), most))
        return [name for name in tensors if name in chosen]

    def listed_held(self) -> Iterator[TensorReport]:
        """Iterate over those of `listed_names` that are neither corrupt nor missing."""
        tensors = self.tensors
        lost = set(tensors.lost_names() if isinstance(tensors, CountedTensors) else ())
        for name in self.listed_names():
            one = None if name in lost else tensors[name]
            if one is not None and one.status not in (Status.CORRUPT, Status.MISSING):
                yield one

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as plain values, as JSON holds them.

        Of very many tiny tensors some are not listed: `unlisted` is then how many. See
        `Limits.small_tensors`.
        """
        listed = self.listed_names()
        unlisted = len(self.tensors) - len(listed)
        return {
            "path": self.path,
            "format": self.format,
            "ok": self.ok,
            "counts": self.counts,
            "problems": [problem.to_dict() for problem in self.problems],
            "tensors": {name: self.tensors[name].to_dict() for name in listed},
            **({"unlisted": unlisted} if unlisted else {}),
            "object_graph": None if self.object_graph is None else self.object_graph.to_dict(),
            "files": {path: file.to_dict() for path, file in self.files.items()},
            "others": [other.to_dict() for other in self.others],
            "version": self.version,
            "options": dict(self.options),
            "inputs": [one.to_dict() for one in self.inputs],
        }

    def to_dfxml(self) -> str:
        """Return files and tensors as Digital Forensics XML, without its declaration."""
        from ckptparse.rendering.dfxml import to_dfxml

        return to_dfxml(self)

    def render(
        self,
        *,
        width: int | None = None,
        paint: Paint | None = None,
        everything: bool = False,
        maps: bool = False,
        inputs: bool = False,
        advice: bool = True,
    ) -> str:
        """Return it in words, as `ckptparse verify` prints it. `str(report)` is the short form.

        Args:
            width: Characters of a line; None folds no line.
            paint: Gives a text its style (`bold`, `red` ...); None gives plain text.
            everything: Name every tensor and problem, whole tensors too.
            maps: Draw each file: what every range of its bytes is.
            inputs: List the files that were read, and their SHA-256.
            advice: End with what to do next.
        """
        from ckptparse.rendering.text import render_report

        return render_report(
            self,
            width=width,
            paint=paint,
            everything=everything,
            maps=maps,
            inputs=inputs,
            advice=advice,
        )

    def __str__(self) -> str:
        return self.render()

    def _repr_html_(self) -> str:
        """Show it in a notebook."""
        from ckptparse.rendering.notebook import report_html

        return report_html(self)

    def __repr__(self) -> str:
        return (
            f"<Report of {self.path!r}: {self.verdict}, {len(self.tensors)} tensors, "
            f"{len(self.problems)} problems>"
        )


def count_statuses(tensors: Mapping[str, TensorReport]) -> Counter[Status]:
    """Count how many tensors have each status."""
    if isinstance(tensors, CountedTensors):
        return tensors.count_statuses()
    return Counter(tensor.status for tensor in tensors.values())


def doubtful_names(tensors: Mapping[str, TensorReport]) -> set[str]:
    """Return the names of the tensors that are not proved."""
    if isinstance(tensors, CountedTensors):
        return tensors.doubtful_names()
    return {name for name, tensor in tensors.items() if not tensor.status.proved}


def _advise(report: Report) -> str:
    """Say what to do: what `recover` gives, what to fetch again, or which checkpoint is whole."""
    errors = [problem for problem in report.problems if problem.severity is Severity.ERROR]
    if report.format != "graph" and all(error.code == "graph.damaged" for error in errors):
        # The graph of the SavedModel around it is all that is damaged.
        return f"copy or download '{escape(errors[0].where)}' again: the variables are whole"
    path = shlex.quote(escape(report.path))
    found = report.outlook or replace(Outlook.of(report), exact=False)
    steps = list(_raise_limits(errors, path))
    whole = found.proved == found.total and found.complete
    fetch = "" if whole else ", and ".join(_fetch(report))
    # A limit says nothing of what was not read, and what is fetched may hold all.
    if found.proved or found.in_part or not (steps or fetch):
        steps += _recover(found, path)
    steps += [fetch] if fetch else []
    use = next((other for other in report.others if other.ok), None)
    if use is not None:
        steps.append(f"use {escape(use.path)}, which is whole")
    lost = next((error for error in errors if error.code == "index.missing"), None)
    if lost is not None and not found.total:
        steps.append(
            f"as there is no index: copy or download '{escape(lost.where)}', or say what the data "
            f"holds: `ckptparse recover {path} -o OUT --from FILE` with its .meta file, an event "
            "file, a SavedModel or another checkpoint of the same model, or `--shapes FILE` with "
            "names and shapes"
        )
    return ", or ".join(steps) or "copy or download its files again: none of them can be used"


def _raise_limits(errors: Sequence[Problem], path: str) -> Iterator[str]:
    """Say how to look at what limits left out: each message of them names its own."""
    said = " ".join(error.message for error in errors if error.code == "limit.reached")
    known = {one.name for one in fields(Limits)}
    names = [name for name in dict.fromkeys(re.findall(r"Limits\.(\w+)", said)) if name in known]
    if names:
        options = " ".join(f"--limit {name}=..." for name in names)
        yield f"if the files can be trusted, raise the limit: `ckptparse verify {path} {options}`"


def _recover(found: Outlook, path: str) -> Iterator[str]:
    """Say what `recover` gives, and with which option."""
    command = f"`ckptparse recover {path} -o OUT`"
    least = "" if found.exact else "at least "
    if not found.proved and found.in_part:
        command = f"`ckptparse recover {path} -o OUT --offer plausible`"
        number, more = found.in_part, ", none of them proved"
    else:
        number, more = found.proved, ""
        if found.in_part:
            more = f", and with `--offer plausible` {found.in_part} more in part or without proof"
    if found.proved == found.total > 0 and found.complete:
        yield f"{command} saves all {found.total} tensors"
    elif number and not found.complete:
        size = found.unnamed_bytes
        unknown = f"{size:,} bytes of data belong to tensors" if size else "there may be others"
        yield f"{command} saves {least}{number} tensors{more}; {unknown} whose names are lost"
    elif number:
        least = least if number < found.total else ""
        yield f"{command} saves {least}{number} of {found.total} tensors{more}"
    elif found.total:
        yield f"`ckptparse recover` gives single values at most; {found.total} tensors are lost"


def _fetch(report: Report) -> Iterator[str]:
    """Say how to get the files that are missing, or are of another kind, such as an HTML page."""
    renamed = {problem.where for problem in report.problems if problem.code == "shard.renamed"}
    wanted: dict[tuple[str, ...], dict[str, None]] = {(): {}}
    for problem in report.problems:
        if problem.code in _TO_FETCH and problem.where not in renamed:
            wanted.setdefault(problem.fetch, {})[problem.where] = None
    for commands, paths in wanted.items():
        if commands and paths:
            where = "its repository" if len(paths) == 1 else "their repository"
            yield f"fetch {_listed(paths)} with {' or '.join(commands)} in {where}"
    again = f"copy or download {_listed(wanted[()])} again" if wanted[()] else ""
    if renamed and again:
        again += " and give what was renamed its own name (see shard.renamed)"
    if again:
        yield again


def _listed(paths: Iterable[str]) -> str:
    names = [f"'{escape(path)}'" for path in paths]
    shown = ", ".join(names[:3])
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown
