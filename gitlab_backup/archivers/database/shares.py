"""How the rows of a database are shared among several runs of pg_dump."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from attrs import frozen

from ...instance.postgres import connect, database_error, without_timeouts
from .snapshot import pooler_hint

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...streams.cancel import Cancellation
    from .snapshot import Snapshot

_MOST: Final = 8
"""Runs of pg_dump on one database: more need more memory than a backup may take."""
_MOST_TABLES: Final = 500
"""Tables that are shared, the largest: their names have to fit into a command line."""
# Exactly the tables whose rows pg_dump copies as they are, but for unlogged ones, which a standby cannot read.
_TABLES: Final = """
    SELECT n.nspname, c.relname, coalesce(pg_table_size(c.oid), 0)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND n.nspname <> 'information_schema'
      AND n.nspname NOT LIKE 'pg\\_%%' AND (%(schemas)s::text[] = '{}' OR n.nspname = ANY (%(schemas)s))
      AND NOT EXISTS (SELECT FROM pg_depend d
                      WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
    ORDER BY 3 DESC, 1, 2
"""
# pg_dump gets names in the encoding of the database.
_PLAIN: Final = re.compile(r"[ -~]+")
# To pg_dump, the name of a schema is a pattern. This is one that only the schema itself fits.
_EXACT: Final = re.compile(r"[a-z_][a-z0-9_]*")


@frozen(kw_only=True)
class Sharing:
    """From what size on it pays to have several runs of pg_dump, in bytes."""

    database: int = 256 << 20
    """Of a database, on its server, with its indexes. A further pg_dump reads the catalogue first, which took
    0.25 s of processor time for 2,000 tables (PostgreSQL 15): little against a dump of so many bytes."""
    table: int = 16 << 20
    """Of a table on its server. Smaller ones are left to the first run."""
    piece: int = 4 << 20
    """Of rows, in the dump, that are one COPY statement."""

    def streams(self, sizes: Sequence[int], jobs: int) -> list[int]:
        """Return how many runs each of several databases gets: one, or as many as its part of all of them is."""
        total = max(1, sum(sizes))
        return [1 if size < self.database else min(_MOST, max(1, round(jobs * size / total))) for size in sizes]


def share_tables(snapshot: Snapshot, streams: int, sharing: Sharing, cancel: Cancellation) -> list[list[str]]:
    """Return the tables of all runs but the first, which dumps the rest, as pg_dump takes their names.

    Raises `DatabaseError`.
    """
    if not all(map(_EXACT.fullmatch, snapshot.database.schemas)):
        return []
    tables = _tables(snapshot, cancel)
    large = [
        (f'"{_doubled(schema)}"."{_doubled(name)}"', size)
        for schema, name, size in tables
        if size >= sharing.table and _PLAIN.fullmatch(schema + name)
    ][:_MOST_TABLES]
    shares: list[list[str]] = [[] for _ in range(streams)]
    loads = [0] * streams
    # What is left is for the first run, which has to have some rows: it is where those of the others go.
    loads[0] = sum(size for _, _, size in tables) - sum(size for _, size in large)
    for name, size in large:
        lightest = loads.index(min(loads))
        shares[lightest].append(name)
        loads[lightest] += size
    return [share for share in shares[1:] if share]


def _doubled(name: str) -> str:
    return name.replace('"', '""')


def _tables(snapshot: Snapshot, cancel: Cancellation) -> list[tuple[str, str, int]]:
    """Return schema, name and bytes of all tables in the snapshot, the largest first."""
    import psycopg
    from psycopg import sql

    with connect(snapshot.database) as connection:

        def interrupt() -> None:
            with suppress(Exception):  # then the next look at the request ends it
                connection.cancel()

        try:
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            connection.read_only = True
            with cancel.calling(interrupt):
                without_timeouts(connection)
                connection.execute(sql.SQL("SET TRANSACTION SNAPSHOT {}").format(sql.Literal(snapshot.id)))
                # Waits for a table that is being rewritten, as pg_dump does.
                return connection.execute(_TABLES, {"schemas": list(snapshot.database.schemas)}).fetchall()
        except psycopg.Error as error:
            cancel.check()
            hint = pooler_hint(snapshot, str(error))
            raise database_error(snapshot.database, "cannot list the tables", error, hint=hint) from error
