"""Every byte of a table: a V2 index, or a V1 file (docs/format.md, section 1).

What is broken is marked and not followed: without its handle nobody knows where a block lies, and
`recover` is what guesses.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING

from ckptparse.annotation.messages import annotate_message
from ckptparse.annotation.part import Annotation, shorten
from ckptparse.bundle.naming import decode_slice_key
from ckptparse.coding.checksum import unmask_crc
from ckptparse.coding.varint import decode_varint
from ckptparse.errors import CheckpointError, ChecksumError, MalformedError, TruncatedError
from ckptparse.files.storage import Source
from ckptparse.limits import Limits
from ckptparse.slices import TensorSlice
from ckptparse.table.block import Block, check_key_bytes, decode_entry
from ckptparse.table.format import (
    FOOTER_SIZE,
    TRAILER_SIZE,
    BlockHandle,
    Compression,
    Footer,
    check_block,
    decompress_block,
    read_block,
    read_footer,
)

if TYPE_CHECKING:
    from ckptparse.annotation.messages import MessageDescriptor

__all__ = ["annotate_table"]

_MAGIC_SIZE = 8
_NO_NAME = b"\0"
_ODD_KEYS, _ODD_SHARE, _FEW_EXTENTS = 256, 8, 20
"""Bytes of a block's keys of slices that are read number by number, beyond an eighth of its own and
20 for each key: of extents, and of names with bytes that no name has. Keys can be far longer than
their block."""


@dataclass(frozen=True, slots=True)
class _Kind:
    """How the values of a block are read."""

    name: str
    header: MessageDescriptor | None = None
    entry: MessageDescriptor | None = None
    wanted: int = 3
    """The deepest level that is wanted: below 2 no values, below 3 no fields of theirs."""
    lower: bytes | None = None
    """The key of the block before, in the index: those of this one come after it."""
    upper: bytes | None = None
    """The key of this block, in the index: no other comes after it."""

    def may_hold(self, key: bytes) -> bool:
        """Tell whether a search for a key looks for it here."""
        if self.lower is not None and key <= self.lower:
            return False
        return self.upper is None or key <= self.upper


@dataclass(frozen=True, slots=True)
class _Entry:
    """Where an entry of a block lies in the block's contents, and its whole key."""

    position: int
    key_start: int
    value_start: int
    value_end: int
    key: bytes


def annotate_table(source: Source, *, depth: int, limits: Limits) -> Iterator[Annotation]:
    """Iterate over a table's blocks in the order of the file, with what is in them.

    Args:
        source: The file.
        depth: Levels below the blocks that are wanted: what lies deeper is not looked at.
        limits: Bounds on what is read and unpacked.
    """
    try:
        footer = read_footer(source)
    except CheckpointError as error:
        yield Annotation(0, source.size, 0, "table", error.message, broken=True)
        return
    position, last = 0, source.size - FOOTER_SIZE
    blocks, skipped = _list_blocks(source, footer, limits)
    for handle, kind in sorted(blocks, key=lambda block: (block[0].offset, block[0].size)):
        if handle.offset > position:
            if position < min(handle.offset, last):
                yield _between(position, min(handle.offset, last), skipped)
        elif handle.offset < position:
            # Told once: an index that names a block often would else make a small file endless.
            yield _overlapping(handle, kind, source)
            continue
        yield from _annotate_block(source, handle, kind, depth, limits)
        position = max(position, min(handle.end, last))
    start = last
    if start > position:
        yield _between(position, start, skipped)
    yield from _annotate_footer(source.read_at(start, FOOTER_SIZE), start, footer)


def _between(start: int, end: int, skipped: str) -> Annotation:
    """Tell of bytes of no block, or of one that was not looked at."""
    if skipped:
        return Annotation(start, end - start, 0, "bytes that were not looked at", skipped)
    return Annotation(start, end - start, 0, "bytes that nothing refers to", broken=True)


def _overlapping(handle: BlockHandle, kind: _Kind, source: Source) -> Annotation:
    says = f"{handle.size} bytes that begin inside an earlier block: they are not shown again"
    return Annotation(min(handle.offset, source.size), 0, 0, kind.name, says, broken=True)


