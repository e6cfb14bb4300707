"""`convert`, `diff`, `average` and `write` with everything they can be asked for.

The first byte of an input says of which checkpoint, the second what is asked; then come a rule
file, or the graph beside the checkpoint. What a conversion did, its reversal undoes.
"""

from __future__ import annotations

import random
import tempfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any, Literal

import builder as b
import numpy as np

import ckptparse
from fuzz import mutators, seeds
from fuzz.graphs_built import used_kernels
from fuzz.oracle import LIMITS, BrokenPromiseError, attempt, check_printable, same_values
from fuzz.targets.folders import Elsewhere
from fuzz.targets.sources import every_kind
from fuzz.targets.target import Target

__all__ = ["TARGETS"]

Files = dict[str, bytes]
_LARGEST = 60_000
_PATH = "d/m"


def _named() -> b.Bundle:
    """Make a checkpoint whose names say what its tensors are."""
    made = b.Bundle()
    shapes: dict[str, tuple[int, ...]] = {
        "lstm/kernel": (3, 8),
        "lstm/recurrent_kernel": (2, 8),
        "gru_1/cell/kernel": (3, 6),
        "gru_1/cell/recurrent_kernel": (2, 6),
        "odd/kernel": (3, 7),
        "odd/recurrent_kernel": (2, 7),
        "rnn/weights": (3, 4),
        "x/rnn/kernel": (3, 4),
        "attention/qkv/kernel": (4, 6),
        "attention/qkv/bias": (6,),
        "conv/kernel": (3, 3, 2, 4),
        "conv1/kernel": (3, 2, 4),
        "conv3/kernel": (2, 2, 2, 2, 2),
        "more/kernel": (1, 1, 1, 1, 1, 2),
        "depthwise/depthwise_kernel": (3, 3, 2, 1),
        "depthwise1/depthwise_kernel": (3, 2, 1),
        "embedding/embeddings": (5, 2),
        "dense/kernel/.ATTRIBUTES/VARIABLE_VALUE": (2, 3),
        "dense/kernel/Adam": (2, 3),
        "dense/kernel/Adam_1": (2, 3),
        "w": (2, 2),
        "w/ExponentialMovingAverage": (2, 2),
        "w/EMA": (2, 2),
        "only/ExponentialMovingAverage": (2,),
        "beta1_power": (),
    }
    for number, (name, shape) in enumerate(sorted(shapes.items())):
        made.add(name, np.arange(number, number + np.prod(shape), dtype=np.float32).reshape(shape))
    made.add("global_step", np.array(7, np.int64))
    made.add("large", np.array([1e30, -1e300]))
    return made


@cache
def checkpoints() -> tuple[Files, ...]:
    """Return the checkpoints: built ones, each with the graph that uses it, and fixtures."""
    found: list[Files] = [dict(files) for files in used_kernels()]
    found += [dict(_named().files("m")), dict(every_kind().files("m"))]
    found += [_of(name) for name in _FIXTURES]
    return tuple({f"d/{name}": data for name, data in files.items()} for files in found)


_FIXTURES = (
    "objects/keras2_optimizer/ckpt-1",
    "objects/keras2_cells/variables",
    "roles/adam_and_average/model.ckpt",
    "roles/by_hand/model.ckpt",
    "objects/tf1_optimizer/ckpt-1",
    "graphs/saver_to_rebuild/model",
)


def _of(name: str) -> Files:
    prefix = seeds.FIXTURES / name
    files = {
        path.name.replace(prefix.name, "m"): path.read_bytes()
        for path in sorted(prefix.parent.glob(f"{prefix.name}.*"))
        if path.suffix != ".json" and path.stat().st_size <= _LARGEST
    }
    return files or dict(_named().files("m"))


# ---- what is asked

