"""Files of another save lie beside the checkpoint, or are given as evidence, and its index is that
save's, or some of its data files are. Then bytes that agree with the index need not be its own.
"""

from __future__ import annotations

import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import builder
import faults
import numpy as np
import pytest
import two_saves

import ckptparse

SEEDS = [
    3,
    38,
    46,
    54,
    150,
    177,
    206,
    225,
    235,
    258,
    280,
    292,
    303,
    334,
    376,
    394,
    441,
    456,
    481,
    504,
    598,
    824,
    866,
    1587,
    1749,
    3104,
    3172,
    3442,
    3452,
    4174,
    30112,
    31188,
    70309,
    300849,
]


@pytest.mark.parametrize("seed", [*SEEDS, *range(5000, 5040)])
def test_nothing_is_promised_that_is_another_saves(seed: int, tmp_path: Path) -> None:
    case = two_saves.make(seed, tmp_path)
    try:
        recovery = ckptparse.recover(case.prefix, evidence=case.evidence)
    except ckptparse.CheckpointNotFoundError:
        return
    notes = {tensor.note for tensor in recovery.report.tensors.values()}
    assert not [note for note in notes if note.strip("; ") != note or "; ;" in note]
    if case.is_told:
        wrong = [n for n in promised_wrongly(recovery, case.this) if not fits(recovery[n], case)]
        assert wrong == [], case.happened


def promised_wrongly(recovery: ckptparse.Recovery, this: dict[str, Any]) -> list[str]:
    return [one.split(" (")[0] for one in faults.judge(recovery, this).wrong]


def fits(tensor: ckptparse.RecoveredTensor, case: two_saves.Case) -> bool:
    """Tell whether damage left the few bytes, or the fill, of which the other save's index says
    that they are right: `verified` says no more than that they are.
    """
    expected = np.asarray(case.other[tensor.name])
    few = expected.nbytes <= 4 or len(set(expected.tobytes())) == 1
    return tensor.status == "verified" and few and faults.same(tensor.read(), expected)


