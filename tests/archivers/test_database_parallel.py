"""A database is loaded in several sessions as in one."""

# ruff: noqa: S608 - the names in the SQL are of our own making
from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING

import psycopg
import pytest

from gitlab_backup.archivers.database.parallel import PIECE, locks_of
from gitlab_backup.archivers.database.sessions import Locks, Session, Sessions
from gitlab_backup.errors import CancelledError, ComponentError
from gitlab_backup.streams.cancel import Cancellation
from tests.archivers.database_restoring import SCHEMA, described, dump_of, leftovers, restoring, simple
from tests.archivers.test_database_joined import ODD

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.installation import ThrowawayInstallation
    from tests.support.postgres import Cluster

LARGE = f"""
    CREATE TABLE large AS SELECT i, repeat(md5(i::text), 40) AS t FROM generate_series(1, {4 * PIECE // 1280}) i;
    ALTER TABLE large ADD PRIMARY KEY (i); CREATE INDEX ON large (t); CREATE INDEX ON large (length(t));
"""


def sorted_state(cluster: Cluster, dbname: str) -> list[bytes]:
    """Return all of a database, its rows in no order."""
    lines = dump_of(cluster, dbname, "--create").splitlines()
    return sorted(line for line in lines if not line.startswith((b"\\restrict", b"\\unrestrict")))


@pytest.mark.parametrize("jobs", [1, 2, 5])
def test_everything_is_loaded_in_several_sessions(
    cluster: Cluster, database: str, template_installation: ThrowawayInstallation, jobs: int, tmp_path: Path
) -> None:
    """With one of everything in it: rows, indexes, constraints, and what hangs on them."""
    cluster.drop_database(database)
    cluster.create_database(database, template=template_installation.databases["main"])
    cluster.psql(f"DROP EXTENSION IF EXISTS pg_trgm CASCADE; {SCHEMA} {ODD} {LARGE}", database)
    dump, before = dump_of(cluster, database), sorted_state(cluster, database)
    cluster.psql("DROP TABLE large; DELETE FROM mutual", database)

    run = restoring(tmp_path, {"main": dump}, described(cluster, database), jobs=jobs, database_strategy="swap")
    run.run()

    assert before == sorted_state(cluster, database)
    assert leftovers(cluster, database) == []
    assert "0" == cluster.psql(
        "SELECT count(*) FROM pg_class WHERE relkind = 'r' AND reltuples < 0 AND relnamespace = 'public'::regnamespace",
        database,
    )


@pytest.mark.parametrize("jobs", [1, 3])
def test_a_bad_row_is_placed_in_its_table(cluster: Cluster, database: str, jobs: int, tmp_path: Path) -> None:
    """Whichever session meets it, and however many rows were loaded by others: its number is that in the dump."""
    rows = [f"{i}\t{'x' * 1000}" for i in range(1, 5 * PIECE // 1000)]
    rows[-9] = "no number\tx"
    dump = simple("CREATE TABLE t (n int, t text);", "COPY t (n, t) FROM stdin;", *rows, "\\.")
    run = restoring(tmp_path, {"main": dump}, described(cluster, database), jobs=jobs, database_strategy="swap")
    run.plan()
    with pytest.raises(ComponentError, match=rf"line 8 .*COPY t.*, row {len(rows) - 8} of it") as caught:
        run.stage()
    run.undo()

    assert "no number" not in caught.value.message
    assert leftovers(cluster, database) == []


def test_a_row_may_be_longer_than_all_memory_for_rows(cluster: Cluster, database: str, tmp_path: Path) -> None:
    """Rows before and after it are loaded as others are."""
    rows = ["1\tx", f"2\t{'y' * (20 << 20)}", *(f"{i}\t{'z' * 1000}" for i in range(3, 4000))]
    dump = simple("CREATE TABLE t (n int, t text);", "COPY t (n, t) FROM stdin;", *rows, "\\.", "SELECT 1;")
    run = restoring(tmp_path, {"main": dump}, described(cluster, database), jobs=2, database_strategy="swap")
    run.run()

    assert f"3999|{20 << 20}|3999" == cluster.psql("SELECT count(*), max(length(t)), max(n) FROM t", database)


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("ALTER TABLE ONLY a\n    ADD CONSTRAINT k PRIMARY KEY (n);", r"line 15 .*could not create unique index"),
        (
            "ALTER TABLE ONLY a\n    ADD CONSTRAINT f FOREIGN KEY (n) REFERENCES b(n);",
            r"line 15 .*no unique constraint",
        ),
        ("CREATE INDEX i ON a USING btree (absent);", r"line 15 .*absent"),
    ],
)
def test_what_fails_beside_others_fails_the_restore(
    cluster: Cluster, database: str, statement: str, message: str, tmp_path: Path
) -> None:
    """A constraint that does not hold is an error, with its line, also among statements that go well."""
    dump = simple(
        *("CREATE TABLE a (n int);", "CREATE TABLE b (n int);", "COPY a (n) FROM stdin;", "1", "1", "\\."),
        *("CREATE INDEX b1 ON b USING btree (n);", "CREATE INDEX a1 ON a USING btree (n);", statement),
        *("CREATE INDEX b2 ON b USING btree (n);", "CREATE INDEX b3 ON b USING btree (n);"),
    )
    run = restoring(tmp_path, {"main": dump}, described(cluster, database), jobs=3, database_strategy="swap")
    run.plan()
    with pytest.raises(ComponentError, match=message):
        run.stage()
    run.undo()

    assert leftovers(cluster, database) == []