RULES = b"""
layout = "torch"
dtype = "bfloat16"
drop = ['(^|/)Adam', '^global_step$']

[[rename]]
pattern = '(\\d+)/kernel'
replacement = '\\1/weight'

[[transpose]]
pattern = 'kernel$'
axes = [1, 0]

[[split]]
pattern = 'qkv'
names = ["query", "key", "value"]
"""
_BROKEN: tuple[bytes, ...] = (
    b"[",
    b"unknown = 1",
    b"drop = 1",
    b"drop = [1]",
    b"drop = ['(']",
    b"rename = 1",
    b"[[rename]]\npattern = 1\nreplacement = 'x'",
    b"[[rename]]\npattern = 'w'",
    b"[[rename]]\npattern = 'w'\nreplacement = '\\9'",
    b"[[transpose]]\npattern = 'w'\naxes = [1, 1]",
    b"[[transpose]]\npattern = 'w'\naxes = 'x'",
    b"[[transpose]]\npattern = '.'\naxes = [1, 0]",
    b"[[split]]\npattern = 'w'\nnames = []",
    b"[[split]]\npattern = 'w'\nnames = ['a', 'a']",
    b"[[split]]\npattern = 'bias'\nnames = ['a', 'b', 'c', 'd']",
    b"dtype = 'x'",
    b"dtype = 3",
    b"layout = 'x'",
    b"\xff",
    b"x = " + b"[" * 20_000,
)
_FORMATS: tuple[Literal["v2", "npz", "npy", "safetensors", "hdf5"], ...] = (
    *("v2", "npz", "safetensors", "npy", "hdf5"),
)
WISHES: tuple[dict[str, Any], ...] = (
    {"layout": "torch"},
    {"layout": "torch", "naming": "variable"},
    {"layout": "torch", "split": {"qkv": ["query", "key", "value"], "kernel": 2}},
    {"dtype": "float16"},
    {"dtype": "bfloat16", "layout": "torch", "exclude": "large"},
    {"ema": "prefer"},
    {"ema": "only"},
    {"ema": "drop", "drop_slots": True},
    {"drop_slots": True, "object_graph": "make"},
    {"rename": [("kernel", "weight"), ("/", ".")]},
    {"rename": {"w": None, "a": "z/../a"}},
    {"rename": [("kernel|bias", "same")]},
    {"rename": "bert"},
    {"rename": "no_such_rules"},
    {"rename": [("(", "")]},
    {"split": {"qkv": "abc"}},
    {"split": {"kernel": 5}},
    {"max_shard_size": 40, "store_bits": True},
    {"max_shard_size": 0},
    {"names": ["w:0", "no such name"]},
    {"names": "w"},
    {"include": ["*kernel*", "w"], "dry_run": True},
    {"layout": "tensorflow"},
    {"dtype": "int7"},
    {"ema": "x"},
    {"object_graph": "x"},
    {"format": "x"},
)
_MISUSED = (ValueError, TypeError)
"""What may be raised for options that no input can make right."""


def run_wish(data: bytes) -> None:
    """Ask one thing of one checkpoint."""
    if len(data) < 2:
        return
    files = checkpoints()[data[0] % len(checkpoints())]
    way, rest = data[1] % (len(WISHES) + len(OTHERS) + 2), data[2:]
    if way < len(OTHERS):
        OTHERS[way](files, rest)
        return
    with tempfile.TemporaryDirectory() as folder:
        if way < len(OTHERS) + 2:
            rules = Path(folder, "rules.toml")
            rules.write_bytes(rest or RULES)
            wish: dict[str, Any] = {"rename": rules}
        else:
            wish = WISHES[way - len(OTHERS) - 2]
            files = {**files, f"{_PATH}.meta": rest} if rest else files
        convert(files, wish, data[0] + data[1], Path(folder, "out"))


def convert(files: Files, wish: dict[str, Any], number: int, folder: Path) -> None:
    """Convert a checkpoint, by threads and elsewhere too; undo it: it is what it was."""
    folder.mkdir()
    format = _FORMATS[number % len(_FORMATS)]
    options: dict[str, Any] = {"format": format, "store": files, "limits": LIMITS, **wish}
    first = folder / _name("a", format)
    try:
        done = attempt(ckptparse.convert, _PATH, first, **options)
    except _MISUSED:
        if wish not in WISHES[WISHES.index({"split": {"qkv": "abc"}}) :]:
            raise
        return
    if isinstance(done, ckptparse.CheckpointError) or wish.get("dry_run"):
        if any(folder.iterdir()):
            raise BrokenPromiseError(f"{done!r}, and something was written")
        return
    check_printable(str(done))
    done.to_dict()
    pool = ThreadPoolExecutor(2) if number % 2 else Elsewhere()
    with pool:
        again = attempt(
            ckptparse.convert, _PATH, folder / _name("b", format), executor=pool, **options
        )
    if not isinstance(again, ckptparse.Conversion) or again.rows != done.rows:
        raise BrokenPromiseError(f"converted, and elsewhere: {again!r}")
    compare(str(_found(first)), str(_found(folder / _name("b", format))), "elsewhere")
    # A variable that has the values of its moving average keeps them.
    undo(files, _found(first), done, folder, same="ema" not in wish)


