"""The figures of a report: what the documents of all backups say, and what the rules of retention make of each.

Plain data, gathered from documents alone: no file of a component is read.
"""

from __future__ import annotations

import hashlib
import os
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING

from attrs import frozen

from ..backup_id import BackupId
from ..checksums import MAX_SIZE, Checksums
from ..components import COMPONENTS
from ..documents import read_bytes
from ..errors import BackupNotFoundError, ChecksumsError, DocumentError, StoreError
from ..events import Status
from ..instance.selection import Selection
from ..manifest import FILTER, Manifest
from .contents import is_of
from .prune import Kind, PruneOptions, prune, size_of

if TYPE_CHECKING:
    from pathlib import Path

    from ..manifest import ComponentRecord
    from ..retention import Reason, Rules
    from ..store import BackupStore
    from ..streams.cancel import Cancellation
    from .prune import LeftAlone

_ENTRIES = ("members", "repositories", "databases")
"""Where the details of a component say how much it has."""
_MOST_FILES = 40
"""A component with more files than this has its digests counted, not listed."""


class Fate(StrEnum):
    """What `prune` would do."""

    KEPT = "kept"
    DELETED = "deleted"
    LEFT_ALONE = "left alone"
    """It is no whole backup: no rule is for it."""
    UNDECIDED = "undecided"
    """There are no rules, or none for this kind."""


@frozen(kw_only=True)
class BackupFigures:
    """A backup, as its documents have it."""

    id: str
    path: Path
    created_at: datetime
    """The time of its id, in UTC."""
    size_bytes: int
    """The bytes of its components, as its manifest says; without one, of its files."""
    manifest: Manifest | None
    """None for a backup of GitLab's own tool, and where it cannot be understood."""
    fate: Fate
    reasons: tuple[Reason, ...] = ()
    """The rules that keep it."""
    kind: Kind | None = None
    """What is left alone; None for a whole backup."""
    flaw: str | None = None
    """Why it is left alone."""
    pinned: bool = False

    @property
    def done(self) -> tuple[ComponentRecord, ...]:
        """The components that are in it."""
        records = self.manifest.components if self.manifest is not None else ()
        return tuple(record for record in records if record.status in {Status.COMPLETE, Status.WARNING})

    @property
    def left_out(self) -> tuple[ComponentRecord, ...]:
        """The components that are not in it: they were skipped, or have failed."""
        records = self.manifest.components if self.manifest is not None else ()
        return tuple(record for record in records if record.status in {Status.SKIPPED, Status.FAILED})

    @property
    def warnings(self) -> tuple[tuple[str | None, str], ...]:
        """What it warns of, with the id of the component; None for the run as a whole."""
        if self.manifest is None:
            return ()
        of_components = [(each.id, text) for each in self.manifest.components for text in each.warnings]
        return (*((None, text) for text in self.manifest.warnings), *of_components)

    @property
    def duration_seconds(self) -> float | None:
        """How long the run took; None where nothing says so."""
        if self.manifest is None:
            return None
        # The clock may have been set back meanwhile.
        return max((self.manifest.finished_at - self.manifest.started_at).total_seconds(), 0)

    @property
    def bytes_read(self) -> int:
        """The bytes of the sources of its components."""
        return sum(record.bytes_read for record in self.done)

    @property
    def ratio(self) -> float | None:
        """How many bytes of the sources became one byte of the backup; None where there are none."""
        return ratio(self.bytes_read, sum(record.bytes_written for record in self.done))


@frozen(kw_only=True)
class LegacyFigures:
    """A file of GitLab's Rake task."""

    name: str
    created_at: datetime
    size_bytes: int
    fate: Fate
    reasons: tuple[Reason, ...] = ()
    pinned: bool = False


@frozen(kw_only=True)
class Report:
    """What lies in a backup path."""

    path: Path
    made_at: datetime
    rules: Rules | None
    backups: tuple[BackupFigures, ...] = ()
    """Oldest first."""
    legacy: tuple[LegacyFigures, ...] = ()
    """Those that end as a backup of the Rake task does, oldest first."""
    others: tuple[LeftAlone, ...] = ()
    """What is neither: being made, cut short, or foreign."""
    remains: tuple[str, ...] = ()
    """Hidden names of what was being deleted when its run was killed."""

    @property
    def whole(self) -> tuple[BackupFigures, ...]:
        """The whole backups, oldest first."""
        return tuple(each for each in self.backups if each.kind is None)

    def backup(self, backup_id: str) -> BackupFigures:
        """Return a backup. Raises `BackupNotFoundError`: it may have been deleted since it was looked for."""
        for each in self.backups:
            if each.id == backup_id:
                return each
        raise BackupNotFoundError(f"there is no backup {backup_id} in {self.path}")


