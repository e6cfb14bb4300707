"""What a newcomer gets wrong is told with its cause, and with what to do; nothing else happens."""

from __future__ import annotations

import json
import shutil
import zipfile
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


# Options.


@pytest.mark.parametrize(
    "command",
    [
        "convert run out/a.safetensors --rename '(=x'",
        "convert run out/a.safetensors --rename 'l=\\9'",
        "convert run out/a.safetensors --rules bad",
        "convert run out/a.safetensors --rules ./unknown.toml",
        "recover index_lost/model -n --shapes bad",
        "recover index_lost/model -n --mapfile bad",
        "scan index_lost --mapfile bad",
        "scan index_lost --state bad",
    ],
)
def test_a_wrong_option_is_no_damage(command: str, call: Call) -> None:
    Path("bad").write_text('{"a"')
    Path("unknown.toml").write_text("nix = 1")
    done = call(f"ckptparse {command}")
    assert done.code == 2
    assert done.err.startswith("ckptparse: error: ") and "unexpected" not in done.err


@pytest.mark.parametrize(
    "command", ["convert run out/a.safetensors --include nix", "stats run nix"]
)
def test_a_pattern_that_matches_nothing_is_told_and_nothing_written(
    command: str, call: Call
) -> None:
    assert call(f"ckptparse {command}").code == 1
    assert not list(Path("out").iterdir())


def test_a_reversal_without_the_options_of_the_conversion_is_refused(call: Call) -> None:
    renaming = "--rename ^=model."
    assert call(f"ckptparse convert run out/a.safetensors {renaming}").code == 0
    done = call("ckptparse convert --undo run out/a.safetensors u.ckpt")
    assert done.code == 2 and "0 of 5" in done.err
    assert not Path("u.ckpt.index").exists()
    assert call(f"ckptparse convert --undo run out/a.safetensors u.ckpt {renaming}").code == 0
    partly = call("ckptparse convert --undo run out/a.safetensors u -n --rename ^layer=model.layer")
    assert partly.code == 0 and "warning: 4 of 5 tensors" in partly.err


def test_rules_about_no_tensor_are_told(call: Call) -> None:
    done = call("ckptparse convert run out/a.npz -n --rename nix=a --rename layer=b")
    assert done.err.count("warning") == 1 and "renamed by 'nix'" in done.err
    done = call("ckptparse convert run out/a.npz -n --rules t5 --json")
    assert json.loads(done.out)["result"]["warnings"] == json.loads(done.out)["warnings"]
    assert "the rules t5 are about none of the tensors" in done.err
    Path("r.toml").write_text("drop = ['global_step']")
    assert "warning" not in call("ckptparse convert run out/a.npz -n --rules ./r.toml").err


# Keras.


def test_keras_3_kernels_are_turned_and_what_nothing_tells_is_named(call: Call) -> None:
    h5py = pytest.importorskip("h5py")
    kernels = {
        "layers/dense/vars/0": (4, 3),
        "layers/conv2d_1/vars/0": (3, 3, 2, 5),
        "layers/depthwise_conv2d/vars/0": (3, 3, 4, 1),
        "layers/embedding/vars/0": (7, 3),
        "layers/lstm_1/cell/vars/1": (2, 8),
        "layers/gru/cell/vars/1": (2, 6),
        "layers/mine/vars/0": (6, 2),
    }
    Path("keras").mkdir()
    with h5py.File("keras/k.weights.h5", "w") as file:
        for name, shape in {**kernels, "optimizer/vars/0": ()}.items():
            file[name] = np.ones(shape, "f4")
    found = ckptparse.convert(
        "keras/k.weights.h5", "out/k.safetensors", layout="torch", drop_slots=True, dry_run=True
    )
    assert {row.new: row.shape for row in found.kept} == {
        "layers/dense/vars/0": (3, 4),
        "layers/conv2d_1/vars/0": (5, 2, 3, 3),
        "layers/depthwise_conv2d/vars/0": (4, 1, 3, 3),
        "layers/embedding/vars/0": (7, 3),
        "layers/lstm_1/cell/vars/1": (8, 2),
        "layers/gru/cell/vars/1": (6, 2),
        "layers/mine/vars/0": (6, 2),
    }
    (warning,) = found.warnings
    assert "1 tensor" in warning and warning.endswith("layers/mine/vars/0")
    assert f"warning: {warning}" in str(found)
    done = call(
        "ckptparse convert keras/k.weights.h5 out/k.safetensors --layout torch --drop-slots"
    )
    assert done.err.count("warning") == 1


