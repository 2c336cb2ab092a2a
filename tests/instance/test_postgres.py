"""Connections to real servers that let in, and that refuse."""

from __future__ import annotations

import os
import socket
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from gitlab_backup.errors import ConfigurationError, DatabaseError
from gitlab_backup.instance import Database
from gitlab_backup.instance.postgres import behind_pooler, connect, server_version
from tests.support.accounts import is_root

from .strict_cluster import PASSWORD, SYSTEM_USER, strict_cluster

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support import postgres


@pytest.fixture(scope="module")
def strict() -> Iterator[postgres.Cluster]:
    """A server that asks who you are."""
    with strict_cluster() as server:
        yield server


def on(cluster: postgres.Cluster, dbname: str = "postgres", **changes: object) -> Database:
    """Describe a database of the server that trusts everybody."""
    values: dict[str, object] = {
        "name": "main",
        "dbname": dbname,
        "host": str(cluster.socket_directory),
        "port": cluster.port,
        "user": cluster.superuser,
        **changes,
    }
    return Database(**values)  # type: ignore[arg-type]


def refusal(database: Database) -> DatabaseError:
    """Try to connect, and return the error."""
    with pytest.raises(DatabaseError) as caught, connect(database):
        pass
    return caught.value


def test_a_connection_is_one_to_the_database(cluster: postgres.Cluster, database: str) -> None:
    """The session is in the database, under the name of this tool, in UTF-8, and knows the server's version."""
    with connect(on(cluster, database)) as connection:
        row = connection.execute(
            "SELECT current_database(), current_setting('application_name'), current_setting('client_encoding')"
        ).fetchone()
        number = connection.execute("SELECT current_setting('server_version_num')::int").fetchone()
        version = server_version(connection)

    assert (database, "gitlab-backup", "UTF8") == row
    assert (version,) == number


def test_no_timeout_ends_a_session(cluster: postgres.Cluster, database: str) -> None:
    """What the administrator set for GitLab's own queries does not end a snapshot that is held for hours."""
    names = ["statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"]
    for name in names:
        cluster.psql(f'ALTER DATABASE "{database}" SET {name} = 54321')

    with connect(on(cluster, database)) as connection:
        connection.rollback()  # settings are those of the session, not of a transaction
        values = [connection.execute(f"SHOW {name}").fetchone() for name in names]

    assert [("0",)] * len(names) == values


@pytest.mark.parametrize("autocommit", [True, False])
def test_autocommit_is_as_asked_for(cluster: postgres.Cluster, *, autocommit: bool) -> None:
    """The session is handed over without an open transaction, in the mode that was asked for."""
    with connect(on(cluster), autocommit=autocommit) as connection:
        assert autocommit == connection.autocommit
        assert connection.info.transaction_status.name == "IDLE"


def test_the_environment_of_the_caller_does_not_matter(
    cluster: postgres.Cluster, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`PGOPTIONS` and the like of whoever started this process change nothing."""
    variables = {
        "PGHOST": "/nonexistent",
        "PGHOSTADDR": "192.0.2.1",
        "PGDATABASE": "x",
        "PGUSER": "x",
        "PGSSLMODE": "bad",
        "PGSERVICE": "missing",
        "PGTARGETSESSIONATTRS": "bad",
        "PGTZ": "Asia/Kathmandu",
        "PGOPTIONS": "-c search_path=elsewhere",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    with connect(on(cluster, database)) as connection:
        assert connection.execute("SHOW search_path").fetchone() == ('"$user", public',)
        assert connection.execute("SHOW timezone").fetchone() != ("Asia/Kathmandu",)
    assert variables == {name: os.environ[name] for name in variables}


def test_a_missing_database_is_said(cluster: postgres.Cluster) -> None:
    """The error names connection, database, server and user; the hint says what to look at."""
    error = refusal(on(cluster, "absent", name="ci", password="hidden"))  # noqa: S106

    for part in ("ci", "absent", str(cluster.socket_directory), cluster.superuser, "does not exist"):
        assert part in error.message
    assert "database name of ci" in str(error.hint)
    assert "hidden" not in f"{error!r} {error.message} {error.hint}"


def test_a_missing_role_is_said(cluster: postgres.Cluster) -> None:
    """It is the user name that has to be looked at, not that of the database."""
    assert "user name of main" in str(refusal(on(cluster, user="stranger")).hint)


def test_a_socket_without_a_server_is_said(tmp_path: Path) -> None:
    """No server: the hint is to start it or to correct host and port."""
    error = refusal(Database(name="main", dbname="x", host=str(tmp_path), user="x"))

    assert str(tmp_path) in error.message
    assert "Start it" in str(error.hint)


def test_a_port_without_a_server_is_said() -> None:
    """The same over TCP."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound, but not listening: refused
        error = refusal(Database(name="main", dbname="x", host="127.0.0.1", port=unused.getsockname()[1], user="x"))

    assert "Start it" in str(error.hint)


def test_a_server_that_says_nothing_is_given_up(tmp_path: Path) -> None:
    """Somebody listens, and never answers: after the timeout it is an error."""
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / ".s.PGSQL.5432"))
        silent.listen()
        error = refusal(Database(name="main", dbname="x", host=str(tmp_path), port=5432, user="x", connect_timeout=2))

    assert "did not answer" in str(error.hint)


