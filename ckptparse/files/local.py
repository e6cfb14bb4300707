"""Read files of this machine, and ask its file system about paths.

A `LocalSource` returns exactly the bytes that were asked for, or raises `TruncatedError`.
"""

from __future__ import annotations

import mmap
import os
import stat
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Literal

from ckptparse.errors import (
    CheckpointNotFoundError,
    ClosedError,
    DataLossError,
    NotACheckpointError,
    OutputError,
    PermissionDeniedError,
    TruncatedError,
    UnsupportedError,
)
from ckptparse.files.storage import FileStat, check_range

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["LOCAL", "LocalSource", "LocalStorage"]

_OPEN_FLAGS = (
    os.O_RDONLY
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_BINARY", 0)
    # Without this flag, opening a FIFO waits for a writer.
    | getattr(os, "O_NONBLOCK", 0)
)
_HAS_PREAD = hasattr(os, "pread")
_HAS_PREADV = hasattr(os, "preadv")
_HAS_ADVICE = all(hasattr(os, name) for name in ("preadv", "posix_fadvise", "RWF_NOWAIT"))
_COUNTS_HOLDERS = sys.implementation.name == "cpython"
"""Whether an object goes at once when nobody holds it any more."""
_ADVICE_SIZE = 1 << 20
"""Bytes that the system is asked for at once: of more it may fetch only the first part."""


class _Descriptor:
    """The number of an open file, which is closed when nobody holds this object any more.

    A read holds it. Closed meanwhile by another thread, the system would give the number to the
    next file that is opened, and the read would get the bytes of that one.
    """

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number

    def close(self) -> None:
        """Close the file now."""
        number, self.number = self.number, -1
        if number >= 0:
            os.close(number)

    def __del__(self) -> None:
        # When the interpreter ends, `os` may be gone, and nothing needs closing. An error here
        # would only be printed as "Exception ignored".
        if os is not None and self.number >= 0:  # type: ignore[redundant-expr]
            try:  # noqa: SIM105 - every file ends here, and `suppress` takes longer than to close it
                self.close()
            except OSError:
                pass


