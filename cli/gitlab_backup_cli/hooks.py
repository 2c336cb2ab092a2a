"""Programs of the administrator that are run before and after a run: `backup-before`, `restore-failed`, …."""

from __future__ import annotations

import json
import os
import stat
from enum import StrEnum
from typing import TYPE_CHECKING

from attrs import frozen

from gitlab_backup.errors import RefusedError, UsageError
from gitlab_backup.streams.process import Program, run

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from gitlab_backup.streams.cancel import Cancellation

    from .documents import Document

_VARIABLES = {
    "operation": "GITLAB_BACKUP_OPERATION",
    "hook": "GITLAB_BACKUP_HOOK",
    "exit_status": "GITLAB_BACKUP_EXIT_STATUS",
    "status": "GITLAB_BACKUP_STATUS",
    "backup_id": "GITLAB_BACKUP_ID",
    "path": "GITLAB_BACKUP_DIRECTORY",
}
"""Keys of the document that are in the environment, too, where they are known."""
_INHERITED = ("PATH", "HOME", "LANG", "TZ")


class Moment(StrEnum):
    """When a hook is run."""

    BEFORE = "before"
    AFTER = "after"
    FAILED = "failed"


@frozen
class Hooks:
    """The hooks of one operation, in a directory."""

    directory: Path
    operation: str
    timeout: float
    """Seconds that each of them has."""

    def name(self, moment: Moment) -> str:
        """Return what a hook is called."""
        return f"{self.operation}-{moment}"

    def check(self) -> None:
        """Make sure, before anything is done, that each hook that is there can be run, and is nobody else's.

        Raises `RefusedError`, and `UsageError` where there is no such directory.
        """
        if not self.directory.is_dir():
            raise UsageError(
                f"the hook directory {self.directory} is not a directory", hint="Make it, or give another one."
            )
        for moment in Moment:
            if self.has(moment):
                _check(self.directory / self.name(moment))

    def has(self, moment: Moment) -> bool:
        """Return whether there is a hook for a moment."""
        return os.path.lexists(self.directory / self.name(moment))

    def run(self, moment: Moment, document: Mapping[str, Document], cancel: Cancellation) -> None:
        """Run a hook, with a document on its standard input.

        Raises `CancelledError`, `ProgramError` and `RefusedError`.
        """
        path = self.directory / self.name(moment)
        _check(path)
        told = {"operation": self.operation, "hook": moment.value, **document}
        variables = {variable: told[key] for key, variable in _VARIABLES.items() if told.get(key) is not None}
        environment = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        environment |= {name: str(value) for name, value in variables.items()}
        program = Program((str(path),), environment)
        run(program, stdin=json.dumps(told).encode() + b"\n", cancel=cancel, timeout=self.timeout)


def _check(hook: Path) -> None:
    """Raise `RefusedError` where somebody else could have a say in what is run."""
    try:
        path = hook.resolve(strict=True)
        status = path.stat()
        for place in (path, *path.parents):
            _check_rights(hook, place, place.stat())
    except OSError as error:
        raise RefusedError(f"the hook {hook} cannot be looked at: {error.strerror}") from error
    if not stat.S_ISREG(status.st_mode) or not os.access(path, os.X_OK):
        raise RefusedError(f"the hook {hook} is not an executable file", hint=f"chmod 0755 {hook}, or remove it.")


def _check_rights(hook: Path, place: Path, status: os.stat_result) -> None:
    if status.st_uid not in {0, os.geteuid()}:
        raise RefusedError(
            f"the hook {hook} is not run: {place} belongs to another user ({status.st_uid})",
            hint="Hooks, and the directories that lead to them, belong to root, or to who runs them.",
        )
    # In a directory with the sticky bit, nobody can replace what belongs to others: see chmod(1).
    sticky = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not sticky:
        raise RefusedError(f"the hook {hook} is not run: others can write to {place}", hint=f"chmod go-w {place}")
