"""`ckptparse explain`: what a message that TensorFlow printed means."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Annotated, Any

import ckptparse
from ckptparse.cli.options import Argument
from ckptparse.cli.output import Output
from ckptparse.cli.running import GOOD, NOT_RUN, Run
from ckptparse.text import as_commands

__all__ = ["explain"]


def explain(
    run: Run,
    text: Annotated[
        str, Argument(metavar="TEXT", help="The message; '-' takes it from standard input.")
    ],
) -> Explained:
    """Explain a message that TensorFlow printed about a checkpoint.

    ckptparse explain 'Checksum does not match: stored 0 vs. calculated on the restored bytes 4004437628'
    ckptparse explain 'Not found: model.data-00001-of-00002; No such file or directory'
    """  # noqa: E501 - messages are as long as they are
    message = sys.stdin.read() if text == "-" else text
    run.detail(f"looking at {len(message)} characters")
    return Explained(ckptparse.explain(message))


@dataclass(frozen=True, slots=True)
class Explained:
    """What is known about the message."""

    explanation: ckptparse.Explanation

    @property
    def code(self) -> int:
        """The exit code: good if anything is known."""
        return NOT_RUN if self.explanation.code is None else GOOD

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        found = self.explanation
        return {
            "code": found.code,
            "meaning": found.meaning,
            "cause": found.cause,
            "advice": as_commands(found.advice),
        }

    def write(self, out: Output) -> None:
        """Write what it means, what happened and what to do."""
        fields = self.to_dict()
        out.fields((name, fields[name] or "-") for name in ("code", "meaning", "cause", "advice"))
