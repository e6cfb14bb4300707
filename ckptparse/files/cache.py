"""Keep on this machine what was read from a bucket, a web server or a file system of fsspec.

A file is kept in blocks of 1 MiB, each in a file of its own. The name of a block is a hash of where
its file lies, of the file's ETag and size, and of the number of the block: nothing of a URL stands
in it, and a file that was replaced has other names. So each call asks what the ETag is now, and
that is all that is asked for if the blocks are there.

    DIR/4f/4f0c9d…   8 bytes      which form this is
                     32 bytes     the hash that is also the name
                     4 bytes      CRC-32C of the data, little-endian
                     n bytes      the data: 1 MiB, or less at the end of the file

A block is written under another name first, and then gets its own in one step. So any number of
processes may share the directory, and a block that is cut off or changed is read again.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from hashlib import sha256
from typing import Any

from ckptparse.coding.checksum import crc32c
from ckptparse.errors import NotACheckpointError, OutputError
from ckptparse.files.storage import FileStat, Source, Storage, check_range, look_again
from ckptparse.locks import Claims, make_lock

__all__ = ["BLOCK", "BlockStore", "CachedStorage"]

BLOCK = 1 << 20
"""Bytes of a file that are kept together."""
_HEADER = struct.Struct("<8s32sI")
_MAGIC = b"ckptcch1"
_SHARE = 16
"""How much is counted again after: a part of the bound, so that several processes keep it."""
_LEFT = 0.9
"""What stays of the bound when blocks are removed: not each new one removes an old one then."""
_PART = ".part"
_AS_IS = ("utf-8", "surrogateescape")


class BlockStore:
    """A directory of blocks, none of which is believed before its checksum was computed."""

    def __init__(self, directory: str, most: int) -> None:
        """Make the directory if it is not there.

        Args:
            directory: Its path.
            most: Bytes of all blocks together. The least recently used are removed beyond that.

        Raises:
            OutputError: It cannot be made.
        """
        self.directory = os.path.abspath(directory)
        self.most = most
        self._lock = make_lock()
        self._new = 0
        self._counted = False
        # Many small reads, one after the other, are of one block.
        self._last: tuple[bytes, bytes] | None = None
        try:
            # What is read with credentials is for nobody else.
            os.makedirs(self.directory, mode=0o700, exist_ok=True)
        except OSError as error:
            raise OutputError(
                f"The directory of the cache cannot be made: {error.strerror}",
                number=error.errno,
                path=directory,
            ) from error
        except ValueError:  # It has a NUL.
            raise OutputError("No directory can have that name", path=directory) from None

    def get(self, key: bytes, size: int) -> bytes | None:
        """Return a block of so many bytes; None if it is not there, or damaged."""
        last = self._last
        if last is not None and last[0] == key and len(last[1]) == size:
            return last[1]
        path = self._path(key)
        try:
            with open(path, "rb", buffering=0, opener=_open_at_once) as file:
                content = _read_all(file.fileno(), _HEADER.size + size + 1)
        except OSError:
            return None
        data = memoryview(content)[_HEADER.size :]
        if len(data) != size or content[: _HEADER.size] != _HEADER.pack(_MAGIC, key, crc32c(data)):
            with suppress(OSError):
                os.unlink(path)
            return None
        with suppress(OSError):
            os.utime(path)  # It was used just now.
        found = bytes(data)
        self._last = key, found
        return found

    def put(self, key: bytes, data: memoryview) -> None:
        """Keep a block. If the disk is full or may not be written, only the last one is kept."""
        self._last = key, bytes(data)
        if _HEADER.size + len(data) > self.most:
            return
        path = self._path(key)
        part = f"{path}.{os.urandom(6).hex()}{_PART}"
        try:
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
            descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with open(descriptor, "wb") as file:
                file.write(_HEADER.pack(_MAGIC, key, crc32c(data)))
                file.write(data)
            os.replace(part, path)
        except OSError:
            with suppress(OSError):
                os.unlink(part)
            return
        with self._lock:
            self._new += _HEADER.size + len(data)
            full = not self._counted or self._new > self.most // _SHARE
            if full:
                self._new, self._counted = 0, True
                self._remove_oldest()

    def _path(self, key: bytes) -> str:
        name = key.hex()
        return os.path.join(self.directory, name[:2], name)

    def _remove_oldest(self) -> None:
        found = sorted(self._iter_blocks())
        total = sum(size for _, size, _ in found)
        # Between two counts, some more come.
        bound = self.most - self.most // _SHARE
        if total <= bound:
            return
        for _, size, path in found:
            if total <= bound * _LEFT:
                return
            with suppress(OSError):
                os.unlink(path)
            total -= size

    def _iter_blocks(self) -> Iterator[tuple[float, int, str]]:
        """Iterate over time of use, size and path of our own files; others are left alone."""
        for first in range(256):
            with (
                suppress(OSError),
                os.scandir(os.path.join(self.directory, f"{first:02x}")) as all_,
            ):
                for entry in all_:
                    if _is_block(entry.name, first):
                        status = entry.stat(follow_symlinks=False)
                        yield status.st_mtime, status.st_size, entry.path


def _is_block(name: str, first: int) -> bool:
    digits = name[:64]
    ours = len(digits) == 64 and digits.startswith(f"{first:02x}")
    rest = name[64:]
    return ours and set(digits) <= set("0123456789abcdef") and (not rest or rest.endswith(_PART))


def _open_at_once(path: str, flags: int) -> int:
    """Open a file; without this flag, opening a FIFO waits for a writer."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _read_all(descriptor: int, most: int) -> bytes:
    parts: list[bytes] = []
    while most > 0:
        part = os.read(descriptor, most)
        if not part:
            break
        parts.append(part)
        most -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


