"""What the tests of the database restore share: a job, its warnings, dumps, and what is left behind."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

from attrs import define, evolve, field

from gitlab_backup.archivers.base import RestoreJob, RestoreOptions
from gitlab_backup.archivers.database import DatabaseArchiver
from gitlab_backup.components import COMPONENTS
from gitlab_backup.instance import Database, Instance
from gitlab_backup.streams.cancel import Cancellation

if TYPE_CHECKING:
    from pathlib import Path

    from gitlab_backup.archivers.base import JSON, RestorePlan
    from tests.support.postgres import Cluster

SECRET = "hunter2-is-not-shown"  # noqa: S105 - looked for where it must not be

SCHEMA = """
    CREATE EXTENSION pg_trgm;
    CREATE SCHEMA parts;
    CREATE TYPE mood AS ENUM ('glad', 'sad');
    CREATE TYPE pair AS (a int, b text);
    CREATE DOMAIN positive AS int CHECK (VALUE > 0);
    CREATE TYPE span AS RANGE (subtype = int4);
    CREATE TABLE users (id bigserial PRIMARY KEY, name text, mood mood DEFAULT 'sad', age positive, during span);
    CREATE INDEX users_on_name ON users USING gin (name gin_trgm_ops);
    CREATE TABLE posts (id int GENERATED ALWAYS AS IDENTITY, user_id bigint REFERENCES users (id), more pair[]);
    CREATE TABLE events (id int, at date) PARTITION BY RANGE (at);
    CREATE TABLE parts.events_1 PARTITION OF events FOR VALUES FROM ('2024-01-01') TO ('2024-02-01');
    CREATE TABLE parts.events_2 PARTITION OF events FOR VALUES FROM ('2024-02-01') TO ('2024-03-01');
    CREATE VIEW seen AS SELECT * FROM users JOIN posts USING (id);
    CREATE MATERIALIZED VIEW counted AS SELECT count(*) FROM users;
    CREATE FUNCTION add(a int, b int DEFAULT 1, VARIADIC c int[] DEFAULT '{}', OUT d int) LANGUAGE sql
        BEGIN ATOMIC SELECT CASE WHEN a > 0 THEN a + b ELSE 0 END; END;
    CREATE AGGREGATE total (int) (sfunc = int4pl, stype = int, initcond = 0);
    CREATE FUNCTION one(int) RETURNS int LANGUAGE sql AS 'SELECT $1 + 1';
    CREATE AGGREGATE counting (*) (sfunc = one, stype = int, initcond = 0);
    CREATE PROCEDURE proc(INOUT a int) LANGUAGE plpgsql AS $$ BEGIN a := 1; END $$;
    CREATE OPERATOR <<>> (leftarg = int, rightarg = int, function = int4pl);
    CREATE COLLATION plain FROM "C";
    CREATE FUNCTION trig() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
    CREATE TRIGGER t BEFORE INSERT ON users FOR EACH ROW EXECUTE FUNCTION trig();
    CREATE STATISTICS stats ON id, name FROM users;
    CREATE SEQUENCE lonely START 7;
    CREATE RULE r AS ON INSERT TO posts DO ALSO (SELECT 1; SELECT 2);
    INSERT INTO users (name, age) SELECT E'n\\\\.\\n' || i, i FROM generate_series(1, 500) i;
    INSERT INTO posts (user_id, more) SELECT i, ARRAY[(i, 'x')::pair] FROM generate_series(1, 100) i;
    INSERT INTO events SELECT i, '2024-01-01'::date + i FROM generate_series(0, 50) i;
    REFRESH MATERIALIZED VIEW counted;
    COMMENT ON TABLE users IS E'it''s\\n\\\\! touch x';
"""
CHANGES = """
    DELETE FROM posts; DELETE FROM users WHERE id > 10; DROP SEQUENCE lonely;
    CREATE TABLE later (id int); CREATE FUNCTION later() RETURNS int LANGUAGE sql AS 'SELECT 1';
    CREATE TYPE later_mood AS ENUM ('x'); CREATE SCHEMA afterwards CREATE TABLE x (id int);
    ALTER TABLE users ADD mood2 later_mood; CREATE VIEW later_view AS SELECT * FROM counted;
