"""Many small tensors: what is done for all of them at once gives what is done for each."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import astuple
from pathlib import Path
from typing import Any

import builder as b
import numpy as np
import numpy.typing as npt
import pytest
import v1_builder
from packages import ml_dtypes

import ckptparse
from ckptparse.backend import small
from ckptparse.bundle import payload, reader, small_sliced, small_strings, strings, writer
from ckptparse.bundle.entry import BundleEntry
from ckptparse.examination import intact
from ckptparse.graph import tree
from ckptparse.jobs import average as average_module
from ckptparse.jobs import diff as diff_module
from ckptparse.jobs import stats as stats_module
from ckptparse.rendering.page import measuring
from ckptparse.sinks import hdf5
from ckptparse.statistics.gathering import Measured, measure
from ckptparse.statistics.together import measure_together

pytestmark = pytest.mark.proto

KINDS: tuple[Any, ...] = (
    *(np.float16, np.float32, np.float64, np.int8, np.int64, np.uint64, np.bool_),
    *(np.complex64, np.complex128, ml_dtypes.bfloat16, ml_dtypes.int4, ml_dtypes.float8_e4m3fn),
)
SIZES = (0, 1, 2, 3, 7, 8, 9, 17, 127, 128, 129, 300)
VALUES = (
    (0.0, -0.0, 1.0, -1.0),
    (np.nan, np.inf, -np.inf, 1.5, -0.0),
    (np.nan,),
    (1.7e308, -1.7e308, 1e300, 1e-310),
    (3.25, -7.0, 1e-3, 1e5),
)


class Calls:
    """Counts the calls of a function or a method, which goes on as before."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> None:
        self.count = 0
        real = getattr(owner, name)

        def counted(*given: Any, **options: Any) -> Any:
            self.count += 1
            return real(*given, **options)

        monkeypatch.setattr(owner, name, counted)


def values(rng: np.random.Generator, kind: Any, size: int) -> npt.NDArray[Any]:
    chosen = rng.choice(VALUES[rng.integers(len(VALUES))], size)
    with np.errstate(all="ignore"):
        if "int" in np.dtype(kind).name or np.dtype(kind).kind == "b":
            return np.nan_to_num(chosen).clip(-7, 7).astype(kind)
        return np.asarray(chosen).astype(kind)


def bits(measured: Measured) -> list[Any]:
    """Everything that was measured: kinds of numbers, and floats to the last bit."""
    found = list(astuple(measured.summary))
    if measured.distribution is not None:
        found += [one for part in astuple(measured.distribution) for one in np.ravel([part])]
    return [(type(one), float(one).hex() if isinstance(one, float) else one) for one in found]


