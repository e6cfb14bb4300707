"""Find whole data files that are elsewhere, or were changed, and read them as they were.

    converted   text encodings, base64, gzip: undone (`conversions`)
    returns     carriage returns lost before line feeds: put back (`returns`)
    stripes     in the wrong order: put in the right one (`stripes`)
    images      block by block in an image (`imaging.extents`)
    archives    a member of a zip or tar, or what gzip packed

Each is a place like any other: the payloads there have their checksums.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cache, partial

import numpy as np
import numpy.typing as npt

from ckptparse.crc.flips import HIGHEST_CHANCE
from ckptparse.dtypes import item_size
from ckptparse.elements import distinct
from ckptparse.errors import CheckpointError
from ckptparse.examination.case import ATTEMPT_BYTES, Case
from ckptparse.examination.hopeful import Hopes, is_all_text
from ckptparse.examination.lost_returns import Returned
from ckptparse.examination.payload import Form, Payload
from ckptparse.examination.places import (
    NO_CHANCE,
    Place,
    are_telling,
    are_weights,
    find_place,
    is_telling,
)
from ckptparse.examination.readers import DataFile
from ckptparse.examination.returns import restore_returns
from ckptparse.files.memory import MemorySource
from ckptparse.files.storage import Source
from ckptparse.parallel import stream_crc
from ckptparse.problems import Cause, EvidenceRule, Status
from ckptparse.recovery.evidence.bounds import Note
from ckptparse.recovery.evidence.containers import is_stream, iter_parts
from ckptparse.recovery.evidence.fitting import Allowance
from ckptparse.recovery.evidence.gather import Evidence
from ckptparse.recovery.evidence.lost import Lost
from ckptparse.recovery.evidence.members import Listings, Member
from ckptparse.recovery.evidence.scattered import find_scattered
from ckptparse.recovery.evidence.undone import find_texts
from ckptparse.recovery.imaging import extents
from ckptparse.recovery.imaging.extents import Joined
from ckptparse.recovery.imaging.mapfile import Mapfile
from ckptparse.recovery.imaging.tables import find_block_size, read_block_size
from ckptparse.recovery.statistics import judge_elements
from ckptparse.recovery.stripes import (
    SMALL_FILE,
    Found,
    Stripes,
    find_stripes,
    try_all,
    try_stripes,
)

__all__ = ["Places", "find_places"]

IntColumn = npt.NDArray[np.int64]
_MOST_PIECES = 1 << 14
"""Payloads that are sought, if nothing but the order of stripes is asked for; each takes 10 us."""
_CHUNKS = 64
"""Runs of small payloads beside each other that are chosen of more: each lies in stripes as one."""
Places = dict[DataFile, list[Place]]

_DATA_FILE = "v2-shard"
_IMAGES = frozenset({"unknown", "truncated", "zeros", _DATA_FILE})
"""Kinds, as `identify` names them, of files that may hold blocks of other files: images, and data
files themselves."""
_ARCHIVES = frozenset({"gzip", "tar", "zip", "truncated"})
"""Kinds of files that may hold whole data files as members, or as much of one as was not cut. So
may those of which `identify` says only which program packed them."""
_STREAMS = frozenset({"unknown", "zstd"})
_SAMPLES = 8
"""Payloads that are tried in each member: if it is the data file, nearly all are whole there."""
_SECTOR = 512
"""Bytes of the smallest block that a file system uses; tried if larger blocks give nothing."""
_HELD = 8 << 20
"""Bytes of the largest file that is held in memory while it is searched."""
_MOST_LOST = 1 / 500
"""The largest share of a file that lost returns may be. In weights it is 1 in 65,536; the bound
leaves room for integers and text in the file."""
_PAIRS_AN_ATTEMPT = 16
"""Damaged data files, each in a file of the evidence, that count as one of `Limits.attempts`."""
_LEFT = (
    "parts of damaged data files were not looked for in it: the evidence has more files, for so "
    "many damaged ones, than Limits.attempts allows"
)
_FAILURES = 3
"""Payloads that may stay wrong before the search for lost returns ends: each attempt takes long,
and after a wrong one the offsets of all that follow are not known."""
_SAMPLE = 1 << 20
"""Bytes of a payload that are judged: 2,048 pieces of 512 bytes."""
_SMALL_SAMPLE = 1 << 12
_SMALL_SAMPLES = 64
"""Bytes and number of samples that tell whether a file holds one byte again and again."""
_NOISE = 0.9
"""Share of elements that look wrong from which on a payload counts as noise; weights in a wrong
order of stripes are still weights, of which few look wrong."""
_WHOLE_FILES = frozenset({EvidenceRule.GATHERED, EvidenceRule.REORDERED})
_MOST_ORDERED = 4
"""Small data files of which every order of stripes is tried: each takes
a tenth of a second at most."""
_WORTH = 0.25
"""Share of a file's bytes that must be damaged before stripes are tried. Two swapped disks of n
move 2 stripes in n, and damage every tensor that reaches into these; less has another cause."""


@dataclass(frozen=True, slots=True)
class _Reordered:
    """Opens a file with its stripes in the right order."""

    stripes: Stripes

    def __call__(self, source: Source) -> Source:
        return self.stripes.undo(source)


def find_places(
    case: Case, evidence: Evidence, places: Places, mapfile: Mapfile | None = None
) -> Places:
    """Add to known places those of whole data files that were changed, or are in images."""
    found: Places = defaultdict(list, {file: list(known) for file, known in places.items()})
    allowance = Allowance()
    for number, file in enumerate(_damaged_files(case)[: case.most_files]):
        for place in _own_places(case, file, found, allowance, all_orders=number < _MOST_ORDERED):
            # What holds nearly all of them is asked first.
            first = 0 if place.rule in _WHOLE_FILES else len(found[file])
            found[file].insert(first, place)
    _look_into(case, evidence, found, mapfile)
    return dict(found)


def _look_into(case: Case, evidence: Evidence, found: Places, mapfile: Mapfile | None) -> None:
    """Add the places of data files that the files of the evidence hold."""
    damaged = _damaged_files(case)
    kinds = _IMAGES | _ARCHIVES | _STREAMS
    kinds_by_path = {path: kind for path, kind in evidence.kinds.items() if kind in kinds}
    most = _most_pairs(case) // max(1, len(damaged))
    sought = cache(partial(_sought, case))
    for number, (path, kind) in enumerate(kinds_by_path.items() if damaged else ()):
        note = evidence.bounds.of(path)
        if number >= most:
            note(_LEFT)
            continue
        if kind in _IMAGES:
            believe = kind != _DATA_FILE
            image = _in_image(case, path, found, sought, mapfile, note=note, believe=believe)
            for file, place in image:
                found[file].append(place)
        if kind in _ARCHIVES or kind in _STREAMS:
            believe = kind in _ARCHIVES
            in_archive = _in_archive(case, path, found, note, evidence.listings, believe=believe)
            for file, place in in_archive:
                found[file].append(place)


def _most_pairs(case: Case) -> int:
    """Return in how many files of the evidence damaged data files are sought, each times each."""
    held = case.files.held_bytes + case.files.evidence_bytes
    return _PAIRS_AN_ATTEMPT * (case.context.limits.attempts + held // ATTEMPT_BYTES)


def _in_archive(
    case: Case, path: str, places: Places, note: Note, listings: Listings, *, believe: bool
) -> Iterator[tuple[DataFile, Place]]:
    """Iterate over the data files that an archive holds whole, each as a place of its own.

    If the file is not believed to be an archive, only what a stream packed is looked at.
    """
    sought = {file: _telling(case, file, places) for file in _damaged_files(case)}
    if not any(sought.values()):
        return
    try:
        with closing(case.context.storage.open(path)) as source:
            if not believe and not is_stream(source):
                return
            for part in iter_parts(source, limits=case.context.limits, note=note):
                for file, payloads in sought.items():
                    if any(_lies_in(part, payload) for payload in payloads):
                        member = Member(part.path, case.context, listings)
                        there = DataFile(path, member, member.within(path))
                        method, rule = f"taking it from {part.path}", EvidenceRule.FILE
                        yield file, Place(there, 0, None, method, NO_CHANCE, rule)
    except CheckpointError:
        # An archive that cannot be read gives nothing.
        return


def _telling(case: Case, file: DataFile, places: Places) -> list[Payload]:
    """Return some lost payloads of a file that hardly another has."""
    lost = [one for one in _payloads(case, file, lost=True, places=places) if is_telling(one)]
    return lost[:: max(1, len(lost) // _SAMPLES)][:_SAMPLES]


def _lies_in(part: Source, payload: Payload) -> bool:
    if payload.form is not Form.PLAIN or payload.end > part.size:
        return False
    return stream_crc(part.read_at, payload.offset, payload.size) == payload.crc32c


def _damaged_files(case: Case) -> list[DataFile]:
    files: dict[DataFile, None] = {}
    for part in case.iter_held():
        if part.payload is not None and _is_lost(part.check.status):
            files[part.payload.file] = None
    failed = case.failed
    for path in failed.paths if failed is not None else ():
        if failed is not None and not failed.good[failed.of_path(path)].all():
            files[DataFile(path)] = None
    return list(files)


def _is_lost(status: Status) -> bool:
    return status not in (Status.VERIFIED, Status.UNVERIFIED)


def _payloads(case: Case, file: DataFile, *, lost: bool, places: Places) -> list[Payload]:
    """Return the payloads of a file by offset; with `lost`, only those not found anywhere yet."""
    if not lost:
        found = _held_payloads(case, file, lost=False)
        for known in case.rows_of(file):
            found += [known.plain.payload(row) for row in known.rows_of(file.path).tolist()]
        return sorted(found, key=lambda payload: payload.offset)
    found = _lost_payloads(case, file, places)
    if case.failed is not None:
        rows = _lost_rows(case, file, places)
        found += [case.failed.payload(number) for number in rows.tolist()]
    return sorted(found, key=lambda payload: payload.offset)


def _lost_payloads(case: Case, file: DataFile, places: Places) -> list[Payload]:
    """Return those of `_held_payloads` that were not found anywhere yet."""
    return [one for one in _held_payloads(case, file) if not _lies_somewhere(case, one, places)]


def _are_any_lost(case: Case, file: DataFile, places: Places) -> bool:
    """Tell whether a file has payloads that were not found anywhere yet."""
    return bool(_lost_payloads(case, file, places)) or len(_lost_rows(case, file, places)) > 0


def _held_payloads(case: Case, file: DataFile, *, lost: bool = True) -> list[Payload]:
    """Return the payloads of a file that are objects and have a checksum; of `lost` ones only."""
    held = case.checked_in(file)
    return [payload for part, payload in held if not lost or _is_lost(part.check.status)]


def _lost_rows(case: Case, file: DataFile, places: Places) -> IntColumn:
    """Return the rows of a file that are lost and were not found anywhere yet, by offset."""
    failed = case.failed
    if failed is None or file.undo is not None:
        return np.zeros(0, np.int64)
    rows = failed.of_path(file.path)
    rows = rows[~failed.good[rows]]
    for place in places.get(file, ()):
        rows = rows[~place.hold_rows(case.files, failed, rows)]
    return rows[np.argsort(failed.starts[rows], kind="stable")]


def _known_spans(case: Case, file: DataFile, places: Places) -> Iterator[tuple[int, int]]:
    """Iterate over where payloads of a file begin and end in it, at their places or elsewhere."""
    for part, payload in case.checked_in(file):
        if part.check.status is Status.VERIFIED:
            yield payload.offset, payload.end
        else:
            place = _place_of(case, payload, places)
            if place is not None and place.file == file:
                moved = place.of(payload)
                yield moved.offset, moved.end
    sound, failed = case.sound, case.failed
    if sound is not None and not sound.plain.are_records:
        columns, numbers = sound.plain.columns, sound.rows_of(file.path)
        yield from _spans_of(columns.offsets[numbers], columns.sizes[numbers])
    if failed is None:
        return
    rows = failed.of_path(file.path)
    here = rows[failed.good[rows]]
    yield from _spans_of(failed.starts[here], failed.sizes[here])
    rows = rows[~failed.good[rows]]
    for place in places.get(file, ()):
        if place.file == file:
            there = rows[place.hold_rows(case.files, failed, rows)]
            yield from _spans_of(failed.starts[there] + place.delta, failed.sizes[there])


def _spans_of(starts: IntColumn, sizes: IntColumn) -> Iterator[tuple[int, int]]:
    return zip(starts.tolist(), (starts + sizes).tolist(), strict=True)


def _lies_somewhere(case: Case, payload: Payload, places: Places) -> bool:
    return _place_of(case, payload, places) is not None


def _place_of(case: Case, payload: Payload, places: Places) -> Place | None:
    """Return the first place where a payload is whole."""
    return find_place(case.files, places.get(payload.file, ()), payload)


def _own_places(
    case: Case, file: DataFile, places: Places, allowance: Allowance, *, all_orders: bool
) -> Iterator[Place]:
    """Iterate over the file as it may have been before it was changed."""
    lost = _lost_of(case, file, places)
    if case.files.size(file) is None or not len(lost) or file.undo is not None:
        return
    source = _in_memory(case.files.source(file))
    texts = find_texts(case, file, lost)
    if texts:
        yield from texts
        return
    returned = _restore(case, file, source)
    if returned:
        undone = DataFile(file.path, Returned(returned), "conversion undone")
        method = "putting back carriage returns that were lost"
        yield Place(undone, 0, Cause.TEXT, method, NO_CHANCE)
        return
    gathered = _gather(case, file, source, places, allowance)
    if gathered is not None:
        yield gathered
        lost = lost.without(gathered)
    yield from _striped(case, file, source, lost, all_orders=all_orders)


def _in_memory(source: Source) -> Source:
    """Return a small file in memory: it is read again and again, a few KiB each time."""
    if source.size > _HELD:
        return source
    return MemorySource(source.path, source.read_at(0, source.size))


def _lost_of(case: Case, file: DataFile, places: Places) -> Lost:
    """Return the payloads of a file that are lost and were not found anywhere yet."""
    held = _lost_payloads(case, file, places)
    return Lost(case, held, _lost_rows(case, file, places))


def _gather(
    case: Case, file: DataFile, source: Source, places: Places, allowance: Allowance
) -> Place | None:
    """Find the lost payloads of a file that lie in it beside others, in any order."""
    # One that may lie where it was found by chance is sought there again: what is beside it tells.
    doubted = [one for one in places.get(file, ()) if one.file == file and _may_be_chance(one)]
    sure = {file: [one for one in places.get(file, ()) if one not in doubted]}
    edges = [one.alone[0] + one.delta for one in doubted if one.alone is not None]
    allowance.add(source.size)
    spans = list(_known_spans(case, file, sure))
    lost = _lost_of(case, file, sure)
    gathered = find_scattered(source, spans, edges, lost.pieces(), allowance)
    if gathered is None:
        return None
    there = DataFile(file.path, gathered, "tensors in order")
    method = "taking it from where it lies in the file"
    chance = max(NO_CHANCE, gathered.chance)
    offsets = {target: offset for target, offset, _ in gathered.moves}
    rule = EvidenceRule.GATHERED
    return Place(there, 0, Cause.SHIFTED, method, chance, rule, offsets=offsets)


def _may_be_chance(place: Place) -> bool:
    return place.alone is not None and place.chance > HIGHEST_CHANCE


def _striped(
    case: Case, file: DataFile, source: Source, lost: Lost, *, all_orders: bool
) -> Iterator[Place]:
    """Iterate over the order of stripes that makes most of the lost payloads agree."""
    all_orders &= source.size <= SMALL_FILE
    if not lost or (not all_orders and lost.size <= _WORTH * case.size_of(file)):
        return
    if _is_fill(source) or _is_noise(source, lost.smallest):
        # If these are no weights in this order, they are none in another.
        return
    for stripes in _iter_orders(case, file, source, lost, all_orders=all_orders):
        ways = [_in_order(file, one) for one in (stripes, replace(stripes, packed=True))]
        sizes = [lost.size_in(place) for place in ways[: 1 + stripes.leaves_rest(source)]]
        if 2 * max(sizes) > lost.size:
            yield ways[sizes.index(max(sizes))]
            return


def _in_order(file: DataFile, stripes: Stripes) -> Place:
    undone = DataFile(file.path, _Reordered(stripes), "stripes in order")
    method = f"putting stripes of {stripes.size} bytes in order"
    return Place(undone, 0, Cause.SHIFTED, method, NO_CHANCE, EvidenceRule.REORDERED)


def _iter_orders(
    case: Case, file: DataFile, source: Source, lost: Lost, *, all_orders: bool
) -> Iterator[Stripes]:
    """Iterate over the orders of stripes by which payloads are whole."""
    pieces = _pieces_of(case, file)
    if all_orders:
        held = [one for one in pieces if one.offset + one.size <= source.size]
        stripes = try_all(source, [(one.offset, one.size, one.crc) for one in held])
        if stripes is not None:
            yield stripes
    stripes = _stripes_of(source, pieces)
    if stripes is not None:
        yield stripes
    stripes = _tried_stripes(source, lost.pieces())
    if stripes is not None:
        yield stripes


def _restore(case: Case, file: DataFile, source: Source) -> tuple[int, ...]:
    """Return where carriage returns must be put back, as far as checksums prove it."""
    end = case.end_of(file)
    # A small file may have lost more than its share.
    if not 0 < end - source.size <= max(16, _MOST_LOST * end):
        return ()
    # If one return still stands before a line feed, none was taken away. The first 4 MiB tell:
    # in random bytes the pair comes once in 64 KiB.
    if b"\r\n" in source.read_at(0, min(source.size, 1 << 22)):
        return ()
    places: list[int] = []
    failures = covered = 0
    for payload in _payloads(case, file, lost=False, places={}):
        if not payload.size or payload.offset < covered:
            # It holds nothing, or lies over another one.
            continue
        start = payload.offset - len(places)
        data = source.read_at(start, max(0, min(payload.size, source.size - start)))
        width = item_size(payload.data_type) or 1
        found = None
        is_noise = are_weights(payload) and Hopes(data).is_noise
        told = payload.form is Form.PLAIN and not is_noise
        if told and payload.crc32c is not None:
            found = restore_returns(data, payload.size, payload.crc32c, width=width)
        if found is not None:
            places += [start + place for place in found.places]
            covered = payload.end
        else:
            failures += 1
            if failures > _FAILURES:
                break
    return tuple(places)


def _pieces_of(case: Case, file: DataFile) -> list[extents.Piece]:
    """Return the payloads of a file, by offset, that are neither small nor constant.

    Of very many, some are chosen: large ones spread over the file, or small ones beside each other.
    """
    columns = [
        (one.offset, one.size, one.crc32c or 0)
        for one in _held_payloads(case, file, lost=False)
        if one.form is Form.PLAIN and is_telling(one)
    ]
    parts = [np.array(columns, np.int64).reshape(-1, 3)]
    for rows in case.rows_of(file):
        if not rows.plain.are_records:
            known, numbers = rows.plain.columns, rows.rows_of(file.path)
            numbers = numbers[are_telling(rows.plain, numbers)]
            fields = (known.offsets[numbers], known.sizes[numbers], known.crcs[numbers])
            parts.append(np.stack(fields, axis=1))
    found = np.concatenate(parts)
    found = found[np.argsort(found[:, 0], kind="stable")]
    if len(found) > _MOST_PIECES:
        found = _chosen(found)
    return [extents.Piece(*one) for one in found.tolist()]


def _chosen(pieces: IntColumn) -> IntColumn:
    large = pieces[pieces[:, 1] >= extents.SMALLEST // 2]
    if len(large) >= _CHUNKS:
        return large[:: -(-len(large) // _MOST_PIECES)]
    size = _MOST_PIECES // _CHUNKS
    firsts = np.linspace(0, len(pieces) - size, _CHUNKS).astype(np.int64)
    return pieces[distinct((firsts[:, None] + np.arange(size)).reshape(-1))]


def _stripes_of(source: Source, pieces: Sequence[extents.Piece]) -> Stripes | None:
    """Return the order of stripes, if payloads are where stripes in another order put them."""
    file = extents.DataFile(source.size, tuple(pieces))
    found: list[Found] = []
    for segment in extents.find_anchors(source, [file], extents.SMALLEST):
        found += [Found(one.offset, one.position, one.size) for _, one in segment]
    return find_stripes(found)


def _is_noise(source: Source, payload: Payload) -> bool:
    """Tell whether hardly any element of a payload looks like a weight, or all of it is text."""
    size = min(payload.size, _SAMPLE, source.size - payload.offset)
    if size <= 0:
        return False
    data = source.read_at(payload.offset, size)
    width = item_size(payload.data_type) or 1
    if payload.form is Form.PLAIN and width > 1 and is_all_text(memoryview(data)):
        return True
    judged = judge_elements(data, payload.data_type, offset=payload.offset)
    suspect = sum(stop - start for start, stop in judged.suspect) * width
    return judged.judged and suspect > _NOISE * size


def _is_fill(source: Source) -> bool:
    """Tell whether samples of a file are one byte again and again."""
    size = min(_SMALL_SAMPLE, source.size)
    step = max(1, (source.size - size) // _SMALL_SAMPLES)
    samples = (source.read_at(at, size) for at in range(0, source.size - size + 1, step))
    return not any(sample.strip(sample[:1]) for sample in samples)


def _tried_stripes(source: Source, lost: Iterable[tuple[int, int, int]]) -> Stripes | None:
    return try_stripes(source, [one for one in lost if one[0] + one[1] <= source.size])


def _in_image(
    case: Case,
    path: str,
    places: Places,
    sought_of: Callable[[DataFile], extents.DataFile],
    mapfile: Mapfile | None,
    *,
    note: Note,
    believe: bool,
) -> Iterator[tuple[DataFile, Place]]:
    """Iterate over the data files that an image holds, in any number of parts."""
    wanted = [
        file
        for file in _damaged_files(case)
        if file.path != path and _are_any_lost(case, file, places)
    ]
    if not wanted or not case.files.size(DataFile(path)):
        return
    source = _in_memory(case.files.source(DataFile(path)))
    sought = [sought_of(file) for file in wanted]
    stated = read_block_size(source)
    for block in dict.fromkeys((find_block_size(source), _SECTOR)):
        found = extents.put_together(source, sought, block, believe=believe, note=note)
        chance = extents.chance_of(source.size, sought, block)
        whole = len(found) == len(wanted)
        for number, joined in found.items():
            there = DataFile(path, Joined.of(joined, mapfile), "put together")
            method = f"finding it in {path}"
            rule = EvidenceRule.IMAGE
            place = Place(there, 0, Cause.SHIFTED, method, chance, rule)
            mine = _payloads(case, wanted[number], lost=True, places=places)
            if not all(place.holds(case.files, one) for one in mine if one.form is Form.PLAIN):
                whole = False
            yield wanted[number], place
        # Of blocks of an unknown size, some lie on a coarser grid by chance.
        if found and (whole or stated is not None or not believe):
            return


def _sought(case: Case, file: DataFile) -> extents.DataFile:
    columns = [
        (one.offset, one.size, one.crc32c or 0, one.data_type)
        for one in _held_payloads(case, file, lost=False)
        if one.form is Form.PLAIN and one.size
    ]
    parts = [np.array(columns, np.int64).reshape(-1, 4)]
    for rows in case.rows_of(file):
        if not rows.plain.are_records:
            known, numbers = rows.plain.columns, rows.rows_of(file.path)
            numbers = numbers[known.sizes[numbers] > 0]
            fields = (known.offsets, known.sizes, known.crcs, known.data_types)
            parts.append(np.stack([column[numbers] for column in fields], axis=1))
    found = np.concatenate(parts)
    found = found[np.argsort(found[:, 0], kind="stable")]
    pieces = tuple(extents.Piece(*one) for one in found.tolist())
    return extents.DataFile(case.end_of(file), pieces)
