"""Events as plain lines, for logs, mails and pipes: one for each component as it ends."""

from __future__ import annotations

from typing import TYPE_CHECKING, TextIO

from gitlab_backup.events import OperationStarted

from .lines import line

if TYPE_CHECKING:
    from gitlab_backup.events import Event


class PlainDisplay:
    """Writes lines to a stream, each at once."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._operation = ""

    def __call__(self, event: Event) -> None:
        """Write the line of an event, if it has one."""
        if isinstance(event, OperationStarted):
            self._operation = event.operation
        if (text := line(event, self._operation)) is not None:
            self.say(text)

    def say(self, text: str) -> None:
        """Write a line."""
        self._stream.write(text + "\n")
        self._stream.flush()

    def close(self) -> None:
        """Do nothing: every line is out already."""
