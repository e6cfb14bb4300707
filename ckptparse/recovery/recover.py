"""Get back what a damaged checkpoint and other evidence give, and say how sure each value is."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from ckptparse.bundle.entry import Endianness
from ckptparse.errors import CheckpointError, CheckpointNotFoundError, NotACheckpointError
from ckptparse.examination.byte_order import find_order, turn
from ckptparse.examination.case import Case
from ckptparse.examination.checking import check_all, open_case
from ckptparse.examination.choosing import explain_choice
from ckptparse.examination.converted import choose
from ckptparse.examination.diagnose import Diagnosis, diagnose
from ckptparse.examination.index_view import IndexView
from ckptparse.examination.inputs import HashedFile, list_inputs
from ckptparse.examination.intact import find_intact
from ckptparse.examination.neighbours import find_others
from ckptparse.examination.places import Twins
from ckptparse.examination.readers import DataFile, DataFiles
from ckptparse.examination.report import Report, doubtful_names
from ckptparse.examination.row_mapping import RowMapping
from ckptparse.examination.summary import make_report, sort_problems
from ckptparse.examination.survey import identity_of
from ckptparse.examination.tensor_checks import check_tensors
from ckptparse.filenames import INDEX_SUFFIX
from ckptparse.files.context import Cache, Context, Place, Progress, Store, begin, check_several
from ckptparse.files.file_urls import local_path
from ckptparse.files.noted import NotedStorage
from ckptparse.inventory.folders import Folders
from ckptparse.inventory.inventory import Candidate
from ckptparse.inventory.lenient import refuse_graph
from ckptparse.inventory.parts import survey_candidate
from ckptparse.inventory.places import take_inventory
from ckptparse.inventory.survey import Survey
from ckptparse.limits import DEFAULT_LIMITS, Limits
from ckptparse.opening import read_candidate_graph
from ckptparse.problems import Problem
from ckptparse.recovery.asked import describe_asked
from ckptparse.recovery.assembling import make_recovery
from ckptparse.recovery.belonging import Belonging, judge_belonging
from ckptparse.recovery.borrowing import Borrowing
from ckptparse.recovery.copies import Copies
from ckptparse.recovery.doubt import find_doubted
from ckptparse.recovery.evidence.gather import Evidence
from ckptparse.recovery.evidence.names import Names
from ckptparse.recovery.evidence.places import find_places
from ckptparse.recovery.evidence.sought import list_named, list_runs, list_sought
from ckptparse.recovery.expectations import Expectations
from ckptparse.recovery.holes import Holes
from ckptparse.recovery.images import find_in_images
from ckptparse.recovery.imaging.mapfile import Mapfile, read_map_input
from ckptparse.recovery.imaging.scan import scan_image
from ckptparse.recovery.inferences import INTEGERS, Inferrer
from ckptparse.recovery.loading import MendedTensor
from ckptparse.recovery.matches import Matcher
from ckptparse.recovery.mend import Mender
from ckptparse.recovery.mending import mend_again, mend_all, mend_tensor
from ckptparse.recovery.offering import Offerer
from ckptparse.recovery.other_indexes import OtherIndexes
from ckptparse.recovery.rebuild.alone import tile_alone, uses_shapes
from ckptparse.recovery.rebuild.names import restore_names_by_place
from ckptparse.recovery.rebuild.shape_files import read_shapes
from ckptparse.recovery.rebuild.shapes import GivenTensor, say_unused
from ckptparse.recovery.rebuild.sources import find_shapes, iter_sources, own_graphs
from ckptparse.recovery.rebuild.view import rebuild
from ckptparse.recovery.result import Recovery
from ckptparse.recovery.seams import Seams
from ckptparse.recovery.siblings import Siblings
from ckptparse.recovery.splices import Splices
from ckptparse.recovery.unmixed import explain_mixed
from ckptparse.recovery.untouched import leave_untouched
from ckptparse.recovery.workers import CALLER, Workers

if TYPE_CHECKING:
    from concurrent.futures import Executor

__all__ = ["recover", "recover_survey"]

_MOST_NAMED = 1024
"""Files of a directory that are looked at to see whether it holds fragments."""
_MAY_BE_IMAGES = frozenset({"unknown", "directory", "truncated", "zeros"})
"""Kinds, as `identify` names them, of files and directories that may be disk images."""


def recover(
    path: Place,
    *,
    siblings: bool = True,
    evidence: Iterable[str | os.PathLike[str]] = (),
    mapfile: str | os.PathLike[str] | None = None,
    shapes: Mapping[str, Any] | str | os.PathLike[str] | None = None,
    hashes: bool = False,
    executor: Executor | None = None,
    progress: Progress | None = None,
    store: Store = None,
    cache: Cache = None,
    limits: Limits = DEFAULT_LIMITS,
) -> Recovery:
    """Get back what a damaged checkpoint still gives. Its files are never written.

    The steps, in this order: tensors that are whole; bytes in another file or at another place;
    bytes of sibling checkpoints that the checksum proves; values that follow from the checksum
    alone; flipped bits and bytes; what is left of tensors that were cut off or have holes.

    Args:
        path: Whatever `ckptparse.open` takes; the checkpoint may be damaged or half written. Or an
            image of a disk, or a directory of fragments: the most complete checkpoint inside is
            taken (`ckptparse.scan` lists all).
        siblings: Whether to use other checkpoints of the directory as evidence.
        evidence: Files and directories that may help; their content tells what kind they are. For a
            lost index: copies, other checkpoints, `.meta` files, SavedModels and event files. For
            lost tensors: `.keras`, HDF5, npz, npy, safetensors, frozen graphs, TFLite, zip and tar
            archives, disk images, files that a rescue program saved. Graphs may be text (`.pbtxt`).
            Axes may lie there in another order.
        mapfile: The map file of ddrescue that belongs to an image among the evidence. Bytes that
            ddrescue could not read are not used.
        shapes: For a lost index: the shapes of the tensors by name, such as `{"w": [3, 4], "n":
            {"dtype": "int64", "shape": []}}`. Arrays are taken too. Or the path of a file with
            them: such JSON, npz, safetensors, HDF5, `.keras`, Keras's `config.json`. The order in
            the data file is then a guess, and the tensors are unverified.
        hashes: Whether the report has the SHA-256 of every file that was read: each is read again.
            What `Recovery.write` writes has them in any case.
        executor: Who searches files of the evidence for lost tensors: threads, processes,
            `dask.distributed`'s `Client.get_executor()`, loky. The result is the same.
        progress: Called from time to time with the bytes read so far and the bytes to read.
        store: As for `ckptparse.open`.
        cache: As for `open`.
        limits: Bounds on what its files may ask for.

    Returns:
        A mapping of the tensors that were got back; values are not read yet. Each has its status,
        where its bytes come from, by which method, and the chance that they are wrong. `.report`
        covers all tensors, `.write(path)` saves those that were got back.

    Raises:
        CheckpointNotFoundError: No file of a checkpoint is there, or a file of the evidence is not.
        NotACheckpointError: The file there was never part of one; `.identity` says what it is.
        StorageError: A worker failed; the error names the file and the bytes.
        MalformedError: `shapes` are no shapes, or `mapfile` is no map file.
    """
    check_several("evidence", evidence)
    place, aside = begin(
        path, store=store, cache=cache, limits=limits, progress=progress, lenient=True
    )
    noted = NotedStorage(aside.storage)
    context = replace(aside, storage=noted)
    named = Evidence((local_path(os.fsdecode(one)) for one in evidence), context)
    known: Mapfile | None = None
    maps: tuple[HashedFile, ...] = ()
    if mapfile is not None:
        known, maps = read_map_input(
            *begin(mapfile, store=store, cache=cache, limits=limits), hashes=hashes
        )
    given = read_shapes(shapes, context)
    workers = Workers(executor, context.storage)
    recovery = _find(place, _Options(siblings, named, given, known, aside, workers), context)
    asked = describe_asked(
        place,
        siblings=siblings,
        evidence=named.paths,
        mapfile=mapfile,
        shapes=shapes,
        given=given,
        limits=limits,
    )
    roles = _roles_of(recovery.report, named, asked)
    inputs = list_inputs(noted, roles, hashes=hashes)
    recovery.note_inputs(asked, (*inputs, *maps), aside.storage)
    return recovery


def _find(place: str, options: _Options, context: Context) -> Recovery:
    """Get back what a path means: a checkpoint, or one inside of what lies there."""
    folders = Folders(context)
    try:
        choice = choose(place, folders)
    except NotACheckpointError as error:
        fragments = _holds_fragments(place, context)
        if take_inventory(place, folders).ambiguous and not fragments:
            raise
        inside = _inside(place, None if fragments else error, options.mapfile, context)
        if inside is None:
            raise
        return inside
    if choice.candidate.format == "graph":
        raise _refusal(choice.candidate, context)
    recovery = _recover(survey_candidate(choice.candidate, folders), options, context, folders)
    if not recovery and _is_directory(place, context):
        # A directory of fragments, under any names, looks like a directory of V1 files.
        return _inside(place, None, options.mapfile, context) or recovery
    is_file = choice.candidate.renamed_index == choice.candidate.path
    if is_file and not recovery.report.ok:
        # An image may begin with blocks of an index, which lies whole further on.
        inside = _inside(place, None, options.mapfile, context)
        if inside is not None and _count_proved(inside) > _count_proved(recovery):
            return inside
    recovery.report = explain_choice(recovery.report, choice, context)
    return recovery


def _refusal(candidate: Candidate, context: Context) -> CheckpointError:
    """Return an error that says that a graph cannot be mended, or that a SavedModel lost all."""
    if candidate.saved_model is not None:
        try:
            read_candidate_graph(candidate, context)
        except CheckpointNotFoundError as error:
            return error
    return refuse_graph(candidate.path, context)


def _count_proved(recovery: Recovery) -> int:
    return sum(one.status.proved for one in recovery.report.tensors.values())


def _roles_of(report: Report, evidence: Evidence, asked: Mapping[str, Any]) -> dict[str, str]:
    """Return the roles of files that are the checkpoint's own, or that the caller named."""
    # An image; if that is no file, what lies in the path is the checkpoint's, and known below.
    roles = {asked["path"]: "image"}
    roles.update(dict.fromkeys(evidence.files, "evidence") if evidence else {})
    roles.update({file.path: file.role for file in report.files.values()})
    roles.update({asked[role]: role for role in ("mapfile", "shapes") if _is_path(asked[role])})
    return roles


