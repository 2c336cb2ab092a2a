"""A limit on what is read in a second: with a clock of the test's own, nothing has to be waited for."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from attrs import define, field

from gitlab_backup.errors import CancelledError, ExitStatus
from gitlab_backup.streams.cancel import Cancellation
from gitlab_backup.streams.rate import RateLimit

RATE = 1 << 20


@define
class Clock:
    """A time that only goes on while somebody waits, or is made to."""

    now: float = 1000.0
    waits: list[float] = field(factory=list)

    def wait(self, seconds: float, _cancel: Cancellation) -> None:
        self.waits.append(seconds)
        self.now += seconds

    def limit(self) -> RateLimit:
        return RateLimit(RATE, clock=lambda: self.now, wait=self.wait)


def test_it_is_flat() -> None:
    """However large the pieces are, so much is read in so long, and never much more in the beginning."""
    for size, count in ((RATE * 2, 5), (RATE // 4, 40), (100, 100_000)):
        clock = Clock()
        limit = clock.limit()
        for number in range(1, count + 1):
            limit.take(size, Cancellation())
            assert abs(clock.now - 1000 - number * size / RATE) < 0.011


def test_idle_times_save_little() -> None:
    """After a long time without reading, no more than a quarter of a second's share comes at once."""
    clock = Clock()
    limit = clock.limit()
    clock.now += 3600
    limit.take(RATE, Cancellation())
    assert [0.75] == clock.waits


def test_one_for_all() -> None:
    """Several who read share one limit: each waits for what all have read."""
    clock = Clock()
    first, second = Cancellation(), Cancellation()
    limit = RateLimit(RATE, clock=lambda: 1000.0, wait=clock.wait)
    limit.take(RATE, first)
    limit.take(RATE, second)
    limit.take(RATE, first)
    assert [1.0, 2.0, 3.0] == clock.waits


def test_a_request_ends_the_wait() -> None:
    """Who waits for hours ends at once when it is asked to stop; so does who comes later, with nothing to wait for."""
    limit, cancel = RateLimit(1), Cancellation()
    with ThreadPoolExecutor(1) as executor:
        waiting = executor.submit(limit.take, 1 << 20, cancel)
        cancel.request(ExitStatus.TERMINATED)
        with pytest.raises(CancelledError) as caught:
            waiting.result(timeout=60)
    assert ExitStatus.TERMINATED is caught.value.exit_status
    with pytest.raises(CancelledError):
        RateLimit(RATE).take(1, cancel)
