"""Messages about files of other formats: HDF5, Keras 3, SavedModels, graphs, TensorFlow Hub."""

from __future__ import annotations

import re

from ckptparse.explanation.value import Explanation, row

__all__ = ["FORMATS"]

_HDF5_NUMBERS = {
    2: ("path.wrong", "The file is not there."),
    13: ("file.unreadable", "The system does not let this program read the file."),
    21: ("path.wrong", "A directory was given, but an HDF5 file is expected."),
    22: ("path.wrong", "The path cannot be that of a file."),
}
"""Error numbers of the operating system that HDF5 prints: ENOENT, EACCES, EISDIR, EINVAL."""


def _explain_hdf5_number(match: re.Match[str]) -> Explanation | None:
    """Explain "unable to open file: name = …, errno = N" of HDF5."""
    known = _HDF5_NUMBERS.get(int(match.group(1)))
    if known is None:
        return None
    code, meaning = known
    return Explanation(
        code,
        meaning,
        "The path is misspelled or relative to another directory than the one the program runs in, "
        "the file was not downloaded, or its mode does not allow reading it. Nothing is damaged.",
        "Give the whole path of the `.h5` file, and look with `ls -l` whether it is there.",
    )


def _explain_hub(match: re.Match[str]) -> Explanation:
    path = match.group(1) or ""
    return _HUB_CACHE if "tfhub" in path.lower() else _NO_SAVED_MODEL


_HDF5_CUT = Explanation(
    "file.truncated",
    "An HDF5 file (`.h5`) is shorter than its own header says.",
    "The download or copy was interrupted, or a part of a split file is missing.",
    "Delete it and download it again; programs keep a broken copy in a cache such as "
    "`~/.keras/models`.",
)
_HDF5_LOCK = Explanation(
    "file.locked",
    "An HDF5 file could not be locked.",
    "Another process (a training, a notebook) has it open, or the file system has no locks: "
    "network drives often have none. Nothing is damaged.",
    "Close the other program. On a network drive, set `HDF5_USE_FILE_LOCKING=FALSE` before the "
    "program starts, or copy the file to a local disk.",
)
_HDF5_DAMAGED = Explanation(
    "file.damaged",
    "An HDF5 file (`.h5`) is damaged inside.",
    "Its bytes changed after they were written, or a program was killed while it wrote them.",
    "Download or copy it again. ckptparse does not repair HDF5 files.",
)
_NOT_HDF5 = Explanation(
    "format.other",
    "HDF5 was asked to open a file that is not HDF5.",
    "A TensorFlow checkpoint, a Git LFS pointer or a web page was given to a loader of `.h5` "
    "files.",
    "`ckptparse.identify(path)` tells what it is; `ckptparse.read(prefix)` reads TensorFlow "
    "checkpoints.",
)
_KERAS_3 = Explanation(
    "format.other",
    "Keras 3 was asked to load a SavedModel or a TensorFlow checkpoint as a `.keras` file.",
    "Keras 3 reads `.keras` and `.h5` files only; the file may be whole.",
    "`ckptparse.identify(path)` tells what it is; `ckptparse.read(path)` gives its values.",
)
_H5PY = Explanation(
    "version.mismatch",
    "An old Keras reads its `.h5` file with a new h5py.",
    "Keras before 2.4 expects bytes where h5py 3 gives text. Nothing is damaged.",
    "Install h5py below 3 (`pip install 'h5py<3'`), or use a newer Keras.",
)
_LAMBDA = Explanation(
    "version.mismatch",
    "A function inside the model's file was saved by another version of Python.",
    "A Lambda layer keeps its Python code, which other versions of Python cannot load. The weights "
    "are not concerned.",
    "Load it with the Python that saved it, or build the model in code and load the weights only.",
)
_CLASS = Explanation(
    "class.unknown",
    "The file names a class or function that the program does not know.",
    "The model uses a layer, loss or function of its own, or of another version of Keras. Nothing "
    "is damaged.",
    "Pass it in `custom_objects={...}` when loading. To get the weights alone no class is needed: "
    "`ckptparse.read(path)` reads those of a SavedModel or checkpoint.",
)
_HUB_CACHE = Explanation(
    "hub.cache",
    "The local copy of a TensorFlow Hub model is not whole.",
    "Its download or unpacking was interrupted, or the system cleaned its temporary directory; the "
    "directory that is left looks like a model and is not one.",
    "Delete that directory (below `tfhub_modules`, or where `TFHUB_CACHE_DIR` points) and load the "
    "model again.",
)
_HUB_MODULE = Explanation(
    "format.other",
    "A TF2 SavedModel was given to `hub.Module`, which reads modules of TensorFlow 1 only.",
    "Only those have a `tfhub_module.pb`. The model may be whole.",
    "Load it with `hub.load(path)` or `hub.KerasLayer(path)`; `ckptparse.open_saved_model(path)` "
    "reads either.",
)
_NO_SAVED_MODEL = Explanation(
    "path.wrong",
    "The directory has no SavedModel, or not one with the tags that were asked for.",
    "The directory holds a checkpoint or an `.h5` file instead of a SavedModel, has no "
    "`saved_model.pb`, or was exported with other tags; or the path of a file was given.",
    "Give the directory that has `saved_model.pb`. `ckptparse.identify(path)` tells what it holds; "
    "`ckptparse.open(path)` reads the variables of either.",
)
_NO_META_GRAPH = Explanation(
    "format.other",
    "The file `saved_model.pb` holds no model: there are no meta graphs in it.",
    "It is a frozen graph under that name, or is empty.",
    "`ckptparse.identify(path)` tells which; frozen graphs open with `ckptparse.open_graph(path)`.",
)
_BAD_SAVED_MODEL = Explanation(
    "format.other",
    "`saved_model.pb` is no SavedModel message.",
    "It is a frozen graph, a Git LFS pointer or an HTML page, or was cut off.",
    "`ckptparse.identify(path)` tells which; frozen graphs open with `ckptparse.open_graph(path)`.",
)
_OP = Explanation(
    "op.unknown",
    "The graph uses an operation that this program does not have.",
    "The operation comes from a library that is not imported (TensorFlow Text, Addons, Decision "
    "Forests, Recommenders, `tf.contrib`) or from a newer TensorFlow. Nothing is damaged.",
    "Import that library before loading. To get the weights alone, `ckptparse.read(path)` reads "
    "them without running the graph.",
)
_GRAPH_VERSION = Explanation(
    "version.mismatch",
    "The graph was written by a newer TensorFlow than the one that reads it.",
    "An operation in it has attributes that the older TensorFlow does not know. Nothing is "
    "damaged.",
    "Use the TensorFlow that wrote it or a newer one. `ckptparse.open_graph(path)` tells which "
    "that was, and gives its constants.",
)
_GRAPH = Explanation(
    "format.other",
    "Bytes that should be a protobuf message are not a message of the expected kind.",
    "A `.pb`, `.meta` or other graph file is damaged, cut off, a Git LFS pointer or a file of "
    "another kind (a SavedModel read as a frozen graph, a text file read as a binary one); in a "
    "checkpoint, an entry of the index or the object graph is damaged.",
    "`ckptparse.identify(path)` tells what a file is, and `ckptparse.open_graph(path)` opens it; "
    "of a checkpoint, `ckptparse.verify(path)` tells what is whole.",
)

