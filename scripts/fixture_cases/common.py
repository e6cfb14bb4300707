"""What a case is, how it runs, and how its expected values are collected.

A case is a function that writes files with TensorFlow into `out.root` and says through `out` what
they hold. What TensorFlow reads back is compared with what was written; where TensorFlow cannot
read its own file, the values that were written are the expected ones.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from fixture_cases import describe

OBJECT_GRAPH_KEY = "_CHECKPOINTABLE_OBJECT_GRAPH"
TF_VERSION = tuple(int(part) for part in tf.__version__.split(".")[:2])
NEWEST = (2, 21)
tf1 = tf.compat.v1
Name = str | bytes


@dataclass(slots=True)
class Output:
    """Where a case writes its files and what it says about them.

    name: `family/case`.
    root: the directory of the case's files.
    data: what goes into the expected `.json` file.
    """

    name: str
    root: Path
    data: dict[str, Any] = field(default_factory=dict)

    def path(self, name: str) -> str:
        """Return the path of `name` in the case's directory."""
        return str(self.root / name)

    def random(self) -> np.random.Generator:
        """Return a generator whose seed is the case's name."""
        return np.random.default_rng(zlib.crc32(self.name.encode()))

    def note(self, **facts: Any) -> None:
        """Store further facts under their own keys."""
        self.data.update(facts)

    def checkpoint(
        self, prefix: str, written: Mapping[str, Any] | None = None, **facts: Any
    ) -> dict[str, Any]:
        """Describe the V2 checkpoint at `prefix` from what TensorFlow's reader gives.

        written: values that must be what TensorFlow reads back.
        """
        described: dict[str, Any] = {"prefix": prefix, "format": "v2"}
        rows = self.read_back(prefix, described)
        check_written(rows, written or {})
        described["tensors"] = describe.sorted_tensors(rows)
        return self.add_checkpoint(described, facts)

    def written_checkpoint(
        self,
        prefix: str,
        written: Mapping[Name, tuple[str, Any]],
        *,
        format: str = "v2",
        check: bool = True,
        **facts: Any,
    ) -> dict[str, Any]:
        """Describe the checkpoint at `prefix` from what was written: name to (dtype, value).

        check: restore each tensor that TensorFlow can restore, and compare.
        """
        rows = {}
        unreadable = []
        for name, (dtype, value) in written.items():
            text = describe.name_text(name)
            rows[text] = describe.describe_tensor(text, dtype, value)
            if check and not restores(self.path(prefix), name, rows[text]):
                unreadable.append(text)
        described = {"prefix": prefix, "format": format, "tensors": describe.sorted_tensors(rows)}
        if unreadable:
            described["tensorflow_cannot_read"] = unreadable
        return self.add_checkpoint(described, facts)

    def add_checkpoint(self, described: dict[str, Any], facts: dict[str, Any]) -> dict[str, Any]:
        """Store the description of a checkpoint."""
        described.update(facts)
        self.data.setdefault("checkpoints", []).append(described)
        return described

    def read_back(self, prefix: str, described: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """Read every tensor of a checkpoint with TensorFlow's own reader."""
        reader = tf.train.load_checkpoint(self.path(prefix))
        rows: dict[str, dict[str, Any]] = {}
        for name, dtype in reader.get_variable_to_dtype_map().items():
            if name == OBJECT_GRAPH_KEY:
                serialized = reader.get_tensor(name)
                described["object_graph"] = describe.describe_object_graph(serialized)
            elif dtype == tf.variant:
                shape = reader.get_variable_to_shape_map()[name]
                rows[name] = describe.Row(name=name, dtype="variant", shape=shape)
            else:
                rows[name] = describe.describe_tensor(name, dtype.name, reader.get_tensor(name))
        return rows

    def state(self, directory: str = ".", filename: str = "checkpoint") -> None:
        """Describe the state file of a directory."""
        found = tf.train.get_checkpoint_state(self.path(directory), filename)
        latest = tf.train.latest_checkpoint(self.path(directory), filename)
        entry = {
            "directory": directory,
            "filename": filename,
            "text": (self.root / directory / filename).read_text(),
            "latest": latest and Path(latest).name,
            "paths": [Path(path).name for path in found.all_model_checkpoint_paths],
            "timestamps": list(found.all_model_checkpoint_timestamps),
            "last_preserved": found.last_preserved_timestamp,
        }
        self.data.setdefault("states", []).append(entry)


def restores(prefix: str, name: Name, row: dict[str, Any]) -> bool:
    """Restore one tensor; tell whether TensorFlow can, and stop if it gives something else."""
    dtype = tf.as_dtype(row["dtype"])
    try:
        (tensor,) = tf.raw_ops.RestoreV2(
            prefix=prefix, tensor_names=[name], shape_and_slices=[""], dtypes=[dtype]
        )
    except tf.errors.OpError:
        return False
    read = describe.describe_tensor(row["name"], row["dtype"], tensor.numpy())
    if read != row:
        raise RuntimeError(f"wrote {row}, TensorFlow restored {read}")
    return True


def check_written(rows: Mapping[str, dict[str, Any]], written: Mapping[str, Any]) -> None:
    """Stop if TensorFlow read something else than was written."""
    for name, value in written.items():
        row = rows[name]
        expected = describe.describe_tensor(name, row["dtype"], value)
        if row["sha256"] != expected["sha256"] or row["shape"] != expected["shape"]:
            raise RuntimeError(f"{name}: wrote {expected}, TensorFlow read {row}")


@dataclass(frozen=True, slots=True)
class Case:
    """One case: `family/name`, what it shows, and which TensorFlow versions write it.

    flat: the files lie in the family's directory itself, not in a directory of the case's own.
    """

    name: str
    shows: str
    write: Callable[[Output], None]
    checklist: tuple[int, ...] = ()
    versions: tuple[tuple[int, int], ...] = (NEWEST,)
    flat: bool = False


CASES: dict[str, Case] = {}
EVERY_VERSION = ((2, 12), NEWEST)


def case(
    name: str,
    shows: str,
    *,
    checklist: tuple[int, ...] = (),
    versions: tuple[tuple[int, int], ...] = (NEWEST,),
    flat: bool = False,
) -> Callable[[Callable[[Output], None]], Callable[[Output], None]]:
    """Register a function as the writer of a case."""

    def register(write: Callable[[Output], None]) -> Callable[[Output], None]:
        CASES[name] = Case(name, shows, write, checklist, versions, flat)
        return write

    return register
