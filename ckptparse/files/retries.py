"""Ask again after what may pass: answers 408, 429 and 5xx, resets, time-outs, bodies cut short.

The library that makes the requests can do this too, but does not say how often it did. So it makes
each request once, and what is asked again is counted here, and told to the logger `ckptparse.files`
at the level INFO.
"""

from __future__ import annotations

import logging
import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from ckptparse.locks import make_lock

if TYPE_CHECKING:
    import threading

__all__ = ["Retries", "is_refused"]

Result = TypeVar("Result")

_LOG = logging.getLogger("ckptparse.files")
_STATUS = re.compile(r"status(?: code)?: (\d{3})")
_PASSING = (408, 429)
"""Answers below 500 after which to ask again: too slow, too often."""
_REFUSED = "ConnectionRefused"
_NEVER = ("Failed to parse", "UnexpectedRange", "kind: Redirect", _REFUSED)
"""What is said of what will be no better next time: an answer that lies, or leads in a circle;
nobody listens there."""


@dataclass(slots=True)
class Retries:
    """How requests are made again, and how often that was.

    Attributes:
        most: How often one is made again.
        within: Seconds after the first in which another one is begun.
        first: Seconds of the first pause; each is twice as long as the one before.
        longest: Seconds of a pause at most.
        count: How many requests were made again, of all files.
    """

    most: int
    within: float
    first: float
    longest: float
    count: int = 0
    _lock: threading.Lock = field(default_factory=make_lock)

    def insist(self, path: str, request: Callable[[], Result]) -> Result:
        """Make a request until it gets an answer; raises what the last one raised."""
        begun = time.monotonic()
        number = 0
        while True:
            try:
                return request()
            except Exception as error:
                number += 1
                # Not all of many that failed together are to come together again.
                pause = min(self.first * 2 ** (number - 1), self.longest)
                pause *= random.uniform(0.5, 1)  # noqa: S311 - nothing is to be kept secret
                late = time.monotonic() + pause - begun > self.within
                reason = _reason(error)
                if reason is None or number > self.most or late:
                    raise
            with self._lock:
                self.count += 1
            _LOG.info("asking again (%d of %d) after %s: %s", number, self.most, reason, path)
            time.sleep(pause)


def is_refused(error: Exception) -> bool:
    """Tell whether nobody listens at the address: the library's text says so, in Rust's words."""
    return type(error).__name__ == "GenericError" and _REFUSED in str(error)


def _reason(error: Exception) -> str | None:
    """Return what failed, if it may be better next time; None if it will not be.

    The library has one class for all of this, and only its text says more. It is not handed on: it
    may have a password.
    """
    if type(error).__name__ != "GenericError":
        return None
    text = str(error)
    found = _STATUS.search(text)
    if found is None:
        return None if any(word in text for word in _NEVER) else "a failed connection"
    status = int(found[1])
    return f"answer {status}" if status in _PASSING or status >= 500 else None
