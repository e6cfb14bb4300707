"""Signatures: what a meta graph takes and gives (docs/format.md, section 8.1).

SignatureDef   1 inputs: name -> TensorInfo   2 outputs   3 method_name   4 defaults
TensorInfo     1 name   2 dtype   3 shape   4 coo_sparse   5 composite_tensor
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ckptparse.dtypes import base_data_type, numpy_dtype
from ckptparse.errors import CheckpointError
from ckptparse.graph.attributes import Shape, data_type_or_number, make_constant, shape_or_unknown
from ckptparse.limits import NUMBERS_AN_OBJECT, Limits, Objects
from ckptparse.proto import meta_graph_pb2
from ckptparse.tensor import Tensor
from ckptparse.text import brief_repr

__all__ = ["Signature", "TensorInfo", "count_signatures", "decode_signatures", "decode_tensor_info"]


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One input or output.

    Attributes:
        name: The tensor in the graph, such as `x:0`; empty for one of several tensors.
        data_type: DataType number.
        shape: Dimensions, None for an unknown one; None for a shape of unknown rank.
        components: Of a sparse tensor the names of its values, indices and dense shape; of a
            composite tensor its parts.
    """

    name: str
    data_type: int
    shape: Shape
    components: tuple[TensorInfo | str, ...] = ()

    @property
    def dtype(self) -> np.dtype[Any] | None:
        """The numpy (or ml_dtypes) type, of a reference its base; None if no array has that."""
        try:
            return numpy_dtype(base_data_type(self.data_type))
        except CheckpointError:
            return None


@dataclass(frozen=True, slots=True, repr=False)
class Signature:
    """One way to call a model.

    Attributes:
        inputs: By argument.
        outputs: By name.
        method_name: Such as `tensorflow/serving/predict`; may be empty.
        defaults: Values of arguments that may be left out.
    """

    inputs: Mapping[str, TensorInfo]
    outputs: Mapping[str, TensorInfo]
    method_name: str
    defaults: Mapping[str, Tensor]

    def __repr__(self) -> str:
        return brief_repr(self)


def count_signatures(proto: meta_graph_pb2.MetaGraphDef, objects: Objects) -> None:
    """Count the tensors of all signatures, with their parts.

    Raises:
        LimitError: They are more than `Limits.objects` allows.
    """
    for signature in proto.signature_def.values():
        objects.take(len(signature.inputs) + len(signature.outputs) + len(signature.defaults))
        pending = [*signature.inputs.values(), *signature.outputs.values()]
        while pending:
            info = pending.pop()
            components = info.composite_tensor.components
            objects.take(len(components) + len(info.tensor_shape.dim) / NUMBERS_AN_OBJECT)
            pending.extend(components)


def decode_signatures(
    proto: meta_graph_pb2.MetaGraphDef, *, limits: Limits, path: str | None
) -> dict[str, Signature]:
    """Decode the signatures of a meta graph, by name."""
    return {
        name: _decode_signature(proto.signature_def[name], limits, path)
        for name in sorted(proto.signature_def)
    }


def decode_tensor_info(proto: meta_graph_pb2.TensorInfo) -> TensorInfo:
    """Decode one input or output."""
    kind = proto.WhichOneof("encoding")
    components: tuple[TensorInfo | str, ...] = ()
    if kind == "coo_sparse":
        sparse = proto.coo_sparse
        components = (
            sparse.values_tensor_name,
            sparse.indices_tensor_name,
            sparse.dense_shape_tensor_name,
        )
    elif kind == "composite_tensor":
        components = tuple(map(decode_tensor_info, proto.composite_tensor.components))
    shape = shape_or_unknown(proto.tensor_shape)
    return TensorInfo(proto.name, data_type_or_number(proto.dtype), shape, components)


def _decode_signature(
    proto: meta_graph_pb2.SignatureDef, limits: Limits, path: str | None
) -> Signature:
    defaults = {
        name: make_constant(name, proto.defaults[name].SerializeToString(), limits, path)
        for name in sorted(proto.defaults)
    }
    return Signature(
        {name: decode_tensor_info(proto.inputs[name]) for name in sorted(proto.inputs)},
        {name: decode_tensor_info(proto.outputs[name]) for name in sorted(proto.outputs)},
        proto.method_name,
        defaults,
    )
