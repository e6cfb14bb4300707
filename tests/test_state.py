"""The state file `checkpoint`, and the newest checkpoint it leads to."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ckptparse.errors import CheckpointNotFoundError, MalformedError
from ckptparse.files.context import Context
from ckptparse.graph.state import CheckpointState, StateFile
from ckptparse.graph.state import read_state as read_state_file
from ckptparse.inventory import legacy, listed
from ckptparse.inventory.folders import Folders
from ckptparse.inventory.listed import checkpoint_state, latest_checkpoint

pytestmark = pytest.mark.proto


def write_state(directory: Path, text: str | bytes, name: str = "checkpoint") -> None:
    data = text.encode("utf-8") if isinstance(text, str) else text
    (directory / name).write_bytes(data)


def read_state(path: str) -> StateFile:
    return read_state_file(path, Context())


def find_listed(directory: Path, path: str) -> str | None:
    found = listed.find_listed(path, str(directory), Folders(Context()))
    return None if found is None else found.path


def match_pattern(pattern: str) -> list[str]:
    return legacy.match_pattern(pattern, Folders(Context()))


def touch(directory: Path, *names: str) -> None:
    for name in names:
        (directory / name).touch()


def names_of(directory: Path, state: CheckpointState | None) -> tuple[str, ...]:
    assert state is not None
    return tuple(str(Path(path).relative_to(directory)) for path in (state.latest, *state.paths))


def test_every_field_is_read_and_relative_paths_are_joined_to_the_directory(tmp_path: Path) -> None:
    write_state(
        tmp_path,
        'model_checkpoint_path: "ckpt-3"\n'
        'all_model_checkpoint_paths: "ckpt-2"\n'
        'all_model_checkpoint_paths: "/elsewhere/ckpt-3"\n'
        "all_model_checkpoint_timestamps: 1795337513.3563564\n"
        "all_model_checkpoint_timestamps: 1795337514\n"
        "last_preserved_timestamp: 1795337512.316562\n",
    )
    assert checkpoint_state(tmp_path) == CheckpointState(
        latest=str(tmp_path / "ckpt-3"),
        paths=(str(tmp_path / "ckpt-2"), "/elsewhere/ckpt-3"),
        timestamps=(1795337513.3563564, 1795337514.0),
        last_preserved=1795337512.316562,
    )


def test_a_state_without_timestamps_has_none(tmp_path: Path) -> None:
    write_state(tmp_path, 'model_checkpoint_path: "m"')
    state = checkpoint_state(tmp_path)
    assert state is not None
    assert (state.paths, state.timestamps, state.last_preserved) == ((), (), None)


@pytest.mark.checklist(84)
@pytest.mark.parametrize(
    "text",
    [
        b'\xef\xbb\xbfmodel_checkpoint_path: "ckpt-3"\n',
        b'# newest first\nmodel_checkpoint_path: "ckpt-3" # so it is\n',
        b"model_checkpoint_path: 'ckpt-3'\n",
        b'model_checkpoint_path: "ck" \'pt\'\n  "-3"\n',
        b'model_checkpoint_path: "ckpt-3"\r\n\r\n',
        b'model_checkpoint_path: "\\143kpt-3"\n',
        b'model_checkpoint_path: "ckpt-1"\nmodel_checkpoint_path: "ckpt-3"\n',
        b'model_checkpoint_path:"ckpt-3"',
    ],
    ids=["BOM", "comments", "single quotes", "adjacent", "CRLF", "octal", "given twice", "tight"],
)
def test_text_protos_as_people_edit_them_are_read(tmp_path: Path, text: bytes) -> None:
    write_state(tmp_path, text)
    touch(tmp_path, "ckpt-3.index")
    assert latest_checkpoint(tmp_path) == str(tmp_path / "ckpt-3")


@pytest.mark.parametrize(
    "text",
    [
        b"model_checkpoint_path ckpt-3",
        b'model_checkpoint_path: "ckpt-3"\nnot_a_field: 1\n',
        b'model_checkpoint_path: "ckpt-3',
        b'model_checkpoint_path: "\xff"',
        b"{" * 5000,
        b"\x00\x01\x02",
    ],
    ids=["no colon", "unknown field", "open quote", "not UTF-8", "brackets", "binary"],
)
def test_text_that_is_no_state_file_gives_none_and_a_warning(tmp_path: Path, text: bytes) -> None:
    write_state(tmp_path, text)
    touch(tmp_path, "ckpt-3.index")
    with pytest.warns(UserWarning, match="not a readable state file"):
        assert checkpoint_state(tmp_path) is None
    with pytest.warns(UserWarning, match="not a readable state file"):
        assert latest_checkpoint(tmp_path) is None
    with pytest.raises(MalformedError) if b"{" not in text else pytest.raises(Exception):
        read_state(str(tmp_path / "checkpoint"))


@pytest.mark.checklist(69)
@pytest.mark.parametrize("text", ["", "\n", "# only a comment", 'all_model_checkpoint_paths: "a"'])
def test_a_state_file_that_names_no_newest_checkpoint_is_malformed(
    tmp_path: Path, text: str
) -> None:
    write_state(tmp_path, text)
    with pytest.raises(MalformedError, match="model_checkpoint_path"):
        latest_checkpoint(tmp_path)
    with pytest.raises(ValueError, match="model_checkpoint_path"):
        checkpoint_state(tmp_path)


def test_no_state_file_is_no_state(tmp_path: Path) -> None:
    assert checkpoint_state(tmp_path) is None
    assert latest_checkpoint(tmp_path) is None
    assert latest_checkpoint(tmp_path / "absent") is None
    with pytest.raises(CheckpointNotFoundError):
        read_state(str(tmp_path / "checkpoint"))


def test_a_directory_named_checkpoint_is_no_state_file(tmp_path: Path) -> None:
    (tmp_path / "checkpoint").mkdir()
    assert latest_checkpoint(tmp_path) is None


@pytest.mark.checklist(70)
def test_paths_are_taken_as_strings_and_as_path_objects(tmp_path: Path) -> None:
    write_state(tmp_path, 'model_checkpoint_path: "ckpt-3"')
    touch(tmp_path, "ckpt-3.index")
    assert latest_checkpoint(str(tmp_path)) == latest_checkpoint(tmp_path) == f"{tmp_path}/ckpt-3"
    assert checkpoint_state(str(tmp_path)) == checkpoint_state(tmp_path)


@pytest.mark.checklist(65)
def test_an_absolute_path_is_kept_as_it_is(tmp_path: Path) -> None:
    write_state(tmp_path, f'model_checkpoint_path: "{tmp_path}/sub/ckpt-3"')
    (tmp_path / "sub").mkdir()
    touch(tmp_path, "sub/ckpt-3.index")
    assert latest_checkpoint(tmp_path) == f"{tmp_path}/sub/ckpt-3"


@pytest.mark.checklist(67, 68)
def test_relative_entries_are_joined_as_they_are_written(tmp_path: Path) -> None:
    write_state(tmp_path, 'model_checkpoint_path: "./model.ckpt-1"')
    touch(tmp_path, "model.ckpt-1.index")
    assert latest_checkpoint(tmp_path) == f"{tmp_path}/./model.ckpt-1"


@pytest.mark.checklist(82)
@pytest.mark.parametrize("old", ["/moved/away/ckpt-3", "C:\\\\runs\\\\ckpt-3", "../saved/ckpt-3"])
def test_a_moved_directory_is_found_by_the_last_part_of_the_path(tmp_path: Path, old: str) -> None:
    write_state(tmp_path, f'model_checkpoint_path: "{old}"')
    touch(tmp_path, "ckpt-3.index")
    assert latest_checkpoint(tmp_path) == str(tmp_path / "ckpt-3")


def test_the_path_itself_wins_over_its_last_part(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    write_state(tmp_path, 'model_checkpoint_path: "sub/ckpt-3"')
    touch(tmp_path, "ckpt-3.index", "sub/ckpt-3.index")
    assert latest_checkpoint(tmp_path) == str(tmp_path / "sub/ckpt-3")


def test_a_stale_newest_entry_gives_the_newest_that_exists_and_a_warning(tmp_path: Path) -> None:
    write_state(
        tmp_path,
        'model_checkpoint_path: "ckpt-4"\n'
        'all_model_checkpoint_paths: "ckpt-1"\n'
        'all_model_checkpoint_paths: "ckpt-2"\n'
        'all_model_checkpoint_paths: "ckpt-3"\n'
        'all_model_checkpoint_paths: "ckpt-4"\n',
    )
    touch(tmp_path, "ckpt-1.index", "ckpt-2.index")
    with pytest.warns(UserWarning, match=r"ckpt-4, does not exist; .*ckpt-2 is the newest"):
        assert latest_checkpoint(tmp_path) == str(tmp_path / "ckpt-2")


def test_where_no_listed_checkpoint_exists_there_is_none(tmp_path: Path) -> None:
    write_state(tmp_path, 'model_checkpoint_path: "ckpt-4"')
    touch(tmp_path, "ckpt-4.data-00000-of-00001", "ckpt-1.index")
    assert latest_checkpoint(tmp_path) is None


@pytest.mark.checklist(71)
@pytest.mark.parametrize(
    ("path", "files"),
    [
        ("ckpt-3", ["ckpt-3.index"]),
        ("ckpt-3", ["ckpt-3"]),
        ("ckpt-3-?????-of-00002", ["ckpt-3-00000-of-00002", "ckpt-3-00001-of-00002"]),
    ],
    ids=["V2", "V1", "V1 in two files"],
)
def test_a_listed_checkpoint_exists_until_it_is_removed(
    tmp_path: Path, path: str, files: list[str]
) -> None:
    write_state(tmp_path, f'model_checkpoint_path: "{path}"')
    touch(tmp_path, *files)
    assert find_listed(tmp_path, path) == str(tmp_path / path)
    assert latest_checkpoint(tmp_path) == str(tmp_path / path)
    for name in files:
        (tmp_path / name).unlink()
    assert find_listed(tmp_path, path) is None
    assert latest_checkpoint(tmp_path) is None


@pytest.mark.checklist(83)
@pytest.mark.parametrize("name", ["run [1]", "back\\slash", "a*b", "q?", "new\nline", "{x}"])
@pytest.mark.parametrize("files", [["m.index"], ["m-00000-of-00001"]], ids=["V2", "V1"])
def test_a_directory_may_have_any_name(tmp_path: Path, name: str, files: list[str]) -> None:
    directory = tmp_path / name
    directory.mkdir()
    touch(directory, *files)
    listed = "m" if files == ["m.index"] else "m-?????-of-00001"
    write_state(directory, f'model_checkpoint_path: "{listed}"')
    assert latest_checkpoint(directory) == str(directory / listed)


@pytest.mark.checklist(74, 75)
def test_files_that_the_state_does_not_list_do_not_count(tmp_path: Path) -> None:
    write_state(
        tmp_path,
        'model_checkpoint_path: "ckpt-9"\n'
        'all_model_checkpoint_paths: "ckpt-8"\n'
        'all_model_checkpoint_paths: "ckpt-9"\n'
        "last_preserved_timestamp: 12.5\n",
    )
    touch(tmp_path, "ckpt-1.index", "ckpt-10.index", "ckpt-8.index", "ckpt-9.index")
    assert names_of(tmp_path, checkpoint_state(tmp_path)) == ("ckpt-9", "ckpt-8", "ckpt-9")
    assert latest_checkpoint(tmp_path) == str(tmp_path / "ckpt-9")


def test_the_state_file_may_have_another_name(tmp_path: Path) -> None:
    write_state(tmp_path, 'model_checkpoint_path: "best-1"', "best")
    touch(tmp_path, "best-1.index")
    assert latest_checkpoint(tmp_path) is None
    assert latest_checkpoint(tmp_path, "best") == str(tmp_path / "best-1")
    assert names_of(tmp_path, checkpoint_state(tmp_path, "best")) == ("best-1",)


def test_a_listed_path_may_not_exist_in_any_sense(tmp_path: Path) -> None:
    assert find_listed(tmp_path, "") is None
    assert find_listed(tmp_path, "/") is None
    assert find_listed(tmp_path, "a\0b") is None
    assert match_pattern("no-pattern") == []
    assert match_pattern("/absent/dir/m-?") == []


def test_the_pattern_of_several_files_names_them_in_order(tmp_path: Path) -> None:
    touch(tmp_path, "s-00001-of-00002", "s-00000-of-00002", "s-00000-of-00003", "s.meta")
    (tmp_path / "s-00002-of-00002").mkdir()
    names = [Path(path).name for path in match_pattern(str(tmp_path / "s-?????-of-00002"))]
    assert names == ["s-00000-of-00002", "s-00001-of-00002"]


def test_a_directory_that_moved_with_its_state_file_still_works(tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.mkdir()
    write_state(old, f'model_checkpoint_path: "{old}/ckpt-1"')
    touch(old, "ckpt-1.index")
    new = Path(shutil.move(old, tmp_path / "new"))
    assert latest_checkpoint(new) == str(new / "ckpt-1")
