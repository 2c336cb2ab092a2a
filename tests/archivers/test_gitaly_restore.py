"""Repositories that Gitaly owns, on their way back: what is refused, what is done, and what cannot be undone."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
from attrs import evolve

from gitlab_backup.archivers.base import RepositoryOptions
from gitlab_backup.archivers.gitaly.report import Summary
from gitlab_backup.errors import GitLabBackupError, RefusedError, RestoreFailedError
from tests.archivers.git_run import SCHEMA, commit, init, refs_of
from tests.archivers.gitaly_run import GitalyBench
from tests.support.repositories import Shape, hashed

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.postgres import Cluster


@pytest.fixture
def bench(cluster: Cluster, database: str, tmp_path: Path) -> GitalyBench:
    made = GitalyBench(cluster, database, tmp_path)
    made.sql(SCHEMA)
    made.storage()
    return made


def _hidden(bench: GitalyBench) -> list[str]:
    return sorted(p.name for p in (bench.directory / "backups").iterdir() if p.name.startswith(".gitlab-restore"))


@pytest.mark.parametrize("version", ["17.0.1", "17.6.0", "19.0.0"])
def test_round_trip(bench: GitalyBench, version: str) -> None:
    """Repositories are as they were; what came since is removed by versions that keep pools, and only by them."""
    bench.version = version
    paths = [bench.shaped(number, shape) for number, shape in enumerate((Shape.ORDINARY, Shape.SHA256, Shape.LOOSE), 1)]
    empty = bench.shaped(4, Shape.EMPTY)
    before = [refs_of(path) for path in paths]
    backup = bench.create()
    new, pool = (bench.storages["default"] / f"{hashed(kind, 9)}.git" for kind in ("@hashed", "@pools"))
    for path in (new, pool):
        commit(init(path), "refs/heads/main", "since")
    commit(paths[0], "refs/heads/main", "another")
    shutil.rmtree(paths[1])
    restored = backup.restore(bench.instance)
    run = bench.runs[-1]
    assert ["restore", "-path", str(backup.path / "repositories"), "-id", backup.id] == run["arguments"][:5]
    assert before == [refs_of(path) for path in paths]
    assert [] == refs_of(empty)
    assert (paths[2] / "custom_hooks" / "pre-receive.d" / "10-check").exists()
    assert pool.exists()
    keeps = version != "17.0.1"
    assert keeps == ("-remove-all-repositories" in run["arguments"])
    assert keeps != new.exists()
    assert keeps != restored.with_warnings
    assert [] == _hidden(bench)


def test_nothing_is_removed_by_a_backup_that_lacks_some(bench: GitalyBench) -> None:
    """A repository that failed to be backed up is not taken for one that did not exist."""
    bench.ordinary(1)
    failed = bench.ordinary(2)
    bench.faults = {"at": {bench.relative(failed): "fail"}}
    backup = bench.create(keep_going=True)
    bench.faults = {}
    restored = backup.restore(bench.instance)
    assert restored.with_warnings
    assert "-remove-all-repositories" not in bench.runs[-1]["arguments"]
    assert failed.exists()


def test_a_filtered_restore_removes_nothing(bench: GitalyBench) -> None:
    """Whoever asks for a part gets no other part removed."""
    bench.ordinary(1)
    backup = bench.create()
    backup.restore(bench.instance, repositories=RepositoryOptions(storages=("default",)))
    assert "-remove-all-repositories" not in bench.runs[-1]["arguments"]


@pytest.mark.parametrize("version", ["17.0.1", "17.6.0"])
def test_a_manifest_that_is_missing_is_found_before_anything_runs(bench: GitalyBench, version: str) -> None:
    """The program of 17.0 would skip what it does not find, and then remove all repositories as superfluous."""
    bench.version = version
    path = bench.ordinary(1)
    backup = bench.create()
    manifest = backup.path / "repositories" / "manifests" / "default" / bench.relative(path) / f"{backup.id}.toml"
    manifest.rename(manifest.with_name("another.toml"))
    with pytest.raises(GitLabBackupError, match=r"has no manifest|cannot be restored"):
        backup.restore(bench.instance, verify=False)
    assert ["create"] == [run["arguments"][0] for run in bench.runs]
    assert path.exists()


def test_the_id_of_a_backup_from_elsewhere(bench: GitalyBench) -> None:
    """GitLab's own tool lets gitaly-backup choose the id: it is found in the names of the manifests."""
    path = bench.ordinary(1)
    backup = bench.create()
    for name in ("manifest.json", "SHA256SUMS"):
        (backup.path / name).unlink()
    root = backup.path / "repositories"
    for directory in sorted(root.rglob(backup.id)):
        directory.rename(directory.with_name("20240516080000"))
    for manifest in sorted(root.rglob("*.toml")):
        manifest.write_text(manifest.read_text().replace(backup.id, "20240516080000"))
        if manifest.stem == backup.id:
            manifest.rename(manifest.with_name("20240516080000.toml"))
    shutil.rmtree(path)
    restored = backup.restore(bench.instance)
    assert restored.with_warnings  # nothing is removed: no record says that the backup has all
    arguments = bench.runs[-1]["arguments"]
    assert "20240516080000" == arguments[arguments.index("-id") + 1]
    assert path.exists()


