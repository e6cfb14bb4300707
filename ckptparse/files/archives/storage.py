"""An archive as a storage: its members are files below the path of the archive.

Members that are stored as they are, are read by range, wherever the archive lies. Packed ones are
unpacked once, into temporary files of no name.
"""

from __future__ import annotations

import copy
import posixpath
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from ckptparse.errors import (
    CheckpointError,
    CheckpointNotFoundError,
    DataLossError,
    LimitError,
    NotACheckpointError,
    located,
)
from ckptparse.files.archives.listing import (
    Listing,
    Member,
    Stretch,
    find_stored,
    list_local,
    list_tar,
    list_zip,
    most_described,
)
from ckptparse.files.archives.magic import Packing
from ckptparse.files.archives.members import MemberSource, iter_unpacked_member
from ckptparse.files.archives.unpacking import (
    find_packing,
    iter_unpacked,
)
from ckptparse.files.local import LocalSource
from ckptparse.files.storage import FileStat, Source, Storage
from ckptparse.files.views import JoinedSource, Range
from ckptparse.limits import Limits
from ckptparse.locks import make_reentrant_lock

__all__ = ["ArchiveStorage"]

_RATIO = 32
"""How many times its packed size a file may unpack to, beyond an eighth of
`Limits.decompressed_bytes`. Weights become hardly larger; zeros, a thousand times."""


class _Shared(JoinedSource):
    """A sparse member: its archive stays open when it is closed."""

    __slots__ = ()

    def close(self) -> None:
        """Do nothing."""


