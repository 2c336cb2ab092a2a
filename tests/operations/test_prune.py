"""Pruning: what counts, what is left alone, and what is there whenever it ends."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from gitlab_backup import Backup, BackupStore, Cancellation
from gitlab_backup.errors import BackupNotFoundError, CancelledError, LockedError, RefusedError, StoreError
from gitlab_backup.events import BackupDeleted, Event, Status
from gitlab_backup.operations.prune import Kind, PruneOptions, prune
from gitlab_backup.retention import Reason, Rule, Rules
from gitlab_backup.streams.system import System, using

from .pruned_store import FILES, id_at, is_whole, lose, make_backup, make_legacy

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.installation import ThrowawayInstallation

DAY = 86_400
START = 1_714_053_314
IDS = tuple(id_at(START + number * DAY) for number in range(5))
LAST = PruneOptions(rules=Rules(keep_last=2))


@pytest.fixture
def store(tmp_path: Path) -> BackupStore:
    """A backup path with five whole backups, a day between them."""
    for backup_id in IDS:
        make_backup(tmp_path, backup_id)
    return BackupStore(tmp_path)


def _names(store: BackupStore) -> set[str]:
    return {entry.name for entry in store.path.iterdir()} - {".gitlab-backup.lock"}


def test_what_is_kept_says_why(store: BackupStore) -> None:
    """The outcome names all backups, oldest first: with the rules that keep them, or with their size."""
    done = prune(store, LAST)
    assert [(each.name, each.reasons) for each in done.kept] == [(name, (Reason(Rule.LAST),)) for name in IDS[3:]]
    assert [each.name for each in done.deleted] == list(IDS[:3])
    assert all(each.size_bytes > sum(map(len, FILES.values())) for each in done.deleted)
    assert _names(store) == set(IDS[3:])


def test_a_dry_run_changes_nothing(store: BackupStore) -> None:
    """It says the same, and makes no lock, either; it needs none."""
    with BackupStore(store.path).lock("backup"):
        planned = prune(store, PruneOptions(rules=LAST.rules, dry_run=True))
    (store.path / ".gitlab-backup.lock").unlink()
    before = _names(store)
    assert prune(store, PruneOptions(rules=LAST.rules, dry_run=True)) == planned
    assert {entry.name for entry in store.path.iterdir()} == before
    done = prune(store, LAST)
    assert (done.kept, done.deleted) == (planned.kept, planned.deleted)


@pytest.mark.parametrize("dry_run", [True, False])
def test_a_backup_path_that_does_not_exist(tmp_path: Path, *, dry_run: bool) -> None:
    """There is nothing to delete, and nothing is made."""
    done = prune(BackupStore(tmp_path / "none"), PruneOptions(rules=LAST.rules, dry_run=dry_run))
    assert (done.kept, done.deleted) == ((), ())
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("kind", "words", "spoil"),
    [
        (Kind.PARTIAL, "not a backup of everything", lambda p: make_backup(*p, left_out=frozenset({"db"}))),
        (Kind.INCOMPLETE, "failed: uploads", lambda p: make_backup(*p, statuses={"uploads": Status.FAILED})),
        (Kind.INCOMPLETE, "SHA256SUMS is missing", lambda p: lose(make_backup(*p), "SHA256SUMS")),
        (Kind.INCOMPLETE, "manifest.json is missing", lambda p: lose(make_backup(*p), "manifest.json")),
        (
            Kind.INCOMPLETE,
            "backup_information.json",
            lambda p: lose(make_backup(*p), "backup_information.json"),
        ),
        (Kind.INCOMPLETE, "manifest.json", lambda p: (make_backup(*p) / "manifest.json").write_text("{")),
        (Kind.INCOMPLETE, "SHA256SUMS", lambda p: (make_backup(*p) / "SHA256SUMS").write_text("x")),
        (Kind.INCOMPLETE, "uploads.tar.gz is missing", lambda p: lose(make_backup(*p), "uploads.tar.gz")),
        (
            Kind.INCOMPLETE,
            id_at(START + 9 * DAY),
            lambda p: make_backup(p[0], id_at(START + 9 * DAY)).rename(p[0] / p[1]),
        ),
        (
            Kind.UNVERIFIED,
            "GitLab's own tool",
            lambda p: lose(make_backup(*p), "SHA256SUMS", "manifest.json"),
        ),
        (Kind.FOREIGN, "not a backup", lambda p: (p[0] / p[1]).symlink_to(p[0])),
        (Kind.FOREIGN, "not a backup", lambda p: (p[0] / p[1]).write_text("a file")),
    ],
)
def test_what_does_not_count(
    store: BackupStore, kind: Kind, words: str, spoil: Callable[[tuple[Path, str]], object]
) -> None:
    """It is named with the reason, is never deleted, and takes nobody's place: two whole ones stay."""
    newest = id_at(START + 10 * DAY)
    spoil((store.path, newest))
    done = prune(store, LAST)
    assert [each.name for each in done.kept] == list(IDS[3:])
    assert [(each.name, each.kind, words in each.reason) for each in done.left_alone] == [(newest, kind, True)]
    assert _names(store) == {*IDS[3:], newest}


