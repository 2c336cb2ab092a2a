"""Restoring repositories of whole installations: everything as in the backup, or as it was."""

from __future__ import annotations

import pickle
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from gitlab_backup.archivers.base import RestoreOptions
from gitlab_backup.archivers.git import GitArchiver
from gitlab_backup.errors import ComponentError, RefusedError
from tests.support.compare import differences, snapshot, tree, tree_differences
from tests.support.repositories import Shape, create, git

from .git_restoring import Restoring
from .git_run import ID, commit, job_of

if TYPE_CHECKING:
    from gitlab_backup.archivers.base import JSON
    from tests.support.compare import FileState
    from tests.support.installation import ThrowawayInstallation

ROOT = Path(__file__).parents[2]


def backed_up(installation: ThrowawayInstallation) -> Restoring:
    root = installation.directory / "backup"
    with job_of(root, installation.instance()) as job:
        details = GitArchiver().back_up(job)
    return Restoring(installation.instance(), root, details=details)


def paths(installation: ThrowawayInstallation, shape: Shape) -> list[Path]:
    return [
        installation.repository_path(repository)
        for repository in installation.repositories
        if repository.shape is shape
    ]


def change(installation: ThrowawayInstallation) -> None:
    """Push, delete, make and remove, as living users do."""
    first, second, *_ = paths(installation, Shape.ORDINARY)
    commit(first, "refs/heads/main", "new")
    git(first, "update-ref", "-d", "refs/tags/v1.0")
    git(first, "update-ref", "refs/heads/other", "refs/heads/main")
    git(first, "symbolic-ref", "HEAD", "refs/heads/other")
    shutil.rmtree(second)
    loose = paths(installation, Shape.LOOSE)[0]
    (loose / "custom_hooks" / "added").write_text("#!/bin/sh\n")
    commit(paths(installation, Shape.EMPTY)[0], "refs/heads/main", "first")
    create(installation.storages["default"] / "@hashed/00/11/new.git", Shape.ORDINARY, salt="new")
    create(installation.storages["second"] / "@new/here.git", Shape.EMPTY, salt="new")
    create(paths(installation, Shape.MISSING)[0], Shape.EMPTY, salt="found")


def everything(installation: ThrowawayInstallation) -> dict[str, dict[str, FileState]]:
    """Return all that is on the storages, to the last time of a directory."""
    return {name: tree(path) for name, path in installation.storages.items()}


def assert_same(before: dict[str, dict[str, FileState]], installation: ThrowawayInstallation) -> None:
    after = everything(installation)
    assert [] == [line for name in before for line in tree_differences(name, before[name], after[name])]


def test_round_trip(installation: ThrowawayInstallation) -> None:
    """Whatever was changed since, each repository is as it was when it was backed up, and nothing else is there."""
    expected = snapshot(installation)
    restoring = backed_up(installation)
    pools = tree(installation.storages["default"] / "@pools")
    change(installation)
    assert differences(expected, snapshot(installation))
    plan = restoring.plan()
    assert 2 == len(plan.replaces)
    restoring.all()
    assert [] == differences(expected, snapshot(installation))
    assert [] == tree_differences("pools", pools, tree(installation.storages["default"] / "@pools"))
    assert [] == restoring.warnings
    for storage in installation.storages.values():
        assert ["tmp"] == [path.name for path in (storage / "+gitaly").iterdir()]
    for pooled in paths(installation, Shape.POOLED):
        assert not (pooled / "objects" / "info" / "alternates").exists()


def test_everything_belongs_to_the_owner_of_the_storage(installation: ThrowawayInstallation) -> None:
    """GitLab can use what was restored, whoever restored it, and nobody else may write it."""
    restoring = backed_up(installation)
    for storage in installation.storages.values():
        shutil.rmtree(storage / "@hashed")
    restoring.all()
    for storage in installation.storages.values():
        expected = storage.stat().st_uid
        for name, entry in tree(storage / "@hashed").items():
            assert expected == (storage / "@hashed" / name).lstat().st_uid, name
            assert entry.kind[0] == "l" or entry.kind[8] == "-", name


@pytest.mark.parametrize("until", ["stage", "swap"])
def test_undo(installation: ThrowawayInstallation, until: str) -> None:
    """Undone after any step, and undone again, every file and directory is as it was."""
    restoring = backed_up(installation)
    change(installation)
    before = everything(installation)
    facts = restoring.all(until=until)
    restoring.undo(facts)
    assert_same(before, installation)
    restoring.undo(facts)
    assert_same(before, installation)


