"""Having Gitaly restore its repositories, in place: what is checked before, and what is known after.

Nothing can be built beside the old here, nor put back: gitaly-backup changes each repository where it is, and the disks
of a Gitaly that runs are not ours to touch. So everything is checked first, and a report is written while it works.

What is restored is what the backup's own manifests name. They are there before anything is changed, and tell what the
backup has, also where the database is not restored with it. For a server-side backup nothing is here: then it is what
the database lists, after that was restored.
"""

from __future__ import annotations

import json
from contextlib import ExitStack, closing
from functools import partial
from typing import TYPE_CHECKING, Final

from ...errors import ComponentError, ProgramNotFoundError, RefusedError
from ...streams.files import FileSink, remove_durably
from ..base import RestorePlan
from ..git.listing import Listing
from ..git.targets import in_backup
from ..wanted import Wanted, notes_on_selection, recorded_selection, removes_others
from .exchange import Exchange, Request
from .held import held_by
from .log import Failures
from .program import GitalyBackup, check_storages
from .report import ReportFile, Summary

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from ..base import JSON, RestoreJob
    from .log import Report

_LIST: Final = ".gitlab-restore.repositories.list"
_REPORT: Final = ".gitlab-restore.repositories.report"
_NAMED: Final = 20
"""How many repositories an error names."""


def plan(job: RestoreJob) -> RestorePlan:
    """Check everything that can be checked. Changes nothing."""
    details = job.details or {}
    server_side = details.get("server_side") is True
    missing: list[str] = []
    try:
        gitaly = GitalyBackup.of(job.instance, cancel=job.cancel)
    except ProgramNotFoundError as error:
        if not server_side:
            raise
        raise RefusedError(
            "the repositories of this backup are in the object storage of Gitaly (it is a server-side backup), and only"
            f" gitaly-backup can restore them: {error.message}",
            hint=error.hint,
        ) from error
    if job.options.repositories.server_side and job.details is not None and not server_side:
        raise RefusedError(
            "the repositories of this backup are in it, not in the object storage of Gitaly",
            hint="Restore it without --repositories-server-side.",
        )
    if server_side:
        recorded = details.get("storages")
        chosen = job.options.repositories.storages
        there = recorded if isinstance(recorded, dict) else {}
        storages = sorted(name for name in there if not chosen or name in chosen)
        backup_id, what = str(details.get("id", job.backup_id)), f"{details.get('repositories')}"
        what = f"those of {what} that are chosen" if job.options.repositories.filtered else what
        count = 0
    else:
        held = held_by(job, wanted := Wanted.of(job), by_fetching=not gitaly.restores_exactly)
        missing = wanted.notes(partial(in_backup, job))
        storages = sorted({storage for storage, _ in held.repositories})
        backup_id, count, what = held.backup_id, len(held.repositories), str(len(held.repositories))
    check_storages(job.instance, storages)
    remove, notes = _removal(job, gitaly, server_side=server_side)
    where = f"on the storages {', '.join(storages)}" if storages else "on no storage"
    replaces = [f"repositories {where}: {what}, in place, by gitaly-backup {gitaly.version_text}"]
    if remove:
        replaces.append(f"every repository on {', '.join(remove)} that the backup does not have is removed")
    return RestorePlan(
        replaces=tuple(replaces),
        notes=(
            "repositories are changed in place by Gitaly: that cannot be undone, and nothing old is kept",
            *notes,
            *notes_on_selection(job),
            *missing,
        ),
        facts={
            "id": backup_id,
            "server_side": server_side,
            "remove": list(remove),
            "repositories": count,
            "list": str(job.instance.backup_path / _LIST),
            "report": str(job.instance.backup_path / _REPORT),
            "left": list(notes),
        },
        reversible=False,
    )


