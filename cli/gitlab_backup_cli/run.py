"""One run of an operation, from the first word about it to the last: who is told, and with which status it ends."""

from __future__ import annotations

import logging
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from attrs import define, field

from gitlab_backup.errors import ExitStatus, GitLabBackupError

from . import metrics
from .boundary import document_of_failure, explain
from .display import display
from .metrics import Figures
from .output import complain, write, write_json
from .text import duration, escape

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from gitlab_backup.events import Event
    from gitlab_backup.store import BackupStore

    from .display import Display
    from .documents import Document
    from .log import Log
    from .reporting import Reports

_LEVELS = {ExitStatus.COMPLETE: logging.INFO, ExitStatus.WARNINGS: logging.WARNING}


@define
class Run:
    """A run of `backup`, `restore` or `prune`, while it goes on."""

    operation: str
    reports: Reports
    json: bool
    quiet: bool
    dry_run: bool
    store: BackupStore | None = None
    """The backup path, once it is known."""
    status: ExitStatus = ExitStatus.COMPLETE
    _unreported: bool = False
    """Whether somebody was not told who should have been."""
    _log: Log = field(init=False)
    _figures: Figures = field(init=False)

    def __attrs_post_init__(self) -> None:
        screen = None if self.quiet else sys.stderr if self.json else sys.stdout
        self._log = self.reports.log(self.operation, screen, self.warn)
        self._figures = Figures(self.operation)

    @contextmanager
    def display(self) -> Iterator[Display]:
        """Show events while the block runs, and tell all others who want to know."""
        hidden = self.quiet or self.reports.on_screen
        with display(quiet=hidden, document=self.json) as shown:
            yield _Everybody(self, shown)

    def tell(self, event: Event) -> None:
        """Tell an event to all but the screen."""
        self._log.event(event)
        self._figures(event)

    def say(self, text: str) -> None:
        """Log a line that is on the screen, and is not an event."""
        self._log.record(logging.INFO, text.strip(), {"event": "message", "message": text.strip()})

    def finish(self, status: ExitStatus, document: Mapping[str, Document]) -> None:
        """Say how it ended, and print the document of the result where one is wanted. Raises `OutputError`."""
        self.status = ExitStatus.WARNINGS if status is ExitStatus.COMPLETE and self._unreported else status
        if self.json:
            write_json(document)

    def write(self, text: str) -> None:
        """Print a result for people, which is a line of the log where that is on the screen. Raises `OutputError`."""
        if self.reports.on_screen:
            self.say(text)
        else:
            write(text)

    def warn(self, message: str) -> None:
        """Tell that a report could not be made. The run goes on, and is complete with warnings at the best."""
        complain(f"warning: {escape(message)}\n")
        self._unreported = True
        self.status = ExitStatus.WARNINGS if self.status is ExitStatus.COMPLETE else self.status
        self._log.record(logging.WARNING, message, {"event": "report_failed", "message": message})

    def begun(self) -> None:
        """Tell that it begins."""
        self._log.record(logging.INFO, f"{self.operation}: started", {"event": "run_started"})

    def ended(self, error: BaseException | None, seconds: float) -> None:
        """Tell how it ended."""
        failure = None if error is None else explain(error)
        self._measure(int(self.status) if failure is None else failure.exit_status, seconds)
        if failure is None:
            text, status = f"{self.operation}: ended in {duration(seconds)}", int(self.status)
        else:
            text, status = f"{self.operation}: failed: {failure.message}", failure.exit_status
        fields = {
            "event": "run_finished",
            "exit_status": status,
            "duration_seconds": round(seconds, 3),
            "error": None if failure is None else failure.message,
            "hint": None if failure is None else failure.hint,
        }
        self._log.record(_LEVELS.get(ExitStatus(status), logging.ERROR), escape(text), fields)
        self._log.close()

    def _measure(self, status: int, seconds: float) -> None:
        if self.reports.metrics_file is None or self.dry_run:
            return
        samples = list(self._figures.samples(status, seconds))
        try:
            samples += () if self.store is None else metrics.of_store(self.store)
        except (GitLabBackupError, OSError) as error:
            self.warn(f"the backups could not be counted for {self.reports.metrics_file}: {error}")
        try:
            metrics.write(self.reports.metrics_file, self.operation, samples)
        except GitLabBackupError as error:
            self.warn(f"the figures of this run are not told: {error.message}")


class _Everybody:
    """Tells the screen and all others."""

    def __init__(self, run: Run, shown: Display) -> None:
        self._run = run
        self._shown = shown

    def __call__(self, event: Event) -> None:
        self._run.tell(event)
        self._shown(event)

    def say(self, text: str) -> None:
        self._run.say(text)
        self._shown.say(text)

    def close(self) -> None:
        self._shown.close()


@contextmanager
def running(
    operation: str,
    reports: Reports,
    failed: Callable[[BaseException], Mapping[str, Document]],
    *,
    json: bool,
    quiet: bool,
    dry_run: bool,
) -> Iterator[Run]:
    """Run the block as one run of an operation; `failed` makes the document of an error that ends it."""
    started = time.monotonic()
    error: BaseException | None = None
    with document_of_failure(failed if json else None):
        run = Run(operation, reports, json, quiet, dry_run)
        run.begun()
        try:
            yield run
        except BaseException as problem:
            error = problem
            raise
        finally:
            run.ended(error, time.monotonic() - started)