def _name(stem: str, format: str) -> str:
    return stem + {"npz": ".npz", "safetensors": ".safetensors", "hdf5": ".h5"}.get(format, "")


def _found(path: Path) -> Path:
    """Return what was written: parts have an index."""
    index = path.with_name(f"{path.name}.index.json")
    return index if index.exists() else path


def compare(one: str, other: str, how: str) -> None:
    """Hold two files to each other."""
    found = attempt(ckptparse.diff, one, other, limits=LIMITS)
    if not isinstance(found, ckptparse.Diff) or not found.same:
        raise BrokenPromiseError(f"{how} it is another: {found!r}")


def undo(files: Files, out: Path, done: ckptparse.Conversion, folder: Path, *, same: bool) -> None:
    """Undo a conversion, and hold what comes back to what was there, if that is to be the same."""
    reverse = attempt(done.reverse)
    if not isinstance(reverse, ckptparse.Reversal) or any(lossy(row) for row in done.rows):
        return
    check_printable(repr(reverse))
    back = folder / "back"
    undone = attempt(ckptparse.convert, out, back, rename=reverse, limits=LIMITS)
    if not isinstance(undone, ckptparse.Conversion):
        return
    read = _read(files)
    for name, array in ckptparse.read(back, limits=LIMITS).items():
        if name not in read or (same and not same_values(array, read[name])):
            raise BrokenPromiseError(f"{name!r} comes back as {array!r}, not {read.get(name)!r}")


def lossy(row: ckptparse.ConversionRow) -> bool:
    """Tell whether floats became narrower ones: those they were do not come back."""
    return row.new is not None and row.dtype != row.stored.dtype


def _read(files: Files, **options: Any) -> dict[str, Any]:
    found = attempt(ckptparse.read, _PATH, store=files, limits=LIMITS, **options)
    return found if isinstance(found, dict) else {}


# ---- other jobs


def compare_changed(files: Files, rest: bytes) -> None:
    """Compare a checkpoint to one that was changed in every way: each change is told."""
    rng = random.Random(len(rest))
    arrays = dict(_read(files))
    if not arrays:
        return
    names = sorted(arrays)
    removed, moved = rng.choice(names), rng.choice(names)
    other = {name: changed(array, rng) for name, array in arrays.items()}
    other.pop(removed, None)
    if moved in other:
        other["moved/" + moved] = arrays[moved]
        del other[moved]
    for pair in ((arrays, other), (other, arrays), (_opened(files), other)):
        for ways in ({}, {"rtol": 0.5}, {"atol": 1e9}, {"rename": [("kernel", "weight")]}):
            given: Any = ways
            found = attempt(ckptparse.diff, *pair, limits=LIMITS, **given)
            if isinstance(found, ckptparse.Diff):
                check_printable(str(found))
                found.to_dict(), found._repr_html_()
    told = ckptparse.diff(arrays, other)
    if told.same or (removed not in told.removed and removed not in dict(told.renamed)):
        raise BrokenPromiseError(f"{removed!r} is not there, and {told}")


def _opened(files: Files) -> Any:
    found = attempt(ckptparse.open, _PATH, store=files, limits=LIMITS)
    return found if isinstance(found, ckptparse.Checkpoint) else {}


def changed(array: Any, rng: random.Random) -> Any:
    """Change an array: its values, its kind, or its shape."""
    kind = rng.randrange(5)
    if kind == 0 or not array.size:
        return array
    if kind == 1 and array.dtype.kind in "fiu":
        return array.astype(np.float64 if array.dtype.kind == "f" else np.int64)
    if kind == 2:
        return array.reshape(1, *array.shape)
    if array.dtype.kind in "fc":
        return array + np.asarray(rng.choice([1e-6, 1, np.nan, np.inf]), array.dtype)
    if array.dtype == object:
        return np.array([b"other"] * array.size, object).reshape(array.shape)
    return ~array if array.dtype.kind == "b" else array


