"""The builder makes the worked examples of docs/format.md (sections 1.8, 2.4, 2.6) to the byte."""

from __future__ import annotations

import ast
from pathlib import Path

import builder as b
import numpy as np
import pytest

WHOLE_INDEX = bytes.fromhex("""
    00 00 06 08 01 1a 02 08 01 00 01 0f 61 08 01 12
    04 12 02 08 02 28 08 35 59 3c e5 35 00 00 00 00
    01 00 00 00 00 44 19 55 9e 00 00 00 00 01 00 00
    00 00 c0 f2 a1 b0 00 01 02 62 00 24 00 00 00 00
    01 00 00 00 00 5a 99 6b 35 29 08 36 0e 00 00 00
    00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00
    00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00
    00 57 fb 80 8b 24 75 47 db
""")


def test_builder_imports_nothing_of_the_package() -> None:
    tree = ast.parse(Path(b.__file__).read_text())
    names = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    names |= {n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    assert not any(name.startswith("ckptparse") for name in names)


def test_whole_index_of_one_tensor_is_the_worked_example() -> None:
    bundle = b.Bundle()
    bundle.add("a", np.array([1, 2], np.float32))
    assert bundle.index() == WHOLE_INDEX
    assert bytes(bundle.shards[0]) == bytes.fromhex("00 00 80 3f 00 00 00 40")


def test_prefix_compression_restarts_at_the_seventeenth_entry() -> None:
    bundle = b.Bundle()
    for n in range(20):
        bundle.add(f"layer/{n:02}/kernel", np.zeros(2, np.float32))
    contents = b.block(bundle.pairs())
    restarts = np.frombuffer(contents[-12:], "<u4").tolist()
    assert restarts[0] == 0 and restarts[2] == 2
    assert b"\x07\x08" in contents and b"1/kernel" in contents
    assert contents[restarts[1]] == 0
    assert contents[restarts[1] + 3 :].startswith(b"layer/15/kernel")


def test_the_empty_block_with_its_trailer_is_the_constant_of_the_format() -> None:
    assert b.Stored(b.EMPTY_BLOCK).to_bytes().hex() == "000000000100000000c0f2a1b0"


@pytest.mark.parametrize(
    ("values", "payload", "unmasked"),
    [
        (
            [b"hello", b"", b"\x00\xff", b"x" * 200],
            "05 00 02 c8 01 5c c1 a2 0b 68 65 6c 6c 6f 00 ff" + "78" * 200,
            0xFB6F1642,
        ),
        ([b"hello"], "05 d9 c6 9c 43 68 65 6c 6c 6f", None),
        ([], "d8 ea 82 a2", 0xEB8F60C4),
        ([b""], "00 a6 7b 11 3a", None),
    ],
)
def test_string_payloads_are_the_examples(
    values: list[bytes], payload: str, unmasked: int | None
) -> None:
    data, check = b.string_payload(values)
    assert data == bytes.fromhex(payload)
    assert unmasked is None or check == b.mask(unmasked)


@pytest.mark.parametrize(
    ("number", "values", "stored"),
    [
        (b.INT4, [-8, -1, 0, 7], "08 0f 00 07"),
        (b.INT2, [-2, -1, 0, 1], "02 03 00 01"),
        (b.UINT4, [15, 8, 0], "0f 08 00"),
        (b.FLOAT4_E2M1FN, [-6, -0.5, 0.5, 6], "0f 09 01 07"),
        (b.FLOAT8_E5M2, [1.0], "3c"),
        (b.FLOAT8_E4M3FN, [1.0], "38"),
        (b.FLOAT8_E4M3FNUZ, [1.0], "40"),
        (b.FLOAT8_E5M2FNUZ, [1.0], "40"),
        (b.FLOAT8_E4M3B11FNUZ, [1.0], "58"),
        (b.BOOL, [True, False], "01 00"),
    ],
)
def test_small_kinds_take_one_byte_per_element(
    number: int, values: list[float], stored: str
) -> None:
    if number not in b.NUMPY_TYPES:
        pytest.skip("the installed ml_dtypes has no such kind")
    array = np.array(values).astype(b.NUMPY_TYPES[number])
    assert b.dense_payload(array, number) == bytes.fromhex(stored)


@pytest.mark.parametrize(
    ("name", "extents", "key"),
    [
        ("foo", [None, (0, 1)], "00 66 6f 6f 00 01 01 02 80 7f 80 81"),
        ("foo", [None, (1, 9)], "00 66 6f 6f 00 01 01 02 80 7f 81 89"),
        (b"f\0o\xffo", [(2, 2), None], "00 66 00 ff 6f ff 00 6f 00 01 01 02 82 82 80 7f"),
        (b"f\0o\xffo", [(0, 2), None], "00 66 00 ff 6f ff 00 6f 00 01 01 02 80 82 80 7f"),
        ("a", [(0, 2), (0, 10)], "00 61 00 01 01 02 80 82 80 8a"),
        ("AA", [], "00 41 41 00 01 00"),
    ],
)
def test_slice_keys_are_the_examples(name: str | bytes, extents: list, key: str) -> None:
    assert b.slice_key(name, extents) == bytes.fromhex(key)


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (-1, "7f"), (0, "80"), (1, "81"), (63, "bf"), (64, "c040"), (-64, "40"), (-65, "3fbf"),
        (8191, "dfff"), (8192, "e02000"), (2**20, "f0100000"), (2**48 - 1, "feffffffffffff"),
        (2**48, "ff01000000000000"), (2**55, "ff80800000000000" + "00"),
        (2**62, "ffc04000000000000000"), (2**63 - 2, "ffc07ffffffffffffffe"),
    ],
)  # fmt: skip
def test_signed_numbers_have_the_codes_of_the_format(value: int, code: str) -> None:
    assert b.ordered_signed(value).hex() == code


