"""The components of GitLab: what is backed up, where it lies, and where it goes. Data only.

Ids, destinations, settings and exclusions are those of GitLab's own tools (`gitlab-backup-cli` and
`lib/backup/tasks` of GitLab), so that each side reads the other's backups.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from attrs import frozen

from .errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable


class Holder(Enum):
    """What holds the data of a component."""

    DATABASES = "databases"
    STORAGES = "storages"
    DIRECTORY = "directory"
    CONFIGURATION = "configuration"


@frozen
class Component:
    """One kind of data of a GitLab instance.

    `destination` is its place inside a backup: a directory, or the name of an archive without the suffix of the
    codec (`uploads.tar`). The rest says where a directory is found: `section` is its section of `gitlab.yml` (with
    `enabled` and `object_store`), `settings` are the keys that may name the directory, the first that is set wins,
    with `within` below it. Where none is set it is `fallback`, relative to GitLab's root, or to `shared.path` where
    `fallback_is_shared`. `excludes` are names at the top level of the directory that are left out.

    An `optional` one is backed up and restored only where it is asked for. A backup made without it does not mention
    it, and is a backup of everything all the same.
    """

    id: str
    name: str
    destination: str
    holder: Holder
    archiver: str
    section: str | None = None
    settings: tuple[str, ...] = ()
    within: str = ""
    fallback: str = ""
    fallback_is_shared: bool = True
    excludes: tuple[str, ...] = ()
    only_if_enabled: bool = False
    optional: bool = False


def _directory(
    component_id: str,
    name: str,
    fallback: str,
    *settings: str,
    section: str | None = None,
    within: str = "",
    shared: bool = True,
    excludes: tuple[str, ...] = (),
    only_if_enabled: bool = False,
) -> Component:
    return Component(
        id=component_id,
        name=name,
        destination=f"{component_id}.tar",
        holder=Holder.DIRECTORY,
        archiver="files",
        section=section or component_id,
        settings=settings,
        within=within,
        fallback=fallback,
        fallback_is_shared=shared,
        excludes=excludes,
        only_if_enabled=only_if_enabled,
    )


_TMP = ("tmp",)

COMPONENTS: tuple[Component, ...] = (
    Component(id="db", name="Databases", destination="db", holder=Holder.DATABASES, archiver="database"),
    Component(
        id="repositories", name="Repositories", destination="repositories", holder=Holder.STORAGES, archiver="git"
    ),
    _directory(
        "uploads", "Uploads", "public/uploads", "uploads.storage_path", within="uploads", shared=False, excludes=_TMP
    ),
    _directory("builds", "Builds", "builds", "gitlab_ci.builds_path", section="gitlab_ci", shared=False),
    _directory("artifacts", "Artifacts", "artifacts", "artifacts.path", "artifacts.storage_path", excludes=_TMP),
    _directory("pages", "Pages", "pages", "pages.path", excludes=("@pages.tmp",)),
    _directory("lfs", "LFS objects", "lfs-objects", "lfs.storage_path"),
    _directory("terraform_state", "Terraform states", "terraform_state", "terraform_state.storage_path", excludes=_TMP),
    _directory("registry", "Container registry images", "registry", "registry.path", only_if_enabled=True),
    _directory("packages", "Packages", "packages", "packages.storage_path", excludes=_TMP),
    _directory("ci_secure_files", "CI secure files", "ci_secure_files", "ci_secure_files.storage_path", excludes=_TMP),
    _directory("external_diffs", "External diffs", "external-diffs", "external_diffs.storage_path", excludes=_TMP),
    _directory(
        "ci_catalog_bundles",
        "CI catalog bundles",
        "ci_catalog_bundles",
        "ci_catalog_bundles.storage_path",
        excludes=_TMP,
    ),
    _directory(
        "agent_plan_content",
        "Agent plan content",
        "agent_plan_content",
        "agent_plan_content.storage_path",
        excludes=_TMP,
    ),
    Component(
        id="config",
        name="Configuration and secrets",
        destination="config.tar",
        holder=Holder.CONFIGURATION,
        archiver="config",
        # Where gitlab-ctl backup-etc puts its archives.
        excludes=("config_backup",),
        optional=True,
    ),
)
"""All components, in the order of work."""


def select(only: Iterable[str] = (), skip: Iterable[str] = (), include: Iterable[str] = ()) -> tuple[Component, ...]:
    """Return the components named by `only` and `include` without those of `skip`, in the order of work.

    Where `only` is empty, all that are not optional are meant by it. Raises `UsageError` for an id that does not exist,
    and where nothing is left.
    """
    wanted, unwanted, added = set(only), set(skip), set(include)
    known = {component.id for component in COMPONENTS}
    if unknown := sorted((wanted | unwanted | added) - known):
        raise UsageError(
            f"unknown component: {', '.join(unknown)}",
            hint=f"Known components are {', '.join(component.id for component in COMPONENTS)}.",
        )
    wanted = wanted or {component.id for component in COMPONENTS if not component.optional}
    chosen = tuple(c for c in COMPONENTS if c.id in (wanted | added) - unwanted)
    if not chosen:
        raise UsageError("no component is left to work on", hint="Name fewer with --skip, or more with --only.")
    return chosen
