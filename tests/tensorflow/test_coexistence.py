"""TensorFlow and ckptparse live in one process, whichever comes first."""

from __future__ import annotations

from collections.abc import Callable

import pytest

pytest.importorskip("tensorflow")

OURS = """
import importlib, pkgutil, ckptparse, ckptparse.proto
for _, name, _ in pkgutil.iter_modules(ckptparse.proto.__path__):
    importlib.import_module(f"ckptparse.proto.{name}")
"""
THEIRS = """
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2, tensor_bundle_pb2
from tensorflow.core.util import saved_tensor_slice_pb2
"""
BOTH_WORK = """
from ckptparse.proto import tensor_pb2
from ckptparse.tensor_proto import decode_tensor_bytes, decode_tensor_proto
theirs = tf.make_tensor_proto([1.5, -2.0])
data = theirs.SerializeToString()
assert decode_tensor_bytes(data).tolist() == decode_tensor_proto(theirs).tolist() == [1.5, -2.0]
ours = tensor_pb2.TensorProto.FromString(data)
assert ours.SerializeToString() == data and type(ours) is not type(theirs)
print(tf.constant(3).numpy())
"""


@pytest.mark.parametrize("first", ["ckptparse", "tensorflow"])
def test_both_are_imported_in_either_order(first: str, fresh_python: Callable[[str], str]) -> None:
    imports = OURS + THEIRS if first == "ckptparse" else THEIRS + OURS
    assert fresh_python(imports + BOTH_WORK).split()[-1] == "3"
