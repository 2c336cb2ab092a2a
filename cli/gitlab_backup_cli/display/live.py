"""Events on a terminal: a line for each component that moves while it is worked on, and a table at the end."""

from __future__ import annotations

from typing import TYPE_CHECKING, TextIO

from rich.console import Console
from rich.progress import Progress, ProgressColumn, SpinnerColumn, Task, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Column, Table
from rich.text import Text

from gitlab_backup.events import (
    ComponentFinished,
    ComponentProgressed,
    ComponentStarted,
    ComponentWarned,
    OperationStarted,
    Status,
)

from ..text import duration, escape, plural, size
from .lines import VERIFY, deselected, line, status

if TYPE_CHECKING:
    from collections.abc import Callable

    from gitlab_backup.events import Event

_STYLES = {Status.COMPLETE: "green", Status.WARNING: "yellow", Status.SKIPPED: "dim", Status.FAILED: "bold red"}


_WIDE = 72
"""Columns of a screen that has room for all of the table."""


class _Amount(ProgressColumn):
    """Bytes read so far."""

    def render(self, task: Task) -> Text:
        return Text(size(task.completed), justify="right")


class _Rate(ProgressColumn):
    """Bytes read each second, of late."""

    max_refresh = 0.5

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{size(speed)}/s" if speed else "", justify="right")


class _State(ProgressColumn):
    """How a component has ended, or what there was to warn of so far."""

    def render(self, task: Task) -> Text:
        state: Status | None = task.fields["state"]
        if state is not None:
            return Text(status(state, task.fields["operation"]), style=_STYLES[state])
        warnings: int = task.fields["warnings"]
        return Text(plural(warnings, "warning") if warnings else "", style=_STYLES[Status.WARNING])


class LiveDisplay:
    """Shows events on a terminal. Colours follow `NO_COLOR`, as rich does."""

    def __init__(self, stream: TextIO) -> None:
        self._console = Console(file=stream, highlight=False, markup=False, emoji=False)
        unicode = (self._console.encoding or "").lower().startswith("utf")
        # On a narrow screen, how fast it goes matters less than that every component keeps to its line.
        wide = self._console.width >= _WIDE
        self._progress = Progress(
            SpinnerColumn("dots" if unicode else "line"),
            TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True)),
            _Amount(table_column=Column(no_wrap=True)),
            *((_Rate(), TimeElapsedColumn()) if wide else ()),
            _State(table_column=Column(no_wrap=True)),
            console=self._console,
            transient=True,
            # What others print stays theirs: standard output may be a document.
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._tasks: dict[str, TaskID] = {}
        self._finished: list[ComponentFinished] = []
        self._warnings: dict[str, int] = {}
        self._operation = ""

    def __call__(self, event: Event) -> None:
        """Show an event."""
        match event:
            case OperationStarted():
                self._operation = event.operation
                self._finished = [each for each in self._finished if each.component in event.components]
                self.say(line(event) or "")
                self._progress.start()
            case ComponentStarted():
                self._tasks[event.component] = self._progress.add_task(
                    escape(event.component), total=None, state=None, warnings=0, operation=self._operation
                )
            case ComponentProgressed():
                self._update(event.component, completed=max(event.bytes_read, event.bytes_written))
            case ComponentWarned():
                self._warnings[event.component] = self._warnings.get(event.component, 0) + 1
                self._update(event.component, warnings=self._warnings[event.component])
                self.say(line(event) or "")
            case ComponentFinished() if not deselected(event):
                self._finished.append(event)
                if event.reason and self._operation != VERIFY:
                    # A reason is a sentence, often with a path: too long for a table.
                    self.say(line(event, self._operation) or "")
                # With a total, rich takes the task for finished, and stops its clock.
                total = max(event.bytes_read, event.bytes_written, 1)
                self._update(event.component, completed=total, total=total, state=event.status)
            case _:
                if (text := line(event)) is not None:
                    self.say(text)

    def say(self, text: str) -> None:
        """Show a line above what moves. Long ones are not cut off."""
        self._console.print(Text(text), soft_wrap=True)

    def close(self) -> None:
        """Replace what moved by a table of what became of each component."""
        self._progress.stop()
        for task in self._tasks.values():
            self._progress.remove_task(task)
        self._tasks.clear()
        if self._finished:
            self._console.print(self._summary())
            self._finished.clear()

    def _update(self, component: str, **values: object) -> None:
        if component in self._tasks:
            self._progress.update(self._tasks[component], **values)  # type: ignore[arg-type]

    def _summary(self) -> Table:
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("component", no_wrap=True)
        table.add_column("status", overflow="fold")
        # On a narrow screen, what became of a component matters more than its numbers.
        wide = self._console.width >= _WIDE
        numbers: dict[str, Callable[[ComponentFinished], str]] = {
            "read": lambda event: size(event.bytes_read),
            "written": lambda event: size(event.bytes_written),
            "time": lambda event: duration(event.duration_seconds),
        }
        # A column of zeros says nothing: verification writes nothing.
        if not any(event.bytes_written for event in self._finished):
            del numbers["written"]
        if not any(event.bytes_read for event in self._finished):
            del numbers["read"]
        if not wide:
            numbers.clear()
        for name in numbers:
            table.add_column(name, justify="right", no_wrap=True)
        for event in self._finished:
            row = [Text(number(event)) for number in numbers.values() if event.status is not Status.SKIPPED]
            table.add_row(Text(escape(event.component)), self._outcome(event), *row)
        return table

    def _outcome(self, event: ComponentFinished) -> Text:
        warnings = self._warnings.get(event.component, 0)
        text = (
            plural(warnings, "warning")
            if event.status is Status.WARNING and warnings
            else status(event.status, self._operation)
        )
        return Text(text, style=_STYLES[event.status])
