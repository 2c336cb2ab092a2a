"""Having Gitaly's repositories backed up: into the backup, or by each Gitaly into its own object storage."""

from __future__ import annotations

import os
from collections import Counter, deque
from concurrent.futures import wait
from contextlib import closing, suppress
from functools import partial
from typing import TYPE_CHECKING, Final

from attrs import define, field

from ...errors import ComponentError, StreamError
from ...streams.files import remove_tree
from ..git.layout import LATEST, MANIFESTS, manifest_path
from ..git.listing import listing_of
from .exchange import Exchange, Request
from .log import Failures
from .program import check_storages
from .seeds import Seeds

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Future
    from pathlib import Path

    from ..base import JSON, BackupJob
    from ..git.listing import Listing
    from .log import Report
    from .program import GitalyBackup

_NAMED: Final = 20
"""How many failed repositories the error names."""


def back_up_repositories(job: BackupJob, gitaly: GitalyBackup) -> dict[str, JSON]:
    """Back up all repositories that the database lists, and return what the manifest should say.

    Raises `ComponentError` where one failed (with `job.keep_going` only where all did), or the program as a whole;
    `DatabaseError`, `StreamError`, `CancelledError`.
    """
    seeds = Seeds.of(job, gitaly)
    with closing(listing_of(job)) as listing:
        check_storages(job.instance, listing.storages)
        work = _Work(job, listing, seeds)
        for problem in listing.rejected:
            work.failures.add(problem)
        create = partial(gitaly.create, backup_id=job.backup_id, directory=work.directory, jobs=job.jobs)
        program = create(incremental=seeds is not None)
        Exchange("create", work.requests(), work.answered).run(gitaly, program, job.cancel)
        if seeds is not None and seeds.again:
            Exchange("create", iter(seeds.again), work.answered).run(gitaly, create(), job.cancel)
        storages: dict[str, JSON] = dict(sorted(listing.storages.items()))
    if work.failures.count and (not job.keep_going or not work.completed):
        raise ComponentError(
            f"{work.failures.count} repositories could not be backed up:"
            + "".join(f"\n  - {line}" for line in work.failures.lines(_NAMED)),
            hint="Repair them, or use --keep-going to publish the backup without them.",
        )
    if work.directory is not None:
        _adopt_all(job, work.directory, frozenset(seeds.directories) if seeds is not None else frozenset())
    work.warn_of_bare_storages()
    for problem in work.failures.lines():
        job.warn(problem)
    return {
        "repositories": work.completed,
        "missing": work.missing,
        "failed": list(work.failures.lines()),
        "gitaly_backup_version": gitaly.version_text,
        "id": job.backup_id,
        "server_side": work.directory is None,
        "storages": storages,
        **job.repositories.record,
        **(seeds.details() if seeds is not None else {}),
    }


