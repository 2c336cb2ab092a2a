"""What the operations share: work on several components at once, and tell about it."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING

from attrs import define, field

from ..errors import CancelledError, UsageError
from ..events import ComponentFinished, ComponentProgressed, ComponentStarted, ComponentWarned, Status
from ..sizes import readable_size
from ..streams.files import remedy
from ..streams.rate import LEAST, RateLimit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from concurrent.futures import Future

    from ..events import Event, Observer
    from ..streams.cancel import Cancellation

PROGRESS_INTERVAL = 0.1
"""Seconds between two progress events of one component, at the least."""

_LOOK = 1.0
"""Seconds after which the waiting thread looks up: a signal that came as it began to wait is only then noticed."""


def default_jobs() -> int:
    """Return how many things to do at once: as many as this process may use cores."""
    return len(os.sched_getaffinity(0))


def checked_rate(rate: int | None) -> int | None:
    """Return a limit in bytes a second. Raises `UsageError` for one at which nothing would come to its end."""
    if rate is not None and rate < LEAST:
        raise UsageError(
            f"cannot work at {rate} bytes a second",
            hint=f"A limit is at least {readable_size(LEAST)}: give it a unit, such as 50M.",
        )
    return rate


def limiter(rate: int | None) -> RateLimit | None:
    """Return what keeps all threads of a run together to a limit."""
    return None if rate is None else RateLimit(rate)


class Telling:
    """Hands events to the observer, one at a time."""

    def __init__(self, observer: Observer) -> None:
        self._observers = [observer]
        self._lock = threading.Lock()

    def also(self, observer: Observer) -> None:
        """From now on, hand events to another one as well."""
        self._observers.append(observer)

    def __call__(self, event: Event) -> None:
        """Hand one on."""
        with self._lock:
            for observer in self._observers:
                observer(event)


@define
class Tally:
    """The account of one component while it is worked on. Its methods may be called from several threads."""

    component: str
    tell: Callable[[Event], None]
    bytes_read: int = 0
    bytes_written: int = 0
    warnings: list[str] = field(factory=list)
    _started: float = field(factory=time.monotonic)
    _told: float = 0.0
    _lock: threading.Lock = field(factory=threading.Lock)

    def start(self, archiver: str) -> None:
        """Begin the work."""
        self._started = time.monotonic()
        self.tell(ComponentStarted(self.component, archiver))

    def progress(self, read: int, written: int) -> None:
        """Count bytes."""
        with self._lock:
            self.bytes_read += read
            self.bytes_written += written
            now = time.monotonic()
            if now - self._told < PROGRESS_INTERVAL:
                return
            self._told = now
            event = ComponentProgressed(self.component, self.bytes_read, self.bytes_written)
        self.tell(event)

    def warn(self, message: str) -> None:
        """Note what was left out, or is not as it was."""
        with self._lock:
            self.warnings.append(message)
        self.tell(ComponentWarned(self.component, message))

    @property
    def duration_seconds(self) -> float:
        """Seconds since the start, to the millisecond."""
        return round(time.monotonic() - self._started, 3)

    def finish(self, status: Status, reason: str | None = None) -> ComponentFinished:
        """Tell that the component is done, and how."""
        event = ComponentFinished(
            self.component, status, self.bytes_read, self.bytes_written, self.duration_seconds, reason
        )
        self.tell(event)
        return event


def hint_of(error: BaseException) -> str | None:
    """Return what to do about an error: what it says itself, or what is known of the system's error that it is of."""
    origin = error if isinstance(error, OSError) else error.__cause__
    return getattr(error, "hint", None) or (remedy(origin) if isinstance(origin, OSError) else None)


def run_all(tasks: Iterable[Callable[[], None]], *, jobs: int, cancel: Cancellation) -> None:
    """Run `tasks` in at most `jobs` threads, and return when all have ended. Each looks at `cancel` by itself.

    The first that raises cancels the others, and its error is the one raised here. What is raised in the waiting thread
    itself, such as a `KeyboardInterrupt`, cancels them too.
    """
    with ThreadPoolExecutor(max_workers=jobs, thread_name_prefix="component") as executor:
        pending: set[Future[None]] = {executor.submit(task) for task in tasks}
        first: BaseException | None = None
        try:
            while pending:
                done, pending = wait(pending, timeout=_LOOK, return_when=FIRST_COMPLETED)
                for future in done:
                    error = future.exception()
                    # What was cancelled follows from something else.
                    if error is not None and (first is None or isinstance(first, CancelledError)):
                        first = error
                        cancel.request()
        except BaseException:
            cancel.request()
            raise
    if first is not None:
        raise first
