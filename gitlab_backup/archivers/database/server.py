"""What a restore has to know of a database and its server, and what it does to them as a whole."""

from __future__ import annotations

import re
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Final

from attrs import evolve, frozen

from ...errors import DatabaseError
from ...instance.postgres import connect, database_error, where
from .properties import privileged_settings

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import psycopg
    from psycopg.rows import TupleRow

    from ...instance import Database

_MAINTENANCE: Final = ("postgres", "template1")
"""Databases that are always there, to connect to while another one is renamed or dropped."""

# A name that is not ASCII is not the same in a database of another encoding: this is asked in the database itself.
_STATE: Final = """
    SELECT pg_database_size(d.oid), pg_has_role(d.datdba, 'MEMBER'),
           r.rolsuper, r.rolcreatedb, d.dattablespace = (SELECT oid FROM pg_tablespace WHERE spcname = 'pg_default')
    FROM pg_database d, pg_roles r
    WHERE d.datname = current_database() AND r.rolname = current_user
"""
_TABLES: Final = """
    SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p') AND n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\\_%'
"""
_SESSIONS: Final = """
    SELECT coalesce(nullif(application_name, ''), 'unnamed') || ' as ' || coalesce(usename, '?'), count(*)
    FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()
      AND coalesce(backend_type, 'client backend') = 'client backend'
    GROUP BY 1 ORDER BY 1
"""
# Partitions go with their tables.
_ANALYZED: Final = """
    SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'm') AND NOT c.relispartition AND pg_has_role(c.relowner, 'USAGE')
      AND n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\\_%'
    ORDER BY pg_table_size(c.oid) DESC
"""
# Not those that this role may not end: the server would refuse the whole statement.
_TERMINATE: Final = """
    SELECT pg_terminate_backend(s.pid) FROM pg_stat_activity s, pg_roles me
    WHERE s.datname = ANY (%s) AND s.pid <> pg_backend_pid()
      AND coalesce(s.backend_type, 'client backend') = 'client backend' AND me.rolname = current_user
      AND (me.rolsuper OR NOT (SELECT r.rolsuper FROM pg_roles r WHERE r.oid = s.usesysid)
                          AND (pg_has_role(s.usesysid, 'USAGE') OR pg_has_role('pg_signal_backend', 'USAGE')))
"""
_EXTENSIONS: Final = """
    SELECT a.name, a.installed_version IS NOT NULL, bool_or(v.trusted)
    FROM pg_available_extensions a JOIN pg_available_extension_versions v ON v.name = a.name
    WHERE a.name = ANY (%s) GROUP BY 1, 2 ORDER BY 1
"""
# Where this role may make a table, if it can make anything at all.
_CREATABLE: Final = """
    SELECT nspname FROM pg_namespace
    WHERE has_schema_privilege(oid, 'CREATE') AND nspname <> 'information_schema' AND nspname NOT LIKE 'pg\\_%'
    ORDER BY nspname <> 'public', nspname LIMIT 1
"""
_SHOWN: Final = 3
# Errors of class 22 name the value, but for those of the form of a row (PostgreSQL manual, appendix A).
_DATA_EXCEPTION: Final = "22"
_BAD_COPY_FORMAT: Final = "22P04"
_PAUSE: Final = 0.1
"""Seconds between looks at who has connected meanwhile."""
LOCKS_HINT: Final = (
    "The server has no room for the locks of one transaction on all tables and indexes: raise"
    " max_locks_per_transaction (to 4096, say) and restart it, or give the role CREATEDB, and use the strategy swap."
)


@frozen(kw_only=True)
class DatabaseState:
    """One database as it is now, as far as a restore cares."""

    size: int
    """Bytes."""
    tables: int
    why_not_replace: str | None
    """Why the role cannot create a database that takes the place of this one; None where it can."""
    superuser: bool
    sessions: tuple[tuple[str, int], ...]
    """Who else is connected, and how often."""


def maintenance_connection(database: Database) -> psycopg.Connection[TupleRow]:
    """Connect to the server of `database`, but not to itself. Raises `DatabaseError`."""
    for name in _MAINTENANCE[:-1]:
        try:
            return connect(evolve(database, dbname=name), autocommit=True)
        except DatabaseError:
            continue
    return connect(evolve(database, dbname=_MAINTENANCE[-1]), autocommit=True)


def exists(connection: psycopg.Connection[TupleRow], dbname: str) -> bool:
    """Return whether the server has a database of that name."""
    return connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [dbname]).fetchone() is not None


def may_create_databases(connection: psycopg.Connection[TupleRow]) -> bool:
    """Return whether the role of this connection may create databases."""
    row = connection.execute("SELECT rolsuper OR rolcreatedb FROM pg_roles WHERE rolname = current_user").fetchone()
    return row is not None and bool(row[0])


