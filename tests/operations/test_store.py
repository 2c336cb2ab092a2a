"""The backup path: listing, locking, staging, publishing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from gitlab_backup import BackupStore, Metadata
from gitlab_backup.errors import BackupNotFoundError, LockedError, StoreError
from gitlab_backup.store import LOCK_NAME
from tests.support.accounts import closed_directory

if TYPE_CHECKING:
    from pathlib import Path

AT = datetime(2024, 4, 25, 13, 55, 14, tzinfo=UTC)
FIRST = "1714053314_2024_04_25_17.0.0-pre"
SECOND = "1714053315_2024_04_25_17.0.0-pre"

_HOLDER = """
import sys
from gitlab_backup import BackupStore
with BackupStore(sys.argv[1]).lock("backup"):
    print("locked", flush=True)
    sys.stdin.read()
"""


def _backup(store: BackupStore, backup_id: str) -> Path:
    path = store.path / backup_id
    path.mkdir(parents=True)
    metadata = Metadata(backup_id=backup_id, created_at=AT, gitlab_version="17.0.0-pre")
    (path / Metadata.FILE_NAME).write_bytes(metadata.to_json())
    return path


def test_ids_are_directories_named_like_backups_oldest_first(tmp_path: Path) -> None:
    """Foreign files, hidden staging, symbolic links and other directories are no backups; time orders, not text."""
    store = BackupStore(tmp_path)
    late = "10000000000_2286_11_20_17.0.0"
    for backup_id in (late, SECOND, FIRST):
        _backup(store, backup_id)
    (tmp_path / "lost+found").mkdir()
    (tmp_path / f".{FIRST}.partial").mkdir()
    (tmp_path / "1714053316_2024_04_25_17.0.0").symlink_to(tmp_path / FIRST)
    (tmp_path / "1714053317_2024_04_25_17.0.0").write_text("a file")
    assert store.ids() == (FIRST, SECOND, late)


def test_a_store_that_does_not_exist_is_empty(tmp_path: Path) -> None:
    """Looking does not make the directory."""
    store = BackupStore(tmp_path / "backups")
    assert store.ids() == ()
    assert not store.path.exists()


def test_latest_is_the_newest_with_metadata(tmp_path: Path) -> None:
    """A directory whose metadata cannot be read is not what `latest` means."""
    store = BackupStore(tmp_path)
    expected = _backup(store, FIRST)
    (_backup(store, SECOND) / Metadata.FILE_NAME).write_text("{")
    assert store.open("latest") == expected


@pytest.mark.parametrize("backup_id", [SECOND, "latest", "../elsewhere", "/etc", "", "."])
def test_opening_what_is_not_there(tmp_path: Path, backup_id: str) -> None:
    """An id that names no backup is an error of its own, also one that names a path."""
    with pytest.raises(BackupNotFoundError):
        BackupStore(tmp_path).open(backup_id)


def test_the_lock_excludes_other_processes_and_dies_with_its_holder(tmp_path: Path) -> None:
    """The error names operation and process; after SIGKILL of the holder the lock is free."""
    store = BackupStore(tmp_path)
    with subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"locked\n"
        with pytest.raises(LockedError, match=rf"backup \(pid {holder.pid}, since 20"), store.lock("restore"):
            pytest.fail("the lock was given twice")
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    with store.lock("restore"):
        pass


@pytest.mark.parametrize(
    "content", [b"[" * 60_000, b"[1]", b'{"operation": 1, "pid": 1' + b"0" * 40 + b', "since": []}']
)
def test_a_lock_that_says_nonsense(tmp_path: Path, content: bytes) -> None:
    """Whatever is in its file, it is a lock: held or not."""
    store = BackupStore(tmp_path)
    (tmp_path / LOCK_NAME).write_bytes(content)
    assert store.running() is None
    with store.lock("backup"):
        pass
    assert store.running() is None


def test_the_lock_makes_a_private_directory(tmp_path: Path) -> None:
    """The backup path is made with mode 0700, whatever the umask."""
    before = os.umask(0)
    try:
        with BackupStore(tmp_path / "a" / "backups").lock("backup"):
            pass
    finally:
        os.umask(before)
    assert (tmp_path / "a" / "backups").stat().st_mode & 0o7777 == 0o700


def test_a_backup_path_that_is_a_file(tmp_path: Path) -> None:
    """It is named, and nothing happens to it."""
    (tmp_path / "backups").write_text("mine")
    store = BackupStore(tmp_path / "backups")
    with pytest.raises(StoreError, match=str(tmp_path / "backups")), store.lock("backup"):
        pytest.fail("a file was locked as a directory")
    with pytest.raises(StoreError):
        store.ids()
    assert (tmp_path / "backups").read_text() == "mine"


@pytest.mark.parametrize("mode", [0o555, 0o000])
def test_a_backup_path_that_may_not_be_written(mode: int) -> None:
    """It is named with the reason, whether it may be looked at or not; the hint says what to look at."""
    with closed_directory(mode) as directory:
        store = BackupStore(directory)
        with pytest.raises(StoreError) as caught, store.lock("backup"):
            pytest.fail("what may not be written was locked")
        assert f"the backup path {directory} cannot be used: Permission denied" == caught.value.message
        assert "owner and mode" in str(caught.value.hint)


def test_a_backup_path_that_may_not_be_made() -> None:
    """Where the directory above may not be written, the backup path is named."""
    with closed_directory(0o555) as directory:
        store = BackupStore(directory / "backups")
        with pytest.raises(StoreError, match="backups cannot be used: Permission denied"), store.lock("backup"):
            pytest.fail("what cannot be was locked")


def test_the_next_free_second(tmp_path: Path) -> None:
    """Two backups within a second get different ids; also what is no backup is never replaced."""
    store = BackupStore(tmp_path)
    _backup(store, FIRST)
    (tmp_path / SECOND).write_text("in the way")
    with store.staging(AT, "17.0.0-pre") as staging:
        assert str(staging.backup_id) == "1714053316_2024_04_25_17.0.0-pre"


def test_staging_is_hidden_until_it_is_published(tmp_path: Path) -> None:
    """What grows is no backup; publishing is one rename that leaves no staging."""
    store = BackupStore(tmp_path)
    with store.staging(AT, "17.0.0-pre") as staging:
        (staging.path / "file").write_text("data")
        assert store.ids() == ()
        assert staging.path.stat().st_mode & 0o7777 == 0o700
        staging.publish()
    assert store.ids() == (FIRST,)
    assert [entry.name for entry in tmp_path.iterdir()] == [FIRST]
    assert (tmp_path / FIRST / "file").read_text() == "data"


def test_staging_that_is_not_published_is_removed(tmp_path: Path) -> None:
    """Whatever ends the block, nothing is left."""

    def interrupted() -> None:
        with BackupStore(tmp_path).staging(AT, "17.0.0-pre") as staging:
            (staging.path / "db").mkdir()
            (staging.path / "db" / "file").write_text("data")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_dead_staging_is_removed_and_nothing_else(tmp_path: Path) -> None:
    """Only hidden directories that are named like staging of a backup id are ours to remove."""
    store = BackupStore(tmp_path)
    _backup(store, FIRST)
    (tmp_path / f".{SECOND}.partial" / "db").mkdir(parents=True)
    (tmp_path / ".important.partial").mkdir()
    assert store.remove_dead_staging() == (f".{SECOND}.partial",)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [".important.partial", FIRST]
