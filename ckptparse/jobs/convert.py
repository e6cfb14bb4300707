"""`convert`: tensors from whatever holds them to whatever is asked for, one after another."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from typing import Any, Literal, get_args

from ckptparse.backend import OBJECT_GRAPH_KEY
from ckptparse.checkpoint import Naming, Patterns
from ckptparse.dtypes import element_name
from ckptparse.errors import UnsupportedError
from ckptparse.files.context import Cache, Progress, Store, begin_with, find_target
from ckptparse.files.placing import check_absent
from ckptparse.jobs.conversion import Conversion, ConversionRow, StoredTensor, TargetFormat
from ckptparse.jobs.derived import RenamedTensor
from ckptparse.jobs.object_graphs import change_keys
from ckptparse.jobs.opening import (
    Opened,
    TensorsFrom,
    describe_source,
    open_tensors,
)
from ckptparse.jobs.plan import Ema, Planned, Wishes, find_warnings, plan
from ckptparse.jobs.rules import Rename, Split, make_rules
from ckptparse.limits import DEFAULT_LIMITS, Limits
from ckptparse.sinks.options import SinkOptions
from ckptparse.tensor_like import TensorLike
from ckptparse.text import escape

__all__ = ["convert", "format_of_path", "sink_of"]

_SUFFIXES: dict[str, TargetFormat] = {
    ".safetensors": "safetensors",
    ".npz": "npz",
    ".h5": "hdf5",
    ".hdf5": "hdf5",
    ".ckpt": "v2",
}
_FOREIGN = (".pt", ".pth", ".bin", ".onnx", ".keras", ".tflite", ".pb", ".npy", ".gguf", ".zip")
_WEIGHTS: dict[str, int] = {"npz": 2, "npy": 4, "hdf5": 2}
"""How many tensors one counts as, in a format that has a member, a file or a dataset for each."""
_Check = Callable[[Sequence[TensorLike], SinkOptions], None]
_Write = Callable[[str, Sequence[TensorLike], SinkOptions], tuple[str, ...]]


def convert(
    src: TensorsFrom,
    dst: str | os.PathLike[str],
    *,
    format: TargetFormat | None = None,
    names: Sequence[str] | None = None,
    include: Patterns = None,
    exclude: Patterns = None,
    naming: Naming = "checkpoint",
    rename: Rename = None,
    dtype: Any = None,
    layout: Literal["torch"] | None = None,
    split: Split = None,
    drop_slots: bool = False,
    ema: Ema | None = None,
    max_shard_size: int | None = None,
    store_bits: bool = False,
    object_graph: Literal["make"] | None = None,
    update_state: bool = False,
    overwrite: bool = False,
    dry_run: bool = False,
    executor: Executor | None = None,
    progress: Progress | None = None,
    store: Store = None,
    cache: Cache = None,
    target_store: Store = None,
    limits: Limits = DEFAULT_LIMITS,
) -> Conversion:
    """Convert tensors from whatever holds them to another format, under other names if asked.

    One tensor after another is read, checked and written: memory is 64 MiB and the largest tensor.
    The target appears when it is whole. Its metadata, where the format has such, says where it came
    from. What numpy's files and HDF5 lack (bfloat16, float8, quantized kinds, odd strings) they
    hold in types of named fields, which `convert` reads back as the same kind.

    Args:
        src: Whatever `open` takes, an open `Checkpoint`, a `Recovery`, any mapping of arrays; a
            `.safetensors` file or its index, a `.npz`, a directory of `.npy` files, HDF5, Keras's
            `.weights.h5` and `.keras`.
        dst: Where to. Its ending says the format: `.safetensors`, `.npz`, `.h5`, a slash for a
            directory of `.npy` files; any name without one is the prefix of a V2 checkpoint.
        format: `"v2"`, `"safetensors"`, `"npz"`, `"npy"` or `"hdf5"`, whatever the ending.
        names: Exactly these.
        include, exclude: Of those, what matches one glob, and what does not match another.
        naming: As for `open`: names, patterns and rules are in it.
        rename: A function; a mapping old -> new (None drops); pairs of a regular expression and its
            replacement; a rule file in TOML, or the name of one that comes along (`"bert"`); or
            what undoes another conversion: `Conversion.reverse()`.
        dtype: What floats become: `"bfloat16"`, `numpy.float16`. A value that is too large for
            that is an error; nothing else is converted.
        layout: `"torch"`: kernels are turned as PyTorch has them, by the ops that use them if a
            graph is there (a `.meta` beside the checkpoint, the SavedModel it belongs to, a frozen
            graph itself), else by name and rank. The table says for each what was done.
        split: Tensors to cut along their last axis: a part of their names, and into how many equal
            parts, or under which names: `{"qkv": ["query", "key", "value"]}`.
        drop_slots: Whether what optimizers keep is left out, and moving averages, unless `ema`
            wants them.
        ema: `"prefer"`: a variable that has a moving average gets its values; `"only"`: all others
            are left out as well; `"drop"`: averages are left out.
        max_shard_size: In bytes: what is larger is written in parts, in the formats that have such.
            Safetensors are named as Hugging Face names them, beside an index.
        store_bits: Whether safetensors hold what they lack as integers of the same bytes, which the
            metadata tells; else such kinds are refused.
        object_graph: For a V2 checkpoint: `"make"` makes one of the names, which are then paths of
            objects; see `write`. Else the one of the source is taken over, less what was dropped.
        update_state: For a V2 checkpoint: whether the directory's state file then names it.
        overwrite: Whether what is there is replaced.
        dry_run: Whether nothing is written: the answer is the same.
        executor: Spreads the work on tensors that are changed; the caller writes.
        progress: Told how many bytes are written, and how many there are.
        store: Where the source lies, as for `ckptparse.open`.
        cache: As for `open`.
        target_store: Where the target lies. None: on this machine, or where the URL leads that it
            is. Elsewhere than on this machine, files are sent when all are whole.
        limits: Bounds on what the source may ask for.

    Returns:
        What became of every tensor; `str()` makes a table of it.

    Raises:
        OutputExistsError: Something is there already, and `overwrite` is false.
        TensorNotFoundError: One of `names` is not there, or none is chosen by `include` and
            `exclude`.
        UnsupportedError: The target cannot hold a kind, two tensors would have one name, a value
            is too large for `dtype`, or no tensor is of the conversion that `rename` is to undo.
            Nothing is written then.
        DataLossError: The source is damaged. Nothing is written then.
    """
    target, storage = find_target(dst, target_store)
    chosen = format_of_path(target, format)
    source, context = begin_with(src, store=store, cache=cache, limits=limits, progress=progress)
    wishes = Wishes(
        names=names,
        include=include,
        exclude=exclude,
        dtype=dtype,
        layout=layout,
        drop_slots=drop_slots,
        ema=ema,
        weight=_WEIGHTS.get(chosen, 1),
    )
    if object_graph not in (None, "make"):
        raise ValueError(f"object_graph is None or 'make', not {object_graph!r}")
    rules = make_rules(rename, split, limits)
    with open_tensors(source, context, naming=naming) as opened:
        planned = plan(opened, rules, wishes)
        options = SinkOptions(
            overwrite=overwrite,
            max_shard_size=max_shard_size,
            store_bits=store_bits,
            metadata=_metadata(opened, layout or rules.layout),
            progress=progress,
            storage=storage,
        )
        if chosen == "v2":
            made = _stored(opened, planned, executor, make=object_graph == "make")
            files = _write_v2(target, made, options, dry_run=dry_run, update_state=update_state)
        else:
            tensors = [one.tensor for one in planned if one.tensor is not None]
            if executor is not None:
                tensors = _ahead(opened, tensors, chosen, executor)
            files = _write(chosen, target, tensors, options, dry_run=dry_run)
        rows = tuple(_row(one) for one in planned)
        described = describe_source(opened)
        warnings = tuple(find_warnings(opened, rules, planned, target))
    return Conversion(described, target, chosen, rows, files, dry_run, warnings)


def format_of_path(target: str, wanted: str | None) -> TargetFormat:
    """Return the format that is wanted, or that a path's ending says.

    Raises:
        UnsupportedError: It ends as a format does that is not written here.
        ValueError: The format that is wanted is none.
    """
    for known in get_args(TargetFormat):
        if wanted == known:
            found: TargetFormat = known
            return found
    if wanted is not None:
        raise ValueError(f"format is one of {get_args(TargetFormat)}, not {wanted!r}")
    if target.endswith("/"):
        return "npy"
    for suffix, format_of_suffix in _SUFFIXES.items():
        if target.endswith(suffix):
            return format_of_suffix
    if target.endswith(_FOREIGN):
        raise UnsupportedError(
            f"ckptparse writes no format with this ending: {target!r}",
            hint="Choose a format: format='v2', 'safetensors', 'npz', 'npy' or 'hdf5'. PyTorch "
            "loads .safetensors, by safetensors.torch.load_file",
        )
    return "v2"


def _metadata(opened: Opened, layout: str | None) -> dict[str, str]:
    """Return what the target says of where it came from."""
    # Libraries that load weights ask whose layout they have: `format` is their word for it.
    said = {"format": "pt" if layout == "torch" else "tf", "source_format": opened.format}
    if opened.path is not None:
        said["source"] = escape(opened.path)
    kept = {key: value for key, value in opened.metadata.items() if key not in said}
    return {**kept, **said, "written_by": "ckptparse"}


def _row(planned: Planned) -> ConversionRow:
    source, made = planned.source, planned.tensor
    stored = StoredTensor(planned.stored, element_name(source.data_type), source.shape)
    kept = made is None or (isinstance(made, RenamedTensor) and made.original is source)
    if made is None or kept:
        dtype, shape, nbytes = stored.dtype, stored.shape, source.nbytes
    else:
        dtype, shape, nbytes = element_name(made.data_type), made.shape, made.nbytes
    return ConversionRow(
        planned.old,
        None if made is None else made.name,
        dtype,
        shape,
        nbytes,
        planned.done,
        planned.dropped,
        planned.axes,
        stored,
        planned.gates,
    )


def _write(
    format: TargetFormat,
    target: str,
    tensors: Sequence[TensorLike],
    options: SinkOptions,
    *,
    dry_run: bool,
) -> tuple[str, ...]:
    check, write = sink_of(format)
    check(tensors, options)
    place = target.rstrip("/") if format == "npy" else target
    if not options.overwrite:
        check_absent(place, options.storage)
    if dry_run:
        return ()
    return write(place, tensors, options)


def _ahead(
    opened: Opened, tensors: list[TensorLike], format: TargetFormat, executor: Executor
) -> list[TensorLike]:
    """Return tensors in the order they are written, to be worked out ahead."""
    from ckptparse.jobs.ahead import work_ahead

    if format == "safetensors":
        from ckptparse.sinks.safetensors import in_order

        tensors = in_order(tensors)
    return work_ahead(tensors, executor, opened)


def sink_of(format: TargetFormat) -> tuple[_Check, _Write]:
    """Return what refuses tensors that a format cannot hold, and what writes it."""
    if format == "safetensors":
        from ckptparse.sinks.safetensors import check_safetensors, write_safetensors

        return check_safetensors, write_safetensors
    if format == "hdf5":
        from ckptparse.sinks.hdf5 import check_hdf5, write_hdf5

        return check_hdf5, write_hdf5
    from ckptparse.sinks.npy import check_npy, write_npy, write_npz

    return check_npy, write_npz if format == "npz" else write_npy


def _stored(
    opened: Opened, planned: Sequence[Planned], executor: Executor | None, *, make: bool
) -> Iterable[tuple[str, Any]]:
    """Return what a V2 checkpoint is made of: names and tensors, and the object graph if any."""
    from ckptparse.sinks.bundle import with_graph

    tensors = [one.tensor for one in planned if one.tensor is not None]
    if executor is not None:
        tensors = _ahead(opened, tensors, "v2", executor)
    stored = {tensor.name: tensor for tensor in tensors}
    if make:
        return with_graph(stored, "make")
    graph = _graph_of(opened, planned)
    if graph is None or OBJECT_GRAPH_KEY in stored:
        return stored.items()
    return with_graph(stored, graph)


def _write_v2(
    target: str,
    stored: Iterable[tuple[str, Any]],
    options: SinkOptions,
    *,
    dry_run: bool,
    update_state: bool,
) -> tuple[str, ...]:
    from ckptparse.sinks.bundle import check_free, write_bundle

    check_free(target, options)
    if dry_run:
        return ()
    return write_bundle(target, stored, options, update_state=update_state)


def _graph_of(opened: Opened, planned: Sequence[Planned]) -> bytes | None:
    """Return the object graph as it is after the conversion, where names are its keys."""
    graph = opened.object_graph
    if graph is None or any(key != tensor.name for key, tensor in opened.tensors.items()):
        return None
    kept = {one.old: one.tensor.name for one in planned if one.tensor is not None}
    if len(kept) < sum(one.tensor is not None for one in planned):
        return None  # What was cut into parts is no object's variable any more.
    if all(kept.get(key) == key for key in opened.tensors):
        return graph.serialized
    return change_keys(graph, kept, opened.tensors)
