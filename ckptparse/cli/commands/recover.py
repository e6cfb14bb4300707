"""`ckptparse recover`: what a damaged checkpoint still gives, saved elsewhere."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal

import ckptparse
from ckptparse.cli.errors import UsageError
from ckptparse.cli.limits import LimitOption, read_limits
from ckptparse.cli.output import Output
from ckptparse.cli.parameters import Format, FormatOption, OverwriteOption
from ckptparse.cli.progress import working
from ckptparse.cli.recovery_options import (
    DamagedArgument,
    DfxmlOption,
    EvidenceOption,
    FillOption,
    HashOption,
    KeepSuspectOption,
    MapfileOption,
    MapOption,
    Offer,
    OfferOption,
    RecoveryOutputOption,
    ReplayOption,
    ReportOnlyOption,
    ReportOption,
    ShapesOption,
    SiblingsOption,
)
from ckptparse.cli.reports import write_report
from ckptparse.cli.running import DAMAGE, GOOD, NOT_RUN, WARNED, Run
from ckptparse.cli.writing import check_outputs
from ckptparse.files.placing import place_file
from ckptparse.json_text import format_json
from ckptparse.text import escape, states_text

__all__ = ["recover"]


def recover(
    run: Run,
    path: DamagedArgument = None,
    *,
    output: RecoveryOutputOption = None,
    format_: FormatOption = None,
    offer: OfferOption = None,
    fill: FillOption = None,
    keep_suspect: KeepSuspectOption = False,
    report: ReportOption = None,
    dfxml: DfxmlOption = None,
    hash_: HashOption = None,
    replay: ReplayOption = None,
    dry_run: ReportOnlyOption = False,
    siblings: SiblingsOption = True,
    evidence: EvidenceOption = None,
    shapes: ShapesOption = None,
    mapfile: MapfileOption = None,
    limit: LimitOption = None,
    map_: MapOption = False,
    overwrite: OverwriteOption = False,
) -> Recovered:
    """Save what can be read of a damaged checkpoint to a new place.

    ckptparse recover --dry-run training/model.ckpt-10
    ckptparse recover training/model.ckpt-10 -o rescued.ckpt
    """
    files = _Files(None if dry_run else output, None if dry_run else report, dfxml, overwrite)
    if replay is not None:
        if path is not None:
            raise UsageError("Expected PATH or --replay, found both", "give one of them")
        return _replay(run, replay, files, read_limits(limit), maps=map_)
    if path is None:
        raise UsageError("Expected a checkpoint, found none", "give PATH, or --replay REPORT")
    limits = read_limits(limit)
    run.own.update(filter(None, (shapes, mapfile)))
    if output is None and not dry_run:
        raise UsageError("Expected an output, found none", "give -o OUT, or --dry-run")
    wishes = _Wishes.of(output, format_, offer, fill, keep_suspect=keep_suspect)
    wishes.warn(run)
    # Before the work, which may take long; and after it, when all the files are known.
    check_outputs(files.places(wishes.format), [path, *(evidence or ())], overwrite=overwrite)
    with working(f"recovering {escape(path)}", quiet=run.quiet) as advance:
        recovery = ckptparse.recover(
            path,
            siblings=siblings,
            evidence=evidence or (),
            shapes=shapes,
            mapfile=mapfile,
            progress=advance,
            cache=run.cache,
            limits=limits,
        )
        check_outputs(files.places(wishes.format), recovery.report.files, overwrite=overwrite)
        if hash_ or (hash_ is None and files.all):
            recovery.hash_inputs()
        written, refused = _write(recovery, files, wishes)
        answer = Recovered(
            recovery, written, map_, run.verbose, inputs=bool(hash_), refused=refused
        )
    if refused is None:
        files.write(answer)
    elif run.json:
        run.report(refused)
    return answer


_ALL_WRITTEN = (None, "npz", "npy")
_CALLED = {"v2": "V2 checkpoint", "npy": ".npy files"}
"""Formats that the name of what was written does not say."""
"""Formats into which all is written that was got back, unless `--offer` says otherwise."""


@dataclass(frozen=True, slots=True)
class _Wishes:
    """How the tensors are to be written."""

    format: Literal["v2", "safetensors", "npz", "npy", "hdf5"] | None
    offer: Offer | None
    fill: float | None
    keep_suspect: bool

    def warn(self, run: Run) -> None:
        """Name options that do nothing: what is proved lacks no element, and none looks wrong."""
        if self.offer is Offer.PLAUSIBLE or (self.offer is None and self.format in _ALL_WRITTEN):
            return
        given = {"--fill": self.fill is not None, "--keep-suspect": self.keep_suspect}
        for name in (name for name, said in given.items() if said):
            run.warn(f"{name} does nothing without --offer plausible")

    @classmethod
    def of(
        cls,
        output: str | None,
        format: Format | None,
        offer: Offer | None,
        fill: float | None,
        *,
        keep_suspect: bool,
    ) -> _Wishes:
        """Find the format of an output; an error if neither its ending nor the option names one."""
        wanted = None if format is None else format.value
        chosen = None
        if output is not None:
            chosen = ckptparse.Recovery.check_path(output, format=wanted)
        return cls(chosen, offer, fill, keep_suspect)


def _write(
    recovery: ckptparse.Recovery, files: _Files, wishes: _Wishes
) -> tuple[ckptparse.Written | None, ckptparse.UnsupportedError | None]:
    """Write the output; return what was written, or why nothing can be."""
    if files.output is None:
        return None, None
    try:
        return _write_output(recovery, files.output, files, wishes), None
    except ckptparse.UnsupportedError as error:
        return None, error


def _write_output(
    recovery: ckptparse.Recovery, output: str, files: _Files, wishes: _Wishes
) -> ckptparse.Written:
    return recovery.write(
        output,
        format=wishes.format,
        offer=None if wishes.offer is None else wishes.offer.value,
        fill=0 if wishes.fill is None else wishes.fill,
        keep_suspect=wishes.keep_suspect,
        overwrite=files.overwrite,
        # A directory always has its own.
        report=True if wishes.format == "npy" else files.report or True,
        hashes=False,
    )


def _replay(
    run: Run, report: str, files: _Files, limits: ckptparse.Limits, *, maps: bool
) -> Recovered:
    """Do a recovery again."""
    # Beside the report lie the outputs of the recovery: that is no directory of an input.
    check_outputs(files.all, (), overwrite=files.overwrite)
    with working(f"replaying {escape(report)}", quiet=run.quiet) as advance:
        found = ckptparse.replay(
            report, files.output, overwrite=files.overwrite, progress=advance, limits=limits
        )
        answer = Recovered(found.recovery, found.written, maps, run.verbose, found)
    files.write(answer)
    return answer


@dataclass(frozen=True, slots=True)
class _Files:
    """What is to be written."""

    output: str | None
    report: str | None
    dfxml: str | None
    overwrite: bool

    @property
    def all(self) -> list[str]:
        """All of them."""
        return [one for one in (self.output, self.report, self.dfxml) if one is not None]

    def places(self, format: str | None) -> list[str]:
        """Return where something must not lie yet: all of them, and what comes with an output."""
        if self.output is None or format == "npy":
            return self.all
        beside = [f"{self.output}.report.json"] if self.report is None else []
        return [*self.all, *beside, *([f"{self.output}.index"] if format == "v2" else [])]

    def write(self, answer: Recovered) -> None:
        """Write the report, if the output did not bring it, and the export."""
        told = answer.written is not None and answer.written.report == self.report
        if self.report is not None and not told:
            content = format_json(answer.to_dict(), indent=1)
            with place_file(self.report, overwrite=self.overwrite) as stream:
                stream.write(content.encode() + b"\n")
        if self.dfxml is not None:
            text = answer.recovery.to_dfxml(answer.written)
            with place_file(self.dfxml, overwrite=self.overwrite) as stream:
                stream.write(b"<?xml version='1.0' encoding='UTF-8'?>\n" + text.encode())


@dataclass(frozen=True, slots=True)
class Recovered:
    """What was got back, and the report on all of it."""

    recovery: ckptparse.Recovery
    written: ckptparse.Written | None
    maps: bool
    everything: bool
    replayed: ckptparse.Replay | None = None
    inputs: bool = False
    refused: ckptparse.UnsupportedError | None = None
    """Why nothing could be written, which is said below the report."""

    @property
    def left_out(self) -> int:
        """How many tensors could not be written."""
        return 0 if self.written is None else len(self.written.left_out)

    @property
    def code(self) -> int:
        """The exit code."""
        if self.refused is not None:
            return NOT_RUN
        if self.replayed is not None:
            return GOOD if self.replayed.same else DAMAGE
        if not self.recovery.whole or self.left_out:
            return DAMAGE
        return GOOD if self.recovery.untouched else WARNED

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        replayed = None if self.replayed is None else self.replayed.to_dict()
        return {**self.recovery.to_dict(self.written), "replay": replayed}

    def write(self, out: Output) -> None:
        """Write the report, and what became of it."""
        report = self.recovery.report
        saved = self.written is not None
        write_report(
            out,
            report,
            maps=self.maps,
            everything=self.everything,
            inputs=self.inputs,
            saved=saved,
        )
        counted = states_text(report.counts, len(report.tensors))
        got = f"got back {len(self.recovery):,} of {counted}"
        if self.written is not None and (self.written.withheld or self.written.left_out):
            got = f"wrote {len(self.written.digests):,} of {counted}"
        out.summary(f"{got}; {self._describe_written()}")
        if self.replayed is not None:
            _write_differences(out, self.replayed)
        if self.refused is not None:
            raise self.refused

    def _describe_written(self) -> str:
        written = self.written
        if written is None:
            return "nothing was written"
        where = f"in {escape(written.path)}"
        if written.format in _CALLED:
            where += f" ({_CALLED[written.format]})"
        if written.withheld:
            where += f"; {_left_out(written.withheld, 'not proved')} (--offer plausible)"
        if written.left_out:
            where += f"; {_left_out(written.left_out, 'impossible to write')}"
        return where


def _left_out(names: Collection[str], what: str) -> str:
    verb = "is" if len(names) == 1 else "are"
    return f"{len(names):,} that {verb} {what} {verb} left out"


def _write_differences(out: Output, replayed: ckptparse.Replay) -> None:
    """Say whether all came out as the report has it."""
    for one in replayed.differences:
        where = escape(one.tensor or one.path or "")
        out.record("difference", where, one.what, _brief(one.expected), _brief(one.found))
    if replayed.same:
        text = f"the same as in {escape(replayed.path)}"
        out.summary(f"{text}; the values of {replayed.compared:,} tensors were compared")
    else:
        count = len(replayed.differences)
        out.summary(f"{count:,} differences from {escape(replayed.path)}")


def _brief(value: Any) -> str:
    return json.dumps(value)[:80]
