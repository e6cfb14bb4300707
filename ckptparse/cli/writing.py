"""Files that a command writes: named by the user, and beside no input.

Before the work starts, an output that may not be written is refused. `ckptparse.files.placing`
writes it, so that neither an interrupt nor a full disk leaves half of one.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from ckptparse.cli.errors import UsageError
from ckptparse.files.placing import place_file

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["check_outputs", "write_npy"]


def check_outputs(outputs: Sequence[str], inputs: Collection[str], *, overwrite: bool) -> None:
    """Refuse an output that exists, or that lies in the directory of an input or below it.

    Raises:
        UsageError: One is refused, or two are the same.
    """
    if len({os.path.realpath(output) for output in outputs}) < len(outputs):
        raise UsageError("Two outputs have the same name", "give each a name of its own")
    for output in outputs:
        _check_output(output, inputs, overwrite=overwrite)


def _check_output(output: str, inputs: Collection[str], *, overwrite: bool) -> None:
    place = os.path.realpath(output)
    for path in inputs:
        home = _home(path)
        if os.path.commonpath([home, place]) == home:
            raise UsageError(
                f"The output '{output}' would lie in the input's directory '{home}'",
                "write it elsewhere: the input's directory is never written to",
            )
    if os.path.lexists(output) and not overwrite:
        raise UsageError(
            f"The output '{output}' is already there",
            "choose another name, or replace it with --overwrite",
        )
    parent = os.path.dirname(place)
    if not os.path.isdir(parent):
        raise UsageError(f"The output's directory '{parent}' does not exist", "make it first")


def _home(path: str) -> str:
    """Return the directory that an input lies in; its own where it is one."""
    real = os.path.realpath(path)
    return real if os.path.isdir(real) else os.path.dirname(real)


def write_npy(path: str, array: npt.NDArray[Any], *, overwrite: bool) -> None:
    """Write an array as a .npy file."""
    import numpy as np

    with place_file(path, overwrite=overwrite) as file:
        np.save(file, array, allow_pickle=False)
