"""The database archiver, with real servers and the real pg_dump, and with ones that die."""

# ruff: noqa: S608 - the names in the SQL are of our own making
from __future__ import annotations

import gzip
import os
import resource
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from attrs import define, evolve, field

from gitlab_backup.archivers.base import BackupJob, VerifyJob
from gitlab_backup.archivers.database import DatabaseArchiver
from gitlab_backup.components import COMPONENTS
from gitlab_backup.errors import (
    CancelledError,
    ComponentError,
    DatabaseError,
    ProgramError,
    ProgramNotFoundError,
    StreamError,
)
from gitlab_backup.instance import Database, Instance
from gitlab_backup.streams.cancel import Cancellation
from gitlab_backup.streams.gzip import GzipCodec
from tests.instance.strict_cluster import PASSWORD, SYSTEM_USER, strict_cluster
from tests.support import postgres
from tests.support.accounts import is_root

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import BinaryIO

    from gitlab_backup.archivers.base import JSON

COMPONENT = COMPONENTS[0]
SECRET = "hunter2-is-not-shown"  # noqa: S105 - the server trusts everybody; it is looked for where it must not be


@define
class Run:
    """One backup of the component `db`, step by step."""

    job: BackupJob
    resources: ExitStack
    files: list[str]
    archiver: DatabaseArchiver = field(factory=DatabaseArchiver)

    def prepare(self) -> None:
        self.archiver.prepare(self.job, self.resources)

    def back_up(self) -> Mapping[str, JSON]:
        return self.archiver.back_up(self.job)

    def dump(self, name: str) -> bytes:
        return gzip.decompress((self.job.root / name).read_bytes())

    def verify(self, details: Mapping[str, JSON] | None = None) -> list[tuple[str, str]]:
        return verify(self.job.root, details)


def verify(root: Path, details: Mapping[str, JSON] | None) -> list[tuple[str, str]]:
    """Return what is wrong with the dumps below `root`."""
    damages: list[tuple[str, str]] = []

    def open_stream(name: str) -> BinaryIO:
        opened = (root / name).open("rb")
        files.callback(opened.close)
        return GzipCodec().reader(opened)

    def names(directory: str) -> list[str]:
        return sorted(str(path.relative_to(root)) for path in (root / directory).rglob("*") if path.is_file())

    with ExitStack() as files:
        DatabaseArchiver().verify(
            VerifyJob(
                component=COMPONENT,
                root=root,
                backup_id="1_2024_04_25_17.0.0",
                details=details,
                jobs=1,
                cancel=Cancellation(),
                open_file=lambda name: (root / name).open("rb"),
                open_stream=open_stream,
                damaged=lambda name, problem: damages.append((name, problem)),
                names=names,
            )
        )
    return damages


def described(cluster: postgres.Cluster, dbname: str, **changes: object) -> Database:
    values: dict[str, object] = {
        "name": "main",
        "dbname": dbname,
        "host": str(cluster.socket_directory),
        "port": cluster.port,
        "user": cluster.superuser,
        "password": SECRET,
        **changes,
    }
    return Database(**values)  # type: ignore[arg-type]


@contextmanager
def run_of(
    root: Path,
    programs: Path,
    *databases: Database,
    progress: Callable[[int, int], None] = lambda read, written: None,  # noqa: ARG005
    cancel: Cancellation | None = None,
) -> Iterator[Run]:
    """Make everything that the archiver is given, with the programs of a directory."""
    files: list[str] = []

    def written(name: str, sha256: str) -> None:  # noqa: ARG001
        files.append(name)

    instance = Instance(
        gitlab_version="17.0.0",
        installation="source",
        root=root,
        rails_env="production",
        backup_path=root,
        system_user="git",
        databases=databases,
        storages=(),
        settings=(),
        search_path=str(programs),
    )
    with ThreadPoolExecutor(2) as pool, ExitStack() as resources:
        job = BackupJob(
            instance=instance,
            component=COMPONENT,
            root=root,
            backup_id="1_2024_04_25_17.0.0",
            codec=GzipCodec(),
            level=None,
            jobs=2,
            keep_going=False,
            pool=pool,
            cancel=cancel or Cancellation(),
            progress=progress,
            written=written,
            warn=lambda message: pytest.fail(f"a warning: {message}"),
        )
        yield Run(job, resources, files)


