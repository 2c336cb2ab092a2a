"""The log of a run: every event as a line of text or of JSON, in a file, in syslog, in the journal, on the screen."""

from __future__ import annotations

import json
import logging
import math
import os
import socket
import time
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TextIO

from attrs import define, field

from gitlab_backup.errors import StreamError
from gitlab_backup.events import ComponentProgressed, OperationStarted, to_record
from gitlab_backup.logs import level

from .display.lines import line

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gitlab_backup.events import Event

PROGRAM = "gitlab-backup-cli"
SYSLOG = Path("/dev/log")
JOURNAL = Path("/run/systemd/journal/socket")
_PROGRESS_SECONDS = 1.0
"""Between two lines about the progress of one component, at the least."""
_USER = 1
"""The facility `user` of syslog; see syslog(3)."""
_PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3}


class LogFormat(StrEnum):
    """How a line of the log looks."""

    TEXT = "text"
    JSON = "json"


class LogTarget(StrEnum):
    """Where the log goes, besides a file."""

    SYSLOG = "syslog"
    JOURNAL = "journal"


class Sink(Protocol):
    """Takes lines of the log."""

    name: str
    """What messages call it."""

    def write(self, number: int, text: str, record: Mapping[str, object]) -> None:
        """Take a line, of a level of `logging`, and what it was made of. Raises `OSError`."""

    def close(self) -> None:
        """Let go of what is open."""


class FileSink:
    """Appends lines to a file, which is made with mode 0600. Raises `StreamError` where it cannot be opened."""

    def __init__(self, path: Path) -> None:
        self.name = f"the log file {path}"
        try:
            self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StreamError(
                f"{self.name} cannot be opened: {error.strerror}", hint="Check its directory, or choose another one."
            ) from error

    def write(self, number: int, text: str, record: Mapping[str, object]) -> None:  # noqa: ARG002
        """Append a line: by one write, so that the lines of two runs do not mix."""
        os.write(self._fd, text.encode(errors="backslashreplace") + b"\n")

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)


class StreamSink:
    """Writes lines to a standard stream."""

    name = "the log on the screen"

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, number: int, text: str, record: Mapping[str, object]) -> None:  # noqa: ARG002
        """Write a line at once."""
        self._stream.write(text + "\n")
        self._stream.flush()

    def close(self) -> None:
        """Do nothing: the stream is not ours."""


class _Datagrams:
    """Sends to a socket of this machine. Raises `StreamError` where nobody listens."""

    def __init__(self, name: str, address: Path) -> None:
        self.name = name
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        try:
            self._socket.connect(str(address))
        except OSError as error:
            self._socket.close()
            raise StreamError(
                f"{name} cannot be reached at {address}: {error.strerror}", hint="Use --log-file instead."
            ) from error

    def send(self, data: bytes) -> None:
        self._socket.send(data)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


class SyslogSink(_Datagrams):
    """Sends lines to syslog, as its facility `user`."""

    def __init__(self, address: Path = SYSLOG) -> None:
        super().__init__("syslog", address)

    def write(self, number: int, text: str, record: Mapping[str, object]) -> None:  # noqa: ARG002
        """Send a line."""
        header = f"<{_USER << 3 | _PRIORITIES[number]}>{PROGRAM}[{os.getpid()}]: "
        self.send((header + text).encode(errors="backslashreplace"))


class JournalSink(_Datagrams):
    """Sends lines to the journal of systemd, each with fields to search by, such as `GITLAB_BACKUP_EVENT`."""

    def __init__(self, address: Path = JOURNAL) -> None:
        super().__init__("the journal", address)

    def write(self, number: int, text: str, record: Mapping[str, object]) -> None:
        """Send an entry."""
        fields = {"MESSAGE": text, "PRIORITY": str(_PRIORITIES[number]), "SYSLOG_IDENTIFIER": PROGRAM}
        for key in ("run", "event", "component", "backup_id"):
            if key in record:
                fields[f"GITLAB_BACKUP_{key.upper()}"] = str(record[key])
        self.send(b"".join(_journal_field(name, value) for name, value in fields.items()))


def _journal_field(name: str, value: str) -> bytes:
    """Return a field as the journal takes it: with its length, so that any text may be in it.

    See "Native Journal Protocol", https://systemd.io/JOURNAL_NATIVE_PROTOCOL.
    """
    data = value.encode(errors="backslashreplace")
    return name.encode() + b"\n" + len(data).to_bytes(8, "little") + data + b"\n"


@define
class Log:
    """Writes what happens in one run to its sinks. One that fails is given up, and `lost` is told why."""

    run: str
    form: LogFormat
    lost: Callable[[str], None]
    sinks: list[Sink]
    _operation: str = ""
    _progressed: dict[str, float] = field(factory=dict)

    def event(self, event: Event) -> None:
        """Write an event of the library. Progress is told once a second, and only where lines are JSON."""
        if isinstance(event, OperationStarted):
            self._operation = event.operation
        if isinstance(event, ComponentProgressed) and not self._is_due(event.component):
            return
        text = line(event, self._operation)
        if text is not None or self.form is LogFormat.JSON:
            self.record(level(event), text or "", to_record(event))

    def record(self, number: int, text: str, fields: Mapping[str, object]) -> None:
        """Write a line of a level of `logging`: the text, or the fields, of which `event` is one."""
        if not self.sinks:
            return
        now = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%f}"[:-3] + "Z"
        word = logging.getLevelName(number).lower()
        record = {"time": now, "level": word, "pid": os.getpid(), "run": self.run, **fields}
        for sink in list(self.sinks):
            if sink not in self.sinks:
                continue  # given up while another one was
            try:
                sink.write(number, self._line(sink, record, text), record)
            except OSError as error:
                self.sinks.remove(sink)
                self.lost(f"{sink.name} cannot be written, and ends here: {error.strerror}")

    def close(self) -> None:
        """Close all sinks."""
        for sink in self.sinks:
            sink.close()

    def _line(self, sink: Sink, record: Mapping[str, object], text: str) -> str:
        if self.form is LogFormat.JSON:
            return json.dumps(record, ensure_ascii=True)
        # Syslog and the journal have time and level by themselves.
        return text if isinstance(sink, _Datagrams) else f"{record['time']} {record['level']} {text}"

    def _is_due(self, component: str) -> bool:
        now = time.monotonic()
        if self.form is not LogFormat.JSON or now - self._progressed.get(component, -math.inf) < _PROGRESS_SECONDS:
            return False
        self._progressed[component] = now
        return True