def _is_path(value: Any) -> bool:
    return isinstance(value, str)


def _is_directory(path: str, context: Context) -> bool:
    status = context.storage.stat(path)
    return status is not None and status.kind == "directory"


def _holds_fragments(path: str, context: Context) -> bool:
    """Tell whether a directory has indexes, and none of them the name of one.

    So a rescue program names files: several of them are no choice of the person who has them.
    """
    if not _is_directory(path, context):
        return False
    names = context.storage.list(path)
    if any(name.endswith(INDEX_SUFFIX) for name in names):
        return False
    paths = (context.storage.join(path, name) for name in islice(names, _MOST_NAMED))
    kinds = (identity_of(one, context) for one in paths)
    return any(kind is not None and kind.kind == "v2-index" for kind in kinds)


def recover_survey(survey: Survey, context: Context) -> Recovery:
    """Get back a checkpoint whose files are known, from these alone."""
    options = _Options(False, Evidence((), context), (), None, context, CALLER)
    return _recover(survey, options, context)


def _inside(
    path: str, error: NotACheckpointError | None, mapfile: Mapfile | None, context: Context
) -> Recovery | None:
    """Get back the most complete checkpoint inside an image, or a directory of fragments."""
    identity = None if error is None else error.identity
    if identity is not None and identity.kind not in _MAY_BE_IMAGES:
        return None
    found = scan_image(path, context, mapfile)
    if len(found):
        recovery = found[0].recover()
        if len(found) > 1:
            others = Problem.of("scan.others", path, _tell_others(path, len(found) - 1))
            problems = sort_problems([*recovery.report.problems, others])
            recovery.report = replace(recovery.report, problems=problems)
        return recovery
    if error is not None and found.problems:
        error.hint = f"Nothing was found, and {found.problems[0].message}"
    return None


