"""What a check of an installation has found."""

from __future__ import annotations

from enum import StrEnum

from attrs import frozen


class Level(StrEnum):
    """How bad a finding is. The values are those of `check --json`, in this order."""

    OK = "ok"
    WARNING = "warning"
    """The next backup is expected to succeed, but something should be looked at."""
    PROBLEM = "problem"
    """The next backup would fail, or there is none to rely on."""


@frozen(kw_only=True)
class Finding:
    """One thing that was looked at."""

    level: Level
    about: str
    """What was looked at: `pg_dump`, `database main`, `storage default`, …"""
    message: str
    """What was found, and what it means."""
    to_do: str | None = None
    """What to do about it; of what is ok, a piece of advice."""
    check: str = ""
    """The check that has found it, see `CHECKS` of `operations.check`."""


def ok(about: str, message: str, advice: str | None = None) -> Finding:
    """Return a finding that all is well."""
    return Finding(level=Level.OK, about=about, message=message, to_do=advice)


def warning(about: str, message: str, to_do: str | None) -> Finding:
    """Return a finding that should be looked at."""
    return Finding(level=Level.WARNING, about=about, message=message, to_do=to_do)


def problem(about: str, message: str, to_do: str | None) -> Finding:
    """Return a finding that backups cannot be relied on."""
    return Finding(level=Level.PROBLEM, about=about, message=message, to_do=to_do)
