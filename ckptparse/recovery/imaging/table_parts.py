"""Put a table together that lies in several parts of an image: a V1 file, or a large index.

A table is found by its footer, which ends its last part. The index block is there, too, or goes
over from another part into it. It says where each data block is in the file. A part begins and ends
at borders of the image's blocks, and within a part all are at the same distance:

    file    [  1  ][   2   ][ 3 ][   4   ][  5  ][index, footer]
    image   ... [  1  ][   2   ][ 3 ][ 4a |  ...other...  | 4b ][  5  ][index, footer] ...

A block says its own checksum, right behind it. So from the last part on, blocks are taken as long
as they are whole. At the first that is not, its start is sought (`block_starts`), and the two parts
are taken if some border makes its checksum right (`block_fits`). That proves that both are of one
file, if the first part has values of its own (`telling`). All other borders between parts are
listed: whoever reads the file takes blocks on one side of them only (`examination.tied_blocks`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import NamedTuple

from ckptparse.errors import CheckpointError
from ckptparse.files.storage import Source
from ckptparse.files.views import JoinedSource, Range
from ckptparse.limits import Limits
from ckptparse.recovery.imaging.block_fits import BlockFits, Reading
from ckptparse.recovery.imaging.block_starts import BlockStart, find_starts
from ckptparse.recovery.imaging.extents import Joined
from ckptparse.recovery.imaging.laid_blocks import (
    LaidBlocks,
    distance_of,
    is_whole,
    open_parts,
    placed,
    stored_crc,
)
from ckptparse.recovery.imaging.pieces import DataFile, Piece, Placement
from ckptparse.recovery.imaging.splits import Searches, complete
from ckptparse.recovery.imaging.tables import SMALLEST_BLOCK, FoundTable, kind_of
from ckptparse.recovery.imaging.telling import head_tells
from ckptparse.table.format import FOOTER_SIZE, TRAILER_SIZE, BlockHandle, Compression, Footer
from ckptparse.table.reader import Table

__all__ = ["Located", "locate_tables"]

_MOST_PASSES = 4
"""Passes over the image: each seeks other blocks than the last one."""
_MOST_SOUGHT, _SOUGHT_EACH = 256, 64
"""Blocks that a pass seeks, and how many of one table: 0.1 ms for each of them and 16 MiB."""
_MOST_DISTANCES = 128
"""Distances of one table that are tried: copies of it, and other saves, give many."""
_CRC_SIZE = 4
_LOOK = 1 << 10
"""Bytes that could be read in the time in which the start of a block is looked at."""


class Located(NamedTuple):
    """A table, and where it lies in an image."""

    kind: str
    """As that of a `FoundTable`."""
    joined: Joined
    """Opens it as one file."""
    size: int
    """In bytes."""
    found: int
    """How many of its bytes are not those of damaged blocks; 0 if its index block is damaged."""
    block: int
    """Bytes of a block of the image, at whose multiples its parts begin and end."""
    untied: tuple[int, ...] = ()
    """Where blocks of it begin that nothing ties to the block before: parts of other saves may be
    the same."""

    @property
    def start(self) -> int:
        """Where the first of its bytes that are there lies in the image."""
        return next((offset for offset, _ in self.joined.ranges if offset >= 0), 0)


def locate_tables(
    image: Source, tables: Sequence[FoundTable], block: int, *, stated: bool, limits: Limits
) -> list[Located]:
    """Find where tables lie in an image, each in one part or in several.

    Args:
        image: The image.
        tables: The tables, by their footers.
        block: Bytes of a block of the image.
        stated: Whether the image says so. Otherwise smaller ones are tried, too.
        limits: Bounds on what the tables may ask for.
    """
    reading = Reading(image)
    all_of_them = dict(enumerate(tables))
    located = _Search(image, block, reading, limits).find(all_of_them)
    lacking = {n: table for n, table in enumerate(tables) if located[n].found < table.size}
    if not stated and block > SMALLEST_BLOCK:
        for number, one in _Search(image, SMALLEST_BLOCK, reading, limits).find(lacking).items():
            if one.found > located[number].found:
                located[number] = one
    return [located[number] for number in range(len(tables))]


class _Search:
    """Looks for the parts of tables in an image of blocks of one size."""

    def __init__(self, image: Source, block: int, reading: Reading, limits: Limits) -> None:
        self._image = image
        self._block = block
        self._reading = reading
        self._limits = limits
        self._searches = Searches(image, block)
        self._fits = BlockFits(image, block, reading)
        self._checked: dict[tuple[int, int], bool] = {}
        """Whether a block of a size is whole at a place."""
        self._taken: set[int] = set()
        """Where blocks were found."""

    def find(self, tables: Mapping[int, FoundTable]) -> dict[int, Located]:
        """Return where tables lie, by their numbers."""
        opened = {number: self._open(table) for number, table in tables.items()}
        laid = {number: one for number, one in opened.items() if one is not None}
        for one in laid.values():
            self._follow(one, len(one.handles), one.own)
            for missing in one.missing():
                if self._is_whole(one, missing, one.own):
                    one.beside.add(missing)
                elif one.begins(self._image, missing, one.own):
                    one.damaged.add(missing)
        self._find_others(list(laid.values()))
        return {number: self._locate(tables[number], opened[number]) for number in tables}

    def _find_others(self, laid: Sequence[LaidBlocks]) -> None:
        """Find what lies in other parts than the last ones."""
        for _ in range(_MOST_PASSES):
            if not self._seek(laid):
                break
            for one in laid:
                one.tried.clear()
                self._tie_all(one)
        legacy = [one for one in laid if one.legacy]
        self._doubt(legacy)
        # What no other table needs is left for those that may be of several saves.
        for one in legacy:
            self._tie_all(one, weak=True)
        for one in legacy:
            while self._take_untied(one):
                self._tie_all(one)
                self._tie_all(one, weak=True)

    # -- the index block

    def _open(self, table: FoundTable) -> LaidBlocks | None:
        """Return what the index block says; None if it is damaged, or too much was read."""
        size = table.size
        if (size - table.end) % self._block or not self._reading.may(size):
            return None
        footer = Footer.from_bytes(self._image.read_at(table.end - FOOTER_SIZE, FOOTER_SIZE))
        index = footer.index
        last = [placed(index.offset, size, table.start)]
        reader = self._read(last)
        if reader is None:
            last = self._find_index(table, index)
            reader = self._read(last) if last else None
        if reader is None:
            return None
        handles = list(reader.handles)
        packed = any(self._is_packed(handle, table.start) for handle in (*handles, index))
        starts = [
            BlockStart(handle.offset, handle.size, after, key, packed)
            for handle, after, key in zip(
                handles, [None, *reader.separators], reader.separators, strict=False
            )
        ]
        end = handles[-1].end if handles else 0
        if end == footer.metaindex.offset and footer.metaindex.end == index.offset:
            handles.append(footer.metaindex)
        return LaidBlocks(table, handles, starts, last)

    def _read(self, last: Sequence[Placement]) -> Table | None:
        """Read the index block; None if it is damaged."""
        ranges = [Range(None, 0, last[0].offset), *open_parts(self._image, last).ranges]
        try:
            return Table.open(JoinedSource(self._image.path, ranges), limits=self._limits)
        except CheckpointError:
            return None

    def _find_index(self, table: FoundTable, index: BlockHandle) -> list[Placement]:
        """Find an index block of which the first part lies elsewhere than the footer."""
        crc = stored_crc(self._image, index.offset + table.start, index.size)
        if crc is None:
            return []
        piece = Piece(index.offset, index.size + 1, crc)
        tail = placed(index.offset + piece.size, table.size, table.start)
        file = DataFile(table.size, (piece,))
        found = complete(self._image, file, [tail], self._block, searches=self._searches)
        return found if found[0].offset == index.offset else []

    def _is_packed(self, handle: BlockHandle, distance: int) -> bool:
        """Tell whether the trailer of a block may say that it is compressed."""
        start = handle.offset + handle.size + distance
        inside = 0 <= start < self._image.size
        return inside and self._image.read_at(start, 1)[0] == Compression.SNAPPY

    # -- whole blocks

    def _is_whole(self, laid: LaidBlocks, number: int, distance: int) -> bool:
        """Tell whether a block is whole at a distance."""
        handle = laid.handles[number]
        key = handle.offset + distance, handle.size
        if key not in self._checked:
            self._checked[key] = self._reading.may(handle.size) and is_whole(self._image, *key)
        return self._checked[key]

    def _take(self, laid: LaidBlocks, number: int, distance: int) -> None:
        laid.whole[number] = distance
        self._taken.add(laid.handles[number].offset + distance)

    def _follow(self, laid: LaidBlocks, number: int, distance: int) -> None:
        """Take the blocks before one as long as they are whole at a distance."""
        while number > 0 and not laid.knows(number - 1):
            number -= 1
            if not self._is_whole(laid, number, distance):
                return
            self._take(laid, number, distance)

    # -- what lies in other parts

    def _seek(self, laid: Sequence[LaidBlocks]) -> bool:
        """Seek the starts of some missing blocks; tell whether any was sought."""
        # Saves of one model have many that are the same.
        sought: dict[BlockStart, list[LaidBlocks]] = defaultdict(list)
        for one in laid:
            most = min(_SOUGHT_EACH, _MOST_SOUGHT - len(sought))
            left = one.unsought()
            # The block in which the last part begins, and others, spread over the file.
            chosen = left[:: -(-len(left) // most)] if left and most else []
            one.sought.update(chosen)
            for number in chosen:
                sought[one.starts[number]].append(one)
        if not sought:
            return False
        for start, places in find_starts(self._image, sought, self._block).items():
            for one in sought[start]:
                one.add_places(start, places, _MOST_DISTANCES)
        for one in laid:
            one.likely = [distance for distance, _ in one.distances.most_common(_MOST_DISTANCES)]
        return True

    def _distances(self, laid: LaidBlocks, number: int) -> Iterator[int]:
        """Iterate over distances at which a block may begin, the most likely first."""
        before = laid.before(number)
        if before is not None:
            yield before
        if number in laid.beside:
            yield laid.own
        for distance in laid.likely:
            if not self._reading.may(_LOOK):
                return
            if distance != before and laid.begins(self._image, number, distance):
                yield distance

    def _tie_all(self, laid: LaidBlocks, *, weak: bool = False) -> None:
        """Find the first parts of all blocks of which the last part is known.

        Args:
            laid: The table.
            weak: Whether to take parts that may be of another save, too.
        """
        found = True
        while found:
            found = any(self._tie(laid, number, weak=weak) for number in laid.missing())

    def _tie(self, laid: LaidBlocks, number: int, *, weak: bool) -> bool:
        """Find the first part of a block of which the last part is known, and what precedes it."""
        behind = laid.behind(number)
        if behind is None or (number, behind, weak) in laid.tried:
            return False
        laid.tried.add((number, behind, weak))
        handle = laid.handles[number]
        distances = [one for one in self._distances(laid, number) if one != behind]
        fits = [
            parts
            for parts in self._fits.find(handle, distances, behind)
            if not laid.contradicts([number], distance_of(parts[0]), behind, self._block)
        ]
        if weak:
            fits = [one for one in fits if one[0].position not in self._taken]
        if not fits:
            return False
        parts = fits[0]
        first = self._head_tells(laid, number, parts)
        # The checksum says what the first part is, if it is in the last one.
        last = parts[-1].offset <= handle.end - _CRC_SIZE
        # What lies before it in the last part is more likely of this save than of another one.
        damaged = behind == laid.own and number - 1 in laid.beside
        sure = first and len(fits) == 1 and not damaged
        if not weak and not (sure and last):
            return False
        laid.split[number] = parts
        laid.untied += [*([] if sure else [handle.offset]), *([] if last else [handle.end])]
        self._taken.add(parts[0].position)
        if not damaged:
            self._follow(laid, number, distance_of(parts[0]))
        return True

    def _head_tells(self, laid: LaidBlocks, number: int, parts: Sequence[Placement]) -> bool:
        """Tell whether the first part of a block is that of one save only."""
        return number < len(laid.starts) and head_tells(
            open_parts(self._image, parts),
            laid.handles[number].size,
            parts[0].size,
            legacy=laid.legacy,
            limits=self._limits,
        )

    def _doubt(self, laid: Sequence[LaidBlocks]) -> None:
        """Find blocks in one part that another first part fits, too, which no table has."""
        sought: dict[BlockStart, list[tuple[LaidBlocks, int]]] = defaultdict(list)
        for one in laid:
            for number in self._iter_doubtful(one):
                if len(sought) < _MOST_SOUGHT:
                    sought[one.starts[number]].append((one, number))
        found = find_starts(self._image, sought, self._block) if sought else {}
        for start, places in found.items():
            lone = [place - start.offset for place in places if place not in self._taken]
            for one, number in sought[start]:
                if self._fits.find_two(one.handles[number], lone, one.whole[number]):
                    one.untied.append(start.offset)

    def _iter_doubtful(self, laid: LaidBlocks) -> Iterator[int]:
        """Iterate over blocks in one part that may begin in another one, which fits, too."""
        for number, distance in sorted(laid.whole.items()):
            handle = laid.handles[number]
            border = -handle.offset % self._block
            inside = number < len(laid.starts) and 0 < border < handle.size
            if inside and laid.before(number) == distance and self._reading.may(handle.size):
                edge = handle.offset + border
                parts = [placed(handle.offset, edge, distance), placed(edge, handle.end, distance)]
                if not self._head_tells(laid, number, parts):
                    yield number

    def _take_untied(self, laid: LaidBlocks) -> bool:
        """Take the last whole blocks that nothing ties to others; tell whether there are any."""
        for number in laid.missing():
            for distance in self._distances(laid, number):
                run = self._run(laid, number, distance)
                if run and not laid.contradicts(run, distance, distance, self._block):
                    for one in run:
                        self._take(laid, one, distance)
                    return True
        return False

    def _run(self, laid: LaidBlocks, number: int, distance: int) -> list[int]:
        """Return the missing blocks around one that are whole at a distance, in order."""
        found: list[int] = []
        for numbers in (range(number, -1, -1), range(number + 1, len(laid.handles))):
            for one in numbers if found or numbers.step < 0 else ():
                # What is taken belongs to another table.
                taken = laid.handles[one].offset + distance in self._taken
                if taken or laid.knows(one) or not self._is_whole(laid, one, distance):
                    break
                found.append(one)
        return sorted(found)

    # -- all of it

    def _locate(self, table: FoundTable, laid: LaidBlocks | None) -> Located:
        """Return where a table lies; that is in one part, if its index block cannot be read."""
        kind, size = table.kind, table.size
        if laid is None:
            joined = _join([placed(0, size, table.start)], size, self._image.size)
            return Located(kind, joined, size, 0, self._block)
        parts = [self._place(laid, number) for number in range(len(laid.handles))]
        joined = _join(chain(*parts, laid.last), size, self._image.size)
        if kind == "damaged":
            kind = kind_of(joined(self._image), self._limits)
        if kind == "damaged" and laid.legacy:
            kind = "v1"
        lost = [laid.handles[number] for number in laid.missing()]
        untied = {*laid.untied, *_iter_jumps(parts)}
        if len(joined.ranges) > 1:
            # Bytes that are not there read as zeros, and may be right.
            untied.update(edge for one in lost for edge in (one.offset, one.end))
        found = size - sum(one.size + TRAILER_SIZE for one in lost)
        return Located(kind, joined, size, found, self._block, tuple(sorted(untied)))

    def _place(self, laid: LaidBlocks, number: int) -> list[Placement]:
        """Return where the bytes of a block lie, or are likely to."""
        if number in laid.split:
            return laid.split[number]
        if number in laid.whole:
            handle = laid.handles[number]
            return [placed(handle.offset, handle.end, laid.whole[number])]
        return list(self._place_damaged(laid, number))

    def _place_damaged(self, laid: LaidBlocks, number: int) -> Iterable[Placement]:
        """Return what is likely of a block that is whole nowhere.

        Between parts at one distance all is at that distance.
        """
        handle = laid.handles[number]
        before, behind = laid.around(number)
        here = [placed(handle.offset, handle.end, behind)]
        if before == behind or laid.begins(self._image, number, behind):
            return here
        starts = list(self._distances(laid, number))
        if before is None and not starts:
            return here
        # Each record of a V1 file has its values; an entry of an index may be that of another save.
        starts = starts if laid.legacy else []
        beside = laid.before(number)
        if beside is None and len(starts) == 1:
            beside = starts[0]
        return self._fits.place_damaged(handle, beside, laid.behind(number))


def _iter_jumps(blocks: Iterable[Sequence[Placement]]) -> Iterator[int]:
    """Iterate over where blocks begin that lie at another distance than the end of the last one."""
    last: int | None = None
    for parts in blocks:
        if parts:
            if last is not None and distance_of(parts[0]) != last:
                yield parts[0].offset
            last = distance_of(parts[-1])


def _join(placements: Iterable[Placement], size: int, image_size: int) -> Joined:
    """Return what opens a table of which the bytes lie there, and the others nowhere."""
    ranges: list[tuple[int, int]] = []
    done = 0
    for one in placements:
        # Of a damaged block, part may be expected outside of the image.
        low = min(one.size, max(0, -one.position))
        high = max(low, min(one.size, image_size - one.position))
        ranges += [(-1, one.offset + low - done), (one.position + low, high - low)]
        done = one.offset + high
    return Joined(tuple(_merged([*ranges, (-1, size - done)])))


def _merged(ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Join ranges (offset, size) that lie end to end; those without bytes are left out."""
    last, size = -1, 0
    for offset, count in ranges:
        if not count:
            continue
        if offset == (-1 if last < 0 else last + size):
            size += count
            continue
        if size:
            yield last, size
        last, size = offset, count
    if size:
        yield last, size
