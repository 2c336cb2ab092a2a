"""One run of gitaly-backup: repositories go in as they are asked for, what became of each comes out."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Final

from attrs import define, field, frozen

from ...errors import ComponentError
from ...streams.process import run
from .log import Log, Report

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ...streams.cancel import Cancellation
    from ...streams.process import Completed, Program
    from .program import GitalyBackup

_MOST_OPEN: Final = 100_000
"""How many repositories may be without an answer. The program reads ahead what its workers and a pipe hold: less."""
_STATUSES: Final = range(-64, 256)
"""All that a program can end with: what its status means is decided here."""


@frozen(kw_only=True)
class Request:
    """One repository that the program is asked to work on."""

    storage: str
    relative_path: str
    project_path: str
    """For the program's log only."""
    always_create: bool
    """Whether a restore makes it where the backup has none. Without effect from 17.6 on."""

    def __str__(self) -> str:
        """Return how messages name it."""
        place = f"{self.storage}/{self.relative_path}"
        return f"{self.project_path} ({place})" if self.project_path else place

    def line(self) -> bytes:
        """Return it as the program reads it: these keys, and no others."""
        values = {
            "storage_name": self.storage,
            "relative_path": self.relative_path,
            "gl_project_path": self.project_path,
            "always_create": self.always_create,
        }
        return json.dumps(values).encode() + b"\n"


@define
class Exchange:
    """Asks for repositories, and finds out what became of each. What it holds is what is under way, no more."""

    command: str
    """`create` or `restore`."""
    requests: Iterator[Request]
    """Taken in a thread, as the program reads."""
    answered: Callable[[Request, Report], None]
    """Takes what became of a repository that was asked for: `started`, then once one of the other states."""
    _open: dict[tuple[str, str], Request] = field(factory=dict)
    _failed: int = 0
    _all_sent: bool = False
    _lock: threading.Lock = field(factory=threading.Lock)

    def run(self, gitaly: GitalyBackup, program: Program, cancel: Cancellation) -> None:
        """Run the program. At the end every request has been answered: with a failure where nothing was said of it.

        Raises `ComponentError` where the run as a whole failed; what the requests and `answered` raise;
        `CancelledError`.
        """
        log = Log(self.command, self._take, gitaly.redacted)
        done = run(program, stdin=self._lines(), stdout=log, cancel=cancel, accept=_STATUSES)
        log.finish()
        last_words = log.last_words + gitaly.redacted(f"\n{done.stderr}" if done.stderr.strip() else "")
        if problem := self._problem(done):
            words = f": {last_words.strip()}" if last_words.strip() else ""
            raise ComponentError(
                f"{program.name} {self.command} {problem}{words}",
                hint="Check that Gitaly runs (gitlab-ctl status gitaly), and what it says (gitlab-ctl tail gitaly).",
            )
        for request in list(self._open.values()):
            self._take(
                Report(
                    request.storage, request.relative_path, "failed", f"{program.name} did not say what became of it"
                )
            )

    def _problem(self, done: Completed) -> str | None:
        """Return what is wrong with the run as a whole."""
        if done.returncode < 0:
            return f"was killed by signal {-done.returncode}"
        # It has no other status than 0 and 1.
        if done.returncode > 1 or (done.returncode and not self._failed):
            return f"failed with status {done.returncode}, and not because of any one repository"
        if not self._all_sent:
            return f"ended with status {done.returncode} before it had read which repositories there are"
        return None

    def _lines(self) -> Iterator[bytes]:
        for request in self.requests:
            key = (request.storage, request.relative_path)
            with self._lock:
                known = key in self._open
                if not known:
                    self._open[key] = request
                many = len(self._open) > _MOST_OPEN
            if known:
                self.answered(request, Report(*key, "failed", "the database names this place a second time"))
                continue
            if many:
                raise ComponentError(f"gitaly-backup says nothing of {_MOST_OPEN} repositories that it has read")
            yield request.line()
        self._all_sent = True

    def _take(self, report: Report) -> None:
        key = (report.storage, report.relative_path)
        with self._lock:
            # What was not asked for, or was answered already, is nothing that we know how to treat.
            request = self._open.get(key) if report.state == "started" else self._open.pop(key, None)
            if request is None:
                return
            self._failed += report.state == "failed"
        self.answered(request, report)
