"""`ckptparse average`: the mean of several checkpoints, as a checkpoint."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import ckptparse
from ckptparse.cli.completion import complete_path
from ckptparse.cli.errors import UsageError
from ckptparse.cli.limits import LimitOption, read_limits
from ckptparse.cli.options import Argument, Option
from ckptparse.cli.output import Output
from ckptparse.cli.parameters import DryRunOption, OverwriteOption, ShardSizeOption
from ckptparse.cli.progress import working
from ckptparse.cli.running import GOOD, Run
from ckptparse.cli.sizes import parse_size
from ckptparse.cli.writing import check_prefix
from ckptparse.text import count, escape

__all__ = ["average"]


def average(
    run: Run,
    paths: Annotated[
        list[str],
        Argument(metavar="PATH", help="The checkpoints, newest last.", complete=complete_path),
    ],
    *,
    output: Annotated[
        str,
        Option(
            "--output", "-o", metavar="OUT", help="The prefix to write; in no PATH's directory."
        ),
    ],
    weights: Annotated[
        list[float] | None,
        Option(
            "--weight",
            "-w",
            help="The weight of one checkpoint; give one for each, in the same order.",
        ),
    ] = None,
    max_shard_size: ShardSizeOption = None,
    dry_run: DryRunOption = False,
    overwrite: OverwriteOption = False,
    limit: LimitOption = None,
) -> Averaged:
    """Average checkpoints of one model; counters are the newest's.

    ckptparse average training/model.ckpt-1 training/model.ckpt-2 -o mean
    ckptparse average -w 1 -w 3 training/model.ckpt-1 training/model.ckpt-2 -o weighted
    """
    shares = _weights(weights, len(paths))
    if not dry_run:
        check_prefix(output, paths, overwrite=overwrite)
    with working(f"averaging {count(len(paths), 'checkpoint')}", quiet=run.quiet) as advance:
        written = ckptparse.average(
            paths,
            output,
            weights=shares,
            max_shard_size=None if max_shard_size is None else parse_size(max_shard_size),
            overwrite=overwrite,
            dry_run=dry_run,
            progress=advance,
            cache=run.cache,
            limits=read_limits(limit),
        )
    return Averaged(tuple(paths), str(written), dry_run)


@dataclass(frozen=True, slots=True)
class Averaged:
    """What was averaged, and where it lies."""

    paths: tuple[str, ...]
    written: str
    dry_run: bool
    code: int = GOOD

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {"paths": list(self.paths), "dry_run": self.dry_run, "written": self.written}

    def write(self, out: Output) -> None:
        """Write the prefix."""
        if self.dry_run:
            out.summary(f"{len(self.paths)} checkpoints can be averaged; nothing was written")
            return
        out.path(self.written)
        out.summary(
            f"the mean of {count(len(self.paths), 'checkpoint')}, in {escape(self.written)}"
        )


def _weights(given: Sequence[float] | None, count: int) -> list[float] | None:
    """Return the weights as numbers, or None if none are given."""
    if not given:
        return None
    if len(given) != count:
        raise UsageError(f"Expected a --weight for each of {count} checkpoints")
    try:
        weights = [float(weight) for weight in given]
    except ValueError as error:
        raise UsageError(f"Expected a number after --weight: {error}") from error
    total = sum(weights)
    if not (math.isfinite(total) and total > 0):
        raise UsageError(f"Expected weights of a positive sum, found {total}")
    return weights
