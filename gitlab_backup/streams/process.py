"""Programs in a pipeline: the one way they are run, fed, read from, and ended.

A program gets a session of its own, no shell, and only the descriptors it needs. The calling thread moves its output
into a sink, and keeps the end of what it complains of; a thread feeds it what does not fit into a pipe at once. When
`run` returns or raises, the program and all that is left of its process group are gone.
"""

from __future__ import annotations

import math
import os
import select
import signal
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, BinaryIO, Final, Self, TypeAlias, cast

from attrs import field, frozen

from ..errors import ProgramError
from .profile import Clock, output_of
from .starting import PIPE_SIZE, start

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping
    from pathlib import Path

    from .accounts import Account
    from .cancel import Cancellation
    from .sink import Buffer, Sink

Input: TypeAlias = "BinaryIO | bytes | Iterable[bytes] | None"

_LOOK: Final = 1.0
"""Seconds between two looks around. A signal that came just before a wait is only handled after it."""
_LAST_WORDS: Final = 16 << 10
"""Bytes of stderr that are kept."""
_LAST_LINES: Final = 10
"""Lines of them that a message shows."""
_PERSUASION: Final = ((signal.SIGINT, 1.0), (signal.SIGTERM, 4.0))
"""What a program is told when it has to end, and the seconds that it gets for it; then it is killed."""
_STRAGGLER: Final = 1.0
"""Seconds to wait for the end of stderr, which a daemon that left the process group may hold open for ever."""


@frozen
class Program:
    """What to run: its arguments (the first is the program), the whole of its environment, as whom, and where.

    An account other than this process's own needs the right to become it (root).
    """

    arguments: tuple[str, ...]
    environment: Mapping[str, str] = field(repr=False)
    account: Account | None = None
    directory: Path | None = None

    @property
    def name(self) -> str:
        """What messages call it."""
        return os.path.basename(self.arguments[0])  # noqa: PTH119 - not always a path


@frozen
class Completed:
    """How a program ended: its status, as in `subprocess`, and the last 16 KiB of its stderr."""

    returncode: int
    stderr: str


def run(
    program: Program,
    *,
    stdin: Input = None,
    stdout: Sink | None = None,
    cancel: Cancellation,
    accept: Collection[int] = (0,),
    timeout: float | None = None,
    silence: float | None = None,
) -> Completed:
    """Run a program to its end, moving its output into `stdout`, which is neither finished nor aborted here.

    `stdin` is data, an iterable of pieces of it, or a file: a raw one (`open(…, buffering=0)`) is handed to the program
    itself, any other is read here, in a thread. A program that does not read all of it decides by its status whether
    that is an error. Where reading it raises, the program is ended without having seen an end of its input.

    Raises `ProgramNotFoundError`; `ProgramError` for a status that is not in `accept`, after `timeout` seconds, or when
    it has read and written nothing for `silence` seconds (default: what `cancel` allows); `CancelledError` on a
    request; and what `stdin` and `stdout` raise.
    """
    cancel.check()
    silence = cancel.max_silence if silence is None else silence
    with _Bell() as stop:
        running = _Running(program, stdin=stdin, stdout=stdout, stop=stop, timeout=timeout, silence=silence)
        try:
            with cancel.calling(stop.ring):
                running.follow(cancel)
        finally:
            running.end()
    # What was asked for or went wrong while the program was ending anyway counts, too.
    cancel.check()
    if running.producer_error is not None:
        raise running.producer_error
    if running.lost:
        raise ProgramError(f"{program.name} has ended, but its status was lost", hint="Do not ignore SIGCHLD.")
    completed = Completed(running.returncode, running.last_words)
    if completed.returncode not in accept:
        raise ProgramError(_failure(program, completed), returncode=completed.returncode)
    return completed


def capture(
    program: Program,
    *,
    stdin: Input = None,
    cancel: Cancellation,
    accept: Collection[int] = (0,),
    timeout: float | None = None,
    limit: int = 64 << 20,
) -> tuple[Completed, bytes]:
    """Run a program as `run` does, and return its output, too. More than `limit` bytes of it are a `ProgramError`."""
    output = _Output(program, limit)
    completed = run(program, stdin=stdin, stdout=output, cancel=cancel, accept=accept, timeout=timeout)
    return completed, bytes(output.data)


