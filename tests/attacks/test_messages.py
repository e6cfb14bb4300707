"""Values, object graphs, models and texts that cost far more than their size (format.md, 9.3)."""

from __future__ import annotations

from pathlib import Path

import builder as b
import graph_builder as g
import numpy as np
import pytest
import v1_builder
from attacking import attempt
from builder import field, varint

GRAPH_KEY = "_CHECKPOINTABLE_OBJECT_GRAPH"
CHECKPOINT_CALLS = ("list", "read", "verify", "recover")


# ---- line 11: values of V1


def test_small_numbers_of_ten_bytes_each_cost_what_they_take(tmp_path: Path) -> None:
    """-1 takes ten bytes as a varint: ten times its size in memory, never more."""
    file = v1_builder.LegacyFile()
    file.add("w", np.full(1 << 19, -1, np.int32))
    assert set(attempt(file.write(tmp_path / "v1"), *CHECKPOINT_CALLS).values()) == {"value"}


def test_fewer_values_than_the_shape_says_are_refused(tmp_path: Path) -> None:
    file = v1_builder.LegacyFile()
    file.add_slice(file.declare("w", [1 << 40], b.FLOAT), [None], np.ones(1, np.float32))
    found = attempt(file.write(tmp_path / "v1"), *CHECKPOINT_CALLS)
    assert found["read"] in ("MalformedError", "LimitError")


# ---- line 12: object graphs, models


def with_objects(directory: Path, nodes: bytes) -> Path:
    bundle = b.Bundle()
    bundle.add("v/.ATTRIBUTES/VARIABLE_VALUE", np.ones(3, np.float32))
    bundle.add(GRAPH_KEY, np.array(nodes, object))
    bundle.write(directory / "m")
    return directory / "m"


def child(number: int, name: bytes = b"c") -> bytes:
    return field(1, varint_field(1, number) + field(2, name))


def varint_field(number: int, value: int) -> bytes:
    return bytes([number << 3]) + varint(value)


def objects(*nodes: bytes) -> bytes:
    return b"".join(field(1, node) for node in nodes)


CHAIN = objects(*(child(index + 1) for index in range(200_000)), b"")
LOOP = objects(child(1), child(0))
LATTICE = objects(
    *(child(2 * i + 2, b"a") + child(2 * i + 3, b"b") for i in range(200) for _ in "ab")
)
"""Two children at each of 200 levels, shared: 2^200 ways lead through it."""
FAR = objects(child(1 << 30))


@pytest.mark.parametrize(
    "nodes",
    [
        pytest.param(CHAIN, id="a chain of 200,000"),
        pytest.param(LOOP, id="a loop"),
        pytest.param(LATTICE, id="many ways"),
        pytest.param(FAR, id="a child that is not there"),
        pytest.param(objects(*[b""] * 500_000), id="half a million nodes"),
    ],
)
def test_object_graphs_cost_what_they_hold(nodes: bytes, tmp_path: Path) -> None:
    found = attempt(with_objects(tmp_path, nodes), *CHECKPOINT_CALLS)
    assert found["list"] == found["verify"] == found["recover"] == "value"


def saved(directory: Path, objects_of_graph: bytes) -> Path:
    """Write a SavedModel of one meta graph with these objects (SavedObjectGraph)."""
    meta = field(1, field(4, b"serve")) + field(2, g.graph([g.node("n", "NoOp")]))
    meta += field(7, objects_of_graph)
    directory.mkdir()
    (directory / "saved_model.pb").write_bytes(varint_field(1, 1) + field(2, meta))
    return directory


def deep(levels: int, *path: int) -> bytes:
    """A message in a message, again and again, by these fields."""
    value = b""
    for level in range(levels):
        value = field(path[level % len(path)], value)
    return value


@pytest.mark.parametrize("levels", [90, 5_000, 30_000])
def test_structures_in_structures_cost_no_stack(levels: int, tmp_path: Path) -> None:
    # SavedObject.function (6), .function_spec (2), .fullargspec (1): a StructuredValue, whose list
    # (51) has values (1).
    value = deep(levels, 1, 51)
    graph = field(1, field(6, field(2, field(1, value))))
    found = attempt(saved(tmp_path / "model", graph), "identify", "model", "verify")
    assert found["identify"] == "value"
    assert found["model"] in ("value", "MalformedError", "LimitError")


def test_types_in_types_cost_no_stack(tmp_path: Path) -> None:
    # NodeDef.experimental_type (7): a FullTypeDef with arguments (2).
    node = g.node("n", "NoOp") + field(7, deep(20_000, 2))
    (tmp_path / "graph.pb").write_bytes(g.graph([node]))
    assert attempt(tmp_path / "graph.pb", "graph", "list", "verify")["graph"] in (
        "value",
        "MalformedError",
        "LimitError",
    )


# ---- line 13: texts


@pytest.mark.parametrize(
    "text",
    [
        pytest.param('node { name: "' + "a" * (8 << 20) + '" op: "NoOp" }', id="a long string"),
        pytest.param("node { attr { value { " + "list { func { " * 50_000, id="deep"),
        pytest.param("{" * 1_000_000, id="brackets"),
        pytest.param("node {} " * 20_000, id="many nodes"),
    ],
)
def test_graphs_in_text_end(text: str, tmp_path: Path) -> None:
    (tmp_path / "graph.pbtxt").write_text(text)
    attempt(tmp_path / "graph.pbtxt", "identify", "graph", "list", "verify")


@pytest.mark.parametrize(
    "text",
    [
        pytest.param('model_checkpoint_path: "' + "a" * (8 << 20) + '"', id="a long path"),
        pytest.param('model_checkpoint_path: "m"\n' + "x { " * 100_000, id="deep"),
        pytest.param('all_model_checkpoint_paths: "m"\n' * 100_000, id="many paths"),
        pytest.param('model_checkpoint_path: "' + "\\x41" * (1 << 20) + '"', id="escapes"),
        pytest.param('model_checkpoint_path: "' + "\\x41" * 262_000 + '"', id="as many as may be"),
    ],
)
def test_state_files_end(text: str, tmp_path: Path) -> None:
    b.Bundle().write(tmp_path / "m")
    (tmp_path / "checkpoint").write_text(text)
    found = attempt(tmp_path, "identify", "list", "verify", "recover")
    if len(text) > 1 << 20:
        assert found["list"] == "LimitError"