def arrays_of(seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    made: dict[str, Any] = {f"layer{n}": rng.normal(0, 0.05, (24, 40)) for n in range(6)}
    made = {name: array.astype(np.float32) for name, array in made.items()}
    return {**made, "frozen": np.arange(300, dtype=np.float32) * np.float32(0.01)}


def write(prefix: Path, arrays: dict[str, Any], *, shards: int = 2) -> builder.Bundle:
    made = builder.Bundle()
    made.shards = {n: bytearray() for n in range(shards)}
    for number, (name, array) in enumerate(arrays.items()):
        made.add(name, array, shard=number % shards)
    prefix.parent.mkdir(exist_ok=True)
    made.write(prefix, block_size=300)
    return made


def shard(prefix: Path, number: int, shards: int = 2) -> Path:
    return prefix.parent / f"{prefix.name}.data-{number:05d}-of-{shards:05d}"


def exchange(first: Path, second: Path) -> None:
    one, other = first.read_bytes(), second.read_bytes()
    first.write_bytes(other)
    second.write_bytes(one)


@pytest.mark.parametrize("where", ["sibling", "copy", "data files alone", "npz"])
@pytest.mark.parametrize("swapped", [True, False])
def test_an_index_that_was_copied_from_another_save_promises_none_of_its_values(
    where: str, swapped: bool, tmp_path: Path
) -> None:
    """The index is byte for byte the other save's, and that save is whole beside it."""
    this, other = arrays_of(1), arrays_of(2)
    prefix, evidence = tmp_path / "m-1", tmp_path / "aside"
    write(prefix, this)
    there = tmp_path / "m-2" if where == "sibling" else evidence / "m-1"
    if where == "npz":
        write(tmp_path / "m-2", other)
        evidence = tmp_path / "weights.npz"
        np.savez(evidence, **other)
        shutil.move(tmp_path / "m-2.index", prefix.with_suffix(".index"))
    else:
        write(there, other)
        shutil.copy(f"{there}.index", f"{prefix}.index")
        if where == "data files alone":
            Path(f"{there}.index").unlink()
    if swapped:
        exchange(shard(prefix, 0), shard(prefix, 1))
    given = [] if where == "sibling" else [evidence]
    recovery = ckptparse.recover(prefix, evidence=given)
    for name, tensor in recovery.items():
        if tensor.status.proved or tensor.status == "partial":
            assert faults.is_right_unmasked(tensor, this[name]), (name, tensor.method)
    assert recovery["frozen"].status.proved


def write_in(prefix: Path, shards: list[list[str]], arrays: dict[str, Any]) -> None:
    """Write a save with each tensor in the data file that is asked for."""
    made = builder.Bundle()
    made.shards = {number: bytearray() for number in range(len(shards))}
    for number, names in enumerate(shards):
        for name in names:
            made.add(name, arrays[name], shard=number)
    prefix.parent.mkdir(exist_ok=True)
    made.write(prefix, block_size=300)


def numbered(seed: int) -> dict[str, Any]:
    """Make a save with counters, and with a few weights."""
    few = np.random.default_rng(seed).normal(0, 0.05, 40).astype(np.float32)
    more = {"few": few, "epoch": np.int32(seed), "step": np.int64(1000 * seed)}
    return {**arrays_of(seed), **more}


PLACED = {
    "no entry refers to it": ([[], ["layer0"], ["step"]], {0: 1}),
    "it is as long as another": ([["layer0", "step"], ["few"]], {0: 1}),
    "it is proved to be another": ([["step"], ["frozen", "layer0", "epoch", "layer1"]], {0: 1}),
}


@pytest.mark.parametrize("lent", [True, False])
@pytest.mark.parametrize("where", PLACED)
def test_weights_in_the_place_of_another_data_file_speak_against_the_index(
    where: str, lent: bool, tmp_path: Path
) -> None:
    """The index is another save's, whose values follow from it, or lie in data files aside."""
    shards, moved = PLACED[where]
    this, other, prefix = numbered(1), numbered(2), tmp_path / "m-1"
    write_in(tmp_path / "aside" / "m-1", shards, other)
    write_in(prefix, shards, this)
    count = len(shards)
    shutil.move(tmp_path / "aside" / "m-1.index", f"{prefix}.index")
    held = {number: shard(prefix, number, count).read_bytes() for number in range(count)}
    for number in range(count):
        shard(prefix, number, count).unlink()
    for number, whose in moved.items():
        shard(prefix, number, count).write_bytes(held[whose])
    recovery = ckptparse.recover(prefix, evidence=[tmp_path / "aside"] if lent else [])
    assert promised_wrongly(recovery, this) == []


def test_a_copy_of_another_data_file_does_not_speak_against_the_index(tmp_path: Path) -> None:
    """It is as long as a third one, which is lost; what follows from checksums is promised."""
    this, prefix = numbered(1), tmp_path / "m-1"
    shards = [["epoch", "layer0"], ["layer2", "layer3"], ["layer4", "layer5"], ["step"]]
    write_in(prefix, shards, this)
    shutil.copy(shard(prefix, 1, 4), shard(prefix, 0, 4))
    shard(prefix, 2, 4).unlink()
    shard(prefix, 3, 4).unlink()
    recovery = ckptparse.recover(prefix)
    assert recovery["step"].status == "derived" and recovery["step"].read() == 1000
    assert recovery["epoch"].status == "derived" and recovery["epoch"].read() == 1


def test_of_a_shard_of_another_save_a_copy_is_promised_if_that_save_is_known(
    tmp_path: Path,
) -> None:
    """The other save's index says other things of the whole tensors: the index is not its."""
    this, other = arrays_of(1), arrays_of(2)
    prefix = tmp_path / "m-1"
    write(prefix, this)
    write(tmp_path / "copy" / "m-1", this)
    write(tmp_path / "m-2", other)
    shutil.copy(shard(tmp_path / "m-2", 1), shard(prefix, 1))
    recovery = ckptparse.recover(prefix, evidence=[tmp_path / "copy"])
    for name, array in this.items():
        assert recovery[name].status.proved and faults.same(recovery[name].read(), array), name


def test_of_a_shard_of_an_unknown_save_a_copy_is_offered(tmp_path: Path) -> None:
    """What is whole in the other shard may be frozen layers, and the index the copy's."""
    this, other = arrays_of(1), arrays_of(2)
    prefix = tmp_path / "m-1"
    write(prefix, this)
    write(tmp_path / "copy" / "m-1", this)
    write(tmp_path / "elsewhere" / "m-2", other)
    shutil.copy(shard(tmp_path / "elsewhere" / "m-2", 1), shard(prefix, 1))
    recovery = ckptparse.recover(prefix, evidence=[tmp_path / "copy"])
    for name, array in this.items():
        tensor = recovery[name]
        assert faults.same(tensor.read(), array), name
        if not tensor.status.proved:
            assert "the index may be of another save" in tensor.note
    assert recovery["layer0"].status == "verified"
    assert recovery["layer1"].status == "unverified"


@pytest.mark.parametrize(
    "damage", ["lost", "noise", "zeros", "page", "bits", "cut", "put in", "left out"]
)
def test_a_copy_is_promised_if_what_is_left_is_of_it(damage: str, tmp_path: Path) -> None:
    this, prefix = arrays_of(1), tmp_path / "m-1"
    write(prefix, this, shards=1)
    write(tmp_path / "copy" / "m-1", this, shards=1)
    path, rng = shard(prefix, 0, 1), np.random.default_rng(3)
    raw = path.read_bytes()
    changed = {
        "noise": rng.bytes(len(raw)),
        "zeros": bytes(len(raw)),
        "page": raw[:4096] + rng.bytes(4096) + raw[8192:],
        "cut": raw[:10_000],
        "put in": raw[:5000] + rng.bytes(512) + raw[5000:],
        "left out": raw[:5000] + raw[5512:],
    }
    if damage == "lost":
        path.unlink()
    elif damage == "bits":
        for at in (4000, 5003, 6002, 6006):
            faults.change(path, lambda data, at=at: faults.flip(data, at, 3))
    else:
        path.write_bytes(changed[damage])
    recovery = ckptparse.recover(prefix, evidence=[tmp_path / "copy"])
    for name, array in this.items():
        assert recovery[name].status.proved and faults.same(recovery[name].read(), array), name


def test_a_copy_of_a_large_tensor_is_promised_if_what_is_left_is_of_it(tmp_path: Path) -> None:
    """It is larger than what is compared of a tensor. A counter fails as well."""
    rng = np.random.default_rng(1)
    this: dict[str, Any] = {"large": rng.normal(0, 0.05, 300_000).astype(np.float32)}
    this["step"] = np.int64(1000)
    prefix = tmp_path / "m-1"
    write(prefix, this, shards=1)
    write(tmp_path / "copy" / "m-1", this, shards=1)
    path = shard(prefix, 0, 1)
    raw = path.read_bytes()
    path.write_bytes(raw[:8192] + bytes(4096) + raw[12288:-8] + bytes(8))
    recovery = ckptparse.recover(prefix, evidence=[tmp_path / "copy"])
    assert recovery["large"].status.proved and faults.same(recovery["large"].read(), this["large"])
    assert faults.judge(recovery, this).wrong == ()


def test_small_integers_that_lie_elsewhere_too_promise_nothing(tmp_path: Path) -> None:
    """Three numbers below 10 lie among a thousand such, whichever save they are of."""
    rng = np.random.default_rng(1)
    digits = rng.integers(0, 10, 1000)
    this = {**arrays_of(1), "many": digits, "three": digits[900:903] + 1}
    other = {**arrays_of(2), "many": rng.integers(0, 10, 1000), "three": digits[500:503]}
    write(tmp_path / "m-1", this, shards=1)
    write(tmp_path / "m-2", other, shards=1)
    shutil.move(tmp_path / "m-2.index", tmp_path / "m-1.index")
    (tmp_path / "m-2.data-00000-of-00001").unlink()
    tensor = ckptparse.recover(tmp_path / "m-1").get("three")
    assert tensor is None or not tensor.status.proved


@pytest.mark.parametrize("seed", [31572, 32008, 32164, 32189, 32197, 60012])
def test_evidence_that_proves_nothing_takes_nothing_away(seed: int, tmp_path: Path) -> None:
    """Bytes that agree with the index may be another save's: then they are as if they were not."""
    case = two_saves.make(seed, tmp_path)
    alone = ckptparse.recover(case.prefix, siblings=False)
    beside = ckptparse.recover(case.prefix, evidence=case.evidence)
    proved = {name for name, one in alone.items() if one.status.proved}
    assert any(alone[name].status == "derived" for name in proved)
    assert {name for name, one in beside.items() if one.status.proved} >= proved
    assert promised_wrongly(beside, case.this) == []


@pytest.mark.parametrize("seed", [31861, 32123])
def test_evidence_of_another_save_does_not_have_its_values_derived(
    seed: int, tmp_path: Path
) -> None:
    case = two_saves.make(seed, tmp_path)
    recovery = ckptparse.recover(case.prefix, evidence=case.evidence)
    assert "index of the other" in case.happened
    assert promised_wrongly(recovery, case.this) == []


def statuses_of(recovery: ckptparse.Recovery) -> dict[str, str]:
    return {name: str(one.status) for name, one in recovery.items()}


def test_a_copy_of_another_save_says_nothing_against_the_index(tmp_path: Path) -> None:
    """A data file is lost. That of another save holds frozen layers, and a step of its own."""
    rng = np.random.default_rng(5)
    frozen = {f"layer{n}": rng.normal(size=80).astype(np.float32) for n in range(4)}
    for step, place in ((70123, tmp_path / "m"), (70345, tmp_path / "copy" / "m")):
        made = builder.Bundle()
        made.add("head", rng.normal(size=60).astype(np.float32), shard=0)
        made.add("global_step", np.int64(step), shard=1)
        for name, value in frozen.items():
            made.add(name, value, shard=1)
        made.add("trained", rng.normal(size=30).astype(np.float32), shard=1)
        place.parent.mkdir(exist_ok=True)
        made.write(place)
    (tmp_path / "m.data-00001-of-00002").unlink()
    alone = ckptparse.recover(tmp_path / "m", siblings=False)
    assert alone["global_step"].status == "derived"
    beside = ckptparse.recover(tmp_path / "m", evidence=[tmp_path / "copy"])
    assert beside["layer2"].status == "corrected"
    assert beside["global_step"].status == "derived"
    assert beside["global_step"].read() == 70123


def test_a_page_of_html_is_no_other_save(tmp_path: Path) -> None:
    """The file was cut off in zeros, and goes on with what a server sent at last."""
    rng = np.random.default_rng(6)
    made = builder.Bundle()
    made.add("zeros", np.zeros(1000, np.float32))
    made.add("weights", rng.normal(size=500).astype(np.float32))
    made.add("step", np.int64(12))
    made.write(tmp_path / "m")
    data = tmp_path / "m.data-00000-of-00001"
    evidence = tmp_path / "all.bin"
    evidence.write_bytes(b"some bytes" + data.read_bytes())
    data.write_bytes(data.read_bytes()[:3400] + faults.PAGE_OF_HTML)
    alone = statuses_of(ckptparse.recover(tmp_path / "m"))
    assert alone["zeros"] == alone["step"] == "derived"
    beside = statuses_of(ckptparse.recover(tmp_path / "m", evidence=[evidence]))
    assert beside["zeros"] in ("derived", "corrected") and beside["step"] == "derived"


def test_bits_changed_in_all_small_tensors_are_no_other_save(tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    arrays: dict[str, Any] = {
        "a": np.array([7, 1, 90], np.int8),
        "b": np.array([0.5, 0.25, 3], np.float16),
        "c": rng.integers(-100, 100, 40).astype(np.int8),
        "copy": np.array([7, 1, 90], np.int8),
        "weights": rng.normal(size=300).astype(np.float32),
    }
    made = builder.Bundle()
    for name, value in arrays.items():
        made.add(name, value, shard=int(name in ("copy", "weights")))
    made.write(tmp_path / "m")
    data = tmp_path / "m.data-00000-of-00002"
    np.savez(tmp_path / "all.npz", b=arrays["b"], c=arrays["c"])
    stuck = np.frombuffer(data.read_bytes(), np.uint8).copy()
    stuck[[0, 8, *range(16, len(stuck), 8)]] ^= 64
    data.write_bytes(stuck.tobytes())
    alone = statuses_of(ckptparse.recover(tmp_path / "m"))
    beside = statuses_of(ckptparse.recover(tmp_path / "m", evidence=[tmp_path / "all.npz"]))
    assert alone["a"] == "corrected"
    assert {name for name, one in alone.items() if one in faults.PROVED} <= {
        name for name, one in beside.items() if one in faults.PROVED
    }


def test_stripes_of_the_same_save_are_no_other_save(tmp_path: Path) -> None:
    """What is left of the weights is in a wrong order, and the end of the file is lost."""
    rng = np.random.default_rng(8)
    made = builder.Bundle()
    made.add("emb", rng.normal(size=13_000).astype(np.float32))
    made.add("rate", np.float32(0.03))
    made.add("step", np.int64(70_123))
    (tmp_path / "copy").mkdir()
    for prefix in (tmp_path / "m", tmp_path / "copy" / "m"):
        made.write(prefix)
    data = tmp_path / "m.data-00000-of-00001"
    raw = data.read_bytes()
    order = [1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 10]
    data.write_bytes(b"".join(raw[n * 4096 : n * 4096 + 4096] for n in order))
    alone = ckptparse.recover(tmp_path / "m")
    assert alone["rate"].status == alone["step"].status == "derived"
    beside = ckptparse.recover(tmp_path / "m", evidence=[tmp_path / "copy"])
    assert {str(one.status) for one in beside.values()} <= {"corrected", "derived"}
    assert beside["emb"].read().tobytes() == raw[:52_000]


def test_own_weights_prove_a_damaged_part_of_the_index_that_a_copy_has_too(tmp_path: Path) -> None:
    rng = np.random.default_rng(9)
    values = {f"w{n}": rng.normal(size=3000).astype(np.float32) for n in range(12)}
    made = builder.Bundle()
    for name, value in values.items():
        made.add(name, value)
    (tmp_path / "copy").mkdir()
    for prefix in (tmp_path / "m", tmp_path / "copy" / "m"):
        made.write(prefix, block_size=100)
    start, size = made.table(block_size=100).blocks[1]
    for prefix in (tmp_path, tmp_path / "copy"):
        torn = bytearray((prefix / "m.index").read_bytes())
        torn[start + size // 2 : start + size // 2 + 4] = b"torn"
        (prefix / "m.index").write_bytes(torn)
    data = tmp_path / "m.data-00000-of-00001"
    raw = data.read_bytes()
    data.write_bytes(raw[:15_000] + b"x" + raw[15_000:])
    alone = ckptparse.recover(tmp_path / "m", siblings=False)
    beside = ckptparse.recover(tmp_path / "m", evidence=[tmp_path / "copy"])
    proved = {name for name, one in alone.items() if one.status.proved}
    assert len(proved) > 4
    assert proved <= {name for name, one in beside.items() if one.status.proved}


def test_weights_that_lost_bytes_here_and_there_are_no_other_save(tmp_path: Path) -> None:
    rng = np.random.default_rng(10)
    kept, lost = rng.normal(size=900).astype(np.float32), rng.normal(size=64).astype(np.float32)
    made = builder.Bundle()
    made.add("a", kept)
    made.add("b", lost)
    made.add("rate", np.float32(0.03), shard=1)
    made.write(tmp_path / "m")
    np.savez(tmp_path / "all.npz", b=lost)
    data = tmp_path / "m.data-00000-of-00002"
    raw = data.read_bytes()
    places = [3600 + at for at in (20, 77, 130, 200)]
    edges = [0, *places, len(raw)]
    data.write_bytes(b"".join(raw[at : to - 1] for at, to in pairwise(edges)))
    (tmp_path / "m.data-00001-of-00002").write_bytes(b"\x55" * 4)
    alone = ckptparse.recover(tmp_path / "m")
    assert alone["rate"].status == "derived"
    beside = ckptparse.recover(tmp_path / "m", evidence=[tmp_path / "all.npz"])
    assert {name: str(one.status) for name, one in beside.items()} == {
        "a": "verified",
        "b": "corrected",
        "rate": "derived",
    }
