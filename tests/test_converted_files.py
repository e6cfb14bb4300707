"""Checkpoints whose files were converted as a whole, once or several times: each byte comes back.

`test_conversions.py` has the conversions.
"""

from __future__ import annotations

import base64
import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import builder
import numpy as np
import pytest
import v1_builder
from test_conversions import CONVERTED, PRINTED

import ckptparse
from ckptparse.examination import lost_returns
from ckptparse.examination.encodings import Conversion
from ckptparse.examination.lost_returns import Returned, find_lost_returns
from ckptparse.files.memory import MemorySource
from ckptparse.limits import Limits
from ckptparse.table.format import BlockHandle, Footer

WAYS: dict[str, Callable[[bytes], bytes]] = {
    **{conversion.value: convert for conversion, convert in CONVERTED.items()},
    **{how: convert for how, (_, convert) in PRINTED.items()},
    "base64, CR LF": lambda raw: base64.encodebytes(raw).replace(b"\n", b"\r\n"),
    "base64, one line": base64.b64encode,
    "UTF-16 without a mark": lambda raw: raw.decode("latin-1").encode("utf-16-le"),
    "UTF-16, big-endian, with a mark": lambda raw: (
        b"\xfe\xff" + raw.decode("latin-1").encode("utf-16-be")
    ),
}


def made() -> dict[str, np.ndarray[Any, Any]]:
    rng = np.random.default_rng(0)
    # The index states each size, so it has line feeds: bytes 0a.
    arrays = {f"w{n}": rng.normal(size=(10, 60 + n)).astype("<f4") for n in range(6)}
    return arrays | {"zeros": np.zeros(300, "<f4"), "step": np.int64(17)}


def v1_file() -> bytes:
    file = v1_builder.LegacyFile()
    for name, array in made().items():
        file.add(name, array)
    return file.data()


def write_v2(prefix: Path) -> None:
    bundle = builder.Bundle()
    for name, array in made().items():
        bundle.add(name, array)
    bundle.write(prefix)


def check_all(path: Path, code: str) -> None:
    """Every tensor is proved, by `verify` too if no data file was converted."""
    recovery = ckptparse.recover(path)
    assert code in {problem.code for problem in recovery.report.problems}
    for name, array in made().items():
        assert str(recovery[name].status) in ("verified", "corrected"), name
        assert recovery[name].read().tobytes() == array.tobytes()
    if code != "shard.text":
        report = ckptparse.verify(path)
        assert not report.ok and code in {problem.code for problem in report.problems}
        assert {str(one.status) for one in report.tensors.values()} == {"verified"}


