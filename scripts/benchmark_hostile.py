"""Measure what the worst inputs cost, against what is promised: 1 s, and 1 s for each 10 MB.

    python scripts/benchmark_hostile.py                        every kind, 1 MiB of each, every call
    python scripts/benchmark_hostile.py tables/ --sizes 1 4    those kinds, 1 and 4 MiB of each
    python scripts/benchmark_hostile.py --calls verify recover --over

Every call runs in a process of its own. What counts is processor time without the imports, beside
the size of all files that were made. A call that ends with a `CheckpointError` ends, too; that it
ends at a limit is said. Exit code 1 if anything took longer, or memory beyond 1.5 GiB.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from hostile import load_kinds

BYTES_A_SECOND = 10_000_000
MEMORY = 3 << 29
SECONDS = 60
"""After which a process is ended."""

_TWICE = ("diff", "average", "mean")
"""Calls that are given the input as two."""

CHILD = r"""
import json, os, resource, sys, time, warnings
warnings.simplefilter("ignore")
name, path, out, memory, seconds = json.loads(sys.argv[1])
import numpy, google.protobuf, crc32c
import ckptparse
for public in dir(ckptparse):
    getattr(ckptparse, public)

def consume(value):
    for name in list(value)[:500]:
        one = value[name]
        try:
            one.read()
        except ckptparse.CheckpointError:
            pass

def lazily(path):
    with ckptparse.open(path) as opened:
        names = list(opened)
        for name in dict.fromkeys(names[:3] + names[-3:]):
            try:
                opened[name].read()
            except ckptparse.CheckpointError:
                pass
        return "no such name" in opened

def describe(path):
    with ckptparse.open(path) as opened:
        layers, places = opened.layers, opened.places
        return [str(opened.tree()), opened.step, opened.optimizers, opened.averages, layers, places]

def objects(path):
    with ckptparse.open(path) as opened:
        found = opened.object_graph
        if found is None:
            return None
        nodes = list(found.nodes())
        paths = [node.path for node in nodes[:3] + nodes[3:][-3:]]
        return [found.names_by_key, paths, found.other_keys]

def graph(path):
    opened = ckptparse.open_graph(path)
    names = list(opened.nodes)
    for name in dict.fromkeys(names[:3] + names[-3:]):
        opened.consumers(name)
    return [list(opened.constants), opened.effects, opened.variables]

def savers(path):
    return ckptparse.open_graph(path).savers

def model(path):
    with ckptparse.open_saved_model(path) as opened:
        return [len(opened.meta_graphs), len(opened.layers), opened.effects, opened.assets]

def functions(path):
    with ckptparse.open_saved_model(path) as opened:
        return [[dict(one.functions), one.function_aliases] for one in opened.meta_graphs]

def weights_of_layers(path):
    with ckptparse.open_saved_model(path) as opened:
        return [layer.weights for layer in opened.layers]

def about(path):
    with ckptparse.open_saved_model(path) as opened:
        found = opened.fingerprint
        matches = found is not None and found.matches_checkpoint
        return [matches, [one.values for one in (opened.keras_metadata or {}).values()]]

def beside(path):
    folder, name = os.path.split(path)
    second = os.path.join(folder, "second", name)
    return ckptparse.diff(path, second) if os.path.isdir(os.path.dirname(second)) else None

def folder_of(path):
    return path if os.path.isdir(path) else os.path.dirname(path)

def state(path):
    folder = folder_of(path)
    return [ckptparse.checkpoint_state(folder), ckptparse.latest_checkpoint(folder)]

def write(path):
    # What is written is the caller's own, not a file's: as much as other jobs take.
    values = ckptparse.read(path)
    some = [name for name in values if values[name].dtype != object or values[name].size < 1 << 20]
    return ckptparse.write(out + "/made", {name: values[name] for name in some[:20_000]})

def largest(path):
    # The file at a path, or the largest beside it.
    if os.path.isfile(path):
        return path
    top = path if os.path.isdir(path) else os.path.dirname(path)
    files = [os.path.join(folder, name) for folder, _, names in os.walk(top) for name in names]
    return max(files, key=os.path.getsize)

def explain(path):
    with open(largest(path), encoding="latin-1") as text:
        return str(ckptparse.explain(text.read()))

def evidence(path):
    prefix = out + "/damaged"
    ckptparse.write(prefix, {"w": numpy.arange(1000.0)})
    with open(prefix + ".data-00000-of-00001", "r+b") as data:
        data.write(b"damaged" * 100)
    return consume(ckptparse.recover(prefix, evidence=[path]))

def layout(path):
    prefix = out + "/damaged"
    ckptparse.write(prefix, {"w": numpy.arange(1000.0)})
    os.remove(prefix + ".index")
    return consume(ckptparse.recover(prefix, evidence=[path]))

def shapes(path):
    prefix = out + "/damaged"
    ckptparse.write(prefix, {"w": numpy.arange(1000.0)})
    os.remove(prefix + ".index")
    return consume(ckptparse.recover(prefix, shapes=path))

def beside_image(path):
    return os.path.join(os.path.dirname(path), "disk.img")

