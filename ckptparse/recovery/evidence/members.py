"""Members of archives, opened again and again: what lies where is listed once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ckptparse.errors import CheckpointNotFoundError
from ckptparse.files.context import Context
from ckptparse.files.memory import MemorySource
from ckptparse.files.storage import Source
from ckptparse.files.views import JoinedSource
from ckptparse.limits import Limits
from ckptparse.locks import make_lock
from ckptparse.recovery.evidence.containers import (
    is_archive,
    iter_parts,
    list_members,
    unpack_stream,
)
from ckptparse.recovery.evidence.texts import HEAD

__all__ = ["Listings", "Member"]

_MOST_LISTED = 4
"""Archives whose members are kept: those of one take up to 1 KiB each."""

_LARGEST_KEPT = 1 << 26
"""Bytes of what was unpacked last that are kept, if archives lie in it: 64 MiB."""
_DEEPEST = 8
"""Archives that are opened for one member, each in another or in what a stream packed."""

_Key = tuple[str, int, int]
"""Path and size of an archive, and how many others it lies in."""
_Listing = Mapping[str, Callable[[Source], Source | None]]


class Listings:
    """What the archives hold that were opened last. A copy in another process begins with none."""

    __slots__ = ("_kept", "_known", "_lock")

    def __init__(self) -> None:
        self._known: OrderedDict[_Key, _Listing] = OrderedDict()
        self._kept: tuple[_Key, str, Source] | None = None
        self._lock = make_lock()

    def __reduce__(self) -> tuple[type[Listings], tuple[()]]:
        return Listings, ()

    def open(self, source: Source, name: str, context: Context) -> Source | None:
        """Open a member of an archive, or of one in it; None if it is none, or an archive itself.

        So is text.
        """
        for depth in range(_DEEPEST):
            key = source.path, source.size, depth
            listing = self._list(source, key, context.limits)
            inside = listing.get(name)
            if inside is not None:
                part = inside(source)
                head = b"" if part is None else part.read_at(0, min(HEAD, part.size))
                return None if is_archive(head) else part
            there = self._outer(source, key, listing, name, context.limits)
            if there is None:
                return None
            source = there
        return None

    def _list(self, source: Source, key: _Key, limits: Limits) -> _Listing:
        with self._lock:
            listing = self._known.get(key)
            if listing is not None:
                self._known.move_to_end(key)
                return listing
        listing = list_members(source, limits)
        with self._lock:
            self._known[key] = listing
            while len(self._known) > _MOST_LISTED:
                self._known.popitem(last=False)
        return listing

    def _outer(
        self, source: Source, key: _Key, listing: _Listing, name: str, limits: Limits
    ) -> Source | None:
        """Return the archive in an archive, or in a stream, that may hold a member."""
        ends = (at for at in range(len(name)) if name[at] == ":")
        outer = next((name[:at] for at in ends if name[:at] in listing), "")
        with self._lock:
            if self._kept is not None and self._kept[:2] == (key, outer):
                return self._kept[2]
        part = listing[outer](source) if outer else unpack_stream(source, limits)
        # What lies in the file itself is closed with it.
        if part is None or part.size > _LARGEST_KEPT or isinstance(part, JoinedSource):
            return part
        kept = MemorySource(part.path, part.read_at(0, part.size))
        with self._lock:
            self._kept = key, outer, kept
        return kept


@dataclass(frozen=True, slots=True)
class Member:
    """Opens a member of an archive by its name."""

    name: str
    context: Context
    listings: Listings = field(compare=False, repr=False)
    held: bytes | None = field(default=None, compare=False, repr=False)
    """Its bytes, if they are few and take long to read again."""

    def within(self, path: str) -> str:
        """Return the name that it has in the archive at a path, or in what that unpacks to."""
        return self.name.removeprefix(path).removeprefix(":") or "unpacked"

    def __call__(self, source: Source) -> Source:
        """Return the member of the open archive.

        Raises:
            CheckpointNotFoundError: The archive has changed and does not hold it any more.
        """
        if self.held is not None:
            return MemorySource(self.name, self.held)
        known = self.listings.open(source, self.name, self.context)
        if known is not None:
            return known
        for part in iter_parts(source, limits=self.context.limits):
            if part.path == self.name:
                return part
        raise CheckpointNotFoundError("The archive does not hold it any more", path=self.name)
