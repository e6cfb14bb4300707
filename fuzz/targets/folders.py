"""Whole directories of the fixtures, one file of each changed, and all that is asked of them.

What was opened is asked for all that it has: every property, every item, what it prints.
"""

from __future__ import annotations

import contextlib
import io
import pickle
import random
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor, Future
from functools import cache
from pathlib import Path
from typing import Any, Literal

import builder as b
import numpy as np

import ckptparse
from ckptparse import tf
from ckptparse.tf import inspecting
from fuzz import mutators, seeds
from fuzz.graphs_built import graphs_of_paths, used_kernels
from fuzz.oracle import LIMITS, BrokenPromiseError, attempt, check_printable, same_values
from fuzz.targets.target import Target

__all__ = ["TARGETS"]

Files = Mapping[str, bytes]
_MOST_ASKED = 250
"""Things that one walk looks at."""
_MOST_ITEMS = 4
_DEEPEST = 5
_LARGEST = 60_000
"""Of a file that is changed; others of the directory may be larger."""
_LARGEST_FOLDER = 400_000
_CALLED = ("get_weights", "to_dict", "_repr_html_", "_ipython_key_completions_", "tree", "read")
"""Methods without arguments that only tell."""


def walk(root: Any) -> None:
    """Ask a thing for all that it has, and those for all that they have."""
    pending: list[tuple[Any, int]] = [(root, 0)]
    seen: set[int] = set()
    asked = 0
    while pending and asked < _MOST_ASKED:
        thing, depth = pending.pop(0)
        if id(thing) in seen or depth > _DEEPEST:
            continue
        seen.add(id(thing))
        asked += 1
        said = attempt(repr, thing)
        check_printable(said if isinstance(said, str) else "")
        pending += [(one, depth + 1) for one in parts_of(thing) if is_ours(one)]


def is_ours(thing: Any) -> bool:
    """Tell whether a thing is one of the package, or holds some."""
    public = type(thing).__name__ in ckptparse.__all__
    return public or isinstance(thing, (tuple, list, Mapping))


def parts_of(thing: Any) -> Iterator[Any]:
    """Iterate over the properties, the items and what the methods of a thing give."""
    if isinstance(thing, (tuple, list)):
        yield from thing[:_MOST_ITEMS]
    elif isinstance(thing, Mapping):
        names = attempt(lambda: list(thing)[:_MOST_ITEMS])
        for name in names if isinstance(names, list) else ():
            yield attempt(thing.__getitem__, name)
        attempt(lambda: (len(thing), "nothing of that name" in thing, thing.get("no\0name")))
    if type(thing).__module__.startswith("ckptparse"):
        yield from told_by(thing)


def told_by(thing: Any) -> Iterator[Any]:
    """Iterate over what a thing of the package tells."""
    kind = type(thing)
    for name in [one for one in sorted(dir(kind)) if not one.startswith("_")]:
        if not callable(getattr(kind, name)):
            yield attempt(getattr, thing, name, None)
    for name in _CALLED:
        if callable(getattr(kind, name, None)):
            yield attempt(getattr(thing, name))
    if isinstance(thing, Iterable) and not isinstance(thing, type):
        found = attempt(lambda: list(thing)[:_MOST_ITEMS])
        yield from found if isinstance(found, list) else ()
    attempt(str, thing)


class Elsewhere(Executor):
    """Does each work at once, and with what a pickle of it holds: as another process would."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Do a work."""
        done: Future[Any] = Future()
        try:
            call, given, named = pickle.loads(pickle.dumps((fn, args, kwargs)))  # noqa: S301
            done.set_result(call(*given, **named))
        except Exception as error:  # noqa: BLE001 - it is the future's
            done.set_exception(error)
        return done


Ask = Callable[[str, dict[str, Any]], object]


def open_it(path: str, options: dict[str, Any]) -> None:
    """Open a checkpoint, and ask for everything."""
    for naming in ("checkpoint", "variable"):
        opened = attempt(ckptparse.open, path, naming=naming, **options)
        if isinstance(opened, ckptparse.Checkpoint):
            with opened:
                walk(opened)
                attempt(list, opened)
                attempt(lambda one: one["no such tensor"], opened)
                look_into(opened)


