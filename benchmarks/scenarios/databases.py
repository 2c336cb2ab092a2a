"""Databases: few large tables, and many small ones."""

from __future__ import annotations

import shlex
from functools import partial
from typing import TYPE_CHECKING, Final

from .. import checks, measure
from ..contest import Contest, Figure, Goal, Role, Variant
from ..data import databases
from ..removing import remove
from .words import GZIP, OURS, megabytes, memory, warm

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ..place import Place, Site

_DUMP: Final = "pg_dump --clean --if-exists"
_FLOOR: Final = "pg_dump, to nothing"
_REFERENCE: Final = "gzip -d | psql"
_PARALLEL: Final = "pg_restore -j2"
_ONE: Final = ", server on one core"


def wide(place: Place) -> Iterator[Contest]:
    """Yield dump and restore of the tables that are the largest of a GitLab."""
    dbname = wide_database(place)
    site = place.site("database", databases={"main": dbname})
    goals: tuple[Goal, ...] = (
        Goal(text="(d) database dump: faster", subject=OURS, against=GZIP, figure=Figure.SPEEDUP, bound=2.4),
        Goal(text="(d) database dump: near the floor", subject=OURS, against=_FLOOR, figure=Figure.COST, bound=1.2),
        memory(),
    )
    yield _dump(place, "database-dump", "Database of large tables: dump", site, goals=goals)
    goals = (
        Goal(text="(d) database restore: faster", subject=OURS, against=_REFERENCE, figure=Figure.SPEEDUP, bound=1.3),
        Goal(
            text="(d) database restore: no slower than pg_restore -j2",
            subject=OURS,
            against=_PARALLEL,
            figure=Figure.COST,
            bound=1.0,
        ),
        Goal(
            text="(d) database restore: faster on two cores of the server than on one",
            subject=OURS,
            against=OURS + _ONE,
            figure=Figure.SPEEDUP,
            bound=1.2,
        ),
        memory(),
    )
    yield from _restore(place, "database-restore", "Database of large tables: restore", site, goals=goals)


def many(place: Place) -> Iterator[Contest]:
    """Yield dump and restore of as many tables and indexes as GitLab has."""
    dbname = many_database(place)
    site = place.site("database-tables", databases={"main": dbname})
    yield _dump(place, "database-tables-dump", "Database of many tables: dump", site, goals=(memory(),))
    yield from _restore(place, "database-tables-restore", "Database of many tables: restore", site, goals=(memory(),))


def wide_database(place: Place) -> str:
    """Return the database of large tables. It lists the repositories of mixed sizes, too."""
    sizes = place.sizes
    make = partial(databases.wide, place.server, scale=sizes.rows, repositories=sizes.repositories)
    return place.database("bench_wide", make)


def many_database(place: Place) -> str:
    """Return the database of many tables."""
    return place.database("bench_many", partial(databases.many, place.server, tables=place.sizes.tables))


def _size(place: Place, dbname: str) -> str:
    rows = place.server.sql(
        "SELECT pg_database_size(current_database()), count(*) FILTER (WHERE relkind = 'r'),"
        " count(*) FILTER (WHERE relkind = 'i') FROM pg_class WHERE relnamespace = 'public'::regnamespace",
        dbname,
    )
    size, tables, indexes = rows[0]
    plain = int(measure.read(f"{_DUMP} {dbname} | wc -c", variables=place.server.environment()))
    return f"{tables:,} tables, {indexes:,} indexes, {megabytes(size)} on disk, {megabytes(plain)} of plain SQL"


