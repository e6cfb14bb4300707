"""`diff`, `average` and `stats`: checkpoints compared, averaged and summed up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import builder as b
import numpy as np
import pytest
from instruments import allocating_at_most
from packages import ml_dtypes

import ckptparse
from ckptparse.files.local import LocalSource

VALUES: dict[str, Any] = {
    "f": np.float32([1, 2, 3, 4]),
    "i": np.int64([5]),
    "s": np.array([b"a", b"b"], object),
    "x/old": np.arange(40, dtype=np.int16),
}


def save(folder: Path, name: str, values: dict[str, Any]) -> str:
    return ckptparse.write(folder / name, values)


# diff


def test_as_many_small_tensors_are_compared_as_either_side_has_bytes_for(tmp_path: Path) -> None:
    values = {f"w{number:03}": np.float32(number) for number in range(200)}
    same = save(tmp_path, "a", values)
    half = save(tmp_path, "b", {name: value + (value >= 100) for name, value in values.items()})
    held = sum(Path(f"{half}.{end}").stat().st_size for end in ("index", "data-00000-of-00001"))
    limits = ckptparse.Limits(small_tensors=100 - held // 512)
    assert len(ckptparse.diff(same, half, limits=limits).changed) == 100
    few = ckptparse.Limits(small_tensors=limits.small_tensors - 1)
    with pytest.raises(ckptparse.LimitError, match="number of tensors") as caught:
        ckptparse.diff(same, half, limits=few)
    assert caught.value.limit == "small_tensors"
    assert ckptparse.diff(same, same, limits=few).same


def test_the_same_bytes_in_the_other_byte_order_are_other_numbers(tmp_path: Path) -> None:
    stored = np.array([1, 256], np.int32)
    little, big = b.Bundle(), b.Bundle(big=True)
    little.add("w", stored)
    big.add("w", stored.byteswap())
    paths = [bundle.write(tmp_path / name) for name, bundle in (("a", little), ("b", big))]
    one, other = (Path(f"{path}.data-00000-of-00001").read_bytes() for path in paths)
    assert one == other
    assert list(ckptparse.diff(*paths).changed) == ["w"]
    with ckptparse.open(paths[0]) as first, ckptparse.open(paths[1]) as second:
        assert list(ckptparse.diff(dict(first), dict(second)).changed) == ["w"]


def test_two_that_are_the_same_are_equal_and_their_data_is_not_read(tmp_path: Path) -> None:
    one, other = (save(tmp_path, name, VALUES) for name in ("a", "b"))
    data = Path(f"{other}.data-00000-of-00001")
    data.write_bytes(bytes(data.stat().st_size))
    found = ckptparse.diff(one, other)
    assert found.same and found.equal == found.unread == tuple(sorted(VALUES))
    assert found.to_dict()["unread"] == sorted(VALUES)
    assert str(found).splitlines() == [
        "4 equal by their stored checksums; their data was not read",
        "0 added, 0 removed, 0 renamed, 0 changed, 4 equal",
    ]


def test_their_data_is_read_if_asked(tmp_path: Path) -> None:
    one, other = (save(tmp_path, name, VALUES) for name in ("a", "b"))
    found = ckptparse.diff(one, other, read_data=True)
    assert found.same and len(found.equal) == 4 and not found.unread
    assert str(found).endswith("4 equal")
    data = Path(f"{other}.data-00000-of-00001")
    data.write_bytes(data.read_bytes()[:-1] + b"\x01")
    with pytest.raises(ckptparse.ChecksumError):
        ckptparse.diff(one, other, read_data=True)


def spoil(data: Path, how: str) -> None:
    if how == "absent":
        data.unlink()
    else:
        data.write_bytes({"empty": b"", "page": b"<!DOCTYPE html>"}[how])


@pytest.mark.parametrize("how", ["absent", "empty", "page"])
@pytest.mark.parametrize("way", ["paths", "mappings", "renamed", "some"])
def test_what_is_equal_by_checksum_is_there(tmp_path: Path, how: str, way: str) -> None:
    one, other = (save(tmp_path, name, VALUES) for name in ("a", "b"))
    if way == "some":
        other = save(tmp_path, "c", {**VALUES, "f": np.zeros(3)})
    for prefix in (one, other):
        data = Path(f"{prefix}.data-00000-of-00001")
        held = data.read_bytes()
        spoil(data, how)
        with pytest.raises(ckptparse.DataLossError) as reading:
            ckptparse.read(prefix)
        with ckptparse.open(one) as first, ckptparse.open(other) as second:
            sides: Any = (one, other) if way != "mappings" else (dict(first), dict(second))
            rename = [("nothing", "other")] if way == "renamed" else None
            with pytest.raises(type(reading.value)) as caught:
                ckptparse.diff(*sides, rename=rename)
        assert caught.value.path == str(data)
        data.write_bytes(held)
    assert ckptparse.diff(one, other).same is (way != "some")


def test_what_rules_do_besides_renaming_is_compared_too(tmp_path: Path) -> None:
    values = {
        "qkv/kernel": np.arange(12, dtype=np.float32).reshape(2, 6),
        "dense/kernel": np.arange(6, dtype=np.float32).reshape(2, 3),
        "global_step": np.int64(3),
    }
    source = save(tmp_path, "a", values)
    rules = tmp_path / "rules.toml"
    rules.write_text(
        "drop = ['global_step']\n"
        "[[rename]]\npattern = '/kernel'\nreplacement = '.weight'\n"
        "[[transpose]]\npattern = 'kernel'\naxes = [1, 0]\n"
        "[[split]]\npattern = 'qkv'\nnames = ['q', 'k', 'v']\n"
    )
    target = str(tmp_path / "b.safetensors")
    ckptparse.convert(source, target, rename=rules)
    found = ckptparse.diff(source, target, rename=rules)
    assert found.same
    assert found.equal == ("dense.weight", "k.weight", "q.weight", "v.weight")
    values["dense/kernel"][1, 2] += 1
    found = ckptparse.diff(save(tmp_path, "c", values), target, rename=rules)
    assert list(found.changed) == ["dense.weight"]


def test_that_data_is_there_is_asked_once_of_each_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = {f"w{number:03}": np.float32(number) for number in range(200)}
    one, other = (save(tmp_path, name, values) for name in ("a", "b"))
    opened: list[str] = []
    opening = LocalSource.open.__func__  # type: ignore[attr-defined]

    def watch(cls: Any, path: str, *args: Any, **options: Any) -> Any:
        opened.append(path)
        return opening(cls, path, *args, **options)

    monkeypatch.setattr(LocalSource, "open", classmethod(watch))
    assert ckptparse.diff(one, other).same
    assert not [path for path in opened if ".data-" in path]


def test_names_that_both_have_are_in_memory_once(tmp_path: Path) -> None:
    bundle = b.Bundle()
    for number in range(20_000):
        bundle.add(f"{number:05}/{'n' * 200}", np.zeros(0, np.float32))
    one, other = (bundle.write(tmp_path / name) for name in "ab")
    ckptparse.diff(one, other)
    # Names take 5 MB, all else 11 MB while the second index is decoded.
    with allocating_at_most(18_000_000):
        assert ckptparse.diff(one, other).same


def test_every_difference_is_told(tmp_path: Path) -> None:
    changed = {
        "f": np.float32([1, 2, 3, 6]),
        "i": np.int32([5]),
        "s": np.array([b"a", b"c"], object),
        "x/new": VALUES["x/old"],
        "y": np.zeros((2, 2)),
    }
    first = {**VALUES, "gone": np.zeros(2), "z": np.zeros(3)}
    second = {**changed, "z": np.zeros(4)}
    found = ckptparse.diff(save(tmp_path, "a", first), save(tmp_path, "b", second))
    assert (found.added, found.removed) == (("y",), ("gone",))
    assert found.renamed == (("x/old", "x/new"),) and found.equal == ()
    assert found.changed["f"] == ckptparse.Change(
        ("float32", "float32"), ((4,), (4,)), largest=2, mean=0.5, share=0.25
    )
    assert found.changed["i"].dtype == ("int64", "int32") and found.changed["i"].share == 0
    assert found.changed["s"].share == 0.5 and found.changed["s"].largest is None
    assert found.changed["z"].shape == ((3,), (4,)) and found.changed["z"].share is None
    assert json.loads(json.dumps(found.to_dict()))["renamed"] == [["x/old", "x/new"]]
    assert "~ z  [3] -> [4]" in str(found) and not found.same


def test_tolerances_and_nan_are_as_numpy_has_them(tmp_path: Path) -> None:
    first = {"w": np.float32([1, np.nan, np.inf, 100])}
    second = {"w": np.float32([1.05, np.nan, np.inf, 101])}
    one, other = save(tmp_path, "a", first), save(tmp_path, "b", second)
    assert ckptparse.diff(one, other).changed["w"].share == 0.5
    assert ckptparse.diff(one, other, atol=0.1).changed["w"].share == 0.25
    assert ckptparse.diff(one, other, atol=0.1, rtol=0.01).same
    infinite = save(tmp_path, "c", {"w": np.float32([1, 1, -np.inf, 100])})
    found = ckptparse.diff(one, infinite)
    assert found.changed["w"].share == 0.5
    json.dumps(found.to_dict(), allow_nan=False)


@pytest.mark.parametrize("tolerance", [-1, -1e-9, float("nan")])
def test_tolerances_below_0_are_refused(tolerance: float, tmp_path: Path) -> None:
    one = save(tmp_path, "a", {"w": np.zeros(2)})
    with pytest.raises(ValueError, match="0 or more"):
        ckptparse.diff(one, one, atol=tolerance)
    with pytest.raises(ValueError, match="0 or more"):
        ckptparse.diff(one, one, rtol=tolerance)


def test_names_of_the_first_may_be_renamed(tmp_path: Path) -> None:
    one = save(tmp_path, "a", {"a/w": np.zeros(3), "b": np.ones(2)})
    other = save(tmp_path, "b", {"a.w": np.zeros(3), "b": np.ones(2)})
    assert ckptparse.diff(one, other, rename=[("/", ".")]).same
    with pytest.raises(ckptparse.UnsupportedError, match="would have the name"):
        ckptparse.diff(one, other, rename=lambda name: "x")


def test_other_formats_are_compared_by_their_values(tmp_path: Path) -> None:
    prefix = save(tmp_path, "a", VALUES)
    ckptparse.convert(prefix, tmp_path / "x.npz")
    assert ckptparse.diff(prefix, tmp_path / "x.npz").same
    big = b.Bundle(big=True)
    big.add("f", VALUES["f"])
    little = save(tmp_path, "f", {"f": VALUES["f"]})
    assert ckptparse.diff(big.write(tmp_path / "big"), little).same


def test_kinds_of_different_width_are_compared_piece_by_piece(tmp_path: Path) -> None:
    array = np.arange(700_000) % 200
    first = {"w": array.astype(np.float64)}
    second = {"w": array.astype(np.float16)}
    found = ckptparse.diff(save(tmp_path, "a", first), save(tmp_path, "b", second))
    assert found.changed["w"].largest == 0 and found.changed["w"].share == 0


# average


def test_floats_are_averaged_and_counters_are_the_newest(tmp_path: Path) -> None:
    paths = [
        save(tmp_path, str(n), {"w": np.float32([n, 2 * n]), "step": np.int64(n), "s": str(n)})
        for n in (1, 2, 6)
    ]
    got = ckptparse.average(paths)
    assert isinstance(got, dict)
    assert got["w"].tolist() == [3, 6] and got["w"].dtype == np.float32
    assert got["step"].item() == 6 and got["s"].item() == b"6"
    assert ckptparse.average(paths, tmp_path / "mean", weights=[2, 2, 0]) == str(tmp_path / "mean")
    assert ckptparse.read(tmp_path / "mean")["w"].tolist() == [1.5, 3]


def test_every_kind_of_float_is_averaged(tmp_path: Path) -> None:
    kinds = [np.float16, np.float64, ml_dtypes.bfloat16, ml_dtypes.float8_e5m2, np.complex64]
    paths = [
        save(tmp_path, str(n), {str(k): np.full((2, 3), n, kind) for k, kind in enumerate(kinds)})
        for n in (1, 3)
    ]
    got = ckptparse.average(paths)
    assert isinstance(got, dict)
    for number, kind in enumerate(kinds):
        assert got[str(number)].dtype == kind and (got[str(number)] == 2).all()


@pytest.mark.parametrize("kind", ["f2", "f4", "f8", "c8", "c16"])
def test_the_average_of_numbers_that_are_not_finite_warns_of_nothing(
    tmp_path: Path, kind: str
) -> None:
    values = np.array([np.inf, -np.inf, np.nan, 1, np.finfo(kind).max], kind)
    if values.dtype.kind == "c":
        values.imag = [2, np.inf, 3, 4, 5]
    path = save(tmp_path, "m", {"w": values})
    got = ckptparse.average([path, path])["w"]
    assert got.dtype == values.dtype
    np.testing.assert_array_equal(got.real, values.real)
    np.testing.assert_array_equal(got.imag, values.imag)
    other = save(tmp_path, "n", {"w": -values})
    assert np.isnan(ckptparse.average([path, other])["w"][0])


SIGNALLING = {"f2": 0x7C01, "f4": 0x7F80_0001, "f8": 0x7FF0_0000_0000_0001}


@pytest.mark.parametrize("kind", ["f2", "f4", "f8", "c8", "c16", "bfloat16"])
def test_signalling_nans_warn_of_nothing(tmp_path: Path, kind: str) -> None:
    if kind == "bfloat16":
        values = np.full(16, 0x7F81, np.uint16).view(ml_dtypes.bfloat16)
    else:
        part = {"c8": "f4", "c16": "f8"}.get(kind, kind)
        values = np.full(16, SIGNALLING[part], part.replace("f", "u")).view(kind)
    path = save(tmp_path, "m", {"w": values})
    other = save(tmp_path, "n", {"w": np.zeros_like(values)})
    assert ckptparse.diff(path, other).changed["w"].share == 1
    assert ckptparse.diff(other, path).changed["w"].share == 1
    assert ckptparse.stats(path)["w"].nan == values.size
    assert np.isnan(ckptparse.average([path, other])["w"].astype(np.complex128)).all()
    if values.dtype.kind != "c":
        for dtype in ("float16", "bfloat16", "float64"):
            ckptparse.convert(path, tmp_path / f"{dtype}.npz", dtype=dtype)


def test_an_average_keeps_the_object_graph(tmp_path: Path, fixtures: Path) -> None:
    paths = [fixtures / "objects" / "manager" / f"ckpt-{n}" for n in (4, 5)]
    ckptparse.average(paths, tmp_path / "mean")
    with ckptparse.open(tmp_path / "mean") as made, ckptparse.open(paths[1]) as newest:
        assert made.object_graph is not None and newest.object_graph is not None
        assert made.object_graph.serialized == newest.object_graph.serialized
        assert made.step == newest.step


def test_checkpoints_of_different_models_are_not_averaged(tmp_path: Path) -> None:
    one = save(tmp_path, "a", {"w": np.zeros(2)})
    for name, values in {"b": {"v": np.zeros(2)}, "c": {"w": np.zeros(3)}}.items():
        with pytest.raises(ckptparse.UnsupportedError):
            ckptparse.average([one, save(tmp_path, name, values)])


@pytest.mark.parametrize("weights", [[1], [0, 0], [1, -2], [1, float("nan")]])
def test_weights_that_make_no_mean_are_refused(weights: list[float], tmp_path: Path) -> None:
    one = save(tmp_path, "a", {"w": np.zeros(2)})
    with pytest.raises(ValueError, match=r"weight|sum"):
        ckptparse.average([one, one], weights=weights)
    with pytest.raises(ValueError, match="at least one"):
        ckptparse.average([])


def test_a_damaged_checkpoint_is_not_averaged(tmp_path: Path) -> None:
    one, other = (save(tmp_path, name, {"w": np.arange(9.0)}) for name in ("a", "b"))
    data = Path(f"{one}.data-00000-of-00001")
    data.write_bytes(b"\xff" + data.read_bytes()[1:])
    with pytest.raises(ckptparse.ChecksumError):
        ckptparse.average([one, other], tmp_path / "mean")
    assert not (tmp_path / "mean.index").exists()


def test_large_tensors_are_averaged_and_compared_in_little_memory(tmp_path: Path) -> None:
    paths = [save(tmp_path, str(n), {"w": np.full(6 << 20, n, np.float32)}) for n in (1, 3)]
    ckptparse.average([save(tmp_path, "small", {"w": np.zeros(2)})])
    with allocating_at_most(30 << 20):
        ckptparse.average(paths, tmp_path / "mean")
        found = ckptparse.diff(paths[0], tmp_path / "mean")
    assert found.changed["w"].largest == 1
    assert ckptparse.verify(tmp_path / "mean").ok


# stats


def test_every_tensor_is_summed_up(tmp_path: Path) -> None:
    values = {"w": np.float32([1, 0, np.nan, np.inf, 3]), "n": np.int64(4), "e": np.zeros((0, 2))}
    found = ckptparse.stats(save(tmp_path, "a", values))
    assert list(found) == ["e", "n", "w"]
    one = found["w"]
    assert (one.elements, one.nan, one.infinite, one.zeros) == (5, 1, 1, 1)
    assert (one.smallest, one.largest, one.mean) == (0, 3, pytest.approx(4 / 3))
    assert found["e"].mean is None and found["n"].largest == 4
    assert list(ckptparse.stats(tmp_path / "a", ["w", "n"], exclude="n")) == ["w"]


def test_damage_is_no_statistic(tmp_path: Path) -> None:
    prefix = save(tmp_path, "a", {"w": np.arange(9.0)})
    data = Path(f"{prefix}.data-00000-of-00001")
    data.write_bytes(b"\xff" + data.read_bytes()[1:])
    with pytest.raises(ckptparse.ChecksumError):
        ckptparse.stats(prefix)
    assert ckptparse.stats(prefix, verify=False)["w"].elements == 9
