"""Whole jobs, each on a checkpoint that was changed; what two of them say must agree.

The first byte of an input says which job. The rest is a packed bundle, or a V1 file.
"""

from __future__ import annotations

import pickle
import random
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

import ckptparse
from ckptparse import tf
from fuzz import mutators, seeds
from fuzz.oracle import LIMITS, BrokenPromiseError, attempt, check_printable, examine, same_values
from fuzz.targets.checkpoints import bundle_store
from fuzz.targets.target import Target

__all__ = ["TARGETS"]

Files = dict[str, bytes]
_PREFIX = "d/m"


def sum_up(files: Files) -> None:
    """Sum up every tensor; what can be summed up can be read."""
    read = attempt(ckptparse.read, _PREFIX, store=files, limits=LIMITS)
    options: dict[str, Any] = {"store": files, "limits": LIMITS}
    found = attempt(ckptparse.stats, _PREFIX, histogram=True, **options)
    if isinstance(found, dict) != isinstance(read, dict):
        raise BrokenPromiseError(f"stats gives {found!r}, and read {read!r}")
    if isinstance(found, dict) and isinstance(read, dict) and list(found) != list(read):
        raise BrokenPromiseError(f"stats gives {list(found)}, and read {list(read)}")


def sum_up_by_threads(files: Files) -> None:
    """Sum up by threads: nothing differs."""
    options: dict[str, Any] = {"store": files, "limits": LIMITS, "histogram": True}
    found = attempt(ckptparse.stats, _PREFIX, naming="variable", **options)
    with ThreadPoolExecutor(2) as pool:
        spread = attempt(ckptparse.stats, _PREFIX, naming="variable", executor=pool, **options)
    if repr(found) != repr(spread) and isinstance(found, dict):
        raise BrokenPromiseError(f"stats gives {found!r}, and by threads {spread!r}")


def compare_to_itself(files: Files) -> None:
    """Compare a checkpoint to a copy of it, which is the same; the average of both is, too."""
    store = {**files, **{name.replace("d/", "e/"): data for name, data in files.items()}}
    options: dict[str, Any] = {"store": store, "limits": LIMITS}
    read = attempt(ckptparse.read, _PREFIX, **options)
    found = attempt(ckptparse.diff, _PREFIX, "e/m", atol=0.1, **options)
    average = attempt(ckptparse.average, [_PREFIX, "e/m"], **options)
    if isinstance(found, ckptparse.Diff):
        check_printable(str(found))
        if isinstance(read, dict) and not found.same:
            raise BrokenPromiseError(f"a checkpoint differs from itself: {found}")
    if isinstance(read, dict) and isinstance(average, dict) and list(read) != list(average):
        raise BrokenPromiseError(f"average gives {list(average)}, and read {list(read)}")


def verify_in_parts(files: Files) -> None:
    """Verify by parts: the report is the same, but that a cause may not be known."""
    whole = attempt(examine, _PREFIX, files)
    cut = attempt(ckptparse.parts, _PREFIX, size=64, store=files, limits=LIMITS)
    if isinstance(cut, list):
        reports = [attempt(part.verify) for part in cut]
        good = [report for report in reports if isinstance(report, ckptparse.Report)]
        if len(good) == len(reports):
            check_same(whole, attempt(ckptparse.Report.merge, good), "by parts", causes=False)


def verify_by_threads(files: Files) -> None:
    """Verify by threads: the report is the same."""
    whole = attempt(examine, _PREFIX, files)
    if isinstance(whole, ckptparse.Report):
        with ThreadPoolExecutor(2) as pool:
            options: dict[str, Any] = {"store": files, "limits": LIMITS}
            found = attempt(ckptparse.verify, _PREFIX, executor=pool, **options)
        check_same(whole, found, "by threads")


def check_same(
    one: ckptparse.Report | ckptparse.CheckpointError,
    other: ckptparse.Report | ckptparse.CheckpointError,
    how: str,
    *,
    causes: bool = True,
) -> None:
    """Hold two reports of one checkpoint to each other."""
    if not isinstance(one, ckptparse.Report) or not isinstance(other, ckptparse.Report):
        raise BrokenPromiseError(f"verify says {one!r}, and {how} {other!r}")
    tell = dict if causes else statuses
    if one.ok != other.ok or tell(one.tensors) != tell(other.tensors):
        raise BrokenPromiseError(f"verify says {one}, and {how} {other}")


def statuses(tensors: Mapping[str, ckptparse.TensorReport]) -> dict[str, object]:
    """Return what is said of sound tensors, and of others only how they are."""
    return {
        name: one if str(one.status) == "verified" else str(one.status)
        for name, one in tensors.items()
    }


