"""The operations that do more than compute, from the lists of operations in TensorFlow 2.21.

Each row says what the operation does, which of its inputs or attributes names the file or the
address, and where it is described. Not listed is what only prints to the standard streams (Print,
Assert), and what works on a thing that a listed operation has made: a summary is written to the
file that CreateSummaryFileWriter opens, a record is read by the reader that TFRecordReader makes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ckptparse.graph.effects.effect import EffectKind, PathOrigin

__all__ = ["FUNCTION_OPS", "OPERATIONS", "Operation"]

_SAVER, _ASSET = PathOrigin.SAVER, PathOrigin.ASSET
_RPC = "tensorflow/distribute/experimental/rpc/kernels"
_DOCS = "https://www.tensorflow.org/api_docs/python/tf/raw_ops/{}"


@dataclass(frozen=True, slots=True)
class Operation:
    """What an operation does.

    Attributes:
        kind: Of its effect.
        does: What it does, as the beginning of a sentence.
        source: Where it is described.
        inputs: Numbers of the inputs that name files or addresses.
        attribute: The attribute that names them; None if an input does.
        only_if_named: Whether there is no effect if that name is empty, or if an attribute that
            may hold other things holds no address.
        harmless: Beginnings of names that name no file.
        own: What its name is if a model does it to its own variables or assets; None for what no
            model needs.
    """

    kind: EffectKind
    does: str
    source: str
    inputs: tuple[int, ...] = ()
    attribute: str | None = None
    only_if_named: bool = False
    own: PathOrigin | None = None
    harmless: tuple[str, ...] = ()


def _rows(
    kind: EffectKind,
    does: str,
    names: str,
    *inputs: int,
    file: str | None = None,
    attribute: str | None = None,
    only_if_named: bool = False,
    own: PathOrigin | None = None,
    harmless: tuple[str, ...] = (),
) -> Iterator[tuple[str, Operation]]:
    """Make the rows of operations that are alike; without `file` each has a page of its own."""
    for name in names.split():
        source = file or _DOCS.format(name)
        yield (
            name,
            Operation(kind, does, source, inputs, attribute, only_if_named, own, harmless),
        )


def _reads() -> Iterator[tuple[str, Operation]]:
    kind = EffectKind.READS_FILE
    yield from _rows(kind, "Reads a file", "ReadFile", 0, own=_ASSET)
    yield from _rows(
        kind, "Reads the files whose names come through a queue",
        "WholeFileReader WholeFileReaderV2 TextLineReader TextLineReaderV2 TFRecordReader "
        "TFRecordReaderV2 FixedLengthRecordReader FixedLengthRecordReaderV2 LMDBReader",
    )  # fmt: skip
    yield from _rows(
        kind, "Lists files by a pattern",
        "MatchingFiles MatchingFilesDataset ExperimentalMatchingFilesDataset", 0,
    )  # fmt: skip
    yield from _rows(
        kind, "Reads records from files",
        "TextLineDataset TFRecordDataset TFRecordDatasetV2 FixedLengthRecordDataset "
        "FixedLengthRecordDatasetV2 CSVDataset CSVDatasetV2 ExperimentalCSVDataset LMDBDataset "
        "ExperimentalLMDBDataset", 0,
    )  # fmt: skip
    yield from _rows(kind, "Queries a database file", "SqlDataset ExperimentalSqlDataset", 1)
    yield from _rows(
        kind, "Reads a stored dataset", "LoadDataset ListSnapshotChunksDataset "
        "SnapshotDatasetReader SnapshotChunkDataset", 0,
    )  # fmt: skip
    yield from _rows(kind, "Reads a stored dataset", "SnapshotNestedDatasetReader")
    yield from _rows(kind, "Reads records from files", "RecordInput", attribute="file_pattern")
    yield from _rows(
        kind, "Reads a vocabulary for a table",
        "InitializeTableFromTextFile InitializeTableFromTextFileV2", 1, own=_ASSET,
    )  # fmt: skip
    yield from _rows(kind, "Reads two vocabularies", "GenerateVocabRemapping", 0, 1, own=_ASSET)
    yield from _rows(
        kind, "Reads a vocabulary", "FixedUnigramCandidateSampler", attribute="vocab_file",
        only_if_named=True, own=_ASSET,
    )  # fmt: skip
    yield from _rows(
        kind, "Reads a text", "Skipgram", attribute="filename",
        file="tensorflow/core/ops/word2vec_ops.cc",
    )  # fmt: skip
    yield from _rows(
        kind, "Reads the description of a message", "DecodeProtoV2 EncodeProto",
        attribute="descriptor_source", only_if_named=True, harmless=("local://", "bytes://"),
    )  # fmt: skip
    yield from _rows(kind, "Maps a file", "ImmutableConst", attribute="memory_region_name")
    yield from _rows(
        kind, "Reads variables from a checkpoint",
        "Restore RestoreSlice RestoreV2 LoadAndRemapMatrix", 0, own=_SAVER,
    )  # fmt: skip
    yield from _rows(
        kind, "Reads variables from a checkpoint", "DTensorRestoreV2", 0,
        file="tensorflow/dtensor/cc/save_restore_util.cc", own=_SAVER,
    )  # fmt: skip


def _writes() -> Iterator[tuple[str, Operation]]:
    kind = EffectKind.WRITES_FILE
    yield from _rows(kind, "Writes a file", "WriteFile", 0)
    yield from _rows(
        kind, "Writes variables to a checkpoint", "Save SaveSlices SaveV2", 0, own=_SAVER
    )  # fmt: skip
    yield from _rows(
        kind, "Merges the parts of a checkpoint, and deletes them", "MergeV2Checkpoints", 0, 1,
        own=_SAVER,
    )  # fmt: skip
    yield from _rows(
        kind, "Writes records to a file", "DatasetToTFRecord ExperimentalDatasetToTFRecord", 1
    )  # fmt: skip
    yield from _rows(
        kind, "Writes a dataset to files",
        "SaveDataset SaveDatasetV2 SnapshotDataset SnapshotDatasetV2 DistributedSave", 1,
    )  # fmt: skip
    yield from _rows(
        kind, "Keeps a dataset in files", "CacheDataset CacheDatasetV2", 1, only_if_named=True
    )  # fmt: skip
    yield from _rows(
        kind, "Writes summaries to a directory", "CreateSummaryFileWriter CreateSummaryDbWriter", 1
    )  # fmt: skip
    yield from _rows(
        kind, "Writes a tensor to a directory", "DumpTensor", attribute="log_dir_path",
        file="tensorflow/compiler/mlir/quantization",
    )  # fmt: skip
    yield from _rows(
        kind, "Writes statistics to a file", "CalibrationStatisticsSaver",
        attribute="output_file_path",
        file="tensorflow/compiler/mlir/quantization",
    )  # fmt: skip
    yield from _rows(
        kind, "Prints to a file", "PrintV2", attribute="output_stream", only_if_named=True
    )  # fmt: skip
    yield from _rows(
        kind, "Sends a tensor to a debugger's file or server",
        "DebugIdentity DebugIdentityV2 DebugIdentityV3 DebugNanCount DebugNumericSummary",
        attribute="debug_urls", only_if_named=True,
    )  # fmt: skip
    yield from _rows(
        kind, "Sends a tensor to a debugger's file or server", "Copy CopyHost",
        attribute="debug_ops_spec", only_if_named=True,
    )  # fmt: skip


def _code() -> Iterator[tuple[str, Operation]]:
    yield from _rows(
        EffectKind.RUNS_PYTHON,
        "Calls a Python function of the process by its number",
        "PyFunc PyFuncStateless EagerPyFunc",
    )
    yield from _rows(
        EffectKind.NEEDS_LIBRARY, "Calls native code by its name", "XlaCustomCall",
        attribute="target_name", file="tensorflow/compiler/tf2xla/ops/xla_ops.cc",
    )  # fmt: skip
    yield from _rows(
        EffectKind.NEEDS_LIBRARY, "Calls native code by its name", "XlaCustomCallV2",
        attribute="call_target_name", file="tensorflow/compiler/tf2xla/ops/xla_ops.cc",
    )  # fmt: skip
    hidden = EffectKind.RUNS_HIDDEN_CODE
    yield from _rows(hidden, "Runs a graph that it is given as data", "DatasetFromGraph")
    yield from _rows(
        hidden, "Runs a program that it carries", "XlaCallModule",
        file="tensorflow/compiler/tf2xla/ops/xla_ops.cc",
    )  # fmt: skip
    yield from _rows(
        hidden, "Runs a graph that it carries", "RemoteFusedGraphExecute",
        file="tensorflow/core/ops/remote_fused_graph_ops.cc",
    )  # fmt: skip
    yield from _rows(
        hidden, "Runs a program that it carries", "MlirPassthroughOp",
        file="tensorflow/compiler/mlir/tensorflow/ops/mlir_passthrough_op.cc",
    )  # fmt: skip
    yield from _rows(
        hidden, "Runs a program that it carries", "_TPUCompileMlir _XlaHostComputeMlir",
        file="tensorflow/core/tpu/ops",
    )  # fmt: skip


def _network() -> Iterator[tuple[str, Operation]]:
    kind = EffectKind.NETWORK
    yield from _rows(
        kind, "Takes data from a data service",
        "DataServiceDataset DataServiceDatasetV2 DataServiceDatasetV3 DataServiceDatasetV4", 2,
    )  # fmt: skip
    yield from _rows(
        kind, "Gives a dataset to a data service", "RegisterDataset RegisterDatasetV2", 1
    )  # fmt: skip
    yield from _rows(
        kind, "Opens a server", "RpcServer", 0, file=_RPC
    )  # fmt: skip
    yield from _rows(
        kind, "Serves calls from other machines", "RpcServerStart RpcServerRegister",
        file=_RPC,
    )  # fmt: skip
    yield from _rows(
        kind, "Connects to a server", "RpcClient", 0, file=_RPC
    )  # fmt: skip
    yield from _rows(
        kind, "Calls a server", "RpcCall", file=_RPC
    )  # fmt: skip
    yield from _rows(kind, "Runs a function on another device or machine", "RemoteCall", 0)
    yield from _rows(
        kind, "Exchanges a tensor with another device or machine", "Send Recv"
    )  # fmt: skip
    yield from _rows(
        kind, "Exchanges a tensor with another device or machine",
        "_Send _Recv _HostSend _HostRecv",
        file="tensorflow/core/ops/sendrecv_ops.cc",
    )  # fmt: skip
    yield from _rows(
        kind, "Exchanges tensors with the other members of a group",
        "CollectiveReduce CollectiveGather CollectiveBcastSend CollectiveBcastRecv "
        "CollectivePermute CollectiveReduceV2 CollectiveReduceV3 CollectiveGatherV2 "
        "CollectiveBcastSendV2 CollectiveBcastRecvV2 CollectiveInitializeCommunicator "
        "CollectiveAssignGroupV2 CollectiveAllToAllV2 CollectiveAllToAllV3 "
        "CollectiveReduceScatterV2",
    )  # fmt: skip


def _host() -> Iterator[tuple[str, Operation]]:
    kind = EffectKind.HOST
    yield from _rows(kind, "Ends the process", "Abort")
    yield from _rows(kind, "Changes how files are accessed", "FileSystemSetConfiguration")
    yield from _rows(
        kind, "Starts or shuts down the TPUs of the machine",
        "ConfigureDistributedTPU ShutdownDistributedTPU ConfigureTPUEmbedding",
    )  # fmt: skip
    yield from _rows(
        kind, "Starts or shuts down the TPUs of the machine",
        "_ConfigureDistributedTPU _ShutdownDistributedTPU _InitializeHostForDistributedTPU "
        "_DisconnectHostFromDistributedTPUSystem ConfigureTPUEmbeddingHost "
        "ConfigureTPUEmbeddingMemory ConnectTPUEmbeddingHosts",
        file="tensorflow/core/tpu/ops",
    )  # fmt: skip
    yield from _rows(
        kind, "Starts or shuts down the TPUs of the machine",
        "ConfigureAndInitializeGlobalTPU ShutdownTPUSystem",
        file="tensorflow/dtensor",
    )  # fmt: skip
    yield from _rows(
        kind, "Sets after how long a silence the process is ended", "WorkerHeartbeat"
    )  # fmt: skip


OPERATIONS: Mapping[str, Operation] = {
    name: operation
    for group in (_reads, _writes, _code, _network, _host)
    for name, operation in group()
}
"""What does more than compute, by the name of the operation."""

_FUNCTION_OPS = """
BatchFunction Case ChooseFastestBranchDataset DataServiceDatasetV3 DataServiceDatasetV4
ExperimentalGroupByReducerDataset ExperimentalGroupByWindowDataset
ExperimentalMapAndBatchDataset ExperimentalMapDataset ExperimentalParallelInterleaveDataset
ExperimentalScanDataset ExperimentalTakeWhileDataset FilterDataset FlatMapDataset For FuncAttr
FuncListAttr GeneratorDataset GroupByReducerDataset GroupByWindowDataset If IndexFlatMapDataset
InterleaveDataset LegacyParallelInterleaveDatasetV2 LoadDataset MapAndBatchDataset MapDataset
MapDefun OneShotIterator ParallelFilterDataset ParallelInterleaveDataset
ParallelInterleaveDatasetV2 ParallelInterleaveDatasetV3 ParallelInterleaveDatasetV4
ParallelMapDataset ParallelMapDatasetV2 PartitionedCall ReduceDataset RemoteCall RiscCondition
RiscWhile RpcServerRegister SaveDataset SaveDatasetV2 ScanDataset SnapshotDatasetV2
StatefulPartitionedCall StatelessCase StatelessIf StatelessWhile SymbolicGradient TPUCompile
TPUPartitionedCall TakeWhileDataset While XlaCallModule XlaHostCompute XlaIf XlaLaunch
XlaLaunchV2 XlaReduce XlaReduceWindow XlaScatter XlaSelectAndScatter
XlaSparseDenseMatmulCustomCombinerOnTcGradWithAdagradAndCsrInput
XlaSparseDenseMatmulCustomCombinerOnTcGradWithAdagradMomentumAndCsrInput
XlaSparseDenseMatmulCustomCombinerOnTcGradWithAdamAndCsrInput
XlaSparseDenseMatmulCustomCombinerOnTcGradWithCsrInput
XlaSparseDenseMatmulCustomCombinerOnTcGradWithFtrlAndCsrInput
XlaSparseDenseMatmulCustomCombinerOnTcGradWithSgdAndCsrInput
XlaSparseDenseMatmulCustomCombinerOnTcWithCsrInput XlaSparseDenseMatmulGradWithCsrInput
XlaVariadicReduce XlaVariadicReduceV2 XlaVariadicSort XlaWhile _If _TPUReplicate _While
_XlaCompile
"""

FUNCTION_OPS = frozenset(_FUNCTION_OPS.split())
"""Operations with an attribute that names a function."""
