"""Inputs that once went wrong, each for its kind: what it must give, in little memory and time."""

from __future__ import annotations

import io
import signal
import tarfile
from pathlib import Path

import builder as b
import numpy as np
import pytest
import v1_builder as v1
from attacking import attempt, run_child

import ckptparse

FORK = """
import os, signal, sys, threading, time
import ckptparse
prefix = sys.argv[1]
checkpoint = ckptparse.open(prefix)
wanted = {name: array.tobytes() for name, array in ckptparse.read(prefix).items()}

def read_on():
    while True:
        checkpoint.read()
        checkpoint["t/3"].read()

for _ in range(3):
    threading.Thread(target=read_on, daemon=True).start()
done = 0
for _ in range(12):
    time.sleep(0.02)
    child = os.fork()
    if not child:
        signal.alarm(10)
        found = {name: array.tobytes() for name, array in checkpoint.read().items()}
        os._exit(0 if found == wanted and len(checkpoint.layers) >= 0 else 1)
    done += os.waitpid(child, 0)[1] == 0
print(done)
os._exit(0)
"""

FORK_OF_IMPORT = """
import os, signal, sys, threading, time
from importlib.machinery import SourceFileLoader
import ckptparse
prefix = sys.argv[1]
run_module, started = SourceFileLoader.exec_module, threading.Event()

def slowly(self, module):
    if module.__name__ == "ckptparse.examination.report":
        started.set()
        time.sleep(0.5)
    run_module(self, module)

SourceFileLoader.exec_module = slowly
thread = threading.Thread(target=lambda: ckptparse.verify(prefix))
thread.start()
started.wait()
child = os.fork()
if not child:
    signal.alarm(10)
    os._exit(0 if ckptparse.verify(prefix).ok else 1)
print(os.waitpid(child, 0)[1])
thread.join()
"""

FORK_OF_ARCHIVE = """
import os, signal, sys, threading
import ckptparse
from ckptparse.files.archives.storage import ArchiveStorage
from ckptparse.files.local import LOCAL
from ckptparse.limits import DEFAULT_LIMITS

storage = ArchiveStorage(LOCAL, sys.argv[1], DEFAULT_LIMITS)
held = threading.Event()

def hold():
    with storage._lock:
        held.set()
        threading.Event().wait()

threading.Thread(target=hold, daemon=True).start()
held.wait()
child = os.fork()
if not child:
    signal.alarm(10)
    os._exit(len(storage.list(sys.argv[1])))
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
sys.stdout.flush()
os._exit(0)
"""

SHRUNK = """
import os, sys
import ckptparse
with ckptparse.open(sys.argv[1], mmap=True, verify=False) as checkpoint:
    array = checkpoint["w"].read()
    os.truncate(sys.argv[1] + ".data-00000-of-00001", 0)
    print(int(array[0]), int(array[-1]))
"""

CLOSED = """
import sys, ckptparse
opened = ckptparse.open(sys.argv[1])
tensor = opened["w"]
opened.close()
for ask in (
    lambda: opened["w"], lambda: list(opened), lambda: len(opened), lambda: "w" in opened,
    lambda: opened.read(), lambda: opened.shapes(), lambda: opened.items(), lambda: opened.step,
    lambda: opened.tree(), lambda: opened.layers, lambda: opened.optimizers,
    lambda: opened.averages,
    lambda: opened.object_graph, lambda: opened.orphan_slices, lambda: tensor.read(),
    lambda: tensor[:1], lambda: tensor.verify(),
):
    try:
        ask()
    except ckptparse.ClosedError:
        continue
    raise SystemExit("a closed checkpoint answers")
repr(opened), repr(tensor), opened._repr_html_(), opened.files, opened.format
"""


