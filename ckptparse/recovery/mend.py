"""Get one payload back, by the surest method that the evidence supports.

A checksum proves bytes. Each method adds a chance of being wrong, and the status follows from it:
up to 1 in 1,000 is `corrected` or `derived`, more than that is `unverified`. A proof wins over a
guess: an `unverified` value is taken only if no method proves one. If the entry is not proved,
nothing about the tensor is.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from ckptparse.bundle.entry import count_elements
from ckptparse.coding.checksum import mask_crc
from ckptparse.crc.flips import HIGHEST_CHANCE
from ckptparse.dtypes import item_size
from ckptparse.errors import CheckpointError
from ckptparse.examination.case import ATTEMPT_BYTES
from ckptparse.examination.check import Check, check_payload
from ckptparse.examination.failed_rows import FailedRows
from ckptparse.examination.index_view import IndexView
from ckptparse.examination.outcome import (
    CHECKSUM_CHANCE,
    EvidenceRecord,
    Outcome,
    Span,
    merge_spans,
)
from ckptparse.examination.payload import Form, PartName, Payload
from ckptparse.examination.places import Place, is_telling
from ckptparse.examination.plausibility import looks_reversed
from ckptparse.examination.readers import PAGE, DataFiles
from ckptparse.problems import Cause, EvidenceRule, Status
from ckptparse.recovery.borrowing import Borrowing
from ckptparse.recovery.claims import SMALL_CHANGES, Way, rests_on_checksum
from ckptparse.recovery.copies import Copied, Copies
from ckptparse.recovery.gains import adds, count_plausible
from ckptparse.recovery.halves import offer_sides
from ckptparse.recovery.inferences import Inferrer
from ckptparse.recovery.matches import Matcher
from ckptparse.recovery.mended import (
    Mended,
    at_place,
    available_bytes,
    judged,
    recipe_of,
    whole_of,
    without_chance,
)
from ckptparse.recovery.offering import Offerer, withheld
from ckptparse.recovery.recipe import Recipe, read_payload
from ckptparse.recovery.seams import Seam, Seams, offer_torn, offer_unplaced
from ckptparse.recovery.siblings import Siblings
from ckptparse.recovery.splices import Splices
from ckptparse.recovery.statistics import SECTOR

__all__ = ["Mender", "as_verified", "untried"]

IntColumn = npt.NDArray[np.int64]

_NOT_TRIED = "no repair was tried, since more is damaged than Limits.attempts allows"
_NOT_LOOKED_AT = (
    "it was not looked for elements that look wrong, since more has no checksum than "
    "Limits.attempts allows"
)
_JUDGED = 2
"""Eighths of an attempt that it takes to compare the elements of a payload with each other."""
_EIGHTHS = 8
"""Eighths of an attempt that a repair takes. What ends with a proof, or finds no byte, takes one:
0.1 to 0.3 ms instead of up to 2."""


_COMPARED = 1 << 20
"""Bytes of a payload and of a copy of it that are compared: they are in memory together."""
_MOST_CHANGED = 2
"""Bytes of a stored checksum that damage may have changed, in an entry that is not proved."""
_NEARLY = "the damaged index may state it wrong, since most bytes of the two are the same"
_MAY_BE_OTHER = "the index may be of another save"


class Mender:
    """Mends the payloads of one checkpoint."""

    def __init__(
        self,
        files: DataFiles,
        matcher: Matcher,
        inferrer: Inferrer,
        offerer: Offerer,
        siblings: Siblings,
        *,
        copies: Copies,
        seams: Seams,
        splices: Splices,
        torn: IndexView | None,
        held: int,
        borrowing: Borrowing,
    ) -> None:
        """Take what finds bytes and values.

        Args:
            files: The data files.
            matcher: Finds bytes that have a checksum.
            inferrer: Finds values that follow from one.
            offerer: Offers what is there without more proof.
            siblings: The checkpoints beside.
            copies: Where damaged copies of data files are.
            seams: Finds tensors within which bytes were lost.
            splices: Tells which blocks of the index may be another checkpoint's.
            torn: The index, if it is damaged.
            held: Bytes of all files: how much work is reasonable.
            borrowing: Tells which bytes are not the checkpoint's own.
        """
        self._files = files
        self._held = held
        self._left = self._left_bytes = 0
        self._allow()
        self._trusts = self._borrows = True
        self._offers_lent = False
        self._borrowing = borrowing
        self._ways: Collection[Way] = ()
        self._matcher = matcher
        self._inferrer = inferrer
        self._offerer = offerer
        self._siblings = siblings
        self._copies = copies
        self._seams = seams
        self._splices = splices
        self._torn = torn

    def _allow(self) -> None:
        """Allow as much work as is reasonable."""
        attempts = self._files.context.limits.attempts
        self._left = _EIGHTHS * (attempts + self._held // ATTEMPT_BYTES)
        self._left_bytes = self._held + attempts * ATTEMPT_BYTES

    def distrust(
        self, ways: Collection[Way], *, values: bool, borrowed: bool, offers_lent: bool
    ) -> None:
        """From now on prove nothing by a checksum alone: the index may be of another save.

        Args:
            ways: How files are read, and how far from their places, so that others are whole.
            values: Whether no values, found or inferred by their checksums, are proved.
            borrowed: Whether no bytes of other files are.
            offers_lent: Whether these are more likely than what lies in their places.
        """
        self._trusts, self._borrows, self._ways = not values, not borrowed, ways
        self._offers_lent = offers_lent
        self._allow()

    @property
    def is_exhausted(self) -> bool:
        """Whether no more repairs are tried."""
        return self._left <= 0 or self._left_bytes <= 0

    def rows_elsewhere(
        self, rows: FailedRows, numbers: IntColumn, vanished: Collection[str]
    ) -> dict[int, Place]:
        """Return which of some rows that have failed need no repair, and where they lie instead.

        If the index is damaged, it is asked of each what describes it.

        Args:
            rows: Those that have failed.
            numbers: Which of them are looked for.
            vanished: Data files that may be taken from files that the caller named.
        """
        if self._torn is not None:
            return {}
        return self._matcher.rows_elsewhere(rows, numbers, vanished)

    def mend(self, name: PartName, payload: Payload | None, check: Check) -> Mended:
        """Get a payload back."""
        if payload is None:
            return Mended(check.outcome)
        if check.status is Status.VERIFIED:
            return as_verified(payload, check, self._name(payload.index))
        settled = payload.proved or payload.contested
        confirmed = None if settled else self._siblings.confirm(name, payload)
        if check.status is Status.UNVERIFIED and not payload.in_damaged_block:
            return self._unverified(payload, check, confirmed)
        if self._torn is None and payload.proved:
            elsewhere = self._matcher.find_elsewhere(payload)
            if elsewhere is not None and (
                self._trusts or not rests_on_checksum(elsewhere, payload, self._files, self._ways)
            ):
                return judged(elsewhere, payload, check)
        # Entries that share bytes make a small file cost as much as a large one.
        available = available_bytes(self._files, payload)
        self._left_bytes -= available
        if self._left <= 0 or self._left_bytes < 0:
            return self._untried(payload, check)
        found = self._best(name, payload, check, confirmed)
        tried = available or found.recipe is not None
        if check.cause is Cause.MIXED:
            # No change of a few bytes is tried.
            self._left -= _JUDGED
        else:
            self._left -= 1 if found.status.proved or not tried else _EIGHTHS
        return found

    def _best(
        self, name: PartName, payload: Payload, check: Check, confirmed: str | None
    ) -> Mended:
        """Return the first proof; else the first guess, else what is there."""
        guess: Mended | None = None
        claim: Mended | None = None
        trusts = self._trusts and self._inferrer.trusts(payload, check)
        for found in self._attempts(name, payload, check, confirmed):
            if not self._is_sound(found, payload):
                continue
            if (
                (not trusts and rests_on_checksum(found, payload, self._files, self._ways))
                or (not self._borrows and self._borrowing.is_borrowed(found, payload, self._ways))
                or self._borrowing.is_another_record(found, payload)
            ):
                if claim is None or (found.status.proved and not claim.status.proved):
                    claim = found
                continue
            if found.status.proved:
                return found
            guess = guess or found
        # A copy that fails says less than what agrees with the checksum.
        rest = self._rest(name, payload, check, copies=claim is None)
        odd = rest.outcome.suspect or not rest.recipe or self._matcher.is_converted(payload)
        # If runs of bytes look wrong, or all do, or the file was converted, one changed byte that
        # explains the checksum is chance.
        weak = odd and guess is not None and _is_small_change(guess)
        own = rest if guess is None or weak or _is_a_guess(guess, payload, rest) else guess
        if not odd and _is_checksum_damaged(payload, check):
            claim, own = None, rest.but(note=f"{rest.outcome.note}; {_NEARLY}")
        if claim is None:
            return own
        return self._claimed(payload, claim, own, check)

    def _claimed(self, payload: Payload, claim: Mended, own: Mended, check: Check) -> Mended:
        """Say of what is offered what the stored checksum asks for; offer that if nothing is.

        So is what its own file has elsewhere. If it is sure that the index is of another save, that
        one's value is not offered.
        """
        sure = not self._inferrer.trusts(payload, check)
        lent = self._offers_lent and self._borrowing.is_lent(claim, payload)
        moved = check.cause is Cause.SHIFTED and claim.recipe is not None
        nothing = own.recipe is None and (own.status is Status.UNVERIFIED or not sure)
        if lent or moved or nothing:
            note = "; ".join(filter(None, (without_chance(claim.outcome), _MAY_BE_OTHER)))
            outcome = replace(claim.outcome, status=Status.UNVERIFIED, chance=None, note=note)
            return replace(claim, outcome=outcome)
        value = self._inferrer.as_text(payload, claim) if claim.status.proved else None
        if value is None and sure:
            return own
        asked = "" if value is None else f", in which it is {value}"
        said = f"in the save that wrote the index it is {value}" if sure else _MAY_BE_OTHER + asked
        return own.but(note="; ".join(filter(None, (own.outcome.note, said))))

    def _attempts(
        self, name: PartName, payload: Payload, check: Check, confirmed: str | None
    ) -> Iterator[Mended]:
        """Iterate over what each method finds, judged."""
        # A sibling confirms name, dtype and shape, but not the checksum: matching bytes do that.
        proved = payload.proved or confirmed is None
        agreed = payload if proved else replace(payload, proved=True)
        in_doubt = False
        for found in self._matcher.find(name, payload, check):
            if found is None or (in_doubt and not self._is_moved(found, payload)):
                continue
            if self._is_spliced(found, payload):
                # What the index says of it is the other save's: the checksum proves nothing here.
                return
            own = _is_at_its_place(found, payload)
            known = judged(found, agreed if own else payload, check)
            doubted = self._doubted(known, payload)
            yield doubted
            # The stored checksum itself is in doubt then, so it proves nothing but own weights.
            in_doubt |= doubted is not known
        if in_doubt:
            return
        for found in self._inferrer.find(name, payload, check):
            if found is not None:
                yield judged(found, payload, check)

    def _is_moved(self, found: Mended, payload: Payload) -> bool:
        """Tell whether bytes are those of its own data files, moved, that hardly others are."""
        file = None if found.recipe is None else found.recipe.file
        rules = {record.rule for record in found.outcome.grounds}
        own = file is not None and self._borrowing.is_own(file.path)
        return own and EvidenceRule.SHIFTED in rules and is_telling(payload)

    def _is_sound(self, found: Mended, payload: Payload) -> bool:
        """Tell whether the record can be read from the block that was mended."""
        if payload.form is not Form.RECORD or found.recipe is None:
            return True
        try:
            read_payload(found.recipe, payload, self._files.context)
        except CheckpointError:
            return False
        return True

    def _untried(self, payload: Payload, check: Check) -> Mended:
        """Offer what takes no work, which is all bytes of a payload or none."""
        if check.status is Status.UNVERIFIED:
            told = check.because(check.cause, _untried_note(check))
            return self._unverified(payload, told, None)
        return untried(payload, check)

    # -- what needs no mending

    def _unverified(self, payload: Payload, check: Check, confirmed: str | None) -> Mended:
        ranges = check.outcome.ranges
        told = confirmed if check.cause is Cause.ENTRY else None
        # What the other checkpoint does not tell is the byte order, if the header is lost.
        if told is not None and not looks_reversed(self._files, payload):
            name = self._name(told)
            found = _as_read(payload, Status.VERIFIED, ranges)
            outcome = replace(
                found.outcome,
                method=f"comparing its entry with that in {name}",
                note=f"the index is damaged at its entry; {name} has the same entry",
                grounds=(EvidenceRecord(EvidenceRule.SAME_ENTRY, told),),
            )
            return replace(found, outcome=outcome)
        found = _as_read(payload, Status.UNVERIFIED, ranges)
        known = check.outcome
        outcome = replace(
            found.outcome,
            cause=known.cause or found.outcome.cause,
            note=known.note,
            grounds=known.grounds,
        )
        return self._marked(payload, Mended(outcome, found.recipe), check)

    def _marked(self, payload: Payload, found: Mended, check: Check) -> Mended:
        """Mark what looks wrong in a payload that is offered as it is."""
        if payload.in_damaged_block and self._left_bytes >= 0:
            return self._offerer.mark_record(payload, found, check)
        told = payload.crc32c is not None or payload.form in (Form.RECORD, Form.VARIANTS)
        if told or not payload.size or found.outcome.cause is not Cause.NO_CHECKSUM:
            return found
        self._left_bytes -= payload.size
        wild = self._left_bytes >= 0 and self._offerer.needs_judgement(payload)
        if self._left_bytes < 0 or (wild and self._left <= 0):
            return found.but(note=f"{found.outcome.note}; {_NOT_LOOKED_AT}")
        self._left -= _JUDGED * wild
        return self._offerer.mark(payload, found, judged=wild)

    def _doubted(self, found: Mended, payload: Payload) -> Mended:
        """Take the proof away if the damaged index may describe another checkpoint.

        If half of an index was overwritten with another one's, it states that one's checksums.
        """
        source = found.outcome.source
        if self._torn is None or source is None or not found.status.proved:
            return found
        if found.recipe is None or found.recipe.patches:
            return found
        if not self._siblings.may_have_written(self._torn, payload, source.path):
            return found
        doubt = "the index is damaged, and this part of it may describe that checkpoint instead"
        note = f"{found.outcome.note}; {doubt}" if found.outcome.note else doubt
        return found.but(status=Status.UNVERIFIED, note=note)

    def _is_spliced(self, found: Mended, payload: Payload) -> bool:
        """Tell whether the index says of the payload what the save says whose bytes were found."""
        source = found.outcome.source
        if source is None or not found.status.proved:
            return False
        if found.recipe is None or found.recipe.patches:
            return False
        return self._splices.may_hold(payload, source.path)

    # -- what is left

    def _rest(self, name: PartName, payload: Payload, check: Check, *, copies: bool) -> Mended:
        """Offer the bytes that are there without proof: all, some or none; those of copies too."""
        if check.status is Status.UNVERIFIED:
            return self._unverified(payload, check, None)
        found = (
            self._of_sibling(name, payload, check)
            or self._converted(name, payload, check)
            or self._beside_shifted(name, payload, check)
            or self._offerer.offer(payload, check)
        )
        if copies:
            found = self._copied(name, payload, check, found)
        if found.recipe is None:
            found = self._offered_undone(payload) or found
        return found

    def _of_sibling(self, name: PartName, payload: Payload, check: Check) -> Mended | None:
        """Offer bytes that are another checkpoint's, as its index says; None if they are not."""
        if check.computed is None or not is_telling(replace(payload, crc32c=check.computed)):
            return None
        for other in self._siblings.named(name, payload):
            if other.crc32c == check.computed:
                break
        else:
            return None
        note = (
            f"{check.outcome.note}; its bytes are those of {self._name(other.index)}, so the data "
            "file, or this part of it, is of that save"
        )
        found = at_place(payload, Status.UNVERIFIED, whole_of(payload)).but(
            cause=Cause.MIXED, note=note
        )
        grounds = (*check.outcome.grounds, EvidenceRecord(EvidenceRule.SAME_BYTES, other.index))
        recipe = replace(recipe_of(payload), crc=check.computed)
        return Mended(replace(found.outcome, grounds=grounds), recipe)

    def _beside_shifted(self, name: PartName, payload: Payload, check: Check) -> Mended | None:
        """Offer a payload beside others that lie out of their places; None if there are none."""
        seam = self._seams.find(payload)
        if seam is None:
            return None
        if not seam.lost:
            note = f"{check.outcome.note}; like its neighbours, it lies {seam.before:+,} bytes away"
            moved = Check(Outcome(Status.CORRUPT, Cause.SHIFTED, note=note))
            there = payload.moved(payload.file, seam.before)
            return self._offerer.offer(there, moved, moved=seam.before)
        torn = offer_torn(self._files, payload, seam, self._siblings.named(name, payload))
        if torn is not None:
            return torn
        where = "within it" if seam.tight else "within it or beside it"
        what = f"{abs(seam.lost):,} bytes were {'lost' if seam.lost > 0 else 'put in'}"
        note = (
            f"{check.outcome.note}; {what} {where}, and nothing tells where: the elements behind "
            "that place belong elsewhere, so all are suspect"
        )
        return offer_unplaced(self._files, payload, seam, note)

    def _converted(self, name: PartName, payload: Payload, check: Check) -> Mended | None:
        """Offer a payload of a file that was converted as it is once this is undone."""
        if payload.form is Form.RECORD:
            return None
        offered = []
        for place in self._matcher.converted(payload):
            there = place.of(payload)
            found = check_payload(self._files, there)
            # In the file as it is, others' bytes lie at its place.
            cut = found.cause is Cause.TRUNCATED
            note = f"{found.outcome.note or found.status}, after {place.method}"
            known = found.because(Cause.TRUNCATED if cut else Cause.TEXT, note)
            offered.append(self._offerer.offer(there, known, from_text=True))
        both = self._both_sides(name, payload, check)
        if both is not None:
            offered.append(both)
        if offered:
            return _doubted_behind_cuts(max(offered, key=count_plausible), offered, payload)
        if self._matcher.is_converted(payload):
            note = f"{check.outcome.note}; the file was converted, and damaged behind that"
            return withheld(payload, check.because(Cause.TEXT, note))
        return None

    def _both_sides(self, name: PartName, payload: Payload, check: Check) -> Mended | None:
        """Offer a payload within which a converted file was damaged; None if nothing tells."""
        sides = self._matcher.sides(payload)
        if sides is None:
            return None
        if sides.head is not None and sides.tail is not None and (sides.lost or 0) > 0:
            before, after = (one.offset - payload.offset for one in (sides.head, sides.tail))
            seam = Seam(before, after, sides.tail.end, tight=True)
            there = payload.moved(sides.head.file, 0)
            others = self._siblings.named(name, payload)
            torn = offer_torn(self._files, there, seam, others)
            if torn is not None:
                return torn.but(cause=Cause.TEXT)
        return offer_sides(self._files, payload, sides, check)

    def _copied(self, name: PartName, payload: Payload, known: Check, own: Mended) -> Mended:
        """Return what is offered at a payload's own place, or a copy of it that has more of it.

        A copy of the same bytes has no more of it: what is known of these holds for it, too.
        """
        best = own
        if count_plausible(own) == count_elements(payload.shape):
            return own
        for copy in self._copies.of_same_save(name, payload):
            there = copy.payload
            self._left_bytes -= available_bytes(self._files, there)
            if self._left_bytes < 0:
                break
            if self._are_equal(payload, there):
                continue
            check = check_payload(self._files, there)
            if check.status is Status.VERIFIED or self._of_sibling(name, there, check) is not None:
                # It was found before and is in doubt, or that part of the copy is another save's.
                continue
            offered = self._offerer.offer(there, check)
            if adds(self._files, offered, best, payload):
                best = self._as_copy(offered, copy, known)
        return best

    def _are_equal(self, payload: Payload, there: Payload) -> bool:
        """Tell whether the same bytes lie at a place of two files, and in the sectors around it.

        Of large payloads that is not asked.
        """
        low, high = payload.offset // SECTOR * SECTOR, -(-payload.end // SECTOR) * SECTOR
        plain = payload.file.undo is None and there.file.undo is None
        if not plain or payload.offset != there.offset or high - low > _COMPARED:
            return False
        ends = [min(high, self._files.size(one.file) or 0) for one in (payload, there)]
        size = ends[0] - low
        return (
            ends[0] == ends[1]
            and size > 0
            and (
                self._files.read(payload.file, low, size) == self._files.read(there.file, low, size)
            )
        )

    def _as_copy(self, offered: Mended, copy: Copied, known: Check) -> Mended:
        """Say of a payload of a copy where it is from, and what is wrong with its own place."""
        place = copy.payload.place
        ahead = f"{known.outcome.note}; " if known.outcome.note else ""
        where = f"at its place in a copy, {self._name(place.path)} ({copy.reason})"
        grounds = (EvidenceRecord.at(EvidenceRule.COPY, place), *offered.outcome.grounds)
        outcome = replace(
            offered.outcome,
            cause=known.cause,
            note=f"{ahead}{where}: {offered.outcome.note}",
            grounds=grounds,
        )
        return replace(offered, outcome=outcome)

    def _offered_undone(self, payload: Payload) -> Mended | None:
        """Offer what of a payload is there in an image, or in its file with stripes in order."""
        if payload.form is Form.RECORD:
            return None
        for place in self._matcher.undone(payload):
            there = place.of(payload)
            note = f"its bytes are not whole in {self._name(there.file.path)}"
            check = Check(Outcome(Status.CORRUPT, Cause.UNKNOWN, note=note))
            found = self._offerer.offer(there, check)
            if found.recipe is not None:
                return found
        return None

    def _name(self, path: str) -> str:
        return self._files.context.storage.split(path)[1]


