"""The tree of commands."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - the signature is looked at when the command starts
from typing import Annotated

import typer

from gitlab_backup.errors import ConfigurationError

from . import settings
from .commands import backup, check, config, listing, prune, report, restore, status, verification, version
from .help import Command, Group
from .session import on_installation


def _example(arguments: str) -> str:
    return f"\b\nExample:\n  gitlab-backup-cli {arguments}"


_EPILOG = """\b
The options of the installation can also be given behind a command.
Exit statuses: 0 complete, 1 failed, 2 usage, 3 complete with warnings,
4 damage found, 5 no such backup, 6 locked by another operation,
7 configuration cannot be used, 8 refused, 130 interrupted, 143 terminated.

\b
Examples:
  gitlab-backup-cli backup all
  gitlab-backup-cli backup all --help"""

_SETTINGS = {"help_option_names": ["-h", "--help"]}

app = typer.Typer(
    name="gitlab-backup-cli",
    cls=Group,
    help="Back up and restore a self-managed GitLab; list, verify and prune its backups.",
    epilog=_EPILOG,
    # Help is plain text: it looks the same on every terminal, in a log and in a pipe.
    rich_markup_mode=None,
    # Errors are explained at the boundary.
    pretty_exceptions_enable=False,
    context_settings=_SETTINGS,
)
_backup = typer.Typer(
    cls=Group, help="Make backups.", epilog=_example("backup all"), rich_markup_mode=None, context_settings=_SETTINGS
)
_restore = typer.Typer(
    cls=Group,
    help="Restore backups.",
    epilog=_example("restore all latest"),
    rich_markup_mode=None,
    context_settings=_SETTINGS,
)
_config = typer.Typer(
    cls=Group,
    help="Look at the configuration.",
    epilog=_example("config show"),
    rich_markup_mode=None,
    context_settings=_SETTINGS,
)
app.add_typer(_backup, name="backup")
app.add_typer(_restore, name="restore")
app.add_typer(_config, name="config")


def _version(value: bool) -> None:  # noqa: FBT001 - the signature of an option's callback
    if value:
        version.version()
        raise typer.Exit


def _config_file(context: typer.Context, value: Path | None) -> Path | None:
    # Before the other options are looked at: their values may be in it.
    try:
        context.obj.settings = settings.read(context, value)
    except ConfigurationError:
        if not context.resilient_parsing:  # a shell asks for completions
            raise
    context.default_map = context.obj.settings.defaults
    return value


@app.callback()
@on_installation
def _top(
    session: object,
    *,
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help=f"Take options from this file, too. Default: {settings.FILE}, if it exists.",
            envvar="GITLAB_BACKUP_CLI_CONFIG",
            show_envvar=False,
            show_default=False,
            callback=_config_file,
            is_eager=True,
        ),
    ] = None,
    debug: Annotated[
        bool, typer.Option("--debug", help="Print the traceback of an error. So does GITLAB_BACKUP_DEBUG=1.")
    ] = False,
    show_version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Take the options before the command: those of the installation go to the session."""


_backup.command("all", cls=Command)(on_installation(backup.backup_all))
_restore.command("all", cls=Command)(on_installation(restore.restore_all))
app.command("list", cls=Command)(on_installation(listing.list_backups))
app.command("show", cls=Command)(on_installation(listing.show))
app.command("status", cls=Command)(on_installation(status.status))
app.command("verify", cls=Command)(on_installation(verification.verify))
app.command("check", cls=Command)(on_installation(check.check))
app.command("prune", cls=Command)(on_installation(prune.prune))
app.command("report", cls=Command)(on_installation(report.report))
app.command("pin", cls=Command)(on_installation(prune.pin))
app.command("unpin", cls=Command)(on_installation(prune.unpin))
_config.command("show", cls=Command)(on_installation(config.show))
app.command("version", cls=Command)(version.version)
