"""Tell which blocks of a V1 file, or of an index, in an image are of one save.

A block of a table has a checksum, but nothing says which file it belongs to. The blocks of two
saves of one model have equal sizes and keys. In an image a file may lie in several parts, and where
one of them is expected, a part of another save may lie. Parts are whole blocks of the file system:

    block of the file system   |           |           |           |
    block of the table         [  1  ][ 2 ][     3     ][ 4 ][  5  ]

A sound block on both sides of a border ties them together, as does a block of the file system that
holds bytes of two blocks of the table. If 3 is damaged, 1 and 2 may be of another save than 4 and 5
are.
"""

from __future__ import annotations

from collections.abc import Iterable

from ckptparse.examination.salvaged import SalvagedEntry, SalvagedRun, SalvagedTable

__all__ = ["OTHER_SAVE", "find_untied", "place_of"]

OTHER_SAVE = (
    "nothing shows that its block is of the same save as most others: the image may hold a part of "
    "another save there"
)


def find_untied(table: SalvagedTable, block: int, untied: Iterable[int] = ()) -> frozenset[int]:
    """Return where blocks begin that are whole, but may be of another save than most of them.

    Args:
        table: The table, as it is taken to lie in an image.
        block: Bytes of a block of the image.
        untied: Where blocks begin that are known not to be tied to the block before.
    """
    sound = {
        place_of(one)
        for one in table.found
        if one.patches and (isinstance(one, SalvagedRun) or one.proved)
    }
    sound.update(one.offset for one in table.blocks if one.proved)
    # A file begins with a block of the image, so offsets within it tell where these begin.
    groups: dict[int, int] = {}
    sizes: dict[int, int] = {}
    group, reach = -1, 0
    breaks = sorted(untied, reverse=True)
    for one in table.blocks:
        while breaks and breaks[-1] <= one.offset:
            breaks.pop()
            reach = 0
        if one.offset not in sound:
            continue
        if group < 0 or one.offset >= reach:
            group = one.offset
            sizes[group] = 0
        groups[one.offset] = group
        sizes[group] += one.size
        reach = -(-one.end // block) * block
    # Of equal ones the last: the list of blocks is nearest to it.
    chosen = max(sizes, key=lambda one: (sizes[one], one), default=-1)
    return frozenset(place for place, group in groups.items() if group != chosen)


def place_of(entry: SalvagedEntry | SalvagedRun) -> int:
    """Return where the block of an entry, or of a run of them, begins; -1 if that is not known."""
    if entry.block is not None:
        return entry.block.offset
    offset = entry.grounds[0].offset if entry.grounds else None
    return -1 if offset is None else offset
