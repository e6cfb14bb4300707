"""Load the expected values of `fixtures/` and compare arrays with them; needs no TensorFlow.

    case = expected.load("saver/my_model")
    checkpoint = case.checkpoints[0]
    expected.assert_matches(array, checkpoint.tensors["weights"])

`fixtures/README.md` lists the cases. How digests and values are made is said in
`scripts/fixture_cases/describe.py` and in `digest` here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures"

NUMPY_NAMES = {
    "qint8": "int8",
    "quint8": "uint8",
    "qint16": "int16",
    "quint16": "uint16",
    "qint32": "int32",
    "string": "object",
}
LOW_BITS = {"int4": 0x0F, "uint4": 0x0F, "int2": 0x03, "uint2": 0x03, "float4_e2m1fn": 0x0F}


@dataclass(frozen=True, slots=True)
class ExpectedTensor:
    """One tensor: TensorFlow's name of its dtype, shape, size and digest.

    values: flat, in C order, where the tensor is small.
    elements: of a variant; its digest is over the payload as stored (none if TensorFlow could not
        be asked for it).
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int | None
    sha256: str | None
    values: list[Any] | None = None
    elements: list[dict[str, Any]] | None = None

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> ExpectedTensor:
        return cls(
            name=row["name"],
            dtype=row["dtype"],
            shape=tuple(row["shape"]),
            nbytes=row.get("nbytes"),
            sha256=row.get("sha256"),
            values=row.get("values"),
            elements=row.get("elements"),
        )

    @property
    def numpy_name(self) -> str:
        """The name of the numpy (or ml_dtypes) dtype that a reader gives."""
        return NUMPY_NAMES.get(self.dtype, self.dtype)


@dataclass(frozen=True, slots=True)
class ExpectedCheckpoint:
    """One checkpoint: its path as a user gives it, format, tensors by name and the raw facts.

    tensors: without the object graph; that is in `data["object_graph"]`.
    """

    path: Path
    format: str
    tensors: dict[str, ExpectedTensor]
    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Case:
    """One case: where its files lie, what it shows, who wrote it, and the raw facts."""

    name: str
    root: Path
    shows: str
    tensorflow: str
    files: dict[str, int]
    checkpoints: tuple[ExpectedCheckpoint, ...]
    data: dict[str, Any]

    @property
    def checkpoint(self) -> ExpectedCheckpoint:
        """The case's only checkpoint."""
        (only,) = self.checkpoints
        return only

    @property
    def saved_model(self) -> dict[str, Any]:
        """The facts of the case's only SavedModel."""
        (only,) = self.data["saved_models"]
        return dict(only)


@cache
def load(name: str) -> Case:
    """Load one case by its name, such as `saver/my_model` or `tf2.12/saver/my_model`."""
    data = json.loads((FIXTURES / f"{name}.json").read_text())
    root = FIXTURES / data["root"]
    checkpoints = tuple(_checkpoint(root, row) for row in data.get("checkpoints", ()))
    return Case(name, root, data["shows"], data["tensorflow"], data["files"], checkpoints, data)


def _checkpoint(root: Path, row: Mapping[str, Any]) -> ExpectedCheckpoint:
    tensors = {t["name"]: ExpectedTensor.from_json(t) for t in row["tensors"]}
    if "rule" in row:
        tensors |= _tensors_by_rule(**row["rule"])
    return ExpectedCheckpoint(root / row["prefix"], row["format"], tensors, dict(row))


def _tensors_by_rule(
    name: str, count: int, value: str, dtype: str, shape: list[int]
) -> dict[str, ExpectedTensor]:
    """Make the tensors of a checkpoint with many: scalars that hold the square of their number."""
    assert (value, dtype, shape) == ("i * i", "int32", [])
    found = {}
    for i in range(count):
        array = np.int32(i * i)
        text = name.format(i=i)
        found[text] = ExpectedTensor(text, dtype, (), 4, digest(array, dtype), [i * i])
    return found


def names() -> list[str]:
    """Return the names of all cases."""
    return [name for name, _ in _expected_files()]


def cases() -> Iterator[Case]:
    """Iterate over all cases."""
    return (load(name) for name in names())


def checkpoints(format: str | None = None) -> list[ExpectedCheckpoint]:
    """Return every checkpoint of every case, or those of one format: `v2`, `v1`."""
    found = (checkpoint for case in cases() for checkpoint in case.checkpoints)
    return [checkpoint for checkpoint in found if format in (None, checkpoint.format)]


def _expected_files() -> Iterator[tuple[str, Path]]:
    for path in sorted(FIXTURES.rglob("*.json")):
        if path.with_suffix("").exists() or _is_flat(path):
            yield path.relative_to(FIXTURES).with_suffix("").as_posix(), path


def _is_flat(path: Path) -> bool:
    return any(path.parent.glob(path.stem + ".index"))


def digest(array: Any, dtype: str) -> str:
    """Return the SHA-256 of a tensor's little-endian bytes in C order.

    Kinds of fewer than eight bits count one byte an element with zeros above the value. Strings
    count for each element its length as eight bytes, little-endian, and then its bytes.
    """
    return hashlib.sha256(_digested_bytes(array, dtype)).hexdigest()


def _digested_bytes(array: Any, dtype: str) -> bytes:
    if dtype == "string":
        elements = np.asarray(array, dtype=object).ravel()
        return b"".join(len(s).to_bytes(8, "little") + bytes(s) for s in elements)
    values = np.ascontiguousarray(array)
    data = values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes()
    if dtype in LOW_BITS:
        return bytes(byte & LOW_BITS[dtype] for byte in data)
    return data


def assert_matches(array: Any, tensor: ExpectedTensor) -> None:
    """Fail unless `array` has the expected dtype, shape and bytes, every bit of them."""
    if tensor.dtype == "string":
        array = np.asarray(array, dtype=object)
    assert np.dtype(array.dtype).name == tensor.numpy_name, (
        f"{tensor.name}: dtype {array.dtype}, expected {tensor.numpy_name}"
    )
    assert array.shape == tensor.shape, f"{tensor.name}: {array.shape}, expected {tensor.shape}"
    assert digest(array, tensor.dtype) == tensor.sha256, (
        f"{tensor.name}: other values: {array!r}, expected {tensor.values}"
    )