@define
class _Work:
    job: BackupJob
    listing: Listing
    seeds: Seeds | None
    failures: Failures = field(factory=Failures)
    completed: int = 0
    """How many repositories the program said to be complete; each has a manifest, also where it is missing."""
    missing: int = 0
    """How many do not exist."""
    found: Counter[str] = field(factory=Counter)
    """How many repositories of projects were found on each storage."""
    expected: Counter[str] = field(factory=Counter)
    """How many there should be."""

    @property
    def directory(self) -> Path | None:
        """Where the program writes to; None where each Gitaly writes to its own object storage."""
        return None if self.job.repositories.server_side else self.job.root / self.job.component.destination

    def requests(self) -> Iterator[Request]:
        """Yield what to ask for."""
        for repository in self.listing:
            self.job.cancel.check()
            request = Request(
                storage=repository.storage,
                relative_path=repository.relative_path,
                project_path=repository.project_path,
                always_create=repository.always_create,
            )
            if self._is_new(request):
                if self.seeds is not None:
                    self.seeds.put(request)
                yield request
            else:
                self.failures.add(f"{request}: the database names this place a second time")

    def answered(self, request: Request, report: Report) -> None:
        """Take what became of a repository."""
        if report.state == "started":
            return
        if self.seeds is not None and self.seeds.settle(request, report.state):
            self._clear(request)
            return
        error, exists = report.error or "no cause was given", True
        failed = report.state == "failed"
        if report.state == "completed":
            exists, problem = self._look_at(request)
            failed, error = problem is not None, problem or ""
        if failed:
            self.failures.add(f"{request}: {error}")
        elif report.state == "completed":
            self.completed += 1
        else:
            exists = False
        self.missing += not exists
        if request.always_create:
            self.expected[request.storage] += 1
            self.found[request.storage] += exists
        if failed or report.state == "skipped":
            self._clear(request)

    def warn_of_bare_storages(self) -> None:
        """Warn of storages on which not one of the projects' repositories was found."""
        for name, expected in sorted(self.expected.items()):
            if not self.found[name]:
                self.job.warn(
                    f"none of the {expected} project repositories that the database lists on the storage {name!r} was"
                    " found by Gitaly: is this the right gitaly_address, and its disk mounted?"
                )

    def _is_new(self, request: Request) -> bool:
        """Make the directory of the manifests: it is the mark on disk that the repository was asked for."""
        if self.directory is None:
            return True
        manifests = self.directory / MANIFESTS / request.storage / request.relative_path
        try:
            manifests.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            manifests.mkdir(mode=0o700)
        except FileExistsError:
            return False
        except OSError as error:
            raise StreamError(f"the directory {manifests} cannot be made: {error.strerror}") from error
        return True

    def _look_at(self, request: Request) -> tuple[bool, str | None]:
        """Return whether a repository that is said to be complete exists, and what is wrong with it after all."""
        if self.directory is None:
            return True, None
        storage, path = request.storage, request.relative_path
        try:
            manifest = (self.directory / manifest_path(storage, path, self.job.backup_id)).read_bytes()
        except OSError as error:
            return True, f"is said to be complete, but its manifest cannot be read: {error.strerror}"
        with suppress(OSError), os.scandir(self.directory / storage / path / self.job.backup_id) as files:
            # No `read`, which may wait: Gitaly has read it, and does not wait for us.
            self.job.progress(sum(file.stat(follow_symlinks=False).st_size for file in files), 0)
        return b"non_existent = true" not in manifest, None

    def _clear(self, request: Request) -> None:
        """Remove what there is of a repository that is not complete."""
        if self.directory is None:
            return
        storage, path = request.storage, request.relative_path
        manifest = self.directory / manifest_path(storage, path, self.job.backup_id)
        for file in (manifest, manifest.with_name(LATEST)):
            file.unlink(missing_ok=True)
            file.with_name(f"{file.name}.attrs").unlink(missing_ok=True)
        remove_tree(self.directory / storage / path / self.job.backup_id)
        # Only what is this repository's own and empty.
        for directory in (manifest.parent, self.directory / storage / path):
            with suppress(OSError):
                directory.rmdir()


def _adopt_all(job: BackupJob, directory: Path, known: frozenset[str]) -> None:
    """Take all files below a directory as files of the backup, several at a time; make its directories private.

    Those directly in one of the `known` directories are that already.
    """
    under_way: deque[Future[None]] = deque()
    try:
        for name in _private_tree(directory):
            relative = os.path.relpath(name, job.root)
            if relative.rpartition("/")[0] in known:
                continue
            under_way.append(job.pool.submit(job.adopt_file, relative))
            if len(under_way) > 2 * job.jobs:
                under_way.popleft().result()
        while under_way:
            under_way.popleft().result()
    finally:
        for future in under_way:
            future.cancel()
        # Whoever removes the files after a failure must be the last one at them.
        wait(under_way)


def _private_tree(directory: Path) -> Iterator[str]:
    """Give all directories the mode 0700, and yield all files."""

    def refuse(error: OSError) -> None:
        raise StreamError(f"{error.filename} cannot be read: {error.strerror}") from error

    if not directory.is_dir():
        return
    for place, directories, files in os.walk(directory, onerror=refuse):
        os.chmod(place, 0o700)  # noqa: PTH101 - a Path for each of many is slow
        for name in directories:
            if os.path.islink(os.path.join(place, name)):  # noqa: PTH114, PTH118
                raise StreamError(f"{place}/{name} is a symbolic link: it is no part of a backup")
        for name in files:
            yield os.path.join(place, name)  # noqa: PTH118
