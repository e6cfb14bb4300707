"""Write files that get their own names only when they are complete.

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

What a URL or a `Storage` says lies elsewhere is sent there, as `sending` does.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import BinaryIO

from ckptparse.errors import (
    UnsupportedError,
)
from ckptparse.files.file_urls import local_path
from ckptparse.files.local import LOCAL
from ckptparse.files.sending import SentDirectory, SentFiles, as_writable
from ckptparse.files.storage import Storage, WritableStorage
from ckptparse.files.temporary import (
    CREATE,
    already_there,
    create_file,
    explained,
    give_name,
    identity_of,
    mode_of,
    move_away,
    no_file_there,
    put_back,
    real_place,
    remove_placed,
    sync_directory,
    temporary_name,
)

__all__ = [
    "OutputDirectory",
    "OutputFiles",
    "Suffixes",
    "check_absent",
    "check_elsewhere",
    "local_path",
    "place_directory",
    "place_file",
    "place_files",
]


@contextmanager
def place_file(
    path: str | os.PathLike[str], *, overwrite: bool = False, storage: Storage | None = None
) -> Iterator[BinaryIO]:
    """Write one file that appears under its name only when it is whole.

    Raises:
        OutputExistsError: Something is there, and `overwrite` is false; or it is no file.
        CheckpointNotFoundError: The directory to write into is not there.
        PermissionDeniedError: It may not be written there.
        OutputError: The disk is full, or the system refuses for another reason.
    """
    with (
        place_files(overwrite=overwrite, storage=storage) as files,
        files.open(path) as file,
    ):
        yield file


@dataclass(frozen=True, slots=True)
class Suffixes:
    """The ends of the temporary names of a set of files."""

    written: str
    """Of files that are being written."""
    former: str
    """Of the files that were there before, until all new ones have their names."""


@contextmanager
def place_files(
    *,
    overwrite: bool = False,
    retired: Collection[str] = (),
    suffixes: Suffixes | None = None,
    storage: Storage | None = None,
) -> Iterator[OutputFiles]:
    """Write several files that get their names when all are complete, in the order of creation.

    Create last the file by which the others are found (the index). If files are replaced, it is the
    first that goes. So nobody ever finds an index beside data files of another save.

    Args:
        overwrite: Whether files that are there are replaced.
        retired: Files that belong to those that are replaced, and go with them.
        suffixes: What temporary names end in, after the file's own name; by chance unless given.
        storage: Where the names lead; None: to this machine, or where the URL leads that each is.

    Raises:
        CheckpointError: As `place_file`; then all files are as they were before.
    """
    files = OutputFiles(overwrite=overwrite, retired=retired, suffixes=suffixes, storage=storage)
    try:
        with explained(files):
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
    storage: Storage | None = None,
) -> Iterator[OutputDirectory | SentDirectory]:
    """Write a directory that appears under its name only when every file in it is whole.

    Args:
        path: Where it is to be.
        overwrite: Whether a directory that is there may be replaced.
        may_replace: Whether a directory with these names in it is one that may be replaced at all.
            Without it, only an empty one is.
        storage: As for `place_files`.

    Raises:
        CheckpointError: As `place_file`; then all is as it was before.
    """
    name, elsewhere = _find_elsewhere(path, storage)
    directory: OutputDirectory | SentDirectory
    if elsewhere is None:
        directory = OutputDirectory(name, overwrite=overwrite, may_replace=may_replace)
    else:
        directory = SentDirectory(elsewhere, name, overwrite=overwrite, may_replace=may_replace)
    try:
        with explained(directory):
            directory.make()
            yield directory
            directory.finish()
    finally:
        directory.discard()


def check_absent(path: str | os.PathLike[str], storage: Storage | None = None) -> None:
    """Raise `OutputExistsError` if something lies at a path, a link that leads nowhere included."""
    name, elsewhere = _find_elsewhere(path, storage)
    if os.path.lexists(name) if elsewhere is None else elsewhere.stat(name) is not None:
        raise already_there(os.fsdecode(path))


def _find_elsewhere(
    path: str | os.PathLike[str], storage: Storage | None
) -> tuple[str, WritableStorage | None]:
    """Return the path and the storage that is not this machine's; None if it is."""
    name = os.fsdecode(path)
    if storage is None:
        name = local_path(name)
    if storage is None and "://" in name:
        from ckptparse.files.context import open_url

        name, storage = open_url(name)
    if storage is None or storage is LOCAL:
        return name, None
    return name, as_writable(storage, name)


