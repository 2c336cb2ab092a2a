"""One dump by several runs of pg_dump: equal to that of one, or a failure."""

# ruff: noqa: S608 - the names in the SQL are of our own making
from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from gitlab_backup.archivers.database import DatabaseArchiver
from gitlab_backup.archivers.database.joined import JoinedDump, ShareRun
from gitlab_backup.archivers.database.shares import Sharing
from gitlab_backup.errors import CancelledError, ComponentError, StreamError
from gitlab_backup.streams.cancel import Cancellation
from tests.archivers.database_restoring import SCHEMA, dump_of, state
from tests.archivers.test_database import command_lines, described, fake_pg_dump, fill, run_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from gitlab_backup.archivers.base import JSON
    from tests.archivers.test_database import Run
    from tests.support.installation import ThrowawayInstallation
    from tests.support.postgres import Cluster

EVERYTHING = Sharing(database=0, table=1, piece=100)
"""Every table with a row is shared, and cut into many pieces."""

ODD = """
    CREATE TABLE " a ""b"".c' " (" x y " int PRIMARY KEY, "COPY" text);
    INSERT INTO " a ""b"".c' " SELECT i, E'\\\\.\\n' || i FROM generate_series(1, 300) i;
    CREATE TABLE "two\nlines" (a int); INSERT INTO "two\nlines" VALUES (1), (NULL);
    CREATE TABLE "größe" (a int); INSERT INTO "größe" VALUES (1);
    CREATE TABLE "a*b?|$" (a int); INSERT INTO "a*b?|$" SELECT generate_series(1, 99);
    CREATE TABLE axb (a int); INSERT INTO axb SELECT generate_series(1, 9);
    CREATE SCHEMA "Odd Schema"; CREATE TABLE "Odd Schema"."User" (a int GENERATED ALWAYS AS IDENTITY, b text);
    INSERT INTO "Odd Schema"."User" (b) SELECT repeat('long ', 100 * i) FROM generate_series(1, 90) i;
    CREATE TABLE doubled (a int, gone text, twice int GENERATED ALWAYS AS (a * 2) STORED, c text COLLATE "C");
    ALTER TABLE doubled DROP gone; INSERT INTO doubled (a, c) SELECT i, '' FROM generate_series(1, 100) i;
    CREATE TABLE base (a int); CREATE TABLE child (b int) INHERITS (base);
    INSERT INTO base SELECT generate_series(1, 50); INSERT INTO child SELECT i, i FROM generate_series(1, 60) i;
    CREATE UNLOGGED TABLE fast (a int); INSERT INTO fast SELECT generate_series(1, 70);
    CREATE TABLE nothing (); INSERT INTO nothing SELECT FROM generate_series(1, 80);
    CREATE TABLE mutual (id int PRIMARY KEY, other int REFERENCES mutual);
    INSERT INTO mutual SELECT i, 101 - i FROM generate_series(1, 100) i;
    CREATE FUNCTION noticed() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN NULL; END $$;
    CREATE EVENT TRIGGER watching ON ddl_command_end EXECUTE FUNCTION noticed();
    CREATE POLICY mine ON doubled USING (a > 0); GRANT SELECT ON doubled TO PUBLIC; COMMENT ON COLUMN doubled.a IS 'a';
    SELECT lo_from_bytea(4711, repeat('large ', 1000)::bytea); COMMENT ON LARGE OBJECT 4711 IS 'described';
    GRANT SELECT ON LARGE OBJECT 4711 TO PUBLIC;
"""
LATER = """
    DROP TABLE "two\nlines", child; CREATE INDEX ON axb (a);
    DELETE FROM mutual; ALTER TABLE base ADD c int; DROP VIEW seen; SELECT setval('lonely', 99);
    SELECT lo_unlink(4711); INSERT INTO users (name) VALUES ('late');
"""


@contextmanager
def joining(root: Path, programs: Path, cluster: Cluster, dbname: str, **options: object) -> Iterator[Run]:
    """Prepare a backup whose dump is made by several runs."""
    with run_of(root, programs, described(cluster, dbname), **options) as run:  # type: ignore[arg-type]
        run.archiver = DatabaseArchiver(EVERYTHING)
        run.job.jobs = 3
        run.prepare()
        yield run


def details_of(details: Mapping[str, JSON]) -> Mapping[str, JSON]:
    databases = details["databases"]
    assert isinstance(databases, dict)
    main = databases["main"]
    assert isinstance(main, dict)
    return main


