"""What every storage must do: one suite, which each storage implements with `place`.

class TestMemory(StorageSuite):
    def place(self, files): return MemoryStorage(files), ""
"""

from __future__ import annotations

import pickle
import threading
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ckptparse
from ckptparse.errors import CheckpointNotFoundError, NotACheckpointError, TruncatedError
from ckptparse.files.storage import Storage

FILES = {
    "run/m.index": b"index",
    "run/m.data-00000-of-00001": bytes(range(256)) * 64,
    "run/sub/deep": b"x",
    "run/empty": b"",
    "runner": b"another",
}
DATA = "run/m.data-00000-of-00001"
FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"

CHECKPOINTS = {
    "v2": "saver/my_model",
    "v2 by its index": "saver/my_model.index",
    "v2 by its directory": "saver",
    "v2 of strings": "dtypes/strings/model",
    "v2 in slices": "slices/columns/model",
    "v2 of several shards": "graphs/saver_to_rebuild/model",
    "v1": "v1/unsharded/model.ckpt-2",
    "v1 of several files": "v1/sharded/model.ckpt-7",
    "graph": "graphs/frozen_tf2/frozen.pb",
    "graph as text": "graphs/frozen_tf1/frozen.pbtxt",
    "saved model": "saved_model/module",
}


def tree(directory: Path) -> dict[str, bytes]:
    """Every file below a directory, by its path from the directory's parent."""
    return {
        path.relative_to(directory.parent).as_posix(): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
    }


def check_alike(path: str, storage: Storage | None, local: Path) -> None:
    """Whatever is asked of a checkpoint, the answer is that of the local files."""
    assert ckptparse.list_variables(path, store=storage) == ckptparse.list_variables(local)
    wanted, found = ckptparse.read(local), ckptparse.read(path, store=storage)
    assert list(found) == list(wanted)
    for key, array in wanted.items():
        np.testing.assert_array_equal(found[key], array)
        assert found[key].dtype == array.dtype
    report, known = ckptparse.verify(path, store=storage), ckptparse.verify(local)
    assert report.ok == known.ok
    assert [one.code for one in report.problems] == [one.code for one in known.problems]
    assert {name: one.status for name, one in report.tensors.items()} == {
        name: one.status for name, one in known.tensors.items()
    }


