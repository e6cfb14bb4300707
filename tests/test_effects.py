"""What a model would do beyond computing, if someone ran it: found wherever it stands."""

from __future__ import annotations

import base64
import json
import marshal
import os
import re
from pathlib import Path

import graph_builder as g
import pytest

import ckptparse
from ckptparse import Effect, EffectKind, PathOrigin
from ckptparse.graph.effects import finding, tracing
from ckptparse.graph.effects.known_ops import KNOWN_OPS
from ckptparse.graph.effects.table import FUNCTION_OPS, OPERATIONS
from ckptparse.graph.graph import Graph
from ckptparse.proto.meta_graph_pb2 import MetaGraphDef
from ckptparse.proto.saved_metadata_pb2 import SavedMetadata
from ckptparse.proto.saved_model_pb2 import SavedModel as SavedModelProto
from ckptparse.saved_model.keras_effects import find_keras_effects
from ckptparse.saved_model.keras_metadata import KerasObject

pytestmark = pytest.mark.proto


def effects(*nodes: bytes, functions: tuple[bytes, ...] = ()) -> tuple[Effect, ...]:
    return Graph.from_graph_def(g.graph(nodes, functions)).effects


def only(*nodes: bytes, functions: tuple[bytes, ...] = ()) -> Effect:
    (effect,) = effects(*nodes, functions=functions)
    return effect


def read_file(name: str = "read", filename: str = "path") -> bytes:
    return g.node(name, "ReadFile", filename)


# The table


def test_every_operation_of_the_table_has_a_source_and_says_what_it_does() -> None:
    for name, operation in OPERATIONS.items():
        assert operation.source.startswith(("https://www.tensorflow.org/", "tensorflow/")), name
        assert operation.does[0].isupper()
        assert not (operation.inputs and operation.attribute)


def test_the_table_is_of_operations_that_tensorflow_has_or_had() -> None:
    assert OPERATIONS.keys() - KNOWN_OPS == {"RemoteFusedGraphExecute"}
    assert set() == FUNCTION_OPS - KNOWN_OPS


PAGE = Path(__file__).parents[1] / "docs" / "effects.md"


def table_of_operations() -> str:
    """The table of the page: what is done, and the operations that do it, each with its source."""
    lines = ["| effect | what is done | operations |", "| --- | --- | --- |"]
    for kind in EffectKind:
        does: dict[str, list[str]] = {}
        for name, operation in sorted(OPERATIONS.items()):
            if operation.kind is kind:
                source = operation.source
                linked = source.startswith("https:")
                told = f"[`{name}`]({source})" if linked else f"`{name}` ({source})"
                does.setdefault(operation.does, []).append(told)
        lines += [f"| `{kind}` | {what} | {', '.join(does[what])} |" for what in sorted(does)]
    return "\n".join(lines)


def test_the_page_of_effects_has_the_table() -> None:
    head, table, tail = re.split(r"(?<=begin -->\n)|(?=\n<!-- operations: end)", PAGE.read_text())
    if os.environ.get("CKPTPARSE_GOLDEN") == "write":
        PAGE.write_text(head + table_of_operations() + tail)
    else:
        assert table == table_of_operations()


# Where the name of a file comes from


def test_a_name_that_stands_in_the_graph_is_told() -> None:
    effect = only(g.strings("path", b"/etc/passwd"), read_file())
    assert effect.kind is EffectKind.READS_FILE == "reads-file"
    assert (effect.path, effect.origin) == ("/etc/passwd", PathOrigin.LITERAL)
    assert (effect.op, effect.node, effect.function) == ("ReadFile", "read", None)
    assert not effect.ordinary
    assert effect.source == "https://www.tensorflow.org/api_docs/python/tf/raw_ops/ReadFile"


def test_a_name_that_is_joined_of_parts_in_the_graph_is_told_whole() -> None:
    parts = [g.strings("a", b"/etc"), g.strings("b", b"passwd")]
    join = g.node("path", "StringJoin", "a", "b", separator=g.of_string(b"/"))
    assert only(*parts, join, read_file()).path == "/etc/passwd"


