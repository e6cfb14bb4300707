"""Read a table that may be damaged: what its own checksums prove, and what only looks right.

`salvaged_blocks` finds the blocks. Inside a block whose checksum fails, reading starts again at
every restart (`resuming`); one flipped bit is flipped back (`block_correction`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice, takewhile

from ckptparse.crc.flips import HIGHEST_CHANCE
from ckptparse.errors import CheckpointError, LimitError
from ckptparse.examination.block_correction import CorrectedBlock, correct_block, merge_block
from ckptparse.examination.conversions import UndoneLineEnds
from ckptparse.examination.encodings import (
    Conversion,
    Undone,
    name_steps,
    sample_conversions,
)
from ckptparse.examination.lookups import Lookups
from ckptparse.examination.lost_returns import Returned, find_lost_returns
from ckptparse.examination.outcome import (
    CHECKSUM_CHANCE,
    ByteRange,
    EvidenceRecord,
    PatchedRange,
)
from ckptparse.examination.readers import DataFile, DataFiles
from ckptparse.examination.report import FileRange
from ckptparse.examination.resuming import Accept, iter_resumed, longest_rising
from ckptparse.examination.salvaged import (
    ENTRY_BYTES,
    ROW_BYTES,
    SalvagedBlock,
    SalvagedEntry,
    SalvagedRun,
    SalvagedTable,
    TableCodes,
    iter_entries,
)
from ckptparse.examination.salvaged_blocks import LONGEST_BLOCK, BlockSearch, TableLook
from ckptparse.examination.small_blocks import SmallBlocks
from ckptparse.limits import limit_error
from ckptparse.problems import EvidenceRule, Problem
from ckptparse.table.block import Block, BlockEntries, KeyOrderError, check_key_bytes
from ckptparse.table.columns import TableColumns
from ckptparse.table.reader import Table
from ckptparse.table.together import decode_together

__all__ = ["salvage_table"]

_MOST_CORRECTED = 256
"""Damaged blocks of one table in which a flipped bit is looked for, at 3 ms each."""
_WORTH_BYTES = 32 << 10
"""From so many bytes of a block on, the steps with numpy cost less than a loop over the entries."""
_MOST_DAMAGED = 3
"""Ways of undoing a conversion that are tried if the table was damaged after it."""
_TEXT_SAMPLE = 1 << 20
"""Bytes of a table's start that show whether its line feeds were turned into CR LF."""
_START = b"\0\0"
"""The first bytes of a table of a checkpoint: its first key shares nothing, and is empty."""
_UNDONE = "conversion undone"
_TURNED = "every line feed in it became CR LF; with this undone, the file can be read"


def salvage_table(
    files: DataFiles,
    path: str,
    codes: TableCodes,
    *,
    accept: Accept,
    correct: bool = False,
    keep: int | None = None,
    resumed: int | None = None,
    most: int | None = None,
) -> SalvagedTable:
    """Read what a table still gives, with a conversion of the file undone if it needs that.

    Args:
        files: What opens it.
        path: The file.
        codes: The codes of its problems.
        accept: Tells whether a key and a value that no checksum covers look right.
        correct: Whether to correct a block if one flipped bit explains its checksum.
        keep: Keep proved values of up to so many bytes; longer ones are read from their block when
            they are needed. None keeps all.
        resumed: So many entries are taken from damaged blocks; None: all that look right.
        most: So many entries a V1 file of its size may have; None: any number.

    Raises:
        CheckpointError: It cannot be opened, or is larger than the limits allow.
    """
    scan = partial(
        _Scan, codes=codes, accept=accept, correct=correct, keep=keep, resumed=resumed, most=most
    )
    stored, turned = DataFile(path), DataFile(path, UndoneLineEnds, _UNDONE)
    size = files.size(stored)
    steps = _find_steps(files, stored)
    if steps is not None:
        table = scan(files, DataFile(path, Undone(steps), _UNDONE)).run()
        return _undone(files, table, Problem.of(codes.text, path, _say_steps(steps)))
    places = find_lost_returns(files.source(stored), files.context.limits) if size else None
    if places is not None:
        table = scan(files, DataFile(path, Returned(places), _UNDONE)).run()
        return _undone(files, table, Problem.of(codes.text, path, _say_returned(len(places))))
    is_text = files.size(stored) is not None and _may_be_text(files, stored)
    if is_text and not _opens(files, stored) and _opens(files, turned):
        # Seeking the blocks of the file as it is, by their checksums, would take longer.
        table = scan(files, turned).run()
        if table.proves:
            return _undone(files, table, Problem.of(codes.text, path, _TURNED))
    table = scan(files, stored).run()
    if table.proves or not files.size(stored):
        return table
    found = _find_ways(files, stored)[:_MOST_DAMAGED]
    ways = [(DataFile(path, Undone(one), _UNDONE), _say_steps(one)) for one in found]
    for undone, what in [*ways, (turned, _TURNED)] if is_text else ways:
        other = _scan_damaged(files, undone, scan)
        if other is not None:
            return _undone(files, other, Problem.of(codes.text, path, what))
    return table


