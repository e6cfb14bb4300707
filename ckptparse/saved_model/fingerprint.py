"""fingerprint.pb: hashes that tell one SavedModel from another (docs/format.md, section 8.2).

    1 saved_model_checksum     3 signature_def_hash         5 checkpoint_hash   7 uuid
    2 graph_def_program_hash   4 saved_object_graph_hash    6 version

`checkpoint_hash` is the FarmHash Fingerprint64 of the bytes of `variables/variables.index`: through
the checksums in the index it stands for the variables too. The others cannot be computed here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from ckptparse.files.context import Context
from ckptparse.proto.fingerprint_pb2 import FingerprintDef
from ckptparse.proto.parsing import parse_message
from ckptparse.saved_model.farmhash import fingerprint64
from ckptparse.text import brief_repr

__all__ = ["FINGERPRINT_FILE", "Fingerprint", "read_fingerprint"]

FINGERPRINT_FILE = "fingerprint.pb"


@dataclass(frozen=True, repr=False)
class Fingerprint:
    """The fingerprint of a SavedModel; hashes are unsigned 64-bit integers.

    Attributes:
        saved_model_checksum: Over the SavedModel as its writer had it; differs between saves.
        graph_def_program_hash: Over the graph.
        signature_def_hash: Over the signatures.
        saved_object_graph_hash: Over the objects.
        checkpoint_hash: Over the index of the variables.
        version: Of the code that wrote it.
        uuid: A number for this save alone, as text; may be empty.
        index_path: The index of the variables.
    """

    saved_model_checksum: int
    graph_def_program_hash: int
    signature_def_hash: int
    saved_object_graph_hash: int
    checkpoint_hash: int
    version: int
    uuid: str
    index_path: str
    _context: Context = field(compare=False, repr=False)

    @property
    def singleprint(self) -> str:
        """The four hashes that do not change between saves of one model, joined by `/`."""
        hashes = (
            self.graph_def_program_hash,
            self.signature_def_hash,
            self.saved_object_graph_hash,
            self.checkpoint_hash,
        )
        return "/".join(map(str, hashes))

    @cached_property
    def computed_checkpoint_hash(self) -> int:
        """The hash of the index as it is now.

        Raises:
            CheckpointNotFoundError: There is no index.
        """
        index = self._context.read_whole(self.index_path, "index_bytes", "The size of the index")
        return fingerprint64(index)

    @property
    def matches_checkpoint(self) -> bool:
        """Whether `checkpoint_hash` is that of the index; errors as `computed_checkpoint_hash`."""
        return self.checkpoint_hash == self.computed_checkpoint_hash

    def __repr__(self) -> str:
        return brief_repr(self)


def read_fingerprint(path: str, index_path: str, context: Context) -> Fingerprint:
    """Read a `fingerprint.pb`.

    Raises:
        CheckpointNotFoundError: There is none.
        MalformedError: It does not parse.
    """
    data = context.read_whole(path, "message_bytes", "The size of the fingerprint")
    found = parse_message(
        FingerprintDef, data, limits=context.limits, path=path, what="a fingerprint"
    )
    return Fingerprint(
        found.saved_model_checksum,
        found.graph_def_program_hash,
        found.signature_def_hash,
        found.saved_object_graph_hash,
        found.checkpoint_hash,
        found.version.producer,
        found.uuid,
        index_path,
        context,
    )
