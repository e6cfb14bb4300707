"""Data files that were converted to text and damaged afterwards."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import ckptparse
from ckptparse.examination.encodings import CP1252_LETTERS, Conversion
from ckptparse.files.memory import MemorySource
from ckptparse.recovery.damaged_text import find_damaged_text, undo_damaged_text

CONVERTED: dict[str, Callable[[bytes], bytes]] = {
    "latin-1": lambda data: data.decode("latin-1").encode(),
    "cp1252": lambda data: "".join(map(CP1252_LETTERS.__getitem__, data)).encode(),
    "UTF-16": lambda data: b"\xff\xfe" + data.decode("latin-1").encode("utf-16-le"),
    "UTF-16, big-endian": lambda data: data.decode("latin-1").encode("utf-16-be"),
    "cp1252 to UTF-16": lambda data: "".join(map(CP1252_LETTERS.__getitem__, data)).encode(
        "utf-16"
    ),
    "base64": base64.encodebytes,
    "base64, CRLF": lambda data: base64.encodebytes(data).replace(b"\n", b"\r\n"),
    "base64, one line": base64.b64encode,
}


def over(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]


DAMAGED: dict[str, Callable[[bytes], bytes]] = {
    "noise": lambda data: over(data, 3001, np.random.default_rng(5).bytes(700)),
    "a sector of zeros": lambda data: over(data, 1024, bytes(512)),
    "bytes put in": lambda data: data[:2003] + bytes(range(251)) + data[2003:],
    "bytes taken out": lambda data: data[:2003] + data[2346:],
    "one byte taken out, and an end": lambda data: data[:2003] + data[2004 : -len(data) // 4],
    "its beginning is lost": lambda data: data[1517:],
    "twice": lambda data: over(data[:2003] + data[2346:], len(data) // 2, bytes(512)),
}


def made() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {f"w{number}": rng.normal(size=(150, 20 + number)).astype("f4") for number in range(9)}


@pytest.mark.parametrize("damage", DAMAGED)
@pytest.mark.parametrize("conversion", CONVERTED)
def test_what_lies_behind_damage_to_a_converted_file_is_found(
    conversion: str, damage: str, tmp_path: Path
) -> None:
    ckptparse.write(tmp_path / "m.ckpt", made())
    (data,) = tmp_path.glob("m.ckpt.data*")
    data.write_bytes(DAMAGED[damage](CONVERTED[conversion](data.read_bytes())))
    recovery = ckptparse.recover(tmp_path / "m.ckpt")
    whole = {name for name, one in recovery.items() if one.status == "corrected"}
    lost = {"twice": 2, "one byte taken out, and an end": 4}.get(damage, 1)
    assert len(whole) >= len(made()) - lost
    for name, one in recovery.items():
        if name in whole:
            assert one.read().tobytes() == made()[name].tobytes()
            continue
        # What is offered besides is its own but for what looks wrong.
        assert one.status == "unverified"
        values, own = one.read(fill=0, keep_suspect=True).reshape(-1), made()[name].reshape(-1)
        held = np.zeros(len(own), np.bool_)
        for start, stop in one.ranges:
            held[start:stop] = True
        for start, stop in one.suspect:
            held[start:stop] = False
        assert (values[held] != own[held]).mean() < 0.5


def test_of_a_file_with_bytes_replaced_only_what_has_none_is_offered(tmp_path: Path) -> None:
    tensors = made() | {"a": np.arange(60, dtype="i4"), "x": np.arange(100, dtype="i8")}
    ckptparse.write(tmp_path / "m.ckpt", tensors)
    (data,) = tmp_path.glob("m.ckpt.data*")
    data.write_bytes(data.read_bytes().decode("utf-8", "replace").encode())
    recovery = ckptparse.recover(tmp_path / "m.ckpt")
    assert set(recovery) <= {"a", "x"}
    for name, one in recovery.items():
        assert (one.read() == tensors[name]).all()
    assert "converted" in recovery.report.tensors["w3"].note


def test_weights_as_they_are_and_zeros_are_no_text_that_was_damaged() -> None:
    weights = made()["w0"].tobytes()
    for data in (weights, weights + bytes(100_000), bytes(100_000), b"", b"a"):
        assert find_damaged_text(MemorySource("x", data)) == []


@pytest.mark.parametrize("conversion", CONVERTED)
def test_of_a_file_that_is_not_damaged_all_bytes_are_as_they_were(conversion: str) -> None:
    raw = made()["w0"].tobytes() * 200
    source = MemorySource("x", CONVERTED[conversion](raw))
    how = find_damaged_text(source)[0]
    undone = undo_damaged_text(source, how)
    assert undone.read_at(0, len(raw)) == raw
    assert undone.size - len(raw) < 57  # A line of base64 stands for 57 bytes.
    assert (how.conversion is Conversion.BASE64) == conversion.startswith("base64")


WITHIN: dict[str, Callable[[bytes], bytes]] = {
    "a byte taken out": lambda data: data[: len(data) // 2] + data[len(data) // 2 + 1 :],
    "bytes taken out": lambda data: data[: len(data) // 2] + data[len(data) // 2 + 347 :],
    "bytes put in": lambda data: (
        data[: len(data) // 2] + bytes(range(251)) + data[len(data) // 2 :]
    ),
    "noise": lambda data: over(data, len(data) // 2, np.random.default_rng(5).bytes(700)),
    "a sector of zeros": lambda data: over(data, len(data) // 2 // 512 * 512, bytes(512)),
    "its beginning is lost": lambda data: data[15_171:],
}


@pytest.mark.parametrize("damage", WITHIN)
@pytest.mark.parametrize("conversion", CONVERTED)
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_what_is_offered_of_a_tensor_with_damage_within_is_its_own(
    dtype: str, conversion: str, damage: str, tmp_path: Path
) -> None:
    rng = np.random.default_rng(1)
    tensors = {f"w{n}": rng.normal(0, 0.05, 30_000 + 99 * n).astype(dtype) for n in range(5)}
    ckptparse.write(tmp_path / "m.ckpt", tensors)
    (data,) = tmp_path.glob("m.ckpt.data*")
    data.write_bytes(WITHIN[damage](CONVERTED[conversion](data.read_bytes())))
    recovery = ckptparse.recover(tmp_path / "m.ckpt")
    for name, own in tensors.items():
        if name not in recovery:
            continue
        shown = recovery[name].read()
        told = ~np.ma.getmaskarray(shown)
        wrong = np.flatnonzero(told & (np.ma.getdata(shown) != own))
        # What is less than a sector may look right: noise, or a line of base64 that lost a letter.
        most = 1 if conversion in ("latin-1", "cp1252") else 0
        assert len(wrong) <= (512 // own.itemsize if conversion.startswith("base64") else most)
    assert {one.status for one in recovery.values()} <= {"corrected", "unverified"}
    assert sum(one.status == "corrected" for one in recovery.values()) >= len(tensors) - 1


@pytest.mark.parametrize(
    ("conversion", "damage"),
    [
        ("cp1252", "bytes taken out"),
        ("UTF-16, big-endian", "a byte taken out"),
        ("UTF-16", "bytes taken out"),
        ("base64, one line", "a byte taken out"),
    ],
)
def test_both_sides_of_damage_within_a_tensor_are_offered(
    conversion: str, damage: str, tmp_path: Path
) -> None:
    rng = np.random.default_rng(1)
    tensors = {f"w{n}": rng.normal(0, 0.05, 30_000 + 99 * n).astype("f4") for n in range(5)}
    ckptparse.write(tmp_path / "m.ckpt", tensors)
    (data,) = tmp_path.glob("m.ckpt.data*")
    data.write_bytes(WITHIN[damage](CONVERTED[conversion](data.read_bytes())))
    torn = ckptparse.recover(tmp_path / "m.ckpt")["w2"]
    (first, stop), (start, last) = torn.ranges
    assert (first, last) == (0, len(tensors["w2"]))
    assert stop < start < stop + 700
    assert torn.status == "unverified" and torn.cause == "text"
    assert f"its elements up to {stop:,}, and from {start:,} on, look like its own" in torn.note
    assert [str(one.rule) for one in torn.evidence][-3:] == [*2 * ["conversion undone"], "mismatch"]


@pytest.mark.parametrize("conversion", ["UTF-16", "base64, one line"])
def test_bytes_that_were_put_into_text_are_left_out(conversion: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    tensors = {f"w{n}": rng.normal(0, 0.05, 30_000 + 99 * n).astype("f4") for n in range(5)}
    ckptparse.write(tmp_path / "m.ckpt", tensors)
    (data,) = tmp_path.glob("m.ckpt.data*")
    text = CONVERTED[conversion](data.read_bytes())
    place = len(text) // 2 // 4 * 4
    data.write_bytes(text[:place] + text[400:800] + text[place:])
    recovery = ckptparse.recover(tmp_path / "m.ckpt")
    assert {one.status for one in recovery.values()} == {"corrected"}
    assert "leaving out bytes that were put in" in recovery["w2"].method
    for name, own in tensors.items():
        assert recovery[name].read().tobytes() == own.tobytes()


def test_words_are_no_base64_and_indented_lines_of_it_are() -> None:
    words = b"the quick brown fox jumps over 12 lazy dogs\n" * 3000
    assert find_damaged_text(MemorySource("m", words)) == []
    weights = np.random.default_rng(1).normal(size=20_000).astype(np.float32).tobytes()
    lines = base64.encodebytes(weights).replace(b"\n", b"\n        ")
    found = find_damaged_text(MemorySource("m", lines))
    assert [how.conversion for how in found] == [Conversion.BASE64]
