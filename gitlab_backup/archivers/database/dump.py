"""The dump of one database, by one or several runs of pg_dump on its snapshot, into the backup."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from attrs import frozen

from ...errors import ComponentError, ProgramError
from ...instance.identity import account_to_become
from ...instance.postgres import where
from ...streams.process import Program, capture
from .joined import run_alone, run_joined
from .shares import Sharing, share_tables
from .snapshot import pooler_hint

if TYPE_CHECKING:
    from ...instance import Instance
    from ...streams.cancel import Cancellation
    from ..base import JSON, BackupJob
    from .joined import Dumped
    from .snapshot import Snapshot

# A change of a table that waits for the first run must not make another run wait behind it, for ever.
_ROWS: Final = ("--section=data", "--lock-wait-timeout=10s")
_VERSION: Final = re.compile(r"\(PostgreSQL\) ((\d+)\S*)")


@frozen
class PgDump:
    """The installed pg_dump."""

    path: str
    version: str
    major: int


def find_pg_dump(instance: Instance, cancel: Cancellation) -> PgDump:
    """Return the pg_dump of the instance's search path.

    Raises `ProgramNotFoundError` where there is none, and `ProgramError` where it does not tell its version.
    """
    path = instance.program("pg_dump")
    _, output = capture(Program((path, "--version"), instance.environment()), cancel=cancel)
    text = output.decode(errors="replace").strip()
    version = _VERSION.search(text)
    if version is None:
        raise ProgramError(
            f"{path} does not tell its version, but says {text!r}", hint="Check that it is PostgreSQL's pg_dump."
        )
    return PgDump(path, version[1], int(version[2]))


def dump(
    job: BackupJob,
    pg_dump: PgDump,
    snapshot: Snapshot,
    cancel: Cancellation,
    *,
    streams: int = 1,
    sharing: Sharing | None = None,
) -> dict[str, JSON]:
    """Write the dump of one database into the backup and return what the manifest says of it.

    With `streams`, so many runs of pg_dump share the work, if there are tables that are worth it.

    Raises `ComponentError` where pg_dump fails or its dump is not whole, `DatabaseError` where the tables cannot be
    listed, `StreamError` where the dump cannot be written.
    """
    database = snapshot.database
    sharing = sharing or Sharing()
    shares = share_tables(snapshot, streams, sharing, cancel) if streams > 1 else []

    def program(*arguments: str) -> Program:
        return Program(
            # Where to connect to is in the environment: any user of the machine sees arguments.
            (pg_dump.path, f"--snapshot={snapshot.id}", "--no-password", *arguments),
            {**job.instance.environment(), **database.environment()},
            account_to_become(database.system_user),
        )

    whole = program(
        "--clean",
        "--if-exists",
        *(argument for schema in database.schemas for argument in ("-n", schema)),
        *(f"--exclude-table-data={table}" for share in shares for table in share),
    )
    stream = job.create_stream(f"{job.component.destination}/{database.file_name}")
    try:
        if shares:
            rows_of = [(program(*_ROWS, *(f"--table={table}" for table in share)), len(share)) for share in shares]
            dumped = run_joined(whole, rows_of, stream, sharing.piece, cancel)
        else:
            dumped = run_alone(whole, stream, cancel)
        stream.finish()
    except ProgramError as error:
        raise ComponentError(f"{where(database)}: {error.message}", hint=_hint(error, snapshot)) from error
    except ComponentError as error:
        raise ComponentError(f"{where(database)}: {error.message}", hint=error.hint) from error
    finally:
        stream.abort()
    return _details(job, pg_dump, snapshot, dumped)


def _details(job: BackupJob, pg_dump: PgDump, snapshot: Snapshot, dumped: Dumped) -> dict[str, JSON]:
    database = snapshot.database
    return {
        "file": f"{job.component.destination}/{database.file_name}{job.codec.suffix}",
        "dbname": database.dbname,
        "host": database.host,
        "snapshot": snapshot.id,
        "snapshot_taken_at": snapshot.taken_at.isoformat(timespec="seconds").replace("+00:00", "Z"),
        "wal_lsn": snapshot.wal_lsn,
        "server_version": snapshot.server_version,
        "pg_dump_version": pg_dump.version,
        "size_bytes": snapshot.size,
        "dump_bytes": dumped.size,
        "encoding": snapshot.encoding,
        "collation": snapshot.collation,
        "ctype": snapshot.ctype,
        "schemas": list(database.schemas),
        "extensions": dict(snapshot.extensions),
        "rows": dict(dumped.rows),
        "messages": list(dumped.messages.splitlines()),
    }


def _hint(error: ProgramError, snapshot: Snapshot) -> str:
    if "LOCK TABLE" in error.message:
        return "A change of a table waited for its turn meanwhile. Back up while no migration runs, or with --jobs 1."
    return (
        pooler_hint(snapshot, error.message) or error.hint or "Look at the log of the server for what it says of this."
    )
