"""`ckptparse page`: one page that shows what is in a checkpoint, and which of it is broken."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import ckptparse
from ckptparse.cli.options import Option
from ckptparse.cli.output import Output
from ckptparse.cli.parameters import OverwriteOption, PathArgument
from ckptparse.cli.progress import working
from ckptparse.cli.running import GOOD, Run
from ckptparse.cli.writing import check_outputs
from ckptparse.text import escape

__all__ = ["page"]


def page(
    run: Run,
    path: PathArgument,
    *,
    output: Annotated[
        str, Option("--output", "-o", metavar="FILE", help="The page; not in PATH's directory.")
    ],
    stats: Annotated[
        bool, Option("--stats/--no-stats", help="Whether to read the values, for their statistics.")
    ] = True,
    verify: Annotated[
        bool, Option("--verify/--no-verify", help="Whether to check every checksum.")
    ] = True,
    overwrite: OverwriteOption = False,
) -> Page:
    """Make one page to look at, or to send.

    ckptparse page saved_model -o page.html
    ckptparse page --no-stats training/model.ckpt-10 -o checkpoint.html
    """
    check_outputs([output], [path], overwrite=overwrite)
    with working(f"looking at {escape(path)}", quiet=run.quiet) as advance:
        ckptparse.report_page(
            path,
            output,
            overwrite=overwrite,
            statistics=stats,
            verify=verify,
            progress=advance,
            cache=run.cache,
        )
    return Page(path, output)


@dataclass(frozen=True, slots=True)
class Page:
    """The page that was written."""

    path: str
    written: str
    code: int = GOOD

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {"path": self.path, "written": self.written}

    def write(self, out: Output) -> None:
        """Say where it is."""
        out.line(f"wrote {escape(self.written)}")