# Arguments.


@pytest.mark.parametrize("one", ["run/model", Path("run/model")])
def test_one_path_where_several_are_wanted_is_refused(one: Any) -> None:
    with pytest.raises(TypeError, match=r"did you mean \['run"):
        ckptparse.recover("run/model", evidence=one)
    with pytest.raises(TypeError, match=r"did you mean \['run"):
        ckptparse.average(one)


def test_names_are_text() -> None:
    values: Any = {1: np.zeros(2)}
    with pytest.raises(TypeError, match="name is a str, not int"):
        ckptparse.write("out/m", values)
    with pytest.raises(TypeError, match="name is a str, not int"):
        ckptparse.convert(values, "out/m.npz")
    values = [np.zeros(2)]
    with pytest.raises(TypeError, match="mapping of names to values, found list"):
        ckptparse.write("out/m", values)


# Outputs.


def test_an_input_that_is_not_there_is_told_before_its_directory_is_refused(call: Call) -> None:
    for command in ("page run/nix -o run/p.html", "convert run/nix run/a.npz"):
        done = call(f"ckptparse {command}")
        assert done.code == 2 and "found nothing with that name" in done.err
    assert "in the input's directory" in call("ckptparse convert run/model run/a.npz").err


@pytest.mark.parametrize("command", ["convert run -", "write run -", "page run -o -"])
def test_nothing_is_written_to_a_file_that_is_called_as_standard_output(
    command: str, call: Call
) -> None:
    done = call(f"ckptparse {command}")
    assert done.code == 2 and "found '-'" in done.err
    assert not list(Path().glob("-*"))


def test_what_a_recovery_left_out_is_counted_and_useless_options_are_told(call: Call) -> None:
    data = Path("run/model.data-00000-of-00001")
    data.write_bytes(data.read_bytes()[:-100])
    done = call("ckptparse recover run/model -o out/m.ckpt --fill 0 --keep-suspect")
    assert done.err.splitlines() == [
        "ckptparse: warning: --fill does nothing without --offer plausible",
        "ckptparse: warning: --keep-suspect does nothing without --offer plausible",
        (
            "wrote 4 of 5 tensors: 3 verified, 1 derived, 1 unverified; in out/m.ckpt "
            "(V2 checkpoint); 1 that is not proved is left out (--offer plausible)"
        ),
    ]
    assert "warning" not in call("ckptparse recover run/model -o out/npy --fill 0").err


def test_what_was_taken_from_a_copy_is_told_with_the_copys_path() -> None:
    weights = np.random.default_rng(2).normal(size=(64, 64)).astype("f4")
    for directory, start, stop in (("one", 4096, 8192), ("other", 9216, 10240)):
        Path(directory).mkdir()
        ckptparse.write(f"{directory}/m", {"kernel": weights})
        data = Path(directory, "m.data-00000-of-00001")
        raw = data.read_bytes()
        data.write_bytes(raw[:start] + bytes(stop - start) + raw[stop:])
    tensor = ckptparse.recover("one/m", evidence=["other"], siblings=False)["kernel"]
    assert "were taken from the copy other/m.data-00000-of-00001; then" in tensor.note


# Paths.


@pytest.mark.parametrize("command", ["ls ''", "verify run ''", "convert '' out/a.npz", "scan ''"])
def test_an_empty_path_is_told(command: str, call: Call) -> None:
    done = call(f"ckptparse {command}")
    assert done.code == 2 and "expected a path, found nothing" in done.err


