"""Connections to the PostgreSQL databases of an instance."""

from __future__ import annotations

import os
import pwd
import threading
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Final

from ..errors import DatabaseError
from .identity import account_to_become, acting_as

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg
    from psycopg.rows import TupleRow

    from .model import Database

POOLER_HINT: Final = (
    "A connection pooler such as PgBouncer may stand between: it can give each connection to another server,"
    " or take it away between transactions. Go around it: name PostgreSQL itself with GITLAB_BACKUP_PGHOST"
    " and GITLAB_BACKUP_PGPORT."
)

_VARIABLES: Final = threading.Lock()
"""Held by whoever changes the environment of this process."""

# Any of these would end a session that holds a snapshot while a dump runs for hours. Not all servers know all of them.
_OF_TRANSACTIONS: Final = ("idle_in_transaction_session_timeout", "lock_timeout", "statement_timeout")
_TIMEOUTS: Final = (*_OF_TRANSACTIONS, "idle_session_timeout", "transaction_timeout")
_FIRST_WITH_TRANSACTION_TIMEOUT: Final = 170000

# What libpq and the server say, in part, and what to do about it. The first that fits counts. libpq hands
# out no SQLSTATE of a connection that failed, so the words are all there is.
_HINTS: Final = (
    (
        "peer authentication failed",
        "The server lets in only certain system users as {user}. Run this as root or as the user of GitLab.",
    ),
    ("authentication failed", "Check the user name and the password of {name} in database.yml."),
    ("no password supplied", "The server asks for a password. Set that of {name} in database.yml."),
    ("no pg_hba.conf entry", "The server does not let {user} in from here. See its pg_hba.conf."),
    ("database system is starting up", "The server is starting. Wait until it is ready, then try again."),
    ("database system is shutting down", "The server is stopping. Start it, then try again."),
    ("database system is in recovery mode", "The server is recovering from a crash. Wait, then try again."),
    ("not yet accepting connections", "The server is starting. Wait until it is ready, then try again."),
    ("too many", "All connections of the server are in use. Raise max_connections, or stop what holds them."),
    (
        "remaining connection slots",
        "All connections of the server are in use. Raise max_connections, or stop what holds them.",
    ),
    ("unsupported startup parameter", POOLER_HINT),
    ("certificate", "Check the TLS settings of {name} in database.yml."),
    ("role ", "Check the user name of {name} in database.yml."),
    ("does not exist", "Check the database name of {name} in database.yml, or create the database."),
    (
        "no such file or directory",
        "No server listens on that socket. Start it, or correct the host and port of {name} in database.yml.",
    ),
    (
        "connection refused",
        "No server listens there. Start it, or correct the host and port of {name} in database.yml.",
    ),
    (
        "timeout expired",
        "The server did not answer. Check the host and port of {name} in database.yml, and the network.",
    ),
    ("could not translate host name", "Check the host of {name} in database.yml."),
    ("ssl", "Check the TLS settings of {name} in database.yml."),
    (
        "permission denied",
        "This user may not reach the socket. Run this as root or as the system user of GitLab.",
    ),
)


