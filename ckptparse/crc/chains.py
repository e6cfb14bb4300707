"""Registers at the ends of runs of bytes that follow each other, from the checksum of each run."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ckptparse.crc.field import ONE, multiply, multiply_each, multiply_table

__all__ = ["chained"]

Words = npt.NDArray[np.uint32]


def chained(values: Words, factor: int, register: int) -> Words:
    """Return r[0], r[1] ..., with r[n] = r[n - 1] · factor + values[n], beginning with `register`.

    Many lanes are computed together. A first pass tells where each lane begins.
    """
    length = int(len(values) ** 0.5) + 1
    lanes = -(-len(values) // length)
    padded = np.zeros(lanes * length, np.uint32)
    padded[: len(values)] = values
    columns = np.ascontiguousarray(padded.reshape(lanes, length).T)
    table, whole = multiply_table(factor), ONE
    totals = np.zeros(lanes, np.uint32)
    for column in columns:
        totals = multiply_each(totals, table) ^ column
        whole = multiply(whole, factor)
    starts = np.empty(lanes, np.uint32)
    for lane, total in enumerate(totals.tolist()):
        starts[lane] = register
        register = multiply(register, whole) ^ total
    for column in columns:
        starts = multiply_each(starts, table) ^ column
        column[:] = starts
    ends: Words = columns.T.reshape(-1)[: len(values)]
    return ends
