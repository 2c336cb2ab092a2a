"""Checks of the installation: whether it could be backed up now, and restored."""

from __future__ import annotations

import os
import re
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from attrs import evolve

from ..archivers.base import RepositoryOptions
from ..archivers.registry import archiver_for
from ..components import COMPONENTS, Holder
from ..errors import CancelledError, GitLabBackupError, ProgramError
from ..streams.process import Program, capture
from .findings import ok, problem, warning
from .plan import options, plan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..archivers.database.snapshot import Snapshot
    from ..instance import Database, Instance
    from ..instance.model import Storage
    from ..streams.cancel import Cancellation
    from .findings import Finding

_SHOWN: Final = 5
_PATIENCE: Final = 10
"""Seconds to wait for a server, or a program."""
_PG_DUMP: Final = re.compile(r"\(PostgreSQL\) ((\d+)\S*)")
_ANY_VERSION: Final = 1 << 30
_SERVER: Final = re.compile(r"(?P<scheme>unix|tcp|tls|dns):(?://)?(?P<place>.+)")


def configuration(instance: Instance, _cancel: Cancellation) -> Iterator[Finding]:
    """Say which installation this is. It has been read."""
    yield ok(
        "configuration",
        f"GitLab {instance.gitlab_version}, {instance.installation}: {instance.gitlab_config} and"
        f" {instance.database_config} can be read",
    )


def programs(instance: Instance, cancel: Cancellation) -> Iterator[Finding]:
    """Look for the programs that a backup runs."""
    yield from _tried("pg_dump", lambda: _pg_dump(instance, cancel)[0])
    name = _archiver_of_repositories(instance)
    if name == "gitaly":
        yield from _tried("gitaly-backup", lambda: _gitaly_backup(instance, cancel))
    elif name == "git":
        yield from _tried("git", lambda: _git(instance, cancel))


def databases(instance: Instance, cancel: Cancellation) -> Iterator[Finding]:
    """Connect to every database as a backup does, and ask what the role may do."""
    pg_dump: int | None = None
    with suppress(ProgramError):  # told among the programs
        _, pg_dump = _pg_dump(instance, cancel)
    for database in instance.databases:
        cancel.check()
        patient = evolve(database, connect_timeout=min(database.connect_timeout, _PATIENCE))
        yield from _guarded(f"database {database.name}", _database(patient, pg_dump))


def storages(instance: Instance, cancel: Cancellation) -> Iterator[Finding]:
    """Look whether the repositories can be reached, in the way that a backup would."""
    if not instance.storages:
        yield warning(
            "storages",
            "no repository storage is configured: a backup has no repositories",
            "Add repositories.storages to gitlab.yml.",
        )
    by_gitaly = _archiver_of_repositories(instance) == "gitaly"
    for storage in instance.storages:
        cancel.check()
        yield from _guarded(
            f"storage {storage.name}", _through_gitaly(instance, storage) if by_gitaly else _on_disk(storage)
        )


def directories(instance: Instance, cancel: Cancellation) -> Iterator[Finding]:
    """Look whether the directories can be read, and whether one of them would swallow the backup."""
    for component in COMPONENTS:
        cancel.check()
        if component.holder is Holder.DIRECTORY:
            yield from _guarded(component.id, _directory(instance, component.id))


def _guarded(
    about: str, found: Iterator[Finding], *, otherwise: str = "Repair what the message names."
) -> Iterator[Finding]:
    """Hand on what is found; what ends the search is a problem of `about`, and only of that.

    `otherwise` is what to do where the error has no hint.
    """
    try:
        yield from found
    except CancelledError:
        raise
    except GitLabBackupError as error:
        yield problem(about, error.message, error.hint or otherwise)


def _tried(about: str, look: Callable[[], Finding]) -> Iterator[Finding]:
    def one() -> Iterator[Finding]:
        yield look()

    return _guarded(about, one(), otherwise=f"Run `{about} --version` by hand, and repair what it says.")


def _pg_dump(instance: Instance, cancel: Cancellation) -> tuple[Finding, int]:
    """Return what there is to say of the pg_dump that a backup runs, and its major version. Raises `ProgramError`."""
    path = instance.program("pg_dump")
    _, output = capture(Program((path, "--version"), instance.environment()), cancel=cancel, timeout=_PATIENCE)
    version = _PG_DUMP.search(output.decode(errors="replace"))
    if version is None:
        raise ProgramError(f"{path} does not tell its version", hint="Check that it is PostgreSQL's pg_dump.")
    return ok("pg_dump", f"{version[1]}: {path}"), int(version[2])


def _archiver_of_repositories(instance: Instance) -> str:
    (component,) = (each for each in COMPONENTS if each.holder is Holder.STORAGES)
    return archiver_for(component, RepositoryOptions(), instance).name


def _git(instance: Instance, cancel: Cancellation) -> Finding:
    from ..archivers.git.program import Git

    git = Git.of(instance, jobs=1, cancel=cancel)
    without = " (gitaly-backup was not found: repositories are read by git)"
    return ok("git", f"{git.version}: {git.path}" + without * any(each.gitaly_address for each in instance.storages))


