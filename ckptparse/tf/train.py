"""`tf.train`, as far as it reads checkpoints: names, arguments and results are TensorFlow's.

    reader = tf.train.load_checkpoint("model/")          get_tensor, has_tensor, the maps
    tf.train.list_variables("model/my_model")            [(name, [sizes]), ...], sorted
    tf.train.load_variable("model/my_model", "w:0")      numpy array, numpy scalar, or bytes

Paths may be all that `ckptparse.open` takes: an index, a data file, a SavedModel, a URL. `store`,
`cache` and `limits`, which TensorFlow lacks, are those of `ckptparse.open`. Errors are those of
`tf.errors`, and ours at the same time.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn, cast

from ckptparse.errors import CheckpointNotFoundError
from ckptparse.filenames import INDEX_SUFFIX
from ckptparse.files.context import Cache, Place, Store
from ckptparse.inventory import listed
from ckptparse.inventory.folders import Folders
from ckptparse.inventory.legacy import match_pattern
from ckptparse.limits import DEFAULT_LIMITS, Limits
from ckptparse.proto.checkpoint_state_pb2 import CheckpointState
from ckptparse.tf.errors import translated
from ckptparse.tf.missing import no_attribute
from ckptparse.tf.readers import CheckpointReader, Path, begin_call, find_begun, find_reader

__all__ = [
    "CheckpointReader",
    "CheckpointState",
    "NewCheckpointReader",
    "checkpoint_exists",
    "checkpoints_iterator",
    "get_checkpoint_mtimes",
    "get_checkpoint_state",
    "latest_checkpoint",
    "list_variables",
    "load_checkpoint",
    "load_variable",
    "wait_for_new_checkpoint",
]


def load_checkpoint(
    ckpt_dir_or_file: Path,
    *,
    store: Store = None,
    cache: Cache = None,
    limits: Limits = DEFAULT_LIMITS,
) -> CheckpointReader:
    """Return a reader of a checkpoint, or of the newest one of a directory.

    Raises:
        NotFoundError: Nothing is there; of a directory without checkpoints it is a ValueError too.
        DataLossError: It is damaged, or no checkpoint.
    """
    path, context = begun = begin_call(ckpt_dir_or_file, store, cache, limits)
    with translated():
        found = context.storage.stat(path)
    if found is None or found.kind != "directory":
        return find_begun(ckpt_dir_or_file, begun, store=store, cache=cache)
    with translated(ValueError):
        try:
            return find_begun(ckpt_dir_or_file, begun, store=store, cache=cache)
        except CheckpointNotFoundError as error:
            raise CheckpointNotFoundError(
                f"Couldn't find 'checkpoint' file or checkpoints in given directory {path}",
                path=error.path,
                hint=error.hint,
            ) from error


def NewCheckpointReader(  # noqa: N802 - TensorFlow's name
    filepattern: Path,
    *,
    store: Store = None,
    cache: Cache = None,
    limits: Limits = DEFAULT_LIMITS,
) -> CheckpointReader:
    """Return a reader of a checkpoint; errors are those of `load_checkpoint`."""
    return find_reader(filepattern, store=store, cache=cache, limits=limits)


def list_variables(
    ckpt_dir_or_file: Path,
    *,
    store: Store = None,
    cache: Cache = None,
    limits: Limits = DEFAULT_LIMITS,
) -> list[tuple[str, list[int]]]:
    """List names and shapes, sorted by name; errors are those of `load_checkpoint`."""
    reader = load_checkpoint(ckpt_dir_or_file, store=store, cache=cache, limits=limits)
    return sorted(reader.get_variable_to_shape_map().items())


def load_variable(
    ckpt_dir_or_file: Path,
    name: str,
    *,
    store: Store = None,
    cache: Cache = None,
    limits: Limits = DEFAULT_LIMITS,
) -> Any:
    """Read one tensor; an `:0` at the end of its name is left out.

    Returns:
        A new numpy array; of a scalar numpy's scalar, of a scalar string its bytes.

    Raises:
        NotFoundError: There is no such checkpoint, or no such tensor in it.
        DataLossError: Its bytes are damaged, or its file is.
    """
    reader = load_checkpoint(ckpt_dir_or_file, store=store, cache=cache, limits=limits)
    return reader.get_tensor(name.removesuffix(":0"))


def latest_checkpoint(
    checkpoint_dir: Path,
    latest_filename: str | None = None,
    *,
    store: Store = None,
    cache: Cache = None,
    limits: Limits = DEFAULT_LIMITS,
) -> str | None:
    """Return the newest checkpoint that a directory's state file lists and that exists, or None.

    A path that does not exist is looked for in the directory itself, so that a moved one works.
    """
    with translated():
        return listed.latest_checkpoint(
            cast("Place", checkpoint_dir), latest_filename, store=store, cache=cache, limits=limits
        )


def get_checkpoint_state(
    checkpoint_dir: Path,
    latest_filename: str | None = None,
    *,
    store: Store = None,
    cache: Cache = None,
    limits: Limits = DEFAULT_LIMITS,
) -> CheckpointState | None:
    """Return what a directory's state file lists, paths joined to the directory; None without one.

    The result has the fields of TensorFlow's message: `model_checkpoint_path`,
    `all_model_checkpoint_paths`, `all_model_checkpoint_timestamps`, `last_preserved_timestamp`.
    """
    with translated():
        found = listed.checkpoint_state(
            cast("Place", checkpoint_dir), latest_filename, store=store, cache=cache, limits=limits
        )
    if found is None:
        return None
    return CheckpointState(
        model_checkpoint_path=found.latest,
        all_model_checkpoint_paths=found.paths,
        all_model_checkpoint_timestamps=found.timestamps,
        last_preserved_timestamp=found.last_preserved,
    )


def checkpoint_exists(
    checkpoint_prefix: Path,
    *,
    store: Store = None,
    cache: Cache = None,
    limits: Limits = DEFAULT_LIMITS,
) -> bool:
    """Tell whether a checkpoint of that prefix exists, V2 or V1."""
    path, context = begin_call(checkpoint_prefix, store, cache, limits)
    with translated():
        return listed.checkpoint_exists(path, Folders(context))


def get_checkpoint_mtimes(
    checkpoint_prefixes: Sequence[Path],
    *,
    store: Store = None,
    cache: Cache = None,
    limits: Limits = DEFAULT_LIMITS,
) -> list[float]:
    """Return the time of each checkpoint that exists, in whole seconds since 1970."""
    found: list[float] = []
    for named in checkpoint_prefixes:
        prefix, context = begin_call(named, store, cache, limits)
        with translated():
            files = (prefix + INDEX_SUFFIX, prefix, *match_pattern(prefix, Folders(context)))
            seen = [context.storage.stat(path) for path in files]
        times = [_seconds(one.identity) for one in seen if one is not None and one.kind == "file"]
        found += times[:1]
    return found


def _seconds(identity: object) -> float:
    """Take the time from what a file system says of a file."""
    nanoseconds = identity[0] if isinstance(identity, tuple) else None
    return float(nanoseconds // 1_000_000_000) if isinstance(nanoseconds, int) else 0.0


def wait_for_new_checkpoint(
    checkpoint_dir: Path,
    last_checkpoint: str | None = None,
    seconds_to_sleep: float = 1,
    timeout: float | None = None,
    *,
    store: Store = None,
    cache: Cache = None,
    limits: Limits = DEFAULT_LIMITS,
) -> str | None:
    """Wait until a directory has another newest checkpoint.

    Args:
        checkpoint_dir: The directory.
        last_checkpoint: The one that is known already.
        seconds_to_sleep: How long to wait between two looks.
        timeout: Seconds after which None is returned; None waits for ever.
        store, cache, limits: As for `ckptparse.open`.
    """
    stop = None if timeout is None else time.monotonic() + timeout
    while True:
        with warnings.catch_warnings():
            # A directory that is being written is not always whole.
            warnings.simplefilter("ignore", UserWarning)
            found = latest_checkpoint(checkpoint_dir, store=store, cache=cache, limits=limits)
        if found is not None and found != last_checkpoint:
            return found
        if stop is not None and time.monotonic() + seconds_to_sleep > stop:
            return None
        time.sleep(seconds_to_sleep)


def checkpoints_iterator(
    checkpoint_dir: Path,
    min_interval_secs: float = 0,
    timeout: float | None = None,
    timeout_fn: Callable[[], bool] | None = None,
    *,
    store: Store = None,
    cache: Cache = None,
    limits: Limits = DEFAULT_LIMITS,
) -> Iterator[str]:
    """Iterate over a directory's newest checkpoint, each time that there is another.

    Args:
        checkpoint_dir: The directory.
        min_interval_secs: Seconds between two of them at the least.
        timeout: Seconds to wait for the next; None waits for ever.
        timeout_fn: Called then: the iteration ends if it returns a true value, or if it is None.
        store, cache, limits: As for `ckptparse.open`.
    """
    last: str | None = None
    while True:
        found = wait_for_new_checkpoint(
            checkpoint_dir, last, timeout=timeout, store=store, cache=cache, limits=limits
        )
        if found is None:
            if timeout_fn is None or timeout_fn():
                return
            continue
        began = time.monotonic()
        last = found
        yield found
        rest = began + min_interval_secs - time.monotonic()
        if rest > 0:
            time.sleep(rest)


def __getattr__(name: str) -> NoReturn:
    raise no_attribute(__name__, name)
