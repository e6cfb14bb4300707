"""A process killed while it writes leaves the old checkpoint or the new one, and never a mix."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ckptparse

resource = pytest.importorskip("resource", reason="limits of POSIX systems")
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")

Values = dict[str, np.ndarray[Any, Any]]

SYSTEM_CALLS = ("open", "fsync", "link", "mkdir", "rename", "replace", "rmdir", "unlink")
"""Of these consists what `write` and `convert` ask of the system, besides each file's bytes."""


def values(kind: str, *, names: int = 4, size: int = 300) -> Values:
    """Return tensors of the same names and shapes, so that a mix would pass for a checkpoint."""
    start = {"old": 0, "new": 10_000}[kind]
    return {f"w{n}": np.arange(size, dtype=np.int32) + start + n for n in range(names)}


OLD, NEW = values("old"), values("new")


def killed_before(step: int, work: Callable[[], object]) -> bool:
    """Do the work in a process that dies before its n-th system call; tell whether it did."""
    child = os.fork()
    if child == 0:
        try:
            _die_before(step)
            work()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status) == -signal.SIGKILL


def _die_before(step: int) -> None:
    left = step

    def counting(call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **options: Any) -> Any:
            nonlocal left
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1
            return call(*args, **options)

        return counted

    for name in SYSTEM_CALLS:
        setattr(os, name, counting(getattr(os, name)))


def same(got: Values, wanted: Values) -> bool:
    return got.keys() == wanted.keys() and all(
        np.array_equal(got[name], wanted[name]) for name in wanted
    )


def what_is_left(prefix: Path, kinds: dict[str, Values]) -> str:
    """Say what can be read: `old`, `new`, or `nothing`; fail if it is anything else."""
    try:
        got = ckptparse.read(prefix)
    except ckptparse.CheckpointError:
        return "nothing"
    found = [kind for kind, wanted in kinds.items() if same(got, wanted)]
    assert found, "what is read is neither the old checkpoint nor the new one"
    return found[0]


def recovered(prefix: Path, kinds: dict[str, Values]) -> str:
    recovery = ckptparse.recover(prefix)
    assert {tensor.status for tensor in recovery.values()} == {ckptparse.Status.VERIFIED}
    got = {name: tensor.read() for name, tensor in recovery.items()}
    found = [kind for kind, wanted in kinds.items() if same(got, wanted)]
    assert found, "what is recovered is neither the old checkpoint nor the new one"
    return found[0]


