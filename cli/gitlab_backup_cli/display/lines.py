"""Events as lines of text, for every display. Whatever comes from outside is escaped here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gitlab_backup.events import BackupDeleted, ComponentFinished, ComponentWarned, Noticed, OperationStarted, Status
from gitlab_backup.operations.plan import NOT_SELECTED

from ..text import duration, escape, plural, size

if TYPE_CHECKING:
    from gitlab_backup.events import Event


VERIFY = "verify"


def line(event: Event, operation: str = "") -> str | None:
    """Return the line that says an event of an operation; None where it says nothing that lasts."""
    match event:
        case OperationStarted():
            return f"{event.operation} {escape(event.backup_id)}: {plural(len(event.components), 'component')}"
        case ComponentWarned():
            return f"{event.component}: warning: {escape(event.message)}"
        case ComponentFinished():
            return finished(event, operation)
        case BackupDeleted():
            return f"deleted {escape(event.backup_id)}: {size(event.size_bytes)}"
        case Noticed():
            return escape(event.message)
        case _:
            return None


def deselected(event: Event) -> bool:
    """Return whether an event is about a component that its user did not want."""
    return isinstance(event, ComponentFinished) and event.reason == NOT_SELECTED


def finished(event: ComponentFinished, operation: str = "") -> str | None:
    """Return the line of a component that has ended."""
    if deselected(event):
        return None
    # What is damaged is listed at the end of a verification, file by file.
    reason = f": {escape(event.reason)}" if event.reason and operation != VERIFY else ""
    if event.status is Status.SKIPPED:
        return f"{event.component}: skipped{reason}"
    word = status(event.status, operation)
    return f"{event.component}: {word}{reason}; {amounts(event)}, {duration(event.duration_seconds)}"


def status(value: Status, operation: str = "") -> str:
    """Return a status in words. What was verified is not complete, but intact."""
    if operation == VERIFY:
        return "damaged" if value is Status.FAILED else "intact"
    return "complete, with warnings" if value is Status.WARNING else value.value


def amounts(event: ComponentFinished) -> str:
    """Return how much was read and written. Verification writes nothing, a restore need not count what it reads."""
    numbers = (event.bytes_read, "read"), (event.bytes_written, "written")
    return ", ".join(f"{size(count)} {verb}" for count, verb in numbers if count) or "0 B read"