class StorageSuite:
    """Inherit, and say how files are placed."""

    tmp_path: Path
    picklable = True

    @pytest.fixture(autouse=True)
    def _keep(self, tmp_path: Path) -> None:
        self.tmp_path = tmp_path

    def place(self, files: Mapping[str, bytes]) -> tuple[Storage, str]:
        """Return a storage that holds the files, and the directory that their names are below."""
        raise NotImplementedError

    def placed(self) -> tuple[Storage, Any]:
        storage, root = self.place(FILES)

        def find(name: str) -> str:
            path = root
            for part in name.split("/"):
                path = storage.join(path, part)
            return path

        return storage, find

    # A file.

    @pytest.mark.parametrize(("offset", "size"), [(0, 16384), (1, 1), (300, 5000), (16383, 1)])
    def test_bytes_are_those_of_the_file(self, offset: int, size: int) -> None:
        storage, find = self.placed()
        wanted = FILES[DATA][offset : offset + size]
        with closing(storage.open(find(DATA))) as source:
            assert source.size == len(FILES[DATA])
            assert source.path == find(DATA)
            assert bytes(source.read_at(offset, size)) == wanted
            buffer = bytearray(size)
            source.read_into(offset, memoryview(buffer))
            assert bytes(buffer) == wanted

    @pytest.mark.parametrize(("offset", "size"), [(0, 16385), (16384, 1), (1 << 40, 1), (-1, 1)])
    def test_what_lies_beyond_the_end_is_an_error_and_no_short_answer(
        self, offset: int, size: int
    ) -> None:
        storage, find = self.placed()
        with closing(storage.open(find(DATA))) as source:
            with pytest.raises(TruncatedError):
                source.read_at(offset, size)
            with pytest.raises(TruncatedError):
                source.read_into(offset, memoryview(bytearray(size)))

    def test_an_empty_file_has_no_bytes(self) -> None:
        storage, find = self.placed()
        with closing(storage.open(find("run/empty"))) as source:
            assert source.size == 0
            assert source.read_at(0, 0) == b""

    def test_a_map_is_the_file_or_none(self) -> None:
        storage, find = self.placed()
        with closing(storage.open(find(DATA))) as source:
            mapped = source.map()
            assert mapped is None or mapped[:] == FILES[DATA]

    def test_how_it_is_best_read_is_said(self) -> None:
        storage, find = self.placed()
        with closing(storage.open(find(DATA))) as source:
            assert source.piece > 0
            assert source.gap >= 0
            assert source.concurrency is None or source.concurrency > 0

    def test_closing_twice_is_harmless(self) -> None:
        storage, find = self.placed()
        source = storage.open(find(DATA))
        source.close()
        source.close()

    def test_threads_read_at_the_same_time(self) -> None:
        storage, find = self.placed()
        wrong: list[int] = []
        with closing(storage.open(find(DATA))) as source:

            def read(start: int) -> None:
                offsets = range(start, 16384 - 97, 977)
                wrong.extend(o for o in offsets if source.read_at(o, 97) != FILES[DATA][o : o + 97])

            threads = [threading.Thread(target=read, args=(start,)) for start in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert wrong == []

    # What lies where.

    def test_what_is_not_there_is_not_found(self) -> None:
        storage, find = self.placed()
        for name in ("no", "run/no", "run/m", "run/m.index/no", "ru"):
            assert storage.stat(find(name)) is None
            with pytest.raises(CheckpointNotFoundError) as caught:
                storage.open(find(name))
            assert caught.value.path == find(name)

    def test_a_directory_is_no_file(self) -> None:
        storage, find = self.placed()
        status = storage.stat(find("run"))
        assert status is not None and status.kind == "directory"
        with pytest.raises(NotACheckpointError, match="directory"):
            storage.open(find("run"))

    def test_a_file_has_its_size(self) -> None:
        storage, find = self.placed()
        for name, data in FILES.items():
            status = storage.stat(find(name))
            assert status is not None
            assert (status.kind, status.size) == ("file", len(data))

    def test_a_directory_lists_its_own_names_sorted(self) -> None:
        storage, find = self.placed()
        found = storage.list(find("run"))
        assert list(found) == ["empty", "m.data-00000-of-00001", "m.index", "sub"]
        assert found["sub"].kind == "directory"
        assert (found["m.index"].kind, found["m.index"].size) == ("file", 5)
        assert found["m.index"] == storage.stat(find("run/m.index"))

    def test_what_is_no_directory_lists_nothing(self) -> None:
        storage, find = self.placed()
        for name in ("no", "run/m.index", "run/empty"):
            assert dict(storage.list(find(name))) == {}

    def test_a_path_comes_apart_and_together_again(self) -> None:
        storage, find = self.placed()
        directory, name = storage.split(find("run/m.index"))
        assert name == "m.index"
        assert storage.join(directory, name) == find("run/m.index")
        assert storage.stat(storage.real(find("run/m.index"))) == storage.stat(find("run/m.index"))

    def test_it_can_be_sent_to_another_process(self) -> None:
        if not self.picklable:
            pytest.skip("holds what cannot be pickled")
        storage, find = self.placed()
        again = pickle.loads(pickle.dumps(storage))  # noqa: S301 - our own bytes
        with closing(again.open(find(DATA))) as source:
            assert source.read_at(0, 16384) == FILES[DATA]

    # Checkpoints.

    @pytest.mark.parametrize("name", CHECKPOINTS)
    def test_a_checkpoint_gives_what_local_files_give(self, name: str) -> None:
        top, _, rest = CHECKPOINTS[name].partition("/")
        storage, root = self.place(tree(FIXTURES / top))
        path = storage.join(root, top)
        for part in filter(None, rest.split("/")):
            path = storage.join(path, part)
        local = FIXTURES / CHECKPOINTS[name]
        check_alike(path, storage, local)
