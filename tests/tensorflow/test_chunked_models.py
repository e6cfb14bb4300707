"""TensorFlow's own Riegeli reader takes the containers of the tests' builder, and refuses damage.

TensorFlow's public build can neither write nor load a chunked SavedModel; the code that makes
fingerprints reads one all the same.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import expected
import pytest
from riegeli_builder import MESSAGE, Tag, chunked_field, chunked_file, chunked_message

import ckptparse
from ckptparse.proto.fingerprint_pb2 import FingerprintDef
from ckptparse.proto.saved_model_pb2 import SavedModel

pytest.importorskip("tensorflow")

MODULE = expected.load("saved_model/module").root
LIBRARY: list[Tag] = [2, "#0", 2, 2]


def fingerprint(directory: Path) -> tuple[int, int, int]:
    """Let TensorFlow merge the chunks and hash what it got: all hashes that two saves share."""
    from tensorflow.python.saved_model.pywrap_saved_model import fingerprinting

    made = FingerprintDef.FromString(fingerprinting.CreateFingerprintDef(str(directory)))
    return made.graph_def_program_hash, made.signature_def_hash, made.saved_object_graph_hash


def chunked(compression: str, records_per_chunk: int | None) -> bytes:
    whole = SavedModel.FromString((MODULE / "saved_model.pb").read_bytes())
    library = whole.meta_graphs[0].graph_def.library.SerializeToString()
    whole.meta_graphs[0].graph_def.ClearField("library")
    plan = chunked_message(0, [chunked_field(LIBRARY, chunked_message(1))])
    chunks = [(MESSAGE, whole.SerializeToString()), (MESSAGE, library)]
    return chunked_file(chunks, plan, compression=compression, records_per_chunk=records_per_chunk)


@pytest.mark.checklist(122)
@pytest.mark.parametrize("compression", ["none", "brotli", "zstd", "snappy"])
@pytest.mark.parametrize("records_per_chunk", [None, 1])
def test_tensorflow_reads_the_builders_containers_as_we_do(
    tmp_path: Path, compression: str, records_per_chunk: int | None
) -> None:
    directory = tmp_path / "model"
    left_out = shutil.ignore_patterns("saved_model.pb", "fingerprint.pb")
    shutil.copytree(MODULE, directory, ignore=left_out)
    file = directory / "saved_model.cpb"
    file.write_bytes(chunked("none", None))
    plain = fingerprint(directory)
    data = chunked(compression, records_per_chunk)
    file.write_bytes(data)
    assert fingerprint(directory) == plain
    with ckptparse.open_saved_model(directory) as ours, ckptparse.open_saved_model(MODULE) as pb:
        assert ours.meta_graph().signatures == pb.meta_graph().signatures
        assert list(ours.meta_graph().graph.functions) == list(pb.meta_graph().graph.functions)
    damaged = bytearray(data)
    damaged[-5] ^= 1
    file.write_bytes(damaged)
    with pytest.raises(Exception, match="Couldn't read ChunkMetadata"):
        fingerprint(directory)
    with ckptparse.open_saved_model(directory) as ours, pytest.raises(ckptparse.CheckpointError):
        _ = ours.meta_graphs
