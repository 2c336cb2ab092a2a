"""The built-in archivers pass the suite that every archiver must pass."""

from __future__ import annotations

import os
import shutil
import socket
from typing import TYPE_CHECKING

import pytest
from attrs import evolve

from gitlab_backup.archivers.database import DatabaseArchiver
from gitlab_backup.archivers.files import FilesArchiver
from gitlab_backup.archivers.git import GitArchiver
from gitlab_backup.archivers.gitaly import GitalyArchiver
from tests.support import compare, trees
from tests.support.accounts import unprivileged
from tests.support.repositories import Shape, create

from .conformance import ArchiverConformance, Bench, WarningConformance, component
from .database_restoring import CHANGES, described, leftovers
from .database_restoring import SCHEMA as TABLES
from .database_restoring import state as content
from .files_run import instance as one_directory
from .git_run import SCHEMA, commit, init
from .git_run import Bench as Storages
from .gitaly_run import GitalyBench as GitalyStorages

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from gitlab_backup.instance import Instance
    from tests.support.postgres import Cluster


class FilesBench(Bench):
    """A directory with one of everything."""

    archiver = FilesArchiver

    def __init__(self, path: Path) -> None:
        self.path = path
        self.component = component("uploads")
        self.instance = one_directory(path)
        trees.create(path, files=5, seed="uploads", owner=unprivileged(), excluded="tmp")

    def state(self) -> Mapping[str, object]:
        return compare.tree(self.path, leave_out="tmp") if self.path.exists() else {}

    def beside(self) -> Sequence[str]:
        return sorted({entry.name for entry in self.path.parent.iterdir()} - {self.path.name})

    def change(self) -> None:
        (self.path / "odd" / "run").unlink()
        (self.path / "odd" / "empty").write_bytes(b"not empty")
        (self.path / "later").write_bytes(b"not in the backup")

    def empty(self) -> None:
        self.path.rename(self.path.parent.parent / "lost")


class TestFiles(WarningConformance):
    """tar archives of directories."""

    @pytest.fixture
    def bench(self, tmp_path: Path) -> Bench:
        above = tmp_path / "shared"
        above.mkdir()
        return FilesBench(above / "uploads")

    def spoil(self, bench: Bench) -> None:
        assert isinstance(bench, FilesBench)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(bench.path / "socket"))


class DatabaseBench(Bench):
    """A database with a bit of everything."""

    archiver = DatabaseArchiver

    def __init__(self, cluster: Cluster, dbname: str, instance: Instance) -> None:
        self.cluster = cluster
        self.dbname = dbname
        self.component = component("db")
        self.instance = evolve(
            instance,
            databases=(described(cluster, dbname),),
            search_path=f"{cluster.programs}{os.pathsep}{os.environ['PATH']}",
        )
        cluster.psql(TABLES, dbname)

    def state(self) -> Mapping[str, object]:
        exists = f"SELECT count(*) FROM pg_database WHERE datname = '{self.dbname}'"  # noqa: S608 - its name is ours
        if self.cluster.psql(exists).strip() == "0":
            return {}
        return {line.decode(): number for number, line in enumerate(content(self.cluster, self.dbname))}

    def beside(self) -> Sequence[str]:
        return leftovers(self.cluster, self.dbname)

    def change(self) -> None:
        self.cluster.psql(CHANGES, self.dbname)

    def empty(self) -> None:
        self.cluster.drop_database(self.dbname)


class TestDatabase(ArchiverConformance):
    """Dumps of databases, restored beside the old ones. What cannot be dumped fails: it leaves nothing out."""

    @pytest.fixture
    def bench(self, cluster: Cluster, database: str, tmp_path: Path) -> Bench:
        return DatabaseBench(cluster, database, one_directory(tmp_path))


class RepositoriesBench(Bench):
    """Two repositories, one of them empty."""

    def __init__(self, storages: Storages) -> None:
        self.storages = storages
        self.component = component("repositories")
        storages.sql(SCHEMA)
        storages.storage()
        self.paths = []
        for number, shape in enumerate((Shape.LOOSE, Shape.EMPTY), 1):
            path = storages.project(number)
            create(path, shape, salt=str(number))
            self.paths.append(path)
        self.top = storages.storages["default"]
        self.instance = storages.instance

    def state(self) -> Mapping[str, object]:
        return {
            str(path.relative_to(self.top)): compare.repository(path) for path in compare.find_repositories(self.top)
        }

    def change(self) -> None:
        full, empty = self.paths
        commit(full, "refs/heads/main", "later")
        shutil.rmtree(full / "custom_hooks")
        shutil.rmtree(empty)
        commit(init(self.top / "@hashed" / "later.git"), "refs/heads/main", "later")

    def empty(self) -> None:
        shutil.rmtree(self.top / "@hashed")


class GitBench(RepositoriesBench):
    """Where git alone reads and writes them."""

    archiver = GitArchiver

    def beside(self) -> Sequence[str]:
        own = self.top / "+gitaly"
        return sorted(entry.name for entry in own.iterdir()) if own.exists() else []


class RepositoriesConformance(WarningConformance):
    """What is so of repositories, whoever reads them."""

    def needs_digest(self, name: str) -> bool:
        # Most repositories have none; and tar pads its archives with zeros.
        return name.endswith(".custom_hooks.tar")


class TestGit(RepositoriesConformance):
    """Repositories on this machine."""

    @pytest.fixture
    def bench(self, cluster: Cluster, database: str, tmp_path: Path) -> Bench:
        return GitBench(Storages(cluster, database, tmp_path))

    def spoil(self, bench: Bench) -> None:
        assert isinstance(bench, GitBench)
        shutil.rmtree(bench.paths[0] / "objects")
        (bench.paths[0] / "objects").mkdir()


class GitalyBench(RepositoriesBench):
    """Where Gitaly does."""

    archiver = GitalyArchiver
    keeps_old = False

    def __init__(self, storages: GitalyStorages) -> None:
        super().__init__(storages)
        self.instance.backup_path.mkdir()

    def beside(self) -> Sequence[str]:
        return sorted(entry.name for entry in self.instance.backup_path.iterdir())


class TestGitaly(RepositoriesConformance):
    """Repositories that Gitaly owns: restored in place."""

    @pytest.fixture
    def bench(self, cluster: Cluster, database: str, tmp_path: Path) -> Bench:
        return GitalyBench(GitalyStorages(cluster, database, tmp_path))

    def spoil(self, bench: Bench) -> None:
        assert isinstance(bench, GitalyBench)
        assert isinstance(bench.storages, GitalyStorages)
        bench.storages.faults = {"at": {bench.storages.relative(bench.paths[0]): "fail"}}
        bench.instance = bench.storages.instance
