"""Bring an instance back to what a backup holds: all of it, or a part; or leave it exactly as it was."""

from __future__ import annotations

import os
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

from attrs import define, field, frozen

from ..archivers.base import RestoreOptions
from ..archivers.registry import archiver_for, archiver_that_made
from ..archivers.wanted import check_selection
from ..components import Holder, select
from ..errors import ExitStatus, GitLabBackupError, RefusedError, RestoreFailedError, UsageError
from ..events import Noticed, OperationFinished, OperationStarted, Status, ignore
from ..manifest import FILE_NAME as MANIFEST_NAME
from ..manifest import ComponentRecord
from ..store import BackupStore
from ..streams.cancel import Cancellation
from ..streams.codec import codec_that_made
from .advice import about_secrets, next_steps, same_secrets
from .conditions import check_space, check_version, damaged
from .contents import Contents, Documents
from .journal import JOURNAL_NAME, Entry, Journal, Phase, Step, finish, recover, restore_job, settle
from .progress import Progress
from .run import Tally, Telling, checked_rate, default_jobs, hint_of, limiter, run_all
from .verify import components_of, record_of, verify

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from ..archivers.base import RestorePlan
    from ..components import Component
    from ..events import Observer
    from ..instance import Instance
    from ..manifest import Manifest


@frozen(kw_only=True)
class RestoreChoice:
    """What to restore, and how. `choose` makes a checked one."""

    only: frozenset[str]
    """The components asked for by name; empty for all that the backup has."""
    skip: frozenset[str]
    include: frozenset[str]
    """The components to restore besides those of `only`, where they are optional."""
    jobs: int
    options: RestoreOptions
    force_version: bool
    verify: bool
    dry_run: bool
    insecure_store: bool
    """Whether others may be able to write to the backup path, and to where the backup lies."""
    rate_limit: int | None = None
    """How many bytes a second are read of the backup, at the most; None for as many as there come."""


def choose(
    *,
    only: Iterable[str] = (),
    skip: Iterable[str] = (),
    include: Iterable[str] = (),
    jobs: int | None = None,
    options: RestoreOptions | None = None,
    force_version: bool = False,
    verify: bool = True,
    dry_run: bool = False,
    insecure_store: bool = False,
    rate_limit: int | None = None,
) -> RestoreChoice:
    """Return a checked choice. Raises `UsageError` for names and numbers that do not exist, and what is not said."""
    only, skip, include = frozenset(only), frozenset(skip), frozenset(include)
    options = options or RestoreOptions()
    asked = [component.id for component in select(only, skip, include) if component.holder is Holder.CONFIGURATION]
    if asked and options.config_to is None:
        raise UsageError(
            f"where {asked[0]} is to be extracted to is not said; it is never put over what is there",
            hint="Name a new or empty directory with --config-to.",
        )
    if options.config_to is not None and not asked:
        raise UsageError("--config-to is for the component config", hint="Add --include config, or --only config.")
    if jobs is not None and jobs < 1:
        raise UsageError(f"cannot work with {jobs} jobs", hint="--jobs takes a number from 1 on.")
    return RestoreChoice(
        only=only,
        skip=skip,
        include=include,
        jobs=jobs or default_jobs(),
        options=options,
        force_version=force_version,
        verify=verify,
        dry_run=dry_run,
        insecure_store=insecure_store,
        rate_limit=checked_rate(rate_limit),
    )


@frozen(kw_only=True)
class Proposal:
    """What a restore is going to do, after all checks and before any change."""

    backup_id: str
    path: Path
    plans: dict[str, RestorePlan]
    """By component id, in the order of work."""
    archivers: dict[str, str]
    """The name of the archiver of each component, in the same order."""
    notes: tuple[str, ...]
    """What the person who confirms should know of the run as a whole."""


@frozen(kw_only=True)
class Restored:
    """What a restore has done; with `dry_run`, what it would do."""

    backup_id: str
    path: Path
    dry_run: bool
    proposal: Proposal
    components: tuple[ComponentRecord, ...]
    """Empty after a dry run."""
    next_steps: tuple[str, ...]
    """What an administrator must still do afterwards, in this order."""

    @property
    def with_warnings(self) -> bool:
        """Whether something was not restored, or not as it was."""
        return any(record.status is not Status.COMPLETE for record in self.components)


