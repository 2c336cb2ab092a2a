"""The list of repositories, read from real databases of different shapes."""

# ruff: noqa: S608 - the values in the SQL are of our own making
from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from gitlab_backup.errors import DatabaseError
from gitlab_backup.instance import Database
from gitlab_backup.instance.repositories import Repository, RepositoryKind, list_repositories

if TYPE_CHECKING:
    from tests.support.installation import ThrowawayInstallation
    from tests.support.postgres import Cluster

PROJECTS = """
CREATE TABLE projects (
    id bigint PRIMARY KEY, repository_storage varchar DEFAULT 'default' NOT NULL, storage_version smallint
);
"""
LATER = """
CREATE TABLE shards (id integer PRIMARY KEY, name varchar NOT NULL);
CREATE TABLE project_repositories (shard_id integer, disk_path varchar, project_id bigint);
CREATE TABLE routes (source_id bigint, source_type varchar, path varchar);
CREATE TABLE snippets (id bigint PRIMARY KEY, type varchar, project_id bigint);
CREATE TABLE snippet_repositories (shard_id integer, snippet_id bigint, disk_path varchar);
CREATE TABLE group_wiki_repositories (shard_id integer, group_id bigint, disk_path text);
INSERT INTO shards VALUES (1, 'default'), (2, 'second');
"""


def hashed(prefix: str, number: int) -> str:
    digest = hashlib.sha256(str(number).encode()).hexdigest()
    return f"{prefix}/{digest[:2]}/{digest[2:4]}/{digest}"


def described(cluster: Cluster, dbname: str) -> Database:
    return Database(
        name="main", dbname=dbname, host=str(cluster.socket_directory), port=cluster.port, user=cluster.superuser
    )


def listed(cluster: Cluster, dbname: str, *statements: str) -> tuple[list[Repository], list[str]]:
    """Return what is listed after `statements`, and what is rejected."""
    if statements:
        cluster.psql("\n".join(statements), dbname)
    rejected: list[str] = []
    return list(list_repositories(described(cluster, dbname), rejected=rejected.append)), rejected


def test_an_installation_is_listed_whole(installation: ThrowawayInstallation) -> None:
    """Everything that has a repository is listed at its place, once, and nothing else."""
    found, rejected = listed(installation.cluster, installation.databases["main"])
    expected = {(repository.storage, str(repository.relative_path)) for repository in installation.repositories}
    places = [(repository.storage, repository.relative_path) for repository in found]
    assert expected == set(places)
    assert len(places) == len(set(places))
    assert [] == rejected


def test_each_kind(cluster: Cluster, database: str) -> None:
    """Each kind has its path, suffix, storage and name; only projects' repositories must exist."""
    found, rejected = listed(
        cluster,
        database,
        PROJECTS,
        LATER,
        "INSERT INTO projects VALUES (7, 'second', 2);",
        "INSERT INTO routes VALUES (7, 'Project', 'group/project'), (7, 'Namespace', 'group');",
        "INSERT INTO snippets VALUES (3, 'ProjectSnippet', 7);",
        "INSERT INTO snippets VALUES (4, 'PersonalSnippet', NULL), (5, 'PersonalSnippet', NULL);",
        "INSERT INTO snippet_repositories VALUES (2, 3, 'stored/three'), (1, 4, NULL);",
        "INSERT INTO group_wiki_repositories VALUES (2, 7, '@groups/7');",
    )
    place = hashed("@hashed", 7)
    assert [
        ("second", f"{place}.git", "group/project", True, RepositoryKind.PROJECT),
        ("second", f"{place}.wiki.git", "group/project.wiki", False, RepositoryKind.WIKI),
        ("second", f"{place}.design.git", "group/project.design", False, RepositoryKind.DESIGN),
        ("second", "stored/three.git", "group/project/snippets/3", False, RepositoryKind.PROJECT_SNIPPET),
        ("default", f"{hashed('@snippets', 4)}.git", "snippets/4", False, RepositoryKind.PERSONAL_SNIPPET),
        ("second", "@groups/7.wiki.git", "group.wiki", False, RepositoryKind.GROUP_WIKI),
    ] == [(one.storage, one.relative_path, one.project_path, one.always_create, one.kind) for one in found]
    assert [] == rejected


