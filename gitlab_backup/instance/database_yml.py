"""The databases: `database.yml`, what its `config_command` adds, and the environment variables that override both."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from attrs import frozen

from .database_url import merge_url
from .model import Database, Setting
from .section import Problems, Section, is_mapping, refuse
from .yaml_file import LARGEST_FILE, parse_mapping, read_environment

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from ..streams.cancel import Cancellation

VARIABLES = {
    "username": "PGUSER",
    "host": "PGHOST",
    "port": "PGPORT",
    "password": "PGPASSWORD",
    "sslmode": "PGSSLMODE",
    "sslkey": "PGSSLKEY",
    "sslcert": "PGSSLCERT",
    "sslrootcert": "PGSSLROOTCERT",
    "sslcrl": "PGSSLCRL",
    "sslcompression": "PGSSLCOMPRESSION",
}
"""The keys of `database.yml` that have a variable of libpq, as in GitLab's own tools."""

_OVERRIDES = ("GITLAB_OVERRIDE_{name}_", "GITLAB_OVERRIDE_", "GITLAB_BACKUP_{name}_", "GITLAB_BACKUP_")

_REGISTRY = {
    "host": ("REGISTRY_DATABASE_HOST",),
    "port": ("REGISTRY_DATABASE_PORT",),
    "database": ("REGISTRY_DATABASE_NAME",),
    "username": ("REGISTRY_DATABASE_USER",),
    "password": ("REGISTRY_DATABASE_PASSWORD",),
    "sslmode": ("REGISTRY_DATABASE_SSLMODE",),
    "sslcert": ("REGISTRY_DATABASE_SSLCERT",),
    "sslkey": ("REGISTRY_DATABASE_SSLKEY",),
    # GitLab's documentation has the first name, its Rake task the second.
    "sslrootcert": ("REGISTRY_DATABASE_SSLROOTCERT", "REGISTRY_DATABASE_ROOTCERT"),
    "connect_timeout": ("REGISTRY_DATABASE_CONNECT_TIMEOUT",),
}


@frozen
class _Reader:
    """Makes databases of sections. What is the same for all of them, and the settings that were used."""

    environ: Mapping[str, str]
    schemas: tuple[str, ...]
    system_user: str
    settings: list[Setting]

    def database(self, name: str, section: Section, sources: Mapping[str, str] | None = None) -> Database | None:
        """Return the database of a connection; None where it cannot be used, which is noted."""
        section, url_keys = merge_url(section)
        values: dict[str, str] = {}
        used: dict[str, str] = {}
        for key in ("database", *VARIABLES):
            value, source = self._value(name, key, section, url_keys)
            source = (sources or {}).get(key, source)
            if value is not None:
                values[key], used[key] = value, source
            shown = value or "(not set)"
            if key == "password":
                shown = "(set)" if value else "(not set)"
            if value is not None or key in ("database", "host", "port", "username", "password"):
                self.settings.append(Setting(name=f"database.{name}.{key}", value=shown, source=source))
        if "database" not in values:
            section.wrong("database", "is missing")
        timeout = section.integer("connect_timeout", low=0, high=86_400)
        return Database(
            name=name,
            dbname=values.get("database", ""),
            host=values.get("host"),
            port=self._port(values.get("port"), section, used.get("port", "")),
            user=values.get("username"),
            password=values.get("password"),
            ssl={VARIABLES[key]: value for key, value in values.items() if key.startswith("ssl")},
            schemas=self.schemas if name != "registry" else (),
            system_user=self._peer(values.get("host")),
            **({"connect_timeout": timeout} if timeout else {}),
        )

    def _value(self, name: str, key: str, section: Section, url_keys: frozenset[str]) -> tuple[str | None, str]:
        if key in VARIABLES and name != "registry":
            for prefix in _OVERRIDES:
                variable = prefix.format(name=name.upper()) + VARIABLES[key]
                if value := self.environ.get(variable):
                    return value, f"environment variable {variable}"
        if key == "host" and not section.has("host") and section.has("socket"):
            return section.string("socket"), section.source("socket")
        if key == "sslcompression" and isinstance(section.values.get(key), bool):
            return str(int(bool(section.values[key]))), section.source(key)
        value = section.string(key)
        if value is None:
            return None, "default"
        return value, section.source("url" if key in url_keys else key)

    def _port(self, text: str | None, section: Section, source: str) -> int | None:
        key = source if source.startswith("environment") else "port"
        return Section(section.problems, section.keys, {key: text}).integer(key, low=1, high=65535)

    def _peer(self, host: str | None) -> str | None:
        """Return the system user to connect as: PostgreSQL takes a peer's word for who it is on a Unix socket only."""
        if os.geteuid() != 0 or self.system_user == "root" or not (host is None or host.startswith("/")):
            return None
        return self.system_user


