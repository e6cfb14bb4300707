"""Strings that look wrong in a tensor of strings that fails: those in damaged sectors."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import builder
import faults
import numpy as np
import pytest

import ckptparse
from ckptparse.recovery.odd_strings import find_odd_strings, strings_in

RNG = np.random.default_rng(0)
FILLS = {
    "noise": RNG.bytes(512),
    "zeros": bytes(512),
    "ff": b"\xff" * 512,
    "weights": RNG.normal(size=128).astype(np.float32).tobytes(),
}


def write(directory: Path, words: list[bytes]) -> tuple[Path, bytes]:
    bundle = builder.Bundle()
    bundle.add("words", np.array(words, object))
    bundle.add("kernel", RNG.normal(size=500).astype(np.float32))
    return Path(bundle.write(directory / "m")), bytes(bundle.shards[0])


@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("letters", ["word", "wörter", "слово "])
def test_one_bad_sector_costs_the_strings_in_it(fill: str, letters: str, tmp_path: Path) -> None:
    words = [f"{letters}{n}".encode() for n in range(3000)]
    prefix, raw = write(tmp_path, words)
    data = Path(f"{prefix}.data-00000-of-00001")
    data.write_bytes(raw[: 512 * 20] + FILLS[fill] + raw[512 * 21 :])
    tensor = ckptparse.recover(prefix)["words"]
    found: Any = tensor.read()
    hidden = np.ma.getmaskarray(found)
    assert 0 < int(hidden.sum()) <= 512 // min(map(len, words)) + 2
    assert tensor.suspect and tensor.status == "unverified"
    right = np.ma.getdata(found) == np.array(words, object)
    assert bool((right | hidden).all())


def test_strings_that_are_no_text_are_judged_by_their_sectors_alone() -> None:
    packed = [zlib.compress(RNG.bytes(300)) for _ in range(40)]
    data, spans = b"".join(packed), []
    for one in packed:
        start = spans[-1][1] if spans else 0
        spans.append((start, start + len(one)))
    assert find_odd_strings(data, spans, 0) == ()
    words = [b"word %d" % n for n in range(1000)] + [b"\xff\xfe\0", b"ok"]
    data, spans = b"".join(words), []
    for one in words:
        start = spans[-1][1] if spans else 0
        spans.append((start, start + len(one)))
    assert find_odd_strings(data, spans, 7) == ((1000, 1001),)


def test_strings_in_ranges_are_those_that_share_a_byte_with_one() -> None:
    spans = [(0, 4), (4, 4), (4, 9), (9, 12), (12, 20)]
    assert strings_in([(3, 5)], spans) == ((0, 1), (2, 3))
    assert strings_in([(4, 9), (19, 30)], spans) == ((2, 3), (4, 5))
    assert strings_in([(20, 30)], spans) == ()
    assert strings_in([], spans) == () and strings_in([(0, 9)], []) == ()


@pytest.mark.parametrize("where", ["start", "within", "end"])
def test_a_damaged_object_graph_is_no_sign_of_another_save(where: str, tmp_path: Path) -> None:
    """A sector of noise lies in it, and others in the counters and the weights."""
    rng = np.random.default_rng(4)
    arrays: dict[str, Any] = {
        "step": np.int64(42),
        "rate": np.float32(0.001),
        "bias": rng.normal(size=8).astype(np.float32),
        "kernel": rng.normal(size=(300, 40)).astype(np.float32),
    }
    bundle = builder.Bundle()
    for name, array in arrays.items():
        bundle.add(name, array)
    names = [f"model/layer-{n}/kernel/.ATTRIBUTES/VARIABLE_VALUE" for n in range(60)]
    bundle.add(builder.OBJECT_GRAPH, np.array(builder.flat_object_graph(names), object))
    prefix = Path(bundle.write(tmp_path / "m"))
    data = Path(f"{prefix}.data-00000-of-00001")
    raw = bytearray(data.read_bytes())
    entry = bundle.entries[builder.OBJECT_GRAPH.encode()]
    assert isinstance(entry, builder.Entry) and entry.size > 3000
    first = {"start": 0, "within": 2, "end": entry.size // 512}[where]
    for sector in (0, 40, entry.offset // 512 + first):
        raw[512 * sector : 512 * (sector + 1)] = rng.bytes(512)
    data.write_bytes(raw[: entry.offset + entry.size])
    np.savez(tmp_path / "w.npz", **arrays)
    recovery = ckptparse.recover(prefix, evidence=[tmp_path / "w.npz"])
    assert faults.judge(recovery, arrays).wrong == ()
    assert {name for name, one in recovery.items() if one.status.proved} == set(arrays)
