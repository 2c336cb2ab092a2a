"""The order in which things reach the disk, as the file layer sees it: what a loss of power could leave."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from gitlab_backup import Backup, BackupStore
from gitlab_backup.operations.prune import PruneOptions, prune
from gitlab_backup.retention import Rules
from gitlab_backup.streams.system import using
from tests.operations.pruned_store import id_at, make_backup

from .broken import Watched, path_of

if TYPE_CHECKING:
    from tests.support.installation import ThrowawayInstallation

    from .conftest import World
    from .plugin import Injected

Tree = dict[str, tuple[int, int, int]]


def _tree(root: Path) -> Tree:
    """Return what tells of each file and directory whether it was changed: all of them, whoever wrote them."""
    found = {}
    for directory, _, names in os.walk(root):
        for name in (*names, "."):
            status = os.lstat(os.path.join(directory, name))  # noqa: PTH118
            found[os.path.relpath(os.path.join(directory, name), root)] = (  # noqa: PTH118
                status.st_size,
                status.st_mtime_ns,
                status.st_ino,
            )
    return found


class Recorder(Watched):
    """Notes the calls in their order, with their paths; of whole trees, what was in them when they were synced."""

    def __init__(self, *, syncfs: bool = True) -> None:
        super().__init__(self._note)
        self.calls: list[tuple[str, str]] = []
        self.synced: dict[str, Tree] = {}
        self._syncfs = syncfs

    def _note(self, call: str, what: object) -> None:
        path = path_of(what)
        self.calls.append((call, path))
        if call == "syncfs":
            if not self._syncfs:
                raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
            self.synced[path] = _tree(Path(path))

    def rename_new(self, source: Path, target: Path) -> None:
        """Look at the tree at the last moment."""
        self.published = str(source), _tree(source)
        super().rename_new(source, target)

    def places(self, call: str, path: str) -> list[int]:
        """Return when something was done."""
        return [number for number, each in enumerate(self.calls) if each == (call, path)]


def test_a_backup(source: ThrowawayInstallation, injected: Injected) -> None:
    """One sync for the whole tree; nothing in it changes between that and the rename; then its directory is synced."""
    recorder = Recorder()
    with using(recorder):
        backup = Backup.create(source.instance())
    staging, at_last = recorder.published
    assert at_last == recorder.synced[staging]
    assert len(at_last) > 50
    assert [1, 0] == [len(recorder.places("syncfs", staging)), sum(call == "fsync" for call, _ in recorder.calls) - 1]
    (synced,) = recorder.places("syncfs", staging)
    (renamed,) = recorder.places("rename_new", str(backup.path))
    (directory,) = recorder.places("fsync", str(source.backup_path))
    assert synced < renamed < directory
    assert [] == [call for call in recorder.calls[synced + 1 :] if call[0] in {"write", "create"}]
    shutil.rmtree(source.backup_path)
    injected("power", "backup")


def test_a_backup_where_the_kernel_cannot_sync_a_file_system(source: ThrowawayInstallation, injected: Injected) -> None:
    """Every file and every directory is synced by itself, after its last write and before the rename."""
    recorder = Recorder(syncfs=False)
    with using(recorder):
        backup = Backup.create(source.instance())
    staging, at_last = recorder.published
    (renamed,) = recorder.places("rename_new", str(backup.path))
    for name in at_last:
        path = os.path.normpath(f"{staging}/{name}")
        syncs = recorder.places("fsync", path)
        writes = recorder.places("write", path)
        assert syncs, name
        assert max([-1, *writes]) < syncs[-1] < renamed, name
    shutil.rmtree(source.backup_path)
    injected("power", "backup")


def test_a_restore(world: World, injected: Injected) -> None:
    """The journal is on disk before anything is made, each new tree before the old one moves, and then the names."""
    victim = world.target.copy(world.target.directory.with_name(f"{world.target.directory.name}-recorded"))
    recorder = Recorder()
    with using(recorder):
        world.made.restore(victim.instance(), only=["uploads", "lfs"], jobs=1)
    store = str(victim.backup_path)
    journal = recorder.places("rename", f"{store}/.gitlab-restore.journal")
    made = [number for number, (call, path) in enumerate(recorder.calls) if call == "write" and store not in path]
    on_disk = next(number for number in recorder.places("fsync", store) if number > journal[0])
    assert journal[0] < on_disk < made[0]
    moved = [number for number, (call, path) in enumerate(recorder.calls) if call == "rename" and store not in path]
    assert len(moved) == 4
    for component in ("uploads", "lfs"):
        target = str(victim.directories[component])
        above = str(victim.directories[component].parent)
        (synced,) = [
            number
            for number, (call, path) in enumerate(recorder.calls)
            if call == "syncfs" and str(Path(path).parent) == above
        ]
        (placed,) = recorder.places("rename", target)
        # The old one moved just before.
        assert synced < placed - 1
        assert [number for number in recorder.places("fsync", above) if number > placed]
    decided = journal[-1]
    removed = [number for number, (call, path) in enumerate(recorder.calls) if call == "rmdir" and "before" in path]
    assert moved[-1] < decided < min(removed)
    victim.remove()
    injected("power", "restore")


def test_a_pruning(tmp_path: Path, injected: Injected) -> None:
    """A backup has its hidden name on disk before the first of its files goes."""
    ids = [id_at(1_714_053_314 + number * 86_400) for number in range(3)]
    for name in ids:
        make_backup(tmp_path / "store", name)
    (tmp_path / "store").chmod(0o700)
    store = BackupStore(tmp_path / "store")
    recorder = Recorder()
    with using(recorder):
        prune(store, PruneOptions(rules=Rules(keep_last=1)))
    for name in ids[:2]:
        (hidden,) = recorder.places("rename_new", str(store.path / f".{name}.deleted"))
        after = [call for call, _ in recorder.calls[hidden + 1 :]]
        assert after.index("fsync") < after.index("unlink")
    injected("power", "prune")


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_the_recorder_notices(tmp_path: Path, kind: str) -> None:
    """What comes after the sync differs from what was synced: the tests above can fail."""
    root = tmp_path / "tree"
    root.mkdir()
    (root / "a").write_bytes(b"1")
    synced = _tree(root)
    (root / "b").mkdir() if kind == "directory" else (root / "a").write_bytes(b"22")
    assert synced != _tree(root)
