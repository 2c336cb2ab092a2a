"""Backs repositories up again and again, as increments, and restores them into storages of their own."""

from __future__ import annotations

import os
import shutil
from contextlib import closing
from typing import TYPE_CHECKING, Any

from attrs import define, evolve, field, frozen

from gitlab_backup import Backup
from gitlab_backup.archivers.base import RepositoryOptions
from gitlab_backup.streams.tar.reader import TarReader
from tests.support.repositories import git

from .git_run import Bench, refs_of

if TYPE_CHECKING:
    from pathlib import Path

    from gitlab_backup.events import Event
    from gitlab_backup.instance import Instance

INCREMENTAL = RepositoryOptions(incremental=True)


@frozen
class State:
    """All of a repository that a restore must bring back."""

    object_format: str
    head: bytes
    refs: tuple[tuple[str, bytes], ...]
    hooks: tuple[tuple[str, bytes], ...]


def state(repository: Path, *, walked: bool = False) -> State | None:
    """Return what a repository is like; None where there is none. `walked`: git checks all that its refs lead to."""
    if not repository.exists():
        return None
    if walked:
        git(repository, "fsck", "--connectivity-only")
    hooks = repository / "custom_hooks"
    return State(
        object_format=git(repository, "rev-parse", "--show-object-format").decode().strip(),
        head=(repository / "HEAD").read_bytes(),
        refs=tuple(refs_of(repository)),
        hooks=tuple(
            (str(file.relative_to(hooks)), file.read_bytes()) for file in sorted(hooks.rglob("*")) if file.is_file()
        ),
    )


@define
class IncrementBench(Bench):
    """A database and storages, a store of backups, and how many programs were started."""

    events: list[Event] = field(factory=list)

    @property
    def store(self) -> Path:
        return self.directory / "backups"

    @property
    def instance(self) -> Instance:
        return evolve(super().instance, backup_path=self.store)

    def create(self, repositories: RepositoryOptions = INCREMENTAL, **options: Any) -> Backup:
        """Back up the repositories."""
        chosen: dict[str, Any] = {"only": ["repositories"], "jobs": 1, "observer": self.events.append, **options}
        return Backup.create(self.instance, repositories=repositories, **chosen)

    def restored(self, backup: Backup, name: str = "restored") -> Path:
        """Restore into a new storage, after everything was verified, and return it."""
        storage = self.directory / name
        shutil.rmtree(storage, ignore_errors=True)
        storage.mkdir()
        (described,) = self.instance.storages
        fresh = evolve(self.instance, storages=(evolve(described, path=storage, gitaly_address=None),))
        backup.restore(fresh, only=["repositories"], jobs=1)
        return storage

    def git_runs(self) -> list[list[str]]:
        """Return the git commands that were run since this was last asked, and have them counted from now on."""
        log = self.directory / "git.log"
        runs = [line.split() for line in log.read_text().splitlines()] if log.exists() else []
        log.write_text("")
        directory = self.directory / "bin"
        if not directory.exists():
            real = shutil.which("git", path=self.search_path)
            directory.mkdir()
            (directory / "git").write_text(f'#!/bin/sh\necho "$@" >> "{log}"\nexec "{real}" "$@"\n')
            (directory / "git").chmod(0o755)
            self.search_path = f"{directory}{os.pathsep}{self.search_path}"
        # What it is asked for its version is not about a repository.
        return [run for run in runs if run != ["--version"]]


def details_of(backup: Backup) -> dict[str, Any]:
    """Return what the manifest says of the repositories."""
    assert backup.manifest is not None
    record = backup.manifest.component("repositories")
    assert record is not None
    return dict(record.details)


def kinds(backup: Backup) -> tuple[int, int, int]:
    """Return how many repositories are there in full, have a new step, and are unchanged."""
    details = details_of(backup)
    return details["full"], details["increments"], details["unchanged"]


def hook_names(archive: Path) -> list[bytes]:
    """Return the members of an archive of custom hooks."""
    with archive.open("rb") as file, closing(file):
        return [member.name for member in TarReader(file)]