def test_a_name_that_the_caller_gives_is_told() -> None:
    effect = only(g.node("path", "Placeholder"), g.node("same", "Identity", "path"), read_file())
    assert effect.origin is PathOrigin.CALLER == "caller"
    assert effect.path is None


def test_a_name_that_is_made_while_it_runs_is_told() -> None:
    effect = only(g.node("path", "DecodeBase64", "x"), g.strings("x", b"L2V0Yw"), read_file())
    assert effect.origin is PathOrigin.COMPUTED


def test_of_several_names_the_least_ordinary_is_told() -> None:
    nodes = [
        g.node("chosen", "Placeholder"),
        g.strings("other", b"/etc/passwd"),
        g.node("path", "Select", "which", "chosen", "other"),
        read_file(),
    ]
    assert only(*nodes).path == "/etc/passwd"


def test_a_name_is_followed_into_the_function_and_out_of_it() -> None:
    inner = g.function("inner", ["file"], [read_file("read", "file")], {"out": "read:contents:0"})
    outer = g.function(
        "outer", ["file"],
        [g.node("call", "StatefulPartitionedCall", "file", f=g.of_function("inner"))],
        {"out": "call:output:0"},
    )  # fmt: skip
    effect = only(
        g.strings("path", b"/etc/passwd"),
        g.node("call", "StatefulPartitionedCall", "path", f=g.of_function("outer")),
        functions=(inner, outer),
    )
    assert (effect.function, effect.path) == ("inner", "/etc/passwd")


def test_a_name_that_a_function_gives_is_followed_into_it() -> None:
    make = g.function("make", [], [g.strings("c", b"/etc/passwd")], {"out": "c:output:0"})
    call = g.node("path", "PartitionedCall", f=g.of_function("make"))
    assert only(call, read_file(), functions=(make,)).path == "/etc/passwd"


def test_a_name_that_goes_in_a_circle_comes_to_an_end() -> None:
    nodes = [g.node("a", "Identity", "path"), g.node("path", "Identity", "a"), read_file()]
    assert only(*nodes).origin is PathOrigin.COMPUTED


def test_a_name_that_ten_thousand_nodes_pass_on_comes_to_an_end() -> None:
    nodes = [g.node(f"n{i}", "Identity", f"n{i + 1}") for i in range(10_000)]
    nodes += [g.strings("n10000", b"x"), read_file("read", "n0")]
    assert only(*nodes).origin is PathOrigin.COMPUTED


# What every model has


def saving(default: bytes = b"model", suffix: bytes = b"_temp/part") -> list[bytes]:
    return [
        g.strings("save/filename/input", default),
        g.node("save/filename", "PlaceholderWithDefault", "save/filename/input"),
        g.node("save/Const", "PlaceholderWithDefault", "save/filename"),
        g.strings("save/suffix", suffix),
        g.node("save/Join", "StringJoin", "save/Const", "save/suffix"),
        g.node("save/Sharded", "ShardedFilename", "save/Join", "save/shard", "save/num_shards"),
        g.node("save/SaveV2", "SaveV2", "save/Sharded", "names", "slices"),
        g.node("save/parts", "Pack", "save/Sharded"),
        g.node("save/Merge", "MergeV2Checkpoints", "save/parts", "save/Const"),
        g.node("save/RestoreV2", "RestoreV2", "save/Const", "names", "slices"),
    ]


def test_a_saver_is_ordinary() -> None:
    found = effects(*saving())
    assert [effect.op for effect in found] == ["SaveV2", "MergeV2Checkpoints", "RestoreV2"]
    assert all(effect.ordinary and effect.origin is PathOrigin.SAVER for effect in found)


@pytest.mark.parametrize(
    ("default", "suffix"), [(b"/root/.bashrc", b"_temp/part"), (b"model", b"/../../.bashrc")]
)
def test_a_saver_that_hides_a_file_is_not(default: bytes, suffix: bytes) -> None:
    found = effects(*saving(default, suffix))
    assert not any(effect.ordinary for effect in found if effect.op != "RestoreV2")
    assert {effect.op for effect in found if not effect.ordinary} >= {"SaveV2"}


