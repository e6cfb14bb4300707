"""`ckptparse write`: a checkpoint of the arrays in npz, safetensors or other files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import ckptparse
from ckptparse.cli.options import Option
from ckptparse.cli.output import Output
from ckptparse.cli.parameters import (
    DryRunOption,
    OverwriteOption,
    PrefixArgument,
    ShardSizeOption,
    SourceArgument,
)
from ckptparse.cli.progress import working
from ckptparse.cli.running import GOOD, Run
from ckptparse.cli.sizes import parse_size
from ckptparse.cli.writing import check_prefix
from ckptparse.text import count, escape, size_text

__all__ = ["write"]


def write(
    run: Run,
    path: SourceArgument,
    output: PrefixArgument,
    *,
    objects: Annotated[
        bool,
        Option("--objects", help="Add an object graph; each name is taken for a path of objects."),
    ] = False,
    update_state: Annotated[
        bool,
        Option(
            "--update-state", help="Make it the newest checkpoint of the directory's state file."
        ),
    ] = False,
    max_shard_size: ShardSizeOption = None,
    dry_run: DryRunOption = False,
    overwrite: OverwriteOption = False,
) -> Written:
    """Write a checkpoint of the arrays in an npz or safetensors file.

    TensorFlow restores it.

    ckptparse write training/model.ckpt-10 model.ckpt
    ckptparse write --objects --update-state training/model.ckpt-10 model-1
    """
    if not dry_run:
        check_prefix(output, [path], overwrite=overwrite)
    with working(f"writing {escape(output)}", quiet=run.quiet) as advance:
        done = ckptparse.convert(
            path,
            output,
            format="v2",
            object_graph="make" if objects else None,
            update_state=update_state,
            max_shard_size=None if max_shard_size is None else parse_size(max_shard_size),
            overwrite=overwrite,
            dry_run=dry_run,
            progress=advance,
            cache=run.cache,
        )
    return Written(path, output, len(done.kept), done.nbytes, dry_run)


@dataclass(frozen=True, slots=True)
class Written:
    """What was written."""

    path: str
    written: str
    tensors: int
    nbytes: int
    dry_run: bool
    code: int = GOOD

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {
            "path": self.path,
            "dry_run": self.dry_run,
            "written": self.written,
            "tensors": self.tensors,
            "nbytes": self.nbytes,
        }

    def write(self, out: Output) -> None:
        """Write the prefix."""
        said = f"{count(self.tensors, 'tensor')}, {size_text(self.nbytes)}"
        if self.dry_run:
            out.summary(f"{said}; nothing was written")
            return
        out.path(self.written)
        out.summary(said)
