"""`ckptparse latest`: the newest checkpoint that a directory's state file leads to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import ckptparse
from ckptparse.cli.completion import complete_path
from ckptparse.cli.errors import UsageError
from ckptparse.cli.options import Argument
from ckptparse.cli.output import Output
from ckptparse.cli.running import GOOD, WARNED, Run
from ckptparse.text import clean, escape

__all__ = ["latest"]


def latest(
    run: Run,
    directory: Annotated[
        str,
        Argument(
            metavar="DIR",
            help="A directory with a 'checkpoint' state file.",
            complete=complete_path,
        ),
    ],
) -> Latest:
    """Print the prefix of a directory's newest checkpoint.

    ckptparse latest training
    ckptparse latest --json training
    """
    newest = ckptparse.latest_checkpoint(directory, cache=run.cache)
    if newest is None:
        raise _refuse(directory)
    state = ckptparse.checkpoint_state(directory, cache=run.cache)
    return Latest(directory, newest, state, WARNED if run.warnings else GOOD)


def _refuse(directory: str) -> Exception:
    """Say why a directory has no newest checkpoint, or that it is not there."""
    try:
        found = ckptparse.identify(directory)
    except ckptparse.CheckpointNotFoundError:
        return ckptparse.CheckpointNotFoundError("The directory does not exist", path=directory)
    hint = f"`ckptparse identify {escape(directory)}` tells what is there"
    try:
        ckptparse.open(directory).close()
    except ckptparse.CheckpointNotFoundError as error:
        # The state file names what is not there: another one may be.
        hint = clean(error.hint) if error.hint else hint
    except ckptparse.CheckpointError:
        pass
    return UsageError(
        f"No checkpoint that a state file lists is in '{escape(directory)}': it is "
        f"{clean(found.meaning)}",
        hint,
    )


@dataclass(frozen=True, slots=True)
class Latest:
    """The newest checkpoint, and what the state file lists."""

    directory: str
    newest: str
    state: ckptparse.CheckpointState | None
    code: int

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        listed = self.state
        return {
            "directory": self.directory,
            "latest": self.newest,
            "listed": None if listed is None else listed.latest,
            "paths": [] if listed is None else list(listed.paths),
            "timestamps": [] if listed is None else list(listed.timestamps),
            "last_preserved": None if listed is None else listed.last_preserved,
        }

    def write(self, out: Output) -> None:
        """Write the prefix, as it is: for `$(...)` in a shell."""
        out.path(self.newest)
