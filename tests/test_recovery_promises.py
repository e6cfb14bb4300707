"""What recovery must not promise: copied checksums, spliced indexes, chances that add up."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import builder
import faults
import numpy as np
import pytest
from crc32c import crc32c

import ckptparse
from ckptparse.crc.inversion import derive_tail
from ckptparse.examination.checking import open_case
from ckptparse.examination.survey import survey_path
from ckptparse.files.context import begin


def _two_saves(directory: Path, *, block_size: int = 4096) -> tuple[builder.Bundle, dict[str, Any]]:
    """Write `ckpt-1` and `ckpt-2` of one layout, in which `same` never changes."""
    kept = np.random.default_rng(0).normal(size=60).astype(np.float32)
    made = []
    for step in (2, 1):
        values = np.random.default_rng(step).normal(size=(4, 60)).astype(np.float32)
        arrays = {**{f"trained_{n}": values[n] for n in range(4)}, "same": kept}
        bundle = builder.Bundle()
        for name, array in arrays.items():
            bundle.add(name, array)
        bundle.write(directory / f"ckpt-{step}", block_size=block_size)
        made.append((bundle, arrays))
    return made[1]


def test_a_checksum_copied_from_another_entry_promises_nothing(tmp_path: Path) -> None:
    bundle, _ = _two_saves(tmp_path)
    index = tmp_path / "ckpt-1.index"
    mine, other = bundle.entries[b"trained_1"], bundle.entries[b"same"]
    assert isinstance(mine, builder.Entry) and isinstance(other, builder.Entry)
    data = index.read_bytes()
    own, foreign = (builder.fixed32(entry.crc or 0) for entry in (mine, other))
    assert data.count(own) == 1
    index.write_bytes(data.replace(own, foreign))
    recovery = ckptparse.recover(tmp_path / "ckpt-1")
    assert recovery["same"].status == "verified"
    assert recovery["trained_1"].status == "unverified"


def test_blocks_of_another_index_promise_nothing_of_its_values(tmp_path: Path) -> None:
    bundle, arrays = _two_saves(tmp_path, block_size=100)
    first, second = (tmp_path / f"ckpt-{step}.index" for step in (1, 2))
    torn = bundle.entries[b"trained_0"]
    assert isinstance(torn, builder.Entry)
    half = first.read_bytes().index(builder.fixed32(torn.crc or 0)) + 2
    first.write_bytes(first.read_bytes()[:half] + second.read_bytes()[half:])
    recovery = ckptparse.recover(tmp_path / "ckpt-1")
    assert recovery["trained_3"].status == "unverified"
    for name, tensor in recovery.items():
        if tensor.status.proved:
            assert faults.same(tensor.read(), arrays[name]), name


def _blocks(prefix: Path) -> dict[int, list[str]]:
    """Return the names in each block of an index, by its offset."""
    path, context = begin(str(prefix))
    case = open_case(survey_path(path, context), context)
    found: dict[int, list[str]] = {}
    assert case.main is not None
    for name, payload in case.main.iter_payloads():
        assert payload.block is not None
        found.setdefault(payload.block, []).append(name.tensor)
    case.files.close()
    return found


def _splice(directory: Path, names: Collection[str]) -> None:
    """Put the block that names some tensors from the index of `ckpt-2` into that of `ckpt-1`."""
    blocks = _blocks(directory / "ckpt-1")
    assert blocks == _blocks(directory / "ckpt-2") and len(blocks) > 1
    (start,) = (offset for offset, held in blocks.items() if set(names) <= set(held))
    stop = min((offset for offset in blocks if offset > start), default=None)
    ours, theirs = (bytearray((directory / f"ckpt-{n}.index").read_bytes()) for n in (1, 2))
    assert stop is not None
    ours[start:stop] = theirs[start:stop]
    (directory / "ckpt-1.index").write_bytes(ours)


@pytest.mark.parametrize("name", ["trained_0", "trained_1", "trained_2"])
@pytest.mark.parametrize("lost", [None, "tensor"])
def test_a_whole_block_of_another_index_promises_nothing_of_its_values(
    name: str, lost: str | None, tmp_path: Path
) -> None:
    bundle, arrays = _two_saves(tmp_path, block_size=110)
    _splice(tmp_path, [name])
    if lost is not None:
        entry = bundle.entries[name.encode()]
        assert isinstance(entry, builder.Entry)
        data = tmp_path / "ckpt-1.data-00000-of-00001"
        raw = bytearray(data.read_bytes())
        raw[entry.offset : entry.offset + entry.size] = bytes(entry.size)
        data.write_bytes(raw)
        beside = [one for one in _blocks(tmp_path / "ckpt-1").values() if name in one]
        if beside == [[name]]:
            pytest.skip("nothing else of the block is left to tell")
    recovery = ckptparse.recover(tmp_path / "ckpt-1")
    for key, tensor in recovery.items():
        if tensor.status.proved:
            assert faults.same(tensor.read(), arrays[key]), key
    if lost is None:
        # Its own bytes are offered.
        assert recovery[name].status == "unverified"
        assert faults.same(recovery[name].read(), arrays[name])


def test_bytes_of_the_checkpoint_beside_are_said_to_be_so(tmp_path: Path) -> None:
    """One block of the index, and all of the data file, are of another save."""
    _two_saves(tmp_path, block_size=110)
    _splice(tmp_path, ["trained_1"])
    shutil.copy(tmp_path / "ckpt-2.data-00000-of-00001", tmp_path / "ckpt-1.data-00000-of-00001")
    recovery = ckptparse.recover(tmp_path / "ckpt-1")
    other = ckptparse.read(tmp_path / "ckpt-2")
    tensor = recovery["trained_3"]
    assert (tensor.status, tensor.cause) == ("unverified", "mixed save")
    assert "its bytes are those of ckpt-2.index" in tensor.note
    assert [str(one.rule) for one in tensor.evidence][-1] == "same bytes"
    # They are whole, and offered as they are.
    assert faults.same(tensor.read(), other["trained_3"])
    # What the spliced block describes agrees with it: the bytes fit that save in every respect.
    assert recovery["trained_1"].status == "verified"


def test_a_tensor_that_never_changes_is_still_taken_from_beside(tmp_path: Path) -> None:
    """Its own bytes are damaged, and look like weights; or another save's lie over them all."""
    bundle, arrays = _two_saves(tmp_path)
    data = tmp_path / "ckpt-1.data-00000-of-00001"
    raw = bytearray(data.read_bytes())
    same, other = bundle.entries[b"same"], bundle.entries[b"trained_0"]
    assert isinstance(same, builder.Entry) and isinstance(other, builder.Entry)
    for size in (40, same.size):
        raw[same.offset : same.offset + size] = raw[other.offset : other.offset + size]
        data.write_bytes(raw)
        tensor = ckptparse.recover(tmp_path / "ckpt-1")["same"]
        assert tensor.status == "corrected"
        assert faults.same(tensor.read(), arrays["same"])


