"""Where the data are: directories and databases that are made once, and installations that have them."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Final

from attrs import field, frozen

from tests.support.accounts import unprivileged

from .measure import BenchmarkError
from .removing import remove
from .server import PORT, ROLE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from .server import Server

VERSION: Final = "17.0.0-pre"


@frozen(kw_only=True)
class Sizes:
    """How much there is of everything."""

    trees: float
    """Of the file trees; 1 for 2.15 GB each."""
    tiny_files: int
    rows: float
    """Of the wide tables; 1 for 1.7 GB of SQL."""
    tables: int
    """Of a database of many tables, with three indexes each."""
    repositories: int
    """Of mixed sizes; 500 for 0.7 GB."""
    small_repositories: int
    growth: float
    """Of what grows hundredfold, at its largest; 1 for 0.5 GB of rows, 100,000 files, 2,000 repositories."""
    rates: tuple[int, ...]
    """Bytes a second, to which it is measured what a limit does."""
    disk: int
    """Bytes that the benchmark needs at most."""


FULL: Final = Sizes(
    trees=1,
    tiny_files=1_000_000,
    rows=1,
    tables=2_000,
    repositories=500,
    small_repositories=10_000,
    growth=1,
    rates=(100_000_000, 200_000_000, 400_000_000, 1_000_000_000),
    disk=24_000_000_000,
)
QUICK: Final = Sizes(
    trees=0.1,
    tiny_files=50_000,
    rows=0.1,
    tables=200,
    repositories=100,
    small_repositories=500,
    growth=0.1,
    rates=(100_000_000,),
    disk=4_000_000_000,
)


@frozen(kw_only=True)
class Place:
    """A directory with all that is measured. Data are named by what they are: what is there already is used again."""

    directory: Path
    server: Server
    sizes: Sizes
    say: Callable[[str], None]

    @property
    def scratch(self) -> Path:
        """A directory for what variants make."""
        path = self.directory / "scratch"
        path.mkdir(exist_ok=True)
        return path

    def tree(self, name: str, make: Callable[[Path], object]) -> Path:
        """Return the directory `name`, which `make` fills when it is first asked for."""
        path = self.directory / "data" / name
        if not path.exists():
            self.say(f"  making {name}")
            partial = path.with_name(f".{name}.partial")
            remove(partial)
            partial.mkdir(parents=True)
            make(partial)
            partial.rename(path)
        return path

    def database(self, name: str, make: Callable[[str], object]) -> str:
        """Return the name of a database, which `make` fills when it is first asked for."""
        if name not in self.server.databases():
            self.say(f"  making the database {name}")
            self.server.recreate(f"{name}_partial")
            make(f"{name}_partial")
            self.server.sql("VACUUM (FREEZE, ANALYZE)", f"{name}_partial", user="postgres")
            self.server.sql(f"ALTER DATABASE {name}_partial RENAME TO {name}", user="postgres")
        return name

    def site(
        self,
        name: str,
        *,
        directories: Mapping[str, Path] | None = None,
        databases: Mapping[str, str] | None = None,
        storage: Path | None = None,
    ) -> Site:
        """Return an installation that has these directories (by component), databases (by connection), repositories."""
        root = self.directory / "sites" / name
        remove(root)
        (root / "config").mkdir(parents=True)
        (root / "VERSION").write_text(f"{VERSION}\n")
        site = Site(name=name, root=root, server=self.server, databases=dict(databases or {"main": "postgres"}))
        sections = "".join(f"  {each}:\n    {_KEYS[each]}: {path}\n" for each, path in (directories or {}).items())
        (root / "config" / "gitlab.yml").write_text(
            _GITLAB_YML.format(
                user=unprivileged().name, backups=site.backups, sections=sections, storage=storage or root / "none"
            )
        )
        connections = "".join(
            _CONNECTION_YML.format(
                connection=connection, dbname=dbname, host=self.server.directory, port=PORT, role=ROLE
            )
            for connection, dbname in site.databases.items()
        )
        (root / "config" / "database.yml").write_text(f"production:\n{connections}")
        return site


@frozen(kw_only=True)
class Site:
    """A GitLab as far as its backup looks at it."""

    name: str
    root: Path
    server: Server
    databases: Mapping[str, str] = field(factory=dict)

    @property
    def backups(self) -> Path:
        """Its backup path."""
        return self.root / "backups"

    def command(self, *arguments: str) -> str:
        """Return a line of bash that runs the command on it."""
        # The connection of its configuration, and not that of the environment, is what a user has.
        return shlex.join(["env", *_NOT_INHERITED, "gitlab-backup-cli", "--gitlab-path", str(self.root), *arguments])

    def latest(self) -> Path:
        """Return the directory of its newest backup. Raises `BenchmarkError` where there is none."""
        found = sorted(path for path in self.backups.glob("[!.]*") if path.is_dir())
        if not found:
            raise BenchmarkError(f"there is no backup in {self.backups}")
        return found[-1]


_NOT_INHERITED: Final = ("-u", "PGHOST", "-u", "PGPORT", "-u", "PGUSER")

# Of the components that the benchmark uses: the key of each one's section that has its directory.
_KEYS: Final = {"artifacts": "path", "packages": "storage_path"}

_GITLAB_YML: Final = """\
production:
  gitlab:
    host: gitlab.example.com
    user: {user}
  backup:
    path: {backups}
{sections}  repositories:
    storages:
      default: {{ path: {storage}, gitaly_address: "unix:/nonexistent/gitaly.socket" }}
"""

_CONNECTION_YML: Final = """\
  {connection}:
    adapter: postgresql
    encoding: unicode
    database: {dbname}
    username: {role}
    host: {host}
    port: {port}
"""
