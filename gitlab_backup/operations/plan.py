"""What a backup is going to contain, and how it is to be made."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import field, frozen

from ..archivers.base import RepositoryOptions
from ..archivers.registry import archiver_for
from ..archivers.wanted import check_selection
from ..components import COMPONENTS, Holder, select
from ..errors import RefusedError, UsageError
from ..streams.codec import codec_named
from .run import checked_rate, default_jobs

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ..archivers.base import Archiver
    from ..components import Component
    from ..instance import Instance
    from ..streams.codec import Codec

NOT_SELECTED = "not selected"
"""Why a component is left out that `only` or `skip` deselects."""


@frozen(kw_only=True)
class CreateOptions:
    """How a backup is to be made. `options` makes a checked one."""

    components: frozenset[str]
    jobs: int
    """How many components, and how many things within each, are worked on at the same time."""
    codec: Codec
    level: int | None
    keep_going: bool
    repositories: RepositoryOptions
    archivers: Mapping[str, str] = field(factory=dict)
    """The archiver of each component that is not to have its usual one, by their names."""
    insecure_store: bool = False
    """Whether others may be able to write to the backup path."""
    rate_limit: int | None = None
    """How many bytes a second are read of the instance, at the most; None for as many as there come."""


def options(
    *,
    only: Iterable[str] = (),
    skip: Iterable[str] = (),
    include: Iterable[str] = (),
    jobs: int | None = None,
    compression: str = "gzip",
    level: int | None = None,
    keep_going: bool = False,
    repositories: RepositoryOptions | None = None,
    archivers: Mapping[str, str] | None = None,
    insecure_store: bool = False,
    rate_limit: int | None = None,
) -> CreateOptions:
    """Return checked options. Raises `UsageError` for names and numbers that do not exist."""
    codec = codec_named(compression)
    if level is not None and level not in codec.levels:
        hint = (
            f"Its levels are {codec.levels.start} to {codec.levels.stop - 1}." if codec.levels else "It has no levels."
        )
        raise UsageError(f"{codec.name} has no compression level {level}", hint=hint)
    if jobs is not None and jobs < 1:
        raise UsageError(f"cannot work with {jobs} jobs", hint="--jobs takes a number from 1 on.")
    repositories, archivers = repositories or RepositoryOptions(), dict(archivers or {})
    if archivers:
        select(archivers)
    asked = {repositories.archiver, archivers.get("repositories")} - {None}
    if len(asked) > 1:
        raise UsageError(f"two archivers are given for the repositories: {' and '.join(sorted(map(str, asked)))}")
    if repositories.base is not None and not repositories.incremental:
        raise UsageError(
            "a base was given for a backup that is to be full", hint="--base BACKUP_ID goes with --incremental."
        )
    if repositories.incremental and repositories.server_side:
        raise UsageError(
            "server-side backups are made in full",
            hint="Whether an increment in Gitaly's object storage is whole cannot be seen from here.",
        )
    return CreateOptions(
        components=frozenset(component.id for component in select(only, skip, include)),
        jobs=jobs or default_jobs(),
        codec=codec,
        level=codec.default_level if level is None and codec.levels else level,
        keep_going=keep_going,
        repositories=repositories,
        archivers=archivers,
        insecure_store=insecure_store,
        rate_limit=checked_rate(rate_limit),
    )


@frozen
class PlannedComponent:
    """What is going to happen to one component."""

    component: Component
    archiver: Archiver
    left_out: str | None
    """Why it is left out; None where it is backed up."""
    base: str | None = None
    """The id of the backup that it is going to be an increment on; None where it is backed up in full."""


def plan(instance: Instance, chosen: CreateOptions) -> list[PlannedComponent]:
    """Say what a backup would contain, and why not more. Changes nothing.

    Raises `RefusedError` where the backup would swallow itself, `UsageError` or `PluginError` where an archiver cannot
    be used, `UsageError` for storages and paths that there are not.
    """
    if "repositories" in chosen.components:
        check_selection(chosen.repositories.selection, instance)
    planned = []
    for component in COMPONENTS:
        if component.optional and component.id not in chosen.components:
            continue
        asked = chosen.archivers.get(component.id)
        archiver = archiver_for(component, chosen.repositories, instance, asked=asked)
        left_out = archiver.left_out(component, instance) if component.id in chosen.components else NOT_SELECTED
        if left_out is None:
            _refuse_to_swallow(instance, component)
        planned.append(PlannedComponent(component, archiver, left_out))
    return planned


def _refuse_to_swallow(instance: Instance, component: Component) -> None:
    """Raise `RefusedError` where the backup path lies in what is about to be backed up."""
    if component.holder is Holder.DIRECTORY:
        sources = [instance.directory(component).path]
    elif component.holder is Holder.STORAGES:
        sources = [storage.path for storage in instance.storages if storage.path is not None]
    elif component.holder is Holder.CONFIGURATION:
        sources = list(instance.configuration)
    else:
        return
    backup_path = Path(os.path.realpath(instance.backup_path))
    for source in sources:
        if backup_path.is_relative_to(os.path.realpath(source)):
            raise RefusedError(
                f"the backup path {instance.backup_path} lies inside {source}, which is backed up as {component.id}",
                hint="The backup would swallow itself. Set another backup path, or skip the component with --skip.",
            )
