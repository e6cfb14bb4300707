"""A recovery is repeated from its report. The same inputs and options must give the same result."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, get_args

from ckptparse.backend import OBJECT_GRAPH_KEY
from ckptparse.errors import CheckpointNotFoundError, ChecksumError, LimitError, MalformedError
from ckptparse.examination.inputs import HashedFile, hash_files
from ckptparse.files.context import Cache, Context, Progress, Store, begin
from ckptparse.jobs.conversion import TargetFormat
from ckptparse.json_text import NOT_AS_EXPECTED, parse_json
from ckptparse.limits import DEFAULT_LIMITS, Limits, check_members
from ckptparse.recovery.asked import is_scan, read_asked, read_scan
from ckptparse.recovery.imaging.scan import scan
from ckptparse.recovery.rebuild.shape_files import check_names
from ckptparse.recovery.recover import recover
from ckptparse.recovery.result import Recovery
from ckptparse.recovery.writing import iter_digests
from ckptparse.recovery.written import Offer, Written

__all__ = ["Difference", "Replay", "replay"]


@dataclass(frozen=True, slots=True)
class Difference:
    """A result that differs from the report.

    Attributes:
        tensor: The tensor; None if it is no tensor's.
        path: The file; None if it is no file's.
        what: What differs: `status`, `method`, `sha256` and so on; `tensor` or `input` if only one
            of the two has it.
        expected: What the report has, as in JSON; None if the report does not have it.
        found: What the new recovery has.
    """

    tensor: str | None
    path: str | None
    what: str
    expected: Any
    found: Any

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as JSON holds them."""
        return {
            "tensor": self.tensor,
            "path": self.path,
            "what": self.what,
            "expected": self.expected,
            "found": self.found,
        }


