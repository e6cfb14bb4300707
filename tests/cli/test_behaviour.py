"""Exit codes, outputs that are refused, messages, interrupts: what scripts rely on."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ckptparse
from ckptparse.cli.app import COMMANDS
from ckptparse.cli.commands import convert
from ckptparse.jobs.derived import FLOATS
from ckptparse.text import escape, size_text, unescape

Call = Callable[[str], Any]

CODES = {
    "ls fixtures/saver/my_model": 0,
    "verify fixtures/saver/my_model": 0,
    "recover -n fixtures/saver/my_model": 0,
    "explain 'not an sstable'": 0,
    # Damage.
    "verify fixtures/slices/hole/model": 1,
    "verify fixtures/saver/my_model fixtures/slices/hole/model": 1,
    "verify fixtures/saver/nix fixtures/slices/hole/model": 1,
    "recover -n fixtures/slices/hole/model": 1,
    "show fixtures/slices/hole/model holed": 1,
    # Whole after repairs.
    "recover -n fixtures/crash/truncated_index/model": 3,
    "recover -n fixtures/crash/temp_directory": 3,
    # Could not run.
    "recover -n fixtures/saver/nix": 2,
    "ls": 2,
    "ls --nix fixtures/saver/my_model": 2,
    "ls --long --tree fixtures/saver/my_model": 2,
    "ls fixtures/saver/nix": 2,
    "ls fixtures/saver/my_model.json": 2,
    "show fixtures/saver/my_model nix": 1,
    "show fixtures/saver/my_model 'weights[9]'": 2,
    "show fixtures/saver/my_model 'weights[0, 0, 0]'": 2,
    "show fixtures/saver/my_model 'weights[a]'": 2,
    "recover fixtures/slices/hole/model": 2,
    "explain 'all is well'": 2,
    "latest fixtures/names": 2,
    "verify fixtures/saver/nix": 2,
    "verify fixtures/saver/my_model fixtures/saver/nix": 2,
    "identify fixtures/saver/nix": 2,
    "dump fixtures/saver/checkpoint": 2,
}


@pytest.mark.parametrize("command", CODES)
def test_the_exit_code_says_how_it_went(command: str, call: Call) -> None:
    done = call(f"ckptparse {command}")
    assert done.code == CODES[command], done.err
    assert "Traceback" not in done.err


def test_warnings_alone_are_code_3(tmp_path: Path, fixtures: Path, call: Call) -> None:
    home = tmp_path / "other"
    home.mkdir()
    for name in ("my_model.index", "my_model.data-00000-of-00001"):
        (home / name).write_bytes((fixtures / "saver" / name).read_bytes())
    with (home / "my_model.data-00000-of-00001").open("ab") as file:
        file.write(b"junk")
    assert call(f"ckptparse verify {home}/my_model").code == 3
    assert call(f"ckptparse recover -n {home}/my_model").code == 3
    (home / "checkpoint").write_text(
        'model_checkpoint_path: "gone"\nall_model_checkpoint_paths: "my_model"\n'
    )
    done = call(f"ckptparse latest {home}")
    assert done.code == 3
    assert done.out == f"{home}/my_model\n"
    assert "warning" in done.err


# Messages.


def test_an_error_says_what_where_and_what_to_try(call: Call) -> None:
    lines = call("ckptparse show fixtures/saver/my_model weihgts").err.splitlines()
    assert lines[0].startswith("ckptparse: error: ")
    assert lines[1] == "  at: tensor 'weihgts', file 'fixtures/saver/my_model'"
    assert lines[2] == "  try: did you mean 'weights'?"


@pytest.mark.parametrize(
    "options",
    [
        "convert {} {}/o.npz --dtype zz",
        "convert {} {}/o.npz --dtype --drop-slots",
        "average {} -o {}/o -w 0",
        "average {} -o {}/o -w nan",
        "average {} -o {}/o -w inf",
        "average {} -o {}/o -w abc",
        "average {0} {0} -o {1}/o -w 1e308 -w 1e308",
        "average {0} {0} -o {1}/o -w 1",
        "diff {0} {0} --rtol nan",
        "diff {0} {0} --atol -1",
    ],
)
def test_a_wrong_value_of_an_option_is_no_unexpected_error(
    options: str, call: Call, tmp_path: Path
) -> None:
    done = call("ckptparse " + options.format("fixtures/saver/my_model", tmp_path))
    assert done.code == 2 and "unexpected" not in done.err
    assert done.err.startswith("ckptparse: error: ") or "Invalid value" in done.err
    assert not list(tmp_path.glob("o*"))


@pytest.mark.parametrize("command", COMMANDS)
def test_an_option_that_takes_a_value_cannot_do_without(command: str, call: Call) -> None:
    import click

    from ckptparse.cli.app import PROGRAM

    there = PROGRAM.get_command(click.Context(PROGRAM), command)
    options = [one for one in there.params if isinstance(one, click.Option)]
    for name in (one.opts[0] for one in options if not one.is_flag):
        done = call(f"ckptparse {command} a b {name}")
        assert done.code == 2
        assert f"Option '{name}' requires an argument" in done.err


@pytest.mark.parametrize("command", ["page", "average"])
def test_an_output_that_must_be_named_is_asked_for(command: str, call: Call) -> None:
    done = call(f"ckptparse {command} fixtures/saver/my_model")
    assert done.code == 2
    assert "Missing option '--output' / '-o'" in done.err
    assert not done.out


def test_every_kind_of_floats_is_a_dtype_to_convert_to() -> None:
    names = {kind for kind in ckptparse.DataType if kind.name.startswith(convert._FLOATS)}
    assert names == FLOATS


def test_a_mistyped_path_is_told_what_lies_there(call: Call) -> None:
    # What the error names already is not named again.
    assert call("ckptparse ls fixtures/saver/mymodel").err.count("fixtures/saver/my_model") == 1
    assert "there are: " in call("ckptparse ls fixtures/shards/zzz").err
    assert "'fixtures/saver'" in call("ckptparse ls fixtures/savr/my_model").err


def test_a_hint_names_commands_rather_than_functions(call: Call, tmp_path: Path) -> None:
    shutil.copy("fixtures/saver/my_model.index", tmp_path)
    done = call(f"ckptparse show {tmp_path}/my_model weights")
    assert "`ckptparse recover`" in done.err
    assert "ckptparse.recover" not in done.err


def test_a_traceback_comes_with_debug_only(call: Call) -> None:
    assert "Traceback" not in call("ckptparse ls nix").err
    done = call("ckptparse ls --debug nix")
    assert "Traceback" in done.err
    assert done.code == 2


def test_what_nobody_expected_is_no_damage_and_shows_no_traceback(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(text: str) -> None:
        raise RuntimeError(f"no idea about {text}")

    monkeypatch.setattr(ckptparse, "explain", fail)
    done = call("ckptparse explain this")
    assert done.code == 2
    assert done.err.splitlines()[0] == (
        "ckptparse: error: unexpected RuntimeError: no idea about this"
    )
    assert "Traceback" not in done.err
    assert "Traceback" in call("ckptparse explain this --debug").err


def test_quiet_leaves_errors_and_answers(call: Call) -> None:
    loud = call("ckptparse ls fixtures/saver/my_model")
    quiet = call("ckptparse ls -q fixtures/saver/my_model")
    assert loud.out == quiet.out
    assert loud.err == "2 tensors, 16 elements, 64 B\n"
    assert quiet.err == ""
    assert "error" in call("ckptparse ls -q nix").err


def test_verbose_says_what_a_path_turned_out_to_mean(call: Call) -> None:
    done = call("ckptparse ls -v fixtures/saver/scopes")
    assert "opened fixtures/saver/scopes/model.ckpt-10: v2, 1 shard" in done.err


def test_without_colours_where_they_are_not_wanted(run: Callable[..., Any]) -> None:
    command = "ckptparse ls fixtures/saver/my_model"
    assert "\x1b[" in run(command, width=80).out
    assert "\x1b[" not in run(command, width=80, NO_COLOR="1").out
    assert "\x1b[" not in run(command, width=80, TERM="dumb").out
    assert "\x1b[" not in run(command).out


def test_nothing_is_piped_that_depends_on_the_terminal(run: Callable[..., Any]) -> None:
    command = "ckptparse ls --long fixtures/names/odd/model"
    assert run(command).out == run(command, COLUMNS="40", TERM="dumb", NO_COLOR="1").out


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device of Linux")
@pytest.mark.parametrize("full", ["> /dev/full", "> /dev/full 2> /dev/full"])
@pytest.mark.parametrize("command", ["ls", "ls --json", "verify --json", "info"])
def test_where_nothing_can_be_printed_the_exit_code_says_so(
    run: Callable[..., Any], command: str, full: str
) -> None:
    done = run(f"ckptparse {command} fixtures/saver/my_model {full}")
    assert done.code == 2 and "Traceback" not in done.err


def test_what_an_encoding_lacks_is_no_error(run: Callable[..., Any]) -> None:
    done = run("ckptparse ls --tree fixtures/objects/nested", PYTHONIOENCODING="ascii")
    assert done.code == 0, done.err
    assert "\\u2514" in done.out


def test_a_path_that_is_no_text_is_printed_to_the_byte(shell: Any, fixtures: Path) -> None:
    home = os.fsencode(shell.home) + b"/caf\xe9"
    try:
        os.mkdir(home)
    except OSError:
        pytest.skip("file names are text here")
    (shell.home / "fixtures").unlink()
    with open(home + b"/my_model.index", "wb") as file:
        file.write((fixtures / "saver" / "my_model.index").read_bytes())
    with open(home + b"/checkpoint", "w") as file:
        file.write('model_checkpoint_path: "my_model"')
    command = [sys.executable, "-m", "ckptparse", "latest", home]
    done = subprocess.run(command, env=shell.environment, capture_output=True, check=False)
    assert done.stdout == home + b"/my_model\n", done.stderr


# Names.


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("plain/name", "plain/name"),
        ("a\nb\tc\r", r"a\nb\tc\r"),
        ("\x1b[31m", r"\x1b[31m"),
        ("back\\slash", r"back\\slash"),
        ("caf\udce9", r"caf\xe9"),
        ("é变🧊", "é变🧊"),
        ("\u202eabc", r"\u202eabc"),
        ("\x85\ufeff", r"\u0085\ufeff"),
    ],
)
def test_a_name_is_printed_so_that_no_terminal_obeys_it_and_can_be_read_back(
    name: str, shown: str
) -> None:
    assert escape(name) == shown
    assert unescape(shown) == name


def test_a_name_is_found_as_it_is_printed(call: Call) -> None:
    done = call(r"ckptparse show fixtures/names/odd/model 'new\\nline'")
    assert done.code == 1
    done = call(r"ckptparse show fixtures/names/odd/model 'new\nline'")
    assert done.code == 0, done.err


def test_a_name_that_ends_in_brackets_is_not_an_index(call: Call) -> None:
    assert call("ckptparse show fixtures/names/odd/model '[0]'").code == 0


@pytest.mark.parametrize(
    ("typed", "index"),
    [
        ("weights", np.s_[:]),
        ("weights[1]", np.s_[1]),
        ("weights[-1]", np.s_[-1]),
        ("weights[0:2]", np.s_[0:2]),
        ("weights[:, 1]", np.s_[:, 1]),
        ("weights[..., ::2]", np.s_[..., ::2]),
        ("weights[::-1, 1:3]", np.s_[::-1, 1:3]),
        ("weights:0[0]", np.s_[0]),
    ],
)
def test_a_part_is_the_one_that_numpy_would_give(
    typed: str, index: Any, call: Call, fixtures: Path
) -> None:
    wanted = ckptparse.read(fixtures / "saver" / "my_model")["weights"][index]
    answer = json.loads(call(f"ckptparse show --json fixtures/saver/my_model '{typed}'").out)
    np.testing.assert_allclose(np.array(answer["result"]["values"], np.float32), wanted)
    assert answer["result"]["shape"] == list(wanted.shape)


@pytest.mark.parametrize("width", [None, 80])
def test_nothing_that_a_file_says_of_itself_is_obeyed(
    width: int | None, call: Callable[..., Any], tmp_path: Path
) -> None:
    from ckptparse.proto.meta_graph_pb2 import MetaGraphDef

    evil = "\x1b]0;owned\x07\n\r"
    message = MetaGraphDef()
    message.meta_info_def.tensorflow_version = evil
    message.meta_info_def.tags.append(evil)
    message.meta_info_def.stripped_op_list.op.add(name=evil)
    message.graph_def.node.add(name=evil, op=evil)
    message.collection_def[evil].node_list.value.append(evil)
    (tmp_path / "evil.meta").write_bytes(message.SerializeToString())
    for command in ("info", "identify", "dump"):
        done = call(f"ckptparse {command} evil.meta", width=width, NO_COLOR="1")
        assert done.code == 0, done.err
        assert all(char.isprintable() or char in "\n\t" for char in done.out + done.err)


# Files that are written.


def test_npy_holds_the_values(call: Call, tmp_path: Path, fixtures: Path) -> None:
    assert call("ckptparse show fixtures/saver/my_model weights --npy w.npy").code == 0
    wanted = ckptparse.read(fixtures / "saver" / "my_model")["weights"]
    np.testing.assert_array_equal(np.load(tmp_path / "w.npy"), wanted)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fixtures", "w.npy"]


@pytest.mark.parametrize(
    "command",
    [
        "show fixtures/saver/my_model weights --npy {}",
        "recover fixtures/slices/hole/model -o {}",
        "recover fixtures/slices/hole/model -o fresh --report {}",
    ],
)
def test_an_output_is_never_replaced_unless_asked(command: str, call: Call, tmp_path: Path) -> None:
    taken = tmp_path / ("taken.npy" if "--npy" in command else "taken.npz")
    taken.write_text("mine")
    done = call(f"ckptparse {command.format(taken.name)}")
    assert done.code == 2
    assert "--overwrite" in done.err
    assert taken.read_text() == "mine"
    assert not (tmp_path / "fresh").exists()
    assert call(f"ckptparse {command.format(taken.name)} --overwrite").code in (0, 1)
    assert taken.read_bytes() != b"mine"


@pytest.mark.parametrize("where", ["fixtures/saver/x.npy", "fixtures/saver/../saver/x.npy"])
def test_nothing_is_written_beside_the_input(where: str, call: Call, fixtures: Path) -> None:
    before = sorted(fixtures.rglob("*"))
    done = call(f"ckptparse show fixtures/saver/my_model weights --npy {where}")
    assert done.code == 2
    assert "the input's directory" in done.err
    assert (
        call("ckptparse recover fixtures/slices/hole/model -o fixtures/slices/hole/a/b").code == 2
    )
    assert sorted(fixtures.rglob("*")) == before


def test_an_input_reached_by_a_link_is_not_written_beside_either(
    call: Call, tmp_path: Path, fixtures: Path
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    for name in ("my_model.index", "my_model.data-00000-of-00001"):
        (home / name).write_bytes((fixtures / "saver" / name).read_bytes())
    (tmp_path / "link").symlink_to(home)
    (tmp_path / "my_link.index").symlink_to(home / "my_model.index")
    assert call("ckptparse show link/my_model bias --npy home/b.npy").code == 2
    assert call("ckptparse show home/my_model bias --npy link/b.npy").code == 2
    assert sorted(path.name for path in home.iterdir()) == [
        "my_model.data-00000-of-00001",
        "my_model.index",
    ]


def test_a_recovery_is_a_directory_of_arrays_with_its_report(call: Call, tmp_path: Path) -> None:
    assert call("ckptparse recover fixtures/slices/hole/model -o out --report r.json").code == 1
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "holed.missing.npy",
        "holed.npy",
        "report.json",
        "tensors.json",
        "well.npy",
    ]
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["recovered"] == ["holed", "well"]
    assert not report["whole"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fixtures", "out", "r.json"]


def test_a_recovery_into_one_file_writes_only_that_and_its_report(
    call: Call, tmp_path: Path
) -> None:
    assert call("ckptparse recover fixtures/slices/hole/model -o out.npz").code == 1
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["fixtures", "out.npz", "out.npz.report.json"]
    with np.load(tmp_path / "out.npz") as arrays:
        assert set(arrays) == {"holed", "holed.missing", "well", "__metadata__.json"}


def test_two_outputs_of_one_name_are_refused(call: Call, tmp_path: Path) -> None:
    done = call("ckptparse recover fixtures/slices/hole/model -o out --report ./out")
    assert done.code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["fixtures"]


def test_a_dry_run_writes_nothing(call: Call, tmp_path: Path) -> None:
    command = "ckptparse recover fixtures/slices/hole/model -o out --report r.json --dry-run"
    assert call(command).code == 1
    assert [path.name for path in tmp_path.iterdir()] == ["fixtures"]


@pytest.mark.parametrize(
    "command",
    [
        "convert -n fixtures/saver/my_model x.npz",
        "write -n fixtures/saver/my_model x",
        "average -n fixtures/saver/my_model fixtures/saver/my_model -o x",
    ],
)
def test_a_dry_run_of_what_writes_weights_writes_nothing(
    command: str, call: Call, tmp_path: Path
) -> None:
    done = call(f"ckptparse {command}")
    assert done.code == 0 and "nothing was written" in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["fixtures"]


def test_a_conversion_is_undone(call: Call, tmp_path: Path, fixtures: Path) -> None:
    options = "--layout torch --rename weights=layer.weight"
    original = "fixtures/saver/my_model"
    (tmp_path / "torch").mkdir()
    assert call(f"ckptparse convert {options} {original} torch/x.npz").code == 0
    done = call(f"ckptparse convert {options} --undo {original} torch/x.npz again.ckpt")
    assert done.code == 0
    wanted, got = (
        ckptparse.read(fixtures / "saver" / "my_model"),
        ckptparse.read(tmp_path / "again.ckpt"),
    )
    assert got.keys() == wanted.keys()
    assert all(np.array_equal(got[name], value) for name, value in wanted.items())


def test_only_an_earlier_recovery_is_replaced_by_a_directory(call: Call, tmp_path: Path) -> None:
    command = "ckptparse recover fixtures/slices/hole/model -o out --overwrite"
    assert call(command).code == 1
    assert call(command).code == 1
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    done = call(command)
    assert done.code == 2
    assert "has other files than those" in done.err
    assert (tmp_path / "out" / "thesis.txt").read_text() == "mine"


# Interrupts.


def test_an_interrupt_ends_with_one_line(shell: Any) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "ckptparse", "explain", "-", "-v"],
        cwd=shell.home,
        env=shell.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # What runs in the background of a shell starts with interrupts ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    ) as process:
        # It waits for its input by then: where it does not, the interrupt is Python's own affair.
        time.sleep(2)
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        assert process.stderr.read() == b"ckptparse: interrupted\n"
        process.wait()
    assert process.returncode == 130


def test_a_reader_that_goes_away_is_no_error(run: Callable[..., Any]) -> None:
    done = run("set -o pipefail; ckptparse dump fixtures/saver/my_model.meta | head -1")
    assert done.code in (0, 141)
    assert "Traceback" not in done.err
    assert "Error" not in done.err


WORK = (
    "import sys, time; from ckptparse.cli.progress import working\n"
    "with working('much work'): time.sleep(float(sys.argv[1]))"
)


@pytest.mark.parametrize(
    ("seconds", "redirect", "shown"), [(1.7, "2>&1", True), (0.1, "2>&1", False), (1.7, "", False)]
)
def test_a_sign_of_life_comes_after_a_second_and_in_a_terminal_only(
    seconds: float, redirect: str, shown: bool, run: Callable[..., Any]
) -> None:
    done = run(f'"{sys.executable}" -c "{WORK}" {seconds} {redirect}', width=80)
    assert ("much work" in done.out) == shown
    assert done.err == ""


def test_the_bar_is_filled_as_far_as_the_work_is(run: Callable[..., Any]) -> None:
    half = WORK.replace("'):", "') as advance: advance(1, 2);")
    ran = {
        name: run(f'"{sys.executable}" -c "{work}" 1.7 2>&1', width=80).out
        for name, work in (("pulsing", WORK), ("half", half))
    }
    assert "much work" in ran["half"]
    assert len(set(ran.values())) == 2


def test_verify_and_recover_tell_how_far_they_are() -> None:
    for work in (ckptparse.verify, ckptparse.recover):
        told: list[tuple[int, int]] = []
        work("fixtures/saver/my_model", progress=lambda done, total: told.append((done, total)))  # noqa: B023
        assert told
        assert told == sorted(told)
        assert told[-1][0] == told[-1][1]


INDICES = ["", "[1]", "[2:4, ::-1]", "[..., 1]", "[::2, ..., -1:]", "[-1, 3, 2]", "[5:2]", "[...]"]


@pytest.fixture
def cube(tmp_path: Path) -> tuple[Path, Any]:
    values = np.random.default_rng(0).normal(3, 2, (5, 7, 3)).astype(np.float32)
    values[2:4, 0, 0] = np.nan, np.inf
    ckptparse.write(tmp_path / "m", {"cube": values})
    return tmp_path / "m", values


@pytest.mark.parametrize("index", INDICES)
def test_statistics_of_a_part_are_those_of_numpy(
    index: str, cube: tuple[Path, Any], call: Callable[..., Any]
) -> None:
    path, values = cube
    part = eval(f"values{index}") if index else values  # noqa: S307 - the index is our own
    answer = json.loads(call(f"ckptparse show --stats --json {path} 'cube{index}'").out)["result"]
    assert answer["shape"] == list(part.shape)
    assert answer["values"] is None
    found = answer["statistics"]
    finite = part[np.isfinite(part)].astype(np.float64)
    assert (found["elements"], found["finite"]) == (part.size, finite.size)
    assert (found["nan"], found["infinite"]) == (np.isnan(part).sum(), np.isinf(part).sum())
    if finite.size:
        assert (found["smallest"], found["largest"]) == (finite.min(), finite.max())
        assert found["mean"] == pytest.approx(finite.mean())
        assert found["deviation"] == pytest.approx(finite.std(), abs=1e-12)
        assert sum(found["histogram"]) == finite.size


def test_statistics_are_streamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Callable[..., Any]
) -> None:
    ckptparse.write(tmp_path / "m", {"big": np.ones((1 << 10, 1 << 12), np.float32)})
    most = 0
    read = ckptparse.Tensor.__getitem__

    def watched(self: Any, index: Any) -> Any:
        nonlocal most
        part = read(self, index)
        most = max(most, part.nbytes)
        return part

    monkeypatch.setattr(ckptparse.Tensor, "__getitem__", watched)
    monkeypatch.setattr(ckptparse.Tensor, "read", None)
    for index in ("", "[1:]"):
        assert call(f"ckptparse show --stats {tmp_path}/m 'big{index}'").code == 0
    assert 0 < most <= 1 << 20


@pytest.mark.parametrize("array", [np.zeros((0, 3)), np.array([np.nan], np.float32)])
def test_statistics_of_nothing_finite_are_none(
    array: Any, tmp_path: Path, call: Callable[..., Any]
) -> None:
    ckptparse.write(tmp_path / "m", {"x": array})
    found = json.loads(call(f"ckptparse show --stats --json {tmp_path}/m x").out)["result"][
        "statistics"
    ]
    assert found["finite"] == 0
    assert found["smallest"] is found["largest"] is found["mean"] is found["deviation"] is None
    assert "histogram" not in found


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1 << 20, "1.0 MiB")]
)
def test_sizes_are_written_for_people(size: int, text: str) -> None:
    assert size_text(size) == text


def test_a_listing_imports_only_what_it_needs(fresh_python: Callable[[str], str]) -> None:
    prefix = Path(os.path.abspath(__file__)).parents[2] / "fixtures" / "saver" / "my_model"
    printed = fresh_python(
        "import sys\n"
        f"sys.argv = ['ckptparse', 'ls', '-q', {str(prefix)!r}]\n"
        "from ckptparse.cli import main\n"
        "try:\n"
        "    main()\n"
        "except SystemExit:\n"
        "    print(*sys.modules)\n"
    )
    modules = printed.split()
    for unneeded in ("rich", "snappy", "ckptparse.recovery", "ckptparse.annotation"):
        assert unneeded not in modules
    assert "ckptparse.cli.commands.show" not in modules


# Listings.


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ("", ["a", "b10", "b9", "c"]),
        ("--sort name", ["a", "b9", "b10", "c"]),
        ("--sort size", ["c", "b10", "a", "b9"]),
        ("--sort shape", ["b10", "c", "a", "b9"]),
        ("'b*'", ["b10", "b9"]),
        ("--exclude 'b*'", ["a", "c"]),
        ("'b*' 'c' -x '*9' --sort name", ["b10", "c"]),
    ],
)
def test_a_listing_is_chosen_and_sorted_as_asked(
    options: str, names: list[str], call: Call, tmp_path: Path
) -> None:
    tensors = {
        "a": np.zeros((2, 2), np.float32),
        "b9": np.zeros((2, 2), np.float32),
        "b10": np.zeros((9, 1), np.float32),
        "c": np.zeros((8, 8), np.float64),
    }
    ckptparse.write(str(tmp_path / "m"), tensors)
    done = call(f"ckptparse ls m {options}")
    assert done.code == 0, done.err
    assert [line.split("\t")[0] for line in done.out.splitlines()] == names


def test_slots_are_sorted_too_and_a_tree_is_not(call: Call) -> None:
    path = "fixtures/objects/tf1_optimizer"
    assert call(f"ckptparse ls --slots --sort size {path}").code == 0
    assert call(f"ckptparse ls --tree --sort size {path}").code == 2


@pytest.mark.parametrize("width", [None, 40, 80])
def test_a_long_name_is_never_cut(width: int | None, call: Callable[..., Any]) -> None:
    name = next(iter(ckptparse.open("fixtures/objects/tf1_optimizer")))
    command = "ckptparse ls --slots fixtures/objects/tf1_optimizer"
    printed = call(command, width=width, NO_COLOR="1").out
    assert "model/kernel/.OPTIMIZER_SLOT/optimizer/m/.ATTRIBUTES/VARIABLE_VALUE" in printed
    assert name in call("ckptparse ls fixtures/objects/tf1_optimizer", width=width).out


def test_a_directory_that_is_not_there_is_said_to_be_missing(call: Call) -> None:
    done = call("ckptparse latest nope")
    assert done.code == 2
    assert done.err.startswith("ckptparse: error: The directory does not exist\n  at: file 'nope'")


# Files that keep their meaning.


@pytest.mark.parametrize(
    "command",
    [
        "recover -o x.pt fixtures/slices/hole/model",
        "recover -n -o model.onnx fixtures/slices/hole/model",
        "show --npy x.txt fixtures/saver/my_model weights",
    ],
)
def test_an_output_of_another_kind_is_refused_before_the_work(
    command: str, call: Call, tmp_path: Path
) -> None:
    done = call(f"ckptparse {command}")
    assert done.code == 2
    assert "np" in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["fixtures"]


@pytest.mark.parametrize(
    "path", ["fixtures/dtypes/floats/model", "fixtures/dtypes/below_a_byte/model"]
)
def test_every_file_of_a_recovery_is_read_by_numpy_alone(
    path: str, call: Call, tmp_path: Path
) -> None:
    assert call(f"ckptparse recover {path} -o out").code == 0
    files = json.loads((tmp_path / "out" / "tensors.json").read_text())["tensors"]
    with ckptparse.open(path) as checkpoint:
        for name, tensor in checkpoint.items():
            if name not in files:
                continue  # a kind that this ml_dtypes lacks
            held = np.load(tmp_path / "out" / files[name])
            array = tensor.read()
            # A kind that numpy lacks is a type of one field, called as the kind is.
            own = held.dtype == array.dtype or held.dtype.names == (array.dtype.name,)
            assert own and held.tobytes() == array.tobytes()


def test_a_listing_of_too_many_has_the_first_and_says_so(call: Call, tmp_path: Path) -> None:
    path = tmp_path / "m"
    ckptparse.write(path, {f"w{number:02}": np.float32(number) for number in range(60)})
    done = call(f"ckptparse ls --limit small_tensors=40 {path}")
    assert len(done.out.splitlines()) < 60
    assert "of 60 tensors are listed" in done.err
    asked = done.err.split("--limit ")[1].split()[0]
    assert len(call(f"ckptparse ls --limit {asked} {path}").out.splitlines()) == 60
    told = json.loads(call(f"ckptparse ls --json --limit small_tensors=40 {path}").out)
    assert len(told["result"]["tensors"]) < 60
    assert "tensors are listed" in told["warnings"][0]


def test_ls_takes_a_name_with_brackets_letter_by_letter(tmp_path: Path, call: Call) -> None:
    prefix = ckptparse.write(tmp_path / "m", {"w[0]": [0.0], "w1": [1.0]})
    found = call(f"ckptparse ls {prefix} 'w[0]'")
    assert found.code == 0 and "w[0]" in found.out and "w1" not in found.out
    found = call(f"ckptparse ls {prefix} --exclude 'w[0]'")
    assert "w[0]" not in found.out and "w1" in found.out
