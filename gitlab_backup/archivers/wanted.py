"""Which repositories a run is about: the user's choice is checked, and at a restore set against what the backup has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from attrs import field, frozen

from ..errors import RefusedError, UsageError
from ..instance.repositories import list_repositories, unknown_paths
from ..instance.selection import Selection
from ..manifest import FILTER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from ..instance import Instance
    from ..instance.repositories import Repository
    from .base import JSON, RestoreJob

_SHOWN: Final = 5


def check_selection(selection: Selection, instance: Instance, *, replaces_database: bool = False) -> None:
    """Raise `UsageError` where a selection names a storage or a path that `instance` does not have.

    With `replaces_database` also where it names any path: nobody can say yet what that will stand for. `DatabaseError`
    where that cannot be asked.
    """
    known = [storage.name for storage in instance.storages]
    if unknown := [name for name in selection.storages if name not in known]:
        raise UsageError(
            f"unknown repository storage: {', '.join(unknown)}",
            hint=f"Known ones are {', '.join(known)}." if known else "None is configured.",
        )
    if not selection.by_path:
        return
    if replaces_database:
        raise UsageError(
            "which repositories a path stands for is said by the database, and this restore replaces it",
            hint="Restore the database first (--only db), then the repositories (--only repositories).",
        )
    if missing := unknown_paths(instance.databases[0], [*selection.paths, *selection.skip_paths]):
        raise UsageError(
            f"no group and no project has the path {', '.join(missing)}",
            hint="Paths are whole, as in URLs (group/subgroup/project), and those that the database has now.",
        )


def recorded_selection(details: Mapping[str, JSON] | None) -> Selection:
    """Return what the repositories of a backup were chosen by, as its manifest says."""
    return Selection.from_record((details or {}).get(FILTER))


def removes_others(job: RestoreJob) -> bool:
    """Tell whether a restore removes what the backup does not have: only where both are about all repositories."""
    return not job.options.repositories.filtered and not recorded_selection(job.details)


def notes_on_selection(job: RestoreJob) -> list[str]:
    """Return what a person should know of both choices before a restore."""
    notes = []
    if made := recorded_selection(job.details):
        notes.append(f"the backup has only repositories {made}; all others are left as they are")
    if chosen := job.options.repositories.selection:
        notes.append(f"only repositories {chosen} are restored; all others are left as they are")
    return notes


@frozen
class Wanted:
    """The repositories that a restore is about. What the database lists is asked for once."""

    selection: Selection
    _projects: Mapping[tuple[str, str], str | None] = field(factory=dict, repr=False)
    """With `selection.paths`, the wanted storages and paths; with the names of those that are projects' own."""
    _skipped: frozenset[str] = field(default=frozenset(), repr=False)
    """Without, the paths that are not wanted: also what no row is about any more is restored then."""

    @classmethod
    def of(cls, job: RestoreJob) -> Wanted:
        """Ask the database, where the user has chosen by path. Raises `DatabaseError`, `UsageError`."""
        selection = job.options.repositories.selection
        if selection.paths:
            wanted = _listed(job, selection)
            places = {
                (one.storage, one.relative_path): one.project_path if one.always_create else None for one in wanted
            }
            return cls(selection, places)
        if selection.skip_paths:
            skipped = _listed(job, Selection(paths=selection.skip_paths))
            return cls(selection, skipped=frozenset(one.relative_path for one in skipped))
        return cls(selection)

    def __call__(self, storage: str, relative_path: str) -> bool:
        """Tell whether a repository is wanted."""
        if self.selection.paths:
            return (storage, relative_path) in self._projects
        return relative_path not in self._skipped and storage in (self.selection.storages or (storage,))

    def notes(self, has: Callable[[str, str], bool]) -> list[str]:
        """Return a note on the wanted projects that are not in the backup."""
        missing = [name for place, name in self._projects.items() if name is not None and not has(*place)]
        if not missing:
            return []
        more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
        return [f"not in the backup, and left as they are: {', '.join(missing[:_SHOWN])}{more}"]


def nothing_wanted(wanted: Wanted) -> RefusedError:
    """Return the error for a choice that leaves nothing to restore."""
    return RefusedError(
        f"the backup has no repositories {wanted.selection}",
        hint="What it has is said by show and its manifests. Paths stand for what the database lists now.",
    )


def _listed(job: RestoreJob, selection: Selection) -> Iterator[Repository]:
    # A row that names no place is about nothing that a backup could have.
    for repository in list_repositories(job.instance.databases[0], rejected=lambda _problem: None, within=(selection,)):
        job.cancel.check()
        yield repository
