"""The archiver of the component `db`."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, ClassVar

from .dump import PgDump, dump, find_pg_dump
from .failures import Failures
from .restore import DatabaseRestore
from .shares import Sharing
from .snapshot import Snapshot, take_snapshot
from .verify import verify_dumps

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import ExitStack

    from ...components import Component
    from ...instance import Instance
    from ..base import JSON, BackupJob, RestoreJob, RestorePlan, VerifyJob


class DatabaseArchiver:
    """Dumps every database of the instance with pg_dump, each from its own snapshot.

    All snapshots are taken in `prepare`, one right after the other: the databases belong together, and the
    files and repositories that their rows name are read later.
    """

    name: ClassVar[str] = "database"

    def __init__(self, sharing: Sharing | None = None) -> None:
        self._sharing = sharing or Sharing()
        self._snapshots: list[Snapshot] = []
        self._pg_dump: PgDump | None = None
        self._restore = DatabaseRestore()

    def left_out(self, component: Component, instance: Instance) -> str | None:  # noqa: ARG002 - one component only
        """Return why nothing is dumped: no database is configured."""
        return None if instance.databases else "no database is configured"

    def prepare(self, job: BackupJob, resources: ExitStack) -> None:
        """Export a snapshot of every database. Raises as `take_snapshot` and `find_pg_dump` do."""
        self._pg_dump = find_pg_dump(job.instance, job.cancel)
        for database in job.instance.databases:
            job.cancel.check()
            snapshot = take_snapshot(database, pg_dump_major=self._pg_dump.major)
            resources.callback(snapshot.release)
            self._snapshots.append(snapshot)

    def back_up(self, job: BackupJob) -> dict[str, JSON]:
        """Dump the databases, up to `job.jobs` at once, large ones in several streams.

        The first failure ends the others, and is the one raised.
        """
        pg_dump, failures = self._pg_dump, Failures(job.cancel.max_silence)
        if pg_dump is None:
            raise RuntimeError("back_up was called before prepare")

        def dump_one(snapshot: Snapshot, streams: int) -> dict[str, JSON]:
            try:
                failures.cancel.check()
                return dump(job, pg_dump, snapshot, failures.cancel, streams=streams, sharing=self._sharing)
            except BaseException as error:  # noqa: BLE001 - raised again by the thread that waits
                failures.add(error)
                return {}
            finally:
                # Until then the server keeps every dead row of the database.
                snapshot.release()

        streams = self._sharing.streams([snapshot.size for snapshot in self._snapshots], job.jobs)
        with (
            job.cancel.calling(failures.cancel.request),
            ThreadPoolExecutor(max(1, min(job.jobs, len(self._snapshots))), "pg_dump") as threads,
        ):
            details = list(threads.map(dump_one, self._snapshots, streams))
        job.cancel.check()
        failures.raise_first()
        names = (snapshot.database.name for snapshot in self._snapshots)
        return {"databases": dict(zip(names, details, strict=True))}

    def verify(self, job: VerifyJob) -> None:
        """Read every dump to its end: it must be whole, and have the rows that the manifest says."""
        verify_dumps(job)

    def plan_restore(self, job: RestoreJob) -> RestorePlan:
        """Look at dumps, servers and roles. Raises as `DatabaseRestore.plan` does."""
        return self._restore.plan(job)

    def stage(self, job: RestoreJob, facts: Mapping[str, JSON]) -> None:
        """Load the dumps."""
        self._restore.stage(job, facts)

    def swap(self, job: RestoreJob, facts: Mapping[str, JSON]) -> None:
        """Make what was loaded current."""
        self._restore.swap(job, facts)

    def committed(self, job: RestoreJob, facts: Mapping[str, JSON]) -> str | None:
        """Return which databases are those of the backup for good, which only the strategy transaction makes them."""
        return self._restore.committed(job, facts)

    def undo(self, job: RestoreJob, facts: Mapping[str, JSON]) -> None:
        """Put back the old databases."""
        self._restore.undo(job, facts)

    def finish(self, job: RestoreJob, facts: Mapping[str, JSON]) -> None:
        """Drop the old databases."""
        self._restore.finish(job, facts)
