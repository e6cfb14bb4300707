"""What callers do with what is open, and with disks that fail; what stands in for TensorFlow.

The first byte of an input says what is asked, the second is a number for it. The rest is a packed
bundle, or a V1 file if the first byte says so.
"""

from __future__ import annotations

import contextlib
import copy
import errno
import importlib
import io
import os
import pickle
import random
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest import mock

import builder as b
import numpy as np

import ckptparse
from ckptparse import tf
from ckptparse.tf import inspecting
from fuzz import mutators, seeds
from fuzz.oracle import LIMITS, BrokenPromiseError, attempt, check_printable, same_values
from fuzz.packing import pack
from fuzz.targets.checkpoints import bundle_store
from fuzz.targets.jobs import lay_out
from fuzz.targets.target import Target

__all__ = ["TARGETS"]

Files = dict[str, bytes]
_PREFIX = "d/m"
_MISUSED = (ValueError, TypeError, IndexError, AttributeError)
"""What an argument raises that no file can make right."""


def misuse(call: Callable[..., object], *args: Any, **kwargs: Any) -> None:
    """Make a call that is wrong in itself: it is one of Python's errors, or of the package's."""
    with contextlib.suppress(*_MISUSED):
        attempt(call, *args, **kwargs)


def _open(files: Files, **options: Any) -> ckptparse.Checkpoint | None:
    found = attempt(ckptparse.open, _PREFIX, store=files, limits=LIMITS, **options)
    return found if isinstance(found, ckptparse.Checkpoint) else None


# ---- what is open


_COPIES: tuple[Callable[[Any], Any], ...] = (
    copy.copy,
    copy.deepcopy,
    lambda one: pickle.loads(pickle.dumps(one)),  # noqa: S301 - our own
)


def copy_it(files: Files, number: int) -> None:
    """Copy and pickle what is open: the copies read the same, and outlive it."""
    with tempfile.TemporaryDirectory() as folder:
        prefix = lay_out(files, folder)
        opened = attempt(ckptparse.open, prefix, limits=LIMITS, verify=bool(number & 1))
        if not isinstance(opened, ckptparse.Checkpoint):
            return
        read = attempt(opened.read)
        sent = attempt(pickle.dumps, opened)
        others = [attempt(way, opened) for way in _COPIES]
        tensors = [attempt(_COPIES[number % 3], tensor) for tensor in first_of(opened, 3)]
        opened.close()
        check_closed(opened)
        for other in others:
            if isinstance(other, ckptparse.Checkpoint):
                look_at_copy(other, read)
        check_tensors(tensors, read)
        if isinstance(sent, bytes) and number & 2:
            # What was pickled is of the file as it was.
            change_file(Path(folder))
            late = attempt(lambda: pickle.loads(sent).read())  # noqa: S301
            # Who had it open reads on what it was.
            if isinstance(late, dict) and isinstance(read, dict):
                check_same(read, late)


def check_tensors(tensors: list[Any], read: Any) -> None:
    """Hold tensors that were copied to what was read."""
    for tensor in tensors if isinstance(read, dict) else ():
        found = attempt(lambda one: {one.name: one.read()}, tensor)
        if isinstance(found, dict):
            check_same(found, {name: read[name] for name in found})


def check_same(read: dict[str, Any], other: dict[str, Any]) -> None:
    """Hold what one way gives to what another one gives."""
    if list(read) != list(other) or not all(same_values(read[n], other[n]) for n in read):
        raise BrokenPromiseError(f"one way gives {read!r}, and another {other!r}")


def first_of(opened: ckptparse.Checkpoint, most: int) -> list[ckptparse.Tensor]:
    """Return some tensors; none if they cannot be listed."""
    found = attempt(lambda: list(opened.values())[:most])
    return [] if isinstance(found, ckptparse.CheckpointError) else found


