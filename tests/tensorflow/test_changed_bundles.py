"""Bundles that were changed at random, checksums repaired: TensorFlow reads them, and we do.

What both read is the same, byte for byte. What only one of them reads has a reason that is listed
here. TensorFlow reads each in a process of its own, since some changes end its
process. 250 bundles; CKPTPARSE_CHANGED_BUNDLES says otherwise, and CKPTPARSE_CHANGED_SEED which.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import builder as b
import numpy as np
import pytest

import ckptparse

ROOT = Path(__file__).resolve().parents[2]
if not (ROOT / "fuzz").is_dir():
    pytest.skip("fuzz/ is not part of what is unpacked here", allow_module_level=True)
sys.path.insert(0, str(ROOT))

from fuzz import mutators, seeds  # noqa: E402
from fuzz.oracle import LIMITS, attempt  # noqa: E402
from fuzz.packing import unpack  # noqa: E402

COUNT = int(os.environ.get("CKPTPARSE_CHANGED_BUNDLES", "250"))
SEED = os.environ.get("CKPTPARSE_CHANGED_SEED", "1")

MASKS = {str(kind): mask for kind, mask in b.SUB_BYTE_MASKS.items()}
"""Which bits of an element of less than a byte mean something, by the number of its kind."""

OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
STRICTER = {
    "index.block": "TensorFlow takes the part of a block before a bad entry for the whole of it",
    "index.entry": "TensorFlow looks at an entry only when its tensor is read",
    "index.header": "TensorFlow checks neither the first key nor the number of shards",
    "index.index_block": "TensorFlow lists fewer tensors if its keys are not in order",
    "index.order": "TensorFlow lists fewer tensors if keys are not in order",
}
"""Why nothing is read of a bundle that TensorFlow opens, by what `verify` finds in it
(docs/format.md, sections 1.5, 2.2 and 9.1)."""
STRICTER_TENSORS = {"slice.layout": "TensorFlow takes the bytes of a slice of another shape"}
"""Why a tensor is not read that TensorFlow reads."""
LOOSER = {
    "UnicodeDecodeError": "names that are no UTF-8 are names, too",
    "does not correspond to a valid tensorflow::DataType": "other tensors are read",
    "not convertible to numpy dtype": "variants are read",
    r"Dtype \w+ not supported": "slices of every kind are put together",
}
"""Why TensorFlow does not read what we do, by its message (sections 2.4 and 2.7)."""

READER = """
import hashlib, json, os, resource, sys
import numpy as np
import tensorflow as tf

def say(**what):
    print(json.dumps(what), flush=True)

def value_of(reader, name, kind):
    array = reader.get_tensor(name)
    if isinstance(array, bytes):
        return [], hashlib.sha256(repr([array]).encode()).hexdigest()
    if array.dtype == object:
        raw = repr(array.reshape(-1).tolist()).encode()
    else:
        data = np.frombuffer(array.tobytes(), np.uint8)
        raw = (data != 0 if array.dtype == bool else data & masks.get(str(kind), 255)).tobytes()
    return list(array.shape), hashlib.sha256(raw).hexdigest()

def read(prefix):
    try:
        reader = tf.train.load_checkpoint(prefix)
        kinds = reader.get_variable_to_dtype_map()
    except Exception as error:
        return say(refused=f"{type(error).__name__}: {error}"[:300])
    for name, kind in kinds.items():
        say(tensor=name, kind=kind.as_datatype_enum)
        try:
            shape, digest = value_of(reader, name, kind.as_datatype_enum)
        except Exception as error:
            say(error=f"{type(error).__name__}: {error}"[:300])
        else:
            say(shape=shape, digest=digest)

resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
folder, count, masks = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])
for number in range(count):
    say(begin=number)
    child = os.fork()
    if not child:
        resource.setrlimit(resource.RLIMIT_CPU, (20, 20))
        used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + (2 << 30),) * 2)
        read(f"{folder}/{number}/m")
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        say(ended=True)
"""


@dataclass
class Reading:
    """What TensorFlow said of one bundle.

    Attributes:
        refused: Why it opened none of it; None if it did.
        ended: Whether its process ended.
        values: Of each tensor its kind, and the shape and the digest of its bytes, or an error, or
            neither if the process ended then.
    """

    refused: str | None = None
    ended: bool = False
    values: dict[str, dict[str, Any]] = field(default_factory=dict)


def write_changed(folder: Path) -> None:
    """Write bundles that were changed."""
    rng = random.Random(SEED)
    originals = list(seeds.bundles())
    for number in range(COUNT):
        data = rng.choice(originals)
        for _ in range(rng.choice((1, 1, 2))):
            data = mutators.bundle(data, rng)
        index, *shards = unpack(data, 3)
        shards = [shard for shard in shards if shard] or [b""]
        here = folder / str(number)
        here.mkdir()
        (here / "m.index").write_bytes(index)
        for place, shard in enumerate(shards):
            (here / f"m.data-{place:05}-of-{len(shards):05}").write_bytes(shard)


def read_by_tensorflow(folder: Path) -> list[Reading]:
    """Let TensorFlow read all of them, each in a process of its own."""
    command = [sys.executable, "-c", READER, str(folder), str(COUNT), json.dumps(MASKS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stderr[-2000:]
    found: list[Reading] = []
    value: dict[str, Any] = {}
    for said in map(json.loads, done.stdout.splitlines()):
        if "begin" in said:
            found.append(Reading())
        elif "tensor" in said:
            value = found[-1].values[said["tensor"]] = {"kind": said["kind"]}
        elif "refused" in said:
            found[-1].refused = said["refused"]
        elif "ended" in said:
            found[-1].ended = True
        else:
            value.update(said)
    assert len(found) == COUNT
    return found


def digest_of(array: np.ndarray[Any, Any], kind: int) -> str:
    """Make the digest that the other process makes of the same elements."""
    if array.dtype == object:
        return hashlib.sha256(repr(array.reshape(-1).tolist()).encode()).hexdigest()
    data = np.frombuffer(array.tobytes(), np.uint8)
    # Any byte but zero is True, and what TensorFlow keeps of it says nothing.
    plain = data != 0 if array.dtype == bool else data & MASKS.get(str(kind), 255)
    return hashlib.sha256(plain.tobytes()).hexdigest()


class Comparison:
    """What TensorFlow and we say of one bundle.

    Attributes:
        equal: How many tensors both read, and the same bytes.
        wrong: What differs for no reason that is listed.
    """

    def __init__(self, prefix: Path, theirs: Reading) -> None:
        self.equal = 0
        self.wrong: list[str] = []
        self._prefix, self._theirs = prefix, theirs
        self._report = attempt(ckptparse.verify, prefix, limits=LIMITS)
        self._codes = {
            problem.code
            for problem in getattr(self._report, "problems", ())
            if problem.severity == ckptparse.Severity.ERROR
        }

    def run(self) -> None:
        """Compare what `open` gives, and what `recover` proves."""
        opened = attempt(read_all, self._prefix)
        if isinstance(opened, ckptparse.CheckpointError):
            if self._theirs.values and not self._codes & STRICTER.keys():
                self._note(f"TensorFlow opens it, and we: {opened!r}")
        elif self._theirs.refused is not None:
            if not may_be_looser(self._theirs.refused):
                self._note(f"TensorFlow says {self._theirs.refused}, and we read {list(opened)}")
        else:
            self._compare_all(opened)
        self._compare_recovered()

    def _compare_all(self, opened: dict[str, Any]) -> None:
        # A graph that is no message is none, and no tensor either.
        listed = self._theirs.values.keys() - ({OBJECT_GRAPH} - opened.keys())
        if not self._theirs.ended and opened.keys() != listed:
            self._note(f"TensorFlow lists {sorted(listed)}, and we {sorted(opened)}")
        for name, said in self._theirs.values.items():
            if name in opened:
                self._compare(name, said, opened[name])

    def _compare(self, name: str, said: dict[str, Any], ours: Any) -> None:
        refused = isinstance(ours, ckptparse.CheckpointError)
        if "digest" in said and not refused:
            self._compare_values(name, said, ours)
        elif "digest" in said and not self._codes & STRICTER_TENSORS.keys():
            self._note(f"TensorFlow reads {name!r}, and we: {ours!r}")
        elif "error" in said and not refused and not may_be_looser(said["error"]):
            self._note(f"TensorFlow says of {name!r} {said['error']}, and we read it")

    def _compare_values(self, name: str, said: dict[str, Any], ours: Any) -> None:
        if list(ours.shape) != said["shape"] or digest_of(ours, said["kind"]) != said["digest"]:
            self._note(f"{name!r} is another value: {said}, and we read {ours!r}")
        else:
            self.equal += 1

    def _compare_recovered(self) -> None:
        """Hold what is proved to what TensorFlow reads, if it reads it rightly."""
        recovery = attempt(ckptparse.recover, self._prefix, limits=LIMITS)
        if isinstance(recovery, ckptparse.CheckpointError) or self._codes & STRICTER_TENSORS.keys():
            return
        for name, tensor in recovery.items():
            said = self._theirs.values.get(name, {})
            if tensor.status.proved and "digest" in said:
                self._compare_values(name, said, tensor.read())

    def _note(self, text: str) -> None:
        self.wrong.append(f"{self._prefix.parent.name}: {text}; {sorted(self._codes)}")


def read_all(prefix: Path) -> dict[str, Any]:
    """Read every tensor, the object graph among them; one that cannot be read is its error."""
    with ckptparse.open(prefix, limits=LIMITS) as checkpoint:
        found = {name: attempt(tensor.read) for name, tensor in checkpoint.items()}
        graph = attempt(getattr, checkpoint, "object_graph")
    if isinstance(graph, ckptparse.ObjectGraph):
        found[OBJECT_GRAPH] = np.array(graph.serialized, object)
    return found


def may_be_looser(message: str) -> bool:
    return any(re.search(pattern, message) for pattern in LOOSER)


def test_what_tensorflow_reads_of_changed_bundles_we_read_and_the_same(tmp_path: Path) -> None:
    write_changed(tmp_path)
    equal, wrong = 0, []
    for number, reading in enumerate(read_by_tensorflow(tmp_path)):
        one = Comparison(tmp_path / str(number) / "m", reading)
        one.run()
        equal += one.equal
        wrong += one.wrong
    assert not wrong, "\n".join(wrong)
    assert equal > COUNT, "hardly anything was compared"