def part_of_a_save(folder: Path, entry: b.Entry) -> Path:
    """Write the index of one part of a save that did not finish."""
    made = b.Bundle()
    made.add("w", np.zeros(2, np.float32))
    made.entries[b"p"] = entry
    parts = folder / "m_temp"
    parts.mkdir(parents=True)
    (parts / "part-00000-of-00001.index").write_bytes(made.index())
    (parts / "part-00000-of-00001.data-00000-of-00001").write_bytes(bytes(made.shards[0]))
    return folder / "m"


@pytest.mark.parametrize("shard", [-2, -1, 7, 1 << 30])
@pytest.mark.parametrize("slices", [[], [[(0, 1)]]], ids=["whole", "sliced"])
def test_a_shard_that_is_none_is_refused_of_tensors_in_slices_too(
    tmp_path: Path, shard: int, slices: list[list[tuple[int, int]]]
) -> None:
    entry = b.Entry(b.FLOAT, (2,), shard, 0, 0 if slices else 8, 0, slices=slices)
    path = part_of_a_save(tmp_path / "x", entry)
    report = ckptparse.verify(path)
    assert "index.entry" in {problem.code for problem in report.problems}
    assert list(ckptparse.recover(path)) == ["w"]


def test_a_state_file_whose_path_holds_a_zero_names_nothing_that_is_there(tmp_path: Path) -> None:
    (tmp_path / "checkpoint").write_bytes(b'model_checkpoint_path: "a\\000b/c"\n')
    found = attempt(tmp_path)
    assert set(found.values()) == {"CheckpointNotFoundError", "NotACheckpointError", "value"}
    assert ckptparse.latest_checkpoint(tmp_path) is None


def test_what_a_state_file_says_reaches_no_terminal(tmp_path: Path) -> None:
    (tmp_path / "checkpoint").write_bytes(
        b'model_checkpoint_path: "\\033[2J\\007\\r/x\xe2\x80\xae"\n'
    )
    attempt(tmp_path)
    with pytest.raises(ckptparse.CheckpointNotFoundError) as caught:
        ckptparse.read(tmp_path)
    assert str(caught.value).isprintable() and caught.value.message.isprintable()


def test_hints_and_messages_that_are_set_later_are_safe_to_print() -> None:
    error = ckptparse.MalformedError("a\x1b[0m", hint="b\x07")
    error.message, error.hint = f"{error.message}\r", "c\x9b"
    assert str(error) == "a\\x1b[0m\\r. c\\u009b"


def test_a_string_tensor_that_numpy_cannot_shape_is_unsupported(tmp_path: Path) -> None:
    made = b.Bundle()
    made.add("w", np.zeros(2, np.float32))
    made.add_strings("z", [], (0, 1 << 62))
    found = attempt(made.write(tmp_path / "m"))
    assert found["read"] == "UnsupportedError"
    made.change("z", crc=1)
    attempt(made.write(tmp_path / "n"), "recover")
    file = v1.LegacyFile()
    listed = file.declare("z", (0, 1 << 62), b.STRING)
    listed.slices.append(v1.Slice([None, None], b""))
    assert attempt(file.write(tmp_path / "v1"), "read") == {"read": "UnsupportedError"}


@pytest.mark.parametrize("form", ["v2", "v1"])
def test_a_closed_checkpoint_raises_closed_error_and_nothing_else(
    tmp_path: Path, form: str
) -> None:
    if form == "v2":
        made = b.Bundle()
        made.add("w", np.zeros(4, np.float32))
        path = made.write(tmp_path / "m")
    else:
        file = v1.LegacyFile()
        file.add("w", np.zeros(4, np.float32))
        path = str(file.write(tmp_path / "m"))
    run_child(CLOSED, path)


