"""Reading ahead: a stage of a stream that is read from, in a thread of its own. The other way round: `background`."""

from __future__ import annotations

import io
from contextlib import suppress
from queue import Empty, Queue
from threading import Thread
from typing import TYPE_CHECKING, BinaryIO, Final, cast

if TYPE_CHECKING:
    from .sink import Buffer

_PIECE: Final = 1 << 20
_AHEAD: Final = 4
"""How many pieces may wait to be read."""


def read_ahead(source: BinaryIO) -> BinaryIO:
    """Return a readable stream of what is in `source`, which is read by another thread, a few pieces ahead.

    What that raises is raised in the place where it was met. Closing it closes `source`, which may have been read
    further than the stream was.
    """
    return cast("BinaryIO", io.BufferedReader(_ReadAhead(source), _PIECE))


class _ReadAhead(io.RawIOBase):
    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self._waiting: Queue[bytes | BaseException] = Queue(_AHEAD)
        self._piece = memoryview(b"")
        self._end: bytes | BaseException | None = None
        self._given_up = False
        self._thread: Thread | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Buffer, /) -> int:  # type: ignore[override]
        if self._thread is None:
            self._thread = Thread(target=self._read, name="read ahead", daemon=True)
            self._thread.start()
        if not self._piece and self._end is None:
            piece = self._waiting.get()
            if isinstance(piece, bytes) and piece:
                self._piece = memoryview(piece)
            else:
                self._end = piece
        if isinstance(self._end, BaseException):
            raise self._end
        size = min(len(buffer), len(self._piece))
        memoryview(buffer)[:size] = self._piece[:size]
        self._piece = self._piece[size:]
        return size

    def close(self) -> None:
        if not self.closed:
            self._given_up = True
            # Whoever waits to put something down must not wait for ever.
            while self._thread is not None and self._thread.is_alive():
                with suppress(Empty):
                    self._waiting.get(timeout=0.01)
            self._source.close()
        super().close()

    def _read(self) -> None:
        try:
            while not self._given_up and (piece := self._source.read(_PIECE)):
                self._waiting.put(piece)
        except BaseException as error:  # noqa: BLE001 - it surfaces in the thread that reads on
            self._waiting.put(error)
        else:
            self._waiting.put(b"")
