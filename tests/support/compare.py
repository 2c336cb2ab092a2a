"""Everything that can be compared of an installation, and what differs between two of them."""

# ruff: noqa: PTH115, PTH118, PTH123  names that are not UTF-8 are bytes, which pathlib does not know

from __future__ import annotations

import grp
import hashlib
import os
import pwd
import stat
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import asdict, define, frozen

from .installation import DIRECTORIES, ThrowawayInstallation
from .repositories import git

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .postgres import Cluster


@frozen(kw_only=True)
class DatabaseState:
    """What is in a database."""

    schema: tuple[str, ...]
    """The lines of `pg_dump --schema-only`, without the comments that name versions."""
    tables: Mapping[str, str]
    """Each table and materialised view: its number of rows, and a digest of all of them in no order."""
    sequences: Mapping[str, str]
    """Each sequence: its last value, and whether that was handed out."""

    @property
    def rows(self) -> int:
        """The number of rows of all tables."""
        return sum(int(value.split()[0]) for value in self.tables.values())


@frozen(kw_only=True)
class RepositoryState:
    """What is in a Git repository."""

    object_format: str
    head: str
    """The ref that HEAD names, or the commit where it is detached."""
    refs: tuple[str, ...]
    objects: str
    """A digest of the ids of all objects that refs lead to, and their number."""
    hooks: tuple[str, ...]
    """Each entry of `custom_hooks`: type and mode, and what it holds."""


@frozen(kw_only=True)
class FileState:
    """What a directory entry is."""

    kind: str
    """Type and mode, as `ls` shows them."""
    owner: str
    mtime_ns: int
    content: str
    """The digest of a file, the target of a symbolic link, else nothing."""
    links: tuple[str, ...]
    """The other names of a file in the same tree, without those outside."""


@define
class State:
    """An installation at one moment."""

    databases: dict[str, DatabaseState]
    repositories: dict[str, RepositoryState]
    """By storage and path: `default/@hashed/…`."""
    files: dict[str, dict[str, FileState]]
    """By component, then by path."""


def snapshot(installation: ThrowawayInstallation, *, excluded: bool = False) -> State:
    """Read all of an installation; with `excluded`, also what a backup leaves out of its directories."""
    with ThreadPoolExecutor(4) as pool:
        databases = {
            connection: pool.submit(database, installation.cluster, name)
            for connection, name in installation.databases.items()
        }
        found = {
            f"{storage}/{path.relative_to(top)}": pool.submit(repository, path)
            for storage, top in installation.storages.items()
            for path in find_repositories(top)
        }
        trees = {
            component: pool.submit(tree, directory, leave_out=None if excluded else DIRECTORIES[component][1])
            for component, directory in installation.directories.items()
            if directory.exists()
        }
        return State(
            databases={name: each.result() for name, each in databases.items()},
            repositories={name: each.result() for name, each in found.items()},
            files={name: each.result() for name, each in trees.items()},
        )


def differences(expected: State, actual: State) -> list[str]:
    """Return a line for each thing that differs; none where the two are equal."""
    lines = _missing("database", expected.databases, actual.databases)
    for name in sorted(expected.databases.keys() & actual.databases.keys()):
        lines += database_differences(name, expected.databases[name], actual.databases[name])
    lines += _different("repository", expected.repositories, actual.repositories)
    lines += _missing("directory of", expected.files, actual.files)
    for name in sorted(expected.files.keys() & actual.files.keys()):
        lines += tree_differences(name, expected.files[name], actual.files[name])
    return lines


def database(cluster: Cluster, name: str) -> DatabaseState:
    """Read a database."""
    dump = cluster.run("pg_dump", "--schema-only", "--dbname", name).decode()
    # \restrict has a random token since the minor releases of August 2025; comments name versions.
    schema = tuple(
        line for line in dump.splitlines() if line and not line.startswith(("--", "\\restrict", "\\unrestrict"))
    )
    # In one session: to begin one costs more than to ask.
    lines = cluster.psql(f"{_all_of(_TABLES)}\\echo --\n{_all_of(_SEQUENCES)}", name).splitlines()
    tables, sequences = lines[: lines.index("--")], lines[lines.index("--") + 1 :]
    return DatabaseState(schema=schema, tables=_by_name(tables), sequences=_by_name(sequences))


def database_differences(name: str, expected: DatabaseState, actual: DatabaseState) -> list[str]:
    """Return a line for each thing that differs between two databases."""
    lines = [f"database {name}: schema lacks: {line}" for line in expected.schema if line not in set(actual.schema)]
    lines += [
        f"database {name}: schema has besides: {line}" for line in actual.schema if line not in set(expected.schema)
    ]
    if not lines and expected.schema != actual.schema:
        lines.append(f"database {name}: the lines of the schema are in another order")
    lines += _different(f"database {name}: table", expected.tables, actual.tables)
    return lines + _different(f"database {name}: sequence", expected.sequences, actual.sequences)


def find_repositories(storage: Path) -> list[Path]:
    """Return the Git directories below a storage, as Gitaly sees them: what is in `+gitaly` is not one."""
    found = []
    for parent, directories, files in os.walk(storage):
        if "HEAD" in files and "objects" in directories:
            found.append(Path(parent))
            directories.clear()
        elif Path(parent) == storage and "+gitaly" in directories:
            directories.remove("+gitaly")
    return sorted(found)


