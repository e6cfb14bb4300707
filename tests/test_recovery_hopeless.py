"""Data files that hold none of the tensors: it is soon said that they do not."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ckptparse
from ckptparse.crc.search import Registers
from ckptparse.examination.conversions import UndoneLineEnds
from ckptparse.examination.places import is_text
from ckptparse.problems import Status

SHAPES = {f"layer_{number}": (100, 60) for number in range(20)}
LINES = [b"The quick brown fox jumps over the lazy dog." * (1 + number % 3) for number in range(99)]
NOISE = np.random.default_rng(1).bytes(600_000)
TEXTS = {
    "lines": b"\n".join(LINES),
    "CRLF": b"\r\n".join(LINES),
    "base64": base64.b64encode(np.random.default_rng(1).bytes(300_000)),
    "hex digits": np.random.default_rng(1).bytes(30_000).hex().encode(),
    "one letter": b"A",
    "latin-1 as UTF-8": NOISE.decode("latin-1").encode(),
    "UTF-16": NOISE.decode("latin-1").encode("utf-16"),
    "U+FFFD": NOISE.decode("utf-8", "replace").encode(),
    "zeros": b"\0",
    "noise": NOISE,
    "noise, CRLF": NOISE.replace(b"\r", b"").replace(b"\n", b"\r\n"),
}


def damaged(directory: Path, content: bytes) -> Path:
    """Write a checkpoint, and other bytes in place of its data file."""
    rng = np.random.default_rng(0)
    arrays = {name: rng.normal(0, 0.05, shape).astype("f4") for name, shape in SHAPES.items()}
    ckptparse.write(directory / "m.ckpt", arrays)
    (data,) = directory.glob("m.ckpt.data*")
    size = data.stat().st_size
    data.write_bytes((content * (size // len(content) + 1))[:size])
    return directory / "m.ckpt"


@pytest.mark.parametrize("kind", TEXTS)
def test_text_and_noise_are_not_searched_for_weights_nor_offered_as_such(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched: list[int] = []
    monkeypatch.setattr(Registers, "find_each", lambda *given: searched.append(len(given)) or {})
    found = ckptparse.recover(damaged(tmp_path, TEXTS[kind]))
    assert not found
    assert {one.status for one in found.report.tensors.values()} == {Status.CORRUPT}
    assert searched == []


def test_elements_of_one_byte_are_sought_in_text(tmp_path: Path) -> None:
    letters = np.frombuffer(b"some letters of eight bits " * 99, np.int8)
    ckptparse.write(tmp_path / "m.ckpt", {"letters": letters})
    (data,) = tmp_path.glob("m.ckpt.data*")
    data.write_bytes(b"text" + data.read_bytes())
    assert is_text(data.read_bytes())
    assert ckptparse.recover(tmp_path / "m.ckpt")["letters"].status.proved


def test_a_long_run_of_a_converted_file_is_read_once_for_its_checksum(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    arrays = {name: rng.normal(0, 0.05, 600_000).astype("f4") for name in "ab"}
    ckptparse.write(tmp_path / "m.ckpt", arrays)
    (data,) = tmp_path.glob("m.ckpt.data*")
    size = data.stat().st_size
    data.write_bytes(rng.bytes(size).replace(b"\r", b"").replace(b"\n", b"\r\n"))
    read: list[int] = []
    read_at = UndoneLineEnds.read_at

    def count(source: Any, offset: int, length: int) -> bytes:
        read.append(length)
        return read_at(source, offset, length)

    monkeypatch.setattr(UndoneLineEnds, "read_at", count)
    ckptparse.recover(tmp_path / "m.ckpt")
    # For the search, the checksums, and what is offered.
    assert 0 < sum(read) <= 5 * size


def test_bytes_with_a_zero_or_above_127_are_no_text() -> None:
    assert is_text(b"text" * 1_000_000)
    assert not is_text(b"")
    for odd in (b"\0", b"\x80"):
        assert not is_text(b"text" * 1_000_000 + odd)
        assert not is_text(odd + b"text" * 1_000_000)


def test_text_that_one_changed_byte_would_explain_is_not_offered(tmp_path: Path) -> None:
    text = b"The quick brown fox jumps over the lazy dog." * 10_000
    ckptparse.write(tmp_path / "m.ckpt", {"w": np.frombuffer(text, "f4")})
    (data,) = tmp_path.glob("m.ckpt.data*")
    data.write_bytes(b"k" + data.read_bytes()[1:])
    # By chance one of 40 tensors of this size is explained so.
    found = ckptparse.recover(tmp_path / "m.ckpt")
    assert not found
    assert found.report.tensors["w"].status == Status.CORRUPT
