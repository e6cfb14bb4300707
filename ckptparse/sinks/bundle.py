"""V2 checkpoints, written whole or not at all.

What is being written has temporary names in the same directory, those of TensorFlow's own writer
(`P.index.tempstateN`), so that `recover` knows what a killed process has left. The index takes its
name last. A checkpoint that is replaced is renamed aside first: in between `read` finds no index,
and never one beside data that belongs to another.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, Literal

from ckptparse.backend import OBJECT_GRAPH_KEY, Origin, OrphanOrigin
from ckptparse.backend.small import Sized
from ckptparse.bundle.content import content_of
from ckptparse.bundle.payload import SlicedPayload
from ckptparse.bundle.writer import BundleWriter, SmallTensor
from ckptparse.dtypes import is_numeric
from ckptparse.errors import OutputError, OutputExistsError, located
from ckptparse.filenames import INDEX_SUFFIX, STATE_FILE_NAME, shard_path, split_data_path
from ckptparse.files.context import Context, Store, find_storage, find_target
from ckptparse.files.placing import OutputFiles, Suffixes, place_file, place_files
from ckptparse.files.sending import check_writable
from ckptparse.files.storage import Storage, held_bytes
from ckptparse.graph.object_graph import ObjectGraph
from ckptparse.graph.object_graph_making import make_object_graph
from ckptparse.graph.state import add_to_state
from ckptparse.limits import check_small, count_named
from ckptparse.sinks.options import Meter, SinkOptions, plan_parts
from ckptparse.sinks.small import Payload, iter_payloads
from ckptparse.slices import TensorSlice
from ckptparse.tensor import ReadOptions, Tensor
from ckptparse.tensor_like import TensorLike, as_tensor, check_names

__all__ = ["check_free", "find_files", "with_graph", "write", "write_bundle"]

_TAKEN_AS = 2
"""How many tensors one of an open checkpoint counts as: it takes 60 µs."""
GraphChoice = ObjectGraph | bytes | Literal["make"] | None
"""The object graph of a checkpoint that is written: another's, its bytes, or made of the names."""
"""The object graph to write: one that was read, its bytes, one made of the names, or none."""


@dataclass(frozen=True, slots=True)
class _Piece:
    """What is written at once: a tensor, or one slice of it."""

    name: str
    tensor: TensorLike
    """The tensor, or the slice."""
    shape: tuple[int, ...]
    """Of the whole."""
    tensor_slice: TensorSlice | None = None

    def size(self) -> int:
        """Return how many bytes it takes in a data file."""
        if is_numeric(self.tensor.data_type):
            return self.tensor.nbytes
        return content_of(self.tensor).size


_Row = tuple[_Piece, int, Sized, Payload | None]
"""What is written, into which data file, how large it is, and its bytes if it is small."""


def write(
    prefix: str | os.PathLike[str],
    tensors: Mapping[str, Any],
    *,
    object_graph: GraphChoice = None,
    max_shard_size: int | None = None,
    keep_slices: bool = False,
    overwrite: bool = False,
    update_state: bool = False,
    store: Store = None,
) -> str:
    """Write a V2 checkpoint, which TensorFlow restores.

    The bytes are those that TensorFlow 2.21 writes of the same tensors, in the same order and data
    files; whatever the machine and the source, little-endian. Memory: the largest tensor; those of
    a checkpoint that lie in one piece are streamed, and take 3 MiB.

    The files appear together when all is written and on the disk. A process that is killed leaves
    what was there before, whole, or the new checkpoint, whole, and perhaps temporary files
    (`….tempstateN`) that nothing takes for a checkpoint. If an old checkpoint is replaced there is
    a short time, of a few renames, in which neither can be read; then `recover` gives one of them.

    A URL, or `store`, leads to a bucket or another file system. There the files are first written
    to temporary files of this machine, and sent when all are whole, in large parts: data files,
    then the index. An old checkpoint that is replaced loses its index first.

    Args:
        prefix: The path without `.index`. Its directory exists.
        tensors: What to store by name, in the order in which the data lies: arrays, `Tensor`s of an
            open checkpoint, `RecoveredTensor`s, or whatever numpy makes an array of. Text and bytes
            are string tensors. A `Tensor` keeps its kind, a quantized one too.
        object_graph: For an object-based checkpoint, as `tf.train.Checkpoint` restores it: the
            object graph of another, its bytes, or `"make"`, which makes one of the names. Then a
            name is a path of objects (`model/dense/kernel`), or the key that TensorFlow gives it.
        max_shard_size: In bytes: a data file that would be larger is followed by another. A tensor
            is never cut; a larger one has a file of its own. None: one data file.
        keep_slices: Whether a tensor stored in slices stays so; else it is put together.
        overwrite: Whether a checkpoint that is there is replaced.
        update_state: Whether the state file `checkpoint` of the directory then names this one as
            its newest. What it lists stays.
        store: Where the prefix leads, as for `ckptparse.open`; a mapping must be one that takes
            names.

    Returns:
        The prefix.

    Raises:
        OutputExistsError: A checkpoint is there already, and `overwrite` is false.
        CheckpointNotFoundError: The directory is not there.
        PermissionDeniedError: Nobody may write there.
        OutputError: The disk is full, or the system refuses for another reason.
        DataLossError: A tensor of a checkpoint is damaged. Nothing is written then.
        UnsupportedError: A tensor has elements or a name that no checkpoint holds, or some are
            missing.
        LimitError: They are tensors of an open checkpoint, and twice their number is more than
            `Limits.small_tensors`, and one for each 512 bytes of its files.
        ValueError: `max_shard_size` is below 1.
        TypeError: `tensors` is no mapping, or one of its names no text.
    """
    check_names(tensors)
    _check_taken(tensors)
    path, storage = find_target(prefix, store)
    options = SinkOptions(overwrite=overwrite, max_shard_size=max_shard_size, storage=storage)
    # Of a recovery, a file that was converted is so once.
    with getattr(tensors, "keep_open", nullcontext)():
        stored = with_graph(tensors, object_graph)
        write_bundle(path, stored, options, keep_slices=keep_slices, update_state=update_state)
    return path


