"""A GitLab that lives while it is backed up: rows, and the files and commits that they point to, come and go."""

from __future__ import annotations

import os
import random
import subprocess
import threading
from typing import TYPE_CHECKING, Final, Self

import psycopg
from attrs import define, field, frozen

from .repositories import Shape

if TYPE_CHECKING:
    from pathlib import Path

    from psycopg.rows import TupleRow

    from .installation import ThrowawayInstallation

_TABLES: Final = """
    CREATE TABLE IF NOT EXISTS life_files (id bigint PRIMARY KEY, component text NOT NULL);
    CREATE TABLE IF NOT EXISTS life_commits (id bigint PRIMARY KEY, oid text NOT NULL);
    ALTER TABLE life_files OWNER TO gitlab;
    ALTER TABLE life_commits OWNER TO gitlab;
"""
COMPONENTS: Final = ("uploads", "lfs", "artifacts")
_COMMIT_EVERY: Final = 25
_EMPTY_TREE: Final = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"


@frozen
class Account:
    """What does not fit together in a restored installation."""

    rows: int
    newest: int
    """The highest number of a row."""
    commits: int
    dangling: frozenset[int]
    """The rows whose file is missing."""
    orphans: frozenset[int]
    """The files that no row points to."""
    lost_commits: frozenset[str]
    """The commits that a row names, and that the repository has not got."""


@define(eq=False)
class Life:
    """What GitLab does, in its order: a file is there before its row is committed, and goes after the row has gone."""

    installation: ThrowawayInstallation
    seed: int = 0
    created: list[int] = field(factory=list)
    """In their order."""
    deleted: set[int] = field(factory=set)
    """Whose rows were deleted, or are about to be."""
    operations: int = 0
    _alive: dict[int, str] = field(factory=dict)
    _thread: threading.Thread | None = None
    _stop: threading.Event = field(factory=threading.Event)
    _beat: threading.Condition = field(factory=threading.Condition)
    _error: BaseException | None = None

    def prepare(self, rows: int) -> None:
        """Make tables and a past."""
        self.installation.cluster.psql(_TABLES, self.installation.databases["main"])
        with self._connect() as connection:
            chance = random.Random(self.seed)
            for _ in range(rows):
                self._create(connection, chance)

    def __enter__(self) -> Self:
        """Live, in a thread."""
        self._thread = threading.Thread(target=self._live, name="life")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        if self._error is not None:
            raise self._error

    def await_more(self, number: int) -> None:
        """Wait until as many more operations are done."""
        with self._beat:
            until = self.operations + number
            self._beat.wait_for(lambda: self.operations >= until or self._error is not None)

    def path(self, number: int, component: str) -> Path:
        """Return where a file lies."""
        return self.installation.directories[component] / "life" / f"{number % 50}" / str(number)

    @property
    def repository(self) -> Path:
        """The repository that is committed to."""
        ordinary = next(each for each in self.installation.repositories if each.shape is Shape.ORDINARY)
        return self.installation.repository_path(ordinary)

    def examine(self) -> Account:
        """Compare rows with files and commits."""
        with self._connect() as connection:
            rows: dict[int, str] = dict(connection.execute("SELECT id, component FROM life_files").fetchall())
            oids = [oid for (oid,) in connection.execute("SELECT oid FROM life_commits").fetchall()]
        there = {
            int(name)
            for component in COMPONENTS
            for _, _, names in os.walk(self.installation.directories[component] / "life")
            for name in names
        }
        answers = self._git("cat-file", "--batch-check", stdin="".join(f"{oid}\n" for oid in oids)).splitlines()
        return Account(
            rows=len(rows),
            newest=max(rows),
            commits=len(oids),
            dangling=frozenset(number for number, each in rows.items() if not self.path(number, each).exists()),
            orphans=frozenset(there - set(rows)),
            lost_commits=frozenset(answer.split()[0] for answer in answers if answer.endswith("missing")),
        )

    def _connect(self) -> psycopg.Connection[TupleRow]:
        cluster = self.installation.cluster
        return psycopg.connect(cluster.dsn(self.installation.databases["main"], user="gitlab"), autocommit=True)

    def _live(self) -> None:
        chance = random.Random(self.seed + 1)
        try:
            with self._connect() as connection:
                while not self._stop.is_set():
                    if self.operations % _COMMIT_EVERY == 0:
                        self._commit(connection)
                    elif self._alive and chance.random() < 0.5:
                        self._delete(connection, chance)
                    else:
                        self._create(connection, chance)
                    with self._beat:
                        self.operations += 1
                        self._beat.notify_all()
        except BaseException as error:  # noqa: BLE001 - raised again by the thread that waits
            self._error = error
            with self._beat:
                self._beat.notify_all()

    def _create(self, connection: psycopg.Connection[TupleRow], chance: random.Random) -> None:
        number, component = len(self.created) + 1, chance.choice(COMPONENTS)
        path = self.path(number, component)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(chance.randbytes(200))
        self.created.append(number)
        connection.execute("INSERT INTO life_files VALUES (%s, %s)", [number, component])
        self._alive[number] = component

    def _delete(self, connection: psycopg.Connection[TupleRow], chance: random.Random) -> None:
        number = chance.choice(sorted(self._alive)[:200])
        component = self._alive.pop(number)
        self.deleted.add(number)
        connection.execute("DELETE FROM life_files WHERE id = %s", [number])
        self.path(number, component).unlink()

    def _commit(self, connection: psycopg.Connection[TupleRow]) -> None:
        parent = self._git("for-each-ref", "--format=%(objectname)", "refs/heads/life").strip()
        oid = self._git("commit-tree", _EMPTY_TREE, "-m", str(self.operations), *(("-p", parent) if parent else ()))
        self._git("update-ref", "refs/heads/life", oid.strip())
        connection.execute("INSERT INTO life_commits VALUES (%s, %s)", [self.operations, oid.strip()])

    def _git(self, *arguments: str, stdin: str = "") -> str:
        identity = {f"GIT_{who}_{what}": "life" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        return subprocess.run(
            ["git", "-c", "safe.directory=*", f"--git-dir={self.repository}", *arguments],
            input=stdin,
            env={**self.installation.environment(), **identity, "GIT_CONFIG_NOSYSTEM": "1"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
