"""Text that people give: state files, messages, names and command lines."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import ckptparse
from ckptparse import text as words
from fuzz import mutators, seeds
from fuzz.oracle import LIMITS, BrokenPromiseError, attempt, check_printable
from fuzz.targets.target import Target

__all__ = ["TARGETS"]


def run_state(data: bytes) -> None:
    store = {"d/checkpoint": data, "d/a.index": b"", "d/a.data-00000-of-00001": b""}
    attempt(ckptparse.checkpoint_state, "d", store=store, limits=LIMITS)
    attempt(ckptparse.latest_checkpoint, "d", store=store, limits=LIMITS)
    attempt(ckptparse.open, "d", store=store, limits=LIMITS)
    report = attempt(ckptparse.verify, "d", store=store, limits=LIMITS)
    if isinstance(report, ckptparse.Report):
        check_printable(str(report))


def state_seeds() -> Iterator[bytes]:
    yield from seeds.files("checkpoint")
    yield b'model_checkpoint_path: "a"\nall_model_checkpoint_paths: "a"\n'
    yield b'model_checkpoint_path: "C:\\\\run\\\\a"\nall_model_checkpoint_timestamps: 1.5\n'


def run_explain(data: bytes) -> None:
    found = attempt(ckptparse.explain, data.decode("utf-8", "surrogateescape"))
    if isinstance(found, ckptparse.CheckpointError):
        raise BrokenPromiseError(f"explain raised {found!r}")


def explain_seeds() -> Iterator[bytes]:
    messages = json.loads(
        (seeds.FIXTURES.parent / "tests" / "messages.json").read_text(encoding="utf-8")
    )
    for one in messages if isinstance(messages, list) else messages.values():
        yield json.dumps(one).encode() if not isinstance(one, str) else one.encode()


def run_text(data: bytes) -> None:
    name = data.decode("utf-8", "surrogateescape")
    if words.unescape(words.escape(name)) != name:
        raise BrokenPromiseError(f"escape loses {name!r}")
    if not words.escape(name).isprintable() or not words.clean(name).isprintable():
        raise BrokenPromiseError(f"not safe to print: {name!r}")


_UNEXPECTED = re.compile(r"Traceback|unexpected \w+(Error|Exception|Warning)")
COMMANDS = (
    "ls",
    "info",
    "show",
    "verify",
    "identify",
    "explain",
    "diff",
    "stats",
    "recover",
    "convert",
    "dump",
    "latest",
    "scan",
    "average",
    "write",
)


def run_command(data: bytes) -> None:
    """Run a command in this process: it ends with one of its exit codes, and no traceback."""
    from ckptparse.cli import main

    line, _, content = data.partition(b"\0")
    arguments = line.decode("utf-8", "replace").split("\n")[:12]
    here = os.getcwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            Path("m.index").write_bytes(content)
            Path("m.data-00000-of-00001").write_bytes(content[:64])
            code, output = call(main, arguments)
        finally:
            os.chdir(here)
    if code not in (0, 1, 2, 3, None) or _UNEXPECTED.search(output):
        raise BrokenPromiseError(f"{arguments} ends with {code}: {output[-2000:]}")


def call(main: Callable[[], None], arguments: list[str]) -> tuple[object, str]:
    import sys

    out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="surrogateescape")
    before = sys.argv
    sys.argv = ["ckptparse", *arguments]
    code: object = None
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            main()
    except SystemExit as error:
        code = error.code
    finally:
        sys.argv = before
    out.flush()
    return code, out.buffer.getvalue().decode("utf-8", "replace")


def command_seeds() -> Iterator[bytes]:
    index = next(seeds.files("*.index"))
    for command in COMMANDS:
        yield f"{command}\nm".encode() + b"\0" + index
        yield f"{command}\n--json\nm.index".encode() + b"\0" + index
    yield b"convert\nm\nout.npz\0" + index
    yield b"recover\nm\n-o\nout\0" + index
    yield b"show\nm\na[0:2]\n--stats\0" + index
    yield b"explain\nChecksum does not match\0"


def mutate_command(data: bytes, rng: random.Random) -> bytes:
    line, _, content = data.partition(b"\0")
    words_ = line.split(b"\n")
    kind = rng.randrange(6)
    if kind == 0:
        words_[0] = rng.choice(COMMANDS).encode()
    elif kind == 1:
        options = [b"--json", b"--quiet", b"--all", b"--tree", b"--stats", b"-o", b"--names", b"m"]
        words_.insert(rng.randint(1, len(words_)), rng.choice(options))
    elif kind == 2 and len(words_) > 1:
        del words_[rng.randrange(1, len(words_))]
    elif kind == 3:
        words_[-1] = mutators.blind(words_[-1], rng).replace(b"\0", b"")
    else:
        content = mutators.table(content, rng)
    return b"\n".join(words_) + b"\0" + content


TARGETS = [
    Target("state", run_state, state_seeds, mutators.text),
    Target("explain", run_explain, explain_seeds, mutators.text),
    Target("text", run_text, explain_seeds, mutators.blind),
    Target("command", run_command, command_seeds, mutate_command),
]
