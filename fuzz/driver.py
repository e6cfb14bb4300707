"""Run one harness: under the fuzzer, or on inputs that are there.

python fuzz/driver.py TARGET --once FILE                  run one input; what is wrong is raised
python fuzz/driver.py TARGET --replay DIR                 run all inputs of a folder
python fuzz/driver.py TARGET --replay DIR --seconds N     run all seeds, then inputs of the folder
                                                          and changed ones, N seconds of each
"""

from __future__ import annotations

import argparse
import faulthandler
import hashlib
import os
import random
import signal
import struct
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from mmap import mmap
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fuzz.targets import Target

ROOT = Path(__file__).resolve().parents[1]
INTO = Path(os.environ.get("CKPTPARSE_FUZZ") or ROOT / "build" / "fuzz")
"""What was found lies here, and what the fuzzer kept."""
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

LONGEST = 1 << 16
_STUCK = 25
"""Seconds of processor time after which an input counts as one that never ends."""
_WAITING = 300
"""Seconds of any time: if it waits for what never comes. On a busy machine 25 mean nothing."""
_HUNG = _WAITING + 30
"""Seconds after which the process ends: it is in a library that no signal leads out of."""
_HEAD = struct.Struct("<QQ")
"""What a counter holds: how often a harness ran, and the bytes of the input that follows."""
_FEW_SEEDS = 12
_SHORT = 60
"""A run of fewer seconds begins with few seeds, lest it only reads what is there."""


def main() -> None:
    """Run inputs without the fuzzer."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target")
    parser.add_argument("--once", type=Path)
    parser.add_argument("--replay", type=Path)
    parser.add_argument("--seconds", type=float, help="of processor time")
    options = parser.parse_args()
    from fuzz.oracle import guarded
    from fuzz.targets import TARGETS

    target = TARGETS[options.target]
    paths = [options.once] if options.once else sorted(options.replay.iterdir())
    kept = [path.read_bytes() for path in paths]
    if options.seconds:
        raise SystemExit(replay(target, kept, options.seconds))
    for data in kept:
        with guarded():
            target.run(data)


def replay(target: Target, kept: list[bytes], seconds: float) -> int:
    """Run every seed, then what was kept and changes of all; return 1 if something was wrong."""
    from fuzz.oracle import guarded

    seeds = sorted({seed[:LONGEST] for seed in target.seeds()}, key=len)
    others = sorted(set(kept).difference(seeds))
    random.Random(0).shuffle(others)
    wrong = 0
    for inputs, most in (
        (iter(seeds), float("inf")),
        (iter(others), seconds),
        (changed(target.mutate, seeds + others), seconds),
    ):
        until = time.process_time() + most
        for data in inputs:
            try:
                with guarded():
                    target.run(data)
            except Exception:  # noqa: BLE001 - it is told, and the others run
                traceback.print_exc()
                wrong = 1
            if time.process_time() > until:
                break
    return wrong


def changed(
    mutate: Callable[[bytes, random.Random], bytes], inputs: Sequence[bytes]
) -> Iterator[bytes]:
    """Give inputs, each changed once or some times, without end."""
    rng = random.Random()
    while inputs:
        data = rng.choice(inputs)
        for _ in range(rng.choice((1, 1, 2, 4))):
            data = mutate(data, rng)[:LONGEST]
        yield data


class Findings:
    """What a harness found: for each place in the code one input, and what it raised."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.hung = folder / "hung"
        """What is told here when the process must be ended."""
        folder.mkdir(parents=True, exist_ok=True)
        self._known = {path.stem for path in folder.glob("*.txt")}

    def add_hung(self, counter: mmap) -> None:
        """Keep the input in which the process was ended, if it was."""
        where = self.hung.read_text(encoding="utf-8") if self.hung.exists() else ""
        self.hung.unlink(missing_ok=True)
        if where:
            _, size = _HEAD.unpack_from(counter)
            data = counter[_HEAD.size :][:size]
            key = f"hung-{hashlib.sha256(data).hexdigest()[:12]}"
            (self.folder / key).write_bytes(data)
            (self.folder / f"{key}.txt").write_text(where, encoding="utf-8")

    def add(self, data: bytes, error: BaseException) -> None:
        """Keep an input, unless one that is raised at the same place is kept already."""
        frames = traceback.extract_tb(error.__traceback__)
        inside = [frame for frame in frames if "ckptparse/" in frame.filename] or frames
        place = "".join(f"{frame.filename}:{frame.lineno}\n" for frame in frames[-1:] + inside[-1:])
        key = hashlib.sha256(f"{type(error).__name__}\n{place}".encode()).hexdigest()[:12]
        if key not in self._known:
            self._known.add(key)
            (self.folder / key).write_bytes(data)
            text = "".join(traceback.format_exception(error))
            (self.folder / f"{key}.txt").write_text(text, "utf-8", "backslashreplace")


