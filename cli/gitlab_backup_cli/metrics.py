"""The figures of the last runs, for Prometheus: a file for the textfile collector of node_exporter.

One file serves all operations: each run replaces what is said of its own, and keeps the rest.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from typing import TYPE_CHECKING, Final

from attrs import define, field, frozen

from gitlab_backup.errors import ExitStatus
from gitlab_backup.events import ComponentFinished, ComponentWarned, OperationStarted, Status
from gitlab_backup.streams.files import write_durably

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from gitlab_backup.events import Event
    from gitlab_backup.store import BackupStore

_HELP: Final = {
    "last_run_timestamp_seconds": "When the last run ended.",
    "last_success_timestamp_seconds": "When the last run ended that was complete, with or without warnings.",
    "last_run_duration_seconds": "How long the last run took.",
    "last_run_exit_status": "The exit status of the last run: 0 complete, 3 complete with warnings, else failed.",
    "last_run_warnings": "How many warnings the last run had.",
    "component_read_bytes": "Bytes of a component that the last run read.",
    "component_written_bytes": "Bytes of a component that the last run wrote.",
    "component_duration_seconds": "How long the last run worked on a component.",
    "component_warnings": "How many warnings the last run had about a component.",
    "component_failed": "Whether a component failed in the last run (1) or not (0).",
    "backups": "How many backups there are, by what their documents say of them.",
    "backups_size_bytes": "The sum of the sizes of all backups.",
    "newest_backup_timestamp_seconds": "When the newest complete backup of everything was made.",
    "newest_backup_size_bytes": "The size of that backup.",
}
_PREFIX: Final = "gitlab_backup_"
_LINE: Final = re.compile(r'gitlab_backup_(\w+)(?:\{(\w+="[^"\\\n]*"(?:,\w+="[^"\\\n]*")*)\})? (\S+)')
_MODE: Final = 0o644
"""Nothing in it is secret, and node_exporter is another user."""
_LARGEST: Final = 1 << 20
"""Bytes of a file of ours; another one is not read."""


@frozen
class Sample:
    """A figure: its name without the prefix, its labels, its value."""

    name: str
    labels: Mapping[str, str]
    value: float


@define
class Figures:
    """Gathers the figures of one run: an observer of its events."""

    operation: str
    finished: dict[str, ComponentFinished] = field(factory=dict)
    warnings: Counter[str] = field(factory=Counter)
    _current: str = ""

    def __call__(self, event: Event) -> None:
        """Take in an event."""
        match event:
            case OperationStarted():
                # A restore verifies first, and tells of the same components.
                self._current = event.operation
            case ComponentWarned():
                self.warnings[event.component] += 1
            case ComponentFinished() if event.status is not Status.SKIPPED and self._current == self.operation:
                self.finished[event.component] = event

    def samples(self, status: int, seconds: float) -> Iterator[Sample]:
        """Return what is to be said of a run that has just ended with an exit status."""
        now, own = time.time(), {"operation": self.operation}
        yield Sample("last_run_timestamp_seconds", own, now)
        if status in {ExitStatus.COMPLETE, ExitStatus.WARNINGS}:
            yield Sample("last_success_timestamp_seconds", own, now)
        yield Sample("last_run_duration_seconds", own, seconds)
        yield Sample("last_run_exit_status", own, status)
        yield Sample("last_run_warnings", own, self.warnings.total())
        for component, event in self.finished.items():
            labels = {**own, "component": component}
            yield Sample("component_read_bytes", labels, event.bytes_read)
            yield Sample("component_written_bytes", labels, event.bytes_written)
            yield Sample("component_duration_seconds", labels, event.duration_seconds)
            yield Sample("component_warnings", labels, self.warnings[component])
            yield Sample("component_failed", labels, event.status is Status.FAILED)


def of_store(store: BackupStore) -> Iterator[Sample]:
    """Return the figures of a backup path. Raises `StoreError`."""
    from gitlab_backup import Backup
    from gitlab_backup.backup import BackupState

    backups = Backup.all(store)
    states = Counter(backup.state for backup in backups)
    for state in BackupState:
        yield Sample("backups", {"status": state.value}, states[state])
    yield Sample("backups_size_bytes", {}, sum(backup.size_bytes for backup in backups))
    whole = {BackupState.COMPLETE, BackupState.COMPLETE_WITH_WARNINGS}
    for newest in [backup for backup in backups if backup.state in whole and not backup.partial][-1:]:
        yield Sample("newest_backup_timestamp_seconds", {}, newest.metadata.created_at.timestamp())
        yield Sample("newest_backup_size_bytes", {}, newest.size_bytes)


def write(path: Path, operation: str, new: list[Sample]) -> None:
    """Write the file, with what it said before of other operations, and of what `new` says nothing of.

    The whole file is there at any time, the old one or the new. Raises `StreamError`.
    """
    told = {sample.name for sample in new}
    kept = [sample for sample in _read(path) if _stays(sample, operation, told)]
    lines = []
    for name, text in _HELP.items():
        samples = [sample for sample in (*kept, *new) if sample.name == name]
        if samples:
            lines += [f"# HELP {_PREFIX}{name} {text}", f"# TYPE {_PREFIX}{name} gauge", *map(_line, samples)]
    write_durably(path, "".join(f"{line}\n" for line in lines).encode(), mode=_MODE)


def _stays(sample: Sample, operation: str, told: set[str]) -> bool:
    mine = sample.labels.get("operation", operation) == operation
    return not mine or (sample.name not in told and not sample.name.startswith("component_"))


def _read(path: Path) -> Iterator[Sample]:
    """Return what a file of ours says; what cannot be understood is left out."""
    try:
        if not path.is_file():  # to open a pipe would take for ever
            return
        with path.open("rb") as file:
            text = file.read(_LARGEST + 1).decode()
    except (OSError, ValueError):
        return
    for line in text.splitlines() if len(text) <= _LARGEST else ():
        match = _LINE.fullmatch(line)
        if match is None or match[1] not in _HELP:
            continue
        labels = dict(part.split("=", 1) for part in (match[2] or "").split(",") if part)
        try:
            yield Sample(match[1], {key: value.strip('"') for key, value in labels.items()}, float(match[3]))
        except ValueError:
            continue


def _line(sample: Sample) -> str:
    labels = ",".join(f'{key}="{value}"' for key, value in sample.labels.items())
    value = float(sample.value)
    number = repr(int(value)) if value.is_integer() else repr(value)
    return f"{_PREFIX}{sample.name}{'{' + labels + '}' if labels else ''} {number}"