def check_closed(opened: ckptparse.Checkpoint) -> None:
    """Hold a checkpoint that is closed to that."""
    calls: tuple[Callable[[], object], ...] = (
        opened.read,
        opened.places,
        lambda: list(opened),
        lambda: pickle.dumps(opened),
    )
    for call in calls:
        if not isinstance(attempt(call), ckptparse.ClosedError):
            raise BrokenPromiseError("it was closed, and can be asked")


def look_at_copy(other: ckptparse.Checkpoint, read: Any) -> None:
    """Ask a copy for everything it has."""
    with other:
        for name in ("format", "num_shards", "byte_order", "files", "orphan_slices", "step"):
            attempt(getattr, other, name)
        attempt(other.places)
        attempt(other.shapes) if hasattr(other, "shapes") else None
        again = attempt(other.read)
        if isinstance(read, dict) != isinstance(again, dict):
            raise BrokenPromiseError(f"read gives {read!r}, and its copy {again!r}")
        if isinstance(again, dict) and not all(same_values(read[n], again[n]) for n in read):
            raise BrokenPromiseError("a copy has other values")


def change_file(folder: Path) -> None:
    """Write something else into every file."""
    for path in filter(Path.is_file, folder.rglob("*")):
        data = path.read_bytes()
        path.unlink()
        path.write_bytes(data + b"x")


def copy_model(_: Files, number: int) -> None:
    """Copy and pickle a SavedModel of the fixtures, and its variables."""
    models = sorted(path.parent for path in seeds.FIXTURES.rglob("saved_model.pb"))
    model = attempt(ckptparse.open_saved_model, models[number % len(models)], limits=LIMITS)
    if not isinstance(model, ckptparse.SavedModel):
        return
    others = [copy.copy(model), copy.deepcopy(model), pickle.loads(pickle.dumps(model))]  # noqa: S301
    variables = attempt(lambda: model.variables)
    sent = attempt(pickle.dumps, variables) if isinstance(variables, ckptparse.Checkpoint) else None
    known = attempt(variables.read) if isinstance(variables, ckptparse.Checkpoint) else None
    for other in others:
        with other:
            found = attempt(lambda one: one.variables.read(), other)
            if isinstance(known, dict) and not isinstance(found, dict):
                raise BrokenPromiseError(f"a copy of a model: {found!r}")
            attempt(lambda one: [one.layers, one.optimizers, one.is_hub_module], other)
    if isinstance(sent, bytes):
        late = attempt(lambda: pickle.loads(sent))  # noqa: S301
        if isinstance(late, ckptparse.Checkpoint):
            attempt(late.read)
            attempt(lambda: [late.layers, late.format, late.files, late.optimizers])
    model.close()
    for name in ("variables", "layers", "meta_graphs", "assets", "fingerprint"):
        attempt(getattr, model, name)


def index_oddly(files: Files, number: int) -> None:
    """Index tensors in every odd way: what numpy refuses is refused, what it gives is given."""
    opened = _open(files)
    if opened is None:
        return
    rng = random.Random(number)
    keys: tuple[Any, ...] = (..., None, (..., None), (None, ...), (..., ...), 10**6, -(10**6), 1.5)
    keys += (True, [0], np.array([0]), (0,) * 40, slice(None, None, 1 << 70), slice(5, 0, -2), ())
    with opened:
        for tensor in first_of(opened, 4):
            whole = attempt(tensor.read)
            if not isinstance(whole, np.ndarray):
                continue
            for key in rng.sample(keys, 8):
                try:
                    part = np.asarray(tensor[key])
                except (*_MISUSED, ckptparse.CheckpointError):
                    continue
                if part.shape != np.asarray(whole[key]).shape:
                    raise BrokenPromiseError(f"{tensor.name!r} at {key} has shape {part.shape}")
            misuse(len, tensor)
            misuse(lambda one: one.__array__(copy=False), tensor)
            misuse(lambda one: np.asarray(one, "f8") if one.dtype.kind in "iu" else 0, tensor)
            check_printable(repr(tensor))
            attempt(tensor._repr_html_)
        attempt(lambda: [opened["no such"], opened.read(["x:0"])])


