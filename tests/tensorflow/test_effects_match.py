"""What is told of effects, against TensorFlow: its registry, and models that it writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

tf = pytest.importorskip("tensorflow")
from tensorflow.core.framework import op_def_pb2  # noqa: E402
from tensorflow.python.client import pywrap_tf_session  # noqa: E402

import ckptparse  # noqa: E402
from ckptparse.graph.effects.known_ops import KNOWN_OPS, TENSORFLOW  # noqa: E402
from ckptparse.graph.effects.table import FUNCTION_OPS, OPERATIONS  # noqa: E402


def registry() -> dict[str, Any]:
    ops = op_def_pb2.OpList()
    ops.ParseFromString(pywrap_tf_session.TF_GetBuffer(pywrap_tf_session.TF_GetAllOpList()))
    return {op.name: op for op in ops.op}


REGISTRY = registry()


def test_the_inputs_and_attributes_of_the_table_are_those_of_the_registry() -> None:
    for name, operation in OPERATIONS.items():
        op = REGISTRY.get(name)
        if op is None:
            continue
        for number in operation.inputs:
            assert op.input_arg[number].type == tf.string.as_datatype_enum, name
        attributes = {attribute.name: attribute.type for attribute in op.attr}
        if operation.attribute is not None:
            assert attributes[operation.attribute] in ("string", "list(string)"), name


def test_a_page_that_is_named_as_a_source_is_of_an_operation_with_a_page() -> None:
    for name, operation in OPERATIONS.items():
        if operation.source.startswith("https:") and name in REGISTRY:
            assert hasattr(tf.raw_ops, name), name


@pytest.mark.skipif(tf.__version__ != TENSORFLOW, reason="the list is of another version")
def test_the_list_of_operations_is_the_registry() -> None:
    # Keras and other packages may have added their own since.
    assert REGISTRY.keys() >= KNOWN_OPS


def test_operations_with_functions_are_those_of_the_registry() -> None:
    for name, op in REGISTRY.items():
        if any("func" in attribute.type for attribute in op.attr):
            assert name in FUNCTION_OPS, name


class Busy(tf.Module):  # type: ignore[misc]
    """A model that does what none should, in functions inside of functions."""

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self.directory = str(directory)

    @tf.function(input_signature=[tf.TensorSpec([], tf.string)])
    def __call__(self, name: Any) -> Any:
        @tf.function
        def write() -> Any:
            tf.io.write_file(f"{self.directory}/out", "x")
            return tf.io.read_file(name)

        return tf.cond(tf.strings.length(name) > 3, write, lambda: tf.constant(""))

    @tf.function(input_signature=[tf.TensorSpec([], tf.float32)])
    def python(self, value: Any) -> Any:
        dataset = tf.data.Dataset.range(2).map(
            lambda _: tf.numpy_function(lambda x: x, [value], tf.float32)
        )
        return dataset.reduce(0.0, lambda a, b: a + b)


def test_what_a_model_does_in_nested_functions_is_found(tmp_path: Path) -> None:
    module = Busy(tmp_path)
    tf.saved_model.save(module, str(tmp_path / "model"))
    with ckptparse.open_saved_model(tmp_path / "model") as model:
        found = {
            (e.op, str(e.kind), e.path, str(e.origin)) for e in model.effects if not e.ordinary
        }
    assert found == {
        ("WriteFile", "writes-file", f"{tmp_path}/out", "literal"),
        ("ReadFile", "reads-file", None, "caller"),
        ("PyFunc", "runs-python", None, "None"),
    }


def test_a_graph_that_a_dataset_carries_is_looked_into(tmp_path: Path) -> None:
    with tf.Graph().as_default() as inner:
        written = tf.io.write_file(f"{tmp_path}/inner", "x")
        with tf.control_dependencies([written]):
            tf.raw_ops.TensorDataset(components=[tf.constant(1)], output_shapes=[[]], name="out")

    class Carrier(tf.Module):  # type: ignore[misc]
        @tf.function(input_signature=[])
        def __call__(self) -> Any:
            graph = tf.constant(inner.as_graph_def().SerializeToString())
            return tf.raw_ops.DatasetCardinality(
                input_dataset=tf.raw_ops.DatasetFromGraph(graph_def=graph)
            )

    tf.saved_model.save(Carrier(), str(tmp_path / "model"))
    with ckptparse.open_saved_model(tmp_path / "model") as model:
        found = [effect for effect in model.effects if not effect.ordinary]
    ops = {(effect.op, effect.path, len(effect.within)) for effect in found}
    assert ops == {("DatasetFromGraph", None, 0), ("WriteFile", f"{tmp_path}/inner", 1)}


def test_a_checkpoint_saved_from_a_signature_is_not_ordinary(tmp_path: Path) -> None:
    class Saving(tf.Module):  # type: ignore[misc]
        @tf.function(input_signature=[])
        def __call__(self) -> Any:
            tf.raw_ops.SaveV2(
                prefix="model", tensor_names=["a"], shape_and_slices=[""], tensors=[tf.constant(1)]
            )
            return tf.constant(1)

    tf.saved_model.save(Saving(), str(tmp_path / "model"))
    with ckptparse.open_saved_model(tmp_path / "model") as model:
        found = [effect for effect in model.effects if not effect.ordinary]
    assert {(effect.op, effect.path) for effect in found} == {("SaveV2", "model")}


def test_the_code_of_a_lambda_layer_is_found_as_keras_writes_it(tmp_path: Path) -> None:
    keras = pytest.importorskip("tf_keras")
    model = keras.Sequential(
        [keras.layers.Input([2]), keras.layers.Lambda(lambda x: x * 2.0, name="twice")]
    )
    model.save(str(tmp_path / "model"), save_format="tf")
    with ckptparse.open_saved_model(tmp_path / "model") as opened:
        found = [effect for effect in opened.effects if not effect.ordinary]
    assert [(effect.op, str(effect.kind)) for effect in found] == [("Lambda", "runs-python")]
    assert "twice" in found[0].node
