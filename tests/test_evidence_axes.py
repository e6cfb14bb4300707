"""Tensors whose axes lie in another order in a container, as converters turn them."""

from __future__ import annotations

import pickle
import struct
import zipfile
from collections.abc import Callable
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from crc32c import crc32c
from packages import safetensors

import ckptparse
from ckptparse.crc.windows import Wanted
from ckptparse.files.memory import MemorySource
from ckptparse.limits import DEFAULT_LIMITS
from ckptparse.problems import EvidenceRule, Status
from ckptparse.recovery.evidence import payloads
from ckptparse.recovery.evidence.axes import TensorForm, Turned, orders_of, turn_back
from ckptparse.recovery.evidence.payloads import find_payloads

LAYERS = {
    "dense": ((64, 48), (1, 0)),
    "conv1d": ((5, 12, 20), (2, 0, 1)),
    "attention": ((24, 4, 6), (1, 2, 0)),
    "conv": ((3, 3, 8, 16), (3, 0, 1, 2)),
    "conv_torch": ((3, 5, 8, 16), (3, 2, 0, 1)),
    "depthwise_torch": ((3, 3, 30, 2), (2, 3, 0, 1)),
    "transposed": ((3, 3, 16, 8), (2, 0, 1, 3)),
    "conv3d": ((2, 3, 3, 8, 9), (4, 3, 0, 1, 2)),
}
"""Shapes, and which axis of the tensor each axis in the container is."""


def weights() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(5)
    return {name: rng.normal(0, 1, shape).astype("<f4") for name, (shape, _) in LAYERS.items()}


def turned() -> dict[str, np.ndarray]:
    return {
        name: np.ascontiguousarray(array.transpose(LAYERS[name][1]))
        for name, array in weights().items()
    }


def lost(directory: Path) -> Path:
    """Save the weights and lose the data file."""
    directory.mkdir()
    ckptparse.write(str(directory / "m"), {**weights(), "bias": np.arange(48, dtype="f4") / 7})
    (directory / "m.data-00000-of-00001").unlink()
    return directory / "m"


def sought(array: np.ndarray) -> dict[Wanted, set[TensorForm]]:
    raw = array.tobytes()
    return {Wanted(len(raw), crc32c(raw)): {TensorForm(array.shape, array.itemsize)}}


@pytest.mark.parametrize("dtype", ["u1", "<f2", "<f4", "<f8", "<c16"])
@pytest.mark.parametrize("shape", [(3, 4), (700, 300), (2, 3, 4), (2, 3, 4, 5), (2, 3, 2, 4, 5)])
def test_every_order_that_is_tried_is_turned_back(dtype: str, shape: tuple[int, ...]) -> None:
    array = (np.arange(np.prod(shape)) % 251).astype(dtype).reshape(shape)
    form = TensorForm(shape, array.itemsize)
    orders = list(orders_of(form))
    assert orders
    for axes in orders:
        there = np.ascontiguousarray(array.transpose(axes)).tobytes()
        assert turn_back(there, Turned(form, axes)) == array.tobytes() != there


def test_axes_of_one_element_are_not_turned() -> None:
    assert list(orders_of(TensorForm((1, 48), 4))) == []
    assert list(orders_of(TensorForm((1, 1, 8, 1), 4))) == []
    assert len(list(orders_of(TensorForm((1, 1, 8, 16), 4)))) == 1
    # Of three axes, each order is tried once, in whatever place the one of a single element is.
    assert len(list(orders_of(TensorForm((5, 1, 6), 4)))) == 1
    for shape in ((), (7,), (2, 2, 2, 2, 2, 2), (2, 3, 4, 5, 6, 7)):
        assert list(orders_of(TensorForm(shape, 4))) == []
    # Elements of 3 bytes are of no dtype.
    assert list(orders_of(TensorForm((2, 3), 3))) == []


def test_all_orders_of_three_axes_are_tried() -> None:
    orders = list(orders_of(TensorForm((2, 3, 4), 4)))
    assert sorted(orders) == sorted(permutations(range(3)))[1:]


def as_npz(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, **turned())