def misuse_it(files: Files, number: int) -> None:
    """Call with arguments that are wrong in themselves."""
    calls: tuple[Callable[..., object], ...] = (
        ckptparse.open,
        ckptparse.read,
        ckptparse.list_variables,
        ckptparse.verify,
        ckptparse.recover,
        ckptparse.stats,
        ckptparse.parts,
        ckptparse.identify,
    )
    call = calls[number % len(calls)]
    wrong: tuple[dict[str, Any], ...] = (
        {"naming": "x"},
        {"threads": 0},
        {"names": "one"},
        {"names": [3]},
        {"limits": 3},
        {"progress": 3},
        {"store": 3},
        {"include": iter(["*"])},
        {"size": 0},
        {"shapes": {"w": "x"}},
        {"evidence": ["no such file"]},
        {"mapfile": "no such map"},
        {"executor": 3},
    )
    for one in wrong:
        misuse(call, _PREFIX, **{"store": files, **one})
    for path in ("", "d", "no such", f"{_PREFIX}.index/x", 3, b"d/m", None):
        misuse(call, path, store=files)


# ---- TensorFlow


def as_tensorflow(files: Files, number: int) -> None:
    """Import what stands in for TensorFlow, and read by it; nothing of it is left."""
    with tempfile.TemporaryDirectory() as folder:
        prefix = lay_out(files, folder)
        read = attempt(ckptparse.read, prefix, limits=LIMITS)
        with tf.as_tensorflow() as module, tf.as_tensorflow():
            misuse(lambda: module.no_such_name)
            names = ("tensorflow.python.training.checkpoint_utils", "tensorflow.compat.v1")
            for name in names:
                attempt_import(name)
            for _ in range(2):
                found = attempt_any(lambda: module.train.load_checkpoint(str(prefix)))
            if number & 1:
                change_file(Path(folder))
                attempt_any(lambda: module.train.load_checkpoint(str(prefix)))
        if any(name.partition(".")[0] == "tensorflow" for name in sys.modules):
            raise BrokenPromiseError("something stands in for TensorFlow for ever")
        if isinstance(read, dict) and not isinstance(found, ckptparse.CheckpointError):
            check_printable(repr(found).replace("\\", "/"))
            for name in list(read)[:3]:
                found.has_tensor(name.encode("utf-8", "surrogateescape"))
                misuse(found.has_tensor, 3)
        print_it(str(prefix), list(read) if isinstance(read, dict) and not number & 1 else [])
        wait(folder)


def attempt_import(name: str) -> None:
    """Import a module, which may not be there."""
    with contextlib.suppress(ImportError):
        importlib.import_module(name)


def attempt_any(call: Callable[[], Any]) -> Any:
    """Make a call whose errors are those of TensorFlow, too."""
    try:
        return attempt(call)
    except ValueError as error:
        return ckptparse.CheckpointError(repr(error))


