"""A disk that is full, over its quota, broken or read-only, at any call."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import pytest
from attrs import evolve

from gitlab_backup import Backup, BackupStore
from gitlab_backup.archivers.base import RepositoryOptions
from gitlab_backup.errors import DamagedError, GitLabBackupError
from gitlab_backup.events import Status
from gitlab_backup.operations.prune import PruneOptions, prune
from gitlab_backup.retention import Rules
from gitlab_backup.streams.system import using
from gitlab_backup.streams.tar.report import display
from tests.operations.hostile import JOURNAL, leftovers
from tests.operations.pruned_store import id_at, is_whole, make_backup
from tests.support import compare
from tests.support.accounts import is_root

from .broken import CHANGES, ERRORS, MAKES, READS, Failing, Watched, path_of
from .outcomes import LOCK, entries, unchanged
from .schedule import chosen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.installation import ThrowawayInstallation

    from .conftest import World
    from .plugin import Injected

FILES = ("uploads", "lfs", "external_diffs")
GROWING = (*MAKES, "write", "fsync", "syncfs", "rename", "rename_new")
"""The calls that a full disk can refuse. What makes something disappear is not what that is about."""


def _calls(kinds: tuple[str, ...], run: Callable[[], object], *, about: str = "") -> int:
    """Count the calls of an operation that works."""
    counting = Failing(0, kinds=kinds, about=about)
    with using(counting):
        run()
    return counting.calls


def _error(run: Callable[[], object]) -> GitLabBackupError | None:
    """Return the error of an operation, if it fails."""
    try:
        run()
    except GitLabBackupError as error:
        return error
    return None


@pytest.mark.slow
@pytest.mark.timeout(1700)
@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("only", [FILES, ("db",), ("repositories",), ("repositories", "increments")])
def test_a_backup(source: ThrowawayInstallation, injected: Injected, error: str, only: tuple[str, ...]) -> None:
    """Whichever call fails: an error of ours, no new backup, nothing left; and the next one succeeds."""
    instance = source.instance()
    incremental = "increments" in only
    base = [Backup.create(instance, only=["repositories"]).id] if incremental else []

    def run() -> Backup:
        components = [each for each in only if each != "increments"]
        options = RepositoryOptions(incremental=incremental)
        return Backup.create(instance, only=components, jobs=1, repositories=options)

    def clear() -> None:
        for name in entries(source.backup_path):
            if name not in base:
                shutil.rmtree(source.backup_path / name)

    place = str(source.backup_path)
    seen: list[str] = []

    def note(call: str, what: object) -> None:
        if call in GROWING and place in path_of(what):
            seen.append(call)

    with using(Watched(note)):
        assert run().manifest is not None
    assert ("link" in seen) == ("repositories" in only)
    clear()
    few, most = (3, 60) if only == FILES else (1, 12)
    for at in chosen(len(seen), few=few, most=most, salt=f"{error} {only}", kinds=seen):
        failing = Failing(ERRORS[error], kinds=GROWING, at=at, about=place)
        with using(failing):
            raised = _error(run)
        if not failing.failed:  # it had fewer calls this time: pieces that come from programs are of any size
            assert raised is None
            clear()
            continue
        assert raised is not None, failing.failed
        assert os.strerror(ERRORS[error]) in str(raised), failing.failed
        if failing.failed == f"fsync {place}":
            # The backup is there, but might not outlive a crash.
            assert all(is_whole(source.backup_path / name) for name in entries(source.backup_path))
            clear()
        else:
            assert raised.hint, failing.failed
            assert base == entries(source.backup_path), failing.failed
        injected(error, "backup")
    assert [*base, run().id] == entries(source.backup_path)
    shutil.rmtree(source.backup_path)


@pytest.mark.slow
@pytest.mark.timeout(1700)
@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("only", [FILES, ("repositories",)])
def test_a_restore(world: World, injected: Injected, error: str, only: tuple[str, ...]) -> None:
    """Whichever call fails: all is put back, and nothing is left; after the restore was decided, all is in place."""
    target, made = world.target, world.made
    copy = target.copy(target.directory.with_name(f"{target.directory.name}-counted"))
    seen: list[str] = []
    with using(Watched(lambda call, what: seen.append(f"{call} {path_of(what)}") if call in GROWING else None)):
        made.restore(copy.instance(), only=only, jobs=1)
    journal = f"rename {copy.backup_path}/{JOURNAL}"
    decided = max(number for number, call in enumerate(seen, 1) if call == journal)
    copy.remove()
    kinds = [call.partition(" ")[0] for call in seen]
    assert {"create", "mkdir", "write", "rename", *(("symlink", "link") if only == FILES else ())} <= set(kinds)
    few, most = (4, 50) if only == FILES else (2, 40)
    for at in chosen(decided, few=few, most=most, salt=f"restore {error} {only}", kinds=kinds):
        failing = Failing(ERRORS[error], kinds=GROWING, at=at)
        with using(failing), pytest.raises(GitLabBackupError, match=os.strerror(ERRORS[error])) as caught:
            made.restore(target.instance(), only=only, jobs=1)
        assert failing.failed
        assert caught.value.hint, failing.failed
        unchanged(target, world.before)
        injected(error, "restore")
    # Once it is written that the restore is decided, only its way to the disk can fail.
    victim = target.copy(target.directory.with_name(f"{target.directory.name}-decided"))
    failing = Failing(ERRORS[error], kinds=GROWING, at=decided + 1)
    with using(failing), pytest.raises(GitLabBackupError, match="is as in the backup, but that may not outlive"):
        made.restore(victim.instance(), only=only, jobs=1)
    assert failing.failed == f"fsync {victim.backup_path}"
    found = compare.snapshot(victim)
    if only == FILES:
        assert {name: world.original.files[name] for name in FILES} == {name: found.files[name] for name in FILES}
    else:
        # Object pools are not part of a backup.
        states = (world.original.repositories, found.repositories)
        expected, restored = ({p: state for p, state in each.items() if "/@pools/" not in p} for each in states)
        assert expected == restored
    assert [] == leftovers(victim)
    victim.remove()
    injected(error, "restore")


@pytest.mark.timeout(1700)
@pytest.mark.parametrize("error", ERRORS)
def test_a_pruning(tmp_path: Path, injected: Injected, error: str) -> None:
    """What cannot be deleted is whole or hidden, all else is deleted, and the next run does the rest."""
    ids = [id_at(1_714_053_314 + number * 86_400) for number in range(4)]
    pristine, store = tmp_path / "pristine", BackupStore(tmp_path / "store")
    for name in ids:
        make_backup(pristine, name)
    pristine.chmod(0o700)
    options = PruneOptions(rules=Rules(keep_last=2))
    shutil.copytree(pristine, store.path)
    total = _calls(CHANGES, lambda: prune(store, options))
    for at in chosen(total, few=4, most=120, salt=f"prune {error}"):
        shutil.rmtree(store.path)
        shutil.copytree(pristine, store.path)
        with using(Failing(ERRORS[error], kinds=CHANGES, at=at)), pytest.raises(GitLabBackupError):
            prune(store, options)
        assert set(ids[2:]) <= set(store.ids())
        assert [] == [name for name in store.ids() if not is_whole(store.path / name)]
        prune(store, options)
        assert ids[2:] == entries(store.path)
        injected(error, "prune")


@contextmanager
def mounted(place: Path, *options: str) -> Iterator[None]:
    """Mount something at `place`; skip the test where that cannot be."""
    if not is_root() or subprocess.run(["mount", *options, place], check=False, capture_output=True).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", place], check=True)


@contextmanager
def unreadable(path: Path) -> Iterator[None]:
    """Have the kernel answer EIO to whoever reads a file: the memory of a process has nothing at address 0."""
    with mounted(path, "--bind", f"/proc/{os.getpid()}/mem"):
        yield


def _fill(path: Path) -> None:
    """Write until the kernel says that there is no space."""
    with path.open("wb", 0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))


def test_pruning_makes_room_on_a_full_disk(tmp_path: Path, injected: Injected) -> None:
    """Where not one byte can be written, not even who holds the lock, backups can still be deleted."""
    ids = [id_at(1_714_053_314 + number * 86_400) for number in range(3)]
    place = tmp_path / "small"
    place.mkdir()
    with mounted(place, "-t", "tmpfs", "-o", "size=512k,mode=0700", "none"):
        for name in ids:
            make_backup(place, name)
        _fill(place / "rest")
        done = prune(BackupStore(place), PruneOptions(rules=Rules(keep_last=1)))
        assert (ids[:2], ids[2:]) == ([each.name for each in done.deleted], list(BackupStore(place).ids()))
    injected("ENOSPC", "prune")


def test_read_only(world: World, tmp_path: Path, injected: Injected) -> None:
    """What would write says so before it has changed anything; what reads works."""
    target, made = world.target, world.made
    place = tmp_path / "store"
    place.mkdir(mode=0o700)
    shutil.copytree(made.path, place / made.id)
    (place / LOCK).touch(mode=0o600)
    store = BackupStore(place)
    with mounted(place, "--bind", str(place)):
        subprocess.run(["mount", "-o", "remount,ro,bind", place], check=True)
        with pytest.raises(GitLabBackupError, match="Read-only file system") as caught:
            Backup.create(evolve(target.instance(), backup_path=place), only=["lfs"])
        assert caught.value.hint
        injected("read-only", "backup")
        with pytest.raises(GitLabBackupError, match="Read-only file system") as caught:
            prune(store, PruneOptions(rules=Rules(keep_last=1)))
        assert caught.value.hint
        injected("read-only", "prune")
        assert (made.id,) == store.ids()
        assert () == Backup.open(place, made.id).verify().damages
        injected("read-only", "reading")
    lfs = target.directories["lfs"]
    with mounted(lfs, "--bind", str(lfs)):
        subprocess.run(["mount", "-o", "remount,ro,bind", lfs], check=True)
        with pytest.raises(GitLabBackupError, match="lfs"):
            made.restore(target.instance())
    unchanged(target, world.before)
    injected("read-only", "restore")


@pytest.mark.timeout(1700)
def test_files_that_cannot_be_read(source: ThrowawayInstallation, injected: Injected) -> None:
    """Whichever read fails: the file is named in the manifest, the archive is sound, and has all the others."""
    large = source.directories["lfs"] / "large"
    large.write_bytes(os.urandom(3 << 20))
    instance = source.instance()
    total = _calls(READS, lambda: Backup.create(instance, only=["lfs"], jobs=1))
    for at in chosen(total, few=5, most=60, salt="reads"):
        failing = Failing(ERRORS["EIO"], kinds=READS, at=at)
        with using(failing):
            backup = Backup.create(instance, only=["lfs"], jobs=1)
        manifest = backup.manifest
        assert manifest is not None
        record = next(record for record in manifest.components if record.id == "lfs")
        name = display(os.fsencode(failing.failed.partition("lfs-objects/")[2]))
        assert Status.WARNING is record.status
        assert any(name in warning and "Input/output error" in warning for warning in record.warnings), name
        assert () == backup.verify().damages
        injected("unreadable", "backup")
        shutil.rmtree(source.backup_path)
    large.unlink()


def test_a_file_that_the_kernel_cannot_read(
    source: ThrowawayInstallation, backup: Backup, world: World, injected: Injected
) -> None:
    """The same with a real error of a real read: in a source, and in a backup."""
    victim = next(path for path in sorted(source.directories["uploads"].rglob("*")) if path.is_file())
    with unreadable(victim):
        made = Backup.create(source.instance(), only=["uploads"])
    assert made.manifest is not None
    warnings = [warning for record in made.manifest.components for warning in record.warnings]
    assert any(victim.name in warning and "Input/output error" in warning for warning in warnings)
    injected("unreadable", "backup")
    shutil.rmtree(source.backup_path)
    for name in ("uploads.tar.gz", "manifest.json", "db/database.sql.gz"):
        with unreadable(backup.path / name):
            assert name in {damage.file for damage in backup.verify().damages}
            injected("unreadable", "reading")
            with pytest.raises(DamagedError, match=name):
                backup.restore(world.target.instance())
            injected("unreadable", "restore")
    unchanged(world.target, world.before)


def test_a_backup_that_cannot_be_read_is_not_pruned(tmp_path: Path, injected: Injected) -> None:
    """Nobody knows whether it is whole: it stays, is named, and stands for no other."""
    ids = [id_at(1_714_053_314 + number * 86_400) for number in range(3)]
    for name in ids:
        make_backup(tmp_path / "store", name)
    (tmp_path / "store").chmod(0o700)
    store = BackupStore(tmp_path / "store")
    with unreadable(store.path / ids[2] / "manifest.json"):
        done = prune(store, PruneOptions(rules=Rules(keep_last=1)))
    assert [ids[2]] == [each.name for each in done.left_alone]
    assert [ids[1], ids[2]] == list(store.ids())
    injected("unreadable", "prune")
