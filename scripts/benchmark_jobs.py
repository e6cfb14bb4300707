"""The jobs of the benchmark, each by every reader that can do it; one process runs one of them.

    python scripts/benchmark_jobs.py JOB READER PREFIX [--cold]

prints seconds as JSON.

Before the clock starts, a run touches as much memory as the hungriest reader of its job takes, and
gives it back. A virtual machine may hand unused memory back to its host within seconds, and each
page then costs ten times as much to get again: whoever ran first, or imported longest, would pay.
"""

from __future__ import annotations

import io
import itertools
import json
import mmap
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import benchmark_recover
import numpy as np
from benchmark_memory import make_buffer, make_ready

__all__ = ["JOBS", "OWN", "Job"]

PIECE = 1 << 20
HUNGRY = 3 << 30
OWN = ("ckptparse", "limit")
"""The readers that no other package takes part in."""
SHARD = ".data-00000-of-00001"
Work = Callable[[str], Any]


@dataclass(frozen=True)
class Job:
    """One line of the table."""

    name: str
    title: str
    input: str
    readers: dict[str, Callable[[], Work]] = field(default_factory=dict)
    """Reader -> function that imports what is needed and returns the work itself."""
    memory: int = 64 << 20
    """Bytes that are made ready before the clock starts."""
    others_memory: int | None = None
    """The same for other packages, if they need more. Memory given back right before the work of a
    millisecond is most of what the clock would see."""
    times: int = 1
    """Runs in each round: more for what takes little time and differs by little."""
    usual: bool = True
    """Whether it runs unasked."""
    group: str = "read"
    """The part of the table that it stands in."""

    def memory_of(self, reader: str) -> int:
        """Say how many bytes are made ready for a reader."""
        if self.others_memory is None or reader in OWN:
            return self.memory
        return self.others_memory


def ours(call: Callable[[Any, str], Any], *names: str) -> Callable[[], Work]:
    """Make a reader's entry of a call of `ckptparse`, what it needs imported before.

    No more than that is: Python's garbage collector would look at all of it while the clock runs.
    """

    def prepare() -> Work:
        import ckptparse
        import ckptparse.api
        import ckptparse.bundle.many
        import ckptparse.bundle.reader
        import ckptparse.bundle.together
        import ckptparse.inventory.places

        for name in names:
            getattr(ckptparse, name)
        return lambda path: call(ckptparse, path)

    return prepare


def tensorflow(call: Callable[[Any, str], Any]) -> Callable[[], Work]:
    """Make an entry of a call of TensorFlow."""

    def prepare() -> Work:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        import tensorflow as tf

        return lambda path: call(tf, path)

    return prepare


def safetensors(call: Callable[[Any, str], Any]) -> Callable[[], Work]:
    """Make an entry of a call of safetensors, on the same tensors in its format."""

    def prepare() -> Work:
        import safetensors
        import safetensors.numpy

        return lambda path: call(safetensors, f"{path}.safetensors")

    return prepare


def limit(work: Work) -> Callable[[], Work]:
    """Make an entry of the bare loop."""
    import crc32c  # noqa: F401 - imported before the clock starts

    return lambda: work


# ---- the bare limits


