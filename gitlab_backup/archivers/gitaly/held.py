"""What a backup holds, by the manifests of its repositories."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from attrs import frozen

from ...errors import ComponentError, CorruptStreamError
from ..git.layout import LATEST, MANIFESTS, RepositoryManifest
from ..wanted import nothing_wanted
from .fetching import loss_when_fetched

if TYPE_CHECKING:
    from ..base import RestoreJob
    from ..wanted import Wanted

_NAMED: Final = 20
_LARGEST: Final = 16 << 20
"""Bytes of a manifest; a step takes less than a kibibyte."""


@frozen(kw_only=True)
class Held:
    """The repositories of a backup that can be restored."""

    backup_id: str
    """The id that gitaly-backup knows the backup by. GitLab's own tool leaves its choice to gitaly-backup."""
    repositories: tuple[tuple[str, str], ...]
    """Storage and relative path of each, sorted, without those that did not exist when the backup was made."""


def held_by(job: RestoreJob, wanted: Wanted, *, by_fetching: bool) -> Held:
    """Find out the id, and read every manifest of that id which is of a wanted repository.

    `by_fetching` says how gitaly-backup restores several steps: see `fetching`.

    Raises `ComponentError` where a repository has no such manifest, where one cannot be understood or its files are not
    all there, and where it would be restored with a loss.
    """
    prefix = f"{job.component.destination}/{MANIFESTS}/"
    names = frozenset(job.names(job.component.destination))
    ids: dict[str, set[str]] = {}
    for name in names:
        if name.startswith(prefix) and name.endswith(".toml"):
            place, _, file = name.removeprefix(prefix).rpartition("/")
            ids.setdefault(place, set()).add(file)
    recorded = (job.details or {}).get("repositories")
    if not ids and recorded != 0:
        raise ComponentError(
            "the backup has no manifests of repositories",
            hint="It was made by gitaly-backup of GitLab 16.4 or earlier, or is not complete.",
        )
    backup_id = _id(job, prefix, ids)
    chosen = [place for place in ids if wanted(*place.split("/", 1))]
    name = f"{backup_id}.toml"
    problems = [f"{place} has no manifest {name}" for place in chosen if name not in ids[place]]
    if isinstance(recorded, int) and recorded != len(ids):
        problems.append(f"there are manifests of {len(ids)} repositories, where {recorded} were made")
    repositories = []
    if wanted.selection and not chosen:
        raise nothing_wanted(wanted)
    for place in sorted(chosen) if not problems else ():
        job.cancel.check()
        storage, _, path = place.partition("/")
        try:
            if _exists(job, f"{prefix}{place}/{backup_id}.toml", names, by_fetching=by_fetching):
                repositories.append((storage, path))
        except CorruptStreamError as error:
            problems.append(f"{place}: {error.message}")
    if problems:
        shown = "".join(f"\n  - {problem}" for problem in sorted(problems)[:_NAMED])
        more = f"\n  - … and {len(problems) - _NAMED} more" if len(problems) > _NAMED else ""
        raise ComponentError(
            f"the repositories of the backup cannot be restored by gitaly-backup:{shown}{more}",
            hint="Restore another backup, or these with the archiver git (--repositories-archiver git).",
        )
    return Held(backup_id=backup_id, repositories=tuple(repositories))


def _id(job: RestoreJob, prefix: str, ids: dict[str, set[str]]) -> str:
    """Return the id of this backup's manifests. Never by time: copies of a backup have other times."""
    if job.details is not None:
        return str(job.details.get("id", job.backup_id))
    counted = Counter(file.removesuffix(".toml") for files in ids.values() for file in files if file != LATEST)
    common = [backup_id for backup_id, count in counted.items() if count == len(ids)]
    if job.backup_id in common or not counted:
        return job.backup_id
    if len(common) > 1:
        # Full backups and increments upon them: the newest is the one that all the copies are of.
        common = [backup_id for backup_id in common if all(_is_latest(job, f"{prefix}{p}", backup_id) for p in ids)]
    if len(common) > 1:
        raise ComponentError(f"the repositories are from several backups: {', '.join(sorted(common)[:_NAMED])}")
    return common[0] if common else counted.most_common(1)[0][0]


def _is_latest(job: RestoreJob, place: str, backup_id: str) -> bool:
    return _content(job, f"{place}/{backup_id}.toml") == _content(job, f"{place}/{LATEST}")


def _content(job: RestoreJob, name: str) -> bytes:
    with job.open_file(name) as file:
        return file.read(_LARGEST)


def _exists(job: RestoreJob, name: str, names: frozenset[str], *, by_fetching: bool) -> bool:
    """Return whether a repository existed. Raises `CorruptStreamError` where its files are not what they must be."""
    manifest = RepositoryManifest.from_toml(_content(job, name))
    if manifest.non_existent:
        return False
    root = job.component.destination
    for step in manifest.steps:
        if f"{root}/{step.ref_path}" not in names:
            raise CorruptStreamError(f"{step.ref_path} is missing")
        if manifest.empty and f"{root}/{step.bundle_path}" in names:
            # What gitaly-backup makes of an increment upon an empty repository; it would restore it as empty.
            raise CorruptStreamError(f"is marked as empty, but has {step.bundle_path}")
    loss = loss_when_fetched(manifest, lambda path: job.open_file(f"{root}/{path}")) if by_fetching else None
    if loss is not None:
        raise CorruptStreamError(f"{loss}: gitaly-backup before 18.3 restores no increments in which refs were deleted")
    return True
