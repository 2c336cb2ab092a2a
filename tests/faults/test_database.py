"""Servers that restart, sessions that end, timeouts of the administrator, and poolers."""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import threading
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Final

import psycopg
import pytest
from attrs import evolve

from gitlab_backup import Backup
from gitlab_backup.errors import BackupFailedError
from tests.operations.hostile import after_rows, leftovers, plain, rewrite_dump
from tests.operations.programs import with_program
from tests.support import compare, postgres
from tests.support.accounts import is_root, unprivileged

from .outcomes import entries

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from gitlab_backup import Instance
    from tests.support.installation import ThrowawayInstallation
    from tests.support.postgres import Cluster

    from .conftest import World
    from .plugin import Injected

_TERMINATE = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = '{}' AND {}"
OF_PG_DUMP = "application_name = 'gitlab-backup' AND wait_event_type = 'Lock'"
OF_THE_SNAPSHOT = "application_name = 'gitlab-backup' AND state = 'idle in transaction'"
_WAITS = "SELECT count(*) FROM pg_stat_activity WHERE datname = '{}' AND {}"


def _while_dumping(cluster: Cluster, dbname: str, act: Callable[[], object], back_up: Callable[[], object]) -> str:
    """Hold up pg_dump by a lock, as a migration does it, and do something then. Return the error of the backup."""
    errors: list[str] = []

    def run() -> None:
        try:
            back_up()
        except BackupFailedError as error:
            errors.append(f"{error} {error.hint}")

    migration = psycopg.connect(cluster.dsn(dbname))
    try:
        migration.execute("LOCK TABLE held IN ACCESS EXCLUSIVE MODE")
        thread = threading.Thread(target=run)
        thread.start()
        while cluster.psql(_WAITS.format(dbname, OF_PG_DUMP)) == "0" and thread.is_alive():
            select.select([], [], [], 0.02)
        act()
        thread.join(100)
    finally:
        migration.close()
    assert not thread.is_alive()
    return errors[0]


@pytest.mark.parametrize("which", [OF_PG_DUMP, OF_THE_SNAPSHOT, "true"])
def test_a_connection_that_is_cut(source: ThrowawayInstallation, injected: Injected, which: str) -> None:
    """That of pg_dump, that which holds the snapshot, or all: no backup, and the error is that of the server."""
    cluster, dbname = source.cluster, source.databases["main"]
    cluster.psql("CREATE TABLE IF NOT EXISTS held (id int); ALTER TABLE held OWNER TO gitlab", dbname)
    try:
        if which == OF_THE_SNAPSHOT:
            script = (
                'case " $* " in *" --version "*) exec $REAL "$@";; esac\n'
                f"{cluster.programs}/psql -qXAt -h {cluster.socket_directory} -p {cluster.port} -U {cluster.superuser}"
                f' -d postgres -c "{_TERMINATE.format(dbname, which)}" >/dev/null\n'
                'exec $REAL "$@"'
            )
            instance = with_program(source.instance(), source.directory / "bin", "pg_dump", script)
            with pytest.raises(BackupFailedError) as caught:
                Backup.create(instance, only=["db"])
            said = f"{caught.value} {caught.value.hint}"
            assert "snapshot" in said
        else:
            said = _while_dumping(
                cluster,
                dbname,
                lambda: cluster.psql(_TERMINATE.format(dbname, f"pid <> pg_backend_pid() AND {which}")),
                lambda: Backup.create(source.instance(), only=["db"]),
            )
            # Which of pg_dump's words are the last depends on what it was asking just then.
            assert "pg_dump failed with status 1" in said
    finally:
        cluster.psql("DROP TABLE held", dbname)
    assert "database main" in said
    assert [] == entries(source.backup_path)
    injected("connection cut", "backup")
    assert [Backup.create(source.instance(), only=["db"]).id] == entries(source.backup_path)
    shutil.rmtree(source.backup_path)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["restart", "kill"])
