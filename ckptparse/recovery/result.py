"""The tensors that were got back: a mapping that reads them when asked, and saves them."""

from __future__ import annotations

import json
import math
import os
import re
import zipfile
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any
from urllib.parse import quote

import numpy as np
import numpy.typing as npt

from ckptparse.dtypes import item_size, plain_values
from ckptparse.errors import CheckpointError, TensorNotFoundError, UnsupportedError, located
from ckptparse.examination.outcome import Judged
from ckptparse.examination.report import Report, TensorReport
from ckptparse.files.placing import check_absent, place_directory, place_files
from ckptparse.problems import Status
from ckptparse.text import escape

__all__ = ["RecoveredTensor", "Recovery"]


@dataclass(frozen=True, slots=True, eq=False)
class Loaded:
    """An array; True in `missing` and `suspect` marks its bad elements, None stands for no such."""

    array: npt.NDArray[Any]
    missing: npt.NDArray[np.bool_] | None = None
    suspect: npt.NDArray[np.bool_] | None = None


_HELD = (
    Status.VERIFIED,
    Status.CORRECTED,
    Status.DERIVED,
    Status.PARTIAL,
    Status.UNVERIFIED,
)
_REPORT = "report.json"
_LONGEST_NAME = 200
"""Characters of a file's name at most: file systems allow 255 bytes, with suffix and number. The
name is ASCII here, one byte for each character."""


@dataclass(frozen=True, slots=True, eq=False)
class RecoveredTensor(Judged):
    """A tensor that was got back. Its values are read when they are asked for.

    Attributes:
        outcome: Its status, cause, note and so on. Each part of it is an attribute here too.
        name: Its stored name.
        dtype: Its numpy (or ml_dtypes) type; `object` for strings.
        shape: Its shape.
        data_type: Its `DataType`.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    data_type: int
    _load: Callable[[], Loaded]

    @property
    def nbytes(self) -> int:
        """Bytes of its elements; of strings and variants, their stored bytes."""
        width = item_size(self.data_type)
        if width is not None:
            return math.prod(self.shape) * width
        return 0 if self.source is None else self.source.size

    def __getitem__(self, index: Any) -> Any:
        """Read all of it, and take a part by numpy's indexing; see `read`."""
        return self.read()[index]

    def read(self, *, fill: Any = None, keep_suspect: bool = False) -> npt.NDArray[Any]:
        """Read the values, in a new array in native byte order.

        Args:
            fill: The value for elements that are missing or look wrong.
            keep_suspect: Whether to return elements that look wrong (`suspect`) as they are.

        Returns:
            If elements are missing or look wrong and `fill` is None: an array that masks them
            (`numpy.ma`). Otherwise a plain array. Known checksums are checked again.

        Raises:
            ChecksumError: A file has changed since it was recovered.
        """
        with located(tensor=self.name):
            try:
                loaded = self._load()
            except MemoryError as error:
                raise UnsupportedError(
                    f"There is not enough memory for an array of {self.dtype} and shape "
                    f"{self.shape}"
                ) from error
        array, masked = loaded.array, loaded.missing
        if loaded.suspect is not None and not keep_suspect:
            masked = loaded.suspect if masked is None else masked | loaded.suspect
        if masked is None:
            return array
        if fill is not None:
            array[masked] = fill
            return array
        hidden: npt.NDArray[Any] = np.ma.array(array, mask=masked)
        return hidden

    def __array__(
        self,
        dtype: npt.DTypeLike | None = None,
        copy: bool | None = None,  # noqa: FBT001 - numpy's own signature
    ) -> npt.NDArray[Any]:
        if copy is False:
            raise ValueError(
                "copy=False is not possible: a recovered tensor is read into a new array each time"
            )
        array = self.read()
        return array if dtype is None else array.astype(dtype, copy=False)

    def __repr__(self) -> str:
        return f"<RecoveredTensor {self.name!r} shape={self.shape} {self.dtype} {self.status}>"


