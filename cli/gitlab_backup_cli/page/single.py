"""The report on one backup."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gitlab_backup.errors import DocumentError
from gitlab_backup.events import Status
from gitlab_backup.operations.report import base, digests, entries, ratio, selection

from ..text import duration, plural, size, time
from . import charts
from .chart import NOTHING, name_of
from .overview import badges, told, verdict
from .rendering import Badge, Tile, render

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gitlab_backup.documents import JSON
    from gitlab_backup.manifest import ComponentRecord, Manifest
    from gitlab_backup.operations.report import BackupFigures, Digests, Report

_MOST_TEXTS: Final = 500
_MOST_FACTS: Final = 200
"""Of the details of one component."""
_MOST_ITEMS: Final = 20
"""Of a list in them."""
_ONE: Final = {"members": "member", "repositories": "repository", "databases": "database"}
_TONES: Final = {Status.COMPLETE: "good", Status.WARNING: "warn", Status.FAILED: "bad"}


def page(report: Report, backup: BackupFigures, *, why_no_rules: str | None) -> str:
    """Return the page; `why_no_rules` says why there are no rules, where there are none."""
    records = backup.manifest.components if backup.manifest is not None else ()
    drawn = [charts.one(backup.done, of_time=each) for each in (False, True)] if backup.done else []
    try:
        found, problem = digests(backup.path), "It has no SHA256SUMS: GitLab's own tool makes none."
    except DocumentError as error:
        found, problem = None, error.message
    return render(
        "backup.html",
        report.made_at,
        title=f"GitLab backup of {time(backup.created_at)}",
        lead=f"{backup.id}, as of {time(report.made_at)} UTC",
        tiles=list(_tiles(backup)),
        notices=[f"This is no whole backup: {backup.flaw}"] if backup.flaw is not None else [],
        facts=[*_facts(backup, why_no_rules), *(_of_manifest(backup.manifest) if backup.manifest is not None else ())],
        charts=drawn,
        components=[_row(record) for record in records],
        told=told(backup, "In this backup", backup.warnings, _MOST_TEXTS) if backup.warnings else None,
        left_out=[(each.id, each.status.value, each.reason or "nothing says why") for each in backup.left_out],
        details=[_details(record) for record in records if record.details],
        digests=None if found is None else _digests(found),
        no_digests=problem,
    )


def _tiles(backup: BackupFigures) -> Iterator[Tile]:
    state, *_ = badges(backup)
    yield Tile("State", state.text, "pinned" if backup.pinned else "")
    yield Tile("Size", size(backup.size_bytes), f"{size(backup.bytes_read)} read" if backup.done else "")
    if backup.duration_seconds is not None:
        yield Tile("It took", duration(backup.duration_seconds), plural(len(backup.done), "component"))
    yield Tile("Compression", charts.as_ratio(backup.ratio))
    yield Tile("Warnings", str(len(backup.warnings)), f"{plural(len(backup.left_out), 'component')} left out")


def _facts(backup: BackupFigures, why_no_rules: str | None) -> Iterator[tuple[str, str]]:
    yield "Backup id", backup.id
    yield "Directory", str(backup.path)
    yield "State", ", ".join(each.text for each in badges(backup))
    yield (
        "prune would",
        verdict(backup) if why_no_rules is None else f"{NOTHING} (no rules to judge by: {why_no_rules})",
    )


def _of_manifest(manifest: Manifest) -> Iterator[tuple[str, str]]:
    level = manifest.compression.level
    yield "Started", f"{manifest.started_at:%Y-%m-%d %H:%M:%S} UTC"
    yield "Finished", f"{manifest.finished_at:%Y-%m-%d %H:%M:%S} UTC"
    yield "GitLab", f"{manifest.gitlab_version} ({manifest.installation})"
    yield "Compression", manifest.compression.codec + ("" if level is None else f", level {level}")
    yield "Made by", f"{manifest.tool.name} {manifest.tool.version}"
    yield "Selected", "everything" if not manifest.partial else ", ".join(manifest.selected)
    for record in manifest.components:
        if (chosen := selection(record)) is not None:
            yield f"Of {record.id}", f"only {chosen}"
        if (other := base(record)) is not None:
            yield "Increment on", f"{other} ({record.id})"
    if manifest.secrets_sha256 is not None:
        yield "SHA-256 of the secrets file", f"{manifest.secrets_sha256} (the secrets are not in the backup)"


def _row(record: ComponentRecord) -> dict[str, object]:
    there = record.status in {Status.COMPLETE, Status.WARNING}
    counted = entries(record)
    cells = (
        size(record.bytes_read),
        size(record.bytes_written),
        charts.as_ratio(ratio(record.bytes_read, record.bytes_written)),
        duration(record.duration_seconds),
        NOTHING if counted is None else f"{counted[0]:,} {_ONE[counted[1]] if counted[0] == 1 else counted[1]}",
        str(len(record.warnings)),
    )
    return {
        "name": name_of(record.id),
        "badge": Badge(record.status.value, _TONES.get(record.status, "")),
        "cells": cells if there else (NOTHING,) * len(cells),
        "archiver": record.archiver,
    }


def _details(record: ComponentRecord) -> dict[str, object]:
    facts = [(name, text) for name, text in _flat(dict(record.details), "") if text]
    return {
        "name": name_of(record.id),
        "facts": facts[:_MOST_FACTS],
        "more": max(len(facts) - _MOST_FACTS, 0),
    }


def _flat(value: JSON, name: str) -> Iterator[tuple[str, str]]:
    """Return what is in a value, each with its place: `databases.main.encoding`. What did not happen is empty."""
    if isinstance(value, dict):
        for key, child in value.items():
            yield from _flat(child, f"{name}.{key}" if name else key)
    elif isinstance(value, list) and any(isinstance(each, dict | list) for each in value):
        for number, child in enumerate(value, start=1):
            yield from _flat(child, f"{name}.{number}")
    elif isinstance(value, list):
        more = f" and {len(value) - _MOST_ITEMS} more" if len(value) > _MOST_ITEMS else ""
        yield name, ", ".join(map(str, value[:_MOST_ITEMS])) + more
    elif isinstance(value, int) and not isinstance(value, bool):
        yield name, f"{value:,}" + (f" ({size(value)})" if name.endswith("_bytes") and value else "") if value else ""
    else:
        yield name, "" if value is None or value is False else str(value)


def _digests(found: Digests) -> dict[str, object]:
    return {
        "sha256": found.sha256,
        "groups": [
            {
                "head": f"{'Documents and others' if each.component is None else name_of(each.component)}: "
                f"{plural(each.count, 'file')}",
                "files": each.files,
            }
            for each in found.groups
        ],
    }