@pytest.mark.parametrize("shards", [(1, 1), (2, 2), (2, 1), (1, 3)], ids=str)
def test_killed_at_any_step_of_replacing_it_leaves_one_of_the_two(
    shards: tuple[int, int], tmp_path: Path
) -> None:
    sizes = [None if count == 1 else 4 * 300 * (4 // count) for count in shards]
    seen: list[str] = []
    for step in range(200):
        folder = tmp_path / str(step)
        folder.mkdir()
        prefix = folder / "m"
        ckptparse.write(prefix, OLD, max_shard_size=sizes[0])

        def work(prefix: Path = prefix) -> None:
            ckptparse.write(prefix, NEW, max_shard_size=sizes[1], overwrite=True)

        killed = killed_before(step, work)
        left = what_is_left(prefix, {"old": OLD, "new": NEW})
        if left == "nothing":
            assert recovered(prefix, {"old": OLD, "new": NEW}) in ("old", "new")
            assert ckptparse.latest_checkpoint(folder) is None
        seen.append(left)
        shutil.rmtree(folder)
        if not killed:
            break
    # First the old one, then for a few renames none, then the new one: and never back again.
    order = [kind for n, kind in enumerate(seen) if n == 0 or seen[n - 1] != kind]
    assert order == ["old", "nothing", "new"]
    assert seen.count("nothing") <= 2 * sum(shards) + 4


def test_killed_at_any_step_of_a_first_write_it_leaves_all_or_nothing(tmp_path: Path) -> None:
    seen: list[str] = []
    for step in range(200):
        folder = tmp_path / str(step)
        folder.mkdir()

        def work(folder: Path = folder) -> None:
            ckptparse.write(folder / "m", NEW, update_state=True)

        killed = killed_before(step, work)
        seen.append(what_is_left(folder / "m", {"new": NEW}))
        names = {path.name for path in folder.iterdir()}
        assert "checkpoint" not in names or seen[-1] == "new"
        if not killed:
            break
    assert seen[0] == "nothing" and seen[-1] == "new"
    assert seen == sorted(seen, key=("nothing", "new").index)


@pytest.mark.parametrize("ending", [".safetensors", ".npz", ".h5", "/"])
def test_killed_at_any_step_of_a_conversion_the_old_file_or_the_new_one_is_there(
    ending: str, tmp_path: Path
) -> None:
    if ending == ".h5":
        pytest.importorskip("h5py")
    sources = {}
    for kind, content in (("old", OLD), ("new", NEW)):
        (tmp_path / kind).mkdir()
        sources[kind] = ckptparse.write(tmp_path / kind / "m", content)
    seen: list[str] = []
    for step in range(300):
        folder = tmp_path / str(step)
        folder.mkdir()
        target = f"{folder / 'x'}{ending}"
        ckptparse.convert(sources["old"], target)

        def work(target: str = target) -> None:
            ckptparse.convert(sources["new"], target, overwrite=True)

        killed = killed_before(step, work)
        seen.append(what_was_converted(target, folder))
        shutil.rmtree(folder)
        if not killed:
            break
    order = [kind for n, kind in enumerate(seen) if n == 0 or seen[n - 1] != kind]
    # A file takes the place of another at once; of a directory the old one is moved away before.
    assert order == (["old", "nothing", "new"] if ending == "/" else ["old", "new"])
    assert seen.count("nothing") <= 1


def what_was_converted(target: str, folder: Path) -> str:
    """Say what a target holds: `old`, `new` or `nothing`; fail if it is anything else."""
    if not os.path.exists(target):
        return "nothing"
    ckptparse.convert(target, folder / "back", overwrite=True)
    return what_is_left(folder / "back", {"old": OLD, "new": NEW})


def test_killed_at_any_step_of_writing_parts_no_index_leads_to_what_is_not_there(
    tmp_path: Path,
) -> None:
    source = ckptparse.write(tmp_path / "in", NEW)
    found = []
    for step in range(300):
        folder = tmp_path / str(step)
        folder.mkdir()

        def work(folder: Path = folder) -> None:
            ckptparse.convert(source, folder / "m.safetensors", max_shard_size=1200)

        killed = killed_before(step, work)
        index = folder / "m.safetensors.index.json"
        found.append(index.exists())
        if index.exists():
            ckptparse.convert(index, folder / "back")
            assert same(ckptparse.read(folder / "back"), NEW)
        if not killed:
            break
    assert found == sorted(found) and found[-1]


def test_what_a_killed_process_left_is_no_checkpoint_to_a_directory(tmp_path: Path) -> None:
    ckptparse.write(tmp_path / "m", OLD)
    for step in range(4):
        killed_before(step, lambda: ckptparse.write(tmp_path / "n", NEW))
    assert len(list(tmp_path.iterdir())) > 2
    assert same(ckptparse.read(tmp_path), OLD)


KILLED = """
import sys, time, numpy as np, ckptparse
prefix, kind = sys.argv[1:]
start = {"old": 0, "new": 10_000}[kind]
values = {f"w{n}": np.arange(200_000, dtype=np.int32) + start + n for n in range(4)}
print("ready", flush=True)
ckptparse.write(prefix, values, max_shard_size=1_600_000, overwrite=True)
"""


def test_killed_at_random_it_leaves_one_of_the_two(tmp_path: Path) -> None:
    kinds = {kind: values(kind, size=200_000) for kind in ("old", "new")}
    prefix = tmp_path / "m"
    ckptparse.write(prefix, kinds["old"], max_shard_size=1_600_000)
    chance = random.Random(7)
    for turn in range(8):
        kind = ("new", "old")[turn % 2]
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(prefix), kind], stdout=subprocess.PIPE
        )
        with process:
            assert process.stdout is not None and process.stdout.readline()
            time.sleep(chance.uniform(0, 0.02))
            process.kill()
        left = what_is_left(prefix, kinds)
        if left == "nothing":
            left = recovered(prefix, kinds)
            ckptparse.write(prefix, kinds[left], max_shard_size=1_600_000, overwrite=True)
        # Leftovers may not pile up in this test: they are not what is tested.
        for path in tmp_path.glob("*.tempstate*"):
            path.unlink()


# A full file system.


def limited(work: Callable[[], object]) -> str:
    """Do the work in a process whose files may hold 1 MB at most; return what it raises."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
            work()
        except ckptparse.CheckpointError as error:
            os.write(writing, f"{type(error).__name__}: {error}".encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read().decode()
    os.waitpid(child, 0)
    return said


@pytest.mark.parametrize("there", [False, True], ids=["new", "replaced"])
def test_without_space_everything_stays_as_it_was(there: bool, tmp_path: Path) -> None:
    if there:
        ckptparse.write(tmp_path / "m", OLD)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    large = {"small": np.zeros(9), "large": np.zeros(1 << 20)}
    said = limited(lambda: ckptparse.write(tmp_path / "m", large, overwrite=True))
    assert said.startswith("OutputError: There is no space left")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
