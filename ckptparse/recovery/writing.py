"""Writes recoveries: as a checkpoint that TensorFlow restores, or as a file of another format.

The sinks of `convert` write the files. This module chooses which tensors are written, which values
missing elements get, and what the report beside the file says.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, get_args

from ckptparse.errors import CheckpointError, UnsupportedError
from ckptparse.examination.inputs import HashedFile, hash_files
from ckptparse.files.context import find_storage
from ckptparse.files.placing import check_absent, check_elsewhere, place_file
from ckptparse.files.storage import Storage
from ckptparse.foreign import REPORT_NAME, load_h5py
from ckptparse.jobs.conversion import TargetFormat
from ckptparse.jobs.convert import format_of_path, sink_of
from ckptparse.json_text import format_json
from ckptparse.limits import check_listed, count_named
from ckptparse.recovery.chosen import Chosen, Mask
from ckptparse.recovery.written import GraphOrigin, Offer, Written
from ckptparse.sinks.options import SinkOptions
from ckptparse.tensor_like import TensorLike

if TYPE_CHECKING:
    from ckptparse.recovery.result import RecoveredTensor, Recovery

__all__ = ["choose_format", "iter_digests", "report_path", "write_recovery"]

_NUMPY = ("npz", "npy")
_WEIGHTS: Mapping[TargetFormat, int] = {"v2": 1, "safetensors": 1, "npz": 1, "hdf5": 3, "npy": 4}
"""What a tensor counts as that is written: HDF5's library takes 100 µs for each, a file of its own
that reaches the disk 250 µs. With 10 KiB for each, any number of tensors may be written."""
_ALL_SUSPECT = (
    "nothing says which of its elements is right: all look wrong or may belong elsewhere; with "
    "keep_suspect (--keep-suspect) it is written as it lies in its file"
)
_NAMED_ONLY = frozenset({"shapes", "mapfile"})
"""Roles of inputs that lie wherever the caller works: outputs may lie beside them."""


def choose_format(target: str, wanted: str | None) -> TargetFormat:
    """Tell the format of a path: by its ending; one without an ending is a directory of `.npy`.

    Raises:
        UnsupportedError: The ending belongs to no format that can be written; or the package is not
            installed that it needs.
        ValueError: There is no such format.
    """
    if wanted is None and not _has_ending(target):
        return "npy"
    chosen = format_of_path(target, wanted)
    if chosen == "hdf5":
        load_h5py()
    return chosen


def _has_ending(target: str) -> bool:
    name = target.replace("\\", "/").rpartition("/")[2]
    _, dot, ending = name.lstrip(".").rpartition(".")
    return bool(dot) and ending[:1].isalpha()


def report_path(target: str, format: str) -> str:
    """Return where the report of an output is written: in a directory, beside anything else."""
    if format == "npy":
        directory, storage = find_storage(target.rstrip("/"), None)
        return storage.join(directory, REPORT_NAME)
    return f"{target}.{REPORT_NAME}"


def write_recovery(
    recovery: Recovery,
    target: str,
    *,
    format: str | None,
    offer: Offer | None,
    fill: Any,
    keep_suspect: bool,
    overwrite: bool,
    report: bool | str,
    hashes: bool,
    storage: Storage | None = None,
) -> Written:
    """Write a recovery; see `Recovery.write`."""
    chosen = choose_format(target, format)
    if offer not in (None, *get_args(Offer)):
        raise ValueError(f"offer is one of {get_args(Offer)}, not {offer!r}")
    asked: Offer = offer or ("plausible" if chosen in _NUMPY else "proved")
    beside = report_path(target, chosen) if report is True else report or None
    _check_count(recovery, chosen)
    _check_places(recovery, target, beside, chosen, storage, overwrite=overwrite)
    writer = _Writer(
        recovery, target, chosen, asked, fill, keep_suspect=keep_suspect, storage=storage
    )
    with recovery.keep_open():
        written = replace(writer.write(overwrite=overwrite), report=beside)
    if hashes:
        recovery.hash_inputs()
    if beside is not None:
        content = format_json(recovery.to_dict(written), indent=1)
        with place_file(beside, overwrite=overwrite, storage=storage) as file:
            file.write(content.encode() + b"\n")
    return written


def iter_digests(
    recovery: Recovery, names: Collection[str], *, fill: Any, keep_suspect: bool
) -> Iterator[tuple[str, str]]:
    """Iterate over tensors with the SHA-256 of their bytes, as they would be written.

    Raises:
        CheckpointError: One cannot be read.
    """
    with recovery.keep_open():
        for name, tensor in recovery.items():
            if name in names:
                chosen = Chosen(tensor, fill, keep_suspect=keep_suspect)
                chosen.read()
                yield name, chosen.digest


def _check_count(recovery: Recovery, format: TargetFormat) -> None:
    """Refuse, before the work, more tensors than may be taken one by one.

    Raises:
        LimitError: They are more than `Limits.small_tensors` allows.
    """
    report, limits = recovery.report, recovery.limits
    sizes = {one.path: one.size for one in report.inputs}
    sizes.update((path, file.size or 0) for path, file in report.files.items())
    check_listed(limits, count_named(recovery), sum(sizes.values()), weight=_WEIGHTS[format])


def _check_places(
    recovery: Recovery,
    target: str,
    beside: str | None,
    format: str,
    storage: Storage | None,
    *,
    overwrite: bool,
) -> None:
    """Refuse, before the work, what may not be written."""
    if storage is None:
        inputs = [one.path for one in recovery.report.inputs if one.role not in _NAMED_ONLY]
        for place in filter(None, (target, beside)):
            check_elsewhere(place, inputs)
    if beside is not None and not overwrite and format != "npy":
        check_absent(beside, storage)


class _Writer:
    """Writes one recovery. If a tensor cannot be read, it is written again without it."""

    def __init__(
        self,
        recovery: Recovery,
        target: str,
        format: TargetFormat,
        offer: Offer,
        fill: Any,
        *,
        keep_suspect: bool,
        storage: Storage | None,
    ) -> None:
        self._storage = storage
        self._recovery = recovery
        self._target = target
        self._format = format
        self._offer = offer
        self._fill = fill
        self._keep = keep_suspect
        self._withheld: list[str] = []
        self._chosen: list[Chosen] = []
        for name, one in recovery.items():
            if self._is_asked_for(one):
                self._chosen.append(Chosen(one, fill, keep_suspect=keep_suspect))
            else:
                self._withheld.append(name)
        self._left_out = {one.name: _ALL_SUSPECT for one in self._chosen if one.is_empty}
        self._chosen = [one for one in self._chosen if not one.is_empty]
        self._masks: dict[str, str] = {}
        self._origin: GraphOrigin | None = None

    def write(self, *, overwrite: bool) -> Written:
        """Write it; raises as `Recovery.write` does."""
        options = SinkOptions(overwrite=overwrite, metadata=self._metadata(), storage=self._storage)
        self._refuse_nothing()
        self._leave_out_kinds(options)
        while True:
            try:
                files = self._write(options)
                break
            except CheckpointError:
                self._read_rest()
                failed = [one for one in self._chosen if one.failure is not None]
                if not failed or len(failed) == len(self._chosen):
                    raise
                self._left_out.update((one.name, one.failure or "") for one in failed)
                self._chosen = [one for one in self._chosen if one.failure is None]
        filled = {one.name: one.filled for one in self._chosen}
        return Written(
            self._target,
            self._format,
            self._offer,
            self._fill,
            self._keep,
            files,
            digests={one.name: one.digest for one in self._chosen},
            filled={name: spans for name, spans in filled.items() if spans},
            masks=self._masks,
            withheld=tuple(self._withheld),
            left_out=self._left_out,
            object_graph=self._origin,
        )

    def _read_rest(self) -> None:
        """If one could not be read, read all behind it: else each such costs a whole write."""
        numbers = (at for at, one in enumerate(self._chosen) if one.failure is not None)
        for one in self._chosen[next(numbers, len(self._chosen)) + 1 :]:
            with suppress(CheckpointError):
                one.read()

    def _is_asked_for(self, tensor: RecoveredTensor) -> bool:
        return self._offer == "plausible" or tensor.status.proved

    def _refuse_nothing(self) -> None:
        """Refuse to write an empty output.

        Raises:
            UnsupportedError: Nothing is proved, or nothing was got back at all.
        """
        if self._chosen or self._format in _NUMPY:
            return
        if self._withheld:
            raise UnsupportedError(
                f"Expected proved tensors, found none among {len(self._withheld)}",
                path=self._target,
                hint="With offer='plausible' (--offer plausible) all that was got back is written",
            )
        report = self._recovery.report
        raise UnsupportedError(
            "Expected tensors to write, found none", path=report.path, hint=report.next_step or None
        )

    def _leave_out_kinds(self, options: SinkOptions) -> None:
        """Leave out tensors of dtypes that the format lacks, and note the reason."""
        if self._format == "v2":
            return
        refusals = {one.name: self._refusal(one, options) for one in self._chosen}
        self._left_out.update((name, why) for name, why in refusals.items() if why is not None)
        self._chosen = [one for one in self._chosen if refusals[one.name] is None]

    def _refusal(self, tensor: Chosen, options: SinkOptions) -> str | None:
        """Return why the format cannot hold a tensor; None if it can."""
        try:
            sink_of(self._format)[0]([tensor], options)
        except UnsupportedError as error:
            return str(error)
        return None

    def _metadata(self) -> dict[str, str]:
        from ckptparse.text import escape

        report = self._recovery.report
        return {
            "format": "tf",
            "source_format": report.format,
            "source": escape(report.path),
            "written_by": "ckptparse",
        }

    def _write(self, options: SinkOptions) -> tuple[HashedFile, ...]:
        write = self._write_v2 if self._format == "v2" else self._write_other
        written = _walk(write(options), self._storage)
        return tuple(_hash(path, self._storage) for path in written)

    def _write_other(self, options: SinkOptions) -> tuple[str, ...]:
        write = sink_of(self._format)[1]
        tensors: list[TensorLike] = []
        self._masks = {}
        names = {one.name for one in self._chosen}
        for tensor in self._chosen:
            tensors.append(tensor)
            if tensor.filled and self._format in _NUMPY:
                name = _free_name(f"{tensor.name}.missing", names)
                self._masks[tensor.name] = name
                tensors.append(Mask(name, tensor))
        place = self._target.rstrip("/") if self._format == "npy" else self._target
        return write(place, tensors, options)

    def _write_v2(self, options: SinkOptions) -> tuple[str, ...]:
        from ckptparse.recovery.kept_graph import choose_graph
        from ckptparse.sinks.bundle import with_graph, write_bundle

        stored: Mapping[str, TensorLike] = {one.name: one for one in self._chosen}
        found = self._recovery.object_graph
        asked = found is not None and self._is_asked_for(found)
        names = [one.name for one in self._chosen]
        graph, self._origin = choose_graph(
            found if asked else None,
            names,
            lost=set(self._recovery.report.tensors) - set(names),
            keep_suspect=self._keep,
            limits=self._recovery.limits,
        )
        return write_bundle(self._target, with_graph(stored, graph), options)


def _walk(paths: Sequence[str], where: Storage | None) -> Iterator[str]:
    """Iterate over files, and those in directories."""
    for path in paths:
        place, storage = find_storage(path, where)
        status = storage.stat(place)
        if status is not None and status.kind == "directory":
            yield from (storage.join(path, name) for name in storage.list(place))
        else:
            yield path


def _hash(path: str, where: Storage | None) -> HashedFile:
    """Hash a file that was written, where it was written to."""
    place, storage = find_storage(path, where)
    (file,) = hash_files([HashedFile(place, "output", 0)], storage)
    return replace(file, path=path)


def _free_name(name: str, taken: set[str]) -> str:
    """Return a name that no tensor has, and take it."""
    free, number = name, 1
    while free in taken:
        number += 1
        free = f"{name}~{number}"
    taken.add(free)
    return free
