"""Members of archives among the evidence are opened again and again, and found without a search."""

from __future__ import annotations

import io
import pickle
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ckptparse
from ckptparse.files.archives import listing
from ckptparse.limits import Limits

COUNT = 120


def arrays() -> dict[str, Any]:
    rng = np.random.default_rng(7)
    return {f"w{n:03}": rng.normal(size=40).astype(np.float32) for n in range(COUNT)}


def lose(directory: Path, values: dict[str, Any]) -> Path:
    """Write a checkpoint of which only the index is left."""
    ckptparse.write(directory / "m", values)
    (directory / "m.data-00000-of-00001").unlink()
    return directory / "m"


def pack(path: Path, kind: str, values: dict[str, Any]) -> None:
    if kind == "npz":
        np.savez(path, **values)
    elif kind == "compressed":
        np.savez_compressed(path, **values)
    elif kind == "without its directory":
        np.savez(path, **values)
        data = path.read_bytes()
        path.write_bytes(data[: data.index(b"PK\x01\x02")])
    elif kind == "tar":
        with tarfile.open(path, "w") as archive:
            for name, value in values.items():
                info = tarfile.TarInfo(name)
                info.size = value.nbytes
                archive.addfile(info, io.BytesIO(value.tobytes()))
    else:
        inner = io.BytesIO()
        np.savez(inner, **values)
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("inner.npz", inner.getvalue())


KINDS = ["npz", "compressed", "without its directory", "tar", "npz in a zip"]


@pytest.mark.parametrize("kind", KINDS)
def test_members_of_an_archive_are_read_when_they_are_needed(kind: str, tmp_path: Path) -> None:
    values = arrays()
    prefix, path = lose(tmp_path, values), tmp_path / "aside.npz"
    pack(path, kind, values)
    recovery = ckptparse.recover(prefix, evidence=[path])
    for one in (recovery, pickle.loads(pickle.dumps(recovery))):  # noqa: S301 - of just now
        for name, value in values.items():
            assert one[name].status == "corrected"
            assert one[name].read().tobytes() == value.tobytes()


@pytest.mark.parametrize("kind", ["npz", "compressed", "without its directory"])
def test_what_a_zip_holds_is_listed_once_for_all_its_members(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of an archive of n members that were listed for each, a listing took the square of n."""
    from ckptparse.recovery.evidence import containers

    listed = 0
    opened, local = listing.open_zip, containers.iter_local_members

    def count_opened(*args: Any) -> Any:
        nonlocal listed
        listed += 1
        return opened(*args)

    def count_local(*args: Any) -> Any:
        nonlocal listed
        listed += 1
        return local(*args)

    monkeypatch.setattr(containers, "open_zip", count_opened)
    monkeypatch.setattr(containers, "iter_local_members", count_local)
    values = arrays()
    prefix, path = lose(tmp_path, values), tmp_path / "aside.npz"
    pack(path, kind, values)
    recovery = ckptparse.recover(prefix, evidence=[path])
    for tensor in recovery.values():
        tensor.read()
    assert 1 <= listed < 10


def test_of_a_zip_of_more_members_than_it_may_have_the_first_are_taken_and_the_limit_is_told(
    tmp_path: Path,
) -> None:
    values = arrays()
    prefix, path = lose(tmp_path, values), tmp_path / "aside.npz"
    pack(path, "npz", values)
    # An array counts as half a member.
    few = Limits(members=(COUNT - 20) // 2)
    recovery = ckptparse.recover(prefix, evidence=[path], limits=few)
    got_back = [name for name, tensor in recovery.items() if tensor.status == "corrected"]
    assert got_back == sorted(values)[: COUNT - 20]
    (problem,) = [one for one in recovery.report.problems if one.code == "evidence.unsearched"]
    assert f"Limits.members ({few.members})" in problem.message and "raise it" in problem.message
    whole = ckptparse.recover(prefix, evidence=[path], limits=Limits(members=COUNT // 2))
    assert {tensor.status for tensor in whole.values()} == {"corrected"} and len(whole) == COUNT