class LocalSource:
    """A regular file, read at positions. Several threads may use it at once.

    Attributes:
        path: The path it was opened by.
        size: Its size in bytes when it was opened.
    """

    __slots__ = ("_descriptor", "_lock", "path", "size")

    piece = 1 << 20
    gap = 4096
    concurrency = None

    def __init__(self, path: str, descriptor: int, size: int) -> None:
        self.path = path
        self.size = size
        self._descriptor: _Descriptor | None = _Descriptor(descriptor)
        self._lock = threading.Lock()

    @classmethod
    def open(cls, path: str) -> LocalSource:
        """Open a file.

        Raises:
            CheckpointNotFoundError: Nothing is there.
            NotACheckpointError: It is a directory, a FIFO, a device or a socket.
            PermissionDeniedError: It may not be read.
            UnsupportedError: The operating system refuses to open it for another reason.
        """
        try:
            descriptor = os.open(path, _OPEN_FLAGS)
        except (FileNotFoundError, NotADirectoryError):
            raise CheckpointNotFoundError("No such file", path=path) from None
        except PermissionError as error:
            raise _denied(path) from error
        except (OSError, ValueError) as error:
            raise UnsupportedError(f"The file cannot be opened: {error}", path=path) from error
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            os.close(descriptor)
            raise NotACheckpointError(
                f"Expected a regular file, found {_kind_of(status.st_mode)}", path=path
            )
        return cls(path, descriptor, status.st_size)

    @classmethod
    def unnamed(cls, path: str) -> LocalSource:
        """Make an empty file without a name, which the system removes when the process ends.

        Args:
            path: Its name in messages.

        Raises:
            OutputError: No file can be made in the temporary directory.
        """
        import tempfile

        try:
            with tempfile.TemporaryFile() as file:
                return cls(path, os.dup(file.fileno()), 0)
        except OSError as error:
            raise _no_room(error, path) from error

    def append(self, data: bytes) -> None:
        """Add bytes to the end of a file that was made by `unnamed`.

        Raises:
            OutputError: The disk is full.
        """
        rest = memoryview(data)
        descriptor = self._open()
        try:
            with self._lock:
                os.lseek(descriptor.number, self.size, os.SEEK_SET)
                while rest:
                    count = os.write(descriptor.number, rest)
                    self.size += count
                    rest = rest[count:]
        except OSError as error:
            raise _no_room(error, self.path) from error

    def read_at(self, offset: int, size: int) -> bytes:
        """Read exactly `size` bytes at `offset`.

        Raises:
            TruncatedError: The file ends before them.
        """
        check_range(self, offset, size)
        if size == 0:
            return b""
        data = self._read_some(offset, size)
        if len(data) == size:
            return data
        whole = bytearray(size)
        self.read_into(offset, memoryview(whole))
        return bytes(whole)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill a writable buffer of bytes with the bytes at `offset`.

        Raises:
            TruncatedError: The file ends before the buffer is full.
        """
        size = len(buffer)
        check_range(self, offset, size)
        done = 0
        while done < size:
            count = self._fill(offset + done, buffer[done:])
            if count == 0:
                raise self._shrunk(offset, size, done)
            done += count

    def expect(self, offset: int, size: int) -> None:
        """Let the system fetch bytes that are wanted soon, unless it has them; see `expect`."""
        descriptor = self._descriptor
        if not _HAS_ADVICE or descriptor is None:
            return
        # Asking for what is in the page cache takes as long as copying a sixteenth of it. So one
        # byte is read first: the error says that this would have to wait for the disk.
        with suppress(OSError, OverflowError):
            try:
                os.preadv(descriptor.number, [bytearray(1)], offset, os.RWF_NOWAIT)
            except BlockingIOError:
                for start in range(offset, offset + size, _ADVICE_SIZE):
                    count = min(_ADVICE_SIZE, offset + size - start)
                    os.posix_fadvise(descriptor.number, start, count, os.POSIX_FADV_WILLNEED)

    def map(self) -> mmap.mmap:
        """Map the whole file, copy-on-write: writes to the mapping never reach the file."""
        descriptor = self._open()
        return mmap.mmap(descriptor.number, self.size, access=mmap.ACCESS_COPY)

    def close(self) -> None:
        """Close the file, when a read that goes on has ended; closing twice is harmless."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None and not _COUNTS_HOLDERS:
            descriptor.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _open(self) -> _Descriptor:
        """Return the open file, which stays open for as long as the caller holds it."""
        descriptor = self._descriptor
        if descriptor is None:
            raise self._closed()
        return descriptor

    def _read_some(self, offset: int, size: int) -> bytes:
        descriptor = self._descriptor or self._open()
        try:
            if _HAS_PREAD:
                # A forked process shares the position of the file, and so it must not count.
                return os.pread(descriptor.number, size, offset)
            with self._lock:
                os.lseek(descriptor.number, offset, os.SEEK_SET)
                return os.read(descriptor.number, size)
        except OSError as error:
            raise self._failed(error, offset, size) from error

    def _fill(self, offset: int, buffer: memoryview) -> int:
        if not _HAS_PREADV:
            data = self._read_some(offset, len(buffer))
            buffer[: len(data)] = data
            return len(data)
        descriptor = self._descriptor or self._open()
        try:
            return os.preadv(descriptor.number, [buffer], offset)
        except OSError as error:
            raise self._failed(error, offset, len(buffer)) from error

    def _failed(self, error: OSError, offset: int, size: int) -> Exception:
        if self._descriptor is None:
            return self._closed()
        return DataLossError(
            f"The file cannot be read: {error}", path=self.path, offset=offset, size=size
        )

    def _closed(self) -> ClosedError:
        return ClosedError("The checkpoint has been closed", path=self.path, hint="Open it again")

    def _shrunk(self, offset: int, size: int, done: int) -> TruncatedError:
        return TruncatedError(
            f"Read less bytes than requested: expected {size} bytes, found {done}: "
            "the file has shrunk since it was opened",
            path=self.path,
            offset=offset,
            size=size,
        )


def _kind_of(mode: int) -> str:
    kinds = {
        stat.S_IFDIR: "a directory",
        stat.S_IFIFO: "a FIFO",
        stat.S_IFCHR: "a character device",
        stat.S_IFBLK: "a block device",
        stat.S_IFSOCK: "a socket",
    }
    return kinds.get(stat.S_IFMT(mode), "something else")


