"""What is looked at before a database is restored, and the way that follows from it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from attrs import frozen

from ...errors import DatabaseError, RefusedError
from ...instance.postgres import connect, server_version, where
from . import server
from .emptying import not_owned, other_schemas
from .preface import read_preface

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import psycopg
    from psycopg.rows import TupleRow

    from ...instance import Database
    from ..base import JSON, RestoreJob
    from .preface import Preface

SWAP: Final = "swap"
TRANSACTION: Final = "transaction"
STRATEGIES: Final = (SWAP, TRANSACTION)

_SHOWN: Final = 5


@frozen(kw_only=True)
class Check:
    """What is known of one database before its restore."""

    database: Database
    file: str
    schemas: tuple[str, ...]
    """The schemas that the dump is of; empty for all."""
    state: server.DatabaseState | None
    """None where there is no such database yet."""
    why_not_swap: str | None
    why_not_transaction: str | None
    space: tuple[tuple[Path, int], ...]

    def replaced(self) -> str:
        """Say what will be gone."""
        if self.state is None:
            return f"database {self.database.name} ({self.database.dbname}): does not exist yet"
        size = self.state.size / (1 << 20)
        return f"database {self.database.name} ({self.database.dbname}): {self.state.tables} tables, {size:.1f} MiB"

    def notes(self) -> list[str]:
        """Say who is connected, and what a dump can do that should not be trusted."""
        if self.state is None:
            return []
        notes = []
        if self.state.superuser:
            notes.append(
                f"the dump of {self.database.name} is run by a superuser: its functions can run programs on the server."
                " Restore only what you trust, or as the role that GitLab uses"
            )
        if not self.state.sessions:
            return notes
        who = ", ".join(f"{name} ({count})" for name, count in self.state.sessions)
        advice = "Stop Puma and Sidekiq first (`gitlab-ctl stop puma`, `gitlab-ctl stop sidekiq`)"
        return [*notes, f"connected to {self.database.dbname}: {who}. {advice}"]


def check(job: RestoreJob, database: Database, file: str) -> Check:
    """Look at a dump, and at the database that it goes into.

    Raises `RefusedError` where neither way can succeed, `DatabaseError`, and what `read_preface` raises.
    """
    with job.open_stream(file) as dump:
        preface = read_preface(dump, file)
    about = details_of(job, database.name)
    schemas = about.get("schemas", database.schemas)
    schemas = tuple(map(str, schemas)) if isinstance(schemas, list | tuple) else ()
    try:
        maintenance, unreachable = server.maintenance_connection(database), None
    except DatabaseError as error:
        # Then the database itself is there, or the error is about more than those two.
        maintenance, unreachable = connect(database, autocommit=True), error
    with maintenance as connection, server.speaking(database, "cannot be looked at"):
        _check_version(database, preface, server_version(connection), file)
        there = server.exists(connection, database.dbname)
        lacking = server.extensions_lacking(connection, preface.extensions)
        if lacking.unavailable:
            raise RefusedError(
                f"{where(database)}: the dump needs extensions that this server does not have:"
                f" {', '.join(lacking.unavailable)}",
                hint="Install them (Debian: postgresql-contrib), then try again.",
            )
        state = server.database_state(database) if there else None
        recorded = about.get("size_bytes")
        size = recorded if isinstance(recorded, int) else state.size if state else 0
        directory = server.data_directory(connection, database)
        if state is None:
            _check_absent(connection, database, lacking)
    why_not_swap: str | None = None
    why_not_transaction: str | None = "it does not exist"
    if state is not None:
        why_not_swap, why_not_transaction = obstacles(database, preface, lacking, state, schemas)
        if unreachable is not None:
            why_not_swap = f"no other database of the server can be connected to ({unreachable.message})"
    return Check(
        database=database,
        file=file,
        schemas=schemas,
        state=state,
        why_not_swap=why_not_swap,
        why_not_transaction=why_not_transaction,
        space=((directory, size),) if directory is not None and size else (),
    )


def _check_absent(connection: psycopg.Connection[TupleRow], database: Database, lacking: server.Extensions) -> None:
    if not server.may_create_databases(connection):
        raise RefusedError(
            f"{where(database)} does not exist, and the role may not create it",
            hint=f"Create the database {database.dbname}, or give the role CREATEDB.",
        )
    if lacking.untrusted and not server.superuser(connection):
        raise RefusedError(
            f"{where(database)} does not exist, and only a superuser may create the extensions"
            f" {', '.join(lacking.untrusted)} in it",
            hint=f"As a superuser, create the database {database.dbname} and these extensions in it.",
        )


def obstacles(
    database: Database,
    preface: Preface,
    lacking: server.Extensions,
    state: server.DatabaseState,
    schemas: tuple[str, ...],
) -> tuple[str | None, str | None]:
    """Return why the database can neither be swapped nor restored in a transaction; None where it can."""
    with connect(database, autocommit=True) as connection, server.speaking(database, "cannot be looked at"):
        here = server.extensions_lacking(connection, preface.extensions)
        # The dump of some schemas has no extensions: those that are there will be needed.
        needed = [name for name, _ in server.extensions_of(connection)] if schemas else list(preface.extensions)
        untrusted = server.extensions_lacking(connection, needed).untrusted if schemas else lacking.untrusted
        others = other_schemas(connection, schemas) if schemas else []
        foreign = not_owned(connection, schemas)
    swap, transaction = state.why_not_replace, None
    if swap is None and untrusted and not state.superuser:
        swap = f"only a superuser may create the extensions {', '.join(untrusted)} in a new database"
    if swap is None and others:
        swap = f"it has schemas that are not in the dump, and would be lost: {', '.join(others[:_SHOWN])}"
    missing = [name for name in here.absent if name in here.untrusted]
    if missing and not state.superuser:
        transaction = f"the extensions {', '.join(missing)} are missing in it, and only a superuser may create them"
    elif foreign:
        transaction = f"the role does not own {', '.join(foreign[:_SHOWN])}"
    return swap, transaction


def _check_version(database: Database, preface: Preface, version: int, file: str) -> None:
    if preface.server_major is not None and version // 10000 < preface.server_major:
        raise RefusedError(
            f"{file} is of a PostgreSQL {preface.server_major}, but {where(database)} is of version {version // 10000}",
            hint=f"Restore on a PostgreSQL {preface.server_major} or newer.",
        )


def choose_strategy(chosen: str | None, checks: list[Check]) -> tuple[str, str]:
    """Return the way to go for all databases, and what to say of it: `chosen`, else the one that can be undone.

    Raises `RefusedError` where it cannot be gone.
    """
    swap = next((f"{where(each.database)}: {each.why_not_swap}" for each in checks if each.why_not_swap), None)
    transaction = next(
        (f"{where(each.database)}: {each.why_not_transaction}" for each in checks if each.why_not_transaction), None
    )
    if chosen == SWAP and swap is not None:
        raise RefusedError(f"the strategy swap is not possible: {swap}", hint="Change that, or use transaction.")
    if chosen != TRANSACTION and swap is None:
        return SWAP, (
            "the databases are loaded into new ones, which then take the places of the old (strategy swap):"
            " all sessions are ended then"
        )
    if transaction is not None:
        also = f"; nor is the strategy swap: {swap}" if swap is not None else ""
        raise RefusedError(
            f"the strategy transaction is not possible: {transaction}{also}",
            hint="Change that" + (", or use the strategy swap." if swap is None else ", then try again."),
        )
    because = f"; swap is not possible: {swap}" if swap is not None else ""
    return TRANSACTION, (
        "the databases are loaded in one transaction each (strategy transaction"
        f"{because}): users wait until it ends, and what was there cannot be put back after the commit"
    )


def details_of(job: RestoreJob, name: str) -> Mapping[str, JSON]:
    """Return what the manifest says of a database, which may be anything."""
    databases = (job.details or {}).get("databases")
    found = databases.get(name) if isinstance(databases, dict) else None
    return found if isinstance(found, dict) else {}
