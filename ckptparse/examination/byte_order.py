"""Tell the byte order of data files if the header of their index is lost.

Weights have usual magnitudes in their own byte order, and not in the other. That of 64 different
ones 19 in 20 are usual in the wrong order has a chance of less than 1 in 2^100 (float32). So they
prove it if their checksum agrees.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import islice

from ckptparse.examination.check import fits
from ckptparse.examination.index_view import IndexView
from ckptparse.examination.payload import ListedTensor, Payload
from ckptparse.examination.plausibility import has_magnitudes, told_order
from ckptparse.examination.readers import DataFiles
from ckptparse.examination.row_mapping import RowMapping

__all__ = ["find_order", "turn"]

_MOST_ASKED = 16
"""Tensors whose elements are looked at in both orders."""


def find_order(files: DataFiles, payloads: Iterable[Payload]) -> bool | None:
    """Tell whether data files are big-endian by the weights in them; None if nothing tells.

    Of payloads with a checksum those tell that have it: one byte further on, weights look as in the
    other order.
    """
    told = set()
    for one in islice(filter(has_magnitudes, payloads), _MOST_ASKED):
        order = told_order(files, one)
        if order is not None and (one.crc32c is None or fits(files, one)):
            told.add(order)
    return told.pop() if len(told) == 1 else None


def turn(view: IndexView, *, big_endian: bool) -> None:
    """Give all payloads of an index a byte order; those that are rows have elements of one byte."""

    def is_right(payload: Payload | None) -> bool:
        return payload is None or payload.big_endian == big_endian

    def turned(payload: Payload | None) -> Payload | None:
        return None if payload is None else replace(payload, big_endian=big_endian)

    def turned_tensor(one: ListedTensor) -> ListedTensor:
        if is_right(one.payload) and all(is_right(payload) for _, payload in one.slices):
            return one
        pieces = tuple((piece, turned(payload)) for piece, payload in one.slices)
        return replace(one, payload=turned(one.payload), slices=pieces)

    held = view.tensors.held if isinstance(view.tensors, RowMapping) else view.tensors
    held.update({name: turned_tensor(one) for name, one in held.items()})
    view.orphans[:] = [
        (name, piece, replace(payload, big_endian=big_endian))
        for name, piece, payload in view.orphans
    ]
