"""Restores the databases: into new ones beside the old, which then change places; or in one transaction each.

The first way (`swap`) needs a role that may create databases, and owns these. GitLab keeps serving from the old
database until the end, and the old one stays until the whole restore has succeeded. The second way (`transaction`)
works for every role that owns what is in the database. What goes wrong before the commit changes nothing, but after
it there is no way back.
"""

from __future__ import annotations

import time
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from functools import partial
from typing import TYPE_CHECKING, Final, cast

from attrs import evolve, frozen

from ...errors import ComponentError, DatabaseError, UsageError
from ...instance.postgres import connect, where, without_timeouts
from ...streams.codec import plausible_size
from ..base import RestorePlan
from . import server
from .checks import STRATEGIES, SWAP, check, choose_strategy, details_of
from .emptying import empty
from .load import Loader
from .parallel import PIECE, ParallelLoader
from .properties import copy_properties, create_like
from .sessions import Sessions
from .verify import dumps_by_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import psycopg
    from psycopg.rows import TupleRow

    from ...instance import Database
    from ..base import JSON, RestoreJob
    from .sessions import Session

_MOST_SESSIONS: Final = 16
"""Sessions that load one database: each has some rows in memory."""
_NAME_LENGTH: Final = 63
"""Bytes of a name in PostgreSQL (NAMEDATALEN - 1)."""


@frozen(kw_only=True)
class Target:
    """One database to restore."""

    database: Database
    file: str
    """Its dump, relative to the backup."""
    new: str
    """The name of the database that is built beside it."""
    old: str
    """The name that the one before gets."""
    existed: bool
    schemas: tuple[str, ...]
    """The schemas that the dump is of; empty for all."""

    @property
    def mark(self) -> str:
        """The name of the table that a transaction leaves as a sign of its commit, until the restore is finished."""
        return self.new


