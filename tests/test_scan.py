"""Checkpoints inside images: listed, put together, got back."""

from __future__ import annotations

import json
import os
from itertools import zip_longest
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree as ET

import builder
import numpy as np
import pytest
import v1_builder
from instruments import MEGABYTE, allocating_at_most
from situations.models import make_model, write

import ckptparse
from ckptparse.errors import MalformedError
from ckptparse.files import walking
from ckptparse.files.local import LOCAL, LocalSource
from ckptparse.files.memory import MemorySource
from ckptparse.recovery.imaging import scan as scan_module
from ckptparse.recovery.imaging.mapfile import Mapfile
from ckptparse.recovery.imaging.pieces import Piece
from ckptparse.recovery.imaging.splits import find_split

BLOCK = 4096


def noise(blocks: int, seed: int) -> bytes:
    return np.random.default_rng(seed).bytes(blocks * BLOCK)


def pad(data: bytes) -> bytes:
    return data + bytes(-len(data) % BLOCK)


def make_image(directory: Path, seeds: tuple[int, ...] = (0, 1)) -> Path:
    """Two checkpoints, the data file of each in two stretches, and what else a disk holds."""
    parts = [noise(3, 100)]
    for seed in seeds:
        prefix = directory / f"made-{seed}" / "model"
        raw = write(make_model(seed, rows=500), prefix).read_bytes()
        index = Path(f"{prefix}.index").read_bytes()
        cut = 41 * BLOCK
        parts += [raw[:cut], noise(7, seed), pad(index), noise(2, seed + 50), pad(raw[cut:])]
    image = directory / "disk.img"
    image.write_bytes(b"".join(parts))
    return image


def check(recovery: ckptparse.Recovery, seed: int) -> None:
    model = make_model(seed, rows=500)
    assert set(recovery) == set(model.arrays)
    for name, original in model.arrays.items():
        assert recovery[name].status in ("verified", "corrected", "derived"), name
        assert recovery[name].read().tobytes() == np.asarray(original).tobytes()


def test_the_checkpoints_of_an_image_are_listed_and_got_back(tmp_path: Path) -> None:
    found = ckptparse.scan(make_image(tmp_path))
    assert [one.name for one in found] == ["ckpt-70001", "ckpt-70000"]
    assert [one.step for one in found] == [70001, 70000] and found.block == BLOCK
    for seed, one in zip((1, 0), found, strict=True):
        assert one.format == "v2" and one.share == 1.0
        assert one.tensors == len(make_model(seed).arrays)
        check(one.recover(), seed)


@pytest.mark.parametrize("block", [512, 1024, 2048])
def test_the_index_tells_how_large_the_blocks_of_an_image_are(block: int, tmp_path: Path) -> None:
    raw = write(make_model(0, rows=500), tmp_path / "made" / "model").read_bytes()
    index = (tmp_path / "made" / "model.index").read_bytes()
    parts = [b"x" * 5 * block, raw[: 201 * block], b"y" * 3 * block, index]
    parts += [bytes(-len(index) % block), b"z" * 2 * block, raw[201 * block :], b"z" * block]
    if sum(map(len, parts[:3])) // block % 2 == 0:
        parts.insert(0, b"w" * block)
    (tmp_path / "disk.img").write_bytes(b"".join(parts))
    found = ckptparse.scan(tmp_path / "disk.img")
    assert found.block == block and [one.share for one in found] == [1.0]
    check(found[0].recover(), 0)


