"""Where archivers are found by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

from attrs import evolve

from ..components import Holder
from ..errors import PluginError, ProgramNotFoundError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..components import Component
    from ..instance import Instance
    from .base import JSON, Archiver, RepositoryOptions

ENTRY_POINTS = "gitlab_backup.archivers"
"""The group of entry points in which other distributions register theirs."""


def _database() -> Archiver:
    from .database import DatabaseArchiver

    return DatabaseArchiver()


def _files() -> Archiver:
    from .files import FilesArchiver

    return FilesArchiver()


def _config() -> Archiver:
    from .config import ConfigArchiver

    return ConfigArchiver()


def _git() -> Archiver:
    from .git import GitArchiver

    return GitArchiver()


def _gitaly() -> Archiver:
    from .gitaly import GitalyArchiver

    return GitalyArchiver()


# The built-in ones are found without the metadata of an installed distribution: a plain directory works too.
_BUILT_IN: dict[str, Callable[[], Archiver]] = {
    "database": _database,
    "files": _files,
    "config": _config,
    "git": _git,
    "gitaly": _gitaly,
}


_WORKS_ON: Final = {
    "database": Holder.DATABASES,
    "files": Holder.DIRECTORY,
    "config": Holder.CONFIGURATION,
    "git": Holder.STORAGES,
    "gitaly": Holder.STORAGES,
}


def archiver_for(
    component: Component,
    options: RepositoryOptions,
    instance: Instance,
    *,
    asked: str | None = None,
    recorded: str | None = None,
    details: Mapping[str, JSON] | None = None,
) -> Archiver:
    """Return a new archiver for a component: the one that was `asked` for, or made it (`recorded`), else its usual one.

    For repositories it is the one that was asked for, else the one that `instance` calls for, whichever of the two made
    the backup: both write the same layout. But what is server-side, by its `details`, only Gitaly has.

    Raises `UsageError` where there is none of that name, or it is for other components; `PluginError` where it is no
    good, or the one that made the backup is not there.
    """
    name = asked or recorded
    if component.holder is Holder.STORAGES and name in {None, *_OF_REPOSITORIES}:
        server_side = options.server_side or (details or {}).get("server_side") is True
        chosen = evolve(options, archiver=asked or options.archiver, server_side=server_side)
        return archiver_named(_for_repositories(chosen, instance))
    if asked is None:
        return archiver_named(component.archiver) if recorded is None else archiver_that_made(component, recorded)
    if _WORKS_ON.get(asked, component.holder) is not component.holder:
        raise UsageError(
            f"the archiver {asked} does not work on {component.id}", hint=f"Its usual one is {component.archiver}."
        )
    return archiver_named(asked)


_OF_REPOSITORIES = ("gitaly", "git")


def _for_repositories(options: RepositoryOptions, instance: Instance) -> str:
    asked = options.archiver
    if asked not in {None, *_OF_REPOSITORIES}:
        raise UsageError(
            f"unknown archiver of repositories: {asked}", hint=f"Known ones are {' and '.join(_OF_REPOSITORIES)}."
        )
    if asked is None:
        asked = "gitaly" if any(storage.gitaly_address for storage in instance.storages) else "git"
        try:
            instance.program("gitaly-backup")
        except ProgramNotFoundError:
            # A server-side backup needs it: then its absence is what has to be said.
            asked = "gitaly" if options.server_side else "git"
    if options.server_side and asked != "gitaly":
        raise UsageError(
            f"the archiver {asked} neither makes nor restores server-side backups: they are in Gitaly's object storage",
            hint="Use the archiver gitaly. It is the default where gitaly-backup is found and storages have a"
            " gitaly_address.",
        )
    return asked


def archiver_named(name: str) -> Archiver:
    """Return a new archiver of that name: a built-in one, else one that an installed distribution registers.

    Raises `UsageError` where there is none, `PluginError` for one that is no good.
    """
    from ..plugins import known

    archiver = _find(name)
    if archiver is None:
        raise UsageError(f"unknown archiver: {name}", hint=f"Known archivers are {known(ENTRY_POINTS, _BUILT_IN)}.")
    return archiver


def archiver_that_made(component: Component, name: str) -> Archiver:
    """Return a new archiver of the name that a backup says it was made by.

    Raises `PluginError` where it is not installed, or no good.
    """
    archiver = _find(name)
    if archiver is None:
        raise PluginError(
            f"{component.id} was backed up by the archiver {name}, which is not installed here",
            hint=f"Install the distribution that registers it as an entry point {ENTRY_POINTS}.",
        )
    return archiver


def _find(name: str) -> Archiver | None:
    if name in _BUILT_IN:
        return _BUILT_IN[name]()
    from ..plugins import load
    from .base import Archiver

    return cast("Archiver | None", load(ENTRY_POINTS, name, Archiver))
