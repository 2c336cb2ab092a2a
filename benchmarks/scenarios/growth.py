"""How time and memory grow with what there is."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from .. import checks, measure
from ..contest import Contest, Figure, Goal, Role, Variant
from ..data import databases, repositories, trees
from .repositories import bundles_of, paths
from .words import OURS, megabytes, memory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..place import Place, Site

_FACTORS: Final = (0.01, 0.1, 1.0)
_NAMES: Final = tuple(f"{OURS}, {factor * 100:.0f}x" for factor in _FACTORS)
_LINEAR: Final = 12
"""How many times the time ten times as much may take: what does not grow is small in the largest two."""
_FLAT: Final = 1.3


def contests(place: Place) -> Iterator[Contest]:
    """Yield a contest of a hundredfold growth of rows, of files, and of repositories."""
    growth = place.sizes.growth
    yield _contest("rows", [partial(_rows, place, factor) for factor in _FACTORS])
    yield _contest("files", [partial(_files, place, int(100_000 * growth * factor)) for factor in _FACTORS])
    counts = [int(2_000 * growth * factor) for factor in _FACTORS]
    yield _contest("repositories", [partial(_repositories, place, count) for count in counts])


def _contest(what: str, makers: list[Callable[[], tuple[Site, str, str, Callable[[], object]]]]) -> Contest:
    variants, described = [], []
    for name, make in zip(_NAMES, makers, strict=True):
        site, component, size, check = make()
        described.append(size)
        variants.append(
            Variant(
                name=name,
                role=Role.OURS,
                script=site.command("backup", "all", "--only", component, "--quiet"),
                output=site.backups,
                check=check,
            )
        )
    _, second, third = _NAMES
    return Contest(
        id=f"growth-{what}",
        title=f"Growth: {what}",
        data="; ".join(described),
        variants=tuple(variants),
        goals=(
            Goal(
                text=f"(i) {what}: time of 100x, in times of 10x",
                subject=third,
                against=second,
                figure=Figure.COST,
                bound=_LINEAR,
            ),
            Goal(
                text=f"(i) {what}: memory of 100x, in times of 10x",
                subject=third,
                against=second,
                figure=Figure.MEMORY,
                bound=_FLAT,
            ),
            memory(third),
        ),
    )


def grown_database(place: Place, factor: float = 1.0) -> str:
    """Return the database that grows, at a part of its largest size."""
    scale = 0.3 * place.sizes.growth * factor
    make = partial(databases.wide, place.server, scale=scale)
    return place.database(f"bench_growth_{scale * 100_000:.0f}", make)


def _rows(place: Place, factor: float) -> tuple[Site, str, str, Callable[[], object]]:
    dbname = grown_database(place, factor)
    site = place.site(f"growth-{dbname}", databases={"main": dbname})
    ((rows,),) = place.server.sql(
        "SELECT sum(reltuples)::bigint FROM pg_stat_user_tables JOIN pg_class ON oid = relid", dbname
    )

    def check() -> None:
        checks.restorable_dump(site.latest() / "db" / "database.sql.gz", place.server, dbname)

    return site, "db", f"{rows:,} rows", check


def _files(place: Place, count: int) -> tuple[Site, str, str, Callable[[], object]]:
    tree = place.tree(f"growth-{count}", lambda top: trees.tiny(top, count, largest=8_000))
    site = place.site(f"growth-files-{count}", directories={"artifacts": tree})

    def check() -> None:
        checks.archive(site.latest() / "artifacts.tar.gz", "gzip -dc", tree)

    return site, "artifacts", f"{count:,} files, {megabytes(measure.size_of(tree))}", check


def _repositories(place: Place, count: int) -> tuple[Site, str, str, Callable[[], object]]:
    storage = place.tree(f"growth-repositories-{count}", lambda top: repositories.small(top, count))
    dbname = place.database(f"bench_list_{count}", lambda made: databases.listing(place.server, made, count))
    site = place.site(f"growth-repositories-{count}", databases={"main": dbname}, storage=storage)

    def check() -> None:
        checks.bundles((storage / path, bundles_of(site.latest(), path)) for path in paths(count)[:20])

    return site, "repositories", f"{count:,} repositories", check
