"""`ckptparse stats`: smallest, largest, mean and the like of every tensor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import ckptparse
from ckptparse.cli.limits import LimitOption, read_limits
from ckptparse.cli.options import Argument
from ckptparse.cli.output import Column, Output
from ckptparse.cli.parameters import Naming, NamingOption, SourceArgument
from ckptparse.cli.progress import working
from ckptparse.cli.running import GOOD, Run
from ckptparse.text import count, escape

__all__ = ["stats"]

_FIELDS = ("elements", "nan", "infinite", "zeros", "smallest", "largest", "mean", "deviation")
_TITLES = ("ELEMENTS", "NAN", "INF", "ZEROS", "MIN", "MAX", "MEAN", "STD")


def stats(
    run: Run,
    path: SourceArgument,
    *,
    globs: Annotated[
        list[str] | None,
        Argument(
            metavar="GLOB",
            help="Only names that match one of these patterns; '*' also matches '/'.",
        ),
    ] = None,
    naming: NamingOption = Naming.CHECKPOINT,
    limit: LimitOption = None,
) -> Measured:
    """Print statistics of the values of every tensor.

    Smallest, largest, mean, standard deviation, zeros, NaN and infinities.

    ckptparse stats model.ckpt-1000
    ckptparse stats training '*weights'
    """
    with working(f"measuring {escape(path)}", quiet=run.quiet) as advance:
        found = ckptparse.stats(
            path,
            include=globs or None,
            naming=naming.value,
            progress=advance,
            cache=run.cache,
            limits=read_limits(limit),
        )
    if globs and not found:
        from ckptparse.cli.selection import pattern_not_found

        raise pattern_not_found("No tensor's name matches the pattern", globs[0], path=path)
    return Measured(path, found)


@dataclass(frozen=True, slots=True)
class Measured:
    """The statistics of every tensor."""

    path: str
    found: Mapping[str, ckptparse.Summary]
    code: int = GOOD

    def to_dict(self) -> dict[str, Any]:
        """Return them as JSON has them."""
        tensors = {name: summary.to_dict() for name, summary in self.found.items()}
        return {"path": self.path, "tensors": tensors}

    def write(self, out: Output) -> None:
        """Write a line for each tensor."""
        digits = 4 if out.terminal else 9
        columns = [Column("NAME", folds=True, style="cyan")]
        columns += [Column(title, align="right") for title in _TITLES]
        rows = ([escape(name), *_cells(one, digits)] for name, one in self.found.items())
        out.table(columns, rows)
        out.summary(count(len(self.found), "tensor"))


def _cells(summary: ckptparse.Summary, digits: int) -> list[str]:
    return [_cell(getattr(summary, name), digits) for name in _FIELDS]


def _cell(value: object, digits: int) -> str:
    if value is None:
        return "-"
    return f"{value:.{digits}g}" if isinstance(value, float) else str(value)
