"""The rules of retention, on examples of a calendar."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from gitlab_backup.errors import UsageError
from gitlab_backup.retention import Reason, Rule, Rules, decide, parse_span

NOW = datetime(2024, 5, 1, 12, tzinfo=UTC)


def _times(*texts: str) -> dict[str, datetime]:
    return {text: datetime.fromisoformat(text).replace(tzinfo=UTC) for text in texts}


def _kept(times: dict[str, datetime], rules: Rules, now: datetime = NOW) -> dict[str, list[str]]:
    return {name: [str(each) for each in why] for name, why in decide(times, rules, now).items() if why}


def test_the_newest_of_each_period() -> None:
    """Of a day, the newest backup counts; days without one are not counted."""
    times = _times("2024-04-20T01:00", "2024-04-20T23:59", "2024-04-25T00:00", "2024-04-25T23:00", "2024-04-30T12:00")
    assert {
        "2024-04-20T23:59": ["keep-daily 2024-04-20"],
        "2024-04-25T23:00": ["keep-daily 2024-04-25"],
        "2024-04-30T12:00": ["keep-daily 2024-04-30"],
    } == _kept(times, Rules(keep_daily=3))


def test_weeks_are_those_of_iso_8601() -> None:
    """A week begins on Monday, and the last days of December may be of the first week of the next year."""
    times = _times("2024-12-29T23:59", "2024-12-30T00:00", "2025-01-05T23:59", "2025-01-06T00:00")
    assert {
        "2024-12-29T23:59": ["keep-weekly 2024-W52"],
        "2025-01-05T23:59": ["keep-weekly 2025-W01"],
        "2025-01-06T00:00": ["keep-weekly 2025-W02"],
    } == _kept(times, Rules(keep_weekly=9))


def test_rules_are_a_union() -> None:
    """What several rules keep says so; each rule looks at all backups."""
    times = _times("2022-12-31T00:00", "2023-01-01T00:00", "2024-04-29T00:00", "2024-05-01T00:00")
    assert {
        "2022-12-31T00:00": ["keep-yearly 2022"],
        "2023-01-01T00:00": ["keep-monthly 2023-01", "keep-yearly 2023"],
        "2024-04-29T00:00": ["keep-monthly 2024-04"],
        "2024-05-01T00:00": ["keep-last", "keep-monthly 2024-05", "keep-yearly 2024"],
    } == _kept(times, Rules(keep_last=1, keep_monthly=3, keep_yearly=3))


def test_within_is_exact() -> None:
    """A backup as old as the span stays; one that is a second older goes; one from the future stays."""
    times = {str(age): NOW - timedelta(days=14, seconds=age) for age in (-2_000_000, -1, 0, 1)}
    assert {"-2000000", "-1", "0"} == set(_kept(times, Rules(keep_within=timedelta(days=14))))


def test_the_minimum_takes_the_newest() -> None:
    """Where the rules keep too few, the newest of the others stay; what is pinned does not stand for them."""
    times = _times("2020-01-01", "2020-01-02", "2020-01-03")
    rules = Rules(keep_within=timedelta(days=1), minimum=1)
    reasons = decide(times, rules, NOW, pinned={"2020-01-01", "not there"})
    assert {
        "2020-01-01": (Reason(Rule.PINNED),),
        "2020-01-02": (),
        "2020-01-03": (Reason(Rule.MINIMUM),),
    } == reasons


def test_keep_time_of_any_size() -> None:
    """`keep_time` is in seconds, and one that no calendar holds means for ever."""
    times = {"old": NOW - timedelta(seconds=604_801), "new": NOW - timedelta(seconds=604_800)}
    assert {"new": ["keep-within"]} == _kept(times, Rules.of_keep_time(604_800))
    assert {"old", "new"} == set(_kept(times, Rules.of_keep_time(2**63 - 1)))


@pytest.mark.parametrize(
    ("text", "expected"),
    [("36h", timedelta(hours=36)), ("14d", timedelta(days=14)), (" 8W ", timedelta(weeks=8))],
)
def test_spans(text: str, expected: timedelta) -> None:
    """Hours, days and weeks."""
    assert expected == parse_span(text)


def test_a_span_that_no_calendar_holds() -> None:
    """It keeps everything, and does not fail."""
    times = {"first": datetime(1970, 1, 1, tzinfo=UTC)}
    assert {"first": ["keep-within"]} == _kept(times, Rules(keep_within=parse_span("999999999w")))


@pytest.mark.parametrize("text", ["", "14", "d", "14 days", "-1d", "1.5d", "2m", "1d12h", "\u0664d"])
def test_what_is_no_span(text: str) -> None:
    """It is a usage error that shows what one looks like."""
    with pytest.raises(UsageError) as error:
        parse_span(text)
    assert "14d" in (error.value.hint or "")


@pytest.mark.parametrize("numbers", [{"keep_last": 0}, {"keep_daily": -1}, {"minimum": -1}])
def test_numbers_that_make_no_sense(numbers: dict[str, int]) -> None:
    """A rule that keeps nothing is a mistake."""
    with pytest.raises(UsageError, match=next(iter(numbers)).replace("_", "-")):
        Rules(**numbers)  # type: ignore[arg-type]
    with pytest.raises(UsageError):
        Rules(keep_within=timedelta())
