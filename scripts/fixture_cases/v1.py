"""Checkpoints of the first format, V1: one table file, or one for each shard."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fixture_cases import bundles
from fixture_cases.bundles import Part
from fixture_cases.common import EVERY_VERSION, Name, Output, case, tf, tf1
from fixture_cases.dtypes import Tensors, bits
from fixture_cases.saver import relative_state
from fixture_cases.slices import initializer_from, numbers

INTEGERS = ("int32", "int16", "int8", "uint8", "uint16", "qint8", "quint8", "qint32", "int64")


def save(out: Output, filename: str, tensors: Tensors) -> None:
    """Write whole tensors into one V1 file and describe it."""
    tf.raw_ops.Save(
        filename=out.path(filename),
        tensor_names=list(tensors),
        data=[bundles.to_tensor(dtype, value) for dtype, value in tensors.values()],
    )
    out.written_checkpoint(filename, tensors, format="v1")


def save_slices(out: Output, filename: str, parts: Sequence[Part]) -> None:
    """Write slices into one V1 file."""
    tf.raw_ops.SaveSlices(
        filename=out.path(filename),
        tensor_names=[part.name for part in parts],
        shapes_and_slices=[part.spec for part in parts],
        data=[bundles.to_tensor(part.dtype, part.data) for part in parts],
    )


@case(
    "v1/unsharded",
    "Two steps by a Saver of version V1: a file without extension, `.meta` and state file; "
    "negative integers, a scalar and a partitioned variable.",
    checklist=(50, 71),
    versions=EVERY_VERSION,
)
def unsharded(out: Output) -> None:
    rng = out.random()
    parted = numbers(5, 2)
    steps: dict[int, Tensors] = {}
    with tf1.Graph().as_default(), tf1.Session() as session:
        weights = tf1.get_variable("scope/weights", shape=(3, 2), dtype=np.float32)
        tf1.get_variable("negative", initializer=np.int32([-1, -(2**31), 5]))
        tf1.get_variable(
            "parted",
            (5, 2),
            partitioner=tf1.fixed_size_partitioner(2),
            initializer=initializer_from(parted),
            use_resource=False,
        )
        step = tf1.train.get_or_create_global_step()
        session.run(tf1.global_variables_initializer())
        saver = tf1.train.Saver(write_version=tf1.train.SaverDef.V1)
        for number in (1, 2):
            values = {
                "scope/weights": rng.normal(size=(3, 2)).astype(np.float32),
                "negative": np.int32([-1, -(2**31), 5]),
                "global_step": np.int64(number),
                "parted": parted,
            }
            weights.load(values["scope/weights"], session)
            step.load(number, session)
            saver.save(session, out.path("model.ckpt"), global_step=step)
            steps[number] = {name: (value.dtype.name, value) for name, value in values.items()}
    for number, written in steps.items():
        out.written_checkpoint(f"model.ckpt-{number}", written, format="v1", step=number)
    relative_state(out)
    out.state()


@case(
    "v1/sharded",
    "A sharded Saver of version V1 over three devices: three files, a pattern in the state file, "
    "one `.meta` without the shard in its name, and a variable whose parts lie in two files.",
    checklist=(51, 62),
    versions=EVERY_VERSION,
)
def sharded(out: Output) -> None:
    split = numbers(4, 3)
    values = {f"w{i}": numbers(2, 2) + 10 * i for i in range(3)}
    config = tf1.ConfigProto(device_count={"CPU": 3})
    with tf1.Graph().as_default(), tf1.Session(config=config) as session:
        for i, (name, value) in enumerate(values.items()):
            with tf.device(f"/cpu:{i}"):
                tf1.get_variable(name, initializer=value)
        devices = iter(("/cpu:2", "/cpu:0"))
        with tf1.device(lambda op: next(devices) if op.type.startswith("Variable") else None):
            tf1.get_variable(
                "split",
                (4, 3),
                partitioner=tf1.fixed_size_partitioner(2),
                initializer=initializer_from(split),
                use_resource=False,
            )
        session.run(tf1.global_variables_initializer())
        saver = tf1.train.Saver(sharded=True, write_version=tf1.train.SaverDef.V1)
        saver.save(session, out.path("model.ckpt"), global_step=7)
    written: Tensors = {name: ("float32", value) for name, value in values.items()}
    written["split"] = "float32", split
    out.written_checkpoint("model.ckpt-7-?????-of-00003", written, format="v1", shards=3)
    relative_state(out)
    out.state()


@case(
    "v1/every_dtype",
    "Every kind that V1 can store, with its smallest and largest values and NaN payloads; "
    "TensorFlow's reader gives only some of them, its Restore op all.",
    checklist=(61,),
)
def every_dtype(out: Output) -> None:
    tensors: Tensors = {
        "bool": ("bool", np.array([True, False])),
        "string": ("string", np.array([b"", b"a\x00b", b"\xff"], object)),
        "float": bits("float32", [0x7FA00001, 0xFFC00000, 0x80000000, 0x7F800000, 1, 0x3DCCCCCD]),
        "double": bits("float64", [0x7FF4000000000001, 1 << 63, 0x3FB999999999999A]),
        "half": bits("float16", [0x7D01, 0xFE00, 0x8000, 0x3C00, 0xBC00, 1, 0x7BFF]),
        "complex64": ("complex64", bundles.sample("complex64", (2, 2), out.random())),
        "complex128": ("complex128", bundles.sample("complex128", (2,), out.random())),
    }
    for dtype in INTEGERS:
        low, high = bundles.integer_range(dtype)
        tensors[dtype] = dtype, np.array([[low, high], [0, 1]], bundles.numpy_type(dtype))
    save(out, "model", tensors)


@case(
    "v1/shapes",
    "V1 scalars, one element at ranks 1 and 3, tensors without elements, and rank 8.",
)
def shapes(out: Output) -> None:
    save(
        out,
        "model",
        {
            "scalar": ("float32", np.float32(-2.5)),
            "scalar_string": ("string", b"hello"),
            "scalar_int64": ("int64", np.int64(-(2**53) - 1)),
            "one": ("int32", np.array([7], np.int32)),
            "one_deep": ("float64", np.ones((1, 1, 1))),
            "empty": ("float32", np.zeros((0,), np.float32)),
            "empty_deep": ("int64", np.zeros((3, 0, 2), np.int64)),
            "empty_string": ("string", np.zeros((0,), object)),
            "rank8": ("uint8", np.arange(16, dtype=np.uint8).reshape((1, 2) * 4)),
        },
    )


@case(
    "v1/strings",
    "V1 strings: empty, with NUL and ff bytes, a matrix, one of 300 bytes, and odd names; and a "
    "file with a name that is not UTF-8, which TensorFlow writes and then cannot open.",
)
def strings(out: Output) -> None:
    matrix = np.array([[b"a", b""], [b"\x00\xff", b"x" * 300]], object)
    names: tuple[Name, ...] = ("plain", "ключ", "nul\x00", "a b/[0]", "model.ckpt.index")
    save(out, "model", dict.fromkeys(names, ("string", matrix)))
    save(out, "not_utf8", {b"f\x00o\xffo": ("string", matrix)})


@case(
    "v1/slices",
    "Tensors in slices within one V1 file, one with a hole, of every kind that V1 stores.",
    checklist=(54,),
)
def slices(out: Output) -> None:
    rng = out.random()
    dtypes = ("bool", "string", "float32", "float64", "float16", "complex64", "complex128")
    parts = [
        Part(f"w/{dtype}", dtype, value, cut)
        for dtype in (*dtypes, *INTEGERS)
        for value in [bundles.sample(dtype, (3, 2), rng)]
        for cut in ("1,2:-", "0,1:0,1", "0,1:1,1")
    ]
    test = numbers(5, 10, dtype="int32")
    holes = [Part("test", "int32", test, cut) for cut in ("-:0,1", "-:3,1")]
    save_slices(out, "model", [*holes, *parts])
    out.written_checkpoint(
        "model",
        bundles.wholes(parts),
        format="v1",
        parts=[part.describe() for part in (*holes, *parts)],
        broken={"test": {"shape": [5, 10], "dtype": "int32", "why": "hole"}},
    )


@case(
    "v1/slices_across_files",
    "Rows 0 and 1 in one V1 file and two patches in another, which together leave a hole, and a "
    "tensor that the two files complete.",
    checklist=(51, 55),
)
def slices_across_files(out: Output) -> None:
    test = numbers(5, 4)
    both = numbers(4, dtype="int64") - 2
    files = (
        [Part("test", "float32", test, "0,2:-"), Part("both", "int64", both, "0,1")],
        [
            Part("test", "float32", test, "2,2:0,2"),
            Part("test", "float32", test, "4,1:2,2"),
            Part("both", "int64", both, "1,3"),
        ],
    )
    for number, parts in enumerate(files):
        save_slices(out, f"model-{number:05d}-of-00002", parts)
    out.written_checkpoint(
        "model-?????-of-00002",
        {"both": ("int64", both)},
        format="v1",
        shards=2,
        parts=[part.describe() for parts in files for part in parts],
        broken={"test": {"shape": [5, 4], "dtype": "float32", "why": "hole"}},
    )