class ArchiveStorage:
    """The members of an archive, and every other path as the storage has it that the archive is in.

    Attributes:
        path: The archive, in its own storage.
    """

    def __init__(
        self, storage: Storage, path: str, limits: Limits, *, lenient: bool = False
    ) -> None:
        """Take an archive; nothing is read yet.

        Args:
            storage: Where it lies.
            path: Its path there.
            limits: Bounds on its members and on what is unpacked.
            lenient: Whether what comes before damage is taken; else damage is an error.
        """
        self.path = path
        self._storage = storage
        self._limits = limits
        self._lenient = lenient
        self._lock = make_reentrant_lock()
        self._source: Source | None = None
        self._listing: Listing | None = None
        self._directories: dict[str, dict[str, FileStat]] = {}
        self._unpacked: dict[str, LocalSource] = {}
        self._taken = 0
        self._damage: dict[str, CheckpointError] = {}

    # What is asked of every storage.

    def open(self, path: str) -> Source:
        """Open a member."""
        name = self._name(path)
        if name is None:
            return self._storage.open(path)
        status = self.stat(path)
        member = self.listing().members.get(name)
        if status is None or (member is not None and member.kind == "dangling"):
            raise CheckpointNotFoundError("No such member of the archive", path=path)
        if member is None or status.kind != "file":
            what = "a directory" if status.kind == "directory" else "something else"
            raise NotACheckpointError(f"Expected a regular file, found {what}", path=path)
        if member.problem is not None:
            raise _at(member.problem, path)
        with self._lock, located(path=path):
            return self._open_member(path, name, member)

    def stat(self, path: str) -> FileStat | None:
        """Tell what a member is."""
        name = self._name(path)
        if name is None:
            return self._storage.stat(path)
        if not name:
            return FileStat("directory")
        place, last = posixpath.split(name)
        return self._tree().get(place, {}).get(last)

    def list(self, directory: str) -> Mapping[str, FileStat]:
        """Return the members in a directory."""
        name = self._name(directory)
        if name is None:
            return self._storage.list(directory)
        return dict(self._tree().get(name, {}))

    def join(self, directory: str, name: str) -> str:
        """Return the path of a name in a directory."""
        if self._name(directory) is None:
            return self._storage.join(directory, name)
        return f"{directory.rstrip('/')}/{name}"

    def real(self, path: str) -> str:
        """Return the path; links were followed when the members were listed."""
        name = self._name(path)
        if name is None:
            return self._storage.real(path)
        return posixpath.join(self.path, posixpath.normpath(name)) if name else self.path

    def split(self, path: str) -> tuple[str, str]:
        """Return directory and last name of a path."""
        if path.rstrip("/") != self.path and self._name(path) is not None:
            return posixpath.split(path)
        return self._storage.split(path)

    def close(self) -> None:
        """Close the archive and remove what was unpacked; it is read again if need be."""
        with self._lock:
            for unpacked in self._unpacked.values():
                unpacked.close()
            self._unpacked.clear()
            source, self._source = self._source, None
            self._listing, self._directories, self._taken = None, {}, 0
        if source is not None:
            source.close()

    def absolute(self, path: str) -> str:
        """Return a path that means the same from every directory of this machine."""
        absolute: Callable[[str], str] | None = getattr(self._storage, "absolute", None)
        return path if absolute is None else absolute(path)

    def again(self) -> ArchiveStorage:
        """Return the same archive, to be opened once more, from whatever directory."""
        path = self.absolute(self.path)
        return ArchiveStorage(self._storage, path, self._limits, lenient=self._lenient)

    def __getstate__(self) -> tuple[Any, ...]:
        return self._storage, self.path, self._limits, self._lenient

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        storage, path, limits, lenient = state
        self.__init__(storage, path, limits, lenient=lenient)  # type: ignore[misc] # made anew

    def __repr__(self) -> str:
        return f"<ArchiveStorage {self.path!r}>"

    # The archive.

    def listing(self) -> Listing:
        """Return what the archive holds; it is read at the first call.

        Raises:
            DataLossError: It is damaged.
            LimitError: It holds more than the limits allow.
            UnsupportedError: What unpacks it is not installed.
        """
        with self._lock:
            if self._listing is None:
                self._listing = self._read_listing()
            return self._listing

    @property
    def damage(self) -> Mapping[str, CheckpointError]:
        """What is damaged of what was read so far, by path: the archive, and members of it."""
        with self._lock:
            return dict(self._damage)

    def _read_listing(self) -> Listing:
        source = self._container()
        packing = find_packing(source, self._limits)
        if packing is None:
            raise NotACheckpointError("Expected an archive, found something else", path=self.path)
        if packing is Packing.ZIP:
            return self._list_zip(source)
        damage: CheckpointError | None = None
        size = source.size
        if packing.is_compressed:
            plain, damage = self._unpack(
                iter_unpacked(source, packing, self._limits), source.size, self.path
            )
            # From now on that is the archive; the packed one is not needed any more. It is closed
            # last: a child that is forked in between finds one that is open.
            packed, source = source, plain
            self._source = plain
            packed.close()
        listing = list_tar(source, self._limits, packed=size)
        listing.damage = damage or listing.damage
        if listing.damage is not None:
            if not self._lenient:
                raise _at(listing.damage, self.path)
            self._damage[self.path] = listing.damage
        return listing

    def _list_zip(self, source: Source) -> Listing:
        try:
            return list_zip(source, self._limits)
        except DataLossError as error:
            if not self._lenient:
                raise
            listing = list_local(source, self._limits, error)
            self._damage[self.path] = listing.damage or error
            return listing

    def _container(self) -> Source:
        if self._source is None:
            self._source = self._storage.open(self.path)
        return self._source

    def _open_member(self, path: str, name: str, member: Member) -> Source:
        self.listing()
        source = self._container()
        info, stretches = member.in_zip, member.stretches
        if info is not None:
            if info.compress_type != zipfile.ZIP_STORED:
                return self._open_packed(path, name, info)
            stretches = self._find_stored(path, source, info)
        if len(stretches) == 1 and stretches[0][0] is not None:
            return MemberSource(path, source, stretches[0][0], stretches[0][1])
        self._check_taken(member.size, sum(size for at, size in stretches if at is not None), path)
        parts = [Range(None if at is None else source, at or 0, size) for at, size in stretches]
        return _Shared(path, parts)

    def _find_stored(self, path: str, source: Source, info: zipfile.ZipInfo) -> tuple[Stretch, ...]:
        """Return where a member lies that is not packed: all of it, or what is there of it."""
        try:
            return find_stored(source, info)
        except DataLossError as error:
            if not self._lenient:
                raise
            from ckptparse.files.archives.damaged import find_kept

            self._damage[path] = error
            try:
                return (find_kept(source, info),)
            except DataLossError:
                return ((0, 0),)

    def _open_packed(self, path: str, name: str, info: zipfile.ZipInfo) -> Source:
        whole = self._unpacked.get(name)
        if whole is None:
            whole, damage = self._unpack(self._iter_member(path, info), info.compress_size, path)
            if damage is not None:
                if not self._lenient:
                    whole.close()
                    raise _at(damage, path)
                self._damage[path] = damage
            self._unpacked[name] = whole
            self._taken += whole.size
        return MemberSource(path, whole, 0, whole.size)

    def _iter_member(self, path: str, info: zipfile.ZipInfo) -> Iterator[bytes]:
        archive = self.listing().archive
        if self._lenient:
            from ckptparse.files.archives.damaged import iter_before_damage

            yield from iter_before_damage(self._container(), info, self._limits, path)
        elif archive is not None:
            yield from iter_unpacked_member(archive, self._container(), info, self._limits, path)

    def _unpack(
        self, pieces: Iterable[bytes], packed: int, path: str
    ) -> tuple[LocalSource, CheckpointError | None]:
        """Write to a file of no name; return it, and what was wrong before its end."""
        source = LocalSource.unnamed(path)
        damage: CheckpointError | None = None
        try:
            for data in pieces:
                self._check_taken(source.size + len(data), packed, path)
                source.append(data)
        except DataLossError as error:
            damage = error
        except BaseException:
            source.close()
            raise
        return source, damage

    def _check_taken(self, size: int, packed: int, path: str) -> None:
        """Refuse what unpacks to more than it should: one beside itself, or all members together.

        Members may lie over each other: each unpacks to little, and all of them to any size.
        """
        what = "What the archive unpacks to, in bytes,"
        self._limits.check("unpacked_bytes", self._taken + size, what, path=path)
        for found, held in ((size, packed), (self._taken + size, self._container().size)):
            most = max(self._limits.decompressed_bytes // 8, _RATIO * held)
            if found > most:
                raise LimitError(
                    f"{held} packed bytes unpack to more than {most}: more than {_RATIO} times as "
                    f"much, and than an eighth of Limits.decompressed_bytes",
                    limit="decompressed_bytes",
                    path=path,
                )

    # Names.

    def _name(self, path: str) -> str | None:
        """Return the name of a member; None for a path outside the archive."""
        plain = path.rstrip("/")
        if plain == self.path:
            return ""
        start = f"{self.path}/"
        return plain[len(start) :].lstrip("/") if plain.startswith(start) else None

    def _tree(self) -> Mapping[str, Mapping[str, FileStat]]:
        """Return what lies in each directory, by their names; made once."""
        with self._lock:
            if not self._directories:
                tree: dict[str, dict[str, FileStat]] = {"": {}}
                most = most_described(self._limits)
                for name, member in self.listing().members.items():
                    most -= _plant(tree, name, self._stat(name, member))
                    if most < 0:
                        raise LimitError(
                            "The members of the archive lie in more directories, and deeper ones, "
                            "than Limits.members allows",
                            limit="members",
                            path=self.path,
                        )
                self._directories = {
                    place: dict(sorted(found.items())) for place, found in tree.items()
                }
            return self._directories

    def _stat(self, name: str, member: Member) -> FileStat:
        if member.kind == "file":
            return FileStat("file", member.size, (self.path, name, member.size))
        return FileStat(member.kind, target=member.target)


def _plant(tree: dict[str, dict[str, FileStat]], name: str, status: FileStat) -> int:
    """Put a name into the tree, and the directories above it that have no member of their own.

    Returns the characters of the directories' names: they grow with the square of their depth.
    """
    taken = 0
    place, last = posixpath.split(name)
    known = tree.setdefault(place, {})
    if status.kind == "directory":
        tree.setdefault(name, {})
        known.setdefault(last, status)
    else:
        known[last] = status
    while place:
        name, place = place, posixpath.dirname(place)
        parent = tree.setdefault(place, {})
        if posixpath.basename(name) in parent:
            break
        parent[posixpath.basename(name)] = FileStat("directory")
        taken += len(name)
    return taken


def _at(error: CheckpointError, path: str) -> CheckpointError:
    """Return an error that was kept, anew: one that is raised twice would keep what raised it."""
    again = copy.copy(error)
    again.path = path
    return again
