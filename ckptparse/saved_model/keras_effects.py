"""What Keras would run if it built a model from what it wrote of its objects.

    Lambda         "function": [code, defaults, closure]     the code is marshalled and in base64
                   "function": {"class_name": "__lambda__", "config": {"code": ...}}
    TFOpLambda     "function": "io.write_file"               a function of TensorFlow by its name
    any object     "module": "package.module"                imported, and its class looked up

Code is never unmarshalled, which a hostile file could make crash: the names in it are found by the
bytes that stand before them.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ckptparse.graph.effects.effect import Effect, EffectKind
from ckptparse.graph.effects.table import OPERATIONS
from ckptparse.saved_model.keras_metadata import KerasObject

__all__ = ["find_keras_effects"]

_LAMBDA, _MARKED_LAMBDA = "Lambda", "__lambda__"
_OP_LAMBDAS = frozenset({"TFOpLambda", "ClassMethod", "InstanceMethod", "InstanceProperty"})
_CODE_KEYS = ("function", "output_shape", "mask")
_KNOWN_MODULES = frozenset({"keras", "tf_keras", "tensorflow", "builtins"})
_LAMBDA_SOURCE = "https://keras.io/api/layers/core_layers/lambda/"
_SAVING_SOURCE = "https://keras.io/api/models/model_saving_apis/serialization_utils/"
_PYTHON_CALLS = ("numpy_function", "py_function", "compat.v1.py_func")
_FILE_CALLS = {
    "io.read_file": EffectKind.READS_FILE,
    "io.matching_files": EffectKind.READS_FILE,
    "io.gfile": EffectKind.WRITES_FILE,
    "io.write_file": EffectKind.WRITES_FILE,
    "io.TFRecordWriter": EffectKind.WRITES_FILE,
    "saved_model": EffectKind.WRITES_FILE,
    "load_library": EffectKind.NEEDS_LIBRARY,
    "load_op_library": EffectKind.NEEDS_LIBRARY,
}
# Marshalled short text: a letter of its kind, with or without the highest bit, and its length.
_SHORT_TEXT = re.compile(rb"[zZ\xda\xfa](.)", re.DOTALL)
_IDENTIFIER = re.compile(rb"[A-Za-z_][A-Za-z0-9_.]*\Z")
_MOST_NAMES = 12


def find_keras_effects(objects: Iterable[KerasObject]) -> Iterator[Effect]:
    """Iterate over what Keras would run, each once, under the path of the object it stands in.

    Raises:
        MalformedError: What Keras wrote of an object is no JSON.
    """
    seen: set[tuple[object, ...]] = set()
    for item in objects:
        for effect in _walk(item.values, item.path):
            # A model's own configuration holds those of its layers once more.
            key = (effect.op, effect.reason, effect.node.rpartition("/")[2])
            if key not in seen:
                seen.add(key)
                yield effect


def _walk(root: Mapping[str, Any], path: str) -> Iterator[Effect]:
    """Iterate over the effects of every object in a configuration."""
    pending: list[tuple[Any, str]] = [(root, path)]
    while pending:
        value, where = pending.pop()
        if isinstance(value, (list, tuple)):
            pending.extend((item, where) for item in reversed(value))
        elif isinstance(value, Mapping):
            named = _name_of(value)
            here = f"{where}/{named}" if named else where
            yield from _examine(value, here)
            pending.extend((item, here) for item in reversed(list(value.values())))


def _name_of(value: Mapping[str, Any]) -> str | None:
    if not isinstance(value.get("class_name"), str):
        return None
    config = value.get("config")
    name = config.get("name") if isinstance(config, Mapping) else None
    return name if isinstance(name, str) else None


def _examine(value: Mapping[str, Any], where: str) -> Iterator[Effect]:
    kind, config, module = value.get("class_name"), value.get("config"), value.get("module")
    if not isinstance(kind, str):
        return
    settings = config if isinstance(config, Mapping) else {}
    last = kind.rpartition(">")[2]
    if last == _LAMBDA:
        yield from _examine_lambda(settings, where)
    elif kind == _MARKED_LAMBDA:
        yield _python(kind, where, _code_reason(settings.get("code")))
    elif last in _OP_LAMBDAS:
        yield from _examine_call(last, settings, where)
    if isinstance(module, str) and module.partition(".")[0] not in _KNOWN_MODULES:
        says = f"Imports the Python module {module!r} for its class {kind!r}"
        yield Effect(
            EffectKind.RUNS_PYTHON, False, kind, where, None, (), None, None, says, _SAVING_SOURCE
        )


def _examine_lambda(settings: Mapping[str, Any], where: str) -> Iterator[Effect]:
    for key in _CODE_KEYS:
        value = settings.get(key)
        if isinstance(value, (list, tuple)) and value and isinstance(value[0], str):
            if key == "function" or settings.get(f"{key}_type") == "lambda":
                yield _python(_LAMBDA, where, _code_reason(value[0]))
        elif key == "function" and isinstance(value, str):
            reason = f"Calls the Python function {value!r}, which the program must bring"
            yield _python(_LAMBDA, where, reason)


def _examine_call(kind: str, settings: Mapping[str, Any], where: str) -> Iterator[Effect]:
    """Look at a layer that calls a function of TensorFlow by its name."""
    called = settings.get("function", settings.get("symbol"))
    if not isinstance(called, str):
        return
    does = f"Calls TensorFlow's {called!r}"
    operation = OPERATIONS.get(called.removeprefix("raw_ops."))
    if operation is not None and called.startswith("raw_ops."):
        yield _effect(operation.kind, kind, where, does, operation.source)
    elif called in _PYTHON_CALLS:
        yield _effect(EffectKind.RUNS_PYTHON, kind, where, does, _api(called))
    else:
        for name, what in _FILE_CALLS.items():
            if called == name or called.startswith(f"{name}."):
                yield _effect(what, kind, where, does, _api(called))


def _code_reason(code: object) -> str:
    """Say that Python's code stands here, and the names in it."""
    if not isinstance(code, str):
        return "Runs Python code that stands in the model"
    try:
        data = base64.b64decode(code, validate=False)
    except (ValueError, binascii.Error):
        return "Runs Python code that stands in the model, and is no base64"
    names = list(dict.fromkeys(_names_in(data)))
    said = ", ".join(names[:_MOST_NAMES]) + (" …" if len(names) > _MOST_NAMES else "")
    reason = f"Runs Python code that stands in the model ({len(data)} bytes)"
    return f"{reason}; names in it: {said}" if names else reason


def _names_in(data: bytes) -> Iterator[str]:
    for found in _SHORT_TEXT.finditer(data):
        length = found.group(1)[0]
        text = data[found.end() : found.end() + length]
        if length > 1 and len(text) == length and _IDENTIFIER.match(text):
            yield text.decode("ascii")


def _python(op: str, where: str, reason: str) -> Effect:
    return _effect(EffectKind.RUNS_PYTHON, op, where, reason, _LAMBDA_SOURCE)


def _effect(kind: EffectKind, op: str, where: str, reason: str, source: str) -> Effect:
    return Effect(kind, False, op, where, None, (), None, None, reason, source)


def _api(called: str) -> str:
    return f"https://www.tensorflow.org/api_docs/python/tf/{called.replace('.', '/')}"