def test_a_request_to_stop_ends_all_sessions(cluster: Cluster, database: str, tmp_path: Path) -> None:
    """Statements that would never end are ended by it."""
    cancel = Cancellation()
    dump = simple(
        "CREATE FUNCTION slow(n int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT n FROM pg_catalog.pg_sleep(600)';",
        *("CREATE TABLE a (n int);", "COPY a (n) FROM stdin;", "1", "\\."),
        *(f"CREATE INDEX a{i} ON a USING btree (public.slow(n));" for i in range(3)),
    )
    run = restoring(
        tmp_path, {"main": dump}, described(cluster, database), jobs=2, cancel=cancel, database_strategy="swap"
    )
    plan = run.plan()
    databases = plan.facts["databases"]
    assert isinstance(databases, list)
    (target,) = databases
    assert isinstance(target, dict)
    sleeping = f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{target['new']}' AND wait_event = 'PgSleep'"

    def stop() -> None:
        while not ended.is_set() and cluster.psql(sleeping) != "2":
            pass
        cancel.request()

    ended = threading.Event()
    thread = threading.Thread(target=stop)
    thread.start()
    try:
        with pytest.raises(CancelledError):
            run.stage()
    finally:
        ended.set()
        thread.join()
    left = cluster.psql(sleeping)
    run.undo()

    assert left == "0"
    assert leftovers(cluster, database) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"CREATE INDEX i ON public.a USING btree (n)", Locks(shared=frozenset({"public.a"}))),
        (b'CREATE UNIQUE INDEX "I ON x" ON ONLY "S"."a b" USING gin (n)', Locks(shared=frozenset({'"S"."a b"'}))),
        (b"ALTER TABLE ONLY a\n    ADD CONSTRAINT k UNIQUE (n)", Locks(alone=frozenset({"a"}))),
        (b"ALTER TABLE ONLY a\n    ADD CONSTRAINT k EXCLUDE USING gist (n WITH =)", Locks(alone=frozenset({"a"}))),
        (
            b'ALTER TABLE ONLY a\n    ADD CONSTRAINT k FOREIGN KEY (n, "m)") REFERENCES s.b(x, y) ON DELETE CASCADE',
            Locks(alone=frozenset({"a", "s.b"})),
        ),
        (b"ALTER TABLE a\n    ADD CONSTRAINT k FOREIGN KEY (n) REFERENCES b(x)", None),
        (b"ALTER TABLE ONLY a REPLICA IDENTITY USING INDEX i", None),
        (b"ALTER INDEX i ATTACH PARTITION j", None),
        (b"ALTER TABLE a CLUSTER ON i", None),
        (b"CREATE TRIGGER i ON a", None),
        (b"CREATE STATISTICS i ON a, b FROM c", None),
    ],
)
def test_only_what_is_known_runs_beside_others(text: bytes, expected: Locks | None) -> None:
    """Every other statement waits for all before it."""
    assert expected == locks_of(text)


@pytest.fixture
def connections(cluster: Cluster, database: str) -> Iterator[list[psycopg.Connection[tuple[object, ...]]]]:
    """Three connections to a database."""
    opened = [psycopg.connect(cluster.dsn(database), autocommit=True) for _ in range(3)]
    yield opened
    for each in opened:
        each.close()


def test_tasks_that_conflict_keep_their_order(connections: list[psycopg.Connection[tuple[object, ...]]]) -> None:
    """The same table alone: one after the other; and a heavier one is begun before a lighter one."""
    done: list[int] = []
    with Sessions(connections, room=1) as sessions:
        for number in range(30):
            sessions.submit(partial(_note, done, number), locks=Locks(alone=frozenset({"t"})))
        sessions.wait()
        first = list(done)
        gate = threading.Event()

        def stay(_: Session) -> None:
            gate.wait()

        for _ in range(3):
            sessions.submit(stay, locks=Locks(shared=frozenset({"u"})))
        for number in range(3):
            sessions.submit(
                partial(_note, done, number), weight=number, locks=Locks(alone=frozenset({"u", f"{number}"}))
            )
        gate.set()
        sessions.wait()

    assert list(range(30)) == first
    assert [2, 1, 0] == done[30:]


def _note(done: list[int], number: int, session: Session) -> None:
    session.connection.execute("SELECT 1")
    done.append(number)


