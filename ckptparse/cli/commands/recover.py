"""`ckptparse recover`: what a damaged checkpoint still gives, saved elsewhere."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated, Any

import ckptparse
from ckptparse.cli.completion import complete_path
from ckptparse.cli.errors import UsageError
from ckptparse.cli.options import Argument, Option
from ckptparse.cli.output import Output
from ckptparse.cli.parameters import OverwriteOption
from ckptparse.cli.progress import working
from ckptparse.cli.reports import describe_counts, write_report
from ckptparse.cli.running import DAMAGE, GOOD, WARNED, Run
from ckptparse.cli.writing import check_outputs
from ckptparse.files.placing import place_file
from ckptparse.text import escape

__all__ = ["recover"]


def recover(
    run: Run,
    path: Annotated[
        str,
        Argument(
            metavar="PATH",
            help="A prefix, an index, a data or V1 file.",
            complete=complete_path,
        ),
    ],
    *,
    output: Annotated[
        str | None,
        Option(
            "--output", "-o", metavar="OUT", help="A directory for .npy files, or one .npz file."
        ),
    ] = None,
    report: Annotated[
        str | None, Option("--report", metavar="FILE", help="Write the report as JSON.")
    ] = None,
    dry_run: Annotated[
        bool, Option("--dry-run", "-n", help="Report what would be got back; write nothing.")
    ] = False,
    siblings: Annotated[
        bool,
        Option("--siblings/--no-siblings", help="Whether other checkpoints beside it may help."),
    ] = True,
    evidence: Annotated[
        list[str] | None,
        Option(
            "--from",
            metavar="PATH",
            help="A file or directory that may help: a copy, a graph, an archive, a disk image; "
            "may be given several times.",
            complete=complete_path,
        ),
    ] = None,
    shapes: Annotated[
        str | None,
        Option("--shapes", metavar="FILE", help="Shapes by name as JSON, for a lost index."),
    ] = None,
    mapfile: Annotated[
        str | None,
        Option("--mapfile", metavar="FILE", help="What ddrescue could not read of an image."),
    ] = None,
    map_: Annotated[
        bool, Option("--map", help="Draw each file: what every range of its bytes is.")
    ] = False,
    overwrite: OverwriteOption = False,
) -> Recovered:
    """Save elsewhere what a damaged checkpoint still gives.

    ckptparse recover --dry-run training/model.ckpt-10
    ckptparse recover training/model.ckpt-10 -o rescued
    """
    if output is None and not dry_run:
        raise UsageError("It is not said where to write", "give -o OUT, or --dry-run")
    outputs = [] if dry_run else [file for file in (output, report) if file is not None]
    if output is not None:
        ckptparse.Recovery.check_path(output)
    # Before the work, which may take long; and after it, when all the files are known.
    check_outputs(outputs, [path, *(evidence or ())], overwrite=overwrite)
    with working(f"recovering {escape(path)}", quiet=run.quiet) as advance:
        recovery = ckptparse.recover(
            path,
            siblings=siblings,
            evidence=evidence or (),
            shapes=shapes,
            mapfile=mapfile,
            progress=advance,
        )
        left_out: dict[str, str] = {}
        check_outputs(outputs, recovery.report.files, overwrite=overwrite)
        if output is not None and not dry_run:
            left_out = recovery.write(output, overwrite=overwrite, report=False)
        written = None if dry_run else output
        answer = Recovered(recovery, written, map_, run.verbose, left_out)
    if report is not None and not dry_run:
        with place_file(report, overwrite=overwrite) as stream:
            stream.write(json.dumps(answer.to_dict(), indent=2, allow_nan=False).encode() + b"\n")
    return answer


@dataclass(frozen=True, slots=True)
class Recovered:
    """What was got back, and the report on all of it."""

    recovery: ckptparse.Recovery
    written: str | None
    maps: bool
    everything: bool
    left_out: dict[str, str]

    @property
    def whole(self) -> bool:
        """Whether nothing is lost of what is there, and all of it could be written."""
        return self.recovery.whole and not self.left_out

    @property
    def code(self) -> int:
        """The exit code."""
        if not self.whole:
            return DAMAGE
        return GOOD if self.recovery.untouched else WARNED

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {
            "whole": self.whole,
            "recovered": list(self.recovery),
            "written": self.written,
            "left_out": self.left_out,
            "report": self.recovery.report.to_dict(),
        }

    def write(self, out: Output) -> None:
        """Write the report, and what became of it."""
        report = self.recovery.report
        saved = self.written is not None
        write_report(out, report, maps=self.maps, everything=self.everything, saved=saved)
        got = f"got back {len(self.recovery):,} of {describe_counts(report)}"
        where = "nothing was written" if self.written is None else f"in {escape(self.written)}"
        if self.left_out:
            where += f", but {len(self.left_out):,} could not be read any more and are left out"
        out.summary(f"{got}; {where}")