class DatabaseRestore:
    """The restore of all databases of one run. See `Archiver` for its steps."""

    def __init__(self) -> None:
        self._open: dict[str, psycopg.Connection[TupleRow]] = {}

    def plan(self, job: RestoreJob) -> RestorePlan:
        """Look at dumps, servers and roles. Raises `RefusedError` where a restore could not succeed."""
        chosen = job.options.database_strategy
        if chosen not in {None, *STRATEGIES}:
            raise UsageError(f"unknown database strategy: {chosen}", hint=f"Use {' or '.join(STRATEGIES)}.")
        dumps = dumps_by_name(job.names(job.component.destination), job.component.destination)
        configured = {database.name: database for database in job.instance.databases}
        if "main" not in dumps:
            raise ComponentError(f"the backup {job.backup_id} has no dump of the database main")
        notes = [
            f"the backup has a dump of the database {name}, which is not configured here: it is not restored"
            for name in dumps
            if name not in configured
        ]
        checks = [check(job, database, dumps[name]) for name, database in configured.items() if name in dumps]
        for name in configured:
            if name not in dumps:
                job.warn(f"the backup has no dump of the database {name}: it is left as it is")
        strategy, way = choose_strategy(chosen, checks)
        stamp = int(time.time())
        targets: list[JSON] = []
        for number, each in enumerate(checks):
            # The number tells apart two names that are cut short.
            old = _beside(each.database.dbname, f"before_{stamp}_{number}")
            targets.append(
                {
                    "name": each.database.name,
                    "file": each.file,
                    "new": _beside(each.database.dbname, f"restoring_{stamp}_{number}"),
                    "old": old,
                    "existed": each.state is not None,
                    "schemas": list(each.schemas),
                }
            )
            if job.options.keep_old and each.state is not None:
                kept = f"is kept as {old}" if strategy == SWAP else "cannot be kept (strategy transaction)"
                notes.append(f"the old database {each.database.dbname} {kept}")
        return RestorePlan(
            replaces=tuple(each.replaced() for each in checks),
            notes=(*notes, way, *(note for each in checks for note in each.notes())),
            facts={"strategy": strategy, "databases": targets},
            space=tuple(entry for each in checks for entry in each.space),
            reversible=strategy == SWAP,
        )

    def stage(self, job: RestoreJob, facts: Mapping[str, JSON]) -> None:
        """Load every dump: into a new database, or into an open transaction."""
        for target in _targets(job, facts):
            if facts["strategy"] == SWAP:
                self._load_beside(job, target)
            else:
                self._load_inside(job, target)
            job.cancel.check()

    def swap(self, job: RestoreJob, facts: Mapping[str, JSON]) -> None:
        """Give each new database the name of the old one, or commit."""
        for target in _targets(job, facts):
            database = target.database
            if facts["strategy"] == SWAP:
                before = [(database.dbname, target.old)] if target.existed else []
                with _maintaining(database, "cannot be swapped") as connection:
                    server.rename(database, connection, *before, (target.new, database.dbname))
            else:
                connection = self._open.pop(database.name)
                with connection, server.speaking(database, "cannot commit"):
                    connection.commit()

    def committed(self, job: RestoreJob, facts: Mapping[str, JSON]) -> str | None:
        """Return which databases a transaction has made those of the backup, and which not."""
        if facts["strategy"] == SWAP:
            return None
        done: list[str] = []
        left: list[str] = []
        for target in _targets(job, facts):
            with (
                connect(target.database, autocommit=True) as connection,
                server.speaking(target.database, "cannot be looked at"),
            ):
                marked = server.schema_of(connection, target.mark) is not None
            (done if marked else left).append(target.database.dbname)
        if not done:
            return None
        return f"{', '.join(done)} as in the backup" + (f", {', '.join(left)} as before" if left else "")

    def undo(self, job: RestoreJob, facts: Mapping[str, JSON]) -> None:
        """Drop what was built, after the old databases have their names again; or roll back."""
        for connection in self._open.values():
            connection.close()
        self._open.clear()
        if facts["strategy"] != SWAP:
            return
        for target in _targets(job, facts):
            database, dbname = target.database, target.database.dbname
            with _maintaining(database, "cannot be put back") as connection:
                if target.existed and server.exists(connection, target.old):
                    taken = [(dbname, target.new)] if server.exists(connection, dbname) else []
                    server.rename(database, connection, *taken, (target.old, dbname))
                elif not target.existed and server.comment_of(connection, dbname) == target.new:
                    # Ours, and not one that somebody has made meanwhile.
                    server.drop(database, connection, dbname)
                server.drop(database, connection, target.new)

    def finish(self, job: RestoreJob, facts: Mapping[str, JSON]) -> None:
        """Drop the old databases, unless they are to be kept; or the marks."""
        if facts["strategy"] != SWAP:
            for target in _targets(job, facts):
                with (
                    connect(target.database, autocommit=True) as connection,
                    server.speaking(target.database, "the mark of its restore cannot be dropped"),
                ):
                    server.drop_mark(connection, target.mark)
            return
        for target in _targets(job, facts):
            database = target.database
            with _maintaining(database, "the old one cannot be dropped") as connection:
                if not target.existed and server.comment_of(connection, database.dbname) == target.new:
                    server.comment(connection, database.dbname, None)
                if not job.options.keep_old:
                    server.drop(database, connection, target.old)

    def _load_beside(self, job: RestoreJob, target: Target) -> None:
        database = target.database
        extensions: list[tuple[str, str]] = []
        if target.schemas and target.existed:
            # The dump of some schemas has no extensions, but may need them.
            with connect(database, autocommit=True) as old, server.speaking(database, "cannot be looked at"):
                extensions = server.extensions_of(old)
        with _maintaining(database, "cannot be created") as connection:
            if target.existed:
                create_like(connection, target.new, database.dbname)
            else:
                server.create(connection, target.new, mark=target.new)
        # Each statement commits by itself: one transaction would need a lock for each of ten thousand relations.
        # Nothing is lost if the server crashes: then the restore starts from nothing again.
        new = evolve(database, dbname=target.new)
        with connect(new, autocommit=True) as connection:
            with server.speaking(database, "cannot be set up"):
                server.hasten(connection)
                for name, schema in extensions:
                    server.create_extension(connection, name, schema)
            if job.jobs > 1:
                with _sessions(job, new) as sessions:
                    self._load(job, target, connection, sessions)
            else:
                self._load(job, target, connection)
            with server.speaking(database, "cannot be made durable"):
                _flush(connection)
        if target.existed:
            with _maintaining(database, "cannot be set up") as connection:
                copy_properties(connection, target.new, database.dbname)

    def _load_inside(self, job: RestoreJob, target: Target) -> None:
        with ExitStack() as stack:
            connection = connect(target.database)
            stack.callback(connection.close)  # which rolls back
            with server.speaking(target.database, "cannot be emptied"), job.cancel.calling(_interrupting(connection)):
                without_timeouts(connection)
                # Whatever the server's default is: a commit is to last.
                connection.execute("SET LOCAL synchronous_commit = on")
                empty(connection, target.schemas)
            self._load(job, target, connection)
            with server.speaking(target.database, "cannot be completed"):
                server.create_mark(connection, target.mark)
                # What could fail at the commit is to fail now, while other databases can still be left as they are.
                connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
            self._open[target.database.name] = connection
            stack.pop_all()

    def _load(
        self,
        job: RestoreJob,
        target: Target,
        connection: psycopg.Connection[TupleRow],
        sessions: Sessions | None = None,
    ) -> None:
        database = target.database
        to = (database, connection, target.file, job.warn, job.cancel)
        loader = Loader(*to) if sessions is None else ParallelLoader(*to, sessions=sessions)
        with job.open_stream(target.file) as dump:
            loader.load(dump, most=self._most(job, target), progress=job.progress)
        expected = details_of(job, database.name).get("rows")
        for table, rows in expected.items() if isinstance(expected, dict) else ():
            if loader.rows_loaded.get(table, 0) != rows:
                raise ComponentError(
                    f"{where(database)}: {table} has {loader.rows_loaded.get(table, 0)} rows after loading,"
                    f" {rows} at the time of the backup"
                )
        self._analyze(job, database, connection, sessions)

    def _most(self, job: RestoreJob, target: Target) -> int:
        """Return how many bytes the dump may have, so that it cannot fill the server's disk."""
        recorded = details_of(job, target.database.name).get("dump_bytes")
        return recorded if isinstance(recorded, int) else plausible_size((job.root / target.file).stat().st_size)

    def _analyze(
        self,
        job: RestoreJob,
        database: Database,
        connection: psycopg.Connection[TupleRow],
        sessions: Sessions | None,
    ) -> None:
        """Give the planner its statistics. Without them a database is slow, but whole."""

        def run(statement: bytes, session: Session) -> None:
            with server.speaking(database, "cannot be analyzed"):
                session.connection.execute(statement)

        try:
            # In a savepoint, where a transaction is open.
            inside = nullcontext() if connection.autocommit else connection.transaction()
            with server.speaking(database, "cannot be analyzed"), job.cancel.calling(_interrupting(connection)), inside:
                for statement in server.analyses(connection):
                    if sessions is None:
                        connection.execute(statement)
                    else:
                        sessions.submit(partial(run, statement))
                if sessions is not None:
                    sessions.wait()
        except DatabaseError as error:
            job.cancel.check()
            if connection.closed:
                raise
            job.warn(f"{error.message}; autovacuum will do that")


