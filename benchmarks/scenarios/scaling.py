"""How it scales: the same runs on one core and on more, and with what a slower disk would give them."""

from __future__ import annotations

import os
import re
from functools import partial
from typing import TYPE_CHECKING, Final

from gitlab_backup.archivers.database.shares import Sharing
from gitlab_backup.manifest import Manifest

from .. import checks, measure
from ..contest import Contest, Role, Variant
from ..data import databases, trees
from ..measure import BenchmarkError
from ..model import Limits
from ..removing import remove
from .growth import grown_database
from .repositories import mixed_storage
from .words import OURS, megabytes, warm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from ..place import Place, Site

_MEGABYTE: Final = 1_000_000
_PART: Final = 0.5
"""Of the other scenarios' file trees: it has to be read a dozen times."""


def contests(place: Place) -> Iterator[Contest]:
    """Yield a contest for each kind of data. Raises `BenchmarkError` where there is only one core."""
    if len(os.sched_getaffinity(0)) == 1:
        raise BenchmarkError("how it scales: two cores are needed")
    scale = place.sizes.trees * _PART
    mixed = place.tree("mixed-part", lambda top: trees.mixed(top, scale))
    text = place.tree("text-part", lambda top: trees.text(top, scale))
    for kind, tree in (("files, mixed", mixed), ("files, text", text)):
        site = place.site(f"scaling-{tree.name}", directories={"artifacts": tree})
        yield _backup(place, f"backup: {kind}", "artifacts", site, warm_up=warm(tree))
    site = place.site("scaling-database", databases={"main": grown_database(place)})
    # As many pg_dump as a database gets, were it as large and the cores as many as can be.
    most = max(Sharing().streams([1 << 50], jobs=1 << 20))
    yield _backup(place, "backup: database", "db", site, most=most)
    count, storage = place.sizes.repositories, mixed_storage(place)
    listing = place.database(f"bench_list_{count}", lambda made: databases.listing(place.server, made, count))
    site = place.site("scaling-repositories", databases={"main": listing}, storage=storage)
    yield _backup(place, "backup: repositories", "repositories", site, warm_up=warm(storage))
    yield from _of_a_backup(place, mixed, text)


def _backup(
    place: Place, kind: str, component: str, site: Site, *, warm_up: str = "", most: int | None = None
) -> Contest:
    arguments = ("backup", "all", "--only", component, "--quiet")
    measure.run(site.command(*arguments))
    read = _read(site.latest())
    return _contest(
        place,
        kind,
        read,
        f"{megabytes(read)} of source",
        partial(site.command, *arguments),
        most=most,
        output=site.backups,
        check=lambda: measure.run(site.command("verify", site.latest().name, "--quiet")),
        warm_up=warm_up,
    )


def _of_a_backup(place: Place, mixed: Path, text: Path) -> Iterator[Contest]:
    """Yield the verification of a backup of two trees, and the restore of one of them."""
    made = place.site("scaling-made", directories={"artifacts": mixed, "packages": text})
    measure.run(made.command("backup", "all", "--only", "artifacts,packages", "--quiet"))
    backup = made.latest()
    read = measure.size_of(backup)
    yield _contest(
        place,
        "verify: files, both",
        read,
        f"a backup of {megabytes(read)}",
        partial(made.command, "verify", backup.name, "--quiet"),
        warm_up=warm(backup),
    )
    target = place.scratch / "restored"
    site = place.site("scaling-restored", directories={"artifacts": target})
    arguments = ("--backup-path", str(made.backups), "restore", "all", backup.name, "--only", "artifacts")

    def empty() -> None:
        remove(target)
        target.mkdir(mode=mixed.stat().st_mode & 0o777)

    read = measure.size_of(backup / "artifacts.tar.gz")
    yield _contest(
        place,
        "restore: files, mixed",
        read,
        f"an archive of {megabytes(read)}, without verification",
        partial(site.command, *arguments, "--yes", "--quiet", "--no-verify"),
        output=target,
        prepare=empty,
        check=lambda: checks.trees(mixed, target),
        warm_up=warm(backup),
    )
    remove(made.backups)


def _contest(
    place: Place,
    kind: str,
    read: int,
    data: str,
    command: Callable[..., str],
    *,
    most: int | None = None,
    output: Path | None = None,
    prepare: Callable[[], object] | None = None,
    check: Callable[[], object] | None = None,
    warm_up: str = "",
) -> Contest:
    """Return a contest of one command, which takes further options, with fewer cores and at lower rates."""
    available = sorted(os.sched_getaffinity(0))
    counts = sorted({count for count in (1, 2, 4, 8, 16, 32) if count < len(available)} | {len(available)})
    cores = {f"{OURS}, {count} {'core' if count == 1 else 'cores'}": count for count in counts}
    rates = {f"{OURS} --rate-limit {rate // _MEGABYTE} MB/s": rate for rate in place.sizes.rates}
    variant = partial(Variant, role=Role.OURS, output=output, prepare=prepare)
    confined = [
        variant(
            name=name,
            script=f"taskset --cpu-list {','.join(map(str, available[:count]))} {command()}",
            server_cores=count,
            check=check if count == 1 else None,
        )
        for name, count in cores.items()
    ]
    # At a low rate, the limit is what takes the time: it is the same in each round.
    slowed = [variant(name=name, script=command("--rate-limit", str(rate)), rounds=1) for name, rate in rates.items()]
    return Contest(
        id=f"scaling-{re.sub('[^a-z]+', '-', kind)}",
        title=f"Scaling: {kind}",
        data=data,
        variants=(*confined, *slowed),
        warm_up=warm_up,
        limits=Limits(kind=kind, read=read, cores=cores, rates=rates, most=most),
    )


def _read(backup: Path) -> int:
    """Return the bytes that a backup has read of its sources."""
    manifest = Manifest.read(backup)
    if manifest is None:
        raise BenchmarkError(f"{backup} has no manifest")
    return sum(each.bytes_read for each in manifest.components)