_KERAS = r"keras|load_model|load_weights|hdf5|h5py|\.h5\b"

FORMATS = (
    row(r"unable to (?:synchronously )?(?:open|create) file[^\n]*truncated file", _HDF5_CUT),
    row(
        r"unable to (?:synchronously )?(?:open|create) file[^\n]*"
        r"(?:unable to lock file|file locking disabled)",
        _HDF5_LOCK,
    ),
    row(
        r"unable to (?:synchronously )?open file \(unable to open file[^\n]*?errno = (\d+)",
        _explain_hdf5_number,
    ),
    row(r"file signature not found", _NOT_HDF5),
    row(
        r"wrong b-tree signature|bad object header|bad heap free list|addr overflow|"
        r"bad symbol table node signature|can't read data \(",
        _HDF5_DAMAGED,
    ),
    row(r"unable to (?:synchronously )?open file", _NOT_HDF5, needs=r"oserror|ioerror|h5"),
    row(r"file format not supported[^\n]*keras 3 only supports", _KERAS_3),
    row(r"'str' object has no attribute 'decode'", _H5PY, within=_KERAS),
    row(r"bad marshal data", _LAMBDA, within=_KERAS),
    row(
        r"unknown (?:layer|initializer|loss function|metric function|activation function): |"
        r"could not locate (?:class|function) '|unable to restore custom object of type",
        _CLASS,
    ),
    row(r"tfhub_module\.pb", _HUB_MODULE),
    row(r"missing implementation that supports: loader\(\*\('([^']*)", _explain_hub),
    row(r"incompatible/unknown type\. '([^']*)' contains neither", _explain_hub),
    row(r"there are 0 metagraphs|available_tags: \[\]", _NO_META_GRAPH),
    row(
        r"saved_?model file does not exist|cannot find .{0,200}saved_model\.pb|"
        r"metagraphdef associated with tags .{1,200}? could not be found|"
        r"could not find meta graph def matching supplied tags|no versions of servable",
        _NO_SAVED_MODEL,
    ),
    row(r"op type not registered", _OP),
    row(r"nodedef mentions attr|graphdef-interpreting binary", _GRAPH_VERSION),
    row(
        r"error parsing .{0,60}saved_?model|cannot parse file .{0,200}saved_model", _BAD_SAVED_MODEL
    ),
    row(
        r"error parsing message(?!.{0,40}bundle)|failed to parse .{0,60}(?:message|proto)|"
        r"error parsing text-format tensorflow|"
        r"decodeerror: (?:tag had invalid wire type|wrong wire)",
        _GRAPH,
    ),
)
