"""Measure what the worst inputs cost, against what is promised: 1 s, and 1 s for each 10 MB.

    python scripts/benchmark_hostile.py                        every kind, 1 MiB of each, every call
    python scripts/benchmark_hostile.py tables/ --sizes 1 4    those kinds, 1 and 4 MiB of each
    python scripts/benchmark_hostile.py --calls verify recover --over

Every call runs in a process of its own, forked from one that has imported everything. What counts
is processor time beside the size of all files that were made. A call that ends with a
`CheckpointError` ends, too; that it ends at a limit is said. Exit code 1 if anything took longer,
or memory beyond 1 GiB and the files.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, cast

from hostile import load_kinds

BYTES_A_SECOND = 10_000_000
MEMORY = (1 << 30) + (80 << 20)
"""What a call may take beyond its files, and what the process has before it begins."""
SECONDS = 60
"""After which a process is ended."""

_TWICE = (
    *("diff", "average", "mean", "tolerant", "copies"),
    *("read data", "weighted", "average json", "diff data", "renamed twice"),
    *("diff rules", "page of diff", "cached"),
)
"""Calls that are given the input as two."""

CHILD = r"""
import contextlib, functools, gc, importlib, io, json, os, pickle, pkgutil, resource, shutil
import sys, time, warnings
from concurrent.futures import Executor, Future
warnings.simplefilter("ignore")
import numpy, google.protobuf, crc32c
import ckptparse
for public in dir(ckptparse):
    getattr(ckptparse, public)
for found in pkgutil.walk_packages(ckptparse.__path__, "ckptparse."):
    if not found.name.endswith("__main__"):
        with contextlib.suppress(ImportError):
            importlib.import_module(found.name)
for other in ("h5py", "safetensors", "zstandard", "lzma", "bz2", "obstore.store", "fsspec"):
    with contextlib.suppress(ImportError):
        importlib.import_module(other)

def consume(value):
    with value.keep_open():
        for name in list(value)[:500]:
            one = value[name]
            try:
                one.read()
            except ckptparse.CheckpointError:
                pass

def lazily(path):
    with ckptparse.open(path) as opened:
        names = list(opened)
        for name in dict.fromkeys(names[:3] + names[-3:]):
            try:
                opened[name].read()
            except ckptparse.CheckpointError:
                pass
        return "no such name" in opened

def describe(path):
    with ckptparse.open(path) as opened:
        layers, places = opened.layers, opened.places
        return [str(opened.tree()), opened.step, opened.optimizers, opened.averages, layers, places]

def objects(path):
    with ckptparse.open(path) as opened:
        found = opened.object_graph
        if found is None:
            return None
        nodes = list(found.nodes())
        paths = [node.path for node in nodes[:3] + nodes[3:][-3:]]
        return [found.names_by_key, paths, found.other_keys]

def graph(path):
    opened = ckptparse.open_graph(path)
    names = list(opened.nodes)
    for name in dict.fromkeys(names[:3] + names[-3:]):
        opened.consumers(name)
    return [list(opened.constants), opened.effects, opened.variables]

def savers(path):
    return ckptparse.open_graph(path).savers

def model(path):
    with ckptparse.open_saved_model(path) as opened:
        return [len(opened.meta_graphs), len(opened.layers), opened.effects, opened.assets]

def functions(path):
    with ckptparse.open_saved_model(path) as opened:
        return [[dict(one.functions), one.function_aliases] for one in opened.meta_graphs]

def weights_of_layers(path):
    with ckptparse.open_saved_model(path) as opened:
        return [layer.weights for layer in opened.layers]

def about(path):
    with ckptparse.open_saved_model(path) as opened:
        found = opened.fingerprint
        matches = found is not None and found.matches_checkpoint
        return [matches, [one.values for one in (opened.keras_metadata or {}).values()]]

def beside(path):
    folder, name = os.path.split(path)
    second = os.path.join(folder, "second", name)
    return ckptparse.diff(path, second) if os.path.isdir(os.path.dirname(second)) else None

def folder_of(path):
    return path if os.path.isdir(path) else os.path.dirname(path)

def state(path):
    folder = folder_of(path)
    return [ckptparse.checkpoint_state(folder), ckptparse.latest_checkpoint(folder)]

def write(path):
    # What is written is the caller's own, not a file's: as much as other jobs take.
    values = ckptparse.read(path)
    some = [name for name in values if values[name].dtype != object or values[name].size < 1 << 20]
    return ckptparse.write(out + "/made", {name: values[name] for name in some[:20_000]})