def repository(path: Path) -> RepositoryState:
    """Read a Git repository, and check all of its objects. Raises `AssertionError` where one is damaged or missing."""
    git(path, "fsck", "--full", "--strict", "--no-dangling", "--no-progress")
    refs = git(path, "for-each-ref", "--format=%(objectname) %(objecttype) %(refname)").decode().splitlines()
    objects = sorted(git(path, "rev-list", "--objects", "--all", "--no-object-names").split())
    head = (path / "HEAD").read_text().strip()
    hooks = tree(path / "custom_hooks") if (path / "custom_hooks").exists() else {}
    return RepositoryState(
        object_format="sha256" if "objectformat = sha256" in (path / "config").read_text().lower() else "sha1",
        head=head,
        refs=tuple(sorted(refs)),
        objects=f"{len(objects)} {hashlib.sha256(b' '.join(objects)).hexdigest()}",
        hooks=tuple(f"{name} {entry.kind} {entry.content}" for name, entry in sorted(hooks.items())),
    )


def repository_differences(name: str, expected: RepositoryState, actual: RepositoryState) -> list[str]:
    """Return a line where two repositories differ."""
    return _different("repository", {name: expected}, {name: actual})


def tree(directory: Path, *, leave_out: str | None = None) -> dict[str, FileState]:
    """Read a file tree, its root (`.`) included, without the entry `leave_out` at its top."""
    top = os.fsencode(directory)
    found: dict[str, FileState] = {}
    names: defaultdict[tuple[int, int], list[str]] = defaultdict(list)
    for path in _walk(top, leave_out):
        name = os.fsdecode(path[len(top) + 1 :]) or "."
        status = os.lstat(path)
        if stat.S_ISREG(status.st_mode) and status.st_nlink > 1:
            names[status.st_dev, status.st_ino].append(name)
        found[name] = FileState(
            kind=stat.filemode(status.st_mode),
            owner=f"{_user(status.st_uid)}:{_group(status.st_gid)}",
            mtime_ns=status.st_mtime_ns,
            content=_content(path, status),
            links=(),
        )
    for same in names.values():
        for name in same:
            others = tuple(sorted(other for other in same if other != name))
            found[name] = FileState(**{**asdict(found[name]), "links": others})
    return found


def tree_differences(name: str, expected: Mapping[str, FileState], actual: Mapping[str, FileState]) -> list[str]:
    """Return a line for each entry that differs between two file trees."""
    return _different(name, expected, actual)


def _walk(top: bytes, leave_out: str | None) -> list[bytes]:
    found = [top]
    for parent, directories, files in os.walk(top):
        if parent == top:
            directories[:] = [name for name in directories if leave_out is None or name != os.fsencode(leave_out)]
        found += [os.path.join(parent, name) for name in (*directories, *files)]
    return found


def _content(path: bytes, status: os.stat_result) -> str:
    if stat.S_ISLNK(status.st_mode):
        return repr(os.readlink(path))
    if stat.S_ISREG(status.st_mode):
        with open(path, "rb") as file:
            return f"{status.st_size} bytes, {hashlib.file_digest(file, 'sha256').hexdigest()}"
    return ""


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def _missing(what: str, expected: Mapping[str, object], actual: Mapping[str, object]) -> list[str]:
    lines = [f"{what} {name!r} is missing" for name in sorted(expected.keys() - actual.keys())]
    return lines + [f"{what} {name!r} should not be there" for name in sorted(actual.keys() - expected.keys())]


def _different(what: str, expected: Mapping[str, object], actual: Mapping[str, object]) -> list[str]:
    lines = _missing(what, expected, actual)
    for name in sorted(expected.keys() & actual.keys()):
        before, after = expected[name], actual[name]
        if before == after:
            continue
        if isinstance(before, FileState | RepositoryState) and isinstance(after, type(before)):
            old, new = asdict(before, recurse=False), asdict(after, recurse=False)
            detail = "; ".join(f"{key}: {old[key]} became {new[key]}" for key in old if old[key] != new[key])
        else:
            detail = f"{before} became {after}"
        lines.append(f"{what} {name!r}: {detail}")
    return lines


def _all_of(sql: str) -> str:
    """Return what makes psql run all the queries that a query makes, as one."""
    return f"SELECT string_agg(made.query, ' UNION ALL ') FROM ({sql}) AS made (query) \\gexec\n"  # noqa: S608  of those below


def _by_name(lines: list[str]) -> dict[str, str]:
    return dict(line.split("|", 1) for line in lines)


_TABLES = (
    """SELECT replace(format($$SELECT %1$L, count(*) || ' rows, '"""
    """ || md5(coalesce(string_agg(digest, '' ORDER BY digest COLLATE "C"), ''))"""
    """ FROM (SELECT md5(entry::text) AS digest FROM ONLY %1$s AS entry) AS entries$$, oid::regclass), chr(10), ' ')"""
    """ FROM pg_class WHERE relkind IN ('r', 'm') AND relpersistence = 'p'"""
    """ AND relnamespace NOT IN"""
    """ (SELECT oid FROM pg_namespace WHERE nspname ~ '^pg_' OR nspname = 'information_schema')"""
)
_SEQUENCES = (
    "SELECT format($$SELECT %1$L, last_value || ' ' || is_called FROM %1$s$$, oid::regclass)"
    " FROM pg_class WHERE relkind = 'S'"
)
