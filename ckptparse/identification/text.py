"""Files of text: pointers, pages, state files, text protos, and binary data that a filter mangled.

    version https://git-lfs.github.com/spec/v1                Git LFS pointer
    oid sha256:<64 hex digits>
    size <bytes>

A filter that takes binary data for text replaces what is not UTF-8 by U+FFFD, EF BF BD on disk.
"""

from __future__ import annotations

import re

from ckptparse.errors import CheckpointError
from ckptparse.identification.identity import Finding
from ckptparse.identification.sample import Sample
from ckptparse.proto.checkpoint_state_pb2 import CheckpointState
from ckptparse.proto.parsing import parse_text

__all__ = ["find_foreign_text", "find_known_text", "name_text"]

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_REPLACEMENT = b"\xef\xbf\xbd"
_POINTER_START = b"version https://git-lfs.github.com/spec/"
_POINTER_SIZE = 1024
"""Bytes of a Git LFS pointer at most, as its specification says."""
# Each of these takes time proportional to the text: no part of it can be matched in two ways.
_PAGE = re.compile(
    rb"\s*(?:<\?xml[^>]*>\s*)?(?:<!--(?:(?!-->).)*-->\s*)*<(?:!doctype\s+html|html|head|body)\b",
    re.IGNORECASE | re.DOTALL,
)
_FIRST_FIELD = re.compile(rb"(?:\s|#[^\n]*\n)*([A-Za-z_]\w*)\s*(?:[:{<])")
_TOKEN = re.compile(
    rb"""#[^\n]*|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|[{}<>\[\]"']""",
    re.DOTALL,
)

_TEXT_PROTOS: dict[str, tuple[str, ...]] = {
    "saved-model-pbtxt": ("saved_model_schema_version", "meta_graphs"),
    "meta-graph": (
        "meta_info_def",
        "graph_def",
        "saver_def",
        "collection_def",
        "signature_def",
        "asset_file_def",
        "object_graph_def",
    ),
    "graph": ("node", "library", "versions"),
    "state-file": (
        "model_checkpoint_path",
        "all_model_checkpoint_paths",
        "all_model_checkpoint_timestamps",
        "last_preserved_timestamp",
    ),
}


def find_foreign_text(sample: Sample) -> Finding | None:
    """Find what is certainly no part of any checkpoint, whatever the file is called."""
    return _find_pointer(sample) or _find_page(sample) or _find_mangled(sample)


def find_known_text(sample: Sample) -> Finding | None:
    """Find the text form of a message that TensorFlow writes."""
    if not _is_text(sample.head):
        return None
    kind = name_text(sample.head)
    if kind is not None:
        return _finish(kind, sample)
    return Finding("unknown", {"what": _describe_text(sample.head)})


def name_text(head: bytes) -> str | None:
    """Return the kind of the message whose text begins so; None if it is none that is known."""
    match = _FIRST_FIELD.match(head.removeprefix(_BYTE_ORDER_MARK))
    name = match.group(1).decode("ascii") if match and _is_text(head) else ""
    return next((kind for kind, fields in _TEXT_PROTOS.items() if name in fields), None)


def _find_pointer(sample: Sample) -> Finding | None:
    if not sample.head.startswith(_POINTER_START) or sample.size > _POINTER_SIZE:
        return None
    lines = (line.partition(b" ") for line in sample.head.splitlines())
    fields = {key: value.strip() for key, _, value in lines}
    method, _, digest = fields.get(b"oid", b"").partition(b":")
    size = fields.get(b"size", b"")
    detail: dict[str, object] = {}
    if size.isdigit():
        detail["size"] = int(size)
    if method == b"sha256":
        detail["sha256"] = digest.decode("ascii", "replace")
    return Finding("lfs-pointer", detail)


def _find_page(sample: Sample) -> Finding | None:
    head = sample.head.removeprefix(_BYTE_ORDER_MARK)
    if not _PAGE.match(head):
        return None
    title = re.search(rb"<title[^>]*>(.*?)</title>", head[:8192], re.IGNORECASE | re.DOTALL)
    words = " ".join(title.group(1).decode("utf-8", "replace").split()) if title else ""
    return Finding("html", {"title": words[:200]} if words else {})


def _find_mangled(sample: Sample) -> Finding | None:
    count = sample.head.count(_REPLACEMENT)
    # Text about such a file may hold replacement characters; it has no control characters.
    if count < 3 or not _count_controls(sample.head):
        return None
    # What is left of the bytes above 7f is UTF-8, or nothing filtered this.
    if not _decodes(sample.head):
        return None
    return Finding("mangled-text", {"replaced": count, "sampled_bytes": len(sample.head)})


def _finish(kind: str, sample: Sample) -> Finding:
    if kind == "state-file":
        return Finding(kind, _describe_state(sample))
    if _ends_early(sample):
        return Finding("truncated", {"of": kind})
    return Finding(kind, {"encoding": "text"})


def _describe_state(sample: Sample) -> dict[str, object]:
    if sample.size > len(sample.head):
        return {}
    try:
        text = sample.head.removeprefix(_BYTE_ORDER_MARK).decode("utf-8")
        state = parse_text(
            CheckpointState, text, limits=sample.limits, path=sample.path, what="the state file"
        )
    except (CheckpointError, UnicodeDecodeError) as error:
        return {"damage": str(error)}
    return {
        "latest": state.model_checkpoint_path,
        "paths": tuple(state.all_model_checkpoint_paths),
    }


def _ends_early(sample: Sample) -> bool:
    """Tell whether the text of a message stops inside of a field."""
    if sample.size <= len(sample.head):
        return _count_open(sample.head) != 0
    # Of a longer one only the end is looked at: printed messages begin no line inside of a field.
    line = sample.tail.rstrip().replace(b"\r", b"\n").rpartition(b"\n")[2]
    is_whole = line.endswith((b"}", b">")) or re.match(rb"\w+\s*:\s*\S|#", line)
    return line[:1].isspace() or not is_whole


def _count_open(text: bytes) -> int:
    """Count the brackets and quotes that are still open at the end of a text."""
    depth = 0
    for token in _TOKEN.findall(text):
        if token in b"}>]":
            depth -= 1
        elif len(token) == 1 and token != b"#":
            # A quote stands alone only if its string does not end.
            depth += 1
    return depth


def _describe_text(head: bytes) -> str:
    start = head.removeprefix(_BYTE_ORDER_MARK).lstrip()[:1]
    return "JSON" if start in (b"{", b"[") else "text"


def _is_text(head: bytes) -> bool:
    return bool(head) and not _count_controls(head) and _decodes(head)


def _count_controls(data: bytes) -> int:
    controls = bytes(byte for byte in range(32) if byte not in b"\t\n\v\f\r\x1b")
    return len(data) - len(data.translate(None, controls))


def _decodes(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        # A character may be cut by the end of the sample.
        return error.start >= len(data) - 3 and error.reason == "unexpected end of data"
    return True
