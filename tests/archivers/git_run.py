"""Backs up repositories with the git archiver, and reads what came of it by the description of the format alone."""

# ruff: noqa: S608 - the values in the SQL are of our own making
from __future__ import annotations

import hashlib
import os
import subprocess
import tomllib
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from attrs import define, field, frozen

from gitlab_backup.archivers.base import BackupJob, VerifyJob
from gitlab_backup.archivers.git import GitArchiver
from gitlab_backup.components import COMPONENTS
from gitlab_backup.instance import Database, Instance, Storage
from gitlab_backup.streams.cancel import Cancellation
from gitlab_backup.streams.codec import NoneCodec
from tests.support.repositories import ENVIRONMENT, git, hashed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from gitlab_backup.archivers.base import JSON
    from tests.support.postgres import Cluster

COMPONENT = next(component for component in COMPONENTS if component.id == "repositories")
ID = "1714053314_2024_04_25_17.0.0"

SCHEMA = """
CREATE TABLE shards (id integer PRIMARY KEY, name varchar NOT NULL);
CREATE TABLE projects (
    id bigint PRIMARY KEY, repository_storage varchar DEFAULT 'default' NOT NULL, storage_version smallint DEFAULT 2
);
CREATE TABLE project_repositories (shard_id integer, disk_path varchar, project_id bigint);
CREATE TABLE routes (source_id bigint, source_type varchar, path varchar);
CREATE TABLE snippets (id bigint PRIMARY KEY, type varchar, project_id bigint);
CREATE TABLE snippet_repositories (shard_id integer, snippet_id bigint, disk_path varchar);
CREATE TABLE group_wiki_repositories (shard_id integer, group_id bigint, disk_path text);
INSERT INTO shards VALUES (1, 'default'), (2, 'second');
"""


@define
class Bench:
    """A database and storages, to be filled, backed up and verified."""

    cluster: Cluster
    dbname: str
    directory: Path
    storages: dict[str, Path] = field(factory=dict)
    warnings: list[str] = field(factory=list)
    progress: list[tuple[int, int]] = field(factory=list)
    search_path: str = field(factory=lambda: os.environ["PATH"])
    cancel: Cancellation = field(factory=Cancellation)

    @property
    def root(self) -> Path:
        """The backup."""
        return self.directory / "staging"

    def sql(self, statements: str) -> None:
        self.cluster.psql(statements, self.dbname)

    def storage(self, name: str = "default") -> Path:
        """Make a storage, as Gitaly leaves one that it has started on."""
        path = self.storages.setdefault(name, self.directory / "repositories" / name)
        path.mkdir(parents=True, exist_ok=True)
        (path / ".gitaly-metadata").touch()
        return path

    def project(self, number: int, *, path: str | None = None) -> Path:
        """List a project, and return where its repository belongs. Only that one is listed: `path` can be hostile."""
        self.storage()
        self.sql(f"INSERT INTO projects (id) VALUES ({number})")
        disk_path = path or hashed("@hashed", number)
        self.sql(f"INSERT INTO project_repositories VALUES (1, '{disk_path}', {number})")
        return self.storages["default"] / f"{disk_path}.git"

    @property
    def instance(self) -> Instance:
        return Instance(
            gitlab_version="17.0.0",
            installation="source",
            root=self.directory,
            rails_env="production",
            backup_path=self.directory,
            system_user="git",
            databases=(described(self.cluster, self.dbname),),
            storages=tuple(Storage(name=name, path=path) for name, path in self.storages.items()),
            settings=(),
            search_path=self.search_path,
        )

    def back_up(self, *, instance: Instance | None = None, keep_going: bool = False, jobs: int = 2) -> dict[str, JSON]:
        with job_of(
            self.root,
            instance or self.instance,
            keep_going=keep_going,
            jobs=jobs,
            warn=self.warnings.append,
            progress=lambda read, written: self.progress.append((read, written)),
            cancel=self.cancel,
        ) as job:
            return GitArchiver().back_up(job)

    def verify(self, details: Mapping[str, JSON] | None) -> list[tuple[str, str]]:
        return verify(self.root, details)


def described(cluster: Cluster, dbname: str) -> Database:
    return Database(
        name="main", dbname=dbname, host=str(cluster.socket_directory), port=cluster.port, user=cluster.superuser
    )


@contextmanager
def job_of(
    root: Path,
    instance: Instance,
    *,
    keep_going: bool = False,
    jobs: int = 2,
    warn: Callable[[str], None] = lambda message: None,  # noqa: ARG005
    progress: Callable[[int, int], None] = lambda read, written: None,  # noqa: ARG005
    cancel: Cancellation | None = None,
) -> Iterator[BackupJob]:
    root.mkdir(exist_ok=True)
    with ThreadPoolExecutor(1) as pool:
        yield BackupJob(
            instance=instance,
            component=COMPONENT,
            root=root,
            backup_id=ID,
            codec=NoneCodec(),
            level=None,
            jobs=jobs,
            keep_going=keep_going,
            pool=pool,
            cancel=cancel or Cancellation(),
            progress=progress,
            written=lambda name, sha256: None,  # noqa: ARG005
            warn=warn,
        )