def _tell_others(path: str, number: int) -> str:
    are = "another checkpoint was" if number == 1 else f"{number:,} other checkpoints were"
    return (
        f"{are} found in it, and this is the most complete one: `ckptparse scan {path}` lists all, "
        "and `ckptparse.scan(path)[number].recover()` gets one of them back"
    )


@dataclass(frozen=True, slots=True)
class _Options:
    """What the caller of `recover` asked for."""

    siblings: bool
    evidence: Evidence
    shapes: Sequence[GivenTensor]
    mapfile: Mapfile | None
    aside: Context
    """For files that are looked at and say nothing of this checkpoint."""
    workers: Workers


def _recover(
    survey: Survey, options: _Options, context: Context, folders: Folders | None = None
) -> Recovery:
    files = DataFiles(context)
    with closing(files):
        intact = find_intact(survey, files)
        if intact is not None:
            untouched = leave_untouched(intact, options.aside)
            if untouched is not None:
                return untouched
        files.copies = options.evidence.tables if options.evidence else ()
        files.evidence_bytes = options.evidence.size if options.evidence else 0
        case = open_case(survey, context, files=files, correct=True)
        check_all(case)
        others = OtherIndexes(context)
        unused = _work_out(case, options, others)
        found = diagnose(case, deep=True, siblings=options.siblings, folders=folders)
        places = find_places(case, options.evidence, found.places, options.mapfile)
        places = find_in_images(case, options.evidence.files, places, options.workers)
        report = make_report(case, [*explain_mixed(case, found.problems, places), *unused])
        mender, borrowing = _make_mender(case, replace(found, places=places), options, others)
        mended, known = _mend(case, mender, borrowing)
        if not known and options.evidence and not known.others:
            alone = replace(options, evidence=Evidence((), context))
            _keep_own(mended, _mend_alone(case, found, alone, others))
        rivals = {
            name: [mend_tensor(one, mender, case) for one in these]
            for name, these in case.rivals.items()
        }
    if options.siblings and not report.ok:
        beside = find_others(survey, options.aside, folders, read=others.find)
        report = replace(report, others=beside)
    recovery = make_recovery(report, mended, rivals, case, options.aside)
    if doubtful_names(recovery.report.tensors):
        unsearched = options.evidence.bounds.problems(survey.prefix)
        problems = sort_problems([*recovery.report.problems, *unsearched])
        recovery.report = replace(recovery.report, problems=problems)
    return recovery


