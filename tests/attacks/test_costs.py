"""Small files that once cost much more than their size: calls and objects are counted, no time."""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import builder
import graph_builder as g
import numpy as np
import pytest
import v1_builder
from instruments import allocating_at_most

import ckptparse
from ckptparse import tensor_proto
from ckptparse.annotation import messages
from ckptparse.bundle import index
from ckptparse.crc import registers
from ckptparse.examination import (
    carving,
    case,
    checking,
    diagnose,
    encodings,
    file_maps,
    index_reading,
    neighbours,
    tensor_checks,
)
from ckptparse.examination.failed_rows import examine_rows
from ckptparse.files import cache, local
from ckptparse.graph import attributes, flow, savers, step
from ckptparse.graph import graph as graph_module
from ckptparse.graph.graph import Graph
from ckptparse.graph.nodes import NodeTable
from ckptparse.identification import magic as identification_magic
from ckptparse.identification import tables as identification_tables
from ckptparse.identification import wire as identification_wire
from ckptparse.inventory import folders
from ckptparse.recovery import outlook, string_flips
from ckptparse.recovery.imaging import extents, scan, tables
from ckptparse.rendering.page import subject as page_subject
from ckptparse.rendering.page import uses
from ckptparse.rendering.page.measuring import measure_all
from ckptparse.rendering.page.subject import Subject
from ckptparse.table import reader as table_reader
from ckptparse.table.block import Block

MAGIC = bytes.fromhex("57fb808b247547db")


class Counter:
    """Counts the calls of a function that it stands for, and keeps what it was given first."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.given: list[Any] = []

    def __call__(self, *args: Any, **options: Any) -> Any:
        self.given.append(args[0] if args else None)
        return self.function(*args, **options)

    @property
    def as_method(self) -> Callable[..., Any]:
        """Itself as a function, which a class binds."""
        return lambda *args, **options: self(*args, **options)  # noqa: PLW0108


def counted(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> Counter:
    counter = Counter(getattr(owner, name))

    # The counter itself would not be bound, and not be given the object whose method it is.
    def stand_in(*args: Any, **options: Any) -> Any:
        return counter(*args, **options)

    monkeypatch.setattr(owner, name, stand_in)
    return counter


def test_an_image_full_of_magic_numbers_is_no_table_at_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "disk.img").write_bytes(MAGIC * 1024)
    looked = counted(monkeypatch, tables, "_look_at")
    opened = counted(monkeypatch, tables, "kind_of")
    assert not ckptparse.scan(tmp_path / "disk.img").checkpoints
    assert len(looked.given) < 10
    assert not opened.given


def test_ends_of_blocks_that_begin_nowhere_are_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    end = bytes(4) + b"\1" + bytes(3) + b"\0"
    block = builder.Stored(builder.block([(b"k", b"v")])).to_bytes()
    asked = counted(monkeypatch, carving, "bisect_left")
    found = carving.iter_blocks(end * 1000 + block + end * 1000)
    assert [start for start, _ in found] == [9000]
    assert len(asked.given) < 10


def test_blocks_are_proved_as_they_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    block = builder.Stored(builder.block([(b"k", b"v")])).to_bytes()
    (tmp_path / "blocks").write_bytes(block * 1000)
    asked = counted(monkeypatch, carving, "bisect_left")
    with closing(local.LocalStorage().open(str(tmp_path / "blocks"))) as source:
        finder = carving.BlockFinder(source, longest=None)
        assert finder.start_after(0) == 0
        assert finder.start_after(1) == len(block)
        assert len(asked.given) < 10
        assert finder.start_after(999 * len(block)) == 999 * len(block)
        assert finder.start_after(999 * len(block) + 1) is None


def test_an_object_graph_of_too_many_objects_is_not_compared_with_the_index(tmp_path: Path) -> None:
    bundle = builder.Bundle()
    bundle.add("a", np.float32(1))
    bundle.add_strings(builder.OBJECT_GRAPH, [b"\x0a\x00" * 1000], ())
    prefix = bundle.write(tmp_path / "m")
    held = sum(path.stat().st_size for path in tmp_path.iterdir())
    few, enough = (ckptparse.Limits(objects=1000 - held // 512 - less) for less in (1, 0))
    assert not ckptparse.verify(prefix, limits=enough).problems
    for report in (
        ckptparse.verify(prefix, limits=few),
        ckptparse.recover(prefix, limits=few).report,
    ):
        (problem,) = report.problems
        assert (problem.code, report.verdict) == ("limit.reached", "warnings")
        assert "object graph was not compared" in problem.message
    with ckptparse.open(prefix, limits=few) as opened, pytest.raises(ckptparse.LimitError):
        _ = opened.object_graph


def nested_footers(count: int, index_size: int) -> bytes:
    """Footers of tables that all begin at the start of the image."""
    made = b""
    for _ in range(count):
        offset = max(0, len(made) - index_size - 5)
        size = len(made) - offset - 5
        if size < 0:
            made += bytes(48)
            continue
        handles = builder.handle(0, 8) + builder.handle(offset, size)
        made += handles.ljust(40, b"\x01") + MAGIC
    return made


def test_index_blocks_that_lie_over_each_other_are_read_up_to_twice_the_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = nested_footers(500, 1 << 30)
    (tmp_path / "disk.img").write_bytes(data)
    monkeypatch.setattr(tables, "_SPARE", 1000)
    read = counted(monkeypatch, tables, "check_block")
    ckptparse.scan(tmp_path / "disk.img")
    assert 0 < sum(map(len, read.given)) <= 2 * len(data) + 1000


def test_tables_that_lie_over_each_other_are_examined_up_to_the_size_of_the_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "disk.img").write_bytes(nested_footers(400, 30))
    monkeypatch.setattr(scan, "_SPARE", 1000)
    examined = counted(monkeypatch, scan, "open_case")
    found = ckptparse.scan(tmp_path / "disk.img")
    # A damaged one counts as two: else 27 were looked at.
    assert 0 < len(examined.given) < 24
    assert found.skipped > 300


def test_tables_that_were_written_are_all_found(tmp_path: Path) -> None:
    image = b""
    for number in range(20):
        bundle = builder.Bundle()
        bundle.add(f"w{number}", builder.np.full(8, number, builder.np.float32))
        for data in bundle.files("m").values():
            image += bytes(data).ljust(4096, b"\x00")
    (tmp_path / "disk.img").write_bytes(image)
    assert len(ckptparse.scan(tmp_path / "disk.img").checkpoints) == 20


def test_of_a_long_list_of_numbers_those_that_are_shown_are_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = builder.field(1, builder.field(3, b"\x01\x80\x02" * 5000))
    node = g.node("n", "X", numbers=values)
    (tmp_path / "g.pb").write_bytes(g.graph([node]))
    decoded = counted(monkeypatch, messages, "read_varint")
    shown = [part.value for part in ckptparse.annotate(tmp_path / "g.pb")]
    assert "1 256 1 256 1 256 … 10,000 values" in shown
    assert len(decoded.given) < 20


@pytest.mark.parametrize("tail", [b"\x80", b"\x80" * 10 + b"\x01"])
def test_a_long_list_with_a_bad_number_is_told_as_before(tmp_path: Path, tail: bytes) -> None:
    values = builder.field(1, builder.field(3, b"\x01" * 50 + tail))
    (tmp_path / "g.pb").write_bytes(g.graph([g.node("n", "X", numbers=values)]))
    parts = list(ckptparse.annotate(tmp_path / "g.pb"))
    assert any(part.broken for part in parts)


def test_variables_that_share_nothing_are_looked_through_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    nodes = [g.node(f"v{n}", "VarHandleOp", shared_name=g.of_string(b"v%d" % n)) for n in range(50)]
    (tmp_path / "g.pb").write_bytes(g.graph(nodes))

    class Watched(dict[str, Any]):
        walks = 0

        def values(self) -> Any:
            Watched.walks += 1
            return super().values()

    find = graph_module.find_variables
    monkeypatch.setattr(graph_module, "find_variables", lambda *args: Watched(find(*args)))
    graph = ckptparse.open_graph(tmp_path / "g.pb")
    for name in graph.nodes:
        assert graph.consumers(name) == ()
    assert Watched.walks <= 1


def test_uses_in_functions_that_all_call_are_not_drawn(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    body = b"".join(builder.field(3, g.node(f"n{n}", "MatMul", "x")) for n in range(20))
    signature = builder.field(1, b"f") + builder.field(2, builder.field(1, b"x"))
    library = builder.field(2, builder.field(1, builder.field(1, signature) + body))
    nodes = []
    for number in range(200):
        nodes.append(g.node(f"v{number}", "VarHandleOp", shared_name=g.of_string(b"%d" % number)))
        nodes.append(g.node(f"c{number}", "PartitionedCall", f"v{number}", f=g.of_function("f")))
    (tmp_path / "g.pb").write_bytes(g.graph(nodes) + library)
    graph = ckptparse.open_graph(tmp_path / "g.pb", limits=ckptparse.Limits(steps=1000))
    asked = counted(monkeypatch, flow.Flow, "_walk")
    drawn = uses.make_uses(Subject("graph", "g.pb", graph=graph))
    assert drawn is not None and drawn["left_out"] and not drawn["nodes"]
    assert len(asked.given) < 100


def test_variables_that_are_passed_on_in_one_long_line_are_not_drawn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each of them is seen through to the end of the line, where nothing is."""
    nodes = [g.variable(f"v{number}", 1) for number in range(100)]
    nodes.append(g.node("n0", "Identity", *(f"v{number}" for number in range(100))))
    nodes += [g.node(f"n{number}", "Identity", f"n{number - 1}") for number in range(1, 1000)]
    asked = counted(monkeypatch, flow.Flow, "_walk")
    graph = Graph.from_graph_def(g.graph(nodes), limits=ckptparse.Limits(steps=5000))
    drawn = uses.make_uses(Subject("graph", "g.pb", graph=graph))
    assert drawn is not None and drawn["left_out"]
    assert len(asked.given) < 10


