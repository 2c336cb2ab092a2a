"""A throwaway installation that looks like GitLab: configuration, databases, repositories, files; all of it real."""

# ruff: noqa: S608  the values in this SQL are written here

from __future__ import annotations

import os
import shutil
import subprocess
from enum import Enum
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final
from uuid import uuid4

from attrs import evolve, frozen

from . import repositories, trees
from .accounts import Account, is_root, unprivileged
from .repositories import Repository, Shape, hashed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gitlab_backup.instance import Instance

    from .postgres import Cluster

VERSION: Final = "17.0.0-pre"
STORAGES: Final = ("default", "second")

DIRECTORIES: Final[Mapping[str, tuple[str, str | None]]] = {
    "uploads": ("public/uploads", "tmp"),
    "builds": ("builds", None),
    "artifacts": ("shared/artifacts", "tmp"),
    "pages": ("shared/pages", "@pages.tmp"),
    "lfs": ("shared/lfs-objects", None),
    "terraform_state": ("shared/terraform_state", "tmp"),
    "registry": ("shared/registry", None),
    "packages": ("shared/packages", "tmp"),
    "ci_secure_files": ("shared/ci_secure_files", "tmp"),
    "external_diffs": ("shared/external-diffs", "tmp"),
}
"""Each component that has a directory here: where below GitLab's root, and what is left out at its top level.

`ci_catalog_bundles` and `agent_plan_content` are components of GitLab, too, and have none.
"""

_SQL: Final = Path(__file__).parent / "sql"


class Size(Enum):
    """How much is in an installation: repositories of projects, rows of the largest table, files of a component."""

    SMALL = (10, 600, 12)
    MEDIUM = (24, 4_000, 60)

    @property
    def projects(self) -> int:
        """The number of projects."""
        return self.value[0]

    @property
    def rows(self) -> int:
        """The number of rows of the largest table."""
        return self.value[1]

    @property
    def files(self) -> int:
        """The number of ordinary files in each component's directory."""
        return self.value[2]


@frozen(kw_only=True)
class ThrowawayInstallation:
    """An installation below `directory`, with its databases on `cluster`."""

    directory: Path
    cluster: Cluster
    databases: Mapping[str, str]
    """The name of each connection's database."""
    owner: Account
    """The system user that it belongs to, named in `gitlab.yml`."""
    omnibus: bool
    repositories: tuple[Repository, ...]
    """What the database lists."""

    @property
    def root(self) -> Path:
        """GitLab's own directory."""
        return self.directory / "gitlab"

    @property
    def gitlab_config(self) -> Path:
        """`gitlab.yml`."""
        return self.root / "config" / "gitlab.yml"

    @property
    def database_config(self) -> Path:
        """`database.yml`."""
        return self.root / "config" / "database.yml"

    @property
    def context(self) -> Path | None:
        """The context file, where it is an Omnibus installation."""
        return self.directory / "gitlab-backup-context.yml" if self.omnibus else None

    @property
    def backup_path(self) -> Path:
        """Where its backups go. Does not exist at first."""
        return self.directory / "backups"

    @property
    def storages(self) -> Mapping[str, Path]:
        """The directory of each repository storage."""
        return {name: self.directory / "repositories" / name for name in STORAGES}

    @property
    def directories(self) -> Mapping[str, Path]:
        """The data directory of each component that has one."""
        return {component: self.root / path for component, (path, _) in DIRECTORIES.items()}

    def repository_path(self, repository: Repository) -> Path:
        """Return the directory of a repository, which does not exist where that is missing."""
        return self.storages[repository.storage] / repository.relative_path

    def environment(self) -> dict[str, str]:
        """Return the environment to run the command in: with the cluster's own PostgreSQL programs in `PATH`."""
        path = os.environ.get("PATH", os.defpath)
        return {"PATH": f"{self.cluster.programs}{os.pathsep}{path}", "HOME": str(self.directory), "LC_ALL": "C.UTF-8"}

    def instance(self) -> Instance:
        """Return what the library reads of it."""
        from gitlab_backup.instance import Instance

        return Instance.load(context=self.context, gitlab_path=self.root, environ=self.environment())

    def copy(self, directory: Path) -> ThrowawayInstallation:
        """Return an equal installation below `directory`, which must not exist, with databases of its own.

        Nobody may be connected to the databases of this one meanwhile.
        """
        # Extents are shared where the file system can do that.
        subprocess.run(["/bin/cp", "-a", "--reflink=auto", str(self.directory), str(directory)], check=True)
        databases = _names()
        templates = {name: self.databases[connection] for connection, name in databases.items()}
        self.cluster.copy_databases(templates, owner="gitlab")
        copied = evolve(self, directory=directory, databases=databases)
        _configure(copied)
        return copied

    def remove(self) -> None:
        """Remove its databases and its directory."""
        self.cluster.drop_database(*self.databases.values())
        shutil.rmtree(os.fsencode(self.directory))  # as bytes: not all names in it are UTF-8


