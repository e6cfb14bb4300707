"""SavedModels: the message, and the chunked container."""

from __future__ import annotations

import json
import random
import zlib
from collections.abc import Iterator

import builder as b
import riegeli_builder as r

import ckptparse
from ckptparse.files.memory import MemorySource
from ckptparse.proto.saved_model_pb2 import SavedModel as SavedModelProto
from ckptparse.saved_model.chunked import read_chunked_message
from fuzz import mutators, seeds
from fuzz.graphs_built import keras_texts
from fuzz.oracle import LIMITS, attempt
from fuzz.packing import pack, unpack
from fuzz.targets.graphs import look_at_graph
from fuzz.targets.target import Target, look

__all__ = ["TARGETS"]


def run_saved_model(data: bytes) -> None:
    """Open a SavedModel, ask it for all that it tells, and verify it."""
    message, keras, fingerprint = unpack(data, 3)
    store = {"s/saved_model.pb": message}
    if keras:
        store["s/keras_metadata.pb"] = keras
    if fingerprint:
        store["s/fingerprint.pb"] = fingerprint
    model = attempt(ckptparse.open_saved_model, "s", store=store, limits=LIMITS)
    if isinstance(model, ckptparse.SavedModel):
        look_at_model(model)
    attempt(ckptparse.verify, "s", store=store, limits=LIMITS)


def look_at_model(model: ckptparse.SavedModel) -> None:
    """Ask a model for all that it tells."""
    with model:
        found = attempt(lambda: list(model.meta_graphs))
        for meta_graph in found if isinstance(found, list) else []:
            attempt(lambda one: dict(one.signatures), meta_graph)
            attempt(lambda one: look_at_graph(one.graph), meta_graph)
            look(meta_graph, "assets")
        look(model, "layers", "optimizers", "objects", "assets", "fingerprint", "keras_metadata")
        look(model, "effects", "step", "averages", "is_hub_module")
        attempt(lambda: str(model.tree(everything=True)))
        attempt(model._repr_html_)


def run_chunked(data: bytes) -> None:
    """Read a chunked container, its hashes verified or not."""
    source = MemorySource("s.cpb", data)
    verify = zlib.crc32(data) % 2 == 0
    attempt(read_chunked_message, SavedModelProto, source, limits=LIMITS, verify=verify)


def saved_model_seeds() -> Iterator[bytes]:
    """Give models, each with what lies beside it."""
    for path in sorted(seeds.FIXTURES.rglob("saved_model.pb")):
        if path.stat().st_size <= seeds.LARGEST:
            beside = [path.with_name(name) for name in ("keras_metadata.pb", "fingerprint.pb")]
            yield pack(
                [path.read_bytes(), *(f.read_bytes() if f.is_file() else b"" for f in beside)]
            )

    model = min(
        (path.read_bytes() for path in seeds.FIXTURES.rglob("saved_model.pb")), key=len, default=b""
    )
    for text in keras_texts():
        described = json.dumps(text).encode()
        node = b.field(2, 0) + b.field(3, b"root.layer") + b.field(4, b"_tf_keras_layer")
        yield pack([model, b.field(1, node + b.field(5, described)), b""])


def mutate_saved_model(data: bytes, rng: random.Random) -> bytes:
    """Change a message of a model."""
    files = unpack(data, 3)
    place = rng.choice([0, 0, 0, 1, 2])
    files[place] = mutators.message(files[place], rng)
    return pack(files)


CHUNKS = [
    (r.MESSAGE, r.field(1, 1) + r.field(2, r.field(2, r.field(1, r.field(1, b"n"))))),
    (r.BYTES, b"content"),
    (r.MESSAGE, r.field(1, b"name")),
]


def _plan(*tags: r.Tag, value: int = 1) -> bytes:
    return r.chunked_message(0, [r.chunked_field(tags, r.chunked_message(value))])


_IN_ATTRIBUTE: tuple[r.Tag, ...] = (2, "#0", 2, 1, "#0", 5, ("s", "value"))
"""SavedModel.meta_graphs[0].graph_def.node[0].attr["value"]."""
NUMBERS = [
    *((r.BYTES, text) for text in (b"7", b"-1", b"1.5", b"True", b"true", b"DT_FLOAT", b"x")),
    (r.BYTES, b"\xff"),
    (r.BYTES, b""),
]
"""Values that stand as text."""