class LocalStorage:
    """The file system of this machine."""

    __slots__ = ()

    def __reduce__(self) -> str:
        return "LOCAL"  # There is one in each process.

    def open(self, path: str) -> LocalSource:
        """Open a file, as `LocalSource.open` does."""
        return LocalSource.open(path)

    def stat(self, path: str) -> FileStat | None:
        """Tell what is at a path; None if nothing is.

        Raises:
            PermissionDeniedError: A directory on the way may not be entered.
        """
        try:
            return _stat(os.stat(path))
        except (FileNotFoundError, NotADirectoryError):
            return _stat_link(path)
        except PermissionError as error:
            raise _denied(path) from error
        except (OSError, ValueError):
            # The name is too long, has a NUL, or is a loop of links: it cannot be opened.
            return None

    def list(self, directory: str) -> Mapping[str, FileStat]:
        """Return what is in a directory, sorted by name; nothing if there is no such directory.

        Raises:
            PermissionDeniedError: It may not be listed.
        """
        try:
            with os.scandir(directory or os.curdir) as entries:
                found = {entry.name: _kind_listed(entry) for entry in entries}
        except PermissionError as error:
            raise _denied(directory or os.curdir) from error
        except (OSError, ValueError):
            return {}
        return Listing(directory, {name: found[name] for name in sorted(found)})

    def join(self, directory: str, name: str) -> str:
        """Return the path of a name in a directory; the empty directory is the current one."""
        return name if directory in ("", os.curdir) else os.path.join(directory, name)

    def real(self, path: str) -> str:
        """Return the path of the same file with links followed, and without `.` and `..`."""
        return os.path.realpath(path)

    def finds_no_link(self, path: str) -> bool | None:
        """Tell whether the last name of a path is there and no link; None if it is not there.

        False if it is a link, or if this system has other kinds of links than POSIX has.
        """
        if os.name != "posix":
            return False
        try:
            return not stat.S_ISLNK(os.lstat(path).st_mode)
        except (OSError, ValueError):
            return None

    def split(self, path: str) -> tuple[str, str]:
        """Return the directory and the last name of a path."""
        return os.path.split(path)

    def absolute(self, path: str) -> str:
        """Return a path that means the same from every directory."""
        return os.path.abspath(path)


LOCAL = LocalStorage()
"""The storage that is used if the caller names none."""


def _stat(status: os.stat_result) -> FileStat:
    if stat.S_ISREG(status.st_mode):
        return FileStat("file", status.st_size, (status.st_mtime_ns, status.st_dev, status.st_ino))
    if stat.S_ISDIR(status.st_mode):
        return FileStat("directory", identity=(status.st_dev, status.st_ino))
    return FileStat("other")


def _stat_link(path: str) -> FileStat | None:
    """Return the stat of a link to nothing; None if there is not even a link."""
    try:
        return FileStat("dangling", target=os.readlink(path))
    except OSError:
        return None


class Listing(Mapping[str, FileStat]):
    """What is in a directory, sorted by name; the system is asked about a file if it matters."""

    __slots__ = ("_directory", "_kinds", "_known")

    def __init__(self, directory: str, kinds: Mapping[str, _Kind]) -> None:
        """Take the names, and what the directory itself says that each is."""
        self._directory = directory
        self._kinds = kinds
        self._known: dict[str, FileStat] = {}

    def __getitem__(self, name: str) -> FileStat:
        known = self._known.get(name)
        if known is None:
            if name not in self._kinds:
                raise KeyError(name)
            known = self._known[name] = _stat_listed(os.path.join(self._directory, name))
        return known

    def __contains__(self, name: object) -> bool:
        return name in self._kinds

    def __iter__(self) -> Iterator[str]:
        return iter(self._kinds)

    def __len__(self) -> int:
        return len(self._kinds)

    def __repr__(self) -> str:
        return repr(dict(self))

    def file_names(self) -> list[str]:
        """Return the names of the regular files, and of links to such."""
        return [
            name
            for name, kind in self._kinds.items()
            if kind == "file" or (kind is None and self[name].kind == "file")
        ]


_Kind = Literal["file", "directory"] | None
"""What the list of a directory says of a name, without a question; None: it may be a link."""


def _kind_listed(entry: os.DirEntry[str]) -> _Kind:
    try:
        if entry.is_file(follow_symlinks=False):
            return "file"
        return "directory" if entry.is_dir(follow_symlinks=False) else None
    except OSError:
        return None


def _stat_listed(path: str) -> FileStat:
    try:
        return _stat(os.stat(path))
    except (OSError, ValueError):
        return _stat_link(path) or FileStat("dangling")


def _no_room(error: OSError, path: str) -> OutputError:
    return OutputError(
        f"The archive cannot be unpacked into a temporary file: {error}",
        number=error.errno,
        path=path,
        hint="Make room there, or set the environment variable TMPDIR to another directory",
    )


def _denied(path: str) -> PermissionDeniedError:
    return PermissionDeniedError(
        "The file is there, but you may not read it",
        path=path,
        hint="Ask for permission to read it, or run as a user who may",
    )
