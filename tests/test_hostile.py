"""Small files that ask for much: refused before memory, time or files are spent on them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import builder as b
import numpy as np
import pytest
from google.protobuf.internal import api_implementation
from hypothesis import given, settings
from hypothesis import strategies as st
from instruments import MEGABYTE, allocating_at_most, outcome_in_little_memory

import ckptparse
from ckptparse import (
    DEFAULT_LIMITS,
    CheckpointError,
    LimitError,
    Limits,
    MalformedError,
    Tensor,
    UnsupportedError,
)

pytestmark = pytest.mark.proto

Array = np.ndarray[Any, Any]


# The pure Python runtime of old protobufs takes its time for a million of anything.
PATIENCE = 8 if api_implementation.Type() == "python" else 1


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Fail where the processor is busy for longer."""
    start = time.process_time()
    yield
    spent = time.process_time() - start
    assert spent < seconds * PATIENCE, f"took {spent:.1f} s, at most {seconds} were expected"


# ---- every limit: just above, and just at it


def small_bundle() -> b.Bundle:
    """Three dense tensors, five strings, a variant, a tensor of four slices; two shards."""
    bundle = b.Bundle()
    for n in range(3):
        bundle.add(f"dense{n}", np.zeros((2, 1, 3), np.float32), shard=n % 2)
    bundle.add("strings", np.array([b"a"] * 5, object))
    inner = b.variant_proto("t", tensors=[b.tensor_proto(b.INT32, (7,), b.field(7, b"\x05"))])
    bundle.add_variants("variant", [inner], ())
    bundle.add_sliced("sliced", np.zeros((4, 2), np.float32), b.split_rows(4, 4, 2))
    return bundle


def index_size(bundle: b.Bundle) -> int:
    return len(bundle.index())


AT_LIMIT: dict[str, int] = {
    "index_bytes": index_size(small_bundle()),
    "entries": len(small_bundle().entries) + 1,
    "rank": 3,
    "shards": 2,
    "slices": 4,
    "strings": 5,
    "message_bytes": max(len(value) for _, value in small_bundle().pairs()),
    "fill_bytes": 28,
}


@pytest.mark.parametrize("limit", AT_LIMIT)
def test_limit_is_not_tripped_by_what_is_just_at_it(tmp_path: Path, limit: str) -> None:
    limits = replace(DEFAULT_LIMITS, **{limit: AT_LIMIT[limit]})
    assert len(ckptparse.read(small_bundle().write(tmp_path / "x"), limits=limits)) == 6


@pytest.mark.parametrize("limit", AT_LIMIT)
def test_limit_is_tripped_by_what_is_just_above_it(tmp_path: Path, limit: str) -> None:
    limits = replace(DEFAULT_LIMITS, **{limit: AT_LIMIT[limit] - 1})
    with pytest.raises(LimitError) as caught:
        ckptparse.read(small_bundle().write(tmp_path / "x"), limits=limits)
    error = caught.value
    assert error.limit == limit
    assert limit in str(error) and "Limits" in str(error), "the message says what to raise"
    assert isinstance(error, ValueError) and error.path is not None


@pytest.mark.parametrize("slack", [-1, 0])
def test_decompressed_size_of_an_index_block_is_bounded(tmp_path: Path, slack: int) -> None:
    bundle = small_bundle()
    prefix = bundle.write(tmp_path / "x", type=b.SNAPPY)
    limits = Limits(decompressed_bytes=len(b.block(bundle.pairs())) + slack)
    if slack < 0:
        with pytest.raises(LimitError) as caught:
            ckptparse.read(prefix, limits=limits)
        assert caught.value.limit == "decompressed_bytes"
    else:
        assert len(ckptparse.read(prefix, limits=limits)) == 6


def inner_tensors(prefix: str, limits: Limits = DEFAULT_LIMITS) -> list[Any]:
    """Every tensor within the variants of `v`, whenever it is that they are decoded."""
    return [list(value.tensors) for value in ckptparse.read(prefix, limits=limits)["v"].ravel()]