def _gitaly_backup(instance: Instance, cancel: Cancellation) -> Finding:
    from ..archivers.gitaly.program import GitalyBackup

    program = GitalyBackup.of(instance, cancel=cancel)
    return ok("gitaly-backup", f"{program.version_text}: {program.path}")


def _database(database: Database, pg_dump: int | None) -> Iterator[Finding]:
    from ..archivers.database.snapshot import take_snapshot
    from ..instance.postgres import where

    about = f"database {database.name}"
    # A pg_dump that is too old is one finding among others.
    snapshot = take_snapshot(database, pg_dump_major=_ANY_VERSION)
    try:
        yield ok(about, f"PostgreSQL {snapshot.server_version} answers: {where(database)}")
        server = int(re.split(r"\D", snapshot.server_version, maxsplit=1)[0])
        if pg_dump is not None and server > pg_dump:
            yield problem(
                about,
                f"pg_dump is of version {pg_dump}, but the server of version {server}: pg_dump refuses to dump it",
                f"Install the client programs of PostgreSQL {server}, and put them first in the search path.",
            )
        yield from _guarded(about, _readable(about, snapshot))
    finally:
        snapshot.release()
    yield from _guarded(about, _restorable(about, database))


def _readable(about: str, snapshot: Snapshot) -> Iterator[Finding]:
    from ..archivers.database.fitness import unreadable
    from ..instance.postgres import POOLER_HINT

    if snapshot.pooled:
        yield warning(
            about,
            "a connection pooler, probably PgBouncer, stands between: the process id that the connection was"
            " given is not that of the server. A dump through it can fail half-way, and a restore likewise",
            POOLER_HINT,
        )
    if names := unreadable(snapshot):
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        yield problem(
            about,
            f"the role may not read {', '.join(names[:_SHOWN])}{more}: pg_dump would fail",
            "Grant it USAGE on the schemas and SELECT on these, exempt it from row-level security, or make it their"
            " owner.",
        )
    else:
        yield ok(about, "the role may read all that a dump needs")


def _restorable(about: str, database: Database) -> Iterator[Finding]:
    from ..archivers.database.fitness import ways_of_restore

    swap, transaction = ways_of_restore(database)
    if swap is None:
        yield ok(about, "a restore can load a new database beside this one, and be undone (strategy swap)")
    elif transaction is None:
        yield ok(
            about,
            f"a restore can replace what is in it in one transaction only, not undo it afterwards: {swap}",
            "Give the role CREATEDB, and make it the owner of the database, at least for the time of a restore.",
        )
    else:
        yield warning(
            about,
            f"a restore would be refused: {swap}; {transaction}",
            "Before a restore, give the role CREATEDB, or make it the owner of all that is in the database.",
        )


def _on_disk(storage: Storage) -> Iterator[Finding]:
    from ..archivers.git.listing import storage_on_disk

    about = f"storage {storage.name}"
    storage_on_disk(storage.name, storage, f"the storage {storage.name!r}")
    yield ok(about, f"{storage.path} can be read")


def _through_gitaly(instance: Instance, storage: Storage) -> Iterator[Finding]:
    from ..archivers.gitaly.program import check_storages

    check_storages(instance, [storage.name])
    about, address = f"storage {storage.name}", storage.gitaly_address or ""
    to_do = "Start that Gitaly (gitlab-ctl status gitaly), or correct its gitaly_address in gitlab.yml."
    match = _SERVER.fullmatch(address)
    if match is None:
        yield problem(about, f"its gitaly_address {address} cannot be understood", to_do)
        return
    try:
        _knock(match["scheme"], match["place"])
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        yield problem(about, f"its Gitaly cannot be reached at {address}: {reason}", to_do)
    else:
        yield ok(about, f"something listens at {address}; whether Gitaly accepts the token, a backup will show")


def _knock(scheme: str, place: str) -> None:
    """Connect, and hang up. Raises `OSError`, and `ValueError` for a place without a port."""
    if scheme == "unix":
        with socket.socket(socket.AF_UNIX) as knocking:
            knocking.settimeout(_PATIENCE)
            knocking.connect(place)
        return
    # Of gRPC's `dns://<name server>/<host>:<port>`, the name server is left to the system.
    host, _, port = place.rpartition("/")[2].rpartition(":")
    if not (host and port.isdecimal()):
        raise ValueError("it names no port")
    socket.create_connection((host.strip("[]"), int(port)), timeout=_PATIENCE).close()


def _directory(instance: Instance, component_id: str) -> Iterator[Finding]:
    planned = plan(instance, options(only=[component_id]))
    (item,) = (each for each in planned if each.component.id == component_id)
    if item.left_out is not None:
        yield ok(component_id, f"not in a backup: {item.left_out}")
        return
    path = instance.directory(item.component).path
    try:
        with os.scandir(path) as entries:
            next(entries, None)
    except OSError as error:
        yield problem(
            component_id,
            f"{path} cannot be read: {error.strerror}",
            "Run this as root, or give this user the right to read it.",
        )
    else:
        yield ok(component_id, f"{path} can be read")
