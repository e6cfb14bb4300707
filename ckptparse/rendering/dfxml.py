"""A report as Digital Forensics XML, for the tools that examiners use.

    dfxml
      metadata, creator, source              who made it, and of which files
      fileobject                             each file that was read: its ranges, and its hash
      fileobject                             each tensor: where its bytes lie, and their hash
      fileobject                             each file that was written, and its hash

It follows version 1.2.0 of the schema. This has no statuses and no evidence; they are in the JSON
report. A tensor is a virtual file (`name_type` v); its parent is the file with its bytes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from ckptparse.text import escape

if TYPE_CHECKING:
    from ckptparse.examination.inputs import HashedFile
    from ckptparse.examination.outcome import ByteRange
    from ckptparse.examination.report import FileReport, Report
    from ckptparse.recovery.written import Written

__all__ = ["to_dfxml"]

_NAMESPACE = "http://www.forensicswiki.org/wiki/Category:Digital_Forensics_XML"
_DUBLIN_CORE = "http://purl.org/dc/elements/1.1/"
_VERSION = "1.2.0"
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that no XML document may hold."""


def to_dfxml(report: Report, written: Written | None = None) -> str:
    """Return a report as XML.

    Args:
        report: Of those tensors that `Report.to_dict` lists, what was got back is in it.
        written: What was written of it: its files are in it too, and hashes of tensors.
    """
    numbers = {one.path: number for number, one in enumerate(report.inputs, 1)}
    # A tree of elements would take three times as long as the lines, which thousands of files have.
    lines = [
        f'<dfxml xmlns="{_NAMESPACE}" xmlns:dc="{_DUBLIN_CORE}" version="{_VERSION}">',
        "  <metadata>",
        "    <dc:type>Recovery report</dc:type>",
        "  </metadata>",
        '  <creator version="1.0">',
        "    <program>ckptparse</program>",
        _line(4, "version", report.version),
        "  </creator>",
        *_list_sources(report),
    ]
    for one in report.inputs:
        lines += _list_input(one, numbers[one.path], report.files.get(one.path))
    digests = {} if written is None else written.digests
    for tensor in report.listed_held():
        runs = _runs_of(tensor.source, report.files)
        lines += _list_tensor(tensor.name, runs, tensor.status, numbers, digests.get(tensor.name))
    for output in () if written is None else written.files:
        lines += _list_object(output.path, "r", output.size, digest=output.sha256)
    lines.append("</dfxml>\n")
    return "\n".join(lines)


def _text(value: object) -> str:
    text = _FORBIDDEN.sub(lambda found: f"\\u{ord(found[0]):04x}", escape(str(value)))
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _line(blanks: int, name: str, value: object) -> str:
    """Return the line of an element that holds a text, so many blanks from the left."""
    text = _text(value)
    return f"{' ' * blanks}<{name}>{text}</{name}>" if text else f"{' ' * blanks}<{name} />"


def _list_sources(report: Report) -> list[str]:
    if not report.inputs:
        return ["  <source />"]
    names = [_line(4, "image_filename", one.path) for one in report.inputs]
    return ["  <source>", *names, "  </source>"]


def _list_object(
    name: str,
    kind: str,
    size: int | None,
    *,
    number: int | None = None,
    parent: int | None = None,
    runs: Sequence[str] = (),
    digest: str | None = None,
) -> list[str]:
    """Return the lines of an object; its parts stand in the order of the schema."""
    lines = ["  <fileobject>"]
    if parent is not None:
        lines.append(f"    <parent_object>\n      <inode>{parent}</inode>\n    </parent_object>")
    lines += (_line(4, "filename", name), f"    <name_type>{kind}</name_type>")
    if size is not None:
        lines.append(f"    <filesize>{size}</filesize>")
    if number is not None:
        lines.append(f"    <inode>{number}</inode>")
    if runs:
        lines += ("    <byte_runs>", *runs, "    </byte_runs>")
    if digest is not None:
        lines.append(f'    <hashdigest type="sha256">{digest}</hashdigest>')
    lines.append("  </fileobject>")
    return lines


def _list_input(one: HashedFile, number: int, file: FileReport | None) -> list[str]:
    ranges = () if file is None else file.ranges
    runs = [_run(part.start, None, part.stop - part.start, part.kind) for part in ranges]
    return _list_object(one.path, "r", one.size, number=number, runs=runs, digest=one.sha256)


def _list_tensor(
    name: str,
    runs: Sequence[_Run],
    status: str,
    numbers: Mapping[str, int],
    digest: str | None,
) -> list[str]:
    parents = {run.path for run in runs if run.path is not None}
    parent = numbers.get(*parents) if len(parents) == 1 else None
    listed: list[str] = []
    done = 0
    for run in runs:
        listed.append(_run(done, run.offset, run.size, str(status)))
        done += run.size
    size = done if runs else None
    return _list_object(name, "v", size, parent=parent, runs=listed, digest=digest)


def _run(start: int, offset: int | None, size: int, kind: str) -> str:
    """Return the line of a run of bytes: where in the file, where in the image, how many, what."""
    there = "" if offset is None else f' img_offset="{offset}"'
    return f'      <byte_run file_offset="{start}"{there} len="{size}" type="{kind}" />'


class _Run(NamedTuple):
    """A run of bytes of a tensor."""

    path: str | None
    offset: int | None
    """In that file; None if they are at no offset of it, since it is packed or was converted, or if
    they were not found."""
    size: int


def _runs_of(place: ByteRange | None, files: Mapping[str, FileReport]) -> list[_Run]:
    """Return the runs of bytes of a tensor, in files that are none of an image's own."""
    if place is None:
        return []
    pieces = files[place.path].pieces if place.path in files else ()
    if place.inside is not None or not pieces:
        return [_Run(place.path, place.offset if place.inside is None else None, place.size)]
    runs: list[_Run] = []
    start = 0
    for piece in pieces:
        first = max(start, place.offset)
        stop = min(start + piece.size, place.offset + place.size)
        if first < stop:
            found = None if piece.path is None else piece.offset + first - start
            runs.append(_Run(piece.path, found, stop - first))
        start += piece.size
    return runs
