"""Buckets, web servers and file systems of `fsspec` that answer as a script says.

What is read with its checksums is what an honest server would have given, of one version of the
files, or an error; whatever a server says, and whatever lies in the directory of the cache.
"""

from __future__ import annotations

import pickle
import random
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from functools import cache
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any
from unittest import mock

import builder as b
import numpy as np

import ckptparse
from ckptparse.files import remote
from ckptparse.files.filesystem import FilesystemStorage
from ckptparse.files.one_object import OneObjectStorage
from ckptparse.files.remote import ObjectStorage
from ckptparse.files.web import WebStorage
from fuzz import mutators, seeds
from fuzz.oracle import LIMITS, BrokenPromiseError, attempt, check_printable, same_values
from fuzz.packing import pack, unpack
from fuzz.serving import Filesystem, Scripted, Store, random_script, web_server
from fuzz.targets.archives import zipped
from fuzz.targets.target import Target

__all__ = ["TARGETS"]

_SECRET = "secret"  # noqa: S105 - nobody's: it is in what the server says
_ROOT = "s3://b/"
_WEB = "http://h/"
_ONE = "http://h/m.zip"
_HURRY: Any = {
    "max_retries": 2,
    "retry_timeout": timedelta(milliseconds=50),
    "backoff": {
        "init_backoff": timedelta(milliseconds=1),
        "max_backoff": timedelta(milliseconds=2),
        "base": 2,
    },
}
"""Nobody waits for a server that is made up."""


def of_bucket(server: Scripted) -> tuple[str, Any]:
    """Give the files as a bucket's."""
    store = Store(server)
    return f"{_ROOT}d/m", ObjectStorage(store, root=_ROOT, reader=store)


def of_web(server: Scripted) -> tuple[str, Any]:
    """Give the files as those of a web server without lists."""
    store = Store(server, lists=False)
    return f"{_WEB}d/m", WebStorage(store, root=_WEB, once=store)


def of_web_with_lists(server: Scripted) -> tuple[str, Any]:
    """Give the files as those of a web server that gives lists."""
    store = Store(server)
    return f"{_WEB}d/m", WebStorage(store, root=_WEB, once=store)


def of_filesystem(server: Scripted) -> tuple[str, Any]:
    """Give the files as those of a file system of `fsspec`."""
    return "d/m", FilesystemStorage(Filesystem(server))


def of_given_filesystem(server: Scripted) -> tuple[str, Any]:
    """Give the same, as callers do."""
    return "d/m", Filesystem(server)


def of_one_object(server: Scripted) -> tuple[str, Any]:
    """Give the files in an archive behind a signed URL."""
    for files in (server.files, server.others):
        members = [(name, data) for name, data in files.items() if name.startswith("d/m.")]
        files[""] = zipped(members)
    return _ONE, OneObjectStorage(Store(server), _ONE, retries=remote.usual_retries())


def of_http(server: Scripted) -> tuple[str, Any]:
    """Give the files to whoever asks by HTTP."""
    return by_http(server, "m") if find_spec("obstore") else of_web(server)


def of_signed_http(server: Scripted) -> tuple[str, Any]:
    """Give an archive to whoever asks by a signed URL."""
    if find_spec("obstore") is None:
        return of_one_object(server)
    return by_http(server, f"m.zip?signature={_SECRET}")


def by_http(server: Scripted, name: str) -> tuple[str, Any]:
    """Let the web server of this process answer by the script."""
    web = web_server()
    web.take(server)
    return f"{web.url}/d/{name}", None


def of_memory(server: Scripted) -> tuple[str, Any]:
    """Give the files to `fsspec`, which has them in memory."""
    if find_spec("fsspec") is None:
        return of_given_filesystem(server)
    import fsspec

    filesystem = fsspec.filesystem("memory")
    for name, data in server.files.items():
        filesystem.pipe_file(f"/{name}", data)
    return "memory://d/m", None


PLACES: tuple[Callable[[Scripted], tuple[str, Any]], ...] = (
    of_bucket,
    of_web,
    of_web_with_lists,
    of_filesystem,
    of_given_filesystem,
    of_one_object,
    of_http,
    of_signed_http,
    of_memory,
)


def read_all(path: str, options: dict[str, Any]) -> Any:
    """Read everything at once."""
    return ckptparse.read(path, **options)


def read_each(path: str, options: dict[str, Any]) -> Any:
    """Read tensor after tensor, and parts, which nothing proves."""
    with ckptparse.open(path, **options) as checkpoint:
        for tensor in list(checkpoint.values())[:3]:
            if tensor.shape:
                attempt(tensor.__getitem__, slice(0, 2))
        return {name: tensor.read() for name, tensor in checkpoint.items()}


def read_again(path: str, options: dict[str, Any]) -> Any:
    """Read twice; the second time what the first one left behind may be of use."""
    attempt(ckptparse.read, path, **options)
    return ckptparse.read(path, **options)


