"""Tensors whose checksums are not known: what of them looks wrong, and what does not."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import builder
import numpy as np
import numpy.typing as npt
import pytest
from situations.harness import noise

import ckptparse
from ckptparse.dtypes import DataType
from ckptparse.recovery import unchecked
from ckptparse.recovery.unchecked import has_wild_elements, judge_unchecked

SECTOR, PAGE = 512, 4096
Arrays = dict[str, npt.NDArray[Any]]


def weights(shape: tuple[int, ...], seed: int = 0) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).normal(0, 0.05, shape).astype("<f4")


MODEL: Arrays = {
    "a/bias": weights((130,), 1),
    "a/kernel": weights((100, 130), 2),
    "b/bias": weights((77,), 3),
    "b/kernel": weights((130, 77), 4),
    "c/kernel": weights((77, 300), 5),
}


class Lost:
    """A checkpoint without an index: its data file, and the shapes that the caller knows."""

    def __init__(self, directory: Path, arrays: Arrays) -> None:
        self.arrays = dict(sorted(arrays.items()))
        self.prefix = directory / "model"
        ckptparse.write(self.prefix, self.arrays)
        self.data = directory / "model.data-00000-of-00001"
        (directory / "model.index").unlink()
        self.starts: dict[str, int] = {}
        start = 0
        for name in sorted(arrays):
            self.starts[name] = start
            start += arrays[name].nbytes

    def overwrite(self, offset: int, new: bytes) -> None:
        raw = bytearray(self.data.read_bytes())
        raw[offset : offset + len(new)] = new
        self.data.write_bytes(raw)

    def recover(self, **options: Any) -> ckptparse.Recovery:
        shapes = {
            name: {"dtype": str(array.dtype), "shape": list(array.shape)}
            for name, array in self.arrays.items()
        }
        return ckptparse.recover(self.prefix, shapes=shapes, **options)

    def changed(self, name: str, start: int, stop: int) -> tuple[tuple[int, int], ...]:
        """Return the elements of a tensor of which some bytes lie in a range of the file."""
        array = self.arrays[name]
        low = max(0, start - self.starts[name]) // array.itemsize
        high = -(-min(array.nbytes, stop - self.starts[name]) // array.itemsize)
        return ((low, high),) if low < high else ()


def test_of_a_sound_file_nothing_is_marked(tmp_path: Path) -> None:
    lost = Lost(tmp_path, MODEL)
    for name, tensor in lost.recover().items():
        assert tensor.status == "unverified" and tensor.suspect == ()
        assert (tensor.read() == MODEL[name]).all()
        assert "look wrong" not in tensor.note


@pytest.mark.parametrize("filler", ["noise", "zeros", "text"])
def test_exactly_what_was_overwritten_is_marked(filler: str, tmp_path: Path) -> None:
    lost = Lost(tmp_path, MODEL)
    start, size = 20 * SECTOR, 2 * SECTOR
    new = {
        "noise": noise(size),
        "zeros": bytes(size),
        "text": (b"It was the best of times, it was the worst of times, " * 20)[:size],
    }[filler]
    lost.overwrite(start, new)
    found = {name: tensor.suspect for name, tensor in lost.recover().items()}
    assert found == {name: lost.changed(name, start, start + size) for name in MODEL}


def test_a_page_of_zeros_is_a_hole_in_all_tensors_that_lie_in_it(tmp_path: Path) -> None:
    lost = Lost(tmp_path, MODEL)
    start = lost.starts["b/bias"] // PAGE * PAGE
    lost.overwrite(start, bytes(PAGE))
    recovery = lost.recover()
    assert recovery["b/bias"].suspect == ((0, 77),)
    for name in ("a/kernel", "b/kernel"):
        assert recovery[name].suspect == lost.changed(name, start, start + PAGE)
    # All of it is suspect, and it is offered to whoever asks.
    assert not recovery["b/bias"].read(keep_suspect=True).any()


def test_noise_alone_is_offered_and_marked_throughout(tmp_path: Path) -> None:
    lost = Lost(tmp_path, MODEL)
    size = MODEL["b/kernel"].nbytes
    lost.overwrite(lost.starts["b/kernel"], noise(size))
    tensor = lost.recover()["b/kernel"]
    assert tensor.status == "unverified" and tensor.suspect == ((0, 130 * 77),)
    assert tensor.read(keep_suspect=True).tobytes() == noise(size)
    assert tensor.read().mask.all()


def test_strings_with_a_hole_are_marked(tmp_path: Path) -> None:
    words = np.array([b"abc" * 700] * 9, object)
    prefix, shapes = tmp_path / "model", {"words": {"dtype": "string", "shape": [9]}}
    ckptparse.write(prefix, {"words": words})
    (tmp_path / "model.index").unlink()
    data = tmp_path / "model.data-00000-of-00001"
    raw = bytearray(data.read_bytes())
    raw[2 * PAGE : 3 * PAGE] = bytes(PAGE)
    data.write_bytes(raw)
    tensor = ckptparse.recover(prefix, shapes=shapes)["words"]
    assert tensor.suspect == ((3, 6),)
    assert [bool(value) for value in tensor.read().mask] == [3 <= n < 6 for n in range(9)]


def test_a_stand_in_index_gives_marks_as_well(tmp_path: Path) -> None:
    lost = Lost(tmp_path, MODEL)
    ckptparse.write(tmp_path / "other", {name: 2 * array for name, array in MODEL.items()})
    lost.overwrite(20 * SECTOR, noise(SECTOR))
    recovery = ckptparse.recover(lost.prefix)
    assert recovery["a/kernel"].suspect == lost.changed("a/kernel", 20 * SECTOR, 21 * SECTOR)


def test_no_more_is_looked_at_than_the_limit_allows(tmp_path: Path) -> None:
    lost = Lost(tmp_path, {"a": weights((100, 10)), "b": weights((100, 10), 1)})
    lost.overwrite(SECTOR, noise(SECTOR))
    tensor = lost.recover(limits=ckptparse.Limits(attempts=0))["a"]
    assert tensor.suspect == () and "Limits.attempts" in tensor.note
    assert (tensor.read().reshape(-1)[:128] == lost.arrays["a"].reshape(-1)[:128]).all()


def test_elements_are_not_compared_where_none_is_wild(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged = []
    real = unchecked.judge_elements

    def counting(*args: Any, **options: Any) -> Any:
        judged.append(len(args[0]))
        return real(*args, **options)

    monkeypatch.setattr(unchecked, "judge_elements", counting)
    lost = Lost(tmp_path, MODEL)
    assert len(lost.recover()) == len(MODEL) and not judged
    lost.overwrite(20 * SECTOR, noise(SECTOR))
    assert len(lost.recover()) == len(MODEL) and judged == [MODEL["a/kernel"].nbytes]


# ------------------------------------------------------------------------------------- elements


def test_a_part_that_training_shrank_is_as_it_was() -> None:
    values = weights((4, 64, 128))
    values[:, :, 20:100] *= 1e-30
    values[:, 7] = 0
    assert judge_unchecked(values.tobytes(), DataType.DT_FLOAT) == ()
    assert not has_wild_elements(values.tobytes(), DataType.DT_FLOAT)


@pytest.mark.parametrize("end", [np.inf, np.nan])
def test_training_that_ended_in_infinities_is_as_it_was(end: float) -> None:
    values = weights((50, 50))
    values[20:] = end
    assert judge_unchecked(values.tobytes(), DataType.DT_FLOAT) == ()


def test_a_flipped_bit_of_an_exponent_is_marked_alone() -> None:
    values = weights((50, 50))
    values.reshape(-1).view("<u4")[700] ^= 1 << 30
    assert judge_unchecked(values.tobytes(), DataType.DT_FLOAT) == ((700, 701),)


@pytest.mark.parametrize("data_type", [DataType.DT_UINT8, DataType.DT_INT8])
def test_of_bytes_nothing_is_told(data_type: DataType) -> None:
    data = bytes(4096) + noise(4096)
    assert judge_unchecked(data, data_type) == ()


def test_noise_among_small_integers_is_marked_and_a_fill_value_is_not() -> None:
    values = np.random.default_rng(0).integers(0, 30_000, 4096)
    values[1024:1536] = -1
    assert judge_unchecked(values.tobytes(), DataType.DT_INT64) == ()
    raw = bytearray(values.tobytes())
    raw[SECTOR * 4 : SECTOR * 6] = noise(SECTOR * 2)
    assert judge_unchecked(bytes(raw), DataType.DT_INT64) == ((256, 384),)


KINDS = {
    "float32": (DataType.DT_FLOAT, "<f4"),
    "float64": (DataType.DT_DOUBLE, "<f8"),
    "float16": (DataType.DT_HALF, "<f2"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_of_a_thousand_sectors_of_noise_nearly_all_are_marked(kind: str) -> None:
    data_type, dtype = KINDS[kind]
    missed = 0
    rng = np.random.default_rng(3)
    for _ in range(100):
        values = rng.normal(0, 10 ** rng.uniform(-4, 0), 20_000).astype(dtype)
        raw = bytearray(values.tobytes())
        sectors = np.sort(rng.choice(len(raw) // SECTOR, 10, replace=False)).tolist()
        for sector in sectors:
            raw[sector * SECTOR : (sector + 1) * SECTOR] = rng.bytes(SECTOR)
        marked = np.zeros(len(values), np.bool_)
        for start, stop in judge_unchecked(bytes(raw), data_type):
            marked[start:stop] = True
        pieces = marked[: len(raw) // SECTOR * SECTOR // values.itemsize].reshape(
            -1, SECTOR // values.itemsize
        )
        missed += sum(not pieces[sector].all() for sector in sectors)
        assert not pieces[np.setdiff1d(np.arange(len(pieces)), sectors)].any()
    assert missed <= 5


def test_of_a_thousand_sound_tensors_nothing_is_marked() -> None:
    rng = np.random.default_rng(4)
    for _ in range(1000):
        shape = tuple(rng.integers(1, 60, int(rng.integers(1, 4))).tolist())
        scale = 10.0 ** rng.uniform(-12, 6, (shape[-1],))
        values = (rng.normal(0, 1, shape) * scale).astype("<f4")
        if rng.random() < 0.3:
            values **= 2
        if rng.random() < 0.3:
            values[rng.random(shape) < rng.random()] = 0
        offset = int(rng.integers(0, 5000))
        assert judge_unchecked(values.tobytes(), DataType.DT_FLOAT, offset=offset) == ()


# ---------------------------------------------------------------------------------------- zeros


def rightly_zero(rng: np.random.Generator) -> Arrays:
    """Make tensors that rightly hold zeros: rows, parts of rows, runs anywhere, all of one."""
    arrays: Arrays = {}
    for name in (f"layer_{number}" for number in range(20)):
        rows = int(rng.integers(20, 200))
        columns = int(
            rng.choice([8, 12, 32, 64, 100, 128, 192, 256, 300, int(rng.integers(5, 400))])
        )
        values = rng.normal(0, 1, (rows, columns)).astype("<f4")
        way = rng.integers(0, 6)
        if way == 0:
            values[np.sort(rng.choice(rows, rows // 2))] = 0
        elif way == 1:
            first = int(rng.integers(0, rows))
            values[first : first + int(rng.integers(1, rows))] = 0
        elif way == 2:
            parts = [n for n in (2, 3, 4) if columns % n == 0] or [1]
            values.reshape(rows, int(rng.choice(parts)), -1)[:, 0] = 0
        elif way == 3:
            first = int(rng.integers(0, values.size))
            values.reshape(-1)[first : first + int(rng.integers(1, 3000))] = 0
        elif way == 4:
            values[:] = 0
        arrays[f"{name}/kernel"] = values
        arrays[f"{name}/bias"] = np.zeros(columns, "<f4")
    return arrays


def test_of_a_thousand_tensors_no_zeros_that_they_rightly_hold_are_marked(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    marked = 0
    for number in range(50):
        directory = tmp_path / str(number)
        directory.mkdir()
        lost = Lost(directory, rightly_zero(rng))
        recovery = lost.recover()
        assert len(recovery) == len(lost.arrays)
        marked += sum(bool(tensor.suspect) for tensor in recovery.values())
    # Of each run that begins anywhere 1 in 1,000 is expected; a sixth of the tensors have one.
    assert marked <= 1


def test_of_a_thousand_lost_sectors_nearly_all_are_found(tmp_path: Path) -> None:
    rng = np.random.default_rng(6)
    found = 0
    for number in range(50):
        directory = tmp_path / str(number)
        directory.mkdir()
        arrays = {
            f"layer_{n}/kernel": weights((int(rng.integers(90, 99)), 101 + n), n) for n in range(9)
        }
        lost = Lost(directory, arrays)
        sectors = 3 + rng.permutation(lost.data.stat().st_size // SECTOR - 6)[:20]
        for sector in sectors.tolist():
            lost.overwrite(sector * SECTOR, bytes(SECTOR))
        recovery = lost.recover()
        marked = np.concatenate(
            [np.ma.getmaskarray(recovery[name].read()).reshape(-1) for name in arrays]
        )
        wrong = np.zeros(len(marked), np.bool_)
        for sector in sectors.tolist():
            here = slice(sector * SECTOR // 4, (sector + 1) * SECTOR // 4)
            wrong[here] = True
            found += bool(marked[here].all())
        assert not (marked & ~wrong).any()
    assert found >= 930


def test_many_runs_of_zeros_beside_take_the_meaning_of_one_that_is_like_a_sector(
    tmp_path: Path,
) -> None:
    values = weights((300, 101))
    flat = values.reshape(-1)
    for start in range(1000, 30_000, 700):
        flat[start + 3 : start + 203] = 0
    lost = Lost(tmp_path, {"a": values})
    start = 20 * SECTOR
    flat[: start // 4 + 300][start // 4 - 100 :] = 1.5
    lost.overwrite(0, values.tobytes())
    lost.overwrite(start, bytes(SECTOR))
    assert lost.recover()["a"].suspect == ()


STATE = [builder.variant_proto("tensorflow::Iterator", b"part %d" % n * (n + 1)) for n in range(5)]
WORDS = np.array([b"abc", b"defg", b"h"], object)
STATE_SIZE = len(builder.variant_payload(STATE)[0])


def objects(directory: Path, offset: int, *, lost: bool) -> ckptparse.Recovery:
    """Recover variants and strings, one byte changed: by their index, or by that of a sibling."""
    made = builder.Bundle()
    made.add_variants("it", STATE, (5,))
    made.add("words", WORDS)
    made.add("z", weights((90,)))
    made.write(directory / "model")
    if lost:
        for path in directory.glob("model.*"):
            shutil.copy(path, directory / path.name.replace("model", "other"))
        (directory / "model.index").unlink()
    data = directory / "model.data-00000-of-00001"
    raw = bytearray(data.read_bytes())
    raw[offset] ^= 1
    data.write_bytes(raw)
    return ckptparse.recover(directory / "model")


@pytest.mark.parametrize("lost", [False, True], ids=["own index", "sibling's index"])
@pytest.mark.parametrize(("offset", "whole"), [(STATE_SIZE + 60, 5), (100, 2)])
def test_variants_are_decoded_up_to_the_first_damaged_one(
    offset: int, whole: int, lost: bool, tmp_path: Path
) -> None:
    recovery = objects(tmp_path / "in", offset, lost=lost)
    tensor = recovery["it"]
    assert str(tensor.status) == ("unverified" if lost or whole < 5 else "verified")
    found = np.ma.masked_array(tensor.read())
    assert np.ma.getmaskarray(found).tolist() == [n >= whole for n in range(5)]
    parts = [b"part %d" % n * (n + 1) for n in range(whole)]
    assert [one.metadata for one in found[:whole]] == parts
    written = recovery.write(tmp_path / "out.ckpt", offer="plausible")
    assert written.filled == ({"it": ((whole, 5),)} if whole < 5 else {})
    again = ckptparse.read(tmp_path / "out.ckpt")["it"]
    assert [one.metadata for one in again] == [*parts, *[b""] * (5 - whole)]


def test_variants_and_strings_of_which_no_element_is_whole_are_not_offered(tmp_path: Path) -> None:
    for name, offset in {"it": 3, "words": STATE_SIZE + 1}.items():
        recovery = objects(tmp_path / name, offset, lost=True)
        assert name not in recovery and len(recovery) == 2
        report = recovery.report.tensors[name]
        assert str(report.status) == "corrupt"
        assert report.note.endswith("its bytes hold no whole element")


def test_of_variants_that_were_cut_off_the_first_are_there(tmp_path: Path) -> None:
    made = builder.Bundle()
    made.add_variants("it", STATE, (5,))
    made.write(tmp_path / "model")
    data = tmp_path / "model.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:-30])
    report = ckptparse.verify(tmp_path / "model").tensors["it"]
    assert (str(report.status), report.ranges) == ("partial", ((0, 4),))
    found = ckptparse.recover(tmp_path / "model")["it"].read()
    assert np.ma.getmaskarray(found).tolist() == [False] * 4 + [True]
    assert found[3].metadata == b"part 3" * 4