def test_a_second_checkpoint_to_list_and_a_quoted_pattern_are_told(call: Call) -> None:
    done = call("ckptparse ls run index_lost/model")
    assert done.code == 2 and "'index_lost/model', which is a path" in done.err
    assert call("ckptparse ls run nix").code == 1
    assert "name one checkpoint" in call("ckptparse ls 'run/*.index'").err


def test_a_scan_that_found_nothing_says_so(call: Call) -> None:
    done = call("ckptparse scan out")
    assert (done.code, done.out, done.err) == (1, "", "no checkpoint was found\n")


def test_one_checkpoint_is_no_several(call: Call) -> None:
    assert "the mean of 1 checkpoint, in" in call("ckptparse average run -o out/mean").err


def test_a_file_of_pytorch_is_to_be_safetensors(call: Call) -> None:
    done = call("ckptparse convert run out/model.pt")
    assert done.code == 2 and "PyTorch loads .safetensors" in done.err


def test_an_archive_in_an_archive_is_told(call: Call) -> None:
    shutil.make_archive("inner", "zip", "run")
    with zipfile.ZipFile("outer.zip", "w") as archive:
        archive.write("inner.zip")
    done = call("ckptparse ls outer.zip")
    assert done.code == 2 and "an archive inside of an archive is not looked into" in done.err


# Names of what is written, and where it lies.


@pytest.mark.parametrize("command", ["average run run -o out/{}", "write run out/{}"])
@pytest.mark.parametrize("name", ["mean.npz", "mean.safetensors", "mean.index"])
def test_a_checkpoint_is_not_written_under_the_name_of_another_file(
    command: str, name: str, call: Call
) -> None:
    done = call(f"ckptparse {command.format(name)}")
    assert done.code == 2 and "Expected the prefix of a checkpoint" in done.err
    assert not list(Path("out").iterdir())


def test_what_a_name_without_an_ending_became_is_told(call: Call) -> None:
    done = call("ckptparse convert run out/m")
    assert done.err.endswith("; in out/m (V2 checkpoint, 2 files)\n")
    done = call("ckptparse convert run out/npy/")
    assert done.err.endswith("; in out/npy (.npy files)\n")
    done = call("ckptparse recover run/model -o out/r")
    assert done.err.endswith("; in out/r (.npy files)\n")


def test_urls_of_this_machine_are_paths(run: Callable[..., Any]) -> None:
    home = Path.cwd().as_uri()
    assert run(f"ckptparse ls {home}/run").code == 0
    done = run(f"ckptparse recover {home}/run/model --output={home}/out/r.npz")
    assert done.code == 0 and Path("out/r.npz").exists()
    done = run(f"ckptparse convert {home}/run {home}/run/c.npz")
    assert done.code == 2 and "in the input's directory" in done.err
    done = run("ckptparse ls file://run")
    assert done.code == 2 and "three slashes" in done.err


# Hints, and what to do next.


def test_what_to_do_next_is_told_beside_the_records_of_a_pipe(call: Call) -> None:
    Path("run/model.data-00000-of-00001").unlink()
    done = call("ckptparse verify run/model")
    assert done.err.splitlines()[-1].startswith("Next: ")
    assert done.err.endswith("copy or download 'run/model.data-00000-of-00001' again\n")
    assert "Next:" not in done.out
    assert "Next:" not in call("ckptparse verify --quiet run/model").err


def sharded(directory: str) -> list[Path]:
    """Write `m`, of four data files, and return them."""
    random = np.random.default_rng(2)
    weights = {f"w{n}": random.normal(size=1024).astype("f4") for n in range(8)}
    Path(directory).mkdir()
    ckptparse.write(f"{directory}/m", weights, max_shard_size=10_000)
    return sorted(Path(directory).glob("m.data-*"))


