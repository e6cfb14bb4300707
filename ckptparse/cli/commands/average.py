"""`ckptparse average`: the mean of several checkpoints, as a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import typer

import ckptparse
from ckptparse.cli.completion import complete_path
from ckptparse.cli.errors import UsageError
from ckptparse.cli.output import Output
from ckptparse.cli.parameters import LimitOption, OverwriteOption
from ckptparse.cli.progress import working
from ckptparse.cli.running import GOOD, Run
from ckptparse.cli.sizes import parse_size
from ckptparse.cli.writing import check_outputs
from ckptparse.text import escape

__all__ = ["average"]


def average(
    run: Run,
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH...", help="The checkpoints, newest last.", autocompletion=complete_path
        ),
    ],
    *,
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="OUT", help="The prefix to write.")
    ],
    weights: Annotated[
        list[float] | None,
        typer.Option("--weight", "-w", help="How much each counts; one for each checkpoint."),
    ] = None,
    max_shard_size: LimitOption = None,
    overwrite: OverwriteOption = False,
) -> Averaged:
    """Average checkpoints of one model; counters are the newest's.

    ckptparse average training/model.ckpt-1 training/model.ckpt-2 -o mean
    ckptparse average -w 1 -w 3 training/model.ckpt-1 training/model.ckpt-2 -o weighted
    """
    if weights and len(weights) != len(paths):
        raise UsageError(f"Expected a --weight for each of {len(paths)} checkpoints")
    check_outputs([output], paths, overwrite=overwrite)
    with working(f"averaging {len(paths)} checkpoints", quiet=run.quiet) as advance:
        written = ckptparse.average(
            paths,
            output,
            weights=weights or None,
            max_shard_size=None if max_shard_size is None else parse_size(max_shard_size),
            overwrite=overwrite,
            progress=advance,
        )
    return Averaged(tuple(paths), str(written))


@dataclass(frozen=True, slots=True)
class Averaged:
    """What was averaged, and where it lies."""

    paths: tuple[str, ...]
    written: str
    code: int = GOOD

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {"paths": list(self.paths), "written": self.written}

    def write(self, out: Output) -> None:
        """Write the prefix."""
        out.path(self.written)
        out.summary(f"the mean of {len(self.paths)} checkpoints, in {escape(self.written)}")
