"""What a newcomer gets wrong is told with its cause, and with what to do; nothing else happens."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ckptparse

Call = Callable[[str], Any]


@pytest.fixture(autouse=True)
def _model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write `run/model`, 5 tensors; `index_lost/model` is its data file alone; `out` is empty."""
    monkeypatch.chdir(tmp_path)
    for name in ("run", "index_lost", "out"):
        Path(name).mkdir()
    random = np.random.default_rng(1)
    weights = {f"layer{n}/kernel": random.normal(size=(8, 8)).astype("f4") for n in range(4)}
    ckptparse.write("run/model", {**weights, "global_step": np.int64(1)})
    shutil.copy("run/model.data-00000-of-00001", "index_lost")


# Streams.


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_a_closed_stream_is_no_error(closed: str, run: Callable[..., Any]) -> None:
    assert run(f"ckptparse ls run {closed}").code == 0
    assert run(f"ckptparse verify run {closed}").code == 0
    done = run(f"ckptparse ls nothere {closed}")
    assert done.code == 2 and "unexpected" not in done.err


# What to do next.


def test_a_limit_is_to_be_raised_rather_than_files_fetched(call: Call) -> None:
    for command in ("verify run", "recover run/model -n", "recover run/model -o out/m.ckpt"):
        done = call(f"ckptparse {command} --limit entries=1 --json")
        assert "none of them can be used" not in done.out + done.err
    assert "ckptparse verify run/model --limit entries=..." in done.err
    assert (
        "raise the limit" in ckptparse.verify("run", limits=ckptparse.Limits(entries=1)).next_step
    )


def test_what_lacks_an_index_needs_names_and_shapes(call: Call) -> None:
    step = ckptparse.verify("index_lost/model").next_step
    assert "no index" in step and "--from FILE" in step and "--shapes FILE" in step
    done = call("ckptparse recover index_lost/model -o out/m.ckpt")
    assert done.code == 2
    assert "problem\terror\tindex.missing" in done.out
    assert "file 'index_lost/model'" in done.err and "--shapes FILE" in done.err


def test_what_is_not_proved_is_saved_by_the_command_that_is_named(
    call: Call, fixtures: Path
) -> None:
    Path("m").mkdir()
    for path in (fixtures / "graphs/saver_to_rebuild").glob("model.[dm]*"):
        shutil.copy(path, "m")
    step = ckptparse.verify("m/model").next_step
    assert step.endswith("-o OUT --offer plausible` saves 6 of 6 tensors, none of them proved")
    refused = call("ckptparse recover m/model -o out/m.ckpt")
    assert refused.code == 2 and refused.out.count("tensor\t") == 6
    assert "--offer plausible" in refused.err
    assert not Path("out/m.ckpt.index").exists()
    as_json = json.loads(call("ckptparse recover m/model -o out/m.ckpt --json").out)
    assert as_json["exit"] == 2 and len(as_json["errors"]) == 1
    assert as_json["result"]["written"] is None
    assert call("ckptparse recover m/model -o out/m.ckpt --offer plausible").code == 1
    assert Path("out/m.ckpt.index").exists()
