"""Beside dask and loky: arrays in chunks, and a cluster that verifies a thousand data files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import builder
import numpy as np
import pytest

import ckptparse

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


def many(directory: Path, shards: int) -> Path:
    bundle = builder.Bundle()
    for number in range(shards):
        bundle.add(f"t{number:04d}", np.full(256, number, np.float32), shard=number)
    bundle.write(directory / "m")
    return directory / "m"


def test_a_tensor_is_the_source_of_an_array_of_dask(tmp_path: Path) -> None:
    array_of_dask = pytest.importorskip("dask.array")
    value = np.arange(1 << 16, dtype=np.float32).reshape(256, 256)
    bundle = builder.Bundle()
    bundle.add("w", value)
    bundle.write(tmp_path / "m")
    with ckptparse.open(tmp_path / "m") as checkpoint:
        lazy = array_of_dask.from_array(checkpoint["w"], chunks=(64, 256))
        assert (lazy.shape, lazy.dtype, lazy.ndim, lazy.numblocks) == ((256, 256), "f4", 2, (4, 1))
        assert float(lazy.sum().compute(scheduler="threads")) == float(value.sum())
        np.testing.assert_array_equal(
            lazy[100:130, ::3].compute(scheduler="sync"), value[100:130, ::3]
        )


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0"
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


def test_a_cluster_of_dask_verifies_a_thousand_data_files(client: Any, tmp_path: Path) -> None:
    path = many(tmp_path, 1000)
    report = ckptparse.verify(path, executor=client.get_executor())
    assert report.ok
    assert len(report.tensors) == 1000
    (tmp_path / "m.data-00500-of-01000").write_bytes(bytes(1024))
    report = ckptparse.verify(path, executor=client.get_executor())
    assert [name for name, one in report.tensors.items() if not one.status.proved] == ["t0500"]


def test_loky_gives_the_same_report(tmp_path: Path) -> None:
    loky = pytest.importorskip("loky")
    path = many(tmp_path, 20)
    executor = loky.get_reusable_executor(max_workers=2)
    try:
        report = ckptparse.verify(path, executor=executor)
    finally:
        executor.shutdown(wait=True)
    assert report.to_dict() == ckptparse.verify(path).to_dict()


def without_data(directory: Path) -> tuple[Path, Path]:
    """Write a checkpoint, and move its data into a file of something else."""
    random = np.random.default_rng(7)
    bundle = builder.Bundle()
    for number in range(5):
        bundle.add(f"w{number}", random.normal(size=(100, 40)).astype(np.float32))
    bundle.write(directory / "m")
    data = directory / "m.data-00000-of-00001"
    dump = directory / "elsewhere" / "dump.bin"
    dump.parent.mkdir()
    dump.write_bytes(bytes(1000) + data.read_bytes() + bytes(500))
    data.unlink()
    return directory / "m", dump


def assert_finds_the_same(executor: Any, directory: Path) -> None:
    path, dump = without_data(directory)
    alone = ckptparse.recover(path, evidence=[dump])
    assert {one.status for one in alone.report.tensors.values()} == {ckptparse.Status.CORRECTED}
    found = ckptparse.recover(path, evidence=[dump], executor=executor)
    assert found.report.to_dict() == alone.report.to_dict()


def test_a_cluster_of_dask_searches_for_lost_tensors(client: Any, tmp_path: Path) -> None:
    assert_finds_the_same(client.get_executor(), tmp_path)


def test_loky_searches_for_lost_tensors(tmp_path: Path) -> None:
    loky = pytest.importorskip("loky")
    executor = loky.get_reusable_executor(max_workers=2)
    try:
        assert_finds_the_same(executor, tmp_path)
    finally:
        executor.shutdown(wait=True)


def test_the_examples_of_the_page_run(client: Any, tmp_path: Path) -> None:
    bundle = builder.Bundle()
    bundle.add("embedding", np.ones((300, 4), np.float32))
    bundle.write(tmp_path / "m")
    page = (Path(__file__).resolve().parents[1] / "docs" / "remote.md").read_text("utf-8")
    blocks = re.findall(r"<!-- run by: remote -->\n```python\n(.*?)```", page, re.DOTALL)
    assert len(blocks) == 3
    names: dict[str, Any] = {"ckptparse": ckptparse, "client": client}
    for block in blocks:
        text = re.sub(r"^(from dask\.distributed .*|client = .*)$", "", block, flags=re.MULTILINE)
        text = re.sub(r'"(gs|s3)://[^"]*"', repr(str(tmp_path / "m")), text)
        exec(text, names)  # noqa: S102 - the project's own page
    assert names["report"].ok
    assert names["norms"].tolist() == [4.0] * 300
