"""Very many small tensors in other files: the checksum alone does not tell which is which."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import builder
import numpy as np
import pytest
from crc32c import crc32c
from packages import h5py

import ckptparse
from ckptparse.crc.flips import HIGHEST_CHANCE
from ckptparse.crc.windows import Wanted
from ckptparse.files.context import Context, begin
from ckptparse.files.memory import MemorySource
from ckptparse.limits import DEFAULT_LIMITS
from ckptparse.recovery.evidence import members
from ckptparse.recovery.evidence.names import MOST_NAMESAKES, Names
from ckptparse.recovery.evidence.payloads import Match, find_payloads

Arrays = Mapping[str, np.ndarray]
MANY = 5000
"""So many places, times so many checksums, are 1 in 170."""


def tiny(count: int) -> dict[str, np.ndarray]:
    values = np.random.default_rng(3).normal(0, 0.05, (count, 3)).astype("<f4")
    return {f"layer{n % 97}/t{n:06d}": one for n, one in enumerate(values)}


def mixed(arrays: Arrays) -> dict[str, np.ndarray]:
    order = np.random.default_rng(4).permutation(len(arrays))
    names = list(arrays)
    return {names[number]: arrays[names[number]] for number in order}


def as_npy(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def as_npz(arrays: Arrays) -> bytes:
    out = io.BytesIO()
    np.savez(out, **arrays)  # type: ignore[arg-type]
    return out.getvalue()


def as_zip_of_bytes(arrays: Arrays) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, array in arrays.items():
            archive.writestr(f"weights/{name}.bin", array.tobytes())
    return out.getvalue()


def as_tar(arrays: Arrays) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, array in arrays.items():
            data = as_npy(array)
            info = tarfile.TarInfo(f"weights/{name}.npy")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def as_safetensors(arrays: Arrays) -> bytes:
    header, body = {}, b""
    for name, array in arrays.items():
        offsets = [len(body), len(body) + array.nbytes]
        header[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": offsets}
        body += array.tobytes()
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def as_hdf5(arrays: Arrays) -> bytes:
    out = io.BytesIO()
    with h5py.File(out, "w") as file:
        for name, array in arrays.items():
            file[name] = array
    return out.getvalue()


def wanted_of(arrays: Arrays) -> dict[str, Wanted]:
    raw = {name: array.tobytes() for name, array in arrays.items()}
    return {name: Wanted(len(data), crc32c(data)) for name, data in raw.items()}


def find(data: bytes, wanted: Mapping[str, Wanted], *, named: bool) -> dict[Wanted, Match]:
    names = Names(wanted.items) if named else None
    source = MemorySource("e", data)
    limits = ckptparse.Limits(members=200_000)
    matches = find_payloads(source, wanted.values(), limits=limits, names=names)
    return {match.wanted: match for match in matches}


@pytest.mark.parametrize("pack", [as_npz, as_zip_of_bytes, as_tar, as_safetensors, as_hdf5])
def test_names_tell_which_of_very_many_small_tensors_is_which(
    pack: Callable[[Arrays], bytes],
) -> None:
    arrays = tiny(MANY)
    wanted, data = wanted_of(arrays), pack(mixed(arrays))
    by_checksum = find(data, wanted, named=False)
    by_name = find(data, wanted, named=True)
    assert len(by_checksum) == len(by_name) == MANY
    assert sum(one.chance > HIGHEST_CHANCE for one in by_checksum.values()) > 100
    assert max(one.chance for one in by_name.values()) <= HIGHEST_CHANCE
    for name, item in wanted.items():
        match = by_name[item]
        there = match.source.read_at(match.offset, item.size)
        assert there == arrays[name].tobytes()
        assert match.name is None or name in match.name


def test_other_names_prove_nothing() -> None:
    arrays = tiny(MANY)
    renamed = {f"x{n}": array for n, array in enumerate(mixed(arrays).values())}
    found = find(as_safetensors(renamed), wanted_of(arrays), named=True)
    assert sum(one.chance > HIGHEST_CHANCE for one in found.values()) > 100
    assert all(one.name is None for one in found.values())


def test_a_name_may_begin_with_more_parts_or_with_fewer() -> None:
    one, other = Wanted(8, 1), Wanted(8, 2)
    names = Names(lambda: [("a/b/.ATTRIBUTES/VARIABLE_VALUE", one), ("model/c/d", other)])
    for name in ("a/b", "a.b", "x/a/b:0", "w/a/b.npy", "x:y/a/b"):
        assert names.mean(name, one) and not names.mean(name, other)
    assert names.mean("c/d", other) and names.mean("d", other)
    assert not names.mean("c/e", other) and not names.mean("b/a", one)


def test_a_name_that_may_mean_very_many_tells_nothing() -> None:
    items = [Wanted(8, number) for number in range(MOST_NAMESAKES + 1)]
    names = Names(lambda: [(f"l{n}/bias", item) for n, item in enumerate(items)])
    assert not any(names.mean("bias", item) for item in items)
    few = Names(lambda: [(f"l{n}/bias", item) for n, item in enumerate(items[1:])])
    assert all(few.mean("bias", item) for item in items[1:])


def test_a_tensor_that_is_unsure_in_one_file_is_sought_by_name_in_the_next(tmp_path: Path) -> None:
    arrays = tiny(MANY)
    lost_data_file(tmp_path, arrays)
    renamed = {f"x{n}": array for n, array in enumerate(mixed(arrays).values())}
    (tmp_path / "a.safetensors").write_bytes(as_safetensors(renamed))
    (tmp_path / "b.safetensors").write_bytes(as_safetensors(mixed(arrays)))
    recovery = ckptparse.recover(
        tmp_path / "m", evidence=[tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    )
    check(recovery, arrays)


def test_all_come_back_beside_another_checkpoint(tmp_path: Path) -> None:
    """They are more than repairs are tried of."""
    arrays = tiny(MANY)
    lost_data_file(tmp_path, arrays)
    (tmp_path / "other").mkdir()
    values = {f"z{n}": array for n, array in enumerate(mixed(arrays).values())}
    ckptparse.write(tmp_path / "other" / "x", values)
    check(ckptparse.recover(tmp_path / "m", evidence=[tmp_path / "other"]), arrays)


@pytest.mark.parametrize("packed", ["tar.gz", "zip", "h5"])
def test_archives_in_others_are_unpacked_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packed: str
) -> None:
    arrays = tiny(60)
    data = {"tar.gz": gzip.compress(as_tar(arrays)), "h5": as_packed(arrays), "zip": b""}[packed]
    if packed == "zip":
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("m/e.npz", as_npz(arrays))
        data = out.getvalue()
    path = tmp_path / f"e.{packed}"
    path.write_bytes(data)
    context: Context = begin(path)[1]
    listings = members.Listings()
    parts = [
        part.path
        for part in members.iter_parts(context.storage.open(str(path)), limits=DEFAULT_LIMITS)
        if "/t0" in part.path
    ]
    assert len(parts) >= 60
    monkeypatch.setattr(members, "iter_parts", None)
    calls = []
    unpack = members.unpack_stream
    monkeypatch.setattr(members, "unpack_stream", lambda *args: calls.append(1) or unpack(*args))
    for name in parts[:60]:
        source = context.storage.open(str(path))
        part = members.Member(name, context, listings)(source)
        assert part.path == name and part.size >= 12
        assert any(one.tobytes() in part.read_at(0, part.size) for one in arrays.values())
    assert len(calls) <= 1


def as_packed(arrays: Arrays) -> bytes:
    out = io.BytesIO()
    with h5py.File(out, "w") as file:
        for name, array in arrays.items():
            file.create_dataset(name, data=array, chunks=array.shape, compression="gzip")
    return out.getvalue()


def lost_data_file(directory: Path, arrays: Arrays) -> None:
    bundle = builder.Bundle()
    for name, array in arrays.items():
        bundle.add(name, array)
    bundle.write(directory / "m")
    (directory / "m.data-00000-of-00001").unlink()


def check(recovery: ckptparse.Recovery, arrays: Arrays) -> None:
    assert {str(one.status) for one in recovery.report.tensors.values()} == {"corrected"}
    for name in list(arrays)[::50]:
        assert np.array_equal(recovery[name].read(), arrays[name])
