"""Our messages are TensorFlow's: every field's number, type, label, packing, oneof and presence."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

import pytest
from google.protobuf import message_factory

import ckptparse.proto
from ckptparse.proto import versions_pb2

tf = pytest.importorskip("tensorflow")

VERSION = (2, 21)
if tuple(int(part) for part in tf.__version__.split(".")[:2]) < VERSION:
    pytest.skip("older messages lack fields", allow_module_level=True)

# Our file to the module with TensorFlow's; None where no wheel carries one.
ORIGINALS: dict[str, str | None] = {
    "attr_value": "tensorflow.core.framework.attr_value_pb2",
    "checkpoint_state": "tensorflow.python.training.checkpoint_state_pb2",
    "chunk": None,
    "fingerprint": "tensorflow.core.protobuf.fingerprint_pb2",
    "full_type": "tensorflow.core.framework.full_type_pb2",
    "function": "tensorflow.core.framework.function_pb2",
    "graph": "tensorflow.core.framework.graph_pb2",
    "graph_debug_info": "tensorflow.core.framework.graph_debug_info_pb2",
    "meta_graph": "tensorflow.core.protobuf.meta_graph_pb2",
    "module_def": None,
    "node_def": "tensorflow.core.framework.node_def_pb2",
    "op_def": "tensorflow.core.framework.op_def_pb2",
    "resource_handle": "tensorflow.core.framework.resource_handle_pb2",
    "saved_metadata": "tf_keras.protobuf.saved_metadata_pb2",
    "saved_model": "tensorflow.core.protobuf.saved_model_pb2",
    "saved_object_graph": "tensorflow.core.protobuf.saved_object_graph_pb2",
    "saved_tensor_slice": "tensorflow.core.util.saved_tensor_slice_pb2",
    "saver": "tensorflow.core.protobuf.saver_pb2",
    "struct": "tensorflow.core.protobuf.struct_pb2",
    "tensor": "tensorflow.core.framework.tensor_pb2",
    "tensor_bundle": "tensorflow.core.protobuf.tensor_bundle_pb2",
    "tensor_shape": "tensorflow.core.framework.tensor_shape_pb2",
    "tensor_slice": "tensorflow.core.framework.tensor_slice_pb2",
    "trackable_object_graph": "tensorflow.core.protobuf.trackable_object_graph_pb2",
    "types": "tensorflow.core.framework.types_pb2",
    "variable": "tensorflow.core.framework.variable_pb2",
    "versions": "tensorflow.core.framework.versions_pb2",
}

# Names that two packages of theirs share, and ours cannot.
RENAMED = {"KerasSavedObject": "SavedObject"}

FILES = sorted(
    name.removesuffix("_pb2")
    for _, name, _ in pkgutil.iter_modules(ckptparse.proto.__path__)
    if name.endswith("_pb2")
)


def base_name(descriptor: Any) -> str:
    """Return the name below the package, in TensorFlow's words."""
    name = descriptor.full_name.removeprefix(f"{descriptor.file.package}.")
    return RENAMED.get(name, name)


def describe_enum(enum: Any) -> list[tuple[str, int]]:
    return sorted((value.name, value.number) for value in enum.values)


def describe_field(field: Any) -> dict[str, Any]:
    """Describe what the wire and a reader of the message can see of a field."""
    oneof = field.containing_oneof
    # The oneof of a single field that stands for `optional` is no oneof of the author's.
    is_synthetic = oneof is not None and oneof.name == f"_{field.name}"
    return {
        "number": field.number,
        "type": field.type,
        "repeated": is_repeated(field),
        "packed": is_packed(field),
        "oneof": None if oneof is None or is_synthetic else oneof.name,
        # Entries of maps are never seen as messages; proto2 gives their fields presence.
        "presence": field.has_presence and not field.containing_type.GetOptions().map_entry,
        "message": field.message_type and base_name(field.message_type),
        "enum": field.enum_type and base_name(field.enum_type),
        "deprecated": field.GetOptions().deprecated,
    }


def is_repeated(field: Any) -> bool:
    """Tell whether a field is repeated; protobuf 7 has no labels, and 5 nothing else."""
    if hasattr(field, "is_repeated"):
        return bool(field.is_repeated)
    return bool(field.label == field.LABEL_REPEATED)


def is_packed(field: Any) -> bool:
    """Tell how the runtime writes a field: the options alone do not, proto3 packs by default."""
    if not is_repeated(field) or field.message_type is not None:
        return False
    if field.type in (field.TYPE_STRING, field.TYPE_BYTES):
        return False
    message = message_factory.GetMessageClass(field.containing_type)()
    getattr(message, field.name).append(0)
    # Of a tag of more than one byte the first has the wire type too.
    return message.SerializeToString()[0] & 7 == 2


def describe_message(message: Any) -> dict[str, Any]:
    described: dict[str, Any] = {field.name: describe_field(field) for field in message.fields}
    for inner in message.nested_types:
        described[f"message {inner.name}"] = describe_message(inner)
        described[f"message {inner.name} is a map"] = inner.GetOptions().map_entry
    for enum in message.enum_types:
        described[f"enum {enum.name}"] = describe_enum(enum)
    return described


def describe_file(file: Any) -> dict[str, Any]:
    messages = {base_name(m): describe_message(m) for m in file.message_types_by_name.values()}
    enums = {f"enum {e.name}": describe_enum(e) for e in file.enum_types_by_name.values()}
    return {**messages, **enums}


def test_every_file_has_its_original() -> None:
    assert sorted(ORIGINALS) == FILES


@pytest.mark.parametrize("name", FILES)
def test_messages_are_those_of_tensorflow(name: str) -> None:
    if ORIGINALS[name] is None:
        pytest.skip("no wheel carries the original")
    theirs = pytest.importorskip(str(ORIGINALS[name]))
    ours = importlib.import_module(f"ckptparse.proto.{name}_pb2")
    assert describe_file(ours.DESCRIPTOR) == describe_file(theirs.DESCRIPTOR)


def test_the_versions_of_keras_are_those_of_tensorflow() -> None:
    """Keras has a copy of VersionDef; here both use the same."""
    theirs = pytest.importorskip(str(ORIGINALS["saved_metadata"]))
    field = theirs.SavedObject.DESCRIPTOR.fields_by_name["version"]
    ours = describe_message(versions_pb2.VersionDef.DESCRIPTOR)
    assert describe_message(field.message_type) == ours
