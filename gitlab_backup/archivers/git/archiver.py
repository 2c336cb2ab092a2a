"""The archiver of the component `repositories` that uses plain git."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING, ClassVar, Final

from attrs import define, field

from ...errors import CancelledError, ComponentError, GitLabBackupError, ProgramError
from ...streams.cancel import Cancellation
from .back_up import Outcome, back_up_repository
from .increments import Base
from .listing import Listing, listing_of, storages_on_disk
from .program import Git
from .restore import GitRestore
from .targets import FAILED_PLACES
from .verify import verify_repositories

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import ExitStack

    from ...components import Component
    from ...instance import Instance
    from ...instance.repositories import Repository
    from ..base import JSON, BackupJob, RestoreJob, RestorePlan, VerifyJob
    from .back_up import StorageOnDisk

_NAMED: Final = 20
"""How many failed repositories the error names."""


class GitArchiver:
    """Writes a bundle, the refs and the custom hooks of every repository that the database lists, and restores them.

    The storages must be on this machine. Object pools are not archived: what their members need of them is in the
    members' bundles.
    """

    name: ClassVar[str] = "git"

    def left_out(self, component: Component, instance: Instance) -> str | None:  # noqa: ARG002 - one component only
        """Return why nothing is backed up: no storage is configured."""
        return None if instance.storages else "no repository storage is configured"

    def prepare(self, job: BackupJob, resources: ExitStack) -> None:
        """Do nothing: repositories are listed and read after the snapshots of the databases were taken."""

    def back_up(self, job: BackupJob) -> dict[str, JSON]:
        """Write all repositories, up to `job.jobs` at once.

        What is wrong with one repository does not keep the others from being written. Then, if any failed, raises
        `ComponentError`, or with `job.keep_going` warns of each. Everything else that is raised ends the work:
        `DatabaseError` where they cannot be listed, `ComponentError` for a storage that cannot be read by git,
        `ProgramNotFoundError`, `StreamError`, `CancelledError`.
        """
        git = Git.of(job.instance, jobs=job.jobs, cancel=job.cancel)
        base = Base.of(job)
        with closing(listing_of(job)) as listing:
            storages = storages_on_disk(job.instance, listing.storages)
            work = _Work(job, git, storages, listing, base)
            for problem in listing.rejected:
                work.fail(problem)
            work.run()
        work.warn_of_bare_storages()
        failed = sorted(work.failed)
        if failed and not job.keep_going:
            raise _failure(failed)
        for problem in failed:
            job.warn(problem)
        return {
            "repositories": work.outcomes.total(),
            "empty": work.outcomes[Outcome.EMPTY],
            "missing": work.outcomes[Outcome.MISSING],
            "failed": list(failed),
            FAILED_PLACES: [*sorted(work.failed_places)],
            "git_version": git.version,
            "storages": dict(sorted(listing.storages.items())),
            **job.repositories.record,
            **({} if base is None else base.details() | work.steps()),
        }

    def verify(self, job: VerifyJob) -> None:
        """Read the files of every repository: manifests, refs and bundles must be whole, and agree. Runs no git."""
        verify_repositories(job)

    def plan_restore(self, job: RestoreJob) -> RestorePlan:
        """Check the layout of the backup and the storages, and count what will be replaced."""
        return GitRestore().plan(job)

    def stage(self, job: RestoreJob, facts: Mapping[str, JSON]) -> None:
        """Build every repository within its storage, out of GitLab's sight, and check it."""
        GitRestore().stage(job, facts)

    def swap(self, job: RestoreJob, facts: Mapping[str, JSON]) -> None:
        """Rename the new repositories into place, and all old ones away. Object pools stay."""
        GitRestore().swap(job, facts)

    def committed(self, job: RestoreJob, facts: Mapping[str, JSON]) -> str | None:  # noqa: ARG002 - nothing ever is
        """Return None: every rename can be undone."""
        return None

    def undo(self, job: RestoreJob, facts: Mapping[str, JSON]) -> None:  # noqa: ARG002 - all it needs is in the facts
        """Put the old repositories back, whatever was done so far."""
        GitRestore().undo(facts)

    def finish(self, job: RestoreJob, facts: Mapping[str, JSON]) -> None:  # noqa: ARG002 - all it needs is in the facts
        """Remove the old repositories, or keep them below `+gitaly`."""
        GitRestore().finish(facts)