def run_in_threads(jobs: list[Callable[[], None]]) -> None:
    """Run jobs on a thread for each processor, up to eight."""
    pending = iter(jobs)
    lock = threading.Lock()

    def worker() -> None:
        while True:
            with lock:
                job = next(pending, None)
            if job is None:
                return
            job()

    threads = [threading.Thread(target=worker) for _ in range(min(8, os.cpu_count() or 1))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def limit_read(path: str) -> object:
    """Read a data file into one buffer of huge pages, each piece checked while it is cached."""
    from crc32c import crc32c

    file = os.open(path + SHARD, os.O_RDONLY)
    size = os.fstat(file).st_size
    buffer = make_buffer(size)

    def read(low: int) -> Callable[[], None]:
        def job() -> None:
            for at in range(low, min(low + 16 * PIECE, size), PIECE):
                piece = buffer[at : min(at + PIECE, size)]
                os.preadv(file, [piece], at)
                crc32c(piece)

        return job

    run_in_threads([read(low) for low in range(0, size, 16 * PIECE)])
    return buffer


def limit_map(path: str) -> object:
    """Map a data file and compute its checksum."""
    from crc32c import crc32c

    file = os.open(path + SHARD, os.O_RDONLY)
    size = os.fstat(file).st_size
    mapped = memoryview(mmap.mmap(file, size, access=mmap.ACCESS_COPY))

    def check(low: int) -> Callable[[], None]:
        return lambda: (
            [crc32c(mapped[at : at + PIECE]) for at in range(low, low + 16 * PIECE, PIECE)] and None
        )

    run_in_threads([check(low) for low in range(0, size, 16 * PIECE)])
    return mapped


def limit_verify(path: str) -> object:
    """Read a data file through one small buffer a thread, and compute its checksum."""
    from crc32c import crc32c

    file = os.open(path + SHARD, os.O_RDONLY)
    size = os.fstat(file).st_size

    def check(low: int) -> Callable[[], None]:
        def job() -> None:
            piece = memoryview(bytearray(PIECE))
            for at in range(low, min(low + 16 * PIECE, size), PIECE):
                count = os.preadv(file, [piece], at)
                crc32c(piece[:count])

        return job

    run_in_threads([check(low) for low in range(0, size, 16 * PIECE)])
    return None


def limit_small(path: str) -> object:
    """Read both files, check every 16 bytes and make an array of them."""
    from crc32c import crc32c

    crc32c(read_index(path))
    with open(path + SHARD, "rb") as data:
        buffer = bytearray(data.read())
    view = memoryview(buffer)
    arrays = {}
    for at in range(0, len(buffer), 16):
        crc32c(view[at : at + 16])
        arrays[at] = np.ndarray((4,), np.float32, buffer, at)
    return arrays


def limit_list(path: str) -> object:
    """Read the index, check it, and cut 100,000 names out of it."""
    from crc32c import crc32c

    data = read_index(path)
    crc32c(data)
    shape, dtype = (4,), np.dtype(np.float32)
    return [
        (data[at : at + 26].decode("latin-1"), shape, dtype) for at in range(0, 20 * 100_000, 20)
    ]


def limit_one(path: str) -> object:
    """Read and check the index block and one block of the index, then read one tensor."""
    from crc32c import crc32c

    file = os.open(path + ".index", os.O_RDONLY)
    size = os.fstat(file).st_size
    crc32c(os.pread(file, 1024, size - 1024))
    crc32c(os.pread(file, 256 << 10, 1 << 20))
    return np.frombuffer(os.pread(os.open(path + SHARD, os.O_RDONLY), 16, 800_000), np.float32)


def limit_rows(path: str) -> object:
    """Read ten rows."""
    file = os.open(path + SHARD, os.O_RDONLY)
    return os.pread(file, 10 * 4096, 1000 * 4096)


def limit_strings(path: str) -> object:
    """Read a data file, check it, and cut it up."""
    from crc32c import crc32c

    with open(path + SHARD, "rb") as data:
        buffer = data.read()
    crc32c(buffer)
    return list(map(io.BytesIO(buffer).read, itertools.repeat(20, 200_000)))


def read_index(path: str) -> bytes:
    """Read an index."""
    with open(path + ".index", "rb") as file:
        return file.read()


# ---- the whole process

START = {
    "ckptparse": "import sys, ckptparse; ckptparse.read(sys.argv[1])",
    "limit": "import numpy",
    "tensorflow": "import sys, tensorflow as tf; r = tf.train.load_checkpoint(sys.argv[1]); "
    "[r.get_tensor(n) for n in r.get_variable_to_shape_map()]",
}


def start(reader: str) -> Callable[[], Work]:
    """Make an entry that runs a whole process."""
    command = [sys.executable, "-c", START[reader]]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    return lambda: (
        lambda path: subprocess.run(
            [*command, path], check=True, env=environment, capture_output=True
        )
    )


def ls() -> Work:
    """Make the work that runs the command as a whole process."""
    command = [sys.executable, "-m", "ckptparse", "ls"]
    return lambda path: subprocess.run([*command, path], check=True, capture_output=True)


def cold(prepare: Callable[[], Work]) -> Callable[[], Work]:
    """Let the page cache forget the data file of the command line before the clock starts."""

    def forget() -> Work:
        work = prepare()
        file = os.open(sys.argv[3] + SHARD, os.O_RDONLY)
        os.fsync(file)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(file)
        return work

    return forget


def dd(path: str) -> object:
    """Read a data file as `dd` does, a MiB at a time."""
    command = ["dd", f"if={path}{SHARD}", "of=/dev/null", "bs=1M", "status=none"]
    return subprocess.run(command, check=True)


# ---- TensorFlow's and safetensors' ways


def tensorflow_read(tf: Any, path: str) -> object:
    """Read every tensor."""
    reader = tf.train.load_checkpoint(path)
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


def tensorflow_list(tf: Any, path: str) -> object:
    """List names, shapes and types."""
    reader = tf.train.load_checkpoint(path)
    return reader.get_variable_to_shape_map(), reader.get_variable_to_dtype_map()


def tensorflow_rows(tf: Any, path: str) -> object:
    """Restore ten rows."""
    spec = "262144 1024 1000,10:0,1024"
    return tf.raw_ops.RestoreV2(
        prefix=path, tensor_names=["one"], shape_and_slices=[spec], dtypes=[tf.float32]
    )[0].numpy()


def safetensors_list(safetensors: Any, path: str) -> object:
    """List names, shapes and types."""
    with safetensors.safe_open(path, "np") as file:
        found = {}
        for name in file.keys():  # noqa: SIM118 - no mapping
            view = file.get_slice(name)
            found[name] = view.get_shape(), view.get_dtype()
        return found


def safetensors_one(safetensors: Any, path: str) -> object:
    """Read one tensor."""
    with safetensors.safe_open(path, "np") as file:
        return file.get_tensor(ONE)


def safetensors_rows(safetensors: Any, path: str) -> object:
    """Read ten rows."""
    with safetensors.safe_open(path, "np") as file:
        return file.get_slice("one")[1000:1010]


ONE = "model/layer_00500/block_50/w"


def ours_list(ckptparse: Any, path: str) -> object:
    """List names, shapes and types."""
    with ckptparse.open(path) as checkpoint:
        return [(tensor.name, tensor.shape, tensor.dtype) for tensor in checkpoint.values()]


def ours_one(ckptparse: Any, path: str) -> object:
    """Read one tensor."""
    with ckptparse.open(path) as checkpoint:
        return checkpoint[ONE].read()


def ours_rows(ckptparse: Any, path: str) -> object:
    """Read ten rows."""
    with ckptparse.open(path) as checkpoint:
        return checkpoint["one"][1000:1010]


def make_page(most: int) -> Callable[[Any, str], None]:
    """Make a page, which must not be larger than so many bytes."""

    def work(ckptparse: Any, path: str) -> None:
        with tempfile.TemporaryDirectory() as directory:
            out = os.path.join(directory, "page.html")
            ckptparse.report_page(path, out)
            size = os.path.getsize(out)
        print(f"the page has {size:,} bytes", file=sys.stderr)
        if size > most:
            raise AssertionError(f"expected a page of at most {most:,} bytes, found {size:,}")

    return work


READ = {
    "ckptparse": ours(lambda ckptparse, path: ckptparse.read(path)),
    "limit": limit(limit_read),
    "tensorflow": tensorflow(tensorflow_read),
    "safetensors": safetensors(lambda st, path: st.numpy.load_file(path)),
}

# Writing: on a file system in memory, so that the disk does not decide. What is written is removed
# after the clock has stopped.

MEMORY = "/dev/shm"  # noqa: S108 - a directory of its own is made in it


class Target(tempfile.TemporaryDirectory[str]):
    """A directory to write into, which goes when nothing refers to it any more."""

    def __init__(self) -> None:
        super().__init__(dir=MEMORY if os.path.isdir(MEMORY) else None, prefix="benchmark-")

    def path(self, name: str) -> str:
        return os.path.join(self.name, name)


def writing(write: Callable[[dict[str, Any], Target], Any]) -> Callable[[], Work]:
    """Make a reader's entry of a function that writes arrays, which are read before."""

    def prepare() -> Work:
        import ckptparse

        arrays = ckptparse.read(sys.argv[3])

        def work(_: str) -> object:
            target = Target()
            write(arrays, target)
            return target

        return work

    return prepare


def limit_write(arrays: dict[str, Any], target: Target) -> None:
    """Checksum and write each MiB: what one thread cannot do without."""
    from crc32c import crc32c

    descriptor = os.open(target.path("data"), os.O_WRONLY | os.O_CREAT)
    for array in arrays.values():
        data = memoryview(array).cast("B")
        crc = 0
        for start in range(0, len(data), PIECE):
            crc = crc32c(data[start : start + PIECE], crc)
            os.write(descriptor, data[start : start + PIECE])
    os.close(descriptor)


def tensorflow_write() -> Work:
    import tensorflow as tf

    import ckptparse

    arrays = ckptparse.read(sys.argv[3])
    tensors = list(map(tf.constant, arrays.values()))

    def work(_: str) -> object:
        target = Target()
        tf.raw_ops.SaveV2(
            prefix=target.path("m"),
            tensor_names=list(arrays),
            shape_and_slices=[""] * len(arrays),
            tensors=tensors,
        )
        return target

    return work


def ours_write() -> Work:
    import queue  # noqa: F401 - imported before the clock starts
    import secrets  # noqa: F401

    import ckptparse
    import ckptparse.proto.tensor_bundle_pb2
    import ckptparse.sinks.bundle

    return writing(lambda arrays, target: ckptparse.write(target.path("m"), arrays))()


def safetensors_write() -> Work:
    import safetensors.numpy

    save = safetensors.numpy.save_file
    return writing(lambda arrays, target: save(arrays, target.path("m.safetensors")))()


def ours_convert() -> Work:
    import queue  # noqa: F401

    import ckptparse
    import ckptparse.bundle.reader
    import ckptparse.jobs.convert
    import ckptparse.sinks.safetensors
    import ckptparse.sources.stored

    def work(path: str) -> object:
        target = Target()
        ckptparse.convert(path, target.path("m.safetensors"))
        return target

    return work


def limit_convert() -> Work:
    from crc32c import crc32c

    def work(path: str) -> object:
        target = Target()
        source = os.open(path + SHARD, os.O_RDONLY)
        descriptor = os.open(target.path("data"), os.O_WRONLY | os.O_CREAT)
        buffer = memoryview(bytearray(PIECE))
        crc = 0
        while size := os.readv(source, [buffer]):
            crc = crc32c(buffer[:size], crc)
            os.write(descriptor, buffer[:size])
        os.close(source)
        os.close(descriptor)
        return target

    return work


def safetensors_convert() -> Work:
    import safetensors.numpy

    import ckptparse
    import ckptparse.bundle.reader
    import ckptparse.bundle.together

    def work(path: str) -> object:
        target = Target()
        safetensors.numpy.save_file(ckptparse.read(path), target.path("m.safetensors"))
        return target

    return work


JOBS = (
    Job("read", "read 1 GiB in 64 tensors, every checksum verified", "large", READ, HUNGRY),
    Job(
        "map",
        "the same with `mmap=True`, verified",
        "large",
        {
            "ckptparse": ours(lambda ckptparse, path: ckptparse.read(path, mmap=True)),
            "limit": limit(limit_map),
            "tensorflow": READ["tensorflow"],
        },
        others_memory=HUNGRY,  # TensorFlow maps nothing.
    ),
    Job(
        "cold",
        "read 1 GiB that is not in the page cache, verified (limit: `dd`)",
        "large",
        {
            "ckptparse": cold(ours(lambda ckptparse, path: ckptparse.read(path))),
            "limit": cold(lambda: dd),
        },
        HUNGRY,
        usual=False,
    ),
    Job("single", "read one tensor of 1 GiB, verified", "single", READ, HUNGRY),
    Job("bert", "read 110 million weights in 200 tensors, verified", "bert", READ, HUNGRY),
    Job(
        "small",
        "read 100,000 tensors of 16 bytes, verified",
        "small",
        {**READ, "limit": limit(limit_small)},
    ),
    Job(
        "list",
        "list 100,000 names, shapes, types",
        "small",
        {
            "ckptparse": ours(ours_list),
            "limit": limit(limit_list),
            "tensorflow": tensorflow(tensorflow_list),
            "safetensors": safetensors(safetensors_list),
        },
        group="look",
    ),
    Job(
        "one",
        "open and read one of 100,000",
        "small",
        {
            "ckptparse": ours(ours_one, "open"),
            "limit": limit(limit_one),
            "tensorflow": tensorflow(lambda tf, path: tf.train.load_variable(path, ONE)),
            "safetensors": safetensors(safetensors_one),
        },
        times=5,
    ),
    Job(
        "rows",
        "read 10 rows of a 1 GiB tensor",
        "single",
        {
            "ckptparse": ours(ours_rows, "open"),
            "limit": limit(limit_rows),
            "tensorflow": tensorflow(tensorflow_rows),
            "safetensors": safetensors(safetensors_rows),
        },
        others_memory=HUNGRY,  # TensorFlow reads all of it.
        times=5,
    ),
    Job(
        "slices",
        "put one variable of 51 MB together from 2,000 slices",
        "slices",
        {
            "ckptparse": ours(lambda ckptparse, path: ckptparse.read(path)),
            "limit": limit(limit_read),
            "tensorflow": tensorflow(tensorflow_read),
        },
    ),
    Job(
        "strings",
        "read 200,000 strings",
        "strings",
        {
            "ckptparse": ours(lambda ckptparse, path: ckptparse.read(path)),
            "limit": limit(limit_strings),
            "tensorflow": tensorflow(tensorflow_read),
        },
    ),
    Job(
        "start",
        "whole process: start, read a small checkpoint, exit (limit: `import numpy`)",
        "fixture",
        {reader: start(reader) for reader in START},
        memory=0,
        times=3,
    ),
    Job(
        "verify",
        "`verify` 1 GiB",
        "large",
        {
            "ckptparse": ours(lambda ckptparse, path: ckptparse.verify(path), "verify"),
            "limit": limit(limit_verify),
        },
        group="look",
    ),
    Job(
        "verify-many",
        "`verify` 100,000 tensors of 16 bytes",
        "small",
        {
            "ckptparse": ours(lambda ckptparse, path: ckptparse.verify(path), "verify"),
            "limit": limit(limit_small),
        },
        group="look",
    ),
    Job(
        "ls",
        "whole process: `ckptparse ls` of a small checkpoint (limit: `import numpy`)",
        "fixture",
        {"ckptparse": ls, "limit": start("limit")},
        memory=0,
        times=3,
        group="look",
    ),
    Job(
        "diff",
        "`diff` of two equal ones of 100,000 tensors (limit: to list both)",
        "small",
        {
            "ckptparse": ours(lambda ckptparse, path: ckptparse.diff(path, path), "diff"),
            "limit": limit(lambda path: (limit_list(path), limit_list(path))),
        },
        group="move",
    ),
    Job(
        "page",
        "the page of 110 million weights in 200 tensors, all checked and measured",
        "bert",
        {"ckptparse": ours(make_page(700_000), "report_page")},
        usual=False,
        group="look",
    ),
    Job(
        "page-many",
        "the page of 10,000 tensors of 4 KiB",
        "many",
        {"ckptparse": ours(make_page(5_000_000), "report_page")},
        usual=False,
        group="look",
    ),
    Job(
        "write",
        "`write` 1 GiB in 64 tensors, to memory (safetensors: its `save_file`, no checksums)",
        "large",
        {
            "ckptparse": ours_write,
            "limit": writing(limit_write),
            "tensorflow": tensorflow_write,
            "safetensors": safetensors_write,
        },
        HUNGRY,
        group="move",
    ),
    Job(
        "convert",
        "`convert` 1 GiB to safetensors, verified, to memory (safetensors: `read`, `save_file`)",
        "large",
        {
            "ckptparse": ours_convert,
            "limit": limit_convert,
            "safetensors": safetensors_convert,
        },
        HUNGRY,
        group="move",
    ),
    Job(
        "sparse",
        "`verify` 64 GiB",
        "sparse",
        {
            "ckptparse": ours(lambda ckptparse, path: ckptparse.verify(path), "verify"),
            "limit": limit(limit_verify),
        },
        usual=False,
        group="look",
    ),
    *(
        Job(
            name,
            title,
            source,
            {"ckptparse": prepare, "limit": benchmark_recover.checksum},
            group="repair",
        )
        for name, (title, source, prepare) in benchmark_recover.PREPARED.items()
    ),
)


def main() -> None:
    """Run one job by one reader and print what it took."""
    name, reader, path, *options = sys.argv[1:]
    job = next(job for job in JOBS if job.name == name)
    work = job.readers[reader]()
    if "--cold" not in options:
        make_ready(job.memory_of(reader))
    started = time.perf_counter()
    result = work(path)
    seconds = time.perf_counter() - started
    del result
    print(json.dumps({"seconds": seconds}))


if __name__ == "__main__":
    main()
