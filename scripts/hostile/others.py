"""What other programs write around weights: rules, links, old HDF5, reports, long lists."""

from __future__ import annotations

import io
import json
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import builder as b
import h5py
import numpy as np

import ckptparse
from hostile import named
from hostile.files import LEAST, _keras, _npy, _record, _safetensors, _save, _write

__all__ = ["KINDS"]


def _text(name: str, make: Callable[[int], str]) -> Callable[[Path, int], Path]:
    """Write one file of text."""

    def write(directory: Path, size: int) -> Path:
        return _write(directory, make(size).encode("utf-8", "surrogatepass"), name)

    return write


def _lines(size: int, line: str) -> str:
    return "".join(line.format(number) for number in range(size // len(line.format(size))))


# ---- rules, for `rules`

_RULES = {
    "rules that rename": lambda size: _lines(
        size, "[[rename]]\npattern='d{}'\nreplacement='{}'\n".replace("{}'\n", "'\n")
    ),
    "rules that drop": lambda size: f"drop=[{_lines(size, chr(39) + 'd{}' + chr(39) + ',')}]",
    "rules that double": lambda size: (
        "[[rename]]\npattern='.+'\nreplacement='\\g<0>\\g<0>'\n" * min(60, size // 50)
    ).ljust(size),
    "rules that lengthen": lambda size: (
        ("[[rename]]\npattern='.'\nreplacement='" + "\\g<0>" * (size // 10) + "'\n") * 2
    ),
    "rules of tables": lambda size: _lines(size, "[about.t{}]\n"),
    "rules of dotted keys": lambda size: "about." + "a." * (size // 2) + "a=1",
    "rules of keys": lambda size: _lines(size, "about.k{}=1\n"),
    "rules of brackets": lambda size: "about=" + "[" * (size // 2) + "]" * (size // 2),
    "rules of objects": lambda size: "about=[" + "{}," * (size // 3) + "]",
    "rules of numbers": lambda size: "about=[" + "1," * (size // 2) + "]",
    "rules of one pattern": lambda size: "drop=['" + "a" * size + "']",
    "rules of choices": lambda size: "drop=['" + _lines(size, "a{}|") + "']",
    "rules of repeats": lambda size: (
        "drop=['" + "(?:" * 90 + "a{2}" * (size // 8) + "){9}" * 90 + "']"
    ),
    "rules of strings": lambda size: 'about="""' + "a\\\n" * (size // 3) + '"""',
    "rules that split": lambda size: (
        "[[split]]\npattern='kernel'\nnames=[" + _lines(size, "'n{}',") + "]"
    ),
    "rules that turn": lambda size: (
        "[[transpose]]\npattern='kernel'\naxes=[" + _lines(size, "{},") + "]"
    ),
}


# ---- zip archives


def zip_comments(directory: Path, size: int) -> Path:
    """A zip archive of members with long comments."""
    path = directory / "m.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(max(1, size // 60_000)):
            info = zipfile.ZipInfo(f"m{number:05}.index")
            info.comment = b"c" * 60_000
            archive.writestr(info, b"")
    return path


def zip_same_names(directory: Path, size: int) -> Path:
    """A zip archive of members of one name."""
    path = directory / "m.zip"
    index = b.Bundle().index()
    with zipfile.ZipFile(path, "w") as archive:
        for _ in range(max(LEAST, size // (120 + len(index)))):
            archive.filelist.clear()
            archive.NameToInfo.clear()
            archive.writestr("m.index", index)
        archive.writestr("m.data-00000-of-00001", b"")
    return path


def zip_without_directory(directory: Path, size: int) -> Path:
    """A zip archive that was cut: its members are known by their own headers."""
    index = b.Bundle().index()
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        for number in range(max(LEAST, size // (60 + len(index)))):
            archive.writestr(f"m{number:05}.index", index)
        end = archive.fp.tell()  # type: ignore[union-attr]
    return _write(directory, held.getvalue()[:end], "m.zip")


def zip_of_headers(directory: Path, size: int) -> Path:
    """Nothing but the magic of members' headers."""
    return _write(directory, b"PK\3\4" * (size // 4), "m.zip")


def zip_long_names(directory: Path, size: int) -> Path:
    """A zip archive of members with names of 60 KB that share nearly all."""
    path = directory / "m.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(max(2, size // 120_100)):
            archive.writestr("a" * 60_000 + f"{number:05}.index", b"")
    return path


# ---- tar archives


def _tar(path: Path, infos: Any) -> Path:
    with path.open("wb") as file:
        for info in infos:
            file.write(info.tobuf(tarfile.GNU_FORMAT))
        file.write(bytes(1024))
    return path


def _link(name: str, to: str, kind: bytes) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, to
    return info


def tar_links(directory: Path, size: int) -> Path:
    """A tar archive of links, of which each leads to the next one."""
    count = max(2, size // 512)
    infos = (_link(f"m{n}.index", f"m{n + 1}.index", tarfile.SYMTYPE) for n in range(count))
    return _tar(directory / "m.tar", infos)


def tar_hard_links(directory: Path, size: int) -> Path:
    """A tar archive of hard links, of which each is the one before it."""
    count = max(2, size // 512)
    infos = (_link(f"m{n + 1}.index", f"m{n}.index", tarfile.LNKTYPE) for n in range(count))
    return _tar(directory / "m.tar", infos)


def tar_folder_links(directory: Path, size: int) -> Path:
    """A tar archive of links to a directory that holds them."""
    count = max(2, size // 512)
    infos = (_link(f"a/l{n}", f"../a/l{(n * 7) % count}", tarfile.SYMTYPE) for n in range(count))
    return _tar(directory / "m.tar", infos)


def tar_long_links(directory: Path, size: int) -> Path:
    """A tar archive of links whose targets have names of their own, of many parts each."""
    count = max(2, size // 10_000)
    infos = (_link(f"m{n}.index", "../a/" * 1600, tarfile.SYMTYPE) for n in range(count))
    return _tar(directory / "m.tar", infos)


def tar_gnu_names(directory: Path, size: int) -> Path:
    """A tar archive of nothing but headers that say the next one's name."""
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 512
    one = header.tobuf() + b"a" * 511 + b"\0"
    return _write(directory, one * max(2, size // 1024) + bytes(1024), "m.tar")


def tar_sparse_maps(directory: Path, size: int) -> Path:
    """A tar archive of one sparse member whose map goes on and on."""
    info = tarfile.TarInfo("m.data-00000-of-00001")
    info.type = tarfile.GNUTYPE_SPARSE
    head = bytearray(info.tobuf())
    head[482] = 1
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    one = (b"%011o\0" % 0 + b"%011o\0" % 1) * 21 + b"\1" + bytes(7)
    return _write(directory, bytes(head) + one * max(2, size // 512) + bytes(1024), "m.tar")


# ---- HDF5, as old libraries write it


def _old(fill: Callable[[Any, int], None]) -> Callable[[Path, int], Path]:
    def make(directory: Path, size: int) -> Path:
        path = directory / "m.h5"
        with h5py.File(path, "w", libver="earliest") as file:
            fill(file, size)
        return path

    make.__name__ = fill.__name__
    return make


@_old
def hdf5_old_groups(file: Any, size: int) -> None:
    """Groups with symbol tables."""
    for number in range(max(LEAST, size // 900)):
        file.create_group(f"g{number}")


@_old
def hdf5_old_scalars(file: Any, size: int) -> None:
    """Scalars in one group with a symbol table."""
    for number in range(max(LEAST, size // 400)):
        file[f"w{number}"] = np.float32(1)


@_old
def hdf5_soft_links(file: Any, size: int) -> None:
    """Links by name, of which each leads to the next one."""
    for number in range(max(LEAST, size // 60)):
        file[f"l{number}"] = h5py.SoftLink(f"/l{number + 1}")


@_old
def hdf5_external_links(file: Any, size: int) -> None:
    """Links to other files."""
    for number in range(max(LEAST, size // 80)):
        file[f"l{number}"] = h5py.ExternalLink("m.h5", f"/l{number + 1}")


@_old
def hdf5_fields(file: Any, size: int) -> None:
    """Elements of very many fields."""
    count = min(900, size // 60)
    kind = np.dtype([(f"f{number}", "<f4") for number in range(count)])
    for number in range(max(1, size // (60 * count))):
        file.create_dataset(f"w{number}", (1,), kind)


@_old
def hdf5_references(file: Any, size: int) -> None:
    """References to one dataset."""
    file["w"] = np.float32(1)
    held = np.array([file["w"].ref] * (size // 8), h5py.ref_dtype)
    file.create_dataset("refs", data=held, dtype=h5py.ref_dtype)


@_old
def hdf5_old_pieces(file: Any, size: int) -> None:
    """One dataset in pieces of 8 bytes, in a B-tree of the old kind."""
    count = size // 60
    file.create_dataset("w", (count,), np.float64, chunks=(1,))[...] = 1


@_old
def hdf5_keras_names(file: Any, size: int) -> None:
    """The weights of Keras 2: each group names its weights, over and over."""
    group = file.create_group("model_weights")
    names = [b"g%05d" % number for number in range(min(3000, size // 1200))]
    group.attrs["layer_names"] = np.array(names, "S6")
    for name in names:
        one = group.create_group(name)
        one.attrs["weight_names"] = np.array([b"a/b:0"], "S5")
        one.create_group("a").create_dataset("b:0", data=np.float32(1))
    file.attrs["keras_version"] = "2.4"


@_old
def hdf5_keras_config(file: Any, size: int) -> None:
    """A configuration of Keras in an attribute, as long as attributes are."""
    layer = '{"class_name":"Dense","config":{"name":"d","units":2,"batch_input_shape":[null,2]}}'
    for part in range(max(1, size // 60_000)):
        layers = ",".join([layer] * (60_000 // len(layer)))
        text = f'{{"class_name":"Sequential","config":{{"layers":[{layers}]}}}}'
        file.attrs["model_config" if not part else f"c{part}"] = np.bytes_(text[:64_000])
    file.create_group("model_weights").create_dataset("w", data=np.zeros((2, 2), np.float32))


# ---- Keras 3


def keras_paths(directory: Path, size: int) -> Path:
    """Weights of very many layers of one class, which the configuration names in turn."""
    count = max(LEAST, size // 1500)
    layers = [
        {"class_name": "Dense", "config": {"name": f"dense_{n}", "units": 2}} for n in range(count)
    ]
    held = io.BytesIO()
    with h5py.File(held, "w", libver="latest") as file:
        for number in range(count):
            name = f"layers/dense_{number}/vars" if number else "layers/dense/vars"
            file[f"{name}/0"] = np.zeros((2, 2), np.float32)
    path = directory / "m.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", b'{"keras_version": "3.0.0"}')
        told = {"class_name": "Sequential", "config": {"name": "m", "layers": layers}}
        archive.writestr("config.json", json.dumps(told))
        archive.writestr("model.weights.h5", held.getvalue())
    return path


def _config(make: Callable[[int], Any]) -> Callable[[Path, int], Path]:
    def write(directory: Path, size: int) -> Path:
        return _keras(directory, json.dumps(make(size)).encode())

    return write


def _of_layers(one: Any, size: int) -> Any:
    count = max(LEAST, size // len(json.dumps(one)))
    return {"class_name": "Functional", "config": {"name": "m", "layers": [one] * count}}


def _inside(kind: str, key: str, depth: int, size: int) -> Any:
    """A layer in a layer, many times, and this as often as it fits."""
    one: Any = {"class_name": "Dense", "config": {"name": "d", "units": 2}}
    for _ in range(depth):
        one = {"class_name": kind, "config": {"name": "w", key: one}}
    return _of_layers(one, size)


_CONFIGS = {
    "keras wrapped": lambda size: _inside("Bidirectional", "layer", 20, size),
    "keras distributed": lambda size: _inside("TimeDistributed", "layer", 100, size),
    "keras cells": lambda size: _of_layers(
        {
            "class_name": "RNN",
            "config": {
                "name": "r",
                "cell": {
                    "class_name": "StackedRNNCells",
                    "config": {
                        "cells": [{"class_name": "LSTMCell", "config": {"name": "c", "units": 2}}]
                        * 200
                    },
                },
            },
            "build_config": {"input_shape": [None, 3, 2]},
        },
        size,
    ),
    "keras calls": lambda size: _of_layers(
        {
            "class_name": "Dense",
            "config": {"name": "d", "units": 2},
            "inbound_nodes": [
                {
                    "args": [
                        {
                            "class_name": "__keras_tensor__",
                            "config": {"shape": [None, 2], "keras_history": ["d", 0, 0]},
                        }
                    ],
                    "kwargs": {},
                }
            ]
            * 20,
        },
        size,
    ),
    "keras equations": lambda size: _of_layers(
        {
            "class_name": "EinsumDense",
            "config": {
                "name": "e",
                "equation": "a" * 3000 + ",b->" + "c" * 3000,
                "output_shape": [1] * 300,
                "bias_axes": "abc" * 300,
            },
            "build_config": {"input_shape": [None, 2]},
        },
        size,
    ),
    "keras large units": lambda size: _of_layers(
        {
            "class_name": "MultiHeadAttention",
            "config": {"name": "a", "num_heads": 10**18, "key_dim": 10**18},
            "build_config": {"query_shape": [None] + [10**18] * 20, "value_shape": [None, 2]},
        },
        size,
    ),
}


# ---- safetensors


def safetensors_kinds(directory: Path, size: int) -> Path:
    """Tensors that were stored as other kinds, with a text in a text that says which."""
    count = max(LEAST, size // 110)
    told: dict[str, Any] = {
        f"w{n}": {"dtype": "U8", "shape": [1], "data_offsets": [n, n + 1]} for n in range(count)
    }
    kinds = {f"w{n}": ["STRING", [1]] for n in range(count)}
    told["__metadata__"] = {"ckptparse.kinds": json.dumps(kinds)}
    return _safetensors(directory, json.dumps(told).encode(), bytes(count))


def safetensors_kind(directory: Path, size: int) -> Path:
    """A tensor that was stored as strings of no bytes, as many as fit."""
    told = {
        "w": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]},
        "__metadata__": {"ckptparse.kinds": json.dumps({"w": ["STRING", [size]]})},
    }
    return _safetensors(directory, json.dumps(told).encode(), bytes(size))


def safetensors_same_name(directory: Path, size: int) -> Path:
    """A header that says one name again and again."""
    one = '"w":{"dtype":"F32","shape":[],"data_offsets":[0,4]},'
    header = "{" + one * (size // len(one)) + one[:-1] + "}"
    return _safetensors(directory, header.encode(), bytes(4))


def safetensors_parts(directory: Path, size: int) -> Path:
    """An index of parts, each of which is one and the same file."""
    _safetensors(directory, b'{"w":{"dtype":"F32","shape":[],"data_offsets":[0,4]}}', bytes(4))
    told = {"weight_map": {f"w{n}": "m.safetensors" for n in range(max(LEAST, size // 26))}}
    return _write(directory, json.dumps(told).encode(), "m.safetensors.index.json")


def safetensors_lost_parts(directory: Path, size: int) -> Path:
    """An index of parts of which none is there."""
    told = {"weight_map": {f"w{n}": f"m-{n}.safetensors" for n in range(max(LEAST, size // 34))}}
    return _write(directory, json.dumps(told).encode(), "m.safetensors.index.json")


def safetensors_many_parts(directory: Path, size: int) -> Path:
    """An index of parts, each of one scalar."""
    count = max(LEAST, size // 150)
    for number in range(count):
        header = b'{"w%d":{"dtype":"F32","shape":[],"data_offsets":[0,4]}}' % number
        _write(directory, b.fixed64(len(header)) + header + bytes(4), f"m-{number}.safetensors")
    told = {"weight_map": {f"w{n}": f"m-{n}.safetensors" for n in range(count)}}
    return _write(directory, json.dumps(told).encode(), "m.safetensors.index.json")


def safetensors_surrogates(directory: Path, size: int) -> Path:
    """A header of names in escapes, each character in two halves."""
    one = '"{}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}'
    name = "\\ud83d\\ude00" * 20
    parts = (one.format(f"{name}{n}") for n in range(max(LEAST, size // 300)))
    return _safetensors(directory, ("{" + ",".join(parts) + "}").encode())


# ---- numpy


def npz_same_names(directory: Path, size: int) -> Path:
    """An npz file of members of one name."""
    told = b"{'descr': '<f4', 'fortran_order': False, 'shape': (), }"
    path = directory / "m.npz"
    with zipfile.ZipFile(path, "w") as archive:
        for _ in range(max(LEAST, size // 260)):
            archive.NameToInfo.clear()
            archive.writestr("w.npy", _npy(told, bytes(4)))
    return path


def npz_of_records(directory: Path, size: int) -> Path:
    """An npz file of elements with fields in fields."""
    kind = b"'<f4'"
    for _ in range(60):
        kind = b"[('a', " + kind + b")]"
    told = b"{'descr': " + kind + b", 'fortran_order': False, 'shape': (1,), }"
    path = directory / "m.npz"
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(max(LEAST, size // (len(told) + 150))):
            archive.writestr(f"w{number}.npy", _npy(told, bytes(4)))
    return path


def npz_of_texts(directory: Path, size: int) -> Path:
    """An npz file of one array of texts, of which each takes four bytes a character."""
    told = b"{'descr': '<U1', 'fortran_order': False, 'shape': (%d,), }" % (size // 4)
    path = directory / "m.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("w.npy", _npy(told, struct.pack("<I", 97) * (size // 4)))
    return path


def npz_of_no_characters(directory: Path, size: int) -> Path:
    """The same, of which the last text is half a character."""
    told = b"{'descr': '<U1', 'fortran_order': False, 'shape': (%d,), }" % (size // 4)
    path = directory / "m.npz"
    texts = struct.pack("<I", 97) * (size // 4 - 1) + struct.pack("<I", 0xD800)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("w.npy", _npy(told, texts))
    return path


def npz_of_bytes(directory: Path, size: int) -> Path:
    """An npz file of one array of strings of a byte."""
    told = b"{'descr': '|S1', 'fortran_order': False, 'shape': (%d,), }" % size
    path = directory / "m.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("w.npy", _npy(told, b"a" * size))
    return path


# ---- TFLite, events, reports, maps, messages


def tflite_vectors(directory: Path, size: int) -> Path:
    """A TFLite file of vectors of the size that is sought, one in another."""
    return _write(directory, b"\x1c\0\0\0TFL3" + b.fixed32(8000) * (size // 4), "m.tflite")


def event_texts(directory: Path, size: int) -> Path:
    """An event file of summaries with a tensor each."""
    tensor = b.field(1, b.field(1, b"t") + b.field(8, b.field(1, 1) + b.field(5, bytes(4))))
    data = _record(b"\x1a\x0dbrain.Event:2")
    return _write(
        directory, data + _record(b.field(5, tensor)) * (size // 48), "events.out.tfevents.1"
    )


def event_one_record(directory: Path, size: int) -> Path:
    """An event file of one record, which is a summary of empty values."""
    data = _record(b"\x1a\x0dbrain.Event:2") + _record(b.field(5, b"\x0a\0" * (size // 2)))
    return _write(directory, data, "events.out.tfevents.1")


def _report(directory: Path, size: int, change: Callable[[dict[str, Any]], object]) -> Path:
    prefix = str(_save(directory / "m"))
    (directory / "out").mkdir()
    with_data = ckptparse.recover(prefix, hashes=True)
    with_data.write(directory.parent / "written.npz", overwrite=True)
    path = directory.parent / "written.npz.report.json"
    told = json.loads(path.read_text())
    path.unlink()
    (directory.parent / "written.npz").unlink()
    change(told)
    return _write(directory, json.dumps(told).ljust(size).encode(), "report.json")


def report_of_tensors(directory: Path, size: int) -> Path:
    """A report that tells of very many tensors."""
    tensors = {f"w{n}": {} for n in range(size // 14)}
    return _report(directory, size, lambda told: told["report"]["tensors"].update(tensors))


def report_of_digests(directory: Path, size: int) -> Path:
    """A report that gives the hashes of very many tensors."""
    digests = {f"w{n}": "0" for n in range(size // 16)}
    return _report(directory, size, lambda told: told["output"]["digests"].update(digests))


def report_of_files_written(directory: Path, size: int) -> Path:
    """A report that tells of very many files that were written."""
    files = [{"path": f"w{n}", "sha256": "0"} for n in range(size // 36)]
    return _report(directory, size, lambda told: told["output"].update(files=files))


def report_of_fields(directory: Path, size: int) -> Path:
    """A report that says very much of one tensor."""
    fields = {f"k{n}": n for n in range(size // 18)}
    return _report(directory, size, lambda told: told["report"]["tensors"]["w"].update(fields))


def _map(line: str) -> Callable[[Path, int], Path]:
    def write(directory: Path, size: int) -> Path:
        (directory / "disk.img").write_bytes(bytes(4096))
        return _write(directory, f"0 ? 1\n{_lines(size, line)}".encode(), "map")

    return write


_MAPS = {
    "map of comments": _map("#\n"),
    "map of blank lines": _map("\n"),
    "map of long numbers": _map("0x" + "0" * 4000 + "{0} 0x1 -\n"),
    "map of words": _map("a " * 1000 + "{0}\n"),
}

_MESSAGES = {
    "messages of checksums": lambda size: _lines(
        size,
        "Checksum does not match: stored {0} vs. calculated on the restored bytes {0}; ",
    ),
    "messages of shapes": lambda size: _lines(
        size, "Assign requires shapes of both tensors to match. lhs shape= [{0}] rhs shape= [ "
    ),
    "messages of keys": lambda size: _lines(size, "Key {0}/ not found in checkpoint "),
    "messages of files": lambda size: _lines(
        size, "Unable to open table file /a/{0}: Data loss: not an sstable (bad magic number): "
    ),
    "messages of names": lambda size: "Unsuccessful TensorSliceReader constructor: " * (size // 45),
    "messages of versions": lambda size: "tensorflow " + "Error restoring a " * (size // 18),
}

_TEXTS = {
    "page of comments": lambda size: "<!--" + "-->\n<!--" * (size // 8),
    "page of titles": lambda size: "<html>" + "<title>" * (size // 7),
    "pointer of paths": lambda size: (
        "outs:\n- md5: a\n" + "  path: b\n" * (min(size, 16_000) // 10)
    ),
    "pointer of outs": lambda size: "outs:\n- md5: a\n" * (min(size, 16_000) // 16),
    "link of parts": lambda size: "../" * (min(size, 16_000) // 3),
}

KINDS = {
    **{name: _text("rules.toml", make) for name, make in _RULES.items()},
    **named(
        zip_comments,
        zip_same_names,
        zip_without_directory,
        zip_of_headers,
        zip_long_names,
        tar_links,
        tar_hard_links,
        tar_folder_links,
        tar_long_links,
        tar_gnu_names,
        tar_sparse_maps,
        hdf5_old_groups,
        hdf5_old_scalars,
        hdf5_soft_links,
        hdf5_external_links,
        hdf5_fields,
        hdf5_references,
        hdf5_old_pieces,
        hdf5_keras_names,
        hdf5_keras_config,
        keras_paths,
        safetensors_kinds,
        safetensors_kind,
        safetensors_same_name,
        safetensors_parts,
        safetensors_lost_parts,
        safetensors_many_parts,
        safetensors_surrogates,
        npz_same_names,
        npz_of_records,
        npz_of_texts,
        npz_of_no_characters,
        npz_of_bytes,
        tflite_vectors,
        event_texts,
        event_one_record,
        report_of_tensors,
        report_of_digests,
        report_of_files_written,
        report_of_fields,
    ),
    **{name: _config(make) for name, make in _CONFIGS.items()},
    **_MAPS,
    **{name: _text("message.txt", make) for name, make in _MESSAGES.items()},
    **{name: _text("page.txt", make) for name, make in _TEXTS.items()},
}