def _mend(
    case: Case, mender: Mender, borrowing: Borrowing
) -> tuple[RowMapping[MendedTensor], Belonging]:
    """Mend every tensor; return them, and what was promised of them at first."""
    mended = mend_all(case, mender)
    known = judge_belonging(case, mended, borrowing)
    if not known:
        _mend_doubted(case, mender, mended, known, borrowing)
    return mended, known


_MOST_TWICE = 1 << 10
"""Tensors of a checkpoint that are mended again in two steps: they are judged in between."""


def _mend_doubted(
    case: Case,
    mender: Mender,
    mended: RowMapping[MendedTensor],
    known: Belonging,
    borrowing: Borrowing,
) -> None:
    """Mend again what is promised no more, since the index may be of another save."""
    if known.borrowed or known.others or len(mended.held) > _MOST_TWICE:
        mend_again(case, mender, mended, known, borrowing)
        return
    # What was borrowed may follow from its checksum, and bytes of other files that are not promised
    # say nothing of it: as if there were no evidence.
    mend_again(case, mender, mended, replace(known, values=True), borrowing)
    if not judge_belonging(case, mended, borrowing).values:
        mend_again(case, mender, mended, replace(known, values=False), borrowing)


def _mend_alone(
    case: Case, found: Diagnosis, options: _Options, others: OtherIndexes
) -> RowMapping[MendedTensor]:
    """Mend a checkpoint as if nobody had named evidence."""
    places = find_places(case, options.evidence, found.places, options.mapfile)
    mender, borrowing = _make_mender(case, replace(found, places=places), options, others)
    return _mend(case, mender, borrowing)[0]


def _keep_own(mended: RowMapping[MendedTensor], alone: RowMapping[MendedTensor]) -> None:
    """Keep what is promised without evidence: bytes of other files must not make it less."""
    for name, one in alone.held.items():
        if one.report.status.proved and not mended[name].report.status.proved:
            mended.held[name] = one


_TOO_MANY_REBUILT = (
    "only {:,} of the {:,} tensors that other evidence describes were looked at: "
    "Limits.single_entries allows no more, beyond one for each 4 KiB of the files"
)


def _work_out(case: Case, options: _Options, others: OtherIndexes) -> list[Problem]:
    """Rebuild the index if there is none; add what a damaged one does not name any more.

    Returns:
        What is to be said of shapes that were given.
    """
    if not case.survey.has_index or (case.main is not None and case.main.complete):
        return []
    layouts = iter_sources(case, options.evidence, others, siblings=options.siblings)
    shapes = options.shapes or find_shapes(case, options.evidence)
    # What Keras says of its layers is not all that there is: it cannot tile a file alone.
    rebuilt = rebuild(case, layouts, options.shapes, own_graphs(case), others)
    view = tile_alone(case, shapes) if rebuilt is None else rebuilt.view
    unused = [] if rebuilt is not None else _tell_unused(case, options.shapes, view)
    if view is None:
        return unused
    _turn(view, case)
    if rebuilt is not None:
        restore_names_by_place(case, view)
    missing = [one for name, one in view.tensors.items() if name not in case.tensors]
    # Nothing proves any of them: each is looked at by itself, as are others of a damaged index.
    singles = case.files.singles
    most = max(0, singles.most - singles.taken)
    if len(missing) > most:
        view.report("limit.reached", view.path, _TOO_MANY_REBUILT.format(most, len(missing)))
    for checked in check_tensors(missing[:most], case):
        case.tensors[checked.name] = checked
    if missing:
        case.views.append(view)
    return unused


