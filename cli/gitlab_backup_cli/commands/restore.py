"""`restore all`."""

from __future__ import annotations

import sys
import time
from enum import StrEnum
from pathlib import Path  # noqa: TC003 - the signature is looked at when the command starts
from typing import TYPE_CHECKING, Annotated, TypedDict

import typer
from attrs import define, field

from gitlab_backup.archivers.base import RepositoryOptions
from gitlab_backup.components import select
from gitlab_backup.errors import ExitStatus, RefusedError
from gitlab_backup.events import ComponentWarned
from gitlab_backup.store import LATEST, BackupStore

from .. import documents
from ..completion import components
from ..display.plan import header, notes, plan
from ..output import columns, complain
from ..priority import Priority, prioritised
from ..reporting import Reports, reporting
from ..run import Run, running
from ..session import Session  # noqa: TC001 - the signature is looked at when the command starts
from ..text import bullets, duration, escape, plural, size, wrap
from .backup import ids
from .listing import BackupIdArgument  # noqa: TC001 - likewise
from .repositories import Archiver, Paths, ServerSide, SkipPaths, Storages  # noqa: TC001 - likewise

if TYPE_CHECKING:
    from gitlab_backup import Backup, Instance
    from gitlab_backup.events import Event
    from gitlab_backup.operations.restore import Proposal, Restored

    from ..display import Display

_QUESTION = 'Type "yes" to restore. Anything else leaves everything as it is:'


class DatabaseStrategy(StrEnum):
    """How databases are replaced."""

    SWAP = "swap"
    TRANSACTION = "transaction"


class _Choices(TypedDict):
    """What the restore is told, besides what and where."""

    only: tuple[str, ...]
    skip: tuple[str, ...]
    include: tuple[str, ...]
    jobs: int | None
    force_version: bool
    verify: bool
    dry_run: bool
    keep_going: bool
    keep_old: bool
    database_strategy: str | None
    repositories: RepositoryOptions
    config_to: Path | None
    insecure_store: bool
    rate_limit: int | None


