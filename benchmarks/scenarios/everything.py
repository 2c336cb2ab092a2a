"""All of an installation: its backup, its restore, and whether the backup is whole."""

from __future__ import annotations

import shlex
from functools import partial
from typing import TYPE_CHECKING, Final

from attrs import frozen

from .. import checks, measure
from ..contest import Contest, Figure, Goal, Role, Variant
from ..data import trees
from ..removing import remove
from .databases import many_database, wide_database
from .repositories import bundle_all, bundles_of, clone_all, mixed_storage, paths, write_list
from .words import OURS, megabytes, memory, warm

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from ..place import Place, Site

_REFERENCE: Final = "the reference's commands"
_PLAIN: Final = "sha256sum, gzip -t and git bundle"
_DIGESTS: Final = "sha256sum -c"
_EVERY: Final = 20


@frozen(kw_only=True)
class _All:
    """The whole installation, and an empty one beside it."""

    place: Place
    directories: Mapping[str, Path]
    databases: Mapping[str, str]
    storage: Path
    site: Site
    target: Path
    empty: Site

    @classmethod
    def of(cls, place: Place) -> _All:
        directories = {
            "artifacts": place.tree("mixed", lambda top: trees.mixed(top, place.sizes.trees)),
            "packages": place.tree("text", lambda top: trees.text(top, place.sizes.trees)),
        }
        databases = {"main": wide_database(place), "ci": many_database(place)}
        storage = mixed_storage(place)
        target = place.scratch / "target"
        return cls(
            place=place,
            directories=directories,
            databases=databases,
            storage=storage,
            site=place.site("everything", directories=directories, databases=databases, storage=storage),
            target=target,
            empty=place.site(
                "everything-restored",
                directories={name: target / name for name in directories},
                databases={connection: f"{dbname}_restored" for connection, dbname in databases.items()},
                storage=target / "repositories",
            ),
        )

    @property
    def count(self) -> int:
        return self.place.sizes.repositories

    @property
    def some(self) -> list[str]:
        return paths(self.count)[:: max(1, self.count // _EVERY)]

    def dump(self, connection: str) -> str:
        return "database.sql.gz" if connection == "main" else f"{connection}_database.sql.gz"

    def wipe(self) -> None:
        """Make the target empty."""
        remove(self.target)
        for name in (*self.directories, "repositories"):
            (self.target / name).mkdir(parents=True)
        for dbname in self.empty.databases.values():
            self.place.server.recreate(dbname)

    def leave(self) -> None:
        remove(self.target)
        for dbname in self.empty.databases.values():
            self.place.server.drop(dbname)

    def check_restored(self) -> None:
        for name, tree in self.directories.items():
            checks.trees(tree, self.target / name)
        for connection, dbname in self.databases.items():
            checks.databases(self.place.server, dbname, self.empty.databases[connection])
        checks.repositories((self.storage / path, self.target / "repositories" / path) for path in self.some)

    def reference_backup(self, output: Path) -> str:
        """Return what GitLab's own tool runs, one after another."""
        out = shlex.quote(str(output))
        lines = [f"mkdir -p {out}/db {out}/repositories"]
        lines += [
            f"pg_dump --clean --if-exists {dbname} | gzip -c -1 > {out}/db/{self.dump(connection)}"
            for connection, dbname in self.databases.items()
        ]
        lines.append(bundle_all(self.storage, write_list(self.place, self.count), output / "repositories"))
        lines += [
            f"tar --exclude=lost+found --directory={shlex.quote(str(tree))} --create --file=- . | gzip -c -1"
            f" > {out}/{name}.tar.gz"
            for name, tree in self.directories.items()
        ]
        return "\n".join(lines)

    def reference_restore(self, backup: Path) -> str:
        """Return the same for a restore, of a backup of this project: the dumps, archives and bundles are ordinary."""
        top = shlex.quote(str(backup))
        lines = [
            f"gzip -cd {top}/db/{self.dump(connection)} | psql -X -q {dbname}"
            for connection, dbname in self.empty.databases.items()
        ]
        listed = write_list(self.place, self.count)
        lines.append(clone_all(backup, listed, self.target / "repositories"))
        lines += [
            f"gzip -cd {top}/{name}.tar.gz | tar --directory={shlex.quote(str(self.target / name))} --extract --file=-"
            for name in self.directories
        ]
        return "\n".join(lines)

    def check_reference(self, output: Path) -> None:
        for name, tree in self.directories.items():
            checks.archive(output / f"{name}.tar.gz", "gzip -dc", tree)
        for connection, dbname in self.databases.items():
            checks.plain_dump(output / "db" / self.dump(connection), "gzip -dc", self.place.server, dbname)
        repositories = output / "repositories"
        checks.bundles((self.storage / path, repositories / f"{path}.bundle") for path in self.some)

    def check_ours(self) -> None:
        backup = self.site.latest()
        for name, tree in self.directories.items():
            checks.archive(backup / f"{name}.tar.gz", "gzip -dc", tree)
        for connection, dbname in self.databases.items():
            checks.restorable_dump(backup / "db" / self.dump(connection), self.place.server, dbname)
        checks.bundles((self.storage / path, bundles_of(backup, path)) for path in self.some)


def contests(place: Place) -> Iterator[Contest]:
    """Yield the backup of everything, and its restore into an empty installation."""
    everything = _All.of(place)
    site = everything.site
    backup = ("backup", "all", "--quiet")
    output = place.scratch / "reference"
    listed = [*everything.directories.values(), everything.storage]
    size = sum(measure.size_of(path) for path in listed)
    yield Contest(
        id="everything-backup",
        title="Everything: backup",
        data=(
            f"two databases, {everything.count:,} repositories, two file trees; {megabytes(size)} without the databases"
        ),
        variants=(
            Variant(
                name=_REFERENCE,
                role=Role.REFERENCE,
                script=everything.reference_backup(output),
                output=output,
                check=partial(everything.check_reference, output),
            ),
            Variant(
                name=OURS,
                role=Role.OURS,
                script=site.command(*backup),
                output=site.backups,
                check=everything.check_ours,
            ),
        ),
        goals=(
            Goal(text="(g) backup all: faster", subject=OURS, against=_REFERENCE, figure=Figure.SPEEDUP, bound=6),
            memory(),
        ),
        warm_up=" && ".join(map(warm, listed)),
    )
    measure.run(site.command(*backup))
    made = site.latest()
    arguments = ("--backup-path", str(site.backups), "restore", "all", made.name, "--yes", "--quiet")

    def ours(name: str, *options: str) -> Variant:
        return Variant(
            name=name,
            role=Role.OURS,
            script=everything.empty.command(*arguments, *options),
            prepare=everything.wipe,
            check=everything.check_restored,
        )

    yield Contest(
        id="everything-restore",
        title="Everything: restore",
        data=f"a backup of {megabytes(measure.size_of(made))}, into an empty installation",
        variants=(
            Variant(
                name=_REFERENCE,
                role=Role.REFERENCE,
                script=everything.reference_restore(made),
                prepare=everything.wipe,
                check=everything.check_restored,
            ),
            ours(OURS),
            ours(f"{OURS} --no-verify", "--no-verify"),
        ),
        goals=(
            Goal(text="(g) restore all: faster", subject=OURS, against=_REFERENCE, figure=Figure.SPEEDUP, bound=2),
            memory(),
        ),
        warm_up=warm(site.backups),
    )
    everything.leave()
    remove(site.backups)


def verification(place: Place) -> Iterator[Contest]:
    """Yield the verification of a backup of everything."""
    everything = _All.of(place)
    site = everything.site
    measure.run(site.command("backup", "all", "--quiet"))
    backup = site.latest()
    top = shlex.quote(str(backup))
    digests = f"cd {top} && sha256sum --check --quiet SHA256SUMS"
    structure = "find . -name '*.gz' -exec gzip -t {} +"
    heads = "find . -name '*.bundle' -print0 | xargs -0 -n1 git bundle list-heads"
    yield Contest(
        id="verify",
        title="Verification of everything",
        data=f"a backup of {megabytes(measure.size_of(backup))}",
        variants=(
            # The reference has no verification: this is what an administrator would do by hand.
            Variant(name=_PLAIN, role=Role.REFERENCE, script=f"{digests}\n{structure}\n{heads}"),
            Variant(name=_DIGESTS, role=Role.FLOOR, script=digests),
            Variant(name=OURS, role=Role.OURS, script=site.command("verify", backup.name, "--quiet")),
        ),
        goals=(memory(),),
        warm_up=warm(site.backups),
    )
    remove(site.backups)
