"""What is said where the checkpoint that is meant cannot be opened: what lies there instead."""

from __future__ import annotations

from pathlib import Path

import builder
import numpy as np
import pytest
from v1_builder import LegacyFile

import ckptparse
from ckptparse import (
    CheckpointError,
    CheckpointNotFoundError,
    DataLossError,
    MalformedError,
    MissingShardError,
    NotACheckpointError,
    TruncatedError,
)

pytestmark = pytest.mark.proto

POINTER = (
    b"version https://git-lfs.github.com/spec/v1\n"
    b"oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\n"
    b"size 12345\n"
)


def save(directory: Path, *names: str) -> None:
    for name in names:
        bundle = builder.Bundle()
        bundle.add("w", np.arange(100, dtype=np.int32))
        bundle.write(directory / name)


def list_them(directory: Path, *oldest_first: str) -> None:
    lines = [f'model_checkpoint_path: "{oldest_first[-1]}"']
    lines += [f'all_model_checkpoint_paths: "{name}"' for name in oldest_first]
    (directory / "checkpoint").write_text("\n".join(lines))


def lose_index(directory: Path) -> None:
    (directory / "c.index").unlink()


def lose_data(directory: Path) -> None:
    (directory / "c.data-00000-of-00001").unlink()


def cut_index(directory: Path) -> None:
    data = (directory / "c.index").read_bytes()
    (directory / "c.index").write_bytes(data[:-10])


def flip_index(directory: Path) -> None:
    data = bytearray((directory / "c.index").read_bytes())
    data[3] ^= 1
    (directory / "c.index").write_bytes(bytes(data))


def put_pointer(directory: Path) -> None:
    (directory / "c.index").write_bytes(POINTER)


BREAKS = {
    lose_index: CheckpointNotFoundError,
    lose_data: MissingShardError,
    cut_index: DataLossError,
    flip_index: DataLossError,
    put_pointer: NotACheckpointError,
}


@pytest.mark.parametrize(("damage", "kind"), BREAKS.items(), ids=lambda value: value.__name__)
def test_where_the_newest_is_broken_the_newest_whole_one_is_named(
    tmp_path: Path, damage: object, kind: type[CheckpointError]
) -> None:
    save(tmp_path, "a", "b", "c")
    list_them(tmp_path, "a", "b", "c")
    assert callable(damage)
    damage(tmp_path)
    with pytest.raises(kind, match=f"newest whole one that is listed: {tmp_path}/b"):
        ckptparse.read(tmp_path)


def test_a_newer_one_that_a_stale_state_file_does_not_list_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    app = pytest.importorskip("ckptparse.cli.app")
    save(tmp_path, "m-1", "m-2", "m-10", "other-50")
    newest = f"newest whole one there, which the state file does not list: {tmp_path}/m-10"
    for listed in (["m-90"], ["m-1", "m-2", "m-90"]):
        list_them(tmp_path, *listed)
        with pytest.raises(CheckpointNotFoundError, match=newest):
            ckptparse.read(tmp_path)
    list_them(tmp_path, "m-90")
    monkeypatch.setattr("sys.argv", ["ckptparse", "latest", str(tmp_path)])
    with pytest.raises(SystemExit) as caught:
        app.run()
    assert caught.value.code == 2
    assert newest in " ".join(capsys.readouterr().err.split())
    (tmp_path / "m-10.data-00000-of-00001").unlink()
    list_them(tmp_path, "m-2", "m-1", "m-90")
    with pytest.raises(CheckpointNotFoundError, match=f"one that is listed: {tmp_path}/m-2"):
        ckptparse.read(tmp_path)


def test_a_listing_needs_no_data_file(tmp_path: Path) -> None:
    save(tmp_path, "b", "c")
    list_them(tmp_path, "b", "c")
    lose_data(tmp_path)
    assert ckptparse.list_variables(tmp_path) == [("w", (100,))]
    with ckptparse.open(tmp_path) as checkpoint:
        assert checkpoint["w"].shape == (100,)
        assert checkpoint.path == str(tmp_path / "c")
        with pytest.raises(MissingShardError):
            checkpoint["w"].read()


def test_what_is_cut_or_lost_is_not_named_as_whole(tmp_path: Path) -> None:
    save(tmp_path, "a", "b1", "b2", "b3", "c")
    LegacyFile().write(tmp_path / "old")
    list_them(tmp_path, "old", "a", "b1", "b2", "b3", "c")
    cut = tmp_path / "b1.data-00000-of-00001"
    cut.write_bytes(cut.read_bytes()[:-1])
    (tmp_path / "b2.data-00000-of-00001").unlink()
    (tmp_path / "b3.index").write_bytes(b"junk" * 20)
    lose_index(tmp_path)
    with pytest.raises(CheckpointNotFoundError, match=f"listed: {tmp_path}/a"):
        ckptparse.read(tmp_path)
    (tmp_path / "a.index").unlink()
    with pytest.raises(CheckpointNotFoundError, match=f"listed: {tmp_path}/old"):
        ckptparse.read(tmp_path)
    (tmp_path / "old").unlink()
    with pytest.raises(CheckpointNotFoundError) as caught:
        ckptparse.read(tmp_path)
    assert "newest whole" not in str(caught.value)


def test_the_newest_is_taken_where_it_is_whole_whatever_the_others_are(tmp_path: Path) -> None:
    save(tmp_path, "a", "c")
    list_them(tmp_path, "a", "gone", "c")
    (tmp_path / "a.index").write_bytes(b"junk")
    assert ckptparse.read(tmp_path)["w"].sum() == 4950


