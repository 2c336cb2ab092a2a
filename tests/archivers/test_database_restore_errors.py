"""What goes wrong while a dump is loaded is said, and changes nothing; what is harmless is on a closed list."""

# ruff: noqa: S608 - the names in the SQL are of our own making
from __future__ import annotations

import select
import threading
from typing import TYPE_CHECKING

import psycopg
import pytest

from gitlab_backup.errors import CancelledError, ComponentError, CorruptStreamError, DatabaseError, GitLabBackupError
from gitlab_backup.streams.cancel import Cancellation
from tests.archivers.database_restoring import (
    SCHEMA,
    SECRET,
    Restoring,
    described,
    dump_of,
    leftovers,
    restoring,
    role,
    simple,
    state,
)
from tests.support import postgres

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.postgres import Cluster

COPY = ("CREATE TABLE public.t (a int, b text);", "COPY public.t (a, b) FROM stdin;")


@pytest.fixture(params=["swap", "transaction"])
def strategy(request: pytest.FixtureRequest) -> str:
    """Both ways to restore."""
    return str(request.param)


def fails(run: Restoring, cluster: Cluster, dbname: str) -> GitLabBackupError:
    """Restore, and return how that failed. The database must be what it was."""
    before = state(cluster, dbname)
    with pytest.raises(GitLabBackupError) as caught:
        run.run()
    run.undo(fresh=False)
    assert before == state(cluster, dbname)
    assert leftovers(cluster, dbname) == []
    return caught.value


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (("SELECT 1;", "SELECT", "  nothing;"), "line 8 (byte 83): SELECT: column"),
        (("GRANT SELECT ON TABLE public.nothing TO postgres;",), 'relation "public.nothing" does not exist'),
        (("GRANT USAGE ON TYPE public.nothing TO postgres;",), 'type "public.nothing" does not exist'),
        (("ALTER TYPE public.nothing OWNER TO postgres;",), 'type "public.nothing" does not exist'),
        (("SET nothing_of_that = 0;",), "unrecognized configuration parameter"),
        (("COMMENT ON EXTENSION nothing IS 'x';",), 'extension "nothing" does not exist'),
        (("SELECT 1; SELECT nothing;",), "line 7 (byte 73): SELECT nothing: column"),
        ((*COPY, "1\tx", "2", "\\."), 'row 2 of it: missing data for column "b"'),
        ((*COPY, f"{SECRET}\tx", "\\."), "row 1 of it: invalid text representation (SQLSTATE 22P02)"),
        ((*COPY, f"1\t{SECRET}", "\\.", "CREATE INDEX ON public.t ((b::int));"), "invalid text representation"),
        (
            (*COPY, f"1\t{SECRET}", f"2\t{SECRET}", "\\.", "CREATE UNIQUE INDEX u ON public.t (b);"),
            "create unique index",
        ),
        ((COPY[0], f"INSERT INTO public.t VALUES ('{SECRET}', 1);"), "VALUES ('…', 1): invalid text"),
        (("CREATE TABLE public.t (a int);", "CREATE TABLE public.t (a int);"), "already exists"),
    ],
)
def test_an_error_names_its_place_and_no_values(  # noqa: PLR0917 - one for each part of a case
    cluster: Cluster, database: str, strategy: str, lines: tuple[str, ...], words: str, tmp_path: Path
) -> None:
    """File, line, byte and first line of the statement are in it; what is in rows, or a password, is not."""
    cluster.psql("CREATE TABLE old AS SELECT 1 AS a", database)
    run = restoring(tmp_path, {"main": simple(*lines)}, described(cluster, database), database_strategy=strategy)
    error = fails(run, cluster, database)
    assert isinstance(error, ComponentError)
    assert words in error.message
    assert "db/database.sql, line " in error.message
    shown: BaseException | None = error
    while shown is not None:
        assert SECRET not in f"{shown}{shown.args}"
        shown = shown.__cause__