class CachedStorage:
    """Another storage, and the blocks of its files that are kept."""

    def __init__(self, storage: Any, blocks: BlockStore) -> None:
        """Take a storage whose `scope` tells its files from those of others of the same path."""
        self._storage = storage
        self._blocks = blocks
        with suppress(AttributeError):
            # What comes with an answer whether a file is there would not be kept.
            storage.asks_for_first = False

    def open(self, path: str) -> Source:
        """Open a file; raises as the storage does."""
        source = _CachedSource(self, path)
        source.look()
        return source

    def open_later(self, path: str) -> Source:
        """Open a file without looking for it: that it is not there is told by the first read."""
        return _CachedSource(self, path)

    def stat(self, path: str) -> FileStat | None:
        """Tell what is at a path by now."""
        return self.beneath.stat(path)

    def list(self, directory: str) -> Mapping[str, FileStat]:
        """Return what is in a directory by now."""
        return self.beneath.list(directory)

    def join(self, directory: str, name: str) -> str:
        """Return the path of a name in a directory."""
        return self.beneath.join(directory, name)

    def real(self, path: str) -> str:
        """Return the path of the same file with links followed."""
        return self.beneath.real(path)

    def split(self, path: str) -> tuple[str, str]:
        """Return the directory and the last name of a path."""
        return self.beneath.split(path)

    @property
    def beneath(self) -> Storage:
        """The other storage."""
        storage: Storage = self._storage
        return storage

    @property
    def lists(self) -> bool:
        """Whether the storage knows what is in a directory."""
        return bool(getattr(self._storage, "lists", True))

    def forget(self, path: str) -> None:
        """Forget what is known of a file, so that it is asked for again."""
        forget: Callable[[str], None] | None = getattr(self._storage, "forget", None)
        if forget is not None:
            forget(path)

    def key(self, path: str, status: FileStat) -> bytes | None:
        """Return what all blocks of a file have in common; None if they cannot be kept."""
        scope: str | None = self._storage.scope(path)
        tag = status.identity
        # A weak ETag may stay if bytes change, and a time has seconds only.
        if scope is None or not isinstance(tag, str) or tag.startswith("W/"):
            return None
        return sha256("\0".join((scope, path, tag, str(status.size))).encode(*_AS_IS)).digest()

    def is_same(self, path: str, status: FileStat | None) -> bool:
        """Tell whether what was read just now is of the file of that ETag.

        Where requests name the ETag, another file would have been refused; else it is asked for.
        """
        if getattr(self._storage, "names_tags", False):
            return True
        return look_again(self.beneath, path) == status

    @property
    def blocks(self) -> BlockStore:
        """What is kept."""
        return self._blocks

    def __getstate__(self) -> tuple[Any, str, int]:
        return self._storage, self._blocks.directory, self._blocks.most

    def __setstate__(self, state: tuple[Any, str, int]) -> None:
        storage, directory, most = state
        self.__init__(storage, BlockStore(directory, most))  # type: ignore[misc] # makes new locks

    def __repr__(self) -> str:
        return f"<CachedStorage {self._storage!r} in {self._blocks.directory!r}>"


