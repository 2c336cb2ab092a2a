"""What happens during an operation, told to whoever wants to know.

The library never prints. It hands each `Event` to an observer, one at a time, possibly from different threads.
An observer must be quick, and must not raise: what it raises ends the operation.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING, TypeAlias

from attrs import frozen

if TYPE_CHECKING:
    from pathlib import Path


class Status(StrEnum):
    """How a component fared. The values are those of the manifest and of `--json`."""

    COMPLETE = "complete"
    WARNING = "warning"
    SKIPPED = "skipped"
    FAILED = "failed"


@frozen
class Event:
    """Something worth telling."""


@frozen
class OperationStarted(Event):
    """An operation (`backup`, `verify`, `restore`) has begun to work on a backup, with these components."""

    operation: str
    backup_id: str
    path: Path
    components: tuple[str, ...]


@frozen
class ComponentStarted(Event):
    """Work on a component has begun."""

    component: str
    archiver: str


@frozen
class ComponentProgressed(Event):
    """How far a component is, in bytes since its start: read from its source, written to its target."""

    component: str
    bytes_read: int
    bytes_written: int


@frozen
class ComponentWarned(Event):
    """Something of a component was left out, or changed while it was read."""

    component: str
    message: str


@frozen
class ComponentFinished(Event):
    """A component is done. `reason` says why it was skipped or has failed."""

    component: str
    status: Status
    bytes_read: int
    bytes_written: int
    duration_seconds: float
    reason: str | None = None


@frozen
class Noticed(Event):
    """Something about the run as a whole that its user wants to know."""

    message: str


@frozen
class BackupDeleted(Event):
    """A backup has been deleted; `size_bytes` is the sum of the sizes that its files had."""

    backup_id: str
    path: Path
    size_bytes: int


@frozen
class OperationFinished(Event):
    """An operation has ended, one way or the other; `error` is None where it succeeded."""

    operation: str
    backup_id: str
    error: str | None = None


Observer: TypeAlias = Callable[[Event], None]


def ignore(event: Event) -> None:
    """Observe nothing."""
