"""What a backup has of repositories, and the storages that they go to."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from attrs import field, frozen

from ...errors import ComponentError, CorruptStreamError, RefusedError
from ..wanted import Wanted, nothing_wanted, removes_others
from .layout import LATEST, MANIFESTS, RepositoryManifest, is_safe
from .listing import storage_on_disk
from .placing import LEFT_ALONE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..base import RestoreJob
    from .back_up import StorageOnDisk

_LARGEST_MANIFEST: Final = 16 << 20
"""Bytes; a step takes less than a kibibyte."""
_SHOWN: Final = 5


@frozen(kw_only=True)
class Targets:
    """The repositories of a backup that a restore is about, by storage."""

    job: RestoreJob
    wanted: Wanted
    made: int
    """How many the backup has, wanted or not."""
    storages: dict[str, list[tuple[str, str]]] = field(repr=False)
    """For each storage the relative paths, sorted, and the name of the manifest to go by; empty where there is none."""

    @classmethod
    def of(cls, job: RestoreJob) -> Targets:
        """Find them. Raises `RefusedError` where the backup is of another layout, or would leave its storages."""
        root = f"{job.component.destination}/{MANIFESTS}/"
        found: dict[str, dict[str, str]] = {}
        wanted = f"{job.backup_id}.toml"
        hostile = []
        for name in job.names(f"{job.component.destination}/{MANIFESTS}"):
            directory, _, file = name.removeprefix(root).rpartition("/")
            storage, _, relative = directory.partition("/")
            if not file.endswith(".toml"):
                continue
            if not relative or not is_safe(relative) or relative.split("/")[0] in LEFT_ALONE:
                hostile.append(name)
                continue
            chosen = found.setdefault(storage, {})
            # The repositories may have an id of their own, which is not that of the backup's directory.
            if file == wanted or (file == LATEST and chosen.get(relative) != wanted):
                chosen[relative] = file
            else:
                chosen.setdefault(relative, "")
        hostile += _nested(found)
        if hostile:
            raise RefusedError(
                f"the backup has {len(hostile)} repositories where none can be: {', '.join(hostile[:_SHOWN])}",
                hint="This is no backup of GitLab's repositories as gitaly-backup or this tool writes it.",
            )
        chooses = Wanted.of(job)
        storages = {
            name: sorted((relative, file) for relative, file in chosen.items() if chooses(name, relative))
            for name, chosen in sorted(found.items())
        }
        return cls(job=job, wanted=chooses, made=sum(map(len, found.values())), storages=storages)

    @property
    def count(self) -> int:
        """How many there are."""
        return sum(map(len, self.storages.values()))

    def manifest(self, storage: str, relative: str, name: str) -> RepositoryManifest:
        """Read the manifest of a repository. Raises `ComponentError`, `StreamError`."""
        place = f"{self.job.component.destination}/{MANIFESTS}/{storage}/{relative}"
        if not name:
            raise ComponentError(f"there is neither {self.job.backup_id}.toml nor {LATEST} in {place}")
        with self.job.open_file(f"{place}/{name}") as source:
            content = source.read(_LARGEST_MANIFEST + 1)
        if len(content) > _LARGEST_MANIFEST:
            raise CorruptStreamError(f"{place}/{name} is far too large for a manifest of a repository")
        try:
            return RepositoryManifest.from_toml(content)
        except CorruptStreamError as error:
            raise CorruptStreamError(f"{place}/{name} {error.message}") from None

    def check(self) -> None:
        """Raise `RefusedError` where there is nothing to restore, or not all that the backup should have."""
        expected = (self.job.details or {}).get("repositories")
        if isinstance(expected, int) and expected != self.made:
            raise RefusedError(
                f"the backup has manifests of {self.made} repositories, where {expected} were made",
                hint="It is damaged. Restore another one.",
            )
        if not self.made and expected is None:
            raise RefusedError(
                f"{self.job.root / self.job.component.destination} has no manifests of repositories",
                hint="gitaly-backup before 16.5 wrote none. Restore such a backup with gitaly-backup itself.",
            )
        if not self.count and self.wanted.selection:
            raise nothing_wanted(self.wanted)


FAILED_PLACES: Final = "failed_places"
"""The key of the manifest's details that lists the repositories which were there, and could not be backed up."""


def belongs(job: RestoreJob, storage: str, relative: str) -> bool:
    """Tell whether a repository belongs to what was backed up, so that a restore must not remove it.

    One that could not be backed up at the time does: nothing can be put into its place, and it may be the only copy.
    """
    failed = (job.details or {}).get(FAILED_PLACES)
    return in_backup(job, storage, relative) or (isinstance(failed, list) and f"{storage}/{relative}" in failed)


def in_backup(job: RestoreJob, storage: str, relative: str) -> bool:
    """Tell whether the backup has a manifest of a repository. Looks at the disk, so that no list has to be kept."""
    directory = job.root / job.component.destination / MANIFESTS / storage / relative
    try:
        return any(name.endswith(".toml") for name in os.listdir(directory))  # noqa: PTH208 - names alone
    except (FileNotFoundError, NotADirectoryError):
        return False


def storages_of(job: RestoreJob, targets: Targets) -> tuple[dict[str, StorageOnDisk], list[str]]:
    """Return the storages to restore to, and notes about those that are left alone.

    Raises `RefusedError` where one that the backup has repositories of cannot be written without Gitaly.
    """
    configured = {storage.name: storage for storage in job.instance.storages}
    found: dict[str, StorageOnDisk] = {}
    notes = []
    # A storage of which nothing is restored is touched only to remove what it has.
    others = configured if removes_others(job) else ()
    for name in sorted({*(name for name, chosen in targets.storages.items() if chosen), *others}):
        count = len(targets.storages.get(name, ()))
        named = f"the storage {name!r}, of which the backup has {count} repositories,"
        try:
            found[name] = _writable(storage_on_disk(name, configured.get(name), named, may_be_empty=True), named)
        except ComponentError as error:
            if count:
                raise RefusedError(error.message, hint=error.hint) from error
            notes.append(f"{error.message}; what it has is left as it is")
    return found, notes


def _writable(storage: StorageOnDisk, named: str) -> StorageOnDisk:
    if not os.access(storage.path, os.R_OK | os.W_OK | os.X_OK):
        raise ComponentError(f"{named} cannot be written at {storage.path}", hint="Run this as root.")
    return storage


def _nested(found: dict[str, dict[str, str]]) -> Iterable[str]:
    for storage, chosen in found.items():
        for relative in chosen:
            above = relative
            while "/" in above:
                above = above.rpartition("/")[0]
                if above in chosen:
                    yield f"{storage}/{relative} (inside {above})"
                    break
