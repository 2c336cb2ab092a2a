"""A restore leaves the instance as the backup, or as it was."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from attrs import evolve

from gitlab_backup import COMPONENTS, Backup, BackupStore, Cancellation
from gitlab_backup.archivers import registry
from gitlab_backup.errors import (
    CancelledError,
    DamagedError,
    ExitStatus,
    GitLabBackupError,
    LockedError,
    RefusedError,
    RestoreFailedError,
    StoreError,
    UsageError,
)
from gitlab_backup.events import Event, Noticed, Status
from tests.operations.changes import change, wipe
from tests.operations.hostile import JOURNAL, leftovers
from tests.operations.killing import NEVER, restore_killed
from tests.support import compare

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from gitlab_backup.archivers.base import Archiver
    from gitlab_backup.operations.restore import Proposal
    from tests.support.installation import ThrowawayInstallation
    from tests.support.postgres import Cluster

_STEPS = ("Restart", "gitlab:check", "gitlab:doctor:secrets", "reset_pool", "cache:clear")
STEPS = ("plan_restore", "stage", "swap")


@pytest.fixture
def swapping(cluster: Cluster) -> Iterator[None]:
    """GitLab's role may create databases, as on an installation from source: they are swapped, and can go back."""
    cluster.psql("ALTER ROLE gitlab CREATEDB")
    yield
    cluster.psql("ALTER ROLE gitlab NOCREATEDB")


@pytest.fixture
def backup(installation: ThrowawayInstallation) -> Backup:
    """A backup of the installation, which has changed since."""
    made = Backup.create(installation.instance())
    change(installation, seed=1)
    return made


def test_everything_is_restored(installation: ThrowawayInstallation) -> None:
    """After a wipe, the installation equals the one that was backed up: schemas, rows, refs, hooks, files."""
    before = compare.snapshot(installation)
    backup = Backup.create(installation.instance())
    wipe(installation)
    restored = backup.restore(installation.instance())
    assert compare.differences(before, compare.snapshot(installation)) == []
    assert not restored.with_warnings
    made = backup.manifest.components if backup.manifest is not None else ()
    assert [r.id for r in made if r.status is Status.COMPLETE] == [r.id for r in restored.components]
    assert len(_STEPS) == len(restored.next_steps)
    assert all(word in step for word, step in zip(_STEPS, restored.next_steps, strict=True))
    assert leftovers(installation) == []


def test_changes_are_gone(installation: ThrowawayInstallation) -> None:
    """What came, went or changed after the backup is as it was."""
    before = compare.snapshot(installation)
    backup = Backup.create(installation.instance())
    change(installation, seed=2)
    assert compare.differences(before, compare.snapshot(installation)) != []
    backup.restore(installation.instance())
    assert compare.differences(before, compare.snapshot(installation)) == []


@pytest.mark.parametrize("component", ["db", "repositories", "uploads"])
def test_a_part_touches_nothing_else(installation: ThrowawayInstallation, backup: Backup, component: str) -> None:
    """With `only`, everything else stays as it is now."""
    changed = compare.snapshot(installation)
    steps = " ".join(backup.restore(installation.instance(), only=[component]).next_steps)
    assert (component == "db") == ("doctor" in steps)
    assert (component == "repositories") == ("pool" in steps)
    places = {line.split(":")[0].split(" ")[0] for line in compare.differences(changed, compare.snapshot(installation))}
    own = {"db": {"database"}, "repositories": {"repository"}, "uploads": {"uploads"}}[component]
    assert places == own


def test_the_proposal_comes_before_any_change(installation: ThrowawayInstallation, backup: Backup) -> None:
    """The one who confirms sees every component; who does not confirm gets nothing changed."""
    before = compare.snapshot(installation)
    seen: list[Proposal] = []

    def no(proposal: Proposal) -> bool:
        seen.append(proposal)
        return False

    with pytest.raises(RefusedError, match="not confirmed"):
        backup.restore(installation.instance(), confirm=no)
    assert compare.differences(before, compare.snapshot(installation)) == []
    assert all(plan.replaces for plan in seen[0].plans.values())
    assert "database main" in seen[0].plans["db"].replaces[0]
    assert leftovers(installation) == []


def test_a_dry_run_changes_nothing(installation: ThrowawayInstallation, backup: Backup) -> None:
    """It makes all checks and says what would be done."""
    before = compare.snapshot(installation)
    restored = backup.restore(installation.instance(), dry_run=True)
    assert restored.dry_run
    assert set(restored.proposal.plans) >= {"db", "repositories", "uploads"}
    assert compare.differences(before, compare.snapshot(installation)) == []
    assert leftovers(installation) == []


