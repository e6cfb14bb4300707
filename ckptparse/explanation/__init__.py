"""Explain a message that TensorFlow printed, and the numbers in it.

    checksums   two checksums in a message are evidence
    damage      bytes that changed after they were written
    paths       files that are missing, that may not be read, or that are elsewhere
    models      names, shapes, dtypes and versions that differ from the program's
    formats     HDF5, Keras, graphs and TensorFlow Hub

A message that is not about a checkpoint gets no answer: that is better than a wrong one.
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
    "This message is not known.",
    "Unknown.",
    f"If it was printed while a checkpoint was read: {VERIFY}.",
)
_ROWS = (*CHECKSUMS, *PATHS, *DAMAGE, *FORMATS, *MODELS)
"""Every kind of message. The first that fits is taken, so the most exact ones come first."""

_OTHERS = re.compile(
    r"\btorch\b|state_dict|\.pth?\b|pytorch|rocks_?db|level_?db|\borbax\b|\bflax\b|"
    r"\bcorruption: ",
    re.IGNORECASE,
)
_OURS = re.compile(
    r"tensorflow|keras|\btf\.|\.index\b|\.data-\d|restorev2|saved_?model|sstable|tensorslice",
    re.IGNORECASE,
)
_MOST = 1 << 17
"""Characters that are looked through: there are dozens of patterns, and a log may be large."""
_LINE = 1 << 12
"""Characters of one line. Some patterns look for their end from each place where they begin."""


def explain(text: str) -> Explanation:
    """Explain a message that TensorFlow (or Keras) printed about a checkpoint.

    The whole output may be given, with its traceback: the most exact message in it is used. If none
    is about a checkpoint, `code` is None. Of a text of more than 131,072 characters, the first and
    the last 65,536 are looked through.
    """
    text = _bounded(text)
    if _OTHERS.search(text) and not _OURS.search(text):
        return _UNKNOWN
    return next(filter(None, (row.explain(text) for row in _ROWS)), _UNKNOWN)


def _bounded(text: str) -> str:
    """Return the ends of a long text, its long lines folded."""
    if len(text) <= _LINE:
        return text
    if len(text) > _MOST:
        text = f"{text[: _MOST // 2]}\n{text[-_MOST // 2 :]}"
    lines = text.split("\n")
    return "\n".join(
        line[at : at + _LINE] for line in lines for at in range(0, max(1, len(line)), _LINE)
    )
