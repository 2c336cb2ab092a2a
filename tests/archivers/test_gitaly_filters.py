"""A part of the repositories that Gitaly owns, and backups that only Gitaly has."""

# ruff: noqa: S608 - the values in the SQL are of our own making

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
from attrs import evolve

from gitlab_backup.archivers.base import RepositoryOptions
from gitlab_backup.errors import GitLabBackupError, RefusedError, RestoreFailedError, UsageError
from gitlab_backup.manifest import FILTER

from .git_run import SCHEMA, commit, refs_of
from .gitaly_run import GitalyBench

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.postgres import Cluster

GROUP = RepositoryOptions(paths=("group",))


@pytest.fixture
def bench(cluster: Cluster, database: str, tmp_path: Path) -> GitalyBench:
    made = GitalyBench(cluster, database, tmp_path)
    made.sql(SCHEMA)
    made.storage()
    return made


@pytest.fixture
def paths(bench: GitalyBench) -> dict[str, Path]:
    """Projects by their paths: two in a group, one of them deeper, and one in another whose name begins alike."""
    names = ("group/one", "group/below/two", "group-2/three")
    found = {name: bench.ordinary(number) for number, name in enumerate(names, 1)}
    for number, name in enumerate(names, 1):
        bench.sql(f"INSERT INTO routes VALUES ({number}, 'Project', '{name}')")
    bench.sql("INSERT INTO routes VALUES (1, 'Namespace', 'group'), (2, 'Namespace', 'group-2')")
    return found


@pytest.mark.parametrize("version", ["17.0.1", "17.6.0"])
def test_a_backup_of_a_part(bench: GitalyBench, paths: dict[str, Path], version: str) -> None:
    """The program is asked for the part alone, the manifest says which that is; restored, it removes nothing else."""
    bench.version = version
    backup = bench.create(repositories=GROUP)
    assert backup.partial
    assert backup.manifest is not None
    record = backup.manifest.component("repositories")
    assert record is not None
    assert GROUP.selection.to_record() == record.details[FILTER]
    manifests = backup.path / "repositories" / "manifests" / "default"
    found = {name for name, path in paths.items() if (manifests / bench.relative(path)).is_dir()}
    assert {"group/one", "group/below/two"} == found
    before = {name: refs_of(path) for name, path in paths.items()}
    for path in paths.values():
        commit(path, "refs/heads/later", "later")
    restored = backup.restore(bench.instance)
    assert not restored.with_warnings
    assert "-remove-all-repositories" not in bench.runs[-1]["arguments"]
    assert {"group/one", "group/below/two"} == {name for name, path in paths.items() if refs_of(path) == before[name]}
    assert "the backup has only repositories of group; all others are left as they are" in (
        restored.proposal.plans["repositories"].notes
    )


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (GROUP, {"group/one", "group/below/two"}),
        (RepositoryOptions(paths=("group/one",)), {"group/one"}),
        (RepositoryOptions(skip_paths=("group",)), {"group-2/three"}),
        (RepositoryOptions(storages=("default",), skip_paths=("group-2",)), {"group/one", "group/below/two"}),
    ],
)
def test_a_restore_of_a_part(
    bench: GitalyBench, paths: dict[str, Path], options: RepositoryOptions, expected: set[str]
) -> None:
    """Of a backup of all, the program is asked for the part alone, and to remove nothing."""
    backup = bench.create()
    for path in paths.values():
        shutil.rmtree(path)
    restored = backup.restore(bench.instance, repositories=options)
    assert expected == {name for name, path in paths.items() if path.exists()}
    assert "-remove-all-repositories" not in bench.runs[-1]["arguments"]
    assert not restored.with_warnings


def test_damage_outside_of_the_part(bench: GitalyBench, paths: dict[str, Path]) -> None:
    """What is not wanted of a backup need not be whole; what is must be."""
    backup = bench.create()
    manifests = backup.path / "repositories" / "manifests" / "default" / bench.relative(paths["group-2/three"])
    (manifests / f"{backup.id}.toml").write_text("broken")
    shutil.rmtree(paths["group/one"])
    backup.restore(bench.instance, repositories=GROUP, verify=False)
    assert paths["group/one"].exists()
    with pytest.raises(GitLabBackupError, match="cannot be restored by gitaly-backup"):
        backup.restore(bench.instance, repositories=RepositoryOptions(paths=("group-2",)), verify=False)


def test_a_part_that_the_backup_does_not_have(bench: GitalyBench, paths: dict[str, Path]) -> None:
    """To restore nothing is refused before the program runs."""
    backup = bench.create(repositories=GROUP)
    with pytest.raises(RefusedError, match="has no repositories of group-2"):
        backup.restore(bench.instance, repositories=RepositoryOptions(paths=("group-2",)))
    assert ["create"] == [run["arguments"][0] for run in bench.runs]
    assert paths


def test_a_part_of_a_server_side_backup(bench: GitalyBench, paths: dict[str, Path]) -> None:
    """Gitaly is asked for what both choices leave: for nothing outside of either, and for all that is in both."""
    backup = bench.create(repositories=evolve(GROUP, server_side=True))
    one, two, three = (bench.relative(path) for path in paths.values())
    only_one = RepositoryOptions(skip_paths=("group/below/two",))
    bench.faults = {"at": {two: "fail", three: "fail"}}
    assert not backup.restore(bench.instance, repositories=only_one).with_warnings
    bench.faults = {"at": {three: "fail"}}
    assert not backup.restore(bench.instance).with_warnings
    bench.faults = {"at": {one: "fail"}}
    with pytest.raises(RestoreFailedError, match=one):
        backup.restore(bench.instance, repositories=only_one)


def test_a_server_side_backup_without_the_program(bench: GitalyBench) -> None:
    """The error says where the repositories are and what can fetch them, whichever archiver was asked for."""
    bench.ordinary(1)
    backup = bench.create(repositories=RepositoryOptions(server_side=True))
    without = evolve(bench.instance, gitaly_backup=None, search_path="/nonexistent")
    for options in (RepositoryOptions(), RepositoryOptions(archiver="gitaly"), RepositoryOptions(server_side=True)):
        with pytest.raises(RefusedError, match=r"server-side backup.*only gitaly-backup can restore.*gitaly-backup"):
            backup.restore(without, repositories=options)
    with pytest.raises(UsageError, match="the archiver git neither makes nor restores server-side backups"):
        backup.restore(without, repositories=RepositoryOptions(archiver="git"))
    local = evolve(bench.instance, storages=tuple(evolve(s, gitaly_address=None) for s in bench.instance.storages))
    with pytest.raises(UsageError, match="server-side") as caught:
        backup.restore(local)
    assert "gitaly_address" in (caught.value.hint or "")
