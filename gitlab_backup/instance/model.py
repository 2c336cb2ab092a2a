"""What a GitLab installation says of itself: plain data, read once from its configuration."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from attrs import field, frozen

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from ..components import Component
    from ..streams.cancel import Cancellation


@frozen(kw_only=True)
class Setting:
    """One value of the configuration, as `config show` prints it, and where it comes from. Never a secret."""

    name: str
    value: str
    source: str
    """A file with the key in it (`/…/gitlab.yml: production.backup.path`), a variable, `option` or `default`."""


@frozen(kw_only=True)
class Database:
    """One PostgreSQL database of the instance."""

    name: str
    """Its connection in `database.yml`: `main`, `ci`, …"""
    dbname: str
    host: str | None = None
    """A host name, or the directory of a Unix socket."""
    port: int | None = None
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    ssl: Mapping[str, str] = field(factory=dict)
    """libpq's environment variables for TLS (`PGSSLMODE`, …) and their values."""
    schemas: tuple[str, ...] = ()
    """The schemas to dump (`backup.pg_schema` with the partition schemas); empty for all."""
    system_user: str | None = None
    """The system user to connect as (peer authentication), where that is not the one that this process runs as."""
    connect_timeout: int = 30
    """Seconds to wait for each host."""

    @property
    def file_name(self) -> str:
        """Its dump inside `db/`, without the codec's suffix: `database.sql`, `ci_database.sql`."""
        return "database.sql" if self.name == "main" else f"{self.name}_database.sql"

    def environment(self) -> dict[str, str]:
        """Return libpq's environment variables for a program that connects to it. Holds the password: not to be shown.

        The name of the database is in it, too (`PGDATABASE`): as an argument, one with a `=` in it would be read as a
        connection string.
        """
        variables = {
            "PGDATABASE": self.dbname,
            "PGHOST": self.host,
            "PGPORT": None if self.port is None else str(self.port),
            "PGUSER": self.user,
            "PGPASSWORD": self.password,
            **self.ssl,
            "PGAPPNAME": "gitlab-backup",
            "PGCONNECT_TIMEOUT": str(self.connect_timeout),
        }
        return {name: value for name, value in variables.items() if value is not None}


@frozen(kw_only=True)
class Storage:
    """One repository storage."""

    name: str
    path: Path | None = None
    """Where its repositories lie on this machine; None where only its Gitaly knows."""
    gitaly_address: str | None = None
    gitaly_token: str | None = field(default=None, repr=False)


@frozen(kw_only=True)
class Directory:
    """The data directory of a component."""

    path: Path
    """As configured, absolute, symbolic links not resolved."""
    left_out: str | None = None
    """Why nothing of it is backed up: disabled, in object storage, does not exist. None where it is there."""