CALLS = {
    "identify": lambda path: str(ckptparse.identify(path)),
    "list": ckptparse.list_variables,
    "read": ckptparse.read,
    "open": lazily,
    "describe": describe,
    "objects": objects,
    "stats": ckptparse.stats,
    "verify": lambda path: str(ckptparse.verify(path)),
    "recover": lambda path: consume(ckptparse.recover(path)),
    "report": lambda path: str(ckptparse.recover(path)),
    "annotate": lambda path: sum(1 for _ in ckptparse.annotate(path)),
    "explain": explain,
    "evidence": evidence,
    "layout": layout,
    "shapes": shapes,
    "diff": lambda path: str(ckptparse.diff(path, path)),
    "beside": lambda path: str(beside(path)),
    "average": lambda path: ckptparse.average([path, path]),
    "convert": lambda path: ckptparse.convert(path, out + "/made.safetensors"),
    "rewrite": lambda path: ckptparse.convert(path, out + "/made", format="v2"),
    "npz": lambda path: ckptparse.convert(path, out + "/made.npz"),
    "npy": lambda path: ckptparse.convert(path, out + "/made/"),
    "hdf5": lambda path: ckptparse.convert(path, out + "/made.h5"),
    "rename": lambda path: ckptparse.convert(path, out + "/r", rename=[(r"(.*)/(.*)", r"\2/\1")]),
    "weights": lambda path: ckptparse.convert(path, out + "/w", drop_slots=True, layout="torch"),
    "write": write,
    "mean": lambda path: ckptparse.average([path, path], out + "/mean"),
    "page": lambda path: ckptparse.report_page(path, out + "/page.html"),
    "scan": lambda path: str(ckptparse.scan(largest(path))),
    "folder": lambda path: str(ckptparse.scan(folder_of(path))),
    "mapfile": lambda path: str(ckptparse.scan(beside_image(path), mapfile=path)),
    "resume": lambda path: str(ckptparse.scan(beside_image(path), state=path)),
    "replay": lambda path: str(ckptparse.replay(path)),
    "state": state,
    "graph": graph,
    "savers": savers,
    "model": model,
    "functions": functions,
    "layers": weights_of_layers,
    "about": about,
}
if not path:
    print(json.dumps(list(CALLS)))
    raise SystemExit
resource.setrlimit(resource.RLIMIT_AS, (memory + (4 << 30),) * 2)
resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
began = time.process_time()
said = "value"
try:
    CALLS[name](path)
except ckptparse.CheckpointError as error:
    said = type(error).__name__
    if isinstance(error, ckptparse.LimitError):
        said += f" {error.limit}"
except Exception as error:
    said = f"FOREIGN {type(error).__name__}: {error}"
spent = time.process_time() - began
print(json.dumps([spent, said, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10]))
"""


def main() -> None:
    """Parse the arguments, run, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kinds", nargs="*", help="beginnings of their names")
    parser.add_argument("--sizes", nargs="+", type=float, default=[1], metavar="MIB")
    parser.add_argument("--calls", nargs="+", metavar="NAME")
    parser.add_argument("--over", action="store_true", help="show only what takes too long")
    parser.add_argument("--jobs", type=int, default=1, help="processes at once (default 1)")
    args = parser.parse_args()
    known = _run_child("", "", "")
    calls: list[str] = json.loads(known)
    if unknown := set(args.calls or ()) - set(calls):
        parser.error(f"there is no call {', '.join(sorted(unknown))}: there are {', '.join(calls)}")
    chosen = {
        name: make
        for name, make in load_kinds().items()
        if not args.kinds or name.startswith(tuple(args.kinds))
    }
    if not chosen:
        parser.error("no kind has such a name")
    over = 0
    for name, make in chosen.items():
        for size in args.sizes:
            with tempfile.TemporaryDirectory() as directory:
                place = Path(directory, "made")
                place.mkdir()
                path = make(place, int(size * (1 << 20)))
                over += _show(name, path, _size(place), args.calls or calls, args)
    print(f"{over} over the bound" if over else "nothing is over the bound")
    raise SystemExit(bool(over))


def _show(name: str, path: Path, size: int, calls: Sequence[str], args: argparse.Namespace) -> int:
    """Measure the calls on one input, and print a line for each; return how many are over."""
    over = 0
    with ThreadPoolExecutor(args.jobs) as pool:
        for call, (spent, said, memory) in zip(
            calls, pool.map(lambda call: _measure(call, path), calls), strict=True
        ):
            # What is given twice counts twice.
            bound = 1 + size * (1 + (call in _TWICE)) / BYTES_A_SECOND
            bad = spent > bound or memory > MEMORY or said.startswith("FOREIGN")
            over += bad
            if bad or not args.over:
                print(
                    f"{'!' if bad else ' '} {name:<32} {size / (1 << 20):6.2f} MiB {call:<9}"
                    f"{spent:7.2f} s of {bound:5.2f} {memory >> 20:6} MiB  {said[:80]}",
                    flush=True,
                )
    return over


def _measure(call: str, path: Path) -> tuple[float, str, int]:
    with tempfile.TemporaryDirectory() as out:
        try:
            found = json.loads(_run_child(call, str(path), out))
        except subprocess.CalledProcessError as error:
            return float(SECONDS), f"ended with {error.returncode} {error.stderr[-200:]}", 0
    return found[0], found[1], found[2]


def _run_child(call: str, path: str, out: str) -> str:
    given = json.dumps([call, path, out, MEMORY, SECONDS])
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", CHILD, given],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()[-1]


def _size(place: Path) -> int:
    """Bytes of all files below a directory."""
    return sum(path.stat().st_size for path in _files(place))


def _files(place: Path) -> Iterator[Path]:
    return (path for path in place.rglob("*") if path.is_file())


if __name__ == "__main__":
    main()
