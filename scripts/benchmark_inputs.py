"""The inputs of the benchmark: made once, kept in a directory, the same on every machine.

The indexes come from the tests' builder, which shares no code with the package; data files are
written as a stream, so that a large input takes little memory to make.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from crc32c import crc32c

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
import builder

__all__ = ["INPUTS", "make_input", "make_small", "write_shards", "write_slices", "write_stream"]

FLOAT = 1
MIB = 1 << 20
Tensors = Iterable[tuple[str, "np.ndarray[Any, Any]"]]


def make_input(name: str, directory: Path) -> Path:
    """Return the prefix of an input, making it where it is not there yet."""
    if name == "fixture":
        return Path(__file__).resolve().parent.parent / "fixtures" / "saver" / "my_model"
    # `recover` looks at the other checkpoints of a directory, too: here it would find some.
    directory = directory / name if name in ALONE else directory
    directory.mkdir(parents=True, exist_ok=True)
    prefix = directory / name
    # Written last: what was interrupted is made anew.
    whole = Path(f"{prefix}.whole")
    if not whole.exists():
        INPUTS[name](prefix)
        whole.touch()
    return prefix


def write_stream(prefix: Path, tensors: Tensors) -> None:
    """Write a bundle of one shard, and the same tensors as safetensors has them."""
    bundle = builder.Bundle()
    offset = 0
    with open(f"{prefix}.data-00000-of-00001", "wb") as data:
        for name, array in tensors:
            raw = memoryview(array.reshape(-1).view(np.uint8))
            data.write(raw)
            bundle.entries[name.encode()] = builder.Entry(
                FLOAT, array.shape, 0, offset, len(raw), builder.mask(crc32c(raw))
            )
            offset += len(raw)
    write_safetensors(prefix, bundle, offset)
    Path(f"{prefix}.index").write_bytes(bundle.index())


def write_safetensors(prefix: Path, bundle: builder.Bundle, size: int) -> None:
    """Write the data file once more, behind the header of safetensors."""
    import json

    header = {
        name.decode(): {
            "dtype": "F32",
            "shape": list(entry.shape),
            "data_offsets": [entry.offset, entry.offset + entry.size],
        }
        for name, entry in bundle.entries.items()
    }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with (
        open(f"{prefix}.safetensors", "wb") as out,
        open(f"{prefix}.data-00000-of-00001", "rb") as data,
    ):
        out.write(len(text).to_bytes(8, "little") + text)
        out.writelines(data.read(16 * MIB) for _ in range(0, size, 16 * MIB))


def random_floats(seed: int, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """Make float32 values of random bits, NaNs and all."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, 4 * math.prod(shape), np.uint8).view(np.float32).reshape(shape)


def large(prefix: Path) -> None:
    """1 GiB in 64 tensors."""
    write_stream(
        prefix,
        ((f"layer_{n:02d}/kernel", random_floats(n, (2048, 2048))) for n in range(64)),
    )


def small(prefix: Path) -> None:
    """100,000 tensors of 16 bytes."""
    write_stream(prefix, make_small(100_000))


def make_small(count: int) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
    """Make tensors of four elements, under names as models have them."""
    values = random_floats(0, (count, 4))
    return ((f"model/layer_{n // 100:05d}/block_{n % 100:02d}/w", values[n]) for n in range(count))


def single(prefix: Path) -> None:
    """One tensor of 1 GiB."""
    write_stream(prefix, [("one", random_floats(0, (1 << 18, 1024)))])


def bert(prefix: Path) -> None:
    """200 tensors of 110 million elements, as BERT base has them."""
    shapes: list[tuple[str, tuple[int, ...]]] = [("embeddings/word", (30522, 768))]
    for layer in range(12):
        scope = f"encoder/layer_{layer}"
        for part in ("query", "key", "value", "output"):
            shapes += [(f"{scope}/{part}/kernel", (768, 768)), (f"{scope}/{part}/bias", (768,))]
        shapes += [(f"{scope}/up/kernel", (768, 3072)), (f"{scope}/up/bias", (3072,))]
        shapes += [(f"{scope}/down/kernel", (3072, 768)), (f"{scope}/down/bias", (768,))]
        shapes += [(f"{scope}/norm_{n}/{what}", (768,)) for n in (1, 2) for what in ("g", "b")]
    shapes += [(f"head/{n}", (768,)) for n in range(200 - len(shapes))]
    write_stream(
        prefix, ((name, random_floats(n, shape)) for n, (name, shape) in enumerate(shapes))
    )


def slices(prefix: Path) -> None:
    """One variable of 51 MB in 2,000 slices of 100 rows."""
    write_slices(prefix, count=2000, rows=100, columns=64)


def write_slices(prefix: Path, *, count: int, rows: int, columns: int) -> None:
    """Write one variable in slices of so many rows."""
    bundle = builder.Bundle()
    values = random_floats(0, (count * rows, columns))
    bundle.add_sliced("v", values, [[(n * rows, rows), None] for n in range(count)])
    bundle.write(prefix)


def write_shards(prefix: Path, count: int) -> None:
    """Write a tensor of 4 KiB into each of so many data files."""
    bundle = builder.Bundle()
    for number in range(count):
        bundle.add(f"layer_{number:05d}/w", np.zeros(1024, np.float32), shard=number)
    bundle.write(prefix)


def many(prefix: Path) -> None:
    """10,000 tensors of 4 KiB."""
    names = (f"model/layer_{n // 8:04d}/attention/weights_{n % 8}/kernel" for n in range(10_000))
    write_stream(prefix, ((name, random_floats(n, (32, 32))) for n, name in enumerate(names)))


def strings(prefix: Path) -> None:
    """200,000 strings of up to 40 bytes."""
    lengths = np.random.default_rng(0).integers(0, 40, 200_000).tolist()
    values = np.empty(len(lengths), object)
    values[:] = [b"x" * length for length in lengths]
    bundle = builder.Bundle()
    bundle.add("words", values)
    bundle.write(prefix)


def sparse(prefix: Path) -> None:
    """64 GiB of zeros in 1,024 tensors, in a sparse file."""
    bundle = builder.Bundle()
    size = 64 * MIB
    check = builder.mask(crc32c(bytes(size)))
    for n in range(1024):
        bundle.entries[f"zeros/{n:04d}".encode()] = builder.Entry(
            FLOAT, (size // 4,), 0, n * size, size, check
        )
    with open(f"{prefix}.data-00000-of-00001", "wb") as data:
        data.truncate(1024 * size)
    Path(f"{prefix}.index").write_bytes(bundle.index())


def weights(prefix: Path) -> None:
    """256 MiB of weights as models have them."""
    rng = np.random.default_rng(0)
    tensors = (
        (f"layer_{n:02d}/kernel", rng.normal(0, 0.05, (2048, 2048)).astype("<f4"))
        for n in range(16)
    )
    write_stream(prefix, tensors)


def noise(prefix: Path) -> None:
    """100 MB in 50 tensors, of which the data file has none: it is noise."""
    shape = (500, 1000)
    write_stream(prefix, ((f"w{n}", random_floats(n, shape)) for n in range(50)))
    data = Path(f"{prefix}.data-00000-of-00001")
    data.write_bytes(np.random.default_rng(99).bytes(data.stat().st_size))


INPUTS: dict[str, Callable[[Path], None]] = {
    "large": large,
    "small": small,
    "single": single,
    "bert": bert,
    "slices": slices,
    "strings": strings,
    "sparse": sparse,
    "many": many,
    "weights": weights,
    "noise": noise,
}
ALONE = {"noise"}
"""Inputs that have a directory of their own."""
