"""Retention on the command line: the options that say which backups stay, and what is told of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from attrs import asdict, frozen

from gitlab_backup.errors import ConfigurationError, UsageError
from gitlab_backup.retention import Rules, parse_span

from .boundary import explain
from .help import RETENTION
from .parameters import in_place_of
from .text import escape, plural, size

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from gitlab_backup.events import BackupDeleted
    from gitlab_backup.operations.prune import Candidate, Pruned

    from .documents import Document
    from .session import Session

LEFT = "What was deleted is gone. What was being deleted is hidden, and the next `prune` or `backup` removes it."

_COUNTS = {
    "keep_last": "Keep the newest N.",
    "keep_within": "Keep those that are not older than 36h, 14d, 8w.",
    "keep_daily": "Keep the newest of each day, for N days that have one.",
    "keep_weekly": "The newest of each week, from Monday; likewise.",
    "keep_monthly": "The newest of each month; likewise.",
    "keep_yearly": "The newest of each year; likewise.",
    "minimum": "Keep so many in any case. Default: 1.",
}
_RULES_HINT = (
    "Give one of --keep-last, --keep-within, --keep-daily, --keep-weekly, --keep-monthly and --keep-yearly, "
    "or set `backup.keep_time` in gitlab.yml."
)


@frozen(kw_only=True)
class RuleOptions:
    """The options as they were given."""

    keep_last: int | None
    keep_within: str | None
    keep_daily: int | None
    keep_weekly: int | None
    keep_monthly: int | None
    keep_yearly: int | None
    minimum: int | None

    @property
    def given(self) -> tuple[str, ...]:
        """The names of those that were given."""
        return tuple(f"--{name.replace('_', '-')}" for name, value in asdict(self).items() if value is not None)

    def rules(self, session: Session) -> Rules:
        """Return the rules of the options; without any, what `backup.keep_time` means.

        Raises `UsageError`, also where there is neither; `ConfigurationError` where the installation is not found.
        """
        values: dict[str, Any] = {name: value for name, value in asdict(self).items() if value is not None}
        if self.keep_within is not None:
            values["keep_within"] = parse_span(self.keep_within)
        rules = Rules(**values)
        if rules.given:
            return rules
        try:
            keep_time = session.instance().keep_time
        except ConfigurationError as error:
            error.hint = f"{error.hint or ''} Without an installation: {_RULES_HINT}".strip()
            raise
        if keep_time is None:
            raise UsageError("nothing says which backups are to be kept", hint=_RULES_HINT)
        return Rules.of_keep_time(keep_time, minimum=rules.minimum)


def _annotation(name: str) -> object:
    if name == "keep_within":
        span = typer.Option(metavar="SPAN", help=_COUNTS[name], show_default=False, rich_help_panel=RETENTION)
        return Annotated[str | None, span]
    number = typer.Option(metavar="N", help=_COUNTS[name], show_default=False, rich_help_panel=RETENTION)
    return Annotated[int | None, number]


taking_rules = in_place_of("rules", RuleOptions, {name: _annotation(name) for name in _COUNTS})
"""Gives a command the options of retention, in place of its one parameter `rules`."""


def document(done: Pruned) -> dict[str, Document]:
    """Return what was done, or would be, as docs/cli.md describes it."""
    return {
        "backup_path": str(done.path),
        "status": "planned" if done.dry_run else "complete",
        "rules": _rules(done.rules),
        "kept": [_candidate(each) for each in done.kept],
        "deleted": [
            {"name": each.name, "path": str(each.path), "size_bytes": each.size_bytes} for each in done.deleted
        ],
        "left_alone": [
            {"name": each.name, "path": str(each.path), "kind": each.kind.value, "reason": each.reason}
            for each in done.left_alone
        ],
        "remains": list(done.remains),
        "legacy": {"files": done.legacy_files, "size_bytes": done.legacy_bytes},
    }


def failed(path: Path | None, deleted: Iterable[BackupDeleted], error: BaseException) -> dict[str, Document]:
    """Return what had been deleted when an error ended it."""
    failure = explain(error)
    return {
        "backup_path": None if path is None else str(path),
        "status": "failed",
        "rules": None,
        "kept": [],
        "deleted": [
            {"name": each.backup_id, "path": str(each.path), "size_bytes": each.size_bytes} for each in deleted
        ],
        "left_alone": [],
        "remains": [],
        "legacy": None,
        "error": {"message": failure.message, "hint": failure.hint, "exit_status": int(failure.exit_status)},
    }


def lines(done: Pruned, *, legacy: bool) -> Iterator[str]:
    """Return what was done, or would be, as lines; what was deleted has been told as it was."""
    if done.dry_run:
        yield from (f"would remove {name}, which an interrupted run has left" for name in done.remains)
        yield from (f"would delete {each.name}: {size(each.size_bytes)}" for each in done.deleted)
    yield from (f"kept {each.name}: {', '.join(map(str, each.reasons))}" for each in done.kept)
    for each in done.left_alone:
        yield f"left alone {escape(each.name)}: {each.kind.value}: {escape(each.reason)}"
    if done.legacy_files and not legacy:
        files = plural(done.legacy_files, "backup")
        yield f"left alone {files} of the Rake task ({size(done.legacy_bytes)}): --legacy prunes them, too"
    if done.rules is not None:
        freed = f" ({size(sum(each.size_bytes for each in done.deleted))})" if done.deleted else ""
        deleted = f"{plural(len(done.deleted), 'backup')} {'to delete' if done.dry_run else 'deleted'}{freed}"
        yield f"{deleted}, {len(done.kept)} kept"


def _rules(rules: Rules | None) -> dict[str, Document] | None:
    if rules is None:
        return None
    within = rules.keep_within
    return {
        "keep_last": rules.keep_last,
        "keep_within_seconds": None if within is None else within.days * 86_400 + within.seconds,
        "keep_daily": rules.keep_daily,
        "keep_weekly": rules.keep_weekly,
        "keep_monthly": rules.keep_monthly,
        "keep_yearly": rules.keep_yearly,
        "minimum": rules.minimum,
    }


def _candidate(each: Candidate) -> dict[str, Document]:
    return {
        "name": each.name,
        "path": str(each.path),
        "reasons": [{"rule": reason.rule.value, "period": reason.period} for reason in each.reasons],
    }
