"""Sliced tensors, and bundles of several shards.

Beside the whole tensors stand the slices as they were written, in `parts`: `slice` as SaveV2 took
it, `extents` as (start, length) with (0, -1) for a whole dimension, and the slice's own values. A
tensor that cannot be put together stands in `broken` instead, with the reason.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fixture_cases import bundles
from fixture_cases.bundles import Part
from fixture_cases.common import EVERY_VERSION, Output, case, tf, tf1
from fixture_cases.saver import relative_state


def numbers(*shape: int, dtype: str = "float32") -> np.ndarray:
    """Return 0, 1, 2 ... in a shape: every element tells where it belongs."""
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


@case(
    "slices/columns",
    "A [5, 10] tensor stored as column 0 and columns 1 to 9, beside a whole one.",
    checklist=(41, 42),
    versions=EVERY_VERSION,
)
def columns(out: Output) -> None:
    foo = numbers(5, 10)
    parts = [Part("foo", "float32", foo, cut) for cut in ("-:0,1", "-:1,9")]
    bar = np.array([1.5, 2.5], np.float32)
    tf.raw_ops.SaveV2(
        prefix=out.path("model"),
        tensor_names=["foo", "bar", "foo"],
        shape_and_slices=[parts[0].spec, "", parts[1].spec],
        tensors=[parts[0].data, bar, parts[1].data],
    )
    described = [part.describe() for part in parts]
    out.written_checkpoint(
        "model", {"foo": ("float32", foo), "bar": ("float32", bar)}, parts=described
    )


@case(
    "slices/every_dtype",
    "A [3, 4] tensor of every kind that SaveV2 writes, in three slices stored in another order "
    "than their rows'. TensorFlow puts only some kinds together.",
    checklist=(49,),
)
def every_dtype(out: Output) -> None:
    rng = out.random()
    parts = []
    for dtype in (*bundles.NUMERIC, "string"):
        value = bundles.sample(dtype, (3, 4), rng)
        cuts = ("2,1:-", "0,2:0,3", "0,2:3,1")
        parts += [Part(f"w/{dtype}", dtype, value, cut) for cut in cuts]
    bundles.save_sliced(out, "model", parts)


@case(
    "slices/full_extents",
    "The two notations of a whole dimension: `-` and `0,10`. A slice that covers everything is "
    "stored as a plain tensor in either.",
    checklist=(43,),
)
def full_extents(out: Output) -> None:
    whole = numbers(5, 10, dtype="int32")
    parts = [
        Part("all_implicit", "int32", whole, "-:-"),
        Part("all_explicit", "int32", whole, "0,5:0,10"),
        Part("rows_implicit", "int32", whole, "0,2:-"),
        Part("rows_implicit", "int32", whole, "2,3:-"),
        Part("rows_explicit", "int32", whole, "0,2:0,10"),
        Part("rows_explicit", "int32", whole, "2,3:0,10"),
        Part("mixed", "int32", whole, "0,2:0,10"),
        Part("mixed", "int32", whole, "2,3:-"),
    ]
    bundles.save_sliced(out, "model", parts)


@case(
    "slices/ranks",
    "Slices of tensors of rank 1 to 9, cut in every dimension. TensorFlow stops at rank 8.",
)
def ranks(out: Output) -> None:
    parts = []
    for rank in range(1, 10):
        whole = numbers(3, *([2] * (rank - 1)), dtype="int16")
        rest = ":-" * (rank - 1)
        name = f"rank{rank}"
        parts.append(Part(name, "int16", whole, "0,1" + rest))
        if rank == 1:
            parts.append(Part(name, "int16", whole, "1,2"))
            continue
        middle = ":-" * (rank - 2)
        parts.append(Part(name, "int16", whole, f"1,2{middle}:0,1"))
        parts.append(Part(name, "int16", whole, f"1,2{middle}:1,1"))
    save_unchecked(out, "model", parts)


def save_unchecked(out: Output, prefix: str, parts: Sequence[Part], **facts: object) -> None:
    """Write slices that would stop TensorFlow if it were asked to read them."""
    bundles.save_parts(out.path(prefix), parts)
    described = [part.describe() for part in parts]
    out.written_checkpoint(prefix, bundles.wholes(parts), check=False, parts=described, **facts)


@case(
    "slices/strings",
    "A string matrix in four slices, some with empty strings. TensorFlow cannot put it together.",
    checklist=(49,),
)
def strings(out: Output) -> None:
    whole = np.array(
        [[b"a", b"", b"ccc"], [b"\x00", b"\xff\xfe", b""], [b"row", b"x" * 200, b"end"]], object
    )
    cuts = ("0,1:-", "1,1:0,2", "1,1:2,1", "2,1:-")
    bundles.save_sliced(out, "model", [Part("words", "string", whole, cut) for cut in cuts])


@case(
    "slices/names_to_escape",
    "Sliced tensors whose names hold the bytes 00 and ff, which the keys of slices escape.",
    checklist=(45,),
)
def names_to_escape(out: Output) -> None:
    whole = numbers(4, 2, dtype="uint8")
    names = (b"f\x00o\xffo", b"\xff\xff", b"\x00", "имя".encode(), b"plain")
    parts = [Part(name, "uint8", whole, cut) for name in names for cut in ("0,1:-", "1,3:-")]
    bundles.save_sliced(out, "model", parts)


@case(
    "slices/many_starts",
    "A vector of which only single elements are stored, at starts whose codes take one to ten "
    "bytes: 0, 1, 63, 64, 8191, 8192, 2**20, 2**48 - 1, 2**48, 2**55, 2**62, 2**63 - 2.",
    checklist=(46, 48),
)
def many_starts(out: Output) -> None:
    starts = (0, 1, 63, 64, 8191, 8192, 2**20, 2**48 - 1, 2**48, 2**55, 2**62, 2**63 - 2)
    size = 2**63 - 1
    data = [np.array([i], np.uint8) for i in range(len(starts))]
    specs = [f"{size} {start},1" for start in starts]
    tf.raw_ops.SaveV2(
        prefix=out.path("model"),
        tensor_names=["far"] * len(starts),
        shape_and_slices=specs,
        tensors=data,
    )
    parts = []
    for start, value in zip(starts, data, strict=True):
        row = Part("far", "uint8", value, "-").describe()
        parts.append({**row, "slice": f"{start},1", "extents": [[start, 1]]})
    broken = {"far": {"shape": [size], "dtype": "uint8", "why": "hole"}}
    out.written_checkpoint("model", {}, parts=parts, broken=broken)


@case(
    "slices/hole",
    "A [5, 4] tensor of which row 2 was never stored, beside a whole one.",
    checklist=(48,),
)
def hole(out: Output) -> None:
    whole = numbers(5, 4)
    save_broken(out, [Part("holed", "float32", whole, cut) for cut in ("0,2:-", "3,2:-")], "hole")


@case(
    "slices/overlapping",
    "A [5, 4] tensor whose two slices both hold row 2: the writer takes it, the reader must not.",
    checklist=(47,),
)
def overlapping(out: Output) -> None:
    whole = numbers(5, 4)
    parts = [Part("double", "float32", whole, cut) for cut in ("0,3:-", "2,3:-")]
    save_broken(out, parts, "overlap")


def save_broken(out: Output, parts: Sequence[Part], why: str) -> None:
    """Write slices that make no whole, beside a tensor that is well."""
    well = Part("well", "float32", numbers(2, 2), "-:-")
    bundles.save_parts(out.path("model"), [*parts, well])
    name, shape = parts[0].name, list(np.shape(parts[0].value))
    out.written_checkpoint(
        "model",
        bundles.wholes([well]),
        parts=[part.describe() for part in parts],
        broken={name: {"shape": shape, "dtype": parts[0].dtype, "why": why}},
    )


@case(
    "slices/partitioned_variable",
    "A variable in ten row parts, one in three column parts and a whole one, by a TF1 partitioner.",
    checklist=(50, 89),
    versions=EVERY_VERSION,
)
def partitioned_variable(out: Output) -> None:
    rows, cols = numbers(20, 3), numbers(2, 7, dtype="float64")
    with tf1.Graph().as_default(), tf1.Session() as session:
        for name, value, parts, axis in (("rows", rows, 10, 0), ("model/cols", cols, 3, 1)):
            tf1.get_variable(
                name,
                shape=value.shape,
                dtype=value.dtype,
                partitioner=tf1.fixed_size_partitioner(parts, axis),
                initializer=initializer_from(value),
                use_resource=False,
            )
        tf1.get_variable("whole", initializer=np.float32(3))
        session.run(tf1.global_variables_initializer())
        tf1.train.Saver().save(session, out.path("model.ckpt"))
    out.checkpoint("model.ckpt", {"rows": rows, "model/cols": cols, "whole": np.float32(3)})
    relative_state(out)
    out.state()


def initializer_from(value: np.ndarray) -> object:
    """Return an initializer that cuts its part out of `value`."""

    def initialize(shape: list[int], dtype: object = None, partition_info: object = None) -> object:
        starts = partition_info.var_offset if partition_info else [0] * len(shape)
        cut = tuple(slice(start, start + size) for start, size in zip(starts, shape, strict=True))
        return tf.constant(value[cut], dtype)

    return initialize


@case(
    "shards/sharded_saver",
    "A sharded TF1 Saver over three CPU devices: three data files, and a variable whose parts lie "
    "in two of them.",
    checklist=(51, 93),
)
def sharded_saver(out: Output) -> None:
    split = numbers(6, 2)
    values = {f"w{i}": numbers(2, 3) + 10 * i for i in range(4)}
    config = tf1.ConfigProto(device_count={"CPU": 3})
    with tf1.Graph().as_default(), tf1.Session(config=config) as session:
        for i, (name, value) in enumerate(values.items()):
            with tf.device(f"/cpu:{i % 3}"):
                tf1.get_variable(name, initializer=value)
        devices = iter(("/cpu:2", "/cpu:0", "/cpu:2"))
        with tf1.device(lambda op: next(devices) if op.type.startswith("Variable") else None):
            tf1.get_variable(
                "split",
                shape=split.shape,
                partitioner=tf1.fixed_size_partitioner(3),
                initializer=initializer_from(split),
                use_resource=False,
            )
        session.run(tf1.global_variables_initializer())
        tf1.train.Saver(sharded=True).save(session, out.path("model.ckpt"), global_step=7)
    out.checkpoint("model.ckpt-7", {**values, "split": split}, shards=3)
    relative_state(out)
    out.state()


@case(
    "shards/merged",
    "Three bundles merged into one of three shards: slices of one tensor come from all of them, in "
    "merge order, and a string tensor lies in the last.",
    checklist=(18, 24, 51),
)
def merged(out: Output) -> None:
    whole = numbers(5, 4, dtype="int64")
    parts = [Part("split", "int64", whole, cut) for cut in ("3,2:-", "0,1:-", "1,2:-")]
    plain = {"b": ("float32", numbers(3)), "a": ("int8", numbers(4, dtype="int8"))}
    words = ("string", np.array([b"one", b"", b"three"], object))
    for number, part in enumerate(parts):
        tensors = [plain["ba"[number]]] if number < 2 else [words]
        names = [*("ba"[number:] if number < 2 else ("words",))][:1]
        tf.raw_ops.SaveV2(
            prefix=out.path(f"part{number}"),
            tensor_names=[*names, "split"],
            shape_and_slices=["", part.spec],
            tensors=[bundles.to_tensor(*tensors[0]), part.data],
        )
    tf.raw_ops.MergeV2Checkpoints(
        checkpoint_prefixes=[out.path(f"part{number}") for number in range(3)],
        destination_prefix=out.path("merged"),
    )
    out.written_checkpoint(
        "merged",
        {**plain, "words": words, "split": ("int64", whole)},
        parts=[part.describe() for part in parts],
        shards=3,
    )


@case(
    "shards/max_size",
    "tf.train.Checkpoint with MaxShardSizePolicy of 64 bytes: a [10, 4] variable is cut by rows "
    "into three shards, with explicit extents in both dimensions.",
    checklist=(112,),
)
def max_size(out: Output) -> None:
    checkpoint = tf.train.Checkpoint(
        big=tf.Variable(numbers(10, 4)), small=tf.Variable([1, 2], dtype=tf.int32)
    )
    options = tf.train.CheckpointOptions(
        experimental_sharding_callback=tf.train.experimental.MaxShardSizePolicy(64)
    )
    checkpoint.write(out.path("model"), options=options)
    shards = len(list(out.root.glob("model.data-*")))
    key = "{}/.ATTRIBUTES/VARIABLE_VALUE".format
    values = {key("big"): numbers(10, 4), key("small"): np.array([1, 2], np.int32)}
    out.checkpoint("model", values, shards=shards)


@case(
    "names/odd",
    "Names that are not plain: non-ASCII, spaces, brackets, dots, `..`, line breaks, quotes, "
    "escape codes, `:0`, `.index`, a slash alone, one of 3,000 bytes, pairs that sort by bytes.",
)
def odd(out: Output) -> None:
    names: list[str] = [
        *("a", "a/b", "aa", "A", "é", "naïve/ключ", "变量/权重", "\U0001f9ca", "\x7f"),
        *("w:0", "w"),
        *(
            " ",
            " lead",
            "trail ",
            "a b",
            "[0]",
            "{x}",
            "(y)",
            "<z>",
            "a,b",
            "a=b",
            "a&b",
            "%s",
            "$x",
        ),
        *(".", "..", "../../x", "/", "/abs", "a//b", "a/"),
        *("x.index", "x.data-00000-of-00001"),
        *("new\nline", "tab\t", "cr\r", "bell\x07", "\x1b[31mred"),
        *("'q'", '"qq"', "`b`", "back\\"),
        *("*", "?", "a.b.c", "-", "--flag", "None", "0", "layer/.ATTRIBUTES/VARIABLE_VALUE"),
        *("long/" * 600, "e\u0301", "\u202ertl", "nul\x00inside"),
    ]
    values = {name: np.int32(number) for number, name in enumerate(names)}
    bundles.save(out.path("model"), {name: ("int32", value) for name, value in values.items()})
    out.checkpoint("model", values)


@case(
    "names/not_utf8",
    "Names that are not UTF-8, which TensorFlow's Python listing cannot return: they come as "
    "surrogate escapes.",
)
def not_utf8(out: Output) -> None:
    names = (b"\xff", b"\xff\xff", b"caf\xe9/kernel", b"\x80", b"\x00\xff", b"\xed\xa0\x80", b"ok")
    tensors = {name: ("int32", np.int32(number)) for number, name in enumerate(names)}
    bundles.save(out.path("model"), tensors)
    out.written_checkpoint("model", tensors)


PREFIXES = (
    "model.ckpt",
    "model.ckpt-1.5",
    "with space",
    "a.index",
    "x.data-00000-of-00001",
    "brackets[0-9]",
    "naïve-ключ",
    "-dash",
    "checkpoint",
    "nested/",
    "dir[1]/model",
)


@case(
    "names/prefixes",
    "Prefixes that are not plain: dots, a space, `.index` and `.data-...` in the name, brackets in "
    "file and directory names, non-ASCII, `checkpoint`, and an empty base name.",
    checklist=(83,),
)
def prefixes(out: Output) -> None:
    for number, prefix in enumerate(PREFIXES):
        tensors = {"w": ("int32", np.array([number, -number], np.int32))}
        bundles.save(out.path(prefix), tensors)
        out.written_checkpoint(prefix, tensors)


@case(
    "table/several_blocks",
    "An index of more than one data block: 140 scalars with names of 1,900 bytes, in which no "
    "prefix is shared. Its names and values are given by a rule.",
    checklist=(11,),
)
def several_blocks(out: Output) -> None:
    count, suffix = 140, "/" + "long name " * 190
    tensors = {f"{i:03d}{suffix}": ("int32", np.int32(i * i)) for i in range(count)}
    bundles.save(out.path("model"), tensors)
    for name, (_, value) in tensors.items():
        if tf.train.load_variable(out.path("model"), name) != value:
            raise RuntimeError(name)
    rule = {"name": "{i:03d}/" + "long name " * 190, "count": count, "value": "i * i"}
    rule = {**rule, "dtype": "int32", "shape": []}
    out.add_checkpoint({"prefix": "model", "format": "v2", "tensors": [], "rule": rule}, {})