def verify(root: Path, details: Mapping[str, JSON] | None) -> list[tuple[str, str]]:
    """Return what the archiver finds wrong with the backup."""
    damages: list[tuple[str, str]] = []
    GitArchiver().verify(
        VerifyJob(
            component=COMPONENT,
            root=root,
            backup_id=ID,
            details=details,
            jobs=2,
            cancel=Cancellation(),
            open_file=lambda name: (root / name).open("rb"),
            open_stream=lambda name: (root / name).open("rb"),
            damaged=lambda name, problem: damages.append((name, problem)),
            names=lambda below: sorted(
                str(path.relative_to(root)) for path in (root / below).rglob("*") if path.is_file()
            ),
        )
    )
    return damages


# An independent reader


@frozen(kw_only=True)
class Stored:
    """One repository of a backup, read by the description of the format."""

    manifest: dict[str, Any]
    refs: list[tuple[str, bytes]]
    bundle: Path | None
    hooks: Path | None

    @property
    def header(self) -> bytes:
        """The header of the bundle."""
        assert self.bundle is not None
        return self.bundle.read_bytes().partition(b"\n\n")[0] + b"\n"


def stored(root: Path, path: str, *, storage: str = "default", backup_id: str = ID) -> Stored:
    """Read the repository at `path` (with `.git`) from a backup of one step."""
    base = root / "repositories"
    manifests = base / "manifests" / storage / path
    text = (manifests / f"{backup_id}.toml").read_bytes()
    assert text == (manifests / "+latest.toml").read_bytes()
    assert sorted(["+latest.toml", f"{backup_id}.toml"]) == sorted(entry.name for entry in manifests.iterdir())
    manifest = tomllib.loads(text.decode())
    stem = f"{storage}/{path}/{backup_id}/001"
    assert manifest.pop("steps") == [
        {"bundle_path": f"{stem}.bundle", "ref_path": f"{stem}.refs", "custom_hooks_path": f"{stem}.custom_hooks.tar"}
    ]
    refs = base / f"{stem}.refs"
    lines = refs.read_bytes().split(b"\n")[:-1] if refs.exists() else []
    bundle, hooks = base / f"{stem}.bundle", base / f"{stem}.custom_hooks.tar"
    return Stored(
        manifest=manifest,
        refs=[(line.split(b" ", 1)[0].decode(), line.split(b" ", 1)[1]) for line in lines],
        bundle=bundle if bundle.exists() else None,
        hooks=hooks if hooks.exists() else None,
    )


def restored_refs(bundle: Path, directory: Path, object_format: str = "sha1", salt: int = 0) -> list[tuple[str, bytes]]:
    """Have git verify a bundle and fetch everything in it into a new repository, check that, and return its refs."""
    digest = hashlib.sha256(b"%d" % salt + os.fsencode(bundle)).hexdigest()[:12]
    git_dir = directory / f"restored-{digest}.git"
    git(git_dir, "init", "--bare", "--quiet", "--template=", f"--object-format={object_format}")
    git(git_dir, "bundle", "verify", "--quiet", str(bundle))
    if b"refs/" in git(git_dir, "bundle", "list-heads", str(bundle)):
        git(git_dir, "fetch", "--quiet", "--no-auto-gc", str(bundle), "+refs/*:refs/*")
    git(git_dir, "fsck", "--connectivity-only")
    return refs_of(git_dir)


def refs_of(repository: Path) -> list[tuple[str, bytes]]:
    """Return all refs that git finds, without HEAD."""
    output = git(repository, "for-each-ref", "--format=%(objectname) %(refname)")
    return [(line.split(b" ", 1)[0].decode(), line.split(b" ", 1)[1]) for line in output.split(b"\n")[:-1]]


def commit(repository: Path, ref: str, text: str, *, parent: str | None = None) -> str:
    """Make a commit with one file, point `ref` at it, and return its id."""
    blob = git(repository, "hash-object", "-w", "--stdin", stdin=text.encode()).decode().strip()
    tree = git(repository, "mktree", stdin=f"100644 blob {blob}\tfile\n".encode()).decode().strip()
    parents = ["-p", parent] if parent else []
    names = [f"-c user.{key}={value}" for key, value in (("name", "T"), ("email", "t@example.com"))]
    oid = git(repository, *" ".join(names).split(), "commit-tree", tree, *parents, "-m", text).decode().strip()
    git(repository, "update-ref", ref, oid)
    return oid


def init(repository: Path, *options: str) -> Path:
    """Make a bare repository."""
    repository.parent.mkdir(parents=True, exist_ok=True)
    git(repository, "init", "--bare", "--quiet", "--template=", "--initial-branch=main", *options)
    return repository


def clone(bundle: Path, directory: Path) -> None:
    """Clone a bundle as anyone would."""
    subprocess.run(
        ["git", "clone", "--quiet", "--mirror", str(bundle), str(directory)],
        check=True,
        capture_output=True,
        env={"PATH": os.environ["PATH"], **ENVIRONMENT},
    )
