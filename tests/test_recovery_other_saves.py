"""The index is of another save, and the data files are damaged besides.

Then little may be left that differs between the two, such as a counter: its bytes and the number
that its checksum asks for differ by one byte, as after damage.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import builder
import faults
import numpy as np
import other_saves
import pytest

import ckptparse


def promised_wrongly(recovery: ckptparse.Recovery, case: other_saves.Case) -> list[str]:
    """Name what is promised and is not this save's, but for bytes that are as the index says."""
    wrong = faults.judge(recovery, case.this).wrong
    return [one for one in wrong if not is_the_others(recovery, case, one.split(" ")[0])]


def is_the_others(recovery: ckptparse.Recovery, case: other_saves.Case, name: str) -> bool:
    # Damage may leave the very bytes of the other save: a flag has two values.
    same = faults.same(recovery[name].read(), case.other[name])
    return bool(recovery[name].status == "verified" and same)


SEEDS = [34, 79, 88, 151, 162, 354, 413, 462, 563, 564, 800, 842, 890, 907, 958, 969, 1165]


@pytest.mark.parametrize("seed", [*SEEDS, *range(2000, 2060)])
def test_nothing_is_promised_of_a_save_that_the_index_is_not_of(seed: int, tmp_path: Path) -> None:
    case = other_saves.make(seed, tmp_path)
    recovery = ckptparse.recover(case.prefix)
    if case.is_told:
        assert promised_wrongly(recovery, case) == [], case.happened


def weights(seed: int, rows: int = 60) -> Any:
    return np.random.default_rng(seed).normal(0, 0.05, (rows, 32)).astype(np.float32)


def write(directory: Path, arrays: dict[str, Any], index_of: dict[str, Any] | None = None) -> Path:
    """Write a checkpoint, perhaps with the index of another save; return its data file."""
    for name, save in (("m", arrays), ("other", index_of or arrays)):
        made = builder.Bundle()
        for key, array in save.items():
            made.add(key, np.asarray(array))
        made.write(directory / name)
    shutil.copy(directory / "other.index", directory / "m.index")
    for path in directory.glob("other.*"):
        path.unlink()
    return directory / "m.data-00000-of-00001"


def zeros(start: int) -> Callable[[bytearray], None]:
    return lambda data: data.__setitem__(slice(start, start + 512), bytes(512))


@pytest.mark.parametrize("damage", ["sector", "CRLF and a sector", "bit", "cut"])
def test_a_counter_beside_other_damage_is_not_promised(damage: str, tmp_path: Path) -> None:
    """All that differs between the saves is one layer, which is damaged, and the counter."""
    frozen = {f"a{n}": weights(n) for n in range(3)}
    this = {**frozen, "b": weights(10), "step": np.int64(1000), "z": weights(5)}
    other = {**this, "b": weights(11), "step": np.int64(1100)}
    if damage == "bit":
        other["b"] = this["b"]
    path = write(tmp_path, this, other)
    start = 3 * 7680
    if damage == "bit":
        faults.change(path, lambda data: faults.flip(data, start + 3000, 2))
    elif damage == "cut":
        faults.change(path, lambda data: data.__delitem__(slice(len(data) - 100, None)))
        faults.change(path, zeros(start + 512))
    else:
        faults.change(path, zeros(start + 512))
    if damage.startswith("CRLF"):
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    recovery = ckptparse.recover(tmp_path / "m")
    tensor = recovery["step"]
    assert tensor.status == "unverified" and tensor.read() == 1000
    assert tensor.note.endswith("it is 1100") and "save" in tensor.note
    for name, array in frozen.items():
        assert recovery[name].status.proved and faults.same(recovery[name].read(), array)
    if damage == "bit":
        # A bit of weights is proved all the same.
        assert recovery["b"].status == "corrected" and faults.same(recovery["b"].read(), this["b"])


def test_a_byte_of_a_counter_is_corrected_if_nothing_else_is_damaged(tmp_path: Path) -> None:
    arrays = {"a": weights(1), "step": np.int64(1000), "z": weights(2)}
    path = write(tmp_path, arrays)
    faults.change(path, lambda data: data.__setitem__(7680, 76))
    tensor = ckptparse.recover(tmp_path / "m")["step"]
    assert tensor.status.proved and tensor.read() == 1000


def test_a_counter_in_a_damaged_sector_is_derived(tmp_path: Path) -> None:
    """Noise reaches from the end of the weights over the counter: nothing of it is left."""
    arrays = {"a": weights(1, 80), "b": weights(3), "step": np.int64(1000), "z": weights(2)}
    path = write(tmp_path, arrays)
    step = 10240 + 7680
    noise = np.random.default_rng(1).bytes(1024)
    faults.change(path, lambda data: data.__setitem__(slice(step - 512, step + 512), noise))
    recovery = ckptparse.recover(tmp_path / "m")
    assert recovery["step"].status == "derived" and recovery["step"].read() == 1000


