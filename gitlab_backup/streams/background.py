"""A stage of a stream in a thread of its own, so that the one before it need not wait."""

from __future__ import annotations

from queue import Queue
from threading import Thread
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from .sink import Buffer, Sink

_AHEAD: Final = 4
"""How many pieces may wait."""


class BackgroundSink:
    """Hands on to another sink, in a thread, what it is handed. What that raises is raised by the next call."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._waiting: Queue[Buffer | None] = Queue(_AHEAD)
        self._error: BaseException | None = None
        self._given_up = False
        self._thread: Thread | None = None

    def write(self, data: Buffer, /) -> None:
        """Take `data`; wait where too much is on its way."""
        if self._thread is None:
            self._thread = Thread(target=self._hand_on, name="background sink", daemon=True)
            self._thread.start()
        self._raise()
        self._waiting.put(data)

    def finish(self) -> None:
        """Wait until all of it is handed on, and finish the other sink."""
        self._end()
        self._raise()
        self._sink.finish()

    def abort(self) -> None:
        """Drop what waits, and abort the other sink."""
        self._given_up = True
        self._end()
        self._sink.abort()

    def _end(self) -> None:
        thread, self._thread = self._thread, None
        if thread is not None:
            self._waiting.put(None)
            thread.join()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _hand_on(self) -> None:
        while (data := self._waiting.get()) is not None:
            # Whoever waits to put something down must not wait for ever: all is taken, to the end.
            if self._error is not None or self._given_up:
                continue
            try:
                self._sink.write(data)
            except BaseException as error:  # noqa: BLE001 - it surfaces in the thread that writes
                self._error = error
