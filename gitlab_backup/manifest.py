"""`manifest.json`: what each component of a backup did."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, ClassVar, cast

from attrs import asdict, field, frozen
from attrs.converters import optional

from .backup_id import path_problem
from .documents import JSON, bounded, parse_object, read_bytes, structure, value_problems
from .errors import ManifestError
from .events import Status

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

FILE_NAME = "manifest.json"

MAX_SIZE = 64 << 20
"""Bytes of a manifest that are read at most."""

VERSION = 1
"""The version of the format. It rises when a field is added, removed or changes its meaning."""

FILTER = "filter"
"""The key of a component's details that says which part of it was to be backed up, where not all of it was."""

_DIGEST = re.compile("[0-9a-f]{64}")
_MAX_INTEGER = 2**63 - 1


def _size(value: int) -> int:
    if not 0 <= value <= _MAX_INTEGER:
        raise ValueError("must be a number of bytes, from 0 on")
    return value


def _seconds(value: float) -> float:
    if not 0 <= value <= _MAX_INTEGER:
        raise ValueError("must be a number of seconds, from 0 on")
    return float(value)


def _path_name(value: str) -> str:
    if problem := path_problem(value):
        raise ValueError(problem)
    return value


def _digest(value: str) -> str:
    if not _DIGEST.fullmatch(value):
        raise ValueError("must be a SHA-256: 64 hexadecimal digits in lower case")
    return value


def _text(value: str) -> str:
    # A name that is not UTF-8 comes as lone surrogates, which no JSON document may have.
    return value.encode(errors="backslashreplace").decode()


def _texts(value: Iterable[str]) -> tuple[str, ...]:
    return tuple(map(_text, value))


def _details(value: Mapping[str, JSON]) -> dict[str, JSON]:
    copy = _copy(dict(value))
    if problems := value_problems(copy):
        raise ValueError("; ".join(problems))
    return cast("dict[str, JSON]", copy)


def _copy(value: JSON) -> JSON:
    if isinstance(value, dict):
        return {_text(key): _copy(child) for key, child in value.items()}
    if isinstance(value, list):
        return [_copy(child) for child in value]
    return _text(value) if isinstance(value, str) else value


