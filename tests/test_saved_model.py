"""SavedModels: the fixtures as recorded, their parts by themselves, and directories that lie."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import expected
import numpy as np
import pytest
from riegeli_builder import BYTES, MESSAGE, Tag, chunked_field, chunked_file, chunked_message

import ckptparse
import ckptparse.model as models
from ckptparse.errors import (
    CheckpointError,
    CheckpointNotFoundError,
    LimitError,
    MalformedError,
    MissingShardError,
    NotACheckpointError,
    TensorNotFoundError,
    UnsupportedError,
)
from ckptparse.files.local import LocalStorage
from ckptparse.graph.object_node import ObjectNode
from ckptparse.limits import Limits
from ckptparse.proto.meta_graph_pb2 import AssetFileDef, MetaGraphDef
from ckptparse.proto.saved_metadata_pb2 import SavedMetadata
from ckptparse.proto.saved_model_pb2 import SavedModel as SavedModelProto
from ckptparse.saved_model import keras_metadata
from ckptparse.saved_model.assets import asset_paths, find_leading_out
from ckptparse.saved_model.keras_effects import find_keras_effects
from ckptparse.saved_model.keras_metadata import KerasObject
from ckptparse.saved_model.objects import SavedObjectNode, SavedObjects
from ckptparse.saved_model.structure import TensorSpec, TypeSpec

pytestmark = pytest.mark.proto

CASES = {case.name: case for case in expected.cases() if case.data.get("saved_models")}
FIXTURES = {
    f"{name}:{facts['directory']}": (case.root / facts["directory"], facts)
    for name, case in CASES.items()
    for facts in case.data["saved_models"]
}
MODULE = CASES["saved_model/module"].root


def copy_of(name: str, to: Path, *, without: tuple[str, ...] = ()) -> Path:
    directory = to / "model"
    shutil.copytree(CASES[name].root, directory, ignore=shutil.ignore_patterns(*without))
    return directory


# What TensorFlow wrote


@pytest.mark.parametrize("name", FIXTURES)
def test_meta_graphs_are_as_tensorflow_gives_them(name: str) -> None:
    directory, facts = FIXTURES[name]
    with ckptparse.open_saved_model(directory) as model:
        assert model.schema_version == facts["schema_version"]
        assert len(model.meta_graphs) == len(facts["meta_graphs"])
        for meta_graph, fact in zip(model.meta_graphs, facts["meta_graphs"], strict=True):
            assert list(meta_graph.tags) == fact["tags"]
            assert model.meta_graph(*reversed(fact["tags"])) is meta_graph
            assert meta_graph.tensorflow_version == fact["tensorflow_version"]
            assert meta_graph.graph.tensorflow_version == fact["tensorflow_version"]
            assert len(meta_graph.graph.nodes) == fact["nodes"]
            assert len(meta_graph.graph.functions) == fact["functions"]
            assert sorted(meta_graph.graph.collections) == sorted(fact["collections"])
            objects = meta_graph.objects
            assert (objects.node_count if objects else 0) == fact["object_graph_nodes"]
            assert list(meta_graph.assets) == [filename for _, filename in fact["assets"]]
            assert_signatures(meta_graph.signatures, fact["signatures"])


def assert_signatures(
    signatures: Mapping[str, ckptparse.Signature], facts: Mapping[str, Any]
) -> None:
    assert sorted(signatures) == sorted(facts)
    for name, fact in facts.items():
        assert signatures[name].method_name == fact["method_name"]
        for found, wanted in (
            (signatures[name].inputs, fact["inputs"]),
            (signatures[name].outputs, fact["outputs"]),
        ):
            assert sorted(found) == sorted(wanted)
            for argument, info in wanted.items():
                assert_tensor_info(found[argument], info)


def assert_tensor_info(info: ckptparse.TensorInfo, fact: Mapping[str, Any]) -> None:
    assert info.name == fact["tensor"]
    shape = None if info.shape is None else [-1 if size is None else size for size in info.shape]
    assert shape == fact["shape"]
    if fact["dtype"] == "invalid":
        assert info.dtype is None
    else:
        assert info.dtype is not None
        name = expected.NUMPY_NAMES.get(fact["dtype"], fact["dtype"])
        assert info.dtype.name == name


@pytest.mark.parametrize("name", FIXTURES)
def test_variables_are_the_checkpoint_in_the_directory(name: str) -> None:
    directory, _ = FIXTURES[name]
    prefix = directory / "variables" / "variables"
    rows = [row for case in CASES.values() for row in case.checkpoints if row.path == prefix]
    with ckptparse.open_saved_model(directory) as model:
        assert len(model.variables) == sum(len(row.tensors) for row in rows)
        for row in rows:
            arrays = model.variables.read()
            for key, tensor in row.tensors.items():
                expected.assert_matches(arrays[key], tensor)


@pytest.mark.checklist(121)
@pytest.mark.parametrize(
    "name", [name for name in FIXTURES if FIXTURES[name][1].get("fingerprint")]
)
def test_fingerprints_are_as_tensorflow_gives_them(name: str) -> None:
    directory, facts = FIXTURES[name]
    fact = facts["fingerprint"]
    with ckptparse.open_saved_model(directory) as model:
        fingerprint = model.fingerprint
        assert fingerprint is not None
        hashes = ("graph_def_program", "signature_def", "saved_object_graph", "checkpoint")
        for field in ("saved_model_checksum", *(f"{name}_hash" for name in hashes)):
            assert str(getattr(fingerprint, field)) == fact.get(field, "0")
        assert fingerprint.singleprint == "/".join(fact.get(f"{name}_hash", "0") for name in hashes)
        assert fingerprint.version >= 0
        assert fingerprint.uuid == fact.get("uuid", "")
        assert fingerprint.matches_checkpoint


@pytest.mark.parametrize("name", FIXTURES)
def test_objects_know_their_variables_without_the_checkpoint(name: str) -> None:
    directory, _ = FIXTURES[name]
    with ckptparse.open_saved_model(directory) as model:
        objects = model.objects
        if objects is None:
            assert "tf1" in name
            return
        variables = [node for node in objects.nodes() if getattr(node, "kind", None) == "variable"]
        stored = set(model.variables)
        for node in variables:
            assert isinstance(node, SavedObjectNode)
            assert node.trainable in (True, False)
            assert node.checkpoint_key in stored
            assert node.tensor.dtype == node.dtype
            assert node.tensor.shape == node.shape
            assert node.full_name is not None
        assert len(str(model.tree()).splitlines()) >= len(variables)


@pytest.mark.checklist(119)
def test_tf1_meta_graphs_of_several_tags_share_the_variables() -> None:
    with ckptparse.open_saved_model(CASES["saved_model/tf1_two_meta_graphs"].root) as model:
        train, serve = model.meta_graph("gpu", "train"), model.meta_graph("serve")
        assert train is not serve
        assert set(model.variables) == set(train.graph.variables) == set(serve.graph.variables)
        assert model.objects is None
        assert model.layers_source == "names"
        with pytest.raises(CheckpointNotFoundError, match=r"\['train'\]") as caught:
            model.meta_graph("train")
        assert "['serve']" in str(caught.value)
        with pytest.raises(CheckpointNotFoundError):
            model.meta_graph()


def test_the_only_meta_graph_needs_no_tags() -> None:
    with ckptparse.open_saved_model(MODULE) as model:
        assert model.meta_graph() is model.meta_graph("serve")


@pytest.mark.checklist(120)
def test_a_tf2_model_without_variables_has_none() -> None:
    with ckptparse.open_saved_model(CASES["saved_model/no_variables_tf2"].root) as model:
        assert len(model.variables) == 0
        assert model.variables.object_graph is not None
        assert model.layers == []
        assert model.optimizer is None


def test_a_tf1_model_without_variables_needs_no_folder_for_them() -> None:
    with ckptparse.open_saved_model(CASES["saved_model/tf1_no_variables"].root) as model:
        assert len(model.variables) == 0
        assert model.variables.read() == {}
        assert model.variables.files == ()
        assert model.variables.orphan_slices == []
        assert "w" not in model.variables
        assert model.layers == []
        assert model.step is None


def test_constants_assets_and_functions_of_a_module_are_found_by_its_objects() -> None:
    with ckptparse.open_saved_model(MODULE) as model:
        meta_graph = model.meta_graph("serve")
        objects = model.objects
        assert objects is not None
        nodes = [node for node in objects.nodes() if isinstance(node, SavedObjectNode)]
        constants = [node for node in nodes if node.kind == "constant"]
        assert constants
        for node in constants:
            assert node.read().shape == node.shape
        assets = [node.asset for node in nodes if node.asset is not None]
        real = os.path.realpath(MODULE / "assets" / "module-vocabulary.txt")
        assert set(assets) == {real}
        assert dict(model.assets) == {"module-vocabulary.txt": real}
        called = {name for node in nodes for name in node.functions}
        assert called <= set(meta_graph.functions)
        specs = [
            spec
            for function in meta_graph.functions.values()
            for spec in leaves(function.input_signature)
            if isinstance(spec, TensorSpec)
        ]
        assert ("x", (None, 2)) in [(spec.name, spec.shape) for spec in specs]
        assert set(meta_graph.functions) <= set(meta_graph.graph.functions)


def leaves(value: Any) -> list[Any]:
    if isinstance(value, Mapping):
        return [leaf for item in value.values() for leaf in leaves(item)]
    if isinstance(value, list | tuple):
        return [leaf for item in value for leaf in leaves(item)]
    return [value]


def test_a_model_is_found_by_its_directory_or_its_file(tmp_path: Path) -> None:
    for path in (MODULE, str(MODULE) + "/", MODULE / "saved_model.pb"):
        with ckptparse.open_saved_model(path) as model:
            assert model.meta_graph("serve").tags == ("serve",)
            assert model.file is not None
    with pytest.raises(CheckpointNotFoundError):
        ckptparse.open_saved_model(tmp_path / "nothing")
    (tmp_path / "other").mkdir()
    with pytest.raises(NotACheckpointError):
        ckptparse.open_saved_model(tmp_path / "other")
    with pytest.raises(NotACheckpointError):
        ckptparse.open_saved_model(expected.load("saver/my_model").checkpoint.path.parent)


@pytest.mark.checklist(118)
def test_pb_wins_over_pbtxt_which_is_not_even_read(tmp_path: Path) -> None:
    directory = copy_of("saved_model/module", tmp_path)
    (directory / "saved_model.pbtxt").write_text("this is { broken")
    with ckptparse.open_saved_model(directory) as model:
        assert model.meta_graph("serve").signatures
    (directory / "saved_model.pb").unlink()
    with ckptparse.open_saved_model(directory) as model, pytest.raises(MalformedError):
        _ = model.meta_graphs


def test_a_hub_module_is_known_and_required_features_are_refused(tmp_path: Path) -> None:
    directory = copy_of("saved_model/tf1_partitioned", tmp_path)
    with ckptparse.open_saved_model(directory) as model:
        assert model.is_hub_module
        assert model.meta_graph().tags == ()
        assert model.meta_graph("train").tags == ("train",)
    for description in (b"\x08\x02", b"\x08\x03\x12\x04fast"):
        (directory / "tfhub_module.pb").write_bytes(description)
        with pytest.raises(UnsupportedError, match="TF-Hub"):
            ckptparse.open_saved_model(directory)
    (directory / "tfhub_module.pb").write_bytes(b"version https://git-lfs")
    with ckptparse.open_saved_model(directory) as model:
        assert len(model.variables) > 0


# Chunked


@pytest.mark.checklist(122)
@pytest.mark.parametrize("compression", ["none", "brotli", "zstd", "snappy"])
def test_a_chunked_model_is_the_same_model(tmp_path: Path, compression: str) -> None:
    directory = copy_of("saved_model/module", tmp_path, without=("saved_model.pb",))
    whole = SavedModelProto.FromString((MODULE / "saved_model.pb").read_bytes())
    rest = SavedModelProto()
    rest.CopyFrom(whole)
    rest.meta_graphs[0].graph_def.ClearField("library")
    library: list[Tag] = [2, "#0", 2, 2]
    plan = chunked_message(0, [chunked_field(library, chunked_message(1))])
    cut = whole.meta_graphs[0].graph_def.library.SerializeToString()
    chunks = [(MESSAGE, rest.SerializeToString()), (MESSAGE, cut)]
    data = chunked_file(chunks, plan, compression=compression)
    (directory / "saved_model.cpb").write_bytes(data)
    with ckptparse.open_saved_model(directory) as model, ckptparse.open_saved_model(MODULE) as pb:
        ours, theirs = model.meta_graph("serve"), pb.meta_graph("serve")
        assert ours.signatures == theirs.signatures
        assert list(ours.graph.functions) == list(theirs.graph.functions)
        assert list(model.variables) == list(pb.variables)
        assert model.assets.keys() == pb.assets.keys()
    damaged = bytearray(data)
    damaged[-3] ^= 1
    (directory / "saved_model.cpb").write_bytes(damaged)
    with ckptparse.open_saved_model(directory) as model:
        with pytest.raises(CheckpointError):
            _ = model.meta_graphs
        assert len(model.variables) > 0


def test_bytes_of_a_chunked_constant_are_set(tmp_path: Path) -> None:
    whole = small_model()
    rest = SavedModelProto.FromString(whole)
    tensor = rest.meta_graphs[0].graph_def.node[0].attr["value"].tensor
    content, tensor.tensor_content = tensor.tensor_content, b""
    tag: list[Tag] = [2, "#0", 2, 1, "#0", 5, ("s", "value"), 8, 4]
    plan = chunked_message(0, [chunked_field(tag, chunked_message(1))])
    chunks = [(MESSAGE, rest.SerializeToString()), (BYTES, content)]
    (tmp_path / "saved_model.cpb").write_bytes(chunked_file(chunks, plan))
    with ckptparse.open_saved_model(tmp_path) as model:
        constant = model.meta_graph().graph.constants["weights"]
        np.testing.assert_array_equal(constant.read(), np.array([1, 2], np.int32))


# Parts that are missing or broken


def test_each_part_breaks_by_itself(tmp_path: Path) -> None:
    directory = copy_of("saved_model/keras2_sequential", tmp_path)
    for name in ("saved_model.pb", "fingerprint.pb", "keras_metadata.pb"):
        (directory / name).write_bytes(b"\xff\xff\xff")
    with ckptparse.open_saved_model(directory) as model:
        assert len(model.variables.read()) == len(model.variables)
        for part in ("meta_graphs", "objects", "assets", "fingerprint", "keras_metadata"):
            with pytest.raises(MalformedError):
                getattr(model, part)
        assert model.optimizer is not None


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"<!DOCTYPE html><html><title>Sign in</title></html>", "html"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 9\n",
            "lfs-pointer",
        ),
    ],
)
def test_what_lies_in_place_of_the_message_is_named(tmp_path: Path, data: bytes, kind: str) -> None:
    directory = copy_of("saved_model/keras2_sequential", tmp_path)
    (directory / "saved_model.pb").write_bytes(data)
    with ckptparse.open_saved_model(directory) as model:
        with pytest.raises(NotACheckpointError) as caught:
            _ = model.meta_graphs
        assert caught.value.identity.kind == kind
        assert model.layers


def test_an_empty_message_has_no_meta_graph(tmp_path: Path) -> None:
    for data in (b"", b"\x08\x01"):
        (tmp_path / "saved_model.pb").write_bytes(data)
        with ckptparse.open_saved_model(tmp_path) as model, pytest.raises(CheckpointError):
            _ = model.meta_graphs


def test_missing_variables_are_missed(tmp_path: Path) -> None:
    directory = copy_of("saved_model/keras2_sequential", tmp_path, without=("*.index",))
    with ckptparse.open_saved_model(directory) as model:
        with pytest.raises(CheckpointNotFoundError):
            _ = model.variables
        assert model.objects is not None
        assert [layer.class_name for layer in model.layers] == ["Dense", "Dense"]
        with pytest.raises(CheckpointNotFoundError):
            model.layers[0].get_weights()
        assert model.fingerprint is not None
        with pytest.raises(CheckpointNotFoundError):
            _ = model.fingerprint.matches_checkpoint


def test_a_missing_data_file_is_missed_when_weights_are_read(tmp_path: Path) -> None:
    directory = copy_of("saved_model/keras2_sequential", tmp_path, without=("*.data-*",))
    with ckptparse.open_saved_model(directory) as model:
        weights = model.layers[0].weights
        assert [weight.shape for weight in weights] == [(2, 3), (3,)]
        with pytest.raises(MissingShardError):
            model.layers[0].get_weights()


def test_another_index_does_not_match_the_fingerprint(tmp_path: Path) -> None:
    directory = copy_of("saved_model/keras2_sequential", tmp_path)
    index = directory / "variables" / "variables.index"
    index.write_bytes(index.read_bytes() + b"\0")
    with ckptparse.open_saved_model(directory) as model:
        assert model.fingerprint is not None
        assert not model.fingerprint.matches_checkpoint


def test_a_closed_model_closes_its_variables() -> None:
    model = ckptparse.open_saved_model(MODULE)
    variables = model.variables
    model.close()
    with pytest.raises(ckptparse.ClosedError):
        variables.read()
    unopened = ckptparse.open_saved_model(MODULE)
    unopened.close()
    with pytest.raises(ckptparse.ClosedError):
        unopened.variables  # noqa: B018 - to ask is to open
    assert "module" in repr(model)


# Hostile


def small_model(change: Callable[[MetaGraphDef], None] | None = None) -> bytes:
    """A SavedModel with a constant, a signature, an asset and objects."""
    model = SavedModelProto(saved_model_schema_version=1)
    meta_graph = model.meta_graphs.add()
    meta_graph.meta_info_def.tags.append("serve")
    constant = meta_graph.graph_def.node.add(name="weights", op="Const")
    tensor = constant.attr["value"].tensor
    tensor.dtype = 3
    tensor.tensor_shape.dim.add(size=2)
    tensor.tensor_content = b"\1\0\0\0\2\0\0\0"
    signature = meta_graph.signature_def["serving_default"]
    signature.inputs["x"].name = "x:0"
    signature.inputs["x"].dtype = 1
    signature.inputs["x"].tensor_shape.dim.add(size=-1)
    meta_graph.asset_file_def.add(filename="words.txt")
    objects = meta_graph.object_graph_def
    root = objects.nodes.add()
    root.user_object.identifier = "_tf_keras_model"
    root.user_object.metadata = '{"name": "m", "class_name": "Net", "config": {}}'
    for number, name in enumerate(("c", "asset", "f"), start=1):
        root.children.add(node_id=number, local_name=name)
    objects.nodes.add().constant.operation = "weights"
    objects.nodes.add().asset.asset_file_def_index = 0
    objects.nodes.add().function.concrete_functions.append("fn")
    function = objects.concrete_functions["fn"]
    function.bound_inputs.append(1)
    argument = function.canonicalized_input_signature.tuple_value.values.add()
    argument.tensor_spec_value.name = "x"
    if change is not None:
        change(meta_graph)
    return model.SerializeToString()


def use(directory: Path) -> None:
    """Ask everything of a SavedModel."""
    with ckptparse.open_saved_model(directory) as model:
        for meta_graph in model.meta_graphs:
            _ = meta_graph.signatures, meta_graph.functions, meta_graph.function_aliases
            for name in meta_graph.graph.constants:
                meta_graph.graph.constants[name].read()
        for ask in (
            lambda: model.assets,
            lambda: model.layers,
            lambda: model.optimizer,
            lambda: str(model.tree(everything=True)),
            lambda: model.keras_metadata,
            lambda: [ask_node(node) for node in model.objects.nodes()] if model.objects else None,
        ):
            attempt(ask)


def ask_node(node: ObjectNode) -> None:
    assert isinstance(node, SavedObjectNode)
    for name in (
        "asset",
        "tensor",
        "functions",
        "user_object",
        "registered_saver",
        "shape",
        "path",
    ):
        attempt(lambda name=name: getattr(node, name))


def attempt(ask: Callable[[], Any]) -> None:
    try:
        ask()
    except CheckpointError:
        return


def test_the_small_model_is_whole(tmp_path: Path) -> None:
    (tmp_path / "saved_model.pb").write_bytes(small_model())
    use(tmp_path)
    with ckptparse.open_saved_model(tmp_path) as model:
        objects = model.objects
        assert objects is not None
        np.testing.assert_array_equal(objects["c"].read(), [1, 2])
        asset, function = objects["asset"], objects["f"]
        assert isinstance(asset, SavedObjectNode)
        assert isinstance(function, SavedObjectNode)
        assert asset.asset == os.path.realpath(tmp_path / "assets" / "words.txt")
        assert objects.concrete_functions["fn"].input_signature[0].name == "x"
        assert model.keras_metadata is not None
        assert model.keras_metadata["root"].values["class_name"] == "Net"
        with pytest.raises(TensorNotFoundError):
            function.read()


def test_damage_gives_a_model_or_an_error_of_ours(tmp_path: Path) -> None:
    data = small_model()
    file = tmp_path / "saved_model.pb"
    for size in range(len(data)):
        file.write_bytes(data[:size])
        attempt(lambda: use(tmp_path))
    for index in range(len(data)):
        for bit in (index % 8, (index + 3) % 8):
            damaged = bytearray(data)
            damaged[index] ^= 1 << bit
            file.write_bytes(damaged)
            attempt(lambda: use(tmp_path))


@pytest.mark.parametrize(
    "name",
    [
        "../secret",
        "a/../../secret",
        "/etc/passwd",
        "..",
        "",
        "a//b",
        "a\0b",
        "..\\secret",
        "C:\\x",
        "a/",
    ],
)
@pytest.mark.parametrize("in_collection", [False, True])
def test_asset_names_that_lead_out_get_no_path(
    tmp_path: Path, name: str, in_collection: bool
) -> None:
    def change(meta_graph: MetaGraphDef) -> None:
        if in_collection:
            del meta_graph.asset_file_def[:]
            values = meta_graph.collection_def["saved_model_assets"].any_list.value
            values.add(value=AssetFileDef(filename=name).SerializeToString())
        else:
            meta_graph.asset_file_def[0].filename = name

    (tmp_path / "saved_model.pb").write_bytes(small_model(change))
    with ckptparse.open_saved_model(tmp_path) as model:
        with pytest.raises(MalformedError, match="among the assets"):
            _ = model.assets
        asset = model.objects["asset"] if model.objects else None
        assert isinstance(asset, SavedObjectNode)
        with pytest.raises(MalformedError):
            _ = asset.asset
        assert model.meta_graph("serve").signatures


def test_a_symbolic_link_does_not_lead_out_either(tmp_path: Path) -> None:
    directory = tmp_path / "model"
    (directory / "assets").mkdir(parents=True)
    (directory / "saved_model.pb").write_bytes(small_model())
    secret = tmp_path / "secret"
    secret.write_text("secret")
    (directory / "assets" / "words.txt").symlink_to(secret)
    with ckptparse.open_saved_model(directory) as model, pytest.raises(MalformedError):
        _ = model.assets


@pytest.mark.parametrize("number", [1, -1, 2**31 - 1])
def test_an_asset_that_is_not_there_is_malformed(tmp_path: Path, number: int) -> None:
    def change(meta_graph: MetaGraphDef) -> None:
        meta_graph.object_graph_def.nodes[2].asset.asset_file_def_index = number

    (tmp_path / "saved_model.pb").write_bytes(small_model(change))
    with ckptparse.open_saved_model(tmp_path) as model:
        asset = model.objects["asset"] if model.objects else None
        assert isinstance(asset, SavedObjectNode)
        with pytest.raises(MalformedError, match="one of 1 assets"):
            _ = asset.asset


def test_objects_that_refer_to_nothing_are_malformed(tmp_path: Path) -> None:
    def change(meta_graph: MetaGraphDef) -> None:
        meta_graph.object_graph_def.nodes[0].children[0].node_id = 77

    (tmp_path / "saved_model.pb").write_bytes(small_model(change))
    with ckptparse.open_saved_model(tmp_path) as model:
        assert model.objects is not None
        for ask in (lambda: model.objects["c"], lambda: model.layers, lambda: str(model.tree())):
            with pytest.raises(MalformedError, match="found node 77"):
                ask()


@pytest.mark.parametrize(
    "metadata", ["{", "[]", "1", "[" * 100_000, '{"name": ' + "9" * 5000 + "}"]
)
def test_keras_metadata_that_is_no_object_is_malformed(tmp_path: Path, metadata: str) -> None:
    def change(meta_graph: MetaGraphDef) -> None:
        meta_graph.object_graph_def.nodes[0].user_object.metadata = metadata

    (tmp_path / "saved_model.pb").write_bytes(small_model(change))
    with ckptparse.open_saved_model(tmp_path) as model:
        assert model.keras_metadata is not None
        with pytest.raises(MalformedError, match="JSON"):
            _ = model.keras_metadata["root"].values


def test_fields_of_other_types_than_keras_writes_count_as_absent(tmp_path: Path) -> None:
    def change(meta_graph: MetaGraphDef) -> None:
        meta_graph.object_graph_def.nodes[
            0
        ].user_object.metadata = '{"name": 3, "class_name": [], "config": "x"}'

    (tmp_path / "saved_model.pb").write_bytes(small_model(change))
    with ckptparse.open_saved_model(tmp_path) as model:
        assert model.keras_metadata is not None
        description = model.keras_metadata["root"].describe()
        assert (description.name, description.class_name, description.config) == (None, None, None)


def test_the_size_of_the_message_is_bounded() -> None:
    small = Limits(message_bytes=1000)
    with (
        ckptparse.open_saved_model(MODULE, limits=small) as model,
        pytest.raises(LimitError, match="message_bytes"),
    ):
        _ = model.meta_graphs


@pytest.mark.parametrize("children", [0, 4000])
def test_a_model_has_no_more_objects_than_its_message_allows(tmp_path: Path, children: int) -> None:
    def change(meta_graph: MetaGraphDef) -> None:
        nodes = meta_graph.object_graph_def.nodes
        if children:
            for number in range(children):
                nodes[0].children.add(node_id=0, local_name=str(number))
        else:
            nodes.extend(type(nodes[0])() for _ in range(1000))

    (tmp_path / "saved_model.pb").write_bytes(small_model(change))
    few = Limits(objects=900)
    with ckptparse.open_saved_model(tmp_path, limits=few) as model:
        asked: list[Callable[[], object]] = [
            lambda: model.meta_graphs,
            lambda: model.layers,
            lambda: model.effects,
            lambda: model.has_variables,
        ]
        for ask in asked:
            with pytest.raises(LimitError, match=r"Limits\.objects allows 900"):
                ask()
    with ckptparse.open_saved_model(tmp_path) as model:
        assert model.objects is not None


def _many_assets(meta_graph: MetaGraphDef) -> None:
    for number in range(1000):
        meta_graph.asset_file_def.add(filename=str(number))


def _deep_assets(meta_graph: MetaGraphDef) -> None:
    meta_graph.asset_file_def.add(filename="a/" * 1000 + "a")


def _listed_assets(meta_graph: MetaGraphDef) -> None:
    del meta_graph.asset_file_def[:]
    values = meta_graph.collection_def["saved_model_assets"].any_list.value
    for number in range(1000):
        values.add(value=AssetFileDef(filename=str(number)).SerializeToString())


def _many_signatures(meta_graph: MetaGraphDef) -> None:
    for number in range(1000):
        meta_graph.signature_def[str(number)].method_name = "m"


def _many_inputs(meta_graph: MetaGraphDef) -> None:
    for number in range(1000):
        meta_graph.signature_def["s"].inputs[str(number)].dtype = 1


def _many_components(meta_graph: MetaGraphDef) -> None:
    components = meta_graph.signature_def["s"].outputs["x"].composite_tensor.components
    for _ in range(1000):
        components.add()


def _many_dimensions(meta_graph: MetaGraphDef) -> None:
    for _ in range(36_000):
        meta_graph.signature_def["s"].outputs["x"].tensor_shape.dim.add()


def _many_tags(meta_graph: MetaGraphDef) -> None:
    meta_graph.meta_info_def.tags.extend(["t"] * 1000)


def _many_aliases(meta_graph: MetaGraphDef) -> None:
    for number in range(1000):
        meta_graph.meta_info_def.function_aliases[str(number)] = "f"


def _many_functions(meta_graph: MetaGraphDef) -> None:
    for number in range(1000):
        meta_graph.object_graph_def.concrete_functions[str(number)].bound_inputs.append(0)


def _many_bound_inputs(meta_graph: MetaGraphDef) -> None:
    meta_graph.object_graph_def.concrete_functions["fn"].bound_inputs.extend([0] * 36_000)


def _many_values(meta_graph: MetaGraphDef) -> None:
    function = meta_graph.object_graph_def.concrete_functions["fn"]
    outer = function.output_signature.list_value.values
    for _ in range(3000):  # Short lists: an eighth of each counts.
        outer.add().tuple_value.values.add()
        outer[-1].tuple_value.values.add()


def _many_dimensions_of_a_spec(meta_graph: MetaGraphDef) -> None:
    function = meta_graph.object_graph_def.concrete_functions["fn"]
    for _ in range(36_000):
        function.output_signature.tensor_spec_value.shape.dim.add()


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(change, id=change.__name__.removeprefix("_many_").strip("_"))
        for change in (
            _many_assets,
            _deep_assets,
            _listed_assets,
            _many_signatures,
            _many_inputs,
            _many_components,
            _many_dimensions,
            _many_tags,
            _many_aliases,
            _many_functions,
            _many_bound_inputs,
            _many_values,
            _many_dimensions_of_a_spec,
        )
    ],
)
def test_a_model_lists_no_more_than_its_bytes_allow(
    tmp_path: Path, change: Callable[[MetaGraphDef], None]
) -> None:
    data = small_model(change)
    (tmp_path / "saved_model.pb").write_bytes(data)

    def ask(limits: Limits) -> None:
        with ckptparse.open_saved_model(tmp_path, limits=limits) as model:
            _ = model.assets, model.meta_graphs[0].functions

    with pytest.raises(LimitError) as caught:
        ask(Limits(objects=900))
    assert caught.value.limit == "objects"
    ask(Limits(objects=1400))


def test_what_keras_wrote_is_of_no_more_objects_than_its_bytes_allow(tmp_path: Path) -> None:
    (tmp_path / "saved_model.pb").write_bytes(small_model())
    (tmp_path / "keras_metadata.pb").write_bytes(b"\x0a\x00" * 1000)
    with (
        ckptparse.open_saved_model(tmp_path, limits=Limits(objects=900)) as model,
        pytest.raises(LimitError, match="objects"),
    ):
        _ = model.keras_metadata
    with ckptparse.open_saved_model(tmp_path) as model:
        assert model.keras_metadata


@pytest.mark.parametrize("part", ["{}", "[]"])
@pytest.mark.parametrize("place", ["file", "objects"])
def test_what_keras_wrote_has_no_more_parts_than_its_bytes_allow(
    tmp_path: Path, place: str, part: str
) -> None:
    metadata = f'{{"name": "m", "class_name": "Net", "config": [{",".join([part] * 8000)}]}}'

    def change(meta_graph: MetaGraphDef) -> None:
        if place == "objects":
            meta_graph.object_graph_def.nodes[0].user_object.metadata = metadata

    (tmp_path / "saved_model.pb").write_bytes(small_model(change))
    if place == "file":
        file = SavedMetadata()
        file.nodes.add(node_path="root", identifier="_tf_keras_model", metadata=metadata)
        (tmp_path / "keras_metadata.pb").write_bytes(file.SerializeToString())
    for allowed, fails in ((900, True), (1100, False)):
        with ckptparse.open_saved_model(tmp_path, limits=Limits(objects=allowed)) as model:
            if fails:
                with pytest.raises(LimitError, match="objects"):
                    _ = model.keras_metadata
            else:
                assert model.keras_metadata is not None
                assert len(model.keras_metadata["root"].values["config"]) == 8000


def test_json_without_the_marks_of_tuples_calls_nothing_for_each_object(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    called = []
    unmark = keras_metadata._unmark
    monkeypatch.setattr(keras_metadata, "_unmark", lambda value: called.append(1) or unmark(value))
    marked = '{"a": {}, "b": {"class_name": "__tuple__", "items": [1]}}'
    escaped = marked.replace("tuple", "\\u0074uple")
    for text, value, count in ((marked, (1,), 3), (escaped, (1,), 3), ('{"b": {}}', {}, 0)):
        called.clear()
        assert KerasObject(0, "root", "_tf_keras_layer", text).values["b"] == value
        assert len(called) == count


def test_a_long_name_is_not_copied_into_the_place_of_each_effect_below_it() -> None:
    inner = ",".join(['{"class_name": "Lambda", "config": {"name": "n", "function": "f%d"}}'] * 20)
    inner %= tuple(range(20))
    text = f'{{"class_name": "Net", "config": {{"name": "{"a" * 100_000}", "layers": [{inner}]}}}}'
    found = list(find_keras_effects([KerasObject(0, "root", "_tf_keras_model", text)]))
    assert len(found) == 20
    assert max(len(effect.node) for effect in found) < 5000


def test_tables_that_share_a_function_look_at_its_arguments_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def change(meta_graph: MetaGraphDef) -> None:
        objects = meta_graph.object_graph_def
        objects.concrete_functions["init"].bound_inputs.extend([0] * 100)
        initializer = len(objects.nodes)
        objects.nodes.add().function.concrete_functions.append("init")
        for number in range(100):
            objects.nodes[0].children.add(node_id=len(objects.nodes), local_name=f"t{number}")
            table = objects.nodes.add()
            table.resource.device = ""
            table.children.add(node_id=initializer, local_name="_initialize")

    (tmp_path / "saved_model.pb").write_bytes(small_model(change))
    looked = []
    is_constant = SavedObjects._is_constant

    def look(objects: SavedObjects, node: ObjectNode) -> bool:
        looked.append(node.node_id)
        return is_constant(objects, node)

    monkeypatch.setattr(SavedObjects, "_is_constant", look)
    with ckptparse.open_saved_model(tmp_path) as model:
        assert model.objects is not None
        tables = [model.objects[f"t{number}"] for number in range(100)]
        assert [model.objects.initial_keys(table.node_id) for table in tables] == [None] * 100
    assert len(looked) == 100


def test_signatures_of_sparse_and_composite_tensors_name_their_parts(tmp_path: Path) -> None:
    def change(meta_graph: MetaGraphDef) -> None:
        inputs = meta_graph.signature_def["s"].inputs
        inputs["sparse"].coo_sparse.values_tensor_name = "v:0"
        inputs["sparse"].coo_sparse.indices_tensor_name = "i:0"
        inputs["ragged"].composite_tensor.components.add(name="flat:0", dtype=1)
        inputs["any"].tensor_shape.unknown_rank = True
        default = meta_graph.signature_def["s"].defaults["any"]
        default.dtype = 1
        default.float_val.append(0.5)

    (tmp_path / "saved_model.pb").write_bytes(small_model(change))
    with ckptparse.open_saved_model(tmp_path) as model:
        signature = model.meta_graph().signatures["s"]
        assert signature.inputs["sparse"].components == ("v:0", "i:0", "")
        (flat,) = signature.inputs["ragged"].components
        assert isinstance(flat, ckptparse.TensorInfo)
        assert (flat.name, flat.dtype) == ("flat:0", np.dtype(np.float32))
        assert signature.inputs["any"].shape is None
        assert signature.defaults["any"].read() == 0.5


def test_every_kind_of_structured_value_is_decoded(tmp_path: Path) -> None:
    def change(meta_graph: MetaGraphDef) -> None:
        function = meta_graph.object_graph_def.concrete_functions["fn"]
        values = function.output_signature.list_value.values
        values.add().none_value.SetInParent()
        values.add().int64_value = -3
        values.add().dict_value.fields["k"].float64_value = 0.5
        pair = values.add().named_tuple_value.values.add(key="p")
        pair.value.bool_value = True
        ragged = values.add().type_spec_value
        ragged.type_spec_class_name = "RaggedTensorSpec"
        ragged.type_state.string_value = "state"
        values.add().tensor_shape_value.unknown_rank = True
        values.add().tensor_dtype_value = 1

    (tmp_path / "saved_model.pb").write_bytes(small_model(change))
    with ckptparse.open_saved_model(tmp_path) as model:
        found = model.meta_graph().functions["fn"].output_signature
        assert found[:4] == [None, -3, {"k": 0.5}, {"p": True}]
        assert found[4:] == [
            TypeSpec("RaggedTensorSpec", "state"),
            None,
            ckptparse.DataType.DT_FLOAT,
        ]


# Every bit


def check_every_bit(data: bytes, ask: Callable[[bytes], None]) -> None:
    for index in range(len(data)):
        for bit in range(8):
            damaged = bytearray(data)
            damaged[index] ^= 1 << bit
            attempt(lambda damaged=damaged: ask(bytes(damaged)))


@pytest.mark.bitflips
def test_every_bit_of_a_message_gives_a_model_or_an_error_of_ours(tmp_path: Path) -> None:
    def ask(data: bytes) -> None:
        (tmp_path / "saved_model.pb").write_bytes(data)
        use(tmp_path)

    check_every_bit(small_model(), ask)
    check_every_bit(
        (CASES["saved_model/tf1_no_variables"].root / "saved_model.pb").read_bytes(), ask
    )


@pytest.mark.bitflips
@pytest.mark.parametrize("file", ["keras_metadata.pb", "fingerprint.pb"])
def test_every_bit_of_the_other_files_gives_a_model_or_an_error_of_ours(
    tmp_path: Path, file: str
) -> None:
    directory = copy_of("saved_model/keras2_sequential", tmp_path)
    data = (directory / file).read_bytes()[:600]

    def ask(damaged: bytes) -> None:
        (directory / file).write_bytes(damaged)
        with ckptparse.open_saved_model(directory) as model:
            attempt(lambda: model.fingerprint and model.fingerprint.singleprint)
            attempt(lambda: [item.values for item in (model.keras_metadata or {}).values()])

    check_every_bit(data, ask)


@pytest.mark.bitflips
@pytest.mark.parametrize("compression", ["none", "brotli"])
def test_every_bit_of_a_chunked_model_is_detected(tmp_path: Path, compression: str) -> None:
    whole = small_model()
    data = chunked_file([(MESSAGE, whole)], chunked_message(0), compression=compression)
    for index in range(len(data)):
        for bit in range(8):
            damaged = bytearray(data)
            damaged[index] ^= 1 << bit
            (tmp_path / "saved_model.cpb").write_bytes(damaged)
            with ckptparse.open_saved_model(tmp_path) as model, pytest.raises(CheckpointError):
                _ = model.meta_graphs


# Costs


class CountingStorage(LocalStorage):
    """The files of this machine; counts paths whose links are followed."""

    followed = 0

    def real(self, path: str) -> str:
        CountingStorage.followed += 1
        return super().real(path)


def test_paths_of_very_many_assets_are_not_followed_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "assets").mkdir()
    (tmp_path / "assets" / "link").symlink_to("/etc")
    names = [f"d{number % 7}/{number}" for number in range(1000)]
    monkeypatch.setattr(CountingStorage, "followed", 0)
    storage = CountingStorage()
    paths = asset_paths(storage, str(tmp_path), names)
    assert paths["d3/3"] == os.path.realpath(tmp_path / "assets" / "d3" / "3")
    assert CountingStorage.followed == 1
    assert find_leading_out(storage, str(tmp_path), ["a", "link/passwd", "../b"]) == {
        "link/passwd",
        "../b",
    }


@pytest.mark.parametrize("limit", [None, "objects"])
def test_a_broken_message_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str | None
) -> None:
    broken = b"\x12\x02\x0a" if limit is None else b"\x12\x00" * 100
    (tmp_path / "saved_model.pb").write_bytes(broken)
    read = []
    read_saved_model = models.read_saved_model

    def look(*args: Any, **options: Any) -> Any:
        read.append(args)
        return read_saved_model(*args, **options)

    monkeypatch.setattr(models, "read_saved_model", look)
    with ckptparse.open_saved_model(tmp_path, limits=Limits(objects=100)) as model:
        asked: list[Callable[[], object]] = [
            lambda: model.meta_graphs,
            lambda: model.assets,
            lambda: model.effects,
            lambda: model.schema_version,
            lambda: model.has_variables,
        ]
        for ask in asked:
            with pytest.raises(CheckpointError) as caught:
                ask()
            assert getattr(caught.value, "limit", None) == limit
    assert len(read) == 1


def test_very_many_meta_graphs_meet_a_limit(tmp_path: Path) -> None:
    (tmp_path / "saved_model.pb").write_bytes(b"\x12\x00" * 100)
    with ckptparse.open_saved_model(tmp_path, limits=ckptparse.Limits(objects=800)) as model:
        assert len(model.meta_graphs) == 100
    with (
        ckptparse.open_saved_model(tmp_path, limits=ckptparse.Limits(objects=799)) as model,
        pytest.raises(LimitError, match="objects"),
    ):
        _ = model.meta_graphs
