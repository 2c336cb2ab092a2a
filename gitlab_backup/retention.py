"""Which backups stay: rules over their times, and nothing else.

The rules are those of restic and Borg (`keep-last`, `keep-daily`, …). They are a union: what one of them keeps stays.
Each is applied to all backups, as restic does it; Borg does not count for a weekly rule what a daily one has kept.
Days, weeks (ISO 8601: from Monday), months and years are those of UTC, as in backup ids.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

from attrs import asdict, field, frozen

from .errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

_UNITS = {"h": "hours", "d": "days", "w": "weeks"}
_SPAN = re.compile(r"([0-9]{1,9})([hdw])")
_LONGEST = 10**12
"""Seconds, longer than anybody keeps anything; a `timedelta` can hold them."""


class Rule(StrEnum):
    """Why a backup stays. The values are those of `prune --json`."""

    LAST = "keep-last"
    WITHIN = "keep-within"
    DAILY = "keep-daily"
    WEEKLY = "keep-weekly"
    MONTHLY = "keep-monthly"
    YEARLY = "keep-yearly"
    MINIMUM = "minimum"
    """No other rule keeps it, and too few would be left without it."""
    PINNED = "pinned"
    """Somebody wants it to stay, whatever the rules say."""
    NEW = "new"
    """It was made by the run that prunes."""


_PERIODS: dict[Rule, Callable[[datetime], str]] = {
    Rule.DAILY: lambda at: f"{at:%Y-%m-%d}",
    Rule.WEEKLY: lambda at: f"{at:%G-W%V}",
    Rule.MONTHLY: lambda at: f"{at:%Y-%m}",
    Rule.YEARLY: lambda at: f"{at:%Y}",
}


@frozen
class Reason:
    """That a rule keeps a backup; for a calendar rule, as the newest of which period (`2024-04-25`, `2024-W17`, …)."""

    rule: Rule
    period: str | None = None

    def __str__(self) -> str:
        return self.rule.value if self.period is None else f"{self.rule.value} {self.period}"


def _from(low: int) -> Callable[[object, object, int | None], None]:
    def check(_self: object, attribute: object, value: int | None) -> None:
        if value is not None and value < low:
            name = getattr(attribute, "name", "").replace("_", "-")
            raise UsageError(f"--{name} cannot be {value}", hint=f"It takes a number from {low} on.")

    return check


def _span(_self: object, _attribute: object, value: timedelta | None) -> None:
    if value is not None and value <= timedelta():
        raise UsageError("--keep-within needs a span of time", hint="As in 14d: a number of hours (h), days or weeks.")


@frozen(kw_only=True)
class Rules:
    """How many backups stay. None for a rule that is not given. Raises `UsageError` for numbers that make no sense."""

    keep_last: int | None = field(default=None, validator=_from(1))
    """The newest ones."""
    keep_within: timedelta | None = field(default=None, validator=_span)
    """Those that are not older than this."""
    keep_daily: int | None = field(default=None, validator=_from(1))
    """The newest of a day, for so many days that have a backup."""
    keep_weekly: int | None = field(default=None, validator=_from(1))
    keep_monthly: int | None = field(default=None, validator=_from(1))
    keep_yearly: int | None = field(default=None, validator=_from(1))
    minimum: int = field(default=1, validator=_from(0))
    """So many stay in any case, the newest first; what only its pin keeps does not count."""

    @classmethod
    def of_keep_time(cls, seconds: int, *, minimum: int = 1) -> Rules:
        """Return what `backup.keep_time` of gitlab.yml means: a backup stays for so many seconds."""
        return cls(keep_within=timedelta(seconds=min(seconds, _LONGEST)), minimum=minimum)

    @property
    def given(self) -> bool:
        """Whether there is a rule at all. `minimum` is none: alone, it would be an odd way to say `keep_last`."""
        return any(value is not None for name, value in asdict(self).items() if name != "minimum")


def parse_span(text: str) -> timedelta:
    """Read a span of time: `36h`, `14d`, `8w`. Raises `UsageError`."""
    match = _SPAN.fullmatch(text.strip().lower())
    if match is None:
        raise UsageError(
            f"{text!r} is not a span of time", hint="Give a number of hours, days or weeks: 36h, 14d or 8w."
        )
    try:
        return timedelta(**{_UNITS[match[2]]: int(match[1])})
    except OverflowError:
        return timedelta.max


def decide(
    times: Mapping[str, datetime],
    rules: Rules,
    now: datetime,
    *,
    pinned: Collection[str] = (),
    new: str | None = None,
) -> dict[str, tuple[Reason, ...]]:
    """Return, for each backup, why it stays; nothing for one that is to go. Oldest first; of one time, by name.

    `times` are when the backups were made. `pinned` and `new` stay whatever the rules say, but take part in them like
    others. What the clock believes to be in the future is not older than anything.
    """
    order = sorted(times, key=lambda name: (times[name], name))
    newest_first = order[::-1]
    reasons: dict[str, list[Reason]] = {name: [] for name in order}
    for name, reason in _kept(newest_first, times, rules, now):
        reasons[name].append(reason)
    if new in reasons:
        reasons[new].append(Reason(Rule.NEW))
    spare = rules.minimum - sum(map(bool, reasons.values()))
    # What is pinned is old at times: it must not stand for the one that a restore would take.
    going = [name for name in newest_first if not reasons[name]]
    for name in going[: max(spare, 0)]:
        reasons[name].append(Reason(Rule.MINIMUM))
    for name in reasons.keys() & set(pinned):
        reasons[name].append(Reason(Rule.PINNED))
    return {name: tuple(why) for name, why in reasons.items()}


def _kept(
    newest_first: list[str], times: Mapping[str, datetime], rules: Rules, now: datetime
) -> Iterator[tuple[str, Reason]]:
    for name in newest_first[: rules.keep_last or 0]:
        yield name, Reason(Rule.LAST)
    if rules.keep_within is not None:
        for name in newest_first:
            if now - times[name] <= rules.keep_within:
                yield name, Reason(Rule.WITHIN)
    wanted = {
        Rule.DAILY: rules.keep_daily,
        Rule.WEEKLY: rules.keep_weekly,
        Rule.MONTHLY: rules.keep_monthly,
        Rule.YEARLY: rules.keep_yearly,
    }
    for rule, count in wanted.items():
        newest: dict[str, str] = {}
        for name in newest_first:
            newest.setdefault(_PERIODS[rule](times[name].astimezone(UTC)), name)
        for period, name in list(newest.items())[: count or 0]:
            yield name, Reason(rule, period)
