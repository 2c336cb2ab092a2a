"""The archiver of the component `repositories` that uses gitaly-backup."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from attrs import evolve

from ..git.layout import MANIFESTS
from ..git.verify import verify_repositories
from . import restore
from .back_up import back_up_repositories
from .program import GitalyBackup

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import ExitStack

    from ...components import Component
    from ...instance import Instance
    from ..base import JSON, BackupJob, RestoreJob, RestorePlan, VerifyJob


class GitalyArchiver:
    """Has Gitaly read and write its repositories, on this machine or on others, by the program gitaly-backup."""

    name: ClassVar[str] = "gitaly"

    def __init__(self) -> None:
        self._program: GitalyBackup | None = None

    def left_out(self, component: Component, instance: Instance) -> str | None:  # noqa: ARG002 - one component only
        """Return why nothing is backed up: no storage is configured."""
        return None if instance.storages else "no repository storage is configured"

    def prepare(self, job: BackupJob, resources: ExitStack) -> None:  # noqa: ARG002 - nothing is left open
        """Look for the program, and ask for its version: before hours are spent on the databases."""
        self._program = GitalyBackup.of(job.instance, cancel=job.cancel)

    def back_up(self, job: BackupJob) -> dict[str, JSON]:
        """Have all repositories backed up that the database lists. See `back_up.back_up_repositories`."""
        program = self._program or GitalyBackup.of(job.instance, cancel=job.cancel)
        return back_up_repositories(job, program)

    def verify(self, job: VerifyJob) -> None:
        """Read the files of every repository: they must be whole, and agree as far as gitaly-backup makes them.

        Of a server-side backup nothing is here that could be verified.
        """
        details = job.details or {}
        if details.get("server_side") is True:
            return
        # The record of the program's work is not one of ours: it reads refs and objects at different moments.
        verify_repositories(evolve(job, details=None))
        place = f"{job.component.destination}/{MANIFESTS}"
        found = len({name.rpartition("/")[0] for name in job.names(place) if name.endswith(".toml")})
        recorded = details.get("repositories")
        if isinstance(recorded, int) and recorded != found:
            job.damaged(place, f"has manifests of {found} repositories, where {recorded} were made")

    def plan_restore(self, job: RestoreJob) -> RestorePlan:
        """Check the program, the storages and every manifest. Changes nothing."""
        return restore.plan(job)

    def stage(self, job: RestoreJob, facts: Mapping[str, JSON]) -> None:
        """Write down what is to be restored. Changes no repository."""
        restore.stage(job, facts)

    def swap(self, job: RestoreJob, facts: Mapping[str, JSON]) -> None:
        """Have the repositories restored in place. This cannot be undone."""
        restore.swap(job, facts)

    def committed(self, job: RestoreJob, facts: Mapping[str, JSON]) -> str | None:
        """Return what gitaly-backup has changed."""
        return restore.committed(job, facts)

    def undo(self, job: RestoreJob, facts: Mapping[str, JSON]) -> None:
        """Say what was restored, where anything was: it stays so."""
        restore.undo(job, facts)

    def finish(self, job: RestoreJob, facts: Mapping[str, JSON]) -> None:
        """Remove the list of what was to be restored."""
        restore.finish(job, facts)
