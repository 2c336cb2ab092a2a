"""Make a backup."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from attrs import define, evolve, field

from ..archivers.base import BackupJob
from ..checksums import FILE_NAME as CHECKSUMS_NAME
from ..checksums import Checksums
from ..errors import BackupFailedError, CancelledError, ComponentError, GitLabBackupError
from ..events import Noticed, OperationFinished, OperationStarted, Status, ignore
from ..manifest import FILE_NAME as MANIFEST_NAME
from ..manifest import BackupStatus, ComponentRecord, Compression, Manifest, Tool
from ..metadata import FILE_NAME as METADATA_NAME
from ..metadata import Metadata
from ..store import BackupStore
from ..streams.cancel import Cancellation
from ..streams.files import FileSink, remove_tree
from ..version import __version__
from .advice import about_config, about_missing, secrets_digest
from .base import with_base
from .journal import recover
from .plan import NOT_SELECTED, plan
from .progress import Progress
from .run import Tally, Telling, hint_of, limiter, run_all

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ..archivers.base import JSON
    from ..events import Observer
    from ..instance import Instance
    from ..store import Staging
    from ..streams.rate import RateLimit
    from .plan import CreateOptions, PlannedComponent

_MADE = {Status.COMPLETE, Status.WARNING}


def create(
    instance: Instance,
    chosen: CreateOptions,
    *,
    observer: Observer = ignore,
    cancel: Cancellation | None = None,
) -> Path:
    """Back up `instance` into its backup path, and return the directory of the published backup.

    Raises `BackupFailedError` where a component failed and `keep_going` is not set, or where nothing could be backed
    up; `CancelledError` on request; and what plan, lock and store raise. After any of them there is no new backup.
    """
    planned = plan(instance, chosen)
    store = BackupStore(instance.backup_path)
    if not chosen.insecure_store:
        store.check_private(instance.system_user)
    tell = Telling(observer)
    cancel = cancel or Cancellation()
    with store.lock("backup") as lock:
        tell.also(Progress(lock.tell))
        recover(store, instance, tell)
        for name in store.remove_dead_staging():
            tell(Noticed(f"removed {name}, which an interrupted run has left"))
        repositories, base_note = with_base(store, chosen.repositories, planned)
        chosen = evolve(chosen, repositories=repositories)
        started_at = datetime.now(UTC)
        with store.staging(started_at, instance.gitlab_version) as staging:
            run = _Run(instance, chosen, planned, staging, tell, started_at, limiter(chosen.rate_limit))
            backup_id = str(staging.backup_id)
            active = tuple(item.component.id for item in planned if item.left_out is None)
            tell(OperationStarted("backup", backup_id, staging.target, active))
            if base_note:
                tell(Noticed(base_note))
            if "repositories" in active and (selection := chosen.repositories.selection):
                tell(Noticed(f"this backup is partial: it has only repositories {selection}"))
            for warning in about_config(active):
                tell(Noticed(f"warning: {warning}"))
            try:
                run.components(cancel)
                run.judge()
                run.documents()
                cancel.check()
                staging.publish()
            except BaseException as error:
                tell(OperationFinished("backup", backup_id, str(error) or type(error).__name__))
                raise
            tell(OperationFinished("backup", backup_id))
            return staging.target


@define
class _Work:
    """One component on its way."""

    item: PlannedComponent
    job: BackupJob
    tally: Tally
    files: dict[str, str] = field(factory=dict)
    details: dict[str, JSON] = field(factory=dict)

    @property
    def id(self) -> str:
        return self.item.component.id

    def prepare(self, resources: ExitStack) -> None:
        self.item.archiver.prepare(self.job, resources)

    def back_up(self) -> None:
        details = self.item.archiver.back_up(self.job)
        try:
            plain = json.loads(json.dumps(details, allow_nan=False))
        except (TypeError, ValueError) as error:
            plain, problem = None, str(error)
        else:
            problem = "tuples and keys that are no strings are not"
        if not isinstance(plain, dict) or plain != details:
            raise ComponentError(f"the archiver {self.item.archiver.name} returned what is not JSON: {problem}")
        self.details = details

    def discard(self) -> None:
        """Remove what a component that has failed has written so far."""
        for name in self.files:
            (self.job.root / name).unlink(missing_ok=True)
        self.files.clear()
        directory = self.job.root / self.item.component.destination
        if directory.is_dir():
            remove_tree(directory)


@define
class _Run:
    """One backup while it is made."""

    instance: Instance
    chosen: CreateOptions
    planned: list[PlannedComponent]
    staging: Staging
    tell: Telling
    started_at: datetime
    rate: RateLimit | None
    records: dict[str, ComponentRecord] = field(factory=dict)
    digests: dict[str, str] = field(factory=dict)
    failures: list[tuple[str, Exception]] = field(factory=list)

    def components(self, cancel: Cancellation) -> None:
        """Work on all components. A failure of one ends the others, unless they are to keep going."""
        missing = about_missing(BackupStore(self.instance.backup_path), self.instance, self.planned)
        for item in self.planned:
            if item.left_out is not None:
                tally = Tally(item.component.id, self.tell)
                if item.component.id in missing:
                    tally.warn(missing[item.component.id])
                self._record(item, tally, Status.SKIPPED, item.left_out)
        with (
            cancel.part() as stop,
            ThreadPoolExecutor(self.chosen.jobs, thread_name_prefix="codec") as pool,
            ExitStack() as resources,
        ):
            work = [self._work(item, pool, stop) for item in self.planned if item.left_out is None]
            # Snapshots first: what a row of a dump points to is then there when files and repositories are read.
            ready = [each for each in work if self._attempt(each, partial(each.prepare, resources), stop)]
            run_all([partial(self._back_up, each, stop) for each in ready], jobs=self.chosen.jobs, cancel=stop)
        cancel.check()

    def judge(self) -> None:
        """Decide whether this is a backup. Raises `BackupFailedError` where it is not."""
        if self.failures and not self.chosen.keep_going:
            component, error = self.failures[0]
            raise self._failed(f"{component}: {error}", hint_of(error)) from error
        if not any(record.status in _MADE for record in self.records.values()):
            reasons = "; ".join(f"{r.id}: {r.reason}" for r in self.records.values() if r.reason != NOT_SELECTED)
            raise self._failed(f"nothing could be backed up ({reasons})", None)

    def documents(self) -> None:
        """Write manifest, metadata and digests, in this order: each vouches for what is there already."""
        clean = all(
            record.status in {Status.COMPLETE, Status.SKIPPED} and not record.warnings
            for record in self.records.values()
        )
        backup_id = self.staging.backup_id
        manifest = Manifest(
            tool=Tool(name="gitlab-backup", version=__version__),
            backup_id=str(backup_id),
            status=BackupStatus.COMPLETE if clean else BackupStatus.COMPLETE_WITH_WARNINGS,
            started_at=self.started_at,
            finished_at=datetime.now(UTC),
            gitlab_version=self.instance.gitlab_version,
            installation=self.instance.installation,
            compression=Compression(codec=self.chosen.codec.name, level=self.chosen.level),
            selected=tuple(item.component.id for item in self.planned if item.left_out != NOT_SELECTED),
            secrets_sha256=secrets_digest(self.instance),
            components=tuple(self.records[item.component.id] for item in self.planned),
            warnings=about_config([each.id for each in self.records.values() if each.status in _MADE]),
        )
        metadata = Metadata(
            backup_id=str(backup_id), created_at=backup_id.created_at, gitlab_version=self.instance.gitlab_version
        )
        self._write(MANIFEST_NAME, manifest.to_json())
        self._write(METADATA_NAME, metadata.to_json())
        self._write(CHECKSUMS_NAME, Checksums(self.digests).to_bytes())

    def _work(self, item: PlannedComponent, pool: ThreadPoolExecutor, stop: Cancellation) -> _Work:
        tally = Tally(item.component.id, self.tell)
        files: dict[str, str] = {}
        job = BackupJob(
            instance=self.instance,
            component=item.component,
            root=self.staging.path,
            backup_id=str(self.staging.backup_id),
            codec=self.chosen.codec,
            level=self.chosen.level,
            jobs=self.chosen.jobs,
            keep_going=self.chosen.keep_going,
            repositories=self.chosen.repositories,
            pool=pool,
            cancel=stop,
            progress=tally.progress,
            written=files.__setitem__,
            warn=tally.warn,
            notice=lambda message: self.tell(Noticed(message)),
            rate=self.rate,
        )
        return _Work(item, job, tally, files)

    def _back_up(self, work: _Work, stop: Cancellation) -> None:
        work.tally.start(work.item.archiver.name)
        if self._attempt(work, work.back_up, stop):
            self.digests.update(work.files)
            status = Status.WARNING if work.tally.warnings else Status.COMPLETE
            if self.chosen.repositories.incremental and work.id == "repositories":
                work.details.setdefault("base", None)
            self._record(work.item, work.tally, status, None, work.details)

    def _attempt(self, work: _Work, step: Callable[[], None], stop: Cancellation) -> bool:
        """Take one step of a component. Whatever goes wrong in it is that component's failure, and is recorded."""
        try:
            stop.check()
            step()
        except CancelledError:
            # What ends because something else has failed is not a failure of its own.
            culprit = self.failures[0][0] if self.failures else None
            work.discard()
            self._record(
                work.item, work.tally, Status.SKIPPED, f"stopped, because {culprit} failed" if culprit else "cancelled"
            )
            return False
        except Exception as error:  # noqa: BLE001 - archivers are pluggable; the cause is kept and reported
            self.failures.append((work.id, error))
            if not self.chosen.keep_going:
                stop.request()
            work.discard()
            reason = str(error) if isinstance(error, GitLabBackupError) else f"{type(error).__name__}: {error}"
            self._record(work.item, work.tally, Status.FAILED, reason)
            return False
        return True

    def _record(
        self,
        item: PlannedComponent,
        tally: Tally,
        status: Status,
        reason: str | None,
        details: dict[str, JSON] | None = None,
    ) -> None:
        done = tally.finish(status, reason)
        self.records[item.component.id] = ComponentRecord(
            id=item.component.id,
            name=item.component.name,
            destination=item.component.destination,
            archiver=item.archiver.name,
            status=status,
            bytes_read=done.bytes_read,
            bytes_written=done.bytes_written,
            duration_seconds=done.duration_seconds,
            warnings=tuple(tally.warnings),
            reason=reason,
            details=details or {},
        )

    def _write(self, name: str, content: bytes) -> None:
        with FileSink(self.staging.path / name) as sink:
            sink.write(content)
        self.digests[name] = sink.sha256

    def _failed(self, message: str, hint: str | None) -> BackupFailedError:
        records = tuple(self.records[item.component.id] for item in self.planned)
        return BackupFailedError(message, backup_id=str(self.staging.backup_id), components=records, hint=hint)
