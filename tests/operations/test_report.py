"""The figures of a report."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from gitlab_backup import BackupStore
from gitlab_backup.checksums import Checksums
from gitlab_backup.errors import BackupNotFoundError
from gitlab_backup.operations.prune import PruneOptions, prune
from gitlab_backup.operations.report import Fate, base, digests, entries, gather
from gitlab_backup.retention import Rules

from .reported_store import DAY, IDS, INCOMPLETE, LEGACY, NEWEST, PARTIAL, STRANGE, make_store

if TYPE_CHECKING:
    from pathlib import Path

NOW = datetime.fromtimestamp(NEWEST + DAY // 2, UTC)
RULES = Rules(keep_last=2, keep_weekly=3)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> BackupStore:
    """A backup path that is not to be changed."""
    return BackupStore(make_store(tmp_path_factory.mktemp("report") / "backups"))


@pytest.mark.parametrize("legacy", [True, False])
def test_fates(store: BackupStore, *, legacy: bool) -> None:
    """What a report says of each backup, and why, is what `prune` would do with the same rules."""
    planned = prune(store, PruneOptions(rules=RULES, legacy=legacy, dry_run=True), now=NOW)
    report = gather(store, RULES, legacy=legacy, now=NOW)
    fates = {each.id: (each.fate, each.reasons) for each in report.backups}
    fates |= {each.name: (each.fate, each.reasons) for each in report.legacy}
    assert len(planned.kept) > 3
    assert len(planned.deleted) > 3
    kept = {name: reasons for name, (fate, reasons) in fates.items() if fate is Fate.KEPT}
    assert {each.name: each.reasons for each in planned.kept} == kept
    assert {each.name for each in planned.deleted} == {name for name in fates if fates[name][0] is Fate.DELETED}
    alone = [(each.id, each.kind, each.flaw) for each in report.backups if each.fate is Fate.LEFT_ALONE]
    assert [PARTIAL, INCOMPLETE] == [each[0] for each in alone]
    named = [*alone, *((each.name, each.kind, each.reason) for each in report.others)]
    assert sorted((each.name, each.kind, each.reason) for each in planned.left_alone) == sorted(named)
    assert [IDS[1]] == [each.id for each in report.backups if each.pinned]
    assert [(LEGACY, Fate.KEPT if legacy else Fate.UNDECIDED)] == [(each.name, each.fate) for each in report.legacy]


def test_without_rules(store: BackupStore) -> None:
    """Without rules nothing is kept or deleted, but it is known which backups are whole."""
    report = gather(store, None, now=NOW)
    assert list(IDS) == [each.id for each in report.whole]
    assert {Fate.UNDECIDED} == {each.fate for each in report.whole}


def test_figures(store: BackupStore) -> None:
    """Sizes, durations, ratios, warnings and what was left out are those of the manifest."""
    backup = gather(store, RULES, now=NOW).backup(IDS[-1])
    assert backup.manifest is not None
    records = {record.id: record for record in backup.manifest.components}
    assert sum(record.bytes_written for record in records.values()) == backup.size_bytes
    assert timedelta(seconds=backup.duration_seconds or 0) == backup.manifest.finished_at - backup.manifest.started_at
    assert backup.bytes_read / backup.size_bytes == backup.ratio
    assert ["uploads", "uploads"] == [component for component, _ in backup.warnings]
    assert "registry" in {record.id for record in backup.left_out}
    assert STRANGE in {record.id for record in backup.done}
    assert (1204, "repositories") == entries(records["repositories"])
    assert (1, "databases") == entries(records["db"])
    assert entries(records["registry"]) is None
    assert [IDS[-2], None] == [base(records[name]) for name in ("repositories", "db")]
    with pytest.raises(BackupNotFoundError):
        gather(store, RULES, now=NOW).backup("1_1970_01_01_17.0.0")


def test_digests(tmp_path: Path) -> None:
    """Digests come by component; where there are too many to list, they are counted. Without any, there is None."""
    names = ["db/database.sql.gz", "manifest.json", *(f"repositories/default/{number}" for number in range(50))]
    data = Checksums({name: hashlib.sha256(name.encode()).hexdigest() for name in names}).to_bytes()
    assert digests(tmp_path) is None
    (tmp_path / "SHA256SUMS").write_bytes(data)
    found = digests(tmp_path)
    assert found is not None
    assert hashlib.sha256(data).hexdigest() == found.sha256
    assert [("db", 1, 1), ("repositories", 50, 0), (None, 1, 1)] == [
        (group.component, group.count, len(group.files)) for group in found.groups
    ]
    assert (names[0], hashlib.sha256(names[0].encode()).hexdigest()) == found.groups[0].files[0]


def test_nothing_there(tmp_path: Path) -> None:
    """A backup path that does not exist yet has nothing, and is not made."""
    report = gather(BackupStore(tmp_path / "none"), RULES, now=NOW)
    assert ((), (), ()) == (report.backups, report.legacy, report.others)
    assert not (tmp_path / "none").exists()