@dataclass(slots=True)
class _Output:
    """A file that is being written."""

    path: str
    """Its own name, as the caller gave it."""
    place: str
    """The same with links followed: an existing link stays a link."""
    temporary: str
    stream: BinaryIO

    def sync(self) -> None:
        """Write it to the disk, and close it."""
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
    """Files that are being written and get their names together."""

    def __init__(
        self,
        *,
        overwrite: bool,
        retired: Collection[str] = (),
        suffixes: Suffixes | None = None,
        storage: Storage | None = None,
    ) -> None:
        self._storage = storage
        self._sent: dict[str, tuple[str, SentFiles]] = {}
        self._overwrite = overwrite
        self._former = retired
        local = storage is None or storage is LOCAL
        self._retired = list(map(real_place, retired)) if local else []
        self._suffixes = suffixes
        self._outputs: dict[str, _Output] = {}
        self.path: str | None = None
        """The file that was created last."""

    def open(self, path: str | os.PathLike[str]) -> BinaryIO:
        """Create a file, for writing, reading and seeking; the caller closes it.

        Raises:
            CheckpointError: As `place_file`.
            ValueError: It was created already.
        """
        name = self.path = os.fsdecode(path)
        inside, elsewhere = _find_elsewhere(path, self._storage)
        if elsewhere is not None:
            known = next((files for _, files in self._sent.values()), None)
            files = known or SentFiles(elsewhere, overwrite=self._overwrite, retired=self._former)
            self._sent[name] = inside, files
            return files.open(inside)
        with explained(self):
            place = self._new_place(inside)
            written = None if self._suffixes is None else place + self._suffixes.written
            temporary, stream = create_file(os.path.dirname(place), mode_of(place), written)
        self._outputs[name] = _Output(name, place, temporary, stream)
        return stream

    def rename(self, path: str | os.PathLike[str], new: str | os.PathLike[str]) -> None:
        """Give a file another name, in the same directory, than it was created with.

        The name of each data file has their number, which is known only when all are written.
        """
        old, name = os.fsdecode(path), os.fsdecode(new)
        if old == name:
            return
        if old in self._sent:
            inside, files = self._sent.pop(old)
            renamed_inside = _find_elsewhere(name, self._storage)[0]
            files.rename(inside, renamed_inside)
            self._sent[name] = renamed_inside, files
            return
        place = self._new_place(local_path(name))
        if os.path.dirname(place) != os.path.dirname(self._outputs[old].place):
            raise ValueError(f"Expected a name in the directory of {old!r}, found {name!r}")
        renamed = {name if key == old else key: one for key, one in self._outputs.items()}
        renamed[name].path, renamed[name].place = name, place
        self._outputs = renamed

    def finish(self) -> None:
        """Let every file appear."""
        for _, files in list(self._sent.values())[:1]:
            files.finish()
        self._place(list(self._outputs.values()))

    def _place(self, outputs: list[_Output]) -> None:
        for output in outputs:
            self.path = output.path
            output.sync()
        former: dict[str, str] = {}
        placed: dict[str, tuple[int, int]] = {}
        try:
            if self._overwrite and len(outputs) > 1:
                self._move_away(outputs, former)
            for output in outputs:
                self.path = output.path
                if output is outputs[-1] and len(outputs) > 1:
                    # The names of the others are on the disk before the last file gets its name.
                    _sync_directories(outputs)
                placed[output.place] = identity_of(output.temporary)
                give_name(output.temporary, output.place, overwrite=self._overwrite)
            _sync_directories(outputs)
        except BaseException:
            # A single file gets its name in one step, so there is nothing to undo.
            if len(outputs) > 1:
                remove_placed(placed)
                put_back(former)
            raise
        for moved in former.values():
            # All new files have their names: an error would say that they have not.
            with suppress(OSError):
                os.unlink(moved)
        self._outputs.clear()

    def discard(self) -> None:
        """Remove what has not appeared."""
        for _, files in self._sent.values():
            files.discard()
        for output in self._outputs.values():
            with suppress(OSError):
                output.stream.close()
            with suppress(FileNotFoundError):
                os.unlink(output.temporary)
        self._outputs.clear()

    def _move_away(self, outputs: list[_Output], former: dict[str, str]) -> None:
        """Rename what is to be replaced, the index first; `former` remembers the names."""
        replaced = dict.fromkeys([output.place for output in reversed(outputs)])
        places = [*replaced, *(path for path in self._retired if path not in replaced)]
        for place in places:
            self.path = place
            move_away([place], former, self._suffixes.former if self._suffixes else None)

    def _new_place(self, name: str) -> str:
        """Return the place for a file of that name; raise if it may not be there."""
        place = real_place(name)
        if any(place == output.place for output in self._outputs.values()):
            raise ValueError(f"{name!r} was created already")
        if os.path.exists(place) and not os.path.isfile(place):
            # A file that takes the name of a device takes the device from the whole system.
            raise no_file_there(name, is_directory=os.path.isdir(place))
        if not self._overwrite:
            check_absent(name)
        return place


