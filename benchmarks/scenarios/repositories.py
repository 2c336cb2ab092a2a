"""Git repositories."""

from __future__ import annotations

import os
import shlex
import shutil
from functools import partial
from typing import TYPE_CHECKING, Final

from .. import checks, measure
from ..contest import Contest, Figure, Goal, Role, Variant
from ..data import databases, repositories
from ..removing import remove
from .words import OURS, megabytes, memory, warm

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ..place import Place, Site

_BUNDLES: Final = "git bundle create, one after another"
_SIDE_BY_SIDE: Final = "git bundle create, two side by side"
_UNCHANGED: Final = f"{OURS} --incremental, nothing changed"
_EVERY: Final = 50
"""Of many repositories, one in so many is checked."""


def mixed(place: Place) -> Iterator[Contest]:
    """Yield the contests of repositories of mixed sizes: as they are, and when each is exactly one pack."""
    storage = mixed_storage(place)
    goals: tuple[Goal, ...] = (
        Goal(text="(f) repositories: faster", subject=OURS, against=_BUNDLES, figure=Figure.SPEEDUP, bound=1.8),
        _unchanged("(f) repositories: unchanged increment, faster than full"),
        memory(),
    )
    yield from _backup(place, "repositories", "Repositories of mixed sizes", storage, goals=goals)
    packed = place.tree("repositories-packed", lambda top: repositories.packed(top, storage))
    goals = (
        Goal(
            text="(f) repositories of exactly one pack: faster",
            subject=OURS,
            against=_BUNDLES,
            figure=Figure.SPEEDUP,
            bound=5,
        ),
        memory(),
    )
    yield from _backup(place, "repositories-packed", "Repositories of exactly one pack", packed, goals=goals)


def small(place: Place) -> Iterator[Contest]:
    """Yield the contest of many small repositories."""
    count = place.sizes.small_repositories
    storage = place.tree("repositories-small", lambda top: repositories.small(top, count))
    goals = (
        Goal(text="(f) small repositories: faster", subject=OURS, against=_BUNDLES, figure=Figure.SPEEDUP, bound=1.8),
        _unchanged("(f) small repositories: unchanged increment, faster than full"),
        memory(),
    )
    yield from _backup(place, "repositories-small", "Small repositories", storage, goals=goals)


def mixed_storage(place: Place) -> Path:
    """Return the storage with repositories of mixed sizes."""
    count = place.sizes.repositories
    return place.tree("repositories", lambda top: repositories.mixed(top, count))


def paths(count: int) -> list[str]:
    """Return where the repositories of a storage lie."""
    return [repositories.path_of(number) for number in range(1, count + 1)]


def write_list(place: Place, count: int) -> Path:
    """Write a file with the paths of the repositories, a line each."""
    listed = place.scratch / f"repositories-{count}"
    listed.write_text("".join(f"{path}\n" for path in paths(count)))
    return listed


def bundle_all(storage: Path, listed: Path, target: Path) -> str:
    """Return a script that bundles each repository, one after another."""
    source, made = shlex.quote(str(storage)), shlex.quote(str(target))
    return f"""
while read -r path; do
    mkdir -p {made}/"${{path%/*}}"
    git --git-dir={source}/"$path" bundle create --quiet {made}/"$path.bundle" --all
done < {shlex.quote(str(listed))}
"""


def clone_all(backup: Path, listed: Path, target: Path) -> str:
    """Return a script that makes a repository of each bundle of a backup of this project, one after another."""
    bundles = shlex.quote(str(backup / "repositories" / "default"))
    bundle = f"{backup.name}/001.bundle"
    return f"""
while read -r path; do
    mkdir -p {shlex.quote(str(target))}/"${{path%/*}}"
    git clone --quiet --mirror {bundles}/"$path"/{bundle} {shlex.quote(str(target))}/"$path"
done < {shlex.quote(str(listed))}
"""


def bundles_of(backup: Path, path: str) -> Path:
    """Return the bundle of a repository in a full backup of this project."""
    return backup / "repositories" / "default" / path / backup.name / "001.bundle"


def _unchanged(text: str) -> Goal:
    return Goal(text=text, subject=_UNCHANGED, against=OURS, figure=Figure.SPEEDUP, bound=20)


