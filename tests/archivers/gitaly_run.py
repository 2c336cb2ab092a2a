"""Storages whose Gitaly is a double of gitaly-backup, to be backed up and restored."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from attrs import define, evolve, field

from gitlab_backup import Backup
from gitlab_backup.archivers.gitaly import GitalyArchiver
from tests.archivers.git_run import Bench, commit, init, job_of
from tests.support import gitaly_backup
from tests.support.repositories import Shape, create

if TYPE_CHECKING:
    from pathlib import Path

    from gitlab_backup.archivers.base import JSON
    from gitlab_backup.instance import Instance

TOKEN = "s3cret-token-of-gitaly"  # noqa: S105


@define
class GitalyBench(Bench):
    """A database, storages, and a gitaly-backup of some version that serves them."""

    version: str = "17.6.0"
    faults: dict[str, Any] = field(factory=dict)
    written: dict[str, str] = field(factory=dict)

    @property
    def record(self) -> Path:
        return self.directory / "runs.jsonl"

    @property
    def runs(self) -> list[dict[str, Any]]:
        """What the program was run with, but for `--version`."""
        return [json.loads(line) for line in self.record.read_text().splitlines()] if self.record.exists() else []

    @property
    def instance(self) -> Instance:
        plain = super().instance
        storages = tuple(
            evolve(storage, path=None, gitaly_address=f"unix:/nowhere/{storage.name}.socket", gitaly_token=TOKEN)
            for storage in plain.storages
        )
        program = gitaly_backup.install(
            self.directory / "programs",
            {
                "version": self.version,
                "storages": {name: str(path) for name, path in self.storages.items()},
                "servers": {s.name: {"address": s.gitaly_address, "token": s.gitaly_token} for s in storages},
                "record": str(self.record),
                "faults": self.faults,
            },
        )
        return evolve(
            plain,
            storages=storages,
            gitaly_backup=program,
            backup_path=self.directory / "backups",
            certificates={"SSL_CERT_DIR": "/of/the/caller"},
        )

    def ordinary(self, number: int) -> Path:
        """Make a project with a repository of one commit."""
        path = init(self.project(number))
        commit(path, "refs/heads/main", f"commit of {number}")
        return path

    def shaped(self, number: int, shape: Shape) -> Path:
        path = self.project(number)
        create(path, shape, salt=str(number))
        return path

    def relative(self, path: Path) -> str:
        return str(path.relative_to(self.storages["default"]))

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
            job.written = self.written.__setitem__
            return GitalyArchiver().back_up(job)

    def create(self, **options: Any) -> Backup:
        return Backup.create(self.instance, only=["repositories"], **options)
