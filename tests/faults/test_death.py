"""Whenever a run is killed, the next one finds nothing in between and leaves nothing behind."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from gitlab_backup import Backup, BackupStore
from gitlab_backup.events import Event, Noticed
from gitlab_backup.operations.prune import PruneOptions, prune
from gitlab_backup.retention import Rules
from tests.operations.hostile import leftovers
from tests.operations.killing import NEVER, backup_killed, prune_killed, restore_killed
from tests.operations.pruned_store import id_at, is_whole, make_backup
from tests.support import compare

from .outcomes import entries, unchanged
from .schedule import chosen

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.installation import ThrowawayInstallation

    from .conftest import World
    from .plugin import Injected

PARTS = 2
"""How many workers can share the work."""


@pytest.mark.slow
@pytest.mark.timeout(1700)
@pytest.mark.parametrize("part", range(PARTS))
def test_a_killed_backup(source: ThrowawayInstallation, injected: Injected, part: int) -> None:
    """There is no visible backup; the next run removes the staging, succeeds, and leaves nothing but its own."""
    steps = backup_killed(source, NEVER)
    assert steps is not None
    shutil.rmtree(source.backup_path)
    unfinished = 0
    for step in chosen(steps - 1, few=4, most=100, salt="backup")[part::PARTS]:
        if backup_killed(source, step) is not None:
            break  # it had fewer steps this time
        store = BackupStore(source.backup_path)
        # Killed after the rename, it is there, whole.
        assert [] == [name for name in store.ids() if not is_whole(store.path / name)]
        unfinished += bool(store.staged())
        done = Backup.create(source.instance(), only=["lfs", "uploads"])
        assert sorted({*store.ids(), done.id}) == entries(source.backup_path)
        injected("killed", "backup")
        shutil.rmtree(source.backup_path)
    shutil.rmtree(source.backup_path, ignore_errors=True)
    assert unfinished


@pytest.mark.slow
@pytest.mark.timeout(1700)
@pytest.mark.parametrize("part", range(PARTS))
def test_a_killed_restore(world: World, injected: Injected, part: int) -> None:
    """The next run, here a dry one, puts back what was; or it finishes, when all was in place already."""

    target, made = world.target, world.made

    def fresh() -> ThrowawayInstallation:
        return target.copy(target.directory.with_name(f"{target.directory.name}-{part}"))

    victim = fresh()
    steps = restore_killed(victim, made, NEVER, calls=True)
    assert steps is not None
    victim.remove()
    victim = fresh()
    for step in chosen(steps - 1, few=3, most=100, salt="restore")[part::PARTS]:
        if restore_killed(victim, made, step, calls=True) is not None:
            break  # it had fewer steps this time
        noticed: list[Event] = []
        made.restore(victim.instance(), dry_run=True, observer=noticed.append)
        if any("was finished" in event.message for event in noticed if isinstance(event, Noticed)):
            assert [] == compare.differences(world.original, compare.snapshot(victim))
            assert [] == leftovers(victim)
            victim.remove()
            victim = fresh()
        else:
            unchanged(victim, world.before)
        injected("killed", "restore")
    victim.remove()


@pytest.mark.slow
@pytest.mark.timeout(1700)
def test_a_killed_pruning(tmp_path: Path, injected: Injected) -> None:
    """Each backup is whole or gone, what is to stay is there, and the next run removes what is left of the others."""
    ids = [id_at(1_714_053_314 + number * 86_400) for number in range(4)]
    pristine, store = tmp_path / "pristine", BackupStore(tmp_path / "store")
    for name in ids:
        make_backup(pristine, name)
    pristine.chmod(0o700)
    shutil.copytree(pristine, store.path)
    steps = prune_killed(store.path, 2, NEVER)
    assert steps is not None
    for step in chosen(steps, few=5, most=150, salt="prune"):
        shutil.rmtree(store.path)
        shutil.copytree(pristine, store.path)
        assert prune_killed(store.path, 2, step) is None
        assert set(ids[2:]) <= set(store.ids())
        assert [] == [name for name in store.ids() if not is_whole(store.path / name)]
        prune(store, PruneOptions(rules=Rules(keep_last=2)))
        assert ids[2:] == entries(store.path)
        injected("killed", "prune")
