"""HighwayHash-64: the keyed hash of Riegeli's headers and data (docs/format.md, section 8.3).

The state is four rows of four 64-bit lanes. A packet of 32 bytes is four lanes, little-endian:

    v1 += mul0 + packet;  mul0 ^= low32(v1) * high32(v0)      lane by lane
    v0 += mul1;           mul1 ^= low32(v0) * high32(v1)
    v0 += zipper(v1);     v1 += zipper(v0)                     bytes shuffled within lane pairs

The last packet, when shorter than 32 bytes, is laid out in a way of its own and its length enters
the state. Four packets made of v0's own lanes end the work. The chain allows no vectorisation
across packets, so this is plain integers: about 8 MB a second, 0.04 ms for a chunk header.
"""

from __future__ import annotations

import struct

__all__ = ["highway_hash_64"]

_MASK = 0xFFFF_FFFF_FFFF_FFFF
_LOW = 0xFFFF_FFFF
_LANES = struct.Struct("<4Q")
_PACKET = 32
"""Bytes that each round takes."""

# The constants that HighwayHash is defined with: the state before the first packet.
_MUL0 = (0xDBE6D5D5FE4CCE2F, 0xA4093822299F31D0, 0x13198A2E03707344, 0x243F6A8885A308D3)
_MUL1 = (0x3BD39E10CB0EF593, 0xC0ACF169B5F18A8C, 0xBE5466CF34E90C6C, 0x452821E638D01377)

# Byte i of a shuffled lane pair is byte _ZIPPER[i] of the pair. `bytes.translate` maps each byte
# of its subject through a table, so this subject, with the lanes as the table, is the shuffle.
_PAIR = bytes((3, 12, 2, 5, 14, 1, 15, 0, 11, 4, 10, 13, 9, 6, 8, 7))
_ZIPPER = _PAIR + bytes(index + 16 for index in _PAIR)
_REST_OF_TABLE = bytes(256 - _PACKET)

_Lanes = tuple[int, int, int, int]


def highway_hash_64(key: _Lanes, data: bytes | memoryview) -> int:
    """Hash bytes with a key of four 64-bit integers.

    Args:
        key: The key's lanes.
        data: The bytes; a memoryview must be of single bytes.

    Returns:
        An unsigned 64-bit integer.
    """
    whole = len(data) - len(data) % _PACKET
    view = memoryview(data)
    state = _State(key)
    state.update(view[:whole])
    if whole < len(data):
        state.update_last(bytes(view[whole:]))
    return state.finalize()


class _State:
    """Sixteen lanes; a method that takes many packets keeps them in local names."""

    __slots__ = ("mul0", "mul1", "v0", "v1")

    def __init__(self, key: _Lanes) -> None:
        self.mul0: tuple[int, ...] = _MUL0
        self.mul1: tuple[int, ...] = _MUL1
        self.v0 = tuple(mul ^ lane for mul, lane in zip(_MUL0, key, strict=True))
        self.v1 = tuple(mul ^ _swap_halves(lane) for mul, lane in zip(_MUL1, key, strict=True))

    def update(self, packets: bytes | memoryview) -> None:
        """Take whole packets, as many as there are."""
        pack, unpack = _LANES.pack, _LANES.unpack
        zipper, rest, mask, low = _ZIPPER, _REST_OF_TABLE, _MASK, _LOW
        a0, a1, a2, a3 = self.v0
        b0, b1, b2, b3 = self.v1
        m0, m1, m2, m3 = self.mul0
        n0, n1, n2, n3 = self.mul1
        for p0, p1, p2, p3 in _LANES.iter_unpack(packets):
            b0 = (b0 + m0 + p0) & mask
            b1 = (b1 + m1 + p1) & mask
            b2 = (b2 + m2 + p2) & mask
            b3 = (b3 + m3 + p3) & mask
            m0 ^= (b0 & low) * (a0 >> 32)
            m1 ^= (b1 & low) * (a1 >> 32)
            m2 ^= (b2 & low) * (a2 >> 32)
            m3 ^= (b3 & low) * (a3 >> 32)
            a0 = (a0 + n0) & mask
            a1 = (a1 + n1) & mask
            a2 = (a2 + n2) & mask
            a3 = (a3 + n3) & mask
            n0 ^= (a0 & low) * (b0 >> 32)
            n1 ^= (a1 & low) * (b1 >> 32)
            n2 ^= (a2 & low) * (b2 >> 32)
            n3 ^= (a3 & low) * (b3 >> 32)
            z0, z1, z2, z3 = unpack(zipper.translate(pack(b0, b1, b2, b3) + rest))
            a0 = (a0 + z0) & mask
            a1 = (a1 + z1) & mask
            a2 = (a2 + z2) & mask
            a3 = (a3 + z3) & mask
            z0, z1, z2, z3 = unpack(zipper.translate(pack(a0, a1, a2, a3) + rest))
            b0 = (b0 + z0) & mask
            b1 = (b1 + z1) & mask
            b2 = (b2 + z2) & mask
            b3 = (b3 + z3) & mask
        self.v0, self.v1 = (a0, a1, a2, a3), (b0, b1, b2, b3)
        self.mul0, self.mul1 = (m0, m1, m2, m3), (n0, n1, n2, n3)

    def update_last(self, tail: bytes) -> None:
        """Take the last 1 to 31 bytes."""
        size = len(tail)
        self.v0 = tuple((lane + (size << 32) + size) & _MASK for lane in self.v0)
        self.v1 = tuple(_rotate_halves(lane, size) for lane in self.v1)
        self.update(_last_packet(tail))

    def finalize(self) -> int:
        for _ in range(4):
            v0 = self.v0
            self.update(_LANES.pack(*(_swap_halves(v0[lane]) for lane in (2, 3, 0, 1))))
        return (self.v0[0] + self.v1[0] + self.mul0[0] + self.mul1[0]) & _MASK


def _last_packet(tail: bytes) -> bytes:
    size = len(tail)
    words = size - size % 4
    packet = bytearray(_PACKET)
    packet[:words] = tail[:words]
    if size & 16:
        packet[28:] = tail[-4:]
    elif size % 4:
        odd = tail[words:]
        packet[16:19] = bytes((odd[0], odd[len(odd) >> 1], odd[-1]))
    return bytes(packet)


def _swap_halves(lane: int) -> int:
    return lane >> 32 | (lane & _LOW) << 32


def _rotate_halves(lane: int, count: int) -> int:
    """Rotate each 32-bit half to the left."""
    high, low = lane >> 32, lane & _LOW
    return _rotate_32(high, count) << 32 | _rotate_32(low, count)


def _rotate_32(half: int, count: int) -> int:
    return (half << count | half >> 32 - count) & _LOW