@pytest.fixture
def odd(cluster: Cluster, database: str, template_installation: ThrowawayInstallation) -> str:
    """A database with one of everything that a dump has to carry."""
    cluster.drop_database(database)
    cluster.create_database(database, template=template_installation.databases["main"])
    cluster.psql(f"DROP EXTENSION IF EXISTS pg_trgm CASCADE; {SCHEMA} {ODD}", database)
    return database


def psql(cluster: Cluster, dbname: str, dump: bytes, *, stop: bool = True) -> None:
    cluster.run("psql", "-X", "-q", "-v", f"ON_ERROR_STOP={int(stop)}", "-d", dbname, stdin=dump)


def test_a_joined_dump_makes_the_same_database_as_one_of_pg_dump(cluster: Cluster, odd: str, tmp_path: Path) -> None:
    """Into an empty database, and over the one that it is of when that has changed: nothing is different."""
    before, single = state(cluster, odd), dump_of(cluster, odd)
    with joining(tmp_path, cluster.programs, cluster, odd) as run:
        details = run.back_up()
    dump = run.dump("db/database.sql.gz")

    assert len(set(re.findall(rb"^COPY (.*) FROM", dump, re.MULTILINE))) > 20
    assert dump.count(b"\nCOPY ") > single.count(b"\nCOPY ")
    assert run.verify(details) == []
    new, other = f"{odd}_new", f"{odd}_other"
    try:
        cluster.create_database(new)
        psql(cluster, new, dump)
        assert contents(before) == contents(state(cluster, new))
        # Over an old database, --clean stumbles where an index of a partition goes with that of its table.
        cluster.psql(LATER, odd)
        cluster.create_database(other, template=odd)
        psql(cluster, odd, single, stop=False)
        psql(cluster, other, dump, stop=False)
        assert contents(state(cluster, odd)) == contents(state(cluster, other))
    finally:
        cluster.drop_database(new)
        cluster.drop_database(other)


def contents(lines: list[bytes]) -> list[bytes]:
    """Return the lines of a dump but for those that name the database."""
    start = next(number for number, line in enumerate(lines) if line.startswith(b"\\connect"))
    return [line for line in lines[start + 1 :] if b" DATABASE " not in line]


def test_the_manifest_knows_all_rows_of_a_joined_dump(cluster: Cluster, odd: str, tmp_path: Path) -> None:
    """Rows are counted over all pieces of all runs, as one run counts them; the size is that of the whole."""
    with joining(tmp_path / "a", cluster.programs, cluster, odd) as run:
        joined = details_of(run.back_up())
    with run_of(tmp_path / "b", cluster.programs, described(cluster, odd)) as other:
        other.prepare()
        single = details_of(other.back_up())

    assert single["rows"] == joined["rows"]
    assert len(run.dump("db/database.sql.gz")) == joined["dump_bytes"]
    assert [] == joined["messages"]


def test_every_line_of_a_joined_dump_is_one_of_pg_dump(cluster: Cluster, odd: str, tmp_path: Path) -> None:
    """Apart from the order, and the COPY statements of the pieces, nothing is added, and nothing is missing."""
    single = dump_of(cluster, odd)
    with joining(tmp_path, cluster.programs, cluster, odd) as run:
        run.back_up()

    def lines(dump: bytes) -> list[bytes]:
        again = rb"(?:\\\.\n)*^COPY .*;\n|^\\\.\n|^\\(?:un)?restrict .*\n|^--.*\n"
        return sorted(line for line in re.sub(again, b"", dump, flags=re.MULTILINE).splitlines() if line)

    assert lines(single) == lines(run.dump("db/database.sql.gz"))


def test_all_runs_see_the_same_moment(cluster: Cluster, database: str, tmp_path: Path) -> None:
    """What is written or dropped after the snapshot is in no run; a new table is no run's."""
    for table in ("a", "b", "c"):
        cluster.psql(f"CREATE TABLE {table} AS SELECT generate_series(1, 100) AS n", database)
    with joining(tmp_path, cluster.programs, cluster, database) as run:
        cluster.psql("DELETE FROM a; INSERT INTO b SELECT 7; UPDATE c SET n = 0; CREATE TABLE d AS SELECT 1", database)
        details = run.back_up()

    assert {"public.a": 100, "public.b": 100, "public.c": 100} == details_of(details)["rows"]