def _check_taken(tensors: Mapping[str, Any]) -> None:
    """Make sure that so many tensors of an open checkpoint may be written, one by one.

    Raises:
        LimitError: They may not.
    """
    first = next(iter(tensors.values()), None)
    origin = first.options.origin if isinstance(first, Tensor) else None
    if not isinstance(origin, Origin):
        return
    context, files = origin.opener.context, origin.backend.files
    check_small(
        context.limits,
        count_named(tensors),
        lambda: held_bytes(context.storage, files),
        weight=_TAKEN_AS,
        what="tensors of a checkpoint, and of 256 characters of their names",
    )


def write_bundle(
    path: str,
    tensors: Iterable[tuple[str, Any]],
    options: SinkOptions,
    *,
    keep_slices: bool = False,
    update_state: bool = False,
) -> tuple[str, ...]:
    """Write the files of a prefix; return their paths.

    Raises:
        CheckpointError: As for `write`.
    """
    pieces = list(_iter_pieces(tensors, keep_slices=keep_slices))
    place, storage = find_storage(path, options.storage)
    former = check_free(path, options)
    shards = _plan_shards(pieces, options.max_shard_size)
    meter = options.meter(piece.tensor for piece in pieces)
    retired, suffixes = former[::-1], _suffixes()
    with place_files(
        overwrite=options.overwrite, retired=retired, suffixes=suffixes, storage=storage
    ) as files:
        count = _write_pieces(files, place, pieces, shards, meter)
    if update_state:
        _update_state(storage, place)
    return (*(shard_path(path, n, count) for n in range(count)), path + INDEX_SUFFIX)


def check_free(path: str, options: SinkOptions) -> list[str]:
    """Return the files that are to be replaced, of a checkpoint that is there already.

    Raises:
        OutputExistsError: There are some, and nobody asked to replace them.
        OutputError: The prefix is empty.
    """
    if not path:
        raise OutputError(
            "Expected a prefix to write to, found an empty name",
            number=errno.EINVAL,
            hint="Name one, such as out/model.ckpt",
        )
    place, storage = find_storage(path, options.storage)
    check_writable(storage, place)
    former = find_files(storage, place)
    if former and not options.overwrite:
        raise OutputExistsError(
            "A checkpoint exists there already, and it is not replaced unless you ask for that",
            path=former[-1],
            hint="Choose another name, or pass overwrite=True",
        )
    return former


def find_files(storage: Storage, prefix: str) -> list[str]:
    """Return the data files that a prefix has, of any number of shards, then its index."""
    directory, base = storage.split(prefix)
    found = []
    for name in storage.list(directory):
        parts = split_data_path(name)
        if parts is not None and parts[0] == base:
            found.append(storage.join(directory, name))
    index = prefix + INDEX_SUFFIX
    return [*found, index] if storage.stat(index) is not None else found


def _suffixes() -> Suffixes:
    """Return endings as TensorFlow's writer gives them, one for the new files, one for the old."""
    import secrets

    return Suffixes(f".tempstate{secrets.randbits(64)}", f".tempstate{secrets.randbits(64)}")