def test_a_zero_byte_followed_by_one_survives_escaping() -> None:
    assert b.ordered_string(b"\x00\x01\xff\x01").hex() == "00ff01ff00010001"


def test_full_entry_of_a_sliced_tensor_is_the_example() -> None:
    made = b.Entry(b.FLOAT, (5, 10), slices=([None, (0, 1)], [None, (1, 9)]))
    assert made.to_bytes().hex(" ") == (
        "08 01 12 08 12 02 08 05 12 02 08 0a 3a 06 0a 00 0a 02 10 01 3a 08 0a 00 0a 04 08 01 10 09"
    )


def test_blocks_are_cut_after_the_entry_that_crosses_the_size() -> None:
    pairs = [(b"%05d" % n, b"v" * 20) for n in range(3000)]
    file = b.table(pairs, block_size=4096)
    assert len(file.blocks) > 1
    assert all(4096 <= size < 4096 + 40 for _, size in file.blocks[:-1])
    big = [(b"a", b"x"), (b"b", b"y" * 10000), (b"c", b"z")]
    assert [len(g) for g in b.split(big, block_size=4096)] == [1, 1, 1]


def test_separators_and_successors_are_short_only_where_they_may_be() -> None:
    assert b.separator(b"abc", b"abz") == b"abd"
    assert b.separator(b"abc", b"abd") == b"abc"
    assert b.separator(b"ab", b"abc") == b"ab"
    assert b.successor(b"model/x") == b"n"
    assert b.successor(b"\xff\xff") == b"\xff\xff"


def test_big_endian_payloads_swap_components_and_length_checksums() -> None:
    assert b.dense_payload(np.array([1], np.int32), b.INT32, big=True).hex() == "00000001"
    data = b.dense_payload(np.array([1 + 2j], np.complex64), b.COMPLEX64, big=True)
    assert data == np.array([1, 2], ">f4").tobytes()
    little, big = b.string_payload([b"hello"])[0], b.string_payload([b"hello"], big=True)[0]
    assert little[0] == big[0] == 5 and little[1:5] != big[1:5]


def test_alignment_pads_after_every_payload() -> None:
    bundle = b.Bundle(alignment=42)
    for n in range(3):
        bundle.add(f"t{n}", np.arange(3, dtype=np.int8))
    assert [e.offset for e in bundle.entries.values()] == [0, 42, 84]