def _turn(view: IndexView, case: Case) -> None:
    """Give what other evidence describes the byte order of the data files."""
    header = None if case.main is None else case.main.header
    payloads = (one.payload for one in view.tensors.values() if one.payload is not None)
    big_endian = find_order(case.files, payloads)
    if big_endian is None and header is not None:
        big_endian = header.endianness == Endianness.BIG
    if big_endian is not None:
        turn(view, big_endian=big_endian)


def _tell_unused(case: Case, given: Sequence[GivenTensor], view: IndexView | None) -> list[Problem]:
    """Say that shapes that were given fit nothing, if that is so."""
    if not given or uses_shapes(view):
        return []
    size = sum(case.files.size(DataFile(path)) or 0 for path in case.survey.data_files.values())
    return [Problem.of("shapes.unused", case.survey.prefix, say_unused(given, size))]


def _make_mender(
    case: Case, found: Diagnosis, options: _Options, others: OtherIndexes
) -> tuple[Mender, Borrowing]:
    files = case.files
    evidence = options.evidence
    siblings = Siblings(
        case.survey,
        files,
        others,
        own=case.main,
        used=options.siblings,
        others=evidence.prefixes if evidence else (),
        without=found.owners,
    )
    copies = Copies(case, siblings, evidence.data_files)
    expectations = Expectations(case.survey.prefix, files, siblings)
    damaged = _count_damaged(case)
    offerer = Offerer(files, Holes(files, (part.payload for part in case.iter_held())))
    borrowing = Borrowing(case, siblings, offerer)
    mender = Mender(
        files,
        Matcher(
            files,
            Twins(case),
            found.places,
            siblings,
            found=evidence.find(
                list_sought(case) if evidence.files else {},
                options.workers,
                list_runs=partial(list_runs, case),
                names=Names(partial(list_named, case)),
            ),
            copies=copies,
        ),
        Inferrer(
            files,
            expectations,
            damaged,
            _find_doubted(case, found),
            integers=_count_integers(case),
        ),
        offerer,
        siblings,
        copies=copies,
        seams=Seams(case, found.places),
        splices=Splices(case, siblings),
        torn=None if case.main is None or case.main.complete else case.main,
        held=_held(case) + max(copies.size, files.evidence_bytes),
        borrowing=borrowing,
    )
    return mender, borrowing


def _find_doubted(case: Case, found: Diagnosis) -> frozenset[DataFile]:
    """Return the data files which the index may not be about; all if it is another checkpoint's."""
    if not found.owners:
        return find_doubted(case, found.places)
    return frozenset(case.payload_files())


def _held(case: Case) -> int:
    """Return the bytes of all files that payloads belong into."""
    return sum(case.files.size(file) or 0 for file in case.payload_files())


def _count_damaged(case: Case) -> Counter[DataFile]:
    """Count the payloads of each data file whose bytes are there and whose checksum disagrees."""
    found = Counter(
        part.payload.file
        for checked in case.tensors.held.values()
        for part in checked.parts
        if part.payload is not None and part.is_lost and part.check.computed is not None
    )
    failed = case.failed
    for path in failed.paths if failed is not None else ():
        if failed is not None:
            wrong = failed.wrong[failed.of_path(path)]
            found[DataFile(path)] += int(np.count_nonzero(wrong))
    return found


def _count_integers(case: Case) -> int:
    """Count the lost payloads that are one 8-byte integer."""
    held = sum(
        part.payload is not None
        and part.is_lost
        and part.payload.size == 8
        and part.payload.data_type in INTEGERS
        for part in case.iter_held()
    )
    failed = case.failed
    if failed is None:
        return held
    mine = ~failed.good & (failed.sizes == 8) & np.isin(failed.data_types, INTEGERS)
    return held + int(np.count_nonzero(mine))