@functools.cache
def largest(path):
    # The file at a path, or the largest beside it.
    if os.path.isfile(path):
        return path
    top = path if os.path.isdir(path) else os.path.dirname(path)
    files = [os.path.join(folder, name) for folder, _, names in os.walk(top) for name in names]
    return max(files, key=os.path.getsize)

def explain(path):
    with open(largest(path), encoding="latin-1") as text:
        return str(ckptparse.explain(text.read()))

def evidence(path):
    prefix = out + "/damaged"
    ckptparse.write(prefix, {"w": numpy.arange(1000.0)})
    with open(prefix + ".data-00000-of-00001", "r+b") as data:
        data.write(b"damaged" * 100)
    return consume(ckptparse.recover(prefix, evidence=[path]))

def layout(path):
    prefix = out + "/damaged"
    ckptparse.write(prefix, {"w": numpy.arange(1000.0)})
    os.remove(prefix + ".index")
    return consume(ckptparse.recover(prefix, evidence=[path]))

def shapes(path):
    prefix = out + "/damaged"
    ckptparse.write(prefix, {"w": numpy.arange(1000.0)})
    os.remove(prefix + ".index")
    return consume(ckptparse.recover(prefix, shapes=path))

def beside_image(path):
    return os.path.join(os.path.dirname(path), "disk.img")

def rendered(path):
    report = ckptparse.verify(path)
    return [report.to_dict(), report.to_dfxml(), report.render(), report._repr_html_()]

def save(ending, **ways):
    # What `recover` gives is written, and a report of it.
    def run(path):
        recovery = ckptparse.recover(path)
        written = recovery.write(out + "/saved" + ending, offer="plausible", **ways)
        return recovery.to_dfxml(written)
    return run

def copies(path):
    # Its own copy is evidence; `prepare` made that one.
    return consume(ckptparse.recover(path, siblings=False, evidence=[out + "/copy"]))

def copy(path):
    top = path if os.path.isdir(path) else os.path.dirname(path)
    shutil.copytree(top, out + "/copy", symlinks=True)

def saved(path):
    ckptparse.recover(path).write(out + "/saved.npz", offer="plausible")

def converted(path):
    ckptparse.convert(path, out + "/small.safetensors")

def one_by_one(path):
    from ckptparse import tf
    reader = tf.train.load_checkpoint(path)
    shapes, types = reader.get_variable_to_shape_map(), reader.get_variable_to_dtype_map()
    given = 0
    for name in list(shapes)[:500]:
        with contextlib.suppress(ckptparse.CheckpointError):
            given += numpy.asarray(reader.get_tensor(name)).nbytes
        if given > 64 << 20:
            # Each call has a bound of its own: a graph may fill each of many arrays.
            break
    return [shapes, types]

def notebook(path):
    with ckptparse.open(path) as opened:
        texts = [opened._repr_html_(), repr(opened)]
        for name in list(opened)[:3]:
            with contextlib.suppress(ckptparse.CheckpointError):
                texts += [opened[name]._repr_html_(), repr(opened[name])]
        return texts

def complete(path):
    from ckptparse.cli import completion
    return [completion.complete_name({"path": path}, ""), completion.complete_path({}, path[:-1])]

def command(*words):
    # A command of the program, with what it prints.
    def run(path):
        from ckptparse.cli.app import PROGRAM
        given = [word.format(path=path, out=out) for word in words]
        with contextlib.suppress(SystemExit):
            PROGRAM.main(given, prog_name="ckptparse", standalone_mode=False)
    return run

def show(path):
    with ckptparse.open(path) as opened:
        name = next(iter(opened), None)
    return None if name is None else command("show", "--stats", "{path}", "--", name)(path)

def plain(prefix="plain"):
    # A small checkpoint of the caller's own.
    names = ("dense/kernel", "dense/bias")
    values = {name: numpy.ones((2, 2), numpy.float32) for name in names}
    return ckptparse.write(out + "/" + prefix, values)

def partly(path):
    with ckptparse.open(path, mmap=True, naming="variable") as opened:
        names = list(opened)
        for name in dict.fromkeys(names[:2] + names[-2:]):
            tensor = opened[name]
            for part in (0, slice(1, None, 2), slice(None, None, -1), (..., 0)):
                with contextlib.suppress(ckptparse.CheckpointError, IndexError):
                    tensor[part]
            with contextlib.suppress(ckptparse.CheckpointError):
                tensor.verify()

