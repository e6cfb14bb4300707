"""The tensors that were got back: a mapping that reads them when asked, and saves them."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ckptparse.dtypes import item_size
from ckptparse.errors import UnsupportedError, located, name_not_found
from ckptparse.examination.inputs import HashedFile, hash_files
from ckptparse.examination.outcome import Judged
from ckptparse.examination.report import Report, TensorReport
from ckptparse.files.context import Store, find_target
from ckptparse.files.storage import Storage
from ckptparse.limits import DEFAULT_LIMITS, Limits
from ckptparse.problems import Status
from ckptparse.recovery.opened import OpenedFiles
from ckptparse.recovery.written import Offer, Written

if TYPE_CHECKING:
    from ckptparse.jobs.conversion import TargetFormat

__all__ = ["HELD", "RecoveredTensor", "Recovery"]


@dataclass(frozen=True, slots=True, eq=False)
class Loaded:
    """An array; True in `missing` and `suspect` marks its bad elements, None stands for no such."""

    array: npt.NDArray[Any]
    missing: npt.NDArray[np.bool_] | None = None
    suspect: npt.NDArray[np.bool_] | None = None


HELD = (
    Status.VERIFIED,
    Status.CORRECTED,
    Status.DERIVED,
    Status.PARTIAL,
    Status.UNVERIFIED,
)
"""The statuses of tensors that a recovery holds."""


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
        limits: The bounds that it was made with.
    """

    def __init__(
        self,
        report: Report,
        tensors: Mapping[str, RecoveredTensor],
        object_graph: RecoveredTensor | None = None,
        alternatives: Mapping[str, tuple[RecoveredTensor, ...]] | None = None,
        *,
        opened: OpenedFiles | None = None,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self.report = report
        self.limits = limits
        self._opened = opened or OpenedFiles()
        self._storage: Storage | None = None
        self.object_graph = object_graph
        self.alternatives: Mapping[str, tuple[RecoveredTensor, ...]] = alternatives or {}
        self._tensors: Mapping[str, RecoveredTensor] = tensors

    @property
    def whole(self) -> bool:
        """Whether nothing is lost: every tensor is proved, and the report has all of them."""
        report = self.report
        graph = report.object_graph
        return (
            all(Status(status).proved for status in report.counts)
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
            names = () if known else self._tensors
            raise name_not_found(
                f"The tensor {name!r} was not got back: it {what}", name, names, path=None
            ) from None

    def __contains__(self, name: object) -> bool:
        # As a rule nothing is described for that.
        return name in self._tensors

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

    def keep_open(self) -> AbstractContextManager[None]:
        """Keep files open while many tensors are read, for use in a `with` statement.

        It matters if tensors come from a file that was converted or packed, such as a `.tar.gz`:
        to open it, all of it is read. `write` and other functions that take a recovery do this
        themselves.
        """
        return self._opened.keep()

    @staticmethod
    def check_path(path: str | os.PathLike[str], *, format: str | None = None) -> TargetFormat:
        """Tell the format that `write` gives a path; refuse what it refuses by the name alone.

        Raises:
            UnsupportedError: The path ends as a format does that is not written here, as `x.pt`; or
                the package is not installed that the format needs.
            ValueError: The format is none.
        """
        from ckptparse.recovery.writing import choose_format

        return choose_format(os.fsdecode(path), format)

    def note_inputs(
        self, options: Mapping[str, Any], inputs: tuple[HashedFile, ...], storage: Storage
    ) -> None:
        """Put into the report what it was made of.

        Args:
            options: What was asked for.
            inputs: The files that were read.
            storage: Where they lie.
        """
        self.report = replace(self.report, options=options, inputs=inputs)
        self._storage = storage

    def hash_inputs(self) -> None:
        """Read every file again that was read, and put its SHA-256 into the report.

        Raises:
            CheckpointError: One cannot be read any more.
        """
        if self._storage is not None:
            inputs = hash_files(self.report.inputs, self._storage)
            self.report = replace(self.report, inputs=inputs)

    def to_dict(self, written: Written | None = None) -> dict[str, Any]:
        """Return all of it as plain values, as JSON holds them, but for the tensors' values.

        Of very many tiny tensors, those are named that `Report.to_dict` lists.

        Args:
            written: What `write` has written of it.
        """
        left_out = {} if written is None else dict(written.left_out)
        recovered = list(self)
        listed = self.report.listed_names()
        if len(listed) < len(self.report.tensors):
            known = set(recovered)
            recovered = [name for name in listed if name in known]
        return {
            "whole": self.whole and not left_out,
            "recovered": recovered,
            "written": None if written is None else written.path,
            "left_out": left_out,
            "output": None if written is None else written.to_dict(),
            "report": self.report.to_dict(),
        }

    def to_dfxml(self, written: Written | None = None) -> str:
        """Return files and tensors as Digital Forensics XML, without its declaration.

        Args:
            written: What `write` has written of it: its files are in it too, and hashes of tensors.
        """
        from ckptparse.rendering.dfxml import to_dfxml

        return to_dfxml(self.report, written)

    def write(
        self,
        path: str | os.PathLike[str],
        *,
        format: TargetFormat | None = None,
        offer: Offer | None = None,
        fill: Any = 0,
        keep_suspect: bool = False,
        overwrite: bool = False,
        report: bool | str | os.PathLike[str] = True,
        hashes: bool = True,
        store: Store = None,
    ) -> Written:
        """Save what was got back, with the report beside it.

        The ending of the path says the format: `.ckpt` (also `.ckpt-1000`) is the prefix of a V2
        checkpoint, which TensorFlow restores; `.safetensors`, `.npz` and `.h5` are one file; a path
        without an ending becomes a directory of `.npy` files. They are written as `convert` writes
        them: what a format lacks, it holds as `convert` says. In a V2 checkpoint the object graph
        is kept if it is whole, without the keys of what is not written.

        The tensors appear when all are whole, and after an error nothing does; the report comes
        last. It is `report.json` in a directory and `PATH.report.json` beside anything else.

        Args:
            path: Where to write; not in the directory of a file that was read.
            format: `"v2"`, `"safetensors"`, `"npz"`, `"npy"` or `"hdf5"`, whatever the ending.
            offer: `"proved"`: verified, corrected and derived tensors; `"plausible"`: all that was
                got back, filled where elements are missing or look wrong. None: `"plausible"` for
                numpy's formats, in which a second array, `NAME.missing`, is True where a tensor was
                filled; `"proved"` for the others, which cannot say so.
            fill: What stands where elements are missing or look wrong. Kinds of elements that have
                no such number (NaN among integers) get zero, strings b"", variants empty ones.
            keep_suspect: Whether elements that look wrong stay as they are.
            overwrite: Whether an earlier output there is replaced. A directory that holds anything
                else is never replaced.
            report: Whether the report is written, or where to.
            hashes: Whether every file that was read is read again, so that the report has its
                SHA-256, which `replay` compares.
            store: Where the path leads, and that of the report, as for `ckptparse.write`.

        Returns:
            What was written: files with their SHA-256, the elements that were filled, and the
            tensors that were left out: not proved and not asked for, of a kind that the format
            lacks, or no longer to be read.

        Raises:
            UnsupportedError: The path has the ending of another kind of file, or would lie beside
                an input; nothing is proved; `fill` is no value of a tensor.
            OutputExistsError: Something is there already, and `overwrite` is false.
            PermissionDeniedError: It may not be written there.
            OutputError: The disk is full, or the system refuses for another reason.
            CheckpointError: There are tensors, and none of them can be read.
        """
        from ckptparse.recovery.writing import write_recovery

        target, storage = find_target(path, store)
        return write_recovery(
            self,
            target,
            format=format,
            offer=offer,
            fill=fill,
            keep_suspect=keep_suspect,
            overwrite=overwrite,
            report=report if isinstance(report, bool) else os.fsdecode(report),
            hashes=hashes,
            storage=storage,
        )


def describe(
    tensor: TensorReport, data_type: int, dtype: np.dtype[Any], load: Callable[[], Loaded]
) -> RecoveredTensor:
    """Make the tensor that a report describes."""
    return RecoveredTensor(tensor.outcome, tensor.name, dtype, tensor.shape or (), data_type, load)
