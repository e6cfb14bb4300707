"""The harnesses of fuzz/ run, and see what is wrong."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
import warnings
from itertools import repeat
from pathlib import Path

import builder
import numpy as np
import pytest

import ckptparse

ROOT = Path(__file__).resolve().parents[1]
if not (ROOT / "fuzz").is_dir():
    pytest.skip("fuzz/ is not part of what is unpacked here", allow_module_level=True)
pytest.importorskip("resource", reason="what memory a harness took is asked of Unix")
sys.path.insert(0, str(ROOT))

from fuzz import driver, mutators  # noqa: E402
from fuzz.driver import Findings, runner  # noqa: E402
from fuzz.oracle import BrokenPromiseError, agree, attempt, guarded  # noqa: E402
from fuzz.packing import pack, unpack  # noqa: E402
from fuzz.targets import TARGETS, Target  # noqa: E402


@pytest.mark.parametrize("name", TARGETS)
def test_a_harness_runs_its_seeds_and_changes_of_them(name: str) -> None:
    target = TARGETS[name]
    rng = random.Random(name)
    seeds = sorted(set(target.seeds()), key=len)
    assert seeds
    for seed in rng.sample(seeds, min(3, len(seeds))):
        for data in (seed, *(target.mutate(seed, rng) for _ in range(3))):
            with guarded():
                target.run(data)


def test_harnesses_need_no_package_of_the_tests() -> None:
    code = f"import sys; sys.modules['pytest'] = None; sys.path[:0] = [{str(ROOT)!r}]"
    code += "; import fuzz.driver, fuzz.targets; assert len(fuzz.targets.TARGETS) > 20"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", ["table", "bundle"])
def test_most_changes_get_past_the_checksums(name: str) -> None:
    target = TARGETS[name]
    rng = random.Random(1)
    seeds = list(target.seeds())
    changed = [target.mutate(rng.choice(seeds), rng) for _ in range(200)]
    tables = [data if name == "table" else unpack(data, 1)[0] for data in changed]
    found = [attempt(ckptparse.list_variables, "m", store={"m.index": data}) for data in tables]
    refused = [one for one in found if isinstance(one, ckptparse.ChecksumError)]
    assert len(refused) < 40
    assert sum(isinstance(one, list) for one in found) > 20


@pytest.mark.parametrize("contents", [b"", b"ab", b"\x00\x00\x00", bytes(4), b"\xff" * 4])
def test_blocks_of_any_size_are_changed(contents: bytes) -> None:
    stored = [builder.Stored(contents, kind, key=b"k") for kind in (builder.RAW, builder.SNAPPY)]
    for data in (bytes(builder.assemble([one]).data) for one in stored):
        for seed in range(20):
            assert mutators.table(data, random.Random(seed))


@pytest.mark.parametrize(
    "error", [ValueError("x"), RecursionError(), MemoryError(), BrokenPromiseError("y")]
)
def test_an_exception_of_another_kind_is_kept_once_with_its_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(_: bytes) -> None:
        raise error

    monkeypatch.setitem(TARGETS, "odd", Target("odd", fail, lambda: iter([b""]), mutators.blind))
    counter = driver.new_counter()
    run = runner("odd", Findings(tmp_path), counter)
    run(b"first")
    run(b"second")
    assert driver.count_of(counter) == 2
    Findings(tmp_path).add_hung(counter)
    (note,) = tmp_path.glob("*.txt")
    assert type(error).__name__ in note.read_text(encoding="utf-8")
    assert note.with_suffix("").read_bytes() == b"first"


def test_warnings_of_others_and_unsafe_messages_are_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DeprecationWarning), guarded():
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    monkeypatch.setattr(ckptparse.CheckpointError, "__str__", lambda _: "\x1b[2J")

    def fail() -> None:
        raise ckptparse.MalformedError("x")

    with pytest.raises(BrokenPromiseError, match="not safe"):
        attempt(fail)


def spin() -> None:
    while True:
        pass


def test_an_input_that_takes_too_much_processor_time_is_wrong(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(driver, "_STUCK", 0.1)
    with pytest.raises(TimeoutError, match="processor time"), driver.ended_in_time():
        spin()


def test_an_input_that_waits_for_ever_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "_WAITING", 1)
    with pytest.raises(TimeoutError, match="more than 1 seconds"), driver.ended_in_time():
        time.sleep(30)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the process ends")
def test_an_input_in_which_a_library_never_ends_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No handler of a signal runs before the library returns."""
    monkeypatch.setattr(driver, "_HUNG", 0.3)
    hung = Target(
        "odd", lambda data: sum(repeat(len(data) and 0)), lambda: iter([b""]), mutators.blind
    )
    monkeypatch.setitem(TARGETS, "odd", hung)
    counter = driver.new_counter()
    child = os.fork()
    if not child:
        runner("odd", Findings(tmp_path), counter)(b"seventeen letters")
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
    Findings(tmp_path).add_hung(counter)
    (note,) = tmp_path.glob("*.txt")
    assert "Timeout" in note.read_text(encoding="utf-8")
    assert {path.read_bytes() for path in tmp_path.iterdir() if path != note} == {
        b"seventeen letters"
    }


def test_all_seeds_are_run_before_the_time_of_what_was_kept_begins() -> None:
    ran: list[bytes] = []

    def run(data: bytes) -> None:
        ran.append(data)
        if data == b"seed 3":
            raise BrokenPromiseError("wrong")

    names = [b"seed %d" % number for number in range(9)]
    target = Target("odd", run, lambda: iter(names), mutators.blind)
    assert driver.replay(target, [b"kept", names[0]], 0.01) == 1
    assert sorted(ran[:9]) == names
    assert ran[9] == b"kept"
    assert len(ran) > 10


@pytest.mark.parametrize("runs", [0, 3])
def test_a_harness_ends_when_it_ran_so_often(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runs: int
) -> None:
    monkeypatch.setattr(driver, "INTO", tmp_path)
    counter = driver.new_counter()
    driver.repeat("text", 60, counter, runs=runs)
    assert driver.count_of(counter) == runs


def test_answers_that_disagree_are_wrong() -> None:
    store = dict(zip(("m.index", "m.data-00000-of-00001"), bundle(), strict=True))
    values = ckptparse.read("m", store=store)
    report = ckptparse.verify("m", store=store)
    agree(values, report, values)
    other = {name: np.zeros(9) for name in values}
    lost = ckptparse.MalformedError("x")
    for wrong in ((values, report, other), (values, lost, values), (values, report, lost)):
        with pytest.raises(BrokenPromiseError):
            agree(*wrong)
    with pytest.raises(BrokenPromiseError, match="all is well"):
        agree(lost, report, values)


def bundle() -> list[bytes]:
    import builder as b

    made = b.Bundle()
    made.add("w", np.arange(4, dtype=np.float32))
    return list(made.files("m").values())


def test_files_that_are_packed_come_apart_again() -> None:
    files = [b"a", b"", b"bcd"]
    assert unpack(pack(files), 3) == files
    assert unpack(pack(files)[:6], 3) == [b"a", b"", b""]
