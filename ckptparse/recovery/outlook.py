"""Verify a checkpoint for the caller: what is damaged, and what `recover` gives of it."""

from __future__ import annotations

import os
from dataclasses import replace

from ckptparse.errors import CheckpointError
from ckptparse.examination.report import Outlook, Report
from ckptparse.examination.verify import verify as examine
from ckptparse.files.context import Progress, Store
from ckptparse.limits import DEFAULT_LIMITS, Limits

__all__ = ["verify"]

_TRIED_BYTES = 16 << 20
"""Repairs are tried if the checkpoint has at most so many bytes: this takes a second or two. For a
larger one `verify` would take several times as long as reading it."""
_TRIED_TENSORS = 256
"""Repairs are tried if at most so many tensors are damaged: each takes a millisecond or two."""


def verify(
    path: str | os.PathLike[str],
    *,
    hashes: bool = False,
    progress: Progress | None = None,
    store: Store = None,
    limits: Limits = DEFAULT_LIMITS,
) -> Report:
    """Check a checkpoint: index, data files, every tensor, and what is beside them.

    It does not stop at the first damage, and writes nothing. Data is read in pieces of 1 MiB. If
    something is damaged and the checkpoint is small, the repairs of `recover` are tried, so that
    `report.next_step` says what they give.

    Args:
        path: Whatever `ckptparse.open` takes; the checkpoint may be damaged or half written.
        hashes: Whether the report has the SHA-256 of every file that was read: each is read again.
        progress: Called from time to time with the bytes read so far and the bytes to read.
        store: As for `ckptparse.open`.
        limits: Bounds on what its files may ask for.

    Returns:
        The report: `report.ok` tells whether anything that a reader could use is damaged.

    Raises:
        CheckpointNotFoundError: No file of a checkpoint is there.
        NotACheckpointError: The file there was never part of one; `.identity` says what it is.
    """
    report = examine(path, hashes=hashes, progress=progress, store=store, limits=limits)
    if report.ok or sum(file.size or 0 for file in report.files.values()) > _TRIED_BYTES:
        return report
    if sum(not tensor.status.proved for tensor in report.tensors.values()) > _TRIED_TENSORS:
        return report
    return replace(report, outlook=_look_ahead(path, store, limits))


def _look_ahead(path: str | os.PathLike[str], store: Store, limits: Limits) -> Outlook | None:
    """Return what `recover` gives; None if it raises an error."""
    from ckptparse.recovery.recover import recover

    try:
        return Outlook.of(recover(path, store=store, limits=limits).report)
    except CheckpointError:
        return None