@pytest.mark.parametrize("block", [512, 1024])
def test_files_that_begin_at_a_coarser_grid_by_chance_are_found_on_theirs(
    block: int, tmp_path: Path
) -> None:
    """The only index begins at a multiple of 4 KiB, as one in eight does on blocks of 512 bytes."""
    raw = write(make_model(0, rows=500), tmp_path / "made" / "model").read_bytes()
    index = (tmp_path / "made" / "model.index").read_bytes()
    parts = [noise(2, 1), index, bytes(-len(index) % block), b"x" * 3 * block]
    parts += [raw[: 201 * block], b"z" * 2 * block, raw[201 * block :], b"z" * block]
    image, state = tmp_path / "disk.img", tmp_path / "state.json"
    image.write_bytes(b"".join(parts))
    found = ckptparse.scan(image, state=state)
    assert found.block in {block, 512}
    assert [(one.offset, one.share) for one in found] == [(2 * BLOCK, 1.0)]
    check(found[0].recover(), 0)
    assert json.loads(state.read_text())["fine"]["placements"]
    assert ckptparse.scan(image, state=state).to_dict() == found.to_dict()


def test_what_an_image_holds_says_where_its_bytes_lie(tmp_path: Path) -> None:
    """The files of the checkpoint are none of the image's own: their pieces are."""
    image = make_image(tmp_path, (0,))
    recovery = ckptparse.recover(image)
    raw, report = image.read_bytes(), recovery.report.to_dict()
    for name in ("embedding", "layer_2/kernel"):
        place = report["tensors"][name]["source"]
        pieces = report["files"][place["path"]]["pieces"]
        assert {path for path, _, _ in pieces} == {str(image)}
        data = b"".join(raw[offset : offset + size] for _, offset, size in pieces)
        own = data[place["offset"] :][: place["size"]]
        assert own == make_model(0, rows=500).arrays[name].tobytes()
    # One of its slots lies in both stretches of the data file.
    tree = ET.fromstring(recovery.to_dfxml())  # noqa: S314 - it was just written
    space = tree.tag.removesuffix("dfxml")
    held = {one.findtext(f"{space}filename"): one for one in tree.iter(f"{space}fileobject")}
    for name, number in (("embedding/Adam", 2), ("layer_2/kernel", 1)):
        runs = [one.attrib for one in held[name].iter(f"{space}byte_run")]
        assert len(runs) == number
        there = [(int(run["img_offset"]), int(run["len"])) for run in runs]
        own = b"".join(raw[offset : offset + size] for offset, size in there)
        assert own == make_model(0, rows=500).arrays[name].tobytes()
        assert held[name].findtext(f"{space}parent_object/{space}inode") == "1"


def test_of_several_checkpoints_under_other_names_the_most_complete_is_taken(
    tmp_path: Path,
) -> None:
    """Nobody knows which of the rescued files is which."""
    found = tmp_path / "recup_dir.1"
    found.mkdir()
    for seed, cut in ((0, 41 * BLOCK), (1, None)):
        prefix = tmp_path / f"made-{seed}" / "model"
        raw = write(make_model(seed, rows=500), prefix).read_bytes()
        (found / f"f{seed}0001.elf").write_bytes(Path(f"{prefix}.index").read_bytes())
        (found / f"f{seed}0002.ext").write_bytes(raw[:cut])
    assert [one.step for one in ckptparse.scan(found)] == [70001, 70000]
    check(ckptparse.recover(found), 1)


def test_a_scan_takes_little_memory_whatever_the_size(tmp_path: Path) -> None:
    image = make_image(tmp_path, seeds=(0,))
    with image.open("r+b") as file:
        file.truncate(image.stat().st_size + (100 << 20))
    # Pieces of 4 MiB, and registers: 8 times 4 bytes for each block of 4 KiB.
    with allocating_at_most(48 * MEGABYTE):
        found = ckptparse.scan(image)
    assert [one.share for one in found] == [1.0]


def test_recover_takes_an_image(tmp_path: Path) -> None:
    check(ckptparse.recover(make_image(tmp_path, (0,))), 0)


def test_the_files_of_a_directory_are_one_image(tmp_path: Path) -> None:
    prefix = tmp_path / "made" / "model"
    data = write(make_model(0, rows=500), prefix)
    found = tmp_path / "lost+found"
    found.mkdir()
    # Names that a file rescuer gives.
    (found / "f0001.bin").write_bytes(Path(f"{prefix}.index").read_bytes())
    (found / "f0002.bin").write_bytes(data.read_bytes())
    (found / "f0003.txt").write_bytes(b"something else")
    (one,) = ckptparse.scan(found)
    assert one.share == 1.0 and one.offset == 0
    check(one.recover(), 0)
    check(ckptparse.recover(found), 0)


