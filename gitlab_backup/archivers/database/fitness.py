"""Whether the role that GitLab uses may do what a backup and a restore need. Looks, and changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ...instance.postgres import POOLER_HINT, connect, database_error, without_timeouts
from . import server
from .checks import obstacles
from .preface import Preface

if TYPE_CHECKING:
    from ...instance import Database
    from .snapshot import Snapshot

# pg_dump locks and reads tables, and reads the state of sequences; of views it reads the definition only. A table of
# which row-level security hides something it refuses (PostgreSQL manual, pg_dump, `--enable-row-security`).
_UNREADABLE: Final = """
    SELECT format('%%I.%%I', n.nspname, c.relname)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'S') AND c.relpersistence <> 't'
      AND n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\\_%%'
      AND (cardinality(%(schemas)s::text[]) = 0 OR n.nspname = ANY (%(schemas)s))
      AND NOT EXISTS (SELECT 1 FROM pg_depend x WHERE x.classid = 'pg_class'::regclass
                                                  AND x.objid = c.oid AND x.deptype = 'e')
      AND (NOT has_schema_privilege(n.oid, 'USAGE') OR NOT has_table_privilege(c.oid, 'SELECT')
           OR c.relkind <> 'S' AND row_security_active(c.oid))
    ORDER BY 1
"""


def unreadable(snapshot: Snapshot) -> list[str]:
    """Return the tables and sequences that pg_dump could not read, asked on a second connection as pg_dump would.

    Raises `DatabaseError` where that connection cannot use the snapshot of the first: then pg_dump cannot, either.
    """
    import psycopg
    from psycopg import sql

    database = snapshot.database
    with connect(database) as connection:
        try:
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            connection.read_only = True
            without_timeouts(connection)
            connection.execute(sql.SQL("SET TRANSACTION SNAPSHOT {}").format(sql.Literal(snapshot.id)))
        except psycopg.Error as error:
            raise database_error(
                database, "a second connection cannot use the snapshot of the first", error, hint=POOLER_HINT
            ) from error
        with server.speaking(database, "cannot be looked at"):
            found = connection.execute(_UNREADABLE, {"schemas": list(database.schemas)}).fetchall()
    return [name for (name,) in found]


def ways_of_restore(database: Database) -> tuple[str | None, str | None]:
    """Return why a dump of `database` could neither be swapped in nor restored in a transaction; None where it could.

    Raises `DatabaseError`.
    """
    state = server.database_state(database)
    with connect(database, autocommit=True) as connection, server.speaking(database, "cannot be looked at"):
        names = [name for name, _ in server.extensions_of(connection)]
        lacking = server.extensions_lacking(connection, names)
    # No dump is looked at: it is taken to be one of this database.
    return obstacles(database, Preface(None, tuple(names)), lacking, state, database.schemas)