def fake_pg_dump(directory: Path, real: Path, script: str, *, version: str | None = None) -> Path:
    """Put a pg_dump into `directory` that tells its version, and then does as the shell script says."""
    directory.mkdir(mode=0o755)
    tells = f"echo '{version}'" if version else f"exec '{real / 'pg_dump'}' --version"
    program = directory / "pg_dump"
    program.write_text(
        f'#!/bin/sh\nPATH=/usr/bin:/bin\nreal="{real}/pg_dump"\n'
        f'if [ "$1" = --version ]; then {tells}; exit; fi\n{script}\n'
    )
    program.chmod(0o755)
    return directory


def fill(cluster: postgres.Cluster, dbname: str, rows: int = 1000) -> None:
    cluster.psql(
        "CREATE TABLE users (id int PRIMARY KEY, name text);"
        f"INSERT INTO users SELECT i, md5(i::text) || E'\\n\\\\.\\n' FROM generate_series(1, {rows}) i;"
        "CREATE EXTENSION IF NOT EXISTS plpgsql;",
        dbname,
    )


@pytest.fixture
def second(cluster: postgres.Cluster, database: str) -> Iterator[str]:
    """The name of another fresh database."""
    cluster.create_database(f"{database}_ci")
    yield f"{database}_ci"
    cluster.drop_database(f"{database}_ci")


def test_all_dumps_show_the_state_at_the_time_of_prepare(
    cluster: postgres.Cluster, database: str, second: str, tmp_path: Path
) -> None:
    """What is written between `prepare` and `back_up` is in no dump; psql makes equal databases of the dumps."""
    fill(cluster, database)
    fill(cluster, second, 10)
    before = {name: cluster.psql("SELECT * FROM users ORDER BY id", name) for name in (database, second)}
    main, ci = described(cluster, database), described(cluster, second, name="ci")

    with run_of(tmp_path, cluster.programs, main, ci) as run:
        run.prepare()
        for name in (database, second):
            cluster.psql("INSERT INTO users VALUES (-1, 'late'); DELETE FROM users WHERE id = 5", name)
        details = run.back_up()

    assert {"db/database.sql.gz", "db/ci_database.sql.gz"} == set(run.files)
    for name, file in ((database, "db/database.sql.gz"), (second, "db/ci_database.sql.gz")):
        cluster.create_database(f"{name}_new")
        try:
            cluster.run("psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", f"{name}_new", stdin=run.dump(file))
            assert before[name] == cluster.psql("SELECT * FROM users ORDER BY id", f"{name}_new")
        finally:
            cluster.drop_database(f"{name}_new")
    assert run.verify(details) == []
    assert run.verify(None) == []


def test_the_manifest_says_what_was_dumped(cluster: postgres.Cluster, database: str, tmp_path: Path) -> None:
    """File, versions, snapshot, rows and extensions are those of the dump; the password is nowhere."""
    fill(cluster, database, 7)
    with run_of(tmp_path, cluster.programs, described(cluster, database)) as run:
        run.prepare()
        details = run.back_up()

    databases = details["databases"]
    assert isinstance(databases, dict)
    said = databases["main"]
    assert isinstance(said, dict)
    expected = {
        "file": "db/database.sql.gz",
        "dbname": database,
        "host": str(cluster.socket_directory),
        "server_version": cluster.psql("SHOW server_version"),
        "rows": {"public.users": 7},
        "encoding": "UTF8",
        "collation": "C.UTF-8",
        "ctype": "C.UTF-8",
        "schemas": [],
        "extensions": {"plpgsql": "1.0"},
        "messages": [],
        "dump_bytes": len(run.dump("db/database.sql.gz")),
    }
    assert expected == {key: said[key] for key in expected}
    assert {"snapshot", "snapshot_taken_at", "wal_lsn", "pg_dump_version", "size_bytes"} == set(said) - set(expected)
    assert SECRET not in repr(details)


