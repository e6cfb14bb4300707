"""Directories of files under every name that a checkpoint can have, some there and some not.

An input is text: a line for each file, its name and the letter of what it holds. Whatever is asked
of any path in it, `read`, `verify` and `identify` mean the same files by it.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Iterator
from functools import cache

import builder as b
import numpy as np

import ckptparse
from ckptparse import tf
from fuzz import mutators, seeds
from fuzz.oracle import LIMITS, BrokenPromiseError, attempt, check_printable
from fuzz.targets.archives import tarred, zipped
from fuzz.targets.target import Target

__all__ = ["TARGETS"]

_MOST = 10
"""Files of one directory."""
_ASKED = 4
"""Paths that one execution asks about; which of them, the input's checksum says."""


@cache
def contents() -> dict[str, bytes]:
    """Return what files may hold, by the letter for it."""
    made = b.Bundle()
    made.add("layer/kernel", np.arange(6, dtype=np.float32).reshape(2, 3))
    made.add("step", np.array(3))
    made.shards[1] = bytearray()
    made.add("layer/bias", np.arange(3, dtype=np.float32), shard=1)
    index, first, second = made.files("m").values()
    root = seeds.FIXTURES
    model = root / "saved_model" / "keras2_functional"
    state = 'model_checkpoint_path: "{0}"\nall_model_checkpoint_paths: "{0}"\n'
    found = {
        "i": index,
        "0": first,
        "1": second,
        "e": b"",
        "z": bytes(600),
        "x": b"some text\n",
        "v": min(seeds.v1_files(seeds.SMALL), key=len),
        "w": max(seeds.v1_files(seeds.SMALL)),
        "g": (root / "graphs" / "frozen_tf1" / "frozen.pb").read_bytes(),
        "m": next(iter((root / "graphs" / "saver_to_rebuild").glob("*.meta"))).read_bytes(),
        "p": (model / "saved_model.pb").read_bytes(),
        "c": state.format("m").encode(),
        "C": state.format("/gone/d/m").encode(),
        "n": state.format("m-00000-of-00002").encode(),
        "N": state.format("../e/m.index").encode(),
        "k": index[: len(index) // 2],
        "h": b"<!DOCTYPE html><title>Sign in</title>",
        "l": b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 9\n",
    }
    found["t"] = tarred([("run/m.index", index), ("run/m.data-00000-of-00002", first)])
    found["Z"] = zipped([("m.index", index), ("m.data-00000-of-00002", first), ("x", second)])
    return found


NAMES = (
    *("m.index", "m.data-00000-of-00002", "m.data-00001-of-00002", "checkpoint", "m", "m.meta"),
    *("m-00000-of-00002", "m-00001-of-00002", "m-00000-of-00003", "m-?????-of-00002", "a.zip"),
    *("saved_model.pb", "variables/variables.index", "variables/variables.data-00000-of-00002"),
    *("variables/variables.data-00001-of-00002", "m_temp/part-00000-of-00001.index", "g.pb"),
    *("m_temp/part-00000-of-00001.data-00000-of-00001", "m (1).index", "m.index.tempstate123"),
    *("m (1).data-00000-of-00002", "m.data-00000-of-00002 (1)", "variables.index", "m.index/x"),
    *(
        "m_temp_abc/part-00000-of-00002.index",
        "saved_model.pbtxt",
        "saved_model.cpb",
        "m-100.index",
    ),
    *("m-00000-of-00002.tempstate99", "m.tempstate12", "assets/words.txt", "tfhub_module.pb"),
    *("variables/checkpoint", "fingerprint.pb", "keras_metadata.pb", ".hidden", "m-00001-of-00003"),
    *("n.index", "n.data-00000-of-00001", "e/m.index", "e/m.data-00000-of-00002", "~/m.index"),
)
_PATHS = ("d", "d/m", "d/m-?????-of-00002", "d/m*", "d/variables", "d/none", "")

_SETS = (
    "m.index i|m.data-00000-of-00002 0|m.data-00001-of-00002 1|checkpoint c",
    "m.index i|m.data-00000-of-00002 0|checkpoint C",
    "m.data-00000-of-00002 0|m.data-00001-of-00002 1",
    "m-00000-of-00002 v|m-00001-of-00002 w|checkpoint n",
    "m-00000-of-00002 v",
    "m-00001-of-00002 w|checkpoint n|m.meta m",
    "m-00000-of-00002 v|m-00001-of-00002 v|m-00000-of-00003 w|m-00001-of-00003 v",
    "m-00000-of-00002 v|m-00001-of-00002 x",
    "m-00000-of-00002 e|m-00001-of-00002 z|m.tempstate12 v",
    "m-00000-of-00002.tempstate99 v|m.index.tempstate123 i|m.data-00000-of-00002 0",
    "m v|m.meta m|checkpoint c",
    "m x|checkpoint c|m.meta m",
    "m (1).index i|m (1).data-00000-of-00002 0|m.data-00001-of-00002 1",
    "m.index i|m.data-00000-of-00002 (1) 0|m.data-00001-of-00002 1",
    "m.index h|m.data-00000-of-00002 l|checkpoint x",
    "m.index z|m.data-00000-of-00002 0",
    "m.index k|m.data-00000-of-00002 0|m.data-00001-of-00002 1",
    "saved_model.pb p|variables/variables.index i|variables/variables.data-00000-of-00002 0",
    "variables/variables.index i|variables/variables.data-00000-of-00002 0",
    "variables.index i|variables/variables.data-00001-of-00002 1",
    "saved_model.pb p|variables.index i|assets/words.txt x|fingerprint.pb x|keras_metadata.pb x",
    "saved_model.pb x|variables/variables.index k|tfhub_module.pb x",
    "saved_model.pb p|saved_model.pbtxt x|saved_model.cpb x",
    "saved_model.pbtxt x|variables/checkpoint c",
    "saved_model.cpb x|tfhub_module.pb e",
    "m_temp/part-00000-of-00001.index i|m_temp/part-00000-of-00001.data-00000-of-00001 0",
    "m_temp_abc/part-00000-of-00002.index i|m.data-00000-of-00002 0|checkpoint c",
    "m-100.index i|n.index i|n.data-00000-of-00001 0|m.index i|checkpoint x",
    "e/m.index i|e/m.data-00000-of-00002 0|checkpoint N",
    "a.zip Z|g.pb g|checkpoint e",
    "a.zip t|~/m.index i|.hidden x|m.index/x x",
    "g.pb g",
    "m-00000-of-00002 v|m-00001-of-00002 w|m.index i|m.data-00000-of-00002 0",
)


def run_place(data: bytes) -> None:
    """Ask about some paths, and hold the answers to each other."""
    store: dict[str, bytes] = {}
    for line in data.decode("utf-8", "replace").split("\n")[:_MOST]:
        name, _, letter = line.rpartition(" ")
        if name and letter in contents():
            store[f"d/{name}"] = contents()[letter]
    rng = random.Random(zlib.crc32(data))
    paths = (*_PATHS, *store)
    for path in rng.sample(paths, min(_ASKED, len(paths))):
        ask(path, store)
    call = rng.choice(_OF_DIRECTORIES)
    for directory in ("d", "d/variables"):
        attempt(call, directory, store=store, limits=LIMITS)
    if rng.randrange(2):
        attempt(ckptparse.recover, rng.choice(("d", "d/m")), store=store, limits=LIMITS)


_OF_DIRECTORIES: tuple[Callable[..., object], ...] = (
    ckptparse.latest_checkpoint,
    ckptparse.checkpoint_state,
    tf.train.latest_checkpoint,
    ckptparse.open_saved_model,
)


def ask(path: str, store: dict[str, bytes]) -> None:
    """Read, verify and identify what lies at one path."""
    read = attempt(ckptparse.read, path, store=store, limits=LIMITS)
    report = attempt(ckptparse.verify, path, store=store, limits=LIMITS)
    found = attempt(ckptparse.identify, path, store=store, limits=LIMITS)
    if isinstance(found, ckptparse.Identity):
        check_printable(f"{found} {found.described}")
    if isinstance(report, ckptparse.Report):
        check_printable(str(report))
        lost = isinstance(read, ckptparse.CheckpointError)
        if lost and report.ok and isinstance(read, ckptparse.DataLossError):
            raise BrokenPromiseError(f"{path!r}: {read!r}, and verify says that all is well")
        if isinstance(read, dict) and not set(read) <= set(report.tensors):
            raise BrokenPromiseError(
                f"{path!r}: read gives {list(read)}, and verify {list(report.tensors)}"
            )
    elif isinstance(read, dict):
        raise BrokenPromiseError(f"{path!r}: read gives {list(read)}, and verify {report!r}")
    attempt(ckptparse.parts, path, store=store, limits=LIMITS)


def place_seeds() -> Iterator[bytes]:
    """Give directories of some files each, whole and with one of them less."""
    for number, files in enumerate(_SETS):
        lines = files.split("|")
        yield "\n".join(lines).encode()
        if len(lines) > 1:
            del lines[number % len(lines)]
            yield "\n".join(lines).encode()


def mutate_place(data: bytes, rng: random.Random) -> bytes:
    """Add, drop or change a file, or its name."""
    lines = data.decode("utf-8", "replace").split("\n")
    kind, place = rng.randrange(5), rng.randrange(len(lines))
    letter = rng.choice(sorted(contents()))
    if kind == 0:
        lines.insert(place, f"{rng.choice(NAMES)} {letter}")
    elif kind == 1:
        lines[place] = f"{lines[place].rpartition(' ')[0]} {letter}"
    elif kind == 2:
        lines[place] = f"{rng.choice(NAMES)} {lines[place].rpartition(' ')[2]}"
    elif kind == 3:
        del lines[place]
    else:
        return mutators.blind(data, rng)
    return "\n".join(lines).encode("utf-8", "replace")


TARGETS = [Target("place", run_place, place_seeds, mutate_place)]