@reporting
@prioritised
def restore_all(
    session: Session,
    *,
    backup_id: BackupIdArgument,
    skip: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ID", help="Leave a component as it is. Repeat it, or give a list: a,b.", autocompletion=components
        ),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="ID", help="Restore this component only; likewise.", autocompletion=components),
    ] = None,
    include: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ID", help="Restore this component, too: config is not by default.", autocompletion=components
        ),
    ] = None,
    config_to: Annotated[
        Path | None,
        typer.Option(
            metavar="DIRECTORY",
            help="Extract config into this new or empty directory. It replaces nothing.",
            show_default=False,
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    force_version: Annotated[
        bool, typer.Option("--force-version", help="Restore into another version of GitLab, at your own risk.")
    ] = False,
    no_verify: Annotated[bool, typer.Option("--no-verify", help="Do not verify the backup before.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Do every check, say what would be replaced, and change nothing.")
    ] = False,
    jobs: Annotated[
        int | None, typer.Option(metavar="N", help="Do N things at once. Default: one for each core.")
    ] = None,
    keep_going: Annotated[
        bool, typer.Option("--keep-going", help="Where a repository cannot be restored, restore the rest: status 3.")
    ] = False,
    keep_old: Annotated[
        bool,
        typer.Option("--keep-old", help="Keep what is replaced, beside the new."),
    ] = False,
    database_strategy: Annotated[
        DatabaseStrategy | None,
        typer.Option(help="How databases are replaced. Default: swap, where that is possible.", show_default=False),
    ] = None,
    repository_storage: Storages = None,
    repository_path: Paths = None,
    skip_repository_path: SkipPaths = None,
    repositories_archiver: Archiver = None,
    repositories_server_side: ServerSide = False,
    insecure_store: Annotated[
        bool, typer.Option("--insecure-store", help="Accept a backup path that others can write to.")
    ] = False,
    json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document; messages go to standard error.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only, and the question.")] = False,
    priority: Priority,
    reports: Reports,
) -> None:
    """Restore a backup, or a part of it.

    Everything is checked first. Then you are told what will be replaced, and asked. Afterwards the installation is as
    the backup or, where that fails, as it was.

    `gitlab-backup-cli show BACKUP_ID` lists the components of a backup.

    \b
    Examples:
      gitlab-backup-cli restore all latest --dry-run
      gitlab-backup-cli restore all 1714053314_2024_04_25_17.0.0-pre
      gitlab-backup-cli restore all latest --only db,uploads --yes
      gitlab-backup-cli restore all latest --repository-path my/group/project
      gitlab-backup-cli restore all latest --only config --config-to /root/config
    """  # noqa: D301 - \b keeps the lines of the example apart
    choices = _Choices(
        only=ids(only),
        skip=ids(skip),
        include=ids(include),
        jobs=jobs,
        force_version=force_version,
        verify=not no_verify,
        dry_run=dry_run,
        keep_going=keep_going,
        keep_old=keep_old,
        database_strategy=database_strategy,
        insecure_store=insecure_store,
        repositories=RepositoryOptions(
            storages=ids(repository_storage),
            paths=ids(repository_path),
            skip_paths=ids(skip_repository_path),
            archiver=repositories_archiver,
            server_side=repositories_server_side,
        ),
        config_to=config_to,
        rate_limit=None,
    )
    restore = _Restore(session, choices["repositories"], ask=not (yes or dry_run))
    with running(session, "restore", reports, restore.failed, json=json, quiet=quiet, dry_run=dry_run) as run:
        choices["rate_limit"] = priority.take(session)
        restore.run(backup_id, choices, run)
    raise typer.Exit(run.status)


@define
class _Restore:
    """One restore, and what is known of it so far."""

    session: Session
    repositories: RepositoryOptions
    ask: bool
    backup: Backup | None = None
    proposal: Proposal | None = None
    warnings: dict[str, list[str]] = field(factory=dict)
    """What the checks warned of, by component."""

    def run(self, backup_id: str, choices: _Choices, run: Run) -> None:
        """Restore, and tell about it."""
        from gitlab_backup import Backup

        started = time.monotonic()
        select(choices["only"], choices["skip"], choices["include"])
        instance = self.session.instance()
        run.store = BackupStore(instance.backup_path)
        self.backup = Backup.open(instance.backup_path, backup_id)
        if self.ask and not _somebody_is_there():
            raise RefusedError(
                "nobody is there to confirm the restore; nothing was changed",
                hint="Run it on a terminal. Or look at what --dry-run says, then give --yes.",
            )
        with (
            self.session.cancelling(left="Nothing was changed.") as cancel,
            run.display() as shown,
        ):
            if backup_id == LATEST:
                shown.say(f"{LATEST} is {self.backup.id}")

            def observe(event: Event) -> None:
                if isinstance(event, ComponentWarned) and self.proposal is None:
                    self.warnings.setdefault(event.component, []).append(event.message)
                shown(event)

            def confirm(proposal: Proposal) -> bool:
                self.proposal = proposal
                shown.close()
                agreed = self._confirm(proposal, instance, shown, run)
                if agreed:
                    started = documents.started(proposal.backup_id, proposal.path)
                    run.before(started | documents.chosen(self.repositories), cancel)
                self.session.left = "Everything was put back: the installation is as it was."
                return agreed

            restored = self.backup.restore(instance, **choices, confirm=confirm, observer=observe, cancel=cancel)
            shown.close()
            if not restored.dry_run:
                shown.say(_closing(restored, time.monotonic() - started))
        self._result(restored, instance, choices["repositories"], run)

    def failed(self, error: BaseException) -> dict[str, documents.Document]:
        """Return the document of a restore that did not come to its end."""
        return documents.not_restored(self.backup, self.proposal, self.repositories, error)

    def _confirm(self, proposal: Proposal, instance: Instance, shown: Display, run: Run) -> bool:
        if not self.ask:
            width = columns(sys.stderr if run.json else sys.stdout)
            shown.say(f"\n{header(proposal, instance)}{plan(proposal, width)}{notes(proposal, {}, width)}")
            return True
        width = columns(sys.stderr)
        # The warnings of the checks are on screen, but for `--quiet`.
        warnings = self.warnings if run.quiet else {}
        text = f"\n{header(proposal, instance)}{plan(proposal, width)}{notes(proposal, warnings, width)}\n"
        complain(f"{text}{wrap(_QUESTION, width, indent=0).rstrip()} ")
        try:
            with self.session.signals.waiting():
                # Bytes: whatever is typed is an answer, and only one of them is yes.
                answer = sys.stdin.buffer.readline()
        except BaseException:
            complain("\n")
            raise
        complain("\n" if not answer.endswith(b"\n") else "")
        return answer.strip().lower() == b"yes"

    def _result(self, restored: Restored, instance: Instance, repositories: RepositoryOptions, run: Run) -> None:
        status = ExitStatus.WARNINGS if restored.with_warnings else ExitStatus.COMPLETE
        run.finish(status, documents.restored(restored, self.warnings) | documents.chosen(repositories))
        if run.json or run.quiet:
            return
        width = columns(sys.stdout)
        if restored.dry_run:
            run.write(
                f"\n{header(restored.proposal, instance)}{plan(restored.proposal, width)}"
                f"{notes(restored.proposal, {}, width)}\nEvery check has passed. Nothing was changed (--dry-run).\n"
            )
        else:
            steps = bullets(restored.next_steps, width, numbered=True)
            run.write(f"\nWhat you must still do, in this order:\n\n{steps}")


def _somebody_is_there() -> bool:
    """Return whether a question would be seen and could be answered."""
    return sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()


def _closing(restored: Restored, seconds: float) -> str:
    warnings = sum(len(record.warnings) for record in restored.components)
    written = size(sum(record.bytes_written for record in restored.components))
    but = f", with {plural(warnings, 'warning')}" if warnings else ""
    return f"restore {escape(restored.backup_id)}: complete{but}; {written} in {duration(seconds)}"