def test_documents_that_do_not_agree(store: BackupStore) -> None:
    """A backup with the manifest of another one does not count."""
    shutil.copy(store.path / IDS[0] / "manifest.json", store.path / IDS[4] / "manifest.json")
    done = prune(store, LAST)
    assert [each.name for each in done.kept] == list(IDS[2:4])
    assert [(each.name, each.kind) for each in done.left_alone] == [(IDS[4], Kind.INCOMPLETE)]


def test_warnings_do_not_make_a_backup_less(store: BackupStore) -> None:
    """One that is complete with warnings counts, as long as no component has failed."""
    newest = id_at(START + 10 * DAY)
    make_backup(store.path, newest, statuses={"uploads": Status.WARNING, "registry": Status.SKIPPED})
    assert [each.name for each in prune(store, LAST).kept] == [IDS[4], newest]


def test_dead_staging_is_removed_when_asked(store: BackupStore) -> None:
    """By itself it is named only; without rules, it is all that is removed."""
    staging = f".{id_at(START)}.partial"
    (store.path / staging / "db").mkdir(parents=True)
    named = prune(store, PruneOptions(rules=Rules(keep_last=5)))
    assert [(each.name, each.kind) for each in named.left_alone] == [(staging, Kind.UNFINISHED)]
    done = prune(store, PruneOptions(incomplete=True))
    assert (done.remains, done.deleted, done.left_alone) == ((staging,), (), ())
    assert _names(store) == set(IDS)


def test_legacy_files_are_counted_by_themselves(store: BackupStore) -> None:
    """Without `legacy` they stay and are counted; with it the rules hold for them alone, and say which stay."""
    names = [f"{START + number * DAY}_gitlab_backup.tar" for number in range(4)]
    for name in names:
        make_legacy(store.path, name)
    make_legacy(store.path, "1714999999_gitlab_backup.tar", cut=True)
    make_legacy(store.path, "1714999999_before_upgrade_gitlab_backup.tar")
    (store.path / "1714999998_gitlab_backup.tar").mkdir()
    (store.path / "1714999997_gitlab_backup.tar").symlink_to(names[0])
    done = prune(store, LAST)
    assert (done.legacy_files, done.legacy_bytes) == (4, 4 * 1536)
    assert set(names) < _names(store)
    done = prune(store, PruneOptions(rules=LAST.rules, legacy=True))
    assert [each.name for each in done.kept] == [*IDS[3:], *names[2:]]
    assert [(each.name, each.size_bytes) for each in done.deleted] == [(name, 1536) for name in names[:2]]
    assert {(each.name, each.kind) for each in done.left_alone} == {
        ("1714999999_gitlab_backup.tar", Kind.INCOMPLETE),
        ("1714999999_before_upgrade_gitlab_backup.tar", Kind.FOREIGN),
        ("1714999998_gitlab_backup.tar", Kind.FOREIGN),
        ("1714999997_gitlab_backup.tar", Kind.FOREIGN),
    }


def test_a_real_archive_of_tar_counts(tmp_path: Path) -> None:
    """What GNU tar writes has the end that a whole backup of the Rake task is known by."""
    name = f"{START}_2024_04_25_16.11.2-ee_gitlab_backup.tar"
    subprocess.run(["tar", "-cf", tmp_path / name, "-C", "/etc", "hostname"], check=True)
    assert prune(BackupStore(tmp_path), PruneOptions(rules=LAST.rules, dry_run=True)).legacy_files == 1


