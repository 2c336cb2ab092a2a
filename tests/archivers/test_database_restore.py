"""A database is restored whole, or stays what it was."""

# ruff: noqa: S608 - the names in the SQL are of our own making
from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest
from attrs import evolve

from gitlab_backup.archivers.database.properties import setting_values
from gitlab_backup.errors import ComponentError, CorruptStreamError, DatabaseError, RefusedError, UsageError
from tests.archivers.database_restoring import (
    CHANGES,
    SCHEMA,
    content,
    described,
    dump_of,
    leftovers,
    restoring,
    role,
    simple,
    state,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.archivers.database_restoring import Restoring
    from tests.support.postgres import Cluster


@pytest.fixture
def owner(cluster: Cluster, database: str) -> Iterator[str]:
    """A role without CREATEDB that owns the database, and everything that is made in it as that role."""
    name = role(cluster)
    cluster.psql(f'ALTER DATABASE "{database}" OWNER TO {name}; ALTER ROLE {name} CREATEDB')
    yield name
    cluster.drop_database(database)
    cluster.psql(f"DROP OWNED BY {name}; DROP ROLE {name}")


@pytest.fixture(params=["swap", "transaction"])
def strategy(request: pytest.FixtureRequest) -> str:
    """Both ways to restore."""
    return str(request.param)


def test_everything_is_restored(cluster: Cluster, database: str, owner: str, strategy: str, tmp_path: Path) -> None:
    """After a restore, the database is what the dump is of: nothing is missing, and nothing is there besides."""
    cluster.psql(SCHEMA, database, user=owner)
    dump, before = dump_of(cluster, database), state(cluster, database)
    cluster.psql(CHANGES, database, user=owner)

    run = restoring(tmp_path, {"main": dump}, described(cluster, database, owner), database_strategy=strategy)
    plan = run.run()

    assert before == state(cluster, database)
    assert (strategy == "swap") == plan.reversible
    assert "7 tables" in plan.replaces[0]
    assert leftovers(cluster, database) == []
    assert [warning for warning in run.warnings if "DROP EXTENSION" not in warning] == []
    assert "0" != cluster.psql("SELECT count(*) FROM pg_statistic WHERE starelid = 'users'::regclass", database)


def test_what_is_there_until_the_swap_is_the_old(
    cluster: Cluster, database: str, owner: str, strategy: str, tmp_path: Path
) -> None:
    """Whatever was staged, undo leaves the database byte for byte as it was; twice is as good as once."""
    cluster.psql(SCHEMA, database, user=owner)
    dump = dump_of(cluster, database)
    cluster.psql(CHANGES, database, user=owner)
    before = state(cluster, database)
    run = restoring(tmp_path, {"main": dump}, described(cluster, database, owner), database_strategy=strategy)
    run.plan()
    run.stage()
    run.undo(fresh=False)
    run.undo()

    assert before == state(cluster, database)
    assert leftovers(cluster, database) == []


@pytest.mark.parametrize("done", ["nothing", "created", "loaded", "swapped"])
@pytest.mark.parametrize("existed", [True, False])
def test_a_later_process_can_undo_a_swap_from_anywhere(
    cluster: Cluster, database: str, done: str, *, existed: bool, tmp_path: Path
) -> None:
    """The facts of the plan are enough, whatever a killed process had done."""
    cluster.psql("CREATE TABLE t AS SELECT 1 AS a", database)
    dump = dump_of(cluster, database)
    cluster.psql("CREATE TABLE old AS SELECT 2 AS b", database)
    before = state(cluster, database)
    name = database if existed else f"{database}_absent"
    run = restoring(tmp_path, {"main": dump}, described(cluster, name), database_strategy="swap")
    run.plan()
    if done == "created":
        cluster.create_database(new_name(run))
    elif done != "nothing":
        run.stage()
        if done == "swapped":
            run.swap()
            assert "1" == cluster.psql("SELECT a FROM t", name)

    run.undo()
    run.undo()

    assert before == state(cluster, database)
    assert leftovers(cluster, database) == []


def new_name(run: Restoring) -> str:
    databases = run.facts["databases"]
    assert isinstance(databases, list)
    assert isinstance(databases[0], dict)
    return str(databases[0]["new"])


def test_undo_leaves_alone_what_somebody_else_has_made(cluster: Cluster, database: str, tmp_path: Path) -> None:
    """Where there was no database, and somebody makes one before the restore does, that one stays."""
    name = f"{database}_absent"
    run = restoring(tmp_path, {"main": simple()}, described(cluster, name))
    run.plan()
    cluster.create_database(name)
    run.undo()
    assert [name] == leftovers(cluster, database)
    cluster.drop_database(name)


def test_a_database_that_does_not_exist_is_made(cluster: Cluster, database: str, tmp_path: Path) -> None:
    """It has the dump's content, and no trace of how it came to be."""
    cluster.psql("CREATE TABLE t AS SELECT 'é' AS a", database)
    name = f"{database}_absent"
    run = restoring(tmp_path, {"main": dump_of(cluster, database)}, described(cluster, name))
    plan = run.run()
    assert "does not exist yet" in plan.replaces[0]
    assert "é" == cluster.psql("SELECT a FROM t", name)
    assert "" == cluster.psql(f"SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = '{name}'")
    cluster.drop_database(name)


PROPERTIES = """
    SELECT pg_encoding_to_char(encoding), datcollate, datctype, daticulocale, datlocprovider, datdba::regrole,
           datconnlimit, shobj_description(d.oid, 'pg_database'),
           (SELECT string_agg(a::text, ' ' ORDER BY a::text) FROM unnest(coalesce(datacl, acldefault('d', datdba))) a),
           (SELECT string_agg(setrole || s::text, ' ' ORDER BY setrole, s::text)
            FROM pg_db_role_setting, unnest(setconfig) s WHERE setdatabase = d.oid)
    FROM pg_database d WHERE datname = '{}'
"""


@pytest.mark.parametrize(
    "options", ["", "ENCODING LATIN1 LC_COLLATE 'C' LC_CTYPE 'C'", "LOCALE_PROVIDER icu ICU_LOCALE 'de'"]
)
def test_the_new_database_has_the_properties_of_the_old(
    cluster: Cluster, database: str, options: str, tmp_path: Path
) -> None:
    """Encoding, locale, owner, limit, comment, grants and settings stay, also with a name of 63 bytes in quotes."""
    name, user = f'"; é {database}'.ljust(62, "x"), role(cluster)
    quoted = '"' + name.replace('"', '""') + '"'
    cluster.psql(f"CREATE DATABASE {quoted} TEMPLATE template0 OWNER {user} {options}")
    cluster.psql(
        f"""
        ALTER DATABASE {quoted} CONNECTION LIMIT 7;
        COMMENT ON DATABASE {quoted} IS 'it''s';
        REVOKE ALL ON DATABASE {quoted} FROM PUBLIC;
        GRANT CONNECT ON DATABASE {quoted} TO pg_monitor WITH GRANT OPTION;
        ALTER DATABASE {quoted} SET search_path = "$user", public, "a, b", "Ab";
        ALTER DATABASE {quoted} SET default_transaction_read_only = on;
        ALTER DATABASE {quoted} SET my.thing = 'x, ''y''';
        ALTER ROLE {user} IN DATABASE {quoted} SET work_mem = '5MB';
        """
    )
    before = cluster.psql(PROPERTIES.format(name))
    run = restoring(tmp_path, {"main": simple("CREATE TABLE public.t (a int);")}, described(cluster, name))
    run.run()
    assert before == cluster.psql(PROPERTIES.format(name))
    assert "0" == cluster.psql(f"SELECT count(*) FROM {'public.t'}", name)
    cluster.psql(f"DROP DATABASE {quoted}; DROP ROLE {user}")


def test_lists_of_names_are_taken_apart() -> None:
    """What looks like SQL in a setting stays a name."""
    assert ["a", 'b"c', "x;drop"] == setting_values("search_path", 'A, "b""c",x;drop')
    assert [""] == setting_values("search_path", "")
    assert ["a, b"] == setting_values("my.list", "a, b")


def test_the_dump_of_some_schemas_replaces_these(
    cluster: Cluster, database: str, owner: str, strategy: str, tmp_path: Path
) -> None:
    """Extensions, which such a dump lacks, are there all the same; a schema besides is never lost."""
    cluster.psql(SCHEMA, database, user=owner)
    dump = dump_of(cluster, database, "-n", "public", "-n", "parts")
    before = state(cluster, database)
    cluster.psql("DELETE FROM posts; CREATE TABLE later (id int)", database, user=owner)
    main = described(cluster, database, owner, schemas=("public", "parts"))
    run = restoring(tmp_path, {"main": dump}, main, database_strategy=strategy)
    run.run()
    assert before == state(cluster, database)

    cluster.psql("CREATE SCHEMA besides CREATE TABLE x (id int)", database, user=owner)
    if strategy == "swap":
        with pytest.raises(RefusedError, match="would be lost: besides"):
            run.plan()
    else:
        run.run()
        assert "0" == cluster.psql("SELECT count(*) FROM besides.x", database)


def test_sessions_end_at_the_swap_only(cluster: Cluster, database: str, tmp_path: Path) -> None:
    """Who is connected works on until then, and is named in the plan."""
    run = restoring(tmp_path, {"main": dump_of(cluster, database)}, described(cluster, database))
    with psycopg.connect(cluster.dsn(database), autocommit=True, application_name="puma") as session:
        notes = "\n".join(run.plan().notes)
        run.stage()
        session.execute("SELECT 1")
        run.swap()
        with pytest.raises(psycopg.OperationalError):
            session.execute("SELECT 1")
    run.finish()
    assert "puma as postgres (1)" in notes


def test_the_old_is_kept_on_request(cluster: Cluster, database: str, tmp_path: Path) -> None:
    """Its name is in the plan, and it holds what it held."""
    dump = dump_of(cluster, database)
    cluster.psql("CREATE TABLE old AS SELECT 5 AS a", database)
    run = restoring(tmp_path, {"main": dump}, described(cluster, database), keep_old=True)
    plan = run.run()
    (kept,) = leftovers(cluster, database)
    assert f"the old database {database} is kept as {kept}" in plan.notes
    assert "5" == cluster.psql("SELECT a FROM old", kept)
    cluster.drop_database(kept)


def test_two_databases_change_together(cluster: Cluster, database: str, strategy: str, tmp_path: Path) -> None:
    """A failure of the second leaves both; and long names that differ at the end only do not collide."""
    names = [f"{database}_{'x' * 24}{n}" for n in (1, 2)]
    for name in names:
        cluster.create_database(name)
    databases = [described(cluster, name, name=key) for name, key in zip(names, ("main", "ci"), strict=True)]
    good, bad = simple("CREATE TABLE public.t ();"), simple("SELECT nothing;")
    run = restoring(tmp_path, {"main": good, "ci": bad}, *databases, database_strategy=strategy)
    run.plan()
    with pytest.raises(ComponentError, match=r"ci_database\.sql, line 7"):
        run.stage()
    run.undo(fresh=False)
    for name in names:
        assert "" == cluster.psql("SELECT relname FROM pg_class WHERE relname = 't'", name)
    (tmp_path / "db" / "ci_database.sql").write_bytes(good)
    run.run()
    for name in names:
        assert "t" == cluster.psql("SELECT relname FROM pg_class WHERE relname = 't'", name)
    assert sorted(names) == leftovers(cluster, database)
    for name in names:
        cluster.drop_database(name)


def test_a_restricted_role_gets_a_transaction(cluster: Cluster, database: str, owner: str, tmp_path: Path) -> None:
    """Without CREATEDB swap is refused, and the plan says why; with it, swap is what is done."""
    cluster.psql(SCHEMA, database, user=owner)
    dump, before = dump_of(cluster, database), state(cluster, database)
    main = described(cluster, database, owner)
    assert restoring(tmp_path, {"main": dump}, main).plan().reversible

    cluster.psql(f"ALTER ROLE {owner} NOCREATEDB")
    cluster.psql(CHANGES, database, user=owner)
    run = restoring(tmp_path, {"main": dump}, main)
    plan = run.plan()
    assert not plan.reversible
    assert "swap is not possible" in "\n".join(plan.notes)
    assert "the role may not create databases" in "\n".join(plan.notes)
    with pytest.raises(RefusedError, match="may not create databases"):
        restoring(tmp_path, {"main": dump}, main, database_strategy="swap").plan()
    run.stage()
    run.swap()
    run.finish()
    assert before == state(cluster, database)


def test_extensions_decide(cluster: Cluster, database: str, owner: str, tmp_path: Path) -> None:
    """What the server lacks is refused; what only a superuser may create makes it a transaction, or is refused."""
    main = described(cluster, database, owner)
    with pytest.raises(RefusedError, match="extensions that this server does not have: nowhere"):
        restoring(tmp_path, {"main": simple("CREATE EXTENSION IF NOT EXISTS nowhere;")}, main).plan()
    untrusted = simple(
        "CREATE EXTENSION IF NOT EXISTS amcheck WITH SCHEMA public;", "COMMENT ON EXTENSION amcheck IS 'other';"
    )
    with pytest.raises(RefusedError, match="extensions amcheck are missing"):
        restoring(tmp_path, {"main": untrusted}, main).plan()
    cluster.psql("CREATE EXTENSION amcheck", database)
    run = restoring(tmp_path, {"main": untrusted}, main)
    plan = run.run()
    assert "only a superuser may create the extensions amcheck" in "\n".join(plan.notes)
    assert "amcheck" in cluster.psql("SELECT extname FROM pg_extension", database)
    assert run.warnings == []


def test_settings_of_others_need_a_superuser(cluster: Cluster, database: str, owner: str, tmp_path: Path) -> None:
    """What the role could not give to the new database is a reason not to swap."""
    cluster.psql(f"ALTER ROLE postgres IN DATABASE \"{database}\" SET work_mem = '5MB'")
    plan = restoring(tmp_path, {"main": simple()}, described(cluster, database, owner)).plan()
    assert "only a superuser may give the setting work_mem of the role postgres" in "\n".join(plan.notes)


def test_what_the_role_does_not_own_is_refused(cluster: Cluster, database: str, owner: str, tmp_path: Path) -> None:
    """A table of somebody else could not be dropped: that is known before anything changes."""
    cluster.psql(f"ALTER ROLE {owner} NOCREATEDB")
    cluster.psql("CREATE TABLE not_mine ()", database)
    with pytest.raises(RefusedError, match=r"does not own public\.not_mine; nor is the strategy swap"):
        restoring(tmp_path, {"main": simple()}, described(cluster, database, owner)).plan()


@pytest.mark.parametrize(
    ("dumps", "options", "error", "words"),
    [
        ({"main": simple().replace(b"15.1", b"99.1")}, {}, RefusedError, "PostgreSQL 99"),
        ({"ci": simple()}, {}, ComponentError, "no dump of the database main"),
        ({"main": b"PGDMP\0\0"}, {}, ComponentError, "not a plain dump"),
        ({"main": simple()}, {"database_strategy": "magic"}, UsageError, "magic"),
    ],
)
def test_what_cannot_be_restored_is_refused(  # noqa: PLR0917 - one for each part of a case
    cluster: Cluster,
    database: str,
    dumps: dict[str, bytes],
    options: dict[str, object],
    error: type[Exception],
    words: str,
    tmp_path: Path,
) -> None:
    """Before anything changes: a newer server's dump, no dump, something else than a dump, an unknown strategy."""
    with pytest.raises(error, match=words):
        restoring(tmp_path, dumps, described(cluster, database), **options).plan()  # type: ignore[arg-type]


def test_configured_databases_without_a_dump_are_left(cluster: Cluster, database: str, tmp_path: Path) -> None:
    """A warning names them, a note the dump that nothing here is configured for."""
    main = described(cluster, database)
    run = restoring(tmp_path, {"main": simple(), "geo": simple()}, main, evolve(main, name="ci"))
    plan = run.plan()
    assert run.warnings == ["the backup has no dump of the database ci: it is left as it is"]
    assert any("geo, which is not configured" in note for note in plan.notes)
    assert len(plan.replaces) == 1


def test_space_is_asked_for_where_the_server_keeps_its_data(cluster: Cluster, database: str, tmp_path: Path) -> None:
    """What the manifest says of its size, else the size that it has; a role that cannot see where says nothing."""
    run = restoring(tmp_path, {"main": simple()}, described(cluster, database), details={"main": {"size_bytes": 12345}})
    assert ((cluster.data_directory, 12345),) == run.plan().space
    user = role(cluster)
    cluster.psql(f'ALTER DATABASE "{database}" OWNER TO {user}')
    assert () == restoring(tmp_path, {"main": simple()}, described(cluster, database, user)).plan().space


def test_rows_must_be_those_of_the_manifest(cluster: Cluster, database: str, tmp_path: Path) -> None:
    """A row too few is a failure, and the old database stays."""
    cluster.psql("CREATE TABLE t AS SELECT 1 AS a FROM generate_series(1, 3)", database)
    dump, before = dump_of(cluster, database), state(cluster, database)
    for rows, fails in ((3, False), (4, True)):
        run = restoring(
            tmp_path, {"main": dump}, described(cluster, database), details={"main": {"rows": {"public.t": rows}}}
        )
        run.plan()
        if fails:
            with pytest.raises(ComponentError, match=r"public\.t has 3 rows after loading, 4 at the time"):
                run.stage()
        else:
            run.stage()
        run.undo()
    assert before == state(cluster, database)


def test_large_objects_are_restored(cluster: Cluster, database: str, strategy: str, tmp_path: Path) -> None:
    """pg_dump puts them into transactions of their own, which does not end ours."""
    cluster.psql(r"SELECT lo_from_bytea(4711, '\x5c2e0a'); CREATE TABLE t ()", database)
    dump, before = dump_of(cluster, database), state(cluster, database)
    assert b"\nBEGIN;\n" in dump
    cluster.psql("SELECT lo_unlink(4711)", database)
    run = restoring(tmp_path, {"main": dump}, described(cluster, database), database_strategy=strategy)
    run.plan()
    run.stage()
    if strategy == "transaction":
        assert "" == cluster.psql("SELECT oid FROM pg_largeobject_metadata", database)
    run.swap()
    run.finish()
    assert before == state(cluster, database)


def test_what_is_staged_is_on_disk(cluster: Cluster, database: str, tmp_path: Path) -> None:
    """When `stage` ends, the log of all that it did is flushed, though the load itself waits for nothing."""
    run = restoring(tmp_path, {"main": simple("CREATE TABLE public.t ();")}, described(cluster, database))
    run.plan()
    from gitlab_backup.archivers.database.restore import _flush

    with psycopg.connect(cluster.dsn(database), autocommit=True) as connection:
        for number in range(5):
            connection.execute("SET synchronous_commit = off")
            connection.execute(f"CREATE TABLE t{number} (a text PRIMARY KEY)".encode())
            written = connection.execute("SELECT pg_current_wal_insert_lsn()").fetchone()
            _flush(connection)
            assert written is not None
            done = connection.execute("SELECT pg_current_wal_flush_lsn() >= %s::pg_lsn", [written[0]]).fetchone()
            assert (True,) == done


def test_no_other_database_to_connect_to(cluster: Cluster, database: str, tmp_path: Path) -> None:
    """Without `postgres`, `template1` does; without both, it is a transaction."""
    user = role(cluster, "CREATEDB")
    cluster.psql(f'ALTER DATABASE "{database}" OWNER TO {user}')
    run = restoring(tmp_path, {"main": simple("CREATE TABLE public.t ();")}, described(cluster, database, user))
    cluster.psql("REVOKE CONNECT ON DATABASE postgres FROM PUBLIC")
    try:
        assert run.run().reversible
        cluster.psql("REVOKE CONNECT ON DATABASE template1 FROM PUBLIC", "template1")
        assert not run.run().reversible
    finally:
        cluster.psql("GRANT CONNECT ON DATABASE postgres, template1 TO PUBLIC")


def test_a_session_that_may_not_be_ended_stops_the_swap(cluster: Cluster, database: str, tmp_path: Path) -> None:
    """The error names the database, and undo leaves it as it was, with that session."""
    user = role(cluster, "CREATEDB")
    cluster.psql(f'ALTER DATABASE "{database}" OWNER TO {user}')
    run = restoring(tmp_path, {"main": simple()}, described(cluster, database, user))
    with psycopg.connect(cluster.dsn(database), autocommit=True) as session:
        run.plan()
        run.stage()
        with pytest.raises(DatabaseError, match="is in use"):
            run.swap()
        run.undo()
        session.execute("SELECT 1")
    assert leftovers(cluster, database) == []


def test_the_dump_must_be_whole(cluster: Cluster, database: str, strategy: str, tmp_path: Path) -> None:
    """Wherever it is cut, also between two statements, the old database stays."""
    cluster.psql("CREATE TABLE t AS SELECT 1 AS a FROM generate_series(1, 300)", database)
    dump, before = dump_of(cluster, database), content(dump_of(cluster, database))
    rows = dump.index(b"FROM stdin;\n") + 30
    for length in (rows, rows + 7, dump.index(b"ALTER TABLE public.t OWNER"), len(dump) - 60):
        run = restoring(tmp_path, {"main": dump[:length]}, described(cluster, database), database_strategy=strategy)
        run.plan()
        with pytest.raises(CorruptStreamError, match="is cut short"):
            run.stage()
        run.undo(fresh=False)
    assert before == content(dump_of(cluster, database))
    assert leftovers(cluster, database) == []
