"""Events on a screen and in a log."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from gitlab_backup_cli.display import Forgiving
from gitlab_backup_cli.display.live import LiveDisplay
from gitlab_backup_cli.display.plain import PlainDisplay

from gitlab_backup.events import (
    ComponentFinished,
    ComponentProgressed,
    ComponentStarted,
    ComponentWarned,
    Event,
    Noticed,
    OperationFinished,
    OperationStarted,
    Status,
)
from gitlab_backup.operations.plan import NOT_SELECTED

if TYPE_CHECKING:
    from gitlab_backup_cli.display import Display

BACKUP_ID = "1714053314_2024_04_25_17.0.0-pre"
EVENTS: tuple[Event, ...] = (
    Noticed("removed .x.partial, which an interrupted run has left"),
    OperationStarted("backup", BACKUP_ID, Path("/backups") / BACKUP_ID, ("db", "uploads", "pages")),
    ComponentFinished("lfs", Status.SKIPPED, 0, 0, 0.0, NOT_SELECTED),
    ComponentFinished("registry", Status.SKIPPED, 0, 0, 0.0, "is disabled"),
    ComponentStarted("db", "database"),
    ComponentStarted("uploads", "files"),
    ComponentProgressed("db", 1024, 100),
    ComponentWarned("uploads", "bad\x1b[2Jname\udcff changed\nwhile it was read"),
    ComponentProgressed("uploads", 2048, 200),
    ComponentFinished("db", Status.COMPLETE, 3 * 1024**2, 1024**2, 12.4),
    ComponentFinished("uploads", Status.WARNING, 4096, 300, 0.25),
    ComponentStarted("pages", "files"),
    ComponentFinished("pages", Status.FAILED, 0, 0, 0.1, "/pages cannot be read"),
    OperationFinished("backup", BACKUP_ID, "pages: /pages cannot be read"),
)


def show(display: Display) -> None:
    """Show the recorded events."""
    for event in EVENTS:
        display(event)
    display.close()


def test_plain_lines() -> None:
    """A log has a line for each thing that lasts, and for each component as it ends; not for what was not asked for."""
    stream = io.StringIO()
    show(PlainDisplay(stream))
    expected = [
        "removed .x.partial, which an interrupted run has left",
        f"backup {BACKUP_ID}: 3 components",
        "registry: skipped: is disabled",
        r"uploads: warning: bad\x1b[2Jname\udcff changed\nwhile it was read",
        "db: complete; 3.0 MiB read, 1.0 MiB written, 12 s",
        "uploads: complete, with warnings; 4.0 KiB read, 300 B written, 0.2 s",
        "pages: failed: /pages cannot be read; 0 B read, 0.1 s",
    ]
    assert expected == stream.getvalue().splitlines()


@pytest.mark.parametrize("columns", ["20", "80", "300"])
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_live_display_ends_with_a_table(monkeypatch: pytest.MonkeyPatch, columns: str, encoding: str) -> None:
    """On a terminal of any width and encoding, the table at the end has every component that was asked for."""
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding, errors="backslashreplace", write_through=True)
    show(LiveDisplay(stream))
    text = raw.getvalue().decode(encoding)
    table = text[text.rindex("component") :]
    assert [line.split()[0] for line in table.splitlines() if line[:1].isalpha()][1:] == [
        "registry",
        "db",
        "uploads",
        "pages",
    ]
    assert "\x1b[2J" not in text
    assert NOT_SELECTED not in text


def test_live_display_without_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    """With `NO_COLOR` there is no colour, on a terminal that could show them."""
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    stream = io.StringIO()
    show(LiveDisplay(stream))
    assert "\x1b[3" not in stream.getvalue()
    assert "1 warning" in stream.getvalue()


def test_a_reader_that_has_gone_away_ends_nothing() -> None:
    """Where a display can no longer write, the events go on: a backup must not end because nobody watches it."""

    class Closed(io.StringIO):
        def write(self, _text: str, /) -> int:
            raise BrokenPipeError(32, "Broken pipe")

    show(Forgiving(PlainDisplay(Closed())))
