"""Files that appear under their own names only when they are whole.

    with place_file("out.npy") as file:              one file
    with place_files() as files:                     several, which appear together
        with files.open("m.data-00000-of-00001") as file:
        with files.open("m.index") as file:          the last one is placed last
    with place_directory("out") as directory:        a directory of files
        with directory.open("a.npy") as file:

What is written has a temporary name in the same directory: `.ckptparse-….part`, unless the caller
says which, so that whoever recovers what a killed process left knows what belongs together. When
all is written and has reached the disk, it takes its own name. After an error or an interrupt
nothing is left behind. Nothing that is there is replaced unless `overwrite` is true.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import BinaryIO

from ckptparse.errors import (
    CheckpointError,
    CheckpointNotFoundError,
    OutputError,
    OutputExistsError,
    PermissionDeniedError,
    UnsupportedError,
)

__all__ = [
    "OutputDirectory",
    "OutputFiles",
    "Suffixes",
    "check_absent",
    "check_elsewhere",
    "place_directory",
    "place_file",
    "place_files",
]

_MARK = ".ckptparse-"
_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_CANNOT_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.EPERM, errno.EISDIR)
"""A file system that gives one of these for a directory has no `fsync` of directories."""


@contextmanager
def place_file(path: str | os.PathLike[str], *, overwrite: bool = False) -> Iterator[BinaryIO]:
    """Write one file that appears under its name only when it is whole.

    Raises:
        OutputExistsError: Something is there, and `overwrite` is false; or it is a directory.
        CheckpointNotFoundError: The directory to write into is not there.
        PermissionDeniedError: Nobody may write there.
        OutputError: The disk is full, or the system refuses for another reason.
    """
    with place_files(overwrite=overwrite) as files, files.open(path) as file:
        yield file


@dataclass(frozen=True, slots=True)
class Suffixes:
    """What the temporary names of a set of files end in."""

    written: str
    """Of what is being written."""
    former: str
    """Of what was there before, until all is placed."""


@contextmanager
def place_files(
    *, overwrite: bool = False, retired: Collection[str] = (), suffixes: Suffixes | None = None
) -> Iterator[OutputFiles]:
    """Write several files that appear when all of them are whole, in the order they were begun.

    Put last the file by which the others are found (the index). When others are replaced, that one
    goes first: whoever looks meanwhile finds no file that belongs to others than those beside it.

    Args:
        overwrite: Whether files that are there are replaced.
        retired: Files that belong to those that are replaced, and go with them.
        suffixes: What temporary names end in, after the file's own name; by chance unless given.

    Raises:
        CheckpointError: As `place_file`; then all is as it was before.
    """
    files = OutputFiles(overwrite=overwrite, retired=retired, suffixes=suffixes)
    try:
        with _explained(files):
            yield files
            files.finish()
    finally:
        files.discard()


@contextmanager
def place_directory(
    path: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    may_replace: Callable[[Collection[str]], bool] = lambda names: not names,
) -> Iterator[OutputDirectory]:
    """Write a directory that appears under its name only when every file in it is whole.

    Args:
        path: Where it is to be.
        overwrite: Whether a directory that is there may be replaced.
        may_replace: Whether a directory with these names in it is one that may be replaced at all.
            Without it, only an empty one is.

    Raises:
        CheckpointError: As `place_file`; then all is as it was before.
    """
    directory = OutputDirectory(path, overwrite=overwrite, may_replace=may_replace)
    try:
        with _explained(directory):
            directory.make()
            yield directory
            directory.finish()
    finally:
        directory.discard()


def check_absent(path: str | os.PathLike[str]) -> None:
    """Raise `OutputExistsError` if something lies at a path, a link that leads nowhere included."""
    if os.path.lexists(path):
        raise _exists(os.fsdecode(path))


@dataclass(slots=True)
class _Output:
    """A file that is being written."""

    path: str
    """Its own name, as the caller gave it."""
    place: str
    """The same with links followed: a link that is there stays one."""
    temporary: str
    stream: BinaryIO

    def sync(self) -> None:
        """Bring it to the disk, and close it."""
        if self.stream.closed:
            descriptor = os.open(self.temporary, os.O_RDWR)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            return
        self.stream.flush()
        os.fsync(self.stream.fileno())
        self.stream.close()


class OutputFiles:
    """Files that are being written, and appear together."""

    def __init__(
        self,
        *,
        overwrite: bool,
        retired: Collection[str] = (),
        suffixes: Suffixes | None = None,
    ) -> None:
        self._overwrite = overwrite
        self._retired = list(map(os.path.realpath, retired))
        self._suffixes = suffixes
        self._outputs: dict[str, _Output] = {}
        self.path: str | None = None
        """The file that was begun last."""

    def open(self, path: str | os.PathLike[str]) -> BinaryIO:
        """Begin a file, which can be written, read back and sought in; the caller closes it.

        Raises:
            CheckpointError: As `place_file`.
            ValueError: It has been begun already.
        """
        name = self.path = os.fsdecode(path)
        with _explained(self):
            place = self._new_place(name)
            written = None if self._suffixes is None else place + self._suffixes.written
            temporary, stream = _create(os.path.dirname(place), _mode_of(place), written)
        self._outputs[name] = _Output(name, place, temporary, stream)
        return stream

    def rename(self, path: str | os.PathLike[str], new: str | os.PathLike[str]) -> None:
        """Let a file appear under another name of the same directory than it was begun with.

        The number of data files stands in the name of each, and is known only when all are written.
        """
        old, name = os.fsdecode(path), os.fsdecode(new)
        if old == name:
            return
        place = self._new_place(name)
        if os.path.dirname(place) != os.path.dirname(self._outputs[old].place):
            raise ValueError(f"{name!r} lies in another directory than {old!r}")
        renamed = {name if key == old else key: one for key, one in self._outputs.items()}
        renamed[name].path, renamed[name].place = name, place
        self._outputs = renamed

    def finish(self) -> None:
        """Let every file appear."""
        outputs = list(self._outputs.values())
        for output in outputs:
            self.path = output.path
            output.sync()
        former: dict[str, str] = {}
        placed: dict[str, tuple[int, int]] = {}
        try:
            if self._overwrite and len(outputs) > 1:
                replaced = dict.fromkeys([output.place for output in reversed(outputs)])
                places = [*replaced, *(path for path in self._retired if path not in replaced)]
                _move_away(places, former, self._suffixes)
            for output in outputs:
                self.path = output.path
                if output is outputs[-1] and len(outputs) > 1:
                    # What the last one leads to has its name on the disk before that.
                    _sync_directories(outputs)
                placed[output.place] = _identity(output.temporary)
                _give_name(output.temporary, output.place, overwrite=self._overwrite)
            _sync_directories(outputs)
        except BaseException:
            # One file alone is placed in one step, and then it is whole: nothing to undo.
            if len(outputs) > 1:
                _remove(placed)
                _put_back(former)
            raise
        for moved in former.values():
            os.unlink(moved)
        self._outputs.clear()

    def discard(self) -> None:
        """Remove what has not appeared."""
        for output in self._outputs.values():
            with suppress(OSError):
                output.stream.close()
            with suppress(FileNotFoundError):
                os.unlink(output.temporary)
        self._outputs.clear()

    def _new_place(self, name: str) -> str:
        """Return where a file of that name is to be, if one may be there."""
        place = os.path.realpath(name)
        if any(place == output.place for output in self._outputs.values()):
            raise ValueError(f"{name!r} has been begun already")
        if os.path.isdir(place):
            raise _exists(name, "A directory is there")
        if not self._overwrite:
            check_absent(name)
        return place


class OutputDirectory:
    """A directory that is being written, and appears when it is whole."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        overwrite: bool,
        may_replace: Callable[[Collection[str]], bool],
    ) -> None:
        self.path: str | None = os.fsdecode(path)
        self._place = os.path.realpath(path)
        self._overwrite = overwrite
        self._may_replace = may_replace
        self._temporary = _temporary_name(os.path.dirname(self._place))
        self._outputs: list[_Output] = []

    def make(self) -> None:
        """Make it, under its temporary name."""
        self._check_place()
        os.mkdir(self._temporary)

    def open(self, name: str) -> BinaryIO:
        """Begin a file in it; the caller closes it.

        Raises:
            CheckpointError: As `place_file`.
            ValueError: The name is none, or leads out of the directory.
        """
        if name in ("", os.curdir, os.pardir) or os.path.basename(name) != name:
            raise ValueError(f"{name!r} is no name of a file in a directory")
        path = os.path.join(self._temporary, name)
        with _explained(self):
            if os.path.lexists(path):
                raise _exists(os.path.join(self._place, name))
            stream = os.fdopen(os.open(path, _CREATE, 0o666), "w+b")
        self._outputs.append(_Output(name, path, path, stream))
        return stream

    def finish(self) -> None:
        """Let it appear."""
        for output in self._outputs:
            output.sync()
        _sync_directory(self._temporary)
        identity = _identity(self._temporary)
        former: dict[str, str] = {}
        try:
            self._check_place()
            # Out of the way first: a directory takes the name of an empty one at most.
            _move_away([self._place], former)
            os.rename(self._temporary, self._place)
            _sync_directory(os.path.dirname(self._place))
        except BaseException:
            with suppress(OSError):
                if _identity(self._place) == identity:
                    os.rename(self._place, self._temporary)
            _put_back(former)
            raise
        for moved in former.values():
            shutil.rmtree(moved)

    def discard(self) -> None:
        """Remove it if it has not appeared."""
        for output in self._outputs:
            with suppress(OSError):
                output.stream.close()
        shutil.rmtree(self._temporary, ignore_errors=True)

    def _check_place(self) -> None:
        if not os.path.lexists(self._place):
            return
        if not self._overwrite:
            raise _exists(self._place)
        if not os.path.isdir(self._place):
            raise _exists(self._place, "A file is there, where a directory is to be written")
        if not self._may_replace(os.listdir(self._place)):
            raise _exists(
                self._place,
                "The directory holds other files than those that would be replaced",
            )


