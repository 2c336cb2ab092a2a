"""`backup all --incremental` of a real installation."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

from gitlab_backup import BackupStore
from tests.archivers.git_run import commit
from tests.support.repositories import Shape

if TYPE_CHECKING:
    from tests.support.installation import ThrowawayInstallation

    from .program import Program


def details(program: Program, backup_id: str) -> Any:
    """Return what the manifest says of the repositories."""
    components = program("show", backup_id, "--json").document["components"]
    return next(each["details"] for each in components if each["id"] == "repositories")


def made(program: Program, *arguments: str) -> str:
    """Back up the repositories, and return the id."""
    result = program("backup", "all", "--only", "repositories", "--json", *arguments)
    assert result.status in {0, 3}, result.err
    return str(result.document["backup_id"])


def test_increments(installation: ThrowawayInstallation, program: Program) -> None:
    """The first is a full backup, and says so; then each builds on the newest, or the one that is named."""
    result = program("backup", "all", "--only", "repositories", "--incremental")
    assert "in full" in result.out + result.err
    store = BackupStore(installation.backup_path)
    (first,) = store.ids()
    changed = next(each for each in installation.repositories if each.shape is Shape.ORDINARY)
    commit(installation.repository_path(changed), "refs/heads/new", "new")
    second = made(program, "--incremental")
    third = made(program, "--incremental")
    fourth = made(program, "--incremental", "--base", first)
    counts = ("base", "increments", "full")
    assert [first, 1, 0] == [details(program, second)[key] for key in counts]
    assert [second, 0, 0] == [details(program, third)[key] for key in counts]
    assert [first, 1, 0] == [details(program, fourth)[key] for key in counts]
    shutil.rmtree(store.path / first)
    shutil.rmtree(store.path / second)
    assert 0 == program("verify", third).status


def test_bases_that_are_none(installation: ThrowawayInstallation, program: Program) -> None:
    """One that does not exist has status 5, one that cannot serve 8, with the reason; one for a full backup 2."""
    program("backup", "all", "--only", "lfs", "--quiet")
    (other,) = BackupStore(installation.backup_path).ids()
    run = ("backup", "all", "--only", "repositories", "--json")
    absent = program(*run, "--incremental", "--base", "1714053314_2024_04_25_17.0.0")
    assert (5, 5) == (absent.status, absent.document["error"]["exit_status"])
    unfit = program(*run, "--incremental", "--base", other)
    assert 8 == unfit.status
    assert "it has no repositories" in unfit.err
    assert 2 == program(*run, "--base", other).status
    server_side = program(*run, "--incremental", "--repositories-server-side")
    assert 2 == server_side.status
    assert (other,) == BackupStore(installation.backup_path).ids()


def test_the_plan(installation: ThrowawayInstallation, program: Program) -> None:
    """A dry run says which backup would be built on, and refuses one that cannot be."""
    run = ("backup", "all", "--only", "repositories", "--incremental")
    plan = program(*run, "--dry-run", "--json")
    assert (0, None) == (plan.status, plan.document["base"])
    first = made(program)
    assert first == program(*run, "--dry-run", "--json").document["base"]
    assert f"back up as increments on {first}" in program(*run, "--dry-run").out
    assert (first,) == BackupStore(installation.backup_path).ids()
    assert "base" not in program("backup", "all", "--dry-run", "--json").document
