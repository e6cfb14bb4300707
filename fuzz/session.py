"""Fuzz the harnesses, each for its share of the time, and print what each did.

    python fuzz/session.py SECONDS [TARGET ...] [--at-once 2] [--plain] [--runs N] [--coverage]

Two workers share the harnesses. A worker loads what its harnesses use, instrumented, once; then
each harness runs in a child of its own. SECONDS counts all of that. With `--plain` nothing is
instrumented: inputs are changed by chance alone, some times faster, and atheris is not needed. With
`--runs` a harness ends when it ran so often, and leaves the rest of its time to those after it.
With `--coverage`, all seeds are run afterwards, what was kept for half a minute, and changes of it
as long. Of `ckptparse` the lines are counted that are reached, without those that protoc generated.

Ends with 1 if a harness found something or could not run, and with 3 if atheris is not there.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from fuzz.driver import INTO, Findings, count_of, fuzz, new_counter, repeat

_LEAST = 3
"""Seconds that a harness gets whatever the others took."""
_WARMED = 4
"""Seeds of each harness that a worker runs first, so that what they use is loaded once."""
_NEVER_RUN = r"if TYPE_CHECKING:|@overload|^\s*\.\.\.$"
_LISTED = 40
"""Files that are listed of those of which most lines are not reached."""
_REPLAY = 30
"""Seconds of processor time for which inputs are run once more to count lines: what was kept, and
as long changes of it. The seeds are run before, all of them."""


def main() -> int:
    """Fuzz, and say how it went."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seconds", nargs="?", type=int, default=120)
    parser.add_argument("targets", nargs="*")
    parser.add_argument("--at-once", type=int, default=2)
    parser.add_argument("--coverage", action="store_true")
    parser.add_argument("--plain", action="store_true")
    parser.add_argument("--runs", type=int, help="a harness ends when it ran so often")
    options = parser.parse_intermixed_args()
    if not options.plain and find_spec("atheris") is None:
        print("nothing was fuzzed: atheris is not here; --plain needs none")
        return 3
    job = partial(work_plainly if options.plain else work, runs=options.runs)
    notes = fuzz_all(options.targets, options.seconds, options.at_once, job)
    shares = shares_of(cover(list(notes))) if options.coverage else {}
    return report(notes, shares)


def fuzz_all(
    chosen: list[str], seconds: int, at_once: int, job: Callable[[list[str], float], None]
) -> dict[str, dict[str, Any]]:
    """Run the workers; return what each harness noted."""
    began = time.monotonic()
    names = chosen or known_targets()
    shares = [names[number::at_once] for number in range(at_once)]
    children = []
    for share in filter(None, shares):
        child = os.fork()
        if not child:
            leave(partial(job, share, began + seconds))
        children.append(child)
    failed = [child for child in children if os.waitpid(child, 0)[1]]
    notes = {name: read_note(name, began) for name in names}
    if failed:
        print(f"{len(failed)} of {len(children)} workers did not end well")
    return notes


def known_targets() -> list[str]:
    """Name all harnesses, asking a child: nothing of the package may be loaded here yet."""
    code = "import fuzz.targets, json; print(json.dumps(list(fuzz.targets.TARGETS)))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path[:2])}
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, env=environment
    )
    return list(json.loads(done.stdout))


def leave(call: Any) -> None:
    """Make a call in a child, and end it."""
    code = 1
    try:
        call()
        code = 0
    except BaseException:  # noqa: BLE001 - a child must not go on as its parent
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def work(names: list[str], until: float, *, runs: int | None = None) -> None:
    """Load what harnesses use, and run one after the other until it is time."""
    import atheris

    silence()
    with ExitStack() as stack:
        # What is imported later is instrumented too: the children inherit the hook.
        stack.enter_context(atheris.instrument_imports(include=["ckptparse"]))
        warm(names)
        share_time(names, until, fuzz, runs)


def work_plainly(names: list[str], until: float, *, runs: int | None = None) -> None:
    """Run harnesses one after the other until it is time, nothing instrumented."""
    silence()
    warm(names)
    share_time(names, until, repeat, runs)


def share_time(names: list[str], until: float, way: Callable[..., None], runs: int | None) -> None:
    """Give each harness the same part of what is left."""
    for number, name in enumerate(names):
        left = (until - time.monotonic()) / (len(names) - number)
        run_harness(name, max(_LEAST, int(left)), way, runs)


def silence() -> None:
    """Send what atheris and libFuzzer tell to a file; keep the collector from what stays."""
    log = os.open(INTO / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 2)
    gc.disable()


def warm(names: list[str]) -> None:
    """Run some seeds of each harness."""
    from fuzz.targets import TARGETS

    for name in names:
        for seed in islice(TARGETS[name].seeds(), _WARMED if TARGETS[name].warms else 0):
            try:
                TARGETS[name].run(seed)
            except Exception:  # noqa: BLE001, PERF203 - it is found, and kept, when it is fuzzed
                traceback.print_exc()
    gc.collect()
    gc.freeze()
    gc.enable()


