"""Whenever `write` is killed, TensorFlow reads the old or the new checkpoint, and never a mix."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_write_killed import NEW, OLD, same

tf = pytest.importorskip("tensorflow")

# In a process without TensorFlow, whose threads do not outlive a fork.
KILL = """
import sys
from pathlib import Path
from test_write_killed import NEW, OLD, killed_before
import ckptparse

root, before, after = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
for step in range(200):
    folder = root / f"{step:03}"
    folder.mkdir()
    ckptparse.write(folder / "m", OLD, max_shard_size=before or None)
    def work():
        ckptparse.write(folder / "m", NEW, max_shard_size=after or None, overwrite=True)
    if not killed_before(step, work):
        break
"""


def what_tensorflow_reads(prefix: Path) -> str:
    """Say what it reads: `old`, `new`, or `nothing`; fail if it is anything else."""
    try:
        reader = tf.train.load_checkpoint(str(prefix))
        names = reader.get_variable_to_shape_map()
        got: dict[str, Any] = {name: np.asarray(reader.get_tensor(name)) for name in names}
    except (tf.errors.OpError, ValueError, RuntimeError):
        return "nothing"
    found = [kind for kind, wanted in (("old", OLD), ("new", NEW)) if same(got, wanted)]
    assert found, "what TensorFlow reads is neither the old checkpoint nor the new one"
    return found[0]


@pytest.mark.parametrize("sizes", [(0, 0), (2400, 2400), (0, 1200)], ids=str)
def test_at_no_step_of_a_write_does_tensorflow_read_a_mix(
    sizes: tuple[int, int], tmp_path: Path
) -> None:
    words = [sys.executable, "-c", KILL, str(tmp_path), *map(str, sizes)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    subprocess.run(words, check=True, env=environment)
    seen = [what_tensorflow_reads(folder / "m") for folder in sorted(tmp_path.iterdir())]
    order = [kind for n, kind in enumerate(seen) if n == 0 or seen[n - 1] != kind]
    assert order in (["old", "nothing", "new"], ["old", "new"])
    assert seen.count("nothing") < len(seen) / 2
