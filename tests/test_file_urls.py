"""`file://` before a path means the file on this machine, for whatever takes a path."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ckptparse

WEIGHTS = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.fixture
def url(tmp_path: Path) -> str:
    """The URL of a directory with a space and a letter of two bytes, in which a checkpoint lies."""
    home = tmp_path / "a run é"
    home.mkdir()
    ckptparse.write(home / "m", {"w": WEIGHTS}, update_state=True)
    return home.as_uri()


@pytest.mark.parametrize("host", ["", "localhost"])
def test_what_reads_takes_the_url_of_a_file(host: str, url: str) -> None:
    url = url.replace("file://", f"file://{host}")
    assert np.array_equal(ckptparse.read(f"{url}/m")["w"], WEIGHTS)
    assert ckptparse.verify(f"{url}/m").ok
    assert ckptparse.identify(f"{url}/m.index").kind == "v2-index"
    found = ckptparse.latest_checkpoint(url)
    assert found is not None and Path(found).name == "m"
    with ckptparse.open(url) as opened:
        assert "://" not in str(opened.path)


def test_what_writes_takes_the_url_of_a_file(url: str, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    out = (tmp_path / "out").as_uri()
    ckptparse.write(f"{out}/m", {"w": WEIGHTS})
    ckptparse.convert(f"{url}/m", f"{out}/c.npz")
    ckptparse.convert(f"{url}/m", f"{out}/d/")
    ckptparse.convert(f"{url}/m", f"{out}/c.ckpt")
    ckptparse.average([f"{url}/m"], f"{out}/mean")
    ckptparse.recover(f"{url}/m", evidence=[url]).write(f"{out}/r.npz")
    made = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"m.index", "c.npz", "d", "c.ckpt.index", "mean.index", "r.npz"} <= made
    with pytest.raises(ckptparse.OutputExistsError):
        ckptparse.convert(f"{url}/m", f"{out}/c.npz")
    with pytest.raises(ckptparse.UnsupportedError, match="directory of an input"):
        ckptparse.recover(f"{url}/m").write(f"{url}/r.npz")


@pytest.mark.parametrize("path", ["file://model/m", "file://host/model/m", "file://"])
def test_the_url_of_another_machines_file_is_refused(path: str) -> None:
    with pytest.raises(ckptparse.UnsupportedError, match="three slashes"):
        ckptparse.read(path)


def test_a_store_of_the_callers_has_names_of_its_own() -> None:
    held: Any = {"file:///m.index": b"", "file:///m.data-00000-of-00001": b""}
    with pytest.raises(ckptparse.DataLossError):
        ckptparse.read("file:///m", store=held)
