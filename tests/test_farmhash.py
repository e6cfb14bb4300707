"""Fingerprint64 at every length at which its formula changes, and around rounds of 64 bytes."""

from __future__ import annotations

import pytest

from ckptparse.saved_model.farmhash import fingerprint64

TEXT = bytes((37 * place + 11) % 256 for place in range(400))

BY_LENGTH = {
    0: 0x9AE16A3B2F90404F,
    1: 0x4271B80E2915C76A,
    3: 0x373A2B2A12E0C581,
    4: 0xCC1E778137AE6D69,
    7: 0x960838FBC6D9C975,
    8: 0x7D507025ED4EECFD,
    15: 0x834F200CFA7ED95F,
    16: 0xD836480326A974D6,
    17: 0x5CDED6CB65C9DAC6,
    31: 0x52A467E87C92D522,
    32: 0xA03300E1B2BE6DA7,
    33: 0x839154CA67815696,
    63: 0x7CF64A4BD1B2B67E,
    64: 0x000F03EAC52D3535,
    65: 0xFB360C5023F60DB6,
    127: 0xD70E348FCBF64D04,
    128: 0x33EF435F17AF1739,
    129: 0xC30A81B637D2E4DD,
    200: 0x51320A19A60CBD6E,
    400: 0x49E02FE48F4D8047,
}
"""Of the first so many bytes, as Google's own implementation gives them."""


@pytest.mark.parametrize("length", BY_LENGTH)
def test_the_hash_is_that_of_farmhash_at_every_border(length: int) -> None:
    assert fingerprint64(TEXT[:length]) == BY_LENGTH[length]


def test_every_byte_counts() -> None:
    changed = {fingerprint64(TEXT[:at] + b"\0" + TEXT[at + 1 :]) for at in range(400) if TEXT[at]}
    assert len(changed) == sum(byte != 0 for byte in TEXT)