def _dump(place: Place, name: str, title: str, site: Site, *, goals: tuple[Goal, ...]) -> Contest:
    dbname = site.databases["main"]
    output = place.scratch / "dump"
    target = shlex.quote(str(output))

    def pipeline(name: str, role: Role, compress: str, decompress: str, program: str) -> Variant:
        return Variant(
            name=name,
            role=role,
            script=f"{_DUMP} {dbname} | {compress} > {target}",
            output=output,
            needs=(program,),
            check=partial(checks.plain_dump, output, decompress, place.server, dbname),
        )

    def directory(name: str, role: Role, compression: int) -> Variant:
        script = f"pg_dump --format=directory --jobs=2 --compress={compression} --file={target} {dbname}"
        check = partial(measure.read, f"pg_restore --list {target} >/dev/null", variables=place.server.environment())
        return Variant(name=name, role=role, script=script, output=output, check=check)

    return Contest(
        id=name,
        title=title,
        data=_size(place, dbname),
        variants=(
            pipeline(GZIP, Role.REFERENCE, "gzip -c -1", "gzip -dc", "gzip"),
            pipeline("pigz -1", Role.ALTERNATIVE, "pigz -c -1", "gzip -dc", "pigz"),
            pipeline("igzip -1", Role.ALTERNATIVE, "igzip -c -1", "gzip -dc", "igzip"),
            pipeline("zstd -1 -T0", Role.ALTERNATIVE, "zstd -q -c -1 -T0", "zstd -dc", "zstd"),
            directory("pg_dump -Fd -j2 -Z1", Role.ALTERNATIVE, 1),
            directory("pg_dump -Fd -j2 -Z0", Role.FLOOR, 0),
            Variant(name=_FLOOR, role=Role.FLOOR, script=f"{_DUMP} {dbname} >/dev/null"),
            Variant(
                name=OURS,
                role=Role.OURS,
                script=site.command("backup", "all", "--only", "db", "--quiet"),
                output=site.backups,
                check=lambda: checks.restorable_dump(site.latest() / "db" / "database.sql.gz", place.server, dbname),
            ),
        ),
        goals=goals,
        warm_up=f"{_DUMP} {dbname} >/dev/null",
    )


def _restore(place: Place, name: str, title: str, site: Site, *, goals: tuple[Goal, ...]) -> Iterator[Contest]:
    dbname = site.databases["main"]
    target = f"{dbname}_restored"
    into = place.site(f"{site.name}-restored", databases={"main": target})
    measure.run(site.command("backup", "all", "--only", "db", "--quiet"))
    backup = site.latest()
    plain = place.scratch / "dump.sql.gz"
    directory = place.scratch / "dump.directory"
    variables = place.server.environment()
    measure.read(f"{_DUMP} {dbname} | gzip -1 > {shlex.quote(str(plain))}", variables=variables)
    measure.read(f"pg_dump -Fd -j2 -Z1 -f {shlex.quote(str(directory))} {dbname}", variables=variables)

    def variant(name: str, role: Role, script: str, *, cores: int | None = None, output: Path | None = None) -> Variant:
        return Variant(
            name=name,
            role=role,
            script=script,
            prepare=partial(place.server.recreate, target),
            check=partial(checks.databases, place.server, dbname, target),
            server_cores=cores,
            output=output,
        )

    # As the reference runs it: without ON_ERROR_STOP. What it makes is checked instead.
    reference = f"gzip -cd {shlex.quote(str(plain))} | psql -X -q {target}"
    parallel = f"pg_restore -j2 -d {target} {shlex.quote(str(directory))}"
    arguments = ("--backup-path", str(site.backups), "restore", "all", backup.name, "--only", "db", "--yes", "--quiet")
    ours = into.command(*arguments)
    yield Contest(
        id=name,
        title=title,
        data=f"a dump of {megabytes(plain.stat().st_size)}, into an empty database",
        variants=(
            variant(_REFERENCE, Role.REFERENCE, reference),
            variant(_PARALLEL, Role.ALTERNATIVE, parallel),
            Variant(
                name="gzip -d, to nothing",
                role=Role.FLOOR,
                script=f"gzip -cd {shlex.quote(str(plain))} >/dev/null",
            ),
            variant(OURS, Role.OURS, ours),
            variant(f"{OURS} --no-verify", Role.OURS, into.command(*arguments, "--no-verify")),
            variant(_REFERENCE + _ONE, Role.ALTERNATIVE, reference, cores=1),
            variant(OURS + _ONE, Role.OURS, ours, cores=1),
        ),
        goals=goals,
        warm_up=warm(site.backups),
    )
    place.server.drop(target)
    for each in (plain, directory, site.backups):
        remove(each)
