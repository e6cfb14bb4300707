"""What a file or directory was found to be, in words a person can act on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from ckptparse.filenames import (
    INDEX_SUFFIX,
    META_SUFFIX,
    SAVED_MODEL_FILES,
    STATE_FILE_NAME,
    is_data_file,
)
from ckptparse.text import clean

__all__ = ["KINDS", "Finding", "Identity", "fetching_commands", "looks_like_checkpoint"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What the bytes of one file say, before anybody asks what to do about it."""

    kind: str
    """One of `KINDS`."""
    detail: Mapping[str, object] = field(default_factory=dict)
    """What else is known, by name."""
    contains: tuple[str, ...] = ()
    """Names of checkpoints inside."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What lies at a path."""

    kind: str
    """One word of `KINDS`."""
    path: str
    """The file or directory that decided it: inside of, or beside, the one that was asked for."""
    detail: Mapping[str, object] = field(hash=False)
    """What else is known. Which names there are depends on the kind: of a pointer `size` and
    `sha256`, of what was cut off `of` and perhaps `missing`, of a damaged one `damage`, of several
    files `files`, of an index `num_shards`, of a prefix `missing`, of a page `title`."""
    advice: str
    """What to do next, one or two sentences."""
    contains: tuple[str, ...] = ()
    """Checkpoints inside an archive or a directory, by name."""

    @property
    def meaning(self) -> str:
        """The kind in a few words, such as `a Git LFS pointer`."""
        words = KINDS[self.kind][0]
        what = self.detail.get("what", self.detail.get("of"))
        return f"{words} ({what})" if what else words

    @property
    def described(self) -> str:
        """The meaning, with the size and the hash of what a pointer stands for, or a quotation."""
        size, digest = self.detail.get("size"), self.detail.get("sha256")
        parts = [f"'{self.detail['quote']}'"] if "quote" in self.detail else []
        if self.kind.endswith("-pointer"):
            parts += [f"{size} bytes"] if size is not None else []
            parts += [f"SHA-256 {digest}"] if digest else []
        return clean(f"{self.meaning} ({', '.join(parts)})" if parts else self.meaning)

    def __str__(self) -> str:
        return clean(f"{self.path} is {self.meaning}. {self.advice}")

    @classmethod
    def of(cls, finding: Finding, path: str) -> Identity:
        """Add the place and the advice to a finding."""
        detail = dict(finding.detail)
        advice = str(detail.pop("advice", KINDS[finding.kind][1]))
        if finding.contains:
            advice = f"{advice} Inside: {_shorten(finding.contains)}."
        return cls(finding.kind, path, detail, advice, finding.contains)


def fetching_commands(kind: str) -> tuple[str, ...]:
    """Return the commands that fetch what a pointer stands for; none for files of other kinds."""
    return _FETCHED_BY.get(kind, ())


_FETCHED_BY = {
    "lfs-pointer": ("`git lfs pull`",),
    "annex-pointer": ("`git annex get`",),
    "dvc-pointer": ("`dvc pull`",),
    "xet-pointer": ("`git xet checkout`", "`git lfs pull`"),
}


