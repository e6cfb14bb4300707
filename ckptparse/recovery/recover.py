"""Get back from a damaged checkpoint whatever the evidence supports, and say how sure it is."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ckptparse.crc.flips import HIGHEST_CHANCE
from ckptparse.dtypes import numpy_dtype
from ckptparse.elements import allocate
from ckptparse.errors import CheckpointError
from ckptparse.examination.case import (
    Assessed,
    Case,
    Part,
    assess,
    open_case,
    spans_of_parts,
)
from ckptparse.examination.check import Check
from ckptparse.examination.diagnose import diagnose, find_twins, stored_dtype
from ckptparse.examination.index_view import OBJECT_GRAPH, Stored
from ckptparse.examination.neighbours import find_others
from ckptparse.examination.readers import Progress
from ckptparse.examination.report import Report, TensorReport
from ckptparse.examination.summary import make_report
from ckptparse.examination.survey import survey_path
from ckptparse.inventory.survey import Survey
from ckptparse.limits import DEFAULT_LIMITS, Limits
from ckptparse.problems import Status
from ckptparse.recovery.images import find_in_images
from ckptparse.recovery.mend import Mended, Mender
from ckptparse.recovery.recipe import decode_payload
from ckptparse.recovery.result import Loaded, RecoveredTensor, Recovery, describe
from ckptparse.recovery.siblings import Siblings
from ckptparse.tensor import Region

__all__ = ["recover"]


def recover(
    path: str | os.PathLike[str],
    *,
    siblings: bool = True,
    search: Iterable[str | os.PathLike[str]] = (),
    progress: Progress | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> Recovery:
    """Get back what a damaged checkpoint still gives; the files are never written.

    In this order, each step only where the evidence supports it: what is whole, whatever broke
    beside it; bytes that lie in another file or at another place; bytes of sibling checkpoints
    that the checksum proves; values that follow from the checksum alone; flipped bits and bytes;
    what is left of tensors that were cut off or have holes.

    Args:
        path: Whatever `ckptparse.open` takes; the checkpoint may be damaged or half written.
        siblings: Whether other checkpoints of the directory may serve as evidence.
        search: Files in which to look for lost tensors at multiples of 512 bytes: disk images,
            swap files, what a file rescuer brought up.
        progress: Called now and then with the bytes read so far, and the bytes to read.
        limits: Bounds on what its files may ask for.

    Returns:
        A mapping of what was got back, values unread; each with its status, where its bytes come
        from, by which method, and the chance that they are wrong. `.report` tells of all tensors,
        `.write(path)` saves what was got back.

    Raises:
        CheckpointNotFoundError: Nothing of a checkpoint is there.
        NotACheckpointError: What is there was never part of one; `.identity` says what it is.
    """
    survey = survey_path(path, limits=limits)
    if survey.format == "v1":
        from ckptparse.recovery.legacy import recover_legacy

        recovery = recover_legacy(survey, limits=limits)
        return _with_others(recovery, survey, limits) if siblings else recovery
    options = _Options(siblings, tuple(os.fsdecode(one) for one in search), progress, limits)
    recovery = _recover_bundle(survey, options)
    return _with_others(recovery, survey, limits) if siblings else recovery


def _with_others(recovery: Recovery, survey: Survey, limits: Limits) -> Recovery:
    """Say which other checkpoints there are, where this one is damaged."""
    if not recovery.report.ok:
        recovery.report = replace(recovery.report, others=find_others(survey, limits=limits))
    return recovery


@dataclass(frozen=True, slots=True)
class _Options:
    """What the caller of `recover` asked for."""

    siblings: bool
    search: tuple[str, ...]
    progress: Progress | None
    limits: Limits


def _recover_bundle(survey: Survey, options: _Options) -> Recovery:
    limits, siblings = options.limits, options.siblings
    case = open_case(survey, limits=limits, correct=True, progress=options.progress)
    with closing(case.files):
        assess(case)
        places, problems = diagnose(case, deep=True, siblings=siblings)
        find_in_images(case, options.search, places)
        report = make_report(case, problems)
        evidence = Siblings(survey, case.files, limits=limits, used=siblings)
        mender = Mender(
            case.files,
            find_twins(case),
            places,
            evidence,
            damaged=_count_damaged(case),
            torn=None if case.main is None or case.main.complete else case.main,
        )
        mended = {name: _mend(one, mender) for name, one in case.tensors.items()}
    return _make_recovery(report, mended)


def _count_damaged(case: Case) -> Counter[str]:
    """Count the payloads of each data file whose bytes are there and have another checksum."""
    return Counter(
        part.stored.path
        for assessed in case.tensors.values()
        for part in assessed.parts
        if part.stored is not None and part.check.status is Status.CORRUPT
    )


@dataclass(frozen=True, slots=True)
class _MendedPart:
    part: Part
    mended: Mended


@dataclass(frozen=True, slots=True)
class _MendedTensor:
    assessed: Assessed
    parts: tuple[_MendedPart, ...]
    report: TensorReport


def _mend(assessed: Assessed, mender: Mender) -> _MendedTensor:
    known = assessed.report()
    sliced = bool(assessed.tensor.stored.entry.slices)
    parts = []
    for number, part in enumerate(assessed.parts):
        name = assessed.name
        if sliced and number < len(assessed.tensor.slices):
            name = f"{name}\0{assessed.tensor.slices[number][0]}"
        parts.append(_MendedPart(part, mender.mend(name, part.stored, part.check)))
    if assessed.layout is not None:
        return _MendedTensor(assessed, (), known)
    if not sliced:
        return _MendedTensor(assessed, tuple(parts), _report_one(known, parts[0].mended))
    proved = assessed.tensor.stored.proved
    report = _report_slices(known, parts, assessed.shape, proved=proved)
    return _MendedTensor(assessed, tuple(parts), report)


def _report_one(known: TensorReport, mended: Mended) -> TensorReport:
    if mended.status is known.status is Status.VERIFIED and mended.method is None:
        return known
    return replace(
        known,
        status=mended.status,
        cause=mended.cause,
        method=mended.method,
        source=mended.source,
        chance=mended.chance,
        ranges=mended.ranges,
        note=mended.note,
    )


def _report_slices(
    known: TensorReport, parts: Sequence[_MendedPart], shape: tuple[int, ...], *, proved: bool
) -> TensorReport:
    """Sum up the slices of a tensor after mending."""
    statuses = [one.mended.status for one in parts]
    if all(status is Status.VERIFIED for status in statuses) and proved:
        return known
    order = list(Status)
    chances = [one.mended.chance for one in parts if one.mended.chance is not None]
    methods = sorted({one.mended.method for one in parts if one.mended.method})
    checks = [
        replace(one.part, check=Check(one.mended.status, None, one.mended.ranges)) for one in parts
    ]
    ranges = spans_of_parts(checks, shape)
    report = replace(
        known,
        method=_join(methods),
        chance=min(1.0, sum(chances)) if chances else None,
        ranges=ranges,
    )
    if all(status.proved for status in statuses):
        worst = max(statuses, key=order.index)
        sure = proved and sum(chances) <= HIGHEST_CHANCE
        note = f"every one of its {len(parts)} slices was got back"
        return replace(report, status=worst if sure else Status.UNVERIFIED, note=note)
    if all(status.proved or status is Status.UNVERIFIED for status in statuses):
        return replace(report, status=Status.UNVERIFIED)
    if ranges:
        return replace(report, status=Status.PARTIAL)
    return known


def _join(methods: Sequence[str]) -> str | None:
    """Name the first few methods."""
    more = [f"{len(methods) - 3} more"] if len(methods) > 3 else []
    return ", ".join([*methods[:3], *more]) or None


def _make_recovery(report: Report, mended: dict[str, _MendedTensor]) -> Recovery:
    tensors: dict[str, RecoveredTensor] = {}
    for name, one in mended.items():
        dtype = _dtype_of(one.assessed.data_type)
        if dtype is not None:
            tensors[name] = describe(one.report, one.assessed.data_type, dtype, _Loader(one))
    graph = tensors.pop(OBJECT_GRAPH, None)
    reports = {name: mended[name].report for name in report.tensors}
    known = mended.get(OBJECT_GRAPH)
    report = replace(
        report,
        tensors=reports,
        object_graph=known.report if known is not None else report.object_graph,
    )
    return Recovery(report, tensors, graph)


def _dtype_of(data_type: int) -> np.dtype[Any] | None:
    try:
        return numpy_dtype(data_type)
    except CheckpointError:
        return None


class _Loader:
    """Reads the values of a mended tensor."""

    __slots__ = ("_tensor",)

    def __init__(self, tensor: _MendedTensor) -> None:
        self._tensor = tensor

    def __call__(self) -> Loaded:
        one = self._tensor
        if not one.assessed.tensor.stored.entry.slices:
            return _load_part(one.parts[0])
        return self._load_slices(one)

    def _load_slices(self, one: _MendedTensor) -> Loaded:
        shape = one.assessed.shape
        dtype = numpy_dtype(one.assessed.data_type)
        array = allocate(shape, dtype)
        array.fill(b"" if dtype.kind == "O" else 0)
        missing = np.ones(shape, np.bool_)
        for part in one.parts:
            region = part.part.region
            if region is None or part.mended.recipe is None:
                continue
            index = _index(region)
            values, holes = _load_part(part)
            array[index] = values
            missing[index] = False if holes is None else holes
        return array, missing if missing.any() else None


def _index(region: Region) -> tuple[slice, ...]:
    return tuple(slice(part.start, part.stop) for part in region)


def _load_part(part: _MendedPart) -> Loaded:
    """Read one payload, and where it is missing."""
    stored, mended = part.part.stored, part.mended
    if stored is None or mended.recipe is None:
        raise AssertionError("only what has a recipe is held")
    entry = stored.entry
    data = mended.recipe.build(stored_dtype(stored))
    array = decode_payload(
        data, entry.data_type, entry.shape, big_endian=stored.big_endian, crc=mended.crc
    )
    return array, _missing(mended, array, stored)


def _missing(
    mended: Mended, array: npt.NDArray[Any], stored: Stored
) -> npt.NDArray[np.bool_] | None:
    if mended.status is not Status.PARTIAL:
        return None
    missing = np.ones(array.size, np.bool_)
    for start, stop in mended.ranges:
        missing[start:stop] = False
    return missing.reshape(stored.entry.shape)
