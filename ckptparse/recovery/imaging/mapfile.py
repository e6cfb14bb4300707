"""Read the map file of GNU ddrescue: which parts of a disk were read.

    # comment
    0x1234000     ?     1          current position, current status, pass
    0x00000000  0x00100000  +      a part: position, size, status
    0x00100000  0x00000200  -

`+` was read. The others were not: `-` bad, `?` not tried, `*` not trimmed, `/` not scraped.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, replace

from ckptparse.errors import MalformedError
from ckptparse.examination.inputs import HashedFile, list_inputs
from ckptparse.files.context import Context
from ckptparse.files.noted import NotedStorage

__all__ = ["Mapfile", "read_map_input", "read_mapfile"]

_READ = "+"
_STATUSES = "?*/-+"


@dataclass(frozen=True, slots=True)
class Mapfile:
    """Which parts of an image hold the bytes of the disk."""

    bad: tuple[tuple[int, int], ...]
    """Ranges of bytes (start, stop) that were not read, in order and apart."""

    @classmethod
    def from_bytes(cls, data: bytes, *, path: str | None = None) -> Mapfile:
        """Parse a map file.

        Raises:
            MalformedError: It is no map file.
        """
        lines = data.decode("ascii", "replace").splitlines()
        parts = [line.split() for line in lines if line.strip() and line.lstrip()[0] != "#"]
        if not parts:
            raise _malformed("no line with a part", path)
        # The first line that is no comment tells how far ddrescue had come, and is no part.
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
        """Return the bytes of a range that were not read, counted from its start."""
        return [
            (max(low, start) - start, min(high, stop) - start)
            for low, high in self.bad
            if low < stop and start < high
        ]


def read_mapfile(path: str, context: Context) -> Mapfile:
    """Read a map file.

    Raises:
        CheckpointNotFoundError: It is not there.
        MalformedError: It is no map file.
    """
    with closing(context.storage.open(path)) as source:
        context.limits.check("message_bytes", source.size, "The size of the map file", path=path)
        return Mapfile.from_bytes(source.read_at(0, source.size), path=path)


def read_map_input(
    path: str, context: Context, *, hashes: bool
) -> tuple[Mapfile, tuple[HashedFile, ...]]:
    """Read a map file, wherever it lies; return it as an input too."""
    noted = NotedStorage(context.storage)
    known = read_mapfile(path, replace(context, storage=noted))
    return known, list_inputs(noted, {path: "mapfile"}, hashes=hashes)


def _malformed(found: str, path: str | None) -> MalformedError:
    return MalformedError(
        f"Expected a map file of ddrescue (position, size and status in each line), found {found}",
        path=path,
    )