def test_a_server_that_goes(source: ThrowawayInstallation, injected: Injected, how: str) -> None:
    """Stopped or crashed in the middle of a dump, and there again: no backup then, a whole one afterwards."""
    with postgres.cluster() as own:
        own.psql("CREATE TABLE held (id int); INSERT INTO held SELECT generate_series(1, 10)")
        (first, *_) = source.instance().databases
        database = evolve(first, host=str(own.socket_directory), port=own.port, user=own.superuser, dbname="postgres")
        instance = evolve(source.instance(), databases=(database,))
        said = _while_dumping(
            own,
            "postgres",
            own.restart if how == "restart" else own.kill,
            lambda: Backup.create(instance, only=["db"]),
        )
        assert "database main" in said
        assert [] == entries(source.backup_path)
        if how == "kill":
            own.start()
        assert [Backup.create(instance, only=["db"]).id] == entries(source.backup_path)
    shutil.rmtree(source.backup_path)
    injected("server restarted", "backup")


def _with_a_pause(source: ThrowawayInstallation, seconds: float) -> Instance:
    """Have the server take its time between the snapshot and the dump."""
    cluster = source.cluster
    pause = f"{cluster.programs}/psql -qX -h {cluster.socket_directory} -p {cluster.port} -U postgres -d postgres"
    script = f"""case " $* " in
    *" --version "*) ;;
    *) {pause} -c "SELECT pg_sleep({seconds})" >/dev/null ;;
esac
exec $REAL "$@\""""
    return with_program(source.instance(), source.directory / "bin", "pg_dump", script)


@pytest.fixture
def impatient(cluster: Cluster) -> Iterator[None]:
    """An administrator who ends what takes long or idles, of GitLab's role."""
    settings = {"statement_timeout": "1s", "idle_in_transaction_session_timeout": "150ms", "lock_timeout": "1s"}
    for name, value in settings.items():
        cluster.psql(f"ALTER ROLE gitlab SET {name} = '{value}'")
    yield
    for name in settings:
        cluster.psql(f"ALTER ROLE gitlab RESET {name}")


@pytest.mark.usefixtures("impatient")
def test_timeouts_of_a_backup(source: ThrowawayInstallation, injected: Injected) -> None:
    """The transaction that holds the snapshot idles for longer than it may, and stays."""
    instance = _with_a_pause(source, 0.5)
    assert () == Backup.create(instance, only=["db"]).verify().damages
    shutil.rmtree(source.backup_path)
    injected("timeouts", "backup")


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("strategy", ["swap", "transaction"])
def test_timeouts_of_a_restore(world: World, backup: Backup, injected: Injected, strategy: str) -> None:
    """A statement of the load takes longer than it may, and comes to its end."""
    plain(backup.path)
    rewrite_dump(backup.path / "db/ci_database.sql.gz", after_rows("SELECT pg_sleep(1.2);"))
    victim = world.target.copy(world.target.directory.with_name(f"{world.target.directory.name}-slow"))
    backup.restore(victim.instance(), only=["db"], database_strategy=strategy)
    assert world.original.databases == compare.snapshot(victim).databases
    victim.remove()
    injected("timeouts", "restore")


_INI = """
[databases]
* = host={cluster.socket_directory} port={cluster.port}
[pgbouncer]
listen_addr =
listen_port = 6432
unix_socket_dir = {directory}
auth_type = trust
auth_file = {directory}/users
pool_mode = {mode}
default_pool_size = {size}
query_wait_timeout = 2
idle_transaction_timeout = {idle}
ignore_startup_parameters =
logfile = {directory}/log
pidfile = {directory}/pid
"""


@contextmanager
def _pgbouncer(
    cluster: Cluster, directory: Path, *, size: int, idle: int = 0, mode: str = "transaction"
) -> Iterator[None]:
    """Run PgBouncer; its socket is in `directory`. Skips where it is not installed."""
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if program is None:
        pytest.skip("pgbouncer is not installed")
    directory.mkdir()
    (directory / "ini").write_text(_INI.format(cluster=cluster, directory=directory, size=size, idle=idle, mode=mode))
    (directory / "users").write_text('"gitlab" "throwaway"\n"postgres" ""\n')
    account = unprivileged()
    if is_root():
        os.chown(directory, account.uid, account.gid)
    directory.chmod(0o755)
    process = subprocess.Popen([program, str(directory / "ini")], stderr=subprocess.DEVNULL, **account.run_as())
    try:
        while not (directory / ".s.PGSQL.6432").exists():
            assert process.poll() is None, (directory / "log").read_text()
            select.select([], [], [], 0.02)
        yield
    finally:
        process.kill()
        process.wait()


