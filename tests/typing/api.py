"""A program that uses the public names as a user would: mypy, strict, has nothing to say of it.

It is checked, never run. A change of a signature that breaks users' programs breaks this one.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import ckptparse
from ckptparse import CheckpointError, DataLossError, Limits, TensorNotFoundError


def read_all(path: str | Path) -> dict[str, npt.NDArray[Any]]:
    return ckptparse.read(path)


def read_some(path: Path) -> npt.NDArray[Any]:
    chosen = ckptparse.read(path, ["scope1/weights"], verify=False)
    chosen |= ckptparse.read(path, include="scope2/*", exclude=["*/Adam*", "*/beta?_power"])
    chosen |= ckptparse.read(path, naming="variable", mmap=True, threads=2)
    chosen |= ckptparse.read(path, limits=Limits(index_bytes=1 << 20, entries=10_000))
    return chosen["scope1/weights"]


def list_names(path: str) -> list[str]:
    listed: list[tuple[str, tuple[int, ...]]] = ckptparse.list_variables(path)
    return [name for name, shape in listed if len(shape) == 2]


def look_inside(path: str) -> int:
    with ckptparse.open(path, limits=ckptparse.DEFAULT_LIMITS) as checkpoint:
        as_mapping: Mapping[str, ckptparse.Tensor] = checkpoint
        total = sum(tensor.nbytes for tensor in as_mapping.values())
        print(checkpoint.format, checkpoint.num_shards, checkpoint.byte_order, checkpoint.files)
        for name, where, tensor in checkpoint.orphan_slices:
            print(name, where, tensor.shape)
        arrays: dict[str, npt.NDArray[Any]] = checkpoint.read(["bias"], include="b*")
        return total + sum(array.nbytes for array in arrays.values())


def use_a_tensor(tensor: ckptparse.Tensor) -> npt.NDArray[Any]:
    shape: tuple[int, ...] = tensor.shape
    dtype: np.dtype[Any] = tensor.dtype
    location: ckptparse.Location | None = tensor.location
    if location is not None:
        print(location.path, location.shard, location.offset, location.size)
    if tensor.kind == "sliced" or tensor.crc32c is None:
        tensor.verify()
    if tensor.data_type == ckptparse.DataType.DT_BFLOAT16:
        return tensor.read().astype(np.float32)
    rows: npt.NDArray[Any] = tensor[1:3, ..., 0]
    print(tensor.name, shape, dtype, tensor.ndim, tensor.size, len(tensor))
    return np.asarray(tensor) if rows.size == 0 else rows


def newest(directory: str | Path) -> str | None:
    state: ckptparse.CheckpointState | None = ckptparse.checkpoint_state(directory)
    if state is not None:
        print(state.latest, state.paths, state.timestamps, state.last_preserved)
    return ckptparse.latest_checkpoint(directory)


def handle_errors(path: str) -> str:
    try:
        ckptparse.read(path)
    except TensorNotFoundError as error:
        return ", ".join(error.closest)
    except ckptparse.ChecksumError as error:
        return f"{error.stored} {error.computed}"
    except DataLossError as error:
        return f"{error.path} {error.offset} {error.size} {error.tensor}"
    except CheckpointError as error:
        return error.hint or error.message
    return ""


def as_standard_exceptions(path: str) -> bool:
    try:
        ckptparse.open(path).close()
    except FileNotFoundError:
        return False
    except (ValueError, KeyError, EOFError, NotImplementedError):
        return False
    return True


def look_into_a_saved_model(path: str) -> list[npt.NDArray[Any]]:
    model: ckptparse.SavedModel = ckptparse.open_saved_model(path)
    signature = model.meta_graph("serve").signatures["serving_default"]
    for name, info in signature.inputs.items():
        print(name, info.name, info.dtype, info.shape)
    layers: list[ckptparse.Layer] = list(model.layers)
    return [array for layer in layers for array in layer.get_weights()]


def walk_an_object_graph(checkpoint: ckptparse.Checkpoint) -> bytes | None:
    graph: ckptparse.ObjectGraph | None = checkpoint.object_graph
    step: int | None = checkpoint.step
    print(checkpoint.tree(), step)
    return None if graph is None else graph.serialized


def look_into_a_graph(path: str) -> dict[str, tuple[int, ...]]:
    graph: ckptparse.Graph = ckptparse.open_graph(path)
    return {name: tensor.shape for name, tensor in graph.constants.items()}


def what_is_it(path: Path) -> str:
    identity: ckptparse.Identity = ckptparse.identify(path)
    explanation: ckptparse.Explanation = ckptparse.explain("Checksum does not match")
    return f"{identity.kind} {identity.advice} {explanation.code} {explanation.advice}"


def mend(path: str, out: str) -> bool:
    report: ckptparse.Report = ckptparse.verify(path)
    for problem in report.problems:
        print(problem.code, problem.severity == "error", problem.where, problem.message)
    for name, tensor in report.tensors.items():
        print(name, tensor.status == "verified", tensor.cause, tensor.ranges)
    recovery: ckptparse.Recovery = ckptparse.recover(path, siblings=False, executor=None)
    arrays: list[npt.NDArray[Any]] = [back.read(fill=0) for back in recovery.values()]
    written: ckptparse.Written = recovery.write(out, offer="plausible", fill=0)
    again: ckptparse.Replay = ckptparse.replay(written.report or "report.json")
    rules: list[ckptparse.EvidenceRule] = [
        record.rule for back in recovery.values() for record in back.evidence
    ]
    hashes: list[str | None] = [one.sha256 for one in (*report.inputs, *written.files)]
    found = bool(arrays) and bool(rules) and bool(hashes) and again.same
    return report.ok and recovery.report.ok and found


def write_back(recovery: ckptparse.Recovery) -> str:
    values: dict[str, object] = {"w": np.zeros(3, np.float32), "text": "a"}
    prefix: str = ckptparse.write("out/m", values, max_shard_size=1 << 30, overwrite=True)
    with ckptparse.open(prefix) as checkpoint:
        graph = checkpoint.object_graph
        ckptparse.write(prefix, checkpoint, object_graph=graph, keep_slices=True)
    ckptparse.write(prefix, values, object_graph="make", update_state=True)
    return ckptparse.write(prefix, recovery)


def read_as_with_tensorflow(path: str) -> list[str]:
    from ckptparse import tf

    reader: tf.train.CheckpointReader = tf.train.load_checkpoint(path)
    kinds: dict[str, tf.DType] = reader.get_variable_to_dtype_map()
    listed: list[tuple[str, list[int]]] = tf.train.list_variables(path)
    try:
        value = tf.train.load_variable(path, listed[0][0])
    except tf.errors.NotFoundError as error:
        print(error.message, error.error_code)
    else:
        print(value.shape)
    with tf.as_tensorflow():
        latest: str | None = tf.train.latest_checkpoint(path)
    return [kind.name for kind in kinds.values()] + [latest or ""]


def tell_slots_from_weights(checkpoint: ckptparse.Checkpoint) -> set[str]:
    optimizers: list[ckptparse.Optimizer] = checkpoint.optimizers
    averages: ckptparse.Averages = checkpoint.averages
    state = {name for optimizer in optimizers for name in optimizer.tensors}
    for optimizer in optimizers:
        for variable, slots in optimizer.slots.items():
            for slot, tensor in slots.items():
                print(variable, slot, tensor.shape)
    try:
        one: ckptparse.Optimizer | None = checkpoint.optimizer
    except ckptparse.AmbiguousError as error:
        print(error.candidates)
    else:
        print(one.name if one else None)
    return state | set(averages.tensors)


def see_it(path: str, out: Path) -> list[str]:
    ckptparse.report_page(path, out, overwrite=True, statistics=False, verify=False, threads=1)
    ckptparse.report_page(ckptparse.diff(path, path), out, progress=lambda done, total: None)
    effects: tuple[ckptparse.Effect, ...] = ckptparse.open_graph(path).effects
    with ckptparse.open_saved_model(path) as model:
        effects += model.effects
    return [
        f"{effect.kind.value} {effect.op} {effect.node} {effect.path}"
        for effect in effects
        if not effect.ordinary and effect.origin is not ckptparse.PathOrigin.SAVER
    ]
