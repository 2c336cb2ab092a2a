"""File trees: the archives of uploads, artifacts, LFS objects and others."""

from __future__ import annotations

import os
import shlex
from functools import partial
from typing import TYPE_CHECKING

from .. import checks, measure
from ..contest import Contest, Figure, Goal, Role, Variant
from ..data import trees
from ..removing import remove
from .words import GZIP, OURS, megabytes, memory, warm

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ..place import Place

_FLOOR = "tar, to nothing"
_NAMES = "tar -cf /dev/null"


def mixed(place: Place) -> Iterator[Contest]:
    """Yield the contests of a tree as most installations have it: its backup, and its restore."""
    tree = place.tree("mixed", lambda top: trees.mixed(top, place.sizes.trees))
    goals = (
        Goal(text="(a) files, mixed: faster", subject=OURS, against=GZIP, figure=Figure.SPEEDUP, bound=15),
        Goal(text="(a) files, mixed: near the floor", subject=OURS, against=_FLOOR, figure=Figure.COST, bound=1.25),
        memory(),
    )
    yield _backup(place, "files-mixed", "Files, mixed: backup", tree, goals)
    yield from _restore(place, tree)


def text(place: Place) -> Iterator[Contest]:
    """Yield the contest of a tree that compresses well everywhere."""
    tree = place.tree("text", lambda top: trees.text(top, place.sizes.trees))
    goals = (
        Goal(text="(b) files, text: faster", subject=OURS, against=GZIP, figure=Figure.SPEEDUP, bound=5),
        Goal(text="(b) files, text: no larger", subject=OURS, against=GZIP, figure=Figure.SIZE, bound=1.05),
        memory(),
    )
    yield _backup(place, "files-text", "Files, text: backup", tree, goals)


def tiny(place: Place) -> Iterator[Contest]:
    """Yield the contest of very many very small files."""
    count = place.sizes.tiny_files
    tree = place.tree(f"tiny-{count}", lambda top: trees.tiny(top, count))
    goals = (
        Goal(text="(c) tiny files: near the floor", subject=OURS, against=_FLOOR, figure=Figure.COST, bound=1.5),
        memory(),
    )
    yield _backup(place, "files-tiny", "Tiny files: backup", tree, goals)


def _backup(place: Place, name: str, title: str, tree: Path, goals: tuple[Goal, ...]) -> Contest:
    output = place.scratch / "archive"
    top, target = shlex.quote(str(tree)), shlex.quote(str(output))
    site = place.site(name, directories={"artifacts": tree})

    def pipeline(name: str, role: Role, compress: str, decompress: str, program: str) -> Variant:
        return Variant(
            name=name,
            role=role,
            script=f"tar --exclude=lost+found --directory={top} --create --file=- . | {compress} > {target}",
            output=output,
            needs=(program,),
            check=partial(checks.archive, output, decompress, tree),
        )

    return Contest(
        id=name,
        title=title,
        data=f"{_count(tree):,} files, {megabytes(measure.size_of(tree))}",
        warm_up=warm(tree),
        variants=(
            pipeline(GZIP, Role.REFERENCE, "gzip -c -1", "gzip -dc", "gzip"),
            pipeline("pigz -1", Role.ALTERNATIVE, "pigz -c -1", "gzip -dc", "pigz"),
            pipeline("igzip -1", Role.ALTERNATIVE, "igzip -c -1", "gzip -dc", "igzip"),
            pipeline("zstd -1 -T0", Role.ALTERNATIVE, "zstd -q -c -1 -T0", "zstd -dc", "zstd"),
            pipeline("tar, to disk", Role.FLOOR, "cat", "cat", "cat"),
            Variant(
                name=_FLOOR,
                role=Role.FLOOR,
                script=f"tar --directory={top} --create --file=- . | cat >/dev/null",
            ),
            # GNU tar does not read the files when it knows this device.
            Variant(name=_NAMES, role=Role.FLOOR, script=f"tar --directory={top} --create --file=/dev/null ."),
            Variant(
                name=OURS,
                role=Role.OURS,
                script=site.command("backup", "all", "--only", "artifacts", "--quiet"),
                output=site.backups,
                check=lambda: checks.archive(site.latest() / "artifacts.tar.gz", "gzip -dc", tree),
            ),
        ),
        goals=goals,
    )


def _restore(place: Place, tree: Path) -> Iterator[Contest]:
    target = place.scratch / "restored"
    made = place.site("files-made", directories={"artifacts": tree})
    site = place.site("files-restored", directories={"artifacts": target})
    measure.run(made.command("backup", "all", "--only", "artifacts", "--quiet"))
    backup = made.latest()
    archive = shlex.quote(str(backup / "artifacts.tar.gz"))

    def empty() -> None:
        remove(target)
        target.mkdir(mode=tree.stat().st_mode & 0o777)

    def pipeline(name: str, role: Role, decompress: str, program: str) -> Variant:
        return Variant(
            name=name,
            role=role,
            script=f"{decompress} {archive} | tar --directory={shlex.quote(str(target))} --extract --file=-",
            output=target,
            needs=(program,),
            prepare=empty,
            check=lambda: checks.trees(tree, target),
        )

    def ours(name: str, *options: str) -> Variant:
        arguments = ("--backup-path", str(made.backups), "restore", "all", backup.name, "--only", "artifacts")
        return Variant(
            name=name,
            role=Role.OURS,
            script=site.command(*arguments, "--yes", "--quiet", *options),
            output=target,
            prepare=empty,
            check=lambda: checks.trees(tree, target),
        )

    yield Contest(
        id="files-mixed-restore",
        title="Files, mixed: restore",
        data=f"an archive of {megabytes(measure.size_of(backup))}, into an empty directory",
        variants=(
            pipeline("gzip -d", Role.REFERENCE, "gzip -cd", "gzip"),
            pipeline("igzip -d", Role.ALTERNATIVE, "igzip -cd", "igzip"),
            Variant(name="gzip -d, to nothing", role=Role.FLOOR, script=f"gzip -cd {archive} >/dev/null"),
            ours(OURS),
            ours(f"{OURS} --no-verify", "--no-verify"),
        ),
        goals=(memory(),),
        warm_up=warm(made.backups),
    )
    remove(made.backups)


def _count(tree: Path) -> int:
    return sum(len(names) for _, _, names in os.walk(tree))
