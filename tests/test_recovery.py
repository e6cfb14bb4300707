"""What `verify` and `recover` give back: reports, tensors, and what they cost."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import builder
import faults
import numpy as np
import pytest
import v1_builder
from instruments import MEGABYTE, allocating_at_most
from packages import ml_dtypes

import ckptparse
from ckptparse import Limits, NotACheckpointError, TensorNotFoundError


def bundle(arrays: dict[str, Any]) -> builder.Bundle:
    made = builder.Bundle()
    for name, array in arrays.items():
        made.add(name, array)
    return made


def data_of(prefix: Path) -> Path:
    return Path(f"{prefix}.data-00000-of-00001")


def truncated(directory: Path, size: int, *, twins: bool = False) -> Path:
    """Three float32 tensors of 100 elements, the data cut off after so many bytes."""
    one = np.arange(1, 101, dtype=np.float32)
    arrays = {"a": one, "b": one, "c": -one} if twins else {"a": one, "b": one + 0.5, "c": -one}
    prefix = directory / "m"
    bundle(arrays).write(prefix)
    data_of(prefix).write_bytes(data_of(prefix).read_bytes()[:size])
    return prefix


# ------------------------------------------------------------------------------- partial tensors


def test_the_tensor_across_a_cut_comes_back_masked(tmp_path: Path) -> None:
    recovery = ckptparse.recover(truncated(tmp_path, 500))
    tensor = recovery["b"]
    assert (tensor.status, tensor.cause) == ("unverified", "truncated")
    assert tensor.ranges == ((0, 25),) and tensor.chance is None
    array = tensor.read()
    assert isinstance(array, np.ma.MaskedArray) and array.shape == (100,)
    assert array[:25].tolist() == (np.arange(1, 26) + 0.5).tolist() and array[25:].mask.all()
    assert "a" in recovery and "c" not in recovery


def test_a_fill_takes_the_place_of_what_is_missing(tmp_path: Path) -> None:
    array = ckptparse.recover(truncated(tmp_path, 500))["b"].read(fill=np.nan)
    assert type(array) is np.ndarray and array[24] == 25.5 and np.isnan(array[25:]).all()


def test_a_whole_tensor_is_a_plain_array_with_or_without_a_fill(tmp_path: Path) -> None:
    tensor = ckptparse.recover(truncated(tmp_path, 500))["a"]
    for array in (tensor.read(), tensor.read(fill=0)):
        assert type(array) is np.ndarray and array.flags.writeable
    assert np.asarray(tensor).tolist() == list(range(1, 101))


def test_a_cut_inside_the_first_element_leaves_nothing(tmp_path: Path) -> None:
    report = ckptparse.verify(truncated(tmp_path, 402))
    assert report.tensors["b"].status == "missing" and report.tensors["b"].cause == "truncated"


def test_a_lost_slice_is_masked_and_the_others_stand(tmp_path: Path) -> None:
    value = np.arange(60, dtype=np.float32).reshape(10, 6)
    made = builder.Bundle()
    rows = [[(0, 4), None], [(4, 6), None]]
    made.add_sliced("t", value, rows, shards=[0, 1])
    made.write(tmp_path / "m")
    (tmp_path / "m.data-00001-of-00002").unlink()
    tensor = ckptparse.recover(tmp_path / "m")["t"]
    assert (tensor.status, tensor.cause) == ("partial", "shard missing")
    assert tensor.ranges == ((0, 24),)
    array = tensor.read()
    assert np.ma.getmaskarray(array)[4:].all() and not np.ma.getmaskarray(array)[:4].any()
    assert (array[:4] == value[:4]).all()


def test_a_lost_slice_of_columns_leaves_a_range_in_every_row(tmp_path: Path) -> None:
    made = builder.Bundle()
    columns = [[None, (0, 2)], [None, (2, 1)]]
    made.add_sliced("t", np.ones((3, 3), np.float32), columns, missing=[1])
    made.write(tmp_path / "m")
    assert ckptparse.verify(tmp_path / "m").tensors["t"].ranges == ((0, 2), (3, 5), (6, 8))


def test_a_hole_of_zeros_is_masked_unless_a_sibling_fills_it(tmp_path: Path) -> None:
    value = np.arange(1, 5001, dtype=np.float32) + np.float32(0.3)
    value[0] = 1
    for step, factor in ((1, 1), (2, 1)):
        other = value.copy()
        # The sibling differs outside of the hole, so that only together they make the whole.
        other[0] = step
        bundle({"w": other * factor}).write(tmp_path / f"m-{step}")
    data = bytearray(data_of(tmp_path / "m-1").read_bytes())
    data[8192:12288] = bytes(4096)
    data_of(tmp_path / "m-1").write_bytes(data)
    verified = ckptparse.verify(tmp_path / "m-1").tensors["w"]
    assert (verified.status, verified.cause) == ("corrupt", "zeros")
    alone = ckptparse.recover(tmp_path / "m-1", siblings=False)["w"]
    assert alone.status == "unverified" and alone.ranges == ((0, 5000),)
    assert alone.suspect == ((2048, 3072),)
    masked = alone.read()
    assert np.ma.getmaskarray(masked).sum() == 1024 and masked[2048:3072].mask.all()
    assert alone.read(keep_suspect=True)[2048:3072].tolist() == [0.0] * 1024
    assert alone.read(fill=-1)[2047:2049].tolist() == [value[2047], -1]
    filled = ckptparse.recover(tmp_path / "m-1")["w"]
    assert filled.status == "corrected" and "sibling" in str(filled.method)
    assert filled.read().tolist() == value.tolist()


def test_strings_before_a_cut_come_back(tmp_path: Path) -> None:
    values = np.array([b"alpha", b"beta", b"gamma" * 1000], object)
    bundle({"s": values}).write(tmp_path / "m")
    data = data_of(tmp_path / "m").read_bytes()
    data_of(tmp_path / "m").write_bytes(data[:-2000])
    tensor = ckptparse.recover(tmp_path / "m")["s"]
    assert tensor.status == "unverified" and tensor.ranges == ((0, 2),)
    assert tensor.read(fill=b"?").tolist() == [b"alpha", b"beta", b"?"]


def test_a_few_bytes_that_the_last_tensor_lacks_may_be_lost_anywhere_in_it(tmp_path: Path) -> None:
    value = np.random.default_rng(4).normal(size=5000).astype(np.float32)
    bundle({"w": value}).write(tmp_path / "m")
    data = data_of(tmp_path / "m").read_bytes()
    for lost in (range(9000, 9040), range(19000, 20000)):
        data_of(tmp_path / "m").write_bytes(data[: lost.start] + data[lost.stop :])
        assert ckptparse.recover(tmp_path / "m")["w"].status == "unverified"


# ------------------------------------------------------------------------------- proof and fit


def without_data(directory: Path, arrays: dict[str, Any], **options: Any) -> ckptparse.Recovery:
    bundle(arrays).write(directory / "m", **options)
    data_of(directory / "m").unlink()
    return ckptparse.recover(directory / "m")


def test_scalars_and_constants_come_back_from_the_index_alone(tmp_path: Path) -> None:
    arrays = {
        "beta": np.zeros((3, 4), np.float32),
        "epoch": np.int32(-7),
        "flag": np.array(True),
        "gamma": np.ones(9, ml_dtypes.bfloat16),
        "rate": np.float32(0.00123),
        "position_ids": np.arange(512).reshape(1, 512),
        "triple": np.array([1, 2, 200], np.uint8),
    }
    recovery = without_data(tmp_path, arrays)
    assert set(recovery) == set(arrays)
    for name, tensor in recovery.items():
        assert tensor.status == "derived" and tensor.chance is not None and tensor.chance < 1e-6
        assert faults.same(tensor.read(), arrays[name])


@pytest.mark.parametrize(
    ("name", "value", "status"),
    [
        ("count", 4_194_303, "derived"),
        ("count", 4_194_304, "unverified"),
        ("global_step", 2_000_000_000, "unverified"),
        ("opt/iter/.ATTRIBUTES/VARIABLE_VALUE", 2_000_000_000, "unverified"),
    ],
)
def test_a_large_integer_is_a_fit_and_a_small_one_a_proof(
    tmp_path: Path, name: str, value: int, status: str
) -> None:
    tensor = without_data(tmp_path, {name: np.int64(value)})[name]
    assert tensor.status == status and tensor.read() == value
    assert tensor.chance == 2.0 ** (value.bit_length() - 32)


def test_an_integer_beyond_32_bits_is_offered_wrongly_but_never_promised(tmp_path: Path) -> None:
    tensor = without_data(tmp_path, {"seed": np.int64(1 << 40)})["seed"]
    assert tensor.status == "unverified" and tensor.chance is not None and tensor.chance > 1e-3


def flipped(directory: Path, size: int) -> ckptparse.RecoveredTensor:
    """One flipped bit in a float32 tensor of that many elements."""
    value = np.random.default_rng(3).normal(size=size).astype(np.float32)
    bundle({"w": value}).write(directory / "m")
    data = bytearray(data_of(directory / "m").read_bytes())
    faults.flip(data, len(data) // 3, 2)
    data_of(directory / "m").write_bytes(data)
    tensor = ckptparse.recover(directory / "m")["w"]
    assert faults.same(tensor.read(), value)
    return tensor


def test_a_flipped_bit_of_a_small_tensor_is_corrected(tmp_path: Path) -> None:
    tensor = flipped(tmp_path, 100_000)
    assert tensor.status == "corrected" and tensor.cause == "bits"
    assert tensor.chance == pytest.approx(8 * 400_000 / 2**32)
    assert tensor.method == "flipping bit 2 of byte 133333 back"


def test_a_flipped_bit_of_a_large_tensor_is_offered_with_its_chance(tmp_path: Path) -> None:
    tensor = flipped(tmp_path, 1_000_000)
    assert tensor.status == "unverified" and tensor.chance == pytest.approx(32e6 / 2**32)


def test_four_bytes_that_were_cut_off_can_always_be_solved_for_and_prove_nothing(
    tmp_path: Path,
) -> None:
    value = np.random.default_rng(3).normal(size=50).astype(np.float64)
    bundle({"w": value}).write(tmp_path / "m")
    whole = data_of(tmp_path / "m").read_bytes()
    statuses = {}
    for count in (1, 2, 3, 4):
        data_of(tmp_path / "m").write_bytes(whole[:-count])
        tensor = ckptparse.recover(tmp_path / "m")["w"]
        assert faults.same(tensor.read(), value)
        statuses[count] = (tensor.status.value, tensor.chance)
    assert statuses == {
        1: ("corrected", 2.0**-24),
        2: ("corrected", 2.0**-16),
        3: ("unverified", 2.0**-8),
        4: ("unverified", 1.0),
    }


def damaged_index(directory: Path, *, sibling: bool) -> ckptparse.Recovery:
    """Two bytes of an entry's name changed: its tensor's checksum proves the bytes all the same."""
    arrays = {"alpha": np.arange(7.0), "omega": np.linspace(1, 2, 31 * 7).reshape(31, 7)}
    bundle(arrays).write(directory / "m-1")
    if sibling:
        bundle({name: array + 1 for name, array in arrays.items()}).write(directory / "m-2")
    index = directory / "m-1.index"
    index.write_bytes(index.read_bytes().replace(b"alpha", b"alqia"))
    return ckptparse.recover(directory / "m-1")


def test_a_checksum_proves_bytes_and_not_names(tmp_path: Path) -> None:
    recovery = damaged_index(tmp_path, sibling=False)
    assert {name: t.status.value for name, t in recovery.items()} == {
        "alqia": "unverified",
        "omega": "unverified",
    }
    assert "its name, dtype and shape come from a damaged part" in recovery["alqia"].note


def test_a_sibling_with_the_same_entry_confirms_it(tmp_path: Path) -> None:
    recovery = damaged_index(tmp_path, sibling=True)
    assert recovery["omega"].status == "verified" and "m-2.index" in str(recovery["omega"].method)
    # The damaged index calls it "alqia".
    assert recovery["alpha"].status == "verified" and "m-2.index" in str(recovery["alpha"].method)


def test_a_sibling_confirms_no_checksum_so_nothing_is_derived_from_a_damaged_one(
    tmp_path: Path,
) -> None:
    made = {step: bundle({"rate": np.float32(step), "w": np.ones(9)}) for step in (1, 2)}
    for step, one in made.items():
        one.write(tmp_path / f"m-{step}")
    entry = made[1].entries[b"rate"]
    assert isinstance(entry, builder.Entry) and entry.crc is not None
    index = tmp_path / "m-1.index"
    stored = builder.fixed32(entry.crc)
    index.write_bytes(index.read_bytes().replace(stored, b"\1\2\3\4"))
    tensor = ckptparse.recover(tmp_path / "m-1")["rate"]
    assert tensor.status == "unverified"


def test_a_v1_tensor_whose_other_slices_are_in_a_lost_file_is_partial(tmp_path: Path) -> None:
    value = np.arange(12, dtype=np.float32).reshape(6, 2)
    for number, rows in enumerate(builder.split_rows(6, 2, 2)):
        file = v1_builder.LegacyFile()
        listed = file.declare("t", (6, 2), builder.FLOAT)
        file.add_slice(listed, rows, value[builder.region(rows, value.shape)])
        file.write(tmp_path / f"m-{number:05d}-of-00002")
    whole = ckptparse.recover(tmp_path / "m")["t"]
    assert whole.status == "verified" and faults.same(whole.read(), value)
    (tmp_path / "m-00001-of-00002").unlink()
    tensor = ckptparse.recover(tmp_path / "m")["t"]
    assert tensor.status == "partial" and tensor.ranges == ((0, 6),)
    assert tensor.read(fill=-1)[:3].tolist() == value[:3].tolist()


def test_a_frozen_tensor_comes_back_from_a_sibling(tmp_path: Path) -> None:
    frozen = np.random.default_rng(1).normal(size=1000)
    for step in (1, 2):
        bundle({"frozen": frozen, "trained": frozen * (step + 1)}).write(tmp_path / f"m-{step}")
    data_of(tmp_path / "m-1").unlink()
    recovery = ckptparse.recover(tmp_path / "m-1")
    assert recovery["frozen"].status == "corrected" and "trained" not in recovery
    assert recovery["frozen"].source is not None
    assert recovery["frozen"].source.path.endswith("m-2.data-00000-of-00001")
    assert "frozen" not in ckptparse.recover(tmp_path / "m-1", siblings=False)


def test_how_a_tensor_came_back_is_said_once_and_without_an_unknown_cause(tmp_path: Path) -> None:
    faults.write_run(tmp_path)
    faults.Files(tmp_path).shard(0).unlink()
    shifted = tmp_path / "shifted" / "m"
    shifted.parent.mkdir()
    bundle({"w": np.arange(1.0, 200.0), "x": np.arange(5.0, 300.0)}).write(shifted)
    data_of(shifted).write_bytes(b"abc" + data_of(shifted).read_bytes())
    text = str(ckptparse.recover(shifted))
    assert "  corrected  (shifted)\n" in text
    assert "      got back by reading it +3 bytes from its place" in text
    for said in (text, str(ckptparse.recover(tmp_path / faults.BASE))):
        assert "(unknown)" not in said and "by found" not in said
        assert "taking a sibling's bytes – " not in said


def test_a_tensor_that_is_stored_twice_comes_back_from_its_twin(tmp_path: Path) -> None:
    recovery = ckptparse.recover(truncated(tmp_path, 500, twins=True))
    tensor = recovery["b"]
    assert tensor.status == "corrected" and tensor.method == "taking another tensor's bytes"
    assert faults.same(tensor.read(), recovery["a"].read())
    assert "shard.shifted" not in {problem.code for problem in recovery.report.problems}


def test_tensors_of_a_mixed_save_are_told_from_damage(tmp_path: Path) -> None:
    faults.write_run(tmp_path, siblings=False)
    other = faults.make_bundle(faults.values(150))
    for number in (0, 1):
        faults.Files(tmp_path).shard(number).write_bytes(bytes(other.shards[number]))
    report = ckptparse.verify(tmp_path / faults.BASE)
    assert "set.mixed" in {problem.code for problem in report.problems}
    assert report.tensors["embedding"].cause == "mixed save"
    assert report.tensors["frozen/kernel"].status == "verified"


# ------------------------------------------------------------------------------------ other steps


def test_the_report_of_a_damaged_step_names_the_whole_ones(tmp_path: Path) -> None:
    faults.write_run(tmp_path)
    faults.Files(tmp_path).shard(0).unlink()
    for report in (
        ckptparse.verify(tmp_path),
        ckptparse.recover(tmp_path / faults.BASE).report,
    ):
        assert [(Path(o.path).name, o.step, o.share, o.ok) for o in report.others] == [
            ("ckpt-300", 300, 1.0, True),
            ("ckpt-100", 100, 1.0, True),
        ]
        assert "ckpt-300  100% verified" in str(report)


def test_a_whole_checkpoint_needs_no_others(tmp_path: Path) -> None:
    faults.write_run(tmp_path)
    assert ckptparse.verify(tmp_path).others == ()


# ---------------------------------------------------------------------------------------- reports


def test_the_first_lines_tell_what_is_lost_and_what_is_not(tmp_path: Path) -> None:
    lines = str(ckptparse.verify(truncated(tmp_path, 500))).splitlines()
    assert lines[0].endswith("m  damaged  3 tensors: 1 verified, 1 partial, 1 missing")
    assert lines[2].startswith("  shard.truncated  error  ")
    assert any("the file has 500" in line for line in lines[3:5])
    assert lines[-1] == (
        f"Next: `ckptparse recover {tmp_path / 'm'} -o OUT` saves 1 of 3 tensors, and with "
        "`--offer plausible` 1 more in part or without proof"
    )


def test_the_last_line_of_a_report_names_a_whole_checkpoint(tmp_path: Path) -> None:
    faults.write_run(tmp_path)
    faults.Files(tmp_path).shard(0).unlink()
    report = ckptparse.verify(tmp_path / faults.BASE)
    assert str(report).splitlines()[-1].endswith("ckpt-300, which is whole")
    assert ckptparse.verify(tmp_path / "ckpt-300").next_step == ""


def test_where_no_tensor_can_be_named_the_report_asks_for_another_copy(tmp_path: Path) -> None:
    prefix = truncated(tmp_path, 500)
    Path(f"{prefix}.index").unlink()
    assert f"copy or download '{prefix}.index'" in ckptparse.verify(prefix).next_step


def test_a_report_becomes_json_and_maps_every_file(tmp_path: Path) -> None:
    report = ckptparse.verify(truncated(tmp_path, 500))
    plain = json.loads(json.dumps(report.to_dict()))
    assert plain["ok"] is False and plain["counts"] == report.counts
    (data,) = (file for path, file in plain["files"].items() if ".data-" in path)
    assert data == {
        "role": "shard",
        "size": 500,
        "ranges": [
            [0, 400, "verified"],
            [400, 500, "unverified"],
            [500, 800, "absent"],
            [800, 1200, "absent"],
        ]
        if len(data["ranges"]) == 4
        else [[0, 400, "verified"], [400, 500, "unverified"], [500, 1200, "absent"]],
        "pieces": [],
    }


def test_names_that_move_a_cursor_are_printed_harmlessly(tmp_path: Path) -> None:
    arrays = {"a\x1b[2J\n": np.arange(50.0)}
    bundle(arrays).write(tmp_path / "m")
    data_of(tmp_path / "m").unlink()
    text = str(ckptparse.verify(tmp_path / "m"))
    assert "\x1b" not in text and "a\\x1b[2J\\n" in text


def test_the_object_graph_is_reported_beside_the_tensors(tmp_path: Path) -> None:
    faults.write_run(tmp_path, siblings=False)
    path = faults.Files(tmp_path).shard(1)
    data = bytearray(path.read_bytes())
    faults.flip(data, len(data) - 20, 3)
    path.write_bytes(data)
    report = ckptparse.verify(tmp_path / faults.BASE)
    assert report.object_graph is not None and report.object_graph.status == "corrupt"
    assert builder.OBJECT_GRAPH not in report.tensors
    recovery = ckptparse.recover(tmp_path / faults.BASE)
    assert builder.OBJECT_GRAPH not in recovery and recovery.object_graph is not None
    assert recovery.object_graph.status == "corrected"
    assert recovery.object_graph.read().item() == builder.flat_object_graph(faults.values(200))


# --------------------------------------------------------------------------------------- mapping


def test_a_recovery_is_a_mapping_of_what_came_back(tmp_path: Path) -> None:
    recovery = ckptparse.recover(truncated(tmp_path, 500))
    assert list(recovery) == ["a", "b"] and len(recovery) == 2
    assert recovery["a"].dtype == np.float32 and recovery["a"].shape == (100,)
    with pytest.raises(TensorNotFoundError, match="it is missing"):
        recovery["c"]
    with pytest.raises(TensorNotFoundError, match="is not known") as caught:
        recovery["b/.ATTRIBUTES/VARIABLE_VALUE"]
    assert caught.value.closest == ("b",)


def test_values_are_checked_again_when_they_are_read(tmp_path: Path) -> None:
    prefix = truncated(tmp_path, 1200)
    recovery = ckptparse.recover(prefix)
    data = bytearray(data_of(prefix).read_bytes())
    faults.flip(data, 5, 1)
    data_of(prefix).write_bytes(data)
    with pytest.raises(ckptparse.ChecksumError, match="has changed since"):
        recovery["a"].read()


def test_nothing_at_all_and_what_was_never_a_checkpoint_raise(tmp_path: Path) -> None:
    for function in (ckptparse.verify, ckptparse.recover):
        with pytest.raises(ckptparse.CheckpointNotFoundError):
            function(tmp_path / "nothing")
        (tmp_path / "page.html").write_bytes(faults.PAGE_OF_HTML)
        with pytest.raises(NotACheckpointError) as caught:
            function(tmp_path / "page.html")
        assert caught.value.identity is not None and caught.value.identity.kind == "html"


def test_a_saved_model_without_variables_is_said_to_have_none() -> None:
    saved_models = Path(__file__).resolve().parent.parent / "fixtures" / "saved_model"
    report = ckptparse.verify(saved_models / "tf1_no_variables")
    assert report.ok
    assert report.format == "graph"
    with pytest.raises(NotACheckpointError, match="nothing in it can be mended"):
        ckptparse.recover(saved_models / "tf1_no_variables")
    assert str(ckptparse.verify(saved_models / "no_variables_tf2")).endswith("  ok  0 tensors")


def test_limits_are_held(tmp_path: Path) -> None:
    prefix = truncated(tmp_path, 1200)
    report = ckptparse.verify(prefix, limits=Limits(index_bytes=10))
    assert next(problem.code for problem in report.problems) == "limit.reached"


# ------------------------------------------------------------------------------------------- cost

MEASURE = """
import sys, threading, time
import ckptparse, ckptparse.examination.verify, ckptparse.recovery.recover
def anonymous():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("RssAnon"))
peak, done = 0, False
def watch():
    global peak
    while not done:
        peak = max(peak, anonymous())
        time.sleep(0.001)
