"""Files that a command writes: named by the user, whole or not there, and beside no input.

A file is written under a temporary name beside its own and takes that at the end, so that neither
an interrupt nor a full disk leaves half of one.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO

from ckptparse.cli.errors import UsageError

if TYPE_CHECKING:
    import numpy.typing as npt

    import ckptparse

_REPORT = "report.json"

__all__ = ["check_outputs", "write_file", "write_npy", "write_recovery"]


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
    if os.path.lexists(output):
        _check_replaced(output, overwrite=overwrite)
    parent = os.path.dirname(place)
    if not os.path.isdir(parent):
        raise UsageError(f"The output's directory '{parent}' does not exist", "make it first")


def _check_replaced(output: str, *, overwrite: bool) -> None:
    """Refuse to replace what the user did not ask to, or what is more than an earlier output."""
    if not overwrite:
        raise UsageError(
            f"The output '{output}' is already there",
            "choose another name, or replace it with --overwrite",
        )
    if os.path.isdir(output):
        names = os.listdir(output)
        others = [name for name in names if name != _REPORT and not name.endswith(".npy")]
        if others or (names and _REPORT not in names):
            raise UsageError(
                f"The output '{output}' is a directory that holds more than an earlier recovery",
                "only a directory that this command wrote is replaced",
            )


def _home(path: str) -> str:
    """Return the directory that an input lies in; its own where it is one."""
    real = os.path.realpath(path)
    return real if os.path.isdir(real) else os.path.dirname(real)


@contextmanager
def write_file(path: str, *, overwrite: bool) -> Iterator[BinaryIO]:
    """Write a file that appears under its name only when it is whole.

    Raises:
        UsageError: It came into being meanwhile.
    """
    place = os.path.realpath(path)
    handle, temporary = tempfile.mkstemp(
        prefix=f".{os.path.basename(place)}.", suffix=".part", dir=os.path.dirname(place)
    )
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
        _give_usual_mode(temporary)
        if overwrite:
            os.replace(temporary, place)
        else:
            _place_new(temporary, place)
    finally:
        if os.path.lexists(temporary):
            os.unlink(temporary)


def write_npy(path: str, array: npt.NDArray[Any], *, overwrite: bool) -> None:
    """Write an array as a .npy file."""
    import numpy as np

    with write_file(path, overwrite=overwrite) as file:
        np.save(file, array, allow_pickle=False)


def write_recovery(recovery: ckptparse.Recovery, output: str, *, overwrite: bool) -> dict[str, str]:
    """Write what was got back: a `.npz` file, or a directory of `.npy` files and the report.

    Returns:
        The tensors that could not be read any more, and why.

    Raises:
        UsageError: The output came into being meanwhile.
        CheckpointError: The files have changed meanwhile, or it cannot be written.
    """
    place = os.path.realpath(output)
    name = os.path.basename(place)
    directory = tempfile.mkdtemp(prefix=f".{name}.", suffix=".part", dir=os.path.dirname(place))
    try:
        made = os.path.join(directory, name)
        left_out = recovery.write(made)
        if os.path.isfile(made):
            os.replace(made, place) if overwrite else _place_new(made, place)
        else:
            _place_directory(made, place, overwrite=overwrite)
    finally:
        shutil.rmtree(directory)
    return left_out


def _place_directory(made: str, place: str, *, overwrite: bool) -> None:
    if os.path.lexists(place):
        _check_replaced(place, overwrite=overwrite)
        # Out of the way first: a directory takes the name of an empty one at most.
        os.rename(place, f"{made}.former")
    os.rename(made, place)


def _give_usual_mode(path: str) -> None:
    """Give a file the mode that a new one would have: temporary ones are private."""
    mask = os.umask(0)
    os.umask(mask)
    os.chmod(path, 0o666 & ~mask)


def _place_new(temporary: str, place: str) -> None:
    """Give a file its name, unless another took that meanwhile."""
    try:
        os.link(temporary, place)
    except FileExistsError:
        raise UsageError(f"The output '{place}' came into being meanwhile") from None
    except OSError:
        # A file system without hard links: the check is then only as good as its moment.
        if os.path.lexists(place):
            raise UsageError(f"The output '{place}' came into being meanwhile") from None
        os.rename(temporary, place)
