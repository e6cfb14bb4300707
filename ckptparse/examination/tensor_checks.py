"""Check tensors one by one against the data files: payloads, and how slices are laid out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

from ckptparse.errors import CheckpointError
from ckptparse.examination.byte_order import find_order
from ckptparse.examination.case import Case, CheckedTensor, Part
from ckptparse.examination.check import Check, check_payload
from ckptparse.examination.outcome import Outcome
from ckptparse.examination.payload import Form, ListedTensor, Payload
from ckptparse.examination.readers import DataFiles
from ckptparse.problems import Cause, Status
from ckptparse.slices import SliceGrid

__all__ = ["check_tensors"]


def _prove_order(parts: Sequence[Part], files: DataFiles) -> None:
    """Prove the byte order if the header is lost.

    The checksum over the lengths of strings is computed in that byte order (docs/format.md, section
    2.8). If it agrees for one string tensor, the byte order is right for all of the same index. So
    it is if weights that have their checksum are usual numbers in that order alone.
    """
    known = {
        (part.payload.index, part.payload.big_endian)
        for part in parts
        if part.payload is not None
        and part.payload.waiting
        and part.check.status is Status.UNVERIFIED
        and part.check.cause is Cause.ENTRY
        and part.payload.form is Form.STRINGS
        and part.check.outcome.ranges
    }
    known |= _orders_of_weights(parts, known, files)
    for part in parts:
        payload = part.payload
        if payload and payload.waiting and (payload.index, payload.big_endian) in known:
            part.payload = replace(payload, proved=True, waiting=False)
            if part.check.cause is Cause.ENTRY and part.check.status is Status.UNVERIFIED:
                ranges = part.check.outcome.ranges
                part.check = Check(Outcome(Status.VERIFIED, ranges=ranges))


def _orders_of_weights(
    parts: Sequence[Part], known: Collection[tuple[str, bool]], files: DataFiles
) -> set[tuple[str, bool]]:
    """Return the indexes whose byte order weights tell that have their checksum, and this order."""
    waiting: dict[tuple[str, bool], list[Payload]] = defaultdict(list)
    for part in parts:
        payload = part.payload
        if payload is None or not payload.waiting or part.check.status is not Status.UNVERIFIED:
            continue
        key = payload.index, payload.big_endian
        if part.check.cause is Cause.ENTRY and payload.form is Form.PLAIN and key not in known:
            waiting[key].append(payload)
    return {key for key, these in waiting.items() if find_order(files, these) is key[1]}


def check_tensors(tensors: Iterable[ListedTensor], case: Case) -> list[CheckedTensor]:
    """Check tensors, and return them in the order given. They are read in the files' order."""
    checked = [_lay_out(tensor) for tensor in tensors]
    parts = [part for one in checked for part in one.parts if part.payload is not None]
    parts.sort(key=_place)
    if not case.files.is_watched:
        case.files.begin(sum(part.payload.size for part in parts if part.payload))
    for part in parts:
        if part.payload is not None:
            part.check = check_payload(case.files, part.payload)
    case.files.finish()
    _prove_order(parts, case.files)
    return checked


def _place(part: Part) -> tuple[str, int]:
    return (part.payload.file.path, part.payload.offset) if part.payload else ("", 0)


_UNSTORED = Check(
    Outcome(Status.MISSING, Cause.SLICE, note="the index lists a slice that is not stored")
)
_UNRECORDED = Check(
    Outcome(Status.MISSING, Cause.UNKNOWN, note="the record with its values is lost")
)


def _lay_out(tensor: ListedTensor) -> CheckedTensor:
    """Make the parts of a tensor, and check that slices fit it."""
    if not tensor.has_kind:
        outcome = Outcome(Status.MISSING, Cause.UNKNOWN, note=tensor.doubt)
        return CheckedTensor(tensor, [Part(None, Check(outcome))])
    if not tensor.slices:
        return CheckedTensor(tensor, [Part(tensor.payload, _UNRECORDED)])
    loose = [
        Part(payload, _UNSTORED, piece=piece)
        for piece, payload in tensor.slices
        if payload is not None
    ]
    try:
        grid = SliceGrid([piece for piece, _ in tensor.slices], tensor.shape)
    except CheckpointError as error:
        return CheckedTensor(tensor, loose, error.message)
    parts = []
    for piece, payload in tensor.slices:
        region = piece.resolve(tensor.shape)
        lengths = tuple(map(len, region))
        said = (lengths, tensor.data_type)
        if payload is not None and (payload.shape, payload.data_type) != said:
            return CheckedTensor(
                tensor, loose, f"slice {piece} has another shape or dtype than its tensor says"
            )
        parts.append(Part(payload, _UNSTORED, region, piece))
    gap = grid.find_missing(tuple(map(range, tensor.shape)))
    if gap is not None:
        note = f"no listed slice covers {gap}"
        parts.append(Part(None, _UNSTORED.because(Cause.SLICE, note)))
    return CheckedTensor(tensor, parts)
