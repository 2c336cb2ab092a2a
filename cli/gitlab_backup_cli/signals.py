"""SIGINT, SIGTERM and SIGHUP end the command in order: what runs is cancelled, what waits is left.

SIGUSR1 asks how far it is.
"""

from __future__ import annotations

import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

from gitlab_backup.errors import ExitStatus
from gitlab_backup.streams.cancel import MAX_SILENCE, Cancellation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType, TracebackType

_STATUS = {
    signal.SIGINT: ExitStatus.INTERRUPTED,
    signal.SIGTERM: ExitStatus.TERMINATED,
    # The terminal is gone: nobody is there any more who could see what comes.
    signal.SIGHUP: ExitStatus.TERMINATED,
}


class Stopped(BaseException):
    """A signal came while there was nothing to put back. As with `KeyboardInterrupt`, nobody catches it."""

    def __init__(self, status: ExitStatus) -> None:
        super().__init__(status)
        self.status = status


class Signals:
    """The handlers of the signals that end the command, as long as the context lasts."""

    def __init__(self) -> None:
        self.status: ExitStatus | None = None
        """What the first signal means; None as long as there was none."""
        self.asked: Callable[[], None] = lambda: None
        """What is done on SIGUSR1, between any two steps of the main thread."""
        self._operation: Cancellation | None = None
        self._waiting = False
        self._before: dict[int, object] = {}

    def __enter__(self) -> Self:
        for number in _STATUS:
            # What was started with a signal ignored (`nohup`, a job in the background) keeps ignoring it.
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._handle)
        self._before[signal.SIGUSR1] = signal.signal(signal.SIGUSR1, lambda _number, _frame: self.asked())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def operation(self, *, max_silence: float | None = MAX_SILENCE) -> Cancellation:
        """Have the signals cancel an operation from now on, however often they come; see `Cancellation`.

        That also holds for what comes after it, so that the result of an operation that was not cancelled is told.
        """
        self._operation = Cancellation(max_silence=max_silence)
        return self._operation

    @contextmanager
    def starting(self) -> Iterator[Cancellation]:
        """Have a signal cancel the block, so that it ends what it has started, and then end the command: `Stopped`."""
        self._operation = Cancellation()
        try:
            yield self._operation
        finally:
            self._operation = None
            if self.status is not None:
                raise Stopped(self.status)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Have a signal end the block at once, also within an operation: it waits for a person. Raises `Stopped`."""
        self._waiting = True
        try:
            if self.status is not None:
                raise Stopped(self.status)
            yield
        finally:
            self._waiting = False

    def _handle(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        self.status = self.status or _STATUS[signal.Signals(number)]
        if self._operation is not None:
            self._operation.request(self.status)
        if self._operation is None or self._waiting:
            raise Stopped(self.status)