@pytest.mark.parametrize(
    "lines",
    [
        ("\\! touch {}",),
        ("\\o {}", "SELECT 1;"),
        ("\\i /dev/null",),
        ("\\connect postgres",),
        ("\\restrict a b",),
        ("SELECT 1 \\! touch {}", ";"),
        ("  \\! touch {}", ";"),
        (*COPY, "1\tx", "\\.", "\\! touch {}"),
        ("CREATE FUNCTION public.f() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT 1; END;", "\\! touch {}"),
        ("/* comment */ \\! touch {}", ";"),
        ("COPY (SELECT 1) TO PROGRAM 'touch {}';",),
        ("copy/**/pg_catalog.pg_class FROM '/etc/passwd';",),
        (
            "CREATE TABLE public.t (stdin int);",
            "COPY public.t FROM PROGRAM 'touch {}' WHERE stdin IS DISTINCT FROM stdin;",
            "\\.",
        ),
        ("DO $$ BEGIN EXECUTE $x$COPY (SELECT 1) TO PROGRAM 'touch {}'$x$; END $$;",),
        ("ALTER SYSTEM SET archive_command = 'touch {}';",),
        ("CREATE ROLE gitlab_guest SUPERUSER;",),
        ("CREATE USER gitlab_guest;",),
        ("do $$ begin end $$;",),
        ("COMMIT;", "\\! touch {}"),
        ("COMMIT AND CHAIN;",),
        ("ROLLBACK;",),
        ("end;",),
        ("SELECT 1\0; DROP TABLE old;",),
    ],
)
def test_a_dump_runs_no_commands(
    cluster: Cluster, database: str, strategy: str, lines: tuple[str, ...], tmp_path: Path
) -> None:
    """Neither those of psql, wherever they stand, nor programs of the server; and it does not end our transaction."""
    made = cluster.directory / f"made-{database}"
    cluster.psql("CREATE TABLE old AS SELECT 1 AS a", database)
    dump = simple(*(line.format(made) for line in lines))
    run = restoring(tmp_path, {"main": dump}, described(cluster, database), database_strategy=strategy)
    fails(run, cluster, database)
    assert not made.exists()


def test_a_transaction_that_is_not_committed_is_no_restore(cluster: Cluster, database: str, tmp_path: Path) -> None:
    """All that comes after a BEGIN alone would be lost."""
    run = restoring(tmp_path, {"main": simple("BEGIN;", "CREATE TABLE public.t ();")}, described(cluster, database))
    assert isinstance(fails(run, cluster, database), CorruptStreamError)


def test_what_is_harmless_is_forgiven(cluster: Cluster, database: str, strategy: str, tmp_path: Path) -> None:
    """Missing roles, extensions of others and newer settings: some are worth a warning, none fails the restore."""
    user, other = role(cluster, "CREATEDB"), role(cluster)
    cluster.psql(f'ALTER DATABASE "{database}" OWNER TO {user}')
    cluster.psql("CREATE EXTENSION pg_trgm", database)
    lines = (
        "\\restrict abc123",
        "SET transaction_timeout = 0;",
        "DROP EXTENSION IF EXISTS pg_trgm;",
        "CREATE EXTENSION IF NOT EXISTS pg_trgm WITH SCHEMA public;",
        "COMMENT ON EXTENSION pg_trgm IS 'mine';",
        "COMMENT ON EXTENSION plpgsql IS 'mine';",
        "CREATE TABLE public.t (a int);",
        "ALTER TABLE public.t OWNER TO nobody_here;",
        f"ALTER TABLE public.t OWNER TO {other};",
        'ALTER TABLE public.t OWNER TO "no; body";',
        "GRANT SELECT ON TABLE public.t TO nobody_here;",
        "REVOKE ALL ON TABLE public.t FROM nobody_here;",
        "ALTER DEFAULT PRIVILEGES FOR ROLE nobody_here GRANT SELECT ON TABLES TO PUBLIC;",
        "ALTER DEFAULT PRIVILEGES FOR ROLE postgres GRANT SELECT ON TABLES TO PUBLIC;",
        "\\unrestrict abc123",
    )
    run = restoring(tmp_path, {"main": simple(*lines)}, described(cluster, database, user), database_strategy=strategy)
    run.run()
    assert user == cluster.psql("SELECT relowner::regrole FROM pg_class WHERE relname = 't'", database)
    assert 7 == len(run.warnings)
    assert all(warning.startswith("main: not done: ") for warning in run.warnings)


def test_too_few_locks_are_said(tmp_path: Path) -> None:
    """The error names the setting that has to be raised."""
    with postgres.cluster(settings={"max_locks_per_transaction": "10", "max_connections": "10"}) as server:
        server.create_database("gitlab")
        for number in range(20):
            server.psql(
                f"DO $$BEGIN FOR i IN 1..100 LOOP EXECUTE 'CREATE TABLE t{number}_' || i || ' ()'; END LOOP; END$$",
                "gitlab",
            )
        main = described(server, "gitlab")
        run = restoring(tmp_path, {"main": simple()}, main, database_strategy="transaction")
        run.plan()
        with pytest.raises(DatabaseError) as caught:
            run.stage()
        assert "max_locks_per_transaction" in str(caught.value.hint)
        assert "2000" == server.psql(
            "SELECT count(*) FROM pg_class WHERE relkind = 'r' AND relname ~ '^t[0-9]'", "gitlab"
        )
        creating = (f"CREATE TABLE public.t{number} (a int);" for number in range(3000))
        server.create_database("second")
        run = restoring(
            tmp_path, {"main": simple(*creating)}, described(server, "second"), database_strategy="transaction"
        )
        assert "max_locks_per_transaction" in str(fails(run, server, "second").hint)


