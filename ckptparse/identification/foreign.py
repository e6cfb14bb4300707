"""What a file is that was never part of a checkpoint: told by its own bytes alone.

A pointer of Git LFS, a page of a web server, an archive, a checkpoint of another framework. Formats
ask here why a file is not what their index says. What only the files beside it can tell, such as a
data file that was cut off, is not asked here.
"""

from __future__ import annotations

from contextlib import closing

from ckptparse.files.context import Context
from ckptparse.identification.archive import find_archive
from ckptparse.identification.identity import Finding, Identity
from ckptparse.identification.magic import find_magic
from ckptparse.identification.sample import Sample
from ckptparse.identification.stand_ins import find_stand_in
from ckptparse.identification.text import find_foreign_text

__all__ = ["identify_foreign"]


def identify_foreign(path: str, context: Context) -> Identity | None:
    """Say what a file is if it is of no checkpoint; None if it may be of one.

    Raises:
        CheckpointError: It cannot be read.
    """
    with closing(context.storage.open(path)) as source:
        finding = _find(Sample(source, context))
    return None if finding is None else Identity.of(finding, path)


def _find(sample: Sample) -> Finding | None:
    if not sample.size:
        return Finding("empty")
    return (
        find_foreign_text(sample)
        or find_stand_in(sample)
        or find_archive(sample)
        or find_magic(sample)
    )
