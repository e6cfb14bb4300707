"""What these modules lack of TensorFlow's is said to be missing on purpose."""

from __future__ import annotations

__all__ = ["no_attribute"]


def no_attribute(module: str, name: str) -> AttributeError:
    """Return the error for a name that a module does not have."""
    return AttributeError(
        f"module {module!r} has no attribute {name!r}: it reads checkpoints, and does nothing "
        "else of TensorFlow"
    )