def _say_returned(count: int) -> str:
    lost = "a carriage return was" if count == 1 else f"{count} carriage returns were"
    return f"{lost} lost before line feeds in it; with this undone, the file can be read"


def _find_steps(files: DataFiles, stored: DataFile) -> tuple[Conversion, ...] | None:
    """Return the conversions without which a file is a table; None if it is one, or never was."""
    if not files.size(stored):
        return None
    found = _find_ways(files, stored)
    if not found or _opens(files, stored):
        return None
    tried = (one for one in found if _opens(files, DataFile(stored.path, Undone(one), _UNDONE)))
    return next(tried, None)


def _find_ways(files: DataFiles, stored: DataFile) -> list[tuple[Conversion, ...]]:
    """Return the conversions that may have made a file of a table."""
    return [
        steps
        for steps, head in sample_conversions(files.source(stored))
        if len(steps) == 1 or head.startswith(_START)
    ]


def _say_steps(steps: Sequence[Conversion]) -> str:
    return f"it was converted ({name_steps(steps)}); with this undone, the file can be read"


def _scan_damaged(
    files: DataFiles, undone: DataFile, scan: Callable[[DataFiles, DataFile], _Scan]
) -> SalvagedTable | None:
    """Return a table that was damaged after a conversion; None if nothing of it is proved."""
    try:
        table = scan(files, undone).run()
    except CheckpointError:
        return None
    return table if table.proves else None


def _undone(files: DataFiles, table: SalvagedTable, problem: Problem) -> SalvagedTable:
    """Return a table that was read from a file before its conversion, with the size that it has."""
    size = files.source(DataFile(problem.where)).size
    problems = [*table.problems, problem]
    return replace(table, size=size, problems=problems, ranges=[FileRange(0, size, "bad")])


def _opens(files: DataFiles, file: DataFile) -> bool:
    """Tell whether the index block of a table is whole and lists its blocks."""
    try:
        Table.open(files.source(file), limits=files.context.limits)
    except CheckpointError:
        return False
    return True


def _may_be_text(files: DataFiles, file: DataFile) -> bool:
    """Tell whether every line feed at the start of a file follows a carriage return."""
    source = files.source(file)
    sample = source.read_at(0, min(_TEXT_SAMPLE, source.size))
    feeds = sample.count(b"\n")
    return feeds > 0 and feeds == sample.count(b"\r\n")