def pickled(path):
    with ckptparse.open(path) as opened:
        again = pickle.loads(pickle.dumps(opened))
        return len(again)

def orphans(path):
    with ckptparse.open(path) as opened:
        pieces = [(name, str(piece), tensor.shape) for name, piece, tensor in opened.orphan_slices]
        return [pieces, opened.shapes(), opened.files, opened.byte_order, opened.num_shards]

def graphs_of(path):
    with ckptparse.open(path) as opened:
        return [opened.find_training_graph(), opened.find_using_graph(), opened.layers_source]

def walk(path):
    with ckptparse.open(path) as opened:
        found = opened.object_graph
        return None if found is None else [list(found.walk()), found.slots_by_variable]

def of_objects(path):
    with ckptparse.open(path) as opened:
        found = opened.object_graph
        return found and [found.full_names, found.keys_by_node, len(found.values())]

def nodes(path):
    opened = ckptparse.open_graph(path)
    for name in list(opened.nodes)[:3]:
        node = opened.nodes[name]
        attributes = dict(node.attributes)
        for attribute in attributes:
            with contextlib.suppress(ckptparse.CheckpointError):
                node.attributes.find_tensor(attribute)
                node.attributes.find_types(attribute)
    return [opened.collections, opened.tags, opened.tensorflow_version, str(opened)]

def all_consumers(path):
    opened = ckptparse.open_graph(path)
    return [opened.consumers(name) for name in list(opened.nodes)[:2000]]

def constants(path):
    opened = ckptparse.open_graph(path)
    for name in list(opened.constants)[:200]:
        with contextlib.suppress(ckptparse.CheckpointError):
            opened.constants[name].read()

def signatures(path):
    with ckptparse.open_saved_model(path) as opened:
        one = opened.meta_graphs[0]
        found = opened.meta_graph(*one.tags)
        return [dict(found.signatures), found.asset_list, opened._repr_html_()]

def concrete(path):
    with ckptparse.open_saved_model(path) as opened:
        found = opened.objects
        names = list(found.concrete_functions) if found else []
        taken = [found.concrete_functions[name].input_signature for name in names[:500]]
        return [taken, opened.step, opened.is_hub_module]

def assets_of(path):
    with ckptparse.open_saved_model(path) as opened:
        found = opened.objects
        return [found and found.bound_assets, str(opened.tree()), opened.averages]

def optimizers(path):
    with ckptparse.open_saved_model(path) as opened:
        return [opened.optimizers, opened.layers_source, opened.keras_metadata, opened.effects]

def in_parts(path):
    parts = ckptparse.parts(path, size=1 << 18)
    return str(ckptparse.Report.merge([part.verify() for part in parts]))

def scanned(path):
    found = ckptparse.scan(largest(path))
    for one in found.checkpoints[:1]:
        with contextlib.suppress(ckptparse.CheckpointError):
            consume(one.recover())
    return found.to_dict()

def recovered(path):
    found = ckptparse.recover(path, siblings=False, hashes=True)
    return [found.report.to_dict(), found._repr_html_(), found.report.render()]

def image_evidence(path):
    prefix = plain()
    os.remove(prefix + ".data-00000-of-00001")
    return consume(ckptparse.recover(prefix, evidence=[beside_image(path)], mapfile=path))

def from_recovery(path):
    return ckptparse.convert(ckptparse.recover(path), out + "/r.npz")

def kept_open(path):
    with ckptparse.open(path) as opened:
        return ckptparse.write(out + "/made", opened, object_graph="make", keep_slices=True)

def renamed(path):
    return ckptparse.convert(path, out + "/made", format="v2", rename=[("^", "other/")])

def renamed_twice(path):
    # The second is the first under other names: all are looked for by their values.
    return str(ckptparse.diff(path, out + "/made"))

def halved(path):
    return ckptparse.convert(path, out + "/made.npz", dtype="float16", layout="torch")

def undone(path):
    back = PREPARED[0].reverse()
    return ckptparse.convert(out + "/made.npz", out + "/back", format="v2", rename=back)

def rules(path):
    return ckptparse.convert(plain(), out + "/r.npz", rename=path)

def state_named(path):
    name = os.path.basename(largest(path))
    folder = os.path.dirname(largest(path))
    return [one(folder, name) for one in (ckptparse.checkpoint_state, ckptparse.latest_checkpoint)]