def _through(instance: Instance, directory: Path) -> Instance:
    return evolve(
        instance, databases=tuple(evolve(each, host=str(directory), port=6432) for each in instance.databases)
    )


# What PgBouncer itself sets for each client that it lends a server to (its manual, `track_extra_parameters`).
_OF_SESSIONS: Final = """
    SELECT name || ' = ' || setting FROM pg_settings WHERE source = 'session' AND name NOT IN
    ('application_name', 'client_encoding', 'DateStyle', 'IntervalStyle', 'standard_conforming_strings', 'TimeZone')
"""


def _left_behind(directory: Path, dbname: str, *, size: int) -> set[str]:
    """Return what has been set on servers that PgBouncer lends, all of them at the same time."""
    found: set[str] = set()
    with ExitStack() as stack:
        for _ in range(size):
            lent = psycopg.connect(host=str(directory), port=6432, dbname=dbname, user="gitlab", password="throwaway")  # noqa: S106
            stack.callback(lent.close)
            found |= {setting for (setting,) in lent.execute(_OF_SESSIONS)}
    return found


@pytest.mark.parametrize(
    ("mode", "size", "idle"), [("transaction", 1, 0), ("transaction", 4, 0), ("session", 1, 0), ("session", 4, 1)]
)
def test_pgbouncer_in_a_backup(
    source: ThrowawayInstallation, injected: Injected, mode: str, size: int, idle: int
) -> None:
    """It lends one server to many, has none left for pg_dump, or ends the snapshot's: it is named as the cause."""
    place = source.directory / f"pgbouncer-{mode}-{size}"
    instance = _with_a_pause(source, 2.5) if idle else source.instance()
    with _pgbouncer(source.cluster, place, size=size, idle=idle, mode=mode):
        with pytest.raises(BackupFailedError) as caught:
            Backup.create(_through(instance, place), only=["db"])
        assert "PgBouncer" in str(caught.value.hint), caught.value
        assert "GITLAB_BACKUP_PGHOST" in str(caught.value.hint)
        assert set() == _left_behind(place, source.databases["main"], size=size)
    assert [] == entries(source.backup_path)
    injected("PgBouncer", "backup")


@pytest.mark.parametrize(("mode", "only"), [("session", "db"), ("transaction", "repositories")])
def test_pgbouncer_that_is_not_in_the_way(
    source: ThrowawayInstallation, injected: Injected, mode: str, only: str
) -> None:
    """One that lends a server for a whole session is no obstacle; nor is any where nothing is dumped. Nothing stays."""
    place = source.directory / f"pgbouncer-{only}"
    with _pgbouncer(source.cluster, place, size=4, mode=mode):
        assert Backup.create(_through(source.instance(), place), only=[only]).state == "complete"
        assert set() == _left_behind(place, source.databases["main"], size=4)
    shutil.rmtree(source.backup_path)
    injected("PgBouncer", "backup")


@pytest.mark.parametrize("strategy", ["swap", "transaction"])
def test_pgbouncer_in_a_restore(world: World, injected: Injected, strategy: str) -> None:
    """What is loaded is loaded in one transaction, and that has one server. Who gets it next has his own settings."""
    victim = world.target.copy(world.target.directory.with_name(f"{world.target.directory.name}-{strategy}"))
    place = victim.directory / "pgbouncer"
    with _pgbouncer(victim.cluster, place, size=2):
        world.made.restore(_through(victim.instance(), place), only=["db"], database_strategy=strategy)
        for dbname in victim.databases.values():
            assert set() == _left_behind(place, dbname, size=2)
    assert world.original.databases == compare.snapshot(victim).databases
    assert [] == leftovers(victim)
    victim.remove()
    injected("PgBouncer", "restore")
