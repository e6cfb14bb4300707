"""Temporary names, the step by which a file gets its own name, and what goes wrong with them.

`placing` writes by these: a file is made under a temporary name in the directory where it belongs,
reaches the disk, and is then renamed or linked in one step.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO, Protocol

from ckptparse.errors import (
    CheckpointError,
    CheckpointNotFoundError,
    OutputError,
    OutputExistsError,
    PermissionDeniedError,
)

__all__ = [
    "CREATE",
    "Output",
    "already_there",
    "create_file",
    "explained",
    "give_name",
    "identity_of",
    "mode_of",
    "move_away",
    "put_back",
    "real_place",
    "remove_placed",
    "sync_directory",
    "temporary_name",
]

_MARK = ".ckptparse-"
CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
"""How a file is made: only if nothing is there, not even a link."""
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_CANNOT_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.EPERM, errno.EISDIR)
"""Errors of a file system that has no `fsync` for directories."""


class Output(Protocol):
    """What is being written; errors of the system about it name its path."""

    path: str | None


# Names and places.


def temporary_name(directory: str) -> str:
    """Return a name in a directory that no other process has."""
    # Not made from the file's own name, which may have the greatest length already.
    return os.path.join(directory, f"{_MARK}{os.urandom(6).hex()}.part")


def create_file(directory: str, mode: int | None, path: str | None = None) -> tuple[str, BinaryIO]:
    """Create a file under a temporary name, with the usual mode of new files, or with `mode`."""
    path = temporary_name(directory) if path is None else path
    # The system applies the umask to 0o666. Reading the umask would change it for all threads.
    descriptor = os.open(path, CREATE, 0o666 if mode is None else 0o600)
    if mode is not None and hasattr(os, "fchmod"):
        os.fchmod(descriptor, mode)
    return path, os.fdopen(descriptor, "w+b")


def mode_of(place: str) -> int | None:
    """Return the mode of a file that will be replaced, so that a private file stays private."""
    try:
        return os.stat(place).st_mode & 0o777
    except OSError:
        return None


def identity_of(path: str) -> tuple[int, int]:
    """Return device and number of a file, by which it is known under any name."""
    status = os.lstat(path)
    return status.st_dev, status.st_ino


def give_name(temporary: str, place: str, *, overwrite: bool) -> None:
    """Give a file its own name; without `overwrite`, only if no other file has it meanwhile."""
    if overwrite:
        os.replace(temporary, place)
        return
    try:
        # `link` fails if the name exists. `rename` would replace the other file.
        os.link(temporary, place)
    except FileExistsError:
        raise already_there(place, "Another file has appeared there meanwhile") from None
    except OSError:
        # A file system without hard links: another process can still come between check and rename.
        if os.path.lexists(place):
            raise already_there(place, "Another file has appeared there meanwhile") from None
        os.rename(temporary, place)
        return
    os.unlink(temporary)


def move_away(places: list[str], former: dict[str, str], suffix: str | None = None) -> None:
    """Rename existing files; remember in `former` their temporary names, which end in `suffix`."""
    for place in places:
        if os.path.lexists(place):
            moved = place + suffix if suffix else temporary_name(os.path.dirname(place))
            former[place] = moved
            os.rename(place, moved)


def remove_placed(placed: dict[str, tuple[int, int]]) -> None:
    """Remove the files that got their names, unless another process replaced them."""
    for place, identity in placed.items():
        with suppress(OSError):
            if identity_of(place) == identity:
                os.unlink(place)


def put_back(former: dict[str, str]) -> None:
    """Give the files that were moved away their names again."""
    # In reverse order, so that the index, by which the others are found, comes last.
    for place, moved in reversed(former.items()):
        with suppress(OSError):
            os.rename(moved, place)


def sync_directory(directory: str) -> None:
    """Write a directory's names to the disk, if this system can do it."""
    if os.name == "nt":
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC:
            raise
    finally:
        os.close(descriptor)


# Errors.


@contextmanager
def explained(output: Output) -> Iterator[None]:
    """Turn the system's errors about an output into ours; leave all others as they are."""
    try:
        yield
    except CheckpointError:
        raise
    except OSError as error:
        # An error of `write` has no file name. One that names another file is not about the output.
        if error.filename is not None and not _is_ours(error.filename, output.path):
            raise
        raise _failed(error, output.path) from error


def _is_ours(filename: object, path: str | None) -> bool:
    if path is None or not isinstance(filename, str):
        return False
    place = os.path.realpath(path)
    beside = (path, os.path.dirname(place))
    return _MARK in filename or filename in beside or filename.startswith(place)


def _failed(error: OSError, path: str | None) -> CheckpointError:
    if isinstance(error, FileExistsError):
        return already_there(path)
    if isinstance(error, (FileNotFoundError, NotADirectoryError)):
        return CheckpointNotFoundError(
            "The directory to write into is not there", path=path, hint="Create it first"
        )
    if isinstance(error, PermissionError) or error.errno == errno.EROFS:
        return PermissionDeniedError(
            "You may not write there", path=path, hint="Choose another directory"
        )
    if error.errno in _NO_SPACE:
        return OutputError(
            "There is no space left on the disk",
            number=error.errno,
            path=path,
            hint="Nothing was written. Make room, or choose another disk",
        )
    return OutputError(f"It cannot be written: {error}", number=error.errno, path=path)


def already_there(path: str | None, what: str = "Something is there already") -> OutputExistsError:
    """Return the error for an output in whose place something is."""
    return OutputExistsError(
        f"{what}, and nothing is replaced unless you ask for it",
        path=path,
        hint="Choose another name, or ask to overwrite it",
    )


def real_place(path: str | os.PathLike[str]) -> str:
    """Return where a path leads to, through all links.

    Raises:
        OutputError: No file can have that name.
    """
    try:
        return os.path.realpath(path)
    except ValueError:  # A zero byte, or what the system cannot encode.
        raise OutputError(
            "No file can have that name", path=os.fsdecode(path), number=errno.EINVAL
        ) from None


def no_file_there(path: str | None, *, is_directory: bool) -> OutputExistsError:
    """Return the error for an output in whose place something is that no file may replace."""
    found = "a directory" if is_directory else "a device, a FIFO or a socket"
    return OutputExistsError(
        f"Expected a file or nothing, found {found}, which is never replaced by a file",
        path=path,
        hint="Choose another name",
    )