def nested_variant(depth: int) -> bytes:
    """A variant within a tensor within a variant ..."""
    out = b.variant_proto("leaf")
    for _ in range(depth):
        out = b.variant_proto("list", tensors=[b.tensor_proto(b.VARIANT, (), b.field(15, out))])
    return out


def test_nesting_of_variants_is_bounded(tmp_path: Path) -> None:
    for depth, limits, fine in (
        (3, Limits(nesting=20), True),
        (3, Limits(nesting=5), False),
        (40, DEFAULT_LIMITS, True),
        (60, DEFAULT_LIMITS, False),
        (5000, DEFAULT_LIMITS, False),
    ):
        bundle = b.Bundle()
        bundle.add_variants("v", [nested_variant(depth)], ())
        prefix = bundle.write(tmp_path / f"x{depth}")
        if fine:
            value = ckptparse.read(prefix, limits=limits)["v"][()]
            for _ in range(depth):
                value = value.tensors[0][()]
            assert value.type_name == "leaf"
        else:
            with pytest.raises(LimitError) as caught:
                inner_tensors(prefix, limits)
            assert caught.value.limit == "nesting"


def test_every_limit_has_a_test_here() -> None:
    elsewhere = {"decompressed_bytes", "nesting"}
    assert {field.name for field in fields(Limits)} - elsewhere >= set(AT_LIMIT)
    assert set(AT_LIMIT) | elsewhere <= {field.name for field in fields(Limits)}


def test_default_limits_admit_the_largest_that_tensorflow_writes() -> None:
    assert DEFAULT_LIMITS.rank == 254
    assert DEFAULT_LIMITS.entries >= 1_000_000 and DEFAULT_LIMITS.shards >= 4096


# ---- numbers that lie


