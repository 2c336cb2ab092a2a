"""The backup path: what lies in it, who may work in it, and how a backup appears in it."""

from __future__ import annotations

import fcntl
import json
import os
import pwd
import re
import stat
import time
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import define, field, frozen

from .backup_id import BackupId
from .errors import BackupNotFoundError, LockedError, MetadataError, RefusedError, StoreError
from .metadata import Metadata
from .streams.files import FileSink, publish, remedy, remove_durably, remove_tree, sync_directory, sync_tree
from .streams.system import system

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

LOCK_NAME = ".gitlab-backup.lock"
LATEST = "latest"
_PARTIAL = ".partial"
_DELETED = ".deleted"
_PINNED = ".pinned"
_OWN = ".gitlab-"
"""What this tool keeps in the backup path for itself begins so: its lock, the journal of a restore."""
_LEGACY = re.compile(
    r"([0-9]{10})(?:_[0-9]{4}_[0-9]{2}_[0-9]{2}(?:_[0-9]+\.[0-9]+\.[0-9]+[0-9A-Za-z.+~-]*)?)?_gitlab_backup\.tar"
)
"""A backup of the Rake task, as the task itself knows those that it prunes: other names are of `BACKUP=name`."""
_LARGEST = 1 << 16
"""Bytes of what a lock is told."""
_LOCK = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
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
        for entry in self._entries():
            backup_id = _as_backup_id(entry.name)
            if backup_id is not None and entry.is_dir(follow_symlinks=False):
                found.append(backup_id)
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

    def check_private(self, *owners: str) -> None:
        """Make sure that nobody can write here but root, this user and the users `owners`. It need not exist.

        Whoever can could read backups while they are made, and have others restored. Raises `RefusedError`.
        """
        try:
            status = self.path.stat()
        except FileNotFoundError:
            return
        except OSError as error:
            raise self._unusable(error) from error
        hint = (
            "Mend that, or give --insecure-store if all who can write there may see and replace all of GitLab's data."
        )
        if status.st_uid not in {0, os.geteuid(), *_uids(owners)}:
            raise RefusedError(f"the backup path {self.path} belongs to another user ({status.st_uid})", hint=hint)
        if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            mode = stat.S_IMODE(status.st_mode)
            raise RefusedError(f"others can write to the backup path {self.path} (mode {mode:04o})", hint=hint)

    @contextmanager
    def lock(self, operation: str) -> Iterator[Lock]:
        """Hold the store for an operation that changes it, or the instance. Makes the directory (0700) if need be.

        Others see by `running` what the lock is told. Raises `LockedError`, which names the holder, and `StoreError`
        where the path cannot be used.
        """
        self._make()
        try:
            descriptor = system().open(self.path / LOCK_NAME, _LOCK, 0o600)
        except OSError as error:
            raise self._unusable(error) from error
        try:
            if not _flock(descriptor):
                raise self._locked(_holder(descriptor))
            holder = {"operation": operation, "pid": os.getpid(), "since": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"}
            os.ftruncate(descriptor, 0)
            lock = Lock(descriptor, holder)
            lock.tell({})
            try:
                yield lock
            finally:
                os.ftruncate(descriptor, 0)
        finally:
            os.close(descriptor)

    def running(self) -> dict[str, object] | None:
        """Return what the running operation says of itself (`operation`, `pid`, `since`); None where none runs.

        `progress` is there too where the operation has told how far it is, see `operations.progress`.

        The lock is not touched, so nobody is disturbed. What runs on another machine is not seen.
        """
        try:
            descriptor = os.open(self.path / LOCK_NAME, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            # While it is written, it may be read in parts.
            holder = _holder(descriptor)
            for _ in range(_PATIENCE):
                if holder or os.fstat(descriptor).st_size == 0:
                    break
                time.sleep(_MOMENT / 10)
                holder = _holder(descriptor)
        finally:
            os.close(descriptor)
        return holder if holder and _lives(holder["pid"]) else None

    def legacy(self) -> dict[str, datetime]:
        """Return the backups of GitLab's Rake task here, oldest first: names of files, and when they were made."""
        found = {}
        for entry in self._entries():
            match = _LEGACY.fullmatch(entry.name)
            if match is not None and entry.is_file(follow_symlinks=False):
                found[entry.name] = datetime.fromtimestamp(int(match[1]), UTC)
        return dict(sorted(found.items(), key=lambda item: (item[1], item[0])))

    def find(self, name: str) -> Path:
        """Return what `open` returns, or the file of the Rake task of that name. Raises `BackupNotFoundError`."""
        return self.path / name if name in self.legacy() else self.open(name)

    def staged(self) -> tuple[str, ...]:
        """Return the names of the directories in which a backup grows, or has grown until its run was killed."""
        return tuple(sorted(entry.name for entry in self._entries() if _is_hidden(entry.name, _PARTIAL)))

    def remains(self) -> tuple[str, ...]:
        """Return the hidden names of what was to be deleted when its run was killed."""
        return tuple(sorted(entry.name for entry in self._entries() if _is_hidden(entry.name, _DELETED)))

    def foreign(self) -> tuple[str, ...]:
        """Return the names of everything here that is neither a backup nor of this tool."""
        own = {*self.ids(), *self.legacy(), *self.staged(), *self.remains(), *map(_pin, self.pinned())}
        names = (entry.name for entry in self._entries())
        return tuple(sorted(name for name in names if name not in own and not name.startswith(_OWN)))

    def pinned(self) -> frozenset[str]:
        """Return the names of what is pinned. One whose backup is not there stays pinned, should it come back."""
        hidden = (entry.name for entry in self._entries() if _is_hidden(entry.name, _PINNED))
        return frozenset(name[1 : -len(_PINNED)] for name in hidden)

    def pin(self, name: str) -> str:
        """Protect a backup from being pruned, by its id, or the name of its file if it is one of the Rake task.

        A file beside the backup says so, not one in it: nothing that its digests vouch for changes. It is on disk when
        this returns. Returns the name, which is another one for `latest`. Raises `BackupNotFoundError`, `LockedError`
        and `StreamError`.
        """
        self.find(name)  # before the lock, which would make a backup path that does not exist
        with self.lock("pin"):
            found = self.find(name).name
            # An empty file is whole as soon as it is there.
            if found not in self.pinned():
                FileSink(self.path / _pin(found)).finish()
            sync_directory(self.path)
        return found

    def unpin(self, name: str) -> str:
        """Take back `pin`; nothing happens where it was not pinned. Returns and raises what `pin` does."""
        if name not in self.pinned():
            self.find(name)
        with self.lock("unpin"):
            found = name if name in self.pinned() else self.find(name).name
            remove_durably(self.path / _pin(found))
        return found

    def remove(self, name: str, *, check: Callable[[], None] = lambda: None) -> None:
        """Delete a backup, or one of the Rake task. To be called under the lock.

        It is there in full, or it is gone: it gets a hidden name, on disk, and only then is taken apart. What `check`,
        which is called now and then, interrupts, and what a killed run leaves, is for `remove_remains`.

        Raises `BackupNotFoundError` and `StreamError`.
        """
        path = self.find(name)
        hidden = path.with_name(f".{path.name}{_DELETED}")
        remove_tree(hidden, check=check)
        publish(path, hidden)
        remove_tree(hidden, check=check)

    def remove_remains(self, *, check: Callable[[], None] = lambda: None) -> tuple[str, ...]:
        """Remove what killed deletions have left, and return the names. To be called under the lock."""
        return self._remove_hidden(self.remains(), check)

    def remove_dead_staging(self, *, check: Callable[[], None] = lambda: None) -> tuple[str, ...]:
        """Remove what killed runs have left, and return the names. To be called under the lock: all of it is dead."""
        return self._remove_hidden((*self.staged(), *self.remains()), check)

    def _remove_hidden(self, names: tuple[str, ...], check: Callable[[], None]) -> tuple[str, ...]:
        for name in names:
            remove_tree(self.path / name, check=check)
        return names

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
            system().mkdir(path, 0o700)
            path.chmod(0o700)
        except OSError as error:
            raise self._unusable(error) from error
        try:
            yield Staging(backup_id, path, self.path / str(backup_id))
        finally:
            if os.path.lexists(path):
                remove_tree(path)

    def _entries(self) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(self.path) as entries:
                return list(entries)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise self._unusable(error) from error

    def _make(self) -> None:
        try:
            if not self.path.exists():
                self.path.mkdir(mode=0o700, parents=True)
                self.path.chmod(0o700)
            if not self.path.is_dir():
                raise StoreError(
                    f"the backup path {self.path} is not a directory",
                    hint="Set another one: `backup.path` in gitlab.yml, or --backup-path.",
                )
        except OSError as error:
            raise self._unusable(error) from error

    def _unusable(self, error: OSError) -> StoreError:
        own = "Check its owner and mode, or set another one: `backup.path` in gitlab.yml, or --backup-path."
        hint = own if isinstance(error, PermissionError) else remedy(error) or own
        return StoreError(f"the backup path {self.path} cannot be used: {error.strerror}", hint=hint)

    def _locked(self, holder: dict[str, object]) -> LockedError:
        who = "{operation} (pid {pid}, since {since})".format(**holder) if holder else "another process"
        return LockedError(
            f"the backup path {self.path} is locked by {who}",
            hint="Wait until it has finished. The lock ends with its process; there is nothing to remove by hand.",
        )


@define
class Lock:
    """A lock that is held. What it is told can be read by others, and dies with it."""

    _descriptor: int
    _holder: dict[str, object]
    _size: int = 4095
    """Bytes of what it was told, but for the end of the line: a block, so that the file seldom grows."""

    def tell(self, progress: Mapping[str, object]) -> None:
        """Tell others how far the operation is.

        One write in place, as long as the longest before, so that a reader finds one document. Nothing depends on it:
        on a full disk, pruning must be possible all the same, so that failures are of no account.
        """
        told = {"progress": dict(progress)} if progress else {}
        data = json.dumps({**self._holder, **told}).encode().ljust(self._size) + b"\n"
        if len(data) <= _LARGEST:
            with suppress(OSError):
                os.pwrite(self._descriptor, data, 0)
                self._size = len(data) - 1


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


def _uids(users: Iterable[str]) -> Iterator[int]:
    for user in users:
        with suppress(KeyError):
            yield pwd.getpwnam(user).pw_uid


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
    """Return what the holder of a lock says of itself; nothing where it has not said it yet, or in no such words."""
    try:
        holder = json.loads(os.pread(descriptor, _LARGEST, 0))
        told = {"progress": holder["progress"]} if "progress" in holder else {}
        return {key: holder[key] for key in ("operation", "pid", "since")} | told
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}


def _lives(pid: object) -> bool:
    try:
        os.kill(pid if isinstance(pid, int) and pid > 0 else os.getpid(), 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        pass
    return True


def _as_backup_id(name: str) -> BackupId | None:
    try:
        return BackupId.parse(name)
    except MetadataError:
        return None


def _is_hidden(name: str, suffix: str) -> bool:
    """Return whether this is the hidden name of a backup. Only such are ours: others may be somebody's."""
    if not (name.startswith(".") and name.endswith(suffix)):
        return False
    inner = name[1 : -len(suffix)]
    return _as_backup_id(inner) is not None or _LEGACY.fullmatch(inner) is not None


def _pin(name: str) -> str:
    return f".{name}{_PINNED}"


def _has_metadata(directory: Path) -> bool:
    try:
        Metadata.read(directory)
    except (MetadataError, StoreError):
        return False
    return True