def print_it(prefix: str, names: list[str]) -> None:
    """Print as `inspect_checkpoint` does."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        for name in ("", "no such", *names[:1]):
            for excluded in ("", "kernel|bias"):
                attempt(
                    inspecting.print_tensors_in_checkpoint_file,
                    prefix,
                    name,
                    False,
                    False,
                    excluded,
                )
    if names and "Total number of params" not in out.getvalue():
        raise BrokenPromiseError(f"it prints {out.getvalue()!r}")


def wait(folder: str) -> None:
    """Wait for no time at all."""
    directory = str(Path(folder, "d"))
    attempt(tf.train.wait_for_new_checkpoint, directory, None, 0.001, 0.002)
    again = iter([False, True])
    found = tf.train.checkpoints_iterator(
        directory, min_interval_secs=0.001, timeout=0.0, timeout_fn=lambda: next(again, True)
    )
    attempt(lambda: list(found))
    attempt(tf.train.load_checkpoint, str(Path(folder, "no such")))
    misuse(tf.train.NewCheckpointReader, str(Path(folder, "d", "m")))
    misuse(tf.train.load_variable, str(Path(folder, "d", "m")), "w:0")


def kinds_of(_: Files, number: int) -> None:
    """Ask which kind of TensorFlow's everything is that may mean one."""
    given: tuple[Any, ...] = ("f4", np.float64, float, bool, object, int, str, None, 3, True, "x")
    given += (np.dtype(">i8"), np.dtype("S3"), 1000, 101, "float_ref", [1], np.dtype("M8[s]"))
    given += (np.dtype([("qint8", "i1")]), np.dtype([("x", "i1")]), "half", "double", b"f4")
    for one in given[number % 2 :: 2]:
        misuse(tf.as_dtype, one)
    for name, kind in tf.dtypes.DTYPES.items():
        if getattr(tf, name) != kind or getattr(tf.dtypes, name) is not kind:
            raise BrokenPromiseError(f"{name} is another kind")
        with contextlib.suppress(KeyError, ckptparse.CheckpointError, ImportError):
            wanted = kind.as_numpy_dtype
            if not kind.is_quantized and tf.as_dtype(wanted) not in (kind, kind.base_dtype):
                raise BrokenPromiseError(f"{name}: {wanted} is {tf.as_dtype(wanted)}")
        if kind == "no kind":
            raise BrokenPromiseError(f"{name} is no kind")
    misuse(getattr, tf, "no_such_name")
    misuse(getattr, tf.dtypes, "no_such_name")


# ---- where it is written


