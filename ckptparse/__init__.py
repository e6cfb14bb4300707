"""Read TensorFlow checkpoints, SavedModels and graphs without TensorFlow.

    weights = ckptparse.read("model/my_model")       every variable, as numpy arrays
    with ckptparse.open("model/my_model") as ckpt:   a lazy mapping: name -> Tensor
        ckpt["embedding"][1000:1010]                 reads only those rows

Importing the package imports little: each public name brings its module when first used.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ckptparse.annotation import Annotation as Annotation
    from ckptparse.annotation import annotate as annotate
    from ckptparse.api import list_variables as list_variables
    from ckptparse.api import open as open
    from ckptparse.api import open_graph as open_graph
    from ckptparse.api import open_saved_model as open_saved_model
    from ckptparse.api import read as read
    from ckptparse.backend.places import Places as Places
    from ckptparse.checkpoint import Checkpoint as Checkpoint
    from ckptparse.dtypes import DataType as DataType
    from ckptparse.dtypes import element_name as element_name
    from ckptparse.dtypes import plain_values as plain_values
    from ckptparse.errors import AmbiguousError as AmbiguousError
    from ckptparse.errors import CheckpointError as CheckpointError
    from ckptparse.errors import CheckpointNotFoundError as CheckpointNotFoundError
    from ckptparse.errors import ChecksumError as ChecksumError
    from ckptparse.errors import ClosedError as ClosedError
    from ckptparse.errors import DataLossError as DataLossError
    from ckptparse.errors import LimitError as LimitError
    from ckptparse.errors import MalformedError as MalformedError
    from ckptparse.errors import MissingShardError as MissingShardError
    from ckptparse.errors import NotACheckpointError as NotACheckpointError
    from ckptparse.errors import OutputError as OutputError
    from ckptparse.errors import OutputExistsError as OutputExistsError
    from ckptparse.errors import PermissionDeniedError as PermissionDeniedError
    from ckptparse.errors import StorageError as StorageError
    from ckptparse.errors import TensorNotFoundError as TensorNotFoundError
    from ckptparse.errors import TruncatedError as TruncatedError
    from ckptparse.errors import UnsupportedError as UnsupportedError
    from ckptparse.examination.inputs import HashedFile as HashedFile
    from ckptparse.examination.outcome import ByteRange as ByteRange
    from ckptparse.examination.outcome import EvidenceRecord as EvidenceRecord
    from ckptparse.examination.outcome import Judged as Judged
    from ckptparse.examination.outcome import Outcome as Outcome
    from ckptparse.examination.outcome import PatchedRange as PatchedRange
    from ckptparse.examination.pieces import Part as Part
    from ckptparse.examination.pieces import parts as parts
    from ckptparse.examination.report import FilePiece as FilePiece
    from ckptparse.examination.report import FileRange as FileRange
    from ckptparse.examination.report import FileReport as FileReport
    from ckptparse.examination.report import OtherCheckpoint as OtherCheckpoint
    from ckptparse.examination.report import Outlook as Outlook
    from ckptparse.examination.report import Report as Report
    from ckptparse.examination.report import TensorReport as TensorReport
    from ckptparse.explanation import MESSAGE_CODES as MESSAGE_CODES
    from ckptparse.explanation import Explanation as Explanation
    from ckptparse.explanation import explain as explain
    from ckptparse.files.storage import FileStat as FileStat
    from ckptparse.files.storage import Source as Source
    from ckptparse.files.storage import Storage as Storage
    from ckptparse.graph.attributes import Attributes as Attributes
    from ckptparse.graph.effects.effect import Effect as Effect
    from ckptparse.graph.effects.effect import EffectKind as EffectKind
    from ckptparse.graph.effects.effect import PathOrigin as PathOrigin
    from ckptparse.graph.graph import Graph as Graph
    from ckptparse.graph.layers import Layer as Layer
    from ckptparse.graph.layers import LayerDescription as LayerDescription
    from ckptparse.graph.nodes import Node as Node
    from ckptparse.graph.nodes import NodeTable as NodeTable
    from ckptparse.graph.object_graph import ObjectGraph as ObjectGraph
    from ckptparse.graph.object_node import Attribute as Attribute
    from ckptparse.graph.object_node import ObjectNode as ObjectNode
    from ckptparse.graph.object_node import RegisteredSaver as RegisteredSaver
    from ckptparse.graph.object_node import SlotVariable as SlotVariable
    from ckptparse.graph.object_node import TensorSource as TensorSource
    from ckptparse.graph.optimizer import Averages as Averages
    from ckptparse.graph.optimizer import Optimizer as Optimizer
    from ckptparse.graph.optimizer import Slots as Slots
    from ckptparse.graph.parts import Constants as Constants
    from ckptparse.graph.parts import GraphParts as GraphParts
    from ckptparse.graph.savers import SavedTensor as SavedTensor
    from ckptparse.graph.savers import SaveOp as SaveOp
    from ckptparse.graph.savers import Saver as Saver
    from ckptparse.graph.state import CheckpointState as CheckpointState
    from ckptparse.graph.tree import Tree as Tree
    from ckptparse.graph.tree import TreeEntry as TreeEntry
    from ckptparse.graph.variables import GraphVariable as GraphVariable
    from ckptparse.graph.variables import SliceInfo as SliceInfo
    from ckptparse.identification import Identity as Identity
    from ckptparse.identification.identity import Finding as Finding
    from ckptparse.inventory.identities import identify as identify
    from ckptparse.inventory.listed import checkpoint_state as checkpoint_state
    from ckptparse.inventory.listed import latest_checkpoint as latest_checkpoint
    from ckptparse.jobs.average import average as average
    from ckptparse.jobs.conversion import Conversion as Conversion
    from ckptparse.jobs.conversion import ConversionRow as ConversionRow
    from ckptparse.jobs.conversion import Reversal as Reversal
    from ckptparse.jobs.conversion import StoredTensor as StoredTensor
    from ckptparse.jobs.convert import convert as convert
    from ckptparse.jobs.diff import Change as Change
    from ckptparse.jobs.diff import Diff as Diff
    from ckptparse.jobs.diff import diff as diff
    from ckptparse.jobs.stats import stats as stats
    from ckptparse.limits import DEFAULT_LIMITS as DEFAULT_LIMITS
    from ckptparse.limits import Budget as Budget
    from ckptparse.limits import Limits as Limits
    from ckptparse.model import SavedModel as SavedModel
    from ckptparse.problems import PROBLEM_CODES as PROBLEM_CODES
    from ckptparse.problems import Cause as Cause
    from ckptparse.problems import EvidenceRule as EvidenceRule
    from ckptparse.problems import Problem as Problem
    from ckptparse.problems import Severity as Severity
    from ckptparse.problems import Status as Status
    from ckptparse.recovery.imaging.scan import scan as scan
    from ckptparse.recovery.imaging.scanned import Scan as Scan
    from ckptparse.recovery.imaging.scanned import ScannedCheckpoint as ScannedCheckpoint
    from ckptparse.recovery.outlook import verify as verify
    from ckptparse.recovery.recover import recover as recover
    from ckptparse.recovery.replaying import Difference as Difference
    from ckptparse.recovery.replaying import Replay as Replay
    from ckptparse.recovery.replaying import replay as replay
    from ckptparse.recovery.result import RecoveredTensor as RecoveredTensor
    from ckptparse.recovery.result import Recovery as Recovery
    from ckptparse.recovery.written import Written as Written
    from ckptparse.rendering.page.making import report_page as report_page
    from ckptparse.saved_model.fingerprint import Fingerprint as Fingerprint
    from ckptparse.saved_model.keras_metadata import KerasObject as KerasObject
    from ckptparse.saved_model.meta_graph import MetaGraph as MetaGraph
    from ckptparse.saved_model.objects import ConcreteFunction as ConcreteFunction
    from ckptparse.saved_model.objects import SavedObjects as SavedObjects
    from ckptparse.saved_model.signatures import Signature as Signature
    from ckptparse.saved_model.signatures import TensorInfo as TensorInfo
    from ckptparse.sinks.bundle import write as write
    from ckptparse.slices import Extent as Extent
    from ckptparse.slices import TensorSlice as TensorSlice
    from ckptparse.statistics.summary import Summary as Summary
    from ckptparse.tensor import Location as Location
    from ckptparse.tensor import Payload as Payload
    from ckptparse.tensor import ReadOptions as ReadOptions
    from ckptparse.tensor import Tensor as Tensor
    from ckptparse.tensor import TensorOrigin as TensorOrigin
    from ckptparse.tensor_proto import Variant as Variant

__version__ = "0.2.0"

_MODULES = {
    "annotation": ["Annotation", "annotate"],
    "api": ["list_variables", "open", "open_graph", "open_saved_model", "read"],
    "slices": ["Extent", "TensorSlice"],
    "checkpoint": ["Checkpoint"],
    "dtypes": ["DataType", "element_name", "plain_values"],
    "errors": [
        "AmbiguousError",
        "CheckpointError",
        "CheckpointNotFoundError",
        "ChecksumError",
        "ClosedError",
        "DataLossError",
        "LimitError",
        "MalformedError",
        "MissingShardError",
        "NotACheckpointError",
        "OutputError",
        "OutputExistsError",
        "PermissionDeniedError",
        "StorageError",
        "TensorNotFoundError",
        "TruncatedError",
        "UnsupportedError",
    ],
    "files.storage": ["FileStat", "Source", "Storage"],
    "explanation": ["MESSAGE_CODES", "Explanation", "explain"],
    "graph.effects.effect": ["Effect", "EffectKind", "PathOrigin"],
    "graph.graph": ["Graph"],
    "graph.layers": ["Layer", "LayerDescription"],
    "graph.object_graph": ["ObjectGraph"],
    "graph.object_node": [
        "Attribute",
        "ObjectNode",
        "RegisteredSaver",
        "SlotVariable",
        "TensorSource",
    ],
    "graph.optimizer": ["Averages", "Optimizer", "Slots"],
    "graph.state": ["CheckpointState"],
    "graph.tree": ["Tree", "TreeEntry"],
    "identification": ["Identity"],
    "inventory.identities": ["identify"],
    "inventory.listed": ["checkpoint_state", "latest_checkpoint"],
    "limits": ["DEFAULT_LIMITS", "Budget", "Limits"],
    "model": ["SavedModel"],
    "problems": ["PROBLEM_CODES", "Cause", "EvidenceRule", "Problem", "Severity", "Status"],
    "recovery.imaging.scan": ["scan"],
    "recovery.imaging.scanned": ["Scan", "ScannedCheckpoint"],
    "recovery.recover": ["recover"],
    "examination.pieces": ["Part", "parts"],
    "examination.report": [
        "FilePiece",
        "FileRange",
        "FileReport",
        "OtherCheckpoint",
        "Outlook",
        "Report",
        "TensorReport",
    ],
    "recovery.result": ["RecoveredTensor", "Recovery"],
    "recovery.written": ["Written"],
    "recovery.replaying": ["Difference", "Replay", "replay"],
    "examination.inputs": ["HashedFile"],
    "rendering.page.making": ["report_page"],
    "saved_model.fingerprint": ["Fingerprint"],
    "saved_model.meta_graph": ["MetaGraph"],
    "saved_model.signatures": ["Signature", "TensorInfo"],
    "jobs.average": ["average"],
    "jobs.conversion": ["Conversion", "ConversionRow", "Reversal", "StoredTensor"],
    "jobs.convert": ["convert"],
    "jobs.diff": ["Change", "Diff", "diff"],
    "jobs.stats": ["stats"],
    "statistics.summary": ["Summary"],
    "sinks.bundle": ["write"],
    "backend.places": ["Places"],
    "tensor": ["Location", "Payload", "ReadOptions", "Tensor", "TensorOrigin"],
    "tensor_proto": ["Variant"],
    "recovery.outlook": ["verify"],
    "graph.savers": ["SaveOp", "SavedTensor", "Saver"],
    "graph.variables": ["GraphVariable", "SliceInfo"],
    "saved_model.keras_metadata": ["KerasObject"],
    "saved_model.objects": ["ConcreteFunction", "SavedObjects"],
    "examination.outcome": ["ByteRange", "EvidenceRecord", "Judged", "Outcome", "PatchedRange"],
    "graph.attributes": ["Attributes"],
    "graph.parts": ["Constants", "GraphParts"],
    "graph.nodes": ["Node", "NodeTable"],
    "identification.identity": ["Finding"],
}
"""Where each public name is defined. No module has the name of a public function."""

_HOME = {name: module for module, names in _MODULES.items() for name in names}

__all__ = sorted(_HOME)  # noqa: PLE0605 - the table above is the list


def __getattr__(name: str) -> object:
    if name == "tf":
        # What stands in for TensorFlow is a package of its own, and not among the public names.
        return import_module(f"{__name__}.tf")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def _finish_imports() -> None:
    """Wait until no other thread imports a module of this package.

    A child that is forked meanwhile has half of that module, and a lock on it that nobody opens.
    """
    waited: set[str] = set()
    while True:
        names = [name for name in list(sys.modules) if name.startswith(f"{__name__}.")]
        begun = {name for name in names if _is_begun(name)} - waited
        if not begun:
            return
        for name in begun:
            _wait_for(name)
        # What this thread is importing itself stays begun.
        waited |= {name for name in begun if _is_begun(name)}


def _wait_for(name: str) -> None:
    try:
        import_module(name)
    except ImportError:
        return  # It failed in the other thread, too, and is no module then.


def _is_begun(name: str) -> bool:
    spec = getattr(sys.modules.get(name), "__spec__", None)
    return bool(getattr(spec, "_initializing", False))  # What `import` looks at to wait.


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_finish_imports)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