def as_fortran(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in weights().items():
            with archive.open(f"{name}.npy", "w") as file:
                np.lib.format.write_array(file, np.asfortranarray(array))


def as_safetensors(path: Path) -> None:
    path.write_bytes(safetensors.numpy.save(turned()))


def as_flatbuffer(path: Path) -> None:
    out = bytearray(b"\x1c\0\0\0TFL3")
    for array in turned().values():
        out += bytes(-(len(out) + 4) % 16) + struct.pack("<I", array.nbytes) + array.tobytes()
    path.write_bytes(out)


WRITERS: list[Callable[[Path], None]] = [as_npz, as_fortran, as_safetensors, as_flatbuffer]


@pytest.mark.parametrize("write", WRITERS)
def test_turned_tensors_are_proved_by_their_checksums(
    write: Callable[[Path], None], tmp_path: Path
) -> None:
    prefix = lost(tmp_path / "run")
    file = tmp_path / "converted"
    write(file)
    recovery = ckptparse.recover(str(prefix), evidence=[str(file)])
    for name, array in weights().items():
        tensor = recovery[name]
        assert tensor.status is Status.CORRECTED, name
        assert np.array_equal(tensor.read(), array)
        assert tensor.chance is not None and tensor.chance <= 1e-3
        found = [one for one in tensor.evidence if one.rule is EvidenceRule.AXES]
        assert [(one.path, one.size) for one in found] == [(str(file), array.nbytes)]
        if write is not as_fortran:
            axes = str(LAYERS[name][1])
            assert tensor.method is not None and axes in tensor.method and axes in tensor.note
    if write in (as_safetensors, as_flatbuffer):
        raw = file.read_bytes()
        for name, array in turned().items():
            record = next(one for one in recovery[name].evidence if one.rule is EvidenceRule.AXES)
            assert raw[record.offset :][: record.size] == array.tobytes()
    # A bias that is not in the container is not made up.
    assert "bias" not in recovery


def test_a_recovery_of_turned_tensors_is_pickled_written_and_repeated(tmp_path: Path) -> None:
    prefix = lost(tmp_path / "run")
    (tmp_path / "other").mkdir()
    file = tmp_path / "other" / "w.npz"
    as_npz(file)
    recovery = ckptparse.recover(str(prefix), evidence=[str(file)])
    again = pickle.loads(pickle.dumps(recovery))  # noqa: S301 - pickled here
    assert np.array_equal(again["conv"].read(), weights()["conv"])
    with recovery.keep_open():
        for name, array in weights().items():
            assert np.array_equal(recovery[name].read(), array)
    out = tmp_path / "out" / "m.ckpt"
    out.parent.mkdir()
    recovery.write(str(out))
    written = ckptparse.read(str(out))
    assert all(np.array_equal(written[name], array) for name, array in weights().items())
    assert ckptparse.replay(f"{out}.report.json").same


def test_a_tensor_that_lies_as_it_was_is_not_turned() -> None:
    array = np.ones((6, 6), "<f4")  # Its transpose has the same bytes.
    source = MemorySource("x", array.tobytes())
    (match,) = find_payloads(source, sought(array), limits=DEFAULT_LIMITS, forms=sought(array))
    assert match.turned is None


def test_a_turned_tensor_in_a_run_whose_checksum_is_also_sought_is_another() -> None:
    array = np.random.default_rng(1).normal(size=(6, 9)).astype("<f4")
    both = {**sought(array), **sought(np.ascontiguousarray(array.T))}
    # Each is found as it is; the first one is not taken for the second, turned.
    data = b"\x1c\0\0\0TFL3" + bytes(4)
    for one in (array, np.ascontiguousarray(array.T)):
        data += struct.pack("<I", one.nbytes) + one.tobytes()
    found = list(find_payloads(MemorySource("x", data), both, limits=DEFAULT_LIMITS, forms=both))
    assert {match.wanted for match in found} == set(both)


def test_a_thousand_tensors_that_are_not_there_are_not_found_turned() -> None:
    rng = np.random.default_rng(2)
    source = MemorySource("x", rng.bytes(4 * 6 * 8))
    shapes = [(8, 24), (2, 4, 24), (2, 2, 3, 16), (2, 2, 2, 3, 8)]
    wanted = {
        Wanted(192, int(rng.integers(2**32))): {TensorForm(shapes[number % 4], 1)}
        for number in range(1000)
    }
    assert list(find_payloads(source, wanted, limits=DEFAULT_LIMITS, forms=wanted)) == []


def test_a_tensor_that_would_take_more_memory_than_allowed_is_not_turned() -> None:
    array = np.random.default_rng(4).normal(size=(40, 50)).astype("<f4")
    data = b"\x1c\0\0\0TFL3" + bytes(4) + struct.pack("<I", array.nbytes) + array.T.tobytes()
    for allowed, count in ((2 * array.nbytes, 1), (2 * array.nbytes - 1, 0)):
        limits = replace(DEFAULT_LIMITS, memory_bytes=allowed)
        wanted, source = sought(array), MemorySource("x", data)
        assert len(list(find_payloads(source, wanted, limits=limits, forms=wanted))) == count


def test_the_chance_counts_every_order_that_was_tried() -> None:
    array = np.random.default_rng(3).normal(size=(2, 3, 4)).astype("<f4")
    there = np.ascontiguousarray(array.transpose(2, 1, 0))
    forms = sought(array)
    (match,) = find_payloads(
        MemorySource("x", there.tobytes()), forms, limits=DEFAULT_LIMITS, forms=forms
    )
    assert match.turned == Turned(TensorForm((2, 3, 4), 4), (2, 1, 0))
    assert match.chance == 6 / 2**32


def test_only_so_many_bytes_are_turned(monkeypatch: pytest.MonkeyPatch) -> None:
    array = np.random.default_rng(4).normal(size=(20, 30)).astype("<f4")
    forms = sought(array)
    source = MemorySource("x", np.ascontiguousarray(array.T).tobytes())
    monkeypatch.setattr(payloads, "_MOST_TURNED", array.nbytes - 1)
    assert list(find_payloads(source, forms, limits=DEFAULT_LIMITS, forms=forms)) == []
    monkeypatch.setattr(payloads, "_MOST_TURNED", array.nbytes)
    assert len(list(find_payloads(source, forms, limits=DEFAULT_LIMITS, forms=forms))) == 1
    monkeypatch.setattr(payloads, "LARGEST_TURNED", array.nbytes - 1)
    assert list(find_payloads(source, forms, limits=DEFAULT_LIMITS, forms=forms)) == []
