"""The description that makes a SavedModel a TF-Hub module of TF1: `tfhub_module.pb`."""

from __future__ import annotations

from ckptparse.errors import DataLossError, UnsupportedError
from ckptparse.files.context import Context
from ckptparse.proto.module_def_pb2 import ModuleDef
from ckptparse.proto.parsing import parse_message

__all__ = ["HUB_FILE", "check_hub_module"]

HUB_FILE = "tfhub_module.pb"
_FORMAT = 3
"""The only format that was ever written."""


def check_hub_module(path: str, context: Context) -> None:
    """Refuse a module that needs more than reading a SavedModel.

    Raises:
        UnsupportedError: It has another format, or requires features that nobody here knows. A
            description that does not parse refuses nothing.
    """
    try:
        data = context.read_whole(path, "message_bytes", "The size of the description")
        module = parse_message(ModuleDef, data, limits=context.limits, path=path)
    except DataLossError:
        return
    if module.format != _FORMAT or module.required_features:
        raise UnsupportedError(
            f"The TF-Hub module has format {module.format} and requires "
            f"{list(module.required_features)}: only format {_FORMAT} is known",
            path=path,
        )
