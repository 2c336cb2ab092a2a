"""The repositories of a backup back into their storages: all are built first, then renamed into place.

Whatever happens, each storage is in the end as the backup, or as it was. What the steps need to know of each other is
on the storages themselves (`placing`), so that a later process can go back, too.
"""

from __future__ import annotations

import errno
import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from attrs import define, field

from ...errors import CancelledError, ComponentError, GitLabBackupError, ProgramNotFoundError, RefusedError
from ...streams.files import FileSink, sync_tree
from ...streams.process import run
from ...streams.system import system
from ..base import RestorePlan
from ..wanted import notes_on_selection, removes_others
from .layout import OBJECT_FORMATS
from .placing import GITALY, Place, is_repository
from .program import Git, account_for
from .rebuild import Builder
from .targets import FAILED_PLACES, Targets, belongs, in_backup, storages_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ...streams.cancel import Cancellation
    from ..base import JSON, RestoreJob
    from .back_up import StorageOnDisk

_NAMED: Final = 20
"""How many failed repositories the error names."""
_GROWTH: Final = 1.3
"""How much larger a repository is than its bundles: the pack has the same bytes, its index and its reverse index take
some 36 bytes for an object, whose average in real repositories is a few hundred; and thin packs are completed."""
_LEAST: Final = 48 << 10
"""Bytes of a repository besides: its directories and small files take a block of 4 KiB each."""
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO})
"""What is wrong with a file system and not with one repository."""


class GitRestore:
    """The restore half of the archiver `git`."""

    def plan(self, job: RestoreJob) -> RestorePlan:
        """Check the backup's layout and the storages, and count. Raises `RefusedError`, `ProgramNotFoundError`."""
        Git.of(job.instance, jobs=max(1, job.jobs), cancel=job.cancel)
        targets = Targets.of(job)
        targets.check()
        storages, notes = storages_of(job, targets)
        bundles = _sizes(job, storages) if removes_others(job) else _wanted_sizes(targets)
        notes += [*notes_on_selection(job), *targets.wanted.notes(partial(in_backup, job))]
        replaces, space, facts = [], [], {}
        for name, storage in storages.items():
            place = _planned(job, storage)
            facts[name] = _facts_of(place)
            there, gone = _replaced(targets, name, place)
            count = len(targets.storages.get(name, ()))
            removed = f", and {gone:,} that are not in the backup are removed" if gone else ""
            replaces.append(
                f"storage {name} ({storage.path}): {there:,} repositories are replaced{removed}; the backup lists"
                f" {count:,}, with those that did not exist"
            )
            space.append((storage.path, int(bundles.get(name, 0) * _GROWTH) + count * _LEAST))
            if place.kept is not None:
                notes.append(f"the repositories of storage {name} are kept as {place.gitaly / place.kept}")
        failed = _not_in_it(targets)
        if failed:
            notes.append(
                f"{len(failed)} repositories could not be backed up at the time, and are left as they are:"
                f" {'; '.join(str(problem) for problem in failed[:_NAMED])}"
            )
        notes.append("object pools (@pools) are not part of a backup, and are left as they are")
        return RestorePlan(
            replaces=tuple(replaces),
            notes=tuple(notes),
            facts={"storages": cast("JSON", facts)},
            space=tuple(space),
        )

    def stage(self, job: RestoreJob, facts: Mapping[str, JSON]) -> None:
        """Build all repositories, up to `job.jobs` at once.

        Raises `ComponentError` where any failed, after the others were tried; with `keep_going` only where all did.
        """
        git = Git.of(job.instance, jobs=max(1, job.jobs), cancel=job.cancel)
        targets = Targets.of(job)
        places = _places(facts)
        with ExitStack() as stack:
            stop = stack.enter_context(job.cancel.part())
            work = _Work(job, targets, stop)
            configurations: dict[str, bytes] = {}
            for name, place in places.items():
                place.make()
                account = account_for(place.storage)
                for object_format in OBJECT_FORMATS:
                    if object_format not in configurations:
                        configurations[object_format] = _configuration(git, place, object_format, stop)
                work.lists[name] = FileSink(place.staged)
                stack.callback(work.lists[name].abort)
                work.builders[name] = Builder(
                    job=job, git=git, account=account, place=place, cancel=stop, configurations=configurations
                )
            work.run()
            for listed in work.lists.values():
                listed.finish()
        for place in places.values():
            sync_tree(place.work)
        work.judge()

    def swap(self, job: RestoreJob, facts: Mapping[str, JSON]) -> None:
        """Rename every old repository away and every new one into its place. Raises `OSError`, `StreamError`."""
        removes = removes_others(job)
        for name, place in _places(facts).items():
            place.swap(partial(belongs, job, name) if removes else None, job.cancel)

    def undo(self, facts: Mapping[str, JSON]) -> None:
        """Put back what `swap` has renamed, and remove what `stage` has built. Raises `ComponentError`, `OSError`."""
        _each(place.undo for place in _places(facts).values())

    def finish(self, facts: Mapping[str, JSON]) -> None:
        """Remove the old repositories, or leave them where the plan said. Raises `StreamError`, `OSError`."""
        _each(place.finish for place in _places(facts).values())


