"""Reading runs nothing that a file holds, and writes nothing, as Python's own audit tells."""

from __future__ import annotations

from pathlib import Path

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
def ask():
    for path in sys.argv[1:]:
        with ckptparse.open(path) as opened:
            opened.read()
        ckptparse.identify(path), ckptparse.verify(path), ckptparse.recover(path)
        list(ckptparse.annotate(path, depth=1))
ask()  # imports are done: loading compiled modules is no business of the file
sys.addaudithook(watch)
armed = True
ask()
found, seen = seen, []
open(os.devnull, "w").close()
armed = False
print(found, len(seen))
"""


def test_reading_unpickles_and_starts_and_writes_nothing(fixtures: Path) -> None:
    paths = [str(fixtures / "saver" / "my_model")]
    assert run_child(AUDITED, *paths) == "[] 1\n"
