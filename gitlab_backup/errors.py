"""Every error of this library, and the exit status that each stands for.

::

    GitLabBackupError                1
    ├── UsageError                   2   an option or an id that does not exist
    ├── PluginError                  1   an archiver or codec of others is not there, or cannot be used
    ├── ConfigurationError           7   the instance's configuration cannot be used
    ├── DocumentError                1   a document of a backup cannot be understood
    │   ├── MetadataError                backup_information.json, backup ids
    │   ├── ManifestError                manifest.json
    │   └── ChecksumsError               SHA256SUMS
    ├── BackupNotFoundError          5
    ├── LockedError                  6
    ├── RefusedError                 8   version mismatch, not confirmed, not enough space
    ├── StoreError                   1   the backup path cannot be used
    ├── StreamError                  1   bytes cannot be read, transformed or written
    │   └── CorruptStreamError       1   compressed data or an archive is damaged
    ├── ProgramError                 1   pg_dump, git, … failed
    │   └── ProgramNotFoundError     1
    ├── DatabaseError                1   PostgreSQL cannot be reached, or says no
    ├── ComponentError               1   a component could not be backed up or restored
    ├── BackupFailedError            1   a backup failed; nothing was published
    ├── RestoreFailedError           1   a restore failed; the instance is as it was
    ├── DamagedError                 4   verification found damage
    └── CancelledError             130   interrupted (143: terminated)
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .manifest import ComponentRecord


class ExitStatus(IntEnum):
    """What the command's exit status means. A status that is not here means failure."""

    COMPLETE = 0
    FAILED = 1
    USAGE = 2
    WARNINGS = 3
    DAMAGED = 4
    NOT_FOUND = 5
    LOCKED = 6
    CONFIGURATION = 7
    REFUSED = 8
    INTERRUPTED = 130
    TERMINATED = 143


class GitLabBackupError(Exception):
    """The root of all errors that this library raises on purpose.

    `message` says what happened, and to what; `hint` says what to do next.
    """

    exit_status: ExitStatus = ExitStatus.FAILED

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(GitLabBackupError):
    """A component, codec, archiver or option that does not exist was asked for."""

    exit_status = ExitStatus.USAGE


class PluginError(GitLabBackupError):
    """An archiver or codec of another distribution cannot be used, or is not installed where a backup needs it."""


class ConfigurationError(GitLabBackupError):
    """The configuration of the GitLab instance is missing, unreadable or wrong."""

    exit_status = ExitStatus.CONFIGURATION


class DocumentError(GitLabBackupError):
    """A document of a backup cannot be understood. `problems` has one line for each thing that is wrong in it."""

    def __init__(self, message: str, *, problems: tuple[str, ...] = (), hint: str | None = None) -> None:
        super().__init__("\n  - ".join((message, *problems)), hint=hint)
        self.problems = problems


class MetadataError(DocumentError):
    """`backup_information.json` or a backup id is not what it must be."""


class ManifestError(DocumentError):
    """`manifest.json` is not what it must be."""


class ChecksumsError(DocumentError):
    """`SHA256SUMS` is not what it must be."""


class BackupNotFoundError(GitLabBackupError):
    """There is no backup of that id in the backup path."""

    exit_status = ExitStatus.NOT_FOUND


class LockedError(GitLabBackupError):
    """Another operation holds the lock of the backup path."""

    exit_status = ExitStatus.LOCKED


class RefusedError(GitLabBackupError):
    """The operation would do harm, and was not told to go on."""

    exit_status = ExitStatus.REFUSED


class StoreError(GitLabBackupError):
    """The backup path cannot be used: not a directory, not writable, full."""


class StreamError(GitLabBackupError):
    """Bytes could not be read, transformed or written."""


class CorruptStreamError(StreamError):
    """Compressed data, a tar archive or a dump is damaged, cut short or hostile."""


class ProgramError(GitLabBackupError):
    """A program that this tool ran did not succeed. The message ends with the program's own last words.

    `returncode` is as in `subprocess`: negative for a signal; None where the program never ran.
    """

    def __init__(self, message: str, *, returncode: int | None = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.returncode = returncode


class ProgramNotFoundError(ProgramError):
    """A program that is needed is not installed, or not in the search path."""


class DatabaseError(GitLabBackupError):
    """PostgreSQL cannot be reached, refuses, or answers with an error."""


class ComponentError(GitLabBackupError):
    """A component could not be backed up, verified or restored."""


class BackupFailedError(GitLabBackupError):
    """A backup failed, and nothing was published. `components` has what became of each, as the manifest would."""

    def __init__(
        self,
        message: str,
        *,
        backup_id: str,
        components: tuple[ComponentRecord, ...] = (),
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.backup_id = backup_id
        self.components = components


class RestoreFailedError(GitLabBackupError):
    """A restore failed. The message says whether everything was put back."""


class DamagedError(GitLabBackupError):
    """Verification found damage."""

    exit_status = ExitStatus.DAMAGED


class CancelledError(GitLabBackupError):
    """The operation was cancelled from outside, and has put everything back."""

    exit_status = ExitStatus.INTERRUPTED

    def __init__(self, message: str = "cancelled", *, status: ExitStatus = ExitStatus.INTERRUPTED) -> None:
        super().__init__(message)
        self.exit_status = status
