"""How other formats are made to hold what they lack: names that their readers and writers share.

npz, npy, HDF5    a kind that numpy lacks is a type of one field, called as the kind is;
                  strings that end in NULs a type of two, the bytes and their length
npy               which file of a directory is which tensor stands in `tensors.json`
HDF5              a name that is no path of groups stands in the attribute `ckptparse.name`
safetensors       kinds stored as others of the same bytes stand under `ckptparse.kinds`
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ckptparse.dtypes import DataType
from ckptparse.errors import UnsupportedError

__all__ = [
    "INDEX_NAME",
    "KINDS_KEY",
    "LENGTH_FIELD",
    "METADATA_NAME",
    "MOST_GROUPS",
    "NAMES_KEY",
    "NAME_ATTRIBUTE",
    "REPORT_NAME",
    "SAFETENSORS_DTYPES",
    "STRING_FIELD",
    "load_h5py",
]

STRING_FIELD, LENGTH_FIELD = "string", "length"

MOST_GROUPS = 1000
"""Groups of HDF5 inside each other: the library makes each one by itself, and real names have
ten."""

INDEX_NAME = "tensors.json"
"""Says which file of a directory is which tensor."""
REPORT_NAME = "report.json"
"""Says where the tensors of a recovery came from."""
METADATA_NAME = "__metadata__.json"
"""The member of an archive of numpy's that says where its content came from."""
NAME_ATTRIBUTE = "ckptparse.name"
KINDS_KEY = "ckptparse.kinds"
NAMES_KEY = "ckptparse.names"

SAFETENSORS_DTYPES: Mapping[str, DataType] = {
    "BOOL": DataType.DT_BOOL,
    "U8": DataType.DT_UINT8,
    "I8": DataType.DT_INT8,
    "U16": DataType.DT_UINT16,
    "I16": DataType.DT_INT16,
    "U32": DataType.DT_UINT32,
    "I32": DataType.DT_INT32,
    "U64": DataType.DT_UINT64,
    "I64": DataType.DT_INT64,
    "F16": DataType.DT_HALF,
    "BF16": DataType.DT_BFLOAT16,
    "F32": DataType.DT_FLOAT,
    "F64": DataType.DT_DOUBLE,
    "C64": DataType.DT_COMPLEX64,
    "F8_E5M2": DataType.DT_FLOAT8_E5M2,
    "F8_E4M3": DataType.DT_FLOAT8_E4M3FN,
    "F8_E4M3FNUZ": DataType.DT_FLOAT8_E4M3FNUZ,
    "F8_E5M2FNUZ": DataType.DT_FLOAT8_E5M2FNUZ,
}
"""The names of kinds in safetensors files, and which they are."""


def load_h5py() -> Any:
    """Import h5py.

    Raises:
        UnsupportedError: It is not installed.
    """
    try:
        import h5py
    except ImportError:
        raise UnsupportedError(
            "HDF5 files need the package h5py, which is not installed",
            hint="Install it: pip install 'ckptparse[hdf5]'",
        ) from None
    return h5py
