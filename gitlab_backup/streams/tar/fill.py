"""What comes into new files: their data and their attributes, for large files by threads of their own.

Files are made by the thread that reads the archive, one after another, as it says. What is filled is an open file,
whatever its names are: so nothing has to wait for it. One that is replaced meanwhile is filled all the same, a hard
link leads to the same file, and no name is looked up that could lead elsewhere by now.
"""

from __future__ import annotations

import os
from queue import Queue
from threading import Thread
from typing import TYPE_CHECKING, Final

from attrs import define

from ..files import write_all
from .failures import failure

if TYPE_CHECKING:
    from .reader import Member

WORTH: Final = 128 << 10
"""Bytes from which on a file is handed to another thread. For a smaller one, that costs more than to fill it."""
_AHEAD: Final = 4
"""How many pieces, of at most 1 MiB, may wait for a thread."""
_MOST: Final = 2
"""How many threads the one that reads can keep busy."""


@define(eq=False)
class NewFile:
    """A file that is open, empty and without its attributes. `finish` or `close` it in the end."""

    member: Member
    fd: int
    owner: tuple[int, int]
    atime_ns: int
    at: int = 0

    def write(self, position: int, data: memoryview) -> None:
        """Write all of `data` from `position` on. Raises `OSError`."""
        if position != self.at:
            os.lseek(self.fd, position, os.SEEK_SET)
        self.at = position + len(data)
        write_all(self.fd, data)

    def finish(self) -> None:
        """Give it its size and its attributes, and close it. Raises `OSError` and `OverflowError`."""
        member, fd = self.member, self.fd
        try:
            if self.at != member.size:
                os.ftruncate(fd, member.size)
            if self.owner != (-1, -1):
                os.fchown(fd, *self.owner)
            os.fchmod(fd, member.mode)  # after the owner: a change of that takes bits away
            os.utime(fd, ns=(self.atime_ns, member.mtime_ns))
        finally:
            os.close(fd)

    def close(self) -> None:
        """Close it as it is: nobody needs it any more."""
        os.close(self.fd)


_Step = tuple[NewFile, int, "memoryview | None"]
"""A piece of a file and its place, or None where the file is complete."""


class Writers:
    """Fills files in threads, each file in one of them. They wait for nothing but the next piece.

    Memory is bounded: who has written some pieces that no thread has taken yet, waits. Nothing is filled any more from
    the first failure on.
    """

    def __init__(self, jobs: int) -> None:
        """Take as many threads as are left of `jobs`, which counts the one that reads; start them when needed."""
        self._count = min(jobs - 1, _MOST)
        self._queues: list[Queue[_Step | None]] = []
        self._threads: list[Thread] = []
        self._next = 0
        self._error: BaseException | None = None
        self._stopped = False

    def take(self, file: NewFile) -> FileOfWriter | NewFile:
        """Return what stands for `file` in this thread: itself, where no other thread is worth while."""
        if file.member.size < WORTH or self._count < 1:
            return file
        if len(self._queues) < self._count:
            waiting: Queue[_Step | None] = Queue(_AHEAD)
            thread = Thread(target=self._work, args=(waiting,), name="file writer", daemon=True)
            thread.start()
            self._queues.append(waiting)
            self._threads.append(thread)
        self._next = (self._next + 1) % len(self._queues)
        return FileOfWriter(self, self._queues[self._next], file)

    def check(self) -> None:
        """Raise what has gone wrong in a thread: `StreamError`, with the name of the member."""
        if self._error is not None:
            raise self._error

    def finish(self) -> None:
        """Wait until all files are filled. Raises what has gone wrong."""
        self._join()
        self.check()

    def stop(self) -> None:
        """Fill nothing any more."""
        self._stopped = True

    def close(self) -> None:
        """End the threads. What waits for them is only closed."""
        self.stop()
        self._join()

    def _join(self) -> None:
        for waiting in self._queues:
            waiting.put(None)
        for thread in self._threads:
            thread.join()
        self._queues, self._threads = [], []

    def _work(self, waiting: Queue[_Step | None]) -> None:
        while (step := waiting.get()) is not None:
            # Whoever waits to put something down must not wait for ever: all is taken, to the end.
            file, position, data = step
            try:
                if data is not None and not self._stopped:
                    file.write(position, data)
                elif data is None:
                    file.close() if self._stopped else file.finish()
            except (OSError, OverflowError) as error:
                told = failure(file.member, error)
                told.__cause__ = error
                self._fail(told)
            except BaseException as error:  # noqa: BLE001 - it surfaces in the thread that reads
                self._fail(error)

    def _fail(self, error: BaseException) -> None:
        self._error = self._error or error
        self.stop()


@define(eq=False)
class FileOfWriter:
    """Stands for a file that is filled by another thread."""

    _writers: Writers
    _waiting: Queue[_Step | None]
    _file: NewFile

    def write(self, position: int, data: memoryview) -> None:
        """Have `data` written; wait where too much is on its way. Raises what has gone wrong in a thread."""
        self._writers.check()
        self._waiting.put((self._file, position, data))

    def finish(self) -> None:
        """Have it finished."""
        self._waiting.put((self._file, 0, None))

    def close(self) -> None:
        """Have it closed, and nothing else filled."""
        self._writers.stop()
        self.finish()
