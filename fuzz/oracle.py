"""What counts as wrong, whatever the input."""

from __future__ import annotations

import resource
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

import numpy as np

import ckptparse
from ckptparse.examination.verify import verify_path
from ckptparse.files.context import begin

__all__ = [
    "LIMITS",
    "BrokenPromiseError",
    "agree",
    "agree_singly",
    "attempt",
    "check_printable",
    "examine",
    "guarded",
    "same_values",
]

Given = ParamSpec("Given")
Result = TypeVar("Result")

LIMITS = ckptparse.Limits(
    memory_bytes=1 << 26,
    fill_bytes=1 << 26,
    shared_bytes=1 << 26,
    decompressed_bytes=1 << 26,
    unpacked_bytes=1 << 26,
    key_bytes=1 << 20,
    entries=200_000,
    strings=1 << 18,
    shards=1_000,
    members=1_000,
    attempts=4,
)
"""What a scanner would set: an input here has some kilobytes."""
_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
"""`read` does not give it."""
_SECONDS = 6.0
"""Of processor time for one input. It has 64 KiB at most, and instrumented code is some times
slower; the fuzzer itself ends at 25."""
_SUB_BYTE = {"int2", "uint2", "int4", "uint4"}
_BYTES = 600 << 20
"""Beyond what the process had when it began: several calls, each of which may take 64 MiB."""


class BrokenPromiseError(AssertionError):
    """The package broke one of its promises."""


def attempt(
    call: Callable[Given, Result], *args: Given.args, **kwargs: Given.kwargs
) -> Result | ckptparse.CheckpointError:
    """Make a call; an error of the package is a result, and its message is safe to print."""
    try:
        return call(*args, **kwargs)
    except ckptparse.CheckpointError as error:
        check_printable(str(error))
        return error


def check_printable(text: str) -> None:
    """Refuse text that a terminal would obey."""
    for line in text.split("\n"):
        if not line.isprintable():
            raise BrokenPromiseError(f"not safe to print: {line!a}")


@contextmanager
def guarded() -> Iterator[None]:
    """Hold one input to its time and memory, and to no warning but the package's own."""
    began = time.process_time()
    before = _peak()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", UserWarning)
        yield
    spent = time.process_time() - began
    if spent > _SECONDS:
        raise BrokenPromiseError(f"took {spent:.1f} seconds")
    if _peak() > before + _BYTES:
        raise BrokenPromiseError(f"took {(_peak() - before) >> 20} MiB")


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def same_values(first: Any, second: Any) -> bool:
    """Tell whether two arrays are the same bit for bit; objects by what they print."""
    if first.shape != second.shape or first.dtype != second.dtype:
        return False
    if first.dtype == object:
        return [repr(one) for one in first.reshape(-1)] == [repr(one) for one in second.reshape(-1)]
    return bool(np.array_equal(_raw(first), _raw(second)))


def _raw(array: Any) -> Any:
    if array.dtype.name in _SUB_BYTE:
        # One element a byte, whose high bits mean nothing: what is written has none.
        array = array.astype(np.int8)
    return np.frombuffer(np.ascontiguousarray(array).tobytes(), np.uint8)


def examine(path: str, store: Mapping[str, bytes]) -> ckptparse.Report:
    """Verify, and do not try what `recover` gives.

    `ckptparse.verify` calls `recover` if something is damaged, which takes as long again. That it
    does is for the harness of that name; this is for those that ask `recover` themselves, or need
    no more than the verdict.
    """
    return verify_path(*begin(path, store=store, limits=LIMITS, lenient=True))


def _expect_no_broken_table(report: ckptparse.Report) -> None:
    """Refuse errors of the tables of what was read. The metaindex block is never looked at."""
    for one in report.problems:
        kind, _, part = one.code.partition(".")
        is_error = one.severity == ckptparse.Severity.ERROR and kind in {"index", "v1"}
        if is_error and part != "metaindex" and one.where != _GRAPH:
            raise BrokenPromiseError(f"read gives all values, and verify says {one}")


def agree_singly(path: str, store: Mapping[str, bytes], report: ckptparse.Report) -> None:
    """Hold what is read of tensors one by one, and of nothing else, to what `verify` says."""
    if report.format == "graph":
        return
    for name, tensor in report.tensors.items():
        if tensor.status == "verified":
            continue
        value = attempt(_read_alone, path, store, name)
        if not isinstance(value, ckptparse.CheckpointError):
            raise BrokenPromiseError(f"{name!r} is read alone, and verify says {tensor}")


def _read_alone(path: str, store: Mapping[str, bytes], name: str) -> Any:
    with ckptparse.open(path, store=store, limits=LIMITS) as checkpoint:
        return checkpoint[name].read()


def agree(
    read: Mapping[str, Any] | ckptparse.CheckpointError,
    report: ckptparse.Report | ckptparse.CheckpointError,
    recovered: Mapping[str, Any] | ckptparse.CheckpointError,
) -> None:
    """Hold what `read`, `verify` and `recover` say of one checkpoint to each other."""
    if isinstance(read, ckptparse.CheckpointError):
        lost = isinstance(read, ckptparse.DataLossError)
        if lost and isinstance(report, ckptparse.Report) and report.ok:
            raise BrokenPromiseError(f"read says {read!r}, and verify that all is well")
        return
    if not isinstance(report, ckptparse.Report):
        raise BrokenPromiseError(f"read gives values, and verify says {report!r}")
    if isinstance(recovered, ckptparse.CheckpointError):
        raise BrokenPromiseError(f"read gives values, and recover says {recovered!r}")
    _expect_no_broken_table(report)
    # Graphs have no checksums.
    sound = ("verified",) if report.format != "graph" else ("verified", "unverified")
    for name, array in read.items():
        tensor = report.tensors.get(name)
        if tensor is None or tensor.status not in sound:
            raise BrokenPromiseError(f"read gives {name!r}, and verify says {tensor}")
        given = recovered[name]
        found = given if isinstance(given, np.ndarray) else attempt(given.read)
        if isinstance(found, ckptparse.CheckpointError) or not same_values(array, found):
            raise BrokenPromiseError(f"recover gives another value of {name!r}: {found!r}")
