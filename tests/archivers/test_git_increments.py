"""Increments by the git archiver: what they cost, what they hold, and that they need no other backup."""

from __future__ import annotations

import os
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from attrs import evolve

from gitlab_backup.archivers.base import RepositoryOptions
from gitlab_backup.archivers.git import increments
from gitlab_backup.errors import RefusedError, UsageError
from gitlab_backup.events import Noticed
from tests.support.repositories import Shape, create, git

from .git_run import SCHEMA, commit, init, refs_of
from .increments_run import INCREMENTAL, IncrementBench, details_of, kinds, state

if TYPE_CHECKING:
    from gitlab_backup import Backup
    from tests.support.postgres import Cluster

FULL = RepositoryOptions()


@pytest.fixture
def bench(cluster: Cluster, database: str, tmp_path: Path) -> IncrementBench:
    """A storage with one project."""
    bench = IncrementBench(cluster, database, tmp_path)
    bench.sql(SCHEMA)
    bench.storage()
    return bench


@pytest.fixture
def repository(bench: IncrementBench) -> Path:
    """A repository with two branches and one commit on both."""
    path = init(bench.project(1, path="one"))
    first = commit(path, "refs/heads/main", "first")
    git(path, "update-ref", "refs/heads/other", first)
    return path


def toml(backup: Backup, name: str) -> dict[str, Any]:
    return tomllib.loads((backup.path / "repositories/manifests/default/one.git" / name).read_text())