def test_only_the_configured_schemas_are_dumped(cluster: postgres.Cluster, database: str, tmp_path: Path) -> None:
    """`backup.pg_schema` restricts the dump."""
    cluster.psql("CREATE SCHEMA kept CREATE TABLE a (); CREATE SCHEMA other CREATE TABLE b ()", database)
    with run_of(tmp_path, cluster.programs, described(cluster, database, schemas=("kept",))) as run:
        run.prepare()
        run.back_up()

    dump = run.dump("db/database.sql.gz")
    assert b"kept.a" in dump
    assert b"other.b" not in dump


@pytest.mark.parametrize("name", ["a=b", "postgresql://x", "-x", "with blank's"])
def test_a_database_may_have_any_name(cluster: postgres.Cluster, database: str, name: str, tmp_path: Path) -> None:
    """A name is never taken for an option or for a connection string."""
    odd = f"{name} {database}"
    cluster.create_database(odd)
    try:
        fill(cluster, database, 1)
        with run_of(tmp_path, cluster.programs, described(cluster, odd)) as run:
            run.prepare()
            run.back_up()
    finally:
        cluster.drop_database(odd)

    assert run.files == ["db/database.sql.gz"]


def test_no_database_is_a_reason_to_leave_out(tmp_path: Path) -> None:
    """Without databases there is nothing to dump."""
    with run_of(tmp_path, tmp_path) as run:
        assert DatabaseArchiver().left_out(COMPONENT, run.job.instance) == "no database is configured"


def test_the_snapshots_are_released(cluster: postgres.Cluster, database: str, tmp_path: Path) -> None:
    """After the dumps no session of this tool keeps the server from cleaning up."""
    sessions = f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}'"
    with run_of(tmp_path, cluster.programs, described(cluster, database)) as run:
        run.prepare()
        held = cluster.psql(sessions)
        run.back_up()
        connections = [snapshot._connection.closed for snapshot in run.archiver._snapshots]

    assert (held, connections) == ("1", [True])


def test_a_database_that_is_missing_fails_in_prepare(cluster: postgres.Cluster, database: str, tmp_path: Path) -> None:
    """One missing database is an error before anything is dumped, and the snapshot of the other is let go."""
    databases = described(cluster, database), described(cluster, "absent", name="ci")
    with (
        run_of(tmp_path, cluster.programs, *databases) as run,
        pytest.raises(DatabaseError, match=r"ci .*absent"),
    ):
        run.prepare()

    assert all(snapshot._connection.closed for snapshot in run.archiver._snapshots)