def test_text_that_python_deprecates_is_read_as_protobuf_reads_it(tmp_path: Path) -> None:
    text = "node { name: 'a' op: 'NoOp' device: '\\l' } # \\q\n"
    (tmp_path / "m.pbtxt").write_text(text)
    code = "import sys, ckptparse; print(ckptparse.open_graph(sys.argv[1]).nodes['a'].device)"
    assert run_child(code, str(tmp_path / "m.pbtxt"), options=("-W", "error")) == "\\l\n"
    (tmp_path / "m.pbtxt").write_text("node { name: '\\777' op: 'NoOp' }\n")
    code = """
import sys, ckptparse
try:
    ckptparse.open_graph(sys.argv[1])
except ckptparse.CheckpointError as error:
    print(type(error).__name__)
"""
    found = run_child(code, str(tmp_path / "m.pbtxt"), options=("-W", "error"))
    assert found == "MalformedError\n"


def test_a_partial_tensor_takes_no_memory_that_its_file_does_not_have(tmp_path: Path) -> None:
    """Two slices of a byte are stored; the shape says eight gigabytes."""
    halves = [[(0, 1)], [(1, (1 << 33) - 1)]]
    made = b.Bundle()
    made.add("w", np.zeros(2, np.float32))
    made.entries[b"z"] = b.Entry(b.UINT8, (1 << 33,), slices=halves)
    made.put_entry(
        b.slice_key("z", halves[0]), b"\x07", b.masked_crc(b"\x07"), dtype=b.UINT8, shape=(1,)
    )
    path = made.write(tmp_path / "m")
    attempt(path)
    with pytest.raises(ckptparse.LimitError) as caught:
        ckptparse.recover(path)["z"].read()
    assert caught.value.limit == "memory_bytes"


def test_variants_of_several_tensors_share_one_budget(tmp_path: Path) -> None:
    inner = b.tensor_proto(b.INT8, (900 << 20,), b.field(7, b"\x05"))
    made = b.Bundle()
    for number in range(4):
        made.add_variants(f"v{number}", [b.variant_proto("t", tensors=[inner])], ())
    assert attempt(made.write(tmp_path / "m"), "read", memory=3 << 30) == {"read": "LimitError"}


def test_strings_that_are_objects_count_with_what_objects_take(tmp_path: Path) -> None:
    """A hundred thousand strings of two bytes take 300 kB in the file, and 6 MB in memory."""
    made = b.Bundle()
    made.add("s", np.array([b"ab"] * 100_000, object))
    path = made.write(tmp_path / "m")
    assert (
        len(ckptparse.read(path, limits=ckptparse.Limits(memory_bytes=6_000_000))["s"]) == 100_000
    )
    with pytest.raises(ckptparse.LimitError, match="memory_bytes"):
        ckptparse.read(path, limits=ckptparse.Limits(memory_bytes=4_000_000))


def test_strings_whose_bytes_are_everywhere_are_sought_at_each_place_once(tmp_path: Path) -> None:
    """The bytes of a window have the checksum, which holds for lengths and bytes of none."""
    made = b.Bundle()
    made.add("pattern", np.tile(np.frombuffer(bytes(range(1, 65)), np.uint8), 500))
    window = bytes(range(1, 65)) * 2
    made.put_entry("words", window, b.masked_crc(window), dtype=b.STRING, shape=(3,))
    made.write(tmp_path / "m")
    assert attempt(tmp_path / "m", "verify", "recover") == dict.fromkeys(
        ("verify", "recover"), "value"
    )
    # Nothing lies at any of these places, so nothing is said of them.
    codes = {problem.code for problem in ckptparse.verify(tmp_path / "m").problems}
    assert "shard.shifted" not in codes


@pytest.mark.parametrize("good", [True, False])
def test_entries_that_share_bytes_cost_no_more_than_their_file(tmp_path: Path, good: bool) -> None:
    data = np.random.default_rng(0).bytes(42_000)
    made = b.Bundle()
    made.put(data)
    for number in range(2_000):
        part = data[number:-2_000]
        crc = b.masked_crc(part) if good else number
        made.entries[f"t{number:04}".encode()] = b.Entry(
            b.INT8, (len(part),), 0, number, len(part), crc
        )
    found = attempt(made.write(tmp_path / "m"), "read", "verify", "recover")
    assert found["verify"] == found["recover"] == "value"
    parts = list(ckptparse.annotate(tmp_path / "m.data-00000-of-00001", depth=0))
    assert [part.offset for part in parts[1:]] == [a.offset + a.size for a in parts[:-1]]
    assert sum(part.size for part in parts) == 42_000


