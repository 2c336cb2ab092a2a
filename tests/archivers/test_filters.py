"""A part of the repositories of a whole installation, backed up and restored by the git archiver."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from gitlab_backup import Backup
from gitlab_backup.archivers.base import RepositoryOptions
from gitlab_backup.errors import RefusedError, UsageError
from gitlab_backup.manifest import FILTER
from tests.support.compare import find_repositories, repository, snapshot, tree
from tests.support.repositories import Shape, create, hashed

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.compare import FileState, RepositoryState
    from tests.support.installation import ThrowawayInstallation


def project(number: int, *, designs: bool = False) -> set[str]:
    """Return the repositories of a project of the installation, by their place."""
    disk_path = "group-2/project-10" if number == 10 else hashed("@hashed", number)
    storage = "second" if number == 9 else "default"
    suffixes = [".git", ".wiki.git", *([".design.git"] if designs else [])]
    return {f"{storage}/{disk_path}{suffix}" for suffix in suffixes}


def snippet(number: int) -> set[str]:
    return {f"default/{hashed('@snippets', number)}.git"}


PROJECT_1 = project(1, designs=True) | snippet(1) | snippet(3)
GROUP_1 = project(3) | project(6) | project(9)
GROUP_WIKI = {f"second/{hashed('@groups', 2)}.wiki.git"}
GROUP_2 = PROJECT_1 | project(4) | project(7) | project(10) | GROUP_WIKI


def chosen(
    *, storages: tuple[str, ...] = (), paths: tuple[str, ...] = (), skip_paths: tuple[str, ...] = ()
) -> RepositoryOptions:
    return RepositoryOptions(archiver="git", storages=storages, paths=paths, skip_paths=skip_paths)


def back_up(installation: ThrowawayInstallation, options: RepositoryOptions) -> Backup:
    return Backup.create(installation.instance(), only=["repositories"], repositories=options)


def restore(installation: ThrowawayInstallation, backup: Backup, options: RepositoryOptions) -> tuple[str, ...]:
    """Restore a part of the repositories, and return the notes of the plan."""
    restored = backup.restore(installation.instance(), only=["repositories"], repositories=options)
    assert not restored.with_warnings
    return restored.proposal.plans["repositories"].notes


def held(backup: Backup) -> set[str]:
    """Return the places of the repositories that a backup has a manifest of."""
    manifests = backup.path / "repositories" / "manifests"
    return {str(file.parent.relative_to(manifests)) for file in manifests.rglob("+latest.toml")}


def listed(installation: ThrowawayInstallation) -> set[str]:
    return {f"{one.storage}/{one.relative_path}" for one in installation.repositories}


def place(installation: ThrowawayInstallation, name: str) -> Path:
    storage, _, relative = name.partition("/")
    return installation.storages[storage] / relative


def change(installation: ThrowawayInstallation) -> None:
    """Lose all branches of what is there, and make what is listed and is not there, and what is not even listed."""
    for number, storage in enumerate(installation.storages.values()):
        for path in find_repositories(storage):
            if "@pools" not in path.parts:
                shutil.rmtree(path / "refs" / "heads")
                (path / "refs" / "heads").mkdir()
                (path / "packed-refs").unlink(missing_ok=True)
        create(storage / f"@hashed/00/0{number}/later.git", Shape.EMPTY, salt="later")
    for name in listed(installation):
        if name.endswith(".wiki.git") and not place(installation, name).exists():
            create(place(installation, name), Shape.EMPTY, salt=name)


def states(installation: ThrowawayInstallation, names: set[str]) -> dict[str, RepositoryState | None]:
    """Return what is in these places."""
    return {name: repository(path) if (path := place(installation, name)).exists() else None for name in sorted(names)}


def others(installation: ThrowawayInstallation, names: set[str]) -> dict[str, FileState]:
    """Return all that is on the storages besides, to the last time, but for the directories above these places."""
    ignored = {"+gitaly", *(f"{storage}/." for storage in installation.storages)}
    found = {
        f"{name}/{path}": state for name, top in installation.storages.items() for path, state in tree(top).items()
    }
    return {
        path: state
        for path, state in found.items()
        if path not in ignored
        and path.split("/")[1] != "+gitaly"
        and not any(f"{path}/".startswith(f"{name}/") or f"{name}/".startswith(f"{path}/") for name in names)
    }


PARTS = [
    (chosen(paths=("group-2",)), GROUP_2),
    (chosen(paths=("Group-2/Project-1", "group-1/project-9")), PROJECT_1 | project(9)),
    (chosen(storages=("second",)), project(9) | GROUP_WIKI),
    (
        chosen(paths=("group-2",), skip_paths=("group-2/project-1",), storages=("default",)),
        project(4) | project(7) | project(10),
    ),
]


def test_the_sets_are_those_of_the_installation(installation: ThrowawayInstallation) -> None:
    """What these tests know of the installation is so."""
    assert GROUP_1 | GROUP_2 <= listed(installation)
    assert not GROUP_1 & GROUP_2


@pytest.mark.parametrize(("options", "expected"), PARTS)
def test_a_part_there_and_back(
    installation: ThrowawayInstallation, options: RepositoryOptions, expected: set[str]
) -> None:
    """The backup has exactly the part, and says so; restored as a whole, it leaves everything else as it is."""
    before = states(installation, expected)
    backup = back_up(installation, options)
    assert expected == held(backup)
    assert () == backup.verify().damages
    assert backup.partial
    assert backup.manifest is not None
    record = backup.manifest.component("repositories")
    assert record is not None
    assert options.selection.to_record() == record.details[FILTER]
    change(installation)
    besides = others(installation, expected)
    notes = restore(installation, backup, chosen())
    assert before == states(installation, expected)
    assert besides == others(installation, expected)
    assert f"the backup has only repositories {options.selection}; all others are left as they are" in notes


@pytest.mark.parametrize(("options", "expected"), PARTS)
def test_a_part_of_everything(
    installation: ThrowawayInstallation, options: RepositoryOptions, expected: set[str]
) -> None:
    """Of a backup of all repositories the part alone is restored, and nothing else is touched."""
    before = states(installation, expected)
    backup = back_up(installation, chosen())
    assert listed(installation) == held(backup)
    change(installation)
    besides = others(installation, expected)
    notes = restore(installation, backup, options)
    assert before == states(installation, expected)
    assert besides == others(installation, expected)
    assert f"only repositories {options.selection} are restored; all others are left as they are" in notes


def test_everything_but_a_part(installation: ThrowawayInstallation) -> None:
    """What is skipped stays; what no row is about any more is restored all the same."""
    backup = back_up(installation, chosen())
    expected = listed(installation) - GROUP_2
    before = states(installation, expected)
    change(installation)
    installation.cluster.psql("DELETE FROM projects WHERE id = 9", installation.databases["main"])
    besides = others(installation, expected)
    restore(installation, backup, chosen(skip_paths=("group-2",)))
    assert before == states(installation, expected)
    assert besides == others(installation, expected)


def test_a_part_of_a_part(installation: ThrowawayInstallation) -> None:
    """Only what both are about; projects that the backup does not have are named, and stay."""
    backup = back_up(installation, chosen(paths=("group-2/project-1", "group-1")))
    change(installation)
    expected = PROJECT_1
    besides = others(installation, expected)
    notes = restore(installation, backup, chosen(paths=("group-2",)))
    assert besides == others(installation, expected)
    assert [True] == [
        all(f"group-2/project-{n}" in note for n in (4, 7, 10)) for note in notes if "not in the backup" in note
    ]


@pytest.mark.parametrize(
    ("options", "named", "hint"),
    [
        (chosen(storages=("second", "third")), "unknown repository storage: third", "default, second"),
        (chosen(paths=("group-2", "group-2/proj")), "path group-2/proj$", "whole"),
        (chosen(skip_paths=("nobody",)), "path nobody$", "whole"),
        (chosen(paths=("/",)), "is no path", "URL"),
    ],
)
def test_what_does_not_exist(
    installation: ThrowawayInstallation, options: RepositoryOptions, named: str, hint: str
) -> None:
    """A storage or a path that there is not is named before anything is done, at a backup, its plan and a restore."""
    backup = back_up(installation, chosen(storages=("second",)))
    instance = installation.instance()
    for act in (Backup.create, Backup.plan):
        with pytest.raises(UsageError, match=named) as caught:
            act(instance, only=["repositories", "uploads"], repositories=options)
        assert hint in (caught.value.hint or "")
    with pytest.raises(UsageError, match=named):
        backup.restore(instance, repositories=options)
    assert (backup,) == Backup.all(instance.backup_path)


def test_a_part_that_the_backup_does_not_have(installation: ThrowawayInstallation) -> None:
    """To restore nothing is refused, and says what was asked for."""
    backup = back_up(installation, chosen(storages=("second",)))
    with pytest.raises(RefusedError, match="has no repositories of group-2/project-1"):
        restore(installation, backup, chosen(paths=("group-2/project-1",)))
    with pytest.raises(RefusedError, match="has no repositories on default"):
        restore(installation, backup, chosen(storages=("default",)))


def test_paths_need_a_database_that_stays(installation: ThrowawayInstallation) -> None:
    """Where the database is replaced in the same run, no path can be looked up: refused. Storages can be."""
    backup = Backup.create(installation.instance(), only=["repositories", "db"], repositories=chosen())
    with pytest.raises(UsageError, match="the database, and this restore replaces it") as caught:
        backup.restore(installation.instance(), repositories=chosen(paths=("group-1",)))
    assert "--only repositories" in (caught.value.hint or "")
    before = snapshot(installation).repositories
    change(installation)
    names = {name for name in before if name.startswith("second/")}
    backup.restore(installation.instance(), repositories=chosen(storages=("second",)))
    assert {name: before[name] for name in names} == {
        name: state for name, state in snapshot(installation).repositories.items() if name in names
    }


def test_nothing_below_a_group(installation: ThrowawayInstallation) -> None:
    """A group without projects is one; that the backup has nothing then is a warning."""
    backup = back_up(installation, chosen(paths=("group-5",)))
    assert backup.manifest is not None
    record = backup.manifest.component("repositories")
    assert record is not None
    assert ("there are no repositories of group-5",) == record.warnings
    assert set() == held(backup)
