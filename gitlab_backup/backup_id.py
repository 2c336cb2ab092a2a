"""Backup ids: `<epoch>_<YYYY>_<MM>_<DD>_<gitlab version>`, as GitLab's own tools name their backups."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta

from attrs import field, frozen

from .errors import MetadataError

MAX_LENGTH = 200
"""Characters (ASCII, so bytes) of an id. A file name has 255; the rest is for what is put around an id."""

MAX_EPOCH = 253_402_300_799
"""The last second that a `datetime` can hold, in seconds since 1970."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ID = re.compile(r"(0|[1-9][0-9]{0,11})_([0-9]{4})_([0-9]{2})_([0-9]{2})_(.*)", re.DOTALL)
_GITLAB_VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+~_-]*")
_HINT = "A backup id looks like 1714053314_2024_04_25_17.0.0-pre."


def path_problem(text: str) -> str | None:
    """Say why `text` cannot be the name of a file or directory inside another one; None where it can."""
    if not text:
        return "is empty"
    if not text.isprintable() or "/" in text:
        return "has a character that a file name must not have"
    if text.startswith("."):
        return "begins with a dot"
    if len(text.encode()) > MAX_LENGTH:
        return f"is longer than {MAX_LENGTH} bytes"
    return None


def _check_epoch(_self: object, _attribute: object, value: int) -> None:
    if not 0 <= value <= MAX_EPOCH:
        raise MetadataError(f"a backup id cannot hold the time {value} (seconds since 1970)")


def _check_version(_self: object, _attribute: object, value: str) -> None:
    if not _GITLAB_VERSION.fullmatch(value):
        raise MetadataError(
            f"{value!r} cannot be the GitLab version in a backup id",
            hint="It may have ASCII letters, digits and the characters . + ~ _ - only, as in 17.0.0-pre.",
        )


@frozen(order=True)
class BackupId:
    """The name of a backup. Ids are ordered by time, then by text.

    `date` is kept as it was read. GitLab's Rake task writes the date of its local time zone, which may be a
    day before or after that of `created_at`, so the two are not compared: the epoch alone says when the
    backup was made.

    An id is ASCII, has no `/`, does not begin with a dot, and is no longer than `MAX_LENGTH`: it is always
    the name of something in the directory that it is looked up in. Raises `MetadataError` for a value that
    cannot be part of an id.
    """

    epoch: int = field(validator=_check_epoch)
    """Seconds since 1970-01-01 00:00:00 UTC."""
    date: date
    gitlab_version: str = field(validator=_check_version)

    def __attrs_post_init__(self) -> None:
        if len(str(self)) > MAX_LENGTH:
            raise MetadataError(f"a backup id is longer than {MAX_LENGTH} characters", hint=_HINT)

    @classmethod
    def parse(cls, text: str) -> BackupId:
        """Read an id. What is accepted is exactly what `str` gives back. Raises `MetadataError`."""
        match = _ID.fullmatch(text) if len(text) <= MAX_LENGTH else None
        if match is None:
            raise MetadataError(f"{text[:MAX_LENGTH]!r} is not a backup id", hint=_HINT)
        epoch, year, month, day, gitlab_version = match.groups()
        try:
            written = date(int(year), int(month), int(day))
        except ValueError:
            raise MetadataError(f"{text!r} is not a backup id: there is no such date", hint=_HINT) from None
        return cls(int(epoch), written, gitlab_version)

    @classmethod
    def new(cls, at: datetime, gitlab_version: str) -> BackupId:
        """Return the id of a backup made at `at`, to the second below, with the date in UTC.

        Raises `MetadataError` where the version cannot be part of an id, `ValueError` where `at` has no time
        zone.
        """
        if at.tzinfo is None:
            raise ValueError("the time of a backup needs a time zone")
        at = at.astimezone(UTC)
        return cls((at - _EPOCH) // timedelta(seconds=1), at.date(), gitlab_version)

    def later(self, seconds: int = 1) -> BackupId:
        """Return the id of a backup made `seconds` later, with the date in UTC.

        Raises `MetadataError` after the year 9999.
        """
        epoch = self.epoch + seconds
        _check_epoch(self, None, epoch)
        return BackupId.new(datetime.fromtimestamp(epoch, UTC), self.gitlab_version)

    @property
    def created_at(self) -> datetime:
        """When the backup was made, in UTC."""
        return datetime.fromtimestamp(self.epoch, UTC)

    def __str__(self) -> str:
        return f"{self.epoch}_{self.date.isoformat().replace('-', '_')}_{self.gitlab_version}"
