"""Sessions on one database that work side by side."""

from __future__ import annotations

import threading
from bisect import insort
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Final, Self

from attrs import define, field, frozen

from .failures import Failures

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import psycopg
    from psycopg.rows import TupleRow


@define(eq=False)
class Session:
    """One of several sessions."""

    connection: psycopg.Connection[TupleRow]
    settings: int = 0
    """How many of the settings of the dump have been made in it."""
    sorts_little: bool = False
    """Whether it sorts less at a time than the server allows."""


@frozen
class Locks:
    """What a statement locks: no other that locks one of these tables alone may run beside it, nor the reverse."""

    alone: frozenset[str] = frozenset()
    shared: frozenset[str] = frozenset()


_MOST_WAITING: Final = 200
"""Tasks that are looked through for one that can be done."""


@frozen(order=True)
class _Task:
    order: tuple[int, int]
    size: int = field(order=False)
    locks: Locks = field(order=False)
    work: Callable[[Session], None] = field(order=False, repr=False)


class Sessions:
    """Does tasks in several sessions, each in a thread of its own. The first failure ends all.

    Tasks whose locks conflict are done one after the other, in the order in which they came, if they are of one
    weight: heavier ones come first.
    """

    def __init__(self, connections: Sequence[psycopg.Connection[TupleRow]], room: int) -> None:
        self.failures = Failures()
        self._sessions = [Session(connection) for connection in connections]
        self._room = room
        self._changed = threading.Condition()
        self._waiting: list[_Task] = []
        self._running: list[_Task] = []
        self._held = 0  # bytes that tasks hold
        self._count = 0
        self._ended = False
        self._resources = ExitStack()
        self._threads = [
            threading.Thread(target=self._serve, args=[session], name="session") for session in self._sessions
        ]

    def __enter__(self) -> Self:
        """Begin to work."""
        self._resources.enter_context(self.failures.cancel.calling(self._interrupt))
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End. What has not begun is not done."""
        with self._changed:
            self._ended = True
            working = bool(self._running)
            self._changed.notify_all()
        if working:
            self._interrupt()
        for thread in self._threads:
            thread.join()
        self._resources.close()
        for session in self._sessions:
            session.connection.close()

    def submit(
        self, work: Callable[[Session], None], *, size: int = 0, weight: int = 0, locks: Locks | None = None
    ) -> None:
        """Have something done. Waits for room, if it holds `size` bytes of memory. Raises the first failure."""
        with self._changed:
            self._changed.wait_for(lambda: self._failed or self._has_room(size))
            if not self._failed:
                self._count += 1
                insort(self._waiting, _Task((-weight, self._count), size, locks or Locks(), work))
                self._held += size
                self._changed.notify_all()
                return
        self.failures.raise_first()
        self.failures.cancel.check()

    def wait(self) -> None:
        """Wait until all is done. Raises the first failure."""
        with self._changed:
            self._changed.wait_for(lambda: not self._running and (self._failed or not self._waiting))
        self.failures.raise_first()
        self.failures.cancel.check()

    def _has_room(self, size: int) -> bool:
        return len(self._waiting) < _MOST_WAITING and (not self._held or self._held + size <= self._room)

    @property
    def _failed(self) -> bool:
        return self.failures.cancel.requested

    def _interrupt(self) -> None:
        for session in self._sessions:
            with suppress(Exception):  # then it ends a little later
                session.connection.cancel()
        with self._changed:
            self._changed.notify_all()

    def _serve(self, session: Session) -> None:
        while (task := self._next()) is not None:
            try:
                task.work(session)
            except BaseException as error:  # noqa: BLE001 - raised by whoever waits
                self.failures.add(error)
            with self._changed:
                self._running.remove(task)
                self._held -= task.size
                self._changed.notify_all()

    def _next(self) -> _Task | None:
        with self._changed:
            while not (self._ended or self._failed):
                if (task := self._first_free()) is not None:
                    self._waiting.remove(task)
                    self._running.append(task)
                    return task
                self._changed.wait()
        return None

    def _first_free(self) -> _Task | None:
        """Return the first task that conflicts neither with those that run nor with those that wait before it."""
        alone = {table for task in self._running for table in task.locks.alone}
        shared = {table for task in self._running for table in task.locks.shared}
        for task in self._waiting:
            locks = task.locks
            if alone.isdisjoint(locks.alone | locks.shared) and shared.isdisjoint(locks.alone):
                return task
            alone |= locks.alone
            shared |= locks.shared
        return None
