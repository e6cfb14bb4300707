"""Measure what reading costs: bytes asked of the operating system, and memory."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from packages import tracemalloc

import ckptparse

MEGABYTE = 1 << 20


@dataclass
class Reads:
    """What was read from files while it was counted."""

    done: list[tuple[str, int, int]] = field(default_factory=list)
    """File name, offset and number of bytes of each read."""

    def bytes_of(self, suffix: str = "") -> int:
        """Bytes read from files whose name contains `suffix`."""
        return sum(size for name, _, size in self.done if suffix in name)

    def names(self) -> set[str]:
        return {name for name, _, _ in self.done}


@contextmanager
def counted_reads() -> Iterator[Reads]:
    """Count every positioned or sequential read that goes through `os`."""
    reads = Reads()

    def note(descriptor: int, offset: int, size: int) -> None:
        try:
            path = os.readlink(f"/proc/self/fd/{descriptor}")
        except OSError:
            path = "?"
        reads.done.append((os.path.basename(path), offset, size))

    # PyPy has no `preadv`.
    names = [name for name in ("pread", "preadv", "read") if hasattr(os, name)]
    real = {name: getattr(os, name) for name in names}

    def pread(descriptor: int, size: int, offset: int) -> bytes:
        data = real["pread"](descriptor, size, offset)
        note(descriptor, offset, len(data))
        return data

    def preadv(descriptor: int, buffers: Any, offset: int, *flags: int) -> int:
        size = real["preadv"](descriptor, buffers, offset, *flags)
        note(descriptor, offset, size)
        return size

    def read(descriptor: int, size: int) -> bytes:
        data = real["read"](descriptor, size)
        note(descriptor, -1, len(data))
        return data

    with pytest.MonkeyPatch.context() as patch:
        for counted in (pread, preadv, read):
            if counted.__name__ in real:
                patch.setattr(os, counted.__name__, counted)
        yield reads


def import_what_reading_needs() -> None:
    """Import what the package imports when first needed: modules are no cost of a file."""
    for module in ("api", "opening", "identification", "tensor_proto", "bundle.many"):
        import_module(f"ckptparse.{module}")
    for module in ("ml_dtypes", "snappy"):
        with suppress(ModuleNotFoundError):
            import_module(module)
    with suppress(ckptparse.CheckpointError):
        ckptparse.read(__file__)


@contextmanager
def allocating_at_most(size: int) -> Iterator[None]:
    """Fail where the traced peak of Python's and numpy's memory rises by more than `size` bytes."""
    import_what_reading_needs()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        yield
        peak = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    assert peak <= size, f"allocated {peak} bytes at the peak, at most {size} were expected"


def outcome_in_little_memory(
    tmp_path: Path, code: str, *, budget: int = 256 * MEGABYTE, seconds: int = 60
) -> str:
    """Run code in a process that may grow by `budget` bytes; return what it prints.

    The code sees `ckptparse` and `outcome(call)`, which gives the class of the error that the call
    raises, or `fine`. A process that dies or hangs fails the test.
    """
    program = f"""
    import contextlib, faulthandler, resource, sys
    import numpy, crc32c, snappy
    with contextlib.suppress(ModuleNotFoundError):
        import ml_dtypes
    import ckptparse
    from ckptparse import Limits
    faulthandler.enable()

    def outcome(call):
        try:
            call()
        except Exception as error:
            return type(error).__name__
        return "fine"

    pages = int(open("/proc/self/statm").read().split()[0])
    limit = pages * resource.getpagesize() + {budget}
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    """
    path = tmp_path / "program.py"
    path.write_text(textwrap.dedent(program) + "\n" + textwrap.dedent(code))
    done = subprocess.run(
        [sys.executable, str(path)],
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0, f"exit code {done.returncode}:\n{done.stderr[-3000:]}"
    return done.stdout.strip()


def noting_payloads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that takes each row of an index of which a payload is made, from now on."""
    from ckptparse.examination.plain_rows import PlainRows

    made: list[int] = []
    real = PlainRows.payload

    def note(rows: PlainRows, row: int) -> Any:
        made.append(row)
        return real(rows, row)

    monkeypatch.setattr(PlainRows, "payload", note)
    return made
