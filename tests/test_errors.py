"""Every error is a `CheckpointError`, and a standard exception too."""

from __future__ import annotations

import errno
import pickle

import pytest

from ckptparse.errors import (
    CheckpointError,
    CheckpointNotFoundError,
    ClosedError,
    MissingShardError,
    OutputError,
    OutputExistsError,
    PermissionDeniedError,
    StorageError,
)

OF_PATHS = [
    (CheckpointNotFoundError, FileNotFoundError, errno.ENOENT),
    (MissingShardError, FileNotFoundError, errno.ENOENT),
    (PermissionDeniedError, PermissionError, errno.EACCES),
    (OutputExistsError, FileExistsError, errno.EEXIST),
    (OutputError, OSError, errno.EIO),
    (StorageError, OSError, errno.EIO),
]


@pytest.mark.parametrize(("kind", "standard", "number"), OF_PATHS)
def test_an_error_about_a_path_has_the_number_and_the_name_of_the_standard_one(
    kind: type[CheckpointError], standard: type[OSError], number: int
) -> None:
    with pytest.raises(standard) as caught:
        raise kind("It failed", path="run/m.index", hint="Try again")
    assert caught.value.errno == number
    assert caught.value.filename == "run/m.index"
    assert str(caught.value) == "It failed (file 'run/m.index'). Try again"


@pytest.mark.parametrize("kind", [kind for kind, _, _ in OF_PATHS] + [ClosedError])
def test_an_error_survives_pickling(kind: type[CheckpointError]) -> None:
    error = kind("It failed", path="run/m.index", offset=7, size=8, tensor="w", hint="Try again")
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert type(again) is kind
    assert again.__dict__ == error.__dict__
    assert str(again) == str(error)


def test_an_output_that_cannot_be_written_keeps_the_reason() -> None:
    error = OutputError("It is full", number=errno.ENOSPC, path="out")
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert again.errno == error.errno == errno.ENOSPC


def test_a_closed_checkpoint_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="closed"):
        raise ClosedError("The checkpoint has been closed", path="m")
