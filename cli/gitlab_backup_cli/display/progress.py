"""How far a run is, as one line, from the record that `gitlab_backup.operations.progress` keeps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gitlab_backup.operations.progress import RUNNING

from ..text import duration, escape, size

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gitlab_backup.archivers.base import JSON


def progress(operation: str, record: Mapping[str, JSON], left: float | None = None) -> str:
    """Return what runs, what it has moved, how fast, and, where it is known, how many seconds are left.

    A record is not trusted: another version of this program may have written it.
    """
    parts = [f"{operation} {escape(str(record['backup_id']))}" if record.get("backup_id") else operation]
    if running := active(record):
        step = record.get("step")
        parts.append(f"{step} " * (step != operation) + ", ".join(map(escape, running)))
    seconds = number(record, "elapsed_seconds")
    amounts = []
    for key, verb in (("bytes_read", "read"), ("bytes_written", "written")):
        if count := number(record, key):
            rate = f" ({size(count / seconds)}/s)" if seconds else ""
            amounts.append(f"{size(count)} {verb}{rate}")
    text = ": ".join(parts) + "; " + ", ".join([*amounts, duration(seconds)])
    return text + (f"; about {duration(left)} left" if left is not None else "")


def active(record: Mapping[str, JSON]) -> list[str]:
    """Return the components that are worked on."""
    components = record.get("components")
    pairs = components.items() if isinstance(components, dict) else ()
    return [name for name, each in pairs if isinstance(each, dict) and each.get("status") == RUNNING]


def number(record: Mapping[str, JSON], key: str) -> float:
    """Return a number of a record; 0 where there is none."""
    value = record.get(key)
    return value if isinstance(value, (int, float)) else 0