@frozen(kw_only=True)
class Instance:
    """A GitLab installation. `discover` finds the one of this machine, `load` reads one that is named."""

    gitlab_version: str
    installation: str
    """`omnibus` or `source`."""
    root: Path
    """GitLab's own directory, the one with `VERSION` in it."""
    rails_env: str
    backup_path: Path
    system_user: str
    """The system user that GitLab runs as (`gitlab.user`, default `git`)."""
    databases: tuple[Database, ...]
    """`main` first."""
    storages: tuple[Storage, ...]
    settings: tuple[Setting, ...] = field(repr=False)
    """Everything that was found, and where."""
    search_path: str = field(repr=False)
    """Where programs are looked for: the installation's own directories, then `PATH`."""
    secrets_file: Path | None = None
    """`gitlab-secrets.json` (Omnibus) or `config/secrets.yml` (source), where it exists and can be read."""
    configuration: tuple[Path, ...] = ()
    """What the component `config` is of: files, and directories with all below them. Not all of them need to exist."""
    keep_time: int | None = None
    """Seconds for which backups are kept (`backup.keep_time`); None for ever."""
    gitaly_backup: Path | None = None
    """The program gitaly-backup (`backup.gitaly_backup_path`), where it is configured. It need not exist."""
    gitlab_config: Path | None = None
    """The `gitlab.yml` that was read."""
    database_config: Path | None = None
    """The `database.yml` that was read."""
    _certificates: Mapping[str, str] = field(factory=dict)
    """The caller's own `SSL_CERT_FILE` and `SSL_CERT_DIR`."""
    _gitlab_yml: Mapping[str, object] = field(repr=False, factory=dict)
    """The environment's section of `gitlab.yml`. Holds secrets."""

    @classmethod
    def discover(
        cls,
        *,
        context: Path | None = None,
        gitlab_path: Path | None = None,
        gitlab_config: Path | None = None,
        database_config: Path | None = None,
        backup_path: Path | None = None,
        environ: Mapping[str, str] | None = None,
        cancel: Cancellation | None = None,
    ) -> Instance:
        """Find the installation of this machine, and read it.

        Looked for, in this order: `context` and `gitlab_path`, as in `load`; a context file that
        `GITLAB_BACKUP_CLI_CONFIG_FILE` or `GITLAB_BACKUP_CONTEXT_FILE` names and that exists; a source
        installation in `GITLAB_PATH`; the context files of Omnibus under `/opt/gitlab/etc`. The other options
        are those of `load`, and so are the errors; `ConfigurationError` also where nothing is found, saying
        what was looked for; and `CancelledError`.
        """
        from . import discover, load

        variables = os.environ if environ is None else environ
        context, gitlab_path, source = discover.search(context=context, gitlab_path=gitlab_path, environ=variables)
        place = discover.place(
            context=context,
            gitlab_path=gitlab_path,
            gitlab_config=gitlab_config,
            database_config=database_config,
            environ=variables,
            source=source,
        )
        return load.read(place, backup_path=backup_path, environ=variables, cancel=cancel)

    @classmethod
    def load(
        cls,
        *,
        context: Path | None = None,
        gitlab_path: Path | None = None,
        gitlab_config: Path | None = None,
        database_config: Path | None = None,
        backup_path: Path | None = None,
        environ: Mapping[str, str] | None = None,
        cancel: Cancellation | None = None,
    ) -> Instance:
        """Read the installation that is named: by its context file (Omnibus), or by GitLab's root (source).

        `gitlab_path` with `context` is the root of an Omnibus installation that is not in its usual place.
        `gitlab_config`, `database_config` and `backup_path` override what the installation says. `environ`
        (default: the process's own) has the Rails environment of a source installation (`RAILS_ENV`, else
        `RACK_ENV`, else `production`; Omnibus is always `production`), the overrides of database connections, and
        `PATH`. It is looked at now, not later. `cancel` ends a `config_command` that takes too long.

        Raises `ConfigurationError`, with every problem of each file and its place; and `CancelledError`.
        """
        from . import discover, load

        variables = os.environ if environ is None else environ
        place = discover.place(
            context=context,
            gitlab_path=gitlab_path,
            gitlab_config=gitlab_config,
            database_config=database_config,
            environ=variables,
        )
        return load.read(place, backup_path=backup_path, environ=variables, cancel=cancel)

    @staticmethod
    def discover_backup_path(
        *,
        context: Path | None = None,
        gitlab_path: Path | None = None,
        gitlab_config: Path | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> Path:
        """Find the installation as `discover` does, and return its backup path.

        Nothing else is read, and no program is run: this is for who is in a hurry. Raises `ConfigurationError`.
        """
        from . import discover, gitlab_yml

        variables = os.environ if environ is None else environ
        context, gitlab_path, _ = discover.search(context=context, gitlab_path=gitlab_path, environ=variables)
        place = discover.place(
            context=context,
            gitlab_path=gitlab_path,
            gitlab_config=gitlab_config,
            database_config=None,
            environ=variables,
        )
        return gitlab_yml.read_backup_path(place.gitlab_config, rails_env=place.rails_env, root=place.root)

    def directory(self, component: Component) -> Directory:
        """Return the data directory of a component whose data is held in one.

        Raises `ConfigurationError` where its path is something else than a directory, or cannot be looked at.
        """
        from .directories import configured, state
        from .section import Problems, Section

        problems = Problems(str(self.gitlab_config or "gitlab.yml"))
        found = configured(component, Section(problems, (self.rails_env,), dict(self._gitlab_yml.items())), self.root)
        problems.check()
        return Directory(path=found.path, left_out=found.left_out or state(found.path))

    def program(self, name: str) -> str:
        """Return the path of a program (`pg_dump`, `git`, …).

        Raises `ProgramNotFoundError`, which says where it was looked for and what to install.
        """
        from .programs import find

        return find(name, self.search_path, preferred=self.gitaly_backup if name == "gitaly-backup" else None)

    def certificates(self) -> dict[str, str]:
        """Return `SSL_CERT_FILE` and `SSL_CERT_DIR` for a program that speaks TLS: the caller's, else OpenSSL's."""
        from .programs import usual_certificates

        return {**usual_certificates(self.installation), **self._certificates}

    def environment(self) -> dict[str, str]:
        """Return the whole environment of child processes: `PATH`, `HOME`, `LC_ALL=C`, `TZ=UTC`.

        Nothing of the caller's is in it, such as `GIT_*`, `PG*` and `LD_*`. For a program that connects to a database,
        those of `Database.environment` are added.
        """
        from .programs import environment

        return environment(self.search_path, self.system_user)
