"""Delete the backups that no rule keeps.

Only what is known to be a whole backup counts, and only that is ever deleted by a rule. Everything else is named, and
left alone: a rule that deletes what it does not understand is worth less than the space.
"""

from __future__ import annotations

import os
from contextlib import suppress
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING

from attrs import evolve, field, frozen

from ..backup_id import BackupId
from ..checksums import Checksums
from ..errors import DocumentError, RefusedError, StoreError, StreamError
from ..events import BackupDeleted, Noticed, Status, ignore
from ..manifest import Manifest
from ..metadata import Metadata
from ..retention import Reason, Rules, decide
from ..streams.cancel import Cancellation
from .journal import JOURNAL_NAME
from .progress import Progress
from .run import Telling

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ..events import Observer
    from ..store import BackupStore

_END_OF_TAR = bytes(1024)
"""A tar archive ends with two blocks of zeros. GNU tar manual, section "Basic Tar Format"."""


class Kind(StrEnum):
    """What is left alone. The values are those of `prune --json`."""

    INCOMPLETE = "incomplete"
    """A component of it has failed, or a document or a file of it is missing or damaged."""
    PARTIAL = "partial"
    """It was made with a selection, so it is not a backup of the whole instance."""
    UNVERIFIED = "unverified"
    """Made by GitLab's own tool: nothing says whether it is complete."""
    UNFINISHED = "unfinished"
    """A backup that grows, or has grown until its run was killed."""
    FOREIGN = "foreign"
    """It is neither a backup nor of this tool."""


@frozen(kw_only=True)
class PruneOptions:
    """What to delete."""

    rules: Rules | None = None
    """None: no rule deletes anything."""
    legacy: bool = False
    """Whether the rules are for the backups of GitLab's Rake task, too. These are counted by themselves: one of them
    never stands for a backup of this tool, nor the other way round."""
    incomplete: bool = False
    """Whether to remove what killed backups have left. Not a matter of rules."""
    dry_run: bool = False
    new: str | None = None
    """The id of the backup that the same run has made. It stays, and without it nothing is deleted."""
    owner: str | None = None
    """GitLab's system user, to whom the backup path may belong."""
    insecure_store: bool = False
    """Whether others may be able to write to the backup path."""


@frozen(kw_only=True)
class Candidate:
    """A whole backup, and why it stays; `reasons` is empty where it is deleted."""

    name: str
    """The backup's id; of a backup of the Rake task, the name of its file."""
    path: Path
    created_at: datetime
    legacy: bool = False
    reasons: tuple[Reason, ...] = ()
    size_bytes: int = 0
    """The sum of the sizes of its files. Measured where it is deleted, else 0."""


@frozen(kw_only=True)
class LeftAlone:
    """Something that no rule deletes."""

    name: str
    path: Path
    kind: Kind
    reason: str


@frozen(kw_only=True)
class Pruned:
    """What was done, or, with `dry_run`, what would be."""

    path: Path
    dry_run: bool
    rules: Rules | None
    kept: tuple[Candidate, ...] = ()
    """Oldest first; those of the Rake task after the others."""
    deleted: tuple[Candidate, ...] = ()
    left_alone: tuple[LeftAlone, ...] = ()
    remains: tuple[str, ...] = ()
    """What killed runs had left, and was removed: hidden names."""
    legacy_files: int = 0
    """How many whole backups of the Rake task there were, whether the rules are for them or not."""
    legacy_bytes: int = 0


def prune(
    store: BackupStore,
    options: PruneOptions,
    *,
    now: datetime | None = None,
    observer: Observer = ignore,
    cancel: Cancellation | None = None,
) -> Pruned:
    """Delete the backups that no rule keeps, oldest first; `now` is for tests.

    Each is there in full or gone, whenever the run ends: what a killed one leaves is hidden, and the next run removes
    it. Raises `CancelledError`, between two deletions or within one; `LockedError`; `RefusedError` where an interrupted
    restore must be put back before, where `new` is not a complete backup, or where others can write to the backup path
    (they could have any backup stand for a newer one); `StoreError` where some could not be deleted, after all others
    were.
    """
    cancel, tell = cancel or Cancellation(), Telling(observer)
    if not options.insecure_store:
        store.check_private(*([options.owner] if options.owner else []))
    if options.dry_run or not os.path.lexists(store.path):  # the lock would make the directory
        return _plan(store, options, now or datetime.now(UTC), cancel)
    with store.lock("prune") as lock:
        tell.also(Progress(lock.tell))
        _refuse_to_interfere(store)
        check = cancel.check
        remains = store.remove_dead_staging(check=check) if options.incomplete else store.remove_remains(check=check)
        for name in remains:
            tell(Noticed(f"removed {name}, which an interrupted run has left"))
        planned = _plan(store, options, now or datetime.now(UTC), cancel)
        failures = []
        for each in planned.deleted:
            check()
            try:
                store.remove(each.name, check=check)
            except StreamError as error:
                failures.append(error)
            else:
                tell(BackupDeleted(each.name, each.path, each.size_bytes))
    if failures:
        raise StoreError(
            "\n  - ".join(("not everything could be deleted:", *map(str, failures))), hint=failures[0].hint
        )
    return evolve(planned, remains=remains)


def _refuse_to_interfere(store: BackupStore) -> None:
    journal = store.path / JOURNAL_NAME
    if os.path.lexists(journal):
        raise RefusedError(
            f"an interrupted restore has left {journal}: nothing is deleted before it is put back",
            hint="The next backup or restore puts it back: `gitlab-backup-cli restore all latest --dry-run`.",
        )


