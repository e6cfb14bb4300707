"""Members of archives, opened again and again: what lies where is listed once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ckptparse.errors import CheckpointNotFoundError
from ckptparse.files.context import Context
from ckptparse.files.storage import Source
from ckptparse.locks import make_lock
from ckptparse.recovery.evidence.containers import is_archive, iter_parts, list_members
from ckptparse.recovery.evidence.texts import HEAD

__all__ = ["Listings", "Member"]

_MOST_LISTED = 4
"""Archives whose members are kept: those of one take up to 1 KiB each."""

_Listing = Mapping[str, Callable[[Source], Source | None]]


class Listings:
    """What the archives hold that were opened last. A copy in another process begins with none."""

    __slots__ = ("_known", "_lock")

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str, int], _Listing] = OrderedDict()
        self._lock = make_lock()

    def __reduce__(self) -> tuple[type[Listings], tuple[()]]:
        return Listings, ()

    def open(self, source: Source, name: str, context: Context) -> Source | None:
        """Open a member of an archive; None if it is none, or is an archive or text itself."""
        key = source.path, source.size
        with self._lock:
            listing = self._known.get(key)
            if listing is not None:
                self._known.move_to_end(key)
        if listing is None:
            listing = list_members(source, context.limits)
            with self._lock:
                self._known[key] = listing
                while len(self._known) > _MOST_LISTED:
                    self._known.popitem(last=False)
        inside = listing.get(name)
        part = None if inside is None else inside(source)
        if part is None or is_archive(part.read_at(0, min(HEAD, part.size))):
            return None
        return part


@dataclass(frozen=True, slots=True)
class Member:
    """Opens a member of an archive by its name."""

    name: str
    context: Context
    listings: Listings = field(compare=False, repr=False)

    def within(self, path: str) -> str:
        """Return the name that it has in the archive at a path, or in what that unpacks to."""
        return self.name.removeprefix(path).removeprefix(":") or "unpacked"

    def __call__(self, source: Source) -> Source:
        """Return the member of the open archive.

        Raises:
            CheckpointNotFoundError: The archive has changed and does not hold it any more.
        """
        known = self.listings.open(source, self.name, self.context)
        if known is not None:
            return known
        for part in iter_parts(source, limits=self.context.limits):
            if part.path == self.name:
                return part
        raise CheckpointNotFoundError("The archive does not hold it any more", path=self.name)
