"""`backup_information.json`: what GitLab's own `gitlab-backup-cli` knows of a backup."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from attrs import field, frozen

from .backup_id import path_problem
from .documents import bounded, join, parse_object, read_bytes, type_name, utc_time, value_problems
from .errors import MetadataError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from attrs import Attribute

Scalar: TypeAlias = "bool | int | float | str | None"

FILE_NAME = "backup_information.json"

MAX_SIZE = 1 << 20
"""Bytes of a metadata file that are read at most; a real one has about two hundred."""

_VERSION = 2
_SCALARS = {bool, int, float, str, type(None)}
_DIGITS = re.compile(" *[0-9]{1,20} *")


class _NewerVersionError(ValueError):
    """The document is of a version that did not exist when this was written."""


def _version(value: object) -> int:
    # The reference takes an integer, else `to_s.to_i`: so `"2"` and `2.0` mean 2. What that would cut off
    # is refused.
    number = value
    if (isinstance(value, str) and _DIGITS.fullmatch(value)) or (isinstance(value, float) and value.is_integer()):
        number = int(value)
    if isinstance(number, bool) or not isinstance(number, int):
        raise ValueError(f"must be the integer {_VERSION}, not {type_name(value)}")  # noqa: TRY004 - a bad document
    if number > _VERSION:
        raise _NewerVersionError(f"version {number} is newer than {_VERSION}, the newest that is known")
    if number != _VERSION:
        raise ValueError(f"version {number} is not known; it must be {_VERSION}")
    return number


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"must be a string, not {type_name(value)}")  # noqa: TRY004
    if not value:
        raise ValueError("is empty")
    if value_problems(value):
        raise ValueError("not valid Unicode")
    return value


def _backup_id(value: object) -> str:
    if problem := path_problem(text := _text(value)):
        raise ValueError(f"{text[:100]!r} {problem}")
    return text


def _time(value: object) -> datetime:
    return _utc(utc_time(_text(value)))


def _utc(value: datetime) -> datetime:
    if value.tzinfo is None:
        raise ValueError("created_at needs a time zone")
    return value.astimezone(UTC).replace(microsecond=0)


_FIELDS = {
    "metadata_version": _version,
    "backup_id": _backup_id,
    "created_at": _time,
    "gitlab_version": _text,
}


def _check(read: Callable[[object], object]) -> Callable[[object, Attribute[Any], Any], None]:
    def validate(_self: object, attribute: Attribute[Any], value: object) -> None:
        try:
            read(value)
        except ValueError as error:
            raise ValueError(f"{attribute.name}: {error}") from None

    return validate


def _extra(extra: Mapping[str, Scalar]) -> Mapping[str, Scalar]:
    for key, value in extra.items():
        if key in _FIELDS:
            raise ValueError(f"{key} is not an extra field")
        if type(value) not in _SCALARS or value_problems({key: value}):
            raise ValueError(f"{key} is not a value that the metadata can hold")
    return MappingProxyType(dict(extra))


@frozen(kw_only=True)
class Metadata:
    """The metadata of a backup, version 2: exactly four fields; the reference accepts nothing nested here.

    Raises `ValueError` for a value that a document could not hold.
    """

    FILE_NAME: ClassVar[str] = FILE_NAME

    metadata_version: int = field(default=_VERSION, validator=_check(_version))
    backup_id: str = field(validator=_check(_backup_id))
    """The id as text: it may be the name of a directory, and need not be one that `BackupId` reads."""
    created_at: datetime = field(converter=_utc)
    """In UTC, to the second below: the format has no fractions."""
    gitlab_version: str = field(validator=_check(_text))
    extra: Mapping[str, Scalar] = field(factory=dict, converter=_extra, hash=False)
    """Other fields that a document has, in its order. They are written back after the four."""

    @classmethod
    def read(cls, directory: Path) -> Metadata:
        """Read the metadata of the backup in `directory`. Raises `MetadataError`."""
        path = directory / cls.FILE_NAME
        hint = "Without its metadata, a directory is not a backup. Use another backup, or put the file back."
        return cls.from_json(read_bytes(path, limit=MAX_SIZE, error=MetadataError, hint=hint), source=path)

    @classmethod
    def from_json(cls, data: bytes | str, *, source: Path | str) -> Metadata:
        """Read a document; `source` is the name that errors call it by.

        As in the reference, `metadata_version` may be a string or a float that means an integer, and other
        fields are let pass if they are flat. `created_at` is any ISO 8601 time with an offset; fractions of a
        second are cut off. Raises `MetadataError` with everything that is wrong.
        """
        hint = "The file is damaged, or was not written by a backup tool for GitLab."
        try:
            document, problems = parse_object(data, limit=MAX_SIZE)
        except ValueError as error:
            raise MetadataError(f"{source} cannot be understood", problems=(str(error),), hint=hint) from None
        values: dict[str, object] = {}
        for key, convert in _FIELDS.items():
            if key not in document:
                problems.append(f"{key}: is missing")
                continue
            try:
                values[key] = convert(document[key])
            except ValueError as error:
                problems.append(f"{key}: {error}")
                if isinstance(error, _NewerVersionError):
                    hint = "A newer tool made this backup. Use that one, or a newer version of this one."
        extra = {key: value for key, value in document.items() if key not in _FIELDS}
        problems.extend(
            f"{join('', key)}: must not be {type_name(value)}"
            for key, value in extra.items()
            if isinstance(value, (dict, list))
        )
        if problems:
            raise MetadataError(
                f"{source} cannot be understood", problems=bounded(list(dict.fromkeys(problems))), hint=hint
            )
        return cls(**values, extra=extra)  # type: ignore[arg-type]

    def to_json(self) -> bytes:
        """Return the document as the reference writes it: the layout of Ruby's `JSON.pretty_generate`."""
        fields = {
            "metadata_version": self.metadata_version,
            "backup_id": self.backup_id,
            "created_at": self.created_at.isoformat().replace("+00:00", "Z"),
            "gitlab_version": self.gitlab_version,
            **self.extra,
        }
        return json.dumps(fields, indent=2, ensure_ascii=False, allow_nan=False).encode()