def read(
    file: Path,
    *,
    rails_env: str,
    environ: Mapping[str, str],
    schemas: tuple[str, ...] = (),
    system_user: str = "git",
    cancel: Cancellation | None = None,
) -> tuple[tuple[Database, ...], tuple[Setting, ...]]:
    """Read `database.yml`: the databases to dump, `main` first, and the settings that say where their values come from.

    Raises `ConfigurationError` with every problem of the file.
    """
    section = _with_command(read_environment(file, rails_env), rails_env, environ, cancel)
    reader = _Reader(environ, schemas, system_user, [])
    databases = []
    for name, connection in _connections(section).items():
        if not re.fullmatch(r"[A-Za-z0-9_]{1,63}", name):
            # It becomes a part of a file name and of names of environment variables.
            section.wrong(name, "is no name for a connection; it may have letters, digits and _")
            continue
        if connection.boolean("database_tasks") is False:
            shared = Setting(
                name=f"database.{name}", value="shares another database", source=connection.source("database_tasks")
            )
            reader.settings.append(shared)
            continue
        if (adapter := connection.string("adapter")) not in ("postgresql", "postgres") and not (
            adapter is None and connection.has("url")
        ):
            connection.wrong("adapter", "must be postgresql")
        if (database := reader.database(name, connection)) is not None:
            databases.append(database)
    if not any(database.name == "main" for database in databases):
        section.wrong("main", "is missing; GitLab cannot run without this connection")
    section.problems.check()
    if registry := _registry(reader):
        if any(database.name == registry.name for database in databases):
            refuse(file, "and REGISTRY_DATABASE_* both name a database registry", hint="Unset the variables.")
        databases.append(registry)
    databases.sort(key=lambda database: database.name != "main")
    return tuple(databases), tuple(reader.settings)


def _connections(section: Section) -> dict[str, Section]:
    """Return the connections of both forms: keys of one database, or a mapping for each connection."""
    if section.has("main") or (section.values and all(is_mapping(value) for value in section.values.values())):
        return {name: section.section(name) for name in section.names() if name != "config_command"}
    return {"main": section}


def _registry(reader: _Reader) -> Database | None:
    """Return the metadata database of the container registry, which environment variables alone describe."""
    values: dict[object, object] = {}
    sources = {}
    for key, variables in _REGISTRY.items():
        for variable in variables:
            if key not in values and (value := reader.environ.get(variable)):
                values[key], sources[key] = value, f"environment variable {variable}"
    if not values:
        return None
    # The names that GitLab gives to the database and to its owner.
    section = Section(Problems("REGISTRY_DATABASE_*"), (), {"database": "registry", "username": "registry"} | values)
    for key in ("database", "username"):
        sources.setdefault(key, "default")
    database = reader.database("registry", section, sources)
    section.problems.check("Correct the environment variables.")
    return database


def _with_command(section: Section, rails_env: str, environ: Mapping[str, str], cancel: Cancellation | None) -> Section:
    """Return the section with the output of its `config_command` merged over it."""
    command = section.string("config_command")
    if command is None:
        return section
    output = _run(command, section, environ, cancel)
    place = f"the output of config_command ({section.source('config_command')})"
    extra = parse_mapping(output, place)
    own = extra.get(rails_env)
    if len(extra) == 1 and is_mapping(own):
        extra = own  # As a whole file of this form.
    merged = _deep_merge(section.values, extra)
    return Section(section.problems, section.keys, {k: v for k, v in merged.items() if k != "config_command"})


def _deep_merge(below: Mapping[object, object], above: Mapping[object, object]) -> dict[object, object]:
    merged = dict(below)
    for key, value in above.items():
        own = merged.get(key)
        merged[key] = _deep_merge(own, value) if is_mapping(own) and is_mapping(value) else value
    return merged


def _run(command: str, section: Section, environ: Mapping[str, str], cancel: Cancellation | None) -> bytes:
    import shlex

    hint = "Run the command by hand; it must print YAML."
    try:
        arguments = shlex.split(command)
    except ValueError:
        arguments = []
    if not arguments:
        refuse(section.source("config_command"), "is not a command line", hint="Check its quotes.")
    from ..errors import ProgramError, StreamError
    from ..streams.cancel import Cancellation
    from ..streams.process import Program, capture

    try:
        # GitLab runs it with its own environment, in which such a command finds its way to a vault.
        _, output = capture(
            Program(tuple(arguments), dict(environ)), cancel=cancel or Cancellation(), limit=LARGEST_FILE
        )
    except (ProgramError, StreamError):
        # Neither its arguments nor its words: both may hold the password.
        refuse(section.source("config_command"), f"cannot be used: {arguments[0]} failed", hint=hint)
    return output