def test_the_new_backup_stays(store: BackupStore) -> None:
    """Also where the clock says that it is old; and where it does not count, nothing is deleted."""
    rules = Rules(keep_last=1)
    done = prune(store, PruneOptions(rules=rules, new=IDS[0]))
    assert {each.name: list(map(str, each.reasons)) for each in done.kept} == {IDS[0]: ["new"], IDS[4]: ["keep-last"]}
    partial = id_at(START + 10 * DAY)
    make_backup(store.path, partial, left_out=frozenset({"db"}))
    before = _names(store)
    with pytest.raises(RefusedError, match=r"is not a backup of everything"):
        prune(store, PruneOptions(rules=rules, new=partial))
    assert _names(store) == before


def test_a_pin_protects_and_leaves_the_backup_as_it_is(installation: ThrowawayInstallation, tmp_path: Path) -> None:
    """A pinned backup stays; `sha256sum`, verification and a copy of it know nothing of the pin."""
    backup = Backup.create(installation.instance(), only=["lfs"])
    store = BackupStore(installation.backup_path)
    assert store.pin("latest") == backup.id
    assert store.pinned() == {backup.id}
    assert backup.verify().damages == ()
    subprocess.run(["sha256sum", "--check", "--quiet", "--strict", "SHA256SUMS"], cwd=backup.path, check=True)
    copy = Backup(shutil.copytree(backup.path, tmp_path / backup.id))
    assert copy.verify().damages == ()
    assert BackupStore(tmp_path).pinned() == frozenset()
    assert store.ids() == (backup.id,)


def test_pinned_and_unpinned(store: BackupStore) -> None:
    """It stays until it is unpinned, and pinning twice is pinning once; a file of the Rake task can be pinned, too."""
    legacy = [make_legacy(store.path, f"{START + number}_gitlab_backup.tar").name for number in (0, 1)]
    for name in (IDS[0], IDS[0], legacy[0]):
        store.pin(name)
    options = PruneOptions(rules=Rules(keep_last=1), legacy=True)
    assert {each.name for each in prune(store, options).kept} == {IDS[0], IDS[4], *legacy}
    store.unpin(IDS[0])
    store.unpin(IDS[0])
    store.unpin(legacy[0])
    assert {each.name for each in prune(store, options).kept} == {IDS[4], legacy[1]}
    assert _names(store) == {IDS[4], legacy[1]}


@pytest.mark.parametrize("name", [id_at(1), "../elsewhere", "", ".", "notes.txt"])
def test_only_backups_are_pinned(store: BackupStore, name: str) -> None:
    """What is no backup cannot be, and nothing is written."""
    (store.path / "notes.txt").touch()
    before = _names(store)
    for change in (store.pin, store.unpin, store.remove):
        with pytest.raises(BackupNotFoundError):
            change(name)
    assert _names(store) == before


def test_one_at_a_time(store: BackupStore) -> None:
    """Pruning and pinning wait for nobody, and change nothing then."""
    before = _names(store)
    with BackupStore(store.path).lock("backup"):
        for change in (lambda: prune(store, LAST), lambda: store.pin(IDS[0]), lambda: store.unpin(IDS[0])):
            with pytest.raises(LockedError, match=r"by backup \(pid"):
                change()
    assert _names(store) == before


def test_not_over_an_interrupted_restore(store: BackupStore) -> None:
    """A restore that is to be put back may need the backup that it restored."""
    (store.path / ".gitlab-restore.journal").write_text("{}")
    with pytest.raises(RefusedError, match="interrupted restore"):
        prune(store, LAST)
    assert set(IDS) < _names(store)


class _Denied(System):
    """Does not rename one backup."""

    def rename_new(self, source: Path, target: Path) -> None:
        if source.name == IDS[0]:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        super().rename_new(source, target)


