"""Hypothesis strategies for the documents of a backup, for the tests of whoever reads or writes them.

They need Hypothesis: install `gitlab-backup-core[hypothesis]`.
"""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING

try:
    from hypothesis import strategies as st
except ImportError as error:
    raise ImportError("gitlab_backup.strategies needs Hypothesis: install gitlab-backup-core[hypothesis]") from error

from .backup_id import MAX_EPOCH, BackupId
from .checksums import Checksums
from .components import COMPONENTS
from .events import Status
from .manifest import BackupStatus, ComponentRecord, Compression, Manifest, Tool
from .metadata import Metadata

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

    from .documents import JSON
    from .metadata import Scalar

_DAY = 86_400
_FIELDS = {"metadata_version", "backup_id", "created_at", "gitlab_version"}


def _times() -> SearchStrategy[datetime]:
    return st.datetimes(min_value=datetime(1970, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - see timezones


def _texts() -> SearchStrategy[str]:
    """Texts that a JSON document can hold."""
    return st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


def _json() -> SearchStrategy[JSON]:
    numbers = st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False)
    return st.recursive(
        st.none() | st.booleans() | numbers | _texts(),
        lambda children: st.lists(children, max_size=3) | st.dictionaries(_texts(), children, max_size=3),
        max_leaves=8,
    )


def gitlab_versions() -> SearchStrategy[str]:
    """Versions of GitLab, as its file `VERSION` has them: `17.0.0-pre`, `16.11.3-ee`."""
    numbers = st.tuples(st.integers(0, 99), st.integers(0, 99), st.integers(0, 999))
    suffixes = st.sampled_from(["", "-ee", "-pre", "-rc42-ee"]) | st.from_regex(
        r"[.+~_-][0-9A-Za-z]{1,8}", fullmatch=True
    )
    return st.builds(lambda version, suffix: ".".join(map(str, version)) + suffix, numbers, suffixes)


def backup_ids() -> SearchStrategy[BackupId]:
    """Backup ids, with dates of any time zone."""
    return st.builds(
        lambda epoch, days, version: BackupId(
            epoch, datetime.fromtimestamp(min(max(epoch + days * _DAY, 0), MAX_EPOCH), UTC).date(), version
        ),
        st.integers(0, MAX_EPOCH) | st.integers(1_400_000_000, 2_000_000_000),
        st.sampled_from([0, 0, -1, 1]),
        gitlab_versions(),
    )


def _extras() -> SearchStrategy[dict[str, Scalar]]:
    scalars: SearchStrategy[Scalar] = (
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | _texts()
    )
    return st.dictionaries(_texts().filter(lambda key: key not in _FIELDS), scalars, max_size=3)


def metadata() -> SearchStrategy[Metadata]:
    """Metadata, half of it with extra fields."""
    return st.builds(
        Metadata,
        backup_id=backup_ids().map(str),
        created_at=_times(),
        gitlab_version=gitlab_versions(),
        extra=st.just({}) | _extras(),
    )


@st.composite
def metadata_documents(draw: st.DrawFn) -> str:
    """JSON texts of metadata that the reference could have written or would read: any layout, order and offset."""
    at = draw(st.datetimes(datetime(1970, 1, 2), datetime(9999, 12, 30), timezones=st.timezones() | st.just(UTC)))  # noqa: DTZ001
    offset = at.utcoffset()
    if offset is None or offset.total_seconds() % 60:  # local mean time; nobody writes these
        at = at.replace(tzinfo=UTC)
    version: Scalar = draw(st.sampled_from((2, "2", 2.0)))  # type: ignore[assignment]
    fields: dict[str, Scalar] = {
        "metadata_version": version,
        "backup_id": str(draw(backup_ids())),
        "created_at": at.isoformat(timespec=draw(st.sampled_from(["seconds", "milliseconds"]))),
        "gitlab_version": draw(gitlab_versions()),
        **draw(_extras()),
    }
    order = draw(st.permutations(list(fields)))
    return json.dumps(
        {key: fields[key] for key in order},
        indent=draw(st.sampled_from([None, 0, 2, "\t"])),
        ensure_ascii=draw(st.booleans()),
    )


def _records(component_id: str, name: str, destination: str) -> SearchStrategy[ComponentRecord]:
    return st.builds(
        ComponentRecord,
        id=st.just(component_id),
        name=st.just(name),
        destination=st.just(destination),
        archiver=st.sampled_from(["database", "files", "git", "gitaly"]),
        status=st.sampled_from(Status),
        bytes_read=st.integers(0, 2**63 - 1),
        bytes_written=st.integers(0, 2**63 - 1),
        duration_seconds=st.floats(0, 1e9),
        warnings=st.lists(st.text(max_size=20), max_size=2).map(tuple),
        reason=st.none() | st.text(max_size=20),
        details=st.dictionaries(_texts(), _json(), max_size=2),
    )


def manifests() -> SearchStrategy[Manifest]:
    """Manifests, with warnings that need not be Unicode, as they hold names of files."""
    ids = st.lists(st.sampled_from([component.id for component in COMPONENTS]), unique=True, max_size=3)
    digests = st.binary(min_size=32, max_size=32).map(bytes.hex)
    records = st.lists(st.sampled_from(COMPONENTS), unique_by=lambda component: component.id, max_size=3).flatmap(
        lambda chosen: st.tuples(*(_records(each.id, each.name, each.destination) for each in chosen))
    )
    return st.builds(
        Manifest,
        tool=st.builds(Tool, name=_texts(), version=gitlab_versions()),
        backup_id=backup_ids().map(str),
        status=st.sampled_from(BackupStatus),
        started_at=_times(),
        finished_at=_times(),
        gitlab_version=gitlab_versions(),
        installation=st.sampled_from(["omnibus", "source"]),
        compression=st.builds(
            Compression, codec=st.sampled_from(["gzip", "zstd", "none"]), level=st.none() | st.integers(-7, 22)
        ),
        selected=ids.map(tuple),
        secrets_sha256=st.none() | digests,
        components=records,
        warnings=st.lists(st.text(max_size=20), max_size=2).map(tuple),
    )


def file_names() -> SearchStrategy[str]:
    """Relative names that a file of a backup may have, of any bytes, as `os.fsdecode` gives them."""
    odd = st.sampled_from([b"-", b"a\nb", b"a\rb", b"a\\b", b"\\", b"*", b" ", b"  x", b"\xff", b"a\r", b"\\n", b"#"])
    plain = st.binary(min_size=1, max_size=12).map(lambda raw: raw.translate(None, b"\0/"))
    parts = (odd | plain).filter(lambda part: part not in {b"", b".", b".."})
    return st.lists(parts, min_size=1, max_size=3).map(lambda names: os.fsdecode(b"/".join(names)))


def checksums() -> SearchStrategy[Checksums]:
    """Checksum files, with odd names."""
    digests = st.binary(min_size=32, max_size=32).map(bytes.hex)
    return st.dictionaries(file_names(), digests, max_size=5).map(Checksums)
