"""Changes that know the structure of the input, so that what is changed is not refused at the door.

A table is taken apart into its pairs and put together again, every checksum right; a message into
its fields, at any depth. Now and then the bytes are changed blindly, as libFuzzer itself does.
"""

from __future__ import annotations

import random
import struct
import sys
from collections.abc import Callable
from pathlib import Path

import snappy

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import builder as b

from fuzz.packing import pack, unpack

__all__ = ["blind", "bundle", "either", "message", "mutate_message", "table", "text"]

Change = Callable[[bytes, random.Random], bytes]
Pairs = list[tuple[bytes, bytes]]
Field = tuple[int, int, "int | bytes"]

_FOOTER = 48
_NUMBERS = [0, 1, 2, 7, 8, 127, 128, 255, 1 << 16, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 32]
_NUMBERS += [1 << 40, (1 << 62), (1 << 63) - 1, 1 << 63, (1 << 64) - 1, (1 << 64) - 2]
_DEEPEST = 12
_MOST = 1 << 16


def blind(data: bytes, rng: random.Random) -> bytes:
    """Change, add, drop or repeat some bytes."""
    out = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        place = rng.randint(0, len(out))
        size = min(rng.choice([1, 1, 2, 4, 8, 64]), len(out) - place)
        kind = rng.randrange(5)
        if kind == 0 and size:
            out[place] ^= 1 << rng.randrange(8)
        elif kind == 1:
            out[place : place + size] = rng.randbytes(size)
        elif kind == 2:
            del out[place : place + size]
        elif kind == 3:
            out[place:place] = out[place : place + size]
        else:
            out[place : place + 8] = struct.pack("<Q", rng.choice(_NUMBERS))
    return bytes(out[:_MOST])


def either(other: Change) -> Change:
    """Change bytes blindly, or by another way."""

    def change(data: bytes, rng: random.Random) -> bytes:
        return rng.choice([blind, other, table])(data, rng)

    return change


# ---- messages


def parse_fields(data: bytes) -> list[Field] | None:
    """Take a message apart; None if it is none."""
    fields: list[Field] = []
    position = 0
    while position < len(data):
        tag = read_varint(data, position)
        if tag is None or not tag[0] >> 3:
            return None
        number, wire, position = tag[0] >> 3, tag[0] & 7, tag[1]
        value: int | bytes
        if wire == 0:
            found = read_varint(data, position)
            if found is None:
                return None
            value, position = found
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
            value, position = data[position : position + size], position + size
        elif wire == 2:
            found = read_varint(data, position)
            if found is None or found[1] + found[0] > len(data):
                return None
            value, position = data[found[1] : found[1] + found[0]], found[1] + found[0]
        else:
            return None
        fields.append((number, wire, value))
    return fields if position == len(data) else None


