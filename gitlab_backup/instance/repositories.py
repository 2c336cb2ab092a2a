"""The repositories of an instance, as its database lists them.

Where a repository lies is said by the table that keeps track of it, or follows from its id (hashed storage,
`app/models/storage/hashed.rb` of GitLab), or, for projects that were never moved to hashed storage, from its route
(`app/models/storage/legacy_project.rb`).
"""

from __future__ import annotations

import hashlib
import re
from enum import Enum
from typing import TYPE_CHECKING, Final, TypeAlias

from attrs import frozen

from .postgres import connect, database_error, without_timeouts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import psycopg
    from psycopg.rows import TupleRow

    from .model import Database
    from .selection import Selection

_ROWS: Final = 2000
"""How many rows are fetched at a time."""


class RepositoryKind(Enum):
    """What a repository belongs to."""

    PROJECT = "project"
    WIKI = "wiki"
    DESIGN = "design"
    PROJECT_SNIPPET = "project snippet"
    PERSONAL_SNIPPET = "personal snippet"
    GROUP_WIKI = "group wiki"


@frozen(kw_only=True)
class Repository:
    """One repository that the database lists. It need not exist on its storage."""

    storage: str
    relative_path: str
    """Its directory below that of the storage, with `.git`. Safe to be joined to it: relative, without `..`."""
    project_path: str
    """How GitLab names it (`group/project.wiki`). For people only."""
    kind: RepositoryKind

    @property
    def always_create(self) -> bool:
        """Whether a restore has to make it where the backup has none: GitLab expects those of projects to exist."""
        return self.kind is RepositoryKind.PROJECT


_Made: TypeAlias = "tuple[RepositoryKind, str | None, str, str]"
"""Kind, storage, path, name."""


def list_repositories(
    database: Database, *, rejected: Callable[[str], None], within: Iterable[Selection] = ()
) -> Iterator[Repository]:
    """Yield the repositories that `database` (the one of the connection `main`) lists, all from one snapshot.

    Only those that are in every selection of `within`: what is not does not leave the database. A wiki is listed for
    every project: whether it exists only its storage knows. A row that names no place, or one outside of its storage,
    is passed over, and told to `rejected`. Rows are fetched as they are asked for; the transaction is open until the
    last one was. Projects with large repositories come first, as far as GitLab knows their sizes: one that is begun
    last would keep all others waiting for its end.

    Raises `DatabaseError`, which says what was being listed.
    """
    import psycopg

    within = tuple(within)
    connection = connect(database)
    with connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.read_only = True
        what = "the tables"
        try:
            without_timeouts(connection)
            existing = _existing_tables(connection)
            for what, needed, storage, query, made_from in _LISTS:  # noqa: B007 - the handler says it
                if not set(needed) <= existing:
                    continue
                condition, values = _condition(storage, within)
                with connection.cursor(name="repositories") as cursor:
                    cursor.itersize = _ROWS
                    cursor.execute(_with_stand_ins(query.format(condition=condition), existing), values)
                    for row in cursor:
                        for made in made_from(row):
                            if repository := _repository(made, rejected):
                                yield repository
        except psycopg.Error as error:
            raise database_error(database, f"cannot list {what}", error) from error


def unknown_paths(database: Database, paths: Iterable[str]) -> list[str]:
    """Return those of `paths` that are of no group and no project in `database`. Raises `DatabaseError`."""
    import psycopg

    with connect(database) as connection:
        try:
            without_timeouts(connection)
            query = _with_stand_ins(_UNKNOWN, _existing_tables(connection))
            return [str(path) for (path,) in connection.execute(query, [list(paths)])]
        except psycopg.Error as error:
            raise database_error(database, "cannot look for paths of groups and projects", error) from error


_UNKNOWN: Final = """
SELECT wanted FROM unnest(%s::text[]) WITH ORDINALITY AS given (wanted, position)
WHERE NOT EXISTS (
    SELECT FROM routes WHERE lower(routes.path) = lower(wanted) AND routes.source_type IN ('Project', 'Namespace')
)
ORDER BY position
"""

# Each query of a list may read these, which came in the course of time.
_LATER: Final = {
    # Before there was this table, every project could have designs.
    "design_management_repositories": "SELECT id AS project_id FROM projects",
    "project_repositories": "SELECT NULL::bigint AS project_id, NULL::varchar AS disk_path WHERE false",
    "project_statistics": "SELECT NULL::bigint AS project_id, NULL::bigint AS repository_size WHERE false",
    "routes": "SELECT NULL::bigint AS source_id, NULL::varchar AS source_type, NULL::varchar AS path WHERE false",
    "shards": "SELECT NULL::bigint AS id, NULL::varchar AS name WHERE false",
}

_PROJECTS: Final = """
SELECT projects.id, projects.repository_storage, projects.storage_version, project_repositories.disk_path, routes.path,
       EXISTS (SELECT FROM design_management_repositories WHERE project_id = projects.id)
FROM projects
LEFT JOIN project_repositories ON project_repositories.project_id = projects.id
LEFT JOIN project_statistics ON project_statistics.project_id = projects.id
LEFT JOIN routes ON routes.source_id = projects.id AND routes.source_type = 'Project'
WHERE {condition}
ORDER BY project_statistics.repository_size DESC NULLS LAST, projects.id
"""
_SNIPPETS: Final = """
SELECT snippet_repositories.snippet_id, shards.name, snippet_repositories.disk_path, snippets.project_id, routes.path
FROM snippet_repositories
JOIN snippets ON snippets.id = snippet_repositories.snippet_id
LEFT JOIN shards ON shards.id = snippet_repositories.shard_id
LEFT JOIN routes ON routes.source_id = snippets.project_id AND routes.source_type = 'Project'
WHERE {condition}
ORDER BY snippet_repositories.snippet_id
"""
_GROUP_WIKIS: Final = """
SELECT group_wiki_repositories.group_id, shards.name, group_wiki_repositories.disk_path, routes.path
FROM group_wiki_repositories
LEFT JOIN shards ON shards.id = group_wiki_repositories.shard_id
LEFT JOIN routes ON routes.source_id = group_wiki_repositories.group_id AND routes.source_type = 'Namespace'
WHERE {condition}
ORDER BY group_wiki_repositories.group_id
"""


