"""What saves leave behind that were killed, each at one system call.

`strace` kills the saving process as it enters a call, before the call has any effect, so that every
case shows one exact state. The tensors whose save was interrupted stand in `interrupted`: the
prefix they were meant for, and their values. Whole checkpoints stand in `checkpoints` as ever.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fixture_cases import describe
from fixture_cases.common import Output, case, tf
from fixture_cases.slices import numbers

CHILD = Path(__file__).with_name("killed_save.py")
VALUE = "{}/.ATTRIBUTES/VARIABLE_VALUE".format


@dataclass(frozen=True, slots=True)
class Kill:
    """Where to kill: at the Nth system call of this name in a thread.

    paths: count only the calls that concern these files (of a rename, the old name).
    """

    call: str
    number: int = 1
    paths: tuple[str, ...] = ()

    def options(self, out: Output) -> list[str]:
        """Return the options of strace."""
        inject = f"inject={self.call}:error=EIO:signal=SIGKILL:when={self.number}"
        only = [option for path in self.paths for option in ("-P", out.path(path))]
        return [*only, "-e", f"trace={self.call}", "-e", inject]


def killed_save(out: Output, how: str, prefix: str, kill: Kill, offset: int = 0) -> None:
    """Run `killed_save.py` and kill it."""
    strace = shutil.which("strace")
    if strace is None:
        raise RuntimeError("these cases need strace")
    command = [strace, "-f", "-qq", "-o", os.devnull, *kill.options(out), sys.executable]
    arguments = [str(CHILD), how, out.path(prefix), str(offset)]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([*command, *arguments], env=environment, capture_output=True, check=False)
    if done.returncode == 0:
        raise RuntimeError(f"the save was not killed: {sorted(os.listdir(out.root))}")


def interrupted(out: Output, prefix: str, values: dict[str, Any]) -> None:
    """Say what was being saved."""
    rows = {
        name: describe.describe_tensor(name, tf.as_dtype(np.asarray(value).dtype).name, value)
        for name, value in values.items()
    }
    out.note(interrupted={"prefix": prefix, "tensors": describe.sorted_tensors(rows)})


def object_values(offset: int = 0) -> dict[str, Any]:
    """Return what the object-based save of `killed_save.py` writes."""
    return {VALUE(name): value for name, value in tensors(offset).items()}


def tensors(offset: int = 0) -> dict[str, Any]:
    """Return the tensors that `killed_save.py` saves."""
    return {"a": numbers(3, 2) + offset, "b": numbers(4, dtype="int64") + offset}


@case(
    "crash/data_tempstate",
    "Only `model.data-00000-of-00001.tempstate...`: killed before the data file got its name.",
    checklist=(124,),
)
def data_tempstate(out: Output) -> None:
    killed_save(out, "save_v2", "model", Kill("rename"))
    interrupted(out, "model", tensors())


@case(
    "crash/index_tempstate",
    "The data file under its name and `model.index.tempstate...` whole: killed before the last "
    "rename.",
    checklist=(125,),
)
def index_tempstate(out: Output) -> None:
    killed_save(out, "save_v2", "model", Kill("rename", 2))
    interrupted(out, "model", tensors())


@case(
    "crash/temp_directory",
    "A whole part in `model_temp`, nothing at `model`: killed before the merge moved the data.",
    checklist=(126,),
)
def temp_directory(out: Output) -> None:
    killed_save(out, "objects", "model", Kill("rename", 3))
    interrupted(out, "model", object_values())


@case(
    "crash/data_without_index",
    "The data at `model`, its index still in `model_temp`: killed before the merge wrote the "
    "index.",
    checklist=(127,),
)
def data_without_index(out: Output) -> None:
    killed_save(out, "objects", "model", Kill("openat", paths=("model.index",)))
    interrupted(out, "model", object_values())


@case(
    "crash/truncated_index",
    "The first 4,096 bytes of an index at `model`, the whole one still in `model_temp`: killed "
    "while the merge wrote it in place.",
    checklist=(127,),
)
def truncated_index(out: Output) -> None:
    killed_save(out, "many_objects", "model", Kill("write", 2, paths=("model.index",)))
    interrupted(out, "model", many_object_values())


def many_object_values() -> dict[str, Any]:
    """Return what the long save of `killed_save.py` writes."""
    return {VALUE(f"{i:02d}_" + "long" * 40): np.int32(i) for i in range(30)}


@case(
    "crash/sharded_part_moved",
    "A sharded save killed between the renames of its two data files: one shard at `model`, the "
    "other and both indexes in `model_temp`.",
    checklist=(126, 127),
)
def sharded_part_moved(out: Output) -> None:
    parts = tuple(f"model_temp/part-0000{i}-of-00002.data-00000-of-00001" for i in (0, 1))
    killed_save(out, "sharded", "model", Kill("rename", 2, parts))
    interrupted(out, "model", tensors())


@case(
    "crash/new_data_old_index",
    "A second save over the same prefix, killed before the merge wrote the index: new data under "
    "the old index, which only the checksums tell.",
)
def new_data_old_index(out: Output) -> None:
    variables = {name: tf.Variable(value) for name, value in tensors().items()}
    tf.train.Checkpoint(**variables).write(out.path("model"))
    killed_save(out, "objects", "model", Kill("openat", paths=("model.index",)), offset=100)
    interrupted(out, "model", object_values(100))


@case(
    "crash/state_not_written",
    "A second `Checkpoint.save`, complete but killed before the state file was replaced: the state "
    "file names `ckpt-1`, `ckpt-2` is whole, `checkpoint.tmp...` lies beside.",
)
def state_not_written(out: Output) -> None:
    variables = {name: tf.Variable(value) for name, value in tensors().items()}
    checkpoint = tf.train.Checkpoint(**variables)
    checkpoint.save(out.path("ckpt"))
    out.checkpoint("ckpt-1", object_values(), step=1)
    killed_save(out, "second_save", "ckpt", Kill("rename", 4), offset=100)
    out.checkpoint("ckpt-2", object_values(100), step=2)
    out.state()


@case(
    "crash/v1_tempstate",
    "Only `model.tempstate...` of a V1 save: killed before the file got its name.",
    checklist=(124,),
)
def v1_tempstate(out: Output) -> None:
    killed_save(out, "v1", "model", Kill("rename"))
    interrupted(out, "model", tensors())