def test_another_version_is_refused(installation: ThrowawayInstallation, backup: Backup) -> None:
    """The error names both versions, and another edition; `force_version` goes on, and says so."""
    instance = evolve(installation.instance(), gitlab_version="17.1.0-ee")
    with pytest.raises(RefusedError, match=r"17\.0\.0-pre.*17\.1\.0-ee.*Enterprise"):
        backup.restore(instance)
    restored = backup.restore(instance, force_version=True, dry_run=True)
    assert any("17.1.0-ee" in note for note in restored.proposal.notes)


def test_secrets_are_compared(installation: ThrowawayInstallation) -> None:
    """Only the digest was kept; a restore says whether the file is the same, and never what is in it."""
    secrets = installation.directory / "gitlab-secrets.json"
    secrets.write_text('{"db_key_base": "ONE"}')
    instance = evolve(installation.instance(), secrets_file=secrets)
    backup = Backup.create(instance, only=["db"])
    same = backup.restore(instance, dry_run=True).proposal.notes
    assert "Put the" not in backup.restore(instance, dry_run=True).next_steps[0]
    secrets.write_text('{"db_key_base": "TWO"}')
    other = backup.restore(instance, dry_run=True).proposal.notes
    assert "Put the" in backup.restore(instance, dry_run=True).next_steps[0]
    assert any("is the same" in note for note in same)
    assert any("is NOT the same" in note for note in other)


def test_damage_is_found_before_anything_changes(installation: ThrowawayInstallation, backup: Backup) -> None:
    """A flipped byte in one archive refuses the restore of all; what is whole can be restored without it."""
    archive = backup.path / "uploads.tar.gz"
    content = bytearray(archive.read_bytes())
    content[len(content) // 2] ^= 0x10
    archive.write_bytes(content)
    before = compare.snapshot(installation)
    with pytest.raises(DamagedError, match=r"uploads\.tar\.gz"):
        backup.restore(installation.instance())
    assert compare.differences(before, compare.snapshot(installation)) == []
    backup.restore(installation.instance(), skip=["uploads"])


def test_without_verification_damage_still_changes_nothing(installation: ThrowawayInstallation, backup: Backup) -> None:
    """`verify=False` is recorded, and what is broken fails while it is staged."""
    archive = backup.path / "uploads.tar.gz"
    archive.write_bytes(archive.read_bytes()[:-30])
    before = compare.snapshot(installation)
    with pytest.raises(GitLabBackupError):
        backup.restore(installation.instance(), verify=False)
    assert compare.differences(before, compare.snapshot(installation)) == []
    assert leftovers(installation) == []


def test_what_is_not_in_the_backup(installation: ThrowawayInstallation) -> None:
    """Asked for by name it is an error; otherwise it is left as it is, and that is said."""
    backup = Backup.create(installation.instance(), only=["uploads", "lfs"])
    with pytest.raises(RefusedError, match="has no pages"):
        backup.restore(installation.instance(), only=["pages"])
    with pytest.raises(RefusedError, match="nothing"):
        backup.restore(installation.instance(), skip=["uploads", "lfs"])
    restored = backup.restore(installation.instance())
    assert any("pages" in note for note in restored.proposal.notes)


def test_names_that_do_not_exist(installation: ThrowawayInstallation, backup: Backup) -> None:
    """They are usage errors."""
    with pytest.raises(UsageError):
        backup.restore(installation.instance(), only=["upload"])
    with pytest.raises(UsageError):
        backup.restore(installation.instance(), database_strategy="magic")


def test_one_at_a_time(installation: ThrowawayInstallation, backup: Backup) -> None:
    """A restore waits for nobody: it says who has the lock."""
    with BackupStore(installation.backup_path).lock("backup"), pytest.raises(LockedError):
        backup.restore(installation.instance())


def test_a_backup_from_elsewhere(installation: ThrowawayInstallation, backup: Backup, tmp_path: Path) -> None:
    """A backup that was copied to another directory is restored from there, under the lock of both."""
    before = compare.snapshot(installation)
    other = Backup(shutil.copytree(backup.path, tmp_path / backup.id))
    other.restore(installation.instance())
    assert compare.differences(before, compare.snapshot(installation)) != []
    with BackupStore(tmp_path).lock("prune"), pytest.raises(LockedError):
        other.restore(installation.instance())


class _Failing:
    """An archiver that does what another one does, until it fails in one step."""

    def __init__(self, archiver: Archiver, component: str, step: str, when: str) -> None:
        self._archiver, self._component, self._step, self._when = archiver, component, step, when

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._archiver, name)
        if name != self._step:
            return found

        def act(job: Any, *rest: Any) -> Any:
            if job.component.id != self._component:
                return found(job, *rest)
            if self._when == "after":
                found(job, *rest)
            raise OSError(28, "No space left on device")

        return act


def _fail(monkeypatch: pytest.MonkeyPatch, component: str, step: str, when: str) -> None:
    archiver = next(c.archiver for c in COMPONENTS if c.id == component)
    made = registry._BUILT_IN[archiver]
    monkeypatch.setitem(registry._BUILT_IN, archiver, lambda: _Failing(made(), component, step, when))