def test_a_directory_may_have_more_files_than_a_process_may_open(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    prefix = tmp_path / "made" / "model"
    data = write(make_model(0, rows=500), prefix)
    found = tmp_path / "lost+found"
    found.mkdir()
    for number in range(300):
        (found / f"f{number:04d}.txt").write_bytes(b"something else")
    (found / "g0001.bin").write_bytes(Path(f"{prefix}.index").read_bytes())
    (found / "g0002.bin").write_bytes(data.read_bytes())
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))
    try:
        (one,) = ckptparse.scan(found)
        check(one.recover(), 0)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_lost_part_leaves_its_share(tmp_path: Path) -> None:
    image = make_image(tmp_path, (0,))
    data = bytearray(image.read_bytes())
    # The second stretch is gone.
    data[-30 * BLOCK :] = noise(30, 5)
    image.write_bytes(data)
    (one,) = ckptparse.scan(image)
    assert 0.2 < one.share < 0.9
    recovery = one.recover()
    model = make_model(0, rows=500)
    sure = [name for name in recovery if recovery[name].status in ("verified", "corrected")]
    assert sure
    for name in sure:
        assert recovery[name].read().tobytes() == np.asarray(model.arrays[name]).tobytes()


def test_an_index_inside_that_lost_its_header_may_name_more_data_files(tmp_path: Path) -> None:
    made = builder.Bundle()
    weights = np.random.default_rng(1).normal(size=(9, 500)).astype(np.float32)
    for number, values in enumerate(weights):
        made.add(f"w{number}", values, shard=int(number == 8))
    index = made.index(block_size=100)
    data = bytes(made.shards[0])
    path = tmp_path / "disk.img"
    path.write_bytes(noise(1, 2) + pad(bytes(40) + index[40:]) + pad(data) + noise(1, 3))
    (found,) = ckptparse.scan(path)
    recovery = found.recover()
    assert np.array_equal(recovery["w7"].read(), weights[7])
    assert recovery.report.tensors["w8"].status == "missing"


def test_a_v1_file_inside_is_listed_and_got_back(tmp_path: Path) -> None:
    value = np.arange(600, dtype=np.float32).reshape(20, 30)
    path = tmp_path / "model.ckpt"
    made = v1_builder.LegacyFile()
    made.add("w", value)
    made.write(path)
    image = tmp_path / "disk.img"
    image.write_bytes(noise(2, 0) + path.read_bytes() + noise(2, 1))
    (one,) = ckptparse.scan(image)
    assert one.format == "v1"
    assert one.recover()["w"].read().tolist() == value.tolist()


def v1_saves(count: int = 12) -> tuple[list[dict[str, np.ndarray]], list[bytes]]:
    """Return two saves of one model, and their V1 files, whose blocks have equal sizes."""
    saves = [
        {
            f"w{n:02d}": np.random.default_rng([n, save]).normal(size=300).astype(np.float32)
            for n in range(count)
        }
        for save in range(2)
    ]
    files = []
    for arrays in saves:
        made = v1_builder.LegacyFile()
        for name, array in arrays.items():
            made.add(name, array)
        files.append(made.data(block_size=200))
    assert len(files[0]) == len(files[1]) > 3 * BLOCK
    return saves, files


def offered(recovery: ckptparse.Recovery) -> dict[str, str]:
    return {name: str(recovery[name].status) for name in recovery}


