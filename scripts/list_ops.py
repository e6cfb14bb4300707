"""Write the list of the operations of the TensorFlow that is installed (`known_ops.py`).

python scripts/list_ops.py
"""

from __future__ import annotations

import textwrap
from pathlib import Path

import tensorflow as tf
from tensorflow.core.framework import op_def_pb2
from tensorflow.python.client import pywrap_tf_session

MODULE = Path(__file__).parent.parent / "ckptparse" / "graph" / "effects" / "known_ops.py"


def registered() -> list[str]:
    ops = op_def_pb2.OpList()
    ops.ParseFromString(pywrap_tf_session.TF_GetBuffer(pywrap_tf_session.TF_GetAllOpList()))
    return sorted(op.name for op in ops.op)


def main() -> None:
    text = MODULE.read_text(encoding="utf-8")
    head, _, _ = text.partition("TENSORFLOW = ")
    names = textwrap.fill(
        " ".join(registered()),
        width=96,
        initial_indent="    ",
        subsequent_indent="    ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    MODULE.write_text(
        f'{head}TENSORFLOW = "{tf.__version__}"\n'
        '"""The version that the list is taken from; what was removed before is not in it."""\n\n'
        f'_NAMES = """\n{names}\n"""\n\nKNOWN_OPS = frozenset(_NAMES.split())\n',
        encoding="utf-8",
    )


if __name__ == "__main__":
    main()
