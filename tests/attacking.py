"""Small files that were made to do harm, opened in a child with little memory and little time.

Every public call that takes a path must give a value or a `CheckpointError`, within a gigabyte of
memory and some seconds of processor time, whatever the file holds.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import pytest
from google.protobuf.internal import api_implementation

MEMORY = 1 << 30
"""Bytes that the child may take beyond what it has after its imports."""
SECONDS = 20 if api_implementation.Type() == "upb" else 40
"""Of processor time, for all calls together: a machine that is slow counts, waiting does not.
Protobuf's pure Python runtime takes several times as long as the others."""

CHILD = """
import json, resource, sys, time, warnings
import numpy, google.protobuf, crc32c
import ckptparse

def show(message, category, *_):
    assert issubclass(category, UserWarning), ascii(str(message))
    check(str(message))

warnings.simplefilter("always")
warnings.showwarning = show

def consume(value):
    if isinstance(value, ckptparse.Recovery):
        for tensor in value.values():
            try:
                tensor.read()
            except ckptparse.CheckpointError:
                pass
    elif not isinstance(value, (str, dict, list, tuple, ckptparse.Report, ckptparse.Identity)):
        for _ in value:
            pass

names, paths, memory, seconds, limits = json.loads(sys.argv[1])
LIMITS = ckptparse.Limits(**limits)

def graph(path):
    opened = ckptparse.open_graph(path, limits=LIMITS)
    return [opened.consumers(name) for name in opened.nodes]

def model(path):
    with ckptparse.open_saved_model(path, limits=LIMITS) as opened:
        return [len(opened.meta_graphs), len(opened.layers)]

def missing(path):
    with ckptparse.open(path, limits=LIMITS) as opened:
        return [opened["no such name"]]

CALLS = {
    "missing": missing,
    "identify": ckptparse.identify, "list": ckptparse.list_variables, "read": ckptparse.read,
    "verify": ckptparse.verify, "recover": ckptparse.recover, "annotate": ckptparse.annotate,
    "graph": graph, "model": model,
}
with open("/proc/self/statm") as statm:
    now = int(statm.read().split()[5]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_DATA, (now + memory, now + memory))
resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))

def call(name, path):
    try:
        ask = CALLS[name]
        own = name in ("missing", "graph", "model")
        value = ask(path) if own else ask(path, limits=LIMITS)
        consume(value)
    except ckptparse.CheckpointError as error:
        check(str(error))
        return type(error).__name__
    if isinstance(value, (ckptparse.Report, ckptparse.Identity)):
        check(str(value))
    return "value"

def check(text):
    for line in text.splitlines():
        assert line.isprintable(), ascii(line)

found = []
for path in paths:
    began = time.process_time()
    found.append({name: call(name, path) for name in names or list(CALLS)[1:]})
    spent = time.process_time() - began
    assert spent < seconds / 2, f"{path} took {spent:.1f} s"
print(json.dumps(found))
"""


def attempt(
    path: Path | str,
    *calls: str,
    memory: int = MEMORY,
    limits: Mapping[str, int] = MappingProxyType({}),
) -> dict[str, str]:
    """Make every call on a path, or those named, in a child, and return the outcomes.

    Of each call: `value`, or the name of the `CheckpointError` that it raised. Any other exception,
    a message that a terminal would obey, more memory or more time fails the test.
    """
    return attempt_each([path], *calls, memory=memory, limits=limits)[0]


def attempt_each(
    paths: Sequence[Path | str],
    *calls: str,
    memory: int = MEMORY,
    limits: Mapping[str, int] = MappingProxyType({}),
) -> list[dict[str, str]]:
    """Make the calls on each of several paths, in one child; see `attempt`."""
    given = [calls, [str(path) for path in paths], memory, SECONDS, dict(limits)]
    outcomes: list[dict[str, str]] = json.loads(
        run_child(CHILD, json.dumps(given)).splitlines()[-1]
    )
    return outcomes


def run_child(code: str, *arguments: str, options: Sequence[str] = (), expected: int = 0) -> str:
    """Run code in a fresh interpreter that finds the same packages; return what it printed."""
    if not sys.platform.startswith("linux"):
        pytest.skip("limits on a child's memory are those of Linux")
    search = os.pathsep.join(entry for entry in sys.path if entry)
    done = subprocess.run(
        [sys.executable, *options, "-c", code, *arguments],
        env={**os.environ, "PYTHONPATH": search, "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=20 * SECONDS,
    )
    assert done.returncode == expected, f"exit code {done.returncode}: {done.stderr[-2000:]}"
    return done.stdout