def test_beyond_the_attempts_that_are_allowed_tensors_are_reported_and_not_tried(
    tmp_path: Path,
) -> None:
    """A tensor of a mixed save takes a quarter of an attempt."""
    made = b.Bundle()
    for number in range(20):
        made.add(f"t{number:02}", np.arange(5, dtype=np.float32), crc=number + 1)
    path = made.write(tmp_path / "m")
    recovery = ckptparse.recover(path, limits=ckptparse.Limits(attempts=3))
    notes = [tensor.note for tensor in recovery.report.tensors.values()]
    assert sum("Limits.attempts" in (note or "") for note in notes) == 20 - 4 * 3


@pytest.mark.parametrize("harm", ["lost", "moved", "text"])
def test_what_is_proved_takes_an_eighth_of_an_attempt_or_none(tmp_path: Path, harm: str) -> None:
    made = b.Bundle()
    rng = np.random.default_rng(0)
    for number in range(60):
        value = np.float32(number) if harm == "lost" else rng.normal(size=9).astype(np.float32)
        made.add(f"t{number:02}", value)
    path = made.write(tmp_path / "m")
    data = tmp_path / "m.data-00000-of-00001"
    before = data.read_bytes()
    if harm == "lost":
        data.unlink()
    elif harm == "moved":
        data.write_bytes(b"abc" + before)
    else:
        data.write_bytes(before.replace(b"\n", b"\r\n"))
    limits = ckptparse.Limits(attempts=8)
    back = [one for one in ckptparse.recover(path, limits=limits).values() if one.status.proved]
    assert len(back) == 60
    few = ckptparse.Limits(attempts=1)
    some = [one for one in ckptparse.recover(path, limits=few).values() if one.status.proved]
    # What lies elsewhere in its file, or in what it was before a conversion, takes none.
    assert 8 <= len(some) < 60 if harm == "lost" else len(some) == 60