class FailingDisk:
    """Lets the system fail at one of the calls that write, and counts them."""

    _NAMES = ("link", "rename", "replace", "fsync", "mkdir", "open", "unlink")
    _NUMBERS = (errno.ENOSPC, errno.EACCES, errno.EIO, errno.EROFS, errno.EPERM, errno.EEXIST)

    def __init__(self, fails_at: int, below: str) -> None:
        self._left = fails_at % 24
        self._number = self._NUMBERS[fails_at // 24 % len(self._NUMBERS)]
        self._below = below
        self.failed = False

    @contextlib.contextmanager
    def used(self) -> Iterator[None]:
        """Let it fail for as long as the context lasts."""
        with contextlib.ExitStack() as stack:
            for name in self._NAMES:
                stack.enter_context(mock.patch.object(os, name, self._failing(name)))
            yield

    def _failing(self, name: str) -> Callable[..., Any]:
        own = getattr(os, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            first = args[0] if args else None
            mine = name == "fsync" or (isinstance(first, str) and first.startswith(self._below))
            if mine and not self.failed:
                self._left -= 1
                if self._left < 0:
                    self.failed = True
                    path = None if name == "fsync" else first
                    raise OSError(self._number, os.strerror(self._number), path)
            return own(*args, **kwargs)

        return call


def write_failing(files: Files, number: int) -> None:
    """Write to a disk that fails at some time: all is there, or all is as it was."""
    arrays = {"a": np.arange(40.0), "b": np.ones((5, 4), np.float32), "c": np.array(3)}
    ways: tuple[Callable[[Path, bool], object], ...] = (
        lambda out, over: ckptparse.write(out / "m", arrays, max_shard_size=64, overwrite=over),
        lambda out, over: ckptparse.convert(arrays, out / "x.npz", overwrite=over),
        lambda out, over: ckptparse.convert(arrays, out / "n", format="npy", overwrite=over),
        lambda out, over: ckptparse.convert(
            arrays, out / "x.safetensors", max_shard_size=64, overwrite=over
        ),
        lambda out, over: ckptparse.write(out / "m", arrays, overwrite=over, update_state=True),
    )
    way = ways[len(files) % 2 + number % 4]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(os.path.realpath(folder), "out")
        out.mkdir()
        over = bool(number & 1)
        if over:
            attempt(way, out, False)
        before = contents(out)
        disk = FailingDisk(number * 5 % 256, str(out))
        with disk.used():
            done = attempt(way, out, over)
        after = contents(out)
        # The state file is written last, by itself.
        after.pop("checkpoint", None)
        before.pop("checkpoint", None)
        failed = isinstance(done, ckptparse.CheckpointError)
        if failed and after != before and after != contents_of(way):
            raise BrokenPromiseError(f"{done!r}: {sorted(before)} became {sorted(after)}")


def contents_of(way: Callable[[Path, bool], object]) -> dict[str, bytes]:
    """Return what a way of writing writes, without a state file."""
    with tempfile.TemporaryDirectory() as folder:
        attempt(way, Path(folder), False)
        found = contents(Path(folder))
    return {name: data for name, data in found.items() if name != "checkpoint"}


def contents(folder: Path) -> dict[str, bytes]:
    """Return what lies in a directory, by name."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(filter(Path.is_file, folder.rglob("*")))
    }


def write_oddly(_: Files, number: int) -> None:
    """Write to odd places: nothing is written there, or elsewhere, unless it may be."""
    arrays = {"a": np.arange(4.0), "../b": np.ones(2)}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        (out / "full").mkdir()
        (out / "full" / "mine.txt").write_bytes(b"mine")
        (out / "file").write_bytes(b"mine")
        os.mkfifo(out / "fifo")
        (out / "link").symlink_to("nowhere")
        (out / "x.npz").symlink_to(out / "file")
        (out / "loop").symlink_to("loop")
        before = contents(out)
        places = ("full", "file", "fifo", "link", "loop", "no/such", "full/", "file/x", "a\0b", "")
        for place in places:
            for format in ("v2", "npy", "npz")[number % 3 :]:
                options: Any = {"format": format, "overwrite": bool(number & 1) and place == "full"}
                misuse(ckptparse.convert, arrays, f"{out}/{place}", **options)
                for name, data in before.items():
                    if (out / name).read_bytes() != data:
                        raise BrokenPromiseError(f"writing to {place!r} changed {name}")
        for name in ("fifo", "link", "loop", "full", "file", "."):
            attempt(ckptparse.read, out / name)
            attempt(ckptparse.identify, out / name)
            attempt(ckptparse.verify, out / name)


def write_elsewhere(files: Files, number: int) -> None:
    """Write into mappings and file systems of `fsspec`: it reads back, and nothing is replaced."""
    read = attempt(ckptparse.read, _PREFIX, store=files, limits=LIMITS)
    values = read if isinstance(read, dict) else {"w": np.ones(3)}
    for store in stores():
        again: dict[str, Any] = {"overwrite": True, "max_shard_size": 50}
        for ways in ({}, again, {}):
            write_there(values, store, ways)
        for target in ("x/n/", "x/o.npz", "x/p.safetensors"):
            for over in (False, False, True):
                attempt(ckptparse.convert, values, target, target_store=store, overwrite=over)
        attempt(ckptparse.verify, "x/m", store=store)
        opened = attempt(ckptparse.open, "x/m", store=store)
        attempt(lambda one: pickle.loads(pickle.dumps(one)).read(), opened)  # noqa: S301
    misuse(ckptparse.write, "x/m", values, store=b"")
    if find_spec("fsspec") is not None:
        attempt(ckptparse.write, "memory://y/m", values)
        for path in ("memory://y/m", f"memory://y/none{number}", "nosuchprotocol://y/m"):
            attempt(ckptparse.read, path)


def stores() -> Iterator[Any]:
    """Give what can be written to."""
    yield {}
    if find_spec("fsspec") is not None:
        import fsspec

        memory = fsspec.filesystem("memory")
        memory.store.clear()
        yield memory


def write_there(values: dict[str, Any], store: Any, ways: Any) -> None:
    """Write a checkpoint, and read it back."""
    written = attempt(ckptparse.write, "x/m", values, store=store, **ways)
    if isinstance(written, str):
        back = ckptparse.read(written, store=store)
        if not all(same_values(values[name], back[name]) for name in values):
            raise BrokenPromiseError("what was written elsewhere is not what was given")


def read_streams(files: Files, number: int) -> None:
    """Read file objects that are closed, cut short, or of text."""
    data = files.get(f"{_PREFIX}.index", b"")
    with tempfile.TemporaryDirectory() as folder:
        prefix = lay_out(files, folder)
        with contextlib.ExitStack() as stack:
            real = {name: stack.enter_context(Path(folder, name).open("rb")) for name in files}
            attempt(ckptparse.read, _PREFIX, store=real, limits=LIMITS)
            attempt(ckptparse.verify, _PREFIX, store=real, limits=LIMITS)
            opened = attempt(ckptparse.open, _PREFIX, store=real, limits=LIMITS)
            if number & 1:
                for name in files:
                    os.truncate(Path(folder, name), len(files[name]) // 2)
            elif number & 2:
                for stream in real.values():
                    stream.close()
            if isinstance(opened, ckptparse.Checkpoint):
                attempt(opened.read)
                attempt(pickle.dumps, opened)
        one = attempt(ckptparse.open, prefix, limits=LIMITS, mmap=True)
        if isinstance(one, ckptparse.Checkpoint):
            for tensor in first_of(one, 9):
                attempt(tensor.verify)
            one.close()
    misuse(ckptparse.read, _PREFIX, store={f"{_PREFIX}.index": io.StringIO("x")})
    misuse(ckptparse.read, _PREFIX, store={f"{_PREFIX}.index": 3})
    misuse(ckptparse.identify, io.BytesIO(data))


ASKS: tuple[Callable[[Files, int], None], ...] = (
    copy_it,
    index_oddly,
    misuse_it,
    as_tensorflow,
    write_elsewhere,
    read_streams,
    write_failing,
    write_oddly,
    copy_model,
    kinds_of,
)
_V1 = 128
"""Added to the number of what is asked of a V1 file."""


def run_ask(data: bytes) -> None:
    """Ask one thing."""
    if len(data) > 1:
        files = {_PREFIX: data[2:]} if data[0] >= _V1 else bundle_store(data[2:])
        ASKS[data[0] % _V1 % len(ASKS)](files, data[1])


def ask_seeds() -> Iterator[bytes]:
    """Ask everything of some bundles and V1 files."""
    bundles = [packed for _, packed in zip(range(12), seeds.small_bundles(), strict=False)]
    old = list(seeds.v1_files(seeds.SMALL))
    made = b.Bundle()
    made.add("m/kernel", np.arange(12, dtype=np.float32).reshape(3, 4))
    made.add("m/bias", np.array([1, 2, 3]))
    made.add("text", np.array([b"a", b"bc"], object))
    plain = pack(list(made.files("m").values()))
    for ask in range(len(ASKS)):
        for number in range(4):
            yield bytes([ask, number]) + plain
            yield bytes([ask, 17 * ask + number]) + bundles[(ask * 4 + number) % len(bundles)]
        yield bytes([_V1 + ask, ask]) + old[ask % len(old)]
    yield from (bytes([ASKS.index(write_failing), number]) + plain for number in range(0, 256, 7))


def mutate_ask(data: bytes, rng: random.Random) -> bytes:
    """Change the checkpoint, or ask something else of it."""
    if len(data) < 2:
        return bytes([rng.randrange(len(ASKS)), rng.randrange(256)])
    head, rest = bytearray(data[:2]), data[2:]
    kind = rng.randrange(3)
    if kind == 0:
        head[0] = (head[0] & _V1) + rng.randrange(len(ASKS))
    elif kind == 1:
        head[1] = rng.randrange(256)
    else:
        rest = (mutators.table if head[0] >= _V1 else mutators.bundle)(rest, rng)
    return bytes(head) + rest


TARGETS = [Target("ask", run_ask, ask_seeds, mutate_ask)]
