"""What was got back: a lazy mapping of tensors, each with its status, and how to save them."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any
from urllib.parse import quote

import numpy as np
import numpy.typing as npt

from ckptparse.errors import CheckpointError, TensorNotFoundError, UnsupportedError, located
from ckptparse.examination.report import Report, Source, Span, TensorReport
from ckptparse.problems import Cause, Status

__all__ = ["RecoveredTensor", "Recovery"]

Loaded = tuple[npt.NDArray[Any], npt.NDArray[np.bool_] | None]
"""An array, and where it is missing (True), or None where nothing is."""

_HELD = (
    Status.VERIFIED,
    Status.CORRECTED,
    Status.DERIVED,
    Status.PARTIAL,
    Status.UNVERIFIED,
)
_REPORT = "report.json"
_LONGEST_NAME = 200


@dataclass(frozen=True, slots=True, eq=False)
class RecoveredTensor:
    """A tensor that was got back, its values unread until asked for.

    Attributes:
        name: Its stored name.
        dtype: Its numpy (or ml_dtypes) type; `object` for strings.
        shape: Its shape.
        status, cause, method, source, chance, ranges, note: As in `TensorReport`.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    status: Status
    cause: Cause | None
    method: str | None
    source: Source | None
    chance: float | None
    ranges: tuple[Span, ...]
    note: str
    _load: Callable[[], Loaded]

    def read(self, *, fill: Any = None) -> npt.NDArray[Any]:
        """Read the values, in a new array in native byte order.

        Args:
            fill: What to put where elements are missing.

        Returns:
            Where elements are missing and `fill` is None, a masked array (`numpy.ma`), masked
            there; otherwise a plain one. Checksums that are known are checked again.

        Raises:
            ChecksumError: A file has changed since it was recovered.
        """
        with located(tensor=self.name):
            try:
                array, missing = self._load()
            except MemoryError as error:
                raise UnsupportedError(
                    f"There is not enough memory for an array of {self.dtype} and shape "
                    f"{self.shape}"
                ) from error
        if missing is None:
            return array
        if fill is not None:
            array[missing] = fill
            return array
        masked: npt.NDArray[Any] = np.ma.array(array, mask=missing)
        return masked

    def __array__(
        self,
        dtype: npt.DTypeLike | None = None,
        copy: bool | None = None,  # noqa: FBT001 - numpy's own signature
    ) -> npt.NDArray[Any]:
        if copy is False:
            raise ValueError("A recovered tensor is read anew: it cannot be had uncopied")
        array = self.read()
        return array if dtype is None else array.astype(dtype, copy=False)

    def __repr__(self) -> str:
        return f"<RecoveredTensor {self.name!r} shape={self.shape} {self.dtype} {self.status}>"


class Recovery(Mapping[str, RecoveredTensor]):
    """The tensors that were got back, by name, and the report on all of them.

    It holds verified, corrected, derived, partial and unverified tensors; corrupt and missing ones
    stand in the report only.

    Attributes:
        report: What was found and what was done.
        object_graph: The object graph's text where it was got back (a scalar of bytes), or None.
    """

    def __init__(
        self,
        report: Report,
        tensors: Mapping[str, RecoveredTensor],
        object_graph: RecoveredTensor | None = None,
    ) -> None:
        self.report = report
        self.object_graph = object_graph
        self._tensors = {
            name: tensors[name]
            for name in report.tensors
            if name in tensors and tensors[name].status in _HELD
        }

    def __getitem__(self, name: str) -> RecoveredTensor:
        try:
            return self._tensors[name]
        except KeyError:
            known = self.report.tensors.get(name)
            what = f"is {known.status}" if known else "is not known"
            raise TensorNotFoundError(
                f"Nothing was got back of the tensor {name!r}: it {what}", tensor=name
            ) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def __repr__(self) -> str:
        return f"<Recovery of {self.report.path!r}: {len(self)} of {len(self.report.tensors)}>"

    def __str__(self) -> str:
        return str(self.report)

    def write(self, path: str | os.PathLike[str]) -> dict[str, str]:
        """Save what was got back, with the report beside it.

        A path that ends in `.npz` becomes one archive, and the report `PATH.report.json`; any other
        a directory of `.npy` files with `report.json` in it, which tells each tensor's file. What
        is missing of a partial tensor is zero (b"" in strings), and a second array, its name with
        `.missing` added, is True there. Kinds that numpy lacks are saved as their raw bytes.

        Returns:
            The tensors that could not be read any more, each with the reason: the files have
            changed meanwhile, or memory is short. All others are written, and the report beside
            them has the same as `left_out`.

        Raises:
            UnsupportedError: Something is there already, or it cannot be written.
            CheckpointError: There are tensors, and not one of them can be read any more.
        """
        target = os.fsdecode(path)
        try:
            if target.endswith(".npz"):
                return _write_archive(self, target)
            return _write_directory(self, target)
        except OSError as error:
            raise UnsupportedError(f"It cannot be written: {error}", path=target) from error


