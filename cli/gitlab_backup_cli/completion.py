"""What a shell is offered where TAB is pressed: ids of components and of backups.

It has to be quick and quiet. So no database is asked and no program is run; what cannot be read has nothing to offer.
"""

from __future__ import annotations

import os
import sys
from contextlib import redirect_stderr, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer  # noqa: TC002 - typer looks at the signatures

from gitlab_backup.errors import ExitStatus, GitLabBackupError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from gitlab_backup.store import BackupStore

    from .session import Session

INSTALLATION = ("context", "gitlab_path", "gitlab_config", "backup_path")
"""Those of the options about the installation that say where the backups are."""
VARIABLE = "_GITLAB_BACKUP_CLI_COMPLETE"
"""Set by the script of a shell that asks."""


def complete(command: Callable[[], int]) -> int:
    """Answer a shell. Whatever goes wrong, its user is typing: nothing is said."""
    # Typer would load it to take marks out of the helps, which have none: that takes as long as all the rest.
    sys.modules["rich"] = None  # type: ignore[assignment]
    with open(os.devnull, "w", encoding="utf-8") as nowhere, redirect_stderr(nowhere):  # noqa: PTH123 - a device
        try:
            return command()
        except Exception:  # noqa: BLE001 - see above
            return ExitStatus.FAILED


def components(incomplete: str) -> list[tuple[str, str]]:
    """Offer the ids of components, also as the next one of a list: `db,up`."""
    from gitlab_backup.components import COMPONENTS

    before, comma, _ = incomplete.rpartition(",")
    given = before.split(",")
    return [(f"{before}{comma}{each.id}", each.name) for each in COMPONENTS if each.id not in given]


def compressions() -> tuple[str, ...]:
    """Offer the names of compressions, also those of other distributions."""
    from gitlab_backup import plugins
    from gitlab_backup.streams.codec import ENTRY_POINTS

    return plugins.names(ENTRY_POINTS)


def backups(ctx: typer.Context) -> list[tuple[str, str]]:
    """Offer the ids of backups."""
    return list(_described(_read(ctx, lambda store: store.ids())))


def backups_and_latest(ctx: typer.Context) -> list[tuple[str, str]]:
    """Offer the ids of backups, and `latest`."""
    found = backups(ctx)
    return [*found, ("latest", "the newest backup")] if found else []


def pinnable(ctx: typer.Context) -> list[tuple[str, str]]:
    """Offer what can be pinned: backups, `latest`, and the files of the Rake task."""
    files = [(name, "of the Rake task") for name in _read(ctx, lambda store: store.legacy())]
    return backups_and_latest(ctx) + files


def pinned(ctx: typer.Context) -> list[tuple[str, str]]:
    """Offer what is pinned."""
    return list(_described(sorted(_read(ctx, lambda store: store.pinned()))))


def _read(context: typer.Context, names: Callable[[BackupStore], Iterable[str]]) -> Iterable[str]:
    with suppress(GitLabBackupError):
        return tuple(names(_store(context)))
    return ()


def _store(context: typer.Context) -> BackupStore:
    session: Session = context.obj
    chain: list[Any] = [context]
    while (parent := chain[0].parent) is not None:
        chain.insert(0, parent)
    for each in chain:
        # What the options say is text yet.
        given = {name: each.params.get(name) for name in INSTALLATION}
        session.override(each, {name: None if value is None else Path(value) for name, value in given.items()})
    return session.named_store() or session.quick_store()


def _described(names: Iterable[str]) -> Iterator[tuple[str, str]]:
    from gitlab_backup.backup_id import BackupId
    from gitlab_backup.errors import MetadataError

    for name in names:
        try:
            made = BackupId.parse(name)
        except MetadataError:
            yield name, "of the Rake task"
        else:
            yield name, f"GitLab {made.gitlab_version}, {made.created_at:%Y-%m-%d %H.%M} UTC"
