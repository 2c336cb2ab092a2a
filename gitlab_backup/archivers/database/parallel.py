"""Loads a dump in several sessions: rows side by side, then indexes and constraints side by side.

A dump is one stream. So the rows are cut into pieces, and each piece is a COPY statement of its own, in whichever
session is free. All else is done in its order by one session, while the others rest; but for the statements that make
indexes and constraints, which wait for each other only where they lock the same table.
"""

from __future__ import annotations

import re
import threading
from functools import partial
from typing import TYPE_CHECKING, Final

from attrs import define, field

from . import server
from .load import Copy, Loader
from .sessions import Locks
from .sql import NAME

if TYPE_CHECKING:
    from .sessions import Session, Sessions
    from .sql import Statement

PIECE: Final = 2 << 20
"""Bytes of rows that one session loads at a time."""
_LONGEST: Final = 16 << 20
"""Bytes of a row that may be held in memory."""
_SORTED: Final = 16 << 20
"""Bytes that are sorted at a time for an index: what GitLab's packages set as `maintenance_work_mem`."""
_SORTED_LITTLE: Final = 1 << 30
"""Bytes of rows up to which a table's indexes are sorted in such pieces. They are then merged at once, without another
pass over them; and a larger table may have what the server grants it, and the parallel workers that come with it."""

_TABLE: Final = rb"(" + NAME + rb"(?:\." + NAME + rb")?)"
_NAMES: Final = rb"\((?:" + NAME + rb")(?:, " + NAME + rb")*\)"
# As pg_dump writes them (`pg_dump.c`, dumpIndex and dumpConstraint). A foreign key of a partitioned table, which locks
# its partitions too, has no ONLY.
_INDEX: Final = re.compile(rb"CREATE (?:UNIQUE )?INDEX " + NAME + rb" ON (?:ONLY )?" + _TABLE + rb" USING ")
_CONSTRAINT: Final = re.compile(
    rb"ALTER TABLE ONLY " + _TABLE + rb"\s+ADD CONSTRAINT " + NAME + rb" (?:PRIMARY KEY|UNIQUE|EXCLUDE) "
)
_FOREIGN_KEY: Final = re.compile(
    rb"ALTER TABLE ONLY " + _TABLE + rb"\s+ADD CONSTRAINT " + NAME + rb" FOREIGN KEY " + _NAMES + rb" REFERENCES "
    + _TABLE + rb"\("
)  # fmt: skip
# Not those of other kinds, which need memory for more than sorting; nor foreign keys, which join.
_BTREE: Final = re.compile(rb" USING btree \(| PRIMARY KEY \(| UNIQUE \(")
# What holds for a session, and so has to be said to each. Servers before PostgreSQL 17 do not know transaction_timeout.
_SETTING: Final = re.compile(rb"SET (?!transaction_timeout\b)|SELECT pg_catalog\.set_config\(")


def locks_of(text: bytes) -> Locks | None:
    """Return which tables a statement locks that may run beside others; None for one that may not."""
    if match := _INDEX.match(text):
        return Locks(shared=frozenset({_decoded(match[1])}))
    if match := _CONSTRAINT.match(text):
        return Locks(alone=frozenset({_decoded(match[1])}))
    if match := _FOREIGN_KEY.match(text):
        return Locks(alone=frozenset({_decoded(match[1]), _decoded(match[2])}))
    return None


def _decoded(name: bytes) -> str:
    return name.decode("utf-8", "backslashreplace")


