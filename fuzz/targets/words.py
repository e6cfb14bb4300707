"""Text that people give: state files, messages and names."""

from __future__ import annotations

import json
from collections.abc import Iterator

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


TARGETS = [
    Target("state", run_state, state_seeds, mutators.text),
    Target("explain", run_explain, explain_seeds, mutators.text),
    Target("text", run_text, explain_seeds, mutators.blind),
]