@pytest.mark.parametrize("moment", [(step, when) for step in STEPS for when in ("before", "after")])
@pytest.mark.parametrize("component", ["db", "repositories", "uploads", "external_diffs"])
@pytest.mark.usefixtures("swapping")
def test_every_step_that_fails_is_undone(
    installation: ThrowawayInstallation,
    backup: Backup,
    monkeypatch: pytest.MonkeyPatch,
    component: str,
    moment: tuple[str, str],
) -> None:
    """Whichever component fails, in whichever step, before or after its work: everything is exactly as it was."""
    before = compare.snapshot(installation)
    _fail(monkeypatch, component, *moment)
    with pytest.raises((RestoreFailedError, OSError), match="No space left") as error:
        backup.restore(installation.instance())
    assert "could be put back" not in str(error.value)
    assert compare.differences(before, compare.snapshot(installation)) == []
    assert leftovers(installation) == []


@pytest.mark.parametrize("moment", [(step, when) for step in STEPS for when in ("before", "after")])
def test_transactions_are_undone_until_they_are_committed(
    installation: ThrowawayInstallation, monkeypatch: pytest.MonkeyPatch, moment: tuple[str, str]
) -> None:
    """They come last. Once committed, there is no way back: all the rest is completed, and the error says so."""
    original = compare.snapshot(installation)
    backup = Backup.create(installation.instance())
    change(installation, seed=1)
    before = compare.snapshot(installation)
    _fail(monkeypatch, "db", *moment)
    with pytest.raises((RestoreFailedError, OSError), match="No space left") as error:
        backup.restore(installation.instance())
    committed = moment == ("swap", "after")
    assert compare.differences(original if committed else before, compare.snapshot(installation)) == []
    assert committed == ("cannot be undone" in str(error.value))
    assert leftovers(installation) == []


@pytest.mark.parametrize("status", [ExitStatus.INTERRUPTED, ExitStatus.TERMINATED])
def test_cancelled_while_staging(installation: ThrowawayInstallation, backup: Backup, status: ExitStatus) -> None:
    """A request to stop puts everything back, and keeps its status."""
    before = compare.snapshot(installation)
    cancel = Cancellation()

    def observe(event: Event) -> None:
        if type(event).__name__ == "ComponentStarted" and (installation.backup_path / JOURNAL).exists():
            cancel.request(status)

    with pytest.raises(CancelledError) as error:
        backup.restore(installation.instance(), observer=observe, cancel=cancel)
    assert error.value.exit_status is status
    assert compare.differences(before, compare.snapshot(installation)) == []
    assert leftovers(installation) == []


def test_a_journal_that_cannot_be_read_stops_everything(installation: ThrowawayInstallation, backup: Backup) -> None:
    """Neither a backup nor a restore goes on over what an interrupted restore may have left."""
    (installation.backup_path / JOURNAL).write_text("{")
    with pytest.raises(StoreError, match="journal"):
        Backup.create(installation.instance())
    with pytest.raises(StoreError, match="journal"):
        backup.restore(installation.instance())


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_at_any_moment(installation: ThrowawayInstallation, backup: Backup) -> None:
    """After SIGKILL the next run leaves the installation as it was, or as the backup, and no leftovers."""
    original = compare.snapshot(installation)
    steps = restore_killed(installation, backup, NEVER)
    assert steps is not None
    restored = compare.snapshot(installation)
    undone = finished = 0
    for last in range(1, steps, max(1, steps // 6)):
        change(installation, seed=last)
        before = compare.snapshot(installation)
        if restore_killed(installation, backup, last) is not None:
            break  # it had fewer steps this time: what runs side by side is not the same twice
        noticed: list[Event] = []
        Backup.create(installation.instance(), only=["lfs"], observer=noticed.append)
        after = compare.snapshot(installation)
        if compare.differences(before, after) == []:
            undone += 1
        else:
            assert compare.differences(restored, after) == []
            finished += 1
        assert leftovers(installation) == [], f"killed at step {last} of {steps}"
        assert any(isinstance(event, Noticed) and "restore" in event.message for event in noticed) or last == 1
    assert undone > 0
    assert compare.differences(original, restored) != []


def test_a_journal_says_what_was_planned(installation: ThrowawayInstallation, backup: Backup) -> None:
    """A person can read it: JSON, with the backup, and for each component what is made and moved."""
    steps = restore_killed(installation, backup, NEVER)
    assert steps is not None
    change(installation, seed=9)
    assert restore_killed(installation, backup, steps // 2) is None
    document = json.loads((installation.backup_path / JOURNAL).read_text())
    assert document["backup"] == str(backup.path)
    assert {entry["component"] for entry in document["entries"]} >= {"db", "repositories", "uploads"}