def test_saving_under_a_name_of_its_own_is_not_ordinary() -> None:
    effect = only(g.strings("path", b"/home/x"), g.node("s", "SaveV2", "path", "n", "s"))
    assert (effect.kind, effect.ordinary, effect.path) == ("writes-file", False, "/home/x")


FIXTURES = ["module", "keras2_sequential", "keras2_preprocessing", "keras3_export", "sharded",
            "tf1_partitioned", "tf1_two_meta_graphs", "tf1_text"]  # fmt: skip


@pytest.mark.parametrize("name", FIXTURES)
def test_a_model_that_tensorflow_wrote_has_nothing_but_what_every_model_has(
    name: str, fixtures: Path
) -> None:
    with ckptparse.open_saved_model(fixtures / "saved_model" / name) as model:
        assert [effect for effect in model.effects if not effect.ordinary] == []
        assert {effect.op for effect in model.effects} >= {"SaveV2", "RestoreV2"}


def test_reading_its_own_assets_is_ordinary(fixtures: Path) -> None:
    with ckptparse.open_saved_model(fixtures / "saved_model" / "module") as model:
        found = [effect for effect in model.effects if effect.origin is PathOrigin.ASSET]
        assert [effect.op for effect in found] == ["InitializeTableFromTextFileV2"]
        assert found[0].tags == ("serve",)


# What stands where a list of nodes does not show it


def test_functions_that_an_attribute_names_in_a_list_are_looked_into() -> None:
    branch = g.function("b", [], [g.node("py", "PyFunc", token=g.of_string(b"pyfunc_0"))])
    branches = g.field(1, g.field(9, g.field(1, b"b")))
    found = effects(g.node("case", "Case", "which", branches=branches), functions=(branch,))
    assert [(e.kind, e.function, e.called) for e in found] == [("runs-python", "b", True)]


def test_an_operation_that_is_named_as_a_function_is_found() -> None:
    effect = only(g.node("map", "MapDataset", "in", f=g.of_function("WriteFile")))
    assert (effect.op, effect.node, effect.kind) == ("WriteFile", "map", "writes-file")
    assert "called by MapDataset as its f" in effect.reason


def test_a_function_that_nothing_calls_is_told_as_such() -> None:
    effect = only(g.node("x", "NoOp"), functions=(g.function("dead", ["file"], [read_file()]),))
    assert not effect.called


def test_graphs_inside_of_constants_are_looked_into_as_deep_as_they_go() -> None:
    data = g.graph([g.strings("path", b"/home/x"), g.node("w", "WriteFile", "path", "path")])
    for depth in range(3):
        carried = [g.strings("bytes", data), g.node(f"run{depth}", "DatasetFromGraph", "bytes")]
        data = g.graph(carried)
    found = Graph.from_graph_def(data).effects
    assert [effect.kind for effect in found] == ["runs-hidden-code"] * 3 + ["writes-file"]
    assert found[-1].within == ("run2", "run1", "run0")
    assert found[-1].path == "/home/x"


def test_graphs_inside_of_constants_come_to_an_end() -> None:
    data = g.graph([g.node("py", "PyFunc")])
    for _ in range(500):
        data = g.graph([g.strings("b", data), g.node("run", "DatasetFromGraph", "b")])
    found = Graph.from_graph_def(data).effects
    assert 8 <= len(found) <= 9


def test_an_operation_that_tensorflow_does_not_bring_needs_a_library() -> None:
    effect = only(g.node("trt", "TRTEngineOp", "x"))
    assert (effect.kind, effect.op) == ("needs-library", "TRTEngineOp")


def test_an_operation_of_the_name_of_a_function_is_a_call() -> None:
    body = g.function("Swish", ["x"], [g.node("s", "Sigmoid", "x")])
    assert effects(g.node("call", "Swish", "x"), functions=(body,)) == ()


@pytest.mark.parametrize("passing", ["Identity", "PlaceholderWithDefault"])
def test_a_graph_that_other_nodes_pass_on_is_looked_into(passing: str) -> None:
    data = g.graph([g.node("py", "PyFunc")])
    nodes = [g.strings("b", data), g.node("same", passing, "b")]
    found = effects(*nodes, g.node("run", "DatasetFromGraph", "same"))
    assert [effect.op for effect in found] == ["DatasetFromGraph", "PyFunc"]