def _backup(place: Place, name: str, title: str, storage: Path, *, goals: tuple[Goal, ...]) -> Iterator[Contest]:
    count = sum(1 for _ in storage.glob("@hashed/*/*/*.git"))
    dbname = place.database(f"bench_list_{count}", lambda made: databases.listing(place.server, made, count))
    site = place.site(name, databases={"main": dbname}, storage=storage)
    # Its backup path has a full backup already, and is not emptied.
    grown = place.site(f"{name}-increments", databases={"main": dbname}, storage=storage)
    output = place.scratch / "bundles"
    listed = write_list(place, count)
    checked = paths(count)[:: max(1, count // _EVERY)]
    top, target = shlex.quote(str(storage)), shlex.quote(str(output))

    def base() -> None:
        if not grown.backups.exists():
            measure.run(grown.command("backup", "all", "--only", "repositories", "--quiet"))
        made = sorted(grown.backups.glob("[!.]*"))
        for later in made[1:]:
            remove(later)

    def check_ours(site: Site) -> None:
        # An increment has the bundles of its base, by hard links.
        backup = site.latest()
        found = sum(1 for _ in backup.glob("repositories/**/*.bundle"))
        checks.same("number of bundles", count, found)
        if site is not grown:
            checks.bundles((storage / path, bundles_of(backup, path)) for path in checked)
        measure.read(site.command("verify", backup.name, "--quiet"))

    started = _started(place, grown)
    check = partial(_check_bundles, storage, output, count, checked)
    side_by_side = f"""
cut -d/ -f1-3 {shlex.quote(str(listed))} | sed "s|^|"{target}/"|" | xargs mkdir -p
xargs -P2 -I% git --git-dir={top}/% bundle create --quiet {target}/%.bundle --all < {shlex.quote(str(listed))}
"""
    yield Contest(
        id=name,
        title=title,
        data=f"{count:,} repositories, {megabytes(measure.size_of(storage))}; {started}",
        variants=(
            Variant(
                name=_BUNDLES,
                role=Role.REFERENCE,
                script=bundle_all(storage, listed, output),
                output=output,
                check=check,
            ),
            Variant(
                name=_SIDE_BY_SIDE,
                role=Role.ALTERNATIVE,
                script=side_by_side,
                output=output,
                check=check,
            ),
            Variant(
                name="tar of all, to disk",
                role=Role.FLOOR,
                script=f"tar --directory={top} --create --file={shlex.quote(f'{output}.tar')} .",
                output=output.with_suffix(".tar"),
            ),
            Variant(
                name="git --version, one for each",
                role=Role.FLOOR,
                script=f"while read -r path; do git --version; done < {shlex.quote(str(listed))}",
            ),
            Variant(
                name=OURS,
                role=Role.OURS,
                script=site.command("backup", "all", "--only", "repositories", "--quiet"),
                output=site.backups,
                check=partial(check_ours, site),
            ),
            Variant(
                name=_UNCHANGED,
                role=Role.OURS,
                script=grown.command("backup", "all", "--only", "repositories", "--incremental", "--quiet"),
                prepare=base,
                check=partial(check_ours, grown),
            ),
        ),
        goals=goals,
        warm_up=warm(storage),
    )
    remove(grown.backups)


def _started(place: Place, grown: Site) -> str:
    """Say how often git is started by a full backup and by an increment on it, counted by a script in its place."""
    programs = place.scratch / "counting"
    counted = programs / "counted"
    remove(programs)
    programs.mkdir()
    git = shlex.quote(shutil.which("git", path=measure.environment()["PATH"]) or "git")
    (programs / "git").write_text(f'#!/bin/sh\necho >>{shlex.quote(str(counted))}\nexec {git} "$@"\n')
    (programs / "git").chmod(0o755)
    variables = {"PATH": f"{programs}{os.pathsep}{measure.environment()['PATH']}"}
    said = []
    for words, options in (("a full backup", ()), ("an unchanged increment", ("--incremental",))):
        counted.touch()
        counted.chmod(0o666)  # git runs as the owner of the storage
        measure.run(grown.command("backup", "all", "--only", "repositories", *options, "--quiet"), variables=variables)
        said.append(f"{len(counted.read_bytes()):,} times by {words}")
        counted.unlink()
    return f"git is started {' and '.join(said)}"


def _check_bundles(storage: Path, output: Path, count: int, checked: list[str]) -> None:
    checks.same("number of bundles", count, sum(1 for _ in output.glob("**/*.bundle")))
    checks.bundles((storage / path, output / f"{path}.bundle") for path in checked)
