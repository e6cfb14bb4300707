"""Files that a command writes: named by the user, and beside no input.

Before the work starts, an output that may not be written is refused. `ckptparse.files.placing`
writes it, so that neither an interrupt nor a full disk leaves half of one.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import ckptparse
from ckptparse.cli.errors import UsageError
from ckptparse.files.placing import place_file

if TYPE_CHECKING:
    import numpy.typing as npt

_STANDARD_OUTPUT = ("-", "-.index")
"""What others take for standard output: here it would be a file of that name."""
_OTHER_FORMATS = (".npz", ".npy", ".safetensors", ".h5", ".hdf5", ".pt", ".pth", ".keras", ".pb")
"""Endings of files that are no checkpoints, though a prefix might end so."""
__all__ = ["check_outputs", "check_prefix", "write_npy"]


def check_outputs(outputs: Sequence[str], inputs: Collection[str], *, overwrite: bool) -> None:
    """Refuse an output that exists, or that lies in the directory of an input or below it.

    Raises:
        UsageError: One is refused, or two are the same.
    """
    if len(set(map(_real, outputs))) < len(outputs):
        raise UsageError("Two outputs have the same name", "give each a name of its own")
    for output in outputs:
        _check_output(output, inputs, overwrite=overwrite)


def check_prefix(output: str, inputs: Collection[str], *, overwrite: bool) -> None:
    """Refuse an output that is to be a checkpoint, and has the name of another file.

    Raises:
        UsageError: It has, or it may not be written; see `check_outputs`.
    """
    ending = next((one for one in _OTHER_FORMATS if output.endswith(one)), None)
    if ending is not None:
        raise UsageError(
            f"Expected the prefix of a checkpoint to write, found the name of a {ending} file",
            "give a name such as model.ckpt; `ckptparse convert` makes other files of it",
        )
    if output.endswith(".index"):
        raise UsageError(
            "Expected the prefix of a checkpoint to write, found the name of an index",
            f"give the prefix: '{output.removesuffix('.index')}'",
        )
    check_outputs([f"{output}.index"], inputs, overwrite=overwrite)


def _check_output(output: str, inputs: Collection[str], *, overwrite: bool) -> None:
    if os.path.basename(output) in _STANDARD_OUTPUT:
        raise UsageError(
            "Expected a path to write to, found '-'", "name a file, a prefix or a directory"
        )
    place = _real(output)
    for path in inputs:
        home = _home(path)
        if _is_below(place, home):
            _check_input(path)
            raise UsageError(
                f"The output '{output}' would lie in the input's directory '{home}'",
                "choose another directory: ckptparse writes nothing into the directory of an input",
            )
    if _is_url(output):
        return  # What lies there is asked when it is written.
    if os.path.lexists(output) and not overwrite:
        raise UsageError(
            f"The output '{output}' is already there",
            "choose another name, or replace it with --overwrite",
        )
    parent = os.path.dirname(place)
    if not os.path.isdir(parent):
        raise UsageError(
            f"The output's directory '{parent}' does not exist", "create the directory first"
        )


def _check_input(path: str) -> None:
    """Raise the error for an input that is not there: that its directory is taken is no news then.

    Raises:
        CheckpointNotFoundError: Nothing is there.
    """
    try:
        ckptparse.identify(path)
    except ckptparse.CheckpointNotFoundError:
        raise
    except (ckptparse.CheckpointError, OSError):
        return


def _home(path: str) -> str:
    """Return the directory that an input lies in; its own if it is one."""
    real = _real(path)
    return real if os.path.isdir(real) else os.path.dirname(real)


def _is_url(path: str) -> bool:
    return "://" in path


def _real(path: str) -> str:
    return path if _is_url(path) else os.path.realpath(path)


def _is_below(place: str, home: str) -> bool:
    """Tell whether a path lies in a directory; what a URL names is never on this machine."""
    if _is_url(place) or _is_url(home):
        return place.startswith(f"{home.rstrip('/')}/")
    return os.path.commonpath([home, place]) == home


def write_npy(path: str, array: npt.NDArray[Any], *, overwrite: bool) -> None:
    """Write an array as a .npy file."""
    import numpy as np

    with place_file(path, overwrite=overwrite) as file:
        np.save(file, array, allow_pickle=False)