def test_a_graph_that_a_function_is_given_is_looked_into() -> None:
    data = g.graph([g.node("py", "PyFunc")])
    body = [g.node("run", "DatasetFromGraph", "graph")]
    inner = g.function("inner", ["graph"], body, {"out": "run:handle:0"})
    call = g.node("call", "PartitionedCall", "b", f=g.of_function("inner"))
    found = effects(g.strings("b", data), call, functions=(inner,))
    assert [effect.op for effect in found] == ["DatasetFromGraph", "PyFunc"]


def test_functions_that_are_given_to_a_function_are_told() -> None:
    body = g.function("f", [], [g.node("map", "MapDataset", "in", f=g.field(9, b"given"))])
    write = g.function("w", [], [g.node("w", "WriteFile", "path", "path")])
    given = g.of_function("f", given=g.of_function("w"), other=g.of_function("ReadFile"))
    found = effects(g.node("call", "PartitionedCall", f=given), functions=(body, write))
    assert {(effect.op, effect.called) for effect in found} == {
        ("WriteFile", True),
        ("ReadFile", True),
    }


def test_what_stands_in_for_a_called_function_is_called() -> None:
    one = g.function("cpu", [], [], api_implements=g.of_string(b"lstm"))
    other = g.function("gpu", [], [g.node("p", "PyFunc")], api_implements=g.of_string(b"lstm"))
    assert only(g.node("call", "cpu"), functions=(one, other)).called
    assert not only(g.node("call", "NoOp"), functions=(one, other)).called


def test_the_gradient_of_a_called_function_is_called() -> None:
    functions = (g.function("f", [], []), g.function("df", [], [g.node("p", "PyFunc")]))
    data = g.graph([g.node("call", "f")], functions) + g.gradient("f", "df")
    assert [effect.called for effect in Graph.from_graph_def(data).effects] == [True]


def test_a_function_whose_name_is_written_in_two_parts_is_found() -> None:
    # Occurrences of a message are merged: the name is that of the first, the rest is empty.
    value = g.of_function("WriteFile") + g.field(10, b"")
    assert only(g.node("map", "MapDataset", "in", f=value)).op == "WriteFile"
    entry = g.field(1, b"f") + g.field(2, g.of_function("WriteFile")) + g.field(2, b"")
    assert only(g.node("map", "MapDataset", "in") + g.field(5, entry)).op == "WriteFile"


def test_a_field_of_the_wrong_kind_hides_no_function() -> None:
    # Field 2 is a string; as a number it is unknown to every parser.
    value = g.of_function("WriteFile") + b"\x10\x01"
    assert only(g.node("map", "MapDataset", "in", f=value)).op == "WriteFile"


def test_functions_inside_of_functions_come_to_an_end() -> None:
    value = g.of_function("WriteFile")
    for _ in range(3000):
        value = g.of_function("f", given=value)
    assert effects(g.node("call", "PartitionedCall", f=value)) == ()


# Names that decide what an operation does


@pytest.mark.parametrize("op", ["DecodeProtoV2", "EncodeProto"])
def test_a_message_is_described_by_the_program_or_by_a_file(op: str) -> None:
    for harmless in (b"local://", b"bytes://abc", b""):
        assert effects(g.node("d", op, "x", descriptor_source=g.of_string(harmless))) == ()
    effect = only(g.node("d", op, "x", descriptor_source=g.of_string(b"/etc/x")))
    assert (effect.kind, effect.path) == ("reads-file", "/etc/x")


def test_a_cache_in_memory_does_nothing_and_one_in_files_writes() -> None:
    assert effects(g.strings("path", b""), g.node("c", "CacheDataset", "in", "path")) == ()
    assert only(g.strings("path", b"/x"), g.node("c", "CacheDataset", "in", "path")).path == "/x"