def test_a_data_file_half_of_another_save_is_mended_by_a_copy(tmp_path: Path) -> None:
    """The copy has every entry of the index: it is the same save, and no splice."""
    _, arrays = _two_saves(tmp_path / "run", block_size=110)
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    (tmp_path / "copy" / "ckpt-2.index").unlink()
    (tmp_path / "copy" / "ckpt-2.data-00000-of-00001").unlink()
    first, second = (tmp_path / "run" / f"ckpt-{n}.data-00000-of-00001" for n in (1, 2))
    half = len(first.read_bytes()) // 2
    first.write_bytes(first.read_bytes()[:half] + second.read_bytes()[half:])
    for siblings in (True, False):
        recovery = ckptparse.recover(
            tmp_path / "run" / "ckpt-1", evidence=[tmp_path / "copy"], siblings=siblings
        )
        for name, array in arrays.items():
            # That the first half is no frozen one is known from the other save's index alone.
            whole = recovery[name].source.path == str(first) or name == "same"
            assert recovery[name].status.proved is (siblings or whole), name
            assert faults.same(recovery[name].read(), array)


def test_entries_of_another_index_in_a_damaged_block_promise_nothing(tmp_path: Path) -> None:
    """Two entries of one block are another save's; what they name was lost from the data."""
    rng = np.random.default_rng(5)
    names = [f"layer{n}" for n in range(6)]
    for step in (1, 2):
        made = builder.Bundle()
        for name in names:
            made.add(name, rng.normal(size=(30, 8)).astype("<f4"))
        made.write(tmp_path / f"ckpt-{step}")
    ours, theirs = (bytearray((tmp_path / f"ckpt-{n}.index").read_bytes()) for n in (2, 1))
    # What differs are the checksums of the six entries, and that of the block.
    places = [place for place, byte in enumerate(ours) if byte != theirs[place]]
    start, stop = places[9], places[17]
    ours[start:stop] = theirs[start:stop]
    (tmp_path / "ckpt-2.index").write_bytes(ours)
    (tmp_path / "ckpt-2.data-00000-of-00001").write_bytes(bytes(6 * 960))
    recovery = ckptparse.recover(tmp_path / "ckpt-2")
    assert {str(tensor.status) for tensor in recovery.values()} <= {"unverified"}


