"""Graphs that cost far more than their size."""

from __future__ import annotations

from pathlib import Path

import builder as b
import graph_builder as g
from attacking import attempt


def write(directory: Path, data: bytes) -> Path:
    path = directory / "graph.pb"
    path.write_bytes(data)
    return path


def test_a_node_that_takes_one_result_many_times_is_decoded_once(tmp_path: Path) -> None:
    nodes = [g.node("a", "NoOp"), g.node("m", "AddN", *["a"] * 20_000)]
    assert attempt(write(tmp_path, g.graph(nodes)), "graph") == {"graph": "value"}


def test_constants_of_one_value_repeated_are_bounded_together(tmp_path: Path) -> None:
    """Each of three lies within the limit; together they would take three gigabytes."""
    one = b.field32(5, 0x3F800000)
    nodes = [g.constant(f"c{number}", one, dims=[1 << 28]) for number in range(3)]
    found = attempt(write(tmp_path, g.graph(nodes)))
    assert found["list"] == "value" and found["read"] == "LimitError"


def test_strings_repeated_are_bounded_together(tmp_path: Path) -> None:
    one = b.field(8, b"x")
    nodes = [g.constant(f"c{number}", one, number=b.STRING, dims=[1 << 25]) for number in range(10)]
    assert attempt(write(tmp_path, g.graph(nodes)), "read") == {"read": "LimitError"}


def test_a_chain_of_very_many_nodes_costs_what_it_holds(tmp_path: Path) -> None:
    """Who takes a node's result is asked of every node: each time all were looked at once."""
    nodes = [g.node("n0", "NoOp")]
    nodes += [g.node(f"n{number}", "Relu", f"n{number - 1}") for number in range(1, 20_000)]
    found = attempt(write(tmp_path, g.graph(nodes)), "graph", "list", "verify")
    assert found["graph"] == "value"