@pytest.mark.parametrize("name", ["shape", "size", "offset"])
@pytest.mark.parametrize(
    "value", [1 << 31, 1 << 32, 1 << 40, (1 << 62) - 1, 1 << 62, (1 << 63) - 1]
)
@pytest.mark.parametrize("kind", [b.INT8, b.STRING, b.VARIANT, b.COMPLEX128])
def test_huge_numbers_in_an_entry_claim_no_memory(
    tmp_path: Path, name: str, value: int, kind: int
) -> None:
    width = {b.COMPLEX128: 16}.get(kind, 1)
    changes: dict[str, Any] = {
        "shape": {"shape": (value // width,), "size": value // width * width},
        "size": {"size": value},
        "offset": {"offset": value},
    }[name]
    bundle = b.Bundle()
    bundle.put(bytes(64))
    made = b.Entry(kind, (1,), 0, 0, 16, 0).but(**changes)
    bundle.entries[b"w"] = made
    prefix = bundle.write(tmp_path / "x")
    for call in (
        lambda: ckptparse.read(prefix),
        lambda: ckptparse.read(prefix, mmap=True),
        lambda: on_tensor(prefix, Tensor.verify),
        lambda: on_tensor(prefix, Tensor.read),
        lambda: on_tensor(prefix, lambda tensor: tensor[...]),
        lambda: on_tensor(prefix, lambda tensor: tensor[-1:]),
    ):
        with allocating_at_most(4 * MEGABYTE), pytest.raises(CheckpointError):
            call()


def on_tensor(prefix: str, call: Callable[[Tensor], Any]) -> None:
    with ckptparse.open(prefix) as checkpoint:
        call(checkpoint["w"])


def test_millions_of_strings_in_a_sparse_file_are_bounded_by_the_limit(tmp_path: Path) -> None:
    import os

    count = 200_000_000
    bundle = b.Bundle()
    bundle.entries[b"s"] = b.Entry(b.STRING, (count,), 0, 0, count + 4, 0)
    prefix = bundle.write(tmp_path / "x")
    os.truncate(prefix + ".data-00000-of-00001", count + 4)
    with allocating_at_most(4 * MEGABYTE), pytest.raises(LimitError) as caught:
        ckptparse.read(prefix)
    assert caught.value.limit == "strings"


def test_many_empty_strings_cost_no_more_than_their_objects(tmp_path: Path) -> None:
    count = 200_000
    bundle = b.Bundle()
    bundle.add("s", np.array([b""] * count, object))
    prefix = bundle.write(tmp_path / "x")
    with allocating_at_most(80 * count):
        assert ckptparse.read(prefix)["s"].size == count


def test_variant_that_is_filled_from_one_value_is_bounded(tmp_path: Path) -> None:
    inner = b.tensor_proto(b.INT32, (1 << 40,), b.field(7, b"\x05"))
    bundle = b.Bundle()
    bundle.add_variants("v", [b.variant_proto("t", tensors=[inner])], ())
    prefix = bundle.write(tmp_path / "x")
    with allocating_at_most(4 * MEGABYTE), pytest.raises(LimitError) as caught:
        inner_tensors(prefix)
    assert caught.value.limit == "fill_bytes"


def test_many_variants_that_each_fill_up_to_the_limit_are_bounded_together(tmp_path: Path) -> None:
    inner = b.tensor_proto(b.INT8, (1 << 20,), b.field(7, b"\x05"))
    element = b.variant_proto("t", tensors=[inner] * 50)
    bundle = b.Bundle()
    bundle.add_variants("v", [element] * 20, (20,))
    prefix = bundle.write(tmp_path / "x")
    code = f"""
    limits = Limits(fill_bytes=1 << 20)
    print(outcome(lambda: [v.tensors for v in ckptparse.read({prefix!r}, limits=limits)["v"]]))
    """
    assert outcome_in_little_memory(tmp_path, code) in ("fine", "LimitError")


# ---- tables that swell


def swollen(count: int) -> bytes:
    """A block whose keys repeat the one before and add a byte: n entries, n**2/2 key bytes."""
    header = b.entry(b"", b.field(1, 1) + b.field(3, b.version_proto()))
    value = b.Entry(b.FLOAT, (0,), crc=b.mask(0)).to_bytes()
    return b.close_block(header + b"".join(b.entry(b"x", value, shared=n) for n in range(count)))


def test_keys_that_grow_quadratically_are_refused_in_little_memory(tmp_path: Path) -> None:
    (tmp_path / "x.index").write_bytes(
        b.assemble([b.Stored(swollen(200_000), key=b"y")]).data  # 20 GB of keys in 4 MB
    )
    code = f"""
    limits = Limits(key_bytes=1 << 24)
    prefix = {str(tmp_path / "x")!r}
    print(outcome(lambda: ckptparse.list_variables(prefix, limits=limits)),
          outcome(lambda: ckptparse.open(prefix, limits=limits)["xxxxxy"]))
    """
    assert outcome_in_little_memory(tmp_path, code) == "LimitError LimitError"


def test_snappy_of_swelling_keys_is_refused_in_little_memory(tmp_path: Path) -> None:
    stored = b.Stored(swollen(100_000), b.SNAPPY, key=b"y")
    (tmp_path / "x.index").write_bytes(b.assemble([stored]).data)
    code = f"""
    prefix = {str(tmp_path / "x")!r}
    print(outcome(lambda: ckptparse.list_variables(prefix, limits=Limits(key_bytes=1 << 24))))
    """
    assert outcome_in_little_memory(tmp_path, code) == "LimitError"


def test_entries_packed_by_snappy_are_bounded_before_they_are_listed(tmp_path: Path) -> None:
    keys = (n.to_bytes(3, "big") for n in range(300_000))
    stored = b.Stored(
        b.block([(b"", b"\x08\x01"), *((k, b"") for k in keys)]), b.SNAPPY, key=b"\xff"
    )
    (tmp_path / "x.index").write_bytes(b.assemble([stored]).data)
    with allocating_at_most(16 * MEGABYTE), pytest.raises(LimitError) as caught:
        ckptparse.list_variables(tmp_path / "x", limits=Limits(entries=10_000))
    assert caught.value.limit == "entries"


def test_index_file_beyond_the_limit_is_refused_unread(tmp_path: Path) -> None:
    import os

    prefix = small_bundle().write(tmp_path / "x")
    os.truncate(prefix + ".index", 2 << 30)
    with allocating_at_most(4 * MEGABYTE), pytest.raises(CheckpointError):
        ckptparse.open(prefix)


def test_dimensions_by_the_million_are_refused_in_time(tmp_path: Path) -> None:
    bundle = b.Bundle()
    bundle.entries[b"w"] = b.field(1, b.FLOAT) + b.field(2, b"\x12\x00" * 2_000_000)
    prefix = bundle.write(tmp_path / "x")
    with within(5), pytest.raises((LimitError, MalformedError)):
        ckptparse.read(prefix)


def test_extents_by_the_million_are_refused_in_time(tmp_path: Path) -> None:
    bundle = b.Bundle()
    listed = b.field(7, b"\x0a\x00" * 1_000_000)
    bundle.entries[b"w"] = b.Entry(b.FLOAT, (2,), extra=listed).to_bytes()
    prefix = bundle.write(tmp_path / "x")
    with within(10), pytest.raises((LimitError, MalformedError)):
        ckptparse.read(prefix)


def test_slices_by_the_million_are_refused_in_time(tmp_path: Path) -> None:
    bundle = b.Bundle()
    listed = b"".join(b.field(7, b"\x0a\x02\x10\x01") for _ in range(1_000_001))
    bundle.entries[b"w"] = b.Entry(b.FLOAT, (2,), extra=listed).to_bytes()
    prefix = bundle.write(tmp_path / "x")
    with within(10), pytest.raises(LimitError) as caught:
        ckptparse.read(prefix)
    assert caught.value.limit == "slices"


def test_a_hundred_thousand_equal_slices_overlap_in_time(tmp_path: Path) -> None:
    bundle = b.Bundle()
    bundle.entries[b"w"] = b.Entry(b.FLOAT, (2, 2), slices=[[(0, 1), None]] * 100_000)
    prefix = bundle.write(tmp_path / "x")
    with within(10), pytest.raises(MalformedError, match="verlap"):
        ckptparse.read(prefix, limits=Limits(single_entries=100_000))


def test_unknown_fields_by_the_megabyte_cost_little(tmp_path: Path) -> None:
    bundle = small_bundle()
    bundle.change("dense0", extra=b.field(99, bytes(5_000_000)))
    prefix = bundle.write(tmp_path / "x")
    with within(5), allocating_at_most(64 * MEGABYTE):
        assert len(ckptparse.read(prefix)) == 6


def test_groups_nested_deeply_in_unknown_fields_are_refused_or_skipped(tmp_path: Path) -> None:
    bundle = small_bundle()
    bundle.change("dense0", extra=b"\x9b\x06" * 50_000 + b"\x9c\x06" * 50_000)
    prefix = bundle.write(tmp_path / "x")
    with suppress(LimitError, MalformedError):
        assert len(ckptparse.read(prefix)) == 6


def test_names_of_a_megabyte_are_read_and_not_repeated_whole_in_a_hint(tmp_path: Path) -> None:
    bundle = b.Bundle()
    bundle.add("n" * 1_000_000, np.float32(1))
    prefix = bundle.write(tmp_path / "x")
    assert len(ckptparse.read(prefix)) == 1
    with within(5), pytest.raises(ckptparse.TensorNotFoundError):
        ckptparse.read(prefix, ["n" * 999_999])


def test_closest_names_among_very_many_are_found_in_time(tmp_path: Path) -> None:
    bundle = b.Bundle()
    for n in range(50_000):
        bundle.entries[b"layer%05d/kernel" % n] = b.Entry(b.FLOAT, (0,), crc=b.mask(0))
    prefix = bundle.write(tmp_path / "x")
    with within(10), pytest.raises(ckptparse.TensorNotFoundError):
        ckptparse.read(prefix, ["layer00000/kernal"])


def test_a_million_shards_that_nobody_refers_to_cost_nothing(tmp_path: Path) -> None:
    bundle = b.Bundle(header=b.Header(num_shards=1_000_000))
    bundle.add("w", np.float32(1))
    prefix = bundle.write(tmp_path / "x")
    with within(1), allocating_at_most(4 * MEGABYTE):
        with pytest.raises(ckptparse.LimitError, match=r"Limits\.shards"):
            ckptparse.read(prefix)
        assert ckptparse.read(prefix, limits=Limits(shards=1_000_000))["w"] == 1


# ---- names and files that try to reach elsewhere


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "a\0b", "x" * 300, "."])
def test_names_of_tensors_are_never_names_of_files(tmp_path: Path, name: str) -> None:
    bundle = b.Bundle()
    bundle.add(name, np.float32(1))
    before = sorted(tmp_path.parent.rglob("*"))
    prefix = bundle.write(tmp_path / "x")
    assert list(ckptparse.read(prefix)) == [name]
    assert len(sorted(tmp_path.parent.rglob("*"))) == len(before) + 2


