"""`ckptparse diff`: what changed between two checkpoints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import ckptparse
from ckptparse.cli.completion import complete_path, complete_rules
from ckptparse.cli.options import Argument, Option
from ckptparse.cli.output import Column, Output
from ckptparse.cli.parameters import SourceArgument
from ckptparse.cli.progress import working
from ckptparse.cli.running import DAMAGE, GOOD, Run
from ckptparse.text import count, escape

__all__ = ["diff"]

_BY_CHECKSUM = "by their stored checksums; their data was not read"


def diff(
    run: Run,
    path: SourceArgument,
    other: Annotated[
        str,
        Argument(metavar="OTHER", help="The second checkpoint.", complete=complete_path),
    ],
    *,
    rtol: Annotated[
        float,
        Option("--rtol", min=0, help="The largest relative difference that still counts as equal."),
    ] = 0,
    atol: Annotated[
        float,
        Option("--atol", min=0, help="The largest absolute difference that still counts as equal."),
    ] = 0,
    read: Annotated[
        bool,
        Option(
            "--read",
            help="Compare the data of tensors whose stored checksums are equal, too. Without it, "
            "only the sizes of their data files are looked at.",
        ),
    ] = False,
    rules: Annotated[
        str | None,
        Option(
            "--rules",
            metavar="FILE",
            help="Rules that rename the tensors of the first checkpoint.",
            complete=complete_rules,
        ),
    ] = None,
) -> Compared:
    """Say what differs between two checkpoints.

    Tensors whose stored checksums are equal are equal; their data is not read unless --read is
    given. The exit code is 1 if anything differs.

    ckptparse diff training/model.ckpt-1 training/model.ckpt-2
    ckptparse diff --atol 0.001 training/model.ckpt-1 training/model.ckpt-2
    """
    with working(f"comparing {escape(path)}", quiet=run.quiet) as advance:
        found = ckptparse.diff(
            path,
            other,
            rtol=rtol,
            atol=atol,
            rename=rules,
            read_data=read,
            progress=advance,
            cache=run.cache,
        )
    return Compared(found)


@dataclass(frozen=True, slots=True)
class Compared:
    """What changed."""

    found: ckptparse.Diff

    @property
    def code(self) -> int:
        """The exit code: 1 if anything is different, as that of `diff` is."""
        return GOOD if self.found.same else DAMAGE

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return self.found.to_dict()

    def write(self, out: Output) -> None:
        """Write a line for each difference."""
        found = self.found
        rows = [["added", escape(name), "-"] for name in found.added]
        rows += [["removed", escape(name), "-"] for name in found.removed]
        rows += [["renamed", escape(old), f"now {escape(new)}"] for old, new in found.renamed]
        rows += [["changed", escape(name), str(change)] for name, change in found.changed.items()]
        said = str(found).splitlines()
        more = said[-2:-1] if found.unread else []
        if found.same:
            is_told = bool(found.unread) and found.unread == found.equal
            rows = [["equal", count(len(found.equal), "tensor"), _BY_CHECKSUM if is_told else "-"]]
            more = [] if is_told else more
        columns = [
            Column("WHAT"),
            Column("NAME", folds=True, style="cyan"),
            Column("HOW", folds=True, prose=True),
        ]
        out.table(columns, rows)
        out.summary("\n".join([*more, said[-1]]))
