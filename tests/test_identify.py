"""What lies at a path: every kind by its bytes, whatever its name."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import struct
import tarfile
import time
import zipfile
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import builder
import numpy as np
import pytest
from builder import field
from hypothesis import given
from hypothesis import strategies as st
from instruments import MEGABYTE, counted_reads
from v1_builder import LegacyFile

import ckptparse
from ckptparse import (
    CheckpointError,
    CheckpointNotFoundError,
    Identity,
    NotACheckpointError,
    identify,
)
from ckptparse.bundle.columns import EntryColumns
from ckptparse.bundle.decoding import decode_entry
from ckptparse.bundle.entry import BundleEntry
from ckptparse.files.context import Context
from ckptparse.files.memory import MemorySource
from ckptparse.identification import KINDS, tables
from ckptparse.limits import DEFAULT_LIMITS
from ckptparse.table.reader import Table

pytestmark = pytest.mark.proto

POINTER = (
    b"version https://git-lfs.github.com/spec/v1\n"
    b"oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\n"
    b"size 12345\n"
)
NODE = field(1, b"w") + field(2, b"Const")
GRAPH = field(1, NODE) + field(1, field(1, b"y") + field(2, b"Identity") + field(3, b"w"))
INFO = field(2, field(1, field(1, b"Const"))) + field(5, b"2.21.0")
META_GRAPH = field(1, INFO) + field(2, GRAPH) + field(3, field(1, b"save/Const:0"))
SAVED_MODEL = b"\x08\x01" + field(2, META_GRAPH)
HDF5 = b"\x89HDF\r\n\x1a\n" + bytes.fromhex("0000000000080800 0400100000000000")
SAFETENSORS_HEADER = b'{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
SAFETENSORS = struct.pack("<Q", len(SAFETENSORS_HEADER)) + SAFETENSORS_HEADER + b"\0" * 8
RIEGELI = bytes.fromhex("83af70d10d884a3f0000000000000000400000000000000091bac23c9287e1a9")
TORCH_PICKLE = bytes.fromhex("80028a0a6cfc9c46f9206aa850192e") + b"\x80\x02M\xe9\x03."


def table_with(value: bytes) -> bytes:
    return bytes(builder.table([(b"", value), (b"w", b"\x08\x01")]).data)


def hdf5(content: bytes, missing: int = 0) -> bytes:
    """A superblock of version 0 that states the file's size."""
    size = 96 + len(content) + missing
    addresses = struct.pack("<QQQQ", 0, 2**64 - 1, size, 2**64 - 1)
    return (HDF5 + addresses).ljust(96, b"\0") + content


def tfrecord(data: bytes) -> bytes:
    length = struct.pack("<Q", len(data))
    check = [builder.fixed32(builder.masked_crc(part)) for part in (length, data)]
    return length + check[0] + data + check[1]