def superuser(connection: psycopg.Connection[TupleRow]) -> bool:
    """Return whether the role of this connection is a superuser."""
    row = connection.execute("SELECT rolsuper FROM pg_roles WHERE rolname = current_user").fetchone()
    return row is not None and bool(row[0])


def database_state(database: Database) -> DatabaseState:
    """Look at `database`. Raises `DatabaseError`."""
    import psycopg

    with connect(database, autocommit=True) as connection:
        try:
            row = connection.execute(_STATE).fetchone()
            tables = connection.execute(_TABLES).fetchone()
            sessions = connection.execute(_SESSIONS).fetchall()
            privileged = privileged_settings(connection)
        except psycopg.Error as error:
            raise database_error(database, "cannot be looked at", error) from error
    if row is None or tables is None:
        raise DatabaseError(f"{where(database)}: the server answered with nothing")
    size, owns, superuser, creates, default_space = row
    why_not = None
    if not (superuser or creates):
        why_not = "the role may not create databases"
    elif not (superuser or owns):
        why_not = "the role does not own it"
    elif not default_space:
        why_not = "it lies in a tablespace of its own"
    elif privileged and not superuser:
        why_not = f"only a superuser may give {', '.join(privileged[:_SHOWN])} to another database"
    return DatabaseState(
        size=size, tables=tables[0], why_not_replace=why_not, superuser=superuser, sessions=tuple(sessions)
    )


@frozen
class Extensions:
    """Extensions that a dump needs, by what stands in the way of creating them."""

    unavailable: tuple[str, ...]
    """Not installed on the server at all."""
    absent: tuple[str, ...]
    """Not created in the database that was asked."""
    untrusted: tuple[str, ...]
    """To be created by a superuser only (PostgreSQL manual, CREATE EXTENSION)."""


def extensions_lacking(connection: psycopg.Connection[TupleRow], names: Iterable[str]) -> Extensions:
    """Look for the extensions that a dump needs, in the database of `connection` and on its server."""
    names = sorted(set(names))
    found = connection.execute(_EXTENSIONS, [names]).fetchall()
    available = {name for name, _, _ in found}
    return Extensions(
        unavailable=tuple(name for name in names if name not in available),
        absent=tuple(name for name, created, _ in found if not created),
        untrusted=tuple(name for name, _, trusted in found if not trusted),
    )


def extensions_of(connection: psycopg.Connection[TupleRow]) -> list[tuple[str, str]]:
    """Return the extensions of a database, and the schema of each, in the order of their creation."""
    query = (
        "SELECT e.extname, n.nspname FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace ORDER BY e.oid"
    )
    return [(name, schema) for name, schema in connection.execute(query).fetchall()]


def create_extension(connection: psycopg.Connection[TupleRow], name: str, schema: str) -> None:
    """Create an extension and its schema, unless they are there."""
    from psycopg import sql

    if schema != "pg_catalog":
        connection.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(schema)))
    connection.execute(
        sql.SQL("CREATE EXTENSION IF NOT EXISTS {} SCHEMA {} CASCADE").format(
            sql.Identifier(name), sql.Identifier(schema)
        )
    )


def data_directory(connection: psycopg.Connection[TupleRow], database: Database) -> Path | None:
    """Return where the server keeps its data, where that is on this machine, and we may know and see it."""
    if database.host and not database.host.startswith("/"):
        return None
    row = connection.execute(
        "SELECT setting FROM pg_settings WHERE name = 'data_directory'"  # no row without the privilege to see it
    ).fetchone()
    directory = Path(row[0]) if row and row[0] else None
    try:
        return directory if directory is not None and (directory / "postmaster.pid").exists() else None
    except OSError:
        return None


def create(connection: psycopg.Connection[TupleRow], new: str, *, mark: str) -> None:
    """Create an empty database as the server makes them, in UTF-8, with a comment to know it by."""
    from psycopg import sql

    connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0 ENCODING 'UTF8'").format(sql.Identifier(new)))
    comment(connection, new, mark)


def comment(connection: psycopg.Connection[TupleRow], dbname: str, text: str | None) -> None:
    """Set, or remove, the comment on a database."""
    from psycopg import sql

    connection.execute(sql.SQL("COMMENT ON DATABASE {} IS {}").format(sql.Identifier(dbname), sql.Literal(text)))


def comment_of(connection: psycopg.Connection[TupleRow], dbname: str) -> str | None:
    """Return the comment on a database; None without one, and without the database."""
    row = connection.execute(
        "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = %s", [dbname]
    ).fetchone()
    return row[0] if row else None


def create_mark(connection: psycopg.Connection[TupleRow], mark: str) -> None:
    """Create an empty table that tells, from the commit on, that this transaction has ended well."""
    from psycopg import sql

    row = connection.execute(_CREATABLE).fetchone()
    if row is not None:
        connection.execute(sql.SQL("CREATE TABLE {} ()").format(sql.Identifier(row[0], mark)))