def _removal(job: RestoreJob, gitaly: GitalyBackup, *, server_side: bool) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the storages from which to remove what the backup does not have, and why not otherwise.

    gitaly-backup removes all that it was not told to restore, so it is told to only where the backup is known to have
    all that there was: ours, with every repository that was listed, and the manifests of all of them.
    """
    left = "repositories that the backup does not have are left where they are: "
    details = job.details
    if not removes_others(job):
        return (), ()
    if details is None:
        return (), (f"{left}the backup has no record of whether it has all that there were",)
    if details.get("failed"):
        return (), (f"{left}some repositories could not be backed up, and would be removed with them",)
    if server_side:
        return (), (f"{left}what a server-side backup has cannot be checked from here",)
    if not gitaly.keeps_pools:
        return (), (f"{left}gitaly-backup {gitaly.version_text} would remove object pools as well (17.3 does not)",)
    return tuple(storage.name for storage in job.instance.storages if storage.gitaly_address), ()


def stage(job: RestoreJob, facts: Mapping[str, JSON]) -> None:
    """Write the list of what is to be restored. The repositories stay as they are."""
    if facts["server_side"]:
        return
    path = _path(job, facts, "list")
    remove_durably(path)
    with FileSink(path) as sink:
        for place in held_by(job, Wanted.of(job), by_fetching=False).repositories:
            job.cancel.check()
            sink.write(json.dumps(place).encode() + b"\n")


def swap(job: RestoreJob, facts: Mapping[str, JSON]) -> None:
    """Run gitaly-backup. Raises `ComponentError` where a repository was not restored, unless `keep_going`."""
    gitaly = GitalyBackup.of(job.instance, cancel=job.cancel)
    server_side = facts["server_side"] is True
    failures = Failures()
    remove = facts["remove"]
    program = gitaly.restore(
        backup_id=str(facts["id"]),
        directory=None if server_side else job.root / job.component.destination,
        jobs=job.jobs,
        remove=[str(name) for name in remove] if isinstance(remove, list) else (),
    )
    with ExitStack() as opened:
        requests = _listed(job, opened) if server_side else _read(_path(job, facts, "list"), opened)
        report_file = opened.enter_context(ReportFile.create(_path(job, facts, "report")))

        def answered(request: Request, report: Report) -> None:
            state, error = report.state, report.error
            if state == "skipped" and not server_side:
                state, error = "failed", "gitaly-backup skipped it, although the backup has it"
            report_file.add(state, request, error)
            if state == "failed":
                failures.add(f"{request}: {error or 'no cause was given'}")

        Exchange("restore", requests, answered).run(gitaly, program, job.cancel)
    left = facts["left"]
    for note in left if isinstance(left, list) else ():
        job.warn(str(note))
    if failures.count and not job.options.keep_going:
        raise ComponentError(
            f"{failures.count} repositories could not be restored:"
            + "".join(f"\n  - {line}" for line in failures.lines(_NAMED)),
            hint="Repair what the message names, and restore again; --keep-going accepts them as they are.",
        )
    for problem in failures.lines():
        job.warn(f"not restored: {problem}")
    if failures.count and remove:
        job.warn("nothing was removed, as not every repository was restored")


def committed(job: RestoreJob, facts: Mapping[str, JSON]) -> str | None:
    """Return what gitaly-backup has changed, by the report; None where it has not begun with any repository."""
    path = _path(job, facts, "report")
    if not path.exists():
        return None
    summary = Summary.read(path)
    if not summary.touched:
        return None
    doubtful = [*summary.failed.lines(_NAMED), *(f"{name}: was begun" for name in sorted(summary.begun)[:_NAMED])]
    more = len(summary.begun) - _NAMED
    if more > 0:
        doubtful.append(f"… and {more} more that were begun")
    of = f" of {facts['repositories']}" if facts["repositories"] else ""
    removed = "" if doubtful or not facts["remove"] else ", and what the backup does not have may have been removed"
    kept = _kept(path, job)
    return (
        f"{summary.restored}{of} repositories are as in the backup{removed}; those that {kept} does not name"
        " are as they were" + ("; in doubt:" + "".join(f"\n  - {line}" for line in doubtful) if doubtful else "")
    )


def undo(job: RestoreJob, facts: Mapping[str, JSON]) -> None:
    """Remove the list, and the report of nothing. What was changed is not undone: see `committed`."""
    for key in ("list", "report"):
        remove_durably(_path(job, facts, key))


def finish(job: RestoreJob, facts: Mapping[str, JSON]) -> None:
    """Remove the list. The report stays, under another name, if not all that it names was restored."""
    remove_durably(_path(job, facts, "list"))
    path = _path(job, facts, "report")
    if not path.exists():
        return
    summary = Summary.read(path)
    if summary.failed.count or summary.begun:
        path.replace(_kept(path, job))
    else:
        remove_durably(path)


def _kept(report: Path, job: RestoreJob) -> Path:
    return report.with_name(f"{_REPORT}.{job.backup_id}")


def _path(job: RestoreJob, facts: Mapping[str, JSON], key: str) -> Path:
    # Joined, because an absolute path on the right is what remains.
    return job.instance.backup_path / str(facts[key])


def _read(path: Path, opened: ExitStack) -> Iterator[Request]:
    lines = opened.enter_context(path.open(encoding="utf-8"))
    for line in lines:
        storage, relative_path = json.loads(line)
        yield Request(
            storage=storage,
            relative_path=relative_path,
            project_path="",
            always_create=_is_project(relative_path),
        )


def _listed(job: RestoreJob, opened: ExitStack) -> Iterator[Request]:
    within = (recorded_selection(job.details), job.options.repositories.selection)
    directory = job.instance.backup_path
    listing = opened.enter_context(
        closing(Listing.of(job.instance.databases[0], directory=directory, cancel=job.cancel, within=within))
    )
    if not listing.storages and any(within):
        job.warn("the database lists no repositories of those that were to be restored")
    check_storages(job.instance, listing.storages)
    for repository in listing:
        yield Request(
            storage=repository.storage,
            relative_path=repository.relative_path,
            project_path=repository.project_path,
            always_create=repository.always_create,
        )


def _is_project(relative_path: str) -> bool:
    """Tell by its path whether a repository is that of a project, as GitLab names them (`app/models/storage`)."""
    return not relative_path.startswith(("@groups/", "@snippets/")) and not relative_path.endswith(
        (".wiki.git", ".design.git")
    )
