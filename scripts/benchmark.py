"""Measure what the README's table of speed says, on this machine.

    python scripts/benchmark.py                    every job, seven rounds
    python scripts/benchmark.py read list --rounds 3
    python scripts/benchmark.py --json out.json --readme
    python scripts/benchmark.py --scale scale.png  how the cost grows with the work
    python scripts/benchmark.py sparse             64 GiB, in a sparse file
    python scripts/benchmark.py read --cold        with memory as it happens to be at hand
    python scripts/benchmark.py cold               with nothing in the page cache, beside `dd`
    python scripts/benchmark.py recover            what recovery is made of, method by method
    python scripts/benchmark.py remote             from a web server that is slow to answer

Every run is a fresh process, with the page cache warm, memory made ready (see `benchmark_jobs`) and
imports not counted; ours, TensorFlow's, safetensors' and the bare limit (the same reads and
checksums in a loop with nothing else) take turns, so that a machine that slows down slows down all
of them. What counts is the ratio of two columns. TensorFlow and safetensors take part where they
are installed; safetensors' format has no checksums to verify. Peak memory is that of one more run,
watched from outside. Needs Linux, and disk for 5 GiB of inputs, which are made once.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from typing import Any

from benchmark_inputs import make_input
from benchmark_jobs import JOBS, OWN, Job
from benchmark_recover import PREPARED

HERE = Path(__file__).resolve().parent
README = HERE.parent / "README.md"
GROUPS = {"recover": tuple(PREPARED)}
"""Jobs that can be asked for by one name."""
HEADINGS = ("read", "look", "move", "repair")
"""The parts of the table, in order."""
READERS = (*OWN, "tensorflow", "safetensors")
OTHERS_ROUNDS = 3
"""Measured rounds that the other packages take part in: TensorFlow takes seconds to begin with, and
is slower by so much that three runs tell."""
BEGIN, END = "<!-- benchmark table: begin -->", "<!-- benchmark table: end -->"


@dataclass
class Runs:
    """What the runs of one job by one reader took."""

    seconds: list[float] = field(default_factory=list)
    memory: dict[str, int] = field(default_factory=dict)

    def summary(self) -> dict[str, Any]:
        """Medians, and the least, as JSON has them."""
        return {
            "seconds": statistics.median(self.seconds),
            "least": min(self.seconds),
            "most": max(self.seconds),
            "runs": len(self.seconds),
            **self.memory,
        }


def main() -> None:
    """Parse the arguments, run, print."""
    args = parse_arguments()
    # The first round leaves compiled modules for the next ones, as a first run does for a user.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    if args.scale:
        from benchmark_scale import draw_scale

        draw_scale(args.scale)
        return
    if args.jobs == ["remote"]:
        from benchmark_remote import main as measure_remote

        measure_remote(args.rounds, directory=args.directory)
        return
    named = {one for name in args.jobs for one in GROUPS.get(name, (name,))}
    jobs = [job for job in JOBS if (job.name in named if named else job.usual)]
    readers = [name for name in READERS if is_installed(name)]
    results = measure(jobs, readers, Path(args.directory), args.rounds, cold=args.cold)
    table = format_table(jobs, readers, results)
    if not named and is_installed("obstore"):
        import benchmark_remote as remote

        found = dict(remote.measure(min(3, args.rounds), directory=args.directory))
        note = f"From a web server on the same machine: {remote.SLOWNESS} requests in brackets."
        table += f"\n\n{note}\n\n{remote.format_table(found)}"
    print(table)
    if args.json:
        report = {"machine": describe_machine(), "rounds": args.rounds, "jobs": results}
        Path(args.json).write_text(json.dumps(report, indent=1) + "\n")
    if args.readme:
        put_into_readme(table, args.rounds)


def parse_arguments() -> argparse.Namespace:
    """Describe and parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("jobs", nargs="*", help=f"of {', '.join(job.name for job in JOBS)}")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each (default 5)")
    parser.add_argument("--directory", default=default_directory(), help="for the inputs, 6 GiB")
    parser.add_argument("--json", metavar="FILE", help="write every figure")
    parser.add_argument("--readme", action="store_true", help="put the table into README.md")
    parser.add_argument("--cold", action="store_true", help="do not make memory ready")
    parser.add_argument("--scale", metavar="PNG", help="draw cost against work instead")
    args = parser.parse_args()
    unknown = set(args.jobs) - {job.name for job in JOBS} - GROUPS.keys() - {"remote"}
    if unknown:
        parser.error(f"there is no job {', '.join(sorted(unknown))}")
    if args.rounds < 1:
        parser.error("--rounds is at least 1")
    if args.readme and (args.jobs or args.cold):
        parser.error("--readme puts in the whole table, measured the usual way")
    if sys.platform != "linux":
        parser.error("memory is measured by Linux's /proc: there is no benchmark elsewhere")
    return args


