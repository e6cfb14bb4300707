"""Graphs that cost far more than their size."""

from __future__ import annotations

from pathlib import Path

import graph_builder as g
from attacking import attempt


def write(directory: Path, data: bytes) -> Path:
    path = directory / "graph.pb"
    path.write_bytes(data)
    return path


def test_a_node_that_takes_one_result_many_times_is_decoded_once(tmp_path: Path) -> None:
    nodes = [g.node("a", "NoOp"), g.node("m", "AddN", *["a"] * 20_000)]
    assert attempt(write(tmp_path, g.graph(nodes)), "graph") == {"graph": "value"}
