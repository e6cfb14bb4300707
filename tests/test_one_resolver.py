"""One answer to what a path means: `open` and `verify` never disagree on it, nor on its wholeness.

`verify DIR && deploy` may never approve what `open` refuses.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import builder
import graph_builder as g
import numpy as np
import pytest
from riegeli_builder import MESSAGE, chunked_file, chunked_message
from test_layers import LEVELS, part
from v1_builder import LegacyFile

import ckptparse
from ckptparse import (
    CheckpointError,
    CheckpointNotFoundError,
    MalformedError,
    NotACheckpointError,
)
from ckptparse.cli.app import PROGRAM
from ckptparse.inventory.inventory import Candidate, Inventory
from ckptparse.proto.wire import iter_fields

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures"


def save(prefix: Path, value: float = 1) -> Path:
    bundle = builder.Bundle()
    bundle.add("w", np.full(100, value, np.float32))
    bundle.write(prefix)
    return prefix


def save_v1(path: Path, value: float = 1) -> Path:
    file = LegacyFile()
    file.add("w", np.full(100, value, np.float32))
    file.write(path)
    return path


def save_graph(path: Path, *, size: int = 12) -> Path:
    content = np.ones(3, np.float32).tobytes()[:size]
    value = g.of_tensor(builder.field(4, content), dims=[3])
    node = g.node("w", "Const", dtype=g.of_type(builder.FLOAT), value=value)
    path.write_bytes(g.graph([node]))
    return path


def list_them(directory: Path, *oldest_first: str) -> None:
    lines = [f'model_checkpoint_path: "{oldest_first[-1]}"']
    lines += [f'all_model_checkpoint_paths: "{name}"' for name in oldest_first]
    (directory / "checkpoint").write_text("\n".join(lines))


def exit_code(*arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        PROGRAM.main(list(arguments), prog_name="ckptparse")
    return int(caught.value.code or 0)


# ---- the table of disagreements


def test_where_several_are_meant_alike_both_refuse_and_list_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(tmp_path / "m-1")
    save(tmp_path / "m-2")
    for function in (ckptparse.open, ckptparse.verify, ckptparse.recover):
        with pytest.raises(NotACheckpointError, match="m-1, m-2"):
            function(tmp_path)
    assert exit_code("verify", str(tmp_path)) == 2
    said = capsys.readouterr().err
    assert "m-1" in said
    assert "m-2" in said


def test_several_v1_checkpoints_are_meant_alike_too(tmp_path: Path) -> None:
    save_v1(tmp_path / "a")
    assert float(ckptparse.read(tmp_path)["w"][0]) == 1
    assert ckptparse.verify(tmp_path).path == str(tmp_path / "a")
    save_v1(tmp_path / "b")
    for function in (ckptparse.open, ckptparse.verify):
        with pytest.raises(NotACheckpointError, match="a, b"):
            function(tmp_path)


def test_a_state_file_that_names_an_absent_checkpoint_is_an_error_of_both(tmp_path: Path) -> None:
    save(tmp_path / "m-1")
    list_them(tmp_path, "m-1", "m-2")
    with pytest.raises(CheckpointNotFoundError, match="m-2"):
        ckptparse.open(tmp_path)
    report = ckptparse.verify(tmp_path)
    assert not report.ok
    assert report.path == str(tmp_path / "m-1")
    problem = report.problems[0]
    assert problem.code == "state.stale"
    assert problem.severity == "error"
    assert "m-2" in problem.message
    assert "m-1, because it is the newest in the state file" in problem.message
    assert exit_code("verify", str(tmp_path)) == 1
    # Who names the checkpoint by its prefix is only warned.
    report = ckptparse.verify(tmp_path / "m-1")
    assert report.ok
    assert [problem.code for problem in report.problems] == ["state.stale"]


def test_a_state_file_that_does_not_parse_is_an_error_of_both(tmp_path: Path) -> None:
    save(tmp_path / "m-1")
    (tmp_path / "checkpoint").write_text("model_checkpoint_path: m-1")
    with pytest.raises(MalformedError):
        ckptparse.open(tmp_path)
    report = ckptparse.verify(tmp_path)
    assert not report.ok
    assert report.path == str(tmp_path / "m-1")
    assert [problem.code for problem in report.problems] == ["state.damaged"]


@pytest.mark.parametrize("name", ["m.index", "x.data-00000-of-00001", "plain", "y.meta", "a.b.c"])
def test_a_v1_file_opens_under_any_name(tmp_path: Path, name: str) -> None:
    path = save_v1(tmp_path / name, 3)
    with ckptparse.open(path) as checkpoint:
        assert checkpoint.format == "v1"
        assert float(checkpoint["w"][0]) == 3
    report = ckptparse.verify(path)
    assert report.ok, str(report)
    assert report.format == "v1"
    assert report.counts == {"verified": 1}


def test_a_v1_file_named_as_an_index_is_found_by_its_prefix(tmp_path: Path) -> None:
    save_v1(tmp_path / "m.index", 3)
    for path in (tmp_path / "m", tmp_path):
        assert float(ckptparse.read(path)["w"][0]) == 3
        assert ckptparse.verify(path).format == "v1"


def test_a_frozen_graph_is_verified(tmp_path: Path) -> None:
    path = save_graph(tmp_path / "frozen.pb")
    assert float(ckptparse.read(path)["w"][0]) == 1
    report = ckptparse.verify(path)
    assert report.ok
    assert report.format == "graph"
    assert report.counts == {"unverified": 1}
    assert "no checksum" in str(report)
    assert exit_code("verify", str(path)) == 0


def test_a_constant_that_does_not_decode_is_damage(tmp_path: Path) -> None:
    path = save_graph(tmp_path / "frozen.pb", size=7)
    report = ckptparse.verify(path)
    assert not report.ok
    assert [problem.code for problem in report.problems] == ["graph.damaged"]
    assert exit_code("verify", str(path)) == 1


def test_a_meta_graph_without_a_checkpoint_is_refused_by_both(tmp_path: Path) -> None:
    shutil.copy(FIXTURES / "saver" / "my_model.meta", tmp_path / "m.meta")
    for function in (ckptparse.open, ckptparse.verify):
        with pytest.raises(CheckpointNotFoundError):
            function(tmp_path / "m.meta")
    assert ckptparse.verify(FIXTURES / "saver" / "my_model.meta").format == "v2"


def test_a_directory_without_anything_whole_is_reported_on_and_why(tmp_path: Path) -> None:
    for step in (1, 2):
        save(tmp_path / f"m-{step}")
        (tmp_path / f"m-{step}.index").unlink()
    with pytest.raises(NotACheckpointError):
        ckptparse.open(tmp_path)
    report = ckptparse.verify(tmp_path)
    assert not report.ok
    assert report.path == str(tmp_path / "m-2")
    assert report.problems[0].code == "path.taken"
    assert "nothing in the directory has a higher step" in report.problems[0].message


# ---- what verify approves, open opens


def directories() -> Iterator[Path]:
    for path in sorted(path for path in FIXTURES.rglob("*") if path.is_dir()):
        if any(file.is_file() and file.suffix != ".json" for file in path.iterdir()):
            yield path


def check(path: Path) -> bool:
    """Hold `verify` and `open` against each other; tell whether the checkpoint is approved."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        report = attempt(lambda: ckptparse.verify(path))
        checkpoint = attempt(lambda: ckptparse.open(path))
        if checkpoint is None:
            assert report is None or not report.ok, f"verify approves, and open refuses {path}"
            return False
        with checkpoint:
            assert report is not None, f"open takes {checkpoint.path}, and verify refuses"
            if not report.ok:
                return False
            assert report.path == checkpoint.path or report.format == "v1"
            assert report.format == checkpoint.format
            assert set(report.tensors) == set(checkpoint)
            for tensor in checkpoint.values():
                read(tensor)
    return True


