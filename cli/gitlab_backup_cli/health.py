"""What `check` has found, as lines, as a document, and as the one line of a Nagios plugin."""

from __future__ import annotations

import sys
from enum import IntEnum
from typing import TYPE_CHECKING

from gitlab_backup.operations.check import Level

from .boundary import explain
from .output import columns
from .text import escape, plural, wrap

if TYPE_CHECKING:
    from datetime import timedelta

    from gitlab_backup.operations.check import Finding, Health, Limits

    from .documents import Document

_INDENT = 9
_ADVICE = {Level.OK: "advice: ", Level.WARNING: "to do: ", Level.PROBLEM: "to do: "}


class PluginStatus(IntEnum):
    """The exit statuses of plugins. Monitoring Plugins Development Guidelines, "Plugin Return Codes"."""

    OK = 0
    WARNING = 1
    CRITICAL = 2
    UNKNOWN = 3


_OF_LEVEL = {
    Level.OK: PluginStatus.OK,
    Level.WARNING: PluginStatus.WARNING,
    Level.PROBLEM: PluginStatus.CRITICAL,
}


def lines(health: Health) -> str:
    """Return a line for each finding, with what to do below it, and the sum."""
    width = columns(sys.stdout)
    text = "".join(_lines(each, width) for each in health.findings)
    return f"{text}{_sum(health) or 'no problem was found'}\n"


def document(health: Health) -> dict[str, Document]:
    """Return what was found, as docs/cli.md describes it."""
    return {
        "status": health.level.value,
        "backup_path": None if health.backup_path is None else str(health.backup_path),
        "newest": health.newest,
        "age_seconds": None if health.age is None else _seconds(health.age),
        "size_bytes": health.size_bytes,
        "free_bytes": health.free_bytes,
        "findings": [
            {
                "check": each.check,
                "level": each.level.value,
                "about": each.about,
                "message": each.message,
                "to_do": each.to_do,
            }
            for each in health.findings
        ],
    }


def failed(error: BaseException) -> dict[str, Document]:
    """Return that nothing could be checked."""
    failure = explain(error)
    return {
        "status": "failed",
        **dict.fromkeys(("backup_path", "newest", "age_seconds", "size_bytes", "free_bytes")),
        "findings": [],
        "error": {"message": failure.message, "hint": failure.hint, "exit_status": int(failure.exit_status)},
    }


def plugin(health: Health, limits: Limits) -> tuple[str, int]:
    """Return the line of a plugin, with performance data, and its exit status."""
    status = _OF_LEVEL[health.level]
    worst = [*health.of_level(Level.PROBLEM), *health.of_level(Level.WARNING)]
    if worst:
        text = f"{_sum(health)}: " + "; ".join(f"{each.about}: {each.message}" for each in worst)
    else:
        # Where there is nothing to complain of, there is a backup.
        text = next(each.message for each in health.findings if each.check == "backups")
    return f"{status.name} - {_one_line(text)} | {_performance(health, limits)}", status


def unknown(message: str) -> tuple[str, int]:
    """Return the line of a plugin that could not do its work, and its exit status."""
    return f"{PluginStatus.UNKNOWN.name} - {_one_line(message)}", PluginStatus.UNKNOWN


def _lines(finding: Finding, width: int | None) -> str:
    head = escape(f"{finding.about}: {finding.message}", lines=True)
    text = wrap(head, width, indent=_INDENT, first=finding.level.value.ljust(_INDENT))
    if finding.to_do is not None:
        text += wrap(_ADVICE[finding.level] + escape(finding.to_do, lines=True), width, indent=_INDENT)
    return text


def _sum(health: Health) -> str:
    counts = {
        "problem": len(health.of_level(Level.PROBLEM)),
        "warning": len(health.of_level(Level.WARNING)),
    }
    return ", ".join(plural(count, name) for name, count in counts.items() if count)


def _one_line(text: str) -> str:
    # What follows the bar is performance data.
    return escape(" ".join(text.split())).replace("|", "/")


def _performance(health: Health, limits: Limits) -> str:
    """Return `label=value;warning;critical`. A range `N:` is one of values that are not below N (same, "Threshold")."""
    values = [
        ("age", health.age and _seconds(health.age), "s", f";;{_seconds(limits.max_age)}"),
        ("size", health.size_bytes, "B", "" if limits.min_size is None else f";;{limits.min_size}:"),
        ("free", health.free_bytes, "B", ""),
        ("problems", len(health.of_level(Level.PROBLEM)), "", ""),
        ("warnings", len(health.of_level(Level.WARNING)), "", ""),
    ]
    return " ".join(f"{label}={value}{unit}{limit}" for label, value, unit, limit in values if value is not None)


def _seconds(span: timedelta) -> int:
    return span.days * 86_400 + span.seconds