def read_directory(path: str, options: dict[str, Any]) -> Any:
    """Read what the state file of the directory names."""
    attempt(ckptparse.latest_checkpoint, path.removesuffix("/m"), store=options["store"])
    return ckptparse.read(path.removesuffix("/m"), **options)


def look_at(path: str, options: dict[str, Any]) -> Any:
    """Ask what it is, and whether it is whole."""
    attempt(ckptparse.identify, path, **options)
    report = attempt(ckptparse.verify, path, **options)
    check_printable(str(report))
    found = attempt(ckptparse.recover, path, **options)
    if not isinstance(found, ckptparse.Recovery):
        return None
    values = {name: attempt(one.read) for name, one in found.items() if one.status == "verified"}
    return {name: one for name, one in values.items() if isinstance(one, np.ndarray)}


def convert_from(path: str, options: dict[str, Any]) -> Any:
    """Write what a server gives into a file of this machine."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "out")
        ckptparse.convert(path, out, format="v2", **options)
        return ckptparse.read(out)


def read_packed(path: str, options: dict[str, Any]) -> Any:
    """Read an archive that lies there."""
    return ckptparse.read(path if ".zip" in path else f"{path}.zip", **options)


def read_elsewhere(path: str, options: dict[str, Any]) -> Any:
    """Send a tensor to another process, which opens the checkpoint again."""
    with ckptparse.open(path, **options) as checkpoint:
        for tensor in list(checkpoint.values())[:2]:
            attempt(lambda tensor: pickle.loads(pickle.dumps(tensor)).read(), tensor)  # noqa: S301
        return ckptparse.read(path, **options)


WAYS: tuple[Callable[[str, dict[str, Any]], Any], ...] = (
    read_all,
    read_each,
    read_again,
    read_directory,
    look_at,
    convert_from,
    read_packed,
    read_elsewhere,
)
_CACHED, _SPOILT = 1, 2


def run_remote(data: bytes) -> None:
    """Read from a server by one of the ways, or write to it."""
    if len(data) < 4:
        return
    place, way, flags, size = data[:4]
    script, packed = data[4 : 4 + size], data[4 + size :]
    with quickly():
        if way % (len(WAYS) + 1) == len(WAYS):
            write_there(place, script)
        else:
            read_there(place, WAYS[way % (len(WAYS) + 1)], flags, script, packed)


@contextmanager
def quickly() -> Iterator[None]:
    """Let nothing wait before it asks again."""
    with mock.patch.dict(remote._RETRIES, _HURRY):
        yield


def read_there(
    place: int, way: Callable[[str, dict[str, Any]], Any], flags: int, script: bytes, packed: bytes
) -> None:
    """Read, and hold what comes to what an honest server has."""
    first, second = unpack(packed, 4)[:2], unpack(packed, 4)[2:]
    files, others = as_files(first), as_files(second)
    partly = way is look_at
    ask = look_at if partly else read_all
    honest = [attempt(ask, "d/m", {"store": one, "limits": LIMITS}) for one in (files, others)]
    wanted = [one for one in honest if isinstance(one, dict)]
    server = Scripted(files, others, script)
    with ExitStack() as stack:
        path, store = PLACES[place % len(PLACES)](server)
        options: dict[str, Any] = {"store": store, "limits": LIMITS}
        if flags & _CACHED:
            options["cache"] = stack.enter_context(tempfile.TemporaryDirectory())
        found = attempt(way, path, options)
        check_found(found, wanted, partly=partly)
        if flags & _CACHED and flags & _SPOILT:
            spoil(Path(options["cache"]), script)
            check_found(attempt(way, path, options), wanted, partly=partly)


def as_files(pair: list[bytes]) -> dict[str, bytes]:
    """Give an index and its data file their names, and what else lies there."""
    names = ("d/m.index", "d/m.data-00000-of-00001")
    files = dict(zip(names, pair, strict=False))
    state = b'model_checkpoint_path: "m"\nall_model_checkpoint_paths: "m"\n'
    return {**files, "d/checkpoint": state, "d/m.zip": zipped(list(files.items()))}


def check_found(found: Any, wanted: list[dict[str, Any]], *, partly: bool) -> None:
    """Refuse values that no honest server would have given."""
    if isinstance(found, ckptparse.CheckpointError):
        if _SECRET in f"{found} {found!r}":
            raise BrokenPromiseError(f"a password stands in {found!r}")
        return
    if found is not None and not any(is_of(found, one, partly=partly) for one in wanted):
        raise BrokenPromiseError(f"{found} comes of a server that has {wanted}")


def is_of(found: dict[str, Any], honest: dict[str, Any], *, partly: bool) -> bool:
    """Tell whether all values, or some of them, are those of one version of the files."""
    if not partly and list(found) != list(honest):
        return False
    return all(name in honest and same_values(one, honest[name]) for name, one in found.items())


def spoil(directory: Path, script: bytes) -> None:
    """Change what a cache holds."""
    rng = random.Random(script)
    for path in sorted(filter(Path.is_file, directory.rglob("*"))):
        path.write_bytes(mutators.blind(path.read_bytes(), rng))


def write_there(place: int, script: bytes) -> None:
    """Write into a bucket: what is there afterwards is whole, or as it was, or nothing."""
    before = as_files(list(made(1).files("m").values()))
    server = Scripted(dict(before), {}, script)
    path, store = PLACES[(0, 3, 4)[place % 3]](server)
    tensors = {"w": np.arange(5.0), "s": np.array([b"a", b"bc"], object)}
    if place & 64:
        convert_there(path, store, overwrite=bool(place & 128))
        return
    options: dict[str, Any] = {"store": store, "overwrite": bool(place & 128)}
    done = attempt(
        ckptparse.write, path, tensors, max_shard_size=16 if place & 32 else None, **options
    )
    if server.version > 1:
        # All that lay there was replaced meanwhile: what is left is not what was written.
        return
    now = attempt(ckptparse.read, "d/m", store=server.files, limits=LIMITS)
    if isinstance(done, ckptparse.CheckpointError):
        # A data file that no index names may be left, if the server lets nobody delete it.
        old = ckptparse.read("d/m", store=before)
        if isinstance(now, dict) and not is_of(now, old, partly=False):
            raise BrokenPromiseError(f"{done!r}, and then {now!r}")
    elif not isinstance(now, dict) or not is_of(now, tensors, partly=True):
        raise BrokenPromiseError(f"wrote, and then {now!r}")


def convert_there(path: str, store: Any, *, overwrite: bool) -> None:
    """Convert a checkpoint of this machine into files elsewhere, of several formats."""
    files = as_files(list(made(2).files("m").values()))
    for target in (f"{path}s/", f"{path}.npz", f"{path}.safetensors", f"{path}2"):
        written = attempt(
            ckptparse.convert,
            "d/m",
            target,
            format="npy" if target.endswith("/") else None,
            store=files,
            target_store=store,
            overwrite=overwrite,
        )
        if isinstance(written, ckptparse.CheckpointError):
            continue
        found = attempt(ckptparse.diff, "d/m", target, store=files)
        check_printable(str(found))


@cache
def made(seed: int) -> b.Bundle:
    """Make a bundle, the same names each time, and other values."""
    bundle = b.Bundle()
    rng = random.Random(seed)
    for name, count in (("a", 3), ("b/kernel", 40), ("b/kernel/Adam", 40), ("z", 1)):
        bundle.add(name, np.frombuffer(rng.randbytes(4 * count), np.float32).copy())
    return bundle


def remote_seeds() -> Iterator[bytes]:
    """Give each place and way, with a script of every kind of answer."""
    versions = [list(made(seed).files("m").values()) for seed in (1, 2)]
    packed = pack([*versions[0], *versions[1]])
    number = 0
    for place in range(len(PLACES)):
        for way in range(len(WAYS) + 1):
            for flags in (0, 3):
                script = random_script(random.Random(number))
                number += 1
                yield bytes([place, way, flags, len(script)]) + script + packed
            yield bytes([place + 128 * (way % 2), way, way % 4, 0]) + packed
    for place in range(64, 256, 32):
        script = random_script(random.Random(place))
        yield bytes([place + place // 32 % 3, len(WAYS), 0, len(script)]) + script + packed
    for bundle in list(seeds.bundles(1_000))[::_EACH]:
        index, shard, *_ = unpack(bundle, 2)
        yield bytes([number % 3, 0, 1, 0]) + pack([index, shard, *versions[1]])
        number += 1


_EACH = 12
"""Of the bundles of the fixtures, each so manieth is enough here."""


def mutate_remote(data: bytes, rng: random.Random) -> bytes:
    """Change what the server does, where it is, how it is asked; now and then what it has."""
    if len(data) < 4:
        return next(chain(remote_seeds()))
    place, way, flags, size = data[:4]
    script, packed = data[4 : 4 + size], data[4 + size :]
    kind = rng.randrange(6)
    if kind == 0:
        place, way = rng.randrange(256), rng.randrange(256)
    elif kind == 1:
        flags = rng.randrange(4)
    elif kind == 2:
        script = mutators.blind(script, rng)[:30]
    elif kind == 3:
        parts = unpack(packed, 4)
        index, shard = unpack(mutators.bundle(pack([*parts[:2], b""]), rng), 2)
        packed = pack([index, shard, *parts[2:]])
    else:
        script = (script + random_script(rng))[-30:]
    return bytes([place, way, flags, len(script)]) + script + packed


TARGETS = [Target("remote", run_remote, remote_seeds, mutate_remote, warms=False)]