class _Arrays:
    """What is saved: each tensor that can be read, and why others cannot."""

    def __init__(self, recovery: Recovery) -> None:
        self._recovery = recovery
        self.files: dict[str, str] = {}
        self.left_out: dict[str, str] = {}

    def __iter__(self) -> Iterator[tuple[str, npt.NDArray[Any]]]:
        error: CheckpointError | None = None
        for name, tensor in self._recovery.items():
            try:
                array = tensor.read()
            except CheckpointError as found:
                error = found
                self.left_out[name] = str(found)
                continue
            yield from _iter_arrays(name, array)
        if error is not None and len(self.left_out) == len(self._recovery):
            raise error

    def write_report(self, stream: IO[str]) -> None:
        report = self._recovery.report.to_dict()
        content = {"report": report, "arrays": self.files, "left_out": self.left_out}
        json.dump(content, stream, indent=1, allow_nan=False)


def _write_archive(recovery: Recovery, target: str) -> dict[str, str]:
    beside = f"{target}.report.json"
    _refuse_existing(target, beside)
    arrays = _Arrays(recovery)
    made: list[str] = []
    try:
        with open(target, "xb") as file:
            made.append(target)
            _write_members(arrays, file)
        with open(beside, "x", encoding="utf-8") as file:
            made.append(beside)
            arrays.write_report(file)
    except BaseException:
        for path in made:
            os.unlink(path)
        raise
    return arrays.left_out


def _write_members(arrays: _Arrays, file: IO[bytes]) -> None:
    taken: set[str] = set()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, array in arrays:
            member = _free_name(_printable(name), taken)
            arrays.files[name] = member
            with archive.open(f"{member}.npy", "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, array, allow_pickle=False)


def _write_directory(recovery: Recovery, target: str) -> dict[str, str]:
    _refuse_existing(target)
    arrays = _Arrays(recovery)
    os.mkdir(target)
    try:
        taken = {_REPORT.casefold()}
        for name, array in arrays:
            file = _free_name(quote(_printable(name), safe=" ")[:_LONGEST_NAME], taken)
            arrays.files[name] = file
            with open(os.path.join(target, f"{file}.npy"), "xb") as stream:
                np.lib.format.write_array(stream, array, allow_pickle=False)
        report = os.path.join(target, _REPORT)
        with open(report, "x", encoding="utf-8") as stream:
            arrays.write_report(stream)
    except BaseException:
        shutil.rmtree(target)
        raise
    return arrays.left_out


def _refuse_existing(*paths: str) -> None:
    for path in paths:
        if os.path.lexists(path):
            raise UnsupportedError(
                "Something is there already, and nothing is ever overwritten",
                path=path,
                hint="Give another path",
            )


def _iter_arrays(name: str, array: npt.NDArray[Any]) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    """Iterate over what is saved of a tensor: itself, and of a partial one where it is missing."""
    if isinstance(array, np.ma.MaskedArray):
        missing = np.ma.getmaskarray(array)
        array = np.asarray(array.filled(b"" if array.dtype == object else 0))
        yield f"{name}.missing", missing
    if array.dtype == object:
        yield from _iter_strings(name, array)
    elif array.dtype.kind == "V":
        yield name, array.view(np.dtype(f"u{array.dtype.itemsize}"))
    else:
        yield name, array


def _iter_strings(name: str, array: npt.NDArray[Any]) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    """Give strings as their bytes, end to end, and their lengths: numpy's own lose NULs."""
    values = [v if isinstance(v, bytes) else repr(v).encode() for v in array.reshape(-1).tolist()]
    yield name, np.frombuffer(b"".join(values), np.uint8)
    yield f"{name}.lengths", np.array(list(map(len, values)), np.int64).reshape(array.shape)


def _printable(name: str) -> str:
    return name.encode("utf-8", "backslashreplace").decode()


def _free_name(name: str, taken: set[str]) -> str:
    """Return a name that no other has, where capitals may count as small letters."""
    free, number = name, 1
    while free.casefold() in taken or not free:
        number += 1
        free = f"{name}~{number}"
    taken.add(free.casefold())
    return free


def describe(
    tensor: TensorReport, dtype: np.dtype[Any], load: Callable[[], Loaded]
) -> RecoveredTensor:
    """Make the tensor that a report describes."""
    return RecoveredTensor(
        tensor.name,
        dtype,
        tensor.shape or (),
        tensor.status,
        tensor.cause,
        tensor.method,
        tensor.source,
        tensor.chance,
        tensor.ranges,
        tensor.note,
        load,
    )
