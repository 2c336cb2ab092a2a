"""What makes a database the one it is, besides its content: given to the one that takes its place."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from attrs import frozen

from ...errors import DatabaseError

if TYPE_CHECKING:
    import psycopg
    from psycopg.rows import TupleRow

# Columns that not every version has are asked for by name (`daticulocale` is `datlocale` since PostgreSQL 17).
_ABOUT: Final = """
    SELECT pg_encoding_to_char(encoding), datcollate, datctype, pg_get_userbyid(datdba), datconnlimit,
           to_jsonb(d) ->> 'datlocprovider', coalesce(to_jsonb(d) ->> 'datlocale', to_jsonb(d) ->> 'daticulocale'),
           to_jsonb(d) ->> 'daticurules', shobj_description(oid, 'pg_database')
    FROM pg_database d WHERE datname = %s
"""
_SETTINGS: Final = """
    SELECT coalesce(r.rolname, ''), unnest(s.setconfig)
    FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase LEFT JOIN pg_roles r ON r.oid = s.setrole
    WHERE d.datname = %s
"""
_GRANTS: Final = """
    SELECT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END,
           a.privilege_type, a.is_grantable
    FROM pg_database d, LATERAL aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a
    WHERE d.datname = %s
"""
# Settings whose values are lists of names (PostgreSQL, `GUC_LIST_QUOTE`; as in pg_dump's `dumputils.c`).
_LISTS: Final = frozenset(
    {
        "local_preload_libraries",
        "search_path",
        "session_preload_libraries",
        "shared_preload_libraries",
        "temp_tablespaces",
        "unix_socket_directories",
    }
)
_NAME: Final = re.compile(r'\s*(?:"((?:[^"]|"")*)"|([^,"\s]+))\s*(?:,|\Z)')
# What only a superuser, or the role itself, may set for a database.
_PRIVILEGED: Final = """
    SELECT 'the setting ' || split_part(c, '=', 1) || coalesce(' of the role ' || r.rolname, '')
    FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase
         LEFT JOIN pg_roles r ON r.oid = s.setrole, unnest(s.setconfig) c
    WHERE d.datname = current_database()
      AND (s.setrole <> 0 AND r.rolname <> current_user
           OR EXISTS (SELECT 1 FROM pg_settings g
                      WHERE g.name = split_part(c, '=', 1) AND g.context NOT IN ('user', 'backend')))
    ORDER BY 1
"""


@frozen
class Properties:
    """The properties that CREATE DATABASE takes."""

    encoding: str
    collation: str
    ctype: str
    owner: str
    limit: int
    provider: str | None
    locale: str | None
    rules: str | None
    comment: str | None

    @classmethod
    def of(cls, connection: psycopg.Connection[TupleRow], dbname: str) -> Properties:
        """Read them from the server. Raises `DatabaseError` where there is no such database."""
        row = connection.execute(_ABOUT, [dbname]).fetchone()
        if row is None:
            raise DatabaseError(f"the database {dbname} is gone")
        return cls(*row)


def privileged_settings(connection: psycopg.Connection[TupleRow]) -> list[str]:
    """Return the settings of the database of this connection that only a superuser could give to another one."""
    return [name for (name,) in connection.execute(_PRIVILEGED).fetchall()]


def create_like(connection: psycopg.Connection[TupleRow], new: str, like: str) -> None:
    """Create the empty database `new` with the encoding, locale and owner of `like`. Others may not connect to it."""
    from psycopg import sql

    about = Properties.of(connection, like)
    options: list[tuple[str, str | None]] = [
        ("ENCODING", about.encoding),
        ("LC_COLLATE", about.collation),
        ("LC_CTYPE", about.ctype),
    ]
    if about.provider == "i":
        options += [("LOCALE_PROVIDER", "icu"), ("ICU_LOCALE", about.locale), ("ICU_RULES", about.rules)]
    elif about.provider == "b":
        options += [("LOCALE_PROVIDER", "builtin"), ("BUILTIN_LOCALE", about.locale)]
    words = [sql.SQL(key + " {}").format(sql.Literal(value)) for key, value in options if value is not None]
    connection.execute(
        sql.SQL("CREATE DATABASE {} TEMPLATE template0 OWNER {} {}").format(
            sql.Identifier(new), sql.Identifier(about.owner), sql.SQL(" ").join(words)
        )
    )
    connection.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(sql.Identifier(new)))


def copy_properties(connection: psycopg.Connection[TupleRow], new: str, like: str) -> None:
    """Give `new` the connection limit, comment, settings and grants of `like`: after it was loaded without them."""
    from psycopg import sql

    about = Properties.of(connection, like)
    name = sql.Identifier(new)
    connection.execute(sql.SQL("ALTER DATABASE {} CONNECTION LIMIT {}").format(name, sql.Literal(about.limit)))
    connection.execute(sql.SQL("COMMENT ON DATABASE {} IS {}").format(name, sql.Literal(about.comment)))
    for role, setting in connection.execute(_SETTINGS, [like]).fetchall():
        key, _, value = setting.partition("=")
        whom = sql.SQL("ROLE {} IN DATABASE {}").format(sql.Identifier(role), name)
        connection.execute(
            sql.SQL("ALTER {} SET {} TO {}").format(
                whom if role else sql.SQL("DATABASE {}").format(name),
                sql.SQL(".").join(map(sql.Identifier, key.split("."))),
                sql.SQL(", ").join(map(sql.Literal, setting_values(key, value))),
            )
        )
    # Whoever granted, the grants of the new database are its owner's.
    connection.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC, {}").format(name, sql.Identifier(about.owner)))
    for grantee, privilege, grantable in connection.execute(_GRANTS, [like]).fetchall():
        option = sql.SQL(" WITH GRANT OPTION" if grantable and grantee != "PUBLIC" else "")
        connection.execute(
            sql.SQL("GRANT {} ON DATABASE {} TO {}{}").format(sql.SQL(privilege), name, sql.SQL(grantee), option)
        )


def setting_values(name: str, value: str) -> list[str]:
    """Return the values to SET: the names of a list one by one, everything else as it is."""
    if name not in _LISTS:
        return [value]
    return [
        match[1].replace('""', '"') if match[1] is not None else match[2].lower() for match in _NAME.finditer(value)
    ] or [""]