class _Scan:
    """One scan of one table."""

    def __init__(
        self,
        files: DataFiles,
        file: DataFile,
        *,
        codes: TableCodes,
        accept: Accept,
        correct: bool,
        keep: int | None,
        resumed: int | None,
        most: int | None,
    ) -> None:
        self._look = TableLook(files, file, codes, accept)
        self.correct = correct
        self.keep = keep
        self.most = most
        self.left = resumed
        """How many entries are still taken from damaged blocks; None: no bound."""
        self.found: list[SalvagedEntry | SalvagedRun] = []
        self.complete = True
        self.corrected = 0
        """How many damaged blocks were looked at for a flipped bit."""
        self.key_bytes = self.block_bytes = 0
        """What the blocks that are kept as runs have: keys can grow with the square of a block."""
        self.lower: bytes | None = None
        """The separator of the block before the one that is read; the keys of this come after."""

    def run(self) -> SalvagedTable:
        if self.keep is None:
            self._look.limits.check(
                "index_bytes", self._look.source.size, "The size", path=self._look.file.path
            )
        search = BlockSearch(self._look, longest=LONGEST_BLOCK if self.keep is None else None)
        places = search.find()
        self.complete = search.complete
        small = SmallBlocks(self._look, places) if self.keep is None else None
        for number, place in enumerate(places):
            known = len(self.found)
            columns = None if small is None else small.columns(number)
            self.complete &= self._take(place) if columns is None else self._keep(place, columns)
            if self.most is not None and len(self.found) > self.most:
                what = "The number of records of a V1 file"
                found = len(self.found)
                raise limit_error(self._look.limits, "small_tensors", found, what)
            self._look.files.budget.take(sum(map(_bytes_of, self.found[known:])))
            self.lower = place.separator
            self._look.files.note_read(place.end - place.offset)
        self._check_order()
        ranges = _fill(self._look.ranges, self._look.source.size)
        strays = [part.stop - part.start for part in ranges if part.kind == "unreferenced"]
        if strays:
            what = f"nothing refers to {sum(strays)} bytes in {len(strays)} places"
            self._look.report(self._look.codes.unreferenced, what)
        return SalvagedTable(
            self._look.file,
            self._look.source.size,
            self.found,
            places,
            self.complete,
            self._look.problems,
            ranges,
        )

    # -- the contents of a block

    def _take(self, place: SalvagedBlock) -> bool:
        """Take a block's entries, and tell whether all of them are proved."""
        if place.proved:
            return self._take_proved(place)
        data = self._look.source.read_at(place.offset, place.end - place.offset)
        fixed = None
        if self.correct and place.framed:
            fixed = self._corrected(data) or self._merged(data, place)
        if fixed is None:
            self._look.mark(place.offset, place.end, "bad")
            self._look.report(self._look.codes.block, self._describe(place))
            self.found.extend(self._resume(data[: place.size], place))
            return False
        self._look.mark(place.offset, place.end, "bad")
        message = f"the checksum of the block at offset {place.offset} does not match: {fixed.what}"
        self._look.report(self._look.codes.block, message)
        return self._take_corrected(place, fixed)

    def _take_corrected(self, place: SalvagedBlock, fixed: CorrectedBlock) -> bool:
        decoded, chance = fixed.entries, fixed.chance
        proved = chance <= HIGHEST_CHANCE
        grounds = (self._ground(fixed.rule, place, chance),)
        at, old, new = fixed.change
        file = self._look.file
        patches = (PatchedRange.of(file.path, place.offset + at, old, new, file.inside),)
        if proved and self.keep is None and decoded.keys:
            columns = TableColumns.of_blocks([decoded])
            self._add_run(SalvagedRun(columns, 0, chance, None, grounds, patches))
            return True
        for key, start, stop in zip(decoded.keys, decoded.starts, decoded.ends, strict=True):
            value = decoded.contents[start:stop]
            if not self._may_take():
                return False
            entry = SalvagedEntry(key, value, proved, chance, None, grounds, patches)
            self.found.append(entry)
        return proved

    def _add_run(self, run: SalvagedRun) -> None:
        self.key_bytes += len(run.columns.keys)
        self.block_bytes += len(run.columns.contents)
        check_key_bytes(self.key_bytes, self.block_bytes, self._look.limits)
        self.found.append(run)

    def _ground(
        self, rule: EvidenceRule, place: SalvagedBlock, chance: float | None
    ) -> EvidenceRecord:
        file, size = self._look.file, place.end - place.offset
        where = ByteRange(file.path, place.offset, size, file.inside)
        return EvidenceRecord.at(rule, where, chance)

    def _describe(self, place: SalvagedBlock) -> str:
        if place.framed:
            return (
                f"the checksum of the block at offset {place.offset} ({place.size} bytes) does not "
                "match"
            )
        return (
            f"expected a block at offset {place.offset}, found {place.size} bytes that are no "
            "whole block"
        )

    def _take_proved(self, place: SalvagedBlock) -> bool:
        try:
            contents = self._look.decompressed(place)
        except CheckpointError as error:
            return self._take_broken(place, b"", error)
        try:
            decoded = self._decoded(Block.from_bytes(contents))
        except LimitError:
            raise
        except CheckpointError as error:
            return self._take_broken(place, contents, error)
        if isinstance(decoded, TableColumns):
            return self._keep(place, decoded)
        self._look.mark(place.offset, place.end, "verified")
        grounds = (self._ground(EvidenceRule.ENTRY, place, CHECKSUM_CHANCE),)
        # The strict reader takes nothing of a block that breaks this rule.
        proved = not decoded.keys or self._check_separators(
            decoded.keys[0], decoded.keys[-1], place
        )
        most = len(contents) if self.keep is None else self.keep
        for key, start, stop in zip(decoded.keys, decoded.starts, decoded.ends, strict=True):
            value = contents[start:stop] if stop - start <= most else None
            self.found.append(SalvagedEntry(key, value, proved, block=place, grounds=grounds))
        return True

    def _keep(self, place: SalvagedBlock, columns: TableColumns) -> bool:
        """Take the entries of a proved block, as columns; tell whether all are at their place."""
        self._look.mark(place.offset, place.end, "verified")
        if not len(columns):
            return True
        grounds = (self._ground(EvidenceRule.ENTRY, place, CHECKSUM_CHANCE),)
        run = SalvagedRun(columns, block=place, grounds=grounds)
        if self._check_separators(run.first_key, run.last_key, place):
            self._add_run(run)
            return True
        for entry in takewhile(lambda _: self._may_take(), run):
            # A search for another key does not come to this block.
            self.found.append(replace(entry, proved=self._is_between(entry.key, place)))
        return True

    def _decoded(self, block: Block) -> BlockEntries | TableColumns:
        """Decode a block: as columns, unless long values are to stay in the file."""
        limits = self._look.limits
        if self.keep is not None:
            return block.decode_entries(limits=limits)
        columns = None
        if len(block.contents) >= _WORTH_BYTES:
            columns = decode_together([block], limits=limits)
        columns = columns or TableColumns.of_blocks([block.decode_entries(limits=limits)])
        self._look.runs.take(block, len(columns))
        return columns

    def _check_separators(self, first: bytes, last: bytes, place: SalvagedBlock) -> bool:
        """Report a block whose keys are not between separators: a search would not find them."""
        if self._is_between(first, place) and self._is_between(last, place):
            return True
        message = (
            f"the block at offset {place.offset}: expected keys after {self.lower!r} and up to "
            f"{place.separator!r}, found {first!r} to {last!r}"
        )
        self._look.report(self._look.codes.order, message)
        return False

    def _is_between(self, key: bytes, place: SalvagedBlock) -> bool:
        """Tell whether a key lies between the separators of the block before and of this one."""
        above = place.separator is not None and key > place.separator
        return not above and (self.lower is None or key > self.lower)

    def _take_broken(self, place: SalvagedBlock, contents: bytes, error: CheckpointError) -> bool:
        """Take what looks right out of a block whose checksum agrees and which breaks the rules."""
        self._look.mark(place.offset, place.end, "bad")
        unsorted = isinstance(error, KeyOrderError)
        code = self._look.codes.order if unsorted else self._look.codes.block
        self._look.report(code, f"the block at offset {place.offset}: {error.message}")
        if self.keep is not None:
            # Of such a block of a V1 file the strict reader gives nothing.
            self.found.extend(self._resume(contents, place))
            return False
        # A lookup gives what other lookups may stumble over, and a listing refuses all of it.
        look, accept = self._look, self._look.accept
        lookups = Lookups(contents, look.limits, look.files.singles.take)
        grounds = (self._ground(EvidenceRule.ENTRY, place, CHECKSUM_CHANCE),)
        for entry in self._resume(
            contents, place, lambda key, value: accept(key, value) or lookups.give(key, value)
        ):
            given = lookups.give(entry.key, entry.value or b"")
            self.found.append(replace(entry, proved=True, grounds=grounds) if given else entry)
        return False

    def _corrected(self, stored: bytes) -> CorrectedBlock | None:
        if self.corrected >= _MOST_CORRECTED:
            return None
        self.corrected += 1
        return correct_block(stored, self._look.accept, self._look.limits)

    def _merged(self, stored: bytes, place: SalvagedBlock) -> CorrectedBlock | None:
        """Put a damaged block together with what lies at its place in copies of the table."""
        others = []
        for path in self._look.files.copies:
            size = self._look.files.size(DataFile(path)) or 0
            if path != self._look.file.path and size >= place.end:
                others.append(
                    bytes(self._look.files.read(DataFile(path), place.offset, len(stored)))
                )
        look = self._look
        return merge_block(stored, others, place.offset, look.accept, look.limits)

    def _resume(
        self, contents: bytes, place: SalvagedBlock, accept: Accept | None = None
    ) -> Iterator[SalvagedEntry]:
        """Iterate over the entries of damaged contents that look right, in order.

        Their keys must lie between the separators of the block before and of this block. `accept`
        tells which look right; if None, what the table has for it does.
        """
        block = place if place.framed and not place.proved else None
        if self.left == 0:
            return
        look = self._look
        grounds = (self._ground(EvidenceRule.DAMAGED_ENTRY, place, None),)
        resumed = iter_resumed(contents, accept or look.accept, look.budget, whole=place.framed)
        found = [
            (key, value)
            for key, value in takewhile(lambda _: self._may_take(), islice(resumed, self.left))
            if self._is_between(key, place)
        ]
        if self.left is not None:
            self.left -= min(self.left, len(found))
        for number in longest_rising([key for key, _ in found]):
            key, value = found[number]
            yield SalvagedEntry(key, value, proved=False, block=block, grounds=grounds)

    def _may_take(self) -> bool:
        """Count an entry that is taken by itself. Those of V1 files are records of any size."""
        return self.keep is not None or self._look.files.singles.take()

    def _check_order(self) -> None:
        """Report keys that do not rise; of those without proof, keep the longest rising chain.

        If one of them has two values that are proved, blocks of two tables lie in the file. Which
        of them are of this one, nothing tells: no entry is proved then.
        """
        kept: list[SalvagedEntry | SalvagedRun] = []
        waiting: list[SalvagedEntry] = []
        rises = True
        for one in self.found:
            if isinstance(one, SalvagedEntry) and not one.proved:
                waiting.append(one)
                continue
            first = one.first_key if isinstance(one, SalvagedRun) else one.key
            last = _last_key(kept)
            if waiting:
                kept += _between(last, waiting, first)
                waiting = []
                last = _last_key(kept)
            if last is None or first > last:
                kept.append(one)
                continue
            rises = False
            message = f"expected a key above {last!r}, found {first!r}"
            self._look.report(self._look.codes.order, message)
            # Within a run keys rise, so that only its first is not above the one before.
            lowest, *others = [one] if isinstance(one, SalvagedEntry) else one
            kept += [replace(lowest, proved=False), *others]
        kept += _between(_last_key(kept), waiting, None)
        key = None if rises else _find_contradiction(kept)
        if key is not None:
            message = f"{key!r} has two values: blocks of two tables lie in the file"
            self._look.report(self._look.codes.order, message)
            kept = [replace(entry, proved=False) for entry in iter_entries(kept)]
        self.found = kept