def test_no_more_is_held_than_there_is_room(connections: list[psycopg.Connection[tuple[object, ...]]]) -> None:
    """Whoever hands on more has to wait; one task that is larger than all room is taken when nothing is held."""
    held, most = [0], [0]
    lock = threading.Lock()

    def work(_: Session) -> None:
        with lock:
            held[0] -= 10

    with Sessions(connections, room=30) as sessions:
        for _ in range(100):
            with lock:
                held[0] += 10
                most[0] = max(most[0], held[0])
            sessions.submit(work, size=10)
        sessions.wait()
        sessions.submit(lambda _: None, size=1000)
        sessions.wait()

    # Three that wait or run, one that is being handed on.
    assert most[0] <= 40
    assert held == [0]


def test_the_first_failure_ends_all(connections: list[psycopg.Connection[tuple[object, ...]]]) -> None:
    """A statement that would run for long is ended, what waits is not begun, and the failure is told."""
    done: list[int] = []

    def fail(_: Session) -> None:
        raise ValueError("first")

    def sleep(session: Session) -> None:
        session.connection.execute("SELECT pg_sleep(600)")

    def hand_on_much(sessions: Sessions) -> None:
        sessions.submit(sleep)
        for number in range(1000):
            sessions.submit(fail)
            sessions.submit(partial(_note, done, number), locks=Locks(alone=frozenset({"t"})))

    with Sessions(connections, room=1) as sessions:
        with pytest.raises(ValueError, match="first"):
            hand_on_much(sessions)
        with pytest.raises(ValueError, match="first"):
            sessions.wait()

    assert len(done) < 1000


def test_no_key_is_made_before_all_rows_are_there(cluster: Cluster, database: str, tmp_path: Path) -> None:
    """A key that refers to a table whose rows are still being loaded waits for them."""
    many = range(PIECE // 2)
    dump = simple(
        *("CREATE TABLE a (n int);", "CREATE TABLE b (n int UNIQUE);", "COPY a (n) FROM stdin;", "5", f"{many[-1]}"),
        *("\\.", "COPY b (n) FROM stdin;", *map(str, many), "\\."),
        "ALTER TABLE ONLY a\n    ADD CONSTRAINT f FOREIGN KEY (n) REFERENCES b(n);",
    )
    run = restoring(tmp_path, {"main": dump}, described(cluster, database), jobs=3, database_strategy="swap")
    run.run()

    assert f"{len(many)}" == cluster.psql("SELECT count(*) FROM b", database)


def test_two_statements_that_wait_for_each_other_are_both_done(cluster: Cluster, database: str, tmp_path: Path) -> None:
    """The server ends one of them, which is then done again."""
    # A key that refers to a partitioned table locks its partitions, too, which no name in the statement tells.
    cluster.psql(
        "CREATE TABLE p (n int PRIMARY KEY) PARTITION BY RANGE (n);"
        + "".join(f"CREATE TABLE p{i} PARTITION OF p FOR VALUES FROM ({i}) TO ({i + 1});" for i in range(8))
        + "INSERT INTO p SELECT generate_series(0, 7);"
        + "".join(f"CREATE TABLE r{i} (n int REFERENCES p); INSERT INTO r{i} VALUES ({i});" for i in range(6))
        + "".join(f"ALTER TABLE p{i} ADD FOREIGN KEY (n) REFERENCES p;" for i in range(8)),
        database,
    )
    dump, before = dump_of(cluster, database), sorted_state(cluster, database)
    cluster.psql("DROP TABLE r1", database)
    run = restoring(tmp_path, {"main": dump}, described(cluster, database), jobs=4, database_strategy="swap")
    run.run()

    assert before == sorted_state(cluster, database)


def test_a_small_b_tree_is_sorted_within_the_caches(cluster: Cluster, database: str, tmp_path: Path) -> None:
    """In less memory than the server grants; indexes of other kinds have all of that, also in the same session."""
    granted = cluster.psql("SHOW maintenance_work_mem", database)
    dump = simple(
        "CREATE FUNCTION sorted_in(wanted text, n int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN"
        " IF pg_catalog.current_query() LIKE ''CREATE%'' AND wanted <> pg_catalog.current_setting("
        "''maintenance_work_mem'') THEN RAISE ''sorted in other memory''; END IF; RETURN n; END';",
        *("CREATE TABLE a (n int);", "COPY a (n) FROM stdin;", "1", "\\."),
        *(
            f"CREATE INDEX {kind}{i} ON a USING {kind} (public.sorted_in('{memory}', n));"
            for i in range(3)
            for kind, memory in (("btree", "16MB"), ("hash", granted))
        ),
    )
    run = restoring(tmp_path, {"main": dump}, described(cluster, database), jobs=2, database_strategy="swap")
    run.run()

    assert "16MB" != granted
    assert "6" == cluster.psql("SELECT count(*) FROM pg_indexes WHERE tablename = 'a'", database)
