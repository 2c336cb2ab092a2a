"""What a check finds in an installation: each thing that would make a backup of it, or a restore, fail."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final
from uuid import uuid4

import pytest
from attrs import evolve

from gitlab_backup import Cancellation
from gitlab_backup.archivers.database.fitness import unreadable
from gitlab_backup.archivers.database.snapshot import take_snapshot
from gitlab_backup.errors import DatabaseError
from gitlab_backup.instance.model import Database, Storage
from gitlab_backup.operations import check_instance
from gitlab_backup.operations.check import CHECKS, Level, check
from tests.operations.programs import with_program
from tests.support import gitaly_backup, postgres
from tests.support.accounts import closed_directory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from gitlab_backup import Instance
    from gitlab_backup.operations.check import Finding
    from tests.support.installation import ThrowawayInstallation

    Check = Callable[[Instance, Cancellation], Iterator[Finding]]

PGBOUNCER: Final = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")


@pytest.fixture
def instance(template_installation: ThrowawayInstallation, tmp_path: Path) -> Instance:
    """An instance of which nothing is changed, with a backup path that does not exist yet."""
    return evolve(template_installation.instance(), backup_path=tmp_path / "backups")


def run(of: Check, instance: Instance) -> list[Finding]:
    """Run one check."""
    return list(of(instance, Cancellation()))


def levels(found: list[Finding]) -> set[Level]:
    """Return which levels there are."""
    return {each.level for each in found}


def problem(found: list[Finding]) -> Finding:
    """Return the one finding that is not ok, which is a problem and says what to do."""
    (bad,) = (each for each in found if each.level is not Level.OK)
    assert (Level.PROBLEM, True) == (bad.level, bool(bad.to_do)), bad
    return bad


def test_a_healthy_installation(instance: Instance) -> None:
    """Every check says something, and all that is missing is a backup. Nothing is made, not even the backup path."""
    health = check(instance)
    assert list(CHECKS) == list(dict.fromkeys(each.check for each in health.findings))
    bad = problem(list(health.findings))
    assert "no complete backup" in bad.message
    assert not instance.backup_path.exists()


def test_an_installation_of_which_nothing_is_right(instance: Instance, tmp_path: Path) -> None:
    """Each check that cannot be made is a problem, in words that name what is wrong; there is no crash."""
    nowhere = tmp_path / "nowhere"
    (tmp_path / "file").touch()
    broken = evolve(
        instance,
        root=nowhere,
        gitlab_yml={"artifacts": {"path": str(tmp_path / "file")}, "lfs": {"storage_path": "nul\0"}},
        search_path=str(nowhere),
        databases=(evolve(instance.databases[0], host=str(nowhere)),),
        storages=(Storage(name="gone", path=nowhere), Storage(name="elsewhere")),
        backup_path=tmp_path / "file" / "below",
        system_user="no-such-user-here",
        secrets_file=None,
    )
    health = check(broken)
    bad = {each.check: each.message for each in health.findings if each.level is Level.PROBLEM}
    # The backup path that cannot be read ends many checks, and is told by few of them.
    assert ["programs", "databases", "storages", "directories", "backup_path", "space", "missing"] == list(bad)
    assert str(nowhere) in bad["databases"]
    assert all(each.to_do for each in health.findings if each.level is not Level.OK)


def test_what_nobody_expected_is_a_finding(instance: Instance) -> None:
    """Also a defect of a check has the others made, and its name is told."""
    health = check(evolve(instance, databases=(None,)))  # type: ignore[arg-type]
    bad = next(each for each in health.findings if each.check == "databases")
    assert Level.PROBLEM is bad.level
    assert "AttributeError" in bad.message
    assert "leftovers" in {each.check for each in health.findings}


# programs


def test_programs(instance: Instance) -> None:
    """Each one's version and place are said."""
    found = run(check_instance.programs, instance)
    assert {"pg_dump": Level.OK, "git": Level.OK} == {each.about: each.level for each in found}
    assert all(instance.program(each.about) in each.message for each in found)


def test_git_is_missing(instance: Instance, tmp_path: Path) -> None:
    """Repositories cannot be backed up then."""
    bad = problem(run(check_instance.programs, evolve(instance, search_path=str(tmp_path))))
    assert "git" == bad.about
    assert "was not found" in bad.message


@pytest.mark.parametrize("script", ["exit 127", "echo something else"])
def test_pg_dump_does_not_run(instance: Instance, tmp_path: Path, script: str) -> None:
    """One that fails, or is something else, is a problem among the programs; the databases are looked at anyway."""
    broken = with_program(instance, tmp_path / "bin", "pg_dump", script)
    assert "pg_dump" == problem(run(check_instance.programs, broken)).about
    assert {Level.OK} == levels(run(check_instance.databases, broken))


