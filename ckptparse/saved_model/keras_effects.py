"""What Keras would run if it built a model from what it wrote of its objects.

    Lambda         "function": [code, defaults, closure]     the code is marshalled and in base64
                   "function": code                          likewise, if "function_type": "lambda"
                   "function": {"class_name": "__lambda__", "config": {"code": ...}}
    TFOpLambda     "function": "io.write_file"               a function of TensorFlow by its name
    function       "module": "keras.utils", "config": name   imported, and looked up
    any object     "module": "package.module"                imported, and its class looked up

Code is never unmarshalled, which a hostile file could make crash: the names in it are found by the
bytes that stand before them.
"""

from __future__ import annotations

import base64
import binascii
import builtins
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ckptparse.errors import MalformedError
from ckptparse.graph.effects.effect import Effect, EffectKind
from ckptparse.graph.effects.table import OPERATIONS
from ckptparse.saved_model.keras_metadata import KerasObject

__all__ = ["find_keras_effects", "hidden_effect"]

_LAMBDA, _MARKED_LAMBDA, _FUNCTION = "Lambda", "__lambda__", "function"
_OP_LAMBDAS = frozenset({"TFOpLambda", "ClassMethod", "InstanceMethod", "InstanceProperty"})
_CODE_KEYS = ("function", "output_shape", "mask")
_KNOWN_MODULES = frozenset({"keras", "tf_keras", "tensorflow", "builtins"})
_HARMLESS_PARTS = frozenset(
    {
        *("activations", "constraints", "initializers", "losses", "metrics", "optimizers"),
        *("regularizers", "ops", "nn", "math", "random"),
    }
)
"""Parts of modules of Keras and TensorFlow in which every function only computes."""
_DOWNLOADS = "get_file"
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
_HOLDERS = (dict, list, tuple)
"""What a configuration is made of, beside texts and numbers."""
_LONGEST_PATH = 4096
"""Characters of a path that are told."""
_MOST_NAMES = 12
"""Names in a piece of code that are told: they fit into a sentence."""


def find_keras_effects(objects: Iterable[KerasObject]) -> Iterator[Effect]:
    """Iterate over what Keras would run, each once, under the path of the object it stands in.

    What cannot be read counts as hidden: another reader may make something of it.
    """
    seen: set[tuple[object, ...]] = set()
    for item in objects:
        try:
            values = item.values
        except MalformedError:
            yield hidden_effect(item.identifier, item.path)
            continue
        for effect in _walk(values, item.path):
            # A model's own configuration holds those of its layers once more.
            key = (effect.op, effect.reason, effect.node.rpartition("/")[2])
            if key not in seen:
                seen.add(key)
                yield effect


def hidden_effect(op: str, where: str) -> Effect:
    """Say that what Keras wrote cannot be read, and so not be judged."""
    reason = "Holds a description by Keras that cannot be read, so what it would run is not known"
    return _effect(EffectKind.RUNS_HIDDEN_CODE, op, where, reason, _SAVING_SOURCE)


def _walk(root: Mapping[str, Any], path: str) -> Iterator[Effect]:
    """Iterate over the effects of every object in a configuration."""
    pending: list[tuple[Any, str]] = [(root, _shortened(path))]
    while pending:
        value, where = pending.pop()
        inner = value
        if isinstance(value, dict):
            if isinstance(value.get("class_name"), str):
                named = _name_of(value)
                where = _shortened(f"{where}/{named}") if named else where
                yield from _examine(value, where)
            inner = value.values()
        pending.extend((item, where) for item in reversed(inner) if isinstance(item, _HOLDERS))


def _shortened(path: str) -> str:
    """Cut a path that no model has: every object below would have a copy of it."""
    return path if len(path) <= _LONGEST_PATH else f"{path[:_LONGEST_PATH]}…"


def _name_of(value: Mapping[str, Any]) -> str | None:
    config = value.get("config")
    name = config.get("name") if isinstance(config, dict) else None
    return name if isinstance(name, str) else None


