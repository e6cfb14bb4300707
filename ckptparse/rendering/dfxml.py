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
from collections.abc import Iterator, Mapping
from typing import Any
from xml.etree import ElementTree as ET

from ckptparse.text import escape

__all__ = ["to_dfxml"]

_NAMESPACE = "http://www.forensicswiki.org/wiki/Category:Digital_Forensics_XML"
_DUBLIN_CORE = "http://purl.org/dc/elements/1.1/"
_VERSION = "1.2.0"
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that no XML document may hold."""


def to_dfxml(content: Mapping[str, Any]) -> str:
    """Return a report as XML.

    Args:
        content: What `Report.to_dict` or `Recovery.to_dict` gives.
    """
    report = content.get("report", content)
    output = content.get("output") or {}
    root = ET.Element("dfxml", {"xmlns": _NAMESPACE, "xmlns:dc": _DUBLIN_CORE, "version": _VERSION})
    metadata = ET.SubElement(root, "metadata")
    ET.SubElement(metadata, "dc:type").text = "Recovery report"
    creator = ET.SubElement(root, "creator", {"version": "1.0"})
    ET.SubElement(creator, "program").text = "ckptparse"
    ET.SubElement(creator, "version").text = _text(report["version"])
    source = ET.SubElement(root, "source")
    for one in report["inputs"]:
        ET.SubElement(source, "image_filename").text = _text(one["path"])
    numbers = {one["path"]: number for number, one in enumerate(report["inputs"], 1)}
    for one in report["inputs"]:
        _add_input(root, one, numbers[one["path"]], report["files"].get(one["path"]))
    digests = output.get("digests", {})
    for name, tensor in _iter_tensors(report):
        _add_tensor(root, name, tensor, numbers, digests.get(name))
    for one in output.get("files", ()):
        element = _add_object(root, one["path"], "r", one["size"])
        _add_hash(element, one["sha256"])
    ET.indent(root)
    return ET.tostring(root, "unicode", xml_declaration=False) + "\n"


def _text(value: object) -> str:
    return _FORBIDDEN.sub(lambda found: f"\\u{ord(found[0]):04x}", escape(str(value)))


def _iter_tensors(report: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Iterate over what was got back."""
    for name, tensor in report["tensors"].items():
        if tensor["status"] not in ("corrupt", "missing"):
            yield name, tensor


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


def _add_input(
    root: ET.Element, one: Mapping[str, Any], number: int, file: Mapping[str, Any] | None
) -> None:
    element = _add_object(root, one["path"], "r", one["size"], number=number)
    ranges = [] if file is None else file["ranges"]
    if ranges:
        runs = ET.SubElement(element, "byte_runs")
        for start, stop, kind in ranges:
            _add_run(runs, file_offset=start, len=stop - start, type=kind)
    _add_hash(element, one["sha256"])


def _add_tensor(
    root: ET.Element,
    name: str,
    tensor: Mapping[str, Any],
    numbers: Mapping[str, int],
    digest: str | None,
) -> None:
    place = tensor["source"]
    parent = None if place is None else numbers.get(place["path"])
    size = None if place is None else place["size"]
    element = _add_object(root, name, "v", size, parent=parent)
    if place is not None:
        runs = ET.SubElement(element, "byte_runs")
        kind = tensor["status"]
        # In a file that is packed or was converted, they are at no offset of the file itself.
        there = {"img_offset": place["offset"]} if place["inside"] is None else {}
        _add_run(runs, file_offset=0, **there, len=size, type=kind)
    _add_hash(element, digest)


def _add_run(runs: ET.Element, **attributes: Any) -> None:
    ET.SubElement(runs, "byte_run", {name: str(value) for name, value in attributes.items()})


def _add_hash(element: ET.Element, digest: str | None) -> None:
    if digest is not None:
        ET.SubElement(element, "hashdigest", {"type": "sha256"}).text = digest