class Recovery(Mapping[str, RecoveredTensor]):
    """The tensors that were got back, by name, and the report on all tensors.

    It holds verified, corrected, derived, partial and unverified tensors. Corrupt and missing ones
    are only in the report.

    Attributes:
        report: What was found and what was done.
        object_graph: The serialized object graph (a scalar of bytes); None if it was not got back.
        alternatives: By name, all values of a tensor that has different ones in the parts of an
            unfinished save (`leftover.conflict`). The mapping itself has the first of them.
    """

    def __init__(
        self,
        report: Report,
        tensors: Mapping[str, RecoveredTensor],
        object_graph: RecoveredTensor | None = None,
        alternatives: Mapping[str, tuple[RecoveredTensor, ...]] | None = None,
    ) -> None:
        self.report = report
        self.object_graph = object_graph
        self.alternatives: Mapping[str, tuple[RecoveredTensor, ...]] = alternatives or {}
        self._tensors = {
            name: tensors[name]
            for name in report.tensors
            if name in tensors and tensors[name].status in _HELD
        }

    @property
    def whole(self) -> bool:
        """Whether nothing is lost: every tensor is proved, and the report has all of them."""
        report = self.report
        graph = report.object_graph
        return (
            all(tensor.status.proved for tensor in report.tensors.values())
            and (graph is None or graph.status.proved)
            and report.complete
        )

    @property
    def untouched(self) -> bool:
        """Whether the checkpoint is whole as it is: nothing was mended, and there is no problem."""
        return self.whole and self.report.verdict == "ok"

    def __getitem__(self, name: str) -> RecoveredTensor:
        try:
            return self._tensors[name]
        except KeyError:
            known = self.report.tensors.get(name)
            what = f"is {known.status}" if known else "is not known"
            raise TensorNotFoundError(
                f"The tensor {name!r} was not got back: it {what}", tensor=name
            ) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def _ipython_key_completions_(self) -> list[str]:
        """Complete keys in a notebook."""
        return list(self)

    def _repr_html_(self) -> str:
        """Show it in a notebook."""
        from ckptparse.rendering.notebook import report_html

        return report_html(self.report, title=f"{len(self):,} tensors got back")

    def __repr__(self) -> str:
        return f"<Recovery of {self.report.path!r}: {len(self)} of {len(self.report.tensors)}>"

    def __str__(self) -> str:
        return str(self.report)

    @staticmethod
    def check_path(path: str | os.PathLike[str]) -> None:
        """Refuse a path that `write` refuses because of its name, such as `x.ckpt`.

        Raises:
            UnsupportedError: The path has the suffix of another kind of file.
        """
        _check_suffix(os.fsdecode(path))

    def write(
        self, path: str | os.PathLike[str], *, overwrite: bool = False, report: bool = True
    ) -> dict[str, str]:
        """Save the tensors that were got back, and the report.

        A path that ends in `.npz` becomes one archive, with the report in `PATH.report.json`. A
        path without a suffix becomes a directory of `.npy` files, with `report.json` in it, which
        names each tensor's file.

        - Missing elements of a partial tensor are zero (b"" in strings). A second array, the name
          with `.missing` added, is True there.
        - Types that numpy does not have are saved in a wider numpy type with the same values
          (bfloat16 as float32, int4 as int8). `widened` in `report.json` lists them.
        - Strings are saved as their bytes, end to end. A second array, the name with `.lengths`
          added, has the length of each.

        Files appear under their names when all are complete. After an error none appears.

        Args:
            path: Where to write.
            overwrite: Whether to replace files of an earlier recovery there. A directory that holds
                anything else is never replaced.
            report: Whether to write the report beside an archive. A directory always has it.

        Returns:
            The tensors that could not be read, each with the reason: the files have changed since,
            or memory is short. All others are written. The report has these as `left_out`.

        Raises:
            UnsupportedError: The path has the suffix of another kind of file.
            OutputExistsError: Something is there already, and `overwrite` is false.
            PermissionDeniedError: It may not be written there.
            OutputError: The disk is full, or the system refuses for another reason.
            CheckpointError: There are tensors, and none of them can be read.
        """
        target = os.fsdecode(path)
        self.check_path(target)
        arrays = _Arrays(self)
        if target.endswith(".npz"):
            _write_archive(arrays, target, overwrite=overwrite, with_report=report)
        else:
            _write_directory(arrays, target, overwrite=overwrite)
        return arrays.left_out


def _check_suffix(target: str) -> None:
    """Refuse a name with the suffix of another kind of file: `x.ckpt`, `x.h5`.

    Raises:
        UnsupportedError: It has one.
    """
    suffix = re.search(r"(?<=[^/\\])\.[A-Za-z][^./\\]*$", target)
    if suffix is not None and suffix[0] != ".npz":
        raise UnsupportedError(
            f"Expected the name of a directory (for .npy files), or of a .npz file; found a name "
            f"that ends in {suffix[0]!r}",
            path=target,
            hint="Give a name without a suffix, or one that ends in .npz",
        )


