// Runs ckptparse in Pyodide, the Python of browsers, under node: `nox -s pyodide`.
//
//     node check_pyodide.mjs PROJECT FOLDER_OF_WHEELS
//
// What needs no numpy is tried: that comes with Pyodide's own distribution, not with its npm package;
// so does crc32c, in place of which stands a CRC-32C in plain Python.
import { createRequire } from "node:module";

const [project, wheels] = process.argv.slice(2);
const { loadPyodide } = createRequire(process.cwd() + "/")("pyodide");
const python = await loadPyodide();
python.mountNodeFS("/project", project);
python.mountNodeFS("/wheels", wheels);

let said;
try {
  said = python.runPython(`
import glob, os, sys, threading, types

sys.path[:0] = ["/project", *glob.glob("/wheels/*.whl")]
os.chdir("/project/fixtures")


def crc32c_in_python():
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)

    def crc32c(data, value=0, **_):
        value ^= 0xFFFFFFFF
        for byte in memoryview(data).cast("B"):
            value = value >> 8 ^ table[(value ^ byte) & 255]
        return value ^ 0xFFFFFFFF

    module = types.ModuleType("crc32c")
    module.crc32c = crc32c
    return module


sys.modules["crc32c"] = crc32c_in_python()
import ckptparse

try:
    threading.Thread(target=print).start()
    raise SystemExit("expected a Python without threads")
except RuntimeError:
    pass
assert not hasattr(os, "preadv")
assert ckptparse.explain("Key foo not found in checkpoint").code == "name.missing"

from ckptparse.files.context import Context
from ckptparse.proto.saved_model_pb2 import SavedModel

for path in ("saver/my_model.index", "saved_model/module/saved_model.pb"):
    data = Context().read_whole(path, "message_bytes", "The size of the file")
    with open(path, "rb") as file:
        assert data == file.read()
model = SavedModel.FromString(bytes(data))
assert [list(graph.meta_info_def.tags) for graph in model.meta_graphs] == [["serve"]]
from ckptparse.parallel import pick_threads, run_all

done = []
run_all([lambda: done.append(1), lambda: done.append(2)], pick_threads(None, 1 << 30, share=1))
assert done == [1, 2]
f"Pyodide with Python {sys.version.split()[0]}: 1 passed"
`);
} catch (error) {
  console.error(error.message);
  process.exit(1);
}
console.log(said);
