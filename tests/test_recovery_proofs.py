"""A proof wins over a guess, what is there is offered, and the longest chain of keys is kept."""

from __future__ import annotations

import base64
import gzip
import random
import shutil
import warnings
from pathlib import Path
from typing import Any

import builder
import faults
import numpy as np
import pytest
import v1_builder
from crc32c import crc32c
from packages import ml_dtypes

import ckptparse
from ckptparse.crc.inversion import derive_bools, derive_tail
from ckptparse.examination.payload import Payload
from ckptparse.examination.readers import DataFile
from ckptparse.examination.resuming import longest_rising
from ckptparse.inventory.survey import Origin
from ckptparse.recovery.inferences import values_as_text
from ckptparse.recovery.offering import zero_runs


def bundle(arrays: dict[str, Any]) -> builder.Bundle:
    made = builder.Bundle()
    for name, array in arrays.items():
        made.add(name, array)
    return made


def data_of(prefix: Path) -> Path:
    return Path(f"{prefix}.data-00000-of-00001")


# ------------------------------------------------------------------------------- proofs and guesses


@pytest.mark.parametrize(
    ("left", "said"),
    [
        (None, "its bytes are lost: its checksum"),
        (0, "its bytes are lost: its checksum"),
        (2, "not all of its bytes are there: its checksum"),
        (4, "its stored bytes were not used: its checksum"),
    ],
)
def test_what_is_said_of_lost_bytes_does_not_contradict_the_bytes(
    left: int | None, said: str, tmp_path: Path
) -> None:
    bundle({"rate": np.float32(0.3)}).write(tmp_path / "m")
    data_of(tmp_path / "m").unlink()
    if left is not None:
        data_of(tmp_path / "m").write_bytes(b"\xffabc"[:left])
    tensor = ckptparse.recover(tmp_path / "m")["rate"]
    assert tensor.status == "derived" and tensor.read() == np.float32(0.3)
    assert tensor.note.startswith(said)


def test_no_counter_above_32_bits_is_derived_wrongly(tmp_path: Path) -> None:
    rng = random.Random(1)
    arrays = {
        f"n{number}/global_step": np.int64(rng.randrange(1 << 32, 1 << 62)) for number in range(300)
    }
    bundle(arrays).write(tmp_path / "m")
    data_of(tmp_path / "m").unlink()
    recovery = ckptparse.recover(tmp_path / "m")
    for name, value in arrays.items():
        tensor = recovery.get(name)
        if tensor is not None and tensor.status.proved:
            assert tensor.read() == value
        assert tensor is None or tensor.status == "unverified"


def test_many_lost_counters_share_the_bound_of_one(tmp_path: Path) -> None:
    """Of these 900 counters above 2**32 two have the checksum of a number below 2**22."""
    rng = np.random.default_rng(770)
    made = builder.Bundle()
    for number in range(900):
        made.add(f"counter{number}", np.array(int(rng.integers(1 << 32, 1 << 62))))
    made.add("small", np.array(7))
    made.write(tmp_path / "model")
    (tmp_path / "model.data-00000-of-00001").unlink()
    recovery = ckptparse.recover(tmp_path / "model", limits=ckptparse.Limits(attempts=1000))
    assert [name for name, one in recovery.items() if one.status == "derived"] == ["small"]
    assert (recovery["small"].read(), recovery["small"].chance) == (7, 2.0**-29)


def test_a_counter_is_derived_if_the_name_of_the_checkpoint_says_the_same(tmp_path: Path) -> None:
    step = (3 << 32) + 12345
    bundle({"global_step": np.int64(step), "other": np.int64(step + 1)}).write(
        tmp_path / f"m-{step}"
    )
    data_of(tmp_path / f"m-{step}").unlink()
    recovery = ckptparse.recover(tmp_path / f"m-{step}")
    tensor = recovery["global_step"]
    assert tensor.status == "derived" and tensor.read() == step
    assert tensor.chance is not None and tensor.chance < 1e-6
    assert recovery["other"].status == "unverified"


def test_a_counter_is_derived_from_what_it_is_in_checkpoints_beside(tmp_path: Path) -> None:
    for step in (100, 200, 300):
        arrays = {"examples": np.int64((1 << 40) + 7_000_001 * step)}
        bundle(arrays).write(tmp_path / f"m-{step}")
    data_of(tmp_path / "m-200").unlink()
    tensor = ckptparse.recover(tmp_path / "m-200")["examples"]
    assert tensor.status == "derived" and tensor.read() == (1 << 40) + 7_000_001 * 200
    assert "checkpoints beside" in str(tensor.method)