class _Arrays:
    """The arrays to save: of each tensor that can be read; and why others cannot be read."""

    def __init__(self, recovery: Recovery) -> None:
        self._recovery = recovery
        self.files: dict[str, str] = {}
        self.left_out: dict[str, str] = {}
        self.widened: dict[str, str] = {}

    def __iter__(self) -> Iterator[tuple[str, npt.NDArray[Any]]]:
        error: CheckpointError | None = None
        for name, tensor in self._recovery.items():
            try:
                array = tensor.read()
            except CheckpointError as found:
                error = found
                self.left_out[name] = str(found)
                continue
            if plain_values(array[:0] if array.ndim else array).dtype != array.dtype:
                self.widened[name] = str(array.dtype)
            yield from _iter_arrays(name, array)
        if error is not None and len(self.left_out) == len(self._recovery):
            raise error

    def report(self) -> bytes:
        """Return the report as JSON, with the files that the arrays are in."""
        report = self._recovery.report.to_dict()
        content = {
            "report": report,
            "arrays": self.files,
            "left_out": self.left_out,
            "widened": self.widened,
        }
        return json.dumps(content, indent=1, allow_nan=False).encode()


def _write_archive(arrays: _Arrays, target: str, *, overwrite: bool, with_report: bool) -> None:
    beside = f"{target}.report.json"
    if with_report and not overwrite:
        # First of all, since the work may take long.
        check_absent(beside)
    with place_files(overwrite=overwrite) as files:
        with files.open(target) as file:
            _write_members(arrays, file)
        if with_report:
            with files.open(beside) as file:
                file.write(arrays.report())


def _write_members(arrays: _Arrays, file: IO[bytes]) -> None:
    taken: set[str] = set()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, array in arrays:
            member = _free_name(escape(name), taken)
            arrays.files[name] = member
            with archive.open(f"{member}.npy", "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, array, allow_pickle=False)


def _write_directory(arrays: _Arrays, target: str, *, overwrite: bool) -> None:
    with place_directory(target, overwrite=overwrite, may_replace=_is_a_recovery) as directory:
        taken = {_REPORT.casefold()}
        for name, array in arrays:
            file = _free_name(quote(escape(name), safe=" ")[:_LONGEST_NAME], taken)
            arrays.files[name] = file
            with directory.open(f"{file}.npy") as stream:
                np.lib.format.write_array(stream, array, allow_pickle=False)
        with directory.open(_REPORT) as stream:
            stream.write(arrays.report())


def _is_a_recovery(names: Collection[str]) -> bool:
    """Tell whether a directory with these names in it is empty, or a recovery wrote it."""
    others = [name for name in names if name != _REPORT and not name.endswith(".npy")]
    return not others and (not names or _REPORT in names)


def _iter_arrays(name: str, array: npt.NDArray[Any]) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    """Iterate over the arrays that are saved of a tensor: its values, and which are missing."""
    if isinstance(array, np.ma.MaskedArray):
        missing = np.ma.getmaskarray(array)
        array = np.asarray(array.filled(b"" if array.dtype == object else 0))
        yield f"{name}.missing", missing
    if array.dtype == object:
        yield from _iter_strings(name, array)
    else:
        yield name, plain_values(array)


def _iter_strings(name: str, array: npt.NDArray[Any]) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    """Return strings as their bytes, end to end, and their lengths: numpy's own type loses NULs."""
    values = [v if isinstance(v, bytes) else repr(v).encode() for v in array.reshape(-1).tolist()]
    yield name, np.frombuffer(b"".join(values), np.uint8)
    yield f"{name}.lengths", np.array(list(map(len, values)), np.int64).reshape(array.shape)


def _free_name(name: str, taken: set[str]) -> str:
    """Return a name that no other has, even if upper and lower case are the same."""
    free, number = name, 1
    while free.casefold() in taken or not free:
        number += 1
        free = f"{name}~{number}"
    taken.add(free.casefold())
    return free


def describe(
    tensor: TensorReport, data_type: int, dtype: np.dtype[Any], load: Callable[[], Loaded]
) -> RecoveredTensor:
    """Make the tensor that a report describes."""
    return RecoveredTensor(tensor.outcome, tensor.name, dtype, tensor.shape or (), data_type, load)
