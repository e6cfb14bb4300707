r"""What servers and tools leave in place of a file: a message, or a pointer to where it is.

    <?xml …?><Error><Code>NoSuchKey</Code>…        S3 and its like
    404: Not Found    {"message": "Not Found"}      servers of raw files
    /annex/objects/SHA256E-s4928--1f…               git-annex
    outs:\n- md5: …\n  size: 4928\n  path: …        DVC
    # xet version 0\nfilesize = 4928\nhash = '…'    Xet
    ../../blobs/1f…                                 a symbolic link, checked out as text
    00 05 16 07                                     AppleDouble: attributes that macOS keeps

All of these are small; each is quoted, so that the reader sees what it is.
"""

from __future__ import annotations

import json
import re

from ckptparse.identification.identity import Finding
from ckptparse.identification.sample import Sample

__all__ = ["find_stand_in"]

_MOST = 1 << 14
"""Bytes of a message or a pointer: real ones have some hundred."""
_MOST_QUOTED = 120
"""Characters of a message that are quoted: about a line."""
_APPLE_DOUBLE = b"\x00\x05\x16\x07"
_XML_ERROR = re.compile(rb"\s*(?:<\?xml[^>]*>\s*)?<Error\b", re.IGNORECASE)
_XML_PART = re.compile(rb"<(Code|Message)>([^<]*)<")
_STATUS = re.compile(
    r"(?:HTTP/\S+ )?[45]\d\d\b.*|(?:\w+ )?not found\b.*|access ?denied\b.*|(?:un)?authorized\b.*"
    r"|invalid (?:username|credentials|token)\b.*|forbidden\b.*|bad gateway\b.*",
    re.IGNORECASE | re.DOTALL,
)
# Each looks at a text once: parts that match in several ways would cost the product of them. What
# has more than 18 digits is no size.
_ANNEX = re.compile(r"(?:^|/)annex/objects/")
_ANNEX_KEY = re.compile(r"\w+(?:-s(\d{1,18})(?!\d))?")
_DVC = re.compile(r"(?:[^\n]*\n)*?outs:\n- md5: (\S+)\n(?:  \w+: [^\n]*(?:\n|\Z))*")
_DVC_SIZE = re.compile(r"\n  size: (\d{1,18})(?!\d)")
_XET = re.compile(r"# xet version [^\n]*\n(?s:.*)")
_XET_SIZE = re.compile(r"filesize *= *(\d{1,18})(?!\d)")
_MESSAGE_KEYS = ("message", "error", "detail", "Message", "errors")


def find_stand_in(sample: Sample) -> Finding | None:
    """Find what stands in place of a file; None if it is none of these."""
    if sample.head.startswith(_APPLE_DOUBLE):
        return Finding("apple-double")
    if not 0 < sample.size <= _MOST:
        return None
    if _XML_ERROR.match(sample.head):
        parts = [value.decode("utf-8", "replace") for _, value in _XML_PART.findall(sample.head)]
        return Finding("error-message", {"quote": _shorten(": ".join(parts) or "Error")})
    try:
        text = sample.head.decode("utf-8")
    except UnicodeDecodeError:
        return None
    return _find_pointer(text) or _find_message(text)


def _find_pointer(text: str) -> Finding | None:
    words = text.split()
    key = text.rstrip().rpartition("/")[2]
    annex = _ANNEX_KEY.match(key) if len(words) == 1 and _ANNEX.search(text) else None
    if annex:
        size = {"size": int(annex[1])} if annex[1] else {}
        return Finding("annex-pointer", {"quote": _shorten(key), **size})
    dvc = _DVC.fullmatch(text)
    if dvc:
        size = {"size": int(found[1])} if (found := _DVC_SIZE.search(text)) else {}
        return Finding("dvc-pointer", {"quote": f"md5 {dvc[1]}", **size})
    if _XET.fullmatch(text):
        size = {"size": int(found[1])} if (found := _XET_SIZE.search(text)) else {}
        return Finding("xet-pointer", {"quote": _shorten(text), **size})
    if words == [text] and _is_path(text):
        return Finding("link-text", {"quote": _shorten(text)})
    return None


def _is_path(text: str) -> bool:
    """Tell whether a word is what a symlink would say: a path from here, or from the root."""
    return text.startswith(("./", "../")) or (text.startswith("/") and "/" in text[2:-1])


def _find_message(text: str) -> Finding | None:
    if _STATUS.fullmatch(text.strip()):
        return Finding("error-message", {"quote": _shorten(text)})
    if not text.lstrip().startswith("{"):
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    said = next((found[key] for key in _MESSAGE_KEYS if found.get(key)), None)
    return None if said is None else Finding("error-message", {"quote": _shorten(str(said))})


def _shorten(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= _MOST_QUOTED else f"{words[:_MOST_QUOTED]}…"
