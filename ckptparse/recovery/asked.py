"""The arguments of `recover` in a report, so that the recovery can be repeated."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from ckptparse.dtypes import element_name
from ckptparse.errors import MalformedError
from ckptparse.examination.inputs import describe_limits, read_limits
from ckptparse.limits import Limits
from ckptparse.recovery.rebuild.shapes import GivenTensor

__all__ = ["describe_asked", "describe_scan", "is_scan", "read_asked", "read_scan"]

_JOB = "recover"
_SCAN = "scan"
PathLike = str | os.PathLike[str]


def describe_asked(
    path: str,
    *,
    siblings: bool,
    evidence: Iterable[str],
    mapfile: PathLike | None,
    shapes: Mapping[str, Any] | PathLike | None,
    given: Iterable[GivenTensor],
    limits: Limits,
) -> dict[str, Any]:
    """Return the arguments of `recover` as plain values.

    Args:
        path, siblings, evidence, mapfile, shapes, limits: The arguments.
        given: What the shapes are, if they were given as a mapping.
    """
    told: Any = None
    if isinstance(shapes, Mapping):
        told = {one.name: _describe(one) for one in given}
    elif shapes is not None:
        told = os.fsdecode(shapes)
    return {
        "job": _JOB,
        "path": path,
        "siblings": siblings,
        "evidence": list(evidence),
        "mapfile": None if mapfile is None else os.fsdecode(mapfile),
        "shapes": told,
        "limits": describe_limits(limits),
    }


def describe_scan(path: str, *, mapfile: PathLike | None, limits: Limits) -> dict[str, Any]:
    """Return the arguments of `scan` as plain values."""
    return {
        "job": _SCAN,
        "path": path,
        "mapfile": None if mapfile is None else os.fsdecode(mapfile),
        "limits": describe_limits(limits),
    }


def _describe(given: GivenTensor) -> Any:
    if given.data_type is None:
        return list(given.shape)
    return {"dtype": element_name(given.data_type), "shape": list(given.shape)}


def read_asked(asked: Mapping[str, Any], *, path: str) -> tuple[str, dict[str, Any]]:
    """Return path and other arguments of `recover` that a report tells.

    Raises:
        MalformedError: The report is of another job, or lacks some.
    """
    kinds = {
        "path": (str,),
        "siblings": (bool,),
        "evidence": (list,),
        "mapfile": (str, type(None)),
        "shapes": (str, dict, type(None)),
        "limits": (dict,),
    }
    good = asked.get("job") == _JOB and all(
        name in asked and isinstance(asked[name], kind) for name, kind in kinds.items()
    )
    if not good or not all(isinstance(one, str) for one in asked["evidence"]):
        raise MalformedError(
            "Expected the options of a recovery, found the options of another job",
            path=path,
            hint="Give a report that `recover` has written",
        )
    found = {name: asked[name] for name in ("siblings", "evidence", "mapfile", "shapes")}
    try:
        return asked["path"], {**found, "limits": read_limits(asked["limits"])}
    except TypeError as error:
        raise MalformedError(f"Expected limits, found others: {error}", path=path) from error


def is_scan(asked: Mapping[str, Any]) -> bool:
    """Tell whether a report is of a checkpoint that `scan` found."""
    return asked.get("job") == _SCAN


def read_scan(asked: Mapping[str, Any], *, path: str) -> tuple[str, dict[str, Any], int]:
    """Return path and other arguments of `scan` that a report tells, and the checkpoint's offset.

    Raises:
        MalformedError: The report lacks some.
    """
    place, mapfile, offset = asked.get("path"), asked.get("mapfile"), asked.get("offset")
    whole = isinstance(mapfile, (str, type(None))) and "limits" in asked
    if not whole or not isinstance(place, str) or not isinstance(offset, int):
        raise MalformedError(
            "Expected path, offset and limits of a scan, found some of them missing",
            path=path,
            hint="Give a report that `Recovery.write` has written",
        )
    try:
        return place, {"mapfile": mapfile, "limits": read_limits(asked["limits"])}, offset
    except (TypeError, AttributeError) as error:
        raise MalformedError(f"Expected limits, found others: {error}", path=path) from error
