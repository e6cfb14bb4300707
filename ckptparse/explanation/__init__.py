"""What a message that TensorFlow printed means, and what its numbers tell.

    checksums   two checksums in a message are evidence by themselves
    damage      bytes that are not what was written
    paths       files that are not there, not readable, or elsewhere
    models      names, shapes, types and versions that differ from the program's
    formats     HDF5, Keras, graphs and TensorFlow Hub

A message that is not about a checkpoint is not answered: no answer is better than a wrong one.
"""

from __future__ import annotations

import re

from ckptparse.explanation.checksums import CHECKSUMS
from ckptparse.explanation.damage import DAMAGE
from ckptparse.explanation.formats import FORMATS
from ckptparse.explanation.models import MODELS
from ckptparse.explanation.paths import PATHS
from ckptparse.explanation.value import MESSAGE_CODES, VERIFY, Explanation

__all__ = ["MESSAGE_CODES", "Explanation", "explain"]

_UNKNOWN = Explanation(
    None,
    "This message is not one that is known here.",
    "Unknown.",
    f"If it came up while reading a checkpoint: {VERIFY}.",
)
_ROWS = (*CHECKSUMS, *PATHS, *DAMAGE, *FORMATS, *MODELS)
"""Every kind of message. The first that fits answers, so the most telling stand first."""

_OTHERS = re.compile(
    r"\btorch\b|state_dict|\.pth?\b|pytorch|rocks_?db|level_?db|\borbax\b|\bflax\b|"
    r"\bcorruption: ",
    re.IGNORECASE,
)
_OURS = re.compile(
    r"tensorflow|keras|\btf\.|\.index\b|\.data-\d|restorev2|saved_?model|sstable|tensorslice",
    re.IGNORECASE,
)


def explain(text: str) -> Explanation:
    """Explain a message that TensorFlow (or Keras) printed about a checkpoint.

    The whole output may be given, traceback and all: the most telling message in it is used. What
    is not about a checkpoint is not answered: `code` is None then.
    """
    if _OTHERS.search(text) and not _OURS.search(text):
        return _UNKNOWN
    return next(filter(None, (row.explain(text) for row in _ROWS)), _UNKNOWN)
