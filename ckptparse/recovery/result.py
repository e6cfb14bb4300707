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

from ckptparse.errors import TensorNotFoundError, UnsupportedError, located
from ckptparse.problems import Cause, Status
from ckptparse.recovery.report import Report, Source, Span, TensorReport

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

    def write(self, path: str | os.PathLike[str]) -> None:
        """Save what was got back, with the report beside it.

        A path that ends in `.npz` becomes one archive, and the report `PATH.report.json`; any other
        a directory of `.npy` files with `report.json` in it, which tells each tensor's file. What
        is missing of a partial tensor is zero (b"" in strings), and a second array, its name with
        `.missing` added, is True there. Kinds that numpy lacks are saved as their raw bytes.

        Raises:
            UnsupportedError: Something is there already, or it cannot be written.
        """
        target = os.fsdecode(path)
        try:
            if target.endswith(".npz"):
                _write_archive(self, target)
            else:
                _write_directory(self, target)
        except OSError as error:
            raise UnsupportedError(f"It cannot be written: {error}", path=target) from error


def _write_archive(recovery: Recovery, target: str) -> None:
    beside = f"{target}.report.json"
    _refuse_existing(target, beside)
    made: list[str] = []
    try:
        with open(target, "xb") as file:
            made.append(target)
            files = _write_members(recovery, file)
        with open(beside, "x", encoding="utf-8") as file:
            made.append(beside)
            _write_report(recovery, files, file)
    except BaseException:
        for path in made:
            os.unlink(path)
        raise


def _write_members(recovery: Recovery, file: IO[bytes]) -> dict[str, str]:
    files: dict[str, str] = {}
    taken: set[str] = set()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, array in _iter_arrays(recovery):
            member = _free_name(_printable(name), taken)
            files[name] = member
            with archive.open(f"{member}.npy", "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, array, allow_pickle=False)
    return files


def _write_directory(recovery: Recovery, target: str) -> None:
    _refuse_existing(target)
    os.mkdir(target)
    try:
        files: dict[str, str] = {}
        taken = {_REPORT.casefold()}
        for name, array in _iter_arrays(recovery):
            files[name] = _free_name(quote(_printable(name), safe=" ")[:_LONGEST_NAME], taken)
            with open(os.path.join(target, f"{files[name]}.npy"), "xb") as stream:
                np.lib.format.write_array(stream, array, allow_pickle=False)
        report = os.path.join(target, _REPORT)
        with open(report, "x", encoding="utf-8") as stream:
            _write_report(recovery, files, stream)
    except BaseException:
        shutil.rmtree(target)
        raise


def _refuse_existing(*paths: str) -> None:
    for path in paths:
        if os.path.lexists(path):
            raise UnsupportedError(
                "Something is there already, and nothing is ever overwritten",
                path=path,
                hint="Give another path",
            )


def _write_report(recovery: Recovery, files: Mapping[str, str], stream: IO[str]) -> None:
    content = {"report": recovery.report.to_dict(), "arrays": files}
    json.dump(content, stream, indent=1, allow_nan=False)


def _iter_arrays(recovery: Recovery) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    """Iterate over what is saved: each tensor, and for a partial one where it is missing."""
    for name, tensor in recovery.items():
        array = tensor.read()
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