def stands_in(path):
    from ckptparse import tf
    folder = folder_of(path)
    found = tf.train.get_checkpoint_state(folder)
    paths = list(found.all_model_checkpoint_paths) if found else [path]
    times = tf.train.get_checkpoint_mtimes(paths)
    known = [tf.train.checkpoint_exists(path), times]
    return [known, next(tf.train.checkpoints_iterator(folder, timeout=0), None)]

def tf_variables(path):
    from ckptparse import tf
    found = tf.train.list_variables(path)
    return [tf.train.load_variable(path, name) for name, _ in found[:20]]

def tf_printed(path):
    from ckptparse.tf.inspecting import print_tensors_in_checkpoint_file
    print_tensors_in_checkpoint_file(path, None, all_tensors=True, all_tensor_names=True)

def shown(*words):
    def run(path):
        with ckptparse.open(path) as opened:
            name = next(iter(opened), None)
        return None if name is None else command("show", *words, "{path}", "--", name)(path)
    return run

def told(path):
    with open(largest(path), encoding="latin-1") as text:
        message = text.read().replace("{", "(").replace("}", ")")
    return command("explain", "--json", "--", message)(path)

def held(path):
    # What lies in the folder as a mapping, and the path there.
    folder = folder_of(path)
    files = {}
    for top, _, names in os.walk(folder):
        for name in names:
            one = os.path.join(top, name)
            with contextlib.suppress(OSError), open(one, "rb") as file:
                files["d/" + os.path.relpath(one, folder)] = file.read()
    return ("d" if path == folder else "d/" + os.path.relpath(path, folder)), files

def uploaded(path):
    from obstore.store import MemoryStore
    name, files = held(path)
    store = MemoryStore()
    for key, data in files.items():
        store.put(key, data)
    return name, store

def of_fsspec(path):
    import fsspec
    return os.path.abspath(path), fsspec.filesystem("file")

def in_store(ask):
    # Asks for what was prepared: a path and where it is.
    def run(path):
        name, store = PREPARED[0]
        return ask(name, store=store)
    return run

def cached(path):
    name, store = PREPARED[0]
    for _ in range(2):
        ckptparse.list_variables(name, store=store, cache=out + "/cache")

class Now(Executor):
    # Works at once, with what another process would get.
    def submit(self, work, *arguments, **named):
        done = Future()
        try:
            work, arguments, named = pickle.loads(pickle.dumps((work, arguments, named)))
            done.set_result(pickle.loads(pickle.dumps(work(*arguments, **named))))
        except ckptparse.CheckpointError as error:
            done.set_exception(pickle.loads(pickle.dumps(error)))
        return done

def shared(ask):
    return lambda path: ask(path, executor=Now())

def damaged(lost):
    # A checkpoint of the caller's own, of which a file is lost.
    def make(path):
        prefix = plain("damaged")
        os.remove(prefix + lost)
    return make

def page_of_prepared(path):
    return ckptparse.report_page(PREPARED[0], out + "/page.html")

def opened_recovery(path):
    found = ckptparse.recover(path)
    return [found.whole, found.untouched, str(found.report), repr(found)]

def everything(path):
    with ckptparse.open(path) as opened:
        return str(opened.tree(everything=True))

def everything_of_model(path):
    with ckptparse.open_saved_model(path) as opened:
        return [str(opened.tree(everything=True)), opened.variables, opened.schema_version]

def object_nodes(path):
    with ckptparse.open(path) as opened:
        found = opened.object_graph
        if found is None:
            return None
        for node in range(min(200, found.node_count)):
            one = found.node(node)
            path = found.path_of(node)
            with contextlib.suppress(ckptparse.CheckpointError):
                known = [found.names_to(node, at_most=10), found.parent_of(node), repr(one)]
                known += [dict(one.children), one.attributes, one.slot_variables, one.tensors]
                known += [one.shape, one.dtype, one.full_name, one.registered_saver]
        return [found.find_node("model/kernel"), len(found.serialized), repr(found)]

def progress(path):
    told = []
    ckptparse.verify(path, progress=lambda done, whole: told.append((done, whole)), hashes=True)
    assert all(0 <= done <= whole for done, whole in told)

def of_text(path):
    with open(largest(path), "rb") as text:
        return ckptparse.Graph.from_text(text.read(), is_meta=path.endswith(".meta"))

