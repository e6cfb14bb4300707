"""What `inspect_checkpoint` prints: a line for each tensor, values if wanted, and a count."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from functools import partial

from ckptparse.errors import CheckpointError
from ckptparse.files.context import Cache, Context, Store
from ckptparse.files.storage import held_bytes
from ckptparse.limits import DEFAULT_LIMITS, Limits, check_small
from ckptparse.tf.readers import CheckpointReader, Path, begin_call, find_begun

__all__ = ["print_tensors_in_checkpoint_file"]

_READ = 3
"""How many tensors one whose values are printed counts as, beside its elements: 60 µs."""
_ELEMENTS = 16
"""Printed elements that count as one more: 3 µs each."""
_MOST_PRINTED = 1000
"""Elements up to which numpy prints all; of more, some."""


def print_tensors_in_checkpoint_file(
    file_name: Path,
    tensor_name: str,
    all_tensors: bool,  # noqa: FBT001 - TensorFlow's arguments
    all_tensor_names: bool = False,  # noqa: FBT001, FBT002
    count_exclude_pattern: str = "",
    *,
    store: Store = None,
    cache: Cache = None,
    limits: Limits = DEFAULT_LIMITS,
) -> None:
    """Print what a checkpoint holds, as TensorFlow's function of that name does.

    What cannot be read is printed, not raised.

    Args:
        file_name: The checkpoint.
        tensor_name: Only this one, with its values; the empty name lists all.
        all_tensors: All, with their values.
        all_tensor_names: All, without.
        count_exclude_pattern: Names that match this pattern are left out of the count.
        store, cache, limits: As for `ckptparse.open`.
    """
    try:
        begun = begin_call(file_name, store, cache, limits)
        reader = find_begun(file_name, begun, store=store, cache=cache)
        if all_tensors:
            _check_printed(reader, begun[1])
        if all_tensors or all_tensor_names:
            _print_tensors(reader, sorted(reader.get_variable_to_shape_map()), values=all_tensors)
        elif not tensor_name:
            print(reader.debug_string().decode("utf-8", "ignore"))  # noqa: T201
        elif reader.has_tensor(tensor_name):
            _print_tensors(reader, [tensor_name], values=True)
        else:
            print(f"Tensor {tensor_name} not found in checkpoint")  # noqa: T201
            return
        total = _count(reader, count_exclude_pattern)
        print(f"# Total number of params: {total}")  # noqa: T201
    except CheckpointError as error:
        print(error)  # noqa: T201


def _check_printed(reader: CheckpointReader, context: Context) -> None:
    """Make sure that the values of all tensors may be printed.

    Raises:
        LimitError: They are too many.
    """
    sizes = map(math.prod, reader.get_variable_to_shape_map().values())
    count = sum(_READ + min(size, _MOST_PRINTED) // _ELEMENTS for size in sizes)
    what = f"tensors, {_READ} times, and of {_ELEMENTS} elements that are printed"
    held = partial(held_bytes, context.storage, reader.files)
    check_small(context.limits, count, held, what=what)


def _print_tensors(reader: CheckpointReader, names: Sequence[str], *, values: bool) -> None:
    # Each map is made anew when it is asked for.
    shapes, kinds = reader.get_variable_to_shape_map(), reader.get_variable_to_dtype_map()
    for name in names:
        print(f"tensor: {name} ({kinds[name].name}) {shapes[name]}")  # noqa: T201
        if values:
            print(reader.get_tensor(name))  # noqa: T201


def _count(reader: CheckpointReader, excluded: str) -> int:
    """Count the elements of the tensors whose names do not match, and say what is left out."""
    shapes = reader.get_variable_to_shape_map()
    if not excluded:
        return sum(map(math.prod, shapes.values()))
    pattern = re.compile(excluded)
    left_out = {name: math.prod(shape) for name, shape in shapes.items() if pattern.search(name)}
    print(  # noqa: T201
        f"# Excluding {len(left_out)} tensors ({sum(left_out.values())} params) that match "
        f"{excluded} when counting."
    )
    return sum(math.prod(shape) for name, shape in shapes.items() if name not in left_out)