def _of_project(row: TupleRow) -> list[_Made]:
    number, storage, version, stored, route, designs = row
    # Before hashed storage (versions NULL and 0) a project lies where its route says.
    disk_path = stored or (_hashed("@hashed", number) if version else route) or ""
    name = route or f"project {number}"
    made: list[_Made] = [
        (RepositoryKind.PROJECT, storage, disk_path and f"{disk_path}.git", name),
        (RepositoryKind.WIKI, storage, disk_path and f"{disk_path}.wiki.git", f"{name}.wiki"),
    ]
    if designs:
        made.append((RepositoryKind.DESIGN, storage, disk_path and f"{disk_path}.design.git", f"{name}.design"))
    return made


def _of_snippet(row: TupleRow) -> list[_Made]:
    number, storage, stored, project, route = row
    disk_path = stored or _hashed("@snippets", number)
    if project is None:
        return [(RepositoryKind.PERSONAL_SNIPPET, storage, f"{disk_path}.git", f"snippets/{number}")]
    name = f"{route or f'project {project}'}/snippets/{number}"
    return [(RepositoryKind.PROJECT_SNIPPET, storage, f"{disk_path}.git", name)]


def _of_group_wiki(row: TupleRow) -> list[_Made]:
    number, storage, stored, route = row
    disk_path = stored or _hashed("@groups", number)
    return [(RepositoryKind.GROUP_WIKI, storage, f"{disk_path}.wiki.git", f"{route or f'group {number}'}.wiki")]


_LISTS: Final[tuple[tuple[str, tuple[str, ...], str, str, Callable[[TupleRow], list[_Made]]], ...]] = (
    ("projects", ("projects",), "projects.repository_storage", _PROJECTS, _of_project),
    ("snippets", ("snippets", "snippet_repositories"), "shards.name", _SNIPPETS, _of_snippet),
    ("group wikis", ("group_wiki_repositories",), "shards.name", _GROUP_WIKIS, _of_group_wiki),
)


def _existing_tables(connection: psycopg.Connection[TupleRow]) -> set[str]:
    names = list({name for _, needed, *_ in _LISTS for name in needed} - {"projects"} | set(_LATER))
    rows = connection.execute(
        "SELECT name FROM unnest(%s::text[]) AS name WHERE to_regclass(name) IS NOT NULL", [names]
    )
    # The one that cannot be missing: without it this is not GitLab's database, and the query shall say so.
    return {str(name) for (name,) in rows} | {"projects"}


def _condition(storage: str, within: tuple[Selection, ...]) -> tuple[str, dict[str, list[str]]]:
    """Return the SQL condition of all selections, and its parameters; `storage` is the column that names it."""
    conditions = ["true"]
    values: dict[str, list[str]] = {}
    for number, selection in enumerate(within):
        condition, more = selection.condition(storage, "routes.path", f"within_{number}")
        conditions.append(condition)
        values |= more
    return " AND ".join(conditions), values


def _with_stand_ins(query: str, existing: set[str]) -> bytes:
    """Let a query read something in place of the tables that this version of GitLab does not have."""
    missing = [name for name in _LATER if name not in existing and f" {name} " in query]
    stand_ins = ", ".join(f"{name} AS ({_LATER[name]})" for name in missing)
    return (f"WITH {stand_ins} {query}" if stand_ins else query).encode()


def _hashed(prefix: str, number: int) -> str:
    digest = hashlib.sha256(str(number).encode()).hexdigest()
    return f"{prefix}/{digest[:2]}/{digest[2:4]}/{digest}"


_HASHED: Final = re.compile(r"@[a-z]{1,20}/[0-9a-f]{2}/[0-9a-f]{2}/[0-9a-f]{64}(?:\.wiki|\.design)?\.git")
"""Where nearly all repositories lie."""
_LONGEST_NAME: Final = 240
_LONGEST_PATH: Final = 1024
"""Bytes. They leave room for what is put before and behind below NAME_MAX (255) and PATH_MAX (4096)."""


def _problem(storage: str | None, path: str) -> str | None:
    """Return why a place that the database names is not one."""
    if not storage:
        return "the database names no storage for it"
    if not path:
        return "it has neither a stored path nor a route"
    parts = path.split("/")
    if any(part in {"", ".", ".."} for part in parts) or not path.isprintable() or "\\" in path:
        return f"the database says that it lies at {path!r}, which is not a path inside a storage"
    if len(path.encode()) > _LONGEST_PATH or any(len(part.encode()) > _LONGEST_NAME for part in parts):
        return f"its path is too long: {path[:80]!r}…"
    if parts[0] == "+gitaly":
        return f"the database says that it lies at {path!r}, which belongs to Gitaly"
    return None


def _repository(made: _Made, rejected: Callable[[str], None]) -> Repository | None:
    kind, storage, path, name = made
    if not (storage and _HASHED.fullmatch(path)) and (problem := _problem(storage, path)):
        rejected(f"{name} ({kind.value}): {problem}")
        return None
    return Repository(
        storage=storage or "",
        relative_path=path,
        project_path=name,
        kind=kind,
    )