@define
class ParallelLoader(Loader):
    """Runs a dump in one session, and hands what can be done side by side to others."""

    sessions: Sessions = field(kw_only=True)
    _lock: threading.Lock = field(factory=threading.Lock, init=False)
    _settings: list[bytes] = field(factory=list, init=False)
    _again: list[Statement] = field(factory=list, init=False)
    _sizes: dict[str, int] = field(factory=dict, init=False)
    _rows: list[bytes] = field(factory=list, init=False)
    _length: int = field(default=0, init=False)
    _first: int = field(default=0, init=False)
    _from: int = field(default=0, init=False)
    _statement: Statement | None = field(default=None, init=False)
    _loading: bool = field(default=False, init=False)  # whether the others have rows, rather than statements

    def finish(self) -> None:
        """Wait until all that was handed on is done."""
        self.sessions.wait()
        self._loading = False
        # Two that waited for each other: one has done its work, and so has all else.
        again, self._again = self._again, []
        for statement in again:
            self.run(statement)

    def command(self, statement: Statement) -> None:
        """Hand the statement on, or run it when all before it has been done."""
        locks = locks_of(statement.text)
        if locks is not None:
            if self._loading:
                # A key holds only when all rows are there.
                self.finish()
            tables = locks.shared or locks.alone
            weight = self._sizes.get(next(iter(tables)), 0) if len(tables) == 1 else 0
            little = weight <= _SORTED_LITTLE and _BTREE.search(statement.text) is not None
            run = partial(self._run_in, statement, sorts_little=little)
            self.sessions.submit(run, size=len(statement.text), weight=weight, locks=locks)
            return
        self.finish()
        super().command(statement)
        if _SETTING.match(statement.text):
            self._settings.append(statement.text)

    def begin_rows(self, statement: Statement) -> None:
        """Begin a table."""
        if not self._loading:
            self.finish()
            self._loading = True
        self._statement = statement
        self._first = self._from = self.reader.lines

    def take(self, data: bytes) -> None:
        """Collect rows, and hand them on when they are enough."""
        if self.copying is not None:
            end = data.find(b"\n") + 1
            super().take(data[:end] if end else data)
            if not end:
                return
            super().end_of_rows()
            self._from = self.reader.lines - data.count(b"\n", end)
            data = data[end:]
        self._rows.append(data)
        self._length += len(data)
        if self._length < PIECE:
            return
        if end := data.rfind(b"\n") + 1:
            self._rows[-1] = data[:end]
            self._hand_on()
            self._rows, self._length = [data[end:]], len(data) - end
        elif self._length > _LONGEST and self._statement is not None:
            # As it comes, in the session of this loader.
            super().begin_rows(self._statement)
            for each in self._rows:
                super().take(each)
            self._rows, self._length = [], 0

    def end_of_rows(self) -> None:
        """Hand on what is left; of an empty table, its statement."""
        if self.copying is not None:
            super().end_of_rows()
        elif self._length or self._from == self._first:
            self._hand_on()
        self._rows, self._length = [], 0

    def _hand_on(self) -> None:
        if self._statement is None:
            return
        table = self._statement.copies_into or ""
        self._sizes[table] = self._sizes.get(table, 0) + self._length
        load = partial(self._load_in, self._statement, self._rows, self._from - self._first)
        self.sessions.submit(load, size=self._length)
        self._from = self.reader.lines

    def _load_in(self, statement: Statement, rows: list[bytes], before: int, session: Session) -> None:
        self._set_up(session)
        copy = Copy(self, statement, session.connection, before)
        try:
            for each in rows:
                copy.write(each)
            count = copy.finish()
        except BaseException:
            copy.abandon()
            raise
        with self._lock:
            self.count_rows(statement, count)

    def _run_in(self, statement: Statement, session: Session, *, sorts_little: bool) -> None:
        import psycopg

        self._set_up(session)
        with self.telling(statement):
            if sorts_little is not session.sorts_little:
                server.sort_within(session.connection, _SORTED if sorts_little else None)
                session.sorts_little = sorts_little
            try:
                session.connection.execute(statement.text, binary=True)
            except psycopg.errors.DeadlockDetected:
                with self._lock:
                    self._again.append(statement)

    def _set_up(self, session: Session) -> None:
        while session.settings < len(self._settings):
            session.connection.execute(self._settings[session.settings], binary=True)
            session.settings += 1
