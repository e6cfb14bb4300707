"""Codes whose bytes have the same order as their values (docs/format.md, section 2.6).

Three kinds are needed for the key of a slice:

    string      bytes with 00 -> 00 ff and ff -> ff 00, then the terminator 00 01
    number      one byte: how many significant bytes follow; then those, big-endian
    signed      n bytes: v as n-byte big-endian two's complement, XOR a header of n leading ones
                (n is the smallest with -2**(7n-1) <= v < 2**(7n-1))

      v =   -65  3f bf      v = 0  80        v = 64    c0 40
      v =   -64  40         v = 1  81        v = 8191  df ff
      v =    -1  7f         v = 63 bf        v = 8192  e0 20 00

Decoders accept only what the encoders make, so that each value has exactly one code.
"""

from __future__ import annotations

__all__ = [
    "decode_number",
    "decode_signed",
    "decode_string",
    "encode_number",
    "encode_signed",
    "encode_string",
]

_TERMINATOR = b"\x00\x01"


def encode_string(text: bytes) -> bytes:
    """Encode bytes with their terminator."""
    if b"\x00" not in text and b"\xff" not in text:
        return text + _TERMINATOR
    # Split at zeros first: the escape of ff (ff 00) has a zero that must not be escaped again.
    parts = (part.replace(b"\xff", b"\xff\x00") for part in text.split(b"\x00"))
    return b"\x00\xff".join(parts) + _TERMINATOR


def decode_string(data: bytes, position: int) -> tuple[bytes, int]:
    """Decode bytes up to their terminator; return them and the position after it.

    Raises:
        ValueError: There is no terminator, or 00 or ff is followed by a wrong byte.
    """
    end = data.find(_TERMINATOR, position)
    if end < 0:
        raise ValueError("string has no terminator")
    if data.find(b"\x00", position, end) < 0 and data.find(b"\xff", position, end) < 0:
        return data[position:end], end + 2
    text = bytearray()
    while position + 1 < len(data):
        byte, following = data[position], data[position + 1]
        if byte not in (0x00, 0xFF):
            text.append(byte)
            position += 1
            continue
        position += 2
        if byte == 0x00 and following == 0x01:
            return bytes(text), position
        # 00 ff stands for 00, and ff 00 for ff.
        if following != byte ^ 0xFF:
            raise ValueError(f"bytes {byte:02x} {following:02x} are no escape of a string")
        text.append(byte)
    raise ValueError("string has no terminator")


def encode_number(value: int) -> bytes:
    """Encode an unsigned integer of up to 64 bits."""
    size = (value.bit_length() + 7) // 8
    return bytes([size]) + value.to_bytes(size, "big")


def decode_number(data: bytes, position: int) -> tuple[int, int]:
    """Decode an unsigned integer; return it and the position after it.

    Raises:
        ValueError: It is cut off, wider than 64 bits, or has a leading zero byte.
    """
    if position >= len(data):
        raise ValueError("number is cut off")
    size = data[position]
    start, end = position + 1, position + 1 + size
    if size > 8 or end > len(data) or (size and not data[start]):
        raise ValueError("number is cut off, too wide or not minimal")
    return int.from_bytes(data[start:end], "big"), end


def encode_signed(value: int) -> bytes:
    """Encode a signed integer of up to 64 bits."""
    size = _signed_size(value)
    return (_header(size) ^ value % (1 << 8 * size)).to_bytes(size, "big")


def decode_signed(data: bytes, position: int) -> tuple[int, int]:
    """Decode a signed integer; return it and the position after it.

    Raises:
        ValueError: It is cut off, wider than 64 bits, or not minimal.
    """
    if position < len(data) and 0x40 <= data[position] < 0xC0:
        # One byte, as of most numbers.
        return data[position] - 0x80, position + 1
    size = _count_header_bits(data, position)
    end = position + size
    if not size or end > len(data):
        raise ValueError("signed number is cut off")
    code = int.from_bytes(data[position:end], "big")
    value = code ^ _header(size)
    if not data[position] & 0x80:
        # A first bit of 0: a negative number, whose sign bits (ones) were XORed with the header.
        value -= 1 << 8 * size
    if not -(1 << 63) <= value < 1 << 63 or _signed_size(value) != size:
        raise ValueError("signed number is too wide or not minimal")
    return value, end


def _signed_size(value: int) -> int:
    return max(value, ~value).bit_length() // 7 + 1


def _header(size: int) -> int:
    """Return the header of a code of `size` bytes as a number: `size` leading ones."""
    return ((1 << size) - 1) << 7 * size


def _count_header_bits(data: bytes, position: int) -> int:
    """Count the leading bits that equal the first one; 0 if there is no byte.

    Those of a 64-bit number are ten at most: each byte gives 7 bits, since one more bit is in the
    header. So two bytes are enough.
    """
    count = 0
    for byte in data[position : position + 2]:
        flipped = byte if data[position] & 0x80 else byte ^ 0xFF
        ones = 8 - (flipped ^ 0xFF).bit_length()
        count += ones
        if ones < 8:
            break
    return count