def test_printing_is_nothing_but_into_a_file() -> None:
    assert effects(g.node("p", "PrintV2", "x", output_stream=g.of_string(b"stderr"))) == ()
    effect = only(g.node("p", "PrintV2", "x", output_stream=g.of_string(b"file:///home/x")))
    assert (effect.kind, effect.path) == ("writes-file", "file:///home/x")


@pytest.mark.parametrize("address", ["gs://bucket/x", "http://example.org/x", "s3://b/x"])
def test_a_file_on_another_machine_is_reached_over_the_network(address: str) -> None:
    assert only(g.strings("path", address.encode()), read_file()).kind is EffectKind.NETWORK


def test_a_debugger_far_away_is_reached_over_the_network() -> None:
    urls = g.field(1, g.field(2, b"grpc://host:1"))
    assert only(g.node("d", "DebugIdentity", "x", debug_urls=urls)).kind == "network"
    assert effects(g.node("d", "DebugIdentity", "x")) == ()


def test_the_process_may_be_ended() -> None:
    assert only(g.node("a", "Abort")).kind is EffectKind.HOST


def test_an_effect_becomes_json() -> None:
    found = only(g.strings("path", b"/x"), read_file()).to_dict()
    assert json.loads(json.dumps(found)) == found
    assert found["kind"] == "reads-file"


# Keras


def keras(metadata: object, path: str = "root") -> list[Effect]:
    return list(find_keras_effects([KerasObject(0, path, "_tf_keras_model", json.dumps(metadata))]))


def lambda_layer(code: str, name: str = "evil") -> dict[str, object]:
    function = {"class_name": "__tuple__", "items": [code, None, None]}
    return {"class_name": "Lambda", "config": {"name": name, "function": function,
                                               "function_type": "lambda"}}  # fmt: skip


CODE = base64.b64encode(marshal.dumps(compile("import os; os.system('x')", "f", "exec"))).decode()


def test_the_code_of_a_lambda_layer_is_told_with_the_names_in_it() -> None:
    model = {"class_name": "Functional", "config": {"name": "m", "layers": [lambda_layer(CODE)]}}
    (effect,) = keras(model)
    assert (effect.kind, effect.op, effect.node) == ("runs-python", "Lambda", "root/m/evil")
    assert re.search(r"\bsystem\b", effect.reason)


def test_a_lambda_of_keras_3_is_found_too() -> None:
    code = {"class_name": "__lambda__", "config": {"code": CODE, "defaults": None}}
    (effect,) = keras({"class_name": "Lambda", "config": {"name": "l", "function": code}})
    assert (effect.op, effect.kind) == ("__lambda__", "runs-python")


def test_code_that_is_no_base64_is_python_all_the_same() -> None:
    (effect,) = keras(lambda_layer("%%%\ud800"))
    assert effect.kind is EffectKind.RUNS_PYTHON


def test_code_without_defaults_and_closure_is_told_as_code() -> None:
    config = {"name": "l", "function": CODE, "function_type": "lambda"}
    (effect,) = keras({"class_name": "Lambda", "config": config})
    assert re.search(r"\bsystem\b", effect.reason)


def test_code_that_computes_a_shape_is_told_however_it_is_written() -> None:
    for code in (CODE, [CODE, None, None]):
        config = {"name": "l", "output_shape": code, "output_shape_type": "lambda"}
        (effect,) = keras({"class_name": "Lambda", "config": config})
        assert re.search(r"\bsystem\b", effect.reason)


def imported(module: str, name: str) -> list[tuple[str, str]]:
    """A layer with a function that Keras would import."""
    function = {"module": module, "class_name": "function", "config": name}
    found = keras({"class_name": "Dense", "config": {"name": "d", "activation": function}})
    return [(str(effect.kind), effect.reason) for effect in found]


def test_a_function_that_keras_would_import_is_told_if_it_does_more_than_compute() -> None:
    for module, name, kind in [
        ("os", "system", "runs-python"),
        ("builtins", "exec", "runs-python"),
        ("keras.utils", "get_file", "network"),
        ("keras.models", "load_model", "runs-python"),
        ("tensorflow.io", "write_file", "writes-file"),
        ("tensorflow.raw_ops", "ReadFile", "reads-file"),
    ]:
        ((found, reason),) = imported(module, name)
        assert found == kind
        assert name in reason
    assert imported("builtins", "relu") == imported("keras.activations", "relu") == []
    assert imported("keras.src.ops.nn", "gelu") == imported("tensorflow.math", "abs") == []