@pytest.mark.parametrize("schema", ["base", "BASE", "b*"])
def test_only_the_configured_schemas_are_in_a_joined_dump(
    cluster: Cluster, database: str, schema: str, tmp_path: Path
) -> None:
    """`backup.pg_schema` restricts all runs, also where it is a pattern to pg_dump."""
    for name in ("base", "other"):
        cluster.psql(
            f"CREATE SCHEMA {name} CREATE TABLE a (n int) CREATE TABLE b (n int);"
            f"INSERT INTO {name}.a VALUES (1), (2); INSERT INTO {name}.b VALUES (1)",
            database,
        )
    with run_of(tmp_path, cluster.programs, described(cluster, database, schemas=(schema,))) as run:
        run.archiver = DatabaseArchiver(EVERYTHING)
        run.prepare()
        details = run.back_up()

    assert {"base.a": 2, "base.b": 1} == details_of(details)["rows"]


@pytest.mark.parametrize("of", ["--exclude-table-data", "--section"])
@pytest.mark.parametrize(
    "death",
    [
        ('"$real" "$@" | head -c 2000; kill -KILL $$', "killed"),
        ('"$real" "$@"; echo "pg_dump: error: the moon is full" >&2; exit 1', "the moon is full"),
        ('"$real" "$@" | head -c 2000', "cut short at byte 2000"),
        ('"$real" "$@" | sed "/^.unrestrict/d;/database dump complete/d"', "cut short"),
        ("exit 0", "cut short at byte 0"),
    ],
    ids=["killed", "fails-late", "cut-short", "without-end", "silent"],
)
def test_one_dying_pg_dump_of_several_fails_the_component(
    cluster: Cluster, database: str, tmp_path: Path, of: str, death: tuple[str, str]
) -> None:
    """Whichever run it is, that of the whole or those of shares: its own words, no finished file, no process left."""
    fill(cluster, database, 2000)
    cluster.psql("CREATE TABLE a AS TABLE users; CREATE TABLE b AS TABLE users", database)
    script, message = death
    programs = fake_pg_dump(
        tmp_path / "bin", cluster.programs, f'case "$*" in *{of}*) {script};; *) exec "$real" "$@";; esac'
    )
    with joining(tmp_path, programs, cluster, database) as run:
        snapshot = run.archiver._snapshots[0].id
        with pytest.raises(ComponentError, match=message) as caught:
            run.back_up()

    assert run.files == []
    assert f"database main ({database}" in caught.value.message
    assert command_lines(snapshot) == []


def test_a_run_that_dumps_what_another_dumps_fails_the_component(
    cluster: Cluster, database: str, tmp_path: Path
) -> None:
    """A table that is in the dump twice, because an option is not heeded, is never a backup."""
    fill(cluster, database)
    cluster.psql("CREATE TABLE a AS TABLE users", database)
    script = 'for each; do shift; case $each in --exclude*) ;; *) set -- "$@" "$each";; esac; done; exec "$real" "$@"'
    programs = fake_pg_dump(tmp_path / "bin", cluster.programs, script)
    with (
        joining(tmp_path, programs, cluster, database) as run,
        pytest.raises(ComponentError, match=r"public\.\w+ twice"),
    ):
        run.back_up()

    assert run.files == []


def test_a_run_that_never_ends_is_ended_with_another(cluster: Cluster, database: str, tmp_path: Path) -> None:
    """The first failure is told, and the others are gone when it is."""
    fill(cluster, database)
    cluster.psql("CREATE TABLE a AS TABLE users; CREATE TABLE b AS TABLE users", database)
    script = 'case "$*" in *--section*) mkdir "$0.taken" 2>/dev/null && exec '
    script += 'tail -f /dev/null; echo "it is me" >&2; exit 1;; *) exec "$real" "$@";; esac'
    programs = fake_pg_dump(tmp_path / "bin", cluster.programs, script)
    with joining(tmp_path, programs, cluster, database) as run, pytest.raises(ComponentError, match="it is me"):
        run.back_up()

    assert run.files == []


def test_a_cancelled_joined_dump_leaves_no_process(cluster: Cluster, database: str, tmp_path: Path) -> None:
    """In the middle of the rows: all programs end."""
    for table in ("a", "b", "c"):
        cluster.psql(
            f"CREATE TABLE {table} AS SELECT repeat(md5(i::text), 20) AS t FROM generate_series(1, 5000) i", database
        )
    cancel = Cancellation()
    taken: list[int] = []

    def progress(more: int, written: int) -> None:  # noqa: ARG001
        taken.append(more)
        if sum(taken) > 1 << 20:
            cancel.request()

    with joining(tmp_path, cluster.programs, cluster, database, progress=progress, cancel=cancel) as run:
        snapshot = run.archiver._snapshots[0].id
        with pytest.raises(CancelledError):
            run.back_up()
        left = command_lines(snapshot)

    assert left == []
    assert run.files == []