def default_directory() -> str:
    """Where inputs stay from one call to the next."""
    return os.path.join(tempfile.gettempdir(), "ckptparse-benchmark")


def is_installed(reader: str) -> bool:
    """Tell whether a reader can take part."""
    if reader == "limit":
        return True
    spec = importlib.util.find_spec(reader)
    # A folder of that name on the path (tests/tensorflow) has a spec too, but no origin.
    return spec is not None and spec.origin is not None


def measure(
    jobs: list[Job], readers: list[str], directory: Path, rounds: int, *, cold: bool
) -> dict[str, dict[str, Any]]:
    """Run every job by every reader that knows it, in interleaved rounds."""
    paths = {job.name: make_input(job.input, directory) for job in jobs}
    runs = {
        (job.name, reader): Runs() for job in jobs for reader in readers if reader in job.readers
    }
    turns = list(iter_turns(jobs, readers, rounds + 1))
    for done, (number, job, reader) in enumerate(turns):
        show_progress(done, len(turns), f"{job.name} by {reader}")
        # The first round warms the page cache, and looks at the memory.
        watch = PeakMemory() if number == 0 else None
        seconds = run_once(job, reader, paths[job.name], cold=cold or number == 0, watch=watch)
        if watch is None:
            runs[job.name, reader].seconds.append(seconds)
        elif job.memory:
            runs[job.name, reader].memory = watch.summary()
    show_progress(len(turns), len(turns), "")
    return {
        job.name: {
            reader: runs[job.name, reader].summary()
            for reader in readers
            if (job.name, reader) in runs
        }
        for job in jobs
    }


def iter_turns(jobs: list[Job], readers: list[str], rounds: int) -> Iterator[tuple[int, Job, str]]:
    """Iterate over every job by every reader, round by round.

    The other packages take part in the first measured rounds only. In another order every time: a
    process that follows a large one finds memory that the machine has at hand, and whoever always
    came second would look faster than he is.
    """
    for number in range(rounds):
        for job in jobs:
            for again in range(job.times if number else 1):
                here = READERS if 0 < number <= OTHERS_ROUNDS and not again else OWN
                turn = [reader for reader in readers if reader in job.readers and reader in here]
                random.Random(f"{number} {again} {job.name}").shuffle(turn)  # noqa: S311 - an order
                for reader in turn:
                    yield number, job, reader


class PeakMemory:
    """The most memory that a process took, looked at from outside every few milliseconds."""

    def __init__(self) -> None:
        self.anonymous = self.total = 0

    def watch(self, process: subprocess.Popen[str]) -> None:
        """Look until the process has ended."""
        status = Path(f"/proc/{process.pid}/status")
        # A process that is ending has no memory left, and then no status.
        with suppress(OSError, KeyError):
            while process.poll() is None:
                found = dict(line.split(":", 1) for line in status.read_text().splitlines())
                self.anonymous = max(self.anonymous, 1024 * int(found["RssAnon"].split()[0]))
                self.total = max(self.total, 1024 * int(found["VmHWM"].split()[0]))
                time.sleep(0.002)

    def summary(self) -> dict[str, int]:
        """Bytes, as JSON has them."""
        return {"peak_anonymous_bytes": self.anonymous, "peak_total_bytes": self.total}


