"""`list` and `show`: what the documents of the backups say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from gitlab_backup.backup import BackupState
from gitlab_backup.errors import DocumentError
from gitlab_backup.instance.selection import Selection
from gitlab_backup.manifest import FILTER

from .. import completion, documents
from ..output import complain, write, write_json
from ..session import Session  # noqa: TC001 - the signature is looked at when the command starts
from ..text import duration, escape, plural, size, table, time

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from gitlab_backup import Backup
    from gitlab_backup.archivers.base import JSON
    from gitlab_backup.manifest import ComponentRecord, Manifest

BackupIdArgument = Annotated[
    str,
    typer.Argument(
        metavar="BACKUP_ID", help="The id of a backup, or `latest`.", autocompletion=completion.backups_and_latest
    ),
]

_STATES = {BackupState.COMPLETE_WITH_WARNINGS: "warnings"}
_MOST_ENTRIES = 8
"""A list of the details that is longer than this is counted, not printed."""
_MOST_KEYS = 24
"""Likewise, of what has a name each: the rows of every table, say."""


def list_backups(
    session: Session,
    *,
    json: Annotated[bool, typer.Option("--json", help="Print a JSON array.")] = False,
) -> None:
    """List the backups, the newest last.

    A line says when a backup was made, its status, its size, and its id, which other commands take.

    \b
    Examples:
      gitlab-backup-cli list
      gitlab-backup-cli list --backup-path /mnt/other/backups --json
    """  # noqa: D301 - \b keeps the lines of the example apart
    from gitlab_backup import Backup

    store = session.store()
    backups = Backup.all(store)
    if json:
        write_json([documents.listed(backup) for backup in backups])
    elif backups:
        header = ("created (UTC)", "status", "size", "backup id")
        write(table(header, [_row(backup) for backup in backups], right={2}))
    else:
        complain(f"There is no backup in {escape(str(store.path))}\n")


def _row(backup: Backup) -> tuple[str, str, str, str]:
    state = backup.state
    try:
        created = time(backup.metadata.created_at)
    except DocumentError:
        created = ""
    # The id is the last: it must be there in full, to be copied.
    marks = ", partial" * bool(backup.partial) + ", secrets" * backup.has_secrets + ", pinned" * backup.pinned
    status = _STATES.get(state, state.value) + marks
    return created, status, size(backup.size_bytes), backup.id


def show(
    session: Session,
    *,
    backup_id: BackupIdArgument,
    json: Annotated[bool, typer.Option("--json", help="Print a JSON document.")] = False,
) -> None:
    """Show what a backup says of itself.

    When and how it was made and, of each component, its status, sizes, duration, warnings and details.

    \b
    Example:
      gitlab-backup-cli show latest
    """  # noqa: D301 - \b keeps the lines of the example apart
    backup = session.backup(backup_id)
    if json:
        write_json(documents.shown(backup))
    else:
        write("\n".join(_shown(backup)) + "\n")


def _shown(backup: Backup) -> Iterator[str]:
    metadata, manifest = backup.metadata, backup.manifest
    facts = {
        "backup id": backup.id,
        "path": str(backup.path),
        "created": f"{time(metadata.created_at)} UTC",
        "gitlab version": metadata.gitlab_version,
        "status": backup.state.value.replace("_", " "),
        "size": size(backup.size_bytes),
    }
    if manifest is None:
        facts["components"] = ", ".join(component.id for component in backup.components)
    else:
        facts |= _of_manifest(manifest)
    for name, value in facts.items():
        yield f"{name + ':':15} {escape(value)}"
    if manifest is None:
        return
    yield ""
    rows = [_component_row(record) for record in manifest.components]
    yield table(("component", "status", "read", "written", "time", "reason"), rows, right={2, 3, 4}).rstrip("\n")
    if manifest.warnings:
        yield ""
    yield from (f"warning: {escape(warning)}" for warning in manifest.warnings)
    for record in manifest.components:
        if record.warnings or record.details:
            yield f"\n{record.id}"
            yield from (f"  warning: {escape(warning)}" for warning in record.warnings)
            yield from _details(record.details, "  ")


def _left_out(manifest: Manifest) -> dict[str, str]:
    """Return what a partial backup has."""
    if not manifest.partial:
        return {}
    parts = []
    if {record.id for record in manifest.components} != set(manifest.selected):
        parts.append(f"only {', '.join(manifest.selected)}")
    parts += [
        f"only {record.id} {chosen}"
        for record in manifest.components
        if (chosen := Selection.from_record(record.details.get(FILTER)))
    ]
    return {"partial": "; ".join(parts)}


def _of_manifest(manifest: Manifest) -> dict[str, str]:
    level = "" if manifest.compression.level is None else f", level {manifest.compression.level}"
    return {
        **_left_out(manifest),
        "installation": manifest.installation,
        "compression": f"{manifest.compression.codec}{level}",
        "duration": duration((manifest.finished_at - manifest.started_at).total_seconds()),
        "made by": f"{manifest.tool.name} {manifest.tool.version}",
    }


def _component_row(record: ComponentRecord) -> tuple[str, ...]:
    if record.status == "skipped":
        return record.id, record.status.value, "", "", "", record.reason or ""
    return (
        record.id,
        record.status.value,
        size(record.bytes_read),
        size(record.bytes_written),
        duration(record.duration_seconds),
        record.reason or "",
    )


def _details(details: Mapping[str, JSON], indent: str) -> Iterator[str]:
    for key, value in details.items():
        if not value:
            continue  # nothing vanished, nothing was unreadable, …: what did not happen is in the manifest
        name = escape(key)
        if isinstance(value, dict) and len(value) > _MOST_KEYS:
            yield f"{indent}{name}: {plural(len(value), 'entry', 'entries')}"
        elif isinstance(value, dict):
            yield f"{indent}{name}"
            yield from _details(value, indent + "  ")
        elif isinstance(value, list) and any(isinstance(each, dict) for each in value) and len(value) <= _MOST_ENTRIES:
            yield f"{indent}{name}"
            for number, each in enumerate(value, start=1):
                yield from _details(each if isinstance(each, dict) else {str(number): each}, indent + "  ")
        elif isinstance(value, list) and len(value) > _MOST_ENTRIES:
            yield f"{indent}{name}: {plural(len(value), 'entry', 'entries')}"
        elif isinstance(value, list):
            yield f"{indent}{name}: {escape(', '.join(map(str, value)))}"
        else:
            yield f"{indent}{name}: {escape(str(value))}"
