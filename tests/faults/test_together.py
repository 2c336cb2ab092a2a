"""Several operations at the same time: one works, the others are told, and who only reads is not disturbed."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from gitlab_backup import Backup, BackupStore
from gitlab_backup.errors import LockedError
from gitlab_backup.operations.prune import PruneOptions, prune
from gitlab_backup.retention import Rules
from gitlab_backup.streams.system import using
from tests.operations.pruned_store import is_whole

from .broken import Watched, path_of
from .outcomes import LOCK, entries
from .schedule import chosen

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.installation import ThrowawayInstallation

    from .plugin import Injected

ONE = PruneOptions(rules=Rules(keep_last=1, minimum=1))


class _Meddling(Watched):
    """Does something before each call of the file layer, or some of them; not within that itself."""

    def __init__(self, act: Callable[[], None], at: set[int] | None = None) -> None:
        super().__init__(self._watch_call)
        self.calls = 0
        self._act, self._at, self._busy = act, at, False

    def _watch_call(self, _call: str, what: object) -> None:
        # Before its file is there, nobody has the lock.
        if self._busy or path_of(what).endswith(LOCK):
            return
        self.calls += 1
        if self._at is not None and self.calls not in self._at:
            return
        self._busy = True
        try:
            self._act()
        finally:
            self._busy = False


@pytest.fixture
def living(installation: ThrowawayInstallation) -> ThrowawayInstallation:
    """An installation with two small backups."""
    for _ in range(2):
        Backup.create(installation.instance(), only=["lfs"])
    return installation


def _operations(living: ThrowawayInstallation) -> dict[str, Callable[[], object]]:
    store = BackupStore(living.backup_path)

    def restore() -> object:
        return Backup(store.path / store.ids()[0]).restore(living.instance(), only=["lfs"], jobs=1)

    return {
        "backup": lambda: Backup.create(living.instance(), only=["lfs", "uploads"], jobs=1),
        "restore": restore,
        # Only a whole backup of everything counts: these are deleted by name.
        "prune": lambda: _delete_all_but_one(store),
    }


def _delete_all_but_one(store: BackupStore) -> None:
    with store.lock("prune"):
        for name in store.ids()[:-1]:
            store.remove(name)


@pytest.mark.parametrize("first", ["backup", "restore", "prune"])
def test_one_works_and_the_others_are_told(living: ThrowawayInstallation, injected: Injected, first: str) -> None:
    """At each step that is tried: backup, restore and prune are refused; list and verify see whole backups."""
    operations = _operations(living)
    store = BackupStore(living.backup_path)
    instance = living.instance()
    seen = 0

    def meddle() -> None:
        nonlocal seen
        seen += 1
        for second in (
            lambda: Backup.create(instance, only=["lfs"]),
            lambda: Backup(store.path / store.ids()[-1]).restore(instance, only=["lfs"]),
            lambda: prune(store, ONE),
        ):
            with pytest.raises(LockedError, match=rf"by {first} \(pid"):
                second()
        assert [] == [name for name in store.ids() if not is_whole(store.path / name)]
        newest = Backup.open(store.path, "latest")
        assert () == newest.verify(jobs=1).damages
        assert newest.manifest is not None

    counting = _Meddling(lambda: None)
    pristine = living.directory / "pristine"
    shutil.copytree(store.path, pristine)
    with using(counting):
        operations[first]()
    shutil.rmtree(store.path)
    shutil.copytree(pristine, store.path)
    steps = set(chosen(counting.calls, few=6, most=40, salt=f"together {first}"))
    with using(_Meddling(meddle, steps)):
        operations[first]()
    injected("together", first, seen * 3)
    injected("together", "reading", seen * 2)
    assert [] == [name for name in entries(store.path) if name.startswith(".")]
    assert seen >= min(5, counting.calls)