def look_into(opened: ckptparse.Checkpoint) -> None:
    """Ask some tensors for what they give in other ways; all of it is what `read` gives."""
    tensors = attempt(lambda: list(opened.values())[:3])
    for tensor in tensors if isinstance(tensors, list) else ():
        value = attempt(tensor.read)
        attempt(tensor.verify)
        attempt(len, tensor) if tensor.shape else None
        other = attempt(np.asarray, tensor)
        both = isinstance(value, np.ndarray) and isinstance(other, np.ndarray)
        if both and not same_values(value, other):
            raise BrokenPromiseError(f"{tensor.name!r} is {value!r}, and an array {other!r}")
    attempt(opened.places)
    attempt(lambda: opened.read(include="*", exclude=["*Adam*", "b*"]))


def open_model(path: str, options: dict[str, Any]) -> None:
    """Open a SavedModel, and ask for everything."""
    for verify in (True, False):
        model = attempt(ckptparse.open_saved_model, path, verify=verify, **options)
        if isinstance(model, ckptparse.SavedModel):
            with model:
                walk(model)
                attempt(lambda one: one.meta_graph("serve", "no such tag"), model)
                attempt(lambda one: one.meta_graph("serve"), model)


def open_graphs(_: str, options: dict[str, Any]) -> None:
    """Open each graph, and ask for everything."""
    for name in options["store"]:
        if name.endswith((".pb", ".meta", ".pbtxt", ".cpb")):
            graph = attempt(ckptparse.open_graph, name, **options)
            if isinstance(graph, ckptparse.Graph):
                walk(graph)
                attempt(graph.consumers, "no such node")
                attempt(lambda graph: pickle.loads(pickle.dumps(graph)), graph)  # noqa: S301
            attempt(lambda name: list(ckptparse.annotate(name, **options)), name)
            attempt(ckptparse.identify, name, **options)


_OPTIONS: tuple[dict[str, Any], ...] = (
    {"layout": "torch"},
    {"layout": "torch", "naming": "variable", "drop_slots": True},
    {"ema": "prefer"},
    {"ema": "only", "naming": "variable"},
    {"ema": "drop", "dtype": "float16"},
    {"object_graph": "make"},
    {"rename": {"w": None, "v": "u"}, "max_shard_size": 100},
    {"split": {"kernel": 2}, "include": "*kernel*"},
    {"rename": lambda name: f"x/{name}"},
    {"dtype": "bfloat16", "exclude": ["*Adam*"]},
    {"names": ["no such name"]},
    {"store_bits": True},
)
_ENDINGS: tuple[tuple[Literal["v2", "npz", "safetensors", "npy", "hdf5"], str], ...] = (
    ("v2", ""),
    ("npz", ".npz"),
    ("safetensors", ".safetensors"),
    ("npy", ""),
    ("hdf5", ".h5"),
)