def _examine(value: Mapping[str, Any], where: str) -> Iterator[Effect]:
    kind, config, module = value.get("class_name"), value.get("config"), value.get("module")
    if not isinstance(kind, str):
        return
    settings = config if isinstance(config, dict) else {}
    last = kind.rpartition(">")[2]
    if last == _LAMBDA:
        yield from _examine_lambda(settings, where)
    elif kind == _MARKED_LAMBDA:
        yield _python(kind, where, _code_reason(settings.get("code")))
    elif last in _OP_LAMBDAS:
        yield from _examine_call(last, settings, where)
    if not isinstance(module, str):
        return
    if kind == _FUNCTION and isinstance(config, str):
        yield from _examine_function(module, config, where)
    elif module.partition(".")[0] not in _KNOWN_MODULES:
        yield _imports(module, kind, where)


def _imports(module: str, name: str, where: str) -> Effect:
    says = f"Imports the Python module {module!r} for {name!r}"
    return _effect(EffectKind.RUNS_PYTHON, name, where, says, _SAVING_SOURCE)


def _examine_function(module: str, name: str, where: str) -> Iterator[Effect]:
    """Look at a function that Keras would import by its module and name."""
    root, _, rest = module.partition(".")
    if root not in _KNOWN_MODULES:
        yield _imports(module, name, where)
    elif root == "builtins":
        # For Keras these are its own functions first; a name that it lacks is Python's.
        if hasattr(builtins, name):
            does = f"Calls Python's own function {name!r}"
            yield _effect(EffectKind.RUNS_PYTHON, _FUNCTION, where, does, _SAVING_SOURCE)
    elif root == "tensorflow" and (found := list(_named_calls(_FUNCTION, f"{rest}.{name}", where))):
        yield from found
    elif _HARMLESS_PARTS.isdisjoint(module.split(".")):
        kind = EffectKind.NETWORK if name == _DOWNLOADS else EffectKind.RUNS_PYTHON
        does = f"Calls the function {f'{module}.{name}'!r}"
        yield _effect(kind, _FUNCTION, where, does, _SAVING_SOURCE)


def _examine_lambda(settings: Mapping[str, Any], where: str) -> Iterator[Effect]:
    for key in _CODE_KEYS:
        value = settings.get(key)
        if value is None:
            continue
        marked = settings.get(f"{key}_type") == "lambda"
        if isinstance(value, (list, tuple)) and value and isinstance(value[0], str):
            if key == "function" or marked:
                yield _python(_LAMBDA, where, _code_reason(value[0]))
        elif isinstance(value, str) and marked:
            yield _python(_LAMBDA, where, _code_reason(value))
        elif isinstance(value, str) and (key == "function" or settings.get(f"{key}_type")):
            reason = f"Calls the Python function {value!r}, which the program must define"
            yield _python(_LAMBDA, where, reason)


def _examine_call(kind: str, settings: Mapping[str, Any], where: str) -> Iterator[Effect]:
    """Look at a layer that calls a function of TensorFlow by its name."""
    called = settings.get("function", settings.get("symbol"))
    if not isinstance(called, str):
        return
    yield from _named_calls(kind, called, where)


def _named_calls(kind: str, called: str, where: str) -> Iterator[Effect]:
    """Say what a function of TensorFlow does, by its name; nothing of most."""
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
        return "Runs Python code that the model holds"
    try:
        data = base64.b64decode(code, validate=False)
    except (ValueError, binascii.Error):
        # Older models have the bytes themselves, as the characters of those numbers.
        data = code.encode("raw_unicode_escape", "surrogatepass")
    names = list(dict.fromkeys(_names_in(data)))
    said = ", ".join(names[:_MOST_NAMES]) + (" …" if len(names) > _MOST_NAMES else "")
    reason = f"Runs Python code that the model holds ({len(data)} bytes)"
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