def test_one_index_is_doubted_for_all_of_its_files(tmp_path: Path) -> None:
    """One file shows that the index is another save's; the other is gone, and a scalar of it."""
    made = {}
    for seed in (1, 2):
        rng = np.random.default_rng(seed)
        made[seed] = builder.Bundle()
        made[seed].add("weights", rng.normal(size=(90, 40)).astype("<f4"), shard=0)
        made[seed].add("rate", np.float32(0.5 / seed), shard=1)
    made[1].write(tmp_path / "model")
    (tmp_path / "model.data-00000-of-00002").write_bytes(bytes(made[2].shards[0]))
    (tmp_path / "model.data-00001-of-00002").unlink()
    recovery = ckptparse.recover(tmp_path / "model")
    assert "rate" not in recovery or recovery["rate"].status == "unverified"


@pytest.mark.parametrize("value", [np.float32(0.3), np.int64(5), np.zeros(7, np.float32)])
def test_nothing_is_derived_from_a_checksum_that_is_not_stated(tmp_path: Path, value: Any) -> None:
    bundle = builder.Bundle()
    bundle.add("x", value, crc=None)
    bundle.write(tmp_path / "ckpt")
    (tmp_path / "ckpt.data-00000-of-00001").unlink()
    recovery = ckptparse.recover(tmp_path / "ckpt")
    assert recovery.report.tensors["x"].status == "missing"


def test_chances_of_slices_add_up(tmp_path: Path) -> None:
    array = np.arange(1 << 21, (1 << 21) + 64)
    bundle = builder.Bundle()
    bundle.add_sliced("x", array, builder.split_rows(64, 64, 1))
    bundle.write(tmp_path / "ckpt")
    (tmp_path / "ckpt.data-00000-of-00001").unlink()
    tensor = ckptparse.recover(tmp_path / "ckpt")["x"]
    assert tensor.chance == 64 * 2**-10
    assert tensor.status == "unverified"
    assert np.array_equal(tensor.read(), array)


