"""The data directories of the components: where the configuration puts them, and whether they are there."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from attrs import frozen

from ..errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

    from ..components import Component
    from .section import Section

# Sections that may not have object storage of their own while the consolidated form is in use: with one of them, GitLab
# ignores the consolidated form (`WORKHORSE_ACCELERATED_TYPES` in GitLab's config/object_store_settings.rb).
_ACCELERATED = (
    "artifacts",
    "external_diffs",
    "lfs",
    "uploads",
    "packages",
    "dependency_proxy",
    "terraform_state",
    "ci_secure_files",
)


@frozen(kw_only=True)
class Configured:
    """What the configuration says of a component's directory, without a look at the disk."""

    path: Path
    source: str
    left_out: str | None


def configured(component: Component, gitlab: Section, root: Path) -> Configured:
    """Return what `gitlab.yml` says of a component's directory. Wrong values are noted as problems of the section."""
    path, source = _path(component, gitlab, root)
    return Configured(path=path, source=source, left_out=_left_out(component, gitlab))


def state(path: Path) -> str | None:
    """Return why a directory cannot be backed up; None where it is there. A symbolic link to a directory is one.

    Raises `ConfigurationError` where the path is something else than a directory, or cannot be looked at.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return f"{path}: no such directory"
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it cannot be a path"
        raise ConfigurationError(
            f"{path} cannot be looked at: {reason}", hint="Run this as root, or correct the path in gitlab.yml."
        ) from error
    if not stat.S_ISDIR(mode):
        raise ConfigurationError(f"{path} is not a directory", hint="Correct the path in gitlab.yml.")
    return None


def _path(component: Component, gitlab: Section, root: Path) -> tuple[Path, str]:
    for setting in component.settings:
        section, key = gitlab.inner(setting)
        if (value := section.string(key)) is not None:
            return root / value / component.within, section.source(key)
    if not component.fallback_is_shared:
        return root / component.fallback, "default"
    shared = gitlab.section("shared")
    value = shared.string("path")
    source = "default" if value is None else shared.source("path")
    return root / (value or "shared") / component.fallback, source


def _left_out(component: Component, gitlab: Section) -> str | None:
    if component.section is None:
        return None
    section = gitlab.section(component.section)
    if component.only_if_enabled and not section.boolean("enabled"):
        return "is not enabled"
    bucket = _own_bucket(section)
    if bucket is None:
        bucket = _consolidated_bucket(component.section, gitlab)
    if bucket is None:
        return None
    return f"is kept in object storage (bucket {bucket})" if bucket else "is kept in object storage"


def _own_bucket(section: Section) -> str | None:
    """Return the bucket of the section's own object storage, empty where it has no name; None without one."""
    store = section.section("object_store")
    bucket = store.string("remote_directory") or ""
    return bucket if store.boolean("enabled") else None


def _consolidated_bucket(name: str, gitlab: Section) -> str | None:
    """Return the bucket that the consolidated form gives to a section; None where the form does not concern it.

    As in GitLab, `<section>.object_store.enabled: false` does not opt out (Omnibus writes it into every section);
    `object_store.objects.<section>.enabled: false` does.
    """
    store = gitlab.section("object_store")
    if not store.boolean("enabled") or not store.has("connection"):
        return None
    for other in _ACCELERATED:
        own = gitlab.section(other).section("object_store")
        if own.boolean("enabled") or own.values.get("connection"):
            return None
    own_object = store.section("objects").section(name)
    bucket = own_object.string("bucket")
    return bucket if own_object.boolean("enabled") is not False else None
