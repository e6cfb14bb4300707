"""The data files of a bundle: `PREFIX.data-SSSSS-of-NNNNN`, each opened when first needed."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from types import TracebackType
from typing import NamedTuple

from ckptparse.bundle.entry import BundleEntry, BundleHeader, Endianness
from ckptparse.errors import (
    CheckpointError,
    CheckpointNotFoundError,
    ChecksumError,
    DataLossError,
    MissingShardError,
    StorageError,
    TruncatedError,
)
from ckptparse.filenames import shard_path
from ckptparse.files.context import Context
from ckptparse.files.pool import SourcePool
from ckptparse.files.storage import Source, held_bytes
from ckptparse.limits import Budget

__all__ = ["Manner", "ShardFiles"]

_DAMAGED = "ckptparse.recover gives what can be got back"


class Manner(NamedTuple):
    """How files are read best; see `Source`."""

    piece: int
    gap: int
    concurrency: int | None


class ShardFiles:
    """The data files of one bundle.

    Attributes:
        num_shards: How many there should be.
        big_endian: Whether their elements are big-endian.
        context: Where they lie, and how much may be read of them.
        pool: Those that are open.
    """

    def __init__(
        self,
        prefix: str,
        header: BundleHeader,
        context: Context,
        is_replaced: Callable[[], bool] = lambda: False,
    ) -> None:
        """Take what the index says; `is_replaced` tells whether another has taken its place."""
        self.num_shards = header.num_shards
        self.big_endian = header.endianness == Endianness.BIG
        self.context = context
        self._prefix = prefix
        self._paths: dict[int, str] = {}
        self._is_replaced = is_replaced
        self.pool = SourcePool(context.storage)

    def path(self, shard_id: int) -> str:
        """Path of a data file."""
        # Asked of every tensor: to make the text takes longer than all else that is asked.
        path = self._paths.get(shard_id)
        if path is None:
            path = self._paths[shard_id] = shard_path(self._prefix, shard_id, self.num_shards)
        return path

    def open(self, shard_id: int) -> _Shard:
        """Return an open data file, for use in a `with` statement, which raises as `_Shard`."""
        return _Shard(self, shard_id)

    def map(self, shard_id: int) -> mmap.mmap | None:
        """Map a data file copy-on-write; None if no more can be mapped, or this storage cannot.

        Raises:
            MissingShardError: It is not there.
        """
        with self.open(shard_id) as source:
            return self.pool.map(source)

    def manner(self, shard_id: int) -> Manner:
        """Return how a data file is read best."""
        with self.open(shard_id) as source:
            return Manner(source.piece, source.gap, source.concurrency)

    @cached_property
    def held(self) -> int:
        """The size of all data files that are there, in bytes."""
        return held_bytes(self.context.storage, map(self.path, range(self.num_shards)))

    def budget(self) -> Budget:
        """Begin to count what one call takes of these files."""
        return Budget(self.context.limits, lambda: self.held)

    def check_crc(self, entry: BundleEntry, computed: int) -> None:
        """Raise `ChecksumError` unless the checksum of an entry's bytes is the stored one."""
        if computed != entry.crc32c:
            self.check_replaced()
            raise ChecksumError(
                f"Checksum does not match: stored {entry.crc32c} vs. calculated on the restored "
                f"bytes {computed}",
                stored=entry.crc32c,
                computed=computed,
                path=self.path(entry.shard_id),
                offset=entry.offset,
                size=entry.size,
                hint=_DAMAGED,
            )

    @contextmanager
    def judging(self) -> Iterator[None]:
        """Say of what is damaged whether that is because the checkpoint was replaced meanwhile."""
        try:
            yield
        except DataLossError:
            self.check_replaced()
            raise

    def check_replaced(self) -> None:
        """Raise `StorageError` if the index is not that any more which says what lies where."""
        if self._is_replaced():
            raise StorageError(
                "The checkpoint was replaced while it was read: its index is another by now",
                path=self._prefix,
                hint="Open it again, when nobody saves to it",
            )

    def close(self) -> None:
        """Close them, each when its last read has ended."""
        self.pool.close()


class _Shard:
    """One data file, which is open inside of a `with` statement.

    A class, since every read enters it: a generator takes three times as long.

    Raises:
        MissingShardError: It is not there; some are not asked for before they are read.
        TruncatedError: As what is read inside; what it is instead is said.
    """

    __slots__ = ("_files", "_path", "_shard_id")

    def __init__(self, files: ShardFiles, shard_id: int) -> None:
        self._files = files
        self._shard_id = shard_id
        self._path = files.path(shard_id)

    def __enter__(self) -> Source:
        try:
            return self._files.pool.take(self._path)
        except CheckpointNotFoundError:
            raise self._missing() from None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if isinstance(error, CheckpointNotFoundError):
                raise self._missing() from None
            if isinstance(error, TruncatedError):
                self._files.check_replaced()
                error.hint = error.hint or self._explain()
        finally:
            self._files.pool.give_back(self._path)

    def _missing(self) -> MissingShardError:
        self._files.check_replaced()
        return MissingShardError(
            f"Data file number {self._shard_id + 1} of {self._files.num_shards} is missing",
            path=self._path,
            hint="ckptparse.recover gives what the other files still hold",
        )

    def _explain(self) -> str:
        """Say what a data file that is too short is instead."""
        from ckptparse.identification.foreign import identify_foreign

        try:
            identity = identify_foreign(self._path, self._files.context)
        except CheckpointError:
            identity = None
        return _DAMAGED if identity is None else f"It is {identity.described}. {identity.advice}"