@contextmanager
def _sessions(job: RestoreJob, database: Database) -> Iterator[Sessions]:
    """Open as many further sessions as the server allows, and things may be done at once."""
    wanted = min(job.jobs, _MOST_SESSIONS)
    connections = [connect(database, autocommit=True)]
    with suppress(DatabaseError):  # a few do, too
        for _ in range(1, wanted):
            connections.append(connect(database, autocommit=True))  # noqa: PERF401 - what is open has to be known
    try:
        with server.speaking(database, "cannot be set up"):
            for connection in connections:
                server.hasten(connection)
        with (
            Sessions(connections, room=2 * wanted * PIECE) as sessions,
            job.cancel.calling(sessions.failures.cancel.request),
        ):
            yield sessions
    finally:
        for connection in connections:
            connection.close()


def _interrupting(connection: psycopg.Connection[TupleRow]) -> Callable[[], None]:
    def interrupt() -> None:
        with suppress(Exception):  # then the next look at the request ends it
            connection.cancel()

    return interrupt


def _flush(connection: psycopg.Connection[TupleRow]) -> None:
    """Have everything on disk that was committed so far.

    A commit with synchronous_commit flushes the write-ahead log up to its own record, and so all that came before, of
    all sessions (PostgreSQL manual, "Asynchronous Commit"). But only one that has written to the log before its end:
    a transaction that merely took an id does not (`xact.c`, `RecordTransactionCommit`: `wrote_xlog`). This message
    is nothing but a record in the log, and every role may write it.
    """
    with connection.transaction():
        connection.execute("SET LOCAL synchronous_commit = on")
        connection.execute("SELECT pg_catalog.pg_logical_emit_message(true, 'gitlab-backup', '')")


def _targets(job: RestoreJob, facts: Mapping[str, JSON]) -> list[Target]:
    configured = {database.name: database for database in job.instance.databases}
    targets = []
    for entry in cast("list[dict[str, JSON]]", facts["databases"]):
        database = configured.get(str(entry["name"]))
        if database is None:
            raise ComponentError(f"the database {entry['name']} is not configured any more")
        targets.append(
            Target(
                database=database,
                file=str(entry["file"]),
                new=str(entry["new"]),
                old=str(entry["old"]),
                existed=bool(entry["existed"]),
                schemas=tuple(map(str, cast("list[str]", entry["schemas"]))),
            )
        )
    return targets


def _beside(dbname: str, suffix: str) -> str:
    """Return a name that fits, also where that of the database is as long as can be."""
    room = _NAME_LENGTH - len(suffix) - 1
    return f"{dbname.encode()[:room].decode(errors='ignore')}_{suffix}"


@contextmanager
def _maintaining(database: Database, what: str) -> Iterator[psycopg.Connection[TupleRow]]:
    with server.maintenance_connection(database) as connection, server.speaking(database, what):
        yield connection
