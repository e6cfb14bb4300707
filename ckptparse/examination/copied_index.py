"""Tell whether the index of a checkpoint is that of another one: the same bytes, under its name.

The other checkpoint's data file then has every tensor whole. If this checkpoint is a copy of it
whose data file was damaged, those are its tensors, and most bytes of the two files are equal. If
the index was copied over that of another save, the file is full of other weights: then the index
says nothing of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from itertools import islice

import numpy as np

from ckptparse.dtypes import item_size
from ckptparse.errors import CheckpointError
from ckptparse.examination.payload import Payload
from ckptparse.examination.places import Place, is_telling
from ckptparse.examination.plausibility import has_magnitudes, is_plausible
from ckptparse.examination.readers import DataFiles
from ckptparse.filenames import INDEX_SUFFIX, split_data_path
from ckptparse.files.context import Context
from ckptparse.parallel import PIECE_SIZE

__all__ = ["find_owner", "holds_other_weights"]

_LOOKED_AT = 8
"""Tensors that are compared: of another save all differ."""
_COMPARED = 1 << 20
"""Bytes of each."""
_FEWEST_ELEMENTS = 16
"""Elements that are not zero: of fewer, a small damage changes most."""


def find_owner(path: str, prefix: str, context: Context) -> str | None:
    """Return the prefix of a data file if its index is the same as that of `prefix`, byte for byte.

    None if it is of the same prefix, or its index is another.
    """
    split = split_data_path(path)
    if split is None or split[0] == prefix:
        return None
    try:
        same = _are_equal(split[0] + INDEX_SUFFIX, prefix + INDEX_SUFFIX, context)
    except CheckpointError:
        return None
    return split[0] if same else None


def _are_equal(first: str, second: str, context: Context) -> bool:
    with (
        closing(context.storage.open(first)) as one,
        closing(context.storage.open(second)) as other,
    ):
        return one.size == other.size and all(
            one.read_at(start, min(PIECE_SIZE, one.size - start))
            == other.read_at(start, min(PIECE_SIZE, one.size - start))
            for start in range(0, one.size, PIECE_SIZE)
        )


def holds_other_weights(files: DataFiles, payloads: Iterable[Payload], owner: Place) -> bool:
    """Tell whether a data file holds other weights than its owner's where payloads belong.

    Args:
        files: What opens files.
        payloads: Tensors that fail in the file, and are whole at the owner's.
        owner: Where that is.
    """
    told = (payload for payload in payloads if has_magnitudes(payload) and is_telling(payload))
    votes = [_is_another(files, payload, owner) for payload in islice(told, _LOOKED_AT)]
    return any(votes) and 2 * sum(map(bool, votes)) > len(
        [vote for vote in votes if vote is not None]
    )


def _is_another(files: DataFiles, payload: Payload, owner: Place) -> bool | None:
    """Tell whether other weights lie there; None if there are none that look like weights."""
    width = item_size(payload.data_type) or 1
    size = min(payload.size, _COMPARED) // width * width
    # Bytes may have been put in or lost before it: then its elements begin at another byte.
    for shift in range(width):
        moved = payload.moved(payload.file, shift)
        if moved.offset + size > (files.size(payload.file) or 0) or not is_plausible(files, moved):
            continue
        mine = np.frombuffer(files.read(moved.file, moved.offset, size), f"V{width}")
        there = owner.of(payload)
        theirs = np.frombuffer(files.read(there.file, there.offset, size), f"V{width}")
        filled = mine != np.zeros(1, mine.dtype)
        if np.count_nonzero(filled) >= _FEWEST_ELEMENTS:
            return bool(2 * np.count_nonzero((mine == theirs) & filled) < np.count_nonzero(filled))
    return None
