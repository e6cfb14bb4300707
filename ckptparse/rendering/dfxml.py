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
from typing import TYPE_CHECKING, Any, NamedTuple
from xml.etree import ElementTree as ET

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
    root = ET.Element("dfxml", {"xmlns": _NAMESPACE, "xmlns:dc": _DUBLIN_CORE, "version": _VERSION})
    metadata = ET.SubElement(root, "metadata")
    ET.SubElement(metadata, "dc:type").text = "Recovery report"
    creator = ET.SubElement(root, "creator", {"version": "1.0"})
    ET.SubElement(creator, "program").text = "ckptparse"
    ET.SubElement(creator, "version").text = _text(report.version)
    source = ET.SubElement(root, "source")
    for one in report.inputs:
        ET.SubElement(source, "image_filename").text = _text(one.path)
    numbers = {one.path: number for number, one in enumerate(report.inputs, 1)}
    for one in report.inputs:
        _add_input(root, one, numbers[one.path], report.files.get(one.path))
    digests = {} if written is None else written.digests
    for tensor in report.listed_held():
        runs = _runs_of(tensor.source, report.files)
        element = _add_tensor(root, tensor.name, runs, tensor.status, numbers)
        _add_hash(element, digests.get(tensor.name))
    for one in () if written is None else written.files:
        element = _add_object(root, one.path, "r", one.size)
        _add_hash(element, one.sha256)
    ET.indent(root)
    return ET.tostring(root, "unicode", xml_declaration=False) + "\n"


def _text(value: object) -> str:
    return _FORBIDDEN.sub(lambda found: f"\\u{ord(found[0]):04x}", escape(str(value)))


def _add_object(
    root: ET.Element,
    name: str,
    kind: str,
    size: int | None,
    *,
    number: int | None = None,
    parent: int | None = None,
) -> ET.Element:
    """Add an object; children stand in the order of the schema."""
    element = ET.SubElement(root, "fileobject")
    if parent is not None:
        ET.SubElement(ET.SubElement(element, "parent_object"), "inode").text = str(parent)
    ET.SubElement(element, "filename").text = _text(name)
    ET.SubElement(element, "name_type").text = kind
    if size is not None:
        ET.SubElement(element, "filesize").text = str(size)
    if number is not None:
        ET.SubElement(element, "inode").text = str(number)
    return element


def _add_input(root: ET.Element, one: HashedFile, number: int, file: FileReport | None) -> None:
    element = _add_object(root, one.path, "r", one.size, number=number)
    if file is not None and file.ranges:
        runs = ET.SubElement(element, "byte_runs")
        for part in file.ranges:
            _add_run(runs, file_offset=part.start, len=part.stop - part.start, type=part.kind)
    _add_hash(element, one.sha256)


def _add_tensor(
    root: ET.Element,
    name: str,
    runs: Sequence[_Run],
    status: str,
    numbers: Mapping[str, int],
) -> ET.Element:
    parents = {run.path for run in runs if run.path is not None}
    parent = numbers.get(*parents) if len(parents) == 1 else None
    size = sum(run.size for run in runs) if runs else None
    element = _add_object(root, name, "v", size, parent=parent)
    if runs:
        listed = ET.SubElement(element, "byte_runs")
        done = 0
        for run in runs:
            there = {} if run.offset is None else {"img_offset": run.offset}
            _add_run(listed, file_offset=done, **there, len=run.size, type=status)
            done += run.size
    return element


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


def _add_run(runs: ET.Element, **attributes: Any) -> None:
    ET.SubElement(runs, "byte_run", {name: str(value) for name, value in attributes.items()})


def _add_hash(element: ET.Element, digest: str | None) -> None:
    if digest is not None:
        ET.SubElement(element, "hashdigest", {"type": "sha256"}).text = digest