def waiting(cluster: Cluster, run: Restoring, act: str) -> GitLabBackupError:
    """Stage, and do something when the load has come to a long statement. Returns the error."""
    errors: list[GitLabBackupError] = []

    def stage() -> None:
        try:
            run.stage()
        except GitLabBackupError as error:
            errors.append(error)

    thread = threading.Thread(target=stage)
    thread.start()
    query = "SELECT pid FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(300)%' AND state = 'active'"
    while not (pid := cluster.psql(query)) and thread.is_alive():
        select.select([], [], [], 0.02)
    if act == "terminate":
        cluster.psql(f"SELECT pg_terminate_backend({pid})")
    elif act == "cancel":
        run.job.cancel.request()
    else:
        cluster.kill()
        cluster.start()
    thread.join(60)
    assert not thread.is_alive()
    return errors[0]


@pytest.mark.parametrize("act", ["terminate", "cancel"])
def test_what_ends_a_load_leaves_the_old(
    cluster: Cluster, database: str, strategy: str, act: str, tmp_path: Path
) -> None:
    """A session that is cut, and a request to stop in the middle of a long statement, take effect at once."""
    cluster.psql("CREATE TABLE old AS SELECT 1 AS a", database)
    before = state(cluster, database)
    dump = simple("CREATE TABLE public.t (a int);", "SELECT pg_sleep(300);")
    run = restoring(
        tmp_path, {"main": dump}, described(cluster, database), cancel=Cancellation(), database_strategy=strategy
    )
    run.plan()
    error = waiting(cluster, run, act)
    assert isinstance(error, CancelledError if act == "cancel" else ComponentError)
    run.undo(fresh=False)
    assert before == state(cluster, database)
    assert leftovers(cluster, database) == []


def test_a_server_that_dies_has_the_old(tmp_path: Path) -> None:
    """When it is back, undo removes what the load had made; also after the server died between load and commit."""
    with postgres.cluster() as server:
        server.create_database("gitlab")
        server.psql(SCHEMA, "gitlab")
        server.kill()  # a crash makes sequences skip some values, once
        server.start()
        before, dump = state(server, "gitlab"), dump_of(server, "gitlab")
        for strategy in ("swap", "transaction"):
            sleeping = dump.replace(b"\nCREATE TABLE", b"\nSELECT pg_sleep(300);\nCREATE TABLE", 1)
            run = restoring(tmp_path, {"main": sleeping}, described(server, "gitlab"), database_strategy=strategy)
            run.plan()
            assert isinstance(waiting(server, run, "kill"), ComponentError)
            run.undo(fresh=False)
            assert before == state(server, "gitlab")

            run = restoring(tmp_path, {"main": dump}, described(server, "gitlab"), database_strategy=strategy)
            run.plan()
            run.stage()
            server.kill()
            if strategy == "transaction":
                with pytest.raises(DatabaseError, match="cannot commit"):
                    run.swap()
            with pytest.raises(DatabaseError) if strategy == "swap" else pytest.MonkeyPatch().context():
                run.undo(fresh=False)
            server.start()
            run.undo()
            assert before == state(server, "gitlab")
        assert leftovers(server, "gitlab") == []


def test_nobody_comes_back_too_fast(cluster: Cluster, database: str, tmp_path: Path) -> None:
    """Clients that connect again and again do not keep the databases from being swapped."""
    cluster.psql("CREATE TABLE t AS SELECT 1 AS a", database)
    run = restoring(tmp_path, {"main": dump_of(cluster, database)}, described(cluster, database))
    stop = threading.Event()

    def insist() -> None:
        while not stop.is_set():
            try:
                with psycopg.connect(cluster.dsn(database), autocommit=True) as session:
                    while not stop.is_set():
                        session.execute("SELECT pg_sleep(0.01)")
            except psycopg.Error:
                continue

    threads = [threading.Thread(target=insist) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        run.run()
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert leftovers(cluster, database) == []


def test_a_dump_does_not_fill_the_disk(cluster: Cluster, database: str, strategy: str, tmp_path: Path) -> None:
    """It may have as many bytes as when it was made: what comes after them is not loaded."""
    dump = simple("CREATE TABLE public.t (a int);", "CREATE TABLE public.u (a int);")
    for size in (len(dump) - 1, len(dump)):
        run = restoring(
            tmp_path,
            {"main": dump},
            described(cluster, database),
            details={"main": {"dump_bytes": size}},
            database_strategy=strategy,
        )
        if size == len(dump):
            run.run()
        else:
            assert f"goes on after {size} bytes" in fails(run, cluster, database).message
