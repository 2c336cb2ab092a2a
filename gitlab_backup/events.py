"""What happens during an operation, told to whoever wants to know.

The library never prints. It hands each `Event` to an observer, one at a time, possibly from different threads.
An observer must be quick, and must not raise: what it raises ends the operation.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Final, TypeAlias

from attrs import asdict, frozen


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

NAMES: Final[dict[type[Event], str]] = {
    OperationStarted: "operation_started",
    OperationFinished: "operation_finished",
    ComponentStarted: "component_started",
    ComponentProgressed: "component_progressed",
    ComponentWarned: "component_warned",
    ComponentFinished: "component_finished",
    Noticed: "noticed",
    BackupDeleted: "backup_deleted",
}
"""What each event is called in logs. Names and keys stay; others may be added."""


def to_record(event: Event) -> dict[str, object]:
    """Return an event as plain data for JSON: its name as `event`, and its fields. Paths are text."""
    return {"event": NAMES[type(event)], **asdict(event, value_serializer=_plain)}


def _plain(_event: object, _field: object, value: object) -> object:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, StrEnum):
        return value.value
    return list(value) if isinstance(value, tuple) else value


def ignore(event: Event) -> None:
    """Observe nothing."""