def test_a_tensor_too_large_for_memory_is_refused_when_it_is_read(tmp_path: Path) -> None:
    bundle = builder.Bundle()
    bundle.add("small", np.ones(4, np.float32))
    size = 1 << 60
    bundle.entries[b"large"] = builder.Entry(builder.FLOAT, (size // 4,), 0, 8, size, 1)
    bundle.write(tmp_path / "ckpt")
    recovery = ckptparse.recover(tmp_path / "ckpt")
    assert recovery["large"].status == "unverified"
    with pytest.raises(ckptparse.LimitError, match="memory"):
        recovery["large"].read()


def test_an_empty_tensor_without_its_file_is_missing_until_it_is_recovered(tmp_path: Path) -> None:
    bundle = builder.Bundle()
    bundle.add("empty", np.zeros((0, 3), np.float32))
    bundle.write(tmp_path / "ckpt")
    (tmp_path / "ckpt.data-00000-of-00001").unlink()
    assert ckptparse.verify(tmp_path / "ckpt").tensors["empty"].status == "missing"
    tensor = ckptparse.recover(tmp_path / "ckpt")["empty"]
    assert tensor.status == "derived"
    assert tensor.read().shape == (0, 3)


def test_damaged_lengths_of_many_strings_cost_no_search(tmp_path: Path) -> None:
    bundle = builder.Bundle()
    bundle.add("x", np.array([b"some words"] * 100_000, object))
    bundle.write(tmp_path / "ckpt")
    shard = tmp_path / "ckpt.data-00000-of-00001"
    shard.write_bytes(b"\x01\x02\x03\x04" + shard.read_bytes()[4:])
    assert ckptparse.recover(tmp_path / "ckpt").report.tensors["x"].status == "corrupt"


def test_a_small_number_that_became_zero_is_no_hole(tmp_path: Path) -> None:
    bundle = builder.Bundle()
    bundle.add("step", np.int64(4))
    bundle.add("weights", np.arange(1, 9, dtype=np.float32))
    bundle.write(tmp_path / "ckpt")
    shard = tmp_path / "ckpt.data-00000-of-00001"
    shard.write_bytes(bytes(8) + shard.read_bytes()[8:])
    report = ckptparse.verify(tmp_path / "ckpt")
    assert report.tensors["step"].cause != "zeros"
    assert "shard.zeros" not in {problem.code for problem in report.problems}


def test_swapped_files_are_found_before_equal_bytes_of_other_checkpoints(tmp_path: Path) -> None:
    faults.write_run(tmp_path)
    first, second = (tmp_path / f"{faults.BASE}.data-0000{n}-of-00002" for n in (0, 1))
    one, other = first.read_bytes(), second.read_bytes()
    first.write_bytes(other)
    second.write_bytes(one)
    recovery = ckptparse.recover(tmp_path / faults.BASE)
    for tensor in recovery.values():
        if tensor.source is not None:
            assert Path(tensor.source.path).name.startswith(faults.BASE), tensor.name


def saves(directory: Path, *, frozen: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Write two saves of one layout; only some of their tensors differ."""
    rng = np.random.default_rng(7)
    earlier: dict[str, Any] = {f"w{n}": rng.normal(size=300).astype("<f4") for n in range(8)}
    earlier |= {"rate": np.float32(0.1), "step": np.int64(100), "z": np.ones(50, "<f4")}
    later = {
        name: array if name[0] == "w" and int(name[1]) < frozen else array * 2
        for name, array in earlier.items()
    }
    for name, arrays in (("earlier", earlier), ("model", later)):
        made = builder.Bundle()
        for key, array in arrays.items():
            made.add(key, array)
        made.write(directory / name)
    (directory / "earlier.index").replace(directory / "model.index")
    (directory / "earlier.data-00000-of-00001").unlink()
    return earlier, later


@pytest.mark.parametrize("frozen", [0, 3, 5, 7])
@pytest.mark.parametrize("damage", ["none", "sectors", "cut", "put in", "CRLF"])
def test_nothing_is_derived_from_an_index_that_may_be_of_another_save(
    frozen: int, damage: str, tmp_path: Path
) -> None:
    if (damage, frozen) == ("cut", 7):
        # All that is left has the checksums of both saves. What the other save's index says of the
        # lost values is then taken for this one's: see "What can be got back" in docs/repair.md.
        pytest.skip("nothing is left that differs between the two saves")
    _, later = saves(tmp_path, frozen=frozen)
    data = tmp_path / "model.data-00000-of-00001"
    raw = bytearray(data.read_bytes())
    if damage == "sectors":
        raw[1500:2012] = bytes(512)
    elif damage == "cut":
        del raw[-250:]
    elif damage == "put in":
        raw[3000:3000] = b"--"
    elif damage == "CRLF":
        raw = raw.replace(b"\n", b"\r\n")
    data.write_bytes(raw)
    for name, tensor in ckptparse.recover(tmp_path / "model").items():
        if tensor.status in ("verified", "corrected", "derived", "partial"):
            values = tensor.read()
            shown = ~np.ma.getmaskarray(values)
            assert (np.ma.getdata(values) == later[name])[shown].all(), name


@pytest.mark.parametrize("second", ["bit", "byte", "word", "sector", "noise", "swap"])
def test_nothing_is_promised_of_a_tensor_that_is_cut_off_and_damaged(
    second: str, tmp_path: Path
) -> None:
    rng = np.random.default_rng(3)
    arrays = {f"w{n}": rng.normal(size=1000).astype("<f4") for n in range(4)}
    made = builder.Bundle()
    for name, array in arrays.items():
        made.add(name, array)
    made.write(tmp_path / "model")
    data = tmp_path / "model.data-00000-of-00001"
    raw = bytearray(data.read_bytes()[:15000])
    place = 13000 + {"sector": 312, "noise": 312}.get(second, 0)
    if second == "bit":
        raw[place] ^= 1
    elif second == "byte":
        raw[place] ^= 0x5A
    elif second == "word":
        raw[place : place + 4] = bytes(4)
    elif second == "swap":
        raw[place : place + 64], raw[place + 64 : place + 128] = (
            raw[place + 64 : place + 128],
            raw[place : place + 64],
        )
    else:
        raw[place : place + 512] = bytes(512) if second == "sector" else rng.bytes(512)
    data.write_bytes(raw)
    recovery = ckptparse.recover(tmp_path / "model")
    assert [str(tensor.status) for tensor in recovery.values()] == ["verified"] * 3 + ["unverified"]
    assert recovery["w3"].cause == "truncated"
    assert recovery["w3"].ranges == ((0, 750),)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_noise_of_every_kind_of_float_is_no_other_save(dtype: Any, tmp_path: Path) -> None:
    made = builder.Bundle()
    for number in range(6):
        made.add(f"w{number}", np.random.default_rng(number).normal(size=3000).astype(dtype))
    made.add("rate", np.float32(0.25))
    made.write(tmp_path / "model")
    data = tmp_path / "model.data-00000-of-00001"
    data.write_bytes(np.random.default_rng(9).bytes(data.stat().st_size))
    recovery = ckptparse.recover(tmp_path / "model")
    assert "set.mixed" not in {problem.code for problem in recovery.report.problems}
    assert recovery["rate"].status == "derived" and recovery["rate"].read() == np.float32(0.25)


@pytest.mark.parametrize(("rows", "size"), [(8, 2048), (60, 4096), (60, 512)])
def test_noise_is_not_corrected_if_a_changed_byte_fits_by_chance(
    rows: int, size: int, tmp_path: Path
) -> None:
    """Every thousandth tensor of 16 KiB that noise was written over has such a byte."""
    rng = np.random.default_rng(rows)
    weights = rng.normal(size=rows * 64).astype(np.float32).tobytes()
    kept = len(weights) - size
    damaged = weights[:kept] + rng.bytes(len(weights) - kept)
    fitting = bytearray(damaged)
    fitting[kept + 77] ^= 0x41
    # Their last element is chosen so that they have the checksum of that.
    tail = derive_tail(crc32c(fitting), crc32c(weights[:-4]), 4)
    assert tail is not None
    made = builder.Bundle()
    made.add("w", np.frombuffer(weights[:-4] + tail, np.float32))
    made.write(tmp_path / "model")
    (tmp_path / "model.data-00000-of-00001").write_bytes(damaged)
    recovery = ckptparse.recover(tmp_path / "model")
    assert not recovery.report.tensors["w"].status.proved


@pytest.mark.parametrize("attempts", [0, 1, 1000])
@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: data[7:]])
def test_what_is_offered_can_be_read_however_few_repairs_are_tried(
    tmp_path: Path, attempts: int, damage: Callable[[bytes], bytes]
) -> None:
    _two_saves(tmp_path)
    data = tmp_path / "ckpt-1.data-00000-of-00001"
    data.write_bytes(damage(data.read_bytes()))
    limits = ckptparse.Limits(attempts=attempts)
    recovery = ckptparse.recover(tmp_path / "ckpt-1", siblings=False, limits=limits)
    for tensor in recovery.values():
        assert tensor.read().shape == tensor.shape
    told = [one for one in recovery.report.tensors.values() if "no repair was tried" in one.note]
    # What lies elsewhere in its file needs no repair.
    shifted = any("from its place" in one.method for one in recovery.values() if one.method)
    assert shifted or bool(told) == (attempts < 1000)
    assert all(one.status in ("corrupt", "missing") for one in told)


def _index_of_another_save(
    directory: Path, saves: list[dict[str, Any]], shards: Mapping[str, int]
) -> None:
    """Write two saves, and put the second one's index beside the data files of the first."""
    for number, arrays in enumerate(saves):
        made = builder.Bundle()
        for name, array in arrays.items():
            made.add(name, np.asarray(array), shard=shards.get(name, 0))
        made.write(directory / str(number) / "model")
    shutil.copy(directory / "1" / "model.index", directory / "0" / "model.index")


def test_two_data_files_show_together_that_the_index_is_of_another_save(tmp_path: Path) -> None:
    """In each of them one tensor of integers fails; the counter differs in one byte."""
    rng = np.random.default_rng(5)
    saves = [
        {
            "a": rng.integers(0, 1 << 31, (12, 7)).astype(np.uint32),
            "b": rng.integers(0, 1 << 31, (9, 9)).astype(np.uint32),
            "step": np.int64(1001 + number),
        }
        for number in range(2)
    ]
    _index_of_another_save(tmp_path, saves, {"b": 1, "step": 2})
    recovery = ckptparse.recover(tmp_path / "0" / "model")
    assert {str(tensor.status) for tensor in recovery.values()} == {"unverified"}
    assert recovery["step"].read() == 1001


def test_one_whole_tensor_of_integers_is_enough_where_nothing_speaks_for_the_index(
    tmp_path: Path,
) -> None:
    rng = np.random.default_rng(6)
    saves = [
        {
            "a": rng.integers(0, 1 << 50, 348).astype(np.uint64),
            "rate": np.float32(0.5 - number / 8),
            "w": rng.normal(size=300).astype(np.float32),
            "step": np.int64(1001 + number),
        }
        for number in range(2)
    ]
    _index_of_another_save(tmp_path, saves, {})
    data = tmp_path / "0" / "model.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[: 348 * 8])  # All behind the first tensor is lost.
    recovery = ckptparse.recover(tmp_path / "0" / "model")
    assert {name: str(tensor.status) for name, tensor in recovery.items()} == {"a": "unverified"}
    assert (recovery["a"].read() == saves[0]["a"]).all()


def test_an_index_of_another_save_is_told_by_a_data_file_that_was_packed(tmp_path: Path) -> None:
    """The packed file is shorter than the index says, and its tensors are whole all the same."""
    saves = [
        {
            "zeros": np.zeros(60_000, np.int8),
            **{f"w{n}": np.random.default_rng([n, number]).normal(size=2000) for n in range(3)},
            "rate": np.float32(0.5 - number / 8),
            "step": np.int64(1001 + number),
        }
        for number in range(2)
    ]
    _index_of_another_save(tmp_path, saves, {})
    data = tmp_path / "0" / "model.data-00000-of-00001"
    data.write_bytes(gzip.compress(data.read_bytes()))
    for name, tensor in ckptparse.recover(tmp_path / "0" / "model").items():
        assert name == "zeros" or tensor.status == "unverified"
        assert (tensor.read() == saves[0][name]).all(), name


def test_a_mixed_save_of_very_many_small_tensors_gives_all_of_them(tmp_path: Path) -> None:
    """No change of a few bytes is tried for them, so each costs less than a repair."""
    bundles, arrays = [], {}
    for seed in (1, 2):
        rng = np.random.default_rng(seed)
        arrays = {f"w{n:04}": rng.normal(size=600).astype(np.float32) for n in range(1000)}
        bundles.append(builder.Bundle())
        for name, array in arrays.items():
            bundles[-1].add(name, array)
    bundles[0].write(tmp_path / "m")
    (tmp_path / "m.data-00000-of-00001").write_bytes(bytes(bundles[1].shards[0]))
    recovery = ckptparse.recover(tmp_path / "m")
    assert {str(tensor.cause) for tensor in recovery.values()} == {"mixed save"}
    assert [name for name in arrays if not faults.same(recovery[name].read(), arrays[name])] == []