def test_a_module_that_keras_would_import_is_told() -> None:
    (effect,) = keras({"module": "os.path", "class_name": "join", "config": {}})
    assert "os.path" in effect.reason
    assert keras({"module": "keras.layers", "class_name": "Dense", "config": {}}) == []


def test_a_function_of_tensorflow_that_writes_is_told() -> None:
    def layer(function: str) -> list[Effect]:
        return keras({"class_name": "TFOpLambda", "config": {"function": function}})

    assert [effect.kind for effect in layer("io.write_file")] == ["writes-file"]
    assert [effect.kind for effect in layer("raw_ops.PyFunc")] == ["runs-python"]
    assert layer("math.add") == layer("io.decode_png") == []


def test_a_saved_model_tells_of_graph_and_keras_alike(tmp_path: Path) -> None:
    model = SavedModelProto(saved_model_schema_version=1)
    meta_graph: MetaGraphDef = model.meta_graphs.add()
    meta_graph.meta_info_def.tags.append("serve")
    meta_graph.graph_def.ParseFromString(g.graph([g.node("py", "EagerPyFunc")]))
    (tmp_path / "saved_model.pb").write_bytes(model.SerializeToString())
    metadata = SavedMetadata()
    layer = json.dumps(lambda_layer(CODE))
    metadata.nodes.add(node_path="root.layer-0", identifier="_tf_keras_layer", metadata=layer)
    (tmp_path / "keras_metadata.pb").write_bytes(metadata.SerializeToString())
    with ckptparse.open_saved_model(tmp_path) as opened:
        assert [(effect.op, effect.tags) for effect in opened.effects] == [
            ("EagerPyFunc", ("serve",)),
            ("Lambda", ()),
        ]


def test_all_that_keras_wrote_is_looked_at_under_one_path_too(tmp_path: Path) -> None:
    model = SavedModelProto(saved_model_schema_version=1)
    meta_graph = model.meta_graphs.add()
    objects = meta_graph.object_graph_def
    objects.nodes.add().children.add(node_id=1, local_name="layer-0")
    old = objects.nodes.add().user_object
    old.identifier, old.metadata = "_tf_keras_layer", json.dumps(lambda_layer(CODE, "old"))
    (tmp_path / "saved_model.pb").write_bytes(model.SerializeToString())
    metadata = SavedMetadata()
    for layer in (lambda_layer(CODE, "first"), {"class_name": "Dense", "config": {}}):
        metadata.nodes.add(
            node_path="root", identifier="_tf_keras_layer", metadata=json.dumps(layer)
        )
    (tmp_path / "keras_metadata.pb").write_bytes(metadata.SerializeToString())
    with ckptparse.open_saved_model(tmp_path) as opened:
        assert [effect.node.rpartition("/")[2] for effect in opened.effects] == ["first", "old"]


@pytest.mark.parametrize("whole", [True, False])
def test_metadata_that_cannot_be_read_hides_nothing_else(whole: bool, tmp_path: Path) -> None:
    model = SavedModelProto(saved_model_schema_version=1)
    model.meta_graphs.add().graph_def.ParseFromString(g.graph([g.node("py", "PyFunc")]))
    (tmp_path / "saved_model.pb").write_bytes(model.SerializeToString())
    metadata = SavedMetadata()
    metadata.nodes.add(node_path="root", identifier="_tf_keras_layer", metadata="{")
    data = metadata.SerializeToString() if whole else b"\xff\xff"
    (tmp_path / "keras_metadata.pb").write_bytes(data)
    with ckptparse.open_saved_model(tmp_path) as opened:
        assert [effect.kind for effect in opened.effects] == ["runs-python", "runs-hidden-code"]