def _shorten(names: tuple[str, ...], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(repr(name) for name in names[:most]) + more


_READ = "Read it with ckptparse.read or ckptparse.open."
_CONVERTS = "It is no TensorFlow checkpoint: convert, diff and stats take it"
_RIGHT = "Check that it is the right file: a checkpoint has an .index file, or is a V1 file."
_UNPACK = "Unpack it and read what comes out: an archive inside of an archive is not looked into."

KINDS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "v1": ("a V1 checkpoint", _READ),
        "v2-index": ("the index of a V2 checkpoint", _READ),
        "v2-shard": ("a data file of a V2 checkpoint", _READ),
        "v2-prefix": ("the prefix of a V2 checkpoint", _READ),
        "savedmodel": (
            "a SavedModel",
            "Open it with ckptparse.open_saved_model; read and open give its variables, if any.",
        ),
        "saved-model-pb": (
            "the graph file of a SavedModel",
            "Open its directory with ckptparse.open_saved_model; the weights are in variables/.",
        ),
        "saved-model-pbtxt": (
            "the graph file of a SavedModel, as text",
            "Open its directory with ckptparse.open_saved_model; the weights are in variables/.",
        ),
        "saved-model-cpb": (
            "the graph file of a SavedModel, in chunks",
            "Open its directory with ckptparse.open_saved_model; the weights are in variables/.",
        ),
        "graph": (
            "a graph",
            "Open it with ckptparse.open_graph; read and open give the constants of a frozen one.",
        ),
        "meta-graph": (
            "a meta graph: the structure of a model, without its weights",
            "Open it with ckptparse.open_graph; the weights are in the checkpoint beside it.",
        ),
        "state-file": (
            "a state file, which lists the checkpoints of its directory",
            "Pass its directory, or one of the prefixes it lists.",
        ),
        "interrupted-save": (
            "the leftover of a save that was interrupted",
            "Use an earlier checkpoint, or get back what is whole with ckptparse.recover.",
        ),
        "hub-module": (
            "a TensorFlow Hub module",
            "Open it with ckptparse.open_saved_model; read and open give its variables, if any.",
        ),
        "keras-h5": (
            "a Keras model in HDF5",
            f"{_CONVERTS}; h5py and keras read it.",
        ),
        "keras-zip": (
            "a Keras 3 model archive",
            f"{_CONVERTS}; keras loads it.",
        ),
        "tflite": (
            "a TensorFlow Lite model",
            "It is no TensorFlow checkpoint: look for the SavedModel it was converted from.",
        ),
        "tfrecord": (
            "a file of TFRecords",
            "It holds training data or events for TensorBoard, no weights.",
        ),
        "pytorch-zip": (
            "a PyTorch checkpoint",
            "It is no TensorFlow checkpoint: load it with torch.load.",
        ),
        "pytorch-pickle": (
            "a PyTorch checkpoint from before version 1.6",
            "It is no TensorFlow checkpoint: load it with torch.load, if you trust its source.",
        ),
        "safetensors": (
            "a safetensors file",
            f"{_CONVERTS}; the package safetensors reads it.",
        ),
        "npz": (
            "an archive of numpy arrays",
            "Load it with numpy.load; convert, diff and stats take it.",
        ),
        "npy": ("a numpy array", "Load it with numpy.load; convert, diff and stats take it."),
        "hdf5": ("an HDF5 file", f"{_CONVERTS}; h5py reads it."),
        "zip": ("a zip archive", _UNPACK),
        "tar": ("a tar archive", _UNPACK),
        "gzip": ("a gzip stream", _UNPACK),
        "zstd": ("a Zstandard stream", _UNPACK),
        "lfs-pointer": (
            "a Git LFS pointer: it stands for a file that was not downloaded",
            "Fetch the file with `git lfs pull` in its repository.",
        ),
        "annex-pointer": (
            "a git-annex pointer: it stands for a file that was not downloaded",
            "Fetch the file with `git annex get` in its repository.",
        ),
        "dvc-pointer": (
            "a DVC pointer: it stands for a file that was not downloaded",
            "Fetch the file with `dvc pull` in its repository.",
        ),
        "xet-pointer": (
            "a Xet pointer: it stands for a file that was not downloaded",
            "Fetch the file with `git xet checkout` or `git lfs pull` in its repository.",
        ),
        "link-text": (
            "a symbolic link that was checked out as text",
            "Copy the file that it names; git makes real links with core.symlinks=true.",
        ),
        "error-message": (
            "a server's message in place of the file",
            "The download failed, and the message was saved: fetch the file itself.",
        ),
        "apple-double": (
            "attributes that macOS keeps beside a file (AppleDouble)",
            "The file itself has the same name without `._`.",
        ),
        "fingerprint": (
            "the fingerprint of a SavedModel",
            "Open its directory with ckptparse.open_saved_model.",
        ),
        "keras-metadata": (
            "what Keras 2 keeps of the layers of a SavedModel",
            "Open its directory with ckptparse.open_saved_model.",
        ),
        "html": (
            "an HTML page",
            "A web page was downloaded in place of the file: fetch the file itself.",
        ),
        "mangled-text": (
            "binary data that went through a text filter",
            "Bytes are lost for good where EF BF BD stands now: fetch the file again, as binary.",
        ),
        "empty": (
            "an empty file",
            "Its writer was interrupted, or the disk was full: copy it again.",
        ),
        "zeros": (
            "a file of nothing but zeros",
            "Space was reserved and never filled: copy it again.",
        ),
        "truncated": (
            "a file that was cut off",
            "The download or the copy ended early: fetch it again.",
        ),
        "directory": (
            "a directory that is not a model itself",
            "Pass the prefix of a checkpoint in it.",
        ),
        "unknown": (
            "a file of a kind that ckptparse does not know",
            f"{_RIGHT} ckptparse.scan looks for checkpoints inside of a disk image.",
        ),
    }
)
"""Every kind, with what it is and what to do about it."""

_CHECKPOINT_NAMES = (*SAVED_MODEL_FILES, STATE_FILE_NAME)
_CHECKPOINT_ENDINGS = (INDEX_SUFFIX, META_SUFFIX, ".ckpt", ".pb", ".pbtxt")


def looks_like_checkpoint(name: str) -> bool:
    """Tell by the name of a member whether an archive may hold a checkpoint there."""
    last = name.rstrip("/").rpartition("/")[2]
    return (
        last in _CHECKPOINT_NAMES
        or last.endswith(_CHECKPOINT_ENDINGS)
        or is_data_file(last)
        or ".ckpt-" in last
    )