def _each(actions: Iterator[Any]) -> None:
    """Do all of it, then raise the first error: one storage's trouble is not to keep another from being put right."""
    first: Exception | None = None
    for action in actions:
        try:
            action()
        except (GitLabBackupError, OSError) as error:
            first = first or error
    if first is not None:
        raise first


@define
class _Work:
    """The building of all repositories, and what has come of it."""

    job: RestoreJob
    targets: Targets
    stop: Cancellation
    builders: dict[str, Builder] = field(factory=dict)
    lists: dict[str, FileSink] = field(factory=dict)
    failed: list[str] = field(factory=list)
    done: int = 0
    _lock: threading.Lock = field(factory=threading.Lock)
    _fatal: BaseException | None = None

    def run(self) -> None:
        """Build all. Raises the first error that is not about one repository alone."""
        jobs = max(1, self.job.jobs)
        pending = ((name, *target) for name, listed in self.targets.storages.items() for target in listed)
        with ThreadPoolExecutor(jobs, "git") as threads:
            for worker in [threads.submit(self._take, pending) for _ in range(jobs)]:
                worker.result()
        self.job.cancel.check()
        if self._fatal is not None:
            raise self._fatal

    def judge(self) -> None:
        """Raise, or warn, because of what failed."""
        failed = sorted(self.failed)
        if failed and (not self.job.options.keep_going or not self.done):
            more = f"\n  - … and {len(failed) - _NAMED} more" if len(failed) > _NAMED else ""
            listed = "\n  - ".join(("", *failed[:_NAMED]))
            hint = "Restore another backup, or use --keep-going to leave these as they are now."
            raise ComponentError(
                f"{len(failed)} repositories could not be restored:{listed}{more}", hint=hint if self.done else None
            )
        for problem in failed:
            self.job.warn(f"not restored, and left as it was: {problem}")

    def _take(self, pending: Iterator[tuple[str, str, str]]) -> None:
        try:
            while not self.stop.requested:
                with self._lock:
                    item = next(pending, None)
                if item is None:
                    return
                self._one(*item)
        except BaseException as error:  # noqa: BLE001 - raised again by the thread that waits
            with self._lock:
                if self._fatal is None or isinstance(self._fatal, CancelledError):
                    self._fatal = error
            self.stop.request()

    def _one(self, storage: str, relative: str, manifest: str) -> None:
        try:
            new = self.builders[storage].build(relative, self.targets.manifest(storage, relative, manifest))
        except (CancelledError, ProgramNotFoundError):
            raise
        except (GitLabBackupError, OSError) as error:
            if _number(error) in _FULL:
                raise
            hint = f" ({error.hint})" if isinstance(error, GitLabBackupError) and error.hint else ""
            with self._lock:
                self.failed.append(f"{storage}/{relative}: {error}{hint}")
            return
        with self._lock:
            self.done += 1
            self.lists[storage].write(f"{json.dumps([relative, new])}\n".encode())


def _number(error: BaseException | None) -> int | None:
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__
    return None if error is None else error.errno


