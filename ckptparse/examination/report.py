"""What verifying and recovering found out, as values: tensors, files, problems, a report."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ckptparse.examination.outcome import Judged
from ckptparse.problems import Problem, Severity, Status
from ckptparse.text import brief, escape, shape_text

if TYPE_CHECKING:
    from ckptparse.rendering.text import Paint

__all__ = [
    "FileRange",
    "FileReport",
    "OtherCheckpoint",
    "Report",
    "TensorReport",
    "Verdict",
]

Verdict = Literal["ok", "warnings", "damaged"]
"""A report in a word."""


@dataclass(frozen=True, slots=True, repr=False)
class TensorReport(Judged):
    """What is known of one tensor.

    Attributes:
        outcome: Its status and all that goes with it; each part is an attribute of its own too.
        name: Its stored name.
        dtype: Name of its numpy (or ml_dtypes) type, `"string"` and `"variant"` for those; None
            if it is not known.
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


@dataclass(frozen=True, slots=True)
class FileRange:
    """A run of bytes of a file.

    Attributes:
        start: Its first byte.
        stop: One past its last.
        kind: `verified`, `bad`, `unverified`, `unreferenced`, `zeros` or `absent`.
    """

    start: int
    stop: int
    kind: str


@dataclass(frozen=True, slots=True, repr=False)
class FileReport:
    """One file and the map of its ranges, in order and without gaps.

    Attributes:
        path: The file.
        role: `index`, `shard`, `v1`, `state`, `leftover`, `graph`, `fingerprint`.
        size: In bytes; None where it is not there.
        ranges: What each run of its bytes is; ranges past its end are `absent`.
    """

    path: str
    role: str
    size: int | None
    ranges: tuple[FileRange, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as JSON holds them."""
        return {
            "role": self.role,
            "size": self.size,
            "ranges": [[part.start, part.stop, part.kind] for part in self.ranges],
        }

    def __repr__(self) -> str:
        return (
            f"<FileReport {self.path!r} {self.role}, {self.size} bytes, {len(self.ranges)} ranges>"
        )


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


@dataclass(frozen=True, slots=True, repr=False)
class Report:
    """What was found. Damage is a value here, not an exception.

    Attributes:
        path: The checkpoint's prefix, or the V1 file.
        format: `"v2"` or `"v1"`.
        tensors: Every tensor by name, sorted as the index is.
        files: Every file of the checkpoint by path, and what lies beside it.
        problems: What is wrong, the worst first.
        object_graph: The object graph's state, where there is one; it is no tensor.
        others: Other checkpoints of the directory, the best first, where this one is damaged.
    """

    path: str
    format: str
    tensors: Mapping[str, TensorReport]
    files: Mapping[str, FileReport]
    problems: tuple[Problem, ...]
    object_graph: TensorReport | None = None
    others: tuple[OtherCheckpoint, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing that a reader could ever use is damaged or missing."""
        return not any(problem.severity is Severity.ERROR for problem in self.problems)

    @property
    def verdict(self) -> Verdict:
        """`"ok"`, `"warnings"` (nothing is lost, but see the problems) or `"damaged"`."""
        if not self.ok:
            return "damaged"
        return "warnings" if self.problems else "ok"

    def __bool__(self) -> bool:
        return self.ok

    @property
    def counts(self) -> dict[str, int]:
        """How many tensors have each status, in the order of `Status`."""
        found = Counter(tensor.status for tensor in self.tensors.values())
        return {status.value: found[status] for status in Status if found[status]}

    @property
    def unfinished(self) -> bool:
        """Whether tensors come through what a save left behind, which no reader uses."""
        return bool(self.tensors) and any(p.code == "set.unfinished" for p in self.problems)

    @property
    def next_step(self) -> str:
        """What to do next, in a line; empty where the checkpoint is whole."""
        return "" if self.ok else _advise(self)

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as plain values, as JSON holds them."""
        return {
            "path": self.path,
            "format": self.format,
            "ok": self.ok,
            "counts": self.counts,
            "problems": [problem.to_dict() for problem in self.problems],
            "tensors": {name: tensor.to_dict() for name, tensor in self.tensors.items()},
            "object_graph": None if self.object_graph is None else self.object_graph.to_dict(),
            "files": {path: file.to_dict() for path, file in self.files.items()},
            "others": [other.to_dict() for other in self.others],
        }

    def render(
        self,
        *,
        width: int | None = None,
        paint: Paint | None = None,
        everything: bool = False,
        maps: bool = False,
        advice: bool = True,
    ) -> str:
        """Write it in words, as `ckptparse verify` prints it; `str(report)` is the short form.

        Args:
            width: Cells of a line; no line is folded if None.
            paint: Gives a text its style (`bold`, `red` ...); plain text if None.
            everything: Name every tensor and problem, also what is whole.
            maps: Draw each file: what every range of its bytes is.
            advice: End with what to do next.
        """
        from ckptparse.rendering.text import render_report

        return render_report(
            self, width=width, paint=paint, everything=everything, maps=maps, advice=advice
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


def _advise(report: Report) -> str:
    """Say what saves most: what is left here, or another checkpoint that is whole."""
    steps = []
    whole = sum(tensor.status.proved for tensor in report.tensors.values())
    in_part = sum(t.status in (Status.PARTIAL, Status.UNVERIFIED) for t in report.tensors.values())
    command = f"`ckptparse recover {shlex.quote(escape(report.path))} -o OUT`"
    total = len(report.tensors)
    if whole == total > 0:
        steps.append(f"{command} saves all {total} tensors")
    elif whole or in_part:
        more = f", what is left of {in_part} more" if in_part else ""
        steps.append(f"{command} saves {whole} of {total} tensors{more}")
    elif total:
        steps.append(f"`ckptparse recover` may give single values; {total} tensors are lost here")
    use = next((other for other in report.others if other.ok), None)
    if use is not None:
        steps.append(f"use {escape(use.path)}, which is whole")
    return ", or ".join(steps) or "copy or download its files again: nothing here can be used"
