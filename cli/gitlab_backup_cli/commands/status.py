"""`status`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, cast

import typer

from gitlab_backup.errors import ExitStatus, StoreError
from gitlab_backup.operations.progress import WAITING, seconds_left
from gitlab_backup.store import LOCK_NAME

from ..display.progress import active, number, progress
from ..output import write, write_json
from ..session import Session  # noqa: TC001 - the signature is looked at when the command starts
from ..text import duration, escape, size

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from gitlab_backup.archivers.base import JSON
    from gitlab_backup.store import BackupStore


def status(
    session: Session,
    *,
    json: Annotated[bool, typer.Option("--json", help="Print a JSON document.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing: the exit status says it.")] = False,
) -> None:
    """Show what is running, and how far it is.

    The exit status is 6 where something is running on the backup path, and 0 where nothing is.

    \b
    Examples:
      gitlab-backup-cli status
      gitlab-backup-cli status --quiet || echo "a backup is running"
    """  # noqa: D301 - \b keeps the lines of the example apart
    store = session.store()
    found = running(store)
    if found is None:
        if json:
            write_json({"backup_path": str(store.path), "running": None})
        elif not quiet:
            write(f"nothing is running on {escape(str(store.path))}\n")
        return
    told = found.get("progress")
    record = cast("Mapping[str, JSON]", told if isinstance(told, dict) else {})
    left = seconds_left(store, record)
    if json:
        keys = {key: cast("JSON", found[key]) for key in ("operation", "pid", "since")}
        shown = {**keys, "seconds_left": None if left is None else round(left), "progress": record or None}
        write_json({"backup_path": str(store.path), "running": shown})
    elif not quiet:
        write("".join(f"{line}\n" for line in _lines(found, record, left)))
    raise typer.Exit(ExitStatus.LOCKED)


def running(store: BackupStore) -> dict[str, object] | None:
    """Return what runs; None where nothing does. Raises `StoreError` where that cannot be seen."""
    try:
        with (store.path / LOCK_NAME).open("rb"):
            return store.running()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreError(
            f"whether something is running cannot be seen: {error.filename}: {error.strerror}",
            hint="Ask as the user that makes the backups, or as root.",
        ) from error


def _lines(found: Mapping[str, object], record: Mapping[str, JSON], left: float | None) -> Iterator[str]:
    operation = escape(str(found["operation"]))
    yield progress(operation, record, left) if record.get("step") else operation
    yield f"  pid {found['pid']}, since {escape(str(found['since']))}{_ago(found['since'])}"
    components = record.get("components")
    accounts = components.items() if isinstance(components, dict) else ()
    for name, each in accounts:
        if not isinstance(each, dict) or each.get("status") == WAITING:
            continue
        done = f"{size(number(each, 'bytes_read'))} read, {size(number(each, 'bytes_written'))} written"
        word = "" if name in active(record) else f"{each.get('status')}; "
        yield f"  {escape(name)}: {escape(word)}{done}"
    waiting = [name for name, each in accounts if isinstance(each, dict) and each.get("status") == WAITING]
    if waiting:
        yield f"  waiting: {escape(', '.join(waiting))}"
    for key, text in (("warnings", "warnings so far"), ("deleted", "backups deleted")):
        if count := number(record, key):
            yield f"  {text}: {count:g}"


def _ago(since: object) -> str:
    try:
        started = datetime.strptime(str(since), "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except ValueError:
        return ""
    return f" ({duration(max((datetime.now(UTC) - started).total_seconds(), 0))} ago)"
