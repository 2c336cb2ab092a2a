"""What runs side by side, and fails together."""

from __future__ import annotations

import threading

from ...errors import CancelledError
from ...streams.cancel import Cancellation


class Failures:
    """Keeps the first of several failures, and cancels what runs beside it."""

    def __init__(self, max_silence: float | None = None) -> None:
        self.cancel = Cancellation(max_silence=max_silence)
        """Is requested by the first failure."""
        self._lock = threading.Lock()
        self._first: BaseException | None = None

    def add(self, error: BaseException) -> None:
        """Take note of a failure. May be called by any thread."""
        with self._lock:
            # A cancellation follows from a failure, or from outside; it is never what went wrong first.
            if self._first is None or isinstance(self._first, CancelledError):
                self._first = error
        self.cancel.request()

    def raise_first(self) -> None:
        """Raise the first failure, if there was any."""
        if self._first is not None:
            raise self._first