def zipped(**members: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return out.getvalue()


def tarred(*names: str, format: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format) as archive:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = 600
            archive.addfile(member, io.BytesIO(b"x" * 600))
    return out.getvalue()


def saved(array: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> bytes:
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


NPY = saved(np.zeros((2, 3), np.float32))
MANGLED = np.random.default_rng(1).bytes(4000).decode("utf-8", "replace").encode()
PAGE = b"\n\n<!DOCTYPE html>\n<html><head><title>\n model.ckpt at main </title></head></html>"

FILES: dict[str, tuple[str, bytes]] = {
    "V1": ("v1", LegacyFile().data()),
    "V2 index": ("v2-index", table_with(b"\x08\x02\x1a\x02\x08\x01")),
    "SavedModel": ("saved-model-pb", SAVED_MODEL),
    "SavedModel, text": ("saved-model-pbtxt", b"saved_model_schema_version: 1\nmeta_graphs {\n}\n"),
    "SavedModel, chunked": ("saved-model-cpb", RIEGELI + b"s".rjust(32, b"\0")),
    "graph": ("graph", GRAPH),
    "graph of functions": ("graph", field(2, field(1, field(1, field(1, b"f")) + field(3, NODE)))),
    "graph of versions": ("graph", field(4, b"\x08\x15")),
    "graph, text": ("graph", b'# frozen\nnode {\n  name: "w"\n  op: "Const"\n}\nversions {\n}\n'),
    "graph, angle brackets": ("graph", b'node < name: "w" op: "Const" >'),
    "meta graph": ("meta-graph", META_GRAPH),
    "meta graph without ops": ("meta-graph", field(1, field(5, b"1.0.1")) + field(2, GRAPH)),
    "meta graph, text": ("meta-graph", b'meta_info_def {\n  tensorflow_version: "2"\n}\n'),
    "state file": ("state-file", b'model_checkpoint_path: "m-1"\n'),
    "state file with a BOM": ("state-file", b'\xef\xbb\xbfall_model_checkpoint_paths: "m-1"'),
    "hub module": ("hub-module", b"\x08\x03"),
    "Keras HDF5": ("keras-h5", hdf5(b"...keras_version...")),
    "Keras 3 weights": ("keras-h5", hdf5(b"..._layer_checkpoint_dependencies...")),
    "Keras archive": ("keras-zip", zipped(**{"config.json": b"{}", "model.weights.h5": HDF5})),
    "TFLite": ("tflite", b"\x1c\0\0\0TFL3" + b"\0" * 20),
    "TFRecord": ("tfrecord", tfrecord(b"hello") + tfrecord(b"")),
    "events": ("tfrecord", tfrecord(b"\x09\0\0\0\0\0\0\0\0\x1a\x0dbrain.Event:2")),
    "PyTorch": ("pytorch-zip", zipped(**{"archive/data.pkl": b"\x80\x02.", "archive/data/0": b""})),
    "old PyTorch": ("pytorch-pickle", TORCH_PICKLE),
    "pickle of tensors": ("pytorch-pickle", b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\nq\0."),
    "safetensors": ("safetensors", SAFETENSORS),
    "npz": ("npz", zipped(**{"a.npy": NPY, "b.npy": NPY})),
    "npy": ("npy", NPY),
    "HDF5": ("hdf5", hdf5(b"plain")),
    "HDF5 after a user block": ("hdf5", b"\0" * 512 + hdf5(b"plain")),
    "zip": ("zip", zipped(**{"README": b"", "m/variables.index": b""})),
    "empty zip": ("zip", zipped()),
    "tar": ("tar", tarred("README", "m/variables.index")),
    "gzip": ("gzip", gzip.compress(b"hello")),
    "tar in gzip": ("gzip", gzip.compress(tarred("m/model.ckpt-1.index"))),
    "Zstandard": ("zstd", bytes.fromhex("28b52ffd2005290000 68656c6c6f".replace(" ", ""))),
    "LFS pointer": ("lfs-pointer", POINTER),
    "git-annex": ("annex-pointer", b"/annex/objects/SHA256E-s4928--1f2e"),
    "DVC": ("dvc-pointer", b"outs:\n- md5: 1f2e\n  size: 4928\n  path: m.index\n"),
    "Xet": ("xet-pointer", b"# xet version 0\nfilesize = 4928\nhash = '1f2e'\n"),
    "link": ("link-text", b"../../blobs/1f2e"),
    "error of a server": ("error-message", b"404: Not Found"),
    "AppleDouble": ("apple-double", b"\x00\x05\x16\x07\x00\x02\x00\x00" + bytes(150)),
    "page": ("html", PAGE),
    "page with a comment": ("html", b"<?xml version='1.0'?>\n<!-- x -->\n<HTML lang=en>"),
    "mangled": ("mangled-text", MANGLED),
    "empty": ("empty", b""),
    "zeros": ("zeros", b"\0" * 100_000),
    "cut V1": ("truncated", LegacyFile().data()[:-20]),
    "cut V2 index": ("truncated", table_with(b"\x08\x02\x1a\x02\x08\x01")[:-1]),
    "cut SavedModel": ("truncated", SAVED_MODEL[:-4]),
    "cut graph": ("truncated", GRAPH[:-1]),
    "cut meta graph": ("truncated", META_GRAPH[:-4]),
    "cut text": ("truncated", b'node {\n  name: "w"\n  op: "Con'),
    "cut zip": ("truncated", zipped(a=b"hello" * 100)[:-30]),
    "cut tar": ("truncated", tarred("a", "b")[:1500]),
    "cut gzip": ("truncated", gzip.compress(np.random.default_rng(1).bytes(1000))[:-20]),
    "cut npy": ("truncated", NPY[:-1]),
    "cut HDF5": ("truncated", hdf5(b"plain", missing=5)),
    "cut safetensors": ("truncated", SAFETENSORS[:-1]),
    "cut TFRecord": ("truncated", tfrecord(b"hello")[:-6]),
    "text": ("unknown", b"just some words\n"),
    "JSON": ("unknown", b'{"format": "layers-model"}'),
    "PNG": ("unknown", b"\x89PNG\r\n\x1a\n" + b"\0\1" * 30),
    "pickle": ("unknown", b"\x80\x04K\x01."),
    "noise": ("unknown", bytes(range(1, 256)) * 3),
    "one byte": ("unknown", b"\x07"),
    "a table of other things": ("unknown", builder.table([(b"a", b"b")]).data),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("called", ["file", "model.index", "saved_model.pb", "x.ckpt"])
def test_every_kind_is_known_by_its_bytes_whatever_its_name(
    tmp_path: Path, name: str, called: str
) -> None:
    kind, data = FILES[name]
    path = tmp_path / called
    path.write_bytes(data)
    identity = identify(path)
    assert identity.kind == kind
    assert identity.path == str(path)
    assert identity.advice
    assert identity.meaning in str(identity)


def test_every_kind_is_shown() -> None:
    by_directory = {"v2-shard", "v2-prefix", "savedmodel", "interrupted-save", "directory"}
    by_name = {"fingerprint", "keras-metadata"}
    assert {kind for kind, _ in FILES.values()} | by_directory | by_name == set(KINDS)


def find(tmp_path: Path, data: bytes, name: str = "file") -> Identity:
    path = tmp_path / name
    path.write_bytes(data)
    return identify(path)


# ---- details


def test_a_pointer_tells_size_and_digest_of_what_it_stands_for(tmp_path: Path) -> None:
    identity = find(tmp_path, POINTER)
    assert identity.detail["size"] == 12345
    assert identity.detail["sha256"] == POINTER.split(b":")[2][:64].decode()
    assert "git lfs pull" in identity.advice


def test_a_pointer_with_carriage_returns_is_one_too(tmp_path: Path) -> None:
    assert find(tmp_path, POINTER.replace(b"\n", b"\r\n")).detail["size"] == 12345


def test_a_page_tells_its_title(tmp_path: Path) -> None:
    assert find(tmp_path, PAGE).detail["title"] == "model.ckpt at main"


@pytest.mark.parametrize(
    ("name", "of"),
    [
        ("cut V1", "v1"),
        ("cut V2 index", "v2-index"),
        ("cut SavedModel", "saved-model-pb"),
        ("cut graph", "graph"),
        ("cut meta graph", "meta-graph"),
        ("cut text", "graph"),
        ("cut zip", "zip"),
        ("cut HDF5", "hdf5"),
    ],
)
def test_what_was_cut_off_tells_what_it_was(tmp_path: Path, name: str, of: str) -> None:
    identity = find(tmp_path, FILES[name][1])
    assert identity.detail["of"] == of
    assert of in identity.meaning


def test_what_is_missing_of_a_file_is_told_where_it_is_known(tmp_path: Path) -> None:
    assert find(tmp_path, hdf5(b"plain", missing=5)).detail["missing"] == 5
    assert find(tmp_path, SAFETENSORS[:-3]).detail["missing"] == 3
    assert find(tmp_path, GRAPH[:-2]).detail["missing"] == 2


def test_an_index_tells_how_many_data_files_it_has(tmp_path: Path) -> None:
    assert find(tmp_path, FILES["V2 index"][1]).detail["num_shards"] == 2


@pytest.mark.parametrize("kind", ["v1", "v2-index"])
def test_a_damaged_table_is_still_known(tmp_path: Path, kind: str) -> None:
    file = LegacyFile()
    file.add("w", np.float32(1))
    data = {"v1": file.data(), "v2-index": FILES["V2 index"][1]}[kind]
    flipped = bytearray(data)
    flipped[-60] ^= 1
    for damaged in [bytes(flipped), data + b"\n"]:
        identity = find(tmp_path, damaged)
        assert identity.kind == kind
        assert identity.detail["damage"]


def test_state_files_tell_what_they_list(tmp_path: Path) -> None:
    text = b'model_checkpoint_path: "m-2"\nall_model_checkpoint_paths: "m-1"\n'
    assert find(tmp_path, text).detail == {"latest": "m-2", "paths": ("m-1",)}
    assert "damage" in find(tmp_path, b"model_checkpoint_path: m-2").detail


def test_arrays_tell_their_type_and_shape(tmp_path: Path) -> None:
    assert find(tmp_path, NPY).detail == {"dtype": "<f4", "shape": (2, 3)}


@pytest.mark.parametrize(
    "data",
    [
        zipped(**{"README": b"", "m/variables.index": b"", "m/variables.data-00000-of-00001": b""}),
        tarred("README", "m/variables.index", "m/variables.data-00000-of-00001"),
        tarred(
            "README",
            "m/variables.index",
            "m/variables.data-00000-of-00001",
            format=tarfile.GNU_FORMAT,
        ),
        gzip.compress(tarred("README", "m/variables.index", "m/variables.data-00000-of-00001")),
    ],
    ids=["zip", "tar", "GNU tar", "tar in gzip"],
)
def test_archives_tell_the_checkpoints_inside_by_name(tmp_path: Path, data: bytes) -> None:
    identity = find(tmp_path, data)
    assert identity.contains == ("m/variables.index", "m/variables.data-00000-of-00001")
    assert "'m/variables.index'" in identity.advice


@pytest.mark.parametrize("format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_long_names_in_tar_archives_are_whole(tmp_path: Path, format: int) -> None:
    name = "/".join(["directory" * 4] * 4) + "/model.ckpt-1.index"
    assert find(tmp_path, tarred("a", name, format=format)).contains == (name,)


def test_a_gzip_stream_tells_the_name_it_keeps(tmp_path: Path) -> None:
    out = io.BytesIO()
    with gzip.GzipFile("model.ckpt.meta", "wb", fileobj=out) as stream:
        stream.write(b"hello")
    assert find(tmp_path, out.getvalue()).contains == ("model.ckpt.meta",)


def test_checkpoints_in_a_zstandard_stream_are_found(tmp_path: Path) -> None:
    zstandard = pytest.importorskip("zstandard")
    data = zstandard.ZstdCompressor().compress(tarred("m/saved_model.pb"))
    assert find(tmp_path, data).contains == ("m/saved_model.pb",)
    assert find(tmp_path, data[:-20]).kind == "zstd"


# ---- data files


def write_bundle(tmp_path: Path, **arrays: np.ndarray[tuple[int, ...], np.dtype[np.int32]]) -> Path:
    bundle = builder.Bundle()
    for name, array in arrays.items():
        bundle.add(name, array)
    bundle.write(tmp_path / "m")
    return tmp_path / "m.data-00000-of-00001"


def test_a_data_file_is_known_by_the_index_beside_it(tmp_path: Path) -> None:
    data = write_bundle(tmp_path, w=np.arange(9, dtype=np.int32))
    identity = identify(data)
    assert identity.kind == "v2-shard"
    assert identity.detail == {"prefix": str(tmp_path / "m"), "shard": 0, "num_shards": 1}


@pytest.mark.parametrize("count", [0, 1000])
def test_a_data_file_may_be_empty_or_of_zeros_by_right(tmp_path: Path, count: int) -> None:
    data = write_bundle(tmp_path, w=np.zeros(count, np.int32))
    assert identify(data).kind == "v2-shard"


@pytest.mark.parametrize(("content", "kind"), [(b"\0" * 36, "zeros"), (b"", "empty")])
def test_a_data_file_that_lost_its_content_is_known(
    tmp_path: Path, content: bytes, kind: str
) -> None:
    data = write_bundle(tmp_path, w=np.arange(9, dtype=np.int32))
    data.write_bytes(content)
    assert identify(data).kind == kind


def test_a_data_file_that_was_cut_off_is_known(tmp_path: Path) -> None:
    data = write_bundle(tmp_path, w=np.arange(9, dtype=np.int32))
    data.write_bytes(data.read_bytes()[:-5])
    identity = identify(data)
    assert identity.kind == "truncated"
    assert (identity.detail["of"], identity.detail["missing"]) == ("v2-shard", 5)


def test_a_data_file_that_is_a_pointer_or_a_page_is_known(tmp_path: Path) -> None:
    data = write_bundle(tmp_path, w=np.arange(9, dtype=np.int32))
    for content, kind in [(POINTER, "lfs-pointer"), (PAGE, "html"), (MANGLED, "mangled-text")]:
        data.write_bytes(content)
        assert identify(data).kind == kind


def test_a_data_file_without_its_index_says_so(tmp_path: Path) -> None:
    data = write_bundle(tmp_path, w=np.arange(9, dtype=np.int32))
    (tmp_path / "m.index").unlink()
    identity = identify(data)
    assert identity.kind == "v2-shard"
    assert identity.detail["index"] == "missing or unreadable"


# ---- prefixes and directories


def test_a_prefix_is_known_by_its_index(tmp_path: Path) -> None:
    write_bundle(tmp_path, w=np.arange(9, dtype=np.int32))
    identity = identify(tmp_path / "m")
    assert (identity.kind, identity.path) == ("v2-prefix", str(tmp_path / "m"))
    assert identity.detail["num_shards"] == 1


def test_a_prefix_with_files_missing_names_them(tmp_path: Path) -> None:
    data = write_bundle(tmp_path, w=np.arange(9, dtype=np.int32))
    data.unlink()
    identity = identify(tmp_path / "m")
    assert identity.detail["missing"] == (str(data),)
    assert "1 of its 1 data files" in identity.advice


def test_a_prefix_whose_index_is_a_pointer_is_that(tmp_path: Path) -> None:
    (tmp_path / "m.index").write_bytes(POINTER)
    identity = identify(tmp_path / "m")
    assert (identity.kind, identity.path) == ("lfs-pointer", str(tmp_path / "m.index"))


def test_a_prefix_of_data_files_alone_has_lost_its_index(tmp_path: Path) -> None:
    write_bundle(tmp_path, w=np.arange(9, dtype=np.int32))
    (tmp_path / "m.index").unlink()
    identity = identify(tmp_path / "m")
    assert (identity.kind, identity.detail["index"]) == ("v2-prefix", "missing")


def test_v1_files_are_known_by_prefix_and_pattern(tmp_path: Path) -> None:
    for shard in range(2):
        LegacyFile().write(tmp_path / f"m-{shard:05d}-of-00002")
    for spelling in ["m", "m-?????-of-00002"]:
        identity = identify(tmp_path / spelling)
        assert identity.kind == "v1"
        assert len(identity.detail["files"]) == 2  # type: ignore[arg-type]


def test_a_path_at_which_there_is_nothing_tells_what_is_near(tmp_path: Path) -> None:
    write_bundle(tmp_path, w=np.arange(9, dtype=np.int32))
    with pytest.raises(CheckpointNotFoundError, match=r"There is: .*/m"):
        identify(tmp_path / "other")
    for path in [tmp_path / "absent" / "m", "a\0b", ""]:
        with pytest.raises(CheckpointNotFoundError):
            identify(path)


def test_a_link_to_nothing_says_where_it_leads(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("gone")
    with pytest.raises(CheckpointNotFoundError, match="'gone'"):
        identify(tmp_path / "link")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs here")
def test_a_fifo_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    assert identify(tmp_path / "fifo").detail["what"] == "not a regular file"


@pytest.mark.parametrize("name", ["saved_model.pb", "saved_model.pbtxt", "saved_model.cpb"])
def test_a_saved_model_is_known_by_its_graph_file(tmp_path: Path, name: str) -> None:
    texts = {"pb": "SavedModel", "pbtxt": "SavedModel, text", "cpb": "SavedModel, chunked"}
    (tmp_path / name).write_bytes(FILES[texts[name.rpartition(".")[2]]][1])
    identity = identify(f"{tmp_path}/")
    assert identity.kind == "savedmodel"
    assert identity.detail == {"graph": name, "variables": False}


def test_a_hub_module_is_a_saved_model_with_a_description(tmp_path: Path) -> None:
    (tmp_path / "saved_model.pb").write_bytes(SAVED_MODEL)
    (tmp_path / "tfhub_module.pb").write_bytes(b"\x08\x03")
    assert identify(tmp_path).kind == "hub-module"


def test_a_saved_model_whose_graph_is_a_pointer_is_that(tmp_path: Path) -> None:
    (tmp_path / "saved_model.pb").write_bytes(POINTER)
    identity = identify(tmp_path)
    assert (identity.kind, identity.path) == ("lfs-pointer", str(tmp_path / "saved_model.pb"))


def test_a_saved_model_whose_graph_is_lost_still_has_its_variables(tmp_path: Path) -> None:
    (tmp_path / "variables").mkdir()
    bundle = builder.Bundle()
    bundle.add("w", np.arange(9, dtype=np.int32))
    bundle.write(tmp_path / "variables" / "variables")
    (tmp_path / "saved_model.pb").write_bytes(b"\n")
    identity = identify(tmp_path)
    assert identity.kind == "savedmodel"
    assert identity.detail["variables"] is True
    assert "saved_model.pb is" in str(identity.detail["damage"])


def test_a_directory_tells_the_checkpoints_in_it(tmp_path: Path) -> None:
    write_bundle(tmp_path, w=np.arange(9, dtype=np.int32))
    LegacyFile().write(tmp_path / "old")
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "old"')
    identity = identify(tmp_path)
    assert (identity.kind, identity.contains) == ("directory", ("m", "old"))
    assert identity.detail["state_file"] is True


def test_a_directory_tells_its_v1_files(tmp_path: Path) -> None:
    LegacyFile().write(tmp_path / "old")
    (tmp_path / "notes").write_text("x")
    identity = identify(tmp_path)
    assert (identity.kind, identity.contains) == ("directory", ("old",))


def test_an_index_that_went_through_a_text_filter_is_known(tmp_path: Path) -> None:
    write_bundle(tmp_path, w=np.arange(9, dtype=np.int32))
    index = tmp_path / "m.index"
    index.write_bytes(index.read_bytes().decode("utf-8", "replace").encode())
    assert identify(index).kind == "mangled-text"
    assert identify(find(tmp_path, SAVED_MODEL).path).kind == "saved-model-pb"


def test_an_empty_directory_is_a_directory(tmp_path: Path) -> None:
    assert identify(tmp_path).kind == "directory"
    assert identify(tmp_path).contains == ()


# ---- interrupted saves


@pytest.mark.checklist(124)
def test_the_data_of_an_interrupted_save_is_known(fixtures: Path) -> None:
    directory = fixtures / "crash" / "data_tempstate"
    (leftover,) = directory.glob("*.tempstate*")
    identity = identify(leftover)
    assert identity.kind == "interrupted-save"
    assert "recover" in identity.advice
    prefix = directory / leftover.name.partition(".data-")[0]
    assert identify(prefix).kind == "interrupted-save"
    assert identify(directory).kind == "interrupted-save"


@pytest.mark.checklist(125)
def test_the_index_of_an_interrupted_save_is_known_by_its_content(fixtures: Path) -> None:
    directory = fixtures / "crash" / "index_tempstate"
    (leftover,) = directory.glob("*.index.tempstate*")
    identity = identify(leftover)
    assert identity.kind == "interrupted-save"
    assert identity.detail["of"] == "v2-index"
    with pytest.raises(NotACheckpointError, match="interrupted"):
        ckptparse.open(leftover)


def test_a_directory_of_parts_is_an_interrupted_save(tmp_path: Path) -> None:
    parts = tmp_path / "model_temp"
    parts.mkdir()
    for number in range(2):
        bundle = builder.Bundle()
        bundle.add("w", np.arange(9, dtype=np.int32))
        bundle.write(parts / f"part-{number:05d}-of-00002")
    assert identify(parts).kind == "interrupted-save"
    assert identify(tmp_path / "model").kind == "interrupted-save"
    assert identify(tmp_path).kind == "interrupted-save"
    assert identify(parts / "part-00000-of-00002").kind == "v2-prefix"


def test_an_empty_leftover_is_empty(tmp_path: Path) -> None:
    assert find(tmp_path, b"", "m.index.tempstate123").kind == "empty"


# ---- errors of open and read


@pytest.mark.parametrize(
    "name",
    [
        name
        for name, (kind, _) in FILES.items()
        if kind not in {"v1", "v2-index", "graph", "meta-graph", "truncated", "state-file"}
        # An archive with the name of an index in it is read as the checkpoint that is in it.
        and name not in {"zip", "tar", "tar in gzip"}
    ],
)
@pytest.mark.parametrize("function", [ckptparse.open, ckptparse.read, ckptparse.open_graph])
def test_what_is_no_checkpoint_is_named_by_the_error(
    tmp_path: Path, name: str, function: Callable[[Path], object]
) -> None:
    kind, data = FILES[name]
    (tmp_path / "model.ckpt").write_bytes(data)
    with pytest.raises(NotACheckpointError) as caught:
        function(tmp_path / "model.ckpt")
    assert caught.value.identity.kind == kind
    assert caught.value.identity.meaning in str(caught.value)
    assert caught.value.hint


@pytest.mark.parametrize("name", ["LFS pointer", "page", "mangled", "zip", "PyTorch", "npy"])
def test_an_index_that_is_something_else_is_named_by_the_error(tmp_path: Path, name: str) -> None:
    kind, data = FILES[name]
    (tmp_path / "m.index").write_bytes(data)
    for spelling in ["m", "m.index"]:
        with pytest.raises(NotACheckpointError) as caught:
            ckptparse.read(tmp_path / spelling)
        assert caught.value.identity.kind == kind


@pytest.mark.parametrize("name", ["empty", "zeros", "noise", "cut V2 index"])
def test_an_index_that_is_lost_is_a_loss_of_data(tmp_path: Path, name: str) -> None:
    (tmp_path / "m.index").write_bytes(FILES[name][1])
    with pytest.raises(ckptparse.DataLossError, match="sstable"):
        ckptparse.read(tmp_path / "m")


def test_the_error_and_what_it_found_can_be_sent_to_another_process(tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(POINTER)
    with pytest.raises(NotACheckpointError) as caught:
        ckptparse.open(tmp_path / "m")
    copy = pickle.loads(pickle.dumps(caught.value))  # noqa: S301
    assert copy.identity == caught.value.identity
    assert str(copy) == str(caught.value)
    assert hash(copy.identity) == hash(caught.value.identity)


# ---- cost, and hostile files


def test_a_large_file_is_not_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.write(np.random.default_rng(1).bytes(1000))
        file.seek(1 << 33)
        file.write(b"end")
    with counted_reads() as reads:
        assert identify(path).kind == "unknown"
    assert reads.bytes_of() < MEGABYTE


def test_zeros_of_any_size_are_zeros(tmp_path: Path) -> None:
    path = tmp_path / "zeros"
    with path.open("wb") as file:
        file.truncate(1 << 34)
    with counted_reads() as reads:
        identity = identify(path)
    assert identity.kind == "zeros"
    assert identity.detail["sampled_bytes"] == reads.bytes_of()
    with path.open("r+b") as file:
        file.truncate(10 * MEGABYTE)
        file.seek(5 * MEGABYTE)
        file.write(b"\1")
    assert identify(path).kind == "unknown"


def test_a_bomb_is_unpacked_no_further_than_allowed(tmp_path: Path) -> None:
    bomb = gzip.compress(tarred("a")[:512] + bytes(200 * MEGABYTE), compresslevel=1)
    path = tmp_path / "bomb"
    path.write_bytes(bomb)
    identity = identify(path, limits=ckptparse.Limits(decompressed_bytes=1 << 16))
    assert identity.kind == "gzip"


def test_counts_that_a_file_only_claims_cost_nothing(tmp_path: Path) -> None:
    end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 65535, 65535, 1 << 31, 1 << 31, 0)
    assert find(tmp_path, b"PK\x03\x04" + end).kind == "truncated"
    assert find(tmp_path, struct.pack("<Q", 1 << 62) + b'{"a').kind == "unknown"
    assert find(tmp_path, field(1, NODE) + b"\x0a\xff\xff\xff\xff\x0f").kind == "truncated"


@pytest.mark.parametrize(
    "data",
    [
        b" " * 65_000 + b"1",
        b"<!---->" * 9000 + b"1",
        b"<!--" * 16_000,
        b"<html>" + b"<title>" * 9000,
        b"# a\n" * 16_000,
        b"node {\n" + b"x" * 200_000 + b"\n" + b"y" * 60_000,
        b"node {" + b'"' * 60_000,
        b"node {" + b"\\" * 60_000,
        b"model_checkpoint_path: " + b"'" * 60_001,
        b"\x93NUMPY" + b"'descr': 'a" * 6000,
        b"\0\0\0" * 20_000 + b"\1",
    ],
)
def test_text_made_to_be_slow_is_not(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)
    start = time.process_time()
    assert identify(path).kind in KINDS
    assert time.process_time() - start < 2


@given(st.binary(max_size=300), st.sampled_from([data for _, data in FILES.values()]))
def test_no_bytes_make_it_fail(
    tmp_path_factory: pytest.TempPathFactory, noise: bytes, start: bytes
) -> None:
    path = tmp_path_factory.mktemp("any") / "file"
    for data in [noise, start[:200] + noise, noise + start[-200:]]:
        path.write_bytes(data)
        assert identify(path).kind in KINDS


@given(st.sampled_from(sorted(FILES)), st.integers(0, 5000), st.integers(0, 255))
def test_no_changed_byte_makes_it_fail(
    tmp_path_factory: pytest.TempPathFactory, name: str, offset: int, value: int
) -> None:
    data = bytearray(FILES[name][1][:5000] or b"x")
    data[offset % len(data)] = value
    path = tmp_path_factory.mktemp("any") / "file"
    path.write_bytes(data)
    assert identify(path).kind in KINDS


@pytest.mark.parametrize("values", [{"a/w": np.zeros(3, np.float32)}, {}])
def test_an_archive_of_arrays_that_convert_wrote_is_one(
    values: dict[str, np.ndarray[Any, Any]], tmp_path: Path
) -> None:
    ckptparse.convert(values, tmp_path / "x.npz")
    assert ckptparse.identify(tmp_path / "x.npz").kind == "npz"


def test_what_is_unknown_may_be_a_disk_image(tmp_path: Path) -> None:
    (tmp_path / "disk.img").write_bytes(bytes(range(1, 256)) * 40)
    assert "ckptparse.scan" in ckptparse.identify(tmp_path / "disk.img").advice


@pytest.mark.parametrize("most", [3, 50, 10_000])
@pytest.mark.parametrize("damage", [None, 300, 4000])
def test_the_first_entries_of_an_index_are_the_same_read_together_and_one_by_one(
    tmp_path: Path, most: int, damage: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "_MOST_ENTRIES", most)
    made = builder.Bundle()
    for number in range(200):
        made.add(f"n{number:03}", np.arange(number % 7, dtype=np.float32), shard=number % 2)
    made.add("strings", [b"a", b"bc"])
    made.add_sliced("sliced", np.zeros((4, 4), np.float32), [[(0, 2), None], [(2, 2), None]])
    made.write(tmp_path / "m", block_size=256)
    index = bytearray((tmp_path / "m.index").read_bytes())
    if damage is not None:
        index[damage] ^= 0xFF
    (tmp_path / "m.index").write_bytes(index)
    found = tables._open_index(str(tmp_path / "m.index"), Context())
    try:
        again = EntryColumns.of_entries(_read_singly(tmp_path / "m.index", most))
    except CheckpointError:
        assert found is None
        return
    assert found is not None
    assert found[0] == 2
    for column in ("data_types", "shard_ids", "offsets", "sizes", "crcs"):
        assert getattr(found[1], column).tolist() == getattr(again, column).tolist()
    assert found[1].shapes == again.shapes
    assert bool(len(found[1]))


def _read_singly(path: Path, most: int) -> list[BundleEntry]:
    """Read the first entries of an index of two data files, but for those of tensors in slices."""
    source = MemorySource(str(path), path.read_bytes())
    items = islice(Table.open(source, limits=DEFAULT_LIMITS).items(), 1 + most)
    found = [
        decode_entry(value, num_shards=2, limits=DEFAULT_LIMITS) for key, value in items if key
    ]
    return [one for one in found if not one.slices]