def _configuration(git: Git, place: Place, object_format: str, cancel: Cancellation) -> bytes:
    """Return the configuration that git gives a new repository of a format, there."""
    template = place.work / f"template-{object_format}"
    system().mkdir(template, 0o700)
    place.give(template, 0o700)
    account = account_for(place.storage)
    arguments = ("init", "--bare", "--quiet", "--template=", f"--object-format={object_format}")
    run(git.on(template, account, *arguments), cancel=cancel)
    return (template / "config").read_bytes()


def _planned(job: RestoreJob, storage: StorageOnDisk) -> Place:
    gitaly = storage.path / GITALY
    made = not gitaly.exists()
    name = f"gitlab-restore-{job.backup_id}"
    kept = None
    if job.options.keep_old:
        names = (f"before-{job.backup_id}{suffix}" for suffix in ("", *(f"-{n}" for n in range(2, 10_000))))
        kept = next(one for one in names if not os.path.lexists(gitaly / one))
    place = Place(
        storage=storage.path,
        name=name,
        kept=kept,
        made=made,
        mtime_ns=(storage.path if made else gitaly).stat().st_mtime_ns,
    )
    if os.path.lexists(place.work):
        raise RefusedError(
            f"{place.work} is in the way: an interrupted restore left it, and no journal says what is to be done",
            hint=f"What is below {place.before} belongs back into the storage. Look at it, then move it away.",
        )
    return place


def _facts_of(place: Place) -> dict[str, JSON]:
    return {
        "path": str(place.storage),
        "name": place.name,
        "kept": place.kept,
        "made": place.made,
        "mtime_ns": place.mtime_ns,
    }


def _places(facts: Mapping[str, JSON]) -> dict[str, Place]:
    storages = cast("dict[str, dict[str, Any]]", facts["storages"])
    return {
        name: Place(
            storage=Path(values["path"]),
            name=values["name"],
            kept=values["kept"],
            made=values["made"],
            mtime_ns=values["mtime_ns"],
        )
        for name, values in storages.items()
    }


def _replaced(targets: Targets, name: str, place: Place) -> tuple[int, int]:
    """Return how many repositories of a storage are replaced, and how many are removed."""
    job = targets.job
    if not removes_others(job):
        return sum(is_repository(place.storage / relative) for relative, _ in targets.storages.get(name, ())), 0
    there, gone = 0, 0
    for relative in place.repositories(job.cancel.check):
        if in_backup(job, name, relative):
            there += 1
        elif not belongs(job, name, relative):
            gone += 1
    return there, gone


def _not_in_it(targets: Targets) -> list[JSON]:
    """Return the repositories that could not be backed up, of those that are wanted."""
    details = targets.job.details or {}
    failed, places = details.get("failed"), details.get(FAILED_PLACES)
    if targets.wanted.selection:
        failed = [
            place for place in (places if isinstance(places, list) else ()) if targets.wanted(*str(place).split("/", 1))
        ]
    return failed if isinstance(failed, list) else []


def _wanted_sizes(targets: Targets) -> dict[str, int]:
    """Return the bytes of the bundles of what is restored, by storage, as the manifests name them."""
    root = targets.job.root / targets.job.component.destination
    sizes: dict[str, int] = {}
    for storage, chosen in targets.storages.items():
        for relative, name in chosen:
            # What cannot be read, or is not there, is told when the repository is built.
            with suppress(GitLabBackupError, OSError):
                for step in targets.manifest(storage, relative, name).steps:
                    sizes[storage] = sizes.get(storage, 0) + (root / step.bundle_path).stat().st_size
    return sizes


def _sizes(job: RestoreJob, storages: Mapping[str, StorageOnDisk]) -> dict[str, int]:
    """Return the bytes of all bundles by storage; those of layouts without its name count for the first."""
    sizes: dict[str, int] = {}
    for name in job.names(job.component.destination):
        if name.endswith(".bundle"):
            storage = name.split("/")[1]
            if storage not in storages:
                storage = next(iter(storages))
            sizes[storage] = sizes.get(storage, 0) + (job.root / name).stat().st_size
    return sizes