def _list_blocks(
    source: Source, footer: Footer, limits: Limits
) -> tuple[list[tuple[BlockHandle, _Kind]], str]:
    """List every block that the footer and the index block name; say why some are left out."""
    blocks = [(footer.metaindex, _Kind("metaindex block")), (footer.index, _Kind("index block"))]
    try:
        contents = read_block(source, footer.index, limits=limits)
    except CheckpointError:
        return blocks, ""
    most = limits.most_blocks(source.size)
    found = _iter_handles(contents, limits)
    named = list(islice(found, most))
    skipped = ""
    if next(found, None) is not None:
        skipped = (
            f"the first {most:,} blocks are looked at: Limits.blocks allows {limits.blocks:,}, "
            "and one for each 4 KiB of the table"
        )
    header, entry = _find_messages(source, [handle for handle, _ in named], limits)
    lower: bytes | None = None
    for number, (handle, upper) in enumerate(named):
        kind = _Kind(f"data block {number}", header, entry, lower=lower, upper=upper)
        blocks.append((handle, kind))
        lower = upper
    return blocks, skipped


def _iter_handles(contents: bytes, limits: Limits) -> Iterator[tuple[BlockHandle, bytes]]:
    """Iterate over the blocks that an index block names, each with its key there."""
    key, key_bytes = b"", 0
    try:
        for shared, start, end, stop in _iter_entries(contents, _entries_end(contents)):
            key = key[:shared] + contents[start:end]
            key_bytes += len(key)
            check_key_bytes(key_bytes, len(contents), limits)
            yield BlockHandle.from_bytes(contents, end, stop)[0], key
    except CheckpointError:
        return


def _find_messages(
    source: Source, handles: list[BlockHandle], limits: Limits
) -> tuple[MessageDescriptor | None, MessageDescriptor | None]:
    """Tell by the first value which messages a table holds: a bundle's, or a V1 file's."""
    from ckptparse.proto.saved_tensor_slice_pb2 import SavedTensorSlices
    from ckptparse.proto.tensor_bundle_pb2 import BundleEntryProto, BundleHeaderProto

    try:
        contents = read_block(source, handles[0], limits=limits)
        _, _, start, end = next(_iter_entries(contents, _entries_end(contents)))
    except (CheckpointError, IndexError, StopIteration):
        return None, None
    # An empty list names no tensors; an empty header would state no data files.
    if contents[start:end][:1] in (b"", b"\x0a"):
        return SavedTensorSlices.DESCRIPTOR, SavedTensorSlices.DESCRIPTOR
    return BundleHeaderProto.DESCRIPTOR, BundleEntryProto.DESCRIPTOR


def _annotate_block(
    source: Source, handle: BlockHandle, kind: _Kind, depth: int, limits: Limits
) -> Iterator[Annotation]:
    size = handle.size + TRAILER_SIZE
    try:
        if handle.end > source.size - FOOTER_SIZE:
            raise TruncatedError("the block does not end before the footer")
        stored = source.read_at(handle.offset, size)
    except CheckpointError as error:
        # The footer is told by itself, whatever a handle says.
        last = source.size - FOOTER_SIZE
        there = max(0, min(size, last - handle.offset))
        start = min(handle.offset, last)
        yield Annotation(start, there, 0, kind.name, error.message, broken=True)
        return
    damage = _find_damage(source, handle, stored)
    yield Annotation(handle.offset, size, 0, kind.name, damage or "", broken=damage is not None)
    if depth:
        kind = replace(kind, wanted=depth)
        yield from _annotate_contents(source, handle, stored, kind, limits)
    yield from _annotate_trailer(handle, stored, broken=damage is not None)


def _find_damage(source: Source, handle: BlockHandle, stored: bytes) -> str | None:
    try:
        check_block(stored, path=source.path, offset=handle.offset)
    except ChecksumError as error:
        return error.message
    return None


def _annotate_contents(
    source: Source, handle: BlockHandle, stored: bytes, kind: _Kind, limits: Limits
) -> Iterator[Annotation]:
    """Iterate over a block's entries; those of a compressed one have offsets of their own."""
    contents = stored[: handle.size]
    compression = stored[handle.size]
    if compression == Compression.NONE:
        yield from _annotate_entries(contents, handle.offset, kind, limits)
        return
    try:
        unpacked = decompress_block(
            contents, compression, limits=limits, path=source.path, offset=handle.offset
        )
    except CheckpointError as error:
        yield Annotation(handle.offset, handle.size, 1, "contents", error.message, broken=True)
        return
    says = f"compressed, {len(unpacked):,} bytes unpacked"
    yield Annotation(handle.offset, handle.size, 1, "contents", says)
    for part in _annotate_entries(unpacked, 0, kind, limits):
        yield Annotation(
            part.offset, part.size, part.depth, part.what, part.value, part.broken, True
        )