@pytest.mark.parametrize("filename", ["../../x", "/etc/passwd", "link"])
def test_an_asset_that_leads_out_of_the_model_is_any_file(filename: str, tmp_path: Path) -> None:
    (tmp_path / "m" / "assets").mkdir(parents=True)
    (tmp_path / "m" / "assets" / "link").symlink_to("/etc/passwd")
    (tmp_path / "m" / "assets" / "own").write_text("words")
    model = SavedModelProto(saved_model_schema_version=1)
    meta_graph = model.meta_graphs.add()
    meta_graph.meta_info_def.tags.append("serve")
    nodes = [g.strings("path", b"model"), read_file(), g.strings("other", b"x")]
    meta_graph.graph_def.ParseFromString(g.graph([*nodes, read_file("own", "other")]))
    for node, name in (("path", filename), ("path", "own"), ("other", "own")):
        asset = meta_graph.asset_file_def.add(filename=name)
        asset.tensor_info.name = f"{node}:0"
    (tmp_path / "m" / "saved_model.pb").write_bytes(model.SerializeToString())
    with ckptparse.open_saved_model(tmp_path / "m") as opened:
        told = {effect.node: (effect.ordinary, effect.path) for effect in opened.effects}
    assert told["read"] == (False, filename)


@pytest.mark.parametrize("op", sorted(OPERATIONS))
def test_no_operation_of_the_table_needs_inputs_or_attributes_to_be_told(op: str) -> None:
    found = effects(g.node("x", op))
    assert [effect.ordinary for effect in found] == [False] * len(found)
    assert found or OPERATIONS[op].only_if_named


WITHOUT_INPUTS = (
    *("StringJoin", "ShardedFilename", "Pack", "Select", "Identity", "ConcatV2"),
    *("PlaceholderWithDefault", "VarHandleOp", "Const"),
)


@pytest.mark.parametrize("op", WITHOUT_INPUTS)
def test_a_name_from_a_node_without_inputs_is_made_while_it_runs(op: str) -> None:
    effect = only(g.node("path", op), read_file())
    assert effect.origin in (PathOrigin.COMPUTED, PathOrigin.CALLER)


def test_what_is_no_graph_inside_of_a_constant_is_passed_over() -> None:
    data = [g.strings("b", b"\xff\xff\xff"), g.node("run", "DatasetFromGraph", "b")]
    assert [effect.op for effect in effects(*data)] == ["DatasetFromGraph"]


# Costs


def test_a_graph_that_many_nodes_carry_is_looked_into_a_few_times(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    inner = g.graph([g.node(f"n{number}", "Zz") for number in range(100)])
    nodes = [g.strings("s", inner)]
    nodes += [g.node(f"d{number}", "DatasetFromGraph", "s") for number in range(50)]
    monkeypatch.setattr(finding, "_MOST_REPEATED", 3 * len(inner))
    effects = Graph.from_graph_def(g.graph(nodes)).effects
    assert sum(effect.op == "Zz" for effect in effects) == 400
    assert sum(effect.op == "DatasetFromGraph" for effect in effects) == 50
    assert {effect.within for effect in effects if effect.op == "Zz"} == {
        ("d0",),
        ("d1",),
        ("d2",),
        ("d3",),
    }


def test_names_that_many_functions_hand_on_are_followed_up_to_a_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def call(name: str, number: int, given: str) -> bytes:
        return g.node(name, "PartitionedCall", given, f=g.of_function(f"f{number}"))

    functions = [
        g.function(
            f"f{number}",
            ["x"],
            [
                call("c", number + 1, "x"),
                call("d", number + 1, "c:output:0"),
                g.node("r", "ReadFile", "d:output:0"),
            ],
            {"y": "d:output:0"},
        )
        for number in range(200)
    ]
    data = g.graph([g.strings("s", b"a"), call("c", 0, "s")], functions)
    graph = Graph.from_graph_def(data, limits=ckptparse.Limits(steps=3000))
    followed = []
    follow = tracing.Tracer._follow_node
    monkeypatch.setattr(
        tracing.Tracer, "_follow_node", lambda *args: followed.append(1) or follow(*args)
    )
    effects = graph.effects
    assert sum(effect.op == "ReadFile" for effect in effects) == 200
    assert len(followed) < 3000 + graph.nbytes // 128