@pytest.mark.parametrize("seam", [1, 2, 3])
def test_a_v1_file_inside_is_of_one_save(seam: int, tmp_path: Path) -> None:
    saves, (first, second) = v1_saves()
    image = tmp_path / "disk.img"
    mixed = first[: seam * BLOCK] + second[seam * BLOCK :]
    image.write_bytes(noise(2, 0) + pad(mixed) + noise(2, 1))
    (one,) = ckptparse.scan(image)
    recovery = one.recover()
    statuses = offered(recovery)
    sure = [name for name, status in statuses.items() if status == "verified"]
    assert 4 <= len(sure) < 11
    assert any(all(np.array_equal(recovery[n].read(), save[n]) for n in sure) for save in saves)
    # The others are there, and it is said what is not known of them.
    others = [name for name in statuses if name not in sure]
    assert len(sure) + len(others) >= 11
    assert sum("another save" in (recovery[name].note or "") for name in others) >= 11 - len(sure)


def test_a_v1_file_inside_in_one_part_is_verified(tmp_path: Path) -> None:
    (arrays, _), (data, _) = v1_saves()
    image = tmp_path / "disk.img"
    image.write_bytes(noise(2, 0) + pad(data) + noise(2, 1))
    (one,) = ckptparse.scan(image)
    recovery = one.recover()
    assert offered(recovery) == dict.fromkeys(arrays, "verified")
    # A changed bit that is found ties together what lies on its sides.
    changed = bytearray(image.read_bytes())
    changed[3 * BLOCK + 300] ^= 4
    image.write_bytes(changed)
    statuses = offered(ckptparse.scan(image)[0].recover())
    assert sorted(statuses.values()) == ["corrected", *["verified"] * 11]


def test_a_whole_v1_file_among_rescued_ones_is_verified_beside_damage(tmp_path: Path) -> None:
    (arrays, _), (data, _) = v1_saves()
    (tmp_path / "lost+found").mkdir()
    changed = bytearray(data)
    changed[BLOCK + 100 : BLOCK + 600] = bytes(500)
    (tmp_path / "lost+found" / "#12").write_bytes(changed)
    (tmp_path / "lost+found" / "#13").write_bytes(noise(1, 2))
    (one,) = ckptparse.scan(tmp_path / "lost+found")
    statuses = offered(one.recover())
    assert [name for name in arrays if statuses.get(name) != "verified"] == ["w03"]


def test_an_image_without_a_checkpoint_gives_none(tmp_path: Path) -> None:
    image = tmp_path / "disk.img"
    image.write_bytes(noise(50, 0))
    assert len(ckptparse.scan(image)) == 0
    with pytest.raises(ckptparse.NotACheckpointError):
        ckptparse.recover(image)


def test_a_scan_goes_on_from_its_state(tmp_path: Path) -> None:
    image, state = make_image(tmp_path), tmp_path / "state.json"
    first = ckptparse.scan(image, state=state)
    known = json.loads(state.read_text())
    assert known["searched"] == image.stat().st_size and known["placements"]
    # Nothing is looked for again: without its tables, the state would give no checkpoint.
    calls: list[int] = []
    again = ckptparse.scan(image, state=state, progress=lambda done, total: calls.append(done))
    assert again.to_dict() == first.to_dict()
    known["tables"] = []
    state.write_text(json.dumps(known))
    assert len(ckptparse.scan(image, state=state)) == 0


@pytest.mark.parametrize("count", [1, 2, 3])
def test_recover_tells_how_many_others_an_image_holds(count: int, tmp_path: Path) -> None:
    image = make_image(tmp_path, tuple(range(count)))
    problems = [one for one in ckptparse.recover(image).report.problems if one.is_aside]
    assert [one.code for one in problems] == ["scan.others"] * (count > 1)
    for one in problems:
        assert ("another checkpoint was" if count == 2 else "2 other") in one.message
        assert f"`ckptparse scan {image}`" in one.message


