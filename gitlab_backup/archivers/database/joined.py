"""Several runs of pg_dump on one snapshot, whose outputs become one dump.

One run dumps everything but the rows of some large tables; others dump these rows. COPY takes rows in as many
statements as one likes: so the rows are passed on in pieces, each with a COPY statement of its own, and the pieces of
all runs take turns. Nothing is written twice, and no run waits for the end of a table of another.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from attrs import frozen

from ...errors import ComponentError
from ...streams.process import run
from .failures import Failures
from .scanner import DumpScanner, ScanningSink

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import Future

    from ...streams.cancel import Cancellation
    from ...streams.process import Program
    from ...streams.sink import Buffer, Sink
    from .sql import Statement

_END_OF_ROWS: Final = b"\\.\n"


@frozen
class Dumped:
    """What is to be said of a finished dump."""

    size: int
    """Bytes, before compression."""
    rows: dict[str, int]
    """By table."""
    messages: str
    """What pg_dump wrote on its standard error."""


class JoinedDump:
    """The one dump that all runs write into."""

    def __init__(self, sink: Sink, piece: int) -> None:
        self.turn = threading.Lock()
        """Held by the run that writes."""
        self.size = 0
        """Bytes written."""
        self.piece = piece
        """Bytes of rows that a run collects before it takes its turn."""
        self._sink = sink

    def write(self, *parts: bytes) -> None:
        """Append. The caller has the turn, or is the only one who runs."""
        for part in parts:
            self._sink.write(part)
            self.size += len(part)


class _Run(DumpScanner):
    """Takes the output of one pg_dump. The base of the two kinds."""

    def __init__(self, joined: JoinedDump) -> None:
        super().__init__()
        self._joined = joined
        self._data = b""
        self._start = 0  # the byte of the dump that this data begins at
        self._told = 0  # the byte up to which the text outside of rows has been dealt with
        self._text = b""  # such text of earlier data
        self._opening = b""  # what begins the next piece
        self._again = b""  # what begins the one after it
        self._rows: list[bytes] = []
        self._length = 0
        self._within = False  # whether a row is too long to be collected, and is passed on as it comes

    def write(self, data: Buffer, /) -> None:
        """Take the next bytes of the output."""
        self._data, self._start = bytes(data), self.size
        self.feed(self._data)
        if self._reader.table is None:
            self.rest()

    def finish(self) -> None:
        """Leave what is below open."""

    def abort(self) -> None:
        """Let the others have the turn."""
        if self._within:
            self._within = False
            self._joined.turn.release()

    def rest(self) -> None:
        """Deal with the end of the data, which is outside of rows."""
        self._text = self.text(self.size)

    def text(self, end: int) -> bytes:
        """Return the text outside of rows that ends at this byte, from where it was last dealt with."""
        text = self._text + self._data[self._told - self._start : end - self._start]
        self._text, self._told = b"", end
        return text

    def begin_rows(self, statement: Statement) -> None:
        """Begin the rows of a table. The first piece keeps the comments that pg_dump writes above it."""
        self._opening, self._again = self.text(self._reader.position), statement.text + b";\n"

    def take(self, data: bytes) -> None:
        """Collect rows, and pass them on when they are enough."""
        if self._within:
            end = data.find(b"\n") + 1
            if not end:
                self._joined.write(data)
                return
            self._joined.write(data[:end], _END_OF_ROWS)
            self.abort()
            data = data[end:]
        self._rows.append(data)
        self._length += len(data)
        if self._length < self._joined.piece:
            return
        if end := data.rfind(b"\n") + 1:
            self._rows[-1] = data[:end]
            with self._joined.turn:
                self._pass_on(_END_OF_ROWS)
            self._rows, self._length = [data[end:]], len(data) - end
        else:
            self._joined.turn.acquire()
            self._within = True
            self._pass_on()

    def end_of_rows(self) -> None:
        """Pass on what is left."""
        super().end_of_rows()
        if self._length or self._opening != self._again:
            with self._joined.turn:
                self._pass_on(_END_OF_ROWS)
        self._told = self._reader.position

    def _pass_on(self, *after: bytes) -> None:
        self._joined.write(self._opening, *self._rows, *after)
        self._opening = self._again
        self._rows, self._length = [], 0


class WholeRun(_Run):
    """The run that dumps everything but the rows that the others dump."""

    def __init__(self, joined: JoinedDump, begin: Callable[[], None], wait: Callable[[], None]) -> None:
        super().__init__(joined)
        self._begin = begin
        self._wait = wait
        self._began = False
        self._waited = False

    def statement(self, statement: Statement) -> None:
        """Begin the others before the first rows; wait for them before what follows the last."""
        super().statement(statement)
        if statement.copies_into is not None:
            if not self._began:
                self._began = True
                # All tables are locked by now, and what comes before the rows is complete.
                self._begin()
            self.begin_rows(statement)
        else:
            self._wait_for_others()

    def rest(self) -> None:
        """Pass on what can be, which is all, unless the others run."""
        if self._began and not self._waited:
            super().rest()
        else:
            self._joined.write(self.text(self.size))

    def finish(self) -> None:
        """Pass on what follows the last rows."""
        self._wait_for_others()
        self.rest()

    def _wait_for_others(self) -> None:
        if self._began and not self._waited:
            self._wait()
            self._waited = True


class ShareRun(_Run):
    """A run that dumps the rows of some tables. Whatever else pg_dump writes is left out."""

    def statement(self, statement: Statement) -> None:
        """Pass over all but rows."""
        super().statement(statement)
        if statement.copies_into is not None:
            self.begin_rows(statement)
        else:
            self.text(self._reader.position)


def run_alone(program: Program, sink: Sink, cancel: Cancellation) -> Dumped:
    """Run one pg_dump. Raises as `run` does, and `ComponentError` where the dump is not whole."""
    scanner = DumpScanner()
    completed = run(program, stdout=ScanningSink(sink, scanner), cancel=cancel)
    _check_whole(scanner)
    return Dumped(scanner.size, scanner.rows, completed.stderr)


def run_joined(
    whole: Program, shares: Sequence[tuple[Program, int]], sink: Sink, piece: int, cancel: Cancellation
) -> Dumped:
    """Run several pg_dump at once. Each of `shares` dumps the rows of so many tables, which `whole` leaves out.

    The first failure ends all programs. Raises as `run` does, and `ComponentError` where a dump is not whole, or a
    table is not in it exactly once.
    """
    failures, joined = Failures(cancel.max_silence), JoinedDump(sink, piece)
    messages: dict[int, str] = {}

    def follow(program: Program, part: _Run) -> None:
        try:
            messages[id(part)] = run(program, stdout=part, cancel=failures.cancel).stderr
            _check_whole(part)
            part.finish()
        except BaseException as error:  # noqa: BLE001 - the first is raised again below
            failures.add(error)
        finally:
            part.abort()

    def begin() -> None:
        running.extend(threads.submit(follow, program, part) for (program, _), part in zip(shares, parts, strict=True))

    def wait() -> None:
        for each in running:
            each.result()
        failures.cancel.check()

    parts = [ShareRun(joined) for _ in shares]
    first = WholeRun(joined, begin, wait)
    running: list[Future[None]] = []
    with cancel.calling(failures.cancel.request), ThreadPoolExecutor(len(shares), "pg_dump") as threads:
        follow(whole, first)
    cancel.check()
    failures.raise_first()
    rows = _rows(first, parts, [count for _, count in shares])
    return Dumped(joined.size, rows, "".join(messages[id(part)] for part in (first, *parts)))


def _check_whole(scanner: DumpScanner) -> None:
    """Raise `ComponentError` for a dump that does not begin and end as one."""
    if not (scanner.opened and scanner.complete):
        raise ComponentError(
            f"pg_dump ended without an error, but its dump is cut short at {scanner.place}",
            hint="Look at the log of the server, then try again.",
        )


def _rows(whole: WholeRun, shares: Sequence[ShareRun], counts: Sequence[int]) -> dict[str, int]:
    rows = dict(whole.rows)
    for share, count in zip(shares, counts, strict=True):
        twice = rows.keys() & share.rows.keys()
        if twice or len(share.rows) != count:
            what = f"{', '.join(sorted(twice))} twice" if twice else f"{len(share.rows)} tables instead of {count}"
            raise ComponentError(f"pg_dump has dumped {what}", hint="Use --jobs 1, and report this.")
        rows |= share.rows
    return rows
