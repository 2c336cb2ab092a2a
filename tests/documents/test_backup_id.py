"""Backup ids."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gitlab_backup.backup_id import MAX_EPOCH, MAX_LENGTH, BackupId, path_problem
from gitlab_backup.errors import MetadataError
from gitlab_backup.strategies import backup_ids

GOLDEN = "1714053314_2024_04_25_17.0.0-pre"


def test_the_example_of_gitlabs_documentation_is_read() -> None:
    """The parts of the documented id are its time and version."""
    backup_id = BackupId.parse(GOLDEN)

    assert datetime(2024, 4, 25, 13, 55, 14, tzinfo=UTC) == backup_id.created_at
    assert backup_id.gitlab_version == "17.0.0-pre"
    assert str(backup_id) == GOLDEN


def test_a_new_id_has_the_utc_date_whatever_the_zone_of_its_time() -> None:
    """An id is made of the second below, in UTC."""
    at = datetime(2024, 4, 25, 23, 55, 14, 999_999, tzinfo=timezone(timedelta(hours=10)))

    assert BackupId.new(at, "17.0.0-pre") == BackupId.parse(GOLDEN)


def test_a_new_id_needs_a_time_zone() -> None:
    """A time without a zone could be any of a day, and is not taken."""
    with pytest.raises(ValueError, match="time zone"):
        BackupId.new(datetime(2024, 4, 25), "17.0.0")  # noqa: DTZ001


@given(backup_ids())
def test_what_is_written_is_read_back(backup_id: BackupId) -> None:
    """Every id survives being text."""
    assert backup_id == BackupId.parse(str(backup_id))


@given(st.from_regex(r"[0-9]{1,13}_[0-9]{4}_[01][0-9]_[0-3][0-9]_[0-9A-Za-z.+~_-]{1,200}", fullmatch=True) | st.text())
@example("1714053314_2024_04_26_17.0.0")
@example("0_0001_01_01_x")
@example(f"{MAX_EPOCH}_9999_12_31_17")
@example(f"{MAX_EPOCH + 1}_9999_12_31_17")
@example("1714053314_2024_04_25_17.0.0\n")
@example("١714053314_2024_04_25_17.0.0")  # noqa: RUF001 - an Arabic digit, which int() would take
@example("01_1970_01_01_17.0.0")
def test_what_is_read_is_written_back_exactly(text: str) -> None:
    """Any text is either refused, or read such that it is written back exactly, and is a safe name."""
    try:
        backup_id = BackupId.parse(text)
    except MetadataError:
        return
    assert text == str(backup_id)
    assert path_problem(text) is None
    assert timedelta() == backup_id.created_at.utcoffset()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "17.0.0",
        "1714053314_2024_04_25_",
        "1714053314_2024_02_30_17.0.0",
        "1714053314_2024_04_25_../../etc",
        "1714053314_2024_04_25_17.0.0/",
        "1714053314_2024_04_25_17.0.0\0",
        "1714053314_2024_04_25_17.0.0 ",
        ".1714053314_2024_04_25_17.0.0",
        "-1714053314_2024_04_25_17.0.0",
        "1714053314_2024_4_25_17.0.0",
        "1714053314_2024_04_25_" + "1" * MAX_LENGTH,
        "1714053314_2024_04_25_17.0.0_gitlab_backup.tar/x",
    ],
)
def test_what_is_not_an_id_is_refused(text: str) -> None:
    """A text that is not an id, or could lead out of a directory, is an error with a hint."""
    with pytest.raises(MetadataError) as caught:
        BackupId.parse(text)
    assert caught.value.hint


def test_a_date_of_another_time_zone_is_kept() -> None:
    """Rake writes the local date: it is kept as it was, and the time is that of the epoch."""
    backup_id = BackupId.parse("1714053314_2024_04_26_17.0.0-pre")

    assert date(2024, 4, 26) == backup_id.date
    assert datetime(2024, 4, 25, 13, 55, 14, tzinfo=UTC) == backup_id.created_at


@given(st.lists(backup_ids()))
def test_ids_are_ordered_by_time_then_text(ids: list[BackupId]) -> None:
    """Sorting puts older ones first, and is settled by the text within a second."""
    assert sorted(ids, key=lambda each: (each.epoch, str(each))) == sorted(ids)


@given(backup_ids().filter(lambda each: each.epoch < MAX_EPOCH))
def test_the_next_second_has_a_later_id(backup_id: BackupId) -> None:
    """The id of the next free second comes after, and is of the same version."""
    later = backup_id.later()

    assert backup_id < later
    assert backup_id.created_at + timedelta(seconds=1) == later.created_at
    assert backup_id.gitlab_version == later.gitlab_version


def test_there_is_no_second_after_the_last() -> None:
    """The end of time is a MetadataError, as every id that cannot be."""
    with pytest.raises(MetadataError):
        BackupId.parse(f"{MAX_EPOCH}_9999_12_31_17").later()


@pytest.mark.parametrize("version", ["", ".", "..", "a/b", "17\n", "17.0.0\0", "é", "1" * MAX_LENGTH])
def test_a_version_that_cannot_be_in_a_name_is_refused(version: str) -> None:
    """No id is made with a version that could lead out of a directory, or make its name too long."""
    with pytest.raises(MetadataError):
        BackupId.new(datetime(2024, 4, 25, tzinfo=UTC), version)
