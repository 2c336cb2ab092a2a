"""The report on all backups of a backup path."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gitlab_backup.operations.prune import Kind
from gitlab_backup.operations.report import Fate, base

from ..text import duration, plural, size, time
from . import charts
from .chart import NOTHING, Series
from .rendering import Badge, Tile, Told, render

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import timedelta

    from gitlab_backup.operations.report import BackupFigures, LegacyFigures, Report
    from gitlab_backup.retention import Rules

    from .chart import Chart

_MOST_TOLD: Final = 20
"""Of so many backups the warnings are shown, the newest ones."""
_MOST_TEXTS: Final = 30
_MOST_LEFT_OUT: Final = 100
_KINDS: Final = {Kind.INCOMPLETE: "bad", Kind.PARTIAL: "warn", Kind.UNVERIFIED: "warn"}


def page(report: Report, *, why_no_rules: str | None) -> str:
    """Return the page; `why_no_rules` says why there are no rules, where there are none."""
    found = [each for each in report.backups if each.manifest is not None]
    series = Series.of(found)
    drawn: list[Chart] = [charts.sizes(report)] if report.backups else []
    if any(each.done for each in found):
        drawn += [charts.components(found, series), charts.durations(found, series), charts.compression(found, series)]
    kept = charts.retention(report) if report.rules is not None and report.backups else None
    noisy = [each for each in reversed(report.backups) if each.warnings]
    return render(
        "overview.html",
        report.made_at,
        title="GitLab backups",
        lead=f"In {report.path}, as of {time(report.made_at)} UTC",
        tiles=list(_tiles(report)),
        notices=list(_notices(report)),
        charts=[*drawn, *([kept] if kept else [])],
        retention_chart=kept,
        rules=_rules(report.rules)
        if report.rules is not None
        else f"No rules to judge by: {why_no_rules}. The options of prune, such as --keep-daily, give some.",
        told=[told(each, time(each.created_at), each.warnings, _MOST_TEXTS) for each in noisy[:_MOST_TOLD]],
        left_out=list(_left_out(report.backups)),
        told_more=plural(len(noisy) - _MOST_TOLD, "backup") if len(noisy) > _MOST_TOLD else "",
        strangers=list(_strangers(report)),
        legacy=[
            (each.name, time(each.created_at), size(each.size_bytes), _of_legacy(each, report.rules))
            for each in reversed(report.legacy)
        ],
        backups=[_row(each) for each in reversed(report.backups)],
    )


def told(backup: BackupFigures, name: str, texts: Sequence[tuple[str | None, str]], most: int) -> Told:
    """Return what there is to tell of a backup, as far as it is not too much."""
    return Told(
        head=f"{name}: {plural(len(backup.warnings), 'warning')}",
        texts=tuple(texts[:most]),
        more=max(len(texts) - most, 0),
        where=f"{backup.id}/manifest.json",
    )


def _left_out(backups: Sequence[BackupFigures]) -> Iterator[tuple[str, str, str, str]]:
    """Return what was left out, each reason once: how often, and when for the last time."""
    found: dict[tuple[str, str], list[BackupFigures]] = {}
    for backup in backups:
        for record in backup.left_out:
            found.setdefault((record.id, f"{record.status.value}: {record.reason or 'nothing says why'}"), []).append(
                backup
            )
    newest_first = sorted(found.items(), key=lambda item: item[1][-1].created_at, reverse=True)
    for (component, why), those in newest_first[:_MOST_LEFT_OUT]:
        yield component, why, str(len(those)), time(those[-1].created_at)


def badges(backup: BackupFigures) -> list[Badge]:
    """Return the state of a backup in words."""
    if backup.kind is not None:
        state = Badge(backup.kind.value, _KINDS.get(backup.kind, ""))
    else:
        state = Badge("complete, with warnings", "warn") if backup.warnings else Badge("complete", "good")
    increment = any(base(each) for each in backup.done)
    return [state, *([Badge("increment")] if increment else []), *([Badge("pinned")] if backup.pinned else [])]


def verdict(backup: BackupFigures) -> str:
    """Return what `prune` would do with a backup, and by which rules."""
    return _verdict(backup.fate, backup.reasons)


def _verdict(fate: Fate, reasons: Sequence[object]) -> str:
    why = f": {', '.join(map(str, reasons))}" if reasons else ""
    return f"{charts.verdict(fate)}{why}"


def _of_legacy(file: LegacyFigures, rules: Rules | None) -> str:
    if file.fate is Fate.UNDECIDED and rules is not None:
        return "leave it alone, without --legacy"
    return _verdict(file.fate, file.reasons)


def _row(backup: BackupFigures) -> dict[str, object]:
    seconds = backup.duration_seconds
    return {
        "id": backup.id,
        "time": time(backup.created_at),
        "badges": badges(backup),
        "size": size(backup.size_bytes),
        "took": NOTHING if seconds is None else duration(seconds),
        "ratio": charts.as_ratio(backup.ratio),
        "warnings": len(backup.warnings) if backup.manifest is not None else NOTHING,
        "verdict": charts.verdict(backup.fate),
        "reasons": [str(reason) for reason in backup.reasons],
    }


def _tiles(report: Report) -> Iterator[Tile]:
    newest = report.whole[-1] if report.whole else None
    if newest is None:
        yield Tile("Newest whole backup", "none")
    else:
        yield Tile("Newest whole backup", _ago(report.made_at - newest.created_at), f"{time(newest.created_at)} UTC")
        yield Tile("Its size", size(newest.size_bytes), _compared(report.whole))
        seconds = newest.duration_seconds
        yield Tile(
            "It took", NOTHING if seconds is None else duration(seconds), plural(len(newest.warnings), "warning")
        )
    others = len(report.backups) - len(report.whole)
    yield Tile(
        "Backups",
        str(len(report.backups)),
        f"{size(sum(each.size_bytes for each in report.backups))} in all" + (f"; {others} not whole" if others else ""),
    )
    if report.rules is not None:
        gone = [each for each in report.backups if each.fate is Fate.DELETED]
        freed = size(sum(each.size_bytes for each in gone))
        yield Tile("prune would delete", str(len(gone)), f"of {freed}" if gone else "all others stay")


def _compared(whole: Sequence[BackupFigures]) -> str:
    if len(whole) < 2:  # noqa: PLR2004 - one is nothing to compare with
        return "the only whole one"
    grown = whole[-1].size_bytes - whole[-2].size_bytes
    sign = "+" if grown > 0 else "\N{MINUS SIGN}" if grown < 0 else "±"
    return f"{sign}{size(abs(grown))} to the one before"


def _notices(report: Report) -> Iterator[str]:
    if not report.whole:
        yield "There is no whole backup here."
    for kind in (Kind.INCOMPLETE, Kind.UNVERIFIED):
        if names := [each.id for each in report.backups if each.kind is kind]:
            yield f"{plural(len(names), 'backup')} {kind.value}: {_some(names)}"
    for kind in (Kind.INCOMPLETE, Kind.UNFINISHED, Kind.FOREIGN):
        if names := [each.name for each in report.others if each.kind is kind]:
            yield f"{plural(len(names), 'entry', 'entries')} of the backup path {kind.value}: {_some(names)}"
    if report.remains:
        yield f"An interrupted deletion has left {_some(report.remains)}; the next backup or prune removes it."


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")  # noqa: PLR2004


def _strangers(report: Report) -> Iterator[tuple[str, str, str]]:
    for backup in report.backups:
        if backup.kind is not None:
            yield backup.id, backup.kind.value, backup.flaw or ""
    for other in report.others:
        yield other.name, other.kind.value, other.reason


def _rules(rules: Rules) -> str:
    """Return rules in words."""
    parts = [] if rules.keep_last is None else [f"the newest {rules.keep_last}"]
    if rules.keep_within is not None:
        parts.append(f"those not older than {_span(rules.keep_within)}")
    periods = {
        "day": rules.keep_daily,
        "week": rules.keep_weekly,
        "month": rules.keep_monthly,
        "year": rules.keep_yearly,
    }
    parts += [f"the newest of each of {plural(count, period)}" for period, count in periods.items() if count]
    return (
        f"The rules keep {', '.join(parts)}; at least {rules.minimum} in any case, and what is pinned. Nothing was "
        "deleted for this report."
    )


def _span(span: timedelta) -> str:
    hours = span.days * 24 + span.seconds // 3600
    return plural(span.days, "day") if hours % 24 == 0 and not span.seconds else plural(hours, "hour")


def _ago(age: timedelta) -> str:
    hours = age.total_seconds() / 3600
    if hours < 0:
        return "in the future"
    if hours < 48:  # noqa: PLR2004 - until then, hours tell more than days
        return f"{plural(int(hours), 'hour')} ago" if hours >= 1 else f"{plural(int(hours * 60), 'minute')} ago"
    return f"{int(hours / 24)} days ago"
