"""Whether what a variant made is right. Each raises `BenchmarkError` where it is not."""

# ruff: noqa: S608 - the names in this SQL come from the server's own catalogue

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING, Final

from . import measure
from .measure import BenchmarkError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from .server import Server

_SHOWN: Final = 3


def same(what: str, expected: object, actual: object) -> None:
    """Check that two things are equal."""
    if expected != actual:
        raise BenchmarkError(f"{what}: expected {str(expected)[:200]}, found {str(actual)[:200]}")


def names_below(top: Path) -> set[str]:
    """Return the relative names of all that is below a directory."""
    found: set[str] = set()
    start = len(str(top)) + 1
    for parent, directories, files in os.walk(top):
        found.update(f"{parent}/{name}"[start:] for name in (*directories, *files))
    return found


def archive(path: Path, decompress: str, tree: Path) -> None:
    """Check that a compressed archive has the members of a tree, by `tar -t`."""
    listed = measure.read(f"{decompress} < {shlex.quote(str(path))} | tar -t -f -").splitlines()
    actual = {name.removeprefix("./").rstrip("/") for name in listed} - {"", "."}
    names("members of the archive", names_below(tree), actual)


def names(what: str, expected: set[str], actual: set[str]) -> None:
    """Check that two sets of names are equal."""
    missing, besides = sorted(expected - actual)[:_SHOWN], sorted(actual - expected)[:_SHOWN]
    if missing or besides:
        raise BenchmarkError(f"{what}: {missing} missing, {besides} besides")


def trees(expected: Path, actual: Path) -> None:
    """Check that a tree has the same names as another, and files of the same sizes."""
    names(f"names in {actual}", names_below(expected), names_below(actual))
    for name in names_below(expected):
        one, other = (expected / name).lstat(), (actual / name).lstat()
        if (one.st_mode, one.st_size if not os.path.isdir(actual / name) else 0) != (  # noqa: PTH112
            other.st_mode,
            other.st_size if not os.path.isdir(actual / name) else 0,  # noqa: PTH112
        ):
            raise BenchmarkError(f"{actual / name} differs from what it is a copy of")


def plain_dump(path: Path, decompress: str, server: Server, dbname: str) -> None:
    """Check that a compressed dump is what `pg_dump` writes. Tokens that differ from run to run are left out."""
    digest = "grep -a -v '^.\\(un\\)\\?restrict ' | sha256sum"
    expected = measure.read(f"pg_dump --clean --if-exists {dbname} | {digest}", variables=_variables(server))
    same(f"digest of {path.name}", expected, measure.read(f"{decompress} < {shlex.quote(str(path))} | {digest}"))


def restorable_dump(path: Path, server: Server, dbname: str) -> None:
    """Check that gunzip and psql make of a dump what it is a dump of."""
    target = f"{dbname}_check"
    server.recreate(target)
    try:
        command = f"gzip -dc {shlex.quote(str(path))} | psql -X -q -v ON_ERROR_STOP=1 -d {target}"
        measure.read(command, variables=_variables(server))
        databases(server, dbname, target)
    finally:
        server.drop(target)


def databases(server: Server, expected: str, actual: str) -> None:
    """Check that two databases have the same tables, rows, indexes and constraints."""
    same(f"contents of {actual}", contents(server, expected), contents(server, actual))


def contents(server: Server, dbname: str) -> tuple[object, ...]:
    """Return the numbers of indexes and constraints; and for each table rows, and a sum of their digests."""
    found = server.sql(
        "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace ORDER BY 1", dbname
    )
    tables = [str(name) for (name,) in found]
    rows: list[tuple[object, ...]] = []
    for start in range(0, len(tables), 200):
        queries = (
            f"SELECT '{name}', count(*), sum(hashtextextended(t::text, 0)) FROM {name} AS t"
            for name in tables[start : start + 200]
        )
        rows += server.sql(" UNION ALL ".join(queries) + " ORDER BY 1", dbname)
    counts = server.sql(
        "SELECT (SELECT count(*) FROM pg_index WHERE indisvalid),"
        " (SELECT count(*) FROM pg_constraint WHERE convalidated)",
        dbname,
    )
    return (*counts, *rows)


def bundles(pairs: Iterable[tuple[Path, Path]]) -> None:
    """Check that bundles have all the refs of their repositories."""
    for repository, bundle in pairs:
        listed = measure.read(f"git bundle list-heads {shlex.quote(str(bundle))}").splitlines()
        expected = set(measure.read(f"git --git-dir={shlex.quote(str(repository))} show-ref").splitlines())
        same(f"refs of {bundle}", expected, {line for line in listed if not line.endswith(" HEAD")})


def repositories(pairs: Iterable[tuple[Path, Path]]) -> None:
    """Check that repositories have all the refs of others, and the objects that these lead to."""
    for repository, copy in pairs:
        place = shlex.quote(str(copy))
        expected = measure.read(f"git --git-dir={shlex.quote(str(repository))} show-ref")
        same(f"refs of {copy}", expected, measure.read(f"git --git-dir={place} show-ref"))
        measure.read(f"git --git-dir={place} rev-list --objects --all >/dev/null")


def _variables(server: Server) -> dict[str, str]:
    variables = server.environment()
    variables["PATH"] = f"{server.programs}{os.pathsep}{measure.environment()['PATH']}"
    return variables