def average_odd(files: Files, rest: bytes) -> None:
    """Average checkpoints that are alike, or not; where nothing fits, it is an error."""
    arrays = _read(files)
    other = {name: changed(array, random.Random(len(rest))) for name, array in arrays.items()}
    ways: tuple[dict[str, Any], ...] = ({}, {"weights": [1, 0.5]}, {"weights": [1]})
    ways += ({"weights": [1, -1]}, {"weights": [float("nan"), 1]})
    for pair in ([arrays, other], [arrays, arrays], [arrays, dict(list(arrays.items())[1:])], []):
        for way in ways:
            try:
                found = attempt(ckptparse.average, pair, limits=LIMITS, **way)
            except _MISUSED:
                continue
            if isinstance(found, dict) and list(found) != list(arrays):
                raise BrokenPromiseError(f"average gives {list(found)}")


def write_odd(files: Files, _: bytes) -> None:
    """Write what was read in every way; it reads back the same."""
    arrays = _read(files)
    opened = _opened(files)
    graph = None if isinstance(opened, dict) else attempt(lambda: opened.object_graph)
    ways: tuple[dict[str, Any], ...] = (
        {},
        {"object_graph": "make"},
        {"object_graph": graph if isinstance(graph, ckptparse.ObjectGraph) else None},
        {"max_shard_size": 50, "update_state": True},
        {"overwrite": True, "update_state": True},
        {"store": {}},
        {"keep_slices": True},
    )
    with tempfile.TemporaryDirectory() as folder:
        for way in ways:
            where = (
                "x/m"
                if "store" in way
                else Path(folder, "m" if "overwrite" in way else str(len(way)))
            )
            written = attempt(ckptparse.write, where, arrays, **way)
            if isinstance(written, str):
                back = ckptparse.read(written, store=way.get("store"))
                if "make" in way.values():
                    # They are called as an object graph does that is made of their names.
                    wrote, found = (Counter(map(_bits, one.values())) for one in (arrays, back))
                    same = wrote == found
                else:
                    same = all(same_values(arrays[name], back[name]) for name in arrays)
                if not same:
                    raise BrokenPromiseError(f"{way} gives other values")


def _bits(array: Any) -> tuple[Any, ...]:
    values = repr(array.tolist()) if array.dtype == object else array.tobytes()
    return array.shape, array.dtype, values


def by_pattern(files: Files, _: bytes) -> None:
    """Read and list by every pattern; what is chosen is what matches."""
    names = list(_read(files))
    for include, exclude in (("*kernel*", None), (None, ["*Adam*"]), (["w", "*/[a-k]*"], "*bias*")):
        found = attempt(
            ckptparse.read, _PATH, store=files, limits=LIMITS, include=include, exclude=exclude
        )
        if isinstance(found, dict) and not set(found) <= set(names):
            raise BrokenPromiseError(f"read gives {list(found)} of {names}")


OTHERS = (compare_changed, average_odd, write_odd, by_pattern)


def wish_seeds() -> Iterator[bytes]:
    """Ask everything of some checkpoint, and what changes layouts of each."""
    first = len(OTHERS) + 2
    count, every = len(checkpoints()), first + len(WISHES)
    for way in range(every):
        for which in {way % count, count - 1 - way % 5}:
            yield bytes([which, way])
    for which in range(count):
        yield from (bytes([which, first + way]) for way in (0, 2))
    for number, rules in enumerate((RULES, *_BROKEN)):
        yield bytes([count - 5 + number % 5, len(OTHERS)]) + rules
    for which, files in enumerate(checkpoints()):
        graph = files.get(f"{_PATH}.meta")
        if graph and len(graph) < _LARGEST:
            yield bytes([which, first]) + graph[: len(graph) - 1]


def mutate_wish(data: bytes, rng: random.Random) -> bytes:
    """Ask something else, or change the rule file or the graph."""
    if len(data) < 2:
        return bytes([rng.randrange(256), rng.randrange(256)])
    head, rest = bytearray(data[:2]), data[2:]
    kind = rng.randrange(4)
    if kind < 2:
        head[kind] = rng.randrange(256)
        return bytes(head) + (rest if kind == 0 else b"")
    way = head[1] % (len(WISHES) + len(OTHERS) + 2)
    if way in (len(OTHERS), len(OTHERS) + 1):
        return bytes(head) + mutators.text(rest or RULES, rng)
    graph = checkpoints()[head[0] % len(checkpoints())].get(f"{_PATH}.meta", b"")
    return bytes(head) + mutators.message(rest or graph, rng)


TARGETS = [Target("wish", run_wish, wish_seeds, mutate_wish)]
