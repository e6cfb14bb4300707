"""Read the map file of GNU ddrescue: which parts of a disk were read.

    # comment
    0x1234000     ?     1          current position, current status, pass
    0x00000000  0x00100000  +      a part: position, size, status
    0x00100000  0x00000200  -

`+` was read. The others were not: `-` bad, `?` not tried, `*` not trimmed, `/` not scraped.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import takewhile

from ckptparse.errors import MalformedError
from ckptparse.examination.inputs import HashedFile, list_inputs
from ckptparse.files.context import Context
from ckptparse.files.noted import NotedStorage
from ckptparse.inventory.nearby import open_named
from ckptparse.limits import DEFAULT_LIMITS, Limits, limit_error

__all__ = ["Mapfile", "read_map_input", "read_mapfile"]

_READ = "+"
_STATUSES = "?*/-+"
_PROGRESS = re.compile(r"(?:0[xX][0-9a-fA-F]+|[0-9]+) [?*/\-+FG](?: [0-9]+)?")
"""Where ddrescue was, what it did there, and in which pass."""
_LINE_BYTES = 16
"""Lines of a map file, beyond `Limits.single_entries`: ddrescue's have 26 bytes at least."""


@dataclass(frozen=True, slots=True)
class Mapfile:
    """Which parts of an image hold the bytes of the disk."""

    bad: tuple[tuple[int, int], ...]
    """Ranges of bytes (start, stop) that were not read, in order and apart."""

    @classmethod
    def from_bytes(
        cls, data: bytes, *, path: str | None = None, limits: Limits = DEFAULT_LIMITS
    ) -> Mapfile:
        """Parse a map file.

        Raises:
            MalformedError: It is no map file.
            LimitError: It has more lines than `Limits.single_entries`, and one for each 16 bytes.
        """
        beyond = max(data.count(b"\n"), data.count(b"\r")) - len(data) // _LINE_BYTES
        if beyond > limits.single_entries:
            what = f"The number of lines of a map file, beyond one for each {_LINE_BYTES} bytes,"
            raise limit_error(limits, "single_entries", beyond, what, path=path)
        lines = data.decode("ascii", "replace").splitlines()
        parts = [line.split() for line in lines if line.strip() and line.lstrip()[0] != "#"]
        # The first line that is no comment tells how far ddrescue had come, and is no part.
        first = " ".join(parts[0]) if parts else ""
        if not _PROGRESS.fullmatch(first):
            raise _malformed(f"the line {first!r:.60}" if first else "no line with a part", path)
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
        return cls(tuple(_joined(sorted(bad))))

    def within(self, start: int, stop: int) -> list[tuple[int, int]]:
        """Return the bytes of a range that were not read, counted from its start."""
        first = bisect_right(self.bad, start, key=lambda part: part[1])
        parts = (self.bad[number] for number in range(first, len(self.bad)))
        return [
            (max(low, start) - start, min(high, stop) - start)
            for low, high in takewhile(lambda part: part[0] < stop, parts)
        ]


def _joined(parts: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Join ranges that overlap, of some in order."""
    found: list[tuple[int, int]] = []
    for low, high in parts:
        if found and low <= found[-1][1]:
            found[-1] = found[-1][0], max(found[-1][1], high)
        else:
            found.append((low, high))
    return found


def read_mapfile(path: str, context: Context) -> Mapfile:
    """Read a map file.

    Raises:
        CheckpointNotFoundError: It is not there.
        MalformedError: It is no map file.
        LimitError: It is too large, or has too many lines.
    """
    with closing(open_named(path, context)) as source:
        context.limits.check("message_bytes", source.size, "The size of the map file", path=path)
        data = source.read_at(0, source.size)
    return Mapfile.from_bytes(data, path=path, limits=context.limits)


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
