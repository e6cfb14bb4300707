"""What `verify` and `recover` do of V1 files: all that they do of V2, by the blocks' checksums."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import builder
import faults
import numpy as np
import pytest
import v1_builder

import ckptparse

NAMES = ("a", "b", "c", "d")


def values(seed: int, *, frozen: str = "") -> dict[str, Any]:
    """Four tensors of 4,000 bytes, each in a block of its own; one that never changes."""
    rng = np.random.default_rng(seed)
    made = {name: rng.normal(size=1000).astype(np.float32) for name in NAMES}
    if frozen:
        made[frozen] = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    return made


def write(path: Path, arrays: dict[str, Any]) -> Any:
    """Write a V1 file; return its table, which tells where its blocks lie."""
    file = v1_builder.LegacyFile()
    for name, array in arrays.items():
        file.add(name, array)
    table = builder.table(file.pairs(), block_size=512)
    path.write_bytes(table.data)
    return table


def block_of(table: Any, arrays: dict[str, Any], name: str) -> tuple[int, int]:
    """Offset and size of the block that holds a tensor's values."""
    found = bytes(table.data).index(arrays[name].tobytes())
    return next((o, s) for o, s in table.blocks if o <= found < o + s)


def damage(path: Path, offset: int, data: bytes) -> None:
    faults.change(path, lambda found: found.__setitem__(slice(offset, offset + len(data)), data))


def test_progress_ends_with_all_bytes(tmp_path: Path) -> None:
    write(tmp_path / "m-1", values(1))
    for function in (ckptparse.verify, ckptparse.recover):
        calls: list[tuple[int, int]] = []
        function(
            tmp_path / "m-1", progress=lambda done, total, calls=calls: calls.append((done, total))
        )
        assert len(calls) > 1 and calls[-1][0] == calls[-1][1] > 0
        assert [done for done, _ in calls] == sorted(done for done, _ in calls)


@pytest.mark.parametrize("v1", [True, False], ids=["v1", "v2"])
def test_a_file_of_evidence_that_is_not_there_is_an_error(v1: bool, tmp_path: Path) -> None:
    if v1:
        write(tmp_path / "m", values(1))
    else:
        made = builder.Bundle()
        made.add("a", np.ones(3, np.float32))
        made.write(tmp_path / "m")
    with pytest.raises(ckptparse.CheckpointNotFoundError) as caught:
        ckptparse.recover(tmp_path / "m", evidence=[tmp_path / "nothing.img"])
    assert caught.value.path == str(tmp_path / "nothing.img")


def test_a_changed_byte_of_a_block_is_corrected(tmp_path: Path) -> None:
    arrays = values(1)
    offset, size = block_of(write(tmp_path / "m", arrays), arrays, "c")
    at = offset + size // 2
    damage(tmp_path / "m", at, bytes([(tmp_path / "m").read_bytes()[at] ^ 0x5A]))
    assert ckptparse.verify(tmp_path / "m").tensors["c"].status == "unverified"
    recovery = ckptparse.recover(tmp_path / "m")
    tensor = recovery["c"]
    assert (tensor.status, tensor.cause) == ("corrected", "bits")
    assert tensor.chance is not None and tensor.chance < 1e-3
    assert tensor.source == (
        tensor.source and type(tensor.source)(str(tmp_path / "m"), offset, size + 1)
    )
    assert faults.same(tensor.read(), arrays["c"])
    assert all(recovery[name].status == "verified" for name in "abd")