def test_pg_dump_is_older_than_the_server(instance: Instance, tmp_path: Path) -> None:
    """It would refuse. It is a problem of each database, and both versions are named."""
    old = with_program(instance, tmp_path / "bin", "pg_dump", "echo 'pg_dump (PostgreSQL) 9.6.24'")
    found = run(check_instance.databases, evolve(old, databases=old.databases[:1]))
    assert "pg_dump is of version 9," in problem(found).message


def with_gitaly(instance: Instance, directory: Path, *, version: str, address: str) -> Instance:
    """Return an instance with one storage, of a Gitaly at `address`, and with a gitaly-backup."""
    program = gitaly_backup.install(directory / "bin", {"version": version, "storages": {}, "servers": {}})
    return evolve(instance, storages=(Storage(name="default", gitaly_address=address),), gitaly_backup=program)


@pytest.mark.parametrize(("version", "level"), [("17.0.0", Level.OK), ("16.9.0", Level.PROBLEM)])
def test_gitaly_backup(instance: Instance, tmp_path: Path, version: str, level: Level) -> None:
    """Where Gitaly is configured and the program is there, it is what a backup runs: it must not be too old."""
    there = with_gitaly(instance, tmp_path, version=version, address="unix:/x")
    (found,) = (each for each in run(check_instance.programs, there) if each.about == "gitaly-backup")
    assert level is found.level
    assert version in found.message


# databases


def test_a_server_that_is_stopped(instance: Instance) -> None:
    """It answers, then it does not: a problem for the one database, with what to do; the other is looked at."""
    with postgres.cluster() as own:
        own.psql("CREATE ROLE gitlab LOGIN")
        own.create_database("x", owner="gitlab")
        there = Database(name="main", dbname="x", host=str(own.socket_directory), port=own.port, user="gitlab")
        both = evolve(instance, databases=(there, evolve(instance.databases[1])))
        assert {Level.OK} == levels(run(check_instance.databases, both))
        own.kill()
        found = run(check_instance.databases, both)
    assert "database main" == problem(found).about
    assert "database ci" in {each.about for each in found if each.level is Level.OK}


def test_a_database_that_does_not_exist(instance: Instance) -> None:
    """The server's own words name it."""
    missing = evolve(instance, databases=(evolve(instance.databases[0], dbname="no_such_database"),))
    assert "no_such_database" in problem(run(check_instance.databases, missing)).message


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE TABLE hidden (id int)",
        "CREATE SEQUENCE hidden",
        "CREATE SCHEMA hidden; CREATE TABLE hidden.hidden (id int); GRANT SELECT ON hidden.hidden TO gitlab",
        "CREATE TABLE hidden (id int); GRANT SELECT ON hidden TO gitlab; ALTER TABLE hidden ENABLE ROW LEVEL SECURITY",
    ],
    ids=["table", "sequence", "schema", "row-level security"],
)
def test_the_role_may_not_read_everything(
    instance: Instance, cluster: postgres.Cluster, database: str, sql: str
) -> None:
    """What pg_dump could not read is named, as pg_dump itself finds."""
    cluster.psql(f"CREATE VIEW seen AS SELECT 1; {sql}", database)
    there = evolve(instance.databases[0], dbname=database)
    found = run(check_instance.databases, evolve(instance, databases=(there,)))
    assert "may not read" in next(each.message for each in found if each.level is Level.PROBLEM)
    assert "hidden" in next(each.message for each in found if each.level is Level.PROBLEM)
    environment = {**instance.environment(), **there.environment()}
    dumped = subprocess.run([instance.program("pg_dump")], env=environment, capture_output=True, check=False)
    assert 0 != dumped.returncode


def test_what_is_not_dumped_need_not_be_read(instance: Instance, cluster: postgres.Cluster, database: str) -> None:
    """Tables of other schemas than those that are configured, and of extensions, are not in a dump."""
    cluster.psql("CREATE SCHEMA hidden; CREATE TABLE hidden.hidden (id int)", database)
    there = evolve(instance.databases[0], dbname=database, schemas=("public",))
    assert Level.PROBLEM not in levels(run(check_instance.databases, evolve(instance, databases=(there,))))
    cluster.psql("ALTER EXTENSION plpgsql ADD TABLE hidden.hidden", database)
    whole = evolve(there, schemas=())
    assert Level.PROBLEM not in levels(run(check_instance.databases, evolve(instance, databases=(whole,))))


