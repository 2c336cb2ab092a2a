"""Drops what is in a database, in the transaction that will fill it again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    import psycopg
    from psycopg.rows import TupleRow

# Without a search path, every identity below comes with its schema.
_NO_PATH: Final = "SELECT pg_catalog.set_config('search_path', '', true)"
# The schemas that are not the system's and not an extension's, and whether something else keeps them.
_SCHEMAS: Final = """
    SELECT n.oid, quote_ident(n.nspname),
           n.nspname = 'public' OR EXISTS (SELECT 1 FROM pg_extension e WHERE e.extnamespace = n.oid)
    FROM pg_namespace n
    WHERE n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\\_%'
      AND NOT EXISTS (SELECT 1 FROM pg_depend x WHERE x.classid = 'pg_namespace'::regclass
                                                  AND x.objid = n.oid AND x.deptype = 'e')
"""
_CHOSEN: Final = " AND (cardinality(%(schemas)s::text[]) = 0 OR n.nspname = ANY (%(schemas)s))"
# Everything in a schema depends on it. What depends on something else besides goes with that: a sequence of a
# column, the constructors and the multirange of a range type, a partition; or is an extension's.
_CONTENTS: Final = """
    SELECT o.type, o.identity
    FROM pg_depend d, LATERAL pg_identify_object(d.classid, d.objid, 0) o
    WHERE d.refclassid = 'pg_namespace'::regclass AND d.refobjid = %s AND d.deptype = 'n'
      AND d.classid <> 'pg_extension'::regclass
      AND NOT EXISTS (SELECT 1 FROM pg_depend x WHERE x.classid = d.classid AND x.objid = d.objid
                                                  AND x.objsubid = 0 AND x.deptype IN ('e', 'i', 'P', 'S'))
    ORDER BY d.classid = 'pg_class'::regclass DESC, d.classid = 'pg_type'::regclass DESC, 1, 2
"""
# DROP AGGREGATE wants to know more than the types of the arguments.
_KINDS: Final = {
    "aggregate": "ROUTINE",
    "function": "ROUTINE",
    "procedure": "ROUTINE",
    "statistics object": "STATISTICS",
}
_FOREIGN: Final = """
    SELECT format('%%I.%%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND NOT pg_has_role(c.relowner, 'USAGE')
      AND NOT EXISTS (SELECT 1 FROM pg_depend x WHERE x.classid = 'pg_class'::regclass
                                                  AND x.objid = c.oid AND x.deptype = 'e')
      AND n.oid IN (SELECT s.oid FROM ({schemas}) s) ORDER BY 1
"""
_OTHERS: Final = """
    SELECT n.nspname FROM pg_namespace n
    WHERE n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\\_%%' AND NOT n.nspname = ANY (%s)
      AND EXISTS (SELECT 1 FROM pg_class c WHERE c.relnamespace = n.oid
                  AND NOT EXISTS (SELECT 1 FROM pg_depend x WHERE x.classid = 'pg_class'::regclass
                                                              AND x.objid = c.oid AND x.deptype = 'e'))
    ORDER BY 1
"""


def empty(connection: psycopg.Connection[TupleRow], schemas: Sequence[str] = ()) -> None:
    """Drop everything in `schemas` (empty: in all) but extensions, in the transaction open on `connection`.

    GitLab's own tools drop the tables, views and partition schemas only, and rely on the dump for the rest: what the
    dump does not know would stay. What is in no schema stays here, too, and GitLab has none of it: large objects,
    casts, event triggers, publications, foreign servers, default privileges. So do the grants on the schema `public`.

    Raises what psycopg raises; `OutOfMemory` where the server has no room for a lock on each relation.
    """
    connection.execute(_NO_PATH)
    found = connection.execute(_schemas(), {"schemas": list(schemas)}).fetchall()
    for _, name, stays in found:
        if not stays:
            _drop(connection, "SCHEMA", name)
    for oid, _, stays in found:
        if stays:
            for kind, identity in connection.execute(_CONTENTS, [oid]).fetchall():
                _drop(connection, _KINDS.get(kind, kind.upper()), identity)


def not_owned(connection: psycopg.Connection[TupleRow], schemas: Sequence[str] = ()) -> list[str]:
    """Return the relations that `empty` would have to drop, and this role may not."""
    query = _FOREIGN.format(schemas=_schemas().decode())
    return [name for (name,) in connection.execute(query.encode(), {"schemas": list(schemas)}).fetchall()]


def other_schemas(connection: psycopg.Connection[TupleRow], schemas: Sequence[str]) -> list[str]:
    """Return the schemas that hold relations and are not of `schemas`."""
    return [name for (name,) in connection.execute(_OTHERS, [list(schemas)]).fetchall()]


def _schemas() -> bytes:
    return (_SCHEMAS.replace("%'", "%%'") + _CHOSEN).encode()


def _drop(connection: psycopg.Connection[TupleRow], kind: str, identity: str) -> None:
    # Both come from the server, quoted where SQL needs it.
    connection.execute(f"DROP {kind} IF EXISTS {identity} CASCADE".encode())