def with_graph(tensors: Mapping[str, Any], choice: GraphChoice) -> Iterator[tuple[str, Any]]:
    """Iterate over names and tensors as they are stored, the object graph last."""
    if choice is None:
        yield from tensors.items()
        return
    if OBJECT_GRAPH_KEY in tensors:
        raise ValueError("The object graph is given twice: among the tensors, and as object_graph")
    if choice == "make":
        keys, serialized = make_object_graph(tensors)
        yield from ((keys[name], value) for name, value in tensors.items())
    else:
        serialized = choice.serialized if isinstance(choice, ObjectGraph) else choice
        yield from tensors.items()
    yield OBJECT_GRAPH_KEY, serialized


def _iter_pieces(tensors: Iterable[tuple[str, Any]], *, keep_slices: bool) -> Iterator[_Piece]:
    for name, value in tensors:
        tensor = as_tensor(name, value)
        payload = tensor.payload if isinstance(tensor, Tensor) else None
        if (
            not keep_slices
            or not isinstance(tensor, Tensor)
            or not isinstance(payload, SlicedPayload)
        ):
            yield _Piece(name, tensor, tensor.shape)
            continue
        for piece, part in payload.parts():
            own = tuple(map(len, piece.resolve(tensor.shape)))
            options = _options_of_slice(tensor, piece)
            slice_tensor = Tensor(name, own, tensor.data_type, part, options)
            yield _Piece(name, slice_tensor, tensor.shape, piece)


def _options_of_slice(tensor: Tensor, piece: TensorSlice) -> ReadOptions:
    """Return how a slice is read: as its tensor is, which has the same name in the checkpoint."""
    options = tensor.options
    if isinstance(options.origin, Origin):
        return replace(options, origin=OrphanOrigin(options.origin, piece))
    return options


def _plan_shards(pieces: Sequence[_Piece], most: int | None) -> list[int]:
    """Return the number of each piece's data file."""
    if most is None:
        return [0] * len(pieces)
    sizes = []
    for piece in pieces:
        with located(tensor=piece.name):
            sizes.append(piece.size())
    return plan_parts(sizes, most)


def _write_pieces(
    files: OutputFiles, prefix: str, pieces: Sequence[_Piece], shards: Sequence[int], meter: Meter
) -> int:
    """Write all files; return how many data files there are."""
    count = shards[-1] + 1 if shards else 1
    writer = BundleWriter(files, prefix, num_shards=count)
    try:
        rows = iter(zip(pieces, shards, strict=True))
        for batch in iter_payloads(piece.tensor for piece in pieces):
            own = [(*next(rows), *one) for one in batch]
            for (shard, is_small), run in groupby(own, key=_how_written):
                if is_small:
                    _write_small(writer, list(run), shard, meter)
                    continue
                for piece, _, one, _ in run:
                    _write_piece(writer, piece, shard)
                    meter.advance(one.nbytes)
        writer.finish()
    finally:
        writer.close()
    return count


def _how_written(row: _Row) -> tuple[int, bool]:
    piece, shard, _, payload = row
    return shard, payload is not None and piece.tensor_slice is None


def _write_small(writer: BundleWriter, rows: Sequence[_Row], shard: int, meter: Meter) -> None:
    """Write whole tensors whose bytes are in memory."""
    writer.add_small(
        [
            SmallTensor(piece.name, piece.tensor.data_type, piece.shape, *payload)
            for piece, _, _, payload in rows
            if payload is not None
        ],
        shard=shard,
    )
    for _, _, one, _ in rows:
        meter.advance(one.nbytes)


def _write_piece(writer: BundleWriter, piece: _Piece, shard: int) -> None:
    kind, shape = piece.tensor.data_type, piece.shape
    with located(tensor=piece.name):
        content = content_of(piece.tensor)
    if piece.tensor_slice is None:
        writer.add(piece.name, kind, shape, content, shard=shard)
    else:
        where = piece.tensor_slice
        writer.add_slice(piece.name, kind, shape, where, content, shard=shard)


def _update_state(storage: Storage, prefix: str) -> None:
    directory, name = storage.split(prefix)
    path = storage.join(directory, STATE_FILE_NAME)
    data = b""
    if storage.stat(path) is not None:
        what = "The size of the state file"
        data = Context(storage=storage).read_whole(path, "message_bytes", what)
    text = add_to_state(data, name, path=path, context=Context(storage=storage))
    with place_file(path, overwrite=True, storage=storage) as file:
        file.write(text.encode("utf-8"))
