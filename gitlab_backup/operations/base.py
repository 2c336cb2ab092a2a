"""Which backup the repositories of a new one are increments on."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from attrs import evolve

from ..checksums import FILE_NAME as CHECKSUMS_NAME
from ..checksums import Checksums
from ..errors import DocumentError, RefusedError, StoreError
from ..events import Status
from ..instance.selection import Selection
from ..manifest import FILE_NAME as MANIFEST_NAME
from ..manifest import FILTER, Manifest

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from ..archivers.base import RepositoryOptions
    from ..manifest import ComponentRecord
    from ..store import BackupStore
    from .plan import PlannedComponent

_REPOSITORIES = "repositories"


def on_base(
    store: BackupStore, options: RepositoryOptions, planned: Iterable[PlannedComponent]
) -> list[PlannedComponent]:
    """Return a plan that names the base, as `with_base` would choose it now. Raises what that raises."""
    planned = list(planned)
    base = with_base(store, options, planned)[0].base
    name = base.name if base is not None else None
    return [evolve(item, base=name if item.component.id == _REPOSITORIES else None) for item in planned]


def with_base(
    store: BackupStore, options: RepositoryOptions, planned: Iterable[PlannedComponent]
) -> tuple[RepositoryOptions, str | None]:
    """Return options with the base that is asked for, else the newest one that can serve; and a line that tells of it.

    There the base is None where there is none, so that the backup is a full one. To be called under the lock of
    `store`. Raises `RefusedError` where what is asked for cannot serve, with the reason.
    """
    archivers = [item.archiver.name for item in planned if item.component.id == _REPOSITORIES and item.left_out is None]
    if not options.incremental or not archivers:
        return options, None
    (archiver,) = archivers
    if options.base is not None:
        if reason := _problem(options.base, archiver):
            raise RefusedError(
                f"{options.base} cannot be the base of an increment: {reason}",
                hint="Choose another one, or leave --base out: then it is the newest one that can.",
            )
        return options, _told(options.base)
    for backup_id in reversed(store.ids()):
        directory = store.path / backup_id
        # One that is short of repositories would do, too, but what it lacks would be backed up in full.
        if not _problem(directory, archiver, options.selection):
            return evolve(options, base=directory), _told(directory)
    return options, (
        f"repositories are backed up in full: no backup in {store.path} has repositories that were made by the archiver"
        f" {archiver}, and can be built on"
    )


def _told(base: Path) -> str:
    return f"repositories are backed up as increments on {base.name}"


class _UnfitError(Exception):
    """Why a backup cannot be built on."""


def _problem(directory: Path, archiver: str, wanted: Selection | None = None) -> str | None:
    """Return why a backup cannot be built on. With `wanted`, it must have all repositories, or be of that selection."""
    try:
        _check_record(_manifest(directory).component(_REPOSITORIES), archiver, wanted)
    except _UnfitError as error:
        return str(error)
    except (DocumentError, StoreError) as error:
        return f"it is damaged: {error.message}"
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    return None


def _manifest(directory: Path) -> Manifest:
    manifest = Manifest.read(directory)
    if manifest is None:
        raise _UnfitError(f"it has no {MANIFEST_NAME}, so another tool has made it")
    checksums = Checksums.read(directory)
    if checksums is None:
        raise _UnfitError(f"it is damaged: it has no {CHECKSUMS_NAME}")
    if checksums.get(MANIFEST_NAME) != hashlib.sha256((directory / MANIFEST_NAME).read_bytes()).hexdigest():
        raise _UnfitError(f"it is damaged: its {MANIFEST_NAME} is not what {CHECKSUMS_NAME} says")
    return manifest


def _check_record(record: ComponentRecord | None, archiver: str, wanted: Selection | None) -> None:
    if record is None or record.status not in {Status.COMPLETE, Status.WARNING}:
        raise _UnfitError("it has no repositories")
    if record.archiver != archiver:
        raise _UnfitError(f"its repositories were made by the archiver {record.archiver}, not {archiver}")
    if record.details.get("server_side"):
        raise _UnfitError("its repositories are in the object storage of Gitaly")
    if wanted is not None and Selection.from_record(record.details.get(FILTER)) not in {Selection(), wanted}:
        raise _UnfitError("it has only some of the repositories")