def run_harness(name: str, seconds: int, way: Callable[..., None], runs: int | None) -> None:
    """Fuzz one harness in a child, and note how often it ran, how long, and how it ended."""
    counter = new_counter()
    began = time.monotonic()
    child = os.fork()
    if not child:
        leave(partial(way, name, seconds, counter, runs=runs))
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    Findings(INTO / "findings" / name).add_hung(counter)
    note: dict[str, Any] = {
        "runs": count_of(counter),
        "seconds": time.monotonic() - began,
        "status": status,
    }
    note_of(name).write_text(json.dumps(note))
    with (INTO / "history.jsonl").open("a") as history:
        history.write(json.dumps({"harness": name, "way": way.__name__, **note}) + "\n")


def note_of(name: str) -> Path:
    """Say where a harness notes what it did."""
    return INTO / f"{name}.json"


def read_note(name: str, began: float) -> dict[str, Any]:
    """Read what a harness noted in this session, and count what it has found in any."""
    path = note_of(name)
    started = time.time() - (time.monotonic() - began)
    if not path.exists() or path.stat().st_mtime < started:
        return {"runs": 0, "seconds": 0.0, "status": "did not run", "found": 0}
    found = [one for one in (INTO / "findings" / name).iterdir() if one.suffix != ".txt"]
    return {**json.loads(path.read_text()), "found": len(found)}


Lines = dict[str, set[int]]
"""Of each file, by its path in the repository, some of its lines."""


def cover(names: list[str]) -> dict[str, Lines]:
    """Run what the fuzzer kept once more, and return the lines that each harness reaches."""
    with ThreadPoolExecutor(2) as pool:
        return dict(zip(names, pool.map(lines_of, names), strict=True))


def lines_of(name: str) -> Lines:
    """Return the lines that the kept inputs of a harness reach."""
    from coverage import CoverageData

    path = INTO / f"{name}.coverage"
    subprocess.run(
        [
            *(sys.executable, "-m", "coverage", "run", f"--data-file={path}"),
            *("--source", str(ROOT / "ckptparse"), str(ROOT / "fuzz" / "driver.py"), name),
            *("--replay", str(INTO / "corpus" / name), "--seconds", str(_REPLAY)),
        ],
        capture_output=True,
        check=False,
        timeout=60 * _REPLAY,
    )
    data = CoverageData(str(path))
    data.read()
    files = {file: set(data.lines(file) or ()) for file in data.measured_files()}
    return {Path(file).relative_to(ROOT).as_posix(): lines for file, lines in files.items()}


def countable_lines() -> Lines:
    """Return the lines of the package that can run: none that protoc made, none for types only."""
    from coverage.python import PythonParser

    found: Lines = {}
    for path in sorted((ROOT / "ckptparse").rglob("*.py")):
        if not path.name.endswith("_pb2.py"):
            parser = PythonParser(text=path.read_text(encoding="utf-8"), exclude=_NEVER_RUN)
            parser.parse_source()
            found[path.relative_to(ROOT).as_posix()] = parser.statements
    return found


def share_of(reached: Lines, countable: Lines) -> float:
    """Return the share of the lines that are reached."""
    count = sum(len(lines & reached.get(file, set())) for file, lines in countable.items())
    return count / sum(map(len, countable.values()))


def shares_of(reached: dict[str, Lines]) -> dict[str, float]:
    """Return the share of each harness, and of all; print the files that are reached least."""
    countable = countable_lines()
    together: Lines = {}
    for lines in reached.values():
        for file, some in lines.items():
            together.setdefault(file, set()).update(some)
    left = {file: len(lines - together.get(file, set())) for file, lines in countable.items()}
    print("lines that no harness reaches, by file:")
    for file in sorted(left, key=lambda one: -left[one])[:_LISTED]:
        print(f"{left[file]:6} of {len(countable[file]):4}  {file}")
    shares = {name: share_of(lines, countable) for name, lines in reached.items()}
    return {**shares, "all": share_of(together, countable)}


def report(notes: dict[str, dict[str, Any]], shares: dict[str, float]) -> int:
    """Print a line for each harness; return 1 if something is wrong."""
    print(f"{'harness':14} {'runs':>10} {'seconds':>8} {'lines':>7}  outcome")
    for name, note in notes.items():
        outcome = "ok" if note["status"] == 0 else f"ended with {note['status']}"
        if note["found"]:
            outcome = f"{note['found']} FOUND in {INTO / 'findings' / name}"
        print(line_of(name, note, shares), outcome)
    total = {key: sum(note[key] for note in notes.values()) for key in ("runs", "seconds")}
    print(line_of("all", total, shares))
    wrong = [name for name, note in notes.items() if note["found"] or note["status"] != 0]
    for name in wrong:
        for text in sorted((INTO / "findings" / name).glob("*.txt"))[:3]:
            print(f"===== {name}: {text.stem}\n{text.read_text(encoding='utf-8')[-1500:]}")
    return 1 if wrong else 0


def line_of(name: str, note: dict[str, Any], shares: dict[str, float]) -> str:
    """Make a line of the table."""
    share = f"{shares[name]:7.1%}" if name in shares else f"{'':7}"
    return f"{name:14} {note['runs']:10,} {note['seconds']:8.1f} {share} "


if __name__ == "__main__":
    INTO.mkdir(parents=True, exist_ok=True)
    raise SystemExit(main())