before = anonymous()
thread = threading.Thread(target=watch)
thread.start()
report = ckptparse.verify(sys.argv[1])
done = True
thread.join()
print(report.ok, (peak - before) // 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc")
def test_verifying_takes_little_memory_whatever_the_size(tmp_path: Path) -> None:
    made = builder.Bundle()
    value = np.random.default_rng(0).normal(size=4 << 20).astype(np.float32)
    for number in range(8):
        made.add(f"w{number}", value)
    made.write(tmp_path / "m")
    project = Path(ckptparse.__file__).parent.parent
    printed = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path / "m")],
        env={"PYTHONPATH": str(project)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert printed[0] == "True" and int(printed[1]) < 32


def test_verifying_strings_takes_little_memory_whatever_their_size(tmp_path: Path) -> None:
    made = builder.Bundle()
    made.add("s", np.array([b"short", bytes(40 << 20), b""], object))
    path = made.write(tmp_path / "m")
    ckptparse.verify(path)  # whatever is imported only once
    with allocating_at_most(8 * MEGABYTE):
        assert ckptparse.verify(path).ok


def test_lost_tensors_are_found_in_a_disk_image(tmp_path: Path) -> None:
    arrays = {
        name: np.random.default_rng(n).normal(size=200 + n) for n, name in enumerate("abcdef")
    }
    bundle(arrays).write(tmp_path / "m")
    data = data_of(tmp_path / "m").read_bytes()
    data_of(tmp_path / "m").unlink()
    noise = np.random.default_rng(9).bytes(1 << 20)
    image = tmp_path / "disk.img"
    # The file lies there in two stretches, as file systems lay out large ones.
    image.write_bytes(
        noise[: 300 * 512] + data[:4096] + noise[: 512 * 77] + data[4096:] + noise[:777]
    )
    assert not ckptparse.recover(tmp_path / "m")
    recovery = ckptparse.recover(tmp_path / "m", evidence=[image])
    assert {name: t.status.value for name, t in recovery.items()} == dict.fromkeys(
        "abcdef", "corrected"
    )
    for name, tensor in recovery.items():
        assert faults.same(tensor.read(), arrays[name])
        assert tensor.source is not None and tensor.source.path == str(image)


def test_progress_ends_with_all_bytes(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    prefix = truncated(tmp_path, 1200)
    ckptparse.verify(prefix, progress=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (1200, 1200)


def test_a_damaged_v1_file_names_the_whole_ones_beside(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        file = v1_builder.LegacyFile()
        file.add("w", np.arange(50.0) * step)
        file.write(tmp_path / f"m-{step}")
    path = tmp_path / "m-2"
    path.write_bytes(path.read_bytes()[:200])
    for report in (ckptparse.verify(path), ckptparse.recover(path).report):
        assert [(Path(o.path).name, o.share) for o in report.others] == [("m-3", 1.0), ("m-1", 1.0)]


@pytest.mark.parametrize(
    "pattern", [b"\0", b"\1", b"\0\1\1\0", b"\0\1\6a\x08\1\x12\0\x28\4"], ids=bytes.hex
)
def test_a_hostile_index_costs_seconds_at_most(pattern: bytes, tmp_path: Path) -> None:
    (tmp_path / "m.index").write_bytes(pattern * (300_000 // len(pattern)))
    start = time.perf_counter()
    report = ckptparse.verify(tmp_path / "m")
    assert not report.ok
    assert time.perf_counter() - start < 30


def test_a_sliced_tensor_of_which_some_slices_were_got_back_says_how_many(tmp_path: Path) -> None:
    """Bytes were put in before one slice; the other's data file was zeroed."""
    rng = np.random.default_rng(4)
    made = builder.Bundle()
    made.add_sliced("w", rng.normal(size=(40, 60)), builder.split_rows(40, 2, 2), shards=[0, 1])
    made.add("x", rng.normal(size=500))
    made.write(tmp_path / "model")
    first, second = (tmp_path / f"model.data-0000{n}-of-00002" for n in range(2))
    first.write_bytes(b"30 bytes that belong elsewhere" + first.read_bytes())
    second.write_bytes(bytes(second.stat().st_size))
    tensor = ckptparse.recover(tmp_path / "model")["w"]
    assert (tensor.status, tensor.method) == ("partial", "reading it +30 bytes from its place")
    assert tensor.note.startswith("1 of 2 slices are proved; ")
    assert "are whole" not in tensor.note


def test_an_index_that_was_converted_is_named_and_its_offsets_are_those_before_that(
    tmp_path: Path,
) -> None:
    """The data file was not: `inside` tells the two apart."""
    bundle({"w": np.arange(3000, dtype="<f4"), "v": np.ones(7)}).write(tmp_path / "model")
    index = tmp_path / "model.index"
    index.write_bytes(base64.encodebytes(index.read_bytes()))
    for report in (
        ckptparse.verify(tmp_path / "model"),
        ckptparse.recover(tmp_path / "model").report,
    ):
        (problem,) = report.problems
        assert (problem.code, problem.where) == ("index.text", str(index))
        assert "base64" in problem.message
        tensor = report.tensors["w"]
        assert tensor.status == "verified"
        assert [record.inside for record in tensor.evidence] == ["conversion undone", None]
        assert report.files[str(index)].size == index.stat().st_size


def test_carriage_returns_that_became_line_feeds_are_no_other_save(tmp_path: Path) -> None:
    arrays = {f"w{n}": np.random.default_rng(n).normal(size=9000).astype("<f4") for n in range(4)}
    bundle(arrays).write(tmp_path / "model")
    data = tmp_path / "model.data-00000-of-00001"
    data.write_bytes(data.read_bytes().replace(b"\r\n", b"\n").replace(b"\r", b"\n"))
    recovery = ckptparse.recover(tmp_path / "model")
    codes = {problem.code for problem in recovery.report.problems}
    assert "shard.text" in codes and "set.mixed" not in codes
    assert {(str(one.status), str(one.cause)) for one in recovery.values()} == {
        ("unverified", "text")
    }
