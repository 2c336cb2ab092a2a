"""How much of the machine and of time a run takes: options, and what they do.

A priority is that of the main thread, and every thread and program that it starts later has it, too. So it is taken
before anything is begun. A server that runs already, such as PostgreSQL or Gitaly, works for us with its own.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Annotated, Final

import typer
from attrs import frozen

from gitlab_backup.errors import ProgramError, UsageError
from gitlab_backup.sizes import parse_size

from .parameters import in_place_of

if TYPE_CHECKING:
    from .session import Session

_IONICE: Final = re.compile(r"(idle)|best-effort(?::([0-7]))?")
_IDLE, _BEST_EFFORT = "3", "2"
"""The classes of ionice(1)."""
_MIDDLE: Final = "4"
_NICEST: Final = 19
_PANEL: Final = "How much of the machine"


@frozen(kw_only=True)
class Priority:
    """The options as they were given."""

    nice: int | None
    ionice: str | None
    rate_limit: str | None
    max_silence: str | None

    def take(self, session: Session) -> int | None:
        """Give this process, and all that it starts from now on, the priority; return the limit in bytes a second.

        The session learns how long programs may be silent.

        Raises `UsageError` for what does not exist, or what this user may not have; `ProgramError`; `Stopped`.
        """
        from gitlab_backup.operations.run import checked_rate

        limit = checked_rate(None if self.rate_limit is None else parse_size(self.rate_limit.removesuffix("/s")))
        if self.max_silence is not None:
            session.max_silence = _seconds(self.max_silence)
        if self.nice is not None:
            _take_nice(self.nice)
        if self.ionice is not None:
            _take_ionice(self.ionice, session)
        return limit


def _seconds(text: str) -> float | None:
    from gitlab_backup.retention import parse_span

    return None if text.strip().lower() in {"0", "none"} else parse_span(text).total_seconds() or None


def _take_nice(nice: int) -> None:
    now = os.getpriority(os.PRIO_PROCESS, 0)
    try:
        os.setpriority(os.PRIO_PROCESS, 0, nice)
    except OSError as error:
        raise UsageError(
            f"--nice {nice} is not allowed to this user ({error.strerror}): nice is {now}, and only root may lower it",
            hint=f"Give a number from {now} on, or leave it out.",
        ) from error


def _take_ionice(text: str, session: Session) -> None:
    from gitlab_backup.instance.programs import find, search_path
    from gitlab_backup.streams.process import Program, run

    match = _IONICE.fullmatch(text)
    if match is None:
        raise UsageError(
            f"--ionice cannot be {text!r}", hint="It is idle or best-effort, with :0 (first) to :7 (last) behind it."
        )
    wanted = ("-c", _IDLE) if match[1] else ("-c", _BEST_EFFORT, "-n", match[2] or _MIDDLE)
    # The program knows the numbers of the system call on each machine, which Python does not.
    path = search_path("source", os.environ)
    program = Program((find("ionice", path), *wanted, "-p", str(os.getpid())), {"PATH": path, "LC_ALL": "C"})
    with session.signals.starting() as cancel:
        try:
            run(program, cancel=cancel)
        except ProgramError as error:
            raise ProgramError(
                f"--ionice {text}: {error.message}", hint="Leave it out: some containers do not allow it."
            ) from error


prioritised = in_place_of(
    "priority",
    Priority,
    {
        "nice": Annotated[
            int | None,
            typer.Option(
                metavar="N",
                min=-20,
                max=_NICEST,
                help="Let others have the processor first, as nice does.",
                show_default=False,
                rich_help_panel=_PANEL,
            ),
        ],
        "ionice": Annotated[
            str | None,
            typer.Option(
                metavar="idle|best-effort[:0-7]",
                help="Let others have the disks first, as ionice does.",
                show_default=False,
                rich_help_panel=_PANEL,
            ),
        ],
        "rate_limit": Annotated[
            str | None,
            typer.Option(
                metavar="SIZE",
                help="Read no more than so much in a second: 50M, 1G. Default: no limit.",
                show_default=False,
                rich_help_panel=_PANEL,
            ),
        ],
        "max_silence": Annotated[
            str | None,
            typer.Option(
                metavar="SPAN",
                help="End a program that has been silent for so long: 36h, 2d; none: never. Default: 12h.",
                show_default=False,
                rich_help_panel=_PANEL,
            ),
        ],
    },
)
"""Gives a command the options in place of its one parameter `priority`."""