def numbers_seeds() -> Iterator[bytes]:
    """Make containers in which numbers, flags and enumerations are chunks of their own."""
    places: tuple[tuple[r.Tag, ...], ...] = (
        (1,),
        (*_IN_ATTRIBUTE, 3),
        (*_IN_ATTRIBUTE, 4),
        (*_IN_ATTRIBUTE, 5),
        (*_IN_ATTRIBUTE, 6),
        (*_IN_ATTRIBUTE, 8, 1),
        (*_IN_ATTRIBUTE, 8, 5, "#0"),
        (*_IN_ATTRIBUTE, 1, 3, "#0"),
        (*_IN_ATTRIBUTE, 1, 3, "#5"),
        (*_IN_ATTRIBUTE, 1, 2, "#0"),
        (2, "#0", 2, 1, "#0", 5, ("i32", 3)),
        (2, "#0", 2, 1, "#0", 3, "#0"),
        (2, "#0", 2, 1, "#0", 3, "#3"),
        (2, "#9"),
        (99,),
        ("#1",),
        (2, 2),
        (1, ("s", "x")),
        (2, "#0", 1, 1),
        (2, "#0", 5, ("s", "key")),
    )
    for number in range(len(NUMBERS)):
        for place in places:
            chunks = [CHUNKS[0], NUMBERS[number]]
            yield r.chunked_file(chunks, _plan(*place), records_per_chunk=1)


PLANS = [
    r.chunked_message(0),
    r.chunked_message(0, [r.chunked_field([2, "#0", 2, 1, "#0"], r.chunked_message(2))]),
    r.chunked_message(
        0,
        [r.chunked_field([2, "#0", 2, 1, "#0", 5, ("s", "value"), 8, 4], r.chunked_message(1))],
    ),
]


def chunked_seeds() -> Iterator[bytes]:
    """Make containers of several plans, compressed or not."""
    yield from seeds.files("*.cpb")
    for plan in PLANS:
        for compression in ("none", "brotli", "zstd"):
            yield r.chunked_file(CHUNKS, plan, compression=compression)
    yield from numbers_seeds()
    yield from broken_seeds()


def broken_seeds() -> Iterator[bytes]:
    """Change a byte of what is compressed, the hashes right, or the kind of a chunk."""
    records = [body for _, body in CHUNKS]
    size = sum(map(len, records))
    for compression in ("none", "brotli", "zstd", "snappy"):
        whole = r.simple_chunk_data(records, compression)
        for place in range(0, len(whole), 4):
            data = whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :]
            made = r.RiegeliBuilder()
            made.add_chunk("r", data, num_records=len(records), decoded_size=size)
            yield bytes(made.data)
    for kind in "tpm?s":
        made = r.RiegeliBuilder()
        made.add_chunk(kind, whole, num_records=len(records), decoded_size=size + 1)
        yield bytes(made.data)


def mutate_chunked(data: bytes, rng: random.Random) -> bytes:
    """Build a container anew, its hashes right, of a plan and chunks that are changed."""
    if not rng.randrange(4):
        return mutators.blind(data, rng)
    plan = rng.choice(PLANS)
    for _ in range(rng.randint(0, 3)):
        plan = mutators.mutate_message(plan, rng)
    chunks = [
        (kind, mutators.mutate_message(body, rng) if not rng.randrange(3) else body)
        for kind, body in CHUNKS
    ]

    def infos(known: list[bytes]) -> list[bytes]:
        return [mutators.mutate_message(i, rng) if not rng.randrange(5) else i for i in known]

    compression = rng.choice(["none", "brotli", "zstd", "snappy"])
    return r.chunked_file(
        chunks,
        plan,
        compression=compression,
        records_per_chunk=rng.choice([None, 1, 2]),
        infos=infos,
    )


TARGETS = [
    Target("saved_model", run_saved_model, saved_model_seeds, mutate_saved_model),
    Target("chunked", run_chunked, chunked_seeds, mutate_chunked),
]
