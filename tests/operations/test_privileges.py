"""Who can read, write and lead astray what is written: nobody but this user, whatever the umask."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest
from attrs import evolve

from gitlab_backup import Backup, BackupStore
from gitlab_backup.errors import BackupNotFoundError, RefusedError, StoreError
from gitlab_backup.operations.prune import PruneOptions, prune
from gitlab_backup.retention import Rules
from tests.operations.pruned_store import id_at, make_backup
from tests.support.accounts import Account

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from gitlab_backup.events import Event
    from tests.support.installation import ThrowawayInstallation

ID = "1714053314_2024_04_25_17.0.0-pre"
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


@pytest.fixture
def no_umask() -> Iterator[None]:
    """New files have all the rights that their maker asks for."""
    before = os.umask(0)
    yield
    os.umask(before)


class _Watch:
    """Looks at all of a store whenever something happens, and notes what others could read or write."""

    def __init__(self, store: Path) -> None:
        self._store = store
        self.open: set[str] = set()
        self.seen: set[str] = set()

    def __call__(self, _: Event | None = None) -> None:
        for directory, _directories, files in os.walk(self._store):
            for path in (directory, *(f"{directory}/{name}" for name in files)):
                try:
                    mode = os.lstat(path).st_mode
                except FileNotFoundError:
                    continue
                self.seen.add(os.path.relpath(path, self._store))
                if mode & 0o077 or stat.S_IMODE(mode) not in (0o600, 0o700):
                    self.open.add(f"{stat.filemode(mode)} {os.path.relpath(path, self._store)}")


@pytest.mark.usefixtures("no_umask")
def test_all_that_is_written_is_private(installation: ThrowawayInstallation) -> None:
    """With no umask, at every event: the store, its lock, staging with all in it, the backup and the journal."""
    watch = _Watch(installation.backup_path)
    backup = Backup.create(installation.instance(), observer=watch)
    watch()
    staged = f".{backup.id}.partial"
    assert {".gitlab-backup.lock", backup.id, f"{backup.id}/SHA256SUMS", f"{staged}/db"} <= watch.seen
    backup.restore(installation.instance(), observer=watch)
    watch()
    assert ".gitlab-restore.journal" in watch.seen
    assert set() == watch.open


@pytest.mark.usefixtures("no_umask")
def test_what_is_restored_has_the_modes_that_it_had(installation: ThrowawayInstallation) -> None:
    """With no umask, what a restore leaves in the installation has no more rights than before."""
    modes = _modes(installation)
    Backup.create(installation.instance()).restore(installation.instance())
    after = _modes(installation)
    # A repository is packed anew: its files have other names, but all of them are Git's.
    wider = {name for name in after if after[name] & 0o022 & ~modes.get(name, 0)}
    assert set() == wider


def _modes(installation: ThrowawayInstallation) -> dict[str, int]:
    found = {}
    places = (installation.root, *installation.storages.values())
    for place in places:
        for directory, _, files in os.walk(place):
            for path in (directory, *(f"{directory}/{name}" for name in files)):
                status = os.lstat(path)
                if not stat.S_ISLNK(status.st_mode):
                    found[path] = stat.S_IMODE(status.st_mode)
    return found


@pytest.mark.parametrize("mode", [0o770, 0o720, 0o702, 0o1777])
def test_a_store_that_others_can_write_to_is_refused(tmp_path: Path, mode: int) -> None:
    """Also where they can only add to it; the refusal says what to do."""
    tmp_path.chmod(mode)
    with pytest.raises(RefusedError, match=f"{mode:04o}") as caught:
        BackupStore(tmp_path).check_private()
    assert "--insecure-store" in (caught.value.hint or "")


@pytest.mark.parametrize("mode", [0o700, 0o755, 0o750])
def test_a_store_that_others_cannot_write_to_is_not(tmp_path: Path, mode: int) -> None:
    """Whoever may only look is no danger to what is restored, and nothing in a backup is readable to others."""
    tmp_path.chmod(mode)
    BackupStore(tmp_path).check_private()
    BackupStore(tmp_path / "not made yet").check_private()


@root_only
def test_whose_store_it_may_be(tmp_path: Path) -> None:
    """A store of GitLab's own user is as good as root's; one of somebody else is not."""
    nobody = Account.named("nobody")
    os.chown(tmp_path, nobody.uid, nobody.gid)
    BackupStore(tmp_path).check_private("no such user", "nobody")
    with pytest.raises(RefusedError, match="belongs to another user"):
        BackupStore(tmp_path).check_private("daemon")


def test_pruning_refuses(tmp_path: Path) -> None:
    """Whoever can write there could have a made-up backup stand for a real one: nothing is deleted, unless told to."""
    names = [id_at(1_714_053_314 + number * 86_400) for number in range(3)]
    for name in names:
        make_backup(tmp_path, name)
    tmp_path.chmod(0o770)
    store, options = BackupStore(tmp_path), PruneOptions(rules=Rules(keep_last=1))
    for each in (options, evolve(options, dry_run=True)):
        with pytest.raises(RefusedError, match="others can write"):
            prune(store, each)
    assert tuple(names) == store.ids()
    prune(store, evolve(options, insecure_store=True))
    assert (names[-1],) == store.ids()


def test_backup_and_restore_refuse(installation: ThrowawayInstallation, tmp_path: Path) -> None:
    """Neither changes anything in such a store, nor restores from one elsewhere, unless told to."""
    made = Backup.create(installation.instance(), only=["lfs"])
    store = installation.backup_path
    store.chmod(0o777)
    before = sorted(store.iterdir())
    with pytest.raises(RefusedError):
        Backup.create(installation.instance(), only=["lfs"])
    with pytest.raises(RefusedError):
        made.restore(installation.instance(), dry_run=True)
    assert before == sorted(store.iterdir())
    made.restore(installation.instance(), dry_run=True, insecure_store=True)
    assert Backup.create(installation.instance(), only=["lfs"], insecure_store=True).path.parent == store
    store.chmod(0o700)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o777)
    elsewhere.chmod(0o777)
    moved = Backup(made.path.rename(elsewhere / made.id))
    with pytest.raises(RefusedError, match="elsewhere"):
        moved.restore(installation.instance(), dry_run=True)


def test_links_in_a_store_are_not_followed(tmp_path: Path) -> None:
    """A link that is named like a backup, like staging or like the lock leads nowhere, and is not written through."""
    victim = tmp_path / "victim"
    (victim / ID).mkdir(parents=True)
    (victim / "kept").write_text("kept")
    store = BackupStore(tmp_path / "store")
    store.path.mkdir(mode=0o700)
    (store.path / ID).symlink_to(victim / ID)
    (store.path / f".{ID}.partial").symlink_to(victim)
    (store.path / f".{ID}.deleted").symlink_to(victim)
    assert () == store.ids()
    with pytest.raises(BackupNotFoundError):
        store.open(ID)
    with store.lock("backup"):
        assert {f".{ID}.partial", f".{ID}.deleted"} == set(store.remove_dead_staging())
    assert "kept" == (victim / "kept").read_text()
    (store.path / ".gitlab-backup.lock").unlink()
    (store.path / ".gitlab-backup.lock").symlink_to(victim / "kept")
    with pytest.raises(StoreError), store.lock("backup"):
        pass
    assert "kept" == (victim / "kept").read_text()


def test_a_backup_is_not_made_over_a_link(tmp_path: Path) -> None:
    """Where the id of a new backup is taken, if only by a dangling link, it is that of the next second."""
    from gitlab_backup.backup_id import BackupId

    at = BackupId.parse(ID).created_at
    store = BackupStore(tmp_path)
    (tmp_path / ID).symlink_to("nowhere")
    with store.lock("backup"), store.staging(at, "17.0.0-pre") as staging:
        assert "1714053315_2024_04_25_17.0.0-pre" == str(staging.backup_id)
