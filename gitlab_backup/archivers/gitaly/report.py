"""The report of a restore under way: a line for each repository that was touched, on disk before the next is."""

from __future__ import annotations

import json
import os
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from attrs import define, field

from ...streams.files import failure
from ...streams.system import system
from .log import Failures

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .exchange import Request


@define
class ReportFile:
    """Takes what becomes of repositories: lines of JSON, `[state, repository, cause]`."""

    _fd: int
    _path: Path
    _lock: threading.Lock = field(factory=threading.Lock)

    @classmethod
    @contextmanager
    def create(cls, path: Path) -> Iterator[ReportFile]:
        """Begin a new report in place of an earlier one. Raises `StreamError`."""
        try:
            fd = system().open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise failure(path, "cannot be written", error) from error
        try:
            yield cls(fd, path)
        finally:
            os.close(fd)

    def add(self, state: str, request: Request, error: str) -> None:
        """Add a line. Raises `StreamError`."""
        line = json.dumps([state, f"{request.storage}/{request.relative_path}", error]).encode() + b"\n"
        try:
            with self._lock:
                system().write(self._fd, line)
        except OSError as problem:
            raise failure(self._path, "cannot be written", problem) from problem


@define
class Summary:
    """What a report says."""

    restored: int = 0
    begun: set[str] = field(factory=set)
    """Repositories that were begun, and of which nothing else was said."""
    failed: Failures = field(factory=Failures)

    @property
    def touched(self) -> bool:
        """Whether any repository may have been changed."""
        return bool(self.restored or self.begun or self.failed.count)

    @classmethod
    def read(cls, path: Path) -> Summary:
        """Read a report, perhaps one that a crash has cut: lines that are none are passed over."""
        summary = cls()
        with path.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                try:
                    state, name, error = json.loads(line)
                except (ValueError, TypeError, RecursionError):
                    continue
                if not isinstance(name, str):
                    continue
                if state == "started":
                    summary.begun.add(name)
                    continue
                summary.begun.discard(name)
                summary.restored += state == "completed"
                if state == "failed":
                    summary.failed.add(f"{name}: {error}")
        return summary