DAMAGED = "{out}/damaged"
RECOVER = ("recover", "--dry-run", "--json")
PREPARE = {
    "copies": copy,
    "again": saved,
    "undo": converted,
    "renamed twice": renamed,
    "undone": halved,
    # Which file is the largest is the benchmark's own question: a folder may have 100,000.
    **dict.fromkeys(("explain", "scan", "scanned", "state named", "told", "scan state"), largest),
    **dict.fromkeys(("store list", "store verify", "store recover", "store convert"), held),
    **dict.fromkeys(("store identify", "store scan", "store model", "store graph"), held),
    **dict.fromkeys(("bucket list", "bucket verify", "bucket recover", "cached"), uploaded),
    **dict.fromkeys(("fsspec list", "fsspec verify"), of_fsspec),
    "from": damaged(".data-00000-of-00001"),
    "from without": damaged(".index"),
    "shapes json": damaged(".index"),
    "page of recovery": ckptparse.recover,
    "page of report": ckptparse.verify,
    "page of checkpoint": ckptparse.open,
    "page of diff": lambda path: ckptparse.diff(path, path),
    "diff of recovery": ckptparse.recover,
}
PREPARED = []

CALLS = {
    "identify": lambda path: str(ckptparse.identify(path)),
    "list": ckptparse.list_variables,
    "read": ckptparse.read,
    "open": lazily,
    "describe": describe,
    "objects": objects,
    "stats": ckptparse.stats,
    "verify": lambda path: str(ckptparse.verify(path)),
    "recover": lambda path: consume(ckptparse.recover(path)),
    "report": lambda path: str(ckptparse.recover(path)),
    "annotate": lambda path: sum(1 for _ in ckptparse.annotate(path)),
    "explain": explain,
    "evidence": evidence,
    "layout": layout,
    "shapes": shapes,
    "diff": lambda path: str(ckptparse.diff(path, path)),
    "beside": lambda path: str(beside(path)),
    "average": lambda path: ckptparse.average([path, path]),
    "convert": lambda path: ckptparse.convert(path, out + "/made.safetensors"),
    "rewrite": lambda path: ckptparse.convert(path, out + "/made", format="v2"),
    "npz": lambda path: ckptparse.convert(path, out + "/made.npz"),
    "npy": lambda path: ckptparse.convert(path, out + "/made/"),
    "hdf5": lambda path: ckptparse.convert(path, out + "/made.h5"),
    "rename": lambda path: ckptparse.convert(path, out + "/r", rename=[(r"(.*)/(.*)", r"\2/\1")]),
    "weights": lambda path: ckptparse.convert(path, out + "/w", drop_slots=True, layout="torch"),
    "write": write,
    "mean": lambda path: ckptparse.average([path, path], out + "/mean"),
    "page": lambda path: ckptparse.report_page(path, out + "/page.html"),
    "scan": lambda path: str(ckptparse.scan(largest(path))),
    "folder": lambda path: str(ckptparse.scan(folder_of(path))),
    "mapfile": lambda path: str(ckptparse.scan(beside_image(path), mapfile=path)),
    "resume": lambda path: str(ckptparse.scan(beside_image(path), state=path)),
    "replay": lambda path: str(ckptparse.replay(path)),
    "state": state,
    "graph": graph,
    "savers": savers,
    "model": model,
    "functions": functions,
    "layers": weights_of_layers,
    "about": about,
    "parts": lambda path: [str(part) for part in ckptparse.parts(path)],
    "rendered": rendered,
    "notebook": notebook,
    "reader": one_by_one,
    "save": save(".ckpt"),
    "save npz": save(".npz", keep_suspect=True),
    "save h5": save(".h5"),
    "save npy": save("/"),
    "save safe": save(".safetensors", fill=numpy.nan),
    "again": lambda path: str(ckptparse.replay(out + "/saved.npz.report.json")),
    "copies": copies,
    "undo": command("convert", "--undo", "{path}", "{out}/small.safetensors", "{out}/u.npz"),
    "tolerant": lambda path: str(ckptparse.diff(path, path, atol=1.0)),
    "half": lambda path: ckptparse.convert(path, out + "/h.npz", dtype="float16", ema="prefer"),
    "complete": complete,
    "ls": command("ls", "--long", "{path}"),
    "ls json": command("ls", "--json", "{path}"),
    "ls tree": command("ls", "--tree", "{path}"),
    "ls slots": command("ls", "--slots", "{path}"),
    "show": show,
    "info": command("info", "{path}"),
    "info json": command("info", "--json", "{path}"),
    "map": command("verify", "--map", "{path}"),
    "verify json": command("verify", "--json", "--hash", "{path}"),
    "recover json": command("recover", "--dry-run", "--json", "{path}"),
    "dump": command("dump", "{path}"),
    "dump json": command("dump", "--json", "{path}"),
    "stats json": command("stats", "--json", "{path}"),
    "diff json": command("diff", "--json", "{path}", "{path}"),
    "scan json": command("scan", "--json", "{path}"),
    "dry": command("convert", "--dry-run", "--json", "{path}", "{out}/d.npz"),
    "latest": command("latest", "{path}"),
    "mapped": lambda path: ckptparse.read(path, mmap=True),
    "own names": lambda path: ckptparse.read(path, naming="variable"),
    "own list": lambda path: ckptparse.list_variables(path, naming="variable"),
    "patterns": lambda path: ckptparse.read(path, include=["*a*0*1*", "*/*/*/?*", "?*"]),
    "partly": partly,
    "pickled": pickled,
    "orphans": orphans,
    "graphs of": graphs_of,
    "walk": walk,
    "of objects": of_objects,
    "nodes": nodes,
    "all consumers": all_consumers,
    "constants": constants,
    "signatures": signatures,
    "concrete": concrete,
    "assets of": assets_of,
    "optimizers": optimizers,
    "in parts": in_parts,
    "histogram": lambda path: ckptparse.stats(path, histogram=True),
    "scanned": scanned,
    "recovered": recovered,
    "image": image_evidence,
    "from recovery": from_recovery,
    "write lazily": kept_open,
    "renamed twice": renamed_twice,
    "read data": lambda path: str(ckptparse.diff(path, path, read_data=True)),
    "sharded": lambda path: ckptparse.convert(path, out + "/s", format="v2", max_shard_size=4096),
    "shards safe": lambda path: ckptparse.convert(
        path, out + "/s.safetensors", max_shard_size=65_536, store_bits=True
    ),
    "split": lambda path: ckptparse.convert(
        path, out + "/s.npz", split={"a": 2, "w": ["q", "k"]}, ema="only", naming="variable"
    ),
    "objects made": lambda path: ckptparse.convert(
        path, out + "/o", format="v2", object_graph="make", update_state=True, ema="drop"
    ),
    "halved": halved,
    "undone": undone,
    "rules": rules,
    "rules diff": lambda path: str(ckptparse.diff(plain(), plain("second"), rename=path)),
    "weighted": lambda path: ckptparse.average([path, path], out + "/mean", weights=[1, 3]),
    "quick page": lambda path: ckptparse.report_page(
        path, out + "/page.html", statistics=False, verify=False
    ),
    "state named": state_named,
    "tf": stands_in,
    "tf variables": tf_variables,
    "tf printed": tf_printed,
    "ls sizes": command("ls", "--sort", "size", "--naming", "variable", "{path}"),
    "ls match": command("ls", "--sort", "shape", "{path}", "*a*1*", "--exclude", "*b*2*"),
    "show json": shown("--json", "--full"),
    "show full": shown("--full", "--naming", "variable"),
    "show npy": shown("--npy", "{out}/one.npy"),
    "identify json": command("identify", "--json", "{path}"),
    "told": told,
    "latest json": command("latest", "--json", "{path}"),
    "dump top": command("dump", "--depth", "0", "--json", "{path}"),
    "page json": command("page", "--no-stats", "--json", "{path}", "-o", "{out}/page.html"),
    "write made": command("write", "--objects", "--update-state", "{path}", "{out}/made.ckpt"),
    "write dry": command("write", "--dry-run", "--json", "{path}", "{out}/made.ckpt"),
    "average json": command("average", "--json", "{path}", "{path}", "-o", "{out}/mean.ckpt"),
    "diff data": command("diff", "--read", "--rtol", "0.1", "{path}", "{path}"),
    "convert json": command("convert", "--json", "--layout", "torch", "{path}", "{out}/c.npz"),
    "mended": command("recover", "--dry-run", "--no-siblings", "--map", "--hash", "{path}"),
    "stats own": command("stats", "--naming", "variable", "{path}", "*?"),
    "store list": in_store(ckptparse.list_variables),
    "store verify": in_store(lambda path, store: str(ckptparse.verify(path, store=store))),
    "store recover": in_store(lambda path, store: consume(ckptparse.recover(path, store=store))),
    "store convert": in_store(
        lambda path, store: ckptparse.convert(path, out + "/made.npz", store=store)
    ),
    "store identify": in_store(lambda path, store: str(ckptparse.identify(path, store=store))),
    "store scan": in_store(lambda path, store: str(ckptparse.scan(path, store=store))),
    "store model": in_store(
        lambda path, store: ckptparse.open_saved_model(path, store=store).layers
    ),
    "store graph": in_store(lambda path, store: ckptparse.open_graph(path, store=store).variables),
    "bucket list": in_store(ckptparse.list_variables),
    "bucket verify": in_store(lambda path, store: str(ckptparse.verify(path, store=store))),
    "bucket recover": in_store(lambda path, store: consume(ckptparse.recover(path, store=store))),
    "cached": cached,
    "fsspec list": in_store(ckptparse.list_variables),
    "fsspec verify": in_store(lambda path, store: str(ckptparse.verify(path, store=store))),
    "shared verify": shared(lambda path, executor: ckptparse.verify(path, executor=executor)),
    "shared recover": shared(lambda path, executor: ckptparse.recover(path, executor=executor)),
    "shared stats": shared(lambda path, executor: ckptparse.stats(path, executor=executor)),
    "shared convert": shared(
        lambda path, executor: ckptparse.convert(path, out + "/made.npz", executor=executor)
    ),
    "recover files": command(
        *("recover", "{path}", "-o", "{out}/r.ckpt", "--offer", "plausible", "--fill", "nan"),
        *("--report", "{out}/r.json", "--dfxml", "{out}/r.dfxml"),
    ),
    "dfxml": command("recover", "--dry-run", "--dfxml", "{out}/r.dfxml", "{path}"),
    "from": command(*RECOVER, "--from", "{path}", DAMAGED),
    "from without": command(*RECOVER, "--from", "{path}", DAMAGED),
    "shapes json": command(*RECOVER, "--shapes", "{path}", DAMAGED),
    "replay json": command("recover", "--json", "--replay", "{path}", "-o", "{out}/again.npz"),
    "scan state": lambda path: command(
        *("scan", "--json", "--state", "{out}/state.json", "{path}")
    )(largest(path)),
    "convert rules": command(
        *("convert", "--json", "--layout", "torch", "--split", "a=b,c", "--rename", "a$=b"),
        *("--store-bits", "--max-shard-size", "1MB", "{path}", "{out}/c.safetensors"),
    ),
    "convert bert": command("convert", "--rules", "bert", "--dry-run", "{path}", "{out}/c.npz"),
    "write json": command("write", "--json", "--max-shard-size", "64KB", "{path}", "{out}/w.ckpt"),
    "stats exclude": command("stats", "{path}", "*/*/*", "?*[a-z]*", "--json"),
    "ls slots json": command("ls", "--slots", "--json", "{path}"),
    "ls tree json": command("ls", "--tree", "--json", "--naming", "variable", "{path}"),
    "diff rules": command("diff", "--json", "--atol", "1e-3", "{path}", "{path}"),
    "verify maps": command("verify", "--map", "--json", "{path}"),
    "page plain": command("page", "--no-verify", "{path}", "-o", "{out}/page.html"),
    "page of recovery": page_of_prepared,
    "page of report": page_of_prepared,
    "page of checkpoint": page_of_prepared,
    "page of diff": page_of_prepared,
    "diff of recovery": lambda path: str(ckptparse.diff(PREPARED[0], plain())),
    "recovery": opened_recovery,
    "everything": everything,
    "all of model": everything_of_model,
    "object nodes": object_nodes,
    "progress": progress,
    "text graph": of_text,
    "tops": lambda path: [str(one) for one in ckptparse.annotate(path, depth=1)],
}
# A warning of Python or of numpy is as foreign as an exception; our own are UserWarnings.
warnings.simplefilter("error")
warnings.simplefilter("ignore", UserWarning)
answers = os.fdopen(os.dup(1), "w", buffering=1)
sys.stdout = open(os.devnull, "w")
print(json.dumps(list(CALLS)), file=answers)
gc.collect()
gc.freeze()
for line in sys.stdin:
    name, path, out, memory, seconds = json.loads(line)
    if process := os.fork():
        _, status = os.waitpid(process, 0)
        if status:
            print(json.dumps([seconds, f"FOREIGN ended with {status}", 0]), file=answers)
        continue
    resource.setrlimit(resource.RLIMIT_AS, (memory + (4 << 30),) * 2)
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    errors = sys.stderr = io.StringIO()
    began = time.process_time()
    said = "value"
    try:
        if name in PREPARE:
            PREPARED.append(PREPARE[name](path))
            began = time.process_time()
        CALLS[name](path)
        said = errors.getvalue().replace("\n", " ") or said
        if "error: unexpected" in said or "Traceback" in said:
            said = f"FOREIGN {said}"
    except ckptparse.CheckpointError as error:
        said = type(error).__name__
        if isinstance(error, ckptparse.LimitError):
            said += f" {error.limit}"
    except BaseException as error:
        said = f"FOREIGN {type(error).__name__}: {error}"
    spent = time.process_time() - began
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    print(json.dumps([spent, said, used]), file=answers)
    os._exit(0)