def connect(
    database: Database, *, autocommit: bool = False, application_name: str = "gitlab-backup"
) -> psycopg.Connection[TupleRow]:
    """Return a new connection to `database`, made as its `system_user` where this process is root.

    No timeout of the server ends it, however long it stays idle. Behind a connection pooler that holds only for a
    transaction that begins with `without_timeouts`. Close it when done.

    Raises `DatabaseError`, which names connection, host, database and user, and `ConfigurationError` where
    the system user does not exist.
    """
    import psycopg

    account = account_to_become(database.system_user)
    user = database.user or (account.name if account else pwd.getpwuid(os.geteuid()).pw_name)
    # What is given but empty is libpq's own default, as for pg_dump, which gets a clean environment.
    parameters: dict[str, str | int | None] = {
        "host": database.host or "",
        "port": database.port or "",
        "dbname": database.dbname,
        "user": user,
        "password": database.password or None,
        "options": "",
        "sslmode": "prefer",
        **{name.removeprefix("PG").lower(): value for name, value in database.ssl.items()},
        "client_encoding": "UTF8",
        "application_name": application_name,
        "connect_timeout": database.connect_timeout,
        # An idle connection that a firewall forgets takes its snapshot with it.
        "keepalives_idle": 60,
    }
    try:
        with _without_variables(), acting_as(account) if account else nullcontext():
            # Nothing is prepared: a pooler may lend another server for the next statement, which would not know it.
            connection = psycopg.connect(autocommit=True, prepare_threshold=None, **parameters)  # type: ignore[arg-type]
    except psycopg.Error as error:
        raise _refused(
            database, user, str(error)
        ) from None  # the cause would show nothing more, and its frames the password
    try:
        # The settings of a session that a pooler has lent would stay for whoever is lent it next.
        if not behind_pooler(connection):
            connection.execute(
                "SELECT set_config(name, '0', false) FROM pg_settings WHERE name = ANY (%s)", [list(_TIMEOUTS)]
            )
        connection.autocommit = autocommit
    except psycopg.Error as error:
        connection.close()
        raise database_error(database, "cannot set up the session", error) from error
    return connection


def without_timeouts(connection: psycopg.Connection[TupleRow]) -> None:
    """Begin a transaction that no timeout of the server ends. Raises `psycopg.Error`.

    To be called before its first statement. Starts no snapshot.
    """
    names = list(_OF_TRANSACTIONS)
    if server_version(connection) >= _FIRST_WITH_TRANSACTION_TIMEOUT:
        names.append("transaction_timeout")
    connection.execute("; ".join(f"SET LOCAL {name} = 0" for name in names).encode())


@contextmanager
def _without_variables() -> Iterator[None]:
    """Hide libpq's variables (PGSERVICE, PGTZ, …) of whoever started this process: not all can be overridden."""
    with _VARIABLES:
        hidden = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("PG")}
        if hidden:
            try:
                yield
            finally:
                os.environ.update(hidden)
            return
    yield


def server_version(connection: psycopg.Connection[TupleRow]) -> int:
    """Return the server's version as libpq counts it: 150018 for 15.18. The major version is `// 10000`."""
    return connection.info.server_version


def behind_pooler(connection: psycopg.Connection[TupleRow]) -> bool:
    """Tell whether something stands between this connection and PostgreSQL.

    PgBouncer makes up the process id that a server sends to its client at the start (`src/client.c`,
    `welcome_client`: the cancel key is random), so that it differs from what the server says when asked.
    """
    row = connection.execute("SELECT pg_backend_pid()").fetchone()
    return row is not None and row[0] != connection.info.backend_pid


def where(database: Database) -> str:
    """Return how messages name a database: its connection, name, server and user, never its password."""
    server = database.host or "the default socket"
    port = f":{database.port}" if database.port else ""
    user = f" as {database.user}" if database.user else ""
    return f"database {database.name} ({database.dbname} on {server}{port}{user})"


def database_error(database: Database, what: str, error: Exception, *, hint: str | None = None) -> DatabaseError:
    """Return the error that says that `what` failed on `database`, with the server's own words."""
    return DatabaseError(f"{where(database)}: {what}: {_one_line(str(error))}", hint=hint)


def _refused(database: Database, user: str, message: str) -> DatabaseError:
    words = message.lower()
    hint = next(
        (hint for part, hint in _HINTS if part in words),
        "Check {name} in database.yml, and the server's log.",
    )
    named = where(database) if database.user else f"{where(database)} as {user}"
    return DatabaseError(
        f"cannot connect to {named}: {_one_line(message)}", hint=hint.format(name=database.name, user=user)
    )


def _one_line(message: str) -> str:
    return "; ".join(line.strip() for line in message.splitlines() if line.strip())