class _Running:
    """One program, from its start to its end."""

    def __init__(
        self,
        program: Program,
        *,
        stdin: Input,
        stdout: Sink | None,
        stop: _Bell,
        timeout: float | None,
        silence: float | None,
    ) -> None:
        self._program = program
        self._sink = stdout
        self._stop = stop
        self._timeout = timeout
        self._deadline = math.inf if timeout is None else time.monotonic() + timeout
        self._silence = math.inf if silence is None else silence
        self._heard = time.monotonic()
        """When it last read or wrote something."""
        self.producer_error: BaseException | None = None
        self.returncode = 0
        self.lost = False
        self._stderr = b""
        self._feeder: threading.Thread | None = None
        self._child = start(program, stdin, piped=stdout is not None)
        try:
            self._exited = _exit_of(self._child.pid)
            self._words = self._child.stderr
            if self._child.stdin is not None:
                self._begin_to_feed(self._child.stdin.fileno(), stdin)
        except BaseException:
            self._child.kill()
            self._child.wait()
            raise

    @property
    def last_words(self) -> str:
        return self._stderr.decode(errors="replace")

    def follow(self, cancel: Cancellation) -> None:
        """Move the output until its end, then wait for the program's. Raises where it has to be ended."""
        if self._sink is not None and self._child.stdout is not None:
            output = self._child.stdout.fileno()
            # Until the program has ended and the pipe is empty: what it leaves behind may hold the other end for long.
            # Fresh bytes for each write: sinks may keep them.
            while data := self._next(output, cancel):
                self._sink.write(data)
                # Only now: a sink may block for long, and is none of the program's silence.
                self._heard = time.monotonic()
        self._await(self._exited, cancel)

    def end(self) -> None:
        """End the program if it still runs, and all of its process group. Afterwards nothing is left of it."""
        child = self._child
        if child.stdout is not None:
            child.stdout.close()
        for number, seconds in _PERSUASION:
            # Until it is reaped, its id cannot become that of another process group.
            if self._has_exited(0):
                break
            self._signal(number)
            self._has_exited(seconds)
        self._signal(signal.SIGKILL)
        self._has_exited(math.inf)
        self.returncode = child.wait()
        os.close(self._exited)
        self._stop.ring()
        if self._feeder is not None:
            self._feeder.join()
        if child.stdin is not None:
            child.stdin.close()
        until = time.monotonic() + _STRAGGLER
        while self._words is not None and (left := until - time.monotonic()) > 0:
            self._look((), left)
        if child.stderr is not None:
            child.stderr.close()

    def _next(self, output: int, cancel: Cancellation) -> bytes:
        with Clock(output_of(self._program.name)) as clock:
            data = os.read(output, PIPE_SIZE) if self._await(output, cancel) else b""
            clock.bytes = len(data)
        return data

    def _await(self, fd: int, cancel: Cancellation) -> bool:
        """Wait until `fd` can be read (True) or the program has ended. Raises where it has to be ended before that."""
        fds = (fd, self._exited, self._stop.fd)
        while not (ready := self._look(fds, min(self._deadline - time.monotonic(), _LOOK))):
            now = time.monotonic()
            if now >= self._deadline:
                raise ProgramError(f"{self._program.name} did not end within {self._timeout:g} seconds")
            if now >= self._heard + self._silence:
                raise ProgramError(
                    f"{self._program.name} has read and written nothing for {self._silence:g} seconds, and was ended",
                    hint="It may have waited for a lock, a server or a disk: look at their logs of that time. If it was"
                    " at work, give it longer with --max-silence.",
                )
        if self._stop.fd in ready:
            cancel.check()
            if self.producer_error is not None:
                raise self.producer_error
        return fd in ready

    def _signal(self, number: signal.Signals) -> None:
        if self.lost:
            return
        # It is gone already, or has become another user whom this one may not signal.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._child.pid, number)

    def _has_exited(self, seconds: float) -> bool:
        """Wait for the end of the program, so long, and take note where its status is lost."""
        until = time.monotonic() + seconds
        while self._exited not in self._look((self._exited,), min(until - time.monotonic(), _LOOK)):
            if time.monotonic() >= until:
                return False
        try:
            os.waitid(os.P_PID, self._child.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
        except ChildProcessError:
            # SIGCHLD is ignored, or someone else has taken the status. Its id may be another's by now.
            self.lost = True
        return True

    def _look(self, fds: Iterable[int], seconds: float) -> set[int]:
        """Wait until one of these descriptors can be read, or something is said, which is kept. Return all that can."""
        words = self._words
        if words is None:
            return _ready(fds, seconds)
        ready = _ready((*fds, words.fileno()), seconds)
        if words.fileno() in ready:
            ready.discard(words.fileno())
            if data := os.read(words.fileno(), _LAST_WORDS):
                self._stderr = (self._stderr + data)[-_LAST_WORDS:]
                self._heard = time.monotonic()
            else:
                self._words = None
        return ready

    def _begin_to_feed(self, pipe: int, stdin: Input) -> None:
        """Put what fits into the pipe, and have a thread see to the rest."""
        os.set_blocking(pipe, False)
        if isinstance(stdin, bytes):
            with suppress(BlockingIOError):
                try:
                    stdin = stdin[os.write(pipe, stdin) :]
                except BrokenPipeError:
                    stdin = b""
            if not stdin:
                cast("BinaryIO", self._child.stdin).close()
                return
        self._feeder = _thread(self._feed, _pieces(stdin))

    def _feed(self, pieces: Iterable[bytes]) -> None:
        pipe = cast("BinaryIO", self._child.stdin)
        try:
            for piece in pieces:
                view = memoryview(piece).cast("B")
                while view:
                    if self._stop.fd in _ready([self._stop.fd], None, writable=pipe.fileno()):
                        return
                    try:
                        written = os.write(pipe.fileno(), view)
                    except BrokenPipeError:
                        return  # Nobody reads on. Whether that is an error, the exit status will say.
                    view = view[written:]
                    self._heard = time.monotonic()
        except BaseException as error:  # noqa: BLE001 - it surfaces in the calling thread
            # The pipe stays open until the program is dead: to see an end here, it would take the rest for complete.
            self.producer_error = error
            self._stop.ring()
        else:
            pipe.close()


def _exit_of(pid: int) -> int:
    """Return a descriptor that can be read when the child `pid` has ended: by pidfd_open(2), else by a thread."""
    with suppress(OSError):  # before Linux 5.3; and where the child is gone already, as its status is lost
        return os.pidfd_open(pid)
    exited = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def wait() -> None:
        with suppress(ChildProcessError):
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        os.eventfd_write(exited, 1)

    _thread(wait)
    return exited


class _Bell:
    """Rung once, it is heard by every thread that waits. May be rung by a signal handler, and when it is closed."""

    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        # A late ring must not write to what has got the same number since. Reentrant: see `Cancellation`.
        self._lock = threading.RLock()
        self._closed = False

    def ring(self) -> None:
        with self._lock:
            if not self._closed:
                os.eventfd_write(self.fd, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._closed = True
        os.close(self.fd)


class _Output:
    """Keeps what is written to it, up to a limit."""

    def __init__(self, program: Program, limit: int) -> None:
        self.data = bytearray()
        self._program = program
        self._limit = limit

    def write(self, data: Buffer, /) -> None:
        if len(self.data) + len(data) > self._limit:
            raise ProgramError(f"{self._program.name} wrote more than the {self._limit} bytes that are expected of it")
        self.data += data

    def finish(self) -> None:
        """Nothing is left to do."""

    def abort(self) -> None:
        """Nothing is left to do."""


def _pieces(stdin: Input) -> Iterable[bytes]:
    if isinstance(stdin, bytes):
        return (stdin,)
    if hasattr(stdin, "read"):
        file = cast("BinaryIO", stdin)
        return iter(lambda: file.read(PIPE_SIZE), b"")
    return cast("Iterable[bytes]", stdin)


def _ready(readable: Iterable[int], seconds: float | None, *, writable: int | None = None) -> set[int]:
    """Wait until one of these descriptors can be read, or that one be written, and return all that can."""
    poll = select.poll()
    for fd in readable:
        poll.register(fd, select.POLLIN)
    if writable is not None:
        poll.register(writable, select.POLLOUT)
    return {number for number, _ in poll.poll(None if seconds is None else max(0.0, seconds) * 1000)}


def _thread(target: Callable[..., None], *arguments: object) -> threading.Thread:
    thread = threading.Thread(target=target, args=arguments, daemon=True)
    thread.start()
    return thread


def _failure(program: Program, completed: Completed) -> str:
    code = completed.returncode
    if code < 0:
        try:
            how = f"was killed by signal {signal.Signals(-code).name}"
        except ValueError:
            how = f"was killed by signal {-code}"
    else:
        how = f"failed with status {code}"
    lines = [line for line in completed.stderr.splitlines() if line.strip()]
    # A program may say why at first, and show much of what it was doing then.
    cause = [line for line in lines[:-_LAST_LINES] if "error:" in line][:1]
    lines = cause + lines[-_LAST_LINES:]
    return f"{program.name} {how}" + (": " + "\n".join(lines) if lines else "")
