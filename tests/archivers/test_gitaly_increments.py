"""Increments by gitaly-backup: what it is given to build on, and what it is not believed."""

from __future__ import annotations

import shutil
import tomllib
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from attrs import define, evolve, field

from gitlab_backup import Backup
from gitlab_backup.archivers.base import RepositoryOptions
from gitlab_backup.errors import GitLabBackupError, RefusedError
from gitlab_backup.events import Noticed
from tests.support.repositories import Shape, git

from .git_run import SCHEMA, commit, init
from .gitaly_run import GitalyBench
from .increments_run import INCREMENTAL, details_of, state

if TYPE_CHECKING:
    from pathlib import Path

    from gitlab_backup.events import Event
    from tests.support.postgres import Cluster

VERSIONS = ("17.3.0", "17.6.0", "18.3.0", "18.11.0", "19.0.0")
BEFORE_18_3 = ("17.3.0", "17.6.0")


@define
class Increments(GitalyBench):
    """Storages whose repositories are backed up again and again."""

    events: list[Event] = field(factory=list)

    def create(self, **options: Any) -> Backup:
        options = {"repositories": INCREMENTAL, "observer": self.events.append, **options}
        return super().create(**options)

    def alone(self, backup: Backup) -> Backup:
        """Remove all other backups, and verify the one that is left."""
        for other in (self.directory / "backups").iterdir():
            if other.is_dir() and other != backup.path:
                shutil.rmtree(other)
        assert () == backup.verify().damages
        return backup

    def restored(self, backup: Backup, path: Path) -> object:
        """Return what a repository is like after a restore by gitaly-backup, when it was lost."""
        shutil.rmtree(path)
        backup.restore(self.instance, only=["repositories"])
        return state(path, walked=True)

    def incremental_runs(self) -> list[bool]:
        """Return of each run whether it was an increment."""
        return ["-incremental" in run["arguments"] for run in self.runs if run["arguments"][0] == "create"]


class Clock(datetime):
    """A clock that goes on by a second whenever it is read: no two backups have one id."""

    at = datetime(2026, 11, 11, tzinfo=UTC)

    @classmethod
    def now(cls, tz: object = None) -> datetime:  # type: ignore[override]  # noqa: ARG003
        cls.at += timedelta(seconds=1)
        return cls.at


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> type[Clock]:
    monkeypatch.setattr("gitlab_backup.operations.create.datetime", Clock)
    return Clock


@pytest.fixture
def bench(cluster: Cluster, database: str, tmp_path: Path) -> Increments:
    made = Increments(cluster, database, tmp_path)
    made.sql(SCHEMA)
    made.storage()
    return made


def manifest(bench: Increments, backup: Backup, path: Path) -> dict[str, Any]:
    """Return the manifest of a repository; it is the only one, with its copy."""
    directory = backup.path / "repositories/manifests/default" / bench.relative(path)
    assert ["+latest.toml", f"{backup.id}.toml"] == sorted(file.name for file in directory.iterdir())
    text = (directory / f"{backup.id}.toml").read_text()
    assert text == (directory / "+latest.toml").read_text()
    return tomllib.loads(text)


@pytest.mark.parametrize("version", VERSIONS)
def test_every_version(bench: Increments, version: str) -> None:
    """What has changed gets a step, what has not too; the base is as it was, and not needed any more."""
    bench.version = version
    changed, same = bench.ordinary(1), bench.shaped(2, Shape.LOOSE)
    missing = bench.project(3)
    base = bench.create()
    commit(changed, "refs/heads/main", "second", parent=git(changed, "rev-parse", "main").decode().strip())
    (changed / "custom_hooks").mkdir()
    (changed / "custom_hooks" / "update").write_text("#!/bin/sh\n")
    backup = bench.create()
    assert [False, True] == bench.incremental_runs()
    assert () == base.verify().damages
    bench.alone(backup)
    assert [2, 2] == [len(manifest(bench, backup, path)["steps"]) for path in (changed, same)]
    details = details_of(backup)
    assert (base.id, 2, 5) == (details["base"], details["increments"], details["linked_files"])
    assert not missing.exists()
    for path in (changed, same):
        assert state(path) == bench.restored(backup, path)
    third = bench.create()
    assert 3 == len(manifest(bench, third, changed)["steps"])
    assert state(changed) == bench.restored(bench.alone(third), changed)


@pytest.mark.parametrize("version", VERSIONS)
def test_an_id_that_comes_again(bench: Increments, clock: type[Clock], version: str) -> None:
    """The clock was set back to a removed backup of which the base still has files: nothing is built upon those."""
    bench.version = version
    path = bench.ordinary(1)
    began = clock.at
    first = bench.create()
    commit(path, "refs/heads/main", "second", parent=git(path, "rev-parse", "main").decode().strip())
    base = bench.alone(bench.create())
    clock.at = began
    backup = bench.create()
    assert first.id == backup.id != base.id
    assert () == base.verify().damages
    assert 1 == len(manifest(bench, bench.alone(backup), path)["steps"])
    assert state(path) == bench.restored(backup, path)