@contextmanager
def role(cluster: postgres.Cluster, options: str) -> Iterator[str]:
    """Make a role of this test's own."""
    name = f"role_{uuid4().hex}"
    cluster.psql(f"CREATE ROLE {name} LOGIN {options}")
    try:
        yield name
    finally:
        cluster.psql(f"DROP ROLE {name}")


def test_ways_of_restore(instance: Instance, cluster: postgres.Cluster, database: str) -> None:
    """What the role may do decides whether, and how, a restore would be possible."""
    cluster.psql("CREATE TABLE t (id int); GRANT SELECT ON t TO PUBLIC", database)
    with role(cluster, "") as name:
        there = evolve(instance, databases=(evolve(instance.databases[0], dbname=database, user=name),))
        not_at_all = run(check_instance.databases, there)[-1]
        cluster.psql(f"ALTER DATABASE {database} OWNER TO {name}; ALTER TABLE t OWNER TO {name}", database)
        for_good = run(check_instance.databases, there)[-1]
        cluster.psql(f"ALTER ROLE {name} CREATEDB")
        at_best = run(check_instance.databases, there)[-1]
        cluster.psql(f"REASSIGN OWNED BY {name} TO postgres; DROP OWNED BY {name}", database)
    assert (Level.WARNING, True) == (not_at_all.level, "would be refused" in not_at_all.message)
    assert (Level.OK, True) == (for_good.level, "one transaction only" in for_good.message)
    assert (Level.OK, True) == (at_best.level, "strategy swap" in at_best.message)
    assert (True, None) == (for_good.to_do is not None, at_best.to_do)


@contextmanager
def pgbouncer(cluster: postgres.Cluster, dbname: str, mode: str) -> Iterator[Path]:
    """Run PgBouncer in front of a database, and return the directory of its socket."""
    assert PGBOUNCER is not None
    directory = cluster.directory / f"pool-{uuid4().hex[:8]}"
    directory.mkdir()
    os.chown(directory, cluster.account.uid, cluster.account.gid)
    configuration = directory / "pgbouncer.ini"
    configuration.write_text(
        f"[databases]\n{dbname} = host={cluster.socket_directory} port={cluster.port} user=gitlab\n"
        f"[pgbouncer]\nlisten_addr =\nunix_socket_dir = {directory}\nauth_type = any\npool_mode = {mode}\n"
    )
    with subprocess.Popen(
        [PGBOUNCER, str(configuration)],
        stderr=subprocess.PIPE,
        cwd=directory,
        text=True,
        **cluster.account.run_as(),
    ) as process:
        assert process.stderr is not None
        try:
            while "process up" not in (line := process.stderr.readline()):
                assert line, "PgBouncer has ended"
            yield directory
        finally:
            process.terminate()
            process.stderr.read()


@pytest.mark.skipif(PGBOUNCER is None, reason="PgBouncer is not installed")
@pytest.mark.parametrize(("mode", "level"), [("session", Level.WARNING), ("transaction", Level.PROBLEM)])
def test_pgbouncer_in_between(
    instance: Instance, cluster: postgres.Cluster, database: str, mode: str, level: Level
) -> None:
    """It is noticed, and named: a dump through it may succeed, unless it lends one session to many."""
    with pgbouncer(cluster, database, mode) as socket_directory:
        there = evolve(instance.databases[0], dbname=database, host=str(socket_directory), port=6432)
        found = run(check_instance.databases, evolve(instance, databases=(there,)))
    (pooler,) = (each for each in found if "PgBouncer" in each.message)
    assert (level, True) == (pooler.level, "GITLAB_BACKUP_PGHOST" in (pooler.to_do or ""))


@pytest.mark.skipif(PGBOUNCER is None, reason="PgBouncer is not installed")
def test_pgbouncer_that_pools_statements(instance: Instance, cluster: postgres.Cluster, database: str) -> None:
    """No dump is possible through it: a problem, with the way around it."""
    with pgbouncer(cluster, database, "statement") as socket_directory:
        there = evolve(instance.databases[0], dbname=database, host=str(socket_directory), port=6432)
        bad = problem(run(check_instance.databases, evolve(instance, databases=(there,))))
    assert "statement mode" in bad.message
    assert "PgBouncer" in (bad.to_do or "")


def test_a_snapshot_that_a_second_connection_cannot_use(instance: Instance) -> None:
    """As where a pooler leads to two servers: the error points to it."""
    snapshot = take_snapshot(instance.databases[0], pg_dump_major=99)
    snapshot.release()
    with pytest.raises(DatabaseError, match="second connection") as caught:
        unreadable(snapshot)
    assert "PgBouncer" in (caught.value.hint or "")