def test_very_many_tensors_that_fail_over_the_same_bytes_cost_little(tmp_path: Path) -> None:
    size = 1 << 16
    entries = [
        (b"%07d" % number, b.Entry(b.FLOAT, (size // 4,), 0, number % 64, size, number + 1))
        for number in range(50_000)
    ]
    pairs = [(b"", b.Header().to_bytes(1)), *((key, entry.to_bytes()) for key, entry in entries)]
    (tmp_path / "m.index").write_bytes(b.table(pairs).data)
    data = np.random.default_rng(0).normal(0, 0.1, size // 2).astype(np.float32)
    (tmp_path / "m.data-00000-of-00001").write_bytes(data.tobytes())
    found = attempt(tmp_path / "m", "verify", "recover")
    assert found["verify"] == found["recover"] == "value"


@pytest.mark.parametrize("place", ["block", "list"])
def test_a_key_twice_is_an_error_for_who_reads_and_for_who_verifies(
    tmp_path: Path, place: str
) -> None:
    file = v1.LegacyFile()
    for number in range(40):
        file.add(f"t{number:02}", np.float32(number))
    pairs = file.pairs()
    pairs.insert(30, pairs[30])
    path = tmp_path / "m"
    path.write_bytes(b.assemble([b.Stored(b.block(pairs), key=pairs[-1][0])]).data)
    with pytest.raises(ckptparse.MalformedError, match="strictly increase"):
        ckptparse.read(path, ["t00"] if place == "list" else None)
    assert not ckptparse.verify(path).ok


def test_a_name_that_begins_with_a_zero_is_found_without_the_rest_of_the_index(
    tmp_path: Path,
) -> None:
    made = b.Bundle()
    made.add("\0name", np.float32(1))
    made.add_sliced("p", np.zeros((4, 2), np.float32), b.split_rows(4, 2, 2))
    made.add("z", np.float32(2))
    pairs = made.pairs()
    blocks = [b.Stored(b.block([pair]), key=pair[0]) for pair in pairs]
    path = made.write(tmp_path / "m")
    table = b.assemble(blocks)
    (tmp_path / "m.index").write_bytes(table.flip(table.blocks[-1][0] + 2))
    with ckptparse.open(path) as checkpoint:
        assert checkpoint["\0name"].read() == 1
        key = b.slice_key("p", [(0, 2), None]).decode("utf-8", "surrogateescape")
        with pytest.raises(ckptparse.CheckpointError):
            checkpoint[key]


def test_a_child_that_is_forked_while_threads_read_reads_on(tmp_path: Path) -> None:
    made = b.Bundle()
    for number in range(200):
        made.add(f"t/{number}", np.full(50, number, np.float32))
    assert run_child(FORK, made.write(tmp_path / "m")) == "12\n"


def test_a_child_that_is_forked_while_a_thread_imports_reads_on(tmp_path: Path) -> None:
    made = b.Bundle()
    made.add("w", np.float32(1))
    assert run_child(FORK_OF_IMPORT, made.write(tmp_path / "m")) == "0\n"


def test_a_child_finds_an_archive_open_that_a_thread_of_its_parent_was_reading(
    tmp_path: Path,
) -> None:
    made = b.Bundle()
    made.add("w", np.float32(1))
    with tarfile.open(tmp_path / "m.tar.gz", "w:gz") as archive:
        for name, data in made.files("m").items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    assert run_child(FORK_OF_ARCHIVE, str(tmp_path / "m.tar.gz")) == "2\n"


@pytest.mark.parametrize("blocks", [[], [b.Stored(b.EMPTY_BLOCK, key=b"")]])
def test_an_index_without_entries_is_an_error_for_who_reads_and_for_who_verifies(
    tmp_path: Path, blocks: list[b.Stored]
) -> None:
    (tmp_path / "m.index").write_bytes(b.assemble(blocks).data)
    (tmp_path / "m.data-00000-of-00001").write_bytes(bytes(9))
    with pytest.raises(ckptparse.MalformedError, match="empty table"):
        ckptparse.read(tmp_path / "m")
    report = ckptparse.verify(tmp_path / "m")
    assert [problem.code for problem in report.problems] == ["index.header"]


def test_a_data_file_that_begins_with_letters_is_recovered_from_in_little_time(
    tmp_path: Path,
) -> None:
    made = b.Bundle()
    made.put(b"a" * 60_000 + b"!")
    made.add("w", np.arange(9, dtype=np.float32), crc=1)
    path = made.write(tmp_path / "m")
    found = attempt(path, "verify", "recover")
    assert found == {"verify": "value", "recover": "value"}


@pytest.mark.parametrize("separators", [(b"a", b"z"), (b"b", b"c"), (b"c", b"z")])
def test_keys_outside_of_their_separators_are_an_error_for_who_reads_and_for_who_verifies(
    tmp_path: Path, separators: tuple[bytes, bytes]
) -> None:
    made = b.Bundle()
    for name in ("b", "c", "d"):
        made.add(name, np.float32(1))
    pairs = made.pairs()
    parts = (pairs[:2], pairs[2:])
    blocks = [b.Stored(b.block(p), key=key) for p, key in zip(parts, separators, strict=True)]
    path = made.write(tmp_path / "m")
    (tmp_path / "m.index").write_bytes(b.assemble(blocks).data)
    with pytest.raises(ckptparse.MalformedError, match="strictly increase"):
        ckptparse.read(path)
    report = ckptparse.verify(path)
    assert "index.order" in [problem.code for problem in report.problems] and not report.ok
    assert list(ckptparse.recover(path)) == ["b", "c", "d"]


def test_who_cuts_a_mapped_file_kills_the_process(tmp_path: Path) -> None:
    """It is the price of `mmap=True`, and the reason that it is never the default."""
    made = b.Bundle()
    made.add("w", np.arange(1 << 20, dtype=np.float32))
    path = made.write(tmp_path / "m")
    run_child(SHRUNK, path, expected=-signal.SIGBUS)
    path = made.write(tmp_path / "m")
    code = SHRUNK.replace("mmap=True, ", "").replace("array =", "checkpoint['w'].read(); array =")
    assert run_child(code, path) == "0 1048575\n"


@pytest.mark.parametrize("ratio", [1, 21])
def test_unpacking_a_large_block_takes_half_as_much_again_at_most(
    tmp_path: Path, ratio: int
) -> None:
    size = 64 << 20
    body = bytes(size) if ratio > 1 else np.random.default_rng(0).bytes(size)
    stored = b.Stored(b.block([(b"k", body)]), b.SNAPPY, key=b"k")
    path = tmp_path / "m"
    path.write_bytes(b.assemble([stored]).data)
    code = """
import resource, sys
from ckptparse.files.local import LOCAL
from ckptparse.limits import DEFAULT_LIMITS
from ckptparse.table.format import read_block, read_footer
from ckptparse.table.block import Block
from ckptparse.table.format import BlockHandle
import cramjam
source = LOCAL.open(sys.argv[1])
index = read_block(source, read_footer(source).index, limits=DEFAULT_LIMITS)
_, value = Block.from_bytes(index).first()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
block = read_block(source, BlockHandle.from_bytes(value)[0], limits=DEFAULT_LIMITS)
grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
print(grown / len(block))
"""
    stored_share = path.stat().st_size / size
    assert float(run_child(code, str(path))) < 1.5 + (stored_share if ratio == 1 else 0)


@pytest.mark.parametrize("kind", ["disk", "mapping"])
@pytest.mark.parametrize("name", ["w", "s"])
def test_a_checkpoint_that_is_replaced_between_index_and_data_says_so(
    tmp_path: Path, kind: str, name: str
) -> None:
    saves = []
    for number in range(2):
        made = b.Bundle()
        made.add("w", np.full(9, number, np.float32))
        made.add("s", np.array([b"x%d" % number], object))
        saves.append(made)
    store = dict(saves[0].files("m"))
    path = saves[0].write(tmp_path / "m") if kind == "disk" else "m"
    with ckptparse.open(path, store=store if kind == "mapping" else None) as checkpoint:
        tensor = checkpoint[name]
        store.update(saves[1].files("m"))
        for file, data in saves[1].files("m").items():
            (tmp_path / "new").write_bytes(data)
            (tmp_path / "new").replace(tmp_path / file)
        for ask in (tensor.read, tensor.verify, lambda: checkpoint.read([name])):
            with pytest.raises(ckptparse.StorageError, match="replaced"):
                ask()


@pytest.mark.parametrize(
    "text",
    [
        "a/annex/objects/" * 250 + " x",
        "a/annex/objects/" * 250 + "-",
        "outs:\n- md5: 0\n" + "  a: " * 600 + "\nx",
        "/a" * 2000 + " x",
        "../" * 1300 + " x",
        "# xet version \n" + "filesize" * 400,
        "<title" * 600,
        "<?xml " * 600,
    ],
    ids=["annex", "annex's key", "dvc", "link", "link up", "xet", "title", "xml"],
)
def test_a_text_that_fits_a_pattern_in_many_ways_is_told_in_little_time(
    tmp_path: Path, text: str
) -> None:
    (tmp_path / "m").write_text(text)
    assert attempt(tmp_path / "m", "identify") == {"identify": "value"}


@pytest.mark.parametrize("name", ["m.index", "m.data-00000-of-00001", "m", "graph.pb", "m.tar.gz"])
def test_noise_is_told_in_the_time_that_its_size_allows(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(np.random.default_rng(1).bytes(4 << 20))
    found = attempt(tmp_path / name)
    assert found["read"] != "value"