def convert_it(path: str, options: dict[str, Any]) -> None:
    """Convert a checkpoint in one of many ways; what was written reads back."""
    number = sum(map(len, options["store"].values()))
    format, ending = _ENDINGS[number % len(_ENDINGS)]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, f"x{ending}")
        how = _OPTIONS[number // 5 % len(_OPTIONS)]
        pool = Elsewhere() if number % 2 else None
        done = attempt(ckptparse.convert, path, out, format=format, executor=pool, **how, **options)
        if isinstance(done, ckptparse.CheckpointError):
            if list(Path(folder).iterdir()):
                raise BrokenPromiseError(f"{done!r}, and something was written")
            return
        check_printable(str(done))
        walk(done)
        again = Path(folder, "again.npz")
        back = attempt(ckptparse.convert, out, again, limits=LIMITS)
        if isinstance(back, ckptparse.Conversion):
            check_printable(str(attempt(ckptparse.diff, out, again, limits=LIMITS)))
        reverse = attempt(done.reverse)
        if isinstance(reverse, ckptparse.Reversal):
            attempt(ckptparse.convert, out, Path(folder, "b.npz"), rename=reverse)


def compare_it(path: str, options: dict[str, Any]) -> None:
    """Compare a checkpoint to what it was, sum both up, and show what differs."""
    whole = {f"w/{name}": data for name, data in options["whole"].items()}
    store = {**options["store"], **whole}
    found = attempt(ckptparse.diff, f"w/{path}", path, store=store, limits=LIMITS)
    if isinstance(found, ckptparse.Diff):
        walk(found)
        page(found, store=store)
    attempt(ckptparse.stats, path, histogram=True, store=store, limits=LIMITS)
    pool = Elsewhere()
    summed = [
        attempt(ckptparse.stats, path, executor=one, store=store, limits=LIMITS)
        for one in (None, pool)
    ]
    if repr(summed[0]) != repr(summed[1]) and isinstance(summed[0], dict):
        raise BrokenPromiseError(f"stats gives {summed[0]}, and elsewhere {summed[1]}")
    attempt(ckptparse.average, [path, f"w/{path}"], weights=[1, 3], store=store, limits=LIMITS)


def recover_it(path: str, options: dict[str, Any]) -> None:
    """Verify and recover a checkpoint, with what it was as evidence, and show that."""
    whole = {f"w/{name}": data for name, data in options.pop("whole").items()}
    report = attempt(ckptparse.verify, path, hashes=True, **options)
    if isinstance(report, ckptparse.Report):
        walk(report)
        check_printable(report.to_dfxml().replace("\t", " "))
        page(report)
    options["store"] = {**options["store"], **whole}
    found = attempt(ckptparse.recover, path, evidence=["w"], executor=Elsewhere(), **options)
    attempt(ckptparse.verify, path, executor=Elsewhere(), **options)
    if isinstance(found, ckptparse.Recovery):
        walk(found)
        page(found)


def page(subject: Any, **options: Any) -> None:
    """Make a page of a value."""
    with tempfile.TemporaryDirectory() as folder:
        attempt(ckptparse.report_page, subject, Path(folder, "x.html"), **options)


def page_of_path(path: str, options: dict[str, Any]) -> None:
    """Make a page of what lies at a path, and of what was opened."""
    page(path, **options)
    opened = attempt(ckptparse.open, path, **options)
    if isinstance(opened, ckptparse.Checkpoint):
        with opened:
            page(opened)


def as_tensorflow(path: str, options: dict[str, Any]) -> None:
    """Call what stands in for TensorFlow."""
    directory = path.rpartition("/")[0]
    attempt(tf.train.latest_checkpoint, directory, **options)
    attempt(tf.train.get_checkpoint_state, directory, **options)
    attempt(tf.train.checkpoint_exists, path, store=options["store"])
    attempt(tf.train.get_checkpoint_mtimes, [path], store=options["store"])
    attempt(lambda: list(tf.train.checkpoints_iterator(directory, timeout=0, **options)))
    with contextlib.redirect_stdout(io.StringIO()):
        for all_ in (True, False):
            attempt(inspecting.print_tensors_in_checkpoint_file, path, "", all_, True, **options)
    reader = attempt(tf.train.load_checkpoint, path, **options)
    if isinstance(reader, ckptparse.CheckpointError):
        return
    kinds = attempt(reader.get_variable_to_dtype_map)
    for name, kind in list(kinds.items())[:8] if isinstance(kinds, dict) else ():
        attempt(reader.has_tensor, name)
        walk_kind(kind)
    attempt(reader.get_tensor, "no such tensor")


def walk_kind(kind: Any) -> None:
    """Ask a type of TensorFlow's for all that it says."""
    for name in dir(type(kind)):
        if not name.startswith("_") and not callable(getattr(type(kind), name)):
            # TensorFlow's raises that too, if numpy has no such type.
            with contextlib.suppress(KeyError):
                attempt(getattr, kind, name)
    again = tf.as_dtype(kind.name)
    if again != kind or hash(again) != hash(kind) or pickle.loads(pickle.dumps(kind)) != kind:  # noqa: S301
        raise BrokenPromiseError(f"{kind!r} is not {again!r}")
    repr(kind), str(kind), kind.is_compatible_with(again)


def list_it(path: str, options: dict[str, Any]) -> None:
    """Ask for each path in the directory what it is, what is in it, and which part is which."""
    for name in sorted(options["store"])[:6]:
        attempt(ckptparse.identify, name, **options)
        attempt(ckptparse.list_variables, name, **options)
        attempt(lambda name: list(ckptparse.annotate(name, depth=2, **options)), name)
    cut = attempt(ckptparse.parts, path, size=100, **options)
    if isinstance(cut, list):
        walk(cut)


def read_files(path: str, options: dict[str, Any]) -> None:
    """Read from open files: what they give is what their bytes give."""
    files = options["store"]
    opened: Any = {name: io.BytesIO(data) for name, data in files.items()}
    one = attempt(ckptparse.read, path, store=files, limits=LIMITS)
    other = attempt(ckptparse.read, path, store=opened, limits=LIMITS)
    check_same(one, other)
    attempt(ckptparse.verify, path, store=opened, limits=LIMITS)
    for name in sorted(files)[:3]:
        attempt(ckptparse.identify, io.BytesIO(files[name]), limits=LIMITS)
        attempt(ckptparse.read, io.BytesIO(files[name]), limits=LIMITS)
    for stream in opened.values():
        stream.close()
    attempt(ckptparse.read, path, store=opened, limits=LIMITS)


def check_same(one: Any, other: Any) -> None:
    """Hold what one way gives to what another one gives."""
    if isinstance(one, dict) and isinstance(other, dict):
        same = list(one) == list(other) and all(same_values(one[n], other[n]) for n in one)
    else:
        same = isinstance(one, dict) == isinstance(other, dict)
    if not same:
        raise BrokenPromiseError(f"one way gives {one!r}, and another {other!r}")


def on_disk(path: str, options: dict[str, Any]) -> None:
    """Read files of a disk in several ways, and write there: over others only if asked."""
    with tempfile.TemporaryDirectory() as folder:
        for name, data in options["store"].items():
            Path(folder, name).parent.mkdir(parents=True, exist_ok=True)
            Path(folder, name).write_bytes(data)
        prefix = Path(folder, path)
        read = attempt(ckptparse.read, prefix, limits=LIMITS)
        names = list(read)[:2] if isinstance(read, dict) else []
        for ways in ({"mmap": True}, {"threads": 2}, {"names": names}):
            given: Any = ways
            found = attempt(ckptparse.read, prefix, limits=LIMITS, **given)
            if isinstance(read, dict) and "names" not in ways:
                check_same(read, found)
        for odd in (f"{path}\0x", f"{path}/x", "no such file", ".", path + ".index/x"):
            attempt(ckptparse.read, Path(folder, odd) if "\0" not in odd else odd, limits=LIMITS)
        write_back(prefix, Path(folder, "out", "x"), read)


def write_back(source: Path, target: Path, read: Any) -> None:
    """Write what was read, once and over itself, in slices too: it comes back the same."""
    if not isinstance(read, dict):
        return
    target.parent.mkdir()
    for ways in ({}, {}, {"overwrite": True, "update_state": True}, {"max_shard_size": 1000}):
        given: Any = ways
        done = attempt(ckptparse.write, target, read, **given)
        if isinstance(done, str):
            check_same(read, attempt(ckptparse.read, done, limits=LIMITS))
    with ckptparse.open(source, limits=LIMITS) as opened:
        done = attempt(ckptparse.write, f"{target}2", opened, keep_slices=True)
    if isinstance(done, str):
        check_same(read, attempt(ckptparse.read, done, limits=LIMITS))
    for ending in (".npz", ".safetensors", ".h5", ""):
        out = f"{target}{ending}"
        for again in (False, False, True):
            attempt(ckptparse.convert, source, out, overwrite=again, limits=LIMITS)
    attempt(ckptparse.convert, source, f"{target}.npz/below", limits=LIMITS)
    attempt(ckptparse.convert, source, target.parent / "no" / "folder.npz", limits=LIMITS)
    attempt(ckptparse.average, [source, source], f"{target}3", limits=LIMITS)


ASKS: tuple[Ask, ...] = (
    open_it,
    open_model,
    open_graphs,
    convert_it,
    compare_it,
    recover_it,
    page_of_path,
    as_tensorflow,
    list_it,
    read_files,
    on_disk,
)
_WHOLE = (compare_it, recover_it)
"""These want the files as they were, too."""


@cache
def folders() -> tuple[tuple[str, dict[str, bytes]], ...]:
    """Return what lies in directories of the fixtures, and some that are built; with a path."""
    found = [*_of_fixtures()]
    found += [("m", dict(files)) for files in used_kernels()]
    found += [("m", large())]
    found += [("g.pb", {"g.pb": data}) for data in graphs_of_paths()]
    return tuple(found)


def large() -> dict[str, bytes]:
    """Return a checkpoint of tensors so large that they are summed up by their codes."""
    rng = np.random.default_rng(0)
    made = b.Bundle()
    floats = rng.normal(size=70_000)
    for kind in ("f4", "f2", "f8"):
        made.add(f"of_{kind}", floats.astype(kind)[: 40_000 if kind == "f8" else None])
    made.add("of_f4/Adam", np.full(70_000, 0.5, np.float32))
    made.add("bytes", rng.integers(0, 200, 70_000).astype(np.uint8))
    made.add("flags", floats[:40_000] > 0)
    made.add("numbers", rng.integers(0, 1 << 40, 20_000))
    if b.ml_dtypes is not None:
        made.add("brain", floats.astype(b.ml_dtypes.bfloat16))
        made.add("small", rng.integers(-8, 8, 40_000).astype(b.ml_dtypes.int4))
    return dict(made.files("m"))


def _of_fixtures() -> Iterator[tuple[str, dict[str, bytes]]]:
    for index in sorted(seeds.FIXTURES.rglob("*.index")):
        folder = index.parent
        if folder.name == "variables":
            folder = folder.parent
        files = {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file() and path.suffix not in (".json", ".py")
        }
        if sum(map(len, files.values())) <= _LARGEST_FOLDER:
            yield index.relative_to(folder).as_posix().removesuffix(".index"), files
    for graph in sorted((seeds.FIXTURES / "graphs").rglob("*.pb*")):
        yield graph.name, {graph.name: graph.read_bytes()}
    for path in sorted((seeds.FIXTURES / "v1").glob("*")):
        if path.is_file() and path.suffix != ".json":
            yield path.name, {path.name: path.read_bytes()}


def run_folder(data: bytes) -> None:
    """Ask one thing of one directory, in which one file was changed."""
    if len(data) < 4:
        return
    number, ask, place = data[0] << 8 | data[1], data[2], data[3]
    path, files = folders()[number % len(folders())]
    name = sorted(files)[place % len(files)]
    store = {**files, name: data[4:]} if len(data) > 4 else dict(files)
    call = ASKS[ask % len(ASKS)]
    options: dict[str, Any] = {"store": store, "limits": LIMITS}
    if call in _WHOLE:
        options["whole"] = files
    if call is open_model:
        path = ""
    call(path, options)


_EACH = 3
"""Of what could be asked of each directory, a third is enough to begin with."""


def folder_seeds() -> Iterator[bytes]:
    """Ask each thing of each directory, in turns, whole and with a file cut short."""
    rng = random.Random(0)
    for number, (_, files) in enumerate(folders()):
        for ask in range(len(ASKS)):
            if (ask == 1) != ("saved_model.pb" in files) and ask == 1:
                continue
            if (number + ask) % _EACH:
                continue
            place = rng.randrange(len(files))
            head = bytes([number >> 8, number & 255, ask, place])
            yield head
            data = files[sorted(files)[place]]
            if not rng.randrange(3) and len(data) <= _LARGEST:
                yield head + mutators.blind(data, rng)


def mutate_folder(data: bytes, rng: random.Random) -> bytes:
    """Change a file by the ways of its kind, or ask something else."""
    if len(data) < 4:
        return bytes([0, rng.randrange(256), rng.randrange(256), 0])
    head, content = bytearray(data[:4]), data[4:]
    if not rng.randrange(3):
        head[2] = rng.randrange(len(ASKS))
        return bytes(head) + content
    _, files = folders()[(head[0] << 8 | head[1]) % len(folders())]
    names = sorted(files)
    if not content or not rng.randrange(4):
        head[3] = rng.randrange(len(names))
        content = files[names[head[3]]]
    name = names[head[3] % len(names)]
    if len(content) > _LARGEST:
        return bytes(head)
    way: mutators.Change = mutators.blind
    if name.endswith((".pb", ".meta")):
        way = mutators.message
    elif name.endswith((".index", ".ckpt")):
        way = mutators.table
    elif name == "checkpoint" or name.endswith(".pbtxt"):
        way = mutators.text
    return bytes(head) + way(content, rng)


TARGETS = [Target("folder", run_folder, folder_seeds, mutate_folder)]
