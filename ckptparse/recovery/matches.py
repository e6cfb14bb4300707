"""Bytes somewhere else that have the checksum of a payload: they are its bytes.

Tried in this order: another tensor of the same checkpoint, other places and files, other
checkpoints, and the payload's own bytes with its holes filled from another checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from ckptparse.examination.check import Check
from ckptparse.examination.outcome import Outcome, Span
from ckptparse.examination.payload import Form, PartName, Payload
from ckptparse.examination.places import NO_CHANCE, Place, TwinKey, twin_key
from ckptparse.examination.readers import DataFile, DataFiles
from ckptparse.problems import Cause, Status
from ckptparse.recovery.mended import (
    Mended,
    at_place,
    available_bytes,
    crc_with,
    recipe_of,
    whole_of,
)
from ckptparse.recovery.recipe import Patch
from ckptparse.recovery.siblings import Siblings

__all__ = ["Matcher"]


class Matcher:
    """Finds the bytes of payloads by their checksums."""

    def __init__(
        self,
        files: DataFiles,
        twins: Mapping[TwinKey, tuple[str, Payload]],
        places: Mapping[DataFile, Sequence[Place]],
        siblings: Siblings,
    ) -> None:
        self._files = files
        self._twins = twins
        self._places = places
        self._siblings = siblings

    def find(self, name: PartName, payload: Payload, check: Check) -> Iterator[Mended | None]:
        """Try one after the other; None where one finds nothing."""
        if payload.crc32c is None or not payload.size:
            return
        yield self._from_twin(payload)
        yield self._from_places(payload)
        yield self._from_equal(payload)
        yield self._filled(name, payload, check)

    def _from_twin(self, payload: Payload) -> Mended | None:
        key = twin_key(payload)
        found = self._twins.get(key) if key is not None else None
        if found is None:
            return None
        name, twin = found
        note = f"{name!r} has the same size and checksum, and is whole"
        return _equal(
            twin, payload, None, method="another tensor's bytes", chance=NO_CHANCE, note=note
        )

    def _from_places(self, payload: Payload) -> Mended | None:
        for place in self._places.get(payload.file, ()):
            if place.holds(self._files, payload):
                note = self._describe(place.file) if place.cause is None else ""
                there = place.of(payload)
                return _equal(
                    there,
                    payload,
                    place.cause,
                    method=place.method,
                    chance=place.chance,
                    note=note,
                )
        return None

    def _from_equal(self, payload: Payload) -> Mended | None:
        other = self._siblings.find_equal(payload)
        if other is None:
            return None
        note = self._describe(other.file)
        return _equal(other, payload, None, method="a sibling's bytes", chance=NO_CHANCE, note=note)

    def _describe(self, file: DataFile) -> str:
        name = self._files.context.storage.split(file.path)[1]
        return f"{name} holds bytes of the same size and checksum"

    def _filled(self, name: PartName, payload: Payload, check: Check) -> Mended | None:
        """Fill holes, or the end that was cut off, with a sibling's bytes."""
        if payload.form in (Form.STRINGS, Form.VARIANTS):
            return None
        holes = check.holes or self._cut_off(payload, check)
        if not holes or holes == ((0, payload.size),):
            return None
        for other in self._siblings.named(name, payload):
            size = self._files.size(other.file)
            if size is None or other.end > size:
                continue
            patches = self._patches(other, holes)
            if crc_with(self._files, payload, patches) == payload.crc32c:
                file = self._files.context.storage.split(other.file.path)[1]
                outcome = Outcome(
                    Status.CORRECTED,
                    check.cause,
                    "filling what is lost with a sibling's bytes",
                    payload.place,
                    NO_CHANCE,
                    whole_of(payload),
                    f"from {file}",
                )
                recipe = recipe_of(payload, available_bytes(self._files, payload))
                return Mended(outcome, replace(recipe, patches=patches))
        return None

    def _patches(self, other: Payload, holes: Sequence[Span]) -> tuple[Patch, ...]:
        return tuple(
            Patch(start, bytes(self._files.read(other.file, other.offset + start, stop - start)))
            for start, stop in holes
        )

    def _cut_off(self, payload: Payload, check: Check) -> tuple[Span, ...]:
        available = available_bytes(self._files, payload)
        if check.cause is not Cause.TRUNCATED or not available:
            return ()
        return ((available, payload.size),)


def _equal(
    there: Payload,
    payload: Payload,
    cause: Cause | None,
    *,
    method: str,
    chance: float,
    note: str,
) -> Mended:
    """Return equal bytes that lie elsewhere."""
    found = at_place(there, Status.CORRECTED, whole_of(payload))
    outcome = replace(found.outcome, cause=cause, method=method, chance=chance, note=note)
    return replace(found, outcome=outcome)
