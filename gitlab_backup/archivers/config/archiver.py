"""Archives what GitLab is configured by, and hands it out again without replacing anything.

What is right for the machine that a backup was made on may be wrong for the one that it is restored on: addresses,
disks, keys of hosts. So a restore extracts into a directory of the administrator's choice, who takes from it what fits.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from attrs import evolve

from ...errors import ComponentError, RefusedError
from ...streams.tar import write_paths
from ..files.archiver import FilesArchiver, details_of, warn_of
from ..files.plan import plan_at

if TYPE_CHECKING:
    from contextlib import ExitStack

    from ...components import Component
    from ...instance import Instance
    from ..base import JSON, BackupJob, RestoreJob, RestorePlan


class ConfigArchiver(FilesArchiver):
    """Archives configuration, secrets and keys under their whole names: `./etc/gitlab/gitlab.rb`."""

    name: ClassVar[str] = "config"

    def left_out(self, component: Component, instance: Instance) -> str | None:  # noqa: ARG002 - there is one
        """Return that nothing was found, else None."""
        if any(os.path.lexists(path) for path in instance.configuration):
            return None
        return f"there is nothing: {', '.join(map(str, instance.configuration)) or 'no path is known'}"

    def prepare(self, job: BackupJob, resources: ExitStack) -> None:  # noqa: ARG002 - nothing stays open
        """Look for the secrets, without which the rest would be no help.

        Raises `ComponentError`. Later would be too late: dumps take hours.
        """
        if job.instance.secrets_file is None:
            name = "gitlab-secrets.json" if job.instance.installation == "omnibus" else "secrets.yml"
            raise ComponentError(
                f"{job.component.name}: {name} was not found, or cannot be read",
                hint=f"Run this as root, or leave {job.component.id} out.",
            )

    def back_up(self, job: BackupJob) -> dict[str, JSON]:
        """Archive it. What could not be read is warned of and listed in what is returned.

        Raises what the streams raise.
        """
        report = write_paths(
            job.instance.configuration,
            job.create_stream(job.component.destination),
            cancel=job.cancel,
            exclude=job.component.excludes,
        )
        warn_of(job, report)
        return details_of(report)

    def plan_restore(self, job: RestoreJob) -> RestorePlan:
        """Look at the archive and at the directory for it.

        Raises `RefusedError` where none was named, or something is in it.
        """
        if job.options.config_to is None:
            raise RefusedError(
                f"{job.component.name}: they are never put over those that are there",
                hint="Name a new or empty directory for them with --config-to.",
            )
        target = Path(os.path.realpath(job.options.config_to))
        existed = os.path.lexists(target)
        if existed and not (target.is_dir() and not any(target.iterdir())):
            raise RefusedError(
                f"{job.component.name}: {target} is not an empty directory, and nothing of this is put over anything",
                hint="Name a directory that does not exist yet.",
            )
        plan = plan_at(job, target, existed=existed)
        note = f"they are extracted into {target}, and replace nothing: compare, and copy from there what is wanted"
        return evolve(plan, notes=(*plan.notes, note))