"""


def main() -> None:
    """Parse the arguments, run, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kinds", nargs="*", help="beginnings of their names")
    parser.add_argument("--sizes", nargs="+", type=float, default=[1], metavar="MIB")
    parser.add_argument("--calls", nargs="+", metavar="NAME")
    parser.add_argument("--over", action="store_true", help="show only what takes too long")
    parser.add_argument("--jobs", type=int, default=1, help="processes at once (default 1)")
    args = parser.parse_args()
    pool = [_Server() for _ in range(args.jobs)]
    calls = pool[0].calls
    if unknown := set(args.calls or ()) - set(calls):
        parser.error(f"there is no call {', '.join(sorted(unknown))}: there are {', '.join(calls)}")
    chosen = {
        name: make
        for name, make in load_kinds().items()
        if not args.kinds or name.startswith(tuple(args.kinds))
    }
    if not chosen:
        parser.error("no kind has such a name")
    over = 0
    for name, make in chosen.items():
        for size in args.sizes:
            with tempfile.TemporaryDirectory() as directory:
                place = Path(directory, "made")
                place.mkdir()
                path = make(place, int(size * (1 << 20)))
                args.calls = args.calls or calls
                over += _show(name, path, _size(place), args, pool)
    print(f"{over} over the bound" if over else "nothing is over the bound")
    raise SystemExit(bool(over))


