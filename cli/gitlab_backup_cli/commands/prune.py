"""`prune`, `pin` and `unpin`."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer
from attrs import evolve

from gitlab_backup.errors import CancelledError, ExitStatus, GitLabBackupError
from gitlab_backup.events import BackupDeleted
from gitlab_backup.store import BackupStore

from .. import completion, retention
from ..boundary import explain
from ..output import complain, write
from ..reporting import Reports, reporting
from ..retention import RuleOptions, taking_rules
from ..run import running
from ..session import Session  # noqa: TC001 - the signature is looked at when the command starts
from ..text import escape

if TYPE_CHECKING:
    from pathlib import Path

    from gitlab_backup import Backup
    from gitlab_backup.events import Event
    from gitlab_backup.operations.prune import PruneOptions
    from gitlab_backup.streams.cancel import Cancellation

    from ..display import Display
    from ..documents import Document

_PINNABLE = "The id of a backup, `latest`, or the name of a file of the Rake task."
PinArgument = Annotated[
    str, typer.Argument(metavar="BACKUP_ID", help=_PINNABLE, show_default=False, autocompletion=completion.pinnable)
]
UnpinArgument = Annotated[
    str, typer.Argument(metavar="BACKUP_ID", help=_PINNABLE, show_default=False, autocompletion=completion.pinned)
]


@reporting
@taking_rules
def prune(
    session: Session,
    *,
    rules: RuleOptions,
    legacy: Annotated[bool, typer.Option("--legacy", help="Prune *_gitlab_backup.tar of the Rake task, too.")] = False,
    incomplete: Annotated[
        bool,
        typer.Option("--incomplete", help="Remove what interrupted backups have left. Without a rule, nothing else."),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and change nothing.")] = False,
    insecure_store: Annotated[
        bool, typer.Option("--insecure-store", help="Accept a backup path that others can write to.")
    ] = False,
    json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document; messages go to standard error.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")] = False,
    reports: Reports,
) -> None:
    """Delete the backups that no rule keeps.

    A backup stays where any of the rules keeps it, and is then named with that rule. Without a rule,
    `backup.keep_time` of gitlab.yml is the rule. What is not a complete backup is named, and left alone.

    \b
    Examples:
      gitlab-backup-cli prune --keep-daily 7 --keep-weekly 4 --dry-run
      gitlab-backup-cli prune --keep-within 14d --minimum 3
    """  # noqa: D301 - \b keeps the lines of the example apart
    from gitlab_backup.operations.prune import PruneOptions
    from gitlab_backup.operations.prune import prune as delete

    deleted: list[BackupDeleted] = []
    path: Path | None = None

    def failed(error: BaseException) -> dict[str, Document]:
        return retention.failed(path, deleted, error)

    with running(session, "prune", reports, failed, json=json, quiet=quiet, dry_run=dry_run) as run:
        run.before({"status": "started"})
        chosen = None if incomplete and not rules.given else rules.rules(session)
        run.store = store = session.store()
        options = PruneOptions(
            rules=chosen,
            legacy=legacy,
            incomplete=incomplete,
            dry_run=dry_run,
            owner=_owner(session, store),
            insecure_store=insecure_store,
        )
        path = store.path
        with session.cancelling(left=retention.LEFT) as cancel, run.display() as shown:

            def observe(event: Event) -> None:
                if isinstance(event, BackupDeleted):
                    deleted.append(event)
                shown(event)

            done = delete(store, options, observer=observe, cancel=cancel)
        run.finish(ExitStatus.COMPLETE, retention.document(done))
        if not (json or quiet):
            run.write("".join(f"{line}\n" for line in retention.lines(done, legacy=legacy)))
    raise typer.Exit(run.status)


def _owner(session: Session, store: BackupStore) -> str | None:
    """Return GitLab's system user, where that is what makes the owner of the backup path one of ours."""
    with suppress(GitLabBackupError, OSError):
        if store.path.stat().st_uid not in {0, os.geteuid()}:
            return session.instance().system_user
    return None


def prune_after(
    backup: Backup, options: PruneOptions, shown: Display, cancel: Cancellation
) -> tuple[ExitStatus, dict[str, Document]]:
    """Prune after a backup was made. Nothing that goes wrong here makes it less: it is told, and has a status.

    Returns the status (complete, warnings, or that of a signal) and what the document of the run says besides.
    """
    from gitlab_backup.operations.prune import prune as run

    deleted: list[BackupDeleted] = []

    def observe(event: Event) -> None:
        if isinstance(event, BackupDeleted):
            deleted.append(event)
        shown(event)

    store = BackupStore(backup.path.parent)
    try:
        done = run(store, evolve(options, new=backup.id), observer=observe, cancel=cancel)
    except Exception as error:  # noqa: BLE001 - whatever it is, there is a backup, and that is to be told
        failure = explain(error)
        text = f"the backup {backup.id} was made, but not everything was pruned: {failure.message}"
        hint = retention.LEFT if isinstance(error, CancelledError) else failure.hint
        complain(f"error: {escape(text, lines=True)}\n" + (f"hint: {escape(hint, lines=True)}\n" if hint else ""))
        status = error.exit_status if isinstance(error, CancelledError) else ExitStatus.WARNINGS
        return status, {"prune": retention.failed(store.path, deleted, error)}
    for text in retention.lines(done, legacy=False):
        shown.say(text)
    return ExitStatus.COMPLETE, {"prune": retention.document(done)}


def pin(session: Session, *, backup_id: PinArgument) -> None:
    """Protect a backup from being pruned.

    It stays, whatever the rules say, until `gitlab-backup-cli unpin`.

    \b
    Example:
      gitlab-backup-cli pin latest
    """  # noqa: D301 - \b keeps the lines of the example apart
    write(f"pinned {session.store().pin(backup_id)}\n")


def unpin(session: Session, *, backup_id: UnpinArgument) -> None:
    """Let a backup be pruned again.

    It stays as long as a rule keeps it.

    \b
    Example:
      gitlab-backup-cli unpin 1714053314_2024_04_25_17.0.0-pre
    """  # noqa: D301 - \b keeps the lines of the example apart
    write(f"unpinned {session.store().unpin(backup_id)}\n")