def kill(restoring: Restoring, facts: dict[str, JSON], phase: str, at: int, directory: Path) -> None:
    """Restore in another process, which is killed at the `at`-th step of a phase."""
    pickled = directory / "restoring.pickle"
    pickled.write_bytes(pickle.dumps((restoring, facts)))
    command = [sys.executable, "-m", "tests.archivers.git_restoring", str(pickled), phase, str(at)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    assert -signal.SIGKILL == done.returncode, done.stderr.decode()


# There are some 630 steps in the first phase, and 90 in each of the others.
@pytest.mark.parametrize(
    ("phase", "at"),
    [("stage", 1), ("stage", 400), *(("swap", at) for at in (1, 2, 9, 33, 61, 89)), ("undo", 5), ("undo", 50)],
)
def test_undo_after_a_kill(installation: ThrowawayInstallation, phase: str, at: int, tmp_path: Path) -> None:
    """Killed at any moment, it is undone by a process that knows only the facts; then it can be restored."""
    expected = snapshot(installation)
    restoring = backed_up(installation)
    change(installation)
    before = everything(installation)
    facts = restoring.plan().facts
    kill(restoring, facts, phase, at, tmp_path)
    again = Restoring(installation.instance(), restoring.root)
    again.undo(facts)
    assert_same(before, installation)
    again.all()
    assert [] == differences(expected, snapshot(installation))


def test_old_repositories_can_be_kept(installation: ThrowawayInstallation) -> None:
    """What was replaced stays, out of GitLab's sight, where the plan said; finishing twice is no harm."""
    restoring = backed_up(installation)
    restoring.options = RestoreOptions(keep_old=True)
    first = paths(installation, Shape.ORDINARY)[0]
    head = commit(first, "refs/heads/main", "new")
    facts = restoring.all()
    restoring.archiver.finish(restoring.job, facts)
    storage = installation.storages["default"]
    kept = storage / "+gitaly" / f"before-{ID}" / first.relative_to(storage)
    assert head == git(kept, "rev-parse", "refs/heads/main").decode().strip()


def test_a_cluster_is_refused(installation: ThrowawayInstallation) -> None:
    """Behind Praefect, only Gitaly may write."""
    restoring = backed_up(installation)
    (installation.storages["second"] / "@cluster").mkdir()
    with pytest.raises(RefusedError, match="Gitaly Cluster"):
        restoring.plan()


@pytest.mark.parametrize("keep_going", [False, True])
def test_one_repository_is_broken(installation: ThrowawayInstallation, keep_going: bool) -> None:  # noqa: FBT001
    """It is named. Either all stays as it was, or it alone does."""
    restoring = backed_up(installation)
    restoring.options = RestoreOptions(keep_going=keep_going)
    storage = installation.storages["default"]
    first, second = (path for path in paths(installation, Shape.ORDINARY)[:2])
    name = f"default/{first.relative_to(storage)}"
    bundle = restoring.root / "repositories" / name / ID / "001.bundle"
    content = bytearray(bundle.read_bytes())
    content[-30] ^= 1
    bundle.write_bytes(content)
    head = commit(first, "refs/heads/main", "newer")
    commit(second, "refs/heads/main", "newer")
    before = everything(installation)
    if keep_going:
        restoring.all()
        assert 1 == len(restoring.warnings)
        assert name in restoring.warnings[0]
        assert head == git(first, "rev-parse", "refs/heads/main").decode().strip()
        return
    facts = restoring.plan().facts
    with pytest.raises(ComponentError, match=name):
        restoring.archiver.stage(restoring.job, facts)
    restoring.undo(facts)
    assert_same(before, installation)


def test_what_could_not_be_backed_up_is_not_removed(installation: ThrowawayInstallation) -> None:
    """A repository that was broken at the time of the backup is not in it: what is left of it stays in its place."""
    broken, *_ = paths(installation, Shape.ORDINARY)
    shutil.rmtree(broken / "objects")
    root = installation.directory / "backup"
    with job_of(root, installation.instance(), keep_going=True) as job:
        details = GitArchiver().back_up(job)
    (broken / "objects").mkdir()
    before = tree(broken)
    create(installation.storages["default"] / "@hashed/00/11/later.git", Shape.ORDINARY, salt="later")
    Restoring(installation.instance(), root, details=details).all()
    assert [] == tree_differences("broken", before, tree(broken))
    assert not (installation.storages["default"] / "@hashed/00/11/later.git").exists()