def restore(
    path: Path,
    instance: Instance,
    choice: RestoreChoice,
    *,
    confirm: Callable[[Proposal], bool] = lambda _proposal: True,
    observer: Observer = ignore,
    cancel: Cancellation | None = None,
) -> Restored:
    """Restore the backup at `path` into `instance`.

    Everything is checked first; then `confirm` is asked; then the new is built beside the old, and swapped in. Whatever
    fails, also this process itself, leaves the instance as it was: at once, or as soon as the next run recovers.

    Raises `RefusedError` where it must not be done, or was not confirmed; `DamagedError` where the backup is damaged;
    `RestoreFailedError` where a component failed: it says whether everything was put back, which it always is unless
    the plan of a component has said that it cannot be; `CancelledError` on request, after everything was put back.
    """
    cancel = cancel or Cancellation()
    tell = Telling(observer)
    store = BackupStore(instance.backup_path)
    stores = [store]
    if os.path.realpath(path.parent) != os.path.realpath(store.path):
        stores.append(BackupStore(path.parent))
    with ExitStack() as stack:
        for each in stores:
            if not choice.insecure_store:
                each.check_private(instance.system_user)
            lock = stack.enter_context(each.lock("restore"))
            tell.also(Progress(lock.tell))
        recover(store, instance, tell)
        run = _check(path, instance, choice, tell, cancel)
        if choice.dry_run:
            return run.restored(())
        if not confirm(run.proposal):
            raise RefusedError("the restore was not confirmed; nothing was changed")
        cancel.check()
        tell(OperationStarted("restore", path.name, path, tuple(run.proposal.plans)))
        try:
            run.change(store, cancel)
        except BaseException as error:
            tell(OperationFinished("restore", path.name, str(error) or type(error).__name__))
            raise
        tell(OperationFinished("restore", path.name))
        records = tuple(run.records[component_id] for component_id in run.proposal.plans)
        return run.restored(records)


@define
class _Run:
    """One restore, after its checks."""

    choice: RestoreChoice
    proposal: Proposal
    steps: list[Step]
    tallies: dict[str, Tally]
    tell: Telling
    stop: Cancellation
    next_steps: tuple[str, ...]
    records: dict[str, ComponentRecord] = field(factory=dict)

    def restored(self, records: tuple[ComponentRecord, ...]) -> Restored:
        """Return what was done."""
        return Restored(
            backup_id=self.proposal.backup_id,
            path=self.proposal.path,
            dry_run=self.choice.dry_run,
            proposal=self.proposal,
            components=records,
            next_steps=self.next_steps,
        )

    def change(self, store: BackupStore, cancel: Cancellation) -> None:
        """Stage everything, swap everything, then let go of the old."""
        entries = tuple(Entry(step.job.component.id, step.archiver.name, step.facts) for step in self.steps)
        journal = Journal(store.path / JOURNAL_NAME, self.proposal.path, self.choice.options.keep_old, entries)
        try:
            journal.reach(Phase.STAGING)
            with cancel.calling(lambda: self.stop.request(cancel.status or ExitStatus.INTERRUPTED)):
                run_all([partial(self._stage, step) for step in self.steps], jobs=self.choice.jobs, cancel=self.stop)
                # From here on a request to stop may come too late: a few renames are quicker done than undone.
                self._swap(reversible=True)
                if not all(plan.reversible for plan in self.proposal.plans.values()):
                    journal.reach(Phase.COMMITTING)
                    self._swap(reversible=False)
            journal.reach(Phase.FINISHING)
        except BaseException as error:
            self._settle(journal, error, cancel)
            raise
        for problem in finish(self.steps):
            self.tell(Noticed(f"what was replaced could not be removed: {problem}"))
            component_id = problem.partition(":")[0]
            self.tallies[component_id].warn(f"what was replaced could not be removed: {problem}")
        journal.close()
        for step in self.steps:
            self._record(step)

    def _stage(self, step: Step) -> None:
        self.stop.check()
        self.tallies[step.job.component.id].start(step.archiver.name)
        self._of(step, partial(step.archiver.stage, step.job, step.facts))

    def _swap(self, *, reversible: bool) -> None:
        for step in self.steps:
            if self.proposal.plans[step.job.component.id].reversible is reversible:
                self._of(step, partial(step.archiver.swap, step.job, step.facts))

    def _of(self, step: Step, act: Callable[[], None]) -> None:
        """Do something for a component; an error says which one it was."""
        try:
            act()
        except (GitLabBackupError, OSError) as error:
            if self.stop.requested:
                raise
            raise RestoreFailedError(f"{step.job.component.id}: {error}", hint=hint_of(error)) from error

    def _settle(self, journal: Journal, error: BaseException, cancel: Cancellation) -> None:
        """Undo everything, or finish what cannot be undone, and raise an error that says which it was."""
        settled = settle(journal, self.steps)
        if settled.problems:
            could_not = "not everything could be put back" if settled.undone else "the rest could not be finished"
            raise RestoreFailedError(
                f"the restore failed ({error}), and {could_not}: {'; '.join(settled.problems)}",
                hint=f"Repair what the message names; the next run tries again. {journal.path} has the details.",
            ) from error
        if not settled.undone and not settled.committed:
            raise RestoreFailedError(
                f"the instance is as in the backup, but that may not outlive a crash of the machine: {error}",
                hint="Repair what the message names, and restore again.",
            ) from error
        if not settled.undone:
            raise RestoreFailedError(
                f"the restore failed ({error}), and cannot be undone. {settled.told()}",
                hint=f"Repair what the message names, and restore again, --only {','.join(settled.committed)}.",
            ) from error
        cancel.check()
        if isinstance(error, RestoreFailedError):
            raise RestoreFailedError(f"{error.message}; everything was put back", hint=error.hint) from error

    def _record(self, step: Step) -> None:
        component = step.job.component
        tally = self.tallies[component.id]
        done = tally.finish(Status.WARNING if tally.warnings else Status.COMPLETE)
        self.records[component.id] = ComponentRecord(
            id=component.id,
            name=component.name,
            destination=component.destination,
            archiver=step.archiver.name,
            status=done.status,
            bytes_read=done.bytes_read,
            bytes_written=done.bytes_written,
            duration_seconds=done.duration_seconds,
            warnings=tuple(tally.warnings),
            reason=None,
            details={},
        )


