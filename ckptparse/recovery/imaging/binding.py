"""What tells one image from another, and from itself before it was changed."""

from __future__ import annotations

from hashlib import sha256

from ckptparse.files.storage import Source, Storage
from ckptparse.files.views import JoinedSource

__all__ = ["identify_image"]

_SAMPLES, _SAMPLE_BYTES = 128, 512
"""Places of an image that are compared, and bytes at each: of a disk they take a second or two."""


def identify_image(image: Source, storage: Storage, path: str) -> str:
    """Return hexadecimal digits that are others for another image, or if this one has changed.

    They are made of its size, of what the storage says by which a file's content is told from a
    former one (its time and number, an ETag), and of samples of its bytes: a device has no such
    time. Of a directory each file counts.
    """
    paths = [path]
    if isinstance(image, JoinedSource):
        sources = (part.source for part in image.places(0, image.size))
        paths = [source.path for source in sources if source is not None]
    digest = sha256(repr(image.size).encode())
    for one in paths:
        status = storage.stat(one)
        digest.update(repr(status and (status.size, status.identity)).encode())
    step = max(1, image.size // _SAMPLES)
    for start in range(0, image.size, step):
        digest.update(image.read_at(start, min(_SAMPLE_BYTES, step, image.size - start)))
    return digest.hexdigest()