def _plan(store: BackupStore, options: PruneOptions, now: datetime, cancel: Cancellation) -> Pruned:
    """Decide on everything in the store. Changes nothing."""
    found = _Found.of(store, cancel)
    if options.new is not None and options.new not in {each.name for each in found.backups}:
        why = next((each.reason for each in found.left_alone if each.name == options.new), "it is not there")
        raise RefusedError(
            f"nothing was deleted: the new backup {options.new} does not count as complete: {why}",
            hint="Prune after a complete backup of everything.",
        )
    pinned = store.pinned()
    judged: list[Candidate] = []
    for candidates in (found.backups, found.legacy if options.legacy else ()):
        times = {each.name: each.created_at for each in candidates}
        if options.rules is not None:
            reasons = decide(times, options.rules, now, pinned=pinned, new=options.new)
            judged += (evolve(each, reasons=reasons[each.name]) for each in candidates)
    return Pruned(
        path=store.path,
        dry_run=options.dry_run,
        rules=options.rules,
        kept=tuple(each for each in judged if each.reasons),
        deleted=tuple(evolve(each, size_bytes=size_of(each.path)) for each in judged if not each.reasons),
        left_alone=tuple(
            each for each in found.left_alone if not (options.incomplete and each.kind is Kind.UNFINISHED)
        ),
        remains=(*(store.staged() if options.incomplete else ()), *store.remains()),
        legacy_files=len(found.legacy),
        legacy_bytes=sum(size_of(each.path) for each in found.legacy),
    )


@frozen
class _Found:
    """What lies in a store: whole backups, oldest first, and the rest."""

    backups: list[Candidate] = field(factory=list)
    legacy: list[Candidate] = field(factory=list)
    left_alone: list[LeftAlone] = field(factory=list)

    @classmethod
    def of(cls, store: BackupStore, cancel: Cancellation) -> _Found:
        found = cls()
        for name in store.ids():
            cancel.check()
            path = store.path / name
            if (flaw := why_not_whole(path)) is None:
                found.backups.append(Candidate(name=name, path=path, created_at=BackupId.parse(name).created_at))
            else:
                found.left_alone.append(LeftAlone(name=name, path=path, kind=flaw[0], reason=flaw[1]))
        for name, at in store.legacy().items():
            path = store.path / name
            if _ends_like_tar(path):
                found.legacy.append(Candidate(name=name, path=path, created_at=at, legacy=True))
            else:
                reason = "does not end as a tar archive does: it is cut short, or still being written"
                found.left_alone.append(LeftAlone(name=name, path=path, kind=Kind.INCOMPLETE, reason=reason))
        unfinished = "is being made, or was interrupted; `prune --incomplete` removes it once nothing works on it"
        for names, kind, reason in (
            (store.staged(), Kind.UNFINISHED, unfinished),
            (store.foreign(), Kind.FOREIGN, "is not a backup"),
        ):
            found.left_alone.extend(
                LeftAlone(name=name, path=store.path / name, kind=kind, reason=reason) for name in names
            )
        return found


def why_not_whole(path: Path) -> tuple[Kind, str] | None:
    """Say why a directory with the name of a backup is not a whole one, as far as can be seen without reading it all.

    A backup that is complete with warnings is whole, as long as no component of it has failed: files that vanish or
    change while they are read are every day's business.
    """
    try:
        metadata, manifest, checksums = Metadata.read(path), Manifest.read(path), Checksums.read(path)
    except (DocumentError, StoreError) as error:
        return Kind.INCOMPLETE, error.message.replace("\n  - ", ": ", 1).replace("\n  - ", "; ")
    if manifest is not None and checksums is not None:
        return _flaw_by_documents(path, metadata, manifest, checksums)
    if manifest is None and checksums is None:
        return Kind.UNVERIFIED, "was made by GitLab's own tool, which does not say whether it is complete"
    return Kind.INCOMPLETE, f"{(Manifest if manifest is None else Checksums).FILE_NAME} is missing"


def _flaw_by_documents(
    path: Path, metadata: Metadata, manifest: Manifest, checksums: Checksums
) -> tuple[Kind, str] | None:
    if {metadata.backup_id, manifest.backup_id} != {path.name}:
        other = metadata.backup_id if metadata.backup_id != path.name else manifest.backup_id
        return Kind.INCOMPLETE, f"has documents of the backup {other}: it has another name, or was mixed up"
    if failed := [record.id for record in manifest.components if record.status is Status.FAILED]:
        return Kind.INCOMPLETE, f"failed: {', '.join(failed)}"
    if manifest.partial:
        return Kind.PARTIAL, "is not a backup of everything"
    # Somebody may have begun to delete it by hand.
    missing = next((name for name in checksums if not os.path.lexists(path / name)), None)
    return None if missing is None else (Kind.INCOMPLETE, f"{missing} is missing")


def _ends_like_tar(path: Path) -> bool:
    """Return whether a file ends as a tar archive does: the Rake task writes under the final name."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            if size < len(_END_OF_TAR) or size % 512:
                return False
            file.seek(-len(_END_OF_TAR), os.SEEK_END)
            return file.read() == _END_OF_TAR
    except OSError:
        return False


def size_of(path: Path) -> int:
    """Return the sum of the sizes of the files below a directory, or of a file, in bytes. What vanishes has none."""
    size = 0
    for each in _files(path):
        with suppress(FileNotFoundError):  # a dry run has no lock: somebody may be deleting it
            size += each.lstat().st_size
    return size


def _files(path: Path) -> Iterator[Path]:
    if not path.is_dir():
        yield path
    for directory, _, names in os.walk(path):
        yield from (path.joinpath(directory, name) for name in names)
