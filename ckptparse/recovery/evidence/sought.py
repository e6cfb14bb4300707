"""What is sought in the files of the evidence: the payloads that are lost."""

from __future__ import annotations

from ckptparse.bundle.entry import count_elements
from ckptparse.crc.windows import Wanted
from ckptparse.examination.case import Case
from ckptparse.examination.payload import Form
from ckptparse.recovery.evidence.axes import TensorForm

__all__ = ["list_sought"]


def list_sought(case: Case) -> dict[Wanted, set[TensorForm]]:
    """Return the sizes and checksums of lost payloads; of plain tensors also what they are."""
    found: dict[Wanted, set[TensorForm]] = {}
    for _, part in case.held_parts():
        payload = part.payload
        if not part.is_lost or payload is None or payload.crc32c is None:
            continue
        forms = found.setdefault(Wanted(payload.size, payload.crc32c), set())
        count = count_elements(payload.shape)
        # Containers hold little-endian elements.
        if payload.form is Form.PLAIN and count and not payload.big_endian:
            forms.add(TensorForm(payload.shape, payload.size // count))
    return found
