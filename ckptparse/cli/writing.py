"""Files that a command writes: named by the user, whole or not there, and beside no input.

A file is written under a temporary name beside its own and takes that at the end, so that neither
an interrupt nor a full disk leaves half of one.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO

from ckptparse.cli.errors import UsageError

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["check_output", "write_file", "write_npy"]


def check_output(output: str, inputs: Iterable[str], *, overwrite: bool) -> None:
    """Refuse an output that exists, or that lies in the directory of an input or below it.

    Raises:
        UsageError: It is refused.
    """
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
