"""Restores repositories with the git archiver: as a job in this process, or as a program that can be killed.

As a program: `python -m tests.archivers.git_restoring PICKLE PHASE COUNT` stages, swaps and undoes, and kills itself in
PHASE at the COUNT-th change of the file system or start of a program.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import define, field

from gitlab_backup.archivers.base import RestoreJob, RestoreOptions
from gitlab_backup.archivers.git import GitArchiver
from gitlab_backup.streams.cancel import Cancellation

from .git_run import COMPONENT, ID

if TYPE_CHECKING:
    from gitlab_backup.archivers.base import JSON, RestorePlan
    from gitlab_backup.instance import Instance

_EVENTS = frozenset({"os.rename", "os.mkdir", "os.rmdir", "os.remove", "os.chown", "os.utime", "subprocess.Popen"})


@define
class Restoring:
    """A backup on its way back."""

    instance: Instance
    root: Path
    options: RestoreOptions = field(factory=RestoreOptions)
    details: dict[str, JSON] | None = None
    jobs: int = 2
    warnings: list[str] = field(factory=list)
    archiver: GitArchiver = field(factory=GitArchiver)

    @property
    def job(self) -> RestoreJob:
        return RestoreJob(
            instance=self.instance,
            component=COMPONENT,
            root=self.root,
            backup_id=ID,
            details=self.details,
            options=self.options,
            jobs=self.jobs,
            cancel=Cancellation(),
            open_file=lambda name: (self.root / name).open("rb"),
            open_stream=lambda name: (self.root / name).open("rb"),
            names=lambda below: sorted(
                str(path.relative_to(self.root)) for path in (self.root / below).rglob("*") if path.is_file()
            ),
            progress=lambda read, written: None,  # noqa: ARG005
            warn=self.warnings.append,
        )

    def plan(self) -> RestorePlan:
        return self.archiver.plan_restore(self.job)

    def all(self, *, until: str = "finish") -> dict[str, Any]:
        """Do all steps up to one, and return the facts."""
        facts = self.plan().facts
        for step in ("stage", "swap", "finish"):
            getattr(self.archiver, step)(self.job, facts)
            if step == until:
                break
        return facts

    def undo(self, facts: dict[str, Any]) -> None:
        self.archiver.undo(self.job, facts)


def _main(pickled: str, phase: str, count: int) -> None:
    # Written by the test that starts this.
    restoring, facts = pickle.loads(Path(pickled).read_bytes())  # noqa: S301
    left, current = count, ""

    def strike(event: str, _arguments: tuple[object, ...]) -> None:
        nonlocal left
        if current == phase and event in _EVENTS:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(strike)
    for current in ("stage", "swap", "undo"):
        getattr(restoring.archiver, current)(restoring.job, facts)


if __name__ == "__main__":
    _main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