@pytest.mark.parametrize("noise", [False, True], ids=["zeros", "noise"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_elements_of_a_lost_sector_are_suspect(noise: bool, dtype: Any, tmp_path: Path) -> None:
    arrays = {name: array.astype(dtype) for name, array in values(1).items()}
    table = write(tmp_path / "m", arrays)
    start = table.data.index(arrays["c"].tobytes())
    sector = -(-(start + 600) // 512) * 512
    damage(tmp_path / "m", sector, np.random.default_rng(9).bytes(512) if noise else bytes(512))
    tensor = ckptparse.recover(tmp_path / "m")["c"]
    assert (tensor.status, tensor.cause) == ("unverified", "entry")
    first, last = (sector - start) // tensor.dtype.itemsize, (sector - start + 512 - 1)
    lost = np.zeros(1000, np.bool_)
    lost[first : last // tensor.dtype.itemsize + 1] = True
    masked = np.ma.getmaskarray(tensor.read())
    # Noise may reach into an element that is partly of the sector before.
    assert masked[lost].all() and masked.sum() <= lost.sum() + 512 // tensor.dtype.itemsize
    assert faults.same(np.ma.getdata(tensor.read())[~masked], arrays["c"][~masked])
    assert "of its 1,000 elements look wrong" in tensor.note


def test_a_record_of_which_nothing_is_left_is_not_offered(tmp_path: Path) -> None:
    arrays = values(1)
    table = write(tmp_path / "m", arrays)
    noise = np.random.default_rng(9).bytes(4000)
    damage(tmp_path / "m", table.data.index(arrays["c"].tobytes()), noise)
    recovery = ckptparse.recover(tmp_path / "m")
    assert "c" not in recovery
    assert recovery.report.tensors["c"].status == "corrupt"


def test_a_block_damaged_in_two_copies_is_put_together(tmp_path: Path) -> None:
    arrays = values(1)
    offset, _ = block_of(write(tmp_path / "m", arrays), arrays, "c")
    (tmp_path / "copy").mkdir()
    write(tmp_path / "copy" / "m", arrays)
    damage(tmp_path / "m", offset + 300, bytes(512))
    damage(tmp_path / "copy" / "m", offset + 2000, bytes(512))
    alone = ckptparse.recover(tmp_path / "m")["c"]
    assert alone.status == "unverified"
    tensor = ckptparse.recover(tmp_path / "m", evidence=[tmp_path / "copy"])["c"]
    assert tensor.status == "corrected"
    assert faults.same(tensor.read(), arrays["c"])
    assert "merged" in {str(record.rule) for record in tensor.evidence}


def test_a_lost_block_comes_back_from_a_checkpoint_that_has_the_same(tmp_path: Path) -> None:
    arrays = values(1, frozen="b")
    table = write(tmp_path / "m-1", arrays)
    write(tmp_path / "m-2", values(2, frozen="b"))
    for name in "bc":
        offset, _ = block_of(table, arrays, name)
        damage(tmp_path / "m-1", offset + 100, np.random.default_rng(9).bytes(300))
    recovery = ckptparse.recover(tmp_path / "m-1")
    tensor = recovery["b"]
    assert tensor.status == "corrected" and tensor.method == "taking a sibling's bytes"
    assert tensor.source is not None and tensor.source.path == str(tmp_path / "m-2")
    assert faults.same(tensor.read(), arrays["b"])
    assert "c" not in recovery or not recovery["c"].status.proved
    alone = ckptparse.recover(tmp_path / "m-1", siblings=False)
    assert "b" not in alone or not alone["b"].status.proved


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("kind", ["weights", "integers", "words"])
@pytest.mark.parametrize("where", ["sibling", "image"])
def test_a_block_that_goes_over_into_another_save_is_not_taken_for_that_saves(
    where: str, kind: str, share: float, tmp_path: Path
) -> None:
    """The checksum at its end is the other save's, and so is what agrees with it."""
    saves = [values(1), values(2)]
    for seed, arrays in enumerate(saves):
        rng = np.random.default_rng(seed)
        if kind == "integers":
            arrays["b"] = rng.integers(0, 99, 4000).astype(np.int8)
        elif kind == "words":
            arrays["b"] = np.array([rng.bytes(8).hex().encode() for _ in range(200)], object)
    tables = [write(tmp_path / f"m-{n + 1}", arrays) for n, arrays in enumerate(saves)]
    mine, theirs = (bytes(table.data) for table in tables)
    assert len(mine) == len(theirs)
    offset, size = next(one for one in tables[0].blocks[1:] if one[1] > 2000)
    seam = offset + int(share * size)
    (tmp_path / "m-1").write_bytes(mine[:seam] + theirs[seam:])
    evidence = []
    if where == "image":
        (tmp_path / "m-2").unlink()
        evidence.append(tmp_path / "disk.img")
        evidence[0].write_bytes(bytes(4096) + theirs)
    recovery = ckptparse.recover(tmp_path / "m-1", evidence=evidence)
    (name,) = [name for name, one in recovery.report.tensors.items() if one.status != "verified"]
    tensor = recovery.get(name)
    assert tensor is None or not tensor.status.proved or faults.same(tensor.read(), saves[0][name])


def test_a_lost_block_is_found_in_a_disk_image(tmp_path: Path) -> None:
    arrays = values(1)
    table = write(tmp_path / "m", arrays)
    rng = np.random.default_rng(3)
    image = tmp_path / "disk.img"
    image.write_bytes(rng.bytes(512 * 9) + (tmp_path / "m").read_bytes() + rng.bytes(100))
    for name in "ac":
        offset, _ = block_of(table, arrays, name)
        damage(tmp_path / "m", offset + 100, rng.bytes(300))
    recovery = ckptparse.recover(tmp_path / "m", evidence=[image])
    for name in "ac":
        assert recovery[name].status == "corrected"
        assert recovery[name].source is not None and recovery[name].source.path == str(image)
        assert faults.same(recovery[name].read(), arrays[name])


def test_values_of_a_converted_file_are_read_from_it_when_they_are_asked_for(
    tmp_path: Path,
) -> None:
    arrays = {**values(1), "long": np.random.default_rng(5).normal(size=9000)}
    write(tmp_path / "m", arrays)
    (tmp_path / "m").write_bytes((tmp_path / "m").read_bytes().replace(b"\n", b"\r\n"))
    recovery = ckptparse.recover(tmp_path / "m")
    for name, array in arrays.items():
        assert recovery[name].status == "verified", name
        assert faults.same(recovery[name].read(), array)


def test_a_file_that_changed_after_it_was_recovered_is_refused(tmp_path: Path) -> None:
    arrays = {"long": np.random.default_rng(5).normal(size=9000)}
    table = write(tmp_path / "m", arrays)
    tensor = ckptparse.recover(tmp_path / "m")["long"]
    offset, _ = block_of(table, arrays, "long")
    damage(tmp_path / "m", offset + 5000, b"other bytes")
    with pytest.raises(ckptparse.ChecksumError, match="has changed since"):
        tensor.read()


def test_a_file_is_mapped_block_by_block(tmp_path: Path) -> None:
    arrays = values(1)
    offset, size = block_of(write(tmp_path / "m", arrays), arrays, "c")
    damage(tmp_path / "m", offset + 100, np.random.default_rng(9).bytes(300))
    (mapped,) = ckptparse.verify(tmp_path / "m").files.values()
    assert mapped.role == "v1"
    assert [(part.start, part.stop) for part in mapped.ranges if part.kind == "bad"] == [
        (offset, offset + size + 5)
    ]
