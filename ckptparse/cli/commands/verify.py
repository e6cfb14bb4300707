"""`ckptparse verify`: whether every byte of a checkpoint is as it was written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import ckptparse
from ckptparse.cli.completion import complete_path
from ckptparse.cli.limits import LimitOption, read_limits
from ckptparse.cli.options import Argument, Option
from ckptparse.cli.output import Output
from ckptparse.cli.progress import working
from ckptparse.cli.reports import write_report
from ckptparse.cli.running import DAMAGE, GOOD, NOT_RUN, WARNED, Run
from ckptparse.text import escape

__all__ = ["verify"]


def verify(
    run: Run,
    paths: Annotated[
        list[str],
        Argument(
            metavar="PATH",
            help="Prefixes, indexes, V1 files or directories.",
            complete=complete_path,
        ),
    ],
    *,
    map_: Annotated[
        bool, Option("--map", help="Draw each file: what every range of its bytes is.")
    ] = False,
    hash_: Annotated[
        bool,
        Option("--hash", help="Also give the SHA-256 of every file; each file is read once more."),
    ] = False,
    limit: LimitOption = None,
) -> Verified:
    """Check every byte of checkpoints, and report what is damaged.

    ckptparse verify model.ckpt-1000
    ckptparse verify --map training
    """
    reports = []
    limits = read_limits(limit)
    for path in paths:
        title = f"verifying {escape(path)}"
        with run.reporting(), working(title, quiet=run.quiet) as advance:
            reports.append(
                ckptparse.verify(
                    path, hashes=hash_, progress=advance, cache=run.cache, limits=limits
                )
            )
    shown = _Shown(map_, run.verbose, hash_)
    return Verified(tuple(reports), shown, _code(reports, complete=not run.errors))


def _code(reports: list[ckptparse.Report], *, complete: bool) -> int:
    """Choose the exit code: damage before what could not be looked at, before warnings."""
    verdicts = {report.verdict for report in reports}
    if "damaged" in verdicts:
        return DAMAGE
    if not complete:
        return NOT_RUN
    return WARNED if "warnings" in verdicts else GOOD


@dataclass(frozen=True, slots=True)
class _Shown:
    """How much of each report is shown."""

    maps: bool
    everything: bool
    inputs: bool


@dataclass(frozen=True, slots=True)
class Verified:
    """A report for each checkpoint."""

    reports: tuple[ckptparse.Report, ...]
    shown: _Shown
    code: int

    def to_dict(self) -> dict[str, Any]:
        """Return them as JSON has them."""
        return {"checkpoints": [report.to_dict() for report in self.reports]}

    def write(self, out: Output) -> None:
        """Write one after the other."""
        for number, report in enumerate(self.reports):
            if number and out.terminal:
                out.line()
            write_report(
                out,
                report,
                maps=self.shown.maps,
                everything=self.shown.everything,
                inputs=self.shown.inputs,
            )