def schema_of(connection: psycopg.Connection[TupleRow], mark: str) -> str | None:
    """Return the schema where a mark is; None where there is none."""
    row = connection.execute(
        "SELECT n.nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relname = %s", [mark]
    ).fetchone()
    return row[0] if row else None


def drop_mark(connection: psycopg.Connection[TupleRow], mark: str) -> None:
    """Drop a mark. One that is not there is none."""
    from psycopg import sql

    if (schema := schema_of(connection, mark)) is not None:
        connection.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier(schema, mark)))


def analyses(connection: psycopg.Connection[TupleRow]) -> list[bytes]:
    """Return the statements that gather statistics on all tables of this role, the largest first.

    Not on the catalogs: the locks on those that all databases share would stay until the end of a transaction, and
    keep that of another database waiting for ever.
    """
    return [f"ANALYZE {name}".encode() for (name,) in connection.execute(_ANALYZED).fetchall()]


def hasten(connection: psycopg.Connection[TupleRow]) -> None:
    """Set up a session that loads a database which nobody needs if the server crashes."""
    connection.execute("SET synchronous_commit = off")


def sort_within(connection: psycopg.Connection[TupleRow], limit: int | None) -> None:
    """Let what a session sorts to make an index take no more than `limit` bytes at a time; None: as the server has it.

    Never more than the server has: more of it makes B-trees slower. PostgreSQL 15 took 9.4 s of processor time for
    twelve of them with 16 MB, 10.7 s with 32 MB, 12 s with 64 MB: what is sorted at a time leaves the caches.
    """
    connection.execute("RESET maintenance_work_mem")
    if limit is not None:
        connection.execute(
            "SELECT set_config(name, least(setting::bigint, %s)::text, false)"
            " FROM pg_catalog.pg_settings WHERE name = 'maintenance_work_mem'",
            [limit >> 10],
        )


def drop(database: Database, connection: psycopg.Connection[TupleRow], dbname: str) -> None:
    """Drop a database, whoever is connected to it. One that does not exist is none."""
    from psycopg import sql

    with _throwing_out(database, [dbname]):
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {}").format(sql.Identifier(dbname)))


def rename(database: Database, connection: psycopg.Connection[TupleRow], *pairs: tuple[str, str]) -> None:
    """Rename databases on the server of `database`, all of them or none, ending the sessions that use them.

    Raises `DatabaseError` where somebody is connected whom this role may not throw out.
    """
    import psycopg
    from psycopg import sql

    try:
        with _throwing_out(database, [old for old, _ in pairs]), connection.transaction():
            connection.execute("SET LOCAL synchronous_commit = on")
            for old, new in pairs:
                connection.execute(
                    sql.SQL("ALTER DATABASE {} RENAME TO {}").format(sql.Identifier(old), sql.Identifier(new))
                )
    except psycopg.errors.ObjectInUse as error:
        raise DatabaseError(
            f"the database {pairs[0][0]} is in use, and cannot be renamed: {error.diag.message_detail}",
            hint="Stop what connects to it (Puma, Sidekiq, a connection pooler), then try again.",
        ) from error


@contextmanager
def _throwing_out(database: Database, dbnames: list[str]) -> Iterator[None]:
    """End all other sessions of these databases, again and again while the block runs.

    While a database is being renamed or dropped, the server lets nobody in, and waits some seconds for those who
    are to leave (`CountOtherDBBackends`). So nobody can come back too fast.
    """
    import psycopg

    done = Event()

    def throw_out(connection: psycopg.Connection[TupleRow]) -> None:
        with suppress(psycopg.Error):  # the block says what went wrong
            while not done.wait(_PAUSE):
                connection.execute(_TERMINATE, [dbnames])

    with maintenance_connection(database) as connection:
        connection.execute(_TERMINATE, [dbnames])
        thread = Thread(target=throw_out, args=[connection], name="throwing out")
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()


def in_words(error: psycopg.Error) -> str:
    """Return what the server said, without values: details, context, and some messages show those of a row."""
    if error.sqlstate is None or error.diag.message_primary is None:
        return "; ".join(line.strip() for line in str(error).splitlines() if line.strip())
    if error.sqlstate.startswith(_DATA_EXCEPTION) and error.sqlstate != _BAD_COPY_FORMAT:
        words = re.sub(r"(?<!^)(?=[A-Z])", " ", type(error).__name__).lower()
        return f"{words} (SQLSTATE {error.sqlstate})"
    return error.diag.message_primary


@contextmanager
def speaking(database: Database, what: str) -> Iterator[None]:
    """Turn what psycopg raises into a `DatabaseError` that says that `what` failed on `database`."""
    import psycopg

    try:
        yield
    except psycopg.Error as error:
        hint = LOCKS_HINT if isinstance(error, psycopg.errors.OutOfMemory) else None
        raise DatabaseError(f"{where(database)}: {what}: {in_words(error)}", hint=hint) from None
