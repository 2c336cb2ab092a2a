"""Reading an installation that was found, into one `Instance`."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from ..errors import ConfigurationError, GitLabBackupError
from . import database_yml, gitlab_yml, programs
from .configuration import OMNIBUS_CONFIGURATION, configuration
from .model import Instance, Setting
from .yaml_file import read_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from ..streams.cancel import Cancellation
    from .discover import Place

_OMNIBUS_SECRETS = OMNIBUS_CONFIGURATION / "gitlab-secrets.json"


def read(
    place: Place, *, backup_path: Path | None, environ: Mapping[str, str], cancel: Cancellation | None
) -> Instance:
    """Read the files of an installation. Raises `ConfigurationError`, with the problems of all of its files."""
    failures: list[ConfigurationError] = []
    version = gitlab = databases = None
    try:
        version = _version(place.root / "VERSION")
    except ConfigurationError as error:
        failures.append(error)
    try:
        gitlab = gitlab_yml.read(
            place.gitlab_config,
            rails_env=place.rails_env,
            root=place.root,
            installation=place.installation,
            backup_path=backup_path,
        )
    except ConfigurationError as error:
        failures.append(error)
    try:
        databases = database_yml.read(
            place.database_config,
            rails_env=place.rails_env,
            environ=environ,
            cancel=cancel,
            schemas=gitlab.schemas if gitlab else (),
            system_user=gitlab.system_user if gitlab else "git",
        )
    except ConfigurationError as error:
        failures.append(error)
    if version is None or gitlab is None or databases is None:
        raise _joined(failures)
    search_path = programs.search_path(place.installation, environ)
    secrets = _secrets_file(place)
    return Instance(
        gitlab_version=version,
        installation=place.installation,
        root=place.root,
        rails_env=place.rails_env,
        backup_path=gitlab.backup_path,
        system_user=gitlab.system_user,
        databases=databases[0],
        storages=gitlab.storages,
        settings=(*_place_settings(place, version, search_path, secrets), *gitlab.settings, *databases[1]),
        search_path=search_path,
        secrets_file=secrets,
        configuration=configuration(place),
        keep_time=gitlab.keep_time,
        gitaly_backup=gitlab.gitaly_backup,
        gitlab_config=place.gitlab_config,
        database_config=place.database_config,
        certificates=programs.certificates(environ),
        gitlab_yml={str(key): value for key, value in gitlab.section.values.items()},
    )


def _joined(failures: list[ConfigurationError]) -> GitLabBackupError:
    if len(failures) == 1:
        return failures[0]
    hints = dict.fromkeys(failure.hint for failure in failures if failure.hint)
    return ConfigurationError("\n".join(failure.message for failure in failures), hint=" ".join(hints))


def _version(file: Path) -> str:
    lines = read_bytes(file).decode("ascii", "replace").splitlines()
    version = lines[0].strip() if lines else ""
    if not version:
        raise ConfigurationError(f"{file} is empty", hint="It must hold GitLab's version. Is this GitLab's directory?")
    # It becomes a part of a backup's id, and so of a directory's name.
    if not re.fullmatch(r"[0-9A-Za-z][0-9A-Za-z.+~-]{0,63}", version):
        raise ConfigurationError(
            f"{file} does not begin with a version of GitLab",
            hint="It must be as 17.0.0-ee. Is this GitLab's directory?",
        )
    return version


def _secrets_file(place: Place) -> Path | None:
    file = _OMNIBUS_SECRETS if place.installation == "omnibus" else place.root / "config" / "secrets.yml"
    return file if os.access(file, os.R_OK) and file.is_file() else None


def _place_settings(place: Place, version: str, search_path: str, secrets: Path | None) -> tuple[Setting, ...]:
    values = {
        "installation": place.installation,
        "gitlab_path": str(place.root),
        "gitlab_config": str(place.gitlab_config),
        "database_config": str(place.database_config),
        "rails_env": place.rails_env,
    }
    found = [Setting(name=name, value=value, source=place.sources[name]) for name, value in values.items()]
    return (
        *found,
        Setting(name="gitlab_version", value=version, source=str(place.root / "VERSION")),
        Setting(name="search_path", value=search_path, source="environment variable PATH"),
        Setting(name="secrets_file", value=str(secrets or "(not found)"), source="default"),
    )