def _doubted_behind_cuts(found: Mended, others: Sequence[Mended], payload: Payload) -> Mended:
    """Return what is offered; what lies where another way of reading ends is suspect.

    There the text is damaged: a page of it, or less.
    """
    width = item_size(payload.data_type) or 1
    cuts = [
        one.outcome.ranges[-1][1]
        for one in others
        if one is not found and one.outcome.cause is Cause.TRUNCATED and one.outcome.ranges
    ]
    doubt = [
        (max(start, cut - 1), min(stop, cut + PAGE // width))
        for cut in cuts
        for start, stop in found.outcome.ranges
    ]
    suspect = merge_spans([*found.outcome.suspect, *doubt])
    return replace(found, outcome=replace(found.outcome, suspect=suspect))


def _is_a_guess(found: Mended, payload: Payload, rest: Mended) -> bool:
    """Tell whether a number only fits a checksum that is not proved, and its bytes are there."""
    chance = found.outcome.chance
    there = rest.recipe is not None and not rest.outcome.suspect
    return there and not payload.proved and chance is not None and chance > HIGHEST_CHANCE


def _is_checksum_damaged(payload: Payload, check: Check) -> bool:
    """Tell whether an entry without proof states nearly the checksum of the bytes at its place.

    Two bytes of its four are the same by chance in one of 11,000.
    """
    if payload.proved or payload.crc32c is None or check.computed is None:
        return False
    differ = mask_crc(payload.crc32c) ^ mask_crc(check.computed)
    return sum(bool(differ >> shift & 0xFF) for shift in (0, 8, 16, 24)) <= _MOST_CHANGED


def untried(payload: Payload, check: Check) -> Mended:
    """Say of a payload that fails that nothing was tried, and offer no bytes."""
    return withheld(payload, check, _untried_note(check))


def _untried_note(check: Check) -> str:
    return f"{check.outcome.note or check.status}; {_NOT_TRIED}"


def as_verified(payload: Payload, check: Check, index: str) -> Mended:
    """Return the bytes of a payload that was found whole; `index` names what describes it."""
    found = _as_read(payload, Status.VERIFIED, check.outcome.ranges)
    if not payload.chance:
        return found
    method = f"correcting one bit of {index}"
    note = "one bit was flipped in the block that describes it"
    rules = {record.rule for record in payload.grounds}
    merged = EvidenceRule.MERGED in rules
    if rules.isdisjoint({EvidenceRule.MERGED, EvidenceRule.CORRECTED_ENTRY}):
        # The header of a V2 index says the byte order, the first entry of a V1 file the shapes.
        method = f"correcting the first block of {index}"
        note = (
            "the block that describes it is whole; the first block, on which all depend, was "
            "corrected"
        )
    if merged:
        method = f"merging damaged copies of {index}"
        note = "the block that describes it was put together from damaged copies"
    outcome = replace(
        found.outcome,
        status=Status.CORRECTED,
        cause=Cause.ENTRY if merged else Cause.BITS,
        method=method,
        chance=payload.chance,
        note=note,
        grounds=_agreeing(payload),
    )
    return replace(found, outcome=outcome)


def _as_read(payload: Payload, status: Status, ranges: tuple[Span, ...]) -> Mended:
    """Return the bytes at a payload's place; of a record that was kept in memory, its value."""
    record = payload.record
    if record is None or record.value is None:
        return at_place(payload, status, ranges)
    source = payload.place if payload.size else None
    return Mended(Outcome(status, source=source, ranges=ranges), Recipe(len(record.value)))


def _agreeing(payload: Payload) -> tuple[EvidenceRecord, ...]:
    """Return the evidence of bytes that have their checksum where they belong."""
    return (EvidenceRecord.at(EvidenceRule.CHECKSUM, payload.place, CHECKSUM_CHANCE),)


def _is_small_change(found: Mended) -> bool:
    """Tell whether bytes are those at their place, but for a few that were changed to fit."""
    return any(record.rule in SMALL_CHANGES for record in found.outcome.grounds)


def _is_at_its_place(found: Mended, payload: Payload) -> bool:
    """Tell whether bytes were found at the offset that the entry says.

    If damage copied another entry's checksum here, the bytes found are that entry's, at its offset.
    """
    source = found.outcome.source
    return source is not None and source.offset == payload.offset
