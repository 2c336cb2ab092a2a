"""Backup paths with backups that were never made, but whose documents are right."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from gitlab_backup import COMPONENTS, BackupId, Manifest, Metadata
from gitlab_backup.checksums import Checksums
from gitlab_backup.components import Holder
from gitlab_backup.events import Status
from gitlab_backup.manifest import BackupStatus, ComponentRecord, Compression, Tool

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

VERSION = "17.0.0-pre"
USUAL = tuple(component for component in COMPONENTS if not component.optional)
EMPTY = ("ci_catalog_bundles", "agent_plan_content")
"""What the throwaway installation has no directories of. To have had something there would be worth a warning."""
FILES = {"uploads.tar.gz": b"uploads" * 10, "db/database.sql.gz": b"dump" * 20}


def id_at(epoch: int) -> str:
    """Return the id of a backup of that second."""
    return str(BackupId.new(datetime.fromtimestamp(epoch, UTC), VERSION))


def make_backup(
    store: Path,
    backup_id: str,
    *,
    statuses: Mapping[str, Status] | None = None,
    left_out: frozenset[str] = frozenset(),
    size: int = len(USUAL),
) -> Path:
    """Make a backup with the documents that the library writes. `statuses` are those of components; else complete.

    `size` is what they say of it, all components together.
    """
    path = store / backup_id
    parsed = BackupId.parse(backup_id)
    statuses = statuses or {}
    clean = set(statuses.values()) <= {Status.COMPLETE, Status.SKIPPED}
    metadata = Metadata(backup_id=backup_id, created_at=parsed.created_at, gitlab_version=parsed.gitlab_version)
    manifest = Manifest(
        tool=Tool(name="gitlab-backup", version="1"),
        backup_id=backup_id,
        status=BackupStatus.COMPLETE if clean else BackupStatus.COMPLETE_WITH_WARNINGS,
        started_at=parsed.created_at,
        finished_at=parsed.created_at,
        gitlab_version=parsed.gitlab_version,
        installation="source",
        compression=Compression(codec="gzip", level=1),
        selected=tuple(each.id for each in USUAL if each.id not in left_out),
        components=tuple(
            ComponentRecord(
                id=each.id,
                name=each.name,
                destination=each.destination,
                archiver=each.archiver,
                status=statuses.get(each.id, Status.COMPLETE),
                bytes_read=int(each.id not in EMPTY),
                bytes_written=size - len(USUAL) + 1 if each.holder is Holder.DATABASES else 1,
                duration_seconds=0,
            )
            for each in USUAL
        ),
    )
    files = {**FILES, "manifest.json": manifest.to_json(), "backup_information.json": metadata.to_json()}
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    (path / "SHA256SUMS").write_bytes(Checksums(digests).to_bytes())
    return path


def is_whole(path: Path) -> bool:
    """Return whether every file that the digests of a backup list is there and has its digest."""
    checksums = Checksums.read(path)
    return checksums is not None and all(
        (path / name).is_file() and hashlib.sha256((path / name).read_bytes()).hexdigest() == digest
        for name, digest in checksums.items()
    )


def make_legacy(store: Path, name: str, *, cut: bool = False) -> Path:
    """Make a file that ends as a backup of the Rake task does, or one that is cut short."""
    path = store / name
    path.write_bytes(b"x" * 512 + bytes(0 if cut else 1024))
    return path


def lose(path: Path, *names: str) -> None:
    """Remove files of a backup."""
    for name in names:
        (path / name).unlink()