@pytest.mark.parametrize("value", [1 << 40, 5_000_000_000, 77])
def test_a_changed_byte_is_corrected_before_a_number_is_guessed(value: int, tmp_path: Path) -> None:
    bundle({"n": np.int64(value), "w": np.arange(9.0)}).write(tmp_path / "m")
    faults.change(data_of(tmp_path / "m"), lambda data: data.__setitem__(2, data[2] ^ 0x5A))
    tensor = ckptparse.recover(tmp_path / "m")["n"]
    assert tensor.read() == value
    assert tensor.status.proved and tensor.chance is not None and tensor.chance < 1e-3


def test_a_cut_number_is_solved_for_before_it_is_guessed(tmp_path: Path) -> None:
    bundle({"n": np.int64(1 << 40)}).write(tmp_path / "m")
    data_of(tmp_path / "m").write_bytes(data_of(tmp_path / "m").read_bytes()[:-2])
    tensor = ckptparse.recover(tmp_path / "m")["n"]
    assert tensor.status == "corrected" and tensor.read() == 1 << 40


@pytest.mark.parametrize("count", [5, 12, 22])
def test_up_to_22_bools_come_back_from_the_index_alone(count: int, tmp_path: Path) -> None:
    value = np.random.default_rng(count).random(count) < 0.5
    bundle({"mask": value}).write(tmp_path / "m")
    data_of(tmp_path / "m").unlink()
    tensor = ckptparse.recover(tmp_path / "m")["mask"]
    assert tensor.status == "derived" and faults.same(tensor.read(), value)
    assert tensor.chance == 2.0 ** (count - 32)


def test_more_bools_have_no_value_that_a_checksum_proves() -> None:
    assert derive_bools(123456789, 23) is None
    fitting = sum(derive_bools(crc, 22) is not None for crc in range(10_000))
    assert fitting <= 40  # one in 1,024 is expected