"""


@define
class Restoring:
    """One restore of the component `db`, step by step."""

    job: RestoreJob
    warnings: list[str]
    archiver: DatabaseArchiver = field(factory=DatabaseArchiver)
    facts: dict[str, JSON] = field(factory=dict)

    def plan(self) -> RestorePlan:
        plan = self.archiver.plan_restore(self.job)
        self.facts = plan.facts
        return plan

    def stage(self) -> None:
        self.archiver.stage(self.job, self.facts)

    def swap(self) -> None:
        self.archiver.swap(self.job, self.facts)

    def undo(self, *, fresh: bool = True) -> None:
        """Undo, by default as a later process does: with the facts alone."""
        archiver = DatabaseArchiver() if fresh else self.archiver
        archiver.undo(evolve(self.job, details=None, cancel=Cancellation()), self.facts)

    def finish(self) -> None:
        DatabaseArchiver().finish(self.job, self.facts)

    def run(self) -> RestorePlan:
        plan = self.plan()
        self.stage()
        self.swap()
        self.finish()
        return plan


def described(cluster: Cluster, dbname: str, user: str | None = None, **changes: object) -> Database:
    values: dict[str, object] = {
        "name": "main",
        "dbname": dbname,
        "host": str(cluster.socket_directory),
        "port": cluster.port,
        "user": user or cluster.superuser,
        "password": SECRET,
        **changes,
    }
    return Database(**values)  # type: ignore[arg-type]


def restoring(
    root: Path,
    dumps: dict[str, bytes],
    *databases: Database,
    details: dict[str, JSON] | None = None,
    cancel: Cancellation | None = None,
    jobs: int = 2,
    **options: object,
) -> Restoring:
    """Make a restore of these dumps, by the names of their databases, into these databases."""
    warnings: list[str] = []
    (root / "db").mkdir(exist_ok=True)
    for name, dump in dumps.items():
        (root / "db" / ("database.sql" if name == "main" else f"{name}_database.sql")).write_bytes(dump)
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
        search_path="/usr/bin:/bin",
    )
    job = RestoreJob(
        instance=instance,
        component=COMPONENTS[0],
        root=root,
        backup_id="1_2024_04_25_17.0.0",
        details={"databases": details} if details else None,
        options=RestoreOptions(**options),  # type: ignore[arg-type]
        jobs=jobs,
        cancel=cancel or Cancellation(),
        open_file=lambda name: (root / name).open("rb"),
        open_stream=lambda name: (root / name).open("rb"),
        names=lambda directory: sorted(str(p.relative_to(root)) for p in (root / directory).iterdir()),
        progress=lambda read, written: None,  # noqa: ARG005
        warn=warnings.append,
    )
    return Restoring(job, warnings)


def dump_of(cluster: Cluster, dbname: str, *options: str) -> bytes:
    """Dump a database as a backup does."""
    return cluster.run("pg_dump", "--clean", "--if-exists", *options, "--dbname", dbname)


def content(dump: bytes) -> list[bytes]:
    """Return the lines of a dump without those that differ from run to run, so that two can be compared."""
    return [line for line in dump.splitlines() if not line.startswith((b"\\restrict", b"\\unrestrict"))]


def state(cluster: Cluster, dbname: str) -> list[bytes]:
    """Return all of a database."""
    return content(dump_of(cluster, dbname, "--create"))


def leftovers(cluster: Cluster, dbname: str) -> list[str]:
    """Return the databases that a restore has left beside one."""
    names = cluster.psql("SELECT datname FROM pg_database").splitlines()
    return sorted(name for name in names if name.startswith(f"{dbname[:30]}") and name != dbname)


def role(cluster: Cluster, *attributes: str) -> str:
    """Make a role that may log in. Roles belong to the whole server: each test has its own."""
    name = f"role_{uuid4().hex[:12]}"
    cluster.psql(f"CREATE ROLE {name} LOGIN {' '.join(attributes)}")
    return name


def simple(*lines: str) -> bytes:
    """Return a dump that holds these lines."""
    return (
        "--\n-- PostgreSQL database dump\n--\n\n-- Dumped from database version 15.1\n\n"
        + "".join(f"{line}\n" for line in lines)
        + "\n--\n-- PostgreSQL database dump complete\n--\n\n"
    ).encode()