def test_a_sink_that_breaks_fails_all_runs(cluster: Cluster, database: str, tmp_path: Path) -> None:
    """What cannot be written by one run is the error, and ends the others."""
    for table in ("a", "b", "c"):
        cluster.psql(f"CREATE TABLE {table} AS SELECT md5(i::text) FROM generate_series(1, 20000) i", database)

    taken: list[int] = []

    def progress(more: int, written: int) -> None:  # noqa: ARG001
        taken.append(more)
        if sum(taken) > 1 << 20:
            raise StreamError("full")

    with (
        joining(tmp_path, cluster.programs, cluster, database, progress=progress) as run,
        pytest.raises(StreamError, match="full"),
    ):
        run.back_up()

    assert run.files == []


def test_a_change_that_waits_for_one_run_does_not_hold_another_for_ever(
    cluster: Cluster, database: str, tmp_path: Path
) -> None:
    """A migration between two runs would wait for the first, and the second for the migration: that is an error."""
    fill(cluster, database)
    # What follows the rows must not fit into a pipe: else the first run ends, and lets go of its locks.
    comment = "EXECUTE format('COMMENT ON INDEX users_pkey IS %L', repeat('x', 3 << 20))"
    cluster.psql(f"CREATE TABLE a AS TABLE users; DO $$ BEGIN {comment}; END $$", database)
    waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation IN ('a'::regclass, 'users'::regclass)"
    script = (
        f'case "$*" in *--section*) sql() {{ "{cluster.programs}/psql" -X -q -A -t -c "$1"; }};'
        f' sql "ALTER TABLE a ADD x int" & sql "ALTER TABLE users ADD x int" &'
        f' until [ "$(sql "{waiting}")" = 2 ]; do :; done;'
        ' exec "$real" "$@" --lock-wait-timeout=100ms;; *) exec "$real" "$@";; esac'
    )
    programs = fake_pg_dump(tmp_path / "bin", cluster.programs, script)
    with joining(tmp_path, programs, cluster, database) as run, pytest.raises(ComponentError) as caught:
        run.back_up()

    assert "LOCK TABLE" in caught.value.message
    assert "--jobs 1" in str(caught.value.hint)
    assert run.files == []


class Collected:
    """A sink that keeps everything."""

    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes | bytearray | memoryview, /) -> None:
        self.data += bytes(data)

    def finish(self) -> None: ...

    def abort(self) -> None: ...


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("piece", [1, 5, 100])
def test_pieces_hold_whole_rows_however_the_output_is_cut(size: int, piece: int) -> None:
    """A row that is longer than a piece is not cut, and nobody else writes meanwhile; empty tables keep their COPY."""
    rows = b"a\nlonger than one piece of them\n\\\\.\n\n\\N\nb\n"
    share = b"--\n-- PostgreSQL database dump\n--\n\nSET x = 1;\n\n-- a\nCOPY a (t) FROM stdin;\n" + rows + b"\\.\n\n\n"
    share += b"COPY b (t) FROM stdin;\n\\.\n\nSELECT 1;\n--\n-- PostgreSQL database dump complete\n--\n\n"
    sink = Collected()
    joined = JoinedDump(sink, piece)
    run = ShareRun(joined)
    for start in range(0, len(share), size):
        run.write(share[start : start + size])
    run.finish()

    assert sink.data.startswith(b"\n-- a\nCOPY a (t) FROM stdin;\n")
    assert sink.data.endswith(b"\nCOPY b (t) FROM stdin;\n\\.\n")
    pieces = re.findall(rb"COPY a \(t\) FROM stdin;\n(.*?)^\\\.\n", sink.data, re.DOTALL | re.MULTILINE)
    assert rows == b"".join(pieces)
    assert all(each.endswith(b"\n") for each in pieces)
    assert {"a": 6, "b": 0} == run.rows
    assert run.complete
    assert not joined.turn.locked()


def test_streams_are_given_by_size() -> None:
    """A small database has one, a large one as many as its part of all of them is, and one job is one stream."""
    sharing = Sharing(database=100)

    assert [1, 1] == sharing.streams([99, 50], 8)
    assert [1, 1] == sharing.streams([1000, 1000], 1)
    assert [2, 1] == sharing.streams([1000, 120], 2)
    assert [5, 3] == sharing.streams([500, 300], 8)
    assert [8] == sharing.streams([1 << 50], 64)
    assert [1] == Sharing(database=0).streams([0], 4)