def test_a_scan_that_was_interrupted_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, state = make_image(tmp_path), tmp_path / "state.json"
    monkeypatch.setattr(scan_module, "_STEP", image.stat().st_size // 4)
    wanted = ckptparse.scan(image).to_dict()

    def interrupt(done: int, total: int) -> None:
        if done > total // 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ckptparse.scan(image, state=state, progress=interrupt)
    assert 0 < json.loads(state.read_text())["searched"] < image.stat().st_size
    calls: list[int] = []
    found = ckptparse.scan(image, state=state, progress=lambda done, total: calls.append(done))
    assert found.to_dict() == wanted
    assert calls[0] == image.stat().st_size // 2


@pytest.mark.parametrize("what", ["other bytes", "other bytes of the same time", "directory"])
def test_the_state_of_another_image_is_not_believed(what: str, tmp_path: Path) -> None:
    image, state = make_image(tmp_path, (0,)), tmp_path / "state.json"
    path = image
    if what == "directory":
        path = tmp_path / "found"
        path.mkdir()
        image = image.rename(path / "a")
    before = image.stat()
    ckptparse.scan(path, state=state)
    kept = state.read_text()
    data = bytearray(image.read_bytes())
    data[0:1024] = bytes(range(1, 9)) * 128
    image.write_bytes(data)
    if "same time" in what:
        os.utime(image, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(MalformedError, match="another image, or this one has changed"):
        ckptparse.scan(path, state=state)
    assert state.read_text() == kept


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"format": 1, "size": 3}'])
def test_a_state_file_of_something_else_is_refused(text: str, tmp_path: Path) -> None:
    image, state = make_image(tmp_path, (0,)), tmp_path / "state.json"
    state.write_text(text)
    with pytest.raises(MalformedError, match="state file of a scan"):
        ckptparse.scan(image, state=state)
    assert state.read_text() == text


def test_what_ddrescue_could_not_read_is_nowhere(tmp_path: Path) -> None:
    image, mapfile = make_image(tmp_path, (0,)), tmp_path / "disk.map"
    size = image.stat().st_size
    # Of the bad part old bytes of the same block may stand in the image.
    start = 3 * BLOCK + 8 * BLOCK
    mapfile.write_text(
        "# Mapfile. Created by GNU ddrescue\n"
        f"0x00000000     +               1\n"
        f"0x00000000  {start:#010x}  +\n{start:#010x}  0x00000200  -\n"
        f"{start + 512:#010x}  {size - start - 512:#010x}  +\n"
    )
    (one,) = ckptparse.scan(image, mapfile=mapfile)
    recovery = one.recover()
    model = make_model(0, rows=500)
    damaged = [name for name, tensor in recovery.items() if tensor.status != "verified"]
    assert len(damaged) <= 1
    for name, tensor in recovery.items():
        values = tensor.read()
        original = np.asarray(model.arrays[name])
        shown = ~np.ma.getmaskarray(values)
        if tensor.status != "unverified":
            assert (np.ma.getdata(values)[shown] == original[shown]).all()


def test_a_map_file_gives_what_was_not_read() -> None:
    text = b"# x\n0x100 ? 1\n0x0 0x200 +\n0x200 0x200 -\n0x400 0x100 /\n0x600 0x10 +\n0x610 0x8 *\n"
    known = Mapfile.from_bytes(text)
    assert known.bad == ((0x200, 0x500), (0x610, 0x618))
    assert known.within(0x300, 0x612) == [(0, 0x200), (0x310, 0x312)]


@pytest.mark.parametrize(
    "text",
    [b"", b"# only\n", b"0 + 1\n1 2\n", b"0 + 1\nx 2 +\n", b"0 + 1\n1 2 x\n", b"0 + 1\n-1 2 +\n"],
)
def test_what_is_no_map_file_is_refused(text: bytes) -> None:
    with pytest.raises(MalformedError, match="map file of ddrescue"):
        Mapfile.from_bytes(text)


def make_folder(directory: Path) -> Path:
    """A whole checkpoint under other names, and two more files in directories of their own."""
    found = directory / "lost+found"
    found.mkdir()
    prefix = directory / "made" / "model"
    data = write(make_model(0, rows=500), prefix)
    (found / "f0001.bin").write_bytes(Path(f"{prefix}.index").read_bytes())
    (found / "f0002.bin").write_bytes(data.read_bytes())
    for name in ("a", "b"):
        (found / name).mkdir()
        (found / name / "f").write_bytes(b"something else")
    return found


@pytest.mark.parametrize(
    ("bound", "told"),
    [
        ((scan_module, "_MOST_FILES", 3), "3 files were looked at"),
        ((walking, "MOST_FOLDERS", 2), "directories were looked at"),
    ],
)
def test_a_directory_that_is_scanned_in_part_says_so(
    bound: tuple[ModuleType, str, int], told: str, tmp_path: Path, monkeypatch: Any
) -> None:
    module, name, most = bound
    found = make_folder(tmp_path)
    monkeypatch.setattr(module, name, most + 1)
    whole = ckptparse.scan(found)
    assert whole.problems == () and whole.to_dict()["problems"] == []
    monkeypatch.setattr(module, name, most)
    cut = ckptparse.scan(found)
    (problem,) = cut.problems
    assert (problem.code, problem.where) == ("scan.unsearched", str(found))
    assert problem.severity == "warning" and told in problem.message
    assert cut.to_dict()["problems"] == [problem.to_dict()]
    assert problem.message in str(cut)
    for recovery in (cut[0].recover(), ckptparse.recover(found)):
        assert problem in recovery.report.problems and recovery.report.ok
        check(recovery, 0)


def test_of_files_that_take_a_request_each_fewer_are_looked_at(
    tmp_path: Path, monkeypatch: Any
) -> None:
    found = make_folder(tmp_path)
    monkeypatch.setattr(scan_module, "_MOST_OBJECTS", 3)
    assert ckptparse.scan(found).problems == ()
    monkeypatch.setattr(LocalSource, "concurrency", 16)
    (problem,) = ckptparse.scan(found).problems
    assert "3 files were looked at" in problem.message


def test_if_nothing_is_found_in_the_part_that_was_scanned_the_error_says_so(
    tmp_path: Path, monkeypatch: Any
) -> None:
    for name in "abcd":
        (tmp_path / name).write_bytes(b"something else")
    monkeypatch.setattr(scan_module, "_MOST_FILES", 3)
    with pytest.raises(ckptparse.NotACheckpointError, match="3 files were looked at"):
        ckptparse.recover(tmp_path)


def test_the_files_of_a_directory_come_before_those_below_it(tmp_path: Path) -> None:
    for name in ("a/1", "b/c/2", "b/3", "d"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    status = LOCAL.stat(str(tmp_path))
    assert status is not None
    orders = []
    for files_first in (True, False):
        files = walking.Walk(LOCAL).iter_files(str(tmp_path), status, files_first=files_first)
        orders.append([Path(file).relative_to(tmp_path).as_posix() for file, _ in files])
    assert orders == [["d", "b/3", "b/c/2", "a/1"], ["a/1", "b/3", "b/c/2", "d"]]


# An image that begins with an index.

TINY = 60


def two_saves() -> list[dict[str, bytes]]:
    """Two saves of tiny tensors: their files, with indexes of several blocks."""
    made = []
    for seed in (1, 2):
        values = np.random.default_rng(seed).normal(0, 0.05, TINY).astype("<f4")
        bundle = builder.Bundle()
        for number, value in enumerate(values):
            bundle.add(f"v{number:03d}", np.array(value))
        made.append(bundle.files("m", block_size=200))
    return made


def interleave(streams: list[bytes], block: int) -> bytes:
    pieces = [
        [data[at : at + block].ljust(block, b"\0") for at in range(0, len(data), block)]
        for data in streams
    ]
    return b"".join(piece or b"" for row in zip_longest(*pieces) for piece in row)


def test_nothing_is_derived_from_blocks_of_two_indexes(tmp_path: Path) -> None:
    """A later block of one index would be read behind the first ones of the other."""
    one, other = two_saves()
    path = tmp_path / "m.index"
    path.write_bytes(interleave([one["m.index"][:1500], other["m.index"][:1500]], 512))
    recovery = ckptparse.recover(tmp_path / "m")
    assert len(recovery) > 20
    assert {str(one.status) for one in recovery.values()} == {"unverified"}
    assert "index.order" in [problem.code for problem in recovery.report.problems]
    assert any("has two values" in problem.message for problem in recovery.report.problems)


def test_blocks_of_an_index_that_lie_there_twice_prove_what_they_say(tmp_path: Path) -> None:
    one, _ = two_saves()
    index = one["m.index"]
    (tmp_path / "m.index").write_bytes(index[:700] + index[:-20])
    recovery = ckptparse.recover(tmp_path / "m")
    assert sum(found.status == "derived" for found in recovery.values()) > TINY // 2


def test_an_image_that_begins_with_a_block_of_an_index_is_scanned(tmp_path: Path) -> None:
    one, other = two_saves()
    data = "m.data-00000-of-00001"
    image = interleave([one["m.index"], other["m.index"]], 512)
    image += interleave([other[data]], 512) + pad(other["m.index"])
    (tmp_path / "disk.img").write_bytes(image)
    assert ckptparse.identify(tmp_path / "disk.img").kind == "v2-index"
    recovery = ckptparse.recover(tmp_path / "disk.img")
    assert len(recovery) == TINY
    assert {str(one.status) for one in recovery.values()} == {"verified"}
    values = np.random.default_rng(2).normal(0, 0.05, TINY).astype("<f4")
    assert [recovery[f"v{number:03d}"].read() for number in range(TINY)] == list(values)


def test_of_borders_that_give_the_same_bytes_the_first_is_taken() -> None:
    data = noise(4, 6) + bytes(3 * BLOCK) + noise(4, 7)
    piece = Piece(5 * BLOCK, len(data), builder.crc(data))
    split = 5 * BLOCK
    image = data[:split] + bytes(2 * BLOCK) + noise(3, 8) + bytes(2 * BLOCK) + data[split:]
    source = MemorySource("disk.img", image)
    parts = find_split(source, piece, (0, len(image)), BLOCK)
    assert [(one.offset, one.size) for one in parts] == [
        (5 * BLOCK, 4 * BLOCK),
        (9 * BLOCK, 7 * BLOCK),
    ]
    assert b"".join(source.read_at(one.position, one.size) for one in parts) == data


def test_an_index_of_which_not_all_entries_are_looked_at_is_listed(tmp_path: Path) -> None:
    """A damaged block holds more entries than are looked at one by one."""
    bundle = builder.Bundle()
    for number in range(6_000):
        bundle.add(f"w{number:05}", np.float32(number))
    index, data = bundle.files("m").values()
    damaged = index[:5_000] + noise(1, 3)[:512] + index[5_512:]
    image = tmp_path / "disk.img"
    image.write_bytes(noise(2, 1) + pad(damaged) + pad(data) + noise(2, 2))
    (found,) = ckptparse.scan(image)
    assert found.tensors > 4_000
    recovery = found.recover()
    assert len(recovery) > 4_000
    assert "limit.reached" in {problem.code for problem in recovery.report.problems}


@pytest.mark.parametrize("lost", [range(70_000, 70_512), range(80_000), range(60_000, 144_000)])
def test_of_small_tensors_alone_those_are_found_that_are_whole(lost: range, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    arrays = {f"w{number:04}": rng.normal(size=12).astype("<f4") for number in range(3_000)}
    bundle = builder.Bundle()
    for name, array in arrays.items():
        bundle.add(name, array)
    index, data = bundle.files("m").values()
    damaged = data[: lost.start] + noise(40, 5)[: len(lost)] + data[lost.stop :]
    image = tmp_path / "disk.img"
    image.write_bytes(noise(2, 1) + pad(index) + noise(2, 2) + pad(damaged) + noise(2, 3))
    (found,) = ckptparse.scan(image)
    assert found.found == pytest.approx(len(data) - len(lost), abs=96)
    recovery = found.recover()
    whole = [name for name, one in recovery.items() if one.status == "verified"]
    assert len(whole) == found.found // 48
    assert all(np.array_equal(recovery[name].read(), arrays[name]) for name in whole)
