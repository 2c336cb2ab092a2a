"""How far a run is, for those who ask from outside: another process, by the lock of the backup path."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final

from attrs import define, field

from ..errors import DocumentError
from ..events import (
    BackupDeleted,
    ComponentFinished,
    ComponentProgressed,
    ComponentStarted,
    ComponentWarned,
    OperationStarted,
)
from ..manifest import Manifest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..archivers.base import JSON
    from ..events import Event
    from ..store import BackupStore

INTERVAL: Final = 1.0
"""Seconds between two accounts, at the least."""
WAITING: Final = "waiting"
RUNNING: Final = "running"


@define
class Progress:
    """Keeps the account of a run: an observer of its events, which publishes a record once a second at the most.

    `record` may be called from any thread, and by a signal handler.
    """

    publish: Callable[[Mapping[str, JSON]], None] = lambda _record: None
    _operation: str | None = None
    _backup_id: str | None = None
    _components: dict[str, dict[str, JSON]] = field(factory=dict)
    _began: float = field(factory=time.monotonic)
    _deleted: int = 0
    _warnings: int = 0
    _published: float = float("-inf")
    _lock: threading.RLock = field(factory=threading.RLock)

    def __call__(self, event: Event) -> None:
        """Take in an event, and publish what there is, if it is time."""
        with self._lock:
            self._take(event)
        now = time.monotonic()
        if now - self._published >= INTERVAL or isinstance(event, OperationStarted):
            self._published = now
            self.publish(self.record())

    def record(self) -> dict[str, JSON]:
        """Return the account as plain data, as docs/cli.md describes it for `status`."""
        with self._lock:
            return {
                "step": self._operation,
                "backup_id": self._backup_id,
                "elapsed_seconds": round(time.monotonic() - self._began, 3),
                "bytes_read": self._sum("bytes_read"),
                "bytes_written": self._sum("bytes_written"),
                "warnings": self._warnings,
                "deleted": self._deleted,
                "components": {name: dict(each) for name, each in self._components.items()},
            }

    def _take(self, event: Event) -> None:
        match event:
            case OperationStarted():
                self._operation, self._backup_id, self._began = event.operation, event.backup_id, time.monotonic()
                self._components = {name: _account(WAITING) for name in event.components}
            case ComponentStarted():
                self._components[event.component] = _account(RUNNING)
            case ComponentProgressed():
                self._components[event.component] = _account(RUNNING, event.bytes_read, event.bytes_written)
            case ComponentFinished() if event.component in self._components:
                account = _account(event.status.value, event.bytes_read, event.bytes_written)
                self._components[event.component] = account
            case ComponentWarned():
                self._warnings += 1
            case BackupDeleted():
                self._deleted += 1

    def _sum(self, key: str) -> int:
        return sum(number for each in self._components.values() if isinstance(number := each[key], int))


def seconds_left(store: BackupStore, record: Mapping[str, JSON]) -> float | None:
    """Return how long a backup may still take, at its own rate, if it is as large as the last; None where none tells.

    `record` is of `Progress`.
    """
    expected = _expected(store)
    components, read, elapsed = (record.get(key) for key in ("components", "bytes_read", "elapsed_seconds"))
    if record.get("step") != "backup" or not isinstance(components, dict) or not components.keys() <= expected.keys():
        return None
    if not isinstance(read, int) or not isinstance(elapsed, (int, float)) or read <= 0 or elapsed < INTERVAL:
        return None
    left = 0
    for name, each in components.items():
        done = each.get("bytes_read") if isinstance(each, dict) else None
        if isinstance(each, dict) and each.get("status") in {WAITING, RUNNING} and isinstance(done, int):
            left += max(expected[name] - done, 0)
    return left * elapsed / read


def _expected(store: BackupStore) -> dict[str, int]:
    """Return the bytes that each component had when it was last backed up."""
    expected: dict[str, int] = {}
    for backup_id in store.ids():
        try:
            manifest = Manifest.read(store.path / backup_id)
        except DocumentError:
            continue
        for component in manifest.components if manifest is not None else ():
            if component.bytes_read:
                expected[component.id] = component.bytes_read
    return expected


def _account(status: str, read: int = 0, written: int = 0) -> dict[str, JSON]:
    return {"status": status, "bytes_read": read, "bytes_written": written}
