"""FarmHash's Fingerprint64, the hash of `fingerprint.pb` (docs/format.md, section 8.2).

All numbers are unsigned, 64 bits wide and little-endian. A text of more than 64 bytes goes through
a state of seven words in rounds of 64 bytes; the last round takes the last 64 bytes, which may
overlap the round before. Shorter ones have formulas of their own, by length.
"""

from __future__ import annotations

import struct

__all__ = ["fingerprint64"]

_MASK = (1 << 64) - 1
# The constants that FarmHash is defined with.
_K0 = 0xC3A5C85C97CB3127
_K1 = 0xB492B66FBE98F273
_K2 = 0x9AE16A3B2F90404F
_SEED = 81
"""The seed of FarmHash's Fingerprint64."""
_ROUND = 64
"""Bytes that each round takes."""

_WORDS = struct.Struct("<8Q")


def fingerprint64(data: bytes) -> int:
    """Return the Fingerprint64 of some bytes; about 5 MB a second."""
    if len(data) <= 16:
        return _up_to_16(data)
    if len(data) <= 32:
        return _up_to_32(data)
    if len(data) <= _ROUND:
        return _up_to_64(data)
    return _long(data)


def _word(data: bytes, place: int) -> int:
    return int.from_bytes(data[place : place + 8], "little")


def _rotate(value: int, count: int) -> int:
    """Rotate to the right."""
    value &= _MASK
    return (value >> count | value << (64 - count)) & _MASK


def _mix(value: int) -> int:
    value &= _MASK
    return value ^ value >> 47


def _join(first: int, second: int, factor: int) -> int:
    """Hash two words into one."""
    mixed = _mix((first ^ second & _MASK) * factor)
    return _mix((second ^ mixed) * factor) * factor & _MASK


def _up_to_16(data: bytes) -> int:
    size = len(data)
    factor = _K2 + 2 * size
    if size >= 8:
        start, end = _word(data, 0) + _K2, _word(data, size - 8)
        return _join(
            _rotate(end, 37) * factor + start & _MASK,
            (_rotate(start, 25) + end) * factor & _MASK,
            factor,
        )
    if size >= 4:
        start = int.from_bytes(data[:4], "little")
        return _join(size + (start << 3), int.from_bytes(data[-4:], "little"), factor)
    if size:
        low = data[0] + (data[size >> 1] << 8)
        high = size + (data[-1] << 2)
        return _mix(low * _K2 ^ high * _K0) * _K2 & _MASK
    return _K2


def _up_to_32(data: bytes) -> int:
    factor = _K2 + 2 * len(data)
    a, b = _word(data, 0) * _K1, _word(data, 8)
    c, d = _word(data, len(data) - 8) * factor, _word(data, len(data) - 16) * _K2
    return _join(
        _rotate(a + b, 43) + _rotate(c, 30) + d & _MASK,
        a + _rotate(b + _K2, 18) + c & _MASK,
        factor,
    )


def _up_to_64(data: bytes) -> int:
    size = len(data)
    factor = _K2 + 2 * size
    a, b = _word(data, 0) * _K2, _word(data, 8)
    c, d = _word(data, size - 8) * factor, _word(data, size - 16) * _K2
    y = _rotate(a + b, 43) + _rotate(c, 30) + d & _MASK
    z = _join(y, a + _rotate(b + _K2, 18) + c & _MASK, factor)
    e, f = _word(data, 16) * factor, _word(data, 24)
    g = (y + _word(data, size - 32)) * factor
    h = (z + _word(data, size - 24)) * factor
    return _join(
        _rotate(e + f, 43) + _rotate(g, 30) + h & _MASK,
        e + _rotate(f + a, 18) + g & _MASK,
        factor,
    )


_State = tuple[int, int, int, int, int, int, int]
"""x, y, z, and two pairs."""


def _round(state: _State, words: tuple[int, ...], factor: int, weight: int) -> _State:
    """Take 64 bytes in. The last round has another factor, and a weight of 9 for some words."""
    x, y, z, v0, v1, w0, w1 = state
    x = _rotate(x + y + v0 + words[1], 37) * factor & _MASK ^ w1 * weight & _MASK
    y = _rotate(y + v1 + words[6], 42) * factor + v0 * weight + words[5] & _MASK
    z = _rotate(z + w0, 33) * factor & _MASK
    v0, v1 = _pair(words[:4], v1 * factor, x + w0)
    w0, w1 = _pair(words[4:], z + w1, y + words[2])
    return z, y, x, v0, v1, w0, w1


def _pair(words: tuple[int, ...], a: int, b: int) -> tuple[int, int]:
    first = a + words[0]
    b = _rotate(b + first + words[3], 21)
    total = first + words[1] + words[2]
    return total + words[3] & _MASK, b + _rotate(total, 44) + first & _MASK


def _long(data: bytes) -> int:
    size = len(data)
    y = _SEED * _K1 + 113 & _MASK
    z = _mix(y * _K2 + 113) * _K2 & _MASK
    state: _State = (_SEED * _K2 + _word(data, 0) & _MASK, y, z, 0, 0, 0, 0)
    for words in _WORDS.iter_unpack(data[: (size - 1) // _ROUND * _ROUND]):
        state = _round(state, words, _K1, 1)
    x, y, z, v0, v1, w0, w1 = state
    factor = _K1 + ((z & 0xFF) << 1)
    w0 += (size - 1) & (_ROUND - 1)
    v0 += w0
    w0 += v0
    last = _WORDS.unpack(data[-_ROUND:])
    x, y, z, v0, v1, w0, w1 = _round((x, y, z, v0, v1, w0, w1), last, factor, 9)
    return _join(
        _join(v0, w0, factor) + _mix(y) * _K0 + z & _MASK,
        _join(v1, w1, factor) + x & _MASK,
        factor,
    )