def read_varint(data: bytes, position: int) -> tuple[int, int] | None:
    value = shift = 0
    while position < len(data) and shift < 70:
        byte = data[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return value & (1 << 64) - 1, position
    return None


def join_fields(fields: list[Field]) -> bytes:
    out = bytearray()
    for number, wire, value in fields:
        out += b.varint(number << 3 | wire)
        if isinstance(value, int):
            out += b.varint(value)
        else:
            out += (b.varint(len(value)) if wire == 2 else b"") + value
    return bytes(out)


def mutate_message(data: bytes, rng: random.Random, depth: int = 0) -> bytes:
    """Change one field of a message, at any depth."""
    fields = parse_fields(data)
    if not fields:
        return blind(data, rng)
    place = rng.randrange(len(fields))
    number, wire, value = fields[place]
    kind = rng.randrange(8)
    if kind == 0:
        del fields[place]
    elif kind == 1:
        fields.insert(place, fields[place])
    elif kind == 2:
        fields.append(rng.choice(fields))
    elif kind == 3 and isinstance(value, bytes) and wire == 2 and depth < _DEEPEST:
        fields[place] = number, 2, join_fields([fields[place]])
    elif isinstance(value, int):
        fields[place] = number, wire, mutate_number(value, rng)
    elif wire == 2 and depth < _DEEPEST:
        fields[place] = number, wire, mutate_message(value, rng, depth + 1)
    else:
        fields[place] = number, wire, rng.randbytes(len(value))
    return join_fields(fields)[:_MOST]


def mutate_number(value: int, rng: random.Random) -> int:
    if rng.randrange(2):
        return rng.choice(_NUMBERS)
    return (value + rng.choice([-8, -2, -1, 1, 2, 8])) & (1 << 64) - 1


def message(data: bytes, rng: random.Random) -> bytes:
    """Change a message."""
    return mutate_message(data, rng) if rng.randrange(8) else blind(data, rng)


# ---- tables


def parse_table(data: bytes) -> Pairs | None:
    """Take a table apart; None if it is none."""
    if len(data) < _FOOTER:
        return None
    footer = data[-_FOOTER:]
    position, numbers = 0, []
    for _ in range(4):
        found = read_varint(footer, position)
        if found is None:
            return None
        numbers.append(found[0])
        position = found[1]
    index = read_block(data, numbers[2], numbers[3])
    pairs: Pairs = []
    for _, handle in index or []:
        offset = read_varint(handle, 0)
        size = read_varint(handle, offset[1]) if offset else None
        if offset and size:
            pairs += read_block(data, offset[0], size[0]) or []
    return pairs or None


def read_block(data: bytes, offset: int, size: int) -> Pairs | None:
    if offset + size + 5 > len(data):
        return None
    contents = data[offset : offset + size]
    if data[offset + size] == 1:
        try:
            contents = snappy.uncompress(contents)
        except Exception:  # noqa: BLE001 - its class differs between releases
            return None
    # Also of what was decompressed: a change of its length gives a block of any size.
    if len(contents) < 4:
        return None
    (count,) = struct.unpack_from("<I", contents, len(contents) - 4)
    end = len(contents) - 4 - 4 * count
    pairs: Pairs = []
    position, key = 0, b""
    while 0 <= position < end:
        lengths = []
        for _ in range(3):
            found = read_varint(contents, position)
            if found is None:
                return pairs
            lengths.append(found[0])
            position = found[1]
        shared, own, size = lengths
        key = key[:shared] + contents[position : position + own]
        pairs.append((key, contents[position + own : position + own + size]))
        position += own + size
    return pairs


def build_table(pairs: Pairs, rng: random.Random) -> bytes:
    """Put a table together, mostly right, in blocks of any size."""
    kind = rng.choice([b.RAW, b.RAW, b.RAW, b.SNAPPY])
    if not pairs:
        return b.assemble([b.Stored(b.EMPTY_BLOCK, key=b"")]).data
    interval = rng.choice([16, 16, 1, 2])
    size = rng.choice([len(pairs), len(pairs), 1, 2, 5])
    blocks = [
        b.Stored(b.block(part, restart_interval=interval), kind, key=part[-1][0])
        for part in (pairs[n : n + size] for n in range(0, len(pairs), size))
    ]
    if not rng.randrange(10):
        chosen = rng.choice(blocks)
        chosen.contents = blind(chosen.contents, rng)
    if not rng.randrange(20):
        blocks.append(rng.choice(blocks))
    if not rng.randrange(10):
        # Where the index block leads others, or nobody.
        place = rng.randrange(len(blocks))
        key = (blocks[place].key or b"") + b"\x01"
        blocks.insert(place + 1, b.Stored(b.block([rng.choice(pairs)]), key=key))
    if not rng.randrange(20):
        rng.choice(blocks).key = rng.choice(pairs)[0]
    table = b.assemble(blocks)
    return blind(table.data, rng) if not rng.randrange(20) else table.data


def mutate_pairs(pairs: Pairs, rng: random.Random) -> Pairs:
    """Change one pair, or how they stand."""
    pairs = list(pairs)
    place = rng.randrange(len(pairs))
    key, value = pairs[place]
    kind = rng.randrange(10)
    if kind == 0:
        del pairs[place]
    elif kind == 1:
        pairs.insert(place, pairs[place])
    elif kind == 2:
        pairs[place] = blind(key, rng), value
    elif kind == 3:
        pairs[place] = key + rng.choice([b"a", b"\0", b"\xff", b"\x1b[2J", b"/../x"]), value
    elif kind == 4:
        pairs[place] = key, rng.choice(pairs)[1]
    else:
        pairs[place] = key, mutate_message(value, rng)
    if rng.randrange(8):
        pairs = sorted(dict(pairs).items())
    return pairs


def table(data: bytes, rng: random.Random) -> bytes:
    """Change a table, and repair its checksums."""
    pairs = parse_table(data)
    if pairs is None or not rng.randrange(10):
        return blind(data, rng)
    for _ in range(rng.randint(1, 3)):
        pairs = mutate_pairs(pairs, rng) if pairs else pairs
    return build_table(pairs, rng)


def bundle(data: bytes, rng: random.Random) -> bytes:
    """Change index or data file of a bundle, and repair the checksums of both."""
    index, shard, *rest = unpack(data, 3)
    pairs = parse_table(index)
    if pairs is None or not rng.randrange(20):
        return pack([table(index, rng), shard, *rest])
    if not rng.randrange(3):
        shard = blind(shard, rng)
    else:
        pairs = mutate_pairs(pairs, rng)
    if rng.randrange(6):
        pairs = [(key, reseal(value, shard)) for key, value in pairs]
    return pack([build_table(pairs, rng), shard, *rest])


def reseal(value: bytes, shard: bytes) -> bytes:
    """Set the checksum of an entry to that of the bytes it points at."""
    fields = parse_fields(value)
    if not fields:
        return value
    numbers = {number: found for number, _, found in fields if isinstance(found, int)}
    offset, size = numbers.get(4, 0), numbers.get(5, 0)
    if numbers.get(1, 0) in (b.STRING, b.VARIANT) or offset + size > len(shard):
        return value
    crc = struct.pack("<I", b.masked_crc(shard[offset : offset + size]))
    return join_fields([(n, w, crc if (n, w) == (6, 5) else v) for n, w, v in fields])


# ---- text


def text(data: bytes, rng: random.Random) -> bytes:
    """Change text: lines, brackets, strings, numbers."""
    lines = data.split(b"\n")
    kind = rng.randrange(7)
    place = rng.randrange(len(lines))
    if kind == 0:
        del lines[place]
    elif kind == 1:
        lines.insert(place, rng.choice(lines))
    elif kind == 2:
        lines[place] = lines[place].replace(b'"', rng.choice([b'"\\l', b"'", b'"\x1b', b'"\\000']))
    elif kind == 3:
        lines[place] += rng.choice([b" {", b" }", b" <", b" >", b" #", b' "'])
    elif kind == 4:
        lines[place] = lines[place][: rng.randint(0, len(lines[place]))] + b"9" * rng.randint(1, 30)
    else:
        return blind(data, rng)
    return b"\n".join(lines)[:_MOST]