@dataclass(frozen=True, slots=True, repr=False)
class Replay:
    """A recovery that was repeated.

    Attributes:
        path: The report it was repeated from.
        version: The version of ckptparse that made the report.
        recovery: The new result.
        written: What was written of it; None if nothing was.
        compared: How many tensors' values were compared by their SHA-256.
        differences: Everything that differs from the report.
    """

    path: str
    version: str
    recovery: Recovery
    written: Written | None
    compared: int
    differences: tuple[Difference, ...]

    @property
    def same(self) -> bool:
        """Whether everything is as in the report."""
        return not self.differences

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as JSON holds them."""
        return {
            "path": self.path,
            "version": self.version,
            "same": self.same,
            "compared": self.compared,
            "differences": [one.to_dict() for one in self.differences],
        }

    def __repr__(self) -> str:
        what = "the same" if self.same else f"{len(self.differences)} differences"
        return f"<Replay of {self.path!r}: {what}>"


def replay(
    report: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
    store: Store = None,
    cache: Cache = None,
    limits: Limits = DEFAULT_LIMITS,
) -> Replay:
    """Repeat a recovery, and compare the result with its report.

    Paths in the report are as they were given. Relative ones start at the working directory.

    Args:
        report: What `Recovery.write` has written beside its output, or `recover --report`.
        out: Where to write it again, as it was written then: then its files are compared too. None:
            nothing is written, and only the tensors are compared.
        overwrite: Whether an earlier output there is replaced.
        progress, store: As for `recover`.
        limits: Bounds on the report itself. For all else those in the report count, of which none
            may be above these: a report may come from a stranger.

    Returns:
        The recovery, and what differs: tensors, their values by SHA-256, and files.

    Raises:
        ChecksumError: A file is not the one that was read then: its SHA-256 differs.
        CheckpointNotFoundError: A file that was read then is not there.
        MalformedError: It is no report, or it was written without hashes.
        LimitError: Its limits are above `limits`, or it names more files than `Limits.members`
            allows in its size, or more shapes than `Limits.small_tensors` does.
    """
    path, context = begin(report, store=store, cache=cache, limits=limits)
    told = _read(path, context)
    again = _plan(told, context, path)
    _check_inputs(told.inputs, context, path)
    recovery = again(progress=progress, store=store, cache=cache)
    written = None
    if out is not None:
        written = recovery.write(out, overwrite=overwrite, **_ways(told.output, path))
    differences = [
        *_compare_inputs(told.inputs, recovery),
        *_compare_tensors(told.report, recovery),
    ]
    digests = _digests(told.output, recovery, written, path)
    wanted = told.output.get("digests", {}) if digests else {}
    differences += _compare_digests(wanted, digests)
    if written is not None:
        differences += _compare_files(told.output, written)
    version = str(told.report.get("version"))
    return Replay(path, version, recovery, written, len(digests), tuple(differences))


def _plan(told: _Told, context: Context, path: str) -> Callable[..., Recovery]:
    """Return what repeats a recovery; it takes `progress`, `store` and `cache`.

    Raises:
        MalformedError: The report does not say what was asked for.
        LimitError: It asks for more than `limits` allow.
    """
    options, limits = told.report["options"], context.limits
    if not is_scan(options):
        asked, others = read_asked(options, path=path)
        _check_limits(others["limits"], limits, path)
        check_members(limits, len(told.inputs) + len(others["evidence"]), told.size, path=path)
        if isinstance(others["shapes"], dict):
            check_names(others["shapes"], told.size, limits)
        # Whatever the ways to spell a path, it is searched once, in the place of the first.
        evidence: dict[str, str] = {}
        for one in others["evidence"]:
            evidence.setdefault(context.storage.real(one), one)
        others["evidence"] = [*evidence.values()]
        return partial(recover, asked, **others)
    image, others, offset = read_scan(options, path=path)
    _check_limits(others["limits"], limits, path)

    def again(**ways: Any) -> Recovery:
        for found in scan(image, **others, **ways):
            if found.offset == offset:
                return found.recover()
        raise CheckpointNotFoundError(
            f"Expected a checkpoint at offset {offset}, found none", path=image
        )

    return again


def _check_limits(asked: Limits, allowed: Limits, path: str) -> None:
    for part in fields(Limits):
        what = f"The report's own Limits.{part.name}"
        allowed.check(part.name, getattr(asked, part.name), what, path=path)


@dataclass(frozen=True, slots=True)
class _Told:
    """What a report file of `size` bytes tells."""

    report: Mapping[str, Any]
    output: Mapping[str, Any]
    inputs: tuple[HashedFile, ...]
    size: int


def _read(path: str, context: Context) -> _Told:
    data = context.read_whole(path, "message_bytes", "The size of the report")
    try:
        content = parse_json(data, context.limits)
        if "result" in content:
            # What `--json` prints has the report inside.
            content = content["result"]
        report, output = content["report"], content.get("output") or {}
        inputs = tuple(
            HashedFile(str(one["path"]), str(one["role"]), int(one["size"]), one["sha256"])
            for one in report["inputs"]
        )
        good = isinstance(report["options"], dict) and isinstance(report["tensors"], dict)
        if not good or not isinstance(output, dict):
            raise TypeError("its parts are of other kinds")
    except LimitError:
        raise
    except NOT_AS_EXPECTED as error:
        raise MalformedError(
            f"Expected the report of a recovery, found something else: {error!r:.80}",
            path=path,
            hint="Give the report.json that `recover -o` has written",
        ) from error
    check_members(context.limits, len(inputs), len(data), path=path)
    return _Told(report, output, inputs, len(data))


def _check_inputs(inputs: Sequence[HashedFile], context: Context, path: str) -> None:
    """Refuse inputs that are not those of the report.

    Raises:
        ChecksumError: One differs.
        MalformedError: The report does not say what they were.
    """
    hashed: dict[str, HashedFile] = {}
    for told in inputs:
        if not isinstance(told.sha256, str):
            raise MalformedError(
                f"Expected the SHA-256 of {told.path} in the report, found none",
                path=path,
                hint="Write the report with hashes: `recover --hash`",
            )
        # Whatever the ways to spell its path, a file is read once, and none of another size.
        place = context.storage.real(told.path)
        now = hashed.get(place)
        if now is None:
            _check_size(told, context)
            (now,) = hash_files([HashedFile(told.path, told.role, told.size)], context.storage)
            hashed[place] = now
        if (now.size, now.sha256) != (told.size, told.sha256):
            raise ChecksumError(
                f"The file is not the one of the report: expected {told.size} bytes with "
                f"SHA-256 {told.sha256}, found {now.size} bytes with {now.sha256}",
                path=told.path,
                hint="Restore the file that the first recovery read",
            )


def _check_size(told: HashedFile, context: Context) -> None:
    found = context.storage.stat(told.path)
    if found is not None and found.kind == "file" and found.size != told.size:
        raise ChecksumError(
            f"The file is not the one of the report: expected {told.size} bytes with "
            f"SHA-256 {told.sha256}, found {found.size} bytes",
            path=told.path,
            hint="Restore the file that the first recovery read",
        )


def _ways(output: Mapping[str, Any], path: str) -> dict[str, Any]:
    """Return how an output was written.

    Raises:
        MalformedError: The report has none.
    """
    fill = output.get("fill", 0)
    known = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": -float("inf")}
    good = isinstance(output.get("keep_suspect"), bool) and not isinstance(fill, (list, dict))
    good = good and isinstance(output.get("files", []), list)
    for key, words in (("format", get_args(TargetFormat)), ("offer", get_args(Offer))):
        good = good and output.get(key) in words
    if not good:
        raise MalformedError(
            "Expected what was written in the report, found none",
            path=path,
            hint="Replay it without an output",
        )
    return {
        "format": output["format"],
        "offer": output["offer"],
        "fill": known.get(fill, fill) if isinstance(fill, str) else fill,
        "keep_suspect": output["keep_suspect"],
    }


def _compare_inputs(inputs: Sequence[HashedFile], recovery: Recovery) -> Iterator[Difference]:
    """Compare which files were read."""
    told = {one.path: one.size for one in inputs}
    now = {one.path: one.size for one in recovery.report.inputs}
    for path in dict.fromkeys([*told, *now]):
        if told.get(path) != now.get(path):
            yield Difference(None, path, "input", told.get(path), now.get(path))


def _compare_tensors(report: Mapping[str, Any], recovery: Recovery) -> Iterator[Difference]:
    """Compare what the two say of each tensor."""
    now = json.loads(json.dumps(recovery.report.to_dict()))
    graphs = [{OBJECT_GRAPH_KEY: one} for one in (report.get("object_graph"), now["object_graph"])]
    for told, found in ((report["tensors"], now["tensors"]), graphs):
        for name in dict.fromkeys([*told, *found]):
            one, other = told.get(name), found.get(name)
            if not isinstance(one, dict) or not isinstance(other, dict):
                if one != other:
                    yield Difference(name, None, "tensor", one, other)
                continue
            for key in dict.fromkeys([*one, *other]):
                if one.get(key) != other.get(key):
                    yield Difference(name, None, key, one.get(key), other.get(key))


def _digests(
    output: Mapping[str, Any], recovery: Recovery, written: Written | None, path: str
) -> Mapping[str, str]:
    """Return the hashes of the tensors that were written then; nothing if none were."""
    told = output.get("digests")
    if not isinstance(told, dict):
        return {}
    if written is not None:
        return written.digests
    ways = _ways(output, path)
    return dict(iter_digests(recovery, told, fill=ways["fill"], keep_suspect=ways["keep_suspect"]))


def _compare_digests(told: Mapping[str, Any], now: Mapping[str, str]) -> Iterator[Difference]:
    for name in dict.fromkeys([*told, *now]):
        if told.get(name) != now.get(name):
            yield Difference(name, None, "sha256", told.get(name), now.get(name))


def _compare_files(output: Mapping[str, Any], written: Written) -> Iterator[Difference]:
    """Compare files by what their names are after the path that was asked for."""
    told = {
        str(one.get("path", "")).removeprefix(str(output.get("path"))): one.get("sha256")
        for one in output.get("files", ())
        if isinstance(one, dict)
    }
    now = {file.path.removeprefix(written.path): file.sha256 for file in written.files}
    for name in dict.fromkeys([*told, *now]):
        if told.get(name) != now.get(name):
            yield Difference(None, f"{written.path}{name}", "sha256", told.get(name), now.get(name))