def recover_and_repeat(files: Files) -> None:
    """Write what is got back, and repeat it from its report: nothing differs."""
    with tempfile.TemporaryDirectory() as folder:
        prefix = lay_out(files, folder)
        recovery = attempt(ckptparse.recover, prefix, limits=LIMITS)
        if not isinstance(recovery, ckptparse.Recovery):
            return
        check_printable(recovery.to_dfxml().replace("\t", " "))
        # A checkpoint keeps the object graph, or gets one that is made anew.
        ending = "npz" if sum(map(len, files.values())) % 2 else "ckpt"
        out = Path(folder, "out", f"x.{ending}")
        out.parent.mkdir()
        written = attempt(recovery.write, out)
        if isinstance(written, ckptparse.CheckpointError):
            if list(out.parent.iterdir()):
                raise BrokenPromiseError(f"{written!r}, and something was written")
            return
        again = ckptparse.replay(f"{out}.report.json")
        if not again.same:
            raise BrokenPromiseError(f"repeated, and it differs: {again.differences}")


def make_page(files: Files) -> None:
    """Make a page; the names in it are text, and no part of it."""
    with tempfile.TemporaryDirectory() as folder:
        prefix = lay_out(files, folder)
        out = Path(folder, "out.html")
        made = attempt(ckptparse.report_page, prefix, out, limits=LIMITS)
        if isinstance(made, ckptparse.CheckpointError):
            if out.exists():
                raise BrokenPromiseError(f"{made!r}, and a page was written")
            return
        if "\x1b" in out.read_text(encoding="utf-8"):
            raise BrokenPromiseError("a page has the bytes of a name")


def read_as_tensorflow(files: Files) -> None:
    """Read through what stands in for TensorFlow: values are those of `read`."""
    options: dict[str, Any] = {"store": files, "limits": LIMITS}
    reader = attempt(tf.train.load_checkpoint, _PREFIX, **options)
    listed = attempt(tf.train.list_variables, _PREFIX, **options)
    for name, _ in listed[:3] if isinstance(listed, list) else ():
        attempt(tf.train.load_variable, _PREFIX, name, **options)
    if isinstance(reader, ckptparse.CheckpointError):
        return
    shapes = attempt(reader.get_variable_to_shape_map)
    attempt(reader.get_variable_to_dtype_map)
    attempt(reader.debug_string)
    opened = attempt(ckptparse.open, _PREFIX, **options)
    if isinstance(shapes, ckptparse.CheckpointError):
        return
    if isinstance(opened, ckptparse.CheckpointError):
        raise BrokenPromiseError(f"TensorFlow's reader gives {shapes}, and open {opened!r}")
    for name, shape in shapes.items():
        value = attempt(reader.get_tensor, name)
        tensor = opened.get(name)
        if isinstance(value, ckptparse.CheckpointError) or tensor is None:
            continue
        if list(tensor.shape) != shape or not same_values(tensor.read(), of_reader(value)):
            raise BrokenPromiseError(f"TensorFlow's reader gives {name!r} as {value!r}")


def of_reader(value: Any) -> Any:
    """Return what a reader gave as an array: strings without dimensions are bytes."""
    return np.array(value, object) if isinstance(value, bytes) else np.asarray(value)


def index_at_random(files: Files) -> None:
    """Read parts of tensors: they are parts of the whole."""
    rng = random.Random(sum(map(len, files.values())))
    opened = attempt(ckptparse.open, _PREFIX, store=files, limits=LIMITS)
    if isinstance(opened, ckptparse.CheckpointError):
        return
    with opened:
        for name, tensor in first_of(opened, 8):
            whole = attempt(tensor.read)
            key = tuple(random_index(size, rng) for size in tensor.shape[: rng.randrange(5)])
            part = attempt(tensor.__getitem__, key)
            if isinstance(whole, ckptparse.CheckpointError) or not tensor.size:
                continue
            if isinstance(part, ckptparse.CheckpointError):
                raise BrokenPromiseError(f"{name!r} can be read, and {key}: {part!r}")
            wanted = whole[key]
            if not same_values(np.asarray(part, whole.dtype), np.asarray(wanted, whole.dtype)):
                raise BrokenPromiseError(f"{name!r} at {key} is {part!r}, not {wanted!r}")


def first_of(opened: ckptparse.Checkpoint, most: int) -> list[tuple[str, ckptparse.Tensor]]:
    """Return some tensors; none if they cannot be listed."""
    found = attempt(lambda: list(opened.items())[:most])
    return [] if isinstance(found, ckptparse.CheckpointError) else found


def random_index(size: int, rng: random.Random) -> int | slice:
    """Return an index that a dimension has, or a slice."""
    if size and not rng.randrange(3):
        return rng.randrange(-size, size)
    low, high = rng.randint(-size - 1, size + 1), rng.randint(-size - 1, size + 1)
    return slice(low, high, rng.choice([None, 1, 2, -1, -3]))