def check_elsewhere(path: str | os.PathLike[str], inputs: Collection[str]) -> None:
    """Refuse an output that would lie in the directory of an input, or below it.

    Inputs that are no files of this machine are passed over.

    Raises:
        UnsupportedError: It would.
    """
    place = os.path.realpath(path)
    homes = {os.path.dirname(os.path.realpath(one)) for one in inputs if os.path.isfile(one)}
    for home in homes:
        if _is_below(place, home):
            raise UnsupportedError(
                f"The output would lie in the directory of an input, {home!r}",
                path=os.fsdecode(path),
                hint="Write it elsewhere: the input's directory is never written to",
            )


def _is_below(place: str, directory: str) -> bool:
    try:
        return os.path.commonpath([directory, place]) == directory
    except ValueError:  # Of two drives, none lies in the other.
        return False


# Names and places.


def _temporary_name(directory: str) -> str:
    # Not made of the file's own name, which may be as long as names can be already.
    return os.path.join(directory, f"{_MARK}{os.urandom(6).hex()}.part")


def _create(directory: str, mode: int | None, path: str | None = None) -> tuple[str, BinaryIO]:
    """Create a file under a temporary name, with the mode that any new one has, or that one."""
    path = _temporary_name(directory) if path is None else path
    # The system takes the umask from 0o666 itself; to ask for it is to change it for all threads.
    descriptor = os.open(path, _CREATE, 0o666 if mode is None else 0o600)
    if mode is not None and hasattr(os, "fchmod"):
        os.fchmod(descriptor, mode)
    return path, os.fdopen(descriptor, "w+b")