def test_a_missing_pg_dump_is_said(
    cluster: postgres.Cluster, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the program."""
    monkeypatch.setattr("gitlab_backup.instance.programs._DEBIAN_POSTGRESQL", tmp_path)
    with (
        run_of(tmp_path, tmp_path, described(cluster, database)) as run,
        pytest.raises(ProgramNotFoundError, match="pg_dump"),
    ):
        run.prepare()


def test_a_pg_dump_older_than_the_server_is_refused(cluster: postgres.Cluster, database: str, tmp_path: Path) -> None:
    """Both versions are named, before anything is dumped."""
    old = fake_pg_dump(tmp_path / "bin", cluster.programs, "exit 9", version="pg_dump (PostgreSQL) 9.6.24")
    with (
        run_of(tmp_path, old, described(cluster, database)) as run,
        pytest.raises(ComponentError, match=r"version 9, but the server .* version \d\d") as caught,
    ):
        run.prepare()

    assert "Install the client programs of PostgreSQL" in str(caught.value.hint)


def test_a_pg_dump_that_is_none_is_said(cluster: postgres.Cluster, database: str, tmp_path: Path) -> None:
    """What it says instead of a version is shown."""
    other = fake_pg_dump(tmp_path / "bin", cluster.programs, "exit 9", version="busybox")
    with run_of(tmp_path, other, described(cluster, database)) as run, pytest.raises(ProgramError, match="busybox"):
        run.prepare()


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ('"$real" "$@" | head -c 300; kill -KILL $$', "pg_dump"),
        ('"$real" "$@"; echo "pg_dump: error: the moon is full" >&2; exit 1', "the moon is full"),
        ('"$real" "$@" | head -c 300', "cut short at byte 300"),
        ("exit 0", "cut short at byte 0"),
    ],
    ids=["killed", "fails-late", "cut-short", "silent"],
)
def test_a_dying_pg_dump_fails_the_component(
    cluster: postgres.Cluster, database: str, tmp_path: Path, script: str, message: str
) -> None:
    """Killed, failed after all data, or ended well with half of them: never a finished file, and its own words."""
    fill(cluster, database)
    programs = fake_pg_dump(tmp_path / "bin", cluster.programs, script)
    with run_of(tmp_path, programs, described(cluster, database)) as run:
        run.prepare()
        with pytest.raises(ComponentError, match=message) as caught:
            run.back_up()

    assert run.files == []
    assert f"database main ({database}" in caught.value.message
    assert SECRET not in f"{caught.value!r} {caught.value.hint}"


def test_a_server_that_dies_fails_the_component(tmp_path: Path) -> None:
    """The server is gone between snapshot and dump: pg_dump's words, and no file."""
    with postgres.cluster() as own, run_of(tmp_path, own.programs, described(own, "postgres")) as run:
        run.prepare()
        own.kill()
        with pytest.raises(ComponentError, match="pg_dump"):
            run.back_up()

    assert run.files == []


def test_a_snapshot_that_is_gone_points_to_a_pooler(cluster: postgres.Cluster, database: str, tmp_path: Path) -> None:
    """When nobody holds the snapshot any more, the hint names PgBouncer and the way around it."""
    with run_of(tmp_path, cluster.programs, described(cluster, database)) as run:
        run.prepare()
        cluster.psql(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'")
        while cluster.psql(f"SELECT 1 FROM pg_stat_activity WHERE datname = '{database}'"):
            pass
        with pytest.raises(ComponentError, match="snapshot") as caught:
            run.back_up()

    assert "PgBouncer" in str(caught.value.hint)
    assert "GITLAB_BACKUP_PGHOST" in str(caught.value.hint)


def test_the_first_failure_ends_the_others_and_is_reported(
    cluster: postgres.Cluster, database: str, second: str, tmp_path: Path
) -> None:
    """A dump that would never end is ended when another one fails, and only that failure is told."""
    script = f'[ "$PGDATABASE" = "{second}" ] && exec tail -f /dev/null\necho "it is me" >&2; exit 1'
    programs = fake_pg_dump(tmp_path / "bin", cluster.programs, script)
    databases = described(cluster, database), described(cluster, second, name="ci")
    with run_of(tmp_path, programs, *databases) as run:
        run.prepare()
        with pytest.raises(ComponentError, match=r"main .*it is me"):
            run.back_up()

    assert run.files == []


def test_a_full_disk_fails_the_component(cluster: postgres.Cluster, database: str, tmp_path: Path) -> None:
    """A write that the kernel refuses is an error that names the file; pg_dump is ended."""
    cluster.psql("CREATE TABLE t AS SELECT md5(random()::text) FROM generate_series(1, 30000)", database)
    with run_of(tmp_path, cluster.programs, described(cluster, database)) as run:
        run.prepare()
        snapshot = run.archiver._snapshots[0].id
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
        try:
            with pytest.raises(StreamError, match=r"database\.sql\.gz"):
                run.back_up()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert run.files == []
    assert command_lines(snapshot) == []


def command_lines(part: str) -> list[str]:
    """Return the arguments of all processes, as anybody can see them, that contain `part`."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and process.name != str(os.getpid()):
            try:
                line = (process / "cmdline").read_text(errors="replace")
            except (FileNotFoundError, ProcessLookupError):
                continue
            if part in line:
                found.append(line)
    return found


def test_a_cancelled_dump_leaves_no_process_and_no_secret_was_to_be_seen(
    cluster: postgres.Cluster, database: str, tmp_path: Path
) -> None:
    """In the middle of a dump: pg_dump's arguments hold no password; after the cancellation it is gone."""
    cluster.psql("CREATE TABLE t AS SELECT repeat(md5(i::text), 20) FROM generate_series(1, 20000) i", database)
    cancel, seen = Cancellation(), list[str]()

    def progress(read: int, written: int) -> None:  # noqa: ARG001
        if read and not cancel.requested:
            seen.extend(command_lines("--snapshot="))
            secrets.extend(command_lines(SECRET))
            cancel.request()

    secrets: list[str] = []
    with run_of(tmp_path, cluster.programs, described(cluster, database), progress=progress, cancel=cancel) as run:
        run.prepare()
        snapshot = run.archiver._snapshots[0].id
        with pytest.raises(CancelledError):
            run.back_up()
        left = command_lines(snapshot)

    assert any(snapshot in line for line in seen)
    assert secrets == []
    assert left == []
    assert run.files == []


def test_root_dumps_as_the_system_user(tmp_path: Path) -> None:
    """Where the socket lets only the system user of GitLab in, root's connection and root's pg_dump are its."""
    if not is_root():
        pytest.skip("only root can act as somebody else")
    with strict_cluster() as strict:
        cluster_database = described(strict, "gitlabhq", user="gitlab", password=None)
        with run_of(tmp_path / "a", strict.programs, cluster_database) as run, pytest.raises(DatabaseError):
            run.prepare()
        cluster_database = evolve(cluster_database, system_user=SYSTEM_USER)
        with run_of(tmp_path / "b", strict.programs, cluster_database) as run:
            run.prepare()
            details = run.back_up()
        by_password = evolve(cluster_database, host="127.0.0.1", password=PASSWORD, system_user=None)
        with run_of(tmp_path / "c", strict.programs, by_password) as other:
            other.prepare()
            other.back_up()

    assert run.verify(details) == []
    assert run.dump("db/database.sql.gz").splitlines()[:2] == other.dump("db/database.sql.gz").splitlines()[:2]
    assert (tmp_path / "b/db/database.sql.gz").stat().st_uid == 0


WHOLE = (
    "--\n-- PostgreSQL database dump\n--\n\nCOPY public.users (id) FROM stdin;\n1\n2\n\\.\n\n"
    "--\n-- PostgreSQL database dump complete\n--\n\n"
)
DETAILS: dict[str, JSON] = {"databases": {"main": {"file": "db/database.sql.gz", "rows": {"public.users": 2}}}}


def damages(tmp_path: Path, text: str, details: Mapping[str, JSON] | None) -> list[tuple[str, str]]:
    (tmp_path / "db").mkdir()
    (tmp_path / "db/database.sql.gz").write_bytes(gzip.compress(text.encode()))
    return verify(tmp_path, details)


@pytest.mark.parametrize("details", [None, DETAILS, {"databases": 1}, {"databases": {"main": []}}])
def test_a_whole_dump_is_whole(tmp_path: Path, details: Mapping[str, JSON] | None) -> None:
    """With a manifest, without one, and with one that says something strange."""
    assert damages(tmp_path, WHOLE, details) == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (WHOLE[:75], "byte 75, line 8, among the rows of public.users"),
        (WHOLE.replace("complete", ""), "without the closing line"),
        (WHOLE.replace("2\n", ""), "public.users has 1 row, in the manifest 2 rows"),
        (WHOLE.replace("users", "people"), "public.users has none of it, in the manifest 2 rows"),
        (WHOLE.replace("2", "\0"), "zero byte"),
        ("nothing of the kind", "does not begin like one"),
        ("", "does not begin like one"),
    ],
)
def test_damage_is_found_and_placed(tmp_path: Path, text: str, problem: str) -> None:
    """The file is named, and what is wrong with it, and where."""
    found = damages(tmp_path, text, DETAILS)

    assert [name for name, _ in found] == ["db/database.sql.gz"]
    assert problem in found[0][1]


def test_damage_of_the_compression_is_placed_in_the_dump(tmp_path: Path) -> None:
    """What the codec finds is reported with the place in the dump."""
    (tmp_path / "db").mkdir()
    (tmp_path / "db/database.sql.gz").write_bytes(gzip.compress(WHOLE.encode())[:-20])

    found = verify(tmp_path, DETAILS)

    assert [name for name, _ in found] == ["db/database.sql.gz"]
    assert "in the dump: byte" in found[0][1]


def test_missing_dumps_are_named(tmp_path: Path) -> None:
    """The database `main` always has one, and every database that the manifest names."""
    (tmp_path / "db").mkdir()
    details: dict[str, JSON] = {"databases": {"ci": {"file": "db/ci_database.sql.gz"}}}

    assert verify(tmp_path, None) == [("db/database.sql", "the dump of the database main is missing")]
    assert [name for name, _ in verify(tmp_path, details)] == ["db/database.sql", "db/ci_database.sql.gz"]