def _utc(value: datetime) -> datetime:
    if value.tzinfo is None:
        raise ValueError("a time of the manifest needs a time zone")
    value = value.astimezone(UTC)
    return value.replace(microsecond=value.microsecond // 1000 * 1000)


def _plain(_instance: object, _attribute: object, value: object) -> object:
    return f"{value.isoformat(timespec='milliseconds')[:-6]}Z" if isinstance(value, datetime) else value


Size = Annotated[int, _size]
Seconds = Annotated[float, _seconds]
PathName = Annotated[str, _path_name]
Digest = Annotated[str, _digest]
Details = Annotated[dict[str, JSON], _details]


class BackupStatus(StrEnum):
    """How a published backup fared as a whole."""

    COMPLETE = "complete"
    COMPLETE_WITH_WARNINGS = "complete_with_warnings"


@frozen(kw_only=True)
class Tool:
    """The program that made a backup."""

    name: str
    version: str


@frozen(kw_only=True)
class Compression:
    """How streams are compressed: the codec's name, and its level (None: the codec's own default)."""

    codec: str
    level: int | None


@frozen(kw_only=True)
class ComponentRecord:
    """What became of one component. `ValueError` is raised for a value that a manifest cannot hold."""

    id: str
    name: str
    destination: str
    """Its place in the backup, without the suffix of the codec."""
    archiver: str
    status: Status
    bytes_read: Size = field(converter=_size)
    """Bytes of its source, before compression."""
    bytes_written: Size = field(converter=_size)
    """Bytes of its files in the backup."""
    duration_seconds: Seconds = field(converter=_seconds)
    warnings: tuple[str, ...] = field(default=(), converter=_texts)
    """What was left out, or changed while it was read."""
    reason: str | None = field(default=None, converter=optional(_text))
    """Why it was skipped, or has failed."""
    details: Details = field(factory=dict, converter=_details, hash=False)
    """What its archiver wants to remember, such as snapshots and versions: plain JSON."""


@frozen(kw_only=True)
class Manifest:
    """The account of a backup.

    What is not Unicode in a text (a part of a file name) is kept written out, as a backslash, `udc` and two digits.

    Raises `ValueError` for a value that a manifest cannot hold.
    """

    FILE_NAME: ClassVar[str] = FILE_NAME

    manifest_version: int = VERSION
    tool: Tool
    backup_id: PathName = field(converter=_path_name)
    status: BackupStatus
    started_at: datetime = field(converter=_utc)
    """In UTC, to the millisecond below."""
    finished_at: datetime = field(converter=_utc)
    gitlab_version: str = field(converter=_text)
    installation: str
    """`omnibus` or `source`."""
    compression: Compression
    selected: tuple[str, ...]
    """The ids of the components that were to be backed up."""
    secrets_sha256: Digest | None = field(default=None, converter=optional(_digest))
    """The SHA-256 of the secrets file that the databases belong to. The secrets are not in the backup."""
    components: tuple[ComponentRecord, ...]
    """One record for each known component, left out or not, in the order of work."""
    warnings: tuple[str, ...] = field(default=(), converter=_texts)
    """Warnings about the run as a whole."""

    @property
    def partial(self) -> bool:
        """Whether it was made with a selection, so that it is not a backup of the whole instance.

        Components may have been left out, or repositories. What was not there, or failed, does not count.
        """
        whole = {record.id for record in self.components} == set(self.selected)
        return not whole or any(record.details.get(FILTER) for record in self.components)

    def component(self, component_id: str) -> ComponentRecord | None:
        """Return the record of a component; None where there is none."""
        return next((record for record in self.components if record.id == component_id), None)

    @property
    def has_secrets(self) -> bool:
        """Whether the backup has the component `config`, which opens the encrypted columns of a database."""
        record = self.component("config")
        return record is not None and record.status in {Status.COMPLETE, Status.WARNING}

    @classmethod
    def read(cls, directory: Path) -> Manifest | None:
        """Read the manifest of the backup in `directory`; None where it has none, as those of GitLab's own tools.

        Raises `ManifestError`.
        """
        path = directory / FILE_NAME
        try:
            path.lstat()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ManifestError(f"{path} cannot be read: {error.strerror}") from error
        return cls.from_json(read_bytes(path, limit=MAX_SIZE, error=ManifestError), source=path)

    @classmethod
    def from_json(cls, data: bytes | str, *, source: Path | str) -> Manifest:
        """Read a document; `source` is the name that errors call it by.

        Raises `ManifestError` with everything that is wrong in it.
        """
        hint = "The file is damaged, or was changed by hand."
        try:
            document, problems = parse_object(data, limit=MAX_SIZE)
        except ValueError as error:
            raise ManifestError(f"{source} cannot be understood", problems=(str(error),), hint=hint) from None
        version = document.get("manifest_version")
        if type(version) is int and version > VERSION:
            problem = f"manifest_version: {version} is newer than {VERSION}, the newest that is known"
            hint = "A newer tool made this backup. Use that one, or a newer version of this one."
            raise ManifestError(f"{source} cannot be understood", problems=(problem,), hint=hint)
        if type(version) is not int or version != VERSION:
            problems.append(f"manifest_version: must be {VERSION}")
        manifest, more = structure(cls, document)
        problems = list(dict.fromkeys(problems + more))
        if manifest is not None:
            ids = [record.id for record in manifest.components]
            problems += [
                f"components: {each!r} appears more than once" for each in sorted(set(ids)) if ids.count(each) > 1
            ]
        if manifest is None or problems:
            raise ManifestError(f"{source} cannot be understood", problems=bounded(problems), hint=hint)
        return manifest

    def to_json(self) -> bytes:
        """Return the document: pretty-printed, keys in the order of the fields, a newline at its end."""
        document = asdict(self, value_serializer=_plain)
        return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False).encode() + b"\n"