@frozen(kw_only=True)
class DigestGroup:
    """The digests of the files of a component; `component` is None for what belongs to none."""

    component: str | None
    count: int
    files: tuple[tuple[str, str], ...]
    """Names, relative to the backup, and SHA-256; nothing where there are too many to list."""


@frozen(kw_only=True)
class Digests:
    """What `SHA256SUMS` of a backup says."""

    sha256: str
    """The SHA-256 of the file itself, which vouches for all others."""
    groups: tuple[DigestGroup, ...]


def gather(
    store: BackupStore,
    rules: Rules | None,
    *,
    legacy: bool = False,
    now: datetime | None = None,
    cancel: Cancellation | None = None,
) -> Report:
    """Look at everything in a backup path; with `legacy`, the rules are for files of the Rake task, too.

    Changes nothing, and needs no lock. Raises `CancelledError` and `StoreError`.
    """
    now = now or datetime.now(UTC)
    ids, files = store.ids(), store.legacy()  # first: what appears meanwhile, no rule has judged
    options = PruneOptions(rules=rules, legacy=legacy, dry_run=True, insecure_store=True)
    planned = prune(store, options, now=now, cancel=cancel)
    reasons = {each.name: each.reasons for each in (*planned.kept, *planned.deleted)}
    left_alone = {each.name: each for each in planned.left_alone}
    pinned = store.pinned()

    def fate(name: str) -> Fate:
        if name in left_alone:
            return Fate.LEFT_ALONE
        return (Fate.KEPT if reasons[name] else Fate.DELETED) if name in reasons else Fate.UNDECIDED

    backups = []
    for name in ids:
        if cancel is not None:
            cancel.check()
        path, flaw = store.path / name, left_alone.get(name)
        if not path.is_dir():
            continue  # somebody has deleted it
        manifest = _manifest(path)
        written = None if manifest is None else sum(record.bytes_written for record in manifest.components)
        figures = BackupFigures(
            id=name,
            path=path,
            created_at=BackupId.parse(name).created_at,
            size_bytes=size_of(path) if written is None else written,
            manifest=manifest,
            fate=fate(name),
            reasons=reasons.get(name, ()),
            kind=None if flaw is None else flaw.kind,
            flaw=None if flaw is None else flaw.reason,
            pinned=name in pinned,
        )
        backups.append(figures)
    return Report(
        path=store.path,
        made_at=now,
        rules=rules,
        backups=tuple(backups),
        legacy=tuple(
            LegacyFigures(
                name=name,
                created_at=at,
                size_bytes=size_of(store.path / name),
                fate=fate(name),
                reasons=reasons.get(name, ()),
                pinned=name in pinned,
            )
            for name, at in files.items()
            if name not in left_alone
        ),
        others=tuple(each for name, each in left_alone.items() if name not in ids),
        remains=planned.remains,
    )


def digests(path: Path) -> Digests | None:
    """Return the digests of a backup, by component; None where it has none. Raises `ChecksumsError`."""
    file = path / Checksums.FILE_NAME
    if not os.path.lexists(file):
        return None
    data = read_bytes(file, limit=MAX_SIZE, error=ChecksumsError)
    checksums = Checksums.from_bytes(data, source=file)
    found: dict[str | None, list[tuple[str, str]]] = {each.id: [] for each in COMPONENTS} | {None: []}
    for name, digest in checksums.items():
        owner = next((each.id for each in COMPONENTS if is_of(name, each)), None)
        found[owner].append((name, digest))
    return Digests(
        sha256=hashlib.sha256(data).hexdigest(),
        groups=tuple(
            DigestGroup(component=owner, count=len(files), files=tuple(files) if len(files) <= _MOST_FILES else ())
            for owner, files in found.items()
            if files
        ),
    )


def entries(record: ComponentRecord) -> tuple[int, str] | None:
    """Return how much a component has, and of what: `members` of an archive, `repositories`, `databases`.

    None where its details do not tell.
    """
    for key in _ENTRIES:
        value = record.details.get(key)
        count = len(value) if isinstance(value, dict) else value
        if isinstance(count, int) and not isinstance(count, bool):
            return count, key
    return None


def base(record: ComponentRecord) -> str | None:
    """Return the id of the backup that a component is an increment on; None where it is in full."""
    value = record.details.get("base")
    return value if isinstance(value, str) else None


def selection(record: ComponentRecord) -> Selection | None:
    """Return which part of a component was to be backed up; None where that was all of it."""
    return Selection.from_record(record.details.get(FILTER)) or None


def ratio(bytes_read: int, bytes_written: int) -> float | None:
    """Return how many bytes that were read became one that was written; None where that says nothing."""
    return bytes_read / bytes_written if bytes_read and bytes_written else None


def _manifest(path: Path) -> Manifest | None:
    try:
        return Manifest.read(path)
    except (DocumentError, StoreError):
        return None
