"""Snapshots of databases: a state that stays as it is for a dump, while GitLab goes on writing."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from attrs import field, frozen

from ...errors import ComponentError, DatabaseError
from ...instance.postgres import (
    POOLER_HINT,
    behind_pooler,
    connect,
    database_error,
    server_version,
    where,
    without_timeouts,
)

if TYPE_CHECKING:
    import psycopg
    from psycopg.rows import TupleRow

    from ...instance import Database

# A query that fails ends the transaction, and the snapshot with it. So nothing is asked here that a server
# or a role could refuse. The position in the write-ahead log is that of the replay on a standby, which
# writes no log.
_ABOUT: Final = """
    SELECT current_setting('server_version'), pg_database_size(datname), pg_encoding_to_char(encoding),
           datcollate, datctype,
           CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END::text
    FROM pg_database WHERE datname = current_database()
"""
_EXTENSIONS: Final = "SELECT extname, extversion FROM pg_extension ORDER BY extname"
# Before PostgreSQL 10, to export a snapshot took a transaction id, which a standby has none of.
_FIRST_WITH_STANDBYS: Final = 100000
# What PgBouncer says when it has no server left, or ends a session: `disconnect_client` and `disconnect_server` in its
# source. And what libpq says when a connection goes.
_OF_POOLERS: Final = (
    "timeout",
    "pgbouncer",
    "server closed the connection",
    "no more connections",
    "server conn crashed",
)
_LOOKS: Final = 5
"""How often a pooler is asked for a second session, as a third may come between."""
_PRIMARY_HINT: Final = "A standby exports snapshots since PostgreSQL 10 only. Name the primary server."


@frozen(kw_only=True)
class Snapshot:
    """The state of one database, held by an open transaction until `release`."""

    database: Database
    id: str
    """What `pg_dump --snapshot` takes."""
    taken_at: datetime
    server_version: str
    size: int
    """Bytes of the database on its server, indexes and dead rows included."""
    encoding: str
    collation: str
    ctype: str
    wal_lsn: str | None
    extensions: dict[str, str]
    """Their versions by name."""
    pooled: bool
    """Whether a connection pooler stands between."""
    _connection: psycopg.Connection[TupleRow] = field(repr=False)

    def release(self) -> None:
        """Let the server clean up behind the snapshot again. May be called more than once."""
        self._connection.close()


def take_snapshot(database: Database, *, pg_dump_major: int) -> Snapshot:
    """Connect to `database` and export a snapshot of it.

    Raises `DatabaseError` where the database cannot be reached or exports none, or a pooler stands between that lends
    one server to many; and `ComponentError` where pg_dump is older than the server: it would refuse to dump.
    """
    import psycopg

    connection = connect(database, autocommit=True)
    version = server_version(connection)
    try:
        _check_version(database, version // 10000, pg_dump_major)
        if behind_pooler(connection):
            _check_pooler(database, connection)
        connection.autocommit = False
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.read_only = True
        return _export(database, connection)
    except psycopg.Error as error:
        connection.close()
        hint = _PRIMARY_HINT if version < _FIRST_WITH_STANDBYS else POOLER_HINT
        raise database_error(database, "cannot export a snapshot", error, hint=hint) from error
    except BaseException:
        connection.close()
        raise


def pooler_hint(snapshot: Snapshot, words: str) -> str | None:
    """Return what to do about an error, if its words say that the snapshot is gone, or are those of a pooler."""
    if snapshot.pooled and any(each in words for each in _OF_POOLERS):
        return POOLER_HINT
    if "snapshot" not in words:
        return None
    return POOLER_HINT if snapshot.pooled else f"The session that held the snapshot has ended. {POOLER_HINT}"


def _check_version(database: Database, server: int, pg_dump: int) -> None:
    if server > pg_dump:
        raise ComponentError(
            f"pg_dump is of version {pg_dump}, but the server of {where(database)} is of version {server}",
            hint=f"Install the client programs of PostgreSQL {server}, and put them first in the search path.",
        )


def _check_pooler(database: Database, connection: psycopg.Connection[TupleRow]) -> None:
    """Make sure that nobody else gets the server of this session between two of its transactions.

    pg_dump empties the search path of its session, among much else. In transaction mode, whoever is lent that server
    next finds no tables any more: "Back up and restore for installations using PgBouncer" in GitLab's documentation.
    """
    own = set()
    for _ in range(_LOOKS):
        own.add(_server(connection))
        try:
            other = connect(database, autocommit=True)
        except DatabaseError as error:
            raise DatabaseError(error.message, hint=POOLER_HINT) from None
        with other:
            if len(own) > 1 or _server(other) in own:
                raise DatabaseError(
                    f"{where(database)}: a pooler, probably PgBouncer in transaction or statement mode, lends"
                    " one session to many: what pg_dump sets in it stays, and GitLab would find no tables any more",
                    hint=POOLER_HINT,
                )


def _server(connection: psycopg.Connection[TupleRow]) -> object:
    row = connection.execute("SELECT pg_backend_pid()").fetchone()
    return row and row[0]


def _export(database: Database, connection: psycopg.Connection[TupleRow]) -> Snapshot:
    without_timeouts(connection)
    exported = connection.execute("SELECT pg_export_snapshot()").fetchone()
    taken_at = datetime.now(UTC)
    about = connection.execute(_ABOUT).fetchone()
    if exported is None or about is None:
        raise DatabaseError(f"{where(database)}: the server answered with nothing", hint=POOLER_HINT)
    extensions = connection.execute(_EXTENSIONS).fetchall()
    version, size, encoding, collation, ctype, lsn = about
    return Snapshot(
        database=database,
        id=exported[0],
        taken_at=taken_at,
        server_version=version,
        size=size,
        encoding=encoding,
        collation=collation,
        ctype=ctype,
        wal_lsn=lsn,
        extensions=dict(extensions),
        pooled=behind_pooler(connection),
        connection=connection,
    )