@define
class _Work:
    """The work on all repositories of a listing, and what has come of it."""

    job: BackupJob
    git: Git
    storages: Mapping[str, StorageOnDisk]
    listing: Listing
    base: Base | None
    outcomes: Counter[Outcome] = field(factory=Counter)
    failed: list[str] = field(factory=list)
    failed_places: list[str] = field(factory=list)
    """`<storage>/<relative path>` of those that have one."""
    found: Counter[str] = field(factory=Counter)
    """How many repositories of projects were found on each storage."""
    expected: Counter[str] = field(factory=Counter)
    """How many there should be."""
    _lock: threading.Lock = field(factory=threading.Lock)
    _stop: Cancellation = field(factory=Cancellation)
    _fatal: BaseException | None = None

    def run(self) -> None:
        """Do it all. Raises the first error that is not about one repository alone."""
        jobs = max(1, self.job.jobs)
        with self.job.cancel.calling(self._stop.request), ThreadPoolExecutor(jobs, "git") as threads:
            workers = [threads.submit(self._take) for _ in range(jobs)]
        self.job.cancel.check()
        if self._fatal is not None:
            raise self._fatal
        for worker in workers:
            worker.result()

    def fail(self, problem: str, place: str | None = None) -> None:
        """Note a repository that is not in the backup."""
        with self._lock:
            self.failed.append(problem)
            if place is not None:
                self.failed_places.append(place)

    def steps(self) -> dict[str, JSON]:
        """Return how many repositories are there in full, have a new step, and have none."""
        kinds = {"full": Outcome.STORED, "increments": Outcome.INCREMENT, "unchanged": Outcome.UNCHANGED}
        return {name: self.outcomes[outcome] for name, outcome in kinds.items()}

    def warn_of_bare_storages(self) -> None:
        """Warn of storages on which not one of the projects' repositories was found."""
        for name, expected in sorted(self.expected.items()):
            if not self.found[name]:
                self.job.warn(
                    f"none of the {expected} project repositories that the database lists on the storage {name!r} was"
                    f" found below {self.storages[name].path}: is this the right directory, and mounted?"
                )

    def _take(self) -> None:
        try:
            for repository in self.listing:
                self._one(repository)
                if self._stop.requested:
                    return
        except BaseException as error:  # noqa: BLE001 - raised again by the thread that waits
            with self._lock:
                if self._fatal is None or isinstance(self._fatal, CancelledError):
                    self._fatal = error
            self._stop.request()

    def _one(self, repository: Repository) -> None:
        storage = self.storages[repository.storage]
        try:
            try:
                outcome = back_up_repository(self.job, self.git, repository, storage, self.base)
            except (ComponentError, ProgramError, OSError):
                if (storage.path / repository.relative_path).exists():
                    raise
                # It was removed while it was read: as good as never there.
                outcome = back_up_repository(self.job, self.git, repository, storage, self.base)
        except (ComponentError, ProgramError, OSError) as error:
            hint = f" ({error.hint})" if isinstance(error, GitLabBackupError) and error.hint else ""
            name = f"{repository.storage}/{repository.relative_path}"
            self.fail(f"{repository.project_path} ({name}): {error}{hint}", name)
            outcome = None
        with self._lock:
            if outcome is not None:
                self.outcomes[outcome] += 1
            if repository.always_create:
                self.expected[repository.storage] += 1
                self.found[repository.storage] += outcome is not Outcome.MISSING


def _failure(failed: list[str]) -> ComponentError:
    more = f"\n  - … and {len(failed) - _NAMED} more" if len(failed) > _NAMED else ""
    listed = "\n  - ".join(("", *failed[:_NAMED]))
    return ComponentError(
        f"{len(failed)} repositories could not be backed up:{listed}{more}",
        hint="Repair them, or use --keep-going to publish the backup without them.",
    )
