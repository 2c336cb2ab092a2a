"""One flag that stops everything that works together."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from ..errors import CancelledError, ExitStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


MAX_SILENCE: Final = 12 * 3600.0
"""Seconds. No step of a backup takes as long without a word, and a run that hangs has ended before the next night's."""


class Cancellation:
    """Asked for once, from any thread or a signal handler; noticed by every stage at its next step.

    What cannot look (a child process that blocks) registers a callback, which must be quick and must not raise.
    """

    def __init__(self, *, max_silence: float | None = MAX_SILENCE) -> None:
        """Have programs that work for this ended, too, when they have read and written nothing for so many seconds.

        None: they may be silent as long as they like.
        """
        self.max_silence = max_silence
        # Reentrant, because a signal handler may run in the middle of a method of its own thread.
        self._lock = threading.RLock()
        self._callbacks: list[Callable[[], None]] = []
        self._status: ExitStatus | None = None

    @property
    def requested(self) -> bool:
        """Whether the work is to stop."""
        return self._status is not None

    @property
    def status(self) -> ExitStatus | None:
        """What the request asked for; None while there is none."""
        return self._status

    def request(self, status: ExitStatus = ExitStatus.INTERRUPTED) -> None:
        """Stop the work. The first request counts."""
        with self._lock:
            if self._status is not None:
                return
            self._status = status
            callbacks = list(self._callbacks)
        for callback in callbacks:
            callback()

    def check(self) -> None:
        """Raise `CancelledError` if the work is to stop."""
        if self._status is not None:
            raise CancelledError(status=self._status)

    @contextmanager
    def part(self) -> Iterator[Cancellation]:
        """Make a cancellation for a part of the work, which a request for the whole reaches."""
        inner = Cancellation(max_silence=self.max_silence)
        with self.calling(lambda: inner.request(self._status or ExitStatus.INTERRUPTED)):
            yield inner

    @contextmanager
    def calling(self, callback: Callable[[], None]) -> Iterator[None]:
        """Have `callback` called on a request while the block runs; at once, if that was before."""
        with self._lock:
            self._callbacks.append(callback)
            late = self.requested
        try:
            if late:
                callback()
            yield
        finally:
            with self._lock:
                self._callbacks.remove(callback)
