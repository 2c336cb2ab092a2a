"""`verify`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from gitlab_backup.errors import BackupNotFoundError, DamagedError, UsageError

from .. import completion, documents
from ..output import complain, write_json
from ..priority import Priority, prioritised
from ..reporting import Reports, logging
from ..run import running
from ..session import Session  # noqa: TC001 - the signature is looked at when the command starts
from ..text import escape, plural, size

if TYPE_CHECKING:
    from gitlab_backup import Backup
    from gitlab_backup.operations.verify import Verification

    from ..display import Display


@logging
@prioritised
def verify(
    session: Session,
    *,
    backup_id: Annotated[
        str | None,
        typer.Argument(
            metavar="BACKUP_ID",
            help="The id of a backup, or `latest`.",
            show_default=False,
            autocompletion=completion.backups_and_latest,
        ),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Verify every backup in the backup path.")] = False,
    jobs: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Do N things at once. Default: one for each core.")
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document; messages go to standard error.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")] = False,
    priority: Priority,
    reports: Reports,
) -> None:
    """Verify a backup, or all of them.

    Every file is read once, compared with its digest, and what it holds is checked: streams to their end, bundles of
    repositories, manifests. The exit status is 4 where something is damaged.

    \b
    Examples:
      gitlab-backup-cli verify latest
      gitlab-backup-cli verify --all --quiet
    """  # noqa: D301 - \b keeps the lines of the example apart
    with running(session, "verify", reports, None, json=json, quiet=quiet) as run:
        rate_limit = priority.take(session)
        if every == (backup_id is not None):
            raise UsageError(
                "name one backup, or give --all", hint="`gitlab-backup-cli list` prints the ids of the backups."
            )
        backups = _all(session) if backup_id is None else (session.backup(backup_id),)
        results = []
        with session.cancelling() as cancel, run.display() as shown:
            for backup in backups:
                result = backup.verify(jobs=jobs, rate_limit=rate_limit, observer=shown, cancel=cancel)
                shown.close()
                _tell(result, shown, quiet=quiet)
                results.append(result)
        if json:
            write_json([documents.verified(each) for each in results] if every else documents.verified(results[0]))
        if damaged := [result.backup_id for result in results if result.damages]:
            raise DamagedError(
                f"{plural(len(damaged), 'backup')} damaged: {', '.join(damaged)}",
                hint="Do not rely on it. The files that are not named are whole.",
            )
    raise typer.Exit(run.status)


def _all(session: Session) -> tuple[Backup, ...]:
    from gitlab_backup import Backup

    store = session.store()
    # To have verified nothing is no success.
    return Backup.all(store) or _none(str(store.path))


def _none(path: str) -> tuple[Backup, ...]:
    raise BackupNotFoundError(f"there is no backup in {path}", hint="Make one with `gitlab-backup-cli backup all`.")


def _tell(result: Verification, shown: Display, *, quiet: bool) -> None:
    for damage in result.damages:
        text = f"{escape(damage.file)}: {escape(damage.problem)}"
        if quiet:
            complain(f"{result.backup_id}/{text}\n")
        else:
            shown.say(text)
    read = f"{plural(result.files, 'file')}, {size(result.bytes)}"
    if result.damages:
        shown.say(f"backup {result.backup_id}: damaged in {plural(len(result.damages), 'place')}; {read} read")
    elif result.has_checksums:
        shown.say(f"backup {result.backup_id}: intact; {read} read and compared with its digests")
    else:
        shown.say(f"backup {result.backup_id}: intact; {read} read; no digests to compare, structure checked")