class _CachedSource:
    """A file whose blocks are read from the cache, or by range and then kept."""

    def __init__(self, storage: CachedStorage, path: str) -> None:
        self.path = path
        self._storage = storage
        self._lock = make_lock()
        self._source: Source | None = None
        self._key: bytes | None = None
        self._status: FileStat | None = None
        self._fetching: Claims[int] = Claims()

    def look(self) -> Source:
        """Return the file itself, which is looked for once."""
        with self._lock:
            if self._source is None:
                status = self._storage.stat(self.path)
                source = self._storage.beneath.open(self.path)
                if status is None or status.kind != "file":
                    raise NotACheckpointError("Expected a file", path=self.path)
                self._key = self._storage.key(self.path, status)
                self._status = status
                self._source = source
            return self._source

    @property
    def known_size(self) -> int | None:
        """The size; None if it would take a request to learn it."""
        return None if self._source is None else self._source.size

    @property
    def size(self) -> int:
        """The size."""
        return self.look().size

    @property
    def piece(self) -> int:
        """How many bytes one request should ask for."""
        return 8 << 20 if self._source is None else self._source.piece

    @property
    def gap(self) -> int:
        """What is nearer is in the same blocks anyway."""
        return 64 << 10

    @property
    def concurrency(self) -> int | None:
        """How many requests at a time are best."""
        return 16 if self._source is None else self._source.concurrency

    def read_at(self, offset: int, size: int) -> bytes:
        """Return exactly `size` bytes at `offset`."""
        source = self.look()
        check_range(self, offset, size)
        if self._key is None or not size:
            return source.read_at(offset, size)
        buffer = bytearray(size)
        self._fill(offset, memoryview(buffer))
        return bytes(buffer)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill a buffer with the bytes at `offset`."""
        source = self.look()
        check_range(self, offset, len(buffer))
        if self._key is None:
            source.read_into(offset, buffer)
            return
        for start in range(0, len(buffer), self.piece):
            self._fill(offset + start, buffer[start : start + self.piece])

    def map(self) -> mmap.mmap | None:
        """Return None: its bytes are in several files."""
        return None

    def close(self) -> None:
        """Close the file itself."""
        if self._source is not None:
            self._source.close()

    def _fill(self, offset: int, buffer: memoryview) -> None:
        first, last = offset // BLOCK, (offset + len(buffer) - 1) // BLOCK
        wanted = list(range(first, last + 1))
        while wanted:
            mine, others = self._fetching.claim(wanted)
            try:
                self._take(mine, offset, buffer)
            finally:
                self._fetching.release(mine)
            for event in others.values():
                event.wait()
            # What another thread has fetched meanwhile is kept now. If not, it is asked for.
            wanted = list(others)

    def _take(self, numbers: list[int], offset: int, buffer: memoryview) -> None:
        missing: list[int] = []
        for number in numbers:
            data = self._storage.blocks.get(self._name(number), self._length(number))
            if data is None:
                missing.append(number)
            else:
                _place(memoryview(data), number * BLOCK, offset, buffer)
        for low, high in _runs(missing):
            start = low * BLOCK
            data = self.look().read_at(start, min(high * BLOCK, self.size) - start)
            whole = memoryview(data)
            _place(whole, start, offset, buffer)
            if not self._storage.is_same(self.path, self._status):
                continue
            for number in range(low, high):
                block = whole[number * BLOCK - start :][: self._length(number)]
                self._storage.blocks.put(self._name(number), block)

    def _name(self, number: int) -> bytes:
        return sha256((self._key or b"") + struct.pack("<Q", number)).digest()

    def _length(self, number: int) -> int:
        return min(BLOCK, self.size - number * BLOCK)


def _runs(numbers: list[int]) -> Iterator[tuple[int, int]]:
    """Put neighbours together: (first, one beyond the last)."""
    low = 0
    for high in range(1, len(numbers) + 1):
        if high == len(numbers) or numbers[high] != numbers[high - 1] + 1:
            yield numbers[low], numbers[high - 1] + 1
            low = high


def _place(data: memoryview, start: int, offset: int, buffer: memoryview) -> None:
    """Copy the bytes of a file from `start` on to where they belong in a buffer."""
    low, high = max(start, offset), min(start + len(data), offset + len(buffer))
    if low < high:
        buffer[low - offset : high - offset] = data[low - start : high - start]
