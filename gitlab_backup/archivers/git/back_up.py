"""Writing one repository into a backup: all of its files, or none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen

from ...errors import CorruptStreamError, ProgramError
from .files import Files
from .increment import NothingSharedError, write_increment
from .quick import quick_refs
from .repository import LocalRepository
from .writing import Outcome, Writing

if TYPE_CHECKING:
    from pathlib import Path

    from ...instance.repositories import Repository
    from ...streams.accounts import Account
    from ..base import BackupJob
    from .increments import Base
    from .program import Git

__all__ = ["Outcome", "StorageOnDisk", "back_up_repository"]


@frozen(kw_only=True)
class StorageOnDisk:
    """A repository storage of this machine."""

    name: str
    path: Path
    account: Account | None
    """The user to run git as; None for the one that this process runs as."""


def back_up_repository(
    job: BackupJob, git: Git, repository: Repository, storage: StorageOnDisk, base: Base | None = None
) -> Outcome:
    """Write `repository` into the backup of `job`. Where that fails, nothing of it is left there.

    With `base`, it is an increment on what that has of it, if that is anything to build on.

    Raises `ComponentError`, `ProgramError` or `OSError` for what is wrong with this repository, and `StreamError` where
    the backup cannot be written.
    """
    local = LocalRepository(
        path=f"{storage.path}/{repository.relative_path}",
        account=storage.account,
        git=git,
        cancel=job.cancel,
        spool_directory=job.root,
    )
    with Files.of(job, repository) as files:
        quick = quick_refs(local.path)
        writing = Writing(job=job, repository=repository, local=local, files=files, quick=quick)
        if quick is None and not local.exists():
            return writing.missing(base)
        return _incremental(writing, base) or writing.full()


def _incremental(writing: Writing, base: Base | None) -> Outcome | None:
    """Write an increment; return None where it is better to begin anew."""
    if base is None:
        return None
    try:
        earlier = base.earlier(writing.repository.storage, writing.repository.relative_path)
        return None if earlier is None else write_increment(writing, earlier)
    except CorruptStreamError as error:
        writing.warn(f"the backup {base.backup_id} is damaged, so this is backed up in full: {error}")
    except (NothingSharedError, ProgramError):
        # Or only a part of what refs led to is left: git cannot leave out what it does not find.
        pass
    writing.files.discard()
    return None
