"""Count the fields of nodes and of what is in them, so that none has more than may be walked.

A field takes two bytes in the least, and to pass one takes a quarter of a microsecond, whenever the
message is looked at that holds it. Real nodes have some dozen.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Final

import numpy as np

from ckptparse.errors import CheckpointError
from ckptparse.graph.attributes import plain_content, plain_entry
from ckptparse.limits import FIELDS_A_NODE
from ckptparse.proto.wire import BYTES, MAX_NESTING, VARINT, Buffer, iter_fields
from ckptparse.tensor_proto import find_plain_value
from ckptparse.typed_fields import LISTED_FIELDS, iter_runs

__all__ = ["NODE", "VALUE", "count_fields", "may_have_fields"]

NODE, VALUE, _ENTRY, _CALL, _TENSOR, _CALLS = range(6)
_INNER: Final[dict[int, dict[int, int]]] = {
    NODE: {5: _ENTRY},
    _ENTRY: {2: VALUE},
    VALUE: {8: _TENSOR, 10: _CALL},
    _CALL: {2: _ENTRY},
    _CALLS: {9: _CALL},
}
"""The fields of a message that are messages which are walked, too: see `graph.attributes`."""
_SHORT: Final = 16
"""Bytes of a longer field: most are."""
_LONG: Final = 0x80
"""From here on a tag takes more than one byte."""
_LEAST_TAG: Final = 0x08
_LIST_TAG: Final = 1 << 3 | BYTES
_CALLS_TAG: Final = 9 << 3 | BYTES
"""The tag that a list of calls of functions begins with: each counts as a node."""
_BLOCK: Final = 1 << 20
"""Bytes that are looked at together."""


def may_have_fields(data: Buffer, most: int) -> bool:
    """Tell whether the messages in a message may have more than so many fields, all together.

    Most have few, and to walk them takes long. A field of less than 16 bytes begins with a tag and
    such a length, or with the tag of a number: so many places may begin one.
    """
    raw = np.frombuffer(data, np.uint8)
    left = most - len(raw) // _SHORT
    for start in range(0, len(raw), _BLOCK):
        block = raw[start : start + _BLOCK + 1]
        tags, after = block[:-1], block[1:]
        wires = tags & 7
        begins = ((wires == BYTES) & (after < _SHORT)) | ((wires == VARINT) & (tags < _LONG))
        left -= int(np.count_nonzero(begins & (tags >= _LEAST_TAG)))
        if left < 0:
            return True
    return False


def count_fields(data: Buffer, start: int, end: int, *, kind: int, most: int) -> int:
    """Count the fields of a message of a kind, and those of its messages, up to so many.

    An attribute that is written as every writer does counts as one. Values of a tensor that are not
    packed, one after another, count as 35, its strings as one. Of what is broken, and of what lies
    more than 100 messages deep, the fields before count.
    """
    found = 0
    levels = [(kind, iter_fields(data, start, end))]
    while levels and found < most:
        with suppress(CheckpointError):
            kind, fields = levels[-1]
            for number, wire, first, last in fields:
                found += FIELDS_A_NODE if kind == _CALLS else 1
                inner = (
                    _INNER[kind].get(number) if wire == BYTES and last - first > _SHORT else None
                )
                if inner is not None:
                    inner, begin = _skip_plain(data, inner, first, last)
                if inner == _TENSOR:
                    found += _count_tensor(data[begin:last], most - found)
                elif inner is not None and len(levels) < MAX_NESTING:
                    levels.append((inner, iter_fields(data, begin, last)))
                    break
                if found >= most:
                    break
            else:
                levels.pop()
    return min(found, most)


def _skip_plain(data: Buffer, kind: int, first: int, last: int) -> tuple[int | None, int]:
    """Skip what every writer writes around a value: the key of an entry, and the field it is.

    Returns:
        The kind of the message that is left to be walked, and where it begins; None if there is
        none.
    """
    if kind == _ENTRY:
        plain = plain_entry(data, first, last)
        if plain is None:
            return kind, first
        kind, first = VALUE, plain[1]
    if kind == VALUE:
        if last - first <= _SHORT:
            return None, first
        tag = data[first]
        content = plain_content(data, first, last, tag) if tag & 7 == BYTES else None
        if content is None:
            return kind, first
        if data[first] == _LIST_TAG and data[content] == _CALLS_TAG:
            return _CALLS, content
        return _INNER[VALUE].get(tag >> 3), content
    return kind, first


def _count_tensor(data: Buffer, most: int) -> int:
    """Count the fields of a TensorProto; of strings that come one after another the first."""
    if find_plain_value(memoryview(data)) is not None:
        return 0
    found = last = 0
    with suppress(CheckpointError):
        for number, wire, _ in iter_runs(memoryview(data)):
            tag = number << 3 | wire
            found += tag != last or wire != BYTES or number not in LISTED_FIELDS
            last = tag
            if found >= most:
                break
    return found
