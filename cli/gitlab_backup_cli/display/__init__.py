"""Where events become pixels: a live display on a terminal, plain lines elsewhere, nothing with `--quiet`."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, TextIO

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gitlab_backup.events import Event


class Display(Protocol):
    """An observer of events that shows them."""

    def __call__(self, event: Event) -> None:
        """Show an event."""

    def say(self, text: str) -> None:
        """Show a line that is not an event. It must be escaped already."""

    def close(self) -> None:
        """Show the end, and take down what moves."""


class Nothing:
    """Shows nothing."""

    def __call__(self, event: Event) -> None:
        """Ignore an event."""

    def say(self, text: str) -> None:
        """Ignore a line."""

    def close(self) -> None:
        """Do nothing."""


class Forgiving:
    """Passes on to a display until it cannot show any more: that its reader has gone away must not end a backup."""

    def __init__(self, display: Display) -> None:
        self._display = display

    def __call__(self, event: Event) -> None:
        """Show an event, if possible."""
        try:
            self._display(event)
        except OSError:
            self._display = Nothing()

    def say(self, text: str) -> None:
        """Show a line, if possible."""
        try:
            self._display.say(text)
        except OSError:
            self._display = Nothing()

    def close(self) -> None:
        """Show the end, if possible."""
        try:
            self._display.close()
        except OSError:
            self._display = Nothing()


@contextmanager
def display(*, quiet: bool, document: bool) -> Iterator[Display]:
    """Show events while the block runs: on standard output, or on standard error where that has a document."""
    shown = Forgiving(_display(quiet=quiet, stream=sys.stderr if document else sys.stdout))
    try:
        yield shown
    finally:
        shown.close()


def _display(*, quiet: bool, stream: TextIO) -> Display:
    if quiet:
        return Nothing()
    if stream.isatty() and os.environ.get("TERM", "") not in {"", "dumb", "unknown"}:
        from .live import LiveDisplay

        return LiveDisplay(stream)
    from .plain import PlainDisplay

    return PlainDisplay(stream)