def restored(bench: IncrementBench, backup: Backup, *, name: str = "one.git") -> object:
    """Return what a repository is like after a restore of that backup, when it is the only one left."""
    for other in bench.store.iterdir():
        if other.is_dir() and other != backup.path:
            shutil.rmtree(other)
    assert () == backup.verify().damages
    subprocess.run(["/usr/bin/sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=backup.path, check=True)
    return state(bench.restored(backup) / name, walked=True)


def steps_of(backup: Backup) -> int:
    """Return how many steps the repository has."""
    return len(toml(backup, "+latest.toml")["steps"])


def test_an_unchanged_repository_costs_no_program(bench: IncrementBench, repository: Path) -> None:
    """Nothing is run for it, and nothing is written: all its files are second names of the base's."""
    create(bench.project(2, path="two"), Shape.LOOSE, salt="two")
    base = bench.create()
    bench.git_runs()
    backup = bench.create()
    assert [] == bench.git_runs()
    assert (0, 0, 2) == kinds(backup)
    files = [file for file in (backup.path / "repositories" / "default").rglob("*") if file.is_file()]
    assert files
    for file in files:
        assert file.samefile(base.path / file.relative_to(backup.path))
    assert toml(base, "+latest.toml") == toml(backup, "+latest.toml") == toml(backup, f"{backup.id}.toml")
    assert state(repository) == restored(bench, backup)


def test_a_changed_repository_costs_what_is_new(bench: IncrementBench, repository: Path) -> None:
    """Three programs are run, the pack has the new objects alone, and the manifest is that of gitaly-backup."""
    bench.create()
    main = git(repository, "rev-parse", "refs/heads/main").decode().strip()
    commit(repository, "refs/heads/main", "second", parent=main)
    bench.git_runs()
    backup = bench.create()
    commands = [next(word for word in run if not word.startswith("-")) for run in bench.git_runs()]
    assert ["for-each-ref", "cat-file", "pack-objects"] == commands
    first, second = toml(backup, f"{backup.id}.toml")["steps"]
    assert first["ref_path"] == second["previous_ref_path"]
    assert f"default/one.git/{backup.id}/002.bundle" == second["bundle_path"]
    header, _, pack = (backup.path / "repositories" / second["bundle_path"]).read_bytes().partition(b"\n\n")
    assert f"\n-{main} \n".encode() in header
    assert (b"PACK", 3) == (pack[:4], int.from_bytes(pack[8:12], "big"))
    git(repository, "bundle", "verify", "--quiet", str(backup.path / "repositories" / second["bundle_path"]))
    assert (0, 1, 0) == kinds(backup)
    assert state(repository) == restored(bench, backup)


def test_deleted_refs_do_not_come_back(bench: IncrementBench, repository: Path) -> None:
    """A branch that was deleted since the base is not there after a restore."""
    bench.create()
    git(repository, "update-ref", "-d", "refs/heads/other")
    backup = bench.create()
    assert 2 == steps_of(backup)
    assert state(repository) == restored(bench, backup)


def test_new_refs_to_old_commits_are_kept(bench: IncrementBench, repository: Path) -> None:
    """A branch made at a commit that the base has is there after a restore, and in the bundle, with an empty pack."""
    bench.create()
    git(repository, "update-ref", "refs/heads/late", "refs/heads/main")
    backup = bench.create()
    bundle = backup.path / "repositories" / toml(backup, "+latest.toml")["steps"][1]["bundle_path"]
    assert b" refs/heads/late\n" in bundle.read_bytes()
    expected = state(repository)
    assert expected == restored(bench, backup)
    # So it is for anyone who fetches the bundles one after the other, as gitaly-backup before 18.3 does.
    fetched = init(bench.directory / "fetched.git")
    for step in toml(backup, "+latest.toml")["steps"]:
        git(fetched, "fetch", "--quiet", str(backup.path / "repositories" / step["bundle_path"]), "+refs/*:refs/*")
    assert refs_of(repository) == refs_of(fetched)


@pytest.mark.parametrize("object_format", ["sha1", "sha256"])
def test_first_pushes_to_an_empty_repository(bench: IncrementBench, object_format: str) -> None:
    """What was empty in the base is not said to be so afterwards: it is backed up in full."""
    path = init(bench.project(1, path="one"), f"--object-format={object_format}")
    bench.create()
    commit(path, "refs/heads/main", "first")
    backup = bench.create()
    assert (False, 1) == (toml(backup, "+latest.toml")["empty"], steps_of(backup))
    assert state(path) == restored(bench, backup)


def test_a_repository_that_did_not_exist(bench: IncrementBench) -> None:
    """What was missing in the base is backed up in full, and what has gone since is recorded as missing."""
    path = bench.project(1, path="one")
    bench.storage()
    init(bench.project(2, path="two"))
    commit(bench.storages["default"] / "two.git", "refs/heads/main", "two")
    bench.create()
    commit(init(path), "refs/heads/main", "first")
    shutil.rmtree(bench.storages["default"] / "two.git")
    backup = bench.create()
    assert (False, 1) == (toml(backup, "+latest.toml")["non_existent"], steps_of(backup))
    assert not (backup.path / "repositories/default/two.git").exists()
    assert state(path) == restored(bench, backup)
    assert not (bench.restored(backup) / "two.git").exists()


def test_a_repository_that_still_does_not_exist(bench: IncrementBench, repository: Path) -> None:
    """What says so is taken over, by two names for the file of the base; where that is damaged, it is written anew."""
    assert repository.exists()
    base = bench.create()
    manifests = [base.path / "repositories/manifests/default" / f"one.{kind}.git" for kind in ("wiki", "design")]
    whole, damaged = (directory / f"{base.id}.toml" for directory in manifests)
    damaged.write_bytes(damaged.read_bytes().replace(b"sha1", b"sha0"))
    backup = bench.create()
    for old, taken in ((whole, True), (damaged, False)):
        directory = backup.path / old.parent.relative_to(base.path)
        for name in (f"{backup.id}.toml", "+latest.toml"):
            assert (name, taken) == (name, (directory / name).samefile(old))
            assert b"non_existent = true" in (directory / name).read_bytes()
    assert () == backup.verify(jobs=1).damages
    assert not (bench.restored(backup) / "one.wiki.git").exists()


def test_an_emptied_repository(bench: IncrementBench, repository: Path) -> None:
    """Without a ref left it is empty, and nothing of the base is needed any more."""
    bench.create()
    for _, name in refs_of(repository):
        git(repository, "update-ref", "-d", name.decode())
    backup = bench.create()
    assert (True, 1) == (toml(backup, "+latest.toml")["empty"], steps_of(backup))
    assert state(repository) == restored(bench, backup)


@pytest.mark.parametrize("object_format", ["sha1", "sha256"])
def test_a_repository_made_anew(bench: IncrementBench, repository: Path, object_format: str) -> None:
    """One with another history, or of another object format, at the same place is backed up in full."""
    bench.create()
    shutil.rmtree(repository)
    init(repository, f"--object-format={object_format}")
    commit(repository, "refs/heads/main", "another history")
    backup = bench.create()
    assert 1 == steps_of(backup)
    assert [backup.id] == [step.name for step in (backup.path / "repositories/default/one.git").iterdir()]
    assert state(repository) == restored(bench, backup)


def test_a_rewound_branch(bench: IncrementBench, repository: Path) -> None:
    """A branch that was forced back, and whose commits were pruned, is as it is now."""
    first = git(repository, "rev-parse", "refs/heads/main").decode().strip()
    commit(repository, "refs/heads/main", "second", parent=first)
    bench.create()
    git(repository, "update-ref", "refs/heads/main", first)
    git(repository, "gc", "--quiet", "--prune=now")
    commit(repository, "refs/heads/main", "another second", parent=first)
    backup = bench.create()
    assert 2 == steps_of(backup)
    assert state(repository) == restored(bench, backup)


def test_objects_that_are_half_gone(bench: IncrementBench, repository: Path) -> None:
    """Where git finds a commit of the base but not its tree, nothing of the base is built on wrongly."""
    first = git(repository, "rev-parse", "refs/heads/main").decode().strip()
    second = commit(repository, "refs/heads/main", "second", parent=first)
    bench.create()
    git(repository, "update-ref", "refs/heads/main", first)
    tree = git(repository, "rev-parse", f"{second}^{{tree}}").decode().strip()
    (repository / "objects" / tree[:2] / tree[2:]).unlink()
    commit(repository, "refs/heads/main", "third", parent=first)
    backup = bench.create()
    assert state(repository) == restored(bench, backup)


@pytest.mark.parametrize("name", ["refs/heads/other", "refs/heads/unborn"])
def test_only_head_has_changed(bench: IncrementBench, repository: Path, name: str) -> None:
    """Another branch in HEAD is a change, even where all refs lead to where they led before."""
    bench.create()
    git(repository, "symbolic-ref", "HEAD", name)
    backup = bench.create()
    assert 2 == steps_of(backup)
    assert state(repository) == restored(bench, backup)


def test_only_hooks_have_changed(bench: IncrementBench, repository: Path) -> None:
    """Custom hooks are in every step, and a change of them makes one. Its bundle has nothing but a header."""
    bench.create()
    (repository / "custom_hooks").mkdir()
    (repository / "custom_hooks" / "update").write_text("#!/bin/sh\n")
    middle = bench.create()
    step = toml(middle, "+latest.toml")["steps"][1]
    assert b"# v2 git bundle\n\n" == (middle.path / "repositories" / step["bundle_path"]).read_bytes()
    assert (0, 0, 1) == kinds(bench.create())
    commit(repository, "refs/heads/main", "second")
    backup = bench.create()
    assert (3, (0, 1, 0)) == (steps_of(backup), kinds(backup))
    assert state(repository) == restored(bench, backup)


def test_a_detached_head(bench: IncrementBench, repository: Path) -> None:
    """A commit that only HEAD leads to is in each step in which it is."""
    bench.create()
    oid = commit(repository, "refs/heads/gone", "detached")
    git(repository, "update-ref", "--no-deref", "HEAD", oid)
    git(repository, "update-ref", "-d", "refs/heads/gone")
    bench.create()
    commit(repository, "refs/heads/main", "second")
    backup = bench.create()
    assert 3 == steps_of(backup)
    assert state(repository) == restored(bench, backup)


def test_hidden_refs(bench: IncrementBench, repository: Path) -> None:
    """Refs that GitLab keeps for itself come and go like all others."""
    first = git(repository, "rev-parse", "refs/heads/main").decode().strip()
    git(repository, "update-ref", f"refs/keep-around/{first}", first)
    bench.create()
    second = commit(repository, "refs/merge-requests/1/head", "second", parent=first)
    git(repository, "update-ref", f"refs/keep-around/{second}", second)
    git(repository, "update-ref", "-d", f"refs/keep-around/{first}")
    backup = bench.create()
    assert state(repository) == restored(bench, backup)


def test_steps_are_bounded(bench: IncrementBench, repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After so many steps comes a full one, which needs nothing of those before."""
    monkeypatch.setattr(increments, "MOST_STEPS", 3)
    backups = []
    for number in range(5):
        commit(repository, "refs/heads/main", str(number))
        backups.append(bench.create())
    assert [1, 2, 3, 1, 2] == list(map(steps_of, backups))
    assert state(repository) == restored(bench, backups[-1])


# The base


@pytest.mark.parametrize("kind", ["bundle", "refs", "toml"])
@pytest.mark.parametrize("how", ["cut", "gone"])
def test_a_damaged_base_is_not_built_on(bench: IncrementBench, repository: Path, kind: str, how: str) -> None:
    """Where a file of the base was changed or is missing, the repository is backed up in full, with a warning."""
    base = bench.create()
    pattern = f"manifests/default/one.git/{base.id}.toml" if kind == "toml" else f"default/one.git/*/001.{kind}"
    (file,) = (base.path / "repositories").glob(pattern)
    if how == "gone":
        file.unlink()
    else:
        with file.open("r+b") as opened:
            opened.truncate(file.stat().st_size - 1)
    backup = bench.create()
    assert ("complete_with_warnings", (1, 0, 0)) == (backup.state, kinds(backup))
    assert backup.manifest is not None
    record = backup.manifest.component("repositories")
    assert record is not None
    (warning,) = record.warnings
    assert base.id in warning
    assert file.name in warning
    assert state(repository) == restored(bench, backup)


def test_an_old_file_with_a_new_time_is_read(bench: IncrementBench, repository: Path) -> None:
    """A copy of a backup, whose files have other times, can be built on: what it has is what its digests say."""
    base = bench.create()
    for file in (base.path / "repositories").rglob("*"):
        os.utime(file)
    assert (0, 0, 1) == kinds(bench.create())
    assert repository.exists()


def test_a_base_on_another_file_system_is_copied(bench: IncrementBench, repository: Path) -> None:
    """Where no second name can be given to a file it is copied, and compared with its digest."""
    memory = Path("/dev/shm")  # noqa: S108 - a file system of its own
    if not memory.is_dir() or memory.stat().st_dev == bench.directory.stat().st_dev:
        pytest.skip("there is no second file system")
    first = bench.create()
    elsewhere = memory / f"gitlab-backup-{os.getpid()}-{bench.dbname}" / first.id
    shutil.copytree(first.path, elsewhere)
    try:
        backup = bench.create(evolve(INCREMENTAL, base=elsewhere))
        details = details_of(backup)
        assert ((0, 0, 1), 8, None) == (kinds(backup), details["copied_files"], details.get("linked_files"))
        (bundle,) = elsewhere.glob("repositories/default/one.git/*/001.bundle")
        old = bundle.stat()
        bundle.write_bytes(bundle.read_bytes()[:-1] + b"\0")
        os.utime(bundle, ns=(old.st_atime_ns, old.st_mtime_ns))
        assert (1, 0, 0) == kinds(bench.create(evolve(INCREMENTAL, base=elsewhere)))
    finally:
        shutil.rmtree(elsewhere.parent)
    assert state(repository) == restored(bench, backup)


def test_without_a_base_it_is_a_full_backup(bench: IncrementBench, repository: Path) -> None:
    """The first increment is a full backup, which is told and recorded, and no failure."""
    backup = bench.create()
    assert ("complete", None) == (backup.state, details_of(backup)["base"])
    assert [True] == ["in full" in event.message for event in bench.events if isinstance(event, Noticed)]
    assert state(repository) == restored(bench, backup)


def test_the_newest_that_can_serve(bench: IncrementBench, repository: Path) -> None:
    """Without a wish, the base is the newest one that has repositories, and is not known to be damaged."""
    first = bench.create()
    second = bench.create()
    assert first.id == details_of(second)["base"]
    (second.path / "SHA256SUMS").write_text("nonsense\n")
    third = bench.create()
    assert first.id == details_of(third)["base"]
    manifest = third.path / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"complete"', '"complete_with_warnings"'))
    fourth = bench.create()
    assert first.id == details_of(fourth)["base"]
    fifth = bench.create(FULL)
    assert "base" not in details_of(fifth)
    assert fifth.id == details_of(bench.create())["base"]
    assert repository.exists()


def test_a_base_that_cannot_serve(bench: IncrementBench, repository: Path) -> None:
    """A base that was asked for, and is none, is refused with the reason; nothing is left of the attempt."""
    base = bench.create()

    def reason(base: Path) -> str:
        with pytest.raises(RefusedError) as caught:
            bench.create(evolve(INCREMENTAL, base=base))
        return caught.value.message

    text = (base.path / "manifest.json").read_text()
    (base.path / "manifest.json").write_text(text.replace('"git_version"', '"version_of_git"'))
    assert "manifest.json is not what SHA256SUMS says" in reason(base.path)
    (base.path / "manifest.json").write_text(text[:-10])
    assert "damaged" in reason(base.path)
    (base.path / "manifest.json").unlink()
    assert "another tool has made it" in reason(base.path)
    assert "another tool has made it" in reason(bench.directory / "nowhere")
    assert [base.path] == [entry for entry in bench.store.iterdir() if entry.is_dir()]
    assert repository.exists()


def test_wishes_that_make_no_sense(bench: IncrementBench) -> None:
    """A base for a full backup, and increments of server-side backups, are usage errors."""
    with pytest.raises(UsageError, match="full"):
        bench.create(RepositoryOptions(base=bench.directory))
    with pytest.raises(UsageError, match="server-side"):
        bench.create(evolve(INCREMENTAL, server_side=True))


def test_a_base_of_some_repositories(bench: IncrementBench, repository: Path) -> None:
    """A filtered backup is no base for all, unless it is asked for; then what it lacks is backed up in full."""
    commit(init(bench.storage("second") / "two.git"), "refs/heads/main", "two")
    bench.sql(
        "INSERT INTO projects (id, repository_storage) VALUES (2, 'second');"
        "INSERT INTO project_repositories VALUES (2, 'two', 2)"
    )
    some = evolve(INCREMENTAL, storages=("default",))
    partial = bench.create(some)
    assert partial.id == details_of(bench.create(some))["base"]
    assert details_of(bench.create())["base"] is None
    backup = bench.create(evolve(INCREMENTAL, base=partial.path))
    assert (1, 0, 1) == kinds(backup)
    whole = bench.create(some)
    assert (backup.id, (0, 0, 1)) == (details_of(whole)["base"], kinds(whole))
    assert repository.exists()


def test_what_has_failed_leaves_the_base_alone(bench: IncrementBench, repository: Path) -> None:
    """A backup that fails takes nothing of its base with it."""
    base = bench.create()
    names = {file: file.stat().st_nlink for file in base.path.rglob("*")}
    broken = bench.storages["default"] / "two.git"
    bench.project(2, path="two")
    broken.mkdir()
    with pytest.raises(Exception, match="not a repository"):
        bench.create()
    assert () == base.verify().damages
    assert names == {file: file.stat().st_nlink for file in base.path.rglob("*")}
    shutil.rmtree(broken)
    assert (0, 0, 1) == kinds(bench.create())
    assert repository.exists()


def test_strange_refs_are_left_to_git(bench: IncrementBench, repository: Path) -> None:
    """Where refs cannot be read plainly, git is asked, once, and still nothing is written for what has not changed."""
    git(repository, "symbolic-ref", "refs/heads/symbolic", "refs/heads/main")
    bench.create()
    bench.git_runs()
    backup = bench.create()
    assert 1 == len(bench.git_runs())
    assert (0, 0, 1) == kinds(backup)
    assert repository.exists()