@pytest.mark.parametrize("name", ["\x1b[2J", "a\nb\rc", "\u202eevil", "\udc80\udcff", "\0"])
def test_errors_show_odd_names_without_their_control_characters(tmp_path: Path, name: str) -> None:
    bundle = b.Bundle()
    bundle.add(name, np.float32(1), crc=1)
    with pytest.raises(CheckpointError) as caught:
        ckptparse.read(bundle.write(tmp_path / "x"))
    shown = str(caught.value)
    assert caught.value.tensor == name
    assert not set(shown) & set("\x1b\n\r\0\u202e")
    shown.encode()


# ---- any bytes at all


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_as_an_entry_are_an_array_or_a_checkpoint_error(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    bundle = b.Bundle()
    bundle.put(bytes(64))
    bundle.entries[b"w"] = data
    outcome_is_safe(bundle.write(tmp_path_factory.mktemp("e") / "x"))


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=100))
def test_any_bytes_as_a_header_are_an_array_or_a_checkpoint_error(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    bundle = small_bundle()
    bundle.header = data
    outcome_is_safe(bundle.write(tmp_path_factory.mktemp("h") / "x"))


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300), st.sampled_from([b.RAW, b.SNAPPY]))
def test_any_bytes_as_a_block_are_an_array_or_a_checkpoint_error(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, kind: int
) -> None:
    folder = tmp_path_factory.mktemp("b")
    stored = b.Stored(b"", kind, stored=data, key=b"z")
    (folder / "x.index").write_bytes(b.assemble([stored]).data)
    outcome_is_safe(str(folder / "x"))
    (folder / "x.index").write_bytes(
        b.assemble([b.Stored(b.block(small_bundle().pairs()))], index=stored).data
    )
    outcome_is_safe(str(folder / "x"))


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), min_size=1, max_size=6),
    st.data(),
)
def test_entries_of_any_fields_are_an_array_or_a_checkpoint_error(
    tmp_path_factory: pytest.TempPathFactory,
    edits: list[tuple[int, int]],
    data: st.DataObject,
) -> None:
    """A right bundle whose block is edited and sealed anew, so that all layers are reached."""
    bundle = small_bundle()
    contents = bytearray(b.block(bundle.pairs()))
    for place, value in edits:
        contents[place * 3 % len(contents)] = value
    folder = tmp_path_factory.mktemp("m")
    prefix = bundle.write(folder / "x")
    stored = b.Stored(bytes(contents), data.draw(st.sampled_from([b.RAW, b.SNAPPY])), key=b"\xff")
    (folder / "x.index").write_bytes(b.assemble([stored]).data)
    outcome_is_safe(prefix)