@pytest.mark.parametrize("kind", ["gzip", "noise"])
def test_noise_is_never_corrected(kind: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(8)
    arrays = {f"w{n:03}": rng.normal(size=500 + n).astype(np.float32) for n in range(200)}
    bundle(arrays).write(tmp_path / "m")
    data = data_of(tmp_path / "m").read_bytes()
    packed = gzip.compress(data, 1)[20:] if kind == "gzip" else rng.bytes(len(data))
    data_of(tmp_path / "m").write_bytes(packed.ljust(len(data), b"\x55")[: len(data)])
    recovery = ckptparse.recover(tmp_path / "m")
    assert not [name for name, tensor in recovery.items() if tensor.status.proved]
    for name, tensor in recovery.report.tensors.items():
        assert tensor.status in ("corrupt", "unverified"), name


# ------------------------------------------------------------------------------- what is there


def test_one_bad_sector_costs_a_sector(tmp_path: Path) -> None:
    value = np.random.default_rng(1).normal(size=100_000).astype(np.float32)
    bundle({"w": value}).write(tmp_path / "m")
    noise = np.random.default_rng(2).bytes(512)
    faults.change(data_of(tmp_path / "m"), lambda d: d.__setitem__(slice(51200, 51712), noise))
    tensor = ckptparse.recover(tmp_path / "m")["w"]
    assert tensor.status == "unverified" and tensor.suspect == ((12800, 12928),)
    found = tensor.read()
    hidden = np.ma.getmaskarray(found)
    assert hidden.sum() == 128 and (np.ma.getdata(found)[~hidden] == value[~hidden]).all()
    assert tensor.read(keep_suspect=True)[12800:12928].tobytes() == noise


@pytest.mark.parametrize(
    ("zeros", "marked"),
    [
        (range(1024, 1536), True),  # a sector
        (range(1000, 2048), True),  # the end of a run of bytes that never came
        (range(512, 1800), True),
        (range(1000, 2000), False),  # neither begins nor ends where a sector does
        (range(1024, 1500), False),  # no sector
        (range(100, 1100), False),
        (range(700), True),  # the payload's own begin
        (range(3500, 4096), True),
    ],
    ids=str,
)
def test_zeros_that_begin_or_end_with_a_sector_look_lost(zeros: range, marked: bool) -> None:
    data = bytearray(b"\1" * 4096)
    data[zeros.start : zeros.stop] = bytes(len(zeros))
    payload = Payload(1, (1024,), DataFile("x"), 0, 4096, 1, True, "", 0.0, "x.index", Origin.FINAL)
    found = zero_runs(memoryview(data), payload)
    assert found == (((zeros.start, zeros.stop),) if marked else ())


def test_a_mixed_save_gives_every_tensor_of_its_data(tmp_path: Path) -> None:
    def values(step: int) -> dict[str, Any]:
        rng = np.random.default_rng(step)
        trained = {f"w{n}": rng.normal(size=300).astype(np.float32) for n in range(9)}
        return {"rate": np.float32(step / 100), **trained, "zeros": np.zeros(50, np.float32)}

    bundle(values(1)).write(tmp_path / "m")
    other = bundle(values(2)).write(tmp_path / "elsewhere")
    shutil.move(data_of(other), data_of(tmp_path / "m"))
    Path(f"{other}.index").unlink()
    recovery = ckptparse.recover(tmp_path / "m")
    assert recovery["zeros"].status == "verified"
    for name, value in values(2).items():
        assert faults.same(recovery[name].read(), value), name
        assert name == "zeros" or recovery[name].status == "unverified"
    assert "in the save that wrote the index it is 0.01" in recovery["rate"].note


def test_zeros_of_its_own_keep_no_tensor_from_being_corrected(tmp_path: Path) -> None:
    value = np.zeros((100, 256), np.float32)
    value[::10] = np.random.default_rng(1).normal(size=(10, 256))
    bundle({"slot": value}).write(tmp_path / "m")
    faults.change(data_of(tmp_path / "m"), lambda data: faults.flip(data, 30721, 3))
    report = ckptparse.verify(tmp_path / "m")
    assert report.tensors["slot"].cause == "bits"
    recovery = ckptparse.recover(tmp_path / "m")
    tensor = recovery["slot"]
    assert tensor.status == "corrected" and faults.same(tensor.read(), value)
    assert tensor.note.startswith("flipping bit 3 of byte 30721 back makes the checksum agree; ")
    assert tensor.note.endswith("the chance that this is wrong is 1 in 5,200")
    said = " ".join(str(recovery).split())
    assert said.count("the chance that this is wrong is 1 in 5,200") == 1
    assert said.count("bit 3 of byte 30721") == 1


def test_eight_byte_tensors_are_found_in_a_file_that_has_moved(tmp_path: Path) -> None:
    arrays = {f"n{n}": np.float64(np.random.default_rng(n).normal()) for n in range(6)}
    bundle(arrays).write(tmp_path / "m")
    data_of(tmp_path / "m").write_bytes(b"abcde" + data_of(tmp_path / "m").read_bytes())
    recovery = ckptparse.recover(tmp_path / "m")
    for name, value in arrays.items():
        assert recovery[name].status == "corrected" and recovery[name].read() == value
        assert recovery[name].cause == "shifted"


@pytest.mark.parametrize("kind", ["line feeds", "latin-1", "base64"])
def test_a_damaged_tensor_of_a_converted_file_is_offered_as_it_was(
    kind: str, tmp_path: Path
) -> None:
    rng = np.random.default_rng(6)
    arrays = {f"layer_{n}": rng.normal(0, 0.05, (16, 256)).astype(np.float32) for n in range(4)}
    bundle(arrays).write(tmp_path / "m")
    raw = bytearray(data_of(tmp_path / "m").read_bytes())
    raw[2 * 16384 + 1024 : 2 * 16384 + 1536] = bytes(512)
    changed = {
        "line feeds": raw.replace(b"\n", b"\r\n"),
        "latin-1": raw.decode("latin-1").encode(),
        "base64": base64.encodebytes(raw),
    }
    data_of(tmp_path / "m").write_bytes(changed[kind])
    recovery = ckptparse.recover(tmp_path / "m")
    tensor = recovery["layer_2"]
    assert tensor.status == "unverified" and tensor.cause == "text"
    assert tensor.suspect == ((256, 384),)
    lost = tensor.read().mask.reshape(-1)
    assert lost.sum() == 128
    assert (np.ma.getdata(tensor.read()).reshape(-1) == arrays["layer_2"].reshape(-1))[~lost].all()
    assert all(recovery[name].status.proved for name in arrays if name != "layer_2")


# ------------------------------------------------------------------------------- damaged indexes


@pytest.mark.parametrize("kind", ["line feeds", "packed", "a copy", "swapped"])
def test_bytes_with_their_checksum_are_offered_though_the_entry_is_not_proved(
    kind: str, tmp_path: Path
) -> None:
    rng = np.random.default_rng(4)
    arrays = {f"layer_{n}": rng.normal(0, 0.05, (16, 256)).astype(np.float32) for n in range(4)}
    made = builder.Bundle()
    for number, (name, array) in enumerate(arrays.items()):
        made.add(name, array, shard=number % 2)
    made.write(tmp_path / "a" / "m")
    index = tmp_path / "a" / "m.index"
    data = bytearray(index.read_bytes())
    end = faults.data_end(bytes(data))
    data[end - 4 : end] = b"lost"  # the checksum of the only block
    index.write_bytes(data)
    paths = [tmp_path / "a" / f"m.data-0000{n}-of-00002" for n in range(2)]
    evidence = []
    if kind == "line feeds":
        paths[0].write_bytes(paths[0].read_bytes().replace(b"\n", b"\r\n"))
    elif kind == "packed":
        paths[0].write_bytes(gzip.compress(paths[0].read_bytes()))
    elif kind == "a copy":
        shutil.copytree(tmp_path / "a", tmp_path / "b")
        faults.change(paths[0], lambda data: data.__setitem__(slice(512, 1024), bytes(512)))
        copied = tmp_path / "b" / paths[0].name
        faults.change(copied, lambda data: data.__setitem__(slice(2048, 2560), bytes(512)))
        evidence = [tmp_path / "b"]
    else:
        first, second = (path.read_bytes() for path in paths)
        paths[0].write_bytes(second)
        paths[1].write_bytes(first)
    recovery = ckptparse.recover(tmp_path / "a" / "m", evidence=evidence)
    for name, array in arrays.items():
        assert recovery[name].status == "unverified" and not recovery[name].suspect
        assert (recovery[name].read() == array).all()


def many(directory: Path, count: int = 320) -> tuple[Path, dict[str, Any]]:
    arrays = {f"layer_{n:03}/kernel": np.full(3, n + 0.5, np.float32) for n in range(count)}
    bundle(arrays).write(directory / "m", block_size=1 << 20)
    return directory / "m.index", arrays


@pytest.mark.parametrize("new", [b"zz", b"AA"], ids=["upwards", "downwards"])
def test_two_bytes_of_a_key_cost_the_entries_that_share_it_and_no_more(
    new: bytes, tmp_path: Path
) -> None:
    index, arrays = many(tmp_path)
    data = index.read_bytes()
    at = data.index(b"layer_031/kernel")  # a restart, which is written in full
    index.write_bytes(data[:at] + new + data[at + 2 :])
    recovery = ckptparse.recover(tmp_path / "m")
    assert len(set(arrays) & set(recovery)) >= 320 - 16
    assert not set(recovery) - set(arrays), "a name was made up"


@pytest.mark.parametrize("whole", [True, False], ids=["data whole", "data damaged too"])
def test_damaged_copies_of_an_index_are_merged(whole: bool, tmp_path: Path) -> None:
    index, arrays = many(tmp_path)
    (tmp_path / "copy").mkdir()
    data = index.read_bytes()
    paths = [index, tmp_path / "copy" / "rescued.bin"]
    for path, places in zip(paths, ((700, 730, 3000), (1500, 1600, 4000)), strict=True):
        damaged = bytearray(data)
        for place in places:
            damaged[place] ^= 0x55
        path.write_bytes(damaged)
    if not whole:
        faults.change(data_of(tmp_path / "m"), lambda data: data.__setitem__(5, data[5] ^ 4))
    recovery = ckptparse.recover(tmp_path / "m", evidence=[tmp_path / "copy"])
    assert set(recovery) == set(arrays)
    for name, tensor in recovery.items():
        assert tensor.status in ("corrected", "derived") and (tensor.chance or 0) < 1e-3
        assert (tensor.read() == arrays[name]).all()
    tensor = recovery["layer_100/kernel"]
    assert str(tensor.method).startswith("merging damaged copies of m.index")
    assert tensor.evidence[0].rule == "merged"
    assert tensor.patches[0].path == str(index)


def test_an_index_of_another_save_is_no_copy(tmp_path: Path) -> None:
    index, arrays = many(tmp_path)
    bundle({name: array + 1 for name, array in arrays.items()}).write(
        tmp_path / "other", block_size=1 << 20
    )
    faults.change(index, lambda data: data.__setitem__(slice(700, 703), b"\0\0\0"))
    recovery = ckptparse.recover(tmp_path / "m", evidence=[tmp_path / "other.index"])
    sure = [tensor for tensor in recovery.values() if tensor.status.proved]
    assert all((tensor.read() == arrays[tensor.name]).all() for tensor in sure)
    assert not any("merging" in str(tensor.method) for tensor in recovery.values())


def test_the_longest_chain_that_rises_is_kept() -> None:
    keys = [b"a", b"x", b"y", b"b", b"c", b"d", b"d", b"c", b"e"]
    assert [keys[n] for n in longest_rising(keys)] == [b"a", b"b", b"c", b"d", b"e"]
    assert longest_rising([]) == []


def test_every_whole_entry_of_a_cut_index_is_found(tmp_path: Path) -> None:
    index, arrays = many(tmp_path, 12)
    data = index.read_bytes()
    sizes = []
    for size in range(20, faults.data_end(data), 3):
        index.write_bytes(data[:size])
        found = ckptparse.recover(tmp_path / "m")
        assert not set(found) - set(arrays)
        sizes.append(len(found))
    assert sizes == sorted(sizes), "an entry that a shorter index gives is lost in a longer one"
    assert sizes[-1] >= 11


def test_an_index_is_known_under_any_name_and_its_data_too(tmp_path: Path) -> None:
    oracle = faults.write_run(tmp_path / "run", siblings=False)
    files = faults.Files(tmp_path / "run")
    lost = tmp_path / "lost+found"
    lost.mkdir()
    shutil.copy(files.index, lost / "f0001.ext")
    shutil.copy(files.shard(0), lost / "f0002.ext")
    shutil.copy(files.shard(1), lost / "#778")
    recovery = ckptparse.recover(lost / "f0001.ext")
    assert set(recovery) == set(oracle)
    for name, tensor in recovery.items():
        assert tensor.status == "corrected" and faults.same(tensor.read(), oracle[name])
    report = ckptparse.verify(lost / "f0001.ext")
    assert not report.ok and len(report.tensors) == len(oracle)
    with pytest.raises(ckptparse.CheckpointError):
        ckptparse.open(lost / "f0001.ext")


def test_a_v1_file_with_compressed_blocks_is_known_though_it_is_cut(tmp_path: Path) -> None:
    file = v1_builder.LegacyFile()
    arrays = {f"w{n}": np.full(2000, n, np.float32) for n in range(8)}
    for name, array in arrays.items():
        file.add(name, array)
    data = file.data(block_size=4096, type=builder.SNAPPY)
    (tmp_path / "m").write_bytes(data[: len(data) * 2 // 3])
    recovery = ckptparse.recover(tmp_path / "m")
    assert len(recovery) >= 4
    for name, tensor in recovery.items():
        assert tensor.status == "verified" and faults.same(tensor.read(), arrays[name])


def test_leftovers_that_contradict_each_other_are_said_and_all_can_be_had(tmp_path: Path) -> None:
    folder = tmp_path / "m_temp"
    folder.mkdir()
    for number in (0, 1):
        part = {"twice": np.float64(number + 0.5), f"own{number}": np.ones(9), "same": np.ones(4)}
        bundle(part).write(folder / f"part-{number:05d}-of-00002")
    recovery = ckptparse.recover(tmp_path / "m")
    problems = {problem.code: problem for problem in recovery.report.problems}
    assert problems["leftover.conflict"].where == "twice"
    assert recovery["twice"].status == "unverified" and recovery["same"].status == "verified"
    assert [float(one.read()) for one in recovery.alternatives["twice"]] == [0.5, 1.5]
    assert set(recovery.alternatives) == {"twice"}


@pytest.mark.parametrize("big", [False, True])
def test_a_checkpoint_of_another_byte_order_proves_no_values(tmp_path: Path, big: bool) -> None:
    rng = np.random.default_rng(0)
    arrays = {
        "a/step": np.int64(2_000_006),
        "b/half": rng.normal(size=300).astype("<f2"),
        "c/kernel": rng.normal(size=(40, 20)).astype("<f4"),
        "d/double": rng.normal(size=50),
        "e/ids": np.arange(500, dtype=np.int32),
    }
    for step, order in ((1, False), (2, big)):
        bundle = builder.Bundle(big=order)
        for name, array in arrays.items():
            bundle.add(name, array)
        bundle.write(tmp_path / f"ckpt-{step}")
    index = bytearray((tmp_path / "ckpt-2.index").read_bytes())
    # The header is lost, and with it the checksum of the block.
    index[3:9] = b"\xff" * 6
    (tmp_path / "ckpt-2.index").write_bytes(index)
    recovery = ckptparse.recover(tmp_path / "ckpt-2")
    found = [name for name in arrays if name in recovery]
    assert len(found) >= 4
    for name in found:
        assert recovery[name].status.proved is not big
        if not big:
            assert np.array_equal(recovery[name].read(), arrays[name])


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("left", [None, 2])
def test_every_small_scalar_that_is_derived_can_be_read(
    tmp_path: Path, big: bool, left: int | None
) -> None:
    kinds = ["f2", "f4", "i1", "i2", "i4", "u1", "u2", "u4", "?", ml_dtypes.bfloat16]
    arrays = {f"v{number}": np.array(1, kind) for number, kind in enumerate(kinds)}
    made = builder.Bundle(big=big)
    for name, array in arrays.items():
        made.add(name, array)
    made.write(tmp_path / "m")
    data_of(tmp_path / "m").unlink()
    if left is not None:
        data_of(tmp_path / "m").write_bytes(b"\xff" * left)
    recovery = ckptparse.recover(tmp_path / "m")
    for name, array in arrays.items():
        assert recovery[name].status == "derived"
        assert recovery[name].read() == array and recovery[name].read().dtype == array.dtype


def test_a_value_of_a_damaged_entry_states_no_chance_and_says_why_it_is_not_proved(
    tmp_path: Path,
) -> None:
    """The block of the index fails, so the checksum that a value follows from may be wrong."""
    made = builder.Bundle()
    made.add("ones", np.ones(144, np.float32))
    made.add("rate", np.float32(0.25))
    made.add("w", np.random.default_rng(1).normal(size=500).astype(np.float32))
    made.add("zz", np.float32(0.5))
    made.write(tmp_path / "model")
    index = tmp_path / "model.index"
    raw = bytearray(index.read_bytes())
    place = raw.index(b"zz") + 2
    raw[place : place + 4] = b"\xff" * 4  # The other entries of the block are whole.
    index.write_bytes(raw)
    data = tmp_path / "model.data-00000-of-00001"
    for damage in (bytes(1000), b"7 bytes" + data.read_bytes()):
        data.write_bytes(damage)
        recovery = ckptparse.recover(tmp_path / "model")
        assert recovery
        for name, tensor in recovery.items():
            assert (str(tensor.status), tensor.chance) == ("unverified", None), name
            if tensor.method is not None:
                assert "damaged part of the index" in tensor.note, (name, tensor.note)
            assert "the chance" not in tensor.note, (name, tensor.note)
        assert recovery["ones"].method is not None


def test_a_tensor_of_a_whole_block_is_not_said_to_be_of_the_corrected_one(tmp_path: Path) -> None:
    """All depend on the first block, which has the byte order; it is described by another."""
    made = builder.Bundle()
    for number in range(30):
        made.add(f"w{number:02}", np.arange(20, dtype=np.float32) + number)
    made.write(tmp_path / "model", block_size=300)
    index = tmp_path / "model.index"
    raw = bytearray(index.read_bytes())
    raw[raw.index(b"w00") + 3] ^= 1
    index.write_bytes(raw)
    recovery = ckptparse.recover(tmp_path / "model")
    assert {str(tensor.status) for tensor in recovery.values()} == {"corrected"}
    first, last = recovery["w00"], recovery["w29"]
    assert first.note == "one bit was flipped in the block that describes it"
    assert str(first.evidence[0].rule) == "corrected entry"
    assert last.note.startswith("the block that describes it is whole; the first block")
    assert (str(last.evidence[0].rule), last.method) == (
        "entry",
        "correcting the first block of model.index",
    )


def other_letters_of(crc: int) -> bytes:
    """Return eight bytes below 128 of that checksum: the last four follow from the first four."""
    columns = [crc32c(bytes(4) + (1 << bit).to_bytes(4, "little")) for bit in range(32)]
    zero = crc32c(bytes(8))
    # The checksum of a sum is the sum of checksums, so Gauss's elimination solves for the bits.
    rows: dict[int, tuple[int, int]] = {}
    for bit, column in enumerate(columns):
        value, bits = column ^ zero, 1 << bit
        for top in sorted(rows, reverse=True):
            if value >> top & 1:
                value, bits = value ^ rows[top][0], bits ^ rows[top][1]
        rows[value.bit_length() - 1] = value, bits
    for start in range(1 << 14):
        head = (start * 127 & 0x7F7F7F7F).to_bytes(4, "little")
        value, bits = crc32c(head + bytes(4)) ^ crc, 0
        for top in sorted(rows, reverse=True):
            if value >> top & 1:
                value, bits = value ^ rows[top][0], bits ^ rows[top][1]
        tail = bits.to_bytes(4, "little")
        if max(tail) < 128:
            assert crc32c(head + tail) == crc
            return head + tail
    raise AssertionError("no such letters")


def test_a_conversion_that_explains_all_goes_before_a_place_that_explains_one(
    tmp_path: Path,
) -> None:
    rng = np.random.default_rng(5)
    counter = np.int64(1001)
    letters = rng.integers(0, 128, 1_000, np.uint8)
    letters[401:409] = list(other_letters_of(crc32c(counter.tobytes())))
    values = {
        "a/kernel": rng.normal(size=500).astype(np.float32),
        "counter": counter,
        "letters": letters,
        "z/kernel": rng.normal(size=500).astype(np.float32),
    }
    prefix = ckptparse.write(tmp_path / "m", values)
    data = tmp_path / "m.data-00000-of-00001"
    data.write_bytes(data.read_bytes().decode("latin-1").encode())
    recovery = ckptparse.recover(prefix)
    for name, value in values.items():
        assert recovery[name].status == "corrected"
        assert recovery[name].method == "undoing latin-1 to UTF-8", name
        assert np.array_equal(recovery[name].read(), value)


SIZES = {"a": 4096, "n": 4096, "o": 1_250_048, "p": 4096}


@pytest.mark.parametrize("told_by", ["what is behind", "the size", "what lies there"])
def test_one_agreeing_checksum_elsewhere_is_chance_if_the_file_tells_otherwise(
    told_by: str, tmp_path: Path
) -> None:
    """Of 5 MB, some run has the checksum of a damaged tensor with a chance of 1 in 860."""
    rng = np.random.default_rng(1)
    values = {name: rng.normal(size=size).astype(np.float32) for name, size in SIZES.items()}
    wanted = values["n"].tobytes()
    # A run within the largest tensor gets that checksum: its last 4 bytes make it.
    last = 900_000
    head = values["o"][last - SIZES["n"] + 1 : last].tobytes()
    tail = derive_tail(crc32c(wanted), crc32c(head), 4)
    assert tail is not None
    values["o"][last] = np.frombuffer(tail, np.float32)[0]
    bundle(values).write(tmp_path / "m")
    starts = dict(zip(SIZES, np.cumsum([0, *SIZES.values()]) * 4, strict=False))
    lost = {"what is behind": "ano", "the size": "npo", "what lies there": "anp"}[told_by]
    raw = bytearray(data_of(tmp_path / "m").read_bytes())
    for name in lost:
        raw[starts[name] + 1024 : starts[name] + 1536] = b"\xff" * 512
    # A file that is not as long as the index says may have lost bytes.
    data_of(tmp_path / "m").write_bytes(raw + bytes(512 if told_by != "the size" else 0))
    recovery = ckptparse.recover(tmp_path / "m")
    for name in lost:
        assert recovery[name].status == "unverified", name
        assert recovery[name].cause != "shifted", name
        found = recovery[name].read()
        assert np.array_equal(np.ma.getmaskarray(found).nonzero()[0], np.arange(256, 384)), name
        assert np.array_equal(found.compressed(), np.delete(values[name], slice(256, 384))), name


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (np.float32([3]), "3.0"),
        (np.zeros(4, bool), "False throughout"),
        (np.arange(2, 7), "2 to 6"),
        (np.float32([1, 5]), None),
        (np.zeros(0, np.float32), None),
        (np.float32([np.inf, np.inf, -np.inf]), None),
        (np.array([0x7F800001] * 3, np.uint32).view(np.float32), None),
    ],
)
def test_values_are_told_in_a_few_words_without_a_warning(values: Any, text: str | None) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert values_as_text(values) == text
