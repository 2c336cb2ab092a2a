"""One run of pg_dump, from a snapshot into the backup."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from attrs import frozen

from ...errors import ComponentError, ProgramError
from ...instance.identity import account_to_become
from ...instance.postgres import POOLER_HINT, where
from ...streams.process import Program, capture, run
from .scanner import DumpScanner, ScanningSink

if TYPE_CHECKING:
    from ...instance import Instance
    from ...streams.cancel import Cancellation
    from ..base import JSON, BackupJob
    from .snapshot import Snapshot

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


def dump_arguments(pg_dump: PgDump, snapshot: Snapshot) -> tuple[str, ...]:
    """Return the command line. Where to connect to is in the environment: any user of the machine sees arguments."""
    schemas = (argument for schema in snapshot.database.schemas for argument in ("-n", schema))
    return (
        pg_dump.path,
        "--clean",
        "--if-exists",
        f"--snapshot={snapshot.id}",
        "--no-password",
        *schemas,
    )


def dump(job: BackupJob, pg_dump: PgDump, snapshot: Snapshot, cancel: Cancellation) -> dict[str, JSON]:
    """Write the dump of one database into the backup and return what the manifest says of it.

    Raises `ComponentError` where pg_dump fails or its dump is not whole, `StreamError` where it cannot be
    written.
    """
    database = snapshot.database
    name = f"{job.component.destination}/{database.file_name}"
    scanner = DumpScanner()
    program = Program(
        dump_arguments(pg_dump, snapshot),
        {**job.instance.environment(), **database.environment()},
        account_to_become(database.system_user),
    )
    stream = job.create_stream(name)
    try:
        completed = run(program, stdout=ScanningSink(stream, scanner), cancel=cancel)
        if not (scanner.opened and scanner.complete):
            raise ComponentError(
                f"{where(database)}: pg_dump ended without an error, but its dump is cut short at {scanner.place}",
                hint="Look at the log of the server, then try again.",
            )
        stream.finish()
    except ProgramError as error:
        raise ComponentError(f"{where(database)}: {error.message}", hint=_hint(error, snapshot)) from error
    finally:
        stream.abort()
    return _details(job, pg_dump, snapshot, scanner, completed.stderr)


def _details(
    job: BackupJob, pg_dump: PgDump, snapshot: Snapshot, scanner: DumpScanner, messages: str
) -> dict[str, JSON]:
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
        "dump_bytes": scanner.size,
        "encoding": snapshot.encoding,
        "collation": snapshot.collation,
        "ctype": snapshot.ctype,
        "schemas": list(database.schemas),
        "extensions": dict(snapshot.extensions),
        "rows": dict(scanner.rows),
        "messages": list(messages.splitlines()),
    }


def _hint(error: ProgramError, snapshot: Snapshot) -> str | None:
    if "snapshot" in error.message:
        return POOLER_HINT if snapshot.pooled else f"The session that held the snapshot has ended. {POOLER_HINT}"
    return error.hint or "Look at the log of the server for what it says of this."