def _show(
    name: str, path: Path, size: int, args: argparse.Namespace, servers: Sequence[_Server]
) -> int:
    """Measure the calls on one input, and print a line for each; return how many are over."""
    idle: queue.SimpleQueue[_Server] = queue.SimpleQueue()
    for server in servers:
        idle.put(server)

    def measure(call: str) -> tuple[float, str, int]:
        server = idle.get()
        try:
            return server.measure(call, path)
        finally:
            idle.put(server)

    calls: list[str] = args.calls
    over = 0
    with ThreadPoolExecutor(args.jobs) as pool:
        for call, (spent, said, memory) in zip(calls, pool.map(measure, calls), strict=True):
            # What is given twice counts twice.
            held = size * (1 + (call in _TWICE))
            bound = 1 + held / BYTES_A_SECOND
            bad = spent > bound or memory > MEMORY + held or said.startswith("FOREIGN")
            over += bad
            if bad or not args.over:
                print(
                    f"{'!' if bad else ' '} {name:<32} {size / (1 << 20):6.2f} MiB {call:<12}"
                    f"{spent:7.2f} s of {bound:5.2f} {memory >> 20:6} MiB  {said[:80]}",
                    flush=True,
                )
    return over


class _Server:
    """A process that has imported everything, and forks one for each call."""

    def __init__(self) -> None:
        process = subprocess.Popen(
            [sys.executable, "-c", CHILD],
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._asked, self._answers = cast("IO[str]", process.stdin), cast("IO[str]", process.stdout)
        self.calls: list[str] = json.loads(self._answers.readline())
        """Names of all calls."""

    def measure(self, call: str, path: Path) -> tuple[float, str, int]:
        """Return the seconds, what came of it, and the memory in bytes."""
        with tempfile.TemporaryDirectory() as out:
            asked = json.dumps([call, str(path), out, MEMORY, SECONDS])
            print(asked, file=self._asked, flush=True)
            spent, said, memory = json.loads(self._answers.readline())
            return spent, said, memory


def _size(place: Path) -> int:
    """Bytes of all files below a directory, and of all names there: they are read, too."""
    return sum(
        len(path.name) + (path.stat().st_size if path.is_file() else 0) for path in place.rglob("*")
    )


if __name__ == "__main__":
    main()