def test_uses_of_more_variables_than_a_drawing_is_made_of_are_not_searched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(uses, "_MOST_VARIABLES", 9)
    nodes = [g.variable(f"v{number}", 1) for number in range(10)]
    nodes += [g.node(f"n{number}", "Relu", f"v{number}") for number in range(10)]
    asked = counted(monkeypatch, flow.Flow, "_walk")
    few, many = (
        Subject("g", "g.pb", graph=Graph.from_graph_def(g.graph(nodes[n:]))) for n in (1, 0)
    )
    drawn = uses.make_uses(many)
    assert drawn is not None and drawn["left_out"]
    assert not asked.given
    drawn = uses.make_uses(few)
    assert drawn is not None and not drawn.get("left_out")


def test_scopes_that_are_too_many_are_not_drawn_at_each_depth(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nodes = [g.variable("v", 1), *(g.node(f"n{number}", "Relu", "v") for number in range(2000))]
    things = counted(monkeypatch, uses._Drawing, "_node")
    graph = Graph.from_graph_def(g.graph(nodes))
    drawn = uses.make_uses(Subject("graph", "g.pb", graph=graph))
    assert drawn is not None and len(drawn["nodes"]) == 200 and drawn["more"] == 1801
    assert len(things.given) < 9 * 2 * 202 + 2 * 2001


def test_constants_of_one_value_repeated_are_verified_without_writing_them_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    one = builder.field(5, b"\x00\x00\x80\x3f")
    nodes = [g.constant(f"c{number}", one, dims=(1 << 26,)) for number in range(50)]
    (tmp_path / "g.pb").write_bytes(g.graph(nodes))
    written = counted(monkeypatch, attributes, "decode_tensor_bytes")
    report = ckptparse.verify(tmp_path / "g.pb")
    assert report.ok
    assert report.tensors["c7"].ranges == ((0, 1 << 26),)
    assert not written.given


@pytest.mark.parametrize(
    ("number", "dims", "parts"),
    [
        (builder.FLOAT, (4,), builder.field(5, bytes(4))),
        (builder.FLOAT, (4,), builder.field(5, bytes(3))),
        (builder.FLOAT, (4,), builder.field(4, bytes(12))),
        (builder.FLOAT, (1 << 40,), builder.field(5, bytes(4))),
        (builder.FLOAT, (0, 1 << 62), b""),
        (builder.INT64, (2, 2), builder.field(10, b"\x80" * 11)),
        (builder.STRING, (3,), builder.field(8, b"a")),
        (builder.STRING, (1 << 30,), builder.field(8, b"a")),
        (builder.STRING, (3,), builder.field(4, b"\x01\x01")),
        (builder.STRING, (0, 1 << 62), b""),
        (builder.VARIANT, (2,), builder.field(15, b"\x0a\x01\xff")),
        (200, (2,), b""),
    ],
)
def test_what_cannot_be_read_is_what_cannot_be_checked(
    number: int, dims: tuple[int, ...], parts: bytes
) -> None:
    def answer(work: Callable[[bytes], object]) -> tuple[str, str] | None:
        try:
            work(builder.tensor_proto(number, dims, parts))
        except ckptparse.CheckpointError as error:
            return type(error).__name__, error.message
        return None

    found = answer(tensor_proto.check_tensor_bytes)
    assert (found and found[0]) == (answer(tensor_proto.decode_tensor_bytes) or [None])[0]


def test_a_name_of_a_v1_file_that_states_very_many_others_costs_little() -> None:
    made = v1_builder.LegacyFile()
    made.add("w", np.array([1, 2], np.float32))
    name = "d/m-00001-of-99999"
    store = {name: made.data()}
    report = ckptparse.verify(name, store=store)
    assert not report.ok and len(report.problems) < 2000
    assert str(report.tensors["w"].status) == "verified"
    assert len(ckptparse.recover(name, store=store).report.problems) < 2000


def chain_of(count: int) -> list[bytes]:
    nodes = [g.node("n0", "SaveV2", "p", "q", "r", "v")]
    return nodes + [g.node(f"n{number}", "Relu", f"n{number - 1}") for number in range(1, count)]


def test_savers_that_begin_at_one_node_are_searched_once(monkeypatch: pytest.MonkeyPatch) -> None:
    items = [builder.field(1, b"%d" % n) + builder.field(2, b"n99:0") for n in range(50)]
    listed = builder.field(2, b"".join(builder.field(1, item) for item in [*items, *items]))
    meta = g.meta_graph(g.graph(chain_of(100)), collections={"savers": listed})
    searched = counted(monkeypatch, savers._Finder, "_search")
    found = Graph.from_meta_graph(meta).savers
    assert [saver.definition.filename_tensor_name for saver in found if saver.definition] == [
        str(n) for n in range(50)
    ]
    assert len(searched.given) == 1


def test_savers_that_begin_at_each_node_of_a_line_meet_a_limit() -> None:
    items = [builder.field(2, b"n%d:0" % n) for n in range(100)]
    listed = builder.field(2, b"".join(builder.field(1, item) for item in items))
    meta = g.meta_graph(g.graph(chain_of(100)), collections={"savers": listed})
    assert len(Graph.from_meta_graph(meta).savers) == 100
    graph = Graph.from_meta_graph(meta, limits=ckptparse.Limits(steps=1000))
    with pytest.raises(ckptparse.LimitError, match="Savers") as found:
        _ = graph.savers
    assert found.value.limit == "steps"


def test_a_list_of_names_is_decoded_once_for_all_that_save_by_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nodes = [g.strings("names", *[b"a"] * 20), g.variable("v", 1)]
    nodes += [g.node(f"s{n}/S", "SaveV2", "p", "names", "names", "v") for n in range(50)]
    decoded = counted(monkeypatch, savers._Finder, "_constant")
    assert len(Graph.from_graph_def(g.graph(nodes)).savers) == 50
    assert len(decoded.given) == 1


def test_constants_are_found_without_decoding_their_nodes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = builder.field(5, b"\x00\x00\x80\x3f")
    nodes = [g.constant(f"c{number}", one, dims=[1, 7, 11, 13]) for number in range(50)]
    graph = Graph.from_graph_def(g.graph(nodes))
    tensor_proto._short_shape.cache_clear()
    decoded = counted(monkeypatch, NodeTable, "_decode")
    parsed = counted(monkeypatch, tensor_proto, "_parse_shape")
    assert {tensor.shape for tensor in graph.constants.values()} == {(1, 7, 11, 13)}
    assert not decoded.given
    assert len(parsed.given) == 1


KEY, OTHER = builder.field(1, b"value"), builder.field(1, b"other")
VALUE = builder.field(2, g.of_tensor(dims=[2]))
LATER = builder.field(2, g.of_tensor(dims=[3]))


@pytest.mark.parametrize(
    "entries",
    [
        [],
        [KEY + VALUE],
        [OTHER + VALUE],
        [KEY + VALUE, OTHER + LATER],
        [KEY + VALUE, KEY + LATER],
        [VALUE + KEY],
        [KEY + VALUE + LATER],
        [KEY + VALUE + OTHER],
        [OTHER + VALUE + KEY],
        [KEY],
        [VALUE],
        [KEY + VALUE[:-1]],
        [KEY + VALUE, b""],
        [KEY + b"\x12"],
        [KEY + b"\x12\xff"],
        [KEY + b"\x12\x80\x00"],
        [builder.field(1, b"k" * 200) + VALUE, KEY + LATER],
        [KEY + builder.field(2, g.of_type(1) + VALUE[2:] + g.of_type(2))],
    ],
)
def test_an_attribute_is_found_as_if_the_node_was_decoded(entries: list[bytes]) -> None:
    node = g.node("c", "Const") + b"".join(builder.field(5, entry) for entry in entries)
    table = Graph.from_graph_def(g.graph([node])).nodes

    def answer(find: Callable[[], Any]) -> Any:
        try:
            found = find()
        except ckptparse.CheckpointError as error:
            return type(error), str(error)
        return None if found is None else bytes(found)

    direct = answer(lambda: table.find_tensor("c", "value"))
    assert direct == answer(lambda: table["c"].attributes.find_tensor("value"))


def test_users_of_variables_are_not_decoded_for_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of these has very many inputs, and is asked for at each variable."""
    names = [f"v{number}" for number in range(30)]
    nodes = [g.variable(name, 1) for name in names]
    nodes += [g.node(f"m{number}", "AddN", *names) for number in range(30)]
    graph = Graph.from_graph_def(g.graph(nodes))
    assert len(graph.variables) == 30
    decoded = counted(monkeypatch, NodeTable, "_decode")
    drawn = uses.make_uses(Subject("graph", "g.pb", graph=graph))
    assert drawn is not None and len(drawn["nodes"]) == 60
    assert not decoded.given


def test_names_without_parts_are_cut_once(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [g.variable("n0", 1)]
    nodes += [g.node(f"n{number + 1}", "Add", f"n{number}") for number in range(3000)]
    graph = Graph.from_graph_def(g.graph(nodes))
    cut = counted(monkeypatch, uses, "_cut_flow")
    assert uses.make_uses(Subject("graph", "g.pb", graph=graph)) is not None
    assert len(cut.given) == 2999


def test_constants_that_repeat_a_value_are_measured_up_to_a_size(tmp_path: Path) -> None:
    one = builder.field(5, b"\x00\x00\x80\x3f")
    made = [g.constant(f"c{number}", one, dims=[1 << 20]) for number in range(9)]
    made.append(g.constant("small", one, dims=[2]))
    tensors = Graph.from_graph_def(g.graph(made)).constants
    found = measure_all(dict(tensors), stored=1000, threads=1, progress=None)
    # Four of 4 MiB would be 16 MiB, and there are 8 bytes more.
    assert len(found) == 4
    assert "small" in found
    assert len(measure_all(dict(tensors), stored=1 << 25, threads=1, progress=None)) == 10


@pytest.mark.parametrize("entry", [b"", KEY, VALUE + KEY, KEY + VALUE[:-1], KEY + b"\x12\xff"])
def test_inputs_are_read_as_if_the_node_was_decoded(entry: bytes) -> None:
    node = g.node("c", "Relu", "a:1", "^b") + builder.field(5, entry)
    table = Graph.from_graph_def(g.graph([node])).nodes

    def answer(find: Callable[[], Any]) -> Any:
        try:
            return list(find())
        except ckptparse.CheckpointError as error:
            return type(error), str(error)

    assert answer(lambda: table.data_inputs("c")) == answer(lambda: table["c"].data_inputs)


STRINGS, STRINGS_CRC = builder.string_payload([b"ab", b"c"])


def _with_strings(directory: Path, count: int, *, crc: int) -> str:
    """Strings that lie over each other, and a vector behind them in the index."""
    bundle = builder.Bundle()
    bundle.put(STRINGS)
    entry = builder.Entry(builder.STRING, (2,), size=len(STRINGS), crc=crc)
    for number in range(count):
        bundle.entries[b"s%05d" % number] = entry
    bundle.add("w", np.arange(4, dtype=np.float32))
    return bundle.write(directory / "m")


@pytest.mark.parametrize("crc", [STRINGS_CRC, 7])
def test_entries_that_are_told_one_by_one_are_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crc: int
) -> None:
    prefix = _with_strings(tmp_path, 400, crc=crc)
    checked = counted(monkeypatch, tensor_checks, "check_payload")
    limits = ckptparse.Limits(single_entries=20)
    size = sum(path.stat().st_size for path in tmp_path.iterdir())
    report = ckptparse.verify(prefix, limits=limits)
    told = [problem.message for problem in report.problems if problem.code == "limit.reached"]
    assert len(told) == 1
    assert "Limits.single_entries allows 20" in told[0]
    # Twice: `verify` looks at what `recover` would give.
    assert len(checked.given) <= 2 * (20 + size // 4096)
    assert report.tensors["w"].status == "verified"
    assert len(report.tensors) == 20 + size // 4096 + 1
    assert not report.complete
    recovery = ckptparse.recover(prefix, limits=limits)
    assert recovery["w"].read().tolist() == [0, 1, 2, 3]


def test_entries_of_a_damaged_block_are_bounded_too(tmp_path: Path) -> None:
    bundle = builder.Bundle()
    for number in range(400):
        bundle.add(f"w{number:05}", np.float32(number))
    prefix = bundle.write(tmp_path / "m")
    index = tmp_path / "m.index"
    index.write_bytes(bundle.table().replace(3000, bytes(200)))
    usual = ckptparse.verify(prefix)
    assert not [one for one in usual.problems if one.code == "limit.reached"]
    bounded = ckptparse.verify(prefix, limits=ckptparse.Limits(single_entries=20))
    assert [one for one in bounded.problems if one.code == "limit.reached"]
    assert 0 < len(bounded.tensors) < 50 < len(usual.tensors)


def test_a_key_that_occurs_twice_does_not_lift_the_bound(tmp_path: Path) -> None:
    table = builder.table(
        [
            (b"", builder.Header().to_bytes(1)),
            *((b"w", builder.Entry(size=4).to_bytes()) for _ in range(400)),
        ]
    )
    (tmp_path / "m.index").write_bytes(table.data)
    (tmp_path / "m.data-00000-of-00001").write_bytes(bytes(4))
    report = ckptparse.verify(tmp_path / "m", limits=ckptparse.Limits(single_entries=20))
    assert [one for one in report.problems if one.code == "limit.reached"]


def test_a_sound_checkpoint_does_not_meet_the_bound_of_single_entries(tmp_path: Path) -> None:
    bundle = builder.Bundle()
    for number in range(50):
        bundle.add(f"s{number}", [b"ab", b"c"])
    limits = ckptparse.Limits(single_entries=0)
    assert ckptparse.verify(bundle.write(tmp_path / "m"), limits=limits).problems == ()


def test_the_leftovers_of_a_save_are_looked_through_once_for_each_shard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = builder.Bundle()
    for number in range(200):
        bundle.add_strings(f"s{number}", [b"ab"], (1,), crc=7)
    prefix = bundle.write(tmp_path / "m")
    asked = counted(monkeypatch, index_reading, "shard_path")
    ckptparse.verify(prefix)
    assert len(asked.given) < 20


def _image_of(directory: Path, count: int, *, shards: int = 1) -> Path:
    image = b""
    for number in range(count):
        bundle = builder.Bundle(header=builder.Header(shards))
        bundle.add(f"w{number}", np.full(8, number, np.float32))
        image += bundle.index() + bytes(bundle.shards[0])
    (directory / "disk.img").write_bytes(image)
    return directory / "disk.img"


def test_of_more_tables_than_fit_into_an_image_the_first_are_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _image_of(tmp_path, 40)
    whole = ckptparse.scan(path)
    assert (len(whole), whole.skipped) == (40, 0)
    assert "not looked at" not in str(whole)
    monkeypatch.setattr(scan, "_FEW_INDEXES", 10)
    examined = counted(monkeypatch, scan, "open_case")
    found = ckptparse.scan(path)
    assert len(found) == len(examined.given) == 10
    assert found.skipped == found.to_dict()["skipped"] == 30
    assert "30 or more other tables were not looked at" in str(found)
    monkeypatch.setattr(scan, "_FEW_TABLES", 5)
    looked = counted(monkeypatch, tables, "kind_of")
    found = ckptparse.scan(path)
    assert (len(found), found.skipped) == (5, 1)
    assert len(looked.given) == 6


def test_indexes_in_an_image_of_more_tensors_than_fit_into_it_are_not_put_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _image_of(tmp_path, 5)
    monkeypatch.setattr(scan, "_FEW_TENSORS", 3 - (path.stat().st_size >> 9))
    joined = counted(monkeypatch, extents, "join")
    found = ckptparse.scan(path)
    assert (len(found), found.skipped) == (3, 2)
    # Once at the multiples that their starts show, once at smaller ones.
    assert len(joined.given) == 2 * 3


def test_damaged_tensors_beyond_those_that_may_be_small_are_counted_and_not_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = builder.Bundle()
    for number in range(300):
        bundle.add(f"w{number:03}", np.float32(number))
        if number % 3:
            bundle.change(f"w{number:03}", crc=7)
    prefix = bundle.write(tmp_path / "m")
    size = sum(path.stat().st_size for path in tmp_path.iterdir())
    limits = ckptparse.Limits(small_tensors=20, attempts=4)
    most = 20 + size // 512
    examined: list[int] = []

    def examine(files: Any, plain: Any, rows: Any, names: Any) -> Any:
        examined.append(len(rows))
        return examine_rows(files, plain, rows, names)

    monkeypatch.setattr(checking, "examine_rows", examine)
    for report in (
        ckptparse.verify(prefix, limits=limits),
        ckptparse.recover(prefix, limits=limits).report,
    ):
        (told,) = [one.message for one in report.problems if "small_tensors" in one.message]
        assert told.startswith(f"{200 - most} more tensors are damaged, or share bytes")
        assert report.counts["verified"] == 100 and len(report.tensors) == 100 + most
        assert not report.ok and not report.complete
    assert set(examined) == {most}
    assert "w299" not in report.tensors and "w297" in report.tensors
    enough = ckptparse.Limits(small_tensors=200 - size // 512)
    assert len(ckptparse.verify(prefix, limits=enough).tensors) == 300


def test_indexes_in_an_image_that_state_a_million_data_files_are_not_put_together(
    tmp_path: Path,
) -> None:
    found = ckptparse.scan(_image_of(tmp_path, 3, shards=1_000_000))
    assert (len(found), found.skipped) == (0, 3)
    assert len(ckptparse.scan(_image_of(tmp_path, 3, shards=1_000))) == 3


def _in_shards(directory: Path, count: int) -> str:
    bundle = builder.Bundle()
    for number in range(count):
        bundle.add(f"w{number:03}", np.arange(16, dtype=np.float32) + number, shard=number)
        bundle.change(f"w{number:03}", crc=7)
    return bundle.write(directory / "m")


def test_the_index_is_read_once_to_tell_what_all_its_data_files_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = _in_shards(tmp_path, 30)
    read = counted(monkeypatch, identification_tables, "_open_index")
    stated = counted(monkeypatch, diagnose, "is_anothers")
    report = ckptparse.verify(prefix)
    assert len([one for one in report.problems if one.code == "tensor.checksum"]) == 30
    # Twice: `verify` looks at what `recover` would give.
    assert 0 < len(read.given) <= 2
    assert 0 < len(stated.given) <= 2 * 30


def test_the_lengths_of_all_string_tensors_share_what_may_be_tried_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = np.random.default_rng(0).integers(128, 256, 80).astype(np.uint8).tobytes()
    payload: Any = SimpleNamespace(shape=(3,), big_endian=False, crc32c=1)
    tried = counted(monkeypatch, string_flips, "string_spans")
    lengths = string_flips.LengthBytes()
    for _ in range(1000):
        assert string_flips.find_string_bit(data, payload, lengths) is None
    assert 900 * 8 < len(tried.given) <= 1024 * 8 + 1000


def test_the_parts_of_a_case_are_sorted_by_data_file_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = _in_shards(tmp_path, 60)
    asked = counted(monkeypatch, case.CheckedTensor, "name_of")
    monkeypatch.setattr(case.CheckedTensor, "name_of", asked.as_method)
    ckptparse.recover(prefix)
    assert 0 < len(asked.given) < 60 * 60


def test_more_data_files_than_the_limit_are_told_and_nothing_is_listed(tmp_path: Path) -> None:
    bundle = builder.Bundle(header=builder.Header(1_000_000))
    bundle.add("w", np.arange(8, dtype=np.float32))
    prefix = bundle.write(tmp_path / "m")
    report = ckptparse.verify(prefix)
    assert [problem.code for problem in report.problems] == ["limit.reached"]
    assert "Limits.shards allows 4096" in report.problems[0].message
    assert len(report.tensors) == 0 and len(report.files) < 4
    with pytest.raises(ckptparse.LimitError, match=r"Limits\.shards"):
        ckptparse.read(prefix)


def test_a_checkpoint_may_have_more_data_files_the_larger_they_are(tmp_path: Path) -> None:
    bundle = builder.Bundle(header=builder.Header(6))
    bundle.add("w", np.arange(8, dtype=np.float32))
    bundle.add("large", np.zeros(1 << 16, np.float32), shard=1)
    prefix = bundle.write(tmp_path / "m")
    assert ckptparse.read(prefix, ["w"], limits=ckptparse.Limits(shards=2))["w"][7] == 7
    found = ckptparse.verify(prefix, limits=ckptparse.Limits(shards=2))
    assert found.tensors["w"].status == found.tensors["large"].status == "verified"
    with pytest.raises(ckptparse.LimitError):
        ckptparse.read(prefix, ["w"], limits=ckptparse.Limits(shards=1))
    report = ckptparse.verify(prefix, limits=ckptparse.Limits(shards=1))
    assert [problem.code for problem in report.problems] == ["limit.reached"]


def test_of_many_damaged_data_files_so_many_are_examined_as_the_limit_allows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = _in_shards(tmp_path, 40)
    for path in sorted(tmp_path.glob("m.data*")):
        path.write_bytes(b"\x01" * path.stat().st_size)
    looked = counted(monkeypatch, diagnose, "find_line_ends")
    every = ckptparse.recover(prefix, limits=ckptparse.Limits(attempts=320)).report
    assert len(looked.given) == 40 and "limit.reached" not in {one.code for one in every.problems}
    looked.given.clear()
    report = ckptparse.recover(prefix, limits=ckptparse.Limits(attempts=80)).report
    assert len(looked.given) == 10
    (problem,) = [one for one in report.problems if one.code == "limit.reached"]
    assert problem.message.startswith("30 more data files are damaged or missing")
    assert len(report.tensors) == len(every.tensors) == 40


def test_no_more_files_are_asked_whose_they_are_than_are_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = _in_shards(tmp_path, 200)
    (tmp_path / "m.data-00003-of-00200").unlink()
    asked = counted(monkeypatch, diagnose, "is_anothers")
    ckptparse.recover(prefix)
    assert 0 < len(asked.given) <= 66


def _in_slices(directory: Path, count: int, *, kept: bool = True, owned: bool = True) -> str:
    bundle = builder.Bundle()
    bundle.add("plain", np.arange(3, dtype=np.float32))
    for number in range(count // 2):
        pieces = builder.split_rows(4, 2, 1)
        bundle.add_sliced(f"v{number:04}", np.arange(4, dtype=np.float32), pieces)
        for piece in pieces if not kept else ():
            del bundle.entries[builder.slice_key(f"v{number:04}", piece)]
        if not owned:
            del bundle.entries[f"v{number:04}".encode()]
    return bundle.write(directory / "m")


@pytest.mark.parametrize("options", [{}, {"kept": False}, {"owned": False}])
def test_slices_are_counted_alike_by_read_verify_and_recover(
    tmp_path: Path, options: dict[str, bool]
) -> None:
    prefix = _in_slices(tmp_path, 200, **options)
    size = sum(path.stat().st_size for path in tmp_path.glob("m.*"))
    few = ckptparse.Limits(single_entries=199 - (size >> 12))
    enough = ckptparse.Limits(single_entries=200 - (size >> 12))
    with pytest.raises(ckptparse.LimitError, match=r"Limits\.single_entries"):
        ckptparse.read(prefix, limits=few)
    with pytest.raises(ckptparse.LimitError, match=r"Limits\.single_entries"):
        ckptparse.list_variables(prefix, limits=few)
    assert "plain" in {name for name, _ in ckptparse.list_variables(prefix, limits=enough)}
    for look in (ckptparse.verify, lambda path, limits: ckptparse.recover(path, limits=limits)):
        for limits, reached in ((few, True), (enough, False)):
            found = look(prefix, limits=limits)
            report = found if isinstance(found, ckptparse.Report) else found.report
            assert ("limit.reached" in {one.code for one in report.problems}) == reached


def test_too_many_slices_are_counted_anew_by_each_listing(tmp_path: Path) -> None:
    messages = set()
    with ckptparse.open(
        _in_slices(tmp_path, 200), limits=ckptparse.Limits(single_entries=20)
    ) as opened:
        for _ in range(2):
            with pytest.raises(ckptparse.LimitError) as caught:
                list(opened)
            messages.add(str(caught.value))
    assert len(messages) == 1


def test_after_too_many_slices_no_more_entries_are_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = _in_slices(tmp_path, 4000, kept=False)
    decoded = counted(monkeypatch, index_reading, "decode_entry")
    strict = counted(monkeypatch, index, "decode_entry")
    limits = ckptparse.Limits(single_entries=100)
    report = ckptparse.verify(prefix, limits=limits)
    assert "limit.reached" in {one.code for one in report.problems}
    with pytest.raises(ckptparse.LimitError):
        ckptparse.read(prefix, limits=limits)
    assert len(decoded.given) < 700 and len(strict.given) < 700


def test_the_map_of_a_missing_data_file_is_one_range_that_nothing_is_sorted_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = builder.Bundle()
    for number in range(50):
        bundle.add(f"w{number:02}", np.float32(number), shard=number % 2)
    bundle.entries[b"empty"] = builder.Entry(builder.FLOAT, (0,), shard=1, offset=9999, crc=7)
    prefix = bundle.write(tmp_path / "m")
    path = f"{prefix}.data-00001-of-00002"
    Path(path).unlink()
    stored = counted(monkeypatch, file_maps, "_stored_in")
    for attempts in (512, 0):
        report = ckptparse.recover(prefix, limits=ckptparse.Limits(attempts=attempts)).report
        found = [(one.start, one.stop, one.kind) for one in report.files[path].ranges]
        assert found == [(0, 100, "absent")]
    assert len(stored.given) == 2


def test_values_that_repeat_fill_no_more_than_is_allowed_together(tmp_path: Path) -> None:
    one = builder.field(5, b"\x00\x00\x80\x3f")
    nodes = [g.constant(f"c{number}", one, dims=[1 << 18]) for number in range(20)]
    path = tmp_path / "g.pb"
    path.write_bytes(g.graph(nodes))
    for call in (
        ckptparse.stats,
        ckptparse.read,
        lambda path, **how: ckptparse.average([path] * 2, **how),
    ):
        with pytest.raises(ckptparse.LimitError, match="fill_bytes"):
            call(path, limits=ckptparse.Limits(fill_bytes=19 << 20))
    with pytest.raises(ckptparse.LimitError, match="fill_bytes"):
        ckptparse.convert(path, tmp_path / "x.npz", limits=ckptparse.Limits(fill_bytes=19 << 20))
    assert not (tmp_path / "x.npz").exists()
    assert len(ckptparse.stats(path, limits=ckptparse.Limits(fill_bytes=20 << 20))) == 20


def test_more_nodes_that_may_act_than_a_graph_has_room_for_are_not_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    inner = g.graph([g.node(f"n{number}", "Zz") for number in range(60)])
    for nodes in (
        [g.node(f"n{number}", "ReadFile", "n0") for number in range(120)],
        [g.node(f"n{number}", "PartitionedCall") for number in range(120)],
        [g.strings("s", inner), *(g.node(f"d{n}", "DatasetFromGraph", "s") for n in range(2))],
    ):
        few = ckptparse.Limits(steps=4 * 110 - len(g.graph(nodes)) // 128)
        graph = Graph.from_graph_def(g.graph(nodes), limits=few)
        with pytest.raises(ckptparse.LimitError, match="may do something") as caught:
            _ = graph.effects
        assert caught.value.limit == "steps"
        assert Graph.from_graph_def(g.graph(nodes)).effects is not None
    monkeypatch.setattr(NodeTable, "__getitem__", None)
    nodes = [g.node(f"n{number}", "Zz") for number in range(60)]
    with pytest.raises(ckptparse.LimitError):
        _ = Graph.from_graph_def(g.graph(nodes), limits=ckptparse.Limits(steps=10)).effects


def test_a_graph_is_identified_once_for_a_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "g.pb"
    path.write_bytes(g.graph([g.node("n", "NoOp")]))
    monkeypatch.setattr(page_subject, "find_graph", None)
    ckptparse.report_page(path, tmp_path / "page.html")
    assert (tmp_path / "page.html").exists()


def test_plain_fields_are_identified_without_varints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "g.pb"
    path.write_bytes(g.graph([g.node(f"n{number}", "NoOp") for number in range(1000)]))
    asked: list[int] = []
    decode = identification_wire.decode_varint

    def noting(data: bytes, position: int, end: int) -> tuple[int, int]:
        asked.append(position)
        return decode(data, position, end)

    monkeypatch.setattr(identification_wire, "decode_varint", noting)
    assert ckptparse.identify(path).kind == "graph"
    assert len(asked) < 10


def test_the_directory_of_many_checkpoints_is_listed_once_to_weigh_the_nearest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(12):
        bundle = builder.Bundle()
        bundle.add("w", np.full(8, number, np.float32))
        if not number:
            bundle.change("w", crc=7)
        bundle.write(tmp_path / f"m-{number}")
    listed = counted(monkeypatch, local.os, "scandir")
    monkeypatch.setattr(outlook, "_look_ahead", lambda *_: None)
    report = ckptparse.verify(tmp_path / "m-0")
    assert len(report.others) == 11
    assert 0 < len(listed.given) < 8
    monkeypatch.setattr(neighbours, "_MOST_NAMES", 3 * len(list(tmp_path.iterdir())))
    others = ckptparse.verify(tmp_path / "m-0").others
    assert {one.path for one in others} == {str(tmp_path / f"m-{number}") for number in (1, 2, 3)}


def test_an_index_of_more_bytes_than_the_data_has_is_not_listed_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = builder.Bundle()
    for number in range(2_000):
        made.add(f"w{number:04}", np.arange(4, dtype=np.float32))
    prefix = made.write(tmp_path / "m", block_size=1024)
    monkeypatch.setattr(table_reader, "_PART_BYTES", 4096)
    decoded = counted(monkeypatch, index.BundleIndex, "_decode_entries")
    assert ckptparse.verify(prefix).ok
    whole = len(decoded.given)
    decoded.given.clear()
    for name in list(made.entries)[1:]:
        made.change(name, offset=0)
    made.shards[0] = made.shards[0][:320]
    made.write(tmp_path / "m", block_size=1024)
    assert ckptparse.verify(prefix).problems
    assert whole > 10 and len(decoded.given) <= 2


def test_names_are_looked_through_once_for_the_step() -> None:
    class Name(str):
        __slots__ = ()
        taken_apart = 0

        def rpartition(self, sep: Any) -> tuple[str, str, str]:
            type(self).taken_apart += 1
            return super().rpartition(sep)

    names = [Name(f"layer_{number}/kernel") for number in range(1_000)]
    assert step.find_step(lambda: iter(names), lambda _: None, None) is None
    assert Name.taken_apart == 0


def test_an_index_that_does_not_decode_is_read_once_for_all_questions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = builder.Bundle()
    for number in range(50):
        made.add(f"layer_{number}/kernel", np.float32(number))
    made.change("layer_40/kernel", shape=(7,))
    prefix = made.write(tmp_path / "m")
    read = counted(monkeypatch, index.BundleIndex, "_read_listing")
    said = set()
    with ckptparse.open(prefix) as opened:
        for _ in range(3):
            with pytest.raises(ckptparse.MalformedError) as caught:
                list(opened)
            said.add(str(caught.value))
        with pytest.raises(ckptparse.MalformedError):
            opened.layers  # noqa: B018
    assert len(read.given) == 1 and len(said) == 1
    with pytest.raises(ckptparse.ClosedError):
        list(opened)


def test_zeros_are_no_ends_of_blocks_and_take_little() -> None:
    data = bytes(4 << 20)
    with allocating_at_most(10 * len(data)):
        assert not len(carving.likely_ends(data).ends)


def test_ends_of_blocks_that_are_everywhere_are_not_tried() -> None:
    everywhere = (b"\0\0\0\0\1\0\0\0\0" * 30_000)[: 1 << 18]
    # But for those that the end of a stretch cuts off from the others.
    assert len(carving.likely_ends(everywhere).ends) < 4
    # A block behind them is found, if it is not in the same 64 KiB.
    block = builder.Stored(builder.block([(b"w", b"value")])).to_bytes()
    data = everywhere + bytes(1 << 16) + block + bytes(100)
    start = len(everywhere) + (1 << 16)
    assert list(carving.iter_blocks(data))[-1] == (start, start + len(block) - 5)


def test_a_block_that_is_corrected_is_decoded_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = ckptparse.write(tmp_path / "m", {f"w{n:03}": np.arange(n + 1.0) for n in range(100)})
    index = Path(f"{prefix}.index")
    raw = bytearray(index.read_bytes())
    raw[1000] ^= 4
    index.write_bytes(raw)
    decoded = counted(monkeypatch, Block, "decode_entries")
    recovery = ckptparse.recover(prefix)
    assert {str(one.status) for one in recovery.report.tensors.values()} == {"corrected"}
    assert len([block for block in decoded.given if len(block.contents) > 1000]) == 1


@pytest.mark.parametrize(
    "call", [ckptparse.read, ckptparse.verify, ckptparse.recover, ckptparse.list_variables]
)
def test_what_a_file_is_that_is_no_checkpoint_is_found_out_once(
    call: Callable[[Path], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m.safetensors"
    header = b'{"w": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}}'
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    told = counted(monkeypatch, identification_magic, "_describe_safetensors")
    with pytest.raises(ckptparse.NotACheckpointError):
        call(path)
    assert len(told.given) == 1


def test_behind_a_gzip_member_few_bytes_are_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    members = gzip.compress(b"") * 2000
    given = 0

    class Counting:
        """A decompressor that counts what it is given."""

        def __init__(self, window: int) -> None:
            self._own = decompressobj(window)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._own, name)

        def copy(self) -> Counting:
            return self

        def decompress(self, data: bytes, most: int) -> bytes:
            nonlocal given
            given += len(data)
            return self._own.decompress(data, most)

    decompressobj = zlib.decompressobj
    monkeypatch.setattr(encodings.zlib, "decompressobj", Counting)
    converter = encodings._Gzip()
    assert converter.convert(members, converter.start(), last=True)[1] == len(members)
    assert given < 2048 * 2001


def test_a_directory_of_many_second_downloads_is_gone_through_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(300):
        (tmp_path / f"m ({number}).index").touch()
    split = counted(monkeypatch, folders, "split_data_path")
    with pytest.raises(ckptparse.NotACheckpointError, match=r"holds 300 .* and 200 more"):
        ckptparse.verify(tmp_path)
    assert len(split.given) <= 2 * 300


@pytest.mark.parametrize("job", [ckptparse.convert, ckptparse.report_page])
def test_a_directory_of_many_checkpoints_is_listed_once(
    job: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "many"
    place.mkdir()
    for number in range(3):
        (place / f"m-{number}.index").touch()
    listed = counted(monkeypatch, local.os, "scandir")
    with pytest.raises(ckptparse.NotACheckpointError, match="holds 3 checkpoints"):
        job(place, tmp_path / "out.npz")
    assert len([one for one in listed.given if str(one) == str(place)]) == 1


def test_small_reads_of_a_block_that_is_kept_read_it_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    block, key = bytes(range(256)) * 4096, bytes(32)
    made = cache.BlockStore(str(tmp_path), 1 << 24)
    made.put(key, memoryview(block))
    store, read = cache.BlockStore(str(tmp_path), 1 << 24), []
    monkeypatch.setattr(
        cache, "_read_all", lambda *args, known=cache._read_all: read.append(args) or known(*args)
    )
    assert all(store.get(key, len(block)) == block for _ in range(100))
    assert len(read) == 1
    # Another block, and a file of another size under the same key, are none.
    assert store.get(bytes(31) + b"1", len(block)) is None
    assert store.get(key, len(block) - 1) is None
    # What cannot be kept on the disk is in memory for whoever asks at once.
    small = cache.BlockStore(str(tmp_path / "small"), 100)
    small.put(key, memoryview(block))
    assert small.get(key, len(block)) == block
    assert not [path for path in (tmp_path / "small").rglob("*") if path.is_file()]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs here")
def test_a_fifo_in_the_place_of_a_block_is_none(tmp_path: Path) -> None:
    key, block = bytes(32), bytes(1000)
    made = cache.BlockStore(str(tmp_path), 1 << 24)
    made.put(key, memoryview(block))
    (path,) = (one for one in tmp_path.rglob("*") if one.is_file())
    path.unlink()
    os.mkfifo(path)
    store = cache.BlockStore(str(tmp_path), 1 << 24)
    assert store.get(key, len(block)) is None
    assert not path.exists()


def test_what_all_searches_multiply_by_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    registers.word_registers(np.zeros(400, np.uint8))
    monkeypatch.setattr(registers, "multiply_table", None)
    registers.word_registers(np.zeros(400, np.uint8))
