"""`ckptparse.tf` in the place of `tensorflow`, for code in installed packages that imports it."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager
from types import ModuleType, TracebackType

from ckptparse.errors import UnsupportedError
from ckptparse.locks import make_lock
from ckptparse.tf.namespaces import is_ours, make_modules

__all__ = ["as_tensorflow"]

_NAME = "tensorflow"
_lock = make_lock()
_users = 0


class as_tensorflow(AbstractContextManager[ModuleType]):  # noqa: N801 - used like a function
    """Put a module in place of `tensorflow` for as long as a `with` statement lasts.

        with ckptparse.tf.as_tensorflow():
            load_tf_weights_in_bert(model, config, "bert/bert_model.ckpt")

    What is inside may `import tensorflow`, and finds what reads checkpoints: `tf.train`,
    `tf.compat.v1`, `tf.contrib.framework`, `tensorflow.python...`. All else raises an
    AttributeError. Afterwards nothing of it is left, and the real TensorFlow can be imported.

    It is seen by every thread; several may use it at the same time, and it may be nested.

    Raises:
        UnsupportedError: The real TensorFlow is imported already.
    """

    def __enter__(self) -> ModuleType:
        """Put it there, and return it."""
        global _users  # noqa: PLW0603 - `sys.modules` is one for the process, and so is this
        with _lock:
            if not _users:
                _check_free()
                sys.modules.update(make_modules(_NAME))
            _users += 1
            return sys.modules[_NAME]

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Take it away, after its last user."""
        global _users  # noqa: PLW0603
        with _lock:
            _users -= 1
            if not _users:
                for name in _present():
                    if is_ours(sys.modules[name]):
                        del sys.modules[name]


def _present() -> list[str]:
    return [name for name in sys.modules if name == _NAME or name.startswith(f"{_NAME}.")]


def _check_free() -> None:
    """Refuse to stand in for a TensorFlow that is there."""
    found = _present()
    if found:
        raise UnsupportedError(
            f"TensorFlow is imported already: found {found[0]!r} among the modules",
            hint="Use it, or call this in a process that has not imported it",
        )
