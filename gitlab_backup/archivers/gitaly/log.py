"""What gitaly-backup says: one JSON object a line, and now and then something else."""

from __future__ import annotations

import json
import threading
from collections import deque
from typing import TYPE_CHECKING, Final

from attrs import define, field, frozen

if TYPE_CHECKING:
    from collections.abc import Callable

    from ...streams.sink import Buffer

LONGEST: Final = 1 << 20
"""Bytes of the longest line that is understood. A longer one is passed over."""
_KEPT: Final = 10
"""How many of the last messages that are about no repository are kept."""
_SHOWN: Final = 500
"""Characters of a message that are kept."""

_STATES: Final = {
    f"{state} {command}" if not failed else f"{command} {state}": state
    for command in ("create", "restore")
    for state, failed in (("started", False), ("completed", False), ("skipped", False), ("failed", True))
}


@frozen
class Report:
    """What the log says of one repository."""

    storage: str
    relative_path: str
    state: str
    """`started`, `completed`, `skipped` or `failed`."""
    error: str = ""
    """Why it failed."""


class Log:
    """A sink for the log. Hands reports on, and keeps the end of all other messages. Memory is bounded."""

    def __init__(self, command: str, report: Callable[[Report], None], redact: Callable[[str], str]) -> None:
        self._command = command
        self._report = report
        self._redact = redact
        self._line = bytearray()
        self._too_long = False
        self._messages: deque[str] = deque(maxlen=_KEPT)

    @property
    def last_words(self) -> str:
        """The last messages that were about no repository, a line each."""
        return "\n".join(self._messages)

    def write(self, data: Buffer, /) -> None:
        """Take a piece of the log, wherever it was cut."""
        *complete, rest = bytes(data).split(b"\n")
        for piece in complete:
            self._append(piece)
            self._end()
        self._append(rest)

    def finish(self) -> None:
        """Take what is left as the last line."""
        self._end()

    def abort(self) -> None:
        """Nothing is left to do."""

    def _append(self, piece: bytes) -> None:
        if self._too_long:
            return
        self._line += piece
        if len(self._line) > LONGEST:
            self._too_long = True
            del self._line[_SHOWN:]

    def _end(self) -> None:
        line, too_long = bytes(self._line).strip(), self._too_long
        self._line.clear()
        self._too_long = False
        if not line:
            return
        entry = None
        if not too_long:
            try:
                entry = json.loads(line)
            except (ValueError, RecursionError):
                entry = None
        text = line[: 4 * _SHOWN].decode(errors="replace")
        if isinstance(entry, dict) and isinstance(entry.get("msg"), str):
            if self._about_a_repository(entry):
                return
            text = " ".join(filter(None, (entry["msg"], _text(entry, "error"))))
        self._messages.append(self._kept(text))

    def _about_a_repository(self, entry: dict[str, object]) -> bool:
        state = _STATES.get(str(entry["msg"]))
        # The key was renamed in 17.10.
        command = entry.get("command", entry.get("command.name"))
        storage, path = _text(entry, "storage_name"), _text(entry, "relative_path")
        if state is None or command != self._command or not storage or not path:
            return False
        self._report(Report(storage, path, state, self._kept(_text(entry, "error")) if state == "failed" else ""))
        return True

    def _kept(self, text: str) -> str:
        text = self._redact(text)
        return "".join(c if c.isprintable() or c in "\n\t" else "�" for c in text[:_SHOWN])


def _text(entry: dict[str, object], key: str) -> str:
    value = entry.get(key)
    return value if isinstance(value, str) else ""


@define
class Failures:
    """Repositories that failed: the first ones by name, with their cause, the others as a number."""

    MOST: Final = 1000

    named: list[str] = field(factory=list)
    count: int = 0
    _lock: threading.Lock = field(factory=threading.Lock)

    def add(self, what: str) -> None:
        """Note one."""
        with self._lock:
            self.count += 1
            if len(self.named) < self.MOST:
                self.named.append(what)

    def lines(self, most: int = MOST) -> list[str]:
        """Return at most `most` of them, sorted, and a last line for those that are not named."""
        shown = sorted(self.named)[:most]
        more = self.count - len(shown)
        return [*shown, f"… and {more} more"] if more else shown
