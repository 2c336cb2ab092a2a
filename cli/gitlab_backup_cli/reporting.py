"""Who is told of a run besides the one who looks at the screen: the options that say so."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from attrs import frozen

from .help import REPORTS
from .hooks import Hooks
from .log import FileSink, JournalSink, Log, LogFormat, LogTarget, StreamSink, SyslogSink
from .parameters import in_place_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TextIO

    from .log import Sink

HOOK_SECONDS = 600.0
"""Seconds that a hook has."""


@frozen(kw_only=True)
class Reports:
    """The options as they were given."""

    log_format: LogFormat | None
    log_file: Path | None
    log_to: LogTarget | None
    profile: bool
    metrics_file: Path | None = None
    hook_directory: Path | None = None
    hook_timeout: float | None = None

    @property
    def on_screen(self) -> bool:
        """Whether the log takes the place of what the screen shows."""
        return self.log_format is LogFormat.JSON and self.log_file is None and self.log_to is None

    def hooks(self, operation: str) -> Hooks | None:
        """Return the hooks of an operation, checked; None where there are to be none.

        Raises `RefusedError` and `UsageError`.
        """
        if self.hook_directory is None:
            return None
        hooks = Hooks(self.hook_directory.absolute(), operation, self.hook_timeout or HOOK_SECONDS)
        hooks.check()
        return hooks

    def log(self, run: str, screen: TextIO | None, lost: Callable[[str], None]) -> Log:
        """Open the log of a run. `screen` is where lines for the screen go; None where it shows nothing.

        Raises `StreamError`.
        """
        sinks: list[Sink] = []
        if self.log_file is not None:
            sinks.append(FileSink(self.log_file))
        if self.log_to is not None:
            sinks.append(SyslogSink() if self.log_to is LogTarget.SYSLOG else JournalSink())
        if self.on_screen and screen is not None:
            sinks.append(StreamSink(screen))
        return Log(run, self.log_format or LogFormat.TEXT, lost, sinks)


_LOG = {
    "log_format": Annotated[
        LogFormat | None,
        typer.Option(
            help="How lines of the log look. Without --log-file and --log-to, json is for the screen. Default: text.",
            show_default=False,
            rich_help_panel=REPORTS,
        ),
    ],
    "log_file": Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Append what happens to a file.", show_default=False, rich_help_panel=REPORTS
        ),
    ],
    "log_to": Annotated[
        LogTarget | None,
        typer.Option(help="Send what happens to syslog or the journal.", show_default=False, rich_help_panel=REPORTS),
    ],
    "profile": Annotated[
        bool,
        typer.Option(
            "--profile",
            help="Say at the end how long each stage took, and what limits the run.",
            rich_help_panel=REPORTS,
        ),
    ],
}
_OTHERS = {
    "metrics_file": Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write figures of the run for Prometheus to a file.",
            show_default=False,
            rich_help_panel=REPORTS,
        ),
    ],
    "hook_directory": Annotated[
        Path | None,
        typer.Option(
            metavar="DIRECTORY",
            help="Run the executables in this directory that are named backup-before, restore-failed and so on.",
            show_default=False,
            rich_help_panel=REPORTS,
        ),
    ],
    "hook_timeout": Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            min=1,
            help=f"How long each of them may take. Default: {HOOK_SECONDS:g}.",
            show_default=False,
            rich_help_panel=REPORTS,
        ),
    ],
}

logging = in_place_of("reports", Reports, _LOG)
"""Gives a command the options about its log, in place of its one parameter `reports`."""
reporting = in_place_of("reports", Reports, _LOG | _OTHERS)
"""Gives a command all options of `Reports`, likewise."""