def test_a_v1_checkpoint_that_is_the_newest_is_opened(tmp_path: Path) -> None:
    save(tmp_path, "a")
    file = LegacyFile()
    file.add("w", np.float32(3))
    file.write(tmp_path / "v1")
    list_them(tmp_path, "a", "v1")
    assert ckptparse.read(tmp_path)["w"] == 3
    (tmp_path / "v1").write_bytes((tmp_path / "v1").read_bytes()[:-5])
    with pytest.raises(TruncatedError):
        ckptparse.read(tmp_path)


def test_a_data_file_that_is_a_pointer_is_named(tmp_path: Path) -> None:
    save(tmp_path, "m")
    (tmp_path / "m.data-00000-of-00001").write_bytes(POINTER)
    with pytest.raises(TruncatedError, match="Git LFS pointer"):
        ckptparse.read(tmp_path / "m")
    with ckptparse.open(tmp_path / "m") as checkpoint:
        for access in [checkpoint["w"].read, checkpoint["w"].verify, lambda: checkpoint["w"][50:]]:
            with pytest.raises(TruncatedError, match="git lfs pull"):
                access()


def test_a_data_file_that_is_only_too_short_is_not_explained_away(tmp_path: Path) -> None:
    save(tmp_path, "m")
    data = tmp_path / "m.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:-1])
    with pytest.raises(TruncatedError) as caught:
        ckptparse.read(tmp_path / "m")
    assert " It is " not in str(caught.value)


@pytest.mark.parametrize("name", ["m.index", "m"])
def test_an_index_that_is_empty_says_what_happened(tmp_path: Path, name: str) -> None:
    (tmp_path / "m.index").touch()
    with pytest.raises(TruncatedError, match="interrupted"):
        ckptparse.open(tmp_path / name)


def test_a_meta_graph_leads_to_the_checkpoint_beside_it(fixtures: Path) -> None:
    meta = fixtures / "saver" / "my_model.meta"
    assert ckptparse.read(meta).keys() == {"weights", "bias"}
    assert ckptparse.open_graph(fixtures / "saver" / "my_model").is_meta_graph


def test_a_file_named_as_a_meta_graph_may_be_a_v1_checkpoint(tmp_path: Path) -> None:
    file = LegacyFile()
    file.add("w", np.float32(3))
    file.write(tmp_path / "odd.meta")
    assert ckptparse.read(tmp_path / "odd.meta")["w"] == 3


def test_a_damaged_meta_graph_still_leads_to_its_checkpoint(tmp_path: Path) -> None:
    save(tmp_path, "m")
    (tmp_path / "m.meta").write_bytes(b"\x0a\xff\xff")
    assert ckptparse.read(tmp_path / "m.meta")["w"].sum() == 4950


def test_a_state_file_of_other_text_is_an_error(tmp_path: Path) -> None:
    save(tmp_path, "m")
    (tmp_path / "checkpoint").write_bytes(b"")
    with pytest.raises(MalformedError, match="model_checkpoint_path"):
        ckptparse.open(tmp_path)


@pytest.mark.parametrize("listed", ["checkpoint", ".", "sub", "./checkpoint"])
def test_a_state_file_that_leads_in_circles_ends(tmp_path: Path, listed: str) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "checkpoint").write_text('model_checkpoint_path: ".."')
    (tmp_path / "checkpoint").write_text(f'model_checkpoint_path: "{listed}"')
    with pytest.raises((NotACheckpointError, CheckpointNotFoundError)):
        ckptparse.open(tmp_path)


def test_what_a_state_file_lists_may_be_an_index_by_its_name(tmp_path: Path) -> None:
    save(tmp_path, "m")
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "m.index"')
    assert ckptparse.read(tmp_path)["w"].sum() == 4950


def test_a_listed_v1_file_that_is_something_else_is_named(tmp_path: Path) -> None:
    save(tmp_path, "a")
    (tmp_path / "v1").write_bytes(POINTER)
    list_them(tmp_path, "a", "v1")
    with pytest.raises(NotACheckpointError, match="Git LFS pointer") as caught:
        ckptparse.open(tmp_path)
    assert f"listed: {tmp_path}/a" in str(caught.value)


def test_data_files_without_an_index_are_not_promised_to_be_rebuilt(tmp_path: Path) -> None:
    save(tmp_path, "c")
    lose_index(tmp_path)
    for path in (tmp_path / "c", tmp_path / "c.data-00000-of-00001"):
        with pytest.raises(CheckpointNotFoundError, match="nly the index has the names") as caught:
            ckptparse.read(path)
        assert "rebuild" not in str(caught.value)


def test_damage_says_that_recovery_tells_more(tmp_path: Path) -> None:
    save(tmp_path, "c")
    flip_index(tmp_path)
    with pytest.raises(ckptparse.ChecksumError) as caught:
        ckptparse.read(tmp_path / "c")
    assert "ckptparse.recover" in str(caught.value.hint)


def test_a_prefix_is_no_saved_model(fixtures: Path) -> None:
    with pytest.raises(CheckpointNotFoundError, match="Expected a SavedModel, found the prefix"):
        ckptparse.open_saved_model(fixtures / "saver" / "my_model")
    with pytest.raises(CheckpointNotFoundError, match="No such SavedModel"):
        ckptparse.open_saved_model(fixtures / "saver" / "none")


def test_a_graph_file_that_was_cut_off_says_so(fixtures: Path, tmp_path: Path) -> None:
    whole = fixtures / "saved_model" / "keras2_sequential" / "saved_model.pb"
    (tmp_path / "saved_model.pb").write_bytes(whole.read_bytes()[:5000])
    with pytest.raises(DataLossError) as caught:
        ckptparse.open_saved_model(tmp_path).meta_graphs  # noqa: B018 - reads
    assert "ended early" in str(caught.value.hint)