def _annotate_entries(
    contents: bytes, base: int, kind: _Kind, limits: Limits
) -> Iterator[Annotation]:
    position = key_bytes = 0
    key = b""
    odd_left = _ODD_KEYS + len(contents) // _ODD_SHARE
    starts = set()
    try:
        end = _entries_end(contents)
        restarts = set(_restarts(contents, end))
        for shared, key_start, value_start, value_end in _iter_entries(contents, end):
            # Nothing comes before a restart that a key could share.
            wrong = shared > (0 if position in restarts else len(key))
            starts.add(position)
            new_key = key[:shared] + contents[key_start:value_start]
            wrong = wrong or (position > 0 and new_key <= key) or not kind.may_hold(new_key)
            key = new_key
            key_bytes += len(key)
            check_key_bytes(key_bytes, len(contents), limits)
            entry = _Entry(position, key_start, value_start, value_end, key)
            if key.startswith(b"\0"):
                odd_left -= max(0, len(key) - _end_of_plain_name(key) - _FEW_EXTENTS)
            says = _describe_key(key, whole=odd_left >= 0)
            yield Annotation(base + position, value_end - position, 1, "entry", says, broken=wrong)
            if kind.wanted > 1:
                yield from _annotate_lengths(contents, base, entry)
                yield from _annotate_value(contents, base, entry, kind, limits)
            position = value_end
    except CheckpointError as error:
        size = len(contents) - position
        yield Annotation(base + position, size, 1, "bytes", error.message, broken=True)
        return
    yield from _annotate_restarts(contents, base, end, starts)


def _entries_end(contents: bytes) -> int:
    """Return where the entries of a block end and its restarts begin."""
    if len(contents) < 4:
        raise TruncatedError(
            f"a block of {len(contents)} bytes is too short for its number of restarts"
        )
    (count,) = struct.unpack_from("<I", contents, len(contents) - 4)
    end = len(contents) - 4 - 4 * int(count)
    if end < 0:
        raise TruncatedError(f"{count} restarts do not fit a block of {len(contents)} bytes")
    return end


