"""A limit on how much is read in a second, shared by all that read."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from .cancel import Cancellation

LEAST: Final = 1 << 10
"""The lowest limit, in bytes a second. At a lower one, a piece of a file (1 MiB) would take longer than an hour."""
_SAVED: Final = 0.25
"""Seconds of the limit that an idle moment saves up. More would not be flat, less would lose what a wait overshoots."""
_SHORTEST: Final = 0.01
"""Seconds that are worth waiting. What is less is waited for later, with the next piece."""


class RateLimit:
    """A token bucket: who has read so many bytes waits until that many are due. For any number of threads.

    `rate` is in bytes a second. `clock` and `wait` are for tests: the first tells seconds, the second waits some.
    """

    def __init__(
        self,
        rate: int,
        *,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float, Cancellation], None] | None = None,
    ) -> None:
        self.rate = rate
        self._clock = clock
        self._wait = wait or _wait
        self._lock = threading.Lock()
        self._due = clock()
        """When what was read so far may have been read."""

    def take(self, count: int, cancel: Cancellation) -> None:
        """Wait until `count` bytes more, that have just been read, are due. Raises `CancelledError` on a request."""
        with self._lock:
            now = self._clock()
            self._due = max(self._due, now - _SAVED) + count / self.rate
            seconds = self._due - now
        if seconds >= _SHORTEST:
            self._wait(seconds, cancel)
        cancel.check()


def _wait(seconds: float, cancel: Cancellation) -> None:
    requested = threading.Event()
    with cancel.calling(requested.set):
        requested.wait(seconds)
