"""Tables that are written: the bytes that TensorFlow's writer makes (docs/format.md, section 1)."""

from __future__ import annotations

import builder as b
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptparse.table.builder import TableBuilder, shorten_separator, shorten_successor
from ckptparse.table.format import BlockHandle, Footer, encode_trailer


def build(pairs: list[b.Pair], **options: int) -> bytes:
    out = bytearray()
    table = TableBuilder(out.extend, **options)
    for key, value in pairs:
        table.add(key, value)
    table.finish()
    return bytes(out)


def test_a_footer_is_its_handles_padding_and_magic() -> None:
    footer = Footer(BlockHandle(0x29, 8), BlockHandle(0x36, 300))
    wanted = bytes.fromhex("290836ac02") + bytes(35) + bytes.fromhex("57fb808b247547db")
    assert footer.to_bytes() == wanted
    assert Footer.from_bytes(wanted) == footer


def test_the_trailer_of_an_empty_block_is_known() -> None:
    assert encode_trailer(bytes.fromhex("0000000001000000")).hex() == "00c0f2a1b0"


def test_the_index_of_one_tensor_is_the_one_that_is_drawn_in_the_format() -> None:
    entry = bytes.fromhex("0801120412020802280835593ce535")
    wanted = bytes.fromhex(
        "000006 08011a020801 00010f 61 0801120412020802280835593ce535 00000000 01000000 00 4419559e"
        "00000000 01000000 00 c0f2a1b0 000102 62 0024 00000000 01000000 00 5a996b35 2908 360e"
    )
    wanted += bytes(36) + bytes.fromhex("57fb808b247547db")
    assert build([(b"", bytes.fromhex("08011a020801")), (b"a", entry)]) == wanted


@pytest.mark.parametrize(
    ("last", "following", "wanted"),
    [
        (b"abc", b"abq", b"abd"),
        (b"abc", b"abd", b"abc"),  # raised, it would be the next key itself
        (b"ab", b"abc", b"ab"),  # the one begins the other
        (b"a\xff", b"b", b"a\xff"),
        (b"a\xffx", b"c", b"b"),
        (b"a\xff", b"a\xff\x00", b"a\xff"),
        (b"", b"a", b""),
    ],
)
def test_separators_are_as_short_as_leveldb_makes_them(
    last: bytes, following: bytes, wanted: bytes
) -> None:
    assert shorten_separator(last, following) == wanted == b.separator(last, following)


@pytest.mark.parametrize(
    ("last", "wanted"),
    [
        (b"a", b"b"),
        (b"model/x", b"n"),
        (b"\xffa", b"\xffb"),
        (b"\xff\xff", b"\xff\xff"),
        (b"", b""),
    ],
)
def test_successors_are_as_short_as_leveldb_makes_them(last: bytes, wanted: bytes) -> None:
    assert shorten_successor(last) == wanted == b.successor(last)


def test_the_seventeenth_entry_of_a_block_is_a_restart() -> None:
    pairs = [(f"layer/{n:02}/kernel".encode(), b"x") for n in range(20)]
    assert build(pairs) == b.table(pairs).data


def test_a_table_without_entries_is_its_two_empty_blocks() -> None:
    assert build([]) == b.table([]).data


def test_an_entry_of_twice_the_block_size_is_put_into_a_block_of_its_own() -> None:
    pairs = [(b"a", bytes(40)), (b"b", bytes(2 * 64 - 1)), (b"c", b"")]
    assert build(pairs, block_size=64) == b.table(pairs, block_size=64).data


def test_keys_that_do_not_rise_are_refused() -> None:
    table = TableBuilder(lambda data: None)
    table.add(b"a", b"")
    with pytest.raises(ValueError, match="must rise"):
        table.add(b"a", b"")


@settings(max_examples=200)
@given(
    st.dictionaries(st.binary(max_size=12), st.binary(max_size=60), max_size=60),
    st.sampled_from([40, 100, 1 << 18]),
)
def test_random_tables_are_the_builders(content: dict[bytes, bytes], size: int) -> None:
    pairs = sorted(content.items())
    assert build(pairs, block_size=size) == b.table(pairs, block_size=size).data
