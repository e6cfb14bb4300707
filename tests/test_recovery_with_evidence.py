"""Evidence never makes less of a recovery: what is promised without it, or is right, stays so."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import builder
import faults
import numpy as np
import pytest

import ckptparse

Arrays = dict[str, Any]
DATA = "m.data-00000-of-00001"


def made(arrays: Mapping[str, Any], *, big: bool = False) -> builder.Bundle:
    bundle = builder.Bundle(big=big)
    for name, array in arrays.items():
        bundle.add(name, array)
    return bundle


def write(
    directory: Path, arrays: Mapping[str, Any], **options: Any
) -> tuple[Path, builder.Bundle]:
    bundle = made(arrays)
    return Path(bundle.write(directory / "m", **options)), bundle


def change(path: Path, start: int, stop: int, new: bytes) -> None:
    data = bytearray(path.read_bytes())
    data[start:stop] = new
    path.write_bytes(data)


def span(bundle: builder.Bundle, name: str) -> tuple[int, int]:
    entry = bundle.entries[name.encode()]
    assert isinstance(entry, builder.Entry)
    return entry.offset, entry.offset + entry.size


def compare(prefix: Path, evidence: Path, arrays: Mapping[str, Any]) -> ckptparse.Recovery:
    """Recover without and with evidence; nothing is false, and nothing is less with it."""
    without, recovery = ckptparse.recover(prefix), ckptparse.recover(prefix, evidence=[evidence])
    for one in (without, recovery):
        assert faults.judge(one, arrays).wrong == ()
    for name, tensor in without.items():
        if tensor.status.proved:
            assert recovery[name].status.proved, recovery[name].note
        assert faults.share_of(recovery[name], arrays[name]) >= faults.share_of(
            tensor, arrays[name]
        ), name
    return recovery


@pytest.mark.parametrize("dtype", ["complex128", "int64"])
def test_damage_of_what_is_no_float_is_seen_if_a_file_has_what_was_there(
    dtype: str, tmp_path: Path
) -> None:
    """Small numbers before it lie in the same page of noise."""
    rng = np.random.default_rng(5)
    arrays: Arrays = {
        "a": np.int32(40_000),
        "b": np.int16(-7),
        "step": np.int64(70_000),
        "large": (rng.normal(size=9000) * 50).astype(dtype),
        "weights": rng.normal(size=(40, 30)).astype(np.float32),
    }
    prefix, _ = write(tmp_path / "own", arrays)
    change(tmp_path / "own" / DATA, 0, 4096, rng.bytes(4096))
    np.savez(tmp_path / "w.npz", **arrays)
    recovery = compare(prefix, tmp_path / "w.npz", arrays)
    assert {str(one.status) for one in recovery.values()} <= {"verified", "corrected", "derived"}


@pytest.mark.parametrize("lost", [1, 4, 512])
def test_what_lies_behind_lost_bytes_stays_promised(lost: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(6)
    arrays: Arrays = {
        "frozen": rng.normal(size=(30, 30)).astype(np.float32),
        "torn": rng.integers(0, 1 << 45, 900),
        "step": np.int64((1 << 33) + 5),
        "flags": np.array([1, 2, 3], np.int8),
    }
    prefix, bundle = write(tmp_path / "own", arrays)
    start, _ = span(bundle, "torn")
    change(tmp_path / "own" / DATA, start + 1000, start + 1000 + lost, b"")
    np.savez(tmp_path / "w.npz", **arrays)
    compare(prefix, tmp_path / "w.npz", arrays)


@pytest.mark.parametrize("lost", ["file", "end"])
def test_a_damaged_index_is_believed_beside_the_same_checkpoint_elsewhere(
    lost: str, tmp_path: Path
) -> None:
    rng = np.random.default_rng(7)
    arrays: Arrays = {
        f"layer{n:02}": rng.normal(size=(20, 20)).astype(np.float32) for n in range(20)
    }
    arrays |= {"step": np.int64(7), "training": np.bool_(True)}
    prefix, bundle = write(tmp_path / "own", arrays, block_size=300)
    bundle.write(tmp_path / "elsewhere" / "other", block_size=300)
    index = Path(f"{prefix}.index")
    change(index, 400, 400, bytes(4))
    data = tmp_path / "own" / DATA
    if lost == "file":
        data.unlink()
    else:
        change(data, 9000, data.stat().st_size, b"")
    recovery = compare(prefix, tmp_path / "elsewhere", arrays)
    assert recovery["step"].status.proved and recovery["layer00"].status.proved


@pytest.mark.parametrize("damage", ["put in", "zeros", "stripes"])
@pytest.mark.parametrize("dtype", ["uint64", "int32", "float32"])
def test_a_worse_copy_does_not_replace_what_is_there(
    damage: str, dtype: str, tmp_path: Path
) -> None:
    """Integers that lie beside their place look as right as others, and so do zeros."""
    rng = np.random.default_rng(8)
    arrays: Arrays = {
        "large": (rng.normal(size=6400) * 1000).astype(dtype),
        "kernel": rng.normal(size=(40, 30)).astype(np.float32),
        "step": np.int64(7),
    }
    prefix, bundle = write(tmp_path / "own", arrays)
    bundle.write(tmp_path / "copy" / "m")
    start, stop = span(bundle, "large")
    change(tmp_path / "own" / DATA, 3 * 4096, 3 * 4096 + 512, rng.bytes(512))
    copy = tmp_path / "copy" / DATA
    whole = copy.read_bytes()
    if damage == "put in":
        change(copy, start + 2000, start + 2000, rng.bytes(16))
    elif damage == "zeros":
        change(copy, start + 1000, stop, bytes(stop - start - 1000))
    else:
        pages = [whole[n : n + 512] for n in range(start, stop - 511, 512)]
        order = rng.permutation(len(pages))
        change(copy, start, start + 512 * len(pages), b"".join(pages[n] for n in order))
    compare(prefix, tmp_path / "copy", arrays)


def test_what_follows_from_a_checksum_is_better_than_a_copy_that_fails(tmp_path: Path) -> None:
    """The index may be of another save: neither is promised."""
    rng = np.random.default_rng(9)
    arrays: Arrays = {"flags": np.array([True, False, True])}
    other = {"kernel": rng.normal(size=(40, 30)).astype(np.float32)}
    bundle = builder.Bundle()
    bundle.add("flags", arrays["flags"])
    bundle.add("kernel", other["kernel"], shard=1)
    bundle.add("step", np.int64(900), shard=1)
    prefix = Path(bundle.write(tmp_path / "own" / "m"))
    bundle.write(tmp_path / "copy" / "m")
    (tmp_path / "own" / "m.data-00000-of-00002").unlink()
    weights = rng.normal(size=(40, 30)).astype(np.float32).tobytes()
    change(tmp_path / "own" / "m.data-00001-of-00002", 0, len(weights), weights)
    change(tmp_path / "copy" / "m.data-00000-of-00002", 0, 3, bytes([0, 0, 1]))
    tensor = ckptparse.recover(prefix, evidence=[tmp_path / "copy"])["flags"]
    assert tensor.read().tolist() == [True, False, True]


def test_a_checksum_of_a_damaged_index_that_is_nearly_right_replaces_no_bytes(
    tmp_path: Path,
) -> None:
    rng = np.random.default_rng(10)
    arrays: Arrays = {
        "rate": np.float32(0.01),
        "step": np.int64(70_000),
        "kernel": rng.normal(size=(40, 30)).astype(np.float32),
    }
    prefix, bundle = write(tmp_path / "own", arrays)
    index = Path(f"{prefix}.index")
    raw = index.read_bytes()
    for name in ("rate", "step"):
        entry = bundle.entries[name.encode()]
        assert isinstance(entry, builder.Entry) and entry.crc is not None
        at = raw.index(builder.fixed32(entry.crc))
        change(index, at + 1, at + 2, bytes([raw[at + 1] ^ 0x5A]))
    start, _ = span(bundle, "kernel")
    change(tmp_path / "own" / DATA, start + 512, start + 600, rng.bytes(88))
    with zipfile.ZipFile(tmp_path / "w.zip", "w") as archive:
        archive.writestr("x", bytes(bundle.shards[0]))
    recovery = compare(prefix, tmp_path / "w.zip", arrays)
    for name in ("rate", "step"):
        assert faults.same(recovery[name].read(), arrays[name])
        assert "may state it wrong" in recovery[name].note


@pytest.mark.parametrize("at", [20, 72, 132, 144])
def test_small_numbers_of_a_shifted_file_are_read_where_the_others_lie(
    at: int, tmp_path: Path
) -> None:
    """The index is damaged in one place, at the number's own entry or another's, and one tensor
    has another checksum: the index may be of another save. The number is the last in its file.
    """
    rng = np.random.default_rng(3)
    bundle = builder.Bundle()
    bundle.shards = {0: bytearray(), 1: bytearray()}
    bundle.add("first", rng.integers(0, 2, 1152).astype(np.uint8))
    bundle.add("second", rng.normal(size=5637).astype(np.float16))
    bundle.add("flags", np.arange(5), shard=1)
    bundle.add("more", rng.normal(size=1000).astype(np.float32), shard=1)
    bundle.add("step", np.int64(1000))
    bundle.change("flags", crc=77)
    prefix = Path(bundle.write(tmp_path / "own" / "m"))
    change(Path(f"{prefix}.index"), at, at + 8, bytes(8))
    change(tmp_path / "own" / "m.data-00000-of-00002", 42, 42, b"?")
    with zipfile.ZipFile(tmp_path / "w.zip", "w") as archive:
        for name, data in bundle.files("other").items():
            archive.writestr(name, data)
    tensor = ckptparse.recover(prefix, evidence=[tmp_path / "w.zip"])["step"]
    assert int(tensor.read()) == 1000, tensor.note


def test_what_lies_elsewhere_in_its_own_file_is_offered_whatever_else_has_it(
    tmp_path: Path,
) -> None:
    """The note says where it lies, so these bytes are offered, not those at its place."""
    rng = np.random.default_rng(12)
    arrays: Arrays = {
        "first": rng.normal(size=(60, 40)).astype(np.float32),
        "second": rng.normal(size=(60, 40)).astype(np.float32),
        "step": np.int64((1 << 33) + 9),
        "third": rng.normal(size=(60, 40)).astype(np.float32),
    }
    prefix, bundle = write(tmp_path / "own", arrays)
    bundle.write(tmp_path / "copy" / "m")
    data = tmp_path / "own" / DATA
    raw = data.read_bytes()
    pieces = [raw[n : n + 4096] for n in range(0, len(raw) // 4096 * 4096, 4096)]
    order = [4, 2, 0, 6, 1, 3, 5]
    data.write_bytes(b"".join(pieces[n] for n in order) + raw[len(pieces) * 4096 :])
    change(tmp_path / "copy" / DATA, 512, 1024, rng.bytes(512))
    recovery = ckptparse.recover(prefix, evidence=[tmp_path / "copy"])
    tensor = recovery["step"]
    assert faults.same(tensor.read(), arrays["step"]), tensor.note


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_stripes_in_a_wrong_order_are_no_other_save(dtype: str, tmp_path: Path) -> None:
    """At the place of each tensor lie weights that the evidence has of others."""
    rng = np.random.default_rng(13)
    arrays: Arrays = {
        f"layer{n}": rng.normal(0, 0.05, (70, 40)).astype(dtype) for n in range(6)
    } | {"rate": np.float16(0.01), "zeros": np.zeros(900, np.float32)}
    prefix, _ = write(tmp_path / "own", arrays)
    data = tmp_path / "own" / DATA
    raw = data.read_bytes()
    count = len(raw) // 512
    pieces = [raw[512 * n : 512 * (n + 1)] for n in rng.permutation(count)]
    data.write_bytes(b"".join(pieces) + raw[512 * count :])
    np.savez(tmp_path / "w.npz", **arrays)
    recovery = compare(prefix, tmp_path / "w.npz", arrays)
    assert {str(recovery[f"layer{n}"].status) for n in range(6)} == {"corrected"}


def test_stripes_of_another_save_in_a_wrong_order_prove_nothing(tmp_path: Path) -> None:
    """The index was copied with the evidence; half of the tensors are the same in both saves."""
    saves = []
    for seed in (14, 15):
        rng, frozen = np.random.default_rng(seed), np.random.default_rng(0)
        saves.append(
            {
                f"layer{n}": (frozen if n % 2 else rng).normal(size=(70, 40)).astype(np.float32)
                for n in range(6)
            }
        )
    this, other = saves
    prefix, _ = write(tmp_path / "own", other)
    raw = bytes(made(this).shards[0])
    pieces = [raw[n : n + 512] for n in range(0, len(raw) - 511, 512)]
    order = np.random.default_rng(1).permutation(len(pieces))
    data = tmp_path / "own" / DATA
    data.write_bytes(b"".join(pieces[n] for n in order) + raw[512 * len(pieces) :])
    np.savez(tmp_path / "w.npz", **other)
    recovery = ckptparse.recover(prefix, evidence=[tmp_path / "w.npz"])
    assert faults.judge(recovery, this).wrong == ()


def test_slices_that_are_offered_without_proof_are_not_said_to_be_lost(tmp_path: Path) -> None:
    """The block of the index that describes them is damaged; the evidence has their bytes."""
    rng = np.random.default_rng(16)
    array = rng.normal(size=(40, 30)).astype(np.float32)
    bundle = builder.Bundle()
    bundle.add_sliced("parted", array, builder.split_rows(40, 2, 2))
    bundle.add("z", rng.normal(size=50).astype(np.float32))
    prefix = Path(bundle.write(tmp_path / "own" / "m"))
    raw = Path(f"{prefix}.index").read_bytes()
    change(Path(f"{prefix}.index"), raw.index(b"z") + 8, raw.index(b"z") + 10, b"\x55\xaa")
    for at in (600, 3000):
        change(tmp_path / "own" / DATA, at, at + 80, rng.bytes(80))
    with zipfile.ZipFile(tmp_path / "w.zip", "w") as archive:
        archive.writestr("x", bytes(bundle.shards[0]))
    tensor = ckptparse.recover(prefix, evidence=[tmp_path / "w.zip"])["parted"]
    assert tensor.status == "unverified" and faults.same(tensor.read(), array)
    assert "0 of 2 slices are proved" in tensor.note and "got back" not in tensor.note


@pytest.mark.parametrize("size", [16, 512])
def test_a_constant_beside_bytes_that_moved_is_no_other_save(size: int, tmp_path: Path) -> None:
    """What lies at its place are the last bytes of the tensor before it, and then it."""
    rng = np.random.default_rng(17)
    arrays: Arrays = {
        "large": rng.normal(size=5513).astype(np.float32),
        "zeros": np.zeros((30, 37), np.float32),
        "weights": rng.normal(size=(40, 40)).astype(np.float32),
    }
    prefix, bundle = write(tmp_path / "own", arrays)
    data = tmp_path / "own" / DATA
    raw = bytearray(data.read_bytes())
    for at in (2000, 9000, 20_000, span(bundle, "zeros")[0] + 77):
        raw[at] ^= 4
    data.write_bytes(raw[:12_000] + rng.bytes(size) + raw[12_000:])
    np.savez(tmp_path / "w.npz", **arrays)
    recovery = compare(prefix, tmp_path / "w.npz", arrays)
    assert all(tensor.status.proved for tensor in recovery.values())


def test_slices_that_no_index_describes_are_not_said_to_be_damaged(tmp_path: Path) -> None:
    """Nothing is known of them; what is said of all of them is said once."""
    rng = np.random.default_rng(18)
    array = rng.normal(size=(60, 30)).astype(np.float32)
    for name, damaged in (("own", True), ("other", False)):
        bundle = builder.Bundle()
        bundle.add_sliced("parted", array if damaged else array + 1, builder.split_rows(60, 3, 2))
        bundle.write(tmp_path / name / "m")
    (tmp_path / "own" / "m.index").unlink()
    change(tmp_path / "own" / DATA, 1024, 1536, bytes(512))
    tensor = ckptparse.recover(tmp_path / "own" / "m", evidence=[tmp_path / "other"])["parted"]
    assert tensor.note.startswith("no index describes it; ")
    assert tensor.note.count("no index describes it") == 1
    assert "128 of its" in tensor.note or "elements look wrong" in tensor.note
