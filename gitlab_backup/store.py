"""The backup path: what lies in it, who may work in it, and how a backup appears in it."""

from __future__ import annotations

import fcntl
import json
import os
import stat
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import field, frozen

from .backup_id import BackupId
from .errors import BackupNotFoundError, LockedError, MetadataError, StoreError
from .metadata import Metadata
from .streams.files import publish, remove_tree, sync_tree

if TYPE_CHECKING:
    from collections.abc import Iterator

LOCK_NAME = ".gitlab-backup.lock"
LATEST = "latest"
_PARTIAL = ".partial"
_PATIENCE = 50
_MOMENT = 0.1
"""Seconds between two looks at a lock whose holder is dead."""


@frozen
class BackupStore:
    """A directory of backups.

    Everything that changes it is done under its lock, which is `flock(2)`: it dies with its process.
    Reading needs none.
    """

    path: Path = field(converter=Path)

    def ids(self) -> tuple[str, ...]:
        """Return the ids of all backups here, oldest first. A store that does not exist yet is empty.

        A backup is a directory (not a symbolic link) that is named like a backup id. Staging is hidden, and is none.
        """
        found: list[BackupId] = []
        try:
            with os.scandir(self.path) as entries:
                for entry in entries:
                    backup_id = _as_backup_id(entry.name)
                    if backup_id is not None and entry.is_dir(follow_symlinks=False):
                        found.append(backup_id)
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise self._unusable(error) from error
        return tuple(str(backup_id) for backup_id in sorted(found))

    def open(self, backup_id: str) -> Path:
        """Return the directory of a backup; `latest` is the newest one with readable metadata.

        Raises `BackupNotFoundError`.
        """
        ids = self.ids()
        if backup_id == LATEST:
            for candidate in reversed(ids):
                if _has_metadata(self.path / candidate):
                    return self.path / candidate
            raise BackupNotFoundError(
                f"there is no backup in {self.path}", hint="Make one with `gitlab-backup-cli backup all`."
            )
        if backup_id in ids:
            return self.path / backup_id
        raise BackupNotFoundError(
            f"there is no backup {backup_id} in {self.path}",
            hint=f"The newest one is {ids[-1]}." if ids else "The backup path holds no backup.",
        )

    @contextmanager
    def lock(self, operation: str) -> Iterator[None]:
        """Hold the store for an operation that changes it, or the instance. Makes the directory (0700) if need be.

        Raises `LockedError`, which names the holder, and `StoreError` where the path cannot be used.
        """
        self._make()
        try:
            descriptor = os.open(self.path / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise self._unusable(error) from error
        try:
            if not _flock(descriptor):
                raise self._locked(_holder(descriptor))
            holder = {"operation": operation, "pid": os.getpid(), "since": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"}
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(holder).encode() + b"\n", 0)
            yield
            os.ftruncate(descriptor, 0)
        finally:
            os.close(descriptor)

    def remove_dead_staging(self) -> tuple[str, ...]:
        """Remove what killed runs have left, and return the names. To be called under the lock: all of it is dead."""
        dead = sorted(entry.name for entry in os.scandir(self.path) if _is_staging(entry.name))
        for name in dead:
            remove_tree(self.path / name)
        return tuple(dead)

    @contextmanager
    def staging(self, at: datetime, gitlab_version: str) -> Iterator[Staging]:
        """Make the directory in which a backup grows, and remove it at the end, unless it was published.

        To be called under the lock. The id is that of the second `at`, or of the next one that no backup has.
        """
        backup_id = BackupId.new(at, gitlab_version)
        while os.path.lexists(self.path / str(backup_id)):
            backup_id = backup_id.later()
        path = self.path / f".{backup_id}{_PARTIAL}"
        try:
            path.mkdir(mode=0o700)
            path.chmod(0o700)
        except OSError as error:
            raise self._unusable(error) from error
        try:
            yield Staging(backup_id, path, self.path / str(backup_id))
        finally:
            if os.path.lexists(path):
                remove_tree(path)

    def _make(self) -> None:
        try:
            if not self.path.exists():
                self.path.mkdir(mode=0o700, parents=True)
                self.path.chmod(0o700)
            if not stat.S_ISDIR(self.path.stat().st_mode):
                raise StoreError(
                    f"the backup path {self.path} is not a directory",
                    hint="Set another one: `backup.path` in gitlab.yml, or --backup-path.",
                )
        except OSError as error:
            raise self._unusable(error) from error

    def _unusable(self, error: OSError) -> StoreError:
        return StoreError(
            f"the backup path {self.path} cannot be used: {error.strerror}",
            hint="Check its owner and mode, or set another one: `backup.path` in gitlab.yml, or --backup-path.",
        )

    def _locked(self, holder: dict[str, object]) -> LockedError:
        who = "{operation} (pid {pid}, since {since})".format(**holder) if holder else "another process"
        return LockedError(
            f"the backup path {self.path} is locked by {who}",
            hint="Wait until it has finished. The lock ends with its process; there is nothing to remove by hand.",
        )


@frozen
class Staging:
    """A backup that grows, hidden, beside the place where it will be published."""

    backup_id: BackupId
    path: Path
    target: Path

    def publish(self) -> None:
        """Make the backup visible: everything in it is on disk before, the new name is after. Raises `StreamError`."""
        sync_tree(self.path)
        publish(self.path, self.target)


def _flock(descriptor: int) -> bool:
    """Take the lock, if it is free.

    A process that is killed while it starts a child leaves the lock to that child until it has become another program:
    a moment later it is free. So a holder that is dead is waited for.
    """
    for _ in range(_PATIENCE):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if _lives(_holder(descriptor).get("pid")):
                return False
            time.sleep(_MOMENT)
        else:
            return True
    return False


def _holder(descriptor: int) -> dict[str, object]:
    """Return what the holder of a lock says of itself; nothing where it has not said it yet."""
    try:
        holder = json.loads(os.pread(descriptor, 4096, 0))
        return {key: holder[key] for key in ("operation", "pid", "since")}
    except (ValueError, KeyError, TypeError):
        return {}


def _lives(pid: object) -> bool:
    try:
        os.kill(pid if isinstance(pid, int) and pid > 0 else os.getpid(), 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _as_backup_id(name: str) -> BackupId | None:
    try:
        return BackupId.parse(name)
    except MetadataError:
        return None


def _is_staging(name: str) -> bool:
    return name.startswith(".") and name.endswith(_PARTIAL) and _as_backup_id(name[1 : -len(_PARTIAL)]) is not None


def _has_metadata(directory: Path) -> bool:
    try:
        Metadata.read(directory)
    except (MetadataError, StoreError):
        return False
    return True
