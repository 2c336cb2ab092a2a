"""`report`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gitlab_backup.errors import ConfigurationError, GitLabBackupError, UsageError

from .. import completion
from ..output import complain, write
from ..retention import RuleOptions, taking_rules
from ..session import Session  # noqa: TC001 - the signature is looked at when the command starts
from ..text import escape, size

if TYPE_CHECKING:
    from gitlab_backup.retention import Rules
    from gitlab_backup.store import BackupStore

_STANDARD_OUTPUT = Path("-")
_EXTRA = "Install them where this command is: pip install 'gitlab-backup-cli[report]'"


@taking_rules
def report(
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
    every: Annotated[bool, typer.Option("--all", help="Report on all backups in the backup path.")] = False,
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="FILE", help="Where the page goes; - is standard output.", show_default=False
        ),
    ],
    rules: RuleOptions,
    legacy: Annotated[
        bool, typer.Option("--legacy", help="The rules are for *_gitlab_backup.tar of the Rake task, too.")
    ] = False,
) -> None:
    """Report on backups, as a page of HTML.

    It has their sizes over time, durations, compression and warnings, and what `prune` would keep by the rules. Nothing
    is deleted. The page is one file, and needs no network.

    \b
    Examples:
      gitlab-backup-cli report --all -o report.html
      gitlab-backup-cli report --all --keep-daily 7 --keep-weekly 4 -o report.html
      gitlab-backup-cli report latest -o - | ssh desk 'cat > latest.html'
    """  # noqa: D301 - \b keeps the lines of the example apart
    if every == (backup_id is not None):
        raise UsageError(
            "name one backup, or give --all", hint="`gitlab-backup-cli list` prints the ids of the backups."
        )
    if output != _STANDARD_OUTPUT and output.exists() and not output.is_file():
        raise UsageError(f"{output} is not a regular file", hint="Name a file, or - for standard output.")
    store = session.store()
    text = _page(store, backup_id, _rules(session, rules), legacy=legacy)
    if output == _STANDARD_OUTPUT:
        write(text)
        return
    from gitlab_backup.streams.files import write_durably

    data = text.encode()
    write_durably(output.absolute(), data)
    complain(f"wrote {escape(str(output))}: {size(len(data))}\n")


def _rules(session: Session, options: RuleOptions) -> Rules | str:
    """Return the rules or, where nothing says what they are, that."""
    try:
        return options.rules(session)
    except (UsageError, ConfigurationError) as error:
        if options.given:
            raise
        # Where an installation was looked for in vain is nothing for a page.
        return error.message.partition("\n")[0].rstrip(":")


def _page(store: BackupStore, backup_id: str | None, rules: Rules | str, *, legacy: bool) -> str:
    # Heavy, and not installed everywhere.
    try:
        from ..page import overview, single
    except ImportError as error:
        raise GitLabBackupError(f"a report needs matplotlib and jinja2: {error}", hint=_EXTRA) from error
    from gitlab_backup.operations.report import gather

    name = None if backup_id is None else store.open(backup_id).name
    why, given = (rules, None) if isinstance(rules, str) else (None, rules)
    gathered = gather(store, given, legacy=legacy)
    if name is None:
        return overview.page(gathered, why_no_rules=why)
    return single.page(gathered, gathered.backup(name), why_no_rules=why)