EXTENTS = st.lists(st.none() | st.tuples(st.integers(-2, 8), st.integers(-2, 8)), max_size=3)


@settings(max_examples=100, deadline=None)
@given(
    made=st.builds(
        b.Entry,
        dtype=st.integers(-2, 140),
        shape=st.lists(st.integers(-2, 40), max_size=4),
        shard=st.integers(-1, 2),
        offset=st.integers(-2, 70),
        size=st.integers(-2, 70),
        crc=st.none() | st.just(0),
        slices=st.lists(EXTENTS, max_size=3),
        unknown_rank=st.booleans(),
    )
)
def test_fields_that_disagree_are_an_array_or_a_checkpoint_error(
    tmp_path_factory: pytest.TempPathFactory, made: b.Entry
) -> None:
    bundle = b.Bundle()
    bundle.put(bytes(range(64)))
    bundle.entries[b"w"] = made
    for extents in made.slices:
        part = made.but(shape=[1] * len(extents), slices=())
        bundle.entries[b.slice_key("w", extents)] = part
    outcome_is_safe(bundle.write(tmp_path_factory.mktemp("f") / "x"))


def attempt(call: Callable[[], Any]) -> None:
    """Let nothing but a `CheckpointError` pass for a failure."""
    with suppress(CheckpointError):
        call()