def _check(path: Path, instance: Instance, choice: RestoreChoice, tell: Telling, cancel: Cancellation) -> _Run:
    """Do every check there is. Changes nothing."""
    contents = Contents.of(path)
    documents = Documents.read(contents)
    if documents.metadata is None or contents.damages:
        raise damaged(path, [f"{damage.file} {damage.problem}" for damage in contents.damages])
    notes = check_version(documents.metadata, instance, force=choice.force_version)
    components, left = _selected(contents, documents.manifest, choice)
    notes += left
    _check_plugins(components, contents, documents)
    chosen = {component.id for component in components}
    if "repositories" in chosen:
        check_selection(choice.options.repositories.selection, instance, replaces_database="db" in chosen)
    if choice.verify:
        found = verify(
            path,
            only=chosen,
            jobs=choice.jobs,
            rate_limit=choice.rate_limit,
            once=False,
            observer=tell,
            cancel=cancel,
        )
        if found.damages:
            raise damaged(path, [f"{damage.file}: {damage.problem}" for damage in found.damages])
        if not found.has_checksums:
            notes.append("the backup has no SHA256SUMS (GitLab's own tools write none): only its structure was checked")
    else:
        notes.append("the backup was not verified (--no-verify)")
    secrets = same_secrets(documents.manifest, instance)
    if any(component.id == "db" for component in components):
        notes.append(about_secrets(instance, same=secrets))
    stop = Cancellation(max_silence=cancel.max_silence)
    if (rate := limiter(choice.rate_limit)) is not None:
        contents.pace = partial(rate.take, cancel=stop)
    steps, tallies, plans = [], {}, {}
    for component in components:
        record = record_of(component, documents.manifest)
        tally = tallies[component.id] = Tally(component.id, tell)
        job = restore_job(
            instance,
            component,
            contents,
            choice.options,
            details=record.details if record is not None else None,
            jobs=choice.jobs,
            cancel=stop,
            progress=tally.progress,
            warn=tally.warn,
        )
        recorded = record.archiver if record is not None else None
        archiver = archiver_for(
            component, choice.options.repositories, instance, recorded=recorded, details=job.details
        )
        plan = plans[component.id] = archiver.plan_restore(job)
        steps.append(Step(archiver, job, plan.facts))
        cancel.check()
    check_space(plans)
    archivers = {step.job.component.id: step.archiver.name for step in steps}
    proposal = Proposal(backup_id=path.name, path=path, plans=plans, archivers=archivers, notes=tuple(notes))
    following = next_steps(instance, tuple(plans), secrets=secrets, config_to=choice.options.config_to)
    return _Run(choice, proposal, steps, tallies, tell, stop, following)


def _check_plugins(components: list[Component], contents: Contents, documents: Documents) -> None:
    """Raise `PluginError` where an archiver or the codec of the backup is not there: that is no damage of it."""
    manifest, checksums = documents.manifest, documents.checksums
    if manifest is None or checksums is None or checksums.get(MANIFEST_NAME) != contents.digests.get(MANIFEST_NAME):
        return  # what the manifest says is not to be believed
    for component in components:
        if (record := record_of(component, manifest)) is not None:
            archiver_that_made(component, record.archiver)
    if any(component.holder is not Holder.STORAGES for component in components):
        codec_that_made(manifest.compression.codec)


def _selected(
    contents: Contents, manifest: Manifest | None, choice: RestoreChoice
) -> tuple[list[Component], list[str]]:
    """Return the components to restore, and notes on those that it does not have, or that were not asked for."""
    present = components_of(contents, manifest)
    if missing := sorted((choice.only | choice.include) - choice.skip - {component.id for component in present}):
        reasons = [
            record.reason for m in missing for record in (manifest.components if manifest else ()) if record.id == m
        ]
        because = f" ({'; '.join(filter(None, reasons))})" if any(reasons) else ""
        raise RefusedError(f"the backup {contents.path.name} has no {', '.join(missing)}{because}")
    asked = select(choice.only, choice.skip, choice.include)
    chosen = [component for component in present if component in asked]
    if not chosen:
        raise RefusedError(f"nothing of the backup {contents.path.name} is left to restore")
    absent = [component.id for component in asked if component not in chosen]
    notes = [f"not in the backup, and left as they are: {', '.join(absent)}"] if absent else []
    if any(component.optional and component not in asked for component in present):
        notes.append(
            "the backup has the configuration and the secrets, too, which are not restored by themselves:"
            " --include config --config-to DIRECTORY extracts them"
        )
    return chosen, notes