def run_once(job: Job, reader: str, path: Path, *, cold: bool, watch: PeakMemory | None) -> float:
    """Run one job in a fresh process; return the seconds that its work took."""
    command = [sys.executable, str(HERE / "benchmark_jobs.py"), job.name, reader, str(path)]
    command += ["--cold"] if cold else []
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as process:
        watcher = None if watch is None else Thread(target=watch.watch, args=(process,))
        if watcher is not None:
            watcher.start()
        out, errors = process.communicate()
        if watcher is not None:
            watcher.join()
    if process.returncode:
        ended = f"ended with {process.returncode} (of a signal, if below 0)"
        raise SystemExit(f"{' '.join(command)} {ended}:\n{errors}")
    return float(json.loads(out.splitlines()[-1])["seconds"])


def show_progress(done: int, total: int, what: str) -> None:
    """Draw a bar on a terminal's standard error."""
    if not sys.stderr.isatty():
        return
    filled = 40 * done // total
    bar = "#" * filled + "-" * (40 - filled)
    sys.stderr.write(
        f"\r[{bar}] {done}/{total} {what:<40}" + ("\n" if done == total and not what else "")
    )
    sys.stderr.flush()


def format_table(jobs: list[Job], readers: list[str], results: dict[str, dict[str, Any]]) -> str:
    """Make the table: medians, ratios to ours, our peak memory."""
    over = [f"{reader} / ours" for reader in ("tensorflow", "safetensors")]
    head = ["work", *readers, *over, "ours / limit", "peak memory, anonymous / total"]
    rows = [head, ["---"] * len(head)]
    group = ""
    # Jobs of a group stand together, in the order of the list.
    for job in sorted(jobs, key=lambda job: HEADINGS.index(job.group)):
        if job.group != group:
            group = job.group
            rows.append([f"**{group}**", *[""] * (len(head) - 1)])
        found = results[job.name]
        rows.append(
            [
                job.title,
                *(
                    format_seconds(found[reader]["seconds"]) if reader in found else "–"
                    for reader in readers
                ),
                format_ratio(found, "tensorflow", "ckptparse"),
                format_ratio(found, "safetensors", "ckptparse"),
                format_ratio(found, "ckptparse", "limit"),
                format_memory(found["ckptparse"]) if job.memory else "–",
            ]
        )
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def format_seconds(seconds: float) -> str:
    """Seconds or milliseconds, to two figures or three."""
    if seconds >= 0.1:
        return f"{seconds:.2f} s"
    return f"{seconds * 1000:.1f} ms" if seconds >= 0.001 else f"{seconds * 1000:.2f} ms"


def format_ratio(found: dict[str, Any], over: str, under: str) -> str:
    """Divide two readers' medians."""
    if over not in found or under not in found:
        return "–"
    return f"{found[over]['seconds'] / found[under]['seconds']:.1f}"


def format_memory(found: dict[str, Any]) -> str:
    """Peak memory in MiB."""
    return " / ".join(
        f"{found[key] / 2**20:.0f} MiB" for key in ("peak_anonymous_bytes", "peak_total_bytes")
    )


def describe_machine() -> dict[str, Any]:
    """Say what the figures depend on."""
    from importlib import metadata

    wanted = ("numpy", "protobuf", "crc32c", "tensorflow-cpu", "safetensors")
    found = {
        item.metadata["Name"].replace("_", "-"): item.version for item in metadata.distributions()
    }
    versions = {name: found[name] for name in wanted if name in found}
    return {"processors": os.cpu_count(), "python": platform.python_version(), **versions}


def put_into_readme(table: str, rounds: int) -> None:
    """Replace the table in README.md."""
    text = README.read_text()
    machine = describe_machine()
    about = ", ".join(
        f"{name} {version}" for name, version in machine.items() if name != "processors"
    )
    note = (
        f"Medians of {rounds} interleaved runs ({min(rounds, OTHERS_ROUNDS)} of other packages) "
        f"on {machine['processors']} processors ({about}), each in a fresh process, imports not "
        "counted, page cache warm, memory at hand. What counts is the ratio: machines differ."
    )
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    README.write_text(f"{before}{BEGIN}\n{textwrap.fill(note, 118)}\n\n{table}\n{END}{after}")


if __name__ == "__main__":
    main()