@pytest.mark.parametrize(
    ("version", "stored", "route", "expected"),
    [
        ("2", None, None, hashed("@hashed", 1)),
        ("1", None, "group/old", hashed("@hashed", 1)),
        ("NULL", None, "group/old", "group/old"),
        ("0", None, "group/old", "group/old"),
        ("2", "@hashed/moved", "group/old", "@hashed/moved"),
        ("NULL", "@hashed/moved", None, "@hashed/moved"),
        ("NULL", None, None, None),
    ],
)
def test_where_a_project_lies(
    cluster: Cluster, database: str, *, version: str, stored: str | None, route: str | None, expected: str | None
) -> None:
    """The stored path counts, then the id (hashed storage) or the route (legacy storage). No route loses nothing."""
    found, rejected = listed(
        cluster,
        database,
        PROJECTS,
        LATER,
        f"INSERT INTO projects VALUES (1, 'default', {version});",
        f"INSERT INTO project_repositories VALUES (1, '{stored}', 1);" if stored else "",
        f"INSERT INTO routes VALUES (1, 'Project', '{route}');" if route else "",
    )
    suffixes = (".git", ".wiki.git", ".design.git")
    assert [f"{expected}{suffix}" for suffix in suffixes if expected] == [one.relative_path for one in found]
    assert (0 if expected else 3) == len(rejected)


def test_a_schema_without_the_later_tables(cluster: Cluster, database: str) -> None:
    """An old schema, with projects alone, is read."""
    found, _ = listed(cluster, database, PROJECTS, "INSERT INTO projects VALUES (1, 'default', 2);")
    assert [RepositoryKind.PROJECT, RepositoryKind.WIKI, RepositoryKind.DESIGN] == [one.kind for one in found]


def test_a_row_without_a_storage_is_told(cluster: Cluster, database: str) -> None:
    """A snippet whose shard does not exist is not lost in a join, but told."""
    found, rejected = listed(
        cluster,
        database,
        PROJECTS,
        LATER,
        "INSERT INTO snippets VALUES (3, 'PersonalSnippet', NULL);",
        "INSERT INTO snippet_repositories VALUES (9, 3, 'a');",
    )
    assert [] == found
    assert ["snippets/3 (personal snippet): the database names no storage for it"] == rejected


@pytest.mark.parametrize("path", ["/etc", "..", "a/../../b", "a//b", "./a", "a\nb", "+gitaly/x", "x" * 300])
def test_a_hostile_path_is_told(cluster: Cluster, database: str, path: str) -> None:
    """No path leads out of its storage; its repositories are told, the others are listed."""
    found, rejected = listed(
        cluster,
        database,
        PROJECTS,
        LATER,
        "INSERT INTO projects VALUES (1, 'default', 2), (2, 'default', 2);",
        f"INSERT INTO project_repositories VALUES (1, '{path}', 1);",
    )
    parts = {part for one in found for part in one.relative_path.split("/")}
    assert not parts & {"", ".", ".."}
    # `..` and its suffix are a name like any other.
    assert (6 if path == ".." else 3) == len(found)
    assert 6 == len(found) + len(rejected)


def test_many_rows(cluster: Cluster, database: str) -> None:
    """More rows than are fetched at a time are all there, in order, and asked for as they are needed."""
    cluster.psql(PROJECTS + "INSERT INTO projects SELECT n, 'default', 2 FROM generate_series(1, 4500) n;", database)
    found = list_repositories(described(cluster, database), rejected=lambda reason: None)  # noqa: ARG005
    assert hashed("@hashed", 1) + ".git" == next(found).relative_path
    assert 4500 * 3 - 1 == sum(1 for _ in found)


def test_large_repositories_come_first(cluster: Cluster, database: str) -> None:
    """By the sizes that GitLab keeps; projects without one come last, and those of the same size by their ids."""
    found, _ = listed(
        cluster,
        database,
        PROJECTS,
        "CREATE TABLE project_statistics (project_id bigint UNIQUE, repository_size bigint DEFAULT 0 NOT NULL);",
        "INSERT INTO projects SELECT n, 'default', 2 FROM generate_series(1, 5) n;",
        "INSERT INTO project_statistics VALUES (5, 10), (4, 5000000000), (2, 10), (1, 0);",
    )
    places = [one.relative_path for one in found if one.kind is RepositoryKind.PROJECT]
    assert [f"{hashed('@hashed', number)}.git" for number in (4, 2, 5, 1, 3)] == places


def test_one_snapshot_for_all(cluster: Cluster, database: str) -> None:
    """What is added while the list is read is not in it: all of it is of one moment."""
    cluster.psql(PROJECTS + LATER + "INSERT INTO projects VALUES (1, 'default', 2);", database)
    found = list_repositories(described(cluster, database), rejected=lambda reason: None)  # noqa: ARG005
    next(found)
    cluster.psql(
        "INSERT INTO snippets VALUES (3, 'PersonalSnippet', NULL);INSERT INTO snippet_repositories VALUES (1, 3, 'a');",
        database,
    )
    assert 2 == sum(1 for _ in found)


def test_a_database_that_is_not_gitlabs(cluster: Cluster, database: str) -> None:
    """Without a table of projects the error names the database and what was looked for."""
    with pytest.raises(DatabaseError, match=rf"database main \({database} .*cannot list projects.*does not exist"):
        listed(cluster, database)
