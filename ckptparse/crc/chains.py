"""Registers at the ends of runs of bytes that follow each other, from the checksum of each run."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from ckptparse.crc.field import ONE, multiply, multiply_each, multiply_table

__all__ = ["chained"]

Words = npt.NDArray[np.uint32]

_LANE = 64
"""Values of a lane: with fewer, more lanes are chained; with more, more calls are made."""


def chained(values: Words, factor: int, register: int) -> Words:
    """Return r[0], r[1] ..., with r[n] = r[n - 1] · factor + values[n], beginning with `register`.

    Many lanes are computed together. A first pass tells where each lane begins.
    """
    if len(values) <= _LANE:
        return np.array(list(_one_by_one(values, factor, register)), np.uint32)
    lanes = -(-len(values) // _LANE)
    padded = np.zeros(lanes * _LANE, np.uint32)
    padded[: len(values)] = values
    columns = np.ascontiguousarray(padded.reshape(lanes, _LANE).T)
    table, whole = multiply_table(factor), ONE
    totals = np.zeros(lanes, np.uint32)
    for column in columns:
        totals = multiply_each(totals, table) ^ column
        whole = multiply(whole, factor)
    before = chained(totals[:-1], whole, register)
    starts = np.concatenate([np.array([register], np.uint32), before])
    for column in columns:
        starts = multiply_each(starts, table) ^ column
        column[:] = starts
    ends: Words = columns.T.reshape(-1)[: len(values)]
    return ends


def _one_by_one(values: Words, factor: int, register: int) -> Iterator[int]:
    for value in values.tolist():
        register = multiply(register, factor) ^ value
        yield register
