"""A checkpoint on a real file system, whose image is all that is left; and what ddrescue read."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from situations.harness import MODEL, Given, Situation, check, noise, weigh
from situations.models import make_model, write

import ckptparse

PLACES = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
MAKE, CHANGE = (shutil.which(name, path=PLACES) for name in ("mkfs.ext4", "debugfs"))
SMALL_BLOCKS = ["-b", "1024", "-g", "512", "-O", "^flex_bg,^has_journal,^resize_inode"]
"""Every 512 blocks a group's own tables lie between the blocks of files: many stretches."""
LARGE_BLOCKS = ["-b", "4096"]

pytestmark = pytest.mark.skipif(
    MAKE is None or CHANGE is None, reason="needs mkfs.ext4 and debugfs"
)


def run(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=60)


def ext4(directory: Path, options: list[str], *, deleted: bool = False) -> Path:
    """Make the image of a file system with a checkpoint and other files; take the files away."""
    root, image = directory / "root", directory / "disk.img"
    (root / "logs").mkdir(parents=True)
    (root / "logs" / "train.log").write_bytes(b"step 100 loss 0.31\n" * 5000)
    write(MODEL, root / "run" / "model")
    (root / "photo.jpg").write_bytes(noise(300_000))
    with image.open("wb") as file:
        file.truncate(24 << 20)
    run([str(MAKE), "-q", "-F", *options, "-d", str(root), str(image)])
    if deleted:
        for name in ("model.index", "model.data-00000-of-00001"):
            run([str(CHANGE), "-w", "-R", f"rm /run/{name}", str(image)])
    shutil.rmtree(root)
    return image


def image_alone(directory: Path) -> Given:
    return Given(ext4(directory, LARGE_BLOCKS))


def image_of_a_deleted_checkpoint(directory: Path) -> Given:
    return Given(ext4(directory, LARGE_BLOCKS, deleted=True))


def image_of_small_blocks(directory: Path) -> Given:
    return Given(ext4(directory, SMALL_BLOCKS, deleted=True))


def damaged_image_of_small_blocks(directory: Path) -> Given:
    image = ext4(directory, SMALL_BLOCKS, deleted=True)
    raw = bytearray(image.read_bytes())
    for name in ("embedding", "embedding/Adam", "embedding/Adam_1"):
        lost = np.asarray(MODEL.arrays[name]).tobytes()[300_000:300_100]
        raw[raw.index(lost) : raw.index(lost) + 100] = noise(100)
    image.write_bytes(raw)
    return Given(image)


def image_and_the_index(directory: Path) -> Given:
    image = ext4(directory, SMALL_BLOCKS)
    write(MODEL, directory / "run" / "model").unlink()
    return Given(directory / "run" / "model", {"evidence": [image]})


SITUATIONS = [
    Situation("ext4, the image alone", image_alone, 1.0, 1.0),
    Situation("ext4, deleted, the image alone", image_of_a_deleted_checkpoint, 1.0, 1.0),
    # The large tensors lie in up to four stretches, between tables of the file system.
    Situation("ext4 of small blocks, deleted", image_of_small_blocks, 1.0, 1.0),
    Situation("ext4 of small blocks, and the index", image_and_the_index, 1.0, 1.0),
    # Bytes of the large tensors are lost: no checksum shows where their stretches lie, and nothing
    # is offered that lies behind a table of the file system.
    Situation("ext4 of small blocks, damaged", damaged_image_of_small_blocks, 0.115, 0.115),
]


@pytest.mark.parametrize("situation", SITUATIONS, ids=lambda situation: situation.name)
def test_what_must_come_back_does(situation: Situation, tmp_path: Path) -> None:
    check(situation, tmp_path)


def test_both_checkpoints_of_a_file_system_are_named(tmp_path: Path) -> None:
    root = tmp_path / "root"
    for seed in (0, 1):
        write(make_model(seed, rows=300), root / f"run-{seed}" / "model")
    image = tmp_path / "disk.img"
    with image.open("wb") as file:
        file.truncate(16 << 20)
    run([str(MAKE), "-q", "-F", *LARGE_BLOCKS, "-d", str(root), str(image)])
    shutil.rmtree(root)
    found = ckptparse.scan(image)
    assert {one.step for one in found} == {70_000, 70_001}
    assert [one.share for one in found] == [1.0, 1.0]
    for one in found:
        outcome = weigh(one.recover(), make_model((one.step or 0) - 70_000, rows=300))
        assert outcome.right == pytest.approx(1.0) and outcome.false == []