def test_an_increment_that_upstream_would_lose_is_refused(bench: GitalyBench) -> None:
    """A manifest that is marked as empty, but has a bundle, would be restored as an empty repository."""
    path = bench.ordinary(1)
    backup = bench.create()
    directory = backup.path / "repositories" / "manifests" / "default" / bench.relative(path)
    for manifest in directory.iterdir():
        manifest.write_text(manifest.read_text().replace("empty = false", "empty = true"))
    with pytest.raises(GitLabBackupError, match="marked as empty"):
        backup.restore(bench.instance, verify=False)
    assert ["create"] == [run["arguments"][0] for run in bench.runs]


def test_what_failed_and_what_was_restored_is_said(bench: GitalyBench) -> None:
    """Not undone, but finished as far as it goes: the next run is not kept from its work."""
    bench.ordinary(1)
    failing = bench.relative(bench.ordinary(2))
    backup = bench.create()
    bench.faults = {"at": {failing: "fail"}}
    with pytest.raises(RestoreFailedError) as caught:
        backup.restore(bench.instance)
    assert "cannot be undone. repositories: 1 of 2 repositories are as in the backup" in str(caught.value)
    assert "--only repositories" in str(caught.value.hint)
    assert failing in str(caught.value)
    assert f".gitlab-restore.repositories.report.{backup.id}" in _hidden(bench)
    bench.faults = {}
    assert not backup.restore(bench.instance).with_warnings


def test_keep_going_restores_the_others(bench: GitalyBench) -> None:
    """What failed is a warning; nothing is removed then, as the program decides."""
    good = bench.ordinary(1)
    failing = bench.relative(bench.ordinary(2))
    backup = bench.create()
    shutil.rmtree(good)
    bench.faults = {"at": {failing: "fail"}}
    restored = backup.restore(bench.instance, keep_going=True)
    (record,) = restored.components
    assert any(failing in warning for warning in record.warnings)
    assert good.exists()


def test_death_in_the_middle(bench: GitalyBench) -> None:
    """What was begun is in doubt, and named."""
    bench.ordinary(1)
    second = bench.relative(bench.ordinary(2))
    backup = bench.create()
    bench.faults = {"at": {second: "die"}}
    with pytest.raises(RestoreFailedError, match="killed by signal 9") as caught:
        backup.restore(bench.instance)
    assert f"default/{second}: was begun" in str(caught.value)


def test_a_report_that_says_nonsense(tmp_path: Path) -> None:
    """Lines that nobody of ours has written are passed over; the others count."""
    odd = ["7", "null", "{}", "[]", "[1, 2, 3]", '[["started"], "a", ""]', '["started", {}, ""]', "[" * 100_000, "\x00"]
    report = tmp_path / "report"
    report.write_text("\n".join([*odd, '["started", "default/a.git", ""]', '["completed", "default/b.git", ""]']))
    summary = Summary.read(report)
    assert ({"default/a.git"}, 1, 0) == (summary.begun, summary.restored, summary.failed.count)


def test_what_fails_before_anything_is_touched_is_undone(bench: GitalyBench) -> None:
    """A program that does not even start has changed nothing, and nothing is left of the attempt."""
    bench.ordinary(1)
    backup = bench.create()
    bench.faults = {"stop_reading_after": 0, "status": 2}
    with pytest.raises(RestoreFailedError, match="everything was put back"):
        backup.restore(bench.instance)
    assert [] == _hidden(bench)


def test_server_side(bench: GitalyBench) -> None:
    """By id, from what the database lists."""
    bench.ordinary(1)
    backup = bench.create(repositories=RepositoryOptions(server_side=True))
    restored = backup.restore(bench.instance)
    assert ["restore", "-server-side", "-id", backup.id] == bench.runs[-1]["arguments"][:4]
    assert 1 == len(restored.components)


def test_a_storage_without_gitaly_is_refused(bench: GitalyBench) -> None:
    """Said by the plan, before anything runs."""
    bench.ordinary(1)
    backup = bench.create()
    instance = bench.instance
    other = evolve(instance, storages=(evolve(instance.storages[0], name="other"),))
    with pytest.raises(GitLabBackupError, match="'default'"):
        backup.restore(other)


def test_a_plan_says_what_it_means(bench: GitalyBench) -> None:
    """Numbers, storages, what is removed, and that it cannot be undone; a dry run changes and leaves nothing."""
    path = bench.ordinary(1)
    backup = bench.create()
    done = backup.restore(bench.instance, dry_run=True)
    plan = done.proposal.plans["repositories"]
    assert ("repositories on the storages default: 1, in place, by gitaly-backup 17.6.0",) == plan.replaces[:1]
    assert "default" in plan.replaces[1]
    assert "cannot be undone" in plan.notes[0]
    assert not plan.reversible
    with pytest.raises(RefusedError):
        backup.restore(bench.instance, confirm=lambda _proposal: False)
    assert ["create"] == [run["arguments"][0] for run in bench.runs]
    assert path.exists()