def _iter_entries(contents: bytes, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Iterate over entries: bytes shared, and where key and value start and the value ends."""
    position = 0
    while position < end:
        entry = decode_entry(contents, position, end)
        yield entry
        position = entry[3]


def _end_of_plain_name(key: bytes) -> int:
    """Return where the name ends in a slice's key, if no byte of it is written as two; or 0."""
    end = key.find(b"\0", 1)
    is_plain = key[end + 1 : end + 2] == b"\1" and key.find(b"\xff", 1, end) < 0
    return end if end > 0 and is_plain else 0


def _describe_key(key: bytes, *, whole: bool) -> str:
    """Write an entry's key: the name, or name and extents of a slice.

    Args:
        key: The key.
        whole: Whether it is read if that takes long: of very many extents, or of a name with bytes
            that no name has.
    """
    if not key.startswith(b"\0"):
        return shorten(key)
    end = _end_of_plain_name(key)
    if end and (whole or len(key) - end <= _FEW_EXTENTS):
        # Many slices have the same extents.
        extents = _describe_extents(_NO_NAME + key[end:])
        return shorten(key) if extents is None else f"slice {extents} of {shorten(key[1:end])}"
    piece = decode_slice_key(key) if whole and not end else None
    return shorten(key) if piece is None else f"slice {_write(piece[1])} of {shorten(piece[0])}"


@lru_cache(1 << 10)
def _describe_extents(key: bytes) -> str | None:
    """Write the extents in the key of a slice; None if it is none."""
    piece = decode_slice_key(key)
    return None if piece is None else _write(piece[1])


def _write(piece: TensorSlice) -> str:
    extents = ":".join(
        "-" if extent.length is None else f"{extent.start},{extent.length}"
        for extent in piece.extents
    )
    return extents or "of a scalar"


def _annotate_lengths(contents: bytes, base: int, entry: _Entry) -> Iterator[Annotation]:
    """Iterate over the three lengths of an entry, and the bytes of its key that are its own."""
    position = entry.position
    for name in ("shared", "non-shared", "value size"):
        number, end = contents[position], position + 1
        if number >= 0x80:
            number, end = decode_varint(contents, position, entry.key_start, bits=32)
        yield Annotation(base + position, end - position, 2, name, str(number))
        position = end
    own = contents[entry.key_start : entry.value_start]
    if own:
        yield Annotation(base + entry.key_start, len(own), 2, "key", shorten(own))


def _annotate_value(
    contents: bytes, base: int, entry: _Entry, kind: _Kind, limits: Limits
) -> Iterator[Annotation]:
    start, end = entry.value_start, entry.value_end
    value = contents[start:end]
    descriptor = kind.entry if entry.key else kind.header
    if kind.name == "index block":
        handle, stop = BlockHandle.from_bytes(contents, start, end)
        says = f"offset {handle.offset}, size {handle.size}"
        yield Annotation(base + start, stop - start, 2, "block handle", says)
    elif descriptor is None:
        if value:
            yield Annotation(base + start, len(value), 2, "value", shorten(value))
    else:
        yield Annotation(base + start, len(value), 2, f"value: {descriptor.name}")
        yield from annotate_message(
            value, descriptor, base=base + start, depth=3, wanted=kind.wanted, limits=limits
        )


def _restarts(contents: bytes, end: int) -> tuple[int, ...]:
    return struct.unpack_from(f"<{(len(contents) - 4 - end) // 4}I", contents, end)


def _annotate_restarts(
    contents: bytes, base: int, end: int, starts: set[int]
) -> Iterator[Annotation]:
    restarts = _restarts(contents, end)
    damage = _find_wrong_restart(contents, restarts, starts)
    broken = damage is not None
    if restarts:
        few = " ".join(map(str, restarts[:8])) + (" …" if len(restarts) > 8 else "")
        says = f"{few}; {damage}" if broken else few
        yield Annotation(base + end, 4 * len(restarts), 1, "restarts", says, broken=broken)
    says = f"0; {damage}" if broken and not restarts else str(len(restarts))
    yield Annotation(
        base + len(contents) - 4, 4, 1, "number of restarts", says, broken=broken and not restarts
    )


def _find_wrong_restart(contents: bytes, restarts: tuple[int, ...], starts: set[int]) -> str | None:
    """Say what is wrong with the restarts of a block, whose entries begin at `starts`."""
    try:
        Block.from_bytes(contents)
    except MalformedError as error:
        return error.message
    lost = next((one for one in restarts if one not in starts), None) if starts else None
    return None if lost is None else f"no entry begins at the restart {lost}"


def _annotate_trailer(handle: BlockHandle, stored: bytes, *, broken: bool) -> Iterator[Annotation]:
    kind, masked = struct.unpack_from("<BI", stored, handle.size)
    names = {int(code): code.name.lower() for code in Compression}
    start = handle.offset + handle.size
    says = f"{kind} {names.get(kind, 'unknown')}"
    yield Annotation(start, 1, 1, "type", says, broken=kind not in names)
    crc = f"{masked:#010x} (unmasked {unmask_crc(masked):#010x})"
    verdict = "does not match" if broken else "matches"
    yield Annotation(start + 1, 4, 1, "checksum", f"{crc}, {verdict}", broken=broken)


def _annotate_footer(data: bytes, start: int, footer: Footer) -> Iterator[Annotation]:
    yield Annotation(start, FOOTER_SIZE, 0, "footer")
    position = 0
    for name, handle in (("metaindex", footer.metaindex), ("index", footer.index)):
        _, end = BlockHandle.from_bytes(data, position)
        says = f"offset {handle.offset}, size {handle.size}"
        yield Annotation(start + position, end - position, 1, f"{name} handle", says)
        position = end
    padding = FOOTER_SIZE - _MAGIC_SIZE - position
    if padding:
        yield Annotation(start + position, padding, 1, "padding")
    magic = data[-_MAGIC_SIZE:].hex(" ")
    yield Annotation(start + FOOTER_SIZE - _MAGIC_SIZE, _MAGIC_SIZE, 1, "magic", magic)