def _mode_of(place: str) -> int | None:
    """Return the mode of a file that will be replaced: what was private stays so."""
    try:
        return os.stat(place).st_mode & 0o777
    except OSError:
        return None


def _identity(path: str) -> tuple[int, int]:
    status = os.lstat(path)
    return status.st_dev, status.st_ino


def _give_name(temporary: str, place: str, *, overwrite: bool) -> None:
    """Give a file its own name; without `overwrite`, only if no other took that meanwhile."""
    if overwrite:
        os.replace(temporary, place)
        return
    try:
        # Unlike `rename`, which replaces without a word, `link` fails if the name is taken.
        os.link(temporary, place)
    except FileExistsError:
        raise _exists(place, "Something came into being there meanwhile") from None
    except OSError:
        # A file system without hard links: the check is then only as good as its moment.
        if os.path.lexists(place):
            raise _exists(place, "Something came into being there meanwhile") from None
        os.rename(temporary, place)
        return
    os.unlink(temporary)


def _move_away(places: list[str], former: dict[str, str], suffixes: Suffixes | None = None) -> None:
    """Rename what is there, and note in `former` what it is called meanwhile."""
    for place in places:
        if os.path.lexists(place):
            moved = place + suffixes.former if suffixes else _temporary_name(os.path.dirname(place))
            former[place] = moved
            os.rename(place, moved)


def _remove(placed: dict[str, tuple[int, int]]) -> None:
    """Take away what was placed, unless that is another's by now."""
    for place, identity in placed.items():
        with suppress(OSError):
            if _identity(place) == identity:
                os.unlink(place)


def _put_back(former: dict[str, str]) -> None:
    # The last first: the file by which the others are found was the first to go.
    for place, moved in reversed(former.items()):
        with suppress(OSError):
            os.rename(moved, place)


def _sync_directories(outputs: Collection[_Output]) -> None:
    for directory in {os.path.dirname(output.place) for output in outputs}:
        _sync_directory(directory)


def _sync_directory(directory: str) -> None:
    """Bring a directory's names to the disk, if this system can."""
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
def _explained(output: OutputFiles | OutputDirectory) -> Iterator[None]:
    """Turn the system's errors about an output into ours; leave all others as they are."""
    try:
        yield
    except CheckpointError:
        raise
    except OSError as error:
        # A failed `write` knows no name. An error that names a file of somebody else is not ours.
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
        return _exists(path)
    if isinstance(error, (FileNotFoundError, NotADirectoryError)):
        return CheckpointNotFoundError(
            "The directory to write into is not there", path=path, hint="Make it first"
        )
    if isinstance(error, PermissionError) or error.errno == errno.EROFS:
        return PermissionDeniedError(
            "You may not write there", path=path, hint="Choose another directory"
        )
    if error.errno in _NO_SPACE:
        return OutputError(
            "There is no space left for it",
            number=error.errno,
            path=path,
            hint="Nothing was written. Make room, or choose another disk",
        )
    return OutputError(f"It cannot be written: {error}", number=error.errno, path=path)


def _exists(path: str | None, what: str = "Something is there already") -> OutputExistsError:
    return OutputExistsError(
        f"{what}, and nothing is ever replaced unasked",
        path=path,
        hint="Choose another name, or ask to overwrite it",
    )
