"""Which repositories a selection leaves, asked of a real database and of a simple model."""

# ruff: noqa: S608 - the values in the SQL are of our own making
from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gitlab_backup.errors import UsageError
from gitlab_backup.instance.repositories import list_repositories, unknown_paths
from gitlab_backup.instance.selection import EVERYTHING, Selection

from .test_repositories import LATER, PROJECTS, described

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.postgres import Cluster

NAMES = ("a", "ab", "a_b", "a%", "A.b", "a-b")
"""As like each other as names can be, wildcards of SQL among them."""
GROUPS = [*NAMES, *(f"{one}/{two}" for one, two in product(NAMES, NAMES))]
ROUTES = [f"{group}/{name}" for group, name in product(GROUPS, ("p", "pa"))]
"""Of projects; the number of each is its place, from 1 on."""
STORAGES = ("default", "second")


def storage_of(number: int) -> str:
    return STORAGES[number % 2]


def owners() -> Iterator[tuple[str, str, str | None]]:
    """Yield the name of every repository, its storage, and the path that it belongs to."""
    for number, route in enumerate(ROUTES, 1):
        for name in (route, f"{route}.wiki", f"{route}/snippets/{number}"):
            yield name, storage_of(number), route
    for number, group in enumerate(GROUPS, 1):
        yield f"{group}.wiki", storage_of(number), group
    yield "project 1000", "default", None
    yield "project 1000.wiki", "default", None
    yield "snippets/1001", "second", None


def model(selection: Selection) -> set[str]:
    """Return the names of the repositories that a selection leaves."""

    def below(owner: str | None, paths: tuple[str, ...]) -> bool:
        parts = (owner or "").lower().split("/")
        return owner is not None and any(
            parts[: len(given)] == given for given in (path.lower().split("/") for path in paths)
        )

    return {
        name
        for name, storage, owner in owners()
        if (not selection.storages or storage in selection.storages)
        and (not selection.paths or below(owner, selection.paths))
        and not below(owner, selection.skip_paths)
    }


@pytest.fixture
def filled(cluster: Cluster, database: str) -> tuple[Cluster, str]:
    """A database with all of that."""
    rows = ["CREATE TABLE design_management_repositories (project_id bigint);"]
    for number, route in enumerate(ROUTES, 1):
        rows += [
            f"INSERT INTO projects VALUES ({number}, '{storage_of(number)}', 2);",
            f"INSERT INTO routes VALUES ({number}, 'Project', '{route}');",
            f"INSERT INTO snippets VALUES ({number}, 'ProjectSnippet', {number});",
            f"INSERT INTO snippet_repositories VALUES ({1 + number % 2}, {number}, NULL);",
        ]
    for number, group in enumerate(GROUPS, 1):
        rows += [
            f"INSERT INTO routes VALUES ({number}, 'Namespace', '{group}');",
            f"INSERT INTO group_wiki_repositories VALUES ({1 + number % 2}, {number}, NULL);",
        ]
    rows += [
        "INSERT INTO projects VALUES (1000, 'default', 2);",
        "INSERT INTO snippets VALUES (1001, 'PersonalSnippet', NULL);",
        "INSERT INTO snippet_repositories VALUES (2, 1001, NULL);",
    ]
    cluster.psql(PROJECTS + LATER + "\n".join(rows), database)
    return cluster, database


def listed(filled: tuple[Cluster, str], *within: Selection) -> set[str]:
    rejected: list[str] = []
    found = [one.project_path for one in list_repositories(described(*filled), rejected=rejected.append, within=within)]
    assert len(set(found)) == len(found)
    assert [] == rejected
    return set(found)


PATHS = st.lists(
    st.sampled_from([*GROUPS, *ROUTES, "A", "AB/a_b", "/a/", "a/snippets", "a.wiki", "p", ""]).filter(bool), max_size=3
)
SELECTIONS = st.builds(
    Selection, storages=st.lists(st.sampled_from(STORAGES), max_size=2), paths=PATHS, skip_paths=PATHS
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(selection=SELECTIONS, other=st.one_of(st.just(EVERYTHING), SELECTIONS))
def test_as_the_model_says(filled: tuple[Cluster, str], selection: Selection, other: Selection) -> None:
    """The database leaves what the model leaves: whole components of paths, case aside; of two, what is in both."""
    assert model(selection) & model(other) == listed(filled, selection, other)


def test_everything(filled: tuple[Cluster, str]) -> None:
    """A selection that chooses nothing leaves all, what belongs to no path included."""
    assert {name for name, _, _ in owners()} == listed(filled) == listed(filled, EVERYTHING)
    assert not EVERYTHING


def test_a_name_that_begins_alike(filled: tuple[Cluster, str]) -> None:
    """`a` takes what is below it, and nothing of `ab`, nor does a wildcard of SQL mean anything."""
    assert {"a/p", "a/p.wiki", "a/p/snippets/1"} == listed(filled, Selection(paths=["a/p"]))
    below = listed(filled, Selection(paths=["a_b"]))
    assert below
    assert not {name for name in below if not name.startswith(("a_b/", "a_b."))}


def test_what_is_unknown(filled: tuple[Cluster, str]) -> None:
    """A path must be that of a group or a project, not of a part of one; in the order in which they were given."""
    database = described(*filled)
    assert [] == unknown_paths(database, ["a", "A/AB", "ab/a/p"])
    assert ["nothing", "a/p/snippets", "b"] == unknown_paths(database, ["nothing", "a", "a/p/snippets", "b"])


def test_a_schema_without_routes(cluster: Cluster, database: str) -> None:
    """Where there are no paths, none is known, and none has anything below."""
    cluster.psql(PROJECTS + "INSERT INTO projects VALUES (1, 'default', 2);", database)
    assert ["a"] == unknown_paths(described(cluster, database), ["a"])
    assert set() == listed((cluster, database), Selection(paths=["a"]))


@pytest.mark.parametrize("path", ["", "/", "a\0b", "a\udcffb", "a\nb"])
def test_no_path(path: str) -> None:
    """What cannot be a path is refused before any database is asked, and named."""
    with pytest.raises(UsageError, match="is no path of a group or project"):
        Selection(skip_paths=[path])


@given(selection=SELECTIONS)
def test_record(selection: Selection) -> None:
    """What a manifest keeps of it is read as the same."""
    assert selection == Selection.from_record(selection.to_record())


@pytest.mark.parametrize("record", [None, 1, [], {"paths": 1}, {"storages": None, "else": ["a"]}])
def test_a_record_of_something_else(record: object) -> None:
    """A manifest without it has everything."""
    assert EVERYTHING == Selection.from_record(record)


def test_in_words() -> None:
    """It says what it leaves."""
    chosen = Selection(storages=["default"], paths=["/group/project/", "b"], skip_paths=["b/c"])
    assert "on default, of group/project, b, without those of b/c" == str(chosen)
