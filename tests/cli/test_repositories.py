"""A part of the repositories on the command line: what is backed up and restored, and how it is told."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from gitlab_backup import Backup
from gitlab_backup.archivers.base import RepositoryOptions
from tests.support import compare

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.installation import ThrowawayInstallation

    from .program import Program

GIT = ("--only", "repositories", "--repositories-archiver", "git")
PART = (
    "--repository-storage", "default,second", "--repository-path", "group-1", "--repository-path", "group-2/project-1",
    "--skip-repository-path", "group-1/project-9",
)  # fmt: skip
FILTER = {
    "storages": ["default", "second"],
    "paths": ["group-1", "group-2/project-1"],
    "skip_paths": ["group-1/project-9"],
}
IN_WORDS = "on default, second, of group-1, group-2/project-1, without those of group-1/project-9"


def test_a_part(installation: ThrowawayInstallation, program: Program) -> None:
    """A backup of a part says on screen, in its documents, and in lists of backups, that it is one, and of what."""
    result = program("backup", "all", *GIT, *PART)
    assert (0, "") == (result.status, result.err)
    lines = result.out.splitlines()
    assert f"this backup is partial: it has only repositories {IN_WORDS}" == lines[1]
    (backup,) = Backup.all(installation.backup_path)
    assert lines[-1].startswith(f"backup {backup.id}: complete, partial; ")
    (listed,) = program("list", "--json").document
    assert (True, "complete") == (listed["partial"], listed["status"])
    row = program("list").out.splitlines()[1]
    assert "complete, partial" in row
    assert len(row) <= 80
    assert f"partial:        only repositories; only repositories {IN_WORDS}" in program("show", "latest").out
    shown = program("show", "latest", "--json").document
    assert shown["partial"]
    (details,) = [each["details"] for each in shown["components"] if each["id"] == "repositories"]
    assert FILTER == details["filter"]
    assert 0 == program("verify", "latest").status


def test_documents(reader: Program, tmp_path: Path) -> None:
    """What was chosen is in the document of a run on a part, and in no other."""
    store = ("--backup-path", tmp_path / "backups")
    result = reader("backup", "all", *GIT, *PART, *store, "--dry-run", "--json")
    assert ["backup_id", "path", "status", "components", "filter"] == list(result.document)
    assert FILTER == result.document["filter"]
    assert f"back up those {IN_WORDS}" in reader("backup", "all", *GIT, *PART, *store, "--dry-run").out
    made = reader("backup", "all", *GIT, *PART, *store, "--json")
    assert (0, FILTER) == (made.status, made.document["filter"])
    assert "filter" not in reader("backup", "all", "--only", "lfs", *store, "--json").document
    failed = reader("backup", "all", *GIT, *PART, *store, "--base", made.document["backup_id"], "--json")
    assert ["backup_id", "path", "status", "components", "filter", "error"] == list(failed.document)
    assert (2, FILTER) == (failed.status, failed.document["filter"])


@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_a_restore_of_a_part(installation: ThrowawayInstallation, program: Program, more: tuple[str, ...]) -> None:
    """One project of a whole backup comes back, nothing else is touched, and before that it is said."""
    backup = Backup.create(installation.instance(), repositories=RepositoryOptions(archiver="git"))
    for storage in installation.storages.values():
        for path in compare.find_repositories(storage):
            (path / "HEAD").write_text("ref: refs/heads/changed\n")
    before = compare.snapshot(installation)
    result = program(
        "restore", "all", backup.id, *GIT, "--repository-path", "group-1/project-9", "--yes", "--json", *more
    )
    assert 0 == result.status
    assert {"storages": [], "paths": ["group-1/project-9"], "skip_paths": []} == result.document["filter"]
    note = "only repositories of group-1/project-9 are restored; all others are left as they are"
    assert f"repositories: {note}" in result.document["notes"]
    assert 1 == len(result.document["plan"]["repositories"])
    changed = compare.differences(before, compare.snapshot(installation))
    assert ([] if more else [True]) == [line.startswith("repository 'second/") for line in changed]


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (("--repository-storage", "defalt"), "unknown repository storage: defalt", "Known ones are default, second."),
        (("--repository-path", "group-1,group-9"), "no group and no project has the path group-9", "URLs"),
        (("--skip-repository-path", "project-1"), "no group and no project has the path project-1", "URLs"),
        (("--repository-path", "/"), "is no path of a group or project", "URL"),
        (("--repositories-archiver", "svn"), "svn", "gitaly and git"),
        (("--repositories-archiver", "git", "--repositories-server-side"), "server-side", "gitaly_address"),
    ],
)
def test_usage(reader: Program, tmp_path: Path, arguments: tuple[str, ...], message: str, hint: str) -> None:
    """What there is not has status 2 and is named, at a backup and at its plan; nothing is written."""
    store = tmp_path / "backups"
    for more in ((), ("--dry-run",)):
        result = reader("backup", "all", "--backup-path", store, "--json", *arguments, *more)
        assert 2 == result.status
        assert message in result.err
        assert hint in result.err
        assert 2 == result.document["error"]["exit_status"]
    assert not store.exists()


def test_usage_of_a_restore(installation: ThrowawayInstallation, program: Program) -> None:
    """The same at a restore, before anything is asked; also a path where its database is about to be replaced."""
    Backup.create(installation.instance(), only=["db", "repositories"], repositories=RepositoryOptions(archiver="git"))
    restore = ("restore", "all", "latest", "--yes", "--json")
    for arguments, message in (
        (("--repository-storage", "third"), "unknown repository storage: third"),
        (("--only", "repositories", "--repository-path", "group-9"), "the path group-9"),
        (("--repository-path", "group-1"), "this restore replaces it"),
        (("--repositories-archiver", "git", "--repositories-server-side"), "server-side"),
    ):
        result = program(*restore, *arguments)
        assert (2, {}) == (result.status, result.document["plan"])
        assert message in result.document["error"]["message"]
        assert ("filter" in result.document) is ("git" not in arguments)


def test_a_backup_of_some_components_is_partial(installation: ThrowawayInstallation, program: Program) -> None:
    """Whoever chooses components makes a partial backup; who backs up all that there is does not."""
    program("backup", "all", "--only", "lfs,uploads", "--quiet")
    Backup.create(installation.instance(), repositories=RepositoryOptions(archiver="git"))
    assert [True, False] == [each["partial"] for each in program("list", "--json").document]
    first, second = program("list").out.splitlines()[1:]
    assert ("complete, partial" in first, "partial" in second) == (True, False)
    shown = program("show", json.loads(program("list", "--json").out)[0]["backup_id"]).out
    assert "partial:        only uploads, lfs\n" in shown
