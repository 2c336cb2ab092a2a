"""`check`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from gitlab_backup.errors import ConfigurationError, ExitStatus, UsageError

from .. import health
from ..boundary import document_of_failure, explain
from ..output import write, write_json
from ..session import Session  # noqa: TC001 - the signature is looked at when the command starts

if TYPE_CHECKING:
    from gitlab_backup import Instance
    from gitlab_backup.operations.check import Health, Limits


def check(
    session: Session,
    *,
    max_age: Annotated[
        str, typer.Option(metavar="SPAN", help="How old the newest complete backup may be: 26h, 8d, 2w.")
    ] = "26h",
    min_size: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="How small it may be: 500M, 10G. Default: no limit.", show_default=False),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    nagios: Annotated[
        bool, typer.Option("--nagios", help="Print one line, and exit, as a plugin of Nagios does.")
    ] = False,
) -> None:
    """Check that the next backup will succeed.

    Looks whether backups can be made and restored, and whether there is a recent one. Changes nothing.

    The exit status is 0 where all is well, 1 for problems, 3 for warnings.

    \b
    Examples:
      gitlab-backup-cli check --max-age 26h --min-size 10G
      gitlab-backup-cli check --nagios
    """  # noqa: D301 - \b keeps the lines of the example apart
    from gitlab_backup.operations.check import Level

    if nagios:
        raise typer.Exit(_plugin(session, max_age, min_size, json=json))
    with document_of_failure(health.failed if json else None):
        found = _look(session, _limits(max_age, min_size))
    if json:
        write_json(health.document(found))
    else:
        write(health.lines(found))
    statuses = {Level.OK: ExitStatus.COMPLETE, Level.WARNING: ExitStatus.WARNINGS, Level.PROBLEM: ExitStatus.FAILED}
    raise typer.Exit(statuses[found.level])


def _look(session: Session, limits: Limits) -> Health:
    from gitlab_backup.operations.check import check as run

    instance: Instance | ConfigurationError
    try:
        instance = session.instance()
    except ConfigurationError as error:
        instance = error
    with session.cancelling() as cancel:
        return run(instance, limits, store=session.named_store(), cancel=cancel)


def _limits(max_age: str, min_size: str | None) -> Limits:
    from gitlab_backup.operations.check import Limits
    from gitlab_backup.retention import parse_span
    from gitlab_backup.sizes import parse_size

    return Limits(max_age=parse_span(max_age), min_size=None if min_size is None else parse_size(min_size))


def _plugin(session: Session, max_age: str, min_size: str | None, *, json: bool) -> int:
    """Print the line of a plugin, whatever happens, and return its status."""
    try:
        _refuse_both(json=json)
        limits = _limits(max_age, min_size)
        line, status = health.plugin(_look(session, limits), limits)
    except BaseException as error:  # noqa: BLE001 - a plugin that ends without its line tells nobody why
        line, status = health.unknown(explain(error).message)
    write(f"{line}\n")
    return status


def _refuse_both(*, json: bool) -> None:
    if json:
        raise UsageError("--json and --nagios were both given", hint="Choose one of them.")
