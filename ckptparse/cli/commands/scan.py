"""`ckptparse scan`: the checkpoints inside a disk image, or a directory of fragments."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import ckptparse
from ckptparse.cli.completion import complete_path
from ckptparse.cli.options import Argument, Option
from ckptparse.cli.output import Output
from ckptparse.cli.progress import working
from ckptparse.cli.running import DAMAGE, GOOD, WARNED, Run
from ckptparse.text import escape

__all__ = ["scan"]


def scan(
    run: Run,
    image: Annotated[
        str,
        Argument(
            metavar="IMAGE",
            help="An image of a disk, any file, or a directory of fragments.",
            complete=complete_path,
        ),
    ],
    *,
    mapfile: Annotated[
        str | None,
        Option(
            "--mapfile",
            metavar="FILE",
            help="The mapfile of ddrescue: which parts of the image it could not read.",
        ),
    ] = None,
    state: Annotated[
        str | None,
        Option(
            "--state",
            metavar="FILE",
            help="A file that keeps what was found; the next scan continues from it.",
        ),
    ] = None,
) -> Scanned:
    """List the checkpoints inside a disk image.

    ckptparse scan disk.img
    ckptparse scan disk.img --state scan.json
    """
    run.own.update(filter(None, (mapfile, state)))
    with working(f"scanning {escape(image)}", quiet=run.quiet) as advance:
        found = ckptparse.scan(
            image, mapfile=mapfile, state=state, progress=advance, cache=run.cache
        )
    return Scanned(found)


@dataclass(frozen=True, slots=True)
class Scanned:
    """What was found."""

    scan: ckptparse.Scan

    @property
    def code(self) -> int:
        """The exit code: good if there is a checkpoint all of which is there."""
        if not any(one.share == 1.0 for one in self.scan):
            return DAMAGE
        return WARNED if self.scan.problems else GOOD

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return self.scan.to_dict()

    def write(self, out: Output) -> None:
        """Write a paragraph in a terminal, a record for each checkpoint piped."""
        if out.terminal:
            for line in str(self.scan).splitlines():
                out.line(escape(line))
            return
        if not self.scan:
            out.summary("no checkpoint was found")
        for one in self.scan:
            out.record(
                one.name,
                one.format,
                str(one.offset),
                str(one.tensors),
                str(one.nbytes),
                str(one.found),
            )
        for problem in self.scan.problems:
            out.summary(str(problem))
