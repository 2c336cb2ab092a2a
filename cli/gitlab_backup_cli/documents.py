"""The shapes of `--json`: each document that the command prints, described in docs/cli.md."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias, cast

from gitlab_backup.components import COMPONENTS, Holder
from gitlab_backup.errors import BackupFailedError, DocumentError, UsageError

from .boundary import explain
from .display.plan import all_notes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from gitlab_backup import Backup, Instance
    from gitlab_backup.archivers.base import RepositoryOptions
    from gitlab_backup.manifest import ComponentRecord
    from gitlab_backup.operations.plan import PlannedComponent
    from gitlab_backup.operations.restore import Proposal, Restored
    from gitlab_backup.operations.verify import Verification

    from .settings import Found

Document: TypeAlias = "bool | int | float | str | Sequence[Document] | Mapping[str, Document] | None"


def made(backup: Backup) -> dict[str, Document]:
    """Return a backup that was just made, as its manifest has it."""
    manifest = backup.manifest
    records = manifest.components if manifest is not None else ()
    document = _run(backup.id, backup.path, backup.state.value, [component(record) for record in records])
    return document | _warned(manifest.warnings if manifest is not None else ())


def started(backup_id: str | None, path: Path | None) -> dict[str, Document]:
    """Return a run that is about to begin, for a hook."""
    return _run(backup_id, path, "started", [])


def planned(
    backup_path: Path, items: Iterable[PlannedComponent], warnings: Sequence[str], *, incremental: bool
) -> dict[str, Document]:
    """Return what `--dry-run` would do. It has no backup id yet; its path is the backup path."""
    items = tuple(items)
    components: list[Document] = [
        {
            **_UNTOUCHED,
            "id": item.component.id,
            "status": "planned" if item.left_out is None else "skipped",
            "archiver": item.archiver.name,
            "reason": item.left_out,
        }
        for item in items
    ]
    base = {"base": next((item.base for item in items if item.base is not None), None)} if incremental else {}
    return _run(None, backup_path, "planned", components) | base | _warned(warnings)


def failed(error: BaseException, repositories: RepositoryOptions) -> dict[str, Document]:
    """Return a run that left no backup: there is no id and no path, but an error."""
    records = error.components if isinstance(error, BackupFailedError) else ()
    document = _run(None, None, "failed", [component(record) for record in records])
    return document | chosen(repositories) | _error(error)


def restored(result: Restored, warnings: Mapping[str, Sequence[str]]) -> dict[str, Document]:
    """Return what a restore did; or what it would do, with the `warnings` of its checks."""
    components: list[Document] = [component(record) for record in result.components]
    status = "complete_with_warnings" if result.with_warnings else "complete"
    if result.dry_run:
        status = "planned"
        archivers = result.proposal.archivers
        components = [_planned(each, archivers[each], warnings.get(each, ())) for each in archivers]
    return {
        **_run(result.backup_id, result.path, status, components),
        **_proposal(result.proposal),
        "next_steps": list(result.next_steps),
    }


def not_restored(
    backup: Backup | None, proposal: Proposal | None, repositories: RepositoryOptions, error: BaseException
) -> dict[str, Document]:
    """Return a restore that changed nothing, or has put everything back. What it did not get to know is empty."""
    run = _run(backup.id, backup.path, "failed", []) if backup is not None else _run(None, None, "failed", [])
    return {**run, **_proposal(proposal), "next_steps": [], **chosen(repositories), **_error(error)}


def chosen(repositories: RepositoryOptions) -> dict[str, Document]:
    """Return what a run on a part of the repositories has besides: which part. One that cannot be is none."""
    try:
        selection = repositories.selection
    except UsageError:
        return {}
    return {"filter": cast("Document", selection.to_record())} if selection else {}


def component(record: ComponentRecord) -> dict[str, Document]:
    """Return what became of a component."""
    return {
        "id": record.id,
        "status": record.status.value,
        "archiver": record.archiver,
        "bytes_read": record.bytes_read,
        "bytes_written": record.bytes_written,
        "duration_seconds": record.duration_seconds,
        "warnings": list(record.warnings),
        "reason": record.reason,
    }


def listed(backup: Backup) -> dict[str, Document]:
    """Return one backup of `list`. What its metadata cannot tell is null."""
    try:
        metadata = backup.metadata
    except DocumentError:
        metadata = None
    return {
        "backup_id": backup.id,
        "path": str(backup.path),
        "created_at": utc(metadata.created_at) if metadata is not None else None,
        "gitlab_version": metadata.gitlab_version if metadata is not None else None,
        "status": backup.state.value,
        "size_bytes": backup.size_bytes,
        "partial": backup.partial,
        "has_secrets": backup.has_secrets,
        "pinned": backup.pinned,
    }


def shown(backup: Backup) -> dict[str, Document]:
    """Return all that the documents of a backup say. Raises `DocumentError`."""
    manifest = backup.manifest
    if manifest is None:
        # GitLab's own tool leaves no more than the files.
        return {
            **listed(backup),
            "started_at": None,
            "finished_at": None,
            "installation": None,
            "compression": None,
            "tool": None,
            "components": [
                {
                    **dict.fromkeys(_UNTOUCHED),
                    "id": each.id,
                    "warnings": [],
                    "destination": each.destination,
                    "details": {},
                }
                for each in backup.components
            ],
        }
    return {
        **listed(backup),
        "started_at": utc(manifest.started_at),
        "finished_at": utc(manifest.finished_at),
        "installation": manifest.installation,
        "compression": {"codec": manifest.compression.codec, "level": manifest.compression.level},
        "tool": {"name": manifest.tool.name, "version": manifest.tool.version},
        **_warned(manifest.warnings),
        "components": [
            {**component(record), "destination": record.destination, "details": dict(record.details)}
            for record in manifest.components
        ],
    }


def verified(result: Verification) -> dict[str, Document]:
    """Return what `verify` found in one backup."""
    return {
        "backup_id": result.backup_id,
        "path": str(result.path),
        "status": "damaged" if result.damages else "intact",
        "files": result.files,
        "bytes": result.bytes,
        "has_checksums": result.has_checksums,
        "damages": [{"file": damage.file, "problem": damage.problem} for damage in result.damages],
    }


def configured(instance: Instance, options: Iterable[Found]) -> dict[str, Document]:
    """Return what was found of an installation, without secrets, and the options of a file and the environment."""
    return {
        "gitlab_version": instance.gitlab_version,
        "installation": instance.installation,
        "root": str(instance.root),
        "rails_env": instance.rails_env,
        "backup_path": str(instance.backup_path),
        "system_user": instance.system_user,
        "secrets_file": _text(instance.secrets_file),
        "settings": [{"name": each.name, "value": each.value, "source": each.source} for each in instance.settings],
        "options": [{"name": each.name, "value": each.value, "source": each.source} for each in options],
        "databases": [
            {
                "name": each.name,
                "dbname": each.dbname,
                "host": each.host,
                "port": each.port,
                "user": each.user,
                "system_user": each.system_user,
                "schemas": list(each.schemas),
            }
            for each in instance.databases
        ],
        "storages": [
            {"name": each.name, "path": _text(each.path), "gitaly_address": each.gitaly_address}
            for each in instance.storages
        ],
        "directories": [
            {"component": each.id, "path": str(directory.path), "left_out": directory.left_out}
            for each in COMPONENTS
            if each.holder is Holder.DIRECTORY
            for directory in [instance.directory(each)]
        ],
    }


def utc(value: datetime) -> str:
    """Return a time as `backup_information.json` has it: ISO 8601, in UTC, with seconds."""
    return f"{value:%Y-%m-%dT%H:%M:%SZ}"


_UNTOUCHED: Mapping[str, Document] = {
    "id": None,
    "status": None,
    "archiver": None,
    "bytes_read": 0,
    "bytes_written": 0,
    "duration_seconds": 0.0,
    "warnings": [],
    "reason": None,
}
"""The keys of a component, in their order."""


def _planned(component_id: str, archiver: str, warnings: Sequence[str]) -> dict[str, Document]:
    return {**_UNTOUCHED, "id": component_id, "status": "planned", "archiver": archiver, "warnings": list(warnings)}


def _proposal(proposal: Proposal | None) -> dict[str, Document]:
    if proposal is None:
        return {"plan": {}, "notes": []}
    return {
        "plan": {component: list(each.replaces) for component, each in proposal.plans.items()},
        "notes": all_notes(proposal),
    }


def _error(error: BaseException) -> dict[str, Document]:
    failure = explain(error)
    return {
        "error": {"message": failure.message, "hint": failure.hint, "exit_status": int(failure.exit_status)},
    }


def _run(backup_id: str | None, path: Path | None, status: str, components: Sequence[Document]) -> dict[str, Document]:
    return {"backup_id": backup_id, "path": _text(path), "status": status, "components": components}


def _warned(warnings: Sequence[str]) -> dict[str, Document]:
    return {"warnings": list(warnings)} if warnings else {}


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