def test_too_many_connections_are_said(cluster: postgres.Cluster, database: str) -> None:
    """A limit that is reached is named as one."""
    cluster.psql(f"CREATE ROLE limited_{database} LOGIN CONNECTION LIMIT 0")
    error = refusal(on(cluster, database, user=f"limited_{database}"))
    cluster.psql(f"DROP ROLE limited_{database}")

    assert "max_connections" in str(error.hint)


def test_the_password_is_used(strict: postgres.Cluster) -> None:
    """Quotes, blanks and backslashes in it are only characters."""
    with connect(on(strict, "gitlabhq", host="127.0.0.1", user="gitlab", password=PASSWORD)) as connection:
        assert connection.execute("SELECT current_user").fetchone() == ("gitlab",)


def test_a_wrong_password_is_said_and_not_shown(strict: postgres.Cluster) -> None:
    """Neither the error nor anything that hangs on it holds the password."""
    error = refusal(on(strict, "gitlabhq", host="127.0.0.1", user="gitlab", password="hunter2"))  # noqa: S106

    assert "password" in str(error.hint)
    shown = f"{error!r} {error} {error.hint} {error.__cause__!r}"
    assert "hunter2" not in shown


def test_a_missing_password_is_said(strict: postgres.Cluster) -> None:
    """The server asks, and there is none to give."""
    error = refusal(on(strict, "gitlabhq", host="127.0.0.1", user="gitlab"))

    assert "asks for a password" in str(error.hint)


def peer(strict: postgres.Cluster, system_user: str | None) -> Database:
    return on(strict, "gitlabhq", user="gitlab", system_user=system_user)


def test_the_socket_refuses_root(strict: postgres.Cluster) -> None:
    """Peer authentication goes by the system user; the hint says as whom to run."""
    if not is_root():
        pytest.skip("only root can be refused as root")
    error = refusal(peer(strict, None))

    assert "Peer authentication failed" in error.message
    assert "as root or as the user of GitLab" in str(error.hint)


def test_root_connects_as_the_system_user(strict: postgres.Cluster) -> None:
    """With the system user that the server expects, root is let in, and is root again afterwards."""
    if not is_root():
        pytest.skip("only root can act as somebody else")
    with connect(peer(strict, SYSTEM_USER)) as connection:
        assert connection.execute("SELECT current_user").fetchone() == ("gitlab",)

    assert os.getresuid() == (0, 0, 0)


def test_other_threads_stay_root_while_one_connects(strict: postgres.Cluster) -> None:
    """However often one thread connects as the system user, another never sees itself as anybody but root."""
    if not is_root():
        pytest.skip("only root can act as somebody else")
    seen, done = set(), threading.Event()

    def watch() -> None:
        while not done.is_set():
            seen.add((os.geteuid(), os.getegid()))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        for _ in range(10):
            connect(peer(strict, SYSTEM_USER)).close()
    finally:
        done.set()
        watcher.join()

    assert {(0, 0)} == seen


def test_a_system_user_that_does_not_exist_is_said(strict: postgres.Cluster) -> None:
    """It is the configuration that is wrong, not the server."""
    if not is_root():
        pytest.skip("only root becomes another")
    with pytest.raises(ConfigurationError, match="no-such-user-here"):
        connect(peer(strict, "no-such-user-here"))


def test_a_direct_connection_is_not_taken_for_a_pooler(cluster: postgres.Cluster) -> None:
    """PostgreSQL itself tells the same process id at the start and when asked."""
    with connect(on(cluster)) as connection:
        assert not behind_pooler(connection)


def test_a_pooler_is_noticed(cluster: postgres.Cluster, tmp_path: Path) -> None:
    """Something between that makes up the process id, as PgBouncer does, is found out."""
    with pooler(cluster, tmp_path), connect(on(cluster, host=str(tmp_path))) as connection:
        assert behind_pooler(connection)


@contextmanager
def pooler(cluster: postgres.Cluster, directory: Path) -> Iterator[None]:
    """Stand between one client and the server, and tell the client a process id of one's own."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(directory / f".s.PGSQL.{cluster.port}"))
        listener.listen()
        thread = threading.Thread(target=_serve_one, args=(cluster, listener))
        thread.start()
        try:
            yield
        finally:
            thread.join()


def _serve_one(cluster: postgres.Cluster, listener: socket.socket) -> None:
    client, _ = listener.accept()
    server = socket.socket(socket.AF_UNIX)
    with client, server:
        server.connect(str(cluster.socket_directory / f".s.PGSQL.{cluster.port}"))
        back = threading.Thread(target=_forward, args=(server, client))
        back.start()
        while data := client.recv(65536):
            server.sendall(data)
        server.shutdown(socket.SHUT_WR)
        back.join()


def _forward(server: socket.socket, client: socket.socket) -> None:
    # PostgreSQL manual, "Message Formats": BackendKeyData is 'K', the length 12, the process id, the secret key.
    key = b"K\x00\x00\x00\x0c"
    while data := server.recv(65536):
        head, found, rest = data.partition(key)
        client.sendall(head + found + b"\x00\x00\x00\x01" + rest[4:] if found else data)
