"""One run of an operation, from the first word about it to the last: who is told, and with which status it ends."""

from __future__ import annotations

import logging
import os
import sys
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from attrs import define, field

from gitlab_backup.errors import ExitStatus, GitLabBackupError, ProgramError, RefusedError
from gitlab_backup.operations.progress import Progress

from . import metrics
from .boundary import document_of_failure, explain
from .display import display
from .display.progress import progress
from .hooks import Moment
from .metrics import Figures
from .notify import notify
from .output import complain, write, write_json
from .profile import Profiled
from .text import duration, escape

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from gitlab_backup.events import Event
    from gitlab_backup.store import BackupStore
    from gitlab_backup.streams.cancel import Cancellation

    from .display import Display
    from .documents import Document
    from .hooks import Hooks
    from .log import Log
    from .reporting import Reports
    from .session import Session

_LEVELS = {ExitStatus.COMPLETE: logging.INFO, ExitStatus.WARNINGS: logging.WARNING}


@define
class Run:
    """A run of `backup`, `restore`, `prune` or `verify`, while it goes on."""

    session: Session
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
    _hooks: Hooks | None = None
    _progress: Progress = field(init=False)
    _profiled: Profiled | None = None
    document: Mapping[str, Document] = field(factory=dict)
    """Of the result."""

    def __attrs_post_init__(self) -> None:
        screen = None if self.quiet else sys.stderr if self.json else sys.stdout
        self._log = self.reports.log(self.operation, screen, self.warn)
        self._figures = Figures(self.operation)
        self._progress = Progress(lambda record: notify(progress(self.operation, record)))

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
        self._progress(event)

    def say(self, text: str) -> None:
        """Log a line that is on the screen, and is not an event."""
        self._log.record(logging.INFO, text.strip(), {"event": "message", "message": text.strip()})

    def finish(self, status: ExitStatus, document: Mapping[str, Document]) -> None:
        """Say how it ended, and print the document of the result where one is wanted. Raises `OutputError`."""
        self.document = document if self._profiled is None else {**document, **self._profiled.document()}
        self.status = ExitStatus.WARNINGS if status is ExitStatus.COMPLETE and self._unreported else status
        if self.json:
            write_json(self.document)

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

    @contextmanager
    def measured(self) -> Iterator[None]:
        """Measure what is done in the block, where that is wanted."""
        if not self.reports.profile:
            yield
            return
        from gitlab_backup.streams.profile import profiling

        with profiling() as profile:
            self._profiled = Profiled(profile)
            yield

    def begun(self) -> None:
        """Tell that it begins. Raises what `Reports.hooks` raises: a hook that cannot be run later is told now."""
        self._log.record(logging.INFO, f"{self.operation}: started", {"event": "run_started"})
        self.session.signals.asked = self._answer
        if not self.dry_run:
            self._hooks = self.reports.hooks(self.operation)

    def _answer(self) -> None:
        # Not by way of `sys.stderr`: the signal may have come in the middle of a line to it.
        with suppress(OSError):
            os.write(2, progress(self.operation, self._progress.record()).encode(errors="backslashreplace") + b"\n")

    def before(self, document: Mapping[str, Document], cancel: Cancellation | None = None) -> None:
        """Run the hook that comes before. Raises `RefusedError` where it fails."""
        try:
            if cancel is not None:
                self._hook(Moment.BEFORE, document, cancel)
            else:
                with self.session.signals.starting() as starting:
                    self._hook(Moment.BEFORE, document, starting)
        except ProgramError as error:
            raise RefusedError(
                f"the hook says no: {error.message}", hint="Nothing was changed. What it says is the reason."
            ) from error

    def ended(self, error: BaseException | None, document: Mapping[str, Document], seconds: float) -> None:
        """Tell everybody how it ended: hooks, figures, and, as the last, the log."""
        failure = None if error is None else explain(error)
        status = self.status if failure is None else failure.exit_status
        if self._profiled is not None:
            complain(f"\n{self._profiled.text(seconds)}")
        moment = Moment.AFTER if status in _LEVELS else Moment.FAILED
        try:
            # Whatever has interrupted the run: from here on, signals are for the hook.
            self._hook(moment, {**document, "exit_status": int(status)}, self.session.signals.operation())
        except GitLabBackupError as problem:
            self.warn(f"a hook has failed: {explain(problem).message}")
        status = self.status if failure is None else failure.exit_status
        self._measure(int(status), seconds)
        # Writing figures may have failed, too.
        status = self.status if failure is None else failure.exit_status
        text = f"ended in {duration(seconds)}" if failure is None else f"failed: {failure.message}"
        fields = {
            "event": "run_finished",
            "exit_status": int(status),
            "duration_seconds": round(seconds, 3),
            "error": None if failure is None else failure.message,
            "hint": None if failure is None else failure.hint,
        }
        level = _LEVELS.get(ExitStatus(status), logging.ERROR)
        self._log.record(level, escape(f"{self.operation}: {text}"), fields)
        notify(escape(f"{self.operation}: {text}"))
        self._log.close()

    def _hook(self, moment: Moment, document: Mapping[str, Document], cancel: Cancellation) -> None:
        if self._hooks is None or not self._hooks.has(moment):
            return
        name, problem, started = self._hooks.name(moment), None, time.monotonic()
        try:
            self._hooks.run(moment, document, cancel)
        except GitLabBackupError as error:
            problem = error.message
            raise
        finally:
            seconds = time.monotonic() - started
            fields = {"event": "hook_finished", "hook": name, "duration_seconds": round(seconds, 3), "error": problem}
            text = f"hook {name}: {problem or 'done'}; {duration(seconds)}"
            self._log.record(logging.ERROR if problem else logging.INFO, escape(text), fields)

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
    session: Session,
    operation: str,
    reports: Reports,
    failed: Callable[[BaseException], Mapping[str, Document]] | None,
    *,
    json: bool,
    quiet: bool,
    dry_run: bool = False,
) -> Iterator[Run]:
    """Run the block as one run of an operation. `failed` makes the document of an error, if there is one."""
    started = time.monotonic()
    error: BaseException | None = None
    with document_of_failure(failed if json else None):
        run = Run(session, operation, reports, json, quiet, dry_run)
        try:
            with run.measured():
                run.begun()
                yield run
        except BaseException as problem:
            error = problem
            raise
        finally:
            document = failed(error) if failed is not None and error is not None else run.document
            run.ended(error, document, time.monotonic() - started)
