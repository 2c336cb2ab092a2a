"""The list of all repositories of a backup, kept on disk, and the storages that they are on."""

from __future__ import annotations

import json
import tempfile
import threading
from collections import Counter
from typing import IO, TYPE_CHECKING, Final

from attrs import define, field

from ...errors import ComponentError, StreamError
from ...instance.repositories import Repository, RepositoryKind, list_repositories
from .back_up import StorageOnDisk
from .layout import RESERVED
from .program import account_for

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from ...instance import Database, Instance, Storage
    from ...instance.selection import Selection
    from ...streams.cancel import Cancellation
    from ..base import BackupJob

_IN_MEMORY: Final = 1 << 20


@define
class Listing:
    """All repositories that a database lists, in a file without a name: the transaction ends before work begins.

    May be iterated over by several threads at once; each repository goes to one of them. Close it when done.
    """

    _file: IO[str]
    storages: Counter[str] = field(factory=Counter)
    """How many repositories are listed on each storage."""
    rejected: list[str] = field(factory=list)
    """Rows that name no usable place, with the reason."""
    _lock: threading.Lock = field(factory=threading.Lock)

    @classmethod
    def of(
        cls, database: Database, *, directory: Path, cancel: Cancellation, within: Iterable[Selection] = ()
    ) -> Listing:
        """List those that are in every selection of `within`.

        Raises `DatabaseError`, and `StreamError` where `directory` cannot hold the list.
        """
        file = tempfile.SpooledTemporaryFile(_IN_MEMORY, mode="w+", encoding="utf-8", dir=str(directory))  # noqa: SIM115
        listing = cls(file)
        try:
            for repository in list_repositories(database, rejected=listing.rejected.append, within=within):
                cancel.check()
                listing.storages[repository.storage] += 1
                values = repository.storage, repository.relative_path, repository.project_path, repository.kind.value
                file.write(json.dumps(values) + "\n")
            file.seek(0)
        except OSError as error:
            file.close()
            raise StreamError(f"the list of repositories cannot be kept in {directory}: {error.strerror}") from error
        except BaseException:
            file.close()
            raise
        return listing

    def __iter__(self) -> Iterator[Repository]:
        while True:
            with self._lock:
                line = self._file.readline()
            if not line:
                return
            storage, relative_path, project_path, kind = json.loads(line)
            yield Repository(
                storage=storage, relative_path=relative_path, project_path=project_path, kind=RepositoryKind(kind)
            )

    def close(self) -> None:
        """Let go of it."""
        self._file.close()


def listing_of(job: BackupJob) -> Listing:
    """List what a backup is about. Raises what `Listing.of` does."""
    chosen = job.repositories.selection
    listing = Listing.of(job.instance.databases[0], directory=job.root, cancel=job.cancel, within=(chosen,))
    if chosen and not listing.storages and not listing.rejected:
        job.warn(f"there are no repositories {chosen}")
    return listing


def storages_on_disk(instance: Instance, listed: Counter[str]) -> dict[str, StorageOnDisk]:
    """Return the storages that repositories are listed on.

    Raises `ComponentError` where one of them is not on this machine, or holds its repositories in a way that only
    Gitaly knows.
    """
    configured = {storage.name: storage for storage in instance.storages}
    return {
        name: storage_on_disk(
            name, configured.get(name), f"the storage {name!r}, on which the database lists {count} repositories,"
        )
        for name, count in sorted(listed.items())
    }


_GITALY: Final = "Use the archiver gitaly, which asks Gitaly for them."


def storage_on_disk(name: str, storage: Storage | None, named: str, *, may_be_empty: bool = False) -> StorageOnDisk:
    """Return a storage that is on this machine; `named` is what errors call it.

    Raises `ComponentError`, as `storages_on_disk` does.
    """
    if storage is None:
        raise ComponentError(
            f"{named} is not configured", hint="Add it to repositories.storages in gitlab.yml, or move them off it."
        )
    if name in RESERVED or name in {".", ".."} or "/" in name or not name.isprintable():
        raise ComponentError(f"{named} has a name that no directory of a backup can have")
    if storage.path is None:
        raise ComponentError(f"{named} has no path on this machine", hint=f"Its Gitaly is elsewhere. {_GITALY}")
    path = storage.path
    try:
        with_content = any(path.iterdir())
    except OSError as error:
        raise ComponentError(
            f"{named} cannot be read at {path}: {error.strerror}",
            hint=f"Mount it, or, if its Gitaly is on another machine: {_GITALY}",
        ) from error
    if not with_content and not may_be_empty:
        # Gitaly leaves files of its own in a storage when it starts, so this one it has never seen.
        raise ComponentError(
            f"{named} is an empty directory: {path}",
            hint=f"Mount it, or, if its Gitaly is on another machine: {_GITALY}",
        )
    if (path / "@cluster").is_dir():
        raise ComponentError(f"{named} belongs to a Gitaly Cluster (there is {path / '@cluster'})", hint=_GITALY)
    if (wal := _write_ahead_log(path)) is not None:
        raise ComponentError(
            f"{named} uses transactions: what was pushed last may be only in {wal}, which git cannot read",
            hint=f"{_GITALY} If transactions are switched off, and that directory is a leftover, move it away.",
        )
    return StorageOnDisk(name=name, path=path, account=account_for(path))


def _write_ahead_log(storage: Path) -> Path | None:
    """Return a write-ahead log of Gitaly's partitions (Gitaly, `doc/transactions.md`), where there is one."""
    partitions = storage / "+gitaly" / "partitions"
    for pattern in ("wal", "*/wal", "*/*/wal", "*/*/*/wal"):
        for found in partitions.glob(pattern):
            return found
    return None
