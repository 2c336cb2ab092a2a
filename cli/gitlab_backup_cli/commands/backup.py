"""`backup all`."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Annotated, TypedDict

import typer

from gitlab_backup.archivers.base import RepositoryOptions
from gitlab_backup.components import Holder
from gitlab_backup.errors import ExitStatus, UsageError
from gitlab_backup.store import BackupStore

from .. import documents
from ..completion import components, compressions
from ..priority import Priority, prioritised
from ..reporting import Reports, reporting
from ..retention import RuleOptions, taking_rules
from ..run import Run, running
from ..session import Session  # noqa: TC001 - the signature is looked at when the command starts
from ..text import duration, plural, size, table
from .prune import prune_after
from .repositories import Archiver, Base, Incremental, Paths, ServerSide, SkipPaths, Storages  # noqa: TC001 - likewise

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gitlab_backup import Backup
    from gitlab_backup.operations.plan import PlannedComponent
    from gitlab_backup.retention import Rules

_LEFT = "No backup was published; what there was of it has been removed."


class _Choices(TypedDict):
    """What both the plan and the backup are told."""

    only: tuple[str, ...]
    skip: tuple[str, ...]
    include: tuple[str, ...]
    compression: str
    level: int | None
    repositories: RepositoryOptions
    archivers: dict[str, str]


class _Options(TypedDict):
    """What the backup is told besides."""

    jobs: int | None
    keep_going: bool
    insecure_store: bool
    rate_limit: int | None


@reporting
@taking_rules
@prioritised
def backup_all(
    session: Session,
    *,
    skip: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ID", help="Leave a component out. Repeat it, or give a list: a,b.", autocompletion=components
        ),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="ID", help="Back up this component only; likewise.", autocompletion=components),
    ] = None,
    include: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ID",
            help="Back up this component, too: config (configuration, secrets, keys) is not by default.",
            autocompletion=components,
        ),
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(metavar="N", help="Do N things at once. Default: one for each core.")
    ] = None,
    compression: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="How dumps and archives are compressed: gzip, zstd, none, or what other distributions bring.",
            autocompletion=compressions,
        ),
    ] = "gzip",
    compression_level: Annotated[
        int | None, typer.Option(metavar="N", help="How hard. Default: gzip 1 (of 0 to 9), zstd 3 (of 1 to 19).")
    ] = None,
    archiver: Annotated[
        list[str] | None,
        typer.Option(metavar="COMPONENT=NAME", help="Have another archiver back up a component. Repeat it for more."),
    ] = None,
    repository_storage: Storages = None,
    repository_path: Paths = None,
    skip_repository_path: SkipPaths = None,
    repositories_archiver: Archiver = None,
    repositories_server_side: ServerSide = False,
    incremental: Incremental = False,
    base: Base = None,
    keep_going: Annotated[
        bool, typer.Option("--keep-going", help="Where a component fails, publish the rest: status 3.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and change nothing.")] = False,
    insecure_store: Annotated[
        bool, typer.Option("--insecure-store", help="Accept a backup path that others can write to.")
    ] = False,
    json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document; messages go to standard error.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")] = False,
    prune: Annotated[
        bool, typer.Option("--prune", help="Then delete older backups, by the rules below or `backup.keep_time`.")
    ] = False,
    rules: RuleOptions,
    priority: Priority,
    reports: Reports,
) -> None:
    """Back up everything, or a part of it.

    Databases, repositories and files go into a new directory of the backup path. It appears when all of it is there:
    a backup that fails, or is interrupted, leaves nothing.

    The components are db, repositories, uploads, builds, artifacts, pages, lfs, terraform_state, registry, packages,
    ci_secure_files, external_diffs, ci_catalog_bundles and agent_plan_content; and config, with --include.

    \b
    Examples:
      gitlab-backup-cli backup all
      gitlab-backup-cli backup all --skip registry,artifacts --compression zstd
      gitlab-backup-cli backup all --only repositories --repository-path my/group
      gitlab-backup-cli backup all --incremental
      gitlab-backup-cli backup all --prune --keep-daily 7 --keep-weekly 4
      gitlab-backup-cli backup all --nice 10 --ionice idle --rate-limit 100M
    """  # noqa: D301 - \b keeps the lines of the example apart
    repositories = RepositoryOptions(
        storages=ids(repository_storage),
        paths=ids(repository_path),
        skip_paths=ids(skip_repository_path),
        archiver=repositories_archiver,
        server_side=repositories_server_side,
        incremental=incremental,
    )
    failed = partial(documents.failed, repositories=repositories)
    with running(session, "backup", reports, failed, json=json, quiet=quiet, dry_run=dry_run) as run:
        rate_limit = priority.take(session)
        if rules.given and not prune:
            raise UsageError(
                f"{rules.given[0]} says what to prune, and is for --prune", hint="Add --prune, or leave it out."
            )
        run.before(documents.started(None, None) | documents.chosen(repositories))
        choices = _Choices(
            only=ids(only),
            skip=ids(skip),
            include=ids(include),
            compression=compression,
            level=compression_level,
            repositories=_on_base(session, repositories, base),
            archivers=_archivers(archiver or ()),
        )
        then = rules.rules(session) if prune else None
        if dry_run:
            _plan(session, choices, run)
        else:
            options = _Options(jobs=jobs, keep_going=keep_going, insecure_store=insecure_store, rate_limit=rate_limit)
            _create(session, choices, options, then, run)
    raise typer.Exit(run.status)


def ids(values: Iterable[str] | None) -> tuple[str, ...]:
    """Return the ids of an option that is repeated, takes lists, or both."""
    return tuple(name for value in values or () for each in value.split(",") if (name := each.strip()))


def _archivers(values: Iterable[str]) -> dict[str, str]:
    """Return the archiver of each component that one is given for."""
    chosen: dict[str, str] = {}
    for value in values:
        component, _, name = (part.strip() for part in value.partition("="))
        if not component or not name:
            raise UsageError(f"--archiver takes COMPONENT=NAME, not {value!r}", hint="For example: uploads=files.")
        if chosen.setdefault(component, name) != name:
            raise UsageError(f"two archivers are given for {component}: {chosen[component]} and {name}")
    return chosen


def _on_base(session: Session, repositories: RepositoryOptions, base: str | None) -> RepositoryOptions:
    """Return the options with the base of that id, where there is one."""
    if base is None:
        return repositories
    from attrs import evolve

    return evolve(repositories, base=session.store().open(base))


def _create(session: Session, choices: _Choices, options: _Options, rules: Rules | None, run: Run) -> None:
    from gitlab_backup import Backup
    from gitlab_backup.operations.prune import PruneOptions

    started = time.monotonic()
    instance = session.instance()
    run.store = BackupStore(instance.backup_path)
    with session.cancelling(left=_LEFT) as cancel, run.display() as shown:
        backup = Backup.create(instance, **choices, **options, observer=shown, cancel=cancel)
        shown.close()
        shown.say(_closing(backup, time.monotonic() - started))
        status = ExitStatus.COMPLETE
        pruned: dict[str, documents.Document] = {}
        if rules is not None:
            then = PruneOptions(rules=rules, owner=instance.system_user, insecure_store=options["insecure_store"])
            status, pruned = prune_after(backup, then, shown, cancel)
    if status is ExitStatus.COMPLETE and backup.state != "complete":
        status = ExitStatus.WARNINGS
    run.finish(status, documents.made(backup) | documents.chosen(choices["repositories"]) | pruned)


def _closing(backup: Backup, seconds: float) -> str:
    records = backup.manifest.components if backup.manifest is not None else ()
    warnings = sum(len(record.warnings) for record in records)
    failed = [record.id for record in records if record.status == "failed"]
    notes = ["partial"] if backup.partial else []
    notes += [f"with {plural(warnings, 'warning')}"] if warnings else []
    notes += [f"failed: {', '.join(failed)}"] if failed else []
    return (
        f"backup {backup.id}: {', '.join(['complete', *notes])}"
        f"; {size(backup.size_bytes)} in {duration(seconds)}: {backup.path}"
    )


def _planned(item: PlannedComponent, choices: _Choices) -> str:
    repositories = choices["repositories"]
    if item.left_out is not None:
        return f"leave out: {item.left_out}"
    if item.component.holder is not Holder.STORAGES:
        return "back up"
    text = f"back up those {repositories.selection}" if repositories.selection else "back up"
    if item.base is not None:
        return f"{text} as increments on {item.base}"
    return f"{text} in full: there is no backup to build on" if repositories.incremental else text


def _plan(session: Session, choices: _Choices, run: Run) -> None:
    from gitlab_backup import Backup
    from gitlab_backup.operations.advice import about_config

    instance = session.instance()
    planned = Backup.plan(instance, **choices)
    warnings = about_config([item.component.id for item in planned if item.left_out is None])
    repositories = choices["repositories"]
    run.finish(
        ExitStatus.COMPLETE,
        documents.planned(instance.backup_path, planned, warnings, incremental=repositories.incremental)
        | documents.chosen(repositories),
    )
    if not (run.json or run.quiet):
        rows = [(item.component.id, item.archiver.name, _planned(item, choices)) for item in planned]
        told = "".join(f"\nwarning: {warning}\n" for warning in warnings)
        run.write(
            table(("component", "archiver", "plan"), rows) + f"\nInto a new backup in {instance.backup_path}\n{told}"
        )
