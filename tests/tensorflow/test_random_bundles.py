"""TensorFlow writes what hypothesis thinks of, and we read the same; the builder makes the same."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import builder as b
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ckptparse

tf = pytest.importorskip("tensorflow")

Array = np.ndarray[Any, Any]
Extents = list[tuple[int, int] | None]
KINDS = [*b.NUMERIC_TYPES, b.STRING]


@dataclass
class Piece:
    """One input of SaveV2: a whole tensor, or one slice of it."""

    name: str
    number: int
    shape: tuple[int, ...]
    """Of the whole tensor."""
    extents: Extents | None
    """None for the whole."""
    array: Array

    def spec(self) -> str:
        """The text that tells SaveV2 which slice of which shape this is."""
        if self.extents is None:
            return ""
        texts = ["-" if e is None else f"{e[0]},{e[1]}" for e in self.extents]
        return " ".join([*map(str, self.shape), ":".join(texts)])

    def tensor(self) -> Any:
        if self.number == b.STRING:
            return tf.constant(self.array.tolist(), tf.string, shape=self.array.shape)
        if self.number in b.QUANTIZED_TYPES:
            plain = tf.constant(self.array, shape=self.array.shape)
            return tf.bitcast(plain, tf.dtypes.as_dtype(self.number))
        return tf.constant(self.array, shape=self.array.shape)


@dataclass
class Plan:
    """What to save: the pieces of each shard, and the whole arrays that must come back."""

    shards: list[list[Piece]]
    wanted: dict[str, Array]


def random_array(chance: st.DataObject, number: int, shape: tuple[int, ...]) -> Array:
    count = int(np.prod(shape))
    if number == b.STRING:
        flat = np.empty(count, object)
        flat[:] = [chance.draw(st.binary(max_size=20)) for _ in range(count)]
        return flat.reshape(shape)
    kind = b.NUMPY_TYPES[number]
    data = np.random.default_rng(chance.draw(st.integers(0, 2**32))).bytes(count * kind.itemsize)
    if number == b.BOOL:
        return (np.frombuffer(data, np.uint8) % 2).astype(bool).reshape(shape)
    if number in b.SUB_BYTE_MASKS:
        codes = np.frombuffer(data, np.uint8) & b.SUB_BYTE_MASKS[number]
        return codes.view(kind).astype(np.float32).astype(kind).reshape(shape)
    return np.frombuffer(data, kind).reshape(shape)


def cut(chance: st.DataObject, size: int) -> list[tuple[int, int]]:
    inner = chance.draw(st.lists(st.integers(1, size), max_size=2))
    edges = sorted({0, size, *inner})
    return [(low, high - low) for low, high in itertools.pairwise(edges)]


def cut_all(chance: st.DataObject, shape: tuple[int, ...]) -> list[Extents]:
    """A grid of slices; whole dimensions in either notation."""
    out: list[Extents] = []
    for extents in itertools.product(*(cut(chance, size) for size in shape)):
        whole = [extent == (0, size) for extent, size in zip(extents, shape, strict=True)]
        out.append(
            [
                None if full and chance.draw(st.booleans()) else extent
                for full, extent in zip(whole, extents, strict=True)
            ]
        )
    return out


def is_whole(extents: Extents, shape: tuple[int, ...]) -> bool:
    return all(e is None or e == (0, size) for e, size in zip(extents, shape, strict=True))


def make_plan(chance: st.DataObject, *, most_shards: int) -> Plan:
    count = chance.draw(st.integers(1, most_shards))
    plan = Plan([[] for _ in range(count)], {})
    text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
    names = chance.draw(st.lists(text, min_size=count, max_size=count + 5, unique=True))
    for n, name in enumerate(names):
        number = chance.draw(st.sampled_from(KINDS))
        sliced = n >= count and chance.draw(st.booleans())
        sizes = st.integers(1, 4) if sliced else st.integers(0, 5)
        shape = tuple(chance.draw(st.lists(sizes, min_size=sliced, max_size=3)))
        array = plan.wanted[name] = random_array(chance, number, shape)
        pieces = [Piece(name, number, shape, None, array)]
        if sliced:
            pieces = [
                Piece(name, number, shape, extents, array[b.region(extents, shape)])
                for extents in chance.draw(st.permutations(cut_all(chance, shape)))
            ]
        for piece in pieces:
            # Every shard has a piece of its own, since SaveV2 saves no nothing.
            place = n if n < count else chance.draw(st.integers(0, count - 1))
            plan.shards[place].append(piece)
    return plan


def save(pieces: list[Piece], prefix: str) -> None:
    tf.raw_ops.SaveV2(
        prefix=prefix,
        tensor_names=[piece.name for piece in pieces],
        shape_and_slices=[piece.spec() for piece in pieces],
        tensors=[piece.tensor() for piece in pieces],
    )


def save_all(plan: Plan, folder: Path) -> str:
    prefix = str(folder / "x")
    if len(plan.shards) == 1:
        save(plan.shards[0], prefix)
        return prefix
    parts = [str(folder / "temp" / f"part-{n}") for n in range(len(plan.shards))]
    for pieces, part in zip(plan.shards, parts, strict=True):
        save(pieces, part)
    tf.raw_ops.MergeV2Checkpoints(checkpoint_prefixes=parts, destination_prefix=prefix)
    return prefix


def same(got: Array, wanted: Array) -> bool:
    if wanted.dtype == object:
        return got.shape == wanted.shape and got.ravel().tolist() == wanted.ravel().tolist()
    return (got.dtype, got.shape, got.tobytes()) == (wanted.dtype, wanted.shape, wanted.tobytes())


@settings(max_examples=250, deadline=None)
@given(chance=st.data())
def test_random_bundles_that_tensorflow_writes_read_back_identical(
    tmp_path_factory: pytest.TempPathFactory, chance: st.DataObject
) -> None:
    plan = make_plan(chance, most_shards=3)
    prefix = save_all(plan, tmp_path_factory.mktemp("random"))
    got = ckptparse.read(prefix)
    assert list(got) == sorted(plan.wanted, key=lambda name: name.encode())
    assert all(same(got[name], array) for name, array in plan.wanted.items())
    mapped = ckptparse.read(prefix, mmap=True)
    assert all(same(mapped[name], array) for name, array in plan.wanted.items())
    with ckptparse.open(prefix) as checkpoint:
        assert checkpoint.num_shards == len(plan.shards) and not checkpoint.orphan_slices
        for name, array in plan.wanted.items():
            tensor = checkpoint[name]
            tensor.verify()
            assert tensor.shape == array.shape and tensor.dtype == array.dtype
            part = tuple(draw_range(chance, size) for size in array.shape)
            assert same(np.asarray(tensor[(*part, ...)]), np.asarray(array[(*part, ...)].copy()))


def draw_range(chance: st.DataObject, size: int) -> slice:
    low, high = chance.draw(st.integers(0, size)), chance.draw(st.integers(0, size))
    return slice(low, high, chance.draw(st.sampled_from([None, 1, 2])))


@settings(max_examples=150, deadline=None)
@given(chance=st.data())
def test_builder_makes_the_files_of_random_bundles_byte_for_byte(
    tmp_path_factory: pytest.TempPathFactory, chance: st.DataObject
) -> None:
    plan = make_plan(chance, most_shards=1)
    prefix = save_all(plan, tmp_path_factory.mktemp("random"))
    bundle = b.Bundle()
    slices: dict[str, list[Extents]] = {}
    for piece in plan.shards[0]:
        key: str | bytes = piece.name
        if piece.extents is not None and not is_whole(piece.extents, piece.shape):
            key = b.slice_key(piece.name, piece.extents)
            slices.setdefault(piece.name, []).append(piece.extents)
            listed = b.Entry(piece.number, piece.shape, slices=slices[piece.name])
            bundle.entries[piece.name.encode()] = listed
        bundle.add(key, piece.array, dtype=piece.number)
    for name, data in bundle.files("x").items():
        assert Path(prefix).with_name(name).read_bytes() == data


def test_index_of_many_tensors_is_the_builders_byte_for_byte(tmp_path: Path) -> None:
    names = [f"layer_{n % 97}/kernel_{n:05}" for n in range(12_000)]
    array = np.arange(4, dtype=np.float32)
    prefix = str(tmp_path / "x")
    tf.raw_ops.SaveV2(
        prefix=prefix,
        tensor_names=names,
        shape_and_slices=[""] * len(names),
        tensors=[tf.constant(array)] * len(names),
    )
    bundle = b.Bundle()
    for name in names:
        bundle.add(name, array)
    assert len(bundle.table().blocks) > 1
    assert (tmp_path / "x.index").read_bytes() == bundle.index()
    assert len(ckptparse.read(prefix)) == len(names)


def test_lists_of_tensors_are_variants_with_their_tensors(tmp_path: Path) -> None:
    made = tf.raw_ops.TensorListFromTensor(
        tensor=tf.constant([[1, 2], [3, 4], [5, 6]]), element_shape=tf.constant([2])
    )
    prefix = str(tmp_path / "x")
    tf.raw_ops.SaveV2(prefix=prefix, tensor_names=["v"], shape_and_slices=[""], tensors=[made])
    value = ckptparse.read(prefix)["v"][()]
    assert value.type_name == "tensorflow::TensorList"
    assert [np.asarray(tensor).tolist() for tensor in value.tensors] == [[1, 2], [3, 4], [5, 6]]


@pytest.mark.parametrize("number", KINDS)
def test_every_kind_that_tensorflow_writes_reads_back(tmp_path: Path, number: int) -> None:
    if number == b.STRING:
        array = np.array([[b"a", b""], [b"\0\xff", b"x" * 300]], object)
    else:
        raw = np.arange(6) % 4
        array = raw.astype(np.float32).astype(b.NUMPY_TYPES[number]).reshape(2, 3)
    piece = Piece("w", number, array.shape, None, array)
    prefix = str(tmp_path / "x")
    save([piece], prefix)
    assert same(ckptparse.read(prefix)["w"], array)
    with ckptparse.open(prefix) as checkpoint:
        assert checkpoint["w"].data_type == number == piece.tensor().dtype.as_datatype_enum