# storages


def test_a_storage_that_is_not_there(instance: Instance, tmp_path: Path) -> None:
    """One that is not mounted is a problem, the others are not."""
    storages = evolve(instance.storages[0], path=tmp_path / "gone"), *instance.storages[1:]
    bad = problem(run(check_instance.storages, evolve(instance, storages=storages)))
    assert f"storage {instance.storages[0].name}" == bad.about


def test_a_storage_that_cannot_be_read(instance: Instance) -> None:
    """Its directory does not let this user in."""
    with closed_directory(0o000) as path:
        bad = problem(run(check_instance.storages, evolve(instance, storages=(Storage(name="default", path=path),))))
    assert str(path) in bad.message


def test_no_storage(instance: Instance) -> None:
    """A backup without repositories is possible, but hardly what is wanted."""
    (found,) = run(check_instance.storages, evolve(instance, storages=()))
    assert Level.WARNING is found.level


def test_a_gitaly_on_a_socket(instance: Instance, cluster: postgres.Cluster, tmp_path: Path) -> None:
    """As long as something listens on its socket, it is there."""
    # Not below `tmp_path`: the path of a Unix socket has at most 107 bytes (unix(7)).
    path = cluster.directory / f"s-{uuid4().hex[:8]}"
    there = with_gitaly(instance, tmp_path, version="17.0.0", address=f"unix:{path}")
    assert str(path) in problem(run(check_instance.storages, there)).message
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        assert "refused" in problem(run(check_instance.storages, there)).message
        listener.listen()
        assert {Level.OK} == levels(run(check_instance.storages, there))


@pytest.mark.parametrize("scheme", ["tcp://", "tls://", "dns:", "dns://1.1.1.1/"])
def test_a_gitaly_on_a_port(instance: Instance, tmp_path: Path, scheme: str) -> None:
    """As long as something listens on its port, it is there; else its address is named."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"{scheme}127.0.0.1:{listener.getsockname()[1]}"
        there = with_gitaly(instance, tmp_path, version="17.0.0", address=address)
        assert {Level.OK} == levels(run(check_instance.storages, there))
    assert address in problem(run(check_instance.storages, there)).message


@pytest.mark.parametrize("address", ["tcp://gitaly", "http://gitaly:80", "unix:", ""])
def test_an_address_that_is_none(instance: Instance, tmp_path: Path, address: str) -> None:
    """One without a port, of another kind, or empty is a problem of its storage."""
    storages = Storage(name="good", gitaly_address="unix:/x"), Storage(name="bad", gitaly_address=address)
    there = evolve(with_gitaly(instance, tmp_path, version="17.0.0", address="unix:/x"), storages=storages)
    bad = [each for each in run(check_instance.storages, there) if each.about == "storage bad"]
    assert [Level.PROBLEM] == [each.level for each in bad]


# directories


def test_directories(instance: Instance) -> None:
    """Those that are there can be read; of those that are not it is said that they are in no backup."""
    found = {each.about: each for each in run(check_instance.directories, instance)}
    assert {Level.OK} == levels(list(found.values()))
    assert "can be read" in found["uploads"].message
    assert "not in a backup" in found["agent_plan_content"].message


def test_a_directory_in_object_storage(instance: Instance) -> None:
    """That it is in no backup is said with the reason."""
    stored = evolve(instance, gitlab_yml={"lfs": {"object_store": {"enabled": True, "remote_directory": "bucket"}}})
    (found,) = (each for each in run(check_instance.directories, stored) if each.about == "lfs")
    assert "bucket" in found.message


def test_a_directory_that_cannot_be_read(instance: Instance) -> None:
    """It does not let this user in: a problem of that one only."""
    with closed_directory(0o100) as path:
        bad = problem(run(check_instance.directories, evolve(instance, gitlab_yml={"artifacts": {"path": str(path)}})))
    assert ("artifacts", True) == (bad.about, str(path) in bad.message)


def test_a_directory_that_is_a_file(instance: Instance, tmp_path: Path) -> None:
    """The configuration is wrong, and is to be corrected."""
    (tmp_path / "file").touch()
    wrong = evolve(instance, gitlab_yml={"artifacts": {"path": str(tmp_path / "file")}})
    assert "is not a directory" in problem(run(check_instance.directories, wrong)).message


def test_a_directory_with_the_backups_in_it(instance: Instance, tmp_path: Path) -> None:
    """A backup would swallow itself, and is refused."""
    wrong = evolve(instance, gitlab_yml={"artifacts": {"path": str(tmp_path)}})
    assert "inside" in problem(run(check_instance.directories, wrong)).message