def written(prefix: Path, count: int, *, shift: int = 0, objects: bool = True) -> str:
    """Write small tensors of every kind: numbers, strings, a variant, slices; two are large."""
    rng = np.random.default_rng(count)
    made = b.Bundle()
    for number in range(count):
        kind = KINDS[number % len(KINDS)]
        size = SIZES[(number + number // len(KINDS)) % len(SIZES)]
        made.add(f"n/{number:04}", values(rng, kind, size) if shift == 0 else np.float32(number))
    if objects:
        for number in range(12):
            texts = [b"x" * (number * length) for length in range(number % 4)]
            made.add(f"s/{number:04}", np.array([*texts, None], object)[:-1])
            made.add(f"s/scalar_{number}", np.array(b"t" * 50 * number, object))
            made.add_sliced(
                f"p/{number:04}",
                rng.standard_normal((2, 1 + number)).astype(np.float32),
                [[(0, 1), None], [(1, 1), None]],
            )
        made.add_variants("v", [b.variant_proto("a", b"b")], ())
    for name in ("large", "m/large"):
        made.add(name, rng.standard_normal(5000).astype(np.float32))
    return str(made.write(prefix))


@contextmanager
def one_by_one() -> Iterator[None]:
    """Take every tensor by itself, as if none were small."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(small, "SMALL", -1)
        patch.setattr(measuring, "SMALL", -1)
        patch.setattr(small_strings, "_SMALL", -1)
        patch.setattr(small_sliced, "_SMALL", -1)
        yield


def outcome(job: Callable[[Any], Any]) -> tuple[Any, list[tuple[int, int]]]:
    """Return what a job gives, or how it fails, and what it tells on the way."""
    told: list[tuple[int, int]] = []
    try:
        found = job(lambda done, total: told.append((done, total)))
    except ckptparse.CheckpointError as error:
        found = type(error), str(error), error.tensor
    return found, told


def content(place: Path) -> dict[str, bytes]:
    return {str(path.relative_to(place)): path.read_bytes() for path in place.rglob("*.*")}


def plain(found: Any) -> Any:
    """Return what can be compared: arrays as their kind, shape and bytes."""
    if isinstance(found, dict):
        return {name: plain(one) for name, one in found.items()}
    if isinstance(found, np.ndarray):
        held = repr(found.tolist()) if found.dtype == object else found.tobytes()
        return found.dtype, found.shape, held, found.flags.writeable
    return repr(found)


def jobs(path: str, second: str, place: Path) -> dict[str, Callable[[Any], Any]]:
    """Every job over tensors, each of which is told how far it is."""

    def converted(name: str, **options: Any) -> Callable[[Any], Any]:
        def job(progress: Any) -> Any:
            ckptparse.convert(path, place / name, progress=progress, overwrite=True, **options)
            return content(place)

        return job

    def averaged(progress: Any) -> Any:
        ckptparse.average([path, path], place / "mean", progress=progress, overwrite=True)
        return content(place)

    def rewritten(_: Any) -> Any:
        with ckptparse.open(path) as opened:
            ckptparse.write(place / "kept", opened, keep_slices=True, overwrite=True)
        return content(place)

    def page(progress: Any) -> Any:
        ckptparse.report_page(path, place / "p.html", overwrite=True, progress=progress, threads=1)
        return (place / "p.html").read_bytes()

    return {
        "read": lambda _: plain(ckptparse.read(path)),
        "stats": lambda told: ckptparse.stats(path, progress=told),
        "histograms": lambda told: ckptparse.stats(
            path, progress=told, histogram=True, verify=False
        ),
        "average": lambda _: plain(ckptparse.average([path, path, path], weights=[1, 2, 0.5])),
        "mean": averaged,
        "v2": converted("made"),
        "shards": converted("shards", max_shard_size=900),
        "safetensors": converted("made.safetensors", store_bits=True),
        "parts": converted("part.safetensors", store_bits=True, max_shard_size=900),
        "half": converted("half", dtype="float16"),
        "write": rewritten,
        "diff": lambda told: ckptparse.diff(path, second, progress=told).to_dict(),
        "near": lambda _: ckptparse.diff(second, path, rtol=0.5, atol=0.25).to_dict(),
        "page": page,
    }


# ---- each gives the same


@pytest.mark.parametrize("histogram", [False, True])
def test_arrays_side_by_side_have_the_statistics_that_each_has_to_the_last_bit(
    histogram: bool,
) -> None:
    rng = np.random.default_rng(1)
    arrays = [values(rng, kind, size) for _ in range(4) for kind in KINDS for size in SIZES]
    arrays += [np.array([b"a" * size, b"", b"bc"], object) for size in range(3)]
    together = measure_together(arrays, histogram=histogram)
    for array, found in zip(arrays, together, strict=True):
        assert bits(found) == bits(measure(array, histogram=histogram)), array


def check_jobs(path: str, second: str, place: Path) -> None:
    """Check that every job gives the same with tensors read together and one by one."""
    for name, job in jobs(path, second, place).items():
        place.mkdir()
        together = outcome(job)
        with one_by_one():
            assert outcome(job) == together, name
        for made in place.iterdir():
            made.unlink()
        place.rmdir()


@pytest.mark.parametrize("damage", ["none", "bit", "cut", "gone"])
def test_every_job_gives_the_same_with_small_tensors_as_with_each_by_itself(
    tmp_path: Path, damage: str
) -> None:
    path, second = (written(tmp_path / name, 60, shift=n) for n, name in enumerate("ab"))
    data = Path(f"{path}.data-00000-of-00001")
    held = bytearray(data.read_bytes())
    held[len(held) // 3] ^= 4
    if damage == "bit":
        data.write_bytes(held)
    elif damage == "cut":
        data.write_bytes(held[:9000])
    elif damage == "gone":
        data.unlink()
    check_jobs(path, second, tmp_path / "out")


@pytest.mark.parametrize("values", [b"\x2a\x04\x00\x00\x80\x3f", b"\x2a\x7f\x00", b""])
def test_every_job_gives_the_same_of_small_v1_tensors(tmp_path: Path, values: bytes) -> None:
    for name in "ab":
        made = _in_v1(40)
        made.tensors[30].slices[0].values = values
        made.add("text", np.array([b"ab", b""], object))
        made.write(tmp_path / name)
    path, second = str(tmp_path / "a"), str(tmp_path / "b")
    check_jobs(path, second, tmp_path / "out")


def _in_v1(count: int) -> v1_builder.LegacyFile:
    made = v1_builder.LegacyFile()
    for number in range(count):
        made.add(f"w{number:05}", np.float32(number))
    return made


def test_the_smallest_limits_are_met_at_the_same_tensor(tmp_path: Path) -> None:
    path = written(tmp_path / "m", 40)
    for allowed in range(0, 4000, 197):
        limits = ckptparse.Limits(memory_bytes=allowed, shared_bytes=allowed // 2)
        together = outcome(lambda _, own=limits: plain(ckptparse.read(path, limits=own)))
        with one_by_one():
            assert (
                outcome(lambda _, own=limits: plain(ckptparse.read(path, limits=own))) == together
            )


def test_slices_of_other_forms_are_put_together_as_before(tmp_path: Path) -> None:
    made = b.Bundle()
    array = np.arange(24, dtype=np.int16).reshape(4, 6)
    cuts: list[list[Any]] = [
        [[(2, 2), None], [(0, 2), None]],
        [[None, (0, 5)], [None, (5, 1)]],
        [[(0, 2), (0, 3)], [(0, 2), (3, 3)], [(2, 2), None]],
        [[(0, 4), (0, 3)], [None, (3, 3)]],
        [[(0, 3), None], [(3, 1), (0, 6)]],
        [[None, None]],
    ]
    for number in range(60):
        made.add_sliced(f"w{number:02}", array + number, cuts[number % len(cuts)])
    path = str(made.write(tmp_path / "m"))
    found = ckptparse.read(path)
    assert all((found[f"w{number:02}"] == array + number).all() for number in range(60))


def test_an_entry_is_serialized_as_protobuf_does_it() -> None:
    rng = np.random.default_rng(2)
    for _ in range(500):
        shape = tuple(rng.choice([0, 1, 127, 128, 1 << 40], rng.integers(0, 5)).tolist())
        numbers = rng.choice([0, 1, 127, 128, 1 << 30], 3).tolist()
        crc = int(rng.choice([0, 0x8A9136AA, 1, 0xFFFFFFFF]))
        entry = BundleEntry(int(rng.integers(0, 34)), shape, *numbers, crc)
        assert entry.to_bytes() == entry.to_proto().SerializeToString()


@pytest.mark.parametrize("count", [0, 1, 64, 65])
@pytest.mark.parametrize("length", [0, 1, 127, 128])
def test_short_strings_are_encoded_as_long_ones_are(
    count: int, length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [b"x" * length] * count
    made = strings.encode_strings(texts)
    monkeypatch.setattr(strings, "_FEW_LENGTHS", -1)
    if count:
        assert strings.encode_strings(texts) == made
    assert strings.decode_strings(made[0], count, big_endian=False, crc=made[1]).tolist() == texts


def test_names_of_any_depth_are_drawn_as_a_tree_of_scopes() -> None:
    names = sorted({"a", "a/b/c", "a/b/cc", "a/bb/c", "ab/c", "/x", "//y", "é/ü/w", "é/ü/v", "z/"})
    drawn = [(one.depth, one.name) for one in tree.name_tree(names, lambda _: None)]
    expected, before = [], []
    for name in names:
        *above, last = name.split("/")
        shared = 0
        while shared < min(len(above), len(before)) and above[shared] == before[shared]:
            shared += 1
        expected += [(depth, above[depth]) for depth in range(shared, len(above))]
        expected.append((len(above), last))
        before = above
    assert drawn == expected


# ---- and how much is done


@pytest.fixture
def scalars(tmp_path: Path) -> str:
    made = b.Bundle()
    for number in range(5000):
        made.add(f"w{number:05}", np.float32(number))
    return str(made.write(tmp_path / "m"))


def test_of_5000_scalars_three_lists_are_read_and_none_is_measured_alone(
    scalars: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = Calls(monkeypatch, reader.BundleReader, "read_many")
    alone = Calls(monkeypatch, stats_module, "_measure_one")
    checks = Calls(monkeypatch, payload.DensePayload, "verify")
    assert len(ckptparse.stats(scalars)) == 5000
    assert (reads.count, alone.count, checks.count) == (3, 0, 0)


def test_5000_scalars_of_v1_are_measured_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _in_v1(5000).write(tmp_path / "m")
    alone = Calls(monkeypatch, stats_module, "_measure_one")
    found = ckptparse.stats(path)
    assert (len(found), alone.count) == (5000, 0)
    assert found["w04999"].largest == 4999


def test_5000_scalars_are_averaged_in_three_lists_of_each_checkpoint(
    scalars: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = Calls(monkeypatch, reader.BundleReader, "read_many")
    alone = Calls(monkeypatch, average_module._Mean, "read")
    ckptparse.average([scalars, scalars])
    assert (reads.count, alone.count) == (6, 0)


@pytest.mark.parametrize("ending", ["", ".safetensors"])
def test_5000_scalars_are_converted_in_three_lists(
    scalars: str, tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = Calls(monkeypatch, reader.BundleReader, "read_many")
    alone = Calls(monkeypatch, writer.BundleWriter, "add")
    together = Calls(monkeypatch, writer.BundleWriter, "add_small")
    ckptparse.convert(scalars, tmp_path / f"made{ending}")
    assert (reads.count, alone.count) == (3, 0)
    assert together.count == (0 if ending else 3)


def test_5000_scalars_are_read_in_lists_for_hdf5(
    scalars: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    h5py = pytest.importorskip("h5py")
    reads = Calls(monkeypatch, reader.BundleReader, "read_many")
    ckptparse.convert(scalars, tmp_path / "made.h5")
    assert reads.count == 3
    with h5py.File(tmp_path / "made.h5") as file:
        assert file["w04999"][()] == 4999


def test_5000_arrays_are_written_in_three_lists(
    scalars: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = Calls(monkeypatch, writer.BundleWriter, "add")
    ckptparse.write(tmp_path / "made", ckptparse.read(scalars))
    assert alone.count == 0


def test_slices_that_are_kept_are_not_read_as_their_tensors_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = b.Bundle()
    made.add_sliced("w", np.arange(64, dtype=np.float32), [[(n, 1)] for n in range(64)])
    path = str(made.write(tmp_path / "m"))
    reads = Calls(monkeypatch, reader.BundleReader, "read_many")
    with ckptparse.open(path) as opened:
        ckptparse.write(tmp_path / "made", opened, keep_slices=True)
    assert reads.count == 0
    assert (ckptparse.read(tmp_path / "made")["w"] == np.arange(64)).all()


def test_5000_scalars_that_differ_are_compared_in_three_lists(
    scalars: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = {name: value + 1 for name, value in ckptparse.read(scalars).items()}
    ckptparse.write(tmp_path / "second", made)
    reads = Calls(monkeypatch, reader.BundleReader, "read_many")
    alone = Calls(monkeypatch, diff_module, "_compare")
    assert len(ckptparse.diff(scalars, tmp_path / "second").changed) == 5000
    assert (reads.count, alone.count) == (6, 0)


def test_a_page_of_5000_scalars_asks_for_no_report_and_measures_none_alone(
    scalars: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("jinja2")
    reports = Calls(monkeypatch, intact.IntactTensors, "report")
    alone = Calls(monkeypatch, measuring, "_measure")
    ckptparse.report_page(scalars, tmp_path / "p.html")
    assert (reports.count, alone.count) == (0, 0)


def test_short_strings_and_small_slices_are_read_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = b.Bundle()
    for number in range(100):
        made.add(f"s{number:03}", np.array(b"ab" * number, object).reshape(()))
        made.add_sliced(f"p{number:03}", np.arange(2, dtype=np.int32), [[(0, 1)], [(1, 1)]])
    path = str(made.write(tmp_path / "m"))
    texts = Calls(monkeypatch, payload.StringPayload, "read")
    parts = Calls(monkeypatch, payload.SlicedPayload, "read")
    found = ckptparse.read(path)
    assert all(found[f"s{number:03}"].item() == b"ab" * number for number in range(100))
    assert all((found[f"p{number:03}"] == [0, 1]).all() for number in range(100))
    # Lengths beyond 127 take two bytes, which is not the common form.
    assert (texts.count, parts.count) == (36, 0)


def naive_paths(names: list[str]) -> Iterator[str]:
    """Give paths as it was done once: with the name of every group."""
    parts = [[part if part.strip(".") else f"~{part}" for part in n.split("/")] for n in names]
    groups = {"/".join(one[:end]) for one in parts for end in range(1, len(one))}
    taken: set[str] = set()
    for one in parts:
        path, number = "/".join(one), 1
        while path in groups or path in taken:
            number += 1
            path = f"{'/'.join(one)}~{number}"
        taken.add(path)
        yield path


def test_paths_in_hdf5_are_found_without_a_list_of_all_groups() -> None:
    pieces = ["a", "b", "", ".", "a~2", "~"]
    chosen = np.random.default_rng(3).integers(0, len(pieces), (400, 3)).tolist()
    names = ["/".join(pieces[one] for one in row[: 1 + row[0] % 3]) for row in chosen]
    names = list(dict.fromkeys(names))
    assert list(hdf5._paths(names)) == list(naive_paths(names))
    deep = [f"{'a/' * 900}w{number:03}" for number in range(100)]
    with counted_calls() as steps:
        assert list(hdf5._paths(deep)) == deep
    assert sum(steps) < 100 * 900 * 1.5


def test_names_in_thousands_of_groups_are_refused_for_hdf5(tmp_path: Path) -> None:
    pytest.importorskip("h5py")
    name = "a/" * 1000 + "w"
    ckptparse.convert({name: np.float32(1)}, tmp_path / "made.h5")
    assert ckptparse.convert(tmp_path / "made.h5", tmp_path / "m").rows[0].old == name
    with pytest.raises(ckptparse.UnsupportedError, match="An HDF5 file cannot hold"):
        ckptparse.convert({f"a/{name}": np.float32(1)}, tmp_path / "other.h5")


@contextmanager
def counted_calls() -> Iterator[list[int]]:
    """Count calls, those of functions in C too."""
    steps = [0]

    def count(frame: Any, event: str, arg: Any) -> None:
        steps[0] += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        yield steps
    finally:
        sys.setprofile(None)


def test_what_stands_deep_in_scopes_is_drawn_in_few_steps() -> None:
    names = [f"{'a/' * 500}w{number:03}" for number in range(200)]
    entries = tree.name_tree(names, lambda _: None)
    with counted_calls() as steps:
        found = sum(1 for _ in entries)
    assert found == 700
    assert sum(steps) < 12_000