def test_one_that_cannot_be_deleted_does_not_stop_the_others(store: BackupStore) -> None:
    """The error names it; the rest is deleted, and told."""
    told: list[Event] = []
    with using(_Denied()), pytest.raises(StoreError, match=IDS[0]) as error:
        prune(store, LAST, observer=told.append)
    assert error.value.hint
    assert [event.backup_id for event in told if isinstance(event, BackupDeleted)] == list(IDS[1:3])
    assert _names(store) == {IDS[0], *IDS[3:]}
    assert is_whole(store.path / IDS[0])


class _Stopping(System):
    """Requests the end at a certain removal of a file."""

    def __init__(self, cancel: Cancellation, last: int) -> None:
        self._cancel, self._left = cancel, last

    def unlink(self, path: str | bytes | Path, *, dir_fd: int | None = None) -> None:
        self._left -= 1
        if self._left == 0:
            self._cancel.request()
        super().unlink(path, dir_fd=dir_fd)


@pytest.mark.parametrize("last", [1, 3, 7])
def test_cancelled_within_a_deletion(store: BackupStore, last: int) -> None:
    """It ends at once, even in a backup with many files; what it leaves is hidden, and the next run removes it."""
    cancel = Cancellation()
    with using(_Stopping(cancel, last)), pytest.raises(CancelledError):
        prune(store, LAST, cancel=cancel)
    assert set(IDS[3:]) < set(store.ids())
    assert all(is_whole(store.path / name) for name in store.ids())
    assert len(store.remains()) == 1
    assert prune(store, LAST).remains != ()
    assert _names(store) == set(IDS[3:])


_KILLED = """
import os, signal, sys
from pathlib import Path
from gitlab_backup import BackupStore
from gitlab_backup.operations.prune import PruneOptions, prune
from gitlab_backup.retention import Rules
from gitlab_backup.streams.system import System, using
count, last = 0, int(sys.argv[2])
class Killed(System):
    def rename_new(self, source, target):
        # By way of ctypes: no audit event.
        step()
        super().rename_new(source, target)
def step(event="os.remove", arguments=()):
    global count
    if event in {"os.rename", "os.remove", "os.rmdir", "os.truncate"}:
        count += 1
        if count == last:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(step)
with using(Killed()):
    prune(BackupStore(Path(sys.argv[1])), PruneOptions(rules=Rules(keep_last=2)))
print(count)
"""


def _prune_killed(store: BackupStore, last: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", _KILLED, str(store.path), str(last)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_killed_at_any_moment(store: BackupStore, tmp_path_factory: pytest.TempPathFactory) -> None:
    """After SIGKILL, what is visible is whole, what stays is there, and the next run leaves no remains."""
    pristine = tmp_path_factory.mktemp("pristine") / "store"
    shutil.copytree(store.path, pristine)
    steps = int(_prune_killed(store, -1).stdout)
    assert steps > 20
    seen = set()
    for last in range(1, steps + 1, 2):
        shutil.rmtree(store.path)
        shutil.copytree(pristine, store.path)
        killed = _prune_killed(store, last)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        assert set(IDS[3:]) <= set(store.ids())
        assert [name for name in store.ids() if not is_whole(store.path / name)] == []
        seen.add((len(store.ids()), len(store.remains())))
        prune(store, LAST)
        assert _names(store) == set(IDS[3:])
    assert {(5, 0), (4, 1), (3, 1), (2, 1)} <= seen


def test_a_backup_removes_what_a_killed_prune_has_left(installation: ThrowawayInstallation) -> None:
    """The remains are gone after the next backup, as dead staging is."""
    installation.backup_path.mkdir(exist_ok=True)
    remains = make_backup(installation.backup_path, IDS[0]).rename(installation.backup_path / f".{IDS[0]}.deleted")
    Backup.create(installation.instance(), only=["lfs"])
    assert not remains.exists()


def test_the_clock_is_asked(store: BackupStore) -> None:
    """Without `now`, ages are measured from now: all of these are old, and the minimum keeps the newest."""
    done = prune(store, PruneOptions(rules=Rules(keep_within=timedelta(days=1))))
    assert {each.name: list(map(str, each.reasons)) for each in done.kept} == {IDS[4]: ["minimum"]}
    fresh = id_at(int(datetime.now(UTC).timestamp()))
    make_backup(store.path, fresh)
    assert [each.name for each in prune(store, PruneOptions(rules=Rules(keep_within=timedelta(days=1)))).kept] == [
        fresh
    ]