def build(
    directory: Path,
    cluster: Cluster,
    *,
    size: Size = Size.SMALL,
    seed: int = 0,
    owner: Account | None = None,
    omnibus: bool = False,
) -> ThrowawayInstallation:
    """Build an installation below `directory`, which is made, and two databases on `cluster`.

    The same `size` and `seed` give the same content. It belongs to `owner`: as root by default to an unprivileged
    user, as with a real one.
    """
    directory.mkdir(parents=True, exist_ok=True)
    directory.chmod(0o755)
    projects = _projects(size)
    installation = ThrowawayInstallation(
        directory=directory,
        cluster=cluster,
        databases=_names(),
        owner=owner or unprivileged(),
        omnibus=omnibus,
        repositories=tuple(_repositories(projects)),
    )
    _create_databases(installation, projects, size, seed)
    for component, (path, excluded) in DIRECTORIES.items():
        trees.create(
            installation.root / path,
            files=size.files,
            seed=f"{seed} {component}",
            owner=installation.owner,
            excluded=excluded,
        )
    _create_repositories(installation, seed)
    _configure(installation)
    return installation


def build_empty(directory: Path, cluster: Cluster) -> ThrowawayInstallation:
    """Build what a fresh machine has: configuration, empty databases and directories, and secrets of its own."""
    directory.mkdir(parents=True, exist_ok=True)
    directory.chmod(0o755)
    installation = ThrowawayInstallation(
        directory=directory, cluster=cluster, databases=_names(), owner=unprivileged(), omnibus=False, repositories=()
    )
    cluster.psql((_SQL / "roles.sql").read_text())
    for name in installation.databases.values():
        cluster.create_database(name, owner="gitlab")
    for each in (*installation.directories.values(), *installation.storages.values()):
        each.mkdir(parents=True)
        each.chmod(0o750)
        if is_root():
            trees.own(each, installation.owner)
    _configure(installation, db_key=uuid4().hex)
    return installation


@frozen(kw_only=True)
class _Project:
    id: int
    shape: Shape
    storage: str = "default"
    legacy: bool = False

    @property
    def path(self) -> str:
        return f"project-{self.id}"

    @property
    def group(self) -> int:
        return 1 + self.id % 3

    @property
    def disk_path(self) -> str:
        """Projects from before hashed storage lie where their route says (app/models/storage/legacy_project.rb)."""
        return f"group-{self.group}/{self.path}" if self.legacy else hashed("@hashed", self.id)


_POOL: Final = 1
_SPECIAL: Final = (
    _Project(id=1, shape=Shape.ORDINARY),
    _Project(id=2, shape=Shape.LOOSE),
    _Project(id=3, shape=Shape.EMPTY),
    _Project(id=4, shape=Shape.UNBORN),
    _Project(id=5, shape=Shape.SHA256),
    _Project(id=6, shape=Shape.POOLED),
    _Project(id=7, shape=Shape.POOLED),
    _Project(id=8, shape=Shape.MISSING),
    _Project(id=9, shape=Shape.ORDINARY, storage="second"),
    _Project(id=10, shape=Shape.ORDINARY, legacy=True),
)


