"""How far a run is, as its lock tells it to others."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from attrs import evolve

from gitlab_backup import BackupStore, Manifest
from gitlab_backup.events import (
    BackupDeleted,
    ComponentFinished,
    ComponentProgressed,
    ComponentStarted,
    ComponentWarned,
    OperationStarted,
    Status,
)
from gitlab_backup.operations.progress import Progress, seconds_left

from .pruned_store import make_backup

if TYPE_CHECKING:
    from gitlab_backup.archivers.base import JSON

BACKUP_ID = "1714053314_2024_04_25_17.0.0-pre"
STARTED = OperationStarted("backup", BACKUP_ID, Path("/backups") / BACKUP_ID, ("db", "lfs", "pages"))


def test_the_account() -> None:
    """It has what runs, what waits and what is done, their bytes, and the sums."""
    progress = Progress()
    for event in (
        STARTED,
        ComponentStarted("db", "database"),
        ComponentStarted("lfs", "files"),
        ComponentProgressed("db", 100, 10),
        ComponentWarned("lfs", "look"),
        ComponentFinished("lfs", Status.WARNING, 7, 5, 0.5),
        ComponentFinished("registry", Status.SKIPPED, 0, 0, 0.0, "not selected"),
        BackupDeleted("x", Path("/backups/x"), 1),
    ):
        progress(event)
    record = progress.record()
    assert isinstance(record.pop("elapsed_seconds"), float)
    assert {
        "step": "backup",
        "backup_id": BACKUP_ID,
        "bytes_read": 107,
        "bytes_written": 15,
        "warnings": 1,
        "deleted": 1,
        "components": {
            "db": {"status": "running", "bytes_read": 100, "bytes_written": 10},
            "lfs": {"status": "warning", "bytes_read": 7, "bytes_written": 5},
            "pages": {"status": "waiting", "bytes_read": 0, "bytes_written": 0},
        },
    } == record


def test_it_is_published_once_a_second() -> None:
    """Events come often; what is published is the first, which says what is going to be done."""
    published: list[object] = []
    progress = Progress(published.append)
    progress(STARTED)
    for count in range(1000):
        progress(ComponentProgressed("db", count, count))
    assert len(published) == 1


def test_others_see_what_the_lock_is_told(tmp_path: Path) -> None:
    """What is told is seen while the lock is held, a shorter record after a longer one too, and not afterwards."""
    store = BackupStore(tmp_path)
    assert store.running() is None
    with store.lock("backup") as lock:
        for told in ({"a": "x" * 5000}, {"b": 1}):
            lock.tell(told)
            running = store.running()
            assert running is not None
            assert ("backup", os.getpid(), told) == (running["operation"], running["pid"], running["progress"])
    assert store.running() is None


def test_a_reader_never_sees_half(tmp_path: Path) -> None:
    """Whoever looks while the lock is told more and less finds one record or the other."""
    store, ended, seen = BackupStore(tmp_path), threading.Event(), set()

    def look() -> None:
        while not ended.is_set():
            running = store.running()
            seen.add(None if running is None else str(running["progress"]))

    records = [{"length": length, "text": "x" * length} for length in (10, 9000)]
    with store.lock("backup") as lock:
        lock.tell(records[0])
        reader = threading.Thread(target=look)
        reader.start()
        for count in range(1000):
            lock.tell(records[count % 2])
        ended.set()
        reader.join()
    assert seen <= {str(record) for record in records}


def test_what_is_too_large_is_not_told(tmp_path: Path) -> None:
    """The lock keeps what it had; the run goes on."""
    store = BackupStore(tmp_path)
    with store.lock("backup") as lock:
        lock.tell({"a": 1})
        lock.tell({"a": "x" * 100_000})
        running = store.running()
    assert running is not None
    assert {"a": 1} == running["progress"]


@pytest.fixture
def store(tmp_path: Path) -> BackupStore:
    """A backup path."""
    return BackupStore(tmp_path)


def record(**components: tuple[str, int]) -> dict[str, JSON]:
    """Return the account of a backup that has taken ten seconds."""
    return {
        "step": "backup",
        "elapsed_seconds": 10.0,
        "bytes_read": sum(read for _, read in components.values()),
        "components": {name: {"status": status, "bytes_read": read} for name, (status, read) in components.items()},
    }


def test_the_estimate(store: BackupStore) -> None:
    """What is left of the last backup's bytes takes as long as those so far; what is done is done."""
    account = record(db=("running", 100), lfs=("complete", 100), pages=("waiting", 0))
    assert seconds_left(store, account) is None
    directory = make_backup(store.path, BACKUP_ID)
    manifest = Manifest.read(directory)
    assert manifest is not None
    read = {"db": 300, "lfs": 100, "pages": 50}
    components = tuple(evolve(each, bytes_read=read.get(each.id, 0)) for each in manifest.components)
    (directory / Manifest.FILE_NAME).write_bytes(evolve(manifest, components=components).to_json())
    assert 12.5 == seconds_left(store, account)
    assert 0 == seconds_left(store, record(db=("running", 400)))


@pytest.mark.parametrize(
    "told",
    [
        {},
        {"step": "restore"},
        record(db=("running", 0)),
        record(unknown=("running", 5)),
        {**record(db=("running", 5)), "elapsed_seconds": "long"},
        {**record(db=("running", 5)), "components": [1]},
    ],
)
def test_no_estimate(store: BackupStore, told: dict[str, JSON]) -> None:
    """Where nothing can be told, nothing is."""
    assert seconds_left(store, told) is None