def prepare(name: str, seconds: float) -> Path:
    """Write the seeds of a harness into its folder, all of them or some if time is short."""
    from fuzz.targets import TARGETS

    corpus = INTO / "corpus" / name
    corpus.mkdir(parents=True, exist_ok=True)
    seeds = sorted({seed[:LONGEST] for seed in TARGETS[name].seeds()}, key=len)
    if seconds < _SHORT:
        seeds = seeds[: -(-len(seeds) * 2 // 3)]
        seeds = seeds[:: max(1, -(-len(seeds) // _FEW_SEEDS))]
    for seed in seeds:
        (corpus / hashlib.sha256(seed).hexdigest()[:16]).write_bytes(seed)
    return corpus


def runner(name: str, findings: Findings, counter: mmap) -> Callable[[bytes], None]:
    """Make what runs an input, counts it, and keeps what is wrong."""
    from fuzz.oracle import guarded
    from fuzz.targets import TARGETS

    target = TARGETS[name]
    count = 0

    def run(data: bytes) -> None:
        nonlocal count
        count += 1
        _HEAD.pack_into(counter, 0, count, len(data))
        counter[_HEAD.size : _HEAD.size + len(data)] = data
        with findings.hung.open("w", encoding="utf-8") as note:
            faulthandler.dump_traceback_later(_HUNG, file=note, exit=True)
            try:
                with ended_in_time(), guarded():
                    target.run(data)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
                findings.add(data, error)
            finally:
                faulthandler.cancel_dump_traceback_later()

    return run


def repeat(name: str, seconds: int, counter: mmap, *, runs: int | None = None) -> None:
    """Run changed seeds, and changed inputs that were kept, whatever lines they reach.

    It needs no atheris, and is some times faster.
    """
    from fuzz.targets import TARGETS

    corpus = prepare(name, max(seconds, _SHORT))
    inputs = [path.read_bytes() for path in sorted(corpus.iterdir())]
    findings = Findings(INTO / "findings" / name)
    run = runner(name, findings, counter)
    until = time.monotonic() + seconds
    for data in islice(changed(TARGETS[name].mutate, inputs), runs):
        if time.monotonic() > until:
            break
        run(data)


def new_counter() -> mmap:
    """Make what a harness and who waits for it share: how often it ran, and on what last."""
    return mmap(-1, _HEAD.size + LONGEST)


def count_of(counter: mmap) -> int:
    """Read how often a harness ran."""
    count, _ = _HEAD.unpack_from(counter)
    return int(count)


@contextmanager
def ended_in_time() -> Iterator[None]:
    """Raise an error if it takes too long."""

    def stop(number: int, _: object) -> None:
        if number == signal.SIGPROF:
            raise TimeoutError(f"took more than {_STUCK} seconds of processor time")
        raise TimeoutError(f"took more than {_WAITING} seconds")

    before = [(one, signal.signal(one, stop)) for one in (signal.SIGPROF, signal.SIGALRM)]
    signal.setitimer(signal.ITIMER_PROF, _STUCK)
    signal.alarm(_WAITING)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.alarm(0)
        for one, handler in before:
            signal.signal(one, handler)


def fuzz(name: str, seconds: int, counter: mmap, *, runs: int | None = None) -> None:
    """Fuzz a harness in this process, which ends with it.

    Args:
        name: Of the harness.
        seconds: How long.
        counter: It is shared with who waits; see `new_counter`.
        runs: Stop when it ran so often, if that is sooner.
    """
    import atheris

    from fuzz.targets import TARGETS

    target = TARGETS[name]
    corpus = prepare(name, seconds)
    findings = Findings(INTO / "findings" / name)
    run = runner(name, findings, counter)

    def mutate(data: bytes, most: int, seed: int) -> bytes:
        rng = random.Random(seed)
        if not rng.randrange(4):
            return bytes(atheris.Mutate(data, most))
        return target.mutate(data, rng)[:most]

    arguments = [
        sys.argv[0],
        str(corpus),
        f"-max_total_time={seconds}",
        f"-runs={-1 if runs is None else runs}",
        f"-max_len={LONGEST}",
        f"-timeout={_WAITING}",
        f"-report_slow_units={_WAITING}",
        "-rss_limit_mb=3000",
        f"-artifact_prefix={findings.folder}/",
        "-verbosity=0",
    ]
    setup: Any = atheris.Setup
    setup(arguments, run, custom_mutator=mutate, internal_libfuzzer=True)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