def _projects(size: Size) -> tuple[_Project, ...]:
    others = (
        _Project(id=number, shape=Shape.ORDINARY, storage="second" if number % 5 == 0 else "default")
        for number in range(len(_SPECIAL) + 1, size.projects + 1)
    )
    return (*_SPECIAL, *others)


_WIKI: Final = 1  # the project that has a wiki
_DESIGNS: Final = (1, 2)  # projects with a row, of which the second has no directory
_PROJECT_SNIPPETS: Final = ((1, Shape.ORDINARY), (3, Shape.MISSING))
_PERSONAL_SNIPPETS: Final = ((2, Shape.LOOSE),)
_GROUP_WIKI: Final = 2


def _repositories(projects: tuple[_Project, ...]) -> list[Repository]:
    def one(disk_path: str, suffix: str, shape: Shape, storage: str = "default") -> Repository:
        return Repository(storage=storage, relative_path=PurePosixPath(disk_path + suffix), shape=shape)

    found = []
    for project in projects:
        wiki = Shape.ORDINARY if project.id == _WIKI else Shape.MISSING
        found.append(one(project.disk_path, ".git", project.shape, project.storage))
        found.append(one(project.disk_path, ".wiki.git", wiki, project.storage))
        if project.id in _DESIGNS:
            design = Shape.ORDINARY if project.id == _DESIGNS[0] else Shape.MISSING
            found.append(one(project.disk_path, ".design.git", design, project.storage))
    for number, shape in (*_PROJECT_SNIPPETS, *_PERSONAL_SNIPPETS):
        found.append(one(hashed("@snippets", number), ".git", shape))
    found.append(one(hashed("@groups", _GROUP_WIKI), ".wiki.git", Shape.ORDINARY, "second"))
    return found


def _create_repositories(installation: ThrowawayInstallation, seed: int) -> None:
    pool = installation.storages["default"] / f"{hashed('@pools', _POOL)}.git"
    repositories.create_pool(pool)
    for number, repository in enumerate(installation.repositories):
        path = installation.repository_path(repository)
        repositories.create(path, repository.shape, salt=f"{seed}-{number}", pool=pool)
    for storage in installation.storages.values():
        # Gitaly's own, never part of a backup.
        (storage / "+gitaly" / "tmp").mkdir(parents=True)
        if is_root():
            trees.own(storage, installation.owner)


def _names() -> dict[str, str]:
    token = uuid4().hex[:12]
    return {"main": f"gitlabhq_{token}", "ci": f"gitlabhq_{token}_ci"}


def _create_databases(
    installation: ThrowawayInstallation, projects: tuple[_Project, ...], size: Size, seed: int
) -> None:
    cluster = installation.cluster
    cluster.psql((_SQL / "roles.sql").read_text())
    chosen = f"SET fixture.rows = {size.rows};\nSET fixture.seed = 'seed {seed}';\n"
    common = chosen + (_SQL / "common.sql").read_text()
    main = (_SQL / "main.sql").read_text() + _rows(projects) + (_SQL / "main_rows.sql").read_text()
    for connection, sql in (("main", main), ("ci", (_SQL / "ci.sql").read_text())):
        name = installation.databases[connection]
        cluster.create_database(name, owner="gitlab")
        cluster.psql(common + sql, name)


