"""Events for the logging of Python: an observer for programs that have their logs there.

    Backup.create(instance, observer=log)

The logger is `gitlab_backup`. It is quiet until the program that uses this library gives it a handler.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from .events import ComponentFinished, ComponentProgressed, ComponentWarned, OperationFinished, Status, to_record

if TYPE_CHECKING:
    from .events import Event

LOGGER: Final = logging.getLogger("gitlab_backup")
LOGGER.addHandler(logging.NullHandler())


def level(event: Event) -> int:
    """Return how much an event matters: a level of `logging`. Progress is DEBUG."""
    match event:
        case ComponentProgressed():
            return logging.DEBUG
        case ComponentWarned() | ComponentFinished(status=Status.WARNING):
            return logging.WARNING
        case ComponentFinished(status=Status.FAILED):
            return logging.ERROR
        case OperationFinished() if event.error is not None:
            return logging.ERROR
        case _:
            return logging.INFO


def log(event: Event) -> None:
    """Log an event: its name and fields as the message, and as the attribute `event` of the log record.

    Control characters and what is not UTF-8 are escaped: not every handler would survive them.
    """
    number = level(event)
    if LOGGER.isEnabledFor(number):
        record = to_record(event)
        name = record.pop("event")
        fields = " ".join(f"{key}={value!r}" for key, value in record.items() if value is not None)
        LOGGER.log(number, "%s %s", name, fields, extra={"event": event})
