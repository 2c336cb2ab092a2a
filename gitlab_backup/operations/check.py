"""Check an installation and its backups, so that what keeps them from being made or restored is known before.

Changes nothing, takes no lock, and disturbs nobody: it can run at any time, also beside a backup.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Final

from attrs import evolve, frozen

from ..errors import CancelledError, GitLabBackupError
from ..store import BackupStore
from ..streams.cancel import Cancellation
from . import check_instance, check_store
from .check_store import Limits, Place
from .findings import Finding, Level, problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import timedelta
    from pathlib import Path

    from ..instance import Instance

__all__ = ["CHECKS", "Finding", "Health", "Level", "Limits", "check"]

_OF_INSTANCE: Final = {
    "configuration": check_instance.configuration,
    "programs": check_instance.programs,
    "databases": check_instance.databases,
    "storages": check_instance.storages,
    "directories": check_instance.directories,
}
_OF_STORE: Final = {
    "backup_path": check_store.backup_path,
    "space": check_store.space,
    "clock": check_store.clock,
    "backups": check_store.backups,
    "secrets": check_store.secrets,
    "missing": check_store.missing,
    "leftovers": check_store.leftovers,
}
CHECKS: Final = (*_OF_INSTANCE, *_OF_STORE)
"""The names of all checks, in their order."""

_TO_DO: Final = "Run this as root, or repair what the message names."


@frozen(kw_only=True)
class Health:
    """What all checks have found. Where a number is None, there is nothing to measure."""

    findings: tuple[Finding, ...]
    backup_path: Path | None
    newest: str | None = None
    """The id of the newest complete backup."""
    age: timedelta | None = None
    """How long ago that was begun."""
    size_bytes: int | None = None
    """The sum of the sizes of its files, as its manifest says."""
    free_bytes: int | None = None
    """What is free in the backup path."""

    @property
    def level(self) -> Level:
        """That of the worst finding."""
        return max((each.level for each in self.findings), key=list(Level).index, default=Level.OK)

    def of_level(self, level: Level) -> tuple[Finding, ...]:
        """Return the findings of a level."""
        return tuple(each for each in self.findings if each.level is level)


def check(
    installation: Instance | GitLabBackupError,
    limits: Limits | None = None,
    *,
    store: BackupStore | None = None,
    now: datetime | None = None,
    cancel: Cancellation | None = None,
) -> Health:
    """Run all checks of an installation, or, where that is an error which says why there is none, of `store` alone.

    `store` is the backup path where it is not that of the instance; `now` is for tests. Every check that cannot be
    made is a finding. Raises `CancelledError`.
    """
    cancel = cancel or Cancellation()
    instance: Instance | None = None
    found: list[Finding] = []
    if isinstance(installation, GitLabBackupError):
        found.append(evolve(problem("configuration", installation.message, installation.hint), check="configuration"))
    else:
        instance = installation
        for name, of_instance in _OF_INSTANCE.items():
            cancel.check()
            found += _made(name, partial(of_instance, instance, cancel))
        store = store or BackupStore(instance.backup_path)
    if store is None:
        return Health(findings=tuple(found), backup_path=None)
    place = Place(store=store, instance=instance, limits=limits or Limits(), now=now or datetime.now(UTC))
    for name, of_store in _OF_STORE.items():
        cancel.check()
        found += _made(name, partial(of_store, place))
    return _measured(place, _without_repetitions(found))


def _made(name: str, make: Callable[[], Iterator[Finding]]) -> list[Finding]:
    """Return the findings of one check. What ends it is the last of them."""
    found: list[Finding] = []
    try:
        found.extend(evolve(each, check=name) for each in make())
    except CancelledError:
        raise
    except GitLabBackupError as error:
        found.append(evolve(problem(name, error.message, error.hint or _TO_DO), check=name))
    except Exception as error:  # noqa: BLE001 - whatever it is: that something could not be checked is to be known
        said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        named = getattr(error, "filename", None) or type(error).__name__
        message = f"this could not be checked to its end: {named}: {said}"
        found.append(evolve(problem(name, message, _TO_DO), check=name))
    return found


def _without_repetitions(findings: list[Finding]) -> tuple[Finding, ...]:
    """Leave out what has ended a check as it has ended one before: a backup path that cannot be read ends many."""
    ended: dict[str, Finding] = {}
    return tuple(each for each in findings if each.about != each.check or ended.setdefault(each.message, each) is each)


def _measured(place: Place, findings: tuple[Finding, ...]) -> Health:
    newest = age = size = free = None
    try:
        free = place.free
        if place.newest is not None:
            newest, size = place.newest.backup_id, place.newest.size
            age = place.now - newest.created_at
    except (GitLabBackupError, OSError):  # the checks have told
        pass
    return Health(
        findings=findings,
        backup_path=place.store.path,
        newest=None if newest is None else str(newest),
        age=age,
        size_bytes=size,
        free_bytes=free,
    )