def test_a_data_file_that_was_renamed_need_not_be_fetched() -> None:
    for number, file in enumerate(sharded("x")):
        file.rename(f"x/best.data-{number:05}-of-00004")
    Path("x/best.data-00001-of-00004").unlink()
    step = ckptparse.verify("x/m").next_step
    assert step.endswith(
        "copy or download 'x/m.data-00001-of-00004' again and give what was renamed its own name "
        "(see shard.renamed)"
    )


POINTERS = {
    "git lfs pull": f"version https://git-lfs.github.com/spec/v1\noid sha256:{'1f' * 32}\nsize 9\n",
    "git annex get": f"/annex/objects/SHA256E-s9--{'1f' * 32}\n",
}


@pytest.mark.parametrize("command", POINTERS)
def test_pointers_are_fetched_by_their_own_command(command: str) -> None:
    files = sharded("x")
    for file in (files[0], files[2]):
        file.write_text(POINTERS[command])
    step = ckptparse.verify("x/m").next_step
    assert step.endswith(
        f"or fetch 'x/m.data-00000-of-00004', 'x/m.data-00002-of-00004' with `{command}` in their "
        "repository"
    )
    for file in files:
        file.write_text(POINTERS[command])
    files[1].write_text("<html><body>Not found</body></html>")
    step = ckptparse.verify("x/m").next_step
    shown = "'x/m.data-00000-of-00004', 'x/m.data-00002-of-00004', 'x/m.data-00003-of-00004'"
    again = "copy or download 'x/m.data-00001-of-00004' again"
    assert step == f"fetch {shown} with `{command}` in their repository, and {again}"
    Path("x/m.index").write_text(POINTERS[command])
    step = ckptparse.verify("x/m").next_step
    assert step == f"fetch 'x/m.index' with `{command}` in its repository"


def test_patterns_that_match_nothing_are_shown_a_name(call: Call, fixtures: Path) -> None:
    objects = fixtures / "objects" / "keras2_optimizer" / "ckpt-1"
    done = call(f"ckptparse convert {objects} out/a.npz --include nix")
    assert "must match a whole name, such as '" in done.err and ".ATTRIBUTES" in done.err
    assert "; --naming variable takes the variables' own names, such as '" in done.err
    done = call("ckptparse convert run out/a.npz --include nix")
    assert "such as 'layer0/kernel'" in done.err and "--naming" not in done.err


def test_a_hint_names_options_and_no_arguments_of_python(call: Call) -> None:
    done = call("ckptparse ls run --limit entries=1")
    assert "--limit entries=NUMBER" in done.err
    assert "--format v2" in call("ckptparse convert run out/m.pt").err
    ckptparse.write("out/s/../names", {"w": np.array([1], "f4"), "q": np.array([b"a"], object)})
    done = call("ckptparse convert out/names run/../n.safetensors --naming checkpoint")
    assert "--store-bits" in done.err and "=True" not in done.err


@pytest.mark.parametrize(
    "command",
    [
        "ls run --limit entries={}",
        "show run 'global_step[{}]'",
        "show run 'layer0/kernel[::{}]'",
        "convert run out/m.npz --split kernel={}",
        "convert run out/m.safetensors --max-shard-size {}",
        "convert run out/m.safetensors --max-shard-size {}TB",
    ],
)
@pytest.mark.parametrize("digits", [400, 5_000])
def test_a_number_of_very_many_digits_is_none(call: Call, command: str, digits: int) -> None:
    done = call(f"ckptparse {command.format('9' * digits)}")
    assert done.code == 2 and "error: Expected" in done.err
    assert not any(Path("out").iterdir())


def test_nothing_is_cut_into_no_parts_or_more_than_there_may_be(call: Call) -> None:
    assert "Expected PART=" in call("ckptparse convert run out/m.npz --split kernel=0").err
    done = call(f"ckptparse convert run out/m.npz --split kernel={10**12}")
    assert done.code == 2 and "small_tensors" in done.err