@pytest.mark.parametrize("version", ["16.10.0", "17.2.9"])
def test_versions_that_leave_things_out(bench: Increments, version: str) -> None:
    """Before 17.3 what has not changed would not be in the backup: it is a full one, which is told and recorded."""
    bench.version = version
    path = bench.ordinary(1)
    bench.create()
    bench.events.clear()
    backup = bench.create()
    assert [False, False] == bench.incremental_runs()
    assert details_of(backup)["base"] is None
    assert any("17.3" in event.message for event in bench.events if isinstance(event, Noticed))
    assert "complete" == backup.state
    assert 1 == len(manifest(bench, bench.alone(backup), path)["steps"])


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("change", ["deleted", "new at old"])
def test_refs_that_a_restore_would_lose(bench: Increments, version: str, change: str) -> None:
    """Before 18.3 a deleted ref would come back, and one at an old commit be lost: then a full step is taken."""
    bench.version = version
    path, other = bench.ordinary(1), bench.ordinary(2)
    git(path, "update-ref", "refs/heads/old", "refs/heads/main")
    bench.create()
    if change == "deleted":
        git(path, "update-ref", "-d", "refs/heads/old")
    else:
        git(path, "update-ref", "refs/heads/late", "refs/heads/main")
    backup = bench.create()
    again = version in BEFORE_18_3
    assert [False, True, False][: 3 if again else 2] == bench.incremental_runs()
    bench.alone(backup)
    assert [1 if again else 2, 2] == [len(manifest(bench, backup, each)["steps"]) for each in (path, other)]
    assert [] == bench.warnings
    assert state(path) == bench.restored(backup, path)


@pytest.mark.parametrize("version", VERSIONS)
def test_what_there_was_nothing_of(bench: Increments, version: str) -> None:
    """What was empty or missing in the base is no base: neither does its mark stay, nor does the increment fail."""
    bench.version = version
    empty, missing = bench.shaped(1, Shape.EMPTY), bench.project(2)
    bench.ordinary(3)
    bench.create()
    commit(empty, "refs/heads/main", "first")
    commit(init(missing), "refs/heads/main", "first")
    backup = bench.alone(bench.create())
    assert [False, True] == bench.incremental_runs()
    for path in (empty, missing):
        found = manifest(bench, backup, path)
        assert (1, False, False) == (
            len(found["steps"]),
            found.get("empty", False),
            found.get("non_existent", False),
        )
        assert state(path) == bench.restored(backup, path)


@pytest.mark.parametrize("version", VERSIONS)
def test_what_there_is_nothing_of_any_more(bench: Increments, version: str) -> None:
    """What has gone or was emptied since needs nothing of the base, and nothing of it is left."""
    bench.version = version
    gone, emptied = bench.ordinary(1), bench.ordinary(2)
    bench.ordinary(3)
    bench.create()
    shutil.rmtree(gone)
    git(emptied, "update-ref", "-d", "refs/heads/main")
    backup = bench.alone(bench.create())
    place = backup.path / "repositories/default" / bench.relative(gone)
    assert not [file for file in place.rglob("*") if file.is_file()]
    assert state(emptied) == bench.restored(backup, emptied)
    assert not gone.exists()


def test_an_increment_that_fails_is_made_in_full(bench: Increments) -> None:
    """Where the program cannot build upon the base, it is asked once more without."""
    path, other = bench.ordinary(1), bench.ordinary(2)
    bench.create()
    bench.faults = {"at": {bench.relative(path): "no increment"}}
    backup = bench.alone(bench.create())
    assert [False, True, False] == bench.incremental_runs()
    assert [1, 2] == [len(manifest(bench, backup, each)["steps"]) for each in (path, other)]
    assert "complete" == backup.state


def test_a_damaged_base(bench: Increments) -> None:
    """What is damaged in the base is not given to the program."""
    path, other = bench.ordinary(1), bench.ordinary(2)
    base = bench.create()
    (bundle,) = (base.path / "repositories/default" / bench.relative(path)).glob("*/001.bundle")
    bundle.write_bytes(bundle.read_bytes()[:-1])
    backup = bench.alone(bench.create())
    assert "complete_with_warnings" == backup.state
    assert [1, 2] == [len(manifest(bench, backup, each)["steps"]) for each in (path, other)]


def test_steps_of_another_archiver(bench: Increments) -> None:
    """A base of the other archiver is refused, and is none where none was asked for."""
    bench.ordinary(1)
    base = bench.create()
    plain = evolve(
        bench.instance, storages=tuple(evolve(s, path=bench.storages[s.name]) for s in bench.instance.storages)
    )
    options = RepositoryOptions(archiver="git", incremental=True, base=base.path)
    with pytest.raises(RefusedError, match="by the archiver gitaly, not git"):
        Backup.create(plain, only=["repositories"], repositories=options)
    backup = Backup.create(plain, only=["repositories"], repositories=evolve(options, base=None))
    assert details_of(backup)["base"] is None


@pytest.mark.parametrize("version", ["17.6.0", "18.3.0"])
def test_increments_of_the_git_archiver(bench: Increments, version: str) -> None:
    """gitaly-backup restores them as they were; before 18.3 it is not let near one in which a ref was deleted."""
    bench.version = version
    path = bench.ordinary(1)
    git(path, "update-ref", "refs/heads/old", "refs/heads/main")
    plain = evolve(
        bench.instance, storages=tuple(evolve(s, path=bench.storages[s.name]) for s in bench.instance.storages)
    )
    options = RepositoryOptions(archiver="git", incremental=True)
    Backup.create(plain, only=["repositories"], repositories=options)
    git(path, "update-ref", "refs/heads/late", "refs/heads/main")
    backup = Backup.create(plain, only=["repositories"], repositories=options)
    assert state(path) == bench.restored(backup, path)
    git(path, "update-ref", "-d", "refs/heads/old")
    backup = bench.alone(Backup.create(plain, only=["repositories"], repositories=options))
    if version == "18.3.0":
        assert state(path) == bench.restored(backup, path)
        return
    before = state(path)
    with pytest.raises(GitLabBackupError, match="refs/heads/old"):
        backup.restore(bench.instance, only=["repositories"])
    assert before == state(path)