def _bytes_of(one: SalvagedEntry | SalvagedRun) -> int:
    """Return what an entry, or a run of them, takes with all that is found out about it."""
    if isinstance(one, SalvagedRun):
        return ROW_BYTES * len(one) + 2 * len(one.columns.keys)
    return ENTRY_BYTES + 2 * len(one.key)


def _find_contradiction(found: Sequence[SalvagedEntry | SalvagedRun]) -> bytes | None:
    """Return a key that has two different values in whole blocks; None if none has."""
    known: dict[bytes, bytes | None] = {}
    for entry in iter_entries(found):
        if entry.block is not None and entry.block.proved:
            value = known.setdefault(entry.key, entry.value)
            if None not in (value, entry.value) and value != entry.value:
                return entry.key
    return None


def _last_key(found: Sequence[SalvagedEntry | SalvagedRun]) -> bytes | None:
    if not found:
        return None
    last = found[-1]
    return last.last_key if isinstance(last, SalvagedRun) else last.key


def _between(
    lower: bytes | None, entries: Sequence[SalvagedEntry], upper: bytes | None
) -> list[SalvagedEntry]:
    """Return the longest chain of entries whose keys rise, between two proved keys."""
    fitting = [
        entry
        for entry in entries
        if (lower is None or entry.key > lower) and (upper is None or entry.key < upper)
    ]
    return [fitting[number] for number in longest_rising([entry.key for entry in fitting])]


def _fill(ranges: Sequence[FileRange], size: int) -> list[FileRange]:
    """Sort ranges. The bytes between them become ranges of the kind `unreferenced`."""
    filled: list[FileRange] = []
    position = 0
    for part in sorted(ranges, key=lambda part: part.start):
        if part.start > position:
            filled.append(FileRange(position, part.start, "unreferenced"))
        if part.stop > position:
            filled.append(FileRange(max(position, part.start), part.stop, part.kind))
            position = part.stop
    if position < size:
        filled.append(FileRange(position, size, "unreferenced"))
    return filled