def attempt(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except CheckpointError:
        return None


def read(tensor: ckptparse.Tensor) -> None:
    try:
        tensor.read()
    except ckptparse.UnsupportedError:
        return


def cut(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def lose(path: Path) -> None:
    path.unlink()


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    if data:
        data[len(data) // 3] ^= 0x10
    path.write_bytes(bytes(data))


def rename(path: Path) -> None:
    path.rename(path.with_name(f"other{path.suffix}"))


def double(path: Path) -> None:
    shutil.copy(path, path.with_name(f"second{path.suffix}"))


def point(path: Path) -> None:
    path.write_bytes(
        b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"4" * 64 + b"\nsize 12345\n"
    )


def misname(path: Path) -> None:
    (path.parent / "checkpoint").write_text('model_checkpoint_path: "/gone/away"\n')


def stray(path: Path) -> None:
    (path.parent / "checkpoint").write_text(f'model_checkpoint_path: "{path.stem}"\n')


MUTATIONS = [cut, empty, lose, flip, rename, double, point, misname, stray]


@pytest.mark.parametrize(
    "directory", list(directories()), ids=lambda path: str(path.relative_to(FIXTURES))
)
def test_what_verify_approves_open_opens(directory: Path, tmp_path: Path) -> None:
    check(directory)
    for path in sorted(directory.iterdir()):
        check(path)


@pytest.mark.parametrize("mutate", MUTATIONS, ids=lambda mutate: mutate.__name__)
@pytest.mark.parametrize(
    "group", sorted({path.relative_to(FIXTURES).parts[0] for path in directories()})
)
def test_what_verify_approves_of_broken_copies_open_opens(
    group: str, mutate: Callable[[Path], Any], tmp_path: Path
) -> None:
    """Break one file of each directory: another one in each, and by each way to break it."""
    for number, directory in enumerate(directories()):
        if directory.relative_to(FIXTURES).parts[0] != group:
            continue
        copy = tmp_path / str(number)
        root = directory.parent if directory.name == "variables" else directory
        shutil.copytree(root, copy)
        files = sorted(
            path for path in copy.rglob("*") if path.is_file() and path.suffix != ".json"
        )
        mutate(files[(number + MUTATIONS.index(mutate)) % len(files)])
        check(copy)
        if root != directory:
            check(copy / "variables")


# ---- the SavedModel around the variables


def break_message(path: Path) -> None:
    path.write_bytes(b"\x0a\xff\xff")


def break_graph(path: Path) -> None:
    """Leave the message as it is, but for the first bytes of its only graph."""
    data = bytearray(path.read_bytes())
    start = 0
    for _ in range(2):  # The meta graph is field 2 of the SavedModel, the graph field 2 of that.
        fields = iter_fields(memoryview(bytes(data))[start:])
        start += next(first for number, _, first, _ in fields if number == 2)
    data[start : start + 2] = b"\xff\xff"
    path.write_bytes(bytes(data))


@pytest.mark.proto
@pytest.mark.parametrize("damage", [empty, cut, point, break_message, break_graph])
def test_a_model_that_does_not_open_is_not_approved(
    tmp_path: Path, damage: Callable[[Path], Any]
) -> None:
    model = tmp_path / "model"
    shutil.copytree(FIXTURES / "saved_model" / "keras2_sequential", model)
    assert ckptparse.verify(model).verdict == "ok"
    damage(model / "saved_model.pb")
    with pytest.raises(CheckpointError), ckptparse.open_saved_model(model) as opened:
        len(opened.meta_graphs[0].graph.nodes)
    report = ckptparse.verify(model)
    assert [problem.code for problem in report.problems] == ["graph.damaged"]
    assert report.problems[0].where == str(model / "saved_model.pb")
    assert report.verdict == "damaged"
    assert report.next_step == (
        f"copy or download '{model / 'saved_model.pb'}' again: the variables are whole"
    )
    # The checkpoint in it opens without its model, and whoever names it is warned.
    assert ckptparse.verify(model / "variables" / "variables").verdict == "warnings"
    assert ckptparse.recover(model).whole


def test_a_chunked_model_that_was_cut_is_not_approved(tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(FIXTURES / "saved_model" / "keras2_sequential", model)
    message = (model / "saved_model.pb").read_bytes()
    (model / "saved_model.pb").unlink()
    (model / "saved_model.cpb").write_bytes(chunked_file([(MESSAGE, message)], chunked_message(0)))
    assert ckptparse.verify(model).ok
    cut(model / "saved_model.cpb")
    assert [problem.code for problem in ckptparse.verify(model).problems] == ["graph.damaged"]


def test_the_files_of_a_pattern_are_counted_with_those_that_are_missing(tmp_path: Path) -> None:
    shutil.copytree(FIXTURES / "v1" / "sharded", tmp_path / "v1")
    (tmp_path / "v1" / "model.ckpt-7-00001-of-00003").unlink()
    with pytest.raises(ckptparse.MissingShardError, match=r"Expected 3 files .* found 2"):
        ckptparse.open(tmp_path / "v1" / "model.ckpt-7-?????-of-00003")


# ---- the way is straight


def follow(path: Path) -> list[tuple[str, str]]:
    """Return the calls in which `read` hands a path on: from which part of the package to which.

    What lies below, values and the storage (levels 0 and 1), is asked from everywhere, and left
    out.
    """
    home = str(Path(ckptparse.__file__).parent)
    found: list[tuple[str, str]] = []

    def part_of(frame: Any) -> str | None:
        name = frame.f_code.co_filename
        if not name.startswith(home):
            return None
        return part(name[len(home) + 1 : -3].replace("/", "."))

    def holds(value: object) -> bool:
        text = value.path if isinstance(value, (Inventory, Candidate)) else value
        return isinstance(text, (str, Path)) and path.name in str(text)

    def trace(frame: Any, event: str, _: object) -> None:
        here = part_of(frame)
        if event != "call" or here is None or LEVELS[here] < 2:
            return
        names = frame.f_code.co_varnames
        count = frame.f_code.co_argcount + frame.f_code.co_kwonlyargcount
        given = [frame.f_locals.get(name) for name in names[:count] if name != "self"]
        caller = frame.f_back
        while caller is not None and part_of(caller) is None:
            caller = caller.f_back
        if any(map(holds, given)):
            found.append((part_of(caller) or "" if caller else "", here))

    ckptparse.read(path)  # So that nothing is imported while it is followed.
    sys.setprofile(trace)
    try:
        ckptparse.read(path)
    finally:
        sys.setprofile(None)
    return found


@pytest.mark.parametrize(
    "place",
    [
        "saver/my_model",
        "saver",
        "saved_model/keras2_sequential",
        "v1/unsharded/model.ckpt-1",
        "v1/unsharded",
        "graphs/frozen_tf1/frozen.pb",
    ],
)
def test_the_path_given_to_read_goes_straight_down(place: str) -> None:
    calls = follow(FIXTURES / place)
    entered = [one for one, _ in groupby(callee for _, callee in calls)]
    climbs = [
        (caller, callee)
        for caller, callee in calls
        if caller in LEVELS
        and (LEVELS[callee] > LEVELS[caller] or is_back(caller, callee, entered))
    ]
    returns = sum(one in entered[:number] for number, one in enumerate(entered))
    assert len(climbs) <= 6, climbs
    assert returns <= 10, entered


def is_back(caller: str, callee: str, entered: list[str]) -> bool:
    """Tell a call into a part of the same level that had handed the path on before."""
    if caller == callee or LEVELS[caller] != LEVELS[callee]:
        return False
    return entered.index(callee) < entered.index(caller)


def v1_set(count: int, *, without: int = -1, of: float = 1.0) -> dict[str, bytes]:
    """Make the files of a sharded V1 checkpoint, each of a tensor of its own."""
    files = {}
    for number in range(count):
        made = LegacyFile()
        made.add(f"w{number}", np.float32([of, number]))
        if number != without:
            files[f"d/m-{number:05}-of-{count:05}"] = made.data()
    return files


@pytest.mark.parametrize("pattern", ["d/m*", "d/m-?????-of-00002", "d/m-0000[01]*", "d/*-of-*2"])
def test_a_pattern_means_the_same_v1_files_to_all(pattern: str) -> None:
    store = v1_set(2)
    read = ckptparse.read(pattern, store=store)
    assert sorted(read) == ["w0", "w1"]
    for report in (
        ckptparse.verify(pattern, store=store),
        ckptparse.recover(pattern, store=store).report,
    ):
        assert report.ok
        assert sorted(report.tensors) == sorted(read)
        assert sorted(report.files) == sorted(store)


def test_a_pattern_of_which_files_are_missing_is_not_well() -> None:
    store = v1_set(3, without=1)
    with pytest.raises(ckptparse.MissingShardError):
        ckptparse.read("d/m-*", store=store)
    report = ckptparse.verify("d/m-*", store=store)
    assert not report.ok
    assert "d/m-00001-of-00003" in report.files
    assert {problem.code for problem in report.problems} == {"v1.missing"}


def test_a_pattern_means_its_own_set_beside_a_larger_one() -> None:
    store = {**v1_set(2), **v1_set(3, of=5.0)}
    pattern = "d/m-?????-of-00002"
    read = ckptparse.read(pattern, store=store)
    recovered = ckptparse.recover(pattern, store=store)
    assert sorted(recovered) == sorted(read) == ["w0", "w1"]
    assert all((recovered[name].read() == read[name]).all() for name in read)


@pytest.mark.parametrize("without", [-1, 2])
def test_sets_that_a_name_beside_may_mean_keep_none_from_being_verified(without: int) -> None:
    store = {**v1_set(2), **v1_set(3, without=without)}
    for path in store:
        read = {}
        with contextlib.suppress(ckptparse.MissingShardError), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            read = ckptparse.read(path, store=store)
        report = ckptparse.verify(path, store=store)
        assert report.ok == (without < 0 or path.endswith("2"))
        assert set(read) <= set(report.tensors)
        assert set(read) <= set(ckptparse.recover(path, store=store))


@pytest.mark.parametrize("name", ["d/m-00005-of-00002", "d/m-0000001-of-00002"])
def test_a_v1_file_of_an_odd_number_is_looked_at(name: str) -> None:
    store = {name: v1_set(2)["d/m-00001-of-00002"]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        read = ckptparse.read(name, store=store)
    report = ckptparse.verify(name, store=store)
    assert list(read) == list(report.tensors) == list(ckptparse.recover(name, store=store))
    assert name in report.files
    assert not report.ok
