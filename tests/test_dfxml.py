"""Reports as Digital Forensics XML hold to its schema.

The tables are what version 1.2.0 of the schema (dfxml.xsd) defines of the elements in use.
"""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as ET

import builder
import numpy as np
import pytest

import ckptparse

DFXML = "{http://www.forensicswiki.org/wiki/Category:Digital_Forensics_XML}"
DUBLIN_CORE = "{http://purl.org/dc/elements/1.1/}"

CHILDREN = {
    "dfxml": ["metadata", "creator", "source", "volume", "fileobject"],
    "creator": ["program", "version", "build_environment", "execution_environment", "library"],
    "source": ["image_filename"],
    "fileobject": [
        "parent_object", "filename", "partition", "id", "name_type", "filesize", "unalloc", "alloc",
        "used", "unused", "orphan", "compressed", "inode", "meta_type", "mode", "nlink", "uid",
        "gid", "mtime", "ctime", "atime", "crtime", "seq", "dtime", "bkup_time", "link_target",
        "libmagic", "byte_runs", "hashdigest",
    ],
    "parent_object": ["inode"],
    "byte_runs": ["byte_run"],
    "byte_run": ["hashdigest"],
}  # fmt: skip
"""Elements that have children, and these in the order in which they must stand."""
REPEATED = {
    ("dfxml", "fileobject"), ("source", "image_filename"), ("byte_runs", "byte_run"),
    ("fileobject", "hashdigest"), ("fileobject", "filename"),
}  # fmt: skip
REQUIRED = {
    "dfxml": {"metadata", "source"},
    "fileobject": {"filename", "name_type"},
    "parent_object": {"inode"},
}
ATTRIBUTES = {
    "dfxml": {"version", "catalogDesignDate"},
    "creator": {"version"},
    "byte_run": {
        "file_offset", "fs_offset", "img_offset", "len", "uncompressed_len", "fill", "type",
    },
    "hashdigest": {"type", "base"},
}  # fmt: skip
NUMBERS = {"filesize", "inode"}
NUMBER_ATTRIBUTES = {"file_offset", "fs_offset", "img_offset", "len"}
NAME_TYPES = set("-pcdbrlshwv")
HASHES = {"sha1", "sha256", "md5", "md6", "other", "SHA1", "SHA256", "MD5", "MD6", "OTHER"}


def check(element: ET.Element) -> None:
    """Check an element, and all below it, against the schema."""
    name = element.tag.removeprefix(DFXML)
    assert element.tag == DFXML + name, element.tag
    assert set(element.attrib) <= ATTRIBUTES.get(name, set()), name
    for attribute in NUMBER_ATTRIBUTES & element.attrib.keys():
        assert int(element.attrib[attribute]) >= 0
    if name in NUMBERS:
        assert int(element.text or "") >= 0
    if name == "name_type":
        assert element.text in NAME_TYPES
    if name == "hashdigest":
        assert element.get("type") in HASHES and len(element.text or "") == 64
    if name == "metadata":
        assert [child.tag for child in element] == [f"{DUBLIN_CORE}type"]
        return
    children = [child.tag.removeprefix(DFXML) for child in element]
    order = CHILDREN.get(name, [])
    assert children == sorted(children, key=order.index), name
    for child in set(children):
        assert children.count(child) == 1 or (name, child) in REPEATED, child
    assert REQUIRED.get(name, set()) <= set(children), name
    for child in element:
        check(child)


def objects(text: str) -> dict[str, ET.Element]:
    root = ET.fromstring(text)  # noqa: S314 - what was made here
    check(root)
    assert root.get("version") == "1.2.0"
    found = {}
    for element in root.iter(f"{DFXML}fileobject"):
        found[element.findtext(f"{DFXML}filename", "")] = element
    return found


def run_of(element: ET.Element) -> list[dict[str, str]]:
    return [dict(run.attrib) for run in element.iter(f"{DFXML}byte_run")]


@pytest.fixture
def recovery(tmp_path: Path) -> ckptparse.Recovery:
    made = builder.Bundle()
    made.add("w", np.random.default_rng(1).normal(size=900))
    made.add(b"odd \x01 & <n\xc3\xa4me>\xff", np.arange(5.0))
    (tmp_path / "run").mkdir()
    prefix = made.write(tmp_path / "run" / "m")
    data = Path(f"{prefix}.data-00000-of-00001")
    raw = bytearray(data.read_bytes())
    raw[5000] ^= 16
    data.write_bytes(raw)
    return ckptparse.recover(prefix)


def test_an_export_holds_to_the_schema(recovery: ckptparse.Recovery, tmp_path: Path) -> None:
    written = recovery.write(tmp_path / "out.ckpt")
    found = objects(recovery.to_dfxml(written))
    data = next(one for one in recovery.report.inputs if one.role == "shard")
    element = found[data.path]
    assert element.findtext(f"{DFXML}filesize") == str(data.size)
    assert element.findtext(f"{DFXML}hashdigest") == data.sha256
    runs = run_of(element)
    assert {"file_offset": "5000", "len": "1", "type": "patched"} in runs
    assert sum(int(run["len"]) for run in runs) == data.size
    tensor = found["w"]
    parent = tensor.findtext(f"{DFXML}parent_object/{DFXML}inode")
    assert parent == element.findtext(f"{DFXML}inode")
    assert run_of(tensor) == [
        {"file_offset": "0", "img_offset": "0", "len": "7200", "type": "corrected"}
    ]
    assert tensor.findtext(f"{DFXML}hashdigest") == written.digests["w"]
    for file in written.files:
        assert found[file.path].findtext(f"{DFXML}hashdigest") == file.sha256


def test_names_that_no_xml_holds_are_escaped(recovery: ckptparse.Recovery) -> None:
    (name,) = (name for name in objects(recovery.to_dfxml()) if name.startswith("odd"))
    assert name == "odd \\x01 & <näme>\\xff"


def test_a_report_alone_is_exported_without_what_was_not_hashed(
    recovery: ckptparse.Recovery,
) -> None:
    found = objects(recovery.report.to_dfxml())
    assert not any(list(one.iter(f"{DFXML}hashdigest")) for one in found.values())


@pytest.mark.parametrize(
    "path",
    ["slices/hole/model", "saver/my_model", "crash/temp_directory", "graphs/frozen_tf2/frozen.pb"],
)
def test_reports_of_every_kind_hold_to_the_schema(path: str, fixtures: Path) -> None:
    objects(ckptparse.verify(fixtures / path, hashes=True).to_dfxml())


def test_the_check_notices_what_the_schema_forbids(recovery: ckptparse.Recovery) -> None:
    text = recovery.to_dfxml()
    for old, new in (
        ("<name_type>r</name_type>", ""),
        ("<name_type>r</name_type>", "<name_type>x</name_type>"),
        ("<filesize>", "<inode>3</inode><filesize>"),
        ("<byte_run ", '<byte_run status="x" '),
        ("<source>", "<sauce/><source>"),
    ):
        with pytest.raises((AssertionError, ValueError)):
            objects(text.replace(old, new, 1))
