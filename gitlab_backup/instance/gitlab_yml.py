"""What this tool needs of `gitlab.yml`."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from attrs import frozen

from ..components import COMPONENTS, Holder
from . import directories, gitaly_toml
from .model import Setting, Storage
from .yaml_file import read_environment

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from .section import Section

PARTITION_SCHEMAS = ("gitlab_partitions_dynamic", "gitlab_partitions_static")
"""The schemas that GitLab keeps its partitions in: dumped with those of `backup.pg_schema`."""


@frozen(kw_only=True)
class GitLabSettings:
    """What `gitlab.yml` says, under one Rails environment."""

    system_user: str
    backup_path: Path
    keep_time: int | None
    gitaly_backup: Path | None
    schemas: tuple[str, ...]
    storages: tuple[Storage, ...]
    settings: tuple[Setting, ...]
    section: Section


def read(
    file: Path, *, rails_env: str, root: Path, installation: str, backup_path: Path | None = None
) -> GitLabSettings:
    """Read `gitlab.yml`.

    `backup_path` overrides the one of the file. Raises `ConfigurationError` with every problem of the file.
    """
    gitlab = read_environment(file, rails_env)
    settings: list[Setting] = []
    user = _text(gitlab, "gitlab.user", "git", settings)
    path = _backup_path(gitlab.section("backup"), root, backup_path, settings)
    backup = gitlab.section("backup")
    keep_time = backup.integer("keep_time")
    settings.append(_setting(backup, "backup.keep_time", "keep_time", str(keep_time or 0)))
    gitaly_backup = backup.string("gitaly_backup_path")
    settings.append(_setting(backup, "backup.gitaly_backup_path", "gitaly_backup_path", gitaly_backup or "(not set)"))
    schemas = backup.strings("pg_schema")
    schemas = tuple(dict.fromkeys((*schemas, *PARTITION_SCHEMAS))) if schemas else ()
    settings.append(_setting(backup, "backup.pg_schema", "pg_schema", ", ".join(schemas) or "(all)"))
    storages = _storages(gitlab, settings, gitaly_toml.candidates(installation, root, file), root)
    for component in COMPONENTS:
        if component.holder is Holder.DIRECTORY:
            found = directories.configured(component, gitlab, root)
            value = str(found.path) + (f" ({found.left_out})" if found.left_out else "")
            settings.append(Setting(name=f"{component.id}.path", value=value, source=found.source))
    gitlab.problems.check()
    return GitLabSettings(
        system_user=user,
        backup_path=path,
        keep_time=keep_time or None,
        gitaly_backup=root / gitaly_backup if gitaly_backup else None,
        schemas=schemas,
        storages=storages,
        settings=tuple(settings),
        section=gitlab,
    )


def read_backup_path(file: Path, *, rails_env: str, root: Path) -> Path:
    """Read where the backups are, and nothing else. Raises `ConfigurationError`."""
    section = read_environment(file, rails_env).section("backup")
    path = _backup_path(section, root, None, [])
    section.problems.check()
    return path


def _setting(section: Section, name: str, key: str, value: str) -> Setting:
    return Setting(name=name, value=value, source=section.source(key) if section.has(key) else "default")


def _text(gitlab: Section, dotted: str, default: str, settings: list[Setting]) -> str:
    section, key = gitlab.inner(dotted)
    value = section.string(key) or default
    settings.append(_setting(section, dotted, key, value))
    return value


def _backup_path(backup: Section, root: Path, option: Path | None, settings: list[Setting]) -> Path:
    own = backup.string("path")
    path = option.absolute() if option is not None else root / (own or "tmp/backups")
    source = "option" if option is not None else backup.source("path") if own else "default"
    settings.append(Setting(name="backup.path", value=str(path), source=source))
    return path


def _storages(
    gitlab: Section, settings: list[Setting], gitaly_files: tuple[Path, ...], root: Path
) -> tuple[Storage, ...]:
    section, key = gitlab.inner("repositories.storages")
    configured = section.section(key)
    names = configured.names()
    if not names:
        section.wrong(key, "names no storage")
    fallback_token = gitlab.section("gitaly").string("token")
    own_paths: Mapping[str, tuple[Path, str]] | None = None
    storages = []
    for name in names:
        storage = configured.section(name)
        address, own_path = storage.string("gitaly_address"), storage.string("path")
        path, source = (root / own_path, storage.source("path")) if own_path else (None, "default")
        if path is None and _is_local(address):
            if own_paths is None:
                file = gitaly_toml.first_existing(gitaly_files)
                own_paths = gitaly_toml.storage_paths(file) if file else {}
            path, source = own_paths.get(name, (None, source))
        own_token = storage.string("gitaly_token")
        token_source = storage.source("gitaly_token") if own_token else gitlab.section("gitaly").source("token")
        token = own_token or fallback_token
        storages.append(Storage(name=name, path=path, gitaly_address=address, gitaly_token=token))
        prefix = f"repositories.storages.{name}"
        settings += (
            Setting(name=f"{prefix}.path", value=str(path or "(not set)"), source=source),
            _setting(storage, f"{prefix}.gitaly_address", "gitaly_address", _address_shown(address)),
            Setting(
                name=f"{prefix}.gitaly_token",
                value="(set)" if token else "(not set)",
                source=token_source if token else "default",
            ),
        )
    return tuple(storages)


def _is_local(address: str | None) -> bool:
    """Tell whether a Gitaly address is of this machine, so that its `config.toml` here speaks of the same storage.

    Another machine's storage often has the same name: a wrong guess would back up the wrong repositories.
    """
    if address is None or address.startswith("unix:"):
        return True
    try:
        host = urlsplit(address).hostname or ""
    except ValueError:
        return False
    return host in ("localhost", "::1") or host.startswith("127.")


def _address_shown(address: str | None) -> str:
    # An address has no place for credentials; one that has an @ holds them by mistake.
    if address is None:
        return "(not set)"
    return "(set)" if "@" in address else address