@pytest.mark.parametrize("way", WAYS)
def test_a_v1_file_that_was_converted_comes_back(way: str, tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(WAYS[way](v1_file()))
    check_all(tmp_path / "model", "v1.text")
    with pytest.raises(ckptparse.CheckpointError):
        ckptparse.read(tmp_path / "model")


TEXTS = [Conversion.UTF8_LATIN1, Conversion.UTF8_CP1252]


@pytest.mark.parametrize("second", TEXTS)
@pytest.mark.parametrize("first", TEXTS)
def test_a_v1_file_that_looks_like_one_that_was_cut_off_comes_back(
    first: Conversion, second: Conversion, tmp_path: Path
) -> None:
    """Its first bytes are zeros, which stay as they are, and its blocks lie elsewhere."""
    file, rng = v1_builder.LegacyFile(), np.random.default_rng(1)
    arrays = {f"w{n}": rng.normal(0, 0.05, (100, 60)).astype("<f4") for n in range(8)}
    for name, array in arrays.items():
        file.add(name, array)
    data = file.data(block_size=4096)
    (tmp_path / "m").write_bytes(CONVERTED[second](CONVERTED[first](data)))
    recovery = ckptparse.recover(tmp_path / "m")
    for name, array in arrays.items():
        assert recovery[name].status in ("verified", "corrected")
        assert np.array_equal(recovery[name].read(), array)


@pytest.mark.parametrize("way", WAYS)
def test_an_index_that_was_converted_comes_back(way: str, tmp_path: Path) -> None:
    write_v2(tmp_path / "model")
    index = tmp_path / "model.index"
    index.write_bytes(WAYS[way](index.read_bytes()))
    check_all(tmp_path / "model", "index.text")


@pytest.mark.parametrize("way", [way for way in WAYS if way != Conversion.CRLF.value])
def test_a_data_file_that_was_converted_comes_back(way: str, tmp_path: Path) -> None:
    write_v2(tmp_path / "model")
    data = tmp_path / "model.data-00000-of-00001"
    data.write_bytes(WAYS[way](data.read_bytes()))
    recovery = ckptparse.recover(tmp_path / "model")
    for name, array in made().items():
        assert str(recovery[name].status) in ("verified", "corrected", "derived"), name
        assert recovery[name].read().tobytes() == array.tobytes()


@pytest.mark.parametrize("way", ["base64", "gzip", "hex dump", "base64 of gzip"])
def test_of_a_v1_file_that_was_cut_after_a_conversion_whole_blocks_come_back(
    way: str, tmp_path: Path
) -> None:
    file = v1_builder.LegacyFile()
    arrays = {f"w{n}": np.random.default_rng(n).normal(size=3000) for n in range(12)}
    for name, array in arrays.items():
        file.add(name, array)
    text = WAYS[way](file.data(block_size=20_000))
    (tmp_path / "model").write_bytes(text[: len(text) * 3 // 4])
    recovery = ckptparse.recover(tmp_path / "model")
    whole = [name for name, one in recovery.items() if one.status == "verified"]
    assert len(whole) >= 7
    for name in whole:
        assert (recovery[name].read() == arrays[name]).all()


def test_files_of_a_v1_set_that_were_converted_come_back(tmp_path: Path) -> None:
    array = np.arange(24, dtype="<f4").reshape(4, 6)
    for number in range(2):
        file = v1_builder.LegacyFile()
        listed = file.declare("w", [4, 6], 1)
        file.add_slice(listed, [(2 * number, 2), None], array[2 * number : 2 * number + 2])
        path = tmp_path / f"model-0000{number}-of-00002"
        path.write_bytes(base64.encodebytes(file.data()))
    assert (ckptparse.recover(tmp_path / "model")["w"].read() == array).all()


NAMES = ("a\r\nb", "c\n", "d\r\n", "e\r\n\n", "f")


def bundle_of_lines() -> builder.Bundle:
    bundle = builder.Bundle()
    for number, name in enumerate(NAMES):
        bundle.add(name, np.arange(number, 9 + number, dtype="<f4"))
    return bundle


@pytest.mark.parametrize("size", [262144, 60, 1], ids=["one block", "some blocks", "a block each"])
def test_returns_that_an_index_lost_are_put_back(size: int, tmp_path: Path) -> None:
    raw = bundle_of_lines().index(block_size=size)
    prefix = bundle_of_lines().write(tmp_path / "m", block_size=size)
    (tmp_path / "m.index").write_bytes(raw.replace(b"\r\n", b"\n"))
    with pytest.raises(ckptparse.CheckpointError):
        ckptparse.read(prefix)
    report = ckptparse.verify(prefix)
    count = raw.count(b"\r\n")
    said = f"{count} carriage returns were lost before line feeds in it"
    assert [one.code for one in report.problems] == ["index.text"]
    assert report.problems[0].message.startswith(said)
    recovery = ckptparse.recover(prefix)
    assert set(recovery) == set(NAMES)
    for number, name in enumerate(NAMES):
        assert recovery[name].status == "verified"
        assert recovery[name].read().tolist() == list(range(number, 9 + number))


def test_returns_that_a_v1_file_lost_are_put_back(tmp_path: Path) -> None:
    # Each number has a line feed in its bytes, two a carriage return before it.
    arrays = [np.frombuffer(word, "<f4") for word in (b"\r\nA>", b"B\nC>", b"D\r\n>")]
    file = v1_builder.LegacyFile()
    for number, array in enumerate(arrays):
        file.add(f"w{number}", array)
    data = file.data()
    assert data.count(b"\r\n") == 2
    (tmp_path / "m").write_bytes(data.replace(b"\r\n", b"\n"))
    recovery = ckptparse.recover(tmp_path / "m")
    assert [recovery[f"w{number}"].read().tobytes() for number in range(3)] == [
        array.tobytes() for array in arrays
    ]
    assert {str(one.status) for one in recovery.values()} == {"verified"}
    assert [one.code for one in recovery.report.problems] == ["v1.text"]


def test_returns_are_put_back_where_blocks_agree_then() -> None:
    table = bundle_of_lines().table(block_size=60)
    raw, places = table.data, [*table.blocks, table.metaindex, table.index]
    lost = raw.replace(b"\r\n", b"\n")
    whole = MemorySource("m", raw)
    assert find_lost_returns(MemorySource("m", lost), Limits()) is not None
    assert find_lost_returns(whole, Limits()) is None
    for at in range(len(lost)):
        changed = bytearray(lost)
        changed[at] ^= 0x41
        source = MemorySource("m", bytes(changed))
        found = find_lost_returns(source, Limits())
        if found is not None:
            # All blocks are as they were, but for the one that has changed.
            restored = Returned(found)(source)
            assert restored.size == len(raw)
            got = bytes(restored.read_at(0, len(raw)))
            differ = [n for n in range(len(raw) - 48) if got[n] != raw[n]]
            assert (
                sum(any(start <= n < start + size + 5 for n in differ) for start, size in places)
                < 2
            )
        assert find_lost_returns(MemorySource("m", lost[:at]), Limits()) is None


def with_crc(at: int) -> bytes:
    """Return a value with which a block's stored checksum has a return and a line feed there."""
    for number in range(1 << 22):
        value = b"%d" % number
        stored = builder.masked_crc(builder.block([(b"key", value)]) + b"\0").to_bytes(4, "little")
        if stored[at : at + 2] == b"\r\n":
            return value
    raise AssertionError


@pytest.mark.parametrize("at", [0, 2])
def test_a_return_that_a_stored_checksum_lost_is_put_back(at: int) -> None:
    value = with_crc(at)
    pairs = [(b"a\r\nb", b"1"), (b"key", value), (b"x\r\n", b"2")]
    raw = builder.table(pairs, block_size=1).data
    assert raw.count(b"\r\n") == 3
    source = MemorySource("m", raw.replace(b"\r\n", b"\n"))
    found = find_lost_returns(source, Limits())
    assert found is not None
    restored = Returned(found)(source)
    assert bytes(restored.read_at(0, restored.size)) == raw


def test_returns_before_returns_are_left_as_they_are() -> None:
    """One of two returns before a line feed is lost: then no pair says that none was lost."""
    raw = builder.table([(b"a\r\r\nb", b"1"), (b"c\r\n", b"2")], block_size=1).data
    assert find_lost_returns(MemorySource("m", raw.replace(b"\r\n", b"\n")), Limits()) is None


def test_blocks_between_damaged_ones_tell_how_many_returns_these_lost() -> None:
    rng = np.random.default_rng(5)
    noise = [rng.bytes(900).replace(b"\r", b"x") for _ in range(2)]
    large = [one + b"line\r\n" * 5 for one in noise]
    pairs = [(b"a%d" % n, b"line\r\n%d" % n) for n in range(9)]
    pairs[2:2], pairs[6:6] = [(b"a1x", large[0])], [(b"a4x", large[1])]
    raw = builder.table(pairs, block_size=1).data
    lost = raw.replace(b"\r\n", b"\n")
    for one in noise:
        lost = lost.replace(one, one[:300] + bytes(300) + one[600:])
    source = MemorySource("m", lost)
    found = find_lost_returns(source, Limits())
    assert found is not None
    restored = Returned(found)(source)
    got = bytes(restored.read_at(0, restored.size))
    assert len(got) == len(raw)
    for _, value in pairs:
        assert value in large or got.count(value) == raw.count(value) == 1


def test_a_footer_that_says_another_size_puts_nothing_back() -> None:
    """The list of blocks ends before another place than that at which the footer has it."""
    table = bundle_of_lines().table(block_size=60)
    offset, size = table.index
    between = b"line\r\n" * 3
    footer = Footer(BlockHandle(*table.metaindex), BlockHandle(offset + len(between), size))
    raw = table.data[:offset] + between + table.data[offset:-48] + footer.to_bytes()
    assert find_lost_returns(MemorySource("m", raw.replace(b"\r\n", b"\n")), Limits()) is None


@pytest.mark.parametrize("size", [40, 100_000])
def test_line_feeds_without_end_cost_a_bounded_search(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    footer = Footer(BlockHandle(0, 8), BlockHandle(13, size + 20)).to_bytes()
    source = MemorySource("m", b"\n" * (13 + size) + footer)
    tried: list[int] = []
    monkeypatch.setattr(
        lost_returns.returns, "restore_returns", lambda data, *_, **__: tried.append(len(data))
    )
    assert find_lost_returns(source, Limits()) is None
    assert 0 < len(tried) <= 1 << 14 and sum(tried) <= 1 << 30


@pytest.mark.parametrize(
    ("dtype", "block_size"), [("<f4", 1 << 18), ("<f8", 1 << 18), ("<f4", 4096)]
)
def test_a_v1_file_of_weights_that_lost_many_returns_is_read(
    dtype: str, block_size: int, tmp_path: Path
) -> None:
    """Each block of 256 KiB loses four: the checksum tells which, among those that shifts show."""
    rng = np.random.default_rng(3)
    arrays = {f"w{n}": rng.normal(0, 0.05, (300, 200)).astype(dtype) for n in range(8)}
    file = v1_builder.LegacyFile()
    for name, array in arrays.items():
        file.add(name, array)
    data = file.data(block_size=block_size)
    assert data.count(b"\r\n") >= 16
    (tmp_path / "m").write_bytes(data.replace(b"\r\n", b"\n"))
    recovery = ckptparse.recover(tmp_path / "m")
    assert {str(one.status) for one in recovery.values()} == {"verified"}
    assert all(np.array_equal(recovery[name].read(), array) for name, array in arrays.items())


def test_a_damaged_block_does_not_keep_returns_from_being_put_back_in_others(
    tmp_path: Path,
) -> None:
    rng = np.random.default_rng(4)
    arrays = {f"w{n}": rng.normal(0, 0.05, (300, 200)).astype(np.float32) for n in range(8)}
    file = v1_builder.LegacyFile()
    for name, array in arrays.items():
        file.add(name, array)
    data = bytearray(file.data(block_size=4096).replace(b"\r\n", b"\n"))
    middle = len(data) // 2
    data[middle : middle + 3000] = rng.bytes(3000).replace(b"\r", b"x")
    (tmp_path / "m").write_bytes(data)
    recovery = ckptparse.recover(tmp_path / "m")
    sure = [name for name, one in recovery.items() if one.status == "verified"]
    assert len(sure) == 7
    assert all(np.array_equal(recovery[name].read(), arrays[name]) for name in sure)


def test_a_stranger_in_gzip_is_refused_as_before(tmp_path: Path) -> None:
    path = tmp_path / "notes.gz"
    path.write_bytes(gzip.compress(b"no checkpoint " * 1000))
    for call in (ckptparse.verify, ckptparse.recover):
        with pytest.raises(ckptparse.NotACheckpointError, match="gzip"):
            call(path)


def test_what_lies_over_another_tensor_or_is_empty_keeps_no_returns_away(tmp_path: Path) -> None:
    values = np.random.default_rng(4).normal(0, 0.05, 40_000).astype(np.float32)
    values.view(np.uint8)[[1000, 1001, 90_000, 90_001]] = list(b"\r\n\r\n")
    made = builder.Bundle()
    made.add("a", values)
    made.entries[b"b"] = made.entries[b"a"]
    made.entries[b"c"] = builder.Entry(builder.FLOAT, (0, 4), crc=builder.masked_crc(b""))
    prefix = made.write(tmp_path / "m")
    data = tmp_path / "m.data-00000-of-00001"
    raw = data.read_bytes()
    assert raw.count(b"\r\n")
    data.write_bytes(raw.replace(b"\r\n", b"\n"))
    recovery = ckptparse.recover(prefix)
    assert {str(one.status) for one in recovery.values()} <= {"corrected", "verified"}
    assert recovery["a"].read().tobytes() == recovery["b"].read().tobytes() == raw


@pytest.mark.parametrize("at", [10, 150, 300])
@pytest.mark.parametrize("lost", [1, 4])
def test_bytes_lost_in_a_damaged_block_are_not_called_carriage_returns(
    at: int, lost: int, tmp_path: Path
) -> None:
    """No block's checksum says so; the blocks behind it are found all the same."""
    rng = np.random.default_rng(1)
    bundle = builder.Bundle()
    for number in range(20):
        bundle.add(f"l/{number}", rng.normal(size=(40, 50)).astype(np.float32))
    prefix = Path(bundle.write(tmp_path / "m", block_size=300))
    index = Path(f"{prefix}.index")
    raw = index.read_bytes()
    index.write_bytes(raw[:at] + raw[at + lost :])
    recovery = ckptparse.recover(prefix)
    assert "index.text" not in {problem.code for problem in recovery.report.problems}
    assert "l/9" in recovery
