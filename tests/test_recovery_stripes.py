"""Stripes of an array of disks, put together in the wrong order."""

from __future__ import annotations

from pathlib import Path

import builder
import numpy as np
import pytest

import ckptparse
from ckptparse.coding.checksum import crc32c
from ckptparse.files.memory import MemorySource
from ckptparse.recovery.stripes import Found, find_stripes, try_stripes

ROW = 8


def permute(data: bytes, size: int, order: list[int]) -> bytes:
    """Put stripes together so that the one of number `order[n]` is what belongs at n."""
    row = size * len(order)
    out = bytearray(data)
    for start in range(0, len(data) // row * row, row):
        for number, there in enumerate(order):
            piece = data[start + number * size : start + (number + 1) * size]
            out[start + there * size : start + (there + 1) * size] = piece
    return bytes(out)


def payloads(data: bytes, mixed: bytes, size: int) -> list[Found]:
    """Find small payloads wherever they lie."""
    rng = np.random.default_rng(0)
    starts = rng.integers(0, len(data) - 3000, 60).tolist()
    runs = [(start, int(rng.integers(200, 3000))) for start in starts]
    whole = [
        (start, count) for start, count in runs if start // size == (start + count - 1) // size
    ]
    return [Found(start, mixed.index(data[start : start + count]), count) for start, count in whole]


@pytest.mark.parametrize("order", [[1, 0], [2, 0, 1], [0, 3, 2, 1], [4, 3, 2, 1, 0]])
@pytest.mark.parametrize("size", [4096, 65536])
def test_the_order_of_stripes_is_found_and_undone(size: int, order: list[int]) -> None:
    data = np.random.default_rng(1).bytes(size * len(order) * 5 + 1000)
    mixed = permute(data, size, order)
    stripes = find_stripes(payloads(data, mixed, size))
    assert stripes is not None
    undone = stripes.undo(MemorySource("x", mixed))
    assert undone.read_at(0, undone.size) == data


def test_payloads_at_their_places_are_no_case_of_stripes() -> None:
    assert find_stripes([Found(n, n, 100) for n in range(0, 10_000, 500)]) is None


def test_a_thousand_sets_of_random_places_have_no_order() -> None:
    rng = np.random.default_rng(2)
    for _ in range(1000):
        places = rng.integers(0, 1 << 22, (12, 2)).tolist()
        assert find_stripes([Found(a, b, 100) for a, b in places]) is None


def test_three_payloads_are_too_few() -> None:
    data = np.random.default_rng(1).bytes(4096 * 8)
    mixed = permute(data, 4096, [1, 0])
    few = payloads(data, mixed, 4096)[:3]
    assert find_stripes(few) is None


class Counting(MemorySource):
    """Counts the bytes that are read."""

    read = 0

    def read_at(self, offset: int, size: int) -> bytes:
        self.read += size
        return super().read_at(offset, size)


@pytest.mark.parametrize("order", [[1, 0], [2, 0, 1], [4, 3, 2, 1, 0]])
def test_of_all_orders_the_one_is_found_that_makes_two_payloads_right(order: list[int]) -> None:
    data = np.random.default_rng(3).bytes(16384 * len(order) * 5 + 1000)
    source = Counting("x", permute(data, 16384, order))
    runs = [(5_000, 60_000), (90_000, 40_001), (len(data) - 30_000, 30_000)]
    told = [(start, count, crc32c(data[start : start + count])) for start, count in runs]
    stripes = try_stripes(source, told)
    assert stripes is not None
    undone = stripes.undo(source)
    assert undone.read_at(0, undone.size) == data


def test_to_try_all_orders_each_byte_is_read_once_for_each_size_and_number_of_disks() -> None:
    source = Counting("x", np.random.default_rng(4).bytes(8 << 20))
    assert try_stripes(source, [(0, 1 << 21, 1), (1 << 21, 1 << 21, 2)]) is None
    # Nine sizes, two to five disks; of the last row of stripes more than is needed.
    assert source.read <= 9 * 4 * (2 << 20) + 4 * sum(5 << power for power in range(12, 21))


def test_the_stripes_of_an_incomplete_row_are_put_in_order_too(tmp_path: Path) -> None:
    """The last row has a shorter stripe, which lies before the others."""
    rng = np.random.default_rng(7)
    made = builder.Bundle()
    arrays = {f"l{n}/k": rng.normal(0, 0.05, (90 + 7 * n, 128)).astype("<f4") for n in range(24)}
    arrays |= {f"l{n}/b": rng.normal(0, 0.1, 300).astype("<f2") for n in range(0, 24, 5)}
    for name, array in sorted({**arrays, "step": np.int64(5)}.items()):
        made.add(name, array)
    made.write(tmp_path / "model")
    data = tmp_path / "model.data-00000-of-00001"
    raw = data.read_bytes()
    stripes = [raw[start : start + 4096] for start in range(0, len(raw), 4096)]
    assert not len(stripes) % 3 and len(stripes[-1]) < 4096
    rows = [stripes[start : start + 3] for start in range(0, len(stripes), 3)]
    data.write_bytes(b"".join(row[number] for row in rows for number in (2, 0, 1)))
    recovery = ckptparse.recover(tmp_path / "model")
    assert all(tensor.status.proved for tensor in recovery.values())
    assert "set.mixed" not in {problem.code for problem in recovery.report.problems}
    assert "mixed save" not in {str(tensor.cause) for tensor in recovery.report.tensors.values()}


def test_a_data_file_that_is_known_to_be_another_one_is_of_no_other_save(tmp_path: Path) -> None:
    """It has the bytes of the next one, damaged, and its own are lost."""
    made = builder.Bundle()
    made.shards = {0: bytearray(), 1: bytearray()}
    for number in range(8):
        values = np.random.default_rng(number).normal(size=(64, 64)).astype("<f4")
        made.add(f"w{number}", values, shard=number // 4)
    made.write(tmp_path / "model")
    first, second = (tmp_path / f"model.data-0000{number}-of-00002" for number in range(2))
    raw = bytearray(second.read_bytes())
    raw[5000:5512] = bytes(512)
    first.write_bytes(raw)
    second.unlink()
    recovery = ckptparse.recover(tmp_path / "model")
    assert "set.mixed" not in {problem.code for problem in recovery.report.problems}
    found = {name: (str(one.status), str(one.cause)) for name, one in recovery.items()}
    assert {found[f"w{number}"] for number in range(4)} == {("unverified", "swapped")}
    assert {found[f"w{number}"] for number in range(5, 8)} == {("corrected", "swapped")}


def few_tensors(directory: Path, sizes: list[int]) -> tuple[Path, dict[str, object]]:
    rng = np.random.default_rng(sum(sizes))
    arrays = {f"l{n}": rng.normal(0, 0.05, size).astype("<f4") for n, size in enumerate(sizes)}
    arrays["step"] = np.int64(1000)
    made = builder.Bundle()
    for name, array in arrays.items():
        made.add(name, np.asarray(array))
    made.write(directory / "model")
    return directory / "model.data-00000-of-00001", arrays


@pytest.mark.parametrize("order", [(1, 0), (2, 0, 1), (3, 0, 2, 1), (2, 3, 4, 1, 0)])
@pytest.mark.parametrize("size", [4096, 8192])
def test_the_order_of_few_tensors_is_found(
    order: tuple[int, ...], size: int, tmp_path: Path
) -> None:
    data, arrays = few_tensors(tmp_path, [1100, 900, 2100, 640, 1500])
    raw = data.read_bytes()
    stripes = [raw[start : start + size] for start in range(0, len(raw), size)]
    rows = [stripes[start : start + len(order)] for start in range(0, len(stripes), len(order))]
    data.write_bytes(b"".join(row[n] for row in rows for n in order if n < len(row)))
    recovery = ckptparse.recover(tmp_path / "model")
    assert "set.mixed" not in {problem.code for problem in recovery.report.problems}
    for name, array in arrays.items():
        assert recovery[name].status.proved and (recovery[name].read() == array).all(), name


def test_parts_in_an_order_that_is_not_found_are_no_other_save(tmp_path: Path) -> None:
    data, arrays = few_tensors(tmp_path, [400, 1100, 900, 2100, 640, 1500])
    raw = data.read_bytes()
    pieces = [raw[start : start + 2048] for start in range(0, len(raw), 2048)]
    order = np.random.default_rng(3).permutation(len(pieces) - 1)
    data.write_bytes(b"".join(pieces[n] for n in order) + pieces[-1])
    recovery = ckptparse.recover(tmp_path / "model")
    problems = {problem.code: problem.message for problem in recovery.report.problems}
    assert "set.mixed" not in problems and "shard.shifted" in problems
    assert any("in another order" in one.message for one in recovery.report.problems)
    for name, tensor in recovery.items():
        assert str(tensor.cause) != "mixed save"
        assert not tensor.status.proved or (tensor.read() == arrays[name]).all()


def test_few_orders_are_tried_of_many_small_files(tmp_path: Path, monkeypatch: object) -> None:
    """Trying all takes a tenth of a second a file: only the first few are so examined."""
    made = builder.Bundle()
    made.shards = {n: bytearray() for n in range(9)}
    for n in range(27):
        values = np.random.default_rng(n).normal(0, 0.05, 1500).astype("<f4")
        made.add(f"w{n:02}", values, shard=n % 9)
    made.write(tmp_path / "model")
    for path in tmp_path.glob("*.data-*"):
        raw = path.read_bytes()
        path.write_bytes(raw[8192:16384] + raw[:8192] + raw[16384:][::-1])
    from ckptparse.recovery.evidence import places

    asked = []
    own = places.try_all
    monkeypatch.setattr(places, "try_all", lambda *args: asked.append(1) or own(*args))  # type: ignore[attr-defined]
    ckptparse.recover(tmp_path / "model")
    assert 1 <= len(asked) <= 4
