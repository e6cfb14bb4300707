"""The map file of GNU ddrescue: which parts of a disk were read.

    # comment
    0x1234000     ?     1          where it was, what it did, which pass
    0x00000000  0x00100000  +      a part: position, size, status
    0x00100000  0x00000200  -

`+` is read; `-` bad, `?` not tried, `*` not trimmed and `/` not scraped are not.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass

from ckptparse.errors import MalformedError
from ckptparse.files.context import Context

__all__ = ["Mapfile", "read_mapfile"]

_READ = "+"
_STATUSES = "?*/-+"


@dataclass(frozen=True, slots=True)
class Mapfile:
    """Which parts of an image hold what the disk held."""

    bad: tuple[tuple[int, int], ...]
    """Ranges of bytes (start, stop) that were not read, in order and apart."""

    @classmethod
    def from_bytes(cls, data: bytes, *, path: str | None = None) -> Mapfile:
        """Parse a map file.

        Raises:
            MalformedError: It is none.
        """
        lines = data.decode("ascii", "replace").splitlines()
        parts = [line.split() for line in lines if line.strip() and line.lstrip()[0] != "#"]
        if not parts:
            raise _malformed("no part at all", path)
        bad: list[tuple[int, int]] = []
        for words in parts[1:]:
            try:
                start, size, status = int(words[0], 0), int(words[1], 0), words[2]
            except (ValueError, IndexError):
                raise _malformed(f"the line {' '.join(words)!r:.60}", path) from None
            if status not in _STATUSES or len(words) != 3 or start < 0 or size < 0:
                raise _malformed(f"the line {' '.join(words)!r:.60}", path)
            if status != _READ and size:
                if bad and bad[-1][1] == start:
                    bad[-1] = bad[-1][0], start + size
                else:
                    bad.append((start, start + size))
        return cls(tuple(sorted(bad)))

    def within(self, start: int, stop: int) -> list[tuple[int, int]]:
        """Return what was not read of a range, counted from its start."""
        return [
            (max(low, start) - start, min(high, stop) - start)
            for low, high in self.bad
            if low < stop and start < high
        ]


def read_mapfile(path: str, context: Context) -> Mapfile:
    """Read a map file.

    Raises:
        CheckpointNotFoundError: It is not there.
        MalformedError: It is none.
    """
    with closing(context.storage.open(path)) as source:
        context.limits.check("message_bytes", source.size, "The size of the map file", path=path)
        return Mapfile.from_bytes(source.read_at(0, source.size), path=path)


def _malformed(found: str, path: str | None) -> MalformedError:
    return MalformedError(
        f"Expected a map file of ddrescue (position, size and status in each line), found {found}",
        path=path,
    )
