"""Recovery of a data file alone: its names and shapes come from a file of another kind."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ckptparse
from fuzz import mutators, seeds
from fuzz.oracle import LIMITS, BrokenPromiseError, attempt, check_printable
from fuzz.packing import pack, unpack
from fuzz.targets.target import Target

__all__ = ["TARGETS"]

NAMES = (
    "e/model.meta",
    "e/saved_model.pb",
    "e/keras_metadata.pb",
    "e/shapes.json",
    "e/model.index",
    "e/model.keras",
)
"""What the file that knows may be: its ending tells what it is taken for."""
_SHAPES = (3, 5)
"""Those that are given as shapes, not as evidence."""
_LARGEST = 40_000
ALONE = seeds.FIXTURES / "objects" / "keras2_dense_layers" / "weights.data-00000-of-00001"
"""Dense layers that were trained: what is left in their slots tells their sizes."""


def _layers() -> Iterator[dict[str, Any]]:
    """Give a layer of each kind that has weights, as Keras describes it."""
    window = {"kernel_size": [3, 3], "filters": 4}
    kinds: tuple[tuple[str, dict[str, Any], list[int]], ...] = (
        ("Dense", {"units": 3}, [5]),
        ("Conv2D", {**window, "groups": 1}, [8, 8, 2]),
        ("Conv2DTranspose", window, [8, 8, 2]),
        ("DepthwiseConv2D", {"kernel_size": 3, "depth_multiplier": 2}, [8, 8, 2]),
        ("SeparableConv2D", {**window, "data_format": "channels_first"}, [2, 8, 8]),
        ("LayerNormalization", {"axis": [1, 2]}, [4, 5]),
        ("BatchNormalization", {"axis": [2], "scale": False}, [4, 5]),
        ("GroupNormalization", {"axis": -1}, [4, 6]),
        ("LSTM", {"units": 3}, [7, 5]),
        ("GRU", {"units": 3, "reset_after": True}, [7, 5]),
        ("SimpleRNN", {"units": 3, "use_bias": False}, [7, 5]),
        ("ConvLSTM2D", window, [4, 8, 8, 2]),
        (
            "EinsumDense",
            {"equation": "abc,cd->abd", "output_shape": [4, 3], "bias_axes": "d"},
            [4, 5],
        ),
        ("EinsumDense", {"equation": "...x,xy->...y", "output_shape": 3}, [4, 5]),
        ("PReLU", {"shared_axes": [1]}, [4, 5]),
        ("Normalization", {"axis": -1}, [4]),
        ("Embedding", {"input_dim": 9, "output_dim": 3}, [4]),
        ("MultiHeadAttention", {"num_heads": 2, "key_dim": 3}, [4, 5]),
        ("Flatten", {}, [4, 5]),
        ("NoSuchLayer", {}, [4]),
    )
    for kind, config, shape in kinds:
        built = {"input_shape": [None, *shape]}
        named = {"name": kind.lower(), "dtype": "float32", **config}
        yield {"class_name": kind, "config": named, "build_config": built}


def _models() -> list[dict[str, Any]]:
    """Give models of these layers: each alone, all in a chain, and one in another."""
    layers = list(_layers())
    chain = {"class_name": "Sequential", "config": {"name": "s", "layers": layers[:-1]}}
    first = {"class_name": "InputLayer", "config": {"name": "i", "batch_input_shape": [None, 5]}}
    plain = [{"class_name": "Dense", "config": {"name": f"d{n}", "units": 3}} for n in (0, 1)]
    old = {"class_name": "Sequential", "config": {"layers": [first, *plain, layers[0]]}}
    models = [{"class_name": "Sequential", "config": {"layers": [one]}} for one in layers]
    return [*models, chain, old, {"class_name": "Functional", "config": {"layers": [old, chain]}}]


KERAS = _models()


def run_rebuild(data: bytes) -> None:
    """Recover a data file without its index, alone or with another file; what is proved is read."""
    if not data:
        return
    number = data[0] % len(NAMES)
    shard, other = unpack(data[1:], 2)
    store = {"d/m.data-00000-of-00001": shard, NAMES[number]: other}
    options: dict[str, Any] = {"evidence": [NAMES[number]]} if other else {}
    if number in _SHAPES and other:
        options = {"shapes": NAMES[number]}
    found = attempt(ckptparse.recover, "d/m", store=store, limits=LIMITS, **options)
    if not isinstance(found, ckptparse.Recovery):
        return
    check_printable(str(found.report))
    for name, tensor in found.items():
        value = attempt(tensor.read)
        if tensor.status.proved and isinstance(value, ckptparse.CheckpointError):
            raise BrokenPromiseError(f"{name!r} is {tensor.status}, and: {value!r}")


def rebuild_seeds() -> Iterator[bytes]:
    """Give data files, each with every file that knows of it, and its shapes; and one alone."""
    number_of_config = 0
    yield bytes([0]) + pack([ALONE.read_bytes(), b""])
    for index in sorted(seeds.FIXTURES.rglob("*.index")):
        shard = index.with_name(index.name.replace(".index", ".data-00000-of-00001"))
        if not shard.is_file() or shard.stat().st_size > seeds.LARGEST:
            continue
        for number, path in _what_knows(index):
            if path.is_file() and path.stat().st_size <= _LARGEST:
                yield bytes([number]) + pack([shard.read_bytes(), path.read_bytes()])
        if not number_of_config % 3:
            text = json.dumps(KERAS[number_of_config // 3 % len(KERAS)])
            yield bytes([3]) + pack([shard.read_bytes(), text.encode()])
        number_of_config += 1
        shapes = attempt(ckptparse.list_variables, index)
        if isinstance(shapes, list):
            text = json.dumps({re.sub(r"[^ -~]", "?", name): shape for name, shape in shapes})
            yield bytes([3]) + pack([shard.read_bytes(), text.encode()])


def _what_knows(index: Path) -> Iterator[tuple[int, Path]]:
    yield 0, index.with_suffix(".meta")
    yield 1, index.parents[1] / "saved_model.pb"
    yield 2, index.parents[1] / "keras_metadata.pb"
    yield 4, index
    yield from ((5, path) for path in index.parent.glob("*.keras"))


def mutate_rebuild(data: bytes, rng: random.Random) -> bytes:
    """Change the data file, or the other one."""
    number = data[0] % len(NAMES) if data else 0
    shard, other = unpack(data[1:], 2)
    if not rng.randrange(3):
        shard = mutators.blind(shard, rng)
    elif NAMES[number].endswith(".json"):
        other = mutators.text(other, rng)
    elif NAMES[number].endswith(".index"):
        other = mutators.table(other, rng)
    else:
        other = mutators.message(other, rng)
    return bytes([number]) + pack([shard, other])


TARGETS = [Target("rebuild", run_rebuild, rebuild_seeds, mutate_rebuild)]
