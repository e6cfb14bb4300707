"""Stands in for TensorFlow in scripts that read checkpoints: `import ckptparse.tf as tf`.

    tf.train.load_checkpoint, list_variables, load_variable, latest_checkpoint,
             get_checkpoint_state, checkpoints_iterator, NewCheckpointReader
    tf.compat.v1.train...   tf.contrib.framework...   tf.python.pywrap_tensorflow...
    tf.errors.NotFoundError ...   tf.float32 ...

Names, arguments and results are TensorFlow's; errors are both TensorFlow's and ours. For code in
installed packages `with ckptparse.tf.as_tensorflow():` puts this in the place of `tensorflow`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ckptparse.tf import dtypes as dtypes
from ckptparse.tf import errors as errors
from ckptparse.tf import train as train
from ckptparse.tf.dtypes import DTYPES, DType, as_dtype
from ckptparse.tf.missing import no_attribute
from ckptparse.tf.namespaces import VERSION, publish
from ckptparse.tf.standing_in import as_tensorflow

if TYPE_CHECKING:
    from types import ModuleType

    compat: ModuleType
    contrib: ModuleType
    python: ModuleType
    version: ModuleType

__all__ = ["VERSION", "DType", "as_dtype", "as_tensorflow", "dtypes", "errors", "train"]

__version__ = VERSION

publish(__name__)


def __getattr__(name: str) -> Any:
    if name in DTYPES:
        return DTYPES[name]
    raise no_attribute(__name__, name)
