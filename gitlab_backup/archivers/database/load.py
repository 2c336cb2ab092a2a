"""Loads a dump into a database: every statement of it counts."""

from __future__ import annotations

import re
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Final

from attrs import define, evolve, field, frozen

from ...errors import ComponentError, CorruptStreamError
from ...instance.postgres import where
from ...streams.profile import LOADING, Clock
from .allowed import FRAMES, objection_to, objection_to_line
from .scanner import DumpFrame
from .server import LOCKS_HINT, in_words
from .sql import DumpReader, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import BinaryIO

    import psycopg
    from psycopg.rows import TupleRow

    from ...instance import Database
    from ...streams.cancel import Cancellation
    from .sql import Statement

_PIECE: Final = 1 << 20

_INSUFFICIENT_PRIVILEGE: Final = "42501"
_UNDEFINED_OBJECT: Final = "42704"
_DUPLICATE_SCHEMA: Final = "42P06"
_OUT_OF_MEMORY: Final = "53200"
_NAME: Final = rb'(?:"(?:[^"]|"")+"|[^\s;,"]+)'
# Where statements about ownership and privileges name roles.
_ROLES: Final = re.compile(rb" (?:OWNER TO|TO|FROM|FOR ROLE) (" + _NAME + rb")")


@frozen
class _Exception:
    """A kind of statement that may fail, or is not run at all, and why that is harmless."""

    statement: re.Pattern[bytes]
    sqlstates: frozenset[str]
    """The errors that are forgiven. Empty: the statement is not run."""
    reason: str
    told: bool = True
    """Whether its failure is worth a warning."""


def _exception(statement: bytes, *sqlstates: str, reason: str, told: bool = True) -> _Exception:
    return _Exception(re.compile(statement, re.DOTALL), frozenset(sqlstates), reason, told)


_ABOUT_ROLES: Final = re.compile(
    rb"(?:GRANT|REVOKE|ALTER DEFAULT PRIVILEGES) |ALTER [A-Z ]+ .* OWNER TO " + _NAME + rb"\Z", re.DOTALL
)
"""Of these, "undefined object" is forgiven only where a role that the statement names is really missing."""

EXCEPTIONS: Final = (
    _exception(
        rb"DROP EXTENSION IF EXISTS ",
        reason="extensions belong to the server's administrator, stay as they are, and are made where they are missing",
    ),
    _exception(
        rb"DROP SCHEMA IF EXISTS ",
        reason="the database has been emptied, or is new: the schemas that are left hold extensions",
    ),
    _exception(
        rb"CREATE SCHEMA " + _NAME + rb"\Z",
        _DUPLICATE_SCHEMA,
        reason="the schema is left because it holds extensions, or comes with every database (public)",
        told=False,
    ),
    _exception(
        rb"COMMENT ON EXTENSION ",
        _INSUFFICIENT_PRIVILEGE,
        reason="only the owner of an extension may describe it; the text is the one that comes with it",
        told=False,
    ),
    _exception(
        rb"SET (?:LOCAL )?transaction_timeout = 0\Z",
        _UNDEFINED_OBJECT,
        reason="servers before PostgreSQL 17 have no such setting, and no such timeout",
        told=False,
    ),
    _exception(
        rb"ALTER DEFAULT PRIVILEGES ",
        _UNDEFINED_OBJECT,
        _INSUFFICIENT_PRIVILEGE,
        reason="a role does not exist here, or only it decides what others may do with what it will make",
    ),
    _exception(
        rb"(?:GRANT|REVOKE) ",
        _UNDEFINED_OBJECT,
        reason="the role does not exist here, so there is nobody to grant it to",
    ),
    _exception(
        rb"ALTER [A-Z ]+ .* OWNER TO " + _NAME + rb"\Z",
        _INSUFFICIENT_PRIVILEGE,
        _UNDEFINED_OBJECT,
        reason="the role does not exist here, or cannot be given anything; the restoring role owns it",
    ),
    _exception(
        rb"COMMENT ON SCHEMA public ",
        _INSUFFICIENT_PRIVILEGE,
        reason="only the owner of the schema may describe it",
        told=False,
    ),
)
"""The closed list of statements whose failure does not make a restore fail. Applied to the statement and the
server's error code, never to the words of a message. The list is of what GitLab's Rake task ignores on psql's
standard error (`lib/backup/database.rb`, `IGNORED_ERRORS`), narrowed to the statements that cause it."""

_SAVEPOINT: Final = "gitlab_backup_statement"
_COPY_LINE: Final = re.compile(r"^COPY .*?, line (\d+)", re.MULTILINE)


