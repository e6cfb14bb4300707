"""Tensors found in files of any kind; graphs found in `.meta`, SavedModels and event files."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import builder
import graph_builder
import numpy as np
import pytest
from crc32c import crc32c
from google.protobuf import text_format
from google.protobuf.message import Message
from packages import h5py, safetensors, zstandard

import ckptparse
from ckptparse.crc.windows import Wanted
from ckptparse.files.memory import MemorySource
from ckptparse.limits import DEFAULT_LIMITS, Limits
from ckptparse.proto.graph_pb2 import GraphDef
from ckptparse.proto.meta_graph_pb2 import MetaGraphDef
from ckptparse.proto.saved_model_pb2 import SavedModel
from ckptparse.recovery.evidence import gather
from ckptparse.recovery.evidence.containers import iter_parts
from ckptparse.recovery.evidence.graphs import iter_graphs
from ckptparse.recovery.evidence.payloads import Match, find_anywhere, find_payloads

SHAPES = {"kernel": (300, 17), "bias": (17,), "other": (64, 3), "small": (5,), "tiny": (3,)}


def arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {name: rng.normal(0, 1, shape).astype("<f4") for name, shape in SHAPES.items()}


def wanted_of(array: np.ndarray) -> Wanted:
    raw = array.tobytes()
    return Wanted(len(raw), crc32c(raw))


def find_everywhere(source: MemorySource, wanted: Sequence[Wanted]) -> Iterator[Match]:
    """Find runs anywhere in a file and in what it packs, each once."""
    left = list(wanted)
    for part in iter_parts(source, limits=DEFAULT_LIMITS):
        for match in find_anywhere(part, left):
            left.remove(match.wanted)
            yield match


def as_npz(*, packed: bool) -> bytes:
    stream = io.BytesIO()
    (np.savez_compressed if packed else np.savez)(stream, **arrays())
    return stream.getvalue()


def as_hdf5() -> bytes:
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        for name, array in arrays().items():
            file[f"layers/{name}/vars/0"] = array
    return stream.getvalue()


def as_packed_hdf5() -> bytes:
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        for name, array in arrays().items():
            file.create_dataset(
                f"model_weights/{name}", data=array, chunks=True, compression="gzip"
            )
    return stream.getvalue()


def as_keras(*, packed: bool) -> bytes:
    stream = io.BytesIO()
    method = zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED
    with zipfile.ZipFile(stream, "w", method) as archive:
        archive.writestr("metadata.json", "{}")
        archive.writestr("model.weights.h5", as_hdf5())
    return stream.getvalue()


def as_tar() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, data in {
            "a.safetensors": as_safetensors(),
            "b/w.npz": as_npz(packed=True),
        }.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def as_safetensors() -> bytes:
    return safetensors.numpy.save(arrays())


def as_graph() -> bytes:
    nodes = [
        graph_builder.node(
            name,
            "Const",
            value=graph_builder.of_tensor(builder.field(4, array.tobytes()), dims=array.shape),
        )
        for name, array in arrays().items()
    ]
    return graph_builder.graph(nodes)


def as_values() -> bytes:
    """A graph whose constants are lists of numbers, packed."""
    nodes = [
        graph_builder.node(
            name,
            "Const",
            value=graph_builder.of_tensor(builder.field(5, array.tobytes()), dims=array.shape),
        )
        for name, array in arrays().items()
    ]
    return graph_builder.graph(nodes)


def as_text(message: Message) -> bytes:
    return text_format.MessageToString(message).encode()


def as_text_graph() -> bytes:
    return b"# A graph.\n" + as_text(GraphDef.FromString(as_graph()))


def as_text_meta() -> bytes:
    meta = MetaGraphDef(graph_def=GraphDef.FromString(as_graph()))
    meta.meta_info_def.tensorflow_version = "2.21.0"
    return b"\xef\xbb\xbf" + as_text(meta)


def as_text_model() -> bytes:
    meta = MetaGraphDef(graph_def=GraphDef.FromString(as_values()))
    return as_text(SavedModel(saved_model_schema_version=1, meta_graphs=[meta]))


def as_flatbuffer() -> bytes:
    out = bytearray(b"\x1c\0\0\0TFL3")
    for array in arrays().values():
        raw = array.tobytes()
        out += bytes(-(len(out) + 4) % 16) + struct.pack("<I", len(raw)) + raw
    return bytes(out)


CONTAINERS: dict[str, Callable[[], bytes]] = {
    "npz": lambda: as_npz(packed=False),
    "npz, packed": lambda: as_npz(packed=True),
    "hdf5": as_hdf5,
    "hdf5, packed": as_packed_hdf5,
    "keras": lambda: as_keras(packed=False),
    "keras, packed": lambda: as_keras(packed=True),
    "safetensors": as_safetensors,
    "tar": as_tar,
    "tar.gz": lambda: gzip.compress(as_tar()),
    "frozen graph": as_graph,
    "lists of numbers": as_values,
    "graph in text": as_text_graph,
    "graph in text, packed": lambda: gzip.compress(as_text_graph()),
    "meta graph in text": as_text_meta,
    "saved model in text": as_text_model,
    "tflite": as_flatbuffer,
}


@pytest.mark.parametrize("container", CONTAINERS)
def test_tensors_are_found_by_size_and_checksum(container: str) -> None:
    source = MemorySource("x", CONTAINERS[container]())
    wanted = {wanted_of(array): array for array in arrays().values()}
    absent = Wanted(1200, 7)
    matches = list(find_payloads(source, [*wanted, absent], limits=DEFAULT_LIMITS))
    assert {match.wanted for match in matches} == set(wanted)
    for match in matches:
        array = wanted[match.wanted]
        assert match.source.read_at(match.offset, array.nbytes) == array.tobytes()
        assert match.chance <= 1e-3


def test_a_file_that_is_one_tensor_is_found() -> None:
    array = arrays()["kernel"]
    stream = io.BytesIO()
    np.save(stream, array)
    for data in (array.tobytes(), stream.getvalue()):
        (match,) = find_payloads(MemorySource("x", data), [wanted_of(array)], limits=DEFAULT_LIMITS)
        assert match.source.read_at(match.offset, array.nbytes) == array.tobytes()


@pytest.mark.parametrize("behind", [0, 5_000_000])
@pytest.mark.parametrize("ahead", [0, 1, 2, 3])
def test_tensors_are_found_behind_any_number_of_bytes(ahead: int, behind: int) -> None:
    large = [array for array in arrays().values() if array.nbytes >= 16]
    data = b"a" * ahead + b"".join(array.tobytes() for array in large) + bytes(behind)
    wanted = [wanted_of(array) for array in large]
    matches = list(find_everywhere(MemorySource("x", data), wanted))
    assert {match.wanted for match in matches} == set(wanted)
    for match in matches:
        run = data[match.offset : match.offset + match.wanted.size]
        assert crc32c(run) == match.wanted.crc
        assert 0 < match.chance < 2e-3


def test_tensors_in_a_pickle_are_found_wherever_they_lie() -> None:
    large = {name: array for name, array in arrays().items() if array.nbytes >= 16}
    wanted = [wanted_of(array) for array in large.values()]
    for title in ("m", "mo", "mod", "mode"):
        data = pickle.dumps({title: "", **large})
        matches = list(find_everywhere(MemorySource("x", data), wanted))
        assert {match.wanted for match in matches} == set(wanted)


@pytest.mark.parametrize("kind", ["a byte and the data file", "pickle"])
def test_files_whose_tensors_lie_at_odd_places_are_evidence(kind: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    made = {f"w{number}": rng.normal(size=(40, 30)).astype("f4") for number in range(9)}
    ckptparse.write(tmp_path / "m.ckpt", made)
    (data,) = tmp_path.glob("m.ckpt.data*")
    other = pickle.dumps(made) if kind == "pickle" else b"a" + data.read_bytes()
    (tmp_path / "x").write_bytes(other)
    data.unlink()
    recovery = ckptparse.recover(tmp_path / "m.ckpt", evidence=[tmp_path / "x"])
    assert {name: one.status for name, one in recovery.items()} == dict.fromkeys(made, "corrected")
    assert all((recovery[name].read() == array).all() for name, array in made.items())


@pytest.mark.parametrize("container", ["npz", "hdf5", "keras", "safetensors", "tar", "tflite"])
def test_tensors_are_found_at_any_multiple_of_four(container: str) -> None:
    data = CONTAINERS[container]()
    wanted = [wanted_of(array) for array in arrays().values()]
    matches = list(find_everywhere(MemorySource("x", data), wanted))
    # In a tar archive is a packed one, too: each tensor is found once all the same.
    aligned = [
        array
        for array in arrays().values()
        if array.nbytes >= 16 and data.find(array.tobytes()) % 4 == 0
    ]
    assert max(1, len(aligned)) <= len(matches) <= len(SHAPES) - 1
    assert all(match.wanted.size >= 16 for match in matches)


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_damaged_container_raises_nothing_and_gives_nothing_false(container: str) -> None:
    data = CONTAINERS[container]()
    wanted = [wanted_of(array) for array in arrays().values()]
    rng = np.random.default_rng(1)
    for _ in range(40):
        damaged = bytearray(data[: int(rng.integers(1, len(data) + 1))])
        for place in rng.integers(0, len(damaged), 3).tolist():
            damaged[place] = int(rng.integers(256))
        for match in find_payloads(MemorySource("x", damaged), wanted, limits=DEFAULT_LIMITS):
            raw = match.source.read_at(match.offset, match.wanted.size)
            assert raw in {array.tobytes() for array in arrays().values()}


@pytest.mark.parametrize("packed", [False, True], ids=["stored", "packed"])
@pytest.mark.parametrize("kind", ["npz", "keras"])
def test_members_of_a_zip_that_was_cut_are_found_before_the_cut(kind: str, packed: bool) -> None:
    data = (as_npz if kind == "npz" else as_keras)(packed=packed)
    wanted = [wanted_of(array) for array in arrays().values()]
    counts = []
    for size in range(0, len(data), 997):
        source = MemorySource("x", data[:size])
        matches = list(find_payloads(source, wanted, limits=DEFAULT_LIMITS))
        for match in matches:
            raw = match.source.read_at(match.offset, match.wanted.size)
            assert raw in {array.tobytes() for array in arrays().values()}
        counts.append(len(matches))
    if kind == "npz" or not packed:
        assert counts == sorted(counts) and counts[-1] >= 2


def test_a_data_file_in_an_archive_that_was_cut_is_used_before_the_cut(tmp_path: Path) -> None:
    made = builder.Bundle()
    for name, array in reversed(arrays().items()):
        made.add(name, array)
    made.write(tmp_path / "m")
    with tarfile.open(tmp_path / "all.tgz", "w:gz") as archive:
        archive.add(tmp_path / "m.data-00000-of-00001", "m.data-00000-of-00001")
    (tmp_path / "m.data-00000-of-00001").unlink()
    data = (tmp_path / "all.tgz").read_bytes()
    (tmp_path / "cut.tgz").write_bytes(data[: len(data) * 9 // 10])
    (tmp_path / "all.tgz").unlink()
    recovery = ckptparse.recover(tmp_path / "m", evidence=[tmp_path / "cut.tgz"])
    assert recovery["other"].status == "corrected"
    assert (recovery["other"].read() == arrays()["other"]).all()


def zstd(data: bytes) -> bytes:
    packed: bytes = zstandard.ZstdCompressor().compress(data)
    return packed


@pytest.mark.parametrize("pack", [lzma.compress, bz2.compress, zstd], ids=["xz", "bzip2", "zstd"])
@pytest.mark.parametrize("inner", ["the data file", "a tar archive", "an npz file"])
def test_streams_of_xz_bzip2_and_zstandard_are_evidence(
    inner: str, pack: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    ckptparse.write(tmp_path / "m.ckpt", arrays())
    (data,) = tmp_path.glob("m.ckpt.data*")
    stream = io.BytesIO(data.read_bytes())
    if inner == "a tar archive":
        with tarfile.open(fileobj=(stream := io.BytesIO()), mode="w") as archive:
            archive.add(data, "model/saved")
    elif inner == "an npz file":
        stream = io.BytesIO(as_npz(packed=True))
    (tmp_path / "old").write_bytes(pack(stream.getvalue()))
    data.unlink()
    recovery = ckptparse.recover(tmp_path / "m.ckpt", evidence=[tmp_path / "old"])
    assert {str(one.status) for one in recovery.values()} == {"corrected"}
    assert len(recovery) == len(SHAPES)
    assert all((recovery[name].read() == array).all() for name, array in arrays().items())


def test_a_stream_gives_what_comes_before_its_damage_and_no_more_than_is_allowed() -> None:
    data = b"".join(array.tobytes() for array in arrays().values())
    packed = bytearray(lzma.compress(data, check=lzma.CHECK_NONE))
    packed[len(packed) // 2] ^= 0xFF
    (part,) = iter_parts(MemorySource("x", packed[: len(packed) // 2]), limits=DEFAULT_LIMITS)
    assert 0 < part.size < len(data)
    assert part.read_at(0, part.size) == data[: part.size]
    limits = Limits(decompressed_bytes=1 << 20)
    small = partial(lzma.compress, preset=0)
    for pack, most in ((small, 1 << 20), (bz2.compress, 1 << 16)):
        source = MemorySource("x", pack(bytes(1 << 22)))
        (part,) = iter_parts(source, limits=limits)
        assert most <= part.size <= most + source.size


def test_a_thousand_tensors_that_are_not_there_are_not_found() -> None:
    rng = np.random.default_rng(2)
    sizes = [array.nbytes for array in arrays().values()]
    wanted = [Wanted(sizes[n % len(sizes)], int(rng.integers(2**32))) for n in range(1000)]
    for make in CONTAINERS.values():
        source = MemorySource("x", make())
        assert list(find_payloads(source, wanted, limits=DEFAULT_LIMITS)) == []
        assert list(find_everywhere(source, wanted)) == []


def test_what_would_unpack_to_too_much_is_left_out() -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(1 << 20))
    wanted = [Wanted(1 << 20, crc32c(bytes(1 << 20)))]
    source = MemorySource("x", stream.getvalue())
    found: list[Match] = list(find_payloads(source, wanted, limits=Limits(decompressed_bytes=1000)))
    assert found == []
    assert len(list(find_payloads(source, wanted, limits=DEFAULT_LIMITS))) == 1


@pytest.mark.parametrize("limit", ["text_bytes", "message_bytes"])
def test_a_graph_whose_text_is_too_long_is_not_parsed(limit: str) -> None:
    data = as_text_graph()
    wanted = [wanted_of(array) for array in arrays().values()]
    limits = Limits(**{limit: len(data) - 1})
    assert list(find_payloads(MemorySource("x", data), wanted, limits=limits)) == []
    limits = Limits(**{limit: len(data)})
    assert len(list(find_payloads(MemorySource("x", data), wanted, limits=limits))) == len(SHAPES)


def test_many_graphs_of_text_in_an_archive_are_bounded_together() -> None:
    text = as_text_graph()
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(20):
            archive.writestr(f"{number}.pbtxt", text)
    source, limits = MemorySource("x", stream.getvalue()), Limits(text_bytes=3 * len(text))
    parts = list(iter_parts(source, limits=limits))
    assert len(parts) == 20
    assert [part.size == len(text) for part in parts] == [False] * 3 + [True] * 17


def test_text_that_begins_as_a_graph_does_and_is_none_is_searched_as_it_is() -> None:
    array = arrays()["kernel"]
    for head in (b"node: a list\n", b"versions { producer: ", b"library"):
        data = head.ljust(4096, b" ") + array.tobytes()
        (match,) = find_everywhere(MemorySource("x", data), [wanted_of(array)])
        assert match.offset == 4096


# ---------------------------------------------------------------------------------------- graphs


def record(data: bytes) -> bytes:
    head = struct.pack("<Q", len(data))
    return b"".join(
        [
            head,
            builder.fixed32(builder.masked_crc(head)),
            data,
            builder.fixed32(builder.masked_crc(data)),
        ]
    )


def events(*parts: bytes) -> bytes:
    version = builder.field64(1, 0) + builder.field(3, b"brain.Event:2")
    return record(version) + b"".join(map(record, parts))


def test_an_event_file_gives_its_graphs(fixtures: Path) -> None:
    meta = (fixtures / "graphs" / "saver_to_rebuild" / "model.meta").read_bytes()
    graph = as_graph()
    log = events(builder.field(4, graph), builder.field(5, b""), builder.field(9, meta))
    plain, whole = iter_graphs(MemorySource("x", log), "tfrecord", limits=DEFAULT_LIMITS)
    assert len(plain.nodes) == len(SHAPES) and not plain.is_meta_graph
    assert whole.is_meta_graph and whole.savers


def test_a_damaged_event_file_gives_what_comes_before_the_damage(fixtures: Path) -> None:
    log = bytearray(events(builder.field(4, as_graph()), builder.field(4, as_graph())))
    log[-40] ^= 1
    assert len(list(iter_graphs(MemorySource("x", log), "tfrecord", limits=DEFAULT_LIMITS))) == 1
    cut = MemorySource("x", log[: len(log) // 2])
    assert list(iter_graphs(cut, "tfrecord", limits=DEFAULT_LIMITS)) == []


def test_a_meta_graph_a_graph_and_a_saved_model_give_their_graphs(fixtures: Path) -> None:
    meta = MemorySource("m", (fixtures / "graphs" / "saver_to_rebuild" / "model.meta").read_bytes())
    assert [
        graph.is_meta_graph for graph in iter_graphs(meta, "meta-graph", limits=DEFAULT_LIMITS)
    ] == [True]
    plain = MemorySource("g", as_graph())
    graphs = iter_graphs(plain, "graph", limits=DEFAULT_LIMITS)
    assert [len(graph.nodes) for graph in graphs] == [len(SHAPES)]
    path = next((fixtures / "saved_model" / "module").rglob("saved_model.pb"))
    model = MemorySource("s", path.read_bytes())
    assert [
        bool(graph.savers) for graph in iter_graphs(model, "saved-model-pb", limits=DEFAULT_LIMITS)
    ] == [True]


def test_graphs_that_are_text_are_read_as_binary_ones_are(fixtures: Path) -> None:
    data = (fixtures / "graphs" / "saver_to_rebuild" / "model.meta").read_bytes()
    text = MemorySource("m", as_text(MetaGraphDef.FromString(data)))
    (binary,) = iter_graphs(MemorySource("m", data), "meta-graph", limits=DEFAULT_LIMITS)
    (graph,) = iter_graphs(text, "meta-graph", limits=DEFAULT_LIMITS)
    assert graph.savers == binary.savers
    plain = MemorySource("g", as_text_graph())
    graphs = iter_graphs(plain, "graph", limits=DEFAULT_LIMITS)
    assert [len(graph.nodes) for graph in graphs] == [len(SHAPES)]
    model = MemorySource("s", as_text_model())
    (graph,) = iter_graphs(model, "saved-model-pbtxt", limits=DEFAULT_LIMITS)
    assert graph.is_meta_graph and len(graph.nodes) == len(SHAPES)


@pytest.mark.parametrize(
    "kind", ["meta-graph", "graph", "saved-model-pb", "saved-model-pbtxt", "tfrecord", "npz"]
)
def test_what_is_no_graph_gives_none(kind: str) -> None:
    source = MemorySource("x", np.random.default_rng(3).bytes(1000))
    assert list(iter_graphs(source, kind, limits=DEFAULT_LIMITS)) == []


# ------------------------------------------------------------------ raw bytes in an archive


def as_archive(kind: str, members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    if kind.startswith("zip"):
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED if "packed" in kind else 0) as archive:
            for name, data in members.items():
                archive.writestr(name, data)
        return file.getvalue()
    with tarfile.open(fileobj=file, mode="w:gz" if kind == "tar.gz" else "w:") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


def lost_checkpoint(directory: Path, count: int) -> dict[str, np.ndarray[Any, Any]]:
    rng = np.random.default_rng(count)
    arrays = {f"w{n}": rng.normal(size=400 + n).astype("<f4") for n in range(count)}
    ckptparse.write(directory / "m.ckpt", arrays)
    next(directory.glob("m.ckpt.data*")).unlink()
    return arrays


@pytest.mark.parametrize("count", [4, 150])
@pytest.mark.parametrize("kind", ["zip", "zip, packed", "tar", "tar.gz"])
def test_a_member_of_an_archive_that_is_a_raw_dump_is_searched_as_a_file_is(
    kind: str, count: int, tmp_path: Path
) -> None:
    arrays = lost_checkpoint(tmp_path, count)
    rng = np.random.default_rng(0)
    dump = rng.bytes(100) + b"".join(rng.bytes(8) + one.tobytes() for one in arrays.values())
    data = as_archive(kind, {"notes.txt": b"text " * 900, "memory.bin": dump})
    (tmp_path / "evidence").write_bytes(data)
    recovery = ckptparse.recover(tmp_path / "m.ckpt", evidence=[tmp_path / "evidence"])
    for name, array in arrays.items():
        assert (recovery[name].read() == array).all()
        place = recovery[name].evidence[-1]
        assert place.inside is not None and place.inside.endswith("memory.bin")


def test_of_very_many_members_some_are_searched_everywhere_and_the_report_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost_checkpoint(tmp_path, 3)
    searched: list[str] = []
    original = gather.find_anywhere

    def count(part: Any, *args: Any, **options: Any) -> Any:
        searched.append(part.path)
        return original(part, *args, **options)

    monkeypatch.setattr(gather, "find_anywhere", count)
    noise = np.random.default_rng(0).bytes(1700)
    members = {f"text{n}": b"text " * 400 for n in range(300)}
    members |= {f"small{n}": noise[:99] for n in range(300)}
    members |= {f"noise{n}": noise for n in range(300)}
    data = as_archive("zip", members)
    (tmp_path / "evidence").write_bytes(data)
    report = ckptparse.recover(tmp_path / "m.ckpt", evidence=[tmp_path / "evidence"]).report
    assert len(searched) == 100 + len(data) // 65536
    assert all(":noise" in path for path in searched)
    (problem,) = [one for one in report.problems if one.code == "evidence.unsearched"]
    assert "of the bytes of its members not all were searched" in problem.message
