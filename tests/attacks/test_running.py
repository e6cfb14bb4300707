"""Reading runs nothing that a file holds, and writes nothing, as Python's own audit tells."""

from __future__ import annotations

import marshal
import os
import pickle
import zipfile
from pathlib import Path

import builder as b
import numpy as np
from attacking import run_child

AUDITED = """
import os, sys
import ckptparse

FORBIDDEN = (
    "pickle.find_class", "marshal.loads", "os.system", "os.exec", "os.posix_spawn",
    "subprocess.Popen", "socket.connect", "os.remove", "os.rename", "os.mkdir", "ctypes.dlopen",
)
seen = []
armed = False

def watch(event, arguments):
    if armed and event in FORBIDDEN:
        seen.append((event, str(arguments)))
    if armed and event == "open" and isinstance(arguments[2], int) and arguments[2] & 3:
        seen.append((event, str(arguments)))

sys.dont_write_bytecode = True
def opened_and_read(path):
    with ckptparse.open(path) as opened:
        opened.read()

def model(path):
    with ckptparse.open_saved_model(path) as opened:
        opened.effects, opened.layers

def graph(path):
    ckptparse.open_graph(path).effects

CALLS = [
    ckptparse.identify, opened_and_read, ckptparse.list_variables, ckptparse.verify,
    lambda path: [one.read() for one in ckptparse.recover(path).values()],
    lambda path: list(ckptparse.annotate(path, depth=1)), model, graph,
    lambda path: [found.recover() for found in ckptparse.scan(path)],
]
def ask():
    for path in sys.argv[1:]:
        for call in CALLS:
            try:
                call(path)
            except ckptparse.CheckpointError:
                pass
ask()  # imports are done: loading compiled modules is no business of the file
sys.addaudithook(watch)
armed = True
ask()
found, seen = seen, []
open(os.devnull, "w").close()
armed = False
print(found, len(seen))
"""


class Evil:
    """Whoever unpickles it starts a program."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("true",)


def hostile(folder: Path) -> list[Path]:
    """Files that hold code, under the names of what is read here and of what is not."""
    evil = pickle.dumps(Evil())
    files = {
        "data.pkl": evil,
        "m.index": evil,
        "m.data-00000-of-00001": evil,
        "v1": evil,
        "graph.pb": evil,
        "checkpoint": evil,
        "code.pyc": marshal.dumps(compile("1", "x", "exec")),
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
    with zipfile.ZipFile(folder / "model.pt", "w") as archive:
        archive.writestr("model/data.pkl", evil)
        archive.writestr("model/version", "3\n")
    made = b.Bundle()
    made.add("code", np.array([evil, marshal.dumps(compile("1", "x", "exec"))], object))
    return [*(folder / name for name in files), folder / "model.pt", Path(made.write(folder / "s"))]


def test_reading_unpickles_and_starts_and_writes_nothing(fixtures: Path, tmp_path: Path) -> None:
    paths = [fixtures / "saver" / "my_model", fixtures / "saved_model" / "keras2_digits"]
    paths += [tmp_path, *hostile(tmp_path)]
    assert run_child(AUDITED, *map(str, paths)).splitlines()[-1] == "[] 1"