def pickle_and_reopen(files: Files) -> None:
    """Send a checkpoint and its tensors to another process: they read the same there."""
    with tempfile.TemporaryDirectory() as folder:
        prefix = lay_out(files, folder)
        opened = attempt(ckptparse.open, prefix, limits=LIMITS)
        if isinstance(opened, ckptparse.CheckpointError):
            return
        with opened:
            for name, tensor in first_of(opened, 4):
                value = attempt(tensor.read)
                other = attempt(pickle.loads(pickle.dumps(tensor)).read)  # noqa: S301 - our own
                if isinstance(value, ckptparse.CheckpointError):
                    if not isinstance(other, type(value)):
                        raise BrokenPromiseError(f"{name!r}: {value!r}, and elsewhere {other!r}")
                elif not same_values(value, other):
                    raise BrokenPromiseError(f"{name!r} is elsewhere {other!r}")


def convert_and_undo(files: Files) -> None:
    """Convert, and undo it: what comes back is what was there."""
    with tempfile.TemporaryDirectory() as folder:
        prefix = lay_out(files, folder)
        out, back = Path(folder, "out.npz"), Path(folder, "back")
        done = attempt(
            ckptparse.convert,
            prefix,
            out,
            rename=[("kernel", "weight")],
            layout="torch",
            naming="variable",
            limits=LIMITS,
        )
        if isinstance(done, ckptparse.CheckpointError):
            return
        check_printable(str(done))
        undone = attempt(ckptparse.convert, out, back, rename=done.reverse(), limits=LIMITS)
        if isinstance(undone, ckptparse.CheckpointError):
            return
        read = ckptparse.read(prefix, limits=LIMITS)
        for name, array in ckptparse.read(back, limits=LIMITS).items():
            if not same_values(array, read[name]):
                raise BrokenPromiseError(f"{name!r} comes back as {array!r}, not {read[name]!r}")


def rebuild_without_index(files: Files) -> None:
    """Recover from the data alone, with shapes, or with what another file knows."""
    data = {name: one for name, one in files.items() if ".data" in name}
    listed = attempt(ckptparse.list_variables, _PREFIX, store=files, limits=LIMITS)
    shapes = dict(listed) if isinstance(listed, list) else {"w": (2, 3), "b": (3,)}
    store = {**data, **beside()}
    ways = ({"shapes": shapes}, {"evidence": ["x/g.meta"]}, {"evidence": ["x/model.pb"]})
    options: Any = ways[sum(map(len, files.values())) % len(ways)]
    found = attempt(ckptparse.recover, _PREFIX, store=store, limits=LIMITS, **options)
    if isinstance(found, ckptparse.Recovery):
        check_printable(str(found.report))
        for tensor in found.values():
            attempt(tensor.read)


def beside() -> Files:
    """Return files that may know what a lost index said."""
    (graph,) = (seeds.FIXTURES / "graphs" / "saver_to_rebuild").glob("*.meta")
    model = seeds.FIXTURES / "saved_model" / "keras2_functional" / "saved_model.pb"
    return {"x/g.meta": graph.read_bytes(), "x/model.pb": model.read_bytes()}


def lay_out(files: Files, folder: str) -> Path:
    """Write files, and return the prefix."""
    for name, content in files.items():
        path = Path(folder, name)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    return Path(folder, _PREFIX)


JOBS: tuple[Callable[[Files], None], ...] = (
    sum_up,
    sum_up_by_threads,
    compare_to_itself,
    verify_in_parts,
    verify_by_threads,
    recover_and_repeat,
    make_page,
    read_as_tensorflow,
    index_at_random,
    pickle_and_reopen,
    convert_and_undo,
    rebuild_without_index,
)
_V1 = 128
"""Added to the number of a job whose input is a V1 file."""


def run_job(data: bytes) -> None:
    """Do a job."""
    if data:
        files = {_PREFIX: data[1:]} if data[0] >= _V1 else bundle_store(data[1:])
        JOBS[data[0] % _V1 % len(JOBS)](files)


def job_seeds() -> Iterator[bytes]:
    """Give each bundle to one job, and each V1 file to one."""
    for number, packed in enumerate(seeds.small_bundles()):
        yield bytes([number % len(JOBS)]) + packed
    for number, data in enumerate(seeds.v1_files(seeds.SMALL)):
        yield bytes([_V1 + number % len(JOBS)]) + data


def mutate_job(data: bytes, rng: random.Random) -> bytes:
    """Change the checkpoint, and choose a job."""
    job = rng.randrange(len(JOBS))
    if data[:1] >= bytes([_V1]):
        return bytes([_V1 + job]) + mutators.table(data[1:], rng)
    return bytes([job]) + mutators.bundle(data[1:], rng)


TARGETS = [Target("jobs", run_job, job_seeds, mutate_job)]