class OutputDirectory:
    """A directory that is being written and gets its name when it is complete."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        overwrite: bool,
        may_replace: Callable[[Collection[str]], bool],
    ) -> None:
        self.path: str | None = os.fsdecode(path)
        self._place = real_place(local_path(self.path))
        self._overwrite = overwrite
        self._may_replace = may_replace
        self._temporary = temporary_name(os.path.dirname(self._place))
        self._outputs: list[_Output] = []

    def make(self) -> None:
        """Create it, under its temporary name."""
        self._check_place()
        os.mkdir(self._temporary)

    def open(self, name: str) -> BinaryIO:
        """Create a file in it; the caller closes it.

        Raises:
            CheckpointError: As `place_file`.
            ValueError: The name is empty, or leads out of the directory.
        """
        if name in ("", os.curdir, os.pardir) or os.path.basename(name) != name:
            raise ValueError(f"Expected the name of a file in the directory, found {name!r}")
        path = os.path.join(self._temporary, name)
        with explained(self):
            try:
                descriptor = os.open(path, CREATE, 0o666)
            except FileExistsError:
                raise already_there(os.path.join(self._place, name)) from None
            stream = os.fdopen(descriptor, "w+b")
        self._outputs.append(_Output(name, path, path, stream))
        return stream

    def finish(self) -> None:
        """Give it its name."""
        for output in self._outputs:
            output.sync()
        sync_directory(self._temporary)
        identity = identity_of(self._temporary)
        former: dict[str, str] = {}
        try:
            self._check_place()
            # The old one is moved away first: a directory can replace only an empty one.
            move_away([self._place], former)
            os.rename(self._temporary, self._place)
            sync_directory(os.path.dirname(self._place))
        except BaseException:
            with suppress(OSError):
                if identity_of(self._place) == identity:
                    os.rename(self._place, self._temporary)
            put_back(former)
            raise
        for moved in former.values():
            shutil.rmtree(moved)

    def discard(self) -> None:
        """Remove it if it does not have its name yet."""
        for output in self._outputs:
            with suppress(OSError):
                output.stream.close()
        shutil.rmtree(self._temporary, ignore_errors=True)

    def _check_place(self) -> None:
        if not os.path.lexists(self._place):
            return
        if not self._overwrite:
            raise already_there(self._place)
        if not os.path.isdir(self._place):
            raise already_there(self._place, "Expected a place for a directory, found a file there")
        if not self._may_replace(os.listdir(self._place)):
            raise already_there(
                self._place,
                "The directory has other files than those that may be replaced",
            )


def check_elsewhere(path: str | os.PathLike[str], inputs: Collection[str]) -> None:
    """Refuse an output that would lie in the directory of an input, or below it.

    Inputs that are no files of this machine are passed over.

    Raises:
        UnsupportedError: It would.
    """
    name = local_path(os.fsdecode(path))
    if "://" in name:
        return  # It lies elsewhere, and what is below an input on this machine does not.
    place = real_place(name)
    # What links lead to is asked of each directory once: there may be thousands of files in one,
    # and of each of these no more than what it is.
    homes, folders = set[str](), set[str]()
    for one in inputs:
        if _is_regular(one):
            folders.add(os.path.dirname(one))
        elif os.path.isfile(one):
            homes.add(os.path.dirname(os.path.realpath(one)))
    for home in homes.union(map(os.path.realpath, folders)):
        if _is_below(place, home):
            raise UnsupportedError(
                f"The output would lie in the directory of an input, {home!r}",
                path=os.fsdecode(path),
                hint="Choose another directory: nothing is written into the directory of an input",
            )


def _is_regular(path: str) -> bool:
    """Tell whether a regular file is at a path, and no link."""
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except (OSError, ValueError):
        return False


def _is_below(place: str, directory: str) -> bool:
    try:
        return os.path.commonpath([directory, place]) == directory
    except ValueError:  # Of two drives, none lies in the other.
        return False


def _sync_directories(outputs: Collection[_Output]) -> None:
    for directory in {os.path.dirname(output.place) for output in outputs}:
        sync_directory(directory)