# As pg_dump writes them (`pg_backup_archiver.c`, `_doSetFixedOutputState`).
_OF_THE_SESSION: Final = re.compile(rb"\ASET (?!LOCAL |TRANSACTION |CONSTRAINTS |SESSION )")
_SEARCH_PATH: Final = re.compile(rb"\A(SELECT pg_catalog\.set_config\('search_path', '[^']*', )false\)\Z")


def _within_transaction(text: bytes) -> bytes:
    """Have a setting of a dump end with the transaction: behind a pooler, the session is somebody else's after it."""
    return _SEARCH_PATH.sub(rb"\1true)", _OF_THE_SESSION.sub(b"SET LOCAL ", text))


@define
class Loader(DumpFrame):
    """Runs a dump on one connection, as a `DumpHandler`."""

    database: Database
    connection: psycopg.Connection[TupleRow]
    name: str
    """The dump, for messages."""
    warn: Callable[[str], None]
    cancel: Cancellation
    rows_loaded: dict[str, int] = field(factory=dict)
    """How many rows the server says it took, by table."""
    copying: Copy | None = None
    reader: DumpReader = field(init=False)

    def __attrs_pre_init__(self) -> None:
        super().__init__()

    def __attrs_post_init__(self) -> None:
        self.reader = DumpReader(self)

    def load(self, dump: BinaryIO, *, most: int, progress: Callable[[int, int], None]) -> None:
        """Run all of `dump`, if it has not more than `most` bytes. The transaction, if any, is left open.

        Raises `ComponentError` with the statement, its line and its byte where the server refuses one, and
        `CorruptStreamError` where the dump is not whole or not plain SQL.
        """
        reader = self.reader
        try:
            with self.cancel.calling(self._interrupt):
                while piece := dump.read(_PIECE):
                    self.cancel.check()
                    self._check_size(reader.size + len(piece), most)
                    reader.feed(piece)
                    progress(0, len(piece))
                self._check_end(reader)
                self.finish()
        except BaseException:
            if self.copying is not None:
                self.copying.abandon()
            # What the server says of a request to stop is not what went wrong.
            self.cancel.check()
            raise

    def _check_size(self, size: int, most: int) -> None:
        if size > most:
            raise CorruptStreamError(
                f"{self.name} goes on after {most} bytes, which are all that it should have",
                hint="It seems made to fill the disk of the server. Look at it: `zless` shows its text.",
            )

    def _check_end(self, reader: DumpReader) -> None:
        from psycopg.pq import TransactionStatus

        if not (self.opened and self.closed and reader.between):
            raise CorruptStreamError(f"{self.name} is cut short: it ends at {reader.place}")
        if self.connection.autocommit and self.connection.info.transaction_status != TransactionStatus.IDLE:
            raise CorruptStreamError(f"{self.name} begins a transaction that it does not commit")

    def line(self, line: bytes, number: int, offset: int) -> None:
        """Pass over a comment; refuse a command to psql."""
        super().line(line, number, offset)
        if objection := objection_to_line(line):
            raise self._hostile(objection, line, number, offset)

    def statement(self, statement: Statement) -> None:
        """Take a statement."""
        self.cancel.check()
        self.closed = False
        text = statement.text
        if objection := objection_to(statement):
            raise self._hostile(objection, text, statement.line, statement.offset)
        if statement.copies_into is not None:
            self.begin_rows(statement)
        else:
            self.command(statement)

    def command(self, statement: Statement) -> None:
        """Run a statement that no rows follow, unless it is one that is not to be run."""
        text = statement.text if self.connection.autocommit else _within_transaction(statement.text)
        if text != statement.text:
            statement = evolve(statement, text=text)
        if text in FRAMES:
            if self.connection.autocommit:
                self.run(statement)
            return
        exception = next((each for each in EXCEPTIONS if each.statement.match(text)), None)
        if exception is None:
            self.run(statement)
        elif exception.sqlstates:
            self._run_forgiving(statement, exception)

    def begin_rows(self, statement: Statement) -> None:
        """Begin a COPY statement."""
        self.copying = Copy(self, statement, self.connection)

    def take(self, data: bytes) -> None:
        """Hand rows to the COPY statement before them."""
        if self.copying is not None:
            self.copying.write(data)

    def end_of_rows(self) -> None:
        """Complete the COPY statement."""
        if self.copying is not None:
            copying, self.copying = self.copying, None
            self.count_rows(copying.statement, copying.finish())

    def count_rows(self, statement: Statement, rows: int) -> None:
        """Take note of the rows that the server took."""
        table = statement.copies_into or ""
        self.rows_loaded[table] = self.rows_loaded.get(table, 0) + rows

    def finish(self) -> None:
        """Do what is left to do at the end of the dump."""

    @contextmanager
    def telling(self, statement: Statement, before: int = 0) -> Iterator[None]:
        """Turn an error of the server into the one that says which statement it refused.

        Of its rows, so many have been loaded before, by other means.
        """
        import psycopg

        try:
            yield
        except psycopg.Error as error:
            hint = "Nothing of this dump was restored. Look at the statement, and at the server's log."
            row = _COPY_LINE.search(error.diag.context or "") if statement.copies_into else None
            at = f", row {before + int(row[1])} of it" if row else ""
            # Not "from error": what psycopg shows has the values of the row in it.
            raise ComponentError(
                f"{where(self.database)}: {self.name}, line {statement.line} (byte {statement.offset}): "
                f"{shown(statement.text)}{at}: {in_words(error)}",
                hint=LOCKS_HINT if error.sqlstate == _OUT_OF_MEMORY else hint,
            ) from None

    def run(self, statement: Statement) -> None:
        """Run one statement. Raises `ComponentError`."""
        with self.telling(statement):
            self._execute(statement.text)

    def _execute(self, text: bytes) -> None:
        # The extended protocol, which `binary` asks for, takes one statement at a time: a second one that our
        # reader had not seen would be refused.
        with Clock(LOADING) as clock:
            self.connection.execute(text, binary=True)
            clock.bytes = len(text)

    def _run_forgiving(self, statement: Statement, exception: _Exception) -> None:
        import psycopg

        with self.telling(statement):
            savepoint = not self.connection.autocommit
            if savepoint:
                self._execute(b"SAVEPOINT " + _SAVEPOINT.encode())
            try:
                self._execute(statement.text)
            except psycopg.Error as error:
                if error.sqlstate not in exception.sqlstates:
                    raise
                if savepoint:
                    self._execute(b"ROLLBACK TO SAVEPOINT " + _SAVEPOINT.encode())
                if error.sqlstate == _UNDEFINED_OBJECT and not self._lacks_role(statement.text):
                    raise
                if exception.told:
                    self.warn(f"{self.database.name}: not done: {shown(statement.text)}: {exception.reason}")
            if savepoint:
                self._execute(b"RELEASE SAVEPOINT " + _SAVEPOINT.encode())

    def _lacks_role(self, text: bytes) -> bool:
        """Tell whether "undefined object" can mean a role: a type or a language that is missing says the same."""
        if not _ABOUT_ROLES.match(text):
            return True
        names = [name.decode("utf-8", "replace") for name in _ROLES.findall(text)]
        roles = [name[1:-1].replace('""', '"') if name.startswith('"') else name for name in names]
        missing = self.connection.execute(
            "SELECT 1 FROM unnest(%s::text[]) r WHERE lower(r) <> 'public'"
            " AND NOT EXISTS (SELECT 1 FROM pg_catalog.pg_roles WHERE rolname = r)",
            [roles],
        )
        return missing.fetchone() is not None

    def _interrupt(self) -> None:
        with suppress(Exception):  # then the next look at the request ends it
            self.connection.cancel()

    def _hostile(self, what: str, text: bytes, number: int, offset: int) -> CorruptStreamError:
        return CorruptStreamError(
            f"{self.name} holds {what} at line {number} (byte {offset}): {shown(text)}",
            hint="pg_dump writes no such line. Do not trust this dump.",
        )


class Copy:
    """A COPY statement while its rows come."""

    def __init__(
        self, loader: Loader, statement: Statement, connection: psycopg.Connection[TupleRow], before: int = 0
    ) -> None:
        self.statement = statement
        self._telling = partial(loader.telling, statement, before)
        self._cursor = connection.cursor()
        self._context = self._cursor.copy(statement.text)
        with self._telling():
            self._copy = self._context.__enter__()

    def write(self, data: bytes) -> None:
        """Send rows."""
        with self._telling(), Clock(LOADING) as clock:
            self._copy.write(data)
            clock.bytes = len(data)

    def finish(self) -> int:
        """End the rows, and return how many the server took."""
        with self._telling(), Clock(LOADING):
            self._context.__exit__(None, None, None)
        return self._cursor.rowcount

    def abandon(self) -> None:
        """Tell the server that no more rows come. What it says of that does not matter any more."""
        error = CorruptStreamError("the rows end early")
        with suppress(Exception):  # the first error counts, and is being raised
            self._context.__exit__(CorruptStreamError, error, None)
