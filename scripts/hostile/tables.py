"""V2 checkpoints: indexes of many entries, over few bytes of data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import builder as b
import numpy as np

__all__ = ["KINDS", "numbered", "write"]

ENTRY_BYTES = 21
"""About what the entry of a scalar takes in an index."""
DATA = np.random.default_rng(1).bytes(130_000)
"""What the entries lie over, if they do not bring their own."""
MOST_SHARDS = 1024
"""Data files that are allowed, beyond one for each 64 KiB of them."""
WRONG = 0x12345678
"""A checksum that nothing has."""

Value = Callable[[int], bytes]


def write(
    directory: Path,
    pairs: Iterable[b.Pair],
    *,
    data: Mapping[int, bytes] | bytes = DATA,
    header: b.Header | None = None,
    count: int = 1,
    **options: Any,
) -> Path:
    """Write an index of these pairs, which are in order, and data files; return the prefix."""
    head = (b"", (header or b.Header()).to_bytes(count))
    (directory / "m.index").write_bytes(b.table([head, *pairs], **options).data)
    for number, held in ({0: data} if isinstance(data, bytes) else data).items():
        (directory / f"m.data-{number:05}-of-{count:05}").write_bytes(held)
    return directory / "m"


def numbered(size: int, value: Value, *, stem: bytes = b"w") -> Iterable[b.Pair]:
    """Pairs of that many bytes, named by their numbers."""
    used = number = 0
    while used < size:
        made = value(number)
        yield stem + b"%07d" % number, made
        used += len(made) + 6
        number += 1


def _each(value: Value, **options: Any) -> Callable[[Path, int], Path]:
    """Return a kind: an index full of entries that a function of their number makes."""

    def make(directory: Path, size: int) -> Path:
        return write(directory, numbered(size, value), **options)

    return make


def _entry(number: int, width: int, *, step: int | None = None, **fields: Any) -> bytes:
    """Encode the entry of one float, or of a vector; the checksum is wrong unless given."""
    offset = number * (width if step is None else step) % max(1, len(DATA) - width)
    made: dict[str, Any] = {"shape": (width // 4,) if width > 4 else (), "crc": WRONG}
    return b.Entry(**{**made, "offset": offset, "size": width, **fields}).to_bytes()


def sound_scalars(directory: Path, size: int) -> Path:
    """As many tensors of one float as fit."""
    made = b.Bundle()
    for number in range(size // (ENTRY_BYTES + 4)):
        made.add(f"w{number:07}", np.float32(number))
    return Path(made.write(directory / "m"))


def _overlapping(number: int) -> bytes:
    """Checksums that are right, of bytes that lie over each other."""
    offset = number % (len(DATA) - 64)
    return _entry(offset, 64, step=1, crc=b.masked_crc(DATA[offset : offset + 64]))


def _whole(number: int) -> bytes:
    """Every tensor is all of the data."""
    return _entry(0, len(DATA) // 4 * 4, crc=WRONG + number)


_STRINGS = b.string_payload([b"abc", b"", b"defg"])


def _strings(crc: int) -> Value:
    def value(_: int) -> bytes:
        return b.Entry(b.STRING, (3,), offset=0, size=len(_STRINGS[0]), crc=crc).to_bytes()

    return value


def _noise_strings(number: int) -> bytes:
    """Find string tensors in noise."""
    return _entry(number, 40, dtype=b.STRING, shape=(3,), step=7)


_VARIANTS = b.variant_payload([b.variant_proto("int", b"abc")])


def _variants(crc: int) -> Value:
    def value(_: int) -> bytes:
        return b.Entry(b.VARIANT, (1,), offset=0, size=len(_VARIANTS[0]), crc=crc).to_bytes()

    return value


def _odd(number: int) -> bytes:
    """Every entry is wrong in another way than the one before."""
    ways: tuple[dict[str, Any], ...] = (
        {"dtype": 77},
        {"dtype": b.INT64},
        {"shape": (3,)},
        {"size": 5},
        {"shard": 5},
        {"offset": 1 << 40},
        {"offset": -5},
        {"size": -1},
        {"shape": None},
        {"unknown_rank": True},
        {"shape": (-3,)},
        {"shape": (1 << 40, 1 << 40)},
        {"crc": None},
        {"dtype": b.RESOURCE},
        {"dtype": 100 + b.FLOAT},
        {"extra": b"\xff"},
        {"slices": ([(0, 1)],)},
    )
    return _entry(number, 4, **ways[number % len(ways)])


def _wide_varints(number: int) -> bytes:
    """Numbers longer than they need to be: no decoder of the common form takes them."""
    offset = number * 4 % 4096
    check = b.field32(6, b.masked_crc(DATA[offset : offset + 4]))
    return b"\x08\x81\x00\x12\x00\x20" + b.varint(offset, width=5) + b"\x28\x84\x80\x00" + check


def _turned_round(number: int) -> bytes:
    """Fields in another order than that of their numbers, and no checksum of those bytes."""
    return b"\x28\x04\x20" + b.varint(number * 4 % 4096) + b"\x12\x00\x08\x01"


def _own_shape(number: int) -> bytes:
    """Give each tensor a shape that no other has; none has an element."""
    return b.Entry(b.FLOAT, (number + 1, 0), crc=b.masked_crc(b"")).to_bytes()


def _own_odd_shape(number: int) -> bytes:
    """Give each tensor a shape of its own, with a name of a dimension, as no writer gives one."""
    named = b.field(2, b.field(1, number + 1) + b.field(2, b"x")) + b.field(2, b"")
    return b.field(1, b.FLOAT) + b.field(2, named) + b.field32(6, b.masked_crc(b""))


def _own_shape_or_none(number: int) -> bytes:
    """Put one entry that breaks a rule among many with a shape of their own."""
    return _own_shape(number) if number % 30_000 else _entry(number, 4, dtype=b.RESOURCE)


def one_name(directory: Path, size: int) -> Path:
    """Repeat one key."""
    return write(directory, ((b"w", made) for _, made in numbered(size, lambda n: _entry(n, 4))))


def out_of_order(directory: Path, size: int) -> Path:
    """Keys in no order."""
    return write(directory, reversed(list(numbered(size, lambda n: _entry(n, 4)))))


def _sliced(
    directory: Path, size: int, *, parts: int, wrong: bool = False, owners: bool = True
) -> Path:
    """Variables of so many slices each; slices that fail, or that nothing owns."""
    made = b.Bundle()
    used = number = 0
    while used < size:
        value = np.arange(parts * 2, dtype=np.float32)
        name = f"v{number:06}"
        slices = b.split_rows(parts * 2, parts, 1)
        made.add_sliced(name, value, slices)
        for one in slices if wrong else ():
            made.change(b.slice_key(name, one), crc=WRONG)
        if not owners:
            del made.entries[name.encode()]
        used += parts * (42 if owners else 30)
        number += 1
    return Path(made.write(directory / "m"))


def _slices(**options: Any) -> Callable[[Path, int], Path]:
    return lambda directory, size: _sliced(directory, size, **options)


def one_of_many_slices(directory: Path, size: int) -> Path:
    """One variable of as many slices as fit."""
    return _sliced(directory, size, parts=size // 45)


def one_of_many_bad_slices(directory: Path, size: int) -> Path:
    """One variable of as many slices as fit, which fail."""
    return _sliced(directory, size, parts=size // 45, wrong=True)


def owners_without_slices(directory: Path, size: int) -> Path:
    """Variables in slices, of which none is stored."""
    slices = b.split_rows(64, 32, 1)
    entry = b.Entry(b.FLOAT, (64,), slices=tuple(slices)).to_bytes()
    return write(directory, numbered(size, lambda _: entry))


def slices_over_each_other(directory: Path, size: int) -> Path:
    """One variable whose slices all cover nearly all of it."""
    made = b.Bundle()
    count = size // 45
    slices = [[(number, count)] for number in range(count)]
    data = made.shards[0]
    data += DATA
    for one in slices:
        entry = b.Entry(b.FLOAT, (count,), size=count * 4, crc=WRONG)
        made.entries[b.slice_key("v", one)] = entry
    made.entries[b"v"] = b.Entry(b.FLOAT, (2 * count,), slices=tuple(slices))
    return Path(made.write(directory / "m"))


def missing_shards(directory: Path, size: int) -> Path:
    """Name as many data files as there may be, of which none is there."""
    count = MOST_SHARDS
    return write(
        directory, numbered(size, lambda n: _entry(n, 4, shard=n % count)), count=count, data={}
    )


def shards_without_end(directory: Path, size: int) -> Path:
    """State a million data files, of which none is there."""
    entries = numbered(size, lambda number: _entry(number, 4, shard=number * 11 % 1_000_000))
    return write(directory, entries, header=b.Header(1_000_000), data={})


def shard_files(directory: Path, size: int) -> Path:
    """Write as many data files as there may be, and name each of them in entries."""
    count = MOST_SHARDS
    entries = numbered(size, lambda number: _entry(0, 4, shard=number % count))
    return write(directory, entries, count=count, data=dict.fromkeys(range(count), b"12345678"))


def bad_shard_files(directory: Path, size: int) -> Path:
    """Write small data files that are all damaged: each may be any other one."""
    return _in_shards(directory, size, harm=True)


def sound_shard_files(directory: Path, size: int) -> Path:
    """Write small data files of which nothing is wrong."""
    return _in_shards(directory, size, harm=False)


def _in_shards(directory: Path, size: int, *, harm: bool) -> Path:
    made = b.Bundle()
    count = MOST_SHARDS + (size >> 17)
    each = max(1, (size // count - 60) // 4)
    for number in range(count):
        name = f"w{number:06}"
        made.add(name, np.arange(each, dtype=np.float32) + number, shard=number)
        if harm:
            made.change(name, crc=WRONG)
    return Path(made.write(directory / "m"))


def shared_names(directory: Path, size: int) -> Path:
    """Names of 1,000 bytes that differ in the last ones: an index of few bytes for each."""
    head = b"a" * 1000
    return write(directory, numbered(size, lambda number: _entry(number, 4), stem=head))


def most_name_bytes(directory: Path, size: int) -> Path:
    """Names that share as many bytes as `Limits.key_bytes` allows."""
    pairs = list(numbered(size, lambda number: _entry(number, 4)))
    stored = len(pairs) * (ENTRY_BYTES - 5)
    # One key in 16 is stored in full: a longer name lengthens its block, too.
    width = int((6 * stored + (1 << 25)) / len(pairs) / (1 - 6 / 16)) - 16
    return write(directory, ((b"a/" * (width // 2) + key, value) for key, value in pairs))


def long_names(directory: Path, size: int) -> Path:
    """Names of 1,000 bytes of which each is stored in full."""
    count = size // 1020
    names = (b"%07d" % number + b"n" * 1000 for number in range(count))
    return write(directory, ((name, _entry(n, 4)) for n, name in enumerate(names)))


def deep_names(directory: Path, size: int) -> Path:
    """Names of 500 parts each."""
    head = b"a/" * 500
    return write(directory, numbered(size, lambda number: _entry(number, 4), stem=head))


def odd_names(directory: Path, size: int) -> Path:
    """Names that are no text, and that a terminal would obey."""
    head = b"\x1b[2J\xff\xfe\xe2\x80\xae"
    return write(directory, numbered(size, lambda number: _entry(number, 4), stem=head))


def big_endian(directory: Path, size: int) -> Path:
    """Bytes whose order the header turns round, and that fail."""
    entries = numbered(size, lambda number: _entry(number, 4))
    return write(directory, entries, header=b.Header(endianness=b.BIG))


def no_data(directory: Path, size: int) -> Path:
    """Leave out the one data file."""
    return write(directory, numbered(size, lambda number: _entry(number, 4)), data={})


KINDS = {
    "sound scalars": sound_scalars,
    "bad scalars": _each(lambda n: _entry(n, 4)),
    "bad vectors": _each(lambda n: _entry(n, 16)),
    "bad integers": _each(lambda n: _entry(n, 4, dtype=b.INT32)),
    "bad longs": _each(lambda n: _entry(n, 8, dtype=b.INT64, shape=())),
    "bad booleans": _each(lambda n: _entry(n, 1, dtype=b.BOOL, shape=())),
    "bad over each other": _each(lambda n: _entry(n, 64, step=1)),
    "sound over each other": _each(_overlapping),
    "bad of all bytes": _each(_whole),
    "sound strings": _each(_strings(_STRINGS[1]), data=_STRINGS[0]),
    "bad strings": _each(_strings(WRONG), data=_STRINGS[0]),
    "strings of noise": _each(_noise_strings),
    "sound variants": _each(_variants(_VARIANTS[1]), data=_VARIANTS[0]),
    "bad variants": _each(_variants(WRONG), data=_VARIANTS[0]),
    "odd entries": _each(_odd),
    "unknown kinds": _each(lambda n: _entry(n, 4, dtype=50 + n % 40)),
    "wrong shapes": _each(lambda n: _entry(n, 4, shape=(n % 100 + 2,))),
    "own shapes": _each(_own_shape),
    "own odd shapes": _each(_own_odd_shape),
    "own shapes, one broken": _each(_own_shape_or_none),
    "many dimensions": _each(lambda n: _entry(n, 4, shape=(1,) * 250)),
    "empty tensors": _each(lambda _: b.Entry(b.FLOAT, (0,), crc=b.masked_crc(b"")).to_bytes()),
    "empty messages": _each(lambda _: b""),
    "unknown fields": _each(lambda n: _entry(n, 4, extra=b.field(15, n) + b.field(16, b"x"))),
    "wide numbers": _each(_wide_varints),
    "fields turned round": _each(_turned_round),
    "behind the end": _each(lambda n: _entry(n, 4, offset=(1 << 30) + 4 * n)),
    "missing shards": missing_shards,
    "no entries": _each(lambda _: b"\xff\xff\xff"),
    "one name": one_name,
    "out of order": out_of_order,
    "two slices each": _slices(parts=2),
    "slices that fail": _slices(parts=2, wrong=True),
    "slices without owner": _slices(parts=2, owners=False),
    "bad slices without owner": _slices(parts=2, owners=False, wrong=True),
    "one of many slices": one_of_many_slices,
    "one of many bad slices": one_of_many_bad_slices,
    "owners without slices": owners_without_slices,
    "slices over each other": slices_over_each_other,
    "shards without end": shards_without_end,
    "shard files": shard_files,
    "bad shard files": bad_shard_files,
    "sound shard files": sound_shard_files,
    "shared names": shared_names,
    "most name bytes": most_name_bytes,
    "long names": long_names,
    "deep names": deep_names,
    "odd names": odd_names,
    "big-endian": big_endian,
    "no data": no_data,
}