def test_numbers_promise_nothing_where_no_weights_are_whole(tmp_path: Path) -> None:
    """A conversion that is not undone: nothing shows that the index is of this save."""
    arrays = {"a": weights(1), "b": weights(3), "rate": np.float32(0.5), "step": np.int64(1000)}
    path = write(tmp_path, arrays)
    raw = path.read_bytes()
    path.write_bytes(bytes(byte ^ 0x55 for byte in raw)[::-1])
    recovery = ckptparse.recover(tmp_path / "m")
    assert {str(tensor.status) for tensor in recovery.values()} <= {"unverified"}
    path.write_bytes(bytes(len(raw)))
    recovery = ckptparse.recover(tmp_path / "m")
    assert recovery["step"].status == "derived" and recovery["step"].read() == 1000


def test_a_converted_tensor_of_a_damaged_entry_is_offered_with_its_bytes(tmp_path: Path) -> None:
    """Its checksum agrees once the conversion is undone; it is small, or constant, or like text."""
    arrays = {f"a{n}": weights(n) for n in range(3)}
    arrays |= {"flags": np.full(2000, 65, np.int8), "rate": np.float32(0.5)}
    path = write(tmp_path, arrays)
    index = tmp_path / "m.index"
    end = faults.data_end(write_index(tmp_path, arrays))
    faults.change(index, lambda data: data.__setitem__(slice(end - 4, end), b"lost"))
    path.write_bytes(path.read_bytes().decode("latin-1").encode())
    recovery = ckptparse.recover(tmp_path / "m")
    for name, array in arrays.items():
        assert (recovery[name].read() == array).all(), name


def write_index(directory: Path, arrays: dict[str, Any]) -> bytes:
    write(directory / "again", arrays)
    return (directory / "again" / "m.index").read_bytes()


def test_two_numbers_that_fail_alone_are_another_save(tmp_path: Path) -> None:
    frozen = {f"a{n}": weights(n) for n in range(3)}
    this = {**frozen, "rate": np.float32(0.5), "step": np.int64(1000)}
    other = {**frozen, "rate": np.float32(0.25), "step": np.int64(1100)}
    write(tmp_path, this, other)
    recovery = ckptparse.recover(tmp_path / "m")
    for name, array in this.items():
        assert faults.same(recovery[name].read(), array), name
    assert recovery["rate"].status == recovery["step"].status == "unverified"


def test_damage_is_seen_where_it_is_also_if_a_copy_has_what_was_there(tmp_path: Path) -> None:
    """What is damaged does not speak against the index, whether it is found elsewhere or not."""
    rng = np.random.default_rng(4)
    arrays: dict[str, Any] = {f"b{n}": rng.normal(size=32).astype(np.float32) for n in range(9)}
    arrays["b4_rate"] = np.float32(0.375)
    arrays["b4_step"] = np.int64(70_000)
    arrays["kernel"] = rng.normal(size=(40, 40)).astype(np.float32)
    bundle = builder.Bundle()
    for name, value in sorted(arrays.items()):
        bundle.add(name, value)
    bundle.write(tmp_path / "m")
    copy = Path(shutil.copytree(tmp_path, tmp_path.parent / f"{tmp_path.name}-copy"))
    data = tmp_path / "m.data-00000-of-00001"
    raw = data.read_bytes()
    data.write_bytes(rng.bytes(1164) + raw[1164:])
    alone = ckptparse.recover(tmp_path / "m")
    assert alone["b4_rate"].status == alone["b4_step"].status == "derived"
    helped = ckptparse.recover(tmp_path / "m", evidence=[copy])
    assert [name for name in arrays if not helped[name].status.proved] == []
    assert faults.judge(helped, arrays).wrong == ()


def test_what_lost_a_byte_here_and_there_is_what_a_copy_has(tmp_path: Path) -> None:
    """All carriage returns were taken out: that is undone only if they stood before line feeds."""
    arrays: dict[str, Any] = {f"w{n}": weights(n, 64) for n in range(4)} | {"step": np.int64(70000)}
    path = write(tmp_path, arrays)
    path.write_bytes(path.read_bytes().replace(b"\r", b""))
    np.savez(tmp_path / "e.npz", **arrays)
    recovery = ckptparse.recover(tmp_path / "m", evidence=[tmp_path / "e.npz"])
    assert [name for name in arrays if not recovery[name].status.proved] == []
    assert faults.judge(recovery, arrays).wrong == ()


def test_another_save_of_which_few_rows_differ_is_not_the_same(tmp_path: Path) -> None:
    """Rows of 32 bytes: what is equal between them lies in pieces, and none is nearer."""
    mine = np.random.default_rng(1).normal(size=(500, 8)).astype(np.float32)
    other = mine.copy()
    other[::9] += 1
    write(tmp_path, {"e": mine, "w": weights(1)}, {"e": other, "w": weights(2)})
    np.savez(tmp_path / "e.npz", e=other, w=weights(2))
    recovery = ckptparse.recover(tmp_path / "m", evidence=[tmp_path / "e.npz"])
    assert not recovery["e"].status.proved