def _rows(projects: tuple[_Project, ...]) -> str:
    """Return SQL that enters the projects, and what else has repositories."""
    shard = {name: number for number, name in enumerate(STORAGES, start=1)}
    lines = [f"INSERT INTO shards (name) VALUES ('{name}');" for name in STORAGES]
    lines.append(
        "INSERT INTO pool_repositories (shard_id, disk_path, state, organization_id)"
        f" VALUES (1, '{hashed('@pools', _POOL)}', 'ready', 1);"
    )
    for project in projects:
        pool = _POOL if project.shape is Shape.POOLED else "NULL"
        lines.append(
            "INSERT INTO projects (name, path, namespace_id, repository_storage, storage_version, pool_repository_id)"
            f" VALUES ('Project {project.id}', '{project.path}', {project.group}, '{project.storage}',"
            f" {'NULL' if project.legacy else 2}, {pool});"
        )
        lines.append(
            "INSERT INTO project_repositories (shard_id, disk_path, project_id)"
            f" VALUES ({shard[project.storage]}, '{project.disk_path}', {project.id});"
        )
        lines.append(
            "INSERT INTO routes (source_id, source_type, path, name) VALUES"
            f" ({project.id}, 'Project', 'group-{project.group}/{project.path}', 'Project {project.id}');"
        )
    pooled = min(project.id for project in projects if project.shape is Shape.POOLED)
    lines.append(f"UPDATE pool_repositories SET source_project_id = {pooled};")
    lines += [f"INSERT INTO design_management_repositories (project_id) VALUES ({number});" for number in _DESIGNS]
    snippets = {number: ("'ProjectSnippet'", "1") for number, _ in _PROJECT_SNIPPETS}
    snippets |= {number: ("'PersonalSnippet'", "NULL") for number, _ in _PERSONAL_SNIPPETS}
    for number, (kind, project_id) in sorted(snippets.items()):
        lines.append(f"INSERT INTO snippets (title, type, project_id) VALUES ('Snippet', {kind}, {project_id});")
        lines.append(f"INSERT INTO snippet_repositories VALUES (1, {number}, '{hashed('@snippets', number)}');")
    lines.append(f"INSERT INTO group_wiki_repositories VALUES (2, {_GROUP_WIKI}, '{hashed('@groups', _GROUP_WIKI)}');")
    return "\n".join(lines) + "\n"


def _configure(installation: ThrowawayInstallation, *, db_key: str = "throwaway") -> None:
    """Write the configuration: the only files that name where the installation lies."""
    config = installation.root / "config"
    config.mkdir(exist_ok=True)
    (installation.root / "VERSION").write_text(f"{VERSION}\n")
    (config / "secrets.yml").write_text(f"production:\n  db_key_base: {db_key}\n")
    (config / "secrets.yml").chmod(0o600)
    storages = "".join(
        f'        {name}: {{ "path": "{path}", "gitaly_address": "unix:/nonexistent/gitaly.socket" }}\n'
        for name, path in installation.storages.items()
    )
    installation.gitlab_config.write_text(
        _GITLAB_YML.format(user=installation.owner.name, backups=installation.backup_path, storages=storages)
    )
    installation.database_config.write_text(
        _DATABASE_YML.format(
            host=installation.cluster.socket_directory, port=installation.cluster.port, **installation.databases
        )
    )
    installation.database_config.chmod(0o640)
    if installation.context is not None:
        installation.context.write_text(
            _CONTEXT_YML.format(gitlab=installation.gitlab_config, database=installation.database_config)
        )


_GITLAB_YML: Final = """\
production: &base
  gitlab:
    host: gitlab.example.com
    user: {user}
  shared:
    path: shared
  gitlab_ci:
    builds_path: builds/
  artifacts: &blobs
    enabled: true
    object_store:
      enabled: false
  lfs:
    <<: *blobs
    storage_path: shared/lfs-objects
  pages:
    enabled: true
    path: shared/pages
  packages:
    <<: *blobs
  external_diffs:
    enabled: true
  registry:
    enabled: true
    path: shared/registry
  backup:
    path: "{backups}"
    keep_time: 604800
  repositories:
    storages:
{storages}
development:
  <<: *base

test:
  <<: *base
  backup:
    path: tmp/tests/backups
"""

_DATABASE_YML: Final = """\
production:
  main: &main
    adapter: postgresql
    encoding: unicode
    database: {main}
    username: gitlab
    password: "throwaway"
    host: {host}
    port: {port}
  ci:
    <<: *main
    database: {ci}
  sec:
    <<: *main
    database_tasks: false
"""

_CONTEXT_YML: Final = """\
version: 1
installation_type: "omnibus"
gitlab:
  config_path: {gitlab}
database:
  config_path: {database}
"""
