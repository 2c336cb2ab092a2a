"""Back up and restore a self-managed GitLab.

::

    from gitlab_backup import Backup, Instance

    backup = Backup.create(Instance.discover())
    print(backup.id, backup.state)
"""

from __future__ import annotations

from . import errors
from .archivers.base import RepositoryOptions
from .backup import Backup, BackupState
from .backup_id import BackupId
from .components import COMPONENTS, Component
from .errors import GitLabBackupError
from .instance import Instance
from .manifest import Manifest
from .metadata import Metadata
from .store import BackupStore
from .streams.cancel import Cancellation
from .version import __version__

__all__ = [
    "COMPONENTS",
    "Backup",
    "BackupId",
    "BackupState",
    "BackupStore",
    "Cancellation",
    "Component",
    "GitLabBackupError",
    "Instance",
    "Manifest",
    "Metadata",
    "RepositoryOptions",
    "__version__",
    "errors",
]
