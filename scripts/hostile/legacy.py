"""V1 checkpoints: tables whose list names tensors, and which hold a record for each slice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import builder as b
import numpy as np
import v1_builder as v1

import ckptparse
from hostile import named

__all__ = ["KINDS"]

RECORD_BYTES = 37
"""About what a scalar takes: its part of the list, its key, its record."""
SCALAR = b"\x2a\x04\x00\x00\x80\x3f"
"""The values of a float of 1.0."""
LEAST = 16
"""Fewest tensors, however small the input."""


def _scalars(
    size: int,
    *,
    each: int = RECORD_BYTES,
    values: bytes = SCALAR,
    shape: Sequence[int] = (),
    data_type: int = b.FLOAT,
) -> v1.LegacyFile:
    """As many tensors in one piece as fit, all alike."""
    made = v1.LegacyFile()
    for number in range(max(LEAST, size // each)):
        listed = made.declare(f"w{number:06}", shape, data_type)
        listed.slices.append(v1.Slice([None] * len(shape), values))
    return made


def _write(directory: Path, data: bytes, name: str = "m") -> Path:
    path = directory / name
    path.write_bytes(data)
    return path


def sound_scalars(directory: Path, size: int) -> Path:
    """Nothing is wrong, and each tensor has a few bytes."""
    return _scalars(size).write(directory / "m")


def allowed_scalars(directory: Path, size: int) -> Path:
    """As many tensors in one piece as no limit refuses, and one large one."""
    count = ckptparse.DEFAULT_LIMITS.most_legacy(size * 9 // 10)
    made = _scalars(min(size, count * RECORD_BYTES))
    made.add("z", np.ones(max(1, (size - count * RECORD_BYTES) // 4), np.float32))
    return made.write(directory / "m")


def unparsable_records(directory: Path, size: int) -> Path:
    """Every record breaks off within a field, under a checksum that agrees."""
    return _scalars(size, values=b"\x2a\x7f\x00").write(directory / "m")


def other_counts(directory: Path, size: int) -> Path:
    """Every record has two values where the list says one."""
    return _scalars(size, each=41, values=b"\x2a\x08" + bytes(8)).write(directory / "m")


def not_packed(directory: Path, size: int) -> Path:
    """Each value has a field of its own, which is decoded one by one."""
    return _scalars(size, values=b"\x2d\x00\x00\x80\x3f").write(directory / "m")


def one_not_packed(directory: Path, size: int) -> Path:
    """One tensor, of which each value has a field of its own."""
    count = size // 5
    made = _scalars(1, values=b"\x2d\x00\x00\x80\x3f" * count, shape=(count,))
    made.tensors = made.tensors[:1]
    return made.write(directory / "m")


def repeated_value(directory: Path, size: int) -> Path:
    """Each tensor has a million values of which one is stored: the last one is repeated."""
    shape = 1 << 20
    return _scalars(size, each=44, shape=(shape,)).write(directory / "m")


def flipped_bits(directory: Path, size: int) -> Path:
    """One bit of every block is wrong."""
    return _write(directory, _damaged(_scalars(size)))


def flipped_bits_small_blocks(directory: Path, size: int) -> Path:
    """One bit of every block is wrong, and a block has 256 bytes."""
    return _write(directory, _damaged(_scalars(size), block_size=256))


def _damaged(made: v1.LegacyFile, **options: int) -> bytes:
    table = b.table(made.pairs(), **options)
    data = bytearray(table.data)
    # The first one holds the list, which names all the others.
    for offset, length in table.blocks[1:] or table.blocks:
        data[offset + length // 2] ^= 4
    return bytes(data)


def lost_list(directory: Path, size: int) -> Path:
    """There is no list: every record is taken as flat values."""
    made = _scalars(size)
    made.has_meta = False
    return made.write(directory / "m")


def damaged_list(directory: Path, size: int) -> Path:
    """The list is cut off in its last tensor, so that all of it counts for nothing."""
    made = _scalars(size)
    made.meta = made.meta_value()[:-8]
    return made.write(directory / "m")


def no_records(directory: Path, size: int) -> Path:
    """The list names tensors of which there is no record."""
    made = _scalars(size, each=20)
    for listed in made.tensors:
        listed.slices[0].stored = False
    return made.write(directory / "m")


def no_list_names(directory: Path, size: int) -> Path:
    """The list names one tensor, and the records are of others."""
    made = _scalars(size, each=28)
    whole = made.meta_value
    kept, made.tensors = made.tensors, made.tensors[:1]
    made.meta = whole()
    made.tensors = kept
    return made.write(directory / "m")


def repeated_key(directory: Path, size: int) -> Path:
    """One record comes again and again, under the same key."""
    made = _scalars(1)
    made.tensors = made.tensors[:1]
    meta, record = made.pairs()
    return _write(directory, b.table([meta, *[record] * (size // 30)]).data)


def falling_keys(directory: Path, size: int) -> Path:
    """The keys fall instead of rising, each in a block of its own sixteen."""
    meta, *records = _scalars(size).pairs()
    return _write(directory, b.table([meta, *records[::-1]], block_size=4096).data)


def repeated_name(directory: Path, size: int) -> Path:
    """The list names the one tensor again and again."""
    made = _scalars(1)
    listed = made.tensors[0]
    made.tensors = [listed]
    pairs = made.pairs()
    again = b.field(1, listed.meta())
    meta = b.field(1, again * (size // len(again)) + b.field(2, made.version))
    return _write(directory, b.table([(b"", meta), pairs[1]]).data)


def turned_line_ends(directory: Path, size: int) -> Path:
    """Every line feed became CR LF, as in a transfer as text."""
    return _write(directory, _scalars(size).data().replace(b"\n", b"\r\n"))


def two_lists(directory: Path, size: int) -> Path:
    """Two files of which each lists all tensors, as other types."""
    for number, data_type in enumerate((b.FLOAT, b.INT32)):
        made = _scalars(size // 2, data_type=data_type)
        made.write(directory / f"m-{number:05}-of-00002")
    return directory / "m"


def many_files(directory: Path, size: int) -> Path:
    """One tensor in slices, each in a file of its own."""
    count = max(2, size // 300)
    for number in range(count):
        made = v1.LegacyFile()
        listed = made.declare("w", (count,), b.FLOAT)
        listed.slices.append(v1.Slice([(number, 1)], SCALAR))
        made.write(directory / f"m-{number:05}-of-{count:05}")
    return directory / "m"


def lost_files(directory: Path, size: int) -> Path:
    """One file of a set of 100,000, of which the others are not there."""
    _scalars(size).write(directory / "m-00000-of-99999")
    return directory / "m"


def _sliced(size: int, extents: Callable[[int], tuple[int, int]], rows: int) -> v1.LegacyFile:
    made = v1.LegacyFile()
    listed = made.declare("w", (rows,), b.FLOAT)
    for number in range(max(LEAST, size // 48)):
        start, length = extents(number)
        listed.slices.append(v1.Slice([(start, length)], SCALAR[:1] + _floats(length)))
    return made


def _floats(count: int) -> bytes:
    return b.varint(4 * count) + b"\x00\x00\x80\x3f" * count


def many_slices(directory: Path, size: int) -> Path:
    """One tensor in slices of one value each."""
    rows = max(LEAST, size // 48)
    return _sliced(size, lambda number: (number, 1), rows).write(directory / "m")


def overlapping_slices(directory: Path, size: int) -> Path:
    """Every slice overlaps the next one."""
    rows = max(LEAST, size // 48) + 1
    return _sliced(size, lambda number: (number, 2), rows).write(directory / "m")


def nested_slices(directory: Path, size: int) -> Path:
    """Slices of which each repeats one value, and contains all that come after it."""
    rows = max(LEAST, size // 48)
    made = v1.LegacyFile()
    listed = made.declare("w", (rows,), b.FLOAT)
    for number in range(rows):
        listed.slices.append(v1.Slice([(number, rows - number)], SCALAR))
    return made.write(directory / "m")


def deep_grid(directory: Path, size: int) -> Path:
    """One tensor of many dimensions, in slices along each of them."""
    rank = 200
    count = max(2, size // (rank * 8))
    made = v1.LegacyFile()
    listed = made.declare("w", (count, *[1] * (rank - 1)), b.FLOAT)
    for number in range(count):
        extents = [(number, 1), *[(0, 1)] * (rank - 1)]
        listed.slices.append(v1.Slice(extents, SCALAR))
    return made.write(directory / "m")


def damaged_slices(directory: Path, size: int) -> Path:
    """One tensor in slices of one value each, of which no record can be parsed."""
    rows = max(LEAST, size // 48)
    made = _sliced(size, lambda number: (number, 1), rows)
    for piece in made.tensors[0].slices:
        piece.values = b"\x2a\x7f\x00"
    return made.write(directory / "m")


def many_strings(directory: Path, size: int) -> Path:
    """One tensor of empty strings, at two bytes each."""
    made = v1.LegacyFile()
    listed = made.declare("w", (size // 2,), b.STRING)
    listed.slices.append(v1.Slice([None], b"\x42\x00" * (size // 2)))
    return made.write(directory / "m")


def string_scalars(directory: Path, size: int) -> Path:
    """As many tensors of one short string as fit."""
    return _scalars(size, values=b"\x42\x01a", data_type=b.STRING).write(directory / "m")


def damaged_strings(directory: Path, size: int) -> Path:
    """Tensors of two strings of which one is stored."""
    made = _scalars(size, values=b"\x42\x01a", data_type=b.STRING, shape=(2,))
    return made.write(directory / "m")


def long_varints(directory: Path, size: int) -> Path:
    """One tensor of integers, each in ten bytes."""
    made = v1.LegacyFile()
    made.add("w", np.full(size // 10, -1, np.int32))
    return made.write(directory / "m")


def one_block(directory: Path, size: int) -> Path:
    """All of it is one block, without restarts."""
    return _scalars(size).write(directory / "m", block_size=1 << 40, restart_interval=1 << 40)


def many_blocks(directory: Path, size: int) -> Path:
    """Every record has a block of its own."""
    return _scalars(size, each=70).write(directory / "m", block_size=1)


def snappy_blocks(directory: Path, size: int) -> Path:
    """Compressed blocks: there are several times more tensors than the size of the file says."""
    return _scalars(size * 2).write(directory / "m", type=b.SNAPPY)


def snappy_zeros(directory: Path, size: int) -> Path:
    """Tensors of zeros, compressed 20 to 1."""
    zeros = np.zeros(1 << 14, np.float32)
    made = v1.LegacyFile()
    for number in range(max(1, 20 * size // zeros.nbytes)):
        made.add(f"w{number:06}", zeros)
    return made.write(directory / "m", type=b.SNAPPY)


def long_names(directory: Path, size: int) -> Path:
    """Names of 10,000 bytes that share all but the last ones, so that keys are far longer."""
    made = v1.LegacyFile()
    for number in range(max(LEAST, size // 20_000)):
        made.declare("n" * 10_000 + f"{number:06}", (), b.FLOAT)
        made.tensors[-1].slices.append(v1.Slice([], SCALAR))
    return made.write(directory / "m", restart_interval=1 << 30)


def long_keys(directory: Path, size: int) -> Path:
    """Records that no list names, whose keys share ten thousand bytes each with the one before."""
    made = _scalars(1)
    made.tensors = made.tensors[:1]
    name, end = b"n" * 10_000, b.slice_key(b"", [])[1:]
    body = [b.entry(b"", made.meta_value()), b.entry(b"\0" + name)]
    shared = 1 + len(name)
    numbers = range(max(LEAST, size // 17))
    body += [b.entry(b"%06d" % number + end, shared=shared) for number in numbers]
    block = b.Stored(b.close_block(b"".join(body)), key=b"\1")
    return _write(directory, b.assemble([block]).data)


def nested_messages(directory: Path, size: int) -> Path:
    """Records in which groups of unknown numbers lie in one another, as deep as is allowed."""
    deep = b"\xa3\x06" * 90 + b"\xa4\x06" * 90
    return _scalars(size, each=400, values=deep + SCALAR).write(directory / "m")


def unknown_fields(directory: Path, size: int) -> Path:
    """Records with a hundred fields that no version knows."""
    more = b"\xa0\x06\x01" * 100
    return _scalars(size, each=340, values=more + SCALAR).write(directory / "m")


def allowed_odd_fields(directory: Path, size: int) -> Path:
    """As many records, with as many unknown fields, as no limit refuses."""
    count = ckptparse.DEFAULT_LIMITS.most_legacy(size)
    each = max(60, size // count)
    more = b"\x32\x00" * min(8 + each // 70, (each - 50) // 2)
    made = v1.LegacyFile()
    for number in range(min(count, size // each)):
        listed = made.declare(f"w{number:06}", (), b.FLOAT)
        listed.slices.append(v1.Slice([], more + SCALAR))
    return made.write(directory / "m")


def one_odd_record(directory: Path, size: int) -> Path:
    """One record of integers under two tags by turns, so that each field is looked at."""
    count = size // 4
    made = _scalars(1, values=b"\x38\x01\x30\x01" * count, shape=(count,), data_type=b.INT32)
    made.tensors = made.tensors[:1]
    return made.write(directory / "m")


def integers_not_packed(directory: Path, size: int) -> Path:
    """One tensor of integers, each with a tag of its own."""
    count = size // 2
    made = _scalars(1, values=b"\x38\x01" * count, shape=(count,), data_type=b.INT32)
    made.tensors = made.tensors[:1]
    return made.write(directory / "m")


def one_group(directory: Path, size: int) -> Path:
    """One record with a group that is as long as the file."""
    made = _scalars(1, values=b"\x23" + b"\x28\x01" * (size // 2) + b"\x24" + SCALAR)
    made.tensors = made.tensors[:1]
    return made.write(directory / "m")


def many_groups(directory: Path, size: int) -> Path:
    """One record of groups that hold nothing."""
    made = _scalars(1, values=b"\x23\x24" * (size // 2) + SCALAR)
    made.tensors = made.tensors[:1]
    return made.write(directory / "m")


def short_strings(directory: Path, size: int) -> Path:
    """One tensor of strings of two bytes."""
    count = size // 4
    made = v1.LegacyFile()
    listed = made.declare("w", (count,), b.STRING)
    listed.slices.append(v1.Slice([None], b"\x42\x02ab" * count))
    return made.write(directory / "m")


def more_strings(directory: Path, size: int) -> Path:
    """One tensor of two strings, of which very many are stored."""
    made = v1.LegacyFile()
    listed = made.declare("w", (2,), b.STRING)
    listed.slices.append(v1.Slice([None], b"\x42\x02ab" * (size // 4)))
    return made.write(directory / "m")


def strings_of_a_number(directory: Path, size: int) -> Path:
    """One tensor of numbers, of which strings are stored."""
    made = v1.LegacyFile()
    listed = made.declare("w", (2,), b.FLOAT)
    listed.slices.append(v1.Slice([None], b"\x42\x00" * (size // 2)))
    return made.write(directory / "m")


def numbers_of_a_string(directory: Path, size: int) -> Path:
    """One tensor of strings, of which numbers are stored."""
    made = v1.LegacyFile()
    listed = made.declare("w", (2,), b.STRING)
    listed.slices.append(v1.Slice([None], b"\x38\x01" * (size // 2)))
    return made.write(directory / "m")


def lost_list_of_strings(directory: Path, size: int) -> Path:
    """One tensor of very many strings, and there is no list."""
    made = v1.LegacyFile()
    listed = made.declare("w", (size // 4,), b.STRING)
    listed.slices.append(v1.Slice([None], b"\x42\x02ab" * (size // 4)))
    made.has_meta = False
    return made.write(directory / "m")


def _list(directory: Path, value: bytes) -> Path:
    made = _scalars(1)
    made.tensors = made.tensors[:1]
    pairs = made.pairs()
    return _write(directory, b.table([(b"", value), pairs[1]]).data)


def fields_of_the_list(directory: Path, size: int) -> Path:
    """A list of fields that no version knows."""
    meta = b.field(1, b.field(1, b"w")) + b.field(2, b"\x08\x01") + b"\x20\x01" * (size // 2)
    return _list(directory, b.field(1, meta))


def fields_of_a_tensor(directory: Path, size: int) -> Path:
    """The same in a tensor of the list."""
    meta = b.field(1, b.field(1, b"w") + b"\x28\x01" * (size // 2)) + b.field(2, b"\x08\x01")
    return _list(directory, b.field(1, meta))


def group_in_the_list(directory: Path, size: int) -> Path:
    """A list with a group that is as long as the file."""
    meta = b.field(1, b.field(1, b"w")) + b.field(2, b"\x08\x01")
    return _list(directory, b.field(1, meta + b"\x23" + b"\x28\x01" * (size // 2) + b"\x24"))


def shape_in_parts(directory: Path, size: int) -> Path:
    """A list whose one tensor has a shape in parts of a byte or two: each is joined to the rest."""
    large = b.field(2, b"\x1a\x00" * (size // 4))
    tensor = b.field(1, b"w") + large + b.field(2, b"\x18\x01") * (size // 8)
    return _list(directory, b.field(1, b.field(1, tensor) + b.field(2, b"\x08\x01")))


def extents_of_a_slice(directory: Path, size: int) -> Path:
    """A list whose one tensor has a slice of as many dimensions as fit."""
    piece = b.field(4, b"\x0a\x00" * (size // 2))
    tensor = b.field(1, b"w") + b.field(2, b"") + piece
    return _list(directory, b.field(1, b.field(1, tensor) + b.field(2, b"\x08\x01")))


def empty_tensors(directory: Path, size: int) -> Path:
    """Tensors without elements: their records have no values."""
    return _scalars(size, each=32, values=b"", shape=(0,)).write(directory / "m")


def many_kinds(directory: Path, size: int) -> Path:
    """Every tensor has a shape of its own, so that nothing is decoded once for several."""
    made = v1.LegacyFile()
    for number in range(max(LEAST, size // 46)):
        listed = made.declare(f"w{number:06}", (number + 1, 0), b.FLOAT)
        listed.slices.append(v1.Slice([None, None], b""))
    return made.write(directory / "m")


def cut_off(directory: Path, size: int) -> Path:
    """The second half of the file is not there: footer, index and half of the records."""
    data = _scalars(2 * size).data()
    return _write(directory, data[: len(data) // 2])


def cut_off_small_blocks(directory: Path, size: int) -> Path:
    """The same of a file with blocks of 64 bytes."""
    data = _scalars(2 * size, each=50).data(block_size=64)
    return _write(directory, data[: len(data) // 2])


def footer_and_zeros(directory: Path, size: int) -> Path:
    """The last third was overwritten with zeros."""
    data = _scalars(size).data()
    kept = 2 * len(data) // 3
    return _write(directory, data[:kept] + bytes(len(data) - kept))


KINDS = named(
    sound_scalars,
    allowed_scalars,
    unparsable_records,
    other_counts,
    not_packed,
    one_not_packed,
    repeated_value,
    flipped_bits,
    flipped_bits_small_blocks,
    lost_list,
    damaged_list,
    no_records,
    no_list_names,
    repeated_key,
    falling_keys,
    repeated_name,
    turned_line_ends,
    two_lists,
    many_files,
    lost_files,
    many_slices,
    overlapping_slices,
    nested_slices,
    deep_grid,
    damaged_slices,
    many_strings,
    string_scalars,
    damaged_strings,
    long_varints,
    one_block,
    many_blocks,
    snappy_blocks,
    snappy_zeros,
    long_names,
    long_keys,
    nested_messages,
    unknown_fields,
    allowed_odd_fields,
    one_odd_record,
    integers_not_packed,
    one_group,
    many_groups,
    short_strings,
    more_strings,
    strings_of_a_number,
    numbers_of_a_string,
    lost_list_of_strings,
    fields_of_the_list,
    fields_of_a_tensor,
    group_in_the_list,
    shape_in_parts,
    extents_of_a_slice,
    empty_tensors,
    many_kinds,
    cut_off,
    cut_off_small_blocks,
    footer_and_zeros,
)