def read_each(prefix: str, *, verify: bool) -> None:
    with ckptparse.open(prefix, verify=verify) as checkpoint:
        orphans = [orphan for _, _, orphan in checkpoint.orphan_slices]
        for tensor in (*checkpoint.values(), *orphans):
            attempt(tensor.verify)
            attempt(tensor.read)
            if tensor.shape:
                attempt(partial(tensor.__getitem__, slice(-1, None)))


def outcome_is_safe(prefix: str) -> None:
    """Hold that every way to read gives arrays or a `CheckpointError`, in little memory."""
    with allocating_at_most(8 * MEGABYTE):
        attempt(partial(ckptparse.list_variables, prefix))
        attempt(partial(ckptparse.read, prefix))
        for mmap in (False, True):
            attempt(partial(ckptparse.read, prefix, mmap=mmap, verify=False))
        for verify in (False, True):
            attempt(partial(read_each, prefix, verify=verify))


def test_unsupported_errors_are_about_this_installation(tmp_path: Path) -> None:
    bundle = b.Bundle()
    bundle.put(bytes(4))
    bundle.entries[b"w"] = b.Entry(b.FLOAT, (1,) * 100, 0, 0, 4, b.masked_crc(bytes(4)))
    with pytest.raises(UnsupportedError, match="numpy"):
        ckptparse.read(bundle.write(tmp_path / "x"))


def sharing(tmp_path: Path, *, count: int, size: int) -> str:
    """Write a bundle whose tensors all are the same bytes of its data file."""
    bundle = b.Bundle()
    bundle.add("t/0", np.zeros(size, np.uint8))
    first = bundle.entries[b"t/0"]
    for number in range(1, count):
        bundle.entries[f"t/{number}".encode()] = first
    return bundle.write(tmp_path / "sharing")


def test_tensors_that_share_bytes_may_take_so_much_more_than_the_files(tmp_path: Path) -> None:
    prefix = sharing(tmp_path, count=11, size=1000)
    arrays = ckptparse.read(prefix, limits=ckptparse.Limits(shared_bytes=10_000))
    assert len(arrays) == 11
    with pytest.raises(ckptparse.LimitError, match="sharing their bytes") as caught:
        ckptparse.read(prefix, limits=ckptparse.Limits(shared_bytes=9_999))
    assert caught.value.limit == "shared_bytes"
    arrays = ckptparse.read(prefix, include="t/1", limits=ckptparse.Limits(shared_bytes=0))
    assert list(arrays) == ["t/1"]
