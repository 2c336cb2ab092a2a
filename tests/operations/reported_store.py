"""A backup path to make reports on: a history of backups, and something of every other kind."""

from __future__ import annotations

import hashlib
import os
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from attrs import evolve

from gitlab_backup import BackupStore, Manifest
from gitlab_backup.checksums import Checksums
from gitlab_backup.events import Status
from gitlab_backup.manifest import BackupStatus
from tests.operations.pruned_store import id_at, lose, make_backup, make_legacy

if TYPE_CHECKING:
    from pathlib import Path

    from gitlab_backup.documents import JSON
    from gitlab_backup.manifest import ComponentRecord

DAY = 86_400
NEWEST = 1_714_186_800
"""2024-04-27 03:00 UTC."""
DAYS = (*range(12), 15, 22, 29, 36, 60, 90)
"""How old the whole backups are, in days."""
IDS = tuple(id_at(NEWEST - DAY * age) for age in reversed(DAYS))
INCOMPLETE = id_at(NEWEST - DAY * 2 - 7200)
PARTIAL = id_at(NEWEST - DAY * 5 - 7200)
HOSTILE = "<script>alert(1)</script>"
STRANGE = "<img src=x onerror=alert(2)>$x$\x1b"
TURNED = "report\u202egpj.exe"
LEGACY = f"{NEWEST - DAY * 200}_gitlab_backup.tar"

_MIB = 1 << 20
_SHAPES = {
    # bytes read, ratio, seconds
    "db": (48_000 * _MIB, 5.4, 2100),
    "repositories": (91_000 * _MIB, 1.0, 1500),
    "artifacts": (22_000 * _MIB, 1.2, 900),
    "uploads": (9_000 * _MIB, 1.1, 340),
    "builds": (14_000 * _MIB, 7.5, 410),
    "lfs": (31_000 * _MIB, 1.02, 1100),
    "packages": (6_000 * _MIB, 1.05, 220),
    "pages": (900 * _MIB, 2.0, 40),
}


def make_store(path: Path) -> Path:
    """Make it. The newest backup has warnings, one of them hostile, and is an increment on the one before."""
    for backup_id, age in zip(IDS, reversed(DAYS), strict=True):
        _fill(make_backup(path, backup_id), age)
    _warn(path / IDS[-1])
    lose(_fill(make_backup(path, INCOMPLETE), 2), "uploads.tar.gz")
    _fill(make_backup(path, PARTIAL, left_out=frozenset({"registry", "lfs"})), 5)
    make_legacy(path, LEGACY)
    (path / f".{id_at(NEWEST + DAY)}.partial").mkdir()
    for name in (HOSTILE.replace("/", "\\"), TURNED, os.fsdecode(b"caf\xe9")):
        (path / name).touch()
    BackupStore(path).pin(IDS[1])
    return path


def _fill(path: Path, age: int) -> Path:
    """Give a backup figures: all grows by three parts in a thousand a day, and no day is like another."""
    manifest = Manifest.read(path)
    assert manifest is not None
    growth = 0.997**age
    records = tuple(_record(record, growth, age) for record in manifest.components)
    seconds = 2400 * growth + 60 * (age * 37 % 11)
    _write(
        path,
        evolve(manifest, components=records, finished_at=manifest.started_at + timedelta(seconds=seconds)),
    )
    return path


def _record(record: ComponentRecord, growth: float, age: int) -> ComponentRecord:
    if record.id not in _SHAPES:
        missing = f"/var/opt/gitlab/{record.id} does not exist"
        return evolve(record, status=Status.SKIPPED, bytes_read=0, bytes_written=0, reason=missing)
    size, ratio, seconds = _SHAPES[record.id]
    read = int(size * growth)
    details: dict[str, dict[str, JSON]] = {
        "repositories": {"repositories": 1204},
        "db": {"databases": {"main": {"encoding": "UTF8"}}},
    }
    return evolve(
        record,
        bytes_read=read,
        bytes_written=int(read / (ratio + 0.02 * (age * 5 % 7))),
        duration_seconds=round(seconds * growth * (1 + 0.05 * (age * 3 % 5)), 1),
        details=details.get(record.id, {"members": read // 65_536, "data_bytes": read}),
    )


def _warn(path: Path) -> None:
    manifest = Manifest.read(path)
    assert manifest is not None
    changes: dict[str, dict[str, Any]] = {
        "uploads": {"status": Status.WARNING, "warnings": (f"socket left out: {HOSTILE}", f"{TURNED} vanished")},
        "repositories": {"details": {"repositories": 1204, "base": IDS[-2], "linked_bytes": 90 << 30}},
    }
    records = [evolve(each, **changes.get(each.id, {})) for each in manifest.components]
    # One of another distribution, whose name would be code to a browser, a formula to the charts, and no XML.
    strange = evolve(records[0], id=STRANGE, name=STRANGE, archiver=HOSTILE, destination="strange")
    _write(
        path,
        evolve(
            manifest,
            components=(*records, strange),
            selected=(*manifest.selected, STRANGE),
            status=BackupStatus.COMPLETE_WITH_WARNINGS,
        ),
    )


def _write(path: Path, manifest: Manifest) -> None:
    """Replace a manifest, and its digest."""
    data = manifest.to_json()
    (path / Manifest.FILE_NAME).write_bytes(data)
    checksums = Checksums.read(path)
    assert checksums is not None
    digests = {**checksums, Manifest.FILE_NAME: hashlib.sha256(data).hexdigest()}
    (path / Checksums.FILE_NAME).write_bytes(Checksums(digests).to_bytes())
